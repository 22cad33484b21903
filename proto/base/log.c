/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/buf.h"
#include "proto/base/clock.h"
#include "proto/base/id.h"
#include "proto/base/utf8.h"

enum { LINE_MAX_BYTES = 8192, VALUE_MAX_BYTES = 2048 };

static _Atomic int current_level = LOG_LEVEL_INFO;
static _Atomic int current_format = LOG_FORMAT_LOGFMT;

static _Thread_local struct {
    char thread[16];
    char task[ID_BYTES];
    char vm[128];
} context;

static const struct {
    const char *name;
    int priority; /* of syslog(3), which journald reads from the "<N>" prefix */
} levels[] = {
    [LOG_LEVEL_ERROR] = {"error", 3},
    [LOG_LEVEL_WARN] = {"warn", 4},
    [LOG_LEVEL_INFO] = {"info", 6},
    [LOG_LEVEL_DEBUG] = {"debug", 7},
};

static bool needs_quotes(const char *value)
{
    if (*value == '\0' || strnlen(value, VALUE_MAX_BYTES) == VALUE_MAX_BYTES)
        return true;
    for (const unsigned char *c = (const unsigned char *)value; *c; c++) {
        if (*c <= ' ' || *c == '"' || *c == '=' || *c == '\\' || *c >= 0x7f)
            return true;
    }
    return false;
}

/* A JSON string; also what logfmt readers expect of a quoted value. Bytes that are not UTF-8 become
 * '?'; a value that is too long is cut between characters. */
static void add_quoted(struct buf *b, const char *value)
{
    buf_add(b, "\"", 1);
    for (size_t start = b->len; *value && b->len - start < VALUE_MAX_BYTES;) {
        unsigned char c = (unsigned char)*value;
        size_t len = utf8_length(value);
        if (c == '"' || c == '\\')
            buf_printf(b, "\\%c", c);
        else if (c == '\n')
            buf_add(b, "\\n", 2);
        else if (c < ' ' || c == 0x7f)
            buf_printf(b, "\\u%04x", c);
        else
            buf_add(b, len ? value : "?", len ? len : 1);
        value += len ? len : 1;
    }
    buf_add(b, "\"", 1);
}

static void add_pair(struct buf *b, bool json, const char *key, const char *value)
{
    if (json) {
        buf_add(b, b->len > 1 ? "," : "", b->len > 1);
        add_quoted(b, key);
        buf_add(b, ":", 1);
        add_quoted(b, value);
        return;
    }
    buf_printf(b, " %s=", key);
    if (needs_quotes(value))
        add_quoted(b, value);
    else
        buf_add(b, value, strlen(value));
}

static void add_field(struct buf *b, bool json, const struct log_field *field)
{
    char number[32];
    switch (field->type) {
    case LOG_FIELD_STR:
        add_pair(b, json, field->key, field->str ? field->str : "");
        return;
    case LOG_FIELD_U64:
        snprintf(number, sizeof number, "%" PRIu64, field->u64);
        break;
    case LOG_FIELD_I64:
        snprintf(number, sizeof number, "%" PRId64, field->i64);
        break;
    }
    if (json)
        buf_printf(b, "%s\"%s\":%s", b->len > 1 ? "," : "", field->key, number);
    else
        buf_printf(b, " %s=%s", field->key, number);
}

void log_write(enum log_level level, const char *event, const struct log_field *fields)
{
    if ((int)level > current_level)
        return;
    bool json = current_format == LOG_FORMAT_JSON;
    SCOPED_BUF struct buf line;
    buf_init(&line, 2 * LINE_MAX_BYTES);
    char now[CLOCK_TEXT_BYTES];
    clock_format_utc(clock_wall_ms(clock_system()), now);
    if (json)
        buf_add(&line, "{", 1);
    else
        buf_printf(&line, "<%d>ts=%s", levels[level].priority, now);
    if (json)
        add_pair(&line, json, "ts", now);
    add_pair(&line, json, "level", levels[level].name);
    if (context.thread[0])
        add_pair(&line, json, "thread", context.thread);
    if (context.task[0])
        add_pair(&line, json, "task", context.task);
    if (context.vm[0])
        add_pair(&line, json, "vm", context.vm);
    add_pair(&line, json, "event", event);
    for (; fields->key; fields++) {
        size_t before = line.len;
        add_field(&line, json, fields);
        if (line.len > LINE_MAX_BYTES - 2)
            line.len = before; /* a field is there whole or not at all */
    }
    buf_add(&line, json ? "}\n" : "\n", json ? 2 : 1);
    /* A log that cannot be written must not stop the work. */
    (void)!write(STDERR_FILENO, line.data, line.len);
}

void log_err(enum log_level level, const char *event, const struct err *err)
{
    char at[128];
    snprintf(at, sizeof at, "%s:%d", err->file ? err->file : "?", err->line);
    log_write(level, event,
              (const struct log_field[]){LOG_STR("code", err_code_name(err->code)),
                                         LOG_STR("retry", err_retry_name(err_retry(err->code))),
                                         LOG_I64("sys", err->sys), LOG_STR("at", at),
                                         LOG_STR("message", err->message), LOG_END});
}

void log_set_level(enum log_level level)
{
    current_level = (int)level;
}

void log_set_format(enum log_format format)
{
    current_format = (int)format;
}

bool log_level_parse(const char *word, enum log_level *ret_level)
{
    for (size_t i = 0; i < ARRAY_LEN(levels); i++) {
        if (strcmp(levels[i].name, word) == 0) {
            *ret_level = (enum log_level)i;
            return true;
        }
    }
    return false;
}

bool log_format_parse(const char *word, enum log_format *ret_format)
{
    if (strcmp(word, "logfmt") == 0)
        *ret_format = LOG_FORMAT_LOGFMT;
    else if (strcmp(word, "json") == 0)
        *ret_format = LOG_FORMAT_JSON;
    else
        return false;
    return true;
}

void log_set_thread(const char *name)
{
    snprintf(context.thread, sizeof context.thread, "%s", name);
    (void)pthread_setname_np(pthread_self(), context.thread);
}

void log_set_context(const char *task, const char *vm)
{
    snprintf(context.task, sizeof context.task, "%s", task ? task : "");
    snprintf(context.vm, sizeof context.vm, "%s", vm ? vm : "");
}

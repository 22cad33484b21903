/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Logging: one line a record on standard error, logfmt (or JSON) with a journald priority prefix.
 *
 *     log_info("disk_copied", LOG_STR("disk", id), LOG_U64("bytes", n));
 *     <6>ts=2026-11-28T20:06:00Z level=info thread=task-3 task=.. event=disk_copied disk=..
 *
 * A function logs an error or returns it, never both. No secrets, tokens or disk data, ever.
 * Threads: any; a line is written by one write(2). Context and thread name are per thread.
 */
#pragma once

#include <inttypes.h>
#include <stdbool.h>

#include "proto/base/err.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
enum log_format { LOG_FORMAT_LOGFMT, LOG_FORMAT_JSON };

struct log_field {
    const char *key; /* NULL ends a list */
    enum { LOG_FIELD_STR, LOG_FIELD_U64, LOG_FIELD_I64 } type;
    const char *str; /* NULL prints as an empty string */
    uint64_t u64;
    int64_t i64;
};

#define LOG_STR(k, v) ((struct log_field){.key = (k), .type = LOG_FIELD_STR, .str = (v)})
#define LOG_U64(k, v) ((struct log_field){.key = (k), .type = LOG_FIELD_U64, .u64 = (v)})
#define LOG_I64(k, v) ((struct log_field){.key = (k), .type = LOG_FIELD_I64, .i64 = (v)})
#define LOG_END       ((struct log_field){.key = NULL})

#define log_error(event, ...) LOG_WRITE(LOG_LEVEL_ERROR, event, ##__VA_ARGS__, LOG_END)
#define log_warn(event, ...)  LOG_WRITE(LOG_LEVEL_WARN, event, ##__VA_ARGS__, LOG_END)
#define log_info(event, ...)  LOG_WRITE(LOG_LEVEL_INFO, event, ##__VA_ARGS__, LOG_END)
#define log_debug(event, ...) LOG_WRITE(LOG_LEVEL_DEBUG, event, ##__VA_ARGS__, LOG_END)
#define LOG_WRITE(level, event, ...)                                                               \
    log_write((level), (event), (const struct log_field[]){__VA_ARGS__})

/* `event` is a short snake_case name; `fields` ends with LOG_END. */
void log_write(enum log_level level, const char *event, const struct log_field *fields);

/* The one record of an error: event, code, retry, at, sys, message, then `fields`. */
void log_err(enum log_level level, const char *event, const struct err *err);

/* Process-wide; call before threads start. */
void log_set_level(enum log_level level);
void log_set_format(enum log_format format);
/* false for an unknown word. Words: error warn info debug; logfmt json. */
bool log_level_parse(const char *word, enum log_level *ret_level);
bool log_format_parse(const char *word, enum log_format *ret_format);

/* Names this thread in its records ("io", "task-3"); at most 15 characters are kept. */
void log_set_thread(const char *name);

/* What this thread works on: copied, shown in each record; NULL or "" clears. */
void log_set_context(const char *task, const char *vm);

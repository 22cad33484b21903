/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/base/conf.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/buf.h"

/* libcyaml explains a refusal through its log callback: the first line is the cause, the last ones
 * a backtrace with line and column. They are gathered into one text. */
__attribute__((format(printf, 3, 0))) static void gather(cyaml_log_t level, void *ctx,
                                                         const char *fmt, va_list args)
{
    struct buf *text = ctx;
    if (level < CYAML_LOG_ERROR)
        return;
    char line[256];
    vsnprintf(line, sizeof line, fmt, args);
    const char *start = strncmp(line, "Load: ", 6) == 0 ? line + 6 : line;
    size_t len = strcspn(start, "\n");
    if (len == 0 || strncmp(start, "Backtrace", 9) == 0)
        return;
    if (text->len)
        buf_add(text, "; ", 2);
    buf_add(text, start + strspn(start, " "), len - strspn(start, " "));
}

static cyaml_config_t config_for(struct buf *text)
{
    return (cyaml_config_t){
        .log_fn = gather,
        .log_ctx = text,
        .log_level = CYAML_LOG_ERROR,
        .mem_fn = cyaml_mem,
        .flags = CYAML_CFG_DEFAULT,
    };
}

void *conf_load(const char *path, const cyaml_schema_value_t *schema, struct err *err)
{
    if (access(path, R_OK) != 0) {
        err_set(err, ERR_BAD_CONFIG, errno, "%s: %s", path, strerror(errno));
        return NULL;
    }
    SCOPED_BUF struct buf text;
    buf_init(&text, ERR_MESSAGE_BYTES);
    cyaml_config_t config = config_for(&text);
    cyaml_data_t *data = NULL;
    cyaml_err_t rc = cyaml_load_file(path, &config, schema, &data, NULL);
    if (rc != CYAML_OK) {
        err_set(err, ERR_BAD_CONFIG, 0, "%s: %s", path,
                text.len ? buf_str(&text) : cyaml_strerror(rc));
        return NULL;
    }
    if (!data)
        err_set(err, ERR_BAD_CONFIG, 0, "%s: the file is empty", path);
    return data;
}

void conf_free(void *conf, const cyaml_schema_value_t *schema)
{
    if (!conf)
        return;
    SCOPED_BUF struct buf text;
    buf_init(&text, ERR_MESSAGE_BYTES);
    cyaml_config_t config = config_for(&text);
    cyaml_free(&config, schema, conf, 0);
}

bool conf_dump(const void *conf, const cyaml_schema_value_t *schema, struct err *err)
{
    SCOPED_BUF struct buf text;
    buf_init(&text, ERR_MESSAGE_BYTES);
    cyaml_config_t config = config_for(&text);
    char *yaml = NULL;
    size_t len = 0;
    cyaml_err_t rc = cyaml_save_data(&yaml, &len, &config, schema, conf, 0);
    if (rc != CYAML_OK)
        return err_set(err, ERR_INTERNAL, 0, "dump configuration: %s",
                       text.len ? buf_str(&text) : cyaml_strerror(rc));
    bool ok = fwrite(yaml, 1, len, stdout) == len;
    config.mem_fn(config.mem_ctx, yaml, 0);
    return ok || err_set_errno(err, errno, "write configuration");
}

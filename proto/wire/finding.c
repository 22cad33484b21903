/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/wire/finding.h"

#include <string.h>

#include <jansson.h>

#include "proto/base/alloc.h"
#include "proto/wire/shapes.h"

static const char *const level_names[] = {"ok", "warning", "failure", "skipped"};

const char *finding_level_name(enum finding_level level)
{
    return level_names[level];
}

enum finding_level finding_level_of(const struct wire_finding *f)
{
    for (size_t i = 0; i < ARRAY_LEN(level_names); i++) {
        if (strcmp(level_names[i], f->level) == 0)
            return (enum finding_level)i;
    }
    return FINDING_FAILURE;
}

/* --- Making a list --------------------------------------------------------------------------- */
void findings_add(struct wire_findings *list, const struct finding_spec *spec, const char *fmt, ...)
{
    char text[FINDING_TEXT_BYTES];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    list->v = xreallocarray(list->v, list->count + 1, sizeof *list->v);
    list->v[list->count++] = (struct wire_finding){
        .check = xstrdup(spec->check),
        .level = xstrdup(finding_level_name(spec->level)),
        .worker = xstrdup_or_null(spec->worker),
        .message = xstrdup(text),
        .advice = spec->level == FINDING_OK ? NULL : xstrdup_or_null(spec->advice),
        .time_ms = spec->time_ms,
    };
}

void findings_done(struct wire_findings *list)
{
    for (size_t i = 0; i < list->count; i++)
        shape_free_members(&shape_finding, &list->v[i]);
    free(list->v);
    *list = (struct wire_findings){0};
}

void findings_count(const struct wire_finding *v, size_t count, struct finding_counts *ret)
{
    for (size_t i = 0; i < count; i++)
        ret->by_level[finding_level_of(&v[i])]++;
}

/* --- For people ------------------------------------------------------------------------------ */
enum { CHECK_WIDTH = 23 };

static void render_level(enum finding_level level, bool color, struct buf *out)
{
    static const struct {
        const char *word, *sgr;
    } words[] = {
        [FINDING_OK] = {"ok     ", "32"},
        [FINDING_WARNING] = {"warning", "33"},
        [FINDING_FAILURE] = {"FAILURE", "1;31"},
        [FINDING_SKIPPED] = {"skipped", "2"},
    };
    if (color)
        (void)buf_printf(out, "\033[%sm%s\033[0m", words[level].sgr, words[level].word);
    else
        (void)buf_printf(out, "%s", words[level].word);
}

void finding_render(const struct wire_finding *f, const struct finding_style *style,
                    struct buf *out)
{
    (void)buf_printf(out, "  ");
    render_level(finding_level_of(f), style->color, out);
    (void)buf_printf(out, "  ");
    int width = style->add_text(out, f->check, style->utf8);
    (void)buf_printf(out, "%*s  ", width < CHECK_WIDTH ? CHECK_WIDTH - width : 0, "");
    style->add_text(out, f->message, style->utf8);
    (void)buf_printf(out, "\n");
    if (f->advice) {
        (void)buf_printf(out, "           do: ");
        style->add_text(out, f->advice, style->utf8);
        (void)buf_printf(out, "\n");
    }
}

void findings_render_sum(const struct finding_counts *counts, struct buf *out)
{
    const size_t *n = counts->by_level;
    (void)buf_printf(out, "%zu ok, %zu warning%s, %zu failure%s", n[FINDING_OK], n[FINDING_WARNING],
                     n[FINDING_WARNING] == 1 ? "" : "s", n[FINDING_FAILURE],
                     n[FINDING_FAILURE] == 1 ? "" : "s");
    if (n[FINDING_SKIPPED])
        (void)buf_printf(out, ", %zu not checked", n[FINDING_SKIPPED]);
    (void)buf_printf(out, "\n");
}

/* --- For programs ---------------------------------------------------------------------------- */
bool finding_json(const struct wire_finding *f, struct buf *out, struct err *err)
{
    json_t *json = shape_encode(&shape_finding, f, err);
    if (!json)
        return false;
    json_t *line = json_pack("{s:s}", "type", "finding");
    json_object_update(line, json);
    char *text = json_dumps(line, JSON_COMPACT | JSON_ENSURE_ASCII);
    json_decref(line);
    json_decref(json);
    bool ok = text && buf_printf(out, "%s\n", text);
    free(text);
    return ok || err_set(err, ERR_TOO_LARGE, 0, "output is too large");
}

/* SPDX-License-Identifier: Apache-2.0 */
/* How a backup would go, in words and tables. */
#include <inttypes.h>
#include <string.h>

#include "coordinator/cli/format.h"
#include "coordinator/cli/report.h"

static void add_headline(const struct wire_plan_item *v, bool utf8, struct buf *out)
{
    char size[FORMAT_BYTES], read[FORMAT_BYTES], time[FORMAT_BYTES];
    format_size(v->size_bytes, size);
    format_size(v->read_bytes, read);
    format_duration(v->copy_ms, time);
    (void)text_add_clean(out, v->name, utf8);
    (void)buf_printf(out, " (");
    (void)text_add_clean(out, v->status, utf8);
    (void)buf_printf(out, v->zone ? ", zone %s): " : "%s): ", v->zone ? v->zone : "");
    if (v->size_bytes == 0) {
        (void)buf_printf(out, "nothing would be read\n");
        return;
    }
    (void)buf_printf(out, "about %s of %s to read, copied in about %s", read, size, time);
    if (!v->parent) {
        (void)buf_printf(out, "; its first restore point\n");
        return;
    }
    format_size(v->parent_stored_bytes, size);
    (void)buf_printf(out, "; the last restore point added %s\n", size);
}

static void add_disks(const struct wire_plan_disk *v, size_t count, int width, bool utf8,
                      struct buf *out)
{
    static const struct table_column columns[] = {
        {"  DISK", TABLE_LEFT, 8},   {"PATH", TABLE_LEFT, 0},  {"SIZE", TABLE_RIGHT, 0},
        {"TO READ", TABLE_RIGHT, 0}, {"TIME", TABLE_RIGHT, 0}, {"WHY", TABLE_LEFT, 16},
    };
    if (count == 0)
        return;
    SCOPED(table) struct table *t = table_new(columns, ARRAY_LEN(columns));
    for (size_t i = 0; i < count; i++) {
        const struct wire_plan_disk *d = &v[i];
        char text[FORMAT_BYTES];
        SCOPED_FREE char *name = xasprintf("  %s", d->alias ? d->alias : d->id);
        SCOPED_FREE char *path =
            xasprintf("%s%s", d->path ? d->path : "skipped", d->mapped ? "+map" : "");
        table_cell(t, name);
        table_cell(t, path);
        format_size(d->size_bytes, text);
        table_cell(t, text);
        format_size(d->read_bytes, text);
        table_cell(t, d->path ? text : NULL);
        format_duration(d->copy_ms, text);
        SCOPED_FREE char *time = xasprintf("%s%s", text, d->measured ? "" : "?");
        table_cell(t, d->path ? time : NULL);
        table_cell(t, d->why);
    }
    table_render(t, width, utf8, out);
}

/* Why not otherwise: the same words once for all disks that they hold for. */
static bool is_said_before(const struct wire_plan_disk *v, size_t disk,
                           const struct wire_plan_path *p)
{
    for (size_t i = 0; i < disk; i++) {
        for (size_t j = 0; j < v[i].instead.count; j++) {
            if (strcmp(v[i].instead.v[j].path, p->path) == 0 &&
                strcmp(v[i].instead.v[j].why, p->why) == 0)
                return true;
        }
    }
    return false;
}

static void add_others(const struct wire_plan_disk *v, size_t count, bool utf8, struct buf *out)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < v[i].instead.count; j++) {
            const struct wire_plan_path *p = &v[i].instead.v[j];
            if (is_said_before(v, i, p))
                continue;
            (void)buf_printf(out, "  not ");
            (void)text_add_clean(out, p->path, utf8);
            (void)buf_printf(out, ": ");
            (void)text_add_clean(out, p->why, utf8);
            (void)buf_printf(out, "\n");
        }
    }
}

static void add_note(const char *before, const char *message, const char *code, bool utf8,
                     struct buf *out)
{
    (void)buf_printf(out, "  %s", before);
    (void)text_add_clean(out, message, utf8);
    (void)buf_printf(out, " (");
    (void)text_add_clean(out, code, utf8);
    (void)buf_printf(out, ")\n");
}

/* What all of them come to; nothing for a single one. */
static void add_sum(const struct wire_plan_item *v, size_t count, struct buf *out)
{
    char size[FORMAT_BYTES], read[FORMAT_BYTES];
    int64_t size_bytes = 0, read_bytes = 0;
    size_t troubled = 0;
    for (size_t i = 0; i < count; i++) {
        size_bytes += v[i].size_bytes;
        read_bytes += v[i].read_bytes;
        troubled += v[i].problems.count > 0;
    }
    if (count < 2)
        return;
    format_size(size_bytes, size);
    format_size(read_bytes, read);
    (void)buf_printf(out, "\n%zu VMs: about %s of %s to read; %zu with problems\n", count, read,
                     size, troubled);
}

void report_plans(const struct wire_plan_item *v, size_t count, int width, bool utf8,
                  struct buf *out)
{
    bool assumed = false;
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            (void)buf_printf(out, "\n");
        add_headline(&v[i], utf8, out);
        add_disks(v[i].disks.v, v[i].disks.count, width, utf8, out);
        add_others(v[i].disks.v, v[i].disks.count, utf8, out);
        for (size_t p = 0; p < v[i].problems.count; p++)
            add_note("problem: ", v[i].problems.v[p].message, v[i].problems.v[p].code, utf8, out);
        for (size_t w = 0; w < v[i].warnings.count; w++) {
            const struct wire_warning *warning = &v[i].warnings.v[w];
            if (strcmp(warning->code, "disk-skipped") != 0) /* the table says it */
                add_note("warning: ", warning->message, warning->code, utf8, out);
        }
        for (size_t d = 0; d < v[i].disks.count; d++)
            assumed = assumed || (v[i].disks.v[d].path && !v[i].disks.v[d].measured);
    }
    add_sum(v, count, out);
    if (assumed)
        (void)buf_printf(out, "\n? = from an assumed rate: too little was measured in that zone\n");
}

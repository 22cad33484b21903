/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/step/select.h"

#include <string.h>

#include "proto/base/alloc.h"

bool select_excludes(const struct wire_select *select, const char *name)
{
    for (size_t i = 0; select && i < select->exclude.count; i++) {
        if (strcmp(select->exclude.v[i], name) == 0)
            return true;
    }
    return false;
}

bool select_is_empty(const struct wire_select *s)
{
    return !s || (!s->all && !s->search && s->ids.count == 0 && s->names.count == 0 &&
                  s->tags.count == 0);
}

bool selected_add(struct selected *s, const struct wire_select *select, const char *zone,
                  const struct ovirt_vm_row *row)
{
    if (select_excludes(select, row->name))
        return false;
    for (size_t i = 0; i < s->count; i++) {
        if (strcmp(s->v[i].id, row->id) == 0)
            return false;
    }
    if (s->count == s->room) {
        s->room = s->room ? 2 * s->room : 64;
        s->v = xreallocarray(s->v, s->room, sizeof *s->v);
    }
    struct wire_vm_item *item = &s->v[s->count++];
    *item = (struct wire_vm_item){
        .id = xstrdup(row->id),
        .name = xstrdup(row->name),
        .status = xstrdup(row->status ? row->status : "unknown"),
        .zone = xstrdup_or_null(zone),
        .cluster = xstrdup_or_null(row->cluster_name ? row->cluster_name : row->cluster_id),
        .host = xstrdup_or_null(row->host_id),
        .disks = (int64_t)row->disks,
        .provisioned_bytes = (int64_t)row->provisioned_bytes,
    };
    item->tags.v = xcalloc(row->tags_count, sizeof *item->tags.v);
    for (size_t i = 0; i < row->tags_count; i++)
        item->tags.v[item->tags.count++] = xstrdup(row->tags[i]);
    return true;
}

void selected_done(struct selected *s)
{
    for (size_t i = 0; i < s->count; i++) {
        struct wire_vm_item *item = &s->v[i];
        free(item->id);
        free(item->name);
        free(item->status);
        free(item->zone);
        free(item->cluster);
        free(item->host);
        for (size_t t = 0; t < item->tags.count; t++)
            free(item->tags.v[t]);
        free(item->tags.v);
    }
    free(s->v);
    *s = (struct selected){0};
}

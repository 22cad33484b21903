/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/step/point_items.h"

#include "proto/base/alloc.h"
#include "worker/step/point_meta.h"

/* Time and quiescing from the point's own record; the item stays as it is when that fails. */
static bool read_meta(struct store *store, struct wire_point_item *item, struct err *err)
{
    SCOPED(store_point) struct store_point *point = store_point_open_any(store, item->id, err);
    struct point_meta meta = {0};
    if (!point || !point_meta_parse(store_point_meta(point), &meta, err))
        return false;
    free(item->quiesced);
    item->quiesced = xstrdup(meta.quiesced ? "yes" : "no");
    if (meta.snapshot_ms > 0)
        item->time_ms = meta.snapshot_ms;
    point_meta_done(&meta);
    return true;
}

void point_items_add(struct point_items *items, struct store *store,
                     const struct store_point_info *info, const char *zone)
{
    if (items->count == items->room) {
        items->room = items->room ? 2 * items->room : 64;
        items->v = xreallocarray(items->v, items->room, sizeof *items->v);
    }
    struct wire_point_item *item = &items->v[items->count++];
    *item = (struct wire_point_item){
        .id = xstrdup(info->id),
        .vm = xstrdup(info->vm_id),
        .vm_name = xstrdup(info->vm_name),
        .zone = xstrdup_or_null(zone),
        .time_ms = info->created_ms,
        .disks = info->disks,
        .size_bytes = (int64_t)info->size_bytes,
        .stored_bytes = (int64_t)info->stored_bytes,
        .quiesced = xstrdup("no"),
        .message = xstrdup_or_null(info->damage),
    };
    struct err err = ERR_INIT;
    if (!info->damage && !read_meta(store, item, &err))
        item->message = xstrdup(err.message);
    item->state = xstrdup(item->message ? "damaged" : "good");
}

void point_items_done(struct point_items *items)
{
    for (size_t i = 0; i < items->count; i++) {
        struct wire_point_item *item = &items->v[i];
        free(item->id);
        free(item->vm);
        free(item->vm_name);
        free(item->zone);
        free(item->quiesced);
        free(item->state);
        free(item->message);
        free(item->verdict);
        free(item->rules);
    }
    free(items->v);
    *items = (struct point_items){0};
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/block/bitmap.h"

/* The description of a node; owned. NULL on error. */
static json_t *node_info(struct qmp *qmp, const char *node, struct err *err)
{
    json_auto_t *nodes = NULL;
    if (!qmp_call(qmp, "query-named-block-nodes", json_pack("{s:b}", "flat", 1), &nodes, err))
        return NULL;
    size_t i;
    json_t *one;
    json_array_foreach (nodes, i, one) {
        const char *name = json_string_value(json_object_get(one, "node-name"));
        if (name && strcmp(name, node) == 0)
            return json_incref(one);
    }
    err_set(err, ERR_NOT_FOUND, 0, "there is no node '%s'", node);
    return NULL;
}

json_t *bitmap_names_of(struct qmp *qmp, const char *node, struct err *err)
{
    json_auto_t *info = node_info(qmp, node, err);
    if (!info)
        return NULL;
    json_t *names = json_array();
    size_t i;
    json_t *bitmap;
    json_array_foreach (json_object_get(info, "dirty-bitmaps"), i, bitmap) {
        if (json_is_true(json_object_get(bitmap, "persistent")) &&
            !json_is_true(json_object_get(bitmap, "inconsistent")))
            json_array_append(names, json_object_get(bitmap, "name"));
    }
    return names;
}

uint64_t bitmap_count(struct qmp *qmp, const char *node, const char *name)
{
    struct err ignored = ERR_INIT;
    json_auto_t *info = node_info(qmp, node, &ignored);
    size_t i;
    json_t *bitmap;
    json_array_foreach (json_object_get(info, "dirty-bitmaps"), i, bitmap) {
        const char *found = json_string_value(json_object_get(bitmap, "name"));
        if (found && strcmp(found, name) == 0)
            return (uint64_t)json_integer_value(json_object_get(bitmap, "count"));
    }
    return 0;
}

json_t *bitmap_add_arguments(const char *node, const char *name, bool persistent)
{
    return json_pack("{s:s, s:s, s:b, s:b, s:i}", "node", node, "name", name, "persistent",
                     (int)persistent, "disabled", (int)!persistent, "granularity",
                     BITMAP_GRANULARITY);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/repo/changed.h"

#include <fcntl.h>
#include <inttypes.h>

#include <jansson.h>

#include "proto/base/file.h"
#include "worker/store/store.h"

enum { TYPE_DIRTY = 1 };

/* Clean ranges come in rising order; all between them is dirty. */
static void add_clean(struct extents *map, uint64_t from, uint64_t to)
{
    uint64_t end =
        map->count ? map->items[map->count - 1].offset + map->items[map->count - 1].len : 0;
    from = (from + STORE_BLOCK_BYTES - 1) / STORE_BLOCK_BYTES * STORE_BLOCK_BYTES;
    from = from > end ? from : end;
    if (from >= to)
        return;
    extents_add(map, end, from - end, true);
    extents_add(map, from, to - from, false);
}

static bool read_range(const json_t *item, uint64_t *ret_offset, uint64_t *ret_len, bool *ret_dirty)
{
    const json_t *offset = json_object_get(item, "offset"), *len = json_object_get(item, "length"),
                 *type = json_object_get(item, "type");
    if (!json_is_integer(offset) || !json_is_integer(len) || !json_is_integer(type) ||
        json_integer_value(offset) < 0 || json_integer_value(len) < 0)
        return false;
    *ret_offset = (uint64_t)json_integer_value(offset);
    *ret_len = (uint64_t)json_integer_value(len);
    *ret_dirty = json_integer_value(type) & TYPE_DIRTY;
    return *ret_offset <= STORE_DISK_BYTES_MAX && *ret_len <= STORE_DISK_BYTES_MAX;
}

static bool read_list(const json_t *list, uint64_t size, uint64_t parent_size, struct extents *map,
                      struct err *err)
{
    size_t i;
    const json_t *item;
    uint64_t at = 0;
    /* Whole blocks of the parent: its last one may be cut where the disk's is not. */
    uint64_t limit =
        size == parent_size ? size : parent_size / STORE_BLOCK_BYTES * STORE_BLOCK_BYTES;
    limit = limit < size ? limit : size;
    json_array_foreach (list, i, item) {
        uint64_t offset, len;
        bool is_dirty;
        if (!read_range(item, &offset, &len, &is_dirty))
            return err_set(err, ERR_BAD_ARGUMENT, 0, "range %zu has no offset, length and type", i);
        if (offset < at)
            return err_set(err, ERR_BAD_ARGUMENT, 0, "range %zu is out of order", i);
        at = offset + len;
        if (at > size)
            return err_set(err, ERR_BAD_ARGUMENT, 0,
                           "range %zu ends at %" PRIu64 ", beyond the disk's %" PRIu64, i, at,
                           size);
        if (is_dirty)
            continue;
        uint64_t end = at < limit ? at : limit;
        if (end != size)
            end = end / STORE_BLOCK_BYTES * STORE_BLOCK_BYTES;
        add_clean(map, offset, end);
    }
    uint64_t end =
        map->count ? map->items[map->count - 1].offset + map->items[map->count - 1].len : 0;
    extents_add(map, end, size - end, true);
    return true;
}

bool changed_parse(const char *text, size_t len, uint64_t size, uint64_t parent_size,
                   struct extents *ret, struct err *err)
{
    json_error_t why;
    json_auto_t *list = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_array(list))
        return err_set(err, ERR_BAD_ARGUMENT, 0, "not a map of ranges: line %d: %s",
                       list ? 1 : why.line, list ? "no list" : why.text);
    extents_reset(ret);
    return read_list(list, size, parent_size, ret, err);
}

bool changed_load(const char *path, uint64_t size, uint64_t parent_size, struct extents *ret,
                  struct err *err)
{
    SCOPED_BUF struct buf text;
    if (!file_read_all(AT_FDCWD, path, CHANGED_FILE_MAX, &text, err))
        return false;
    return changed_parse(text.data, text.len, size, parent_size, ret, err) ||
           err_wrap(err, "%s", path);
}

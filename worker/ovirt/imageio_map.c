/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/ovirt/imageio_map.h"

#include <inttypes.h>
#include <string.h>

#include "worker/ovirt/member.h"

#define EXTENTS_MAX (16u << 20)

void imageio_map_done(struct imageio_map *map)
{
    free(map->v);
    *map = (struct imageio_map){0};
}

void map_reader_init(struct map_reader *r, enum imageio_context context, uint64_t size_bytes)
{
    *r = (struct map_reader){.context = context, .size_bytes = size_bytes};
}

void map_reader_done(struct map_reader *r)
{
    imageio_map_done(&r->map);
}

static bool append(struct map_reader *r, struct imageio_extent extent, struct err *err)
{
    struct imageio_map *map = &r->map;
    if (map->count > 0) {
        struct imageio_extent *last = &map->v[map->count - 1];
        if (last->zero == extent.zero && last->dirty == extent.dirty) {
            last->len += extent.len;
            return true;
        }
    }
    if (map->count == EXTENTS_MAX)
        return err_set(err, ERR_TOO_LARGE, 0, "the map has more than %u ranges", EXTENTS_MAX);
    if (map->count == r->capacity) {
        r->capacity = r->capacity ? r->capacity * 2 : 64;
        map->v = xreallocarray(map->v, r->capacity, sizeof *map->v);
    }
    map->v[map->count++] = extent;
    return true;
}

static bool take_object(struct map_reader *r, struct err *err)
{
    json_error_t why;
    uint64_t start = 0, len = 0;
    json_auto_t *json = json_loadb(r->object, r->object_len, 0, &why);
    if (!json_is_object(json) || !member_u64(json, "start", &start) ||
        !member_u64(json, "length", &len))
        return err_set(err, ERR_ENGINE_PROTOCOL, 0, "an extent of the map is malformed");
    if (start != r->end || len > UINT64_MAX - start)
        return err_set(err, ERR_ENGINE_PROTOCOL, 0,
                       "the map has a gap or an overlap at offset %" PRIu64, start);
    r->end = start + len;
    if (start >= r->size_bytes || len == 0)
        return true;
    struct imageio_extent extent = {
        .offset = start,
        .len = r->end > r->size_bytes ? r->size_bytes - start : len,
        .zero = member_bool_or(json, "zero", false),
        .dirty = r->context == IMAGEIO_ZERO || member_bool_or(json, "dirty", true),
    };
    return append(r, extent, err);
}

/* A character of an object, braces included. */
static bool add_inside(struct map_reader *r, char c, struct err *err)
{
    if (r->object_len == sizeof r->object)
        return err_set(err, ERR_ENGINE_PROTOCOL, 0, "an extent of the map is too long");
    r->object[r->object_len++] = c;
    if (r->in_string) {
        r->in_string = r->escaped || c != '"';
        r->escaped = !r->escaped && c == '\\';
        return true;
    }
    r->in_string = c == '"';
    r->depth += c == '{';
    r->depth -= c == '}';
    if (r->depth > 0)
        return true;
    bool ok = take_object(r, err);
    r->object_len = 0;
    return ok;
}

static bool add_between(struct map_reader *r, char c, struct err *err)
{
    if (c == ' ' || c == '\n' || c == '\r' || c == '\t')
        return true;
    if (!r->opened && c == '[') {
        r->opened = true;
        return true;
    }
    if (r->opened && !r->closed && c == ',')
        return true;
    if (r->opened && !r->closed && c == ']') {
        r->closed = true;
        return true;
    }
    if (r->opened && !r->closed && c == '{') {
        r->escaped = r->in_string = false;
        return add_inside(r, c, err);
    }
    return err_set(err, ERR_ENGINE_PROTOCOL, 0, "the map is not a list of extents");
}

bool map_reader_add(struct map_reader *r, const char *data, size_t len, struct err *err)
{
    for (size_t i = 0; i < len; i++) {
        if (!(r->depth > 0 ? add_inside(r, data[i], err) : add_between(r, data[i], err)))
            return false;
    }
    return true;
}

bool map_reader_finish(struct map_reader *r, struct imageio_map *ret, struct err *err)
{
    if (!r->closed)
        return err_set(err, ERR_ENGINE_PROTOCOL, 0, "the map is cut off");
    if (r->end < r->size_bytes)
        return err_set(err, ERR_ENGINE_PROTOCOL, 0,
                       "the map ends at %" PRIu64 ", before the disk's size of %" PRIu64, r->end,
                       r->size_bytes);
    *ret = r->map;
    r->map = (struct imageio_map){0};
    return true;
}

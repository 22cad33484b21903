/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/store/gc/damage.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "worker/store/bytes.h"
#include "worker/store/record.h"

void damage_add(struct damage *d, const struct damage_range *range)
{
    if (d->count == DAMAGE_RANGES_MAX) {
        d->more++;
        return;
    }
    if ((d->count & (d->count - 1)) == 0) /* grown by powers of two */
        d->ranges = xreallocarray(d->ranges, d->count ? d->count * 2 : 1, sizeof *d->ranges);
    d->ranges[d->count++] = *range;
}

void damage_done(struct damage *d)
{
    free(d->ranges);
    *d = (struct damage){0};
}

char *damage_text(const struct damage *d)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < d->count; i++)
        bytes += d->ranges[i].len;
    if (d->count == 0)
        return xstrdup("damaged");
    const struct damage_range *r = &d->ranges[0];
    return xasprintf(
        "%s%" PRIu64 " bytes in %zu%s places are damaged, the first at %s offset %" PRIu64 ": %s",
        d->more > 0 ? "more than " : "", bytes, d->count, d->more > 0 ? " or more" : "",
        r->disk[0] != '\0' ? r->disk : "(file)", r->offset, r->why);
}

/* ---- the file */

static json_t *range_json(const struct damage_range *r)
{
    json_t *json = json_pack("{s:s, s:I, s:I, s:s}", "disk", r->disk, "offset",
                             (json_int_t)r->offset, "len", (json_int_t)r->len, "why", r->why);
    if (json && r->has_frame) {
        char id[2 * PACK_ID_BYTES + 1], digest[2 * DIGEST_BYTES + 1];
        hex_encode(r->ref.id, PACK_ID_BYTES, id);
        hex_encode(r->ref.digest, DIGEST_BYTES, digest);
        json_object_set_new(json, "pack", json_string(id));
        json_object_set_new(json, "pack_sha256", json_string(digest));
        json_object_set_new(json, "frame", json_integer(r->frame));
    }
    return json;
}

static char *encode(const char *point, const struct damage *d)
{
    json_t *ranges = json_array();
    for (size_t i = 0; i < d->count; i++)
        json_array_append_new(ranges, range_json(&d->ranges[i]));
    json_t *root = json_pack("{s:s, s:i, s:s, s:o, s:I}", "type", "oxbow-damage", "format", 1,
                             "point", point, "ranges", ranges, "more", (json_int_t)d->more);
    if (!root)
        return NULL;
    record_set_checksum(root);
    char *text = record_text_of(root);
    json_decref(root);
    return text;
}

bool damage_put(struct store *store, const char *point, const struct damage *d, struct err *err)
{
    SCOPED_FREE char *path = xasprintf("damage/%s", point);
    if (d->count == 0) {
        if (unlinkat(store->dirfd, path, 0) != 0 && errno != ENOENT)
            return err_set_errno(err, errno, "remove '%s'", path);
        return true;
    }
    SCOPED_FREE char *text = encode(point, d);
    if (!text)
        return err_set(err, ERR_INTERNAL, 0, "'%s' cannot be written as JSON", path);
    return object_make_dir(store->dirfd, "damage", err) &&
           object_replace(store->dirfd, "damage", point, text, strlen(text), err);
}

static bool decode_range(const json_t *from, struct damage_range *r)
{
    const char *disk = json_string_value(json_object_get(from, "disk"));
    const char *why = json_string_value(json_object_get(from, "why"));
    const char *pack = json_string_value(json_object_get(from, "pack"));
    const char *digest = json_string_value(json_object_get(from, "pack_sha256"));
    json_int_t offset = json_integer_value(json_object_get(from, "offset"));
    json_int_t len = json_integer_value(json_object_get(from, "len"));
    json_int_t frame = json_integer_value(json_object_get(from, "frame"));
    if (!disk || !why || strlen(disk) >= sizeof r->disk || offset < 0 || len < 0 || frame < 0 ||
        frame >= PACK_FRAMES_MAX)
        return false;
    *r = (struct damage_range){
        .offset = (uint64_t)offset, .len = (uint64_t)len, .frame = (uint32_t)frame};
    memcpy(r->disk, disk, strlen(disk) + 1);
    (void)snprintf(r->why, sizeof r->why, "%s", why);
    r->has_frame = pack && digest && hex_decode(pack, r->ref.id, PACK_ID_BYTES) &&
                   hex_decode(digest, r->ref.digest, DIGEST_BYTES);
    return true;
}

static bool decode_ranges(const json_t *root, const char *point, struct damage *d)
{
    struct err err = ERR_INIT;
    const char *type = json_string_value(json_object_get(root, "type"));
    const char *of = json_string_value(json_object_get(root, "point"));
    if (!type || strcmp(type, "oxbow-damage") != 0 || !of || strcmp(of, point) != 0 ||
        !record_check_checksum(root, &err))
        return false;
    const json_t *ranges = json_object_get(root, "ranges");
    json_int_t more = json_integer_value(json_object_get(root, "more"));
    d->more = more > 0 ? (uint64_t)more : 0;
    for (size_t i = 0; i < json_array_size(ranges); i++) {
        struct damage_range r;
        if (!decode_range(json_array_get(ranges, i), &r))
            return false;
        damage_add(d, &r);
    }
    return d->count > 0;
}

static void decode(const struct buf *text, const char *point, struct damage *d)
{
    json_t *root = json_loadb(buf_str(text), text->len, JSON_REJECT_DUPLICATES, NULL);
    if (!decode_ranges(root, point, d)) {
        damage_done(d);
        damage_add(d, &(struct damage_range){.why = "the record of the damage cannot be read"});
        d->is_unreadable = true;
    }
    json_decref(root);
}

bool damage_read(struct store *store, const char *point, struct damage *ret_damage, struct err *err)
{
    SCOPED_FREE char *path = xasprintf("damage/%s", point);
    SCOPED_BUF struct buf text;
    *ret_damage = (struct damage){0};
    if (object_read(store->dirfd, path, DAMAGE_BYTES_MAX, &text, err)) {
        decode(&text, point, ret_damage);
        return true;
    }
    if (err->code != ERR_NOT_FOUND)
        return false;
    err_clear(err);
    return true;
}

bool damage_list(struct store *store, struct object_names *ret_names, struct err *err)
{
    if (object_list(store->dirfd, "damage", ret_names, err))
        return true;
    if (err->code != ERR_NOT_FOUND)
        return false;
    err_clear(err); /* nothing ever was */
    return true;
}

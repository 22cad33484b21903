/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/copy/transfer.h"

/* ---- maps */

/* The entry that holds `offset`. */
static size_t find(const struct imageio_map *map, uint64_t offset)
{
    size_t low = 0, high = map->count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (map->v[middle].offset <= offset)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* What the map says of [offset, offset + len); what it does not cover is data. */
static void add_mapped(const struct imageio_map *map, uint64_t offset, uint64_t len,
                       struct extents *out)
{
    uint64_t at = offset, end = offset + len;
    for (size_t i = map->count ? find(map, offset) : 0; i < map->count && at < end; i++) {
        const struct imageio_extent *e = &map->v[i];
        uint64_t to = e->offset + e->len < end ? e->offset + e->len : end;
        if (to <= at)
            continue;
        extents_add(out, at, to - at, !e->zero);
        at = to;
    }
    extents_add(out, at, end - at, true);
}

/* Clean ranges come in rising order; all between them has changed. A block that is half clean has
 * changed. */
static uint64_t add_clean(struct extents *out, uint64_t end, uint64_t from, uint64_t to,
                          uint64_t size_bytes)
{
    from = (from + STORE_BLOCK_BYTES - 1) / STORE_BLOCK_BYTES * STORE_BLOCK_BYTES;
    if (to != size_bytes)
        to = to / STORE_BLOCK_BYTES * STORE_BLOCK_BYTES;
    if (from >= to)
        return end;
    extents_add(out, end, from - end, true);
    extents_add(out, from, to - from, false);
    return to;
}

void transfer_changes(const struct imageio_map *map, uint64_t size_bytes, struct extents *out)
{
    uint64_t end = 0, clean_from = 0, clean_to = 0; /* neighbours that differ in `zero` are one */
    for (size_t i = 0; i < map->count; i++) {
        const struct imageio_extent *e = &map->v[i];
        if (e->dirty)
            continue;
        if (clean_to != e->offset) {
            end = add_clean(out, end, clean_from, clean_to, size_bytes);
            clean_from = e->offset;
        }
        clean_to = e->offset + e->len;
    }
    end = add_clean(out, end, clean_from, clean_to, size_bytes);
    extents_add(out, end, size_bytes - end, true);
}

/* ---- a transfer as a source */

struct source_transfer {
    struct source base;
    struct imageio *io;
    const struct imageio_map *map;
};

static bool transfer_extents(struct source *source, uint64_t offset, uint64_t len,
                             struct extents *out, struct err *err)
{
    struct source_transfer *t = (struct source_transfer *)source;
    (void)err;
    add_mapped(t->map, offset, len, out);
    return true;
}

static bool transfer_pread(struct source *source, void *buf, size_t len, uint64_t offset,
                           struct err *err)
{
    struct source_transfer *t = (struct source_transfer *)source;
    return imageio_read(t->io, buf, len, offset, err);
}

static void transfer_close(struct source *source)
{
    free(source);
}

struct source *source_transfer_open(struct imageio *io, const struct imageio_map *map,
                                    uint64_t size_bytes)
{
    static const struct source_ops ops = {
        .extents = transfer_extents, .pread = transfer_pread, .close = transfer_close};
    struct source_transfer *t = ALLOC_NEW(struct source_transfer);
    t->base.ops = &ops;
    t->base.size_bytes = size_bytes;
    t->io = io;
    t->map = map;
    return &t->base;
}

/* ---- a device with a map */

struct source_mapped {
    struct source base;
    struct source *device;
    const struct imageio_map *map;
};

static bool mapped_extents(struct source *source, uint64_t offset, uint64_t len,
                           struct extents *out, struct err *err)
{
    struct source_mapped *m = (struct source_mapped *)source;
    (void)err;
    add_mapped(m->map, offset, len, out);
    return true;
}

static bool mapped_pread(struct source *source, void *buf, size_t len, uint64_t offset,
                         struct err *err)
{
    struct source_mapped *m = (struct source_mapped *)source;
    return m->device->ops->pread(m->device, buf, len, offset, err);
}

static void mapped_close(struct source *source)
{
    struct source_mapped *m = (struct source_mapped *)source;
    source_close(m->device);
    free(m);
}

struct source *source_mapped_open(struct source *device, const struct imageio_map *map)
{
    static const struct source_ops ops = {
        .extents = mapped_extents, .pread = mapped_pread, .close = mapped_close};
    struct source_mapped *m = ALLOC_NEW(struct source_mapped);
    m->base.ops = &ops;
    m->base.size_bytes = device->size_bytes;
    m->base.threads_max = device->threads_max;
    m->base.piece_bytes = device->piece_bytes;
    m->device = device;
    m->map = map;
    return &m->base;
}

/* ---- a transfer as a target */

struct target_transfer {
    struct target base;
    struct imageio *io;
};

static bool target_pwrite(struct target *target, const void *buf, size_t len, uint64_t offset,
                          struct err *err)
{
    return imageio_write(((struct target_transfer *)target)->io, buf, len, offset, err);
}

static bool target_zero(struct target *target, uint64_t offset, uint64_t len, struct err *err)
{
    return imageio_zero(((struct target_transfer *)target)->io, offset, len, err);
}

static bool target_flush(struct target *target, struct err *err)
{
    return imageio_flush(((struct target_transfer *)target)->io, err);
}

static void target_close_transfer(struct target *target)
{
    free(target);
}

struct target *target_transfer_open(struct imageio *io, uint64_t size_bytes, bool is_zero)
{
    static const struct target_ops ops = {.pwrite = target_pwrite,
                                          .zero = target_zero,
                                          .flush = target_flush,
                                          .close = target_close_transfer};
    struct target_transfer *t = ALLOC_NEW(struct target_transfer);
    t->base.ops = &ops;
    t->base.size_bytes = size_bytes;
    t->base.is_zero = is_zero;
    t->io = io;
    return &t->base;
}

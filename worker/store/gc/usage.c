/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/store/gc/usage.h"

#include <stdlib.h>
#include <string.h>

#include "worker/store/fate.h"
#include "worker/store/reader.h"

enum { SLOTS_MIN = 256 };
#define WINDOW_BLOCKS (UINT64_C(4) << 20) /* 16 GiB of a disk at a time */

struct usage {
    struct pack_use *uses;
    size_t count, capacity;
    uint32_t *slots; /* number + 1; open addressing by pack id */
    size_t n_slots;
};

struct usage *usage_new(void)
{
    struct usage *u = ALLOC_NEW(struct usage);
    u->n_slots = SLOTS_MIN;
    u->slots = xcalloc(u->n_slots, sizeof *u->slots);
    return u;
}

void usage_free(struct usage *u)
{
    if (!u)
        return;
    for (size_t i = 0; i < u->count; i++)
        free(u->uses[i].bits);
    free(u->uses);
    free(u->slots);
    free(u);
}

static size_t slot_of(const struct usage *u, const uint8_t id[PACK_ID_BYTES])
{
    uint64_t n;
    memcpy(&n, id, sizeof n); /* ids are random */
    size_t at = (size_t)n & (u->n_slots - 1);
    while (u->slots[at] != 0 && memcmp(u->uses[u->slots[at] - 1].ref.id, id, PACK_ID_BYTES) != 0)
        at = (at + 1) & (u->n_slots - 1);
    return at;
}

static void grow(struct usage *u)
{
    free(u->slots);
    u->n_slots *= 2;
    u->slots = xcalloc(u->n_slots, sizeof *u->slots);
    for (size_t i = 0; i < u->count; i++)
        u->slots[slot_of(u, u->uses[i].ref.id)] = (uint32_t)i + 1;
}

static struct pack_use *use_of(struct usage *u, const struct pack_ref *ref)
{
    size_t slot = slot_of(u, ref->id);
    if (u->slots[slot] != 0)
        return &u->uses[u->slots[slot] - 1];
    if (u->count == u->capacity) {
        u->capacity = u->capacity ? u->capacity * 2 : 64;
        u->uses = xreallocarray(u->uses, u->capacity, sizeof *u->uses);
    }
    u->uses[u->count++] = (struct pack_use){.ref = *ref};
    u->slots[slot] = (uint32_t)u->count;
    if (u->count > u->n_slots / 2)
        grow(u);
    return &u->uses[u->count - 1];
}

static void set_bit(struct pack_use *use, uint32_t frame)
{
    if (frame / 8 >= use->n_bytes) {
        uint32_t n = frame / 8 + 16;
        use->bits = xreallocarray(use->bits, n, 1);
        memset(use->bits + use->n_bytes, 0, n - use->n_bytes);
        use->n_bytes = n;
    }
    use->bits[frame / 8] |= (uint8_t)(1u << frame % 8);
}

const struct pack_use *usage_find(const struct usage *u, const uint8_t id[PACK_ID_BYTES])
{
    uint32_t number = u->slots[slot_of(u, id)];
    return number ? &u->uses[number - 1] : NULL;
}

size_t usage_count(const struct usage *u)
{
    return u->count;
}

const struct pack_use *usage_at(const struct usage *u, size_t i)
{
    return &u->uses[i];
}

/* ---- a point */

/* Of a sealed map, which has it in clear. */
static void add_use_table(struct usage *u, const struct manifest *map)
{
    for (uint32_t p = 0; p < map->n_packs; p++) {
        struct pack_use *use = use_of(u, &map->packs[p]);
        for (uint32_t f = 0; f < map->uses[p].len * 8; f++)
            if (frame_use_has(&map->uses[p], f))
                set_bit(use, f);
    }
}

static bool add_frames(struct usage *u, struct store_reader *reader, struct err *err)
{
    uint64_t blocks = disk_blocks(reader->map.size_bytes);
    if (reader->map.uses) {
        add_use_table(u, &reader->map);
        return true;
    }
    for (uint64_t at = 0; at < blocks; at += WINDOW_BLOCKS) {
        SCOPED_MAP_RECORDS struct map_records records = {0};
        uint64_t n = blocks - at < WINDOW_BLOCKS ? blocks - at : WINDOW_BLOCKS;
        if (!reader_map(reader, at, n, &records, err))
            return false;
        uint32_t last = UINT32_MAX;
        struct pack_use *use = NULL;
        for (size_t i = 0; i < records.count; i++) {
            const struct location *where = &records.items[i].where;
            if (!use || where->pack != last)
                use = use_of(u, &reader->map.packs[where->pack]);
            last = where->pack;
            set_bit(use, where->frame);
        }
    }
    return true;
}

static bool add_disk(struct usage *u, struct store_point *point, const struct record_disk *disk,
                     bool frames, struct err *err)
{
    SCOPED(store_reader) struct store_reader *reader = store_disk_open(point, disk->disk.id, err);
    if (!reader)
        return false;
    for (uint32_t i = 0; i < reader->map.n_packs; i++)
        use_of(u, &reader->map.packs[i])->points++;
    return !frames || add_frames(u, reader, err);
}

bool usage_add_point(struct usage *u, struct store *store, const char *session, bool frames,
                     struct err *err)
{
    struct fate fate;
    if (!fate_read(store->dirfd, session, &fate, err))
        return err_wrap(err, "point %s", session);
    if (fate.kind != FATE_COMMIT)
        return true;
    SCOPED(store_point) struct store_point *point = point_open_session(store, session, &fate, err);
    if (!point)
        return false;
    for (size_t i = 0; i < point->record.n_disks; i++)
        if (!add_disk(u, point, &point->record.disks[i], frames, err))
            return false;
    return true;
}

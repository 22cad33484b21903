/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/store/gc/marks.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/log.h"
#include "worker/store/bytes.h"

enum {
    MARKS_VERSION = 1,
    HEADER_BYTES = 64,
    ENTRY_BYTES = 20, /* before the bits */
    MARK_NAME_BYTES = 33,
};
static const char marks_magic[8] = {'O', 'X', 'B', 'W', 'M', 'A', 'R', 'K'};

/* ---- lists */

void mark_list_add(struct mark_list *list, const uint8_t id[PACK_ID_BYTES], enum mark_why why,
                   const uint8_t *bits, uint32_t n_bits_bytes)
{
    assert(n_bits_bytes <= MARK_BITS_MAX);
    if (list->count == list->capacity) {
        list->capacity = list->capacity ? list->capacity * 2 : 16;
        list->items = xreallocarray(list->items, list->capacity, sizeof *list->items);
    }
    struct mark *m = &list->items[list->count++];
    *m = (struct mark){.why = why, .n_bits_bytes = n_bits_bytes};
    memcpy(m->id, id, PACK_ID_BYTES);
    if (n_bits_bytes > 0) {
        m->bits = xmalloc(n_bits_bytes);
        memcpy(m->bits, bits, n_bits_bytes);
    }
}

void mark_list_done(struct mark_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i].bits);
    free(list->items);
    *list = (struct mark_list){0};
}

static size_t entries_len(const struct mark_list *list)
{
    size_t len = 0;
    for (size_t i = 0; i < list->count; i++)
        len += ENTRY_BYTES + list->items[i].n_bits_bytes;
    return len;
}

uint8_t *mark_list_encode(const struct mark_list *list, const uint8_t repository[16],
                          size_t *ret_len)
{
    size_t entries = entries_len(list), half = HEADER_BYTES + entries + DIGEST_BYTES;
    uint8_t *out = xcalloc(2, half);
    memcpy(out, marks_magic, sizeof marks_magic);
    put_u32(out + 8, MARKS_VERSION);
    memcpy(out + 16, repository, 16);
    put_u32(out + 32, (uint32_t)list->count);
    put_u32(out + 36, (uint32_t)entries);
    uint8_t *at = out + HEADER_BYTES;
    for (size_t i = 0; i < list->count; i++) {
        const struct mark *m = &list->items[i];
        memcpy(at, m->id, PACK_ID_BYTES);
        put_u16(at + 16, (uint16_t)m->why);
        put_u16(at + 18, (uint16_t)m->n_bits_bytes);
        if (m->n_bits_bytes > 0)
            memcpy(at + ENTRY_BYTES, m->bits, m->n_bits_bytes);
        at += ENTRY_BYTES + m->n_bits_bytes;
    }
    digest_sha256(out, half - DIGEST_BYTES, at);
    memcpy(out + half, out, half);
    *ret_len = 2 * half;
    return out;
}

static bool decode_entries(const uint8_t *at, size_t len, uint32_t n, struct mark_list *list,
                           struct err *err)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t bits = len >= ENTRY_BYTES ? get_u16(at + 18) : 0;
        if (len < ENTRY_BYTES + bits || bits > MARK_BITS_MAX)
            return err_set(err, ERR_STORE_CORRUPT, 0, "marks: entry %u does not fit", i);
        enum mark_why why = get_u16(at + 16) == MARK_DAMAGED ? MARK_DAMAGED : MARK_GARBAGE;
        mark_list_add(list, at, why, at + ENTRY_BYTES, bits);
        at += ENTRY_BYTES + bits;
        len -= ENTRY_BYTES + bits;
    }
    return len == 0 || err_set(err, ERR_STORE_CORRUPT, 0, "marks: bytes after the last entry");
}

static bool decode_copy(const uint8_t *in, size_t len, const uint8_t repository[16],
                        struct mark_list *ret_list, struct err *err)
{
    if (len < HEADER_BYTES + DIGEST_BYTES || memcmp(in, marks_magic, sizeof marks_magic) != 0)
        return err_set(err, ERR_STORE_CORRUPT, 0, "not a list of marks");
    uint8_t digest[DIGEST_BYTES];
    digest_sha256(in, len - DIGEST_BYTES, digest);
    if (memcmp(digest, in + len - DIGEST_BYTES, DIGEST_BYTES) != 0)
        return err_set(err, ERR_STORE_CORRUPT, 0, "marks: wrong digest");
    if (get_u32(in + 8) != MARKS_VERSION || get_u32(in + 12) != 0)
        return err_set(err, ERR_STORE_VERSION, 0, "marks made by a newer version");
    if (memcmp(in + 16, repository, 16) != 0)
        return err_set(err, ERR_STORE_CORRUPT, 0, "marks of another repository");
    if (get_u32(in + 36) != len - HEADER_BYTES - DIGEST_BYTES)
        return err_set(err, ERR_STORE_CORRUPT, 0, "marks: bad length");
    struct mark_list list = {0};
    if (!decode_entries(in + HEADER_BYTES, get_u32(in + 36), get_u32(in + 32), &list, err)) {
        mark_list_done(&list);
        return false;
    }
    *ret_list = list;
    return true;
}

/* How long a copy at `in` says it is; 0 when that cannot be. */
static size_t copy_len(const uint8_t *in, size_t len)
{
    if (len < HEADER_BYTES + DIGEST_BYTES)
        return 0;
    uint64_t n = (uint64_t)HEADER_BYTES + get_u32(in + 36) + DIGEST_BYTES;
    return n <= len ? (size_t)n : 0;
}

bool mark_list_decode(const uint8_t *in, size_t len, const uint8_t repository[16],
                      struct mark_list *ret_list, struct err *err)
{
    struct err first = ERR_INIT;
    /* The first copy by its own length, for a file that was cut; else by the file's; the second by
     * the file's. */
    size_t own = copy_len(in, len), half = len / 2;
    if ((own > 0 && decode_copy(in, own, repository, ret_list, &first)))
        return true;
    if (len % 2 == 0 && decode_copy(in + half, half, repository, ret_list, err))
        return true;
    if (err_is_set(&first))
        *err = first;
    return err_is_set(err) ? false : err_set(err, ERR_STORE_CORRUPT, 0, "not a list of marks");
}

bool mark_list_put(int dirfd, const uint8_t repository[16], const struct mark_list *list,
                   struct err *err)
{
    if (list->count == 0)
        return true;
    size_t len;
    SCOPED_FREE uint8_t *bytes = mark_list_encode(list, repository, &len);
    if (len > MARKS_BYTES_MAX)
        return err_set(err, ERR_TOO_LARGE, 0, "%zu packs are too many for one list of marks",
                       list->count);
    uint8_t random[16];
    char name[MARK_NAME_BYTES];
    random_bytes(random, sizeof random);
    hex_encode(random, sizeof random, name);
    /* What may not be durable is not relied on, and as a mark too many it does no harm. */
    if (object_put_if_absent(dirfd, "marks", name, bytes, len, err) == PUT_CREATED)
        return true;
    if (!err_is_set(err))
        err_set(err, ERR_EXISTS, 0, "'marks/%s' exists", name);
    return false;
}

/* ---- the table: open addressing by pack id */

struct slot {
    bool used, all;
    uint8_t id[PACK_ID_BYTES];
    uint32_t n_bits_bytes;
    uint8_t *bits;
};

struct marks {
    pthread_mutex_t lock; /* guards all of it */
    struct object_names seen;
    struct slot *slots;
    size_t size, count; /* size: a power of two */
    bool is_blind;
};

enum { SLOTS_MIN = 64 };

struct marks *marks_new(void)
{
    struct marks *m = ALLOC_NEW(struct marks);
    pthread_mutex_init(&m->lock, NULL);
    m->size = SLOTS_MIN;
    m->slots = xcalloc(m->size, sizeof *m->slots);
    return m;
}

void marks_free(struct marks *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->size; i++)
        free(m->slots[i].bits);
    free(m->slots);
    object_names_done(&m->seen);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

static struct slot *find_slot(struct slot *slots, size_t size, const uint8_t id[PACK_ID_BYTES])
{
    uint64_t n;
    memcpy(&n, id, sizeof n); /* ids are random */
    size_t at = (size_t)n & (size - 1);
    while (slots[at].used && memcmp(slots[at].id, id, PACK_ID_BYTES) != 0)
        at = (at + 1) & (size - 1);
    return &slots[at];
}

static void grow(struct marks *m)
{
    size_t size = m->size * 2;
    struct slot *slots = xcalloc(size, sizeof *slots);
    for (size_t i = 0; i < m->size; i++)
        if (m->slots[i].used)
            *find_slot(slots, size, m->slots[i].id) = m->slots[i];
    free(m->slots);
    m->slots = slots;
    m->size = size;
}

static void table_add(struct marks *m, const struct mark *mark)
{
    if (m->count >= m->size / 2)
        grow(m);
    struct slot *s = find_slot(m->slots, m->size, mark->id);
    if (!s->used) {
        s->used = true;
        memcpy(s->id, mark->id, PACK_ID_BYTES);
        m->count++;
    }
    if (mark->n_bits_bytes == 0) {
        s->all = true;
        free(s->bits);
        s->bits = NULL;
        s->n_bits_bytes = 0;
    }
    if (s->all)
        return;
    if (mark->n_bits_bytes > s->n_bits_bytes) {
        s->bits = xreallocarray(s->bits, mark->n_bits_bytes, 1);
        memset(s->bits + s->n_bits_bytes, 0, mark->n_bits_bytes - s->n_bits_bytes);
        s->n_bits_bytes = mark->n_bits_bytes;
    }
    for (uint32_t i = 0; i < mark->n_bits_bytes; i++)
        s->bits[i] |= mark->bits[i];
}

static bool read_list(struct marks *m, int dirfd, const char *name, const uint8_t repository[16],
                      struct err *err)
{
    SCOPED_FREE char *path = xasprintf("marks/%s", name);
    SCOPED_BUF struct buf bytes;
    SCOPED_MARKS struct mark_list list = {0};
    if (object_read(dirfd, path, MARKS_BYTES_MAX, &bytes, err) &&
        mark_list_decode((const uint8_t *)buf_str(&bytes), bytes.len, repository, &list, err)) {
        for (size_t i = 0; i < list.count; i++)
            table_add(m, &list.items[i]);
        return true;
    }
    if (err->code != ERR_STORE_CORRUPT && err->code != ERR_STORE_VERSION)
        return err_wrap(err, "'%s'", path);
    err_wrap(err, "'%s'", path);
    log_err(LOG_LEVEL_WARN, "store_marks_unreadable", err);
    err_clear(err);
    m->is_blind = true;
    return true;
}

bool marks_refresh(struct marks *m, int dirfd, const uint8_t repository[16], struct err *err)
{
    SCOPED_NAMES struct object_names names = {0};
    if (!object_list_fresh(dirfd, "marks", &names, err)) {
        if (err->code != ERR_NOT_FOUND)
            return false;
        err_clear(err); /* a repository in which nothing was ever collected */
        return true;
    }
    pthread_mutex_lock(&m->lock);
    bool ok = true;
    for (size_t i = 0; ok && i < names.count; i++)
        if (!object_names_have(&m->seen, names.items[i]))
            ok = read_list(m, dirfd, names.items[i], repository, err);
    if (ok) { /* lists are never removed: what was seen stays seen */
        object_names_done(&m->seen);
        m->seen = names;
        names = (struct object_names){0};
    }
    pthread_mutex_unlock(&m->lock);
    return ok;
}

enum marked marks_of_pack(struct marks *m, const uint8_t id[PACK_ID_BYTES])
{
    pthread_mutex_lock(&m->lock);
    const struct slot *s = find_slot(m->slots, m->size, id);
    enum marked marked = !s->used ? MARKED_NONE : s->all ? MARKED_ALL : MARKED_SOME;
    if (m->is_blind)
        marked = MARKED_ALL;
    pthread_mutex_unlock(&m->lock);
    return marked;
}

bool marks_has(struct marks *m, const uint8_t id[PACK_ID_BYTES], uint32_t frame)
{
    pthread_mutex_lock(&m->lock);
    const struct slot *s = find_slot(m->slots, m->size, id);
    bool has = m->is_blind ||
               (s->used &&
                (s->all || (frame / 8 < s->n_bits_bytes && (s->bits[frame / 8] >> frame % 8 & 1))));
    pthread_mutex_unlock(&m->lock);
    return has;
}

bool marks_are_blind(struct marks *m)
{
    pthread_mutex_lock(&m->lock);
    bool blind = m->is_blind;
    pthread_mutex_unlock(&m->lock);
    return blind;
}

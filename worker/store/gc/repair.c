/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/store/gc/repair.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/file.h"
#include "worker/store/bytes.h"
#include "worker/store/fate.h"
#include "worker/store/gc/heal.h"
#include "worker/store/gc/refooter.h"
#include "worker/store/gc/relocate.h"
#include "worker/store/index.h"
#include "worker/store/reader.h"

enum {
    FOOTER_MAGIC = 0x5446584f, /* "OXFT" */
    FOOTERS_TRIED_MAX = 64,    /* a guest's data may be full of what looks like one */
    COPY_BYTES = 1 << 20,
    HEADER_CRC_AT = PACK_HEADER_BYTES - 4,
};

struct mending {
    struct store *store;
    const struct pack_ref *ref;
    struct pack_frames file; /* the frames, as far as they are found */
    char path[64];
    struct pack_header header;
    bool has_header;
    uint8_t *footer;
    size_t footer_len;
    uint64_t footer_at; /* where it stands, or should */
    bool has_place;     /* footer_at and footer_len are known */
    uint8_t *table;     /* of relocation; NULL = none */
    size_t table_len;   /* before there is one: what the trailer says */
};

/* ---- the header */

static bool header_fits(const struct mending *m, const struct pack_header *h)
{
    return memcmp(h->id, m->ref->id, PACK_ID_BYTES) == 0 &&
           memcmp(h->repository, m->store->repo_id, sizeof h->repository) == 0;
}

static bool find_header(struct mending *m, struct err *err)
{
    uint8_t bytes[PACK_HEADER_BYTES];
    struct err why = ERR_INIT;
    if (m->file.len < sizeof bytes)
        return true;
    if (!file_pread_full(m->file.fd, bytes, sizeof bytes, 0, err))
        return false;
    m->has_header = crc_fix_bit(bytes, HEADER_CRC_AT, bytes + HEADER_CRC_AT) &&
                    pack_header_decode(bytes, &m->header, &why) && header_fits(m, &m->header);
    return true;
}

static bool index_has(struct store *store, const char *session, const uint8_t id[PACK_ID_BYTES])
{
    struct err err = ERR_INIT;
    struct index ix;
    SCOPED_FREE char *path = xasprintf("index/%s.ix", session);
    SCOPED_BUF struct buf bytes;
    if (!object_read(store->dirfd, path, INDEX_BYTES_MAX, &bytes, &err) ||
        !index_decode((const uint8_t *)buf_str(&bytes), bytes.len, store->repo_id, &ix, &err))
        return false;
    bool has = false;
    for (uint32_t i = 0; i < ix.n_packs && !has; i++)
        has = memcmp(ix.packs[i].id, id, PACK_ID_BYTES) == 0;
    index_done(&ix);
    return has;
}

static bool point_has(struct store *store, const char *session, const struct fate *fate,
                      const uint8_t id[PACK_ID_BYTES])
{
    struct err err = ERR_INIT;
    SCOPED(store_point) struct store_point *point = point_open_session(store, session, fate, &err);
    bool has = false;
    for (size_t i = 0; point && i < point->record.n_disks && !has; i++) {
        SCOPED(store_reader)
        struct store_reader *reader = store_disk_open(point, point->record.disks[i].disk.id, &err);
        for (uint32_t p = 0; reader && p < reader->map.n_packs && !has; p++)
            has = memcmp(reader->map.packs[p].id, id, PACK_ID_BYTES) == 0;
        err_clear(&err);
    }
    return has;
}

/* The session that made the pack, by its index; else any committed one that refers to it. What is
 * asked of a header's session is whether it was revoked, and nobody refers to packs of one that
 * was: so the answer is the same. */
static bool find_owner(struct store *store, const uint8_t id[PACK_ID_BYTES],
                       char out[STORE_SESSION_ID_MAX + 1])
{
    SCOPED_NAMES struct object_names fates = {0};
    struct err err = ERR_INIT;
    if (!object_list(store->dirfd, "fate", &fates, &err))
        return false;
    for (unsigned by_index = 2; by_index-- > 0;) {
        for (size_t i = 0; i < fates.count; i++) {
            const char *session = fates.items[i];
            struct fate fate;
            err_clear(&err);
            if (!session_id_is_valid(session) || !fate_read(store->dirfd, session, &fate, &err) ||
                fate.kind != FATE_COMMIT ||
                !(by_index ? index_has(store, session, id) : point_has(store, session, &fate, id)))
                continue;
            (void)snprintf(out, STORE_SESSION_ID_MAX + 1, "%s", session);
            return true;
        }
    }
    return false;
}

/* ---- the footer, where it is whole */

static bool is_right_footer(const struct mending *m, const uint8_t *bytes, size_t len)
{
    uint8_t digest[DIGEST_BYTES];
    digest_sha256(bytes, len, digest);
    return memcmp(digest, m->ref->digest, DIGEST_BYTES) == 0;
}

/* Where the trailer says. */
static bool place_by_trailer(struct mending *m, struct err *err)
{
    uint8_t bytes[TRAILER_BYTES];
    struct trailer trailer;
    struct err why = ERR_INIT;
    if (m->file.len < PACK_HEADER_BYTES + TRAILER_BYTES)
        return true;
    if (!file_pread_full(m->file.fd, bytes, sizeof bytes, m->file.len - TRAILER_BYTES, err))
        return false;
    if (!crc_fix_bit(bytes, 56, bytes + 56))
        return true;
    put_u32(bytes + 60, TRAILER_PACK);
    if (!trailer_decode(bytes, TRAILER_PACK, m->file.len, FOOTER_BYTES_MAX, &trailer, &why) ||
        trailer.tail_offset < PACK_HEADER_BYTES)
        return true;
    m->footer_at = trailer.tail_offset;
    m->footer_len = trailer.tail_len;
    m->table_len = trailer.relocation_len;
    m->has_place = true;
    return true;
}

/* Read the bytes that stand in the footer's place; zeroes where the file has none. */
static bool read_place(struct mending *m, struct err *err)
{
    free(m->footer);
    m->footer = xcalloc(1, m->footer_len + 1);
    uint64_t there = m->file.len > m->footer_at ? m->file.len - m->footer_at : 0;
    size_t len = there < m->footer_len ? (size_t)there : m->footer_len;
    return file_pread_full(m->file.fd, m->footer, len, m->footer_at, err);
}

/* The length of what may be a footer here; 0 when it is none. */
static size_t footer_len_at(const struct mending *m, const uint8_t *at, size_t len)
{
    if (len < FOOTER_HEADER_BYTES || get_u32(at) != FOOTER_MAGIC)
        return 0;
    uint64_t n =
        footer_bytes(get_u32(at + 12), get_u32(at + 16), get_u32(at + 20), m->store->crypt != NULL);
    return n <= len && n <= FOOTER_BYTES_MAX ? (size_t)n : 0;
}

/* Anywhere in the last part of the file. */
static bool search_footer(struct mending *m, bool *ret_found, struct err *err)
{
    const uint64_t span = (uint64_t)FOOTER_BYTES_MAX + COPY_BYTES;
    size_t len = (size_t)(m->file.len < span ? m->file.len : span);
    uint64_t from = m->file.len - len;
    SCOPED_FREE uint8_t *bytes = xmalloc(len + 1);
    unsigned tried = 0;
    if (!file_pread_full(m->file.fd, bytes, len, from, err))
        return false;
    for (size_t at = len; at-- > 0 && tried < FOOTERS_TRIED_MAX && !*ret_found;) {
        if (bytes[at] != (FOOTER_MAGIC & 0xff))
            continue;
        size_t n = footer_len_at(m, bytes + at, len - at);
        if (n == 0 || from + at < PACK_HEADER_BYTES)
            continue;
        tried++;
        if (!is_right_footer(m, bytes + at, n))
            continue;
        *ret_found = m->has_place = true;
        m->footer_at = from + at;
        m->footer_len = n;
    }
    return true;
}

/* ---- the relocation table: it ends where the footer begins */

static bool find_table(struct mending *m, struct err *err)
{
    uint32_t n = m->footer_len >= FOOTER_HEADER_BYTES ? get_u32(m->footer + 12) : 0;
    size_t len = m->table_len;
    struct relocation r;
    struct err why = ERR_INIT;
    if (len == 0 && n <= PACK_FRAMES_MAX)
        len = RELOCATION_HEAD_BYTES + (size_t)n * RELOCATION_PLACE_BYTES + 4;
    m->table_len = 0;
    if (len <= RELOCATION_HEAD_BYTES + 4 || len > RELOCATION_BYTES_MAX ||
        m->footer_at < PACK_HEADER_BYTES + len)
        return true;
    SCOPED_FREE uint8_t *bytes = xmalloc(len);
    uint64_t at = m->footer_at - len;
    if (!file_pread_full(m->file.fd, bytes, len, at, err))
        return false;
    if (!crc_fix_bit(bytes, len - 4, bytes + len - 4) ||
        !relocation_decode(bytes, len, at, &r, &why))
        return true;
    m->file.places = r.places;
    m->file.n_frames = r.n_frames;
    m->file.original_footer_at = r.footer_offset;
    m->table = TAKE(bytes);
    m->table_len = len;
    return true;
}

/* ---- all of it */

static bool find_footer(struct mending *m, bool *ret_found, struct err *err)
{
    bool may_be_moved = !m->has_header || m->header.is_relocated;
    if (!place_by_trailer(m, err) || (m->has_place && !read_place(m, err)))
        return false;
    *ret_found = m->has_place && is_right_footer(m, m->footer, m->footer_len);
    if (!*ret_found && !search_footer(m, ret_found, err))
        return false;
    if ((m->has_place && !read_place(m, err)) ||
        (may_be_moved && m->has_place && !find_table(m, err)))
        return false;
    if (!m->table)
        m->table_len = 0;
    if (*ret_found || (m->has_header && m->header.is_relocated && !m->table))
        return true;
    /* It is damaged itself: make it again. */
    if (!m->table)
        pack_frames_walk(&m->file, m->footer, m->has_place ? m->footer_len : 0,
                         m->has_place ? m->footer_at : m->file.len);
    if (!m->has_place) { /* it should begin where the frames end */
        m->footer_at = m->file.end;
        m->footer_len = pack_frames_footer_bytes(&m->file, m->store->crypt != NULL);
        if (m->footer_len == 0 || !read_place(m, err))
            return m->footer_len == 0;
    }
    footer_again(m->store, &m->file, m->footer, m->footer_len);
    *ret_found = is_right_footer(m, m->footer, m->footer_len);
    return true;
}

static bool copy_body(const struct mending *m, struct pack_output *o, uint64_t end, struct err *err)
{
    SCOPED_FREE uint8_t *work = xmalloc(COPY_BYTES);
    for (uint64_t at = PACK_HEADER_BYTES; at < end;) {
        size_t len = end - at < COPY_BYTES ? (size_t)(end - at) : COPY_BYTES;
        if (!file_pread_full(m->file.fd, work, len, at, err) || !pack_output_put(o, work, len, err))
            return false;
        at += len;
    }
    return true;
}

static bool put_mended(const struct mending *m, struct pack_output *o, struct err *err)
{
    uint8_t header[PACK_HEADER_BYTES], end[TRAILER_BYTES];
    pack_header_encode(&m->header, header);
    struct trailer trailer = {.tail_offset = m->footer_at,
                              .tail_len = (uint32_t)m->footer_len,
                              .file_len = m->footer_at + m->footer_len + TRAILER_BYTES,
                              .relocation_len = (uint32_t)m->table_len};
    memcpy(trailer.tail_digest, m->ref->digest, DIGEST_BYTES);
    trailer_encode(&trailer, TRAILER_PACK, end);
    return pack_output_put(o, header, sizeof header, err) &&
           copy_body(m, o, m->footer_at - m->table_len, err) &&
           (!m->table || pack_output_put(o, m->table, m->table_len, err)) &&
           pack_output_put(o, m->footer, m->footer_len, err) &&
           pack_output_put(o, end, sizeof end, err);
}

static bool set_header(struct mending *m)
{
    if (m->has_header)
        return m->header.is_relocated == (m->table != NULL);
    m->header = (struct pack_header){.is_relocated = m->table != NULL};
    memcpy(m->header.id, m->ref->id, PACK_ID_BYTES);
    memcpy(m->header.repository, m->store->repo_id, sizeof m->header.repository);
    return find_owner(m->store, m->ref->id, m->header.session);
}

static bool mend(struct mending *m, bool *ret_done, struct err *err)
{
    bool found = false;
    struct pack_output output;
    if (!find_header(m, err) || !find_footer(m, &found, err))
        return false;
    if (!found || !set_header(m))
        return true;
    if (!pack_output_begin(m->store->dirfd, m->path, &output, err) ||
        !pack_output_end(m->store->dirfd, &output, put_mended(m, &output, err), err))
        return false;
    struct err why = ERR_INIT;
    struct open_pack *pack = open_pack_load(m->store, m->ref, &why);
    *ret_done = pack && memcmp(pack->digest, m->ref->digest, DIGEST_BYTES) == 0;
    open_pack_free(pack);
    return true;
}

bool pack_repair(struct store *store, const struct pack_ref *ref, bool *ret_done, struct err *err)
{
    struct mending m = {.store = store, .ref = ref};
    struct stat st;
    *ret_done = false;
    pack_path(ref->id, m.path);
    m.file.fd = openat(store->dirfd, m.path, O_RDONLY | O_CLOEXEC);
    if (m.file.fd < 0)
        return errno == ENOENT || err_set_errno(err, errno, "open '%s'", m.path);
    bool ok = fstat(m.file.fd, &st) == 0 || err_set_errno(err, errno, "stat '%s'", m.path);
    m.file.len = ok ? (uint64_t)st.st_size : 0;
    ok = ok && mend(&m, ret_done, err);
    if (!ok && err->code == ERR_IO) { /* it cannot be read: it stays as it is, and is marked */
        err_clear(err);
        ok = true;
    }
    free(m.footer);
    free(m.table);
    pack_frames_done(&m.file);
    return ok || err_wrap(err, "mend '%s'", m.path);
}

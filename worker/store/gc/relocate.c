/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/store/gc/relocate.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/file.h"
#include "proto/base/id.h"
#include "worker/store/bytes.h"

enum {
    RELOCATION_MAGIC = 0x4c52584f, /* "OXRL" */
    RELOCATION_VERSION = 1,
    FOOTER_MAGIC = 0x5446584f, /* "OXFT" */
};

/* ---- the table */

uint8_t *relocation_encode(const struct relocation *r, size_t *ret_len)
{
    size_t len = RELOCATION_HEAD_BYTES + (size_t)r->n_frames * RELOCATION_PLACE_BYTES + 4;
    uint8_t *out = xcalloc(1, len), *at = out + RELOCATION_HEAD_BYTES;
    put_u32(out, RELOCATION_MAGIC);
    put_u32(out + 4, RELOCATION_VERSION);
    put_u64(out + 8, r->footer_offset);
    put_u32(out + 16, r->n_frames);
    for (uint32_t i = 0; i < r->n_frames; i++, at += RELOCATION_PLACE_BYTES) {
        put_u64(at, r->places[i].offset);
        put_u32(at + 8, r->places[i].stored_len);
    }
    put_u32(at, crc32c(out, len - 4));
    *ret_len = len;
    return out;
}

static bool check_places(const struct relocation *r, uint64_t end, struct err *err)
{
    uint64_t at = PACK_HEADER_BYTES;
    for (uint32_t i = 0; i < r->n_frames; i++) {
        const struct frame_place *p = &r->places[i];
        if (p->offset == 0 && p->stored_len == 0)
            continue;
        if (p->offset < at || p->offset > end || p->stored_len == 0 ||
            p->stored_len > FRAME_BYTES_MAX - FRAME_HEADER_BYTES ||
            end - p->offset < (uint64_t)FRAME_HEADER_BYTES + p->stored_len)
            return err_set(err, ERR_STORE_CORRUPT, 0,
                           "relocation: frame %" PRIu32 " is out of place", i);
        at = p->offset + FRAME_HEADER_BYTES + p->stored_len;
    }
    return true;
}

bool relocation_decode(const uint8_t *in, size_t len, uint64_t end, struct relocation *ret,
                       struct err *err)
{
    if (len < RELOCATION_HEAD_BYTES + 4 || get_u32(in) != RELOCATION_MAGIC)
        return err_set(err, ERR_STORE_CORRUPT, 0, "no relocation table");
    if (get_u32(in + len - 4) != crc32c(in, len - 4))
        return err_set(err, ERR_STORE_CORRUPT, 0, "relocation table: wrong checksum");
    if (get_u32(in + 4) != RELOCATION_VERSION)
        return err_set(err, ERR_STORE_VERSION, 0, "relocation table made by a newer version");
    struct relocation r = {.footer_offset = get_u64(in + 8), .n_frames = get_u32(in + 16)};
    if (r.n_frames == 0 || r.n_frames > PACK_FRAMES_MAX ||
        len != RELOCATION_HEAD_BYTES + (size_t)r.n_frames * RELOCATION_PLACE_BYTES + 4)
        return err_set(err, ERR_STORE_CORRUPT, 0, "relocation table: bad length");
    r.places = xcalloc(r.n_frames, sizeof *r.places);
    const uint8_t *at = in + RELOCATION_HEAD_BYTES;
    for (uint32_t i = 0; i < r.n_frames; i++, at += RELOCATION_PLACE_BYTES)
        r.places[i] = (struct frame_place){.offset = get_u64(at), .stored_len = get_u32(at + 8)};
    if (!check_places(&r, end, err)) {
        relocation_done(&r);
        return false;
    }
    *ret = r;
    return true;
}

void relocation_done(struct relocation *r)
{
    free(r->places);
    *r = (struct relocation){0};
}

/* ---- opening */

static bool read_ends(struct raw_pack *p, const uint8_t id[PACK_ID_BYTES], struct err *err)
{
    struct stat st;
    uint8_t header[PACK_HEADER_BYTES], end[TRAILER_BYTES];
    if (fstat(p->fd, &st) != 0)
        return err_set_errno(err, errno, "stat");
    p->file_len = (uint64_t)st.st_size;
    if (p->file_len < PACK_HEADER_BYTES + TRAILER_BYTES)
        return err_set(err, ERR_STORE_CORRUPT, 0, "cut short: %" PRIu64 " bytes", p->file_len);
    if (!file_pread_full(p->fd, header, sizeof header, 0, err) ||
        !pack_header_decode(header, &p->header, err))
        return false;
    if (memcmp(p->header.id, id, PACK_ID_BYTES) != 0)
        return err_set(err, ERR_STORE_CORRUPT, 0, "holds another pack");
    return file_pread_full(p->fd, end, sizeof end, p->file_len - TRAILER_BYTES, err) &&
           trailer_decode(end, TRAILER_PACK, p->file_len, FOOTER_BYTES_MAX, &p->trailer, err);
}

static bool check_footer(const struct raw_pack *p, struct err *err)
{
    SCOPED_FREE uint8_t *footer = xmalloc(p->trailer.tail_len + 1u);
    if (!file_pread_full(p->fd, footer, p->trailer.tail_len, p->trailer.tail_offset, err))
        return false;
    uint8_t digest[DIGEST_BYTES];
    digest_sha256(footer, p->trailer.tail_len, digest);
    return memcmp(digest, p->trailer.tail_digest, DIGEST_BYTES) == 0 ||
           err_set(err, ERR_STORE_CORRUPT, 0, "footer: wrong digest");
}

/* The frame table of the footer of an original pack. */
static bool read_frame_table(struct raw_pack *p, struct err *err)
{
    uint8_t head[FOOTER_HEADER_BYTES];
    if (p->trailer.tail_len < sizeof head)
        return err_set(err, ERR_STORE_CORRUPT, 0, "no footer");
    if (!file_pread_full(p->fd, head, sizeof head, p->trailer.tail_offset, err))
        return false;
    uint32_t n = get_u32(head + 12);
    if (get_u32(head) != FOOTER_MAGIC || n == 0 || n > PACK_FRAMES_MAX ||
        p->trailer.tail_len < sizeof head + (size_t)n * FRAME_ENTRY_BYTES)
        return err_set(err, ERR_STORE_CORRUPT, 0, "footer: bad counts");
    SCOPED_FREE uint8_t *table = xmalloc((size_t)n * FRAME_ENTRY_BYTES);
    if (!file_pread_full(p->fd, table, (size_t)n * FRAME_ENTRY_BYTES,
                         p->trailer.tail_offset + sizeof head, err))
        return false;
    p->relocation = (struct relocation){.footer_offset = p->trailer.tail_offset, .n_frames = n};
    p->relocation.places = xcalloc(n, sizeof *p->relocation.places);
    for (uint32_t i = 0; i < n; i++)
        p->relocation.places[i] =
            (struct frame_place){.offset = get_u64(table + (size_t)i * FRAME_ENTRY_BYTES),
                                 .stored_len = get_u32(table + (size_t)i * FRAME_ENTRY_BYTES + 8)};
    return check_places(&p->relocation, p->trailer.tail_offset, err);
}

bool relocation_read(int fd, const struct trailer *trailer, struct relocation *ret, struct err *err)
{
    uint32_t len = trailer->relocation_len;
    if (len > RELOCATION_BYTES_MAX || len > trailer->tail_offset)
        return err_set(err, ERR_STORE_CORRUPT, 0, "relocation table: bad length");
    SCOPED_FREE uint8_t *bytes = xmalloc(len + 1u);
    uint64_t at = trailer->tail_offset - len;
    return file_pread_full(fd, bytes, len, at, err) && relocation_decode(bytes, len, at, ret, err);
}

bool raw_pack_open(int dirfd, const uint8_t id[PACK_ID_BYTES], bool whole, struct raw_pack *ret,
                   struct err *err)
{
    struct raw_pack p = {0};
    pack_path(id, p.path);
    p.fd = openat(dirfd, p.path, O_RDONLY | O_CLOEXEC);
    if (p.fd < 0)
        return err_set_errno(err, errno, "open '%s'", p.path);
    bool ok = read_ends(&p, id, err) && (!whole || check_footer(&p, err)) &&
              (p.header.is_relocated ? relocation_read(p.fd, &p.trailer, &p.relocation, err)
                                     : read_frame_table(&p, err));
    if (!ok) {
        err_wrap(err, "'%s'", p.path);
        raw_pack_close(&p);
        return false;
    }
    *ret = p;
    return true;
}

void raw_pack_close(struct raw_pack *p)
{
    relocation_done(&p->relocation);
    if (p->fd >= 0)
        (void)close(p->fd);
    p->fd = -1;
}

/* ---- frames */

static size_t read_frame(const struct raw_pack *p, uint32_t frame, uint8_t *out, struct err *err)
{
    const struct frame_place *place =
        frame < p->relocation.n_frames ? &p->relocation.places[frame] : NULL;
    if (!place || place->offset == 0) {
        err_set(err, ERR_STORE_CORRUPT, 0, "'%s' frame %" PRIu32 " is gone", p->path, frame);
        return 0;
    }
    size_t len = FRAME_HEADER_BYTES + (size_t)place->stored_len;
    if (!file_pread_full(p->fd, out, len, place->offset, err)) {
        err_wrap(err, "'%s' frame %" PRIu32, p->path, frame);
        return 0;
    }
    return len;
}

static bool check_frame(const struct raw_pack *p, uint32_t frame, const uint8_t *bytes, size_t len,
                        struct err *err)
{
    struct frame_header header;
    if (frame_header_decode(bytes, &header, err) && header.stored_len == len - FRAME_HEADER_BYTES &&
        crc32c(bytes + FRAME_HEADER_BYTES, header.stored_len) == header.stored_crc)
        return true;
    if (!err_is_set(err))
        err_set(err, ERR_STORE_CORRUPT, 0, "wrong checksum");
    return err_wrap(err, "'%s' frame %" PRIu32, p->path, frame);
}

size_t raw_pack_frame(const struct raw_pack *p, uint32_t frame, uint8_t *out, struct err *err)
{
    size_t len = read_frame(p, frame, out, err);
    return len > 0 && check_frame(p, frame, out, len, err) ? len : 0;
}

/* ---- rewriting */

bool pack_output_begin(int dirfd, const char *path, struct pack_output *ret, struct err *err)
{
    char unique[ID_BYTES];
    struct pack_output o = {0};
    id_new(unique);
    (void)snprintf(o.path, sizeof o.path, "%s", path);
    (void)snprintf(o.dir, sizeof o.dir, "%s", path);
    *strrchr(o.dir, '/') = '\0';
    o.temp = xasprintf("%s/.%s.tmp", o.dir, unique);
    o.fd = openat(dirfd, o.temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (o.fd < 0) {
        err_set_errno(err, errno, "create '%s'", o.temp);
        free(o.temp);
        return false;
    }
    *ret = o;
    return true;
}

bool pack_output_put(struct pack_output *o, const void *data, size_t len, struct err *err)
{
    o->len += len;
    return file_write_full(o->fd, data, len, err);
}

bool pack_output_end(int dirfd, struct pack_output *o, bool ok, struct err *err)
{
    if (ok)
        ok = object_seal(o->fd, o->temp, err);
    else
        (void)close(o->fd);
    /* The old one stays until this name, complete and durable, takes its place. */
    if (ok && renameat(dirfd, o->temp, dirfd, o->path) != 0)
        ok = err_set_errno(err, errno, "rename '%s'", o->temp);
    if (!ok)
        (void)unlinkat(dirfd, o->temp, 0);
    free(o->temp);
    o->temp = NULL;
    return ok ? object_sync_dir(dirfd, o->dir, err) : err_wrap(err, "rewrite '%s'", o->path);
}

/* A pack being rewritten. */
struct output {
    struct pack_output file;
    struct relocation relocation;
};

static bool put_frame(const struct raw_pack *p, uint32_t frame, const struct rewrite *how,
                      struct output *o, uint8_t *work, struct err *err)
{
    const uint8_t *bytes = work;
    size_t len = 0;
    enum rewrite_action action = how->choose(how->context, frame, &bytes, &len);
    /* Gone already: somebody who knew more has removed it. */
    if (action == REWRITE_DROP ||
        (p->relocation.places[frame].offset == 0 && action != REWRITE_REPLACE))
        return true;
    if (action != REWRITE_REPLACE) {
        bytes = work;
        len = read_frame(p, frame, work, err);
        if (len == 0 || (action == REWRITE_COPY && !check_frame(p, frame, work, len, err)))
            return false;
    }
    o->relocation.places[frame] = (struct frame_place){
        .offset = o->file.len, .stored_len = (uint32_t)(len - FRAME_HEADER_BYTES)};
    return pack_output_put(&o->file, bytes, len, err);
}

static bool put_end(const struct raw_pack *p, struct output *o, struct err *err)
{
    size_t table_len;
    SCOPED_FREE uint8_t *table = relocation_encode(&o->relocation, &table_len);
    SCOPED_FREE uint8_t *footer = xmalloc(p->trailer.tail_len + 1u);
    if (!file_pread_full(p->fd, footer, p->trailer.tail_len, p->trailer.tail_offset, err) ||
        !pack_output_put(&o->file, table, table_len, err))
        return false;
    struct trailer trailer = p->trailer;
    trailer.relocation_len = (uint32_t)table_len;
    trailer.tail_offset = o->file.len;
    trailer.file_len = o->file.len + trailer.tail_len + TRAILER_BYTES;
    uint8_t end[TRAILER_BYTES];
    trailer_encode(&trailer, TRAILER_PACK, end);
    return pack_output_put(&o->file, footer, trailer.tail_len, err) &&
           pack_output_put(&o->file, end, sizeof end, err);
}

static bool put_pack(const struct raw_pack *p, const struct rewrite *how, struct output *o,
                     struct err *err)
{
    uint8_t header[PACK_HEADER_BYTES];
    struct pack_header relocated = p->header;
    relocated.is_relocated = true;
    pack_header_encode(&relocated, header);
    o->relocation = (struct relocation){.footer_offset = p->relocation.footer_offset,
                                        .n_frames = p->relocation.n_frames};
    o->relocation.places = xcalloc(o->relocation.n_frames, sizeof *o->relocation.places);
    SCOPED_FREE uint8_t *work = xmalloc(FRAME_BYTES_MAX);
    bool ok = pack_output_put(&o->file, header, sizeof header, err);
    for (uint32_t i = 0; ok && i < p->relocation.n_frames; i++)
        ok = put_frame(p, i, how, o, work, err);
    ok = ok && put_end(p, o, err);
    relocation_done(&o->relocation);
    return ok;
}

bool raw_pack_rewrite(int dirfd, const struct raw_pack *p, const struct rewrite *how,
                      uint64_t *ret_len, struct err *err)
{
    struct output o = {0};
    if (!pack_output_begin(dirfd, p->path, &o.file, err))
        return false;
    bool ok = put_pack(p, how, &o, err);
    *ret_len = o.file.len;
    return pack_output_end(dirfd, &o.file, ok, err);
}

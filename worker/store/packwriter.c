/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "proto/base/file.h"
#include "worker/store/packfile.h"
#include "worker/store/writer.h"

enum { WRITE_BACK_BYTES = 8 << 20, GATHER_BYTES = 1 << 20 };

/* packs/ab, made when the first pack of it comes. Its entry in packs/ is synced at commit. */
static bool create_file(struct pack_writer *pack, int dirfd, struct err *err)
{
    char dir[64];
    memcpy(dir, pack->path, sizeof dir);
    *strrchr(dir, '/') = '\0';
    pack->fd = openat(dirfd, pack->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (pack->fd < 0 && errno == ENOENT && object_make_dir(dirfd, dir, err))
        pack->fd = openat(dirfd, pack->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (pack->fd < 0 && !err_is_set(err))
        err_set_errno(err, errno, "create '%s'", pack->path);
    return pack->fd >= 0;
}

/* Past the page cache, where the file system likes that: what is stored is not read again soon, and
 * a copy of it into fresh pages costs more than the disk. */
static void set_direct(struct pack_writer *pack, bool on)
{
    pack->is_direct = file_set_direct(pack->fd, on) && on;
}

/* Write out what was gathered: whole blocks, but for the end. */
static bool flush(struct pack_writer *pack, struct err *err)
{
    const uint8_t *at = pack->bytes, *end = at + pack->gathered;
    while (at < end) {
        ssize_t n = write(pack->fd, at, (size_t)(end - at));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EINVAL && pack->is_direct) { /* also after a part of a block */
            set_direct(pack, false);
            continue;
        }
        if (n < 0)
            return err_set_errno(err, errno, "write '%s'", pack->path);
        at += n;
    }
    pack->gathered = 0;
    return true;
}

static bool append(struct pack_writer *pack, const void *data, size_t len, struct err *err)
{
    for (const uint8_t *at = data; len > 0;) {
        size_t room = GATHER_BYTES - pack->gathered, n = len < room ? len : room;
        memcpy(pack->bytes + pack->gathered, at, n);
        pack->gathered += n;
        pack->len += n;
        at += n;
        len -= n;
        if (pack->gathered == GATHER_BYTES && !flush(pack, err))
            return false;
    }
    return true;
}

struct pack_writer *pack_writer_new(struct store_session *session, struct err *err)
{
    struct store *store = session->store;
    struct pack_writer *pack = ALLOC_NEW(struct pack_writer);
    pack->session = session;
    pack->nth = session_next_pack(session, pack->id);
    pack_path(pack->id, pack->path);
    struct pack_header header = {0};
    memcpy(header.id, pack->id, sizeof header.id);
    memcpy(header.repository, store->repo_id, sizeof header.repository);
    memcpy(header.session, session->id, strlen(session->id));
    pack->bytes = xaligned(STORE_BLOCK_BYTES, GATHER_BYTES);
    uint8_t bytes[PACK_HEADER_BYTES];
    pack_header_encode(&header, bytes);
    if (!create_file(pack, store->dirfd, err) || !append(pack, bytes, sizeof bytes, err)) {
        pack_writer_free(pack);
        return NULL;
    }
    if (atomic_load(&store->likes_direct))
        set_direct(pack, true);
    if (store->crypt)
        envelope_new(store->crypt, &pack->envelope);
    pack->number = dedup_pack_begin(store->dedup, pack->id, session->owner);
    session_pack_begins(session, pack->nth, pack->number);
    return pack;
}

bool pack_writer_append(struct pack_writer *pack, const struct frame_header *header,
                        const uint8_t *frame, size_t len, struct err *err)
{
    footer_add_frame(&pack->footer, pack->len, header->stored_len, header->raw_len, header->chunks,
                     pack->session->store->crypt, header->salt);
    pack->raw += header->raw_len;
    if (!append(pack, frame, len, err))
        return false;
    uint64_t written = pack->len - pack->gathered;
    if (!pack->is_direct && written - pack->flushed >= WRITE_BACK_BYTES) {
        /* Start the disk early, so that the fsync at the end has little left to do. A hint: what
         * fails here fails there. */
        (void)sync_file_range(pack->fd, (off_t)pack->flushed, (off_t)(written - pack->flushed),
                              SYNC_FILE_RANGE_WRITE);
        pack->flushed = written;
    }
    return true;
}

bool pack_writer_is_full(const struct pack_writer *pack)
{
    return pack->len >= pack->session->store->opts.pack_bytes || pack->raw >= PACK_RAW_MAX ||
           pack->footer.n_frames >= PACK_FRAMES_MAX;
}

static bool write_end(struct pack_writer *pack, struct err *err)
{
    struct trailer trailer = {
        .tail_offset = pack->len,
        .tail_len = (uint32_t)footer_builder_bytes(&pack->footer),
        .file_len = pack->len + footer_builder_bytes(&pack->footer) + TRAILER_BYTES,
    };
    SCOPED_FREE uint8_t *footer = footer_encode(&pack->footer);
    digest_sha256(footer, trailer.tail_len, trailer.tail_digest);
    uint8_t bytes[TRAILER_BYTES];
    trailer_encode(&trailer, TRAILER_PACK, bytes);
    if (!append(pack, footer, trailer.tail_len, err) || !append(pack, bytes, sizeof bytes, err))
        return false;
    set_direct(pack, false); /* the end is no whole block */
    if (!flush(pack, err))
        return false;
    dedup_pack_seal(pack->session->store->dedup, pack->number, trailer.tail_digest);
    return true;
}

bool pack_writer_finish(struct pack_writer *pack, struct err *err)
{
    struct store_session *session = pack->session;
    session_pack_ends(session, pack->nth, true);
    if (!write_end(pack, err)) {
        session_pack_ends(session, pack->nth, false);
        pack_writer_free(pack);
        return false;
    }
    struct seal_job *job = ALLOC_NEW(struct seal_job);
    job->fd = TAKE_FD(pack->fd);
    memcpy(job->path, pack->path, sizeof job->path);
    pack_writer_free(pack);
    if (queue_push(session->seals, job, 1))
        return true;
    (void)close(job->fd);
    free(job);
    return err_set(err, ERR_CANCELLED, 0, "the session is being given up");
}

void pack_writer_free(struct pack_writer *pack)
{
    if (!pack)
        return;
    if (pack->fd >= 0)
        (void)close(pack->fd);
    footer_builder_done(&pack->footer);
    free(pack->bytes);
    envelope_wipe(&pack->envelope);
    free(pack);
}

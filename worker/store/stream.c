/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread's pipeline. A call is cut into units, and what a unit stores goes into the frame being
 * filled (unit.h). A full frame is compressed and appended to the thread's pack; a full pack goes
 * to the sealer. Nothing is shared with other threads but the deduplication tables and the disk's
 * map.
 */
#include <assert.h>
#include <inttypes.h>

#include "proto/base/log.h"
#include "worker/store/unit.h"

/* ---- streams */

struct store_stream *store_stream_begin(struct store_session *session, struct err *err)
{
    if (!session_check(session, err))
        return NULL;
    pthread_mutex_lock(&session->lock);
    struct store_stream *s = session->idle;
    if (s)
        session->idle = s->next;
    session->n_active++;
    pthread_mutex_unlock(&session->lock);
    if (s) {
        s->next = NULL;
        return s;
    }
    s = ALLOC_NEW(struct store_stream);
    s->session = session;
    s->hasher = hasher_new(crypt_id_key(session->store->crypt));
    s->coder = frame_coder_new(session->store->crypt);
    s->frame = xaligned(STORE_BLOCK_BYTES, FRAME_RAW_MAX);
    s->encoded = xmalloc(FRAME_BYTES_MAX);
    s->unit = unit_new(s);
    return s;
}

void store_stream_end(struct store_stream *stream)
{
    if (!stream)
        return;
    struct store_session *session = stream->session;
    struct err err = ERR_INIT;
    if (session_check(session, &err) && !unit_settle(stream->unit, &err))
        session_fail(session, &err);
    pthread_mutex_lock(&session->lock);
    stream->next = session->idle;
    session->idle = stream;
    session->n_active--;
    pthread_mutex_unlock(&session->lock);
}

void stream_free(struct store_stream *stream)
{
    if (!stream)
        return;
    pack_writer_free(stream->pack);
    hook_set_done(&stream->hooks);
    hasher_free(stream->hasher);
    frame_coder_free(stream->coder);
    unit_free(stream->unit);
    free(stream->frame);
    free(stream->encoded);
    free(stream);
}

/* ---- frames */

bool stream_flush_frame(struct store_stream *s, struct store_stats *stats, struct err *err)
{
    if (s->frame_blocks == 0)
        return true;
    struct frame_header header;
    const struct store *store = s->session->store;
    size_t len = frame_encode(
        s->coder, store->opts.zstd_level, store->crypt ? &s->pack->envelope : NULL, s->frame,
        s->frame_blocks * STORE_BLOCK_BYTES, s->frame_chunks, s->encoded, &header);
    if (!pack_writer_append(s->pack, &header, s->encoded, len, err))
        return false;
    stats->stored_bytes += len;
    s->frame_blocks = 0;
    s->frame_chunks = 0;
    return !pack_writer_is_full(s->pack) || pack_writer_finish(TAKE(s->pack), err);
}

bool stream_flush(struct store_stream *stream, struct err *err)
{
    const struct map_records none = {0};
    struct store_stats stats = {0};
    if (!stream_flush_frame(stream, &stats, err))
        return false;
    if (stats.stored_bytes > 0) /* a frame may be shared: it counts for the disk that wrote last */
        disk_merge(stream->unit->disk, &none, &stats);
    return true;
}

bool stream_finish(struct store_stream *stream, struct err *err)
{
    if (!stream_flush(stream, err))
        return false;
    return !stream->pack || pack_writer_finish(TAKE(stream->pack), err);
}

/* ---- writing */

bool stream_check_range(const struct store_disk *disk, uint64_t offset, uint64_t len,
                        struct err *err)
{
    if (offset > disk->size_bytes || len > disk->size_bytes - offset)
        return err_set(err, ERR_BAD_ARGUMENT, 0,
                       "%" PRIu64 " bytes at offset %" PRIu64 " are beyond its end, %" PRIu64, len,
                       offset, disk->size_bytes);
    if (offset % STORE_BLOCK_BYTES != 0 ||
        (len % STORE_BLOCK_BYTES != 0 && offset + len != disk->size_bytes))
        return err_set(err, ERR_BAD_ARGUMENT, 0,
                       "%" PRIu64 " bytes at offset %" PRIu64 " are not whole blocks", len, offset);
    return !disk->is_finished || err_set(err, ERR_BAD_ARGUMENT, 0, "it is finished already");
}

bool store_stream_write(struct store_stream *stream, struct store_disk *disk, uint64_t offset,
                        const void *data, size_t len, struct err *err)
{
    assert(disk->session == stream->session);
    if (!session_check(stream->session, err))
        return false;
    bool ok = stream_check_range(disk, offset, len, err);
    const uint8_t *at = data;
    while (ok && len > 0) {
        size_t part = (size_t)UNIT_BLOCKS * STORE_BLOCK_BYTES;
        part = len < part ? len : part;
        ok = unit_write(stream->unit, disk, offset / STORE_BLOCK_BYTES, at, part, err);
        at += part;
        offset += part;
        len -= part;
    }
    if (!ok) {
        err_wrap(err, "disk %s", disk->id);
        return session_fail(stream->session, err);
    }
    return true;
}

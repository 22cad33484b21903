/* SPDX-License-Identifier: Apache-2.0 */
/* A target that takes its bytes in order: a pipe. The pipeline hands out the parts of a disk from
 * first to last; a thread that has decoded its part waits here until it is its turn. */
#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#include "proto/base/file.h"
#include "worker/copy/copy.h"

enum { ZERO_BYTES = 256 << 10 };

struct target_stream {
    struct target base;
    int fd;
    pthread_mutex_t lock; /* guards what follows; held while writing */
    pthread_cond_t moved;
    uint64_t at;
    bool is_failed;
};

/* With the lock, once all before `offset` is written. False: nothing more can be. */
static bool wait_turn(struct target_stream *s, uint64_t offset, struct err *err)
{
    pthread_mutex_lock(&s->lock);
    while (s->at != offset && !s->is_failed)
        pthread_cond_wait(&s->moved, &s->lock);
    return !s->is_failed || err_set(err, ERR_CANCELLED, 0, "the stream has failed");
}

static void end_turn(struct target_stream *s, uint64_t at)
{
    s->at = at;
    pthread_cond_broadcast(&s->moved);
    pthread_mutex_unlock(&s->lock);
}

static bool stream_pwrite(struct target *target, const void *buf, size_t len, uint64_t offset,
                          struct err *err)
{
    struct target_stream *s = (struct target_stream *)target;
    bool ok = wait_turn(s, offset, err) && file_write_full(s->fd, buf, len, err);
    end_turn(s, ok ? offset + len : s->at);
    return ok;
}

static bool stream_zero(struct target *target, uint64_t offset, uint64_t len, struct err *err)
{
    static const uint8_t zeroes[ZERO_BYTES];
    struct target_stream *s = (struct target_stream *)target;
    bool ok = wait_turn(s, offset, err);
    for (uint64_t done = 0; ok && done < len;) {
        size_t part = len - done < sizeof zeroes ? (size_t)(len - done) : sizeof zeroes;
        ok = file_write_full(s->fd, zeroes, part, err);
        done += part;
    }
    end_turn(s, ok ? offset + len : s->at);
    return ok;
}

static bool stream_flush(struct target *target, struct err *err)
{
    struct target_stream *s = (struct target_stream *)target;
    if (fsync(s->fd) == 0 || errno == EINVAL || errno == EROFS || errno == EBADF)
        return true; /* done, or nothing to sync */
    return err_set_errno(err, errno, "sync the stream");
}

/* A part will never come: whoever waits for its turn after that need not. */
static void stream_fail(struct target *target)
{
    struct target_stream *s = (struct target_stream *)target;
    pthread_mutex_lock(&s->lock);
    s->is_failed = true;
    end_turn(s, s->at);
}

static void stream_close(struct target *target)
{
    struct target_stream *s = (struct target_stream *)target;
    pthread_cond_destroy(&s->moved);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

struct target *target_stream_open(int fd, uint64_t size_bytes)
{
    static const struct target_ops ops = {.pwrite = stream_pwrite,
                                          .zero = stream_zero,
                                          .flush = stream_flush,
                                          .fail = stream_fail,
                                          .close = stream_close};
    struct target_stream *s = ALLOC_NEW(struct target_stream);
    s->base = (struct target){.ops = &ops, .size_bytes = size_bytes, .is_ordered = true};
    s->fd = fd;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->moved, NULL);
    return &s->base;
}

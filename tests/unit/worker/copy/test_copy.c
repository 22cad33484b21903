/* SPDX-License-Identifier: Apache-2.0 */
/* The pipeline between memory and the repository: coverage of every byte, errors, cancellation,
 * progress, misbehaving and odd sources. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/base/log.h"
#include "tests/unit/worker/store/support.h"
#include "worker/copy/copy.h"
#include "worker/store/upkeep.h"

enum { MIB = 1 << 20, KIB = 1 << 10, BLOCK = STORE_BLOCK_BYTES };

/* ---- a source and a target in memory, with faults */

struct memory_source {
    struct source base;
    const uint8_t *data;
    uint64_t granularity; /* of the extents it reports */
    int64_t delay_ms;     /* of each read */
    int fail_at;          /* the nth read fails, from 1; 0 = none */
    bool fail_extents;
    atomic_int reads;
    atomic_uint_fast64_t read_bytes;
};

static bool is_zero(const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (p[i] != 0)
            return false;
    return true;
}

static bool memory_extents(struct source *source, uint64_t offset, uint64_t len,
                           struct extents *out, struct err *err)
{
    struct memory_source *m = (struct memory_source *)source;
    if (m->fail_extents)
        return err_set(err, ERR_ENGINE_PROTOCOL, 0, "no map today");
    for (uint64_t at = offset; at < offset + len;) {
        uint64_t n = m->granularity - at % m->granularity;
        n = n < offset + len - at ? n : offset + len - at;
        extents_add(out, at, n, !is_zero(m->data + at, n));
        at += n;
    }
    return true;
}

static bool memory_pread(struct source *source, void *buf, size_t len, uint64_t offset,
                         struct err *err)
{
    struct memory_source *m = (struct memory_source *)source;
    int n = atomic_fetch_add(&m->reads, 1) + 1;
    if (m->delay_ms > 0)
        clock_sleep_ms(clock_system(), m->delay_ms);
    if (m->fail_at > 0 && n >= m->fail_at)
        return err_set(err, ERR_IO, 0, "read %d fails", n);
    if (offset % BLOCK != 0 || (len % BLOCK != 0 && offset + len != m->base.size_bytes) ||
        offset + len > m->base.size_bytes)
        return err_set(err, ERR_INTERNAL, 0, "a read that is not aligned");
    memcpy(buf, m->data + offset, len);
    atomic_fetch_add(&m->read_bytes, len);
    return true;
}

static void memory_close(struct source *source)
{
    (void)source; /* on the test's stack */
}

static const struct source_ops memory_ops = {
    .extents = memory_extents, .pread = memory_pread, .close = memory_close};

struct memory_target {
    struct target base;
    uint8_t *data;
    pthread_mutex_t lock;
    uint64_t written, zeroed, reserved;
    int fail_at;
    int calls;
    bool is_flushed, fail_flush;
};

static bool target_call(struct memory_target *m, struct err *err)
{
    m->is_flushed = false;
    return ++m->calls != m->fail_at || err_set(err, ERR_NO_SPACE, 0, "call %d fails", m->calls);
}

static bool memory_pwrite(struct target *target, const void *buf, size_t len, uint64_t offset,
                          struct err *err)
{
    struct memory_target *m = (struct memory_target *)target;
    pthread_mutex_lock(&m->lock);
    bool ok = target_call(m, err);
    if (ok && (offset % BLOCK != 0 || offset + len > target->size_bytes ||
               (len % BLOCK != 0 && offset + len != target->size_bytes)))
        ok = err_set(err, ERR_INTERNAL, 0, "a write that is not aligned");
    if (ok)
        memcpy(m->data + offset, buf, len);
    m->written += len;
    pthread_mutex_unlock(&m->lock);
    return ok;
}

static bool memory_zero(struct target *target, uint64_t offset, uint64_t len, struct err *err)
{
    struct memory_target *m = (struct memory_target *)target;
    pthread_mutex_lock(&m->lock);
    bool ok = target_call(m, err);
    if (ok)
        memset(m->data + offset, 0, len);
    m->zeroed += len;
    pthread_mutex_unlock(&m->lock);
    return ok;
}

static bool memory_reserve(struct target *target, uint64_t offset, uint64_t len, struct err *err)
{
    struct memory_target *m = (struct memory_target *)target;
    pthread_mutex_lock(&m->lock);
    bool ok = target_call(m, err);
    if (offset % BLOCK != 0 || offset + len > target->size_bytes)
        ok = err_set(err, ERR_INTERNAL, 0, "room beyond the end");
    m->reserved += len;
    pthread_mutex_unlock(&m->lock);
    return ok;
}

static bool memory_flush(struct target *target, struct err *err)
{
    struct memory_target *m = (struct memory_target *)target;
    if (m->fail_flush)
        return err_set(err, ERR_IO, 0, "flush fails");
    m->is_flushed = true;
    return true;
}

static void memory_target_close(struct target *target)
{
    (void)target;
}

static const struct target_ops memory_target_ops = {.pwrite = memory_pwrite,
                                                    .zero = memory_zero,
                                                    .flush = memory_flush,
                                                    .close = memory_target_close};

static const struct target_ops reserving_target_ops = {.pwrite = memory_pwrite,
                                                       .reserve = memory_reserve,
                                                       .zero = memory_zero,
                                                       .flush = memory_flush,
                                                       .close = memory_target_close};

/* ---- fixture */

struct fixture {
    char *dir;
    struct store *store;
    uint8_t *data;
    size_t size;
    struct memory_source source;
    struct store_session *session;
    struct store_disk *disk;
    struct err err;
};

static int setup(void **state)
{
    struct fixture *f = ALLOC_NEW(struct fixture);
    log_set_level(LOG_LEVEL_ERROR);
    f->dir = temp_dir();
    SCOPED_FREE char *path = xasprintf("%s/repo", f->dir);
    f->store = store_init(path, NULL, &f->err);
    MUST(f->store, &f->err);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    store_session_free(f->session);
    store_free(f->store);
    remove_tree(f->dir);
    free(f->data);
    free(f->dir);
    free(f);
    return 0;
}

/* A disk of `size` bytes with about `fill` quarters of it data, in runs of any alignment. */
static void make_disk(struct fixture *f, size_t size, unsigned fill)
{
    f->size = size;
    f->data = xcalloc(1, size + 1);
    uint64_t seed = size;
    for (size_t at = 0; at < size;) {
        size_t len = 1 + random_next(&seed) % (2 * MIB);
        len = size - at < len ? size - at : len;
        if (random_next(&seed) % 4 < fill)
            fill_text(f->data + at, len, seed);
        at += len;
    }
    f->source = (struct memory_source){
        .base = {.ops = &memory_ops, .size_bytes = size}, .data = f->data, .granularity = 64 * KIB};
}

static void begin_with_parent(struct fixture *f, const char *id, struct store_reader *parent)
{
    struct store_session_opts opts = session_opts(id);
    store_session_free(f->session);
    f->session = store_session_begin(f->store, &opts, &f->err);
    MUST(f->session, &f->err);
    struct store_disk_opts d = {.id = "d", .size_bytes = f->size, .parent = parent};
    f->disk = store_disk_begin(f->session, &d, &f->err);
    MUST(f->disk, &f->err);
}

static void begin(struct fixture *f, const char *id)
{
    begin_with_parent(f, id, NULL);
}

static void finish(struct fixture *f)
{
    MUST(store_disk_finish(f->disk, NULL, &f->err), &f->err);
    MUST(store_session_commit(f->session, NULL, &f->err), &f->err);
}

static struct store_reader *open_reader(struct fixture *f, const char *id)
{
    struct store_point *point = store_point_open(f->store, id, &f->err);
    MUST(point, &f->err);
    struct store_reader *reader = store_disk_open(point, "d", &f->err);
    MUST(reader, &f->err);
    store_point_free(point);
    return reader;
}

/* Restore into a target of `size` bytes full of rubbish, or of zeroes, and compare. */
static void check_restore_into(struct fixture *f, const char *id, size_t size, bool is_zero_before,
                               bool takes_pieces, bool reserves)
{
    SCOPED(store_reader) struct store_reader *reader = open_reader(f, id);
    struct memory_target t = {.base = {.ops = reserves ? &reserving_target_ops : &memory_target_ops,
                                       .size_bytes = size,
                                       .is_zero = is_zero_before,
                                       .takes_pieces = takes_pieces},
                              .data = xmalloc(size + 1)};
    pthread_mutex_init(&t.lock, NULL);
    memset(t.data, is_zero_before ? 0 : 0xee, size);
    struct copy_opts opts = {.threads = 3};
    struct copy_stats stats;
    MUST(copy_restore(reader, &t.base, &opts, &stats, &f->err), &f->err);
    assert_memory_equal(t.data, f->data, f->size);
    assert_true(is_zero(t.data + f->size, size - f->size));
    assert_true(t.is_flushed);
    assert_int_equal(stats.data_bytes + stats.hole_bytes, size);
    if (is_zero_before)
        assert_int_equal(t.zeroed, 0);
    else
        assert_int_equal(t.zeroed + t.written, size);
    if (takes_pieces && reserves) /* room for the data, and for nothing else */
        assert_int_equal(t.reserved, t.written);
    else
        assert_int_equal(t.reserved, 0);
    free(t.data);
    pthread_mutex_destroy(&t.lock);
}

static void check_restore(struct fixture *f, const char *id, size_t size, bool is_zero_before)
{
    for (unsigned i = 0; i < 4; i++)
        check_restore_into(f, id, size, is_zero_before, i % 2, i / 2);
}

/* ---- tests */

static void test_sizes_and_granularities(void **state)
{
    struct fixture *f = *state;
    const struct {
        size_t size;
        uint64_t granularity;
        unsigned fill, threads;
    } cases[] = {
        {0, 65536, 4, 2},
        {1, 65536, 4, 2},
        {4095, 512, 4, 0},
        {4097, 512, 4, 1},
        {MIB, 1, 2, 2},
        {5 * MIB + 513, 512, 2, 3},
        {20 * MIB + 5000, 65536, 2, 4},
        {20 * MIB, 100000, 1, 2}, /* extents that are aligned to nothing */
        {9 * MIB + 1, UINT64_C(1) << 40, 0, 2},
        {33 * MIB, UINT64_C(1) << 40, 3, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char id[32];
        (void)snprintf(id, sizeof id, "case-%zu.1", i);
        free(f->data);
        make_disk(f, cases[i].size, cases[i].fill);
        f->source.granularity = cases[i].granularity;
        begin(f, id);
        struct copy_opts opts = {.threads = cases[i].threads};
        struct copy_stats stats;
        MUST(copy_backup(&f->source.base, f->session, f->disk, &opts, &stats, &f->err), &f->err);
        assert_int_equal(stats.data_bytes + stats.hole_bytes, cases[i].size);
        assert_int_equal(stats.data_bytes, f->source.read_bytes);
        finish(f);
        struct disk_image image = {.id = "d", .data = f->data, .size = f->size};
        MUST(check_image(f->store, id, &image, &f->err), &f->err);
        check_restore(f, id, f->size, false);
        check_restore(f, id, f->size, true);
        check_restore(f, id, f->size + 100 * KIB + 7,
                      false); /* a larger target is zeroed to its end */
    }
}

static void test_holes_are_not_read(void **state)
{
    struct fixture *f = *state;
    make_disk(f, 64 * MIB, 0);
    fill_text(f->data + 10 * MIB, MIB, 1);
    begin(f, "holes.1");
    struct copy_stats stats;
    MUST(copy_backup(&f->source.base, f->session, f->disk, NULL, &stats, &f->err), &f->err);
    finish(f);
    assert_int_equal(f->source.read_bytes, MIB);
    assert_int_equal(stats.data_bytes, MIB);
    assert_int_equal(stats.store.stored_raw_bytes, MIB);
    check_restore(f, "holes.1", f->size, false);
}

/* The map decides: what it calls clean is not read, whatever is there. */
static void test_only_what_changed_is_read(void **state)
{
    struct fixture *f = *state;
    for (unsigned round = 0; round < 6; round++) {
        char parent_id[32], id[32];
        (void)snprintf(parent_id, sizeof parent_id, "parent-%u.1", round);
        (void)snprintf(id, sizeof id, "child-%u.1", round);
        free(f->data);
        make_disk(f, 20 * MIB + round * 1000, round % 4 + 1);
        begin(f, parent_id);
        MUST(copy_backup(&f->source.base, f->session, f->disk, NULL, NULL, &f->err), &f->err);
        finish(f);
        uint8_t *before = xmalloc(f->size);
        memcpy(before, f->data, f->size);
        uint64_t seed = round + 1, dirty = 0;
        SCOPED_EXTENTS struct extents changed = EXTENTS_INIT;
        bool is_dirty = round % 2;
        /* A list that ends early: the rest has changed. */
        uint64_t listed = round < 4 ? f->size : 9 * MIB;
        for (uint64_t at = 0; at < listed; is_dirty = !is_dirty) {
            uint64_t len = (1 + random_next(&seed) % 700) * BLOCK;
            len = len < listed - at ? len : listed - at;
            extents_add(&changed, at, len, is_dirty);
            fill_random(f->data + at, len, seed);
            if (is_dirty)
                dirty += len;
            else if (at % (2 * BLOCK) == 0) /* else nobody told us */
                memcpy(f->data + at, before + at, len);
            at += len;
        }
        fill_random(f->data + listed, f->size - listed, seed);
        dirty += f->size - listed;
        SCOPED(store_reader) struct store_reader *parent = open_reader(f, parent_id);
        begin_with_parent(f, id, parent);
        f->source.read_bytes = 0;
        struct copy_opts opts = {.threads = 3, .changed = &changed};
        struct copy_stats stats;
        MUST(copy_backup(&f->source.base, f->session, f->disk, &opts, &stats, &f->err), &f->err);
        finish(f);
        assert_int_equal(f->source.read_bytes, dirty);
        assert_int_equal(stats.kept_bytes, f->size - dirty);
        assert_int_equal(stats.data_bytes + stats.hole_bytes, dirty);
        for (size_t i = 0; i < changed.count; i++) {
            const struct extent *x = &changed.items[i];
            if (!x->is_data)
                memcpy(f->data + x->offset, before + x->offset, x->len);
        }
        check_restore(f, id, f->size, false);
        free(before);
    }
}

/* The data ranges of the list, from f->source into f->disk: nothing else is read. */
static uint64_t copy_only(struct fixture *f, const struct extents *only)
{
    uint64_t want = 0, before = f->source.read_bytes;
    for (size_t i = 0; i < only->count; i++)
        want += only->items[i].is_data ? only->items[i].len : 0;
    struct copy_opts opts = {.threads = 3, .only = only};
    struct copy_stats stats;
    MUST(copy_backup(&f->source.base, f->session, f->disk, &opts, &stats, &f->err), &f->err);
    assert_int_equal(stats.size_bytes, want);
    assert_int_equal(stats.data_bytes + stats.hole_bytes, want);
    assert_int_equal(f->source.read_bytes - before, stats.data_bytes);
    return stats.data_bytes;
}

/* Each range of a disk by one of two copies, whatever the grain of the map is: together they are
 * the disk, and neither reads what is the other's. */
static void test_ranges_one_by_one(void **state)
{
    struct fixture *f = *state;
    static const uint64_t grains[] = {BLOCK, 64 * KIB, 100 * KIB + 512, 7 * MIB};
    for (unsigned round = 0; round < 8; round++) {
        char id[32];
        (void)snprintf(id, sizeof id, "ranges-%u.1", round);
        free(f->data);
        make_disk(f, 20 * MIB + round % 3 * 1000, round % 4 + 1);
        f->source.granularity = grains[round % ARRAY_LEN(grains)];
        begin(f, id);
        uint64_t seed = round + 1;
        SCOPED_EXTENTS struct extents mine = EXTENTS_INIT, others = EXTENTS_INIT;
        bool is_mine = round % 2;
        uint64_t listed = round < 4 ? f->size : 15 * MIB; /* what no list has is nobody's */
        for (uint64_t at = 0; at < listed; is_mine = !is_mine) {
            uint64_t len = (1 + random_next(&seed) % 2000) * BLOCK;
            len = len < listed - at ? len : listed - at;
            extents_add(&mine, at, len, is_mine);
            extents_add(&others, at, len, !is_mine);
            at += len;
        }
        uint64_t data = copy_only(f, &mine) + copy_only(f, &others);
        assert_true(data <= listed);
        memset(f->data + listed, 0, f->size - listed);
        finish(f);
        check_restore(f, id, f->size, false);
    }
}

static void test_nothing_to_copy(void **state)
{
    struct fixture *f = *state;
    make_disk(f, 8 * MIB, 4);
    begin(f, "nothing.1");
    SCOPED_EXTENTS struct extents none = EXTENTS_INIT;
    assert_int_equal(copy_only(f, &none), 0);
    extents_add(&none, 0, f->size, false);
    assert_int_equal(copy_only(f, &none), 0);
    memset(f->data, 0, f->size);
    finish(f);
    check_restore(f, "nothing.1", f->size, false);
}

/* Of the largest file whose name begins so. */
static void damage_file(const struct fixture *f, const char *prefix, size_t at, size_t len)
{
    SCOPED_FREE char *repo = xasprintf("%s/repo", f->dir), *path = NULL;
    struct file_list files = list_files(repo);
    off_t largest = 0;
    for (size_t i = 0; i < files.count; i++) {
        struct stat st;
        SCOPED_FREE char *one = xasprintf("%s/%s", repo, files.items[i]);
        assert_int_equal(stat(one, &st), 0);
        if (strncmp(files.items[i], prefix, strlen(prefix)) != 0 || st.st_size <= largest)
            continue;
        largest = st.st_size;
        free(path);
        path = TAKE(one);
    }
    file_list_done(&files);
    if (!path || largest < (off_t)(at + len)) {
        fail_msg("there is no file of that size: %s", prefix);
        return;
    }
    SCOPED_FREE uint8_t *junk = xmalloc(len);
    fill_random(junk, len, 7);
    assert_int_equal(chmod(path, 0600), 0);
    SCOPED_FD int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, junk, len, (off_t)at), len);
}

static void reopen(struct fixture *f)
{
    SCOPED_FREE char *path = xasprintf("%s/repo", f->dir);
    store_session_free(f->session);
    f->session = NULL;
    store_free(f->store);
    f->store = store_open(path, NULL, &f->err);
    MUST(f->store, &f->err);
}

/* A copy by a map that says that nothing has changed but the first 64 KiB; returns the bytes read.
 */
static uint64_t copy_unchanged(struct fixture *f, const char *parent_id, const char *id)
{
    SCOPED_EXTENTS struct extents changed = EXTENTS_INIT;
    extents_add(&changed, 0, (uint64_t)64 * KIB, true);
    extents_add(&changed, (uint64_t)64 * KIB, f->size - (uint64_t)64 * KIB, false);
    SCOPED(store_reader) struct store_reader *parent = open_reader(f, parent_id);
    begin_with_parent(f, id, parent);
    f->source.read_bytes = 0;
    struct copy_opts opts = {.threads = 2, .changed = &changed};
    struct copy_stats stats;
    MUST(copy_backup(&f->source.base, f->session, f->disk, &opts, &stats, &f->err), &f->err);
    finish(f);
    assert_int_equal(stats.store.read_bytes, stats.store.zero_bytes + stats.store.unchanged_bytes +
                                                 stats.store.dedup_bytes +
                                                 stats.store.stored_raw_bytes);
    assert_int_equal(stats.store.read_bytes, (f->size + BLOCK - 1) / BLOCK * BLOCK);
    return f->source.read_bytes;
}

/* What the parent cannot give any more is read from the source, whatever the map says. */
static void test_what_the_parent_has_lost_is_read(void **state)
{
    struct fixture *f = *state;
    make_disk(f, 6 * MIB + 1000, 4);
    begin(f, "a.1");
    MUST(copy_backup(&f->source.base, f->session, f->disk, NULL, NULL, &f->err), &f->err);
    finish(f);
    reopen(f);
    fill_text(f->data, (size_t)64 * KIB, 99);
    assert_int_equal(copy_unchanged(f, "a.1", "a.2"), 64 * KIB);
    check_restore(f, "a.2", f->size, false);

    /* A frame of it. */
    struct store_scrub_result r;
    damage_file(f, "packs/", 100000, 3000);
    reopen(f);
    MUST(store_scrub(f->store, NULL, &r, &f->err), &f->err);
    assert_true(r.points_damaged > 0);
    uint64_t read = copy_unchanged(f, "a.1", "a.3");
    assert_true(read > 64 * KIB && read <= 64 * KIB + MIB);
    check_restore(f, "a.3", f->size, false);

    /* The map itself. */
    damage_file(f, "manifests/a.3/d.mf", 70, 8);
    reopen(f);
    assert_int_equal(copy_unchanged(f, "a.3", "a.4"), f->size);
    check_restore(f, "a.4", f->size, false);
}

struct pipe_reader {
    int fd;
    uint8_t *data;
    size_t size, stop_at;
};

static void *read_pipe(void *arg)
{
    struct pipe_reader *p = arg;
    size_t at = 0;
    ssize_t n;
    while (at < p->stop_at && (n = read(p->fd, p->data + at, p->size + 1 - at)) > 0)
        at += (size_t)n;
    p->size = at;
    close(p->fd);
    return NULL;
}

/* Into a pipe whose reader stops after `stop_at` bytes. */
static bool run_stream(struct fixture *f, const char *id, struct pipe_reader *p,
                       const struct copy_opts *opts, struct err *err)
{
    int fds[2];
    pthread_t thread;
    assert_int_equal(pipe(fds), 0);
    p->fd = fds[0];
    assert_int_equal(pthread_create(&thread, NULL, read_pipe, p), 0);
    SCOPED(store_reader) struct store_reader *reader = open_reader(f, id);
    SCOPED(target) struct target *t = target_stream_open(fds[1], f->size);
    bool ok = copy_restore(reader, t, opts, NULL, err);
    close(fds[1]);
    pthread_join(thread, NULL);
    return ok;
}

static bool always(void *context)
{
    (void)context;
    return true;
}

static void test_a_stream_has_its_bytes_in_order(void **state)
{
    struct fixture *f = *state;
    (void)signal(SIGPIPE, SIG_IGN);
    make_disk(f, 70 * MIB + 77, 2);
    begin(f, "stream.1");
    MUST(copy_backup(&f->source.base, f->session, f->disk, NULL, NULL, &f->err), &f->err);
    finish(f);
    uint8_t *got = xmalloc(f->size + 1);
    struct pipe_reader all = {.data = got, .size = f->size, .stop_at = SIZE_MAX};
    struct copy_opts opts = {.threads = 4};
    MUST(run_stream(f, "stream.1", &all, &opts, &f->err), &f->err);
    assert_int_equal(all.size, f->size);
    assert_memory_equal(got, f->data, f->size);
    /* A reader that goes away, and a cancel: nobody waits for ever. */
    struct pipe_reader part = {.data = got, .size = f->size, .stop_at = 5 * MIB};
    MUST_FAIL(run_stream(f, "stream.1", &part, &opts, &f->err), &f->err, ERR_IO);
    struct pipe_reader none = {.data = got, .size = f->size, .stop_at = SIZE_MAX};
    opts.cancelled = always;
    struct err err = ERR_INIT;
    if (!run_stream(f, "stream.1", &none, &opts, &err)) /* it may be faster than the watch */
        assert_int_equal(err.code, ERR_CANCELLED);
    free(got);
}

static void test_failing_source(void **state)
{
    struct fixture *f = *state;
    make_disk(f, 40 * MIB, 4);
    for (int n = 1; n < 10; n += 2) {
        char id[32];
        (void)snprintf(id, sizeof id, "fail-%d.1", n);
        begin(f, id);
        f->source.fail_at = n;
        f->source.reads = 0;
        struct copy_opts opts = {.threads = 3};
        bool ok = copy_backup(&f->source.base, f->session, f->disk, &opts, NULL, &f->err);
        assert_false(ok);
        assert_non_null(strstr(f->err.message, "at offset"));
        MUST_FAIL(ok, &f->err, ERR_IO);
        assert_true(f->source.reads < n + 3); /* the others stop, too */
    }
    f->source.fail_at = 0;
    f->source.fail_extents = true;
    begin(f, "map.1");
    MUST_FAIL(copy_backup(&f->source.base, f->session, f->disk, NULL, NULL, &f->err), &f->err,
              ERR_ENGINE_PROTOCOL);
}

static void test_failing_target(void **state)
{
    struct fixture *f = *state;
    make_disk(f, 20 * MIB, 2);
    begin(f, "target.1");
    MUST(copy_backup(&f->source.base, f->session, f->disk, NULL, NULL, &f->err), &f->err);
    finish(f);
    SCOPED(store_reader) struct store_reader *reader = open_reader(f, "target.1");
    struct memory_target t = {.base = {.ops = &memory_target_ops, .size_bytes = f->size},
                              .data = xmalloc(f->size)};
    pthread_mutex_init(&t.lock, NULL);
    for (int n = 1; n < 8; n++) {
        t.calls = 0;
        t.fail_at = n;
        t.base.takes_pieces = n % 2;
        t.base.ops = n % 4 < 2 ? &memory_target_ops : &reserving_target_ops;
        MUST_FAIL(copy_restore(reader, &t.base, NULL, NULL, &f->err), &f->err, ERR_NO_SPACE);
        assert_false(t.is_flushed);
    }
    t.fail_at = 0;
    t.fail_flush = true;
    MUST_FAIL(copy_restore(reader, &t.base, NULL, NULL, &f->err), &f->err, ERR_IO);
    t.base.size_bytes = f->size - 1;
    t.calls = 0;
    MUST_FAIL(copy_restore(reader, &t.base, NULL, NULL, &f->err), &f->err, ERR_BAD_ARGUMENT);
    assert_int_equal(t.calls, 0);
    free(t.data);
    pthread_mutex_destroy(&t.lock);
}

struct watch {
    pthread_t thread;
    unsigned calls;
    uint64_t last, total;
    int64_t first_ms;
    int64_t cancel_after_ms; /* 0 = never */
};

static void on_progress(void *context, uint64_t done, uint64_t total)
{
    struct watch *w = context;
    assert_true(pthread_equal(w->thread, pthread_self()));
    assert_true(done >= w->last && done <= total);
    w->last = done;
    w->total = total;
    w->calls++;
}

static bool on_cancelled(void *context)
{
    struct watch *w = context;
    assert_true(pthread_equal(w->thread, pthread_self()));
    return w->cancel_after_ms > 0 &&
           clock_mono_ms(clock_system()) - w->first_ms >= w->cancel_after_ms;
}

static void test_progress(void **state)
{
    struct fixture *f = *state;
    make_disk(f, 40 * MIB, 2);
    begin(f, "progress.1");
    f->source.delay_ms = 100;
    struct watch w = {.thread = pthread_self(), .first_ms = clock_mono_ms(clock_system())};
    struct copy_opts opts = {
        .threads = 2, .context = &w, .progress = on_progress, .cancelled = on_cancelled};
    struct copy_stats stats;
    MUST(copy_backup(&f->source.base, f->session, f->disk, &opts, &stats, &f->err), &f->err);
    assert_int_equal(w.total, f->size);
    assert_int_equal(w.last, f->size); /* the last call says all */
    /* Bounded: some a second. */
    assert_in_range(w.calls, 2, (uintmax_t)(stats.elapsed_ms / 150 + 4));
}

static void test_cancel(void **state)
{
    struct fixture *f = *state;
    make_disk(f, 60 * MIB, 4);
    begin(f, "cancel.1");
    f->source.delay_ms = 300; /* 15 reads: more than 2 s in all */
    struct watch w = {.thread = pthread_self(),
                      .first_ms = clock_mono_ms(clock_system()),
                      .cancel_after_ms = 200};
    struct copy_opts opts = {
        .threads = 2, .context = &w, .progress = on_progress, .cancelled = on_cancelled};
    MUST_FAIL(copy_backup(&f->source.base, f->session, f->disk, &opts, NULL, &f->err), &f->err,
              ERR_CANCELLED);
    assert_true(f->source.reads < 12);
    assert_true(w.last < f->size);
    store_session_free(f->session); /* and everything is removed */
    f->session = NULL;
    SCOPED_FREE char *path = xasprintf("%s/repo", f->dir);
    assert_int_equal(count_files(path, "packs/"), 0);
}

static void test_source_limits_threads(void **state)
{
    struct fixture *f = *state;
    make_disk(f, 40 * MIB, 4);
    f->source.base.threads_max = 1;
    begin(f, "one.1");
    struct copy_opts opts = {.threads = 8};
    MUST(copy_backup(&f->source.base, f->session, f->disk, &opts, NULL, &f->err), &f->err);
    struct store_stats stats;
    store_session_stats(f->session, &stats);
    assert_int_equal(stats.packs, 1); /* one stream */
}

static void test_incremental_through_the_pipeline(void **state)
{
    struct fixture *f = *state;
    make_disk(f, 24 * MIB, 4);
    begin(f, "day.1");
    MUST(copy_backup(&f->source.base, f->session, f->disk, NULL, NULL, &f->err), &f->err);
    finish(f);
    for (size_t at = 0; at < f->size; at += 3 * MIB)
        f->data[at + 77] ^= 1;
    SCOPED(store_reader) struct store_reader *parent = open_reader(f, "day.1");
    struct store_session_opts opts = session_opts("day.2");
    store_session_free(f->session);
    f->session = store_session_begin(f->store, &opts, &f->err);
    MUST(f->session, &f->err);
    struct store_disk_opts d = {.id = "d", .size_bytes = f->size, .parent = parent};
    f->disk = store_disk_begin(f->session, &d, &f->err);
    struct copy_stats stats;
    MUST(copy_backup(&f->source.base, f->session, f->disk, NULL, &stats, &f->err), &f->err);
    assert_int_equal(stats.store.stored_raw_bytes, 8 * BLOCK);
    finish(f);
    check_restore(f, "day.2", f->size, false);
}

static void test_null_target_checks_everything(void **state)
{
    struct fixture *f = *state;
    make_disk(f, 10 * MIB, 3);
    begin(f, "null.1");
    MUST(copy_backup(&f->source.base, f->session, f->disk, NULL, NULL, &f->err), &f->err);
    finish(f);
    SCOPED(store_reader) struct store_reader *reader = open_reader(f, "null.1");
    SCOPED(target) struct target *target = target_null_open(f->size);
    MUST(copy_restore(reader, target, NULL, NULL, &f->err), &f->err);
    source_close(NULL);
    target_close(NULL);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_sizes_and_granularities),
        T(test_holes_are_not_read),
        T(test_only_what_changed_is_read),
        T(test_ranges_one_by_one),
        T(test_nothing_to_copy),
        T(test_what_the_parent_has_lost_is_read),
        T(test_a_stream_has_its_bytes_in_order),
        T(test_failing_source),
        T(test_failing_target),
        T(test_progress),
        T(test_cancel),
        T(test_source_limits_threads),
        T(test_incremental_through_the_pipeline),
        T(test_null_target_checks_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a dead attempt has stored is not stored again (docs/store-format.md, "Bequests"): which
 * packs are adopted and which are not, beside collectors, with every kind of key, and that nothing
 * that is referred to goes.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "scene.h"
#include "worker/store/packfile.h"
#include "worker/store/upkeep.h"

enum { MIB = 1 << 20, IMAGE_BYTES = 5 * MIB + MIB / 2, PACKS_MAX = 16 };
/* The last pack of who dies may not be full, and the one before it not sealed yet. */
enum { LOST_MAX = 2 * MIB };

static void setup(struct scene *s, const char *key)
{
    scene_begin(s, key, 64 << 10, IMAGE_BYTES);
}

static char *pack_of_session(const struct scene *s, const char *session, uint32_t n)
{
    uint8_t id[PACK_ID_BYTES];
    char path[64];
    pack_id_of_session(s->store->repo_id, session, n, id);
    pack_path(id, path);
    return xasprintf("%s/%s", s->path, path);
}

static bool is_sealed(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && (st.st_mode & 0222) == 0;
}

/* A pack is closed after its first frame, of 1 MiB, but for a small one. */
static unsigned count_sealed(const struct scene *s, const char *session)
{
    unsigned n = 0;
    for (uint32_t i = 0; i < PACKS_MAX; i++) {
        SCOPED_FREE char *path = pack_of_session(s, session, i);
        n += is_sealed(path);
    }
    return n;
}

/* ---- dying */

static void adopt_in(struct store_session *session, const char *dead, struct store_adopted *ret)
{
    struct err err = ERR_INIT;
    struct store_adopted ignored;
    MUST(store_session_adopt(session, dead, ret ? ret : &ignored, &err), &err);
}

static _Noreturn void write_and_die(const struct scene *s, const char *id, const char *heir_of,
                                    size_t bytes)
{
    struct err err = ERR_INIT;
    struct disk_image image = s->image;
    image.size = bytes;
    struct store *store = store_open(s->path, &s->opts, &err);
    struct store_session_opts opts = session_opts(id);
    struct store_session *session = store ? store_session_begin(store, &opts, &err) : NULL;
    struct store_adopted adopted;
    struct store_stats stats = {0};
    bool ok = session && (!heir_of || store_session_adopt(session, heir_of, &adopted, &err)) &&
              write_image(session, &image, 0, NULL, NULL, &err);
    if (ok)
        store_session_stats(session, &stats);
    for (int i = 0; ok && count_sealed(s, id) + 1 < stats.packs && i < 3000; i++)
        clock_sleep_ms(clock_system(), 10);
    if (!ok)
        (void)fprintf(stderr, "%s\n", err.message);
    (void)kill(getpid(), ok ? SIGKILL : SIGABRT);
    _exit(1);
}

/* Somebody writes the first `bytes` of the image, and is killed. */
static unsigned leave_behind(struct scene *s, const char *id, const char *heir_of, size_t bytes)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        write_and_die(s, id, heir_of, bytes);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    unsigned sealed = count_sealed(s, id);
    assert_in_range(sealed, 1, PACKS_MAX - 1);
    return sealed;
}

/* The same by somebody who lives on, and does not know it. */
static struct store_session *seem_dead(struct scene *s, struct store *store, const char *id)
{
    struct store_session_opts opts = session_opts(id);
    struct store_session *zombie = store_session_begin(store, &opts, &s->err);
    struct store_stats stats;
    MUST(zombie && write_image(zombie, &s->image, 0, NULL, NULL, &s->err), &s->err);
    store_session_stats(zombie, &stats);
    for (int i = 0; count_sealed(s, id) + 1 < stats.packs && i < 3000; i++)
        clock_sleep_ms(clock_system(), 10);
    return zombie;
}

static void bequeath(struct scene *s, const char *id)
{
    bool committed = true;
    MUST(store_session_bequeath(s->store, id, &committed, &s->err), &s->err);
    assert_false(committed);
}

/* ---- taking over */

static struct store_session *begin(struct scene *s, const char *id)
{
    struct store_session_opts opts = session_opts(id);
    struct store_session *session = store_session_begin(s->store, &opts, &s->err);
    MUST(session, &s->err);
    return session;
}

static void write_all(struct scene *s, struct store_session *session, struct store_stats *ret)
{
    MUST(write_image(session, &s->image, 0, NULL, ret, &s->err), &s->err);
    MUST(store_session_commit(session, NULL, &s->err), &s->err);
    store_session_free(session);
}

/* The whole of the second attempt. */
static struct store_stats take_over(struct scene *s, const char *id, const char *dead,
                                    struct store_adopted *ret)
{
    struct store_stats stats;
    struct store_session *session = begin(s, id);
    adopt_in(session, dead, ret);
    write_all(s, session, &stats);
    return stats;
}

static void collect(struct scene *s, struct store_collect_result *ret)
{
    MUST(store_collect(s->store, NULL, ret, &s->err), &s->err);
    assert_string_equal(ret->blocked, "");
}

/* It restores bit by bit, before and after everything that is garbage has gone. */
static void check_point(struct scene *s, const char *id)
{
    struct store *reader = s->store;
    struct store_collect_result r;
    if (!store_can_restore(s->store)) {
        struct store_opts opts = {.key_file = s->full_key};
        reader = store_open(s->path, &opts, &s->err);
        MUST(reader, &s->err);
    }
    for (int i = 0; i < 2; i++) {
        MUST(store_verify_point(reader, id, NULL, NULL, &s->err), &s->err);
        MUST(check_image(reader, id, &s->image, &s->err), &s->err);
        collect(s, &r);
    }
    assert_int_equal(count_files(s->path, "sessions/") + count_files(s->path, "pins/"), 0);
    if (reader != s->store)
        store_free(reader);
}

/* ---- what is taken */

static void finished_packs_are_adopted(const char *key)
{
    struct scene s;
    struct store_adopted adopted;
    struct store_collect_result r;
    setup(&s, key);
    unsigned sealed = leave_behind(&s, "a.1", NULL, IMAGE_BYTES - MIB / 2);
    bequeath(&s, "a.1");
    struct store_stats stats = take_over(&s, "a.2", "a.1", &adopted);
    assert_int_equal(adopted.packs, sealed);
    assert_true(adopted.raw_bytes >= IMAGE_BYTES - MIB / 2 - LOST_MAX);
    assert_true(adopted.bytes > adopted.raw_bytes);
    /* But for the last chunk, which was cut off. */
    assert_true(stats.dedup_bytes <= adopted.raw_bytes &&
                stats.dedup_bytes >= adopted.raw_bytes - CHUNK_BLOCKS_MAX * STORE_BLOCK_BYTES);
    assert_int_equal(stats.stored_raw_bytes, IMAGE_BYTES - stats.dedup_bytes);
    collect(&s, &r);
    assert_true(r.bytes_before - r.bytes_freed < IMAGE_BYTES + IMAGE_BYTES / 20);
    check_point(&s, "a.2");
    /* A last pack that holds nothing but the chunk which was cut off is garbage. */
    assert_in_range(count_sealed(&s, "a.1"), sealed - 1, sealed);
    scene_end(&s);
}

static void test_finished_packs_are_adopted(void **state)
{
    (void)state;
    finished_packs_are_adopted("");
}

static void test_with_the_full_key(void **state)
{
    (void)state;
    finished_packs_are_adopted("full");
}

/* Footers are sealed with the write secret, which a key that may only write has. */
static void test_with_a_key_that_may_only_write(void **state)
{
    (void)state;
    finished_packs_are_adopted("write");
}

/* A worker that leaves, or has lost its lease, finishes what it has: nothing is lost at all. */
static void test_an_orderly_end_leaves_everything(void **state)
{
    (void)state;
    struct scene s;
    struct store_adopted adopted;
    setup(&s, "");
    struct store_session *first = begin(&s, "a.1");
    struct disk_image half = s.image;
    half.size = 3 * MIB + 5 * STORE_BLOCK_BYTES;
    struct store_disk_opts disk_opts = {.id = "d", .size_bytes = s.image.size};
    struct store_disk *disk = store_disk_begin(first, &disk_opts, &s.err);
    struct store_stream *stream = store_stream_begin(first, &s.err);
    MUST(disk && stream && store_stream_write(stream, disk, 0, half.data, half.size, &s.err),
         &s.err);
    store_stream_end(stream); /* in the middle of a disk */
    MUST(store_session_leave(first, &s.err), &s.err);
    MUST(store_session_leave(first, &s.err), &s.err);
    MUST_FAIL(store_session_commit(first, NULL, &s.err), &s.err, ERR_INTERNAL);
    store_session_free(first);
    assert_int_equal(count_files(s.path, "sessions/") + count_files(s.path, "pins/"), 0);
    bequeath(&s, "a.1"); /* it was, by itself */
    struct store_stats stats = take_over(&s, "a.2", "a.1", &adopted);
    assert_true(adopted.raw_bytes > half.size - 2 * CHUNK_BLOCKS_MAX * STORE_BLOCK_BYTES);
    assert_true(stats.dedup_bytes > half.size - 3 * CHUNK_BLOCKS_MAX * STORE_BLOCK_BYTES);
    check_point(&s, "a.2");
    scene_end(&s);
}

static void test_leaving_what_is_of_no_use(void **state)
{
    (void)state;
    struct scene s;
    bool committed;
    setup(&s, "");
    /* It has failed. */
    struct store_session *failed = begin(&s, "failed.1");
    MUST(write_image(failed, &s.image, 0, NULL, NULL, &s.err), &s.err);
    struct store_disk_opts opts = {.id = "e", .size_bytes = STORE_BLOCK_BYTES};
    struct store_disk *disk = store_disk_begin(failed, &opts, &s.err);
    struct store_stream *stream = store_stream_begin(failed, &s.err);
    MUST(disk && stream, &s.err);
    MUST_FAIL(store_stream_write(stream, disk, 0, s.image.data, MIB, &s.err), &s.err,
              ERR_BAD_ARGUMENT);
    store_stream_end(stream);
    MUST(store_session_leave(failed, &s.err), &s.err);
    store_session_free(failed);
    assert_int_equal(count_files(s.path, "packs/"), 0);
    /* Somebody has revoked it. */
    struct store_session *revoked = begin(&s, "revoked.1");
    MUST(write_image(revoked, &s.image, 0, NULL, NULL, &s.err), &s.err);
    MUST(store_session_revoke(s.store, "revoked.1", &committed, &s.err), &s.err);
    MUST(store_session_leave(revoked, &s.err), &s.err);
    store_session_free(revoked);
    assert_int_equal(count_files(s.path, "packs/"), 0);
    /* It is a point. */
    struct store_session *done = begin(&s, "done.1");
    MUST(write_image(done, &s.image, 0, NULL, NULL, &s.err), &s.err);
    MUST(store_session_commit(done, NULL, &s.err), &s.err);
    MUST(store_session_leave(done, &s.err), &s.err);
    store_session_free(done);
    check_point(&s, "done.1");
    scene_end(&s);
}

static void test_heirs_die_too(void **state)
{
    (void)state;
    struct scene s;
    struct store_adopted first, second;
    setup(&s, "");
    (void)leave_behind(&s, "a.1", NULL, IMAGE_BYTES / 2);
    bequeath(&s, "a.1");
    (void)leave_behind(&s, "a.2", "a.1", IMAGE_BYTES);
    bequeath(&s, "a.2");
    struct store_session *session = begin(&s, "a.3");
    struct store_stats stats;
    adopt_in(session, "a.1", &first);
    adopt_in(session, "a.2", &second);
    assert_true(first.packs > 0 && second.packs > 0);
    write_all(&s, session, &stats);
    assert_true(stats.stored_raw_bytes <= LOST_MAX);
    check_point(&s, "a.3");
    scene_end(&s);
}

/* Through the heir's index: the dead session has none. */
static void test_others_find_what_was_adopted(void **state)
{
    (void)state;
    struct scene s;
    struct store_stats stats;
    setup(&s, "");
    (void)leave_behind(&s, "a.1", NULL, IMAGE_BYTES);
    bequeath(&s, "a.1");
    (void)take_over(&s, "a.2", "a.1", NULL);
    store_free(s.store);
    scene_open(&s);
    MUST(backup_image(s.store, "b.1", &s.image, NULL, &stats, &s.err), &s.err);
    assert_int_equal(stats.stored_raw_bytes, 0);
    check_point(&s, "b.1");
    scene_end(&s);
}

/* ---- what is not */

static void damage(const char *path, void (*how)(int fd, off_t len))
{
    assert_int_equal(chmod(path, 0600), 0);
    int fd = open(path, O_RDWR);
    struct stat st = {0};
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    how(fd, st.st_size);
    assert_int_equal(close(fd), 0);
    assert_int_equal(chmod(path, 0440), 0);
}

static void cut(int fd, off_t len)
{
    assert_int_equal(ftruncate(fd, len / 2), 0);
}

static void flip_in_footer(int fd, off_t len)
{
    uint8_t byte;
    assert_int_equal(pread(fd, &byte, 1, len - TRAILER_BYTES - 40), 1);
    byte ^= 4;
    assert_int_equal(pwrite(fd, &byte, 1, len - TRAILER_BYTES - 40), 1);
}

static void test_unusable_packs_are_left_out(void **state)
{
    (void)state;
    struct scene s;
    struct store_adopted adopted;
    setup(&s, "");
    unsigned sealed = leave_behind(&s, "a.1", NULL, IMAGE_BYTES);
    bequeath(&s, "a.1");
    SCOPED_FREE char *torn = pack_of_session(&s, "a.1", 0);
    SCOPED_FREE char *flipped = pack_of_session(&s, "a.1", 1);
    SCOPED_FREE char *gone = pack_of_session(&s, "a.1", 2);
    SCOPED_FREE char *unsynced = pack_of_session(&s, "a.1", 3);
    damage(torn, cut);
    damage(flipped, flip_in_footer);
    assert_int_equal(unlink(gone), 0);
    assert_int_equal(chmod(unsynced, 0640), 0); /* whole, but nobody knows that it is durable */
    struct store_stats stats = take_over(&s, "a.2", "a.1", &adopted);
    assert_int_equal(adopted.packs, sealed - 4);
    assert_int_equal(stats.dedup_bytes, adopted.raw_bytes);
    check_point(&s, "a.2");
    assert_int_equal(access(unsynced, F_OK), -1); /* garbage, and collected */
    scene_end(&s);
}

static void test_who_gives_nothing(void **state)
{
    (void)state;
    struct scene s;
    struct store_adopted adopted = {.packs = 9};
    bool committed;
    setup(&s, "");
    (void)leave_behind(&s, "revoked.1", NULL, IMAGE_BYTES);
    (void)leave_behind(&s, "open.1", NULL, IMAGE_BYTES);
    MUST(backup_image(s.store, "done.1", &s.image, NULL, NULL, &s.err), &s.err);
    MUST(store_session_revoke(s.store, "revoked.1", &committed, &s.err), &s.err);
    MUST(store_session_bequeath(s.store, "revoked.1", &committed, &s.err), &s.err);
    assert_false(committed);
    MUST(store_session_bequeath(s.store, "done.1", &committed, &s.err), &s.err);
    assert_true(committed);
    struct store_session *session = begin(&s, "a.1");
    MUST_FAIL(store_session_adopt(session, "done.1", &adopted, &s.err), &s.err, ERR_REFUSED);
    MUST_FAIL(store_session_adopt(session, "open.1", &adopted, &s.err), &s.err, ERR_REFUSED);
    MUST_FAIL(store_session_adopt(session, "never.1", &adopted, &s.err), &s.err, ERR_REFUSED);
    MUST_FAIL(store_session_adopt(session, "a.1", &adopted, &s.err), &s.err, ERR_REFUSED);
    MUST_FAIL(store_session_adopt(session, "../x", &adopted, &s.err), &s.err, ERR_BAD_ARGUMENT);
    MUST(store_session_adopt(session, "revoked.1", &adopted, &s.err), &s.err);
    assert_int_equal(adopted.packs, 0); /* they may go at any instant */
    bequeath(&s, "never.1");
    MUST(store_session_adopt(session, "never.1", &adopted, &s.err), &s.err);
    assert_int_equal(adopted.packs, 0);
    store_session_free(session);
    scene_end(&s);
}

static void test_a_bequest_is_for_ever(void **state)
{
    (void)state;
    struct scene s;
    bool committed = true;
    setup(&s, "");
    struct store_session *zombie = begin(&s, "a.1");
    MUST(write_image(zombie, &s.image, 0, NULL, NULL, &s.err), &s.err);
    bequeath(&s, "a.1");
    MUST(store_session_revoke(s.store, "a.1", &committed, &s.err), &s.err);
    assert_false(committed);
    MUST_FAIL(store_session_commit(zombie, NULL, &s.err), &s.err, ERR_STORE_REVOKED);
    store_session_free(zombie);
    struct store_session_opts opts = session_opts("a.1");
    MUST_FAIL(store_session_begin(s.store, &opts, &s.err), &s.err, ERR_STORE_REVOKED);
    struct store_point_list list;
    MUST(store_points_list(s.store, NULL, &list, &s.err), &s.err);
    assert_int_equal(list.count, 0);
    store_point_list_done(&list);
    scene_end(&s);
}

/* ---- beside others */

/* It wakes up after the take-over and cleans up: not what others refer to. */
static void test_a_zombie_takes_nothing_back(void **state)
{
    (void)state;
    struct scene s;
    struct store_adopted adopted;
    setup(&s, "");
    struct store *theirs = store_open(s.path, &s.opts, &s.err);
    MUST(theirs, &s.err);
    struct store_session *zombie = seem_dead(&s, theirs, "a.1");
    unsigned sealed = count_sealed(&s, "a.1");
    bequeath(&s, "a.1");
    struct store_session *heir = begin(&s, "a.2");
    adopt_in(heir, "a.1", &adopted);
    assert_in_range(adopted.packs, sealed, sealed + 1);
    MUST(store_session_abort(zombie, &s.err), &s.err);
    store_session_free(zombie);
    /* But for what it has not finished. */
    assert_in_range(count_files(s.path, "packs/"), adopted.packs, adopted.packs + 1);
    store_free(theirs);
    struct store_stats stats;
    write_all(&s, heir, &stats);
    assert_int_equal(stats.dedup_bytes, adopted.raw_bytes);
    check_point(&s, "a.2");
    scene_end(&s);
}

/* The dead one and its heir are one process, with one table of what is known. */
static void test_a_zombie_in_the_same_process(void **state)
{
    (void)state;
    struct scene s;
    struct store_adopted adopted;
    struct store_stats stats;
    setup(&s, "");
    struct store_session *zombie = seem_dead(&s, s.store, "a.1");
    bequeath(&s, "a.1");
    struct store_session *heir = begin(&s, "a.2");
    adopt_in(heir, "a.1", &adopted);
    MUST_FAIL(store_session_commit(zombie, NULL, &s.err), &s.err, ERR_STORE_REVOKED);
    store_session_free(zombie);
    write_all(&s, heir, &stats);
    assert_true(stats.stored_raw_bytes <= LOST_MAX);
    check_point(&s, "a.2");
    struct store_session *again = begin(&s, "a.3");
    adopt_in(again, "a.1", &adopted);
    assert_true(adopted.packs > 0);
    write_all(&s, again, &stats);
    assert_int_equal(stats.stored_raw_bytes, 0);
    check_point(&s, "a.3");
    scene_end(&s);
}

static void test_collected_before_it_is_adopted(void **state)
{
    (void)state;
    struct scene s;
    struct store_adopted adopted;
    struct store_collect_result r;
    setup(&s, "");
    unsigned sealed = leave_behind(&s, "a.1", NULL, IMAGE_BYTES);
    collect(&s, &r);
    assert_int_equal(r.packs_removed + r.packs_dead, 0); /* nobody has declared it dead */
    bequeath(&s, "a.1");
    collect(&s, &r);
    assert_true(r.packs_removed >= sealed && r.packs_dead == 0);
    assert_int_equal(count_files(s.path, "packs/"), 0);
    struct store_stats stats = take_over(&s, "a.2", "a.1", &adopted);
    assert_int_equal(adopted.packs, 0);
    assert_int_equal(stats.stored_raw_bytes, IMAGE_BYTES);
    check_point(&s, "a.2");
    scene_end(&s);
}

static void test_collectors_let_go_what_is_adopted(void **state)
{
    (void)state;
    struct scene s;
    struct store_adopted adopted;
    struct store_collect_result r;
    struct store_stats stats;
    setup(&s, "");
    unsigned sealed = leave_behind(&s, "a.1", NULL, IMAGE_BYTES);
    bequeath(&s, "a.1");
    struct store_session *heir = begin(&s, "a.2");
    adopt_in(heir, "a.1", &adopted);
    collect(&s, &r);
    assert_in_range(r.packs_held, sealed, sealed + 1);
    assert_int_equal(count_sealed(&s, "a.1"), sealed);
    write_all(&s, heir, &stats);
    uint64_t raw_bytes = adopted.raw_bytes;
    assert_int_equal(stats.dedup_bytes, raw_bytes);
    check_point(&s, "a.2");
    /* They are marked: whoever comes now stores anew what only they hold. */
    struct store_session *late = begin(&s, "a.3");
    adopt_in(late, "a.1", &adopted);
    write_all(&s, late, &stats);
    assert_int_equal(stats.stored_raw_bytes, raw_bytes);
    check_point(&s, "a.3");
    /* And go, when the points that refer to them do. */
    MUST(store_point_delete(s.store, "a.2", true, &s.err), &s.err);
    collect(&s, &r);
    assert_int_equal(count_sealed(&s, "a.1"), 0);
    check_point(&s, "a.3");
    scene_end(&s);
}

/* A collector that has seen the packs and nobody who refers to them, and marks them only now. */
static void test_marked_while_adopting(void **state)
{
    (void)state;
    struct scene s;
    struct store_adopted adopted;
    SCOPED_MARKS struct mark_list list = {0};
    setup(&s, "");
    unsigned sealed = leave_behind(&s, "a.1", NULL, IMAGE_BYTES);
    bequeath(&s, "a.1");
    for (uint32_t n = 0; n < sealed; n++) {
        uint8_t id[PACK_ID_BYTES];
        pack_id_of_session(s.store->repo_id, "a.1", n, id);
        mark_list_add(&list, id, MARK_GARBAGE, NULL, 0);
    }
    MUST(mark_list_put(s.store->dirfd, s.store->repo_id, &list, &s.err), &s.err);
    struct store_session *heir = begin(&s, "a.2");
    adopt_in(heir, "a.1", &adopted);
    for (uint32_t n = 0; n < sealed; n++) { /* it had looked before the heir pinned */
        SCOPED_FREE char *path = pack_of_session(&s, "a.1", n);
        assert_int_equal(unlink(path), 0);
    }
    struct store_stats stats;
    write_all(&s, heir, &stats);
    assert_int_equal(stats.stored_raw_bytes, IMAGE_BYTES);
    check_point(&s, "a.2");
    scene_end(&s);
}

int main(void)
{
    log_set_level(LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_finished_packs_are_adopted),
        cmocka_unit_test(test_with_the_full_key),
        cmocka_unit_test(test_with_a_key_that_may_only_write),
        cmocka_unit_test(test_an_orderly_end_leaves_everything),
        cmocka_unit_test(test_leaving_what_is_of_no_use),
        cmocka_unit_test(test_heirs_die_too),
        cmocka_unit_test(test_others_find_what_was_adopted),
        cmocka_unit_test(test_unusable_packs_are_left_out),
        cmocka_unit_test(test_who_gives_nothing),
        cmocka_unit_test(test_a_bequest_is_for_ever),
        cmocka_unit_test(test_a_zombie_takes_nothing_back),
        cmocka_unit_test(test_a_zombie_in_the_same_process),
        cmocka_unit_test(test_collected_before_it_is_adopted),
        cmocka_unit_test(test_collectors_let_go_what_is_adopted),
        cmocka_unit_test(test_marked_while_adopting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

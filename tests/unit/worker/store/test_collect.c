/* SPDX-License-Identifier: Apache-2.0 */
/* Deleting points and collecting garbage: what nobody refers to goes, everything else stays, with
 * sessions open at every stage of the protocol. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/log.h"
#include "support.h"
#include "worker/store/gc/marks.h"
#include "worker/store/gc/pins.h"
#include "worker/store/gc/relocate.h"
#include "worker/store/upkeep.h"

enum { MIB = 1 << 20 };

struct scene {
    char *dir, *path;
    struct store *store;
};

static const struct store_opts opts_8mib = {.pack_bytes = 64 * MIB, .dedup_cache_bytes = MIB};

static int setup(void **state)
{
    struct scene *s = ALLOC_NEW(struct scene);
    struct err err = ERR_INIT;
    log_set_level(LOG_LEVEL_ERROR);
    s->dir = temp_dir();
    s->path = xasprintf("%s/repo", s->dir);
    s->store = store_init(s->path, &opts_8mib, &err);
    MUST(s->store, &err);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct scene *s = *state;
    store_free(s->store);
    remove_tree(s->dir);
    free(s->dir);
    free(s->path);
    free(s);
    return 0;
}

static void reopen(struct scene *s)
{
    struct err err = ERR_INIT;
    store_free(s->store);
    s->store = store_open(s->path, &opts_8mib, &err);
    MUST(s->store, &err);
}

static struct disk_image image_of(size_t size, uint64_t seed)
{
    struct disk_image image = {.id = "d", .data = xmalloc(size), .size = size};
    fill_random(image.data, size, seed);
    return image;
}

static void back_up(struct scene *s, const char *id, const struct disk_image *image)
{
    struct err err = ERR_INIT;
    MUST(backup_image(s->store, id, image, NULL, NULL, &err), &err);
}

static struct store_collect_result collect(struct scene *s)
{
    struct err err = ERR_INIT;
    struct store_collect_result result;
    MUST(store_collect(s->store, NULL, &result, &err), &err);
    return result;
}

/* By somebody who has nothing in memory. */
static void must_restore(struct scene *s, const char *id, const struct disk_image *image)
{
    struct err err = ERR_INIT;
    struct store *store = store_open(s->path, &opts_8mib, &err);
    MUST(store, &err);
    MUST(check_image(store, id, image, &err), &err);
    MUST(store_verify_point(store, id, NULL, NULL, &err), &err);
    store_free(store);
}

static void delete_point(struct scene *s, const char *id)
{
    struct err err = ERR_INIT;
    MUST(store_point_delete(s->store, id, true, &err), &err);
}

/* ---- points */

static void test_deleting_frees_what_is_not_shared(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    struct disk_image a = image_of(MIB, 1), b = image_of(2 * MIB, 2);
    memcpy(b.data, a.data, MIB); /* b refers to a's pack, and has one of its own */
    struct disk_image c = image_of(MIB, 3);
    back_up(s, "a.1", &a);
    back_up(s, "b.1", &b);
    back_up(s, "c.1", &c);
    assert_int_equal(count_files(s->path, "packs/"), 3);

    delete_point(s, "a.1");
    MUST_FAIL(store_point_open(s->store, "a.1", &err), &err, ERR_NOT_FOUND);
    struct store_collect_result r = collect(s);
    assert_int_equal(r.packs_removed, 0);
    assert_int_equal(r.points, 2);
    assert_int_equal(count_files(s->path, "packs/"), 3);
    assert_int_equal(count_files(s->path, "manifests/a.1/"), 0);
    assert_int_equal(count_files(s->path, "index/a.1"), 1); /* its pack lives on */
    must_restore(s, "b.1", &b);

    delete_point(s, "c.1");
    r = collect(s);
    assert_int_equal(r.packs_removed, 1);
    assert_int_equal(r.packs_before, 3);
    assert_true(r.bytes_freed >= MIB && r.bytes_freed < r.bytes_before);
    assert_int_equal(count_files(s->path, "packs/"), 2);
    assert_int_equal(count_files(s->path, "index/c.1"), 0);
    must_restore(s, "b.1", &b);

    delete_point(s, "b.1");
    (void)collect(s);
    assert_int_equal(count_files(s->path, "packs/"), 0);
    assert_int_equal(count_files(s->path, "index/"), 0);
    r = collect(s); /* nothing is left to do */
    assert_int_equal(r.packs_before, 0);
    assert_int_equal(r.bytes_freed, 0);
    /* And the data of dead packs, known to this process still, is stored anew. */
    back_up(s, "b.2", &b);
    must_restore(s, "b.2", &b);
    free(a.data);
    free(b.data);
    free(c.data);
}

static void test_last_good_and_protected_points_stay(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    struct disk_image a = image_of(MIB, 1);
    back_up(s, "a.1", &a);
    MUST_FAIL(store_point_delete(s->store, "a.1", false, &err), &err, ERR_REFUSED);
    back_up(s, "a.2", &a);
    MUST(store_point_protect(s->store, "a.1", &err), &err);
    MUST(store_point_protect(s->store, "a.1", &err), &err);
    MUST_FAIL(store_point_delete(s->store, "a.1", true, &err), &err, ERR_REFUSED);
    MUST(store_point_unprotect(s->store, "a.1", &err), &err);
    MUST(store_point_delete(s->store, "a.1", false, &err), &err);
    MUST_FAIL(store_point_delete(s->store, "a.2", false, &err), &err, ERR_REFUSED);
    MUST_FAIL(store_point_delete(s->store, "a.1", false, &err), &err, ERR_NOT_FOUND);
    MUST_FAIL(store_point_protect(s->store, "a.1", &err), &err, ERR_NOT_FOUND);
    (void)collect(s);
    must_restore(s, "a.2", &a);
    free(a.data);
}

/* ---- compaction */

static void test_compaction(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    struct disk_image a = image_of(8 * MIB, 1), b = image_of(MIB, 2);
    memcpy(b.data, a.data + 3 * MIB, MIB / 2);
    back_up(s, "a.1", &a);
    back_up(s, "b.1", &b);
    delete_point(s, "a.1");
    struct store_collect_opts dry = {.dry_run = true};
    struct store_collect_result r;
    MUST(store_collect(s->store, &dry, &r, &err), &err);
    assert_int_equal(r.packs_compacted, 1);
    assert_int_equal(count_files(s->path, "marks/"), 0);
    r = collect(s);
    assert_int_equal(r.packs_compacted, 1);
    assert_int_equal(r.packs_removed, 0);
    assert_true(r.bytes_freed > 6 * MIB);
    must_restore(s, "b.1", &b);
    MUST(check_image(s->store, "b.1", &b, &err), &err); /* with the old file still open */

    /* A child may refer to what is there, and stores anew what has gone. */
    reopen(s);
    SCOPED(store_point) struct store_point *point = store_point_open(s->store, "b.1", &err);
    MUST(point, &err);
    SCOPED(store_reader) struct store_reader *parent = store_disk_open(point, "d", &err);
    MUST(parent, &err);
    struct store_stats stats;
    MUST(backup_image(s->store, "b.2", &b, parent, &stats, &err), &err);
    assert_int_equal(stats.unchanged_bytes, MIB);
    back_up(s, "a.2", &a);
    must_restore(s, "b.2", &b);
    must_restore(s, "a.2", &a);
    r = collect(s);
    assert_int_equal(r.packs_compacted, 0);

    /* Once more, of the relocated pack: all goes. */
    delete_point(s, "b.1");
    delete_point(s, "b.2");
    delete_point(s, "a.2");
    r = collect(s);
    assert_int_equal(count_files(s->path, "packs/"), 0);
    free(a.data);
    free(b.data);
}

/* ---- sessions at every stage */

static struct store_session *begin(struct scene *s, const char *id)
{
    struct err err = ERR_INIT;
    struct store_session_opts opts = session_opts(id);
    struct store_session *session = store_session_begin(s->store, &opts, &err);
    MUST(session, &err);
    return session;
}

static void test_pinned_before_the_mark(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    struct disk_image a = image_of(MIB, 1);
    struct store_stats stats;
    back_up(s, "a.1", &a);
    struct store_session *open = begin(s, "a.2");
    MUST(write_image(open, &a, 0, NULL, &stats, &err), &err);
    assert_int_equal(stats.dedup_bytes, MIB);
    delete_point(s, "a.1");
    struct store_collect_result r = collect(s);
    assert_int_equal(r.packs_held, 1);
    assert_int_equal(r.packs_removed, 0);
    assert_int_equal(r.sessions_open, 1);
    MUST(store_session_commit(open, NULL, &err), &err);
    store_session_free(open);
    assert_int_equal(count_files(s->path, "pins/"), 0);
    r = collect(s);
    assert_int_equal(r.packs_removed, 0);
    must_restore(s, "a.2", &a);

    /* The pack is marked now: it lives as long as that point, and nobody else refers to it. */
    back_up(s, "a.3", &a);
    assert_int_equal(count_files(s->path, "packs/"), 2);
    delete_point(s, "a.2");
    r = collect(s);
    assert_int_equal(r.packs_removed, 1);
    must_restore(s, "a.3", &a);
    free(a.data);
}

static void test_marked_before_the_pin(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    struct disk_image a = image_of(MIB, 1);
    struct store_stats stats;
    back_up(s, "a.1", &a);
    struct store_session *open = begin(s, "a.2"); /* knows a.1's pack by its index */
    delete_point(s, "a.1");
    struct store_collect_result r = collect(s);
    assert_int_equal(r.packs_removed, 1);
    MUST(write_image(open, &a, 0, NULL, &stats, &err), &err);
    assert_int_equal(stats.dedup_bytes, 0);
    MUST(store_session_commit(open, NULL, &err), &err);
    store_session_free(open);
    must_restore(s, "a.2", &a);
    free(a.data);
}

/* A parent that is deleted and collected while its child is being written. */
static void test_parent_deleted_meanwhile(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    struct disk_image a = image_of(2 * MIB, 1);
    back_up(s, "a.1", &a);
    reopen(s);
    struct store_point *point = store_point_open(s->store, "a.1", &err);
    MUST(point, &err);
    struct store_reader *parent = store_disk_open(point, "d", &err);
    MUST(parent, &err);
    struct store_session *open = begin(s, "a.2");
    struct store_disk_opts opts = {.id = "d", .size_bytes = a.size, .parent = parent};
    struct store_disk *disk = store_disk_begin(open, &opts, &err);
    MUST(disk, &err);
    delete_point(s, "a.1");
    struct store_collect_result r = collect(s);
    assert_int_equal(r.packs_removed, 0);
    assert_true(count_files(s->path, "manifests/a.1/") > 0); /* pinned too */
    struct store_stream *stream = store_stream_begin(open, &err);
    MUST(stream, &err);
    MUST(store_stream_keep(stream, disk, 0, MIB, NULL, &err), &err);
    MUST(store_stream_write(stream, disk, MIB, a.data + MIB, MIB, &err), &err);
    store_stream_end(stream);
    struct store_stats stats;
    MUST(store_disk_finish(disk, &stats, &err), &err);
    assert_int_equal(stats.unchanged_bytes, 2 * MIB);
    MUST(store_session_commit(open, NULL, &err), &err);
    store_session_free(open);
    store_reader_free(parent);
    store_point_free(point);
    (void)collect(s);
    assert_int_equal(count_files(s->path, "manifests/a.1/"), 0);
    must_restore(s, "a.2", &a);
    free(a.data);
}

/* Kept ranges whose frames are marked already are read and stored anew. */
static void test_kept_ranges_of_marked_frames_are_copied(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    struct disk_image a = image_of(2 * MIB + 512, 1);
    back_up(s, "a.1", &a);
    struct store_session *first = begin(s, "a.2"); /* holds the pack over the mark */
    MUST(write_image(first, &a, 0, NULL, NULL, &err), &err);
    delete_point(s, "a.1");
    (void)collect(s);
    MUST(store_session_commit(first, NULL, &err), &err);
    store_session_free(first);

    SCOPED(store_point) struct store_point *point = store_point_open(s->store, "a.2", &err);
    MUST(point, &err);
    SCOPED(store_reader) struct store_reader *parent = store_disk_open(point, "d", &err);
    MUST(parent, &err);
    struct store_session *second = begin(s, "a.3");
    struct store_disk_opts opts = {.id = "d", .size_bytes = a.size, .parent = parent};
    struct store_disk *disk = store_disk_begin(second, &opts, &err);
    MUST(disk, &err);
    struct store_stream *stream = store_stream_begin(second, &err);
    MUST(stream, &err);
    MUST(store_stream_keep(stream, disk, 0, a.size, NULL, &err), &err);
    store_stream_end(stream);
    struct store_stats stats;
    MUST(store_disk_finish(disk, &stats, &err), &err);
    assert_int_equal(stats.unchanged_bytes, 0);
    assert_int_equal(stats.stored_raw_bytes, 2 * MIB + 4096);
    assert_int_equal(stats.read_bytes, stats.zero_bytes + stats.unchanged_bytes +
                                           stats.dedup_bytes + stats.stored_raw_bytes);
    MUST(store_session_commit(second, NULL, &err), &err);
    store_session_free(second);
    delete_point(s, "a.2");
    assert_int_equal(collect(s).packs_removed, 1);
    must_restore(s, "a.3", &a);
    free(a.data);
}

static void test_zombie_session(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    struct disk_image a = image_of(MIB, 1), b = image_of(2 * MIB, 2);
    memcpy(b.data, a.data, MIB);
    back_up(s, "a.1", &a);
    struct store_session *open = begin(s, "b.1");
    MUST(write_image(open, &b, 0, NULL, NULL, &err), &err);
    struct store_collect_result r = collect(s);
    assert_int_equal(r.packs_held, 1); /* b's, being written */
    bool was_committed;
    MUST(store_session_revoke(s->store, "b.1", &was_committed, &err), &err);
    delete_point(s, "a.1");
    r = collect(s);
    assert_int_equal(r.packs_dead, 1);
    assert_int_equal(r.packs_removed, 1);
    assert_int_equal(r.sessions_swept, 1);
    assert_int_equal(count_files(s->path, "packs/"), 0);
    MUST_FAIL(store_session_commit(open, NULL, &err), &err, ERR_STORE_REVOKED);
    store_session_free(open);
    (void)collect(s);
    assert_int_equal(count_files(s->path, "manifests/"), 0);
    assert_int_equal(count_files(s->path, "sessions/"), 0);
    assert_int_equal(count_files(s->path, "pins/"), 0);
    free(a.data);
    free(b.data);
}

static void put_file(const struct scene *s, const char *name, const void *data, size_t len)
{
    SCOPED_FREE char *path = xasprintf("%s/%s", s->path, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

static bool all_dead(void *context, const char *session_id)
{
    (void)context;
    (void)session_id;
    return true;
}

static void test_leftovers_of_crashed_sessions(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    struct disk_image a = image_of(MIB, 1);
    back_up(s, "a.1", &a);
    SCOPED_FREE char *dir = xasprintf("%s/packs/ab", s->path);
    (void)mkdir(dir, 0700);
    put_file(s, "packs/ab/ab000000000000000000000000000000.pk", "torn", 4);
    put_file(s, "packs/ab/.something.tmp", "t", 1);
    put_file(s, "fate/.something.tmp", "t", 1);
    put_file(s, "sessions/dead.1", "{}", 2);
    put_file(s, "pins/dead.1.0", "not a pin", 9);
    SCOPED_FREE char *manifests = xasprintf("%s/manifests/dead.1", s->path);
    assert_int_equal(mkdir(manifests, 0700), 0);
    put_file(s, "manifests/dead.1/d.mf", "half", 4);
    /* While it counts as open, its pin that cannot be read pins all. */
    struct store_collect_result r = collect(s);
    assert_int_equal(r.packs_held, 1);
    assert_int_equal(r.sessions_open, 1);
    assert_int_equal(r.temps_swept, 2);
    assert_int_equal(count_files(s->path, "packs/"), 2);
    struct store_collect_opts opts = {.is_dead = all_dead};
    MUST(store_collect(s->store, &opts, &r, &err), &err);
    assert_int_equal(r.packs_removed, 1);
    assert_int_equal(count_files(s->path, "packs/"), 1);
    assert_int_equal(count_files(s->path, "pins/"), 0);
    assert_int_equal(count_files(s->path, "sessions/"), 0);
    assert_int_equal(count_files(s->path, "manifests/dead.1"), 0);
    must_restore(s, "a.1", &a);
    free(a.data);
}

/* ---- damage */

static void test_damaged_map_blocks(void **state)
{
    struct scene *s = *state;
    struct disk_image a = image_of(MIB, 1), b = image_of(MIB, 2), c = image_of(MIB, 3);
    back_up(s, "a.1", &a);
    back_up(s, "b.1", &b);
    back_up(s, "c.1", &c);
    SCOPED_FREE char *map = xasprintf("%s/manifests/a.1/d.mf", s->path);
    assert_int_equal(truncate(map, 100), 0);
    delete_point(s, "b.1");
    struct store_collect_result r = collect(s);
    assert_true(strstr(r.blocked, "a.1") != NULL);
    assert_int_equal(r.packs_removed, 0);
    assert_int_equal(count_files(s->path, "packs/"), 3);
    delete_point(s, "a.1");
    r = collect(s);
    assert_string_equal(r.blocked, "");
    assert_int_equal(r.packs_removed, 2);
    must_restore(s, "c.1", &c);
    free(a.data);
    free(b.data);
    free(c.data);
}

static void test_unreadable_marks_make_writers_careful(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    struct disk_image a = image_of(MIB, 1), b = image_of(MIB, 2);
    back_up(s, "a.1", &a);
    back_up(s, "b.1", &b);
    delete_point(s, "b.1");
    (void)collect(s);
    assert_int_equal(count_files(s->path, "marks/"), 1);
    struct file_list files = list_files(s->path);
    for (size_t i = 0; i < files.count; i++) {
        if (strncmp(files.items[i], "marks/", 6) != 0)
            continue;
        SCOPED_FREE char *path = xasprintf("%s/%s", s->path, files.items[i]);
        assert_int_equal(truncate(path, 40), 0);
    }
    file_list_done(&files);
    reopen(s);
    struct store_stats stats;
    MUST(backup_image(s->store, "a.2", &a, NULL, &stats, &err), &err);
    assert_int_equal(stats.dedup_bytes, 0);
    delete_point(s, "a.1");
    assert_true(collect(s).blocked[0] != '\0');
    must_restore(s, "a.2", &a);
    free(a.data);
    free(b.data);
}

/* ---- the codecs */

static const uint8_t repo_id[16] = {1, 2, 3};

static void test_mark_list_survives_any_damage_to_one_copy(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    SCOPED_MARKS struct mark_list list = {0};
    uint8_t id[PACK_ID_BYTES] = {7}, bits[3] = {0x80, 0, 1};
    mark_list_add(&list, id, MARK_GARBAGE, NULL, 0);
    id[0] = 8;
    mark_list_add(&list, id, MARK_DAMAGED, bits, sizeof bits);
    size_t len;
    SCOPED_FREE uint8_t *bytes = mark_list_encode(&list, repo_id, &len);
    for (size_t bit = 0; bit < 8 * len; bit++) {
        SCOPED_MARKS struct mark_list got = {0};
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        MUST(mark_list_decode(bytes, len, repo_id, &got, &err), &err);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(got.count, 2);
        assert_int_equal(got.items[0].n_bits_bytes, 0);
        assert_int_equal(got.items[1].why, MARK_DAMAGED);
        assert_memory_equal(got.items[1].bits, bits, sizeof bits);
    }
    for (size_t cut = 0; cut < len; cut++) {
        SCOPED_MARKS struct mark_list got = {0};
        bool ok = mark_list_decode(bytes, cut, repo_id, &got, &err);
        assert_int_equal(ok, cut >= len / 2);
        err_clear(&err);
    }
    bytes[0] ^= 1;
    bytes[len / 2] ^= 1;
    SCOPED_MARKS struct mark_list got = {0};
    MUST_FAIL(mark_list_decode(bytes, len, repo_id, &got, &err), &err, ERR_STORE_CORRUPT);
}

static void test_pins_refuse_any_damage(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    uint8_t ids[2][PACK_ID_BYTES] = {{1}, {2}};
    struct pin pin = {.point = "p.1", .packs = ids, .n_packs = 2}, got;
    size_t len;
    SCOPED_FREE uint8_t *bytes = pin_encode(&pin, repo_id, &len);
    MUST(pin_decode(bytes, len, repo_id, &got, &err), &err);
    assert_int_equal(got.n_packs, 2);
    assert_string_equal(got.point, "p.1");
    assert_memory_equal(got.packs, ids, sizeof ids);
    pin_done(&got);
    for (size_t bit = 0; bit < 8 * len; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_false(pin_decode(bytes, len, repo_id, &got, &err));
        err_clear(&err);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t cut = 0; cut < len; cut++) {
        assert_false(pin_decode(bytes, cut, repo_id, &got, &err));
        err_clear(&err);
    }
    char name[] = "task.7.12", bad[] = "task.x", none[] = "task";
    assert_string_equal(pin_session(name), "task.7");
    assert_null(pin_session(bad));
    assert_null(pin_session(none));
}

static void test_relocations_refuse_any_damage(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct frame_place places[] = {{256, 100}, {0, 0}, {420, 5000}};
    struct relocation r = {.footer_offset = 9999, .n_frames = 3, .places = places}, got;
    size_t len;
    SCOPED_FREE uint8_t *bytes = relocation_encode(&r, &len);
    MUST(relocation_decode(bytes, len, 420 + 64 + 5000, &got, &err), &err);
    assert_int_equal(got.footer_offset, 9999);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(got.places[i].offset, places[i].offset);
        assert_int_equal(got.places[i].stored_len, places[i].stored_len);
    }
    relocation_done(&got);
    MUST_FAIL(relocation_decode(bytes, len, 420 + 64 + 4999, &got, &err), &err, ERR_STORE_CORRUPT);
    for (size_t bit = 0; bit < 8 * len; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_false(relocation_decode(bytes, len, 10000, &got, &err));
        err_clear(&err);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    places[0].stored_len = 101; /* they overlap */
    SCOPED_FREE uint8_t *bad = relocation_encode(&r, &len);
    MUST_FAIL(relocation_decode(bad, len, 10000, &got, &err), &err, ERR_STORE_CORRUPT);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_deleting_frees_what_is_not_shared),
        T(test_last_good_and_protected_points_stay),
        T(test_compaction),
        T(test_pinned_before_the_mark),
        T(test_marked_before_the_pin),
        T(test_parent_deleted_meanwhile),
        T(test_kept_ranges_of_marked_frames_are_copied),
        T(test_zombie_session),
        T(test_leftovers_of_crashed_sessions),
        T(test_damaged_map_blocks),
        T(test_unreadable_marks_make_writers_careful),
        cmocka_unit_test(test_mark_list_survives_any_damage_to_one_copy),
        cmocka_unit_test(test_pins_refuse_any_damage),
        cmocka_unit_test(test_relocations_refuse_any_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

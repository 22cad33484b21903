/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Part points (docs/store-format.md, "Part points"): what several workers copied of one VM becomes
 * one point by reference, whoever deletes and collects meanwhile; and nobody takes a part for a
 * whole VM.
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "scene.h"
#include "worker/store/record.h"
#include "worker/store/upkeep.h"

enum { MIB = 1 << 20, IMAGE_BYTES = 6 * MIB + 1234 };
static const char task[] = "main-task";

static void setup_with_key(struct scene *s, const char *key)
{
    scene_begin(s, key, 256 << 10, IMAGE_BYTES);
    memset(s->image.data + MIB / 2, 0, MIB / 4); /* a hole */
}

static void setup(struct scene *s)
{
    setup_with_key(s, "");
}

static void reopen(struct scene *s)
{
    store_free(s->store);
    scene_open(s);
}

/* ---- writing */

/* A session that writes [begin, end) of the image, not yet committed. */
struct writing {
    struct store_session *session;
    struct store_disk *disk;
    struct store_stream *stream;
};

static struct writing begin_writing(struct scene *s, const char *id, const char *part_of,
                                    struct store_reader *parent)
{
    struct writing w = {0};
    struct store_session_opts opts = session_opts(id);
    opts.part_of = part_of;
    struct store_disk_opts disk = {.id = "d", .size_bytes = IMAGE_BYTES, .parent = parent};
    w.session = store_session_begin(s->store, &opts, &s->err);
    MUST(w.session, &s->err);
    w.disk = store_disk_begin(w.session, &disk, &s->err);
    w.stream = w.disk ? store_stream_begin(w.session, &s->err) : NULL;
    MUST(w.stream, &s->err);
    return w;
}

static void write_range(struct scene *s, struct writing *w, size_t begin, size_t end)
{
    MUST(store_stream_write(w->stream, w->disk, begin, s->image.data + begin, end - begin, &s->err),
         &s->err);
}

static void commit(struct scene *s, struct writing *w, struct store_stats *ret_stats)
{
    store_stream_end(w->stream);
    MUST(store_disk_finish(w->disk, ret_stats, &s->err) &&
             store_session_commit(w->session, NULL, &s->err),
         &s->err);
    store_session_free(w->session);
}

static void write_part(struct scene *s, const char *id, size_t begin, size_t end,
                       struct store_stats *ret_stats)
{
    struct writing w = begin_writing(s, id, task, NULL);
    write_range(s, &w, begin, end);
    commit(s, &w, ret_stats);
}

/* A disk of a point, parts too. */
struct source {
    struct store_point *point;
    struct store_reader *reader;
};

static struct source open_source(struct scene *s, const char *id)
{
    struct source source = {.point = store_point_open_any(s->store, id, &s->err)};
    MUST(source.point, &s->err);
    source.reader = store_disk_open(source.point, "d", &s->err);
    MUST(source.reader, &s->err);
    return source;
}

static void close_source(struct source *source)
{
    store_reader_free(source->reader);
    store_point_free(source->point);
}

static void keep_range(struct scene *s, struct writing *w, const struct source *from, size_t begin,
                       size_t end)
{
    MUST(
        store_stream_keep_from(w->stream, w->disk, from->reader, begin, end - begin, NULL, &s->err),
        &s->err);
}

static void keep_part(struct scene *s, struct writing *w, const char *id, size_t begin, size_t end)
{
    struct source source = open_source(s, id);
    keep_range(s, w, &source, begin, end);
    close_source(&source);
}

static void delete_parts(struct scene *s, size_t want)
{
    size_t deleted = 0;
    MUST(store_part_points_delete(s->store, task, &deleted, &s->err), &s->err);
    assert_int_equal(deleted, want);
}

static struct store_collect_result collect(struct scene *s)
{
    struct store_collect_result result = {0};
    struct store_collect_opts opts = {.compact_below_percent = 100};
    MUST(store_collect(s->store, &opts, &result, &s->err), &s->err);
    assert_string_equal(result.blocked, "");
    return result;
}

/* What a key that may only write cannot read is read with the full one. */
static void check(struct scene *s, const char *id)
{
    struct store_opts opts = s->opts;
    opts.key_file = s->full_key;
    struct store *store = store_open(s->path, &opts, &s->err);
    MUST(store && check_image(store, id, &s->image, &s->err) &&
             store_verify_point(store, id, NULL, NULL, &s->err),
         &s->err);
    store_free(store);
}

/* ---- one point of parts */

static void put_together(struct scene *s, struct store_stats *ret_parts,
                         struct store_stats *ret_whole)
{
    struct store_stats one, two;
    write_part(s, "part-one.1", 2 * MIB, 4 * MIB, &one);
    write_part(s, "part-two.1", 4 * MIB, IMAGE_BYTES, &two);
    struct writing w = begin_writing(s, "main.1", NULL, NULL);
    write_range(s, &w, 0, 2 * MIB);
    keep_part(s, &w, "part-one.1", 3 * MIB, 4 * MIB); /* in any order, and in pieces */
    keep_part(s, &w, "part-two.1", 4 * MIB, IMAGE_BYTES);
    keep_part(s, &w, "part-one.1", 2 * MIB, 3 * MIB);
    commit(s, &w, ret_whole);
    ret_parts->read_bytes = one.read_bytes + two.read_bytes;
    ret_parts->stored_bytes = one.stored_bytes + two.stored_bytes;
}

static void whole_by_key(const char *key)
{
    struct scene s;
    struct store_stats parts = {0}, whole;
    setup_with_key(&s, key);
    put_together(&s, &parts, &whole);
    check(&s, "main.1");
    delete_parts(&s, 2);
    (void)collect(&s);
    check(&s, "main.1");
    delete_parts(&s, 0);
    scene_end(&s);
}

static void parts_become_one_point(void **state)
{
    (void)state;
    whole_by_key("");
}

static void parts_become_one_point_encrypted(void **state)
{
    (void)state;
    whole_by_key("full");
}

static void a_key_that_only_writes_puts_parts_together(void **state)
{
    (void)state;
    whole_by_key("write");
}

static void nothing_is_stored_twice_and_all_is_counted(void **state)
{
    (void)state;
    struct scene s;
    struct store_stats parts = {0}, whole;
    setup(&s);
    put_together(&s, &parts, &whole);
    assert_int_equal(whole.read_bytes, (IMAGE_BYTES + 4095) / 4096 * 4096);
    assert_int_equal(whole.zero_bytes, MIB / 4);
    assert_int_equal(whole.unchanged_bytes, 0);
    assert_int_equal(whole.stored_raw_bytes, whole.read_bytes - whole.zero_bytes);
    assert_true(whole.stored_bytes > parts.stored_bytes);
    struct store_collect_result result = collect(&s);
    assert_true(result.bytes_before < IMAGE_BYTES + MIB / 2);
    assert_int_equal(result.points, 3);
    delete_parts(&s, 2);
    result = collect(&s);
    assert_int_equal(result.points, 1);
    assert_int_equal(result.packs_removed, 0);
    SCOPED_FREE char *manifests = xasprintf("%s/manifests", s.path);
    assert_int_equal(count_files(manifests, "part-"), 0);
    scene_end(&s);
}

static void a_parts_piece_of_the_parent_is_kept(void **state)
{
    (void)state;
    struct scene s;
    struct store_stats stats;
    setup(&s);
    MUST(backup_image(s.store, "before.1", &s.image, NULL, NULL, &s.err), &s.err);
    fill_random(s.image.data + 3 * MIB, 8192, 8);
    struct source parent = open_source(&s, "before.1");
    struct writing part = begin_writing(&s, "part-one.1", task, parent.reader);
    write_range(&s, &part, 2 * MIB, IMAGE_BYTES);
    commit(&s, &part, NULL);
    struct writing w = begin_writing(&s, "main.1", NULL, parent.reader);
    write_range(&s, &w, 0, 2 * MIB);
    keep_part(&s, &w, "part-one.1", 2 * MIB, IMAGE_BYTES);
    commit(&s, &w, &stats);
    close_source(&parent);
    assert_int_equal(stats.stored_raw_bytes, 8192);
    delete_parts(&s, 1);
    MUST(store_point_delete(s.store, "before.1", false, &s.err), &s.err);
    (void)collect(&s);
    check(&s, "main.1");
    scene_end(&s);
}

/* ---- from many threads */

enum { THREADS = 4 };

struct keeper {
    struct scene *s;
    struct writing *w;
    const struct source *one, *two;
    size_t nth;
    struct err err;
};

/* Every THREADSth quarter of a MiB: from one part, from the other, or of its own. */
static void *keep_some(void *arg)
{
    struct keeper *k = arg;
    const size_t step = MIB / 4;
    struct store_stream *stream = store_stream_begin(k->w->session, &k->err);
    bool ok = stream != NULL;
    for (size_t at = k->nth * step; ok && at < IMAGE_BYTES; at += THREADS * step) {
        size_t len = IMAGE_BYTES - at < step ? IMAGE_BYTES - at : step;
        const struct source *from = at < 2 * MIB ? NULL : at < 4 * MIB ? k->one : k->two;
        ok = from ? store_stream_keep_from(stream, k->w->disk, from->reader, at, len, NULL, &k->err)
                  : store_stream_write(stream, k->w->disk, at, k->s->image.data + at, len, &k->err);
    }
    store_stream_end(stream);
    return NULL;
}

static void many_threads_keep_from_the_same_parts(void **state)
{
    (void)state;
    struct scene s;
    struct store_stats one_stats, two_stats, whole;
    struct keeper keepers[THREADS];
    pthread_t threads[THREADS];
    setup(&s);
    write_part(&s, "part-one.1", 2 * MIB, 4 * MIB, &one_stats);
    write_part(&s, "part-two.1", 4 * MIB, IMAGE_BYTES, &two_stats);
    struct source one = open_source(&s, "part-one.1"), two = open_source(&s, "part-two.1");
    struct writing w = begin_writing(&s, "main.1", NULL, NULL);
    for (size_t i = 0; i < THREADS; i++) {
        keepers[i] = (struct keeper){.s = &s, .w = &w, .one = &one, .two = &two, .nth = i};
        assert_int_equal(pthread_create(&threads[i], NULL, keep_some, &keepers[i]), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        MUST(!err_is_set(&keepers[i].err), &keepers[i].err);
    }
    close_source(&one);
    close_source(&two);
    commit(&s, &w, &whole);
    assert_int_equal(whole.read_bytes,
                     2 * MIB + one_stats.read_bytes + two_stats.read_bytes); /* each once */
    delete_parts(&s, 2);
    (void)collect(&s);
    check(&s, "main.1");
    scene_end(&s);
}

/* ---- what others do meanwhile */

static void a_part_may_go_once_it_is_kept_from(void **state)
{
    (void)state;
    struct scene s;
    setup(&s);
    write_part(&s, "part-one.1", 2 * MIB, IMAGE_BYTES, NULL);
    struct writing w = begin_writing(&s, "main.1", NULL, NULL);
    struct source part = open_source(&s, "part-one.1");
    keep_range(&s, &w, &part, 2 * MIB, 3 * MIB);
    delete_parts(&s, 1);
    struct store_collect_result result = collect(&s);
    assert_true(result.packs_held > 0);
    assert_int_equal(result.packs_removed, 0);
    keep_range(&s, &w, &part, 3 * MIB, IMAGE_BYTES);
    write_range(&s, &w, 0, 2 * MIB);
    close_source(&part);
    commit(&s, &w, NULL);
    (void)collect(&s);
    check(&s, "main.1");
    scene_end(&s);
}

static void a_part_that_went_before_is_told_as_lost(void **state)
{
    (void)state;
    struct scene s;
    setup(&s);
    write_part(&s, "part-one.1", 2 * MIB, IMAGE_BYTES, NULL);
    struct writing w = begin_writing(&s, "main.1", NULL, NULL);
    struct source part = open_source(&s, "part-one.1");
    delete_parts(&s, 1);
    assert_true(collect(&s).packs_removed > 0);
    struct extents lost = {0};
    MUST(store_stream_keep_from(w.stream, w.disk, part.reader, 2 * MIB, IMAGE_BYTES - 2 * MIB,
                                &lost, &s.err),
         &s.err);
    write_range(&s, &w, 0, 2 * MIB);
    assert_true(lost.count > 0);
    for (size_t i = 0; i < lost.count; i++)
        if (lost.items[i].is_data)
            write_range(&s, &w, lost.items[i].offset, lost.items[i].offset + lost.items[i].len);
    extents_done(&lost);
    close_source(&part);
    commit(&s, &w, NULL);
    check(&s, "main.1");
    scene_end(&s);
}

static void what_a_part_stored_is_found_again(void **state)
{
    (void)state;
    struct scene s;
    struct store_stats stats;
    setup(&s);
    struct store_stats parts = {0};
    put_together(&s, &parts, &stats);
    delete_parts(&s, 2);
    (void)collect(&s);
    reopen(&s);
    s.image.id = "other";
    MUST(backup_image(s.store, "later.1", &s.image, NULL, &stats, &s.err), &s.err);
    assert_true(stats.stored_raw_bytes < MIB / 4);
    MUST(check_image(s.store, "later.1", &s.image, &s.err), &s.err);
    scene_end(&s);
}

static void all_of_it_goes_with_the_point(void **state)
{
    (void)state;
    struct scene s;
    struct store_stats parts = {0}, whole;
    setup(&s);
    put_together(&s, &parts, &whole);
    delete_parts(&s, 2);
    MUST(store_point_delete(s.store, "main.1", true, &s.err), &s.err);
    (void)collect(&s);
    SCOPED_FREE char *packs = xasprintf("%s/packs", s.path), *index = xasprintf("%s/index", s.path);
    assert_int_equal(count_files(packs, ""), 0);
    assert_int_equal(count_files(index, ""), 0);
    scene_end(&s);
}

/* ---- nobody takes a part for a whole VM */

static size_t count_points(struct scene *s, const struct store_point_filter *filter)
{
    struct store_point_list list;
    MUST(store_points_list(s->store, filter, &list, &s->err), &s->err);
    size_t n = list.count;
    for (size_t i = 0; i < n; i++)
        assert_true(!list.items[i].part_of || strcmp(list.items[i].part_of, task) == 0 ||
                    strcmp(list.items[i].part_of, "other-task") == 0);
    store_point_list_done(&list);
    return n;
}

static void parts_are_in_no_list_that_does_not_ask(void **state)
{
    (void)state;
    struct scene s;
    setup(&s);
    write_part(&s, "part-one.1", 0, MIB, NULL);
    MUST(backup_image(s.store, "whole.1", &s.image, NULL, NULL, &s.err), &s.err);
    struct writing w = begin_writing(&s, "part-two.1", "other-task", NULL);
    commit(&s, &w, NULL);
    struct store_point_filter vm = {.vm_id = "vm-1"}, all = {.parts = true},
                              ours = {.part_of = task}, none = {.part_of = "no-task"};
    assert_int_equal(count_points(&s, NULL), 1);
    assert_int_equal(count_points(&s, &vm), 1);
    assert_int_equal(count_points(&s, &all), 3);
    assert_int_equal(count_points(&s, &ours), 1);
    assert_int_equal(count_points(&s, &none), 0);
    scene_end(&s);
}

static void a_part_is_not_opened_as_a_point(void **state)
{
    (void)state;
    struct scene s;
    setup(&s);
    write_part(&s, "abc-part.1", 0, MIB, NULL);
    MUST_FAIL(store_point_open(s.store, "abc-part.1", &s.err), &s.err, ERR_REFUSED);
    MUST_FAIL(store_point_open(s.store, "abc", &s.err), &s.err, ERR_NOT_FOUND);
    MUST(backup_image(s.store, "abc-whole.1", &s.image, NULL, NULL, &s.err), &s.err);
    struct store_point *point = store_point_open(s.store, "abc", &s.err);
    MUST(point, &s.err);
    assert_string_equal(store_point_info(point)->id, "abc-whole.1");
    assert_null(store_point_info(point)->part_of);
    store_point_free(point);
    point = store_point_open_any(s.store, "abc-p", &s.err);
    MUST(point, &s.err);
    assert_string_equal(store_point_info(point)->part_of, task);
    store_point_free(point);
    MUST_FAIL(store_point_open_any(s.store, "abc", &s.err), &s.err, ERR_CONFLICT);
    scene_end(&s);
}

static void a_part_does_not_count_for_retention(void **state)
{
    (void)state;
    struct scene s;
    setup(&s);
    MUST(backup_image(s.store, "whole.1", &s.image, NULL, NULL, &s.err), &s.err);
    write_part(&s, "part-one.1", 0, MIB, NULL);
    /* Newer and good, but it would not replace the whole one. */
    MUST_FAIL(store_point_delete(s.store, "whole.1", false, &s.err), &s.err, ERR_REFUSED);
    MUST_FAIL(store_point_protect(s.store, "part-one.1", &s.err), &s.err, ERR_NOT_FOUND);
    MUST_FAIL(store_point_delete(s.store, "part-one.1", true, &s.err), &s.err, ERR_NOT_FOUND);
    struct retention_policy policy = {.keep = {[RETENTION_LAST] = 1}};
    struct store_prune_plan plan;
    MUST(store_prune_plan(s.store, NULL, 0, &policy, &plan, &s.err), &s.err);
    assert_int_equal(plan.list.count, 1);
    assert_int_equal(plan.to_delete, 0);
    store_prune_plan_done(&plan);
    scene_end(&s);
}

static void only_parts_are_deleted_as_parts(void **state)
{
    (void)state;
    struct scene s;
    setup(&s);
    MUST(backup_image(s.store, "whole.1", &s.image, NULL, NULL, &s.err), &s.err);
    write_part(&s, "part-one.1", 0, MIB, NULL);
    write_part(&s, "part-one.12", 0, MIB, NULL);
    MUST_FAIL(store_part_point_delete(s.store, "whole.1", &s.err), &s.err, ERR_REFUSED);
    MUST(store_part_point_delete(s.store, "whol", &s.err), &s.err); /* there is none of that name */
    MUST_FAIL(store_part_point_delete(s.store, "../x", &s.err), &s.err, ERR_BAD_ARGUMENT);
    MUST(store_part_point_delete(s.store, "part-one.1", &s.err), &s.err);
    MUST(store_part_point_delete(s.store, "part-one.1", &s.err), &s.err); /* nor any more */
    MUST_FAIL(store_point_open_any(s.store, "part-one.1x", &s.err), &s.err, ERR_NOT_FOUND);
    assert_int_equal(count_points(&s, &(struct store_point_filter){.parts = true}), 2);
    check(&s, "whole.1");
    scene_end(&s);
}

/* While they are there: a backup by several workers may go on beside it. */
static void a_scrub_looks_at_parts_as_well(void **state)
{
    (void)state;
    struct scene s;
    struct store_scrub_result found;
    setup(&s);
    write_part(&s, "part-one.1", 0, MIB, NULL);
    MUST(backup_image(s.store, "whole.1", &s.image, NULL, NULL, &s.err), &s.err);
    MUST(store_scrub(s.store, NULL, &found, &s.err), &s.err);
    assert_int_equal(found.points_damaged, 0);
    SCOPED_FREE char *path = xasprintf("%s/manifests/part-one.1/point.json", s.path);
    assert_int_equal(unlink(path), 0);
    for (int i = 0; i < 2; i++) { /* found, and known from before */
        MUST(store_scrub(s.store, NULL, &found, &s.err), &s.err);
        assert_int_equal(found.points_damaged, 1);
    }
    MUST(store_part_point_delete(s.store, "part-one.1", &s.err), &s.err);
    MUST(store_scrub(s.store, NULL, &found, &s.err), &s.err);
    assert_int_equal(found.points_damaged, 0);
    check(&s, "whole.1");
    scene_end(&s);
}

/* It would stop the collector for ever otherwise. */
static void a_damaged_part_can_be_deleted(void **state)
{
    (void)state;
    struct scene s;
    setup(&s);
    write_part(&s, "part-one.1", 0, MIB, NULL);
    SCOPED_FREE char *path = xasprintf("%s/manifests/part-one.1/point.json", s.path);
    assert_int_equal(unlink(path), 0);
    MUST_FAIL(store_point_open_any(s.store, "part-one.1", &s.err), &s.err, ERR_STORE_CORRUPT);
    MUST(store_part_point_delete(s.store, "part-one.1", &s.err), &s.err);
    assert_true(collect(&s).packs_removed > 0);
    scene_end(&s);
}

/* ---- the record */

static char *point_json(const struct scene *s, const char *id)
{
    SCOPED_FREE char *path = xasprintf("%s/manifests/%s/point.json", s->path, id);
    char *text = xcalloc(1, 65536);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_true(fread(text, 1, 65535, f) > 0);
    (void)fclose(f);
    return text;
}

static bool decodes(const json_t *root, struct err *err)
{
    SCOPED_FREE char *text = record_text_of(root);
    struct point_record record;
    if (!point_record_decode(text, strlen(text), NULL, &record, err))
        return false;
    point_record_done(&record);
    return true;
}

/* Who does not know the feature must refuse the point, not restore it. */
static void a_part_is_marked_for_older_programs(void **state)
{
    (void)state;
    struct scene s;
    setup(&s);
    write_part(&s, "part-one.1", 0, MIB, NULL);
    SCOPED_FREE char *text = point_json(&s, "part-one.1");
    json_t *root = json_loads(text, 0, NULL);
    json_t *incompat = json_object_get(json_object_get(root, "features"), "incompat");
    assert_int_equal(json_array_size(incompat), 1);
    assert_string_equal(json_string_value(json_array_get(incompat, 0)), "part");
    assert_true(decodes(root, &s.err));
    json_object_set_new(root, "part_of", json_string("../x"));
    MUST_FAIL(decodes(root, &s.err), &s.err, ERR_STORE_CORRUPT);
    json_object_del(root, "part_of");
    MUST_FAIL(decodes(root, &s.err), &s.err, ERR_STORE_CORRUPT);
    json_array_append_new(incompat, json_string("newer"));
    MUST_FAIL(decodes(root, &s.err), &s.err, ERR_STORE_VERSION);
    json_decref(root);
    scene_end(&s);
}

static void arguments_are_checked(void **state)
{
    (void)state;
    struct scene s, other;
    setup(&s);
    setup(&other);
    struct store_session_opts opts = session_opts("x.1");
    opts.part_of = "no/slug";
    MUST_FAIL(store_session_begin(s.store, &opts, &s.err), &s.err, ERR_BAD_ARGUMENT);
    write_part(&other, "part-one.1", 0, MIB, NULL);
    struct source part = open_source(&other, "part-one.1");
    struct writing w = begin_writing(&s, "main.1", NULL, NULL);
    MUST_FAIL(store_stream_keep_from(w.stream, w.disk, part.reader, 0, MIB, NULL, &s.err), &s.err,
              ERR_BAD_ARGUMENT);
    store_stream_end(w.stream);
    store_session_free(w.session);
    close_source(&part);
    scene_end(&other);
    scene_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_become_one_point),
        cmocka_unit_test(parts_become_one_point_encrypted),
        cmocka_unit_test(a_key_that_only_writes_puts_parts_together),
        cmocka_unit_test(nothing_is_stored_twice_and_all_is_counted),
        cmocka_unit_test(a_parts_piece_of_the_parent_is_kept),
        cmocka_unit_test(many_threads_keep_from_the_same_parts),
        cmocka_unit_test(a_part_may_go_once_it_is_kept_from),
        cmocka_unit_test(a_part_that_went_before_is_told_as_lost),
        cmocka_unit_test(what_a_part_stored_is_found_again),
        cmocka_unit_test(all_of_it_goes_with_the_point),
        cmocka_unit_test(parts_are_in_no_list_that_does_not_ask),
        cmocka_unit_test(a_part_is_not_opened_as_a_point),
        cmocka_unit_test(a_part_does_not_count_for_retention),
        cmocka_unit_test(only_parts_are_deleted_as_parts),
        cmocka_unit_test(a_scrub_looks_at_parts_as_well),
        cmocka_unit_test(a_damaged_part_can_be_deleted),
        cmocka_unit_test(a_part_is_marked_for_older_programs),
        cmocka_unit_test(arguments_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

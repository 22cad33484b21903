/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The golden repositories, tests/fixtures/store-v1, store-v1-encrypted, store-v1-bequest and
 * store-v1-parts: what version 1 of the format wrote, every later version must read. Never
 * regenerate one to make this test pass: a new version of the format gets a fixture of its own
 * beside it. `store_golden --make DIR` wrote the first, `store_golden --make DIR KEY_FILE
 * PASSPHRASE_FILE` the second, `store_golden --make-bequest DIR` the third, `store_golden
 * --make-parts DIR` the last.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "proto/base/file.h"
#include "support.h"

enum { KIB = 1024, BLOCK = STORE_BLOCK_BYTES, A_BYTES = 300 * KIB + 77, B_BYTES = 20 * KIB };

static struct disk_image disk_a(unsigned day)
{
    struct disk_image image = {.id = "disk-a", .data = xcalloc(1, A_BYTES), .size = A_BYTES};
    fill_text(image.data, 100 * KIB, 1);
    fill_text(image.data + 200 * KIB, A_BYTES - 200 * KIB, 2);
    if (day == 2)
        fill_text(image.data + 40 * KIB, 3 * BLOCK, 3);
    return image;
}

static struct disk_image disk_b(void)
{
    struct disk_image image = {.id = "disk-b", .data = xmalloc(B_BYTES), .size = B_BYTES};
    fill_random(image.data, B_BYTES, 4);
    return image;
}

/* ---- making it */

enum end { COMMIT, ABORT, LEAVE };

static bool end_well(struct store_session *s, enum end end, const json_t *meta, struct err *err)
{
    if (end == LEAVE)
        return store_session_leave(s, err);
    return end == ABORT || store_session_commit(s, meta, err);
}

/* `heir_of` may be NULL. */
static bool make_day(struct store *store, const char *id, unsigned day, struct store_reader *parent,
                     const char *heir_of, enum end end, struct err *err)
{
    struct store_adopted adopted;
    struct disk_image a = disk_a(day), b = disk_b();
    struct store_session_opts opts = {.id = id,
                                      .vm_id = "0f1e2d3c-0000-4000-8000-000000000001",
                                      .vm_name = "golden \xc3\xbc",
                                      .worker = "maker"};
    SCOPED(store_session) struct store_session *s = store_session_begin(store, &opts, err);
    json_t *meta = json_pack("{s:s, s:i}", "task", id, "fence", (int)day);
    bool ok = s && (!heir_of || store_session_adopt(s, heir_of, &adopted, err)) &&
              write_image(s, &a, 64 * KIB, parent, NULL, err) &&
              write_image(s, &b, 0, NULL, NULL, err) &&
              store_session_put_blob(s, "vm.ovf", "<ovf/>", 6, err) &&
              store_session_put_blob(s, "vm.json", "{}", 2, err) && end_well(s, end, meta, err);
    json_decref(meta);
    free(a.data);
    free(b.data);
    return ok;
}

static bool make(const char *path, const struct store_opts *opts, struct err *err)
{
    SCOPED(store) struct store *store = store_init(path, opts, err);
    bool committed;
    if (!store || !make_day(store, "golden.1", 1, NULL, NULL, COMMIT, err))
        return false;
    SCOPED(store_point) struct store_point *point = store_point_open(store, "golden.1", err);
    SCOPED(store_reader)
    struct store_reader *parent = point ? store_disk_open(point, "disk-a", err) : NULL;
    SCOPED_FREE char *tombstone = xasprintf("%s/deleted/golden.3", path);
    return parent && make_day(store, "golden.2", 2, parent, NULL, COMMIT, err) &&
           make_day(store, "golden.3", 3, NULL, NULL, COMMIT, err) &&
           file_write_atomic(AT_FDCWD, tombstone, "", 0, 0440, err) &&
           make_day(store, "golden.4", 4, NULL, NULL, ABORT, err) &&
           store_session_revoke(store, "golden.5", &committed, err);
}

/* A point in the packs of an attempt that gave up, and in its own. */
static bool make_bequest(const char *path, struct err *err)
{
    SCOPED(store) struct store *store = store_init(path, NULL, err);
    return store && make_day(store, "bequest.1", 1, NULL, NULL, LEAVE, err) &&
           make_day(store, "bequest.2", 2, NULL, "bequest.1", COMMIT, err);
}

/* Write, or keep from `from`, a range of disk-a. */
static bool fill_a(struct store_session *s, struct store_disk *disk, struct store_reader *from,
                   size_t begin, size_t end, struct err *err)
{
    struct disk_image a = disk_a(2);
    struct store_stream *stream = store_stream_begin(s, err);
    bool ok = stream &&
              (from ? store_stream_keep_from(stream, disk, from, begin, end - begin, NULL, err)
                    : store_stream_write(stream, disk, begin, a.data + begin, end - begin, err));
    store_stream_end(stream);
    free(a.data);
    return ok;
}

enum { PART_BEGIN = 64 * KIB, PART_END = 224 * KIB };

static struct store_session *begin_a(struct store *store, const char *id, const char *part_of,
                                     struct store_disk **ret_disk, struct err *err)
{
    struct store_session_opts opts = {.id = id,
                                      .vm_id = "0f1e2d3c-0000-4000-8000-000000000001",
                                      .vm_name = "golden \xc3\xbc",
                                      .worker = "maker",
                                      .part_of = part_of};
    const struct store_disk_opts disk = {.id = "disk-a", .size_bytes = A_BYTES};
    struct store_session *s = store_session_begin(store, &opts, err);
    *ret_disk = s ? store_disk_begin(s, &disk, err) : NULL;
    return s;
}

static bool commit_a(struct store_session *s, struct store_disk *disk, struct err *err)
{
    json_t *meta = json_pack("{s:s, s:i}", "task", "parts", "fence", 2);
    bool ok = store_disk_finish(disk, NULL, err) && store_session_commit(s, meta, err);
    json_decref(meta);
    return ok;
}

/* A point, and the part that some of it was kept from, which nobody has deleted yet. */
static bool make_parts(const char *path, struct err *err)
{
    struct store_disk *disk;
    struct disk_image b = disk_b();
    SCOPED(store) struct store *store = store_init(path, NULL, err);
    SCOPED(store_session)
    struct store_session *p = store ? begin_a(store, "part.1", "parts", &disk, err) : NULL;
    bool ok =
        p && disk && fill_a(p, disk, NULL, PART_BEGIN, PART_END, err) && commit_a(p, disk, err);
    SCOPED(store_point)
    struct store_point *point = ok ? store_point_open_any(store, "part.1", err) : NULL;
    SCOPED(store_reader)
    struct store_reader *part = point ? store_disk_open(point, "disk-a", err) : NULL;
    SCOPED(store_session)
    struct store_session *s = part ? begin_a(store, "parts.2", NULL, &disk, err) : NULL;
    ok = s && disk && fill_a(s, disk, NULL, 0, PART_BEGIN, err) &&
         fill_a(s, disk, part, PART_BEGIN, PART_END, err) &&
         fill_a(s, disk, NULL, PART_END, A_BYTES, err) && write_image(s, &b, 0, NULL, NULL, err) &&
         store_session_put_blob(s, "vm.ovf", "<ovf/>", 6, err) && commit_a(s, disk, err);
    free(b.data);
    return ok;
}

/* ---- reading it */

static char *fixture(const char *name)
{
    const char *source = getenv("OXBOW_SOURCE_DIR");
    return xasprintf("%s/tests/fixtures/%s", source ? source : ".", name);
}

static void check_point(struct store *store, const char *id, unsigned day)
{
    struct err err = ERR_INIT;
    struct disk_image a = disk_a(day), b = disk_b();
    MUST(check_image(store, id, &a, &err), &err);
    MUST(check_image(store, id, &b, &err), &err);
    MUST(store_verify_point(store, id, NULL, NULL, &err), &err);
    struct store_point *point = store_point_open(store, id, &err);
    MUST(point, &err);
    assert_string_equal(store_point_info(point)->vm_name, "golden \xc3\xbc");
    assert_int_equal(json_integer_value(json_object_get(store_point_meta(point), "fence")), day);
    struct buf blob;
    MUST(store_point_blob(point, "vm.ovf", &blob, &err), &err);
    assert_string_equal(buf_str(&blob), "<ovf/>");
    buf_done(&blob);
    store_point_free(point);
    free(a.data);
    free(b.data);
}

static void check_golden(const char *path, const struct store_opts *opts)
{
    struct err err = ERR_INIT;
    struct store *store = store_open(path, opts, &err);
    MUST(store, &err);
    struct store_point_list list;
    MUST(store_points_list(store, NULL, &list, &err), &err);
    assert_int_equal(list.count, 2);
    for (size_t i = 0; i < list.count; i++)
        assert_null(list.items[i].damage);
    store_point_list_done(&list);
    check_point(store, "golden.1", 1);
    check_point(store, "golden.2", 2);
    MUST_FAIL(store_point_open(store, "golden.3", &err), &err, ERR_NOT_FOUND);
    MUST_FAIL(store_point_open(store, "golden.4", &err), &err, ERR_NOT_FOUND);
    store_free(store);
}

static void test_golden_repository_is_read(void **state)
{
    (void)state;
    SCOPED_FREE char *path = fixture("store-v1");
    check_golden(path, NULL);
}

/* By its key file and by its passphrase. A checkout makes both readable by all, which is refused.
 */
static void test_golden_encrypted_repository_is_read(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    SCOPED_FREE char *path = fixture("store-v1-encrypted"), *dir = temp_dir();
    static const char *const names[] = {"key", "passphrase"};
    char *secrets[2];
    for (size_t i = 0; i < 2; i++) {
        SCOPED_FREE char *from = xasprintf("%s.%s", path, names[i]);
        SCOPED_BUF struct buf text;
        MUST(file_read_all(AT_FDCWD, from, 4096, &text, &err), &err);
        secrets[i] = make_secret(dir, names[i], buf_str(&text));
    }
    check_golden(path, &(struct store_opts){.key_file = secrets[0]});
    check_golden(path, &(struct store_opts){.passphrase_file = secrets[1]});
    free(secrets[0]);
    free(secrets[1]);
    remove_tree(dir);
}

static void test_golden_bequest_is_read(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    SCOPED_FREE char *path = fixture("store-v1-bequest");
    struct store *store = store_open(path, NULL, &err);
    MUST(store, &err);
    struct store_point_list list;
    MUST(store_points_list(store, NULL, &list, &err), &err);
    assert_int_equal(list.count, 1);
    assert_null(list.items[0].damage);
    store_point_list_done(&list);
    check_point(store, "bequest.2", 2);
    MUST_FAIL(store_point_open(store, "bequest.1", &err), &err, ERR_NOT_FOUND);
    assert_int_equal(count_files(path, "packs/"), 2);
    store_free(store);
}

static void test_golden_parts_are_read(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    SCOPED_FREE char *path = fixture("store-v1-parts");
    struct store *store = store_open(path, NULL, &err);
    MUST(store, &err);
    struct store_point_list list;
    MUST(store_points_list(store, NULL, &list, &err), &err);
    assert_int_equal(list.count, 1);
    store_point_list_done(&list);
    check_point(store, "parts.2", 2);
    MUST_FAIL(store_point_open(store, "part.1", &err), &err, ERR_REFUSED);
    struct store_point *part = store_point_open_any(store, "part.1", &err);
    MUST(part, &err);
    assert_string_equal(store_point_info(part)->part_of, "parts");
    store_point_free(part);
    MUST(store_verify_point(store, "part.1", NULL, NULL, &err), &err);
    store_free(store);
}

/* Its index is understood: a backup into a copy of it finds the chunks. Those of disk-b, which any
 * rule of cutting that was ever used cuts in the same way. */
static void test_golden_index_is_used(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    SCOPED_FREE char *path = fixture("store-v1"), *dir = temp_dir();
    SCOPED_FREE char *copy = xasprintf("%s/repo", dir);
    struct file_list files = list_files(path);
    for (size_t i = 0; i < files.count; i++) {
        SCOPED_FREE char *from = xasprintf("%s/%s", path, files.items[i]);
        SCOPED_FREE char *to = xasprintf("%s/%s", copy, files.items[i]);
        SCOPED_FREE char *parent = xstrndup(to, (size_t)(strrchr(to, '/') - to));
        SCOPED_BUF struct buf bytes;
        MUST(file_read_all(AT_FDCWD, from, 1 << 20, &bytes, &err), &err);
        MUST(file_make_dirs(parent, 0700, &err), &err);
        MUST(file_write_atomic(AT_FDCWD, to, buf_str(&bytes), bytes.len, 0600, &err), &err);
    }
    file_list_done(&files);
    struct store *store = store_open(copy, NULL, &err);
    MUST(store, &err);
    struct disk_image b = disk_b();
    struct store_stats stats;
    struct store_session_opts opts = session_opts("new.1");
    struct store_session *s = store_session_begin(store, &opts, &err);
    MUST(s, &err);
    MUST(write_image(s, &b, 0, NULL, &stats, &err), &err);
    assert_int_equal(stats.dedup_bytes, B_BYTES);
    MUST(store_session_commit(s, NULL, &err), &err);
    store_session_free(s);
    MUST(check_image(store, "new.1", &b, &err), &err);
    free(b.data);
    store_free(store);
    remove_tree(dir);
}

int main(int argc, char **argv)
{
    if ((argc == 3 || argc == 5) && strcmp(argv[1], "--make") == 0) {
        struct err err = ERR_INIT;
        struct store_opts opts = {.encrypt = argc == 5, .scrypt_log2_n = 14};
        if (argc == 5) {
            opts.key_file = argv[3];
            opts.passphrase_file = argv[4];
        }
        bool ok = make(argv[2], &opts, &err);
        if (!ok)
            (void)fprintf(stderr, "%s\n", err.message);
        return ok ? 0 : 1;
    }
    if (argc == 3 &&
        (strcmp(argv[1], "--make-bequest") == 0 || strcmp(argv[1], "--make-parts") == 0)) {
        struct err err = ERR_INIT;
        if (strcmp(argv[1], "--make-parts") == 0 ? make_parts(argv[2], &err)
                                                 : make_bequest(argv[2], &err))
            return 0;
        (void)fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_bequest_is_read),
        cmocka_unit_test(test_golden_parts_are_read),
        cmocka_unit_test(test_golden_repository_is_read),
        cmocka_unit_test(test_golden_encrypted_repository_is_read),
        cmocka_unit_test(test_golden_index_is_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

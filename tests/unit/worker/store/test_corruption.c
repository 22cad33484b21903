/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flipped bits and cut files. Every bit of every file of a small repository is flipped, and every
 * file is cut at every length: each must be noticed by whoever reads that file, and never give
 * wrong data.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/file.h"
#include "proto/base/log.h"
#include "support.h"

enum { BLOCK = STORE_BLOCK_BYTES, DATA_BYTES = 7 * BLOCK + 123 };

struct scene {
    char *dir, *path, *key_file; /* NULL: not encrypted */
    struct disk_image image;
};

static struct store_opts opts_of(const struct scene *s)
{
    return (struct store_opts){.key_file = s->key_file};
}

static int setup_scene(void **state, bool encrypt)
{
    struct scene *s = ALLOC_NEW(struct scene);
    struct err err = ERR_INIT;
    log_set_level(LOG_LEVEL_ERROR);
    s->dir = temp_dir();
    if (encrypt)
        s->key_file = make_key_file(s->dir, "key");
    s->path = xasprintf("%s/repo", s->dir);
    s->image = (struct disk_image){.id = "d", .data = xcalloc(1, DATA_BYTES), .size = DATA_BYTES};
    fill_text(s->image.data, 3 * BLOCK, 1); /* a hole in the middle: two records */
    fill_text(s->image.data + 5 * BLOCK, DATA_BYTES - 5 * BLOCK, 2);
    struct store_opts opts = opts_of(s);
    opts.encrypt = encrypt;
    struct store *store = store_init(s->path, &opts, &err);
    MUST(store, &err);
    MUST(backup_image(store, "point.1", &s->image, NULL, NULL, &err), &err);
    store_free(store);
    *state = s;
    return 0;
}

static int setup(void **state)
{
    return setup_scene(state, false);
}

static int setup_encrypted(void **state)
{
    return setup_scene(state, true);
}

static int teardown(void **state)
{
    struct scene *s = *state;
    remove_tree(s->dir);
    free(s->image.data);
    free(s->dir);
    free(s->path);
    free(s->key_file);
    free(s);
    return 0;
}

/* Read everything of the point as a restore would. Wrong data fails the test. */
static bool read_all(const struct scene *s, struct err *err)
{
    struct store_opts opts = opts_of(s);
    SCOPED(store) struct store *store = store_open(s->path, &opts, err);
    if (!store || !check_image(store, "point.1", &s->image, err))
        return false;
    SCOPED(store_point) struct store_point *point = store_point_open(store, "point.1", err);
    SCOPED_BUF struct buf blob = {0};
    if (!point || !store_point_blob(point, "vm.json", &blob, err))
        return false;
    assert_string_equal(buf_str(&blob), "{}");
    return true;
}

/* The other readers must stand it, too: they may fail or not, but not crash. */
static void list_and_verify(const struct scene *s)
{
    struct err err = ERR_INIT;
    struct store_opts opts = opts_of(s);
    SCOPED(store) struct store *store = store_open(s->path, &opts, &err);
    if (!store)
        return;
    struct store_point_list list;
    if (store_points_list(store, NULL, &list, &err)) {
        assert_true(list.count <= 1); /* "damaged" or fine, but not lost, unless its name is */
        store_point_list_done(&list);
    }
    err_clear(&err);
    (void)store_verify_point(store, "point.1", NULL, NULL, &err);
}

static bool is_corruption(const struct scene *s, const struct err *err)
{
    return (s->key_file && err->code == ERR_STORE_KEY) || /* the key object is damaged, too */
           err->code == ERR_STORE_CORRUPT || err->code == ERR_STORE_VERSION || err->code == ERR_IO;
}

static bool is_key(const char *name)
{
    return strncmp(name, "keys/", 5) == 0;
}

static int open_victim(const struct scene *s, const char *name, size_t *ret_len)
{
    SCOPED_FREE char *path = xasprintf("%s/%s", s->path, name);
    assert_int_equal(chmod(path, 0600), 0);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    *ret_len = (size_t)st.st_size;
    return fd;
}

static void flip_all(const struct scene *s, const char *name)
{
    size_t len;
    SCOPED_FD int fd = open_victim(s, name, &len);
    bool is_pack = strncmp(name, "packs/", 6) == 0;
    for (size_t i = 0; i < len; i++) {
        uint8_t byte, flipped;
        assert_int_equal(pread(fd, &byte, 1, (off_t)i), 1);
        for (unsigned bit = 0; bit < 8; bit++) {
            if ((is_pack || s->key_file) && bit != i % 8) /* one bit of each byte */
                continue;
            flipped = (uint8_t)(byte ^ (1u << bit));
            assert_int_equal(pwrite(fd, &flipped, 1, (off_t)i), 1);
            struct err err = ERR_INIT;
            if (read_all(s, &err))
                fail_msg("%s: byte %zu bit %u: not noticed", name, i, bit);
            if (!is_corruption(s, &err))
                fail_msg("%s: byte %zu bit %u: %s: %s", name, i, bit, err_code_name(err.code),
                         err.message);
            if (i % 16 == bit)
                list_and_verify(s);
        }
        assert_int_equal(pwrite(fd, &byte, 1, (off_t)i), 1);
    }
    struct err err = ERR_INIT;
    MUST(read_all(s, &err), &err);
}

static void test_every_flipped_bit_is_noticed(void **state)
{
    struct scene *s = *state;
    struct file_list files = list_files(s->path);
    unsigned flipped = 0;
    for (size_t i = 0; i < files.count; i++) {
        if (strncmp(files.items[i], "index/", 6) == 0)
            continue; /* no reader needs it: below */
        flip_all(s, files.items[i]);
        flipped++;
    }
    /* repo.json, pack, manifest, vm.json, point.json, fate; the key */
    assert_int_equal(flipped, s->key_file ? 7 : 6);
    file_list_done(&files);
}

static void test_every_cut_is_noticed(void **state)
{
    struct scene *s = *state;
    struct file_list files = list_files(s->path);
    for (size_t i = 0; i < files.count; i++) {
        if (strncmp(files.items[i], "index/", 6) == 0)
            continue;
        SCOPED_FREE char *path = xasprintf("%s/%s", s->path, files.items[i]);
        SCOPED_BUF struct buf whole;
        struct err err = ERR_INIT;
        MUST(file_read_all(AT_FDCWD, path, 1 << 20, &whole, &err), &err);
        size_t len;
        SCOPED_FD int fd = open_victim(s, files.items[i], &len);
        bool is_pack = strncmp(files.items[i], "packs/", 6) == 0;
        for (size_t cut = len; cut-- > 0;) {
            if (is_pack && cut > 100 && cut < len - 100 && cut % 61 != 0)
                continue;
            assert_int_equal(ftruncate(fd, (off_t)cut), 0);
            if (read_all(s, &err)) /* a final newline of JSON says nothing */
                assert_true((strcmp(files.items[i], "repo.json") == 0 || is_key(files.items[i])) &&
                            cut == len - 1);
            else
                assert_true(is_corruption(s, &err));
            err_clear(&err);
        }
        list_and_verify(s);
        assert_int_equal(pwrite(fd, whole.data, whole.len, 0), whole.len);
        /* Too long is as wrong as too short. */
        assert_int_equal(pwrite(fd, "x", 1, (off_t)whole.len), 1);
        MUST_FAIL(read_all(s, &err), &err,
                  is_key(files.items[i]) ? ERR_STORE_KEY : ERR_STORE_CORRUPT);
        assert_int_equal(ftruncate(fd, (off_t)whole.len), 0);
        MUST(read_all(s, &err), &err);
        /* And missing. */
        assert_int_equal(unlink(path), 0);
        bool ok = read_all(s, &err);
        assert_false(ok);
        bool may_be_absent =
            strcmp(files.items[i], "repo.json") == 0 || strncmp(files.items[i], "fate/", 5) == 0;
        assert_int_equal(err.code, may_be_absent            ? ERR_NOT_FOUND
                                   : is_key(files.items[i]) ? ERR_STORE_KEY
                                                            : ERR_STORE_CORRUPT);
        err_clear(&err);
        MUST(file_write_atomic(AT_FDCWD, path, whole.data, whole.len, 0600, &err), &err);
        MUST(read_all(s, &err), &err);
    }
    file_list_done(&files);
}

/* A damaged index costs deduplication at most. */
static void test_index_damage_costs_nothing_but_space(void **state)
{
    struct scene *s = *state;
    size_t len;
    SCOPED_FD int fd = open_victim(s, "index/point.1.ix", &len);
    for (size_t i = 0; i < len; i += 3) {
        uint8_t byte, flipped;
        assert_int_equal(pread(fd, &byte, 1, (off_t)i), 1);
        flipped = (uint8_t)(byte ^ (1u << i % 8));
        assert_int_equal(pwrite(fd, &flipped, 1, (off_t)i), 1);
        struct err err = ERR_INIT;
        struct store *store =
            store_open(s->path, &(struct store_opts){.dedup_cache_bytes = 1 << 20}, &err);
        MUST(store, &err);
        char id[32];
        (void)snprintf(id, sizeof id, "again-%zu.1", i);
        struct store_stats stats;
        MUST(backup_image(store, id, &s->image, NULL, &stats, &err), &err);
        assert_true(i > 0 || stats.dedup_bytes == 0); /* the only index there is is ignored */
        MUST(check_image(store, id, &s->image, &err), &err);
        store_free(store);
        SCOPED_FREE char *fate = xasprintf("%s/fate/%s", s->path, id); /* forget it again */
        assert_int_equal(unlink(fate), 0);
        assert_int_equal(pwrite(fd, &byte, 1, (off_t)i), 1);
    }
}

/* One damaged point does not hide the others; what is damaged is named. */
static void test_damage_is_reported_by_place(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    struct store *store = store_open(s->path, NULL, &err);
    MUST(store, &err);
    struct disk_image other = {.id = "d", .data = xmalloc(BLOCK), .size = BLOCK};
    fill_random(other.data, BLOCK, 77);
    MUST(backup_image(store, "other.1", &other, NULL, NULL, &err), &err);
    SCOPED_FREE char *json = xasprintf("%s/manifests/point.1/point.json", s->path);
    assert_int_equal(unlink(json), 0);
    struct store_point_list list;
    MUST(store_points_list(store, NULL, &list, &err), &err);
    assert_int_equal(list.count, 2);
    assert_string_equal(list.items[0].id, "point.1");
    assert_non_null(strstr(list.items[0].damage, "point.json"));
    assert_null(list.items[1].damage);
    store_point_list_done(&list);
    MUST(check_image(store, "other.1", &other, &err), &err);
    free(other.data);
    store_free(store);
}

struct damage {
    unsigned calls;
    uint64_t offset, len;
};

static void on_damage(void *context, const char *disk_id, uint64_t offset, uint64_t len,
                      const struct err *why)
{
    struct damage *d = context;
    assert_string_equal(disk_id, "d");
    assert_int_equal(why->code, ERR_STORE_CORRUPT);
    d->calls++;
    d->offset = offset;
    d->len = len;
}

static void test_verify_names_ranges(void **state)
{
    struct scene *s = *state;
    struct file_list files = list_files(s->path);
    size_t len;
    const char *pack = NULL;
    for (size_t i = 0; i < files.count; i++)
        if (strncmp(files.items[i], "packs/", 6) == 0)
            pack = files.items[i];
    SCOPED_FD int fd = open_victim(s, pack, &len);
    uint8_t byte;
    assert_int_equal(pread(fd, &byte, 1, 2000), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, 2000), 1);
    file_list_done(&files);
    struct err err = ERR_INIT;
    struct store *store = store_open(s->path, NULL, &err);
    MUST(store, &err);
    struct damage damage = {0};
    struct store_verify_opts opts = {.context = &damage, .damaged = on_damage, .threads = 2};
    struct store_verify_result result;
    MUST_FAIL(store_verify_point(store, "point.1", &opts, &result, &err), &err, ERR_STORE_CORRUPT);
    assert_int_equal(damage.calls, 2); /* the two runs of blocks in the one frame */
    assert_int_equal(result.damaged_ranges, 2);
    assert_int_equal(result.damaged_bytes, 3 * BLOCK + 2 * BLOCK + 123);
    opts.quick = true; /* does not read data */
    MUST(store_verify_point(store, "point.1", &opts, &result, &err), &err);
    store_free(store);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_every_flipped_bit_is_noticed),
        T(test_every_cut_is_noticed),
        cmocka_unit_test_setup_teardown(test_every_flipped_bit_is_noticed, setup_encrypted,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_every_cut_is_noticed, setup_encrypted, teardown),
        T(test_index_damage_costs_nothing_but_space),
        T(test_damage_is_reported_by_place),
        T(test_verify_names_ranges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

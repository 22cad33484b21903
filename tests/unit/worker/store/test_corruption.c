/* SPDX-License-Identifier: Apache-2.0 */
/* What damage to a file means for all the rest: an index that is no use, a point that does not hide
 * others, ranges that are named. test_every_file has each kind of file, bit by bit. */
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
    char *dir, *path;
    struct disk_image image;
};

static int setup(void **state)
{
    struct scene *s = ALLOC_NEW(struct scene);
    struct err err = ERR_INIT;
    log_set_level(LOG_LEVEL_ERROR);
    s->dir = temp_dir();
    s->path = xasprintf("%s/repo", s->dir);
    s->image = (struct disk_image){.id = "d", .data = xcalloc(1, DATA_BYTES), .size = DATA_BYTES};
    fill_text(s->image.data, 3 * BLOCK, 1); /* a hole in the middle: two records */
    fill_text(s->image.data + 5 * BLOCK, DATA_BYTES - 5 * BLOCK, 2);
    struct store *store = store_init(s->path, NULL, &err);
    MUST(store, &err);
    MUST(backup_image(store, "point.1", &s->image, NULL, NULL, &err), &err);
    store_free(store);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct scene *s = *state;
    remove_tree(s->dir);
    free(s->image.data);
    free(s->dir);
    free(s->path);
    free(s);
    return 0;
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
        T(test_index_damage_costs_nothing_but_space),
        T(test_damage_is_reported_by_place),
        T(test_verify_names_ranges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

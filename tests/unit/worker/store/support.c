/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/worker/store/support.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/file.h"

char *temp_dir(void)
{
    const char *base = getenv("TMPDIR");
    char *path = xasprintf("%s/oxbow-store-XXXXXX", base ? base : P_tmpdir);
    assert_non_null(mkdtemp(path));
    return path;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void remove_tree(const char *path)
{
    (void)nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

uint64_t random_next(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15)); /* splitmix64 */
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void fill_random(uint8_t *data, size_t len, uint64_t seed)
{
    for (size_t i = 0; i < len; i += 8) {
        uint64_t n = random_next(&seed);
        memcpy(data + i, &n, len - i < 8 ? len - i : 8);
    }
}

void fill_text(uint8_t *data, size_t len, uint64_t seed)
{
    for (size_t i = 0; i < len; i += 8) {
        uint64_t n = random_next(&seed) & UINT64_C(0x0f0f0f0f0f0f0f0f);
        n |= UINT64_C(0x4040404040404040);
        memcpy(data + i, &n, len - i < 8 ? len - i : 8);
    }
}

struct store_session_opts session_opts(const char *id)
{
    return (struct store_session_opts){
        .id = id, .vm_id = "vm-1", .vm_name = "web one", .worker = "test"};
}

char *make_key_file(const char *dir, const char *name)
{
    struct err err = ERR_INIT;
    char *path = xasprintf("%s/%s", dir, name);
    MUST(store_key_file_make(path, &err), &err);
    return path;
}

char *make_secret(const char *dir, const char *name, const char *text)
{
    struct err err = ERR_INIT;
    char *path = xasprintf("%s/%s", dir, name);
    MUST(file_write_atomic(AT_FDCWD, path, text, strlen(text), 0600, &err), &err);
    return path;
}

bool write_image(struct store_session *session, const struct disk_image *image, size_t step,
                 struct store_reader *parent, struct store_stats *ret_stats, struct err *err)
{
    struct store_disk_opts opts = {.id = image->id, .size_bytes = image->size, .parent = parent};
    struct store_disk *disk = store_disk_begin(session, &opts, err);
    if (!disk)
        return false;
    struct store_stream *stream = store_stream_begin(session, err);
    if (!stream)
        return false;
    bool ok = true;
    step = step ? step : 1 << 20;
    for (size_t at = 0; ok && at < image->size; at += step) {
        size_t len = image->size - at < step ? image->size - at : step;
        ok = store_stream_write(stream, disk, at, image->data + at, len, err);
    }
    store_stream_end(stream);
    return ok && store_disk_finish(disk, ret_stats, err);
}

bool backup_image(struct store *store, const char *session_id, const struct disk_image *image,
                  struct store_reader *parent, struct store_stats *ret_stats, struct err *err)
{
    struct store_session_opts opts = session_opts(session_id);
    SCOPED(store_session) struct store_session *session = store_session_begin(store, &opts, err);
    return session && write_image(session, image, 0, parent, ret_stats, err) &&
           store_session_put_blob(session, "vm.json", "{}", 2, err) &&
           store_session_commit(session, NULL, err);
}

bool check_image(struct store *store, const char *point_id, const struct disk_image *image,
                 struct err *err)
{
    SCOPED(store_point) struct store_point *point = store_point_open(store, point_id, err);
    if (!point)
        return false;
    SCOPED(store_reader) struct store_reader *reader = store_disk_open(point, image->id, err);
    if (!reader)
        return false;
    assert_int_equal(store_reader_size(reader), image->size);
    SCOPED_FREE uint8_t *buf = xmalloc(1 << 20);
    for (size_t at = 0; at < image->size;) {
        size_t len = 1000003; /* prime: nothing is aligned */
        len = image->size - at < len ? image->size - at : len;
        memset(buf, 0xee, len);
        if (!store_disk_read(reader, buf, len, at, err))
            return false;
        assert_memory_equal(buf, image->data + at, len);
        at += len;
    }
    return true;
}

/* ---- files */

static struct file_list *walk_list;
static size_t walk_skip;

static int walk_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)ftw;
    if (type != FTW_F)
        return 0;
    walk_list->items =
        xreallocarray(walk_list->items, walk_list->count + 1, sizeof *walk_list->items);
    walk_list->items[walk_list->count++] = xstrdup(path + walk_skip);
    return 0;
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

bool fd_ends_with(int fd, const char *end)
{
    char link[64], path[512];
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    assert_true(n > 0);
    path[n] = '\0';
    size_t len = strlen(end);
    return (size_t)n >= len && strcmp(path + (size_t)n - len, end) == 0;
}

struct file_list list_files(const char *dir)
{
    struct file_list list = {0};
    walk_list = &list;
    walk_skip = strlen(dir) + 1;
    assert_int_equal(nftw(dir, walk_entry, 16, FTW_PHYS), 0);
    walk_list = NULL;
    if (list.count > 0)
        qsort(list.items, list.count, sizeof *list.items, compare);
    return list;
}

void file_list_done(struct file_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i]);
    free(list->items);
    *list = (struct file_list){0};
}

size_t count_files(const char *dir, const char *prefix)
{
    struct file_list list = list_files(dir);
    size_t n = 0;
    for (size_t i = 0; i < list.count; i++)
        n += strncmp(list.items[i], prefix, strlen(prefix)) == 0;
    file_list_done(&list);
    return n;
}

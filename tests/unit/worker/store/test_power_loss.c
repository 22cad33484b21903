/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Power loss: every call by which a repository changes its file system is recorded; then, after
 * each of them, the file system is built as a crash at that instant may leave it, and the
 * repository in it is examined. Three crashes each: nothing has reached the disk but what fsync had
 * promised; everything has; and a random part of what was not promised (directory entries one by
 * one, file contents cut or zeroed). Whatever happens, every point that is listed restores, every
 * commit that was reported is listed, and what is left over can be swept.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "support.h"
#include "worker/store/packfile.h"
#include "worker/store/upkeep.h"

enum { PATH_BYTES = 160, FDS_MAX = 1024, FILES_MAX = 1024, OPS_MAX = 8192, ENTRIES_MAX = 1024 };

/* ---- recording */

enum op_kind {
    OP_CREATE, /* path, file */
    OP_WRITE,  /* file, data */
    OP_SYNC_FILE,
    OP_SYNC_DIR,
    OP_LINK, /* path -> other */
    OP_RENAME,
    OP_UNLINK,
    OP_MKDIR,
    OP_COMMITTED, /* path: the point; it must be there from now on */
    OP_DELETING,  /* path: the point; it need not be there any more */
};

struct op {
    enum op_kind kind;
    char path[PATH_BYTES], other[PATH_BYTES];
    int file;
    uint8_t *data;
    size_t len;
};

static struct {
    pthread_mutex_t lock; /* guards all of it */
    bool is_on;
    struct op *ops;
    size_t n_ops;
    int n_files;
    struct {
        int file; /* -1 = none */
        char dir[PATH_BYTES];
    } fds[FDS_MAX];
} recorder = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct op *record(enum op_kind kind, const char *path)
{
    assert_true(recorder.n_ops < OPS_MAX);
    struct op *op = &recorder.ops[recorder.n_ops++];
    *op = (struct op){.kind = kind, .file = -1};
    if (path)
        (void)snprintf(op->path, sizeof op->path, "%s", path);
    return op;
}

static void say(enum op_kind kind, const char *point)
{
    pthread_mutex_lock(&recorder.lock);
    (void)record(kind, point);
    pthread_mutex_unlock(&recorder.lock);
}

static bool is_ours(const char *path)
{
    return recorder.is_on && path[0] != '/';
}

int __real_openat(int dir, const char *path, int flags, ...);
int __wrap_openat(int dir, const char *path, int flags, ...);
int __wrap_openat(int dir, const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    pthread_mutex_lock(&recorder.lock);
    int fd = __real_openat(dir, path, flags, mode);
    if (fd >= 0 && fd < FDS_MAX) {
        recorder.fds[fd].file = -1;
        recorder.fds[fd].dir[0] = '\0';
        if (is_ours(path) && (flags & O_DIRECTORY))
            (void)snprintf(recorder.fds[fd].dir, PATH_BYTES, "%s", path);
        if (is_ours(path) && (flags & O_CREAT)) {
            struct op *op = record(OP_CREATE, path);
            op->file = recorder.fds[fd].file = recorder.n_files++;
        }
    }
    pthread_mutex_unlock(&recorder.lock);
    return fd;
}

ssize_t __real_write(int fd, const void *buf, size_t len);
ssize_t __wrap_write(int fd, const void *buf, size_t len);
ssize_t __wrap_write(int fd, const void *buf, size_t len)
{
    pthread_mutex_lock(&recorder.lock);
    ssize_t n = __real_write(fd, buf, len);
    if (n > 0 && recorder.is_on && fd < FDS_MAX && recorder.fds[fd].file >= 0) {
        struct op *op = record(OP_WRITE, NULL);
        op->file = recorder.fds[fd].file;
        op->len = (size_t)n;
        op->data = xmalloc(op->len);
        memcpy(op->data, buf, op->len);
    }
    pthread_mutex_unlock(&recorder.lock);
    return n;
}

int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    pthread_mutex_lock(&recorder.lock);
    if (recorder.is_on && fd < FDS_MAX && recorder.fds[fd].file >= 0)
        record(OP_SYNC_FILE, NULL)->file = recorder.fds[fd].file;
    else if (recorder.is_on && fd < FDS_MAX && recorder.fds[fd].dir[0] != '\0')
        (void)record(OP_SYNC_DIR, recorder.fds[fd].dir);
    pthread_mutex_unlock(&recorder.lock);
    return 0;
}

static int recorded(int result, enum op_kind kind, const char *path, const char *other)
{
    if (result == 0 && is_ours(path)) {
        struct op *op = record(kind, path);
        (void)snprintf(op->other, sizeof op->other, "%s", other ? other : "");
    }
    return result;
}

#define RECORDED(name, params, args, kind, path, other)                                            \
    int __real_##name params;                                                                      \
    int __wrap_##name params;                                                                      \
    int __wrap_##name params                                                                       \
    {                                                                                              \
        pthread_mutex_lock(&recorder.lock);                                                        \
        int result = recorded(__real_##name args, kind, path, other);                              \
        pthread_mutex_unlock(&recorder.lock);                                                      \
        return result;                                                                             \
    }

RECORDED(linkat, (int d1, const char *p1, int d2, const char *p2, int flags),
         (d1, p1, d2, p2, flags), OP_LINK, p1, p2)
RECORDED(renameat, (int d1, const char *p1, int d2, const char *p2), (d1, p1, d2, p2), OP_RENAME,
         p1, p2)
RECORDED(unlinkat, (int dir, const char *path, int flags), (dir, path, flags), OP_UNLINK, path,
         NULL)
RECORDED(mkdirat, (int dir, const char *path, mode_t mode), (dir, path, mode), OP_MKDIR, path, NULL)

/* ---- a file system in memory: what is there, and what would survive */

struct bytes {
    uint8_t *data;
    size_t len;
};
struct entry {
    char path[PATH_BYTES];
    int file; /* -1 = a directory */
};
struct names {
    struct entry items[ENTRIES_MAX];
    size_t count;
};

static struct {
    struct names now, durable;
    struct bytes files[FILES_MAX]; /* as written */
    size_t synced[FILES_MAX];      /* so much of each is durable: files only grow */
} fs;

static struct entry *find(struct names *names, const char *path)
{
    for (size_t i = 0; i < names->count; i++)
        if (strcmp(names->items[i].path, path) == 0)
            return &names->items[i];
    return NULL;
}

static void put(struct names *names, const char *path, int file)
{
    struct entry *e = find(names, path);
    if (!e) {
        assert_true(names->count < ENTRIES_MAX);
        e = &names->items[names->count++];
        (void)snprintf(e->path, sizeof e->path, "%s", path);
    }
    e->file = file;
}

static void drop(struct names *names, const char *path)
{
    struct entry *e = find(names, path);
    if (e)
        *e = names->items[--names->count];
}

static bool is_in(const char *path, const char *dir)
{
    size_t len = strlen(dir);
    if (strcmp(dir, ".") == 0)
        return strchr(path, '/') == NULL;
    return strncmp(path, dir, len) == 0 && path[len] == '/' && !strchr(path + len + 1, '/');
}

static void sync_dir(const char *dir)
{
    for (size_t i = fs.durable.count; i-- > 0;)
        if (is_in(fs.durable.items[i].path, dir))
            drop(&fs.durable, fs.durable.items[i].path);
    for (size_t i = 0; i < fs.now.count; i++)
        if (is_in(fs.now.items[i].path, dir))
            put(&fs.durable, fs.now.items[i].path, fs.now.items[i].file);
}

static void play(const struct op *op)
{
    struct bytes *f = op->file >= 0 ? &fs.files[op->file] : NULL;
    const struct entry *e = find(&fs.now, op->path);
    switch (op->kind) {
    case OP_CREATE:
        put(&fs.now, op->path, op->file);
        break;
    case OP_WRITE:
        f->data = xreallocarray(f->data, f->len + op->len, 1);
        memcpy(f->data + f->len, op->data, op->len);
        f->len += op->len;
        break;
    case OP_SYNC_FILE:
        fs.synced[op->file] = f->len;
        break;
    case OP_SYNC_DIR:
        sync_dir(op->path);
        break;
    case OP_LINK:
        assert_non_null(e);
        put(&fs.now, op->other, e->file);
        break;
    case OP_RENAME: {
        assert_non_null(e);
        int file = e->file;
        drop(&fs.now, op->path);
        put(&fs.now, op->other, file);
        break;
    }
    case OP_UNLINK:
        drop(&fs.now, op->path);
        break;
    case OP_MKDIR:
        put(&fs.now, op->path, -1);
        break;
    case OP_COMMITTED:
    case OP_DELETING:
        break;
    }
}

/* The repository as it is before the recording: all of it durable. */
static size_t scan_skip;
static int scan_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)ftw;
    if (strlen(path) <= scan_skip)
        return 0;
    int file = -1;
    if (type == FTW_F) {
        file = recorder.n_files++;
        struct bytes *f = &fs.files[file];
        f->len = (size_t)st->st_size;
        f->data = xmalloc(f->len + 1);
        int fd = open(path, O_RDONLY);
        assert_int_equal(read(fd, f->data, f->len), f->len);
        (void)close(fd);
        fs.synced[file] = f->len;
    }
    put(&fs.now, path + scan_skip, file);
    put(&fs.durable, path + scan_skip, file);
    return 0;
}

/* ---- crashes */

enum crash { CRASH_KEEPS_PROMISES, CRASH_KEEPS_ALL, CRASH_KEEPS_SOME, CRASHES };

static int compare_entries(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->path, ((const struct entry *)b)->path);
}

/* The names that survive. */
static void choose_names(enum crash crash, uint64_t *seed, struct names *out)
{
    *out = crash == CRASH_KEEPS_ALL ? fs.now : fs.durable;
    if (crash == CRASH_KEEPS_SOME) {
        for (size_t i = 0; i < fs.now.count; i++) { /* made or changed since */
            const struct entry *e = &fs.now.items[i], *d = find(&fs.durable, e->path);
            if ((!d || d->file != e->file) && random_next(seed) % 2)
                put(out, e->path, e->file);
        }
        for (size_t i = 0; i < fs.durable.count; i++) /* removed since */
            if (!find(&fs.now, fs.durable.items[i].path) && random_next(seed) % 2)
                drop(out, fs.durable.items[i].path);
    }
    qsort(out->items, out->count, sizeof *out->items, compare_entries);
}

static void write_file(const char *path, int file, enum crash crash, uint64_t *seed)
{
    const struct bytes *f = &fs.files[file];
    size_t len = crash == CRASH_KEEPS_PROMISES ? fs.synced[file] : f->len, zeroes = 0;
    if (crash == CRASH_KEEPS_SOME && f->len > fs.synced[file]) {
        len = fs.synced[file] + random_next(seed) % (f->len - fs.synced[file] + 1);
        zeroes = random_next(seed) % 2 ? f->len - len : 0; /* the length came, the data did not */
    }
    FILE *out = fopen(path, "wb");
    if (!out)
        return; /* its directory did not survive */
    if (len > 0)
        assert_int_equal(fwrite(f->data, 1, len, out), len);
    for (size_t i = 0; i < zeroes; i++)
        assert_int_equal(fputc(0, out), 0);
    assert_int_equal(fclose(out), 0);
}

static void build(const char *root, enum crash crash, uint64_t *seed)
{
    static struct names names;
    choose_names(crash, seed, &names);
    assert_int_equal(mkdir(root, 0700), 0);
    for (size_t i = 0; i < names.count; i++) {
        char path[512];
        (void)snprintf(path, sizeof path, "%s/%s", root, names.items[i].path);
        if (names.items[i].file < 0)
            (void)mkdir(path, 0700);
        else
            write_file(path, names.items[i].file, crash, seed);
    }
}

/* ---- the story */

static const struct store_opts opts_small = {.pack_bytes = 16 << 20, .dedup_cache_bytes = 1 << 18};
enum { IMAGES = 5, IMAGE_BYTES = 5 << 18 /* two frames */ };
static struct disk_image images[IMAGES]; /* of points p.0, p.1, ... */

static bool all_dead(void *context, const char *session_id)
{
    (void)context;
    (void)session_id;
    return true;
}

static void back_up(struct store *store, unsigned n)
{
    struct err err = ERR_INIT;
    char id[16];
    (void)snprintf(id, sizeof id, "p.%u", n);
    MUST(backup_image(store, id, &images[n], NULL, NULL, &err), &err);
    say(OP_COMMITTED, id);
}

static void delete_point(struct store *store, unsigned n)
{
    struct err err = ERR_INIT;
    char id[16];
    (void)snprintf(id, sizeof id, "p.%u", n);
    say(OP_DELETING, id);
    MUST(store_point_delete(store, id, true, &err), &err);
}

/* The first pack of a session is durable, but not its name. */
static void wait_for_seal(const struct store *store, const char *session)
{
    uint8_t id[PACK_ID_BYTES];
    char path[64];
    struct stat st = {0};
    pack_id_of_session(store->repo_id, session, 0, id);
    pack_path(id, path);
    for (int i = 0; i < 3000; i++) {
        if (fstatat(store->dirfd, path, &st, 0) == 0 && (st.st_mode & 0222) == 0)
            return;
        clock_sleep_ms(clock_system(), 10);
    }
    fail_msg("%s was not sealed", path);
}

/* A point that consists of what an attempt has stored that was taken for dead, and then cleans up
 * behind itself. */
static void take_over(struct store *heirs, const char *path, unsigned n)
{
    struct err err = ERR_INIT;
    char id[16];
    (void)snprintf(id, sizeof id, "p.%u", n);
    struct store *store = store_open(path, &(struct store_opts){.pack_bytes = 64 << 10}, &err);
    struct store_session_opts opts = session_opts("dead.1"), heir_opts = session_opts(id);
    struct store_session *dead = store ? store_session_begin(store, &opts, &err) : NULL;
    MUST(dead && write_image(dead, &images[n], 0, NULL, NULL, &err), &err);
    wait_for_seal(store, "dead.1");
    bool was_committed;
    struct store_adopted adopted;
    struct store_session *heir = store_session_begin(heirs, &heir_opts, &err);
    MUST(heir && store_session_bequeath(heirs, "dead.1", &was_committed, &err) &&
             store_session_adopt(heir, "dead.1", &adopted, &err),
         &err);
    assert_true(adopted.packs > 0);
    MUST(write_image(heir, &images[n], 0, NULL, NULL, &err), &err);
    MUST(store_session_commit(heir, NULL, &err), &err);
    say(OP_COMMITTED, id);
    store_session_free(heir);
    store_session_free(dead);
    store_free(store);
}

/* Backups that share data, deletions, garbage, a compaction, a take-over, a scrub. */
static void tell_story(const char *path)
{
    struct err err = ERR_INIT;
    struct store *store = store_open(path, &opts_small, &err);
    struct store_collect_result r;
    struct store_collect_opts opts = {.compact_below_percent = 99};
    MUST(store, &err);
    back_up(store, 1);
    back_up(store, 2);
    delete_point(store, 0);
    MUST(store_collect(store, &opts, &r, &err), &err);
    back_up(store, 3);
    delete_point(store, 1);
    MUST(store_collect(store, &opts, &r, &err), &err);
    assert_true(r.packs_compacted > 0);
    take_over(store, path, 4);
    delete_point(store, 3);
    MUST(store_collect(store, &opts, &r, &err), &err);
    MUST(store_scrub(store, NULL, NULL, &err), &err);
    store_free(store);
}

static void make_images(void)
{
    for (unsigned n = 0; n < IMAGES; n++) {
        images[n] =
            (struct disk_image){.id = "d", .data = xmalloc(IMAGE_BYTES), .size = IMAGE_BYTES};
        fill_text(images[n].data, IMAGE_BYTES, n + 1);
        if (n > 0) /* a part of one frame of the one before: packs to be compacted */
            memcpy(images[n].data, images[n - 1].data + (1 << 19), 1 << 17);
    }
}

/* ---- examining what a crash left */

struct expected {
    bool committed[IMAGES], deleting[IMAGES];
};

static void check_all_listed(struct store *store, const struct expected *expected, size_t op)
{
    struct err err = ERR_INIT;
    struct store_point_list list;
    bool listed[IMAGES] = {false};
    MUST(store_points_list(store, NULL, &list, &err), &err);
    for (size_t i = 0; i < list.count; i++) {
        unsigned n = (unsigned)(list.items[i].id[2] - '0');
        assert_true(n < IMAGES);
        if (list.items[i].damage)
            fail_msg("op %zu: %s: %s", op, list.items[i].id, list.items[i].damage);
        if (!check_image(store, list.items[i].id, &images[n], &err))
            fail_msg("op %zu: %s: %s", op, list.items[i].id, err.message);
        listed[n] = true;
    }
    for (unsigned n = 0; n < IMAGES; n++)
        if (expected->committed[n] && !expected->deleting[n] && !listed[n])
            fail_msg("op %zu: point p.%u is lost", op, n);
    store_point_list_done(&list);
}

static void examine(const char *root, const struct expected *expected, size_t op)
{
    struct err err = ERR_INIT;
    struct store_collect_opts opts = {.is_dead = all_dead};
    struct store_collect_result r;
    struct store *store = store_open(root, &opts_small, &err);
    MUST(store, &err);
    check_all_listed(store, expected, op);
    for (int i = 0; i < 2; i++) /* what the first run sweeps may let the second one see more */
        MUST(store_collect(store, &opts, &r, &err), &err);
    if (r.blocked[0] != '\0' || r.packs_held > 0)
        fail_msg("op %zu: %llu packs held, %s", op, (unsigned long long)r.packs_held, r.blocked);
    if (count_files(root, "sessions/") + count_files(root, "pins/") > 0)
        fail_msg("op %zu: leftovers of sessions", op);
    check_all_listed(store, expected, op);
    store_free(store);
}

static void expect(struct expected *expected, const struct op *op)
{
    unsigned n = (unsigned)(op->path[2] - '0');
    if (op->kind == OP_COMMITTED)
        expected->committed[n] = true;
    else if (op->kind == OP_DELETING)
        expected->deleting[n] = true;
}

static void test_power_loss_after_each_call(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    SCOPED_FREE char *dir = temp_dir();
    SCOPED_FREE char *path = xasprintf("%s/repo", dir);
    SCOPED_FREE char *crashed = xasprintf("%s/crashed", dir);
    make_images();
    struct store *store = store_init(path, &opts_small, &err);
    MUST(store, &err);
    MUST(backup_image(store, "p.0", &images[0], NULL, NULL, &err), &err);
    store_free(store);
    recorder.ops = xcalloc(OPS_MAX, sizeof *recorder.ops);
    scan_skip = strlen(path) + 1;
    assert_int_equal(nftw(path, scan_entry, 16, FTW_PHYS), 0);
    recorder.is_on = true;
    tell_story(path);
    recorder.is_on = false;

    struct expected expected = {.committed = {true}};
    uint64_t seed = 11;
    for (size_t i = 0; i < recorder.n_ops; i++) {
        play(&recorder.ops[i]);
        expect(&expected, &recorder.ops[i]);
        for (int crash = 0; crash < CRASHES; crash++) {
            build(crashed, (enum crash)crash, &seed);
            examine(crashed, &expected, i);
            remove_tree(crashed);
        }
    }
    print_message("%zu calls, %zu crashes\n", recorder.n_ops, recorder.n_ops * CRASHES);
    assert_true(recorder.n_ops > 200);
    remove_tree(dir);
    for (size_t i = 0; i < recorder.n_ops; i++)
        free(recorder.ops[i].data);
    free(recorder.ops);
    for (int i = 0; i < recorder.n_files; i++)
        free(fs.files[i].data);
    for (unsigned n = 0; n < IMAGES; n++)
        free(images[n].data);
}

int main(void)
{
    struct statvfs vfs;
    if (access("/dev/shm", W_OK) == 0 && statvfs("/dev/shm", &vfs) == 0 &&
        vfs.f_bavail * vfs.f_frsize > (256u << 20))
        (void)setenv("TMPDIR", "/dev/shm", 0);
    log_set_level(LOG_LEVEL_ERROR);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_power_loss_after_each_call)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

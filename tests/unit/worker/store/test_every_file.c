/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every kind of file that a repository has, with every bit flipped and cut at every length. The
 * table `kinds` says of each kind who notices and what becomes of it; a file that is in no row
 * fails the test, so that a new kind cannot be forgotten.
 *
 * Of a kind that is refused, its reader must fail, with an error that names the file or its point.
 * A kind that is harmless must change nothing: only its name counts, or it has a second copy, or
 * what is lost is done again. What is wrong with the ends of a pack (all but its frames) is
 * repaired, to the very bytes; single bits in frames: test_scrub.
 *
 * The first file of a kind is taken whole (packs: all but the insides of frames); of encrypted
 * repositories, and of further files of a kind, a sample.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/file.h"
#include "proto/base/log.h"
#include "support.h"
#include "worker/store/bytes.h"
#include "worker/store/fate.h"
#include "worker/store/gc/collect.h"
#include "worker/store/gc/damage.h"
#include "worker/store/gc/repair.h"
#include "worker/store/index.h"
#include "worker/store/packfile.h"
#include "worker/store/sessions.h"

enum { BLOCK = STORE_BLOCK_BYTES, DATA_BYTES = 7 * BLOCK + 123, SCRUB_SHARE = 3 };

struct scene {
    char *dir, *path, *key_file, *other_key_file; /* NULL: not encrypted */
    struct disk_image image, moved;
    struct store *writer;
    struct store_session *open; /* "open.1", which pins the pack of point.1 */
    uint8_t marked[PACK_ID_BYTES];
};

/* ---- a repository that has everything */

static struct store *open_with(const struct scene *s, const char *key_file, struct err *err)
{
    const struct store_opts opts = {.key_file = key_file};
    return store_open(s->path, &opts, err);
}

static void change_byte(const char *path, off_t at, uint8_t mask)
{
    uint8_t byte;
    assert_int_equal(chmod(path, 0600), 0);
    SCOPED_FD int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= mask;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
}

/* The pack that came to be since `before`. The caller frees. */
static char *new_pack(const struct scene *s, const struct file_list *before)
{
    struct file_list now = list_files(s->path);
    char *found = NULL;
    for (size_t i = 0; i < now.count && !found; i++) {
        bool is_old = strncmp(now.items[i], "packs/", 6) != 0;
        for (size_t k = 0; k < before->count && !is_old; k++)
            is_old = strcmp(before->items[k], now.items[i]) == 0;
        if (!is_old)
            found = xasprintf("%s/%s", s->path, now.items[i]);
    }
    file_list_done(&now);
    assert_non_null(found);
    return found;
}

/* A point of one disk; the path of its pack, which the caller frees. */
static char *back_up(struct scene *s, const char *id, const struct disk_image *image)
{
    struct err err = ERR_INIT;
    struct file_list before = list_files(s->path);
    MUST(backup_image(s->writer, id, image, NULL, NULL, &err), &err);
    char *pack = new_pack(s, &before);
    file_list_done(&before);
    return pack;
}

static void scrub(struct scene *s, unsigned share)
{
    struct err err = ERR_INIT;
    SCOPED(store) struct store *store = open_with(s, s->key_file, &err);
    MUST(store, &err);
    const struct store_scrub_opts opts = {.share = share};
    MUST(store_scrub(store, &opts, NULL, &err), &err);
}

/* A deleted point, whose pack was marked and collected; a session that was declared dead. */
static void make_dead(struct scene *s)
{
    struct err err = ERR_INIT;
    bool was_committed;
    struct disk_image image = {.id = "d", .data = xmalloc(BLOCK), .size = BLOCK};
    fill_random(image.data, BLOCK, 20);
    SCOPED_FREE char *pack = back_up(s, "gone.1", &image);
    MUST(store_point_delete(s->writer, "gone.1", true, &err), &err);
    MUST(store_collect(s->writer, NULL, NULL, &err), &err);
    assert_int_equal(access(pack, F_OK), -1);
    MUST(store_session_revoke(s->writer, "dead.1", &was_committed, &err), &err);
    MUST(store_session_bequeath(s->writer, "left.1", &was_committed, &err), &err);
    free(image.data);
}

/* A point whose pack is gone, and is known to be; a pack that was healed. */
static void make_damage(struct scene *s)
{
    struct err err = ERR_INIT;
    struct disk_image image = {.id = "d", .data = xmalloc(BLOCK), .size = BLOCK};
    fill_random(image.data, BLOCK, 30);
    SCOPED_FREE char *lost = back_up(s, "hurt.1", &image);
    SCOPED_FREE char *moved = back_up(s, "moved.1", &s->moved);
    assert_int_equal(unlink(lost), 0);
    change_byte(moved, PACK_HEADER_BYTES + FRAME_HEADER_BYTES + 100, 4);
    char hex[2 * PACK_ID_BYTES + 1];
    (void)snprintf(hex, sizeof hex, "%s", strrchr(lost, '/') + 1);
    assert_true(hex_decode(hex, s->marked, PACK_ID_BYTES));
    scrub(s, 0);
    scrub(s, SCRUB_SHARE); /* a cursor that is not at the beginning */
    MUST(check_image(s->writer, "moved.1", &s->moved, &err), &err);
    free(image.data);
    /* Somebody died who was about to delete it. */
    assert_int_equal(linkat(s->writer->dirfd, "fate/moved.1", s->writer->dirfd,
                            "deleting/moved.1.0123456789abcdef", 0),
                     0);
}

static void begin_open(struct scene *s)
{
    struct err err = ERR_INIT;
    struct store_session_opts opts = session_opts("open.1");
    s->open = store_session_begin(s->writer, &opts, &err);
    MUST(s->open, &err);
    MUST(write_image(s->open, &s->image, 0, NULL, NULL, &err), &err);
}

static int setup_scene(void **state, bool encrypt)
{
    struct scene *s = ALLOC_NEW(struct scene);
    struct err err = ERR_INIT;
    char id[STORE_KEY_ID_CHARS + 1];
    log_set_level(LOG_LEVEL_ERROR);
    s->dir = temp_dir();
    s->path = xasprintf("%s/repo", s->dir);
    if (encrypt) {
        s->key_file = make_key_file(s->dir, "key");
        s->other_key_file = make_key_file(s->dir, "other");
    }
    s->image = (struct disk_image){.id = "d", .data = xcalloc(1, DATA_BYTES), .size = DATA_BYTES};
    fill_text(s->image.data, 3 * BLOCK, 1); /* a hole in the middle: two records */
    fill_text(s->image.data + 5 * BLOCK, DATA_BYTES - 5 * BLOCK, 2);
    s->moved = (struct disk_image){.id = "d", .data = xmalloc(2 * BLOCK), .size = 2 * BLOCK};
    fill_text(s->moved.data, 2 * BLOCK, 3);
    const struct store_opts opts = {.key_file = s->key_file, .encrypt = encrypt};
    s->writer = store_init(s->path, &opts, &err);
    MUST(s->writer, &err);
    const struct store_key_opts other = {.key_file = s->other_key_file, .label = "other"};
    if (encrypt)
        MUST(store_key_add(s->writer, &other, id, &err), &err);
    SCOPED_FREE char *pack = back_up(s, "point.1", &s->image);
    MUST(store_point_protect(s->writer, "point.1", &err), &err);
    make_dead(s);
    make_damage(s);
    begin_open(s);
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
    store_session_free(s->open);
    store_free(s->writer);
    remove_tree(s->dir);
    free(s->image.data);
    free(s->moved.data);
    free(s->dir);
    free(s->path);
    free(s->key_file);
    free(s->other_key_file);
    free(s);
    return 0;
}

/* ---- judges: false with an error when the damage of a file is noticed; true when all is as if
 * there were none, which they check themselves */

static bool judge_repository(const struct scene *s, const char *name, struct err *err)
{
    (void)name;
    SCOPED(store) struct store *store = open_with(s, s->key_file, err);
    return store != NULL;
}

static bool check_point(struct store *store, const char *id, const struct disk_image *image,
                        struct err *err)
{
    SCOPED(store_point) struct store_point *point = store_point_open(store, id, err);
    SCOPED_BUF struct buf blob = {0};
    if (!point || !check_image(store, id, image, err) ||
        !store_point_blob(point, "vm.json", &blob, err))
        return false;
    assert_string_equal(buf_str(&blob), "{}");
    return true;
}

/* Read everything as a restore would. Wrong data fails the test. */
static bool judge_points(const struct scene *s, const char *name, struct err *err)
{
    (void)name;
    SCOPED(store) struct store *store = open_with(s, s->key_file, err);
    return store && check_point(store, "point.1", &s->image, err) &&
           check_point(store, "moved.1", &s->moved, err);
}

static bool is_listed(struct store *store, const char *id, bool *ret_damaged)
{
    struct err err = ERR_INIT;
    struct store_point_list list;
    bool found = false;
    MUST(store_points_list(store, NULL, &list, &err), &err);
    for (size_t i = 0; i < list.count; i++) {
        if (strcmp(list.items[i].id, id) != 0)
            continue;
        found = true;
        *ret_damaged = list.items[i].damage != NULL;
    }
    store_point_list_done(&list);
    return found;
}

/* Of a session that was declared dead, by a revocation or a bequest: it never becomes a point that
 * could be read, and its writer does not begin again. */
static bool judge_revocation(const struct scene *s, const char *name, struct err *err)
{
    const char *id = strchr(name, '/') + 1;
    enum store_fate fate;
    struct err why = ERR_INIT;
    bool is_damaged = false;
    SCOPED(store) struct store *store = open_with(s, s->key_file, err);
    if (!store)
        return false;
    assert_null(store_point_open(store, id, &why));
    err_clear(&why);
    static unsigned calls;
    if (calls++ % 100 == 0) { /* it syncs */
        struct store_session_opts opts = session_opts(id);
        assert_null(store_session_begin(store, &opts, &why));
    }
    assert_true(!is_listed(store, id, &is_damaged) || is_damaged);
    if (!store_session_fate(store, id, &fate, err))
        return false;
    assert_int_equal(fate, STORE_FATE_REVOKED);
    return true;
}

/* A deleted point stays deleted, and does not hold up the collector. */
static bool judge_deleted(const struct scene *s, const char *name, struct err *err)
{
    (void)name;
    struct view v;
    bool is_damaged;
    SCOPED(store) struct store *store = open_with(s, s->key_file, err);
    if (!store)
        return false;
    assert_false(is_listed(store, "gone.1", &is_damaged));
    view_init(&v, store, false);
    MUST(view_look(&v, err), err);
    assert_string_equal(v.blocked, "");
    view_done(&v);
    return true;
}

static bool judge_protection(const struct scene *s, const char *name, struct err *err)
{
    (void)name;
    SCOPED(store) struct store *store = open_with(s, s->key_file, err);
    if (!store)
        return false;
    MUST_FAIL(store_point_delete(store, "point.1", true, err), err, ERR_REFUSED);
    return true;
}

/* That a point was about to be deleted means nothing. */
static bool judge_deletion(const struct scene *s, const char *name, struct err *err)
{
    (void)name;
    bool is_damaged;
    SCOPED(store) struct store *store = open_with(s, s->key_file, err);
    if (!store)
        return false;
    assert_true(is_listed(store, "moved.1", &is_damaged));
    return true;
}

/* An index is an accelerator (test_corruption: the next backup is right without it). */
static bool judge_index(const struct scene *s, const char *name, struct err *err)
{
    struct index ix;
    SCOPED_BUF struct buf bytes;
    SCOPED(store) struct store *store = open_with(s, s->key_file, err);
    if (!store || !object_read(store->dirfd, name, INDEX_BYTES_MAX, &bytes, err) ||
        !(index_decode((const uint8_t *)buf_str(&bytes), bytes.len, store->repo_id, &ix, err) ||
          err_wrap(err, "'%s'", name)))
        return false;
    index_done(&ix);
    return true;
}

static bool judge_announcement(const struct scene *s, const char *name, struct err *err)
{
    struct store_session_list open;
    SCOPED(store) struct store *store = open_with(s, s->key_file, err);
    if (!store)
        return false;
    MUST(store_sessions_open(store, &open, err), err);
    assert_int_equal(open.count, 1);
    assert_string_equal(open.ids[0], strchr(name, '/') + 1);
    store_session_list_done(&open);
    return true;
}

/* What pins can no longer say, they say of everything. */
static bool judge_pin(const struct scene *s, const char *name, struct err *err)
{
    struct view v;
    SCOPED(store) struct store *store = open_with(s, s->key_file, err);
    if (!store)
        return false;
    view_init(&v, store, false);
    MUST(view_look(&v, err), err);
    const uint8_t any[PACK_ID_BYTES] = {1, 2, 3};
    bool holds_all = v.pins_everything && view_is_pinned(&v, any);
    assert_true(holds_all || v.n_pinned > 0);
    view_done(&v);
    return !holds_all || err_set(err, ERR_STORE_CORRUPT, 0, "'%s' pins everything", name);
}

/* Whatever one copy has lost, what was marked stays so. */
static bool judge_marks(const struct scene *s, const char *name, struct err *err)
{
    (void)name;
    SCOPED(store) struct store *store = open_with(s, s->key_file, err);
    if (!store)
        return false;
    MUST(marks_refresh(store->marks, store->dirfd, store->repo_id, err), err);
    assert_int_equal(marks_of_pack(store->marks, s->marked), MARKED_ALL);
    return true;
}

static bool judge_damage(const struct scene *s, const char *name, struct err *err)
{
    struct damage d;
    bool is_damaged = false;
    const char *point = strchr(name, '/') + 1;
    SCOPED(store) struct store *store = open_with(s, s->key_file, err);
    if (!store)
        return false;
    assert_true(is_listed(store, point, &is_damaged) && is_damaged);
    MUST(damage_read(store, point, &d, err), err);
    bool is_unreadable = d.is_unreadable;
    damage_done(&d);
    return !is_unreadable || err_set(err, ERR_STORE_CORRUPT, 0, "'%s' cannot be read", name);
}

/* A cursor that is lost begins at the first pack. */
static bool judge_cursor(const struct scene *s, const char *name, struct err *err)
{
    SCOPED(store) struct store *store = open_with(s, s->key_file, err);
    if (!store)
        return false;
    uint32_t at = scrub_cursor_read(store);
    assert_true(at == 0 || at == ((1 << 16) + SCRUB_SHARE - 1) / SCRUB_SHARE);
    return at != 0 || err_set(err, ERR_STORE_CORRUPT, 0, "'%s' was lost", name);
}

/* The object's own key opens nothing any more, the other one still does. */
static bool judge_key(const struct scene *s, const char *name, struct err *err)
{
    struct err why = ERR_INIT;
    SCOPED(store) struct store *one = open_with(s, s->key_file, &why);
    SCOPED(store) struct store *two = open_with(s, s->other_key_file, &why);
    assert_true(one || two);
    struct store_key_list list;
    MUST(store_keys_list(one ? one : two, &list, err), err);
    for (size_t i = 0; i < list.count; i++) {
        bool is_it = strncmp(list.items[i].id, name + 5, STORE_KEY_ID_CHARS) == 0;
        assert_true(is_it || !list.items[i].damage);
        if (is_it && list.items[i].damage)
            err_set(err, ERR_STORE_KEY, 0, "'%s': %s", name, list.items[i].damage);
    }
    store_key_list_done(&list);
    assert_true((one && two) == !err_is_set(err));
    return !err_is_set(err);
}

/* ---- the table */

enum outcome {
    REFUSED,
    HARMLESS, /* only the name counts, or there is a second copy */
};
struct kind {
    const char *prefix, *suffix;
    bool (*judge)(const struct scene *s, const char *name, struct err *err);
    enum outcome outcome;
    const char *subject;  /* what the error names; NULL: the file's name without its folder */
    bool newline_is_free; /* the JSON with a checksum of its own may lose its final newline */
    bool must_be_there;   /* it is noticed when the file is missing */
    bool only_encrypted;
    unsigned files; /* seen */
};

static const struct kind all_kinds[] = {
    {"repo.json", "", judge_repository, REFUSED, "repo", true, true, false, 0},
    {"keys/", ".json", judge_key, REFUSED, NULL, true, false, true, 0},
    {"packs/", ".pk", judge_points, REFUSED, NULL, false, true, false, 0},
    {"manifests/point.1/", ".mf", judge_points, REFUSED, "point.1", false, true, false, 0},
    {"manifests/moved.1/", ".mf", judge_points, REFUSED, "moved.1", false, true, false, 0},
    {"manifests/point.1/", "point.json", judge_points, REFUSED, "point.1", false, true, false, 0},
    {"manifests/moved.1/", "point.json", judge_points, REFUSED, "moved.1", false, true, false, 0},
    {"manifests/point.1/", "vm.json", judge_points, REFUSED, "point.1", false, true, false, 0},
    {"manifests/moved.1/", "vm.json", judge_points, REFUSED, "moved.1", false, true, false, 0},
    {"fate/dead.1", "", judge_revocation, REFUSED, NULL, false, false, false, 0},
    {"fate/left.1", "", judge_revocation, REFUSED, NULL, false, false, false, 0},
    {"fate/gone.1", "", judge_deleted, HARMLESS, NULL, false, false, false, 0},
    {"fate/point.1", "", judge_points, REFUSED, NULL, false, true, false, 0},
    {"fate/moved.1", "", judge_points, REFUSED, NULL, false, true, false, 0},
    {"index/", ".ix", judge_index, REFUSED, NULL, false, false, false, 0},
    {"sessions/", "", judge_announcement, HARMLESS, NULL, false, false, false, 0},
    {"deleted/", "", judge_deleted, HARMLESS, NULL, false, false, false, 0},
    {"deleting/", "", judge_deletion, HARMLESS, NULL, false, false, false, 0},
    {"pins/", "", judge_pin, REFUSED, NULL, false, false, false, 0},
    {"marks/", "", judge_marks, HARMLESS, NULL, false, false, false, 0},
    {"protected/", "", judge_protection, HARMLESS, NULL, false, false, false, 0},
    {"damage/", "", judge_damage, REFUSED, NULL, true, false, false, 0},
    {"scrub/cursor", "", judge_cursor, REFUSED, NULL, false, false, false, 0},
    /* Of the point that is damaged from the start, only that damage/ tells it. */
    {"manifests/hurt.1/", "", NULL, REFUSED, NULL, false, false, false, 0},
    {"fate/hurt.1", "", NULL, REFUSED, NULL, false, false, false, 0},
};
enum { KINDS = ARRAY_LEN(all_kinds) };

static bool has_suffix(const char *name, const char *suffix)
{
    size_t n = strlen(name), m = strlen(suffix);
    return n >= m && strcmp(name + n - m, suffix) == 0;
}

static struct kind *kind_of(struct kind *kinds, const char *name)
{
    for (size_t i = 0; i < KINDS; i++)
        if (strncmp(name, kinds[i].prefix, strlen(kinds[i].prefix)) == 0 &&
            has_suffix(name, kinds[i].suffix))
            return &kinds[i];
    fail_msg("'%s' is of a new kind: say in the table who notices that it is damaged", name);
    abort(); /* not reached; for analysers */
}

/* A file under attack. */
struct victim {
    const struct scene *s;
    const struct kind *kind;
    const char *name;
    char *path, *subject;
    struct buf whole;
    const uint8_t *intact;   /* a copy */
    bool is_pack, is_sample; /* sample: one bit of each third byte */
};

/* In place: a file that was empty in between is flushed by some file systems. */
static void put_bytes(const struct victim *v, const void *data, size_t len)
{
    SCOPED_FD int fd = open(v->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, data, len, 0), len);
    assert_int_equal(ftruncate(fd, (off_t)len), 0);
}

static void must_be_well(const struct victim *v)
{
    struct err err = ERR_INIT;
    MUST(v->kind->judge(v->s, v->name, &err), &err);
}

/* The other readers must stand it, too: they may fail or not, but not crash. */
static void list_and_verify(const struct victim *v)
{
    struct err err = ERR_INIT;
    SCOPED(store) struct store *store = open_with(v->s, v->s->key_file, &err);
    struct store_point_list list;
    if (!store)
        return;
    if (store_points_list(store, NULL, &list, &err)) {
        assert_true(list.count >= 3); /* damaged or fine, but not lost */
        store_point_list_done(&list);
    }
    err_clear(&err);
    (void)store_verify_point(store, "point.1", NULL, NULL, &err);
}

static void judge(struct victim *v, const char *what, size_t at, unsigned bit)
{
    struct err err = ERR_INIT;
    bool well = v->kind->judge(v->s, v->name, &err);
    if (v->kind->outcome == HARMLESS) {
        MUST(well, &err);
        return;
    }
    if (well)
        fail_msg("%s: %s %zu.%u: not noticed", v->name, what, at, bit);
    if (err.code != ERR_STORE_CORRUPT && err.code != ERR_STORE_VERSION && err.code != ERR_IO &&
        err.code != ERR_STORE_KEY)
        fail_msg("%s: %s %zu.%u: %s: %s", v->name, what, at, bit, err_code_name(err.code),
                 err.message);
    if (!strstr(err.message, v->subject))
        fail_msg("%s: %s %zu.%u: not named: %s", v->name, what, at, bit, err.message);
}

/* Whether a byte of a pack is one that stands for many: data inside of frames. */
static bool is_left_out(const struct victim *v, size_t at)
{
    size_t len = v->whole.len;
    return v->is_pack && at > PACK_HEADER_BYTES + FRAME_HEADER_BYTES && at < len - 700 &&
           at % 61 != 0;
}

/* The frames of a pack, which begin after the header, end here. */
static size_t frames_end(const struct victim *v)
{
    size_t at = PACK_HEADER_BYTES;
    while (get_u32(v->intact + at) == get_u32((const uint8_t *)"OXFR"))
        at += FRAME_HEADER_BYTES + get_u32(v->intact + at + 8);
    return at;
}

/* What is cut off from here on can be made again: leaves, of the footer of a pack that was never
 * relocated, from its frames; and the trailer. Where chunks end, the footer alone says. */
static size_t cut_end(const struct victim *v)
{
    size_t end = v->whole.len - TRAILER_BYTES;
    const uint8_t *footer = v->intact + get_u64(v->intact + end + 8);
    bool is_relocated = get_u32(v->intact + 12) != 0;
    return v->s->key_file || is_relocated ? end : end - (size_t)get_u32(footer + 20) * LEAF_BYTES;
}

/* Damage to a pack's ends is undone: the file is what it was, byte for byte. */
static void must_be_repaired(struct victim *v, const char *what, size_t at)
{
    struct view view;
    struct err err = ERR_INIT;
    uint8_t id[PACK_ID_BYTES];
    char hex[2 * PACK_ID_BYTES + 1];
    bool done = false;
    SCOPED_BUF struct buf now;
    SCOPED(store) struct store *store = open_with(v->s, v->s->key_file, &err);
    MUST(store, &err);
    (void)snprintf(hex, sizeof hex, "%s", v->subject);
    assert_true(hex_decode(hex, id, sizeof id));
    view_init(&view, store, false);
    MUST(view_look(&view, &err), &err);
    MUST(pack_repair(store, &usage_find(view.usage, id)->ref, &done, &err), &err);
    view_done(&view);
    if (!done)
        fail_msg("%s: %s %zu: not repaired", v->name, what, at);
    MUST(file_read_all(AT_FDCWD, v->path, 1 << 20, &now, &err), &err);
    if (now.len != v->whole.len || memcmp(now.data, v->intact, now.len) != 0)
        fail_msg("%s: %s %zu: repaired in another way", v->name, what, at);
    assert_int_equal(chmod(v->path, 0600), 0);
}

static void flip(struct victim *v, size_t at, unsigned bit)
{
    uint8_t *data = (uint8_t *)v->whole.data;
    data[at] ^= (uint8_t)(1u << bit);
    put_bytes(v, data, v->whole.len);
    judge(v, "flip", at, bit);
    if (v->is_pack && at % 3 == 0 && (at < PACK_HEADER_BYTES || at >= frames_end(v)))
        must_be_repaired(v, "flip", at);
    if (at % 16 == bit)
        list_and_verify(v);
    data[at] ^= (uint8_t)(1u << bit);
}

static void flip_all(struct victim *v)
{
    for (size_t at = 0; at < v->whole.len; at++) {
        if (is_left_out(v, at) || (v->is_sample && at % 3 != 0))
            continue;
        for (unsigned bit = 0; bit < 8; bit++)
            if ((!v->is_pack && !v->is_sample) || bit == at % 8)
                flip(v, at, bit);
    }
    put_bytes(v, v->whole.data, v->whole.len);
    must_be_well(v);
}

static void cut_all(struct victim *v)
{
    size_t len = v->whole.len;
    for (size_t cut = 0; cut < len; cut++) {
        if (is_left_out(v, cut) || (v->is_sample && cut % 5 != 0))
            continue;
        if (v->kind->newline_is_free && cut == len - 1)
            continue;
        put_bytes(v, v->whole.data, cut);
        judge(v, "cut to", cut, 0);
        if (v->is_pack && cut % 5 == 0 && cut >= cut_end(v))
            must_be_repaired(v, "cut to", cut);
        if (cut % 16 == 0)
            list_and_verify(v);
    }
    /* Too long is as wrong as too short. */
    SCOPED_FREE uint8_t *longer = xmalloc(len + 1);
    memcpy(longer, v->whole.data, len);
    longer[len] = 'x';
    put_bytes(v, longer, len + 1);
    judge(v, "too long", len + 1, 0);
    if (v->is_pack)
        must_be_repaired(v, "too long", len);
    if (v->kind->must_be_there) {
        struct err err = ERR_INIT;
        assert_int_equal(unlink(v->path), 0);
        assert_false(v->kind->judge(v->s, v->name, &err));
    }
    put_bytes(v, v->whole.data, len);
    must_be_well(v);
}

static void attack(const struct scene *s, struct kind *kind, const char *name)
{
    struct err err = ERR_INIT;
    const char *base = strrchr(name, '/') ? strrchr(name, '/') + 1 : name;
    struct victim v = {.s = s,
                       .kind = kind,
                       .name = name,
                       .path = xasprintf("%s/%s", s->path, name),
                       .subject = xstrdup(kind->subject ? kind->subject : base),
                       .is_pack = strncmp(name, "packs/", 6) == 0,
                       .is_sample = s->key_file || kind->files > 1 || strstr(name, "moved.1")};
    MUST(file_read_all(AT_FDCWD, v.path, 1 << 20, &v.whole, &err), &err);
    SCOPED_FREE uint8_t *intact = xmalloc(v.whole.len);
    memcpy(intact, v.whole.data, v.whole.len);
    v.intact = intact;
    assert_int_equal(chmod(v.path, 0600), 0);
    must_be_well(&v);
    flip_all(&v);
    cut_all(&v);
    buf_done(&v.whole);
    free(v.path);
    free(v.subject);
}

static void test_every_damage_to_every_kind_of_file(void **state)
{
    const struct scene *s = *state;
    struct kind kinds[KINDS];
    memcpy(kinds, all_kinds, sizeof kinds);
    struct file_list files = list_files(s->path);
    for (size_t i = 0; i < files.count; i++) {
        struct kind *kind = kind_of(kinds, files.items[i]);
        kind->files++;
        if (kind->judge)
            attack(s, kind, files.items[i]);
    }
    file_list_done(&files);
    for (size_t i = 0; i < KINDS; i++)
        if (kinds[i].files == 0 && (s->key_file || !kinds[i].only_encrypted))
            fail_msg("the repository of this test has no '%s*%s'", kinds[i].prefix,
                     kinds[i].suffix);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_damage_to_every_kind_of_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_damage_to_every_kind_of_file, setup_encrypted,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

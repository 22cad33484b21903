/* SPDX-License-Identifier: Apache-2.0 */
/* Encrypted repositories: keys, what each of them lets one do, and what can be done without. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/file.h"
#include "proto/base/log.h"
#include "support.h"
#include "worker/store/fate.h"
#include "worker/store/keys.h"
#include "worker/store/packfile.h"
#include "worker/store/reader.h"
#include "worker/store/sha256x16.h"
#include "worker/store/upkeep.h"

enum { BLOCK = STORE_BLOCK_BYTES, DATA_BYTES = 600 * BLOCK + 99, FAST = 14 /* scrypt */ };
static const char blob_text[] = "<ovf>the secret of the machine</ovf>";

struct scene {
    char *dir, *path, *key_file;
    struct disk_image image;
};

static struct store *open_with(const struct scene *s, const char *key_file, struct err *err)
{
    return store_open(s->path, &(struct store_opts){.key_file = key_file}, err);
}

static bool backup(struct store *store, const char *id, const struct disk_image *image,
                   struct store_reader *parent, struct store_stats *stats, struct err *err)
{
    struct store_session_opts opts = session_opts(id);
    SCOPED(store_session) struct store_session *session = store_session_begin(store, &opts, err);
    json_t *meta = json_pack("{s:s}", "note", "meta that nobody else may read");
    bool ok = session && write_image(session, image, 0, parent, stats, err) &&
              store_session_put_blob(session, "vm.ovf", blob_text, strlen(blob_text), err) &&
              store_session_commit(session, meta, err);
    json_decref(meta);
    return ok;
}

static int setup(void **state)
{
    struct scene *s = ALLOC_NEW(struct scene);
    struct err err = ERR_INIT;
    log_set_level(LOG_LEVEL_ERROR);
    s->dir = temp_dir();
    s->path = xasprintf("%s/repo", s->dir);
    s->key_file = make_key_file(s->dir, "key");
    s->image = (struct disk_image){.id = "d", .data = xcalloc(1, DATA_BYTES), .size = DATA_BYTES};
    fill_text(s->image.data, 200 * BLOCK, 1);
    fill_random(s->image.data + 250 * BLOCK, DATA_BYTES - 250 * BLOCK, 2);
    struct store_opts opts = {.encrypt = true, .key_file = s->key_file};
    SCOPED(store) struct store *store = store_init(s->path, &opts, &err);
    MUST(store, &err);
    MUST(backup(store, "first.1", &s->image, NULL, NULL, &err), &err);
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
    free(s->key_file);
    free(s);
    return 0;
}

static struct store_reader *open_disk(struct store *store, const char *point_id)
{
    struct err err = ERR_INIT;
    SCOPED(store_point) struct store_point *point = store_point_open(store, point_id, &err);
    MUST(point, &err);
    struct store_reader *reader = store_disk_open(point, "d", &err);
    MUST(reader, &err);
    return reader;
}

/* ---- round trips */

static void test_backup_and_restore(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    SCOPED(store) struct store *store = open_with(s, s->key_file, &err);
    MUST(store, &err);
    assert_true(store_is_encrypted(store) && store_can_restore(store));
    MUST(check_image(store, "first.1", &s->image, &err), &err);
    SCOPED(store_reader) struct store_reader *parent = open_disk(store, "first.1");
    fill_text(s->image.data + 10 * BLOCK, BLOCK, 3);
    struct store_stats stats;
    MUST(backup(store, "second.1", &s->image, parent, &stats, &err), &err);
    assert_int_equal(stats.stored_raw_bytes, BLOCK); /* keyed leaves compare as plain ones do */
    MUST(backup(store, "third.1", &s->image, NULL, &stats, &err), &err);
    assert_int_equal(stats.zero_bytes, 50 * BLOCK);
    assert_true(stats.stored_raw_bytes <= 64 * BLOCK); /* and chunks are found by keyed ids */
    MUST(check_image(store, "second.1", &s->image, &err), &err);
    MUST(check_image(store, "third.1", &s->image, &err), &err);
    struct store_verify_result result;
    MUST(store_verify_point(store, "second.1", NULL, &result, &err), &err);
    assert_false(result.sums_only);
    SCOPED(store_point) struct store_point *point = store_point_open(store, "third.1", &err);
    MUST(point, &err);
    assert_string_equal(store_point_info(point)->vm_name, "web one");
    assert_string_equal(json_string_value(json_object_get(store_point_meta(point), "note")),
                        "meta that nobody else may read");
    SCOPED_BUF struct buf blob;
    MUST(store_point_blob(point, "vm.ovf", &blob, &err), &err);
    assert_string_equal(buf_str(&blob), blob_text);
}

/* A second process finds the chunks by the index, whose hooks are of keyed ids. */
static void test_deduplication_by_the_index(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    SCOPED(store) struct store *store = open_with(s, s->key_file, &err);
    struct store_stats stats;
    MUST(store && backup(store, "again.1", &s->image, NULL, &stats, &err), &err);
    assert_int_equal(stats.stored_raw_bytes, 0);
}

static bool contains(const struct buf *hay, const void *needle, size_t len)
{
    return hay->len >= len && memmem(hay->data, hay->len, needle, len);
}

static void test_nothing_lies_in_clear(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    struct file_list files = list_files(s->path);
    /* What each would look like in clear is looked for in every file; blocks that zstd cannot
     * shrink are stored as they are. */
    for (size_t i = 0; i < files.count; i++) {
        SCOPED_FREE char *path = xasprintf("%s/%s", s->path, files.items[i]);
        SCOPED_BUF struct buf bytes;
        MUST(file_read_all(AT_FDCWD, path, 16 << 20, &bytes, &err), &err);
        assert_false(contains(&bytes, "web one", 7));
        assert_false(contains(&bytes, "nobody else", 11));
        assert_false(contains(&bytes, "secret of", 9));
        assert_false(contains(&bytes, s->image.data + 300 * BLOCK, 64));
        struct hasher *h = hasher_new(NULL);
        uint8_t leaf[DIGEST_BYTES];
        hasher_leaf(h, s->image.data, leaf);
        hasher_free(h);
        assert_false(contains(&bytes, leaf, 8));
    }
    assert_true(files.count >= 7);
    file_list_done(&files);
}

/* ---- refusals */

static void test_wrong_and_missing_keys(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    SCOPED_FREE char *other = make_key_file(s->dir, "other");
    SCOPED_FREE char *phrase = make_secret(s->dir, "phrase", "correct horse\n");
    SCOPED_FREE char *missing = xasprintf("%s/missing", s->dir);
    SCOPED_FREE char *empty = make_secret(s->dir, "empty", "");
    MUST_FAIL(store_open(s->path, NULL, &err), &err, ERR_STORE_KEY);
    MUST_FAIL(open_with(s, other, &err), &err, ERR_STORE_KEY);
    MUST_FAIL(open_with(s, phrase, &err), &err, ERR_STORE_KEY); /* no key file at all */
    MUST_FAIL(open_with(s, missing, &err), &err, ERR_NOT_FOUND);
    MUST_FAIL(open_with(s, empty, &err), &err, ERR_BAD_CONFIG);
    struct store_opts opts = {.passphrase_file = phrase};
    MUST_FAIL(store_open(s->path, &opts, &err), &err, ERR_STORE_KEY);
    assert_int_equal(chmod(s->key_file, 0644), 0);
    MUST_FAIL(open_with(s, s->key_file, &err), &err, ERR_PERMISSION);
    assert_int_equal(chmod(s->key_file, 0640), 0);
    SCOPED(store) struct store *store = open_with(s, s->key_file, &err);
    MUST(store, &err);
}

static void test_making_is_refused(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    SCOPED_FREE char *plain = xasprintf("%s/plain", s->dir), *path = xasprintf("%s/new", s->dir);
    SCOPED_FREE char *empty = make_secret(s->dir, "empty", "\n");
    SCOPED_FREE char *brief = make_secret(s->dir, "brief", "1234567");
    struct store_opts opts = {.encrypt = true};
    MUST_FAIL(store_init(path, &opts, &err), &err, ERR_BAD_ARGUMENT);
    opts.passphrase_file = empty;
    MUST_FAIL(store_init(path, &opts, &err), &err, ERR_BAD_CONFIG);
    opts.passphrase_file = brief;
    MUST_FAIL(store_init(path, &opts, &err), &err, ERR_STORE_KEY);
    opts = (struct store_opts){.key_file = s->key_file};
    MUST_FAIL(store_init(path, &opts, &err), &err, ERR_BAD_ARGUMENT);
    opts = (struct store_opts){.encrypt = true, .key_file = s->key_file, .scrypt_log2_n = 13};
    MUST_FAIL(store_init(path, &opts, &err), &err, ERR_BAD_ARGUMENT);
    SCOPED(store) struct store *store = store_init(plain, NULL, &err);
    MUST(store, &err);
    assert_false(store_is_encrypted(store));
    /* Somebody exchanged repo.json: who has a key must not write in clear. */
    opts = (struct store_opts){.key_file = s->key_file};
    MUST_FAIL(store_open(plain, &opts, &err), &err, ERR_STORE_KEY);
}

static void test_key_files(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    MUST_FAIL(store_key_file_make(s->key_file, &err), &err, ERR_EXISTS);
    struct stat st;
    assert_int_equal(stat(s->key_file, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    SCOPED_BUF struct buf text;
    MUST(file_read_all(AT_FDCWD, s->key_file, 4096, &text, &err), &err);
    assert_int_equal(text.len, KEY_LINE_BYTES);
    text.data[--text.len] = '\0';
    uint8_t key[CRYPT_SECRET_BYTES];
    MUST(key_line_decode(text.data, key, &err), &err);
    for (size_t i = 0; i < text.len; i++) { /* every slip of the pen */
        char kept = text.data[i];
        text.data[i] = kept == '7' ? '1' : '7';
        MUST_FAIL(key_line_decode(text.data, key, &err), &err, ERR_STORE_KEY);
        text.data[i] = kept;
    }
    text.data[text.len - 1] = '\0';
    MUST_FAIL(key_line_decode(text.data, key, &err), &err, ERR_STORE_KEY);
    MUST_FAIL(key_line_decode("", key, &err), &err, ERR_STORE_KEY);
}

/* ---- several keys */

static size_t key_count(struct store *store)
{
    struct err err = ERR_INIT;
    struct store_key_list list;
    MUST(store_keys_list(store, &list, &err), &err);
    size_t n = list.count;
    for (size_t i = 0; i < n; i++)
        assert_null(list.items[i].damage);
    store_key_list_done(&list);
    return n;
}

static void test_adding_and_removing_keys(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    char id[STORE_KEY_ID_CHARS + 1], old[STORE_KEY_ID_CHARS + 1];
    SCOPED_FREE char *phrase = make_secret(s->dir, "phrase", "correct horse\nbattery\n");
    SCOPED_FREE char *typo = make_secret(s->dir, "typo", "correct hors3\n");
    struct store_opts opts = {.key_file = s->key_file, .scrypt_log2_n = FAST};
    struct store *store = store_open(s->path, &opts, &err);
    MUST(store, &err);
    struct store_key_opts add = {.passphrase_file = phrase, .label = "the safe"};
    MUST(store_key_add(store, &add, id, &err), &err);
    assert_int_equal(key_count(store), 2);
    add.key_file = s->key_file;
    MUST_FAIL(store_key_add(store, &add, id, &err), &err, ERR_BAD_ARGUMENT);
    memcpy(old, store->key_id, sizeof old);
    MUST_FAIL(store_key_remove(store, old, &err), &err, ERR_REFUSED);
    MUST_FAIL(store_key_remove(store, "0123456789abcdef", &err), &err, ERR_NOT_FOUND);
    MUST_FAIL(store_key_remove(store, "../repo", &err), &err, ERR_BAD_ARGUMENT);
    store_free(store);

    opts = (struct store_opts){.passphrase_file = typo};
    MUST_FAIL(store_open(s->path, &opts, &err), &err, ERR_STORE_KEY);
    opts.passphrase_file = phrase;
    store = store_open(s->path, &opts, &err);
    MUST(store, &err);
    MUST(check_image(store, "first.1", &s->image, &err), &err); /* nothing was rewritten */
    struct store_key_list list;
    MUST(store_keys_list(store, &list, &err), &err);
    for (size_t i = 0; i < 2; i++) {
        bool is_new = strcmp(list.items[i].id, old) != 0;
        assert_int_equal(list.items[i].is_used, is_new);
        assert_int_equal(list.items[i].is_passphrase, is_new);
        assert_true(list.items[i].grants_restore);
        assert_string_equal(list.items[i].label, is_new ? "the safe" : "");
    }
    store_key_list_done(&list);
    MUST(store_key_remove(store, old, &err), &err);
    assert_int_equal(key_count(store), 1);
    store_free(store);
    MUST_FAIL(open_with(s, s->key_file, &err), &err, ERR_STORE_KEY);
    opts.key_file = s->key_file; /* either will do */
    store = store_open(s->path, &opts, &err);
    MUST(store, &err);
    store_free(store);
}

static void test_a_hostile_key_object(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    struct file_list files = list_files(s->path);
    SCOPED_FREE char *path = NULL;
    for (size_t i = 0; i < files.count; i++)
        if (strncmp(files.items[i], "keys/", 5) == 0)
            path = xasprintf("%s/%s", s->path, files.items[i]);
    file_list_done(&files);
    json_t *good = json_load_file(path, 0, NULL);
    assert_non_null(good);
    static const struct {
        const char *key, *json;
        enum err_code want;
    } cases[] = {
        {"kdf", "{\"name\":\"scrypt\",\"log2_n\":40,\"r\":8,\"p\":1}", ERR_STORE_CORRUPT},
        {"kdf", "{\"name\":\"scrypt\",\"log2_n\":14,\"r\":800,\"p\":1}", ERR_STORE_CORRUPT},
        {"kdf", "{\"name\":\"rot13\"}", ERR_STORE_VERSION},
        {"grants", "\"everything\"", ERR_STORE_VERSION},
        {"format", "2", ERR_STORE_VERSION},
        {"salt", "\"00\"", ERR_STORE_CORRUPT},
        {"wrapped", "7", ERR_STORE_CORRUPT},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        json_t *bad = json_deep_copy(good);
        json_object_set_new(bad, cases[i].key, json_loads(cases[i].json, JSON_DECODE_ANY, NULL));
        record_set_checksum(bad);
        SCOPED_FREE char *text = record_text_of(bad);
        struct key_record r;
        MUST_FAIL(key_record_decode(text, strlen(text), &r, &err), &err, cases[i].want);
        json_decref(bad);
    }
    /* Promising more than it wraps: what it grants is bound to it. */
    json_object_set_new(good, "grants", json_string("write"));
    record_set_checksum(good);
    SCOPED_FREE char *text = record_text_of(good);
    json_decref(good);
    MUST(file_write_atomic(AT_FDCWD, path, text, strlen(text), 0600, &err), &err);
    MUST_FAIL(open_with(s, s->key_file, &err), &err, ERR_STORE_KEY);
}

/* ---- less than all rights */

static void test_a_key_that_only_writes(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    char id[STORE_KEY_ID_CHARS + 1];
    SCOPED_FREE char *proxy_key = make_key_file(s->dir, "proxy");
    struct store *store = open_with(s, s->key_file, &err);
    MUST(store, &err);
    struct store_key_opts add = {.key_file = proxy_key, .is_write_only = true};
    MUST(store_key_add(store, &add, id, &err), &err);
    store_free(store);

    store = open_with(s, proxy_key, &err);
    MUST(store, &err);
    assert_false(store_can_restore(store));
    struct store_reader *parent = open_disk(store, "first.1");
    fill_text(s->image.data + 10 * BLOCK, 2 * BLOCK, 3);
    struct store_stats stats;
    MUST(backup(store, "second.1", &s->image, parent, &stats, &err), &err);
    assert_int_equal(stats.stored_raw_bytes, 2 * BLOCK);
    uint8_t block[BLOCK];
    MUST_FAIL(store_disk_read(parent, block, sizeof block, 0, &err), &err, ERR_STORE_KEY);
    store_reader_free(parent);
    MUST_FAIL(check_image(store, "second.1", &s->image, &err), &err, ERR_STORE_KEY);
    struct store_point *point = store_point_open(store, "second.1", &err);
    MUST(point, &err);
    struct buf blob;
    MUST_FAIL(store_point_blob(point, "vm.ovf", &blob, &err), &err, ERR_STORE_KEY);
    buf_done(&blob);
    store_point_free(point);
    struct store_verify_result result;
    MUST(store_verify_point(store, "second.1", NULL, &result, &err), &err);
    assert_true(result.sums_only && result.checked_bytes > 0);
    add.is_write_only = false;
    MUST_FAIL(store_key_add(store, &add, id, &err), &err, ERR_STORE_KEY);
    MUST_FAIL(store_key_remove(store, id, &err), &err, ERR_STORE_KEY);
    store_free(store);

    store = open_with(s, s->key_file, &err);
    MUST(store, &err);
    MUST(check_image(store, "second.1", &s->image, &err), &err);
    store_free(store);
}

static void flip_byte(const char *path, off_t at)
{
    assert_int_equal(chmod(path, 0600), 0);
    SCOPED_FD int fd = open(path, O_RDWR | O_CLOEXEC);
    uint8_t byte;
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
}

static void test_upkeep_without_a_key(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    struct store_opts opts = {.keyless = true};
    SCOPED(store) struct store *store = store_open(s->path, &opts, &err);
    MUST(store, &err);
    struct store_point_list list;
    MUST(store_points_list(store, NULL, &list, &err), &err);
    assert_int_equal(list.count, 1);
    assert_null(list.items[0].damage);
    assert_string_equal(list.items[0].vm_id, "vm-1");
    assert_string_equal(list.items[0].vm_name, "");
    assert_true(list.items[0].created_ms > 0 && list.items[0].stored_bytes > 0);
    store_point_list_done(&list);
    SCOPED(store_reader) struct store_reader *reader = open_disk(store, "first.1");
    struct frame_use *uses;
    MUST(reader_frame_uses(reader, &uses, &err), &err);
    assert_int_equal(reader->map.n_packs, 1);
    struct cache_item *item = pack_pin(store, &reader->map.packs[0], &err);
    MUST(item, &err);
    const struct footer *footer = &pack_of(item)->footer;
    assert_null(footer->chunks);
    for (uint32_t i = 0; i < footer->n_frames; i++)
        assert_true(frame_use_has(&uses[0], i));
    assert_false(frame_use_has(&uses[0], footer->n_frames));
    cache_unpin(store->packs, item);
    frame_uses_free(uses, 1);
    struct extents extents = {0};
    MUST_FAIL(store_disk_extents(reader, 0, BLOCK, &extents, &err), &err, ERR_STORE_KEY);
    struct store_session_opts so = session_opts("none.1");
    MUST_FAIL(store_session_begin(store, &so, &err), &err, ERR_STORE_KEY);
    struct store_verify_result result;
    MUST(store_verify_point(store, "first.1", NULL, &result, &err), &err);
    assert_true(result.sums_only && result.checked_bytes >= DATA_BYTES - 60 * BLOCK);
    char path[64];
    pack_path(reader->map.packs[0].id, path);
    SCOPED_FREE char *pack = xasprintf("%s/%s", s->path, path);
    flip_byte(pack, 3000);
    MUST_FAIL(store_verify_point(store, "first.1", NULL, &result, &err), &err, ERR_STORE_CORRUPT);
    assert_int_equal(result.damaged_ranges, 1);
}

static char *only_pack(const struct scene *s)
{
    struct file_list files = list_files(s->path);
    char *path = NULL;
    for (size_t i = 0; i < files.count; i++)
        if (strncmp(files.items[i], "packs/", 6) == 0)
            path = xasprintf("%s/%s", s->path, files.items[i]);
    file_list_done(&files);
    assert_non_null(path);
    return path;
}

/* A wrong bit is found without a key, healed with one, and never guessed at. */
static void test_scrubbing(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    SCOPED_FREE char *pack = only_pack(s);
    flip_byte(pack, 3000);
    struct store *store = store_open(s->path, &(struct store_opts){.keyless = true}, &err);
    MUST(store, &err);
    struct store_scrub_result result;
    MUST(store_scrub(store, NULL, &result, &err), &err);
    assert_int_equal(result.frames_damaged, 1);
    assert_int_equal(result.frames_healed, 0);
    assert_int_equal(result.points_damaged, 1);
    store_free(store);
    store = open_with(s, s->key_file, &err);
    MUST(store, &err);
    MUST_FAIL(check_image(store, "first.1", &s->image, &err), &err, ERR_STORE_CORRUPT);
    MUST(store_scrub(store, NULL, &result, &err), &err);
    assert_int_equal(result.frames_healed, 1);
    store_free(store);
    store = open_with(s, s->key_file, &err);
    MUST(store, &err);
    MUST(check_image(store, "first.1", &s->image, &err), &err);
    MUST(store_scrub(store, NULL, &result, &err), &err);
    assert_int_equal(result.frames_damaged, 0);
    store_free(store);
    store = store_open(s->path, &(struct store_opts){.keyless = true}, &err);
    MUST(store, &err);
    MUST(store_scrub(store, NULL, &result, &err), &err);
    assert_int_equal(result.points_damaged, 0);
    store_free(store);
}

/* More than a bit: the blocks of a damaged frame are taken from another pack, and sealed anew. */
static void test_healing_from_elsewhere(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    SCOPED_FREE char *pack = only_pack(s);
    flip_byte(pack, 3000);
    flip_byte(pack, 3100);
    struct store *store = open_with(s, s->key_file, &err);
    MUST(store, &err);
    struct store_scrub_result result;
    MUST(store_scrub(store, NULL, &result, &err), &err);
    assert_int_equal(result.frames_damaged, 1);
    assert_int_equal(result.frames_healed, 0);
    struct store_stats stats; /* what is marked is stored anew */
    MUST(backup(store, "second.1", &s->image, NULL, &stats, &err), &err);
    assert_true(stats.stored_raw_bytes > 0);
    MUST(store_scrub(store, NULL, &result, &err), &err);
    assert_int_equal(result.frames_healed, 1);
    store_free(store);
    store = open_with(s, s->key_file, &err);
    MUST(store, &err);
    MUST(check_image(store, "first.1", &s->image, &err), &err);
    MUST(store_verify_point(store, "first.1", NULL, NULL, &err), &err);
    store_free(store);
}

/* The use table of a sealed map says what the map itself says. */
static void test_use_table_is_that_of_the_map(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    SCOPED(store) struct store *store = open_with(s, s->key_file, &err);
    MUST(store, &err);
    SCOPED(store_reader) struct store_reader *reader = open_disk(store, "first.1");
    struct frame_use *said, *found;
    MUST(reader_frame_uses(reader, &said, &err), &err);
    struct frame_use *table = reader->map.uses;
    reader->map.uses = NULL; /* as if it were a plain one: by its records */
    MUST(reader_frame_uses(reader, &found, &err), &err);
    reader->map.uses = table;
    assert_int_equal(said[0].len, found[0].len);
    assert_memory_equal(said[0].bits, found[0].bits, said[0].len);
    frame_uses_free(said, 1);
    frame_uses_free(found, 1);
}

/* ---- forgeries with right checksums */

static void rewrite_point(const struct scene *s, const char *key, json_t *value)
{
    struct err err = ERR_INIT;
    SCOPED_FREE char *path = xasprintf("%s/manifests/first.1/point.json", s->path);
    SCOPED_FREE char *fate_path = xasprintf("%s/fate/first.1", s->path);
    json_t *point = json_load_file(path, 0, NULL);
    assert_non_null(point);
    if (value)
        json_object_set_new(point, key, value);
    else
        json_object_del(point, key);
    SCOPED_FREE char *text = record_text_of(point);
    json_decref(point);
    MUST(file_write_atomic(AT_FDCWD, path, text, strlen(text), 0600, &err), &err);
    uint8_t digest[DIGEST_BYTES];
    digest_sha256(text, strlen(text), digest);
    struct fate fate = fate_new(FATE_COMMIT, digest), stands;
    enum fate_doubt doubt;
    assert_int_equal(unlink(fate_path), 0);
    SCOPED_FD int dirfd = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    MUST(fate_decide(dirfd, "first.1", &fate, &stands, &doubt, &err), &err);
}

static void test_a_forged_point_is_refused(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    SCOPED(store) struct store *store = open_with(s, s->key_file, &err);
    MUST(store, &err);
    rewrite_point(s, "created_ms", json_integer(12345));
    MUST_FAIL(store_point_open(store, "first.1", &err), &err, ERR_STORE_CORRUPT);
    rewrite_point(s, "sealed", NULL);
    MUST_FAIL(store_point_open(store, "first.1", &err), &err, ERR_STORE_CORRUPT);
    rewrite_point(s, "features", NULL); /* as a plain one */
    MUST_FAIL(store_point_open(store, "first.1", &err), &err, ERR_STORE_CORRUPT);
}

/* ---- the primitives */

static void test_seals(void **state)
{
    (void)state;
    const uint8_t uuid[16] = {1, 2, 3}, other_uuid[16] = {1, 2, 4}, zero[CRYPT_PUBLIC_BYTES] = {0};
    struct crypt_secrets secrets, others;
    crypt_secrets_new(&secrets);
    crypt_secrets_new(&others);
    SCOPED(crypt) struct crypt *c = crypt_new(uuid, &secrets), *wrong = crypt_new(uuid, &others);
    SCOPED(crypt) struct crypt *elsewhere = crypt_new(other_uuid, &secrets);
    uint8_t salt[CRYPT_SALT_BYTES] = {5}, tag[CRYPT_TAG_BYTES], text[100], got[100];
    const struct crypt_aad aad = {"where", 5}, other = {"there", 5};
    fill_random(text, sizeof text, 1);
    uint8_t sealed[sizeof text];
    crypt_seal(c, CRYPT_MAP, salt, aad, text, sizeof text, sealed, tag);
    assert_true(crypt_open(c, CRYPT_MAP, salt, aad, sealed, sizeof sealed, got, tag));
    assert_memory_equal(got, text, sizeof text);
    assert_memory_not_equal(sealed, text, sizeof text);
    assert_false(crypt_open(c, CRYPT_LIST, salt, aad, sealed, sizeof sealed, got, tag));
    assert_false(crypt_open(c, CRYPT_MAP, salt, other, sealed, sizeof sealed, got, tag));
    assert_false(crypt_open(c, CRYPT_MAP, salt, aad, sealed, sizeof sealed - 1, got, tag));
    assert_false(crypt_open(wrong, CRYPT_MAP, salt, aad, sealed, sizeof sealed, got, tag));
    assert_false(crypt_open(elsewhere, CRYPT_MAP, salt, aad, sealed, sizeof sealed, got, tag));
    for (size_t i = 0; i < sizeof sealed; i++) {
        sealed[i] ^= 1;
        assert_false(crypt_open(c, CRYPT_MAP, salt, aad, sealed, sizeof sealed, got, tag));
        sealed[i] ^= 1;
    }
    salt[15] ^= 1;
    assert_false(crypt_open(c, CRYPT_MAP, salt, aad, sealed, sizeof sealed, got, tag));
    crypt_seal(c, CRYPT_MAP, salt, aad, NULL, 0, NULL, tag); /* nothing is a message, too */
    assert_true(crypt_open(c, CRYPT_MAP, salt, aad, NULL, 0, NULL, tag));

    struct envelope e, found;
    envelope_new(c, &e);
    envelope_seal(c, &e, salt, aad, text, sizeof text, sealed, tag);
    assert_true(envelope_find(c, e.public, &found));
    assert_memory_equal(e.key, found.key, sizeof e.key);
    assert_true(envelope_open(c, &found, salt, aad, sealed, sizeof sealed, got, tag));
    assert_memory_equal(got, text, sizeof text);
    assert_true(envelope_find(wrong, e.public, &found));
    assert_false(envelope_open(wrong, &found, salt, aad, sealed, sizeof sealed, got, tag));
    assert_false(envelope_find(c, zero, &found)); /* a key of small order */
}

static void test_keyed_digests(void **state)
{
    (void)state;
    const uint8_t key[DIGEST_BYTES] = {0xaa, 0xbb};
    struct hasher *plain = hasher_new(NULL), *keyed = hasher_new(key);
    uint8_t block[BLOCK], a[DIGEST_BYTES], b[DIGEST_BYTES];
    fill_random(block, sizeof block, 1);
    hasher_leaf(plain, block, a);
    hasher_leaf(keyed, block, b);
    assert_memory_not_equal(a, b, sizeof a);
    /* HMAC by its definition (RFC 2104), from plain SHA-256. */
    uint8_t inner[64 + 1 + BLOCK], outer[64 + DIGEST_BYTES];
    memset(inner, 0x36, 64);
    memset(outer, 0x5c, 64);
    for (size_t i = 0; i < sizeof key; i++) {
        inner[i] ^= key[i];
        outer[i] ^= key[i];
    }
    inner[64] = 0;
    memcpy(inner + 65, block, BLOCK);
    digest_sha256(inner, sizeof inner, outer + 64);
    digest_sha256(outer, sizeof outer, a);
    assert_memory_equal(a, b, sizeof a);
    hasher_free(plain);
    hasher_free(keyed);
}

/* Whatever the number of blocks and whatever their content: as one by one, which is OpenSSL's. */
static void test_many_leaves_at_once(void **state)
{
    (void)state;
    enum { N = 40 };
    const uint8_t key[DIGEST_BYTES] = {7, 1};
    uint8_t *data = xmalloc(N * BLOCK + 1), many[N * DIGEST_BYTES], one[DIGEST_BYTES];
    for (uint64_t seed = 0; seed < 90; seed++) {
        struct hasher *h = hasher_new(seed % 2 ? key : NULL);
        const uint8_t *blocks[N];
        size_t n = seed % (N + 1);
        fill_random(data, N * BLOCK + 1, seed);
        for (size_t i = 0; i < N; i++) /* of odd addresses, too, and one of them twice */
            blocks[i] = data + (i == 3 ? 0 : i) * BLOCK + seed % 4 / 2;
        hasher_leaves(h, blocks, n, many);
        for (size_t i = 0; i < n; i++) {
            hasher_leaf(h, blocks[i], one);
            assert_memory_equal(many + i * DIGEST_BYTES, one, sizeof one);
        }
        hasher_free(h);
    }
    free(data);
}

/* HMAC (RFC 2104) or plain SHA-256 of 0x01 and the leaves, by libcrypto. */
static void chunk_by_the_book(const uint8_t *key, const uint8_t *leaves, size_t n, uint8_t *out)
{
    uint8_t inner[64 + 1 + 255 * DIGEST_BYTES], outer[64 + DIGEST_BYTES];
    memset(inner, 0x36, 64);
    memset(outer, 0x5c, 64);
    for (size_t i = 0; key && i < DIGEST_BYTES; i++) {
        inner[i] ^= key[i];
        outer[i] ^= key[i];
    }
    inner[64] = 1;
    memcpy(inner + 65, leaves, n * DIGEST_BYTES);
    if (!key) {
        digest_sha256(inner + 64, 1 + n * DIGEST_BYTES, out);
        return;
    }
    digest_sha256(inner, 65 + n * DIGEST_BYTES, outer + 64);
    digest_sha256(outer, sizeof outer, out);
}

/* Whatever their sizes, and in whatever order they come. */
static void test_many_chunks_at_once(void **state)
{
    (void)state;
    enum { N = 9 };
    const uint8_t key[DIGEST_BYTES] = {7, 1};
    uint8_t *leaves = xmalloc(N * 255 * DIGEST_BYTES), ids[N * DIGEST_BYTES], one[DIGEST_BYTES];
    for (uint64_t seed = 0; seed < 600; seed++) {
        const uint8_t *k = seed % 2 ? key : NULL;
        struct hasher *h = hasher_new(k);
        uint8_t sizes[N], random[N];
        size_t n = seed % (N + 1), at = 0;
        fill_random(leaves, N * 255 * DIGEST_BYTES, seed);
        fill_random(random, N, seed + 1000);
        for (size_t i = 0; i < N; i++) /* most of them as in a pack; some longer than those */
            sizes[i] = (uint8_t)(random[i] < 240 ? 1 + random[i] % 64 : random[i]);
        hasher_chunks(h, leaves, sizes, n, ids);
        for (size_t i = 0; i < n; i++) {
            chunk_by_the_book(k, leaves + at * DIGEST_BYTES, sizes[i], one);
            assert_memory_equal(ids + i * DIGEST_BYTES, one, sizeof one);
            hasher_chunk(h, leaves + at * DIGEST_BYTES, sizes[i], ids + i * DIGEST_BYTES);
            assert_memory_equal(ids + i * DIGEST_BYTES, one, sizeof one);
            at += sizes[i];
        }
        hasher_free(h);
    }
    free(leaves);
}

static void sha256_end(uint8_t end[64], uint64_t n_blocks)
{
    memset(end, 0, 64);
    end[0] = 0x80;
    for (size_t i = 0; i < 8; i++)
        end[63 - i] = (uint8_t)(n_blocks * 512 >> 8 * i);
}

/* The kernels themselves against libcrypto, for messages of whole blocks (and their padding). */
static void test_two_lanes(void **state)
{
    (void)state;
    if (!sha256x2_available())
        skip();
    enum { BLOCKS = 70 };
    uint8_t *a = xcalloc(2, (BLOCKS + 1) * 64), *b = a + (BLOCKS + 1) * 64;
    for (uint64_t n = 1; n <= BLOCKS; n++) {
        uint8_t want[DIGEST_BYTES], got[DIGEST_BYTES];
        struct sha256_state x = sha256_start, y = sha256_start;
        uint8_t end[64];
        sha256_end(end, n);
        fill_random(a, n * 64, n);
        fill_random(b, n * 64, ~n);
        sha256x2_blocks(&x, &y, a, b, n);
        sha256x2_blocks(&x, &y, end, end, 1);
        sha256_state_digest(&x, got);
        digest_sha256(a, n * 64, want);
        assert_memory_equal(got, want, sizeof want);
        sha256_state_digest(&y, got);
        digest_sha256(b, n * 64, want);
        assert_memory_equal(got, want, sizeof want);
    }
    free(a);
}

static void test_sixteen_lanes(void **state)
{
    (void)state;
    if (!sha256x16_available())
        skip();
    enum { BLOCKS = 70, LANE_BYTES = BLOCKS * 64 + 1 };
    uint8_t *data = xmalloc((size_t)SHA256_LANES * LANE_BYTES);
    for (uint64_t n = 1; n <= BLOCKS; n++) {
        uint8_t want[DIGEST_BYTES], got[DIGEST_BYTES], end[64];
        const uint8_t *lanes[SHA256_LANES], *ends[SHA256_LANES];
        struct sha256x16 s;
        sha256_end(end, n);
        fill_random(data, (size_t)SHA256_LANES * LANE_BYTES, n);
        for (size_t i = 0; i < SHA256_LANES; i++) {
            lanes[i] = data + i * LANE_BYTES;
            ends[i] = end;
        }
        sha256x16_start(&s, &sha256_start);
        sha256x16_blocks(&s, lanes, n);
        sha256x16_blocks(&s, ends, 1);
        for (size_t i = 0; i < SHA256_LANES; i++) {
            sha256x16_digest(&s, i, got);
            digest_sha256(lanes[i], n * 64, want);
            assert_memory_equal(got, want, sizeof want);
        }
    }
    free(data);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_backup_and_restore),
        T(test_deduplication_by_the_index),
        T(test_nothing_lies_in_clear),
        T(test_wrong_and_missing_keys),
        T(test_making_is_refused),
        T(test_key_files),
        T(test_adding_and_removing_keys),
        T(test_a_hostile_key_object),
        T(test_a_key_that_only_writes),
        T(test_upkeep_without_a_key),
        T(test_scrubbing),
        T(test_healing_from_elsewhere),
        T(test_use_table_is_that_of_the_map),
        T(test_a_forged_point_is_refused),
        cmocka_unit_test(test_seals),
        cmocka_unit_test(test_keyed_digests),
        cmocka_unit_test(test_many_leaves_at_once),
        cmocka_unit_test(test_many_chunks_at_once),
        cmocka_unit_test(test_two_lanes),
        cmocka_unit_test(test_sixteen_lanes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

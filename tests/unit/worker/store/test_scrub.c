/* SPDX-License-Identifier: Apache-2.0 */
/* Damage: found by scrubbing, named, marked so that the next backup stores it anew, and healed from
 * what is there. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/log.h"
#include "support.h"
#include "worker/store/bytes.h"
#include "worker/store/gc/heal.h"
#include "worker/store/gc/relocate.h"
#include "worker/store/upkeep.h"

enum { MIB = 1 << 20 };

struct scene {
    char *dir, *path;
    struct store *store;
};

static const struct store_opts opts_small = {.pack_bytes = 65536, .dedup_cache_bytes = MIB};

static int setup(void **state)
{
    struct scene *s = ALLOC_NEW(struct scene);
    struct err err = ERR_INIT;
    log_set_level(LOG_LEVEL_ERROR);
    s->dir = temp_dir();
    s->path = xasprintf("%s/repo", s->dir);
    s->store = store_init(s->path, &opts_small, &err);
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
    s->store = store_open(s->path, &opts_small, &err);
    MUST(s->store, &err);
}

static struct disk_image image_of(size_t size, uint64_t seed)
{
    struct disk_image image = {.id = "d", .data = xmalloc(size), .size = size};
    fill_text(image.data, size, seed);
    return image;
}

static struct store_scrub_result scrub(struct scene *s)
{
    struct err err = ERR_INIT;
    struct store_scrub_result r;
    reopen(s); /* nothing in memory may help */
    MUST(store_scrub(s->store, NULL, &r, &err), &err);
    return r;
}

/* The nth file below a directory of the repository, as an absolute path. The caller frees. */
static char *nth_file(const struct scene *s, const char *prefix, size_t n)
{
    struct file_list files = list_files(s->path);
    char *found = NULL;
    for (size_t i = 0; i < files.count && !found; i++)
        if (strncmp(files.items[i], prefix, strlen(prefix)) == 0 && n-- == 0)
            found = xasprintf("%s/%s", s->path, files.items[i]);
    file_list_done(&files);
    assert_non_null(found);
    return found;
}

static void change_bytes(const char *path, uint64_t at, size_t len, uint8_t mask)
{
    assert_int_equal(chmod(path, 0600), 0);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    for (size_t i = 0; i < len; i++) {
        uint8_t byte;
        assert_int_equal(pread(fd, &byte, 1, (off_t)(at + i)), 1);
        byte ^= mask;
        assert_int_equal(pwrite(fd, &byte, 1, (off_t)(at + i)), 1);
    }
    assert_int_equal(close(fd), 0);
}

/* The state of a point as listings show it; the caller frees. NULL = good. */
static char *damage_of(struct scene *s, const char *id)
{
    struct err err = ERR_INIT;
    struct store_point_list list;
    char *damage = NULL;
    bool found = false;
    MUST(store_points_list(s->store, NULL, &list, &err), &err);
    for (size_t i = 0; i < list.count; i++)
        if (strcmp(list.items[i].id, id) == 0) {
            found = true;
            damage = list.items[i].damage ? xstrdup(list.items[i].damage) : NULL;
        }
    assert_true(found);
    store_point_list_done(&list);
    return damage;
}

static void must_be_good(struct scene *s, const char *id, const struct disk_image *image)
{
    struct err err = ERR_INIT;
    SCOPED_FREE char *damage = damage_of(s, id);
    if (damage)
        fail_msg("%s: %s", id, damage);
    reopen(s);
    MUST(check_image(s->store, id, image, &err), &err);
    MUST(store_verify_point(s->store, id, NULL, NULL, &err), &err);
}

/* ---- one wrong bit */

static void test_every_single_bit_of_a_frame_is_named(void **state)
{
    (void)state;
    uint8_t frame[FRAME_HEADER_BYTES + 300], copy[sizeof frame];
    struct frame_header header = {
        .codec = FRAME_ZSTD, .stored_len = 300, .raw_len = 4096, .chunks = 1};
    fill_random(frame + FRAME_HEADER_BYTES, 300, 1);
    header.stored_crc = crc32c(frame + FRAME_HEADER_BYTES, 300);
    frame_header_encode(&header, frame);
    for (size_t bit = 0; bit < 8 * sizeof frame; bit++) {
        memcpy(copy, frame, sizeof copy);
        copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_true(frame_fix_bit(copy, sizeof copy));
        assert_memory_equal(copy, frame, sizeof copy);
    }
    /* Two bits look like another one in a few cases of millions: digests catch that. */
    uint64_t seed = 3;
    unsigned wrong = 0;
    for (int i = 0; i < 2000; i++) {
        memcpy(copy, frame, sizeof copy);
        size_t a = FRAME_HEADER_BYTES * 8 + random_next(&seed) % 2400;
        size_t b = FRAME_HEADER_BYTES * 8 + random_next(&seed) % 2400;
        if (a == b)
            continue;
        copy[a / 8] ^= (uint8_t)(1u << a % 8);
        copy[b / 8] ^= (uint8_t)(1u << b % 8);
        wrong += frame_fix_bit(copy, sizeof copy);
    }
    assert_int_equal(wrong, 0);
}

static void test_single_bits_heal_by_themselves(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    struct disk_image a = image_of(MIB + MIB / 2, 1);
    MUST(backup_image(s->store, "a.1", &a, NULL, NULL, &err), &err);
    struct store_scrub_result r = scrub(s);
    assert_int_equal(r.frames_damaged, 0);
    assert_int_equal(r.frames, 2);
    assert_true(r.bytes_read > MIB / 2);
    SCOPED_FREE char *pack = nth_file(s, "packs/", 0);
    uint64_t seed = 5;
    for (int i = 0; i < 12; i++) {
        struct stat st;
        assert_int_equal(stat(pack, &st), 0);
        /* Of the first frame: headers and data. */
        uint64_t at = PACK_HEADER_BYTES + (i < 4 ? (uint64_t)i * 15 : random_next(&seed) % 100000);
        change_bytes(pack, at, 1, (uint8_t)(1u << random_next(&seed) % 8));
        reopen(s);
        assert_false(check_image(s->store, "a.1", &a, &err));
        err_clear(&err);
        r = scrub(s);
        assert_int_equal(r.frames_damaged, 1);
        assert_int_equal(r.frames_healed, 1);
        assert_int_equal(r.points_damaged, 0);
        must_be_good(s, "a.1", &a);
    }
    assert_int_equal(count_files(s->path, "marks/"), 0);
    assert_int_equal(count_files(s->path, "damage/"), 0);
    free(a.data);
}

/* ---- more than that */

static void test_the_next_backup_heals(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    struct disk_image a = image_of(3 * MIB, 1), b = image_of(3 * MIB, 1);
    fill_text(b.data, MIB / 4, 9);
    MUST(backup_image(s->store, "a.1", &a, NULL, NULL, &err), &err);
    SCOPED_FREE char *pack = nth_file(s, "packs/", 0);
    change_bytes(pack, PACK_HEADER_BYTES + 5000, 50, 0xff);

    struct store_scrub_result r = scrub(s);
    assert_int_equal(r.frames_damaged, 1);
    assert_int_equal(r.frames_healed, 0);
    assert_int_equal(r.points_damaged, 1);
    SCOPED_FREE char *damage = damage_of(s, "a.1");
    assert_non_null(damage);
    assert_true(strstr(damage, "the first at d offset ") != NULL);
    r = scrub(s); /* still so; nothing is marked or written twice */
    assert_int_equal(r.points_damaged, 1);
    assert_int_equal(count_files(s->path, "marks/"), 1);

    /* A backup with the damaged point as parent stores what is marked anew, and nothing else. */
    reopen(s);
    struct store_stats stats;
    struct store_point *point = store_point_open(s->store, "a.1", &err);
    MUST(point, &err);
    struct store_reader *parent = store_disk_open(point, "d", &err);
    MUST(parent, &err);
    MUST(backup_image(s->store, "a.2", &b, parent, &stats, &err), &err);
    store_reader_free(parent);
    store_point_free(point);
    assert_true(stats.unchanged_bytes >= MIB && stats.unchanged_bytes < 3 * MIB);
    must_be_good(s, "a.2", &b);

    /* Whatever of the damaged frame is still the same heals the old point; here all of it but what
     * b changed. A backup of the old data brings the rest. */
    MUST(backup_image(s->store, "a.3", &a, NULL, &stats, &err), &err);
    r = scrub(s);
    assert_int_equal(r.frames_healed, 1);
    assert_int_equal(r.points_healed, 1);
    must_be_good(s, "a.1", &a);
    must_be_good(s, "a.2", &b);
    must_be_good(s, "a.3", &a);
    assert_int_equal(count_files(s->path, "damage/"), 0);
    /* A healed pack is compacted and collected like any other. */
    struct store_collect_result c;
    MUST(store_point_delete(s->store, "a.1", true, &err), &err);
    MUST(store_collect(s->store, NULL, &c, &err), &err);
    must_be_good(s, "a.2", &b);
    must_be_good(s, "a.3", &a);
    free(a.data);
    free(b.data);
}

/* Two sessions at once store the same data: each heals the other. */
static void test_a_second_copy_heals(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    struct disk_image a = image_of(MIB, 1);
    struct store_session_opts one = session_opts("a.1"), two = session_opts("a.2");
    struct store_session *first = store_session_begin(s->store, &one, &err);
    MUST(first, &err);
    struct store_session *second = store_session_begin(s->store, &two, &err);
    MUST(second, &err);
    MUST(write_image(first, &a, 0, NULL, NULL, &err), &err);
    MUST(write_image(second, &a, 0, NULL, NULL, &err), &err);
    MUST(store_session_commit(first, NULL, &err), &err);
    MUST(store_session_commit(second, NULL, &err), &err);
    store_session_free(first);
    store_session_free(second);
    assert_int_equal(count_files(s->path, "packs/"), 2);
    SCOPED_FREE char *pack = nth_file(s, "packs/", 1);
    change_bytes(pack, PACK_HEADER_BYTES + 1000, 1000, 0x5a);
    struct store_scrub_result r = scrub(s);
    assert_int_equal(r.frames_damaged, 1);
    assert_int_equal(r.frames_healed, 1);
    assert_int_equal(r.points_damaged, 0);
    must_be_good(s, "a.1", &a);
    must_be_good(s, "a.2", &a);
    free(a.data);
}

/* ---- the ends of packs */

enum { PACK_BLOCKS = 3 * MIB / STORE_BLOCK_BYTES };

/* Where the tables of the only pack's footer are. */
struct ends {
    uint64_t len, frames, chunks, leaves, trailer;
};

static struct ends find_ends(const char *pack)
{
    struct stat st;
    uint8_t trailer[TRAILER_BYTES], head[FOOTER_HEADER_BYTES];
    assert_int_equal(stat(pack, &st), 0);
    int fd = open(pack, O_RDONLY);
    struct ends e = {.len = (uint64_t)st.st_size, .trailer = (uint64_t)st.st_size - TRAILER_BYTES};
    assert_int_equal(pread(fd, trailer, sizeof trailer, (off_t)e.trailer), sizeof trailer);
    uint64_t at = get_u64(trailer + 8);
    assert_int_equal(pread(fd, head, sizeof head, (off_t)at), sizeof head);
    assert_int_equal(close(fd), 0);
    e.frames = at + FOOTER_HEADER_BYTES;
    e.chunks = e.frames + (uint64_t)get_u32(head + 12) * FRAME_ENTRY_BYTES;
    e.leaves = e.chunks + (uint64_t)get_u32(head + 16) * CHUNK_ENTRY_BYTES;
    assert_int_equal(get_u32(head + 20), PACK_BLOCKS);
    return e;
}

static void must_be_repaired(struct scene *s, const struct disk_image *a)
{
    struct store_scrub_result r = scrub(s);
    assert_int_equal(r.frames_damaged, 1);
    assert_int_equal(r.frames_healed, 1);
    assert_int_equal(r.points_damaged, 0);
    must_be_good(s, "a.1", a);
    assert_int_equal(count_files(s->path, "marks/"), 0);
}

/* A pack of three frames. Whatever of its ends is wrong is made again from the rest. */
static void test_ends_of_packs_are_repaired(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    struct disk_image a = image_of(3 * MIB, 1);
    struct store *store = store_open(s->path, NULL, &err);
    MUST(store, &err);
    MUST(backup_image(store, "a.1", &a, NULL, NULL, &err), &err);
    store_free(store);
    SCOPED_FREE char *pack = nth_file(s, "packs/", 0), *index = nth_file(s, "index/", 0);
    struct ends e = find_ends(pack);
    const struct {
        uint64_t at, len;
    } bursts[] = {{0, PACK_HEADER_BYTES},
                  {e.trailer, TRAILER_BYTES},
                  {e.frames - FOOTER_HEADER_BYTES, FOOTER_HEADER_BYTES},
                  {e.frames + 10, 50},
                  {e.chunks + 100, 40},
                  {e.chunks + 7 * CHUNK_ENTRY_BYTES + 32, 4},
                  {e.leaves, e.trailer - e.leaves},
                  {e.leaves + 77, e.len - e.leaves - 77}};
    for (size_t i = 0; i < ARRAY_LEN(bursts); i++) {
        change_bytes(pack, bursts[i].at, bursts[i].len, 0xa5);
        must_be_repaired(s, &a);
    }
    assert_int_equal(chmod(pack, 0600), 0);
    assert_int_equal(truncate(pack, (off_t)e.trailer - 100), 0);
    must_be_repaired(s, &a);
    assert_int_equal(unlink(index), 0); /* the owner is found by its maps, too */
    change_bytes(pack, 0, PACK_HEADER_BYTES, 0xa5);
    must_be_repaired(s, &a);
    /* It is collected like any other. */
    MUST(store_point_delete(s->store, "a.1", true, &err), &err);
    struct store_collect_result c;
    MUST(store_collect(s->store, NULL, &c, &err), &err);
    assert_int_equal(c.packs_removed, 1);
    free(a.data);
}

static struct store_scrub_result scrub_with(const char *path, const struct store_opts *opts)
{
    struct err err = ERR_INIT;
    struct store_scrub_result r;
    SCOPED(store) struct store *store = store_open(path, opts, &err);
    MUST(store, &err);
    MUST(store_scrub(store, NULL, &r, &err), &err);
    return r;
}

/* Of an encrypted repository: finding a footer takes no key, making one again does. */
static void test_ends_of_sealed_packs_are_repaired(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    SCOPED_FREE char *key = make_key_file(s->dir, "key"), *path = xasprintf("%s/sealed", s->dir);
    struct disk_image a = image_of(3 * MIB, 1);
    const struct store_opts with_key = {.key_file = key, .encrypt = true},
                            keyless = {.keyless = true};
    struct store *store = store_init(path, &with_key, &err);
    MUST(store, &err);
    MUST(backup_image(store, "a.1", &a, NULL, NULL, &err), &err);
    store_free(store);
    struct file_list files = list_files(path);
    SCOPED_FREE char *pack = NULL;
    for (size_t i = 0; i < files.count && !pack; i++)
        if (strncmp(files.items[i], "packs/", 6) == 0)
            pack = xasprintf("%s/%s", path, files.items[i]);
    file_list_done(&files);
    struct ends e = find_ends(pack);

    change_bytes(pack, 0, PACK_HEADER_BYTES, 0xa5);
    change_bytes(pack, e.trailer, TRAILER_BYTES, 0xa5);
    struct store_scrub_result r = scrub_with(path, &keyless);
    assert_int_equal(r.frames_healed, 1);
    assert_int_equal(r.points_damaged, 0);

    change_bytes(pack, e.frames + 10, 50, 0xa5);                   /* the frame table */
    change_bytes(pack, e.chunks + CRYPT_SEAL_BYTES + 77, 1, 0x10); /* the first list */
    r = scrub_with(path, &keyless);
    assert_int_equal(r.frames_healed, 0);
    assert_int_equal(r.points_damaged, 1);
    r = scrub_with(path, &with_key);
    assert_int_equal(r.frames_healed, 1);
    assert_int_equal(r.points_healed, 1);
    store = store_open(path, &with_key, &err);
    MUST(store, &err);
    MUST(check_image(store, "a.1", &a, &err), &err);
    MUST(store_verify_point(store, "a.1", NULL, NULL, &err), &err);
    store_free(store);
    free(a.data);
}

/* A frame that is damaged as well is the only thing that is lost. */
static void test_a_repaired_pack_has_its_damaged_frames(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    struct disk_image a = image_of(3 * MIB, 1);
    struct store *store = store_open(s->path, NULL, &err);
    MUST(store, &err);
    MUST(backup_image(store, "a.1", &a, NULL, NULL, &err), &err);
    store_free(store);
    SCOPED_FREE char *pack = nth_file(s, "packs/", 0);
    struct ends e = find_ends(pack);
    change_bytes(pack, PACK_HEADER_BYTES + 5, 50, 0xff); /* its header too */
    change_bytes(pack, e.leaves - 100, 40, 0xa5);
    struct store_scrub_result r = scrub(s);
    assert_int_equal(r.frames_damaged, 2);
    assert_int_equal(r.frames_healed, 1);
    assert_int_equal(r.points_damaged, 1);
    reopen(s);
    struct store_stats stats;
    MUST(backup_image(s->store, "a.2", &a, NULL, &stats, &err), &err);
    assert_true(stats.stored_raw_bytes > 0 && stats.stored_raw_bytes <= MIB);
    r = scrub(s); /* the new copy heals the old point */
    assert_int_equal(r.points_healed, 1);
    must_be_good(s, "a.1", &a);
    must_be_good(s, "a.2", &a);
    free(a.data);
}

/* Where chunks end is nowhere else: a pack that has lost that is lost, and stored anew. */
static void test_a_pack_cut_in_its_frames_is_stored_anew(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    struct disk_image a = image_of(MIB, 1);
    MUST(backup_image(s->store, "a.1", &a, NULL, NULL, &err), &err);
    SCOPED_FREE char *pack = nth_file(s, "packs/", 0);
    assert_int_equal(chmod(pack, 0600), 0);
    assert_int_equal(truncate(pack, 100000), 0);
    struct store_scrub_result r = scrub(s);
    assert_int_equal(r.frames_healed, 0);
    assert_int_equal(r.points_damaged, 1);
    reopen(s);
    struct store_stats stats;
    MUST(backup_image(s->store, "a.2", &a, NULL, &stats, &err), &err);
    assert_int_equal(stats.dedup_bytes, 0);
    must_be_good(s, "a.2", &a);
    free(a.data);
}

static void test_a_missing_pack_is_named(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    struct disk_image a = image_of(3 * MIB, 1), b = image_of(MIB, 2);
    MUST(backup_image(s->store, "a.1", &a, NULL, NULL, &err), &err);
    MUST(backup_image(s->store, "b.1", &b, NULL, NULL, &err), &err);
    SCOPED_FREE char *pack = nth_file(s, "packs/", 0);
    assert_int_equal(unlink(pack), 0);
    struct store_scrub_result r = scrub(s);
    assert_int_equal(r.points_damaged, 1);
    reopen(s);
    MUST(backup_image(s->store, "a.2", &a, NULL, NULL, &err), &err);
    MUST(backup_image(s->store, "b.2", &b, NULL, NULL, &err), &err);
    must_be_good(s, "a.2", &a);
    must_be_good(s, "b.2", &b);
    free(a.data);
    free(b.data);
}

static void test_damaged_files_of_a_point_are_named(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    static const char *const names[] = {"point.json", "vm.json", "d.mf"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct disk_image a = image_of(MIB / 4, i);
        SCOPED_FREE char *id = xasprintf("p.%zu", i);
        SCOPED_FREE char *path = xasprintf("%s/manifests/%s/%s", s->path, id, names[i]);
        MUST(backup_image(s->store, id, &a, NULL, NULL, &err), &err);
        change_bytes(path, 1, 1, 1);
        free(a.data);
    }
    struct store_scrub_result r = scrub(s);
    assert_int_equal(r.points_damaged, ARRAY_LEN(names));
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        SCOPED_FREE char *id = xasprintf("p.%zu", i);
        SCOPED_FREE char *path = xasprintf("%s/manifests/%s/%s", s->path, id, names[i]);
        SCOPED_FREE char *damage = damage_of(s, id);
        assert_non_null(damage);
        change_bytes(path, 1, 1, 1); /* brought back */
    }
    r = scrub(s);
    assert_int_equal(r.points_damaged, 0);
    assert_int_equal(r.points_healed, ARRAY_LEN(names));
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        SCOPED_FREE char *id = xasprintf("p.%zu", i);
        assert_null(damage_of(s, id));
    }
}

/* A record of damage that is damaged itself does not make the point a good one, whichever packs are
 * due. */
static void test_an_unreadable_record_of_damage(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    struct disk_image a = image_of(MIB, 1);
    MUST(backup_image(s->store, "a.1", &a, NULL, NULL, &err), &err);
    SCOPED_FREE char *pack = nth_file(s, "packs/", 0);
    change_bytes(pack, PACK_HEADER_BYTES + 5000, 50, 0xff);
    assert_int_equal(scrub(s).points_damaged, 1);
    SCOPED_FREE char *record = nth_file(s, "damage/", 0);
    change_bytes(record, 30, 1, 1);
    SCOPED_FREE char *unread = damage_of(s, "a.1");
    assert_non_null(strstr(unread, "cannot be read"));
    const struct store_scrub_opts opts = {.share = 1 << 16}; /* one name of all: hardly this one */
    struct store_scrub_result r;
    reopen(s);
    MUST(store_scrub(s->store, &opts, &r, &err), &err);
    assert_int_equal(r.points_healed, 0);
    assert_int_equal(r.points_damaged, 1);
    SCOPED_FREE char *again = damage_of(s, "a.1");
    assert_non_null(strstr(again, "the first at d offset "));
    free(a.data);
}

/* ---- shares */

static void test_shares_read_everything_once(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    enum { SHARE = 7, POINTS = 12 };
    for (unsigned i = 0; i < POINTS; i++) {
        struct disk_image a = image_of(MIB / 4, i);
        SCOPED_FREE char *id = xasprintf("p.%u", i);
        MUST(backup_image(s->store, id, &a, NULL, NULL, &err), &err);
        free(a.data);
    }
    uint64_t packs = 0, most = 0;
    struct store_scrub_opts opts = {.share = SHARE};
    for (unsigned round = 0; round < SHARE; round++) {
        struct store_scrub_result r;
        reopen(s);
        MUST(store_scrub(s->store, &opts, &r, &err), &err);
        packs += r.packs;
        most = r.packs > most ? r.packs : most;
    }
    assert_true(packs >= POINTS && packs <= POINTS + 1); /* 7 shares overlap by 3 of 65536 names */
    assert_true(most < POINTS);
    /* A cursor that cannot be read begins anew. */
    SCOPED_FREE char *cursor = xasprintf("%s/scrub/cursor", s->path);
    assert_int_equal(chmod(cursor, 0600), 0);
    assert_int_equal(truncate(cursor, 3), 0);
    assert_int_equal(scrub(s).packs, POINTS);
}

static void test_bandwidth_is_kept_to(void **state)
{
    struct scene *s = *state;
    struct err err = ERR_INIT;
    struct disk_image a = image_of(MIB, 1);
    MUST(backup_image(s->store, "a.1", &a, NULL, NULL, &err), &err);
    struct store_scrub_result r;
    struct store_scrub_opts opts = {.bytes_per_s = 2 * MIB};
    struct timespec begin, end;
    (void)clock_gettime(CLOCK_MONOTONIC, &begin);
    MUST(store_scrub(s->store, &opts, &r, &err), &err);
    (void)clock_gettime(CLOCK_MONOTONIC, &end);
    double spent =
        (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
    assert_true(spent >= (double)r.bytes_read / (2 * MIB) - 0.01);
    free(a.data);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_single_bit_of_a_frame_is_named),
        T(test_single_bits_heal_by_themselves),
        T(test_the_next_backup_heals),
        T(test_a_second_copy_heals),
        T(test_ends_of_packs_are_repaired),
        T(test_ends_of_sealed_packs_are_repaired),
        T(test_a_repaired_pack_has_its_damaged_frames),
        T(test_a_pack_cut_in_its_frames_is_stored_anew),
        T(test_a_missing_pack_is_named),
        T(test_damaged_files_of_a_point_are_named),
        T(test_an_unreadable_record_of_damage),
        T(test_shares_read_everything_once),
        T(test_bandwidth_is_kept_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

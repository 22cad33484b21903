/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole manifest file, put into a repository whose records vouch for it, and read through the
 * public interface. The packs it names do not exist or are not what it says: reading must fail, not
 * crash.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/file.h"
#include "proto/base/log.h"
#include "worker/store/bytes.h"
#include "worker/store/fate.h"
#include "worker/store/manifest.h"
#include "worker/store/record.h"
#include "worker/store/repo.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[] = "/tmp/oxbow-fuzz-XXXXXX";
static struct store *store;

static void clean_up(void)
{
    static const char *const files[] = {"fate/golden.2", "manifests/golden.2/disk-a.mf",
                                        "manifests/golden.2/point.json", "repo.json"};
    static const char *const dirs[] = {"manifests/golden.2",
                                       "packs",
                                       "manifests",
                                       "fate",
                                       "deleted",
                                       "index",
                                       "sessions",
                                       "pins",
                                       "marks",
                                       "protected",
                                       "damage",
                                       "scrub",
                                       "keys",
                                       "deleting"};
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        (void)unlinkat(store->dirfd, files[i], 0);
    for (size_t i = 0; i < ARRAY_LEN(dirs); i++)
        (void)unlinkat(store->dirfd, dirs[i], AT_REMOVEDIR);
    store_free(store);
    (void)rmdir(dir);
}

static void set_up(void)
{
    struct err err = ERR_INIT;
    log_set_level(LOG_LEVEL_ERROR);
    if (!mkdtemp(dir) || !(store = store_init(dir, NULL, &err)) ||
        mkdirat(store->dirfd, "manifests/golden.2", 0700) != 0)
        abort();
    (void)atexit(clean_up);
}

static void put(const char *path, const void *data, size_t len)
{
    int fd = openat(store->dirfd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    struct err err = ERR_INIT;
    if (fd < 0 || !file_write_full(fd, data, len, &err))
        abort();
    (void)close(fd);
}

/* Make the checksums of the file right, and the records that vouch for it. */
static bool vouch(uint8_t *data, size_t size)
{
    static char id[] = "disk-a", session[] = "golden.2", name[] = "n";
    if (size < MANIFEST_HEADER_BYTES + TRAILER_BYTES)
        return false;
    memcpy(data + 16, store->repo_id, 16);
    put_u32(data + 60, crc32c(data, 60));
    uint8_t *end = data + size - TRAILER_BYTES;
    struct trailer t = {.file_len = size, .tail_offset = get_u64(end + 8)};
    if (t.tail_offset < MANIFEST_HEADER_BYTES || t.tail_offset > size - TRAILER_BYTES)
        return false;
    t.tail_len = (uint32_t)(size - TRAILER_BYTES - t.tail_offset);
    uint8_t *tail = data + t.tail_offset;
    /* The digests of the pages, too, wherever they are. */
    uint32_t packs = t.tail_len > 48 ? get_u32(tail + 40) : 0;
    uint32_t pages = t.tail_len > 48 ? get_u32(tail + 44) : 0;
    for (uint64_t i = 0; i < pages; i++) {
        uint64_t at = 304 + (uint64_t)packs * PACK_REF_BYTES + i * 64;
        if (at + 64 > t.tail_len)
            break;
        uint64_t offset = get_u64(tail + at + 8), len = get_u32(tail + at + 16);
        if (offset < size && len <= size - offset)
            digest_sha256(data + offset, (size_t)len, tail + at + 32);
    }
    digest_sha256(tail, t.tail_len, t.tail_digest);
    trailer_encode(&t, TRAILER_MANIFEST, end);

    struct record_disk disk = {.disk = {.id = id, .size_bytes = get_u64(tail + 16)}};
    if (t.tail_len < 24 || disk.disk.size_bytes > STORE_DISK_BYTES_MAX)
        return false;
    memcpy(disk.manifest_digest, t.tail_digest, DIGEST_BYTES);
    struct point_record record = {
        .info = {.id = session, .vm_id = name, .vm_name = name, .worker = name},
        .n_disks = 1,
        .disks = &disk};
    memcpy(record.repository, store->repo.uuid, sizeof record.repository);
    struct err err = ERR_INIT;
    size_t len;
    SCOPED_FREE char *text = point_record_encode(&record, NULL, NULL, &len, &err);
    uint8_t digest[DIGEST_BYTES];
    char fate[FATE_TEXT_MAX];
    digest_sha256(text, len, digest);
    struct fate commit = fate_new(FATE_COMMIT, digest);
    put("manifests/golden.2/disk-a.mf", data, size);
    put("manifests/golden.2/point.json", text, len);
    put("fate/golden.2", fate, fate_encode(&commit, fate));
    return true;
}

static void read_disk(struct store_reader *reader)
{
    struct err err = ERR_INIT;
    uint64_t size = store_reader_size(reader);
    SCOPED_EXTENTS struct extents map = EXTENTS_INIT;
    if (store_disk_extents(reader, 0, size, &map, &err)) {
        uint64_t at = 0;
        for (size_t i = 0; i < map.count; i++)
            at += map.items[i].len;
        if (at != size)
            __builtin_trap();
    }
    uint8_t buf[3 * STORE_BLOCK_BYTES];
    for (size_t i = 0; i < map.count && i < 4; i++) {
        uint64_t offset = map.items[i].offset, rest = size - offset;
        err_clear(&err);
        if (store_disk_read(reader, buf, rest < sizeof buf ? (size_t)rest : sizeof buf, offset,
                            &err) &&
            map.items[i].is_data)
            __builtin_trap(); /* there are no packs here */
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!store)
        set_up();
    uint8_t *copy = xmalloc(size + 1);
    memcpy(copy, data, size);
    bool ok = vouch(copy, size);
    free(copy);
    if (!ok)
        return 0;
    struct err err = ERR_INIT;
    SCOPED(store_point) struct store_point *point = store_point_open(store, "golden.2", &err);
    if (!point)
        __builtin_trap();
    SCOPED(store_reader) struct store_reader *reader = store_disk_open(point, "disk-a", &err);
    if (reader)
        read_disk(reader);
    err_clear(&err);
    (void)store_verify_point(store, "golden.2", &(struct store_verify_opts){.threads = 1}, NULL,
                             &err);
    return 0;
}

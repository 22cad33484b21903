/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One step of the quick benchmark of the repository, see store-quick.
 *
 *     store_quick limit IMAGE
 *         What must be done for the image, on one core: "zstd" alone, with "hash", and with
 *         encryption too ("limit"); and the other way: "unzstd" alone, and all three ("unlimit").
 *     store_quick backup REPO ID IMAGE THREADS [PARENT]
 *     store_quick restore REPO ID TARGET THREADS        TARGET "-" discards
 *     store_quick verify REPO ID THREADS
 *     store_quick key FILE                              a key file
 *
 * With $OXBOW_KEY_FILE the repository is encrypted.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zstd.h>

#include "proto/base/clock.h"
#include "worker/copy/copy.h"
#include "worker/store/crypt.h"
#include "worker/store/digest.h"

enum { FRAME = 1 << 20, BLOCK = STORE_BLOCK_BYTES };

static int64_t now_ms(void)
{
    return clock_mono_ms(clock_system());
}

static double cpu_seconds(void)
{
    struct rusage u;
    (void)getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void report(const char *what, uint64_t bytes, int64_t ms, double cpu)
{
    struct rusage u;
    (void)getrusage(RUSAGE_SELF, &u);
    double mib = (double)bytes / (1 << 20);
    (void)printf(
        "%-10s %8.0f MiB %7.2f s wall %7.2f s cpu %8.0f MiB/s %7.0f MiB/cpu-s  rss %ld MiB\n", what,
        mib, (double)ms / 1e3, cpu, mib * 1e3 / (double)(ms ? ms : 1), mib / (cpu > 0 ? cpu : 1e-9),
        u.ru_maxrss / 1024);
}

/* The way back, one frame at a time. */
struct undo {
    double zstd_s, all_s;
    uint64_t bytes;
};

/* What the processor must do for the image whatever the program: each pass reads the image, drops
 * zero blocks, compresses; `hash` and `seal` add the digests and the encryption. With `undo`, all
 * of it is undone too, and that is what is timed. */
static bool pass(const char *what, const char *path, bool hash, bool seal, struct undo *undo)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return perror(path), false;
    uint8_t *raw = xmalloc(FRAME), *out = xmalloc(ZSTD_compressBound(FRAME));
    uint8_t *leaves = xmalloc(FRAME / BLOCK * DIGEST_BYTES), tag[CRYPT_TAG_BYTES];
    static const uint8_t uuid[16], salt[CRYPT_SALT_BYTES];
    struct crypt_secrets secrets;
    struct envelope envelope;
    crypt_secrets_new(&secrets);
    SCOPED(crypt) struct crypt *crypt = crypt_new(uuid, &secrets);
    envelope_new(crypt, &envelope);
    SCOPED(hasher) struct hasher *hasher = hasher_new(seal ? crypt_id_key(crypt) : NULL);
    ZSTD_CCtx *zstd = ZSTD_createCCtx();
    ZSTD_DCtx *unzstd = ZSTD_createDCtx();
    bool ok = true;
    const uint8_t *blocks[FRAME / BLOCK];
    for (size_t i = 0; i < FRAME / BLOCK; i++)
        blocks[i] = raw + i * BLOCK;
    uint64_t bytes = 0;
    ssize_t n;
    int64_t start = now_ms();
    double cpu = cpu_seconds();
    size_t filled = 0;
    while ((n = read(fd, raw + filled, FRAME - filled)) > 0) {
        size_t kept = filled;
        for (size_t at = filled; at + BLOCK <= filled + (size_t)n; at += BLOCK) {
            if (block_is_zero(raw + at, BLOCK))
                continue;
            if (kept != at)
                memcpy(raw + kept, raw + at, BLOCK);
            kept += BLOCK;
        }
        bytes += kept - filled;
        filled = kept;
        if (filled < FRAME)
            continue;
        if (hash)
            hasher_leaves(hasher, blocks, FRAME / BLOCK, leaves);
        size_t len = ZSTD_compressCCtx(zstd, out, ZSTD_compressBound(FRAME), raw, FRAME, 1);
        if (seal)
            envelope_seal(crypt, &envelope, salt, (struct crypt_aad){0}, out, len, out, tag);
        filled = 0;
        if (!undo)
            continue;
        double begin = cpu_seconds();
        ok = ok && envelope_open(crypt, &envelope, salt, (struct crypt_aad){0}, out, len, out, tag);
        double opened = cpu_seconds();
        ok = ok && ZSTD_decompressDCtx(unzstd, raw, FRAME, out, len) == FRAME;
        undo->zstd_s += cpu_seconds() - opened;
        hasher_leaves(hasher, blocks, FRAME / BLOCK, leaves);
        undo->all_s += cpu_seconds() - begin;
        undo->bytes += FRAME;
    }
    if (undo) {
        report("unzstd", undo->bytes, (int64_t)(undo->zstd_s * 1e3), undo->zstd_s);
        report(what, undo->bytes, (int64_t)(undo->all_s * 1e3), undo->all_s);
    } else {
        report(what, bytes, now_ms() - start, cpu_seconds() - cpu);
    }
    ZSTD_freeCCtx(zstd);
    ZSTD_freeDCtx(unzstd);
    free(leaves);
    free(raw);
    free(out);
    (void)close(fd);
    return ok;
}

static int limit(const char *path)
{
    struct undo undo = {0};
    bool ok = pass("zstd", path, false, false, NULL) && pass("hash", path, true, false, NULL) &&
              pass("limit", path, true, true, NULL) && pass("unlimit", path, true, true, &undo);
    return ok ? 0 : 1;
}

static struct store_opts key_opts(void)
{
    struct store_opts opts = {0};
    store_opts_from_environment(&opts);
    opts.encrypt = opts.key_file || opts.passphrase_file;
    return opts;
}

static struct store_reader *open_disk(struct store *store, const char *id, struct err *err)
{
    SCOPED(store_point) struct store_point *point = store_point_open(store, id, err);
    return point ? store_disk_open(point, store_point_disk(point, 0)->id, err) : NULL;
}

static bool backup(char **args, const char *parent_id, struct err *err)
{
    int64_t start = now_ms();
    struct store_opts key = key_opts();
    SCOPED(store) struct store *store = store_open(args[0], &key, err);
    if (!store && err->code == ERR_NOT_FOUND) {
        err_clear(err);
        store = store_init(args[0], &key, err);
    }
    SCOPED(source)
    struct source *from =
        store ? source_file_open(args[2], &(struct source_file_opts){.keep_page_cache = true}, err)
              : NULL;
    if (!from)
        return false;
    SCOPED(store_reader) struct store_reader *parent = NULL;
    if (parent_id && !(parent = open_disk(store, parent_id, err)))
        return false;
    struct store_session_opts so = {.id = args[1], .vm_id = "bench", .vm_name = "bench"};
    SCOPED(store_session) struct store_session *session = store_session_begin(store, &so, err);
    if (!session)
        return false;
    struct store_disk_opts dopts = {.id = "disk", .size_bytes = from->size_bytes, .parent = parent};
    struct store_disk *disk = store_disk_begin(session, &dopts, err);
    struct copy_opts copts = {.threads = (unsigned)strtoul(args[3], NULL, 10)};
    struct copy_stats stats;
    if (!disk || !copy_backup(from, session, disk, &copts, &stats, err) ||
        !store_disk_finish(disk, NULL, err) || !store_session_commit(session, NULL, err))
        return false;
    report("backup", stats.data_bytes, now_ms() - start, cpu_seconds());
    (void)printf(
        "           zero %.0f unchanged %.0f dedup %.0f new %.0f stored %.1f MiB, %llu chunks\n",
        (double)stats.store.zero_bytes / (1 << 20), (double)stats.store.unchanged_bytes / (1 << 20),
        (double)stats.store.dedup_bytes / (1 << 20),
        (double)stats.store.stored_raw_bytes / (1 << 20),
        (double)stats.store.stored_bytes / (1 << 20), (unsigned long long)stats.store.chunks);
    return true;
}

static bool restore(char **args, struct err *err)
{
    int64_t start = now_ms();
    struct store_opts key = key_opts();
    SCOPED(store) struct store *store = store_open(args[0], &key, err);
    SCOPED(store_reader)
    struct store_reader *reader = store ? open_disk(store, args[1], err) : NULL;
    if (!reader)
        return false;
    uint64_t size = store_reader_size(reader);
    struct target_file_opts topts = {.create = true, .size_bytes = size};
    SCOPED(target)
    struct target *to =
        strcmp(args[2], "-") == 0 ? target_null_open(size) : target_file_open(args[2], &topts, err);
    struct copy_opts copts = {.threads = (unsigned)strtoul(args[3], NULL, 10)};
    struct copy_stats stats;
    if (!to || !copy_restore(reader, to, &copts, &stats, err))
        return false;
    report("restore", stats.data_bytes, now_ms() - start, cpu_seconds());
    return true;
}

static bool verify(char **args, struct err *err)
{
    int64_t start = now_ms();
    struct store_opts key = key_opts();
    SCOPED(store) struct store *store = store_open(args[0], &key, err);
    struct store_verify_opts opts = {.threads = (unsigned)strtoul(args[2], NULL, 10)};
    struct store_verify_result result;
    if (!store || !store_verify_point(store, args[1], &opts, &result, err))
        return false;
    report("verify", result.checked_bytes, now_ms() - start, cpu_seconds());
    return true;
}

int main(int argc, char **argv)
{
    struct err err = ERR_INIT;
    bool ok = false;
    if (argc == 3 && strcmp(argv[1], "limit") == 0)
        return limit(argv[2]);
    if (argc == 3 && strcmp(argv[1], "key") == 0)
        ok = store_key_file_make(argv[2], &err);
    else if ((argc == 6 || argc == 7) && strcmp(argv[1], "backup") == 0)
        ok = backup(argv + 2, argc == 7 ? argv[6] : NULL, &err);
    else if (argc == 6 && strcmp(argv[1], "restore") == 0)
        ok = restore(argv + 2, &err);
    else if (argc == 5 && strcmp(argv[1], "verify") == 0)
        ok = verify(argv + 2, &err);
    else
        return (void)fprintf(stderr, "usage: see the head of store_quick.c\n"), 2;
    if (!ok)
        (void)fprintf(stderr, "store_quick: %s\n", err.message);
    return ok ? 0 : 1;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our client in the benchmark of image transfers, see `image-transfer`.
 *
 *     image_transfer null|file|repository|upload|restore URL SIZE CA tcp|unix THREADS [PATH]
 *
 * Reads all data into nothing, a new raw file, a new restore point; or writes it from a raw file or
 * the last restore point to a disk that is empty. Writes bytes, milliseconds, CPU seconds and
 * connections. CA: "-" = none, then http:// is taken too.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "proto/base/clock.h"
#include "proto/base/id.h"
#include "worker/copy/transfer.h"
#include "worker/ovirt/imageio.h"

#define PIECE_BYTES (UINT64_C(4) << 20)

static int complain(const struct err *err)
{
    (void)fprintf(stderr, "image_transfer: %s: %s\n", err_code_name(err->code), err->message);
    return 1;
}

struct client {
    const char *command, *url, *ca, *path;
    uint64_t size;
    bool local;
    unsigned threads;
};

/* Data, piece by piece, by some threads. */
struct pump {
    struct source *source;
    struct target *target; /* NULL = nothing */
    const struct imageio_map *map;
    pthread_mutex_t lock; /* guards at, offset, err */
    size_t at;            /* in map */
    uint64_t offset;      /* the next piece */
    struct err err;
    atomic_uint_fast64_t bytes;
};

/* The next piece of data; 0 = there is no more. */
static size_t next_piece(struct pump *p, uint64_t *ret_offset)
{
    size_t len = 0;
    (void)pthread_mutex_lock(&p->lock);
    while (len == 0 && p->at < p->map->count && !err_is_set(&p->err)) {
        const struct imageio_extent *e = &p->map->v[p->at];
        uint64_t from = p->offset > e->offset ? p->offset : e->offset, end = e->offset + e->len;
        if (e->zero || from >= end) {
            p->at++;
            continue;
        }
        uint64_t to = from - from % PIECE_BYTES + PIECE_BYTES;
        to = to < end ? to : end;
        len = (size_t)(to - from);
        *ret_offset = from;
        p->offset = to;
    }
    (void)pthread_mutex_unlock(&p->lock);
    return len;
}

static void *move_pieces(void *arg)
{
    struct pump *p = arg;
    SCOPED_FREE uint8_t *buf = xaligned(4096, PIECE_BYTES);
    uint64_t offset = 0;
    size_t len;
    while ((len = next_piece(p, &offset)) > 0) {
        struct err err = ERR_INIT;
        if (!p->source->ops->pread(p->source, buf, len, offset, &err) ||
            (p->target && !p->target->ops->pwrite(p->target, buf, len, offset, &err))) {
            (void)pthread_mutex_lock(&p->lock);
            err_keep_first(&p->err, &err);
            (void)pthread_mutex_unlock(&p->lock);
        }
        atomic_fetch_add(&p->bytes, len);
    }
    return NULL;
}

static bool pump(struct source *source, struct target *target, const struct imageio_map *map,
                 unsigned threads, uint64_t *ret_bytes, struct err *err)
{
    struct pump p = {
        .source = source, .target = target, .map = map, .lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_t ids[64];
    for (unsigned i = 0; i < threads; i++) {
        if (pthread_create(&ids[i], NULL, move_pieces, &p) != 0)
            abort();
    }
    for (unsigned i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    *err = p.err;
    *ret_bytes = atomic_load(&p.bytes);
    return !err_is_set(err) && (!target || target->ops->flush(target, err));
}

static bool store_all(struct source *source, const char *path, unsigned threads,
                      uint64_t *ret_bytes, struct err *err)
{
    char id[ID_BYTES];
    id_new(id);
    SCOPED(store) struct store *store = store_open(path, NULL, err);
    SCOPED_FREE char *name = xasprintf("%s.1", id);
    const struct store_session_opts opts = {
        .id = name, .vm_id = id, .vm_name = "bench", .worker = "bench"};
    struct store_session *session = store ? store_session_begin(store, &opts, err) : NULL;
    const struct store_disk_opts disk_opts = {.id = id, .size_bytes = source->size_bytes};
    struct store_disk *disk = session ? store_disk_begin(session, &disk_opts, err) : NULL;
    struct copy_stats stats = {0};
    bool ok =
        disk &&
        copy_backup(source, session, disk, &(struct copy_opts){.threads = threads}, &stats, err) &&
        store_disk_finish(disk, NULL, err) && store_session_commit(session, NULL, err);
    store_session_free(session);
    *ret_bytes = stats.data_bytes;
    return ok;
}

/* --- Downloads ------------------------------------------------------------------------------- */
static bool download(struct imageio *io, const struct client *c, uint64_t *ret_bytes,
                     struct err *err)
{
    struct imageio_map map = {0};
    if (!imageio_map(io, IMAGEIO_ZERO, &map, err))
        return false;
    SCOPED(source) struct source *source = source_transfer_open(io, &map, c->size);
    const struct target_file_opts opts = {.create = true, .size_bytes = c->size, .is_zero = true};
    SCOPED(target) struct target *target = NULL;
    bool ok = true;
    if (strcmp(c->command, "file") == 0)
        ok = (target = target_file_open(c->path, &opts, err));
    if (strcmp(c->command, "repository") == 0)
        ok = store_all(source, c->path, c->threads, ret_bytes, err);
    else
        ok = ok && pump(source, target, &map, c->threads, ret_bytes, err);
    imageio_map_done(&map);
    return ok;
}

/* --- Uploads --------------------------------------------------------------------------------- */
static bool map_file(struct source *source, struct imageio_map *ret, struct err *err)
{
    SCOPED_EXTENTS struct extents list = EXTENTS_INIT;
    if (!source->ops->extents(source, 0, source->size_bytes, &list, err))
        return false;
    ret->v = xcalloc(list.count, sizeof *ret->v);
    ret->count = list.count;
    for (size_t i = 0; i < list.count; i++)
        ret->v[i] = (struct imageio_extent){.offset = list.items[i].offset,
                                            .len = list.items[i].len,
                                            .zero = !list.items[i].is_data};
    return true;
}

static bool upload_file(struct target *target, const struct client *c, uint64_t *ret_bytes,
                        struct err *err)
{
    SCOPED(source) struct source *source = source_file_open(c->path, NULL, err);
    struct imageio_map map = {0};
    bool ok = source && map_file(source, &map, err) &&
              pump(source, target, &map, c->threads, ret_bytes, err);
    imageio_map_done(&map);
    return ok;
}

static bool upload_point(struct target *target, const struct client *c, uint64_t *ret_bytes,
                         struct err *err)
{
    SCOPED(store) struct store *store = store_open(c->path, NULL, err);
    struct store_point_list list = {0};
    if (!store || !store_points_list(store, &(struct store_point_filter){0}, &list, err))
        return false;
    SCOPED(store_point) struct store_point *point = NULL;
    if (list.count == 0)
        err_set(err, ERR_NOT_FOUND, 0, "there is no restore point in %s", c->path);
    else
        point = store_point_open(store, list.items[list.count - 1].id, err);
    store_point_list_done(&list);
    SCOPED(store_reader)
    struct store_reader *reader =
        point ? store_disk_open(point, store_point_disk(point, 0)->id, err) : NULL;
    struct copy_stats stats = {0};
    if (!reader ||
        !copy_restore(reader, target, &(struct copy_opts){.threads = c->threads}, &stats, err))
        return false;
    *ret_bytes = stats.data_bytes;
    return true;
}

static double cpu_seconds(void)
{
    struct rusage u;
    (void)getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static bool transfer(struct imageio *io, const struct client *c, uint64_t *ret_bytes,
                     struct err *err)
{
    if (imageio_ability(io)->is_local != c->local)
        return err_set(err, ERR_INTERNAL, 0, "not by the way that was meant");
    bool of_file = strcmp(c->command, "upload") == 0;
    if (!of_file && strcmp(c->command, "restore") != 0)
        return download(io, c, ret_bytes, err);
    SCOPED(target) struct target *target = target_transfer_open(io, c->size, true);
    return of_file ? upload_file(target, c, ret_bytes, err)
                   : upload_point(target, c, ret_bytes, err);
}

static int run(const struct client *c)
{
    struct err err = ERR_INIT;
    bool has_ca = strcmp(c->ca, "-") != 0;
    const struct imageio_conf conf = {.url = c->url,
                                      .ca_file = has_ca ? c->ca : NULL,
                                      .insecure = !has_ca,
                                      .size_bytes = c->size,
                                      .no_unix_socket = !c->local};
    int64_t start = clock_mono_ms(clock_system());
    SCOPED(imageio) struct imageio *io = imageio_open(&conf, &err);
    uint64_t bytes = 0;
    if (!io || !transfer(io, c, &bytes, &err))
        return complain(&err);
    int64_t ms = clock_mono_ms(clock_system()) - start;
    unsigned opened = 0, peak = 0;
    imageio_connections(io, &opened, &peak);
    (void)printf("{\"bytes\": %" PRIu64 ", \"ms\": %" PRId64 ", \"cpu\": %.3f, \"opened\": %u, "
                 "\"peak\": %u, \"allowed\": %u}\n",
                 bytes, ms, cpu_seconds(), opened, peak, imageio_ability(io)->connections_max);
    return 0;
}

int main(int argc, char **argv)
{
    static const char *const commands[] = {"null", "file", "repository", "upload", "restore"};
    size_t i = 0;
    while (argc > 1 && i < ARRAY_LEN(commands) && strcmp(argv[1], commands[i]) != 0)
        i++;
    if (argc != (i == 0 ? 7 : 8) || i == ARRAY_LEN(commands)) {
        (void)fprintf(stderr, "image_transfer null|file|...: see image-transfer\n");
        return 2;
    }
    const struct client c = {.command = argv[1],
                             .url = argv[2],
                             .size = strtoull(argv[3], NULL, 10),
                             .ca = argv[4],
                             .local = strcmp(argv[5], "unix") == 0,
                             .threads = (unsigned)strtoul(argv[6], NULL, 10),
                             .path = argc == 8 ? argv[7] : NULL};
    return c.threads < 1 || c.threads > 64 ? 2 : run(&c);
}

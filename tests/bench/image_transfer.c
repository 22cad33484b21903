/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two ends of the benchmark of image transfers, see `image-transfer`.
 *
 *     image_transfer serve IMAGE DIR SIZE  a qcow2 image behind the sandbox's endpoint: plain TCP,
 * TLS, unix socket. Writes where as JSON, then answers lines: "counters" = the most connections of
 * the ticket at once, and how many are open now. Ends with its input image_transfer null URL SIZE
 * CA tcp|unix THREADS image_transfer repository URL SIZE CA tcp|unix THREADS REPO read all data,
 * into nothing or into a new restore point; writes bytes, milliseconds, CPU seconds and connections
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
#include "tests/sandbox/block/block.h"
#include "tests/sandbox/imageio/imageio.h"
#include "worker/copy/transfer.h"
#include "worker/ovirt/imageio.h"

#define PIECE_BYTES (UINT64_C(4) << 20)

static int complain(const struct err *err)
{
    (void)fprintf(stderr, "image_transfer: %s: %s\n", err_code_name(err->code), err->message);
    return 1;
}

/* --- The server ------------------------------------------------------------------------------ */
struct watch {
    struct imageio_server *servers[2];
    const char *ticket;
    atomic_bool ends;
    atomic_uint peak;
};

static unsigned connections(struct watch *w)
{
    unsigned sum = 0;
    for (size_t i = 0; i < ARRAY_LEN(w->servers); i++) {
        struct imageio_ticket_info info = {0};
        struct err err = ERR_INIT;
        if (imageio_ticket_get(w->servers[i], w->ticket, &info, &err))
            sum += info.connections;
    }
    return sum;
}

static void *watch_peak(void *arg)
{
    struct watch *w = arg;
    while (!atomic_load(&w->ends)) {
        unsigned now = connections(w);
        if (now > atomic_load(&w->peak))
            atomic_store(&w->peak, now);
        clock_sleep_ms(clock_system(), 2);
    }
    return NULL;
}

static bool start(struct watch *w, const char *dir, const char *uri, const char *socket,
                  uint64_t size, struct err *err)
{
    SCOPED_FREE char *cert = xasprintf("%s/cert.pem", dir);
    SCOPED_FREE char *key = xasprintf("%s/key.pem", dir);
    const struct imageio_ticket ticket = {.id = w->ticket,
                                          .size_bytes = size,
                                          .can_read = true,
                                          .uri = uri,
                                          .timeout_s = 3600,
                                          .inactivity_timeout_s = 3600};
    const struct imageio_opts plain = {.address = "127.0.0.1"};
    const struct imageio_opts tls = {
        .address = "127.0.0.1", .cert_path = cert, .key_path = key, .unix_socket = socket};
    w->servers[0] = imageio_server_start(&plain, err);
    w->servers[1] = w->servers[0] ? imageio_server_start(&tls, err) : NULL;
    return w->servers[1] && imageio_ticket_add(w->servers[0], &ticket, err) &&
           imageio_ticket_add(w->servers[1], &ticket, err);
}

static void answer(struct watch *w, const struct block_export *export, const char *socket)
{
    pthread_t thread;
    char line[64];
    (void)printf("{\"plain\": %u, \"tls\": %u, \"ticket\": \"%s\", \"nbd\": \"%s\", "
                 "\"socket\": \"%s\"}\n",
                 imageio_server_port(w->servers[0]), imageio_server_port(w->servers[1]), w->ticket,
                 block_export_uri(export), socket);
    (void)fflush(stdout);
    if (pthread_create(&thread, NULL, watch_peak, w) != 0)
        abort();
    while (fgets(line, sizeof line, stdin)) {
        (void)printf("{\"peak\": %u, \"open\": %u}\n", atomic_exchange(&w->peak, 0),
                     connections(w));
        (void)fflush(stdout);
    }
    atomic_store(&w->ends, true);
    pthread_join(thread, NULL);
}

static int serve(const char *image, const char *dir, uint64_t size)
{
    struct err err = ERR_INIT;
    char id[ID_BYTES];
    id_new(id);
    SCOPED_FREE char *run = xasprintf("%s/export", dir);
    SCOPED_FREE char *socket = xasprintf("%s/imageio.sock", dir);
    struct block_export *export = block_export_start(run, image, BLOCK_QCOW2, false, &err);
    struct watch w = {.ticket = id};
    bool ok = export && start(&w, dir, block_export_uri(export), socket, size, &err);
    if (ok)
        answer(&w, export, socket);
    imageio_server_stop(w.servers[1]);
    imageio_server_stop(w.servers[0]);
    block_export_stop(export);
    return ok ? 0 : complain(&err);
}

/* --- The clients ----------------------------------------------------------------------------- */
struct reading {
    struct source *source;
    const struct imageio_map *map;
    pthread_mutex_t lock; /* guards at, offset, err */
    size_t at;            /* in map */
    uint64_t offset;      /* the next piece */
    struct err err;
    atomic_uint_fast64_t bytes;
};

/* The next piece of data; 0 = there is no more. */
static size_t next_piece(struct reading *r, uint64_t *ret_offset)
{
    size_t len = 0;
    (void)pthread_mutex_lock(&r->lock);
    while (len == 0 && r->at < r->map->count && !err_is_set(&r->err)) {
        const struct imageio_extent *e = &r->map->v[r->at];
        uint64_t from = r->offset > e->offset ? r->offset : e->offset, end = e->offset + e->len;
        if (e->zero || from >= end) {
            r->at++;
            continue;
        }
        uint64_t to = from - from % PIECE_BYTES + PIECE_BYTES;
        to = to < end ? to : end;
        len = (size_t)(to - from);
        *ret_offset = from;
        r->offset = to;
    }
    (void)pthread_mutex_unlock(&r->lock);
    return len;
}

static void *read_pieces(void *arg)
{
    struct reading *r = arg;
    SCOPED_FREE uint8_t *buf = xmalloc(PIECE_BYTES);
    uint64_t offset = 0;
    size_t len;
    while ((len = next_piece(r, &offset)) > 0) {
        struct err err = ERR_INIT;
        if (!r->source->ops->pread(r->source, buf, len, offset, &err)) {
            (void)pthread_mutex_lock(&r->lock);
            if (!err_is_set(&r->err))
                r->err = err;
            (void)pthread_mutex_unlock(&r->lock);
        }
        atomic_fetch_add(&r->bytes, len);
    }
    return NULL;
}

static bool read_all(struct source *source, const struct imageio_map *map, unsigned threads,
                     uint64_t *ret_bytes, struct err *err)
{
    struct reading r = {.source = source, .map = map, .lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_t ids[64];
    for (unsigned i = 0; i < threads; i++) {
        if (pthread_create(&ids[i], NULL, read_pieces, &r) != 0)
            abort();
    }
    for (unsigned i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    *err = r.err;
    *ret_bytes = atomic_load(&r.bytes);
    return !err_is_set(err);
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

static double cpu_seconds(void)
{
    struct rusage u;
    (void)getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

struct client {
    const char *url, *ca, *repository; /* repository: NULL = into nothing */
    uint64_t size;
    bool local;
    unsigned threads;
};

static int read_image(const struct client *c)
{
    struct err err = ERR_INIT;
    const struct imageio_conf conf = {
        .url = c->url, .ca_file = c->ca, .size_bytes = c->size, .no_unix_socket = !c->local};
    int64_t start = clock_mono_ms(clock_system());
    SCOPED(imageio) struct imageio *io = imageio_open(&conf, &err);
    struct imageio_map map = {0};
    if (!io || !imageio_map(io, IMAGEIO_ZERO, &map, &err))
        return complain(&err);
    if (imageio_ability(io)->is_local != c->local)
        return complain((err_set(&err, ERR_INTERNAL, 0, "not by the way that was meant"), &err));
    struct source *source = source_transfer_open(io, &map, c->size);
    uint64_t bytes = 0;
    bool ok = c->repository ? store_all(source, c->repository, c->threads, &bytes, &err)
                            : read_all(source, &map, c->threads, &bytes, &err);
    int64_t ms = clock_mono_ms(clock_system()) - start;
    unsigned opened = 0, peak = 0;
    imageio_connections(io, &opened, &peak);
    source_close(source);
    imageio_map_done(&map);
    if (!ok)
        return complain(&err);
    (void)printf("{\"bytes\": %" PRIu64 ", \"ms\": %" PRId64 ", \"cpu\": %.3f, \"opened\": %u, "
                 "\"peak\": %u, \"allowed\": %u}\n",
                 bytes, ms, cpu_seconds(), opened, peak, imageio_ability(io)->connections_max);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "serve") == 0)
        return serve(argv[2], argv[3], strtoull(argv[4], NULL, 10));
    bool to_store = argc == 8 && strcmp(argv[1], "repository") == 0;
    if (!to_store && !(argc == 7 && strcmp(argv[1], "null") == 0)) {
        (void)fprintf(stderr, "image_transfer serve|null|repository ...: see image-transfer\n");
        return 2;
    }
    const struct client c = {.url = argv[2],
                             .size = strtoull(argv[3], NULL, 10),
                             .ca = argv[4],
                             .local = strcmp(argv[5], "unix") == 0,
                             .threads = (unsigned)strtoul(argv[6], NULL, 10),
                             .repository = to_store ? argv[7] : NULL};
    if (c.threads < 1 || c.threads > 64)
        return 2;
    return read_image(&c);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client of image transfers against the sandbox's endpoint, over TLS and over a unix socket, on
 * a real qcow2 image: reading, writing, maps, and every fault of the protocol. With
 * OXBOW_IMAGEIO_DAEMON (host.h), all but the faults that a script must play, against the real one.
 */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/base/file.h"
#include "proto/base/id.h"
#include "tests/integration/imageio/host.h"
#include "tests/sandbox/block/block.h"
#include "tests/sandbox/block/proc.h"
#include "worker/copy/transfer.h"

enum { MIB = 1 << 20, SIZE = 16 * MIB };

struct fixture {
    char *dir, *cert, *key, *image, *raw, *socket;
    unsigned char *content; /* of the image: a MiB of data, a MiB of nothing, and so on */
    struct block_export *export;
    struct host *host;
    pthread_mutex_t lock; /* guards the four below */
    struct imageio_fault fault;
    unsigned fault_skip, fault_count; /* let so many pass, then fault so many */
    bool hides_refusals;              /* to a PUT: it is cut off with no answer */
    unsigned max_connections;         /* of a host that is started; 0 = 8 */
    unsigned inactivity_s;            /* of tickets that are added; 0 = 60 */
    struct err err;
};

static struct fixture x;

#define OK(call)                                                                                   \
    do {                                                                                           \
        if (!(call))                                                                               \
            fail_msg("%s: %s: %s", #call, err_code_name(x.err.code), x.err.message);               \
    } while (0)

static void expect_error(bool ok, enum err_code code)
{
    if (ok || x.err.code != code)
        fail_msg("expected %s, got %s: %s", err_code_name(code),
                 ok ? "success" : err_code_name(x.err.code), x.err.message);
    err_clear(&x.err);
}

/* --- Fixture --------------------------------------------------------------------------------- */
static struct imageio_fault on_request(void *arg, const struct imageio_request *request)
{
    struct imageio_fault fault = {0};
    (void)arg;
    (void)pthread_mutex_lock(&x.lock);
    if (x.fault_skip > 0) {
        x.fault_skip--;
    } else if (x.fault_count > 0) {
        x.fault_count--;
        fault = x.fault;
        if (x.hides_refusals && strcmp(request->method, "PUT") == 0)
            fault = (struct imageio_fault){.cut = true};
    }
    (void)pthread_mutex_unlock(&x.lock);
    return fault;
}

/* The next `count` requests after `skip` others meet this. */
static void set_fault(unsigned skip, unsigned count, struct imageio_fault fault)
{
    if (host_is_real(x.host) && count > 0)
        skip();
    (void)pthread_mutex_lock(&x.lock);
    x.fault = fault;
    x.fault_skip = skip;
    x.fault_count = count;
    (void)pthread_mutex_unlock(&x.lock);
}

static void make_image(void)
{
    x.image = xasprintf("%s/disk.qcow2", x.dir);
    x.raw = xasprintf("%s/disk.raw", x.dir);
    x.content = xcalloc(1, SIZE);
    for (size_t i = 0; i < SIZE; i++)
        x.content[i] = i / MIB % 2 == 0 ? (unsigned char)(i * 31 + i / 4096 + 1) : 0;
    OK(file_write_atomic(AT_FDCWD, x.raw, x.content, SIZE, 0644, &x.err));
    const char *argv[] = {"qemu-img", "convert", "-q",  "-f",    "raw",
                          "-O",       "qcow2",   x.raw, x.image, NULL};
    OK(proc_run(argv, NULL, &x.err));
}

static void start_export(void)
{
    SCOPED_FREE char *run = xasprintf("%s/export", x.dir);
    OK(x.export = block_export_start(run, x.image, BLOCK_QCOW2, true, &x.err));
}

static void start_host(uint16_t port)
{
    struct imageio_opts opts = {.address = "127.0.0.1",
                                .port = port,
                                .cert_path = x.cert,
                                .key_path = x.key,
                                .unix_socket = x.socket,
                                .max_connections = x.max_connections,
                                .fault = on_request};
    OK(x.host = host_start(&opts, x.dir, &x.err));
}

static int setup(void **state)
{
    (void)state;
    x = (struct fixture){.lock = PTHREAD_MUTEX_INITIALIZER};
    const char *base = getenv("TMPDIR");
    x.dir = xasprintf("%s/imageio-XXXXXX", base && base[0] ? base : "/tmp");
    if (!mkdtemp(x.dir))
        return -1;
    x.cert = xasprintf("%s/cert.pem", x.dir);
    x.key = xasprintf("%s/key.pem", x.dir);
    OK(host_certificate(x.cert, x.key, &x.err));
    make_image();
    char id[ID_BYTES];
    id_new(id);
    x.socket = xasprintf("@oxbow-test-%s", id);
    start_export();
    start_host(0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    host_stop(x.host);
    block_export_stop(x.export);
    const char *argv[] = {"rm", "-rf", x.dir, NULL};
    (void)proc_run(argv, NULL, &x.err);
    free(x.content);
    free(x.cert);
    free(x.key);
    free(x.image);
    free(x.raw);
    free(x.socket);
    free(x.dir);
    return 0;
}

static void add_ticket_of(const char *id, bool write, uint64_t size_bytes)
{
    struct imageio_ticket ticket = {.id = id,
                                    .size_bytes = size_bytes,
                                    .can_read = !write,
                                    .can_write = write,
                                    .uri = block_export_uri(x.export),
                                    .transfer_id = "T-1",
                                    .timeout_s = 300,
                                    .inactivity_timeout_s = x.inactivity_s,
                                    .sparse = true};
    OK(host_add(x.host, &ticket, &x.err));
}

static void add_ticket(const char *id, bool write)
{
    add_ticket_of(id, write, SIZE);
}

/* A client of the ticket; by TCP unless `local`. */
static struct imageio *try_client(const char *ticket, struct imageio_conf conf, bool local)
{
    SCOPED_FREE char *url = xasprintf("https://127.0.0.1:%u/images/%s", host_port(x.host), ticket);
    conf.url = conf.url ? conf.url : url;
    conf.ca_file = conf.ca_file ? conf.ca_file : x.cert;
    conf.size_bytes = SIZE;
    conf.no_unix_socket = !local;
    return imageio_open(&conf, &x.err);
}

static struct imageio *client(const char *ticket, bool write, struct imageio_conf conf)
{
    add_ticket(ticket, write);
    struct imageio *io = NULL;
    OK(io = try_client(ticket, conf, false));
    return io;
}

static void expect_bytes(struct imageio *io, size_t len, uint64_t offset)
{
    SCOPED_FREE unsigned char *buf = xmalloc(len);
    OK(imageio_read(io, buf, len, offset, &x.err));
    assert_memory_equal(buf, x.content + offset, len);
}

/* --- What works ------------------------------------------------------------------------------ */
static void test_reading(void **state)
{
    (void)state;
    SCOPED(imageio) struct imageio *io = client("ro", false, (struct imageio_conf){0});
    const struct imageio_ability *can = imageio_ability(io);
    assert_true(can->can_map && !can->can_zero && !can->is_local && !can->is_proxy);
    assert_int_equal(can->connections_max, 4);
    expect_bytes(io, SIZE, 0);
    expect_bytes(io, 1, SIZE - 1);
    expect_bytes(io, 70000, 123);
    expect_bytes(io, 0, 5);
    char byte;
    expect_error(imageio_read(io, &byte, 1, SIZE, &x.err), ERR_BAD_ARGUMENT);
    unsigned opened = 0, peak = 0;
    imageio_connections(io, &opened, &peak);
    assert_int_equal(opened, 1); /* kept all along */
}

static void test_the_map(void **state)
{
    (void)state;
    SCOPED(imageio) struct imageio *io = client("ro", false, (struct imageio_conf){0});
    struct imageio_map map;
    OK(imageio_map(io, IMAGEIO_ZERO, &map, &x.err));
    assert_int_equal(map.count, SIZE / MIB);
    for (size_t i = 0; i < map.count; i++) {
        assert_int_equal(map.v[i].offset, i * MIB);
        assert_int_equal(map.v[i].len, MIB);
        assert_int_equal(map.v[i].zero, i % 2 == 1);
        assert_true(map.v[i].dirty);
    }
    imageio_map_done(&map);
    expect_error(imageio_map(io, IMAGEIO_DIRTY, &map, &x.err), ERR_UNSUPPORTED);
}

/* By Python's hashlib, of make_image()'s content. */
static void test_the_checksum(void **state)
{
    (void)state;
    char hex[IMAGEIO_CHECKSUM_CHARS];
    SCOPED(imageio) struct imageio *io = client("ro", false, (struct imageio_conf){0});
    OK(imageio_checksum(io, hex, &x.err));
    assert_string_equal(hex, "40d81d36c8f30710fd092d8ad5a9135364a597b1ee99628fb97b88366d3f20ce");
}

static void test_the_unix_socket(void **state)
{
    (void)state;
    add_ticket("ro", false);
    SCOPED(imageio) struct imageio *io = NULL;
    OK(io = try_client("ro", (struct imageio_conf){0}, true));
    assert_true(imageio_ability(io)->is_local);
    expect_bytes(io, SIZE, 0);
    struct imageio_map map;
    OK(imageio_map(io, IMAGEIO_ZERO, &map, &x.err));
    assert_int_equal(map.count, SIZE / MIB);
    imageio_map_done(&map);
}

static void test_writing(void **state)
{
    (void)state;
    {
        SCOPED(imageio) struct imageio *io = client("rw", true, (struct imageio_conf){0});
        assert_true(imageio_ability(io)->can_zero && imageio_ability(io)->can_flush);
        SCOPED(target) struct target *to = target_transfer_open(io, SIZE, false);
        for (size_t i = 0; i < 3 * MIB; i++)
            x.content[5 * MIB + 4096 + i] = (unsigned char)(i * 7 + 3);
        memset(x.content + 12 * MIB, 0, MIB);
        OK(to->ops->pwrite(to, x.content + 5 * MIB + 4096, 3 * MIB, 5 * MIB + 4096, &x.err));
        OK(to->ops->zero(to, 12 * MIB, MIB, &x.err));
        OK(to->ops->flush(to, &x.err));
        expect_bytes(io, SIZE, 0);
    }
    block_export_stop(TAKE(x.export));
    OK(file_write_atomic(AT_FDCWD, x.raw, x.content, SIZE, 0644, &x.err));
    const char *argv[] = {"qemu-img", "compare", "-q",  "-f",    "raw",
                          "-F",       "qcow2",   x.raw, x.image, NULL};
    OK(proc_run(argv, NULL, &x.err));
}

/* The image, by a copy of all its data over all the connections that the host allows. */
static void test_a_copy(void **state)
{
    (void)state;
    host_stop(TAKE(x.host));
    x.max_connections = 3;
    start_host(0);
    SCOPED(imageio) struct imageio *io = client("ro", false, (struct imageio_conf){0});
    assert_int_equal(imageio_ability(io)->connections_max, 3);
    struct imageio_map map;
    OK(imageio_map(io, IMAGEIO_ZERO, &map, &x.err));
    SCOPED_FREE char *root = xasprintf("%s/repository", x.dir);
    SCOPED(store) struct store *store = NULL;
    OK(store = store_init(root, NULL, &x.err));
    struct store_session_opts of = {.id = "t.1", .vm_id = "v", .vm_name = "v", .worker = "w"};
    SCOPED(store_session) struct store_session *session = NULL;
    OK(session = store_session_begin(store, &of, &x.err));
    struct store_disk_opts disk_opts = {.id = "d", .size_bytes = SIZE};
    struct store_disk *disk = NULL;
    OK(disk = store_disk_begin(session, &disk_opts, &x.err));
    SCOPED(source) struct source *from = source_transfer_open(io, &map, SIZE);
    struct copy_opts threads = {.threads = 8};
    struct copy_stats stats = {0};
    OK(copy_backup(from, session, disk, &threads, &stats, &x.err));
    assert_int_equal(stats.data_bytes, SIZE / 2);
    assert_int_equal(stats.hole_bytes, SIZE / 2);
    OK(store_disk_finish(disk, NULL, &x.err));
    OK(store_session_commit(session, NULL, &x.err));
    imageio_map_done(&map);
    unsigned opened = 0, peak = 0;
    imageio_connections(io, &opened, &peak);
    assert_in_range(peak, 1, 3);
    uint64_t transferred = 0;
    unsigned open = 0;
    OK(host_count(x.host, "ro", &transferred, &open, &x.err));
    assert_int_equal(transferred, SIZE / 2); /* the server's own account */
    assert_in_range(open, 1, 3);
}

/* --- What goes wrong ------------------------------------------------------------------------- */
static void test_a_ticket_expired_and_back(void **state)
{
    (void)state;
    SCOPED(imageio) struct imageio *io = client("ro", false, (struct imageio_conf){0});
    expect_bytes(io, MIB, 0);
    OK(host_remove(x.host, "ro", &x.err)); /* the daemon was restarted */
    SCOPED(imageio) struct imageio *brief = NULL;
    brief = try_client("ro", (struct imageio_conf){.retry_budget_ms = 300}, false);
    expect_error(brief, ERR_ENGINE_BUSY);
    add_ticket("ro", false);
    expect_bytes(io, MIB, 2 * MIB);
}

/* While the daemon takes a ticket away (the engine paused the transfer, say), it says so. */
static void test_a_ticket_being_taken_away(void **state)
{
    (void)state;
    SCOPED(imageio) struct imageio *io = client("ro", false, (struct imageio_conf){0});
    set_fault(0, 2, (struct imageio_fault){.status = 403, .text = "Transfer T-1 was canceled"});
    expect_bytes(io, MIB, 0);
    assert_int_equal(x.fault_count, 0);
}

static void test_a_ticket_that_forbids(void **state)
{
    (void)state;
    SCOPED(imageio) struct imageio *io = client("ro", false, (struct imageio_conf){0});
    expect_error(imageio_write(io, x.content, 4096, 0, &x.err), ERR_ENGINE_FAULT);
    expect_bytes(io, 4096, 0);
}

/* Of a ticket that is shorter than the disk. */
static void test_a_range_refused(void **state)
{
    (void)state;
    add_ticket_of("short", false, SIZE / 2);
    SCOPED(imageio) struct imageio *io = NULL;
    OK(io = try_client("short", (struct imageio_conf){0}, false));
    SCOPED_FREE char *buf = xmalloc(MIB);
    expect_error(imageio_read(io, buf, MIB, SIZE / 2 - MIB / 2, &x.err), ERR_ENGINE_PROTOCOL);
    expect_bytes(io, MIB, SIZE / 2 - MIB);
}

/* A connection whose NBD server has died fails for ever: another one works. */
static void test_a_dead_nbd_server(void **state)
{
    (void)state;
    SCOPED(imageio)
    struct imageio *io = client("ro", false, (struct imageio_conf){.retry_budget_ms = 1000});
    expect_bytes(io, MIB, 0);
    block_export_stop(TAKE(x.export));
    SCOPED_FREE char *buf = xmalloc(MIB);
    expect_error(imageio_read(io, buf, MIB, 4 * MIB, &x.err), ERR_IO);
    start_export();
    expect_bytes(io, MIB, 4 * MIB);
}

static void test_a_connection_cut(void **state)
{
    (void)state;
    SCOPED(imageio) struct imageio *io = client("ro", false, (struct imageio_conf){0});
    set_fault(0, 2, (struct imageio_fault){.cut = true, .cut_after_bytes = 300000});
    expect_bytes(io, 2 * MIB, 0);
    set_fault(0, 1, (struct imageio_fault){.cut = true});
    expect_bytes(io, 2 * MIB, 4 * MIB);
    set_fault(0, 1, (struct imageio_fault){.cut = true, .cut_after_bytes = 100});
    struct imageio_map map;
    OK(imageio_map(io, IMAGEIO_ZERO, &map, &x.err));
    assert_int_equal(map.count, SIZE / MIB);
    imageio_map_done(&map);
}

static void test_a_host_that_fails(void **state)
{
    (void)state;
    SCOPED(imageio)
    struct imageio *io = client("rw", true, (struct imageio_conf){.retry_budget_ms = 2000});
    set_fault(0, 2, (struct imageio_fault){.status = 500});
    expect_bytes(io, MIB, 0); /* on a new connection */
    set_fault(0, 1, (struct imageio_fault){.status = 500});
    /* Never again by itself. A body so small is sent before the host hangs up: the cut of a larger
     * one may hide the answer. */
    expect_error(imageio_write(io, x.content, 4096, 0, &x.err), ERR_IO);
    assert_int_equal(x.fault_count, 0);
    set_fault(0, 1000, (struct imageio_fault){.status = 500});
    SCOPED_FREE char *buf = xmalloc(MIB);
    expect_error(imageio_read(io, buf, MIB, 0, &x.err), ERR_IO);
    set_fault(0, 0, (struct imageio_fault){0});
    /* One that cannot zero: written instead. */
    set_fault(0, 1, (struct imageio_fault){.status = 500});
    memset(x.content, 0, MIB);
    OK(imageio_zero(io, 0, MIB, &x.err));
    expect_bytes(io, SIZE, 0);
}

/* A host closes what is idle for too long, without a word. */
static void test_an_idle_connection(void **state)
{
    (void)state;
    x.inactivity_s = 1;
    SCOPED(imageio) struct imageio *io = client("rw", true, (struct imageio_conf){0});
    clock_sleep_ms(clock_system(), 2000);
    OK(imageio_write(io, x.content, MIB, 0, &x.err));
    clock_sleep_ms(clock_system(), 2000);
    expect_bytes(io, MIB, 0);
    unsigned opened = 0, peak = 0;
    imageio_connections(io, &opened, &peak);
    assert_in_range(opened, 3, 8);
}

static void test_a_host_restarted(void **state)
{
    (void)state;
    SCOPED(imageio) struct imageio *io = client("ro", false, (struct imageio_conf){0});
    expect_bytes(io, MIB, 0);
    uint16_t port = host_port(x.host);
    host_stop(x.host);
    start_host(port);
    add_ticket("ro", false);
    expect_bytes(io, MIB, 0);
    host_stop(TAKE(x.host));
    SCOPED_FREE char *url = xasprintf("https://127.0.0.1:%u/images/ro", port);
    struct imageio_conf conf = {.url = url, .retry_budget_ms = 100, .size_bytes = SIZE};
    SCOPED(imageio) struct imageio *none = imageio_open(&conf, &x.err);
    expect_error(none, ERR_ENGINE_UNREACHABLE);
}

/* --- Writing through trouble -------------------------------------------------------------------
 */
/* The trouble begins when so many MiB were begun; no more than so many are before it has. */
enum { TROUBLE_FROM = 3, TROUBLE_UNTIL = 7 };

struct upload {
    struct imageio *io;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    unsigned next; /* MiB */
    bool in_trouble;
    bool failed;
    struct err err; /* of the first that failed */
};

static unsigned next_of(struct upload *u)
{
    (void)pthread_mutex_lock(&u->lock);
    while (u->next >= TROUBLE_UNTIL && !u->in_trouble)
        (void)pthread_cond_wait(&u->changed, &u->lock);
    unsigned i = u->next++;
    (void)pthread_cond_broadcast(&u->changed);
    (void)pthread_mutex_unlock(&u->lock);
    return i;
}

static void note_failure(struct upload *u, const struct err *err)
{
    (void)pthread_mutex_lock(&u->lock);
    if (!u->failed)
        u->err = *err;
    u->failed = true;
    (void)pthread_mutex_unlock(&u->lock);
}

static void *upload_some(void *arg)
{
    struct upload *u = arg;
    for (unsigned i; (i = next_of(u)) < SIZE / MIB;) {
        struct err err = ERR_INIT;
        if (i == SIZE / MIB - 1
                ? !imageio_zero(u->io, (uint64_t)i * MIB, MIB, &err)
                : !imageio_write(u->io, x.content + (size_t)i * MIB, MIB, (uint64_t)i * MIB, &err))
            note_failure(u, &err);
    }
    return NULL;
}

static void wait_for_trouble(struct upload *u)
{
    (void)pthread_mutex_lock(&u->lock);
    while (u->next < TROUBLE_FROM)
        (void)pthread_cond_wait(&u->changed, &u->lock);
    (void)pthread_mutex_unlock(&u->lock);
}

/* Now: the rest of the upload meets it. */
static void trouble_is_here(struct upload *u)
{
    (void)pthread_mutex_lock(&u->lock);
    u->in_trouble = true;
    (void)pthread_cond_broadcast(&u->changed);
    (void)pthread_mutex_unlock(&u->lock);
}

/* All of the disk anew, by three writers, while `trouble` goes on. */
static void upload(struct upload *u, void (*trouble)(struct upload *u))
{
    pthread_t threads[3];
    (void)pthread_mutex_init(&u->lock, NULL);
    (void)pthread_cond_init(&u->changed, NULL);
    for (size_t i = 0; i < SIZE; i++)
        x.content[i] = i < SIZE - MIB ? (unsigned char)(i * 13 + i / 4096) : 0;
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, upload_some, u), 0);
    wait_for_trouble(u);
    trouble(u);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    (void)pthread_cond_destroy(&u->changed);
    (void)pthread_mutex_destroy(&u->lock);
}

static void cut_some(struct upload *u)
{
    set_fault(0, 3, (struct imageio_fault){.cut = true, .cut_after_bytes = 300000});
    trouble_is_here(u);
}

static void expire(struct upload *u)
{
    (void)host_remove(x.host, "rw", &x.err); /* some writes may be under way */
    err_clear(&x.err);
    trouble_is_here(u);
    clock_sleep_ms(clock_system(), 400);
    add_ticket("rw", true);
}

static void restart(struct upload *u)
{
    uint16_t port = host_port(x.host);
    host_stop(x.host);
    trouble_is_here(u);
    start_host(port);
    add_ticket("rw", true);
}

static void cancel(struct upload *u)
{
    set_fault(0, 1000, (struct imageio_fault){.status = 403});
    trouble_is_here(u);
}

static void expect_uploaded(struct imageio *io, const char *name, void (*trouble)(struct upload *u))
{
    struct upload u = {.io = io};
    upload(&u, trouble);
    if (u.failed)
        fail_msg("%s: %s: %s", name, err_code_name(u.err.code), u.err.message);
    assert_int_equal(x.fault_count, 0);
    OK(imageio_flush(io, &x.err));
    unsigned opened = 0, peak = 0;
    imageio_connections(io, &opened, &peak);
    assert_in_range(peak, 1, 3);
    expect_bytes(io, SIZE, 0);
}

static void test_an_upload_in_trouble(void **state)
{
    (void)state;
    SCOPED(imageio)
    struct imageio *io = client("rw", true, (struct imageio_conf){.connections_max = 3});
    expect_uploaded(io, "ticket taken away and given again", expire);
    expect_uploaded(io, "host restarted", restart);
    if (host_is_real(x.host))
        return;
    expect_uploaded(io, "connections cut", cut_some);
    struct upload u = {.io = io};
    upload(&u, cancel);
    assert_true(u.failed);
    x.err = u.err;
    expect_error(false, ERR_ENGINE_FAULT);
}

/* A host that refuses a write may hang up in a way that hides its answer: it is asked for it. */
static void test_a_refusal_hidden(void **state)
{
    (void)state;
    SCOPED(imageio)
    struct imageio *io = client("rw", true, (struct imageio_conf){.retry_budget_ms = 3000});
    x.hides_refusals = true;
    set_fault(0, 1000, (struct imageio_fault){.status = 403});
    expect_error(imageio_write(io, x.content, MIB, 0, &x.err), ERR_ENGINE_FAULT);
    set_fault(0, 1000, (struct imageio_fault){.status = 500});
    expect_error(imageio_write(io, x.content, MIB, 0, &x.err), ERR_IO);
    /* A ticket that is back after three tries, and a host too old to be asked. */
    set_fault(0, 3, (struct imageio_fault){.status = 403, .text = "No such ticket rw"});
    OK(imageio_write(io, x.content, MIB, 0, &x.err));
    set_fault(0, 3, (struct imageio_fault){.status = 405});
    OK(imageio_write(io, x.content, MIB, 0, &x.err));
    assert_int_equal(x.fault_count, 0);
    expect_bytes(io, SIZE, 0);
}

static void test_the_proxy(void **state)
{
    (void)state;
    add_ticket("ro", false);
    SCOPED_FREE char *proxy = xasprintf("https://127.0.0.1:%u/images/ro", host_port(x.host));
    struct imageio_conf conf = {
        .url = "https://127.0.0.1:1/images/ro", .fallback_url = proxy, .retry_budget_ms = 100};
    SCOPED(imageio) struct imageio *io = NULL;
    OK(io = try_client("ro", conf, false));
    assert_true(imageio_ability(io)->is_proxy);
    expect_bytes(io, SIZE, 0);
}

static void test_a_certificate_of_somebody_else(void **state)
{
    (void)state;
    add_ticket("ro", false);
    SCOPED(imageio)
    struct imageio *io = try_client(
        "ro", (struct imageio_conf){.ca_file = "/etc/ssl/certs/ca-certificates.crt"}, false);
    if (io || (x.err.code != ERR_ENGINE_TLS && x.err.code != ERR_BAD_CONFIG))
        fail_msg("expected engine-tls, got %s: %s", err_code_name(x.err.code), x.err.message);
    err_clear(&x.err);
}

static bool stop_now(void *ctx, struct err *err)
{
    atomic_int *asked = ctx;
    if (atomic_fetch_add(asked, 1) < 1)
        return false;
    return !err_set(err, ERR_CANCELLED, 0, "stop");
}

static void test_a_stop(void **state)
{
    (void)state;
    atomic_int asked = 0;
    add_ticket("ro", false);
    set_fault(0, 1, (struct imageio_fault){.delay_ms = 5000});
    SCOPED(imageio)
    struct imageio *io =
        try_client("ro", (struct imageio_conf){.stopped = stop_now, .ctx = &asked}, false);
    expect_error(io, ERR_CANCELLED);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_reading),
        TEST(test_the_map),
        TEST(test_the_checksum),
        TEST(test_the_unix_socket),
        TEST(test_writing),
        TEST(test_a_copy),
        TEST(test_a_ticket_expired_and_back),
        TEST(test_a_ticket_being_taken_away),
        TEST(test_a_ticket_that_forbids),
        TEST(test_a_range_refused),
        TEST(test_a_dead_nbd_server),
        TEST(test_a_connection_cut),
        TEST(test_a_host_that_fails),
        TEST(test_an_idle_connection),
        TEST(test_a_host_restarted),
        TEST(test_an_upload_in_trouble),
        TEST(test_a_refusal_hidden),
        TEST(test_the_proxy),
        TEST(test_a_certificate_of_somebody_else),
        TEST(test_a_stop),
    };
    cmocka_set_test_filter(getenv("ONLY"));
    return cmocka_run_group_tests_name("integration.imageio", tests, NULL, NULL);
}

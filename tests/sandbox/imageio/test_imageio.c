/* SPDX-License-Identifier: Apache-2.0 */
/* The image transfer endpoint over TLS, driven by libcurl, on real NBD exports. */
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <curl/curl.h>
#include <jansson.h>

#include "proto/base/buf.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "tests/sandbox/block/block.h"
#include "tests/sandbox/block/proc.h"
#include "tests/sandbox/imageio/imageio.h"

enum { MIB = 1 << 20, SIZE = 16 * MIB, ANSWER_MAX = 64 * MIB };

struct fixture {
    char dir[64];
    char *cert, *key, *image;
    unsigned char *content; /* of the image, SIZE bytes */
    struct block_export *export;
    struct imageio_server *server;
    CURL *curl;
    struct imageio_fault fault; /* for the next request */
    uint64_t requests;
};

struct reply {
    long status;
    struct buf body, head;
    CURLcode code;
    long connects;
};

#define OK(call)                                                                                   \
    do {                                                                                           \
        struct err err = ERR_INIT;                                                                 \
        if (!(call))                                                                               \
            fail_msg("%s: %s: %s", #call, err_code_name(err.code), err.message);                   \
    } while (0)

/* --- Fixture
 * --------------------------------------------------------------------------------------------- */

static struct imageio_fault on_request(void *arg, const struct imageio_request *request)
{
    struct fixture *f = arg;
    f->requests = request->number;
    struct imageio_fault fault = f->fault;
    f->fault = (struct imageio_fault){0};
    return fault;
}

static void make_certificate(struct fixture *f)
{
    f->cert = xasprintf("%s/cert.pem", f->dir);
    f->key = xasprintf("%s/key.pem", f->dir);
    const char *argv[] = {"openssl",  "req",
                          "-x509",    "-newkey",
                          "ec",       "-nodes",
                          "-pkeyopt", "ec_paramgen_curve:prime256v1",
                          "-days",    "2",
                          "-subj",    "/CN=localhost",
                          "-addext",  "subjectAltName=IP:127.0.0.1",
                          "-keyout",  f->key,
                          "-out",     f->cert,
                          NULL};
    OK(proc_run(argv, NULL, &err));
}

/* 1 MiB of data, 1 MiB of nothing, and so on. */
static void make_image(struct fixture *f)
{
    f->image = xasprintf("%s/disk.qcow2", f->dir);
    f->content = xcalloc(1, SIZE);
    for (size_t i = 0; i < SIZE; i++)
        f->content[i] = i / MIB % 2 == 0 ? (unsigned char)(i * 31 + i / 4096 + 1) : 0;
    SCOPED_FREE char *raw = xasprintf("%s/disk.raw", f->dir);
    OK(file_write_atomic(AT_FDCWD, raw, f->content, SIZE, 0644, &err));
    const char *argv[] = {"qemu-img", "convert", "-q", "-f",     "raw",
                          "-O",       "qcow2",   raw,  f->image, NULL};
    OK(proc_run(argv, NULL, &err));
}

static int setup(void **state)
{
    struct fixture *f = ALLOC_NEW(struct fixture);
    snprintf(f->dir, sizeof f->dir, "/tmp/imageio-test-XXXXXX");
    if (!mkdtemp(f->dir))
        return -1;
    make_certificate(f);
    make_image(f);
    SCOPED_FREE char *run = xasprintf("%s/export", f->dir);
    OK(f->export = block_export_start(run, f->image, BLOCK_QCOW2, true, &err));
    struct imageio_opts opts = {.address = "127.0.0.1",
                                .cert_path = f->cert,
                                .key_path = f->key,
                                .fault = on_request,
                                .fault_arg = f};
    OK(f->server = imageio_server_start(&opts, &err));
    f->curl = curl_easy_init();
    *state = f;
    return 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    curl_easy_cleanup(f->curl);
    imageio_server_stop(f->server);
    block_export_stop(f->export);
    (void)nftw(f->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    free(f->content);
    free(f->cert);
    free(f->key);
    free(f->image);
    free(f);
    return 0;
}

static void add_ticket(struct fixture *f, const char *id, bool write, uint64_t size)
{
    struct imageio_ticket ticket = {.id = id,
                                    .size_bytes = size,
                                    .can_read = !write,
                                    .can_write = write,
                                    .uri = block_export_uri(f->export),
                                    .transfer_id = "T-1",
                                    .filename = "disk.raw",
                                    .timeout_s = 300,
                                    .sparse = true};
    OK(imageio_ticket_add(f->server, &ticket, &err));
}

static size_t collect(char *data, size_t size, size_t count, void *arg)
{
    return buf_add(arg, data, size * count) ? size * count : 0;
}

struct call {
    const char *method, *path, *range, *content_range;
    const void *body;
    size_t body_len;
};

struct source {
    const char *at;
    size_t left;
};

static size_t give(char *out, size_t size, size_t count, void *arg)
{
    struct source *s = arg;
    size_t n = size * count < s->left ? size * count : s->left;
    memcpy(out, s->at, n);
    s->at += n;
    s->left -= n;
    return n;
}

static void set_headers(CURL *curl, const struct call *c, struct curl_slist **list)
{
    SCOPED_FREE char *range = c->range ? xasprintf("Range: %s", c->range) : NULL;
    SCOPED_FREE char *content =
        c->content_range ? xasprintf("Content-Range: %s", c->content_range) : NULL;
    *list = curl_slist_append(*list, "Expect:");
    if (range)
        *list = curl_slist_append(*list, range);
    if (content)
        *list = curl_slist_append(*list, content);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, *list);
}

/* One request on the fixture's connection. */
static struct reply http(struct fixture *f, struct call c)
{
    struct reply r = {0};
    buf_init(&r.body, ANSWER_MAX);
    buf_init(&r.head, MIB);
    SCOPED_FREE char *url =
        xasprintf("https://127.0.0.1:%u%s", imageio_server_port(f->server), c.path);
    struct curl_slist *headers = NULL;
    struct source source = {c.body, c.body_len};
    curl_easy_reset(f->curl);
    curl_easy_setopt(f->curl, CURLOPT_URL, url);
    curl_easy_setopt(f->curl, CURLOPT_CAINFO, f->cert);
    curl_easy_setopt(f->curl, CURLOPT_CUSTOMREQUEST, c.method);
    curl_easy_setopt(f->curl, CURLOPT_WRITEFUNCTION, collect);
    curl_easy_setopt(f->curl, CURLOPT_WRITEDATA, &r.body);
    curl_easy_setopt(f->curl, CURLOPT_HEADERFUNCTION, collect);
    curl_easy_setopt(f->curl, CURLOPT_HEADERDATA, &r.head);
    curl_easy_setopt(f->curl, CURLOPT_TIMEOUT, 60L);
    curl_easy_setopt(f->curl, CURLOPT_NOBODY, strcmp(c.method, "HEAD") == 0 ? 1L : 0L);
    if (c.body) {
        curl_easy_setopt(f->curl, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(f->curl, CURLOPT_READFUNCTION, give);
        curl_easy_setopt(f->curl, CURLOPT_READDATA, &source);
        curl_easy_setopt(f->curl, CURLOPT_INFILESIZE_LARGE, (curl_off_t)c.body_len);
    }
    set_headers(f->curl, &c, &headers);
    r.code = curl_easy_perform(f->curl);
    curl_easy_getinfo(f->curl, CURLINFO_RESPONSE_CODE, &r.status);
    curl_easy_getinfo(f->curl, CURLINFO_NUM_CONNECTS, &r.connects);
    curl_slist_free_all(headers);
    return r;
}

static void reply_done(struct reply *r)
{
    buf_done(&r->body);
    buf_done(&r->head);
}

/* A request that must be answered with `status` and a body that contains `text`. */
static void expect(struct fixture *f, struct call c, long status, const char *text)
{
    struct reply r = http(f, c);
    if (r.code != CURLE_OK || r.status != status || !strstr(buf_str(&r.body), text))
        fail_msg("%s %s %s: curl %d, status %ld: %s", c.method, c.path, c.range ? c.range : "",
                 (int)r.code, r.status, buf_str(&r.body));
    reply_done(&r);
}

static void expect_bytes(struct fixture *f, struct call c, long status, uint64_t offset, size_t len,
                         const char *content_range)
{
    struct reply r = http(f, c);
    if (r.code != CURLE_OK || r.status != status)
        fail_msg("%s: curl %d, status %ld", c.path, (int)r.code, r.status);
    assert_int_equal(r.body.len, len);
    if (len > 0)
        assert_memory_equal(r.body.data, f->content + offset, len);
    if (content_range && !strstr(buf_str(&r.head), content_range))
        fail_msg("'%s' not in: %s", content_range, buf_str(&r.head));
    reply_done(&r);
}

#define GET(path_, ...)                                                                            \
    (struct call)                                                                                  \
    {                                                                                              \
        .method = "GET", .path = (path_), __VA_ARGS__                                              \
    }

/* --- Tests
 * ---------------------------------------------------------------------------------------------------
 */

static void test_options(void **state)
{
    struct fixture *f = *state;
    add_ticket(f, "ro", false, SIZE);
    add_ticket(f, "rw", true, SIZE);
    struct reply r = http(f, (struct call){.method = "OPTIONS", .path = "/images/ro"});
    assert_int_equal(r.status, 200);
    assert_non_null(strstr(buf_str(&r.head), "Allow: OPTIONS,GET\r\n"));
    json_t *json = json_loads(buf_str(&r.body), 0, NULL);
    json_int_t readers = 0;
    assert_int_equal(json_unpack(json, "{s:I, s:I, s:o}", "max_readers", &readers, "max_writers",
                                 &readers, "features", &(json_t *){NULL}),
                     0);
    assert_int_equal(readers, 8);
    json_decref(json);
    reply_done(&r);
    expect(f, (struct call){.method = "OPTIONS", .path = "/images/rw"}, 200, "\"zero\"");
    expect(f, (struct call){.method = "OPTIONS", .path = "/images/*"}, 200, "\"flush\"");
    expect(f, GET("/info/"), 200, "version");
}

static void test_download(void **state)
{
    struct fixture *f = *state;
    add_ticket(f, "ro", false, SIZE);
    expect_bytes(f, GET("/images/ro"), 200, 0, SIZE,
                 "Content-Disposition: attachment; filename=disk.raw");
    expect_bytes(f, GET("/images/ro", .range = "bytes=1-5"), 206, 1, 5,
                 "Content-Range: bytes 1-5/16777216");
    expect_bytes(f, GET("/images/ro", .range = "bytes=1000000-3000000"), 206, 1000000, 2000001, "");
    expect_bytes(f, GET("/images/ro", .range = "bytes=16777000-"), 206, 16777000, 216, "");
    expect_bytes(f, GET("/images/ro", .range = "bytes=16777216-"), 206, 0, 0,
                 "bytes 16777216-16777215/16777216");
    struct reply r = http(f, GET("/images/ro", .range = "bytes=0-0"));
    assert_int_equal(r.connects, 0); /* all on one connection */
    reply_done(&r);
    struct imageio_ticket_info info;
    OK(imageio_ticket_get(f->server, "ro", &info, &err));
    assert_int_equal(info.transferred, SIZE);
    assert_int_equal(info.connections, 1);
    assert_false(info.active);
    assert_in_range(info.expires_ms, 200000, 300000);
}

static void test_refused_ranges(void **state)
{
    struct fixture *f = *state;
    add_ticket(f, "ro", false, SIZE);
    add_ticket(f, "small", false, MIB);
    add_ticket(f, "large", false, 2 * SIZE);
    static const char *const bad[] = {"bytes=5-1",
                                      "bytes=-",
                                      "bytes= 1-2",
                                      "items=1-2",
                                      "bytes=1-2,4-5",
                                      "bytes=a-b",
                                      "bytes=1-99999999999999999999"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        expect(f, GET("/images/ro", .range = bad[i]), 416, "Cannot satisfy range");
    expect(f, GET("/images/ro", .range = "bytes=-5"), 416, "not supported yet");
    expect(f, GET("/images/ro", .range = "bytes=0-16777216"), 416, "out of allowed range");
    expect(f, GET("/images/ro", .range = "bytes=16777217-"), 400, "available 0 bytes");
    expect(f, GET("/images/small", .range = "bytes=0-1048576"), 416, "out of allowed range");
    expect(f, GET("/images/large", .range = "bytes=0-16777216"), 416,
           "Requested more bytes than available: 16777217 > 16777216");
    expect_bytes(f, GET("/images/small"), 200, 0, MIB, NULL);
    expect_bytes(f, GET("/images/large"), 200, 0, SIZE, NULL);
}

static void test_extents(void **state)
{
    struct fixture *f = *state;
    add_ticket(f, "ro", false, SIZE);
    struct reply r = http(f, GET("/images/ro/extents?context=zero"));
    assert_int_equal(r.status, 200);
    json_t *list = json_loads(buf_str(&r.body), 0, NULL);
    json_int_t at = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_int_t start, length;
        int zero, hole;
        assert_int_equal(json_unpack(json_array_get(list, i), "{s:I, s:I, s:b, s:b}", "start",
                                     &start, "length", &length, "zero", &zero, "hole", &hole),
                         0);
        assert_int_equal(start, at);
        assert_int_equal(zero, start / MIB % 2);
        at += length;
    }
    assert_int_equal(at, SIZE);
    json_decref(list);
    reply_done(&r);
    expect(f, GET("/images/ro/extents"), 200, "\"hole\"");
    expect(f, GET("/images/ro/extents?context=dirty"), 404, "does not support dirty extents");
    expect(f, GET("/images/ro/extents?context=odd"), 400, "Unsupported value 'odd'");
    expect(f, GET("/images/ro/extents?context=odd&context=zero"), 200, "\"zero\"");
}

/* A bitmap in the export, as the engine's backup API gives it. */
static void test_dirty_extents(void **state)
{
    struct fixture *f = *state;
    SCOPED_FREE char *path = xasprintf("%s/bitmap.qcow2", f->dir);
    SCOPED_FREE char *socket = xasprintf("%s/bitmap.sock", f->dir);
    SCOPED_FREE char *uri = xasprintf("nbd+unix:///?socket=%s", socket);
    SCOPED_FREE char *write = xasprintf("write -P 7 %d 65536", 4 * MIB);
    SCOPED_FREE char *zero = xasprintf("write -z %d 65536", 6 * MIB);
    const char *create[] = {"qemu-img", "convert", "-q", "-O", "qcow2", f->image, path, NULL};
    const char *add[] = {"qemu-img", "bitmap", "--add", path, "changes", NULL};
    const char *change[] = {"qemu-io", "-c", write, "-c", zero, path, NULL};
    const char *serve[] = {"qemu-nbd", "-r", "-t",   "-f", "qcow2", "-B",
                           "changes",  "-k", socket, path, NULL};
    block_export_stop(f->export); /* its lock is in the way of reading the image */
    f->export = NULL;
    OK(proc_run(create, NULL, &err));
    OK(proc_run(add, NULL, &err));
    OK(proc_run(change, NULL, &err));
    SCOPED(proc) struct proc *server = NULL;
    OK(server = proc_start(
           &(struct proc_opts){.argv = serve, .pass_fd = -1, .death_signal = SIGKILL}, &err));
    for (int i = 0; i < 600 && access(socket, F_OK) != 0; i++)
        clock_sleep_ms(clock_system(), 10);
    struct imageio_ticket ticket = {.id = "cbt",
                                    .size_bytes = SIZE,
                                    .can_read = true,
                                    .uri = uri,
                                    .dirty_bitmap = "changes",
                                    .timeout_s = 300};
    OK(imageio_ticket_add(f->server, &ticket, &err));
    struct reply r = http(f, GET("/images/cbt/extents?context=dirty"));
    assert_int_equal(r.status, 200);
    json_t *list = json_loads(buf_str(&r.body), 0, NULL);
    json_int_t at = 0, start, length, dirty_bytes = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        int dirty, zeroes;
        assert_int_equal(json_unpack(json_array_get(list, i), "{s:I, s:I, s:b, s:b}", "start",
                                     &start, "length", &length, "dirty", &dirty, "zero", &zeroes),
                         0);
        assert_int_equal(start, at);
        at += length;
        dirty_bytes += dirty ? length : 0;
        if (dirty)
            assert_int_equal(zeroes, start == 6 * MIB);
        assert_true(!dirty || start == 4 * MIB || start == 6 * MIB);
    }
    assert_int_equal(at, SIZE);
    assert_int_equal(dirty_bytes, 2 * 65536);
    json_decref(list);
    reply_done(&r);
    ticket.id = "other";
    ticket.dirty_bitmap = "nothing";
    OK(imageio_ticket_add(f->server, &ticket, &err));
    expect(f, GET("/images/other/extents?context=dirty"), 404, "Operation not supported");
    expect(f, GET("/images/other/extents"), 200, "zero");
}

static void test_upload(void **state)
{
    struct fixture *f = *state;
    add_ticket(f, "rw", true, SIZE);
    SCOPED_FREE unsigned char *fresh = xmalloc(3 * MIB);
    for (size_t i = 0; i < 3 * MIB; i++)
        fresh[i] = (unsigned char)(i * 7 + i / 512);
    struct call put = {.method = "PUT",
                       .path = "/images/rw?flush=n",
                       .body = fresh,
                       .body_len = 3 * MIB,
                       .content_range = "bytes 1000000-4145727/*"};
    expect(f, put, 200, "");
    memcpy(f->content + 1000000, fresh, 3 * MIB);
    struct call patch = {.method = "PATCH",
                         .path = "/images/rw",
                         .body = "{\"op\":\"zero\",\"offset\":8388608,\"size\":1048577}"};
    patch.body_len = strlen(patch.body);
    expect(f, patch, 200, "");
    memset(f->content + 8 * MIB, 0, MIB + 1);
    patch.body = "{\"op\":\"flush\"}";
    patch.body_len = strlen(patch.body);
    expect(f, patch, 200, "");
    expect_bytes(f, GET("/images/rw"), 200, 0, SIZE, NULL);
    put.content_range = "bytes 16777215-*/*";
    put.body_len = 4096; /* of a large body, the cut while it is still sent may hide the answer */
    expect(f, put, 416, "out of allowed range");
    expect_bytes(f, GET("/images/rw"), 200, 0, SIZE, NULL);
    put = (struct call){.method = "PUT", .path = "/images/rw", .body = "", .body_len = 0};
    expect(f, put, 200, "");
    put = (struct call){.method = "PUT", .path = "/images/rw", .body = "a", .body_len = 1};
    put.content_range = "bytes */*";
    expect(f, put, 400, "Content-Range");
    put.content_range = "bytes 4-3/*";
    expect(f, put, 400, "Content-Range");
    put.content_range = NULL;
    put.path = "/images/rw?flush=maybe";
    expect(f, put, 400, "Unsupported value 'maybe'");
}

static void test_bad_patches(void **state)
{
    struct fixture *f = *state;
    add_ticket(f, "rw", true, SIZE);
    static const struct {
        const char *body;
        long status;
        const char *text;
    } cases[] = {
        {"{\"op\":\"zero\"}", 400, "Missing required value for 'size'"},
        {"{\"op\":\"zero\",\"size\":\"1\"}", 400, "Integer required"},
        {"{\"op\":\"zero\",\"size\":-1}", 400, "Invalid value -1 < 0"},
        {"{\"op\":\"zero\",\"size\":1,\"flush\":1}", 400, "Boolean required"},
        {"{\"op\":\"zero\",\"size\":16777217}", 416, "out of allowed range"},
        {"{\"op\":\"trim\"}", 400, "Unsupported value 'trim'"},
        {"{}", 400, "Missing required value for op"},
        {"nonsense", 400, "Invalid JSON"},
        {"[]", 500, "check logs"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct call c = {.method = "PATCH",
                         .path = "/images/rw",
                         .body = cases[i].body,
                         .body_len = strlen(cases[i].body)};
        expect(f, c, cases[i].status, cases[i].text);
    }
}

static void test_authorization(void **state)
{
    struct fixture *f = *state;
    add_ticket(f, "ro", false, SIZE);
    expect(f, GET("/images/none"), 403, "No such ticket none");
    expect(f, GET("/images/ro/extent"), 403, "No such ticket ro/extent");
    expect(f, GET("/images/"), 400, "Ticket id is required");
    expect(f, GET("/nothing"), 404, "No handler");
    expect(f, (struct call){.method = "DELETE", .path = "/images/ro"}, 405, "DELETE");
    struct call put = {.method = "PUT", .path = "/images/ro", .body = "a", .body_len = 1};
    expect(f, put, 403, "Transfer=T-1 forbids write");
    struct reply head = http(f, (struct call){.method = "HEAD", .path = "/images/ro"});
    assert_int_equal(head.status, 405);
    reply_done(&head);
    OK(imageio_ticket_extend(f->server, "ro", 0, &err));
    expect(f, GET("/images/ro"), 403, "Transfer=T-1 expired");
    OK(imageio_ticket_extend(f->server, "ro", 100, &err));
    expect_bytes(f, GET("/images/ro", .range = "bytes=0-9"), 206, 0, 10, NULL);
    OK(imageio_ticket_remove(f->server, "ro", 1000, &err));
    expect(f, GET("/images/ro"), 403, "No such ticket ro");
    OK(imageio_ticket_remove(f->server, "ro", 1000, &err));
    struct imageio_ticket_info info;
    struct err err = ERR_INIT;
    assert_false(imageio_ticket_get(f->server, "ro", &info, &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
}

static void test_faults(void **state)
{
    struct fixture *f = *state;
    add_ticket(f, "rw", true, SIZE);
    f->fault = (struct imageio_fault){.status = 500};
    expect(f, GET("/images/rw"), 500, "check logs");
    f->fault = (struct imageio_fault){.cut = true, .cut_after_bytes = 100000};
    struct reply r = http(f, GET("/images/rw"));
    assert_int_equal(r.status, 200);
    assert_int_not_equal(r.code, CURLE_OK);
    assert_true(r.body.len <= 100000);
    reply_done(&r);
    f->fault = (struct imageio_fault){.cut = true}; /* the answer is lost, not the effect */
    r = http(f, (struct call){.method = "PATCH",
                              .path = "/images/rw",
                              .body = "{\"op\":\"zero\",\"size\":4096}",
                              .body_len = 25});
    assert_int_not_equal(r.code, CURLE_OK);
    reply_done(&r);
    memset(f->content, 0, 4096);
    expect_bytes(f, GET("/images/rw"), 200, 0, SIZE, NULL);
    int64_t begin = clock_mono_ms(clock_system());
    f->fault = (struct imageio_fault){.delay_ms = 150};
    expect(f, GET("/images/rw/extents"), 200, "zero");
    assert_true(clock_mono_ms(clock_system()) - begin >= 150);
    assert_true(f->requests >= 5);
}

static void test_dead_export(void **state)
{
    struct fixture *f = *state;
    add_ticket(f, "ro", false, SIZE);
    expect_bytes(f, GET("/images/ro", .range = "bytes=0-9"), 206, 0, 10, NULL);
    block_export_stop(f->export);
    f->export = NULL;
    /* The connection keeps its dead NBD side, also when the export is back. */
    expect(f, GET("/images/ro", .range = "bytes=0-9"), 500, "check logs");
    SCOPED_FREE char *run = xasprintf("%s/export", f->dir);
    OK(f->export = block_export_start(run, f->image, BLOCK_QCOW2, true, &err));
    expect(f, GET("/images/ro", .range = "bytes=0-9"), 500, "check logs");
    curl_easy_cleanup(f->curl);
    f->curl = curl_easy_init();
    expect_bytes(f, GET("/images/ro", .range = "bytes=0-9"), 206, 0, 10, NULL);
}

static void test_inactivity_closes(void **state)
{
    struct fixture *f = *state;
    struct imageio_ticket ticket = {.id = "ro",
                                    .size_bytes = SIZE,
                                    .can_read = true,
                                    .uri = block_export_uri(f->export),
                                    .timeout_s = 300,
                                    .inactivity_timeout_s = 1};
    OK(imageio_ticket_add(f->server, &ticket, &err));
    expect(f, (struct call){.method = "OPTIONS", .path = "/images/ro"}, 200, "features");
    struct imageio_ticket_info info = {.connections = 1};
    for (int i = 0; i < 600 && info.connections > 0; i++) {
        clock_sleep_ms(clock_system(), 50);
        OK(imageio_ticket_get(f->server, "ro", &info, &err));
    }
    assert_int_equal(info.connections, 0);
}

/* --- Cancelling
 * ------------------------------------------------------------------------------------ */

struct removal {
    struct fixture *f;
    pthread_t thread;
    bool started, removed;
};

static void *remove_main(void *arg)
{
    struct removal *r = arg;
    struct err err = ERR_INIT;
    r->removed = imageio_ticket_remove(r->f->server, "ro", 60000, &err);
    return NULL;
}

/* Called by libcurl with the first bytes of the download. */
static size_t remove_ticket_then_read(char *data, size_t size, size_t count, void *arg)
{
    struct removal *r = arg;
    (void)data;
    if (!r->started) {
        r->started = true;
        pthread_create(&r->thread, NULL, remove_main, r);
    }
    return size * count;
}

static void test_cancelled_in_the_middle(void **state)
{
    struct fixture *f = *state;
    add_ticket(f, "ro", false, SIZE);
    struct removal r = {.f = f};
    SCOPED_FREE char *url =
        xasprintf("https://127.0.0.1:%u/images/ro", imageio_server_port(f->server));
    curl_easy_setopt(f->curl, CURLOPT_URL, url);
    curl_easy_setopt(f->curl, CURLOPT_CAINFO, f->cert);
    curl_easy_setopt(f->curl, CURLOPT_WRITEFUNCTION, remove_ticket_then_read);
    curl_easy_setopt(f->curl, CURLOPT_WRITEDATA, &r);
    CURLcode code = curl_easy_perform(f->curl);
    assert_true(r.started);
    pthread_join(r.thread, NULL);
    assert_int_equal(code, CURLE_PARTIAL_FILE); /* a short body and a closed connection */
    assert_true(r.removed);
    expect(f, GET("/images/ro"), 403, "No such ticket ro");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
    const struct CMUnitTest tests[] = {
        TEST(test_options),
        TEST(test_download),
        TEST(test_refused_ranges),
        TEST(test_extents),
        TEST(test_upload),
        TEST(test_bad_patches),
        TEST(test_authorization),
        TEST(test_faults),
        TEST(test_dead_export),
        TEST(test_inactivity_closes),
        TEST(test_cancelled_in_the_middle),
        TEST(test_dirty_extents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

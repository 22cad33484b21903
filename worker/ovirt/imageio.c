/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections are curl handles, each with one kept connection. An operation borrows a handle, makes
 * its exchange, and gives it back; after a failure the handle is freed, and with it the connection,
 * because a host whose NBD server has died answers 500 on it for ever.
 */
#include "worker/ovirt/imageio.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include <jansson.h>

#include "proto/base/buf.h"
#include "proto/base/log.h"
#include "worker/ovirt/http.h"
#include "worker/ovirt/imageio_http.h"
#include "worker/ovirt/imageio_map.h"

enum {
    OPTIONS_BYTES = 64 << 10,
    ZERO_PIECE_BYTES = 1 << 20,
    READ_BYTES_MAX = 128 << 20,
    WAIT_MIN_MS = 250,
    WAIT_MAX_MS = 5000,
};

struct imageio {
    struct imageio_conf conf; /* defaults filled in; strings point at the three below */
    char *url, *fallback_url, *ca_file;
    struct imageio_address address;
    struct imageio_ability ability;
    atomic_bool cannot_zero; /* the host said that it can, but its NBD server cannot */

    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t given_back;
    CURL *idle[IMAGEIO_CONNECTIONS];
    unsigned idle_count, lent_count;
    unsigned opened, peak;
};

/* --- Connections ----------------------------------------------------------------------------- */
static CURL *borrow(struct imageio *io)
{
    CURL *curl = NULL;
    (void)pthread_mutex_lock(&io->lock);
    while (io->lent_count >= io->ability.connections_max)
        (void)pthread_cond_wait(&io->given_back, &io->lock);
    if (io->idle_count > 0)
        curl = io->idle[--io->idle_count];
    io->lent_count++;
    unsigned open = io->idle_count + io->lent_count;
    io->peak = open > io->peak ? open : io->peak;
    (void)pthread_mutex_unlock(&io->lock);
    return curl ? curl : http_handle_new();
}

static void give_back(struct imageio *io, CURL *curl, bool keep, long connects)
{
    if (!keep)
        curl_easy_cleanup(curl);
    (void)pthread_mutex_lock(&io->lock);
    if (keep)
        io->idle[io->idle_count++] = curl;
    io->lent_count--;
    io->opened += (unsigned)connects;
    (void)pthread_cond_signal(&io->given_back);
    (void)pthread_mutex_unlock(&io->lock);
}

static void drop_idle(struct imageio *io)
{
    (void)pthread_mutex_lock(&io->lock);
    while (io->idle_count > 0)
        curl_easy_cleanup(io->idle[--io->idle_count]);
    (void)pthread_mutex_unlock(&io->lock);
}

/* --- One operation, tried until it is done, hopeless or out of budget ---------------------------
 */
enum verdict { VERDICT_DONE, VERDICT_AGAIN, VERDICT_FINAL };

/* A ticket that may come back: an engine that pauses a transfer takes its ticket away, and one that
 * goes on puts it there again. The texts are the daemon's (ovirt_imageio/_internal/auth.py). */
static bool is_ticket_lost(const char *text)
{
    return strstr(text, "expired") || strstr(text, "No such ticket") ||
           strstr(text, "was canceled");
}

/* What a status means that is not success. */
static enum verdict judge(const struct imageio_reply *reply, bool is_write, struct err *err)
{
    err_clear(err);
    switch (reply->status) {
    case 403:
        if (is_ticket_lost(reply->text)) {
            err_set(err, ERR_ENGINE_BUSY, 403, "the host does not know the ticket: %s",
                    reply->text);
            return VERDICT_AGAIN;
        }
        err_set(err, ERR_ENGINE_FAULT, 403, "the host refuses the ticket: %s", reply->text);
        return VERDICT_FINAL;
    case 416:
        err_set(err, ERR_ENGINE_PROTOCOL, 416, "outside of the disk: %s", reply->text);
        return VERDICT_FINAL;
    case 500:
    case 502:
    case 503:
    case 504:
        err_set(err, ERR_IO, (int)reply->status, "the host failed: %ld %s", reply->status,
                reply->text);
        return is_write ? VERDICT_FINAL : VERDICT_AGAIN;
    default:
        err_set(err, ERR_ENGINE_PROTOCOL, (int)reply->status, "%ld %s", reply->status, reply->text);
        return VERDICT_FINAL;
    }
}

static enum verdict try_once(struct imageio *io, const struct imageio_request *request,
                             bool is_write, struct imageio_reply *reply, struct err *err)
{
    CURL *curl = borrow(io);
    enum imageio_result result = imageio_exchange(curl, &io->address, request, reply, err);
    give_back(io, curl, result == IMAGEIO_DONE, reply->connects);
    switch (result) {
    case IMAGEIO_DONE:
        return VERDICT_DONE;
    case IMAGEIO_STATUS:
        return judge(reply, is_write, err);
    case IMAGEIO_LOST:
    case IMAGEIO_BROKEN:
        return VERDICT_AGAIN;
    case IMAGEIO_REFUSED:
    case IMAGEIO_STOPPED:
        break;
    }
    return VERDICT_FINAL;
}

/* A host that refuses a body hangs up while we still send it, and the reset may hide its answer for
 * ever. A question without a body it answers in full. One that does not know OPTIONS is not asked
 * further. */
static enum verdict ask_why(struct imageio *io, const struct imageio_request *write,
                            struct imageio_reply *reply, struct err *err)
{
    struct imageio_request ask = {.method = "OPTIONS",
                                  .suffix = "",
                                  .stopped = write->stopped,
                                  .stopped_ctx = write->stopped_ctx};
    enum verdict verdict = try_once(io, &ask, true, reply, err);
    if (verdict != VERDICT_FINAL || reply->status != 405)
        return verdict;
    err_clear(err);
    return VERDICT_DONE;
}

static bool is_stopped(const struct imageio *io, struct err *err)
{
    return io->conf.stopped && io->conf.stopped(io->conf.ctx, err);
}

static bool operate(struct imageio *io, struct imageio_request *request,
                    struct imageio_reply *reply, struct err *err)
{
    request->stopped = io->conf.stopped;
    request->stopped_ctx = io->conf.ctx;
    struct backoff wait = BACKOFF(WAIT_MIN_MS, WAIT_MAX_MS);
    int64_t until = clock_mono_ms(io->conf.clock) + io->conf.retry_budget_ms;
    bool is_write = request->body, was_cut = false;
    for (;;) {
        if (request->begin)
            request->begin(request->sink_ctx);
        enum verdict verdict = was_cut ? ask_why(io, request, reply, err) : VERDICT_DONE;
        if (verdict == VERDICT_DONE)
            verdict = try_once(io, request, is_write, reply, err);
        if (verdict == VERDICT_DONE)
            return true;
        if (verdict == VERDICT_FINAL || clock_mono_ms(io->conf.clock) >= until)
            return false;
        was_cut = was_cut || (is_write && reply->status == 0);
        log_debug("imageio_again", LOG_STR("method", request->method),
                  LOG_STR("message", err->message));
        clock_sleep_ms(io->conf.clock, backoff_next_ms(&wait));
        err_clear(err);
        if (is_stopped(io, err))
            return false;
    }
}

/* --- Opening --------------------------------------------------------------------------------- */
static bool collect(void *ctx, const char *data, size_t len, struct err *err)
{
    if (buf_add(ctx, data, len))
        return true;
    return err_set(err, ERR_ENGINE_PROTOCOL, 0, "the host's answer is too long");
}

static bool has_feature(const json_t *options, const char *name)
{
    size_t i;
    json_t *feature;
    json_array_foreach (json_object_get(options, "features"), i, feature) {
        if (json_is_string(feature) && strcmp(json_string_value(feature), name) == 0)
            return true;
    }
    return false;
}

static unsigned limit_of(const json_t *options, const char *name)
{
    json_int_t n = json_integer_value(json_object_get(options, name));
    return n >= 1 && n <= IMAGEIO_CONNECTIONS ? (unsigned)n : n > 1 ? IMAGEIO_CONNECTIONS : 1;
}

static void take_ability(struct imageio *io, const json_t *options)
{
    struct imageio_ability *a = &io->ability;
    a->can_map = has_feature(options, "extents");
    a->can_zero = has_feature(options, "zero");
    a->can_flush = has_feature(options, "flush");
    a->can_checksum = has_feature(options, "checksum");
    unsigned readers = limit_of(options, "max_readers");
    unsigned writers = a->can_zero || a->can_flush ? limit_of(options, "max_writers") : readers;
    unsigned allowed = readers < writers ? readers : writers;
    a->connections_max = allowed < io->conf.connections_max ? allowed : io->conf.connections_max;
}

/* "\u0000/org/ovirt/imageio" is a name in the abstract space. */
static bool take_unix_socket(const json_t *options, struct imageio_address *address)
{
    const json_t *name = json_object_get(options, "unix_socket");
    const char *text = json_string_value(name);
    size_t len = json_string_length(name);
    if (!text || len < 2)
        return false;
    bool is_abstract = text[0] == '\0';
    text += is_abstract;
    len -= is_abstract;
    if (len >= sizeof address->unix_path || strlen(text) != len)
        return false;
    memcpy(address->unix_path, text, len + 1);
    address->is_abstract = is_abstract;
    return true;
}

/* OPTIONS; NULL with err. A host that does not know the method can only read and write. */
static json_t *ask_options(struct imageio *io, struct imageio_reply *reply, struct err *err)
{
    SCOPED_BUF struct buf body;
    buf_init(&body, OPTIONS_BYTES);
    struct imageio_request request = {
        .method = "OPTIONS", .suffix = "", .sink = collect, .sink_ctx = &body};
    if (!operate(io, &request, reply, err)) {
        if (reply->status != 405)
            return NULL;
        err_clear(err);
        return json_object();
    }
    if (body.len == 0)
        return json_object();
    json_t *options = json_loadb(body.data, body.len, JSON_ALLOW_NUL, NULL);
    if (!json_is_object(options)) {
        json_decref(options);
        err_set(err, ERR_ENGINE_PROTOCOL, 0, "the answer to OPTIONS is not a JSON object");
        return NULL;
    }
    return options;
}

/* On the same machine there is a shorter way. What fails there is no error: TCP works. */
static void try_unix_socket(struct imageio *io, const json_t *options)
{
    struct imageio_address tcp = io->address;
    if (io->conf.no_unix_socket || !take_unix_socket(options, &io->address))
        return;
    drop_idle(io);
    const char *path = strstr(io->url, "/images/");
    SCOPED_FREE char *url = xasprintf("http://localhost%s", path ? path : "");
    io->address.url = url;
    struct imageio_request request = {.method = "OPTIONS", .suffix = ""};
    struct imageio_reply reply;
    struct err ignored = ERR_INIT;
    io->ability.is_local = path && try_once(io, &request, false, &reply, &ignored) == VERDICT_DONE;
    if (io->ability.is_local) {
        free(io->url);
        io->url = TAKE(url);
        io->address.url = io->url;
    } else {
        io->address = tcp;
    }
}

static bool open_at(struct imageio *io, char *url, struct err *err)
{
    io->address.url = url;
    struct imageio_reply reply;
    json_auto_t *options = ask_options(io, &reply, err);
    if (!options)
        return false;
    take_ability(io, options);
    if (url == io->url && reply.is_same_host)
        try_unix_socket(io, options);
    return true;
}

static void take_conf(struct imageio *io, const struct imageio_conf *conf)
{
    io->conf = *conf;
    struct imageio_conf *c = &io->conf;
    io->url = xstrdup(conf->url);
    io->fallback_url = xstrdup_or_null(conf->fallback_url);
    io->ca_file = xstrdup_or_null(conf->ca_file);
    c->clock = conf->clock ? conf->clock : clock_system();
    c->connections_max = conf->connections_max ? conf->connections_max : 4;
    if (c->connections_max > IMAGEIO_CONNECTIONS)
        c->connections_max = IMAGEIO_CONNECTIONS;
    c->connect_timeout_ms = conf->connect_timeout_ms ? conf->connect_timeout_ms : 10 * 1000;
    c->stall_ms = conf->stall_ms ? conf->stall_ms : 60 * 1000;
    c->map_timeout_ms = conf->map_timeout_ms ? conf->map_timeout_ms : 60 * 60 * 1000;
    c->retry_budget_ms = conf->retry_budget_ms ? conf->retry_budget_ms : 60 * 1000;
    io->ability.connections_max = 1; /* until OPTIONS has said more */
    io->address = (struct imageio_address){.ca_file = io->ca_file,
                                           .insecure = conf->insecure,
                                           .connect_timeout_ms = (long)c->connect_timeout_ms,
                                           .stall_ms = (long)c->stall_ms};
}

struct imageio *imageio_open(const struct imageio_conf *conf, struct err *err)
{
    struct imageio *io = ALLOC_NEW(struct imageio);
    (void)pthread_mutex_init(&io->lock, NULL);
    (void)pthread_cond_init(&io->given_back, NULL);
    take_conf(io, conf);
    bool ok = open_at(io, io->url, err);
    if (!ok && err->code == ERR_ENGINE_UNREACHABLE && io->fallback_url) {
        struct err direct = *err;
        err_clear(err);
        ok = open_at(io, io->fallback_url, err);
        io->ability.is_proxy = ok;
        if (ok)
            log_info("imageio_by_proxy", LOG_STR("message", direct.message));
        else
            err_wrap(err, "not straight to the host (%s), nor by the engine's proxy",
                     direct.message);
    }
    if (ok)
        return io;
    imageio_close(io);
    return NULL;
}

void imageio_close(struct imageio *io)
{
    if (!io)
        return;
    drop_idle(io);
    (void)pthread_cond_destroy(&io->given_back);
    (void)pthread_mutex_destroy(&io->lock);
    free(io->url);
    free(io->fallback_url);
    free(io->ca_file);
    free(io);
}

const struct imageio_ability *imageio_ability(const struct imageio *io)
{
    return &io->ability;
}

void imageio_connections(const struct imageio *io, unsigned *ret_opened, unsigned *ret_peak)
{
    *ret_opened = io->opened;
    *ret_peak = io->peak;
}

/* --- Reading --------------------------------------------------------------------------------- */
static bool add_to_map(void *ctx, const char *data, size_t len, struct err *err)
{
    return map_reader_add(ctx, data, len, err);
}

/* A try that broke off has left half a map. */
static void begin_map(void *ctx)
{
    struct map_reader *reader = ctx;
    enum imageio_context context = reader->context;
    uint64_t size_bytes = reader->size_bytes;
    map_reader_done(reader);
    map_reader_init(reader, context, size_bytes);
}

bool imageio_map(struct imageio *io, enum imageio_context context, struct imageio_map *ret,
                 struct err *err)
{
    if (!io->ability.can_map)
        return err_set(err, ERR_UNSUPPORTED, 0, "the host makes no maps of disks");
    struct map_reader reader;
    map_reader_init(&reader, context, io->conf.size_bytes);
    struct imageio_request request = {
        .method = "GET",
        .suffix = context == IMAGEIO_DIRTY ? "/extents?context=dirty" : "/extents?context=zero",
        .timeout_ms = (long)io->conf.map_timeout_ms,
        .begin = begin_map,
        .sink = add_to_map,
        .sink_ctx = &reader,
    };
    struct imageio_reply reply;
    bool ok = operate(io, &request, &reply, err) && map_reader_finish(&reader, ret, err);
    map_reader_done(&reader);
    if (!ok && reply.status == 404) {
        err_clear(err);
        err_set(err, ERR_UNSUPPORTED, 404, "the host has no such map of this disk: %s", reply.text);
    }
    return ok || err_wrap(err, "map of a disk");
}

static void begin_collect(void *ctx)
{
    buf_reset(ctx);
}

/* One of another algorithm or block size is not what was asked for. */
static bool read_checksum(const struct buf *body, char ret[IMAGEIO_CHECKSUM_CHARS], struct err *err)
{
    json_auto_t *json = json_loadb(body->data, body->len, 0, NULL);
    const char *text = json_string_value(json_object_get(json, "checksum"));
    const char *algorithm = json_string_value(json_object_get(json, "algorithm"));
    if (!text || !algorithm || strcmp(algorithm, "sha256") != 0 ||
        json_integer_value(json_object_get(json, "block_size")) != IMAGEIO_CHECKSUM_BLOCK ||
        strlen(text) != IMAGEIO_CHECKSUM_CHARS - 1 ||
        strspn(text, "0123456789abcdef") != IMAGEIO_CHECKSUM_CHARS - 1)
        return err_set(err, ERR_ENGINE_PROTOCOL, 0, "the host's checksum of a disk is malformed");
    memcpy(ret, text, IMAGEIO_CHECKSUM_CHARS);
    return true;
}

bool imageio_checksum(struct imageio *io, char ret[IMAGEIO_CHECKSUM_CHARS], struct err *err)
{
    if (!io->ability.can_checksum)
        return err_set(err, ERR_UNSUPPORTED, 0, "the host makes no checksums of disks");
    SCOPED_BUF struct buf body;
    buf_init(&body, OPTIONS_BYTES);
    struct imageio_request request = {
        .method = "GET",
        .suffix = "/checksum?algorithm=sha256&block_size=4194304",
        .timeout_ms = (long)io->conf.map_timeout_ms,
        .begin = begin_collect,
        .sink = collect,
        .sink_ctx = &body,
    };
    struct imageio_reply reply;
    return (operate(io, &request, &reply, err) && read_checksum(&body, ret, err)) ||
           err_wrap(err, "checksum of a disk");
}

static bool check_range(const struct imageio *io, uint64_t offset, uint64_t len, struct err *err)
{
    if (offset <= io->conf.size_bytes && len <= io->conf.size_bytes - offset)
        return true;
    return err_set(err, ERR_BAD_ARGUMENT, 0, "%" PRIu64 " bytes at %" PRIu64 " are not in the disk",
                   len, offset);
}

bool imageio_read(struct imageio *io, void *buf, size_t len, uint64_t offset, struct err *err)
{
    if (len == 0)
        return true;
    if (!check_range(io, offset, len, err))
        return false;
    if (len > READ_BYTES_MAX)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "one read is at most %d bytes", READ_BYTES_MAX);
    struct imageio_request request = {.method = "GET",
                                      .suffix = "",
                                      .has_range = true,
                                      .offset = offset,
                                      .len = len,
                                      .into = buf};
    struct imageio_reply reply;
    if (!operate(io, &request, &reply, err))
        return err_wrap(err, "read %zu bytes at %" PRIu64, len, offset);
    return true;
}

/* --- Writing --------------------------------------------------------------------------------- */
bool imageio_write(struct imageio *io, const void *buf, size_t len, uint64_t offset,
                   struct err *err)
{
    if (len == 0)
        return true;
    if (!check_range(io, offset, len, err))
        return false;
    struct imageio_request request = {.method = "PUT",
                                      .suffix = io->ability.can_flush ? "?flush=n" : "",
                                      .has_range = true,
                                      .offset = offset,
                                      .len = len,
                                      .body = buf,
                                      .body_len = len};
    struct imageio_reply reply;
    if (!operate(io, &request, &reply, err))
        return err_wrap(err, "write %zu bytes at %" PRIu64, len, offset);
    return true;
}

static bool patch(struct imageio *io, const char *body, struct imageio_reply *reply,
                  struct err *err)
{
    struct imageio_request request = {
        .method = "PATCH", .suffix = "", .body = body, .body_len = strlen(body)};
    return operate(io, &request, reply, err);
}

static bool write_zeroes(struct imageio *io, uint64_t offset, uint64_t len, struct err *err)
{
    static const char zeroes[ZERO_PIECE_BYTES];
    while (len > 0) {
        size_t piece = len < sizeof zeroes ? (size_t)len : sizeof zeroes;
        if (!imageio_write(io, zeroes, piece, offset, err))
            return false;
        offset += piece;
        len -= piece;
    }
    return true;
}

bool imageio_zero(struct imageio *io, uint64_t offset, uint64_t len, struct err *err)
{
    if (len == 0)
        return true;
    if (!check_range(io, offset, len, err))
        return false;
    if (!io->ability.can_zero || atomic_load(&io->cannot_zero))
        return write_zeroes(io, offset, len, err);
    SCOPED_FREE char *body =
        xasprintf("{\"op\":\"zero\",\"offset\":%" PRIu64 ",\"size\":%" PRIu64 ",\"flush\":false}",
                  offset, len);
    struct imageio_reply reply;
    if (patch(io, body, &reply, err))
        return true;
    if (reply.status != 500)
        return err_wrap(err, "zero %" PRIu64 " bytes at %" PRIu64, len, offset);
    /* So answers a host whose NBD server cannot zero. Another failure will show at the write. */
    err_clear(err);
    atomic_store(&io->cannot_zero, true);
    return write_zeroes(io, offset, len, err);
}

bool imageio_flush(struct imageio *io, struct err *err)
{
    if (!io->ability.can_flush)
        return true; /* such a host has flushed each write */
    struct imageio_reply reply;
    if (!patch(io, "{\"op\":\"flush\"}", &reply, err))
        return err_wrap(err, "flush");
    return true;
}

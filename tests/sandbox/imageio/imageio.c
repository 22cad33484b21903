/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/imageio/imageio.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <microhttpd.h>

#include "proto/base/buf.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "proto/base/log.h"
#include "tests/sandbox/imageio/imageio_private.h"

enum {
    UNAUTHORIZED_TIMEOUT_S = 60,
    CONNECTION_MEMORY_BYTES = 512 << 10,
    PEM_BYTES_MAX = 1 << 20,
    DEFAULT_CONNECTIONS = 8,
};

/* --- Answers
 * ------------------------------------------------------------------------------------------ */

enum MHD_Result queue_response(struct request *r, unsigned status, struct MHD_Response *response)
{
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_SERVER, "imageio/sandbox");
    if (r->close)
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    enum MHD_Result ok = MHD_queue_response(r->connection, status, response);
    MHD_destroy_response(response);
    r->answered = true;
    return ok;
}

enum MHD_Result answer(struct request *r, unsigned status, const char *type, const char *body,
                       size_t len)
{
    if (r->body_left_to_cut != UINT64_MAX) {
        r->answered = true; /* by a broken connection */
        return MHD_NO;
    }
    /* libmicrohttpd copies the bytes and does not write through the pointer. */
    union {
        const char *in;
        char *out;
    } bytes = {.in = body};
    struct MHD_Response *response =
        MHD_create_response_from_buffer(len, bytes.out, MHD_RESPMEM_MUST_COPY);
    if (type)
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    if (r->allow)
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, r->allow);
    if (r->content_range)
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_RANGE, r->content_range);
    return queue_response(r, status, response);
}

enum MHD_Result answer_error(struct request *r, unsigned status, const char *fmt, ...)
{
    va_list args;
    char text[ERR_MESSAGE_BYTES + 64];
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text - 1, fmt, args);
    va_end(args);
    size_t len = n < 0 ? 0 : (size_t)n < sizeof text - 2 ? (size_t)n : sizeof text - 2;
    text[len++] = '\n';
    return answer(r, status, "text/plain; charset=UTF-8", text, len);
}

enum MHD_Result answer_internal(struct request *r)
{
    return answer_error(r, MHD_HTTP_INTERNAL_SERVER_ERROR,
                        "Server failed to perform the request, check logs");
}

/* --- Requests
 * ------------------------------------------------------------------------------------------ */

struct argument_query {
    const char *key;
    const char *value;
};

static enum MHD_Result see_argument(void *arg, enum MHD_ValueKind kind, const char *key,
                                    const char *value)
{
    struct argument_query *q = arg;
    (void)kind;
    if (strcmp(key, q->key) == 0)
        q->value = value ? value : "";
    return MHD_YES;
}

const char *request_argument(struct request *r, const char *key)
{
    struct argument_query q = {.key = key};
    (void)MHD_get_connection_values(r->connection, MHD_GET_ARGUMENT_KIND, see_argument, &q);
    return q.value;
}

const char *request_header(struct request *r, const char *name)
{
    return MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, name);
}

static bool cut_suffix(char *text, const char *suffix)
{
    size_t len = strlen(text), tail = strlen(suffix);
    if (len < tail || strcmp(text + len - tail, suffix) != 0)
        return false;
    text[len - tail] = '\0';
    return true;
}

static struct request *request_new(struct imageio_server *s, struct MHD_Connection *connection,
                                   const char *path, const char *method)
{
    struct request *r = ALLOC_NEW(struct request);
    r->server = s;
    r->connection = connection;
    r->method = xstrdup(method);
    r->path = xstrdup(path);
    r->body_left_to_cut = UINT64_MAX;
    buf_init(&r->body, PATCH_BYTES_MAX);
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    r->client = info ? info->socket_context : NULL;
    if (strncmp(path, "/images/", 8) == 0) {
        r->ticket_id = xstrdup(path + 8);
        r->extents = cut_suffix(r->ticket_id, "/extents");
        r->checksum = cut_suffix(r->ticket_id, "/checksum");
        r->algorithms = cut_suffix(r->ticket_id, "/checksum/algorithms");
    }
    return r;
}

static void request_free(struct request *r)
{
    if (!r)
        return;
    ticket_end(r->op);
    if (r->ticket)
        ticket_release(r->ticket);
    buf_done(&r->body);
    free(r->buffer);
    free(r->content_range);
    free(r->ticket_id);
    free(r->method);
    free(r->path);
    free(r);
}

/* Ask the fault function. True when it answers itself, with *ret. */
static bool apply_fault(struct request *r, enum MHD_Result *ret)
{
    struct imageio_server *s = r->server;
    uint64_t number = atomic_fetch_add(&s->requests, 1) + 1;
    if (!s->fault)
        return false;
    struct imageio_request shown = {.method = r->method,
                                    .path = r->path,
                                    .ticket = r->ticket_id ? r->ticket_id : "",
                                    .extents = r->extents,
                                    .offset = request_offset(r),
                                    .number = number};
    struct imageio_fault fault = s->fault(s->fault_arg, &shown);
    if (fault.delay_ms > 0)
        clock_sleep_ms(clock_system(), fault.delay_ms);
    if (fault.cut)
        r->body_left_to_cut = fault.cut_after_bytes;
    if (fault.status == 0)
        return false;
    r->close = fault.status == MHD_HTTP_FORBIDDEN;
    *ret = fault.status == MHD_HTTP_INTERNAL_SERVER_ERROR
               ? answer_internal(r)
               : answer_error(r, fault.status, "%s",
                              fault.text ? fault.text : "Refused by the fault script");
    return true;
}

static bool is_local(const struct request *r)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_DAEMON);
    return info && r->server->local && info->daemon == r->server->local;
}

static enum MHD_Result begin(struct request *r)
{
    enum MHD_Result result;
    if (apply_fault(r, &result))
        return result;
    if (strcmp(r->path, "/info/") == 0 && strcmp(r->method, MHD_HTTP_METHOD_GET) == 0 &&
        !is_local(r))
        return answer(r, MHD_HTTP_OK, "application/json", "{\"version\": \"sandbox\"}", 22);
    if (!r->ticket_id)
        return answer_error(r, MHD_HTTP_NOT_FOUND, "No handler for '%s'", r->path);
    if (r->ticket_id[0] == '\0')
        return answer_error(r, MHD_HTTP_BAD_REQUEST, "Ticket id is required");
    return serve_image(r);
}

static bool has_body(struct request *r)
{
    const char *length = request_header(r, MHD_HTTP_HEADER_CONTENT_LENGTH);
    return (length && strcmp(length, "0") != 0) ||
           request_header(r, MHD_HTTP_HEADER_TRANSFER_ENCODING);
}

/* libmicrohttpd calls this once for the head of a request, then for each piece of its body, then
 * once more. An answer in the first call leaves the body unread and closes the connection, so
 * requests without a body are served in the last. */
static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *path,
                                  const char *method, const char *version, const char *data,
                                  size_t *data_len, void **state)
{
    (void)version;
    struct request *r = *state;
    if (!r) {
        r = request_new(arg, connection, path, method);
        *state = r;
        r->has_body = has_body(r);
        return r->has_body ? begin(r) : MHD_YES;
    }
    if (*data_len > 0) {
        size_t len = *data_len;
        *data_len = 0;
        return take_body(r, data, len);
    }
    enum MHD_Result result = r->has_body ? MHD_YES : begin(r);
    return r->wants_body && !r->answered ? finish_image(r) : result;
}

static void on_completed(void *arg, struct MHD_Connection *connection, void **state,
                         enum MHD_RequestTerminationCode why)
{
    (void)arg;
    (void)connection;
    (void)why;
    request_free(*state);
    *state = NULL;
}

static void client_drop(struct client *c)
{
    backend_close(c->backend);
    c->backend = NULL;
    if (c->ticket) {
        ticket_leave(c->ticket);
        ticket_release(c->ticket);
    }
    c->ticket = NULL;
}

static void on_connection(void *arg, struct MHD_Connection *connection, void **state,
                          enum MHD_ConnectionNotificationCode what)
{
    (void)arg;
    (void)connection;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        *state = ALLOC_NEW(struct client);
        return;
    }
    client_drop(*state);
    free(*state);
    *state = NULL;
}

struct backend *request_backend(struct request *r, struct err *err)
{
    struct client *c = r->client;
    if (c->ticket == r->ticket && c->backend)
        return c->backend;
    if (c->ticket != r->ticket) {
        client_drop(c);
        c->ticket = ticket_hold(r->ticket);
        ticket_join(c->ticket);
        unsigned timeout = ticket_opts(c->ticket)->inactivity_timeout_s;
        (void)MHD_set_connection_option(r->connection, MHD_CONNECTION_OPTION_TIMEOUT,
                                        timeout > 0 ? timeout : UNAUTHORIZED_TIMEOUT_S);
    }
    const struct imageio_ticket *opts = ticket_opts(r->ticket);
    c->backend = backend_open(opts->uri, opts->dirty_bitmap, err);
    return c->backend;
}

/* --- Start and stop
 * --------------------------------------------------------------------------------------- */

/* PEM as a string; "" is never a key. */
static char *load_pem(const char *path, struct err *err)
{
    SCOPED_BUF struct buf text;
    if (!file_read_all(AT_FDCWD, path, PEM_BYTES_MAX, &text, err))
        return NULL;
    return buf_take(&text);
}

__attribute__((format(printf, 2, 0))) static void on_log(void *arg, const char *fmt, va_list args)
{
    (void)arg;
    char text[512];
    vsnprintf(text, sizeof text, fmt, args);
    log_debug("http", LOG_STR("message", text));
}

static bool start_daemon(struct imageio_server *s, const struct sockaddr_in *address,
                         struct err *err)
{
    unsigned flags = MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD |
                     MHD_USE_POLL | MHD_USE_ERROR_LOG;
    /* The rest of the options when there is TLS. */
    struct MHD_OptionItem tls[] = {{MHD_OPTION_HTTPS_MEM_CERT, 0, s->cert},
                                   {MHD_OPTION_HTTPS_MEM_KEY, 0, s->key},
                                   {MHD_OPTION_END, 0, NULL}};
    struct MHD_OptionItem none[] = {{MHD_OPTION_END, 0, NULL}};
    s->daemon = MHD_start_daemon(
        flags | (s->cert ? (unsigned)MHD_USE_TLS : 0U), 0, NULL, NULL, on_request, s,
        MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL, MHD_OPTION_SOCK_ADDR, address,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, s, MHD_OPTION_NOTIFY_CONNECTION, on_connection,
        s, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)UNAUTHORIZED_TIMEOUT_S,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY_BYTES, MHD_OPTION_ARRAY,
        s->cert ? tls : none, MHD_OPTION_END);
    return s->daemon ||
           err_set(err, ERR_IO, 0, "imageio: cannot listen on port %u (or bad TLS key)",
                   (unsigned)ntohs(address->sin_port));
}

/* A socket that listens at `name`, or -1 with err. */
static int listen_unix(const char *name, struct err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t len = strlen(name);
    if (len == 0 || len >= sizeof address.sun_path) {
        err_set(err, ERR_BAD_ARGUMENT, 0, "'%s' is too long for a socket", name);
        return -1;
    }
    memcpy(address.sun_path, name, len);
    if (name[0] == '@')
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    if (fd >= 0 && bind(fd, (const struct sockaddr *)&address, size) == 0 && listen(fd, 40) == 0)
        return fd;
    err_set_errno(err, errno, "listen on socket '%s'", name);
    if (fd >= 0)
        (void)close(fd);
    return -1;
}

static bool start_local(struct imageio_server *s, const char *name, struct err *err)
{
    int fd = listen_unix(name, err);
    if (fd < 0)
        return false;
    s->local = MHD_start_daemon(MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD |
                                    MHD_USE_POLL | MHD_USE_ERROR_LOG,
                                0, NULL, NULL, on_request, s, MHD_OPTION_EXTERNAL_LOGGER, on_log,
                                NULL, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_NOTIFY_COMPLETED,
                                on_completed, s, MHD_OPTION_NOTIFY_CONNECTION, on_connection, s,
                                MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)UNAUTHORIZED_TIMEOUT_S,
                                MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY_BYTES,
                                MHD_OPTION_END);
    if (!s->local) {
        (void)close(fd);
        return err_set(err, ERR_IO, 0, "imageio: cannot serve on socket '%s'", name);
    }
    bool is_abstract = name[0] == '@';
    s->unix_socket = is_abstract ? xasprintf("\\u0000%s", name + 1) : xstrdup(name);
    s->unix_path = is_abstract ? NULL : xstrdup(name);
    return true;
}

static bool start(struct imageio_server *s, const struct imageio_opts *opts, struct err *err)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(opts->port)};
    if (inet_pton(AF_INET, opts->address, &address.sin_addr) != 1)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "'%s' is no IPv4 address", opts->address);
    if (opts->cert_path) {
        s->cert = load_pem(opts->cert_path, err);
        s->key = s->cert ? load_pem(opts->key_path, err) : NULL;
        if (!s->key)
            return false;
    }
    if (!start_daemon(s, &address, err))
        return false;
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_BIND_PORT);
    s->port = info ? info->port : opts->port;
    return !opts->unix_socket || start_local(s, opts->unix_socket, err);
}

struct imageio_server *imageio_server_start(const struct imageio_opts *opts, struct err *err)
{
    struct imageio_server *s = ALLOC_NEW(struct imageio_server);
    s->tickets = ticket_table_new();
    s->max_connections = opts->max_connections > 0 ? opts->max_connections : DEFAULT_CONNECTIONS;
    s->fault = opts->fault;
    s->fault_arg = opts->fault_arg;
    if (start(s, opts, err))
        return s;
    imageio_server_stop(s);
    return NULL;
}

void imageio_server_stop(struct imageio_server *s)
{
    if (!s)
        return;
    ticket_cancel_all(s->tickets);
    if (s->daemon)
        MHD_stop_daemon(s->daemon);
    if (s->local)
        MHD_stop_daemon(s->local);
    if (s->unix_path)
        (void)unlink(s->unix_path);
    free(s->unix_path);
    free(s->unix_socket);
    ticket_table_free(s->tickets);
    free(s->cert);
    free(s->key);
    free(s);
}

uint16_t imageio_server_port(const struct imageio_server *s)
{
    return s->port;
}

bool imageio_ticket_add(struct imageio_server *s, const struct imageio_ticket *ticket,
                        struct err *err)
{
    return ticket_add(s->tickets, ticket, err);
}

bool imageio_ticket_extend(struct imageio_server *s, const char *id, unsigned timeout_s,
                           struct err *err)
{
    return ticket_extend(s->tickets, id, timeout_s, err);
}

bool imageio_ticket_get(struct imageio_server *s, const char *id, struct imageio_ticket_info *ret,
                        struct err *err)
{
    return ticket_info(s->tickets, id, ret, err);
}

bool imageio_ticket_remove(struct imageio_server *s, const char *id, int64_t timeout_ms,
                           struct err *err)
{
    return ticket_remove(s->tickets, id, timeout_ms, err);
}

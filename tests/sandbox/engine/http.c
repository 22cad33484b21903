/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/engine/http.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <microhttpd.h>

#include "proto/base/buf.h"
#include "proto/base/log.h"
#include "tests/sandbox/engine/auth.h"
#include "tests/sandbox/engine/calls.h"
#include "tests/sandbox/engine/faults.h"
#include "tests/sandbox/engine/jobs.h"
#include "tests/sandbox/engine/json_out.h"
#include "tests/sandbox/engine/members.h"
#include "tests/sandbox/engine/route.h"
#include "tests/sandbox/engine/tls.h"

enum { HTTP_CONNECTIONS_MAX = 2000, HTTP_IDLE_S = 300, HTTP_HANG_STEP_MS = 200 };

struct http {
    struct MHD_Daemon *daemon;
    uint16_t port;
};

/* What libmicrohttpd keeps for us while a request comes in. */
struct exchange {
    struct buf body;
    bool too_large;
    char *url;
};

/* --- One request ---------------------------------------------------------------------------- */

/* Characters outside [0-9A-Za-z_-] are taken out, 36 are kept; absent: a fresh id. */
static void read_correlation(struct request *r)
{
    const char *text = request_http_header(r, "Correlation-Id");
    if (!text)
        text = request_param(r, "correlation_id");
    size_t out = 0;
    for (; text && *text && out < ID_BYTES - 1; text++)
        if (strspn(text, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-") > 0)
            r->correlation_id[out++] = *text;
    r->correlation_id[out] = '\0';
    if (out == 0)
        id_new(r->correlation_id);
}

static bool header_flag(const struct request *r, const char *name)
{
    const char *value = request_http_header(r, name);
    return value && (!strcmp(value, "true") || !strcmp(value, "1"));
}

/* "/ovirt-engine/api/v4/vms;max=3" to "vms": the path below the API without a version part and
 * without matrix parameters. False when it is not the API's. */
static bool read_api_path(struct request *r)
{
    char *path = r->path_buffer;
    size_t prefix = strlen(API_PREFIX);
    if (strncmp(path, API_PREFIX, prefix) != 0 ||
        (path[prefix] != '/' && path[prefix] != '\0' && path[prefix] != ';'))
        return false;
    path += prefix;
    if (!strncmp(path, "/v4", 3) && (path[3] == '/' || path[3] == '\0'))
        path += 3;
    while (*path == '/')
        path++;
    char *matrix;
    while ((matrix = strchr(path, ';')) != NULL) {
        size_t len = strcspn(matrix, "/");
        memmove(matrix, matrix + len, strlen(matrix + len) + 1);
    }
    size_t len = strlen(path);
    while (len > 0 && path[len - 1] == '/')
        path[--len] = '\0';
    r->path = path;
    return true;
}

static bool read_body(struct engine *e, struct request *r, const struct route *route,
                      const struct exchange *x)
{
    if (!route->body_type)
        return true;
    const char *type = request_http_header(r, "Content-Type");
    if (!type || strncmp(type, "application/json", 16) != 0) {
        reply_text(r, 415, "text/html;charset=UTF-8",
                   xstrdup("<html><body>Unsupported Media Type: this engine speaks "
                           "application/json only</body></html>"));
        return false;
    }
    json_error_t at;
    r->body = json_loadb(buf_str(&x->body), x->body.len, JSON_REJECT_DUPLICATES, &at);
    struct err err = ERR_INIT;
    if (!json_is_object(r->body))
        err_set(&err, ERR_BAD_MESSAGE, 400, "line %d: %s", at.line, at.text);
    if (err_is_set(&err) || !members_check(route->body_type, e->version, r->body, &err)) {
        log_warn("request_refused", LOG_STR("method", r->method), LOG_STR("path", r->path),
                 LOG_STR("why", err.message));
        reply_bad_syntax(e, r);
        return false;
    }
    return true;
}

static bool accepts_json(struct request *r)
{
    const char *accept = request_param(r, "accept");
    if (!accept)
        accept = request_http_header(r, "Accept");
    if (accept && strstr(accept, "application/json"))
        return true;
    reply_text(r, 406, "text/html;charset=UTF-8",
               xstrdup("<html><body>Not Acceptable: the default representation is XML, and this "
                       "engine speaks application/json only</body></html>"));
    return false;
}

static bool version_known(struct request *r)
{
    const char *version = request_http_header(r, "Version");
    if (!version || !strcmp(version, "4"))
        return true;
    reply_fault(r, 400, "Operation Failed", "[Version %s is not supported.]", version);
    return false;
}

/* Runs the handler, with a job around a mutating call. */
static void run_route(struct engine *e, struct request *r, const struct route *route)
{
    if (route->job)
        r->job = jobs_start(e, r->correlation_id, route->job);
    route->fn(e, r);
    if (r->job && !r->job_continues)
        jobs_finish(e, r->job, r->status < 400);
}

static void serve_api(struct engine *e, struct request *r, const struct route *route,
                      const struct exchange *x)
{
    r->all_content = header_flag(r, "All-Content") || request_flag(r, "all_content", false);
    r->filter = header_flag(r, "Filter") || request_flag(r, "filter", false);
    if (!auth_check(e, r) || !version_known(r) || !accepts_json(r))
        return;
    if (!route)
        reply_empty(r, route_known(r) ? 405 : 404);
    else if (x->too_large)
        reply_empty(r, 413);
    else if (read_body(e, r, route, x))
        run_route(e, r, route);
}

/* What is not the API: single sign-on and the certificate. */
static void serve_service(struct engine *e, struct request *r, const struct exchange *x)
{
    const char *url = r->path;
    bool post = !strcmp(r->method, "POST");
    if (!strcmp(url, "/ovirt-engine/sso/oauth/token") && post)
        auth_token(e, r, buf_str(&x->body));
    else if (!strcmp(url, "/ovirt-engine/services/sso-logout") && post)
        auth_logout(e, r, buf_str(&x->body));
    else if (!strcmp(url, "/ovirt-engine/services/pki-resource") && !post)
        reply_text(r, 200, "application/x-x509-ca-cert", xstrdup(e->tls->ca_pem));
    else
        reply_text(r, 404, "text/html;charset=UTF-8",
                   xstrdup("<html><body>Not Found</body></html>"));
}

/* --- Faults --------------------------------------------------------------------------------- */

/* The peer sees a TCP reset at once: what is still to come (TLS's farewell, FIN) goes nowhere. */
static void reset_now(struct MHD_Connection *conn)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    if (info)
        (void)connect(info->connect_fd, &none, sizeof none);
}

/* Acts on a fault. True: the connection is to be cut. */
static bool apply_fault(struct engine *e, struct request *r, const struct fault *fault)
{
    unsigned rule = fault->rule;
    switch (fault->action) {
    case FAULT_NONE:
    case FAULT_DELAY:
        break;
    case FAULT_STATUS:
        json_decref(r->reply);
        free(r->text);
        r->reply = NULL;
        r->text = NULL;
        if (fault->body)
            reply_text(r, fault->status, "text/html;charset=UTF-8", xstrdup(fault->body));
        else
            reply_fault(r, fault->status, fault->reason ? fault->reason : "Operation Failed", "%s",
                        fault->detail ? fault->detail : "[Internal Engine Error]");
        break;
    case FAULT_DROP:
        (void)engine_sleep(e, fault->delay_ms);
        return true;
    case FAULT_RESET:
        (void)engine_sleep(e, fault->delay_ms);
        reset_now(r->conn);
        return true;
    case FAULT_HANG:
        /* Until the rule is taken away, which leaves `fault` dangling: use only `rule`. */
        while (!e->api_down && faults_has(e->faults, rule) && engine_sleep(e, HTTP_HANG_STEP_MS))
            continue;
        return true;
    case FAULT_HOLD:
        while (!e->api_down && faults_has(e->faults, rule) && engine_sleep(e, HTTP_HANG_STEP_MS))
            continue;
        return false;
    case FAULT_EXPIRE:
        auth_expire_all(e->auth);
        break;
    }
    if (fault->delay_ms > 0)
        (void)engine_sleep(e, fault->delay_ms);
    return false;
}

/* --- libmicrohttpd -------------------------------------------------------------------------- */

static enum MHD_Result send_reply(struct request *r)
{
    char *text = r->text;
    if (r->reply)
        text = json_dumps(r->reply, JSON_INDENT(2));
    struct MHD_Response *response = MHD_create_response_from_buffer(
        text ? strlen(text) : 0, text, text ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
    r->text = NULL;
    if (text)
        MHD_add_response_header(response, "Content-Type",
                                r->reply ? "application/json" : r->text_type);
    MHD_add_response_header(response, "Correlation-Id", r->correlation_id);
    if (r->location)
        MHD_add_response_header(response, "Location", r->location);
    if (r->status == 401)
        MHD_add_response_header(response, "WWW-Authenticate", "Basic realm=\"RESTAPI\"");
    enum MHD_Result sent = MHD_queue_response(r->conn, (unsigned)r->status, response);
    MHD_destroy_response(response);
    return sent;
}

static void request_done(struct request *r)
{
    json_decref(r->body);
    json_decref(r->reply);
    free(r->text);
    free(r->location);
    free(r->path_buffer);
    free(r->ids_buffer);
}

static enum MHD_Result answer(struct engine *e, struct MHD_Connection *conn, const char *method,
                              const struct exchange *x)
{
    struct request r = {.conn = conn, .method = method};
    r.path_buffer = xstrdup(x->url);
    r.path = r.path_buffer;
    r.url = x->url;
    read_correlation(&r);
    int64_t begun = engine_mono_ms();
    bool is_api = read_api_path(&r);
    const struct route *route = is_api ? route_find(&r) : NULL;
    r.is_action = route && route->body_type && !strcmp(route->body_type, "Action");

    engine_lock(e);
    /* Kept apart: the token may die with the call. */
    SCOPED_FREE char *user = xstrdup(auth_user(e->auth, &r));
    const struct fault_call call = {method, x->url, r.correlation_id, user};
    struct fault fault = faults_http(e->faults, FAULT_BEFORE, &call);
    bool cut = apply_fault(e, &r, &fault);
    if (!cut && r.status == 0) {
        if (is_api)
            serve_api(e, &r, route, x);
        else
            serve_service(e, &r, x);
        fault = faults_http(e->faults, FAULT_AFTER, &call);
        cut = apply_fault(e, &r, &fault);
    }
    cut = cut || e->stopping || e->api_down;
    calls_note(e, &r, user, route ? route->pattern : "-", cut ? 0 : r.status,
               engine_mono_ms() - begun);
    engine_unlock(e);

    enum MHD_Result result = cut ? MHD_NO : send_reply(&r);
    request_done(&r);
    return result;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *conn, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *len, void **state)
{
    (void)version;
    struct exchange *x = *state;
    if (!x) {
        x = ALLOC_NEW(struct exchange);
        buf_init(&x->body, REQUEST_BODY_MAX);
        x->url = xstrdup(url);
        *state = x;
        return MHD_YES;
    }
    if (*len > 0) {
        if (!x->too_large && !buf_add(&x->body, data, *len))
            x->too_large = true;
        *len = 0;
        return MHD_YES;
    }
    return answer(arg, conn, method, x);
}

static void on_done(void *arg, struct MHD_Connection *conn, void **state,
                    enum MHD_RequestTerminationCode code)
{
    (void)arg;
    (void)conn;
    (void)code;
    struct exchange *x = *state;
    if (!x)
        return;
    buf_done(&x->body);
    free(x->url);
    free(x);
    *state = NULL;
}

struct http *http_start(struct engine *e, struct err *err)
{
    struct http *h = ALLOC_NEW(struct http);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(e->opts.port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    h->daemon = MHD_start_daemon(
        MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL |
            MHD_USE_TLS | MHD_USE_ITC,
        0, NULL, NULL, on_request, e, MHD_OPTION_SOCK_ADDR, &address, MHD_OPTION_NOTIFY_COMPLETED,
        on_done, NULL, MHD_OPTION_HTTPS_MEM_KEY, e->tls->key_pem, MHD_OPTION_HTTPS_MEM_CERT,
        e->tls->cert_pem, MHD_OPTION_CONNECTION_LIMIT, (unsigned)HTTP_CONNECTIONS_MAX,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)HTTP_IDLE_S, MHD_OPTION_LISTENING_ADDRESS_REUSE,
        1U, MHD_OPTION_END);
    if (!h->daemon) {
        free(h);
        err_set(err, ERR_IO, 0, "cannot listen on 127.0.0.1 port %u", e->opts.port);
        return NULL;
    }
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_BIND_PORT);
    h->port = info->port;
    return h;
}

void http_stop(struct http *h)
{
    if (!h)
        return;
    MHD_stop_daemon(h->daemon);
    free(h);
}

uint16_t http_port(const struct http *h)
{
    return h->port;
}

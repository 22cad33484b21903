/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/engine/control.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <microhttpd.h>

#include "proto/base/buf.h"
#include "tests/sandbox/engine/auth.h"
#include "tests/sandbox/engine/calls.h"
#include "tests/sandbox/engine/faults.h"
#include "tests/sandbox/engine/guests.h"
#include "tests/sandbox/engine/http.h"
#include "tests/sandbox/engine/roles.h"
#include "tests/sandbox/engine/state.h"
#include "tests/sandbox/engine/storage.h"
#include "tests/sandbox/engine/views.h"

enum { CONTROL_BODY_MAX = 1024 * 1024, CONTROL_BACKLOG = 64, CONTROL_ERROR = 400 };

struct control {
    struct MHD_Daemon *daemon;
    struct engine *e;
    char *path;
};

struct call {
    struct buf body;
    char *url;
};

/* One control call: the answer's status, and its body in *ret. */
typedef unsigned (*control_fn)(struct engine *e, const char *rest, const json_t *body,
                               json_t **ret);

static unsigned say(json_t **ret, unsigned status, const char *text)
{
    *ret = json_pack("{s:s}", status < CONTROL_ERROR ? "result" : "error", text);
    return status;
}

static unsigned get_state(struct engine *e, const char *rest, const json_t *body, json_t **ret)
{
    (void)rest;
    (void)body;
    *ret = state_show(e);
    return 200;
}

static unsigned get_calls(struct engine *e, const char *rest, const json_t *body, json_t **ret)
{
    (void)rest;
    (void)body;
    json_t *shown = calls_show(e->calls);
    *ret = json_deep_copy(shown);
    json_decref(shown);
    return 200;
}

static unsigned get_faults(struct engine *e, const char *rest, const json_t *body, json_t **ret)
{
    (void)rest;
    (void)body;
    *ret = faults_show(e->faults);
    return 200;
}

static unsigned add_faults(struct engine *e, const char *rest, const json_t *body, json_t **ret)
{
    (void)rest;
    struct err err = ERR_INIT;
    if (!faults_add(e->faults, body, &err))
        return say(ret, 400, err.message);
    *ret = faults_show(e->faults);
    return 200;
}

static unsigned drop_faults(struct engine *e, const char *rest, const json_t *body, json_t **ret)
{
    (void)body;
    unsigned removed = faults_remove(e->faults, *rest ? rest : NULL);
    engine_changed(e);
    *ret = json_pack("{s:i}", "removed", (int)removed);
    return removed > 0 || !*rest ? 200 : 404;
}

static unsigned expire_tokens(struct engine *e, const char *rest, const json_t *body, json_t **ret)
{
    (void)rest;
    (void)body;
    auth_expire_all(e->auth);
    return say(ret, 200, "all tokens expired");
}

static unsigned set_version(struct engine *e, const char *rest, const json_t *body, json_t **ret)
{
    (void)rest;
    const char *text = json_string_value(json_object_get(body, "version"));
    if (!text || !engine_set_version(e, text))
        return say(ret, 400, "version: a text like 4.4.10");
    return say(ret, 200, e->version_text);
}

static unsigned set_timings(struct engine *e, const char *rest, const json_t *body, json_t **ret)
{
    (void)rest;
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)(uintptr_t)body, key, value)
        if (!json_is_integer(value) || !timings_set(&e->timings, key, json_integer_value(value)))
            return say(ret, 400, "timings: {\"snapshot_ms\": 100, ...}");
    return say(ret, 200, "timings set");
}

static unsigned set_clock(struct engine *e, const char *rest, const json_t *body, json_t **ret)
{
    (void)rest;
    const json_t *offset = json_object_get(body, "offset_ms");
    if (!json_is_integer(offset))
        return say(ret, 400, "clock: {\"offset_ms\": -5000}");
    e->clock_offset_ms = json_integer_value(offset);
    return say(ret, 200, "clock set");
}

static unsigned set_role(struct engine *e, const char *rest, const json_t *body, json_t **ret)
{
    (void)rest;
    if (!roles_set(e, body))
        return say(ret, 400,
                   "role: {\"permits\": [...], \"administrative\": true, \"on\": "
                   "\"system\" or \"data_center\" or \"cluster\"}");
    return say(ret, 200, "role set");
}

static unsigned set_vm(struct engine *e, const char *rest, const json_t *body, json_t **ret)
{
    struct vm *vm = model_vm(&e->model, rest);
    if (!vm)
        vm = model_vm_by_name(&e->model, rest);
    if (!vm)
        return say(ret, 404, "no such VM");
    struct err err = ERR_INIT;
    if (!state_change_vm(e, vm, body, &err))
        return say(ret, 400, err.message);
    return say(ret, 200, "VM changed");
}

static unsigned set_devices(struct engine *e, const char *rest, const json_t *body, json_t **ret)
{
    (void)rest;
    const json_t *read = json_object_get(body, "read_bps");
    const json_t *write = json_object_get(body, "write_bps");
    if (!json_is_integer(read) || json_integer_value(read) < 0 ||
        (write && (!json_is_integer(write) || json_integer_value(write) < 0)))
        return say(ret, 400, "devices: {\"read_bps\": 8388608, \"write_bps\": 0} (0 = no limit)");
    struct err err = ERR_INIT;
    if (!storage_limit_devices(e, (uint64_t)json_integer_value(read),
                               (uint64_t)json_integer_value(write), &err))
        return say(ret, 500, err.message);
    return say(ret, 200, "devices changed");
}

/* The engine goes down and comes back, as in a restart: while it is down nobody listens, requests
 * under way are cut, and no token survives. Hosts and what they are at go on. */
static unsigned set_engine(struct engine *e, const char *rest, const json_t *body, json_t **ret)
{
    (void)rest;
    const json_t *up = json_object_get(body, "up");
    if (!json_is_boolean(up))
        return say(ret, 400, "engine: {\"up\": false}");
    if (json_is_true(up) == (e->http != NULL))
        return say(ret, 409, "it is so already");
    if (json_is_true(up)) {
        struct err err = ERR_INIT;
        e->opts.port = e->port;
        e->http = http_start(e, &err);
        if (!e->http)
            return say(ret, 500, err.message);
        e->api_down = false;
        return say(ret, 200, "the engine is up");
    }
    struct http *http = TAKE(e->http);
    e->api_down = true;
    auth_expire_all(e->auth);
    engine_changed(e);
    engine_unlock(e);
    http_stop(http);
    engine_lock(e);
    return say(ret, 200, "the engine is down");
}

static uint64_t used_bytes(const struct engine *e, const struct storage_domain *sd)
{
    uint64_t used = 0;
    const struct disk *d;
    VEC_EACH(&e->model.disks, d)
    if (d->sd == sd)
        used += disk_actual_bytes(d);
    return used;
}

static unsigned set_sd(struct engine *e, const char *rest, const json_t *body, json_t **ret)
{
    struct storage_domain *sd = model_sd(&e->model, rest);
    const char *status = json_string_value(json_object_get(body, "status"));
    const json_t *size = json_object_get(body, "size_bytes");
    if (!sd)
        return say(ret, 404, "no such storage domain");
    const json_t *available = json_object_get(body, "available_bytes");
    if (!status && !json_is_integer(size) && !json_is_integer(available))
        return say(ret, 400,
                   "storagedomains: {\"status\": \"maintenance\"}, {\"size_bytes\": N} or "
                   "{\"available_bytes\": N}");
    if (status) {
        free(sd->status);
        sd->status = xstrdup(status);
    }
    if (json_is_integer(size) && json_integer_value(size) >= 0)
        sd->size_bytes = (uint64_t)json_integer_value(size);
    if (json_is_integer(available) && json_integer_value(available) >= 0)
        sd->size_bytes = used_bytes(e, sd) + (uint64_t)json_integer_value(available);
    return say(ret, 200, "storage domain changed");
}

static unsigned set_host(struct engine *e, const char *rest, const json_t *body, json_t **ret)
{
    const json_t *up = json_object_get(body, "up");
    struct host *h;
    if (!json_is_boolean(up))
        return say(ret, 400, "hosts: {\"up\": false}");
    VEC_EACH(&e->model.hosts, h)
    if (!strcmp(h->name, rest)) {
        h->down = json_is_false(up);
        return say(ret, 200, "host changed");
    }
    return say(ret, 404, "no such host");
}

static const struct {
    const char *method, *path;
    bool has_rest; /* an object's name or id follows the path */
    control_fn fn;
} control_table[] = {
    {"GET", "/sandbox/state", false, get_state},
    {"GET", "/sandbox/calls", false, get_calls},
    {"GET", "/sandbox/faults", false, get_faults},
    {"POST", "/sandbox/faults", false, add_faults},
    {"DELETE", "/sandbox/faults", false, drop_faults},
    {"DELETE", "/sandbox/faults/", true, drop_faults},
    {"POST", "/sandbox/expire-tokens", false, expire_tokens},
    {"POST", "/sandbox/version", false, set_version},
    {"POST", "/sandbox/timings", false, set_timings},
    {"POST", "/sandbox/clock", false, set_clock},
    {"POST", "/sandbox/role", false, set_role},
    {"POST", "/sandbox/devices", false, set_devices},
    {"POST", "/sandbox/engine", false, set_engine},
    {"POST", "/sandbox/vms/", true, set_vm},
    {"POST", "/sandbox/storagedomains/", true, set_sd},
    {"POST", "/sandbox/hosts/", true, set_host},
};

static unsigned dispatch(struct engine *e, const char *method, const struct call *c, json_t **ret)
{
    json_t *body = NULL;
    if (c->body.len > 0) {
        json_error_t at;
        body = json_loadb(buf_str(&c->body), c->body.len, 0, &at);
        if (!body)
            return say(ret, 400, at.text);
    }
    unsigned status = 0;
    for (size_t i = 0; i < ARRAY_LEN(control_table) && status == 0; i++) {
        size_t len = strlen(control_table[i].path);
        bool fits = control_table[i].has_rest
                        ? !strncmp(c->url, control_table[i].path, len) && c->url[len] != '\0'
                        : !strcmp(c->url, control_table[i].path);
        if (!fits || strcmp(method, control_table[i].method) != 0)
            continue;
        engine_lock(e);
        status = control_table[i].fn(e, c->url + len, body, ret);
        engine_unlock(e);
    }
    json_decref(body);
    return status ? status : say(ret, 404, "no such call");
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *conn, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *len, void **state)
{
    (void)version;
    const struct control *control = arg;
    struct call *c = *state;
    if (!c) {
        c = ALLOC_NEW(struct call);
        buf_init(&c->body, CONTROL_BODY_MAX);
        c->url = xstrdup(url);
        *state = c;
        return MHD_YES;
    }
    if (*len > 0) {
        bool fits = buf_add(&c->body, data, *len);
        *len = 0;
        return fits ? MHD_YES : MHD_NO;
    }
    json_t *body = NULL;
    unsigned status = dispatch(control->e, method, c, &body);
    char *text = json_dumps(body, JSON_INDENT(2));
    json_decref(body);
    struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
    MHD_add_response_header(response, "Content-Type", "application/json");
    enum MHD_Result sent = MHD_queue_response(conn, status, response);
    MHD_destroy_response(response);
    return sent;
}

static void on_done(void *arg, struct MHD_Connection *conn, void **state,
                    enum MHD_RequestTerminationCode code)
{
    (void)arg;
    (void)conn;
    (void)code;
    struct call *c = *state;
    if (!c)
        return;
    buf_done(&c->body);
    free(c->url);
    free(c);
    *state = NULL;
}

static int listen_unix(const char *path, struct err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        err_set(err, ERR_BAD_ARGUMENT, 0, "socket path '%s' is too long", path);
        return -1;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    SCOPED_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof address) != 0 ||
        chmod(path, 0600) != 0 || listen(fd, CONTROL_BACKLOG) != 0) {
        err_set_errno(err, errno, "listen on '%s'", path);
        return -1;
    }
    return TAKE_FD(fd);
}

struct control *control_start(struct engine *e, struct err *err)
{
    struct control *c = ALLOC_NEW(struct control);
    c->e = e;
    c->path = xasprintf("%s/control.sock", e->opts.dir);
    int fd = listen_unix(c->path, err);
    if (fd >= 0) {
        c->daemon = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD |
                                         MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL | MHD_USE_ITC,
                                     0, NULL, NULL, on_request, c, MHD_OPTION_LISTEN_SOCKET, fd,
                                     MHD_OPTION_NOTIFY_COMPLETED, on_done, NULL, MHD_OPTION_END);
        if (!c->daemon) {
            (void)close(fd);
            err_set(err, ERR_IO, 0, "cannot serve '%s'", c->path);
        }
    }
    if (!c->daemon) {
        control_stop(c);
        return NULL;
    }
    return c;
}

void control_stop(struct control *c)
{
    if (!c)
        return;
    if (c->daemon)
        MHD_stop_daemon(c->daemon);
    (void)unlink(c->path);
    free(c->path);
    free(c);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/integration/imageio/host.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <jansson.h>

#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "tests/sandbox/block/proc.h"

enum { LOG_BYTES = 4 << 20, START_MS = 60 * 1000, STOP_MS = 20 * 1000, REMOVE_MS = 1000 };

struct host {
    struct imageio_server *sandbox; /* NULL = the real one: */
    struct proc *daemon;
    char *control, *log;
    uint16_t port;
};

/* --- The real one ----------------------------------------------------------------------------- */
static bool write_conf(const struct host *h, const struct imageio_opts *opts, const char *dir,
                       struct err *err)
{
    const char *socket = opts->unix_socket ? opts->unix_socket : "";
    bool is_abstract = socket[0] == '@';
    SCOPED_FREE char *conf_dir = xasprintf("%s/conf.d", dir);
    SCOPED_FREE char *path = xasprintf("%s/daemon.conf", conf_dir);
    SCOPED_FREE char *text = xasprintf(
        "[daemon]\nrun_dir = %s\ndrop_privileges = false\nsystemd_enable = false\n"
        "max_connections = %u\n"
        "[tls]\nkey_file = %s\ncert_file = %s\n[remote]\nhost = %s\nport = %u\n"
        "[local]\nenable = %s\nsocket = %s%s\n[control]\nsocket = %s\nremove_timeout = 1\n"
        "[handlers]\nkeys = stderr\n[logger_root]\nhandlers = stderr\nlevel = INFO\n",
        dir, opts->max_connections ? opts->max_connections : 8, opts->key_path, opts->cert_path,
        opts->address, opts->port, socket[0] ? "true" : "false", is_abstract ? "\\u0000" : "",
        socket + is_abstract, h->control);
    (void)mkdir(conf_dir, 0755);
    return file_write_atomic(AT_FDCWD, path, text, strlen(text), 0644, err);
}

/* "... remote.service listening on ('127.0.0.1', 38547)", and later "Ready for requests". */
static uint16_t port_in_log(const char *log)
{
    static const char listening[] = "remote.service listening on (";
    const char *at = strstr(log, listening);
    at = at && strstr(log, "Ready for requests") ? strchr(at, ',') : NULL;
    return at ? (uint16_t)strtoul(at + 1, NULL, 10) : 0;
}

static bool wait_ready(struct host *h, struct err *err)
{
    int64_t until = clock_mono_ms(clock_system()) + START_MS;
    while (clock_mono_ms(clock_system()) < until && proc_is_running(h->daemon)) {
        SCOPED_BUF struct buf log;
        struct err ignored = ERR_INIT;
        if (file_read_all(AT_FDCWD, h->log, LOG_BYTES, &log, &ignored) &&
            (h->port = port_in_log(buf_str(&log))) != 0)
            return true;
        clock_sleep_ms(clock_system(), 50);
    }
    return err_set(err, ERR_IO, 0, "the daemon did not start, see %s", h->log);
}

static bool start_daemon(struct host *h, const char *command, const struct imageio_opts *opts,
                         const char *dir, struct err *err)
{
    h->control = xasprintf("%s/control.socket", dir);
    h->log = xasprintf("%s/daemon.log", dir);
    SCOPED_FREE char *line = xasprintf("exec %s --conf-dir '%s'", command, dir);
    const char *argv[] = {"sh", "-c", line, NULL};
    const struct proc_opts how = {
        .argv = argv, .log_path = h->log, .pass_fd = -1, .death_signal = SIGTERM};
    (void)remove(h->log);
    return write_conf(h, opts, dir, err) && (h->daemon = proc_start(&how, err)) &&
           wait_ready(h, err);
}

/* Of the control service. `body` and `ret_answer` may be NULL. */
static bool ask(const struct host *h, const char *method, const char *id, const char *body,
                char **ret_answer, struct err *err)
{
    SCOPED_FREE char *url = xasprintf("http://localhost/tickets/%s", id);
    const char *argv[] = {"curl",
                          "-sS",
                          "--fail-with-body",
                          "--unix-socket",
                          h->control,
                          "-X",
                          method,
                          url,
                          body ? "--data" : NULL,
                          body,
                          NULL};
    return proc_run(argv, ret_answer, err);
}

static bool add_real(const struct host *h, const struct imageio_ticket *t, struct err *err)
{
    static const char scheme[] = "nbd+unix:///", query[] = "?socket=";
    const char *name = t->uri + strlen(scheme), *socket = strstr(t->uri, query);
    if (strncmp(t->uri, scheme, strlen(scheme)) != 0 || !socket)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "'%s' is not on a unix socket", t->uri);
    SCOPED_FREE char *url = xasprintf("nbd:unix:%s:exportname=%.*s", socket + strlen(query),
                                      (int)(socket - name), name);
    json_auto_t *ticket =
        json_pack("{s:s, s:I, s:[s], s:i, s:i, s:s, s:s, s:b}", "uuid", t->id, "size",
                  (json_int_t)t->size_bytes, "ops", t->can_write ? "write" : "read", "timeout",
                  (int)t->timeout_s, "inactivity_timeout",
                  t->inactivity_timeout_s ? (int)t->inactivity_timeout_s : 60, "url", url,
                  "transfer_id", t->transfer_id, "sparse", (int)t->sparse);
    SCOPED_FREE char *body = json_dumps(ticket, 0);
    return ask(h, "PUT", t->id, body, NULL, err);
}

static bool count_real(const struct host *h, const char *id, uint64_t *ret_transferred,
                       unsigned *ret_connections, struct err *err)
{
    SCOPED_FREE char *answer = NULL;
    if (!ask(h, "GET", id, NULL, &answer, err))
        return false;
    json_auto_t *info = json_loads(answer, 0, NULL);
    *ret_transferred = (uint64_t)json_integer_value(json_object_get(info, "transferred"));
    *ret_connections = (unsigned)json_integer_value(json_object_get(info, "connections"));
    return true;
}

bool host_certificate(const char *cert_path, const char *key_path, struct err *err)
{
    const char *argv[] = {"openssl",  "req",
                          "-x509",    "-newkey",
                          "ec",       "-nodes",
                          "-pkeyopt", "ec_paramgen_curve:prime256v1",
                          "-days",    "2",
                          "-subj",    "/CN=localhost",
                          "-addext",  "subjectAltName=IP:127.0.0.1",
                          "-keyout",  key_path,
                          "-out",     cert_path,
                          NULL};
    return proc_run(argv, NULL, err);
}

/* --- Either ----------------------------------------------------------------------------------- */
struct host *host_start(const struct imageio_opts *opts, const char *dir, struct err *err)
{
    struct host *h = ALLOC_NEW(struct host);
    const char *command = getenv("OXBOW_IMAGEIO_DAEMON");
    if (command && command[0] ? start_daemon(h, command, opts, dir, err)
                              : (h->sandbox = imageio_server_start(opts, err)) != NULL)
        return h;
    host_stop(h);
    return NULL;
}

void host_stop(struct host *h)
{
    if (!h)
        return;
    imageio_server_stop(h->sandbox);
    if (h->daemon) {
        proc_signal(h->daemon, SIGTERM);
        (void)proc_wait(h->daemon, STOP_MS, NULL);
        proc_free(h->daemon);
    }
    free(h->control);
    free(h->log);
    free(h);
}

bool host_is_real(const struct host *h)
{
    return !h->sandbox;
}

uint16_t host_port(const struct host *h)
{
    return h->sandbox ? imageio_server_port(h->sandbox) : h->port;
}

bool host_add(struct host *h, const struct imageio_ticket *ticket, struct err *err)
{
    return h->sandbox ? imageio_ticket_add(h->sandbox, ticket, err) : add_real(h, ticket, err);
}

bool host_remove(struct host *h, const char *id, struct err *err)
{
    return h->sandbox ? imageio_ticket_remove(h->sandbox, id, REMOVE_MS, err)
                      : ask(h, "DELETE", id, NULL, NULL, err);
}

bool host_count(struct host *h, const char *id, uint64_t *ret_transferred,
                unsigned *ret_connections, struct err *err)
{
    if (!h->sandbox)
        return count_real(h, id, ret_transferred, ret_connections, err);
    struct imageio_ticket_info info = {0};
    if (!imageio_ticket_get(h->sandbox, id, &info, err))
        return false;
    *ret_transferred = info.transferred;
    *ret_connections = info.connections;
    return true;
}

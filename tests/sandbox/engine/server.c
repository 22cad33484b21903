/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/engine/server.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/file.h"
#include "proto/base/log.h"
#include "tests/sandbox/engine/auth.h"
#include "tests/sandbox/engine/calls.h"
#include "tests/sandbox/engine/control.h"
#include "tests/sandbox/engine/faults.h"
#include "tests/sandbox/engine/guests.h"
#include "tests/sandbox/engine/http.h"
#include "tests/sandbox/engine/json_out.h"
#include "tests/sandbox/engine/power.h"
#include "tests/sandbox/engine/spec.h"
#include "tests/sandbox/engine/storage.h"
#include "tests/sandbox/engine/tls.h"
#include "tests/sandbox/engine/wipe.h"
#include "tests/sandbox/imageio/imageio.h"

enum {
    SERVER_STARTERS = 4,
    SERVER_HANG_STEP_MS = 200,
    /* "/r/h12345678/qmp.sock" and the like have to fit into a socket address. */
    SERVER_DIR_MAX = 70,
};

static bool dir_is_empty(const char *dir, struct err *err)
{
    DIR *d = opendir(dir);
    if (!d)
        return err_set_errno(err, errno, "open directory '%s'", dir);
    bool empty = true;
    for (const struct dirent *entry; empty && (entry = readdir(d)) != NULL;)
        empty = !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..");
    (void)closedir(d);
    return empty || err_set(err, ERR_EXISTS, 0,
                            "'%s' is not empty: choose another, or add --wipe if a sandbox "
                            "was killed there",
                            dir);
}

/* The absolute path of a directory that is there and empty; the caller frees. */
static char *prepare_dir(const struct server_opts *opts, struct err *err)
{
    if (!file_make_dirs(opts->dir, 0755, err))
        return NULL;
    char *dir = realpath(opts->dir, NULL);
    bool ok = dir || err_set_errno(err, errno, "'%s'", opts->dir);
    if (ok && strlen(dir) > SERVER_DIR_MAX)
        ok = err_set(err, ERR_BAD_ARGUMENT, 0,
                     "'%s' is too long: sockets below it need a path of at most %d characters", dir,
                     SERVER_DIR_MAX);
    if (ok && opts->wipe)
        ok = wipe_dir(dir, err);
    if (!ok || !dir_is_empty(dir, err)) {
        free(dir);
        return NULL;
    }
    return dir;
}

/* --- Starting VMs, a few at a time --------------------------------------------------------------
 */

struct starters {
    struct spec *spec;
    size_t next;
    unsigned running;
    struct err err;
};

static void start_some(struct engine *e, void *arg)
{
    struct starters *s = arg;
    while (s->next < s->spec->start.len && !err_is_set(&s->err) && !e->stopping) {
        struct vm *vm = s->spec->start.at[s->next++];
        struct err err = ERR_INIT;
        if (!power_start_now(e, vm, &err) || !guests_wait(e, vm, &err))
            err_keep_first(&s->err, &err);
    }
    s->running--;
    engine_changed(e);
}

static bool start_vms(struct engine *e, struct spec *spec, struct err *err)
{
    struct starters s = {.spec = spec, .running = SERVER_STARTERS};
    engine_lock(e);
    for (unsigned i = 0; i < SERVER_STARTERS; i++)
        engine_spawn(e, start_some, &s);
    while (s.running > 0)
        engine_wait(e);
    engine_unlock(e);
    if (err_is_set(&s.err))
        *err = s.err;
    return !err_is_set(&s.err);
}

/* --- DIR/sandbox.json ----------------------------------------------------------------------------
 */

static json_t *describe(const struct engine *e, const struct spec *spec)
{
    SCOPED_FREE char *url = xasprintf("https://localhost:%u/ovirt-engine", e->port);
    SCOPED_FREE char *ca = xasprintf("%s/ca.pem", e->opts.dir);
    SCOPED_FREE char *password = xasprintf("%s/password", e->opts.dir);
    SCOPED_FREE char *control = xasprintf("%s/control.sock", e->opts.dir);
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:i}", "url", url, "ca", ca, "user",
                          spec->user, "password_file", password, "control", control, "version",
                          e->version_text, "dir", e->opts.dir, "pid", (int)getpid());
    if (e->opts.keep_dir)
        out_str(o, "keep_dir", e->opts.keep_dir);
    json_t *proxies = json_array();
    const struct vm *vm;
    VEC_EACH(&e->model.vms, vm)
    if (vm->is_proxy)
        json_array_append_new(proxies, json_pack("{s:s, s:s, s:s, s:s}", "id", vm->id, "name",
                                                 vm->name, "dev_dir", vm->dev_dir, "data_center",
                                                 vm->cluster->dc->id));
    json_object_set_new(o, "proxies", proxies);
    return o;
}

static bool write_files(struct engine *e, const struct spec *spec, struct err *err)
{
    SCOPED_FREE char *password = xasprintf("%s/password", e->opts.dir);
    SCOPED_FREE char *path = xasprintf("%s/sandbox.json", e->opts.dir);
    engine_lock(e); /* the API answers already */
    json_t *o = describe(e, spec);
    engine_unlock(e);
    SCOPED_FREE char *text = json_dumps(o, JSON_INDENT(2));
    json_decref(o);
    SCOPED_FREE char *line = xasprintf("%s\n", text);
    SCOPED_FREE char *secret = xasprintf("%s\n", spec->password);
    return file_write_atomic(AT_FDCWD, password, secret, strlen(secret), 0600, err) &&
           file_write_atomic(AT_FDCWD, path, line, strlen(line), 0644, err);
}

/* --- The imageio endpoint
 * ------------------------------------------------------------------------- */

/* The fault table holds for image transfers as well: paths begin with /images/. */
static struct imageio_fault imageio_fault(void *arg, const struct imageio_request *request)
{
    struct engine *e = arg;
    struct imageio_fault out = {0};
    engine_lock(e);
    const struct fault_call call = {request->method, request->path, request->ticket, ""};
    struct fault f = faults_http(e->faults, FAULT_BEFORE, &call);
    unsigned rule = f.rule;
    out.delay_ms = f.delay_ms;
    out.status = f.action == FAULT_STATUS ? (unsigned)f.status : 0;
    out.text = f.body;
    out.cut = f.action == FAULT_DROP || f.action == FAULT_RESET || f.action == FAULT_HANG;
    out.cut_after_bytes = f.cut_after_bytes;
    while ((f.action == FAULT_HANG || f.action == FAULT_HOLD) && faults_has(e->faults, rule) &&
           engine_sleep(e, SERVER_HANG_STEP_MS))
        continue;
    engine_unlock(e);
    return out;
}

static bool start_imageio(struct engine *e, struct err *err)
{
    SCOPED_FREE char *cert = xasprintf("%s/server-cert.pem", e->opts.dir);
    SCOPED_FREE char *key = xasprintf("%s/server-key.pem", e->opts.dir);
    const struct imageio_opts opts = {.address = "127.0.0.1",
                                      .cert_path = cert,
                                      .key_path = key,
                                      .fault = imageio_fault,
                                      .fault_arg = e};
    e->imageio = imageio_server_start(&opts, err);
    if (!e->imageio)
        return false;
    e->imageio_port = imageio_server_port(e->imageio);
    return true;
}

/* --- Start and end -------------------------------------------------------------------------------
 */

static bool load_faults(struct engine *e, const char *path, struct err *err)
{
    json_error_t at;
    if (!path)
        return true;
    json_t *rules = json_load_file(path, 0, &at);
    if (!rules)
        return err_set(err, ERR_BAD_CONFIG, 0, "%s line %d: %s", path, at.line, at.text);
    bool ok = faults_add(e->faults, rules, err);
    json_decref(rules);
    return ok || err_wrap(err, "%s", path);
}

static bool open_all(struct engine *e, const struct server_opts *opts, struct spec *spec,
                     struct err *err)
{
    e->tls = tls_new(e->opts.dir, err);
    if (!e->tls || !spec_load(e, opts->spec_path, spec, err) ||
        !load_faults(e, opts->faults_path, err))
        return false;
    if (opts->version && !engine_set_version(e, opts->version))
        return err_set(err, ERR_BAD_ARGUMENT, 0, "version '%s' is not like 4.4.10", opts->version);
    if (opts->fast)
        timings_set_profile(&e->timings, true);
    if (!start_vms(e, spec, err) || !start_imageio(e, err))
        return false;
    e->http = http_start(e, err);
    if (!e->http)
        return false;
    e->port = http_port(e->http);
    e->control = control_start(e, err);
    return e->control && write_files(e, spec, err);
}

struct engine *server_open(const struct server_opts *opts, struct err *err)
{
    struct engine_opts eo = {.port = opts->port, .dir = prepare_dir(opts, err)};
    if (!eo.dir)
        return NULL;
    if (opts->keep_dir && !file_make_dirs(opts->keep_dir, 0755, err)) {
        free(eo.dir);
        return NULL;
    }
    eo.linux_dir = xstrdup_or_null(opts->linux_dir);
    eo.keep_dir = opts->keep_dir ? realpath(opts->keep_dir, NULL) : NULL;
    struct engine *e = engine_new(&eo);
    struct spec spec = {0};
    e->auth = auth_new();
    e->faults = faults_new();
    e->calls = calls_new();
    bool ok = open_all(e, opts, &spec, err);
    spec_done(&spec);
    if (!ok) {
        server_close(e);
        return NULL;
    }
    return e;
}

static void stop_vms(struct engine *e)
{
    engine_lock(e);
    for (size_t i = 0; i < e->model.vms.len; i++)
        storage_stop_vm(e, e->model.vms.at[i]);
    engine_unlock(e);
}

void server_close(struct engine *e)
{
    if (!e)
        return;
    engine_lock(e);
    e->stopping = true;
    engine_changed(e);
    engine_unlock(e);
    /* Merges end when their VM's daemon does: VMs before threads. */
    stop_vms(e);
    http_stop(e->http);
    control_stop(e->control);
    engine_stop_threads(e);
    imageio_server_stop(e->imageio);
    faults_free(e->faults);
    calls_free(e->calls);
    auth_free(e->auth);
    tls_free(e->tls);
    engine_free(e);
}

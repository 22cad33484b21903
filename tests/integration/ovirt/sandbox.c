/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/integration/ovirt/sandbox.h"

#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <curl/curl.h>

#include "proto/base/buf.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"

extern char **environ;

enum { START_MS = 120 * 1000, STOP_S = 60, ANSWER_MAX = 32 << 20 };

static const char *about(const struct sandbox *b, const char *key)
{
    const char *text = json_string_value(json_object_get(b->about, key));
    assert_non_null(text);
    return text;
}

static void read_about(struct sandbox *b)
{
    SCOPED_FREE char *path = xasprintf("%s/d/sandbox.json", b->dir);
    b->about = json_load_file(path, 0, NULL);
    assert_non_null(b->about);
    b->url = xstrdup(about(b, "url"));
    b->ca_file = xstrdup(about(b, "ca"));
    b->user = xstrdup(about(b, "user"));
    b->password_file = xstrdup(about(b, "password_file"));
    b->control = xstrdup(about(b, "control"));
    const json_t *proxy = json_array_get(json_object_get(b->about, "proxies"), 0);
    b->proxy_id = xstrdup(json_string_value(json_object_get(proxy, "id")));
    b->proxy_name = xstrdup(json_string_value(json_object_get(proxy, "name")));
    b->datacenter_id = xstrdup(json_string_value(json_object_get(proxy, "data_center")));
    b->device_dir = xstrdup(json_string_value(json_object_get(proxy, "dev_dir")));
}

static void spawn(struct sandbox *b, const char *spec_path, const char *version, int ready)
{
    const char *bin = getenv("OXBOW_BINARY_DIR");
    SCOPED_FREE char *program = xasprintf("%s/bin/oxbow-sandbox", bin ? bin : "build/ci");
    SCOPED_FREE char *dir = xasprintf("%s/d", b->dir);
    SCOPED_FREE char *log = xasprintf("%s/log", b->dir);
    char *argv[] = {program,
                    (char *)(uintptr_t) "--spec",
                    (char *)(uintptr_t)spec_path,
                    (char *)(uintptr_t) "--dir",
                    dir,
                    (char *)(uintptr_t) "--ready-fd",
                    (char *)(uintptr_t) "3",
                    (char *)(uintptr_t) "--fast",
                    version ? (char *)(uintptr_t) "--engine-version" : NULL,
                    (char *)(uintptr_t)version,
                    NULL};
    posix_spawn_file_actions_t actions;
    assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
    posix_spawn_file_actions_adddup2(&actions, ready, 3);
    posix_spawn_file_actions_addopen(&actions, 2, log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    int rc = posix_spawn(&b->pid, program, &actions, NULL, argv, environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    if (rc != 0)
        fail_msg("cannot start %s: %s", program, strerror(rc));
}

void sandbox_start(struct sandbox *b, const char *spec, const char *version)
{
    *b = (struct sandbox){.pid = 0};
    (void)snprintf(b->dir, sizeof b->dir, "/tmp/oxb-XXXXXX");
    assert_non_null(mkdtemp(b->dir));
    SCOPED_FREE char *path = xasprintf("%s/spec.json", b->dir);
    struct err err = ERR_INIT;
    assert_true(file_write_atomic(AT_FDCWD, path, spec, strlen(spec), 0600, &err));
    int ready[2];
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    spawn(b, path, version, ready[1]);
    (void)close(ready[1]);
    struct pollfd p = {.fd = ready[0], .events = POLLIN};
    char text[8] = "";
    bool up = poll(&p, 1, START_MS) == 1 && read(ready[0], text, sizeof text - 1) > 0;
    (void)close(ready[0]);
    if (!up) {
        sandbox_stop(b);
        fail_msg("the sandbox did not come up (its log was in %s)", b->dir);
    }
    read_about(b);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    (void)remove(path);
    return 0;
}

void sandbox_stop(struct sandbox *b)
{
    if (b->pid > 0) {
        int status = 0;
        pid_t ended = 0;
        (void)kill(b->pid, SIGTERM);
        for (int i = 0; i < STOP_S * 20 && ended == 0; i++) {
            ended = waitpid(b->pid, &status, WNOHANG);
            if (ended == 0)
                clock_sleep_ms(clock_system(), 50);
        }
        if (ended == 0) {
            (void)kill(b->pid, SIGKILL);
            (void)waitpid(b->pid, &status, 0);
        }
    }
    (void)nftw(b->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    json_decref(b->about);
    free(b->url);
    free(b->ca_file);
    free(b->user);
    free(b->password_file);
    free(b->control);
    free(b->proxy_id);
    free(b->proxy_name);
    free(b->datacenter_id);
    free(b->device_dir);
    *b = (struct sandbox){.pid = 0};
}

struct engine_conf sandbox_conf(const struct sandbox *b)
{
    return (struct engine_conf){
        .url = b->url,
        .user = b->user,
        .password_file = b->password_file,
        .ca_file = b->ca_file,
        .busy_min_ms = 50,
        .busy_max_ms = 400,
        .busy_budget_ms = 60 * 1000,
        .poll_min_ms = 30,
        .poll_max_ms = 200,
        .settle_ms = 5 * 1000,
    };
}

static size_t keep(char *data, size_t size, size_t count, void *ctx)
{
    return buf_add(ctx, data, size * count) ? size * count : 0;
}

json_t *sandbox_control(const struct sandbox *b, const char *method, const char *path,
                        const char *body)
{
    SCOPED_FREE char *url = xasprintf("http://sandbox/sandbox/%s", path);
    SCOPED_BUF struct buf answer;
    buf_init(&answer, ANSWER_MAX);
    CURL *curl = curl_easy_init();
    curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, b->control);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, 60L);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, keep);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &answer);
    if (body)
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
    CURLcode rc = curl_easy_perform(curl);
    long status = 0;
    (void)curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_cleanup(curl);
    if (rc != CURLE_OK || status != 200)
        fail_msg("control %s %s: %s, %ld: %s", method, path, curl_easy_strerror(rc), status,
                 buf_str(&answer));
    json_t *json = json_loads(buf_str(&answer), 0, NULL);
    assert_non_null(json);
    return json;
}

void sandbox_break(const struct sandbox *b, const char *rules)
{
    json_decref(sandbox_control(b, "POST", "faults", rules));
}

void sandbox_heal(const struct sandbox *b)
{
    json_auto_t *rules = sandbox_control(b, "GET", "faults", NULL);
    json_decref(sandbox_control(b, "DELETE", "faults", NULL));
    size_t i;
    json_t *rule;
    json_array_foreach (rules, i, rule) {
        if (json_integer_value(json_object_get(rule, "fired")) == 0) {
            SCOPED_FREE char *text = json_dumps(rule, JSON_COMPACT);
            fail_msg("a fault never fired: %s", text);
        }
    }
}

static bool begins_with(const json_t *text, const char *prefix)
{
    const char *s = json_string_value(text);
    return s && strncmp(s, prefix, strlen(prefix)) == 0;
}

size_t sandbox_changes(const struct sandbox *b, const char *method, const char *path)
{
    json_auto_t *calls = sandbox_control(b, "GET", "calls", NULL);
    size_t i, found = 0;
    json_t *c;
    json_array_foreach (json_object_get(calls, "mutating"), i, c) {
        const char *m = json_string_value(json_object_get(c, "method"));
        if (m && strcmp(m, method) == 0 && begins_with(json_object_get(c, "path"), path))
            found++;
    }
    return found;
}

/* The VM of that id or name in a state; borrowed. */
static json_t *state_vm(const json_t *state, const char *id_or_name)
{
    size_t i;
    json_t *vm;
    json_array_foreach (json_object_get(state, "vms"), i, vm) {
        if (strcmp(json_string_value(json_object_get(vm, "id")), id_or_name) == 0 ||
            strcmp(json_string_value(json_object_get(vm, "name")), id_or_name) == 0)
            return vm;
    }
    fail_msg("the sandbox has no VM %s", id_or_name);
    return NULL;
}

char *sandbox_vm_id(const struct sandbox *b, const char *name)
{
    json_auto_t *state = sandbox_control(b, "GET", "state", NULL);
    return xstrdup(json_string_value(json_object_get(state_vm(state, name), "id")));
}

size_t sandbox_snapshots(const struct sandbox *b, const char *vm_id)
{
    json_auto_t *state = sandbox_control(b, "GET", "state", NULL);
    size_t i, found = 0;
    json_t *s;
    json_array_foreach (json_object_get(state_vm(state, vm_id), "snapshots"), i, s) {
        if (!json_is_true(json_object_get(s, "active")))
            found++;
    }
    return found;
}

size_t sandbox_proxy_disks(const struct sandbox *b)
{
    json_auto_t *state = sandbox_control(b, "GET", "state", NULL);
    return json_array_size(json_object_get(state_vm(state, b->proxy_id), "attachments"));
}

size_t sandbox_vms_named(const struct sandbox *b, const char *name)
{
    json_auto_t *state = sandbox_control(b, "GET", "state", NULL);
    size_t i, found = 0;
    json_t *vm;
    json_array_foreach (json_object_get(state, "vms"), i, vm) {
        if (strcmp(json_string_value(json_object_get(vm, "name")), name) == 0)
            found++;
    }
    return found;
}

size_t sandbox_disks(const struct sandbox *b)
{
    json_auto_t *state = sandbox_control(b, "GET", "state", NULL);
    return json_array_size(json_object_get(state, "disks"));
}

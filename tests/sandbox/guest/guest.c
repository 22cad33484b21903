/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/guest/guest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <jansson.h>

#include "proto/base/alloc.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "tests/sandbox/block/proc.h"

enum { STATE_BYTES = 160, ARGS_MAX = 128, POLL_MS = 5 };

struct guest {
    struct proc *proc;
    char *state_path, *socket_path;
    /* Or, alone: */
    struct linux_guest *linux_guest;
    uint64_t acked_at_boot; /* its acknowledgements outlive it: it runs once it adds one */
    bool frozen;
};

static const char *const phase_names[] = {"filling", "replaying", "running", "frozen", "done"};

const char *guest_phase_name(enum guest_phase phase)
{
    return phase_names[phase];
}

/* --- State files
 * -------------------------------------------------------------------------------------- */

bool guest_state_write(int fd, const struct guest_state *state, struct err *err)
{
    /* Of fixed length, in one write: readers never see half of it. */
    char line[STATE_BYTES + 1];
    int n = snprintf(line, sizeof line,
                     "{\"state\": \"%s\", \"acked\": %" PRIu64 ", \"flushed\": %" PRIu64
                     ", \"errors\": %" PRIu64 "}",
                     phase_names[state->phase], state->acked, state->flushed, state->errors);
    memset(line + n, ' ', (size_t)(STATE_BYTES - n));
    line[STATE_BYTES - 1] = '\n';
    return file_pwrite_full(fd, line, STATE_BYTES, 0, err);
}

static bool parse_state(json_t *json, struct guest_state *ret)
{
    const char *name;
    json_int_t acked, flushed, errors;
    if (json_unpack(json, "{s:s, s:I, s:I, s:I}", "state", &name, "acked", &acked, "flushed",
                    &flushed, "errors", &errors) != 0 ||
        acked < 0 || flushed < 0 || flushed > acked || errors < 0)
        return false;
    size_t phase = 0;
    while (phase < ARRAY_LEN(phase_names) && strcmp(phase_names[phase], name) != 0)
        phase++;
    *ret = (struct guest_state){.phase = (enum guest_phase)phase,
                                .acked = (uint64_t)acked,
                                .flushed = (uint64_t)flushed,
                                .errors = (uint64_t)errors};
    return phase < ARRAY_LEN(phase_names);
}

bool guest_state_read(const char *path, struct guest_state *ret, struct err *err)
{
    SCOPED_BUF struct buf text;
    if (!file_read_all(AT_FDCWD, path, 4096, &text, err))
        return false;
    if (text.len == 0)
        return err_set(err, ERR_NOT_FOUND, 0, "'%s' is still empty", path);
    json_t *json = json_loadb(buf_str(&text), text.len, 0, NULL);
    bool ok = json && parse_state(json, ret);
    json_decref(json);
    return ok || err_set(err, ERR_BAD_ARGUMENT, 0, "'%s' is no state of a guest", path);
}

/* --- The process
 * --------------------------------------------------------------------------------------- */

static char *find_program(void)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n > 0) {
        self[n] = '\0';
        *strrchr(self, '/') = '\0';
        static const char *const places[] = {".", "../bin", "../../../bin"};
        for (size_t i = 0; i < ARRAY_LEN(places); i++) {
            SCOPED_FREE char *path = xasprintf("%s/%s/sandbox-writer", self, places[i]);
            if (access(path, X_OK) == 0)
                return TAKE(path);
        }
    }
    return xstrdup("sandbox-writer");
}

static bool spawn(struct guest *g, const struct guest_opts *o, struct err *err)
{
    if (o->disk_count > (ARGS_MAX - 16) / 2)
        return err_set(err, ERR_TOO_LARGE, 0, "a guest with %zu disks", o->disk_count);
    SCOPED_FREE char *program = o->program ? xstrdup(o->program) : find_program();
    SCOPED_FREE char *log = xasprintf("%s/writer.log", o->run_dir);
    SCOPED_FREE char *rate = xasprintf("%f", o->writes_per_s);
    SCOPED_FREE char *flush = xasprintf("%u", o->flush_every);
    SCOPED_FREE char *count = xasprintf("%" PRIu64, o->count);
    char *disks[ARGS_MAX] = {0};
    const char *argv[ARGS_MAX + 1] = {program,        "--spec",      o->spec_path,
                                      "--state",      g->state_path, "--control",
                                      g->socket_path, "--rate",      rate};
    size_t n = 9;
    if (o->flush_every > 0) {
        argv[n++] = "--flush-every";
        argv[n++] = flush;
    }
    if (o->count > 0) {
        argv[n++] = "--count";
        argv[n++] = count;
    }
    if (o->fill)
        argv[n++] = "--fill";
    for (size_t i = 0; i < o->disk_count; i++) {
        argv[n++] = "--disk";
        argv[n++] = disks[i] = xasprintf("%s=%s", o->disks[i].id, o->disks[i].uri);
    }
    g->proc = proc_start(
        &(struct proc_opts){.argv = argv, .log_path = log, .pass_fd = -1, .death_signal = SIGKILL},
        err);
    for (size_t i = 0; i < o->disk_count; i++)
        free(disks[i]);
    return g->proc;
}

struct guest *guest_start(const struct guest_opts *opts, struct err *err)
{
    if (!file_make_dirs(opts->run_dir, 0755, err))
        return NULL;
    struct guest *g = ALLOC_NEW(struct guest);
    g->state_path = xasprintf("%s/writer.state", opts->run_dir);
    g->socket_path = xasprintf("%s/writer.sock", opts->run_dir);
    if (spawn(g, opts, err))
        return g;
    guest_stop(g);
    return NULL;
}

struct guest *guest_start_linux(const struct linux_guest_opts *opts, struct err *err)
{
    struct linux_guest *started = linux_guest_start(opts, err);
    if (!started)
        return NULL;
    struct guest *g = ALLOC_NEW(struct guest);
    g->linux_guest = started;
    g->acked_at_boot = linux_guest_acked(started);
    return g;
}

void guest_stop(struct guest *g)
{
    if (!g)
        return;
    linux_guest_stop(g->linux_guest);
    proc_free(g->proc);
    if (g->socket_path)
        (void)unlink(g->socket_path);
    free(g->state_path);
    free(g->socket_path);
    free(g);
}

pid_t guest_pid(const struct guest *g)
{
    return g->linux_guest ? linux_guest_pid(g->linux_guest) : proc_pid(g->proc);
}

bool guest_is_running(struct guest *g)
{
    return g->linux_guest ? linux_guest_is_running(g->linux_guest) : proc_is_running(g->proc);
}

static struct guest_state linux_state(const struct guest *g)
{
    uint64_t acked = linux_guest_acked(g->linux_guest);
    enum guest_phase phase = acked > g->acked_at_boot ? GUEST_RUNNING : GUEST_REPLAYING;
    return (struct guest_state){
        .phase = g->frozen ? GUEST_FROZEN : phase, .acked = acked, .flushed = acked};
}

bool guest_state(const struct guest *g, struct guest_state *ret, struct err *err)
{
    if (g->linux_guest) {
        *ret = linux_state(g);
        return true;
    }
    return guest_state_read(g->state_path, ret, err);
}

bool guest_wait(struct guest *g, uint64_t acked, int64_t timeout_ms, struct err *err)
{
    int64_t end = clock_mono_ms(clock_system()) + timeout_ms;
    for (;;) {
        struct guest_state state = {0};
        struct err why = ERR_INIT;
        bool ok = guest_state(g, &state, &why);
        if (ok && state.acked >= acked &&
            (state.phase == GUEST_RUNNING || state.phase == GUEST_DONE))
            return true;
        if (!guest_is_running(g))
            return err_set(err, ERR_IO, 0, "the writer has ended, see its log");
        if (clock_mono_ms(clock_system()) >= end)
            return err_set(err, ERR_TIMEOUT, 0, "the guest is %s, at write %" PRIu64,
                           ok ? phase_names[state.phase] : "not there", state.acked);
        clock_sleep_ms(clock_system(), POLL_MS);
    }
}

/* --- Freeze and thaw
 * ------------------------------------------------------------------------------------ */

static int connect_control(const char *path, struct err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        err_set(err, ERR_BAD_ARGUMENT, 0, "socket path '%s' is too long", path);
        return -1;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    SCOPED_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
        err_set_errno(err, errno, "guest control '%s'", path);
        return -1;
    }
    return TAKE_FD(fd);
}

static bool ask(struct guest *g, const char *command, int64_t timeout_ms, uint64_t *ret_number,
                struct err *err)
{
    SCOPED_FD int fd = connect_control(g->socket_path, err);
    if (fd < 0)
        return false;
    if (send(fd, command, strlen(command), MSG_NOSIGNAL) != (ssize_t)strlen(command))
        return err_set_errno(err, errno, "guest control");
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, timeout_ms > INT_MAX ? INT_MAX : (int)timeout_ms) <= 0)
        return err_set(err, ERR_TIMEOUT, 0, "the guest does not answer in %" PRId64 " ms",
                       timeout_ms);
    char answer[256];
    ssize_t n = recv(fd, answer, sizeof answer - 1, 0);
    if (n <= 0)
        return err_set(err, ERR_IO, 0, "the guest hung up");
    answer[n] = '\0';
    if (strncmp(answer, "ok ", 3) != 0)
        return err_set(err, ERR_QUIESCE_FAILED, 0, "the guest: %.*s", (int)strcspn(answer, "\n"),
                       answer);
    if (ret_number)
        *ret_number = strtoull(answer + 3, NULL, 10);
    return true;
}

/* The agent says no to a second freeze; and what it was told is not known when it did not answer:
 * thawing does no harm then. */
static bool freeze_linux(struct guest *g, int64_t timeout_ms, uint64_t *ret_acked, struct err *err)
{
    g->frozen = g->frozen || linux_guest_freeze(g->linux_guest, timeout_ms, err);
    if (g->frozen && ret_acked)
        *ret_acked = linux_guest_acked(g->linux_guest);
    return g->frozen;
}

static bool thaw_linux(struct guest *g, int64_t timeout_ms, struct err *err)
{
    if (!linux_guest_thaw(g->linux_guest, timeout_ms, err))
        return false;
    g->frozen = false;
    return true;
}

bool guest_freeze(struct guest *g, int64_t timeout_ms, uint64_t *ret_acked, struct err *err)
{
    if (g->linux_guest)
        return freeze_linux(g, timeout_ms, ret_acked, err);
    return ask(g, "freeze\n", timeout_ms, ret_acked, err) || err_wrap(err, "freeze");
}

bool guest_thaw(struct guest *g, int64_t timeout_ms, struct err *err)
{
    if (g->linux_guest)
        return thaw_linux(g, timeout_ms, err);
    return ask(g, "thaw\n", timeout_ms, NULL, err) || err_wrap(err, "thaw");
}

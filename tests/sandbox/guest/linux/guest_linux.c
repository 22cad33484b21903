/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/guest/linux/guest_linux.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <jansson.h>

#include "proto/base/alloc.h"
#include "proto/base/buf.h"
#include "proto/base/clock.h"
#include "proto/base/file.h"
#include "tests/sandbox/block/proc.h"

enum { ANSWER_BYTES_MAX = 1 << 20, POLL_MS = 10, ACK_TAIL_BYTES = 64, START_TIMEOUT_MS = 30000 };

struct linux_guest {
    struct proc *proc;
    char *agent_path, *acks_path;
    uint64_t sync_id;
};

/* --- The machine
 * --------------------------------------------------------------------------------------- */

/* "nbd+unix:///EXPORT?socket=PATH" as a -blockdev argument. */
static char *blockdev_of(const char *node, const char *uri, struct err *err)
{
    const char *export = strstr(uri, ":///");
    const char *query = export ? strstr(export, "?socket=") : NULL;
    if (strncmp(uri, "nbd+unix:", 9) != 0 || !query) {
        err_set(err, ERR_BAD_ARGUMENT, 0, "'%s' is no NBD address on a unix socket", uri);
        return NULL;
    }
    SCOPED_FREE char *name = xstrndup(export + 4, (size_t)(query - export - 4));
    json_t *opts = json_pack("{s:s, s:s, s:{s:s, s:s}, s:s, s:i}", "driver", "nbd", "node-name",
                             node, "server", "type", "unix", "path", query + 8, "export", name,
                             "reconnect-delay", 60);
    char *text = json_dumps(opts, JSON_COMPACT);
    json_decref(opts);
    return text;
}

static bool spawn(struct linux_guest *g, const struct linux_guest_opts *o, struct err *err)
{
    SCOPED_FREE char *a = blockdev_of("a", o->uri_a, err);
    SCOPED_FREE char *b = a ? blockdev_of("b", o->uri_b, err) : NULL;
    if (!b)
        return false;
    SCOPED_FREE char *disk_a = xasprintf("virtio-blk-pci,drive=a,serial=%s", o->serial_a);
    SCOPED_FREE char *disk_b = xasprintf("virtio-blk-pci,drive=b,serial=%s", o->serial_b);
    SCOPED_FREE char *serial = xasprintf("file:%s/serial.log", o->run_dir);
    SCOPED_FREE char *log = xasprintf("%s/qemu.log", o->run_dir);
    SCOPED_FREE char *agent =
        xasprintf("socket,id=agent,path=%s,server=on,wait=off", g->agent_path);
    SCOPED_FREE char *acks = xasprintf("file,id=acks,path=%s,append=on", g->acks_path);
    const char *argv[] = {
        "qemu-system-x86_64",
        "-machine",
        "q35",
        "-accel",
        "tcg,thread=multi,tb-size=64",
        "-cpu",
        "qemu64",
        "-m",
        "192",
        "-smp",
        "1",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-kernel",
        o->kernel,
        "-initrd",
        o->initrd,
        "-append",
        "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable no_timer_check",
        "-serial",
        serial,
        "-blockdev",
        a,
        "-device",
        disk_a,
        "-blockdev",
        b,
        "-device",
        disk_b,
        "-device",
        "virtio-serial-pci",
        "-chardev",
        agent,
        "-device",
        "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
        "-chardev",
        acks,
        "-device",
        "virtserialport,chardev=acks,name=sandbox.acks",
        NULL};
    g->proc = proc_start(
        &(struct proc_opts){.argv = argv, .log_path = log, .pass_fd = -1, .death_signal = SIGKILL},
        err);
    return g->proc;
}

struct linux_guest *linux_guest_start(const struct linux_guest_opts *opts, struct err *err)
{
    if (!file_make_dirs(opts->run_dir, 0755, err))
        return NULL;
    struct linux_guest *g = ALLOC_NEW(struct linux_guest);
    g->agent_path = xasprintf("%s/agent.sock", opts->run_dir);
    g->acks_path = xasprintf("%s/acks", opts->run_dir);
    (void)unlink(g->agent_path);
    if (spawn(g, opts, err))
        return g;
    linux_guest_stop(g);
    return NULL;
}

void linux_guest_stop(struct linux_guest *g)
{
    if (!g)
        return;
    proc_free(g->proc);
    (void)unlink(g->agent_path);
    free(g->agent_path);
    free(g->acks_path);
    free(g);
}

pid_t linux_guest_pid(const struct linux_guest *g)
{
    return proc_pid(g->proc);
}

bool linux_guest_is_running(struct linux_guest *g)
{
    return proc_is_running(g->proc);
}

/* The last whole line of the file. */
uint64_t linux_guest_acked(const struct linux_guest *g)
{
    SCOPED_FD int fd = open(g->acks_path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0)
        return 0;
    char tail[ACK_TAIL_BYTES + 1];
    off_t from = st.st_size > ACK_TAIL_BYTES ? st.st_size - ACK_TAIL_BYTES : 0;
    ssize_t n = pread(fd, tail, ACK_TAIL_BYTES, from);
    while (n > 0 && tail[n - 1] != '\n')
        n--;
    if (n <= 0)
        return 0;
    tail[n - 1] = '\0'; /* the end of the last line */
    const char *line = strrchr(tail, '\n');
    return strtoull(line ? line + 1 : tail, NULL, 10);
}

bool linux_guest_wait(struct linux_guest *g, uint64_t n, int64_t timeout_ms, struct err *err)
{
    int64_t end = clock_mono_ms(clock_system()) + timeout_ms;
    while (linux_guest_acked(g) < n) {
        if (!linux_guest_is_running(g))
            return err_set(err, ERR_IO, 0, "the guest has ended, see serial.log and qemu.log");
        if (clock_mono_ms(clock_system()) >= end)
            return err_set(err, ERR_TIMEOUT, 0, "the guest stands at record %" PRIu64,
                           linux_guest_acked(g));
        clock_sleep_ms(clock_system(), POLL_MS);
    }
    return true;
}

/* --- The guest agent
 * ------------------------------------------------------------------------------------- */

static int connect_agent(const struct linux_guest *g, struct err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(g->agent_path) >= sizeof address.sun_path) {
        err_set(err, ERR_BAD_ARGUMENT, 0, "socket path '%s' is too long", g->agent_path);
        return -1;
    }
    memcpy(address.sun_path, g->agent_path, strlen(g->agent_path) + 1);
    SCOPED_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
        err_set_errno(err, errno, "guest agent '%s'", g->agent_path);
        return -1;
    }
    return TAKE_FD(fd);
}

/* One line from the agent, without what a former conversation left before it. */
static bool read_line(int fd, int64_t end_ms, struct buf *line, struct err *err)
{
    for (;;) {
        int64_t left = end_ms - clock_mono_ms(clock_system());
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int rc = poll(&p, 1, left < 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left);
        if (rc < 0 && errno == EINTR)
            continue;
        if (rc <= 0)
            return err_set(err, ERR_TIMEOUT, 0, "the guest agent does not answer in time");
        char c;
        if (read(fd, &c, 1) != 1)
            return err_set(err, ERR_IO, 0, "the guest agent's port was closed");
        if (c == '\n' && line->len > 0)
            return true;
        if (c == '\xff')
            buf_reset(line); /* guest-sync-delimited: what comes next is fresh */
        else if (c != '\n' && !buf_add(line, &c, 1))
            return err_set(err, ERR_TOO_LARGE, 0, "the guest agent's answer is too large");
    }
}

/* The "return" member of the next answer; the caller owns it. */
static json_t *read_answer(int fd, int64_t end_ms, struct err *err)
{
    SCOPED_BUF struct buf line;
    buf_init(&line, ANSWER_BYTES_MAX);
    if (!read_line(fd, end_ms, &line, err))
        return NULL;
    json_t *json = json_loadb(buf_str(&line), line.len, 0, NULL);
    json_t *value = json_incref(json_object_get(json, "return"));
    const char *text = json_string_value(json_object_get(json_object_get(json, "error"), "desc"));
    if (!value)
        err_set(err, ERR_QUIESCE_FAILED, 0, "the guest agent: %s", text ? text : "no answer");
    json_decref(json);
    return value;
}

static bool send_text(int fd, const char *text, struct err *err)
{
    if (send(fd, text, strlen(text), MSG_NOSIGNAL) != (ssize_t)strlen(text))
        return err_set_errno(err, errno, "guest agent");
    return true;
}

/* Drop late answers to others: read until the agent echoes our number. */
static bool synchronise(struct linux_guest *g, int fd, int64_t end_ms, struct err *err)
{
    json_int_t id = (json_int_t)++g->sync_id;
    SCOPED_FREE char *text =
        xasprintf("\xff{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":%" PRIu64 "}}\n",
                  g->sync_id);
    if (!send_text(fd, text, err))
        return false;
    for (;;) {
        json_t *value = read_answer(fd, end_ms, err);
        bool ours = value && json_integer_value(value) == id;
        json_decref(value);
        if (ours)
            return true;
        if (err->code == ERR_TIMEOUT || err->code == ERR_IO || err->code == ERR_TOO_LARGE)
            return false;
        err_clear(err);
    }
}

static json_t *ask(struct linux_guest *g, const char *command, int64_t timeout_ms, struct err *err)
{
    int64_t end = clock_mono_ms(clock_system()) + timeout_ms;
    SCOPED_FD int fd = connect_agent(g, err);
    SCOPED_FREE char *text = xasprintf("{\"execute\":\"%s\"}\n", command);
    json_t *value = NULL;
    if (fd >= 0 && synchronise(g, fd, end, err) && send_text(fd, text, err))
        value = read_answer(fd, end, err);
    if (!value)
        err_wrap(err, "%s", command);
    return value;
}

static bool command(struct linux_guest *g, const char *name, int64_t timeout_ms, struct err *err)
{
    json_t *value = ask(g, name, timeout_ms, err);
    json_decref(value);
    return value;
}

bool linux_guest_ping(struct linux_guest *g, int64_t timeout_ms, struct err *err)
{
    return command(g, "guest-ping", timeout_ms, err);
}

bool linux_guest_freeze(struct linux_guest *g, int64_t timeout_ms, struct err *err)
{
    return command(g, "guest-fsfreeze-freeze", timeout_ms, err);
}

bool linux_guest_thaw(struct linux_guest *g, int64_t timeout_ms, struct err *err)
{
    return command(g, "guest-fsfreeze-thaw", timeout_ms, err);
}

bool linux_guest_is_frozen(struct linux_guest *g, bool *ret_frozen, int64_t timeout_ms,
                           struct err *err)
{
    json_t *value = ask(g, "guest-fsfreeze-status", timeout_ms, err);
    const char *text = json_string_value(value);
    if (text)
        *ret_frozen = strcmp(text, "frozen") == 0;
    bool ok = value;
    json_decref(value);
    return ok;
}

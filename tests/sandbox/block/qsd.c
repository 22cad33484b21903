/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/block/qsd.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "proto/base/file.h"
#include "tests/sandbox/block/image.h"

enum { START_TIMEOUT_MS = 60000, QUIT_TIMEOUT_MS = 30000, KILL_TIMEOUT_MS = 10000 };

static char *file_in(const char *dir, const char *name)
{
    return xasprintf("%s/%s", dir, name);
}

/* --- What a killed predecessor left ---------------------------------------------------------- */

/* The command line of a process, its NULs as spaces; empty when there is no such process. */
static void read_cmdline(pid_t pid, struct buf *out)
{
    struct err ignored = ERR_INIT;
    SCOPED_FREE char *path = xasprintf("/proc/%d/cmdline", (int)pid);
    if (!file_read_all(AT_FDCWD, path, 65536, out, &ignored))
        return;
    for (size_t i = 0; i + 1 < out->len; i++) {
        if (out->data[i] == '\0')
            out->data[i] = ' ';
    }
}

/* Kill the process in the pid file if it is the daemon of this directory, and wait for its end. */
static bool end_predecessor(const char *program, const char *pid_path, struct err *err)
{
    struct err ignored = ERR_INIT;
    SCOPED_BUF struct buf text;
    if (!file_read_all(AT_FDCWD, pid_path, 64, &text, &ignored))
        return true;
    long pid = strtol(buf_str(&text), NULL, 10);
    if (pid <= 1)
        return true;
    SCOPED_FD int fd = pidfd_open((pid_t)pid, 0);
    if (fd < 0)
        return true;
    SCOPED_BUF struct buf cmdline;
    read_cmdline((pid_t)pid, &cmdline);
    if (!strstr(buf_str(&cmdline), program) || !strstr(buf_str(&cmdline), pid_path))
        return true; /* the number belongs to somebody else by now */
    (void)pidfd_send_signal(fd, SIGKILL, NULL, 0);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, KILL_TIMEOUT_MS) != 1)
        return err_set(err, ERR_TIMEOUT, 0, "the old storage daemon %ld does not die", pid);
    return true;
}

/* --- Start and end --------------------------------------------------------------------------- */

static bool fill_address(const char *path, struct sockaddr_un *ret, struct err *err)
{
    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof ret->sun_path)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "socket path '%s' is longer than %zu bytes", path,
                       sizeof ret->sun_path - 1);
    memcpy(ret->sun_path, path, strlen(path) + 1);
    return true;
}

/* A listening socket for the daemon, and our connection to it, made before the daemon runs: nothing
 * to poll for, and its early death is an end of file. */
static bool make_monitor(const char *path, int *ret_listen, int *ret_client, struct err *err)
{
    struct sockaddr_un address;
    if (!fill_address(path, &address, err))
        return false;
    SCOPED_FD int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    SCOPED_FD int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || client < 0)
        return err_set_errno(err, errno, "socket");
    if (bind(listener, (const struct sockaddr *)&address, sizeof address) != 0 ||
        listen(listener, 4) != 0 ||
        connect(client, (const struct sockaddr *)&address, sizeof address) != 0)
        return err_set_errno(err, errno, "socket '%s'", path);
    *ret_listen = TAKE_FD(listener);
    *ret_client = TAKE_FD(client);
    return true;
}

static struct proc *spawn_daemon(const char *run_dir, const char *const *argv, int listen_fd,
                                 struct err *err)
{
    SCOPED_FREE char *log_path = file_in(run_dir, "qsd.log");
    /* Without these, each request of 1 MiB and more maps and unmaps its bounce buffer. */
    const char *extra[] = {"MALLOC_MMAP_THRESHOLD_=1073741824", "MALLOC_TRIM_THRESHOLD_=1073741824",
                           NULL};
    return proc_start(&(struct proc_opts){.argv = argv,
                                          .extra = extra,
                                          .log_path = log_path,
                                          .pass_fd = listen_fd,
                                          .death_signal = SIGTERM},
                      err);
}

/* Why it did not start: the end of its log. */
static void add_log(const char *run_dir, struct err *err)
{
    struct err ignored = ERR_INIT;
    SCOPED_FREE char *path = file_in(run_dir, "qsd.log");
    SCOPED_BUF struct buf text;
    if (file_read_all(AT_FDCWD, path, 4096, &text, &ignored) && text.len > 0)
        err_wrap(err, "%.*s", (int)strcspn(text.data, "\n"), text.data);
}

static void remove_files(const char *run_dir)
{
    static const char *const names[] = {"qmp.sock", "nbd.sock", QSD_PIDFILE};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        SCOPED_FREE char *path = file_in(run_dir, names[i]);
        (void)unlink(path);
    }
}

static bool prepare_dir(const char *run_dir, const char *program, struct err *err)
{
    if (!file_make_dirs(run_dir, 0755, err))
        return false;
    SCOPED_FREE char *pid_path = file_in(run_dir, QSD_PIDFILE);
    if (!end_predecessor(program, pid_path, err))
        return false;
    remove_files(run_dir);
    return true;
}

static bool start(struct qsd *d, const char *const *argv, struct err *err)
{
    if (!prepare_dir(d->run_dir, argv[0], err))
        return false;
    SCOPED_FREE char *monitor_path = file_in(d->run_dir, "qmp.sock");
    struct sockaddr_un nbd_address; /* its path is as long: checked before anything runs */
    if (!fill_address(d->nbd_path, &nbd_address, err))
        return false;
    SCOPED_FD int listener = -1;
    int client = -1;
    if (!make_monitor(monitor_path, &listener, &client, err))
        return false;
    d->proc = spawn_daemon(d->run_dir, argv, listener, err);
    if (!d->proc) {
        (void)close(client);
        return false;
    }
    (void)close(TAKE_FD(listener));
    d->qmp = qmp_new(client, START_TIMEOUT_MS, err);
    if (!d->qmp)
        add_log(d->run_dir, err);
    return d->qmp;
}

struct qsd *qsd_start_program(const char *run_dir, const char *const *argv, struct err *err)
{
    SCOPED(qsd) struct qsd *d = ALLOC_NEW(struct qsd);
    d->run_dir = xstrdup(run_dir);
    d->nbd_path = file_in(run_dir, "nbd.sock");
    if (!start(d, argv, err)) {
        err_wrap(err, "start %s in '%s'", argv[0], run_dir);
        return NULL;
    }
    return TAKE(d);
}

struct qsd *qsd_start(const char *run_dir, struct err *err)
{
    SCOPED_FREE char *pid_path = file_in(run_dir, QSD_PIDFILE);
    const char *argv[] = {"qemu-storage-daemon", "--chardev",
                          /* wait: it takes our connection before the monitor begins; else its
                           * accept and the monitor's thread race, and commands are never read. */
                          "socket,id=monitor,fd=3,server=on,wait=on", "--monitor",
                          "chardev=monitor,mode=control", "--pidfile", pid_path, NULL};
    return qsd_start_program(run_dir, argv, err);
}

void qsd_quit(struct qsd *d)
{
    struct err ignored = ERR_INIT;
    if (!qsd_is_running(d))
        return;
    proc_signal(d->proc, SIGCONT);
    (void)qmp_call(d->qmp, "quit", NULL, NULL, &ignored);
    if (proc_wait(d->proc, QUIT_TIMEOUT_MS, NULL))
        return;
    proc_signal(d->proc, SIGKILL);
    (void)proc_wait(d->proc, KILL_TIMEOUT_MS, NULL);
}

void qsd_free(struct qsd *d)
{
    if (!d)
        return;
    qmp_free(d->qmp);
    proc_free(d->proc);
    remove_files(d->run_dir);
    free(d->run_dir);
    free(d->nbd_path);
    free(d);
}

bool qsd_is_running(struct qsd *d)
{
    return d->proc && proc_is_running(d->proc);
}

/* --- Exports ---------------------------------------------------------------------------------- */

bool qsd_listen_nbd(struct qsd *d, struct err *err)
{
    return qmp_call(
        d->qmp, "nbd-server-start",
        json_pack("{s:{s:s, s:{s:s}}}", "addr", "type", "unix", "data", "path", d->nbd_path), NULL,
        err);
}

bool qsd_export_nbd(struct qsd *d, const char *id, const char *node, const char *name,
                    bool writable, struct err *err)
{
    return qmp_call(d->qmp, "block-export-add",
                    json_pack("{s:s, s:s, s:s, s:s, s:b}", "type", "nbd", "id", id, "node-name",
                              node, "name", name, "writable", (int)writable),
                    NULL, err);
}

bool qsd_export_nbd_dirty(struct qsd *d, const char *id, const char *node, const char *name,
                          const char *bitmap_node, const char *bitmap, struct err *err)
{
    return qmp_call(d->qmp, "block-export-add",
                    json_pack("{s:s, s:s, s:s, s:s, s:b, s:[{s:s, s:s}]}", "type", "nbd", "id", id,
                              "node-name", node, "name", name, "writable", 0, "bitmaps", "node",
                              bitmap_node, "name", bitmap),
                    NULL, err);
}

bool qsd_unexport(struct qsd *d, const char *id, struct err *err)
{
    static const char *const deleted[] = {"BLOCK_EXPORT_DELETED", NULL};
    qmp_drop_events(d->qmp, id);
    if (!qmp_call(d->qmp, "block-export-del", json_pack("{s:s, s:s}", "id", id, "mode", "hard"),
                  NULL, err))
        return false;
    json_t *event = qmp_wait_event(d->qmp, deleted, id, QUIT_TIMEOUT_MS, err);
    json_decref(event);
    return event;
}

static char *percent_encode(const char *text)
{
    char *out = xmalloc(3 * strlen(text) + 1);
    char *at = out;
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (isalnum(c) || strchr("/._-~", c))
            *at++ = (char)c;
        else
            at += snprintf(at, 4, "%%%02X", c);
    }
    *at = '\0';
    return out;
}

char *qsd_nbd_uri(const struct qsd *d, const char *name)
{
    SCOPED_FREE char *path = percent_encode(d->nbd_path);
    SCOPED_FREE char *export = percent_encode(name);
    return xasprintf("nbd+unix:///%s?socket=%s", export, path);
}

/* --- Nodes ------------------------------------------------------------------------------------ */

bool qsd_open_layer(struct qsd *d, const char *node, const char *path, enum block_format format,
                    const char *backing, bool read_only, struct err *err)
{
    char file[QSD_NODE_BYTES + 1];
    snprintf(file, sizeof file, "%sf", node);
    /* auto-read-only: the file is opened for writing when, and only while, a parent writes. */
    json_t *opts =
        json_pack("{s:s, s:s, s:s, s:b, s:b, s:s}", "driver", "file", "node-name", file, "filename",
                  path, "read-only", 0, "auto-read-only", 1, "discard", "unmap");
    if (!qmp_call(d->qmp, "blockdev-add", opts, NULL, err))
        return err_wrap(err, "open '%s'", path);
    opts = json_pack("{s:s, s:s, s:s, s:b, s:s}", "driver", block_format_name(format), "node-name",
                     node, "file", file, "read-only", (int)read_only, "discard", "unmap");
    if (format == BLOCK_QCOW2)
        json_object_set_new(opts, "backing", backing ? json_string(backing) : json_null());
    if (qmp_call(d->qmp, "blockdev-add", opts, NULL, err))
        return true;
    struct err ignored = ERR_INIT;
    (void)qmp_call(d->qmp, "blockdev-del", json_pack("{s:s}", "node-name", file), NULL, &ignored);
    return err_wrap(err, "open '%s'", path);
}

bool qsd_open_chain(struct qsd *d, const char *node, const char *path, enum block_format format,
                    bool read_only, struct err *err)
{
    json_t *opts = json_pack("{s:s, s:s, s:b, s:s, s:{s:s, s:s, s:b, s:s}}", "driver",
                             block_format_name(format), "node-name", node, "read-only",
                             (int)read_only, "discard", "unmap", "file", "driver", "file",
                             "filename", path, "read-only", (int)read_only, "discard", "unmap");
    if (!qmp_call(d->qmp, "blockdev-add", opts, NULL, err))
        return err_wrap(err, "open '%s'", path);
    return true;
}

bool qsd_close_node(struct qsd *d, const char *node, struct err *err)
{
    char file[QSD_NODE_BYTES + 1];
    snprintf(file, sizeof file, "%sf", node);
    if (!qmp_call(d->qmp, "blockdev-del", json_pack("{s:s}", "node-name", node), NULL, err))
        return err_wrap(err, "close node '%s'", node);
    struct err ignored = ERR_INIT; /* nodes of qsd_open_chain() have no such file node */
    (void)qmp_call(d->qmp, "blockdev-del", json_pack("{s:s}", "node-name", file), NULL, &ignored);
    return true;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A proxy host. As on a real one, the name in dev_dir is a symbolic link that appears when the
 * device is ready and goes before the device does: the link leads to RUN_DIR/dev/vd<n>, an empty
 * file with the FUSE export mounted on it (or to a loop device on top of that).
 *
 * Or it is a virtual machine, whose QEMU opens the images itself, and the device is one of its
 * buses (proxy_vm.h).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/buf.h"
#include "proto/base/file.h"
#include "tests/sandbox/block/block.h"
#include "tests/sandbox/block/fuse.h"
#include "tests/sandbox/block/image.h"
#include "tests/sandbox/block/loop.h"
#include "tests/sandbox/block/proxy_vm.h"
#include "tests/sandbox/block/qsd.h"

enum { PLUGS_MAX = 256, NAME_BYTES_MAX = 64, DEATH_MS = 1000 };

struct plug {
    char *name;
    unsigned number;
    bool snapshot_open, disk_open, limited, exported, linked; /* how far it got */
    bool in_guest;
    enum block_bus bus;
    unsigned port; /* the root port of a virtio disk */
    char *overlay; /* the transient overlay, NULL = none */
    char *mount;   /* the file with the FUSE export on it */
    struct loop_device loop;
};

struct block_host {
    pthread_mutex_t lock;    /* guards all below */
    char *run_dir, *dev_dir; /* a guest has no dev_dir */
    struct qsd *qsd;         /* of a guest: its QEMU */
    unsigned next_number;
    unsigned scsi_count; /* SCSI disks plugged into the guest so far */
    struct plug *plugs[PLUGS_MAX];
    size_t plug_count;
};

struct node_name {
    char text[QSD_NODE_BYTES];
};

static struct node_name node_of(const char *kind, const struct plug *p)
{
    struct node_name n;
    snprintf(n.text, sizeof n.text, "%s%u", kind, p->number);
    return n;
}

#define SNAPSHOT(p) (node_of("snapshot", p).text)
#define DISK(p)     (node_of("disk", p).text)
#define LIMITED(p)  (node_of("limited", p).text)
#define EXPORT(p)   (node_of("vd", p).text)

/* The throttle group of all devices of a host. */
#define DEVICE_LIMIT "device-limit"

static char *link_path(const struct block_host *h, const struct plug *p)
{
    return xasprintf("%s/%s", h->dev_dir, p->name);
}

/* --- Clean-up of what a killed predecessor left -------------------------------------------------
 */

/* Unmount all that is mounted on `path`; lazily, for the daemon behind it is dead. */
static void unmount_dead(const char *path)
{
    while (umount2(path, MNT_DETACH) == 0)
        ;
    const char *argv[] = {"fusermount3", "-q", "-u", "-z", path, NULL};
    struct err ignored = ERR_INIT;
    if (errno == EPERM)
        (void)proc_run(argv, NULL, &ignored);
}

/* Remove all files of a directory for which `wanted` says so. */
static bool clean_dir(const char *dir, bool (*wanted)(const char *path, const void *arg),
                      const void *arg, struct err *err)
{
    DIR *d = opendir(dir);
    if (!d)
        return errno == ENOENT || err_set_errno(err, errno, "open directory '%s'", dir);
    struct dirent *entry;
    while ((entry = readdir(d))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        SCOPED_FREE char *path = xasprintf("%s/%s", dir, entry->d_name);
        if (wanted(path, arg))
            (void)unlink(path);
    }
    (void)closedir(d);
    return true;
}

static bool is_device_file(const char *path, const void *arg)
{
    (void)arg;
    unmount_dead(path);
    return true;
}

static bool is_our_link(const char *path, const void *arg)
{
    const char *run_dir = arg;
    char target[PATH_MAX];
    ssize_t n = readlink(path, target, sizeof target - 1);
    if (n < 0)
        return false;
    target[n] = '\0';
    return strncmp(target, run_dir, strlen(run_dir)) == 0 || strncmp(target, "/dev/loop", 9) == 0;
}

static bool is_overlay(const char *path, const void *arg)
{
    (void)arg;
    size_t len = strlen(path);
    return len > 10 && strcmp(path + len - 10, ".transient") == 0;
}

static bool clean_up(const struct block_host *h, struct err *err)
{
    SCOPED_FREE char *devices = xasprintf("%s/dev", h->run_dir);
    return (!h->dev_dir || clean_dir(h->dev_dir, is_our_link, h->run_dir, err)) &&
           clean_dir(devices, is_device_file, NULL, err) &&
           clean_dir(h->run_dir, is_overlay, NULL, err);
}

/* --- Start and stop ------------------------------------------------------------------------------
 */

/* The absolute path of a directory, made if missing. */
static char *make_dir(const char *path, struct err *err)
{
    if (!file_make_dirs(path, 0755, err))
        return NULL;
    char *full = realpath(path, NULL);
    if (!full)
        err_set_errno(err, errno, "directory '%s'", path);
    return full;
}

static bool make_limit(struct block_host *h, struct err *err)
{
    return qmp_call(h->qsd->qmp, "object-add",
                    json_pack("{s:s, s:s}", "qom-type", "throttle-group", "id", DEVICE_LIMIT), NULL,
                    err);
}

static bool start(struct block_host *h, const char *run_dir, const char *dev_dir, struct err *err)
{
    h->run_dir = make_dir(run_dir, err);
    h->dev_dir = h->run_dir ? make_dir(dev_dir, err) : NULL;
    if (!h->dev_dir)
        return false;
    h->qsd = qsd_start(h->run_dir, err); /* ends the predecessor, whose mounts are dead then */
    SCOPED_FREE char *devices = xasprintf("%s/dev", h->run_dir);
    return h->qsd && clean_up(h, err) && file_make_dirs(devices, 0755, err) && make_limit(h, err);
}

static bool start_guest(struct block_host *h, const char *run_dir, const struct block_guest *guest,
                        struct err *err)
{
    h->run_dir = make_dir(run_dir, err);
    h->qsd = h->run_dir ? proxy_vm_start(h->run_dir, guest, err) : NULL;
    return h->qsd && clean_up(h, err) && make_limit(h, err);
}

struct block_host *block_host_start(const char *run_dir, const char *dev_dir, struct err *err)
{
    struct block_host *h = ALLOC_NEW(struct block_host);
    pthread_mutex_init(&h->lock, NULL);
    if (start(h, run_dir, dev_dir, err))
        return h;
    block_host_stop(h);
    return NULL;
}

struct block_host *block_host_start_guest(const char *run_dir, const struct block_guest *guest,
                                          struct err *err)
{
    struct block_host *h = ALLOC_NEW(struct block_host);
    pthread_mutex_init(&h->lock, NULL);
    if (start_guest(h, run_dir, guest, err))
        return h;
    block_host_stop(h);
    return NULL;
}

static void plug_free(struct plug *p)
{
    loop_detach(&p->loop);
    free(p->name);
    free(p->overlay);
    free(p->mount);
    free(p);
}

void block_host_stop(struct block_host *h)
{
    if (!h)
        return;
    if (h->qsd)
        qsd_quit(h->qsd);
    for (size_t i = 0; i < h->plug_count; i++)
        plug_free(h->plugs[i]);
    struct err ignored = ERR_INIT;
    if (h->run_dir)
        (void)clean_up(h, &ignored);
    qsd_free(h->qsd);
    free(h->run_dir);
    free(h->dev_dir);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

pid_t block_host_pid(const struct block_host *h)
{
    return proc_pid(h->qsd->proc);
}

bool block_host_is_running(struct block_host *h)
{
    return qsd_is_running(h->qsd);
}

/* --- Who has a device open
 * ------------------------------------------------------------------------ */

static bool fd_leads_to(int proc_fd, const char *link, const struct stat *device)
{
    struct stat st;
    if (fstatat(proc_fd, link, &st, 0) != 0)
        return false;
    if (S_ISBLK(device->st_mode))
        return S_ISBLK(st.st_mode) && st.st_rdev == device->st_rdev;
    return st.st_dev == device->st_dev && st.st_ino == device->st_ino;
}

static bool process_has_open(int proc_fd, const char *pid, const struct stat *device)
{
    SCOPED_FREE char *path = xasprintf("%s/fd", pid);
    int fd = openat(proc_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (!d)
        return false;
    bool found = false;
    struct dirent *entry;
    while (!found && (entry = readdir(d)))
        found = entry->d_name[0] != '.' && fd_leads_to(dirfd(d), entry->d_name, device);
    (void)closedir(d);
    return found;
}

/* A process other than this one that has the device open; 0 = none was seen. */
static long find_opener(const struct stat *device)
{
    DIR *d = opendir("/proc");
    if (!d)
        return 0;
    long found = 0;
    struct dirent *entry;
    while (!found && (entry = readdir(d))) {
        long pid = strtol(entry->d_name, NULL, 10);
        if (pid > 0 && process_has_open(dirfd(d), entry->d_name, device))
            found = pid;
    }
    (void)closedir(d);
    return found;
}

static bool set_in_use(const struct plug *p, long pid, struct err *err)
{
    if (pid > 0)
        return err_set(err, ERR_CONFLICT, EBUSY, "device '%s' is in use by process %ld", p->name,
                       pid);
    return err_set(err, ERR_CONFLICT, EBUSY, "device '%s' is in use", p->name);
}

/* --- Unplug
 * ---------------------------------------------------------------------------------------- */

/* Unmount the device, which the kernel refuses while anybody has it open: no race. */
static bool unmount_unused(const struct plug *p, struct err *err)
{
    struct stat st;
    if (stat(p->mount, &st) != 0)
        return err_set_errno(err, errno, "device '%s'", p->name);
    if (umount2(p->mount, UMOUNT_NOFOLLOW) == 0)
        return true;
    if (errno == EBUSY)
        return set_in_use(p, find_opener(&st), err);
    if (errno != EPERM)
        return err_set_errno(err, errno, "unmount '%s'", p->mount);
    const char *argv[] = {"fusermount3", "-q", "-u", p->mount, NULL};
    struct err why = ERR_INIT;
    return proc_run(argv, NULL, &why) || set_in_use(p, find_opener(&st), err);
}

/* A loop device keeps its file open until nobody has the loop device open. */
static bool release_loop(struct plug *p, struct err *err)
{
    struct stat st;
    if (!loop_is_attached(&p->loop))
        return true;
    if (fstat(p->loop.fd, &st) != 0)
        return err_set_errno(err, errno, "loop device of '%s'", p->name);
    loop_close(&p->loop); /* our own descriptor is no use of it; the device clears itself then */
    long pid = find_opener(&st);
    if (pid == 0 && loop_wait_cleared(&p->loop))
        return true;
    return loop_reopen(&p->loop, err) && set_in_use(p, pid, err);
}

/* The daemon died: nothing holds the images any more, only the dead mount is left. */
static void bury(const struct block_host *h, struct plug *p)
{
    if (!p->in_guest) {
        SCOPED_FREE char *link = link_path(h, p);
        loop_detach(&p->loop);
        (void)unlink(link);
        unmount_dead(p->mount);
        (void)unlink(p->mount);
    }
    if (p->overlay)
        (void)unlink(p->overlay);
}

/* Take the device away from whoever uses it; on a conflict it stays as it was. */
static bool take_from_host(struct block_host *h, struct plug *p, struct err *err)
{
    SCOPED_FREE char *link = link_path(h, p);
    if (p->linked && unlink(link) != 0 && errno != ENOENT)
        return err_set_errno(err, errno, "unlink '%s'", link);
    if (!release_loop(p, err) || (p->exported && !unmount_unused(p, err))) {
        const char *target = loop_is_attached(&p->loop) ? p->loop.path : p->mount;
        if (p->linked)
            (void)!symlink(target, link);
        return false;
    }
    p->linked = false;
    (void)unlink(p->mount);
    return !p->exported || qsd_unexport(h->qsd, EXPORT(p), err);
}

/* Did a call fail because the daemon has died? Then its connection is known to be cut a little
 * before its end is. */
static bool has_died(struct block_host *h, const struct err *why)
{
    return !qsd_is_running(h->qsd) ||
           (why->code != ERR_CONFLICT && proc_wait(h->qsd->proc, DEATH_MS, NULL));
}

/* Undo what plug() did, from the last to the first; on a conflict the device stays as it was. */
static bool take_down(struct block_host *h, struct plug *p, struct err *err)
{
    if (!qsd_is_running(h->qsd)) {
        bury(h, p);
        return true;
    }
    if (p->in_guest ? p->exported && !proxy_vm_unplug(h->qsd, EXPORT(p), err)
                    : !take_from_host(h, p, err)) {
        if (!has_died(h, err))
            return false;
        err_clear(err);
        bury(h, p);
        return true;
    }
    p->exported = false;
    if (p->limited && !qsd_close_node(h->qsd, LIMITED(p), err))
        return false;
    p->limited = false;
    if (p->disk_open && !qsd_close_node(h->qsd, DISK(p), err))
        return false;
    p->disk_open = false;
    if (p->snapshot_open && !qsd_close_node(h->qsd, SNAPSHOT(p), err))
        return false;
    p->snapshot_open = false;
    if (p->overlay)
        (void)unlink(p->overlay);
    return true;
}

static size_t find_plug(const struct block_host *h, const char *name)
{
    size_t i = 0;
    while (i < h->plug_count && strcmp(h->plugs[i]->name, name) != 0)
        i++;
    return i;
}

static bool unplug(struct block_host *h, const char *name, struct err *err)
{
    size_t i = find_plug(h, name);
    if (i == h->plug_count)
        return err_set(err, ERR_NOT_FOUND, 0, "the host has no device '%s'", name);
    if (!take_down(h, h->plugs[i], err))
        return false;
    plug_free(h->plugs[i]);
    h->plugs[i] = h->plugs[--h->plug_count];
    return true;
}

bool block_host_unplug(struct block_host *h, const char *name, struct err *err)
{
    pthread_mutex_lock(&h->lock);
    bool ok = unplug(h, name, err);
    pthread_mutex_unlock(&h->lock);
    return ok || err_wrap(err, "unplug");
}

/* --- Plug
 * ------------------------------------------------------------------------------------------ */

/* The snapshot read-only, and the overlay that takes the guest's writes upon it. */
static bool open_transient(struct block_host *h, struct plug *p, const struct block_plug_opts *opts,
                           struct err *err)
{
    SCOPED_IMAGE_INFO struct image_info info = {0};
    if (!image_info_read(opts->path, opts->format, &info, err))
        return false;
    SCOPED_FREE char *overlay = xasprintf("%s/vd%u.transient", h->run_dir, p->number);
    if (!block_volume_create(overlay, BLOCK_QCOW2, info.size_bytes, opts->path, opts->format, err))
        return false;
    p->overlay = TAKE(overlay);
    p->snapshot_open = qsd_open_chain(h->qsd, SNAPSHOT(p), opts->path, opts->format, true, err);
    if (!p->snapshot_open)
        return false;
    p->disk_open =
        qsd_open_layer(h->qsd, DISK(p), p->overlay, BLOCK_QCOW2, SNAPSHOT(p), false, err);
    return p->disk_open;
}

/* The filter through which the device is read and written: without effect until a limit is set. */
static bool put_under_limit(struct block_host *h, struct plug *p, struct err *err)
{
    p->limited = qmp_call(h->qsd->qmp, "blockdev-add",
                          json_pack("{s:s, s:s, s:s, s:s}", "driver", "throttle", "node-name",
                                    LIMITED(p), "throttle-group", DEVICE_LIMIT, "file", DISK(p)),
                          NULL, err);
    return p->limited;
}

bool block_host_set_limits(struct block_host *h, uint64_t read_bps, uint64_t write_bps,
                           struct err *err)
{
    pthread_mutex_lock(&h->lock);
    bool ok = qmp_call(h->qsd->qmp, "qom-set",
                       json_pack("{s:s, s:s, s:{s:I, s:I}}", "path", "/objects/" DEVICE_LIMIT,
                                 "property", "limits", "value", "bps-read", (json_int_t)read_bps,
                                 "bps-write", (json_int_t)write_bps),
                       NULL, err);
    if (!ok && has_died(h, err)) { /* reads and writes nothing */
        err_clear(err);
        ok = true;
    }
    pthread_mutex_unlock(&h->lock);
    return ok || err_wrap(err, "limit devices");
}

static bool export_as_file(struct block_host *h, struct plug *p, struct err *err)
{
    SCOPED_FD int fd = open(p->mount, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set_errno(err, errno, "create '%s'", p->mount);
    p->exported =
        qmp_call(h->qsd->qmp, "block-export-add",
                 json_pack("{s:s, s:s, s:s, s:s, s:b}", "type", "fuse", "id", EXPORT(p),
                           "node-name", LIMITED(p), "mountpoint", p->mount, "writable", 1),
                 NULL, err);
    return p->exported && fuse_set_nonblocking(proc_pid(h->qsd->proc), err);
}

/* The first root port that no device is in. */
static unsigned free_port(const struct block_host *h)
{
    unsigned port = 0;
    for (size_t i = 0; i < h->plug_count; i++) {
        if (h->plugs[i]->in_guest && h->plugs[i]->bus == BLOCK_VIRTIO &&
            h->plugs[i]->port == port) {
            port++;
            i = SIZE_MAX; /* from the start */
        }
    }
    return port;
}

static bool show_as_file(struct block_host *h, struct plug *p, const struct block_plug_opts *opts,
                         struct err *err)
{
    if (!export_as_file(h, p, err) || (opts->loop && !loop_attach(&p->loop, p->mount, err)))
        return false;
    SCOPED_FREE char *link = link_path(h, p);
    p->linked = symlink(opts->loop ? p->loop.path : p->mount, link) == 0;
    return p->linked || err_set_errno(err, errno, "link '%s'", link);
}

static bool show_in_guest(struct block_host *h, struct plug *p, const struct block_plug_opts *opts,
                          struct err *err)
{
    p->port = free_port(h);
    bool scsi = opts->bus == BLOCK_VIRTIO_SCSI;
    p->exported =
        proxy_vm_plug(h->qsd,
                      &(struct proxy_vm_device){.id = EXPORT(p),
                                                .node = LIMITED(p),
                                                .disk_id = opts->disk_id,
                                                .bus = opts->bus,
                                                .port = p->port,
                                                .whole_id = scsi && h->scsi_count++ % 2 == 0},
                      err);
    return p->exported;
}

static bool put_up(struct block_host *h, struct plug *p, const struct block_plug_opts *opts,
                   struct err *err)
{
    if (opts->transient) {
        if (!open_transient(h, p, opts, err))
            return false;
    } else {
        p->disk_open = qsd_open_chain(h->qsd, DISK(p), opts->path, opts->format, false, err);
        if (!p->disk_open)
            return false;
    }
    return put_under_limit(h, p, err) &&
           (p->in_guest ? show_in_guest(h, p, opts, err) : show_as_file(h, p, opts, err));
}

static bool plug(struct block_host *h, const char *name, const struct block_plug_opts *opts,
                 struct err *err)
{
    if (name[0] == '\0' || name[0] == '.' || strchr(name, '/') || strlen(name) > NAME_BYTES_MAX)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "'%s' is no device name", name);
    if (find_plug(h, name) < h->plug_count)
        return err_set(err, ERR_EXISTS, 0, "the host has a device '%s' already", name);
    if (h->plug_count == PLUGS_MAX)
        return err_set(err, ERR_TOO_LARGE, 0, "the host has %d devices", PLUGS_MAX);
    struct plug *p = ALLOC_NEW(struct plug);
    p->in_guest = !h->dev_dir;
    p->bus = opts->bus;
    p->loop = (struct loop_device)LOOP_INIT;
    p->name = xstrdup(name);
    p->number = h->next_number++;
    p->mount = xasprintf("%s/dev/vd%u", h->run_dir, p->number);
    if (put_up(h, p, opts, err)) {
        h->plugs[h->plug_count++] = p;
        return true;
    }
    struct err ignored = ERR_INIT;
    (void)take_down(h, p, &ignored);
    plug_free(p);
    return err_wrap(err, "plug '%s'", name);
}

bool block_host_plug(struct block_host *h, const char *name, const struct block_plug_opts *opts,
                     struct err *err)
{
    pthread_mutex_lock(&h->lock);
    bool ok = plug(h, name, opts, err);
    pthread_mutex_unlock(&h->lock);
    return ok;
}

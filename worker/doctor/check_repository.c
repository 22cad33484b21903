/* SPDX-License-Identifier: Apache-2.0 */
/* The repository: there, ours, on a file system that can carry it, with room. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "proto/base/id.h"
#include "worker/doctor/check.h"

enum { SLOW_MS = 2000 };

/* With the key; without it, if that is all that is wrong. */
static struct store *open_store(struct doctor *d, struct err *err)
{
    const struct worker_conf_repository *r = &d->conf->repository;
    struct store_opts opts = {.key_file = r->key_file, .passphrase_file = r->passphrase_file};
    store_opts_from_environment(&opts);
    struct store *store = store_open(r->path, &opts, err);
    if (store || err->code != ERR_STORE_KEY)
        return store;
    d->key = *err;
    err_clear(err);
    return store_open(r->path, &(struct store_opts){.keyless = true}, err);
}

static enum finding_level check_opens(struct doctor *d, struct buf *say)
{
    struct err err = ERR_INIT;
    d->store = open_store(d, &err);
    if (!d->store) {
        (void)buf_printf(say, "%s", err.message);
        return FINDING_FAILURE;
    }
    (void)pthread_mutex_lock(&d->lock);
    d->repository = xstrdup(store_uuid(d->store));
    (void)pthread_mutex_unlock(&d->lock);
    (void)buf_printf(say, "%s is repository %s", d->conf->repository.path, store_uuid(d->store));
    return FINDING_OK;
}

static enum finding_level check_key(struct doctor *d, struct buf *say)
{
    if (err_is_set(&d->key)) {
        (void)buf_printf(say, "%s", d->key.message);
        return FINDING_FAILURE;
    }
    if (!store_is_encrypted(d->store)) {
        (void)buf_printf(say, "not encrypted: none is needed");
        return FINDING_OK;
    }
    bool restores = store_can_restore(d->store);
    (void)buf_printf(say, restores ? "its key opens it"
                                   : "its key may only write: a restore by this worker fails");
    return restores ? FINDING_OK : FINDING_WARNING;
}

/* --- The file system ------------------------------------------------------------------------- */
static const struct {
    long magic;
    const char *name;
    enum finding_level level;
    const char *but;
} file_systems[] = {
    {NFS_SUPER_MAGIC, "nfs", FINDING_OK, NULL},
    {EXT4_SUPER_MAGIC, "ext4", FINDING_OK, NULL},
    {XFS_SUPER_MAGIC, "xfs", FINDING_OK, NULL},
    {BTRFS_SUPER_MAGIC, "btrfs", FINDING_OK, NULL},
    {0x2fc12fc1, "zfs", FINDING_OK, NULL},
    {FUSE_SUPER_MAGIC, "fuse", FINDING_OK, NULL}, /* gluster's client among others */
    {CEPH_SUPER_MAGIC, "ceph", FINDING_OK, NULL},
    {TMPFS_MAGIC, "tmpfs", FINDING_WARNING, "is lost at the next boot"},
    {OVERLAYFS_SUPER_MAGIC, "overlay", FINDING_WARNING, "is lost with its container"},
    {SMB2_SUPER_MAGIC, "smb", FINDING_WARNING,
     "gives no certainty about link() and fsync() over the network"},
    {CIFS_SUPER_MAGIC, "cifs", FINDING_WARNING,
     "gives no certainty about link() and fsync() over the network"},
};

char *doctor_mount_options(const char *mountinfo, unsigned major_number, unsigned minor_number)
{
    SCOPED_FREE char *id = xasprintf(" %u:%u ", major_number, minor_number);
    char *found = NULL;
    for (const char *line = mountinfo; line && *line && !found;
         line += strcspn(line, "\n"), line += *line == '\n') {
        SCOPED_FREE char *one = xstrndup(line, strcspn(line, "\n"));
        const char *last = strrchr(one, ' ');
        if (strstr(one, id) && strstr(one, " - ") && last)
            found = xasprintf(",%s,", last + 1);
    }
    return found;
}

static bool is_on_root_disk(const struct stat *st)
{
    struct stat root;
    return stat("/", &root) == 0 && root.st_dev == st->st_dev;
}

static enum finding_level judge_mount(const struct doctor *d, const char *name,
                                      const struct stat *st, struct buf *say)
{
    SCOPED_FREE char *table = doctor_read_file(d, "/proc/self/mountinfo");
    SCOPED_FREE char *options = doctor_mount_options(table, major(st->st_dev), minor(st->st_dev));
    if (options && strcmp(name, "nfs") == 0 && strstr(options, ",soft,")) {
        (void)buf_printf(say, ", mounted soft: a slow file server becomes an I/O error, and the "
                              "backup fails");
        return FINDING_WARNING;
    }
    if (is_on_root_disk(st)) {
        (void)buf_printf(say, ", on the disk of this machine's system: is the file server not "
                              "mounted?");
        return FINDING_WARNING;
    }
    return FINDING_OK;
}

static enum finding_level check_file_system(struct doctor *d, struct buf *say)
{
    struct statfs fs;
    struct stat st;
    const char *path = d->conf->repository.path;
    if (statfs(path, &fs) != 0 || stat(path, &st) != 0) {
        int error = errno;
        (void)buf_printf(say, "%s: %s", path, strerror(error));
        return FINDING_FAILURE;
    }
    for (size_t i = 0; i < ARRAY_LEN(file_systems); i++) {
        if ((long)fs.f_type != file_systems[i].magic)
            continue;
        (void)buf_printf(say, "file system %s", file_systems[i].name);
        if (!file_systems[i].but)
            return judge_mount(d, file_systems[i].name, &st, say);
        (void)buf_printf(say, ", which %s", file_systems[i].but);
        return file_systems[i].level;
    }
    (void)buf_printf(say, "file system of a type that was never tried (0x%lx)", (long)fs.f_type);
    return FINDING_WARNING;
}

/* --- Writing --------------------------------------------------------------------------------- */
/* What a backup asks of the file system, in the same order. Names what failed. */
static bool try_writing(int dir, const char *first, const char *second, const char *third,
                        const char **ret_what)
{
    SCOPED_FD int fd = openat(dir, first, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0440);
    *ret_what = "make a file";
    if (fd < 0)
        return false;
    *ret_what = "write";
    if (write(fd, "doctor\n", 7) != 7)
        return false;
    *ret_what = "fsync a file";
    if (fsync(fd) != 0)
        return false;
    *ret_what = "link(2)";
    if (linkat(dir, first, dir, second, 0) != 0)
        return false;
    *ret_what = "create-if-absent by link(2), which must refuse a name that is taken,";
    errno = 0;
    if (linkat(dir, first, dir, second, 0) == 0 || errno != EEXIST)
        return false;
    *ret_what = "rename";
    if (renameat(dir, first, dir, third) != 0)
        return false;
    *ret_what = "fsync a directory";
    return fsync(dir) == 0;
}

static enum finding_level check_writable(struct doctor *d, struct buf *say)
{
    char id[ID_BYTES];
    id_new(id);
    const char *path = d->conf->repository.path, *what = "open";
    SCOPED_FREE char *first = xasprintf(".doctor-%s-1.tmp", id);
    SCOPED_FREE char *second = xasprintf(".doctor-%s-2.tmp", id);
    SCOPED_FREE char *third = xasprintf(".doctor-%s-3.tmp", id);
    int64_t begun_ms = clock_mono_ms(d->clock);
    SCOPED_FD int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = dir >= 0 && try_writing(dir, first, second, third, &what);
    int error = errno;
    const char *const names[] = {first, second, third};
    for (size_t i = 0; dir >= 0 && i < ARRAY_LEN(names); i++)
        (void)unlinkat(dir, names[i], 0);
    int64_t took_ms = clock_mono_ms(d->clock) - begun_ms;
    if (!ok) {
        (void)buf_printf(say, "%s in %s does not work: %s", what, path, strerror(error));
        return FINDING_FAILURE;
    }
    if (took_ms > SLOW_MS) {
        (void)buf_printf(say, "writing works, but a tiny file took %" PRId64 " ms", took_ms);
        return FINDING_WARNING;
    }
    (void)buf_printf(say, "write, fsync, link and rename work");
    return FINDING_OK;
}

static enum finding_level check_space(struct doctor *d, struct buf *say)
{
    struct err err = ERR_INIT;
    uint64_t free_bytes = 0, reserve_mib = (uint64_t)d->conf->reserve.repository_mib;
    if (!store_free_space(d->store, &free_bytes, &err)) {
        (void)buf_printf(say, "%s", err.message);
        return FINDING_FAILURE;
    }
    uint64_t free_mib = free_bytes >> 20;
    (void)buf_printf(say, "%" PRIu64 " MiB free, the reserve is %" PRIu64 " MiB", free_mib,
                     reserve_mib);
    if (free_mib < reserve_mib) {
        (void)buf_printf(say, ": no backup begins");
        return FINDING_FAILURE;
    }
    return free_mib < 4 * reserve_mib ? FINDING_WARNING : FINDING_OK;
}

static const struct check rows[] = {
    {"repository.opens", check_opens,
     "is the file server mounted, and `repository.path` right? a new one is made once, by "
     "`oxbow-worker repo init PATH`; the account must be able to read it",
     NULL, false},
    {"repository.key", check_key,
     "look at `repository.key_file` and `repository.passphrase_file`; `oxbow-worker repo key-list "
     "PATH` "
     "lists the keys that fit",
     "repository.opens", false},
    {"repository.filesystem", check_file_system,
     "mount the file server's directory, hard (not soft), before the worker starts; all workers of "
     "a zone need the same one",
     "repository.opens", false},
    {"repository.writable", check_writable,
     "the directory must belong to the worker's account, on the same user id on all workers; with "
     "systemd, ReadWritePaths= must name it",
     "repository.opens", false},
    {"repository.space", check_space,
     "make room on the file server, remove old restore points, or lower `reserve.repository_mib`",
     "repository.opens", false},
};
const struct check_table checks_of_repository = CHECK_TABLE(rows);

/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/repo/guest.h"

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "worker/repo/partition.h"
#include "worker/repo/stop.h"

enum { PATH_MAX_BYTES = 4096, ARGS_MAX = 16 };

error_t guest_option(int key, char *arg, struct guest_opts *o)
{
    switch (key) {
    case GUEST_DISK:
        o->disk = arg;
        return 0;
    case GUEST_FILESYSTEM:
        o->filesystem = arg;
        return 0;
    case GUEST_TOOL:
        o->tool = arg;
        return 0;
    case GUEST_PLUGIN:
        o->plugin = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ---- programs */

static bool is_installed(const char *program)
{
    const char *path = getenv("PATH");
    SCOPED_FREE char *copy = xstrdup(path ? path : "/usr/bin:/bin");
    char *rest = copy;
    for (const char *dir; (dir = strsep(&rest, ":"));) {
        SCOPED_FREE char *file = xasprintf("%s/%s", dir, program);
        if (access(file, X_OK) == 0)
            return true;
    }
    return false;
}

static bool need(const char *program, const char *package, struct err *err)
{
    return is_installed(program) ||
           err_set(err, ERR_NOT_FOUND, 0, "'%s' is not installed (package %s)", program, package);
}

const struct guest_tool guest_debugfs = {"debugfs", "e2fsprogs", true};
const struct guest_tool guest_fuse2fs = {"fuse2fs", "fuse2fs", false};
const struct guest_tool guest_kernel = {"mount", "mount", false};

/* True for libguestfs, false for the other tool. */
static bool choose_tool(const struct guest_opts *o, const struct guest_job *job, bool *ret_guestfs,
                        struct err *err)
{
    bool wanted = o->tool && strcmp(o->tool, "libguestfs") == 0;
    if (o->tool && !wanted && strcmp(o->tool, job->tool->name) != 0)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "--tool: '%s' is neither libguestfs nor %s",
                       o->tool, job->tool->name);
    *ret_guestfs = wanted || (!o->tool && job->guestfs && is_installed(job->guestfs_program));
    if (!need("nbdkit", "nbdkit", err))
        return false;
    return *ret_guestfs ? need(job->guestfs_program, job->guestfs_program, err)
                        : need(job->tool->name, job->tool->package, err) &&
                              need("nbdfuse", "libnbd-bin", err);
}

/* ---- what the tools are told */

static bool check_path(const char *path, bool guestfs, struct err *err)
{
    if (path[0] != '/' || strlen(path) > PATH_MAX_BYTES)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "a path in the guest begins with '/'");
    for (const char *c = path; *c; c++) {
        if ((unsigned char)*c < ' ' || (!guestfs && *c == '"'))
            return err_set(err, ERR_BAD_ARGUMENT, 0, "a path with such a sign cannot be asked for");
    }
    return true;
}

static bool check_filesystem(const char *device, struct err *err)
{
    bool ok = strncmp(device, "/dev/", 5) == 0;
    for (const char *c = device; *c; c++)
        ok = ok && (isalnum((unsigned char)*c) || strchr("/._+-", *c));
    return ok || err_set(err, ERR_BAD_ARGUMENT, 0, "--filesystem: '%s' is no device", device);
}

/* "/dev/sda3" -> 3, "/dev/sda" -> 0. */
static bool partition_of(const char *device, unsigned *ret, struct err *err)
{
    unsigned n = 0;
    const char *c = device + strlen("/dev/sda");
    bool ok = strncmp(device, "/dev/sda", strlen("/dev/sda")) == 0 && strlen(c) <= 3;
    for (; ok && *c; c++) {
        ok = isdigit((unsigned char)*c);
        n = n * 10 + (unsigned)(*c - '0');
    }
    *ret = n;
    return ok ||
           err_set(err, ERR_BAD_ARGUMENT, 0,
                   "debugfs reads /dev/sda or a partition of it, not '%s': choose the disk by "
                   "--disk, or use libguestfs",
                   device);
}

struct nbdkit {
    struct guest_opts opts;
    const char *disk;   /* NULL = all */
    unsigned partition; /* not libguestfs: 0 = the whole disk */
    const char *tool;   /* for messages */
    bool guestfs;
    char *script;
};

/* nbdfuse makes a file of the export; */
#define TOOL_SCRIPT                                                                                \
    "d=$(mktemp -d) || exit 1\n"                                                                   \
    "mkdir \"$d/m\"\n"                                                                             \
    "nbdfuse --readonly -P \"$d/pid\" \"$d/m/disk\" \"$uri\" & fuse=$!\n"                          \
    "trap 'fusermount3 -u \"$d/m\" 2>/dev/null || kill $fuse 2>/dev/null; wait $fuse; rm -f "      \
    "\"$d/pid\" \"$d/err\"; rmdir "                                                                \
    "\"$d/m\" \"$d\"' EXIT\n"                                                                      \
    "while [ ! -s \"$d/pid\" ]; do kill -0 $fuse || exit 1; sleep 0.05; done\n"                    \
    "device=$d/m/disk\n"
#define PLAIN_LINE "%s\n"
#define STDERR_LINE                                                                                \
    "{ %s; } 2>\"$d/err\"\n"                                                                       \
    "sed 1d \"$d/err\" >&2\n"                                                                      \
    "! sed 1d \"$d/err\" | grep -qv 'changing ownership'\n"

#define GUESTFS_SCRIPT                                                                             \
    "set --\n"                                                                                     \
    "for disk in $OXBOW_DISKS; do\n"                                                               \
    "    set -- \"$@\" --format=raw -a \"nbd:///$disk?socket=$unixsocket\"\n"                      \
    "done\n"                                                                                       \
    "if [ -n \"$OXBOW_FILESYSTEM\" ]; then set -- \"$@\" -m \"$OXBOW_FILESYSTEM\"\n"               \
    "else set -- \"$@\" -i; fi\n"                                                                  \
    "%s\n"

static bool set_disks(struct store_point *point, const char *only)
{
    SCOPED_BUF struct buf names;
    buf_init(&names, STORE_POINT_JSON_MAX);
    for (size_t i = 0; i < store_point_disk_count(point); i++) {
        const char *id = store_point_disk(point, i)->id;
        if (!only || strcmp(only, id) == 0)
            (void)buf_printf(&names, "%s ", id);
    }
    return setenv("OXBOW_DISKS", buf_str(&names), 1) == 0;
}

static bool set_environment(struct store_point *point, const struct nbdkit *n,
                            const struct guest_job *job, struct err *err)
{
    const char *fs = n->opts.filesystem;
    return (set_disks(point, n->disk) && setenv("OXBOW_PATH", job->path ? job->path : "", 1) == 0 &&
            setenv("OXBOW_DEST", job->dest ? job->dest : "", 1) == 0 &&
            setenv("OXBOW_FILESYSTEM", fs ? fs : "", 1) == 0) ||
           err_set_errno(err, errno, "set the environment");
}

/* In a process group of its own, so that a signal ends all of it, in order. */
static bool run_group(char *const *argv, int *ret_status, struct err *err)
{
    posix_spawnattr_t attr;
    posix_spawnattr_init(&attr);
    posix_spawnattr_setpgroup(&attr, 0);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP);
    repo_catch_signals();
    pid_t pid;
    int number = posix_spawnp(&pid, argv[0], NULL, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    if (number != 0)
        return err_set_errno(err, number, "run %s", argv[0]);
    while (waitpid(pid, ret_status, 0) < 0 && errno == EINTR) {
        if (repo_stopped(NULL))
            (void)kill(-pid, SIGTERM);
    }
    return true;
}

static bool run_nbdkit(const struct repo_call *call, const char *point, const struct nbdkit *n,
                       struct err *err)
{
    SCOPED_FREE char *repo = xasprintf("repo=%s", call->path);
    SCOPED_FREE char *id = xasprintf("point=%s", point);
    SCOPED_FREE char *disk = xasprintf("disk=%s", n->disk ? n->disk : "");
    SCOPED_FREE char *partition = xasprintf("partition=%u", n->partition);
    SCOPED_FREE char *plugin = xstrdup(n->opts.plugin ? n->opts.plugin : "oxbow");
    char program[] = "nbdkit", private[] = "-U", dash[] = "-", filter[] = "--filter=partition",
         run[] = "--run";
    char *argv[ARGS_MAX] = {program, private, dash};
    size_t at = 3;
    if (n->partition)
        argv[at++] = filter;
    argv[at++] = plugin;
    argv[at++] = repo;
    argv[at++] = id;
    if (n->disk)
        argv[at++] = disk;
    if (n->partition)
        argv[at++] = partition;
    argv[at++] = run;
    argv[at++] = n->script;
    int status = 0;
    if (!run_group(argv, &status, err))
        return false;
    if (repo_stopped(NULL))
        return err_set(err, ERR_CANCELLED, 0, "stopped by a signal");
    return status == 0 || err_set(err, ERR_IO, 0, "%s failed", n->tool);
}

/* Where the file system is, for a tool that cannot find it. */
static bool find_partition(struct store_point *point, struct nbdkit *n, struct err *err)
{
    n->disk = n->opts.disk ? n->opts.disk : repo_only_disk(point, err);
    if (!n->disk)
        return false;
    if (n->opts.filesystem)
        return partition_of(n->opts.filesystem, &n->partition, err);
    SCOPED(store_reader) struct store_reader *reader = store_disk_open(point, n->disk, err);
    return reader && partition_find_ext(reader, &n->partition, err);
}

bool guest_run(struct repo_call *call, const struct guest_opts *o, const struct guest_job *job,
               struct err *err)
{
    struct nbdkit n = {.opts = *o, .disk = o->disk};
    if (!choose_tool(o, job, &n.guestfs, err) ||
        (job->path && !check_path(job->path, n.guestfs, err)) ||
        (o->filesystem && !check_filesystem(o->filesystem, err)))
        return false;
    SCOPED(store_point)
    struct store_point *point = store_point_open(call->store, call->words[0], err);
    if (!point || (!n.guestfs && !find_partition(point, &n, err)))
        return false;
    n.tool = n.guestfs ? "libguestfs" : job->tool->name;
    SCOPED_FREE char *script = n.guestfs ? xasprintf(GUESTFS_SCRIPT, job->guestfs)
                               : job->tool->tells_by_stderr
                                   ? xasprintf(TOOL_SCRIPT STDERR_LINE, job->line)
                                   : xasprintf(TOOL_SCRIPT PLAIN_LINE, job->line);
    n.script = script;
    return set_environment(point, &n, job, err) &&
           run_nbdkit(call, store_point_info(point)->id, &n, err);
}

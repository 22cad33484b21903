/* SPDX-License-Identifier: Apache-2.0 */
#include <sys/stat.h>

#include "worker/repo/guest.h"
enum { OPT_KERNEL = REPO_OPT };

struct mount_opts {
    struct guest_opts guest;
    bool kernel;
};

static const struct argp_option options[] = {
    GUEST_OPTIONS,
    {"kernel", OPT_KERNEL, NULL, 0,
     "Let the kernel of this machine mount the file system (root only): only for guests that you "
     "trust as much as this machine",
     0},
    {0},
};

static error_t option(int key, char *arg, struct argp_state *state, struct repo_call *call)
{
    (void)state;
    struct mount_opts *o = call->opts;
    if (key != OPT_KERNEL)
        return guest_option(key, arg, &o->guest);
    o->kernel = true;
    return 0;
}

/* All stay until the directory is unmounted or a signal comes, which every program of the group
 * gets: then what is not unmounted yet is. */
#define GUESTMOUNT                                                                                 \
    "guestmount --ro --no-fork \"$@\" \"$OXBOW_DEST\" & mounted=$!\n"                              \
    "trap 'guestunmount --quiet \"$OXBOW_DEST\"' INT TERM\n"                                       \
    "while kill -0 $mounted 2>/dev/null; do wait $mounted; done\n"                                 \
    "wait $mounted"
#define FUSE2FS                                                                                    \
    "fuse2fs -f -o ro,nodev,nosuid,noexec \"$device\" \"$OXBOW_DEST\" & mounted=$!\n"              \
    "trap 'fusermount -u \"$OXBOW_DEST\" 2>/dev/null' INT TERM\n"                                  \
    "while kill -0 $mounted 2>/dev/null; do wait $mounted; done\n"                                 \
    "wait $mounted"
#define KERNEL_MOUNT                                                                               \
    "mount -o ro,loop,noload,nodev,nosuid,noexec \"$device\" \"$OXBOW_DEST\" || exit 1\n"          \
    "trap 'umount \"$OXBOW_DEST\"' INT TERM\n"                                                     \
    "while mountpoint -q \"$OXBOW_DEST\"; do sleep 0.2; done"

static bool run(struct repo_call *call, struct err *err)
{
    struct mount_opts *o = call->opts;
    struct stat st;
    if (stat(call->words[1], &st) != 0 || !S_ISDIR(st.st_mode))
        return err_set(err, ERR_BAD_ARGUMENT, 0, "'%s' is no directory", call->words[1]);
    struct guest_job job = {.guestfs = GUESTMOUNT,
                            .guestfs_program = "guestmount",
                            .tool = &guest_fuse2fs,
                            .line = FUSE2FS,
                            .dest = call->words[1]};
    if (o->kernel) {
        job.guestfs = NULL;
        job.tool = &guest_kernel;
        job.line = KERNEL_MOUNT;
        if (o->guest.tool)
            return err_set(err, ERR_BAD_ARGUMENT, 0, "--kernel and --tool exclude each other");
    }
    return guest_run(call, &o->guest, &job, err);
}

const struct repo_verb repo_mount = {
    .name = "mount",
    .summary = "mount a file system of a restore point, read-only, until it is unmounted",
    .words = "POINT DIR",
    .words_min = 2,
    .words_max = 2,
    .options = options,
    .opts_bytes = sizeof(struct mount_opts),
    .option = option,
    .run = run,
};

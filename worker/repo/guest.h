/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files in the disks of a restore point, read-only: what ls, cp and mount share. nbdkit serves
 * the disks with our plugin, and one of these reads the file systems:
 *
 *     libguestfs  any file system, LVM, several disks: a small VM of its own looks at the disks
 *     debugfs     ext2, 3 and 4, one disk: a program without privileges, over nbdfuse
 *
 * A guest writes what it likes into its disks. The kernel of this machine never sees such a file
 * system, unless somebody asks for it (`mount --kernel`).
 */
#pragma once

#include "worker/repo/verb.h"

struct guest_opts {
    const char *disk;       /* NULL = all of the point */
    const char *filesystem; /* "/dev/sda1": as libguestfs names it; NULL = find it */
    const char *tool;       /* "libguestfs", or the job's other tool; NULL = what there is */
    const char *plugin;     /* of nbdkit; NULL = "oxbow" */
};

/* For the option tables: keys from GUEST_OPT on. */
enum {
    GUEST_OPT = REPO_OPT + 0x80,
    GUEST_DISK = GUEST_OPT,
    GUEST_FILESYSTEM,
    GUEST_TOOL,
    GUEST_PLUGIN
};
#define GUEST_OPTIONS                                                                              \
    {"disk", GUEST_DISK, "ID", 0, "This disk; default: all that the point has", 0},                \
        {"filesystem",                                                                             \
         GUEST_FILESYSTEM,                                                                         \
         "DEV",                                                                                    \
         0,                                                                                        \
         "This file system, as libguestfs names it: /dev/sda1 is the first partition of the "      \
         "first "                                                                                  \
         "disk. Default: the root of the operating system",                                        \
         0},                                                                                       \
        {"tool",                                                                                   \
         GUEST_TOOL,                                                                               \
         "libguestfs|debugfs|fuse2fs",                                                             \
         0,                                                                                        \
         "What reads the file system: libguestfs, which is the default where it is installed, or " \
         "for ext2, ext3 and ext4 debugfs (ls, cp) or fuse2fs (mount)",                            \
         0},                                                                                       \
    {                                                                                              \
        "plugin", GUEST_PLUGIN, "FILE", 0, "The plugin of nbdkit; default: the installed one", 0   \
    }
error_t guest_option(int key, char *arg, struct guest_opts *o);

/* A program that reads one disk, which nbdfuse shows to it as a file. */
struct guest_tool {
    const char *name, *package;
    /* It says on standard error alone that something was wrong, after a line with its name. */
    bool tells_by_stderr;
};
extern const struct guest_tool guest_debugfs, guest_fuse2fs, guest_kernel;

/* A job: what each tool is told to do, as lines of sh(1). Both see $OXBOW_PATH (in the guest) and
 * $OXBOW_DEST; libguestfs's line gets all its options in "$@", the other tool's the disk in
 * "$device". */
struct guest_job {
    const char *guestfs;         /* NULL = libguestfs cannot */
    const char *guestfs_program; /* guestfish or guestmount */
    const struct guest_tool *tool;
    const char *line;
    const char *path; /* absolute, of the guest; NULL = none */
    const char *dest; /* of this machine; NULL = none */
};

/* Run it. Errors: bad-argument, not-found (a tool that is not installed), io-error when the tool
 * has failed, which has said why to standard error. */
bool guest_run(struct repo_call *call, const struct guest_opts *o, const struct guest_job *job,
               struct err *err);

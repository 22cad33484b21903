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
    const char *tool;       /* "libguestfs" or "debugfs"; NULL = what there is */
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
         "libguestfs|debugfs",                                                                     \
         0,                                                                                        \
         "What reads the file system; default: libguestfs if it is installed",                     \
         0},                                                                                       \
    {                                                                                              \
        "plugin", GUEST_PLUGIN, "FILE", 0, "The plugin of nbdkit; default: the installed one", 0   \
    }
error_t guest_option(int key, char *arg, struct guest_opts *o);

/* A job: what each tool is told to do, as lines of sh(1). Both see $OXBOW_PATH (in the guest) and
 * $OXBOW_DEST; guestfish's line gets all its options in "$@", debugfs's the device in "$device". */
struct guest_job {
    const char *guestfs, *debugfs; /* NULL = this tool cannot */
    const char *path;              /* absolute, of the guest; NULL = none */
    const char *dest;              /* of this machine; NULL = none */
};

/* Run it. Errors: bad-argument, not-found (a tool that is not installed), io-error when the tool
 * has failed, which has said why to standard error. */
bool guest_run(struct repo_call *call, const struct guest_opts *o, const struct guest_job *job,
               struct err *err);

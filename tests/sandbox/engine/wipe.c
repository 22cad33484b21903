/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/engine/wipe.h"

#include <errno.h>
#include <ftw.h>
#include <mntent.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include <jansson.h>

#include "proto/base/alloc.h"

enum { WIPE_FDS = 32 };

/* 0 when there is no sandbox.json. */
static int old_pid(const char *dir)
{
    SCOPED_FREE char *path = xasprintf("%s/sandbox.json", dir);
    json_t *o = json_load_file(path, 0, NULL);
    int pid = (int)json_integer_value(json_object_get(o, "pid"));
    json_decref(o);
    return pid;
}

/* Is that process a sandbox, and not one that got the number later? */
static bool is_alive(int pid)
{
    char name[64] = "";
    SCOPED_FREE char *path = xasprintf("/proc/%d/comm", pid);
    SCOPED_FILE FILE *f = fopen(path, "re");
    return f && fgets(name, sizeof name, f) && !strncmp(name, "oxbow-sandbox", 13);
}

static void detach_mounts(const char *dir)
{
    size_t len = strlen(dir);
    FILE *f = setmntent("/proc/self/mounts", "r");
    if (!f)
        return;
    char text[4096];
    struct mntent entry;
    while (getmntent_r(f, &entry, text, sizeof text))
        if (!strncmp(entry.mnt_dir, dir, len) && entry.mnt_dir[len] == '/')
            (void)umount2(entry.mnt_dir, MNT_DETACH);
    (void)endmntent(f);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    if (at->level == 0)
        return 0;
    return remove(path);
}

bool wipe_dir(const char *dir, struct err *err)
{
    int pid = old_pid(dir);
    if (pid > 0 && is_alive(pid))
        return err_set(err, ERR_CONFLICT, 0, "a sandbox (process %d) runs in '%s'", pid, dir);
    SCOPED_FREE char *marker = xasprintf("%s/ca.pem", dir);
    if (pid == 0 && access(marker, F_OK) != 0)
        return true; /* nothing of ours: the check for an empty directory decides */
    detach_mounts(dir);
    if (nftw(dir, remove_one, WIPE_FDS, FTW_DEPTH | FTW_PHYS) != 0)
        return err_set_errno(err, errno, "clean '%s'", dir);
    return true;
}

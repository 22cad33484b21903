/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/temp_dir.h"

/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void make_in(struct temp_dir *ret, const char *base)
{
    (void)snprintf(ret->path, sizeof ret->path, "%s/oxbow-test.XXXXXX", base);
    if (!mkdtemp(ret->path))
        fail_msg("a folder in %s: %s", base, strerror(errno));
}

static const char *base(void)
{
    const char *tmp = getenv("TMPDIR");
    return tmp && tmp[0] ? tmp : P_tmpdir;
}

void temp_dir_make(struct temp_dir *ret)
{
    make_in(ret, base());
}

void temp_dir_make_in_memory(struct temp_dir *ret)
{
    make_in(ret, access("/dev/shm", W_OK) == 0 ? "/dev/shm" : base());
}

/* Entered before it is left: what a test made unreadable is made readable again. */
static int open_up(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)ftw;
    if (kind == FTW_D || kind == FTW_DNR)
        (void)chmod(path, 0700);
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    (void)remove(path);
    return 0;
}

void temp_dir_remove(struct temp_dir *dir)
{
    if (!dir->path[0])
        return;
    (void)nftw(dir->path, open_up, 16, FTW_PHYS);
    (void)nftw(dir->path, remove_one, 16, FTW_PHYS | FTW_DEPTH);
    dir->path[0] = '\0';
}

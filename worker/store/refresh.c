/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A repository whose file system went away and came back, mounted anew. The descriptor of the old
 * mount stays stale for ever; the new one takes its place, under the same number, so that all
 * threads go on with it.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/log.h"
#include "worker/store/repo.h"

static bool is_same_directory(int a, int b)
{
    struct stat first, second;
    return fstat(a, &first) == 0 && fstat(b, &second) == 0 && first.st_dev == second.st_dev &&
           first.st_ino == second.st_ino;
}

/* Never write into the empty directory below a mount that is not there, nor into another
 * repository. */
static bool check_uuid(const struct store *store, int dirfd, struct err *err)
{
    SCOPED_BUF struct buf text;
    struct repo_record record = {0};
    struct err why = ERR_INIT;
    if (!object_read(dirfd, "repo.json", REPO_JSON_MAX, &text, &why))
        return err_set(err, ERR_UNAVAILABLE, why.sys, "repository '%s': %s (is it mounted?)",
                       store->path, why.message);
    if (!repo_record_decode(buf_str(&text), text.len, &record, err))
        return err_wrap(err, "repository '%s'", store->path);
    if (strcmp(record.uuid, store->repo.uuid) != 0)
        return err_set(err, ERR_UNAVAILABLE, 0,
                       "'%s' is another repository now, %s instead of %s: start the worker anew if "
                       "that is meant",
                       store->path, record.uuid, store->repo.uuid);
    return true;
}

bool store_refresh(struct store *store, struct err *err)
{
    SCOPED_FD int fd = open(store->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_set(err, ERR_UNAVAILABLE, errno, "open repository '%s': %s (is it mounted?)",
                       store->path, strerror(errno));
    if (is_same_directory(fd, store->dirfd))
        return true;
    if (!check_uuid(store, fd, err))
        return false;
    if (dup3(fd, store->dirfd, O_CLOEXEC) < 0)
        return err_set_errno(err, errno, "open repository '%s' again", store->path);
    cache_clear(store->packs);
    log_info("repository_opened_again", LOG_STR("path", store->path));
    return true;
}

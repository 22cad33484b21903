/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/scratch.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "proto/base/file.h"
#include "proto/base/log.h"

enum { STORES_MAX = 4 };
static char *dirs[STORES_MAX];
static struct store *stores[STORES_MAX];
static unsigned n_stores;

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void clean_up(void)
{
    for (unsigned i = 0; i < n_stores; i++) {
        store_free(stores[i]);
        (void)nftw(dirs[i], remove_entry, 16, FTW_DEPTH | FTW_PHYS);
        free(dirs[i]);
    }
}

struct store *scratch_store(char **ret_key_file)
{
    struct err err = ERR_INIT;
    struct store_opts opts = {0};
    log_set_level(LOG_LEVEL_ERROR);
    char *dir =
        xasprintf("%s/oxbow-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (n_stores == STORES_MAX || !mkdtemp(dir))
        abort();
    SCOPED_FREE char *path = xasprintf("%s/r", dir);
    if (ret_key_file) {
        *ret_key_file = xasprintf("%s/key", dir);
        opts = (struct store_opts){.key_file = *ret_key_file, .encrypt = true};
        if (!store_key_file_make(*ret_key_file, &err))
            abort();
    }
    struct store *store = store_init(path, &opts, &err);
    if (!store)
        abort();
    if (n_stores == 0)
        (void)atexit(clean_up);
    dirs[n_stores] = dir;
    stores[n_stores++] = store;
    return store;
}

void scratch_put(struct store *store, const char *path, const void *data, size_t len)
{
    struct err err = ERR_INIT;
    (void)unlinkat(store->dirfd, path, 0); /* files of the repository are read-only */
    int fd = openat(store->dirfd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || !file_write_full(fd, data, len, &err))
        abort();
    (void)close(fd);
}

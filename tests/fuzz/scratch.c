/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/scratch.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "proto/base/file.h"
#include "proto/base/log.h"
#include "tests/unit/temp_dir.h"

enum { STORES_MAX = 4 };
static struct temp_dir dirs[STORES_MAX];
static struct store *stores[STORES_MAX];
static unsigned n_stores;

static void clean_up(void)
{
    for (unsigned i = 0; i < n_stores; i++) {
        store_free(stores[i]);
        temp_dir_remove(&dirs[i]);
    }
}

struct store *scratch_store(char **ret_key_file)
{
    struct err err = ERR_INIT;
    struct store_opts opts = {0};
    log_set_level(LOG_LEVEL_ERROR);
    if (n_stores == STORES_MAX)
        abort();
    temp_dir_make_in_memory(&dirs[n_stores]);
    const char *dir = dirs[n_stores].path;
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

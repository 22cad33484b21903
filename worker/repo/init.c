/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "worker/repo/verb.h"

enum { OPT_ENCRYPT = REPO_OPT };

static const struct argp_option options[] = {
    {"encrypt", OPT_ENCRYPT, NULL, 0,
     "Encrypt it; --key-file (made if there is none) or --passphrase-file, or both", 0},
    {0},
};

static error_t option(int key, char *arg, struct argp_state *state, struct repo_call *call)
{
    (void)arg;
    (void)state;
    if (key != OPT_ENCRYPT)
        return ARGP_ERR_UNKNOWN;
    call->store_opts.encrypt = true;
    return 0;
}

bool repo_key_file_ensure(const char *path, struct err *err)
{
    if (access(path, F_OK) == 0 || errno != ENOENT)
        return true;
    if (!store_key_file_make(path, err))
        return false;
    printf("key file %s made\n", path);
    return true;
}

static bool run(struct repo_call *call, struct err *err)
{
    const struct store_opts *o = &call->store_opts;
    if (o->encrypt && o->key_file && !repo_key_file_ensure(o->key_file, err))
        return false;
    call->store = store_init(call->path, o, err);
    if (!call->store)
        return false;
    printf("repository %s made in %s%s\n", store_uuid(call->store), call->path,
           o->encrypt ? ", encrypted" : "");
    if (o->encrypt)
        puts("Keep a copy of its key where the repository is not: without a key, the backups are "
             "lost.");
    return true;
}

const struct repo_verb repo_init = {
    .name = "init",
    .summary = "make a new repository in an empty directory, or in one that does not exist",
    .access = REPO_LEAVES,
    .options = options,
    .option = option,
    .run = run,
};

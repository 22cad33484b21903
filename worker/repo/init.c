/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "worker/repo/verb.h"

static bool run(struct repo_call *call, struct err *err)
{
    (void)err;
    printf("repository %s made in %s\n", store_uuid(call->store), call->path);
    return true;
}

const struct repo_verb repo_init = {
    .name = "init",
    .summary = "make a new repository in an empty directory, or in one that does not exist",
    .access = REPO_MAKES,
    .run = run,
};

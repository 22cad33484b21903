/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/repo/guest.h"

static const struct argp_option options[] = {GUEST_OPTIONS, {0}};

static error_t option(int key, char *arg, struct argp_state *state, struct repo_call *call)
{
    (void)state;
    return guest_option(key, arg, call->opts);
}

static bool run(struct repo_call *call, struct err *err)
{
    struct guest_job job = {
        .guestfs_program = "guestfish",
        .guestfs = "exec guestfish --ro \"$@\" ll \"$OXBOW_PATH\"",
        .tool = &guest_debugfs,
        .line = "debugfs -R \"ls -l \\\"$OXBOW_PATH\\\"\" \"$device\"",
        .path = call->count > 1 ? call->words[1] : "/",
    };
    return guest_run(call, call->opts, &job, err);
}

const struct repo_verb repo_ls = {
    .name = "ls",
    .summary = "list a directory in a disk of a restore point",
    .words = "POINT [GUEST-PATH]",
    .words_min = 1,
    .words_max = 2,
    .options = options,
    .opts_bytes = sizeof(struct guest_opts),
    .option = option,
    .run = run,
};

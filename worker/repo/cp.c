/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "worker/repo/guest.h"

static const struct argp_option options[] = {GUEST_OPTIONS, {0}};

static error_t option(int key, char *arg, struct argp_state *state, struct repo_call *call)
{
    (void)state;
    return guest_option(key, arg, call->opts);
}

/* Into a directory that is there: a file or a whole directory, under its own name. To a new name:
 * one file. Nothing that is there is replaced. */
static bool run(struct repo_call *call, struct err *err)
{
    struct stat st;
    const char *dest = call->words[2];
    bool is_there = lstat(dest, &st) == 0;
    if (is_there && !S_ISDIR(st.st_mode))
        return err_set(err, ERR_EXISTS, 0, "'%s' is there already", dest);
    SCOPED_FREE char *path = xstrdup(call->words[1]);
    for (size_t len = strlen(path); len > 1 && path[len - 1] == '/'; len--)
        path[len - 1] = '\0';
    const char *name = strrchr(path, '/');
    SCOPED_FREE char *inside = xasprintf("%s/%s", dest, name && name[1] ? name + 1 : "");
    if (is_there && name && name[1] && lstat(inside, &st) == 0)
        return err_set(err, ERR_EXISTS, 0, "'%s' is there already", inside);
    if (strchr(dest, '"'))
        return err_set(err, ERR_BAD_ARGUMENT, 0, "the name of the copy has a '\"'");
    struct guest_job into_directory = {
        .guestfs_program = "guestfish",
        .guestfs = "exec guestfish --ro \"$@\" copy-out \"$OXBOW_PATH\" \"$OXBOW_DEST\"",
        .tool = &guest_debugfs,
        .line = "debugfs -R \"rdump \\\"$OXBOW_PATH\\\" \\\"$OXBOW_DEST\\\"\" \"$device\"",
        .path = path,
        .dest = dest,
    };
    struct guest_job to_name = {
        .guestfs_program = "guestfish",
        .guestfs = "exec guestfish --ro \"$@\" download \"$OXBOW_PATH\" \"$OXBOW_DEST\"",
        .tool = &guest_debugfs,
        .line = "debugfs -R \"dump \\\"$OXBOW_PATH\\\" \\\"$OXBOW_DEST\\\"\" \"$device\"",
        .path = path,
        .dest = dest,
    };
    if (!guest_run(call, call->opts, is_there ? &into_directory : &to_name, err))
        return false;
    return lstat(is_there ? inside : dest, &st) == 0 ||
           err_set_errno(err, errno, "nothing was copied: '%s'", is_there ? inside : dest);
}

const struct repo_verb repo_cp = {
    .name = "cp",
    .summary = "copy files out of a disk of a restore point",
    .words = "POINT GUEST-PATH DEST",
    .words_min = 3,
    .words_max = 3,
    .options = options,
    .opts_bytes = sizeof(struct guest_opts),
    .option = option,
    .run = run,
};

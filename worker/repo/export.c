/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>

#include "worker/copy/copy.h"
#include "worker/repo/verb.h"

enum { OPT_DISK = REPO_OPT, OPT_BLOB, OPT_OUTPUT };

struct export_opts {
    const char *disk, *blob, *output;
};

static const struct argp_option options[] = {
    {"disk", OPT_DISK, "ID", 0, "This disk", 0},
    {"blob", OPT_BLOB, "NAME", 0, "This file of the point (vm.ovf, vm.json), to standard output",
     0},
    {"output", OPT_OUTPUT, "FILE", 0, "The new raw image; it must not exist", 0},
    {0},
};

static error_t option(int key, char *arg, struct argp_state *state, struct repo_call *call)
{
    (void)state;
    struct export_opts *o = call->opts;
    switch (key) {
    case OPT_DISK:
        o->disk = arg;
        return 0;
    case OPT_BLOB:
        o->blob = arg;
        return 0;
    case OPT_OUTPUT:
        o->output = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static bool export_blob(struct store_point *point, const char *name, struct err *err)
{
    SCOPED_BUF struct buf bytes;
    if (!store_point_blob(point, name, &bytes, err))
        return false;
    return fwrite(bytes.data, 1, bytes.len, stdout) == bytes.len && fflush(stdout) == 0
               ? true
               : err_set(err, ERR_IO, 0, "write to standard output");
}

static bool run(struct repo_call *call, struct err *err)
{
    const struct export_opts *o = call->opts;
    SCOPED(store_point)
    struct store_point *point = store_point_open(call->store, call->words[0], err);
    if (!point)
        return false;
    if (o->blob)
        return export_blob(point, o->blob, err);
    if (!o->disk || !o->output)
        return err_set(err, ERR_BAD_ARGUMENT, 0,
                       "export needs --disk ID and --output FILE, or --blob NAME");
    SCOPED(store_reader) struct store_reader *from = store_disk_open(point, o->disk, err);
    if (!from)
        return false;
    struct target_file_opts opts = {
        .create = true, .size_bytes = store_reader_size(from), .is_zero = true};
    SCOPED(target) struct target *to = target_file_open(o->output, &opts, err);
    struct copy_stats stats = {0};
    if (!to || !copy_restore(from, to, NULL, &stats, err))
        return false;
    printf("%s: %" PRIu64 " bytes, %" PRIu64 " of data\n", o->output, stats.size_bytes,
           stats.data_bytes);
    return true;
}

const struct repo_verb repo_export = {
    .name = "export",
    .summary = "write a disk, or a file, of a restore point",
    .words = "POINT",
    .words_min = 1,
    .words_max = 1,
    .options = options,
    .opts_bytes = sizeof(struct export_opts),
    .option = option,
    .run = run,
};

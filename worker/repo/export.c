/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "worker/copy/copy.h"
#include "worker/repo/number.h"
#include "worker/repo/stop.h"
#include "worker/repo/verb.h"

enum { OPT_DISK = REPO_OPT, OPT_BLOB, OPT_OUTPUT, OPT_FORMAT, OPT_OVERWRITE, OPT_THREADS };

struct export_opts {
    const char *disk, *blob, *output, *format;
    bool overwrite;
    unsigned threads;
};

static const struct argp_option options[] = {
    {"disk", OPT_DISK, "ID", 0, "This disk; may be left out where the point has one", 0},
    {"blob", OPT_BLOB, "NAME", 0, "This file of the point (vm.ovf, vm.json), to standard output",
     0},
    {"output", OPT_OUTPUT, "FILE", 0,
     "The new image, which must not exist; \"-\" is standard output (raw)", 0},
    {"format", OPT_FORMAT, "raw|qcow2", 0, "Of the new image; default raw", 0},
    {"overwrite", OPT_OVERWRITE, NULL, 0,
     "Write onto a raw image or a block device that exists and is large enough", 0},
    {"threads", OPT_THREADS, "N", 0, "Default: one more than the processors, at most 8", 0},
    {0},
};

static error_t option(int key, char *arg, struct argp_state *state, struct repo_call *call)
{
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
    case OPT_FORMAT:
        o->format = arg;
        return 0;
    case OPT_OVERWRITE:
        o->overwrite = true;
        return 0;
    case OPT_THREADS:
        o->threads = repo_threads(state, arg);
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

static bool check(const struct export_opts *o, struct err *err)
{
    bool is_qcow2 = o->format && strcmp(o->format, "qcow2") == 0;
    if (!o->blob && !o->output)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "--output FILE is missing, or --blob NAME");
    if (o->format && !is_qcow2 && strcmp(o->format, "raw") != 0)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "--format: '%s' is neither raw nor qcow2",
                       o->format);
    if (is_qcow2 && (o->overwrite || strcmp(o->output, "-") == 0))
        return err_set(err, ERR_BAD_ARGUMENT, 0, "a qcow2 image can only be a new file");
    return true;
}

static struct target *open_target(const struct export_opts *o, uint64_t size, struct err *err)
{
    if (strcmp(o->output, "-") == 0)
        return target_stream_open(STDOUT_FILENO, size);
    if (o->format && strcmp(o->format, "qcow2") == 0)
        return target_qcow2_create(o->output, size, err);
    struct target_file_opts opts = {
        .create = !o->overwrite, .size_bytes = size, .is_zero = !o->overwrite};
    return target_file_open(o->output, &opts, err);
}

static bool export_disk(struct store_point *point, const struct export_opts *o, struct err *err)
{
    const char *disk = o->disk ? o->disk : repo_only_disk(point, err);
    SCOPED(store_reader)
    struct store_reader *from = disk ? store_disk_open(point, disk, err) : NULL;
    if (!from)
        return false;
    struct target *to = open_target(o, store_reader_size(from), err);
    if (!to)
        return false;
    struct copy_opts copy = {.threads = o->threads, .cancelled = repo_stopped};
    struct copy_stats stats = {0};
    bool is_file = !o->overwrite && strcmp(o->output, "-") != 0;
    bool ok = copy_restore(from, to, &copy, &stats, err);
    target_close(to);
    if (!ok && is_file)
        (void)unlink(o->output); /* ours, and only a part */
    if (ok)
        fprintf(is_file ? stdout : stderr, "%s: %" PRIu64 " bytes, %" PRIu64 " of data\n",
                o->output, stats.size_bytes, stats.data_bytes);
    return ok;
}

static bool run(struct repo_call *call, struct err *err)
{
    const struct export_opts *o = call->opts;
    if (!check(o, err))
        return false;
    SCOPED(store_point)
    struct store_point *point = store_point_open(call->store, call->words[0], err);
    if (!point)
        return false;
    if (o->blob)
        return export_blob(point, o->blob, err);
    repo_catch_signals();
    return export_disk(point, o, err);
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

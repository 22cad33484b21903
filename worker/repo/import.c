/* SPDX-License-Identifier: Apache-2.0 */
/* Disk images of any origin as a restore point: read, hashed, deduplicated and stored as a backup
 * stores the disks of a VM. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "proto/base/clock.h"
#include "proto/base/id.h"
#include "worker/copy/copy.h"
#include "worker/repo/changed.h"
#include "worker/repo/imported.h"
#include "worker/repo/number.h"
#include "worker/repo/stop.h"
#include "worker/repo/verb.h"

enum {
    OPT_VM = REPO_OPT,
    OPT_VM_ID,
    OPT_POINT,
    OPT_PARENT,
    OPT_CHANGED,
    OPT_FORMAT,
    OPT_BACKING,
    OPT_MEMORY,
    OPT_CPUS,
    OPT_CLUSTER,
    OPT_DOMAIN,
    OPT_VM_JSON,
    OPT_THREADS,
    OPT_JSON
};
enum { MEMORY_MAX_MIB = 64 << 20, CPUS_MAX = 1024 };

struct import_opts {
    struct imported_vm vm;
    const char *vm_id, *point, *parent, *format, *vm_json;
    const char *changed[REPO_WORDS_MAX]; /* of the disks, in their order */
    size_t n_changed;
    unsigned threads;
    bool backing, json;
};

static const struct argp_option options[] = {
    {"vm", OPT_VM, "NAME", 0, "The VM's name (required)", 0},
    {"vm-id", OPT_VM_ID, "UUID", 0,
     "The VM's id; default: that of the newest point of a VM of this name, else a new one", 0},
    {"point", OPT_POINT, "ID", 0, "The id of the new point; default: a new UUID and \".1\"", 0},
    {"parent", OPT_PARENT, "POINT", 0,
     "The point to compare with; default: the newest one of the VM with as many disks", 0},
    {"changed", OPT_CHANGED, "FILE", 0,
     "A map of what may differ from --parent, as nbdinfo(1) prints a dirty bitmap in JSON: all "
     "else "
     "is taken from there without being read. Once for each disk",
     0},
    {"format", OPT_FORMAT, "raw|qcow2", 0,
     "Of the files; default: qcow2 where the name ends so, else raw", 0},
    {"backing", OPT_BACKING, NULL, 0,
     "Read an overlay with the files that it refers to: only of images that you trust", 0},
    {"memory", OPT_MEMORY, "MIB", 0, "Of the VM, for its restore; default 1024", 0},
    {"cpus", OPT_CPUS, "N", 0, "Of the VM, for its restore; default 1", 0},
    {"cluster", OPT_CLUSTER, "NAME", 0, "Where to restore it, unless said then", 0},
    {"storage-domain", OPT_DOMAIN, "NAME", 0, "Likewise for its disks", 0},
    {"vm-json", OPT_VM_JSON, "FILE", 0, "The VM's description, in place of the last options", 0},
    {"threads", OPT_THREADS, "N", 0, "Default: one more than the processors, at most 8", 0},
    {"json", OPT_JSON, NULL, 0, "Print what was stored as JSON", 0},
    {0},
};

static error_t number(struct argp_state *state, const char *arg, uint64_t max, uint64_t *ret)
{
    if (!repo_number(arg, 1, max, ret))
        argp_error(state, "'%s' is not a number from 1 to %" PRIu64, arg, max);
    return 0;
}

static error_t option(int key, char *arg, struct argp_state *state, struct repo_call *call)
{
    struct import_opts *o = call->opts;
    switch (key) {
    case OPT_VM:
        o->vm.name = arg;
        return 0;
    case OPT_VM_ID:
        o->vm_id = arg;
        return 0;
    case OPT_POINT:
        o->point = arg;
        return 0;
    case OPT_PARENT:
        o->parent = arg;
        return 0;
    case OPT_CHANGED:
        if (o->n_changed == REPO_WORDS_MAX)
            argp_error(state, "too many --changed");
        o->changed[o->n_changed++] = arg;
        return 0;
    case OPT_FORMAT:
        o->format = arg;
        return 0;
    case OPT_BACKING:
        o->backing = true;
        return 0;
    case OPT_MEMORY:
        return number(state, arg, MEMORY_MAX_MIB, &o->vm.memory_mib);
    case OPT_CPUS:
        return number(state, arg, CPUS_MAX, &o->vm.cpus);
    case OPT_CLUSTER:
        o->vm.cluster = arg;
        return 0;
    case OPT_DOMAIN:
        o->vm.storage_domain = arg;
        return 0;
    case OPT_VM_JSON:
        o->vm_json = arg;
        return 0;
    case OPT_THREADS:
        o->threads = repo_threads(state, arg);
        return 0;
    case OPT_JSON:
        o->json = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ---- what to import, and beside what */

static bool check(const struct repo_call *call, struct err *err)
{
    const struct import_opts *o = call->opts;
    if (!o->vm.name || !*o->vm.name)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "--vm NAME is missing");
    if (o->vm_id && !id_is_valid(o->vm_id))
        return err_set(err, ERR_BAD_ARGUMENT, 0, "--vm-id: '%s' is no UUID", o->vm_id);
    if (o->format && strcmp(o->format, "raw") != 0 && strcmp(o->format, "qcow2") != 0)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "--format: '%s' is neither raw nor qcow2",
                       o->format);
    if (o->n_changed && (!o->parent || o->n_changed != call->count))
        return err_set(err, ERR_BAD_ARGUMENT, 0,
                       "--changed is given once for each file, and with the --parent that it "
                       "compares with");
    return true;
}

/* The newest usable point of the VM: by id where one is given, else by name. NULL without an error
 * when there is none. */
static struct store_point *newest_point(struct store *store, const struct import_opts *o,
                                        struct err *err)
{
    struct store_point_filter by_id = {.vm_id = o->vm_id}, by_name = {.vm_name = o->vm.name};
    struct store_point_list list = {0};
    if (!store_points_list(store, o->vm_id ? &by_id : &by_name, &list, err))
        return NULL;
    struct store_point *point = NULL;
    for (size_t i = list.count; i-- > 0 && !point;) {
        struct err none = ERR_INIT; /* damaged since: then an older one */
        if (!list.items[i].damage)
            point = store_point_open(store, list.items[i].id, &none);
    }
    store_point_list_done(&list);
    return point;
}

static bool open_parent(const struct repo_call *call, struct store_point **ret_parent,
                        struct err *err)
{
    const struct import_opts *o = call->opts;
    *ret_parent = o->parent ? store_point_open(call->store, o->parent, err)
                            : newest_point(call->store, o, err);
    if (err_is_set(err))
        return false;
    if (o->parent && store_point_disk_count(*ret_parent) != call->count)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "point %s has %zu disks, not %zu",
                       store_point_info(*ret_parent)->id, store_point_disk_count(*ret_parent),
                       call->count);
    return true;
}

static bool is_qcow2(const struct import_opts *o, const char *file)
{
    if (o->format)
        return strcmp(o->format, "qcow2") == 0;
    size_t len = strlen(file);
    return len > 6 && strcmp(file + len - 6, ".qcow2") == 0;
}

/* The files are taken for new versions of the parent's disks where there are as many, and these
 * have ids that a VM's disks can have. */
static bool has_same_disks(const struct store_point *parent, size_t n)
{
    bool same = parent && store_point_disk_count(parent) == n;
    for (size_t i = 0; same && i < n; i++)
        same = id_is_valid(store_point_disk(parent, i)->id);
    return same;
}

/* ---- importing */

struct import {
    const struct repo_call *call;
    struct store_point *parent; /* NULL = none */
    bool same_disks;            /* the parent has as many: they are taken for the same ones */
    struct store_session *session;
    struct imported_disk *disks;
};

static bool import_disk(struct import *im, size_t i, struct err *err)
{
    const struct import_opts *o = im->call->opts;
    const char *file = im->call->words[i];
    struct imported_disk *d = &im->disks[i];
    struct source_file_opts raw = {.keep_page_cache = false};
    SCOPED(source)
    struct source *from = is_qcow2(o, file) ? source_qcow2_open(file, o->backing, err)
                                            : source_file_open(file, &raw, err);
    if (!from)
        return false;
    d->size_bytes = from->size_bytes;
    SCOPED(store_reader)
    struct store_reader *parent = im->same_disks ? store_disk_open(im->parent, d->id, err) : NULL;
    if (im->same_disks && !parent)
        return false;
    SCOPED_EXTENTS struct extents changed = EXTENTS_INIT;
    if (o->n_changed &&
        !changed_load(o->changed[i], from->size_bytes, store_reader_size(parent), &changed, err))
        return false;
    struct store_disk_opts opts = {.id = d->id, .size_bytes = d->size_bytes, .parent = parent};
    struct store_disk *disk = store_disk_begin(im->session, &opts, err);
    struct copy_opts copy = {.threads = o->threads,
                             .cancelled = repo_stopped,
                             .changed = o->n_changed ? &changed : NULL};
    struct copy_stats stats = {0};
    if (!disk || !copy_backup(from, im->session, disk, &copy, &stats, err) ||
        !store_disk_finish(disk, NULL, err))
        return false;
    d->actual_bytes = stats.data_bytes + stats.kept_bytes;
    return true;
}

static bool import_all(struct import *im, struct err *err)
{
    const struct import_opts *o = im->call->opts;
    size_t n = im->call->count;
    for (size_t i = 0; i < n; i++) {
        if (im->same_disks)
            (void)snprintf(im->disks[i].id, sizeof im->disks[i].id, "%s",
                           store_point_disk(im->parent, i)->id);
        else
            id_new(im->disks[i].id);
        if (!import_disk(im, i, err))
            return err_wrap(err, "%s", im->call->words[i]);
    }
    json_auto_t *vm = imported_vm_json(&o->vm, o->vm_json, err);
    SCOPED_FREE char *text = vm ? json_dumps(vm, JSON_INDENT(1) | JSON_SORT_KEYS) : NULL;
    json_auto_t *meta = text ? imported_meta(&o->vm, im->disks, n) : NULL;
    if (!meta && !err_is_set(err))
        return err_set(err, ERR_BAD_ARGUMENT, 0, "a name is not UTF-8");
    return meta && store_session_put_blob(im->session, IMPORTED_BLOB, text, strlen(text), err) &&
           store_session_commit(im->session, meta, err);
}

static bool report(const struct import *im, const char *point, int64_t ms, struct err *err)
{
    const struct import_opts *o = im->call->opts;
    struct store_stats s = {0};
    store_session_stats(im->session, &s);
    if (o->json)
        return repo_say_json(
            json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "point", point, "disks",
                      (json_int_t)im->call->count, "read_bytes", (json_int_t)s.read_bytes,
                      "zero_bytes", (json_int_t)s.zero_bytes, "unchanged_bytes",
                      (json_int_t)s.unchanged_bytes, "dedup_bytes", (json_int_t)s.dedup_bytes,
                      "stored_raw_bytes", (json_int_t)s.stored_raw_bytes, "stored_bytes",
                      (json_int_t)s.stored_bytes, "packs", (json_int_t)s.packs, "ms",
                      (json_int_t)ms),
            err);
    printf("point %s: %zu disks, %" PRIu64 " bytes of data, %" PRIu64 " unchanged, %" PRIu64
           " known, %" PRIu64 " stored in %" PRIu64 "\n",
           point, im->call->count, s.read_bytes - s.zero_bytes, s.unchanged_bytes, s.dedup_bytes,
           s.stored_raw_bytes, s.stored_bytes);
    return true;
}

static bool run(struct repo_call *call, struct err *err)
{
    struct import_opts *o = call->opts;
    SCOPED(store_point) struct store_point *parent = NULL;
    if (!check(call, err) || !open_parent(call, &parent, err))
        return false;
    repo_catch_signals();
    char new_id[ID_BYTES];
    id_new(new_id);
    const char *vm_id = o->vm_id ? o->vm_id : parent ? store_point_info(parent)->vm_id : new_id;
    o->vm.id = vm_id;
    char task[ID_BYTES];
    id_new(task);
    SCOPED_FREE char *session = o->point ? xstrdup(o->point) : xasprintf("%s.1", task);
    SCOPED_FREE struct imported_disk *disks = xcalloc(call->count, sizeof *disks);
    struct store_session_opts opts = {
        .id = session, .vm_id = vm_id, .vm_name = o->vm.name, .worker = "import"};
    int64_t started_ms = clock_mono_ms(clock_system());
    SCOPED(store_session)
    struct store_session *writing = store_session_begin(call->store, &opts, err);
    struct import im = {.call = call,
                        .parent = parent,
                        .same_disks = has_same_disks(parent, call->count),
                        .session = writing,
                        .disks = disks};
    return writing && import_all(&im, err) &&
           report(&im, session, clock_mono_ms(clock_system()) - started_ms, err);
}

const struct repo_verb repo_import = {
    .name = "import",
    .summary = "make a restore point of raw or qcow2 images",
    .words = "FILE...",
    .words_min = 1,
    .words_max = REPO_WORDS_MAX,
    .options = options,
    .opts_bytes = sizeof(struct import_opts),
    .option = option,
    .run = run,
};

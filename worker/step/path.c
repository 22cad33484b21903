/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/step/path.h"

#include <string.h>

#include "proto/base/alloc.h"

#define MIB (UINT64_C(1) << 20)

static const char why_asked[] = "this path was asked for";
static const char why_usual[] = "the usual path where it is possible";
static const char why_only[] = "the only path that is possible";
static const char why_faster[] = "clearly faster, by what was measured in this zone";
static const char not_asked[] = "possible, but another path was asked for";
static const char not_usual[] = "possible, but not known to be clearly faster";
static const char not_slower[] = "possible, but clearly slower, by what was measured in this zone";

/* What makes the path impossible for this disk; NULL = nothing. */
static const char *attach_obstacle(const struct path_facts *f)
{
    bool may_destroy = f->has_checkpoints || f->fit == OVIRT_DISK_CHECKPOINTS;
    return may_destroy ? ovirt_disk_class_why(OVIRT_DISK_CHECKPOINTS) : NULL;
}

static const char *imageio_obstacle(const struct path_facts *f)
{
    (void)f;
    return NULL;
}

static const char *cbt_obstacle(const struct path_facts *f)
{
    static const char unknown[] = "the engine was not asked whether it can";
    return f->can_cbt ? NULL : f->cbt_obstacle ? f->cbt_obstacle : unknown;
}

/* What cbt has not: a snapshot on the VM, a merge, and what becomes of both. */
static const char *hybrid_obstacle(const struct path_facts *f)
{
    return f->asked == WIRE_PATH_HYBRID
               ? cbt_obstacle(f)
               : "taken only when it is asked for: the engine takes and merges a snapshot for it";
}

const char *path_cbt_obstacle(enum wire_path asked, const struct engine_version *version,
                              const char *vm_status, const struct ovirt_disks *disks)
{
    size_t fit = 0, incremental = 0;
    for (size_t i = 0; i < disks->count; i++) {
        const struct ovirt_disk *d = &disks->v[i];
        bool is_fit = d->fit == OVIRT_DISK_FIT || d->fit == OVIRT_DISK_CHECKPOINTS;
        fit += is_fit;
        incremental += is_fit && d->incremental;
    }
    if (engine_version_cmp(version, 4, 4, 7) < 0)
        return "the engine is older than 4.4.7, which keeps backups and their states";
    if (asked == WIRE_PATH_HYBRID && engine_version_cmp(version, 4, 5, 0) < 0)
        return "the engine is older than 4.5, which makes hybrid backups";
    if (!vm_status || (strcmp(vm_status, "up") != 0 && strcmp(vm_status, "down") != 0))
        return "the engine makes backups of VMs that are up or down only";
    if (incremental == 0)
        return "incremental backup is off for its disks";
    if (asked == WIRE_PATH_AUTO && incremental < fit)
        return "incremental backup is off for some of its disks";
    return NULL;
}

static uint64_t data_bytes(const struct path_facts *f)
{
    return f->used_bytes > 0 && f->used_bytes < f->size_bytes ? f->used_bytes : f->size_bytes;
}

static uint64_t attach_bytes(const struct path_facts *f, bool *ret_mapped)
{
    *ret_mapped = f->size_bytes >= f->map_min_bytes;
    return *ret_mapped ? data_bytes(f) : f->size_bytes;
}

static uint64_t imageio_bytes(const struct path_facts *f, bool *ret_mapped)
{
    *ret_mapped = false; /* it brings its own map */
    return data_bytes(f);
}

/* Of a first backup: how much has changed since another, only the backup itself will tell. */
static uint64_t cbt_bytes(const struct path_facts *f, bool *ret_mapped)
{
    *ret_mapped = false;
    return data_bytes(f);
}

/* One row a path, the preferred one first. */
static const struct row {
    enum backup_path path;
    const char *name;
    enum wire_path asked_by;
    uint64_t default_rate; /* bytes a second of one disk */
    const char *(*obstacle)(const struct path_facts *facts);
    uint64_t (*bytes)(const struct path_facts *facts, bool *ret_mapped);
} rows[] = {
    {BACKUP_CBT, "cbt", WIRE_PATH_CBT, 100 * MIB, cbt_obstacle, cbt_bytes},
    {BACKUP_ATTACH, "attach", WIRE_PATH_ATTACH, 150 * MIB, attach_obstacle, attach_bytes},
    {BACKUP_IMAGEIO, "imageio", WIRE_PATH_IMAGEIO, 100 * MIB, imageio_obstacle, imageio_bytes},
    {BACKUP_HYBRID, "hybrid", WIRE_PATH_HYBRID, 100 * MIB, hybrid_obstacle, cbt_bytes},
};
_Static_assert(ARRAY_LEN(rows) == BACKUP_PATHS, "each path has its row");

static const struct row *row_of(enum backup_path path)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (rows[i].path == path)
            return &rows[i];
    }
    return NULL;
}

const char *backup_path_name(enum backup_path path)
{
    const struct row *row = row_of(path);
    return row ? row->name : "none";
}

enum backup_path backup_path_parse(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (strcmp(rows[i].name, name) == 0)
            return rows[i].path;
    }
    return BACKUP_PATHS;
}

void path_rates_of(const struct wire_rates *rates, struct path_rate ret[BACKUP_PATHS])
{
    for (size_t i = 0; i < BACKUP_PATHS; i++)
        ret[i] = (struct path_rate){0};
    for (size_t i = 0; i < rates->count; i++) {
        const struct wire_rate *r = &rates->v[i];
        enum backup_path path = backup_path_parse(r->path);
        if (path != BACKUP_PATHS)
            ret[path] = (struct path_rate){(uint64_t)r->bytes_per_s, r->samples};
    }
}

uint64_t path_default_rate(enum backup_path path)
{
    const struct row *row = row_of(path);
    return row ? row->default_rate : 0;
}

static bool is_measured(const struct path_facts *f, enum backup_path path)
{
    return f->rates[path].bytes_per_s > 0 && f->rates[path].samples >= PATH_SAMPLES_MIN;
}

static int64_t copy_ms(const struct path_facts *f, const struct row *row)
{
    bool mapped;
    uint64_t rate = f->rates[row->path].bytes_per_s;
    double seconds = (double)row->bytes(f, &mapped) / (double)(rate > 0 ? rate : row->default_rate);
    return (int64_t)(seconds * 1000 + 0.5);
}

static bool is_clearly_faster(const struct path_facts *f, const struct row *row,
                              const struct row *than)
{
    return is_measured(f, row->path) && is_measured(f, than->path) &&
           (double)copy_ms(f, row) <= (double)copy_ms(f, than) * PATH_FASTER_PERCENT / 100;
}

/* A disk's own state says whether any path is possible; checkpoints leave some. */
static const char *disk_obstacle(const struct path_facts *f)
{
    bool fine = f->fit == OVIRT_DISK_FIT || f->fit == OVIRT_DISK_CHECKPOINTS;
    return fine ? NULL : ovirt_disk_class_why(f->fit);
}

static const char *obstacle(const struct path_facts *f, const struct row *row)
{
    const char *why = disk_obstacle(f);
    return why ? why : row->obstacle(f);
}

/* The row to take, or NULL. */
static const struct row *choose(const struct path_facts *f, const char **ret_why)
{
    const struct row *best = NULL;
    size_t possible = 0;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (obstacle(f, &rows[i]) || (f->asked != WIRE_PATH_AUTO && f->asked != rows[i].asked_by))
            continue;
        possible++;
        if (best && (best->path == BACKUP_CBT || !is_clearly_faster(f, &rows[i], best)))
            continue;
        *ret_why = best ? why_faster : why_usual;
        best = &rows[i];
    }
    if (f->asked != WIRE_PATH_AUTO)
        *ret_why = why_asked;
    else if (possible == 1)
        *ret_why = why_only;
    return best;
}

static const char *why_not(const struct path_facts *f, const struct row *row,
                           const struct row *taken)
{
    const char *why = obstacle(f, row);
    if (why)
        return why;
    if (f->asked != WIRE_PATH_AUTO)
        return not_asked;
    return taken && is_clearly_faster(f, taken, row) ? not_slower : not_usual;
}

/* Why none: the disk itself, or what stands against the path that was asked for. */
static const char *why_none(const struct path_facts *f)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (f->asked == WIRE_PATH_AUTO || f->asked == rows[i].asked_by)
            return obstacle(f, &rows[i]);
    }
    return not_asked;
}

void path_choose(const struct path_facts *f, struct path_choice *ret)
{
    *ret = (struct path_choice){.path = BACKUP_PATHS, .fit = f->fit};
    if (f->fit == OVIRT_DISK_FIT && f->has_checkpoints)
        ret->fit = OVIRT_DISK_CHECKPOINTS;
    const struct row *taken = choose(f, &ret->why);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (&rows[i] != taken)
            ret->why_not[rows[i].path] = why_not(f, &rows[i], taken);
    }
    if (!taken) {
        ret->why = why_none(f);
        return;
    }
    ret->path = taken->path;
    ret->read_bytes = taken->bytes(f, &ret->is_mapped);
    ret->copy_ms = copy_ms(f, taken);
    ret->is_measured = f->rates[taken->path].bytes_per_s > 0;
}

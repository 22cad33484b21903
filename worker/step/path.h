/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which way a disk's bytes come out: the one place that decides, for the backup itself and for the
 * plan that only tells. A pure function of facts; its answer says why, and why not otherwise.
 *
 * A new path is one constant of enum backup_path and one row of the table in path.c, in the order
 * of preference: what makes it impossible, and how much it reads.
 *
 * cbt is a path of the whole VM, since its disks are read as of one instant: path_cbt_obstacle()
 * answers for all of them, and where it is possible "auto" takes it. It reads all of a disk once,
 * and then what has changed, which nobody knows before. hybrid is never taken by "auto".
 *
 * The rule of "auto" else: of the possible paths the first one of the table, unless another one is
 * clearly faster, which means: both have been measured in this zone (PATH_SAMPLES_MIN backups or
 * more), and the other one would take at most PATH_FASTER_PERCENT of the time.
 *
 * Threads: reentrant; the texts are static.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "proto/wire/message.h"
#include "worker/ovirt/disk.h"

/* How a disk's bytes come out. */
enum backup_path {
    BACKUP_ATTACH,  /* a device on the proxy VM */
    BACKUP_IMAGEIO, /* an image transfer */
    BACKUP_CBT,     /* an image transfer of the engine's own backup: only what changed */
    BACKUP_HYBRID,  /* the same, of a snapshot that the engine takes and merges itself */
    BACKUP_PATHS,   /* how many there are; as a choice: none */
};

enum { PATH_SAMPLES_MIN = 3, PATH_FASTER_PERCENT = 80 };

/* What was measured of a path in this zone: of one disk's copy, all that it takes included. */
struct path_rate {
    uint64_t bytes_per_s; /* 0 = nothing was measured: path_default_rate() is assumed */
    int64_t samples;
};

/* All that counts. */
struct path_facts {
    enum wire_path asked;
    /* Of the VM: */
    bool has_checkpoints;     /* of the engine's incremental backup */
    bool can_cbt;             /* path_cbt_obstacle() has found none */
    const char *cbt_obstacle; /* what it has found; static */
    /* Of the disk: */
    enum ovirt_disk_class fit; /* by itself */
    uint64_t size_bytes;
    uint64_t used_bytes;    /* that its volumes take on the storage; 0 = not known */
    uint64_t map_min_bytes; /* a device at least so large is read by its map */
    struct path_rate rates[BACKUP_PATHS];
};

struct path_choice {
    enum backup_path path;     /* BACKUP_PATHS: none, `why` says why, and `fit` what it is */
    enum ovirt_disk_class fit; /* with what the VM adds to it; of a disk without a path never
                                  OVIRT_DISK_FIT, unless the VM cannot take cbt, as was asked */
    const char *why;
    const char *why_not[BACKUP_PATHS]; /* NULL for the one that is taken */
    bool is_mapped;                    /* a device of which only the data is read */
    uint64_t read_bytes;               /* expected; 0 without a path */
    int64_t copy_ms;                   /* expected, of this disk alone */
    bool is_measured; /* copy_ms follows from what was measured, not from an assumption */
};

/* Why the VM with these disks cannot be backed up by the engine's backup API, in the way that is
 * asked for; NULL = it can. `asked` auto wants incremental backup on for every disk (nobody but the
 * VM's owner turns it on), cbt itself for one: others are read whole. Static string. */
const char *path_cbt_obstacle(enum wire_path asked, const struct engine_version *version,
                              const char *vm_status, const struct ovirt_disks *disks);

void path_choose(const struct path_facts *facts, struct path_choice *ret);

/* By a backup of the engine's own: all disks of the VM, or none. */
static inline bool path_is_engines(enum backup_path path)
{
    return path == BACKUP_CBT || path == BACKUP_HYBRID;
}

/* "attach", "imageio", "cbt", "hybrid"; "none". And back: BACKUP_PATHS for an unknown word. Static
 * string. */
const char *backup_path_name(enum backup_path path);
enum backup_path backup_path_parse(const char *name);
/* What an offer tells of the zone's rates; those of paths that are not known here are left out. */
void path_rates_of(const struct wire_rates *rates, struct path_rate ret[BACKUP_PATHS]);
/* Assumed where nothing was measured. */
uint64_t path_default_rate(enum backup_path path);

/* SPDX-License-Identifier: Apache-2.0 */
/* What block_vm.c and block_backup.c share: a running VM as seen from inside. */
#pragma once

#include <pthread.h>
#include <stdio.h>

#include "tests/sandbox/block/block.h"
#include "tests/sandbox/block/qsd.h"

enum { LAYERS_MAX = 256, DISKS_MAX = 64 };

struct layer {
    char node[QSD_NODE_BYTES];
    char *path;
    enum block_format format;
};

/* One disk's part in a backup: an overlay that keeps what the guest overwrites. */
struct vm_backup {
    unsigned number; /* of its nodes, job and export; 0 = there is none */
    char *scratch;   /* the overlay's file */
    bool has_dirty;  /* a bitmap of what changed goes with it */
};

struct vm_disk {
    char id[37];
    unsigned number;
    bool merging;
    bool read_only;
    int errnum;           /* of the fault filter; 0 = it is not there */
    struct layer *layers; /* the base first, the active one last */
    size_t layer_count;
    struct vm_backup backup;
};

struct block_vm {
    pthread_mutex_t lock; /* guards all below; a merge lets go of it while its job runs */
    pthread_cond_t idle;
    unsigned merges; /* running */
    bool stopping;
    struct qsd *qsd;
    unsigned next_number;
    struct vm_disk *disks[DISKS_MAX];
    size_t disk_count;
};

struct name {
    char text[QSD_NODE_BYTES];
};

static inline struct name name_of(char kind, unsigned number)
{
    struct name n;
    (void)snprintf(n.text, sizeof n.text, "%c%u", kind, number);
    return n;
}

#define EXPORT(disk) (name_of('x', (disk)->number).text)
#define FAULT(disk)  (name_of('e', (disk)->number).text)
#define ACTIVE(disk) (&(disk)->layers[(disk)->layer_count - 1])

/* The disk, if it may be changed now: not merged, not in a backup. With the lock. */
struct vm_disk *vm_get_disk(struct block_vm *vm, const char *id, struct err *err);

/* --- Bitmaps, in block_backup.c; with the lock ------------------------------------------------ */
/* The names of a node's persistent bitmaps, as an array; NULL on error. */
json_t *vm_bitmaps_of(struct block_vm *vm, const char *node, struct err *err);
/* Append to a transaction: the bitmaps that `below` has, empty, for the new overlay `node`. */
bool vm_bitmaps_carry(struct block_vm *vm, const char *below, const char *node, json_t *actions,
                      struct err *err);
/* Append to a transaction: a new one. */
void vm_bitmap_begin(const char *node, const char *name, json_t *actions);
/* Before `top` is gone, its bitmaps go down into `base`, which is writable. */
bool vm_bitmaps_merge(struct block_vm *vm, const char *top, const char *base, struct err *err);

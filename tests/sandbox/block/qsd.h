/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One qemu-storage-daemon: started in a directory of its own, spoken to by QMP, dead at the latest
 * when this process is. Starting in a directory that a killed predecessor used ends that one first.
 *
 * Files in the directory: pid, qsd.log, qmp.sock (for people; the daemon serves one client at a
 * time and that is us), nbd.sock. Threads: as struct qmp; start and stop belong to one thread.
 *
 * Any program of QEMU's that opens images by the same commands will do: a whole virtual machine is
 * one as well (qsd_start_program).
 */
#pragma once

#include "proto/base/alloc.h"
#include "tests/sandbox/block/block.h"
#include "tests/sandbox/block/proc.h"
#include "tests/sandbox/block/qmp.h"

enum { QSD_NODE_BYTES = 32 }; /* QEMU's limit for node names, NUL included */

struct qsd {
    char *run_dir;
    char *nbd_path;
    struct proc *proc;
    struct qmp *qmp;
};

struct qsd *qsd_start(const char *run_dir, struct err *err);
/* Another program in its place. `argv` ends with NULL; descriptor 3 is a listening socket to which
 * its monitor's client has connected already, and PIDFILE in run_dir is where it writes its pid. */
struct qsd *qsd_start_program(const char *run_dir, const char *const *argv, struct err *err);
#define QSD_PIDFILE "pid"
/* Ask it to quit (which flushes all images), wait, kill it if it does not; its files stay except
 * the sockets and the pid file. Also unblocks threads that wait in qsd->qmp. */
void qsd_quit(struct qsd *d);
/* After qsd_quit(), when no thread uses d->qmp any more. NULL is fine. */
void qsd_free(struct qsd *d);
bool qsd_is_running(struct qsd *d);

/* Serve NBD on nbd_path. */
bool qsd_listen_nbd(struct qsd *d, struct err *err);
/* Offer a node over NBD as `name`; `id` begins with a letter. */
bool qsd_export_nbd(struct qsd *d, const char *id, const char *node, const char *name,
                    bool writable, struct err *err);
/* Read-only, with a bitmap of another node beside it: "qemu:dirty-bitmap:BITMAP". */
bool qsd_export_nbd_dirty(struct qsd *d, const char *id, const char *node, const char *name,
                          const char *bitmap_node, const char *bitmap, struct err *err);
/* Drop an export of any kind, disconnecting its clients, and wait until it is gone. */
bool qsd_unexport(struct qsd *d, const char *id, struct err *err);
/* "nbd+unix:///NAME?socket=PATH"; the caller frees. */
char *qsd_nbd_uri(const struct qsd *d, const char *name);

/* Open one image of a chain as node `node` over the open node `backing` (NULL = none), its file as
 * `node`f. A layer that is opened read-only can still become writable for a merge. */
bool qsd_open_layer(struct qsd *d, const char *node, const char *path, enum block_format format,
                    const char *backing, bool read_only, struct err *err);
/* Open an image with whatever its header names below it. */
bool qsd_open_chain(struct qsd *d, const char *node, const char *path, enum block_format format,
                    bool read_only, struct err *err);
/* Close `node` and, if there is one, `node`f. */
bool qsd_close_node(struct qsd *d, const char *node, struct err *err);

DEFINE_SCOPED(qsd, qsd_free);

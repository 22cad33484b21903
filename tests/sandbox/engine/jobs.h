/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs and events: what the engine remembers about its own work. Threads: lock held. */
#pragma once

#include "tests/sandbox/engine/http.h"

/* Codes of the audit log that clients look for. */
enum event_code {
    EVENT_VM_STARTED = 32,
    EVENT_VM_STOPPED = 33,
    EVENT_SNAPSHOT_STARTED = 45,
    EVENT_SNAPSHOT_RESTORE_STARTED = 46,
    EVENT_SNAPSHOT_FINISHED = 68,
    EVENT_SNAPSHOT_FAILED = 69,
    EVENT_SNAPSHOT_RESTORED = 71,
    EVENT_LIVE_SNAPSHOT_FAILED = 170,
    EVENT_OVF_DISK_ATTACHED = 174,
    EVENT_OVF_DISK_NOT_ATTACHED = 175,
    EVENT_EXPORTED = 1224,
    EVENT_EXPORT_FAILED = 1225,
    EVENT_MERGE_STARTED = 342,
    EVENT_MERGE_FINISHED = 356,
    EVENT_MERGE_FAILED = 357,
    EVENT_TRANSFER_STARTED = 1031,
    EVENT_TRANSFER_CANCELLED = 1033,
    EVENT_TRANSFER_FINISHED = 1032,
    EVENT_TRANSFER_FAILED = 1034,
    EVENT_DISK_PLUGGED = 2000,
    EVENT_DISK_PLUG_FAILED = 2001,
    EVENT_DISK_UNPLUGGED = 2002,
    EVENT_DISK_UNPLUG_FAILED = 2003,
    EVENT_DISK_ATTACHED = 2016,
    EVENT_DISK_DETACHED = 2018,
    EVENT_DISK_CREATED = 2021,
    EVENT_DISK_CREATE_FAILED = 2022,
    EVENT_DISK_REMOVED = 2014,
    EVENT_BACKUP_STARTED = 10790,
    EVENT_BACKUP_REDEFINE_FAILED = 10791,
    EVENT_BACKUP_FAILED = 10792,
    EVENT_BACKUP_SUCCEEDED = 10793,
    EVENT_BACKUP_FINALIZED = 10794,
    EVENT_BACKUP_STOPPED = 10796,
    EVENT_BACKUP_SNAPSHOT_LEFT = 10813,
    EVENT_CHECKPOINT_REMOVED = 10797,
    EVENT_CHECKPOINT_REMOVE_FAILED = 10798,
    EVENT_FREEZE_STARTED = 10766,
    EVENT_FREEZE_DONE = 10767,
    EVENT_THAW_DONE = 10768,
    EVENT_FREEZE_FAILED = 10769,
    EVENT_THAW_FAILED = 10770,
};

/* A new job with one executing step, for the request's correlation id. */
struct job *jobs_start(struct engine *e, const char *correlation_id, const char *description);
void jobs_describe(struct job *job, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Ends it (once); NULL is fine. */
void jobs_finish(struct engine *e, struct job *job, bool ok);

/* `vm` may be NULL. `correlation_id` may be "". */
void events_note(struct engine *e, enum event_code code, const char *severity, const struct vm *vm,
                 const char *correlation_id, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));

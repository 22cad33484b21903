/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Image transfers: the engine opens a disk (or a snapshot's disk, or one of a backup) to be read or
 * written at a host (imageio.h), and locks it until the transfer is ended.
 *
 * Actions only set a phase and answer 200 whatever it was: the truth is in polling. End EVERY
 * transfer, with all connections closed before: an open one keeps its disk locked, and a failed or
 * cancelled upload makes the engine delete the disk.
 *
 * API: http://ovirt.github.io/ovirt-engine-api-model/master/#services/image_transfer
 */
#pragma once

#include "worker/ovirt/engine.h"

enum ovirt_transfer_phase {
    OVIRT_TRANSFER_STARTING, /* initializing, resuming */
    OVIRT_TRANSFER_READY,    /* transferring */
    OVIRT_TRANSFER_PAUSED,   /* paused_system (nobody used it), paused_user */
    OVIRT_TRANSFER_ENDING,   /* finalizing_..., cancelled_... */
    OVIRT_TRANSFER_DONE,     /* finished_success */
    OVIRT_TRANSFER_FAILED,   /* finished_failure, finished_cleanup */
};

struct ovirt_transfer {
    char *id;
    char *transfer_url, *proxy_url; /* NULL before it is ready */
    enum ovirt_transfer_phase phase;
};
void ovirt_transfer_done(struct ovirt_transfer *t);

/* What to open. */
struct ovirt_transfer_spec {
    bool is_upload;
    const char *disk_id;   /* always */
    const char *image_id;  /* a snapshot's volume of that disk (ovirt_disk.image_id); NULL = the
                              disk itself */
    const char *backup_id; /* a disk of this backup; NULL = none */
    int64_t inactivity_s;  /* the engine pauses or cancels after so long without use; 0 = its own */
    bool no_wait;          /* a lock is an error (engine-busy) at once */
};

/* Asks for a transfer; always in format raw, so that any format is seen as the guest sees it.
 * Returns its id (the caller frees) before it is ready: journal it, then wait. A lost answer is
 * looked up, never asked twice. */
char *ovirt_transfer_create(struct engine_session *s, const struct ovirt_transfer_spec *spec,
                            struct err *err);
/* Errors: not-found when the engine does not know it (any more). */
bool ovirt_transfer_get(struct engine_session *s, const char *id, struct ovirt_transfer *ret,
                        struct err *err);
/* Until it is ready, with its addresses in `ret`. Errors: engine-fault when it failed; timeout. */
bool ovirt_transfer_wait_ready(struct engine_session *s, const char *id, int64_t limit_ms,
                               struct ovirt_transfer *ret, struct err *err);

/* Keeps a transfer alive while no bytes move, and takes a paused one up again. Call it more often
 * than half the inactivity limit. Errors: engine-fault when it has ended. */
bool ovirt_transfer_keep(struct engine_session *s, const char *id, struct err *err);

/* One that has not ended. */
struct ovirt_open_transfer {
    char *id, *disk_id;
    bool is_upload;
};
struct ovirt_open_transfers {
    struct ovirt_open_transfer *v;
    size_t count;
};
/* All of the engine, whoever's they are. */
bool ovirt_transfers_open(struct engine_session *s, struct ovirt_open_transfers *ret,
                          struct err *err);
void ovirt_open_transfers_done(struct ovirt_open_transfers *list);

/* The open transfer that reads `image_id`, a snapshot's volume of disk `disk_id`. The engine tells
 * the disk of a transfer and not the volume, but locks the volume that it reads: so it is the only
 * one that reads the disk while the volume is locked. *ret_id (the caller frees) is NULL when there
 * is none, or nobody can tell. `storage_domain_id` is where the disk lies. */
bool ovirt_transfer_of_volume(struct engine_session *s, const struct ovirt_open_transfers *open,
                              const char *disk_id, const char *image_id,
                              const char *storage_domain_id, char **ret_id, struct err *err);

/* End it well, or give it up, and wait until the engine has let the disk go. `disk_id` decides when
 * the engine forgets ended transfers at once (before 4.4.7). One that is gone is success for
 * cancelling. Errors: engine-fault when finalizing failed; timeout. */
bool ovirt_transfer_finalize(struct engine_session *s, const char *id, const char *disk_id,
                             int64_t limit_ms, struct err *err);
bool ovirt_transfer_cancel(struct engine_session *s, const char *id, int64_t limit_ms,
                           struct err *err);
/* Give up every upload that is open on the disk, paused ones too, whoever opened it; the engine
 * then deletes the disk. None is success. For disks that are the caller's alone. */
bool ovirt_uploads_cancel(struct engine_session *s, const char *disk_id, int64_t limit_ms,
                          struct err *err);

/* SPDX-License-Identifier: Apache-2.0 */
/* The state of a backup, and what several of its steps use. */
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/id.h"
#include "proto/base/log.h"
#include "worker/step/backup.h"

void *backup_new(struct task_run *run, struct err *err)
{
    if (!run->offer->vm || !id_is_valid(run->offer->vm)) {
        err_set(err, ERR_BAD_MESSAGE, 0, "a backup task must name its VM by id");
        return NULL;
    }
    struct backup *b = ALLOC_NEW(struct backup);
    if (run->offer->backup)
        b->opts = *run->offer->backup;
    buf_init(&b->ovf, STORE_BLOB_MAX);
    return b;
}

void *backup_part_new(struct task_run *run, struct err *err)
{
    const struct wire_part *part = run->offer->part;
    if (!part || !part->snapshot) {
        err_set(err, ERR_BAD_MESSAGE, 0, "a part of a backup must name a snapshot, and what to do");
        return NULL;
    }
    struct backup *b = backup_new(run, err);
    if (!b)
        return NULL;
    b->part = part;
    b->opts.quiesce = WIRE_QUIESCE_OFF; /* the guest is not our business */
    return b;
}

const char *backup_snapshot(const struct task_run *run)
{
    const struct wire_part *part = run->offer->part;
    const struct wire_handle *own = handles_next(&run->handles, HANDLE_BACKUP_SNAPSHOT, 0);
    if (part)
        return part->snapshot;
    return own ? own->name + strlen(HANDLE_BACKUP_SNAPSHOT)
               : handles_get(&run->handles, HANDLE_SNAPSHOT);
}

/* One that was neither committed nor undone: the lease was lost, and somebody else goes on. */
static void leave_session(struct store_session *session)
{
    struct err err = ERR_INIT;
    if (session && !store_session_leave(session, &err))
        log_err(LOG_LEVEL_WARN, "session_not_left", &err);
    store_session_free(session);
}

void backup_free(void *state)
{
    struct backup *b = state;
    if (!b)
        return;
    /* Only a bug could leave it frozen; a guest must not pay for it. */
    bool in_time;
    struct err ignored = ERR_INIT;
    (void)frozen_end(b->frozen, &in_time, &ignored);
    leave_session(b->session);
    for (size_t i = 0; i < b->earlier_count; i++)
        free(b->earlier[i]);
    free(b->earlier);
    for (size_t i = 0; i < b->plan_count; i++) {
        free(b->plan[i].device);
        free(b->plan[i].image_id);
        disk_transfer_forget(&b->plan[i].transfer);
        imageio_map_done(&b->plan[i].map);
        extents_done(&b->plan[i].changed);
        extents_done(&b->plan[i].only);
        store_reader_free(b->plan[i].parent); /* after the session */
    }
    free(b->plan);
    parts_done(&b->parts);
    store_point_free(b->parent);
    store_point_free(b->base);
    free(b->checkpoint);
    ovirt_checkpoints_done(&b->checkpoints);
    site_done(&b->site);
    ovirt_vm_done(&b->vm);
    ovirt_disks_done(&b->disks);
    ovirt_storage_domains_done(&b->domains);
    json_decref(b->vm_json);
    buf_done(&b->ovf);
    free(b);
}

enum probe_answer probe_stands(struct task_run *run, struct err *err)
{
    (void)err;
    const struct backup *b = run->state;
    return b->stands ? PROBE_DONE : PROBE_TODO;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/engine/model.h"

#include <string.h>

static const char *const vm_status_names[] = {
    [VM_DOWN] = "down",
    [VM_UP] = "up",
    [VM_POWERING_UP] = "powering_up",
    [VM_POWERING_DOWN] = "powering_down",
    [VM_WAIT_FOR_LAUNCH] = "wait_for_launch",
    [VM_PAUSED] = "paused",
    [VM_MIGRATING] = "migrating",
    [VM_SUSPENDED] = "suspended",
    [VM_SAVING_STATE] = "saving_state",
    [VM_RESTORING_STATE] = "restoring_state",
    [VM_IMAGE_LOCKED] = "image_locked",
    [VM_NOT_RESPONDING] = "not_responding",
    [VM_UNKNOWN] = "unknown",
};

static const char *const transfer_phase_names[] = {
    [TRANSFER_INITIALIZING] = "initializing",
    [TRANSFER_TRANSFERRING] = "transferring",
    [TRANSFER_RESUMING] = "resuming",
    [TRANSFER_PAUSED_SYSTEM] = "paused_system",
    [TRANSFER_PAUSED_USER] = "paused_user",
    [TRANSFER_FINALIZING_SUCCESS] = "finalizing_success",
    [TRANSFER_FINALIZING_FAILURE] = "finalizing_failure",
    [TRANSFER_FINALIZING_CLEANUP] = "finalizing_cleanup",
    [TRANSFER_CANCELLED_USER] = "cancelled_user",
    [TRANSFER_CANCELLED_SYSTEM] = "cancelled_system",
    [TRANSFER_FINISHED_SUCCESS] = "finished_success",
    [TRANSFER_FINISHED_FAILURE] = "finished_failure",
    [TRANSFER_FINISHED_CLEANUP] = "finished_cleanup",
};

const char *vm_status_name(enum vm_status s)
{
    return vm_status_names[s];
}

bool vm_status_parse(const char *word, enum vm_status *ret)
{
    for (size_t i = 0; i < ARRAY_LEN(vm_status_names); i++)
        if (!strcmp(vm_status_names[i], word)) {
            *ret = (enum vm_status)i;
            return true;
        }
    return false;
}

const char *disk_status_name(enum disk_status s)
{
    static const char *const names[] = {"ok", "locked", "illegal"};
    return names[s];
}

const char *snapshot_status_name(enum snapshot_status s)
{
    static const char *const names[] = {"ok", "locked", "in_preview"};
    return names[s];
}

const char *transfer_phase_name(enum transfer_phase p)
{
    return transfer_phase_names[p];
}

/* The look-ups differ in type only. */
#define FIND(list, condition)                                                                      \
    do {                                                                                           \
        for (size_t i_ = 0; i_ < (list)->len; i_++) {                                              \
            __typeof__((list)->at[0]) it = (list)->at[i_];                                         \
            if (condition)                                                                         \
                return it;                                                                         \
        }                                                                                          \
        return NULL;                                                                               \
    } while (0)

struct data_center *model_dc(const struct model *m, const char *id)
{
    FIND(&m->dcs, !strcmp(it->id, id) || !strcmp(it->name, id));
}

struct cluster *model_cluster(const struct model *m, const char *id_or_name)
{
    FIND(&m->clusters, !strcmp(it->id, id_or_name) || !strcmp(it->name, id_or_name));
}

struct host *model_host(const struct model *m, const char *id)
{
    FIND(&m->hosts, !strcmp(it->id, id));
}

struct storage_domain *model_sd(const struct model *m, const char *id_or_name)
{
    FIND(&m->sds, !strcmp(it->id, id_or_name) || !strcmp(it->name, id_or_name));
}

struct network *model_network(const struct model *m, const char *id_or_name)
{
    FIND(&m->networks, !strcmp(it->id, id_or_name) || !strcmp(it->name, id_or_name));
}

struct vnic_profile *model_profile(const struct model *m, const char *id_or_name)
{
    FIND(&m->profiles, !strcmp(it->id, id_or_name) || !strcmp(it->name, id_or_name));
}

struct tag *model_tag(const struct model *m, const char *id_or_name)
{
    FIND(&m->tags, !it->gone && (!strcmp(it->id, id_or_name) || !strcmp(it->name, id_or_name)));
}

struct vm *model_vm(const struct model *m, const char *id)
{
    FIND(&m->vms, !strcmp(it->id, id));
}

struct vm *model_vm_by_name(const struct model *m, const char *name)
{
    FIND(&m->vms, !strcmp(it->name, name));
}

struct disk *model_disk(const struct model *m, const char *id)
{
    FIND(&m->disks, !strcmp(it->id, id));
}

struct job *model_job(const struct model *m, const char *id)
{
    FIND(&m->jobs, !strcmp(it->id, id));
}

struct transfer *model_transfer(const struct model *m, const char *id)
{
    FIND(&m->transfers, !strcmp(it->id, id));
}

struct snapshot *vm_snapshot(const struct vm *vm, const char *id)
{
    FIND(&vm->snapshots, !strcmp(it->id, id));
}

struct snapshot *vm_active_snapshot(const struct vm *vm)
{
    FIND(&vm->snapshots, it->active);
}

struct attachment *vm_attachment(const struct vm *vm, const char *disk_id)
{
    FIND(&vm->attachments, !strcmp(it->disk->id, disk_id));
}

struct nic *vm_nic(const struct vm *vm, const char *id)
{
    FIND(&vm->nics, !strcmp(it->id, id));
}

struct volume *disk_volume_in(const struct disk *d, const char *snapshot_id)
{
    FIND(&d->chain, !strcmp(it->snapshot_id, snapshot_id));
}

struct volume *disk_volume(const struct disk *d, const char *volume_id)
{
    FIND(&d->chain, !strcmp(it->id, volume_id));
}

struct volume *disk_active_volume(const struct disk *d)
{
    return d->chain.len ? d->chain.at[d->chain.len - 1] : NULL;
}

struct vm *model_disk_owner(const struct model *m, const struct disk *d)
{
    struct vm *vm;
    VEC_EACH(&m->vms, vm)
    {
        struct attachment *a;
        VEC_EACH(&vm->attachments, a)
        if (a->disk == d && a->snapshot_id[0] == '\0')
            return vm;
    }
    return NULL;
}

struct vm *model_snapshot_disk_holder(const struct model *m, const struct vm *vm)
{
    struct vm *other;
    VEC_EACH(&m->vms, other)
    {
        struct attachment *a;
        VEC_EACH(&other->attachments, a)
        if (other != vm && a->snapshot_id[0] != '\0' && vm_snapshot(vm, a->snapshot_id))
            return other;
    }
    return NULL;
}

struct backup *model_backup(const struct model *m, const struct vm *vm, const char *id)
{
    struct backup *b;
    VEC_EACH(&m->backups, b)
    if (b->vm == vm && !strcmp(b->id, id))
        return b;
    return NULL;
}

struct backup *model_backup_running(const struct model *m, const struct vm *vm)
{
    struct backup *b;
    VEC_EACH(&m->backups, b)
    if (b->vm == vm && b->phase != BACKUP_SUCCEEDED && b->phase != BACKUP_FAILED)
        return b;
    return NULL;
}

struct checkpoint *vm_checkpoint(const struct vm *vm, const char *id)
{
    struct checkpoint *c;
    VEC_EACH(&vm->checkpoints, c)
    if (!strcmp(c->id, id))
        return c;
    return NULL;
}

bool checkpoint_has(const struct checkpoint *c, const struct disk *d)
{
    const struct disk *one;
    VEC_EACH(&c->disks, one)
    if (one == d)
        return true;
    return false;
}

const char *backup_phase_name(enum backup_phase p)
{
    static const char *const names[] = {"initializing", "starting",  "ready",
                                        "finalizing",   "succeeded", "failed"};
    return names[p];
}

bool vm_is_running(const struct vm *vm)
{
    return vm->status == VM_UP || vm->status == VM_POWERING_UP || vm->status == VM_PAUSED ||
           vm->status == VM_POWERING_DOWN || vm->status == VM_WAIT_FOR_LAUNCH ||
           vm->status == VM_MIGRATING || vm->status == VM_NOT_RESPONDING ||
           vm->status == VM_UNKNOWN;
}

bool disk_is_snapable(const struct disk *d)
{
    return !d->shareable && !d->lun;
}

bool disk_is_locked(const struct disk *d)
{
    const struct volume *v;
    VEC_EACH(&d->chain, v)
    if (v->locked)
        return true;
    return d->status == DISK_LOCKED;
}

void volume_free(struct volume *v)
{
    free(v->path);
    free(v);
}

void attachment_free(struct attachment *a)
{
    free(a->logical_name);
    free(a->device);
    free(a);
}

void snapshot_free(struct snapshot *s)
{
    free(s->description);
    free(s->ovf);
    free(s->reference_error);
    json_decref(s->nics);
    json_decref(s->vm);
    free(s);
}

void nic_free(struct nic *n)
{
    free(n->name);
    free(n);
}

static void checkpoint_free(struct checkpoint *c)
{
    free(c->description);
    free(c->disks.at);
    free(c);
}

static void backup_disk_free(struct backup_disk *d)
{
    free(d->uri);
    free(d);
}

static void backup_free(struct backup *b)
{
    VEC_DONE(&b->disks, backup_disk_free);
    free(b->held.at);
    free(b->description);
    free(b->reference_error);
    free(b);
}

static void disk_free(struct disk *d)
{
    VEC_DONE(&d->chain, volume_free);
    free(d->alias);
    free(d->description);
    free(d);
}

static void vm_free(struct vm *vm)
{
    VEC_DONE(&vm->attachments, attachment_free);
    VEC_DONE(&vm->nics, nic_free);
    VEC_DONE(&vm->snapshots, snapshot_free);
    VEC_DONE(&vm->checkpoints, checkpoint_free);
    free(vm->tags.at);
    json_decref(vm->config);
    free(vm->dev_dir);
    free(vm->name);
    free(vm);
}

static void dc_free(struct data_center *x)
{
    free(x->name);
    free(x);
}

static void cluster_free(struct cluster *x)
{
    free(x->name);
    free(x);
}

static void host_free(struct host *x)
{
    free(x->name);
    free(x->address);
    free(x);
}

static void sd_free(struct storage_domain *x)
{
    free(x->name);
    free(x->storage_type);
    free(x->status);
    free(x);
}

static void network_free(struct network *x)
{
    free(x->name);
    free(x);
}

static void profile_free(struct vnic_profile *x)
{
    free(x->name);
    free(x);
}

static void tag_free(struct tag *x)
{
    free(x->name);
    free(x->description);
    free(x);
}

static void job_free(struct job *x)
{
    free(x->description);
    free(x->step.description);
    free(x);
}

static void event_free(struct event *x)
{
    free(x->description);
    free(x->origin);
    free(x);
}

void model_done(struct model *m)
{
    VEC_DONE(&m->vms, vm_free);
    VEC_DONE(&m->dead_vms, vm_free);
    VEC_DONE(&m->disks, disk_free);
    VEC_DONE(&m->dead_disks, disk_free);
    VEC_DONE(&m->dead_snapshots, snapshot_free);
    VEC_DONE(&m->dead_attachments, attachment_free);
    VEC_DONE(&m->dead_volumes, volume_free);
    VEC_DONE(&m->dead_nics, nic_free);
    VEC_DONE(&m->transfers, free);
    VEC_DONE(&m->dead_transfers, free);
    VEC_DONE(&m->backups, backup_free);
    VEC_DONE(&m->dead_backups, backup_free);
    VEC_DONE(&m->dead_checkpoints, checkpoint_free);
    VEC_DONE(&m->tags, tag_free);
    VEC_DONE(&m->profiles, profile_free);
    VEC_DONE(&m->networks, network_free);
    VEC_DONE(&m->sds, sd_free);
    VEC_DONE(&m->hosts, host_free);
    VEC_DONE(&m->clusters, cluster_free);
    VEC_DONE(&m->dcs, dc_free);
    VEC_DONE(&m->jobs, job_free);
    VEC_DONE(&m->events, event_free);
}

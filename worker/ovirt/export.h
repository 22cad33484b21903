/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Having the engine write a VM out: as an OVA on a host, or into an export domain. The engine works
 * on it by itself, under a job; the VM is locked meanwhile.
 *
 * API:
 * http://ovirt.github.io/ovirt-engine-api-model/master/#services/vm/methods/export_to_path_on_host
 */
#pragma once

#include "worker/ovirt/engine.h"

struct ovirt_host {
    char *id, *name, *status, *cluster_id;
};
void ovirt_host_done(struct ovirt_host *host);
/* By id or exact name. Errors: not-found. */
bool ovirt_host_find(struct engine_session *s, const char *id_or_name, struct ovirt_host *ret,
                     struct err *err);

/* Either host, directory and filename, or domain. */
struct ovirt_export {
    const char *host_id, *directory, *filename;
    const char *domain_id; /* of an export domain */
};

/* Asks for the export of a VM that is down. `vm_name` must be the VM's, and contain what no other
 * VM's name does: a job whose answer was lost is looked up by it. Returns the job's id (the caller
 * frees). Errors: conflict, with the engine's reason. */
char *ovirt_export_begin(struct engine_session *s, const char *vm_id, const char *vm_name,
                         const struct ovirt_export *to, struct err *err);

enum ovirt_job_state {
    OVIRT_JOB_GONE, /* the engine does not know it (any more) */
    OVIRT_JOB_RUNNING,
    OVIRT_JOB_FINISHED,
    OVIRT_JOB_FAILED,
};
/* `ret_percent` (or NULL): of the step that has come farthest; 0 when the engine does not tell. */
bool ovirt_job_look(struct engine_session *s, const char *id, enum ovirt_job_state *ret,
                    int *ret_percent, struct err *err);
/* The newest export job of the VM of that name; the caller frees *ret, NULL when there is none. */
bool ovirt_export_find_job(struct engine_session *s, const char *vm_name, char **ret,
                           struct err *err);

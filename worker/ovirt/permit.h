/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the account that is logged in may do: the roles it holds on the system, on a data center, on
 * clusters and storage domains, and the permits in them. Read only; for check-ups: what really is
 * allowed, the engine alone decides, call by call.
 *
 * Names of permits are the engine's action groups in lower case ("manipulate_vm_snapshots").
 */
#pragma once

#include "worker/ovirt/datacenter.h"

/* Where a permit holds. */
enum ovirt_permit_scope {
    OVIRT_PERMIT_NOWHERE,
    OVIRT_PERMIT_PARTLY, /* on some cluster or storage domain of the data center */
    OVIRT_PERMIT_FULLY,  /* on the data center, or its only cluster */
    OVIRT_PERMIT_SYSTEM, /* on the system */
};

struct ovirt_permit {
    char *name;
    enum ovirt_permit_scope scope;
};
struct ovirt_permits {
    struct ovirt_permit *v;
    size_t count;
    char *roles;         /* names of the roles, for people: "DataCenterAdmin, DiskCreator" */
    bool administrative; /* one of them at least: else the engine shows a filtered view only */
};

/* `clusters` are those of the data center. Errors: those of engine_get(): an account may be too
 * weak to read its own roles (engine-denied, not-found). */
bool ovirt_permits_read(struct engine_session *s, const char *datacenter_id,
                        const struct ovirt_clusters *clusters, struct ovirt_permits *ret,
                        struct err *err);
void ovirt_permits_done(struct ovirt_permits *permits);
enum ovirt_permit_scope ovirt_permits_scope(const struct ovirt_permits *permits, const char *name);

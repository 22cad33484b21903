/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NICs of a restored VM, from the description in vm.json.
 */
#pragma once

#include "worker/ovirt/engine.h"

struct ovirt_nics_how {
    bool plugged;              /* false: made, but unplugged, so that a copy cannot disturb */
    const char *datacenter_id; /* where vNIC profiles are looked for by name */
    /* Told what could not be kept: a profile that is not there, a MAC that is taken. NULL = none.
     */
    void (*warn)(void *ctx, const char *message);
    void *ctx;
};
/* Adds the NICs of `saved` (vm.json) to the VM, in order: interface, link state and MAC kept (a MAC
 * that is taken is replaced by a fresh one), vNIC profile by id, else by its and its network's
 * name, else none. A NIC name the VM has already is left alone, so that a repeat is harmless. */
bool ovirt_nics_restore(struct engine_session *s, const char *vm_id, const json_t *saved,
                        const struct ovirt_nics_how *how, struct err *err);

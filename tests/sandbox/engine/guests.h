/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guests of running VMs (tests/sandbox/guest): started and stopped with the VM, frozen and
 * thawed by the engine. Threads: lock held; functions that say so give it up meanwhile.
 */
#pragma once

#include "tests/sandbox/engine/engine.h"

/* Starts the VM's guest, if its kind has one. Gives up the lock. */
bool guests_start(struct engine *e, struct vm *vm, struct err *err);
/* Waits until the guest has laid down its initial content and writes. Gives up the lock. */
bool guests_wait(struct engine *e, struct vm *vm, struct err *err);
/* Ends the process; without the lock. NULL is fine. */
void guests_stop(struct guest *g);
/* No write of the guest is under way, and none begins, until the thaw. Give up the lock. */
bool guests_freeze(struct engine *e, struct vm *vm, struct err *err);
bool guests_thaw(struct engine *e, struct vm *vm, struct err *err);
/* The number of the last write that the guest's disks acknowledged; -1 when there is none. */
int64_t guests_acked(const struct vm *vm);
/* What the guest writes, for the judge: DIR/guests/<vm id>/spec.json. The caller frees. */
char *guests_spec_path(const struct engine *e, const struct vm *vm);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which VMs a selection means: the union of ids, names, tags, search and all, less the excluded
 * names; each VM once. Collects; knows no engine. Threads: one at a time.
 */
#pragma once

#include "proto/wire/message.h"
#include "worker/ovirt/vm.h"

struct selected {
    struct wire_vm_item *v; /* owned */
    size_t count, room;
};

/* How a VM came to be found. */
enum select_by { SELECT_NAMED /* by its id or name */, SELECT_SWEPT /* by tag, search or all */ };

/* False when it was not added: known already, or excluded by name. Copies `row`. */
bool selected_add(struct selected *s, const struct wire_select *select, const char *zone,
                  const struct ovirt_vm_row *row);
void selected_done(struct selected *s);
/* True when `name` is in select->exclude. */
bool select_excludes(const struct wire_select *select, const char *name);
/* Nothing is named at all: everything is meant. */
bool select_is_empty(const struct wire_select *select);

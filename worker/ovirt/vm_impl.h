/* SPDX-License-Identifier: Apache-2.0 */
/* What the vm_*.c files share, and the request bodies for their tests. JSON: new references. */
#pragma once

#include "worker/ovirt/vm.h"

/* POST body of a VM without disks and NICs: the writable members of `saved` that an engine of this
 * version knows, under a new name. */
json_t *ovirt_vm_body(const json_t *saved, const struct ovirt_vm_new *as,
                      const struct engine_version *version);
/* POST body of an import. */
json_t *ovirt_vm_clone_body(const char *snapshot_id, const struct ovirt_vm_new *as);
json_t *ovirt_vm_import_body(const char *ovf, const struct ovirt_vm_new *as);

bool ovirt_vm_is_hosted_engine(const json_t *vm);
/* "name = \"x\"": NULL when the value cannot be quoted in the search language. */
char *ovirt_vm_search_term(const char *field, const char *value);

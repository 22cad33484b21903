/* SPDX-License-Identifier: Apache-2.0 */
/* Clones of snapshots. Lock held. */
#pragma once

#include "tests/sandbox/engine/http.h"

/* POST vms with `snapshots`: a VM of that (free) name with disks of its own. Answers the request.
 */
void export_clone(struct engine *e, struct request *r, struct cluster *cluster, const char *name);

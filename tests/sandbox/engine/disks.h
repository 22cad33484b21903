/* SPDX-License-Identifier: Apache-2.0 */
/* What other resources need of disks. Lock held. */
#pragma once

#include "tests/sandbox/engine/http.h"

/*
 * A disk as the body (type Disk) describes it, in the list, status locked; a job thread makes it
 * real, owned by the snapshot entry `snapshot_id` ("" = floating) and ends the request's job. NULL:
 * refused, the answer is in the request.
 */
struct disk *disks_create(struct engine *e, struct request *r, const json_t *body,
                          const char *snapshot_id);
/* Takes it from every VM and deletes it: 404 after a while. */
void disks_destroy(struct engine *e, struct disk *d, const char *correlation_id);
/* Makes it larger if the body (type Disk) says so: a job thread does it, the disk is locked until
 * then. False: refused, the answer is in the request. */
bool disk_extend(struct engine *e, struct request *r, struct disk *d, const json_t *body);
/* Adds "creation_status" and its link to the answer of a POST. */
void disks_add_creation_status(json_t *o);

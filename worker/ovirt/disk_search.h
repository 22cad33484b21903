/* SPDX-License-Identifier: Apache-2.0 */
/* Going through all disks of an engine. Read only. */
#pragma once

#include "worker/ovirt/engine.h"

/* One disk of the listing. All is borrowed and valid during the callback only. */
struct ovirt_disk_row {
    const char *id;
    const char *alias, *description; /* NULL when it has none */
    const char *storage_domain_id;   /* NULL when not told */
};
/* False stops the listing with the error the callback has set. */
typedef bool (*ovirt_disk_row_fn)(void *ctx, const struct ovirt_disk_row *row, struct err *err);

/* Calls `each` once per disk whose description begins with `description_prefix`. Errors: too-large
 * beyond 100,000 disks. */
bool ovirt_disks_each(struct engine_session *s, const char *description_prefix,
                      ovirt_disk_row_fn each, void *ctx, struct err *err);

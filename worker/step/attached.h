/* SPDX-License-Identifier: Apache-2.0 */
/* Disks on the proxy VM, by handles: what backup and restore share. */
#pragma once

#include "worker/step/site.h"
#include "worker/step/step.h"

/* Detach every disk that an "attachment." handle names, from whatever proxy, and drop the handle
 * when it is gone. Goes on after a failure; the first one is returned. The caller has closed the
 * devices. When the disk was on the VM we run in (`own_proxy_id`, may be NULL), wait for its device
 * to vanish. */
bool attached_detach_all(struct task_run *run, const char *own_proxy_id, struct err *err);

/* The disk is not on the proxy, and no device carries its id: otherwise conflict or
 * device-mismatch. */
bool attached_check_free(struct task_run *run, const struct site *site, const char *disk_id,
                         struct err *err);

/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/step/attached.h"

#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/ovirt/attachment.h"
#include "worker/step/checks.h"
#include "worker/step/device.h"

enum { DETACH_LIMIT_MS = 15 * 60 * 1000 };

static bool detach_one(struct task_run *run, const char *proxy_id, const char *disk_id,
                       const char *own_proxy_id, struct err *err)
{
    if (!ovirt_detach(run->session, proxy_id, disk_id, DETACH_LIMIT_MS, err))
        return err_wrap(err, "detach disk %s from VM %s", disk_id, proxy_id);
    log_info("disk_detached", LOG_STR("disk", disk_id), LOG_STR("proxy", proxy_id));
    if (!own_proxy_id || strcmp(own_proxy_id, proxy_id) != 0)
        return true;
    /* The engine says it is gone; a device that lingers would only confuse the next attach, which
     * looks for itself. */
    struct err linger = ERR_INIT;
    if (!device_wait_gone(run, disk_id, &linger) && linger.code == ERR_DEVICE_MISMATCH)
        run_warn_err(run, disk_id, &linger);
    return true;
}

bool attached_detach_all(struct task_run *run, const char *own_proxy_id, struct err *err)
{
    size_t failed = 0;
    const struct wire_handle *h;
    while ((h = handles_next(&run->handles, HANDLE_ATTACHMENT, failed))) {
        SCOPED_FREE char *name = xstrdup(h->name);
        SCOPED_FREE char *proxy = xstrdup(h->value);
        struct err one = ERR_INIT;
        if (detach_one(run, proxy, name + strlen(HANDLE_ATTACHMENT), own_proxy_id, &one)) {
            run_handle_drop(run, name);
            continue;
        }
        if (err_is_set(err))
            run_warn_err(run, name + strlen(HANDLE_ATTACHMENT), &one);
        err_keep_first(err, &one);
        if (one.code == ERR_LEASE_LOST)
            return false;
        failed++;
    }
    return failed == 0;
}

bool attached_check_free(struct task_run *run, const struct site *site, const char *disk_id,
                         struct err *err)
{
    struct ovirt_attachments list = {0};
    if (!ovirt_attachments_list(run->session, site->proxy_id, &list, err))
        return false;
    bool is_free = check_not_attached(&list, disk_id, err);
    ovirt_attachments_done(&list);
    return is_free && device_wait_gone(run, disk_id, err);
}

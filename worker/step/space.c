/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/step/space.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/step/ticker.h"

struct space_watch {
    struct task_run *run;
    const struct backup *b;
    struct ticker *ticker;
    _Atomic bool low;
    struct err err; /* why; the ticker's until it has ended */
};

uint64_t space_limit_bytes(const struct step_settings *settings)
{
    return settings->reserve_domain_bytes / 2;
}

/* True when one of the disks lies in the domain. */
static bool is_concerned(const struct backup *b, const struct ovirt_storage_domain *sd)
{
    for (size_t i = 0; i < b->plan_count; i++) {
        const char *id = b->plan[i].disk->storage_domain_id;
        if (id && strcmp(id, sd->id) == 0)
            return true;
    }
    return false;
}

static void judge(struct space_watch *w, const struct ovirt_storage_domains *domains)
{
    const struct step_settings *set = w->run->settings;
    for (size_t i = 0; i < domains->count && !err_is_set(&w->err); i++) {
        const struct ovirt_storage_domain *sd = &domains->v[i];
        if (!is_concerned(w->b, sd) || sd->available_bytes >= space_limit_bytes(set))
            continue;
        err_set(&w->err, ERR_NO_SPACE, 0,
                "storage domain %s has %" PRIu64 " MiB free, less than half of "
                "reserve.storage_domain_mib (%" PRIu64
                "): the backup is given up before the domain "
                "is full and pauses its VMs; make room there",
                sd->name, sd->available_bytes >> 20, set->reserve_domain_bytes >> 20);
        atomic_store(&w->low, true);
    }
}

static bool look(void *ctx, struct engine_session *session)
{
    struct space_watch *w = ctx;
    struct err err = ERR_INIT;
    struct ovirt_storage_domains domains = {0};
    if (ovirt_storage_domains_list(session, w->b->site.datacenter_id, &domains, &err))
        judge(w, &domains);
    else if (err.code != ERR_CANCELLED)
        log_err(LOG_LEVEL_WARN, "space_not_seen", &err);
    ovirt_storage_domains_done(&domains);
    return !atomic_load(&w->low);
}

struct space_watch *space_watch_begin(struct task_run *run, const struct backup *b)
{
    struct space_watch *w = ALLOC_NEW(struct space_watch);
    w->run = run;
    w->b = b;
    w->ticker = ticker_begin(run, &(struct ticker_opts){.name = "space",
                                                        .every_s = run->settings->space_watch_s,
                                                        .at_once = true,
                                                        .tick = look,
                                                        .ctx = w});
    return w;
}

bool space_watch_is_low(const struct space_watch *w)
{
    return atomic_load(&w->low);
}

bool space_watch_end(struct space_watch *w, struct err *err)
{
    ticker_end(w->ticker);
    bool ok = !err_is_set(&w->err);
    if (!ok)
        *err = w->err;
    free(w);
    return ok;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/step/space.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/ovirt/datacenter.h"
#include "worker/step/ticker.h"

struct space_watch {
    struct task_run *run;
    struct space_watch_opts opts;
    struct ticker *ticker;
    _Atomic bool low;
    struct err err; /* why; the ticker's until it has ended */
};

uint64_t space_limit_bytes(const struct step_settings *settings)
{
    return settings->reserve_domain_bytes / 2;
}

static bool is_concerned(const struct space_watch_opts *o, const struct ovirt_storage_domain *sd)
{
    for (size_t i = 0; i < o->count; i++) {
        if (o->domain_ids[i] && strcmp(o->domain_ids[i], sd->id) == 0)
            return true;
    }
    return false;
}

static void judge(struct space_watch *w, const struct ovirt_storage_domains *domains)
{
    const struct step_settings *set = w->run->settings;
    for (size_t i = 0; i < domains->count && !err_is_set(&w->err); i++) {
        const struct ovirt_storage_domain *sd = &domains->v[i];
        if (!is_concerned(&w->opts, sd) || sd->available_bytes >= space_limit_bytes(set))
            continue;
        err_set(&w->err, ERR_NO_SPACE, 0,
                "storage domain %s has %" PRIu64 " MiB free, less than half of "
                "reserve.storage_domain_mib (%" PRIu64
                "): the %s is given up before the domain is full "
                "and pauses its VMs; make room there",
                sd->name, sd->available_bytes >> 20, set->reserve_domain_bytes >> 20, w->opts.what);
        atomic_store(&w->low, true);
    }
}

static bool look(void *ctx, struct engine_session *session)
{
    struct space_watch *w = ctx;
    struct err err = ERR_INIT;
    struct ovirt_storage_domains domains = {0};
    if (ovirt_storage_domains_list(session, w->opts.datacenter_id, &domains, &err))
        judge(w, &domains);
    else if (err.code != ERR_CANCELLED)
        log_err(LOG_LEVEL_WARN, "space_not_seen", &err);
    ovirt_storage_domains_done(&domains);
    return !atomic_load(&w->low);
}

struct space_watch *space_watch_begin(struct task_run *run, const struct space_watch_opts *opts)
{
    struct space_watch *w = ALLOC_NEW(struct space_watch);
    w->run = run;
    w->opts = *opts;
    w->ticker = ticker_begin(run, &(struct ticker_opts){.name = "space",
                                                        .every_s = run->settings->space_watch_s,
                                                        .at_once = true,
                                                        .tick = look,
                                                        .ctx = w});
    return w;
}

static void guarded_progress(void *context, uint64_t done_bytes, uint64_t total_bytes)
{
    const struct space_guard *g = context;
    g->inner->progress(g->inner->context, done_bytes, total_bytes);
}

static bool guarded_cancelled(void *context)
{
    const struct space_guard *g = context;
    return atomic_load(&g->watch->low) || g->inner->cancelled(g->inner->context);
}

struct copy_opts space_guard_opts(struct space_guard *guard)
{
    struct copy_opts opts = *guard->inner;
    opts.context = guard;
    opts.progress = guarded_progress;
    opts.cancelled = guarded_cancelled;
    return opts;
}

void space_watch_end(struct space_watch *w, bool ok, struct err *err)
{
    ticker_end(w->ticker);
    if (err_is_set(&w->err) && !ok && err->code == ERR_CANCELLED &&
        run_check(w->run, &(struct err)ERR_INIT))
        *err = w->err;
    free(w);
}

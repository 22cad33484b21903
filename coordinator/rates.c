/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/rates.h"

#include <string.h>

/* Whatever a result says, an offer must be able to carry it. */
#define RATES_MOST 1e15

static bool is_old(const struct core *core, const struct rate *r)
{
    return core->now_ms - r->at_ms > RATES_KEEP_MS;
}

static bool take(struct core *core, const char *zone, const struct wire_path_stats *p,
                 struct err *err)
{
    SCOPED_RATE struct rate r = {0};
    if (!ledger_rate_get(core->ledger, zone, p->path, &r, err))
        return false;
    if (is_old(core, &r))
        r.samples = r.bytes_per_s = 0;
    double sample = (double)p->bytes_read * 1000 / (double)p->copy_ms;
    r.samples++;
    int64_t weight = r.samples < RATES_WEIGHT ? r.samples : RATES_WEIGHT;
    double average = (double)r.bytes_per_s + (sample - (double)r.bytes_per_s) / (double)weight;
    r.bytes_per_s = average < 1 ? 1 : average > RATES_MOST ? (int64_t)RATES_MOST : (int64_t)average;
    r.at_ms = core->now_ms;
    if (!r.n) {
        r.zone = xstrdup(zone);
        r.path = xstrdup(p->path);
    }
    return ledger_rate_save(core->ledger, &r, err);
}

bool rates_take(struct core *core, const char *zone, const struct wire_paths_stats *paths,
                struct err *err)
{
    for (size_t i = 0; i < paths->count; i++) {
        const struct wire_path_stats *p = &paths->v[i];
        if (p->bytes_read >= RATES_MIN_BYTES && p->copy_ms > 0 && !take(core, zone, p, err))
            return false;
    }
    return true;
}

bool rates_concern(const char *kind)
{
    return strcmp(kind, "backup") == 0 || strcmp(kind, "plan") == 0;
}

bool rates_load(struct core *core, const char *zone, struct rate_list *list, struct wire_rate **ret,
                struct err *err)
{
    if (!ledger_rate_list(core->ledger, zone, list, err))
        return false;
    size_t fresh = 0;
    for (size_t i = 0; i < list->count; i++) {
        if (is_old(core, &list->v[i]))
            rate_done(&list->v[i]);
        else
            list->v[fresh++] = list->v[i];
    }
    list->count = fresh;
    /* A path is a word of a worker's; more than an offer can name there are only by a fault. */
    if (list->count > WIRE_PATHS_MAX) {
        for (size_t i = WIRE_PATHS_MAX; i < list->count; i++)
            rate_done(&list->v[i]);
        list->count = WIRE_PATHS_MAX;
    }
    *ret = xcalloc(list->count + 1, sizeof **ret);
    for (size_t i = 0; i < list->count; i++)
        (*ret)[i] = (struct wire_rate){.path = list->v[i].path,
                                       .bytes_per_s = list->v[i].bytes_per_s,
                                       .samples = list->v[i].samples};
    return true;
}

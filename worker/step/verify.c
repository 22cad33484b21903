/* SPDX-License-Identifier: Apache-2.0 */
/* Verification, as a task: of points in full, or of a share of all data. */
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"
#include "worker/step/point_items.h"
#include "worker/step/upkeep.h"
#include "worker/store/upkeep.h"

static bool stops(void *context)
{
    return run_is_cancelled(context);
}

static void send_point(struct task_run *run, const struct store_point_info *info)
{
    struct point_items items = {0};
    point_items_add(&items, run->store, info, run->settings->zone);
    run_items(run, &(struct wire_item_list){.points = items.v, .points_count = items.count});
    point_items_done(&items);
}

/* ---- a share of everything */

static bool send_damaged(struct task_run *run, struct err *err)
{
    struct store_point_list all = {0};
    if (!store_points_list(run->store, NULL, &all, err))
        return false;
    for (size_t i = 0; i < all.count; i++)
        if (all.items[i].damage)
            send_point(run, &all.items[i]);
    store_point_list_done(&all);
    return true;
}

static bool scrub(struct task_run *run, const struct wire_verify *verify, struct err *err)
{
    struct store_scrub_result r;
    struct store_scrub_opts opts = {.share = (unsigned)verify->share,
                                    .bytes_per_s = (uint64_t)verify->limit_mibs << 20,
                                    .threads = (unsigned)run->settings->copy_threads,
                                    .context = run,
                                    .cancelled = stops};
    if (!run_before_mutation(run, err) || !store_scrub(run->store, &opts, &r, err) ||
        !send_damaged(run, err))
        return false;
    const struct upkeep_number numbers[] = {
        {"packs_read", r.packs},
        {"frames_read", r.frames},
        {"bytes_read", r.bytes_read},
        {"frames_damaged", r.frames_damaged},
        {"frames_healed", r.frames_healed},
        {"points_damaged", r.points_damaged},
        {"points_healed", r.points_healed},
    };
    upkeep_send_numbers(run, numbers, ARRAY_LEN(numbers));
    if (r.points_damaged > 0)
        run_warn(run, err_code_name(ERR_STORE_CORRUPT), NULL,
                 "%llu restore points are damaged: their next backups store anew what is lost",
                 (unsigned long long)r.points_damaged);
    return true;
}

/* ---- points in full */

struct tally {
    uint64_t points, damaged, bytes;
};

/* False only when the run has to stop. */
static bool verify_point(struct task_run *run, const struct store_point_info *info,
                         struct tally *tally, struct err *err)
{
    struct store_verify_opts opts = {
        .threads = (unsigned)run->settings->copy_threads, .context = run, .cancelled = stops};
    struct store_verify_result r = {0};
    struct store_point_info seen = *info; /* borrows its strings */
    struct err why = ERR_INIT;
    if (!store_verify_point(run->store, info->id, &opts, &r, &why)) {
        if (!run_check(run, err))
            return false;
        if (why.code == ERR_NOT_FOUND)
            return true; /* deleted meanwhile */
        if (why.code != ERR_STORE_CORRUPT && why.code != ERR_IO && why.code != ERR_STORE_VERSION) {
            *err = why;
            return false;
        }
        seen.damage = why.message;
        tally->damaged++;
        run_warn(run, err_code_name(why.code), NULL, "%s", why.message);
    } else {
        seen.damage = NULL;
    }
    tally->points++;
    tally->bytes += r.checked_bytes;
    send_point(run, &seen);
    return true;
}

static bool is_wanted(const struct wire_verify *v, const struct store_point_info *p)
{
    return (!v->point || strncmp(p->id, v->point, strlen(v->point)) == 0) &&
           (!v->vm || strcmp(p->vm_id, v->vm) == 0 || strcmp(p->vm_name, v->vm) == 0);
}

static bool verify_points(struct task_run *run, const struct wire_verify *verify, struct err *err)
{
    struct store_point_list all = {0};
    struct tally tally = {0};
    if (!store_points_list(run->store, NULL, &all, err))
        return false;
    bool ok = true, found = false;
    for (size_t i = 0; ok && i < all.count; i++) {
        if (!is_wanted(verify, &all.items[i]))
            continue;
        found = true;
        ok = verify_point(run, &all.items[i], &tally, err);
    }
    store_point_list_done(&all);
    if (!ok)
        return false;
    if (!found && verify->point)
        return err_set(err, ERR_NOT_FOUND, 0, "there is no restore point '%s'", verify->point);
    const struct upkeep_number numbers[] = {{"points_verified", tally.points},
                                            {"points_damaged", tally.damaged},
                                            {"bytes_checked", tally.bytes}};
    upkeep_send_numbers(run, numbers, ARRAY_LEN(numbers));
    return true;
}

bool step_verify(struct task_run *run, struct err *err)
{
    const struct wire_verify *verify = run->offer->verify;
    return verify->vm || verify->point ? verify_points(run, verify, err) : scrub(run, verify, err);
}

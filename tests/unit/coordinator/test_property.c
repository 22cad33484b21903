/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small world around the desk, driven at random: workers that claim, work, give parts away,
 * crash, hang and lose their connection; messages that come twice; a coordinator that is killed
 * before or after a commit. Whatever happens:
 *
 *   - no two workers hold a valid lease (by their own clocks) for one VM at one time, but for the
 *     parts of the one run that gave them away, each on a worker of its own;
 *   - the fence of a VM only rises;
 *   - counters and leases agree with the tasks;
 *   - once the world heals, every request ends, with one outcome for each of its tasks and one
 *     finished, and nothing is left behind in the engine.
 *
 * Each seed is one story; a failing one is printed and can be run alone: OXBOW_SEED=n.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/coordinator/world.h"

/* --- What must always hold --- */
/* Beside a part runs nobody but who gave it away, elsewhere, and other parts, elsewhere too. */
static void check_part(const struct world *w, const struct run *part, const struct run *holder,
                       const struct world_worker *k)
{
    if (holder) {
        assert_string_equal(holder->task, part->of);
        assert_int_equal(holder->fence, part->part_fence);
    }
    for (int i = 0; i < SLOTS; i++) {
        const struct run *other = &k->runs[i];
        if (other == part || !other->used || world_now(w) >= other->valid_until_ms)
            continue;
        assert_string_not_equal(other->task, part->of);
        assert_false(other->is_part && strcmp(other->of, part->of) == 0);
    }
}

static void check_exclusion(const struct world *w)
{
    const struct run *holder[VMS] = {NULL};
    for (int i = 0; i < WORKERS * SLOTS + w->ghost_count; i++) {
        const struct run *r = i < WORKERS * SLOTS ? &w->workers[i / SLOTS].runs[i % SLOTS]
                                                  : &w->ghosts[i - WORKERS * SLOTS];
        int vm = r->used && !r->is_part ? world_vm_index(r->vm) : -1;
        if (vm < 0 || world_now(w) >= r->valid_until_ms)
            continue;
        if (holder[vm])
            fail_msg("vm-%d: task %s fence %" PRId64 " and task %s fence %" PRId64, vm,
                     holder[vm]->task, holder[vm]->fence, r->task, r->fence);
        holder[vm] = r;
    }
    for (int i = 0; i < WORKERS * SLOTS; i++) {
        const struct run *r = &w->workers[i / SLOTS].runs[i % SLOTS];
        if (r->used && r->is_part && world_now(w) < r->valid_until_ms)
            check_part(w, r, holder[world_vm_index(r->vm)], &w->workers[i / SLOTS]);
    }
}

/* --- Requesters --- */
static void ask(struct world *w)
{
    struct err err = ERR_INIT;
    if (w->request_count < REQUESTS && world_chance(20)) {
        int i = w->request_count++;
        struct wire_select select = {.all = true};
        struct wire_backup_opts opts = {.workers = world_chance(70) ? 2 + world_below(2) : 0};
        const struct wire_backup b = {.select = &select,
                                      .options = &opts,
                                      .deadline_s = world_chance(w->mild ? 2 : 20) ? 300 : 0};
        id_new(w->requests[i]);
        size_t len;
        SCOPED_FREE char *body = wire_encode(WIRE_BACKUP, &b, &len, &err);
        const struct bed_props props = {.type = wire_type_name(WIRE_BACKUP),
                                        .correlation_id = w->requests[i],
                                        .reply_to = "replies"};
        for (int n = world_chance(30) ? 2 : 1; n > 0; n--)
            assert_int_equal(bed_feed(w->bed, true, &props, body, &err), DESK_DONE);
    } else if (w->request_count > 0 && world_chance(w->mild ? 0 : 3)) {
        const struct wire_cancel c = {.request =
                                          w->requests[world_below((unsigned)w->request_count)]};
        bed_request(w->bed, WIRE_CANCEL, &c, &(struct bed_props){.reply_to = "canceller"});
    } else {
        return;
    }
    world_route(w);
}

static void pass_time(struct world *w)
{
    int64_t ms = world_chance(85) ? world_below(2000) : world_below(20000);
    w->bed->clock.mono_ms += ms;
    w->bed->clock.wall_ms += ms;
    check_exclusion(w);
}

static void tick(struct world *w)
{
    if (!w->healed)
        ask(w);
    world_worker_turn(w, &w->workers[world_below(WORKERS)]);
    check_exclusion(w);
    world_coordinator_turn(w);
    pass_time(w);
}

/* --- The story --- */
static bool is_quiet(struct world *w)
{
    struct err err = ERR_INIT;
    struct load_list loads;
    struct ledger *l = desk_core(w->bed->desk)->ledger;
    assert_true(ledger_load(l, &loads, &err));
    bool quiet = loads.count == 0;
    load_list_done(&loads);
    for (int i = 0; i < w->request_count; i++) {
        SCOPED_TASKS struct task_list tasks = {0};
        assert_true(ledger_task_of_request(l, w->requests[i], 0, 1000, &tasks, &err));
        for (size_t n = 0; n < tasks.count; n++)
            quiet &= !task_is_open(tasks.v[n].state);
    }
    return quiet && w->inbox_count == 0;
}

static void check_end(struct world *w)
{
    for (int i = 0; i < w->request_count; i++) {
        assert_int_equal(w->finished[i], 1);
        assert_int_equal(w->outcomes[i], w->promised[i]);
    }
    for (int i = 0; i < w->snapshot_count; i++) {
        if (w->snapshots[i].exists)
            fail_msg("snapshot s%d of task %s was left behind", i, w->snapshots[i].task);
    }
    for (int i = 0; i < w->hold_count; i++) {
        const struct part_hold *h = &w->holds[i];
        if (h->attached || h->committed)
            fail_msg("part %s of task %s left its %s behind", h->session, h->of,
                     h->attached ? "attachment" : "point");
    }
    bed_check(w->bed);
}

static void world_free(struct world *w)
{
    world_pop_inbox(w, w->inbox_count);
    for (int q = 0; q < 2 * LANE_COUNT; q++) {
        for (int i = 0; i < w->offer_count[q]; i++)
            wire_free(&w->offers[q][i]);
    }
    for (int i = 0; i < WORKERS; i++) {
        struct world_worker *k = &w->workers[i];
        if (k->claiming)
            wire_free(&k->offer);
        for (int n = 0; n < k->control_count; n++)
            sent_done(&k->control[n]);
    }
    bed_free(w->bed);
    free(w);
}

static int tell_story(uint64_t seed, int ticks)
{
    world_seed(seed);
    struct world *w = ALLOC_NEW(struct world);
    w->bed = bed_new("dc1", "dc2", NULL);
    w->bed->conf.limits.max_running = 6;
    w->mild = world_chance(50);
    for (int i = 0; i < WORKERS; i++) {
        snprintf(w->workers[i].name, sizeof w->workers[i].name, "w%d", i);
        w->workers[i].zone = i % 2;
    }
    for (int i = 0; i < ticks; i++) {
        tick(w);
        if (i % 50 == 0)
            bed_check(w->bed);
    }
    w->healed = true;
    int limit = 20000;
    while (!is_quiet(w) && limit-- > 0) {
        for (int i = 0; i < 20; i++)
            tick(w);
    }
    assert_true(limit > 0);
    check_end(w);
    int parts = w->parts_done;
    world_free(w);
    return parts;
}

static void every_story_ends_well(void **state)
{
    (void)state;
    const char *one = getenv("OXBOW_SEED"), *many = getenv("OXBOW_SEEDS");
    uint64_t first = one ? strtoull(one, NULL, 10) : 1;
    uint64_t last = one ? first : many ? strtoull(many, NULL, 10) : 15;
    int parts = 0;
    for (uint64_t seed = first; seed <= last; seed++) {
        print_message("seed %" PRIu64 "\n", seed);
        parts += tell_story(seed, 1500);
    }
    print_message("%d parts succeeded\n", parts);
    assert_true(one || parts > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_story_ends_well)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

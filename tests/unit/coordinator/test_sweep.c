/* SPDX-License-Identifier: Apache-2.0 */
/* Sweeps: verdicts, clean-ups, the coordinator's own; gauges; the history of a task. */
#include <fcntl.h>
#include <string.h>

#include "coordinator/gauges.h"
#include "proto/base/file.h"
#include "tests/unit/coordinator/bed.h"

#define STRANGER "11112222-3333-4444-8555-666677778888"

static struct hold ask(struct bed *bed, bool dry_run)
{
    const struct wire_sweep message = {.dry_run = dry_run};
    bed_request(bed, WIRE_SWEEP, &message, &(struct bed_props){.reply_to = "sweeper"});
    struct hold h = bed_offer(bed);
    assert_string_equal(h.kind, "sweep");
    bed_claim(bed, &h, "w1");
    bed_drop(bed);
    return h;
}

static void answer(struct bed *bed, const struct hold *h, struct wire_trace_item *traces,
                   size_t count)
{
    struct wire_item_list list = {.traces = traces, .traces_count = count};
    const struct wire_items items = {.task = S(h->task),
                                     .worker = S(h->worker),
                                     .attempt = h->attempt,
                                     .fence = h->fence,
                                     .page = 1,
                                     .items = &list};
    if (count > 0)
        bed_event(bed, WIRE_ITEMS, &items, NULL);
    const struct wire_result r = {.task = S(h->task),
                                  .worker = S(h->worker),
                                  .attempt = h->attempt,
                                  .fence = h->fence,
                                  .status = S("succeeded"),
                                  .pages = count > 0};
    bed_event(bed, WIRE_RESULT, &r, NULL);
}

/* One trace, judged: its page, and the trace in it. */
static const struct wire_trace_item *judged(struct bed *bed, bool dry_run,
                                            struct wire_trace_item trace, struct sent *page)
{
    struct hold h = ask(bed, dry_run);
    answer(bed, &h, &trace, 1);
    *page = bed_take_for(bed, WIRE_PAGE, "sweeper");
    const struct wire_item_list *items = ((const struct wire_page *)page->m.as)->items;
    assert_int_equal(items->traces_count, 1);
    SCOPED_SENT struct sent end = bed_take_for(bed, WIRE_FINISHED, "sweeper");
    const struct wire_finished *f = end.m.as;
    assert_string_equal(f->status, "succeeded");
    assert_int_equal(f->pages, 1);
    bed_check(bed);
    return &items->traces[0];
}

static struct wire_trace_item snapshot_of(const char *task)
{
    return (struct wire_trace_item){.kind = S("snapshot"),
                                    .zone = S("dc1"),
                                    .vm = S("vm-1"),
                                    .vm_name = S("name-1"),
                                    .id = S("snap-1"),
                                    .task = S(task),
                                    .fence = 1,
                                    .time_ms = INT64_C(1795999000000),
                                    .fate = S("none")};
}

/* A backup that has ended, and not a moment ago. */
static struct hold ended_backup(struct bed *bed, const char *status)
{
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    bed_result(bed, &h, status);
    bed_wait(bed, 1000);
    bed_drop(bed);
    return h;
}

static struct hold ended_restore(struct bed *bed, const char *status)
{
    bed_presence(bed, "w1", "dc1", 4);
    struct wire_restore_opts opts = {.point = S("p1"), .name = S("new")};
    const struct wire_restore message = {.options = &opts, .zone = S("dc1")};
    bed_request(bed, WIRE_RESTORE, &message, NULL);
    struct hold h = bed_offer(bed);
    bed_claim(bed, &h, "w1");
    bed_result(bed, &h, status);
    bed_wait(bed, 1000);
    bed_drop(bed);
    return h;
}

static void what_an_ended_task_left_is_cleaned_up(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    struct hold h = ended_backup(bed, "succeeded");
    SCOPED_SENT struct sent page = {0};
    const struct wire_trace_item *t = judged(bed, false, snapshot_of(h.task), &page);
    assert_string_equal(t->verdict, "cleanup");
    SCOPED_SENT struct sent offer = bed_take(bed, WIRE_OFFER);
    const struct wire_offer *o = offer.m.as;
    assert_string_equal(o->kind, "cleanup");
    assert_string_equal(o->cleanup_task, h.task);
    assert_string_equal(o->vm, "vm-1");
    assert_int_equal(o->cleanup.count, 1);
    assert_string_equal(o->cleanup.v[0].kind, "snapshot");
    assert_string_equal(o->cleanup.v[0].id, "snap-1");
    assert_string_equal(o->cleanup.v[0].vm, "vm-1");
    /* Found again while the clean-up is open: no second one. */
    SCOPED_SENT struct sent again = {0};
    t = judged(bed, false, snapshot_of(h.task), &again);
    assert_string_equal(t->verdict, "cleanup");
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
}

static struct wire_trace_item part_of(const char *task)
{
    return (struct wire_trace_item){.kind = S("part"),
                                    .zone = S("dc1"),
                                    .vm = S("vm-1"),
                                    .vm_name = S("name-1"),
                                    .id = S("11112222-3333-4444-8555-666677778888.1"),
                                    .task = S(task),
                                    .time_ms = INT64_C(1795999000000),
                                    .fate = S("committed")};
}

static void a_part_belongs_to_its_main_task(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    SCOPED_SENT struct sent page = {0};
    assert_string_equal(judged(bed, false, part_of(h.task), &page)->verdict, "in-use");
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_result(bed, &h, "succeeded");
    bed_wait(bed, 1000);
    bed_drop(bed);
    SCOPED_SENT struct sent again = {0};
    assert_string_equal(judged(bed, false, part_of(h.task), &again)->verdict, "cleanup");
    SCOPED_SENT struct sent offer = bed_take(bed, WIRE_OFFER);
    const struct wire_offer *o = offer.m.as;
    assert_string_equal(o->cleanup_task, h.task);
    assert_int_equal(o->cleanup.count, 1);
    assert_string_equal(o->cleanup.v[0].kind, "part");
    assert_string_equal(o->cleanup.v[0].id, "11112222-3333-4444-8555-666677778888.1");
    assert_null(o->cleanup.v[0].vm);
}

/* A ledger that knows nothing of it: another coordinator's, or from before. */
static void a_part_of_a_stranger_is_removed_when_it_is_old(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed_presence(bed, "w1", "dc1", 4);
    struct wire_trace_item part = part_of(STRANGER);
    SCOPED_SENT struct sent page = {0};
    assert_string_equal(judged(bed, false, part, &page)->verdict, "foreign");
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    part.time_ms = 0; /* not known */
    SCOPED_SENT struct sent other = {0};
    assert_string_equal(judged(bed, false, part, &other)->verdict, "foreign");
    part.time_ms = INT64_C(1796000000000) - INT64_C(4) * 24 * 3600 * 1000;
    SCOPED_SENT struct sent old = {0};
    assert_string_equal(judged(bed, false, part, &old)->verdict, "cleanup");
    SCOPED_SENT struct sent offer = bed_take(bed, WIRE_OFFER);
    assert_string_equal(((const struct wire_offer *)offer.m.as)->cleanup_task, STRANGER);
}

/* Its main task has ended, and yet the part still reads the snapshot's disk. */
static void what_a_part_holds_is_in_use(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed_presence(bed, "w2", "dc1", 4);
    bed_presence(bed, "w1", "dc1", 4);
    char request[ID_BYTES];
    id_new(request);
    char *names[] = {S("name-1")};
    struct wire_select select = {.names = {names, 1}};
    struct wire_backup_opts opts = {.workers = 2};
    const struct wire_backup b = {.select = &select, .options = &opts};
    bed_request(bed, WIRE_BACKUP, &b, &(struct bed_props){.correlation_id = request});
    struct hold inventory = bed_offer(bed);
    bed_claim(bed, &inventory, "w1");
    bed_inventory(bed, &inventory, 1, 1);
    struct hold h = bed_offer(bed);
    bed_claim(bed, &h, "w1");
    struct wire_piece piece = {
        .disk = S("d1"), .path = S("attach"), .size_bytes = 10, .length = 10};
    struct wire_part part = {.of = h.task, .n = 1, .snapshot = S("s1"), .pieces = {&piece, 1}};
    const struct wire_parts parts = {.task = h.task,
                                     .worker = h.worker,
                                     .attempt = h.attempt,
                                     .fence = h.fence,
                                     .parts = {&part, 1}};
    bed_event(bed, WIRE_PARTS, &parts, NULL);
    struct hold one = bed_offer(bed);
    bed_claim(bed, &one, "w2");
    bed_result(bed, &h, "succeeded");
    bed_wait(bed, 1000);
    bed_drop(bed);
    struct wire_trace_item attachment = snapshot_of(h.task);
    attachment.kind = S("attachment");
    attachment.vm = S("proxy-2");
    SCOPED_SENT struct sent page = {0};
    assert_string_equal(judged(bed, false, attachment, &page)->verdict, "in-use");
    bed_result(bed, &one, "cancelled");
    bed_wait(bed, 1000);
    bed_drop(bed);
    SCOPED_SENT struct sent again = {0};
    assert_string_equal(judged(bed, false, attachment, &again)->verdict, "cleanup");
}

static void a_dry_run_opens_nothing(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    struct hold h = ended_backup(bed, "failed");
    SCOPED_SENT struct sent page = {0};
    assert_string_equal(judged(bed, true, snapshot_of(h.task), &page)->verdict, "cleanup");
    struct wire_trace_item stranger = snapshot_of(STRANGER);
    stranger.fate = S("revoked");
    SCOPED_SENT struct sent other = {0};
    assert_string_equal(judged(bed, true, stranger, &other)->verdict, "cleanup");
    bed_wait(bed, 60 * 1000);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    struct err err = ERR_INIT;
    SCOPED_TASK struct task t = {0};
    assert_true(ledger_task_get(desk_core(bed->desk)->ledger, STRANGER, &t, &err));
    assert_null(t.id);
}

static void a_live_task_keeps_what_it_has(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    SCOPED_SENT struct sent offered = {0};
    bed_drop(bed);
    assert_string_equal(judged(bed, false, snapshot_of(h.task), &offered)->verdict, "in-use");
    bed_claim(bed, &h, "w1");
    SCOPED_SENT struct sent running = {0};
    assert_string_equal(judged(bed, false, snapshot_of(h.task), &running)->verdict, "in-use");
    /* It ends while the worker looks: what was seen may be gone already. */
    struct hold sweep = ask(bed, false);
    bed_result(bed, &h, "succeeded");
    struct wire_trace_item trace = snapshot_of(h.task);
    answer(bed, &sweep, &trace, 1);
    SCOPED_SENT struct sent page = bed_take_for(bed, WIRE_PAGE, "sweeper");
    assert_string_equal(((const struct wire_page *)page.m.as)->items->traces[0].verdict, "in-use");
    bed_wait(bed, 1000);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
}

static void what_nobody_knows_is_foreign(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed_presence(bed, "w1", "dc1", 4);
    SCOPED_SENT struct sent a = {0}, b = {0}, c = {0};
    struct wire_trace_item trace = snapshot_of(STRANGER);
    const struct wire_trace_item *t = judged(bed, false, trace, &a);
    assert_string_equal(t->verdict, "foreign");
    assert_string_equal(t->id, "snap-1");
    trace.fate = S("open"); /* a run without this coordinator, perhaps */
    assert_string_equal(judged(bed, false, trace, &b)->verdict, "foreign");
    trace.task = NULL;
    trace.fence = 0;
    trace.verdict = S("cleanup"); /* a worker does not judge */
    assert_string_equal(judged(bed, false, trace, &c)->verdict, "foreign");
    bed_wait(bed, 60 * 1000);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
}

/* The ledger was lost; the repository remembers. */
static void a_task_that_only_the_repository_knows_is_adopted(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed_presence(bed, "w1", "dc1", 4);
    struct hold sweep = ask(bed, false);
    struct wire_trace_item traces[] = {snapshot_of(STRANGER), snapshot_of(STRANGER)};
    traces[0].fate = traces[1].fate = S("committed");
    traces[1].kind = S("attachment");
    traces[1].vm = S("proxy-1");
    traces[1].id = S("d1");
    answer(bed, &sweep, traces, 2);
    SCOPED_SENT struct sent offer = bed_take(bed, WIRE_OFFER);
    const struct wire_offer *o = offer.m.as;
    assert_string_equal(o->kind, "cleanup");
    assert_string_equal(o->cleanup_task, STRANGER);
    assert_string_equal(o->vm, "vm-1");
    assert_int_equal(o->cleanup.count, 2);
    struct hold h = {.attempt = o->attempt};
    snprintf(h.task, sizeof h.task, "%s", o->task);
    bed_claim(bed, &h, "w1");
    bed_result(bed, &h, "succeeded");
    bed_check(bed);
    bed_wait(bed, 1000);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    /* And known from now on. */
    SCOPED_SENT struct sent page = {0};
    bed_drop(bed);
    assert_string_equal(judged(bed, false, snapshot_of(STRANGER), &page)->verdict, "cleanup");
}

static struct wire_trace_item disk_of(const char *task, const char *vm)
{
    return (struct wire_trace_item){.kind = S("disk"),
                                    .zone = S("dc1"),
                                    .vm = S(vm),
                                    .id = S("disk-1"),
                                    .task = S(task),
                                    .fence = 1,
                                    .fate = S("none")};
}

static void a_finished_restore_keeps_its_disks(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    SCOPED_SENT struct sent a = {0}, b = {0}, c = {0}, d = {0};
    struct hold good = ended_restore(bed, "succeeded");
    assert_string_equal(judged(bed, false, disk_of(good.task, NULL), &a)->verdict, "stands");
    /* Its worker died between taking the mark off the VM and off the disk, and nobody came after.
     */
    struct hold bad = ended_restore(bed, "failed");
    assert_string_equal(judged(bed, false, disk_of(bad.task, "vm-9"), &b)->verdict, "stands");
    struct wire_trace_item attachment = disk_of(bad.task, "vm-9");
    attachment.kind = S("attachment");
    assert_string_equal(judged(bed, false, attachment, &c)->verdict, "stands");
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    /* One that hangs on nothing is half-made. */
    assert_string_equal(judged(bed, false, disk_of(bad.task, NULL), &d)->verdict, "cleanup");
    assert_int_equal(bed_count(bed, WIRE_OFFER), 1);
}

/* What a clean-up could not be told of is not given to one. */
static void a_trace_without_its_place_is_left_alone(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    struct hold h = ended_backup(bed, "failed");
    static const char *const kinds[] = {"snapshot", "attachment", "transfer",
                                        "disk",     "vm",         "session"};
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct wire_trace_item trace = {.kind = S(kinds[i]), .task = h.task, .fence = 1};
        SCOPED_SENT struct sent page = {0};
        assert_string_equal(judged(bed, false, trace, &page)->verdict, "foreign");
    }
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
}

/* Whatever mark it carries: the VM that a restore said it made is the user's. */
static void the_vm_that_a_restore_made_stands(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed_presence(bed, "w1", "dc1", 4);
    struct wire_restore_opts opts = {.point = S("p1"), .name = S("new")};
    const struct wire_restore message = {.options = &opts};
    bed_request(bed, WIRE_RESTORE, &message, NULL);
    struct hold h = bed_offer(bed);
    bed_claim(bed, &h, "w1");
    const struct wire_result r = {.task = h.task,
                                  .worker = h.worker,
                                  .attempt = h.attempt,
                                  .fence = h.fence,
                                  .status = S("succeeded"),
                                  .new_vm = S("vm-9")};
    bed_event(bed, WIRE_RESULT, &r, NULL);
    bed_wait(bed, 1000);
    bed_drop(bed);
    struct wire_trace_item trace = {
        .kind = S("vm"), .vm = S("vm-9"), .task = h.task, .fence = 1, .fate = S("none")};
    SCOPED_SENT struct sent a = {0}, b = {0};
    assert_string_equal(judged(bed, false, trace, &a)->verdict, "stands");
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    trace.vm = S("vm-8"); /* made by a zombie beside it */
    assert_string_equal(judged(bed, false, trace, &b)->verdict, "cleanup");
}

/* The first attempt was lost when it had made the VM, the second one found it complete. */
static struct hold restored_in_two(struct bed *bed, int64_t *ret_first)
{
    bed_presence(bed, "w1", "dc1", 4);
    struct wire_restore_opts opts = {.point = S("p1"), .name = S("new")};
    const struct wire_restore message = {.options = &opts, .zone = S("dc1")};
    bed_request(bed, WIRE_RESTORE, &message, NULL);
    struct hold h = bed_offer(bed);
    bed_claim(bed, &h, "w1");
    *ret_first = h.fence;
    bed_step(bed, &h, "vm", "handle", "vm", "vm-9", NULL);
    bed_wait(bed, 121 * 1000);
    struct hold two = bed_offer(bed);
    bed_claim(bed, &two, "w2");
    bed_step(bed, &two, "clear-earlier", "started", "vm", "vm-9", NULL);
    const struct wire_result r = {.task = two.task,
                                  .worker = two.worker,
                                  .attempt = two.attempt,
                                  .fence = two.fence,
                                  .status = S("succeeded"),
                                  .new_vm = S("vm-9")};
    bed_event(bed, WIRE_RESULT, &r, NULL);
    bed_wait(bed, 1000);
    bed_presence(bed, "w1", "dc1", 4);
    bed_drop(bed);
    return two;
}

/* A disk with the mark of the attempt that made the VM may be the user's, detached since. One with
 * that of another attempt was made by a call that the engine was slow with. */
static void a_disk_of_a_lost_attempt_is_left_behind(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    int64_t first = 0;
    struct hold h = restored_in_two(bed, &first);
    SCOPED_SENT struct sent a = {0}, b = {0}, c = {0}, d = {0}, e = {0};
    struct wire_trace_item disk = disk_of(h.task, NULL);
    disk.fence = first;
    assert_string_equal(judged(bed, false, disk, &a)->verdict, "stands");
    struct wire_trace_item transfer = disk;
    transfer.kind = S("transfer");
    assert_string_equal(judged(bed, false, transfer, &b)->verdict, "stands");
    disk.fence = h.fence;
    disk.vm = S("vm-8"); /* whoever put it there */
    assert_string_equal(judged(bed, false, disk, &c)->verdict, "stands");
    disk.fence = 0;
    disk.vm = NULL;
    assert_string_equal(judged(bed, false, disk, &d)->verdict, "stands");
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    disk.fence = h.fence;
    assert_string_equal(judged(bed, false, disk, &e)->verdict, "cleanup");
    assert_int_equal(bed_count(bed, WIRE_OFFER), 1);
}

/* Without the journal nobody knows which attempt made the VM. */
static void a_disk_of_an_unknown_attempt_stands(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    struct hold h = ended_restore(bed, "succeeded");
    SCOPED_SENT struct sent a = {0};
    struct wire_trace_item disk = disk_of(h.task, NULL);
    disk.fence = h.fence + 1;
    assert_string_equal(judged(bed, false, disk, &a)->verdict, "stands");
}

static void a_transfer_of_an_ended_task_is_ended(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    struct hold h = ended_backup(bed, "failed");
    struct wire_trace_item transfer = snapshot_of(h.task), strange = {0};
    transfer.kind = S("transfer");
    transfer.id = S("transfer-1");
    strange = transfer;
    strange.task = NULL;
    strange.fate = NULL;
    SCOPED_SENT struct sent a = {0}, b = {0};
    assert_string_equal(judged(bed, false, strange, &a)->verdict, "foreign");
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    assert_string_equal(judged(bed, false, transfer, &b)->verdict, "cleanup");
    SCOPED_SENT struct sent offer = bed_take(bed, WIRE_OFFER);
    const struct wire_offer *o = offer.m.as;
    assert_int_equal(o->cleanup.count, 1);
    assert_string_equal(o->cleanup.v[0].kind, "transfer");
    assert_string_equal(o->cleanup.v[0].id, "transfer-1");
    assert_null(o->cleanup.v[0].vm);
    SCOPED_SWEEP struct sweep sums = {0};
    struct err err = ERR_INIT;
    assert_true(ledger_sweep_get(desk_core(bed->desk)->ledger, "dc1", &sums, &err));
    assert_int_equal(sums.transfers, 1);
    assert_int_equal(sums.left_behind, 1);
}

static void a_half_made_vm_and_its_disk_on_a_proxy(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    struct hold h = ended_restore(bed, "failed");
    const struct wire_presence p = {.worker = S("w1"),
                                    .zone = S("dc1"),
                                    .state = S("up"),
                                    .proxy = S("proxy-vm"),
                                    .slots_upkeep = 2};
    bed_event(bed, WIRE_PRESENCE, &p, NULL);
    struct hold sweep = ask(bed, false);
    struct wire_trace_item traces[] = {disk_of(h.task, NULL), disk_of(h.task, "p-1"),
                                       disk_of(h.task, "p-1")};
    traces[0].kind = S("vm");
    traces[0].vm = S("vm-9");
    traces[0].id = NULL;
    traces[1].vm_name = traces[2].vm_name = S("proxy-vm");
    traces[2].kind = S("attachment");
    answer(bed, &sweep, traces, 3);
    SCOPED_SENT struct sent offer = bed_take(bed, WIRE_OFFER);
    const struct wire_offer *o = offer.m.as;
    assert_string_equal(o->kind, "cleanup");
    assert_int_equal(o->cleanup.count, 3);
    assert_string_equal(o->cleanup.v[0].kind, "vm");
    assert_string_equal(o->cleanup.v[0].id, "vm-9");
    assert_string_equal(o->cleanup.v[1].kind, "disk");
    assert_string_equal(o->cleanup.v[1].id, "disk-1");
    assert_null(o->cleanup.v[1].vm);
    assert_string_equal(o->cleanup.v[2].kind, "attachment");
    assert_string_equal(o->cleanup.v[2].vm, "p-1");
}

static void a_dead_session_is_revoked(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", "dc2", NULL);
    struct hold h = ended_restore(bed, "cancelled");
    SCOPED_FREE char *session = xasprintf("%s.1", h.task);
    struct wire_trace_item trace = {
        .kind = S("session"), .id = session, .task = h.task, .fence = 1, .fate = S("open")};
    /* Both zones see it in the repository that they share; its own zone sees to it. */
    const struct wire_sweep message = {0};
    bed_request(bed, WIRE_SWEEP, &message, &(struct bed_props){.reply_to = "sweeper"});
    struct hold one = bed_offer(bed), two = bed_offer(bed);
    bed_claim(bed, &one, "w1");
    bed_claim(bed, &two, "w2");
    bed_drop(bed);
    answer(bed, &two, &trace, 1);
    assert_int_equal(bed_count(bed, WIRE_PAGE), 0);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    answer(bed, &one, &trace, 1);
    SCOPED_SENT struct sent page = bed_take_for(bed, WIRE_PAGE, "sweeper");
    assert_string_equal(((const struct wire_page *)page.m.as)->items->traces[0].verdict, "cleanup");
    SCOPED_SENT struct sent offer = bed_take(bed, WIRE_OFFER);
    const struct wire_offer *o = offer.m.as;
    assert_string_equal(o->cleanup.v[0].kind, "session");
    assert_string_equal(o->cleanup.v[0].id, session);
    bed_check(bed);
}

static void it_sweeps_by_itself(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed->sweep_s = 600;
    bed_presence(bed, "w1", "dc1", 4);
    bed_wait(bed, 5 * 1000);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_wait(bed, 6 * 1000);
    struct hold h = bed_offer(bed);
    assert_string_equal(h.kind, "sweep");
    bed_wait(bed, 1200 * 1000); /* nobody takes it: not a second one */
    bed_presence(bed, "w1", "dc1", 4);
    bed_drop_type(bed, WIRE_OFFER);
    struct err err = ERR_INIT;
    SCOPED_TASK struct task t = {0};
    assert_true(ledger_task_get(desk_core(bed->desk)->ledger, h.task, &t, &err));
    h.attempt = t.attempt;
    bed_claim(bed, &h, "w1");
    answer(bed, &h, NULL, 0);
    bed_wait(bed, 1000);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_wait(bed, 600 * 1000);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 1);
    /* Nobody asked, nobody is told, no listing shows it. */
    bed_drop(bed);
    const struct wire_status status = {0};
    bed_request(bed, WIRE_STATUS, &status, NULL);
    for (size_t i = 0; i < bed->count; i++) {
        if (bed->sent[i].m.type == WIRE_PAGE)
            assert_int_equal(((const struct wire_page *)bed->sent[i].m.as)->items->requests_count,
                             0);
    }
    bed_check(bed);
}

/* --- Gauges --- */
static int64_t gauge(struct bed *bed, const char *name, const char *zone, const char *lane)
{
    struct err err = ERR_INIT;
    SCOPED_GAUGES struct gauges g = {0};
    assert_true(gauges_read(desk_core(bed->desk), &g, &err));
    int64_t value = -1;
    for (size_t i = 0; i < g.count; i++) {
        const struct wire_gauge_item *v = &g.v[i];
        if (strcmp(v->name, name) == 0 && (!zone || strcmp(v->zone, zone) == 0) &&
            (!lane || strcmp(v->lane, lane) == 0))
            value = v->value;
    }
    return value;
}

static void the_gauges_tell_how_things_stand(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    assert_int_equal(gauge(bed, "workers_up", "dc1", NULL), 0);
    assert_int_equal(gauge(bed, "snapshots", "dc1", NULL), -1); /* not known */
    struct hold h = ended_backup(bed, "failed");
    char request[ID_BYTES];
    struct hold live = bed_backup_one(bed, "w1", request);
    assert_int_equal(gauge(bed, "tasks_waiting", "dc1", "backup"), 1);
    bed_claim(bed, &live, "w1");
    assert_int_equal(gauge(bed, "tasks_waiting", "dc1", "backup"), 0);
    assert_int_equal(gauge(bed, "tasks_running", "dc1", "backup"), 1);
    assert_int_equal(gauge(bed, "tasks_running", "dc1", "restore"), 0);
    assert_int_equal(gauge(bed, "workers_up", "dc1", NULL), 1);
    bed_drop(bed);
    const struct wire_sweep message = {.zone = S("dc1")};
    bed_request(bed, WIRE_SWEEP, &message, NULL);
    struct hold sweep = bed_offer(bed);
    bed_claim(bed, &sweep, "w1");
    struct wire_trace_item traces[] = {snapshot_of(h.task), snapshot_of(live.task),
                                       snapshot_of(STRANGER)};
    traces[1].time_ms = desk_core(bed->desk)->now_ms - 7000;
    traces[0].time_ms = desk_core(bed->desk)->now_ms - 90 * 1000;
    traces[1].id = S("snap-2");
    answer(bed, &sweep, traces, 3);
    bed_wait(bed, 10 * 1000);
    assert_int_equal(gauge(bed, "snapshots", "dc1", NULL), 2);
    assert_int_equal(gauge(bed, "snapshot_oldest_age_seconds", "dc1", NULL), 100);
    assert_int_equal(gauge(bed, "sweep_age_seconds", "dc1", NULL), 10);
    assert_int_equal(gauge(bed, "left_behind", "dc1", NULL), 1);
    assert_int_equal(gauge(bed, "foreign", "dc1", NULL), 1);
    assert_int_equal(gauge(bed, "cleanups_open", NULL, NULL), 1);
    assert_int_equal(gauge(bed, "cleanup_oldest_age_seconds", NULL, NULL), 10);
}

static void the_metrics_file_is_what_a_collector_reads(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    SCOPED_FREE char *path = xasprintf("%s/oxbow.prom", bed->dir.path);
    bed->conf.metrics_file = path;
    bed_turn(bed);
    bed_presence(bed, "w1", "dc1", 4); /* 15 seconds later it will show */
    struct err err = ERR_INIT;
    SCOPED_BUF struct buf text;
    assert_true(file_read_all(AT_FDCWD, path, 1 << 20, &text, &err));
    assert_non_null(strstr(buf_str(&text), "# TYPE oxbow_workers_up gauge\n"));
    assert_non_null(strstr(buf_str(&text), "\noxbow_cleanups_open 0\n"));
    assert_non_null(
        strstr(buf_str(&text), "\noxbow_tasks_running{zone=\"dc1\",lane=\"backup\"} 0\n"));
    assert_null(strstr(buf_str(&text), "workers_up{zone=\"dc1\"} 1\n"));
    bed_wait(bed, 16 * 1000);
    buf_done(&text);
    assert_true(file_read_all(AT_FDCWD, path, 1 << 20, &text, &err));
    assert_non_null(strstr(buf_str(&text), "\noxbow_workers_up{zone=\"dc1\"} 1\n"));
    /* A file that cannot be written stops nothing. */
    SCOPED_FREE char *nowhere = xasprintf("%s/none/oxbow.prom", bed->dir.path);
    bed->conf.metrics_file = nowhere;
    bed_wait(bed, 16 * 1000);
    bed_wait(bed, 16 * 1000);
    bed_check(bed);
}

/* --- History --- */
static void a_task_tells_its_attempts(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    bed_step(bed, &h, "copy", "started", NULL);
    bed_wait(bed, 121 * 1000); /* lost */
    h = bed_offer(bed);
    bed_claim(bed, &h, "w2");
    bed_step(bed, &h, "attach", "started", NULL);
    bed_fail(bed, &h, ERR_TIMEOUT, NULL);
    bed_wait(bed, 3600 * 1000);
    bed_presence(bed, "w1", "dc1", 4);
    h = bed_offer(bed);
    bed_claim(bed, &h, "w1");
    bed_step(bed, &h, "copy", "started", NULL);
    bed_wait(bed, 121 * 1000);
    SCOPED_SENT struct sent outcome = bed_take(bed, WIRE_OUTCOME);
    assert_string_equal(((const struct wire_outcome *)outcome.m.as)->error->code, "quarantined");
    assert_int_equal(gauge(bed, "quarantined", NULL, NULL), 1);
    bed_drop(bed);
    const struct wire_status status = {.request = h.task};
    bed_request(bed, WIRE_STATUS, &status, NULL);
    SCOPED_SENT struct sent first = bed_take(bed, WIRE_PAGE), second = bed_take(bed, WIRE_PAGE);
    const struct wire_item_list *tasks = ((const struct wire_page *)first.m.as)->items;
    assert_int_equal(tasks->tasks_count, 1);
    assert_string_equal(tasks->tasks[0].id, h.task);
    assert_string_equal(tasks->tasks[0].error->code, "quarantined");
    const struct wire_item_list *list = ((const struct wire_page *)second.m.as)->items;
    assert_int_equal(list->attempts_count, 3);
    const struct wire_attempt_item *a = list->attempts;
    assert_string_equal(a[0].worker, "w1");
    assert_string_equal(a[0].ended, "lost");
    assert_string_equal(a[0].step, "copy");
    assert_non_null(strstr(a[0].error->message, "w1"));
    assert_string_equal(a[1].worker, "w2");
    assert_string_equal(a[1].ended, "failed");
    assert_string_equal(a[1].step, "attach");
    assert_string_equal(a[1].error->code, "timeout");
    assert_true(a[1].time_ms > a[0].ended_ms - 1 && a[1].fence > a[0].fence);
    assert_string_equal(a[2].ended, "lost");
    assert_string_equal(a[2].step, "copy");
    /* The way out: asked again, it is a new task with all its attempts. */
    bed_drop(bed);
    bed_presence(bed, "w1", "dc1", 4);
    char again[ID_BYTES];
    bed_backup(bed, "name-1", again);
    bed_check(bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_an_ended_task_left_is_cleaned_up),
        cmocka_unit_test(a_part_belongs_to_its_main_task),
        cmocka_unit_test(a_part_of_a_stranger_is_removed_when_it_is_old),
        cmocka_unit_test(what_a_part_holds_is_in_use),
        cmocka_unit_test(a_dry_run_opens_nothing),
        cmocka_unit_test(a_live_task_keeps_what_it_has),
        cmocka_unit_test(what_nobody_knows_is_foreign),
        cmocka_unit_test(a_task_that_only_the_repository_knows_is_adopted),
        cmocka_unit_test(a_finished_restore_keeps_its_disks),
        cmocka_unit_test(a_disk_of_a_lost_attempt_is_left_behind),
        cmocka_unit_test(a_disk_of_an_unknown_attempt_stands),
        cmocka_unit_test(a_transfer_of_an_ended_task_is_ended),
        cmocka_unit_test(a_half_made_vm_and_its_disk_on_a_proxy),
        cmocka_unit_test(a_trace_without_its_place_is_left_alone),
        cmocka_unit_test(the_vm_that_a_restore_made_stands),
        cmocka_unit_test(a_dead_session_is_revoked),
        cmocka_unit_test(it_sweeps_by_itself),
        cmocka_unit_test(the_gauges_tell_how_things_stand),
        cmocka_unit_test(the_metrics_file_is_what_a_collector_reads),
        cmocka_unit_test(a_task_tells_its_attempts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

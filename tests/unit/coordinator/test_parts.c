/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of a backup or restore that other workers do: who gets them, what their main task is told,
 * and that nothing of them is left whatever ends first. */
#include <string.h>

#include "tests/unit/coordinator/bed.h"

enum { NONE = 0 };

static struct task task_of(struct bed *bed, const char *id)
{
    struct err err = ERR_INIT;
    struct task t;
    assert_true(ledger_task_get(desk_core(bed->desk)->ledger, id, &t, &err));
    assert_non_null(t.id);
    return t;
}

static enum task_state state_of(struct bed *bed, const struct hold *h)
{
    SCOPED_TASK struct task t = task_of(bed, h->task);
    return t.state;
}

static void workers_come(struct bed *bed, int count)
{
    for (int i = 1; i <= count; i++) {
        SCOPED_FREE char *name = xasprintf("w%d", i);
        bed_presence(bed, name, "dc1", 4);
    }
}

/* A backup of "name-1" that may use so many workers: its offer. */
static struct hold offered_backup(struct bed *bed, int64_t workers, char *ret_request)
{
    char *names[] = {S("name-1")};
    struct wire_select select = {.names = {names, 1}};
    struct wire_backup_opts opts = {.workers = workers};
    const struct wire_backup b = {.select = &select, .options = &opts, .progress = true};
    id_new(ret_request);
    bed_request(bed, WIRE_BACKUP, &b, &(struct bed_props){.correlation_id = ret_request});
    bed_drop_type(bed, WIRE_ACCEPTED);
    struct hold inventory = bed_offer(bed);
    bed_claim(bed, &inventory, "w1");
    bed_inventory(bed, &inventory, 1, 1);
    return bed_offer(bed);
}

/* The same, running on w1, with workers w1..w4 there. */
static struct hold wide_backup(struct bed *bed, int64_t workers, char *ret_request)
{
    workers_come(bed, 4);
    struct hold h = offered_backup(bed, workers, ret_request);
    bed_claim(bed, &h, "w1");
    bed_step(bed, &h, "snapshot", "done", "snapshot", "s1", NULL);
    bed_drop(bed);
    return h;
}

struct ask {
    int64_t give, withdraw; /* bits 1 << n */
    bool restore;
    int64_t length; /* of the piece; 0 = 10 of 10 bytes */
};

static void ask(struct bed *bed, const struct hold *h, struct ask a)
{
    struct wire_piece piece = {.disk = S("d1"),
                               .from = a.restore ? S("d0") : NULL,
                               .image = a.restore ? NULL : S("i1"),
                               .path = S("attach"),
                               .size_bytes = 10,
                               .length = a.length ? a.length : 10};
    struct wire_part parts[WIRE_PARTS_MAX];
    int64_t withdraw[WIRE_PARTS_MAX];
    struct wire_parts m = {.task = S(h->task),
                           .worker = S(h->worker),
                           .attempt = h->attempt,
                           .fence = h->fence,
                           .parts = {parts, 0},
                           .withdraw = {withdraw, 0}};
    for (int64_t n = 1; n <= WIRE_PARTS_MAX; n++) {
        if (a.give & 1 << n)
            parts[m.parts.count++] = (struct wire_part){.of = S(h->task),
                                                        .n = n,
                                                        .snapshot = a.restore ? NULL : S("s1"),
                                                        .point = a.restore ? S("p1") : NULL,
                                                        .pieces = {&piece, 1}};
        if (a.withdraw & 1 << n)
            withdraw[m.withdraw.count++] = n;
    }
    struct err why = ERR_INIT;
    size_t len;
    SCOPED_FREE char *body = wire_encode(WIRE_PARTS, &m, &len, &why);
    assert_non_null(body);
    const struct bed_props props = {.type = "oxbow.parts.v1"};
    enum desk_verdict wanted = piece.length > piece.size_bytes ? DESK_BURY : DESK_DONE;
    assert_int_equal(bed_feed(bed, false, &props, body, &why), wanted);
}
#define GIVE(n)     (1 << (n))
#define ASK(...)    ask(bed, &h, (struct ask){__VA_ARGS__})
#define LAST_PARTED last_parted(bed, &h)

/* The newest `parted` for this run; older ones are dropped. */
static struct sent last_parted(struct bed *bed, const struct hold *h)
{
    SCOPED_FREE char *key = topology_control_key(h->worker);
    struct sent s = bed_take_for(bed, WIRE_PARTED, key);
    while (bed_count(bed, WIRE_PARTED) > 0) {
        sent_done(&s);
        s = bed_take_for(bed, WIRE_PARTED, key);
    }
    const struct wire_parted *p = s.m.as;
    assert_string_equal(p->task, h->task);
    assert_string_equal(p->worker, h->worker);
    assert_int_equal(p->attempt, h->attempt);
    assert_int_equal(p->fence, h->fence);
    return s;
}

static const struct wire_part_state *part_in(const struct sent *s, int64_t n)
{
    static const struct wire_part_state none = {0};
    const struct wire_parted *p = s->m.as;
    for (size_t i = 0; i < p->states.count; i++) {
        if (p->states.v[i].n == n)
            return &p->states.v[i];
    }
    fail_msg("no part %d", (int)n);
    return &none;
}

/* Takes the newest `parted` and looks at one part. */
static void expect_part(struct bed *bed, const struct hold *h, int64_t n, const char *state)
{
    SCOPED_SENT struct sent s = last_parted(bed, h);
    assert_string_equal(part_in(&s, n)->state, state);
}

/* A part that runs on a worker, taken from its offer. */
static struct hold running_part(struct bed *bed, const char *worker)
{
    struct hold part = bed_offer(bed);
    assert_true(wire_is_part(part.kind));
    bed_claim(bed, &part, worker);
    return part;
}

static void part_succeeds(struct bed *bed, const struct hold *part)
{
    SCOPED_FREE char *point = xasprintf("%s.%d", part->task, (int)part->fence);
    struct wire_stats stats = {.bytes_read = 7, .disks = 1};
    const struct wire_result r = {.task = S(part->task),
                                  .worker = S(part->worker),
                                  .attempt = part->attempt,
                                  .fence = part->fence,
                                  .status = S("succeeded"),
                                  .point = point,
                                  .stats = &stats};
    bed_event(bed, WIRE_RESULT, &r, NULL);
}

static void expect_cleanup_of_point(struct bed *bed, const struct hold *part, const char *of)
{
    SCOPED_SENT struct sent s = bed_take(bed, WIRE_OFFER);
    const struct wire_offer *o = s.m.as;
    SCOPED_FREE char *session = xasprintf("%s.%d", part->task, (int)part->fence);
    assert_string_equal(o->kind, "cleanup");
    assert_string_equal(o->cleanup_task, of);
    bool found = false;
    for (size_t i = 0; i < o->cleanup.count; i++)
        found |=
            strcmp(o->cleanup.v[i].kind, "part") == 0 && strcmp(o->cleanup.v[i].id, session) == 0;
    assert_true(found);
}

/* --- Giving away --- */
static void parts_become_tasks(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 3, request);
    ASK(.give = GIVE(1) | GIVE(2));
    SCOPED_SENT struct sent told = LAST_PARTED;
    assert_int_equal(((const struct wire_parted *)told.m.as)->states.count, 2);
    for (int n = 1; n <= 2; n++) {
        SCOPED_SENT struct sent s = bed_take(bed, WIRE_OFFER);
        const struct wire_offer *o = s.m.as;
        assert_string_equal(s.key, "oxbow.tasks.dc1.backup");
        assert_string_equal(o->kind, "backup-part");
        assert_string_equal(o->request, request);
        assert_string_equal(o->vm, "vm-1");
        assert_string_equal(o->vm_name, "name-1");
        assert_int_equal(o->backup->workers, 3);
        assert_string_equal(o->part->of, h.task);
        assert_int_equal(o->part->n, n);
        assert_string_equal(o->part->snapshot, "s1");
        assert_string_equal(o->part->pieces.v[0].image, "i1");
        const struct wire_part_state *p = part_in(&told, n);
        assert_string_equal(p->task, o->task);
        assert_string_equal(p->state, "waiting");
        assert_null(p->worker);
        assert_int_equal(p->fence, 0);
    }
    bed_check(bed);
}

static void asked_again_is_no_new_part(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 3, request);
    ASK(.give = GIVE(1));
    bed_drop(bed);
    ASK(.give = GIVE(1));
    ASK(.give = NONE);
    assert_int_equal(bed_count(bed, WIRE_PARTED), 2);
    bed_restart(bed);
    ASK(.give = GIVE(1));
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    expect_part(bed, &h, 1, "waiting");
    /* ... nor when it has ended. */
    ASK(.withdraw = GIVE(1));
    ASK(.give = GIVE(1));
    expect_part(bed, &h, 1, "cancelled");
    bed_check(bed);
}

static void every_worker_gets_one(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 4, request);
    ASK(.give = GIVE(1) | GIVE(2));
    bed_drop_type(bed, WIRE_PARTED);
    struct hold one = bed_offer(bed), two = bed_offer(bed);
    bed_claim_denied(bed, &one, "w1", 0); /* the main task runs there */
    bed_claim(bed, &two, "w2");
    expect_part(bed, &h, 2, "running");
    /* It is offered again soon, as another attempt: the old offer is void. */
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_wait(bed, 300);
    bed_claim_denied(bed, &one, "w3", 0);
    one = bed_offer(bed);
    bed_claim_denied(bed, &one, "w2", 0); /* another part runs there */
    bed_wait(bed, 600);
    one = bed_offer(bed);
    bed_claim(bed, &one, "w3");
    SCOPED_SENT struct sent told = LAST_PARTED;
    assert_string_equal(part_in(&told, 1)->worker, "w3");
    assert_string_equal(part_in(&told, 2)->worker, "w2");
    assert_int_equal(part_in(&told, 1)->fence, 1);
    bed_check(bed);
}

static void who_is_done_takes_another(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 4, request);
    ASK(.give = GIVE(1) | GIVE(2));
    struct hold one = running_part(bed, "w2");
    part_succeeds(bed, &one);
    struct hold two = running_part(bed, "w2");
    assert_string_not_equal(one.task, two.task);
}

static void a_worker_in_the_same_proxy_gets_none(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct wire_presence p = {
        .worker = S("w1"), .zone = S("dc1"), .proxy = S("proxy1"), .state = S("up")};
    p.slots_backup = p.slots_upkeep = p.slots_restore = 4;
    bed_event(bed, WIRE_PRESENCE, &p, NULL);
    p.worker = S("w2");
    bed_event(bed, WIRE_PRESENCE, &p, NULL);
    struct hold h = offered_backup(bed, 2, request);
    bed_claim(bed, &h, "w1");
    ASK(.give = GIVE(1));
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    p.worker = S("w3");
    p.proxy = S("proxy3");
    bed_event(bed, WIRE_PRESENCE, &p, NULL);
    struct hold part = bed_offer(bed);
    bed_claim_denied(bed, &part, "w2", 0);
    bed_wait(bed, 300);
    part = bed_offer(bed);
    bed_claim(bed, &part, "w3");
}

static void nothing_is_offered_where_nobody_could(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    bed_presence(bed, "w1", "dc1", 4);
    struct hold h = offered_backup(bed, 4, request);
    bed_claim(bed, &h, "w1");
    ASK(.give = GIVE(1) | GIVE(2));
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    expect_part(bed, &h, 1, "waiting");
    bed_presence(bed, "w2", "dc1", 1);
    struct hold one = bed_offer(bed);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0); /* one taker, one offer */
    bed_claim(bed, &one, "w2");
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_presence(bed, "w3", "dc2", 4); /* another zone */
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    part_succeeds(bed, &one);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 1);
}

static void parts_come_first(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES], other[ID_BYTES];
    workers_come(bed, 2);
    bed->conf.limits.max_running = 3;
    struct hold h = offered_backup(bed, 2, request);
    bed_claim(bed, &h, "w1");
    bed_backup(bed, NULL, other);
    struct hold inventory = bed_offer(bed);
    bed_claim(bed, &inventory, "w1");
    bed_inventory(bed, &inventory, 2, 10);
    bed_drop(bed); /* two of them are offered */
    ASK(.give = GIVE(1));
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0); /* limits hold for parts */
    bed->conf.limits.max_running = 4;
    bed_presence(bed, "w3", "dc1", 1);
    struct hold part = bed_offer(bed);
    assert_string_equal(part.kind, "backup-part");
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
}

static void more_than_was_asked_for_is_refused(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 2, request);
    ASK(.give = GIVE(1) | GIVE(2));
    assert_int_equal(bed_count(bed, WIRE_OFFER), 1);
    SCOPED_SENT struct sent told = LAST_PARTED;
    assert_string_equal(part_in(&told, 1)->state, "waiting");
    assert_string_equal(part_in(&told, 2)->state, "failed");
    assert_string_equal(part_in(&told, 2)->error->code, "refused");
    bed_check(bed);
}

static void without_the_option_there_are_none(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    workers_come(bed, 3);
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    ASK(.give = GIVE(1));
    expect_part(bed, &h, 1, "failed");
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
}

static void senseless_parts_are_buried(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 2, request);
    ASK(.give = GIVE(1), .length = 11); /* of a disk of 10 bytes */
    assert_int_equal(bed_count(bed, WIRE_PARTED), 0);
    ASK(.give = NONE);
    SCOPED_SENT struct sent told = LAST_PARTED;
    assert_int_equal(((const struct wire_parted *)told.m.as)->states.count, 0);
    struct err why = ERR_INIT;
    SCOPED_FREE char *body = xasprintf(
        "{\"task\":\"%s\",\"worker\":\"w1\",\"attempt\":1,\"fence\":%d,\"parts\":[{\"of\":\"%s\","
        "\"n\":1,\"point\":\"p\",\"pieces\":[{\"disk\":\"d\",\"path\":\"attach\",\"size_bytes\":1,"
        "\"offset\":0,\"length\":1}]}]}",
        h.task, (int)h.fence, h.task);
    const struct bed_props props = {.type = "oxbow.parts.v1"};
    assert_int_equal(bed_feed(bed, false, &props, body, &why), DESK_BURY);
    assert_non_null(strstr(why.message, "needs a snapshot"));
    bed_check(bed);
}

/* --- How they end --- */
static void a_part_that_succeeds_is_told(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 2, request);
    ASK(.give = GIVE(1));
    struct hold part = running_part(bed, "w2");
    bed_copying(bed, &part, 5, 9);
    bed_drop(bed);
    part_succeeds(bed, &part);
    assert_int_equal(bed_count(bed, WIRE_OUTCOME), 0);
    assert_int_equal(bed_count(bed, WIRE_FINISHED), 0);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0); /* the main task deletes the point */
    bed_restart(bed);
    part_succeeds(bed, &part); /* doubled */
    ASK(.give = NONE);
    SCOPED_FREE char *point = xasprintf("%s.%d", part.task, (int)part.fence);
    SCOPED_SENT struct sent told = LAST_PARTED;
    const struct wire_part_state *p = part_in(&told, 1);
    assert_string_equal(p->state, "succeeded");
    assert_string_equal(p->point, point);
    assert_string_equal(p->worker, "w2");
    assert_int_equal(p->stats->bytes_read, 7);
    assert_int_equal(p->bytes_done, 5);
    assert_int_equal(p->bytes_total, 9);
    assert_false(p->cleanup_open);
    bed_check(bed);
    bed_result(bed, &h, "succeeded");
    SCOPED_SENT struct sent outcome = bed_take(bed, WIRE_OUTCOME);
    assert_string_equal(((const struct wire_outcome *)outcome.m.as)->kind, "backup");
    SCOPED_SENT struct sent finished = bed_take(bed, WIRE_FINISHED);
    assert_int_equal(((const struct wire_finished *)finished.m.as)->tasks_total, 1);
    assert_int_equal(bed_count(bed, WIRE_OUTCOME), 0);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_check(bed);
}

static void a_part_that_fails_is_not_tried_again(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 2, request);
    ASK(.give = GIVE(1));
    struct hold part = running_part(bed, "w2");
    bed_drop(bed);
    bed_fail(bed, &part, ERR_ENGINE_BUSY, NULL);
    SCOPED_SENT struct sent told = LAST_PARTED;
    assert_string_equal(part_in(&told, 1)->state, "failed");
    assert_string_equal(part_in(&told, 1)->error->code, "engine-busy");
    bed_wait(bed, 3600 * 1000);
    for (size_t i = 0; i < bed->count; i++)
        if (bed->sent[i].m.type == WIRE_OFFER)
            assert_string_not_equal(((const struct wire_offer *)bed->sent[i].m.as)->kind,
                                    "backup-part");
    bed_check(bed);
}

static void a_part_given_back_is_offered_again(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 2, request);
    ASK(.give = GIVE(1));
    struct hold part = running_part(bed, "w2");
    bed_drop(bed);
    bed_result(bed, &part, "released"); /* its worker drains */
    expect_part(bed, &h, 1, "waiting");
    struct hold again = running_part(bed, "w3");
    assert_string_equal(again.task, part.task);
    assert_true(again.fence > part.fence);
    expect_part(bed, &h, 1, "running");
    bed_check(bed);
}

/* Its attachment must go before the main task can merge: the clean-up does not wait for the VM. */
static void a_lost_part_is_cleaned_up_while_its_main_task_runs(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 2, request);
    ASK(.give = GIVE(1));
    struct hold part = running_part(bed, "w2");
    bed_step(bed, &part, "attach", "handle", "attachment.d1", "proxy-2", "session", "x", NULL);
    bed_drop(bed);
    bed_wait(bed, 100 * 1000);
    bed_copying(bed, &h, 1, 2); /* the main task lives */
    bed_presence(bed, "w3", "dc1", 4);
    bed_wait(bed, 25 * 1000);
    {
        SCOPED_SENT struct sent told = LAST_PARTED;
        const struct wire_part_state *p = part_in(&told, 1);
        assert_string_equal(p->state, "failed");
        assert_string_equal(p->error->code, "timeout");
        assert_true(p->cleanup_open);
    }
    SCOPED_SENT struct sent s = bed_take(bed, WIRE_OFFER);
    const struct wire_offer *o = s.m.as;
    assert_string_equal(o->kind, "cleanup");
    assert_string_equal(o->cleanup_task, part.task);
    assert_null(o->vm);
    assert_int_equal(o->cleanup.count, 2);
    SCOPED_FREE char *session = xasprintf("%s.%d", part.task, (int)part.fence);
    for (size_t i = 0; i < 2; i++) {
        const struct wire_leftover *l = &o->cleanup.v[i];
        bool attachment = strcmp(l->kind, "attachment") == 0;
        assert_string_equal(l->id, attachment ? "d1" : session);
        assert_true(attachment || strcmp(l->kind, "part") == 0);
    }
    struct hold cleanup = {.attempt = 1};
    snprintf(cleanup.task, sizeof cleanup.task, "%s", o->task);
    bed_claim(bed, &cleanup, "w3");
    part_succeeds(bed, &part); /* too late: void */
    ASK(.give = NONE);
    expect_part(bed, &h, 1, "failed");
    bed_result(bed, &cleanup, "succeeded");
    {
        SCOPED_SENT struct sent told = LAST_PARTED; /* unasked */
        assert_false(part_in(&told, 1)->cleanup_open);
    }
    bed_check(bed);
}

/* --- Withdrawing --- */
static void a_waiting_part_is_withdrawn_at_once(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 2, request);
    ASK(.give = GIVE(1));
    struct hold part = bed_offer(bed);
    ASK(.withdraw = GIVE(1) | GIVE(7)); /* 7 was never given: nothing */
    expect_part(bed, &h, 1, "cancelled");
    bed_claim_denied(bed, &part, "w2", 0); /* the offer is still in the queue */
    ASK(.withdraw = GIVE(1));
    expect_part(bed, &h, 1, "cancelled");
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_check(bed);
}

static void a_running_part_is_stopped(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 2, request);
    ASK(.give = GIVE(1));
    struct hold part = running_part(bed, "w2");
    bed_drop(bed);
    ASK(.withdraw = GIVE(1));
    expect_part(bed, &h, 1, "running");
    SCOPED_SENT struct sent stop = bed_take_for(bed, WIRE_STOP, "worker.w2");
    assert_string_equal(((const struct wire_stop *)stop.m.as)->reason, "withdrawn");
    ASK(.withdraw = GIVE(1));
    assert_int_equal(bed_count(bed, WIRE_STOP), 0); /* told once; presence repeats it */
    bed_drop(bed);
    bed_result(bed, &part, "cancelled");
    expect_part(bed, &h, 1, "cancelled");
    bed_check(bed);
}

/* The commit was faster than the stop. */
static void a_withdrawn_part_may_still_succeed(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 2, request);
    ASK(.give = GIVE(1));
    struct hold part = running_part(bed, "w2");
    ASK(.withdraw = GIVE(1));
    bed_drop(bed);
    part_succeeds(bed, &part);
    expect_part(bed, &h, 1, "succeeded");
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0); /* the main task finds it and deletes it */
    bed_check(bed);
}

/* --- The main task's ends --- */
static void the_main_tasks_end_stops_its_parts(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 3, request);
    ASK(.give = GIVE(1) | GIVE(2));
    struct hold one = running_part(bed, "w2"), two = bed_offer(bed);
    bed_drop(bed);
    bed_result(bed, &h, "succeeded");
    SCOPED_SENT struct sent stop = bed_take_for(bed, WIRE_STOP, "worker.w2");
    assert_string_equal(((const struct wire_stop *)stop.m.as)->task, one.task);
    assert_int_equal(state_of(bed, &two), TASK_CANCELLED);
    assert_int_equal(bed_count(bed, WIRE_PARTED), 0);
    assert_int_equal(bed_count(bed, WIRE_FINISHED), 1);
    bed_claim_denied(bed, &two, "w3", 0);
    bed_drop(bed);
    bed_restart(bed);
    /* It had committed already: nobody but us knows of its point. */
    part_succeeds(bed, &one);
    expect_cleanup_of_point(bed, &one, one.task);
    assert_int_equal(bed_count(bed, WIRE_PARTED), 0);
    assert_int_equal(bed_count(bed, WIRE_FINISHED), 0);
    bed_check(bed);
}

static void the_next_attempt_waits_for_the_parts(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 3, request);
    ASK(.give = GIVE(1) | GIVE(2));
    struct hold one = running_part(bed, "w2"), two = running_part(bed, "w3");
    bed_drop(bed);
    for (int i = 0; i < 3; i++) { /* the parts live, the main task does not */
        bed_wait(bed, 50 * 1000);
        bed_copying(bed, &one, i, 3);
        bed_copying(bed, &two, i, 3);
        for (int w = 2; w <= 4; w++) {
            SCOPED_FREE char *name = xasprintf("w%d", w);
            bed_presence(bed, name, "dc1", 4);
        }
    }
    assert_int_equal(state_of(bed, &h), TASK_WAITING);
    assert_int_equal(bed_count(bed, WIRE_STOP), 2);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    ASK(.give = GIVE(1)); /* the lost one is not dead: it is not answered */
    assert_int_equal(bed_count(bed, WIRE_PARTED), 0);
    part_succeeds(bed, &one);
    bed_restart(bed);
    bed_turn(bed);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_result(bed, &two, "cancelled");
    struct hold again = bed_offer(bed);
    assert_string_equal(again.task, h.task);
    assert_int_equal(again.attempt, 2);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0); /* it looks after the point of part 1 */
    bed_claim(bed, &again, "w2");
    /* It gives away anew; the numbers are its own. */
    bed_drop(bed);
    ask(bed, &again, (struct ask){.give = GIVE(1)});
    SCOPED_SENT struct sent told = last_parted(bed, &again);
    assert_int_equal(((const struct wire_parted *)told.m.as)->states.count, 1);
    assert_string_equal(part_in(&told, 1)->state, "waiting");
    struct hold third = running_part(bed, "w3");
    assert_string_not_equal(third.task, one.task);
    ASK(.give = GIVE(2), .withdraw = GIVE(1)); /* from the first attempt */
    assert_int_equal(state_of(bed, &third), TASK_RUNNING);
    bed_check(bed);
}

static void a_failed_attempt_waits_for_its_parts_too(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 2, request);
    ASK(.give = GIVE(1));
    struct hold one = running_part(bed, "w2");
    bed_fail(bed, &h, ERR_ENGINE_UNREACHABLE, NULL);
    bed_drop(bed);
    bed_wait(bed, 11 * 1000);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_result(bed, &one, "cancelled");
    struct hold again = bed_offer(bed);
    assert_string_equal(again.task, h.task);
    bed_check(bed);
}

static void a_main_task_that_is_given_up_leaves_its_points(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed->conf.max_attempts = 1;
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 3, request);
    ASK(.give = GIVE(1) | GIVE(2));
    struct hold one = running_part(bed, "w2"), two = running_part(bed, "w3");
    part_succeeds(bed, &one);
    bed_wait(bed, 100 * 1000);
    bed_copying(bed, &two, 1, 2);
    bed_drop(bed);
    bed_wait(bed, 25 * 1000);
    workers_come(bed, 4);
    assert_int_equal(state_of(bed, &h), TASK_FAILED);
    /* The snapshot cannot go before part 2 has let go of it. */
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_result(bed, &two, "cancelled");
    expect_cleanup_of_point(bed, &one, h.task);
    bed_check(bed);
}

static void another_backup_of_the_vm_waits_for_the_parts(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES], other[ID_BYTES];
    struct hold h = wide_backup(bed, 2, request);
    ASK(.give = GIVE(1));
    struct hold part = running_part(bed, "w2");
    bed_result(bed, &h, "succeeded");
    bed_drop(bed);
    bed_backup(bed, "name-1", other);
    struct hold inventory = bed_offer(bed);
    bed_claim(bed, &inventory, "w1");
    bed_inventory(bed, &inventory, 1, 1);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_result(bed, &part, "cancelled");
    struct hold next = bed_offer(bed);
    assert_string_equal(next.kind, "backup");
    assert_string_not_equal(next.task, h.task);
    bed_check(bed);
}

/* --- Cancelling --- */
static void cancel(struct bed *bed, const char *request, const char *task)
{
    const struct wire_cancel c = {.request = S(request), .task = S(task)};
    bed_request(bed, WIRE_CANCEL, &c, NULL);
    bed_drop_type(bed, WIRE_ACCEPTED);
}

static void a_cancel_reaches_the_parts(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 4, request);
    ASK(.give = GIVE(1) | GIVE(2));
    struct hold one = running_part(bed, "w2");
    bed_drop(bed);
    cancel(bed, request, NULL);
    assert_int_equal(bed_count(bed, WIRE_STOP), 2);
    {
        SCOPED_SENT struct sent told = LAST_PARTED;
        assert_string_equal(part_in(&told, 1)->state, "running");
        assert_string_equal(part_in(&told, 2)->state, "cancelled");
    }
    /* Parts that it had asked for just before it heard of it. */
    ASK(.give = GIVE(3));
    expect_part(bed, &h, 3, "cancelled");
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    bed_result(bed, &one, "cancelled");
    expect_part(bed, &h, 1, "cancelled");
    assert_int_equal(bed_count(bed, WIRE_FINISHED), 0);
    bed_result(bed, &h, "cancelled");
    assert_int_equal(bed_count(bed, WIRE_FINISHED), 2);
    bed_check(bed);
}

static void a_part_may_be_cancelled_alone(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 2, request);
    ASK(.give = GIVE(1));
    struct hold one = running_part(bed, "w2");
    bed_drop(bed);
    cancel(bed, NULL, one.task);
    assert_int_equal(bed_count(bed, WIRE_STOP), 1);
    bed_result(bed, &one, "cancelled");
    expect_part(bed, &h, 1, "cancelled");
    SCOPED_SENT struct sent finished = bed_take(bed, WIRE_FINISHED);
    assert_int_equal(((const struct wire_finished *)finished.m.as)->tasks_cancelled, 1);
    assert_int_equal(state_of(bed, &h), TASK_RUNNING);
    bed_check(bed);
}

static void a_main_task_between_attempts_is_cancelled_while_a_part_stops(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 2, request);
    ASK(.give = GIVE(1));
    struct hold one = running_part(bed, "w2");
    bed_fail(bed, &h, ERR_ENGINE_UNREACHABLE, NULL);
    bed_drop(bed);
    cancel(bed, request, NULL);
    assert_int_equal(state_of(bed, &h), TASK_CANCELLED);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0);
    part_succeeds(bed, &one);
    bool of_part = false, of_main = false;
    while (bed_count(bed, WIRE_OFFER) > 0) {
        SCOPED_SENT struct sent s = bed_take(bed, WIRE_OFFER);
        const struct wire_offer *o = s.m.as;
        assert_string_equal(o->kind, "cleanup");
        of_part |= strcmp(o->cleanup_task, one.task) == 0;
        of_main |= strcmp(o->cleanup_task, h.task) == 0;
    }
    assert_true(of_part); /* its point */
    assert_true(of_main); /* the snapshot */
    bed_check(bed);
}

static void the_deadline_reaches_the_parts(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 2, request);
    ASK(.give = GIVE(1));
    struct hold one = running_part(bed, "w2");
    for (int i = 0; i < 72; i++) { /* 7200 s */
        bed_wait(bed, 100 * 1000);
        bed_copying(bed, &h, i, 100);
        bed_copying(bed, &one, i, 100);
    }
    bed_wait(bed, 1000);
    assert_int_equal(bed_count(bed, WIRE_STOP), 2);
    bed_result(bed, &one, "cancelled");
    assert_int_equal(state_of(bed, &one), TASK_CANCELLED);
}

/* --- Restore --- */
static void a_restore_has_parts_too(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    workers_come(bed, 3);
    struct wire_restore_opts opts = {.point = S("p1"), .name = S("new"), .workers = 2};
    const struct wire_restore m = {.options = &opts};
    bed_request(bed, WIRE_RESTORE, &m, NULL);
    struct hold h = bed_offer(bed);
    bed_claim(bed, &h, "w1");
    bed_step(bed, &h, "create", "handle", "vm", "v9", "disk.1", "d1", NULL);
    ASK(.give = GIVE(1), .restore = true);
    SCOPED_SENT struct sent s = bed_take(bed, WIRE_OFFER);
    const struct wire_offer *o = s.m.as;
    assert_string_equal(s.key, "oxbow.tasks.dc1.restore");
    assert_string_equal(o->kind, "restore-part");
    assert_null(o->vm);
    assert_string_equal(o->part->point, "p1");
    assert_string_equal(o->part->pieces.v[0].from, "d0");
    assert_string_equal(o->restore->name, "new");
    struct hold part = {.attempt = 1};
    snprintf(part.task, sizeof part.task, "%s", o->task);
    snprintf(part.kind, sizeof part.kind, "%s", o->kind);
    bed_claim_denied(bed, &part, "w1", 0);
    bed_wait(bed, 300);
    part = running_part(bed, "w2");
    bed_step(bed, &part, "attach", "handle", "attachment.d1", "proxy-2", NULL);
    bed_fail(bed, &h, ERR_ENGINE_UNREACHABLE, NULL);
    bed_drop(bed);
    bed_wait(bed, 100 * 1000);
    bed_copying(bed, &part, 1, 2);
    assert_int_equal(bed_count(bed, WIRE_OFFER), 0); /* no VM to tell by, and yet it waits */
    bed_wait(bed, 121 * 1000);
    workers_come(bed, 3);
    /* Lost: its attachment is removed, and it has no point. The disk is the main task's. */
    bool again = false, cleaned = false;
    while (bed_count(bed, WIRE_OFFER) > 0) {
        SCOPED_SENT struct sent next = bed_take(bed, WIRE_OFFER);
        const struct wire_offer *n = next.m.as;
        again |= strcmp(n->task, h.task) == 0;
        if (strcmp(n->kind, "cleanup") != 0)
            continue;
        cleaned = true;
        assert_int_equal(n->cleanup.count, 1);
        assert_string_equal(n->cleanup.v[0].kind, "attachment");
    }
    assert_true(again);
    assert_true(cleaned);
    bed_check(bed);
}

/* --- What is shown --- */
static void progress_sums_the_parts(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 4, request);
    ASK(.give = GIVE(1) | GIVE(2) | GIVE(3));
    struct hold one = running_part(bed, "w2"), two = running_part(bed, "w3"),
                three = running_part(bed, "w4");
    bed_copying(bed, &one, 30, 30);
    part_succeeds(bed, &one);
    bed_copying(bed, &two, 10, 20);
    bed_copying(bed, &three, 1000, 1000);
    bed_fail(bed, &three, ERR_IO, NULL); /* what it did is done again */
    bed_wait(bed, 2000);
    bed_copying(bed, &h, 1, 100);
    bed_drop(bed);
    bed_wait(bed, 2000);
    bed_copying(bed, &two, 15, 20);
    assert_int_equal(bed_count(bed, WIRE_PROGRESS), 1);
    SCOPED_SENT struct sent s = bed_take(bed, WIRE_PROGRESS);
    const struct wire_progress *p = s.m.as;
    assert_string_equal(p->task, h.task);
    assert_string_equal(p->kind, "backup");
    assert_int_equal(p->bytes_done, 1 + 30 + 15);
    assert_int_equal(p->bytes_total, 100 + 30 + 20);
    assert_int_equal(p->rate_bps, 2000);
    assert_int_equal(p->tasks_total, 1);
}

static void status_shows_parts_below_their_main_task(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = wide_backup(bed, 3, request);
    ASK(.give = GIVE(1) | GIVE(2));
    struct hold one = running_part(bed, "w2");
    bed_copying(bed, &h, 1, 100);
    bed_copying(bed, &one, 10, 20);
    bed_drop(bed);
    const char *ids[] = {request, h.task};
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        const struct wire_status q = {.request = S(ids[i])};
        bed_request(bed, WIRE_STATUS, &q, NULL);
        size_t at = 0;
        bool found = false;
        while (bed_count(bed, WIRE_PAGE) > 0) {
            SCOPED_SENT struct sent s = bed_take(bed, WIRE_PAGE);
            const struct wire_item_list *items = ((const struct wire_page *)s.m.as)->items;
            for (at = 0; at < items->tasks_count; at++) {
                const struct wire_task_item *t = &items->tasks[at];
                if (strcmp(t->id, h.task) != 0) {
                    assert_true(!t->part_of || found);
                    continue;
                }
                found = true;
                assert_null(t->part_of);
                assert_int_equal(t->bytes_done, 11);
                assert_int_equal(t->bytes_total, 120);
                assert_true(at + 2 < items->tasks_count);
                assert_string_equal(t[1].part_of, h.task);
                assert_string_equal(t[1].kind, "backup-part");
                assert_string_equal(t[1].worker, "w2");
                assert_int_equal(t[1].bytes_done, 10);
                assert_string_equal(t[2].part_of, h.task);
                assert_string_equal(t[2].state, "offered");
            }
        }
        assert_true(found);
        bed_drop(bed);
    }
    const struct wire_status q = {.request = S(one.task)};
    bed_request(bed, WIRE_STATUS, &q, NULL);
    SCOPED_SENT struct sent s = bed_take(bed, WIRE_PAGE);
    const struct wire_item_list *items = ((const struct wire_page *)s.m.as)->items;
    assert_int_equal(items->tasks_count, 1);
    assert_string_equal(items->tasks[0].id, one.task);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_become_tasks),
        cmocka_unit_test(asked_again_is_no_new_part),
        cmocka_unit_test(every_worker_gets_one),
        cmocka_unit_test(who_is_done_takes_another),
        cmocka_unit_test(a_worker_in_the_same_proxy_gets_none),
        cmocka_unit_test(nothing_is_offered_where_nobody_could),
        cmocka_unit_test(parts_come_first),
        cmocka_unit_test(more_than_was_asked_for_is_refused),
        cmocka_unit_test(without_the_option_there_are_none),
        cmocka_unit_test(senseless_parts_are_buried),
        cmocka_unit_test(a_part_that_succeeds_is_told),
        cmocka_unit_test(a_part_that_fails_is_not_tried_again),
        cmocka_unit_test(a_part_given_back_is_offered_again),
        cmocka_unit_test(a_lost_part_is_cleaned_up_while_its_main_task_runs),
        cmocka_unit_test(a_waiting_part_is_withdrawn_at_once),
        cmocka_unit_test(a_running_part_is_stopped),
        cmocka_unit_test(a_withdrawn_part_may_still_succeed),
        cmocka_unit_test(the_main_tasks_end_stops_its_parts),
        cmocka_unit_test(the_next_attempt_waits_for_the_parts),
        cmocka_unit_test(a_failed_attempt_waits_for_its_parts_too),
        cmocka_unit_test(a_main_task_that_is_given_up_leaves_its_points),
        cmocka_unit_test(another_backup_of_the_vm_waits_for_the_parts),
        cmocka_unit_test(a_cancel_reaches_the_parts),
        cmocka_unit_test(a_part_may_be_cancelled_alone),
        cmocka_unit_test(a_main_task_between_attempts_is_cancelled_while_a_part_stops),
        cmocka_unit_test(the_deadline_reaches_the_parts),
        cmocka_unit_test(a_restore_has_parts_too),
        cmocka_unit_test(progress_sums_the_parts),
        cmocka_unit_test(status_shows_parts_below_their_main_task),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/coordinator/bed.h"

#include <string.h>

#include "coordinator/outgoing.h"

/* --- The clock --- */
static int64_t bed_mono_ms(const struct clock *c)
{
    return ((const struct bed_clock *)(const void *)c)->mono_ms;
}

static int64_t bed_wall_ms(const struct clock *c)
{
    return ((const struct bed_clock *)(const void *)c)->wall_ms;
}

static void bed_sleep_ms(const struct clock *c, int64_t ms)
{
    (void)c;
    (void)ms;
    fail_msg("the state machine sleeps");
}

static const struct clock_ops ops = {bed_mono_ms, bed_wall_ms, bed_sleep_ms};

/* --- The bed --- */
static void open_desk(struct bed *bed)
{
    struct err err = ERR_INIT;
    bed->desk = desk_new(&bed->conf, &bed->clock.clock, &err);
    if (!bed->desk)
        fail_msg("%s", err.message);
    desk_set_connected(bed->desk, true);
}

struct bed *bed_new(const char *zone, ...)
{
    log_set_level(getenv("OXBOW_TEST_DEBUG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
    struct bed *bed = ALLOC_NEW(struct bed);
    temp_dir_make_in_memory(&bed->dir); /* the ledger syncs after every batch */
    bed->ledger = xasprintf("%s/ledger.db", bed->dir.path);
    bed->clock = (struct bed_clock){{&ops}, 1000000, INT64_C(1796000000000)};
    bed->surplus = 2;
    bed->conf = (struct coordinator_conf){
        .ledger = bed->ledger,
        .zones = bed->zones,
        .limits = {1000, {1000, 1000, 1000}},
        .lease_s = 60,
        .max_attempts = 3,
        .offer_surplus = &bed->surplus,
        .deadline_s = 7200,
        .stop_limit_s = 1800,
        .keep_days = 30,
        .janitor = {&bed->sweep_s}, /* 0 unless a test sets it */
    };
    va_list args;
    va_start(args, zone);
    for (; zone; zone = va_arg(args, const char *))
        bed->zones[bed->conf.zones_count++] = (struct conf_zone){(char *)(uintptr_t)zone, 1000};
    va_end(args);
    open_desk(bed);
    return bed;
}

void bed_free(struct bed *bed)
{
    if (!bed)
        return;
    desk_free(bed->desk);
    bed_drop(bed);
    free(bed->sent);
    temp_dir_remove(&bed->dir);
    free(bed->ledger);
    free(bed);
}

void bed_restart(struct bed *bed)
{
    desk_free(bed->desk);
    open_desk(bed);
}

static bool restarts_always;

void bed_restart_always(bool always)
{
    restarts_always = always;
}

/* --- What is sent --- */
static void keep(struct bed *bed, const struct outgoing *m)
{
    struct err err = ERR_INIT;
    if ((bed->count & (bed->count - 1)) == 0)
        bed->sent = xreallocarray(bed->sent, bed->count ? bed->count * 2 : 1, sizeof *bed->sent);
    struct sent *s = &bed->sent[bed->count++];
    *s = (struct sent){.exchange = xstrdup(m->exchange),
                       .key = xstrdup(m->routing_key),
                       .message_id = xstrdup_or_null(m->message_id),
                       .correlation_id = xstrdup_or_null(m->correlation_id)};
    /* Whatever leaves must be readable by whoever gets it. */
    if (!wire_decode(m->type, m->body, strlen(m->body), &s->m, &err))
        fail_msg("%s", err.message);
}

void bed_gather(struct bed *bed)
{
    struct err err = ERR_INIT;
    size_t count;
    const struct fleeting *f = desk_fleeting(bed->desk, &count);
    for (size_t i = 0; i < count; i++) {
        char exchange[] = "", type[] = "oxbow.progress.v1";
        const struct outgoing m = {.exchange = exchange,
                                   .routing_key = f[i].reply_to,
                                   .type = type,
                                   .correlation_id = f[i].correlation_id,
                                   .body = f[i].body};
        keep(bed, &m);
    }
    desk_drop_fleeting(bed->desk);
    for (;;) {
        struct outgoing_list list;
        assert_true(desk_outbox(bed->desk, bed->seen_n, 500, &list, &err));
        for (size_t i = 0; i < list.count; i++) {
            keep(bed, &list.v[i]);
            bed->seen_n = list.v[i].n;
            if (!bed->keep_outbox)
                desk_confirmed(bed->desk, list.v[i].n);
        }
        size_t got = list.count;
        outgoing_list_done(&list);
        if (got == 0)
            return;
    }
}

void bed_commit(struct bed *bed)
{
    struct err err = ERR_INIT;
    if (!desk_commit(bed->desk, &err))
        fail_msg("%s", err.message);
    bed_gather(bed);
}

void bed_turn(struct bed *bed)
{
    struct err err = ERR_INIT;
    if (!desk_begin(bed->desk, &err))
        fail_msg("%s", err.message);
    bed_commit(bed);
}

void bed_wait(struct bed *bed, int64_t ms)
{
    bed->clock.mono_ms += ms;
    bed->clock.wall_ms += ms;
    bed_turn(bed);
}

enum desk_verdict bed_feed(struct bed *bed, bool is_request, const struct bed_props *props,
                           const char *body, struct err *why)
{
    struct err err = ERR_INIT;
    if (!desk_begin(bed->desk, &err))
        fail_msg("%s", err.message);
    const struct desk_message m = {.source = is_request ? DESK_REQUEST : DESK_EVENT,
                                   .type = props->type,
                                   .message_id = props->message_id,
                                   .correlation_id = props->correlation_id,
                                   .reply_to = props->reply_to,
                                   .body = body,
                                   .len = strlen(body)};
    enum desk_verdict verdict = desk_handle(bed->desk, &m, why);
    if (verdict == DESK_FATAL)
        fail_msg("%s", why->message);
    bed_commit(bed);
    if (restarts_always)
        bed_restart(bed);
    return verdict;
}

static void feed(struct bed *bed, bool is_request, enum wire_type type, const void *message,
                 struct bed_props props)
{
    struct err err = ERR_INIT;
    size_t len;
    SCOPED_FREE char *body = wire_encode(type, message, &len, &err);
    if (!body)
        fail_msg("%s", err.message);
    props.type = wire_type_name(type);
    if (bed_feed(bed, is_request, &props, body, &err) != DESK_DONE)
        fail_msg("%s", err.message);
}

void bed_request(struct bed *bed, enum wire_type type, const void *message,
                 const struct bed_props *props)
{
    struct bed_props p = props ? *props : (struct bed_props){0};
    if (!p.reply_to)
        p.reply_to = "replies";
    feed(bed, true, type, message, p);
}

void bed_event(struct bed *bed, enum wire_type type, const void *message, const char *message_id)
{
    feed(bed, false, type, message, (struct bed_props){.message_id = message_id});
}

void sent_done(struct sent *s)
{
    free(s->exchange);
    free(s->key);
    free(s->message_id);
    free(s->correlation_id);
    wire_free(&s->m);
    *s = (struct sent){0};
}

struct sent bed_take_for(struct bed *bed, enum wire_type type, const char *key)
{
    for (size_t i = 0; i < bed->count; i++) {
        if (bed->sent[i].m.type != type || (key && strcmp(bed->sent[i].key, key) != 0))
            continue;
        struct sent s = bed->sent[i];
        bed->count--;
        memmove(&bed->sent[i], &bed->sent[i + 1], (bed->count - i) * sizeof *bed->sent);
        /* The array grows at powers of two: keep that true when it shrank over one. */
        bed->sent = xreallocarray(bed->sent, 2 * (bed->count + 1), sizeof *bed->sent);
        return s;
    }
    fail_msg("no message '%s' was sent", wire_type_name(type));
    return (struct sent){0};
}

struct sent bed_take(struct bed *bed, enum wire_type type)
{
    return bed_take_for(bed, type, NULL);
}

size_t bed_count(const struct bed *bed, enum wire_type type)
{
    size_t n = 0;
    for (size_t i = 0; i < bed->count; i++)
        n += bed->sent[i].m.type == type;
    return n;
}

void bed_drop(struct bed *bed)
{
    for (size_t i = 0; i < bed->count; i++)
        sent_done(&bed->sent[i]);
    bed->count = 0;
}

void bed_drop_type(struct bed *bed, enum wire_type type)
{
    while (bed_count(bed, type) > 0) {
        SCOPED_SENT struct sent s = bed_take(bed, type);
    }
}

/* --- A worker's part --- */
void bed_presence_running(struct bed *bed, const char *worker, const char *zone, int64_t slots,
                          const struct wire_running *running, size_t count)
{
    const struct wire_presence p = {.worker = S(worker),
                                    .zone = S(zone),
                                    .version = S("1"),
                                    .state = S("up"),
                                    .slots_restore = slots,
                                    .slots_backup = slots,
                                    .slots_upkeep = slots,
                                    .running = (struct wire_running *)(uintptr_t)running,
                                    .running_count = count};
    bed_event(bed, WIRE_PRESENCE, &p, NULL);
}

void bed_presence(struct bed *bed, const char *worker, const char *zone, int64_t slots)
{
    bed_presence_running(bed, worker, zone, slots, NULL, 0);
}

struct hold bed_offer(struct bed *bed)
{
    SCOPED_SENT struct sent s = bed_take(bed, WIRE_OFFER);
    const struct wire_offer *o = s.m.as;
    struct hold h = {.attempt = o->attempt};
    snprintf(h.task, sizeof h.task, "%s", o->task);
    snprintf(h.vm, sizeof h.vm, "%s", o->vm ? o->vm : "");
    snprintf(h.kind, sizeof h.kind, "%s", o->kind);
    return h;
}

void bed_claim(struct bed *bed, struct hold *h, const char *worker)
{
    snprintf(h->worker, sizeof h->worker, "%s", worker);
    const struct wire_claim claim = {.task = h->task, .worker = h->worker, .attempt = h->attempt};
    char id[ID_BYTES];
    id_new(id);
    bed_event(bed, WIRE_CLAIM, &claim, id);
    SCOPED_FREE char *key = topology_control_key(worker);
    SCOPED_SENT struct sent s = bed_take_for(bed, WIRE_GRANT, key);
    const struct wire_grant *g = s.m.as;
    assert_string_equal(g->task, h->task);
    assert_string_equal(s.exchange, TOPOLOGY_CONTROL);
    assert_int_equal(g->attempt, h->attempt);
    assert_int_equal(g->lease_s, bed->conf.lease_s);
    h->fence = g->fence;
}

void bed_claim_denied(struct bed *bed, const struct hold *h, const char *worker, int64_t fence)
{
    const struct wire_claim claim = {
        .task = S(h->task), .worker = S(worker), .attempt = h->attempt, .fence = fence};
    char id[ID_BYTES];
    id_new(id);
    size_t grants = bed_count(bed, WIRE_GRANT);
    bed_event(bed, WIRE_CLAIM, &claim, id);
    assert_int_equal(bed_count(bed, WIRE_GRANT), grants);
    SCOPED_FREE char *key = topology_control_key(worker);
    SCOPED_SENT struct sent s = bed_take_for(bed, WIRE_DENY, key);
    assert_string_equal(((const struct wire_deny *)s.m.as)->task, h->task);
}

void bed_step(struct bed *bed, struct hold *h, const char *step, const char *state, ...)
{
    struct wire_handle handles[8];
    size_t count = 0;
    va_list args;
    va_start(args, state);
    for (const char *name; (name = va_arg(args, const char *)); count++)
        handles[count] = (struct wire_handle){S(name), S(va_arg(args, const char *))};
    va_end(args);
    const struct wire_step s = {.task = h->task,
                                .worker = h->worker,
                                .attempt = h->attempt,
                                .fence = h->fence,
                                .seq = ++h->seq,
                                .step = S(step),
                                .state = S(state),
                                .handles = {handles, count}};
    bed_event(bed, WIRE_STEP, &s, NULL);
}

void bed_copying(struct bed *bed, const struct hold *h, int64_t done, int64_t total)
{
    const struct wire_copying c = {.task = S(h->task),
                                   .worker = S(h->worker),
                                   .step = S("copy"),
                                   .attempt = h->attempt,
                                   .fence = h->fence,
                                   .bytes_done = done,
                                   .bytes_total = total,
                                   .rate_bps = 1000};
    bed_event(bed, WIRE_COPYING, &c, NULL);
}

void bed_result(struct bed *bed, const struct hold *h, const char *status)
{
    bool backup = strcmp(h->kind, "backup") == 0 && strcmp(status, "succeeded") == 0;
    const struct wire_result r = {.task = S(h->task),
                                  .worker = S(h->worker),
                                  .attempt = h->attempt,
                                  .fence = h->fence,
                                  .status = S(status),
                                  .point = backup ? S("point-1") : NULL};
    bed_event(bed, WIRE_RESULT, &r, NULL);
}

void bed_fail(struct bed *bed, const struct hold *h, enum err_code code,
              const struct wire_leftovers *left)
{
    struct wire_error error = {.code = S(err_code_name(code)),
                               .retry = S(err_retry_name(err_retry(code))),
                               .message = S("it did not work")};
    const struct wire_result r = {.task = S(h->task),
                                  .worker = S(h->worker),
                                  .attempt = h->attempt,
                                  .fence = h->fence,
                                  .status = S("failed"),
                                  .error = &error,
                                  .leftovers = left ? *left : (struct wire_leftovers){0}};
    bed_event(bed, WIRE_RESULT, &r, NULL);
}

static void items_page(struct bed *bed, struct hold *h, int64_t page, int first, int count)
{
    struct wire_vm_item vms[WIRE_PAGE_MAX] = {0};
    char ids[WIRE_PAGE_MAX][32], names[WIRE_PAGE_MAX][32];
    for (int i = 0; i < count; i++) {
        snprintf(ids[i], sizeof ids[i], "vm-%d", first + i);
        snprintf(names[i], sizeof names[i], "name-%d", first + i);
        vms[i] = (struct wire_vm_item){.id = ids[i], .name = names[i]};
    }
    struct wire_item_list list = {.vms = vms, .vms_count = (size_t)count};
    const struct wire_items items = {.task = h->task,
                                     .worker = h->worker,
                                     .attempt = h->attempt,
                                     .fence = h->fence,
                                     .page = page,
                                     .items = &list};
    bed_event(bed, WIRE_ITEMS, &items, NULL);
}

void bed_inventory(struct bed *bed, struct hold *h, int first, int count)
{
    int64_t pages = 0;
    for (int done = 0; done < count; pages++) {
        int part = count - done < WIRE_PAGE_MAX ? count - done : WIRE_PAGE_MAX;
        items_page(bed, h, pages + 1, first + done, part);
        done += part;
    }
    const struct wire_result r = {.task = h->task,
                                  .worker = h->worker,
                                  .attempt = h->attempt,
                                  .fence = h->fence,
                                  .status = S("succeeded"),
                                  .pages = pages};
    bed_event(bed, WIRE_RESULT, &r, NULL);
}

void bed_backup(struct bed *bed, const char *name, char *ret_id)
{
    char *names[] = {S(name)};
    struct wire_select select = {.all = name == NULL};
    if (name)
        select.names = (struct wire_strings){names, 1};
    const struct wire_backup b = {.select = &select, .progress = true};
    id_new(ret_id);
    bed_request(bed, WIRE_BACKUP, &b, &(struct bed_props){.correlation_id = ret_id});
    SCOPED_SENT struct sent s = bed_take(bed, WIRE_ACCEPTED);
    const struct wire_accepted *a = s.m.as;
    assert_string_equal(a->request, ret_id);
    assert_false(a->duplicate);
}

struct hold bed_backup_one(struct bed *bed, const char *worker, char *ret_request)
{
    bed_presence(bed, worker, bed->zones[0].name, 4);
    bed_backup(bed, "name-1", ret_request);
    struct hold inventory = bed_offer(bed);
    assert_string_equal(inventory.kind, "inventory");
    bed_claim(bed, &inventory, worker);
    bed_inventory(bed, &inventory, 1, 1);
    struct hold h = bed_offer(bed);
    assert_string_equal(h.kind, "backup");
    assert_string_equal(h.vm, "vm-1");
    return h;
}

/* --- Checks --- */
struct tally {
    int64_t open, selecting, total, succeeded, failed, cancelled;
};

static struct tally tally_of(struct bed *bed, const char *request)
{
    struct err err = ERR_INIT;
    struct tally tally = {0};
    SCOPED_TASKS struct task_list tasks = {0};
    assert_true(
        ledger_task_of_request(desk_core(bed->desk)->ledger, request, 0, 1000000, &tasks, &err));
    for (size_t i = 0; i < tasks.count; i++) {
        const struct task *t = &tasks.v[i];
        bool open = task_is_open(t->state);
        if (t->role == TASK_CLEANUP || t->role == TASK_ADOPTED || t->role == TASK_PART)
            continue;
        tally.open += open;
        tally.selecting += open && t->role == TASK_SELECT;
        bool counts = t->role == TASK_MAIN || (!open && t->state != TASK_SUCCEEDED);
        tally.total += counts;
        tally.succeeded += counts && t->state == TASK_SUCCEEDED;
        tally.failed += counts && t->state == TASK_FAILED;
        tally.cancelled += counts && t->state == TASK_CANCELLED;
    }
    return tally;
}

void bed_check(struct bed *bed)
{
    struct err err = ERR_INIT;
    struct ledger *l = desk_core(bed->desk)->ledger;
    struct request_list list;
    assert_true(ledger_request_newest(l, 1000000, &list, &err));
    for (size_t i = 0; i < list.count; i++) {
        const struct request *r = &list.v[i];
        if (strcmp(r->kind, "cancel") == 0)
            continue;
        struct tally tally = tally_of(bed, r->id);
        assert_int_equal(r->open, tally.open);
        assert_int_equal(r->selecting, tally.selecting);
        assert_int_equal(r->total, tally.total);
        assert_int_equal(r->succeeded, tally.succeeded);
        assert_int_equal(r->failed, tally.failed);
        assert_int_equal(r->cancelled, tally.cancelled);
        assert_int_equal(r->state == REQUEST_RUNNING, tally.open > 0);
    }
    request_list_done(&list);
    SCOPED_TASKS struct task_list running = {0};
    assert_true(ledger_task_running(l, &running, &err));
    assert_int_equal(running.count, lease_count(desk_core(bed->desk)->leases));
    for (size_t i = 0; i < running.count; i++) {
        const struct lease *lease = lease_find(desk_core(bed->desk)->leases, running.v[i].id);
        assert_non_null(lease);
        assert_int_equal(lease->fence, running.v[i].fence);
    }
}

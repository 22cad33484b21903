/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/coordinator/wide_bed.h"

#include <string.h>

struct task wide_task(struct bed *bed, const char *id)
{
    struct err err = ERR_INIT;
    struct task t;
    assert_true(ledger_task_get(desk_core(bed->desk)->ledger, id, &t, &err));
    assert_non_null(t.id);
    return t;
}

enum task_state wide_state(struct bed *bed, const struct hold *h)
{
    SCOPED_TASK struct task t = wide_task(bed, h->task);
    return t.state;
}

void wide_workers(struct bed *bed, int count)
{
    for (int i = 1; i <= count; i++) {
        SCOPED_FREE char *name = xasprintf("w%d", i);
        bed_presence(bed, name, "dc1", 4);
    }
}

struct hold wide_offer(struct bed *bed, int64_t workers, char *ret_request)
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

struct hold wide_backup(struct bed *bed, int64_t workers, char *ret_request)
{
    wide_workers(bed, 4);
    struct hold h = wide_offer(bed, workers, ret_request);
    bed_claim(bed, &h, "w1");
    bed_step(bed, &h, "snapshot", "done", "snapshot", "s1", NULL);
    bed_drop(bed);
    return h;
}

void wide_ask(struct bed *bed, const struct hold *h, struct ask a)
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
struct sent wide_parted(struct bed *bed, const struct hold *h)
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

const struct wire_part_state *wide_part(const struct sent *s, int64_t n)
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

void wide_expect(struct bed *bed, const struct hold *h, int64_t n, const char *state)
{
    SCOPED_SENT struct sent s = wide_parted(bed, h);
    assert_string_equal(wide_part(&s, n)->state, state);
}

struct hold wide_running_part(struct bed *bed, const char *worker)
{
    struct hold part = bed_offer(bed);
    assert_true(wire_is_part(part.kind));
    bed_claim(bed, &part, worker);
    return part;
}

void wide_part_succeeds(struct bed *bed, const struct hold *part)
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

void wide_expect_cleanup(struct bed *bed, const struct hold *part, const char *of)
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

int wide_restart_always(void **state)
{
    (void)state;
    bed_restart_always(true);
    return 0;
}

int wide_restart_no_more(void **state)
{
    (void)state;
    bed_restart_always(false);
    return 0;
}

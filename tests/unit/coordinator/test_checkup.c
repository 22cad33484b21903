/* SPDX-License-Identifier: Apache-2.0 */
/* Check-ups: what the coordinator sees itself, and what it makes of the workers' answers. */
#include <string.h>

#include "proto/wire/finding.h"
#include "tests/unit/coordinator/bed.h"

#define REQUEST "0b8f3f0e-5c1d-4c57-9a55-6c1f0a9f7f10"
#define OTHER   "1b8f3f0e-5c1d-4c57-9a55-6c1f0a9f7f10"

static void ask(struct bed *bed, const char *worker, int64_t limit_s)
{
    const struct wire_doctor m = {.worker = S(worker), .limit_s = limit_s};
    bed_request(bed, WIRE_DOCTOR, &m,
                &(struct bed_props){.reply_to = "asker", .correlation_id = REQUEST});
    SCOPED_SENT struct sent s = bed_take_for(bed, WIRE_ACCEPTED, "asker");
    assert_string_equal(((const struct wire_accepted *)s.m.as)->request, REQUEST);
}

/* All findings that were sent so far, as "level check worker" lines; forgets them. */
static char *taken(struct bed *bed)
{
    SCOPED_BUF struct buf text;
    buf_init(&text, 1 << 16);
    while (bed_count(bed, WIRE_PAGE)) {
        SCOPED_SENT struct sent s = bed_take_for(bed, WIRE_PAGE, "asker");
        const struct wire_page *p = s.m.as;
        assert_string_equal(p->request, REQUEST);
        for (size_t i = 0; i < p->items->findings_count; i++) {
            const struct wire_finding *f = &p->items->findings[i];
            assert_true(f->time_ms > 0);
            assert_true(strcmp(f->level, "ok") == 0 || f->advice);
            (void)buf_printf(&text, "%s %s %s\n", f->level, f->check, f->worker ? f->worker : "-");
        }
    }
    return buf_take(&text);
}

static void expect(struct bed *bed, const char *line)
{
    SCOPED_FREE char *all = taken(bed);
    if (!strstr(all, line))
        fail_msg("'%s' is not among:\n%s", line, all);
}

static void expect_finished(struct bed *bed, int64_t pages)
{
    SCOPED_SENT struct sent s = bed_take_for(bed, WIRE_FINISHED, "asker");
    const struct wire_finished *f = s.m.as;
    assert_string_equal(f->kind, "doctor");
    assert_string_equal(f->status, "succeeded");
    assert_int_equal(f->pages, pages);
}

static void answer(struct bed *bed, const char *request, const char *worker, const char *repository,
                   int64_t skew_ms)
{
    struct wire_findings found = {0};
    findings_add(
        &found,
        &(struct finding_spec){.check = "engine.login", .time_ms = bed->clock.wall_ms + skew_ms},
        "may log in");
    const struct wire_checked m = {
        .request = S(request), .worker = S(worker), .repository = S(repository), .findings = found};
    bed_event(bed, WIRE_CHECKED, &m, NULL);
    findings_done(&found);
}

static void nobody_is_there(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    ask(bed, NULL, 0);
    expect_finished(bed, 1);
    expect(bed, "failure zone.workers -\n");
    assert_int_equal(bed_count(bed, WIRE_CHECKUP), 0);
}

static void all_are_asked(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed_presence(bed, "w1", "dc1", 2);
    bed_presence(bed, "w2", "dc1", 2);
    ask(bed, NULL, 40);
    SCOPED_FREE char *own = taken(bed);
    assert_non_null(strstr(own, "ok zone.workers -\n"));
    assert_non_null(strstr(own, "ok coordinator.answers -\n"));
    assert_non_null(strstr(own, "warning worker.version -\n")); /* "1" is not ours */
    SCOPED_SENT struct sent s = bed_take_for(bed, WIRE_CHECKUP, "worker.w1");
    const struct wire_checkup *c = s.m.as;
    assert_string_equal(c->worker, "w1");
    assert_int_equal(c->limit_s, 35);
    answer(bed, REQUEST, "w1", "repo-1", 0);
    expect(bed, "ok engine.login w1\nok worker.clock w1\n");
    assert_int_equal(bed_count(bed, WIRE_FINISHED), 0);
    answer(bed, REQUEST, "w2", "repo-1", 0);
    expect_finished(bed, 6);
    expect(bed, "ok zone.repository -\n");
    /* Doubles and strangers change nothing. */
    answer(bed, REQUEST, "w2", "repo-1", 0);
    assert_int_equal(bed_count(bed, WIRE_PAGE), 0);
}

static void one_is_asked(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed_presence(bed, "w1", "dc1", 2);
    bed_presence(bed, "w2", "dc1", 2);
    ask(bed, "w2", 0);
    assert_int_equal(bed_count(bed, WIRE_CHECKUP), 1);
    answer(bed, OTHER, "w2", "repo-1", 0);
    answer(bed, REQUEST, "w1", "repo-1", 0);
    assert_int_equal(bed_count(bed, WIRE_FINISHED), 0);
    answer(bed, REQUEST, "w2", "repo-1", 0);
    expect_finished(bed, 3);
}

static void an_unknown_one_is_refused(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    const struct wire_doctor m = {.worker = S("w9")};
    bed_request(bed, WIRE_DOCTOR, &m, &(struct bed_props){.reply_to = "asker"});
    SCOPED_SENT struct sent s = bed_take_for(bed, WIRE_REFUSED, "asker");
    assert_string_equal(((const struct wire_refused *)s.m.as)->error->code, "not-found");
}

static void a_silent_one_is_told(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed_presence(bed, "w1", "dc1", 2);
    bed_presence(bed, "w2", "dc1", 2);
    ask(bed, NULL, 20);
    answer(bed, REQUEST, "w1", "repo-1", 0);
    bed_drop_type(bed, WIRE_PAGE);
    bed_wait(bed, 19000);
    assert_int_equal(bed_count(bed, WIRE_FINISHED), 0);
    bed_wait(bed, 1000);
    expect(bed, "failure worker.answers w2\n");
    expect_finished(bed, 4);
    answer(bed, REQUEST, "w2", "repo-1", 0); /* too late */
    assert_int_equal(bed_count(bed, WIRE_PAGE), 0);
}

static void repositories_are_compared(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", "dc2", NULL);
    bed_presence(bed, "w1", "dc1", 2);
    bed_presence(bed, "w2", "dc1", 2);
    bed_presence(bed, "w3", "dc2", 2);
    ask(bed, NULL, 0);
    answer(bed, REQUEST, "w1", "repo-1", 0);
    answer(bed, REQUEST, "w2", "repo-2", 0);
    bed_drop_type(bed, WIRE_PAGE);
    answer(bed, REQUEST, "w3", "repo-3", 0); /* another zone: its own */
    SCOPED_FREE char *all = taken(bed);
    assert_non_null(strstr(all, "failure zone.repository -\n"));
    assert_null(strstr(all, "ok zone.repository"));
}

static void clocks_are_compared(void **state)
{
    (void)state;
    static const struct {
        int64_t skew_ms;
        const char *want;
    } cases[] = {
        {4000, "ok worker.clock w1\n"},        {6000, "warning worker.clock w1\n"},
        {400000, "failure worker.clock w1\n"}, {-4000, "ok worker.clock w1\n"},
        {-6000, "warning worker.clock w1\n"},  {-400000, "failure worker.clock w1\n"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
        bed_presence(bed, "w1", "dc1", 2);
        ask(bed, NULL, 0);
        answer(bed, REQUEST, "w1", NULL, cases[i].skew_ms);
        expect(bed, cases[i].want);
    }
}

static void a_slow_answer_is_no_skew(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed_presence(bed, "w1", "dc1", 2);
    ask(bed, NULL, 0);
    bed->clock.mono_ms += 30000;
    bed->clock.wall_ms += 30000;
    answer(bed, REQUEST, "w1", NULL, -29000); /* looked at once, was heard late */
    expect(bed, "ok worker.clock w1\n");
}

static void lost_and_strange_workers(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed_presence(bed, "w1", "dc1", 2);
    bed_presence(bed, "w2", "dc9", 2);
    bed_wait(bed, 3600 * 1000);
    bed_wait(bed, 6000);
    bed_presence(bed, "w2", "dc9", 2);
    ask(bed, NULL, 0);
    assert_int_equal(bed_count(bed, WIRE_CHECKUP), 1); /* the lost one is not waited for */
    SCOPED_FREE char *all = taken(bed);
    assert_non_null(strstr(all, "failure worker.heard -\n"));
    assert_non_null(strstr(all, "failure worker.zone -\n"));
    assert_non_null(strstr(all, "failure zone.workers -\n"));
}

static void a_double_is_void(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed_presence(bed, "w1", "dc1", 2);
    ask(bed, NULL, 0);
    ask(bed, NULL, 0);
    assert_int_equal(bed_count(bed, WIRE_CHECKUP), 1);
    answer(bed, REQUEST, "w1", NULL, 0);
    assert_int_equal(bed_count(bed, WIRE_FINISHED), 1);
}

static void not_too_many_at_once(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed_presence(bed, "w1", "dc1", 2);
    const struct wire_doctor m = {0};
    for (int i = 0; i < 17; i++)
        bed_request(bed, WIRE_DOCTOR, &m, &(struct bed_props){.reply_to = "asker"});
    assert_int_equal(bed_count(bed, WIRE_CHECKUP), 16);
    SCOPED_SENT struct sent s = bed_take_for(bed, WIRE_REFUSED, "asker");
    assert_string_equal(((const struct wire_refused *)s.m.as)->error->code, "conflict");
    bed_restart(bed); /* they are forgotten, and nothing is lost with them */
    bed_wait(bed, 120 * 1000);
    assert_int_equal(bed_count(bed, WIRE_FINISHED), 0);
}

static void open_cleanups_are_told(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    struct hold h = bed_backup_one(bed, "w1", request);
    bed_claim(bed, &h, "w1");
    struct wire_leftover left = {.kind = S("snapshot"), .vm = S("vm-1"), .id = S("snap-1")};
    ask(bed, NULL, 0);
    expect(bed, "ok coordinator.cleanups -\n");
    answer(bed, REQUEST, "w1", NULL, 0);
    bed_drop(bed);
    bed_fail(bed, &h, ERR_ENGINE_AUTH, &(struct wire_leftovers){&left, 1});
    ask(bed, NULL, 0);
    expect(bed, "warning coordinator.cleanups -\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_is_there),
        cmocka_unit_test(all_are_asked),
        cmocka_unit_test(one_is_asked),
        cmocka_unit_test(an_unknown_one_is_refused),
        cmocka_unit_test(a_silent_one_is_told),
        cmocka_unit_test(repositories_are_compared),
        cmocka_unit_test(clocks_are_compared),
        cmocka_unit_test(a_slow_answer_is_no_skew),
        cmocka_unit_test(lost_and_strange_workers),
        cmocka_unit_test(a_double_is_void),
        cmocka_unit_test(not_too_many_at_once),
        cmocka_unit_test(open_cleanups_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

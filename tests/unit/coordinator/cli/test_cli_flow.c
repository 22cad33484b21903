/* SPDX-License-Identifier: Apache-2.0 */
/* A request's life, told by hand: replies, doubles, losses, time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/cli/flow.h"
#include "coordinator/cli/verb.h"
#include "proto/base/buf.h"

#define OTHER "0c0ffee0-0000-4000-8000-00000000000f"

/* What the flow did, as text, one word an event: "send:backup", "outcome:web1", ... */
struct world {
    struct flow *flow;
    struct buf log;
    char id[ID_BYTES];      /* of the last request published */
    char sent_id[ID_BYTES]; /* of the first */
    uint64_t token;
    bool refuse_publish;
};

static void note(struct world *w, const char *what, const char *detail)
{
    (void)buf_printf(&w->log, "%s%s%s%s", w->log.len ? " " : "", what, detail ? ":" : "",
                     detail ? detail : "");
}

static bool publish(void *ctx, enum wire_type type, const void *message, const char *id,
                    uint64_t token, struct err *err)
{
    struct world *w = ctx;
    (void)message;
    if (w->refuse_publish)
        return err_set(err, ERR_TOO_LARGE, 0, "too large");
    note(w, "send", type == WIRE_STATUS ? "status" : type == WIRE_LIST ? "list" : "backup");
    snprintf(w->id, sizeof w->id, "%s", id);
    if (!w->sent_id[0])
        snprintf(w->sent_id, sizeof w->sent_id, "%s", id);
    w->token = token;
    return true;
}

static void on_accepted(void *ctx, const struct wire_accepted *m)
{
    note(ctx, "accepted", m->duplicate ? "duplicate" : NULL);
}
static void on_progress(void *ctx, const struct wire_progress *m)
{
    note(ctx, "progress", m->vm_name);
}
static void on_outcome(void *ctx, const struct wire_outcome *m)
{
    note(ctx, "outcome", m->vm_name ? m->vm_name : m->kind);
}
static void on_page(void *ctx, const struct wire_page *m)
{
    char page[16];
    snprintf(page, sizeof page, "%d", (int)m->page);
    note(ctx, "page", page);
}
static void on_finished(void *ctx, const struct wire_finished *m)
{
    assert_non_null(m->kind);
    assert_non_null(m->request);
    note(ctx, "finished", m->status);
}
static void on_refused(void *ctx, const struct wire_refused *m)
{
    note(ctx, "refused", m->error->code);
}
static void on_restarted(void *ctx)
{
    note(ctx, "restarted", NULL);
}
static void on_notice(void *ctx, const char *text)
{
    assert_true(strlen(text) > 5);
    note(ctx, "notice", NULL);
}

static const struct wire_backup backup_message;
static const struct wire_list list_message;

static void begin(struct world *w, enum flow_kind kind, bool wait, int64_t timeout_ms)
{
    *w = (struct world){0};
    buf_init(&w->log, 1 << 16);
    w->flow = flow_new(
        &(struct flow_opts){
            .kind = kind,
            .type = kind == FLOW_QUERY ? WIRE_LIST : WIRE_BACKUP,
            .message = kind == FLOW_QUERY ? (const void *)&list_message : &backup_message,
            .follow = OTHER,
            .wait = wait,
            .timeout_ms = timeout_ms,
            .publish = publish,
            .publish_ctx = w,
            .events =
                {
                    .accepted = on_accepted,
                    .progress = on_progress,
                    .outcome = on_outcome,
                    .page = on_page,
                    .finished = on_finished,
                    .refused = on_refused,
                    .restarted = on_restarted,
                    .notice = on_notice,
                },
            .events_ctx = w,
        },
        0);
}

static void end(struct world *w)
{
    flow_free(w->flow);
    buf_done(&w->log);
}
#define SCOPED_WORLD __attribute__((cleanup(end), unused))

static void assert_log(struct world *w, const char *expected)
{
    assert_string_equal(buf_str(&w->log), expected);
    buf_reset(&w->log);
}

/* Feed a reply given as JSON; "@" in it stands for the request's id. */
static void reply_to(struct world *w, const char *correlation_id, const char *name,
                     const char *json, int64_t now_ms)
{
    SCOPED_BUF struct buf body;
    buf_init(&body, 1 << 20);
    for (const char *c = json; *c; c++)
        (void)buf_printf(&body, *c == '@' ? "%s" : "%.1s",
                         *c == '@' ? flow_request_id(w->flow) : c);
    SCOPED_FREE char *type = xasprintf("oxbow.%s.v1", name);
    struct wire_message m = {0};
    struct err err = ERR_INIT;
    if (!wire_decode(type, buf_str(&body), body.len, &m, &err))
        fail_msg("%s: %s", err.message, buf_str(&body));
    flow_reply(w->flow, correlation_id, &m, now_ms);
    wire_free(&m);
}

static void reply(struct world *w, const char *name, const char *json)
{
    reply_to(w, w->id, name, json, 0);
}

#define TASK(n)  "0c0ffee0-0000-4000-8000-00000000010" #n
#define ACCEPTED "{\"request\":\"@\",\"duplicate\":false}"
#define OUTCOME(n, status)                                                                         \
    "{\"request\":\"@\",\"task\":\"" TASK(n) "\",\"kind\":\"backup\",\"vm_name\":\"vm" #n          \
                                             "\",\"status\":\"" status "\"}"
#define PROGRESS(n)                                                                                \
    "{\"request\":\"@\",\"task\":\"" TASK(n) "\",\"kind\":\"backup\",\"vm_name\":\"vm" #n          \
                                             "\",\"state\":\"running\"}"
#define FINISHED(kind, status, pages)                                                              \
    "{\"request\":\"@\",\"kind\":\"" kind "\",\"status\":\"" status "\",\"pages\":" pages "}"
#define NOT_FOUND                                                                                  \
    "{\"error\":{\"code\":\"not-found\",\"retry\":\"never\",\"message\":\"no such request\"}}"
#define PAGE_REQUEST(state)                                                                        \
    "{\"request\":\"@\",\"page\":1,\"items\":{\"requests\":[{\"id\":\"@\",\"kind\":\"backup\","    \
    "\"state\":\"" state "\",\"tasks_total\":2,\"tasks_done\":1}]}}"
#define POINT_PAGE(n)                                                                              \
    "{\"request\":\"@\",\"page\":" n ",\"items\":{\"points\":[{\"id\":\"p" n "\"}]}}"

/* How most of them begin: connected at once, and waiting for the end. */
static void begin_job(struct world *w)
{
    begin(w, FLOW_JOB, true, 0);
    flow_connected(w->flow, 0);
}

static void begin_query(struct world *w)
{
    begin(w, FLOW_QUERY, true, 0);
    flow_connected(w->flow, 0);
}

static void begin_job_accepted(struct world *w)
{
    begin_job(w);
    reply(w, "accepted", ACCEPTED);
}

static void a_job(void **state)
{
    (void)state;
    SCOPED_WORLD struct world w;
    begin_job(&w);
    assert_log(&w, "send:backup");
    assert_false(flow_is_sent(w.flow));
    flow_confirmed(w.flow, w.token, MQ_CONFIRMED);
    assert_true(flow_is_sent(w.flow));
    reply(&w, "accepted", ACCEPTED);
    reply(&w, "accepted", ACCEPTED); /* a double */
    reply(&w, "progress", PROGRESS(1));
    reply(&w, "outcome", OUTCOME(1, "succeeded"));
    reply(&w, "outcome", OUTCOME(1, "succeeded")); /* a double */
    reply(&w, "progress", PROGRESS(1));            /* late */
    reply(&w, "outcome", OUTCOME(2, "failed"));
    assert_int_equal(flow_end(w.flow), FLOW_GOING);
    reply(&w, "finished", FINISHED("backup", "partly", "0"));
    reply(&w, "finished", FINISHED("backup", "partly", "0"));
    assert_log(&w, "accepted progress:vm1 outcome:vm1 outcome:vm2 finished:partly");
    assert_int_equal(flow_end(w.flow), FLOW_FINISHED);
    assert_int_equal(flow_exit_code(w.flow), CLI_PARTLY);
}

static void exit_codes(void **state)
{
    (void)state;
    static const struct {
        const char *status;
        int code;
    } cases[] = {
        {"succeeded", CLI_SUCCEEDED},
        {"partly", CLI_PARTLY},
        {"failed", CLI_FAILED},
        {"cancelled", CLI_CANCELLED},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        SCOPED_WORLD struct world w;
        begin_job(&w);
        SCOPED_FREE char *json =
            xasprintf("{\"request\":\"@\",\"kind\":\"backup\",\"status\":\"%s\"}", cases[i].status);
        reply(&w, "finished", json);
        assert_int_equal(flow_exit_code(w.flow), cases[i].code);
        assert_string_equal(flow_status(w.flow), cases[i].status);
    }
}

static void replies_to_others_are_ignored(void **state)
{
    (void)state;
    SCOPED_WORLD struct world w;
    begin_job(&w);
    reply_to(&w, OTHER, "accepted", ACCEPTED, 0);
    reply_to(&w, NULL, "finished", FINISHED("backup", "succeeded", "0"), 0);
    assert_log(&w, "send:backup");
    assert_int_equal(flow_end(w.flow), FLOW_GOING);
}

static void refused(void **state)
{
    (void)state;
    SCOPED_WORLD struct world w;
    begin_job(&w);
    reply(&w, "refused", NOT_FOUND);
    assert_log(&w, "send:backup refused:not-found");
    assert_int_equal(flow_exit_code(w.flow), CLI_REFUSED);
    assert_string_equal(flow_error(w.flow)->message, "no such request");
}

static void no_wait(void **state)
{
    (void)state;
    SCOPED_WORLD struct world w;
    begin(&w, FLOW_JOB, false, 0);
    flow_connected(w.flow, 0);
    reply(&w, "accepted", ACCEPTED);
    assert_int_equal(flow_end(w.flow), FLOW_ACCEPTED);
    assert_int_equal(flow_exit_code(w.flow), CLI_SUCCEEDED);
}

static void unroutable_nacked_and_unsendable(void **state)
{
    (void)state;
    SCOPED_WORLD struct world w;
    begin_job(&w);
    flow_confirmed(w.flow, w.token, MQ_RETURNED);
    assert_int_equal(flow_end(w.flow), FLOW_UNSENT);
    assert_int_equal(flow_error(w.flow)->code, ERR_UNROUTABLE);
    assert_int_equal(flow_exit_code(w.flow), CLI_BROKER);
    end(&w);

    begin_job(&w);
    flow_confirmed(w.flow, w.token, MQ_NACKED);
    assert_int_equal(flow_exit_code(w.flow), CLI_BROKER);
    end(&w);

    begin(&w, FLOW_JOB, true, 0);
    w.refuse_publish = true;
    flow_connected(w.flow, 0);
    assert_int_equal(flow_exit_code(w.flow), CLI_USAGE);
}

static void time_is_up(void **state)
{
    (void)state;
    SCOPED_WORLD struct world w;
    begin(&w, FLOW_JOB, true, 5000);
    flow_connected(w.flow, 0);
    flow_tick(w.flow, 4999);
    assert_int_equal(flow_end(w.flow), FLOW_GOING);
    flow_tick(w.flow, 5000);
    assert_int_equal(flow_end(w.flow), FLOW_TIMED_OUT);
    assert_int_equal(flow_exit_code(w.flow), CLI_TIMED_OUT);
}

static void nobody_takes_it(void **state)
{
    (void)state;
    SCOPED_WORLD struct world w;
    begin_job(&w);
    flow_confirmed(w.flow, w.token, MQ_CONFIRMED);
    flow_tick(w.flow, 9999);
    assert_log(&w, "send:backup");
    flow_tick(w.flow, 10000);
    flow_tick(w.flow, 11000);
    flow_tick(w.flow, 69999);
    assert_log(&w, "notice");
    flow_tick(w.flow, 70000);
    assert_log(&w, "notice");
    reply(&w, "accepted", ACCEPTED);
    flow_tick(w.flow, 200000);
    assert_log(&w, "accepted");
}

/* The earlier request with the same key goes on under its own id. */
static void a_known_key(void **state)
{
    (void)state;
    SCOPED_WORLD struct world w;
    begin_job(&w);
    reply(&w, "accepted", "{\"request\":\"" OTHER "\",\"duplicate\":true}");
    assert_string_equal(flow_request_id(w.flow), OTHER);
    reply_to(&w, OTHER, "outcome", OUTCOME(1, "succeeded"), 0);
    reply_to(&w, w.sent_id, "finished", FINISHED("backup", "succeeded", "0"), 0);
    assert_log(&w, "send:backup accepted:duplicate outcome:vm1 finished:succeeded");
}

static void lose(struct world *w)
{
    struct err why = ERR_INIT;
    err_set(&why, ERR_BROKER_UNREACHABLE, 0, "gone");
    flow_lost(w->flow, &why);
}

#define TASKS(page, tasks) "{\"request\":\"@\",\"page\":" page ",\"items\":{\"tasks\":[" tasks "]}}"
#define ITEM(n, kind, state)                                                                       \
    "{\"id\":\"" TASK(n) "\",\"request\":\"@\",\"kind\":\"" kind "\",\"vm_name\":\"vm" #n          \
                         "\",\"state\":\"" state "\"}"

/* The coordinator tells it all again. */
static void a_job_over_a_reconnect(void **state)
{
    (void)state;
    SCOPED_WORLD struct world w;
    begin_job(&w);
    flow_confirmed(w.flow, w.token, MQ_CONFIRMED);
    reply(&w, "accepted", ACCEPTED);
    reply(&w, "outcome", OUTCOME(1, "succeeded"));
    lose(&w);
    flow_tick(w.flow, 1000); /* not while it is gone */
    flow_connected(w.flow, 2000);
    flow_tick(w.flow, 2000);
    assert_log(&w, "send:backup accepted outcome:vm1 notice notice send:status");
    reply(&w, "page", PAGE_REQUEST("running"));
    reply(&w, "page", TASKS("2", ITEM(2, "backup", "failed")));
    reply(&w, "finished", FINISHED("status", "succeeded", "2"));
    assert_log(&w, "send:backup");
    assert_string_equal(w.id, w.sent_id);
    reply(&w, "accepted", "{\"request\":\"@\",\"duplicate\":true}");
    reply(&w, "outcome", OUTCOME(1, "succeeded"));
    reply(&w, "outcome", OUTCOME(2, "failed"));
    flow_tick(w.flow, 60000); /* no status any more */
    reply(&w, "finished", FINISHED("backup", "partly", "0"));
    assert_log(&w, "outcome:vm2 finished:partly");
}

/* It does not: its status tells. */
static void a_job_followed_by_its_status(void **state)
{
    (void)state;
    SCOPED_WORLD struct world w;
    begin_job_accepted(&w);
    reply(&w, "outcome", OUTCOME(1, "succeeded"));
    lose(&w);
    flow_connected(w.flow, 0);
    flow_tick(w.flow, 0);
    reply(&w, "page", PAGE_REQUEST("running"));
    reply(&w, "finished", FINISHED("status", "succeeded", "1"));
    assert_log(&w, "send:backup accepted outcome:vm1 notice notice send:status send:backup");
    flow_tick(w.flow, 3999);
    assert_log(&w, "");
    flow_tick(w.flow, 4000);
    reply(&w, "page", PAGE_REQUEST("running"));
    reply(&w, "page",
          TASKS("2",
                ITEM(1, "backup", "succeeded") "," ITEM(
                    2, "backup", "running") ","
                                            "{\"id\":\"" TASK(9) "\",\"request\":\"@\","
                                                                 "\"kind\":\"inventory\",\"state\":"
                                                                 "\"succeeded\"}"));
    reply(&w, "finished", FINISHED("status", "succeeded", "2"));
    assert_log(&w, "send:status progress:vm2");
    flow_tick(w.flow, 20000);
    reply(&w, "page", PAGE_REQUEST("partly"));
    reply(&w, "page", TASKS("2", ITEM(2, "backup", "failed")));
    /* A page is late: nothing is concluded from half an answer. */
    reply(&w, "finished", FINISHED("status", "succeeded", "3"));
    assert_int_equal(flow_end(w.flow), FLOW_GOING);
    flow_tick(w.flow, 40000);
    reply(&w, "page", PAGE_REQUEST("partly"));
    reply(&w, "finished", FINISHED("status", "succeeded", "1"));
    assert_log(&w, "send:status outcome:vm2 send:status finished:partly");
    assert_int_equal(flow_exit_code(w.flow), CLI_PARTLY);
}

static void a_status_without_answer_is_sent_again(void **state)
{
    (void)state;
    SCOPED_WORLD struct world w;
    begin_job_accepted(&w);
    lose(&w);
    flow_connected(w.flow, 1000);
    flow_tick(w.flow, 1000);
    flow_tick(w.flow, 20999);
    assert_log(&w, "send:backup accepted notice notice send:status");
    flow_tick(w.flow, 21000);
    assert_log(&w, "send:status");
}

static void a_lost_request_is_sent_again(void **state)
{
    (void)state;
    SCOPED_WORLD struct world w;
    begin_job(&w);
    flow_confirmed(w.flow, w.token, MQ_CONFIRMED);
    lose(&w);
    flow_connected(w.flow, 0);
    assert_log(&w, "send:backup notice notice");
    for (int64_t now = 1000; now <= 9000; now += 4000) {
        flow_tick(w.flow, now);
        reply_to(&w, w.id, "refused", NOT_FOUND, now);
    }
    assert_log(&w, "send:status send:status send:status notice send:backup");
    assert_string_equal(w.id, w.sent_id);
    reply(&w, "accepted", ACCEPTED);
    reply(&w, "finished", FINISHED("backup", "succeeded", "0"));
    assert_log(&w, "accepted finished:succeeded");
}

/* A rebuilt broker has no queue before its coordinator is there again. */
static void a_request_sent_again_too_early(void **state)
{
    (void)state;
    SCOPED_WORLD struct world w;
    begin_job(&w);
    flow_confirmed(w.flow, w.token, MQ_CONFIRMED);
    lose(&w);
    flow_connected(w.flow, 0);
    for (int64_t now = 0; now <= 8000; now += 4000) {
        flow_tick(w.flow, now);
        reply_to(&w, w.id, "refused", NOT_FOUND, now);
    }
    assert_log(&w,
               "send:backup notice notice send:status send:status send:status notice send:backup");
    flow_confirmed(w.flow, w.token, MQ_RETURNED);
    assert_int_equal(flow_end(w.flow), FLOW_GOING);
    for (int64_t now = 12000; now <= 20000; now += 4000) {
        flow_tick(w.flow, now);
        reply_to(&w, w.id, "refused", NOT_FOUND, now);
    }
    assert_log(&w, "notice send:status send:status send:status notice send:backup");
    reply(&w, "finished", FINISHED("backup", "succeeded", "0"));
    assert_int_equal(flow_exit_code(w.flow), CLI_SUCCEEDED);
}

/* Not before the broker has confirmed it: it may be on its way. */
static void an_unconfirmed_request_is_not_doubled(void **state)
{
    (void)state;
    SCOPED_WORLD struct world w;
    begin_job(&w);
    lose(&w);
    flow_connected(w.flow, 0);
    for (int64_t now = 1000; now <= 40000; now += 4000) {
        flow_tick(w.flow, now);
        reply_to(&w, w.id, "refused", NOT_FOUND, now);
    }
    assert_null(strstr(buf_str(&w.log) + 1, "send:backup"));
    assert_int_equal(flow_end(w.flow), FLOW_GOING);
}

static void an_accepted_job_that_vanishes(void **state)
{
    (void)state;
    SCOPED_WORLD struct world w;
    begin_job_accepted(&w);
    lose(&w);
    flow_connected(w.flow, 0);
    for (int64_t now = 1000; now <= 9000; now += 4000) {
        flow_tick(w.flow, now);
        reply_to(&w, w.id, "finished", FINISHED("status", "failed", "0"), now);
    }
    assert_int_equal(flow_end(w.flow), FLOW_BROKEN);
    assert_int_equal(flow_exit_code(w.flow), CLI_FAILED);
    assert_int_equal(flow_error(w.flow)->code, ERR_NOT_FOUND);
}

static void no_wait_over_a_reconnect(void **state)
{
    (void)state;
    SCOPED_WORLD struct world w;
    begin(&w, FLOW_JOB, false, 0);
    flow_connected(w.flow, 0);
    flow_confirmed(w.flow, w.token, MQ_CONFIRMED);
    lose(&w);
    flow_connected(w.flow, 0);
    for (int64_t now = 0; now <= 10000; now += 10000) {
        flow_tick(w.flow, now);
        reply(&w, "page", PAGE_REQUEST("running"));
        reply(&w, "finished", FINISHED("status", "succeeded", "1"));
    }
    assert_log(&w, "send:backup notice notice send:status send:backup notice send:status accepted");
    assert_int_equal(flow_end(w.flow), FLOW_ACCEPTED);
}

static void a_query(void **state)
{
    (void)state;
    SCOPED_WORLD struct world w;
    begin_query(&w);
    reply(&w, "accepted", ACCEPTED);
    reply(&w, "page", POINT_PAGE("2"));
    reply(&w, "page", POINT_PAGE("1"));
    reply(&w, "page", POINT_PAGE("2")); /* a double */
    reply(&w, "finished", FINISHED("list", "succeeded", "2"));
    assert_log(&w, "send:list accepted page:2 page:1 finished:succeeded");
    assert_int_equal(flow_exit_code(w.flow), CLI_SUCCEEDED);
}

static void a_query_over_a_reconnect(void **state)
{
    (void)state;
    SCOPED_WORLD struct world w;
    begin_query(&w);
    reply(&w, "page", POINT_PAGE("1"));
    lose(&w);
    flow_connected(w.flow, 1000);
    assert_string_not_equal(w.id, w.sent_id);
    reply(&w, "page", POINT_PAGE("1"));
    reply(&w, "finished", FINISHED("list", "succeeded", "1"));
    assert_log(&w, "send:list page:1 notice notice restarted send:list page:1 finished:succeeded");
}

static void pages_behind_the_last_reply(void **state)
{
    (void)state;
    SCOPED_WORLD struct world w;
    begin_query(&w);
    reply(&w, "page", POINT_PAGE("2"));
    reply(&w, "finished", FINISHED("list", "succeeded", "2"));
    assert_int_equal(flow_end(w.flow), FLOW_GOING);
    reply(&w, "page", POINT_PAGE("1"));
    assert_log(&w, "send:list page:2 page:1 finished:succeeded");
    assert_int_equal(flow_exit_code(w.flow), CLI_SUCCEEDED);
}

static void pages_that_never_come(void **state)
{
    (void)state;
    SCOPED_WORLD struct world w;
    begin_query(&w);
    reply(&w, "page", POINT_PAGE("2"));
    reply(&w, "finished", FINISHED("list", "succeeded", "2"));
    flow_tick(w.flow, 9999);
    assert_int_equal(flow_end(w.flow), FLOW_GOING);
    flow_tick(w.flow, 10000);
    assert_int_equal(flow_end(w.flow), FLOW_FINISHED);
    assert_int_equal(flow_exit_code(w.flow), CLI_FAILED);
    assert_non_null(strstr(flow_error(w.flow)->message, "1 of 2 pages"));
}

static void following(void **state)
{
    (void)state;
    SCOPED_WORLD struct world w;
    begin(&w, FLOW_FOLLOW, true, 0);
    assert_string_equal(flow_request_id(w.flow), OTHER);
    flow_connected(w.flow, 0);
    flow_tick(w.flow, 0);
    assert_log(&w, "send:status");
    reply(&w, "page", PAGE_REQUEST("cancelled"));
    reply(&w, "finished", FINISHED("status", "succeeded", "1"));
    assert_log(&w, "finished:cancelled");
    assert_int_equal(flow_exit_code(w.flow), CLI_CANCELLED);
    end(&w);

    begin(&w, FLOW_FOLLOW, true, 0);
    flow_connected(w.flow, 0);
    flow_tick(w.flow, 0);
    reply(&w, "refused", NOT_FOUND);
    assert_int_equal(flow_end(w.flow), FLOW_BROKEN);
    assert_int_equal(flow_error(w.flow)->code, ERR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job),
        cmocka_unit_test(exit_codes),
        cmocka_unit_test(replies_to_others_are_ignored),
        cmocka_unit_test(refused),
        cmocka_unit_test(no_wait),
        cmocka_unit_test(unroutable_nacked_and_unsendable),
        cmocka_unit_test(time_is_up),
        cmocka_unit_test(nobody_takes_it),
        cmocka_unit_test(a_known_key),
        cmocka_unit_test(a_job_over_a_reconnect),
        cmocka_unit_test(a_job_followed_by_its_status),
        cmocka_unit_test(a_status_without_answer_is_sent_again),
        cmocka_unit_test(a_lost_request_is_sent_again),
        cmocka_unit_test(a_request_sent_again_too_early),
        cmocka_unit_test(an_unconfirmed_request_is_not_doubled),
        cmocka_unit_test(an_accepted_job_that_vanishes),
        cmocka_unit_test(no_wait_over_a_reconnect),
        cmocka_unit_test(a_query),
        cmocka_unit_test(a_query_over_a_reconnect),
        cmocka_unit_test(pages_behind_the_last_reply),
        cmocka_unit_test(pages_that_never_come),
        cmocka_unit_test(following),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Login, hooks, retries and lost answers against a scripted engine. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proto/base/file.h"
#include "tests/unit/worker/ovirt/fixture.h"

#define PAGE "<html><head><title>503 Service Unavailable</title></head><body>...</body></html>"
#define LOCK                                                                                       \
    "{\"reason\":\"Operation Failed\",\"detail\":\"[Cannot create Snapshot. Snapshot is "          \
    "currently "                                                                                   \
    "being created for VM web01.]\"}"
#define BUSY_MS (15 * 60 * 1000)

static void reads_version_with_right_headers(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  {"GET ", 200,
                   "{\"product_info\":{\"version\":{\"major\":\"4\",\"minor\":\"5\",\"build\":"
                   "\"7\"}}}",
                   FAKE_ANSWER},
                  {0}});
    struct engine_version v, again;
    engine_session_set_step(x.session, "task 8/snapshot");
    assert_true(engine_read_version(x.session, &v, &x.err));
    assert_true(engine_read_version(x.session, &again, &x.err)); /* kept: no second request */
    assert_int_equal(engine_version_cmp(&v, 4, 5, 7), 0);
    const struct fake_seen *seen = fake_engine_seen(x.fake, 0);
    assert_string_equal(seen->authorization, "Bearer token-1");
    assert_string_equal(seen->accept, "application/json");
    assert_string_equal(seen->language, "en-US");
    assert_string_equal(seen->expect, "");
    assert_true(strncmp(seen->correlation, "task-8-snapshot-", 16) == 0);
    assert_true(strlen(seen->correlation) <= 36);
    stop(&x);
}

static void refuses_other_versions(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  {"GET ", 200, "{\"product_info\":{\"version\":{\"major\":3,\"minor\":6}}}", 0},
                  {"GET ", 200, "{\"product_info\":{}}", 0},
                  {"GET ", 200,
                   "{\"product_info\":{\"version\":{\"major\":4,\"minor\":\"4\",\"full_version\":"
                   "\"4.4.10.7-1.el8\"}}}",
                   0},
                  {0}});
    struct engine_version v;
    assert_false(engine_read_version(x.session, &v, &x.err));
    assert_code(&x, ERR_UNSUPPORTED);
    err_clear(&x.err);
    assert_false(engine_read_version(x.session, &v, &x.err));
    assert_code(&x, ERR_ENGINE_PROTOCOL);
    err_clear(&x.err);
    assert_true(engine_read_version(x.session, &v, &x.err));
    assert_int_equal(engine_version_cmp(&v, 4, 4, 10), 0);
    stop(&x);
}

static void logs_in_again_once_after_401(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{"GET vms/a", 200, "{\"id\":\"a\"}", 0},
                                         {"GET vms/b", 200, "{\"id\":\"b\"}", 0},
                                         {0}});
    json_auto_t *a = NULL, *b = NULL;
    assert_true(engine_get(x.session, "vms/a", NULL, &a, &x.err));
    fake_engine_expire_tokens(x.fake);
    assert_true(engine_get(x.session, "vms/b", NULL, &b, &x.err));
    assert_int_equal(fake_engine_logins(x.fake), 2);
    stop(&x);
}

static void never_repeats_a_refused_password(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{"GET vms", 200, "{}", 0}, {0}});
    fake_engine_refuse_logins(x.fake, true);
    json_auto_t *answer = NULL;
    for (int i = 0; i < 5; i++) {
        err_clear(&x.err);
        assert_false(engine_get(x.session, "vms", NULL, &answer, &x.err));
        assert_code(&x, ERR_ENGINE_AUTH);
        assert_non_null(strstr(x.err.message, "username or password is incorrect"));
        assert_null(strstr(x.err.message, "secret"));
    }
    assert_int_equal(fake_engine_logins(x.fake), 1);
    /* A new password is a new try. */
    fake_engine_refuse_logins(x.fake, false);
    struct engine_conf conf = fake_engine_conf(x.fake);
    err_clear(&x.err);
    assert_true(file_write_atomic(AT_FDCWD, conf.password_file, "other", 5, 0600, &x.err));
    assert_true(engine_get(x.session, "vms", NULL, &answer, &x.err));
    assert_int_equal(fake_engine_logins(x.fake), 2);
    stop(&x);
}

static void odd_login_answers(void **state)
{
    (void)state;
    static const struct {
        int status;
        const char *body;
        enum err_code code;
        bool again; /* the next request may try again at once */
    } cases[] = {
        {200, "{}", ERR_ENGINE_PROTOCOL, true},
        {200, "{\"access_token\":\"\"}", ERR_ENGINE_PROTOCOL, true},
        {200, "{\"access_token\":\"a\\r\\nX-Evil: 1\"}", ERR_ENGINE_PROTOCOL, true},
        {200, "{\"access_token\":5}", ERR_ENGINE_PROTOCOL, true},
        {503, PAGE, ERR_ENGINE_BUSY, true},
        {404, NULL, ERR_ENGINE_BUSY, true},
        {500, PAGE, ERR_ENGINE_BUSY, true},
        {400, "{\"error_code\":\"server_error\",\"error\":\"x\"}", ERR_ENGINE_BUSY, true},
        {302, PAGE, ERR_ENGINE_PROTOCOL, true},
        {400, "{\"error\":\"access_denied\",\"error_description\":\"no\"}", ERR_ENGINE_AUTH, false},
        {403, NULL, ERR_ENGINE_AUTH, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct fixture x;
        start(&x, (const struct fake_line[]){{0}});
        fake_engine_set_login(x.fake, cases[i].status, cases[i].body);
        json_auto_t *answer = NULL;
        assert_false(engine_get(x.session, "vms", NULL, &answer, &x.err));
        assert_code(&x, cases[i].code);
        unsigned logins = fake_engine_logins(x.fake);
        err_clear(&x.err);
        assert_false(engine_get(x.session, "vms", NULL, &answer, &x.err));
        assert_int_equal(fake_engine_logins(x.fake) > logins, cases[i].again);
        stop(&x);
    }
}

static void password_must_be_readable(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{0}});
    engine_session_free(x.session);
    engine_free(x.engine);
    struct engine_conf conf = fake_engine_conf(x.fake);
    conf.password_file = "/nonexistent/password";
    x.engine = engine_new(&conf, &x.err);
    x.session = engine_session_new(x.engine, NULL);
    json_auto_t *answer = NULL;
    assert_false(engine_get(x.session, "vms", NULL, &answer, &x.err));
    assert_code(&x, ERR_NOT_FOUND);
    assert_int_equal(fake_engine_logins(x.fake), 0);
    stop(&x);
}

static void fresh_token_that_is_refused_ends_it(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{0}});
    fake_engine_refuse_tokens(x.fake);
    json_auto_t *answer = NULL;
    assert_false(engine_get(x.session, "vms", NULL, &answer, &x.err));
    assert_code(&x, ERR_ENGINE_AUTH);
    assert_int_equal(fake_engine_logins(x.fake), 2);
    stop(&x);
}

static void logs_out_at_the_end(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{"GET vms", 200, "{}", 0}, {0}});
    json_auto_t *answer = NULL;
    assert_true(engine_get(x.session, "vms", NULL, &answer, &x.err));
    engine_session_free(x.session);
    engine_free(x.engine);
    assert_int_equal(fake_engine_logouts(x.fake), 1);
    fake_engine_check(x.fake);
    fake_engine_free(x.fake);
}

/* --- Changes --------------------------------------------------------------------------------- */
struct probe {
    unsigned calls;
    bool done, fails;
};

static bool probe(struct engine_session *s, void *ctx, bool *ret_done, json_t **ret_object,
                  struct err *err)
{
    (void)s;
    struct probe *p = ctx;
    p->calls++;
    if (p->fails)
        return err_set(err, ERR_ENGINE_UNREACHABLE, 0, "probe failed");
    *ret_done = p->done;
    if (p->done)
        *ret_object = json_pack("{s:s}", "id", "found");
    return true;
}

static bool post(struct fixture *x, struct probe *p, json_t **ret)
{
    struct engine_mutation m = {
        .method = ENGINE_POST, .path = "things", .probe = probe, .probe_ctx = p};
    return engine_mutate(x->session, &m, ret, &x->err);
}

static void waits_for_locks(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{"POST things", 409, LOCK, 0},
                                         {"POST things", 409, LOCK, 0},
                                         {"POST things", 409, LOCK, 0},
                                         {"POST things", 201, "{\"id\":\"made\"}", 0},
                                         {0}});
    struct probe p = {0};
    json_auto_t *answer = NULL;
    int64_t before = fake_engine_now_ms(x.fake);
    assert_true(post(&x, &p, &answer));
    assert_string_equal(json_string_value(json_object_get(answer, "id")), "made");
    assert_int_equal(p.calls, 0); /* a lock means: not done */
    assert_true(fake_engine_now_ms(x.fake) - before >= 3 * 1500);
    assert_string_equal(fake_engine_seen(x.fake, 0)->body, "{}");
    assert_string_not_equal(fake_engine_seen(x.fake, 0)->correlation,
                            fake_engine_seen(x.fake, 1)->correlation);
    stop(&x);
}

static void gives_up_on_locks_when_the_budget_is_spent(void **state)
{
    (void)state;
    struct fixture x;
    struct fake_line script[200] = {{0}};
    start(&x, script);
    for (int i = 0; i < 100; i++)
        script[i] = (struct fake_line){"POST things", 409, LOCK, 0};
    struct probe p = {0};
    int64_t before = fake_engine_now_ms(x.fake);
    assert_false(post(&x, &p, NULL));
    assert_code(&x, ERR_ENGINE_BUSY);
    assert_int_equal(x.err.sys, 409);
    assert_non_null(strstr(x.err.message, "Snapshot is currently being created for VM web01"));
    assert_true(fake_engine_now_ms(x.fake) - before <= BUSY_MS);
    assert_true(fake_engine_now_ms(x.fake) - before > BUSY_MS / 2);
    script[fake_engine_seen_count(x.fake)] = (struct fake_line){0};
    stop(&x);
}

static void fails_at_once_on_other_conflicts(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  {"POST things", 409,
                   "{\"status\":\"failed\",\"fault\":{\"reason\":\"Operation Failed\","
                   "\"detail\":\"[Cannot attach Virtual Disk. The disk is already attached to "
                   "VM.]\"}}",
                   0},
                  {"POST things", 403,
                   "{\"detail\":\"User is not authorized to perform this "
                   "action.\",\"reason\":\"Operation Failed\"}",
                   0},
                  {0}});
    struct probe p = {0};
    assert_false(post(&x, &p, NULL));
    assert_code(&x, ERR_CONFLICT);
    assert_non_null(strstr(x.err.message, "already attached to VM"));
    err_clear(&x.err);
    assert_false(post(&x, &p, NULL));
    assert_code(&x, ERR_ENGINE_DENIED);
    assert_int_equal(p.calls, 0);
    stop(&x);
}

/* The POST goes over a connection that was used before: libcurl would silently send it again. */
static void lost_answer_is_looked_up_not_repeated(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  {"GET vms", 200, "{}", 0}, {"POST things", 0, NULL, FAKE_DROP}, {0}});
    struct probe p = {.done = true};
    json_auto_t *vms = NULL, *answer = NULL;
    assert_true(engine_get(x.session, "vms", NULL, &vms, &x.err));
    assert_true(post(&x, &p, &answer));
    assert_string_equal(json_string_value(json_object_get(answer, "id")), "found");
    assert_int_equal(p.calls, 1);
    assert_int_equal(fake_engine_seen_count(x.fake), 2);
    stop(&x);
}

static void lost_request_is_repeated_after_the_look_up(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{"POST things", 0, NULL, FAKE_DROP},
                                         {"POST things", 502, PAGE, 0},
                                         {"POST things", 200, "{\"id\":\"made\"}", 0},
                                         {0}});
    struct probe p = {0};
    json_auto_t *answer = NULL;
    assert_true(post(&x, &p, &answer));
    assert_int_equal(p.calls, 2);
    stop(&x);
}

static void refusal_not_caused_by_the_lost_request_stands(void **state)
{
    (void)state;
    struct fixture x;
    struct probe p = {0};
    start(&x, (const struct fake_line[]){
                  {"POST things", 0, NULL, FAKE_DROP},
                  {"POST things", 409, "{\"detail\":\"[The disk is already attached to VM.]\"}", 0},
                  {0}});
    assert_false(post(&x, &p, NULL)); /* looked for twice, never there: the refusal stands */
    assert_code(&x, ERR_CONFLICT);
    assert_int_equal(p.calls, 2);
    stop(&x);
}

static bool probe_second_time(struct engine_session *s, void *ctx, bool *ret_done,
                              json_t **ret_object, struct err *err)
{
    (void)s, (void)ret_object, (void)err;
    unsigned *calls = ctx;
    *ret_done = ++*calls == 2;
    return true;
}

/* The first try was done after all, and its effect is why the second is refused. */
static void refusal_caused_by_the_lost_request_is_success(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  {"POST things", 0, NULL, FAKE_DROP},
                  {"POST things", 409, "{\"detail\":\"[The disk is already attached to VM.]\"}", 0},
                  {0}});
    unsigned calls = 0;
    struct engine_mutation m = {
        .method = ENGINE_POST, .path = "things", .probe = probe_second_time, .probe_ctx = &calls};
    assert_true(engine_mutate(x.session, &m, NULL, &x.err));
    assert_false(err_is_set(&x.err));
    stop(&x);
}

/* The lost request is still at work, and holds the lock that the second one meets. A third, after
 * the lock has gone, would make a second thing. */
static void lost_request_still_at_work_is_not_done_twice(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  {"POST things", 0, NULL, FAKE_DROP}, {"POST things", 409, LOCK, 0}, {0}});
    unsigned calls = 0;
    struct engine_mutation m = {
        .method = ENGINE_POST, .path = "things", .probe = probe_second_time, .probe_ctx = &calls};
    assert_true(engine_mutate(x.session, &m, NULL, &x.err));
    assert_int_equal(fake_engine_seen_count(x.fake), 2);
    assert_int_equal(calls, 2);
    stop(&x);
}

static void unknown_outcome_is_an_error_not_a_repeat(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{"POST things", 0, NULL, FAKE_DROP}, {0}});
    struct probe p = {.fails = true};
    assert_false(post(&x, &p, NULL));
    assert_code(&x, ERR_ENGINE_UNREACHABLE);
    assert_int_equal(fake_engine_seen_count(x.fake), 1);
    stop(&x);
}

static void transient_400_gets_three_tries(void **state)
{
    (void)state;
    static const char hotplug[] =
        "{\"reason\":\"Operation Failed\",\"detail\":\"[Failed to hot-plug disk]\"}";
    struct fixture x;
    start(&x, (const struct fake_line[]){{"POST things", 400, hotplug, 0},
                                         {"POST things", 400, hotplug, 0},
                                         {"POST things", 400, hotplug, 0},
                                         {0}});
    struct probe p = {0};
    assert_false(post(&x, &p, NULL));
    assert_code(&x, ERR_ENGINE_FAULT);
    assert_int_equal(x.err.sys, 400);
    stop(&x);
}

static void delete_of_something_gone_is_done(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  {"DELETE things/1", 404, NULL, 0}, {"DELETE things/1", 404, NULL, 0}, {0}});
    struct engine_mutation m = {.method = ENGINE_DELETE,
                                .path = "things/1",
                                .probe = engine_probe_repeatable,
                                .gone_is_done = true};
    assert_true(engine_mutate(x.session, &m, NULL, &x.err));
    assert_string_equal(fake_engine_seen(x.fake, 0)->body, "");
    m.gone_is_done = false;
    assert_false(engine_mutate(x.session, &m, NULL, &x.err));
    assert_code(&x, ERR_NOT_FOUND);
    stop(&x);
}

/* --- Hooks ----------------------------------------------------------------------------------- */
struct hook_log {
    unsigned asked, allowed;
    bool cancel;
};

static bool before_mutation(void *ctx, struct err *err)
{
    struct hook_log *log = ctx;
    if (log->asked++ < log->allowed)
        return true;
    return err_set(err, ERR_LEASE_LOST, 0, "no lease");
}

static bool cancelled(void *ctx, struct err *err)
{
    struct hook_log *log = ctx;
    if (!log->cancel)
        return false;
    err_set(err, ERR_CANCELLED, 0, "stop");
    return true;
}

static void every_try_of_a_change_asks_the_lease(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{"GET vms", 200, "{}", 0},
                                         {"POST things", 409, LOCK, 0},
                                         {"POST things", 409, LOCK, 0},
                                         {0}});
    struct hook_log log = {.allowed = 4}; /* two tries, each before connecting and before sending */
    engine_session_set_hooks(
        x.session, &(struct engine_hooks){.ctx = &log, .before_mutation = before_mutation});
    json_auto_t *vms = NULL;
    assert_true(engine_get(x.session, "vms", NULL, &vms, &x.err));
    assert_int_equal(log.asked, 0); /* reads need no lease */
    struct probe p = {0};
    assert_false(post(&x, &p, NULL));
    assert_code(&x, ERR_LEASE_LOST);
    assert_int_equal(log.asked, 5);
    stop(&x);
}

static void a_lease_that_ends_while_connecting_is_noticed(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{0}});
    struct hook_log log = {.allowed = 1};
    engine_session_set_hooks(
        x.session, &(struct engine_hooks){.ctx = &log, .before_mutation = before_mutation});
    struct probe p = {0};
    assert_false(post(&x, &p, NULL));
    assert_code(&x, ERR_LEASE_LOST);
    assert_int_equal(log.asked, 2);
    assert_int_equal(p.calls, 0); /* it cannot have been done */
    stop(&x);
}

static bool cancel_later(void *ctx, struct err *err)
{
    struct hook_log *log = ctx;
    if (++log->asked < 5)
        return false;
    err_set(err, ERR_CANCELLED, 0, "stop");
    return true;
}

static void cancel_ends_a_wait(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{"POST things", 409, LOCK, 0}, {0}});
    struct hook_log log = {0};
    engine_session_set_hooks(x.session,
                             &(struct engine_hooks){.ctx = &log, .cancelled = cancel_later});
    struct probe p = {0};
    int64_t before = fake_engine_now_ms(x.fake);
    assert_false(post(&x, &p, NULL));
    assert_code(&x, ERR_CANCELLED);
    assert_true(fake_engine_now_ms(x.fake) - before < 2000);
    stop(&x);
}

struct drop_then_cancel {
    struct fake_engine *fake;
};

static bool cancelled_after_first(void *ctx, struct err *err)
{
    struct drop_then_cancel *d = ctx;
    if (!fake_engine_has_seen(d->fake))
        return false;
    err_set(err, ERR_CANCELLED, 0, "stop");
    return true;
}

static void cancel_does_not_hide_what_a_lost_request_made(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{"POST things", 0, NULL, FAKE_DROP}, {0}});
    struct drop_then_cancel d = {.fake = x.fake};
    engine_session_set_hooks(x.session,
                             &(struct engine_hooks){.ctx = &d, .cancelled = cancelled_after_first});
    struct probe p = {.done = true};
    json_auto_t *answer = NULL;
    assert_true(post(&x, &p, &answer));
    assert_string_equal(json_string_value(json_object_get(answer, "id")), "found");
    stop(&x);
}

static void cancelled_session_sends_nothing(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{0}});
    struct hook_log log = {.cancel = true};
    engine_session_set_hooks(x.session,
                             &(struct engine_hooks){.ctx = &log, .cancelled = cancelled});
    json_auto_t *answer = NULL;
    assert_false(engine_get(x.session, "vms", NULL, &answer, &x.err));
    assert_code(&x, ERR_CANCELLED);
    stop(&x);
}

static void cancel_ends_a_slow_read(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{"GET vms", 200, "{}", FAKE_SLOW}, {0}});
    struct drop_then_cancel d = {.fake = x.fake};
    engine_session_set_hooks(x.session,
                             &(struct engine_hooks){.ctx = &d, .cancelled = cancelled_after_first});
    json_auto_t *answer = NULL;
    assert_false(engine_get(x.session, "vms", NULL, &answer, &x.err));
    assert_code(&x, ERR_CANCELLED);
    stop(&x);
}

static void cancel_does_not_cut_off_a_change(void **state)
{
    (void)state;
    struct fixture x;
    start(&x,
          (const struct fake_line[]){{"POST things", 200, "{\"id\":\"made\"}", FAKE_SLOW}, {0}});
    struct drop_then_cancel d = {.fake = x.fake};
    engine_session_set_hooks(x.session,
                             &(struct engine_hooks){.ctx = &d, .cancelled = cancelled_after_first});
    struct probe p = {0};
    json_auto_t *answer = NULL;
    assert_true(post(&x, &p, &answer));
    assert_string_equal(json_string_value(json_object_get(answer, "id")), "made");
    stop(&x);
}

/* --- Reads ----------------------------------------------------------------------------------- */
static void reads_wait_for_a_restarting_engine(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{"GET vms", 503, PAGE, 0},
                                         {"GET vms", 0, NULL, FAKE_DROP},
                                         {"GET vms", 200, PAGE, 0},
                                         {"GET vms", 200, "{\"vm\":[{\"id\":\"1\"}]}", 0},
                                         {0}});
    json_auto_t *answer = NULL;
    assert_true(engine_get(x.session, "vms", NULL, &answer, &x.err));
    assert_int_equal(json_array_size(json_object_get(answer, "vm")), 1);
    stop(&x);
}

static void empty_404_is_gone_but_a_page_is_not_at_once(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{"GET vms/1", 404, NULL, 0},
                                         /* the application is not deployed yet */
                                         {"GET vms/2", 404, PAGE, 0},
                                         {"GET ", 404, PAGE, 0},
                                         {"GET vms/2", 200, "{\"id\":\"2\"}", 0},
                                         /* the engine itself says so with a page */
                                         {"GET vms/3", 404, PAGE, 0},
                                         {"GET ", 200, "{}", 0},
                                         {"GET vms/3", 404, PAGE, 0},
                                         {0}});
    json_t *answer = NULL;
    assert_true(engine_get_or_gone(x.session, "vms/1", NULL, &answer, &x.err));
    assert_null(answer);
    assert_true(engine_get_or_gone(x.session, "vms/2", NULL, &answer, &x.err));
    assert_non_null(answer);
    json_decref(answer);
    assert_false(engine_get(x.session, "vms/3", NULL, &answer, &x.err));
    assert_code(&x, ERR_NOT_FOUND);
    stop(&x);
}

static void broken_json_is_a_protocol_error(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{"GET vms", 200, "{\"vm\":[", 0},
                                         {"GET vms", 200, "[]", 0},
                                         {"GET vms", 200, "\"x\"", 0},
                                         {0}});
    json_auto_t *answer = NULL;
    assert_false(engine_get(x.session, "vms", NULL, &answer, &x.err));
    assert_code(&x, ERR_ENGINE_PROTOCOL);
    stop(&x);
}

static void answers_are_limited_in_size(void **state)
{
    (void)state;
    struct fixture x;
    char *big = xmalloc(5001);
    memset(big, ' ', 5000);
    big[0] = '{';
    big[4999] = '}';
    big[5000] = '\0';
    start(&x, (const struct fake_line[]){{"GET vms", 200, big, 0}, {0}});
    engine_session_free(x.session);
    engine_free(x.engine);
    struct engine_conf conf = fake_engine_conf(x.fake);
    conf.max_body_bytes = 4096;
    x.engine = engine_new(&conf, &x.err);
    x.session = engine_session_new(x.engine, NULL);
    json_auto_t *answer = NULL;
    assert_false(engine_get(x.session, "vms", NULL, &answer, &x.err));
    assert_code(&x, ERR_TOO_LARGE);
    stop(&x);
    free(big);
}

/* --- Connections ----------------------------------------------------------------------------- */
static void use_conf(struct fixture *x, const struct engine_conf *conf)
{
    engine_session_free(x->session);
    engine_free(x->engine);
    x->engine = engine_new(conf, &x->err);
    assert_non_null(x->engine);
    x->session = engine_session_new(x->engine, NULL);
}

static void certificate_is_verified(void **state)
{
    (void)state;
    struct fixture x, other;
    start(&x, (const struct fake_line[]){{"GET vms", 200, "{}", 0}, {0}});
    start(&other, (const struct fake_line[]){{0}});
    struct engine_conf conf = fake_engine_conf(x.fake);
    conf.ca_file = fake_engine_conf(other.fake).ca_file;
    use_conf(&x, &conf);
    json_auto_t *answer = NULL;
    assert_false(engine_get(x.session, "vms", NULL, &answer, &x.err));
    assert_code(&x, ERR_ENGINE_TLS);
    assert_int_equal(fake_engine_logins(x.fake), 0); /* no password to a stranger */
    /* The right CA, but another name than the certificate's. */
    err_clear(&x.err);
    SCOPED_FREE char *url = xstrdup(fake_engine_conf(x.fake).url);
    SCOPED_FREE char *named = xasprintf("https://localhost:%s", strrchr(url, ':') + 1);
    conf = fake_engine_conf(x.fake);
    conf.url = named;
    use_conf(&x, &conf);
    assert_false(engine_get(x.session, "vms", NULL, &answer, &x.err));
    assert_code(&x, ERR_ENGINE_TLS);
    err_clear(&x.err);
    conf.insecure = true;
    use_conf(&x, &conf);
    assert_true(engine_get(x.session, "vms", NULL, &answer, &x.err));
    stop(&x);
    stop(&other);
}

static void missing_ca_file_is_a_configuration_error(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{0}});
    struct engine_conf conf = fake_engine_conf(x.fake);
    conf.ca_file = "/nonexistent/ca.pem";
    use_conf(&x, &conf);
    json_auto_t *answer = NULL;
    assert_false(engine_get(x.session, "vms", NULL, &answer, &x.err));
    assert_code(&x, ERR_BAD_CONFIG);
    stop(&x);
}

static void unreachable_engine_fails_soon_at_first(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{0}});
    struct engine_conf conf = fake_engine_conf(x.fake);
    conf.url = "https://127.0.0.1:1/ovirt-engine/api/";
    use_conf(&x, &conf);
    json_auto_t *answer = NULL;
    int64_t before = fake_engine_now_ms(x.fake);
    assert_false(engine_get(x.session, "vms", NULL, &answer, &x.err));
    assert_code(&x, ERR_ENGINE_UNREACHABLE);
    assert_true(fake_engine_now_ms(x.fake) - before <= 15000);
    stop(&x);
}

static void bad_settings_are_refused(void **state)
{
    (void)state;
    struct engine_conf good = {.url = "https://e/ovirt-engine", .user = "u", .password_file = "f"};
    const struct engine_conf bad[] = {
        {.url = NULL, .user = "u", .password_file = "f"},
        {.url = "http://e/ovirt-engine", .user = "u", .password_file = "f"},
        {.url = "https://e/ovirt engine", .user = "u", .password_file = "f"},
        {.url = "https://e/x?y", .user = "u", .password_file = "f"},
        {.url = good.url, .user = "", .password_file = "f"},
        {.url = good.url, .user = "u"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err err = ERR_INIT;
        assert_null(engine_new(&bad[i], &err));
        assert_int_equal(err.code, ERR_BAD_CONFIG);
    }
    struct err err = ERR_INIT;
    engine_free(engine_new(&good, &err));
    assert_false(err_is_set(&err));
}

/* --- Threads --------------------------------------------------------------------------------- */
enum { THREADS = 8, ROUNDS = 20 };

struct reader {
    struct engine *engine;
    struct fake_engine *fake;
    _Atomic unsigned *failures;
    int number;
};

static void *read_often(void *ctx)
{
    struct reader *r = ctx;
    struct engine_session *s = engine_session_new(r->engine, NULL);
    for (int i = 0; i < ROUNDS; i++) {
        struct err err = ERR_INIT;
        json_auto_t *answer = NULL;
        if (r->number == 0 && i == ROUNDS / 2)
            fake_engine_expire_tokens(r->fake);
        if (!engine_get(s, "vms", NULL, &answer, &err))
            atomic_fetch_add(r->failures, 1);
    }
    engine_session_free(s);
    return NULL;
}

static void threads_share_one_login(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{0}});
    fake_engine_free_run(x.fake);
    pthread_t threads[THREADS];
    struct reader readers[THREADS];
    _Atomic unsigned failures = 0;
    for (int i = 0; i < THREADS; i++) {
        readers[i] =
            (struct reader){.engine = x.engine, .fake = x.fake, .failures = &failures, .number = i};
        assert_int_equal(pthread_create(&threads[i], NULL, read_often, &readers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        (void)pthread_join(threads[i], NULL);
    assert_int_equal(failures, 0);
    /* One for the start and one after the tokens became stale, for all threads together. */
    assert_int_equal(fake_engine_logins(x.fake), 2);
    stop(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_version_with_right_headers),
        cmocka_unit_test(refuses_other_versions),
        cmocka_unit_test(logs_in_again_once_after_401),
        cmocka_unit_test(odd_login_answers),
        cmocka_unit_test(password_must_be_readable),
        cmocka_unit_test(fresh_token_that_is_refused_ends_it),
        cmocka_unit_test(never_repeats_a_refused_password),
        cmocka_unit_test(logs_out_at_the_end),
        cmocka_unit_test(waits_for_locks),
        cmocka_unit_test(gives_up_on_locks_when_the_budget_is_spent),
        cmocka_unit_test(fails_at_once_on_other_conflicts),
        cmocka_unit_test(lost_answer_is_looked_up_not_repeated),
        cmocka_unit_test(lost_request_is_repeated_after_the_look_up),
        cmocka_unit_test(refusal_not_caused_by_the_lost_request_stands),
        cmocka_unit_test(refusal_caused_by_the_lost_request_is_success),
        cmocka_unit_test(lost_request_still_at_work_is_not_done_twice),
        cmocka_unit_test(unknown_outcome_is_an_error_not_a_repeat),
        cmocka_unit_test(transient_400_gets_three_tries),
        cmocka_unit_test(delete_of_something_gone_is_done),
        cmocka_unit_test(every_try_of_a_change_asks_the_lease),
        cmocka_unit_test(a_lease_that_ends_while_connecting_is_noticed),
        cmocka_unit_test(cancel_ends_a_wait),
        cmocka_unit_test(cancel_does_not_hide_what_a_lost_request_made),
        cmocka_unit_test(cancelled_session_sends_nothing),
        cmocka_unit_test(cancel_ends_a_slow_read),
        cmocka_unit_test(cancel_does_not_cut_off_a_change),
        cmocka_unit_test(reads_wait_for_a_restarting_engine),
        cmocka_unit_test(empty_404_is_gone_but_a_page_is_not_at_once),
        cmocka_unit_test(broken_json_is_a_protocol_error),
        cmocka_unit_test(answers_are_limited_in_size),
        cmocka_unit_test(certificate_is_verified),
        cmocka_unit_test(missing_ca_file_is_a_configuration_error),
        cmocka_unit_test(unreachable_engine_fails_soon_at_first),
        cmocka_unit_test(bad_settings_are_refused),
        cmocka_unit_test(threads_share_one_login),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

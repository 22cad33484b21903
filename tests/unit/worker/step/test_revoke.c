/* SPDX-License-Identifier: Apache-2.0 */
/* The first step of a backup's next attempt: the earlier ones' sessions, and only these. And what
 * an attempt leaves to it. */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <inttypes.h>

#include "tests/unit/temp_dir.h"
#include "tests/unit/worker/fake_run.h"
#include "worker/step/backup.h"
#include "worker/store/sessions.h"

struct revoking {
    struct temp_dir dir;
    struct store *store;
    struct fake_run fake;
    struct backup backup;
};

static void setup(struct revoking *r)
{
    struct err err = ERR_INIT;
    *r = (struct revoking){0};
    temp_dir_make(&r->dir);
    SCOPED_FREE char *path = xasprintf("%s/repository", r->dir.path);
    r->store = store_init(path, NULL, &err);
    if (!r->store)
        fail_msg("%s", err.message);
    fake_run_init(&r->fake);
    r->backup.opts.quiesce = WIRE_QUIESCE_OFF;
    r->fake.run.state = &r->backup;
    r->fake.run.store = r->store;
}

static void teardown(struct revoking *r)
{
    for (size_t i = 0; i < r->backup.earlier_count; i++)
        free(r->backup.earlier[i]);
    free(r->backup.earlier);
    fake_run_done(&r->fake);
    store_free(r->store);
    temp_dir_remove(&r->dir);
}

static enum store_fate fate_of(struct revoking *r, int64_t fence)
{
    struct err err = ERR_INIT;
    SCOPED_FREE char *session = xasprintf(FAKE_TASK ".%" PRId64, fence);
    enum store_fate fate = STORE_FATE_NONE;
    if (!store_session_fate(r->store, session, &fate, &err))
        fail_msg("%s", err.message);
    return fate;
}

/* Other tasks of the VM took many fences while this one waited for its next attempt. */
static void an_attempt_of_long_ago_is_revoked(void **state)
{
    (void)state;
    static char worker[] = "w0", step[] = "grant", started[] = "started";
    struct wire_journal_entry entries[] = {
        {.attempt = 1, .fence = 7, .worker = worker, .step = step, .state = started},
        {.attempt = 1, .fence = 7, .worker = worker, .step = step, .state = started},
        {.attempt = 2, .fence = 40, .worker = worker, .step = step, .state = started},
        {.attempt = 3, .fence = 990, .worker = worker, .step = step, .state = started},
    };
    struct revoking r;
    setup(&r);
    struct err err = ERR_INIT;
    r.fake.offer.attempt = 4;
    r.fake.offer.journal = (struct wire_journal){entries, 4};
    r.fake.run.fence = 1000;
    if (!step_revoke_earlier(&r.fake.run, &err))
        fail_msg("%s", err.message);
    assert_int_equal(fate_of(&r, 7), STORE_FATE_REVOKED);
    assert_int_equal(fate_of(&r, 40), STORE_FATE_REVOKED);
    assert_int_equal(fate_of(&r, 990), STORE_FATE_REVOKED);
    assert_int_equal(fate_of(&r, 999), STORE_FATE_REVOKED); /* one that was not heard of */
    assert_int_equal(fate_of(&r, 100), STORE_FATE_NONE);    /* somebody else's fences: no litter */
    assert_int_equal(fate_of(&r, 980), STORE_FATE_NONE);
    assert_int_equal(fate_of(&r, 1000), STORE_FATE_NONE);
    assert_false(r.backup.stands);
    /* All of them may have left something to adopt. */
    assert_int_equal(r.backup.earlier_count, 6);
    assert_string_equal(r.backup.earlier[0], FAKE_TASK ".7");
    assert_string_equal(r.backup.earlier[5], FAKE_TASK ".999");
    teardown(&r);
}

static void a_first_attempt_revokes_nothing(void **state)
{
    (void)state;
    struct revoking r;
    setup(&r);
    struct err err = ERR_INIT;
    assert_true(step_revoke_earlier(&r.fake.run, &err));
    assert_int_equal(fate_of(&r, 6), STORE_FATE_NONE);
    assert_int_equal(r.fake.lease_checks, 0);
    teardown(&r);
}

static void without_a_lease_nothing_is_revoked(void **state)
{
    (void)state;
    struct revoking r;
    setup(&r);
    struct err err = ERR_INIT;
    r.fake.offer.attempt = 2;
    r.fake.lease_lost = true;
    assert_false(step_revoke_earlier(&r.fake.run, &err));
    assert_int_equal(err.code, ERR_LEASE_LOST);
    assert_int_equal(fate_of(&r, 6), STORE_FATE_NONE);
    teardown(&r);
}

/* ---- what an attempt leaves to the next one */

/* This one's session, with some data in it. */
static struct store_session *copy_some(struct revoking *r)
{
    struct err err = ERR_INIT;
    static uint8_t data[1 << 20];
    for (size_t i = 0; i < sizeof data; i += sizeof i)
        memcpy(data + i, &i, sizeof i);
    struct store_session_opts opts = {.id = FAKE_TASK ".7", .vm_id = "v", .vm_name = "v"};
    struct store_disk_opts disk_opts = {.id = "d", .size_bytes = sizeof data};
    struct store_session *s = store_session_begin(r->store, &opts, &err);
    struct store_disk *disk = s ? store_disk_begin(s, &disk_opts, &err) : NULL;
    struct store_stream *stream = disk ? store_stream_begin(s, &err) : NULL;
    if (!stream || !store_stream_write(stream, disk, 0, data, sizeof data, &err))
        fail_msg("%s", err.message);
    store_stream_end(stream);
    return s;
}

static uint64_t adopted_by_the_next(struct revoking *r)
{
    struct err err = ERR_INIT;
    struct store_adopted adopted = {0};
    struct store_session_opts opts = {.id = FAKE_TASK ".8", .vm_id = "v", .vm_name = "v"};
    SCOPED(store_session)
    struct store_session *next = store_session_begin(r->store, &opts, &err);
    if (!next || !store_session_adopt(next, FAKE_TASK ".7", &adopted, &err))
        fail_msg("%s", err.message);
    return adopted.packs;
}

static void undo_of_a_task_that_is_given_back(void **state)
{
    (void)state;
    for (int leaving = 0; leaving < 2; leaving++) {
        struct revoking r;
        struct err err = ERR_INIT;
        setup(&r);
        r.fake.leaving = leaving;
        r.fake.run.phase = RUN_UNDO;
        r.backup.session = copy_some(&r);
        assert_true(undo_copy(&r.fake.run, &err));
        assert_null(r.backup.session);
        assert_int_equal(fate_of(&r, 7), STORE_FATE_REVOKED);
        assert_int_equal(adopted_by_the_next(&r), leaving ? 1 : 0);
        teardown(&r);
    }
}

/* Nothing is undone then. */
static void end_of_a_run_without_a_lease(void **state)
{
    (void)state;
    struct revoking r;
    setup(&r);
    struct backup *b = ALLOC_NEW(struct backup);
    b->session = copy_some(&r);
    backup_free(b);
    assert_int_equal(fate_of(&r, 7), STORE_FATE_REVOKED);
    assert_int_equal(adopted_by_the_next(&r), 1);
    teardown(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_attempt_of_long_ago_is_revoked),
        cmocka_unit_test(a_first_attempt_revokes_nothing),
        cmocka_unit_test(without_a_lease_nothing_is_revoked),
        cmocka_unit_test(undo_of_a_task_that_is_given_back),
        cmocka_unit_test(end_of_a_run_without_a_lease),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The engine's own backups and checkpoints: the requests they make, in order, and how they end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/worker/ovirt/fixture.h"
#include "worker/ovirt/backup.h"

#define VM     "aaaaaaaa-0000-4000-8000-000000000001"
#define DISK   "cccccccc-0000-4000-8000-000000000001"
#define ID     "dddddddd-0000-4000-8000-000000000001"
#define OTHER  "dddddddd-0000-4000-8000-000000000002"
#define FROM   "eeeeeeee-0000-4000-8000-000000000001"
#define TO     "eeeeeeee-0000-4000-8000-000000000002"
#define LIST   "vms/" VM "/backups"
#define ONE    LIST "/" ID
#define MARKER "oxbow task=11111111-2222-4333-8444-555555555555 fence=3"

#define AS(id, text, phase)                                                                        \
    "{\"id\":\"" id "\",\"description\":\"" text "\",\"phase\":\"" phase                           \
    "\",\"creation_date\":1767630835851}"
#define IS(phase) AS(ID, MARKER, phase)
#define READY                                                                                      \
    "{\"id\":\"" ID "\",\"phase\":\"ready\",\"to_checkpoint_id\":\"" TO                            \
    "\",\"creation_date\":1767630835851}"

#define SNAPSHOT "ffffffff-0000-4000-8000-000000000001"
#define HYBRID(phase)                                                                              \
    "{\"id\":\"" ID "\",\"phase\":\"" phase "\",\"to_checkpoint_id\":\"" TO                        \
    "\",\"creation_date\":1767630835851,\"modification_date\":1767630835999,"                      \
    "\"snapshot\":{\"id\":\"" SNAPSHOT "\"}}"

static const struct ovirt_backup_wait patience = {.limit_ms = 60000};

static char *begin(struct fixture *x, const char *from, bool consistent)
{
    static const char *const disks[] = {DISK};
    struct ovirt_backup_spec spec = {.id = ID,
                                     .description = MARKER,
                                     .from_checkpoint = from,
                                     .disk_ids = disks,
                                     .disk_count = 1,
                                     .consistent = consistent};
    return ovirt_backup_begin(x->session, VM, &spec, &x->err);
}

static void what_is_asked(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  {"POST " LIST "?require_consistency=true", 201, IS("initializing"), 0},
                  {"GET " ONE, 200, IS("starting"), 0},
                  {"GET " ONE, 200, READY, 0},
                  {"GET " ONE "/disks", 200,
                   "{\"disk\":[{\"id\":\"" DISK "\",\"backup_mode\":\"incremental\","
                   "\"provisioned_size\":\"1048576\"},{\"id\":\"" ID
                   "\",\"backup_mode\":\"full\"},{\"id\":\"" OTHER "\"}]}",
                   0},
                  {0}});
    SCOPED_FREE char *id = begin(&x, FROM, true);
    assert_string_equal(id, ID);
    json_auto_t *want = json_loads("{\"id\":\"" ID "\",\"description\":\"" MARKER
                                   "\",\"from_checkpoint_id\":\"" FROM
                                   "\",\"disks\":{\"disk\":[{\"id\":\"" DISK "\"}]}}",
                                   0, NULL);
    json_auto_t *sent = json_loads(fake_engine_seen(x.fake, 0)->body, 0, NULL);
    assert_true(json_equal(sent, want));
    struct ovirt_backup ready = {0};
    assert_true(ovirt_backup_wait_ready(x.session, VM, ID, &patience, &ready, &x.err));
    assert_string_equal(ready.to_checkpoint, TO);
    assert_int_equal(ready.time_ms, 1767630835851);
    ovirt_backup_done(&ready);
    struct ovirt_backup_disks disks = {0};
    assert_true(ovirt_backup_disks(x.session, VM, ID, &disks, &x.err));
    assert_int_equal(disks.count, 3);
    assert_true(disks.v[0].is_incremental && !disks.v[1].is_incremental);
    assert_true(disks.v[0].size_bytes == 1048576 && disks.v[1].size_bytes == 0);
    assert_true(disks.v[2].is_incremental); /* an engine that does not say: the transfer will */
    ovirt_backup_disks_done(&disks);
    stop(&x);
}

static void note(void *ctx, const char *snapshot_id)
{
    unsigned *told = ctx;
    assert_string_equal(snapshot_id, SNAPSHOT);
    ++*told;
}

/* Told before it is ready, and once; and the other kind is asked for by a word. */
static void the_snapshot_that_the_engine_takes(void **state)
{
    (void)state;
    struct fixture x;
    unsigned told = 0;
    struct ovirt_backup_wait how = {.limit_ms = 60000, .on_snapshot = note, .ctx = &told};
    start(&x, (const struct fake_line[]){{"GET " ONE, 200, IS("initializing"), 0},
                                         {"GET " ONE, 200, HYBRID("starting"), 0},
                                         {"GET " ONE, 200, HYBRID("starting"), 0},
                                         {"GET " ONE, 200, HYBRID("ready"), 0},
                                         {0}});
    struct ovirt_backup ready = {0};
    assert_true(ovirt_backup_wait_ready(x.session, VM, ID, &how, &ready, &x.err));
    assert_int_equal(told, 1);
    assert_string_equal(ready.snapshot, SNAPSHOT);
    assert_int_equal(ready.changed_ms, 1767630835999);
    ovirt_backup_done(&ready);
    stop(&x);

    static const char *const disks[] = {DISK};
    static const char *const posts[] = {"POST " LIST "?legacy=true",
                                        "POST " LIST "?require_consistency=true&legacy=true"};
    for (int consistent = 0; consistent < 2; consistent++) {
        struct ovirt_backup_spec spec = {.id = ID,
                                         .description = MARKER,
                                         .disk_ids = disks,
                                         .disk_count = 1,
                                         .consistent = consistent,
                                         .legacy = true};
        start(&x, (const struct fake_line[]){{posts[consistent], 201, IS("initializing"), 0}, {0}});
        SCOPED_FREE char *id = ovirt_backup_begin(x.session, VM, &spec, &x.err);
        assert_string_equal(id, ID);
        stop(&x);
    }
}

/* By our id, or by our mark on an engine that chose the id; never one that is over. */
static void a_lost_answer_is_looked_up(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){{"POST " LIST, 0, NULL, FAKE_DROP},
                                         {"GET " LIST, 200,
                                          "{\"backup\":[" AS(FROM, MARKER, "failed") "," AS(
                                              OTHER, MARKER, "starting") "]}",
                                          0},
                                         {0}});
    SCOPED_FREE char *id = begin(&x, NULL, false);
    assert_string_equal(id, OTHER);
    stop(&x);
    start(&x, (const struct fake_line[]){{"POST " LIST, 0, NULL, FAKE_DROP},
                                         {"GET " LIST, 200, "{}", 0},
                                         {"POST " LIST, 201, IS("initializing"), 0},
                                         {0}});
    SCOPED_FREE char *again = begin(&x, NULL, false);
    assert_string_equal(again, ID);
    stop(&x);
}

static void what_the_engine_will_not_take(void **state)
{
    (void)state;
    static const struct {
        int status;
        const char *body;
        enum err_code code;
    } rows[] = {
        {400, "{\"detail\":\"[Cannot backup VM. The given checkpoint X does not exist.]\"}",
         ERR_NOT_FOUND},
        {400, "{\"detail\":\"[Cannot backup VM. The given checkpoint X is invalid.]\"}",
         ERR_ENGINE_REFUSED},
        {403, "{\"detail\":\"not authorized\"}", ERR_ENGINE_DENIED},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct fixture x;
        start(&x, (const struct fake_line[]){{"POST " LIST, rows[i].status, rows[i].body, 0}, {0}});
        assert_null(begin(&x, FROM, false));
        assert_int_equal(x.err.code, rows[i].code);
        stop(&x);
    }
}

static void one_that_fails_or_goes(void **state)
{
    (void)state;
    static const struct fake_line ends[] = {{"GET " ONE, 200, IS("failed"), 0},
                                            {"GET " ONE, 404, NULL, 0},
                                            {"GET " ONE, 200, IS("succeeded"), 0}};
    for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
        struct fixture x;
        struct ovirt_backup ready = {0};
        start(&x, (const struct fake_line[]){{"GET " ONE, 200, IS("starting"), 0}, ends[i], {0}});
        assert_false(ovirt_backup_wait_ready(x.session, VM, ID, &patience, &ready, &x.err));
        assert_int_equal(x.err.code, ERR_ENGINE_FAULT);
        stop(&x);
    }
}

static bool end(const struct fake_line *script, struct err *err)
{
    struct fixture x;
    start(&x, script);
    bool ok = ovirt_backup_end(x.session, VM, ID, 60000, &x.err);
    *err = x.err;
    stop(&x);
    return ok;
}

static void it_ends_from_wherever_it_is(void **state)
{
    (void)state;
    struct err err;
    assert_true(end((const struct fake_line[]){{"GET " ONE, 200, IS("initializing"), 0},
                                               {"GET " ONE, 200, READY, 0},
                                               {"POST " ONE "/finalize", 200, "{}", 0},
                                               {"GET " ONE, 200, READY, 0},
                                               {"GET " ONE, 200, IS("finalizing"), 0},
                                               {"GET " ONE, 200, IS("succeeded"), 0},
                                               {0}},
                    &err));
    assert_true(end((const struct fake_line[]){{"GET " ONE, 404, NULL, 0}, {0}}, &err));
    assert_true(end((const struct fake_line[]){{"GET " ONE, 200, IS("failed"), 0}, {0}}, &err));
    /* Our own finalize came through before, unheard. */
    assert_true(end((const struct fake_line[]){{"GET " ONE, 200, READY, 0},
                                               {"POST " ONE "/finalize", 400,
                                                "{\"fault\":{\"detail\":\"[Cannot stop backup of "
                                                "VM. The VM backup does not exist.]\"}}",
                                                0},
                                               {"GET " ONE, 404, NULL, 0},
                                               {0}},
                    &err));
    assert_false(end((const struct fake_line[]){{"GET " ONE, 200, READY, 0},
                                                {"POST " ONE "/finalize", 403,
                                                 "{\"detail\":\"not authorized\"}", 0},
                                                {0}},
                     &err));
    assert_int_equal(err.code, ERR_ENGINE_DENIED);
}

static void checkpoints_in_their_order(void **state)
{
    (void)state;
    struct fixture x;
    struct ovirt_checkpoints list = {0};
    start(&x,
          (const struct fake_line[]){
              {"GET vms/" VM "/checkpoints", 200,
               "{\"checkpoint\":[{\"id\":\"" TO "\",\"creation_date\":20,\"description\":\"" MARKER
               "\",\"state\":\"created\"},{\"id\":\"" FROM
               "\",\"creation_date\":10,\"state\":\"invalid\"}]}",
               0},
              {"DELETE vms/" VM "/checkpoints/" FROM, 200, "{}", 0},
              {"GET vms/" VM "/checkpoints/" FROM, 200, "{\"id\":\"" FROM "\"}", 0},
              {"GET vms/" VM "/checkpoints/" FROM, 404, NULL, 0},
              {"DELETE vms/" VM "/checkpoints/" TO, 409,
               "{\"detail\":\"[Cannot remove VM checkpoint. It is not the root.]\"}", 0},
              {"GET vms/" VM "/checkpoints", 404, NULL, 0},
              {0}});
    assert_true(ovirt_checkpoints_list(x.session, VM, &list, &x.err));
    assert_int_equal(list.count, 2);
    assert_string_equal(list.v[0].id, FROM);
    assert_true(list.v[0].is_invalid && !list.v[1].is_invalid);
    assert_string_equal(list.v[0].description, "");
    assert_ptr_equal(ovirt_checkpoints_find(&list, TO), &list.v[1]);
    assert_null(ovirt_checkpoints_find(&list, ID));
    ovirt_checkpoints_done(&list);
    assert_true(ovirt_checkpoint_delete(x.session, VM, FROM, 60000, &x.err));
    assert_false(ovirt_checkpoint_delete(x.session, VM, TO, 60000, &x.err));
    assert_int_equal(x.err.code, ERR_CONFLICT);
    err_clear(&x.err);
    assert_true(ovirt_checkpoints_list(x.session, VM, &list, &x.err));
    assert_int_equal(list.count, 0);
    ovirt_checkpoints_done(&list);
    stop(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_asked),
        cmocka_unit_test(the_snapshot_that_the_engine_takes),
        cmocka_unit_test(a_lost_answer_is_looked_up),
        cmocka_unit_test(what_the_engine_will_not_take),
        cmocka_unit_test(one_that_fails_or_goes),
        cmocka_unit_test(it_ends_from_wherever_it_is),
        cmocka_unit_test(checkpoints_in_their_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

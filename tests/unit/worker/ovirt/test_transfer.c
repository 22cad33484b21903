/* SPDX-License-Identifier: Apache-2.0 */
/* Image transfers: the requests they make, in order, and how they end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/worker/ovirt/fixture.h"
#include "worker/ovirt/transfer_impl.h"

#define DISK  "cccccccc-0000-4000-8000-000000000001"
#define IMAGE "cccccccc-0000-4000-8000-0000000000f1"
#define ID    "dddddddd-0000-4000-8000-000000000001"
#define OTHER "dddddddd-0000-4000-8000-000000000002"
#define PATH  "imagetransfers/" ID

#define AS(id, direction, phase)                                                                   \
    "{\"id\":\"" id "\",\"direction\":\"" direction "\",\"phase\":\"" phase                        \
    "\",\"image\":{\"id\":\"" DISK "\"}}"
#define LIST(items) "{\"image_transfer\":[" items "]}"
#define READY                                                                                      \
    "{\"id\":\"" ID "\",\"phase\":\"transferring\",\"transfer_url\":\"https://h:54322/images/x\"," \
    "\"proxy_url\":\"https://e:54323/images/x\"}"

static void assert_body(const struct ovirt_transfer_spec *spec, const char *expected)
{
    json_auto_t *body = ovirt_transfer_body(spec);
    json_auto_t *want = json_loads(expected, 0, NULL);
    assert_non_null(want);
    assert_true(json_equal(body, want));
}

static void direction_and_format_are_always_sent(void **state)
{
    (void)state;
    assert_body(&(struct ovirt_transfer_spec){.disk_id = DISK, .is_upload = true},
                "{\"direction\":\"upload\",\"format\":\"raw\",\"disk\":{\"id\":\"" DISK "\"}}");
    assert_body(
        &(struct ovirt_transfer_spec){.disk_id = DISK, .image_id = IMAGE, .inactivity_s = 90},
        "{\"direction\":\"download\",\"format\":\"raw\",\"snapshot\":{\"id\":\"" IMAGE
        "\"},\"inactivity_timeout\":\"90\"}");
    assert_body(&(struct ovirt_transfer_spec){.disk_id = DISK, .backup_id = OTHER},
                "{\"direction\":\"download\",\"format\":\"raw\",\"disk\":{\"id\":\"" DISK
                "\"},\"backup\":{\"id\":\"" OTHER "\"}}");
}

static void a_transfer_is_opened_and_finalized(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  {"GET imagetransfers", 200, "{}", 0},
                  {"POST imagetransfers", 201, AS(ID, "download", "initializing"), 0},
                  {"GET " PATH, 200, AS(ID, "download", "initializing"), 0},
                  {"GET " PATH, 200, READY, 0},
                  {"POST " PATH "/finalize", 200, "{}", 0},
                  {"GET " PATH, 200, AS(ID, "download", "finalizing_success"), 0},
                  {"GET " PATH, 200, AS(ID, "download", "finished_success"), 0},
                  {0}});
    struct ovirt_transfer_spec spec = {.disk_id = DISK, .image_id = IMAGE};
    SCOPED_FREE char *id = ovirt_transfer_create(x.session, &spec, &x.err);
    assert_string_equal(id, ID);
    struct ovirt_transfer t = {0};
    assert_true(ovirt_transfer_wait_ready(x.session, id, 60000, &t, &x.err));
    assert_string_equal(t.transfer_url, "https://h:54322/images/x");
    assert_string_equal(t.proxy_url, "https://e:54323/images/x");
    ovirt_transfer_done(&t);
    assert_true(ovirt_transfer_finalize(x.session, id, DISK, 60000, &x.err));
    stop(&x);
}

static void a_lost_answer_is_looked_up_among_what_is_new(void **state)
{
    (void)state;
    struct fixture x;
    start(
        &x,
        (const struct fake_line[]){
            {"GET imagetransfers", 200, LIST(AS(OTHER, "download", "transferring")), 0},
            {"POST imagetransfers", 0, NULL, FAKE_DROP},
            {"GET imagetransfers", 200,
             LIST(AS(OTHER, "download", "transferring") "," AS("1", "upload", "initializing")), 0},
            {"POST imagetransfers", 0, NULL, FAKE_DROP},
            {"GET imagetransfers", 200,
             LIST(AS(OTHER, "download", "transferring") "," AS(ID, "download", "initializing")), 0},
            {0}});
    struct ovirt_transfer_spec spec = {.disk_id = DISK};
    SCOPED_FREE char *id = ovirt_transfer_create(x.session, &spec, &x.err);
    assert_string_equal(id, ID);
    stop(&x);
}

static void one_that_fails_before_it_is_ready_says_so(void **state)
{
    (void)state;
    struct fixture x;
    start(&x,
          (const struct fake_line[]){{"GET " PATH, 200, AS(ID, "download", "initializing"), 0},
                                     {"GET " PATH, 200, AS(ID, "download", "finished_failure"), 0},
                                     {"GET " PATH, 404, "{\"fault\":{\"reason\":\"gone\"}}", 0},
                                     {0}});
    struct ovirt_transfer t = {0};
    assert_false(ovirt_transfer_wait_ready(x.session, ID, 60000, &t, &x.err));
    assert_code(&x, ERR_ENGINE_FAULT);
    err_clear(&x.err);
    assert_false(ovirt_transfer_wait_ready(x.session, ID, 60000, &t, &x.err));
    assert_code(&x, ERR_NOT_FOUND);
    stop(&x);
}

static void one_is_kept_alive_or_taken_up_again(void **state)
{
    (void)state;
    struct fixture x;
    start(&x,
          (const struct fake_line[]){{"GET " PATH, 200, READY, 0},
                                     {"POST " PATH "/extend", 200, "{}", 0},
                                     {"GET " PATH, 200, AS(ID, "upload", "paused_system"), 0},
                                     {"POST " PATH "/resume", 200, "{}", 0},
                                     {"GET " PATH, 200, AS(ID, "download", "cancelled_system"), 0},
                                     {0}});
    assert_true(ovirt_transfer_keep(x.session, ID, &x.err));
    assert_true(ovirt_transfer_keep(x.session, ID, &x.err));
    assert_false(ovirt_transfer_keep(x.session, ID, &x.err));
    assert_code(&x, ERR_ENGINE_FAULT);
    stop(&x);
}

/* Before 4.4.7 an ended transfer is gone: the disk tells how it went. */
static void where_it_is_forgotten_the_disk_decides(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  {"POST " PATH "/finalize", 200, "{}", 0},
                  {"GET " PATH, 404, "{\"fault\":{\"reason\":\"gone\"}}", 0},
                  {"GET disks/" DISK, 200, "{\"id\":\"" DISK "\",\"status\":\"locked\"}", 0},
                  {"GET " PATH, 404, "{\"fault\":{\"reason\":\"gone\"}}", 0},
                  {"GET disks/" DISK, 200, "{\"id\":\"" DISK "\",\"status\":\"ok\"}", 0},
                  {"POST " PATH "/finalize", 200, "{}", 0},
                  {"GET " PATH, 404, "{\"fault\":{\"reason\":\"gone\"}}", 0},
                  {"GET disks/" DISK, 200, "{\"id\":\"" DISK "\",\"status\":\"illegal\"}", 0},
                  {"POST " PATH "/cancel", 200, "{}", 0},
                  {"GET " PATH, 404, "{\"fault\":{\"reason\":\"gone\"}}", 0},
                  {0}});
    assert_true(ovirt_transfer_finalize(x.session, ID, DISK, 60000, &x.err));
    assert_false(ovirt_transfer_finalize(x.session, ID, DISK, 60000, &x.err));
    assert_code(&x, ERR_ENGINE_FAULT);
    err_clear(&x.err);
    assert_true(ovirt_transfer_cancel(x.session, ID, 60000, &x.err));
    stop(&x);
}

static void one_cancelled_ends_failed_and_that_is_well(void **state)
{
    (void)state;
    struct fixture x;
    start(&x,
          (const struct fake_line[]){{"POST " PATH "/cancel", 200, "{}", 0},
                                     {"GET " PATH, 200, AS(ID, "download", "cancelled_user"), 0},
                                     {"GET " PATH, 200, AS(ID, "download", "finished_cleanup"), 0},
                                     {"POST " PATH "/finalize", 200, "{}", 0},
                                     {"GET " PATH, 200, AS(ID, "download", "finished_failure"), 0},
                                     {0}});
    assert_true(ovirt_transfer_cancel(x.session, ID, 60000, &x.err));
    assert_false(ovirt_transfer_finalize(x.session, ID, DISK, 60000, &x.err));
    assert_code(&x, ERR_ENGINE_FAULT);
    stop(&x);
}

/* Paused ones too; not those of other disks, nor what has ended, nor a download. */
static void uploads_of_a_disk_are_given_up(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  {"GET imagetransfers", 200,
                   LIST(AS(OTHER, "download", "transferring") "," AS(
                       ID, "upload",
                       "paused_system") ",{\"id\":\"" OTHER "\",\"direction\":\"upload\",\"phase\":"
                                        "\"transferring\",\"image\":{\"id\":\"" IMAGE
                                        "\"}}," AS(OTHER, "upload", "finished_success")),
                   0},
                  {"POST " PATH "/cancel", 200, "{}", 0},
                  {"GET " PATH, 200, AS(ID, "upload", "finished_failure"), 0},
                  {"GET imagetransfers", 200, LIST(""), 0},
                  {0}});
    assert_true(ovirt_uploads_cancel(x.session, DISK, 60000, &x.err));
    assert_true(ovirt_uploads_cancel(x.session, DISK, 60000, &x.err));
    stop(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(direction_and_format_are_always_sent),
        cmocka_unit_test(a_transfer_is_opened_and_finalized),
        cmocka_unit_test(a_lost_answer_is_looked_up_among_what_is_new),
        cmocka_unit_test(one_that_fails_before_it_is_ready_says_so),
        cmocka_unit_test(one_is_kept_alive_or_taken_up_again),
        cmocka_unit_test(where_it_is_forgotten_the_disk_decides),
        cmocka_unit_test(one_cancelled_ends_failed_and_that_is_well),
        cmocka_unit_test(uploads_of_a_disk_are_given_up),
    };
    return cmocka_run_group_tests_name("worker/ovirt/transfer", tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Exports by the engine: the requests they make, and the jobs that tell how they went. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/worker/ovirt/fixture.h"
#include "worker/ovirt/export.h"
#include "worker/ovirt/vm_impl.h"

#define VM      "aaaaaaaa-0000-4000-8000-000000000001"
#define JOB     "dddddddd-0000-4000-8000-000000000001"
#define OTHER   "dddddddd-0000-4000-8000-000000000002"
#define HOST    "bbbbbbbb-0000-4000-8000-000000000001"
#define CLUSTER "cccccccc-0000-4000-8000-000000000001"
#define NAME    "web-export-1234abcd"

#define JOBS(items) "{\"job\":[" items "]}"
#define JOB_OF(id, time, text)                                                                     \
    "{\"id\":\"" id "\",\"start_time\":" time ",\"description\":\"" text "\"}"
#define MINE   JOB_OF(JOB, "2000", "Exporting VM " NAME " as an OVA to /mnt/ova")
#define OLD    JOB_OF(OTHER, "1000", "Exporting VM " NAME " as an OVA to /mnt/ova")
#define CREATE JOB_OF(OTHER, "3000", "Creating VM " NAME " from Snapshot x for VM web")
#define ELSE   JOB_OF(OTHER, "4000", "Exporting VM db as an OVA to /mnt/ova")

static const struct ovirt_export to_host = {
    .host_id = HOST, .directory = "/mnt/ova", .filename = "a.ova"};

static void the_answer_names_the_job(void **state)
{
    (void)state;
    struct fixture x;
    start(&x,
          (const struct fake_line[]){{"GET jobs", 200, JOBS(OLD), 0},
                                     {"POST vms/" VM "/export", 200,
                                      "{\"status\":\"complete\",\"job\":{\"id\":\"" JOB "\"}}", 0},
                                     {0}});
    SCOPED_FREE char *job = ovirt_export_begin(x.session, VM, NAME, &to_host, &x.err);
    assert_non_null(job);
    assert_string_equal(job, JOB);
    stop(&x);
}

static void a_job_that_was_not_named_is_looked_up_among_what_is_new(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  {"GET jobs", 200, JOBS(OLD), 0},
                  {"POST vms/" VM "/export", 200, "{\"status\":\"complete\"}", 0},
                  {"GET jobs", 200, JOBS(OLD "," MINE "," CREATE "," ELSE), 0},
                  {"GET jobs", 200, JOBS(""), 0},
                  {"POST vms/" VM "/export", 200, "{\"status\":\"complete\"}", 0},
                  {"GET jobs", 200, JOBS(CREATE "," ELSE), 0},
                  {0}});
    SCOPED_FREE char *job = ovirt_export_begin(x.session, VM, NAME, &to_host, &x.err);
    assert_non_null(job);
    assert_string_equal(job, JOB);
    assert_null(ovirt_export_begin(x.session, VM, NAME, &to_host, &x.err));
    assert_int_equal(x.err.code, ERR_ENGINE_PROTOCOL);
    stop(&x);
}

static void the_newest_job_of_the_clone_counts(void **state)
{
    (void)state;
    struct fixture x;
    start(&x,
          (const struct fake_line[]){{"GET jobs", 200, JOBS(MINE "," OLD "," CREATE "," ELSE), 0},
                                     {"GET jobs", 200, JOBS(CREATE "," ELSE), 0},
                                     {0}});
    char *job = NULL;
    assert_true(ovirt_export_find_job(x.session, NAME, &job, &x.err));
    assert_string_equal(job, JOB);
    free(job);
    assert_true(ovirt_export_find_job(x.session, NAME, &job, &x.err));
    assert_null(job);
    stop(&x);
}

static void a_job_tells_how_it_went(void **state)
{
    (void)state;
    struct fixture x;
    start(&x, (const struct fake_line[]){
                  {"GET jobs/" JOB, 200, "{\"status\":\"started\"}", 0},
                  {"GET jobs/" JOB "/steps", 200,
                   "{\"step\":[{\"progress\":\"12\"},{\"progress\":\"40\"},{}]}", 0},
                  {"GET jobs/" JOB, 200, "{\"status\":\"finished\"}", 0},
                  {"GET jobs/" JOB, 200, "{\"status\":\"aborted\"}", 0},
                  {"GET jobs/" JOB, 404, "{\"fault\":{\"reason\":\"gone\"}}", 0},
                  {0}});
    static const enum ovirt_job_state wanted[] = {OVIRT_JOB_RUNNING, OVIRT_JOB_FINISHED,
                                                  OVIRT_JOB_FAILED, OVIRT_JOB_GONE};
    for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
        enum ovirt_job_state state_now;
        int percent = -1;
        assert_true(ovirt_job_look(x.session, JOB, &state_now, &percent, &x.err));
        assert_int_equal(state_now, wanted[i]);
        assert_int_equal(percent, i == 0 ? 40 : 0);
    }
    stop(&x);
}

static void a_host_is_found_by_name_or_id(void **state)
{
    (void)state;
    struct fixture x;
    static const char hosts[] = "{\"host\":[{\"id\":\"" HOST "\",\"name\":\"h1\",\"status\":\"up\","
                                "\"cluster\":{\"id\":\"" CLUSTER "\"}}]}";
    start(&x, (const struct fake_line[]){{"GET hosts", 200, hosts, 0},
                                         {"GET hosts", 200, hosts, 0},
                                         {"GET hosts", 200, hosts, 0},
                                         {0}});
    const char *const keys[] = {"h1", HOST};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        struct ovirt_host host = {0};
        assert_true(ovirt_host_find(x.session, keys[i], &host, &x.err));
        assert_string_equal(host.id, HOST);
        assert_string_equal(host.status, "up");
        assert_string_equal(host.cluster_id, CLUSTER);
        ovirt_host_done(&host);
    }
    struct ovirt_host none = {0};
    assert_false(ovirt_host_find(x.session, "h2", &none, &x.err));
    assert_int_equal(x.err.code, ERR_NOT_FOUND);
    stop(&x);
}

static void a_clone_names_its_snapshot(void **state)
{
    (void)state;
    struct ovirt_vm_new as = {.name = NAME, .cluster_id = CLUSTER, .description = "mark"};
    json_auto_t *body = ovirt_vm_clone_body(JOB, &as);
    json_auto_t *want =
        json_loads("{\"name\":\"" NAME "\",\"description\":\"mark\",\"cluster\":{\"id\":\"" CLUSTER
                   "\"},\"snapshots\":{\"snapshot\":[{\"id\":\"" JOB "\"}]}}",
                   0, NULL);
    assert_non_null(want);
    assert_true(json_equal(body, want));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_answer_names_the_job),
        cmocka_unit_test(a_job_that_was_not_named_is_looked_up_among_what_is_new),
        cmocka_unit_test(the_newest_job_of_the_clone_counts),
        cmocka_unit_test(a_job_tells_how_it_went),
        cmocka_unit_test(a_host_is_found_by_name_or_id),
        cmocka_unit_test(a_clone_names_its_snapshot),
    };
    return cmocka_run_group_tests_name("worker/ovirt/export", tests, NULL, NULL);
}

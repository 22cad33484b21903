/* SPDX-License-Identifier: Apache-2.0 */
/* Tables, reports and JSON Lines. */
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "coordinator/cli/output.h"
#include "coordinator/cli/report.h"

#define NOW INT64_C(1000000000000)

/* A message of a type from JSON; the caller frees it with wire_free(). */
static struct wire_message message(const char *name, const char *json)
{
    SCOPED_FREE char *type = xasprintf("oxbow.%s.v1", name);
    struct wire_message m = {0};
    struct err err = ERR_INIT;
    if (!wire_decode(type, json, strlen(json), &m, &err))
        fail_msg("%s", err.message);
    return m;
}

static void tables(void **state)
{
    (void)state;
    static const struct table_column columns[] = {
        {"NAME", TABLE_LEFT, 4}, {"N", TABLE_RIGHT, 0}, {"LAST", TABLE_LEFT, 6}};
    SCOPED(table) struct table *t = table_new(columns, ARRAY_LEN(columns));
    const char *const cells[] = {"web1", "7",  "x", "long-name-of-a-vm", "12345",
                                 "yz",   NULL, "",  "a\033b\n"};
    for (size_t i = 0; i < ARRAY_LEN(cells); i++)
        table_cell(t, cells[i]);
    assert_int_equal(table_rows(t), 3);
    SCOPED_BUF struct buf out;
    buf_init(&out, 4096);
    table_render(t, 0, true, &out);
    assert_string_equal(buf_str(&out), "NAME                   N  LAST\n"
                                       "web1                   7  x\n"
                                       "long-name-of-a-vm  12345  yz\n"
                                       "-                      -  a?b?\n");
    buf_reset(&out);
    table_render(t, 20, true, &out);
    assert_string_equal(buf_str(&out), "NAME         N  LAST\n"
                                       "web1         7  x\n"
                                       "long-n…  12345  yz\n"
                                       "-            -  a?b?\n");
    buf_reset(&out);
    table_render(t, 3, true, &out); /* as narrow as it may get, and no narrower */
    assert_string_equal(buf_str(&out), "NAME      N  LAST\n"
                                       "web1      7  x\n"
                                       "lon…  12345  yz\n"
                                       "-         -  a?b?\n");
}

static void point_list(void **state)
{
    (void)state;
    struct wire_message m = message(
        "page",
        "{\"request\":\"0c0ffee0-0000-4000-8000-000000000001\",\"page\":1,\"items\":{\"points\":["
        "{\"id\":\"p1\",\"vm\":\"1\",\"vm_name\":\"web1\",\"zone\":\"dc1\",\"time_ms\":"
        "999996400000,\"disks\":2,\"size_bytes\":1073741824,\"stored_bytes\":1048576,"
        "\"quiesced\":\"yes\",\"state\":\"good\"},"
        "{\"id\":\"p2\",\"state\":\"damaged\",\"message\":\"torn\"}]}}");
    const struct wire_page *page = m.as;
    SCOPED_BUF struct buf out;
    buf_init(&out, 4096);
    report_points(page->items->points, page->items->points_count, 0, true, NOW, &out);
    assert_string_equal(
        buf_str(&out),
        "VM    TIME              AGE  DISKS     SIZE   STORED  QUIESCED  STATE    ZONE  POINT\n"
        "web1  2001-09-09 00:46   1h      2  1.0 GiB  1.0 MiB  yes       good     dc1   p1\n"
        "-     -                   -      0      0 B      0 B  -         damaged  -     p2\n"
        "p2: torn\n");
    wire_free(&m);
    buf_reset(&out);
    report_points(NULL, 0, 0, true, NOW, &out);
    report_vms(NULL, 0, 0, true, &out);
    report_requests(NULL, 0, 0, true, NOW, &out);
    report_tasks(NULL, 0, 0, true, &out);
    report_workers(NULL, 0, 0, true, NOW, &out);
    report_attempts(NULL, 0, 0, true, NOW, &out);
    report_traces(NULL, 0, 0, true, NOW, &out);
    report_plans(NULL, 0, 0, true, &out);
    report_gauges(NULL, 0, true, &out);
    assert_string_equal(buf_str(&out), "");
}

static char *s_(const char *text)
{
    return (char *)(uintptr_t)text; /* wire structs are one for both directions */
}

static void plans(void **state)
{
    (void)state;
    SCOPED_BUF struct buf out;
    buf_init(&out, 4096);
    struct wire_plan_path slower = {.path = s_("imageio"), .why = s_("it is slower")};
    struct wire_plan_disk disks[] = {
        {.id = s_("d1"),
         .alias = s_("sys\x1b[2J"),
         .path = s_("attach"),
         .why = s_("the usual one"),
         .instead = {&slower, 1},
         .size_bytes = INT64_C(4) << 30,
         .read_bytes = 1 << 30,
         .copy_ms = 8000,
         .mapped = true,
         .measured = true},
        {.id = s_("d2"),
         .path = s_("attach"),
         .why = s_("the usual one"),
         .instead = {&slower, 1},
         .size_bytes = 1 << 20,
         .read_bytes = 1 << 20,
         .copy_ms = 2000},
        {.id = s_("d3"), .why = s_("it is a direct LUN"), .size_bytes = 1 << 20},
    };
    struct wire_error problem = {
        .code = s_("no-space"), .retry = s_("later"), .message = s_("data1 is full")};
    struct wire_warning warnings[] = {
        {.code = s_("disk-skipped"), .disk = s_("d3"), .message = s_("d3 is skipped")},
        {.code = s_("leftover-snapshot"), .message = s_("a snapshot is there")}};
    const struct wire_plan_item items[] = {{.id = s_("v1"),
                                            .name = s_("db1"),
                                            .zone = s_("dc1"),
                                            .status = s_("up"),
                                            .disks = {disks, 3},
                                            .problems = {&problem, 1},
                                            .warnings = {warnings, 2},
                                            .size_bytes = INT64_C(5) << 30,
                                            .read_bytes = INT64_C(2) << 30,
                                            .copy_ms = 10000,
                                            .parent = s_("p1"),
                                            .parent_stored_bytes = 3 << 20},
                                           {.id = s_("v2"), .name = s_("empty")}};
    report_plans(items, 2, 0, true, &out);
    assert_string_equal(
        buf_str(&out),
        "db1 (up, zone dc1): about 2.0 GiB of 5.0 GiB to read, copied in about 10s; the last "
        "restore point added 3.0 MiB\n"
        "  DISK     PATH           SIZE  TO READ  TIME  WHY\n"
        "  sys?[2J  attach+map  4.0 GiB  1.0 GiB    8s  the usual one\n"
        "  d2       attach      1.0 MiB  1.0 MiB   2s?  the usual one\n"
        "  d3       skipped     1.0 MiB        -     -  it is a direct LUN\n"
        "  not imageio: it is slower\n"
        "  problem: data1 is full (no-space)\n"
        "  warning: a snapshot is there (leftover-snapshot)\n"
        "\n"
        "empty (-): nothing would be read\n"
        "\n2 VMs: about 2.0 GiB of 5.0 GiB to read; 1 with problems\n"
        "\n? = from an assumed rate: too little was measured in that zone\n");
}

static void traces_attempts_and_gauges(void **state)
{
    (void)state;
    SCOPED_BUF struct buf out;
    buf_init(&out, 4096);
    const struct wire_trace_item traces[] = {
        {.kind = s_("snapshot"),
         .zone = s_("z"),
         .vm = s_("v"),
         .vm_name = s_("web1"),
         .id = s_("s1"),
         .task = s_("t1"),
         .time_ms = NOW - 3600 * 1000,
         .verdict = s_("cleanup"),
         .message = s_("ended")},
        {.kind = s_("vm"), .zone = s_("z"), .vm = s_("v2"), .verdict = s_("foreign")},
    };
    report_traces(traces, ARRAY_LEN(traces), 0, true, NOW, &out);
    assert_string_equal(buf_str(&out), "VERDICT  KIND      ZONE  VM    AGE  ID  TASK  WHY\n"
                                       "cleanup  snapshot  z     web1   1h  s1  t1    ended\n"
                                       "foreign  vm        z     v2      -  v2  -     -\n");
    buf_reset(&out);
    struct wire_error error = {.code = s_("no-space"), .message = s_("it is full\x1b")};
    const struct wire_attempt_item attempts[] = {
        {.attempt = 1,
         .fence = 7,
         .worker = s_("w1"),
         .time_ms = NOW - 9000,
         .ended_ms = NOW - 4000,
         .step = s_("copy"),
         .ended = s_("failed"),
         .error = &error},
        {.attempt = 2, .fence = 8, .worker = s_("w2"), .time_ms = NOW - 3000},
    };
    report_attempts(attempts, ARRAY_LEN(attempts), 0, true, NOW, &out);
    assert_non_null(strstr(buf_str(&out), "5s  copy       failed\n"));
    assert_non_null(strstr(buf_str(&out), "3s  -          it runs\n"));
    assert_non_null(strstr(buf_str(&out), "attempt 1: it is full? (no-space)\n"));
    buf_reset(&out);
    const struct wire_gauge_item gauges[] = {
        {.name = s_("tasks_running"), .zone = s_("a"), .lane = s_("backup"), .value = 2},
        {.name = s_("tasks_running"), .zone = s_("a"), .lane = s_("upkeep"), .value = 1},
        {.name = s_("tasks_waiting"), .zone = s_("a"), .lane = s_("backup"), .value = 4},
        {.name = s_("tasks_running"), .zone = s_("b"), .lane = s_("backup")},
        {.name = s_("tasks_waiting"), .zone = s_("b"), .lane = s_("backup")},
        {.name = s_("sweep_age_seconds"), .zone = s_("a"), .value = 60},
        {.name = s_("snapshots"), .zone = s_("a"), .value = 3},
        {.name = s_("snapshot_oldest_age_seconds"), .zone = s_("a"), .value = 120},
        {.name = s_("proxy_disks"), .zone = s_("a"), .value = 5},
        {.name = s_("left_behind"), .zone = s_("a"), .value = 1},
        {.name = s_("foreign"), .zone = s_("a")},
        {.name = s_("cleanups_open"), .value = 2},
        {.name = s_("cleanup_oldest_age_seconds"), .value = 7},
        {.name = s_("quarantined")},
    };
    report_gauges(gauges, ARRAY_LEN(gauges), true, &out);
    assert_string_equal(buf_str(&out),
                        "zone a: 3 tasks run, 4 wait; 1m00s ago: 3 snapshots of ours (the oldest "
                        "2m00s old), 5 disks on proxies, 1 left behind, 0 foreign\n"
                        "zone b: 0 tasks run, 0 wait; not swept yet\n"
                        "2 clean-ups are open, the oldest for 7s\n");
}

static void request_and_task_lists(void **state)
{
    (void)state;
    char id[] = "id-1", kind[] = "backup", running[] = "running", why[] = "because", vm[] = "web1";
    char step[] = "copy", code[] = "no-space", retry[] = "later";
    struct wire_request_item r[] = {
        {.id = id,
         .kind = kind,
         .state = running,
         .time_ms = NOW - 65000,
         .tasks_total = 9,
         .tasks_done = 4,
         .tasks_failed = 1},
        {.id = id,
         .kind = kind,
         .state = running,
         .time_ms = NOW - 65000,
         .finished_ms = NOW - 60000,
         .message = why},
    };
    SCOPED_BUF struct buf out;
    buf_init(&out, 4096);
    report_requests(r, ARRAY_LEN(r), 0, true, NOW, &out);
    assert_string_equal(
        buf_str(&out),
        "REQUEST  KIND    STATE    ACCEPTED           TOOK  DONE  FAILED  MESSAGE\n"
        "id-1     backup  running  2001-09-09 01:45  1m05s   4/9       1  -\n"
        "id-1     backup  running  2001-09-09 01:45     5s   0/0       0  because\n");
    char waiting[] = "waiting";
    struct wire_error error = {.code = code, .retry = retry, .message = why};
    struct wire_task_item t[] = {
        {.id = id,
         .kind = kind,
         .state = running,
         .vm_name = vm,
         .step = step,
         .attempt = 2,
         .bytes_done = 999,
         .bytes_total = 1000},
        {.id = id, .kind = kind, .state = running, .error = &error},
        {.id = id,
         .kind = kind,
         .state = waiting,
         .attempt = 3,
         .wait_ms = 30000,
         .attempts_max = 5,
         .error = &error},
        {.id = id, .kind = kind, .state = running, .vm_name = vm, .part_of = id, .error = &error},
    };
    buf_reset(&out);
    report_tasks(t, ARRAY_LEN(t), 0, true, &out);
    assert_string_equal(buf_str(&out),
                        "VM      KIND    STATE    STEP  COPIED  ATTEMPT  WORKER  TASK\n"
                        "web1    backup  running  copy     99%        2  -       id-1\n"
                        "-       backup  running  -          -        0  -       id-1\n"
                        "-       backup  waiting  -          -        3  -       id-1\n"
                        "- web1  backup  running  -          -        0  -       id-1\n"
                        "backup: because (no-space)\n"
                        "backup: because (no-space); attempt 3 of 5 in 30s\n"
                        "web1 (part): because (no-space)\n");
}

static void assert_outcome(const char *json, const char *expected)
{
    SCOPED_FREE char *whole = xasprintf("{\"request\":\"0c0ffee0-0000-4000-8000-000000000001\","
                                        "\"task\":\"0c0ffee0-0000-4000-8000-000000000002\",%s}",
                                        json);
    struct wire_message m = message("outcome", whole);
    SCOPED_BUF struct buf out;
    buf_init(&out, 8192);
    report_outcome(m.as, true, false, &out);
    assert_string_equal(buf_str(&out), expected);
    wire_free(&m);
}

static void outcomes(void **state)
{
    (void)state;
    assert_outcome("\"kind\":\"backup\",\"vm_name\":\"web1\",\"status\":\"succeeded\",\"point\":"
                   "\"p1\",\"stats\":{\"total_ms\":61000,\"bytes_read\":1048576,"
                   "\"bytes_stored\":10}",
                   "web1: backed up in 1m01s (1.0 MiB read, 10 B stored) as p1\n");
    assert_outcome(
        "\"kind\":\"backup\",\"vm\":\"id\",\"status\":\"succeeded\",\"warnings\":["
        "{\"code\":\"x\",\"message\":\"a\\u0007b\"},"
        "{\"code\":\"x\",\"disk\":\"d1\",\"message\":\"c\"}],\"cleanup_open\":true",
        "id: backed up\n    warning: a?b\n    warning: disk d1: c\n    something of it is "
        "left in the cluster; the coordinator keeps trying to clean it up (oxbow "
        "status)\n");
    assert_outcome("\"kind\":\"restore\",\"status\":\"succeeded\",\"point\":\"p\",\"new_vm\":\"i\"",
                   "restore: restored from p; the new VM has id i\n");
    assert_outcome("\"kind\":\"inventory\",\"status\":\"succeeded\"", "");
    assert_outcome("\"kind\":\"inventory\",\"status\":\"succeeded\",\"warnings\":[{\"code\":"
                   "\"x\",\"message\":\"left out\"}]",
                   "warning: left out\n");
    assert_outcome("\"kind\":\"inventory\",\"status\":\"failed\"", "inventory: FAILED\n");
    assert_outcome("\"kind\":\"backup\",\"vm_name\":\"w\",\"status\":\"cancelled\"",
                   "w: cancelled\n");
    assert_outcome("\"kind\":\"backup\",\"vm_name\":\"w\",\"status\":\"failed\"", "w: FAILED\n");
    assert_outcome("\"kind\":\"backup\",\"vm_name\":\"w\",\"status\":\"failed\",\"attempts\":3,"
                   "\"worker\":\"px1\",\"error\":{\"code\":\"io-error\",\"retry\":\"elsewhere\","
                   "\"message\":\"read\"}",
                   "w: FAILED: read\n    (io-error, 3 attempts, worker px1)\n");
}

static void endings(void **state)
{
    (void)state;
    char kind[] = "backup", partly[] = "partly", good[] = "succeeded", cancel[] = "cancel";
    struct wire_finished m = {.kind = kind,
                              .status = partly,
                              .tasks_total = 12,
                              .tasks_succeeded = 10,
                              .tasks_failed = 1,
                              .tasks_cancelled = 1};
    SCOPED_BUF struct buf out;
    buf_init(&out, 4096);
    report_finished(&m, false, &out);
    m = (struct wire_finished){.kind = kind, .status = good};
    report_finished(&m, true, &out);
    m = (struct wire_finished){
        .kind = kind, .status = good, .tasks_total = 3, .tasks_succeeded = 3};
    report_finished(&m, false, &out);
    m = (struct wire_finished){.kind = cancel, .status = good};
    report_finished(&m, false, &out);
    m.tasks_total = 3;
    m.tasks_cancelled = m.tasks_succeeded = m.tasks_failed = 1;
    report_finished(&m, false, &out);
    assert_string_equal(buf_str(&out),
                        "backup partly failed: 10 of 12 succeeded, 1 failed, 1 cancelled\n"
                        "\033[32mbackup succeeded\033[0m\n"
                        "backup succeeded: 3 of 3\n"
                        "cancel succeeded: nothing was left to cancel\n"
                        "cancel succeeded: 1 of 3 tasks cancelled, 1 succeeded before, 1 failed "
                        "before\n");
}

static void json_lines(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    SCOPED_BUF struct buf out;
    buf_init(&out, 1 << 20);
    struct wire_message m =
        message("accepted", "{\"request\":\"0c0ffee0-0000-4000-8000-000000000001\"}");
    assert_true(output_json_reply(WIRE_ACCEPTED, m.as, &out, &err));
    wire_free(&m);
    assert_string_equal(buf_str(&out),
                        "{\"type\":\"accepted\",\"request\":"
                        "\"0c0ffee0-0000-4000-8000-000000000001\",\"duplicate\":false}\n");
    buf_reset(&out);
    m = message("page",
                "{\"request\":\"0c0ffee0-0000-4000-8000-000000000001\",\"page\":3,\"items\":"
                "{\"workers\":[{\"name\":\"a\",\"state\":\"up\"},{\"name\":\"b\","
                "\"version\":\"\\u009b\\u202e\"}]}}");
    const struct wire_page *page = m.as;
    assert_true(output_json_items(page->items, &out, &err));
    wire_free(&m);
    char *second = strchr(buf_str(&out), '\n') + 1;
    assert_memory_equal(buf_str(&out), "{\"type\":\"worker\",\"name\":\"a\"", 27);
    assert_memory_equal(second, "{\"type\":\"worker\",\"name\":\"b\"", 27);
    assert_non_null(strstr(second, "\\u009B\\u202E"));
    assert_null(strchr(strchr(second, '\n') + 1, '\n'));
}

int main(void)
{
    if (!setlocale(LC_CTYPE, "C.UTF-8"))
        return 77;
    setenv("TZ", "UTC", 1);
    tzset();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables),
        cmocka_unit_test(point_list),
        cmocka_unit_test(traces_attempts_and_gauges),
        cmocka_unit_test(plans),
        cmocka_unit_test(request_and_task_lists),
        cmocka_unit_test(outcomes),
        cmocka_unit_test(endings),
        cmocka_unit_test(json_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Thousands of VMs in one request, from selection to the last reply, through every limit. */
#include <string.h>
#include <time.h>

#include "tests/unit/coordinator/bed.h"

enum { VMS = 2000, WORKERS = 20, SLOTS = 4, LIMIT = 50 };

/* Of the processors: a busy machine does not make them more. */
static double seconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void presences(struct bed *bed)
{
    for (int i = 0; i < WORKERS; i++) {
        char name[16];
        snprintf(name, sizeof name, "w%d", i);
        bed_presence(bed, name, "dc1", SLOTS);
    }
}

static void two_thousand_vms(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    bed->conf.limits.max_running = LIMIT;
    presences(bed);
    char request[ID_BYTES];
    bed_backup(bed, NULL, request);
    struct hold inventory = bed_offer(bed);
    bed_claim(bed, &inventory, "w0");
    double begun = seconds();
    bed_inventory(bed, &inventory, 1, VMS);
    print_message("%d tasks planned in %.2f CPU s\n", VMS, seconds() - begun);
    begun = seconds();
    struct hold running[LIMIT];
    size_t count = 0;
    int ended = 0, most = 0;
    while (ended < VMS) {
        while (bed_count(bed, WIRE_OFFER) > 0) {
            struct hold h = bed_offer(bed);
            char name[16];
            snprintf(name, sizeof name, "w%d", ended % WORKERS);
            assert_true(count < LIMIT); /* the limit holds */
            bed_claim(bed, &h, name);
            bed_step(bed, &h, "snapshot", "handle", "snapshot", "s", NULL);
            running[count++] = h;
            most = (int)count > most ? (int)count : most;
        }
        assert_true(count > 0);
        bed_result(bed, &running[--count], "succeeded");
        if (ended++ % 100 == 0) { /* time passes: presence and timers too */
            bed_wait(bed, 1000);
            presences(bed);
        }
        bed_drop_type(bed, WIRE_PROGRESS);
    }
    double took = seconds() - begun;
    print_message("%d tasks run in %.2f CPU s, at most %d at once\n", VMS, took, most);
    assert_int_equal(most, LIMIT);
    assert_int_equal(bed_count(bed, WIRE_OUTCOME), VMS);
    SCOPED_SENT struct sent f = bed_take(bed, WIRE_FINISHED);
    assert_int_equal(((const struct wire_finished *)f.m.as)->tasks_succeeded, VMS);
    assert_true(took < 90); /* generous: a fraction of it on an idle machine */
    bed_check(bed);
}

static void cancelling_two_thousand_vms(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char request[ID_BYTES];
    bed_backup(bed, NULL, request);
    struct hold inventory = bed_offer(bed);
    bed_claim(bed, &inventory, "w0");
    bed_inventory(bed, &inventory, 1, VMS);
    const struct wire_cancel c = {.request = request};
    bed_drop(bed);
    bed_request(bed, WIRE_CANCEL, &c, NULL);
    assert_int_equal(bed_count(bed, WIRE_OUTCOME), VMS);
    assert_int_equal(bed_count(bed, WIRE_FINISHED), 2);
    bed_check(bed);
}

static void selecting_two_thousand_names(void **state)
{
    (void)state;
    SCOPED(bed) struct bed *bed = bed_new("dc1", NULL);
    char *names[WIRE_SELECT_MAX];
    for (int i = 0; i < WIRE_SELECT_MAX; i++)
        names[i] = xasprintf("name-%d", i + 1 + WIRE_SELECT_MAX / 2);
    struct wire_select select = {.names = {names, WIRE_SELECT_MAX}};
    const struct wire_backup b = {.select = &select};
    bed_request(bed, WIRE_BACKUP, &b, NULL);
    struct hold inventory = bed_offer(bed);
    bed_claim(bed, &inventory, "w0");
    bed_inventory(bed, &inventory, 1, VMS);
    /* Half of the names are there. */
    assert_int_equal(bed_count(bed, WIRE_OUTCOME), WIRE_SELECT_MAX / 2);
    for (int i = 0; i < WIRE_SELECT_MAX; i++)
        free(names[i]);
    bed_check(bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_thousand_vms),
        cmocka_unit_test(cancelling_two_thousand_vms),
        cmocka_unit_test(selecting_two_thousand_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

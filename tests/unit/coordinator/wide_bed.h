/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of parts share: a backup that may use several workers, its questions, what it is
 * told, and the parts' own runs.
 */
#pragma once

#include "tests/unit/coordinator/bed.h"

enum { NONE = 0 };

struct task wide_task(struct bed *bed,
                      const char *id); /* must be there; task_done() by the caller */
enum task_state wide_state(struct bed *bed, const struct hold *h);
/* Workers w1..w<count>, 4 slots each. */
void wide_workers(struct bed *bed, int count);
/* A backup of "name-1" that may use so many workers: its offer. */
struct hold wide_offer(struct bed *bed, int64_t workers, char *ret_request);
/* The same, running on w1, with workers w1..w4 there. */
struct hold wide_backup(struct bed *bed, int64_t workers, char *ret_request);

struct ask {
    int64_t give, withdraw; /* bits 1 << n */
    bool restore;
    int64_t length; /* of the piece; 0 = 10 of 10 bytes */
};
void wide_ask(struct bed *bed, const struct hold *h, struct ask a);
#define GIVE(n)  (1 << (n))
#define ASK(...) wide_ask(bed, &h, (struct ask){__VA_ARGS__})

/* The newest `parted` for this run; older ones are dropped. */
struct sent wide_parted(struct bed *bed, const struct hold *h);
const struct wire_part_state *wide_part(const struct sent *s, int64_t n);
/* Takes the newest `parted` and looks at one part. */
void wide_expect(struct bed *bed, const struct hold *h, int64_t n, const char *state);

/* A part that runs on a worker, taken from its offer. */
struct hold wide_running_part(struct bed *bed, const char *worker);
void wide_part_succeeds(struct bed *bed, const struct hold *part);
/* The next offer is a clean-up after task `of` that removes the part's point. */
void wide_expect_cleanup(struct bed *bed, const struct hold *part, const char *of);

/* A story that needs no lease to run out, and no memory of how far a copy was: it ends the same
 * when the coordinator is restarted after each message. */
int wide_restart_always(void **state);
int wide_restart_no_more(void **state);
#define ONCE(story) cmocka_unit_test(story)
#define TWICE(story)                                                                               \
    ONCE(story), cmocka_unit_test_setup_teardown(story, wide_restart_always, wide_restart_no_more)

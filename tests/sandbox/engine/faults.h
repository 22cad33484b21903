/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fault table: which calls go wrong, and how. A rule is a JSON object (tests/sandbox/README.md
 * holds the syntax); rules come from a file at the start and from the control socket while running.
 *
 * Two kinds: HTTP rules match method and path and act before or after the effect of the call; point
 * rules make a step inside the engine fail ("merge-fail", "device-missing", ...).
 *
 * Threads: guarded by the engine's lock.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "proto/base/err.h"

struct faults;

enum fault_when { FAULT_BEFORE, FAULT_AFTER };
enum fault_action {
    FAULT_NONE,
    FAULT_DELAY,
    FAULT_STATUS,
    FAULT_DROP,
    FAULT_RESET,
    FAULT_HANG, /* until the rule is removed, then cut */
    FAULT_HOLD, /* until the rule is removed, then on */
    FAULT_EXPIRE
};

/* What a rule says, valid until the rule is removed: copy what outlives the lock. */
struct fault {
    enum fault_action action;
    unsigned rule; /* its number, to see whether it is still there */
    int64_t delay_ms;
    uint64_t cut_after_bytes; /* of an image transfer that is dropped */
    int status;
    const char *reason, *detail; /* a fault body, or */
    const char *body, *type;     /* any body */
};

struct faults *faults_new(void);
void faults_free(struct faults *f);
/* Adds a rule or an array of rules; none is added when one is wrong. Error: bad-config. */
bool faults_add(struct faults *f, const json_t *rules, struct err *err);
/* Removes a rule by name, or all for NULL. The number removed. */
unsigned faults_remove(struct faults *f, const char *name);
/* All rules as JSON, each with "hits" (matches so far) and "fired". */
json_t *faults_show(const struct faults *f);
/* Does the rule of that number still exist? */
bool faults_has(const struct faults *f, unsigned rule);

/* What a rule may look at in a call; all set, "" where there is none. */
struct fault_call {
    const char *method, *path, *correlation_id;
    const char *user; /* whose token it carries */
};
/* The fault for a call, counting the match; action FAULT_NONE when no rule fires. */
struct fault faults_http(struct faults *f, enum fault_when when, const struct fault_call *call);
/* Does the rule for this point fire? `object` is the VM's or disk's name. `ret_delay_ms` may be
 * NULL. */
bool faults_point(struct faults *f, const char *point, const char *object, int64_t *ret_delay_ms);

/* SPDX-License-Identifier: Apache-2.0 */
/* What the tables of checks share. Private to worker/doctor. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "worker/doctor/doctor.h"
#include "worker/ovirt/datacenter.h"
#include "worker/ovirt/permit.h"
#include "worker/ovirt/vm.h"
#include "worker/store/store.h"

enum { SAY_BYTES = 600 };

/* One check: says what it found, good or bad, and how it came out. */
typedef enum finding_level (*check_fn)(struct doctor *d, struct buf *say);

struct check {
    const char *name;
    check_fn run;
    const char *advice; /* what to do, unless it is ok */
    const char *needs;  /* skipped when this earlier check failed or was skipped; NULL = nothing */
    bool needs_broker;  /* only when doctor_opts.broker */
};

struct check_table {
    const struct check *rows;
    size_t count;
};
#define CHECK_TABLE(rows)                                                                          \
    {                                                                                              \
        rows, ARRAY_LEN(rows)                                                                      \
    }

/* In the order in which they are made. */
extern const struct check_table checks_of_host, checks_of_devices, checks_of_engine,
    checks_of_repository, checks_of_broker;

/* What the checks found out and later ones use; only the running thread touches it. */
struct engine_facts {
    struct engine *engine;
    struct engine_session *session;
    struct err contact; /* how the first call went */
    json_t *root;       /* of the API */
    int64_t asked_ms, answered_ms;
    struct ovirt_vm proxy;
    struct ovirt_datacenter datacenter;
    struct ovirt_clusters clusters; /* of the data center */
    struct ovirt_permits permits;
};

struct doctor {
    struct doctor_opts opts;
    const struct worker_conf *conf;
    const struct clock *clock;
    int64_t until_ms; /* monotonic */
    atomic_bool stopped;
    struct engine_facts engine;
    struct store *store;
    struct err key; /* why the repository's key does not fit; not set when it does */
    /* How each row came out, for `needs`. */
    struct outcome {
        const char *name;
        enum finding_level level;
    } * outcomes;
    size_t outcome_count;

    pthread_mutex_t lock; /* guards all below */
    struct wire_findings findings;
    char *repository;
    const char *now;
    bool done;
};

/* The time is up, or doctor_stop() was called. */
bool doctor_is_late(const struct doctor *d);
/* opts.root + path; the caller frees. */
char *doctor_path(const struct doctor *d, const char *path);
/* The whole of a small text file below opts.root, or NULL; the caller frees. */
char *doctor_read_file(const struct doctor *d, const char *path);
/* The options of the file system with this device number, from the text of /proc/self/mountinfo
 * (may be NULL), as ",rw,soft,"; NULL = not in it. The caller frees. */
char *doctor_mount_options(const char *mountinfo, unsigned major_number, unsigned minor_number);
/* Whether the devices of this machine are meant: the tests' proxies have folders of their own. */
bool doctor_has_devices(const struct doctor *d);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The coordinator's configuration: docs/man/oxbow-coordinator.yaml.5 describes it, and
 * deploy/coordinator.yaml is a sample. After conf_load_file() every default is filled in and every
 * value is within its limits, so that the rest of the program need not check again.
 *
 * Threads: read-only after loading.
 */
#pragma once

#include "proto/base/log.h"
#include "proto/wire/broker_conf.h"

enum {
    CONF_ZONES_MAX = 256,
    CONF_RUNNING_MAX = 100000, /* "no limit", in effect */
};

struct conf_zone {
    char *name;
    int max_running;
};

struct conf_lanes {
    int restore, backup, upkeep;
};
struct conf_limits {
    int max_running;
    struct conf_lanes per_lane;
};
struct conf_janitor {
    int *every_s; /* between two sweeps of a zone; 0 = never by itself. Never NULL after loading */
};
struct conf_log {
    char *level, *format;
};

struct coordinator_conf {
    struct broker_conf broker;
    char *ledger;
    struct conf_zone *zones;
    unsigned zones_count;
    struct conf_limits limits;
    int lease_s;
    int max_attempts;
    int *offer_surplus; /* offers beyond the free slots; never NULL after loading */
    int deadline_s;     /* of a task whose request names none */
    int stop_limit_s;   /* how long a task that was told to stop may go on */
    int keep_days;      /* finished requests stay so long */
    struct conf_janitor janitor;
    char *metrics_file; /* NULL = none */
    struct conf_log log;
};

/* The caller frees with coordinator_conf_free(). Errors: bad-config, with the place. */
struct coordinator_conf *coordinator_conf_load(const char *path, struct err *err);
void coordinator_conf_free(struct coordinator_conf *conf);
DEFINE_SCOPED(coordinator_conf, coordinator_conf_free);
/* With all defaults, on standard output. */
bool coordinator_conf_dump(const struct coordinator_conf *conf, struct err *err);

/* The zone's place in conf->zones, or -1. */
int coordinator_conf_zone(const struct coordinator_conf *conf, const char *name);

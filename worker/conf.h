/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker's configuration file (oxbow-worker.yaml(5)): the struct, its schema and its checks.
 * After worker_conf_load() every default is filled in and every limit holds. Threads: load before
 * threads start; read-only afterwards.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "proto/base/alloc.h"
#include "proto/base/err.h"
#include "proto/wire/broker_conf.h"

struct worker_conf_engine {
    char *url, *user, *password_file, *ca_file;
    bool insecure_skip_verify;
    int64_t connect_timeout_s, request_timeout_s;
    int64_t retry_ms, poll_ms; /* first pauses of the back-offs */
};
struct worker_conf_repository {
    char *path;
    char *key_file, *passphrase_file; /* of an encrypted one; NULL = it is not, or by environment */
    int64_t pack_mib;                 /* size at which a file of new data is finished */
};
struct worker_conf_slots {
    int64_t backup, restore, upkeep;
};
struct worker_conf_copy {
    int64_t threads_per_disk; /* compressing threads of one disk */
    int64_t disks_at_once;    /* disks of one VM copied at the same time */
    int64_t map_min_mib;      /* disks at least so large are mapped before they are attached */
    bool compare_checksums;   /* with the host's, of what comes or goes by image transfer */
};
struct worker_conf_parts {
    int64_t min_mib;   /* of data, for another worker to be given a part of a VM */
    int64_t align_mib; /* at multiples of it a disk is cut for that */
};
struct worker_conf_lease {
    int64_t presence_s; /* how often leases are renewed */
    int64_t claim_s;    /* how long an answer to a claim is waited for */
    int64_t outage_s;   /* how long a task waits for a lost broker before its next mutation */
};
struct worker_conf_wait {
    int64_t engine_s;   /* one request, for a lock or a restarting engine */
    int64_t device_s;   /* an attached disk to appear or vanish */
    int64_t snapshot_s; /* a snapshot to be ready */
    int64_t merge_s;    /* a snapshot to be merged */
    int64_t export_s;   /* a VM to be cloned, and its clone to be written out */
    int64_t vm_s;       /* a VM or a disk to be made, a VM to start */
    int64_t drain_s;    /* running tasks after SIGTERM, before they are stopped */
};
struct worker_conf_reserve {
    int64_t repository_mib;
    int64_t storage_domain_mib;
    int64_t watch_s; /* how often a storage domain's free space is looked at during a copy */
};
/* One limit of bandwidth; of several that hold at once, the smallest counts. */
struct worker_conf_limit {
    int64_t mib_per_s;
    char *storage_domain; /* id or name; NULL = all that the worker reads and writes */
    char *hours;          /* as in worker/copy/rate.h; NULL = always */
};
struct worker_conf_log {
    char *level, *format;
};

struct worker_conf {
    char *name;                /* slug, unique among all workers of the broker */
    char *zone;                /* slug */
    struct broker_conf broker; /* checked by broker_conf_apply() */
    struct worker_conf_engine engine;
    char *proxy_vm;  /* id or name of the VM that this worker runs in */
    char *proxy_tag; /* the engine's tag of all proxy VMs, which backups of "all" leave out */
    char *device_dir;
    struct worker_conf_repository repository;
    struct worker_conf_slots slots;
    struct worker_conf_copy copy;
    struct worker_conf_parts parts;
    struct worker_conf_lease lease;
    struct worker_conf_wait wait;
    int64_t quiesce_limit_s;
    struct worker_conf_reserve reserve;
    struct worker_conf_limit *limits;
    unsigned limits_count;
    struct worker_conf_log log;
};

/* Read, fill in defaults, check. NULL with bad-config, naming file and key. `need_broker` is false
 * for --once, which works without a broker section. */
struct worker_conf *worker_conf_load(const char *path, bool need_broker, struct err *err);
void worker_conf_free(struct worker_conf *conf);
DEFINE_SCOPED(worker_conf, worker_conf_free);

/* As YAML on standard output, defaults included. */
bool worker_conf_dump(const struct worker_conf *conf, struct err *err);

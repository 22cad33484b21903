/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The messages of the contract (docs/protocol.md is normative) as C structs.
 *
 * Each message is one struct, one table of fields in message.c and one JSON Schema in
 * docs/schemas/NAME.json; a test holds the three together. The AMQP property `type` is
 * "oxbow.NAME.v1"; encoded bodies repeat it as the member `type`, for readers that do not see
 * properties. Decoding is exact: unknown fields are ignored; a wrong type, a missing field or
 * a size over the limit is refused with the JSON path of the fault ("$.select.names[3]: ...").
 *
 * Ownership: a decoded message owns all it points to; wire_free() frees it. When encoding, a
 * message may point at borrowed strings. Absent optional strings are NULL, absent optional objects
 * NULL, absent arrays have count 0. Times are milliseconds since 1970 (UTC); durations carry their
 * unit in the name. Threads: reentrant.
 *
 * Words (zone, lane, fence, attempt, restore point): docs/architecture.md.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/err.h"

/* MESSAGE(NAME, "wire-name", struct tag) */
#define WIRE_MESSAGES(MESSAGE)                                                                     \
    /* requests: anyone -> oxbow.requests */                                                       \
    MESSAGE(BACKUP, "backup", wire_backup)                                                         \
    MESSAGE(RESTORE, "restore", wire_restore)                                                      \
    MESSAGE(EXPORT, "export", wire_export)                                                         \
    MESSAGE(INVENTORY, "inventory", wire_inventory)                                                \
    MESSAGE(LIST, "list", wire_list)                                                               \
    MESSAGE(STATUS, "status", wire_status)                                                         \
    MESSAGE(CANCEL, "cancel", wire_cancel)                                                         \
    MESSAGE(DOCTOR, "doctor", wire_doctor)                                                         \
    MESSAGE(SWEEP, "sweep", wire_sweep)                                                            \
    MESSAGE(PRUNE, "prune", wire_prune)                                                            \
    MESSAGE(VERIFY, "verify", wire_verify)                                                         \
    MESSAGE(PLAN, "plan", wire_plan)                                                               \
    /* replies: coordinator -> the request's reply_to */                                           \
    MESSAGE(ACCEPTED, "accepted", wire_accepted)                                                   \
    MESSAGE(REFUSED, "refused", wire_refused)                                                      \
    MESSAGE(PROGRESS, "progress", wire_progress)                                                   \
    MESSAGE(OUTCOME, "outcome", wire_outcome)                                                      \
    MESSAGE(PAGE, "page", wire_page)                                                               \
    MESSAGE(FINISHED, "finished", wire_finished)                                                   \
    /* offers: coordinator -> oxbow.tasks.<zone>.<lane> */                                         \
    MESSAGE(OFFER, "offer", wire_offer)                                                            \
    /* events: worker -> oxbow.events */                                                           \
    MESSAGE(CLAIM, "claim", wire_claim)                                                            \
    MESSAGE(STEP, "step", wire_step)                                                               \
    MESSAGE(COPYING, "copying", wire_copying)                                                      \
    MESSAGE(PARTS, "parts", wire_parts)                                                            \
    MESSAGE(ITEMS, "items", wire_items)                                                            \
    MESSAGE(RESULT, "result", wire_result)                                                         \
    MESSAGE(PRESENCE, "presence", wire_presence)                                                   \
    MESSAGE(CHECKED, "checked", wire_checked)                                                      \
    /* control: coordinator -> oxbow.control, routing key worker.<name> */                         \
    MESSAGE(GRANT, "grant", wire_grant)                                                            \
    MESSAGE(DENY, "deny", wire_deny)                                                               \
    MESSAGE(STOP, "stop", wire_stop)                                                               \
    MESSAGE(PARTED, "parted", wire_parted)                                                         \
    MESSAGE(DRAIN, "drain", wire_drain)                                                            \
    MESSAGE(CHECKUP, "checkup", wire_checkup)

enum wire_type {
#define WIRE_ENUM(name, wire, tag) WIRE_##name,
    WIRE_MESSAGES(WIRE_ENUM)
#undef WIRE_ENUM
        WIRE_TYPE_COUNT
};

/* Limits that a decoder enforces. */
enum {
    WIRE_BODY_MAX_BYTES = 256 * 1024,
    WIRE_SLUG_MAX = 64,     /* zone and worker names, in characters of id_is_slug() */
    WIRE_NAME_MAX = 255,    /* a name in the engine, in characters */
    WIRE_TEXT_MAX = 2048,   /* a search expression, an error message */
    WIRE_SELECT_MAX = 2000, /* ids, names or tags in one request */
    WIRE_PAGE_MAX = 200,    /* items in one page */
    WIRE_KEEP_MAX = 100000, /* of a rule of a policy */
    WIRE_SHARE_MAX = 65536, /* of a verification */
    WIRE_DISKS_MAX = 256,
    WIRE_PATHS_MAX = 16,
    WIRE_WORKERS_MAX = 16,                 /* on one VM at a time */
    WIRE_PARTS_MAX = WIRE_WORKERS_MAX - 1, /* that one task gives to others */
    WIRE_PIECES_MAX = 256,                 /* in one part */
    WIRE_WARNINGS_MAX = 100,
    WIRE_HANDLES_MAX = 2048,
    WIRE_JOURNAL_MAX = 512,
    WIRE_RUNNING_MAX = 1000,
    WIRE_LEFTOVERS_MAX = 1000,
    WIRE_DEADLINE_MAX_S = 31 * 24 * 3600,
    WIRE_CHECKUP_MAX_S = 600,
};

struct wire_strings {
    char **v;
    size_t count;
};

/* An error value on the wire: code, retry advice, errno or HTTP status, place, message. */
struct wire_error {
    char *code;  /* of proto/base/err_codes.def */
    char *retry; /* never | soon | later | elsewhere */
    int64_t sys;
    char *at; /* "worker/store/pack.c:88" or NULL */
    char *message;
};

/* --- Requests -------------------------------------------------------------------------------- */
enum wire_quiesce { WIRE_QUIESCE_AUTO, WIRE_QUIESCE_REQUIRE, WIRE_QUIESCE_OFF };
enum wire_unsupported { WIRE_UNSUPPORTED_SKIP, WIRE_UNSUPPORTED_FAIL };
enum wire_path {
    WIRE_PATH_AUTO,
    WIRE_PATH_ATTACH,
    WIRE_PATH_IMAGEIO,
    WIRE_PATH_CBT,
    WIRE_PATH_HYBRID
};
enum wire_config { WIRE_CONFIG_OVF, WIRE_CONFIG_JSON };
enum wire_nics { WIRE_NICS_UNPLUGGED, WIRE_NICS_PLUGGED, WIRE_NICS_NONE };

/* Which VMs: the union of all that is given, less `exclude`. At least one must be given. */
struct wire_select {
    struct wire_strings ids, names, tags;
    char
        *search; /* an expression of the engine's search language, e.g. "cluster=prod and tag=db" */
    bool all;
    struct wire_strings exclude; /* names */
};

/* How to back up one VM; the same in a request and in an offer. */
struct wire_backup_opts {
    enum wire_quiesce quiesce;         /* default auto */
    enum wire_unsupported unsupported; /* disks that cannot be snapshotted; default skip */
    enum wire_path path;               /* default auto */
    int64_t workers;                   /* that may copy this VM at a time; 0 = 1 */
};

struct wire_backup {
    char *idempotency_key; /* the same key twice is one job; NULL = none */
    char *zone;            /* NULL = every zone */
    struct wire_select *select;
    struct wire_backup_opts *options; /* NULL = defaults */
    int64_t deadline_s; /* per task, from its first grant; 0 = the coordinator's default */
    bool progress;      /* send progress replies */
};

struct wire_restore_opts {
    char *point;             /* restore point id, or a unique prefix of one; or: */
    char *vm;                /* the newest restore point of this VM (id or name) */
    char *name;              /* of the new VM */
    char *cluster;           /* name or id; NULL = as it was */
    char *storage_domain;    /* name or id; NULL = as each disk was */
    enum wire_config config; /* default ovf */
    enum wire_nics nics;     /* default unplugged */
    bool start;
    struct wire_strings disks; /* only these (id or alias); none = all */
    enum wire_path path;       /* default auto */
    int64_t workers;           /* that may fill the disks at a time; 0 = 1 */
};

struct wire_restore {
    char *idempotency_key;
    char *zone; /* where; may be NULL when the coordinator knows one zone only */
    struct wire_restore_opts *options;
    int64_t deadline_s;
    bool progress;
};

/* Where the VM goes; the same in a request and in an offer. Either host and directory, or domain.
 */
struct wire_export_opts {
    char *host;                        /* name or id: it writes an OVA into... */
    char *directory;                   /* ... this absolute path on it */
    char *domain;                      /* name or id of an export domain */
    enum wire_quiesce quiesce;         /* default auto */
    enum wire_unsupported unsupported; /* as for a backup; default skip */
};

/* Clone running VMs from a snapshot, and have the engine write the clones out. */
struct wire_export {
    char *idempotency_key; /* as for a backup, as are these: */
    char *zone;
    struct wire_select *select;
    struct wire_export_opts *options;
    int64_t deadline_s;
    bool progress;
};

struct wire_inventory {
    char *zone;   /* NULL = every zone */
    char *search; /* NULL = all VMs */
};

struct wire_list {
    char *zone; /* whose repository; NULL = every zone */
    char *vm;   /* id or name; NULL = all */
};

struct wire_status {
    char *request; /* one request with its tasks, or, by a task's id, that task with its attempts;
                      NULL = the newest requests, the workers and the gauges */
    int64_t limit; /* 1..1000, 0 = 50 */
};

struct wire_cancel {
    char *request; /* exactly one of both */
    char *task;
};

struct wire_doctor {
    char *worker;    /* only this one; NULL = every worker that is known */
    int64_t limit_s; /* how long a worker may take; 0 = 60 */
};
/* Look for what tasks left behind, and open clean-ups for it. */
struct wire_sweep {
    char *zone;   /* NULL = every zone */
    bool dry_run; /* only tell */
};
/* Which points of a VM to keep: the newest of each of the last n periods that have one. */
struct wire_policy {
    int64_t last, hourly, daily, weekly, monthly, yearly; /* 0 = the rule keeps nothing */
    char *timezone; /* "UTC" (NULL), "local" (the worker's), or an offset such as "+02:00" */
};
/* Delete the restore points that a policy does not keep, and free what nobody refers to. */
struct wire_prune {
    char *zone;                 /* NULL = every zone */
    struct wire_strings vms;    /* ids or names; empty = all */
    struct wire_policy *policy; /* NULL = delete nothing, only free space */
    bool dry_run;               /* only tell */
};
/* Read restore points, or a share of all data, and heal or name what is damaged. */
struct wire_verify {
    char *zone;         /* NULL = every zone */
    char *vm;           /* id or name; only its points; NULL = all */
    char *point;        /* only this one */
    int64_t share;      /* without vm and point: read one part in so many; 0 = 1 */
    int64_t limit_mibs; /* MiB a second that may be read; 0 = no limit */
};

/* Tell how a backup would go, without doing anything. */
struct wire_plan {
    char *zone; /* NULL = every zone */
    struct wire_select *select;
    struct wire_backup_opts *options; /* NULL = defaults */
};

/* --- Replies --------------------------------------------------------------------------------- */
struct wire_accepted {
    char *request;
    bool duplicate; /* the idempotency key was known: this is the earlier request's id */
};

struct wire_refused {
    char *request; /* NULL when the message could not be read that far */
    struct wire_error *error;
};

/* One task as it stands. */
struct wire_progress {
    char *request, *task, *kind;
    char *vm, *vm_name; /* NULL for tasks without a VM */
    char *worker;       /* NULL while waiting */
    char *state;        /* waiting | offered | running */
    char *step;         /* NULL before the first */
    int64_t attempt;
    int64_t bytes_done, bytes_total; /* of the copy; 0 0 before it */
    int64_t rate_bps;
    int64_t tasks_total, tasks_done; /* of the request; total may grow while zones are asked */
    /* While it waits after a failed or lost attempt: */
    int64_t wait_ms;          /* until the next one may begin */
    int64_t attempts_max;     /* how many there may be */
    struct wire_error *error; /* why the last one ended; NULL = there was none */
};

struct wire_warning {
    char *code; /* of err_codes.def, or a word of docs/protocol.md */
    char *disk; /* NULL = not about a disk */
    char *message;
};
struct wire_warnings {
    struct wire_warning *v;
    size_t count;
};

/* What came by one path: sums over the disks that took it. */
struct wire_path_stats {
    char *path; /* attach | imageio */
    int64_t disks, bytes_read, copy_ms;
};
struct wire_paths_stats {
    struct wire_path_stats *v;
    size_t count;
};

struct wire_stats {
    int64_t wait_ms, quiesce_ms, snapshot_ms, attach_ms, copy_ms, commit_ms, detach_ms, merge_ms;
    int64_t total_ms;
    int64_t disks, bytes_total, bytes_read, bytes_zero, bytes_known, bytes_stored;
    struct wire_paths_stats paths; /* backup */
};

/* One task's end. */
struct wire_outcome {
    char *request, *task, *kind;
    char *vm, *vm_name;
    char *worker;
    char *status; /* succeeded | failed | cancelled */
    int64_t attempts;
    char *point;    /* backup: the new restore point; restore: the one that was restored */
    char *new_vm;   /* restore: id of the VM made */
    char *exported; /* export: where the VM is now: "HOST:PATH" of the OVA, or "DOMAIN:NAME" */
    struct wire_error *error;
    struct wire_warnings warnings;
    struct wire_stats *stats;
    bool cleanup_open; /* something is left behind and the coordinator has a clean-up task for it */
};

/* A piece of a listing. Items are objects of one kind, as docs/protocol.md describes them. */
struct wire_vm_item {
    char *id, *name, *status, *zone, *cluster, *host;
    struct wire_strings tags;
    int64_t disks, provisioned_bytes;
};
struct wire_point_item {
    char *id, *vm, *vm_name, *zone;
    int64_t time_ms; /* wall time of the snapshot */
    int64_t disks, size_bytes, stored_bytes;
    char *quiesced; /* yes | no */
    char *state;    /* good | damaged */
    char *message;  /* why damaged; NULL */
    char *verdict;  /* of a policy: keep | delete; NULL = none was asked */
    char *rules;    /* by which it is kept: "daily, last good"; NULL */
};
struct wire_request_item {
    char *id, *kind, *state;      /* running | succeeded | partly | failed | cancelled */
    int64_t time_ms, finished_ms; /* 0 = not yet */
    int64_t tasks_total, tasks_done, tasks_failed;
    char *message;
};
struct wire_task_item {
    char *id, *request, *kind, *zone, *lane, *vm, *vm_name, *state, *worker, *step;
    int64_t attempt, bytes_done, bytes_total, time_ms, finished_ms;
    char *point;
    int64_t wait_ms, attempts_max; /* as in wire_progress */
    struct wire_error *error;
    char *part_of; /* the task that gave it away; NULL = it is no part */
};
struct wire_worker_item {
    char *name, *zone, *version, *state; /* up | lost | draining */
    int64_t seen_ms;
    int64_t slots, running;
};
/* What one check found. */
struct wire_finding {
    char *check;     /* its name: "engine.login" */
    char *level;     /* ok | warning | failure | skipped */
    char *worker;    /* who looked; NULL = the coordinator (or whoever shows it) */
    char *message;   /* what was found, and why that is bad */
    char *advice;    /* what to do; NULL when nothing is */
    int64_t time_ms; /* by the clock of the one who looked */
};
struct wire_findings {
    struct wire_finding *v;
    size_t count;
};
/* Something in the engine or the repository that Oxbow made, or that looks like it. */
struct wire_trace_item {
    char *kind; /* snapshot | attachment | transfer | backup | disk | vm | session | part */
    char *zone;
    char *vm, *vm_name; /* the VM it hangs on (attachment: the proxy VM; vm: itself) */
    char *id;           /* of the snapshot, disk, image transfer or repository session; part: of
                           the restore point */
    char *task;         /* by its marker; NULL = it carries none of ours */
    int64_t fence;      /* likewise; 0 = none */
    int64_t time_ms;    /* when it was made; 0 = not known */
    char *fate; /* of the repository session "<task>.<fence>": none | open | committed | revoked */
    char *verdict; /* the coordinator's: in-use | cleanup | stands | foreign; NULL from a worker */
    char *message; /* why */
};
/* One number about the whole, as it is now: docs/operations.md lists their names. */
struct wire_gauge_item {
    char *name, *zone, *lane; /* zone and lane: NULL when it is not about one */
    int64_t value;
};
/* One attempt of a task. */
struct wire_attempt_item {
    char *task;
    int64_t attempt, fence;
    char *worker;
    int64_t time_ms, ended_ms; /* granted; 0 = it runs */
    char *step;                /* the last one that was heard of */
    char *ended; /* succeeded | failed | cancelled | released | lost; NULL = it runs */
    struct wire_error *error;
};
/* What a backup would do, per VM and disk. */
struct wire_plan_path {
    char *path; /* attach | imageio */
    char *why;
};
struct wire_plan_paths {
    struct wire_plan_path *v;
    size_t count;
};
struct wire_plan_disk {
    char *id, *alias;
    char *path;                     /* NULL = it would be skipped */
    char *why;                      /* that path, or none */
    struct wire_plan_paths instead; /* the other paths, and why they are not taken */
    int64_t size_bytes, read_bytes; /* of the disk; expected to be read */
    int64_t copy_ms;                /* expected, of this disk alone */
    bool mapped;                    /* attached, and read by its map */
    bool measured;                  /* copy_ms follows from earlier backups */
};
struct wire_plan_disks {
    struct wire_plan_disk *v;
    size_t count;
};
struct wire_errors {
    struct wire_error *v;
    size_t count;
};
struct wire_plan_item {
    char *id, *name, *zone, *status;
    struct wire_plan_disks disks;
    struct wire_errors problems; /* each would make it fail, or wait */
    struct wire_warnings warnings;
    int64_t size_bytes, read_bytes; /* of the disks that would be backed up */
    int64_t copy_ms;                /* expected, with as many disks at once as the worker copies */
    char *parent;                   /* the newest restore point of the VM; NULL = none */
    int64_t parent_stored_bytes;    /* what that one added to the repository */
};
struct wire_item_list {
    /* Exactly one array is non-empty in a page. */
    struct wire_vm_item *vms;
    size_t vms_count;
    struct wire_point_item *points;
    size_t points_count;
    struct wire_request_item *requests;
    size_t requests_count;
    struct wire_task_item *tasks;
    size_t tasks_count;
    struct wire_worker_item *workers;
    size_t workers_count;
    struct wire_finding *findings;
    size_t findings_count;
    struct wire_trace_item *traces;
    size_t traces_count;
    struct wire_gauge_item *gauges;
    size_t gauges_count;
    struct wire_attempt_item *attempts;
    size_t attempts_count;
    struct wire_plan_item *plans;
    size_t plans_count;
};
struct wire_page {
    char *request;
    int64_t page; /* from 1 */
    struct wire_item_list *items;
};

/* The last reply to a request. */
struct wire_finished {
    char *request, *kind;
    char *status; /* succeeded | partly | failed | cancelled */
    int64_t tasks_total, tasks_succeeded, tasks_failed, tasks_cancelled;
    int64_t pages;            /* of page replies sent before */
    struct wire_error *error; /* a fault of the request as a whole, e.g. no such VM */
};

/* --- Offers ---------------------------------------------------------------------------------- */
/* name -> value pairs that a step leaves behind: "snapshot" -> id, "attachment.<disk>" -> proxy VM
 * id, "session" -> repository session. On the wire an object of strings. */
struct wire_handle {
    char *name, *value;
};
struct wire_handles {
    struct wire_handle *v;
    size_t count;
};
struct wire_journal_entry {
    int64_t attempt, fence;
    char *worker, *step, *state;
    struct wire_handles handles;
};
struct wire_journal {
    struct wire_journal_entry *v;
    size_t count;
};

/* The `id` of a leftover snapshot that means: all that carry the task's marker. */
#define WIRE_LEFTOVER_ALL "*"

/* Something a task left behind, for the clean-up that removes it. */
struct wire_leftover {
    char *kind; /* snapshot | attachment | transfer | backup | disk | vm | clone | session | part */
    char *vm;   /* the VM it hangs on (for attachment: the proxy VM); for vm, clone: its id */
    char *id;   /* snapshot id, disk id or repository session; the clone's name. part: the session,
                   "<part's task>.<fence>", whose point holds a part of the task's work */
};
struct wire_leftovers {
    struct wire_leftover *v;
    size_t count;
};

/* What was measured of a path in the zone, by earlier backups. */
struct wire_rate {
    char *path;
    int64_t bytes_per_s; /* of one disk */
    int64_t samples;     /* backups */
};
struct wire_rates {
    struct wire_rate *v;
    size_t count;
};

/* --- Parts: a task's copying that other workers of the zone do ------------------------------ */
/* So many bytes of one disk. */
struct wire_piece {
    char *disk;         /* its id in the engine; restore: of the new disk */
    char *from;         /* restore: the disk's id in the restore point */
    char *image;        /* backup: id of the disk's volume in the snapshot, for image transfers */
    char *path;         /* attach | imageio */
    int64_t size_bytes; /* of the disk */
    int64_t offset, length;
};
struct wire_pieces {
    struct wire_piece *v;
    size_t count;
};
/* What one other worker is to do. */
struct wire_part {
    char *of;       /* the task that gives it away */
    int64_t n;      /* which of its parts, from 1: by this and the fence it is known */
    char *snapshot; /* backup: the snapshot to read; it belongs to that task */
    char *point;    /* restore: the restore point to read */
    struct wire_pieces pieces;
};
struct wire_part_list {
    struct wire_part *v;
    size_t count;
};
/* How one part stands. */
struct wire_part_state {
    int64_t n;
    char *task;                      /* of the part */
    char *state;                     /* waiting | running | succeeded | failed | cancelled */
    char *worker;                    /* NULL before the first grant */
    int64_t fence;                   /* of its grant: its session is "<task>.<fence>"; 0 = none */
    char *point;                     /* backup: the point that holds it, once it has succeeded */
    int64_t bytes_done, bytes_total; /* of its copy */
    struct wire_stats *stats;        /* of its result */
    struct wire_error *error;        /* why it failed */
    bool cleanup_open; /* what it left behind (an attachment, a transfer) is not removed yet */
};
struct wire_part_states {
    struct wire_part_state *v;
    size_t count;
};
struct wire_numbers {
    int64_t *v;
    size_t count;
};

struct wire_offer {
    char *task, *request;
    char *kind; /* backup | restore | export | inventory | list | cleanup | sweep | prune |
                   verify | plan | backup-part | restore-part */
    char *zone, *lane;
    int64_t attempt; /* from 1 */
    char *vm, *vm_name;
    int64_t deadline_s;
    struct wire_backup_opts *backup; /* the one that belongs to the kind */
    struct wire_restore_opts *restore;
    struct wire_export_opts *export;
    struct wire_select *select; /* inventory */
    struct wire_list *list;
    struct wire_prune *prune;
    struct wire_verify *verify;
    struct wire_plan *plan;
    struct wire_part *part; /* backup-part, restore-part: what to do of the task it belongs to */
    struct wire_strings proxies; /* plan: VMs (ids or names) that workers run in */
    struct wire_rates rates;     /* backup, plan: measured in the zone */
    struct wire_leftovers cleanup;
    char *cleanup_task;          /* clean-up: the task that left them */
    struct wire_journal journal; /* what earlier attempts did, oldest first */
};

/* --- Events (all but presence carry the task, and renew its lease when the fence is right) ---- */
struct wire_claim {
    char *task, *worker;
    int64_t attempt;
    int64_t fence; /* 0 for a new claim; the known fence to confirm a lease after an outage */
};
struct wire_step {
    char *task, *worker;
    int64_t attempt, fence, seq; /* seq rises by one within an attempt */
    char *step;
    char *state; /* started | done | failed | undone | undo-failed | handle */
    struct wire_handles handles;
    struct wire_error *error;
    int64_t duration_ms;
};
struct wire_copying {
    char *task, *worker, *step;
    int64_t attempt, fence;
    int64_t bytes_done, bytes_total, rate_bps;
};
/* Give parts away, withdraw some, and ask how all of them stand: the answer is `parted`. */
struct wire_parts {
    char *task, *worker;
    int64_t attempt, fence;
    struct wire_part_list parts; /* those that are known already change nothing */
    struct wire_numbers withdraw;
};
struct wire_items { /* listing tasks: inventory, list, sweep, prune, verify and plan, in pages */
    char *task, *worker;
    int64_t attempt, fence, page;
    struct wire_item_list *items;
};
struct wire_result {
    char *task, *worker;
    int64_t attempt, fence;
    char *status; /* succeeded | failed | cancelled | released (given back untouched: drain) */
    struct wire_error *error;
    struct wire_warnings warnings;
    char *point, *new_vm, *exported;
    struct wire_stats *stats;
    struct wire_leftovers leftovers; /* what could not be cleaned up */
    int64_t pages;                   /* listing tasks: items messages sent */
};
struct wire_running {
    char *task;
    int64_t fence;
};
struct wire_presence {
    char *worker, *zone, *version, *host;
    char *proxy; /* the proxy VM it runs in, as configured: name or id */
    char *state; /* up | draining | leaving */
    int64_t slots_restore, slots_backup, slots_upkeep;
    struct wire_running *running; /* renews each of these leases */
    size_t running_count;
};

/* A worker's answer to a check-up. */
struct wire_checked {
    char *request, *worker;
    char *repository; /* id of its repository; NULL = it could not be read */
    struct wire_findings findings;
};

/* --- Control --------------------------------------------------------------------------------- */
struct wire_grant {
    char *task, *worker;
    int64_t attempt, fence;
    int64_t lease_s; /* a worker that could not renew for so long stops before its next mutation */
};
struct wire_deny {
    char *task, *worker;
    int64_t attempt;
    char *reason;
};
struct wire_stop { /* cancel a running task */
    char *task, *worker;
    char *reason;
};
/* How the parts of a task stand: the answer to `parts`, and sent when one of them changes. */
struct wire_parted {
    char *task, *worker;
    int64_t attempt, fence; /* of the grant that gave them away */
    struct wire_part_states states;
};
struct wire_drain {
    char *worker; /* NULL = whoever gets it */
};
struct wire_checkup { /* check your surroundings and answer with `checked` */
    char *request, *worker;
    int64_t limit_s; /* answer within this, with what is known by then */
};

/* --- Codec ----------------------------------------------------------------------------------- */
/* A decoded message: `as` points at the struct of `type`. */
struct wire_message {
    enum wire_type type;
    void *as;
};

/* "oxbow.NAME.v1" of a type; static. */
const char *wire_type_name(enum wire_type type);
/* True for kinds of tasks whose result is pages of items. */
bool wire_is_listing(const char *task_kind);
/* True for kinds of tasks that do a part of another one. */
bool wire_is_part(const char *task_kind);
/* What the shapes cannot say of a part: it is one of task `of`, and each piece lies within its
 * disk. Errors: bad-message. */
bool wire_part_check(const struct wire_part *part, const char *of, struct err *err);
/* The type of an AMQP `type` property. Errors: unsupported-version (known name, other version),
 * bad-message (anything else, NULL included). */
bool wire_type_parse(const char *type_property, enum wire_type *ret_type, struct err *err);

/* Decode a body. On success the caller calls wire_free(). Errors: bad-message with the JSON path,
 * too-large, unsupported-version. */
bool wire_decode(const char *type_property, const void *body, size_t len,
                 struct wire_message *ret_message, struct err *err);
/* The body of a message: compact JSON, NUL-terminated; the caller frees. Absent optional members
 * are left out. Asserts on a message that lacks a required member (a bug in us); what may exceed a
 * limit is checked and refused (too-large). */
char *wire_encode(enum wire_type type, const void *message, size_t *ret_len, struct err *err);
/* Frees what a decoded message owns. Safe on a zeroed one. */
void wire_free(struct wire_message *message);
/* Frees the members of a struct of this type that was filled with owned strings, not the struct. */
void wire_free_members(enum wire_type type, void *message);

/* err <-> wire_error. wire_error_of() borrows from `err` except `at` (written into `at_buf`). */
enum { WIRE_AT_BYTES = 128 };
void wire_error_of(const struct err *err, struct wire_error *out, char at_buf[WIRE_AT_BYTES]);
void wire_error_to_err(const struct wire_error *wire, struct err *out);

/* Words of the enums above ("auto", "require", ...), static; and back, false for an unknown word.
 */
const char *wire_quiesce_name(enum wire_quiesce v);
bool wire_quiesce_parse(const char *word, enum wire_quiesce *ret);
const char *wire_unsupported_name(enum wire_unsupported v);
bool wire_unsupported_parse(const char *word, enum wire_unsupported *ret);
const char *wire_path_name(enum wire_path v);
bool wire_path_parse(const char *word, enum wire_path *ret);
const char *wire_config_name(enum wire_config v);
bool wire_config_parse(const char *word, enum wire_config *ret);
const char *wire_nics_name(enum wire_nics v);
bool wire_nics_parse(const char *word, enum wire_nics *ret);

/* SPDX-License-Identifier: Apache-2.0 */
/* One table of members per struct of message.h: the requests, replies and their parts. What the
 * columns mean: shape.h. Offers, events and control are in shapes_task.c. */
#include "proto/wire/shapes.h"

#include <string.h>

/* --- Words ----------------------------------------------------------------------------------- */
const char *const shape_quiesce_words[] = {"auto", "require", "off", NULL};
const char *const shape_unsupported_words[] = {"skip", "fail", NULL};
const char *const shape_path_words[] = {"auto", "attach", "imageio", "cbt", "hybrid", NULL};
static const char *const restore_path_words[] = {"auto", "attach", "imageio", NULL};
const char *const shape_config_words[] = {"ovf", "json", NULL};
const char *const shape_nics_words[] = {"unplugged", "plugged", "none", NULL};

static const char *const retry_words[] = {"never", "soon", "later", "elsewhere", NULL};
static const char *const state_words[] = {"waiting", "offered", "running", NULL};
static const char *const end_words[] = {"succeeded", "failed", "cancelled", NULL};
static const char *const request_end_words[] = {"succeeded", "partly", "failed", "cancelled", NULL};
static const char *const request_state_words[] = {"running", "succeeded", "partly",
                                                  "failed",  "cancelled", NULL};
static const char *const request_kinds[] = {"backup", "restore", "export", "inventory", "list",
                                            "status", "cancel",  "doctor", "sweep",     "prune",
                                            "verify", "plan",    NULL};
static const char *const worker_state_words[] = {"up", "lost", "draining", NULL};
static const char *const quiesced_words[] = {"yes", "no", NULL};
static const char *const point_state_words[] = {"good", "damaged", NULL};
static const char *const level_words[] = {"ok", "warning", "failure", "skipped", NULL};
static const char *const trace_kinds[] = {"snapshot", "attachment", "transfer", "backup", "disk",
                                          "vm",       "session",    "part",     NULL};
static const char *const fate_words[] = {"none", "open", "committed", "revoked", NULL};
static const char *const verdict_words[] = {"in-use", "cleanup", "stands", "foreign", NULL};
static const char *const prune_verdicts[] = {"keep", "delete", NULL};
static const char *const attempt_end_words[] = {"succeeded", "failed", "cancelled",
                                                "released",  "lost",   NULL};
const char *const shape_task_kinds[] = {
    "backup", "restore", "export", "inventory",   "list",         "cleanup", "sweep",
    "prune",  "verify",  "plan",   "backup-part", "restore-part", NULL};
/* Of a part there are no replies of its own. */
static const char *const reply_kinds[] = {"backup", "restore", "export", "inventory",
                                          "list",   "cleanup", "sweep",  "prune",
                                          "verify", "plan",    NULL};

/* --- Parts ----------------------------------------------------------------------------------- */
static const struct shape_field error_fields[] = {
    STRING(wire_error, code, REQUIRED, 1, 64, "What kind of fault: a code of the table of errors."),
    WORDS(wire_error, retry, REQUIRED, retry_words,
          "Advice: never, soon (a passing fault), later (something must change first), elsewhere."),
    INT(wire_error, sys, OPTIONAL, -SHAPE_INT_MAX, SHAPE_INT_MAX,
        "The errno or the engine's HTTP status; 0 = none."),
    STRING(wire_error, at, OPTIONAL, 1, 255, "Where in the sources it was noticed."),
    TEXT(wire_error, message, REQUIRED, WIRE_TEXT_MAX,
         "What happened to which object, for people."),
};
const struct shape shape_error = SHAPE(wire_error, "error", error_fields);

static const char *check_select(const void *message, const char **ret_member)
{
    const struct wire_select *s = message;
    (void)ret_member;
    if (s->ids.count || s->names.count || s->tags.count || s->search || s->all)
        return NULL;
    return "selects nothing: give at least one of ids, names, tags, search, all";
}

static const struct shape_field select_fields[] = {
    STRINGS(wire_select, ids, WIRE_SELECT_MAX, WIRE_NAME_MAX, "VM ids of the engine."),
    STRINGS(wire_select, names, WIRE_SELECT_MAX, WIRE_NAME_MAX, "VM names, exactly."),
    STRINGS(wire_select, tags, WIRE_SELECT_MAX, WIRE_NAME_MAX, "Every VM with one of these tags."),
    STRING(wire_select, search, OPTIONAL, 1, WIRE_TEXT_MAX,
           "Every VM that this expression of the engine's search language finds."),
    BOOL(wire_select, all, "Every VM."),
    STRINGS(wire_select, exclude, WIRE_SELECT_MAX, WIRE_NAME_MAX,
            "VM names to leave out of all of the above."),
};
const struct shape shape_select = SHAPE_WITH_RULE(
    wire_select, "select", select_fields, check_select,
    "{\"anyOf\":[" GIVEN_ARRAY("ids") "," GIVEN_ARRAY("names") "," GIVEN_ARRAY("tags") "," GIVEN(
        "search", "string") ",{\"required\":[\"all\"],\"properties\":{\"all\":{"
                            "\"const\":true}}}]}");

static const struct shape_field backup_opts_fields[] = {
    ENUM(wire_backup_opts, quiesce, shape_quiesce_words,
         "Freeze the guest's file systems around the snapshot: auto = if its agent answers, "
         "require = fail otherwise, off = do not try."),
    ENUM(wire_backup_opts, unsupported, shape_unsupported_words,
         "Disks that cannot be snapshotted: skip them with a warning, or fail the VM."),
    ENUM(
        wire_backup_opts, path, shape_path_words,
        "How the data comes out: attach = the snapshot's disks on the proxy VM; imageio = by image "
        "transfer from the host; cbt = only what changed, by a backup of the engine and its "
        "checkpoints; hybrid = the same of a snapshot that the engine takes itself, and merges at "
        "the end; auto = cbt where incremental backup is on for all disks, else attach, but "
        "imageio for disks with checkpoints, which attaching would destroy."),
    INT(wire_backup_opts, workers, OPTIONAL, 1, WIRE_WORKERS_MAX,
        "So many workers of the zone may copy the VM's disks at the same time; absent = 1."),
};
const struct shape shape_backup_opts =
    SHAPE(wire_backup_opts, "backup-options", backup_opts_fields);

static const char *check_restore_opts(const void *message, const char **ret_member)
{
    const struct wire_restore_opts *o = message;
    (void)ret_member;
    return !o->point == !o->vm ? "needs exactly one of point and vm" : NULL;
}

static const struct shape_field restore_opts_fields[] = {
    STRING(wire_restore_opts, point, OPTIONAL, 1, WIRE_NAME_MAX,
           "The restore point's id, or a unique beginning of it."),
    STRING(wire_restore_opts, vm, OPTIONAL, 1, WIRE_NAME_MAX,
           "The newest restore point of this VM (id or name)."),
    STRING(wire_restore_opts, name, REQUIRED, 1, WIRE_NAME_MAX, "Name of the VM to make."),
    STRING(wire_restore_opts, cluster, OPTIONAL, 1, WIRE_NAME_MAX,
           "Cluster (name or id) to make it in; absent = the one it was in."),
    STRING(wire_restore_opts, storage_domain, OPTIONAL, 1, WIRE_NAME_MAX,
           "Storage domain (name or id) for its disks; absent = where each disk was."),
    ENUM(wire_restore_opts, config, shape_config_words,
         "Make the VM from the saved OVF or from the saved vm.json."),
    ENUM(wire_restore_opts, nics, shape_nics_words, "Network cards of the new VM."),
    BOOL(wire_restore_opts, start, "Start it when done."),
    STRINGS(wire_restore_opts, disks, WIRE_SELECT_MAX, WIRE_NAME_MAX,
            "Only these disks of the restore point (id or alias); absent = all."),
    ENUM(wire_restore_opts, path, restore_path_words,
         "How the data goes in: attach = the new disks on the proxy VM; imageio = by upload to a "
         "host; "
         "auto = attach where the worker's proxy VM is in the data centre, else imageio."),
    INT(wire_restore_opts, workers, OPTIONAL, 1, WIRE_WORKERS_MAX,
        "So many workers of the zone may fill the disks at the same time; absent = 1."),
};
#define ONE_OF(a, b) "{\"oneOf\":[" GIVEN(a, "string") "," GIVEN(b, "string") "]}"
const struct shape shape_restore_opts =
    SHAPE_WITH_RULE(wire_restore_opts, "restore-options", restore_opts_fields, check_restore_opts,
                    ONE_OF("point", "vm"));

static const char *check_export_opts(const void *message, const char **ret_member)
{
    const struct wire_export_opts *o = message;
    (void)ret_member;
    if (o->domain ? o->host || o->directory : !o->host || !o->directory)
        return "needs either host and directory, or domain";
    return NULL;
}

static const struct shape_field export_opts_fields[] = {
    STRING(wire_export_opts, host, OPTIONAL, 1, WIRE_NAME_MAX,
           "The host (name or id) that writes an OVA."),
    STRING(wire_export_opts, directory, OPTIONAL, 1, WIRE_NAME_MAX,
           "The absolute path of an existing directory on that host."),
    STRING(wire_export_opts, domain, OPTIONAL, 1, WIRE_NAME_MAX,
           "Instead: the export domain (name or id)."),
    ENUM(wire_export_opts, quiesce, shape_quiesce_words, "As for a backup."),
    ENUM(wire_export_opts, unsupported, shape_unsupported_words,
         "Disks that are in no snapshot: leave them out with a warning, or fail the VM."),
};
const struct shape shape_export_opts = SHAPE_WITH_RULE(
    wire_export_opts, "export-options", export_opts_fields, check_export_opts,
    "{\"oneOf\":[{\"allOf\":[" GIVEN("host", "string") "," GIVEN(
        "directory",
        "string") ",{"
                  "\"not\":" GIVEN("domain", "string") "}]},{\"allOf\":[" GIVEN(
                      "domain",
                      "string") ",{\"not\":" GIVEN("host",
                                                   "string") "},{\"not\":" GIVEN("directory",
                                                                                 "string") "}]}]}");

static const struct shape_field warning_fields[] = {
    STRING(wire_warning, code, REQUIRED, 1, 64, "A code of the table of errors, or a word."),
    STRING(wire_warning, disk, OPTIONAL, 1, WIRE_NAME_MAX, "The disk it is about."),
    TEXT(wire_warning, message, REQUIRED, WIRE_TEXT_MAX, "For people."),
};
const struct shape shape_warning = SHAPE(wire_warning, "warning", warning_fields);

#define PATH_DOC "attach, imageio, cbt or hybrid."
static const struct shape_field path_stats_fields[] = {
    STRING(wire_path_stats, path, REQUIRED, 1, 16, PATH_DOC),
    INT(wire_path_stats, disks, OPTIONAL, 0, WIRE_DISKS_MAX, "Disks that came by it."),
    AMOUNT(wire_path_stats, bytes_read, "Bytes read, all disks."),
    AMOUNT(wire_path_stats, copy_ms, "Sum of the disks' times, whether at once or not."),
};
static const struct shape shape_path_stats =
    SHAPE(wire_path_stats, "path-stats", path_stats_fields);

static const struct shape_field stats_fields[] = {
    AMOUNT(wire_stats, wait_ms, "From the task's making to its first grant."),
    AMOUNT(wire_stats, quiesce_ms, "Freezing and thawing."),
    AMOUNT(wire_stats, snapshot_ms, "Until the snapshot was usable."),
    AMOUNT(wire_stats, attach_ms, "Until all devices were there."),
    AMOUNT(wire_stats, copy_ms, "Reading, hashing, compressing, writing."),
    AMOUNT(wire_stats, commit_ms, "Making the restore point durable."),
    AMOUNT(wire_stats, detach_ms, "Detaching from the proxy."),
    AMOUNT(wire_stats, merge_ms, "Removing the snapshot."),
    AMOUNT(wire_stats, total_ms, "Of the last attempt, from grant to end."),
    INT(wire_stats, disks, OPTIONAL, 0, WIRE_DISKS_MAX, "Disks copied."),
    AMOUNT(wire_stats, bytes_total, "Sum of the disks' virtual sizes."),
    AMOUNT(wire_stats, bytes_read, "Bytes read from the source."),
    AMOUNT(wire_stats, bytes_zero, "Bytes known or found to be zero."),
    AMOUNT(wire_stats, bytes_known, "Bytes that the repository held already."),
    AMOUNT(wire_stats, bytes_stored, "Bytes added to the repository, compressed."),
    ARRAY(wire_stats, paths, wire_path_stats, shape_path_stats, WIRE_PATHS_MAX,
          "Backup: what came by which path."),
};
const struct shape shape_stats = SHAPE(wire_stats, "stats", stats_fields);

/* --- Items of listings ----------------------------------------------------------------------- */
static const struct shape_field vm_item_fields[] = {
    STRING(wire_vm_item, id, REQUIRED, 1, WIRE_NAME_MAX, "The VM's id in the engine."),
    STRING(wire_vm_item, name, REQUIRED, 1, WIRE_NAME_MAX, "Its name."),
    STRING(wire_vm_item, status, OPTIONAL, 0, WIRE_NAME_MAX, "As the engine says: up, down, ..."),
    SLUG(wire_vm_item, zone, OPTIONAL, "The zone that knows it."),
    STRING(wire_vm_item, cluster, OPTIONAL, 0, WIRE_NAME_MAX, "Name of its cluster."),
    STRING(wire_vm_item, host, OPTIONAL, 0, WIRE_NAME_MAX, "Name of the host it runs on."),
    STRINGS(wire_vm_item, tags, WIRE_SELECT_MAX, WIRE_NAME_MAX, "Its tags."),
    INT(wire_vm_item, disks, OPTIONAL, 0, SHAPE_INT_MAX, "How many disks it has."),
    AMOUNT(wire_vm_item, provisioned_bytes, "Sum of their virtual sizes."),
};
static const struct shape shape_vm_item = SHAPE(wire_vm_item, "vm", vm_item_fields);

static const struct shape_field point_item_fields[] = {
    STRING(wire_point_item, id, REQUIRED, 1, WIRE_NAME_MAX, "The restore point's id."),
    STRING(wire_point_item, vm, OPTIONAL, 1, WIRE_NAME_MAX, "Id of the VM it was made of."),
    STRING(wire_point_item, vm_name, OPTIONAL, 1, WIRE_NAME_MAX, "That VM's name at the time."),
    SLUG(wire_point_item, zone, OPTIONAL, "The zone whose repository holds it."),
    AMOUNT(wire_point_item, time_ms, "When the snapshot was taken."),
    INT(wire_point_item, disks, OPTIONAL, 0, WIRE_DISKS_MAX, "How many disks it holds."),
    AMOUNT(wire_point_item, size_bytes, "Sum of their virtual sizes."),
    AMOUNT(wire_point_item, stored_bytes, "Bytes that it added to the repository."),
    WORDS(wire_point_item, quiesced, OPTIONAL, quiesced_words,
          "Whether the guest's file systems were frozen."),
    WORDS(wire_point_item, state, OPTIONAL, point_state_words, "Whether it can be restored."),
    TEXT(wire_point_item, message, OPTIONAL, WIRE_TEXT_MAX, "Why it is damaged."),
    WORDS(wire_point_item, verdict, OPTIONAL, prune_verdicts,
          "What a policy says, where one was asked."),
    STRING(wire_point_item, rules, OPTIONAL, 0, 128, "The rules that keep it."),
};
static const struct shape shape_point_item = SHAPE(wire_point_item, "point", point_item_fields);

static const struct shape_field request_item_fields[] = {
    UUID(wire_request_item, id, REQUIRED, "The request's id."),
    WORDS(wire_request_item, kind, REQUIRED, request_kinds, "What was asked."),
    WORDS(wire_request_item, state, REQUIRED, request_state_words, "How it stands."),
    AMOUNT(wire_request_item, time_ms, "When it was accepted."),
    AMOUNT(wire_request_item, finished_ms, "When it ended; 0 = not yet."),
    AMOUNT(wire_request_item, tasks_total, "Tasks made so far."),
    AMOUNT(wire_request_item, tasks_done, "Tasks that ended."),
    AMOUNT(wire_request_item, tasks_failed, "Tasks that failed."),
    TEXT(wire_request_item, message, OPTIONAL, WIRE_TEXT_MAX, "Why it failed."),
};
static const struct shape shape_request_item =
    SHAPE(wire_request_item, "request", request_item_fields);

#define WAIT_DOC     "While it waits after a failed or lost attempt: until the next may begin."
#define ATTEMPTS_DOC "So many attempts it has at most."

static const struct shape_field task_item_fields[] = {
    UUID(wire_task_item, id, REQUIRED, "The task's id."),
    UUID(wire_task_item, request, OPTIONAL, "The request it belongs to; absent for clean-ups."),
    WORDS(wire_task_item, kind, REQUIRED, shape_task_kinds, "What it does."),
    SLUG(wire_task_item, zone, OPTIONAL, "Where."),
    WORDS(wire_task_item, lane, OPTIONAL, shape_lanes, "In which lane."),
    STRING(wire_task_item, vm, OPTIONAL, 1, WIRE_NAME_MAX, "Id of its VM."),
    STRING(wire_task_item, vm_name, OPTIONAL, 1, WIRE_NAME_MAX, "Name of its VM."),
    STRING(wire_task_item, state, REQUIRED, 1, 32,
           "waiting, offered, running, succeeded, failed or cancelled."),
    SLUG(wire_task_item, worker, OPTIONAL, "Who runs it, or ran it last."),
    STRING(wire_task_item, step, OPTIONAL, 1, 64, "The step it is in."),
    INT(wire_task_item, attempt, OPTIONAL, 0, SHAPE_INT_MAX, "Attempts begun."),
    AMOUNT(wire_task_item, bytes_done, "Copied so far."),
    AMOUNT(wire_task_item, bytes_total, "To copy."),
    AMOUNT(wire_task_item, time_ms, "When it was made."),
    AMOUNT(wire_task_item, finished_ms, "When it ended; 0 = not yet."),
    STRING(wire_task_item, point, OPTIONAL, 1, WIRE_NAME_MAX, "Its restore point."),
    AMOUNT(wire_task_item, wait_ms, WAIT_DOC),
    AMOUNT(wire_task_item, attempts_max, ATTEMPTS_DOC),
    OBJECT(wire_task_item, error, OPTIONAL, wire_error, shape_error,
           "Why it failed, or its last attempt did."),
    UUID(wire_task_item, part_of, OPTIONAL, "The task of which it does a part."),
};
static const struct shape shape_task_item = SHAPE(wire_task_item, "task", task_item_fields);

static const struct shape_field worker_item_fields[] = {
    SLUG(wire_worker_item, name, REQUIRED, "The worker's name."),
    SLUG(wire_worker_item, zone, OPTIONAL, "The zone it serves."),
    STRING(wire_worker_item, version, OPTIONAL, 0, 64, "Its version."),
    WORDS(wire_worker_item, state, OPTIONAL, worker_state_words, "How it stands."),
    AMOUNT(wire_worker_item, seen_ms, "When it was last heard."),
    AMOUNT(wire_worker_item, slots, "Tasks it can run at once, all lanes."),
    AMOUNT(wire_worker_item, running, "Tasks it runs."),
};
static const struct shape shape_worker_item = SHAPE(wire_worker_item, "worker", worker_item_fields);

static const struct shape_field finding_fields[] = {
    STRING(wire_finding, check, REQUIRED, 1, 64, "Name of the check, for example `engine.login`."),
    WORDS(wire_finding, level, REQUIRED, level_words,
          "How it came out; skipped = could not be looked at, because of another finding."),
    SLUG(wire_finding, worker, OPTIONAL, "Who looked; absent = the coordinator."),
    TEXT(wire_finding, message, REQUIRED, WIRE_TEXT_MAX, "What was found, for people."),
    TEXT(wire_finding, advice, OPTIONAL, WIRE_TEXT_MAX, "What to do about it."),
    AMOUNT(wire_finding, time_ms, "When, by the clock of the one who looked."),
};
const struct shape shape_finding = SHAPE(wire_finding, "finding", finding_fields);

static const struct shape_field trace_item_fields[] = {
    WORDS(wire_trace_item, kind, REQUIRED, trace_kinds, "What it is."),
    SLUG(wire_trace_item, zone, OPTIONAL, "Where."),
    STRING(wire_trace_item, vm, OPTIONAL, 1, WIRE_NAME_MAX,
           "Id of the VM it hangs on (attachment: the proxy VM; vm: its own id)."),
    STRING(wire_trace_item, vm_name, OPTIONAL, 1, WIRE_NAME_MAX, "That VM's name."),
    STRING(
        wire_trace_item, id, OPTIONAL, 1, WIRE_NAME_MAX,
        "Id of the snapshot, disk, image transfer or repository session, or of the restore point "
        "that holds a part."),
    UUID(wire_trace_item, task, OPTIONAL,
         "The task that made it, by its marker (part: whose part it is); absent = it carries "
         "none."),
    INT(wire_trace_item, fence, OPTIONAL, 0, SHAPE_INT_MAX, "That task's fence; 0 = none."),
    AMOUNT(wire_trace_item, time_ms, "When it was made; 0 = not known."),
    WORDS(wire_trace_item, fate, OPTIONAL, fate_words,
          "What the repository knows of that task and fence."),
    WORDS(wire_trace_item, verdict, OPTIONAL, verdict_words,
          "in-use = of a task that has not ended; cleanup = left behind by one that has, a "
          "clean-up is open (or would be: dry run); stands = it belongs to something finished "
          "and is kept; foreign = not known to be ours, never touched."),
    TEXT(wire_trace_item, message, OPTIONAL, WIRE_TEXT_MAX, "Why."),
};
static const struct shape shape_trace_item = SHAPE(wire_trace_item, "trace", trace_item_fields);

static const struct shape_field gauge_item_fields[] = {
    STRING(wire_gauge_item, name, REQUIRED, 1, 64, "What is counted."),
    SLUG(wire_gauge_item, zone, OPTIONAL, "In which zone."),
    WORDS(wire_gauge_item, lane, OPTIONAL, shape_lanes, "In which lane."),
    INT(wire_gauge_item, value, REQUIRED, 0, SHAPE_INT_MAX, "How many, or how long."),
};
static const struct shape shape_gauge_item = SHAPE(wire_gauge_item, "gauge", gauge_item_fields);

static const struct shape_field attempt_item_fields[] = {
    UUID(wire_attempt_item, task, REQUIRED, "The task."),
    INT(wire_attempt_item, attempt, REQUIRED, 1, SHAPE_INT_MAX, "Which attempt, from 1."),
    INT(wire_attempt_item, fence, OPTIONAL, 0, SHAPE_INT_MAX, "The fence number of its grant."),
    SLUG(wire_attempt_item, worker, OPTIONAL, "Who ran it."),
    AMOUNT(wire_attempt_item, time_ms, "When it was granted."),
    AMOUNT(wire_attempt_item, ended_ms, "When it ended; 0 = it runs."),
    STRING(wire_attempt_item, step, OPTIONAL, 1, 64, "The last step that was heard of."),
    WORDS(wire_attempt_item, ended, OPTIONAL, attempt_end_words,
          "How it ended; lost = its worker fell silent; released = given back untouched."),
    OBJECT(wire_attempt_item, error, OPTIONAL, wire_error, shape_error, "Why it failed."),
};
static const struct shape shape_attempt_item =
    SHAPE(wire_attempt_item, "attempt", attempt_item_fields);

static const struct shape_field plan_path_fields[] = {
    STRING(wire_plan_path, path, REQUIRED, 1, 16, PATH_DOC),
    TEXT(wire_plan_path, why, REQUIRED, 300, "Why it is not taken."),
};
static const struct shape shape_plan_path = SHAPE(wire_plan_path, "plan-path", plan_path_fields);

static const struct shape_field plan_disk_fields[] = {
    STRING(wire_plan_disk, id, REQUIRED, 1, WIRE_NAME_MAX, "The disk's id in the engine."),
    TEXT(wire_plan_disk, alias, OPTIONAL, 64, "Its name, for people."),
    STRING(wire_plan_disk, path, OPTIONAL, 1, 16,
           "The path it would take: attach, imageio, cbt or hybrid; absent = it would be skipped."),
    TEXT(wire_plan_disk, why, REQUIRED, 300, "Why that path, or why it would be skipped."),
    ARRAY(wire_plan_disk, instead, wire_plan_path, shape_plan_path, WIRE_PATHS_MAX,
          "The other paths."),
    AMOUNT(wire_plan_disk, size_bytes, "Its virtual size."),
    AMOUNT(wire_plan_disk, read_bytes, "Bytes expected to be read."),
    AMOUNT(wire_plan_disk, copy_ms, "How long that is expected to take, for this disk alone."),
    BOOL(wire_plan_disk, mapped, "Attached, and only what holds data is read."),
    BOOL(wire_plan_disk, measured,
         "The time follows from earlier backups of the zone; false = from an assumption."),
};
static const struct shape shape_plan_disk = SHAPE(wire_plan_disk, "plan-disk", plan_disk_fields);

static const struct shape_field plan_item_fields[] = {
    STRING(wire_plan_item, id, REQUIRED, 1, WIRE_NAME_MAX, "The VM's id in the engine."),
    STRING(wire_plan_item, name, REQUIRED, 1, WIRE_NAME_MAX, "Its name."),
    SLUG(wire_plan_item, zone, OPTIONAL, "The zone that knows it."),
    STRING(wire_plan_item, status, OPTIONAL, 0, WIRE_NAME_MAX, "As the engine says: up, down, ..."),
    ARRAY(wire_plan_item, disks, wire_plan_disk, shape_plan_disk, WIRE_DISKS_MAX,
          "All its disks, in the engine's order."),
    ARRAY(wire_plan_item, problems, wire_error, shape_error, 16,
          "What would make a backup fail if it began now; with the advice `later` or `soon` it "
          "would wait for the end of it."),
    ARRAY(wire_plan_item, warnings, wire_warning, shape_warning, WIRE_WARNINGS_MAX,
          "What else is worth knowing."),
    AMOUNT(wire_plan_item, size_bytes, "Sum of the virtual sizes of the disks with a path."),
    AMOUNT(wire_plan_item, read_bytes, "Bytes expected to be read from them."),
    AMOUNT(wire_plan_item, copy_ms,
           "How long their copy is expected to take, with as many disks at once as the worker "
           "copies."),
    STRING(wire_plan_item, parent, OPTIONAL, 1, WIRE_NAME_MAX,
           "The VM's newest restore point in the repository."),
    AMOUNT(wire_plan_item, parent_stored_bytes, "Bytes that that one added to the repository."),
};
static const struct shape shape_plan_item = SHAPE(wire_plan_item, "plan-item", plan_item_fields);

/* A kind of items is a row here and a line in the rule below. */
static const struct shape_field item_list_fields[] = {
    ARRAY_PAIR(wire_item_list, vms, wire_vm_item, shape_vm_item, WIRE_PAGE_MAX, "VMs."),
    ARRAY_PAIR(wire_item_list, points, wire_point_item, shape_point_item, WIRE_PAGE_MAX,
               "Restore points."),
    ARRAY_PAIR(wire_item_list, requests, wire_request_item, shape_request_item, WIRE_PAGE_MAX,
               "Requests."),
    ARRAY_PAIR(wire_item_list, tasks, wire_task_item, shape_task_item, WIRE_PAGE_MAX, "Tasks."),
    ARRAY_PAIR(wire_item_list, workers, wire_worker_item, shape_worker_item, WIRE_PAGE_MAX,
               "Workers."),
    ARRAY_PAIR(wire_item_list, findings, wire_finding, shape_finding, WIRE_PAGE_MAX,
               "What a check-up found."),
    ARRAY_PAIR(wire_item_list, traces, wire_trace_item, shape_trace_item, WIRE_PAGE_MAX,
               "What was found in the engine and the repository."),
    ARRAY_PAIR(wire_item_list, gauges, wire_gauge_item, shape_gauge_item, WIRE_PAGE_MAX,
               "Numbers about the whole."),
    ARRAY_PAIR(wire_item_list, attempts, wire_attempt_item, shape_attempt_item, WIRE_PAGE_MAX,
               "Attempts of a task."),
    ARRAY_PAIR(wire_item_list, plans, wire_plan_item, shape_plan_item, WIRE_PAGE_MAX,
               "How backups would go."),
};

static const char *check_item_list(const void *message, const char **ret_member)
{
    (void)ret_member;
    int kinds = 0;
    for (size_t i = 0; i < ARRAY_LEN(item_list_fields); i++) {
        size_t count;
        memcpy(&count, (const char *)message + item_list_fields[i].count_offset, sizeof count);
        kinds += count > 0;
    }
    return kinds > 1 ? "holds items of more than one kind" : NULL;
}

/* Where one array holds something, all that come after it are empty. */
/* clang-format off */
#define EMPTY(name) "\"" name "\":{\"maxItems\":0}"
#define AFTER_ATTEMPTS EMPTY("plans")
#define AFTER_GAUGES   EMPTY("attempts") "," AFTER_ATTEMPTS
#define AFTER_TRACES   EMPTY("gauges") "," AFTER_GAUGES
#define AFTER_FINDINGS EMPTY("traces") "," AFTER_TRACES
#define AFTER_WORKERS  EMPTY("findings") "," AFTER_FINDINGS
#define AFTER_TASKS    EMPTY("workers") "," AFTER_WORKERS
#define AFTER_REQUESTS EMPTY("tasks") "," AFTER_TASKS
#define AFTER_POINTS   EMPTY("requests") "," AFTER_REQUESTS
#define AFTER_VMS      EMPTY("points") "," AFTER_POINTS
#define ALONE(name, after)                                                                         \
    "{\"if\":" GIVEN_ARRAY(name) ",\"then\":{\"properties\":{" after "}}}"
const struct shape shape_item_list = SHAPE_WITH_RULE(
    wire_item_list, "item-list", item_list_fields, check_item_list,
    "{\"allOf\":["
    ALONE("vms", AFTER_VMS) ","
    ALONE("points", AFTER_POINTS) ","
    ALONE("requests", AFTER_REQUESTS) ","
    ALONE("tasks", AFTER_TASKS) ","
    ALONE("workers", AFTER_WORKERS) ","
    ALONE("findings", AFTER_FINDINGS) ","
    ALONE("traces", AFTER_TRACES) ","
    ALONE("gauges", AFTER_GAUGES) ","
    ALONE("attempts", AFTER_ATTEMPTS)
    "]}");
/* clang-format on */

/* --- Requests -------------------------------------------------------------------------------- */
#define KEY_DOC                                                                                    \
    "The same key and kind twice is one job: the second is answered with the first one's request."
#define DEADLINE_DOC "Seconds a task may take from its first grant; 0 = the coordinator's default."

static const struct shape_field backup_fields[] = {
    STRING(wire_backup, idempotency_key, OPTIONAL, 1, WIRE_NAME_MAX, KEY_DOC),
    SLUG(wire_backup, zone, OPTIONAL, "Only VMs of this zone; absent = every zone."),
    OBJECT(wire_backup, select, REQUIRED, wire_select, shape_select, "Which VMs."),
    OBJECT(wire_backup, options, OPTIONAL, wire_backup_opts, shape_backup_opts, "How."),
    INT(wire_backup, deadline_s, OPTIONAL, 0, WIRE_DEADLINE_MAX_S, DEADLINE_DOC),
    BOOL(wire_backup, progress, "Send progress replies."),
};
const struct shape shape_wire_backup = SHAPE(wire_backup, "backup", backup_fields);

static const struct shape_field restore_fields[] = {
    STRING(wire_restore, idempotency_key, OPTIONAL, 1, WIRE_NAME_MAX, KEY_DOC),
    SLUG(wire_restore, zone, OPTIONAL, "Where; may be left out when there is one zone only."),
    OBJECT(wire_restore, options, REQUIRED, wire_restore_opts, shape_restore_opts,
           "What, and into what."),
    INT(wire_restore, deadline_s, OPTIONAL, 0, WIRE_DEADLINE_MAX_S, DEADLINE_DOC),
    BOOL(wire_restore, progress, "Send progress replies."),
};
const struct shape shape_wire_restore = SHAPE(wire_restore, "restore", restore_fields);

static const struct shape_field export_fields[] = {
    STRING(wire_export, idempotency_key, OPTIONAL, 1, WIRE_NAME_MAX, KEY_DOC),
    SLUG(wire_export, zone, OPTIONAL, "Only VMs of this zone; absent = every zone."),
    OBJECT(wire_export, select, REQUIRED, wire_select, shape_select, "Which VMs."),
    OBJECT(wire_export, options, REQUIRED, wire_export_opts, shape_export_opts, "Where to."),
    INT(wire_export, deadline_s, OPTIONAL, 0, WIRE_DEADLINE_MAX_S, DEADLINE_DOC),
    BOOL(wire_export, progress, "Send progress replies."),
};
const struct shape shape_wire_export = SHAPE(wire_export, "export", export_fields);

static const struct shape_field inventory_fields[] = {
    SLUG(wire_inventory, zone, OPTIONAL, "Only this zone; absent = every zone."),
    STRING(wire_inventory, search, OPTIONAL, 1, WIRE_TEXT_MAX,
           "An expression of the engine's search language; absent = all VMs."),
};
const struct shape shape_wire_inventory = SHAPE(wire_inventory, "inventory", inventory_fields);

static const struct shape_field list_fields[] = {
    SLUG(wire_list, zone, OPTIONAL, "Whose repository; absent = every zone's."),
    STRING(wire_list, vm, OPTIONAL, 1, WIRE_NAME_MAX,
           "Only restore points of this VM (id or name); absent = all."),
};
const struct shape shape_wire_list = SHAPE(wire_list, "list", list_fields);

static const struct shape_field status_fields[] = {
    UUID(wire_status, request, OPTIONAL,
         "This request and its tasks; or, by a task's id, this task and its attempts; absent = the "
         "newest requests, the workers and the gauges."),
    INT(wire_status, limit, OPTIONAL, 0, 1000, "At most so many requests; 0 = 50."),
};
const struct shape shape_wire_status = SHAPE(wire_status, "status", status_fields);

static const char *check_cancel(const void *message, const char **ret_member)
{
    const struct wire_cancel *c = message;
    (void)ret_member;
    return !c->request == !c->task ? "needs exactly one of request and task" : NULL;
}

static const struct shape_field cancel_fields[] = {
    UUID(wire_cancel, request, OPTIONAL, "Cancel all tasks of this request; or:"),
    UUID(wire_cancel, task, OPTIONAL, "Cancel this task."),
};
const struct shape shape_wire_cancel =
    SHAPE_WITH_RULE(wire_cancel, "cancel", cancel_fields, check_cancel, ONE_OF("request", "task"));

static const struct shape_field doctor_fields[] = {
    SLUG(wire_doctor, worker, OPTIONAL, "Only this worker; absent = all that are known."),
    INT(wire_doctor, limit_s, OPTIONAL, 0, WIRE_CHECKUP_MAX_S,
        "Seconds that a worker may take; 0 = 60."),
};
const struct shape shape_wire_doctor = SHAPE(wire_doctor, "doctor", doctor_fields);
static const struct shape_field plan_fields[] = {
    SLUG(wire_plan, zone, OPTIONAL, "Only VMs of this zone; absent = every zone."),
    OBJECT(wire_plan, select, REQUIRED, wire_select, shape_select, "Which VMs, as for a backup."),
    OBJECT(wire_plan, options, OPTIONAL, wire_backup_opts, shape_backup_opts,
           "How they would be backed up."),
};
const struct shape shape_wire_plan = SHAPE(wire_plan, "plan", plan_fields);

static const struct shape_field sweep_fields[] = {
    SLUG(wire_sweep, zone, OPTIONAL, "Only this zone; absent = every zone."),
    BOOL(wire_sweep, dry_run, "Only tell what there is; open no clean-up."),
};
const struct shape shape_wire_sweep = SHAPE(wire_sweep, "sweep", sweep_fields);

static const char *check_policy(const void *message, const char **ret_member)
{
    const struct wire_policy *p = message;
    (void)ret_member;
    if (p->last || p->hourly || p->daily || p->weekly || p->monthly || p->yearly)
        return NULL;
    return "keeps nothing: give at least one of last, hourly, daily, weekly, monthly, yearly";
}

#define KEEP(member, doc) INT(wire_policy, member, OPTIONAL, 0, WIRE_KEEP_MAX, doc)
static const struct shape_field policy_fields[] = {
    KEEP(last, "Keep the newest n points of each VM. What several rules keep is kept once."),
    KEEP(hourly, "Keep the newest good point of each of the last n hours that have one."),
    KEEP(daily, "The same for days."),
    KEEP(weekly, "The same for weeks, which begin on Monday."),
    KEEP(monthly, "The same for months."),
    KEEP(yearly, "The same for years."),
    STRING(wire_policy, timezone, OPTIONAL, 1, 16,
           "Where hours and days begin: `UTC` (default), `local` (the worker's), or an offset such "
           "as `+02:00`."),
};
#define KEEPS(name)                                                                                \
    "{\"required\":[\"" name "\"],\"properties\":{\"" name                                         \
    "\":{\"type\":\"integer\",\"minimum\":1}}}"
static const struct shape shape_policy =
    SHAPE_WITH_RULE(wire_policy, "policy", policy_fields, check_policy,
                    "{\"anyOf\":[" KEEPS("last") "," KEEPS("hourly") "," KEEPS("daily") "," KEEPS(
                        "weekly") "," KEEPS("monthly") "," KEEPS("yearly") "]}");

static const struct shape_field prune_fields[] = {
    SLUG(wire_prune, zone, OPTIONAL, "Whose repository; absent = every zone's."),
    STRINGS(wire_prune, vms, WIRE_SELECT_MAX, WIRE_NAME_MAX,
            "Only points of these VMs (ids or names); absent = all."),
    OBJECT(wire_prune, policy, OPTIONAL, wire_policy, shape_policy,
           "What to keep; absent = delete nothing, only free space."),
    BOOL(wire_prune, dry_run, "Only tell what would be deleted and freed."),
};
const struct shape shape_wire_prune = SHAPE(wire_prune, "prune", prune_fields);

static const struct shape_field verify_fields[] = {
    SLUG(wire_verify, zone, OPTIONAL, "Whose repository; absent = every zone's."),
    STRING(wire_verify, vm, OPTIONAL, 1, WIRE_NAME_MAX,
           "Only points of this VM (id or name), in full."),
    STRING(wire_verify, point, OPTIONAL, 1, WIRE_NAME_MAX, "Only this point, in full."),
    INT(wire_verify, share, OPTIONAL, 0, WIRE_SHARE_MAX,
        "Without `vm` and `point`: read one part in so many of all data, from where the last one "
        "stopped; 0 = all."),
    INT(wire_verify, limit_mibs, OPTIONAL, 0, 1 << 20,
        "MiB a second that may be read, for a share; 0 = no limit."),
};
const struct shape shape_wire_verify = SHAPE(wire_verify, "verify", verify_fields);

/* --- Replies --------------------------------------------------------------------------------- */
static const struct shape_field accepted_fields[] = {
    UUID(wire_accepted, request, REQUIRED, "The request's id, by which it is known from now on."),
    BOOL(wire_accepted, duplicate,
         "The idempotency key was known: `request` is the earlier request."),
};
const struct shape shape_wire_accepted = SHAPE(wire_accepted, "accepted", accepted_fields);

static const struct shape_field refused_fields[] = {
    UUID(wire_refused, request, OPTIONAL, "Absent when the message could not be read that far."),
    OBJECT(wire_refused, error, REQUIRED, wire_error, shape_error, "Why."),
};
const struct shape shape_wire_refused = SHAPE(wire_refused, "refused", refused_fields);

static const struct shape_field progress_fields[] = {
    UUID(wire_progress, request, REQUIRED, "The request."),
    UUID(wire_progress, task, REQUIRED, "The task."),
    WORDS(wire_progress, kind, REQUIRED, reply_kinds, "The task's kind."),
    STRING(wire_progress, vm, OPTIONAL, 1, WIRE_NAME_MAX, "Id of the task's VM."),
    STRING(wire_progress, vm_name, OPTIONAL, 1, WIRE_NAME_MAX, "Name of the task's VM."),
    SLUG(wire_progress, worker, OPTIONAL, "Who runs it; absent while it waits."),
    WORDS(wire_progress, state, REQUIRED, state_words, "How it stands."),
    STRING(wire_progress, step, OPTIONAL, 1, 64, "The step it is in."),
    INT(wire_progress, attempt, OPTIONAL, 0, SHAPE_INT_MAX, "Which attempt, from 1."),
    AMOUNT(wire_progress, bytes_done, "Copied so far."),
    AMOUNT(wire_progress, bytes_total, "To copy; 0 before the copy began."),
    AMOUNT(wire_progress, rate_bps, "Bytes per second, lately."),
    AMOUNT(wire_progress, tasks_total, "Tasks of the request; may grow while zones are asked."),
    AMOUNT(wire_progress, tasks_done, "Tasks of the request that ended."),
    AMOUNT(wire_progress, wait_ms, WAIT_DOC),
    AMOUNT(wire_progress, attempts_max, ATTEMPTS_DOC),
    OBJECT(wire_progress, error, OPTIONAL, wire_error, shape_error,
           "While it waits: why the last attempt ended."),
};
const struct shape shape_wire_progress = SHAPE(wire_progress, "progress", progress_fields);

static const struct shape_field outcome_fields[] = {
    UUID(wire_outcome, request, REQUIRED, "The request."),
    UUID(wire_outcome, task, REQUIRED, "The task."),
    WORDS(wire_outcome, kind, REQUIRED, reply_kinds, "The task's kind."),
    STRING(wire_outcome, vm, OPTIONAL, 1, WIRE_NAME_MAX, "Id of the task's VM."),
    STRING(wire_outcome, vm_name, OPTIONAL, 1, WIRE_NAME_MAX, "Name of the task's VM."),
    SLUG(wire_outcome, worker, OPTIONAL, "Who ran it last."),
    WORDS(wire_outcome, status, REQUIRED, end_words, "How it ended."),
    INT(wire_outcome, attempts, OPTIONAL, 0, SHAPE_INT_MAX, "Attempts it took."),
    STRING(wire_outcome, point, OPTIONAL, 1, WIRE_NAME_MAX,
           "Backup: the new restore point. Restore: the one that was restored."),
    STRING(wire_outcome, new_vm, OPTIONAL, 1, WIRE_NAME_MAX, "Restore: id of the VM made."),
    STRING(wire_outcome, exported, OPTIONAL, 1, WIRE_TEXT_MAX,
           "Export: where it is: `HOST:PATH` of the OVA, or `DOMAIN:NAME`."),
    OBJECT(wire_outcome, error, OPTIONAL, wire_error, shape_error, "Why it failed."),
    ARRAY(wire_outcome, warnings, wire_warning, shape_warning, WIRE_WARNINGS_MAX,
          "What did not go as asked although the task succeeded."),
    OBJECT(wire_outcome, stats, OPTIONAL, wire_stats, shape_stats, "Times and bytes."),
    BOOL(wire_outcome, cleanup_open,
         "Something is left behind in the engine, and a clean-up task is at work on it."),
};
const struct shape shape_wire_outcome = SHAPE(wire_outcome, "outcome", outcome_fields);

static const struct shape_field page_fields[] = {
    UUID(wire_page, request, REQUIRED, "The request."),
    INT(wire_page, page, REQUIRED, 1, SHAPE_INT_MAX, "Which page, from 1."),
    OBJECT(wire_page, items, REQUIRED, wire_item_list, shape_item_list, "One kind of items."),
};
const struct shape shape_wire_page = SHAPE(wire_page, "page", page_fields);

static const struct shape_field finished_fields[] = {
    UUID(wire_finished, request, REQUIRED, "The request."),
    WORDS(wire_finished, kind, REQUIRED, request_kinds, "What was asked."),
    WORDS(wire_finished, status, REQUIRED, request_end_words,
          "How it ended; partly = some tasks succeeded, some did not."),
    AMOUNT(wire_finished, tasks_total, "Its tasks."),
    AMOUNT(wire_finished, tasks_succeeded, "Of these."),
    AMOUNT(wire_finished, tasks_failed, "Of these."),
    AMOUNT(wire_finished, tasks_cancelled, "Of these."),
    AMOUNT(wire_finished, pages, "Page replies sent before this one."),
    OBJECT(wire_finished, error, OPTIONAL, wire_error, shape_error,
           "A fault of the request as a whole."),
};
const struct shape shape_wire_finished = SHAPE(wire_finished, "finished", finished_fields);

/* SPDX-License-Identifier: Apache-2.0 */
/* One table of members per struct of message.h: offers, events and control, and their parts. What
 * the columns mean: shape.h. */
#include <string.h>

#include "proto/wire/shapes.h"

const char *const shape_lanes[] = {"restore", "backup", "upkeep", NULL};
static const char *const step_states[] = {"started",     "done",   "failed", "undone",
                                          "undo-failed", "handle", NULL};
static const char *const result_words[] = {"succeeded", "failed", "cancelled", "released", NULL};
static const char *const presence_states[] = {"up", "draining", "leaving", NULL};
static const char *const leftover_kinds[] = {"snapshot",        "attachment", "transfer", "backup",
                                             "backup-snapshot", "disk",       "vm",       "clone",
                                             "session",         "part",       NULL};

/* Members that most of these share. */
#define TASK(tag)    UUID(tag, task, REQUIRED, "The task.")
#define WORKER(tag)  SLUG(tag, worker, REQUIRED, "The worker.")
#define ATTEMPT(tag) INT(tag, attempt, REQUIRED, 1, SHAPE_INT_MAX, "Which attempt, from 1.")
#define FENCE(tag)                                                                                 \
    INT(tag, fence, REQUIRED, 0, SHAPE_INT_MAX, "The fence number of the grant for this attempt.")

/* --- Parts ----------------------------------------------------------------------------------- */
static const struct shape_field journal_fields[] = {
    ATTEMPT(wire_journal_entry),
    FENCE(wire_journal_entry),
    SLUG(wire_journal_entry, worker, REQUIRED, "Who ran it."),
    STRING(wire_journal_entry, step, REQUIRED, 1, 64, "The step."),
    WORDS(wire_journal_entry, state, REQUIRED, step_states, "What became of it."),
    HANDLES(wire_journal_entry, handles, "What it left, by name."),
};
static const struct shape shape_journal =
    SHAPE(wire_journal_entry, "journal-entry", journal_fields);

static const char *check_leftover(const void *message, const char **ret_member)
{
    const struct wire_leftover *l = message;
    if (strcmp(l->kind, "vm") != 0 && !l->id) {
        *ret_member = "id";
        return "is missing";
    }
    bool hangs_on_none = strcmp(l->kind, "disk") == 0 || strcmp(l->kind, "session") == 0 ||
                         strcmp(l->kind, "transfer") == 0 || strcmp(l->kind, "part") == 0;
    if (!hangs_on_none && !l->vm) {
        *ret_member = "vm";
        return "is missing";
    }
    return NULL;
}

static const struct shape_field leftover_fields[] = {
    WORDS(wire_leftover, kind, REQUIRED, leftover_kinds, "What it is."),
    STRING(wire_leftover, vm, OPTIONAL, 1, WIRE_NAME_MAX,
           "Id of the VM it hangs on (attachment: the proxy VM; vm, clone: its own id, or `*` for "
           "a clone that "
           "may be there under its name)."),
    STRING(wire_leftover, id, OPTIONAL, 1, WIRE_NAME_MAX,
           "Id of the snapshot, disk, image transfer or backup of the engine; name of the clone or "
           "of the "
           "repository session."),
};
/* Kinds other than these need the member. */
#define UNLESS_NEEDS(kinds, member)                                                                \
    "{\"if\":{\"properties\":{\"kind\":{\"enum\":[" kinds                                          \
    "]}}},\"else\":" GIVEN(member, "string") "}"
static const struct shape shape_leftover =
    SHAPE_WITH_RULE(wire_leftover, "leftover", leftover_fields, check_leftover,
                    "{\"allOf\":[" UNLESS_NEEDS("\"vm\"", "id") "," UNLESS_NEEDS(
                        "\"disk\",\"session\",\"transfer\",\"part\"", "vm") "]}");

static const struct shape_field running_fields[] = {
    TASK(wire_running),
    FENCE(wire_running),
};
static const struct shape shape_running = SHAPE(wire_running, "running", running_fields);

/* --- Parts of a task that other workers do --------------------------------------------------- */
static const char *const piece_paths[] = {"attach", "imageio", NULL};
static const char *const part_states[] = {"waiting", "running",   "succeeded",
                                          "failed",  "cancelled", NULL};

static const struct shape_field piece_fields[] = {
    STRING(wire_piece, disk, REQUIRED, 1, WIRE_NAME_MAX,
           "Id of the disk in the engine; restore: of the new one."),
    STRING(wire_piece, from, OPTIONAL, 1, WIRE_NAME_MAX,
           "Restore: id of the disk in the restore point."),
    STRING(wire_piece, image, OPTIONAL, 1, WIRE_NAME_MAX,
           "Backup: id of the disk's volume in the snapshot, for image transfers."),
    WORDS(wire_piece, path, REQUIRED, piece_paths, "The way the bytes go."),
    INT(wire_piece, size_bytes, REQUIRED, 1, SHAPE_INT_MAX, "Virtual size of the disk."),
    INT(wire_piece, offset, REQUIRED, 0, SHAPE_INT_MAX, "Where in the disk it begins."),
    INT(wire_piece, length, REQUIRED, 1, SHAPE_INT_MAX, "How long it is, in bytes."),
};
static const struct shape shape_piece = SHAPE(wire_piece, "piece", piece_fields);

static const char *check_part(const void *message, const char **ret_member)
{
    const struct wire_part *p = message;
    if (!p->pieces.count) {
        *ret_member = "pieces";
        return "is missing";
    }
    return !p->snapshot == !p->point ? "needs exactly one of snapshot and point" : NULL;
}

#define PART_N(tag) INT(tag, n, REQUIRED, 1, WIRE_PARTS_MAX, "Which part of that task, from 1.")
static const struct shape_field part_fields[] = {
    UUID(wire_part, of, REQUIRED, "The task that gives it away."),
    PART_N(wire_part),
    STRING(wire_part, snapshot, OPTIONAL, 1, WIRE_NAME_MAX,
           "Backup: id of the snapshot to read, which belongs to that task."),
    STRING(wire_part, point, OPTIONAL, 1, WIRE_NAME_MAX,
           "Restore: id of the restore point to read."),
    ARRAY(wire_part, pieces, wire_piece, shape_piece, WIRE_PIECES_MAX, "What to copy."),
};
static const struct shape shape_part =
    SHAPE_WITH_RULE(wire_part, "part", part_fields, check_part,
                    "{\"allOf\":[" GIVEN_ARRAY("pieces") ",{\"oneOf\":[" GIVEN(
                        "snapshot", "string") "," GIVEN("point", "string") "]}]}");

static const struct shape_field part_state_fields[] = {
    PART_N(wire_part_state),
    UUID(wire_part_state, task, REQUIRED, "The part's own task."),
    WORDS(wire_part_state, state, REQUIRED, part_states, "How it stands."),
    SLUG(wire_part_state, worker, OPTIONAL, "Who does it, or did; absent while it waits."),
    INT(wire_part_state, fence, OPTIONAL, 0, SHAPE_INT_MAX,
        "Of its grant; its session in the repository is `<task>.<fence>`. 0 = nobody took it."),
    STRING(wire_part_state, point, OPTIONAL, 1, WIRE_NAME_MAX,
           "Backup: the restore point that holds what was copied, once it has succeeded."),
    AMOUNT(wire_part_state, bytes_done, "Copied so far."),
    AMOUNT(wire_part_state, bytes_total, "To copy."),
    OBJECT(wire_part_state, stats, OPTIONAL, wire_stats, shape_stats,
           "Times and bytes, once it has succeeded."),
    OBJECT(wire_part_state, error, OPTIONAL, wire_error, shape_error, "Why it failed."),
    BOOL(wire_part_state, cleanup_open,
         "It has ended, and what it left behind (an attachment, a transfer) is not removed yet."),
};
static const struct shape shape_part_state =
    SHAPE(wire_part_state, "part-state", part_state_fields);

/* --- Offer ----------------------------------------------------------------------------------- */
static const char *check_offer(const void *message, const char **ret_member)
{
    const struct wire_offer *o = message;
    const struct {
        const char *kind, *member;
        bool given;
    } needs[] = {
        {"backup", "vm", o->vm != NULL},
        {"restore", "restore", o->restore != NULL},
        {"export", "vm", o->vm != NULL},
        {"export", "export", o->export != NULL},
        {"inventory", "select", o->select != NULL},
        {"prune", "prune", o->prune != NULL},
        {"verify", "verify", o->verify != NULL},
        {"plan", "plan", o->plan != NULL},
        {"cleanup", "cleanup", o->cleanup.count > 0},
        {"cleanup", "cleanup_task", o->cleanup_task != NULL},
        {"backup-part", "vm", o->vm != NULL},
        {"backup-part", "part", o->part != NULL},
        {"restore-part", "part", o->part != NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(needs); i++) {
        if (strcmp(o->kind, needs[i].kind) == 0 && !needs[i].given) {
            *ret_member = needs[i].member;
            return "is missing, this kind of task needs it";
        }
    }
    return NULL;
}

static const struct shape_field rate_fields[] = {
    STRING(wire_rate, path, REQUIRED, 1, 16, "attach, imageio, cbt or hybrid."),
    INT(wire_rate, bytes_per_s, REQUIRED, 1, SHAPE_INT_MAX, "Bytes a second of one disk."),
    INT(wire_rate, samples, REQUIRED, 1, SHAPE_INT_MAX, "How many backups it follows from."),
};
static const struct shape shape_rate = SHAPE(wire_rate, "rate", rate_fields);

static const struct shape_field offer_fields[] = {
    TASK(wire_offer),
    UUID(wire_offer, request, OPTIONAL, "The request it belongs to."),
    WORDS(wire_offer, kind, REQUIRED, shape_task_kinds, "What to do."),
    SLUG(wire_offer, zone, REQUIRED, "Where."),
    WORDS(wire_offer, lane, REQUIRED, shape_lanes, "In which lane."),
    ATTEMPT(wire_offer),
    STRING(wire_offer, vm, OPTIONAL, 1, WIRE_NAME_MAX,
           "Id of the VM; backup, backup-part and export need it."),
    STRING(wire_offer, vm_name, OPTIONAL, 1, WIRE_NAME_MAX, "Its name, for people."),
    INT(wire_offer, deadline_s, OPTIONAL, 0, WIRE_DEADLINE_MAX_S,
        "Seconds it may take from its first grant; 0 = no limit."),
    OBJECT(wire_offer, backup, OPTIONAL, wire_backup_opts, shape_backup_opts,
           "How to back up; absent = defaults."),
    OBJECT(wire_offer, restore, OPTIONAL, wire_restore_opts, shape_restore_opts,
           "Restore: what, and into what."),
    OBJECT(wire_offer, export, OPTIONAL, wire_export_opts, shape_export_opts, "Export: where to."),
    OBJECT(wire_offer, select, OPTIONAL, wire_select, shape_select, "Inventory: which VMs."),
    OBJECT(wire_offer, list, OPTIONAL, wire_list, shape_wire_list,
           "List: which restore points; absent = all."),
    OBJECT(wire_offer, prune, OPTIONAL, wire_prune, shape_wire_prune, "Prune: what, and how."),
    OBJECT(wire_offer, verify, OPTIONAL, wire_verify, shape_wire_verify, "Verify: what."),
    OBJECT(wire_offer, plan, OPTIONAL, wire_plan, shape_wire_plan, "Plan: which VMs, and how."),
    OBJECT(wire_offer, part, OPTIONAL, wire_part, shape_part,
           "backup-part, restore-part: what to copy, for which task."),
    STRINGS(wire_offer, proxies, WIRE_SELECT_MAX, WIRE_NAME_MAX,
            "Plan: VMs (ids or names) that workers run in; left out unless they are named."),
    ARRAY(wire_offer, rates, wire_rate, shape_rate, WIRE_PATHS_MAX,
          "Backup, plan: what was measured of each path in the zone."),
    ARRAY(wire_offer, cleanup, wire_leftover, shape_leftover, WIRE_LEFTOVERS_MAX,
          "Clean-up: what to remove."),
    UUID(wire_offer, cleanup_task, OPTIONAL, "Clean-up: the task that left it."),
    ARRAY(wire_offer, journal, wire_journal_entry, shape_journal, WIRE_JOURNAL_MAX,
          "What earlier attempts did, oldest first."),
};
#define KIND_NEEDS(kind, rest)                                                                     \
    "{\"if\":{\"properties\":{\"kind\":{\"const\":\"" kind "\"}}},\"then\":" rest "}"
/* clang-format off */
const struct shape shape_wire_offer = SHAPE_WITH_RULE(
    wire_offer, "offer", offer_fields, check_offer,
    "{\"allOf\":["
    KIND_NEEDS("backup", GIVEN("vm", "string")) ","
    KIND_NEEDS("export", GIVEN("vm", "string")) ","
    KIND_NEEDS("export", GIVEN("export", "object")) ","
    KIND_NEEDS("restore", GIVEN("restore", "object")) ","
    KIND_NEEDS("inventory", GIVEN("select", "object")) ","
    KIND_NEEDS("prune", GIVEN("prune", "object")) ","
    KIND_NEEDS("verify", GIVEN("verify", "object")) ","
    KIND_NEEDS("plan", GIVEN("plan", "object")) ","
    KIND_NEEDS("cleanup", GIVEN_ARRAY("cleanup")) ","
    KIND_NEEDS("cleanup", GIVEN("cleanup_task", "string")) ","
    KIND_NEEDS("backup-part", GIVEN("vm", "string")) ","
    KIND_NEEDS("backup-part", GIVEN("part", "object")) ","
    KIND_NEEDS("restore-part", GIVEN("part", "object"))
    "]}");
/* clang-format on */

/* --- Events ---------------------------------------------------------------------------------- */
static const struct shape_field claim_fields[] = {
    TASK(wire_claim),
    WORKER(wire_claim),
    ATTEMPT(wire_claim),
    INT(wire_claim, fence, OPTIONAL, 0, SHAPE_INT_MAX,
        "0 for a new claim; the known fence to confirm a lease after an outage."),
};
const struct shape shape_wire_claim = SHAPE(wire_claim, "claim", claim_fields);

static const struct shape_field step_fields[] = {
    TASK(wire_step),
    WORKER(wire_step),
    ATTEMPT(wire_step),
    FENCE(wire_step),
    INT(wire_step, seq, REQUIRED, 0, SHAPE_INT_MAX, "Rises by one within an attempt."),
    STRING(wire_step, step, REQUIRED, 1, 64, "The step."),
    WORDS(wire_step, state, REQUIRED, step_states,
          "What became of it; handle = it has just made something."),
    HANDLES(wire_step, handles, "All that the attempt holds so far, by name."),
    OBJECT(wire_step, error, OPTIONAL, wire_error, shape_error, "Why it failed."),
    AMOUNT(wire_step, duration_ms, "How long it took."),
};
const struct shape shape_wire_step = SHAPE(wire_step, "step", step_fields);

static const struct shape_field copying_fields[] = {
    TASK(wire_copying),
    WORKER(wire_copying),
    STRING(wire_copying, step, OPTIONAL, 1, 64, "The step."),
    ATTEMPT(wire_copying),
    FENCE(wire_copying),
    AMOUNT(wire_copying, bytes_done, "Copied so far."),
    AMOUNT(wire_copying, bytes_total, "To copy."),
    AMOUNT(wire_copying, rate_bps, "Bytes per second, lately."),
};
const struct shape shape_wire_copying = SHAPE(wire_copying, "copying", copying_fields);

static const struct shape_field parts_fields[] = {
    TASK(wire_parts),
    WORKER(wire_parts),
    ATTEMPT(wire_parts),
    FENCE(wire_parts),
    ARRAY(wire_parts, parts, wire_part, shape_part, WIRE_PARTS_MAX,
          "What to give to other workers; a number that is known already changes nothing."),
    INTS(wire_parts, withdraw, WIRE_PARTS_MAX, WIRE_PARTS_MAX,
         "Parts (by number) that need not be done any more."),
};
const struct shape shape_wire_parts = SHAPE(wire_parts, "parts", parts_fields);

static const struct shape_field items_fields[] = {
    TASK(wire_items),
    WORKER(wire_items),
    ATTEMPT(wire_items),
    FENCE(wire_items),
    INT(wire_items, page, REQUIRED, 1, SHAPE_INT_MAX, "Which page, from 1."),
    OBJECT(wire_items, items, REQUIRED, wire_item_list, shape_item_list, "One kind of items."),
};
const struct shape shape_wire_items = SHAPE(wire_items, "items", items_fields);

static const struct shape_field result_fields[] = {
    TASK(wire_result),
    WORKER(wire_result),
    ATTEMPT(wire_result),
    FENCE(wire_result),
    WORDS(wire_result, status, REQUIRED, result_words,
          "How it ended; released = given back untouched."),
    OBJECT(wire_result, error, OPTIONAL, wire_error, shape_error, "Why it failed."),
    ARRAY(wire_result, warnings, wire_warning, shape_warning, WIRE_WARNINGS_MAX,
          "What did not go as asked although it succeeded."),
    STRING(wire_result, point, OPTIONAL, 1, WIRE_NAME_MAX, "The restore point."),
    STRING(wire_result, new_vm, OPTIONAL, 1, WIRE_NAME_MAX, "Restore: id of the VM made."),
    STRING(wire_result, exported, OPTIONAL, 1, WIRE_TEXT_MAX, "Export: where it is now."),
    OBJECT(wire_result, stats, OPTIONAL, wire_stats, shape_stats, "Times and bytes."),
    ARRAY(wire_result, leftovers, wire_leftover, shape_leftover, WIRE_LEFTOVERS_MAX,
          "What could not be cleaned up."),
    AMOUNT(wire_result, pages, "Listings: items messages sent."),
};
const struct shape shape_wire_result = SHAPE(wire_result, "result", result_fields);

static const struct shape_field presence_fields[] = {
    WORKER(wire_presence),
    SLUG(wire_presence, zone, REQUIRED, "The zone it serves."),
    STRING(wire_presence, version, OPTIONAL, 0, 64, "Its version."),
    STRING(wire_presence, host, OPTIONAL, 0, WIRE_NAME_MAX, "The machine it runs on."),
    STRING(wire_presence, proxy, OPTIONAL, 0, WIRE_NAME_MAX,
           "The proxy VM it runs in, by name or id: left out of backups that do not name it."),
    WORDS(wire_presence, state, REQUIRED, presence_states, "How it stands."),
    INT(wire_presence, slots_restore, OPTIONAL, 0, 1000, "Slots of the restore lane."),
    INT(wire_presence, slots_backup, OPTIONAL, 0, 1000, "Slots of the backup lane."),
    INT(wire_presence, slots_upkeep, OPTIONAL, 0, 1000, "Slots of the upkeep lane."),
    ARRAY_PAIR(wire_presence, running, wire_running, shape_running, WIRE_RUNNING_MAX,
               "What it runs; renews each of these leases."),
};
const struct shape shape_wire_presence = SHAPE(wire_presence, "presence", presence_fields);

static const struct shape_field checked_fields[] = {
    UUID(wire_checked, request, REQUIRED, "The check-up's request."),
    WORKER(wire_checked),
    STRING(wire_checked, repository, OPTIONAL, 1, 64,
           "Id of its repository; absent = it could not be read."),
    ARRAY(wire_checked, findings, wire_finding, shape_finding, WIRE_PAGE_MAX, "What it found."),
};
const struct shape shape_wire_checked = SHAPE(wire_checked, "checked", checked_fields);

/* --- Control --------------------------------------------------------------------------------- */
static const struct shape_field grant_fields[] = {
    TASK(wire_grant),
    WORKER(wire_grant),
    ATTEMPT(wire_grant),
    INT(wire_grant, fence, REQUIRED, 1, SHAPE_INT_MAX, "Rises with every grant for the VM."),
    INT(wire_grant, lease_s, REQUIRED, 1, 86400,
        "Seconds without a confirmed sign of life after which the worker changes nothing more."),
};
const struct shape shape_wire_grant = SHAPE(wire_grant, "grant", grant_fields);

static const struct shape_field deny_fields[] = {
    TASK(wire_deny),
    WORKER(wire_deny),
    ATTEMPT(wire_deny),
    TEXT(wire_deny, reason, OPTIONAL, WIRE_TEXT_MAX, "Why, for people."),
};
const struct shape shape_wire_deny = SHAPE(wire_deny, "deny", deny_fields);

static const struct shape_field stop_fields[] = {
    TASK(wire_stop),
    WORKER(wire_stop),
    TEXT(wire_stop, reason, OPTIONAL, WIRE_TEXT_MAX, "Why, for people."),
};
const struct shape shape_wire_stop = SHAPE(wire_stop, "stop", stop_fields);

static const struct shape_field parted_fields[] = {
    TASK(wire_parted),
    WORKER(wire_parted),
    ATTEMPT(wire_parted),
    INT(wire_parted, fence, REQUIRED, 1, SHAPE_INT_MAX,
        "Of the grant under which they were given."),
    ARRAY(wire_parted, states, wire_part_state, shape_part_state, WIRE_PARTS_MAX,
          "All parts that this grant gave away, by number."),
};
const struct shape shape_wire_parted = SHAPE(wire_parted, "parted", parted_fields);

static const struct shape_field drain_fields[] = {
    SLUG(wire_drain, worker, OPTIONAL, "Whom it means; absent = whoever gets it."),
};
const struct shape shape_wire_drain = SHAPE(wire_drain, "drain", drain_fields);

static const struct shape_field checkup_fields[] = {
    UUID(wire_checkup, request, REQUIRED, "The check-up's request."),
    WORKER(wire_checkup),
    INT(wire_checkup, limit_s, REQUIRED, 1, WIRE_CHECKUP_MAX_S,
        "Seconds until the answer is due, with whatever is known by then."),
};
const struct shape shape_wire_checkup = SHAPE(wire_checkup, "checkup", checkup_fields);

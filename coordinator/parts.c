/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/parts.h"

#include <inttypes.h>
#include <string.h>

#include "coordinator/admission.h"
#include "coordinator/lease.h"
#include "coordinator/leftovers.h"
#include "coordinator/outgoing.h"
#include "coordinator/plan.h"

static bool is(const char *a, const char *b)
{
    return a && b && strcmp(a, b) == 0;
}

/* --- How they stand --------------------------------------------------------------------------- */
/* States under construction; they borrow from `tasks`. */
struct states {
    struct task_list tasks;
    struct wire_message *results; /* of each task, decoded; zeroed = none */
    struct wire_error *errors;
    struct wire_part_state *v;
};

static void states_done(struct states *s)
{
    for (size_t i = 0; s->results && i < s->tasks.count; i++)
        wire_free(&s->results[i]);
    free(s->results);
    free(s->errors);
    free(s->v);
    task_list_done(&s->tasks);
}
#define SCOPED_STATES __attribute__((cleanup(states_done), unused))

static const char *state_word(const struct task *part)
{
    return part->state == TASK_OFFERED ? "waiting" : task_state_name(part->state);
}

static bool fill_state(struct core *core, struct states *s, size_t i, struct err *err)
{
    const struct task *t = &s->tasks.v[i];
    const struct lease *lease = lease_find(core->leases, t->id);
    SCOPED_TASK struct task cleanup = {0};
    if (!ledger_task_cleanup_of(core->ledger, t->id, &cleanup, err))
        return false;
    struct err unreadable = ERR_INIT;
    if (t->result && !wire_decode(wire_type_name(WIRE_RESULT), t->result, strlen(t->result),
                                  &s->results[i], &unreadable))
        log_err(LOG_LEVEL_ERROR, "result_unreadable", &unreadable);
    const struct wire_result *result = s->results[i].as;
    s->v[i] = (struct wire_part_state){
        .n = t->part_n,
        .task = t->id,
        .state = (char *)(uintptr_t)state_word(t),
        .worker = t->worker,
        .fence = t->fence,
        .point = t->point,
        .bytes_done = lease ? lease->bytes_done : t->bytes_done,
        .bytes_total = lease ? lease->bytes_total : t->bytes_total,
        .stats = result ? result->stats : NULL,
        .error = work_wire_error(&t->error, &s->errors[i]) ? &s->errors[i] : NULL,
        .cleanup_open = cleanup.id != NULL,
    };
    return true;
}

static bool tell(struct core *core, const struct task *main_task, struct err *err)
{
    SCOPED_STATES struct states s = {0};
    if (!ledger_task_parts(core->ledger, main_task->id, main_task->fence, &s.tasks, err))
        return false;
    s.results = xcalloc(s.tasks.count + 1, sizeof *s.results);
    s.errors = xcalloc(s.tasks.count + 1, sizeof *s.errors);
    s.v = xcalloc(s.tasks.count + 1, sizeof *s.v);
    for (size_t i = 0; i < s.tasks.count; i++) {
        if (!fill_state(core, &s, i, err))
            return false;
    }
    const struct wire_parted m = {
        .task = main_task->id,
        .worker = main_task->worker,
        .attempt = main_task->attempt,
        .fence = main_task->fence,
        .states = {.v = s.v, .count = s.tasks.count},
    };
    return outgoing_parted(core, &m, main_task->request, err);
}

/* The main task, if it still runs the attempt that gave the part away; else `ret` is zeroed. */
static bool get_owner(struct core *core, const struct task *part, struct task *ret, struct err *err)
{
    if (!ledger_task_get(core->ledger, part->part_of, ret, err))
        return false;
    if (ret->id && (ret->state != TASK_RUNNING || ret->fence != part->part_fence))
        task_done(ret);
    return true;
}

bool parts_tell(struct core *core, const struct task *part, struct err *err)
{
    if (part->role != TASK_PART)
        return true;
    SCOPED_TASK struct task owner = {0};
    return get_owner(core, part, &owner, err) && (!owner.id || tell(core, &owner, err));
}

bool parts_sum_of(struct core *core, const struct task *main_task, struct parts_sum *ret,
                  struct err *err)
{
    *ret = (struct parts_sum){0};
    if (main_task->role != TASK_MAIN || main_task->fence == 0)
        return true;
    SCOPED_TASKS struct task_list list = {0};
    if (!ledger_task_parts(core->ledger, main_task->id, main_task->fence, &list, err))
        return false;
    for (size_t i = 0; i < list.count; i++) {
        const struct task *t = &list.v[i];
        const struct lease *lease = lease_find(core->leases, t->id);
        bool counts = t->state == TASK_RUNNING || t->state == TASK_SUCCEEDED;
        if (!counts) /* the main task copies it all again */
            continue;
        ret->bytes_done += lease ? lease->bytes_done : t->bytes_done;
        ret->bytes_total += lease ? lease->bytes_total : t->bytes_total;
        ret->rate_bps += lease ? lease->rate_bps : 0;
    }
    return true;
}

/* --- Giving away ------------------------------------------------------------------------------ */
static bool check(const struct task *t, const struct wire_parts *m, struct err *err)
{
    bool backup = strcmp(t->kind, "backup") == 0;
    if (t->role != TASK_MAIN || (!backup && strcmp(t->kind, "restore") != 0))
        return err_set(err, ERR_BAD_MESSAGE, 0, "task %s is a %s, which has no parts", t->id,
                       t->kind);
    for (size_t i = 0; i < m->parts.count; i++) {
        const struct wire_part *part = &m->parts.v[i];
        if (!wire_part_check(part, t->id, err))
            return false;
        if (backup ? !part->snapshot : !part->point)
            return err_set(err, ERR_BAD_MESSAGE, 0, "part %" PRId64 " of a %s needs a %s", part->n,
                           t->kind, backup ? "snapshot" : "point");
    }
    return true;
}

static int64_t workers_allowed(const struct wire_offer *offer)
{
    int64_t asked = offer->backup    ? offer->backup->workers
                    : offer->restore ? offer->restore->workers
                                     : 0;
    return asked > 0 ? asked : 1;
}

static bool add(struct core *core, struct request *r, const struct task *t,
                const struct wire_offer *offer, const struct wire_part *part, struct err *err)
{
    bool backup = strcmp(t->kind, "backup") == 0;
    /* A long list of disks would not fit beside the pieces, which say which ones are meant. */
    struct wire_restore_opts restore =
        offer->restore ? *offer->restore : (struct wire_restore_opts){0};
    restore.disks = (struct wire_strings){0};
    const struct work_spec spec = {
        .role = TASK_PART,
        .kind = backup ? "backup-part" : "restore-part",
        .zone = t->zone,
        .lane = backup ? LANE_BACKUP : LANE_RESTORE,
        .vm = t->vm,
        .vm_name = t->vm_name,
        .part_of = t->id,
        .part_fence = t->fence,
        .part_n = part->n,
        .offer = {.part = (struct wire_part *)(uintptr_t)part,
                  .backup = offer->backup,
                  .restore = offer->restore ? &restore : NULL},
    };
    SCOPED_TASK struct task made = {0};
    if (!work_add(core, r, &spec, &made, err))
        return false;
    struct err why = ERR_INIT;
    if (t->stop != TASK_STOP_NO) {
        err_set(&why, ERR_CANCELLED, 0, "the task that gives it away is to stop");
        return work_fail(core, &made, TASK_CANCELLED, &why, false, err);
    }
    if (part->n >= workers_allowed(offer)) {
        err_set(&why, ERR_REFUSED, 0, "the request allows %" PRId64 " worker(s) on a VM",
                workers_allowed(offer));
        return work_fail(core, &made, TASK_FAILED, &why, false, err);
    }
    return true;
}

static bool add_new(struct core *core, const struct task *t, const struct wire_parts *m,
                    struct err *err)
{
    struct wire_message offer = {0};
    SCOPED_REQUEST struct request r = {0};
    if (!ledger_request_get(core->ledger, t->request, &r, err) ||
        !wire_decode(wire_type_name(WIRE_OFFER), t->input, strlen(t->input), &offer, err))
        return false;
    bool ok = true;
    for (size_t i = 0; i < m->parts.count && ok; i++) {
        SCOPED_TASK struct task known = {0};
        ok = ledger_task_part(core->ledger, t->id, t->fence, m->parts.v[i].n, &known, err) &&
             (known.id || add(core, &r, t, offer.as, &m->parts.v[i], err));
    }
    wire_free(&offer);
    return ok;
}

static bool withdraw(struct core *core, const struct task *t, const struct wire_numbers *numbers,
                     struct err *err)
{
    for (size_t i = 0; i < numbers->count; i++) {
        SCOPED_TASK struct task part = {0};
        if (!ledger_task_part(core->ledger, t->id, t->fence, numbers->v[i], &part, err))
            return false;
        if (part.id && task_is_open(part.state) && !cancel_task(core, &part, "withdrawn", err))
            return false;
    }
    return true;
}

bool parts_take(struct core *core, const struct wire_parts *m, struct err *err)
{
    SCOPED_TASK struct task t = {0};
    if (!ledger_task_get(core->ledger, m->task, &t, err))
        return false;
    if (!lease_is_owner(core, &t, m->worker, m->attempt, m->fence)) {
        core->counters.stale_events++;
        return true;
    }
    lease_renew_task(core, t.id, core->now_ms);
    if (!check(&t, m, err))
        return false;
    return (m->parts.count == 0 || add_new(core, &t, m, err)) &&
           withdraw(core, &t, &m->withdraw, err) && tell(core, &t, err);
}

/* --- Taking back ------------------------------------------------------------------------------ */
bool parts_stop(struct core *core, const struct task *main_task, struct err *err)
{
    SCOPED_TASKS struct task_list list = {0};
    if (main_task->role != TASK_MAIN ||
        !ledger_task_parts(core->ledger, main_task->id, 0, &list, err))
        return !err_is_set(err);
    for (size_t i = 0; i < list.count; i++) {
        if (task_is_open(list.v[i].state) &&
            !cancel_task(core, &list.v[i], "its main task needs it no more", err))
            return false;
    }
    return true;
}

/* --- Who may take one ------------------------------------------------------------------------- */
/* Who is at work on the same VM already, and in which proxy VMs. */
struct crew {
    struct worker_list workers;
    struct task_list parts;
    struct task owner;
    int64_t offered; /* other parts that nobody has claimed yet */
};

static void crew_done(struct crew *c)
{
    worker_list_done(&c->workers);
    task_list_done(&c->parts);
    task_done(&c->owner);
}
#define SCOPED_CREW __attribute__((cleanup(crew_done), unused))

static bool crew_load(struct core *core, const struct task *part, struct crew *c, struct err *err)
{
    if (!ledger_worker_list(core->ledger, &c->workers, err) ||
        !ledger_task_parts(core->ledger, part->part_of, 0, &c->parts, err) ||
        !get_owner(core, part, &c->owner, err))
        return false;
    for (size_t i = 0; i < c->parts.count; i++)
        c->offered += c->parts.v[i].state == TASK_OFFERED && c->parts.v[i].n != part->n;
    return true;
}

static const char *proxy_of(const struct crew *c, const char *worker)
{
    for (size_t i = 0; i < c->workers.count; i++) {
        const struct worker *w = &c->workers.v[i];
        if (is(w->name, worker))
            return w->proxy && w->proxy[0] ? w->proxy : NULL;
    }
    return NULL;
}

static bool is_or_shares(const struct crew *c, const char *busy, const char *worker)
{
    return is(busy, worker) || is(proxy_of(c, busy), proxy_of(c, worker));
}

/* Why this worker may not take it; NULL = it may. */
static const char *obstacle(const struct crew *c, const struct task *part, const char *worker)
{
    if (!c->owner.id)
        return "the task that it is a part of does not run any more";
    if (is_or_shares(c, c->owner.worker, worker))
        return "the task that it is a part of runs here";
    for (size_t i = 0; i < c->parts.count; i++) {
        const struct task *other = &c->parts.v[i];
        if (other->state == TASK_RUNNING && other->n != part->n &&
            is_or_shares(c, other->worker, worker))
            return "another part of the same task runs here";
    }
    return NULL;
}

bool parts_may_take(struct core *core, const struct task *part, const char *worker, bool *ret,
                    const char **ret_why, struct err *err)
{
    SCOPED_CREW struct crew crew = {0};
    if (!crew_load(core, part, &crew, err))
        return false;
    *ret_why = obstacle(&crew, part, worker);
    *ret = *ret_why == NULL;
    return true;
}

static int64_t slots_of(const struct worker *w, const char *lane)
{
    return strcmp(lane, "restore") == 0 ? w->slots_restore : w->slots_backup;
}

bool parts_has_taker(struct core *core, const struct task *part, bool *ret, struct err *err)
{
    SCOPED_CREW struct crew crew = {0};
    if (!crew_load(core, part, &crew, err))
        return false;
    int64_t takers = 0;
    for (size_t i = 0; i < crew.workers.count; i++) {
        const struct worker *w = &crew.workers.v[i];
        int64_t running = 0;
        if (!admission_worker_is_live(core, w) || !is(w->zone, part->zone) ||
            obstacle(&crew, part, w->name))
            continue;
        if (!ledger_worker_running_in(core->ledger, w->name, part->lane, &running, err))
            return false;
        takers += running < slots_of(w, part->lane);
    }
    *ret = takers > crew.offered;
    return true;
}

/* --- Their ends ------------------------------------------------------------------------------- */
bool parts_keep_result(struct core *core, struct task *part, const struct work_end *how,
                       struct err *err)
{
    if (part->role != TASK_PART)
        return true;
    const struct lease *lease = lease_find(core->leases, part->id);
    if (lease) {
        part->bytes_done = lease->bytes_done;
        part->bytes_total = lease->bytes_total;
    }
    if (part->state != TASK_SUCCEEDED || !how->result)
        return true;
    struct wire_result kept = *how->result;
    kept.warnings = (struct wire_warnings){0};
    kept.leftovers = (struct wire_leftovers){0};
    size_t len;
    SCOPED_FREE char *body = wire_encode(WIRE_RESULT, &kept, &len, err);
    text_set(&part->result, body);
    return body != NULL;
}

static bool leave_point(struct core *core, const struct task *part, const char *task,
                        struct err *err)
{
    if (part->fence == 0 || strcmp(part->kind, "backup-part") != 0)
        return true;
    SCOPED_FREE char *session = xasprintf("%s.%" PRId64, part->id, part->fence);
    return ledger_leftover_add(core->ledger, task, "part", NULL, session, err);
}

/* The points of a main task's parts, for want of somebody else who would delete them. */
static bool leave_points_of(struct core *core, const struct task *main_task, struct err *err)
{
    SCOPED_TASKS struct task_list list = {0};
    if (!ledger_task_parts(core->ledger, main_task->id, 0, &list, err))
        return false;
    for (size_t i = 0; i < list.count; i++) {
        const struct task *part = &list.v[i];
        if (part->state == TASK_SUCCEEDED && !leave_point(core, part, main_task->id, err))
            return false;
    }
    return true;
}

/* What the main task's parts had attached or opened: of all of them, or of those that failed. */
static bool leave_holds_of(struct core *core, const struct task *main_task, bool of_failed_only,
                           struct err *err)
{
    SCOPED_TASKS struct task_list list = {0};
    if (!ledger_task_parts(core->ledger, main_task->id, 0, &list, err))
        return false;
    for (size_t i = 0; i < list.count; i++) {
        if ((!of_failed_only || list.v[i].state == TASK_FAILED) &&
            !leftovers_keep_holds_of_part(core, &list.v[i], main_task, err))
            return false;
    }
    return true;
}

bool parts_keep_holds(struct core *core, const char *main_id, struct err *err)
{
    SCOPED_TASK struct task main_task = {0};
    if (!ledger_task_get(core->ledger, main_id, &main_task, err))
        return false;
    return !main_task.id || main_task.role != TASK_MAIN ||
           leave_holds_of(core, &main_task, false, err);
}

bool parts_keep_leftovers(struct core *core, const struct task *t, const struct work_end *how,
                          struct err *err)
{
    /* A worker that could not take everything back may not have come to the points either. */
    bool unclean = how->abandoned || (how->result && how->result->leftovers.count > 0);
    if (t->role == TASK_MAIN) {
        /* Who copied a part that failed may be dead, and the engine slow with its last call: a disk
         * that was attached after the part's clean-up, and in the very moment before the snapshot
         * went, is nobody's. So there is one more look when all is over. */
        return leave_holds_of(core, t, true, err) && (!unclean || leave_points_of(core, t, err));
    }
    if (t->role != TASK_PART)
        return true;
    /* Its session may have committed, or may yet, unless somebody revokes it. */
    if (how->abandoned)
        return leave_point(core, t, t->id, err);
    SCOPED_TASK struct task owner = {0};
    if (t->state != TASK_SUCCEEDED || !ledger_task_get(core->ledger, t->part_of, &owner, err))
        return !err_is_set(err);
    /* An open main task, this attempt of it or the next, finds the point and deletes it. */
    return (owner.id && task_is_open(owner.state)) || leave_point(core, t, t->id, err);
}

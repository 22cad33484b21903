/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/sweep.h"

#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include "coordinator/outgoing.h"
#include "coordinator/plan.h"
#include "coordinator/work.h"
#include "proto/base/id.h"

/* --- One sweep under judgement ---------------------------------------------------------------- */
struct judging {
    struct core *core;
    const struct task *task; /* the sweep */
    struct request request;  /* of the sweep */
    bool dry_run;
    struct worker_list workers;
    struct sweep sums;
    char **owners; /* tasks that a clean-up is to be opened for */
    size_t owner_count;
};

static void judging_done(struct judging *j)
{
    request_done(&j->request);
    worker_list_done(&j->workers);
    sweep_done(&j->sums);
    for (size_t i = 0; i < j->owner_count; i++)
        free(j->owners[i]);
    free(j->owners);
}
#define SCOPED_JUDGING __attribute__((cleanup(judging_done), unused))

enum { JOURNAL_MAX = 2000, STRANGE_PART_MS = 3 * 24 * 3600 * 1000 };

enum verdict { IN_USE, CLEANUP, STANDS, FOREIGN };
static const char *const verdict_words[] = {"in-use", "cleanup", "stands", "foreign"};

static bool is(const char *a, const char *b)
{
    return a && b && strcmp(a, b) == 0;
}

/* A VM that a worker of this zone runs in, or ran in lately. */
static bool is_proxy(const struct judging *j, const struct wire_trace_item *trace)
{
    for (size_t i = 0; i < j->workers.count; i++) {
        const struct worker *w = &j->workers.v[i];
        if (w->proxy && strcmp(w->zone, j->task->zone) == 0 &&
            ((trace->vm && strcasecmp(w->proxy, trace->vm) == 0) || is(trace->vm_name, w->proxy)))
            return true;
    }
    return false;
}

/* A part of a task that is not known here may be in use by another coordinator's workers; for a
 * part, which is read once, not for long. Should it be in use after all, it is only copied again.
 */
static enum verdict judge_strange_part(const struct judging *j, const struct wire_trace_item *trace,
                                       char **ret_why)
{
    if (trace->time_ms > 0 && trace->time_ms < j->core->wall_ms - STRANGE_PART_MS) {
        *ret_why =
            xstrdup("the ledger does not know the task that it was a part of, and it is old");
        return CLEANUP;
    }
    *ret_why = xstrdup("the ledger does not know the task that it is a part of");
    return FOREIGN;
}

static enum verdict judge_stranger(const struct judging *j, const struct wire_trace_item *trace,
                                   char **ret_why)
{
    if (is(trace->kind, "part"))
        return judge_strange_part(j, trace, ret_why);
    bool decided = is(trace->fate, "committed") || is(trace->fate, "revoked");
    if (decided) {
        *ret_why = xasprintf("the ledger has forgotten its task, but the repository knows session "
                             "%s.%" PRId64 ": %s",
                             trace->task, trace->fence, trace->fate);
        return CLEANUP;
    }
    *ret_why =
        xstrdup(is(trace->fate, "open")
                    ? "the ledger does not know its task; the repository has an open session "
                      "of it: a run without this coordinator"
                    : "neither the ledger nor the repository knows its task");
    return FOREIGN;
}

static bool holds(const struct wire_handles *handles, const char *name, const char *value)
{
    for (size_t i = 0; i < handles->count; i++) {
        if (strcmp(handles->v[i].name, name) == 0)
            return strcmp(handles->v[i].value, value) == 0;
    }
    return false;
}

static bool tells_of_vm(const struct journal_row *row, const char *vm)
{
    struct wire_message m = {0};
    struct err ignored = ERR_INIT;
    if (!wire_decode(wire_type_name(WIRE_STEP), row->body, strlen(row->body), &m, &ignored))
        return false;
    bool found = holds(&((const struct wire_step *)m.as)->handles, "vm", vm);
    wire_free(&m);
    return found;
}

/* Whether the disk was made by another attempt than the one whose VM is the restore's result. The
 * first one to tell of that VM made it; a later one may have found it complete. */
static bool is_of_lost_attempt(const struct judging *j, const struct wire_trace_item *trace,
                               const struct task *t, bool *ret, struct err *err)
{
    struct journal_list list;
    *ret = false;
    if (!t->new_vm || trace->fence <= 0)
        return true;
    if (!ledger_journal_list(j->core->ledger, t->id, JOURNAL_MAX, &list, err))
        return false;
    bool whole = list.count < JOURNAL_MAX;
    for (size_t i = 0; whole && i < list.count; i++) {
        if (!tells_of_vm(&list.v[i], t->new_vm))
            continue;
        *ret = list.v[i].fence != trace->fence;
        break;
    }
    journal_list_done(&list);
    return true;
}

/* A disk of a restore, or its attachment or transfer. One that is in a VM which carries no mark of
 * ours is that VM's: the restore was complete, although the mark on the disk may have stayed. */
static bool stands(const struct wire_trace_item *trace, const struct task *t, bool on_proxy,
                   bool of_lost_attempt)
{
    bool disk = is(trace->kind, "disk") || is(trace->kind, "transfer");
    bool attachment = is(trace->kind, "attachment");
    if (is(trace->kind, "vm"))
        return is(t->new_vm, trace->vm);
    if (strcmp(t->kind, "restore") != 0 || (!disk && !attachment))
        return false;
    if (disk && t->state == TASK_SUCCEEDED && !of_lost_attempt)
        return true;
    return trace->vm && !on_proxy;
}

/* What a backup makes on the VM that it is of. */
static bool is_of_backup(const struct wire_trace_item *trace)
{
    return is(trace->kind, "snapshot") || is(trace->kind, "backup");
}

/* All that a clean-up would have to know. */
static bool is_whole(const struct wire_trace_item *trace)
{
    bool on_vm = is_of_backup(trace) || is(trace->kind, "attachment");
    return is(trace->kind, "vm") ? trace->vm != NULL : trace->id && (trace->vm || !on_vm);
}

/* What more the ledger knows of a trace's task. */
struct facts {
    bool of_lost_attempt; /* is_of_lost_attempt() */
    bool part_open;       /* one of the task's parts has not ended */
};

static enum verdict judge(const struct judging *j, const struct wire_trace_item *trace,
                          const struct task *t, const struct facts *facts, char **ret_why)
{
    if (!trace->task) {
        *ret_why = xstrdup("it carries no mark of a task");
        return FOREIGN;
    }
    if (!is_whole(trace)) {
        *ret_why = xstrdup("the worker does not say where it is");
        return FOREIGN;
    }
    if (!t->id)
        return judge_stranger(j, trace, ret_why);
    if (task_is_open(t->state)) {
        *ret_why = xasprintf("its task is %s", task_state_name(t->state));
        return IN_USE;
    }
    if (facts->part_open) {
        *ret_why = xstrdup("a part of its task has not ended");
        return IN_USE;
    }
    if (t->role != TASK_ADOPTED && t->finished_ms >= j->task->started_ms) {
        *ret_why = xstrdup("its task ended while the sweep looked");
        return IN_USE;
    }
    if (stands(trace, t, is_proxy(j, trace), facts->of_lost_attempt)) {
        *ret_why = xasprintf("its restore is complete%s%s", trace->vm ? ": VM " : "",
                             trace->vm ? trace->vm : "");
        return STANDS;
    }
    *ret_why = xasprintf("its task has ended (%s)", task_state_name(t->state));
    return CLEANUP;
}

/* --- Opening clean-ups ------------------------------------------------------------------------ */
/* A task that only its traces and the repository know becomes a row, so that a clean-up can hang on
 * it. It counts nowhere. */
static bool adopt(struct judging *j, const struct wire_trace_item *trace, struct err *err)
{
    bool of_restore = is(trace->kind, "vm") || is(trace->kind, "disk");
    struct task t = {
        .id = trace->task,
        .request = j->request.id,
        .role = TASK_ADOPTED,
        .kind = (char *)(uintptr_t)(of_restore ? "restore" : "backup"),
        .zone = j->task->zone,
        .lane = (char *)(uintptr_t)(of_restore ? "restore" : "backup"),
        .vm = is_of_backup(trace) ? trace->vm : NULL,
        .vm_name = is_of_backup(trace) ? trace->vm_name : NULL,
        .state = TASK_FAILED,
        .attempt = 1,
        .created_ms = j->core->now_ms,
        .finished_ms = j->core->now_ms,
        .fence = trace->fence,
        .input = (char *)(uintptr_t) "{}",
    };
    log_info("task_adopted", LOG_STR("task", t.id), LOG_STR("vm", t.vm_name),
             LOG_STR("fate", trace->fate));
    return ledger_task_add(j->core->ledger, &t, err);
}

static void note_owner(struct judging *j, const char *task)
{
    for (size_t i = 0; i < j->owner_count; i++) {
        if (strcmp(j->owners[i], task) == 0)
            return;
    }
    j->owners = xreallocarray(j->owners, j->owner_count + 1, sizeof *j->owners);
    j->owners[j->owner_count++] = xstrdup(task);
}

static bool give_away(struct judging *j, const struct wire_trace_item *trace, const struct task *t,
                      struct err *err)
{
    if (!t->id && !adopt(j, trace, err))
        return false;
    const char *item = is(trace->kind, "vm") ? trace->vm : trace->id;
    bool hangs_on_none =
        is(trace->kind, "disk") || is(trace->kind, "transfer") || is(trace->kind, "part");
    const char *vm = hangs_on_none ? NULL : trace->vm;
    note_owner(j, trace->task);
    return ledger_leftover_add(j->core->ledger, trace->task, trace->kind, vm, item, err);
}

static bool open_cleanups(struct judging *j, struct err *err)
{
    for (size_t i = 0; i < j->owner_count; i++) {
        SCOPED_TASK struct task t = {0};
        SCOPED_REQUEST struct request r = {0};
        if (!ledger_task_get(j->core->ledger, j->owners[i], &t, err) ||
            !ledger_request_get(j->core->ledger, t.request, &r, err) ||
            !work_open_cleanup(j->core, &t, &r, err))
            return false;
    }
    return true;
}

/* --- Judging ---------------------------------------------------------------------------------- */
static void count(struct judging *j, const struct wire_trace_item *trace, enum verdict verdict)
{
    struct sweep *s = &j->sums;
    if (verdict == FOREIGN) {
        s->foreign_things++;
        return;
    }
    s->left_behind += verdict == CLEANUP;
    if (verdict == STANDS)
        return;
    if (is(trace->kind, "snapshot")) {
        s->snapshots++;
        if (trace->time_ms > 0 && (s->oldest_ms == 0 || trace->time_ms < s->oldest_ms))
            s->oldest_ms = trace->time_ms;
    }
    s->attachments += is(trace->kind, "attachment");
    s->transfers += is(trace->kind, "transfer");
    s->half_made += is(trace->kind, "vm") || is(trace->kind, "disk");
}

/* *ret_keep is false for what another zone's sweep will tell. */
static bool judge_one(struct judging *j, struct wire_trace_item *trace, bool *ret_keep,
                      struct err *err)
{
    SCOPED_TASK struct task t = {0};
    if (trace->task && !ledger_task_get(j->core->ledger, trace->task, &t, err))
        return false;
    *ret_keep = !t.id || strcmp(t.zone, j->task->zone) == 0;
    if (!*ret_keep)
        return true;
    bool disk = is(trace->kind, "disk") || is(trace->kind, "transfer");
    struct facts facts = {0};
    if ((disk && t.state == TASK_SUCCEEDED &&
         !is_of_lost_attempt(j, trace, &t, &facts.of_lost_attempt, err)) ||
        (t.id && !ledger_task_has_open_part(j->core->ledger, t.id, &facts.part_open, err)))
        return false;
    enum verdict verdict = judge(j, trace, &t, &facts, &trace->message);
    trace->verdict = xstrdup(verdict_words[verdict]);
    count(j, trace, verdict);
    if (verdict != IN_USE)
        log_write(verdict == STANDS ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARN, "trace_found",
                  (const struct log_field[]){
                      LOG_STR("kind", trace->kind), LOG_STR("verdict", trace->verdict),
                      LOG_STR("zone", j->task->zone), LOG_STR("vm", trace->vm_name),
                      LOG_STR("id", trace->id), LOG_STR("task", trace->task),
                      LOG_STR("why", trace->message), LOG_END});
    return verdict != CLEANUP || j->dry_run || give_away(j, trace, &t, err);
}

/* Workers do not judge: what one wrote there is dropped. */
static void forget_claims(struct wire_trace_item *trace)
{
    free(TAKE(trace->verdict));
    free(TAKE(trace->message));
}

static void swap(struct wire_trace_item *a, struct wire_trace_item *b)
{
    struct wire_trace_item c = *a;
    *a = *b;
    *b = c;
}

static bool judge_page(struct judging *j, struct wire_item_list *items, struct err *err)
{
    size_t kept = 0, total = items->traces_count;
    for (size_t i = 0; i < total; i++) {
        bool keep = true;
        forget_claims(&items->traces[i]);
        if (!judge_one(j, &items->traces[i], &keep, err))
            return false;
        if (keep)
            swap(&items->traces[kept++], &items->traces[i]);
    }
    struct reply_to_list to;
    if (!ledger_reply_to_list(j->core->ledger, j->request.id, &to, err))
        return false;
    const struct wire_item_list part = {.traces = items->traces, .traces_count = kept};
    int64_t before = j->request.pages, after = before;
    bool ok = true;
    for (size_t i = 0; i < to.count && ok; i++) {
        after = before;
        ok = outgoing_pages(j->core, to.v[i].queue, to.v[i].correlation_id, j->request.id, &part,
                            &after, err);
    }
    reply_to_list_done(&to);
    j->request.pages = after;
    return ok;
}

static bool take_page(struct judging *j, int64_t page, struct err *err)
{
    SCOPED_FREE char *body = NULL;
    struct wire_message m = {0};
    if (!ledger_items_get(j->core->ledger, j->task->id, j->task->attempt, page, &body, err))
        return false;
    if (!body)
        return err_set(err, ERR_INTERNAL, 0, "page %" PRId64 " of task %s is gone", page,
                       j->task->id);
    if (!wire_decode(wire_type_name(WIRE_ITEMS), body, strlen(body), &m, err))
        return err_wrap(err, "page %" PRId64 " of task %s", page, j->task->id);
    struct wire_items *items = m.as;
    bool ok = judge_page(j, items->items, err);
    wire_free(&m);
    return ok;
}

static bool read_request(struct judging *j, struct err *err)
{
    struct wire_message m = {0};
    if (!ledger_request_get(j->core->ledger, j->task->request, &j->request, err))
        return false;
    SCOPED_FREE char *body = ledger_request_body(j->core->ledger, j->request.id, err);
    if (!body || !wire_decode(wire_type_name(WIRE_SWEEP), body, strlen(body), &m, err))
        return false;
    j->dry_run = ((const struct wire_sweep *)m.as)->dry_run;
    wire_free(&m);
    return true;
}

static bool save_sums(struct judging *j, struct err *err)
{
    SCOPED_SWEEP struct sweep last = {0};
    if (!ledger_sweep_get(j->core->ledger, j->task->zone, &last, err))
        return false;
    struct sweep *s = &j->sums;
    s->n = last.n;
    s->zone = xstrdup(j->task->zone);
    s->at_ms = j->core->now_ms;
    log_info("swept", LOG_STR("zone", s->zone), LOG_I64("snapshots", s->snapshots),
             LOG_I64("attachments", s->attachments), LOG_I64("transfers", s->transfers),
             LOG_I64("half_made", s->half_made), LOG_I64("left_behind", s->left_behind),
             LOG_I64("foreign", s->foreign_things), LOG_I64("dry_run", j->dry_run));
    return ledger_sweep_save(j->core->ledger, s, err);
}

bool sweep_take_pages(struct core *core, const struct task *t, int64_t pages, struct err *err)
{
    SCOPED_JUDGING struct judging j = {.core = core, .task = t};
    if (!read_request(&j, err) || !ledger_worker_list(core->ledger, &j.workers, err))
        return false;
    for (int64_t page = 1; page <= pages; page++) {
        if (!take_page(&j, page, err))
            return false;
    }
    return open_cleanups(&j, err) && save_sums(&j, err) &&
           ledger_request_save(core->ledger, &j.request, err);
}

/* --- Sweeps of our own
 * ---------------------------------------------------------------------------------- */
static bool begin_in(struct core *core, char *zone, struct err *err)
{
    char id[ID_BYTES];
    id_new(id);
    const struct wire_sweep message = {.zone = zone};
    size_t len;
    SCOPED_FREE char *body = wire_encode(WIRE_SWEEP, &message, &len, err);
    SCOPED_REQUEST struct request r = {
        .id = xstrdup(id),
        .kind = xstrdup("sweep"),
        .selected = true,
        .internal = true,
        .created_ms = core->now_ms,
    };
    return body && ledger_request_add(core->ledger, &r, body, err) &&
           plan_sweep(core, &r, &message, err);
}

bool sweep_begin(struct core *core, struct err *err)
{
    for (unsigned i = 0; i < core->conf->zones_count; i++) {
        char *zone = core->conf->zones[i].name;
        bool open = false;
        if (!ledger_sweep_is_open(core->ledger, zone, &open, err) ||
            (!open && !begin_in(core, zone, err)))
            return false;
    }
    return true;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/leftovers.h"

#include <string.h>

enum { OFFER_MAX = 500, JOURNAL_MAX = 2000 };

bool leftovers_keep(struct core *core, const char *task, const struct wire_leftovers *list,
                    struct err *err)
{
    for (size_t i = 0; i < list->count; i++) {
        const struct wire_leftover *left = &list->v[i];
        if (!ledger_leftover_add(core->ledger, task, left->kind, left->vm, left->id, err))
            return false;
    }
    return true;
}

static const char *value_of(const struct wire_handles *handles, const char *name)
{
    for (size_t i = 0; i < handles->count; i++) {
        if (strcmp(handles->v[i].name, name) == 0)
            return handles->v[i].value;
    }
    return NULL;
}

/* The rest of `text` after `prefix`, or NULL. */
static const char *after(const char *text, const char *prefix)
{
    size_t len = strlen(prefix);
    return strncmp(text, prefix, len) == 0 && text[len] ? text + len : NULL;
}

enum which {
    ALL,
    ALL_BUT_MADE, /* by a restore: the VM may be complete */
    HOLDS,        /* only what keeps other things from being removed */
};

/* Handle names: docs/protocol.md. */
static bool keep_handle(struct core *core, const struct task *t, const struct wire_handles *all,
                        const struct wire_handle *h, enum which which, struct err *err)
{
    if (h->value[0] == '\0')
        return true;
    const char *disk = after(h->name, "attachment.");
    if (disk)
        return ledger_leftover_add(core->ledger, t->id, "attachment", h->value, disk, err);
    if (strcmp(h->name, "backup") == 0 && t->vm)
        return ledger_leftover_add(core->ledger, t->id, "backup", t->vm, h->value, err);
    if (after(h->name, "transfer."))
        return ledger_leftover_add(core->ledger, t->id, "transfer", NULL, h->value, err);
    const char *engines = after(h->name, "backup-snapshot.");
    if (engines)
        return ledger_leftover_add(core->ledger, t->id, "backup-snapshot", h->value, engines, err);
    if (which == HOLDS)
        return true;
    if (strcmp(h->name, "snapshot") == 0 && t->vm)
        return ledger_leftover_add(core->ledger, t->id, "snapshot", t->vm, h->value, err);
    if (after(h->name, "part."))
        return ledger_leftover_add(core->ledger, t->id, "part", NULL, h->value, err);
    if (which == ALL_BUT_MADE)
        return true;
    const char *clone = after(h->name, "clone.");
    if (clone)
        return ledger_leftover_add(core->ledger, t->id, "clone", h->value, clone, err);
    if (strcmp(h->name, "vm") == 0)
        return ledger_leftover_add(core->ledger, t->id, "vm", h->value, h->value, err);
    if (after(h->name, "disk."))
        return ledger_leftover_add(core->ledger, t->id, "disk", value_of(all, "vm"), h->value, err);
    return true;
}

static bool keep_handles(struct core *core, const struct task *t, const struct wire_handles *all,
                         enum which which, struct err *err)
{
    if (t->role == TASK_PART) /* all else is its main task's */
        which = HOLDS;
    for (size_t i = 0; i < all->count; i++) {
        if (!keep_handle(core, t, all, &all->v[i], which, err))
            return false;
    }
    return true;
}

bool leftovers_keep_late(struct core *core, const struct task *t,
                         const struct wire_handles *handles, struct err *err)
{
    return keep_handles(core, t, handles, ALL_BUT_MADE, err);
}

/* Its attempt died where it may have frozen the guest, or asked for a snapshot, and not said so. */
static bool may_hold_more(const struct task *t, const struct wire_step *s)
{
    static const char *const steps[] = {"precheck", "quiesce", "snapshot", "begin"};
    bool under_way = strcmp(s->state, "started") == 0 || strcmp(s->state, "done") == 0;
    bool makes = strcmp(t->kind, "backup") == 0 || strcmp(t->kind, "export") == 0;
    if (!t->vm || !makes || !under_way || value_of(&s->handles, "snapshot"))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        if (strcmp(s->step, steps[i]) == 0)
            return true;
    }
    return false;
}

static bool keep_row(struct core *core, const struct task *t, const struct journal_row *row,
                     enum which which, struct err *err)
{
    struct wire_message m = {0};
    struct err why = ERR_INIT;
    if (!wire_decode(wire_type_name(WIRE_STEP), row->body, strlen(row->body), &m, &why)) {
        log_err(LOG_LEVEL_ERROR, "journal_unreadable", &why);
        return true;
    }
    const struct wire_step *step = m.as;
    bool ok = keep_handles(core, t, &step->handles, which, err) &&
              (which != ALL || row->stale || !may_hold_more(t, step) ||
               ledger_leftover_add(core->ledger, t->id, "snapshot", t->vm, WIRE_LEFTOVER_ALL, err));
    wire_free(&m);
    return ok;
}

/* What the journal of task `of` says was held is what `t` leaves behind: the newest event of each
 * attempt and those that came too late, or every event. */
static bool keep_rows(struct core *core, const char *of, const struct task *t, enum which which,
                      bool every, struct err *err)
{
    struct journal_list list;
    if (!ledger_journal_list(core->ledger, of, JOURNAL_MAX, &list, err))
        return false;
    bool ok = true;
    for (size_t i = 0; i < list.count && ok; i++) {
        bool newest = i + 1 == list.count || list.v[i + 1].attempt != list.v[i].attempt;
        if (every || newest || list.v[i].stale)
            ok = keep_row(core, t, &list.v[i], which, err);
    }
    journal_list_done(&list);
    return ok;
}

bool leftovers_keep_of_journal(struct core *core, const struct task *t, struct err *err)
{
    return keep_rows(core, t->id, t, ALL, false, err);
}

bool leftovers_keep_holds(struct core *core, const struct task *t, struct err *err)
{
    return keep_rows(core, t->id, t, HOLDS, false, err);
}

bool leftovers_keep_holds_of_part(struct core *core, const struct task *part,
                                  const struct task *main_task, struct err *err)
{
    return keep_rows(core, part->id, main_task, HOLDS, true, err);
}

bool leftovers_load(struct core *core, const char *task, struct wire_leftovers *ret,
                    int64_t *ret_upto, struct err *err)
{
    struct leftover_list list;
    if (!ledger_leftover_list(core->ledger, task, OFFER_MAX, &list, err))
        return false;
    *ret = (struct wire_leftovers){.count = list.count};
    ret->v = list.count ? xcalloc(list.count, sizeof *ret->v) : NULL;
    *ret_upto = 0;
    for (size_t i = 0; i < list.count; i++) {
        struct leftover *from = &list.v[i];
        ret->v[i].kind = TAKE(from->kind);
        ret->v[i].vm = from->vm[0] ? TAKE(from->vm) : NULL;
        ret->v[i].id = from->item[0] ? TAKE(from->item) : NULL;
        *ret_upto = from->n;
    }
    leftover_list_done(&list);
    return true;
}

void leftovers_free(struct wire_leftovers *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->v[i].kind);
        free(list->v[i].vm);
        free(list->v[i].id);
    }
    free(list->v);
    *list = (struct wire_leftovers){0};
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/select.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include "coordinator/work.h"
#include "proto/base/log.h"

/* What is asked of VMs that are to be found first, whatever the kind. Borrows from the message. */
struct asked {
    struct wire_message message;
    const struct wire_select *select;
    int64_t deadline_s;
    struct wire_offer offer; /* the kind's options */
};

static void asked_done(struct asked *asked)
{
    wire_free(&asked->message);
}

static bool decode(struct core *core, const struct request *r, struct asked *ret, struct err *err)
{
    *ret = (struct asked){0};
    SCOPED_FREE char *body = ledger_request_body(core->ledger, r->id, err);
    bool is_export = strcmp(r->kind, "export") == 0;
    const char *type = wire_type_name(is_export ? WIRE_EXPORT : WIRE_BACKUP);
    if (!body || !wire_decode(type, body, strlen(body), &ret->message, err))
        return false;
    if (is_export) {
        const struct wire_export *x = ret->message.as;
        ret->select = x->select;
        ret->deadline_s = x->deadline_s;
        ret->offer.export = x->options;
    } else {
        const struct wire_backup *b = ret->message.as;
        ret->select = b->select;
        ret->deadline_s = b->deadline_s;
        ret->offer.backup = b->options;
    }
    return true;
}

static bool contains(const struct wire_strings *list, const char *text)
{
    for (size_t i = 0; i < list->count; i++) {
        if (strcmp(list->v[i], text) == 0)
            return true;
    }
    return false;
}

/* The engine's ids are lower-case; requesters may write them otherwise. */
static char *lower(const char *text)
{
    char *copy = xstrdup(text);
    for (char *c = copy; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    return copy;
}

static bool is_named(const struct wire_select *select, const char *id, const char *name)
{
    if (contains(&select->names, name))
        return true;
    for (size_t i = 0; i < select->ids.count; i++) {
        if (strcasecmp(select->ids.v[i], id) == 0)
            return true;
    }
    return false;
}

/* The worker of this zone that runs in the VM, or NULL. "All" and the like do not mean such a VM: a
 * worker in the middle of its work cannot be snapshotted in a useful way. Who wants it names it. */
static const char *worker_in(const struct worker_list *workers, const char *zone, const char *id,
                             const char *name)
{
    for (size_t i = 0; i < workers->count; i++) {
        const struct worker *w = &workers->v[i];
        if (w->proxy && strcmp(w->zone, zone) == 0 &&
            (strcasecmp(w->proxy, id) == 0 || strcmp(w->proxy, name) == 0))
            return w->name;
    }
    return NULL;
}

/* What the VMs of a page are held against. */
struct picking {
    const struct task *select;
    const struct asked *asked;
    struct worker_list workers;
    struct wire_warnings *warnings;
};

static void warn_left_out(const struct picking *p, const struct request *r, const char *vm,
                          const char *worker)
{
    log_info("proxy_left_out", LOG_STR("request", r->id), LOG_STR("vm", vm),
             LOG_STR("worker", worker));
    struct wire_warnings *w = p->warnings;
    w->v = xreallocarray(w->v, w->count + 1, sizeof *w->v);
    w->v[w->count++] = (struct wire_warning){
        .code = xstrdup("vm-excluded"),
        .message = xasprintf("VM %s is left out: worker %s runs in it, and would freeze itself; to "
                             "take it all the same, name it",
                             vm, worker),
    };
}

static bool add_vm(struct core *core, struct request *r, const struct picking *p,
                   const struct wire_vm_item *item, struct err *err)
{
    const struct task *select = p->select;
    const struct asked *b = p->asked;
    SCOPED_FREE char *id = lower(item->id);
    bool known = false;
    if (!ledger_task_has_vm(core->ledger, r->id, id, &known, err))
        return false;
    if (known || contains(&b->select->exclude, item->name))
        return true;
    const char *worker = worker_in(&p->workers, select->zone, id, item->name);
    if (worker && !is_named(b->select, id, item->name)) {
        warn_left_out(p, r, item->name, worker);
        return true;
    }
    const struct work_spec spec = {
        .role = TASK_MAIN,
        .kind = r->kind,
        .zone = select->zone,
        .lane = LANE_BACKUP,
        .vm = id,
        .vm_name = item->name,
        .deadline_s = b->deadline_s ? b->deadline_s : core->conf->deadline_s,
        .offer = b->offer,
    };
    return work_add(core, r, &spec, NULL, err);
}

static bool take_page(struct core *core, struct request *r, const struct picking *p, int64_t page,
                      struct err *err)
{
    const struct task *select = p->select;
    SCOPED_FREE char *body = NULL;
    if (!ledger_items_get(core->ledger, select->id, select->attempt, page, &body, err))
        return false;
    struct wire_message m = {0};
    if (!body)
        return err_set(err, ERR_INTERNAL, 0, "page %" PRId64 " of task %s is gone", page,
                       select->id);
    if (!wire_decode(wire_type_name(WIRE_ITEMS), body, strlen(body), &m, err))
        return err_wrap(err, "page %" PRId64 " of task %s", page, select->id);
    const struct wire_items *items = m.as;
    bool ok = true;
    for (size_t i = 0; i < items->items->vms_count && ok; i++)
        ok = add_vm(core, r, p, &items->items->vms[i], err);
    wire_free(&m);
    return ok;
}

void select_warnings_done(struct wire_warnings *warnings)
{
    for (size_t i = 0; i < warnings->count; i++) {
        free(warnings->v[i].code);
        free(warnings->v[i].message);
    }
    free(warnings->v);
    *warnings = (struct wire_warnings){0};
}

bool select_take_pages(struct core *core, const struct task *t, int64_t pages,
                       struct wire_warnings *ret_warnings, struct err *err)
{
    SCOPED_REQUEST struct request r = {0};
    if (!ledger_request_get(core->ledger, t->request, &r, err))
        return false;
    struct asked asked;
    if (!decode(core, &r, &asked, err))
        return false;
    struct picking p = {.select = t, .asked = &asked, .warnings = ret_warnings};
    bool ok = ledger_worker_list(core->ledger, &p.workers, err);
    for (int64_t page = 1; page <= pages && ok; page++)
        ok = take_page(core, &r, &p, page, err);
    worker_list_done(&p.workers);
    asked_done(&asked);
    return ok && ledger_request_save(core->ledger, &r, err);
}

/* --- The missing --- */
/* Not found is certain only when every zone has answered. */
static bool why_missing(struct core *core, const struct request *r, const char *what,
                        const char *value, struct err *why, struct err *err)
{
    SCOPED_FREE char *code = NULL;
    SCOPED_FREE char *zone = NULL;
    if (!ledger_select_failure(core->ledger, r->id, &code, &zone, err))
        return false;
    err_clear(why);
    if (zone)
        err_set(why, code ? err_code_from_name(code) : ERR_INTERNAL, 0,
                "VM with %s '%s' was not found where it could be looked for; zone '%s' did not "
                "answer",
                what, value, zone);
    else
        err_set(why, ERR_NOT_FOUND, 0, "no VM with %s '%s'", what, value);
    return true;
}

static bool missing_ids(struct core *core, struct request *r, const struct wire_select *select,
                        select_missing_fn missing, struct err *err)
{
    for (size_t i = 0; i < select->ids.count; i++) {
        SCOPED_FREE char *id = lower(select->ids.v[i]);
        bool known = false;
        struct err why = ERR_INIT;
        if (!ledger_task_has_vm(core->ledger, r->id, id, &known, err))
            return false;
        if (known)
            continue;
        const struct select_missing what = {.id = id, .why = &why};
        if (!why_missing(core, r, "id", id, &why, err) || !missing(core, r, &what, err))
            return false;
    }
    return true;
}

static bool missing_names(struct core *core, struct request *r, const struct wire_select *select,
                          select_missing_fn missing, struct err *err)
{
    for (size_t i = 0; i < select->names.count; i++) {
        char *name = select->names.v[i];
        bool known = false;
        struct err why = ERR_INIT;
        if (!ledger_task_has_vm_name(core->ledger, r->id, name, &known, err))
            return false;
        if (known || contains(&select->exclude, name))
            continue;
        const struct select_missing what = {.name = name, .why = &why};
        if (!why_missing(core, r, "name", name, &why, err) || !missing(core, r, &what, err))
            return false;
    }
    return true;
}

bool select_each_missing(struct core *core, struct request *r, select_missing_fn missing,
                         struct err *err)
{
    struct asked asked;
    if (!decode(core, r, &asked, err))
        return false;
    bool ok = missing_ids(core, r, asked.select, missing, err) &&
              missing_names(core, r, asked.select, missing, err);
    asked_done(&asked);
    return ok;
}

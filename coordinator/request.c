/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/request.h"

#include <ctype.h>
#include <string.h>

#include <jansson.h>

#include "coordinator/checkup.h"
#include "coordinator/outgoing.h"
#include "coordinator/plan.h"
#include "coordinator/work.h"
#include "proto/base/id.h"

enum { TASKS_AT_ONCE = 500 };

/* What a request says beside its kind's own members. */
struct facts {
    const char *idempotency_key;
    bool progress;
};

static struct facts facts_of_backup(const void *message)
{
    const struct wire_backup *b = message;
    return (struct facts){b->idempotency_key, b->progress};
}

static struct facts facts_of_restore(const void *message)
{
    const struct wire_restore *b = message;
    return (struct facts){b->idempotency_key, b->progress};
}

static struct facts facts_of_export(const void *message)
{
    const struct wire_export *b = message;
    return (struct facts){b->idempotency_key, b->progress};
}

/* One row per kind of request. `facts` NULL: it has neither key nor progress; `plan` NULL: `answer`
 * answers it, and it leaves no trace in the ledger. */
static const struct kind {
    enum wire_type type;
    const char *name;
    struct facts (*facts)(const void *message);
    bool (*check)(struct core *core, const void *message, struct err *why);
    bool (*plan)(struct core *core, struct request *r, const void *message, struct err *err);
    bool (*answer)(struct core *core, const char *request_id, const void *message,
                   const char *queue, const char *correlation_id, struct err *err);
} kinds[] = {
    {WIRE_BACKUP, "backup", facts_of_backup, plan_check_backup, plan_backup, NULL},
    {WIRE_RESTORE, "restore", facts_of_restore, plan_check_restore, plan_restore, NULL},
    {WIRE_EXPORT, "export", facts_of_export, plan_check_export, plan_export, NULL},
    {WIRE_INVENTORY, "inventory", NULL, plan_check_inventory, plan_inventory, NULL},
    {WIRE_LIST, "list", NULL, plan_check_list, plan_list, NULL},
    {WIRE_SWEEP, "sweep", NULL, plan_check_sweep, plan_sweep, NULL},
    {WIRE_PRUNE, "prune", NULL, plan_check_prune, plan_prune, NULL},
    {WIRE_VERIFY, "verify", NULL, plan_check_verify, plan_verify, NULL},
    {WIRE_PLAN, "plan", NULL, plan_check_plan, plan_plan, NULL},
    {WIRE_CANCEL, "cancel", NULL, cancel_check, cancel_plan, NULL},
    {WIRE_STATUS, "status", NULL, status_check, NULL, status_answer},
    {WIRE_DOCTOR, "doctor", NULL, checkup_check, NULL, checkup_answer},
};

static const struct kind *kind_of(enum wire_type type)
{
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (kinds[i].type == type)
            return &kinds[i];
    }
    return NULL;
}

bool request_is(enum wire_type type)
{
    return kind_of(type) != NULL;
}

char *request_type_of_body(const char *body)
{
    json_t *json = json_loads(body, 0, NULL);
    const char *type = json_string_value(json_object_get(json, "type"));
    char *copy = xstrdup_or_null(type);
    json_decref(json);
    return copy;
}

/* --- Identity --- */
static void lower_id(const char *from, char *to)
{
    for (size_t i = 0; i < ID_BYTES; i++)
        to[i] = (char)tolower((unsigned char)from[i]);
}

/* The first of these that is a UUID and not taken: the correlation id, the message id, a new one.
 * `id` holds ID_BYTES. */
static bool choose_id(struct core *core, const struct inbound *in, char *id, struct err *err)
{
    const char *const wishes[] = {in->correlation_id, in->message_id};
    for (size_t i = 0; i < ARRAY_LEN(wishes); i++) {
        if (!wishes[i] || !id_is_valid(wishes[i]))
            continue;
        lower_id(wishes[i], id);
        SCOPED_REQUEST struct request taken = {0};
        if (!ledger_request_get(core->ledger, id, &taken, err))
            return false;
        if (!taken.id)
            return true;
    }
    id_new(id);
    return true;
}

/* --- Answers --- */
static bool refuse(struct core *core, const struct inbound *in, const char *id,
                   const struct err *why, struct err *err)
{
    core->counters.refused++;
    log_warn("request_refused", LOG_STR("request", id), LOG_STR("code", err_code_name(why->code)),
             LOG_STR("message", why->message));
    struct wire_error error;
    char at[WIRE_AT_BYTES];
    wire_error_of(why, &error, at);
    const struct wire_refused refused = {.request = (char *)(uintptr_t)id, .error = &error};
    size_t len;
    SCOPED_FREE char *body = wire_encode(WIRE_REFUSED, &refused, &len, err);
    const char *correlation_id = in->correlation_id ? in->correlation_id : id;
    return body && outgoing_reply_to(core, in->reply_to, correlation_id, WIRE_REFUSED, body, err);
}

bool request_refuse(struct core *core, const struct inbound *in, const struct err *why,
                    struct err *err)
{
    char id[ID_BYTES] = "";
    bool known = in->correlation_id && id_is_valid(in->correlation_id);
    if (known)
        lower_id(in->correlation_id, id);
    return refuse(core, in, known ? id : NULL, why, err);
}

static bool accept(struct core *core, const struct inbound *in, const char *id, bool duplicate,
                   struct err *err)
{
    const struct wire_accepted accepted = {.request = (char *)(uintptr_t)id,
                                           .duplicate = duplicate};
    size_t len;
    SCOPED_FREE char *body = wire_encode(WIRE_ACCEPTED, &accepted, &len, err);
    const char *correlation_id = in->correlation_id ? in->correlation_id : id;
    return body && outgoing_reply_to(core, in->reply_to, correlation_id, WIRE_ACCEPTED, body, err);
}

/* --- The same once more --- */
static bool send_outcomes(struct core *core, const struct request *r, const struct inbound *in,
                          const char *correlation_id, struct err *err)
{
    for (int64_t after = 0;;) {
        SCOPED_TASKS struct task_list list = {0};
        if (!ledger_task_of_request(core->ledger, r->id, after, TASKS_AT_ONCE, &list, err))
            return false;
        if (list.count == 0)
            return true;
        after = list.v[list.count - 1].n;
        for (size_t i = 0; i < list.count; i++) {
            if (list.v[i].outcome && !outgoing_reply_to(core, in->reply_to, correlation_id,
                                                        WIRE_OUTCOME, list.v[i].outcome, err))
                return false;
        }
    }
}

/* Tell this requester what the first one was told so far, and whatever comes. */
static bool join(struct core *core, const struct request *r, const struct inbound *in,
                 struct err *err)
{
    core->counters.doubles++;
    log_info("request_joined", LOG_STR("request", r->id), LOG_STR("kind", r->kind),
             LOG_STR("state", request_state_name(r->state)));
    if (!in->reply_to)
        return true;
    const char *correlation_id = in->correlation_id ? in->correlation_id : r->id;
    if (!accept(core, in, r->id, true, err) || !send_outcomes(core, r, in, correlation_id, err))
        return false;
    if (r->finished)
        return outgoing_reply_to(core, in->reply_to, correlation_id, WIRE_FINISHED, r->finished,
                                 err);
    return ledger_reply_to_add(core->ledger, r->id, in->reply_to, correlation_id, err);
}

static bool is_told(struct core *core, const struct request *r, const struct inbound *in, bool *ret,
                    struct err *err)
{
    struct reply_to_list list;
    if (!ledger_reply_to_list(core->ledger, r->id, &list, err))
        return false;
    *ret = in->reply_to == NULL;
    for (size_t i = 0; i < list.count; i++)
        *ret |= in->reply_to && strcmp(list.v[i].queue, in->reply_to) == 0;
    reply_to_list_done(&list);
    return true;
}

/* Whether this very message was handled before. *ret_done: nothing more is to be done. The same
 * message from another reply queue comes from a requester that started anew. */
static bool see_double(struct core *core, const struct kind *kind, const struct inbound *in,
                       bool *ret_done, struct err *err)
{
    SCOPED_REQUEST struct request r = {0};
    *ret_done = false;
    if (!in->message_id && !(in->correlation_id && id_is_valid(in->correlation_id)))
        return true;
    char id[ID_BYTES] = "";
    if (in->correlation_id && id_is_valid(in->correlation_id))
        lower_id(in->correlation_id, id);
    if (!ledger_request_by_message(core->ledger, in->message_id,
                                   in->message_id ? in->correlation_id : id, kind->name, in->body,
                                   &r, err))
        return false;
    if (!r.id)
        return true;
    bool told = false;
    if (!is_told(core, &r, in, &told, err))
        return false;
    if (!told && r.pages > 0)
        return true; /* pages are not kept: the listing is made anew */
    *ret_done = true;
    if (!told)
        return join(core, &r, in, err);
    core->counters.doubles++;
    log_debug("request_double", LOG_STR("request", r.id), LOG_STR("message_id", in->message_id));
    return true;
}

/* --- A new one --- */
static bool begin(struct core *core, const struct kind *kind, const struct facts *facts,
                  const struct inbound *in, const char *id, const void *message, struct err *err)
{
    SCOPED_REQUEST struct request r = {
        .id = xstrdup(id),
        .kind = xstrdup(kind->name),
        .message_id = xstrdup_or_null(in->message_id),
        .correlation_id = xstrdup_or_null(in->correlation_id),
        .idempotency_key = xstrdup_or_null(facts->idempotency_key),
        .progress = facts->progress,
        .selected = true,
        .created_ms = core->now_ms,
    };
    if (!ledger_request_add(core->ledger, &r, in->body, err))
        return false;
    const char *correlation_id = in->correlation_id ? in->correlation_id : id;
    if (in->reply_to && !ledger_reply_to_add(core->ledger, r.id, in->reply_to, correlation_id, err))
        return false;
    core->counters.requests++;
    log_info("request_accepted", LOG_STR("request", r.id), LOG_STR("kind", r.kind),
             LOG_STR("idempotency_key", r.idempotency_key));
    return accept(core, in, r.id, false, err) && kind->plan(core, &r, message, err);
}

static bool answer(struct core *core, const struct kind *kind, const struct inbound *in,
                   const char *id, const void *message, struct err *err)
{
    if (!in->reply_to)
        return true;
    const char *correlation_id = in->correlation_id ? in->correlation_id : id;
    return accept(core, in, id, false, err) &&
           kind->answer(core, id, message, in->reply_to, correlation_id, err);
}

bool request_handle(struct core *core, const struct wire_message *m, const struct inbound *in,
                    struct err *err)
{
    const struct kind *kind = kind_of(m->type);
    if (!kind)
        return err_set(err, ERR_BAD_MESSAGE, 0, "a message of type '%s' is not a request",
                       wire_type_name(m->type));
    struct facts facts = kind->facts ? kind->facts(m->as) : (struct facts){0};
    bool done = false;
    if (kind->plan && !see_double(core, kind, in, &done, err))
        return false;
    if (done)
        return true;
    if (facts.idempotency_key) {
        SCOPED_REQUEST struct request earlier = {0};
        if (!ledger_request_by_key(core->ledger, kind->name, facts.idempotency_key, &earlier, err))
            return false;
        if (earlier.id)
            return join(core, &earlier, in, err);
    }
    char id[ID_BYTES];
    if (!choose_id(core, in, id, err))
        return false;
    struct err why = ERR_INIT;
    if (!kind->check(core, m->as, &why)) {
        if (ledger_is_broken(core->ledger)) {
            *err = why;
            return false;
        }
        return refuse(core, in, id, &why, err);
    }
    return kind->plan ? begin(core, kind, &facts, in, id, m->as, err)
                      : answer(core, kind, in, id, m->as, err);
}

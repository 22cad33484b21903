/* SPDX-License-Identifier: Apache-2.0 */
/* Workers, and the outbox. */
#include <string.h>

#include "coordinator/ledger/ledger_internal.h"

static const char *const states[] = {"up", "draining", "lost", NULL};

const char *worker_state_name(enum worker_state state)
{
    return states[state];
}

#define AT(member) offsetof(struct worker, member)
static const struct db_field worker_fields[] = {
    {"n", AT(n), DB_FIELD_INT, NULL},
    {"name", AT(name), DB_FIELD_TEXT, NULL},
    {"zone", AT(zone), DB_FIELD_TEXT, NULL},
    {"version", AT(version), DB_FIELD_TEXT, NULL},
    {"host", AT(host), DB_FIELD_TEXT, NULL},
    {"proxy", AT(proxy), DB_FIELD_TEXT, NULL},
    {"state", AT(state), DB_FIELD_WORD, states},
    {"slots_restore", AT(slots_restore), DB_FIELD_INT, NULL},
    {"slots_backup", AT(slots_backup), DB_FIELD_INT, NULL},
    {"slots_upkeep", AT(slots_upkeep), DB_FIELD_INT, NULL},
    {"first_ms", AT(first_ms), DB_FIELD_INT, NULL},
    {"seen_ms", AT(seen_ms), DB_FIELD_INT, NULL},
};
#undef AT
static const struct db_table worker_table = {"worker", sizeof(struct worker), worker_fields,
                                             ARRAY_LEN(worker_fields)};

void worker_done(struct worker *w)
{
    db_row_free(&worker_table, w);
}

void worker_list_done(struct worker_list *list)
{
    db_row_list_free(&worker_table, list->v, list->count);
    *list = (struct worker_list){0};
}

bool ledger_worker_save(struct ledger *l, struct worker *w, struct err *err)
{
    if (w->n == 0)
        return db_row_insert(l->db, &worker_table, w, err);
    return db_row_update(l->db, &worker_table, w, err);
}

bool ledger_worker_get(struct ledger *l, const char *name, struct worker *ret, struct err *err)
{
    return db_row_get(l->db, &worker_table, "SELECT * FROM worker WHERE name = ?",
                      DB_ARGS(DB_T(name)), ret, err);
}

bool ledger_worker_list(struct ledger *l, struct worker_list *ret, struct err *err)
{
    ret->v = db_row_list(l->db, &worker_table, "SELECT * FROM worker ORDER BY zone, name",
                         DB_NO_ARGS, &ret->count, err);
    return !err_is_set(err);
}

bool ledger_worker_delete(struct ledger *l, const char *name, struct err *err)
{
    return db_exec(l->db, "DELETE FROM worker WHERE name = ?", DB_ARGS(DB_T(name)), err);
}

bool ledger_worker_running(struct ledger *l, const char *name, int64_t *ret, struct err *err)
{
    return db_get_int(l->db, "SELECT count(*) FROM task WHERE state = 'running' AND worker = ?",
                      DB_ARGS(DB_T(name)), ret, err);
}

bool ledger_worker_running_in(struct ledger *l, const char *name, const char *lane, int64_t *ret,
                              struct err *err)
{
    return db_get_int(
        l->db, "SELECT count(*) FROM task WHERE state = 'running' AND worker = ? AND lane = ?",
        DB_ARGS(DB_T(name), DB_T(lane)), ret, err);
}

/* --- Outbox --- */
#define AT(member) offsetof(struct outgoing, member)
static const struct db_field outbox_fields[] = {
    {"n", AT(n), DB_FIELD_INT, NULL},
    {"exchange", AT(exchange), DB_FIELD_TEXT, NULL},
    {"routing_key", AT(routing_key), DB_FIELD_TEXT, NULL},
    {"type", AT(type), DB_FIELD_TEXT, NULL},
    {"message_id", AT(message_id), DB_FIELD_TEXT, NULL},
    {"correlation_id", AT(correlation_id), DB_FIELD_TEXT, NULL},
    {"optional_route", AT(optional_route), DB_FIELD_BOOL, NULL},
    {"body", AT(body), DB_FIELD_TEXT, NULL},
};
#undef AT
static const struct db_table outbox_table = {"outbox", sizeof(struct outgoing), outbox_fields,
                                             ARRAY_LEN(outbox_fields)};

void outgoing_list_done(struct outgoing_list *list)
{
    db_row_list_free(&outbox_table, list->v, list->count);
    *list = (struct outgoing_list){0};
}

bool ledger_outbox_add(struct ledger *l, struct outgoing *m, struct err *err)
{
    return db_row_insert(l->db, &outbox_table, m, err);
}

static bool outbox_query(struct ledger *l, const char *sql, const struct db_arg *args,
                         struct outgoing_list *ret, struct err *err)
{
    ret->v = db_row_list(l->db, &outbox_table, sql, args, &ret->count, err);
    return !err_is_set(err);
}

bool ledger_outbox_list(struct ledger *l, int64_t after_n, int64_t limit, struct outgoing_list *ret,
                        struct err *err)
{
    return outbox_query(l, "SELECT * FROM outbox WHERE n > ? ORDER BY n LIMIT ?",
                        DB_ARGS(DB_I(after_n), DB_I(limit)), ret, err);
}

bool ledger_outbox_get(struct ledger *l, int64_t n, struct outgoing_list *ret, struct err *err)
{
    return outbox_query(l, "SELECT * FROM outbox WHERE n = ?", DB_ARGS(DB_I(n)), ret, err);
}

bool ledger_outbox_delete(struct ledger *l, int64_t n, struct err *err)
{
    return db_exec(l->db, "DELETE FROM outbox WHERE n = ?", DB_ARGS(DB_I(n)), err);
}

bool ledger_outbox_count(struct ledger *l, int64_t *ret, struct err *err)
{
    return db_get_int(l->db, "SELECT count(*) FROM outbox", DB_NO_ARGS, ret, err);
}

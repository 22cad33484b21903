/* SPDX-License-Identifier: Apache-2.0 */
/* Requests and where their replies go. */
#include <string.h>

#include "coordinator/ledger/ledger_internal.h"

static const char *const states[] = {"running", "succeeded", "partly", "failed", "cancelled", NULL};

const char *request_state_name(enum request_state state)
{
    return states[state];
}

#define AT(member) offsetof(struct request, member)
static const struct db_field fields[] = {
    {"n", AT(n), DB_FIELD_INT, NULL},
    {"id", AT(id), DB_FIELD_TEXT, NULL},
    {"kind", AT(kind), DB_FIELD_TEXT, NULL},
    {"state", AT(state), DB_FIELD_WORD, states},
    {"message_id", AT(message_id), DB_FIELD_TEXT, NULL},
    {"correlation_id", AT(correlation_id), DB_FIELD_TEXT, NULL},
    {"idempotency_key", AT(idempotency_key), DB_FIELD_TEXT, NULL},
    {"progress", AT(progress), DB_FIELD_BOOL, NULL},
    {"cancel", AT(cancel), DB_FIELD_BOOL, NULL},
    {"selected", AT(selected), DB_FIELD_BOOL, NULL},
    {"created_ms", AT(created_ms), DB_FIELD_INT, NULL},
    {"finished_ms", AT(finished_ms), DB_FIELD_INT, NULL},
    {"open", AT(open), DB_FIELD_INT, NULL},
    {"selecting", AT(selecting), DB_FIELD_INT, NULL},
    {"total", AT(total), DB_FIELD_INT, NULL},
    {"succeeded", AT(succeeded), DB_FIELD_INT, NULL},
    {"failed", AT(failed), DB_FIELD_INT, NULL},
    {"cancelled", AT(cancelled), DB_FIELD_INT, NULL},
    {"pages", AT(pages), DB_FIELD_INT, NULL},
    ERROR_FIELDS(struct request),
    {"finished", AT(finished), DB_FIELD_TEXT, NULL},
    {"internal", AT(internal), DB_FIELD_BOOL, NULL},
};
#undef AT
static const struct db_table table = {"request", sizeof(struct request), fields, ARRAY_LEN(fields)};

void request_done(struct request *r)
{
    db_row_free(&table, r);
}

void request_list_done(struct request_list *list)
{
    db_row_list_free(&table, list->v, list->count);
    *list = (struct request_list){0};
}

bool ledger_request_add(struct ledger *l, struct request *r, const char *body, struct err *err)
{
    return db_row_insert(l->db, &table, r, err) &&
           db_exec(l->db, "INSERT INTO request_body(request, body) VALUES(?, ?)",
                   DB_ARGS(DB_T(r->id), DB_T(body)), err);
}

char *ledger_request_body(struct ledger *l, const char *id, struct err *err)
{
    SCOPED_ROWS struct db_rows rows = DB_ROWS_INIT;
    if (!db_query(l->db, &rows, "SELECT body FROM request_body WHERE request = ?",
                  DB_ARGS(DB_T(id)), err))
        return NULL;
    if (db_next(&rows, err))
        return xstrdup(db_text(&rows, 0));
    if (!err_is_set(err))
        err_set(err, ERR_NOT_FOUND, 0, "request %s has no body in the ledger", id);
    return NULL;
}

bool ledger_request_save(struct ledger *l, const struct request *r, struct err *err)
{
    return db_row_update(l->db, &table, r, err);
}

static bool get_one(struct ledger *l, const char *sql, const struct db_arg *args,
                    struct request *ret, struct err *err)
{
    return db_row_get(l->db, &table, sql, args, ret, err);
}

bool ledger_request_get(struct ledger *l, const char *id, struct request *ret, struct err *err)
{
    return get_one(l, "SELECT * FROM request WHERE id = ?", DB_ARGS(DB_T(id)), ret, err);
}

bool ledger_request_by_key(struct ledger *l, const char *kind, const char *key, struct request *ret,
                           struct err *err)
{
    return get_one(l, "SELECT * FROM request WHERE kind = ? AND idempotency_key = ?",
                   DB_ARGS(DB_T(kind), DB_T(key)), ret, err);
}

bool ledger_request_by_message(struct ledger *l, const char *message_id, const char *correlation_id,
                               const char *kind, const char *body, struct request *ret,
                               struct err *err)
{
    if (message_id)
        return get_one(l,
                       "SELECT r.* FROM request r JOIN request_body b ON b.request = r.id"
                       " WHERE r.message_id = ? AND r.correlation_id IS ?"
                       " AND r.kind = ? AND b.body = ?",
                       DB_ARGS(DB_T(message_id), DB_T(correlation_id), DB_T(kind), DB_T(body)), ret,
                       err);
    return get_one(l,
                   "SELECT r.* FROM request r JOIN request_body b ON b.request = r.id"
                   " WHERE r.id = ? AND r.kind = ? AND b.body = ?",
                   DB_ARGS(DB_T(correlation_id), DB_T(kind), DB_T(body)), ret, err);
}

bool ledger_request_newest(struct ledger *l, int64_t limit, struct request_list *ret,
                           struct err *err)
{
    ret->v = db_row_list(l->db, &table,
                         "SELECT * FROM request WHERE internal = 0 ORDER BY n DESC LIMIT ?",
                         DB_ARGS(DB_I(limit)), &ret->count, err);
    return !err_is_set(err);
}

bool ledger_request_prune(struct ledger *l, int64_t before_ms, int64_t internal_before_ms,
                          int64_t limit, int64_t *ret_count, struct err *err)
{
    if (!db_exec(l->db,
                 "DELETE FROM request WHERE n IN (SELECT n FROM request r"
                 " WHERE finished_ms > 0 AND finished_ms < CASE internal WHEN 0 THEN ?1 ELSE ?2 END"
                 " AND NOT EXISTS (SELECT 1 FROM task t"
                 "  WHERE t.request = r.id AND t.state IN ('waiting', 'offered', 'running'))"
                 " LIMIT ?3)",
                 DB_ARGS(DB_I(before_ms), DB_I(internal_before_ms), DB_I(limit)), err))
        return false;
    *ret_count = db_changes(l->db);
    return true;
}

void reply_to_list_done(struct reply_to_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->v[i].queue);
        free(list->v[i].correlation_id);
    }
    free(list->v);
    *list = (struct reply_to_list){0};
}

bool ledger_reply_to_add(struct ledger *l, const char *request, const char *queue,
                         const char *correlation_id, struct err *err)
{
    if (!db_exec(l->db,
                 "INSERT OR IGNORE INTO reply_to(request, queue, correlation_id) VALUES(?, ?, ?)",
                 DB_ARGS(DB_T(request), DB_T(queue), DB_T(correlation_id)), err))
        return false;
    return db_exec(l->db,
                   "DELETE FROM reply_to WHERE request = ?1 AND n NOT IN"
                   " (SELECT n FROM reply_to WHERE request = ?1 ORDER BY n DESC LIMIT ?2)",
                   DB_ARGS(DB_T(request), DB_I(LEDGER_REPLY_TO_MAX)), err);
}

bool ledger_reply_to_list(struct ledger *l, const char *request, struct reply_to_list *ret,
                          struct err *err)
{
    *ret = (struct reply_to_list){0};
    SCOPED_ROWS struct db_rows rows = DB_ROWS_INIT;
    if (!db_query(l->db, &rows,
                  "SELECT queue, correlation_id FROM reply_to WHERE request = ? ORDER BY n",
                  DB_ARGS(DB_T(request)), err))
        return false;
    while (db_next(&rows, err)) {
        struct reply_to *to = LIST_ADD(ret);
        to->queue = xstrdup(db_text(&rows, 0));
        to->correlation_id = xstrdup_or_null(db_text(&rows, 1));
    }
    if (!err_is_set(err))
        return true;
    reply_to_list_done(ret);
    return false;
}

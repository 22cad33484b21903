/* SPDX-License-Identifier: Apache-2.0 */
/* What attempts did: attempts, step events, fences, listing pages, leftovers, cancels. */
#include <string.h>

#include "coordinator/ledger/ledger_internal.h"

/* --- Attempts --- */
void attempt_list_done(struct attempt_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        struct attempt *a = &list->v[i];
        free(a->worker);
        free(a->step);
        free(a->ended);
        free(a->code);
        free(a->message);
    }
    free(list->v);
    *list = (struct attempt_list){0};
}

bool ledger_attempt_add(struct ledger *l, const struct task *t, int64_t now_ms, struct err *err)
{
    return db_exec(
        l->db,
        "INSERT INTO attempt(task, attempt, fence, worker, granted_ms)"
        " VALUES(?, ?, ?, ?, ?)",
        DB_ARGS(DB_T(t->id), DB_I(t->attempt), DB_I(t->fence), DB_T(t->worker), DB_I(now_ms)), err);
}

bool ledger_attempt_end(struct ledger *l, const struct task *t, const char *ended,
                        const struct ledger_error *error, int64_t now_ms, struct err *err)
{
    return db_exec(l->db,
                   "UPDATE attempt SET ended = ?, ended_ms = ?, step = ?, err_code = ?,"
                   " err_message = ? WHERE task = ? AND attempt = ?",
                   DB_ARGS(DB_T(ended), DB_I(now_ms), DB_T(t->step),
                           DB_T(error ? error->code : NULL), DB_T(error ? error->message : NULL),
                           DB_T(t->id), DB_I(t->attempt)),
                   err);
}

bool ledger_attempt_list(struct ledger *l, const char *task, struct attempt_list *ret,
                         struct err *err)
{
    *ret = (struct attempt_list){0};
    SCOPED_ROWS struct db_rows rows = DB_ROWS_INIT;
    if (!db_query(l->db, &rows,
                  "SELECT attempt, fence, worker, granted_ms, ended_ms, step, ended, err_code,"
                  " err_message FROM attempt WHERE task = ? ORDER BY attempt",
                  DB_ARGS(DB_T(task)), err))
        return false;
    while (db_next(&rows, err)) {
        struct attempt *a = LIST_ADD(ret);
        a->attempt = db_int(&rows, 0);
        a->fence = db_int(&rows, 1);
        a->worker = xstrdup(db_text(&rows, 2));
        a->granted_ms = db_int(&rows, 3);
        a->ended_ms = db_int(&rows, 4);
        a->step = xstrdup_or_null(db_text(&rows, 5));
        a->ended = xstrdup_or_null(db_text(&rows, 6));
        a->code = xstrdup_or_null(db_text(&rows, 7));
        a->message = xstrdup_or_null(db_text(&rows, 8));
    }
    if (!err_is_set(err))
        return true;
    attempt_list_done(ret);
    return false;
}

/* --- Journal --- */
void journal_list_done(struct journal_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->v[i].body);
    free(list->v);
    *list = (struct journal_list){0};
}

bool ledger_journal_add(struct ledger *l, const char *task, const struct journal_row *row,
                        int64_t now_ms, bool *ret_added, struct err *err)
{
    if (!db_exec(l->db,
                 "INSERT OR IGNORE INTO journal(task, attempt, fence, seq, stale, at_ms, body)"
                 " VALUES(?, ?, ?, ?, ?, ?, ?)",
                 DB_ARGS(DB_T(task), DB_I(row->attempt), DB_I(row->fence), DB_I(row->seq),
                         DB_I(row->stale), DB_I(now_ms), DB_T(row->body)),
                 err))
        return false;
    *ret_added = db_changes(l->db) > 0;
    return true;
}

bool ledger_journal_list(struct ledger *l, const char *task, int64_t limit,
                         struct journal_list *ret, struct err *err)
{
    *ret = (struct journal_list){0};
    SCOPED_ROWS struct db_rows rows = DB_ROWS_INIT;
    if (!db_query(l->db, &rows,
                  "SELECT * FROM (SELECT n, attempt, fence, seq, stale, body FROM journal"
                  " WHERE task = ? ORDER BY n DESC LIMIT ?) ORDER BY attempt, n",
                  DB_ARGS(DB_T(task), DB_I(limit)), err))
        return false;
    while (db_next(&rows, err)) {
        struct journal_row *row = LIST_ADD(ret);
        row->attempt = db_int(&rows, 1);
        row->fence = db_int(&rows, 2);
        row->seq = db_int(&rows, 3);
        row->stale = db_int(&rows, 4) != 0;
        row->body = xstrdup(db_text(&rows, 5));
    }
    if (!err_is_set(err))
        return true;
    journal_list_done(ret);
    return false;
}

bool ledger_fence_next(struct ledger *l, const char *vm, int64_t *ret, struct err *err)
{
    return db_exec(l->db,
                   "INSERT INTO fence(vm, last) VALUES(?, 1)"
                   " ON CONFLICT(vm) DO UPDATE SET last = last + 1",
                   DB_ARGS(DB_T(vm)), err) &&
           db_get_int(l->db, "SELECT last FROM fence WHERE vm = ?", DB_ARGS(DB_T(vm)), ret, err);
}

/* --- Listing pages --- */
bool ledger_items_add(struct ledger *l, const char *task, int64_t attempt, int64_t page,
                      const char *body, struct err *err)
{
    return db_exec(l->db,
                   "INSERT OR IGNORE INTO items(task, attempt, page, body) VALUES(?, ?, ?, ?)",
                   DB_ARGS(DB_T(task), DB_I(attempt), DB_I(page), DB_T(body)), err);
}

bool ledger_items_count(struct ledger *l, const char *task, int64_t attempt, int64_t *ret,
                        struct err *err)
{
    return db_get_int(l->db, "SELECT count(*) FROM items WHERE task = ? AND attempt = ?",
                      DB_ARGS(DB_T(task), DB_I(attempt)), ret, err);
}

bool ledger_items_get(struct ledger *l, const char *task, int64_t attempt, int64_t page,
                      char **ret_body, struct err *err)
{
    SCOPED_ROWS struct db_rows rows = DB_ROWS_INIT;
    if (!db_query(l->db, &rows,
                  "SELECT body FROM items WHERE task = ? AND attempt = ? AND page = ?",
                  DB_ARGS(DB_T(task), DB_I(attempt), DB_I(page)), err))
        return false;
    bool found = db_next(&rows, err);
    if (err_is_set(err))
        return false;
    *ret_body = found ? xstrdup(db_text(&rows, 0)) : NULL;
    return true;
}

bool ledger_items_delete(struct ledger *l, const char *task, struct err *err)
{
    return db_exec(l->db, "DELETE FROM items WHERE task = ?", DB_ARGS(DB_T(task)), err);
}

/* --- Leftovers --- */
void leftover_list_done(struct leftover_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->v[i].kind);
        free(list->v[i].vm);
        free(list->v[i].item);
    }
    free(list->v);
    *list = (struct leftover_list){0};
}

bool ledger_leftover_add(struct ledger *l, const char *task, const char *kind, const char *vm,
                         const char *item, struct err *err)
{
    return db_exec(l->db, "INSERT OR IGNORE INTO leftover(task, kind, vm, item) VALUES(?, ?, ?, ?)",
                   DB_ARGS(DB_T(task), DB_T(kind), DB_T(vm ? vm : ""), DB_T(item ? item : "")),
                   err);
}

bool ledger_leftover_list(struct ledger *l, const char *task, int64_t limit,
                          struct leftover_list *ret, struct err *err)
{
    *ret = (struct leftover_list){0};
    SCOPED_ROWS struct db_rows rows = DB_ROWS_INIT;
    if (!db_query(l->db, &rows,
                  "SELECT n, kind, vm, item FROM leftover WHERE task = ? ORDER BY n LIMIT ?",
                  DB_ARGS(DB_T(task), DB_I(limit)), err))
        return false;
    while (db_next(&rows, err)) {
        struct leftover *left = LIST_ADD(ret);
        left->n = db_int(&rows, 0);
        left->kind = xstrdup(db_text(&rows, 1));
        left->vm = xstrdup(db_text(&rows, 2));
        left->item = xstrdup(db_text(&rows, 3));
    }
    if (!err_is_set(err))
        return true;
    leftover_list_done(ret);
    return false;
}

bool ledger_leftover_delete(struct ledger *l, const char *task, int64_t upto_n, struct err *err)
{
    return db_exec(l->db, "DELETE FROM leftover WHERE task = ? AND n <= ?",
                   DB_ARGS(DB_T(task), DB_I(upto_n)), err);
}

bool ledger_leftover_count(struct ledger *l, const char *task, int64_t *ret, struct err *err)
{
    return db_get_int(l->db, "SELECT count(*) FROM leftover WHERE task = ?", DB_ARGS(DB_T(task)),
                      ret, err);
}

/* --- Cancels --- */
bool ledger_cancel_wait_add(struct ledger *l, const char *request, const char *task,
                            struct err *err)
{
    return db_exec(l->db, "INSERT OR IGNORE INTO cancel_wait(request, task) VALUES(?, ?)",
                   DB_ARGS(DB_T(request), DB_T(task)), err);
}

bool ledger_cancel_wait_of(struct ledger *l, const char *task, char ***ret_ids, size_t *ret_count,
                           struct err *err)
{
    struct {
        char **v;
        size_t count;
    } ids = {0};
    SCOPED_ROWS struct db_rows rows = DB_ROWS_INIT;
    if (!db_query(l->db, &rows, "SELECT request FROM cancel_wait WHERE task = ?",
                  DB_ARGS(DB_T(task)), err))
        return false;
    while (db_next(&rows, err))
        *LIST_ADD(&ids) = xstrdup(db_text(&rows, 0));
    *ret_ids = ids.v;
    *ret_count = ids.count;
    return !err_is_set(err);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks, and the questions that admission and the timers ask about them. */
#include <string.h>

#include "coordinator/ledger/ledger_internal.h"

static const char *const states[] = {"waiting", "offered",   "running", "succeeded",
                                     "failed",  "cancelled", NULL};
static const char *const roles[] = {"main", "select", "cleanup", "adopted", "part", NULL};
static const char *const stops[] = {"no", "cancel", "deadline", NULL};

const char *task_state_name(enum task_state state)
{
    return states[state];
}

#define AT(member) offsetof(struct task, member)
static const struct db_field fields[] = {
    {"n", AT(n), DB_FIELD_INT, NULL},
    {"id", AT(id), DB_FIELD_TEXT, NULL},
    {"request", AT(request), DB_FIELD_TEXT, NULL},
    {"role", AT(role), DB_FIELD_WORD, roles},
    {"kind", AT(kind), DB_FIELD_TEXT, NULL},
    {"zone", AT(zone), DB_FIELD_TEXT, NULL},
    {"lane", AT(lane), DB_FIELD_TEXT, NULL},
    {"vm", AT(vm), DB_FIELD_TEXT, NULL},
    {"vm_name", AT(vm_name), DB_FIELD_TEXT, NULL},
    {"state", AT(state), DB_FIELD_WORD, states},
    {"attempt", AT(attempt), DB_FIELD_INT, NULL},
    {"failures", AT(failures), DB_FIELD_INT, NULL},
    {"not_before_ms", AT(not_before_ms), DB_FIELD_INT, NULL},
    {"created_ms", AT(created_ms), DB_FIELD_INT, NULL},
    {"offered_ms", AT(offered_ms), DB_FIELD_INT, NULL},
    {"started_ms", AT(started_ms), DB_FIELD_INT, NULL},
    {"finished_ms", AT(finished_ms), DB_FIELD_INT, NULL},
    {"deadline_s", AT(deadline_s), DB_FIELD_INT, NULL},
    {"deadline_ms", AT(deadline_ms), DB_FIELD_INT, NULL},
    {"worker", AT(worker), DB_FIELD_TEXT, NULL},
    {"fence", AT(fence), DB_FIELD_INT, NULL},
    {"claim_id", AT(claim_id), DB_FIELD_TEXT, NULL},
    {"seq", AT(seq), DB_FIELD_INT, NULL},
    {"step", AT(step), DB_FIELD_TEXT, NULL},
    {"stop", AT(stop), DB_FIELD_WORD, stops},
    {"stop_sent_ms", AT(stop_sent_ms), DB_FIELD_INT, NULL},
    {"cleanup_of", AT(cleanup_of), DB_FIELD_TEXT, NULL},
    {"cleanup_upto", AT(cleanup_upto), DB_FIELD_INT, NULL},
    {"point", AT(point), DB_FIELD_TEXT, NULL},
    {"new_vm", AT(new_vm), DB_FIELD_TEXT, NULL},
    ERROR_FIELDS(struct task),
    {"input", AT(input), DB_FIELD_TEXT, NULL},
    {"outcome", AT(outcome), DB_FIELD_TEXT, NULL},
    {"avoid", AT(avoid), DB_FIELD_TEXT, NULL},
    {"avoided", AT(avoided), DB_FIELD_INT, NULL},
    {"stop_ms", AT(stop_ms), DB_FIELD_INT, NULL},
    {"part_of", AT(part_of), DB_FIELD_TEXT, NULL},
    {"part_fence", AT(part_fence), DB_FIELD_INT, NULL},
    {"part_n", AT(part_n), DB_FIELD_INT, NULL},
    {"bytes_done", AT(bytes_done), DB_FIELD_INT, NULL},
    {"bytes_total", AT(bytes_total), DB_FIELD_INT, NULL},
    {"result", AT(result), DB_FIELD_TEXT, NULL},
};
#undef AT
static const struct db_table table = {"task", sizeof(struct task), fields, ARRAY_LEN(fields)};

void task_done(struct task *t)
{
    db_row_free(&table, t);
}

void task_list_done(struct task_list *list)
{
    db_row_list_free(&table, list->v, list->count);
    *list = (struct task_list){0};
}

bool ledger_task_add(struct ledger *l, struct task *t, struct err *err)
{
    return db_row_insert(l->db, &table, t, err);
}

bool ledger_task_save(struct ledger *l, const struct task *t, struct err *err)
{
    return db_row_update(l->db, &table, t, err);
}

bool ledger_task_save_step(struct ledger *l, const struct task *t, struct err *err)
{
    return db_exec(l->db, "UPDATE task SET seq = ?, step = ? WHERE n = ?",
                   DB_ARGS(DB_I(t->seq), DB_T(t->step), DB_I(t->n)), err);
}

static bool get_one(struct ledger *l, const char *sql, const struct db_arg *args, struct task *ret,
                    struct err *err)
{
    return db_row_get(l->db, &table, sql, args, ret, err);
}

static bool get_list(struct ledger *l, const char *sql, const struct db_arg *args,
                     struct task_list *ret, struct err *err)
{
    ret->v = db_row_list(l->db, &table, sql, args, &ret->count, err);
    return !err_is_set(err);
}

bool ledger_task_get(struct ledger *l, const char *id, struct task *ret, struct err *err)
{
    return get_one(l, "SELECT * FROM task WHERE id = ?", DB_ARGS(DB_T(id)), ret, err);
}

bool ledger_task_of_request(struct ledger *l, const char *request, int64_t after_n, int64_t limit,
                            struct task_list *ret, struct err *err)
{
    return get_list(l, "SELECT * FROM task WHERE request = ? AND n > ? ORDER BY n LIMIT ?",
                    DB_ARGS(DB_T(request), DB_I(after_n), DB_I(limit)), ret, err);
}

bool ledger_task_open_of_request(struct ledger *l, const char *request, struct task_list *ret,
                                 struct err *err)
{
    return get_list(
        l,
        "SELECT * FROM task WHERE request = ? AND role NOT IN ('cleanup', 'adopted', 'part')"
        " AND state IN ('waiting', 'offered', 'running') ORDER BY n",
        DB_ARGS(DB_T(request)), ret, err);
}

bool ledger_task_running(struct ledger *l, struct task_list *ret, struct err *err)
{
    return get_list(l, "SELECT * FROM task WHERE state = 'running' ORDER BY n", DB_NO_ARGS, ret,
                    err);
}

bool ledger_task_stopped(struct ledger *l, int64_t before_ms, struct task_list *ret,
                         struct err *err)
{
    return get_list(l,
                    "SELECT * FROM task WHERE state = 'running' AND stop <> 'no'"
                    " AND stop_ms > 0 AND stop_ms <= ? ORDER BY n",
                    DB_ARGS(DB_I(before_ms)), ret, err);
}

bool ledger_task_cleanup_of(struct ledger *l, const char *task, struct task *ret, struct err *err)
{
    return get_one(l,
                   "SELECT * FROM task WHERE cleanup_of = ?"
                   " AND state IN ('waiting', 'offered', 'running')",
                   DB_ARGS(DB_T(task)), ret, err);
}

bool ledger_task_waiting(struct ledger *l, const char *zone, const char *lane, int64_t now_ms,
                         int64_t limit, struct task_list *ret, struct err *err)
{
    return get_list(l,
                    "SELECT * FROM task t WHERE state = 'waiting' AND zone = ? AND lane = ?"
                    " AND not_before_ms <= ? AND part_of IS NULL"
                    " AND (vm IS NULL OR NOT EXISTS (SELECT 1 FROM task a"
                    "  WHERE a.vm = t.vm AND a.state IN ('offered', 'running')))"
                    " AND NOT EXISTS (SELECT 1 FROM task p"
                    "  WHERE p.part_of = ifnull(t.cleanup_of, t.id)"
                    "  AND p.state IN ('waiting', 'offered', 'running'))"
                    " ORDER BY n LIMIT ?",
                    DB_ARGS(DB_T(zone), DB_T(lane), DB_I(now_ms), DB_I(limit)), ret, err);
}

bool ledger_task_waiting_parts(struct ledger *l, const char *zone, const char *lane, int64_t now_ms,
                               int64_t limit, struct task_list *ret, struct err *err)
{
    return get_list(l,
                    "SELECT * FROM task WHERE state = 'waiting' AND zone = ? AND lane = ?"
                    " AND not_before_ms <= ? AND part_of IS NOT NULL ORDER BY n LIMIT ?",
                    DB_ARGS(DB_T(zone), DB_T(lane), DB_I(now_ms), DB_I(limit)), ret, err);
}

bool ledger_task_parts(struct ledger *l, const char *part_of, int64_t fence, struct task_list *ret,
                       struct err *err)
{
    return get_list(l,
                    "SELECT * FROM task WHERE part_of = ?1 AND (?2 = 0 OR part_fence = ?2)"
                    " ORDER BY part_fence, part_n",
                    DB_ARGS(DB_T(part_of), DB_I(fence)), ret, err);
}

bool ledger_task_part(struct ledger *l, const char *part_of, int64_t fence, int64_t n,
                      struct task *ret, struct err *err)
{
    return get_one(l, "SELECT * FROM task WHERE part_of = ? AND part_fence = ? AND part_n = ?",
                   DB_ARGS(DB_T(part_of), DB_I(fence), DB_I(n)), ret, err);
}

#define OPEN_CLEANUPS                                                                              \
    " FROM task WHERE role = 'cleanup' AND state IN ('waiting', 'offered', 'running')"
bool ledger_task_cleanups(struct ledger *l, int64_t *ret_count, int64_t *ret_oldest_ms,
                          struct err *err)
{
    return db_get_int(l->db, "SELECT count(*)" OPEN_CLEANUPS, DB_NO_ARGS, ret_count, err) &&
           db_get_int(l->db, "SELECT min(created_ms)" OPEN_CLEANUPS, DB_NO_ARGS, ret_oldest_ms,
                      err);
}

static bool exists(struct ledger *l, const char *sql, const struct db_arg *args, bool *ret,
                   struct err *err)
{
    int64_t found = 0;
    if (!db_get_int(l->db, sql, args, &found, err))
        return false;
    *ret = found != 0;
    return true;
}

bool ledger_task_has_open_part(struct ledger *l, const char *part_of, bool *ret, struct err *err)
{
    return exists(l,
                  "SELECT 1 FROM task WHERE part_of = ?"
                  " AND state IN ('waiting', 'offered', 'running') LIMIT 1",
                  DB_ARGS(DB_T(part_of)), ret, err);
}

bool ledger_vm_is_busy(struct ledger *l, const char *vm, bool *ret, struct err *err)
{
    return exists(l, "SELECT 1 FROM task WHERE vm = ? AND state IN ('offered', 'running')",
                  DB_ARGS(DB_T(vm)), ret, err);
}

bool ledger_task_has_vm(struct ledger *l, const char *request, const char *vm, bool *ret,
                        struct err *err)
{
    return exists(l, "SELECT 1 FROM task WHERE request = ? AND role = 'main' AND vm = ?",
                  DB_ARGS(DB_T(request), DB_T(vm)), ret, err);
}

bool ledger_task_has_vm_name(struct ledger *l, const char *request, const char *name, bool *ret,
                             struct err *err)
{
    return exists(l, "SELECT 1 FROM task WHERE request = ? AND role = 'main' AND vm_name = ?",
                  DB_ARGS(DB_T(request), DB_T(name)), ret, err);
}

bool ledger_select_failure(struct ledger *l, const char *request, char **ret_code, char **ret_zone,
                           struct err *err)
{
    SCOPED_ROWS struct db_rows rows = DB_ROWS_INIT;
    if (!db_query(l->db, &rows,
                  "SELECT err_code, zone FROM task WHERE request = ? AND role = 'select'"
                  " AND state = 'failed' ORDER BY n LIMIT 1",
                  DB_ARGS(DB_T(request)), err))
        return false;
    bool found = db_next(&rows, err);
    if (err_is_set(err))
        return false;
    *ret_code = found ? xstrdup_or_null(db_text(&rows, 0)) : NULL;
    *ret_zone = found ? xstrdup(db_text(&rows, 1)) : NULL;
    return true;
}

bool ledger_task_past_deadline(struct ledger *l, int64_t now_ms, struct task_list *ret,
                               struct err *err)
{
    return get_list(
        l,
        "SELECT * FROM task WHERE deadline_ms > 0 AND deadline_ms <= ? AND stop = 'no'"
        " AND state IN ('waiting', 'offered', 'running') ORDER BY deadline_ms LIMIT 100",
        DB_ARGS(DB_I(now_ms)), ret, err);
}

bool ledger_task_stale_offers(struct ledger *l, int64_t before_ms, struct task_list *ret,
                              struct err *err)
{
    return get_list(l,
                    "SELECT * FROM task WHERE state = 'offered' AND offered_ms < ?"
                    " ORDER BY n LIMIT 100",
                    DB_ARGS(DB_I(before_ms)), ret, err);
}

bool ledger_next_not_before(struct ledger *l, int64_t now_ms, int64_t *ret_ms, struct err *err)
{
    return db_get_int(l->db,
                      "SELECT min(not_before_ms) FROM task WHERE state = 'waiting'"
                      " AND not_before_ms > 0 AND not_before_ms > ?",
                      DB_ARGS(DB_I(now_ms)), ret_ms, err);
}

bool ledger_has_retry(struct ledger *l, int64_t after_ms, int64_t now_ms, bool *ret,
                      struct err *err)
{
    return exists(l,
                  "SELECT 1 FROM task WHERE state = 'waiting' AND not_before_ms > 0"
                  " AND not_before_ms > ? AND not_before_ms <= ? LIMIT 1",
                  DB_ARGS(DB_I(after_ms), DB_I(now_ms)), ret, err);
}

bool ledger_next_deadline(struct ledger *l, int64_t *ret_ms, struct err *err)
{
    return db_get_int(l->db,
                      "SELECT min(deadline_ms) FROM task WHERE deadline_ms > 0 AND stop = 'no'"
                      " AND state IN ('waiting', 'offered', 'running')",
                      DB_NO_ARGS, ret_ms, err);
}

bool ledger_clamp_times(struct ledger *l, int64_t now_ms, int64_t longest_wait_ms, struct err *err)
{
    return db_exec(l->db,
                   "UPDATE task SET not_before_ms = ?1 WHERE state = 'waiting'"
                   " AND not_before_ms > ?1",
                   DB_ARGS(DB_I(now_ms + longest_wait_ms)), err) &&
           db_exec(l->db,
                   "UPDATE task SET deadline_ms = ?1 + deadline_s * 1000 WHERE deadline_ms > 0"
                   " AND stop = 'no' AND state IN ('waiting', 'offered', 'running')"
                   " AND deadline_ms > ?1 + deadline_s * 1000",
                   DB_ARGS(DB_I(now_ms)), err) &&
           db_exec(l->db,
                   "UPDATE task SET offered_ms = ?1 WHERE state = 'offered' AND offered_ms > ?1",
                   DB_ARGS(DB_I(now_ms)), err);
}

void load_list_done(struct load_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->v[i].zone);
        free(list->v[i].lane);
    }
    free(list->v);
    *list = (struct load_list){0};
}

bool ledger_load(struct ledger *l, struct load_list *ret, struct err *err)
{
    *ret = (struct load_list){0};
    SCOPED_ROWS struct db_rows rows = DB_ROWS_INIT;
    if (!db_query(l->db, &rows,
                  "SELECT zone, lane, sum(state = 'offered'), sum(state = 'running') FROM task"
                  " WHERE state IN ('offered', 'running') GROUP BY zone, lane",
                  DB_NO_ARGS, err))
        return false;
    while (db_next(&rows, err)) {
        struct load *load = LIST_ADD(ret);
        load->zone = xstrdup(db_text(&rows, 0));
        load->lane = xstrdup(db_text(&rows, 1));
        load->offered = db_int(&rows, 2);
        load->running = db_int(&rows, 3);
    }
    if (!err_is_set(err))
        return true;
    load_list_done(ret);
    return false;
}

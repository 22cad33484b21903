/* SPDX-License-Identifier: Apache-2.0 */
/* What sweeps counted, and the numbers that the gauges show. */
#include <string.h>

#include "coordinator/ledger/ledger_internal.h"

#define AT(member) offsetof(struct sweep, member)
static const struct db_field fields[] = {
    {"n", AT(n), DB_FIELD_INT, NULL},
    {"zone", AT(zone), DB_FIELD_TEXT, NULL},
    {"at_ms", AT(at_ms), DB_FIELD_INT, NULL},
    {"snapshots", AT(snapshots), DB_FIELD_INT, NULL},
    {"oldest_ms", AT(oldest_ms), DB_FIELD_INT, NULL},
    {"attachments", AT(attachments), DB_FIELD_INT, NULL},
    {"transfers", AT(transfers), DB_FIELD_INT, NULL},
    {"half_made", AT(half_made), DB_FIELD_INT, NULL},
    {"left_behind", AT(left_behind), DB_FIELD_INT, NULL},
    {"foreign_things", AT(foreign_things), DB_FIELD_INT, NULL},
};
#undef AT
static const struct db_table table = {"sweep", sizeof(struct sweep), fields, ARRAY_LEN(fields)};

void sweep_done(struct sweep *s)
{
    db_row_free(&table, s);
}

void sweep_list_done(struct sweep_list *list)
{
    db_row_list_free(&table, list->v, list->count);
    *list = (struct sweep_list){0};
}

bool ledger_sweep_save(struct ledger *l, struct sweep *s, struct err *err)
{
    return s->n ? db_row_update(l->db, &table, s, err) : db_row_insert(l->db, &table, s, err);
}

bool ledger_sweep_get(struct ledger *l, const char *zone, struct sweep *ret, struct err *err)
{
    return db_row_get(l->db, &table, "SELECT * FROM sweep WHERE zone = ?", DB_ARGS(DB_T(zone)), ret,
                      err);
}

bool ledger_sweep_list(struct ledger *l, struct sweep_list *ret, struct err *err)
{
    ret->v = db_row_list(l->db, &table, "SELECT * FROM sweep ORDER BY zone", DB_NO_ARGS,
                         &ret->count, err);
    return !err_is_set(err);
}

bool ledger_sweep_is_open(struct ledger *l, const char *zone, bool *ret, struct err *err)
{
    int64_t found = 0;
    if (!db_get_int(l->db,
                    "SELECT 1 FROM task WHERE kind = 'sweep' AND zone = ?"
                    " AND state IN ('waiting', 'offered', 'running')",
                    DB_ARGS(DB_T(zone)), &found, err))
        return false;
    *ret = found != 0;
    return true;
}

void crowd_list_done(struct crowd_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->v[i].zone);
        free(list->v[i].lane);
    }
    free(list->v);
    *list = (struct crowd_list){0};
}

bool ledger_crowd(struct ledger *l, struct crowd_list *ret, struct err *err)
{
    *ret = (struct crowd_list){0};
    SCOPED_ROWS struct db_rows rows = DB_ROWS_INIT;
    if (!db_query(l->db, &rows,
                  "SELECT zone, lane, sum(waits), sum(runs) FROM"
                  " (SELECT zone, lane, count(*) AS waits, 0 AS runs FROM task"
                  "  WHERE state = 'waiting' GROUP BY zone, lane UNION ALL"
                  "  SELECT zone, lane, sum(state = 'offered'), sum(state = 'running') FROM task"
                  "  WHERE state IN ('offered', 'running') GROUP BY zone, lane)"
                  " GROUP BY zone, lane ORDER BY zone, lane",
                  DB_NO_ARGS, err))
        return false;
    while (db_next(&rows, err)) {
        struct crowd *c = LIST_ADD(ret);
        c->zone = xstrdup(db_text(&rows, 0));
        c->lane = xstrdup(db_text(&rows, 1));
        c->waiting = db_int(&rows, 2);
        c->running = db_int(&rows, 3);
    }
    if (!err_is_set(err))
        return true;
    crowd_list_done(ret);
    return false;
}

bool ledger_cleanups(struct ledger *l, int64_t *ret_count, int64_t *ret_oldest_ms, struct err *err)
{
    SCOPED_ROWS struct db_rows rows = DB_ROWS_INIT;
    if (!db_query(l->db, &rows,
                  "SELECT count(*), min(created_ms) FROM task WHERE cleanup_of IS NOT NULL"
                  " AND state IN ('waiting', 'offered', 'running')",
                  DB_NO_ARGS, err) ||
        !db_next(&rows, err))
        return false;
    *ret_count = db_int(&rows, 0);
    *ret_oldest_ms = db_int(&rows, 1);
    return true;
}

bool ledger_quarantined(struct ledger *l, int64_t *ret, struct err *err)
{
    return db_get_int(l->db, "SELECT count(*) FROM task WHERE err_code = 'quarantined'", DB_NO_ARGS,
                      ret, err);
}

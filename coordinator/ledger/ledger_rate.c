/* SPDX-License-Identifier: Apache-2.0 */
/* How fast earlier backups were. */
#include "coordinator/ledger/ledger_internal.h"

#define AT(member) offsetof(struct rate, member)
static const struct db_field fields[] = {
    {"n", AT(n), DB_FIELD_INT, NULL},
    {"zone", AT(zone), DB_FIELD_TEXT, NULL},
    {"path", AT(path), DB_FIELD_TEXT, NULL},
    {"bytes_per_s", AT(bytes_per_s), DB_FIELD_INT, NULL},
    {"samples", AT(samples), DB_FIELD_INT, NULL},
    {"at_ms", AT(at_ms), DB_FIELD_INT, NULL},
};
#undef AT
static const struct db_table table = {"rate", sizeof(struct rate), fields, ARRAY_LEN(fields)};

void rate_done(struct rate *r)
{
    db_row_free(&table, r);
}

void rate_list_done(struct rate_list *list)
{
    db_row_list_free(&table, list->v, list->count);
    *list = (struct rate_list){0};
}

bool ledger_rate_save(struct ledger *l, struct rate *r, struct err *err)
{
    return r->n ? db_row_update(l->db, &table, r, err) : db_row_insert(l->db, &table, r, err);
}

bool ledger_rate_get(struct ledger *l, const char *zone, const char *path, struct rate *ret,
                     struct err *err)
{
    return db_row_get(l->db, &table, "SELECT * FROM rate WHERE zone = ? AND path = ?",
                      DB_ARGS(DB_T(zone), DB_T(path)), ret, err);
}

bool ledger_rate_list(struct ledger *l, const char *zone, struct rate_list *ret, struct err *err)
{
    ret->v = db_row_list(l->db, &table, "SELECT * FROM rate WHERE zone = ? ORDER BY path",
                         DB_ARGS(DB_T(zone)), &ret->count, err);
    return !err_is_set(err);
}

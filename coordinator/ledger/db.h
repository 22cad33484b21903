/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thin layer over SQLite: cached statements, typed arguments, rows mapped to structs by a table,
 * and SQLite's codes turned into error values. Only coordinator/ledger uses it.
 *
 *     SCOPED_ROWS struct db_rows rows = DB_ROWS_INIT;
 *     if (!db_query(db, &rows, "SELECT last FROM fence WHERE vm = ?", DB_ARGS(DB_T(vm)), err))
 *         return false;
 *     if (db_next(&rows, err))
 *         last = db_int(&rows, 0);
 *     if (err_is_set(err)) return false;
 *
 * A fault of the file itself (disk full, I/O error, damage, another writer) makes the handle
 * "broken": nothing written since the last commit is kept, and the program should end.
 *
 * SQL is passed as string literals or strings that live as long as the handle: statements are
 * cached by address. Threads: one at a time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/alloc.h"
#include "proto/base/err.h"

struct db;
struct db_stmt;

struct db_arg {
    enum { DB_ARG_END, DB_ARG_TEXT, DB_ARG_INT } type;
    const char *text; /* NULL is SQL NULL */
    int64_t number;
};
#define DB_T(v)      ((struct db_arg){.type = DB_ARG_TEXT, .text = (v)})
#define DB_I(v)      ((struct db_arg){.type = DB_ARG_INT, .number = (v)})
#define DB_ARGS(...) ((const struct db_arg[]){__VA_ARGS__, {.type = DB_ARG_END}})
#define DB_NO_ARGS   ((const struct db_arg[]){{.type = DB_ARG_END}})

struct db_rows {
    struct db_stmt *stmt;
};
#define DB_ROWS_INIT                                                                               \
    {                                                                                              \
        0                                                                                          \
    }

/* Open or create. Errors: not-found, permission, io-error, store-corrupt. */
struct db *db_open(const char *path, struct err *err);
/* NULL is fine. */
void db_close(struct db *db);
/* True after a fault that no retry on this handle heals. */
bool db_is_broken(const struct db *db);

/* Run a script of several statements without arguments, uncached. */
bool db_script(struct db *db, const char *sql, struct err *err);
/* Run one statement to its end. */
bool db_exec(struct db *db, const char *sql, const struct db_arg *args, struct err *err);
/* Rows changed by the last db_exec, and the id of the last row inserted. */
int64_t db_changes(const struct db *db);
int64_t db_last_id(const struct db *db);
/* First column of the first row; 0 when there is no row or it is NULL. */
bool db_get_int(struct db *db, const char *sql, const struct db_arg *args, int64_t *ret,
                struct err *err);
/* True inside BEGIN .. COMMIT. */
bool db_in_transaction(const struct db *db);

bool db_query(struct db *db, struct db_rows *rows, const char *sql, const struct db_arg *args,
              struct err *err);
/* True while there is a row; false at the end or with `err` set. */
bool db_next(struct db_rows *rows, struct err *err);
int64_t db_int(const struct db_rows *rows, int column);
/* Borrowed until the next db_next() or db_done(); NULL for SQL NULL. */
const char *db_text(const struct db_rows *rows, int column);
void db_done(struct db_rows *rows);
#define SCOPED_ROWS __attribute__((cleanup(db_done), unused))

/* --- Rows as structs --------------------------------------------------------------------------
 * One table of fields per struct: name of the column, where it lives, how it is stored. The first
 * field is the integer primary key `n`. */
struct db_field {
    const char *name;
    size_t offset;
    enum {
        DB_FIELD_TEXT, /* char *, owned */
        DB_FIELD_INT,  /* int64_t */
        DB_FIELD_BOOL, /* bool */
        DB_FIELD_WORD, /* an enum (unsigned), stored as one of `words` */
    } type;
    const char *const *words; /* ends with NULL */
};
struct db_table {
    const char *name;
    size_t size; /* of the struct */
    const struct db_field *fields;
    size_t count;
};

/* INSERT; sets the row's `n`. */
bool db_row_insert(struct db *db, const struct db_table *table, void *row, struct err *err);
/* UPDATE of all fields by `n`. */
bool db_row_update(struct db *db, const struct db_table *table, const void *row, struct err *err);
/* Fill `row` (whatever it held) from the current row of a SELECT * of that table. The caller frees
 * with db_row_free. Errors: store-corrupt for an unknown word. */
bool db_row_load(struct db_rows *rows, const struct db_table *table, void *row, struct err *err);
/* Free what the row owns, and zero it. */
void db_row_free(const struct db_table *table, void *row);
/* The first row of a SELECT * of that table; zeroed when there is none. */
bool db_row_get(struct db *db, const struct db_table *table, const char *sql,
                const struct db_arg *args, void *row, struct err *err);
/* All rows of a SELECT * of that table, as an array of its structs; the caller frees with
 * db_row_list_free. NULL when there is none, and with `err` set. */
void *db_row_list(struct db *db, const struct db_table *table, const char *sql,
                  const struct db_arg *args, size_t *ret_count, struct err *err);
/* NULL is fine. */
void db_row_list_free(const struct db_table *table, void *rows, size_t count);

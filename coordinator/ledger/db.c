/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/ledger/db.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include <sqlite3.h>

#include "proto/base/buf.h"

enum { CACHE_SLOTS = 256, FIELDS_MAX = 64, TABLES_MAX = 8, BUSY_TIMEOUT_MS = 5000 };

struct db_stmt {
    const char *sql; /* the address is the key */
    sqlite3_stmt *handle;
    struct db *db;
    bool busy;
    bool cached;
    const struct db_table *mapped; /* whose fields `column_of` maps */
    int column_of[FIELDS_MAX];
};

struct table_sql {
    const struct db_table *table;
    char *insert, *update;
};

struct db {
    sqlite3 *handle;
    char *path;
    bool broken;
    struct db_stmt cache[CACHE_SLOTS];
    struct table_sql tables[TABLES_MAX];
};

static bool fault(struct db *db, int rc, const char *what, struct err *err)
{
    const char *text = db->handle ? sqlite3_errmsg(db->handle) : sqlite3_errstr(rc);
    int sys = db->handle ? sqlite3_system_errno(db->handle) : 0;
    enum err_code code = ERR_INTERNAL;
    const char *advice = "";
    switch (rc & 0xff) {
    case SQLITE_NOMEM:
        abort(); /* as everywhere: out of memory is not handled case by case */
    case SQLITE_FULL:
        code = ERR_NO_SPACE;
        break;
    case SQLITE_IOERR:
        code = sys == ENOSPC || sys == EDQUOT || sys == EFBIG ? ERR_NO_SPACE : ERR_IO;
        break;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        code = ERR_STORE_CORRUPT;
        advice = "; stop the coordinator, keep the file, and restore it from a copy";
        break;
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_AUTH:
        code = sys == ENOENT ? ERR_NOT_FOUND : ERR_PERMISSION;
        break;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        code = ERR_CONFLICT;
        advice = "; another program holds the file";
        break;
    default:
        break;
    }
    db->broken |= code != ERR_INTERNAL;
    if (code == ERR_NO_SPACE)
        advice = "; make room and start again: nothing that was answered is lost";
    return err_set(err, code, sys, "ledger '%s': %s: %s%s%s%s", db->path, what, text,
                   sys ? ": " : "", sys ? strerror(sys) : "", advice);
}

struct db *db_open(const char *path, struct err *err)
{
    struct db *db = ALLOC_NEW(struct db);
    db->path = xstrdup(path);
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    int rc = sqlite3_open_v2(path, &db->handle, flags, NULL);
    if (rc != SQLITE_OK) {
        fault(db, rc, "open", err);
        db_close(db);
        return NULL;
    }
    sqlite3_extended_result_codes(db->handle, 1);
    sqlite3_busy_timeout(db->handle, BUSY_TIMEOUT_MS);
    return db;
}

void db_close(struct db *db)
{
    if (!db)
        return;
    for (size_t i = 0; i < CACHE_SLOTS; i++)
        sqlite3_finalize(db->cache[i].handle);
    for (size_t i = 0; i < TABLES_MAX; i++) {
        free(db->tables[i].insert);
        free(db->tables[i].update);
    }
    sqlite3_close_v2(db->handle);
    free(db->path);
    free(db);
}

bool db_is_broken(const struct db *db)
{
    return db->broken;
}

bool db_script(struct db *db, const char *sql, struct err *err)
{
    int rc = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK || fault(db, rc, "run script", err);
}

static struct db_stmt *slot_of(struct db *db, const char *sql)
{
    size_t start = ((uintptr_t)sql / 8) % CACHE_SLOTS;
    for (size_t i = 0; i < CACHE_SLOTS; i++) {
        struct db_stmt *stmt = &db->cache[(start + i) % CACHE_SLOTS];
        if (stmt->sql == sql || !stmt->sql)
            return stmt;
    }
    return NULL;
}

static struct db_stmt *prepare(struct db *db, const char *sql, struct err *err)
{
    struct db_stmt *stmt = slot_of(db, sql);
    if (stmt && stmt->sql && !stmt->busy) {
        stmt->busy = true;
        return stmt;
    }
    bool cached = stmt && !stmt->sql;
    if (!cached)
        stmt = ALLOC_NEW(struct db_stmt); /* in use further up: one for this call only */
    int rc = sqlite3_prepare_v3(db->handle, sql, -1, cached ? SQLITE_PREPARE_PERSISTENT : 0,
                                &stmt->handle, NULL);
    if (rc != SQLITE_OK) {
        fault(db, rc, sql, err);
        if (!cached)
            free(stmt);
        return NULL;
    }
    stmt->db = db;
    stmt->sql = sql;
    stmt->busy = true;
    stmt->cached = cached;
    return stmt;
}

static void bind(struct db_stmt *stmt, const struct db_arg *args)
{
    int i = 1;
    for (; args->type != DB_ARG_END; args++, i++) {
        int rc;
        if (args->type == DB_ARG_INT)
            rc = sqlite3_bind_int64(stmt->handle, i, args->number);
        else if (args->text)
            rc = sqlite3_bind_text(stmt->handle, i, args->text, -1, SQLITE_STATIC);
        else
            rc = sqlite3_bind_null(stmt->handle, i);
        assert(rc == SQLITE_OK); /* texts are bounded far below SQLite's limit */
    }
    assert(i - 1 == sqlite3_bind_parameter_count(stmt->handle));
}

bool db_query(struct db *db, struct db_rows *rows, const char *sql, const struct db_arg *args,
              struct err *err)
{
    assert(!rows->stmt);
    rows->stmt = prepare(db, sql, err);
    if (!rows->stmt)
        return false;
    bind(rows->stmt, args);
    return true;
}

bool db_next(struct db_rows *rows, struct err *err)
{
    int rc = sqlite3_step(rows->stmt->handle);
    if (rc == SQLITE_ROW)
        return true;
    if (rc != SQLITE_DONE)
        fault(rows->stmt->db, rc, rows->stmt->sql, err);
    return false;
}

int64_t db_int(const struct db_rows *rows, int column)
{
    return sqlite3_column_int64(rows->stmt->handle, column);
}

const char *db_text(const struct db_rows *rows, int column)
{
    return (const char *)sqlite3_column_text(rows->stmt->handle, column);
}

void db_done(struct db_rows *rows)
{
    struct db_stmt *stmt = rows->stmt;
    rows->stmt = NULL;
    if (!stmt)
        return;
    if (!stmt->cached) {
        sqlite3_finalize(stmt->handle);
        free(stmt);
        return;
    }
    sqlite3_reset(stmt->handle);
    sqlite3_clear_bindings(stmt->handle);
    stmt->busy = false;
}

bool db_exec(struct db *db, const char *sql, const struct db_arg *args, struct err *err)
{
    SCOPED_ROWS struct db_rows rows = DB_ROWS_INIT;
    if (!db_query(db, &rows, sql, args, err))
        return false;
    while (db_next(&rows, err))
        ;
    return !err_is_set(err);
}

int64_t db_changes(const struct db *db)
{
    return sqlite3_changes64(db->handle);
}

int64_t db_last_id(const struct db *db)
{
    return sqlite3_last_insert_rowid(db->handle);
}

bool db_in_transaction(const struct db *db)
{
    return sqlite3_get_autocommit(db->handle) == 0;
}

bool db_get_int(struct db *db, const char *sql, const struct db_arg *args, int64_t *ret,
                struct err *err)
{
    SCOPED_ROWS struct db_rows rows = DB_ROWS_INIT;
    if (!db_query(db, &rows, sql, args, err))
        return false;
    int64_t value = db_next(&rows, err) ? db_int(&rows, 0) : 0;
    if (err_is_set(err))
        return false;
    *ret = value;
    return true;
}

/* --- Rows as structs --- */
static char *insert_sql(const struct db_table *table)
{
    SCOPED_BUF struct buf sql;
    buf_init(&sql, 8192);
    buf_printf(&sql, "INSERT INTO %s(", table->name);
    for (size_t i = 1; i < table->count; i++)
        buf_printf(&sql, "%s%s", i > 1 ? "," : "", table->fields[i].name);
    buf_printf(&sql, ") VALUES(");
    for (size_t i = 1; i < table->count; i++)
        buf_printf(&sql, "%s?", i > 1 ? "," : "");
    buf_printf(&sql, ")");
    return buf_take(&sql);
}

static char *update_sql(const struct db_table *table)
{
    SCOPED_BUF struct buf sql;
    buf_init(&sql, 8192);
    buf_printf(&sql, "UPDATE %s SET ", table->name);
    for (size_t i = 1; i < table->count; i++)
        buf_printf(&sql, "%s%s=?", i > 1 ? "," : "", table->fields[i].name);
    buf_printf(&sql, " WHERE n=?");
    return buf_take(&sql);
}

static const struct table_sql *sql_of(struct db *db, const struct db_table *table)
{
    size_t i = 0;
    while (i < TABLES_MAX && db->tables[i].table && db->tables[i].table != table)
        i++;
    assert(i < TABLES_MAX && table->count <= FIELDS_MAX);
    if (!db->tables[i].table)
        db->tables[i] = (struct table_sql){table, insert_sql(table), update_sql(table)};
    return &db->tables[i];
}

static struct db_arg arg_of(const struct db_field *field, const void *row)
{
    const char *at = (const char *)row + field->offset;
    switch (field->type) {
    case DB_FIELD_TEXT: {
        const char *text;
        memcpy(&text, at, sizeof text);
        return DB_T(text);
    }
    case DB_FIELD_INT: {
        int64_t number;
        memcpy(&number, at, sizeof number);
        return DB_I(number);
    }
    case DB_FIELD_BOOL:
        return DB_I(*at != 0);
    case DB_FIELD_WORD:
        break;
    }
    unsigned word;
    memcpy(&word, at, sizeof word);
    return DB_T(field->words[word]);
}

static size_t args_of(const struct db_table *table, const void *row, struct db_arg *args)
{
    size_t count = 0;
    for (size_t i = 1; i < table->count; i++)
        args[count++] = arg_of(&table->fields[i], row);
    return count;
}

bool db_row_insert(struct db *db, const struct db_table *table, void *row, struct err *err)
{
    struct db_arg args[FIELDS_MAX + 1];
    size_t count = args_of(table, row, args);
    args[count] = (struct db_arg){.type = DB_ARG_END};
    if (!db_exec(db, sql_of(db, table)->insert, args, err))
        return false;
    int64_t n = db_last_id(db);
    memcpy((char *)row + table->fields[0].offset, &n, sizeof n);
    return true;
}

bool db_row_update(struct db *db, const struct db_table *table, const void *row, struct err *err)
{
    struct db_arg args[FIELDS_MAX + 1];
    size_t count = args_of(table, row, args);
    args[count++] = arg_of(&table->fields[0], row);
    args[count] = (struct db_arg){.type = DB_ARG_END};
    return db_exec(db, sql_of(db, table)->update, args, err);
}

static void map_columns(struct db_stmt *stmt, const struct db_table *table)
{
    int columns = sqlite3_column_count(stmt->handle);
    for (size_t i = 0; i < table->count; i++) {
        stmt->column_of[i] = -1;
        for (int c = 0; c < columns; c++) {
            if (strcmp(sqlite3_column_name(stmt->handle, c), table->fields[i].name) == 0)
                stmt->column_of[i] = c;
        }
        assert(stmt->column_of[i] >= 0);
    }
    stmt->mapped = table;
}

static bool load_word(const struct db_field *field, const char *text, char *at, struct err *err)
{
    for (unsigned word = 0; field->words[word]; word++) {
        if (text && strcmp(field->words[word], text) == 0) {
            memcpy(at, &word, sizeof word);
            return true;
        }
    }
    return err_set(err, ERR_STORE_CORRUPT, 0, "ledger: column '%s' holds unknown word '%s'",
                   field->name, text ? text : "NULL");
}

bool db_row_load(struct db_rows *rows, const struct db_table *table, void *row, struct err *err)
{
    if (rows->stmt->mapped != table)
        map_columns(rows->stmt, table);
    memset(row, 0, table->size);
    for (size_t i = 0; i < table->count; i++) {
        const struct db_field *field = &table->fields[i];
        int column = rows->stmt->column_of[i];
        char *at = (char *)row + field->offset;
        if (field->type == DB_FIELD_TEXT) {
            char *text = xstrdup_or_null(db_text(rows, column));
            memcpy(at, &text, sizeof text);
        } else if (field->type == DB_FIELD_INT) {
            int64_t number = db_int(rows, column);
            memcpy(at, &number, sizeof number);
        } else if (field->type == DB_FIELD_BOOL) {
            *(bool *)at = db_int(rows, column) != 0;
        } else if (!load_word(field, db_text(rows, column), at, err)) {
            db_row_free(table, row);
            return false;
        }
    }
    return true;
}

void db_row_free(const struct db_table *table, void *row)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct db_field *field = &table->fields[i];
        if (field->type != DB_FIELD_TEXT)
            continue;
        char *text;
        memcpy(&text, (const char *)row + field->offset, sizeof text);
        free(text);
    }
    memset(row, 0, table->size);
}

bool db_row_get(struct db *db, const struct db_table *table, const char *sql,
                const struct db_arg *args, void *row, struct err *err)
{
    memset(row, 0, table->size);
    SCOPED_ROWS struct db_rows rows = DB_ROWS_INIT;
    if (!db_query(db, &rows, sql, args, err))
        return false;
    if (db_next(&rows, err))
        return db_row_load(&rows, table, row, err);
    return !err_is_set(err);
}

void *db_row_list(struct db *db, const struct db_table *table, const char *sql,
                  const struct db_arg *args, size_t *ret_count, struct err *err)
{
    char *list = NULL;
    size_t count = 0;
    *ret_count = 0;
    SCOPED_ROWS struct db_rows rows = DB_ROWS_INIT;
    if (!db_query(db, &rows, sql, args, err))
        return NULL;
    while (db_next(&rows, err)) {
        if ((count & (count - 1)) == 0)
            list = xreallocarray(list, count ? count * 2 : 1, table->size);
        if (!db_row_load(&rows, table, list + count * table->size, err))
            break;
        count++;
    }
    if (err_is_set(err)) {
        db_row_list_free(table, list, count);
        return NULL;
    }
    *ret_count = count;
    return list;
}

void db_row_list_free(const struct db_table *table, void *rows, size_t count)
{
    for (size_t i = 0; i < count; i++)
        db_row_free(table, (char *)rows + i * table->size);
    free(rows);
}

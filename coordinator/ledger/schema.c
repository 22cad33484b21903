/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/ledger/schema.h"

#include <inttypes.h>
#include <string.h>

/* No WITHOUT ROWID tables: quick_check of some SQLite versions misreads those whose primary key is
 * not in column order. Times are milliseconds since 1970. Words are spelled out, so that the ledger
 * can be read with the sqlite3 shell. `n` gives age: it only rises. */
static const char version_1[] =
    "CREATE TABLE request("
    " n INTEGER PRIMARY KEY AUTOINCREMENT,"
    " id TEXT NOT NULL UNIQUE,"
    " kind TEXT NOT NULL,"
    " state TEXT NOT NULL,"
    " message_id TEXT, correlation_id TEXT, idempotency_key TEXT,"
    " progress INTEGER NOT NULL, cancel INTEGER NOT NULL, selected INTEGER NOT NULL,"
    " created_ms INTEGER NOT NULL, finished_ms INTEGER NOT NULL,"
    " open INTEGER NOT NULL, selecting INTEGER NOT NULL, total INTEGER NOT NULL,"
    " succeeded INTEGER NOT NULL, failed INTEGER NOT NULL, cancelled INTEGER NOT NULL,"
    " pages INTEGER NOT NULL,"
    " err_code TEXT, err_retry TEXT, err_sys INTEGER NOT NULL, err_at TEXT, err_message TEXT,"
    " finished TEXT);"
    "CREATE UNIQUE INDEX request_key ON request(kind, idempotency_key)"
    " WHERE idempotency_key IS NOT NULL;"
    "CREATE INDEX request_message ON request(message_id) WHERE message_id IS NOT NULL;"
    "CREATE INDEX request_finished ON request(finished_ms) WHERE finished_ms > 0;"

    /* Apart from the request, whose row is rewritten at the end of each of its tasks. */
    "CREATE TABLE request_body("
    " request TEXT NOT NULL UNIQUE REFERENCES request(id) ON DELETE CASCADE,"
    " body TEXT NOT NULL);"

    "CREATE TABLE reply_to("
    " n INTEGER PRIMARY KEY,"
    " request TEXT NOT NULL REFERENCES request(id) ON DELETE CASCADE,"
    " queue TEXT NOT NULL, correlation_id TEXT,"
    " UNIQUE(request, queue, correlation_id));"

    "CREATE TABLE task("
    " n INTEGER PRIMARY KEY AUTOINCREMENT,"
    " id TEXT NOT NULL UNIQUE,"
    " request TEXT NOT NULL REFERENCES request(id) ON DELETE CASCADE,"
    " role TEXT NOT NULL, kind TEXT NOT NULL, zone TEXT NOT NULL, lane TEXT NOT NULL,"
    " vm TEXT, vm_name TEXT,"
    " state TEXT NOT NULL,"
    " attempt INTEGER NOT NULL, failures INTEGER NOT NULL,"
    " not_before_ms INTEGER NOT NULL, created_ms INTEGER NOT NULL, offered_ms INTEGER NOT NULL,"
    " started_ms INTEGER NOT NULL, finished_ms INTEGER NOT NULL,"
    " deadline_s INTEGER NOT NULL, deadline_ms INTEGER NOT NULL,"
    " worker TEXT, fence INTEGER NOT NULL, claim_id TEXT,"
    " seq INTEGER NOT NULL, step TEXT,"
    " stop TEXT NOT NULL, stop_sent_ms INTEGER NOT NULL,"
    " cleanup_of TEXT, cleanup_upto INTEGER NOT NULL,"
    " point TEXT, new_vm TEXT,"
    " err_code TEXT, err_retry TEXT, err_sys INTEGER NOT NULL, err_at TEXT, err_message TEXT,"
    " input TEXT NOT NULL, outcome TEXT);"
    "CREATE INDEX task_request ON task(request, n);"
    "CREATE UNIQUE INDEX task_request_vm ON task(request, vm)"
    " WHERE role = 'main' AND vm IS NOT NULL;"
    "CREATE INDEX task_request_name ON task(request, vm_name)"
    " WHERE role = 'main' AND vm_name IS NOT NULL;"
    "CREATE INDEX task_waiting ON task(zone, lane, n) WHERE state = 'waiting';"
    "CREATE INDEX task_not_before ON task(not_before_ms)"
    " WHERE state = 'waiting' AND not_before_ms > 0;"
    "CREATE INDEX task_active ON task(state, zone, lane) WHERE state IN ('offered', 'running');"
    "CREATE INDEX task_deadline ON task(deadline_ms) WHERE deadline_ms > 0 AND stop = 'no'"
    " AND state IN ('waiting', 'offered', 'running');"
    "CREATE INDEX task_cleanup ON task(cleanup_of) WHERE cleanup_of IS NOT NULL;"
    /* The last line of defence: one offered or running task per VM. */
    "CREATE UNIQUE INDEX task_vm ON task(vm)"
    " WHERE vm IS NOT NULL AND state IN ('offered', 'running');"

    "CREATE TABLE attempt("
    " n INTEGER PRIMARY KEY,"
    " task TEXT NOT NULL REFERENCES task(id) ON DELETE CASCADE,"
    " attempt INTEGER NOT NULL, fence INTEGER NOT NULL, worker TEXT NOT NULL,"
    " granted_ms INTEGER NOT NULL, ended_ms INTEGER NOT NULL DEFAULT 0,"
    " ended TEXT, err_code TEXT, err_message TEXT,"
    " UNIQUE(task, attempt));"

    /* What steps reported, as the event's own body; `stale` came from an attempt that was over. */
    "CREATE TABLE journal("
    " n INTEGER PRIMARY KEY,"
    " task TEXT NOT NULL REFERENCES task(id) ON DELETE CASCADE,"
    " attempt INTEGER NOT NULL, fence INTEGER NOT NULL, seq INTEGER NOT NULL,"
    " stale INTEGER NOT NULL, at_ms INTEGER NOT NULL, body TEXT NOT NULL,"
    " UNIQUE(task, attempt, fence, seq));"

    /* Pages of a listing task, until its result says that they are all there. */
    "CREATE TABLE items("
    " n INTEGER PRIMARY KEY,"
    " task TEXT NOT NULL REFERENCES task(id) ON DELETE CASCADE,"
    " attempt INTEGER NOT NULL, page INTEGER NOT NULL, body TEXT NOT NULL,"
    " UNIQUE(task, attempt, page));"

    /* What is left behind in the engine and not cleaned up yet. */
    "CREATE TABLE leftover("
    " n INTEGER PRIMARY KEY AUTOINCREMENT,"
    " task TEXT NOT NULL REFERENCES task(id) ON DELETE CASCADE,"
    " kind TEXT NOT NULL, vm TEXT NOT NULL, item TEXT NOT NULL,"
    " UNIQUE(task, kind, vm, item));"

    /* The last fence number of each VM. Never deleted: it may only rise. */
    "CREATE TABLE fence(vm TEXT NOT NULL UNIQUE, last INTEGER NOT NULL);"

    "CREATE TABLE worker("
    " n INTEGER PRIMARY KEY,"
    " name TEXT NOT NULL UNIQUE,"
    " zone TEXT NOT NULL, version TEXT, host TEXT, state TEXT NOT NULL,"
    " slots_restore INTEGER NOT NULL, slots_backup INTEGER NOT NULL,"
    " slots_upkeep INTEGER NOT NULL,"
    " first_ms INTEGER NOT NULL, seen_ms INTEGER NOT NULL);"

    /* Tasks whose end a cancel request waits for. */
    "CREATE TABLE cancel_wait("
    " request TEXT NOT NULL REFERENCES request(id) ON DELETE CASCADE,"
    " task TEXT NOT NULL REFERENCES task(id) ON DELETE CASCADE,"
    " UNIQUE(task, request));"

    /* Messages to publish; deleted once the broker confirmed them. AUTOINCREMENT: an id is never
     * used twice, so a late confirm cannot delete another message. */
    "CREATE TABLE outbox("
    " n INTEGER PRIMARY KEY AUTOINCREMENT,"
    " exchange TEXT NOT NULL, routing_key TEXT NOT NULL, type TEXT NOT NULL,"
    " message_id TEXT NOT NULL, correlation_id TEXT, optional_route INTEGER NOT NULL,"
    " body TEXT NOT NULL);";

/* Another worker may do better ("elsewhere"): remember whom to avoid. A worker tells which proxy VM
 * it runs in. */
static const char version_2[] = "ALTER TABLE task ADD COLUMN avoid TEXT;"
                                "ALTER TABLE task ADD COLUMN avoided INTEGER NOT NULL DEFAULT 0;"
                                "ALTER TABLE worker ADD COLUMN proxy TEXT;";

/* Sweeps that the coordinator makes by itself, and what the last one of each zone counted. When a
 * task was first told to stop. How far an attempt came. */
static const char version_3[] =
    "ALTER TABLE request ADD COLUMN internal INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE task ADD COLUMN stop_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE attempt ADD COLUMN step TEXT;"
    "CREATE TABLE sweep("
    " n INTEGER PRIMARY KEY,"
    " zone TEXT NOT NULL UNIQUE,"
    " at_ms INTEGER NOT NULL,"
    " snapshots INTEGER NOT NULL, oldest_ms INTEGER NOT NULL,"
    " attachments INTEGER NOT NULL, half_made INTEGER NOT NULL,"
    " left_behind INTEGER NOT NULL, foreign_things INTEGER NOT NULL);"
    "CREATE INDEX task_kind ON task(kind, zone) WHERE kind = 'sweep'"
    " AND state IN ('waiting', 'offered', 'running');"
    "CREATE INDEX task_quarantined ON task(err_code) WHERE err_code = 'quarantined';";

/* How fast earlier backups of a zone were, by path. Sweeps count image transfers. */
static const char version_4[] =
    "CREATE TABLE rate("
    " n INTEGER PRIMARY KEY,"
    " zone TEXT NOT NULL, path TEXT NOT NULL,"
    " bytes_per_s INTEGER NOT NULL, samples INTEGER NOT NULL,"
    " at_ms INTEGER NOT NULL,"
    " UNIQUE(zone, path));"
    "ALTER TABLE sweep ADD COLUMN transfers INTEGER NOT NULL DEFAULT 0;";

/* Parts of a task that other workers do. They run while their main task does, on the same VM: what
 * is unique there is the number of the part, 0 for what is none. */
static const char version_5[] =
    "ALTER TABLE task ADD COLUMN part_of TEXT;"
    "ALTER TABLE task ADD COLUMN part_n INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE task ADD COLUMN part_fence INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE task ADD COLUMN bytes_done INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE task ADD COLUMN bytes_total INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE task ADD COLUMN result TEXT;"
    "DROP INDEX task_vm;"
    "CREATE UNIQUE INDEX task_vm ON task(vm, part_n)"
    " WHERE vm IS NOT NULL AND state IN ('offered', 'running');"
    "CREATE UNIQUE INDEX task_part ON task(part_of, part_fence, part_n)"
    " WHERE part_of IS NOT NULL;"
    "CREATE INDEX task_part_waiting ON task(zone, lane, n)"
    " WHERE state = 'waiting' AND part_of IS NOT NULL;";

static const char *const steps[SCHEMA_VERSION] = {version_1, version_2, version_3, version_4,
                                                  version_5};

static bool check_foreign(struct db *db, const char *path, int64_t version, struct err *err)
{
    int64_t application = 0, tables = 0;
    if (!db_get_int(db, "PRAGMA application_id", DB_NO_ARGS, &application, err) ||
        !db_get_int(db, "SELECT count(*) FROM sqlite_schema", DB_NO_ARGS, &tables, err))
        return false;
    bool fresh = version == 0 && tables == 0 && application == 0;
    if (!fresh && application != SCHEMA_APPLICATION_ID)
        return err_set(err, ERR_STORE_CORRUPT, 0,
                       "'%s' is an SQLite file but not a ledger of this program", path);
    if (version > SCHEMA_VERSION)
        return err_set(err, ERR_UNSUPPORTED_VERSION, 0,
                       "ledger '%s' has schema version %" PRId64
                       ", this program knows up to %d: install the newer program again",
                       path, version, SCHEMA_VERSION);
    return true;
}

static bool quick_check(struct db *db, const char *path, struct err *err)
{
    SCOPED_ROWS struct db_rows rows = DB_ROWS_INIT;
    if (!db_query(db, &rows, "PRAGMA quick_check(3)", DB_NO_ARGS, err))
        return false;
    if (db_next(&rows, err) && strcmp(db_text(&rows, 0), "ok") != 0)
        return err_set(err, ERR_STORE_CORRUPT, 0,
                       "ledger '%s' is damaged: %s; keep the file, and restore it from a copy",
                       path, db_text(&rows, 0));
    return !err_is_set(err);
}

static bool run_step(struct db *db, int64_t version, struct err *err)
{
    SCOPED_FREE char *finish =
        xasprintf("PRAGMA application_id = %d; PRAGMA user_version = %" PRId64 "; COMMIT",
                  SCHEMA_APPLICATION_ID, version);
    if (db_script(db, "BEGIN IMMEDIATE", err) && db_script(db, steps[version - 1], err) &&
        db_script(db, finish, err))
        return true;
    err_wrap(err, "migrate the ledger to schema version %" PRId64, version);
    struct err ignored = ERR_INIT;
    (void)db_script(db, "ROLLBACK", &ignored);
    return false;
}

bool schema_prepare_to(struct db *db, const char *path, int64_t version, struct err *err)
{
    int64_t have = 0;
    if (!db_get_int(db, "PRAGMA user_version", DB_NO_ARGS, &have, err) ||
        !check_foreign(db, path, have, err) || !quick_check(db, path, err))
        return false;
    while (have < version) {
        if (!run_step(db, ++have, err))
            return false;
    }
    return true;
}

bool schema_prepare(struct db *db, const char *path, struct err *err)
{
    return schema_prepare_to(db, path, SCHEMA_VERSION, err);
}

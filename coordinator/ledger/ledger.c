/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/ledger/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "coordinator/ledger/ledger_internal.h"
#include "coordinator/ledger/schema.h"

void text_set(char **field, const char *value)
{
    char *copy = xstrdup_or_null(value);
    free(*field);
    *field = copy;
}

static int lock_file(const char *path, struct err *err)
{
    SCOPED_FREE char *lock = xasprintf("%s.lock", path);
    SCOPED_FD int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (fd < 0) {
        err_set_errno(err, errno, "open lock file '%s'", lock);
        return -1;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK)
            err_set(err, ERR_CONFLICT, errno,
                    "another coordinator holds the ledger '%s' (lock file '%s'): one ledger, one "
                    "coordinator",
                    path, lock);
        else
            err_set_errno(err, errno, "lock '%s'", lock);
        return -1;
    }
    return TAKE_FD(fd);
}

/* FULL, not NORMAL: with WAL, NORMAL may lose the last commits in a power cut. A lost commit may
 * have carried a fence number that a worker holds already; the next grant would repeat it. */
static bool set_up(struct ledger *l, const char *path, struct err *err)
{
    return db_script(l->db,
                     "PRAGMA journal_mode = WAL;"
                     "PRAGMA synchronous = FULL;"
                     "PRAGMA foreign_keys = ON;"
                     "PRAGMA temp_store = MEMORY;"
                     "PRAGMA journal_size_limit = 67108864;",
                     err) &&
           schema_prepare(l->db, path, err);
}

struct ledger *ledger_open(const char *path, struct err *err)
{
    SCOPED(ledger) struct ledger *l = ALLOC_NEW(struct ledger);
    l->lock_fd = lock_file(path, err);
    if (l->lock_fd < 0)
        return NULL;
    l->db = db_open(path, err);
    if (!l->db || !set_up(l, path, err))
        return NULL;
    return TAKE(l);
}

void ledger_close(struct ledger *l)
{
    if (!l)
        return;
    if (l->db && ledger_in_transaction(l))
        ledger_rollback(l);
    db_close(l->db);
    if (l->lock_fd >= 0)
        close(l->lock_fd);
    free(l);
}

bool ledger_is_broken(const struct ledger *l)
{
    return db_is_broken(l->db);
}

bool ledger_begin(struct ledger *l, struct err *err)
{
    return db_exec(l->db, "BEGIN IMMEDIATE", DB_NO_ARGS, err);
}

bool ledger_commit(struct ledger *l, struct err *err)
{
    return db_exec(l->db, "COMMIT", DB_NO_ARGS, err);
}

void ledger_rollback(struct ledger *l)
{
    /* SQLite may have rolled back by itself, after a full disk for one. */
    struct err ignored = ERR_INIT;
    if (ledger_in_transaction(l))
        (void)db_exec(l->db, "ROLLBACK", DB_NO_ARGS, &ignored);
}

bool ledger_in_transaction(const struct ledger *l)
{
    return db_in_transaction(l->db);
}

bool ledger_mark(struct ledger *l, struct err *err)
{
    return db_exec(l->db, "SAVEPOINT message", DB_NO_ARGS, err);
}

bool ledger_mark_keep(struct ledger *l, struct err *err)
{
    return db_exec(l->db, "RELEASE message", DB_NO_ARGS, err);
}

bool ledger_mark_drop(struct ledger *l, struct err *err)
{
    return db_exec(l->db, "ROLLBACK TO message", DB_NO_ARGS, err) &&
           db_exec(l->db, "RELEASE message", DB_NO_ARGS, err);
}

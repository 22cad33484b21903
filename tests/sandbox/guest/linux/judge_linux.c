/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/guest/linux/judge_linux.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/base/file.h"
#include "tests/sandbox/block/proc.h"
#include "tests/sandbox/guest/linux/glog.h"

__attribute__((format(printf, 2, 3))) static bool bad(struct linux_verdict *v, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(v->why, sizeof v->why, fmt, args);
    va_end(args);
    return false;
}

/* The journal of a file system that was in use must be replayed first. */
static bool needs_recovery(const char *image, bool *ret, struct err *err)
{
    char *text = NULL;
    const char *argv[] = {"dumpe2fs", "-h", image, NULL};
    if (!proc_run(argv, &text, err))
        return false;
    *ret = strstr(text, "needs_recovery");
    free(text);
    return true;
}

/* Replay and repair as a boot would, then check again: nothing may be left to repair. e2fsck says 1
 * for "errors corrected", which a replay is, too; so only the second run counts. */
static bool check_file_system(const char *image, const char *name, struct linux_verdict *v)
{
    struct err err = ERR_INIT;
    const char *replay[] = {"e2fsck", "-p", image, NULL};
    if (!proc_run(replay, NULL, &err) && !strstr(err.message, "exit 1:"))
        return bad(v, "disk %s: replaying the journal: %s", name, err.message);
    err_clear(&err);
    const char *check[] = {"e2fsck", "-fn", image, NULL};
    char *text = NULL;
    if (!proc_run(check, &text, &err))
        return bad(v, "disk %s: the file system is damaged: %s", name, err.message);
    free(text);
    return true;
}

/* Count the records; after the first that is not record n, no later true record may come. */
static bool count_records(FILE *log, const char *name, uint64_t *ret_last, struct linux_verdict *v)
{
    struct glog_record r;
    uint64_t n = 0;
    bool torn = false;
    while (fread(&r, sizeof r, 1, log) == 1) {
        if (!torn && glog_is_record(&r, n + 1))
            n++;
        else if (glog_is_record(&r, r.n))
            return bad(v, "disk %s: record %" PRIu64 " follows record %" PRIu64, name, r.n, n);
        else
            torn = true;
    }
    *ret_last = n;
    return true;
}

static bool read_log(const char *image, const char *dir, const char *name, uint64_t *ret_last,
                     struct linux_verdict *v, struct err *err)
{
    SCOPED_FREE char *path = xasprintf("%s/log", dir);
    SCOPED_FREE char *request = xasprintf("dump /log %s", path);
    const char *argv[] = {"debugfs", "-R", request, image, NULL};
    (void)unlink(path);
    if (!proc_run(argv, NULL, err))
        return false;
    SCOPED_FILE FILE *log = fopen(path, "rbe");
    if (!log)
        return bad(v, "disk %s: there is no log", name);
    bool ok = count_records(log, name, ret_last, v);
    (void)unlink(path);
    return ok;
}

static bool judge_copy(const char *image, const char *dir, const char *name, uint64_t *ret_last,
                       struct linux_verdict *v, struct err *err)
{
    SCOPED_FREE char *copy = xasprintf("%s/%s.raw", dir, name);
    const char *argv[] = {"cp", "--sparse=always", "--reflink=auto", image, copy, NULL};
    bool recovery = false;
    bool ok = proc_run(argv, NULL, err) && needs_recovery(copy, &recovery, err);
    v->clean = v->clean && !recovery;
    ok = ok && check_file_system(copy, name, v) && read_log(copy, dir, name, ret_last, v, err);
    (void)unlink(copy);
    return ok;
}

static bool weigh(struct linux_verdict *v, uint64_t acked, bool frozen)
{
    if (v->last_b > v->last_a || v->last_a > v->last_b + 1)
        return bad(v, "two instants: log A ends with %" PRIu64 ", log B with %" PRIu64, v->last_a,
                   v->last_b);
    if (v->last_b < acked)
        return bad(v, "record %" PRIu64 " was acknowledged, but log B ends with %" PRIu64, acked,
                   v->last_b);
    if (frozen && !v->clean)
        return bad(v, "frozen, but a journal needs recovery");
    return true;
}

bool judge_linux(const char *image_a, const char *image_b, uint64_t acked, bool frozen,
                 struct linux_verdict *ret, struct err *err)
{
    *ret = (struct linux_verdict){.clean = true};
    const char *temp = getenv("TMPDIR");
    SCOPED_FREE char *dir = xasprintf("%s/judge-linux-XXXXXX", temp ? temp : "/tmp");
    if (!mkdtemp(dir))
        return err_set_errno(err, errno, "temporary directory '%s'", dir);
    ret->good = judge_copy(image_a, dir, "A", &ret->last_a, ret, err) &&
                judge_copy(image_b, dir, "B", &ret->last_b, ret, err) && weigh(ret, acked, frozen);
    (void)rmdir(dir);
    return !err_is_set(err);
}

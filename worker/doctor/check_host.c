/* SPDX-License-Identifier: Apache-2.0 */
/* The machine: its clock, its limits, the account that the worker runs as. */
#include <pwd.h>
#include <sys/resource.h>
#include <sys/timex.h>
#include <unistd.h>

#include "worker/doctor/check.h"

enum { FILES_WANTED = 1024, FILES_NEEDED = 256 };

static enum finding_level check_user(struct doctor *d, struct buf *say)
{
    const struct passwd *own = getpwuid(geteuid());
    (void)buf_printf(say, "runs as %s", own ? own->pw_name : "a user without a name");
    if (!d->opts.broker || geteuid() != 0 || !getpwnam("oxbow"))
        return FINDING_OK;
    (void)buf_printf(say, ": what root may do says nothing of the service, which runs as oxbow");
    return FINDING_WARNING;
}

static enum finding_level check_files(struct doctor *d, struct buf *say)
{
    (void)d;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        limit.rlim_cur = limit.rlim_max = RLIM_INFINITY;
    if (limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= FILES_WANTED) {
        (void)buf_printf(say, "may have enough files open at once");
        return FINDING_OK;
    }
    (void)buf_printf(say, "may have %llu files open at once: too few for several disks at a time",
                     (unsigned long long)limit.rlim_cur);
    return limit.rlim_cur >= FILES_NEEDED ? FINDING_WARNING : FINDING_FAILURE;
}

static enum finding_level check_clock(struct doctor *d, struct buf *say)
{
    (void)d;
    struct timex t = {.modes = 0};
    int state = adjtimex(&t);
    if (state < 0 || state == TIME_ERROR || (t.status & STA_UNSYNC)) {
        (void)buf_printf(say, "the clock of this machine follows no time server");
        return FINDING_WARNING;
    }
    (void)buf_printf(say, "the clock of this machine follows a time server");
    return FINDING_OK;
}

static const struct check rows[] = {
    {"host.user", check_user, "look as the service does: runuser -u oxbow -- oxbow-worker doctor",
     NULL, false},
    {"host.files", check_files, "raise the limit: LimitNOFILE= in the unit, or ulimit -n", NULL,
     false},
    {"host.clock", check_clock,
     "install chrony or systemd-timesyncd: restore points are named and ordered by time", NULL,
     false},
};
const struct check_table checks_of_host = CHECK_TABLE(rows);

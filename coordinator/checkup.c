/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/checkup.h"

#include <inttypes.h>
#include <libgen.h>
#include <string.h>
#include <sys/statvfs.h>

#include "coordinator/outgoing.h"
#include "proto/base/buf.h"
#include "proto/wire/finding.h"

enum {
    CHECKUPS_MAX = 16,
    LIMIT_DEFAULT_S = 60,
    MARGIN_S = 5,          /* between the worker's limit and ours */
    SKEW_WARN_MS = 5000,   /* restore points are ordered by the workers' clocks */
    SKEW_FAIL_MS = 300000, /* certificates and tokens */
    SPACE_WARN_MIB = 1024,
    SPACE_FAIL_MIB = 100,
};

struct asked {
    char *name, *zone;
    char *repository; /* as it said; NULL = it did not */
    bool answered;
};

struct checkup {
    struct checkup *next;
    char *request, *queue, *correlation_id;
    int64_t limit_s, begun_wall_ms, due_ms;
    int64_t pages;
    struct asked *asked;
    size_t count, open;
};

static void checkup_free(struct checkup *c)
{
    for (size_t i = 0; i < c->count; i++) {
        free(c->asked[i].name);
        free(c->asked[i].zone);
        free(c->asked[i].repository);
    }
    free(c->asked);
    free(c->request);
    free(c->queue);
    free(c->correlation_id);
    free(c);
}

void checkup_drop_all(struct core *core)
{
    for (struct checkup *c = core->checkups, *next; c; c = next) {
        next = c->next;
        checkup_free(c);
    }
    core->checkups = NULL;
}

static struct checkup *find(const struct core *core, const char *request)
{
    for (struct checkup *c = core->checkups; c; c = c->next) {
        if (strcmp(c->request, request) == 0)
            return c;
    }
    return NULL;
}

static void unlink_from(struct core *core, const struct checkup *c)
{
    struct checkup **at = &core->checkups;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
}

/* --- What the coordinator sees itself ---------------------------------------------------------
 * Each adds its findings; what to do stands beside the words. */
struct look {
    struct core *core;
    const struct worker_list *workers;
    struct wire_findings *found;
};

static void add(const struct look *l, const char *check, enum finding_level level,
                const char *advice, const char *message)
{
    findings_add(l->found,
                 &(struct finding_spec){
                     .check = check, .level = level, .advice = advice, .time_ms = l->core->wall_ms},
                 "%s", message);
}

static bool look_at_self(const struct look *l, struct err *err)
{
    (void)err;
    add(l, "coordinator.answers", FINDING_OK, NULL, "oxbow-coordinator " OXBOW_VERSION " answers");
    return true;
}

static bool look_at_space(const struct look *l, struct err *err)
{
    (void)err;
    SCOPED_FREE char *path = xstrdup(l->core->conf->ledger);
    const char *dir = dirname(path);
    struct statvfs fs;
    if (statvfs(dir, &fs) != 0)
        return true; /* the ledger is open: it is there */
    uint64_t mib = (uint64_t)fs.f_bavail * fs.f_frsize >> 20;
    SCOPED_FREE char *text = xasprintf("%" PRIu64 " MiB free for the ledger in %s", mib, dir);
    add(l, "coordinator.space",
        mib < SPACE_FAIL_MIB   ? FINDING_FAILURE
        : mib < SPACE_WARN_MIB ? FINDING_WARNING
                               : FINDING_OK,
        "make room there: without it the coordinator stops, and with it everything else", text);
    return true;
}

static bool look_at_cleanups(const struct look *l, struct err *err)
{
    int64_t open = 0, oldest_ms = 0;
    if (!ledger_task_cleanups(l->core->ledger, &open, &oldest_ms, err))
        return false;
    SCOPED_FREE char *text =
        open ? xasprintf("%" PRId64 " clean-ups are open, the oldest for %" PRId64
                         " min: something of ours is left in the cluster",
                         open, (l->core->now_ms - oldest_ms) / 60000)
             : xstrdup("nothing is left to be cleaned up");
    add(l, "coordinator.cleanups", open ? FINDING_WARNING : FINDING_OK,
        "they are tried again by themselves; the coordinator's and the workers' journals say why "
        "they fail",
        text);
    return true;
}

static bool look_at_zones(const struct look *l, struct err *err)
{
    (void)err;
    for (unsigned i = 0; i < l->core->conf->zones_count; i++) {
        const char *zone = l->core->conf->zones[i].name;
        size_t up = 0;
        for (size_t j = 0; j < l->workers->count; j++)
            up += l->workers->v[j].state == WORKER_UP && strcmp(l->workers->v[j].zone, zone) == 0;
        SCOPED_FREE char *text =
            up == 0   ? xasprintf("zone %s has no worker: its tasks wait", zone)
            : up == 1 ? xasprintf("zone %s has one worker: nobody backs up the VM it runs in, and "
                                  "nobody takes over when it is lost",
                                  zone)
                      : xasprintf("zone %s has %zu workers", zone, up);
        add(l, "zone.workers",
            up == 0   ? FINDING_FAILURE
            : up == 1 ? FINDING_WARNING
                      : FINDING_OK,
            "start oxbow-worker in a proxy VM of that data centre, with this zone in its "
            "worker.yaml",
            text);
    }
    return true;
}

static void look_at_worker(const struct look *l, const struct worker *w)
{
    SCOPED_FREE char *text = NULL;
    if (w->state == WORKER_LOST)
        text = xasprintf("worker %s was last heard %" PRId64 " s ago", w->name,
                         (l->core->now_ms - w->seen_ms) / 1000);
    else
        text = xasprintf("worker %s is %s", w->name, worker_state_name(w->state));
    add(l, "worker.heard",
        w->state == WORKER_LOST       ? FINDING_FAILURE
        : w->state == WORKER_DRAINING ? FINDING_WARNING
                                      : FINDING_OK,
        w->state == WORKER_LOST
            ? "is its VM up and oxbow-worker running (systemctl status oxbow-worker)? one that was "
              "taken away for good is forgotten after a week"
            : "it takes no more tasks: start it again when its maintenance is over",
        text);
    if (coordinator_conf_zone(l->core->conf, w->zone) < 0) {
        SCOPED_FREE char *zone = xasprintf("worker %s serves zone '%s', which the coordinator does "
                                           "not know: it never gets a task",
                                           w->name, w->zone);
        add(l, "worker.zone", FINDING_FAILURE,
            "correct `zone` in its worker.yaml, or add the zone to coordinator.yaml", zone);
    }
    bool same = w->version && strcmp(w->version, OXBOW_VERSION) == 0;
    SCOPED_FREE char *version =
        xasprintf("worker %s has version %s%s", w->name, w->version ? w->version : "(unknown)",
                  same ? "" : ", the coordinator " OXBOW_VERSION);
    add(l, "worker.version", same ? FINDING_OK : FINDING_WARNING,
        "finish the upgrade: coordinator first, then the workers one after another", version);
}

static bool look_at_workers(const struct look *l, struct err *err)
{
    (void)err;
    for (size_t i = 0; i < l->workers->count; i++)
        look_at_worker(l, &l->workers->v[i]);
    return true;
}

static bool (*const looks[])(const struct look *l, struct err *err) = {
    look_at_self, look_at_space, look_at_cleanups, look_at_zones, look_at_workers,
};

/* --- Replies --------------------------------------------------------------------------------- */
static bool send(struct core *core, struct checkup *c, const struct wire_findings *found,
                 struct err *err)
{
    const struct wire_item_list items = {.findings = found->v, .findings_count = found->count};
    return outgoing_pages(core, c->queue, c->correlation_id, c->request, &items, &c->pages, err);
}

static bool send_finished(struct core *core, const struct checkup *c, struct err *err)
{
    static char kind[] = "doctor", succeeded[] = "succeeded";
    const struct wire_finished finished = {
        .request = c->request, .kind = kind, .status = succeeded, .pages = c->pages};
    size_t len;
    SCOPED_FREE char *body = wire_encode(WIRE_FINISHED, &finished, &len, err);
    return body && outgoing_reply_to(core, c->queue, c->correlation_id, WIRE_FINISHED, body, err);
}

/* --- What only all answers together show ------------------------------------------------------ */
/* The first worker of the zone that named its repository. */
static const struct asked *first_of_zone(const struct checkup *c, const char *zone)
{
    for (size_t i = 0; i < c->count; i++) {
        if (c->asked[i].repository && strcmp(c->asked[i].zone, zone) == 0)
            return &c->asked[i];
    }
    return NULL;
}

static void compare_zone(const struct core *core, const struct checkup *c, const char *zone,
                         struct wire_findings *found)
{
    const struct asked *first = first_of_zone(c, zone);
    struct finding_spec spec = {.check = "zone.repository", .time_ms = core->wall_ms};
    size_t same = 0;
    if (!first)
        return;
    for (size_t i = 0; i < c->count; i++) {
        const struct asked *a = &c->asked[i];
        if (!a->repository || strcmp(a->zone, zone) != 0)
            continue;
        if (strcmp(a->repository, first->repository) == 0) {
            same++;
            continue;
        }
        spec.level = FINDING_FAILURE;
        spec.advice = "mount the same repository on both, and correct `repository.path`: a restore "
                      "finds only what is in the repository of the worker that runs it";
        findings_add(found, &spec, "zone %s: worker %s writes to repository %s, worker %s to %s",
                     zone, first->name, first->repository, a->name, a->repository);
    }
    spec.level = FINDING_OK;
    if (same > 1)
        findings_add(found, &spec, "zone %s: %zu workers share repository %s", zone, same,
                     first->repository);
}

static void tell_silent(const struct core *core, const struct checkup *c,
                        struct wire_findings *found)
{
    for (size_t i = 0; i < c->count; i++) {
        if (c->asked[i].answered)
            continue;
        findings_add(found,
                     &(struct finding_spec){
                         .check = "worker.answers",
                         .level = FINDING_FAILURE,
                         .worker = c->asked[i].name,
                         .advice = "look into its journal (journalctl -u oxbow-worker); on its "
                                   "machine `oxbow-worker doctor` looks without the broker's help",
                         .time_ms = core->wall_ms},
                     "no answer within %" PRId64 " s", c->limit_s);
    }
}

/* The last page and the end. Frees `c`. */
static bool finish(struct core *core, struct checkup *c, struct err *err)
{
    struct wire_findings found = {0};
    tell_silent(core, c, &found);
    for (unsigned i = 0; i < core->conf->zones_count; i++)
        compare_zone(core, c, core->conf->zones[i].name, &found);
    bool ok = send(core, c, &found, err) && send_finished(core, c, err);
    findings_done(&found);
    unlink_from(core, c);
    checkup_free(c);
    return ok;
}

/* --- Begin ----------------------------------------------------------------------------------- */
bool checkup_check(struct core *core, const void *message, struct err *why)
{
    const struct wire_doctor *m = message;
    size_t count = 0;
    for (const struct checkup *c = core->checkups; c; c = c->next)
        count++;
    if (count >= CHECKUPS_MAX)
        return err_set(why, ERR_CONFLICT, 0, "%zu check-ups are under way: try again later", count);
    if (!m->worker)
        return true;
    SCOPED_WORKER struct worker w = {0};
    if (!ledger_worker_get(core->ledger, m->worker, &w, why))
        return false;
    return w.n != 0 ||
           err_set(why, ERR_NOT_FOUND, 0,
                   "no worker '%s' was ever heard of: `oxbow status` lists them all", m->worker);
}

static bool ask(struct core *core, struct checkup *c, const struct worker *w, struct err *err)
{
    c->asked = xreallocarray(c->asked, c->count + 1, sizeof *c->asked);
    c->asked[c->count++] = (struct asked){.name = xstrdup(w->name), .zone = xstrdup(w->zone)};
    c->open++;
    int64_t limit_s = c->limit_s > 2 * MARGIN_S ? c->limit_s - MARGIN_S : (c->limit_s + 1) / 2;
    const struct wire_checkup m = {.request = c->request, .worker = w->name, .limit_s = limit_s};
    return outgoing_checkup(core, &m, err);
}

static bool ask_all(struct core *core, struct checkup *c, const struct worker_list *workers,
                    const char *only, struct err *err)
{
    for (size_t i = 0; i < workers->count; i++) {
        const struct worker *w = &workers->v[i];
        bool meant = only ? strcmp(w->name, only) == 0 : w->state != WORKER_LOST;
        if (meant && !ask(core, c, w, err))
            return false;
    }
    return true;
}

static bool look_and_ask(struct core *core, struct checkup *c, const char *only, struct err *err)
{
    struct worker_list workers;
    if (!ledger_worker_list(core->ledger, &workers, err))
        return false;
    struct wire_findings found = {0};
    const struct look look = {.core = core, .workers = &workers, .found = &found};
    bool ok = true;
    for (size_t i = 0; i < ARRAY_LEN(looks) && ok; i++)
        ok = looks[i](&look, err);
    ok = ok && send(core, c, &found, err) && ask_all(core, c, &workers, only, err);
    findings_done(&found);
    worker_list_done(&workers);
    return ok;
}

bool checkup_answer(struct core *core, const char *request_id, const void *message,
                    const char *queue, const char *correlation_id, struct err *err)
{
    const struct wire_doctor *m = message;
    if (find(core, request_id))
        return true;
    struct checkup *c = ALLOC_NEW(struct checkup);
    c->request = xstrdup(request_id);
    c->queue = xstrdup(queue);
    c->correlation_id = xstrdup(correlation_id);
    c->limit_s = m->limit_s ? m->limit_s : LIMIT_DEFAULT_S;
    c->begun_wall_ms = core->wall_ms;
    c->due_ms = core->now_ms + c->limit_s * 1000;
    if (!look_and_ask(core, c, m->worker, err)) {
        checkup_free(c);
        return false;
    }
    c->next = core->checkups;
    core->checkups = c;
    return c->open > 0 || finish(core, c, err);
}

/* --- Answers --------------------------------------------------------------------------------- */
/* The worker's clock against ours: its answer was made between the question and now. */
static void compare_clock(const struct core *core, const struct checkup *c,
                          const struct wire_checked *m, struct wire_findings *found)
{
    int64_t said_ms = 0;
    for (size_t i = 0; i < m->findings.count; i++)
        said_ms = m->findings.v[i].time_ms > said_ms ? m->findings.v[i].time_ms : said_ms;
    if (said_ms == 0)
        return;
    int64_t skew_ms = said_ms > core->wall_ms      ? said_ms - core->wall_ms
                      : said_ms < c->begun_wall_ms ? c->begun_wall_ms - said_ms
                                                   : 0;
    struct finding_spec spec = {
        .check = "worker.clock",
        .level = skew_ms > SKEW_FAIL_MS   ? FINDING_FAILURE
                 : skew_ms > SKEW_WARN_MS ? FINDING_WARNING
                                          : FINDING_OK,
        .worker = m->worker,
        .advice = "let both follow a time server (chrony or systemd-timesyncd): the times of "
                  "restore points come from the workers' clocks",
        .time_ms = core->wall_ms,
    };
    if (skew_ms > SKEW_WARN_MS)
        findings_add(found, &spec, "its clock is %" PRId64 " s %s the coordinator's",
                     skew_ms / 1000, said_ms > core->wall_ms ? "ahead of" : "behind");
    else
        findings_add(found, &spec, "its clock agrees with the coordinator's");
}

/* As it said, each under its name. */
static bool send_answer(struct core *core, struct checkup *c, const struct wire_checked *m,
                        struct err *err)
{
    struct wire_findings named = {.v = xcalloc(m->findings.count + 1, sizeof *named.v),
                                  .count = m->findings.count};
    for (size_t i = 0; i < named.count; i++) {
        named.v[i] = m->findings.v[i];
        named.v[i].worker = m->worker;
    }
    bool ok = send(core, c, &named, err);
    free(named.v);
    return ok;
}

bool checkup_checked(struct core *core, const struct wire_checked *m, struct err *err)
{
    struct checkup *c = find(core, m->request);
    struct asked *asked = NULL;
    for (size_t i = 0; c && i < c->count; i++) {
        if (strcmp(c->asked[i].name, m->worker) == 0)
            asked = &c->asked[i];
    }
    if (!asked || asked->answered)
        return true;
    asked->answered = true;
    asked->repository = xstrdup_or_null(m->repository);
    c->open--;
    struct wire_findings clock = {0};
    compare_clock(core, c, m, &clock);
    bool ok = send_answer(core, c, m, err) && send(core, c, &clock, err);
    findings_done(&clock);
    return ok && (c->open > 0 || finish(core, c, err));
}

/* --- Time ------------------------------------------------------------------------------------ */
int64_t checkup_next_ms(const struct core *core)
{
    int64_t next = 0;
    for (const struct checkup *c = core->checkups; c; c = c->next)
        next = next == 0 || c->due_ms < next ? c->due_ms : next;
    return next;
}

bool checkup_expire(struct core *core, struct err *err)
{
    for (struct checkup *c = core->checkups, *next; c; c = next) {
        next = c->next;
        if (c->due_ms <= core->now_ms && !finish(core, c, err))
            return false;
    }
    return true;
}

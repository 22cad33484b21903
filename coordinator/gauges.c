/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/gauges.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "coordinator/admission.h"
#include "proto/base/buf.h"
#include "proto/base/file.h"
#include "proto/wire/topology.h"

enum { TEXT_MAX_BYTES = 4 << 20, FILE_MODE = 0644 };

/* GAUGE(name, help): one row per name. */
#define GAUGES(GAUGE)                                                                              \
    GAUGE(connected, "1 while the coordinator is connected to the broker.")                        \
    GAUGE(tasks_waiting, "Tasks that wait for a worker or for their next attempt.")                \
    GAUGE(tasks_running, "Tasks that run.")                                                        \
    GAUGE(workers_up, "Workers that are there and take tasks.")                                    \
    GAUGE(cleanups_open, "Clean-up tasks that have not ended.")                                    \
    GAUGE(cleanup_oldest_age_seconds, "Age of the oldest open clean-up; 0 = none is open.")        \
    GAUGE(quarantined,                                                                             \
          "Tasks given up after too many attempts, as long as the ledger keeps them.")             \
    GAUGE(sweep_age_seconds, "Since the last sweep; the gauges below are as old.")                 \
    GAUGE(snapshots, "Snapshots of ours in the engine.")                                           \
    GAUGE(snapshot_oldest_age_seconds, "Age of the oldest of them; 0 = there is none.")            \
    GAUGE(proxy_disks, "Disks of ours that are attached to proxy VMs.")                            \
    GAUGE(transfers, "Image transfers of ours that are open.")                                     \
    GAUGE(half_made, "VMs and disks of restores that are not finished.")                           \
    GAUGE(left_behind, "Of all these, what belongs to tasks that have ended.")                     \
    GAUGE(foreign, "Things with a mark of a task that nobody knows.")

static const struct {
    const char *name, *help;
} texts[] = {
#define TEXT(name, help) {#name, help},
    GAUGES(TEXT)
#undef TEXT
};
enum gauge {
#define NUMBER(name, help) GAUGE_##name,
    GAUGES(NUMBER)
#undef NUMBER
};

void gauges_done(struct gauges *g)
{
    for (size_t i = 0; i < g->count; i++) {
        free(g->v[i].zone);
        free(g->v[i].lane);
    }
    free(g->v);
    *g = (struct gauges){0};
}

static void add(struct gauges *g, enum gauge gauge, const char *zone, const char *lane,
                int64_t value)
{
    g->v = xreallocarray(g->v, g->count + 1, sizeof *g->v);
    g->v[g->count++] = (struct wire_gauge_item){
        .name = (char *)(uintptr_t)texts[gauge].name,
        .zone = xstrdup_or_null(zone),
        .lane = xstrdup_or_null(lane),
        .value = value > 0 ? value : 0,
    };
}

static int64_t age_s(const struct core *core, int64_t since_ms)
{
    return since_ms > 0 ? (core->now_ms - since_ms) / 1000 : 0;
}

/* Every zone and lane of the configuration, also where nothing is: a number that vanishes when it
 * is zero is hard to watch. */
static bool read_crowd(struct core *core, struct gauges *g, struct err *err)
{
    struct crowd_list list;
    if (!ledger_crowd(core->ledger, &list, err))
        return false;
    for (size_t n = 0; n < (size_t)core->conf->zones_count * LANE_COUNT; n++) {
        const char *zone = core->conf->zones[n / LANE_COUNT].name;
        const char *lane = lane_name((enum lane)(n % LANE_COUNT));
        int64_t waiting = 0, running = 0;
        for (size_t i = 0; i < list.count; i++) {
            if (strcmp(list.v[i].zone, zone) == 0 && strcmp(list.v[i].lane, lane) == 0) {
                waiting = list.v[i].waiting;
                running = list.v[i].running;
            }
        }
        add(g, GAUGE_tasks_waiting, zone, lane, waiting);
        add(g, GAUGE_tasks_running, zone, lane, running);
    }
    crowd_list_done(&list);
    return true;
}

static bool read_workers(struct core *core, struct gauges *g, struct err *err)
{
    struct worker_list list;
    if (!ledger_worker_list(core->ledger, &list, err))
        return false;
    for (unsigned zone = 0; zone < core->conf->zones_count; zone++) {
        const char *name = core->conf->zones[zone].name;
        int64_t up = 0;
        for (size_t i = 0; i < list.count; i++)
            up += admission_worker_is_live(core, &list.v[i]) && strcmp(list.v[i].zone, name) == 0;
        add(g, GAUGE_workers_up, name, NULL, up);
    }
    worker_list_done(&list);
    return true;
}

static bool read_trouble(struct core *core, struct gauges *g, struct err *err)
{
    int64_t open = 0, oldest_ms = 0, quarantined = 0;
    if (!ledger_cleanups(core->ledger, &open, &oldest_ms, err) ||
        !ledger_quarantined(core->ledger, &quarantined, err))
        return false;
    add(g, GAUGE_cleanups_open, NULL, NULL, open);
    add(g, GAUGE_cleanup_oldest_age_seconds, NULL, NULL, age_s(core, oldest_ms));
    add(g, GAUGE_quarantined, NULL, NULL, quarantined);
    return true;
}

static bool read_sweeps(struct core *core, struct gauges *g, struct err *err)
{
    struct sweep_list list;
    if (!ledger_sweep_list(core->ledger, &list, err))
        return false;
    for (size_t i = 0; i < list.count; i++) {
        const struct sweep *s = &list.v[i];
        if (coordinator_conf_zone(core->conf, s->zone) < 0)
            continue;
        add(g, GAUGE_sweep_age_seconds, s->zone, NULL, age_s(core, s->at_ms));
        add(g, GAUGE_snapshots, s->zone, NULL, s->snapshots);
        add(g, GAUGE_snapshot_oldest_age_seconds, s->zone, NULL, age_s(core, s->oldest_ms));
        add(g, GAUGE_proxy_disks, s->zone, NULL, s->attachments);
        add(g, GAUGE_transfers, s->zone, NULL, s->transfers);
        add(g, GAUGE_half_made, s->zone, NULL, s->half_made);
        add(g, GAUGE_left_behind, s->zone, NULL, s->left_behind);
        add(g, GAUGE_foreign, s->zone, NULL, s->foreign_things);
    }
    sweep_list_done(&list);
    return true;
}

bool gauges_read(struct core *core, struct gauges *ret, struct err *err)
{
    SCOPED_GAUGES struct gauges g = {0};
    add(&g, GAUGE_connected, NULL, NULL, core->connected_ms >= 0);
    if (!read_crowd(core, &g, err) || !read_workers(core, &g, err) ||
        !read_trouble(core, &g, err) || !read_sweeps(core, &g, err))
        return false;
    *ret = g;
    g = (struct gauges){0};
    return true;
}

/* --- Text ------------------------------------------------------------------------------------- */
/* Zone names are slugs: nothing in them needs escaping. */
static void add_sample(struct buf *text, const struct wire_gauge_item *g)
{
    (void)buf_printf(text, "oxbow_%s", g->name);
    if (g->zone)
        (void)buf_printf(text, "{zone=\"%s\"", g->zone);
    if (g->zone && g->lane)
        (void)buf_printf(text, ",lane=\"%s\"", g->lane);
    (void)buf_printf(text, "%s %" PRId64 "\n", g->zone ? "}" : "", g->value);
}

char *gauges_text(const struct gauges *g)
{
    SCOPED_BUF struct buf text;
    buf_init(&text, TEXT_MAX_BYTES);
    /* All samples of a name stand together. */
    for (size_t n = 0; n < ARRAY_LEN(texts); n++) {
        bool first = true;
        for (size_t i = 0; i < g->count; i++) {
            if (strcmp(g->v[i].name, texts[n].name) != 0)
                continue;
            if (first)
                (void)buf_printf(&text, "# HELP oxbow_%s %s\n# TYPE oxbow_%s gauge\n",
                                 texts[n].name, texts[n].help, texts[n].name);
            first = false;
            add_sample(&text, &g->v[i]);
        }
    }
    return buf_take(&text);
}

bool gauges_write(struct core *core, const char *path, struct err *err)
{
    SCOPED_GAUGES struct gauges g = {0};
    if (!gauges_read(core, &g, err))
        return false;
    SCOPED_FREE char *text = gauges_text(&g);
    struct err why = ERR_INIT;
    bool ok = file_write_atomic(AT_FDCWD, path, text, strlen(text), FILE_MODE, &why);
    if (!ok && !core->metrics_failed)
        log_err(LOG_LEVEL_WARN, "metrics_not_written", &why);
    core->metrics_failed = !ok;
    return true;
}

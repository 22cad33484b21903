/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cli/report.h"

#include <inttypes.h>
#include <string.h>

#include "coordinator/cli/format.h"

#define RED    "1;31"
#define YELLOW "33"
#define GREEN  "32"

static void paint(struct buf *out, bool color, const char *sgr)
{
    if (color)
        (void)buf_printf(out, "\033[%sm", sgr);
}

/* --- Outcomes --------------------------------------------------------------------------------- */
static const char *name_of(const struct wire_outcome *m)
{
    return m->vm_name ? m->vm_name : m->vm ? m->vm : m->kind;
}

static void add_stats(const struct wire_stats *s, bool stored, struct buf *out)
{
    char text[FORMAT_BYTES];
    if (!s)
        return;
    format_duration(s->total_ms, text);
    (void)buf_printf(out, " in %s", text);
    if (!stored)
        return;
    format_size(s->bytes_read, text);
    (void)buf_printf(out, " (%s read,", text);
    format_size(s->bytes_stored, text);
    (void)buf_printf(out, " %s stored)", text);
}

static void add_success(const struct wire_outcome *m, bool utf8, struct buf *out)
{
    bool backup = strcmp(m->kind, "backup") == 0;
    (void)buf_printf(out, "%s",
                     backup                            ? "backed up"
                     : strcmp(m->kind, "restore") == 0 ? "restored"
                     : strcmp(m->kind, "export") == 0  ? "exported"
                                                       : "done");
    add_stats(m->stats, backup, out);
    if (m->point) {
        (void)buf_printf(out, backup ? " as " : " from ");
        (void)text_add_clean(out, m->point, utf8);
    }
    if (m->exported) {
        (void)buf_printf(out, " to ");
        (void)text_add_clean(out, m->exported, utf8);
    }
    if (m->new_vm) {
        (void)buf_printf(out, "; the new VM has id ");
        (void)text_add_clean(out, m->new_vm, utf8);
    }
}

static void add_error(const struct wire_outcome *m, bool utf8, bool color, struct buf *out)
{
    paint(out, color, RED);
    (void)buf_printf(out, "FAILED");
    paint(out, color, "0");
    if (!m->error)
        return;
    (void)buf_printf(out, ": ");
    (void)text_add_clean(out, m->error->message, utf8);
    (void)buf_printf(out, "\n    (");
    (void)text_add_clean(out, m->error->code, utf8);
    if (m->attempts > 1)
        (void)buf_printf(out, ", %" PRId64 " attempts", m->attempts);
    if (m->worker) {
        (void)buf_printf(out, ", worker ");
        (void)text_add_clean(out, m->worker, utf8);
    }
    (void)buf_printf(out, ")");
}

static void add_warning(const struct wire_warning *w, bool utf8, bool color, struct buf *out)
{
    paint(out, color, YELLOW);
    (void)buf_printf(out, "warning");
    paint(out, color, "0");
    if (w->disk) {
        (void)buf_printf(out, ": disk ");
        (void)text_add_clean(out, w->disk, utf8);
    }
    (void)buf_printf(out, ": ");
    (void)text_add_clean(out, w->message, utf8);
    (void)buf_printf(out, "\n");
}

void report_outcome(const struct wire_outcome *m, bool utf8, bool color, struct buf *out)
{
    bool is_listing = wire_is_listing(m->kind);
    if (is_listing && strcmp(m->status, "succeeded") == 0) {
        /* It only served the request: what it warns of is worth a line, that it went well is not.
         */
        for (size_t i = 0; i < m->warnings.count; i++)
            add_warning(&m->warnings.v[i], utf8, color, out);
        return;
    }
    (void)text_add_clean(out, name_of(m), utf8);
    (void)buf_printf(out, ": ");
    if (strcmp(m->status, "succeeded") == 0)
        add_success(m, utf8, out);
    else if (strcmp(m->status, "cancelled") == 0)
        (void)buf_printf(out, "cancelled");
    else
        add_error(m, utf8, color, out);
    (void)buf_printf(out, "\n");
    for (size_t i = 0; i < m->warnings.count; i++) {
        (void)buf_printf(out, "    ");
        add_warning(&m->warnings.v[i], utf8, color, out);
    }
    if (m->cleanup_open)
        (void)buf_printf(out, "    something of it is left in the cluster; the coordinator keeps "
                              "trying to clean it up (oxbow status)\n");
}

/* A cancellation that succeeded: its tasks are the ones that it ended. */
static void add_cancelled(const struct wire_finished *m, struct buf *out)
{
    if (m->tasks_total == 0)
        (void)buf_printf(out, ": nothing was left to cancel");
    else
        (void)buf_printf(out, ": %" PRId64 " of %" PRId64 " tasks cancelled", m->tasks_cancelled,
                         m->tasks_total);
    if (m->tasks_succeeded)
        (void)buf_printf(out, ", %" PRId64 " succeeded before", m->tasks_succeeded);
    if (m->tasks_failed)
        (void)buf_printf(out, ", %" PRId64 " failed before", m->tasks_failed);
    (void)buf_printf(out, "\n");
}

void report_finished(const struct wire_finished *m, bool color, struct buf *out)
{
    bool good = strcmp(m->status, "succeeded") == 0;
    paint(out, color, good ? GREEN : RED);
    (void)text_add_clean(out, m->kind, false);
    (void)buf_printf(out, " ");
    (void)text_add_clean(out, strcmp(m->status, "partly") == 0 ? "partly failed" : m->status,
                         false);
    paint(out, color, "0");
    if (good && strcmp(m->kind, "cancel") == 0) {
        add_cancelled(m, out);
        return;
    }
    if (m->tasks_total > 0) {
        (void)buf_printf(out, ": %" PRId64 " of %" PRId64 "%s", m->tasks_succeeded, m->tasks_total,
                         good ? "" : " succeeded");
        if (m->tasks_failed)
            (void)buf_printf(out, ", %" PRId64 " failed", m->tasks_failed);
        if (m->tasks_cancelled)
            (void)buf_printf(out, ", %" PRId64 " cancelled", m->tasks_cancelled);
    }
    (void)buf_printf(out, "\n");
}

/* --- Tables ----------------------------------------------------------------------------------- */
static void cell_number(struct table *t, int64_t n)
{
    char text[FORMAT_BYTES];
    snprintf(text, sizeof text, "%" PRId64, n);
    table_cell(t, text);
}

static void cell_size(struct table *t, int64_t bytes)
{
    char text[FORMAT_BYTES];
    format_size(bytes, text);
    table_cell(t, text);
}

static void cell_time(struct table *t, int64_t wall_ms)
{
    char text[FORMAT_BYTES];
    format_time(wall_ms, text);
    table_cell(t, text);
}

static void cell_age(struct table *t, int64_t wall_ms, int64_t now_wall_ms)
{
    char text[FORMAT_BYTES];
    format_age(wall_ms, now_wall_ms, text);
    table_cell(t, text);
}

/* A narrow screen cuts names, never ids, numbers or times: what is cut could not be typed again. */
void report_points(const struct wire_point_item *v, size_t count, int width, bool utf8,
                   int64_t now_wall_ms, struct buf *out)
{
    static const struct table_column columns[] = {
        {"VM", TABLE_LEFT, 8},       {"TIME", TABLE_LEFT, 0},  {"AGE", TABLE_RIGHT, 0},
        {"DISKS", TABLE_RIGHT, 0},   {"SIZE", TABLE_RIGHT, 0}, {"STORED", TABLE_RIGHT, 0},
        {"QUIESCED", TABLE_LEFT, 0}, {"STATE", TABLE_LEFT, 0}, {"ZONE", TABLE_LEFT, 6},
        {"POINT", TABLE_LEFT, 0},
    };
    if (count == 0)
        return;
    SCOPED(table) struct table *t = table_new(columns, ARRAY_LEN(columns));
    for (size_t i = 0; i < count; i++) {
        table_cell(t, v[i].vm_name ? v[i].vm_name : v[i].vm);
        cell_time(t, v[i].time_ms);
        cell_age(t, v[i].time_ms, now_wall_ms);
        cell_number(t, v[i].disks);
        cell_size(t, v[i].size_bytes);
        cell_size(t, v[i].stored_bytes);
        table_cell(t, v[i].quiesced);
        table_cell(t, v[i].state);
        table_cell(t, v[i].zone);
        table_cell(t, v[i].id);
    }
    table_render(t, width, utf8, out);
    for (size_t i = 0; i < count; i++) {
        if (!v[i].message)
            continue;
        (void)text_add_clean(out, v[i].id, utf8);
        (void)buf_printf(out, ": ");
        (void)text_add_clean(out, v[i].message, utf8);
        (void)buf_printf(out, "\n");
    }
}

void report_verdicts(const struct wire_point_item *v, size_t count, int width, bool utf8,
                     struct buf *out)
{
    static const struct table_column columns[] = {
        {"VM", TABLE_LEFT, 8},       {"TIME", TABLE_LEFT, 0},  {"STORED", TABLE_RIGHT, 0},
        {"STATE", TABLE_LEFT, 0},    {"ZONE", TABLE_LEFT, 6},  {"VERDICT", TABLE_LEFT, 0},
        {"KEPT BY", TABLE_LEFT, 10}, {"POINT", TABLE_LEFT, 0},
    };
    if (count == 0)
        return;
    SCOPED(table) struct table *t = table_new(columns, ARRAY_LEN(columns));
    for (size_t i = 0; i < count; i++) {
        table_cell(t, v[i].vm_name ? v[i].vm_name : v[i].vm);
        cell_time(t, v[i].time_ms);
        cell_size(t, v[i].stored_bytes);
        table_cell(t, v[i].state);
        table_cell(t, v[i].zone);
        table_cell(t, v[i].verdict);
        table_cell(t, v[i].rules);
        table_cell(t, v[i].id);
    }
    table_render(t, width, utf8, out);
}

void report_numbers(const struct wire_gauge_item *v, size_t count, int width, bool utf8,
                    struct buf *out)
{
    static const struct table_column columns[] = {
        {"ZONE", TABLE_LEFT, 6}, {"WHAT", TABLE_LEFT, 0}, {"VALUE", TABLE_RIGHT, 0}};
    if (count == 0)
        return;
    SCOPED(table) struct table *t = table_new(columns, ARRAY_LEN(columns));
    for (size_t i = 0; i < count; i++) {
        table_cell(t, v[i].zone);
        table_cell(t, v[i].name);
        if (strncmp(v[i].name, "bytes_", 6) == 0)
            cell_size(t, v[i].value);
        else
            cell_number(t, v[i].value);
    }
    table_render(t, width, utf8, out);
}

static char *join(const struct wire_strings *s)
{
    SCOPED_BUF struct buf text;
    buf_init(&text, 1 << 20);
    for (size_t i = 0; i < s->count; i++)
        (void)buf_printf(&text, "%s%s", i ? "," : "", s->v[i]);
    return buf_take(&text);
}

void report_vms(const struct wire_vm_item *v, size_t count, int width, bool utf8, struct buf *out)
{
    static const struct table_column columns[] = {
        {"NAME", TABLE_LEFT, 8},    {"STATUS", TABLE_LEFT, 4}, {"ZONE", TABLE_LEFT, 4},
        {"CLUSTER", TABLE_LEFT, 6}, {"HOST", TABLE_LEFT, 6},   {"DISKS", TABLE_RIGHT, 0},
        {"SIZE", TABLE_RIGHT, 0},   {"TAGS", TABLE_LEFT, 4},
    };
    if (count == 0)
        return;
    SCOPED(table) struct table *t = table_new(columns, ARRAY_LEN(columns));
    for (size_t i = 0; i < count; i++) {
        SCOPED_FREE char *tags = join(&v[i].tags);
        table_cell(t, v[i].name);
        table_cell(t, v[i].status);
        table_cell(t, v[i].zone);
        table_cell(t, v[i].cluster);
        table_cell(t, v[i].host);
        cell_number(t, v[i].disks);
        cell_size(t, v[i].provisioned_bytes);
        table_cell(t, tags);
    }
    table_render(t, width, utf8, out);
}

void report_requests(const struct wire_request_item *v, size_t count, int width, bool utf8,
                     int64_t now_wall_ms, struct buf *out)
{
    static const struct table_column columns[] = {
        {"REQUEST", TABLE_LEFT, 0},  {"KIND", TABLE_LEFT, 0},    {"STATE", TABLE_LEFT, 0},
        {"ACCEPTED", TABLE_LEFT, 0}, {"TOOK", TABLE_RIGHT, 0},   {"DONE", TABLE_RIGHT, 0},
        {"FAILED", TABLE_RIGHT, 0},  {"MESSAGE", TABLE_LEFT, 7},
    };
    if (count == 0)
        return;
    SCOPED(table) struct table *t = table_new(columns, ARRAY_LEN(columns));
    for (size_t i = 0; i < count; i++) {
        char text[2 * FORMAT_BYTES];
        table_cell(t, v[i].id);
        table_cell(t, v[i].kind);
        table_cell(t, v[i].state);
        cell_time(t, v[i].time_ms);
        format_duration((v[i].finished_ms ? v[i].finished_ms : now_wall_ms) - v[i].time_ms, text);
        table_cell(t, v[i].time_ms ? text : NULL);
        snprintf(text, sizeof text, "%" PRId64 "/%" PRId64, v[i].tasks_done, v[i].tasks_total);
        table_cell(t, text);
        cell_number(t, v[i].tasks_failed);
        table_cell(t, v[i].message);
    }
    table_render(t, width, utf8, out);
}

static void cell_percent(struct table *t, const struct wire_task_item *v)
{
    char text[FORMAT_BYTES];
    if (v->bytes_total <= 0) {
        table_cell(t, NULL);
        return;
    }
    double percent = 100.0 * (double)v->bytes_done / (double)v->bytes_total;
    snprintf(text, sizeof text, "%d%%", percent > 100 ? 100 : (int)percent);
    table_cell(t, text);
}

/* "; attempt 3 of 5 in 30s" */
static void add_next_attempt(const struct wire_task_item *t, struct buf *out)
{
    char wait[FORMAT_BYTES];
    if (strcmp(t->state, "waiting") != 0 && strcmp(t->state, "offered") != 0)
        return;
    format_duration(t->wait_ms, wait);
    (void)buf_printf(out, "; attempt %" PRId64, t->attempt);
    if (t->attempts_max)
        (void)buf_printf(out, " of %" PRId64, t->attempts_max);
    (void)buf_printf(out, " %s%s", t->wait_ms > 0 ? "in " : "as soon as a worker is free",
                     t->wait_ms > 0 ? wait : "");
}

/* A part stands below the task that gave it away. */
static void cell_vm(struct table *t, const struct wire_task_item *v)
{
    const char *name = v->vm_name ? v->vm_name : v->vm;
    SCOPED_FREE char *below = v->part_of ? xasprintf("- %s", name ? name : "") : NULL;
    table_cell(t, below ? below : name);
}

void report_tasks(const struct wire_task_item *v, size_t count, int width, bool utf8,
                  struct buf *out)
{
    static const struct table_column columns[] = {
        {"VM", TABLE_LEFT, 8},     {"KIND", TABLE_LEFT, 0},    {"STATE", TABLE_LEFT, 0},
        {"STEP", TABLE_LEFT, 0},   {"COPIED", TABLE_RIGHT, 0}, {"ATTEMPT", TABLE_RIGHT, 0},
        {"WORKER", TABLE_LEFT, 6}, {"TASK", TABLE_LEFT, 0},
    };
    if (count == 0)
        return;
    SCOPED(table) struct table *t = table_new(columns, ARRAY_LEN(columns));
    for (size_t i = 0; i < count; i++) {
        cell_vm(t, &v[i]);
        table_cell(t, v[i].kind);
        table_cell(t, v[i].state);
        table_cell(t, v[i].step);
        cell_percent(t, &v[i]);
        cell_number(t, v[i].attempt);
        table_cell(t, v[i].worker);
        table_cell(t, v[i].id);
    }
    table_render(t, width, utf8, out);
    for (size_t i = 0; i < count; i++) {
        if (!v[i].error)
            continue;
        (void)text_add_clean(out, v[i].vm_name ? v[i].vm_name : v[i].kind, utf8);
        (void)buf_printf(out, v[i].part_of ? " (part): " : ": ");
        (void)text_add_clean(out, v[i].error->message, utf8);
        (void)buf_printf(out, " (%s)", v[i].error->code);
        add_next_attempt(&v[i], out);
        (void)buf_printf(out, "\n");
    }
}

void report_workers(const struct wire_worker_item *v, size_t count, int width, bool utf8,
                    int64_t now_wall_ms, struct buf *out)
{
    static const struct table_column columns[] = {
        {"WORKER", TABLE_LEFT, 8},  {"ZONE", TABLE_LEFT, 4},     {"STATE", TABLE_LEFT, 0},
        {"SEEN", TABLE_RIGHT, 0},   {"RUNNING", TABLE_RIGHT, 0}, {"SLOTS", TABLE_RIGHT, 0},
        {"VERSION", TABLE_LEFT, 4},
    };
    if (count == 0)
        return;
    SCOPED(table) struct table *t = table_new(columns, ARRAY_LEN(columns));
    for (size_t i = 0; i < count; i++) {
        table_cell(t, v[i].name);
        table_cell(t, v[i].zone);
        table_cell(t, v[i].state);
        cell_age(t, v[i].seen_ms, now_wall_ms);
        cell_number(t, v[i].running);
        cell_number(t, v[i].slots);
        table_cell(t, v[i].version);
    }
    table_render(t, width, utf8, out);
}

/* --- Attempts and traces ---------------------------------------------------------------------- */
static void add_note(struct buf *out, const char *who, const char *text, const char *code,
                     bool utf8)
{
    (void)text_add_clean(out, who, utf8);
    (void)buf_printf(out, ": ");
    (void)text_add_clean(out, text, utf8);
    if (code) {
        (void)buf_printf(out, " (");
        (void)text_add_clean(out, code, utf8);
        (void)buf_printf(out, ")");
    }
    (void)buf_printf(out, "\n");
}

void report_attempts(const struct wire_attempt_item *v, size_t count, int width, bool utf8,
                     int64_t now_wall_ms, struct buf *out)
{
    static const struct table_column columns[] = {
        {"ATTEMPT", TABLE_RIGHT, 0}, {"WORKER", TABLE_LEFT, 6}, {"FENCE", TABLE_RIGHT, 0},
        {"BEGAN", TABLE_LEFT, 0},    {"TOOK", TABLE_RIGHT, 0},  {"LAST STEP", TABLE_LEFT, 0},
        {"ENDED", TABLE_LEFT, 0},
    };
    if (count == 0)
        return;
    SCOPED(table) struct table *t = table_new(columns, ARRAY_LEN(columns));
    for (size_t i = 0; i < count; i++) {
        char text[FORMAT_BYTES];
        cell_number(t, v[i].attempt);
        table_cell(t, v[i].worker);
        cell_number(t, v[i].fence);
        cell_time(t, v[i].time_ms);
        format_duration((v[i].ended_ms ? v[i].ended_ms : now_wall_ms) - v[i].time_ms, text);
        table_cell(t, text);
        table_cell(t, v[i].step);
        table_cell(t, v[i].ended ? v[i].ended : "it runs");
    }
    table_render(t, width, utf8, out);
    for (size_t i = 0; i < count; i++) {
        char who[FORMAT_BYTES];
        if (!v[i].error)
            continue;
        snprintf(who, sizeof who, "attempt %" PRId64, v[i].attempt);
        add_note(out, who, v[i].error->message, v[i].error->code, utf8);
    }
}

void report_traces(const struct wire_trace_item *v, size_t count, int width, bool utf8,
                   int64_t now_wall_ms, struct buf *out)
{
    static const struct table_column columns[] = {
        {"VERDICT", TABLE_LEFT, 0}, {"KIND", TABLE_LEFT, 0}, {"ZONE", TABLE_LEFT, 4},
        {"VM", TABLE_LEFT, 8},      {"AGE", TABLE_RIGHT, 0}, {"ID", TABLE_LEFT, 0},
        {"TASK", TABLE_LEFT, 0},    {"WHY", TABLE_LEFT, 10},
    };
    if (count == 0)
        return;
    SCOPED(table) struct table *t = table_new(columns, ARRAY_LEN(columns));
    for (size_t i = 0; i < count; i++) {
        table_cell(t, v[i].verdict);
        table_cell(t, v[i].kind);
        table_cell(t, v[i].zone);
        table_cell(t, v[i].vm_name ? v[i].vm_name : v[i].vm);
        if (v[i].time_ms)
            cell_age(t, v[i].time_ms, now_wall_ms);
        else
            table_cell(t, NULL);
        table_cell(t, v[i].id ? v[i].id : v[i].vm);
        table_cell(t, v[i].task);
        table_cell(t, v[i].message);
    }
    table_render(t, width, utf8, out);
}

/* --- Gauges ----------------------------------------------------------------------------------- */
/* The sum over all lanes; -1 when there is none. */
static int64_t gauge_of(const struct wire_gauge_item *v, size_t count, const char *name,
                        const char *zone)
{
    int64_t sum = -1;
    for (size_t i = 0; i < count; i++) {
        bool here = zone ? v[i].zone && strcmp(v[i].zone, zone) == 0 : v[i].zone == NULL;
        if (here && strcmp(v[i].name, name) == 0)
            sum = (sum < 0 ? 0 : sum) + v[i].value;
    }
    return sum;
}

static void add_age(struct buf *out, const char *before, int64_t age_s, const char *after)
{
    char text[FORMAT_BYTES];
    format_duration(age_s * 1000, text);
    (void)buf_printf(out, "%s%s%s", before, text, after);
}

static void add_zone(const struct wire_gauge_item *v, size_t count, const char *zone, bool utf8,
                     struct buf *out)
{
    (void)buf_printf(out, "zone ");
    (void)text_add_clean(out, zone, utf8);
    (void)buf_printf(out, ": %" PRId64 " tasks run, %" PRId64 " wait",
                     gauge_of(v, count, "tasks_running", zone),
                     gauge_of(v, count, "tasks_waiting", zone));
    int64_t age_s = gauge_of(v, count, "sweep_age_seconds", zone);
    if (age_s < 0) {
        (void)buf_printf(out, "; not swept yet\n");
        return;
    }
    int64_t snapshots = gauge_of(v, count, "snapshots", zone);
    add_age(out, "; ", age_s, " ago: ");
    (void)buf_printf(out, "%" PRId64 " snapshots of ours", snapshots);
    if (snapshots > 0)
        add_age(out, " (the oldest ", gauge_of(v, count, "snapshot_oldest_age_seconds", zone),
                " old)");
    (void)buf_printf(
        out, ", %" PRId64 " disks on proxies, %" PRId64 " left behind, %" PRId64 " foreign\n",
        gauge_of(v, count, "proxy_disks", zone), gauge_of(v, count, "left_behind", zone),
        gauge_of(v, count, "foreign", zone));
}

static bool is_first_of_zone(const struct wire_gauge_item *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (v[i].zone && strcmp(v[i].zone, v[n].zone) == 0)
            return false;
    }
    return true;
}

void report_gauges(const struct wire_gauge_item *v, size_t count, bool utf8, struct buf *out)
{
    for (size_t i = 0; i < count; i++) {
        if (v[i].zone && is_first_of_zone(v, i))
            add_zone(v, count, v[i].zone, utf8, out);
    }
    int64_t cleanups = gauge_of(v, count, "cleanups_open", NULL);
    int64_t quarantined = gauge_of(v, count, "quarantined", NULL);
    if (cleanups > 0) {
        (void)buf_printf(out, "%" PRId64 " clean-ups are open", cleanups);
        add_age(out, ", the oldest for ", gauge_of(v, count, "cleanup_oldest_age_seconds", NULL),
                "\n");
    }
    if (quarantined > 0)
        (void)buf_printf(out,
                         "%" PRId64 " tasks were given up after too many attempts (quarantined)\n",
                         quarantined);
}

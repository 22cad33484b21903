/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cli/progress.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/cli/format.h"

enum {
    TASKS_MAX = 100000,
    NAME_MIN = 8,
    NAME_MAX_COLUMNS = 28,
    STEP_COLUMNS = 9,
    MEASURE_MS = 1500
};

struct row {
    char *task, *name, *worker, *state, *step;
    char *why; /* it waits for its next attempt; NULL = it does not */
    int64_t attempts_max, wait_until_ms;
    int64_t attempt, bytes_done, bytes_total, rate_bps;
    int64_t measured_bytes, measured_ms; /* where the last own measurement of the rate stands */
};

struct progress {
    struct row *rows; /* of tasks that have not ended */
    size_t count;
    int64_t start_ms;
    int64_t total, done; /* as the coordinator says */
    int64_t ended, failed;
};

static void row_done(struct row *r)
{
    free(r->task);
    free(r->name);
    free(r->worker);
    free(r->state);
    free(r->step);
    free(r->why);
}

struct progress *progress_new(int64_t now_ms)
{
    struct progress *p = ALLOC_NEW(struct progress);
    p->start_ms = now_ms;
    return p;
}

void progress_free(struct progress *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->count; i++)
        row_done(&p->rows[i]);
    free(p->rows);
    free(p);
}

static struct row *find(const struct progress *p, const char *task)
{
    for (size_t i = 0; i < p->count; i++)
        if (strcmp(p->rows[i].task, task) == 0)
            return &p->rows[i];
    return NULL;
}

/* Replace *text; true when it differs. */
static bool set(char **text, const char *value)
{
    if (*text && value && strcmp(*text, value) == 0)
        return false;
    if (!*text && !value)
        return false;
    free(*text);
    *text = xstrdup_or_null(value);
    return true;
}

/* Status items carry no rate: take it from how far the copy came, half old and half new. */
static void measure(struct row *r, const struct wire_progress *m, int64_t now_ms)
{
    bool again = m->attempt != r->attempt || m->bytes_done < r->measured_bytes;
    if (m->rate_bps > 0 || again || r->measured_ms == 0) {
        r->rate_bps = m->rate_bps;
    } else if (now_ms - r->measured_ms >= MEASURE_MS) {
        int64_t delta = m->bytes_done - r->measured_bytes;
        int64_t rate = (int64_t)((double)delta * 1000 / (double)(now_ms - r->measured_ms));
        r->rate_bps = r->rate_bps > 0 ? (r->rate_bps + rate) / 2 : rate;
    } else {
        return;
    }
    r->measured_bytes = m->bytes_done;
    r->measured_ms = now_ms;
}

bool progress_update(struct progress *p, const struct wire_progress *m, int64_t now_ms)
{
    p->total = m->tasks_total > p->total ? m->tasks_total : p->total;
    p->done = m->tasks_done > p->done ? m->tasks_done : p->done;
    if (wire_is_listing(m->kind)) /* it serves the request, and is no part of what was asked for */
        return false;
    struct row *r = find(p, m->task);
    bool changed = false;
    if (!r) {
        if (p->count >= TASKS_MAX)
            return false;
        p->rows = xreallocarray(p->rows, p->count + 1, sizeof *p->rows);
        r = &p->rows[p->count++];
        *r = (struct row){.task = xstrdup(m->task)};
        changed = true;
    }
    const char *name = m->vm_name ? m->vm_name : m->vm ? m->vm : m->kind;
    (void)set(&r->name, name);
    changed |= set(&r->state, m->state);
    changed |= set(&r->step, m->step);
    changed |= set(&r->worker, m->worker);
    changed |= set(&r->why, m->error ? m->error->message : NULL);
    r->wait_until_ms = now_ms + m->wait_ms;
    r->attempts_max = m->attempts_max;
    changed |= r->attempt != m->attempt;
    measure(r, m, now_ms);
    r->attempt = m->attempt;
    r->bytes_done = m->bytes_done;
    r->bytes_total = m->bytes_total;
    return changed;
}

void progress_end(struct progress *p, const struct wire_outcome *m)
{
    if (wire_is_listing(m->kind))
        return;
    struct row *r = find(p, m->task);
    p->ended++;
    p->failed += strcmp(m->status, "failed") == 0;
    if (!r)
        return;
    row_done(r);
    *r = p->rows[--p->count];
}

/* --- Rendering -------------------------------------------------------------------------------- */
static bool is_running(const struct row *r)
{
    return strcmp(r->state, "running") == 0;
}

/* Waits for another attempt: worth a line, since it says why. */
static bool is_told(const struct row *r)
{
    return is_running(r) || r->why;
}

static bool is_copying(const struct row *r)
{
    return r->bytes_total > 0 && r->step && strcmp(r->step, "copy") == 0;
}

/* Running before waiting, copying before other steps, fast before slow, then by name. */
static int by_activity(const void *left, const void *right)
{
    const struct row *a = *(const struct row *const *)left;
    const struct row *b = *(const struct row *const *)right;
    if (is_running(a) != is_running(b))
        return is_running(b) - is_running(a);
    if (is_told(a) != is_told(b))
        return is_told(b) - is_told(a);
    if (is_copying(a) != is_copying(b))
        return is_copying(b) - is_copying(a);
    if (is_copying(a) && a->rate_bps != b->rate_bps)
        return a->rate_bps > b->rate_bps ? -1 : 1;
    int names = strcmp(a->name, b->name);
    return names ? names : strcmp(a->task, b->task);
}

static int permille(const struct row *r)
{
    if (r->bytes_total <= 0 || r->bytes_done <= 0)
        return 0;
    if (r->bytes_done >= r->bytes_total)
        return 1000;
    return (int)((double)r->bytes_done * 1000.0 / (double)r->bytes_total);
}

static void add_bar(struct buf *out, int columns, int filled_permille, const char *full,
                    const char *empty)
{
    int filled = columns * filled_permille / 1000;
    for (int i = 0; i < columns; i++)
        (void)buf_printf(out, "%s", i < filled ? full : empty);
}

static void add_color(struct buf *out, const struct progress_view *view, const char *sgr)
{
    if (view->color)
        (void)buf_printf(out, "\033[%sm", sgr);
}

/* Which columns fit: each is dropped when the terminal is too narrow for it, least useful first. */
struct layout {
    int name, bar;
    bool step, percent, rate, left, worker;
    int worker_columns;
};

enum {
    PERCENT_COLUMNS = 6, /* "  100%" */
    RATE_COLUMNS = 14,   /* "  1023 MiB/s  " */
    LEFT_COLUMNS = 13,   /* "  3m12s left" */
    WORKER_MAX_COLUMNS = 16,
    BAR_MIN = 10,
    BAR_MAX = 30,
};

static struct layout lay_out(int columns, int widest_name, int widest_worker)
{
    struct layout l = {.name = widest_name};
    l.name = l.name < NAME_MIN ? NAME_MIN : l.name > NAME_MAX_COLUMNS ? NAME_MAX_COLUMNS : l.name;
    l.worker_columns = widest_worker > WORKER_MAX_COLUMNS ? WORKER_MAX_COLUMNS : widest_worker;
    if (l.name > columns - PERCENT_COLUMNS)
        l.name = columns - PERCENT_COLUMNS;
    int left = columns - l.name - PERCENT_COLUMNS;
    l.percent = l.name >= 1;
    if (!l.percent)
        l.name = columns;
    struct {
        int columns;
        bool *on;
    } optional[] = {
        {2 + STEP_COLUMNS, &l.step},       {2 + BAR_MIN, NULL},
        {RATE_COLUMNS, &l.rate},           {LEFT_COLUMNS, &l.left},
        {2 + l.worker_columns, &l.worker},
    };
    for (size_t i = 0; i < ARRAY_LEN(optional) && optional[i].columns <= left; i++) {
        left -= optional[i].columns;
        if (optional[i].on)
            *optional[i].on = true;
        else
            l.bar = BAR_MIN;
    }
    if (l.bar) {
        l.bar += left;
        if (l.bar > BAR_MAX)
            l.bar = BAR_MAX;
    }
    return l;
}

static void add_left_time(struct buf *out, const struct row *r)
{
    char left[FORMAT_BYTES] = "";
    if (is_copying(r) && r->rate_bps > 0 && r->bytes_done < r->bytes_total) {
        double seconds = (double)(r->bytes_total - r->bytes_done) / (double)r->rate_bps;
        if (seconds < 100.0 * 86400)
            format_duration((int64_t)(seconds * 1000), left);
    }
    if (left[0])
        (void)buf_printf(out, "  %6.6s left", left);
    else
        (void)buf_printf(out, "%*s", LEFT_COLUMNS, "");
}

/* "waits 30s after: ERROR, attempt 3 of 5", or "waits for a worker after: ...". */
static void add_wait(int64_t wait_ms, const char *why, int64_t attempt, int64_t attempts_max,
                     bool utf8, struct buf *out)
{
    char wait[FORMAT_BYTES];
    format_duration(wait_ms, wait);
    (void)buf_printf(out, "waits %s after: ", wait_ms > 0 ? wait : "for a worker");
    (void)text_add_clean(out, why, utf8);
    (void)buf_printf(out, ", attempt %" PRId64, attempt);
    if (attempts_max)
        (void)buf_printf(out, " of %" PRId64, attempts_max);
}

static void add_waiting_row(const struct row *r, const struct layout *l,
                            const struct progress_view *view, int64_t now_ms, struct buf *out)
{
    SCOPED_BUF struct buf text;
    buf_init(&text, 8192);
    text_add_fit(out, r->name, l->name, true, view->utf8);
    add_wait(r->wait_until_ms - now_ms, r->why, r->attempt, r->attempts_max, view->utf8, &text);
    int room = view->width - 1 - l->name - 2;
    if (room > 0) {
        (void)buf_printf(out, "  ");
        add_color(out, view, "33");
        text_add_fit(out, buf_str(&text), room, false, view->utf8);
        add_color(out, view, "0");
    }
    (void)buf_add(out, "\n", 1);
}

static void add_row(const struct row *r, const struct layout *l, const struct progress_view *view,
                    struct buf *out)
{
    text_add_fit(out, r->name, l->name, true, view->utf8);
    if (l->step) {
        (void)buf_printf(out, "  ");
        add_color(out, view, r->attempt > 1 ? "33" : "36");
        text_add_fit(out, is_running(r) && r->step ? r->step : r->state, STEP_COLUMNS, true,
                     view->utf8);
        add_color(out, view, "0");
    }
    bool copying = is_copying(r);
    if (l->bar && copying) {
        (void)buf_printf(out, "  ");
        add_bar(out, l->bar, permille(r), view->utf8 ? "█" : "#", view->utf8 ? "░" : "-");
    } else if (l->bar) {
        (void)buf_printf(out, "%*s", 2 + l->bar, "");
    }
    if (l->percent && copying)
        (void)buf_printf(out, "  %3d%%", permille(r) / 10);
    else if (l->percent)
        (void)buf_printf(out, "%*s", PERCENT_COLUMNS, "");
    char rate[FORMAT_BYTES] = "";
    if (copying && r->rate_bps > 0)
        format_rate(r->rate_bps, rate);
    if (l->rate)
        (void)buf_printf(out, "  %12.12s", rate);
    if (l->left)
        add_left_time(out, r);
    if (l->worker && r->worker) {
        (void)buf_printf(out, "  ");
        text_add_fit(out, r->worker, l->worker_columns, false, view->utf8);
    }
    while (out->len && out->data[out->len - 1] == ' ')
        out->data[--out->len] = '\0';
    (void)buf_add(out, "\n", 1);
}

struct sums {
    int64_t running, waiting, rate_bps;
};

static struct sums sum_up(const struct progress *p)
{
    struct sums s = {0};
    for (size_t i = 0; i < p->count; i++) {
        bool running = is_running(&p->rows[i]);
        s.running += running;
        s.waiting += !running;
        s.rate_bps += running && is_copying(&p->rows[i]) ? p->rows[i].rate_bps : 0;
    }
    return s;
}

static void add_summary(const struct progress *p, const struct progress_view *view, int64_t now_ms,
                        struct buf *out)
{
    SCOPED_BUF struct buf line;
    buf_init(&line, 4096);
    struct sums s = sum_up(p);
    int64_t done = p->ended > p->done ? p->ended : p->done;
    int64_t total = p->total > done + (int64_t)p->count ? p->total : done + (int64_t)p->count;
    char elapsed[FORMAT_BYTES];
    format_duration(now_ms - p->start_ms, elapsed);
    if (total == 0)
        (void)buf_printf(&line, "looking for VMs");
    else
        (void)buf_printf(&line, "%" PRId64 " of %" PRId64 " done", done, total);
    if (p->failed)
        (void)buf_printf(&line, ", %" PRId64 " failed", p->failed);
    if (s.running)
        (void)buf_printf(&line, ", %" PRId64 " running", s.running);
    if (s.rate_bps > 0) {
        char rate[FORMAT_BYTES];
        format_rate(s.rate_bps, rate);
        (void)buf_printf(&line, "  %s", rate);
    }
    (void)buf_printf(&line, "  %s", elapsed);
    add_color(out, view, p->failed ? "1;31" : "1");
    text_add_fit(out, buf_str(&line), view->width - 1, false, view->utf8);
    add_color(out, view, "0");
    (void)buf_add(out, "\n", 1);
}

static void add_more(size_t running, size_t waiting, const struct progress_view *view,
                     struct buf *out)
{
    char line[96] = "";
    if (running && waiting)
        snprintf(line, sizeof line, "and %zu more running, %zu waiting", running, waiting);
    else if (running)
        snprintf(line, sizeof line, "and %zu more running", running);
    else
        snprintf(line, sizeof line, "and %zu waiting", waiting);
    text_add_fit(out, line, view->width - 1, false, view->utf8);
    (void)buf_add(out, "\n", 1);
}

/* Renders rows[0..shown) and one line for the rest. */
static void add_rows(const struct row *const *rows, size_t count, size_t shown,
                     const struct progress_view *view, int64_t now_ms, struct buf *out)
{
    int widest_name = 0, widest_worker = 0;
    for (size_t i = 0; i < shown; i++) {
        int name = text_width(rows[i]->name, view->utf8);
        int worker = rows[i]->worker ? text_width(rows[i]->worker, view->utf8) : 0;
        widest_name = name > widest_name ? name : widest_name;
        widest_worker = worker > widest_worker ? worker : widest_worker;
    }
    struct layout l = lay_out(view->width - 1, widest_name, widest_worker);
    for (size_t i = 0; i < shown; i++) {
        if (is_running(rows[i]))
            add_row(rows[i], &l, view, out);
        else
            add_waiting_row(rows[i], &l, view, now_ms, out);
    }
    size_t running = 0;
    for (size_t i = shown; i < count; i++)
        running += is_running(rows[i]);
    if (shown < count)
        add_more(running, count - shown - running, view, out);
}

void progress_render(const struct progress *p, const struct progress_view *view, int64_t now_ms,
                     struct buf *out)
{
    if (view->width < 2)
        return;
    SCOPED_FREE const struct row **rows = xcalloc(p->count + 1, sizeof *rows);
    size_t told = 0;
    for (size_t i = 0; i < p->count; i++) {
        rows[i] = &p->rows[i];
        told += is_told(&p->rows[i]);
    }
    qsort(rows, p->count, sizeof *rows, by_activity);
    /* Tasks that wait for their first attempt have no lines: they are many and say nothing. */
    size_t room = view->max_rows > 1 ? (size_t)view->max_rows - 1 : 0;
    size_t shown = told;
    if (shown > room || (shown < p->count && shown >= room))
        shown = room ? room - 1 : 0;
    if (room)
        add_rows(rows, p->count, shown, view, now_ms, out);
    add_summary(p, view, now_ms, out);
}

void progress_render_change(const struct wire_progress *m, bool utf8, struct buf *out)
{
    (void)text_add_clean(out, m->vm_name ? m->vm_name : m->vm ? m->vm : m->kind, utf8);
    (void)buf_printf(out, ": ");
    bool running = strcmp(m->state, "running") == 0;
    if (!running && m->error) {
        add_wait(m->wait_ms, m->error->message, m->attempt, m->attempts_max, utf8, out);
        (void)buf_add(out, "\n", 1);
        return;
    }
    (void)text_add_clean(out, running && m->step ? m->step : m->state, utf8);
    if (running && m->worker) {
        (void)buf_printf(out, " on ");
        (void)text_add_clean(out, m->worker, utf8);
    }
    if (m->attempt > 1)
        (void)buf_printf(out, " (attempt %" PRId64 ")", m->attempt);
    (void)buf_add(out, "\n", 1);
}

/* --- The painter ------------------------------------------------------------------------------ */
void live_paint(struct live *l, const char *lines, struct buf *out)
{
    /* Up to the first line that stands, then each line anew with its rest erased, then below. */
    if (l->rows > 0)
        (void)buf_printf(out, "\r\033[%dA", l->rows);
    int rows = 0;
    while (*lines) {
        int len = (int)strcspn(lines, "\n");
        (void)buf_printf(out, "%.*s\033[K\n", len, lines);
        lines += lines[len] ? len + 1 : len;
        rows++;
    }
    if (rows < l->rows)
        (void)buf_printf(out, "\033[J");
    l->rows = rows;
}

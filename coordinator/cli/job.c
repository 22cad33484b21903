/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cli/job.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "coordinator/cli/format.h"
#include "coordinator/cli/progress.h"
#include "coordinator/cli/report.h"
#include "proto/base/file.h"

enum { KEY_PROGRESS = 0x180, TEXT_MAX_BYTES = 16 << 20, REDRAW_MS = 250, ROWS_SPARE = 2 };

/* --- Options ---------------------------------------------------------------------------------- */
static const char *const progress_words[] = {"auto", "live", "plain", "json", "none"};

static error_t parse_job(int key, char *arg, struct argp_state *state)
{
    struct job_args *args = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &args->wait;
        state->child_inputs[1] = &args->output;
        state->child_inputs[2] = &args->connect;
        return 0;
    case ARGP_KEY_END:
        if (args->progress != JOB_PROGRESS_JSON || args->output.json)
            return 0;
        argp_error(state, "--progress=json goes with --json");
        return EINVAL;
    case KEY_PROGRESS:
        for (size_t i = 0; i < ARRAY_LEN(progress_words); i++) {
            if (strcmp(arg, progress_words[i]) == 0) {
                args->progress = (enum job_progress)i;
                return 0;
            }
        }
        argp_error(state, "--progress is auto, live, plain, json or none, not '%s'", arg);
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option job_options[] = {
    {.name = "progress",
     .key = KEY_PROGRESS,
     .arg = "auto|live|plain|json|none",
     .doc = "How to show progress on standard error; auto: live on a terminal, plain otherwise; "
            "json: with --json, among its lines",
     .group = 8},
    {0},
};
static const struct argp_child job_children[] = {
    {.argp = &wait_argp}, {.argp = &output_argp}, {.argp = &connect_argp}, {0}};
const struct argp job_argp = {
    .options = job_options, .parser = parse_job, .children = job_children};

/* AUTO made definite. */
static enum job_progress resolve(const struct job_args *args, const struct output_style *style)
{
    if (args->progress != JOB_PROGRESS_AUTO)
        return args->progress;
    if (args->output.json || args->output.quiet || args->wait.no_wait)
        return JOB_PROGRESS_NONE;
    return style->live ? JOB_PROGRESS_LIVE : JOB_PROGRESS_PLAIN;
}

bool job_wants_progress(const struct job_args *args)
{
    struct output_style style = {0};
    return resolve(args, &style) != JOB_PROGRESS_NONE;
}

/* --- The run ---------------------------------------------------------------------------------- */
struct job {
    const struct job_args *args;
    struct output_style style;
    enum job_progress mode;
    struct progress *progress;
    struct live live;
    bool changed;
    int64_t drawn_ms;
};

static void write_stderr(const struct buf *text)
{
    struct err ignored = ERR_INIT; /* there is nowhere left to complain */
    if (text->len)
        (void)file_write_full(STDERR_FILENO, text->data, text->len, &ignored);
}

static void clear_live(void *ctx)
{
    struct job *j = ctx;
    if (j->live.rows == 0)
        return;
    SCOPED_BUF struct buf text;
    buf_init(&text, TEXT_MAX_BYTES);
    live_paint(&j->live, "", &text);
    write_stderr(&text);
    j->changed = true;
}

static void tick(void *ctx, int64_t now_ms)
{
    struct job *j = ctx;
    int64_t since = now_ms - j->drawn_ms;
    if (j->mode != JOB_PROGRESS_LIVE || since < REDRAW_MS || (!j->changed && since < 1000))
        return;
    struct progress_view view = {.utf8 = j->style.utf8, .color = j->style.color_err};
    output_terminal_size(STDERR_FILENO, &view.width, &view.max_rows);
    view.max_rows = view.max_rows > ROWS_SPARE + 1 ? view.max_rows - ROWS_SPARE : 1;
    SCOPED_BUF struct buf lines, text;
    buf_init(&lines, TEXT_MAX_BYTES);
    buf_init(&text, TEXT_MAX_BYTES);
    progress_render(j->progress, &view, now_ms, &lines);
    live_paint(&j->live, buf_str(&lines), &text);
    write_stderr(&text);
    j->changed = false;
    j->drawn_ms = now_ms;
}

/* A result on standard output; what stands on the terminal steps aside. */
static void print(struct job *j, const struct buf *text)
{
    struct err err = ERR_INIT;
    clear_live(j);
    if (!output_write(text, &err))
        output_error(&err, NULL);
}

/* True when the reply was written as JSON. */
static bool print_json(struct job *j, enum wire_type type, const void *message)
{
    if (!j->args->output.json)
        return false;
    struct err err = ERR_INIT;
    SCOPED_BUF struct buf text;
    buf_init(&text, TEXT_MAX_BYTES);
    if (output_json_reply(type, message, &text, &err))
        print(j, &text);
    else
        output_error(&err, NULL);
    return true;
}

static void on_accepted(void *ctx, const struct wire_accepted *m)
{
    struct job *j = ctx;
    clear_live(j);
    if (print_json(j, WIRE_ACCEPTED, m))
        return;
    if (m->duplicate)
        output_hint(&j->args->output, "this key was used before: following request %s", m->request);
    if (j->args->wait.no_wait) {
        SCOPED_BUF struct buf text;
        buf_init(&text, TEXT_MAX_BYTES);
        (void)buf_printf(&text, "%s\n", m->request);
        print(j, &text);
    } else if (!m->duplicate) {
        output_hint(&j->args->output, "request %s accepted", m->request);
    }
}

static void on_progress(void *ctx, const struct wire_progress *m)
{
    struct job *j = ctx;
    bool changed = progress_update(j->progress, m, clock_mono_ms(clock_system()));
    j->changed = true;
    if (j->mode == JOB_PROGRESS_JSON && print_json(j, WIRE_PROGRESS, m))
        return;
    if (j->mode != JOB_PROGRESS_PLAIN || !changed)
        return;
    SCOPED_BUF struct buf line;
    buf_init(&line, TEXT_MAX_BYTES);
    progress_render_change(m, j->style.utf8, &line);
    write_stderr(&line);
}

static void on_outcome(void *ctx, const struct wire_outcome *m)
{
    struct job *j = ctx;
    progress_end(j->progress, m);
    j->changed = true;
    if (print_json(j, WIRE_OUTCOME, m))
        return;
    SCOPED_BUF struct buf text;
    buf_init(&text, TEXT_MAX_BYTES);
    report_outcome(m, j->style.utf8, j->style.color, &text);
    print(j, &text);
}

static void on_finished(void *ctx, const struct wire_finished *m)
{
    struct job *j = ctx;
    if (print_json(j, WIRE_FINISHED, m))
        return;
    SCOPED_BUF struct buf text;
    buf_init(&text, TEXT_MAX_BYTES);
    report_finished(m, j->style.color, &text);
    print(j, &text);
}

static void on_refused(void *ctx, const struct wire_refused *m)
{
    struct job *j = ctx;
    (void)print_json(j, WIRE_REFUSED, m);
}

static void on_notice(void *ctx, const char *text)
{
    struct job *j = ctx;
    clear_live(j);
    output_hint(&j->args->output, "%s", text);
}

/* `what` says what to send or follow; the rest is filled in here. */
static int run(const struct job_args *args, const struct request_opts *what)
{
    struct request_opts o = *what;
    struct job j = {.args = args};
    output_init(&j.style);
    j.mode = resolve(args, &j.style);
    SCOPED(progress) struct progress *progress = progress_new(clock_mono_ms(clock_system()));
    j.progress = progress;
    o.connect = &args->connect;
    o.output = &args->output;
    o.wait = !args->wait.no_wait;
    o.timeout_ms = args->wait.timeout_s * 1000;
    o.events = (struct flow_events){
        .accepted = on_accepted,
        .progress = on_progress,
        .outcome = on_outcome,
        .finished = on_finished,
        .refused = on_refused,
        .notice = on_notice,
    };
    o.tick = tick;
    o.clear = clear_live;
    o.ctx = &j;
    int code = request_run(&o);
    clear_live(&j);
    return code;
}

int job_run(const struct job_args *args, enum flow_kind kind, enum wire_type type,
            const void *message)
{
    return run(args, &(struct request_opts){.kind = kind, .type = type, .message = message});
}

int job_follow(const struct job_args *args, const char *request)
{
    return run(args,
               &(struct request_opts){.kind = FLOW_FOLLOW, .type = WIRE_STATUS, .follow = request});
}

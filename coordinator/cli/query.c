/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cli/query.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "coordinator/cli/args.h"
#include "coordinator/cli/verb.h"

enum { KEY_TIMEOUT = 0x110, TEXT_MAX_BYTES = 1 << 30, PAGES_MAX = 100000 };

/* --- Options ---------------------------------------------------------------------------------- */
static error_t parse_query(int key, char *arg, struct argp_state *state)
{
    struct query_args *args = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &args->output;
        state->child_inputs[1] = &args->connect;
        return 0;
    case KEY_TIMEOUT:
        return args_duration(state, "--timeout", arg, &args->timeout_s);
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option query_options[] = {
    {.name = "timeout",
     .key = KEY_TIMEOUT,
     .arg = "DURATION",
     .doc = "Give up after this time (default 2m; exit code 7)",
     .group = 7},
    {0},
};
static const struct argp_child query_children[] = {
    {.argp = &output_argp}, {.argp = &connect_argp}, {0}};
const struct argp query_argp = {
    .options = query_options, .parser = parse_query, .children = query_children};

/* --- The run ---------------------------------------------------------------------------------- */
struct query {
    const struct query_args *args;
    struct wire_message *pages; /* owned copies */
    size_t count;
};

static void forget(void *ctx)
{
    struct query *q = ctx;
    for (size_t i = 0; i < q->count; i++)
        wire_free(&q->pages[i]);
    free(TAKE(q->pages));
    q->count = 0;
}

/* The page is borrowed: keep a copy, made by the codec. */
static void on_page(void *ctx, const struct wire_page *m)
{
    struct query *q = ctx;
    struct err err = ERR_INIT;
    struct wire_message copy = {0};
    size_t len;
    if (q->count >= PAGES_MAX)
        return;
    SCOPED_FREE char *body = wire_encode(WIRE_PAGE, m, &len, &err);
    if (!body || !wire_decode(wire_type_name(WIRE_PAGE), body, len, &copy, &err)) {
        output_error(&err, NULL);
        return;
    }
    q->pages = xreallocarray(q->pages, q->count + 1, sizeof *q->pages);
    q->pages[q->count++] = copy;
}

/* A listing that failed in a zone: its items are missing, and this says why. */
static void on_outcome(void *ctx, const struct wire_outcome *m)
{
    (void)ctx;
    struct err err = ERR_INIT;
    if (!m->error)
        return;
    wire_error_to_err(m->error, &err);
    output_error(&err, NULL);
}

static void on_notice(void *ctx, const char *text)
{
    struct query *q = ctx;
    output_hint(&q->args->output, "%s", text);
}

/* --- All pages as one list: the arrays are ours, what they point at belongs to the pages. -------
 */
#define APPEND(all, items, array)                                                                  \
    do {                                                                                           \
        if ((items)->array##_count) {                                                              \
            size_t n_ = (all)->array##_count + (items)->array##_count;                             \
            (all)->array = xreallocarray((all)->array, n_, sizeof *(all)->array);                  \
            memcpy((all)->array + (all)->array##_count, (items)->array,                            \
                   (items)->array##_count * sizeof *(all)->array);                                 \
            (all)->array##_count = n_;                                                             \
        }                                                                                          \
    } while (0)

static void gather(const struct query *q, struct wire_item_list *all)
{
    *all = (struct wire_item_list){0};
    for (size_t i = 0; i < q->count; i++) {
        const struct wire_page *page = q->pages[i].as;
        APPEND(all, page->items, vms);
        APPEND(all, page->items, points);
        APPEND(all, page->items, requests);
        APPEND(all, page->items, tasks);
        APPEND(all, page->items, workers);
        APPEND(all, page->items, traces);
        APPEND(all, page->items, gauges);
        APPEND(all, page->items, attempts);
        APPEND(all, page->items, plans);
        APPEND(all, page->items, findings);
    }
}

static void gathered_done(struct wire_item_list *all)
{
    free(all->vms);
    free(all->points);
    free(all->requests);
    free(all->tasks);
    free(all->workers);
    free(all->traces);
    free(all->gauges);
    free(all->attempts);
    free(all->plans);
    free(all->findings);
}

static bool render_json(const struct query *q, struct buf *out, struct err *err)
{
    for (size_t i = 0; i < q->count; i++) {
        const struct wire_page *page = q->pages[i].as;
        if (!output_json_items(page->items, out, err))
            return false;
    }
    return true;
}

static int print_answer(const struct query *q, query_print_fn print, const char *empty)
{
    struct err err = ERR_INIT;
    struct output_style style;
    SCOPED_BUF struct buf text;
    buf_init(&text, TEXT_MAX_BYTES);
    bool ok = true;
    if (q->args->output.json) {
        ok = render_json(q, &text, &err);
    } else {
        struct wire_item_list all;
        gather(q, &all);
        output_init(&style);
        print(&all, &style, &text);
        gathered_done(&all);
    }
    if (ok && text.len == 0 && !q->args->output.json)
        output_hint(&q->args->output, "%s", empty);
    ok = ok && output_write(&text, &err);
    if (!ok)
        output_error(&err, NULL);
    return ok ? CLI_SUCCEEDED : CLI_FAILED;
}

/* --- What was named and is not there ---------------------------------------------------------- */
static bool is_planned(const struct query *q, const char *id, const char *name)
{
    for (size_t i = 0; i < q->count; i++) {
        const struct wire_item_list *items = ((const struct wire_page *)q->pages[i].as)->items;
        for (size_t v = 0; v < items->plans_count; v++) {
            if ((name && strcmp(items->plans[v].name, name) == 0) ||
                (id && strcasecmp(items->plans[v].id, id) == 0))
                return true;
        }
    }
    return false;
}

static bool is_excluded(const struct wire_select *select, const char *name)
{
    for (size_t i = 0; i < select->exclude.count; i++) {
        if (strcmp(select->exclude.v[i], name) == 0)
            return true;
    }
    return false;
}

static size_t say_missing(const struct query *q, const struct wire_select *named)
{
    size_t missing = 0;
    for (size_t i = 0; i < named->names.count + named->ids.count; i++) {
        struct err err = ERR_INIT;
        bool by_name = i < named->names.count;
        const char *what = by_name ? named->names.v[i] : named->ids.v[i - named->names.count];
        if (is_planned(q, by_name ? NULL : what, by_name ? what : NULL) ||
            (by_name && is_excluded(named, what)))
            continue;
        missing++;
        err_set(&err, ERR_NOT_FOUND, 0, "no VM with %s '%s'", by_name ? "name" : "id", what);
        output_error(&err, "'oxbow inventory' lists them");
    }
    return missing;
}

int query_run(const struct query_args *args, enum wire_type type, const void *message,
              query_print_fn print, const char *empty)
{
    return query_run_named(args, type, message, print, empty, NULL);
}

int query_run_named(const struct query_args *args, enum wire_type type, const void *message,
                    query_print_fn print, const char *empty, const struct wire_select *named)
{
    struct query q = {.args = args};
    int code = request_run(&(struct request_opts){
        .connect = &args->connect,
        .output = &args->output,
        .kind = FLOW_QUERY,
        .type = type,
        .message = message,
        .wait = true,
        .timeout_ms = (args->timeout_s ? args->timeout_s : QUERY_TIMEOUT_S) * 1000,
        .events =
            {.outcome = on_outcome, .page = on_page, .restarted = forget, .notice = on_notice},
        .ctx = &q,
    });
    /* A part of the answer is worth printing: one zone may be down, the others are not. */
    if (code == CLI_SUCCEEDED || code == CLI_PARTLY || (code == CLI_FAILED && q.count)) {
        int printed = print_answer(&q, print, empty);
        code = code == CLI_SUCCEEDED ? printed : code;
        if (named && say_missing(&q, named) > 0 && code == CLI_SUCCEEDED)
            code = q.count > 0 ? CLI_PARTLY : CLI_FAILED;
    }
    forget(&q);
    return code;
}

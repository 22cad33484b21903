/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cli/output.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <jansson.h>

#include "coordinator/cli/format.h"
#include "proto/base/file.h"

enum { KEY_JSON = 0x300, TEXT_MAX_BYTES = 64 << 20, GAP = 2 };

static error_t parse_output(int key, char *arg, struct argp_state *state)
{
    (void)arg;
    struct output_args *args = state->input;
    switch (key) {
    case KEY_JSON:
        args->json = true;
        return 0;
    case 'q':
        args->quiet = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option output_options[] = {
    {.doc = "Output:", .group = 8},
    {.name = "json", .key = KEY_JSON, .doc = "Write JSON Lines: one object a line"},
    {.name = "quiet", .key = 'q', .doc = "No progress and no hints: results and errors only"},
    {0},
};
const struct argp output_argp = {.options = output_options, .parser = parse_output};

static bool env_is_set(const char *name)
{
    const char *value = getenv(name);
    return value && value[0] != '\0';
}

void output_terminal_size(int fd, int *ret_columns, int *ret_rows)
{
    struct winsize size = {0};
    bool known = ioctl(fd, TIOCGWINSZ, &size) == 0;
    *ret_columns = known && size.ws_col ? size.ws_col : 80;
    *ret_rows = known && size.ws_row ? size.ws_row : 24;
}

void output_init(struct output_style *ret_style)
{
    const char *term = getenv("TERM");
    bool dumb = !term || term[0] == '\0' || strcmp(term, "dumb") == 0;
    bool out_tty = isatty(STDOUT_FILENO);
    bool err_tty = isatty(STDERR_FILENO);
    *ret_style = (struct output_style){
        .utf8 = text_locale_is_utf8(),
        .color = out_tty && !dumb && !env_is_set("NO_COLOR"),
        .live = err_tty && !dumb,
        .color_err = err_tty && !dumb && !env_is_set("NO_COLOR"),
    };
    int rows;
    if (out_tty)
        output_terminal_size(STDOUT_FILENO, &ret_style->width, &rows);
}

/* --- Tables ----------------------------------------------------------------------------------- */
struct table {
    const struct table_column *columns;
    size_t count;
    char **cells;
    size_t cell_count, capacity;
};

struct table *table_new(const struct table_column *columns, size_t count)
{
    struct table *t = ALLOC_NEW(struct table);
    t->columns = columns;
    t->count = count;
    return t;
}

void table_free(struct table *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->cell_count; i++)
        free(t->cells[i]);
    free(t->cells);
    free(t);
}

void table_cell(struct table *t, const char *text)
{
    if (t->cell_count == t->capacity) {
        t->capacity = t->capacity ? t->capacity * 2 : 64;
        t->cells = xreallocarray(t->cells, t->capacity, sizeof *t->cells);
    }
    t->cells[t->cell_count++] = xstrdup(text && text[0] ? text : "-");
}

size_t table_rows(const struct table *t)
{
    return t->cell_count / t->count;
}

static int sum_of(const int *widths, size_t count)
{
    int sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += widths[i] + (i ? GAP : 0);
    return sum;
}

/* Natural widths, then one column at a time off the widest that may be cut. */
static int *fit_widths(const struct table *t, int width, bool utf8)
{
    assert(t->count > 0);
    int *widths = xcalloc(t->count, sizeof *widths);
    for (size_t c = 0; c < t->count; c++)
        widths[c] = (int)strlen(t->columns[c].title);
    for (size_t i = 0; i < t->cell_count; i++) {
        int w = text_width(t->cells[i], utf8);
        if (w > widths[i % t->count])
            widths[i % t->count] = w;
    }
    for (int over = width ? sum_of(widths, t->count) - width : 0; over > 0; over--) {
        size_t widest = t->count;
        for (size_t c = 0; c < t->count; c++)
            if (t->columns[c].min_width && widths[c] > t->columns[c].min_width &&
                (widest == t->count || widths[c] > widths[widest]))
                widest = c;
        if (widest == t->count)
            break;
        widths[widest]--;
    }
    return widths;
}

static void add_row(const struct table *t, const int *widths, char *const *cells, bool utf8,
                    struct buf *out)
{
    for (size_t c = 0; c < t->count; c++) {
        const char *text = cells ? cells[c] : t->columns[c].title;
        bool last = c + 1 == t->count;
        if (t->columns[c].align == TABLE_RIGHT) {
            int w = text_width(text, utf8);
            if (w < widths[c])
                (void)buf_printf(out, "%*s", widths[c] - w, "");
            text_add_fit(out, text, widths[c], false, utf8);
        } else {
            text_add_fit(out, text, widths[c], !last, utf8);
        }
        (void)buf_printf(out, "%s", last ? "\n" : "  ");
    }
}

void table_render(const struct table *t, int width, bool utf8, struct buf *out)
{
    SCOPED_FREE int *widths = fit_widths(t, width, utf8);
    add_row(t, widths, NULL, utf8, out);
    for (size_t i = 0; i < table_rows(t); i++)
        add_row(t, widths, t->cells + i * t->count, utf8, out);
}

/* --- JSON Lines ------------------------------------------------------------------------------- */
/* `object` with a first member "type", as one line. */
static bool add_line(const char *type, json_t *object, struct buf *out, struct err *err)
{
    json_t *line = json_pack("{s:s}", "type", type);
    if (!line || json_object_update_missing(line, object) != 0)
        abort(); /* out of memory */
    char *text = json_dumps(line, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_PRESERVE_ORDER);
    json_decref(line);
    bool ok = text && buf_printf(out, "%s\n", text);
    free(text);
    return ok || err_set(err, ERR_TOO_LARGE, 0, "output is too large");
}

static json_t *to_json(enum wire_type type, const void *message, struct err *err)
{
    size_t len;
    SCOPED_FREE char *body = wire_encode(type, message, &len, err);
    if (!body)
        return NULL;
    json_t *root = json_loadb(body, len, 0, NULL);
    if (!root)
        err_set(err, ERR_INTERNAL, 0, "own message does not parse");
    json_object_del(root, "type"); /* said by "reply" and "item" */
    return root;
}

/* "outcome" of "oxbow.outcome.v1". */
static char *short_name(enum wire_type type)
{
    const char *name = wire_type_name(type) + strlen("oxbow.");
    return xstrndup(name, strcspn(name, "."));
}

bool output_json_reply(enum wire_type type, const void *message, struct buf *out, struct err *err)
{
    json_t *root = to_json(type, message, err);
    if (!root)
        return false;
    SCOPED_FREE char *name = short_name(type);
    bool ok = add_line(name, root, out, err);
    json_decref(root);
    return ok;
}

/* "vm" of "vms". */
static bool add_items(const char *array_name, json_t *array, struct buf *out, struct err *err)
{
    SCOPED_FREE char *kind = xstrndup(array_name, strlen(array_name) - 1);
    size_t i;
    json_t *item;
    json_array_foreach (array, i, item) {
        if (!add_line(kind, item, out, err))
            return false;
    }
    return true;
}

bool output_json_items(const struct wire_item_list *items, struct buf *out, struct err *err)
{
    /* The codec knows how an item is written: let it write a page. */
    char id[] = "00000000-0000-4000-8000-000000000000";
    struct wire_item_list copy = *items;
    struct wire_page page = {.request = id, .page = 1, .items = &copy};
    json_t *root = to_json(WIRE_PAGE, &page, err);
    if (!root)
        return false;
    bool ok = true;
    const char *name;
    json_t *array;
    json_object_foreach (json_object_get(root, "items"), name, array) {
        ok = ok && add_items(name, array, out, err);
    }
    json_decref(root);
    return ok;
}

/* --- Writing ---------------------------------------------------------------------------------- */
bool output_write(const struct buf *text, struct err *err)
{
    struct err why = ERR_INIT;
    if (text->len == 0 || file_write_full(STDOUT_FILENO, text->data, text->len, &why))
        return true;
    if (why.sys == EPIPE)
        return true;
    *err = why;
    return err_wrap(err, "standard output");
}

static void write_stderr(const struct buf *text)
{
    struct err ignored = ERR_INIT; /* there is nowhere left to complain */
    if (text->len)
        (void)file_write_full(STDERR_FILENO, text->data, text->len, &ignored);
}

void output_error(const struct err *err, const char *advice)
{
    SCOPED_BUF struct buf text;
    buf_init(&text, TEXT_MAX_BYTES);
    bool utf8 = text_locale_is_utf8();
    (void)buf_printf(&text, "oxbow: ");
    text_add_clean(&text, err->message, utf8);
    if (advice) {
        (void)buf_printf(&text, "\noxbow: ");
        text_add_clean(&text, advice, utf8);
    }
    (void)buf_printf(&text, "\n");
    write_stderr(&text);
}

void output_hint(const struct output_args *args, const char *fmt, ...)
{
    if (args->quiet)
        return;
    char line[2048];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    SCOPED_BUF struct buf text;
    buf_init(&text, TEXT_MAX_BYTES);
    (void)buf_printf(&text, "oxbow: ");
    text_add_clean(&text, line, text_locale_is_utf8());
    (void)buf_printf(&text, "\n");
    write_stderr(&text);
}

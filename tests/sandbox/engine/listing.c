/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/engine/listing.h"

#include <errno.h>
#include <strings.h>

#include "tests/sandbox/engine/json_out.h"

struct sort_row {
    const void *object;
    char *key;
    size_t order;
};

static bool take_key(void *arg, const char *value)
{
    char **key = arg;
    *key = xstrdup(value);
    return false;
}

static int compare_rows(const void *a, const void *b)
{
    const struct sort_row *x = a, *y = b;
    int c = strcasecmp(x->key ? x->key : "", y->key ? y->key : "");
    if (c == 0)
        c = x->order < y->order ? -1 : 1;
    return c;
}

static void sort_rows(struct sort_row *rows, size_t count, const struct listing *l,
                      const char *field, bool descending)
{
    for (size_t i = 0; i < count; i++)
        (void)l->field(rows[i].object, field, take_key, &rows[i].key);
    qsort(rows, count, sizeof *rows, compare_rows);
    for (size_t i = 0; descending && i < count / 2; i++) {
        struct sort_row swap = rows[i];
        rows[i] = rows[count - 1 - i];
        rows[count - 1 - i] = swap;
    }
}

/* `max` of the request: 0 = no limit. False: refused. */
static bool read_max(struct request *r, size_t *ret)
{
    const char *text = request_param(r, "max");
    *ret = 0;
    if (!text || request_param(r, "follow"))
        return true;
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (*end != '\0' || end == text || errno != 0 || value < 0) {
        reply_refused(r, 400, "The value of the 'max' parameter is not a number: %s", text);
        return false;
    }
    *ret = (size_t)value;
    return true;
}

static struct search *read_search(struct engine *e, struct request *r, const struct listing *l,
                                  bool *ret_ok)
{
    const char *text = request_param(r, "search");
    *ret_ok = true;
    if (!text || !l->fields)
        return NULL;
    struct err err = ERR_INIT;
    struct search *s = search_parse(text, l->fields, &err);
    if (!s) {
        *ret_ok = false;
        /* The class of this error changed between versions. */
        reply_refused(r, engine_since(e, 4, 4, 0) ? 400 : 500, "%s", err.message);
    }
    return s;
}

static size_t filter_rows(struct sort_row *rows, const struct listing *l, const struct search *s,
                          const void *const *objects, size_t count)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (!s || search_matches(s, objects[i], l->field)) {
            rows[kept] = (struct sort_row){.object = objects[i], .order = kept};
            kept++;
        }
    return kept;
}

void listing_reply(struct engine *e, struct request *r, const struct listing *l,
                   const void *const *objects, size_t count)
{
    size_t max;
    bool ok;
    if (!read_max(r, &max))
        return;
    struct search *s = read_search(e, r, l, &ok);
    if (!ok)
        return;
    SCOPED_FREE struct sort_row *rows = xcalloc(count + 1, sizeof *rows);
    size_t kept = filter_rows(rows, l, s, objects, count);
    bool descending = false;
    const char *sort = s ? search_sort_field(s, &descending) : NULL;
    if (sort)
        sort_rows(rows, kept, l, sort, descending);
    /* The page is as large as `max`; without max page 1 is all, and page 2 is empty. */
    unsigned page = s ? search_page(s) : 1;
    size_t size = max > 0 ? max : kept;
    size_t from = (size_t)(page - 1) * size;
    if (page > 1 && max == 0)
        from = kept;
    json_t *list = json_array();
    for (size_t i = from; i < kept && i - from < size && r->status == 0; i++) {
        json_t *shown = l->show(e, r, rows[i].object);
        if (shown)
            json_array_append_new(list, shown);
    }
    for (size_t i = 0; i < kept; i++)
        free(rows[i].key);
    search_free(s);
    json_t *body = out_collection(l->key, list);
    if (r->status == 0)
        reply_json(r, 200, body);
    else
        json_decref(body);
}

bool listing_found(const struct listing_value *values, size_t count, const char *field,
                   search_found_fn found, void *arg)
{
    for (size_t i = 0; i < count; i++)
        if (!strcasecmp(values[i].field, field)) {
            if (values[i].value)
                (void)found(arg, values[i].value);
            return true;
        }
    return false;
}

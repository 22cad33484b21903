/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/engine/search.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "proto/base/alloc.h"

enum { SEARCH_TEXT_MAX = 4096, SEARCH_DEPTH_MAX = 50 };

enum node_kind { NODE_AND, NODE_OR, NODE_TERM };

struct node {
    enum node_kind kind;
    struct node *left, *right;
    char *field; /* NULL: any of the object's main fields */
    char *value;
    bool negated;
};

struct search {
    struct node *root; /* NULL matches everything */
    char *sort_field;
    bool descending;
    unsigned page;
};

struct parser {
    const char *text, *at;
    const char *const *fields;
    unsigned depth;
    struct err *err;
};

static void node_free(struct node *n)
{
    if (!n)
        return;
    node_free(n->left);
    node_free(n->right);
    free(n->field);
    free(n->value);
    free(n);
}

void search_free(struct search *s)
{
    if (!s)
        return;
    node_free(s->root);
    free(s->sort_field);
    free(s);
}

static void skip_space(struct parser *p)
{
    while (isspace((unsigned char)*p->at))
        p->at++;
}

static void *bad(struct parser *p, const char *why)
{
    err_set(p->err, ERR_BAD_ARGUMENT, 0, "search, character %zu: %s", (size_t)(p->at - p->text) + 1,
            why);
    return NULL;
}

/* Is the next word `word`? Takes it if so. */
static bool take_word(struct parser *p, const char *word)
{
    skip_space(p);
    size_t len = strlen(word);
    if (strncasecmp(p->at, word, len) != 0 || isalnum((unsigned char)p->at[len]) ||
        (p->at[len] != '\0' && strchr("_=!.*", p->at[len])))
        return false;
    p->at += len;
    return true;
}

/* A quoted string or a bare word. NULL with the error set when there is none. */
static char *take_value(struct parser *p)
{
    skip_space(p);
    if (*p->at == '"' || *p->at == '\'') {
        char quote = *p->at++;
        const char *end = strchr(p->at, quote);
        if (!end)
            return bad(p, "the quote does not end");
        char *value = xstrndup(p->at, (size_t)(end - p->at));
        p->at = end + 1;
        return value;
    }
    size_t len = strcspn(p->at, " \t\r\n()=!<>\"'");
    if (len == 0)
        return bad(p, "a value is missing");
    char *value = xstrndup(p->at, len);
    p->at += len;
    return value;
}

static bool known_field(const struct parser *p, const char *name)
{
    for (const char *const *f = p->fields; *f; f++)
        if (!strcasecmp(*f, name))
            return true;
    return false;
}

static struct node *parse_or(struct parser *p);

/* FIELD = VALUE | FIELD != VALUE | VALUE */
static struct node *parse_term(struct parser *p)
{
    skip_space(p);
    const char *begin = p->at;
    if (take_word(p, "and") || take_word(p, "or") || take_word(p, "sortby"))
        return bad(p, "a condition is missing");
    struct node *n = ALLOC_NEW(struct node);
    n->kind = NODE_TERM;
    n->value = take_value(p);
    skip_space(p);
    bool is_field = n->value && (*p->at == '=' || (p->at[0] == '!' && p->at[1] == '='));
    if (is_field) {
        n->field = TAKE(n->value);
        if (!known_field(p, n->field)) {
            p->at = begin;
            bad(p, "unknown field");
        } else {
            n->negated = *p->at == '!';
            p->at += n->negated ? 2 : 1;
            n->value = take_value(p);
        }
    } else if (n->value && (*p->at == '<' || *p->at == '>')) {
        free(TAKE(n->value));
        bad(p, "< and > are not supported here");
    }
    if (!n->value) {
        node_free(n);
        return NULL;
    }
    return n;
}

static struct node *parse_factor(struct parser *p)
{
    skip_space(p);
    if (*p->at != '(')
        return parse_term(p);
    if (++p->depth > SEARCH_DEPTH_MAX)
        return bad(p, "nested too deep");
    p->at++;
    struct node *n = parse_or(p);
    skip_space(p);
    if (n && *p->at != ')') {
        node_free(n);
        return bad(p, "')' is missing");
    }
    p->depth--;
    if (n)
        p->at++;
    return n;
}

static struct node *join(enum node_kind kind, struct node *left, struct node *right)
{
    if (!right) {
        node_free(left);
        return NULL;
    }
    struct node *n = ALLOC_NEW(struct node);
    *n = (struct node){.kind = kind, .left = left, .right = right};
    return n;
}

static struct node *parse_and(struct parser *p)
{
    struct node *n = parse_factor(p);
    while (n && take_word(p, "and"))
        n = join(NODE_AND, n, parse_factor(p));
    return n;
}

static struct node *parse_or(struct parser *p)
{
    struct node *n = parse_and(p);
    while (n && take_word(p, "or"))
        n = join(NODE_OR, n, parse_and(p));
    return n;
}

/* The optional tail: sortby FIELD [asc|desc] [page N]. */
static bool parse_tail(struct parser *p, struct search *s)
{
    if (take_word(p, "sortby")) {
        s->sort_field = take_value(p);
        if (!s->sort_field)
            return false;
        if (!known_field(p, s->sort_field)) {
            bad(p, "unknown field to sort by");
            return false;
        }
        s->descending = take_word(p, "desc");
        if (!s->descending)
            (void)take_word(p, "asc");
    }
    if (take_word(p, "page")) {
        SCOPED_FREE char *number = take_value(p);
        char *end = NULL;
        unsigned long page = number ? strtoul(number, &end, 10) : 0;
        if (!number)
            return false;
        if (*end != '\0' || page < 1 || page > 1000000) {
            bad(p, "not a page number");
            return false;
        }
        s->page = (unsigned)page;
    }
    skip_space(p);
    if (*p->at != '\0') {
        bad(p, "not understood from here");
        return false;
    }
    return true;
}

static bool at_tail(struct parser *p)
{
    const char *at = p->at;
    bool yes = take_word(p, "sortby") || take_word(p, "page") || *p->at == '\0';
    p->at = at;
    return yes;
}

struct search *search_parse(const char *text, const char *const *fields, struct err *err)
{
    struct parser p = {.text = text, .at = text, .fields = fields, .err = err};
    if (strlen(text) > SEARCH_TEXT_MAX)
        return bad(&p, "too long");
    struct search *s = ALLOC_NEW(struct search);
    s->page = 1;
    /* The web client's form "Vms: name=x". */
    const char *colon = strchr(text, ':');
    if (colon && strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") ==
                     (size_t)(colon - text))
        p.at = colon + 1;
    skip_space(&p);
    if (!at_tail(&p))
        s->root = parse_or(&p);
    if (err_is_set(err) || !parse_tail(&p, s)) {
        search_free(s);
        return NULL;
    }
    return s;
}

bool search_like(const char *pattern, const char *text)
{
    const char *star = NULL, *resume = NULL;
    while (*text) {
        bool same = tolower((unsigned char)*pattern) == tolower((unsigned char)*text);
        if (*pattern == '*') {
            star = pattern++;
            resume = text;
        } else if (*pattern != '\0' && same) {
            pattern++;
            text++;
        } else if (star) {
            pattern = star + 1;
            text = ++resume;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return *pattern == '\0';
}

struct probe {
    const char *pattern;
    bool found;
};

static bool probe_value(void *arg, const char *value)
{
    struct probe *probe = arg;
    probe->found = probe->found || search_like(probe->pattern, value);
    return !probe->found;
}

static bool node_matches(const struct node *n, const void *object, search_field_fn field)
{
    if (n->kind == NODE_AND)
        return node_matches(n->left, object, field) && node_matches(n->right, object, field);
    if (n->kind == NODE_OR)
        return node_matches(n->left, object, field) || node_matches(n->right, object, field);
    struct probe probe = {.pattern = n->value};
    SCOPED_FREE char *wide = NULL;
    if (!n->field) {
        /* A bare word is looked for anywhere in the name. */
        wide = xasprintf("*%s*", n->value);
        probe.pattern = wide;
    }
    (void)field(object, n->field ? n->field : "name", probe_value, &probe);
    return probe.found != n->negated;
}

bool search_matches(const struct search *s, const void *object, search_field_fn field)
{
    return !s->root || node_matches(s->root, object, field);
}

const char *search_sort_field(const struct search *s, bool *ret_descending)
{
    *ret_descending = s->descending;
    return s->sort_field;
}

unsigned search_page(const struct search *s)
{
    return s->page;
}

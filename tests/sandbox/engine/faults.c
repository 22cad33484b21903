/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/engine/faults.h"

#include <regex.h>
#include <string.h>

#include "tests/sandbox/engine/vec.h"

enum { FAULT_RULES_MAX = 1000, FAULT_DELAY_MAX_MS = 3600000 };

struct rule {
    unsigned number;
    char *name;     /* "" = none */
    char *point;    /* NULL for an HTTP rule */
    char *method;   /* NULL = any */
    regex_t object; /* path of an HTTP rule; name of a point's object */
    regex_t correlation, user;
    bool has_correlation, has_user;
    enum fault_when when;
    json_int_t skip, count; /* pass the first `skip` matches, then fire `count` times; 0 = always */
    json_int_t hits, fired;
    struct fault fault;
    json_t *source; /* keeps the strings of `fault` */
};

struct faults {
    VEC(struct rule) rules, removed;
    unsigned last_number;
};

static const char *const fault_points[] = {
    "snapshot-vanish", "snapshot-slow", "merge-fail",    "merge-slow",  "hotplug-fail",
    "device-missing",  "unplug-busy",   "freeze-fail",   "thaw-fail",   "disk-fail",
    "start-fail",      "transfer-fail", "ovf-disk-fail", "backup-slow", "backup-fail",
    "checkpoint-fail", "clone-fail",    "clone-slow",    "export-fail", "export-slow",
};

static const struct {
    const char *word;
    enum fault_action action;
} fault_actions[] = {
    {"delay", FAULT_DELAY},          {"status", FAULT_STATUS}, {"drop", FAULT_DROP},
    {"reset", FAULT_RESET},          {"hang", FAULT_HANG},     {"hold", FAULT_HOLD},
    {"expire-tokens", FAULT_EXPIRE},
};

struct faults *faults_new(void)
{
    return ALLOC_NEW(struct faults);
}

static void rule_free(struct rule *r)
{
    if (!r)
        return;
    regfree(&r->object);
    if (r->has_correlation)
        regfree(&r->correlation);
    if (r->has_user)
        regfree(&r->user);
    free(r->name);
    free(r->point);
    free(r->method);
    json_decref(r->source);
    free(r);
}

void faults_free(struct faults *f)
{
    if (!f)
        return;
    VEC_DONE(&f->rules, rule_free);
    VEC_DONE(&f->removed, rule_free);
    free(f);
}

static bool rule_int(const json_t *source, const char *key, json_int_t max, json_int_t *ret,
                     struct err *err)
{
    const json_t *value = json_object_get(source, key);
    if (!value)
        return true;
    if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > max)
        return err_set(err, ERR_BAD_CONFIG, 0, "fault rule: '%s' is not a number from 0 to %lld",
                       key, (long long)max);
    *ret = json_integer_value(value);
    return true;
}

static bool rule_regex(const json_t *source, const char *key, regex_t *ret, struct err *err)
{
    const char *text = json_string_value(json_object_get(source, key));
    if (regcomp(ret, text ? text : "", REG_EXTENDED | REG_NOSUB) != 0)
        return err_set(err, ERR_BAD_CONFIG, 0, "fault rule: '%s' is not a regular expression: %s",
                       key, text ? text : "");
    return true;
}

static bool known_members(const json_t *source, struct err *err)
{
    static const char *const known[] = {
        "name", "point",    "vm",     "method", "path",   "correlation_id", "when",
        "skip", "count",    "action", "status", "reason", "detail",         "body",
        "type", "delay_ms", "number", "hits",   "fired",  "comment",        "cut_after_bytes",
        "user"};
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)(uintptr_t)source, key, value) {
        bool found = false;
        for (size_t i = 0; i < ARRAY_LEN(known); i++)
            found = found || !strcmp(known[i], key);
        if (!found)
            return err_set(err, ERR_BAD_CONFIG, 0, "fault rule: unknown member '%s'", key);
    }
    return true;
}

static bool rule_action(struct rule *r, struct err *err)
{
    const json_t *s = r->source;
    const char *word = json_string_value(json_object_get(s, "action"));
    r->fault.action = r->point ? FAULT_STATUS : FAULT_NONE;
    for (size_t i = 0; word && i < ARRAY_LEN(fault_actions); i++)
        if (!strcmp(fault_actions[i].word, word))
            r->fault.action = fault_actions[i].action;
    if (r->fault.action == FAULT_NONE)
        return err_set(err, ERR_BAD_CONFIG, 0, "fault rule: unknown action '%s'",
                       word ? word : "(none)");
    json_int_t status = 500, delay = 0, cut = 0;
    if (!rule_int(s, "cut_after_bytes", INT64_C(1) << 50, &cut, err) ||
        !rule_int(s, "status", 599, &status, err) ||
        !rule_int(s, "delay_ms", FAULT_DELAY_MAX_MS, &delay, err))
        return false;
    r->fault.status = (int)status;
    r->fault.delay_ms = delay;
    r->fault.cut_after_bytes = (uint64_t)cut;
    r->fault.reason = json_string_value(json_object_get(s, "reason"));
    r->fault.detail = json_string_value(json_object_get(s, "detail"));
    r->fault.body = json_string_value(json_object_get(s, "body"));
    r->fault.type = json_string_value(json_object_get(s, "type"));
    return true;
}

static bool rule_point(struct rule *r, struct err *err)
{
    if (!r->point)
        return true;
    for (size_t i = 0; i < ARRAY_LEN(fault_points); i++)
        if (!strcmp(fault_points[i], r->point))
            return true;
    return err_set(err, ERR_BAD_CONFIG, 0, "fault rule: unknown point '%s'", r->point);
}

static bool rule_fill(struct rule *r, struct err *err)
{
    const json_t *s = r->source;
    const char *when = json_string_value(json_object_get(s, "when"));
    if (!known_members(s, err) || !rule_point(r, err) || !rule_action(r, err))
        return false;
    if (when && strcmp(when, "before") != 0 && strcmp(when, "after") != 0)
        return err_set(err, ERR_BAD_CONFIG, 0, "fault rule: 'when' is before or after");
    r->when = when && !strcmp(when, "after") ? FAULT_AFTER : FAULT_BEFORE;
    r->count = 1;
    if (!rule_int(s, "skip", 1000000, &r->skip, err) ||
        !rule_int(s, "count", 1000000, &r->count, err))
        return false;
    if (json_object_get(s, "correlation_id")) {
        if (!rule_regex(s, "correlation_id", &r->correlation, err))
            return false;
        r->has_correlation = true;
    }
    if (json_object_get(s, "user")) {
        if (!rule_regex(s, "user", &r->user, err))
            return false;
        r->has_user = true;
    }
    return true;
}

static struct rule *rule_new(const json_t *source, struct err *err)
{
    if (!json_is_object(source)) {
        err_set(err, ERR_BAD_CONFIG, 0, "fault rule: not an object");
        return NULL;
    }
    struct rule *r = ALLOC_NEW(struct rule);
    r->source = json_deep_copy(source);
    const char *name = json_string_value(json_object_get(r->source, "name"));
    r->name = xstrdup(name ? name : "");
    r->point = xstrdup_or_null(json_string_value(json_object_get(r->source, "point")));
    r->method = xstrdup_or_null(json_string_value(json_object_get(r->source, "method")));
    if (!rule_regex(r->source, r->point ? "vm" : "path", &r->object, err)) {
        /* regfree() of a pattern that did not compile is not allowed. */
        (void)regcomp(&r->object, "", REG_NOSUB);
        rule_free(r);
        return NULL;
    }
    if (!rule_fill(r, err)) {
        rule_free(r);
        return NULL;
    }
    return r;
}

bool faults_add(struct faults *f, const json_t *rules, struct err *err)
{
    struct faults fresh = {0};
    size_t count = json_is_array(rules) ? json_array_size(rules) : 1;
    if (f->rules.len + count > FAULT_RULES_MAX)
        return err_set(err, ERR_TOO_LARGE, 0, "more than %d fault rules", FAULT_RULES_MAX);
    for (size_t i = 0; i < count; i++) {
        struct rule *r = rule_new(json_is_array(rules) ? json_array_get(rules, i) : rules, err);
        if (!r) {
            VEC_DONE(&fresh.rules, rule_free);
            return false;
        }
        VEC_ADD(&fresh.rules, r);
    }
    struct rule *r;
    VEC_EACH(&fresh.rules, r)
    {
        r->number = r->fault.rule = ++f->last_number;
        VEC_ADD(&f->rules, r);
    }
    free(fresh.rules.at);
    return true;
}

unsigned faults_remove(struct faults *f, const char *name)
{
    unsigned removed = 0;
    for (size_t i = 0; i < f->rules.len;) {
        struct rule *r = f->rules.at[i];
        if (name && strcmp(r->name, name) != 0) {
            i++;
            continue;
        }
        VEC_REMOVE_AT(&f->rules, i);
        VEC_ADD(&f->removed, r); /* an answer under way may still quote it */
        removed++;
    }
    return removed;
}

json_t *faults_show(const struct faults *f)
{
    json_t *list = json_array();
    struct rule *r;
    VEC_EACH(&f->rules, r)
    {
        json_t *shown = json_deep_copy(r->source);
        json_object_set_new(shown, "number", json_integer(r->number));
        json_object_set_new(shown, "hits", json_integer(r->hits));
        json_object_set_new(shown, "fired", json_integer(r->fired));
        json_array_append_new(list, shown);
    }
    return list;
}

bool faults_has(const struct faults *f, unsigned rule)
{
    struct rule *r;
    VEC_EACH(&f->rules, r)
    if (r->number == rule)
        return true;
    return false;
}

/* Counts a match; true when the rule fires on it. */
static bool rule_hit(struct rule *r)
{
    r->hits++;
    if (r->hits <= r->skip || (r->count != 0 && r->hits > r->skip + r->count))
        return false;
    r->fired++;
    return true;
}

static bool rule_fits(const struct rule *r, enum fault_when when, const struct fault_call *c)
{
    return !r->point && r->when == when && (!r->method || strcmp(r->method, c->method) == 0) &&
           regexec(&r->object, c->path, 0, NULL, 0) == 0 &&
           (!r->has_correlation || regexec(&r->correlation, c->correlation_id, 0, NULL, 0) == 0) &&
           (!r->has_user || regexec(&r->user, c->user, 0, NULL, 0) == 0);
}

struct fault faults_http(struct faults *f, enum fault_when when, const struct fault_call *call)
{
    struct rule *r;
    VEC_EACH(&f->rules, r)
    {
        if (rule_fits(r, when, call) && rule_hit(r))
            return r->fault;
    }
    return (struct fault){.action = FAULT_NONE};
}

bool faults_point(struct faults *f, const char *point, const char *object, int64_t *ret_delay_ms)
{
    struct rule *r;
    VEC_EACH(&f->rules, r)
    {
        if (!r->point || strcmp(r->point, point) != 0 ||
            regexec(&r->object, object, 0, NULL, 0) != 0 || !rule_hit(r))
            continue;
        if (ret_delay_ms)
            *ret_delay_ms = r->fault.delay_ms;
        return true;
    }
    return false;
}

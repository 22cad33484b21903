/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <strings.h>

#include "proto/base/id.h"
#include "worker/ovirt/member.h"
#include "worker/ovirt/vm.h"
#include "worker/ovirt/vm_impl.h"

enum { PAGE_SIZE = 100, MAX_VMS = 10000, MAX_EXPRESSION = 1000, MAX_TAGS = 256 };

bool ovirt_vm_is_hosted_engine(const json_t *vm)
{
    const char *origin = member_str(vm, "origin");
    return origin && strstr(origin, "hosted_engine");
}

char *ovirt_vm_search_term(const char *field, const char *value)
{
    if (value[0] == '\0' || strpbrk(value, "\"\\") || strlen(value) > 255)
        return NULL;
    for (const char *c = value; *c; c++) {
        if ((unsigned char)*c < 0x20)
            return NULL;
    }
    return xasprintf("%s=\"%s\"", field, value);
}

/* An expression of the user's must not page or sort: that is ours. Quoted text may say anything. */
static bool has_own_paging(const char *expression)
{
    static const char *const words[] = {"sortby", "page"};
    bool quoted = false;
    for (const char *c = expression; *c; c++) {
        if (*c == '"')
            quoted = !quoted;
        bool starts = c == expression || c[-1] == ' ' || c[-1] == '"';
        for (size_t i = 0; !quoted && starts && i < ARRAY_LEN(words); i++) {
            size_t len = strlen(words[i]);
            if (strncasecmp(c, words[i], len) == 0 && (c[len] == ' ' || c[len] == '\0'))
                return true;
        }
    }
    return false;
}

static bool check_expression(const char *expression, struct err *err)
{
    if (strlen(expression) > MAX_EXPRESSION)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "search expression is longer than %d characters",
                       MAX_EXPRESSION);
    for (const char *c = expression; *c; c++) {
        if ((unsigned char)*c < 0x20)
            return err_set(err, ERR_BAD_ARGUMENT, 0, "search expression holds a control character");
    }
    if (has_own_paging(expression))
        return err_set(err, ERR_BAD_ARGUMENT, 0,
                       "search expression '%s' may not hold sortby or page", expression);
    return true;
}

/* The search text without paging; NULL with err. "" = all. */
static char *search_text(const struct ovirt_vm_search *what, struct err *err)
{
    char *text = NULL;
    if (what->name)
        text = ovirt_vm_search_term("name", what->name);
    else if (what->tag)
        text = ovirt_vm_search_term("tag", what->tag);
    else if (!what->expression || check_expression(what->expression, err))
        text = xstrdup(what->expression ? what->expression : "");
    if (!text && !err_is_set(err))
        err_set(err, ERR_NOT_FOUND, 0, "no VM can have the %s '%.100s'",
                what->name ? "name" : "tag", what->name ? what->name : what->tag);
    return text;
}

/* --- One VM ---------------------------------------------------------------------------------- */
static void read_row(const json_t *vm, struct ovirt_vm_row *ret)
{
    *ret = (struct ovirt_vm_row){
        .id = member_str(vm, "id"),
        .name = member_str(vm, "name"),
        .status = member_str(vm, "status"),
        .description = member_str(vm, "description"),
        .origin = member_str(vm, "origin"),
        .cluster_id = member_ref_id(vm, "cluster"),
        .host_id = member_ref_id(vm, "host"),
        .is_hosted_engine = ovirt_vm_is_hosted_engine(vm),
    };
}

static size_t read_tags(const json_t *vm, const char *tags[MAX_TAGS])
{
    size_t count = 0, i;
    json_t *tag;
    json_array_foreach (member_list(vm, "tags", "tag"), i, tag) {
        const char *name = member_str(tag, "name");
        if (name && count < MAX_TAGS)
            tags[count++] = name;
    }
    return count;
}

static void read_sizes(const json_t *vm, struct ovirt_vm_row *row)
{
    size_t i;
    json_t *a;
    json_array_foreach (member_list(vm, "disk_attachments", "disk_attachment"), i, a) {
        row->disks++;
        row->provisioned_bytes += member_u64_or(member_object(a, "disk"), "provisioned_size", 0);
    }
}

/* Hands one VM to the callback, unless it is outside of the clusters (*ret_inside). */
static bool give(struct engine_session *s, const json_t *vm, const struct ovirt_clusters *clusters,
                 bool details, ovirt_vm_row_fn each, void *ctx, bool *ret_inside, struct err *err)
{
    struct ovirt_vm_row row;
    read_row(vm, &row);
    *ret_inside = true;
    if (clusters) {
        const struct ovirt_cluster *c =
            row.cluster_id ? ovirt_clusters_find(clusters, row.cluster_id) : NULL;
        *ret_inside = c != NULL;
        if (!c)
            return true;
        row.cluster_name = c->name;
    }
    json_auto_t *whole = NULL;
    const char *tags[MAX_TAGS];
    if (details) {
        SCOPED_FREE char *path = xasprintf("vms/%s", row.id);
        if (!engine_get_or_gone(s, path, "follow=tags,disk_attachments.disk", &whole, err))
            return false;
        if (!whole)
            return true; /* removed since it was listed */
        row.tags_count = read_tags(whole, tags);
        row.tags = tags;
        read_sizes(whole, &row);
    }
    return each(ctx, &row, err);
}

bool ovirt_vm_lookup(struct engine_session *s, const char *id,
                     const struct ovirt_clusters *clusters, bool details, ovirt_vm_row_fn each,
                     void *ctx, struct err *err)
{
    if (!engine_check_id("VM", id, err))
        return false;
    SCOPED_FREE char *path = xasprintf("vms/%s", id);
    json_auto_t *vm = NULL;
    bool inside;
    if (!engine_get_or_gone(s, path, NULL, &vm, err))
        return err_wrap(err, "VM %s", id);
    if (!vm || !member_str(vm, "id") || !member_str(vm, "name"))
        return err_set(err, ERR_NOT_FOUND, 404, "the engine knows no VM %s", id);
    if (!give(s, vm, clusters, details, each, ctx, &inside, err))
        return false;
    if (!inside)
        return err_set(err, ERR_NOT_FOUND, 0, "VM '%s' is in another data center",
                       member_str(vm, "name"));
    return true;
}

/* --- Pages ----------------------------------------------------------------------------------- */
struct paging {
    const struct ovirt_vm_search *what;
    const char *text;
    unsigned page_size, max_vms;
    json_t *seen; /* ids as keys: the list may shift between two pages */
    ovirt_vm_row_fn each;
    void *ctx;
};

/* One page. HARD RULE: never "sortby name asc": for users with a filtered view the engine has a
 * special case for exactly these words that ignores the rest of the expression. */
static json_t *get_page(struct engine_session *s, const struct paging *p, unsigned page,
                        struct err *err)
{
    SCOPED_FREE char *search =
        xasprintf("%s%ssortby name page %u", p->text, p->text[0] ? " " : "", page);
    SCOPED_FREE char *escaped = engine_escape(search);
    SCOPED_FREE char *query = xasprintf("search=%s&max=%u", escaped, p->page_size);
    json_t *answer = NULL;
    if (engine_get(s, "vms", query, &answer, err))
        return answer;
    if (err->sys == 400 || err->sys == 500)
        err->code = ERR_BAD_ARGUMENT;
    err_wrap(err, "search for VMs '%s'", search);
    return NULL;
}

static bool is_wanted(const struct paging *p, const json_t *vm)
{
    const char *id = member_str(vm, "id"), *name = member_str(vm, "name");
    if (!id || !name || !id_is_valid(id) || json_object_get(p->seen, id))
        return false;
    return !p->what->name || strcmp(p->what->name, name) == 0;
}

static bool give_page(struct engine_session *s, const struct paging *p, json_t *list,
                      struct err *err)
{
    size_t i;
    json_t *vm;
    json_array_foreach ((json_t *)list, i, vm) {
        bool inside;
        if (!is_wanted(p, vm))
            continue;
        json_object_set_new(p->seen, member_str(vm, "id"), json_true());
        if (json_object_size(p->seen) > p->max_vms)
            return err_set(err, ERR_TOO_LARGE, 0, "the search finds more than %u VMs", p->max_vms);
        if (!give(s, vm, p->what->clusters, p->what->details, p->each, p->ctx, &inside, err))
            return false;
    }
    return true;
}

bool ovirt_vm_search(struct engine_session *s, const struct ovirt_vm_search *what,
                     ovirt_vm_row_fn each, void *ctx, struct err *err)
{
    SCOPED_FREE char *text = search_text(what, err);
    if (!text)
        return err->code == ERR_NOT_FOUND ? (err_clear(err), true) : false;
    json_auto_t *seen = json_object();
    struct paging p = {
        .what = what,
        .text = text,
        .page_size = what->page_size ? what->page_size : PAGE_SIZE,
        .max_vms = what->max_vms ? what->max_vms : MAX_VMS,
        .seen = seen,
        .each = each,
        .ctx = ctx,
    };
    unsigned pages_max = p.max_vms / p.page_size + 3;
    for (unsigned page = 1; page <= pages_max; page++) {
        json_auto_t *answer = get_page(s, &p, page, err);
        if (!answer)
            return false;
        json_t *list = member_list(answer, NULL, "vm");
        if (json_array_size(list) == 0)
            return true;
        if (!give_page(s, &p, list, err))
            return false;
    }
    return err_set(err, ERR_TOO_LARGE, 0, "the search has more than %u pages", pages_max);
}

struct finding {
    char *id;
    bool twice;
};

static bool find_row(void *ctx, const struct ovirt_vm_row *row, struct err *err)
{
    (void)err;
    struct finding *f = ctx;
    f->twice = f->id != NULL;
    if (!f->id)
        f->id = xstrdup(row->id);
    return true;
}

char *ovirt_vm_find(struct engine_session *s, const char *id_or_name,
                    const struct ovirt_clusters *clusters, struct err *err)
{
    struct finding f = {0};
    bool ok;
    if (id_is_valid(id_or_name)) {
        ok = ovirt_vm_lookup(s, id_or_name, clusters, false, find_row, &f, err);
    } else {
        struct ovirt_vm_search what = {.name = id_or_name, .clusters = clusters};
        ok = ovirt_vm_search(s, &what, find_row, &f, err);
    }
    if (ok && !f.id)
        ok = err_set(err, ERR_NOT_FOUND, 0, "no VM is called '%s' here", id_or_name);
    if (ok && f.twice)
        ok = err_set(err, ERR_CONFLICT, 0, "more than one VM is called '%s': use its id",
                     id_or_name);
    if (!ok) {
        free(f.id);
        return NULL;
    }
    return f.id;
}

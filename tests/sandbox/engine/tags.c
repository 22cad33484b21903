/* SPDX-License-Identifier: Apache-2.0 */
/* Tags, and tags on VMs. */
#include "tests/sandbox/engine/json_out.h"
#include "tests/sandbox/engine/listing.h"
#include "tests/sandbox/engine/route.h"
#include "tests/sandbox/engine/views.h"

json_t *tag_view(const struct tag *t)
{
    json_t *o = out_entity(t->id, "tags/%s", t->id);
    out_str(o, "name", t->name);
    out_str(o, "description", t->description);
    if (t->parent)
        out_ref(o, "parent", t->parent->id, "tags/%s", t->parent->id);
    return o;
}

static json_t *tag_show(struct engine *e, struct request *r, const void *object)
{
    (void)e;
    (void)r;
    return tag_view(object);
}

static const struct listing tag_listing = {"tag", NULL, NULL, tag_show};

void tags_list(struct engine *e, struct request *r)
{
    VEC(struct tag) alive = {0};
    struct tag *t;
    VEC_EACH(&e->model.tags, t)
    if (!t->gone)
        VEC_ADD(&alive, t);
    listing_reply(e, r, &tag_listing, LISTING_OF(alive));
    free(alive.at);
}

void tags_get(struct engine *e, struct request *r)
{
    const struct tag *t = model_tag(&e->model, r->ids[0]);
    if (t && !strcmp(t->id, r->ids[0]))
        reply_json(r, 200, tag_view(t));
    else
        reply_empty(r, 404);
}

void tags_add(struct engine *e, struct request *r)
{
    const char *name = in_str(r->body, "name");
    if (!name || !*name) {
        reply_incomplete(r, "Tag", "name", "add");
        return;
    }
    if (model_tag(&e->model, name)) {
        reply_refused(r, 409, "Cannot create Tag. The tag name is already in use.");
        return;
    }
    const char *parent = in_ref_any(r->body, "parent");
    struct tag *above = parent ? model_tag(&e->model, parent) : e->model.tags.at[0];
    if (!above) {
        reply_fault(r, 404, "Operation Failed", "Entity not found: %s", parent);
        return;
    }
    struct tag *t = ALLOC_NEW(struct tag);
    id_new(t->id);
    t->name = xstrdup(name);
    t->description = xstrdup_or_null(in_str(r->body, "description"));
    t->parent = above;
    VEC_ADD(&e->model.tags, t);
    json_t *o = tag_view(t);
    reply_created(r, 201, in_str(o, "href"), o);
}

void tags_remove(struct engine *e, struct request *r)
{
    struct tag *t = model_tag(&e->model, r->ids[0]);
    if (!t || strcmp(t->id, r->ids[0]) != 0 || !t->parent) {
        reply_empty(r, t && !t->parent ? 400 : 404);
        return;
    }
    t->gone = true;
    struct vm *vm;
    VEC_EACH(&e->model.vms, vm)
    VEC_REMOVE(&vm->tags, t);
    reply_action_done(r);
}

static json_t *vm_tag_show(const struct vm *vm, const struct tag *t)
{
    json_t *o = tag_view(t);
    SCOPED_FREE char *href = xasprintf(API_PREFIX "/vms/%s/tags/%s", vm->id, t->id);
    out_str(o, "href", href);
    return o;
}

void vm_tags_list(struct engine *e, struct request *r)
{
    const struct vm *vm = model_vm(&e->model, r->ids[0]);
    if (!vm) {
        reply_empty(r, 404);
        return;
    }
    json_t *list = json_array();
    const struct tag *t;
    VEC_EACH(&vm->tags, t)
    json_array_append_new(list, vm_tag_show(vm, t));
    reply_json(r, 200, out_collection("tag", list));
}

void vm_tags_add(struct engine *e, struct request *r)
{
    struct vm *vm = model_vm(&e->model, r->ids[0]);
    const char *key = in_str(r->body, "id");
    if (!key)
        key = in_str(r->body, "name");
    struct tag *t = key ? model_tag(&e->model, key) : NULL;
    if (!vm) {
        reply_empty(r, 404);
    } else if (!key) {
        reply_incomplete(r, "Tag", "id|name", "add");
    } else if (!t) {
        reply_fault(r, 404, "Operation Failed", "Entity not found: %s", key);
    } else {
        VEC_REMOVE(&vm->tags, t);
        VEC_ADD(&vm->tags, t);
        json_t *o = vm_tag_show(vm, t);
        reply_created(r, 201, in_str(o, "href"), o);
    }
}

void vm_tags_remove(struct engine *e, struct request *r)
{
    struct vm *vm = model_vm(&e->model, r->ids[0]);
    size_t before = vm ? vm->tags.len : 0;
    for (size_t i = 0; vm && i < vm->tags.len; i++)
        if (!strcmp(vm->tags.at[i]->id, r->ids[1])) {
            VEC_REMOVE_AT(&vm->tags, i);
            break;
        }
    if (!vm || vm->tags.len == before)
        reply_empty(r, 404);
    else
        reply_action_done(r);
}

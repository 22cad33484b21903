/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/step/handles.h"

#include <stdint.h>
#include <string.h>

#include "proto/base/alloc.h"

static struct wire_handle *find(const struct handles *h, const char *name)
{
    for (size_t i = 0; i < h->count; i++) {
        if (strcmp(h->v[i].name, name) == 0)
            return &h->v[i];
    }
    return NULL;
}

void handles_done(struct handles *h)
{
    for (size_t i = 0; i < h->count; i++) {
        free(h->v[i].name);
        free(h->v[i].value);
    }
    free(h->v);
    *h = (struct handles){0};
}

const char *handles_get(const struct handles *h, const char *name)
{
    const struct wire_handle *found = find(h, name);
    return found ? found->value : NULL;
}

const char *handles_get2(const struct handles *h, const char *prefix, const char *suffix)
{
    SCOPED_FREE char *name = xasprintf("%s%s", prefix, suffix);
    return handles_get(h, name);
}

void handles_set(struct handles *h, const char *name, const char *value)
{
    struct wire_handle *found = find(h, name);
    char *copy = xstrdup(value); /* before the old one goes: `value` may be it */
    if (found) {
        free(found->value);
        found->value = copy;
        return;
    }
    if (h->count == h->room) {
        h->room = h->room ? 2 * h->room : 8;
        h->v = xreallocarray(h->v, h->room, sizeof *h->v);
    }
    h->v[h->count++] = (struct wire_handle){.name = xstrdup(name), .value = copy};
}

void handles_drop(struct handles *h, const char *name)
{
    struct wire_handle *found = find(h, name);
    if (!found)
        return;
    free(found->name);
    free(found->value);
    size_t at = (size_t)(found - h->v);
    memmove(found, found + 1, (h->count - at - 1) * sizeof *found);
    h->count--;
}

static bool has_prefix(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

const struct wire_handle *handles_next(const struct handles *h, const char *prefix, size_t skip)
{
    for (size_t i = 0; i < h->count; i++) {
        if (has_prefix(h->v[i].name, prefix) && skip-- == 0)
            return &h->v[i];
    }
    return NULL;
}

bool handles_hold_disks(const struct handles *h)
{
    for (size_t i = 0; i < h->count; i++) {
        if (has_prefix(h->v[i].name, HANDLE_ATTACHMENT) ||
            has_prefix(h->v[i].name, HANDLE_TRANSFER))
            return true;
    }
    return false;
}

struct wire_handles handles_wire(const struct handles *h)
{
    return (struct wire_handles){.v = h->v, .count = h->count};
}

void handles_inherit(struct handles *h, const struct wire_journal *journal)
{
    const struct wire_journal_entry *newest = NULL;
    for (size_t i = 0; i < journal->count; i++) {
        if (!newest || journal->v[i].fence >= newest->fence)
            newest = &journal->v[i];
    }
    if (!newest)
        return;
    for (size_t i = 0; i < newest->handles.count; i++)
        handles_set(h, newest->handles.v[i].name, newest->handles.v[i].value);
}

void leftovers_add(struct wire_leftovers *l, const char *kind, const char *vm, const char *id)
{
    l->v = xreallocarray(l->v, l->count + 1, sizeof *l->v);
    l->v[l->count++] = (struct wire_leftover){
        .kind = xstrdup(kind), .vm = xstrdup_or_null(vm), .id = xstrdup_or_null(id)};
}

struct wire_leftovers handles_leftovers(const struct handles *h, const char *vm)
{
    struct wire_leftovers l = {0};
    /* In the order in which they must go: transfers hold backups, and with attachments snapshots
     * and disks. */
    for (size_t i = 0; i < h->count; i++) {
        if (has_prefix(h->v[i].name, HANDLE_TRANSFER))
            leftovers_add(&l, "transfer", NULL, h->v[i].value);
    }
    for (size_t i = 0; i < h->count; i++) {
        if (has_prefix(h->v[i].name, HANDLE_ATTACHMENT))
            leftovers_add(&l, "attachment", h->v[i].value,
                          h->v[i].name + strlen(HANDLE_ATTACHMENT));
    }
    for (size_t i = 0; i < h->count; i++) {
        if (has_prefix(h->v[i].name, HANDLE_PART))
            leftovers_add(&l, "part", vm, h->v[i].value);
    }
    const char *backup = handles_get(h, HANDLE_BACKUP);
    if (backup)
        leftovers_add(&l, "backup", vm, backup);
    for (size_t i = 0; i < h->count; i++) {
        if (has_prefix(h->v[i].name, HANDLE_BACKUP_SNAPSHOT))
            leftovers_add(&l, "backup-snapshot", h->v[i].value,
                          h->v[i].name + strlen(HANDLE_BACKUP_SNAPSHOT));
    }
    for (size_t i = 0; i < h->count; i++) {
        if (has_prefix(h->v[i].name, HANDLE_CLONE))
            leftovers_add(&l, "clone", h->v[i].value, h->v[i].name + strlen(HANDLE_CLONE));
    }
    const char *snapshot = handles_get(h, HANDLE_SNAPSHOT);
    if (snapshot)
        leftovers_add(&l, "snapshot", vm, snapshot);
    const char *made_vm = handles_get(h, HANDLE_VM);
    if (made_vm)
        leftovers_add(&l, "vm", made_vm, NULL);
    for (size_t i = 0; i < h->count; i++) {
        if (has_prefix(h->v[i].name, HANDLE_DISK))
            leftovers_add(&l, "disk", NULL, h->v[i].value);
    }
    return l;
}

void leftovers_done(struct wire_leftovers *l)
{
    for (size_t i = 0; i < l->count; i++) {
        free(l->v[i].kind);
        free(l->v[i].vm);
        free(l->v[i].id);
    }
    free(l->v);
    *l = (struct wire_leftovers){0};
}

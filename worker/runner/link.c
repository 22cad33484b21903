/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/runner/link.h"

#include <stdio.h>

#include "proto/base/alloc.h"

static void copy_id(char out[ID_BYTES], const char *id)
{
    snprintf(out, ID_BYTES, "%s", id ? id : "");
}

struct order *order_new(enum order_kind kind, const char *task, int64_t fence)
{
    struct order *o = ALLOC_NEW(struct order);
    o->kind = kind;
    o->fence = fence;
    copy_id(o->task, task);
    return o;
}

void order_free(void *order)
{
    struct order *o = order;
    if (!o)
        return;
    wire_free(&o->offer);
    wire_free(&o->parted);
    free(o->reason);
    free(o);
}

struct note *note_new(enum note_kind kind, const char *task, int64_t fence)
{
    struct note *n = ALLOC_NEW(struct note);
    n->kind = kind;
    n->fence = fence;
    copy_id(n->task, task);
    return n;
}

void note_free(void *note)
{
    struct note *n = note;
    if (!n)
        return;
    free(n->body);
    free(n);
}

size_t note_bytes(const struct note *note)
{
    return sizeof *note + note->len;
}

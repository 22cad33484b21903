/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The judge's copies: KEEP/<vm id>/<snapshot or backup id>/<disk id>.raw, the guest's view of each
 * disk at that instant, made by qemu-img from the frozen volume or the backup's export, which no
 * part of the product under test has touched. Beside them, for a VM with a synthetic guest,
 * acked.json: the bracket for sandbox-judge, {"after": the number acknowledged before the instant,
 * "before": the highest that can have been issued when it was over}.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "proto/base/file.h"
#include "proto/base/log.h"
#include "tests/sandbox/engine/snapshots.h"

enum { REFERENCES_AT_ONCE = 2 };

struct copy {
    char disk_id[ID_BYTES];
    char *path; /* the frozen volume, or the URI of the backup's export */
    enum block_format format;
};

struct references {
    bool *pending, *made; /* of what they are made of */
    char **error;
    char *dir;
    VEC(struct copy) copies;
    int64_t acked_before, acked_after; /* -1: no synthetic guest */
};

static void copy_free(struct copy *c)
{
    free(c->path);
    free(c);
}

/* The one after the last that was noted: under way, or done; the next is not begun before it is
 * noted (guest/writer.c). */
enum { WRITES_UNDER_WAY = 1 };

static bool write_bracket(const struct references *x, struct err *err)
{
    if (x->acked_before < 0)
        return true;
    SCOPED_FREE char *path = xasprintf("%s/acked.json", x->dir);
    SCOPED_FREE char *text = xasprintf("{\"after\": %" PRId64 ", \"before\": %" PRId64 "}\n",
                                       x->acked_before, x->acked_after + WRITES_UNDER_WAY);
    return file_write_atomic(AT_FDCWD, path, text, strlen(text), 0644, err);
}

static bool make_copies(const struct references *x, struct err *err)
{
    if (!file_make_dirs(x->dir, 0755, err) || !write_bracket(x, err))
        return false;
    const struct copy *c;
    VEC_EACH(&x->copies, c)
    {
        SCOPED_FREE char *raw = xasprintf("%s/%s.raw", x->dir, c->disk_id);
        if (!block_volume_flatten(c->path, c->format, raw, err))
            return err_wrap(err, "disk %s", c->disk_id);
    }
    return true;
}

static void references_job(struct engine *e, void *arg)
{
    struct references *x = arg;
    struct err err = ERR_INIT;
    while (e->references_running >= REFERENCES_AT_ONCE && !e->stopping)
        engine_wait(e);
    bool ok = false;
    if (!e->stopping) {
        e->references_running++;
        engine_unlock(e);
        ok = make_copies(x, &err);
        engine_lock(e);
        e->references_running--;
    }
    *x->made = ok;
    *x->pending = false;
    if (err_is_set(&err)) {
        *x->error = xstrdup(err.message);
        log_err(LOG_LEVEL_WARN, "reference_failed", &err);
    }
    engine_changed(e);
    VEC_DONE(&x->copies, copy_free);
    free(x->dir);
    free(x);
}

static void add_copy(struct references *x, const struct disk *d, const char *path,
                     enum block_format format)
{
    struct copy *c = ALLOC_NEW(struct copy);
    (void)snprintf(c->disk_id, sizeof c->disk_id, "%s", d->id);
    c->path = xstrdup(path);
    c->format = format;
    VEC_ADD(&x->copies, c);
}

void references_begin(struct engine *e, struct vm *vm, struct snapshot *s)
{
    if (!e->opts.keep_dir)
        return;
    struct references *x = ALLOC_NEW(struct references);
    x->pending = &s->references_pending;
    x->made = &s->references_made;
    x->error = &s->reference_error;
    x->acked_before = s->acked_before;
    x->acked_after = s->acked_after;
    x->dir = xasprintf("%s/%s/%s", e->opts.keep_dir, vm->id, s->id);
    const struct attachment *a;
    VEC_EACH(&vm->attachments, a)
    {
        const struct volume *v = a->snapshot_id[0] ? NULL : disk_volume_in(a->disk, s->id);
        if (!v)
            continue;
        add_copy(x, a->disk, v->path, v->format);
    }
    s->references_pending = true;
    engine_spawn(e, references_job, x);
}

void references_begin_backup(struct engine *e, struct backup *b)
{
    if (!e->opts.keep_dir)
        return;
    struct references *x = ALLOC_NEW(struct references);
    x->pending = &b->references_pending;
    x->made = &b->references_made;
    x->error = &b->reference_error;
    x->acked_before = b->acked_before;
    x->acked_after = b->acked_after;
    x->dir = xasprintf("%s/%s/%s", e->opts.keep_dir, b->vm->id, b->id);
    const struct backup_disk *d;
    VEC_EACH(&b->disks, d)
    {
        const struct volume *v = b->hybrid ? disk_volume(d->disk, d->volume_id) : NULL;
        add_copy(x, d->disk, v ? v->path : d->uri, v ? v->format : BLOCK_RAW);
    }
    b->references_pending = true;
    engine_spawn(e, references_job, x);
}

void references_wait(struct engine *e, const struct snapshot *s)
{
    while (s->references_pending)
        engine_wait(e);
}

void references_wait_backup(struct engine *e, const struct backup *b)
{
    while (b->references_pending)
        engine_wait(e);
}

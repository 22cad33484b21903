/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "tests/sandbox/block/bitmap.h"
#include "tests/sandbox/block/block.h"
#include "tests/sandbox/block/image.h"
#include "tests/sandbox/block/qsd.h"

struct block_export {
    struct qsd *qsd;
    char *uri;
};

struct block_export *block_export_start(const char *run_dir, const char *path,
                                        enum block_format format, bool writable, struct err *err)
{
    struct block_export *x = ALLOC_NEW(struct block_export);
    x->qsd = qsd_start(run_dir, err);
    if (x->qsd && qsd_listen_nbd(x->qsd, err) &&
        qsd_open_chain(x->qsd, "disk", path, format, !writable, err) &&
        qsd_export_nbd(x->qsd, "export", "disk", "disk", writable, err)) {
        x->uri = qsd_nbd_uri(x->qsd, "disk");
        return x;
    }
    err_wrap(err, "offer volume '%s'", path);
    block_export_stop(x);
    return NULL;
}

/* --- With what changed ------------------------------------------------------------------------ */

enum { CHAIN_MAX = 256 };

struct chain {
    struct {
        char *path;
        enum block_format format;
        char node[QSD_NODE_BYTES];
    } v[CHAIN_MAX]; /* the top first */
    size_t count;
};

static void chain_done(struct chain *c)
{
    for (size_t i = 0; i < c->count; i++)
        free(c->v[i].path);
    free(c);
}

static bool chain_add(struct chain *c, const char *path, enum block_format format, struct err *err)
{
    if (c->count == CHAIN_MAX)
        return err_set(err, ERR_TOO_LARGE, 0, "a chain of more than %d volumes", CHAIN_MAX);
    snprintf(c->v[c->count].node, QSD_NODE_BYTES, "l%zu", c->count);
    c->v[c->count].format = format;
    c->v[c->count++].path = xstrdup(path);
    return true;
}

static bool chain_read(struct chain *c, const char *path, struct err *err)
{
    if (!chain_add(c, path, BLOCK_QCOW2, err))
        return false;
    for (size_t i = 0; i < c->count && c->v[i].format == BLOCK_QCOW2; i++) {
        SCOPED_IMAGE_INFO struct image_info info = {0};
        if (!image_info_read(c->v[i].path, BLOCK_QCOW2, &info, err) ||
            (info.backing && !chain_add(c, info.backing, info.backing_format, err)))
            return false;
    }
    return true;
}

static bool open_all(struct qsd *qsd, const struct chain *c, struct err *err)
{
    for (size_t i = c->count; i-- > 0;) {
        const char *below = i + 1 < c->count ? c->v[i + 1].node : NULL;
        if (!qsd_open_layer(qsd, c->v[i].node, c->v[i].path, c->v[i].format, below, true, err))
            return false;
    }
    return true;
}

/* Every volume from the one on which it was begun has it, the top one always. */
static bool merge_changes(struct qsd *qsd, const struct chain *c, const char *since,
                          struct err *err)
{
    json_t *sources = json_array();
    for (size_t i = 0; i < c->count; i++) {
        json_auto_t *names = bitmap_names_of(qsd->qmp, c->v[i].node, err);
        if (!names || !bitmap_is_among(names, since))
            break;
        json_array_append_new(sources,
                              json_pack("{s:s, s:s}", "node", c->v[i].node, "name", since));
    }
    if (!err_is_set(err) && json_array_size(sources) == 0)
        err_set(err, ERR_NOT_FOUND, 0, "Bitmap does not exist: '%s' in '%s'", since, c->v[0].path);
    if (err_is_set(err) ||
        !qmp_call(qsd->qmp, "block-dirty-bitmap-add",
                  bitmap_add_arguments(c->v[0].node, BLOCK_BACKUP_BITMAP, false), NULL, err)) {
        json_decref(sources);
        return false;
    }
    return qmp_call(qsd->qmp, "block-dirty-bitmap-merge",
                    json_pack("{s:s, s:s, s:o}", "node", c->v[0].node, "target",
                              BLOCK_BACKUP_BITMAP, "bitmaps", sources),
                    NULL, err);
}

struct block_export *block_export_start_changes(const char *run_dir, const char *path,
                                                const char *since, struct err *err)
{
    struct block_export *x = ALLOC_NEW(struct block_export);
    struct chain *chain = ALLOC_NEW(struct chain);
    bool ok = chain_read(chain, path, err);
    if (ok)
        x->qsd = qsd_start(run_dir, err);
    ok = ok && x->qsd && qsd_listen_nbd(x->qsd, err) && open_all(x->qsd, chain, err) &&
         merge_changes(x->qsd, chain, since, err) &&
         qsd_export_nbd_dirty(x->qsd, "export", chain->v[0].node, "disk", chain->v[0].node,
                              BLOCK_BACKUP_BITMAP, err);
    if (ok)
        x->uri = qsd_nbd_uri(x->qsd, "disk");
    chain_done(chain);
    if (ok)
        return x;
    err_wrap(err, "offer volume '%s'", path);
    block_export_stop(x);
    return NULL;
}

uint64_t block_export_changed(const struct block_export *x)
{
    return bitmap_count(x->qsd->qmp, "l0", BLOCK_BACKUP_BITMAP);
}

void block_export_stop(struct block_export *x)
{
    if (!x)
        return;
    if (x->qsd)
        qsd_quit(x->qsd);
    qsd_free(x->qsd);
    free(x->uri);
    free(x);
}

const char *block_export_uri(const struct block_export *x)
{
    return x->uri;
}

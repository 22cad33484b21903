/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/block/block.h"
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

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/imageio/backend.h"

#include <inttypes.h>
#include <string.h>

#include <libnbd.h>

enum { QUERY_BYTES = 1 << 30 };

struct backend {
    struct nbd_handle *nbd;
    bool broken;
    uint64_t size;
    char *export;
    char *dirty_context; /* NULL = none */
};

struct backend *backend_open(const char *uri, const char *dirty_bitmap, struct err *err)
{
    struct backend *b = ALLOC_NEW(struct backend);
    b->nbd = nbd_create();
    if (dirty_bitmap)
        b->dirty_context = xasprintf("qemu:dirty-bitmap:%s", dirty_bitmap);
    int64_t size = -1;
    if (b->nbd && nbd_add_meta_context(b->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0 &&
        (!b->dirty_context || nbd_add_meta_context(b->nbd, b->dirty_context) == 0) &&
        nbd_connect_uri(b->nbd, uri) == 0)
        size = nbd_get_size(b->nbd);
    if (size < 0) {
        err_set(err, ERR_IO, nbd_get_errno(), "%s", nbd_get_error());
        backend_close(b);
        return NULL;
    }
    b->size = (uint64_t)size;
    b->export = nbd_get_export_name(b->nbd);
    return b;
}

void backend_close(struct backend *b)
{
    if (!b)
        return;
    nbd_close(b->nbd);
    free(b->export);
    free(b->dirty_context);
    free(b);
}

uint64_t backend_size(const struct backend *b)
{
    return b->size;
}

/* `rc` is what libnbd returned. */
static bool check(struct backend *b, int rc, struct err *err)
{
    if (rc == 0)
        return true;
    b->broken = b->broken || nbd_aio_is_dead(b->nbd) || nbd_aio_is_closed(b->nbd);
    return err_set(err, ERR_IO, nbd_get_errno(), "%s", nbd_get_error());
}

static bool is_usable(const struct backend *b, struct err *err)
{
    return !b->broken || err_set(err, ERR_IO, 0, "the NBD connection was lost");
}

bool backend_read(struct backend *b, void *buf, size_t len, uint64_t offset, struct err *err)
{
    return is_usable(b, err) && check(b, nbd_pread(b->nbd, buf, len, offset, 0), err);
}

bool backend_write(struct backend *b, const void *buf, size_t len, uint64_t offset, struct err *err)
{
    return is_usable(b, err) && check(b, nbd_pwrite(b->nbd, buf, len, offset, 0), err);
}

bool backend_zero(struct backend *b, uint64_t len, uint64_t offset, bool sparse, struct err *err)
{
    uint32_t flags = sparse ? 0 : LIBNBD_CMD_FLAG_NO_HOLE;
    return is_usable(b, err) && check(b, nbd_zero(b->nbd, len, offset, flags), err);
}

bool backend_flush(struct backend *b, struct err *err)
{
    return is_usable(b, err) && check(b, nbd_flush(b->nbd, 0), err);
}

/* --- Extents
 * ------------------------------------------------------------------------------------------------
 */

struct extent {
    uint64_t start, len;
    uint32_t flags;
};

struct extents {
    struct extent *list;
    size_t count, room;
};

/* Where the two contexts of one query are gathered. */
struct query {
    const char *dirty_context;
    struct extents allocation, dirty;
};

static void add_extent(struct extents *x, uint64_t start, uint64_t len, uint32_t flags)
{
    struct extent *last = x->count > 0 ? &x->list[x->count - 1] : NULL;
    if (last && last->flags == flags) {
        last->len += len;
        return;
    }
    if (x->count == x->room) {
        x->room = x->room > 0 ? x->room * 2 : 256;
        x->list = xreallocarray(x->list, x->room, sizeof *x->list);
    }
    x->list[x->count++] = (struct extent){start, len, flags};
}

/* Called by libnbd with pairs of length and flags. */
static int on_extents(void *arg, const char *context, uint64_t offset, uint32_t *entries,
                      size_t count, int *error)
{
    struct query *q = arg;
    (void)error;
    struct extents *into = NULL;
    if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0)
        into = &q->allocation;
    else if (q->dirty_context && strcmp(context, q->dirty_context) == 0)
        into = &q->dirty;
    for (size_t i = 0; into && i + 1 < count; i += 2) {
        uint64_t have = into->count > 0
                            ? into->list[into->count - 1].start + into->list[into->count - 1].len
                            : 0;
        /* A server may answer one context further than the other: what is known is skipped. */
        uint64_t end = offset + entries[i];
        if (end > have)
            add_extent(into, have, end - have, entries[i + 1]);
        offset = end;
    }
    return 0;
}

static uint64_t covered(const struct extents *x)
{
    return x->count > 0 ? x->list[x->count - 1].start + x->list[x->count - 1].len : 0;
}

static bool query_all(struct backend *b, struct query *q, struct err *err)
{
    bool allocation = nbd_can_meta_context(b->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1;
    if (!allocation)
        add_extent(&q->allocation, 0, b->size, 0);
    while (covered(&q->allocation) < b->size ||
           (q->dirty_context && covered(&q->dirty) < b->size)) {
        uint64_t at = covered(&q->allocation);
        if (q->dirty_context && covered(&q->dirty) < at)
            at = covered(&q->dirty);
        uint64_t len = b->size - at < QUERY_BYTES ? b->size - at : QUERY_BYTES;
        nbd_extent_callback callback = {.callback = on_extents, .user_data = q};
        if (!check(b, nbd_block_status(b->nbd, len, at, callback, 0), err))
            return false;
        if (covered(&q->allocation) <= at && (!q->dirty_context || covered(&q->dirty) <= at))
            return err_set(err, ERR_IO, 0, "the NBD server tells no extents at %" PRIu64, at);
    }
    return true;
}

static const char *bool_text(bool value)
{
    return value ? "true" : "false";
}

static bool print_zero(const struct extents *x, struct buf *out)
{
    bool ok = buf_printf(out, "[");
    for (size_t i = 0; ok && i < x->count; i++)
        ok = buf_printf(out,
                        "%s{\"start\": %" PRIu64 ", \"length\": %" PRIu64
                        ", \"zero\": %s, \"hole\": false}",
                        i > 0 ? ", " : "", x->list[i].start, x->list[i].len,
                        bool_text(x->list[i].flags & LIBNBD_STATE_ZERO));
    return ok && buf_printf(out, "]");
}

/* The two lists cut at each other's borders. */
static bool print_dirty(const struct query *q, uint64_t size, struct buf *out)
{
    bool ok = buf_printf(out, "[");
    size_t a = 0, d = 0;
    for (uint64_t at = 0; ok && at < size;) {
        const struct extent *x = &q->allocation.list[a], *y = &q->dirty.list[d];
        uint64_t x_end = x->start + x->len, y_end = y->start + y->len;
        uint64_t end = x_end < y_end ? x_end : y_end;
        ok = buf_printf(
            out, "%s{\"start\": %" PRIu64 ", \"length\": %" PRIu64 ", \"dirty\": %s, \"zero\": %s}",
            at > 0 ? ", " : "", at, end - at, bool_text(y->flags & 1),
            bool_text(x->flags & LIBNBD_STATE_ZERO));
        a += x_end == end;
        d += y_end == end;
        at = end;
    }
    return ok && buf_printf(out, "]");
}

bool backend_extents(struct backend *b, bool dirty, struct buf *out, struct err *err)
{
    struct query q = {.dirty_context = dirty ? b->dirty_context : NULL};
    if (dirty && (!b->dirty_context || nbd_can_meta_context(b->nbd, b->dirty_context) != 1))
        return err_set(err, ERR_UNSUPPORTED, 0,
                       "Operation not supported: NBD export '%s' does not support dirty extents",
                       b->export);
    bool ok = is_usable(b, err) && query_all(b, &q, err);
    if (ok && !(dirty ? print_dirty(&q, b->size, out) : print_zero(&q.allocation, out)))
        ok = err_set(err, ERR_TOO_LARGE, 0, "too many extents");
    free(q.allocation.list);
    free(q.dirty.list);
    return ok;
}

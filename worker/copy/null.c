/* SPDX-License-Identifier: Apache-2.0 */
/* A target that discards: a restore into it checks every byte of a disk. */
#include "worker/copy/copy.h"

static bool null_pwrite(struct target *target, const void *buf, size_t len, uint64_t offset,
                        struct err *err)
{
    (void)target;
    (void)buf;
    (void)len;
    (void)offset;
    (void)err;
    return true;
}

static bool null_zero(struct target *target, uint64_t offset, uint64_t len, struct err *err)
{
    return null_pwrite(target, NULL, (size_t)len, offset, err);
}

static bool null_flush(struct target *target, struct err *err)
{
    (void)target;
    (void)err;
    return true;
}

static void null_close(struct target *target)
{
    free(target);
}

struct target *target_null_open(uint64_t size_bytes)
{
    static const struct target_ops ops = {
        .pwrite = null_pwrite, .zero = null_zero, .flush = null_flush, .close = null_close};
    struct target *target = ALLOC_NEW(struct target);
    target->ops = &ops;
    target->size_bytes = size_bytes;
    target->takes_pieces = true;
    return target;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A message from anybody: the first line is the AMQP property `type`, the rest the body. What is
 * decoded must encode, and decode again to the same.
 */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "proto/base/alloc.h"
#include "proto/wire/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_again(const struct wire_message *m)
{
    struct err err = ERR_INIT;
    size_t len, again_len;
    SCOPED_FREE char *body = wire_encode(m->type, m->as, &len, &err);
    if (!body) { /* the defaults that are written out may take it over the size */
        assert(err.code == ERR_TOO_LARGE);
        return;
    }
    struct wire_message back;
    bool ok = wire_decode(wire_type_name(m->type), body, len, &back, &err);
    assert(ok);
    SCOPED_FREE char *again = wire_encode(back.type, back.as, &again_len, &err);
    assert(again && again_len == len && memcmp(again, body, len) == 0);
    wire_free(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = size ? memchr(data, '\n', size) : NULL;
    if (!end)
        return 0;
    SCOPED_FREE char *type = xstrndup((const char *)data, (size_t)(end - data));
    size_t len = size - (size_t)(end + 1 - data);
    /* A copy of exactly this size, so that a read past its end is seen. */
    SCOPED_FREE char *body = xmalloc(len);
    if (len)
        memcpy(body, end + 1, len);
    struct wire_message m;
    struct err err = ERR_INIT;
    if (wire_decode(type, body, len, &m, &err)) {
        check_again(&m);
        wire_free(&m);
    } else {
        assert(err_is_set(&err) && err.message[0]);
    }
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What a scrub leaves for the next one: `damage/<point>` and `scrub/cursor`. The first byte says
 * which, and whether the checksum is made right. */
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "proto/base/file.h"
#include "proto/base/log.h"
#include "tests/fuzz/scratch.h"
#include "worker/store/gc/collect.h"
#include "worker/store/gc/damage.h"
#include "worker/store/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct store *store;

/* The text with a right checksum; the caller frees. NULL when it is no object. */
static char *with_checksum(const char *text, size_t len)
{
    json_t *root = json_loadb(text, len, 0, NULL);
    char *out = NULL;
    if (json_is_object(root)) {
        record_set_checksum(root);
        out = record_text_of(root);
    }
    json_decref(root);
    return out;
}

static void try_damage(const uint8_t *data, size_t size, bool make_right)
{
    SCOPED_FREE char *right = make_right ? with_checksum((const char *)data, size) : NULL;
    if (right)
        scratch_put(store, "damage/p.1", right, strlen(right));
    else
        scratch_put(store, "damage/p.1", data, size);
    struct damage d;
    struct err err = ERR_INIT;
    if (!damage_read(store, "p.1", &d, &err))
        return; /* too large */
    if (d.count == 0 || d.count > DAMAGE_RANGES_MAX)
        __builtin_trap();
    for (size_t i = 0; i < d.count; i++)
        if (d.ranges[i].frame >= PACK_FRAMES_MAX ||
            memchr(d.ranges[i].why, 0, sizeof d.ranges[i].why) == NULL)
            __builtin_trap();
    SCOPED_FREE char *text = damage_text(&d);
    bool ok = damage_put(store, "p.1", &d, &err); /* what was read can be written */
    if (!ok && err.code != ERR_INTERNAL)
        __builtin_trap();
    damage_done(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!store)
        store = scratch_store(NULL);
    if (size == 0)
        return 0;
    if (data[0] % 3 == 2) {
        scratch_put(store, "scrub/cursor", data + 1, size - 1);
        if (scrub_cursor_read(store) >= 1u << 16)
            __builtin_trap();
        return 0;
    }
    try_damage(data + 1, size - 1, data[0] % 3 == 1);
    return 0;
}

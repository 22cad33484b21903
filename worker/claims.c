/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/claims.h"

#include <stdio.h>
#include <string.h>

void claims_add(struct claims *c, const char *id, int64_t fence, int64_t sent_ms)
{
    struct claim *claim = &c->v[c->next++ % CLAIMS_KEPT];
    *claim = (struct claim){.sent_ms = sent_ms, .fence = fence};
    snprintf(claim->id, sizeof claim->id, "%s", id);
}

const struct claim *claims_find(const struct claims *c, const char *id)
{
    for (size_t i = 0; i < CLAIMS_KEPT; i++) {
        if (c->v[i].id[0] != '\0' && strcmp(c->v[i].id, id) == 0)
            return &c->v[i];
    }
    return NULL;
}

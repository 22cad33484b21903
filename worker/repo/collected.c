/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/repo/collected.h"

#include <inttypes.h>
#include <stdio.h>

static double mib(uint64_t bytes)
{
    return (double)bytes / (1 << 20);
}

void collected_print(const struct store_collect_result *r, bool dry_run)
{
    uint64_t gone = r->packs_removed + r->packs_dead;
    printf("before  %" PRIu64 " packs, %.1f MiB, %" PRIu64 " points\n", r->packs_before,
           mib(r->bytes_before), r->points);
    printf("%s%" PRIu64 " packs nobody refers to, %" PRIu64 " of dead sessions, %" PRIu64
           " compacted: %.1f MiB\n",
           dry_run ? "would free " : "freed   ", r->packs_removed, r->packs_dead,
           r->packs_compacted, mib(r->bytes_freed));
    printf("after   %" PRIu64 " packs, %.1f MiB\n", r->packs_before - gone,
           mib(r->bytes_before - r->bytes_freed));
    if (r->packs_held > 0)
        printf("held    %" PRIu64 " packs by %" PRIu64 " open sessions\n", r->packs_held,
               r->sessions_open);
}

json_t *collected_json(const struct store_collect_result *r, bool dry_run)
{
    return json_pack("{s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s*}", "dry_run", dry_run,
                     "points", (json_int_t)r->points, "packs_before", (json_int_t)r->packs_before,
                     "bytes_before", (json_int_t)r->bytes_before, "packs_removed",
                     (json_int_t)r->packs_removed, "packs_dead", (json_int_t)r->packs_dead,
                     "packs_compacted", (json_int_t)r->packs_compacted, "packs_held",
                     (json_int_t)r->packs_held, "bytes_freed", (json_int_t)r->bytes_freed,
                     "bytes_after", (json_int_t)(r->bytes_before - r->bytes_freed), "blocked",
                     r->blocked[0] != '\0' ? r->blocked : NULL);
}

bool collected_check(const struct store_collect_result *r, struct err *err)
{
    return r->blocked[0] == '\0' ||
           err_set(
               err, ERR_STORE_CORRUPT, 0,
               "only packs of dead sessions were freed, as it is not known what a damaged point "
               "refers to; 'repo forget' it, or bring its files back: %s",
               r->blocked);
}

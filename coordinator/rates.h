/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast backups are in a zone, by path: each successful backup that read enough by a path is one
 * sample; the ledger keeps a moving average, in which a new sample counts for a quarter (more while
 * there are fewer than four). Offers of backups and plans carry it, so that a worker can choose. A
 * rate that no backup has renewed for a month counts no more, and begins anew: what is not taken is
 * not measured, and must not stay slow for ever.
 *
 * Threads: one at a time. Errors: those of the ledger.
 */
#pragma once

#include "coordinator/core.h"

enum { RATES_MIN_BYTES = 64 << 20, RATES_WEIGHT = 4 };
#define RATES_KEEP_MS (INT64_C(30) * 24 * 3600 * 1000)

/* What a backup's result tells. */
bool rates_take(struct core *core, const char *zone, const struct wire_paths_stats *paths,
                struct err *err);
/* Whether offers of this kind of task carry rates. */
bool rates_concern(const char *kind);
/* The zone's rates, as an offer has them: `ret` borrows from `list`; the caller frees both. */
bool rates_load(struct core *core, const char *zone, struct rate_list *list, struct wire_rate **ret,
                struct err *err);

/* SPDX-License-Identifier: Apache-2.0 */
/* How `repo gc` and `repo prune` tell what was freed. Threads: the program's first one. */
#pragma once

#include <jansson.h>

#include "worker/store/upkeep.h"

void collected_print(const struct store_collect_result *r, bool dry_run);
/* The caller drops the reference. */
json_t *collected_json(const struct store_collect_result *r, bool dry_run);
/* False, with the reason, when a damaged point blocked the collection. */
bool collected_check(const struct store_collect_result *r, struct err *err);

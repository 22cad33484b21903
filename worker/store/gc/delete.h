/* SPDX-License-Identifier: Apache-2.0 */
/* What pruning needs of deleting. Not for other modules. Threads: reentrant. */
#pragma once

#include "worker/store/repo.h"

/* The points that are protected. */
bool store_list_protected(struct store *store, struct object_names *ret_names, struct err *err);

/* Delete a point by its whole id, unless it has been protected since the plan was made. */
bool delete_planned(struct store *store, const char *id, bool *ret_protected, struct err *err);

/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/task/task.h"

#include <string.h>

#include "proto/base/alloc.h"

static const struct task_kind *const kinds[] = {
    &task_backup, &task_restore, &task_export,      &task_inventory,
    &task_list,   &task_cleanup, &task_sweep,       &task_prune,
    &task_verify, &task_plan,    &task_backup_part, &task_restore_part,
};

const struct task_kind *task_kind_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (strcmp(kinds[i]->name, name) == 0)
            return kinds[i];
    }
    return NULL;
}

const struct task_kind *const *task_kinds(size_t *ret_count)
{
    *ret_count = ARRAY_LEN(kinds);
    return kinds;
}

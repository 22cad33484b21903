/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/copy/copy.h"

void source_close(struct source *source)
{
    if (source)
        source->ops->close(source);
}

void target_close(struct target *target)
{
    if (target)
        target->ops->close(target);
}

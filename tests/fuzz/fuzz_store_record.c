/* SPDX-License-Identifier: Apache-2.0 */
/* The decoders of repo.json and point.json. */
#include <stdint.h>
#include <string.h>

#include "worker/store/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = ERR_INIT;
    struct repo_record repo;
    (void)repo_record_decode((const char *)data, size, &repo, &err);
    err_clear(&err);
    struct point_record point;
    if (!point_record_decode((const char *)data, size, NULL, &point, &err))
        return 0;
    if (strlen(point.info.vm_name) > STORE_NAME_MAX || point.n_disks > STORE_DISKS_MAX)
        __builtin_trap();
    size_t len; /* what was read can be written */
    char *text = point_record_encode(&point, NULL, NULL, &len, &err);
    if (!text)
        __builtin_trap();
    free(text);
    point_record_done(&point);
    return 0;
}

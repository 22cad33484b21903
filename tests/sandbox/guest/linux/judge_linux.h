/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether raw images of a Linux guest's two disks are one instant of its life, judged by the tools
 * of ext4 and by glog.h. The images are copied first: a file system check writes. Needs e2fsprogs,
 * no root.
 */
#pragma once

#include <stdint.h>

#include "proto/base/err.h"

struct linux_verdict {
    bool good;
    bool clean; /* neither file system needed its journal: it was frozen or unmounted */
    uint64_t last_a, last_b; /* records in the logs */
    char why[512];           /* when not good */
};

/* `acked`: the last record acknowledged before the images were taken. `frozen`: it was frozen, so
 * both must be clean. False when the judging itself failed. */
bool judge_linux(const char *image_a, const char *image_b, uint64_t acked, bool frozen,
                 struct linux_verdict *ret, struct err *err);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A loop device over a file, so that a device is a true block device: no hole map, no size in
 * stat(2), the ioctls of a disk. It clears itself when the last descriptor closes
 * (LO_FLAGS_AUTOCLEAR), hence also when this process is killed. Needs root and the loop driver.
 */
#pragma once

#include "proto/base/err.h"

struct loop_device {
    int fd;        /* -1 = not attached; keeps the device alive */
    int number;    /* -1 = never attached */
    char path[32]; /* "/dev/loop<n>" */
};

#define LOOP_INIT                                                                                  \
    {                                                                                              \
        .fd = -1, .number = -1                                                                     \
    }

bool loop_attach(struct loop_device *l, const char *file, struct err *err);
/* Clears the device at once if nobody else has it open, else when they close it. */
void loop_detach(struct loop_device *l);
bool loop_is_attached(const struct loop_device *l);

/* For an orderly end: give up our descriptor, see whether the device went, or take it back. */
void loop_close(struct loop_device *l);
bool loop_wait_cleared(const struct loop_device *l);
bool loop_reopen(struct loop_device *l, struct err *err);

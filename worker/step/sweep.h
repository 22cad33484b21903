/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking for traces of Oxbow in this worker's data center and repository: what carries one of our
 * markers, the disks that hang on proxies and the image transfers that are open because of it, and
 * sessions without a fate. Reads only;
 * the coordinator, which knows what is at work, judges.
 *
 * Also for clean-ups: which VM holds a disk.
 */
#pragma once

#include "worker/step/step.h"

bool step_sweep(struct task_run *run, struct err *err);

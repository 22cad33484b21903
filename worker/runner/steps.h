/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walks a table of steps.
 *
 * Forward: for each step, probe (done by an earlier attempt?), else run. Each start, end and probe
 * is an event with all handles. When a step fails, is cancelled or runs out of time, the steps from
 * there back to the first are undone, whatever else fails meanwhile; what could not be undone is
 * still in the handles. When the lease is lost nothing is undone and nothing more is touched: the
 * next owner has the journal. Once run->committed is set, steps flagged STEP_TIDY turn their
 * failures into warnings.
 */
#pragma once

#include "worker/step/step.h"

/* True when the work is done (perhaps with warnings). Errors: whatever the failed step said,
 * unchanged but for the step's name in front. */
bool steps_run(struct task_run *run, const struct step *steps, size_t count, struct err *err);

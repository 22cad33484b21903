/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The words for results: how a VM's backup or restore ended, how a request ended, and the tables of
 * restore points, VMs, requests, tasks, attempts, traces and workers. Pure functions. Threads:
 * reentrant.
 */
#pragma once

#include "coordinator/cli/output.h"
#include "proto/base/buf.h"
#include "proto/wire/message.h"

/* "web1: backed up in 3m12s, ..." and, below and indented, warnings, error details and what is left
 * behind. */
void report_outcome(const struct wire_outcome *m, bool utf8, bool color, struct buf *out);
/* "backup partly failed: 11 of 12 succeeded, 1 failed". */
void report_finished(const struct wire_finished *m, bool color, struct buf *out);

/* Tables. `width` as in table_render(). Nothing is added for an empty list. */
/* What a policy does to restore points, and by which rules. */
void report_verdicts(const struct wire_point_item *v, size_t count, int width, bool utf8,
                     struct buf *out);
/* Numbers by name. */
void report_numbers(const struct wire_gauge_item *v, size_t count, int width, bool utf8,
                    struct buf *out);
void report_points(const struct wire_point_item *v, size_t count, int width, bool utf8,
                   int64_t now_wall_ms, struct buf *out);
void report_vms(const struct wire_vm_item *v, size_t count, int width, bool utf8, struct buf *out);
void report_requests(const struct wire_request_item *v, size_t count, int width, bool utf8,
                     int64_t now_wall_ms, struct buf *out);
void report_tasks(const struct wire_task_item *v, size_t count, int width, bool utf8,
                  struct buf *out);
void report_attempts(const struct wire_attempt_item *v, size_t count, int width, bool utf8,
                     int64_t now_wall_ms, struct buf *out);
void report_traces(const struct wire_trace_item *v, size_t count, int width, bool utf8,
                   int64_t now_wall_ms, struct buf *out);
/* How backups would go: for each VM a headline, a table of its disks, and what stands against it.
 */
void report_plans(const struct wire_plan_item *v, size_t count, int width, bool utf8,
                  struct buf *out);
/* Not a table: a line for each zone, and one for trouble when there is some. */
void report_gauges(const struct wire_gauge_item *v, size_t count, bool utf8, struct buf *out);
void report_workers(const struct wire_worker_item *v, size_t count, int width, bool utf8,
                    int64_t now_wall_ms, struct buf *out);

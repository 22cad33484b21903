/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers about the whole, as they are now: what status shows, and what the metrics file holds for
 * a monitoring system. One table of names (gauges.c); docs/operations.md explains them.
 *
 * What lies in the engine is known from the last sweep of each zone and as old as that
 * (sweep_age_seconds); the rest is read from the ledger.
 *
 * Threads: one at a time. Errors: those of the ledger.
 */
#pragma once

#include "coordinator/core.h"

struct gauges {
    struct wire_gauge_item *v; /* names are static; zones and lanes are owned */
    size_t count;
};
void gauges_done(struct gauges *g);
#define SCOPED_GAUGES __attribute__((cleanup(gauges_done), unused))

bool gauges_read(struct core *core, struct gauges *ret, struct err *err);

/* The gauges as text in the exposition format that Prometheus and the textfile collector of its
 * node_exporter read; the caller frees. */
char *gauges_text(const struct gauges *g);

/* Write them to a file, by rename. A file that cannot be written is logged and is no error. */
bool gauges_write(struct core *core, const char *path, struct err *err);

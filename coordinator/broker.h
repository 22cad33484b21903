/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the broker and the desk: deliveries become one batch per turn of the loop and are
 * acknowledged after its commit; the outbox is published with confirms and forgotten as they come.
 * Knows I/O, signals and the service manager, and nothing of requests or tasks.
 *
 * Nothing is lost when the program ends at any instruction: deliveries that were not acknowledged
 * come again, messages that were not confirmed are in the ledger and are sent again at the next
 * start. Receivers know the doubles by their message id.
 *
 * Threads: the main thread only.
 */
#pragma once

#include "coordinator/desk.h"

/* Run until SIGTERM or SIGINT. `origin` names the configuration file in messages. False on a fault
 * of the ledger or a configuration that cannot work. */
bool broker_run(struct desk *desk, const struct coordinator_conf *conf, const char *origin,
                const struct clock *clock, struct err *err);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The endpoint that the client is tested against: the sandbox's, or the ovirt-imageio that this
 * machine has, when OXBOW_IMAGEIO_DAEMON names a command that starts it ("ovirt-imageio"; it gets
 * --conf-dir). The real one plays no faults: the tests that need some are skipped.
 */
#pragma once

#include "tests/sandbox/imageio/imageio.h"

struct host;

/* For 127.0.0.1, two files. */
bool host_certificate(const char *cert_path, const char *key_path, struct err *err);
/* `opts->fault` is the sandbox's alone. `dir` is for the daemon's files, and must be there. */
struct host *host_start(const struct imageio_opts *opts, const char *dir, struct err *err);
/* Closes all connections. NULL is fine. */
void host_stop(struct host *h);
bool host_is_real(const struct host *h);
uint16_t host_port(const struct host *h);
bool host_add(struct host *h, const struct imageio_ticket *ticket, struct err *err);
bool host_remove(struct host *h, const char *id, struct err *err);
/* Distinct bytes, see imageio_ticket_info; and the connections that are open. */
bool host_count(struct host *h, const char *id, uint64_t *ret_transferred,
                unsigned *ret_connections, struct err *err);

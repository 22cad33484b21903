/* SPDX-License-Identifier: Apache-2.0 */
/* The sandbox from start to end: directory, certificates, cluster, servers. */
#pragma once

#include "tests/sandbox/engine/engine.h"

struct server_opts {
    const char *dir; /* made if missing; must be empty */
    const char *spec_path;
    const char *faults_path; /* NULL = none */
    const char *keep_dir;    /* NULL = none */
    const char *linux_dir;   /* NULL = no Linux guests */
    const char *version;     /* NULL = as the specification says */
    uint16_t port;
    bool fast; /* the fast timings, whatever the specification says */
    bool wipe; /* remove what a killed sandbox left in `dir` */
};

/* All VMs run and the API answers when it returns; DIR/sandbox.json says where. */
struct engine *server_open(const struct server_opts *opts, struct err *err);
/* Stops guests, VMs, servers. NULL is fine. */
void server_close(struct engine *e);

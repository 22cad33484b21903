/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The description of a cluster, read from a JSON file (tests/sandbox/README.md holds the syntax):
 * fills an empty engine's model. Threads: before any other runs.
 */
#pragma once

#include "tests/sandbox/engine/engine.h"

enum { SPEC_FILE_MAX = 16 * 1024 * 1024, SPEC_VMS_MAX = 5000 };

/* What the model does not keep. */
struct spec {
    VEC(struct vm) start;  /* VMs to start, proxies first */
    char *user, *password; /* the first user */
};

/* Errors: bad-config, naming the place; not-found and the like for the file. */
bool spec_load(struct engine *e, const char *path, struct spec *ret, struct err *err);
bool spec_apply(struct engine *e, const json_t *spec, struct spec *ret, struct err *err);
void spec_done(struct spec *s);
/* A specification with `vms` VMs and three proxies, as text; the caller frees. */
char *spec_sample(unsigned vms);

/* SPDX-License-Identifier: Apache-2.0 */
/* What engine.c and session.c share; private to them and their tests. */
#pragma once

#include <pthread.h>

#include "worker/ovirt/engine.h"
#include "worker/ovirt/http.h"
#include "worker/ovirt/login.h"

struct engine {
    struct engine_conf conf; /* defaults filled in; its strings point at the four below */
    char *base_url, *user, *password_file, *ca_file;
    struct login *login;
    pthread_mutex_t lock;          /* guards version and reached */
    struct engine_version version; /* major 0 = not read yet */
    bool reached;                  /* an answer of the engine has been seen */
};

struct http_options engine_http_options(const struct engine *e);
struct engine *engine_session_engine(struct engine_session *s);
/* The version in the API's root object. */
bool engine_version_of_json(const json_t *root, struct engine_version *ret, struct err *err);

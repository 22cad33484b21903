/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What most tests of this folder are about: a session on a scripted engine, and the error of the
 * calls. Included by one test program each; after cmocka.h.
 */
#pragma once

#include "tests/unit/worker/ovirt/fake_engine.h"

struct fixture {
    struct fake_engine *fake;
    struct engine *engine;
    struct engine_session *session;
    struct err err;
};

static inline void start(struct fixture *x, const struct fake_line *script)
{
    *x = (struct fixture){.fake = fake_engine_new(script)};
    x->engine = fake_engine_client(x->fake);
    x->session = engine_session_new(x->engine, NULL);
}

/* The script must be used up. */
static inline void stop(struct fixture *x)
{
    engine_session_free(x->session);
    engine_free(x->engine);
    fake_engine_check(x->fake);
    fake_engine_free(x->fake);
}

static inline void assert_code(const struct fixture *x, enum err_code code)
{
    if (x->err.code != code)
        fail_msg("expected %s, got %s: %s", err_code_name(code), err_code_name(x->err.code),
                 x->err.message);
}

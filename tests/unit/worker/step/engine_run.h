/* SPDX-License-Identifier: Apache-2.0 */
/* A fake run (fake_run.h) on a scripted engine (fake_engine.h). */
#pragma once

#include "tests/unit/worker/fake_run.h"
#include "tests/unit/worker/ovirt/fake_engine.h"

/* hooks: of the session; NULL = none. */
static inline void engine_run_begin(struct fake_run *f, struct fake_engine *fake,
                                    const struct engine_hooks *hooks)
{
    fake_run_init(f);
    f->run.engine = fake_engine_client(fake);
    f->run.session = engine_session_new(f->run.engine, hooks);
}

/* The script must be used up. Frees the engine as well. */
static inline void engine_run_end(struct fake_run *f, struct fake_engine *fake)
{
    engine_session_free(f->run.session);
    engine_free(f->run.engine);
    fake_run_done(f);
    fake_engine_check(fake);
    fake_engine_free(fake);
}

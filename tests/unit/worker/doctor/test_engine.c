/* SPDX-License-Identifier: Apache-2.0 */
/* The checks of the engine, against a scripted one: above all, how often it is bothered. */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <string.h>

#include "proto/base/alloc.h"
#include "tests/unit/worker/ovirt/fake_engine.h"
#include "worker/doctor/doctor.h"

/* Strings of a configuration are not const; nobody writes through them. */
#define S(text) ((char *)(uintptr_t)(text))

/* One check-up of the engine; `keep` as in doctor_opts. How engine.login came out, the caller
 * frees.
 */
static char *login_level(struct fake_engine *fake, struct engine **keep)
{
    struct engine_conf engine = fake_engine_conf(fake);
    const struct worker_conf conf = {.name = S("w1"),
                                     .device_dir = S("/nowhere"),
                                     .proxy_vm = S("proxy1"),
                                     .engine = {.url = S(engine.url),
                                                .user = S(engine.user),
                                                .password_file = S(engine.password_file),
                                                .ca_file = S(engine.ca_file)}};
    SCOPED(doctor)
    struct doctor *d =
        doctor_new(&(struct doctor_opts){.conf = &conf, .engine = keep, .only = "engine."});
    doctor_run(d);
    struct doctor_report r;
    doctor_read(d, &r);
    char *level = NULL;
    for (size_t i = 0; i < r.findings.count; i++) {
        if (strcmp(r.findings.v[i].check, "engine.login") == 0)
            level = xstrdup(r.findings.v[i].level);
    }
    doctor_report_done(&r);
    assert_non_null(level);
    return level;
}

static const struct fake_line nothing[] = {{0}};

static void a_refused_password_is_tried_once(void **state)
{
    (void)state;
    struct fake_engine *fake = fake_engine_new(nothing);
    struct engine *kept = NULL;
    fake_engine_refuse_logins(fake, true);
    for (int i = 0; i < 3; i++) {
        SCOPED_FREE char *level = login_level(fake, &kept);
        assert_string_equal(level, "failure");
    }
    assert_int_equal(fake_engine_logins(fake), 1);
    engine_free(kept);
    fake_engine_free(fake);
}

static void alone_it_logs_in_and_out(void **state)
{
    (void)state;
    struct fake_engine *fake = fake_engine_new(nothing);
    fake_engine_free_run(fake);
    for (unsigned i = 1; i <= 2; i++) {
        SCOPED_FREE char *level = login_level(fake, NULL);
        assert_string_equal(level, "ok");
        assert_int_equal(fake_engine_logins(fake), i);
        assert_int_equal(fake_engine_logouts(fake), i);
    }
    fake_engine_free(fake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_refused_password_is_tried_once),
        cmocka_unit_test(alone_it_logs_in_and_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

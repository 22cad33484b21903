/* SPDX-License-Identifier: Apache-2.0 */
/* The checks of the repository, and how checks hang together: needs, limits, reading meanwhile. */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <dirent.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/temp_dir.h"
#include "worker/doctor/check.h"

struct site {
    struct temp_dir dir;
    char *repository;
    struct worker_conf conf;
};

static int set_up(void **state)
{
    struct site *s = ALLOC_NEW(struct site);
    static char name[] = "w1", devices[] = "/nowhere";
    temp_dir_make(&s->dir);
    s->repository = xasprintf("%s/repository", s->dir.path);
    s->conf = (struct worker_conf){.name = name,
                                   .device_dir = devices,
                                   .repository = {.path = s->repository},
                                   .reserve = {.repository_mib = 1}};
    *state = s;
    return 0;
}

static int tear_down(void **state)
{
    struct site *s = *state;
    temp_dir_remove(&s->dir);
    free(s->repository);
    free(s);
    return 0;
}

/* Makes the repository and gives its id; the caller frees. */
static char *make_repository(const struct site *s)
{
    struct err err = ERR_INIT;
    SCOPED(store) struct store *store = store_init(s->repository, NULL, &err);
    if (!store)
        fail_msg("%s", err.message);
    return xstrdup(store_uuid(store));
}

static struct doctor *make_doctor(const struct site *s, int64_t limit_s)
{
    return doctor_new(
        &(struct doctor_opts){.conf = &s->conf, .only = "repository.", .limit_s = limit_s});
}

static void look(const struct site *s, struct doctor_report *ret)
{
    SCOPED(doctor) struct doctor *d = make_doctor(s, 0);
    doctor_run(d);
    doctor_read(d, ret);
    assert_true(ret->done);
}

static const struct wire_finding *find(const struct doctor_report *r, const char *check)
{
    for (size_t i = 0; i < r->findings.count; i++) {
        if (strcmp(r->findings.v[i].check, check) == 0)
            return &r->findings.v[i];
    }
    fail_msg("there is no finding of %s", check);
    return NULL;
}

static void expect(const struct site *s, const char *check, enum finding_level level,
                   const char *words)
{
    struct doctor_report r;
    look(s, &r);
    const struct wire_finding *f = find(&r, check);
    if (finding_level_of(f) != level || !strstr(f->message, words))
        fail_msg("%s: wanted %s with '%s', found %s: %s", check, finding_level_name(level), words,
                 f->level, f->message);
    doctor_report_done(&r);
}

static void it_is_there(void **state)
{
    struct site *s = *state;
    SCOPED_FREE char *uuid = make_repository(s);
    struct doctor_report r;
    look(s, &r);
    assert_string_equal(r.repository, uuid);
    assert_string_equal(find(&r, "repository.opens")->level, "ok");
    assert_string_equal(find(&r, "repository.writable")->level, "ok");
    assert_string_equal(find(&r, "repository.space")->level, "ok");
    assert_null(r.now);
    doctor_report_done(&r);
    /* Nothing of the trial is left. */
    DIR *dir = opendir(s->repository);
    assert_non_null(dir);
    for (const struct dirent *e; (e = readdir(dir));)
        assert_null(strstr(e->d_name, "doctor"));
    closedir(dir);
}

/* An encrypted one, with each of the keys that a worker may have. */
static void its_key(void **state)
{
    struct site *s = *state;
    struct err err = ERR_INIT;
    SCOPED_FREE char *right = xasprintf("%s/right.key", s->dir.path);
    SCOPED_FREE char *writer = xasprintf("%s/writer.key", s->dir.path);
    SCOPED_FREE char *wrong = xasprintf("%s/wrong.key", s->dir.path);
    char id[STORE_KEY_ID_CHARS + 1];
    assert_true(store_key_file_make(right, &err) && store_key_file_make(writer, &err) &&
                store_key_file_make(wrong, &err));
    struct store *store =
        store_init(s->repository, &(struct store_opts){.key_file = right, .encrypt = true}, &err);
    if (!store)
        fail_msg("%s", err.message);
    assert_true(store_key_add(
        store, &(struct store_key_opts){.key_file = writer, .is_write_only = true}, id, &err));
    store_free(store);
    expect(s, "repository.key", FINDING_FAILURE, "key");
    expect(s, "repository.opens", FINDING_OK, "is repository");
    expect(s, "repository.writable", FINDING_OK, "work");
    s->conf.repository.key_file = wrong;
    expect(s, "repository.key", FINDING_FAILURE, "key");
    s->conf.repository.key_file = writer;
    expect(s, "repository.key", FINDING_WARNING, "may only write");
    s->conf.repository.key_file = right;
    expect(s, "repository.key", FINDING_OK, "opens it");
}

static void a_key_for_none(void **state)
{
    struct site *s = *state;
    struct err err = ERR_INIT;
    SCOPED_FREE char *uuid = make_repository(s);
    SCOPED_FREE char *key = xasprintf("%s/some.key", s->dir.path);
    assert_true(store_key_file_make(key, &err));
    expect(s, "repository.key", FINDING_OK, "not encrypted");
    s->conf.repository.key_file = key;
    expect(s, "repository.key", FINDING_FAILURE, "not encrypted");
}

static void it_is_not_there(void **state)
{
    struct site *s = *state;
    struct doctor_report r;
    look(s, &r);
    const struct wire_finding *f = find(&r, "repository.opens");
    assert_string_equal(f->level, "failure");
    assert_non_null(f->advice);
    /* What hangs on it is not looked at, and says why. */
    f = find(&r, "repository.writable");
    assert_string_equal(f->level, "skipped");
    assert_non_null(strstr(f->message, "repository.opens"));
    assert_null(f->advice);
    assert_string_equal(find(&r, "repository.space")->level, "skipped");
    assert_null(r.repository);
    doctor_report_done(&r);
}

static void it_is_something_else(void **state)
{
    struct site *s = *state;
    assert_int_equal(mkdir(s->repository, 0700), 0);
    expect(s, "repository.opens", FINDING_FAILURE, "is not a repository");
}

static void it_is_full(void **state)
{
    struct site *s = *state;
    SCOPED_FREE char *uuid = make_repository(s);
    s->conf.reserve.repository_mib = INT64_C(1) << 40;
    expect(s, "repository.space", FINDING_FAILURE, "no backup begins");
}

static void it_is_read_only(void **state)
{
    struct site *s = *state;
    SCOPED_FREE char *uuid = make_repository(s);
    assert_int_equal(chmod(s->repository, 0500), 0);
    if (geteuid() != 0) /* root writes all the same */
        expect(s, "repository.writable", FINDING_FAILURE, "Permission denied");
}

static void mount_options(void **state)
{
    (void)state;
    static const char table[] =
        "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n"
        "36 21 0:9 / /srv/a rw - nfs4 server:/a rw,hard,timeo=600\n"
        "37 21 0:99 / /srv/b rw - nfs4 server:/b rw,soft,timeo=600";
    SCOPED_FREE char *ext4 = doctor_mount_options(table, 8, 1);
    SCOPED_FREE char *hard = doctor_mount_options(table, 0, 9);
    SCOPED_FREE char *soft = doctor_mount_options(table, 0, 99);
    assert_string_equal(ext4, ",rw,errors=remount-ro,");
    assert_string_equal(hard, ",rw,hard,timeo=600,");
    assert_string_equal(soft, ",rw,soft,timeo=600,");
    assert_null(doctor_mount_options(table, 8, 2));
    assert_null(doctor_mount_options(NULL, 8, 1));
}

static void the_time_is_up(void **state)
{
    struct site *s = *state;
    SCOPED_FREE char *uuid = make_repository(s);
    SCOPED(doctor) struct doctor *d = make_doctor(s, 60);
    struct doctor_report r;
    doctor_read(d, &r); /* before it begins */
    assert_false(r.done);
    assert_int_equal(r.findings.count, 0);
    doctor_report_done(&r);
    doctor_stop(d);
    doctor_run(d);
    doctor_read(d, &r);
    assert_true(r.done);
    assert_int_equal(r.findings.count, 5);
    assert_string_equal(r.findings.v[0].level, "skipped");
    assert_non_null(strstr(r.findings.v[0].message, "time was up"));
    doctor_report_done(&r);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(it_is_there),          TEST(its_key),
        TEST(a_key_for_none),       TEST(it_is_not_there),
        TEST(it_is_something_else), TEST(it_is_full),
        TEST(it_is_read_only),      cmocka_unit_test(mount_options),
        TEST(the_time_is_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

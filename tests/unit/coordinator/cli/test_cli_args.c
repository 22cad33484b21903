/* SPDX-License-Identifier: Apache-2.0 */
/* Command lines as requests. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "coordinator/cli/verbs.h"

#define UUID  "0c0ffee0-0000-4000-8000-000000000001"
#define UPPER "0C0FFEE0-0000-4000-8000-000000000001"

/* A command line that may be written to, as a program's is. */
struct line {
    char *words[64];
    int count;
};

static struct line line_of(const char *text)
{
    struct line l = {0};
    l.words[l.count++] = xstrdup("oxbow verb");
    while (*text) {
        size_t len = strcspn(text, " ");
        l.words[l.count++] = xstrndup(text, len);
        text += len + (text[len] != '\0');
    }
    return l;
}

static void line_done(struct line *l)
{
    for (int i = 0; i < l->count; i++)
        free(l->words[i]);
}

enum { FLAGS = ARGP_NO_EXIT };

static void assert_encodes(enum wire_type type, const void *message)
{
    struct err err = ERR_INIT;
    size_t len;
    SCOPED_FREE char *body = wire_encode(type, message, &len, &err);
    assert_non_null(body);
}

static void backup(void **state)
{
    (void)state;
    struct line l = line_of("web1 " UUID " web2 --id " UUID " --tag t1 --tag t2 --search cluster=a "
                            "--exclude no --zone dc1 --quiesce require --unsupported-disks fail "
                            "--path attach --deadline 2h --key k --timeout 90s");
    struct backup_args args;
    assert_true(backup_parse(l.count, l.words, FLAGS, &args));
    assert_int_equal(args.select.names.count, 2);
    assert_string_equal(args.select.names.v[1], "web2");
    assert_int_equal(args.select.ids.count, 2);
    assert_int_equal(args.select.tags.count, 2);
    assert_string_equal(args.select.search, "cluster=a");
    assert_string_equal(args.select.exclude.v[0], "no");
    assert_false(args.select.all);
    assert_string_equal(args.message.zone, "dc1");
    assert_int_equal(args.options.quiesce, WIRE_QUIESCE_REQUIRE);
    assert_int_equal(args.options.unsupported, WIRE_UNSUPPORTED_FAIL);
    assert_int_equal(args.options.path, WIRE_PATH_ATTACH);
    assert_int_equal(args.message.deadline_s, 7200);
    assert_string_equal(args.message.idempotency_key, "k");
    assert_int_equal(args.job.wait.timeout_s, 90);
    assert_true(args.message.progress);
    assert_encodes(WIRE_BACKUP, &args.message);
    backup_args_done(&args);
    line_done(&l);
}

static void plan(void **state)
{
    (void)state;
    struct line l = line_of("web1 " UUID " --tag t --exclude no --zone dc1 --path imageio "
                            "--unsupported-disks fail --timeout 9s --json");
    struct plan_args args;
    assert_true(plan_parse(l.count, l.words, FLAGS, &args));
    assert_string_equal(args.message.select->names.v[0], "web1");
    assert_string_equal(args.message.select->ids.v[0], UUID);
    assert_string_equal(args.message.select->tags.v[0], "t");
    assert_string_equal(args.message.select->exclude.v[0], "no");
    assert_string_equal(args.message.zone, "dc1");
    assert_int_equal(args.message.options->path, WIRE_PATH_IMAGEIO);
    assert_int_equal(args.message.options->unsupported, WIRE_UNSUPPORTED_FAIL);
    assert_int_equal(args.query.timeout_s, 9);
    assert_true(args.query.output.json);
    assert_encodes(WIRE_PLAN, &args.message);
    plan_args_done(&args);
    line_done(&l);
}

static void backup_defaults(void **state)
{
    (void)state;
    struct line l = line_of("--all --json --no-wait");
    struct backup_args args;
    assert_true(backup_parse(l.count, l.words, FLAGS, &args));
    assert_true(args.select.all);
    assert_int_equal(args.options.quiesce, WIRE_QUIESCE_AUTO);
    assert_int_equal(args.options.unsupported, WIRE_UNSUPPORTED_SKIP);
    assert_int_equal(args.options.path, WIRE_PATH_AUTO);
    assert_null(args.message.idempotency_key);
    assert_true(args.job.wait.no_wait);
    assert_false(args.message.progress); /* nobody would see it */
    backup_args_done(&args);
    line_done(&l);
}

static void export(void **state)
{
    (void)state;
    struct line l = line_of("web1 --tag t1 --to-ova host1:/mnt/ova --quiesce off --deadline 2h");
    struct export_args args;
    assert_true(export_parse(l.count, l.words, FLAGS, &args));
    assert_string_equal(args.select.names.v[0], "web1");
    assert_string_equal(args.select.tags.v[0], "t1");
    assert_string_equal(args.options.host, "host1");
    assert_string_equal(args.options.directory, "/mnt/ova");
    assert_null(args.options.domain);
    assert_int_equal(args.options.quiesce, WIRE_QUIESCE_OFF);
    assert_int_equal(args.message.deadline_s, 7200);
    assert_encodes(WIRE_EXPORT, &args.message);
    export_args_done(&args);
    line_done(&l);
    static const char *const bad[] = {"web1",
                                      "--to-domain d",
                                      "web1 --to-ova host1",
                                      "web1 --to-ova host1:mnt",
                                      "web1 --to-ova :/mnt",
                                      "web1 --to-ova h:/m --to-domain d"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        l = line_of(bad[i]);
        if (export_parse(l.count, l.words, FLAGS, &args))
            fail_msg("accepted: '%s'", bad[i]);
        export_args_done(&args);
        line_done(&l);
    }
}

static void connection_options(void **state)
{
    (void)state;
    struct line l = line_of("--config c --broker-host h --broker-port 1 --broker-vhost v "
                            "--broker-user u --broker-password-file p --broker-tls "
                            "--broker-ca-file ca --broker-cert-file ce --broker-key-file k -q");
    struct list_args args;
    assert_true(list_parse(l.count, l.words, FLAGS, &args));
    const struct connect_args *c = &args.query.connect;
    assert_string_equal(c->config, "c");
    assert_string_equal(c->host, "h");
    assert_int_equal(c->port, 1);
    assert_string_equal(c->vhost, "v");
    assert_string_equal(c->user, "u");
    assert_string_equal(c->password_file, "p");
    assert_true(c->tls);
    assert_string_equal(c->ca_file, "ca");
    assert_string_equal(c->cert_file, "ce");
    assert_string_equal(c->key_file, "k");
    assert_true(args.query.output.quiet);
    line_done(&l);
}

static void restore(void **state)
{
    (void)state;
    struct line l = line_of("p1 --name new --cluster c --storage-domain s --vm-config json --nics "
                            "none --start --zone z --deadline 1m --key k --disk d1 --disk d2");
    struct restore_args args;
    assert_true(restore_parse(l.count, l.words, FLAGS, &args));
    assert_string_equal(args.options.point, "p1");
    assert_null(args.options.vm);
    assert_string_equal(args.options.name, "new");
    assert_string_equal(args.options.cluster, "c");
    assert_string_equal(args.options.storage_domain, "s");
    assert_int_equal(args.options.config, WIRE_CONFIG_JSON);
    assert_int_equal(args.options.nics, WIRE_NICS_NONE);
    assert_true(args.options.start);
    assert_string_equal(args.message.zone, "z");
    assert_int_equal(args.message.deadline_s, 60);
    assert_int_equal(args.options.disks.count, 2);
    assert_string_equal(args.options.disks.v[1], "d2");
    assert_encodes(WIRE_RESTORE, &args.message);
    restore_args_done(&args);
    line_done(&l);

    l = line_of("--vm web1 --name new");
    assert_true(restore_parse(l.count, l.words, FLAGS, &args));
    assert_string_equal(args.options.vm, "web1");
    assert_int_equal(args.options.nics, WIRE_NICS_UNPLUGGED);
    assert_int_equal(args.options.config, WIRE_CONFIG_OVF);
    assert_false(args.options.start);
    line_done(&l);
}

static void workers(void **state)
{
    (void)state;
    struct line l = line_of("a --workers 16");
    struct backup_args backup;
    assert_true(backup_parse(l.count, l.words, FLAGS, &backup));
    assert_int_equal(backup.options.workers, 16);
    backup_args_done(&backup);
    line_done(&l);
    l = line_of("a");
    assert_true(backup_parse(l.count, l.words, FLAGS, &backup));
    assert_int_equal(backup.options.workers, 0); /* absent: 1 */
    backup_args_done(&backup);
    line_done(&l);
    l = line_of("p1 --name new --workers 3");
    struct restore_args args;
    assert_true(restore_parse(l.count, l.words, FLAGS, &args));
    assert_int_equal(args.options.workers, 3);
    restore_args_done(&args);
    line_done(&l);
}

static void others(void **state)
{
    (void)state;
    struct line l = line_of("web1 --zone z --timeout 5m");
    struct list_args list;
    assert_true(list_parse(l.count, l.words, FLAGS, &list));
    assert_string_equal(list.message.vm, "web1");
    assert_string_equal(list.message.zone, "z");
    assert_int_equal(list.query.timeout_s, 300);
    line_done(&l);

    l = line_of("--search name=a* --zone z");
    struct inventory_args inventory;
    assert_true(inventory_parse(l.count, l.words, FLAGS, &inventory));
    assert_string_equal(inventory.message.search, "name=a*");
    line_done(&l);

    l = line_of(UPPER " --watch --timeout 7s");
    struct status_args status;
    assert_true(status_parse(l.count, l.words, FLAGS, &status));
    assert_string_equal(status.message.request, UUID);
    assert_true(status.watch);
    assert_int_equal(status.query.timeout_s, 7);
    line_done(&l);

    l = line_of("--limit 1000");
    assert_true(status_parse(l.count, l.words, FLAGS, &status));
    assert_int_equal(status.message.limit, 1000);
    assert_null(status.message.request);
    line_done(&l);

    l = line_of("--zone z --dry-run --timeout 9s");
    struct sweep_args sweep;
    assert_true(sweep_parse(l.count, l.words, FLAGS, &sweep));
    assert_string_equal(sweep.message.zone, "z");
    assert_true(sweep.message.dry_run);
    assert_int_equal(sweep.query.timeout_s, 9);
    assert_encodes(WIRE_SWEEP, &sweep.message);
    line_done(&l);

    l = line_of("--task " UPPER);
    struct cancel_args cancel;
    assert_true(cancel_parse(l.count, l.words, FLAGS, &cancel));
    assert_string_equal(cancel.message.task, UUID);
    assert_null(cancel.message.request);
    assert_encodes(WIRE_CANCEL, &cancel.message);
    line_done(&l);
}

enum verb { BACKUP, RESTORE, LIST, STATUS, CANCEL, INVENTORY, PLAN };

static bool parse(enum verb verb, struct line *l)
{
    union {
        struct restore_args restore;
        struct list_args list;
        struct status_args status;
        struct cancel_args cancel;
        struct inventory_args inventory;
    } args;
    struct backup_args backup_args;
    struct plan_args plan_args;
    bool ok = false;
    switch (verb) {
    case BACKUP:
        ok = backup_parse(l->count, l->words, FLAGS, &backup_args);
        backup_args_done(&backup_args);
        return ok;
    case PLAN:
        ok = plan_parse(l->count, l->words, FLAGS, &plan_args);
        plan_args_done(&plan_args);
        return ok;
    case RESTORE:
        return restore_parse(l->count, l->words, FLAGS, &args.restore);
    case LIST:
        return list_parse(l->count, l->words, FLAGS, &args.list);
    case STATUS:
        return status_parse(l->count, l->words, FLAGS, &args.status);
    case CANCEL:
        return cancel_parse(l->count, l->words, FLAGS, &args.cancel);
    case INVENTORY:
        return inventory_parse(l->count, l->words, FLAGS, &args.inventory);
    }
    return ok;
}

static void mistakes_are_refused(void **state)
{
    (void)state;
    static const struct {
        enum verb verb;
        const char *text;
    } cases[] = {
        {BACKUP, ""},
        {BACKUP, "--exclude a"},
        {BACKUP, "--zone z"},
        {BACKUP, "a --quiesce maybe"},
        {BACKUP, "a --unsupported-disks ignore"},
        {BACKUP, "a --path tape"},
        {BACKUP, "a --workers 0"},
        {BACKUP, "a --workers 17"},
        {BACKUP, "a --workers two"},
        {BACKUP, "a --workers 2x"},
        {BACKUP, "a --deadline soon"},
        {BACKUP, "a --timeout 0"},
        {BACKUP, "a --zone UPPER"},
        {BACKUP, "--id web1"},
        {BACKUP, "a --zone ../x"},
        {BACKUP, "a --progress often"},
        {BACKUP, "a --progress json"},
        {CANCEL, UUID " --progress=json"},
        {BACKUP, "a --nonsense"},
        {BACKUP, "a --broker-port 0"},
        {BACKUP, "a --broker-port 65536"},
        {BACKUP, "a --broker-port 12x"},
        {BACKUP, "--tag"},
        {RESTORE, "p1"},
        {RESTORE, "--name n"},
        {RESTORE, "p1 --vm v --name n"},
        {RESTORE, "p1 p2 --name n"},
        {RESTORE, "p1 --name n --nics all"},
        {RESTORE, "p1 --name n --path cbt"},
        {RESTORE, "p1 --name n --workers 99999999999999999999"},
        {RESTORE, "p1 --name n --vm-config yaml"},
        {LIST, "a b"},
        {LIST, "--zone A"},
        {STATUS, "not-a-uuid"},
        {STATUS, "--watch"},
        {STATUS, UUID " " UUID},
        {STATUS, "--limit 0"},
        {STATUS, "--limit 1001"},
        {STATUS, "--limit many"},
        {CANCEL, ""},
        {CANCEL, "web1"},
        {CANCEL, UUID " --task " UUID},
        {CANCEL, UUID " " UUID},
        {CANCEL, "--task x"},
        {INVENTORY, "a"},
        {PLAN, ""},
        {PLAN, "--zone z"},
        {PLAN, "a --path fastest"},
        {PLAN, "a --unsupported-disks keep"},
        {PLAN, "a --id b"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct line l = line_of(cases[i].text);
        if (parse(cases[i].verb, &l))
            fail_msg("accepted: '%s'", cases[i].text);
        line_done(&l);
    }
}

static void too_much_is_refused(void **state)
{
    (void)state;
    char *longest = xmalloc(WIRE_TEXT_MAX + 2);
    memset(longest, 'x', WIRE_TEXT_MAX + 1);
    longest[WIRE_TEXT_MAX + 1] = '\0';
    char name[] = "oxbow backup", option[] = "--search", all[] = "--all", empty[] = "";
    char *too_long[] = {name, all, option, longest, NULL};
    struct backup_args args;
    assert_false(backup_parse(4, too_long, FLAGS, &args));
    backup_args_done(&args);
    longest[WIRE_TEXT_MAX] = '\0';
    assert_true(backup_parse(4, too_long, FLAGS, &args));
    backup_args_done(&args);
    char *no_name[] = {name, empty, NULL};
    assert_false(backup_parse(2, no_name, FLAGS, &args));
    backup_args_done(&args);

    int count = WIRE_SELECT_MAX + 2;
    char **many = xcalloc((size_t)count + 1, sizeof *many);
    char vm[] = "vm";
    many[0] = name;
    for (int i = 1; i < count; i++)
        many[i] = vm;
    assert_false(backup_parse(count, many, FLAGS, &args));
    backup_args_done(&args);
    assert_true(backup_parse(count - 1, many, FLAGS, &args));
    backup_args_done(&args);
    free(many);
    free(longest);
}

int main(void)
{
    /* What argp says of the mistakes is not what is tested. */
    if (!freopen("/dev/null", "w", stderr))
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(backup),
        cmocka_unit_test(plan),
        cmocka_unit_test(backup_defaults),
        cmocka_unit_test(export),
        cmocka_unit_test(connection_options),
        cmocka_unit_test(restore),
        cmocka_unit_test(workers),
        cmocka_unit_test(others),
        cmocka_unit_test(mistakes_are_refused),
        cmocka_unit_test(too_much_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

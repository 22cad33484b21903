/* SPDX-License-Identifier: Apache-2.0 */
/* oxbow-worker: see docs/man/oxbow-worker.8.scd. */
#include <argp.h>
#include <stdio.h>
#include <string.h>

#include "proto/base/log.h"
#include "worker/broker.h"
#include "worker/conf.h"
#include "worker/copy/rate.h"
#include "worker/doctor/doctor.h"
#include "worker/once.h"
#include "worker/ovirt/engine.h"
#include "worker/repo/repo.h"
#include "worker/runner/runner.h"
#include "worker/store/store.h"
#include "worker/task/task.h"

const char *argp_program_version = "oxbow-worker " OXBOW_VERSION;

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };
enum { OPT_CHECK = 0x100, OPT_DUMP, OPT_ONCE, OPT_LOG_LEVEL, OPT_LOG_FORMAT, OPT_STEPS };

struct main_args {
    const char *config, *once, *log_level, *log_format;
    bool check, dump, steps;
};

static const struct argp_option option_table[] = {
    {"config", 'c', "FILE", 0, "Configuration; default /etc/oxbow/worker.yaml", 0},
    {"check-config", OPT_CHECK, NULL, 0, "Check the configuration and exit", 0},
    {"dump-config", OPT_DUMP, NULL, 0, "Print the configuration with its defaults and exit", 0},
    {"once", OPT_ONCE, "TASK.json", 0, "Run one task, without broker, and exit", 0},
    {"steps", OPT_STEPS, NULL, 0, "Print the steps of every kind of task as JSON Lines and exit",
     0},
    {"log-level", OPT_LOG_LEVEL, "LEVEL", 0, "error, warn, info or debug", 0},
    {"log-format", OPT_LOG_FORMAT, "FORMAT", 0, "logfmt or json", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct main_args *a = state->input;
    switch (key) {
    case 'c':
        a->config = arg;
        return 0;
    case OPT_CHECK:
        a->check = true;
        return 0;
    case OPT_DUMP:
        a->dump = true;
        return 0;
    case OPT_ONCE:
        a->once = arg;
        return 0;
    case OPT_LOG_LEVEL:
        a->log_level = arg;
        return 0;
    case OPT_STEPS:
        a->steps = true;
        return 0;
    case OPT_LOG_FORMAT:
        a->log_format = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    .options = option_table,
    .parser = parse,
    .args_doc = "\nrepo VERB ...\ndoctor [OPTION...]",
    .doc = "Takes backup and restore tasks from the broker and runs them: snapshot, attach, copy, "
           "merge.\vOne worker runs in each proxy VM. 'oxbow-worker repo' works on a repository "
           "alone, 'oxbow-worker doctor' checks what is around this worker.",
};

static bool set_log(const struct main_args *a, const struct worker_conf *c, struct err *err)
{
    enum log_level level;
    enum log_format format;
    if (!log_level_parse(a->log_level ? a->log_level : c->log.level, &level))
        return err_set(err, ERR_BAD_CONFIG, 0, "--log-level: '%s' is no level", a->log_level);
    if (!log_format_parse(a->log_format ? a->log_format : c->log.format, &format))
        return err_set(err, ERR_BAD_CONFIG, 0, "--log-format: '%s' is no format", a->log_format);
    log_set_level(level);
    log_set_format(format);
    return true;
}

static struct engine *make_engine(const struct worker_conf *c, struct err *err)
{
    struct engine_conf conf = {.url = c->engine.url,
                               .user = c->engine.user,
                               .password_file = c->engine.password_file,
                               .ca_file = c->engine.ca_file,
                               .insecure = c->engine.insecure_skip_verify,
                               .connect_timeout_ms = c->engine.connect_timeout_s * 1000,
                               .request_timeout_ms = c->engine.request_timeout_s * 1000,
                               .busy_min_ms = c->engine.retry_ms,
                               .poll_min_ms = c->engine.poll_ms,
                               .busy_budget_ms = c->wait.engine_s * 1000};
    return engine_new(&conf, err);
}

static struct step_settings settings_of(const struct worker_conf *c)
{
    return (struct step_settings){
        .proxy_vm = c->proxy_vm,
        .zone = c->zone,
        .proxy_tag = c->proxy_tag,
        .device_dir = c->device_dir,
        .device_wait_s = c->wait.device_s,
        .quiesce_limit_s = c->quiesce_limit_s,
        .reserve_store_bytes = (uint64_t)c->reserve.repository_mib << 20,
        .reserve_domain_bytes = (uint64_t)c->reserve.storage_domain_mib << 20,
        .space_watch_s = c->reserve.watch_s,
        .disks_at_once = (int)c->copy.disks_at_once,
        .copy_threads = (int)c->copy.threads_per_disk,
        .map_min_bytes = (uint64_t)c->copy.map_min_mib << 20,
        .part_min_bytes = (uint64_t)c->parts.min_mib << 20,
        .part_align_bytes = (uint64_t)c->parts.align_mib << 20,
        .compare_checksums = c->copy.compare_checksums,
        .snapshot_wait_s = c->wait.snapshot_s,
        .merge_wait_s = c->wait.merge_s,
        .export_wait_s = c->wait.export_s,
        .vm_wait_s = c->wait.vm_s,
    };
}

static struct rate_limits *make_limits(const struct worker_conf *c, struct err *err)
{
    SCOPED_FREE struct rate_rule *rules = xcalloc(c->limits_count + 1, sizeof *rules);
    for (unsigned i = 0; i < c->limits_count; i++)
        rules[i] = (struct rate_rule){.storage_domain = c->limits[i].storage_domain,
                                      .bytes_per_s = (uint64_t)c->limits[i].mib_per_s << 20,
                                      .hours = c->limits[i].hours};
    return rate_limits_new(rules, c->limits_count, clock_system(), err);
}

static bool serve(const struct worker_env *env, const struct worker_conf *c, const char *path,
                  struct err *err)
{
    broker_block_signals();
    SCOPED(runner)
    struct runner *runner =
        runner_new(&(struct runner_opts){.env = env, .outage_ms = c->lease.outage_s * 1000});
    return broker_run(&(struct broker_opts){.conf = c,
                                            .conf_path = path,
                                            .orders = runner_orders(runner),
                                            .notes = runner_notes(runner)},
                      err);
}

/* What the configuration says: one task, or serve the broker. Returns the exit code. */
static int work(const struct main_args *a, const struct worker_conf *c, struct err *err)
{
    SCOPED(engine) struct engine *engine = make_engine(c, err);
    struct store_opts opts = {.key_file = c->repository.key_file,
                              .passphrase_file = c->repository.passphrase_file,
                              .pack_bytes = (uint64_t)c->repository.pack_mib << 20};
    store_opts_from_environment(&opts);
    SCOPED(store) struct store *store = engine ? store_open(c->repository.path, &opts, err) : NULL;
    if (!store) {
        err_wrap(err, "%s", a->config);
        return EXIT_FAILED;
    }
    SCOPED(rate_limits) struct rate_limits *limits = make_limits(c, err);
    if (!limits)
        return EXIT_FAILED;
    struct worker_env env = {.name = c->name,
                             .settings = settings_of(c),
                             .engine = engine,
                             .store = store,
                             .clock = clock_system()};
    env.settings.limits = limits;
    if (a->once)
        return once_run(&env, a->once);
    return serve(&env, c, a->config, err) ? EXIT_DONE : EXIT_FAILED;
}

/* The names are slugs of ours: nothing to escape. */
static void print_steps(void)
{
    size_t count;
    const struct task_kind *const *kinds = task_kinds(&count);
    for (size_t k = 0; k < count; k++) {
        for (size_t i = 0; i < kinds[k]->step_count; i++) {
            const struct step *s = &kinds[k]->steps[i];
            printf(
                "{\"kind\": \"%s\", \"step\": \"%s\", \"tidy\": %s, \"undo\": %s, \"probe\": %s}\n",
                kinds[k]->name, s->name, s->flags & STEP_TIDY ? "true" : "false",
                s->undo ? "true" : "false", s->probe ? "true" : "false");
        }
    }
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "repo") == 0)
        return repo_main(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "doctor") == 0)
        return doctor_main(argc - 1, argv + 1);
    argp_err_exit_status = EXIT_USAGE;
    struct main_args args = {.config = "/etc/oxbow/worker.yaml"};
    if (argp_parse(&argp, argc, argv, 0, NULL, &args) != 0)
        return EXIT_USAGE;
    if (args.steps) {
        print_steps();
        return EXIT_DONE;
    }
    log_set_thread("io");
    struct err err = ERR_INIT;
    SCOPED(worker_conf)
    struct worker_conf *conf = worker_conf_load(args.config, args.once == NULL, &err);
    int code = EXIT_USAGE;
    if (conf && set_log(&args, conf, &err)) {
        if (args.dump)
            code = worker_conf_dump(conf, &err) ? EXIT_DONE : EXIT_FAILED;
        else if (args.check)
            code = EXIT_DONE;
        else
            code = work(&args, conf, &err);
    }
    if (err_is_set(&err))
        log_err(LOG_LEVEL_ERROR, "worker_failed", &err);
    return code;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* oxbow-coordinator: reads its configuration, opens the ledger, runs until it is told to stop. */
#include <argp.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/broker.h"

#define CONFIG_DEFAULT "/etc/oxbow/coordinator.yaml"

/* docs/man/oxbow-coordinator.8.scd lists these. */
enum exit_code {
    EXIT_OK = 0,
    EXIT_OTHER = 1,
    EXIT_USAGE = 2,
    EXIT_CONFIG = 3,
    EXIT_LEDGER_HELD = 4,
    EXIT_LEDGER_DAMAGED = 5,
    EXIT_LEDGER_IO = 6,
};

enum { OPTION_CHECK = 256, OPTION_DUMP, OPTION_LEVEL, OPTION_FORMAT };

struct args {
    const char *config, *level, *format;
    bool check, dump;
};

static const struct argp_option options[] = {
    {"config", 'c', "FILE", 0, "Configuration file (default " CONFIG_DEFAULT ")", 0},
    {"check-config", OPTION_CHECK, NULL, 0, "Check the configuration and exit", 0},
    {"dump-config", OPTION_DUMP, NULL, 0, "Print the configuration with all defaults and exit", 0},
    {"log-level", OPTION_LEVEL, "LEVEL", 0, "error, warn, info or debug; overrides the file", 0},
    {"log-format", OPTION_FORMAT, "FORMAT", 0, "logfmt or json; overrides the file", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct args *args = state->input;
    enum log_level level;
    enum log_format format;
    switch (key) {
    case 'c':
        args->config = arg;
        return 0;
    case OPTION_CHECK:
        args->check = true;
        return 0;
    case OPTION_DUMP:
        args->dump = true;
        return 0;
    case OPTION_LEVEL:
        args->level = arg;
        if (!log_level_parse(arg, &level))
            argp_error(state, "--log-level: '%s' is none of error, warn, info, debug", arg);
        return 0;
    case OPTION_FORMAT:
        args->format = arg;
        if (!log_format_parse(arg, &format))
            argp_error(state, "--log-format: '%s' is none of logfmt, json", arg);
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument '%s'", arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void set_up_log(const struct coordinator_conf *conf, const struct args *args)
{
    enum log_level level = LOG_LEVEL_INFO;
    enum log_format format = LOG_FORMAT_LOGFMT;
    (void)log_level_parse(args->level ? args->level : conf->log.level, &level);
    (void)log_format_parse(args->format ? args->format : conf->log.format, &format);
    log_set_level(level);
    log_set_format(format);
}

static int exit_code_of(const struct err *err)
{
    switch ((int)err->code) {
    case ERR_BAD_CONFIG:
        return EXIT_CONFIG;
    case ERR_CONFLICT:
        return EXIT_LEDGER_HELD;
    case ERR_STORE_CORRUPT:
    case ERR_UNSUPPORTED_VERSION:
        return EXIT_LEDGER_DAMAGED;
    case ERR_NO_SPACE:
    case ERR_IO:
    case ERR_PERMISSION:
    case ERR_NOT_FOUND:
        return EXIT_LEDGER_IO;
    default:
        return EXIT_OTHER;
    }
}

static bool run(const struct coordinator_conf *conf, const char *origin, struct err *err)
{
    log_info("starting", LOG_STR("version", OXBOW_VERSION), LOG_STR("ledger", conf->ledger),
             LOG_U64("zones", conf->zones_count));
    SCOPED(desk) struct desk *desk = desk_new(conf, clock_system(), err);
    return desk && broker_run(desk, conf, origin, clock_system(), err);
}

int main(int argc, char **argv)
{
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .doc = "Accepts backup and restore requests from the broker, splits them into tasks for "
               "the workers, and keeps the ledger.",
    };
    argp_program_version = "oxbow-coordinator " OXBOW_VERSION;
    argp_err_exit_status = EXIT_USAGE;
    struct args args = {.config = CONFIG_DEFAULT};
    argp_parse(&argp, argc, argv, 0, NULL, &args);

    struct err err = ERR_INIT;
    SCOPED(coordinator_conf)
    struct coordinator_conf *conf = coordinator_conf_load(args.config, &err);
    bool ok = conf != NULL;
    if (ok && args.dump)
        ok = coordinator_conf_dump(conf, &err);
    if (ok && args.check && !args.dump)
        printf("%s: good\n", args.config);
    if (ok && !args.check && !args.dump) {
        set_up_log(conf, &args);
        ok = run(conf, args.config, &err);
    }
    if (ok)
        return EXIT_OK;
    log_err(LOG_LEVEL_ERROR, "failed", &err);
    return exit_code_of(&err);
}

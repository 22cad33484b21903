/* SPDX-License-Identifier: Apache-2.0 */
/* oxbow-sandbox: a cluster in a box (README.md). */
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/file.h"
#include "proto/base/log.h"
#include "tests/sandbox/engine/server.h"
#include "tests/sandbox/engine/spec.h"

const char *argp_program_version = "oxbow-sandbox " OXBOW_VERSION;

enum { KEY_READY_FD = 1000, KEY_READY_FILE, KEY_WIPE, KEY_FAST, KEY_MAKE_SPEC, KEY_LOG_LEVEL };
enum { PORT_MAX = 65535, FD_MAX = 1023, VMS_MAX = 5000 };

struct args {
    struct server_opts server;
    const char *ready_file;
    int ready_fd;
    unsigned make_spec;
};

static const struct argp_option options[] = {
    {"spec", 's', "FILE", 0, "The cluster to play (JSON; README.md)", 0},
    {"dir", 'd', "DIR", 0, "Where everything lives; made if missing, must be empty", 0},
    {"port", 'p', "PORT", 0, "Port of the API on 127.0.0.1; 0 lets the kernel choose (default)", 0},
    {"faults", 'f', "FILE", 0, "Fault rules to begin with (JSON; README.md)", 0},
    {"keep", 'k', "DIR", 0,
     "Keep a raw copy of every disk at the instant of each snapshot: DIR/VM/SNAPSHOT/DISK.raw", 0},
    {"engine-version", 'e', "VERSION", 0, "Play that engine, e.g. 4.3.10, 4.4.10, 4.5.5", 0},
    {"linux-guest", 'l', "DIR", 0, "vmlinuz and initrd of Linux guests (guest/linux/make-guest)",
     0},
    {"fast", KEY_FAST, NULL, 0, "Short states, for tests, whatever the specification says", 0},
    {"wipe", KEY_WIPE, NULL, 0, "Clean up in DIR what a killed sandbox left", 0},
    {"ready-file", KEY_READY_FILE, "FILE", 0, "Write this file when all is up", 0},
    {"ready-fd", KEY_READY_FD, "N", 0, "Write READY and a newline to this descriptor then", 0},
    {"make-spec", KEY_MAKE_SPEC, "N", 0, "Print a specification with N VMs and three proxies", 0},
    {"log-level", KEY_LOG_LEVEL, "LEVEL", 0, "error, warn, info or debug", 0},
    {0},
};

static unsigned parse_number(struct argp_state *state, const char *text, unsigned max)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (*end != '\0' || end == text || errno != 0 || value > max)
        argp_error(state, "'%s' is not a number from 0 to %u", text, max);
    return (unsigned)value;
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct args *args = state->input;
    enum log_level level;
    switch (key) {
    case 's':
        args->server.spec_path = text;
        break;
    case 'd':
        args->server.dir = text;
        break;
    case 'p':
        args->server.port = (uint16_t)parse_number(state, text, PORT_MAX);
        break;
    case 'f':
        args->server.faults_path = text;
        break;
    case 'k':
        args->server.keep_dir = text;
        break;
    case 'e':
        args->server.version = text;
        break;
    case 'l':
        args->server.linux_dir = text;
        break;
    case KEY_FAST:
        args->server.fast = true;
        break;
    case KEY_WIPE:
        args->server.wipe = true;
        break;
    case KEY_READY_FILE:
        args->ready_file = text;
        break;
    case KEY_READY_FD:
        args->ready_fd = (int)parse_number(state, text, FD_MAX);
        break;
    case KEY_MAKE_SPEC:
        args->make_spec = parse_number(state, text, VMS_MAX);
        break;
    case KEY_LOG_LEVEL:
        if (!log_level_parse(text, &level))
            argp_error(state, "unknown log level '%s'", text);
        log_set_level(level);
        break;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument '%s'", text);
        break;
    case ARGP_KEY_END:
        if (args->make_spec == 0 && (!args->server.spec_path || !args->server.dir))
            argp_error(state, "--spec and --dir are needed");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static bool say_ready(const struct args *args, struct err *err)
{
    static const char text[] = "READY\n";
    if (args->ready_fd >= 0 && !file_write_full(args->ready_fd, text, sizeof text - 1, err))
        return err_wrap(err, "--ready-fd");
    return !args->ready_file ||
           file_write_atomic(AT_FDCWD, args->ready_file, text, sizeof text - 1, 0644, err);
}

static int run(const struct args *args)
{
    struct err err = ERR_INIT;
    sigset_t ends;
    (void)sigemptyset(&ends);
    (void)sigaddset(&ends, SIGTERM);
    (void)sigaddset(&ends, SIGINT);
    (void)pthread_sigmask(SIG_BLOCK, &ends, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    struct engine *e = server_open(&args->server, &err);
    bool ok = e && say_ready(args, &err);
    if (ok) {
        log_info("sandbox_ready", LOG_U64("port", e->port), LOG_STR("dir", e->opts.dir));
        int signo;
        (void)sigwait(&ends, &signo);
        log_info("sandbox_stopping", LOG_I64("signal", signo));
    } else {
        log_err(LOG_LEVEL_ERROR, "sandbox_failed", &err);
    }
    server_close(e);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    static const struct argp argp = {
        options, parse,
        NULL,    "Plays an oVirt engine and the hosts below it on this machine, with real disks.",
        NULL,    NULL,
        NULL};
    struct args args = {.ready_fd = -1};
    (void)argp_parse(&argp, argc, argv, 0, NULL, &args);
    if (args.make_spec > 0) {
        SCOPED_FREE char *text = spec_sample(args.make_spec);
        (void)puts(text);
        return EXIT_SUCCESS;
    }
    return run(&args);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* sandbox-judge-linux: are these two raw images one instant of the sandbox's Linux guest? */
#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include <jansson.h>

#include "tests/sandbox/guest/linux/judge_linux.h"

enum { EXIT_GOOD = 0, EXIT_BAD = 1, EXIT_TROUBLE = 2 };

struct args {
    const char *images[2];
    unsigned image_count;
    uint64_t acked;
    bool frozen;
};

static const struct argp_option options[] = {
    {"acked", 'a', "N", 0, "Last record acknowledged before the images were taken", 0},
    {"frozen", 'f', NULL, 0, "The guest was frozen: both file systems must be clean", 0},
    {0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct args *a = state->input;
    char *end;
    switch (key) {
    case 'a':
        errno = 0;
        a->acked = strtoull(arg, &end, 10);
        if (errno != 0 || *end != '\0' || arg[0] < '0' || arg[0] > '9')
            argp_error(state, "'%s' is not a number", arg);
        return 0;
    case 'f':
        a->frozen = true;
        return 0;
    case ARGP_KEY_ARG:
        if (a->image_count == 2)
            argp_usage(state);
        a->images[a->image_count++] = arg;
        return 0;
    case ARGP_KEY_END:
        if (a->image_count != 2)
            argp_usage(state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    options,
    parse_option,
    "DISK_A DISK_B",
    "Judge whether raw images of the Linux guest's two disks are one instant of its life.\v"
    "Prints one JSON object. Exit status: 0 one instant, 1 not, 2 the judging failed.",
    NULL,
    NULL,
    NULL};

int main(int argc, char **argv)
{
    struct args args = {0};
    argp_err_exit_status = EXIT_TROUBLE;
    if (argp_parse(&parser, argc, argv, 0, NULL, &args) != 0)
        return EXIT_TROUBLE;
    struct err err = ERR_INIT;
    struct linux_verdict v;
    if (!judge_linux(args.images[0], args.images[1], args.acked, args.frozen, &v, &err)) {
        (void)fprintf(stderr, "sandbox-judge-linux: %s\n", err.message);
        return EXIT_TROUBLE;
    }
    json_t *json = json_pack("{s:b, s:b, s:I, s:I, s:s*}", "good", (int)v.good, "clean",
                             (int)v.clean, "last_a", (json_int_t)v.last_a, "last_b",
                             (json_int_t)v.last_b, "why", v.good ? NULL : v.why);
    json_dumpf(json, stdout, JSON_COMPACT);
    (void)putchar('\n');
    json_decref(json);
    return v.good ? EXIT_GOOD : EXIT_BAD;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* sandbox-judge: is this set of raw images one instant of a sandbox guest? */
#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include <jansson.h>

#include "proto/base/alloc.h"
#include "tests/sandbox/guest/judge.h"

enum { EXIT_GOOD = 0, EXIT_BAD = 1, EXIT_TROUBLE = 2 };

struct args {
    const char *spec;
    const char *disks[PATTERN_DISKS_MAX]; /* "ID=PATH" */
    size_t disk_count;
    uint64_t after, before;
};

static const struct argp_option options[] = {
    {"spec", 's', "FILE", 0, "What the guest writes (the sandbox keeps it beside the VM)", 0},
    {"disk", 'd', "ID=PATH", 0, "A raw image of a disk; a subset of the disks will do", 0},
    {"after", 'a', "N", 0, "Number acknowledged before the image was taken", 0},
    {"before", 'b', "N", 0, "Number issued when the image had been taken", 0},
    {0},
};

static uint64_t parse_number(const char *text, struct argp_state *state)
{
    char *end;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (errno != 0 || *end != '\0' || text[0] == '-' || text[0] == '\0')
        argp_error(state, "'%s' is not a number", text);
    return value;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct args *a = state->input;
    switch (key) {
    case 's':
        a->spec = arg;
        return 0;
    case 'd':
        if (a->disk_count == PATTERN_DISKS_MAX || !strchr(arg, '='))
            argp_error(state, "--disk takes ID=PATH, at most %d times", PATTERN_DISKS_MAX);
        a->disks[a->disk_count++] = arg;
        return 0;
    case 'a':
        a->after = parse_number(arg, state);
        return 0;
    case 'b':
        a->before = parse_number(arg, state);
        return 0;
    case ARGP_KEY_END:
        if (!a->spec || a->disk_count == 0)
            argp_error(state, "--spec and at least one --disk are needed");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp parser = {
    options,
    parse_option,
    NULL,
    "Judge whether raw images of a sandbox guest's disks are exactly one instant of its life.\v"
    "Prints one JSON object. Exit status: 0 one instant (within the bracket), 1 not, 2 the judging "
    "failed.",
    NULL,
    NULL,
    NULL};

static bool place_images(const struct args *args, const struct pattern_spec *spec,
                         struct judge_opts *opts, struct err *err)
{
    for (size_t i = 0; i < args->disk_count; i++) {
        const char *equals = strchr(args->disks[i], '=');
        SCOPED_FREE char *id = xstrndup(args->disks[i], (size_t)(equals - args->disks[i]));
        size_t disk = pattern_find_disk(spec, id);
        if (disk == spec->disk_count)
            return err_set(err, ERR_NOT_FOUND, 0, "the guest has no disk '%s'", id);
        if (opts->images[disk])
            return err_set(err, ERR_BAD_ARGUMENT, 0, "disk '%s' is given twice", id);
        opts->images[disk] = equals + 1;
    }
    return true;
}

static void print_verdict(const struct pattern_spec *spec, const struct judge_verdict *v)
{
    json_t *json =
        v->good ? json_pack("{s:b, s:s, s:I, s:I, s:I}", "good", 1, "vm", spec->vm, "s",
                            (json_int_t)v->s, "s_min", (json_int_t)v->s_min, "s_max",
                            (json_int_t)v->s_max)
                : json_pack("{s:b, s:s, s:I, s:I, s:I, s:s}", "good", 0, "vm", spec->vm, "highest",
                            (json_int_t)v->highest, "nearest", (json_int_t)v->nearest,
                            "wrong_blocks", (json_int_t)v->wrong_blocks, "why", v->why);
    json_dumpf(json, stdout, JSON_COMPACT);
    (void)putchar('\n');
    json_decref(json);
}

int main(int argc, char **argv)
{
    struct args args = {.before = UINT64_MAX};
    argp_err_exit_status = EXIT_TROUBLE;
    if (argp_parse(&parser, argc, argv, 0, NULL, &args) != 0)
        return EXIT_TROUBLE;
    struct err err = ERR_INIT;
    struct pattern_spec spec;
    struct judge_opts opts = {.spec = &spec, .after = args.after, .before = args.before};
    struct judge_verdict verdict;
    if (!pattern_spec_load(args.spec, &spec, &err) || !place_images(&args, &spec, &opts, &err) ||
        !judge_images(&opts, &verdict, &err)) {
        (void)fprintf(stderr, "sandbox-judge: %s\n", err.message);
        return EXIT_TROUBLE;
    }
    print_verdict(&spec, &verdict);
    return verdict.good ? EXIT_GOOD : EXIT_BAD;
}

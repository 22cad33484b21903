/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "proto/base/log.h"
#include "worker/repo/repo.h"
#include "worker/repo/verb.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };
enum { PROGRAM_BYTES = 64 };

static const struct repo_verb *const verbs[] = {
    &repo_key_make, &repo_key_list,  &repo_key_add, &repo_key_remove, &repo_init,
    &repo_list,     &repo_show,      &repo_export,  &repo_import,     &repo_verify,
    &repo_ls,       &repo_cp,        &repo_mount,   &repo_prune,      &repo_forget,
    &repo_protect,  &repo_unprotect, &repo_gc,      &repo_scrub,
};

static const struct repo_verb *find_verb(const char *name)
{
    for (size_t i = 0; name && i < ARRAY_LEN(verbs); i++) {
        if (strcmp(verbs[i]->name, name) == 0)
            return verbs[i];
    }
    return NULL;
}

bool repo_say_json(json_t *json, struct err *err)
{
    bool ok = json && json_dumpf(json, stdout, JSON_INDENT(2) | JSON_SORT_KEYS) == 0 &&
              putchar('\n') != EOF && fflush(stdout) == 0;
    json_decref(json);
    return ok || err_set(err, ERR_IO, 0, "write to standard output");
}

const char *repo_only_disk(const struct store_point *point, struct err *err)
{
    size_t n = store_point_disk_count(point);
    if (n == 1)
        return store_point_disk(point, 0)->id;
    err_set(err, ERR_BAD_ARGUMENT, 0, "point %s has %zu disks: say which one",
            store_point_info(point)->id, n);
    return NULL;
}

/* ---- the key of an encrypted repository: options of every verb, or the environment. Never the
 * secret itself */

enum { OPT_KEY_FILE = 0x100, OPT_PASSPHRASE_FILE };

static const struct argp_option key_options[] = {
    {"key-file", OPT_KEY_FILE, "FILE", 0, "The key (default: $OXBOW_KEY_FILE)", 0},
    {"passphrase-file", OPT_PASSPHRASE_FILE, "FILE", 0,
     "Or a file whose first line is the passphrase (default: $OXBOW_PASSPHRASE_FILE)", 0},
    {0},
};

static error_t parse_key(int key, char *arg, struct argp_state *state)
{
    struct repo_call *call = state->input;
    switch (key) {
    case OPT_KEY_FILE:
        call->store_opts.key_file = arg;
        return 0;
    case OPT_PASSPHRASE_FILE:
        call->store_opts.passphrase_file = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp key_argp = {.options = key_options, .parser = parse_key};
static const struct argp_child children[] = {{&key_argp, 0, "Encrypted repositories:", 1}, {0}};

/* Programs that a verb starts find the same key by the environment. */
static void settle_key(struct store_opts *opts)
{
    if (opts->key_file)
        (void)setenv(STORE_KEY_FILE_VARIABLE, opts->key_file, 1);
    if (opts->passphrase_file)
        (void)setenv(STORE_PASSPHRASE_FILE_VARIABLE, opts->passphrase_file, 1);
    store_opts_from_environment(opts);
}

/* ---- the command line of a verb */

struct parsing {
    const struct repo_verb *verb;
    struct repo_call *call;
};

static void missing_word(struct argp_state *state, const struct parsing *p)
{
    if (!p->call->path)
        argp_error(state, "PATH is missing");
    else
        argp_error(state, "%s is missing", p->verb->words);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct parsing *p = state->input;
    struct repo_call *call = p->call;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = call;
        return 0;
    case ARGP_KEY_ARG:
        if (!call->path)
            call->path = arg;
        else if (call->count < p->verb->words_max && call->count < REPO_WORDS_MAX)
            call->words[call->count++] = arg;
        else
            argp_error(state, "too many arguments");
        return 0;
    case ARGP_KEY_END:
        if (!call->path || call->count < p->verb->words_min)
            missing_word(state, p);
        return 0;
    default:
        return key >= REPO_OPT && p->verb->option ? p->verb->option(key, arg, state, call)
                                                  : ARGP_ERR_UNKNOWN;
    }
}

static bool run(const struct repo_verb *verb, struct repo_call *call, struct err *err)
{
    struct store_opts *opts = &call->store_opts;
    settle_key(opts);
    opts->keyless = verb->access == REPO_UPKEEP;
    if (verb->access != REPO_LEAVES)
        call->store = store_open(call->path, opts, err);
    bool ok = (call->store || verb->access == REPO_LEAVES) && verb->run(call, err);
    store_free(call->store);
    return ok;
}

static int run_verb(const struct repo_verb *verb, int argc, char **argv)
{
    char program[PROGRAM_BYTES], words[PROGRAM_BYTES];
    snprintf(program, sizeof program, "oxbow-worker repo %s", verb->name);
    snprintf(words, sizeof words, "PATH%s%s", verb->words ? " " : "",
             verb->words ? verb->words : "");
    argv[0] = program; /* what argp calls us in its messages */
    const struct argp argp = {.options = verb->options,
                              .parser = parse,
                              .args_doc = words,
                              .doc = verb->summary,
                              .children = children};
    SCOPED_FREE void *opts = xcalloc(1, verb->opts_bytes + 1);
    struct repo_call call = {.opts = opts};
    struct parsing parsing = {.verb = verb, .call = &call};
    argp_err_exit_status = EXIT_USAGE;
    if (argp_parse(&argp, argc, argv, 0, NULL, &parsing) != 0)
        return EXIT_USAGE;
    struct err err = ERR_INIT;
    if (run(verb, &call, &err))
        return EXIT_DONE;
    fprintf(stderr, "%s: %s\n", program, err.message);
    return err.code == ERR_BAD_ARGUMENT ? EXIT_USAGE : EXIT_FAILED;
}

/* ---- without a verb */

static void print_help(FILE *out)
{
    fputs("Usage: oxbow-worker repo VERB PATH [OPTION...] [ARGUMENT...]\n"
          "Works on a repository, without broker, coordinator or engine.\n\n",
          out);
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
        fprintf(out, "  %-10s %s\n", verbs[i]->name, verbs[i]->summary);
    fputs(
        "\nPOINT is the id of a restore point, or the beginning of one. Each verb takes --help.\n",
        out);
}

static int print_verbs(void)
{
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
        puts(verbs[i]->name);
    return EXIT_DONE;
}

int repo_main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : NULL;
    const struct repo_verb *verb = find_verb(name);
    if (verb)
        return run_verb(verb, argc - 1, argv + 1);
    if (name && strcmp(name, "--verbs") == 0)
        return print_verbs();
    if (name && (strcmp(name, "--help") == 0 || strcmp(name, "--usage") == 0)) {
        print_help(stdout);
        return EXIT_DONE;
    }
    if (name)
        fprintf(stderr, "oxbow-worker repo: there is no verb '%s'\n", name);
    else
        fputs("oxbow-worker repo: a verb is missing\n", stderr);
    print_help(stderr);
    return EXIT_USAGE;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* oxbow: the command line of Oxbow. Everything it does goes through the public message contract. */
#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/cli/verb.h"
#include "proto/base/alloc.h"
#include "proto/base/log.h"

static const struct cli_verb *const verbs[] = {
    &verb_backup, &verb_restore, &verb_list, &verb_status, &verb_cancel, &verb_inventory,
    &verb_prune,  &verb_verify,  &verb_plan, &verb_sweep,  &verb_doctor, &verb_export,
};

static const struct cli_verb *find_verb(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
        if (strcmp(verbs[i]->name, name) == 0)
            return verbs[i];
    return NULL;
}

static void print_help(FILE *out)
{
    fprintf(out, "Usage: oxbow VERB [OPTION...] [ARGUMENT...]\n"
                 "Parallel live backup and restore for oVirt clusters.\n\n");
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
        fprintf(out, "  %-10s %s\n", verbs[i]->name, verbs[i]->summary);
    fprintf(out, "  %-10s %s\n", "help", "show this, or the options of a verb: oxbow help VERB");
    fprintf(out, "  %-10s %s\n", "version", "print the version");
    fprintf(out, "\nEach verb takes --help. See oxbow(1) and oxbow.yaml(5).\n");
}

/* --- For the completion and the tests: what the tables hold ----------------------------------- */
/* One line an option: "--name", or "--name=ARG" as in --help ("--quiesce=auto|require|off"). */
static void print_long_options(const struct argp *argp)
{
    for (const struct argp_option *o = argp->options; o && (o->name || o->doc || o->key); o++)
        if (o->name && !(o->flags & OPTION_HIDDEN))
            printf("--%s%s%s\n", o->name, o->arg ? "=" : "", o->arg ? o->arg : "");
    for (const struct argp_child *c = argp->children; c && c->argp; c++)
        print_long_options(c->argp);
}

static int long_options(const char *verb_name)
{
    const struct cli_verb *verb = verb_name ? find_verb(verb_name) : NULL;
    if (!verb)
        return CLI_USAGE;
    print_long_options(verb->argp);
    printf("--help\n--usage\n");
    return CLI_SUCCEEDED;
}

static int list_verbs(void)
{
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
        printf("%s\n", verbs[i]->name);
    printf("help\nversion\n");
    return CLI_SUCCEEDED;
}

/* --- Verbs without a file of their own -------------------------------------------------------- */
static int unknown_verb(const char *name)
{
    fprintf(stderr, "oxbow: there is no verb '");
    for (const char *c = name; *c; c++)
        fputc(*c >= ' ' && *c <= '~' ? *c : '?', stderr);
    fprintf(stderr, "'; 'oxbow help' lists them\n");
    return CLI_USAGE;
}

static int run_verb(const struct cli_verb *verb, int argc, char **argv)
{
    char program[64];
    snprintf(program, sizeof program, "oxbow %s", verb->name);
    argv[0] = program; /* what argp calls us in its messages */
    return verb->run(argc, argv);
}

static int help(const char *verb_name)
{
    if (!verb_name) {
        print_help(stdout);
        return CLI_SUCCEEDED;
    }
    const struct cli_verb *verb = find_verb(verb_name);
    if (!verb)
        return unknown_verb(verb_name);
    char name[] = "oxbow", option[] = "--help";
    char *argv[] = {name, option, NULL};
    return run_verb(verb, 2, argv);
}

static int version(void)
{
    printf("oxbow %s\n", OXBOW_VERSION);
    return CLI_SUCCEEDED;
}

/* --- Options before the verb ------------------------------------------------------------------ */
static const struct argp_option *find_option(const struct argp *argp, const char *name, size_t len)
{
    for (const struct argp_option *o = argp->options; o && (o->name || o->doc || o->key); o++)
        if (o->name && strncmp(o->name, name, len) == 0 && o->name[len] == '\0')
            return o;
    for (const struct argp_child *c = argp->children; c && c->argp; c++) {
        const struct argp_option *o = find_option(c->argp, name, len);
        if (o)
            return o;
    }
    return NULL;
}

/* How many words the option takes: 1 or 2; 0 = no verb has it. */
static int words_of_option(const char *word)
{
    size_t len = strcspn(word, "=");
    if (strcmp(word, "-q") == 0)
        return 1;
    if (len <= 2 || strncmp(word, "--", 2) != 0)
        return 0;
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        const struct argp_option *o = find_option(verbs[i]->argp, word + 2, len - 2);
        if (o)
            return o->arg && !word[len] ? 2 : 1;
    }
    return 0;
}

/* "oxbow --config FILE list" is "oxbow list --config FILE": the verb moves to the front. */
static void move_verb_first(int argc, char **argv)
{
    int at = 1;
    while (at < argc) {
        int words = words_of_option(argv[at]);
        if (words == 0)
            break;
        at += words;
    }
    if (at <= 1 || at >= argc || !find_verb(argv[at]))
        return;
    char *verb = argv[at];
    memmove(argv + 2, argv + 1, (size_t)(at - 1) * sizeof *argv);
    argv[1] = verb;
}

static int dispatch(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return CLI_USAGE;
    }
    const char *word = argv[1];
    if (strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        return help(argc > 2 ? argv[2] : NULL);
    if (strcmp(word, "version") == 0 || strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0)
        return version();
    if (strcmp(word, "--long-options") == 0)
        return long_options(argc > 2 ? argv[2] : NULL);
    if (strcmp(word, "--verbs") == 0)
        return list_verbs();
    move_verb_first(argc, argv);
    const struct cli_verb *verb = find_verb(argv[1]);
    return verb ? run_verb(verb, argc - 1, argv + 1) : unknown_verb(word);
}

int main(int argc, char **argv)
{
    setlocale(LC_CTYPE, "");
    signal(SIGPIPE, SIG_IGN);
    log_set_level(LOG_LEVEL_ERROR);
    argp_err_exit_status = CLI_USAGE;
    int code = dispatch(argc, argv);
    if ((fflush(stdout) != 0 || ferror(stdout)) && errno != EPIPE && code == CLI_SUCCEEDED) {
        fprintf(stderr, "oxbow: standard output: %s\n", strerror(errno));
        code = CLI_FAILED;
    }
    return code;
}

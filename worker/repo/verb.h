/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a verb of `oxbow-worker repo` is: a row with a name, its options and a function. Each verb
 * lives in its own file; main.c holds the table of them, reads the command line, opens the
 * repository, and turns the error into the exit code.
 *
 * Threads: the program's first one.
 */
#pragma once

#include <argp.h>

#include "worker/store/store.h"

enum { REPO_WORDS_MAX = 64 };

/* What main.c does with PATH before a verb runs. */
enum repo_access {
    REPO_OPENS,  /* store_open(), with the key that the caller gives */
    REPO_UPKEEP, /* the same; but one that is encrypted may be opened without a key */
    REPO_LEAVES  /* nothing: call->store is NULL, and freed if the verb sets it */
};

/* A call of a verb: the command line, read. Everything is borrowed. */
struct repo_call {
    struct store *store;               /* open; see repo_access */
    const char *path;                  /* the first word */
    const char *words[REPO_WORDS_MAX]; /* those after PATH; NULL where not given */
    size_t count;                      /* of words */
    void *opts;                        /* the verb's own struct, zeroed before option() fills it */
    struct store_opts store_opts;      /* with the key, by option or environment */
};

struct repo_verb {
    const char *name;
    const char *summary;         /* one line, for the list of verbs */
    const char *words;           /* after PATH, as help shows them: "POINT [DISK]" */
    size_t words_min, words_max; /* without PATH */
    enum repo_access access;
    const struct argp_option *options; /* own options; NULL = none. Keys from REPO_OPT on */
    size_t opts_bytes;                 /* of the verb's own struct */
    /* One option into call->opts: 0, ARGP_ERR_UNKNOWN, or EINVAL after argp_error(). */
    error_t (*option)(int key, char *arg, struct argp_state *state, struct repo_call *call);
    /* False: `err` goes to standard error; bad-argument exits with 2, all else with 1. */
    bool (*run)(struct repo_call *call, struct err *err);
};

/* The first key of a verb's own options. */
enum { REPO_OPT = 0x200 };

extern const struct repo_verb repo_init, repo_list, repo_show, repo_export, repo_import,
    repo_verify, repo_ls, repo_cp, repo_mount, repo_prune, repo_forget, repo_protect,
    repo_unprotect, repo_gc, repo_scrub;
extern const struct repo_verb repo_key_make, repo_key_list, repo_key_add, repo_key_remove;

/* Print `json` to standard output with a line's end, and drop the reference. */
bool repo_say_json(json_t *json, struct err *err);

/* Make the key file, and say so, if there is nothing of that name. */
bool repo_key_file_ensure(const char *path, struct err *err);

/* The id of the point's only disk, borrowed. NULL, with bad-argument, when it has several. */
const char *repo_only_disk(const struct store_point *point, struct err *err);

/* SPDX-License-Identifier: Apache-2.0 */
/* The keys of an encrypted repository: four verbs. */
#include <stdio.h>
#include <string.h>

#include "worker/repo/verb.h"

enum { OPT_JSON = REPO_OPT, OPT_NEW_KEY_FILE, OPT_NEW_PASSPHRASE_FILE, OPT_LABEL, OPT_WRITE_ONLY };

/* ---- key-make */

static bool run_make(struct repo_call *call, struct err *err)
{
    if (!store_key_file_make(call->path, err))
        return false;
    printf("key file %s made; keep a copy of it where the repository is not\n", call->path);
    return true;
}

const struct repo_verb repo_key_make = {
    .name = "key-make",
    .summary = "make a key file, which opens no repository yet; PATH is the file",
    .access = REPO_LEAVES,
    .run = run_make,
};

/* ---- key-list */

struct list_opts {
    bool json;
};

static const struct argp_option list_options[] = {
    {"json", OPT_JSON, NULL, 0, "As JSON Lines", 0},
    {0},
};

static error_t list_option(int key, char *arg, struct argp_state *state, struct repo_call *call)
{
    (void)arg;
    (void)state;
    struct list_opts *o = call->opts;
    if (key != OPT_JSON)
        return ARGP_ERR_UNKNOWN;
    o->json = true;
    return 0;
}

static bool print_json(const struct store_key_info *k)
{
    json_t *line = json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:s*}", "id", k->id, "kind",
                             k->is_passphrase ? "passphrase" : "key-file", "grants",
                             k->grants_restore ? "restore" : "write", "created", k->created,
                             "label", k->label, "in_use", k->is_used, "damage", k->damage);
    bool ok = line && json_dumpf(line, stdout, JSON_COMPACT) == 0 && putchar('\n') != EOF;
    json_decref(line);
    return ok;
}

static void print_text(const struct store_key_info *k)
{
    if (k->damage)
        printf("%-16s  damaged: %s\n", k->id, k->damage);
    else
        printf("%-16s  %-10s  %-7s  %s%s%s%s\n", k->id,
               k->is_passphrase ? "passphrase" : "key-file",
               k->grants_restore ? "restore" : "write", k->created, k->label[0] ? "  " : "",
               k->label, k->is_used ? "  (in use)" : "");
}

static bool run_list(struct repo_call *call, struct err *err)
{
    const struct list_opts *o = call->opts;
    struct store_key_list list;
    if (!store_keys_list(call->store, &list, err))
        return false;
    bool ok = true;
    if (!o->json && !store_is_encrypted(call->store))
        puts("the repository is not encrypted");
    for (size_t i = 0; i < list.count && ok; i++) {
        if (o->json)
            ok = print_json(&list.items[i]);
        else
            print_text(&list.items[i]);
    }
    store_key_list_done(&list);
    return (ok && fflush(stdout) == 0) || err_set(err, ERR_IO, 0, "write to standard output");
}

const struct repo_verb repo_key_list = {
    .name = "key-list",
    .summary = "list the keys of an encrypted repository",
    .access = REPO_UPKEEP,
    .options = list_options,
    .opts_bytes = sizeof(struct list_opts),
    .option = list_option,
    .run = run_list,
};

/* ---- key-add */

static const struct argp_option add_options[] = {
    {"new-key-file", OPT_NEW_KEY_FILE, "FILE", 0,
     "The key file to add; it is made if there is none", 0},
    {"new-passphrase-file", OPT_NEW_PASSPHRASE_FILE, "FILE", 0,
     "Or a file whose first line is the passphrase to add", 0},
    {"label", OPT_LABEL, "TEXT", 0, "For people: where or whose it is", 0},
    {"write-only", OPT_WRITE_ONLY, NULL, 0, "It lets one write backups, but not read them", 0},
    {0},
};

static error_t add_option(int key, char *arg, struct argp_state *state, struct repo_call *call)
{
    (void)state;
    struct store_key_opts *o = call->opts;
    switch (key) {
    case OPT_NEW_KEY_FILE:
        o->key_file = arg;
        return 0;
    case OPT_NEW_PASSPHRASE_FILE:
        o->passphrase_file = arg;
        return 0;
    case OPT_LABEL:
        o->label = arg;
        return 0;
    case OPT_WRITE_ONLY:
        o->is_write_only = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static bool run_add(struct repo_call *call, struct err *err)
{
    const struct store_key_opts *o = call->opts;
    char id[STORE_KEY_ID_CHARS + 1];
    if (!o->key_file == !o->passphrase_file)
        return err_set(err, ERR_BAD_ARGUMENT, 0,
                       "either --new-key-file or --new-passphrase-file is needed");
    if (o->key_file && !repo_key_file_ensure(o->key_file, err))
        return false;
    if (!store_key_add(call->store, o, id, err))
        return false;
    printf("key %s added\n", id);
    return true;
}

const struct repo_verb repo_key_add = {
    .name = "key-add",
    .summary = "let one more key file or passphrase open the repository",
    .access = REPO_OPENS,
    .options = add_options,
    .opts_bytes = sizeof(struct store_key_opts),
    .option = add_option,
    .run = run_add,
};

/* ---- key-remove */

static bool run_remove(struct repo_call *call, struct err *err)
{
    if (!store_key_remove(call->store, call->words[0], err))
        return false;
    printf("key %s removed\n", call->words[0]);
    return true;
}

const struct repo_verb repo_key_remove = {
    .name = "key-remove",
    .summary = "remove a key; not the one that the repository is opened with",
    .words = "KEY",
    .words_min = 1,
    .words_max = 1,
    .access = REPO_OPENS,
    .run = run_remove,
};

/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/repo.h"

#include <argp.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "worker/copy/copy.h"
#include "worker/step/point_items.h"
#include "worker/step/point_meta.h"
#include "worker/store/store.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };
enum { ARGS_MAX = 2 };
enum { OPT_JSON = 0x100, OPT_VM, OPT_DISK, OPT_OUTPUT, OPT_QUICK, OPT_BLOB };

struct repo_args {
    const char *path, *point; /* positional */
    size_t count;
    bool json, quick;
    const char *vm, *disk, *output, *blob;
};

static const struct argp_option option_table[] = {
    {"json", OPT_JSON, NULL, 0, "list, show: as JSON", 0},
    {"vm", OPT_VM, "VM", 0, "list: only points of this VM (id or name)", 0},
    {"disk", OPT_DISK, "ID", 0, "export: this disk", 0},
    {"blob", OPT_BLOB, "NAME", 0, "export: this file of the point (vm.ovf, vm.json)", 0},
    {"output", OPT_OUTPUT, "FILE", 0, "export: the new raw image; it must not exist", 0},
    {"quick", OPT_QUICK, NULL, 0, "verify: only maps and structure, not the data", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct repo_args *a = state->input;
    switch (key) {
    case OPT_JSON:
        a->json = true;
        return 0;
    case OPT_VM:
        a->vm = arg;
        return 0;
    case OPT_DISK:
        a->disk = arg;
        return 0;
    case OPT_BLOB:
        a->blob = arg;
        return 0;
    case OPT_OUTPUT:
        a->output = arg;
        return 0;
    case OPT_QUICK:
        a->quick = true;
        return 0;
    case ARGP_KEY_ARG:
        if (a->count >= ARGS_MAX)
            return ARGP_ERR_UNKNOWN;
        if (a->count++ == 0)
            a->path = arg;
        else
            a->point = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static bool say_json(json_t *json, struct err *err)
{
    bool ok = json && json_dumpf(json, stdout, JSON_INDENT(2) | JSON_SORT_KEYS) == 0 &&
              putchar('\n') != EOF && fflush(stdout) == 0;
    json_decref(json);
    return ok || err_set(err, ERR_IO, 0, "write to standard output");
}

static bool do_init(struct store *store, const struct repo_args *a, struct err *err)
{
    (void)err;
    printf("repository %s made in %s\n", store_uuid(store), a->path);
    return true;
}

/* ---- list ----------------------------------------------------------------------------------- */

static json_t *item_json(const struct wire_point_item *p)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:s, s:s, s:s*}", "type", "point",
                     "id", p->id, "vm", p->vm, "vm_name", p->vm_name, "time_ms",
                     (json_int_t)p->time_ms, "disks", (json_int_t)p->disks, "size_bytes",
                     (json_int_t)p->size_bytes, "stored_bytes", (json_int_t)p->stored_bytes,
                     "quiesced", p->quiesced, "state", p->state, "message", p->message);
}

/* JSON Lines, as `oxbow list --json` writes them. */
static bool list_json(const struct point_items *items, struct err *err)
{
    bool ok = true;
    for (size_t i = 0; i < items->count && ok; i++) {
        json_t *line = item_json(&items->v[i]);
        ok = line && json_dumpf(line, stdout, JSON_COMPACT) == 0 && putchar('\n') != EOF;
        json_decref(line);
    }
    return (ok && fflush(stdout) == 0) || err_set(err, ERR_IO, 0, "write to standard output");
}

static void list_text(const struct point_items *items)
{
    printf("%-48s %-20s %-20s %5s %12s %12s %-3s %s\n", "POINT", "TIME", "VM", "DISKS", "SIZE_MIB",
           "STORED_MIB", "QUI", "STATE");
    for (size_t i = 0; i < items->count; i++) {
        const struct wire_point_item *p = &items->v[i];
        char when[CLOCK_TEXT_BYTES];
        clock_format_utc(p->time_ms, when);
        printf("%-48s %-20s %-20s %5" PRId64 " %12" PRId64 " %12" PRId64 " %-3s %s%s%s\n", p->id,
               when, p->vm_name, p->disks, p->size_bytes >> 20, p->stored_bytes >> 20, p->quiesced,
               p->state, p->message ? ": " : "", p->message ? p->message : "");
    }
}

static bool do_list(struct store *store, const struct repo_args *a, struct err *err)
{
    struct store_point_list all = {0};
    if (!store_points_list(store, NULL, &all, err))
        return false;
    struct point_items items = {0};
    for (size_t i = 0; i < all.count; i++) {
        const struct store_point_info *p = &all.items[i];
        if (!a->vm || p->damage || strcmp(p->vm_id, a->vm) == 0 || strcmp(p->vm_name, a->vm) == 0)
            point_items_add(&items, store, p, NULL);
    }
    bool ok = true;
    if (a->json)
        ok = list_json(&items, err);
    else
        list_text(&items);
    point_items_done(&items);
    store_point_list_done(&all);
    return ok;
}

/* ---- show, export, verify ------------------------------------------------------------------- */

static bool do_show(struct store *store, const struct repo_args *a, struct err *err)
{
    SCOPED(store_point) struct store_point *point = store_point_open(store, a->point, err);
    if (!point)
        return false;
    if (a->json)
        return say_json(json_deep_copy(store_point_json(point)), err);
    const struct store_point_info *info = store_point_info(point);
    char when[CLOCK_TEXT_BYTES];
    clock_format_utc(info->created_ms, when);
    printf("point   %s\nvm      %s (%s)\nwritten %s by %s\nsize    %" PRIu64 " bytes, %" PRIu64
           " stored\n",
           info->id, info->vm_name, info->vm_id, when, info->worker, info->size_bytes,
           info->stored_bytes);
    for (size_t i = 0; i < store_point_disk_count(point); i++) {
        const struct store_point_disk *d = store_point_disk(point, i);
        printf("disk    %s %" PRIu64 " bytes\n", d->id, d->size_bytes);
    }
    for (size_t i = 0; i < store_point_blob_count(point); i++)
        printf("file    %s\n", store_point_blob_name(point, i));
    return true;
}

static bool export_blob(struct store_point *point, const struct repo_args *a, struct err *err)
{
    SCOPED_BUF struct buf bytes;
    if (!store_point_blob(point, a->blob, &bytes, err))
        return false;
    return fwrite(bytes.data, 1, bytes.len, stdout) == bytes.len && fflush(stdout) == 0
               ? true
               : err_set(err, ERR_IO, 0, "write to standard output");
}

static bool do_export(struct store *store, const struct repo_args *a, struct err *err)
{
    SCOPED(store_point) struct store_point *point = store_point_open(store, a->point, err);
    if (!point)
        return false;
    if (a->blob)
        return export_blob(point, a, err);
    if (!a->disk || !a->output)
        return err_set(err, ERR_BAD_ARGUMENT, 0,
                       "export needs --disk ID and --output FILE, or --blob NAME");
    SCOPED(store_reader) struct store_reader *from = store_disk_open(point, a->disk, err);
    if (!from)
        return false;
    struct target_file_opts opts = {
        .create = true, .size_bytes = store_reader_size(from), .is_zero = true};
    SCOPED(target) struct target *to = target_file_open(a->output, &opts, err);
    struct copy_stats stats = {0};
    if (!to || !copy_restore(from, to, NULL, &stats, err))
        return false;
    printf("%s: %" PRIu64 " bytes, %" PRIu64 " of data\n", a->output, stats.size_bytes,
           stats.data_bytes);
    return true;
}

static void on_damage(void *context, const char *disk_id, uint64_t offset, uint64_t len,
                      const struct err *why)
{
    (void)context;
    printf("damaged %s offset %" PRIu64 " len %" PRIu64 ": %s\n", disk_id ? disk_id : "(file)",
           offset, len, why->message);
}

static bool verify_one(struct store *store, const struct repo_args *a, const char *id,
                       struct err *err)
{
    struct store_verify_opts opts = {.quick = a->quick, .damaged = on_damage};
    struct store_verify_result result = {0};
    bool ok = store_verify_point(store, id, &opts, &result, err);
    if (!ok && a->point && err->code == ERR_NOT_FOUND)
        return false; /* no such point: nothing was verified */
    if (ok && a->quick)
        printf("good    %s: maps and structure checked, not the data\n", id);
    else
        printf("%s %s: %" PRIu64 " bytes checked, %" PRIu64 " damaged\n",
               ok ? "good   " : "BAD    ", id, result.checked_bytes, result.damaged_bytes);
    return ok;
}

static bool do_verify(struct store *store, const struct repo_args *a, struct err *err)
{
    if (a->point)
        return verify_one(store, a, a->point, err);
    struct store_point_list all = {0};
    if (!store_points_list(store, NULL, &all, err))
        return false;
    bool ok = true;
    if (all.count == 0)
        puts("no restore points");
    for (size_t i = 0; i < all.count; i++) {
        struct err one = ERR_INIT;
        if (verify_one(store, a, all.items[i].id, &one))
            continue;
        err_keep_first(err, &one);
        ok = false;
    }
    store_point_list_done(&all);
    return ok;
}

/* ---- verbs ---------------------------------------------------------------------------------- */

static const struct verb {
    const char *name;
    size_t args_min, args_max;
    bool makes;
    bool (*run)(struct store *store, const struct repo_args *a, struct err *err);
} verbs[] = {
    {"init", 1, 1, true, do_init},      {"list", 1, 1, false, do_list},
    {"show", 2, 2, false, do_show},     {"export", 2, 2, false, do_export},
    {"verify", 1, 2, false, do_verify},
};

static const struct verb *find_verb(const char *name)
{
    for (size_t i = 0; name && i < ARRAY_LEN(verbs); i++) {
        if (strcmp(verbs[i].name, name) == 0)
            return &verbs[i];
    }
    return NULL;
}

static void say_misuse(const struct verb *verb, const char *first, const struct repo_args *args)
{
    if (!verb && first)
        fprintf(stderr, "oxbow-worker repo: there is no verb '%s'\n", first);
    else if (!verb)
        fputs("oxbow-worker repo: a verb is missing\n", stderr);
    else if (args->count < verb->args_min)
        fprintf(stderr, "oxbow-worker repo %s: %s is missing\n", verb->name,
                args->count == 0 ? "PATH" : "POINT");
    else
        fprintf(stderr, "oxbow-worker repo %s: too many arguments\n", verb->name);
}

int repo_main(int argc, char **argv)
{
    static const struct argp argp = {
        .options = option_table,
        .parser = parse,
        .args_doc = "init PATH\nlist PATH\nshow PATH POINT\nexport PATH POINT\nverify PATH [POINT]",
        .doc =
            "Works on a repository, without broker, coordinator or engine.\vPOINT is the id of a "
            "restore point, or the beginning of one.",
    };
    const struct verb *verb = find_verb(argc > 1 ? argv[1] : NULL);
    argp_err_exit_status = EXIT_USAGE;
    struct repo_args args = {0};
    char name[] = "oxbow-worker repo";
    argv[0] = name;
    if (verb) {
        argv[1] = name;
        argc--;
        argv++;
    }
    if (argp_parse(&argp, argc, argv, 0, NULL, &args) != 0)
        return EXIT_USAGE;
    if (!verb || args.count < verb->args_min || args.count > verb->args_max) {
        say_misuse(verb, argc > 1 ? argv[1] : NULL, &args);
        argp_help(&argp, stderr, ARGP_HELP_USAGE, name);
        return EXIT_USAGE;
    }
    struct err err = ERR_INIT;
    SCOPED(store)
    struct store *store =
        verb->makes ? store_init(args.path, NULL, &err) : store_open(args.path, NULL, &err);
    if (store && verb->run(store, &args, &err))
        return EXIT_DONE;
    fprintf(stderr, "oxbow-worker repo %s: %s\n", verb->name, err.message);
    return err.code == ERR_BAD_ARGUMENT ? EXIT_USAGE : EXIT_FAILED;
}

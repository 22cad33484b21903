/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nbdkit-oxbow-plugin: restore points as block devices, read-only. The user's page is
 * docs/man/nbdkit-oxbow-plugin.1.scd; the plugin interface is nbdkit-plugin(3).
 *
 *     nbdkit oxbow repo=DIR [point=ID [disk=ID]] [key-file=FILE | passphrase-file=FILE]
 * [cache=SIZE]
 *
 * An export is a disk: "POINT/DISK", or what the command line leaves open of it. The repository is
 * opened once, before nbdkit forks; each connection opens its disk anew and shares the cache of
 * decoded frames. Every byte is verified before it is handed over; one that is wrong is an I/O
 * error, and never data.
 *
 * Threads: nbdkit calls from any number at once; what is static here is written before the first
 * connection only.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "worker/store/store.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

enum {
    FRAME_CACHE_BYTES = 64 << 20,
    FRAME_CACHE_MIN = 1 << 20,
    EXTENT_WINDOW_BYTES = 256 << 20, /* of the map looked at at once */
    EXTENTS_ENOUGH = 4096,           /* an answer with so many is long enough */
    BLOCK_MAX_BYTES = 32 << 20,      /* of one request */
};

static struct {
    char *repo, *point, *disk, *key_file, *passphrase_file;
    struct store_opts opts;
    struct store *store;
} plugin = {.opts = {.frame_cache_bytes = FRAME_CACHE_BYTES}};

struct export
{
    struct store_reader *reader;
};

/* Tell the client and the log. Returns -1. */
static int refuse(const struct err *err)
{
    nbdkit_error("%s", err->message);
    int number = EIO;
    if (err->code == ERR_NOT_FOUND)
        number = ENOENT;
    else if (err->code == ERR_BAD_ARGUMENT)
        number = EINVAL;
    else if (err->code == ERR_PERMISSION || err->code == ERR_STORE_KEY)
        number = EPERM;
    nbdkit_set_error(number);
    return -1;
}

/* ---- the command line */

static int set_text(char **member, const char *key, const char *value)
{
    if (*member) {
        nbdkit_error("%s is given twice", key);
        return -1;
    }
    *member = xstrdup(value);
    return 0;
}

static int set_path(char **member, const char *key, const char *value)
{
    SCOPED_FREE char *path = nbdkit_absolute_path(value); /* nbdkit changes to / */
    return path ? set_text(member, key, path) : -1;
}

static int set_cache(const char *value)
{
    int64_t bytes = nbdkit_parse_size(value);
    if (bytes < 0)
        return -1;
    if (bytes < FRAME_CACHE_MIN) {
        nbdkit_error("cache: at least 1M");
        return -1;
    }
    plugin.opts.frame_cache_bytes = (size_t)bytes;
    return 0;
}

static int on_config(const char *key, const char *value)
{
    if (strcmp(key, "repo") == 0)
        return set_path(&plugin.repo, key, value);
    if (strcmp(key, "point") == 0)
        return set_text(&plugin.point, key, value);
    if (strcmp(key, "disk") == 0)
        return set_text(&plugin.disk, key, value);
    if (strcmp(key, "key-file") == 0)
        return set_path(&plugin.key_file, key, value);
    if (strcmp(key, "passphrase-file") == 0)
        return set_path(&plugin.passphrase_file, key, value);
    if (strcmp(key, "cache") == 0)
        return set_cache(value);
    nbdkit_error("there is no parameter '%s'", key);
    return -1;
}

static int on_config_complete(void)
{
    if (!plugin.repo) {
        nbdkit_error("repo=DIR is missing");
        return -1;
    }
    if (plugin.disk && !plugin.point) {
        nbdkit_error("disk=ID needs point=ID");
        return -1;
    }
    return 0;
}

#define CONFIG_HELP                                                                                \
    "repo=DIR      (required) The repository.\n"                                                   \
    "point=ID      A restore point, or the beginning of its id.\n"                                 \
    "disk=ID       A disk of it; may be left out where it has one.\n"                              \
    "key-file=FILE The key of an encrypted repository; default: $OXBOW_KEY_FILE.\n"                \
    "passphrase-file=FILE\n"                                                                       \
    "              Or a file with its passphrase; default: $OXBOW_PASSPHRASE_FILE.\n"              \
    "cache=SIZE    Memory for decoded data; default 64M."

/* ---- finding a disk */

/* The name of the export as far as the command line leaves it open: "point/disk", "point" or
 * "disk" or "". Fills what is there; the caller frees. False: too many parts. */
static bool split_name(const char *name, char **ret_point, char **ret_disk)
{
    const char *slash = strchr(name, '/');
    if (slash) {
        *ret_point = xstrndup(name, (size_t)(slash - name));
        *ret_disk = xstrdup(slash + 1);
        return !strchr(slash + 1, '/');
    }
    if (*name)
        *(plugin.point ? ret_disk : ret_point) = xstrdup(name);
    return true;
}

/* `fixed` of the command line and `asked` of the client say the same thing, or only one speaks. */
static bool same_or_open(const char *what, const char *fixed, const char *asked, const char **ret,
                         struct err *err)
{
    if (fixed && asked && *asked && strcmp(fixed, asked) != 0)
        return err_set(err, ERR_NOT_FOUND, 0, "this server exports %s '%s' only, not '%.*s'", what,
                       fixed, STORE_SESSION_ID_MAX, asked);
    *ret = fixed ? fixed : asked;
    return true;
}

static const char *only_disk(const struct store_point *point, struct err *err)
{
    if (store_point_disk_count(point) == 1)
        return store_point_disk(point, 0)->id;
    err_set(
        err, ERR_BAD_ARGUMENT, 0, "point %s has %zu disks: name one (disk=ID, or the export %s/ID)",
        store_point_info(point)->id, store_point_disk_count(point), store_point_info(point)->id);
    return NULL;
}

static struct store_reader *find_disk(const char *name, struct err *err)
{
    SCOPED_FREE char *name_point = NULL, *name_disk = NULL;
    const char *point_id = NULL, *disk_id = NULL;
    if (!split_name(name, &name_point, &name_disk)) {
        err_set(err, ERR_NOT_FOUND, 0, "an export is called POINT/DISK");
        return NULL;
    }
    /* The command line's point may be a prefix: an export "full id/disk" of it is the same. */
    bool is_longer =
        plugin.point && name_point && strncmp(name_point, plugin.point, strlen(plugin.point)) == 0;
    if (!same_or_open("point", is_longer ? NULL : plugin.point, name_point, &point_id, err) ||
        !same_or_open("disk", plugin.disk, name_disk, &disk_id, err))
        return NULL;
    if (!point_id || !*point_id) {
        err_set(err, ERR_NOT_FOUND, 0, "name a point: point=ID, or the export POINT/DISK");
        return NULL;
    }
    SCOPED(store_point)
    struct store_point *point = store_point_open(plugin.store, point_id, err);
    if (!point)
        return NULL;
    if (!disk_id || !*disk_id)
        disk_id = only_disk(point, err);
    return disk_id ? store_disk_open(point, disk_id, err) : NULL;
}

/* All must be right before nbdkit goes to the background. */
static int on_get_ready(void)
{
    struct err err = ERR_INIT;
    plugin.opts.key_file = plugin.key_file;
    plugin.opts.passphrase_file = plugin.passphrase_file;
    store_opts_from_environment(&plugin.opts);
    plugin.store = store_open(plugin.repo, &plugin.opts, &err);
    if (plugin.store && !store_can_restore(plugin.store))
        err_set(&err, ERR_STORE_KEY, 0, "this key may write backups, but not read them");
    if (err_is_set(&err))
        return refuse(&err);
    if (!plugin.point)
        return 0;
    SCOPED(store_point)
    struct store_point *point = store_point_open(plugin.store, plugin.point, &err);
    if (!point)
        return refuse(&err);
    SCOPED(store_reader)
    struct store_reader *reader = plugin.disk ? store_disk_open(point, plugin.disk, &err) : NULL;
    return plugin.disk && !reader ? refuse(&err) : 0;
}

static void on_unload(void)
{
    store_free(plugin.store);
    free(plugin.repo);
    free(plugin.point);
    free(plugin.disk);
    free(plugin.key_file);
    free(plugin.passphrase_file);
}

/* ---- what there is */

static bool list_point(struct nbdkit_exports *exports, const char *id, struct err *err)
{
    SCOPED(store_point) struct store_point *point = store_point_open(plugin.store, id, err);
    if (!point)
        return false;
    const struct store_point_info *info = store_point_info(point);
    for (size_t i = 0; i < store_point_disk_count(point); i++) {
        const struct store_point_disk *d = store_point_disk(point, i);
        if (plugin.disk && strcmp(plugin.disk, d->id) != 0)
            continue;
        SCOPED_FREE char *name = xasprintf("%s/%s", info->id, d->id);
        SCOPED_FREE char *about =
            xasprintf("VM %s, %" PRIu64 " bytes", info->vm_name, d->size_bytes);
        if (nbdkit_add_export(exports, name, about) != 0)
            return err_set(err, ERR_IO, 0, "list export %s", name);
    }
    return true;
}

static int on_list_exports(int readonly, int is_tls, struct nbdkit_exports *exports)
{
    (void)readonly;
    (void)is_tls;
    struct err err = ERR_INIT;
    if (plugin.point)
        return list_point(exports, plugin.point, &err) ? 0 : refuse(&err);
    struct store_point_list all = {0};
    if (!store_points_list(plugin.store, NULL, &all, &err))
        return refuse(&err);
    for (size_t i = 0; i < all.count; i++) {
        struct err one = ERR_INIT;
        if (all.items[i].damage)
            nbdkit_debug("point %s: %s", all.items[i].id, all.items[i].damage);
        else if (!list_point(exports, all.items[i].id, &one))
            nbdkit_debug("%s", one.message); /* removed meanwhile, perhaps */
    }
    store_point_list_done(&all);
    return 0;
}

/* ---- a connection */

static void *on_open(int readonly)
{
    (void)readonly; /* always */
    struct err err = ERR_INIT;
    const char *name = nbdkit_export_name();
    struct store_reader *reader = find_disk(name ? name : "", &err);
    if (!reader) {
        refuse(&err);
        return NULL;
    }
    struct export *e = ALLOC_NEW(struct export);
    e->reader = reader;
    return e;
}

static void on_close(void *handle)
{
    struct export *e = handle;
    store_reader_free(e->reader);
    free(e);
}

static int64_t on_get_size(void *handle)
{
    const struct export *e = handle;
    return (int64_t)store_reader_size(e->reader);
}

static int on_block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
    (void)handle;
    *minimum = 1;
    *preferred = STORE_BLOCK_BYTES;
    *maximum = BLOCK_MAX_BYTES;
    return 0;
}

static int yes(void *handle)
{
    (void)handle;
    return 1;
}

static int no(void *handle)
{
    (void)handle;
    return 0;
}

/* Reading is what fills our cache of decoded frames: nbdkit shall read and drop. */
static int on_can_cache(void *handle)
{
    (void)handle;
    return NBDKIT_CACHE_EMULATE;
}

static int on_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
    (void)flags;
    const struct export *e = handle;
    struct err err = ERR_INIT;
    return store_disk_read(e->reader, buf, count, offset, &err) ? 0 : refuse(&err);
}

static bool add_extents(struct nbdkit_extents *to, const struct extents *found)
{
    for (size_t i = 0; i < found->count; i++) {
        const struct extent *x = &found->items[i];
        uint32_t type = x->is_data ? 0 : NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO;
        if (nbdkit_add_extent(to, x->offset, x->len, type) != 0)
            return false;
    }
    return true;
}

static int on_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags,
                      struct nbdkit_extents *extents)
{
    const struct export *e = handle;
    struct err err = ERR_INIT;
    SCOPED_EXTENTS struct extents found = EXTENTS_INIT;
    uint64_t at = offset, end = offset + count;
    bool is_enough = false;
    /* A map may be large: as much of it as makes a good answer. */
    while (at < end && !is_enough) {
        uint64_t len = end - at < EXTENT_WINDOW_BYTES ? end - at : EXTENT_WINDOW_BYTES;
        if (!store_disk_extents(e->reader, at, len, &found, &err))
            return refuse(&err);
        at += len;
        is_enough =
            found.count >= EXTENTS_ENOUGH || ((flags & NBDKIT_FLAG_REQ_ONE) && found.count > 1);
    }
    return add_extents(extents, &found) ? 0 : -1;
}

static struct nbdkit_plugin callbacks = {
    .name = "oxbow",
    .version = OXBOW_VERSION,
    .longname = "Oxbow restore points",
    .description = "Serves the disks of restore points in an Oxbow repository, read-only.",
    .unload = on_unload,
    .config = on_config,
    .config_complete = on_config_complete,
    .config_help = CONFIG_HELP,
    .magic_config_key = "repo",
    .get_ready = on_get_ready,
    .list_exports = on_list_exports,
    .open = on_open,
    .close = on_close,
    .get_size = on_get_size,
    .block_size = on_block_size,
    .can_write = no,
    .is_rotational = no,
    .can_multi_conn = yes,
    .can_extents = yes,
    .can_cache = on_can_cache,
    .pread = on_pread,
    .extents = on_extents,
};

struct nbdkit_plugin *plugin_init(void); /* the macro defines it only */
NBDKIT_REGISTER_PLUGIN(callbacks)

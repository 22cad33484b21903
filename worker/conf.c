/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/conf.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/conf.h"
#include "proto/base/id.h"
#include "proto/base/log.h"
#include "worker/copy/rate.h"

#define OPTIONAL CYAML_FLAG_OPTIONAL
/* Strings are limited so that no value can be absurd; paths are the longest. */
enum { TEXT_MAX = 4096, LIMITS_MAX = 64, LIMIT_MAX_MIBS = 1 << 20 };

#define STR(tag, member)                                                                           \
    CYAML_FIELD_STRING_PTR(#member, CYAML_FLAG_POINTER | OPTIONAL, tag, member, 0, TEXT_MAX)
#define INT(tag, member)      CYAML_FIELD_INT(#member, OPTIONAL, tag, member)
#define BOOLEAN(tag, member)  CYAML_FIELD_BOOL(#member, OPTIONAL, tag, member)
#define MAP(tag, member, sub) CYAML_FIELD_MAPPING(#member, OPTIONAL, tag, member, sub)

static const cyaml_schema_field_t engine_fields[] = {
    STR(struct worker_conf_engine, url),
    STR(struct worker_conf_engine, user),
    STR(struct worker_conf_engine, password_file),
    STR(struct worker_conf_engine, ca_file),
    BOOLEAN(struct worker_conf_engine, insecure_skip_verify),
    INT(struct worker_conf_engine, connect_timeout_s),
    INT(struct worker_conf_engine, request_timeout_s),
    INT(struct worker_conf_engine, retry_ms),
    INT(struct worker_conf_engine, poll_ms),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t repository_fields[] = {
    STR(struct worker_conf_repository, path),
    STR(struct worker_conf_repository, key_file),
    STR(struct worker_conf_repository, passphrase_file),
    INT(struct worker_conf_repository, pack_mib),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t slots_fields[] = {
    INT(struct worker_conf_slots, backup),
    INT(struct worker_conf_slots, restore),
    INT(struct worker_conf_slots, upkeep),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t copy_fields[] = {
    INT(struct worker_conf_copy, threads_per_disk),
    INT(struct worker_conf_copy, disks_at_once),
    INT(struct worker_conf_copy, map_min_mib),
    BOOLEAN(struct worker_conf_copy, compare_checksums),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t parts_fields[] = {
    INT(struct worker_conf_parts, min_mib),
    INT(struct worker_conf_parts, align_mib),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t lease_fields[] = {
    INT(struct worker_conf_lease, presence_s),
    INT(struct worker_conf_lease, claim_s),
    INT(struct worker_conf_lease, outage_s),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t wait_fields[] = {
    INT(struct worker_conf_wait, engine_s),   INT(struct worker_conf_wait, device_s),
    INT(struct worker_conf_wait, snapshot_s), INT(struct worker_conf_wait, merge_s),
    INT(struct worker_conf_wait, export_s),   INT(struct worker_conf_wait, vm_s),
    INT(struct worker_conf_wait, drain_s),    CYAML_FIELD_END,
};
static const cyaml_schema_field_t reserve_fields[] = {
    INT(struct worker_conf_reserve, repository_mib),
    INT(struct worker_conf_reserve, storage_domain_mib),
    INT(struct worker_conf_reserve, watch_s),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t limit_fields[] = {
    CYAML_FIELD_INT("mib_per_s", CYAML_FLAG_DEFAULT, struct worker_conf_limit, mib_per_s),
    STR(struct worker_conf_limit, storage_domain),
    STR(struct worker_conf_limit, hours),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t limit_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct worker_conf_limit, limit_fields),
};
static const cyaml_schema_field_t log_fields[] = {
    STR(struct worker_conf_log, level),
    STR(struct worker_conf_log, format),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t fields[] = {
    STR(struct worker_conf, name),
    STR(struct worker_conf, zone),
    MAP(struct worker_conf, broker, BROKER_CONF_FIELDS),
    MAP(struct worker_conf, engine, engine_fields),
    STR(struct worker_conf, proxy_vm),
    STR(struct worker_conf, proxy_tag),
    STR(struct worker_conf, device_dir),
    MAP(struct worker_conf, repository, repository_fields),
    MAP(struct worker_conf, slots, slots_fields),
    MAP(struct worker_conf, copy, copy_fields),
    MAP(struct worker_conf, parts, parts_fields),
    MAP(struct worker_conf, lease, lease_fields),
    MAP(struct worker_conf, wait, wait_fields),
    INT(struct worker_conf, quiesce_limit_s),
    MAP(struct worker_conf, reserve, reserve_fields),
    CYAML_FIELD_SEQUENCE("limits", CYAML_FLAG_POINTER | OPTIONAL, struct worker_conf, limits,
                         &limit_schema, 0, LIMITS_MAX),
    MAP(struct worker_conf, log, log_fields),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct worker_conf, fields),
};

static void default_str(char **value, const char *fallback)
{
    if (!*value)
        *value = xstrdup(fallback);
}

/* One row a number: its place, default (taken for 0) and range. */
struct number {
    const char *key;
    int64_t *value;
    int64_t fallback, min, max;
};

/* The host's name up to the first dot, as a slug. */
static char *default_name(void)
{
    char host[256] = "";
    (void)gethostname(host, sizeof host - 1);
    host[strcspn(host, ".")] = '\0';
    for (char *c = host; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    return xstrdup(id_is_slug(host, WIRE_SLUG_MAX) ? host : "worker");
}

static bool set_numbers(struct worker_conf *c, const char *path, struct err *err)
{
    const struct number numbers[] = {
        {"slots.backup", &c->slots.backup, 2, 1, 64},
        {"slots.restore", &c->slots.restore, 1, 1, 64},
        {"slots.upkeep", &c->slots.upkeep, 2, 1, 64},
        {"repository.pack_mib", &c->repository.pack_mib, 96, 1, 1024},
        {"copy.threads_per_disk", &c->copy.threads_per_disk, 2, 1, 64},
        {"copy.disks_at_once", &c->copy.disks_at_once, 2, 1, 64},
        {"copy.map_min_mib", &c->copy.map_min_mib, 1024, 1, INT64_C(1) << 40},
        {"parts.min_mib", &c->parts.min_mib, 4096, 1, INT64_C(1) << 40},
        {"parts.align_mib", &c->parts.align_mib, 1024, 1, INT64_C(1) << 20},
        {"lease.presence_s", &c->lease.presence_s, 10, 1, 60},
        {"lease.claim_s", &c->lease.claim_s, 15, 1, 300},
        {"lease.outage_s", &c->lease.outage_s, 3600, 1, 7 * 86400},
        {"engine.connect_timeout_s", &c->engine.connect_timeout_s, 10, 1, 300},
        {"engine.request_timeout_s", &c->engine.request_timeout_s, 180, 1, 3600},
        {"engine.retry_ms", &c->engine.retry_ms, 2000, 50, 60 * 1000},
        {"engine.poll_ms", &c->engine.poll_ms, 1000, 50, 5000},
        {"wait.engine_s", &c->wait.engine_s, 15 * 60, 1, 86400},
        {"wait.device_s", &c->wait.device_s, 60, 1, 3600},
        {"wait.snapshot_s", &c->wait.snapshot_s, 45 * 60, 1, 86400},
        {"wait.merge_s", &c->wait.merge_s, 4 * 3600, 1, 7 * 86400},
        {"wait.export_s", &c->wait.export_s, 86400, 1, 31 * 86400},
        {"wait.vm_s", &c->wait.vm_s, 30 * 60, 10, 86400},
        {"wait.drain_s", &c->wait.drain_s, 300, 1, 7 * 86400},
        {"quiesce_limit_s", &c->quiesce_limit_s, 60, 1, 600},
        {"reserve.repository_mib", &c->reserve.repository_mib, 1024, 1, INT64_C(1) << 40},
        {"reserve.storage_domain_mib", &c->reserve.storage_domain_mib, 1024, 1, INT64_C(1) << 40},
        {"reserve.watch_s", &c->reserve.watch_s, 10, 1, 3600},
    };
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        const struct number *n = &numbers[i];
        if (*n->value == 0)
            *n->value = n->fallback;
        if (*n->value < n->min || *n->value > n->max)
            return err_set(err, ERR_BAD_CONFIG, 0,
                           "%s: %s is %" PRId64 ", but must be between %" PRId64 " and %" PRId64,
                           path, n->key, *n->value, n->min, n->max);
    }
    return true;
}

static bool require(const char *path, const char *key, const char *value, struct err *err)
{
    if (value && *value)
        return true;
    return err_set(err, ERR_BAD_CONFIG, 0, "%s: %s is missing", path, key);
}

static bool check_slug(const char *path, const char *key, const char *value, struct err *err)
{
    if (id_is_slug(value, WIRE_SLUG_MAX))
        return true;
    return err_set(err, ERR_BAD_CONFIG, 0,
                   "%s: %s '%s' must be 1 to %d characters of a-z, 0-9, '.', '_', '-'", path, key,
                   value, WIRE_SLUG_MAX);
}

static bool check_log(const struct worker_conf *c, const char *path, struct err *err)
{
    enum log_level level;
    enum log_format format;
    if (!log_level_parse(c->log.level, &level))
        return err_set(err, ERR_BAD_CONFIG, 0,
                       "%s: log.level '%s' is none of error, warn, info, debug", path,
                       c->log.level);
    if (!log_format_parse(c->log.format, &format))
        return err_set(err, ERR_BAD_CONFIG, 0, "%s: log.format '%s' is neither logfmt nor json",
                       path, c->log.format);
    return true;
}

static bool check_limits(const struct worker_conf *c, const char *path, struct err *err)
{
    for (unsigned i = 0; i < c->limits_count; i++) {
        const struct worker_conf_limit *l = &c->limits[i];
        if (l->mib_per_s < 1 || l->mib_per_s > LIMIT_MAX_MIBS)
            return err_set(err, ERR_BAD_CONFIG, 0,
                           "%s: limits[%u]: mib_per_s is %" PRId64 ", but must be between 1 and %d",
                           path, i, l->mib_per_s, LIMIT_MAX_MIBS);
        struct rate_rule rule = {.bytes_per_s = 1, .hours = l->hours};
        struct err why = ERR_INIT;
        SCOPED(rate_limits)
        struct rate_limits *limits = rate_limits_new(&rule, 1, clock_system(), &why);
        if (!limits)
            return err_set(err, ERR_BAD_CONFIG, 0, "%s: limits[%u]: %s", path, i, why.message);
    }
    return true;
}

static bool check(const struct worker_conf *c, const char *path, bool need_broker, struct err *err)
{
    struct mq_opts unused = {0};
    if (need_broker && !broker_conf_apply(&c->broker, path, &unused, err))
        return false;
    if (!require(path, "engine.url", c->engine.url, err) ||
        !require(path, "engine.user", c->engine.user, err) ||
        !require(path, "engine.password_file", c->engine.password_file, err) ||
        !require(path, "repository.path", c->repository.path, err) ||
        (need_broker && !require(path, "proxy_vm", c->proxy_vm, err)) ||
        !require(path, "zone", c->zone, err))
        return false;
    if (strncmp(c->engine.url, "https://", 8) != 0)
        return err_set(err, ERR_BAD_CONFIG, 0, "%s: engine.url must begin with https://", path);
    return check_slug(path, "name", c->name, err) && check_slug(path, "zone", c->zone, err) &&
           check_limits(c, path, err) && check_log(c, path, err);
}

struct worker_conf *worker_conf_load(const char *path, bool need_broker, struct err *err)
{
    SCOPED(worker_conf) struct worker_conf *c = conf_load(path, &schema, err);
    if (!c)
        return NULL;
    if (!c->name)
        c->name = default_name();
    default_str(&c->proxy_tag, "oxbow-proxy");
    default_str(&c->device_dir, "/dev/disk/by-id");
    default_str(&c->log.level, "info");
    default_str(&c->log.format, "logfmt");
    if (!set_numbers(c, path, err) || !check(c, path, need_broker, err))
        return NULL;
    return TAKE(c);
}

void worker_conf_free(struct worker_conf *conf)
{
    conf_free(conf, &schema);
}

bool worker_conf_dump(const struct worker_conf *conf, struct err *err)
{
    return conf_dump(conf, &schema, err);
}

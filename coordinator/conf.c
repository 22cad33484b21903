/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/conf.h"

#include <string.h>

#include "proto/base/conf.h"
#include "proto/base/id.h"
#include "proto/wire/message.h"

enum {
    DEFAULT_MAX_RUNNING = 64,
    DEFAULT_LEASE_S = 25,
    LEASE_MIN_S = 2,
    LEASE_MAX_S = 3600,
    DEFAULT_MAX_ATTEMPTS = 5,
    ATTEMPTS_MAX = 100,
    DEFAULT_SURPLUS = 2,
    SURPLUS_MAX = 1000,
    DEFAULT_DEADLINE_S = 24 * 3600,
    DEFAULT_KEEP_DAYS = 30,
    KEEP_MAX_DAYS = 3650,
    DEFAULT_STOP_LIMIT_S = 1800,
    STOP_LIMIT_MIN_S = 10,
    DEFAULT_SWEEP_S = 3600,
    SWEEP_MAX_S = 30 * 24 * 3600,
    TEXT_MAX = 4096,
};

#define LEDGER_DEFAULT "/var/lib/oxbow/ledger.db"
#define OPTIONAL_TEXT(key, type, member)                                                           \
    CYAML_FIELD_STRING_PTR(key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, type, member, 1, TEXT_MAX)
#define OPTIONAL_INT(key, member)                                                                  \
    CYAML_FIELD_INT(key, CYAML_FLAG_OPTIONAL, struct coordinator_conf, member)

static const cyaml_schema_field_t zone_fields[] = {
    CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_POINTER, struct conf_zone, name, 1, WIRE_SLUG_MAX),
    CYAML_FIELD_INT("max_running", CYAML_FLAG_OPTIONAL, struct conf_zone, max_running),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t zone_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct conf_zone, zone_fields),
};

static const cyaml_schema_field_t lane_fields[] = {
    CYAML_FIELD_INT("restore", CYAML_FLAG_OPTIONAL, struct conf_lanes, restore),
    CYAML_FIELD_INT("backup", CYAML_FLAG_OPTIONAL, struct conf_lanes, backup),
    CYAML_FIELD_INT("upkeep", CYAML_FLAG_OPTIONAL, struct conf_lanes, upkeep),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t limits_fields[] = {
    CYAML_FIELD_INT("max_running", CYAML_FLAG_OPTIONAL, struct conf_limits, max_running),
    CYAML_FIELD_MAPPING("per_lane", CYAML_FLAG_OPTIONAL, struct conf_limits, per_lane, lane_fields),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t log_fields[] = {
    OPTIONAL_TEXT("level", struct conf_log, level),
    OPTIONAL_TEXT("format", struct conf_log, format),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t janitor_fields[] = {
    CYAML_FIELD_INT_PTR("every_s", CYAML_FLAG_OPTIONAL, struct conf_janitor, every_s),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t top_fields[] = {
    CYAML_FIELD_MAPPING("broker", CYAML_FLAG_DEFAULT, struct coordinator_conf, broker,
                        BROKER_CONF_FIELDS),
    OPTIONAL_TEXT("ledger", struct coordinator_conf, ledger),
    CYAML_FIELD_SEQUENCE("zones", CYAML_FLAG_POINTER, struct coordinator_conf, zones, &zone_schema,
                         1, CONF_ZONES_MAX),
    CYAML_FIELD_MAPPING("limits", CYAML_FLAG_OPTIONAL, struct coordinator_conf, limits,
                        limits_fields),
    OPTIONAL_INT("lease_s", lease_s),
    OPTIONAL_INT("max_attempts", max_attempts),
    CYAML_FIELD_INT_PTR("offer_surplus", CYAML_FLAG_OPTIONAL, struct coordinator_conf,
                        offer_surplus),
    OPTIONAL_INT("deadline_s", deadline_s),
    OPTIONAL_INT("stop_limit_s", stop_limit_s),
    OPTIONAL_INT("keep_days", keep_days),
    CYAML_FIELD_MAPPING("janitor", CYAML_FLAG_OPTIONAL, struct coordinator_conf, janitor,
                        janitor_fields),
    OPTIONAL_TEXT("metrics_file", struct coordinator_conf, metrics_file),
    CYAML_FIELD_MAPPING("log", CYAML_FLAG_OPTIONAL, struct coordinator_conf, log, log_fields),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t top_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct coordinator_conf, top_fields),
};

static void default_int(int *value, int standard)
{
    if (*value == 0)
        *value = standard;
}

static void default_text(char **value, const char *standard)
{
    if (!*value)
        *value = xstrdup(standard);
}

static void fill_defaults(struct coordinator_conf *conf)
{
    default_text(&conf->ledger, LEDGER_DEFAULT);
    for (unsigned i = 0; i < conf->zones_count; i++)
        default_int(&conf->zones[i].max_running, CONF_RUNNING_MAX);
    default_int(&conf->limits.max_running, DEFAULT_MAX_RUNNING);
    default_int(&conf->limits.per_lane.restore, CONF_RUNNING_MAX);
    default_int(&conf->limits.per_lane.backup, CONF_RUNNING_MAX);
    default_int(&conf->limits.per_lane.upkeep, CONF_RUNNING_MAX);
    default_int(&conf->lease_s, DEFAULT_LEASE_S);
    default_int(&conf->max_attempts, DEFAULT_MAX_ATTEMPTS);
    if (!conf->offer_surplus) {
        conf->offer_surplus = xmalloc(sizeof *conf->offer_surplus);
        *conf->offer_surplus = DEFAULT_SURPLUS;
    }
    default_int(&conf->deadline_s, DEFAULT_DEADLINE_S);
    default_int(&conf->stop_limit_s, DEFAULT_STOP_LIMIT_S);
    default_int(&conf->keep_days, DEFAULT_KEEP_DAYS);
    if (!conf->janitor.every_s) {
        conf->janitor.every_s = xmalloc(sizeof *conf->janitor.every_s);
        *conf->janitor.every_s = DEFAULT_SWEEP_S;
    }
    default_text(&conf->log.level, "info");
    default_text(&conf->log.format, "logfmt");
}

static bool check_numbers(const struct coordinator_conf *conf, const char *path, struct err *err)
{
    const struct {
        const char *key;
        int value, min, max;
    } rules[] = {
        {"limits.max_running", conf->limits.max_running, 1, CONF_RUNNING_MAX},
        {"limits.per_lane.restore", conf->limits.per_lane.restore, 1, CONF_RUNNING_MAX},
        {"limits.per_lane.backup", conf->limits.per_lane.backup, 1, CONF_RUNNING_MAX},
        {"limits.per_lane.upkeep", conf->limits.per_lane.upkeep, 1, CONF_RUNNING_MAX},
        {"lease_s", conf->lease_s, LEASE_MIN_S, LEASE_MAX_S},
        {"max_attempts", conf->max_attempts, 1, ATTEMPTS_MAX},
        {"offer_surplus", *conf->offer_surplus, 0, SURPLUS_MAX},
        {"deadline_s", conf->deadline_s, 1, WIRE_DEADLINE_MAX_S},
        {"stop_limit_s", conf->stop_limit_s, STOP_LIMIT_MIN_S, WIRE_DEADLINE_MAX_S},
        {"keep_days", conf->keep_days, 1, KEEP_MAX_DAYS},
        {"janitor.every_s", *conf->janitor.every_s, 0, SWEEP_MAX_S},
    };
    for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
        if (rules[i].value < rules[i].min || rules[i].value > rules[i].max)
            return err_set(err, ERR_BAD_CONFIG, 0, "%s: %s %d is not within %d..%d", path,
                           rules[i].key, rules[i].value, rules[i].min, rules[i].max);
    }
    return true;
}

static bool check_zones(const struct coordinator_conf *conf, const char *path, struct err *err)
{
    for (unsigned i = 0; i < conf->zones_count; i++) {
        const struct conf_zone *zone = &conf->zones[i];
        if (!id_is_slug(zone->name, WIRE_SLUG_MAX))
            return err_set(err, ERR_BAD_CONFIG, 0,
                           "%s: zone name '%s' may hold a-z 0-9 . _ - only, and begins with a "
                           "letter, digit or _",
                           path, zone->name);
        if (zone->max_running < 1 || zone->max_running > CONF_RUNNING_MAX)
            return err_set(err, ERR_BAD_CONFIG, 0,
                           "%s: zone '%s': max_running %d is not within 1..%d", path, zone->name,
                           zone->max_running, CONF_RUNNING_MAX);
        if (coordinator_conf_zone(conf, zone->name) != (int)i)
            return err_set(err, ERR_BAD_CONFIG, 0, "%s: zone '%s' is named twice", path,
                           zone->name);
    }
    return true;
}

static bool check_log(const struct coordinator_conf *conf, const char *path, struct err *err)
{
    enum log_level level;
    enum log_format format;
    if (!log_level_parse(conf->log.level, &level))
        return err_set(err, ERR_BAD_CONFIG, 0,
                       "%s: log.level '%s' is none of error, warn, info, debug", path,
                       conf->log.level);
    if (!log_format_parse(conf->log.format, &format))
        return err_set(err, ERR_BAD_CONFIG, 0, "%s: log.format '%s' is none of logfmt, json", path,
                       conf->log.format);
    return true;
}

static bool check(const struct coordinator_conf *conf, const char *path, struct err *err)
{
    struct mq_opts unused = {0};
    return check_numbers(conf, path, err) && check_zones(conf, path, err) &&
           check_log(conf, path, err) && broker_conf_apply(&conf->broker, path, &unused, err);
}

struct coordinator_conf *coordinator_conf_load(const char *path, struct err *err)
{
    SCOPED(coordinator_conf)
    struct coordinator_conf *conf = conf_load(path, &top_schema, err);
    if (!conf)
        return NULL;
    fill_defaults(conf);
    return check(conf, path, err) ? TAKE(conf) : NULL;
}

void coordinator_conf_free(struct coordinator_conf *conf)
{
    conf_free(conf, &top_schema);
}

bool coordinator_conf_dump(const struct coordinator_conf *conf, struct err *err)
{
    return conf_dump(conf, &top_schema, err);
}

int coordinator_conf_zone(const struct coordinator_conf *conf, const char *name)
{
    for (unsigned i = 0; i < conf->zones_count; i++) {
        if (strcmp(conf->zones[i].name, name) == 0)
            return (int)i;
    }
    return -1;
}

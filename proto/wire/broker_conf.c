/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/wire/broker_conf.h"

enum { PORT_MAX = 65535, HEARTBEAT_MIN_S = 5, HEARTBEAT_MAX_S = 600, VALUE_MAX = 4096 };

#define STRING(key, type, member)                                                                  \
    CYAML_FIELD_STRING_PTR(key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, type, member, 0,         \
                           VALUE_MAX)

static const cyaml_schema_field_t tls_fields[] = {
    CYAML_FIELD_BOOL("enabled", CYAML_FLAG_OPTIONAL, struct broker_tls_conf, enabled),
    STRING("ca_file", struct broker_tls_conf, ca_file),
    STRING("cert_file", struct broker_tls_conf, cert_file),
    STRING("key_file", struct broker_tls_conf, key_file),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t host_schema = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char *, 1, VALUE_MAX),
};

const cyaml_schema_field_t BROKER_CONF_FIELDS[] = {
    STRING("host", struct broker_conf, host),
    CYAML_FIELD_SEQUENCE("hosts", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct broker_conf,
                         hosts, &host_schema, 0, MQ_HOSTS_MAX),
    CYAML_FIELD_INT("port", CYAML_FLAG_OPTIONAL, struct broker_conf, port),
    STRING("vhost", struct broker_conf, vhost),
    STRING("user", struct broker_conf, user),
    STRING("password_file", struct broker_conf, password_file),
    CYAML_FIELD_INT("heartbeat_s", CYAML_FLAG_OPTIONAL, struct broker_conf, heartbeat_s),
    CYAML_FIELD_MAPPING("tls", CYAML_FLAG_OPTIONAL, struct broker_conf, tls, tls_fields),
    CYAML_FIELD_END,
};

static bool has(const char *text)
{
    return text && text[0] != '\0';
}

static bool check_hosts(const struct broker_conf *conf, const char *origin, struct err *err)
{
    if (has(conf->host) && conf->hosts_count)
        return err_set(err, ERR_BAD_CONFIG, 0,
                       "%s: broker.host and broker.hosts exclude each other: put all into hosts",
                       origin);
    for (unsigned i = 0; i < conf->hosts_count; i++) {
        int unused_port;
        SCOPED_FREE char *unused_name = NULL;
        if (!mq_parse_host(conf->hosts[i], &unused_name, &unused_port, err))
            return err_wrap(err, "%s: broker.hosts", origin);
    }
    return true;
}

static bool check(const struct broker_conf *conf, const char *origin, struct err *err)
{
    if (!has(conf->user))
        return err_set(err, ERR_BAD_CONFIG, 0,
                       "%s: broker.user is missing: name the broker account", origin);
    if (!has(conf->password_file))
        return err_set(err, ERR_BAD_CONFIG, 0,
                       "%s: broker.password_file is missing: name a file with the password of '%s'",
                       origin, conf->user);
    if (conf->port < 0 || conf->port > PORT_MAX)
        return err_set(err, ERR_BAD_CONFIG, 0, "%s: broker.port %d is not within 1..%d", origin,
                       conf->port, PORT_MAX);
    if (conf->heartbeat_s != 0 &&
        (conf->heartbeat_s < HEARTBEAT_MIN_S || conf->heartbeat_s > HEARTBEAT_MAX_S))
        return err_set(err, ERR_BAD_CONFIG, 0, "%s: broker.heartbeat_s %d is not within %d..%d",
                       origin, conf->heartbeat_s, HEARTBEAT_MIN_S, HEARTBEAT_MAX_S);
    if (has(conf->tls.cert_file) != has(conf->tls.key_file))
        return err_set(err, ERR_BAD_CONFIG, 0,
                       "%s: broker.tls.cert_file and broker.tls.key_file go together", origin);
    if (!conf->tls.enabled && (has(conf->tls.ca_file) || has(conf->tls.cert_file)))
        return err_set(err, ERR_BAD_CONFIG, 0,
                       "%s: broker.tls names certificates but is off: set broker.tls.enabled: true",
                       origin);
    return check_hosts(conf, origin, err);
}

bool broker_conf_apply(const struct broker_conf *conf, const char *origin, struct mq_opts *ret_opts,
                       struct err *err)
{
    if (!check(conf, origin, err))
        return false;
    ret_opts->host = has(conf->host) ? conf->host : "localhost";
    ret_opts->hosts = (const char *const *)conf->hosts;
    ret_opts->host_count = conf->hosts_count;
    ret_opts->port = conf->port;
    ret_opts->vhost = has(conf->vhost) ? conf->vhost : NULL;
    ret_opts->user = conf->user;
    ret_opts->password_file = conf->password_file;
    ret_opts->heartbeat_s = conf->heartbeat_s;
    ret_opts->tls = (struct mq_tls){
        .enabled = conf->tls.enabled,
        .ca_file = has(conf->tls.ca_file) ? conf->tls.ca_file : NULL,
        .cert_file = has(conf->tls.cert_file) ? conf->tls.cert_file : NULL,
        .key_file = has(conf->tls.key_file) ? conf->tls.key_file : NULL,
    };
    return true;
}

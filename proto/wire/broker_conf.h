/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The `broker:` section that the configuration files of all three programs share:
 *
 *     broker:
 *       host: mq1.example.org        # default localhost
 *       hosts: [mq1, "mq2:5673"]     # instead of host: the nodes of a cluster, tried in turn
 *       port: 5671                   # default 5672, or 5671 with TLS
 *       vhost: /oxbow                # default /
 *       user: oxbow-client
 *       password_file: /etc/oxbow/broker-password
 *       heartbeat_s: 20
 *       tls:
 *         enabled: true
 *         ca_file: /etc/oxbow/broker-ca.pem
 *         cert_file: /etc/oxbow/client.pem
 *         key_file: /etc/oxbow/client.key
 *
 * A program's schema takes it as
 *     CYAML_FIELD_MAPPING("broker", CYAML_FLAG_OPTIONAL, struct x_conf, broker, BROKER_CONF_FIELDS)
 *
 * Ownership: the strings belong to the loaded configuration (conf_free). Threads: reentrant.
 */
#pragma once

#include <cyaml/cyaml.h>

#include "proto/base/err.h"
#include "proto/wire/mq.h"

struct broker_tls_conf {
    bool enabled;
    char *ca_file; /* NULL = the system's */
    char *cert_file, *key_file;
};

/* All optional in the file: absent strings are NULL, absent numbers 0. */
struct broker_conf {
    char *host;
    char **hosts;
    unsigned hosts_count;
    int port;
    char *vhost;
    char *user;
    char *password_file;
    int heartbeat_s;
    struct broker_tls_conf tls;
};

extern const cyaml_schema_field_t BROKER_CONF_FIELDS[];

/* Checks the section and writes host or hosts, port, vhost, user, password_file, tls and
 * heartbeat_s of `ret_opts` (borrowed strings; other members are left as they are). `origin` names
 * the file in messages. Errors: bad-config that names the key and what to do. */
bool broker_conf_apply(const struct broker_conf *conf, const char *origin, struct mq_opts *ret_opts,
                       struct err *err);

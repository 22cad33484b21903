/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the broker is and who we are there: configuration file and options.
 *
 * The file is the first that exists of: --config (or OXBOW_CONFIG),
 * $XDG_CONFIG_HOME/oxbow/oxbow.yaml
 * (~/.config/oxbow/oxbow.yaml), /etc/oxbow/oxbow.yaml. Options win over the file. See
 * oxbow.yaml(5). Passwords come from files only.
 *
 * Threads: one.
 */
#pragma once

#include <argp.h>

#include "proto/base/conf.h"
#include "proto/wire/broker_conf.h"

/* The options as given; strings are borrowed from argv. */
struct connect_args {
    const char *config;
    const char *host, *vhost, *user, *password_file;
    const char *ca_file, *cert_file, *key_file;
    int port; /* 0 = not given */
    bool tls;
};
/* argp child; its input is a struct connect_args. */
extern const struct argp connect_argp;

/* The configuration file's schema: the sample in deploy/ is tested against it. */
extern const cyaml_schema_value_t CONNECT_CONF_SCHEMA;

struct connect;

/* Find and read the configuration and put the options over it. The result owns what
 * connect_mq_opts() gives out. NULL on error: bad-config, permission, not-found (password file). */
struct connect *connect_load(const struct connect_args *args, struct err *err);
void connect_free(struct connect *c);
DEFINE_SCOPED(connect, connect_free);

/* host or hosts, port, vhost, user, password_file, tls, heartbeat_s and connection_name are set;
 * the rest is zero. Borrowed. */
const struct mq_opts *connect_mq_opts(const struct connect *c);
/* "mq1.example.org:5671", for messages. Borrowed. */
const char *connect_address(const struct connect *c);

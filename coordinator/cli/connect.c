/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cli/connect.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "proto/base/file.h"

enum {
    KEY_CONFIG = 0x200,
    KEY_HOST,
    KEY_PORT,
    KEY_VHOST,
    KEY_USER,
    KEY_PASSWORD_FILE,
    KEY_TLS,
    KEY_CA_FILE,
    KEY_CERT_FILE,
    KEY_KEY_FILE,
};

#define SYSTEM_CONFIG "/etc/oxbow/oxbow.yaml"

/* --- Options ---------------------------------------------------------------------------------- */
static int parse_port(const char *text, struct argp_state *state)
{
    char *end;
    errno = 0;
    long port = strtol(text, &end, 10);
    if (end == text || *end || errno || port < 1 || port > 65535) {
        argp_error(state, "--broker-port '%s' is not a port (1..65535)", text);
        return -1;
    }
    return (int)port;
}

static error_t parse_connect(int key, char *arg, struct argp_state *state)
{
    struct connect_args *args = state->input;
    switch (key) {
    case KEY_CONFIG:
        args->config = arg;
        return 0;
    case KEY_HOST:
        args->host = arg;
        return 0;
    case KEY_PORT:
        args->port = parse_port(arg, state);
        return args->port < 0 ? EINVAL : 0;
    case KEY_VHOST:
        args->vhost = arg;
        return 0;
    case KEY_USER:
        args->user = arg;
        return 0;
    case KEY_PASSWORD_FILE:
        args->password_file = arg;
        return 0;
    case KEY_TLS:
        args->tls = true;
        return 0;
    case KEY_CA_FILE:
        args->ca_file = arg;
        return 0;
    case KEY_CERT_FILE:
        args->cert_file = arg;
        return 0;
    case KEY_KEY_FILE:
        args->key_file = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option connect_options[] = {
    {.doc = "Broker (each wins over the configuration file):", .group = 9},
    {.name = "config",
     .key = KEY_CONFIG,
     .arg = "FILE",
     .doc = "Configuration file instead of ~/.config/oxbow/oxbow.yaml or " SYSTEM_CONFIG},
    {.name = "broker-host", .key = KEY_HOST, .arg = "HOST", .doc = "Name or address of the broker"},
    {.name = "broker-port",
     .key = KEY_PORT,
     .arg = "PORT",
     .doc = "Default 5672, or 5671 with TLS"},
    {.name = "broker-vhost", .key = KEY_VHOST, .arg = "VHOST", .doc = "Default /"},
    {.name = "broker-user", .key = KEY_USER, .arg = "USER", .doc = "Account at the broker"},
    {.name = "broker-password-file",
     .key = KEY_PASSWORD_FILE,
     .arg = "FILE",
     .doc = "File with its password"},
    {.name = "broker-tls", .key = KEY_TLS, .doc = "Use TLS"},
    {.name = "broker-ca-file",
     .key = KEY_CA_FILE,
     .arg = "FILE",
     .doc = "Trust these CA certificates (implies --broker-tls)"},
    {.name = "broker-cert-file",
     .key = KEY_CERT_FILE,
     .arg = "FILE",
     .doc = "Client certificate (implies --broker-tls)"},
    {.name = "broker-key-file",
     .key = KEY_KEY_FILE,
     .arg = "FILE",
     .doc = "Key of the client certificate"},
    {0},
};
const struct argp connect_argp = {.options = connect_options, .parser = parse_connect};

/* --- Configuration ---------------------------------------------------------------------------- */
struct connect_conf {
    struct broker_conf broker;
};

static const cyaml_schema_field_t conf_fields[] = {
    CYAML_FIELD_MAPPING("broker", CYAML_FLAG_OPTIONAL, struct connect_conf, broker,
                        BROKER_CONF_FIELDS),
    CYAML_FIELD_END,
};

const cyaml_schema_value_t CONNECT_CONF_SCHEMA = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct connect_conf, conf_fields),
};

struct connect {
    struct connect_conf *conf; /* as read; NULL without a file */
    char *origin;              /* the file, or "options" */
    char *address;
    char *name;
    struct mq_opts opts;
};

static char *user_config_path(void)
{
    const char *xdg = getenv("XDG_CONFIG_HOME");
    if (xdg && xdg[0] == '/')
        return xasprintf("%s/oxbow/oxbow.yaml", xdg);
    const char *home = getenv("HOME");
    return home && home[0] == '/' ? xasprintf("%s/.config/oxbow/oxbow.yaml", home) : NULL;
}

/* The file to read, or NULL when there is none. The caller frees. */
static char *find_config(const struct connect_args *args)
{
    const char *env = getenv("OXBOW_CONFIG");
    if (args->config)
        return xstrdup(args->config);
    if (env && env[0])
        return xstrdup(env);
    SCOPED_FREE char *user = user_config_path();
    if (user && access(user, F_OK) == 0)
        return TAKE(user);
    return access(SYSTEM_CONFIG, F_OK) == 0 ? xstrdup(SYSTEM_CONFIG) : NULL;
}

/* argv is never written through these: the configuration's strings are just not const. */
static void put(char **member, const char *option)
{
    if (option)
        memcpy(member, &option, sizeof option);
}

static void override(struct broker_conf *b, const struct connect_args *args)
{
    put(&b->host, args->host);
    if (args->host)
        b->hosts_count = 0;
    put(&b->vhost, args->vhost);
    put(&b->user, args->user);
    put(&b->password_file, args->password_file);
    put(&b->tls.ca_file, args->ca_file);
    put(&b->tls.cert_file, args->cert_file);
    put(&b->tls.key_file, args->key_file);
    if (args->port)
        b->port = args->port;
    if (args->tls || args->ca_file || args->cert_file)
        b->tls.enabled = true;
}

/* Say now, and in plain words, what would otherwise look like a broker's refusal. */
static bool check_password_file(const char *path, struct err *err)
{
    char *secret = file_read_secret(path, err);
    if (!secret)
        return err_wrap(err, "broker password");
    explicit_bzero(secret, strlen(secret));
    free(secret);
    return true;
}

static bool fill(struct connect *c, const struct connect_args *args, struct err *err)
{
    struct broker_conf merged = c->conf ? c->conf->broker : (struct broker_conf){0};
    override(&merged, args);
    if (!c->conf && !merged.user)
        return err_set(err, ERR_BAD_CONFIG, 0,
                       "no configuration: neither ~/.config/oxbow/oxbow.yaml nor " SYSTEM_CONFIG
                       " exists and no --broker-user was given; see oxbow.yaml(5)");
    if (!broker_conf_apply(&merged, c->origin, &c->opts, err))
        return false;
    int port = c->opts.port ? c->opts.port : c->opts.tls.enabled ? 5671 : 5672;
    c->address = merged.hosts_count
                     ? xasprintf("%s%s", merged.hosts[0], merged.hosts_count > 1 ? ", ..." : "")
                     : xasprintf("%s:%d", c->opts.host, port);
    c->name = xasprintf("oxbow (pid %d)", (int)getpid());
    c->opts.connection_name = c->name;
    return check_password_file(c->opts.password_file, err);
}

struct connect *connect_load(const struct connect_args *args, struct err *err)
{
    SCOPED(connect) struct connect *c = ALLOC_NEW(struct connect);
    SCOPED_FREE char *path = find_config(args);
    if (path) {
        c->conf = conf_load(path, &CONNECT_CONF_SCHEMA, err);
        if (!c->conf)
            return NULL;
    }
    c->origin = path ? TAKE(path) : xstrdup("options");
    return fill(c, args, err) ? TAKE(c) : NULL;
}

void connect_free(struct connect *c)
{
    if (!c)
        return;
    conf_free(c->conf, &CONNECT_CONF_SCHEMA);
    free(c->origin);
    free(c->address);
    free(c->name);
    free(c);
}

const struct mq_opts *connect_mq_opts(const struct connect *c)
{
    return &c->opts;
}

const char *connect_address(const struct connect *c)
{
    return c->address;
}

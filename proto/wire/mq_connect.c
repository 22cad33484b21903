/* SPDX-License-Identifier: Apache-2.0 */
/* Getting connected, and what the broker's refusals mean. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <amqp_ssl_socket.h>
#include <amqp_tcp_socket.h>

#include "proto/base/file.h"
#include "proto/base/log.h"
#include "proto/wire/mq_internal.h"

/* Where distributions keep the bundle of public CAs. */
static const char *const system_bundles[] = {
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
};

static struct timeval timeval_of(int ms)
{
    return (struct timeval){.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
}

/* --- What a refusal means -------------------------------------------------------------------- */
char *mq_text(amqp_bytes_t bytes)
{
    return xstrndup(bytes.bytes ? bytes.bytes : "", bytes.len);
}

bool mq_close_error(struct err *err, uint16_t code, amqp_bytes_t text)
{
    SCOPED_FREE char *why = mq_text(text);
    switch (code) {
    case AMQP_ACCESS_REFUSED: /* login, or a right of the user */
    case AMQP_NOT_ALLOWED:    /* no such virtual host, or not for this user */
        return err_set(err, ERR_BROKER_AUTH, code, "the broker refused: %s", why);
    case AMQP_NOT_FOUND:
        return err_set(err, ERR_BROKER_TOPOLOGY, code,
                       "the broker refused: %s (the coordinator declares it when it connects: is "
                       "it running?)",
                       why);
    case AMQP_PRECONDITION_FAILED:
        if (strstr(why, "inequivalent arg"))
            return err_set(err, ERR_BROKER_TOPOLOGY, code,
                           "it exists with other arguments: %s; empty and delete it (rabbitmqctl "
                           "delete_queue NAME) so that it is declared anew, or use a virtual host "
                           "of its own",
                           why);
        return err_set(err, ERR_BROKER_TOPOLOGY, code, "the broker refused: %s", why);
    case AMQP_RESOURCE_LOCKED:
        return err_set(err, ERR_BROKER_TOPOLOGY, code,
                       "another connection holds it: %s (does another program run under this "
                       "name?)",
                       why);
    default:
        return err_set(err, ERR_BROKER_UNREACHABLE, code, "the broker closed the connection: %s",
                       why);
    }
}

bool mq_is_permanent(const struct err *err)
{
    return err->code == ERR_BROKER_AUTH || err->code == ERR_BROKER_TOPOLOGY ||
           err->code == ERR_BAD_CONFIG || err->code == ERR_PERMISSION || err->code == ERR_NOT_FOUND;
}

static bool status_error(struct err *err, int status)
{
    enum err_code code = ERR_BROKER_UNREACHABLE;
    const char *hint = "";
    if (status == AMQP_STATUS_SSL_PEER_VERIFY_FAILED) {
        code = ERR_BROKER_AUTH;
        hint = " (is tls.ca_file the CA that signed the broker's certificate?)";
    } else if (status == AMQP_STATUS_SSL_HOSTNAME_VERIFY_FAILED) {
        code = ERR_BROKER_AUTH;
        hint = " (the certificate is for another host name)";
    } else if (status == AMQP_STATUS_BROKER_UNSUPPORTED_SASL_METHOD) {
        code = ERR_BROKER_AUTH;
    }
    return err_set(err, code, 0, "%s%s", amqp_error_string2(status), hint);
}

void mq_break(struct mq *mq, const struct err *why)
{
    err_keep_first(&mq->broken, why);
}

void mq_break_status(struct mq *mq, int status, const char *what)
{
    struct err err = ERR_INIT;
    status_error(&err, status);
    err_wrap(&err, "%s", what);
    mq_break(mq, &err);
}

bool mq_reply_error(struct mq *mq, amqp_channel_t channel, amqp_rpc_reply_t reply, struct err *err,
                    const char *fmt, ...)
{
    bool connection_gone = true;
    if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION) {
        status_error(err, reply.library_error);
    } else if (reply.reply_type == AMQP_RESPONSE_SERVER_EXCEPTION &&
               reply.reply.id == AMQP_CHANNEL_CLOSE_METHOD) {
        const amqp_channel_close_t *m = reply.reply.decoded;
        mq_close_error(err, m->reply_code, m->reply_text);
        amqp_channel_close_ok_t ok = {0};
        connection_gone =
            amqp_send_method(mq->conn, channel, AMQP_CHANNEL_CLOSE_OK_METHOD, &ok) != 0;
    } else if (reply.reply_type == AMQP_RESPONSE_SERVER_EXCEPTION &&
               reply.reply.id == AMQP_CONNECTION_CLOSE_METHOD) {
        const amqp_connection_close_t *m = reply.reply.decoded;
        mq_close_error(err, m->reply_code, m->reply_text);
        amqp_connection_close_ok_t ok = {0};
        (void)amqp_send_method(mq->conn, 0, AMQP_CONNECTION_CLOSE_OK_METHOD, &ok);
    } else {
        err_set(err, ERR_BROKER_UNREACHABLE, 0, "the broker gave an answer nobody expected");
    }
    char what[ERR_MESSAGE_BYTES / 2];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    err_wrap(err, "%s", what);
    if (connection_gone)
        mq_break(mq, err);
    return false;
}

/* --- Time ------------------------------------------------------------------------------------ */
static int answer_ms(const struct mq *mq)
{
    if (mq->attempt_until_ms == 0)
        return MQ_OPERATION_MS;
    int64_t left_ms = mq->attempt_until_ms - mq_now_ms(mq);
    return left_ms < MQ_ANSWER_MIN_MS ? MQ_ANSWER_MIN_MS : (int)left_ms;
}

void mq_limit_answer(struct mq *mq)
{
    struct timeval limit = timeval_of(answer_ms(mq));
    amqp_set_rpc_timeout(mq->conn, &limit);
}

/* --- Hosts ----------------------------------------------------------------------------------- */
bool mq_parse_host(const char *text, char **ret_name, int *ret_port, struct err *err)
{
    const char *name = text, *end = text + strlen(text), *port = NULL;
    if (text[0] == '[') { /* an IPv6 address */
        const char *close = strchr(text, ']');
        if (!close || (close[1] != '\0' && close[1] != ':'))
            return err_set(err, ERR_BAD_CONFIG, 0, "'%s' is not [ADDRESS]:PORT", text);
        name = text + 1;
        end = close;
        port = close[1] == ':' ? close + 2 : NULL;
    } else if (strchr(text, ':') && strchr(text, ':') == strrchr(text, ':')) {
        end = strchr(text, ':');
        port = end + 1;
    }
    char *rest = NULL;
    long number = port ? strtol(port, &rest, 10) : 0;
    if (name == end ||
        (port && (*port < '0' || *port > '9' || *rest || number < 1 || number > 65535)))
        return err_set(err, ERR_BAD_CONFIG, 0, "'%s' is not HOST or HOST:PORT", text);
    *ret_name = xstrndup(name, (size_t)(end - name));
    *ret_port = (int)number;
    return true;
}

/* --- Socket and login ------------------------------------------------------------------------ */
static const char *ca_file_of(const struct mq_tls *tls)
{
    if (tls->ca_file)
        return tls->ca_file;
    for (size_t i = 0; i < ARRAY_LEN(system_bundles); i++) {
        if (access(system_bundles[i], R_OK) == 0)
            return system_bundles[i];
    }
    return NULL;
}

/* The library says only that a file did not load: say which, and why. */
static bool check_readable(const char *path, const char *key, struct err *err)
{
    if (!path || access(path, R_OK) != 0)
        return err_set(err, ERR_BAD_CONFIG, errno, "%s '%s': %s", key, path ? path : "(none found)",
                       path ? strerror(errno) : "name one");
    return true;
}

static bool set_up_tls(const struct mq *mq, amqp_socket_t *socket, struct err *err)
{
    const struct mq_tls *tls = &mq->opts.tls;
    amqp_ssl_socket_set_ssl_versions(socket, AMQP_TLSv1_2, AMQP_TLSvLATEST);
    amqp_ssl_socket_set_verify_peer(socket, !tls->insecure_skip_verify);
    amqp_ssl_socket_set_verify_hostname(socket, !tls->insecure_skip_verify);
    if (tls->insecure_skip_verify) {
        log_warn("broker_certificate_not_verified", LOG_STR("host", mq_host(mq)->name));
    } else {
        const char *ca = ca_file_of(tls);
        if (!check_readable(ca, "tls.ca_file", err))
            return false;
        if (amqp_ssl_socket_set_cacert(socket, ca) != AMQP_STATUS_OK)
            return err_set(err, ERR_BAD_CONFIG, 0, "tls.ca_file '%s' holds no PEM certificate", ca);
    }
    if (!tls->cert_file)
        return true;
    if (!check_readable(tls->cert_file, "tls.cert_file", err) ||
        !check_readable(tls->key_file, "tls.key_file", err))
        return false;
    if (amqp_ssl_socket_set_key(socket, tls->cert_file, tls->key_file) != AMQP_STATUS_OK)
        return err_set(err, ERR_BAD_CONFIG, 0,
                       "tls.cert_file '%s' and tls.key_file '%s' are not a certificate chain and "
                       "its key in PEM",
                       tls->cert_file, tls->key_file);
    return true;
}

static bool open_socket(struct mq *mq, struct err *err)
{
    bool use_tls = mq->opts.tls.enabled;
    amqp_socket_t *socket = use_tls ? amqp_ssl_socket_new(mq->conn) : amqp_tcp_socket_new(mq->conn);
    if (!socket)
        return err_set(err, ERR_INTERNAL, 0, "no socket for the broker's connection");
    if (use_tls && !set_up_tls(mq, socket, err))
        return false;
    struct timeval limit = timeval_of(answer_ms(mq));
    int status = amqp_socket_open_noblock(socket, mq_host(mq)->name, mq_host(mq)->port, &limit);
    if (status == AMQP_STATUS_OK)
        return true;
    if (status == AMQP_STATUS_SOCKET_ERROR) /* the library does not keep the reason */
        return err_set(err, ERR_BROKER_UNREACHABLE, 0,
                       "cannot connect (is the broker running, and is this its port?)");
    return status_error(err, status);
}

static bool log_in(struct mq *mq, struct err *err)
{
    struct timeval limit = timeval_of(answer_ms(mq));
    amqp_set_handshake_timeout(mq->conn, &limit);
    amqp_table_entry_t capabilities[] = {
        {.key = amqp_cstring_bytes("connection.blocked"),
         .value = {.kind = AMQP_FIELD_KIND_BOOLEAN, .value = {.boolean = 1}}},
        {.key = amqp_cstring_bytes("consumer_cancel_notify"),
         .value = {.kind = AMQP_FIELD_KIND_BOOLEAN, .value = {.boolean = 1}}},
    };
    amqp_table_entry_t entries[] = {
        {.key = amqp_cstring_bytes("capabilities"),
         .value = {.kind = AMQP_FIELD_KIND_TABLE,
                   .value = {.table = {ARRAY_LEN(capabilities), capabilities}}}},
        {.key = amqp_cstring_bytes("connection_name"),
         .value = {.kind = AMQP_FIELD_KIND_UTF8,
                   .value = {.bytes = amqp_cstring_bytes(mq->opts.connection_name)}}},
    };
    amqp_table_t properties = {ARRAY_LEN(entries), entries};
    amqp_rpc_reply_t reply;
    if (!mq->opts.user) { /* the certificate says who we are */
        reply = amqp_login_with_properties(mq->conn, mq->opts.vhost, 0, MQ_FRAME_MAX,
                                           mq->opts.heartbeat_s, &properties,
                                           AMQP_SASL_METHOD_EXTERNAL, "");
    } else {
        char *password = file_read_secret(mq->opts.password_file, err);
        if (!password)
            return false;
        reply = amqp_login_with_properties(mq->conn, mq->opts.vhost, 0, MQ_FRAME_MAX,
                                           mq->opts.heartbeat_s, &properties,
                                           AMQP_SASL_METHOD_PLAIN, mq->opts.user, password);
        explicit_bzero(password, strlen(password));
        free(password);
    }
    if (reply.reply_type != AMQP_RESPONSE_NORMAL)
        return mq_reply_error(mq, 0, reply, err, "log in as '%s' to '%s'",
                              mq->opts.user ? mq->opts.user : "(certificate)", mq->opts.vhost);
    return true;
}

bool mq_channel_open(struct mq *mq, amqp_channel_t channel, struct err *err)
{
    mq_limit_answer(mq);
    if (amqp_channel_open(mq->conn, channel))
        return true;
    return mq_reply_error(mq, channel, amqp_get_rpc_reply(mq->conn), err, "open a channel");
}

static bool connect_to(struct mq *mq, struct err *err)
{
    if (!open_socket(mq, err) || !log_in(mq, err))
        return err_wrap(err, "broker %s:%d", mq_host(mq)->name, mq_host(mq)->port);
    mq->heartbeat_s = amqp_get_heartbeat(mq->conn);
    if (mq->heartbeat_s <= 0)
        mq->heartbeat_s = mq->opts.heartbeat_s;
    if (!mq_channel_open(mq, MQ_CHANNEL_PUBLISH, err))
        return false;
    if (!amqp_confirm_select(mq->conn, MQ_CHANNEL_PUBLISH))
        return mq_reply_error(mq, MQ_CHANNEL_PUBLISH, amqp_get_rpc_reply(mq->conn), err,
                              "ask for confirms");
    return mq_declare_all(mq, false, err);
}

bool mq_open(struct mq *mq, struct err *err)
{
    mq->conn = amqp_new_connection();
    if (!mq->conn)
        abort(); /* out of memory */
    mq->declare_is_open = false;
    mq->heartbeat_s = 0;
    if (connect_to(mq, err))
        return true;
    mq_close(mq, !err_is_set(&mq->broken) && mq->heartbeat_s > 0 /* logged in */);
    return false;
}

void mq_close(struct mq *mq, bool polite)
{
    if (!mq->conn)
        return;
    if (polite) {
        struct timeval limit = timeval_of(MQ_CLOSE_MS);
        amqp_set_rpc_timeout(mq->conn, &limit);
        amqp_connection_close(mq->conn, AMQP_REPLY_SUCCESS);
    }
    amqp_destroy_connection(mq->conn);
    mq->conn = NULL;
    err_clear(&mq->broken);
}

/* --- Declarations ---------------------------------------------------------------------------- */
struct arguments {
    amqp_table_entry_t entries[8];
    int count;
};

static void add_text(struct arguments *args, const char *key, const char *value)
{
    args->entries[args->count++] = (amqp_table_entry_t){
        .key = amqp_cstring_bytes(key),
        .value = {.kind = AMQP_FIELD_KIND_UTF8, .value = {.bytes = amqp_cstring_bytes(value)}}};
}

static void add_number(struct arguments *args, const char *key, int64_t value)
{
    args->entries[args->count++] =
        (amqp_table_entry_t){.key = amqp_cstring_bytes(key),
                             .value = {.kind = AMQP_FIELD_KIND_I64, .value = {.i64 = value}}};
}

static amqp_rpc_reply_t declare_queue(struct mq *mq, const struct mq_declare *d)
{
    struct arguments args = {.count = 0};
    if (d->quorum)
        add_text(&args, "x-queue-type", "quorum");
    if (d->single_active)
        args.entries[args.count++] = (amqp_table_entry_t){
            .key = amqp_cstring_bytes("x-single-active-consumer"),
            .value = {.kind = AMQP_FIELD_KIND_BOOLEAN, .value = {.boolean = 1}}};
    if (d->delivery_limit)
        add_number(&args, "x-delivery-limit", d->delivery_limit);
    if (d->dead_letter_exchange)
        add_text(&args, "x-dead-letter-exchange", d->dead_letter_exchange);
    if (d->message_ttl_ms)
        add_number(&args, "x-message-ttl", d->message_ttl_ms);
    amqp_queue_declare(mq->conn, MQ_CHANNEL_DECLARE, amqp_cstring_bytes(d->name), 0, !d->exclusive,
                       d->exclusive, d->exclusive,
                       (amqp_table_t){.num_entries = args.count, .entries = args.entries});
    return amqp_get_rpc_reply(mq->conn);
}

static bool declare_one(struct mq *mq, const struct mq_declare *d, struct err *err)
{
    amqp_rpc_reply_t reply = {.reply_type = AMQP_RESPONSE_NORMAL};
    switch (d->kind) {
    case MQ_EXCHANGE:
        amqp_exchange_declare(mq->conn, MQ_CHANNEL_DECLARE, amqp_cstring_bytes(d->name),
                              amqp_cstring_bytes(d->type), 0, 1, 0, 0, amqp_empty_table);
        reply = amqp_get_rpc_reply(mq->conn);
        break;
    case MQ_QUEUE:
        reply = declare_queue(mq, d);
        break;
    case MQ_BIND:
        amqp_queue_bind(mq->conn, MQ_CHANNEL_DECLARE, amqp_cstring_bytes(d->name),
                        amqp_cstring_bytes(d->exchange), amqp_cstring_bytes(d->key),
                        amqp_empty_table);
        reply = amqp_get_rpc_reply(mq->conn);
        break;
    case MQ_END:
        break;
    }
    if (reply.reply_type == AMQP_RESPONSE_NORMAL)
        return true;
    mq->declare_is_open = false;
    return mq_reply_error(mq, MQ_CHANNEL_DECLARE, reply, err, "declare %s '%s'",
                          d->kind == MQ_EXCHANGE ? "exchange"
                          : d->kind == MQ_QUEUE  ? "queue"
                                                 : "binding of queue",
                          d->name);
}

static bool open_declare_channel(struct mq *mq, struct err *err)
{
    if (!mq->declare_is_open && !mq_channel_open(mq, MQ_CHANNEL_DECLARE, err))
        return false;
    mq->declare_is_open = true;
    return true;
}

/* The broker closes the channel when the queue is not there. False: the connection is unusable. */
static bool look_for(struct mq *mq, const struct mq_declare *d, bool *ret_is_there, struct err *err)
{
    amqp_queue_declare(mq->conn, MQ_CHANNEL_DECLARE, amqp_cstring_bytes(d->name), 1, 0, 0, 0,
                       amqp_empty_table);
    amqp_rpc_reply_t reply = amqp_get_rpc_reply(mq->conn);
    *ret_is_there = reply.reply_type == AMQP_RESPONSE_NORMAL;
    if (*ret_is_there)
        return true;
    mq->declare_is_open = false;
    struct err why = ERR_INIT;
    mq_reply_error(mq, MQ_CHANNEL_DECLARE, reply, &why, "look for queue '%s'", d->name);
    if (!err_is_set(&mq->broken) && why.sys == AMQP_NOT_FOUND)
        return open_declare_channel(mq, err);
    *err = why;
    return false;
}

/* `deleted`: an entry for each declaration, set for the queues that had to be made anew; or NULL.
 */
static bool declare_list(struct mq *mq, bool *deleted, struct err *err)
{
    if (!open_declare_channel(mq, err))
        return false;
    for (size_t i = 0; mq->opts.declare && mq->opts.declare[i].kind != MQ_END; i++) {
        const struct mq_declare *d = &mq->opts.declare[i];
        bool is_there = true;
        mq_limit_answer(mq);
        if (deleted && d->kind == MQ_QUEUE && !d->exclusive && !look_for(mq, d, &is_there, err))
            return false;
        if (!declare_one(mq, d, err))
            return false;
        if (deleted)
            deleted[i] = !is_there;
        amqp_maybe_release_buffers_on_channel(mq->conn, MQ_CHANNEL_DECLARE);
    }
    return true;
}

bool mq_declare_all(struct mq *mq, bool tell, struct err *err)
{
    size_t count = 0;
    while (mq->opts.declare && mq->opts.declare[count].kind != MQ_END)
        count++;
    SCOPED_FREE bool *deleted = xcalloc(count + 1, sizeof *deleted);
    if (!declare_list(mq, tell ? deleted : NULL, err))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (!deleted[i])
            continue;
        mq->called = true;
        log_warn("queue_was_deleted", LOG_STR("queue", mq->opts.declare[i].name));
        if (mq->opts.handlers.on_deleted)
            mq->opts.handlers.on_deleted(mq->opts.ctx, mq->opts.declare[i].name);
    }
    return true;
}

bool mq_declare_replies(struct mq *mq, struct mq_sub *sub, struct err *err)
{
    if (!open_declare_channel(mq, err))
        return false;
    const amqp_queue_declare_ok_t *ok = amqp_queue_declare(
        mq->conn, MQ_CHANNEL_DECLARE, amqp_empty_bytes, 0, 0, 1, 1, amqp_empty_table);
    if (!ok) {
        mq->declare_is_open = false;
        return mq_reply_error(mq, MQ_CHANNEL_DECLARE, amqp_get_rpc_reply(mq->conn), err,
                              "declare a reply queue");
    }
    free(sub->queue);
    sub->queue = mq_text(ok->queue);
    amqp_maybe_release_buffers_on_channel(mq->conn, MQ_CHANNEL_DECLARE);
    return true;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * proto/wire/mq against a real broker. Run by tests/integration/mq, which starts the brokers and
 * says in the environment where they are: BROKER (the tool), BROKER_DIR (with TLS), BROKER_TLS_DIR
 * (wants client certificates), WRONG_NAME_PORT (TLS with a certificate for another host).
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/base/file.h"
#include "proto/base/id.h"
#include "proto/wire/mq.h"
#include "proto/wire/topology.h"

extern char **environ;

enum { PATIENCE_MS = 60000, GOT_MAX = 2048 };

/* --- The broker tool ------------------------------------------------------------------------- */
static pid_t spawn(char *const argv[])
{
    pid_t pid = -1;
    if (!argv[0] || posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ) != 0)
        fail_msg("cannot run %s", argv[0] ? argv[0] : "the broker tool: BROKER is not set");
    return pid;
}

static int wait_for_exit(pid_t pid)
{
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static pid_t broker_start_verb(const char *verb)
{
    return spawn((char *[]){getenv("BROKER"), (char *)(uintptr_t)verb, getenv("BROKER_DIR"), NULL});
}

#define CTL_MAX 8
static void ctl_all(const char *const *args)
{
    char *argv[CTL_MAX + 4] = {getenv("BROKER"), (char *)(uintptr_t) "ctl", getenv("BROKER_DIR")};
    for (int i = 0; args[i] && i < CTL_MAX; i++)
        argv[3 + i] = (char *)(uintptr_t)args[i];
    assert_int_equal(wait_for_exit(spawn(argv)), 0);
}
#define ctl(...) ctl_all((const char *const[]){__VA_ARGS__, NULL})

/* The broker.env of a broker. */
struct place {
    char dir[256];
    int port, tls_port;
    char ca[300], cert[300], key[300];
};

static void read_place(const char *dir, struct place *p)
{
    char path[512], line[512];
    memset(p, 0, sizeof *p);
    snprintf(p->dir, sizeof p->dir, "%s", dir);
    snprintf(path, sizeof path, "%s/broker.env", dir);
    SCOPED_FILE FILE *f = fopen(path, "re");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, "PORT=", 5) == 0)
            p->port = (int)strtol(line + 5, NULL, 10);
        if (strncmp(line, "TLS_PORT=", 9) == 0)
            p->tls_port = (int)strtol(line + 9, NULL, 10);
        sscanf(line, "CA=%299s", p->ca);
        sscanf(line, "CLIENT_CERT=%299s", p->cert);
        sscanf(line, "CLIENT_KEY=%299s", p->key);
    }
}

/* --- One end of a conversation: an mq and what it was told ----------------------------------- */
struct got {
    uint64_t tag;
    char type[64], message_id[64], correlation_id[64], reply_to[128], content_type[64], queue[128];
    char body[128];
    size_t len;
    bool redelivered;
    int64_t delivery_count;
};

struct side {
    struct mq *mq;
    int connects, losses;
    struct err lost;
    int blocks, unblocks;
    char deleted[128];
    struct got got[GOT_MAX];
    size_t got_count;
    int confirmed, returned, nacked;
    uint8_t ends[GOT_MAX]; /* how often each token was told its end */
    bool ack, bury, hold;
    int slow_ms;
};

static void copy_text(char *out, size_t size, const char *text)
{
    snprintf(out, size, "%s", text ? text : "");
}

static void on_connected(void *ctx)
{
    ((struct side *)ctx)->connects++;
}

static void on_lost(void *ctx, const struct err *why)
{
    struct side *s = ctx;
    s->losses++;
    s->lost = *why;
}

static void on_delivery(void *ctx, const struct mq_delivery *d)
{
    struct side *s = ctx;
    assert_true(s->got_count < GOT_MAX);
    struct got *g = &s->got[s->got_count++];
    memset(g, 0, sizeof *g);
    g->tag = d->tag;
    g->len = d->len;
    g->redelivered = d->redelivered;
    g->delivery_count = d->delivery_count;
    copy_text(g->type, sizeof g->type, d->type);
    copy_text(g->message_id, sizeof g->message_id, d->message_id);
    copy_text(g->correlation_id, sizeof g->correlation_id, d->correlation_id);
    copy_text(g->reply_to, sizeof g->reply_to, d->reply_to);
    copy_text(g->content_type, sizeof g->content_type, d->content_type);
    copy_text(g->queue, sizeof g->queue, d->queue);
    memcpy(g->body, d->body, d->len < sizeof g->body - 1 ? d->len : sizeof g->body - 1);
    if (s->slow_ms)
        clock_sleep_ms(clock_system(), s->slow_ms);
    if (s->bury) {
        struct err why = ERR_INIT;
        struct wire_message m;
        assert_false(wire_decode(d->type, d->body, d->len, &m, &why));
        mq_bury(s->mq, d, &why);
    } else if (s->ack) {
        mq_ack(s->mq, d->tag);
    }
}

static void on_confirm(void *ctx, uint64_t token, enum mq_outcome outcome)
{
    struct side *s = ctx;
    assert_true(token < GOT_MAX);
    s->ends[token]++;
    s->confirmed += outcome == MQ_CONFIRMED;
    s->returned += outcome == MQ_RETURNED;
    s->nacked += outcome == MQ_NACKED;
}

static void on_blocked(void *ctx, bool blocked, const char *reason)
{
    struct side *s = ctx;
    if (blocked)
        assert_non_null(reason);
    *(blocked ? &s->blocks : &s->unblocks) += 1;
}

static void on_deleted(void *ctx, const char *queue)
{
    copy_text(((struct side *)ctx)->deleted, sizeof((struct side *)ctx)->deleted, queue);
}

static const struct mq_handlers handlers = {
    .on_connected = on_connected,
    .on_lost = on_lost,
    .on_delivery = on_delivery,
    .on_confirm = on_confirm,
    .on_blocked = on_blocked,
    .on_deleted = on_deleted,
};

static struct place main_place;

static struct mq_opts opts_for(const struct place *p, const char *role)
{
    /* mq_new() copies the strings, so two buffers that live until then are enough. */
    static char user[64], file[512];
    snprintf(user, sizeof user, "oxbow-%s", role);
    snprintf(file, sizeof file, "%s/%s.password", p->dir, role);
    return (struct mq_opts){.host = "localhost",
                            .port = p->port,
                            .user = user,
                            .password_file = file,
                            .connection_name = "test_mq",
                            .handlers = handlers};
}

static struct side *side_new(const struct mq_opts *opts)
{
    struct side *s = ALLOC_NEW(struct side);
    struct mq_opts o = *opts;
    o.ctx = s;
    s->mq = mq_new(&o);
    return s;
}

static void side_free(struct side *s)
{
    if (!s)
        return;
    mq_free(s->mq);
    free(s);
}
DEFINE_SCOPED(side, side_free);

/* Poll both ends until a condition holds; false when patience ends. */
#define PUMP_UNTIL(a, b, limit_ms, condition)                                                      \
    do {                                                                                           \
        int64_t end_ = clock_mono_ms(clock_system()) + (limit_ms);                                 \
        while (!(condition)) {                                                                     \
            if (clock_mono_ms(clock_system()) > end_)                                              \
                fail_msg("not within %d ms: %s (%s, %zu pending, last loss: %s)", (int)(limit_ms), \
                         #condition, mq_is_connected((a)->mq) ? "connected" : "not connected",     \
                         mq_pending((a)->mq), (a)->lost.message);                                  \
            pump_once(a);                                                                          \
            pump_once(b);                                                                          \
        }                                                                                          \
    } while (0)

static void pump_once(struct side *s)
{
    struct err err = ERR_INIT;
    if (s)
        assert_true(mq_poll(s->mq, NULL, 0, 10, &err));
}

static void pump_for(struct side *s, int ms)
{
    int64_t end = clock_mono_ms(clock_system()) + ms;
    while (clock_mono_ms(clock_system()) < end)
        pump_once(s);
}

static void publish(struct side *s, const char *exchange, const char *key, uint64_t token)
{
    struct err err = ERR_INIT;
    char body[64];
    snprintf(body, sizeof body, "{\"n\":%" PRIu64 "}", token);
    struct mq_message m = {.exchange = exchange,
                           .routing_key = key,
                           .type = WIRE_LIST,
                           .body = body,
                           .len = strlen(body),
                           .token = token};
    if (!mq_publish(s->mq, &m, &err))
        fail_msg("%s", err.message);
}

/* A durable quorum queue of this test alone. */
struct own_queue {
    char name[80];
    struct mq_declare declare[2];
};

static void own_queue(struct own_queue *q)
{
    char id[ID_BYTES];
    id_new(id);
    snprintf(q->name, sizeof q->name, "oxbow.test.%s", id);
    q->declare[0] = (struct mq_declare){.kind = MQ_QUEUE, .name = q->name, .quorum = true};
    q->declare[1] = (struct mq_declare){.kind = MQ_END};
}

static struct side *coordinator(const struct mq_declare *declare)
{
    struct mq_opts o = opts_for(&main_place, "coordinator");
    o.declare = declare;
    return side_new(&o);
}

/* --- Publishing and consuming ---------------------------------------------------------------- */
static void test_publish_and_consume(void **state)
{
    (void)state;
    struct own_queue q;
    own_queue(&q);
    SCOPED(side) struct side *s = coordinator(q.declare);
    mq_subscribe(s->mq, q.name, 10);
    s->ack = true;
    struct err err = ERR_INIT;
    struct mq_message m = {.exchange = "",
                           .routing_key = q.name,
                           .type = WIRE_BACKUP,
                           .message_id = "m-1",
                           .correlation_id = "c-1",
                           .reply_to = "somewhere",
                           .body = "{}",
                           .len = 2,
                           .token = 7};
    assert_true(mq_publish(s->mq, &m, &err)); /* before there is a connection */
    assert_false(mq_is_connected(s->mq));
    PUMP_UNTIL(s, NULL, PATIENCE_MS, s->got_count == 1 && s->confirmed == 1);
    assert_int_equal(s->ends[7], 1);
    assert_int_equal(s->connects, 1);
    assert_true(mq_is_connected(s->mq));
    assert_string_equal(s->got[0].type, "oxbow.backup.v1");
    assert_string_equal(s->got[0].message_id, "m-1");
    assert_string_equal(s->got[0].correlation_id, "c-1");
    assert_string_equal(s->got[0].reply_to, "somewhere");
    assert_string_equal(s->got[0].content_type, "application/json");
    assert_string_equal(s->got[0].queue, q.name);
    assert_string_equal(s->got[0].body, "{}");
    assert_false(s->got[0].redelivered);
    assert_int_equal(mq_pending(s->mq), 0);
    ctl("delete_queue", q.name);
}

static void test_many_in_flight(void **state)
{
    (void)state;
    struct own_queue q;
    own_queue(&q);
    SCOPED(side) struct side *s = coordinator(q.declare);
    mq_subscribe(s->mq, q.name, 100);
    s->ack = true;
    for (uint64_t i = 0; i < 2000; i++)
        publish(s, "", q.name, i);
    PUMP_UNTIL(s, NULL, PATIENCE_MS, s->got_count == 2000 && s->confirmed == 2000);
    for (int i = 0; i < 2000; i++) {
        char body[64];
        snprintf(body, sizeof body, "{\"n\":%d}", i);
        assert_string_equal(s->got[i].body, body); /* in order */
        assert_int_equal(s->ends[i], 1);
    }
    ctl("delete_queue", q.name);
}

static void test_unroutable(void **state)
{
    (void)state;
    SCOPED(side) struct side *s = coordinator(NULL);
    struct err err = ERR_INIT;
    publish(s, "", "oxbow.nobody", 0);
    struct mq_message m = {.exchange = "",
                           .routing_key = "oxbow.nobody",
                           .type = WIRE_LIST,
                           .body = "{}",
                           .len = 2,
                           .token = 1,
                           .optional_route = true};
    assert_true(mq_publish(s->mq, &m, &err));
    PUMP_UNTIL(s, NULL, PATIENCE_MS, mq_pending(s->mq) == 0);
    assert_int_equal(s->returned, 1);
    assert_int_equal(s->confirmed, 1);
    assert_int_equal(s->ends[0] + s->ends[1], 2);
    assert_int_equal(s->losses, 0);
}

/* An exchange that is not there, or not for us: the publish ends, and the others go on. */
static void test_exchange_refused(void **state)
{
    (void)state;
    struct own_queue q;
    own_queue(&q);
    SCOPED(side) struct side *s = coordinator(q.declare);
    publish(s, "oxbow.no-such-exchange", "k", 0);
    publish(s, "", q.name, 1);
    PUMP_UNTIL(s, NULL, PATIENCE_MS, mq_pending(s->mq) == 0);
    assert_int_equal(s->returned, 1);
    assert_int_equal(s->confirmed, 1);
    publish(s, "amq.topic", "k", 2);
    publish(s, "", q.name, 3);
    PUMP_UNTIL(s, NULL, PATIENCE_MS, mq_pending(s->mq) == 0);
    assert_int_equal(s->nacked, 1);
    assert_int_equal(s->confirmed, 2);
    for (int i = 0; i < 4; i++)
        assert_int_equal(s->ends[i], 1);
    ctl("delete_queue", q.name);
}

static void test_reject_and_redelivery(void **state)
{
    (void)state;
    struct own_queue q;
    own_queue(&q);
    SCOPED(side) struct side *s = coordinator(q.declare);
    mq_subscribe(s->mq, q.name, 1);
    publish(s, "", q.name, 0);
    PUMP_UNTIL(s, NULL, PATIENCE_MS, s->got_count == 1);
    mq_reject(s->mq, s->got[0].tag, true);
    PUMP_UNTIL(s, NULL, PATIENCE_MS, s->got_count == 2);
    assert_true(s->got[1].redelivered);
    assert_int_equal(s->got[1].delivery_count, 1);
    assert_string_equal(s->got[1].message_id, s->got[0].message_id);
    assert_true(s->got[1].tag != s->got[0].tag);
    mq_ack(s->mq, s->got[0].tag); /* already gone: nothing happens */
    mq_ack(s->mq, s->got[1].tag);
    mq_ack(s->mq, 12345678);
    pump_for(s, 300);
    assert_int_equal(s->got_count, 2);
    assert_int_equal(s->losses, 0);
    ctl("delete_queue", q.name);
}

/* prefetch bounds what is unacked; 0 pauses. */
static void test_prefetch_and_pause(void **state)
{
    (void)state;
    struct own_queue q;
    own_queue(&q);
    SCOPED(side) struct side *s = coordinator(q.declare);
    mq_subscribe(s->mq, q.name, 3);
    for (uint64_t i = 0; i < 10; i++)
        publish(s, "", q.name, i);
    PUMP_UNTIL(s, NULL, PATIENCE_MS, s->got_count == 3 && s->confirmed == 10);
    pump_for(s, 300);
    assert_int_equal(s->got_count, 3);
    mq_subscribe(s->mq, q.name, 0);
    pump_for(s, 100);
    for (int i = 0; i < 3; i++)
        mq_ack(s->mq, s->got[i].tag);
    pump_for(s, 500);
    assert_int_equal(s->got_count, 3);
    mq_subscribe(s->mq, q.name, 20);
    PUMP_UNTIL(s, NULL, PATIENCE_MS, s->got_count == 10);
    assert_int_equal(s->losses, 0);
    ctl("delete_queue", q.name);
}

static void test_replies(void **state)
{
    (void)state;
    struct mq_opts o = opts_for(&main_place, "client");
    SCOPED(side) struct side *client = side_new(&o);
    SCOPED(side) struct side *server = coordinator(NULL);
    assert_null(mq_reply_queue(client->mq));
    mq_subscribe_replies(client->mq);
    client->ack = true;
    struct err err = ERR_INIT;
    if (!mq_connect_once(client->mq, 30000, &err))
        fail_msg("%s", err.message);
    assert_non_null(mq_reply_queue(client->mq));
    publish(server, "", mq_reply_queue(client->mq), 0);
    PUMP_UNTIL(client, server, PATIENCE_MS, client->got_count == 1 && server->confirmed == 1);
    assert_string_equal(client->got[0].queue, mq_reply_queue(client->mq));
}

static void test_pending_is_bounded(void **state)
{
    (void)state;
    struct mq_opts o = opts_for(&main_place, "coordinator");
    o.port = 1; /* nobody there */
    o.max_pending = 3;
    SCOPED(side) struct side *s = side_new(&o);
    for (uint64_t i = 0; i < 3; i++)
        publish(s, "", "x", i);
    struct err err = ERR_INIT;
    struct mq_message m = {
        .exchange = "", .routing_key = "x", .type = WIRE_LIST, .body = "{}", .len = 2};
    assert_false(mq_publish(s->mq, &m, &err));
    assert_int_equal(err.code, ERR_BROKER_UNREACHABLE);
    err_clear(&err);
    assert_false(mq_flush(s->mq, 300, &err));
    assert_int_equal(err.code, ERR_BROKER_UNREACHABLE);
    assert_true(s->losses >= 1);
    assert_int_equal(s->lost.code, ERR_BROKER_UNREACHABLE);
    assert_int_equal(mq_pending(s->mq), 3);
}

static void test_oversized_arguments(void **state)
{
    (void)state;
    SCOPED(side) struct side *s = coordinator(NULL);
    char name[300];
    memset(name, 'x', sizeof name);
    name[sizeof name - 1] = '\0';
    struct err err = ERR_INIT;
    struct mq_message m = {
        .exchange = "", .routing_key = name, .type = WIRE_LIST, .body = "{}", .len = 2};
    assert_false(mq_publish(s->mq, &m, &err));
    assert_int_equal(err.code, ERR_TOO_LARGE);
    err_clear(&err);
    m.routing_key = "x";
    m.len = WIRE_BODY_MAX_BYTES + 1;
    assert_false(mq_publish(s->mq, &m, &err));
    assert_int_equal(err.code, ERR_TOO_LARGE);
    assert_int_equal(mq_pending(s->mq), 0);
}

/* --- Other people's messages ----------------------------------------------------------------- */
static void amqp_publish(const char *queue, const char *header, size_t body_len)
{
    char port[32], password[600];
    struct err err = ERR_INIT;
    char file[512];
    snprintf(port, sizeof port, "--port=%d", main_place.port);
    snprintf(file, sizeof file, "%s/coordinator.password", main_place.dir);
    SCOPED_FREE char *secret = file_read_secret(file, &err);
    assert_non_null(secret);
    snprintf(password, sizeof password, "--password=%s", secret);
    int pipe_fds[2];
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, pipe_fds[0], 0);
    char *argv[] = {(char *)(uintptr_t) "amqp-publish",
                    (char *)(uintptr_t) "--server=localhost",
                    port,
                    (char *)(uintptr_t) "--username=oxbow-coordinator",
                    password,
                    (char *)(uintptr_t) "-r",
                    (char *)(uintptr_t)queue,
                    (char *)(uintptr_t)(header ? "-H" : NULL),
                    (char *)(uintptr_t)header,
                    NULL};
    pid_t pid;
    assert_int_equal(posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(pipe_fds[0]);
    SCOPED_FREE char *body = xcalloc(1, body_len);
    memset(body, 'z', body_len);
    assert_true(file_write_full(pipe_fds[1], body, body_len, &err));
    close(pipe_fds[1]);
    assert_int_equal(wait_for_exit(pid), 0);
}

/* What is bad is kept in the dead-letter queue with the reason, and leaves its own queue; one that
 * is far too large is cut. */
static void test_bury(void **state)
{
    (void)state;
    struct mq_declare *all = topology_coordinator(NULL, 0);
    struct own_queue q;
    own_queue(&q);
    SCOPED(side) struct side *dead = coordinator(all);
    SCOPED(side) struct side *s = coordinator(q.declare);
    PUMP_UNTIL(dead, s, PATIENCE_MS, dead->connects && s->connects);
    amqp_publish(q.name, "x-colour: red", 5000000);
    amqp_publish(q.name, NULL, 10);
    s->bury = true;
    mq_subscribe(s->mq, q.name, 10);
    PUMP_UNTIL(s, dead, PATIENCE_MS, s->got_count == 2 && mq_pending(s->mq) == 0);
    assert_string_equal(s->got[0].type, "");
    assert_int_equal(s->got[0].len, 5000000);
    assert_string_equal(s->got[1].type, "");
    assert_int_equal(s->confirmed, 0); /* burials are our own business */

    mq_subscribe(dead->mq, TOPOLOGY_DEAD, 10);
    dead->ack = true;
    PUMP_UNTIL(dead, s, PATIENCE_MS, dead->got_count == 2);
    assert_int_equal(dead->got[0].len, 1 << 20);
    assert_int_equal(dead->got[0].body[0], 'z');
    assert_int_equal(dead->got[1].len, 10);
    assert_int_equal(strlen(dead->got[1].message_id), ID_BYTES - 1); /* it had none */

    mq_subscribe(s->mq, q.name, 0); /* nothing is left where it was, nor unacked */
    pump_for(s, 100);
    mq_subscribe(s->mq, q.name, 10);
    pump_for(s, 500);
    assert_int_equal(s->got_count, 2);
    ctl("delete_queue", q.name);
    topology_free(all);
}

/* --- Refusals -------------------------------------------------------------------------------- */
static void expect_refusal(const struct mq_opts *opts, enum err_code code, const char *text)
{
    SCOPED(side) struct side *s = side_new(opts);
    struct err err = ERR_INIT;
    assert_false(mq_connect_once(s->mq, 20000, &err));
    if (err.code != code || !strstr(err.message, text))
        fail_msg("expected %s with '%s', got %s: %s", err_code_name(code), text,
                 err_code_name(err.code), err.message);
    assert_false(mq_is_connected(s->mq));
}

static void test_login_refused(void **state)
{
    (void)state;
    char file[] = "/tmp/oxbow-test-password.XXXXXX";
    int fd = mkstemp(file);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "wrong\n", 6), 6);
    close(fd);
    struct mq_opts o = opts_for(&main_place, "client");
    o.password_file = file;
    expect_refusal(&o, ERR_BROKER_AUTH, "ACCESS_REFUSED");
    chmod(file, 0644);
    expect_refusal(&o, ERR_PERMISSION, "may be read by everyone");
    unlink(file);
    expect_refusal(&o, ERR_NOT_FOUND, file);
    o = opts_for(&main_place, "client");
    o.vhost = "/nowhere";
    expect_refusal(&o, ERR_BROKER_AUTH, "nowhere");
    o = opts_for(&main_place, "client");
    o.port = 1;
    expect_refusal(&o, ERR_BROKER_UNREACHABLE, "localhost:1");
    o.host = "no-such-host.invalid";
    expect_refusal(&o, ERR_BROKER_UNREACHABLE, "no-such-host.invalid");
}

static void test_rights(void **state)
{
    (void)state;
    struct own_queue q;
    own_queue(&q);
    struct mq_opts o = opts_for(&main_place, "client");
    o.declare = q.declare;
    expect_refusal(&o, ERR_BROKER_AUTH, q.name);
}

static void test_other_arguments(void **state)
{
    (void)state;
    struct own_queue q;
    own_queue(&q);
    SCOPED(side) struct side *s = coordinator(q.declare);
    PUMP_UNTIL(s, NULL, PATIENCE_MS, s->connects == 1);
    struct mq_declare classic[2] = {q.declare[0], q.declare[1]};
    classic[0].quorum = false;
    struct mq_opts o = opts_for(&main_place, "coordinator");
    o.declare = classic;
    expect_refusal(&o, ERR_BROKER_TOPOLOGY, "delete_queue");
    ctl("delete_queue", q.name);
}

/* A worker that comes before any coordinator waits for it; two of one name do not get along. */
static void test_worker_and_coordinator(void **state)
{
    (void)state;
    struct place fresh; /* nothing has been declared there */
    read_place(getenv("BROKER_TLS_DIR"), &fresh);
    struct mq_declare *of_worker = topology_worker("w1");
    const char *const zones[] = {"dc1"};
    struct mq_declare *of_coordinator = topology_coordinator(zones, 1);
    struct mq_opts o = opts_for(&fresh, "worker");
    o.declare = of_worker;
    expect_refusal(&o, ERR_BROKER_TOPOLOGY, "oxbow.control");
    SCOPED(side) struct side *worker = side_new(&o);
    mq_subscribe(worker->mq, "oxbow.tasks.dc1.backup", 2);
    mq_subscribe(worker->mq, "oxbow.control.w1", 10);
    worker->ack = true;
    PUMP_UNTIL(worker, NULL, PATIENCE_MS, worker->losses >= 2);
    assert_int_equal(worker->lost.code, ERR_BROKER_TOPOLOGY);
    o = opts_for(&fresh, "coordinator");
    o.declare = of_coordinator;
    SCOPED(side) struct side *boss = side_new(&o);
    mq_subscribe(boss->mq, TOPOLOGY_LEDGER, 10);
    boss->ack = true;
    PUMP_UNTIL(worker, boss, PATIENCE_MS, worker->connects == 1 && boss->connects == 1);

    o = opts_for(&fresh, "worker");
    o.declare = of_worker;
    expect_refusal(&o, ERR_BROKER_TOPOLOGY, "another connection holds it");

    publish(boss, TOPOLOGY_TASKS, "oxbow.tasks.dc1.backup", 0);
    publish(boss, TOPOLOGY_CONTROL, "worker.w1", 1);
    publish(boss, TOPOLOGY_CONTROL, "all", 2);
    publish(worker, TOPOLOGY_EVENTS, "task.step", 0);
    PUMP_UNTIL(worker, boss, PATIENCE_MS,
               worker->got_count == 3 && boss->got_count == 1 && boss->confirmed == 3 &&
                   worker->confirmed == 1);
    topology_free(of_worker);
    topology_free(of_coordinator);
}

/* Each role may do its part and no more: roles.json. */
static void test_roles(void **state)
{
    (void)state;
    struct mq_declare *all = topology_coordinator(NULL, 0);
    SCOPED(side) struct side *boss = coordinator(all);
    PUMP_UNTIL(boss, NULL, PATIENCE_MS, boss->connects == 1);
    static const struct {
        const char *role, *exchange, *key;
        bool allowed;
    } cases[] = {
        {"client", TOPOLOGY_REQUESTS, TOPOLOGY_REQUEST_KEY, true},
        {"client", TOPOLOGY_EVENTS, "task.step", false},
        {"client", TOPOLOGY_TASKS, "x", false},
        {"client", TOPOLOGY_CONTROL, "all", false},
        {"client", TOPOLOGY_DEAD, "", false},
        {"client", "", TOPOLOGY_LEDGER, false},
        {"worker", TOPOLOGY_EVENTS, "task.step", true},
        {"worker", TOPOLOGY_DEAD, "", true},
        {"worker", TOPOLOGY_REQUESTS, TOPOLOGY_REQUEST_KEY, false},
        {"worker", TOPOLOGY_TASKS, "x", false},
        {"worker", TOPOLOGY_CONTROL, "all", false},
        {"watcher", TOPOLOGY_REQUESTS, TOPOLOGY_REQUEST_KEY, false},
        {"watcher", TOPOLOGY_EVENTS, "task.step", false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct mq_opts o = opts_for(&main_place, cases[i].role);
        SCOPED(side) struct side *s = side_new(&o);
        publish(s, cases[i].exchange, cases[i].key, 0);
        PUMP_UNTIL(s, NULL, PATIENCE_MS, mq_pending(s->mq) == 0);
        if (s->confirmed != cases[i].allowed || s->nacked == cases[i].allowed)
            fail_msg("%s to '%s': %d confirmed, %d refused", cases[i].role, cases[i].exchange,
                     s->confirmed, s->nacked);
    }
    static const struct {
        const char *role, *queue;
    } not_to_read[] = {{"client", TOPOLOGY_REQUESTS}, {"client", TOPOLOGY_LEDGER},
                       {"worker", TOPOLOGY_REQUESTS}, {"worker", TOPOLOGY_DEAD},
                       {"watcher", TOPOLOGY_LEDGER},  {"watcher", TOPOLOGY_DEAD}};
    for (size_t i = 0; i < ARRAY_LEN(not_to_read); i++) {
        struct mq_opts o = opts_for(&main_place, not_to_read[i].role);
        SCOPED(side) struct side *s = side_new(&o);
        mq_subscribe(s->mq, not_to_read[i].queue, 1);
        struct err err = ERR_INIT;
        assert_false(mq_connect_once(s->mq, 20000, &err));
        assert_int_equal(err.code, ERR_BROKER_AUTH);
    }
    char watch[] = "oxbow.watch.test", events[] = TOPOLOGY_EVENTS, key[] = "task.#";
    const struct mq_declare watching[] = {
        {.kind = MQ_QUEUE, .name = watch, .exclusive = true},
        {.kind = MQ_BIND, .name = watch, .exchange = events, .key = key},
        {.kind = MQ_END}};
    struct mq_opts o = opts_for(&main_place, "watcher");
    o.declare = watching;
    SCOPED(side) struct side *watcher = side_new(&o);
    mq_subscribe(watcher->mq, watch, 10);
    PUMP_UNTIL(watcher, boss, PATIENCE_MS, watcher->connects == 1);
    publish(boss, TOPOLOGY_EVENTS, "task.step", 0);
    PUMP_UNTIL(watcher, boss, PATIENCE_MS, watcher->got_count == 1);
    topology_free(all);
}

static int silent_server(int *ret_port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof addr;
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    assert_int_equal(listen(fd, 4), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
    *ret_port = ntohs(addr.sin_port);
    return fd;
}

/* Somebody listens but never speaks. */
static void test_silent_server(void **state)
{
    (void)state;
    struct mq_opts o = opts_for(&main_place, "client");
    o.host = "127.0.0.1";
    SCOPED_FD int fd = silent_server(&o.port);
    SCOPED(side) struct side *s = side_new(&o);
    struct err err = ERR_INIT;
    int64_t start = clock_mono_ms(clock_system());
    assert_false(mq_connect_once(s->mq, 500, &err));
    assert_int_equal(err.code, ERR_BROKER_UNREACHABLE);
    assert_true(clock_mono_ms(clock_system()) - start < 15000);
    /* Who connects in the background is held up for 3 s at first. */
    SCOPED(side) struct side *patient = side_new(&o);
    start = clock_mono_ms(clock_system());
    PUMP_UNTIL(patient, NULL, PATIENCE_MS, patient->losses == 1);
    assert_true(clock_mono_ms(clock_system()) - start < 8000);
}

/* Of several hosts the first that works is taken, at once and after a loss. */
static void test_hosts(void **state)
{
    (void)state;
    int silent_port;
    SCOPED_FD int fd = silent_server(&silent_port);
    char good[64], silent[64];
    snprintf(good, sizeof good, "localhost:%d", main_place.port);
    snprintf(silent, sizeof silent, "[127.0.0.1]:%d", silent_port);
    const char *const hosts[] = {"no-such-host.invalid", "localhost:1", silent, good};
    struct mq_opts o = opts_for(&main_place, "client");
    o.hosts = hosts;
    o.host_count = ARRAY_LEN(hosts);
    SCOPED(side) struct side *hasty = side_new(&o);
    struct err err = ERR_INIT;
    if (!mq_connect_once(hasty->mq, 20000, &err))
        fail_msg("%s", err.message);
    SCOPED(side) struct side *s = side_new(&o);
    PUMP_UNTIL(s, NULL, PATIENCE_MS, s->connects == 1);
    assert_int_equal(s->losses, 3);
    ctl("close_all_connections", "a test");
    PUMP_UNTIL(s, NULL, PATIENCE_MS, s->connects == 2);
    o.host_count = 3;
    SCOPED(side) struct side *none = side_new(&o);
    assert_false(mq_connect_once(none->mq, 1000, &err));
    assert_int_equal(err.code, ERR_BROKER_UNREACHABLE);
}

static void test_tls(void **state)
{
    (void)state;
    struct place strict;
    read_place(getenv("BROKER_TLS_DIR"), &strict);
    struct mq_opts o = opts_for(&main_place, "coordinator");
    o.port = main_place.tls_port;
    o.tls = (struct mq_tls){.enabled = true, .ca_file = main_place.ca};
    struct own_queue q;
    own_queue(&q);
    o.declare = q.declare;
    SCOPED(side) struct side *s = side_new(&o);
    mq_subscribe(s->mq, q.name, 10);
    s->ack = true;
    for (uint64_t i = 0; i < 300; i++)
        publish(s, "", q.name, i);
    PUMP_UNTIL(s, NULL, PATIENCE_MS, s->got_count == 300 && s->confirmed == 300);
    ctl("delete_queue", q.name);

    o.declare = NULL;
    o.tls.ca_file = strict.ca;
    expect_refusal(&o, ERR_BROKER_AUTH, "tls.ca_file");
    o.tls.ca_file = NULL; /* the system's CAs do not know ours */
    expect_refusal(&o, ERR_BROKER_AUTH, "tls.ca_file");
    o.tls.ca_file = "/nonexistent/ca.pem";
    expect_refusal(&o, ERR_BAD_CONFIG, "/nonexistent/ca.pem");
    o.tls.ca_file = main_place.ca;
    o.port = (int)strtol(getenv("WRONG_NAME_PORT"), NULL, 10);
    expect_refusal(&o, ERR_BROKER_AUTH, "host name");
    o.port = main_place.port; /* no TLS there */
    expect_refusal(&o, ERR_BROKER_UNREACHABLE, "localhost");
}

static void test_client_certificate(void **state)
{
    (void)state;
    struct place strict;
    read_place(getenv("BROKER_TLS_DIR"), &strict);
    struct mq_opts o = opts_for(&strict, "client");
    o.port = strict.tls_port;
    o.tls = (struct mq_tls){.enabled = true, .ca_file = strict.ca};
    expect_refusal(&o, ERR_BROKER_UNREACHABLE, "localhost");
    o.tls.cert_file = strict.cert;
    o.tls.key_file = strict.key;
    SCOPED(side) struct side *s = side_new(&o);
    struct err err = ERR_INIT;
    if (!mq_connect_once(s->mq, 20000, &err))
        fail_msg("%s", err.message);
    o.tls.key_file = main_place.key;
    expect_refusal(&o, ERR_BAD_CONFIG, main_place.key);
}

/* --- Queues that come and go ----------------------------------------------------------------- */
static void test_queue_deleted(void **state)
{
    (void)state;
    struct own_queue q;
    own_queue(&q);
    SCOPED(side) struct side *s = coordinator(q.declare);
    mq_subscribe(s->mq, q.name, 10);
    s->ack = true;
    publish(s, "", q.name, 0);
    PUMP_UNTIL(s, NULL, PATIENCE_MS, s->got_count == 1);
    ctl("delete_queue", q.name);
    /* Returned while the queue is away, delivered as soon as it has been declared anew. */
    for (uint64_t n = 1; n < 200 && s->got_count < 2; n++) {
        publish(s, "", q.name, n);
        pump_for(s, 100);
        PUMP_UNTIL(s, NULL, PATIENCE_MS, mq_pending(s->mq) == 0);
    }
    PUMP_UNTIL(s, NULL, PATIENCE_MS, s->got_count >= 2);
    assert_int_equal(s->losses, 0);
    ctl("delete_queue", q.name);
}

/* Who only publishes to a queue learns of its loss by what comes back, and declares it anew. */
static void test_check_declared(void **state)
{
    (void)state;
    struct own_queue q;
    own_queue(&q);
    SCOPED(side) struct side *s = coordinator(q.declare);
    publish(s, "", q.name, 0);
    PUMP_UNTIL(s, NULL, PATIENCE_MS, s->confirmed == 1);
    ctl("delete_queue", q.name);
    publish(s, "", q.name, 1);
    PUMP_UNTIL(s, NULL, PATIENCE_MS, s->returned == 1);
    pump_for(s, 300);
    assert_string_equal(s->deleted, "");
    mq_check_declared(s->mq);
    PUMP_UNTIL(s, NULL, PATIENCE_MS, s->deleted[0] != '\0');
    assert_string_equal(s->deleted, q.name);
    publish(s, "", q.name, 2);
    PUMP_UNTIL(s, NULL, PATIENCE_MS, s->confirmed == 2);
    s->deleted[0] = '\0';
    mq_check_declared(s->mq);
    pump_for(s, 1500);
    assert_string_equal(s->deleted, ""); /* it is there */
    assert_int_equal(s->losses, 0);
    ctl("delete_queue", q.name);
    /* Or it looks by itself. */
    struct mq_opts o = opts_for(&main_place, "coordinator");
    o.declare = q.declare;
    o.check_ms = 500;
    SCOPED(side) struct side *watchful = side_new(&o);
    PUMP_UNTIL(watchful, NULL, PATIENCE_MS, watchful->connects == 1);
    ctl("delete_queue", q.name);
    PUMP_UNTIL(watchful, NULL, PATIENCE_MS, watchful->deleted[0] != '\0');
    assert_int_equal(watchful->losses, 0);
    ctl("delete_queue", q.name);
}

static void test_queue_missing_at_first(void **state)
{
    (void)state;
    struct own_queue q;
    own_queue(&q);
    SCOPED(side) struct side *early = coordinator(NULL);
    early->ack = true;
    mq_subscribe(early->mq, q.name, 5);
    PUMP_UNTIL(early, NULL, PATIENCE_MS, early->connects == 1);
    pump_for(early, 800);
    SCOPED(side) struct side *late = coordinator(q.declare);
    publish(late, "", q.name, 0);
    PUMP_UNTIL(early, late, PATIENCE_MS, early->got_count == 1);
    assert_int_equal(early->losses, 0);
    ctl("delete_queue", q.name);
    /* A short-lived client wants to know at once. */
    SCOPED(side) struct side *hasty = coordinator(NULL);
    mq_subscribe(hasty->mq, q.name, 5);
    struct err err = ERR_INIT;
    assert_false(mq_connect_once(hasty->mq, 10000, &err));
    assert_int_equal(err.code, ERR_BROKER_TOPOLOGY);
}

/* The broker closes the channel of a consumer that holds a delivery too long: it comes back, and
 * the late ack does no harm. */
static void test_held_too_long(void **state)
{
    (void)state;
    struct place strict; /* this broker has a short limit */
    read_place(getenv("BROKER_TLS_DIR"), &strict);
    struct own_queue q;
    own_queue(&q);
    struct mq_opts o = opts_for(&strict, "coordinator");
    o.declare = q.declare;
    SCOPED(side) struct side *s = side_new(&o);
    mq_subscribe(s->mq, q.name, 1);
    publish(s, "", q.name, 0);
    PUMP_UNTIL(s, NULL, PATIENCE_MS, s->got_count == 2);
    assert_string_equal(s->got[0].message_id, s->got[1].message_id);
    mq_ack(s->mq, s->got[0].tag);
    mq_ack(s->mq, s->got[1].tag);
    pump_for(s, 500);
    assert_int_equal(s->losses, 0);
    assert_int_equal(s->got_count, 2);
}

/* --- Heartbeats and alarms ------------------------------------------------------------------- */
static void test_heartbeats(void **state)
{
    (void)state;
    struct own_queue q;
    own_queue(&q);
    struct mq_opts o = opts_for(&main_place, "coordinator");
    o.declare = q.declare;
    o.heartbeat_s = 2;
    SCOPED(side) struct side *idle = side_new(&o);
    PUMP_UNTIL(idle, NULL, PATIENCE_MS, idle->connects == 1);
    struct err err = ERR_INIT;
    int64_t end = clock_mono_ms(clock_system()) + 9000;
    while (clock_mono_ms(clock_system()) < end)
        assert_true(mq_poll(idle->mq, NULL, 0, 3600000, &err)); /* it wakes by itself */
    assert_int_equal(idle->losses, 0);

    /* Slow callbacks one after the other, all messages already here: still heard by the broker. */
    SCOPED(side) struct side *busy = side_new(&o);
    for (uint64_t i = 0; i < 25; i++)
        publish(busy, "", q.name, i);
    PUMP_UNTIL(busy, NULL, PATIENCE_MS, busy->confirmed == 25);
    busy->slow_ms = 500;
    mq_subscribe(busy->mq, q.name, 25); /* not acked: nothing else is sent meanwhile */
    PUMP_UNTIL(busy, NULL, PATIENCE_MS, busy->got_count == 25);
    busy->slow_ms = 0;
    pump_for(busy, 1000);
    assert_int_equal(busy->losses, 0);
    ctl("delete_queue", q.name);
}

/* The broker may want a shorter heartbeat than we asked for. */
static void test_heartbeat_of_the_broker(void **state)
{
    (void)state;
    struct place strict;
    read_place(getenv("BROKER_TLS_DIR"), &strict);
    struct mq_opts o = opts_for(&strict, "client");
    o.heartbeat_s = 600;
    SCOPED(side) struct side *s = side_new(&o);
    PUMP_UNTIL(s, NULL, PATIENCE_MS, s->connects == 1);
    struct err err = ERR_INIT;
    int64_t end = clock_mono_ms(clock_system()) + 12000;
    while (clock_mono_ms(clock_system()) < end)
        assert_true(mq_poll(s->mq, NULL, 0, 3600000, &err));
    assert_int_equal(s->losses, 0);
}

static pid_t node_pid(void)
{
    char path[512];
    struct err err = ERR_INIT;
    snprintf(path, sizeof path, "%s/node.pid", main_place.dir);
    SCOPED_BUF struct buf text;
    assert_true(file_read_all(AT_FDCWD, path, 64, &text, &err));
    pid_t pid = (pid_t)strtol(buf_str(&text), NULL, 10);
    assert_true(pid > 1);
    return pid;
}

static void test_frozen_broker_is_noticed(void **state)
{
    (void)state;
    struct mq_opts o = opts_for(&main_place, "coordinator");
    o.heartbeat_s = 2;
    SCOPED(side) struct side *s = side_new(&o);
    PUMP_UNTIL(s, NULL, PATIENCE_MS, s->connects == 1);
    pid_t pid = node_pid();
    kill(pid, SIGSTOP);
    int64_t end = clock_mono_ms(clock_system()) + 20000;
    while (!s->losses && clock_mono_ms(clock_system()) < end)
        pump_once(s);
    kill(pid, SIGCONT);
    assert_true(s->losses >= 1);
    PUMP_UNTIL(s, NULL, PATIENCE_MS, s->connects == 2);
}

/* One that lives, but does not confirm: heartbeats would find this one only later. */
static void test_no_confirm(void **state)
{
    (void)state;
    struct own_queue q;
    own_queue(&q);
    struct mq_opts o = opts_for(&main_place, "coordinator");
    o.declare = q.declare;
    o.confirm_ms = 2000;
    SCOPED(side) struct side *s = side_new(&o);
    publish(s, "", q.name, 0);
    PUMP_UNTIL(s, NULL, PATIENCE_MS, s->confirmed == 1);
    pump_for(s, 3000); /* nothing is under way */
    assert_int_equal(s->losses, 0);
    pid_t pid = node_pid();
    kill(pid, SIGSTOP);
    publish(s, "", q.name, 1);
    int64_t end = clock_mono_ms(clock_system()) + 20000;
    while (!s->losses && clock_mono_ms(clock_system()) < end)
        pump_once(s);
    kill(pid, SIGCONT);
    assert_string_equal(s->lost.message, "the broker has not confirmed a message for 2000 ms");
    PUMP_UNTIL(s, NULL, PATIENCE_MS, mq_pending(s->mq) == 0);
    assert_int_equal(s->ends[1], 1);
    ctl("delete_queue", q.name);
}

/* Once is nothing: so ends what is under way to a queue that is deleted. A connection on which it
 * goes on does not know the queue's new leader, maybe. */
static void test_rejects(void **state)
{
    (void)state;
    struct own_queue q;
    own_queue(&q);
    SCOPED(side) struct side *s = coordinator(q.declare);
    PUMP_UNTIL(s, NULL, PATIENCE_MS, s->connects == 1);
    ctl("set_policy", "full", "^oxbow\\.test\\.",
        "{\"max-length\":1,\"overflow\":\"reject-publish\"}", "--apply-to", "queues");
    pump_for(s, 4000); /* it is no longer new */
    uint64_t n = 0;
    PUMP_UNTIL(s, NULL, PATIENCE_MS,
               s->nacked > 0 || (mq_pending(s->mq) == 0 && (publish(s, "", q.name, n++), false)));
    pump_for(s, 4000);
    assert_int_equal(s->losses, 0);
    PUMP_UNTIL(s, NULL, PATIENCE_MS,
               s->losses > 0 || (mq_pending(s->mq) == 0 && (publish(s, "", q.name, n++), false)));
    assert_int_equal(s->lost.code, ERR_BROKER_BLOCKED);
    assert_true(s->nacked >= 2);
    ctl("clear_policy", "full");
    ctl("delete_queue", q.name);
}

static void test_alarm_blocks(void **state)
{
    (void)state;
    struct own_queue q;
    own_queue(&q);
    SCOPED(side) struct side *s = coordinator(q.declare);
    PUMP_UNTIL(s, NULL, PATIENCE_MS, s->connects == 1);
    ctl("set_vm_memory_high_watermark", "0");
    uint64_t n = 0;
    /* Told with the first publish after the alarm. */
    PUMP_UNTIL(s, NULL, PATIENCE_MS,
               s->blocks == 1 || (mq_pending(s->mq) == 0 && (publish(s, "", q.name, n++), false)));
    publish(s, "", q.name, n++);
    s->ack = true;
    mq_subscribe(s->mq, q.name, 100); /* waits too: the broker would not answer */
    pump_for(s, 500);
    struct err err = ERR_INIT;
    assert_false(mq_flush(s->mq, 200, &err));
    assert_int_equal(err.code, ERR_BROKER_BLOCKED);
    assert_true(mq_pending(s->mq) > 0);
    ctl("set_vm_memory_high_watermark", "absolute", "512MB");
    PUMP_UNTIL(s, NULL, PATIENCE_MS, mq_pending(s->mq) == 0);
    assert_int_equal(s->unblocks, 1);
    assert_int_equal(s->confirmed, (int)n);
    PUMP_UNTIL(s, NULL, PATIENCE_MS, s->got_count == n);
    assert_int_equal(s->losses, 0);
    ctl("delete_queue", q.name);
}

/* Who has nothing to publish hears of an alarm by its probes. They come to nobody. */
static void test_alarm_is_probed(void **state)
{
    (void)state;
    struct mq_declare *all = topology_coordinator(NULL, 0);
    struct mq_opts o = opts_for(&main_place, "coordinator");
    o.declare = all;
    o.probe_ms = 300;
    SCOPED(side) struct side *s = side_new(&o);
    o.probe_ms = 0;
    o.declare = NULL;
    SCOPED(side) struct side *mute = side_new(&o);
    PUMP_UNTIL(s, mute, PATIENCE_MS, s->connects == 1 && mute->connects == 1);
    pump_for(s, 1000);
    ctl("set_vm_memory_high_watermark", "0");
    PUMP_UNTIL(s, mute, PATIENCE_MS, s->blocks == 1);
    ctl("set_vm_memory_high_watermark", "absolute", "512MB");
    PUMP_UNTIL(s, mute, PATIENCE_MS, s->unblocks == 1 && mq_pending(s->mq) == 0);
    assert_int_equal(s->confirmed + s->returned + s->nacked, 0);
    assert_int_equal(s->losses, 0);
    assert_int_equal(mute->blocks, 0);
    topology_free(all);
}

/* --- The broker goes away -------------------------------------------------------------------- */
/* Publish all the while that the broker is taken down by `verb` and brought back: every message
 * arrives (twice is allowed, with the same id), each publish is told its end exactly once, and what
 * was not acked comes again. */
static void restart_in_traffic(const char *verb)
{
    enum { COUNT = 600 };
    struct own_queue q;
    own_queue(&q);
    SCOPED(side) struct side *from = coordinator(q.declare);
    SCOPED(side) struct side *to = coordinator(NULL);
    struct mq_opts o = opts_for(&main_place, "client");
    SCOPED(side) struct side *client = side_new(&o);
    mq_subscribe_replies(client->mq);
    PUMP_UNTIL(from, client, PATIENCE_MS, from->connects == 1 && client->connects == 1);
    SCOPED_FREE char *first_name = xstrdup(mq_reply_queue(client->mq));
    mq_subscribe(to->mq, q.name, 5);
    publish(from, "", q.name, 0);
    PUMP_UNTIL(from, to, PATIENCE_MS, to->got_count == 1); /* held, not acked */
    uint64_t n = 1;
    for (; n < 50; n++)
        publish(from, "", q.name, n);
    /* A quorum queue that is younger than a few seconds does not outlive a kill -9 of RabbitMQ 3.10
     * ("ra: running pre init for 0 registered servers"): its directory is written lazily. */
    if (strcmp(verb, "kill") == 0)
        pump_for(from, 7000);
    pid_t down = broker_start_verb(verb);
    while (waitpid(down, NULL, WNOHANG) == 0) {
        if (n < COUNT / 2)
            publish(from, "", q.name, n++);
        pump_once(from);
        pump_once(to);
        pump_once(client);
    }
    PUMP_UNTIL(from, to, PATIENCE_MS, from->losses && to->losses);
    assert_false(mq_is_connected(from->mq));
    mq_ack(to->mq, to->got[0].tag); /* of the lost connection: void */
    to->ack = true;
    pid_t up = broker_start_verb("start");
    while (waitpid(up, NULL, WNOHANG) == 0) {
        if (n < COUNT)
            publish(from, "", q.name, n++);
        pump_once(from);
        pump_once(to);
        pump_once(client);
    }
    while (n < COUNT)
        publish(from, "", q.name, n++);
    PUMP_UNTIL(from, to, PATIENCE_MS, mq_pending(from->mq) == 0);
    static uint8_t seen[COUNT];
    memset(seen, 0, sizeof seen);
    size_t looked_at = 0, distinct = 0;
    bool first_again = false;
    int64_t end = clock_mono_ms(clock_system()) + PATIENCE_MS;
    while ((distinct < COUNT || !first_again) && clock_mono_ms(clock_system()) < end) {
        pump_once(to);
        pump_once(from);
        pump_once(client);
        for (; looked_at < to->got_count; looked_at++) {
            unsigned long number = strtoul(to->got[looked_at].body + strlen("{\"n\":"), NULL, 10);
            assert_true(number < COUNT);
            distinct += seen[number] == 0;
            seen[number] = 1;
            if (looked_at > 0 && number == 0) {
                assert_string_equal(to->got[0].message_id, to->got[looked_at].message_id);
                first_again = true;
            }
        }
    }
    assert_int_equal(distinct, COUNT);
    assert_true(first_again);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(from->ends[i], 1);
    assert_int_equal(from->confirmed, COUNT);
    PUMP_UNTIL(client, NULL, PATIENCE_MS, client->connects == 2);
    assert_string_not_equal(mq_reply_queue(client->mq), first_name);
    ctl("delete_queue", q.name);
}

static void test_broker_stopped(void **state)
{
    (void)state;
    restart_in_traffic("stop");
}

static void test_broker_killed(void **state)
{
    (void)state;
    restart_in_traffic("kill");
}

/* fds of the caller are watched beside the broker's socket. */
static void test_callers_descriptors(void **state)
{
    (void)state;
    SCOPED(side) struct side *s = coordinator(NULL);
    PUMP_UNTIL(s, NULL, PATIENCE_MS, s->connects == 1);
    int pipe_fds[2];
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    struct pollfd fds[2] = {{.fd = pipe_fds[0], .events = POLLIN}, {.fd = -1}};
    struct err err = ERR_INIT;
    pump_for(s, 100);
    assert_true(mq_poll(s->mq, fds, 2, 0, &err));
    assert_int_equal(fds[0].revents, 0);
    assert_int_equal(write(pipe_fds[1], "x", 1), 1);
    int64_t start = clock_mono_ms(clock_system());
    for (int i = 0; i < 10 && !fds[0].revents; i++)
        assert_true(mq_poll(s->mq, fds, 2, 5000, &err));
    assert_true(fds[0].revents & POLLIN);
    assert_true(clock_mono_ms(clock_system()) - start < 4000);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    read_place(getenv("BROKER_DIR"), &main_place);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_publish_and_consume),
        cmocka_unit_test(test_many_in_flight),
        cmocka_unit_test(test_unroutable),
        cmocka_unit_test(test_exchange_refused),
        cmocka_unit_test(test_reject_and_redelivery),
        cmocka_unit_test(test_prefetch_and_pause),
        cmocka_unit_test(test_replies),
        cmocka_unit_test(test_pending_is_bounded),
        cmocka_unit_test(test_oversized_arguments),
        cmocka_unit_test(test_bury),
        cmocka_unit_test(test_login_refused),
        cmocka_unit_test(test_rights),
        cmocka_unit_test(test_other_arguments),
        cmocka_unit_test(test_worker_and_coordinator),
        cmocka_unit_test(test_roles),
        cmocka_unit_test(test_silent_server),
        cmocka_unit_test(test_hosts),
        cmocka_unit_test(test_tls),
        cmocka_unit_test(test_client_certificate),
        cmocka_unit_test(test_queue_deleted),
        cmocka_unit_test(test_check_declared),
        cmocka_unit_test(test_queue_missing_at_first),
        cmocka_unit_test(test_held_too_long),
        cmocka_unit_test(test_callers_descriptors),
        cmocka_unit_test(test_heartbeats),
        cmocka_unit_test(test_heartbeat_of_the_broker),
        cmocka_unit_test(test_frozen_broker_is_noticed),
        cmocka_unit_test(test_no_confirm),
        cmocka_unit_test(test_rejects),
        cmocka_unit_test(test_alarm_blocks),
        cmocka_unit_test(test_alarm_is_probed),
        cmocka_unit_test(test_broker_stopped),
        cmocka_unit_test(test_broker_killed),
    };
    cmocka_set_test_filter(getenv("ONLY"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}

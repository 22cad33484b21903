/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A scripted engine over TLS for unit tests: it answers each API request with the next line of its
 * script, after checking that it is the request the script expects. Logins are served by themselves
 * and counted. The clock is a fake one: waits take no time.
 *
 * Threads: the server has its own; the accessors may be called when no request is under way.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/clock.h"
#include "worker/ovirt/engine.h"

enum fake_act {
    FAKE_ANSWER, /* with status and body */
    FAKE_DROP,   /* read the request, close the connection without an answer */
    FAKE_SLOW,   /* answer after two seconds of real time */
};

struct fake_line {
    const char *request; /* "GET vms/ID?query": method and path below .../api; NULL ends a script */
    int status;
    const char *body; /* NULL = empty; '<' first = a web page, else JSON */
    enum fake_act act;
};

/* What came in, in order. */
struct fake_seen {
    char request[512];
    char body[4096];
    char correlation[64];
    char authorization[128];
    char accept[64], language[32], expect[32], content_type[64];
};

struct fake_engine;
struct fake_engine *fake_engine_new(const struct fake_line *script);
/* Fails the test when the script was not used up or a request did not match it. */
void fake_engine_check(struct fake_engine *f);
void fake_engine_free(struct fake_engine *f);

/* From now on this script; the old one must be used up. */
void fake_engine_script(struct fake_engine *f, const struct fake_line *script);
size_t fake_engine_seen_count(const struct fake_engine *f);
/* Whether any API request has come in. May be asked while requests are under way. */
bool fake_engine_has_seen(const struct fake_engine *f);
const struct fake_seen *fake_engine_seen(const struct fake_engine *f, size_t i);
unsigned fake_engine_logins(const struct fake_engine *f);
unsigned fake_engine_logouts(const struct fake_engine *f);
/* Tokens given so far become unknown: 401 until a new login. */
void fake_engine_expire_tokens(struct fake_engine *f);
/* Answer every login with access_denied. */
void fake_engine_refuse_logins(struct fake_engine *f, bool refuse);
/* Answer every login with this; status 0 = as usual again. */
void fake_engine_set_login(struct fake_engine *f, int status, const char *body);
/* Tokens are refused whatever they are. */
void fake_engine_refuse_tokens(struct fake_engine *f);
/* Answer all API requests with {} and no script. */
void fake_engine_free_run(struct fake_engine *f);

/* A client for it: trusts its certificate, fake clock. */
struct engine *fake_engine_client(struct fake_engine *f);
/* The settings of that client, to be changed by a test before engine_new(). Borrowed strings. */
struct engine_conf fake_engine_conf(struct fake_engine *f);
const char *fake_engine_dir(const struct fake_engine *f);
/* Milliseconds of fake time that have passed. */
int64_t fake_engine_now_ms(const struct fake_engine *f);

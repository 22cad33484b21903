/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one login that all threads of a worker share: an OAuth token of the engine's SSO.
 *
 * A token has a generation. Whoever meets a 401 asks for a token newer than the one it used: the
 * first thread logs in, the others wait for it and take its token. A password that the engine has
 * refused is not tried again until the password file changes (or an hour has gone): repeated wrong
 * logins lock the account.
 *
 * Threads: any; one lock inside, held during the login.
 */
#pragma once

#include "worker/ovirt/http.h"

struct login;

struct login_conf {
    const char *base_url; /* https://engine/ovirt-engine */
    const char *user;
    const char *password_file;
    struct http_options http;
    int64_t (*mono_ms)(void *ctx);
    void *ctx;
};

/* Strings are borrowed and must outlive it. */
struct login *login_new(const struct login_conf *conf);
/* Logs out if logged in (best effort), frees. NULL is fine. */
void login_free(struct login *login);

enum { LOGIN_TOKEN_BYTES = 4096 };
struct login_token {
    char text[LOGIN_TOKEN_BYTES];
    unsigned generation; /* from 1 */
};

enum login_result {
    LOGIN_OK,
    LOGIN_LATER,   /* the engine is away: wait and try again */
    LOGIN_REFUSED, /* do not try again */
};
/* A token newer than `used_generation` (0 = any). */
enum login_result login_get_token(struct login *login, unsigned used_generation,
                                  struct login_token *ret, struct err *err);

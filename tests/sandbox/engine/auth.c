/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/engine/auth.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <microhttpd.h>

enum { AUTH_TOKENS_MAX = 10000, AUTH_FIELD_MAX = 4096 };

struct user {
    char *name, *password;
};

struct token {
    char *text, *user;
    int64_t made_ms, used_ms;
};

struct auth {
    VEC(struct user) users;
    VEC(struct token) tokens;
    int64_t life_ms, idle_ms;
    bool basic;
};

static const char unauthorized_html[] =
    "<html><head><title>Error</title></head><body>Unauthorized</body></html>";

struct auth *auth_new(void)
{
    struct auth *a = ALLOC_NEW(struct auth);
    a->idle_ms = INT64_C(30) * 60 * 1000;
    a->basic = true;
    return a;
}

static void user_free(struct user *u)
{
    free(u->name);
    free(u->password);
    free(u);
}

static void token_free(struct token *t)
{
    free(t->text);
    free(t->user);
    free(t);
}

void auth_free(struct auth *a)
{
    if (!a)
        return;
    VEC_DONE(&a->users, user_free);
    VEC_DONE(&a->tokens, token_free);
    free(a);
}

void auth_add_user(struct auth *a, const char *name, const char *password)
{
    struct user *u = ALLOC_NEW(struct user);
    u->name = xstrdup(name);
    u->password = xstrdup(password);
    VEC_ADD(&a->users, u);
}

void auth_set_life(struct auth *a, int64_t life_ms, int64_t idle_ms)
{
    a->life_ms = life_ms;
    a->idle_ms = idle_ms;
}

void auth_set_basic(struct auth *a, bool allowed)
{
    a->basic = allowed;
}

void auth_expire_all(struct auth *a)
{
    VEC_DONE(&a->tokens, token_free);
}

static void expire(struct auth *a)
{
    int64_t now = engine_mono_ms();
    for (size_t i = 0; i < a->tokens.len;) {
        struct token *t = a->tokens.at[i];
        if ((a->life_ms > 0 && now - t->made_ms >= a->life_ms) || now - t->used_ms >= a->idle_ms) {
            VEC_REMOVE_AT(&a->tokens, i);
            token_free(t);
        } else {
            i++;
        }
    }
}

size_t auth_token_count(const struct auth *a)
{
    return a->tokens.len;
}

static bool password_right(const struct auth *a, const char *name, const char *password)
{
    struct user *u;
    VEC_EACH(&a->users, u)
    if (!strcmp(u->name, name) && !strcmp(u->password, password))
        return true;
    return false;
}

static bool bearer_lives(struct auth *a, const char *text)
{
    expire(a);
    struct token *t;
    VEC_EACH(&a->tokens, t)
    if (!strcmp(t->text, text)) {
        t->used_ms = engine_mono_ms();
        return true;
    }
    return false;
}

static bool basic_right(const struct auth *a, struct MHD_Connection *conn)
{
    char *password = NULL;
    char *name = MHD_basic_auth_get_username_password(conn, &password);
    bool ok = name && password && password_right(a, name, password);
    if (name)
        MHD_free(name);
    if (password)
        MHD_free(password);
    return ok;
}

const char *auth_user(const struct auth *a, struct request *r)
{
    const char *header = request_http_header(r, "Authorization");
    const struct token *t;
    VEC_EACH(&a->tokens, t)
    if (header && !strncmp(header, "Bearer ", 7) && !strcmp(t->text, header + 7))
        return t->user;
    return "";
}

bool auth_check(struct engine *e, struct request *r)
{
    const char *header = request_http_header(r, "Authorization");
    if (header && !strncmp(header, "Bearer ", 7) && bearer_lives(e->auth, header + 7))
        return true;
    if (header && !strncmp(header, "Basic ", 6) && e->auth->basic && basic_right(e->auth, r->conn))
        return true;
    reply_text(r, 401, "text/html;charset=UTF-8", xstrdup(unauthorized_html));
    return false;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The value of a field of an urlencoded form; NULL if absent. The caller frees. */
static char *form_field(const char *form, const char *name)
{
    size_t name_len = strlen(name);
    for (const char *at = form; *at; at += strcspn(at, "&"), at += *at == '&') {
        if (strncmp(at, name, name_len) != 0 || at[name_len] != '=')
            continue;
        const char *from = at + name_len + 1;
        size_t len = strcspn(from, "&");
        if (len > AUTH_FIELD_MAX)
            return NULL;
        char *value = xmalloc(len + 1);
        size_t out = 0;
        for (size_t i = 0; i < len; i++) {
            bool escaped = from[i] == '%' && i + 2 < len && hex_digit(from[i + 1]) >= 0 &&
                           hex_digit(from[i + 2]) >= 0;
            if (escaped) {
                value[out++] = (char)(hex_digit(from[i + 1]) * 16 + hex_digit(from[i + 2]));
                i += 2;
            } else {
                value[out++] = from[i] == '+' ? ' ' : from[i];
            }
        }
        value[out] = '\0';
        return value;
    }
    return NULL;
}

static void refuse(struct request *r, const char *code, const char *text)
{
    reply_json(r, 400, json_pack("{s:s, s:s}", "error_code", code, "error", text));
}

static bool accepts_json(struct request *r)
{
    const char *accept = request_http_header(r, "Accept");
    if (accept && !strcmp(accept, "application/json"))
        return true;
    refuse(r, "invalid_request", "Missing parameter: 'Accept Header'");
    return false;
}

static void issue(struct engine *e, struct request *r, const char *user)
{
    struct auth *a = e->auth;
    expire(a);
    if (a->tokens.len >= AUTH_TOKENS_MAX) {
        refuse(r, "server_error", "Too many sessions.");
        return;
    }
    char part[2][ID_BYTES];
    id_new(part[0]);
    id_new(part[1]);
    struct token *t = ALLOC_NEW(struct token);
    t->text = xasprintf("%.8s%.4s%.12s_%s", part[0], part[0] + 9, part[0] + 24, part[1]);
    t->user = xstrdup(user);
    t->made_ms = t->used_ms = engine_mono_ms();
    VEC_ADD(&a->tokens, t);
    char exp[32];
    (void)snprintf(exp, sizeof exp, "%" PRId64,
                   a->life_ms > 0 ? engine_now_ms(e) + a->life_ms : INT64_MAX);
    reply_json(r, 200,
               json_pack("{s:s, s:s, s:s, s:s}", "access_token", t->text, "scope", "ovirt-app-api",
                         "exp", exp, "token_type", "bearer"));
}

void auth_token(struct engine *e, struct request *r, const char *form)
{
    if (!accepts_json(r))
        return;
    SCOPED_FREE char *grant = form_field(form, "grant_type");
    SCOPED_FREE char *scope = form_field(form, "scope");
    SCOPED_FREE char *name = form_field(form, "username");
    SCOPED_FREE char *password = form_field(form, "password");
    if (!grant) {
        refuse(r, "invalid_request", "Missing parameter: 'grant_type'");
    } else if (strcmp(grant, "password") != 0) {
        refuse(r, "unsupported_grant_type", "Unsupported 'grant_type'");
    } else if (!scope || !strstr(scope, "ovirt-app-api")) {
        refuse(r, "invalid_scope", "The requested scope is invalid.");
    } else if (!name || !password) {
        refuse(r, "invalid_request", "Missing parameter: 'username' or 'password'");
    } else if (!strchr(name, '@')) {
        refuse(r, "access_denied",
               "Cannot authenticate user No valid profile found in credentials..");
    } else if (!password_right(e->auth, name, password)) {
        SCOPED_FREE char *text = xasprintf("Cannot authenticate user '%s': The username or "
                                           "password is incorrect.",
                                           name);
        refuse(r, "access_denied", text);
    } else {
        issue(e, r, name);
    }
}

void auth_logout(struct engine *e, struct request *r, const char *form)
{
    if (!accepts_json(r))
        return;
    SCOPED_FREE char *text = form_field(form, "token");
    if (!text) {
        refuse(r, "invalid_request", "Missing parameter: 'token'");
        return;
    }
    struct auth *a = e->auth;
    for (size_t i = 0; i < a->tokens.len; i++)
        if (!strcmp(a->tokens.at[i]->text, text)) {
            token_free(a->tokens.at[i]);
            VEC_REMOVE_AT(&a->tokens, i);
            break;
        }
    reply_json(r, 200, json_object());
}

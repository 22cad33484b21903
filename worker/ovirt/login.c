/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/ovirt/login.h"

#include <assert.h>
#include <ctype.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

#include <jansson.h>

#include "proto/base/file.h"
#include "proto/base/log.h"
#include "worker/ovirt/engine.h"
#include "worker/ovirt/fault.h"
#include "worker/ovirt/member.h"

enum {
    LOGIN_BODY_BYTES = 64 << 10,
    REFUSED_FOR_MS = 3600 * 1000,
    LOGIN_TIMEOUT_MS = 60 * 1000, /* other threads wait for it */
    LOGOUT_TIMEOUT_MS = 5000,
};

struct login {
    struct login_conf conf;
    pthread_mutex_t lock; /* guards all below */
    CURL *curl;
    struct http_reply reply;
    struct curl_slist *headers;
    struct login_token token;
    /* The last refused login: the error, the password file as it was, and when. */
    struct err refused;
    struct stat refused_file;
    int64_t refused_ms;
};

struct login *login_new(const struct login_conf *conf)
{
    struct login *l = ALLOC_NEW(struct login);
    l->conf = *conf;
    if (l->conf.http.timeout_ms > LOGIN_TIMEOUT_MS)
        l->conf.http.timeout_ms = LOGIN_TIMEOUT_MS;
    int rc = pthread_mutex_init(&l->lock, NULL);
    assert(rc == 0);
    l->curl = http_handle_new();
    http_reply_init(&l->reply, LOGIN_BODY_BYTES);
    static const char *const lines[] = {
        "Content-Type: application/x-www-form-urlencoded",
        "Accept: application/json", /* must be exactly this */
        "Accept-Language: en-US",
        "Expect:",
    };
    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        l->headers = curl_slist_append(l->headers, lines[i]);
    return l;
}

static enum http_result post_form(struct login *l, const char *path, const char *form,
                                  const struct http_options *http, struct err *err)
{
    SCOPED_FREE char *url = xasprintf("%s/%s", l->conf.base_url, path);
    struct http_request request = {
        .method = "POST",
        .url = url,
        .body = form,
        .body_len = strlen(form),
        .headers = l->headers,
        .fresh_connection = true,
    };
    return http_exchange(l->curl, http, &request, &l->reply, err);
}

static void log_out(struct login *l)
{
    if (l->token.text[0] == '\0')
        return;
    SCOPED_FREE char *token = engine_escape(l->token.text);
    SCOPED_FREE char *form = xasprintf("scope=ovirt-app-api&token=%s", token);
    struct http_options http = l->conf.http;
    http.connect_timeout_ms = http.timeout_ms = LOGOUT_TIMEOUT_MS;
    struct err err = ERR_INIT;
    if (post_form(l, "services/sso-logout", form, &http, &err) != HTTP_ANSWERED)
        log_debug("engine_logout_failed", LOG_STR("message", err.message));
    explicit_bzero(form, strlen(form));
    explicit_bzero(token, strlen(token));
}

void login_free(struct login *l)
{
    if (!l)
        return;
    log_out(l);
    explicit_bzero(&l->token, sizeof l->token);
    curl_easy_cleanup(l->curl);
    curl_slist_free_all(l->headers);
    http_reply_done(&l->reply);
    (void)pthread_mutex_destroy(&l->lock);
    free(l);
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* True, with the old error, while the password that was refused is still the one in the file. */
static bool is_known_as_refused(struct login *l, struct err *err)
{
    struct stat now;
    if (!err_is_set(&l->refused))
        return false;
    bool recent = l->conf.mono_ms(l->conf.ctx) - l->refused_ms < REFUSED_FOR_MS;
    if (recent && stat(l->conf.password_file, &now) == 0 && same_file(&now, &l->refused_file)) {
        *err = l->refused;
        return true;
    }
    err_clear(&l->refused);
    return false;
}

static void remember_refusal(struct login *l, const struct stat *file, const struct err *err)
{
    l->refused = *err;
    l->refused_file = *file;
    l->refused_ms = l->conf.mono_ms(l->conf.ctx);
}

/* Tokens go into a header line: printable characters only. */
static bool take_token(struct login *l, const char *token, struct err *err)
{
    size_t len = token ? strlen(token) : 0;
    if (len == 0 || len >= LOGIN_TOKEN_BYTES)
        return err_set(err, ERR_ENGINE_PROTOCOL, 0,
                       "login: the engine's answer holds no usable access token");
    for (const char *c = token; *c; c++) {
        if (!isgraph((unsigned char)*c))
            return err_set(err, ERR_ENGINE_PROTOCOL, 0,
                           "login: the access token holds a character that cannot be sent");
    }
    memcpy(l->token.text, token, len + 1);
    l->token.generation++;
    return true;
}

/* Judges an answer of the token endpoint: 200 with a token, or 400 with error_code or error. */
static enum login_result judge(struct login *l, const struct stat *file, struct err *err)
{
    const struct http_reply *r = &l->reply;
    struct slice body = {.data = r->body.data, .len = r->body.len};
    struct fault fault;
    fault_classify(r->status, r->content_type, body, &fault);
    if (fault.kind == FAULT_RESTART || r->status == 404) {
        err_set(err, ERR_ENGINE_BUSY, (int)r->status,
                "login: %s (the engine is starting, or its url is wrong: %s)", fault.text,
                l->conf.base_url);
        return LOGIN_LATER;
    }
    json_auto_t *json = json_loadb(buf_str(&r->body), r->body.len, 0, NULL);
    if (fault.kind == FAULT_NONE)
        return take_token(l, member_str(json, "access_token"), err) ? LOGIN_OK : LOGIN_REFUSED;
    const char *code = member_str(json, "error_code");
    const char *text = member_str(json, code ? "error" : "error_description");
    code = code ? code : member_str(json, "error");
    if (code && strcmp(code, "server_error") == 0) {
        err_set(err, ERR_ENGINE_BUSY, (int)r->status, "login: %s: %s", code, text ? text : "");
        return LOGIN_LATER;
    }
    if (!code && r->status != 401 && r->status != 403) {
        err_set(err, ERR_ENGINE_PROTOCOL, (int)r->status, "login: %s", fault.text);
        return LOGIN_REFUSED;
    }
    err_set(err, ERR_ENGINE_AUTH, (int)r->status,
            "login of '%s' refused: %s%s%s (no further try until the password file '%s' changes)",
            l->conf.user, code ? code : fault.text, text ? ": " : "", text ? text : "",
            l->conf.password_file);
    remember_refusal(l, file, err);
    return LOGIN_REFUSED;
}

static char *login_form(struct login *l, struct stat *ret_file, struct err *err)
{
    if (stat(l->conf.password_file, ret_file) != 0)
        memset(ret_file, 0, sizeof *ret_file); /* the read below says why */
    SCOPED_FREE char *password = file_read_secret(l->conf.password_file, err);
    if (!password)
        return NULL;
    SCOPED_FREE char *user = engine_escape(l->conf.user);
    SCOPED_FREE char *escaped = engine_escape(password);
    char *form =
        xasprintf("grant_type=password&scope=ovirt-app-api&username=%s&password=%s", user, escaped);
    explicit_bzero(password, strlen(password));
    explicit_bzero(escaped, strlen(escaped));
    return form;
}

static enum login_result log_in(struct login *l, struct err *err)
{
    struct stat file;
    if (is_known_as_refused(l, err))
        return LOGIN_REFUSED;
    SCOPED_FREE char *form = login_form(l, &file, err);
    if (!form) {
        err_wrap(err, "engine login");
        return LOGIN_REFUSED;
    }
    enum http_result result = post_form(l, "sso/oauth/token", form, &l->conf.http, err);
    explicit_bzero(form, strlen(form));
    if (result != HTTP_ANSWERED) {
        err_wrap(err, "engine login at %s", l->conf.base_url);
        return result == HTTP_REFUSED ? LOGIN_REFUSED : LOGIN_LATER;
    }
    enum login_result judged = judge(l, &file, err);
    if (l->reply.body.len > 0)
        explicit_bzero(l->reply.body.data, l->reply.body.len);
    return judged;
}

enum login_result login_get_token(struct login *l, unsigned used_generation,
                                  struct login_token *ret, struct err *err)
{
    (void)pthread_mutex_lock(&l->lock);
    enum login_result result = LOGIN_OK;
    if (l->token.generation <= used_generation || l->token.text[0] == '\0') {
        l->token.text[0] = '\0';
        result = log_in(l, err);
    }
    if (result == LOGIN_OK)
        *ret = l->token;
    (void)pthread_mutex_unlock(&l->lock);
    return result;
}

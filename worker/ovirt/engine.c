/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/ovirt/engine.h"

#include <assert.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/id.h"
#include "worker/ovirt/engine_impl.h"
#include "worker/ovirt/member.h"

static int64_t or_default(int64_t value, int64_t fallback)
{
    return value > 0 ? value : fallback;
}

/* "https://host/ovirt-engine" of "https://host/ovirt-engine/api/". */
static char *base_url_of(const char *url)
{
    size_t len = strlen(url);
    while (len > 0 && url[len - 1] == '/')
        len--;
    if (len > 4 && strncmp(url + len - 4, "/api", 4) == 0)
        len -= 4;
    return xstrndup(url, len);
}

static bool check_conf(const struct engine_conf *c, struct err *err)
{
    if (!c->url || strncmp(c->url, "https://", 8) != 0 || strlen(c->url) > 1024)
        return err_set(err, ERR_BAD_CONFIG, 0, "engine url '%s' is not https://HOST/ovirt-engine",
                       c->url ? c->url : "");
    for (const char *at = c->url; *at; at++) {
        if (!isgraph((unsigned char)*at) || *at == '?' || *at == '#')
            return err_set(err, ERR_BAD_CONFIG, 0, "engine url holds a character it cannot have");
    }
    if (!c->user || c->user[0] == '\0')
        return err_set(err, ERR_BAD_CONFIG, 0, "engine user is not set (e.g. admin@internal)");
    if (!c->password_file || c->password_file[0] == '\0')
        return err_set(err, ERR_BAD_CONFIG, 0, "engine password_file is not set");
    return true;
}

static void copy_conf(struct engine *e, const struct engine_conf *c)
{
    e->base_url = base_url_of(c->url);
    e->user = xstrdup(c->user);
    e->password_file = xstrdup(c->password_file);
    e->ca_file = xstrdup_or_null(c->ca_file);
    e->conf = (struct engine_conf){
        .url = e->base_url,
        .user = e->user,
        .password_file = e->password_file,
        .ca_file = e->ca_file,
        .insecure = c->insecure,
        .connect_timeout_ms = or_default(c->connect_timeout_ms, 10 * 1000),
        .request_timeout_ms = or_default(c->request_timeout_ms, 180 * 1000),
        .busy_budget_ms = or_default(c->busy_budget_ms, 15 * 60 * 1000),
        .busy_min_ms = or_default(c->busy_min_ms, 2 * 1000),
        .busy_max_ms = or_default(c->busy_max_ms, 30 * 1000),
        .poll_min_ms = or_default(c->poll_min_ms, 1000),
        .poll_max_ms = or_default(c->poll_max_ms, 5 * 1000),
        .settle_ms = or_default(c->settle_ms, 30 * 1000),
        .max_body_bytes = or_default(c->max_body_bytes, 64 << 20),
        .clock = c->clock ? c->clock : clock_system(),
    };
}

static int64_t mono_ms(void *ctx)
{
    const struct engine *e = ctx;
    return clock_mono_ms(e->conf.clock);
}

struct http_options engine_http_options(const struct engine *e)
{
    return (struct http_options){
        .ca_file = e->conf.ca_file,
        .insecure = e->conf.insecure,
        .connect_timeout_ms = (long)e->conf.connect_timeout_ms,
        .timeout_ms = (long)e->conf.request_timeout_ms,
    };
}

struct engine *engine_new(const struct engine_conf *conf, struct err *err)
{
    if (!check_conf(conf, err))
        return NULL;
    struct engine *e = ALLOC_NEW(struct engine);
    copy_conf(e, conf);
    int rc = pthread_mutex_init(&e->lock, NULL);
    assert(rc == 0);
    e->login = login_new(&(struct login_conf){
        .base_url = e->base_url,
        .user = e->user,
        .password_file = e->password_file,
        .http = engine_http_options(e),
        .mono_ms = mono_ms,
        .ctx = e,
    });
    return e;
}

void engine_free(struct engine *e)
{
    if (!e)
        return;
    login_free(e->login);
    (void)pthread_mutex_destroy(&e->lock);
    free(e->base_url);
    free(e->user);
    free(e->password_file);
    free(e->ca_file);
    free(e);
}

int engine_version_cmp(const struct engine_version *v, int major, int minor, int build)
{
    if (v->major != major)
        return v->major < major ? -1 : 1;
    if (v->minor != minor)
        return v->minor < minor ? -1 : 1;
    return v->build == build ? 0 : v->build < build ? -1 : 1;
}

/* 7 of "4.5.7-1.el9"; 0 when there is none. */
static uint64_t third_number(const char *text)
{
    const char *dot = text ? strchr(text, '.') : NULL;
    dot = dot ? strchr(dot + 1, '.') : NULL;
    return dot && isdigit((unsigned char)dot[1]) ? strtoul(dot + 1, NULL, 10) : 0;
}

bool engine_version_of_json(const json_t *root, struct engine_version *ret, struct err *err)
{
    const json_t *version = member_object(member_object(root, "product_info"), "version");
    uint64_t major, minor, build = 0;
    if (!member_u64(version, "major", &major) || !member_u64(version, "minor", &minor) ||
        major > 100 || minor > 100)
        return err_set(err, ERR_ENGINE_PROTOCOL, 0, "the engine does not tell its version");
    if (!member_u64(version, "build", &build))
        build = third_number(member_str(version, "full_version"));
    struct engine_version v = {.major = (int)major, .minor = (int)minor};
    v.build = build <= 10000 ? (int)build : 10000;
    if (v.major != 4 || v.minor < 2)
        return err_set(err, ERR_UNSUPPORTED, 0,
                       "engine version %d.%d.%d is not supported: 4.2 to 4.x is needed", v.major,
                       v.minor, v.build);
    *ret = v;
    return true;
}

bool engine_read_version(struct engine_session *s, struct engine_version *ret, struct err *err)
{
    struct engine *e = engine_session_engine(s);
    (void)pthread_mutex_lock(&e->lock);
    struct engine_version known = e->version;
    (void)pthread_mutex_unlock(&e->lock);
    if (known.major == 0) {
        json_auto_t *root = NULL;
        if (!engine_get(s, "", NULL, &root, err) || !engine_version_of_json(root, &known, err))
            return err_wrap(err, "read the engine's version");
        (void)pthread_mutex_lock(&e->lock);
        e->version = known;
        (void)pthread_mutex_unlock(&e->lock);
    }
    *ret = known;
    return true;
}

bool engine_check_id(const char *what, const char *id, struct err *err)
{
    if (id && id_is_valid(id))
        return true;
    return err_set(err, ERR_BAD_ARGUMENT, 0, "%s '%.64s' is not an id of the engine", what,
                   id ? id : "");
}

char *engine_escape(const char *text)
{
    static const char hex[] = "0123456789ABCDEF";
    char *out = xmalloc(3 * strlen(text) + 1);
    char *at = out;
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (isalnum(*c) || strchr("-._~", *c)) {
            *at++ = (char)*c;
        } else {
            *at++ = '%';
            *at++ = hex[*c >> 4];
            *at++ = hex[*c & 15];
        }
    }
    *at = '\0';
    return out;
}

bool engine_probe_repeatable(struct engine_session *s, void *ctx, bool *ret_done,
                             json_t **ret_object, struct err *err)
{
    (void)s, (void)ctx, (void)ret_object, (void)err;
    *ret_done = false;
    return true;
}

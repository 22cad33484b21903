/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/worker/ovirt/fake_engine.h"

#include <assert.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <microhttpd.h>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "proto/base/alloc.h"
#include "proto/base/buf.h"
#include "proto/base/file.h"
#include "tests/unit/temp_dir.h"

enum { SEEN_MAX = 256, REQUEST_MAX = 1 << 20 };

struct fake_clock {
    struct clock clock;
    _Atomic int64_t now_ms;
};

struct fake_engine {
    struct MHD_Daemon *daemon;
    struct temp_dir dir;
    char *ca_file, *password_file, *url;
    char *key_pem, *cert_pem;
    struct fake_clock clock;
    pthread_mutex_t lock; /* guards all below */
    const struct fake_line *script;
    size_t line;
    struct fake_seen seen[SEEN_MAX];
    size_t seen_count;
    atomic_bool has_seen;
    unsigned logins, logouts, token;
    bool refuse, refuse_tokens, free_run;
    int login_status; /* 0 = as usual */
    const char *login_body;
    char mismatch[1024];
};

/* --- Clock ----------------------------------------------------------------------------------- */
static int64_t fake_now(const struct clock *c)
{
    return atomic_load(&((struct fake_clock *)(uintptr_t)c)->now_ms);
}

static void fake_sleep(const struct clock *c, int64_t ms)
{
    atomic_fetch_add(&((struct fake_clock *)(uintptr_t)c)->now_ms, ms);
}

static const struct clock_ops fake_clock_ops = {
    .mono_ms = fake_now, .wall_ms = fake_now, .sleep_ms = fake_sleep};

/* --- Certificate ----------------------------------------------------------------------------- */
static char *bio_text(BIO *bio)
{
    char *data;
    long len = BIO_get_mem_data(bio, &data);
    char *text = xstrndup(data, (size_t)len);
    BIO_free(bio);
    return text;
}

static void add_extension(X509 *cert, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, cert, cert, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    assert_non_null(extension);
    X509_add_ext(cert, extension, -1);
    X509_EXTENSION_free(extension);
}

static void make_certificate(struct fake_engine *f)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    assert_true(key && cert);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_set_version(cert, 2);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    X509_NAME *name = X509_get_subject_name(cert);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"fake engine", -1,
                               -1, 0);
    X509_set_issuer_name(cert, name);
    add_extension(cert, NID_basic_constraints, "critical,CA:TRUE");
    add_extension(cert, NID_subject_alt_name, "IP:127.0.0.1");
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(bio, cert);
    f->cert_pem = bio_text(bio);
    bio = BIO_new(BIO_s_mem());
    PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL);
    f->key_pem = bio_text(bio);
    X509_free(cert);
    EVP_PKEY_free(key);
}

/* --- Server ---------------------------------------------------------------------------------- */
static enum MHD_Result answer(struct MHD_Connection *c, int status, const char *body)
{
    const char *text = body ? body : "";
    struct MHD_Response *r = MHD_create_response_from_buffer(strlen(text), (char *)(uintptr_t)text,
                                                             MHD_RESPMEM_MUST_COPY);
    if (text[0])
        MHD_add_response_header(r, "Content-Type",
                                text[0] == '<' ? "text/html; charset=UTF-8"
                                               : "application/json;charset=UTF-8");
    enum MHD_Result result = MHD_queue_response(c, (unsigned)status, r);
    MHD_destroy_response(r);
    return result;
}

static void copy_header(struct MHD_Connection *c, const char *name, char *out, size_t room)
{
    const char *value = MHD_lookup_connection_value(c, MHD_HEADER_KIND, name);
    (void)snprintf(out, room, "%s", value ? value : "");
}

static enum MHD_Result on_query(void *ctx, enum MHD_ValueKind kind, const char *key,
                                const char *value)
{
    (void)kind;
    struct fake_seen *seen = ctx;
    size_t len = strlen(seen->request);
    (void)snprintf(seen->request + len, sizeof seen->request - len, "%c%s=%s",
                   strchr(seen->request, '?') ? '&' : '?', key, value ? value : "");
    return MHD_YES;
}

static enum MHD_Result serve_login(struct fake_engine *f, struct MHD_Connection *c)
{
    char body[128];
    f->logins++;
    if (f->login_status)
        return answer(c, f->login_status, f->login_body);
    if (f->refuse)
        return answer(c, 400,
                      "{\"error_code\":\"access_denied\",\"error\":\"Cannot authenticate user "
                      "'admin@internal': The username or password is incorrect.\"}");
    (void)snprintf(body, sizeof body,
                   "{\"access_token\":\"token-%u\",\"scope\":\"ovirt-app-api\","
                   "\"exp\":\"9223372036854775807\",\"token_type\":\"bearer\"}",
                   f->token);
    return answer(c, 200, body);
}

static enum MHD_Result serve_line(struct fake_engine *f, struct MHD_Connection *c,
                                  const char *request)
{
    const struct fake_line *line = &f->script[f->line];
    if (!line->request || strcmp(line->request, request) != 0) {
        if (!f->mismatch[0])
            (void)snprintf(f->mismatch, sizeof f->mismatch, "line %zu: expected '%s', got '%s'",
                           f->line, line->request ? line->request : "(nothing)", request);
        return answer(c, 418, "{\"reason\":\"not in the script\"}");
    }
    f->line++;
    if (line->act == FAKE_SLOW)
        clock_sleep_ms(clock_system(), 2000);
    return line->act == FAKE_DROP ? MHD_NO : answer(c, line->status, line->body);
}

static enum MHD_Result serve_api(struct fake_engine *f, struct MHD_Connection *c, const char *path,
                                 const char *method, const struct buf *body)
{
    assert(f->seen_count < SEEN_MAX);
    struct fake_seen *seen = &f->seen[f->seen_count++];
    atomic_store(&f->has_seen, true);
    (void)snprintf(seen->request, sizeof seen->request, "%s %s", method, path);
    (void)MHD_get_connection_values(c, MHD_GET_ARGUMENT_KIND, on_query, seen);
    (void)snprintf(seen->body, sizeof seen->body, "%s", buf_str(body));
    copy_header(c, "Correlation-Id", seen->correlation, sizeof seen->correlation);
    copy_header(c, "Authorization", seen->authorization, sizeof seen->authorization);
    copy_header(c, "Accept", seen->accept, sizeof seen->accept);
    copy_header(c, "Accept-Language", seen->language, sizeof seen->language);
    copy_header(c, "Expect", seen->expect, sizeof seen->expect);
    copy_header(c, "Content-Type", seen->content_type, sizeof seen->content_type);
    char good[64];
    (void)snprintf(good, sizeof good, "Bearer token-%u", f->token);
    if (f->refuse_tokens || strcmp(seen->authorization, good) != 0) {
        f->seen_count--;
        return answer(c, 401, "<html><head><title>Error</title></head><body>Unauthorized</body>");
    }
    return f->free_run ? answer(c, 200, "{}") : serve_line(f, c, seen->request);
}

static enum MHD_Result serve(void *ctx, struct MHD_Connection *c, const char *url,
                             const char *method, const char *version, const char *data,
                             size_t *data_len, void **state)
{
    (void)version;
    struct fake_engine *f = ctx;
    if (!*state) {
        struct buf *body = ALLOC_NEW(struct buf);
        buf_init(body, REQUEST_MAX);
        *state = body;
        return MHD_YES;
    }
    if (*data_len > 0) {
        (void)buf_add(*state, data, *data_len);
        *data_len = 0;
        return MHD_YES;
    }
    static const char base[] = "/ovirt-engine/";
    enum MHD_Result result;
    (void)pthread_mutex_lock(&f->lock);
    if (strcmp(url, "/ovirt-engine/sso/oauth/token") == 0) {
        result = serve_login(f, c);
    } else if (strcmp(url, "/ovirt-engine/services/sso-logout") == 0) {
        f->logouts++;
        result = answer(c, 200, "{}");
    } else if (strncmp(url, base, sizeof base - 1) == 0 &&
               strncmp(url + sizeof base - 1, "api", 3) == 0) {
        const char *path = url + sizeof base - 1 + 3;
        result = serve_api(f, c, *path == '/' ? path + 1 : path, method, *state);
    } else {
        result = answer(c, 404, NULL);
    }
    (void)pthread_mutex_unlock(&f->lock);
    return result;
}

static void request_done(void *ctx, struct MHD_Connection *c, void **state,
                         enum MHD_RequestTerminationCode why)
{
    (void)ctx, (void)c, (void)why;
    struct buf *body = *state;
    if (body)
        buf_done(body);
    free(body);
    *state = NULL;
}

/* --- Life ------------------------------------------------------------------------------------ */
static void write_file(const char *path, const char *text)
{
    struct err err = ERR_INIT;
    assert_true(file_write_atomic(AT_FDCWD, path, text, strlen(text), 0600, &err));
}

struct fake_engine *fake_engine_new(const struct fake_line *script)
{
    struct fake_engine *f = ALLOC_NEW(struct fake_engine);
    f->script = script;
    f->token = 1;
    f->clock = (struct fake_clock){.clock = {.ops = &fake_clock_ops}, .now_ms = 1000000};
    assert_int_equal(pthread_mutex_init(&f->lock, NULL), 0);
    temp_dir_make(&f->dir);
    make_certificate(f);
    f->ca_file = xasprintf("%s/ca.pem", f->dir.path);
    f->password_file = xasprintf("%s/password", f->dir.path);
    write_file(f->ca_file, f->cert_pem);
    write_file(f->password_file, "secret&=% \n");
    f->daemon = MHD_start_daemon(MHD_USE_TLS | MHD_USE_INTERNAL_POLLING_THREAD, 0, NULL, NULL,
                                 serve, f, MHD_OPTION_HTTPS_MEM_KEY, f->key_pem,
                                 MHD_OPTION_HTTPS_MEM_CERT, f->cert_pem,
                                 MHD_OPTION_NOTIFY_COMPLETED, request_done, NULL, MHD_OPTION_END);
    assert_non_null(f->daemon);
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(f->daemon, MHD_DAEMON_INFO_BIND_PORT);
    f->url = xasprintf("https://127.0.0.1:%u/ovirt-engine", info->port);
    return f;
}

void fake_engine_check(struct fake_engine *f)
{
    if (f->mismatch[0])
        fail_msg("script: %s", f->mismatch);
    if (!f->free_run && f->script[f->line].request)
        fail_msg("script: '%s' never came", f->script[f->line].request);
}

void fake_engine_free(struct fake_engine *f)
{
    MHD_stop_daemon(f->daemon);
    temp_dir_remove(&f->dir);
    free(f->ca_file);
    free(f->password_file);
    free(f->url);
    free(f->key_pem);
    free(f->cert_pem);
    (void)pthread_mutex_destroy(&f->lock);
    free(f);
}

void fake_engine_script(struct fake_engine *f, const struct fake_line *script)
{
    fake_engine_check(f);
    f->script = script;
    f->line = 0;
    f->seen_count = 0;
}

size_t fake_engine_seen_count(const struct fake_engine *f)
{
    return f->seen_count;
}

bool fake_engine_has_seen(const struct fake_engine *f)
{
    return atomic_load(&f->has_seen);
}

const struct fake_seen *fake_engine_seen(const struct fake_engine *f, size_t i)
{
    assert_true(i < f->seen_count);
    return &f->seen[i];
}

unsigned fake_engine_logins(const struct fake_engine *f)
{
    return f->logins;
}

unsigned fake_engine_logouts(const struct fake_engine *f)
{
    return f->logouts;
}

void fake_engine_expire_tokens(struct fake_engine *f)
{
    (void)pthread_mutex_lock(&f->lock);
    f->token++;
    (void)pthread_mutex_unlock(&f->lock);
}

void fake_engine_refuse_logins(struct fake_engine *f, bool refuse)
{
    f->refuse = refuse;
}

void fake_engine_set_login(struct fake_engine *f, int status, const char *body)
{
    f->login_status = status;
    f->login_body = body;
}

void fake_engine_refuse_tokens(struct fake_engine *f)
{
    f->refuse_tokens = true;
}

void fake_engine_free_run(struct fake_engine *f)
{
    f->free_run = true;
}

struct engine_conf fake_engine_conf(struct fake_engine *f)
{
    return (struct engine_conf){
        .url = f->url,
        .user = "admin@internal",
        .password_file = f->password_file,
        .ca_file = f->ca_file,
        .clock = &f->clock.clock,
    };
}

struct engine *fake_engine_client(struct fake_engine *f)
{
    struct engine_conf conf = fake_engine_conf(f);
    struct err err = ERR_INIT;
    struct engine *e = engine_new(&conf, &err);
    assert_non_null(e);
    return e;
}

const char *fake_engine_dir(const struct fake_engine *f)
{
    return f->dir.path;
}

int64_t fake_engine_now_ms(const struct fake_engine *f)
{
    return fake_now(&f->clock.clock);
}

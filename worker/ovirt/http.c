/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/ovirt/http.h"

#include <assert.h>
#include <pthread.h>
#include <string.h>

static pthread_once_t global_once = PTHREAD_ONCE_INIT;

static void global_init(void)
{
    CURLcode rc = curl_global_init(CURL_GLOBAL_DEFAULT);
    assert(rc == CURLE_OK);
}

CURL *http_handle_new(void)
{
    (void)pthread_once(&global_once, global_init);
    CURL *curl = curl_easy_init();
    assert(curl);
    return curl;
}

void http_reply_init(struct http_reply *reply, size_t max_body_bytes)
{
    *reply = (struct http_reply){0};
    buf_init(&reply->body, max_body_bytes);
}

void http_reply_done(struct http_reply *reply)
{
    buf_done(&reply->body);
}

struct transfer {
    const struct http_request *request;
    struct http_reply *reply;
    bool too_large, aborted, vetoed;
};

static size_t on_body(char *data, size_t size, size_t count, void *ctx)
{
    struct transfer *t = ctx;
    if (buf_add(&t->reply->body, data, size * count))
        return size * count;
    t->too_large = true;
    return 0;
}

static int on_progress(void *ctx, curl_off_t dltotal, curl_off_t dlnow, curl_off_t ultotal,
                       curl_off_t ulnow)
{
    (void)dltotal, (void)dlnow, (void)ultotal, (void)ulnow;
    struct transfer *t = ctx;
    if (!t->request->abort || !t->request->abort(t->request->abort_ctx))
        return 0;
    t->aborted = true;
    return 1;
}

static bool may_go_out(struct transfer *t)
{
    const struct http_request *r = t->request;
    t->vetoed = r->before_send && !r->before_send(r->before_send_ctx);
    return !t->vetoed;
}

#if LIBCURL_VERSION_NUM >= 0x075000
static int on_connected(void *ctx, char *ip, char *local_ip, int port, int local_port)
{
    (void)ip, (void)local_ip, (void)port, (void)local_port;
    return may_go_out(ctx) ? CURL_PREREQFUNC_OK : CURL_PREREQFUNC_ABORT;
}

static bool set_before_send(CURL *curl, struct transfer *t)
{
    curl_easy_setopt(curl, CURLOPT_PREREQFUNCTION, on_connected);
    curl_easy_setopt(curl, CURLOPT_PREREQDATA, t);
    return true;
}
#else /* an older libcurl cannot ask so late: before it connects */
static bool set_before_send(CURL *curl, struct transfer *t)
{
    (void)curl;
    return may_go_out(t);
}
#endif

static void set_connection_options(CURL *curl, const struct http_options *o)
{
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "https");
#else
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS, (long)CURLPROTO_HTTPS);
#endif
    curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(curl, CURLOPT_PROXY, ""); /* the environment decides nothing here */
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(curl, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, o->connect_timeout_ms);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, o->timeout_ms);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, o->insecure ? 0L : 1L);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, o->insecure ? 0L : 2L);
    curl_easy_setopt(curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (o->ca_file) {
        curl_easy_setopt(curl, CURLOPT_CAINFO, o->ca_file);
        curl_easy_setopt(curl, CURLOPT_CAPATH, NULL);
    }
}

static void set_request_options(CURL *curl, const struct http_request *r, struct transfer *t)
{
    curl_easy_setopt(curl, CURLOPT_URL, r->url);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, r->headers);
    curl_easy_setopt(curl, CURLOPT_FRESH_CONNECT, r->fresh_connection ? 1L : 0L);
    if (r->body) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body_len);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, r->body);
    }
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, r->method);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, t);
}

bool http_is_certificate_fault(CURLcode rc)
{
    return rc == CURLE_PEER_FAILED_VERIFICATION || rc == CURLE_SSL_ISSUER_ERROR ||
           rc == CURLE_SSL_INVALIDCERTSTATUS || rc == CURLE_SSL_CERTPROBLEM ||
           rc == CURLE_SSL_PINNEDPUBKEYNOTMATCH;
}

bool http_is_configuration_fault(CURLcode rc)
{
    return rc == CURLE_SSL_CACERT_BADFILE || rc == CURLE_SSL_CRL_BADFILE ||
           rc == CURLE_URL_MALFORMAT || rc == CURLE_UNSUPPORTED_PROTOCOL ||
           rc == CURLE_NOT_BUILT_IN || rc == CURLE_BAD_FUNCTION_ARGUMENT;
}

static enum http_result explain(CURL *curl, CURLcode rc, const char *text, const struct transfer *t,
                                struct err *err)
{
    long request_bytes = 0;
    (void)curl_easy_getinfo(curl, CURLINFO_REQUEST_SIZE, &request_bytes);
    if (t->too_large) {
        err_set(err, ERR_TOO_LARGE, 0, "answer is larger than %zu bytes", t->reply->body.max);
        return HTTP_REFUSED;
    }
    if (t->aborted) {
        err_set(err, ERR_CANCELLED, 0, "stopped while waiting for the answer");
        return HTTP_ABORTED;
    }
    if (t->vetoed) {
        err_set(err, ERR_CANCELLED, 0, "stopped before it was sent");
        return HTTP_VETOED;
    }
    if (http_is_certificate_fault(rc)) {
        err_set(err, ERR_ENGINE_TLS, 0,
                "TLS: the certificate does not verify (%s): set the CA file of this engine", text);
        return HTTP_REFUSED;
    }
    if (http_is_configuration_fault(rc)) {
        err_set(err, ERR_BAD_CONFIG, 0, "%s", text);
        return HTTP_REFUSED;
    }
    bool sent = request_bytes > 0;
    err_set(err, ERR_ENGINE_UNREACHABLE, 0, "%s%s",
            sent ? "the request was sent, but no answer came: " : "no connection: ", text);
    return sent ? HTTP_LOST : HTTP_UNSENT;
}

enum http_result http_exchange(CURL *curl, const struct http_options *options,
                               const struct http_request *request, struct http_reply *reply,
                               struct err *err)
{
    char text[CURL_ERROR_SIZE] = "";
    struct transfer t = {.request = request, .reply = reply};
    buf_reset(&reply->body);
    reply->status = 0;
    reply->content_type[0] = '\0';
    curl_easy_reset(curl); /* keeps the connections */
    set_connection_options(curl, options);
    set_request_options(curl, request, &t);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, text);
    CURLcode rc = CURLE_ABORTED_BY_CALLBACK;
    if (set_before_send(curl, &t))
        rc = curl_easy_perform(curl);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, NULL);
    if (rc != CURLE_OK)
        return explain(curl, rc, text[0] ? text : curl_easy_strerror(rc), &t, err);
    (void)curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &reply->status);
    const char *type = NULL;
    (void)curl_easy_getinfo(curl, CURLINFO_CONTENT_TYPE, &type);
    if (type)
        (void)snprintf(reply->content_type, sizeof reply->content_type, "%s", type);
    return HTTP_ANSWERED;
}

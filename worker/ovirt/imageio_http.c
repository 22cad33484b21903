/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/ovirt/imageio_http.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "proto/base/alloc.h"
#include "worker/ovirt/http.h"

enum { BUFFER_BYTES = 512 << 10 };

struct exchange {
    CURL *curl;
    const struct imageio_request *request;
    struct imageio_reply *reply;
    struct err *err;
    uint64_t received; /* of a good answer's body */
    size_t text_len;
    bool has_start; /* content-range was there, and says: */
    uint64_t start;
    bool stopped, broken;
};

static bool is_good(long status)
{
    return status == 200 || status == 204 || status == 206;
}

/* The first number of "bytes 4096-8191/1048576" (RFC 9110, 14.4). */
static bool range_start(const char *text, uint64_t *ret)
{
    static const char unit[] = "bytes ";
    text += strspn(text, " ");
    if (strncasecmp(text, unit, sizeof unit - 1) != 0)
        return false;
    text += sizeof unit - 1;
    if (!isdigit((unsigned char)*text)) /* strtoull alone takes signs and blanks */
        return false;
    char *end;
    errno = 0;
    unsigned long long start = strtoull(text, &end, 10);
    if (errno != 0 || *end != '-')
        return false;
    *ret = start;
    return true;
}

static size_t on_header(char *data, size_t size, size_t count, void *ctx)
{
    static const char name[] = "content-range:";
    struct exchange *x = ctx;
    char line[96];
    size_t len = size * count;
    if (len < sizeof line && len > sizeof name && strncasecmp(data, name, sizeof name - 1) == 0) {
        memcpy(line, data, len);
        line[len] = '\0';
        x->has_start = range_start(line + sizeof name - 1, &x->start);
    }
    return len;
}

static void keep_text(struct exchange *x, const char *data, size_t len)
{
    for (size_t i = 0; i < len && x->text_len + 1 < sizeof x->reply->text; i++) {
        unsigned char c = (unsigned char)data[i];
        x->reply->text[x->text_len++] = (char)(c < ' ' || c > '~' ? ' ' : c);
    }
    while (x->text_len > 0 && x->reply->text[x->text_len - 1] == ' ')
        x->text_len--;
    x->reply->text[x->text_len] = '\0';
}

/* True when the range that comes is the one that was asked for. */
static bool range_is_right(struct exchange *x, long status)
{
    const struct imageio_request *r = x->request;
    if (!r->into)
        return true;
    return status == 206 && x->has_start && x->start == r->offset;
}

static size_t on_body(char *data, size_t size, size_t count, void *ctx)
{
    struct exchange *x = ctx;
    const struct imageio_request *r = x->request;
    size_t len = size * count;
    long status = 0;
    (void)curl_easy_getinfo(x->curl, CURLINFO_RESPONSE_CODE, &status);
    if (!is_good(status)) {
        keep_text(x, data, len);
        return len;
    }
    if (r->sink) {
        x->stopped = !r->sink(r->sink_ctx, data, len, x->err);
        return x->stopped ? 0 : len;
    }
    if (!r->into)
        return len;
    x->broken = len > r->len - x->received || !range_is_right(x, status);
    if (x->broken)
        return 0;
    memcpy((char *)r->into + x->received, data, len);
    x->received += len;
    return len;
}

static int on_progress(void *ctx, curl_off_t dltotal, curl_off_t dlnow, curl_off_t ultotal,
                       curl_off_t ulnow)
{
    (void)dltotal, (void)dlnow, (void)ultotal, (void)ulnow;
    struct exchange *x = ctx;
    const struct imageio_request *r = x->request;
    if (!x->stopped && r->stopped && r->stopped(r->stopped_ctx, x->err))
        x->stopped = true;
    return x->stopped ? 1 : 0;
}

static void set_address(CURL *curl, const struct imageio_address *a)
{
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR,
                     a->unix_path[0] ? "http"
                     : a->insecure   ? "http,https"
                                     : "https");
#else
    long tcp = CURLPROTO_HTTPS | (a->insecure ? CURLPROTO_HTTP : 0);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS, a->unix_path[0] ? (long)CURLPROTO_HTTP : tcp);
#endif
    curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(curl, CURLOPT_PROXY, ""); /* the environment decides nothing here */
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(curl, CURLOPT_MAXCONNECTS, 1L); /* one handle, one connection */
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, a->connect_timeout_ms);
    curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, (long)BUFFER_BYTES);
    curl_easy_setopt(curl, CURLOPT_UPLOAD_BUFFERSIZE, (long)BUFFER_BYTES);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, (a->stall_ms + 999) / 1000);
    if (a->unix_path[0])
        curl_easy_setopt(curl,
                         a->is_abstract ? CURLOPT_ABSTRACT_UNIX_SOCKET : CURLOPT_UNIX_SOCKET_PATH,
                         a->unix_path);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, a->insecure ? 0L : 1L);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, a->insecure ? 0L : 2L);
    curl_easy_setopt(curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (a->ca_file) {
        curl_easy_setopt(curl, CURLOPT_CAINFO, a->ca_file);
        curl_easy_setopt(curl, CURLOPT_CAPATH, NULL);
    }
}

static struct curl_slist *set_request(CURL *curl, const struct imageio_request *r,
                                      struct exchange *x)
{
    struct curl_slist *headers = curl_slist_append(NULL, "Expect:"); /* a round trip for nothing */
    headers = curl_slist_append(headers, "User-Agent: oxbow/" OXBOW_VERSION);
    if (r->body) {
        headers = curl_slist_append(headers, r->has_range ? "Content-Type: application/octet-stream"
                                                          : "Content-Type: application/json");
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body_len);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, r->body);
    }
    if (r->has_range) {
        SCOPED_FREE char *range =
            xasprintf(r->body ? "Content-Range: bytes %" PRIu64 "-%" PRIu64 "/*"
                              : "Range: bytes=%" PRIu64 "-%" PRIu64,
                      r->offset, r->offset + r->len - 1);
        headers = curl_slist_append(headers, range);
    }
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, r->method);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, r->timeout_ms);
    if (r->timeout_ms != 0)
        curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, 0L);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, x);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, x);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, x);
    return headers;
}

static enum imageio_result explain(CURLcode rc, const char *text, struct exchange *x)
{
    if (x->stopped)
        return IMAGEIO_STOPPED;
    if (x->broken) {
        err_set(x->err, ERR_ENGINE_PROTOCOL, 0, "the host sent another range than was asked for");
        return IMAGEIO_BROKEN;
    }
    if (http_is_certificate_fault(rc)) {
        err_set(x->err, ERR_ENGINE_TLS, 0,
                "TLS: the host's certificate does not verify (%s): set the engine's CA file", text);
        return IMAGEIO_REFUSED;
    }
    if (http_is_configuration_fault(rc)) {
        err_set(x->err, ERR_BAD_CONFIG, 0, "%s", text);
        return IMAGEIO_REFUSED;
    }
    err_set(x->err, ERR_ENGINE_UNREACHABLE, 0, "%s", text);
    return IMAGEIO_LOST;
}

static void note_host(CURL *curl, struct imageio_reply *reply)
{
    const char *local = NULL, *peer = NULL;
    (void)curl_easy_getinfo(curl, CURLINFO_LOCAL_IP, &local);
    (void)curl_easy_getinfo(curl, CURLINFO_PRIMARY_IP, &peer);
    reply->is_same_host = local && peer && local[0] && strcmp(local, peer) == 0;
    (void)curl_easy_getinfo(curl, CURLINFO_NUM_CONNECTS, &reply->connects);
}

enum imageio_result imageio_exchange(CURL *curl, const struct imageio_address *address,
                                     const struct imageio_request *request,
                                     struct imageio_reply *reply, struct err *err)
{
    char text[CURL_ERROR_SIZE] = "";
    SCOPED_FREE char *url = xasprintf("%s%s", address->url, request->suffix);
    struct exchange x = {.curl = curl, .request = request, .reply = reply, .err = err};
    *reply = (struct imageio_reply){0};
    curl_easy_reset(curl); /* keeps the connection */
    set_address(curl, address);
    struct curl_slist *headers = set_request(curl, request, &x);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, text);
    CURLcode rc = curl_easy_perform(curl);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, NULL);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(headers);
    note_host(curl, reply);
    if (rc != CURLE_OK)
        return explain(rc, text[0] ? text : curl_easy_strerror(rc), &x);
    (void)curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &reply->status);
    if (!is_good(reply->status)) {
        err_set(err, ERR_ENGINE_PROTOCOL, (int)reply->status, "%ld %s", reply->status, reply->text);
        return IMAGEIO_STATUS;
    }
    if (request->into && (x.received != request->len || !range_is_right(&x, reply->status))) {
        err_set(err, ERR_ENGINE_PROTOCOL, 0,
                "the host sent %" PRIu64 " bytes of %" PRIu64 " asked for", x.received,
                request->len);
        return IMAGEIO_BROKEN;
    }
    return IMAGEIO_DONE;
}

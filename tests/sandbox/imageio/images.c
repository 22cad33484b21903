/* SPDX-License-Identifier: Apache-2.0 */
/* What the methods of /images/ID do. */
#include <inttypes.h>
#include <string.h>

#include <jansson.h>

#include "tests/sandbox/imageio/imageio_private.h"
#include "tests/sandbox/imageio/range.h"

enum { READ_BYTES = 512 << 10, ZERO_BYTES = 128 << 20, EXTENTS_BYTES_MAX = 512 << 20 };

/* --- What all methods share
 * --------------------------------------------------------------------------- */

uint64_t request_offset(struct request *r)
{
    const char *range = request_header(r, MHD_HTTP_HEADER_RANGE);
    const char *content = request_header(r, MHD_HTTP_HEADER_CONTENT_RANGE);
    struct range parsed = {0};
    uint64_t first = 0;
    const char *ignored;
    if (range && range_parse(range, &parsed, &ignored) == RANGE_OK)
        return parsed.first;
    return content && content_range_parse(content, &first) ? first : 0;
}

bool request_authorize(struct request *r, bool write, enum MHD_Result *ret)
{
    struct err err = ERR_INIT;
    r->ticket = ticket_authorize(r->server->tickets, r->ticket_id, write, &err);
    if (!r->ticket) {
        r->close = !r->checksum; /* as the real one */
        *ret = answer_error(r, MHD_HTTP_FORBIDDEN, "%s", err.message);
        return false;
    }
    r->backend = request_backend(r, &err);
    if (!r->backend) {
        *ret = answer_internal(r);
        return false;
    }
    return true;
}

static enum MHD_Result refuse_range(struct request *r, uint64_t size, const char *text)
{
    r->content_range = xasprintf("bytes */%" PRIu64, size);
    return answer_error(r, MHD_HTTP_RANGE_NOT_SATISFIABLE, "%s", text);
}

static bool is_allowed(const struct request *r)
{
    uint64_t size = ticket_opts(r->ticket)->size_bytes;
    return r->offset <= size && r->size <= size - r->offset;
}

bool request_begin_op(struct request *r, enum MHD_Result *ret)
{
    struct err err = ERR_INIT;
    r->op = ticket_begin(r->ticket, r->offset, &err);
    if (r->op)
        return true;
    r->close = true;
    *ret = answer_error(r, MHD_HTTP_FORBIDDEN, "%s", err.message);
    return false;
}

/* The answer to a body-less success. */
static enum MHD_Result answer_done(struct request *r)
{
    ticket_end(TAKE(r->op));
    return answer(r, MHD_HTTP_OK, NULL, "", 0);
}

enum MHD_Result answer_cancelled(struct request *r)
{
    r->close = true;
    return answer_error(r, MHD_HTTP_FORBIDDEN,
                        "You are not allowed to access this resource: Transfer %s was canceled",
                        ticket_opts(r->ticket)->transfer_id);
}

/* --- OPTIONS
 * ------------------------------------------------------------------------------------------ */

static enum MHD_Result serve_options(struct request *r)
{
    enum MHD_Result result;
    bool any = strcmp(r->ticket_id, "*") == 0;
    if (!any && !request_authorize(r, false, &result))
        return result;
    if (!any)
        ticket_touch(r->ticket);
    bool write = any || ticket_opts(r->ticket)->can_write;
    r->allow = write ? "OPTIONS,GET,PUT,PATCH" : "OPTIONS,GET";
    unsigned most = r->server->max_connections;
    SCOPED_FREE char *limits =
        any ? xstrdup("") : xasprintf(", \"max_readers\": %u, \"max_writers\": %u", most, most);
    const char *local = r->server->unix_socket;
    SCOPED_FREE char *socket = local ? xasprintf(", \"unix_socket\": \"%s\"", local) : xstrdup("");
    SCOPED_FREE char *body = xasprintf("{\"features\": [\"checksum\", \"extents\"%s]%s%s}",
                                       write ? ", \"flush\", \"zero\"" : "", limits, socket);
    return answer(r, MHD_HTTP_OK, "application/json", body, strlen(body));
}

/* --- GET
 * ---------------------------------------------------------------------------------------------- */

/* Make the bytes at r->done of the answer be in the buffer. */
static bool fill_buffer(struct request *r)
{
    struct err err = ERR_INIT;
    uint64_t left = r->size - r->done;
    size_t len = left < READ_BYTES ? (size_t)left : READ_BYTES;
    if (!backend_read(r->backend, r->buffer, len, r->offset + r->done, &err))
        return false;
    r->buffer_from = r->done;
    r->buffer_to = r->done + len;
    return true;
}

/* The next piece of a download. */
static ssize_t read_body(void *arg, uint64_t at, char *out, size_t max)
{
    struct request *r = arg;
    if (at >= r->size)
        return MHD_CONTENT_READER_END_OF_STREAM;
    r->done = at;
    if (r->body_left_to_cut == 0 || !ticket_progress(r->op, 0))
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (at < r->buffer_from || at >= r->buffer_to) {
        if (!fill_buffer(r))
            return MHD_CONTENT_READER_END_WITH_ERROR;
    }
    uint64_t len = r->buffer_to - at;
    len = len < max ? len : max;
    len = len < r->body_left_to_cut ? len : r->body_left_to_cut;
    memcpy(out, r->buffer + (at - r->buffer_from), len);
    if (r->body_left_to_cut != UINT64_MAX)
        r->body_left_to_cut -= len;
    (void)ticket_progress(r->op, len);
    r->done = at + len;
    if (r->done == r->size)
        ticket_end(TAKE(r->op)); /* the ticket lives on from the end of the operation */
    return (ssize_t)len;
}

static enum MHD_Result send_image(struct request *r, bool partial)
{
    enum MHD_Result result;
    if (!request_begin_op(r, &result))
        return result;
    r->buffer = xmalloc(READ_BYTES);
    if (r->size > 0 && !fill_buffer(r)) /* before the head is out: an error can still be told */
        return answer_internal(r);
    const struct imageio_ticket *opts = ticket_opts(r->ticket);
    SCOPED_FREE char *disposition = opts->filename
                                        ? xasprintf("attachment; filename=%s", opts->filename)
                                        : xstrdup("attachment");
    struct MHD_Response *response =
        r->size > 0 ? MHD_create_response_from_callback(r->size, READ_BYTES, read_body, r, NULL)
                    : MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE,
                                  "application/octet-stream");
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_DISPOSITION, disposition);
    if (partial) {
        SCOPED_FREE char *range = xasprintf("bytes %" PRIu64 "-%" PRId64 "/%" PRIu64, r->offset,
                                            (int64_t)(r->offset + r->size) - 1, opts->size_bytes);
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_RANGE, range);
    }
    result = queue_response(r, partial ? MHD_HTTP_PARTIAL_CONTENT : MHD_HTTP_OK, response);
    if (r->size == 0)
        ticket_end(TAKE(r->op));
    return result;
}

static enum MHD_Result serve_get(struct request *r)
{
    enum MHD_Result result;
    struct range range = {0};
    const char *header = request_header(r, MHD_HTTP_HEADER_RANGE);
    const char *close = request_argument(r, "close");
    r->close = close && strcmp(close, "y") == 0;
    const char *why = NULL;
    enum range_result parsed = header ? range_parse(header, &range, &why) : RANGE_OK;
    if (parsed == RANGE_BAD)
        return answer_error(r, MHD_HTTP_RANGE_NOT_SATISFIABLE, "Cannot satisfy range '%s', %s",
                            header, why);
    if (parsed == RANGE_SUFFIX)
        return answer_error(r, MHD_HTTP_RANGE_NOT_SATISFIABLE,
                            "suffix-byte-range-spec not supported yet");
    if (!request_authorize(r, false, &result))
        return result;
    uint64_t allowed = ticket_opts(r->ticket)->size_bytes;
    uint64_t there = backend_size(r->backend);
    uint64_t available = allowed < there ? allowed : there;
    r->offset = range.first;
    if (range.has_last) {
        r->size = range.last - range.first + 1;
        if (!is_allowed(r))
            return refuse_range(r, allowed, "Requested range out of allowed range");
        SCOPED_FREE char *text =
            xasprintf("Requested more bytes than available: %" PRIu64 " > %" PRIu64,
                      r->offset + r->size, available);
        if (r->offset + r->size > available)
            return refuse_range(r, available, text);
        return send_image(r, true);
    }
    if (r->offset > available) { /* an oddity that the real one has, too */
        r->content_range =
            xasprintf("bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64, r->offset, available - 1, allowed);
        return answer_error(r, MHD_HTTP_BAD_REQUEST,
                            "Requested -%" PRIu64 " bytes, available 0 bytes",
                            r->offset - available);
    }
    r->size = available - r->offset;
    return send_image(r, header);
}

static enum MHD_Result serve_extents(struct request *r)
{
    enum MHD_Result result;
    struct err err = ERR_INIT;
    if (!request_authorize(r, false, &result))
        return result;
    const char *context = request_argument(r, "context");
    bool dirty = context && strcmp(context, "dirty") == 0;
    if (context && !dirty && strcmp(context, "zero") != 0)
        return answer_error(r, MHD_HTTP_BAD_REQUEST,
                            "Unsupported value '%s' for 'context', expecting one of "
                            "['dirty', 'zero']",
                            context);
    if (dirty && !ticket_opts(r->ticket)->dirty_bitmap)
        return answer_error(r, MHD_HTTP_NOT_FOUND, "Ticket does not support dirty extents");
    SCOPED_BUF struct buf json;
    buf_init(&json, EXTENTS_BYTES_MAX);
    if (backend_extents(r->backend, dirty, &json, &err))
        return answer(r, MHD_HTTP_OK, "application/json", buf_str(&json), json.len);
    if (err.code == ERR_UNSUPPORTED)
        return answer_error(r, MHD_HTTP_NOT_FOUND, "%s", err.message);
    return answer_internal(r);
}

/* --- PUT
 * ---------------------------------------------------------------------------------------------- */

static bool parse_length(const char *text, uint64_t *ret)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || value > INT64_MAX)
        return false;
    *ret = value;
    return true;
}

static enum MHD_Result serve_put(struct request *r)
{
    enum MHD_Result result;
    const char *close = request_argument(r, "close");
    const char *flush = request_argument(r, "flush");
    const char *length = request_header(r, MHD_HTTP_HEADER_CONTENT_LENGTH);
    const char *range = request_header(r, MHD_HTTP_HEADER_CONTENT_RANGE);
    r->close = close && strcmp(close, "y") == 0;
    if (!length || !parse_length(length, &r->size))
        return answer_error(r, MHD_HTTP_BAD_REQUEST, "Content-Length header is required");
    if (range && !content_range_parse(range, &r->offset))
        return answer_error(r, MHD_HTTP_BAD_REQUEST, "Invalid Content-Range: '%s'", range);
    if (flush && strcmp(flush, "y") != 0 && strcmp(flush, "n") != 0)
        return answer_error(r, MHD_HTTP_BAD_REQUEST,
                            "Unsupported value '%s' for 'flush', expecting one of ['n', 'y']",
                            flush);
    r->flush = !flush || strcmp(flush, "y") == 0;
    if (!request_authorize(r, true, &result))
        return result;
    if (!is_allowed(r))
        return refuse_range(r, ticket_opts(r->ticket)->size_bytes,
                            "Requested range out of allowed range");
    if (!request_begin_op(r, &result))
        return result;
    r->wants_body = true;
    return MHD_YES;
}

static enum MHD_Result take_upload(struct request *r, const char *data, size_t len)
{
    struct err err = ERR_INIT;
    if (r->body_left_to_cut < len)
        return MHD_NO;
    if (r->body_left_to_cut != UINT64_MAX)
        r->body_left_to_cut -= len;
    if (r->failed || len > r->size - r->done) {
        r->failed = true;
        return MHD_YES;
    }
    r->failed = !backend_write(r->backend, data, len, r->offset + r->done, &err) ||
                !ticket_progress(r->op, len);
    r->done += len;
    return MHD_YES;
}

static enum MHD_Result finish_put(struct request *r)
{
    struct err err = ERR_INIT;
    bool cancelled = !ticket_progress(r->op, 0);
    if (cancelled)
        return answer_cancelled(r);
    if (r->failed || (r->flush && !backend_flush(r->backend, &err))) {
        r->close = true;
        return answer_internal(r);
    }
    return answer_done(r);
}

/* --- PATCH
 * -------------------------------------------------------------------------------------------- */

/* A value as the real one shows it: Python's repr(). Free it. */
static char *show(const json_t *value)
{
    if (json_is_string(value))
        return xasprintf("'%s'", json_string_value(value));
    if (json_is_null(value))
        return xstrdup("None");
    if (json_is_boolean(value))
        return xstrdup(json_is_true(value) ? "True" : "False");
    return json_dumps(value, JSON_ENCODE_ANY);
}

/* An integer member, not negative; false when *ret_answer is the answer. */
static bool get_integer(struct request *r, json_t *message, const char *name, bool required,
                        uint64_t *ret, enum MHD_Result *ret_answer)
{
    json_t *value = json_object_get(message, name);
    if (!value && !required)
        return true;
    if (!value) {
        *ret_answer =
            answer_error(r, MHD_HTTP_BAD_REQUEST, "Missing required value for '%s'", name);
        return false;
    }
    if (!json_is_integer(value)) {
        SCOPED_FREE char *text = show(value);
        *ret_answer = answer_error(r, MHD_HTTP_BAD_REQUEST, "Integer required %s", text);
        return false;
    }
    if (json_integer_value(value) < 0) {
        *ret_answer =
            answer_error(r, MHD_HTTP_BAD_REQUEST, "Invalid value %" JSON_INTEGER_FORMAT " < 0",
                         json_integer_value(value));
        return false;
    }
    *ret = (uint64_t)json_integer_value(value);
    return true;
}

static enum MHD_Result patch_zero(struct request *r, json_t *message)
{
    enum MHD_Result result;
    struct err err = ERR_INIT;
    if (!get_integer(r, message, "size", true, &r->size, &result) ||
        !get_integer(r, message, "offset", false, &r->offset, &result))
        return result;
    json_t *flush = json_object_get(message, "flush");
    if (flush && !json_is_boolean(flush)) {
        SCOPED_FREE char *text = show(flush);
        return answer_error(r, MHD_HTTP_BAD_REQUEST, "Boolean required %s", text);
    }
    if (!request_authorize(r, true, &result))
        return result;
    if (!is_allowed(r))
        return refuse_range(r, ticket_opts(r->ticket)->size_bytes,
                            "Requested range out of allowed range");
    if (!request_begin_op(r, &result))
        return result;
    for (uint64_t done = 0; done < r->size;) {
        uint64_t len = r->size - done < ZERO_BYTES ? r->size - done : ZERO_BYTES;
        if (!backend_zero(r->backend, len, r->offset + done, ticket_opts(r->ticket)->sparse, &err))
            return answer_internal(r);
        if (!ticket_progress(r->op, len))
            return answer_cancelled(r);
        done += len;
    }
    if (json_is_true(flush) && !backend_flush(r->backend, &err))
        return answer_internal(r);
    return answer_done(r);
}

static enum MHD_Result patch_flush(struct request *r)
{
    enum MHD_Result result;
    struct err err = ERR_INIT;
    if (!request_authorize(r, true, &result) || !request_begin_op(r, &result))
        return result;
    if (!backend_flush(r->backend, &err))
        return answer_internal(r);
    return answer_done(r);
}

static enum MHD_Result finish_patch(struct request *r)
{
    json_error_t why;
    json_t *message = json_loadb(buf_str(&r->body), r->body.len, JSON_DECODE_ANY, &why);
    enum MHD_Result result;
    json_t *op = json_object_get(message, "op");
    const char *name = json_string_value(op);
    SCOPED_FREE char *shown = op ? show(op) : NULL;
    if (r->failed)
        result = answer_error(r, MHD_HTTP_BAD_REQUEST, "The message is too large");
    else if (!message)
        result = answer_error(r, MHD_HTTP_BAD_REQUEST, "Invalid JSON message %s", why.text);
    else if (!json_is_object(message))
        result = answer_internal(r); /* as the real one does */
    else if (!op)
        result = answer_error(r, MHD_HTTP_BAD_REQUEST, "Missing required value for op");
    else if (name && strcmp(name, "zero") == 0)
        result = patch_zero(r, message);
    else if (name && strcmp(name, "flush") == 0)
        result = patch_flush(r);
    else
        result = answer_error(r, MHD_HTTP_BAD_REQUEST,
                              "Unsupported value %s for 'op', expecting one of "
                              "['flush', 'zero']",
                              shown);
    json_decref(message);
    return result;
}

/* --- The methods
 * --------------------------------------------------------------------------------------- */

enum MHD_Result serve_image(struct request *r)
{
    bool get = strcmp(r->method, MHD_HTTP_METHOD_GET) == 0;
    bool whole = !r->extents && !r->checksum && !r->algorithms;
    if (r->extents && get)
        return serve_extents(r);
    if (r->checksum && get)
        return serve_checksum(r);
    if (r->algorithms && get)
        return serve_algorithms(r);
    if (whole && get)
        return serve_get(r);
    if (whole && strcmp(r->method, MHD_HTTP_METHOD_OPTIONS) == 0)
        return serve_options(r);
    if (whole && strcmp(r->method, MHD_HTTP_METHOD_PUT) == 0)
        return serve_put(r);
    if (whole && strcmp(r->method, MHD_HTTP_METHOD_PATCH) == 0) {
        r->wants_body = true;
        return MHD_YES;
    }
    return answer_error(r, MHD_HTTP_METHOD_NOT_ALLOWED, "Method '%s' not defined for '%s'",
                        r->method, r->path);
}

enum MHD_Result take_body(struct request *r, const char *data, size_t len)
{
    if (!r->wants_body)
        return MHD_YES; /* a body that nobody wanted */
    if (r->op)
        return take_upload(r, data, len);
    r->failed = r->failed || !buf_add(&r->body, data, len);
    return MHD_YES;
}

enum MHD_Result finish_image(struct request *r)
{
    return r->op ? finish_put(r) : finish_patch(r);
}

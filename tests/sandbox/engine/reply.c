/* SPDX-License-Identifier: Apache-2.0 */
/* Parameters in, answers out: the engine's wording of success and of faults. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <microhttpd.h>

#include "tests/sandbox/engine/http.h"

const char *request_param(const struct request *r, const char *name)
{
    const char *value = MHD_lookup_connection_value(r->conn, MHD_GET_ARGUMENT_KIND, name);
    if (value)
        return value;
    /* "?all_content" without "=": present with a NULL value. */
    size_t len = strlen(name);
    if (MHD_lookup_connection_value_n(r->conn, MHD_GET_ARGUMENT_KIND, name, len, &value, NULL) ==
        MHD_YES)
        return value ? value : "";
    return NULL;
}

static bool is_one_of(const char *word, const char *const *list)
{
    for (; *list; list++)
        if (!strcasecmp(word, *list))
            return true;
    return false;
}

static bool flag_value(const char *value, bool otherwise)
{
    static const char *const yes[] = {"", "t", "true", "y", "yes", "1", NULL};
    static const char *const no[] = {"f", "false", "n", "no", "0", NULL};
    if (!value)
        return otherwise;
    if (is_one_of(value, yes))
        return true;
    return is_one_of(value, no) ? false : otherwise;
}

bool request_flag(const struct request *r, const char *name, bool otherwise)
{
    return flag_value(request_param(r, name), otherwise);
}

const char *request_http_header(const struct request *r, const char *name)
{
    return MHD_lookup_connection_value(r->conn, MHD_HEADER_KIND, name);
}

void reply_json(struct request *r, int status, json_t *body)
{
    r->status = status;
    r->reply = body;
}

void reply_created(struct request *r, int status, const char *href, json_t *body)
{
    r->location = xstrdup(href);
    reply_json(r, status, body);
}

void reply_empty(struct request *r, int status)
{
    r->status = status;
}

void reply_text(struct request *r, int status, const char *type, char *text)
{
    r->status = status;
    r->text = text;
    r->text_type = type;
}

static void reply_fault_text(struct request *r, int status, const char *reason, const char *detail)
{
    json_t *fault = json_pack("{s:s, s:s}", "reason", reason, "detail", detail);
    if (r->is_action)
        fault = json_pack("{s:s, s:o}", "status", "failed", "fault", fault);
    reply_json(r, status, fault);
}

void reply_fault(struct request *r, int status, const char *reason, const char *fmt, ...)
{
    char detail[1024];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(detail, sizeof detail, fmt, ap);
    va_end(ap);
    reply_fault_text(r, status, reason, detail);
}

void reply_refused(struct request *r, int status, const char *fmt, ...)
{
    char text[1000], detail[1024];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    (void)snprintf(detail, sizeof detail, "[%s]", text);
    reply_fault_text(r, status, "Operation Failed", detail);
}

void reply_incomplete(struct request *r, const char *type, const char *members, const char *verb)
{
    reply_fault(r, 400, "Incomplete parameters", "%s [%s] required for %s", type, members, verb);
}

void reply_bad_syntax(struct engine *e, struct request *r)
{
    reply_fault(r, 400, "Request syntactically incorrect.",
                "For correct usage, see: https://localhost:%u/ovirt-engine/apidoc#services",
                e->port);
}

void reply_action_done(struct request *r)
{
    json_t *body = json_pack("{s:s}", "status", "complete");
    if (r->job) {
        SCOPED_FREE char *href = xasprintf("/ovirt-engine/api/jobs/%s", r->job->id);
        json_object_set_new(body, "job", json_pack("{s:s, s:s}", "href", href, "id", r->job->id));
    }
    reply_json(r, 200, body);
}

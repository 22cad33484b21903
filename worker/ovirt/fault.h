/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an HTTP answer of the engine means: THE place where its fault bodies and lock texts are
 * classified. The English text decides only between answers of one status, and only for waiting;
 * so every request asks for English (Accept-Language).
 *
 * Threads: reentrant.
 */
#pragma once

#include "proto/base/alloc.h"
#include "proto/base/err.h"

enum fault_kind {
    FAULT_NONE,      /* 2xx */
    FAULT_FINAL,     /* repeating it changes nothing */
    FAULT_LOCK,      /* 409: somebody holds a lock; wait */
    FAULT_TRANSIENT, /* 400, 500: failed while executing; may work a little later, a few tries */
    FAULT_LOGIN,     /* 401 */
    FAULT_GONE,      /* 404 from the engine */
    FAULT_GONE_PAGE, /* 404 with a web page: perhaps just the application not started yet */
    FAULT_RESTART,   /* 5xx page: the engine is away or starting */
};

enum { FAULT_TEXT_BYTES = 640 };
struct fault {
    enum fault_kind kind;
    enum err_code code;          /* ERR_NONE for FAULT_NONE */
    char text[FAULT_TEXT_BYTES]; /* "409 Operation Failed: [Cannot create ...]", one line */
};

/* `content_type` may be NULL. A 2xx with a web page counts as FAULT_RESTART. */
void fault_classify(long status, const char *content_type, struct slice body, struct fault *ret);

/* The right that a call needs, in words, for the message about a 403. Static string. */
const char *fault_permit(const char *method, const char *path);

/* Whether a 409 says that this disk hangs on the VM already; a MAC address is taken. */
bool fault_is_already_attached(const struct err *err);
bool fault_is_mac_taken(const struct err *err);

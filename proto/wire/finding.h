/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Findings of a check-up (`doctor`): making a list of them, and writing them for people and for
 * programs. Whoever looks (the command line, the coordinator, a worker) makes the same kind.
 *
 * Ownership: a list made here owns its strings; findings_done() frees them. Threads: reentrant.
 */
#pragma once

#include "proto/base/buf.h"
#include "proto/wire/message.h"

enum finding_level {
    FINDING_OK,
    FINDING_WARNING, /* works, but not as it should */
    FINDING_FAILURE, /* something will not work */
    FINDING_SKIPPED, /* could not be looked at because of another finding */
};
/* "ok", "warning", "failure", "skipped"; static. */
const char *finding_level_name(enum finding_level level);
/* The level of a finding that came from outside: an unknown word is a failure. */
enum finding_level finding_level_of(const struct wire_finding *f);

enum { FINDING_TEXT_BYTES = 700 }; /* a message is cut to this */

struct finding_spec {
    const char *check;
    enum finding_level level;
    const char *worker; /* NULL = not a worker */
    const char *advice; /* told unless the level is ok; may be NULL */
    int64_t time_ms;    /* wall */
};
/* All strings are copied. */
void findings_add(struct wire_findings *list, const struct finding_spec *spec, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Frees what the list owns; it is empty afterwards. */
void findings_done(struct wire_findings *list);

struct finding_counts {
    size_t by_level[FINDING_SKIPPED + 1];
};
void findings_count(const struct wire_finding *v, size_t count, struct finding_counts *ret);

/* Appends a text of unknown origin to `out`, made fit for a terminal. */
typedef int (*finding_text_fn)(struct buf *out, const char *text, bool utf8);
struct finding_style {
    bool color, utf8;
    finding_text_fn add_text;
};
/* "  FAILURE  engine.login       why\n" and, below, "do: ..." when there is advice. */
void finding_render(const struct wire_finding *f, const struct finding_style *style,
                    struct buf *out);
/* "12 ok, 1 warning, 2 failures, 3 not checked\n" */
void findings_render_sum(const struct finding_counts *counts, struct buf *out);
/* {"type":"finding",...} and a line end. ASCII only. */
bool finding_json(const struct wire_finding *f, struct buf *out, struct err *err);

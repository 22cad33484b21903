/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text for people: sizes, durations, times, and names from outside made safe for a terminal. Pure
 * functions; nothing here prints.
 *
 * Names of VMs, workers and clusters come from the engine and from the wire. No control character,
 * no escape sequence and no direction override of theirs reaches the terminal: text_add_clean()
 * puts '?' in its place.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "proto/base/buf.h"
#include "proto/base/err.h"

enum { FORMAT_BYTES = 32 }; /* room that each `out` below must have */

/* "0 B", "999 B", "1.5 KiB", "12.4 GiB", "118 MiB": three digits at most before the unit. Negative
 * values print as 0 B. */
void format_size(int64_t bytes, char *out);
/* "118 MiB/s". */
void format_rate(int64_t bytes_per_s, char *out);
/* "0s", "45s", "3m12s", "1h04m", "2d03h". Negative values print as 0s. */
void format_duration(int64_t ms, char *out);
/* Local time "2026-11-28 20:06"; "-" for 0. */
void format_time(int64_t wall_ms, char *out);
/* "5s", "12m", "3h", "9d" since `then`; "-" for 0; "0s" for the future. */
void format_age(int64_t then_wall_ms, int64_t now_wall_ms, char *out);

/* "90", "90s", "15m", "6h", "2d" or a sum like "1h30m" into seconds, 1 s to 366 days. Errors:
 * bad-argument that says what is allowed. */
bool format_parse_duration(const char *text, int64_t *ret_s, struct err *err);

/* True when the locale (setlocale) writes UTF-8. */
bool text_locale_is_utf8(void);
/* Append `text` (NULL = "-") with everything unsafe or unprintable replaced by '?'; without `utf8`
 * all that is not ASCII, too. Returns the columns it takes on a terminal. */
int text_add_clean(struct buf *out, const char *text, bool utf8);
/* The same, cut to at most `width` columns (then ending in "…" or "~") and, with `pad`, filled with
 * spaces to exactly that. */
void text_add_fit(struct buf *out, const char *text, int width, bool pad, bool utf8);
/* Columns that text_add_clean() would take. */
int text_width(const char *text, bool utf8);

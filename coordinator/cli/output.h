/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the program writes: results on standard output, everything else (progress, hints, errors) on
 * standard error. --json writes JSON Lines: each line is one object, for every verb.
 *
 * Threads: one.
 */
#pragma once

#include <argp.h>
#include <stdbool.h>
#include <stdint.h>

#include "proto/base/buf.h"
#include "proto/base/err.h"
#include "proto/wire/message.h"

/* --- Options that each verb takes ------------------------------------------------------------- */
struct output_args {
    bool json;
    bool quiet; /* no progress and no hints */
};
/* argp child; its input is a struct output_args. */
extern const struct argp output_argp;

/* How the terminal is, found once by output_init(). */
struct output_style {
    bool utf8;
    bool color; /* of standard output: a terminal, and NO_COLOR is not set */
    int width;  /* of standard output when it is a terminal; 0 = not a terminal: nothing is cut */
    bool live;  /* standard error is a terminal that understands cursor movement */
    bool color_err;
};
void output_init(struct output_style *ret_style);
/* Columns and rows of the terminal behind `fd`; 80 x 24 when it does not say. */
void output_terminal_size(int fd, int *ret_columns, int *ret_rows);

/* --- Tables ----------------------------------------------------------------------------------- */
struct table;
enum table_align { TABLE_LEFT, TABLE_RIGHT };
struct table_column {
    const char *title;
    enum table_align align;
    int min_width; /* a column may be cut down to this on a narrow terminal; 0 = never cut */
};

/* `columns` is borrowed for the life of the table. */
struct table *table_new(const struct table_column *columns, size_t count);
void table_free(struct table *t);
DEFINE_SCOPED(table, table_free);
/* One cell (copied) of the current row, left to right; the row ends with its last column. NULL is
 * shown as "-". */
void table_cell(struct table *t, const char *text);
size_t table_rows(const struct table *t);
/* Title line and rows. `width` 0 = as wide as needed; else cut to it, the widest cuttable columns
 * first. Names are made safe here (text_add_clean). */
void table_render(const struct table *t, int width, bool utf8, struct buf *out);

/* --- JSON Lines ------------------------------------------------------------------------------- */
/* A reply as one line: the message's members as docs/protocol.md names them, after a first member
 * "type" with its name ("accepted", "outcome", ...). ASCII only. */
bool output_json_reply(enum wire_type type, const void *message, struct buf *out, struct err *err);
/* Each item of a page as a line of its own, members as in docs/protocol.md, after a first member
 * "type": vm | point | request | task | worker | trace | gauge | attempt. */
bool output_json_items(const struct wire_item_list *items, struct buf *out, struct err *err);

/* --- Writing ---------------------------------------------------------------------------------- */
/* Write to standard output now. A closed pipe is no fault ("oxbow list | head"). */
bool output_write(const struct buf *text, struct err *err);
/* "oxbow: TEXT" with unsafe characters replaced, to standard error. */
void output_error(const struct err *err, const char *advice);
void output_hint(const struct output_args *args, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

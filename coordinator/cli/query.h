/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asking for a listing (list, inventory, status): send, gather all pages, hand over the items or
 * write them as JSON Lines. Nothing is printed before the answer is complete. Threads: one.
 */
#pragma once

#include "coordinator/cli/request.h"

struct query_args {
    struct connect_args connect;
    struct output_args output;
    int64_t timeout_s; /* 0 = QUERY_TIMEOUT_S */
};
enum { QUERY_TIMEOUT_S = 120 };
/* argp child with the options above; its input is a struct query_args. */
extern const struct argp query_argp;

/* Writes the tables of a complete answer; `items` (all pages, in order) may be sorted in place. */
typedef void (*query_print_fn)(struct wire_item_list *items, const struct output_style *style,
                               struct buf *out);

/* Returns an exit code. `empty` is said on standard error when there was nothing to print. */
/* The same, for an answer of plans: a VM that `named` names and that is in no page is an error, and
 * makes it CLI_PARTLY (CLI_FAILED when there is nothing else). */
int query_run_named(const struct query_args *args, enum wire_type type, const void *message,
                    query_print_fn print, const char *empty, const struct wire_select *named);
int query_run(const struct query_args *args, enum wire_type type, const void *message,
              query_print_fn print, const char *empty);

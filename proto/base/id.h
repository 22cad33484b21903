/* SPDX-License-Identifier: Apache-2.0 */
/* Identifiers: lower-case UUIDs as text, the engine's own form. */
#pragma once

#include <stdbool.h>

enum { ID_BYTES = 37 }; /* 36 characters and the NUL */

/* A fresh random UUID (version 4) into `out`, which holds ID_BYTES. Thread-safe. */
void id_new(char *out);

/* True for a well-formed UUID in text form, of either case. */
bool id_is_valid(const char *text);

/* True for a name that may become part of a queue or file name: 1..max of [a-z0-9._-], not
 * beginning with '.' or '-'. */
bool id_is_slug(const char *text, unsigned max);

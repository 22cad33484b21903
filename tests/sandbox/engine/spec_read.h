/* SPDX-License-Identifier: Apache-2.0 */
/* Small readers for the members of a specification. Errors: bad-config. Threads: pure functions. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "proto/base/err.h"

/* `o` is an object with no other members than those of the NULL-ended list. */
bool spec_known(const json_t *o, const char *what, const char *const *known, struct err *err);
/* The member "name": a non-empty string of at most 64 characters. Borrowed. */
bool spec_name(const json_t *o, const char *what, const char **ret, struct err *err);
/* The member "id", a UUID, or a fresh one when `out` is still empty. */
bool spec_id(const json_t *o, char *out, struct err *err);
/* A number of bytes or a text like "256MiB"; absent leaves *ret alone. */
bool spec_size(const json_t *o, const char *key, uint64_t *ret, struct err *err);
/* 0..1; absent leaves *ret alone. */
bool spec_fraction(const json_t *o, const char *key, double *ret, struct err *err);
bool spec_bool(const json_t *o, const char *key, bool otherwise);
/* "web%02d" with the number put in ("%d", "%0Nd"); a pattern without % is the name for number 1,
 * and gets "-N" after. The caller frees. */
char *spec_number_name(const char *pattern, unsigned number);

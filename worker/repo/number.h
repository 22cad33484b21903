/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers of the command line. */
#pragma once

#include <argp.h>
#include <stdbool.h>
#include <stdint.h>

/* Decimal digits only, from `min` to `max`. */
bool repo_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret);
/* --threads: from 1 to 64. What is wrong is said by argp_error(). */
unsigned repo_threads(struct argp_state *state, const char *text);

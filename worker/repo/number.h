/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers of the command line. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Decimal digits only, from `min` to `max`. */
bool repo_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret);

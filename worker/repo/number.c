/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/repo/number.h"

enum { THREADS_MAX = 64 };

bool repo_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
    uint64_t value = 0;
    if (!*text)
        return false;
    for (const char *c = text; *c; c++) {
        if (*c < '0' || *c > '9' || value > (UINT64_MAX - 9) / 10)
            return false;
        value = value * 10 + (uint64_t)(*c - '0');
    }
    if (value < min || value > max)
        return false;
    *ret = value;
    return true;
}

unsigned repo_threads(struct argp_state *state, const char *text)
{
    uint64_t n = 0;
    if (!repo_number(text, 1, THREADS_MAX, &n))
        argp_error(state, "--threads: '%s' is not a number from 1 to %d", text, THREADS_MAX);
    return (unsigned)n;
}

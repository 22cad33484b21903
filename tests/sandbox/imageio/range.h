/* SPDX-License-Identifier: Apache-2.0 */
/* The two range headers, by the rules of ovirt-imageio, which are stricter than RFC 7233's. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum range_result { RANGE_OK, RANGE_BAD, RANGE_SUFFIX };

struct range {
    uint64_t first;
    bool has_last;
    uint64_t last; /* inclusive */
};

/* "bytes=A-B" or "bytes=A-". RANGE_SUFFIX for "bytes=-N". Of RANGE_BAD, *ret_why is the reason as
 * the real one words it: a constant. */
enum range_result range_parse(const char *header, struct range *ret, const char **ret_why);
/* "bytes A-B/SIZE", where B and SIZE may be "*": only A counts afterwards. */
bool content_range_parse(const char *header, uint64_t *ret_first);

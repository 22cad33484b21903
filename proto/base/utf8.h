/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8, as far as we need to know: where one character ends. Threads: reentrant. */
#pragma once

#include <stddef.h>

/* Bytes (1 to 4) of the character that `text` begins with; 0 when it is not valid UTF-8 there (RFC
 * 3629: no overlong forms, no surrogates, nothing above U+10FFFF) or is the end of the string. */
size_t utf8_length(const char *text);

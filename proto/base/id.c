/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/base/id.h"

#include <string.h>

#include <uuid/uuid.h>

void id_new(char *out)
{
    uuid_t uuid;
    uuid_generate_random(uuid);
    uuid_unparse_lower(uuid, out);
}

bool id_is_valid(const char *text)
{
    uuid_t uuid;
    return text && strlen(text) == ID_BYTES - 1 && uuid_parse(text, uuid) == 0;
}

bool id_is_slug(const char *text, unsigned max)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t len = strlen(text);
    return len >= 1 && len <= max && strspn(text, allowed) == len && text[0] != '.' &&
           text[0] != '-';
}

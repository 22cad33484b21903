/* SPDX-License-Identifier: Apache-2.0 */
#include "coordinator/cli/args.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/cli/format.h"
#include "proto/base/alloc.h"
#include "proto/base/id.h"

error_t args_set(struct argp_state *state, const char *option, char *arg, size_t max, char **member)
{
    size_t len = strlen(arg);
    if (len < 1 || len > max) {
        argp_error(state, "%s needs 1 to %zu characters, not %zu", option, max, len);
        return EINVAL;
    }
    *member = arg;
    return 0;
}

error_t args_add(struct argp_state *state, const char *option, char *arg, struct wire_strings *list)
{
    char *checked = NULL;
    error_t rc = args_set(state, option, arg, WIRE_NAME_MAX, &checked);
    if (rc)
        return rc;
    if (list->count >= WIRE_SELECT_MAX) {
        argp_error(state,
                   "more than %d of %s: select by tag, search or all, or use several requests",
                   WIRE_SELECT_MAX, option);
        return EINVAL;
    }
    list->v = xreallocarray(list->v, list->count + 1, sizeof *list->v);
    list->v[list->count++] = checked;
    return 0;
}

error_t args_zone(struct argp_state *state, char *arg, char **member)
{
    if (!id_is_slug(arg, 64)) {
        argp_error(state, "--zone '%s' is not a zone's name (lower-case letters, digits, . _ -)",
                   arg);
        return EINVAL;
    }
    *member = arg;
    return 0;
}

error_t args_duration(struct argp_state *state, const char *option, const char *arg, int64_t *ret_s)
{
    struct err err = ERR_INIT;
    if (format_parse_duration(arg, ret_s, &err))
        return 0;
    argp_error(state, "%s: %s", option, err.message);
    return EINVAL;
}

error_t args_number(struct argp_state *state, const char *option, const char *arg, int64_t most,
                    int64_t *ret)
{
    char *end;
    errno = 0;
    long long n = strtoll(arg, &end, 10);
    if (end == arg || *end || errno || n < 1 || n > most) {
        argp_error(state, "%s '%s' is not a number within 1..%lld", option, arg, (long long)most);
        return EINVAL;
    }
    *ret = n;
    return 0;
}

error_t args_key(struct argp_state *state, char *arg, char **member)
{
    return args_set(state, "--key", arg, WIRE_NAME_MAX, member);
}

error_t args_uuid(struct argp_state *state, const char *what, char *arg, char **member)
{
    if (!id_is_valid(arg)) {
        argp_error(state, "%s '%s' is not a UUID: 'oxbow status' lists them", what, arg);
        return EINVAL;
    }
    /* The coordinator's own form, for those who paste from elsewhere. */
    for (char *c = arg; *c; c++)
        if (*c >= 'A' && *c <= 'F')
            *c = (char)(*c - 'A' + 'a');
    *member = arg;
    return 0;
}

error_t args_bad_word(struct argp_state *state, const struct argp_option *options, int key,
                      const char *arg)
{
    const struct argp_option *o = options;
    while (o->key != key)
        o++;
    argp_error(state, "--%s is one of %s, not '%s'", o->name, o->arg, arg);
    return EINVAL;
}

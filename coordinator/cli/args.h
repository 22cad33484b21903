/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parsers of the verbs share. Each says what is wrong by argp_error() and returns EINVAL,
 * or 0. argv strings are not const in the wire structs; nobody writes through them. Threads: one.
 */
#pragma once

#include <argp.h>

#include "proto/wire/message.h"

error_t args_set(struct argp_state *state, const char *option, char *arg, size_t max,
                 char **member);
error_t args_add(struct argp_state *state, const char *option, char *arg,
                 struct wire_strings *list);
error_t args_zone(struct argp_state *state, char *arg, char **member);
error_t args_duration(struct argp_state *state, const char *option, const char *arg,
                      int64_t *ret_s);
error_t args_number(struct argp_state *state, const char *option, const char *arg, int64_t most,
                    int64_t *ret); /* within 1..most */
error_t args_key(struct argp_state *state, char *arg, char **member);
error_t args_bad_word(struct argp_state *state, const struct argp_option *options, int key,
                      const char *arg);
error_t args_uuid(struct argp_state *state, const char *what, char *arg, char **member);

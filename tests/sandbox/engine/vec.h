/* SPDX-License-Identifier: Apache-2.0 */
/* A growing array of pointers, for the lists of the model. `VEC(struct vm) vms;` */
#pragma once

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base/alloc.h"

#define VEC(type)                                                                                  \
    struct {                                                                                       \
        type **at;                                                                                 \
        size_t len;                                                                                \
    }
#define VEC_ADD(v, item)                                                                           \
    do {                                                                                           \
        (v)->at = xreallocarray((v)->at, (v)->len + 1, sizeof *(v)->at);                           \
        (v)->at[(v)->len++] = (item);                                                              \
    } while (0)
/* Takes the item out, keeping the order; nothing is freed. */
#define VEC_REMOVE_AT(v, index)                                                                    \
    do {                                                                                           \
        size_t vec_at_ = (index); /* once: it may speak of len */                                  \
        (v)->len--;                                                                                \
        memmove(&(v)->at[vec_at_], &(v)->at[vec_at_ + 1], ((v)->len - vec_at_) * sizeof *(v)->at); \
    } while (0)
#define VEC_REMOVE(v, item)                                                                        \
    do {                                                                                           \
        for (size_t vec_i_ = 0; vec_i_ < (v)->len; vec_i_++)                                       \
            if ((v)->at[vec_i_] == (item)) {                                                       \
                VEC_REMOVE_AT(v, vec_i_);                                                          \
                break;                                                                             \
            }                                                                                      \
    } while (0)
#define VEC_EACH(v, item)                                                                          \
    for (size_t item##_i_ = 0; item##_i_ < (v)->len && ((item) = (v)->at[item##_i_], true);        \
         item##_i_++)
/* Frees the array and, by `free_fn`, its items. */
#define VEC_DONE(v, free_fn)                                                                       \
    do {                                                                                           \
        for (size_t vec_i_ = 0; vec_i_ < (v)->len; vec_i_++)                                       \
            free_fn((v)->at[vec_i_]);                                                              \
        free((v)->at);                                                                             \
        (v)->at = NULL;                                                                            \
        (v)->len = 0;                                                                              \
    } while (0)

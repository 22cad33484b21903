/* SPDX-License-Identifier: Apache-2.0 */
/* What the ledger's files share. Not for others. */
#pragma once

#include "coordinator/ledger/db.h"
#include "coordinator/ledger/ledger.h"

struct ledger {
    struct db *db;
    int lock_fd;
};

/* Grow an array that starts at NULL: called with the count before each addition. */
#define LIST_ADD(list)                                                                             \
    ({                                                                                             \
        if (((list)->count & ((list)->count - 1)) == 0)                                            \
            (list)->v = xreallocarray((list)->v, (list)->count ? (list)->count * 2 : 1,            \
                                      sizeof(list)->v[0]);                                         \
        memset(&(list)->v[(list)->count], 0, sizeof(list)->v[0]);                                  \
        &(list)->v[(list)->count++];                                                               \
    })

#define ERROR_FIELDS(type)                                                                         \
    {"err_code", offsetof(type, error.code), DB_FIELD_TEXT, NULL},                                 \
        {"err_retry", offsetof(type, error.retry), DB_FIELD_TEXT, NULL},                           \
        {"err_sys", offsetof(type, error.sys), DB_FIELD_INT, NULL},                                \
        {"err_at", offsetof(type, error.at), DB_FIELD_TEXT, NULL},                                 \
    {                                                                                              \
        "err_message", offsetof(type, error.message), DB_FIELD_TEXT, NULL                          \
    }

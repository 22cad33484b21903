/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger's tables and how an older file becomes a newer one.
 *
 * PRAGMA user_version holds the schema version. Each version is one step in a table of SQL scripts;
 * opening runs the missing ones, each in its own transaction. To change the schema: append a step,
 * never edit an old one, and add a fixture of the version before (tests/fixtures/ledger-vN.sql).
 */
#pragma once

#include "coordinator/ledger/db.h"

enum { SCHEMA_VERSION = 5, SCHEMA_APPLICATION_ID = 0x4f78426f /* "OxBo" */ };

/* Bring the file to SCHEMA_VERSION. Errors: unsupported-version (written by a newer program),
 * store-corrupt (not a ledger of ours, or quick_check found damage). */
bool schema_prepare(struct db *db, const char *path, struct err *err);
/* The same up to `version` only; for tests. */
bool schema_prepare_to(struct db *db, const char *path, int64_t version, struct err *err);

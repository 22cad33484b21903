/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration files: YAML read by libcyaml against a schema table, so that an unknown key, a
 * wrong type and a missing value are refused with line and column. Each program declares its own
 * struct and schema; secrets are only ever paths (`*_file`).
 *
 * Threads: call before threads start.
 */
#pragma once

#include <cyaml/cyaml.h>

#include "proto/base/err.h"

/* Parse `path` by `schema` into a new object of the schema's top type. The caller frees it with
 * conf_free() and the same schema. Errors: bad-config with "FILE: line N, column M: why". */
void *conf_load(const char *path, const cyaml_schema_value_t *schema, struct err *err);
void conf_free(void *conf, const cyaml_schema_value_t *schema);

/* The object as YAML on standard output (--dump-config). */
bool conf_dump(const void *conf, const cyaml_schema_value_t *schema, struct err *err);

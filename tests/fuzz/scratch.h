/* SPDX-License-Identifier: Apache-2.0 */
/* A repository in memory, where there is such a file system, for fuzz targets that need files. It
 * goes when the program ends. */
#pragma once

#include "worker/store/repo.h"

/* `key_file`: NULL = not encrypted; else one that is made in the same place, and its path goes
 * there. Lives as long as the program. */
struct store *scratch_store(char **ret_key_file);
/* Replace a file of the repository. */
void scratch_put(struct store *store, const char *path, const void *data, size_t len);

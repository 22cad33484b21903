/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A folder of one test: below $TMPDIR (else /tmp), gone with all in it at the end. Fails the test
 * when it cannot be made.
 */
#pragma once

enum { TEMP_DIR_BYTES = 512 };

struct temp_dir {
    char path[TEMP_DIR_BYTES];
};

void temp_dir_make(struct temp_dir *ret);
/* In memory where there is some: for tests that sync much. */
void temp_dir_make_in_memory(struct temp_dir *ret);
/* Safe on a zeroed one. */
void temp_dir_remove(struct temp_dir *dir);

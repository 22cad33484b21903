/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the repository share: a temporary directory, disks in memory, whole backups.
 * Every function fails the test when something unexpected happens. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "worker/store/store.h"

/* A fresh directory below $TMPDIR; the caller frees the path. */
char *temp_dir(void);
/* rm -r. */
void remove_tree(const char *path);

/* The calling test fails unless `ok`; shows the error. */
#define MUST(ok, err)                                                                              \
    do {                                                                                           \
        if (!(ok)) {                                                                               \
            fail_msg("%s: %s", err_code_name((err)->code), (err)->message);                        \
            abort(); /* not reached; for analysers */                                              \
        }                                                                                          \
    } while (0)
#define MUST_FAIL(ok, err, want)                                                                   \
    do {                                                                                           \
        if (ok)                                                                                    \
            fail_msg("%s:%d: did not fail", __FILE__, __LINE__);                                   \
        if ((err)->code != (want))                                                                 \
            fail_msg("%s:%d: %s, not %s: %s", __FILE__, __LINE__, err_code_name((err)->code),      \
                     err_code_name(want), (err)->message);                                         \
        err_clear(err);                                                                            \
    } while (0)

/* Repeatable pseudo-random numbers. */
uint64_t random_next(uint64_t *state);
/* Bytes that do not compress. */
void fill_random(uint8_t *data, size_t len, uint64_t seed);
/* Bytes that compress about 2:1, different in each block. */
void fill_text(uint8_t *data, size_t len, uint64_t seed);

struct disk_image {
    const char *id;
    uint8_t *data;
    size_t size;
};

/* Write all of the image, in calls of `step` bytes (0 = 1 MiB). */
bool write_image(struct store_session *session, const struct disk_image *image, size_t step,
                 struct store_reader *parent, struct store_stats *ret_stats, struct err *err);
/* One session with one disk, committed or not. Frees the session. */
bool backup_image(struct store *store, const char *session_id, const struct disk_image *image,
                  struct store_reader *parent, struct store_stats *ret_stats, struct err *err);
/* Reads the disk in pieces and compares; false with an error when reading fails; fails the test
 * when what was read is wrong. */
bool check_image(struct store *store, const char *point_id, const struct disk_image *image,
                 struct err *err);

struct store_session_opts session_opts(const char *id);

/* A new key file in the directory; the caller frees the path. */
char *make_key_file(const char *dir, const char *name);
/* A file of mode 0600 with this text; the caller frees the path. */
char *make_secret(const char *dir, const char *name, const char *text);

/* Is the name of the open file's path this at its end? */
bool fd_ends_with(int fd, const char *end);

/* All regular files below a directory, relative to it, sorted. */
struct file_list {
    char **items;
    size_t count;
};
struct file_list list_files(const char *dir);
void file_list_done(struct file_list *list);
/* How many of them begin with the prefix. */
size_t count_files(const char *dir, const char *prefix);

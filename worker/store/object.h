/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of a repository: all immutable, made by create-if-absent. Paths are relative to the
 * repository's directory descriptor. Threads: reentrant.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/base/alloc.h"
#include "proto/base/buf.h"
#include "proto/base/err.h"

enum {
    OBJECT_FILE_MODE = 0440, /* of every finished file: immutable, and not for everyone's eyes */
    OBJECT_UNSYNCED_MODE = 0640, /* of a pack whose fsync has not come back yet */
    OBJECT_DIR_MODE = 0770,      /* less the umask */
    OBJECT_TRIES = 64,           /* when our temporary file is swept before it gets its name */
};

enum put_outcome {
    PUT_CREATED,  /* ours, and durable */
    PUT_EXISTS,   /* somebody else's (or ours, with a lost reply) is there; err is not set */
    PUT_FAILED,   /* surely not created; err is set */
    PUT_UNKNOWN,  /* may or may not have been created; err is set */
    PUT_UNSYNCED, /* created, but perhaps not durably; err is set */
};

/*
 * The one primitive that decides races: `dir/name` comes into being with these bytes, or not at
 * all. Temporary file (a name beginning with '.'), fsync, link(2), fsync of the directory. link
 * never replaces, and is atomic on local file systems and NFS.
 */
enum put_outcome object_put_if_absent(int dirfd, const char *dir, const char *name,
                                      const void *data, size_t len, struct err *err);

/* The same with the content of an existing file, whose second name this becomes: on a full file
 * system too. PUT_EXISTS also when `from` has got that name before. */
enum put_outcome object_link_if_absent(int dirfd, const char *from, const char *dir,
                                       const char *name, struct err *err);

/* A file of the few that may be replaced: temporary file, fsync, rename over `dir/name`. */
bool object_replace(int dirfd, const char *dir, const char *name, const void *data, size_t len,
                    struct err *err);

/* Create a file in a directory that only this session writes to; exists when it is there. fsync of
 * the file, not of the directory. */
bool object_create(int dirfd, const char *path, const void *data, size_t len, struct err *err);

/* All of a small file: as file_read_all(), but what is no file of ours (too large, no regular file)
 * is store-corrupt. */
bool object_read(int dirfd, const char *path, size_t max_bytes, struct buf *out, struct err *err);

/* End the writing of a file: mode, fsync, close (always closed). */
bool object_seal(int fd, const char *path, struct err *err);
/* The same for a pack: it loses its write permission after the fsync only, which tells others that
 * every byte of it is durable. */
bool object_seal_pack(int fd, const char *path, struct err *err);

/* fsync a directory. */
bool object_sync_dir(int dirfd, const char *path, struct err *err);

/* mkdir; an existing one is fine. */
bool object_make_dir(int dirfd, const char *path, struct err *err);

/* Names in a directory, sorted. Names that are no slugs of at most OBJECT_NAME_MAX characters
 * (temporary files, foreign things) are left out. not-found when there is no such directory. */
enum { OBJECT_NAME_MAX = 128 };
struct object_names {
    char **items;
    size_t count;
};
bool object_list(int dirfd, const char *path, struct object_names *ret_names, struct err *err);
/* The same, of what is there now: a network file system must ask its server. */
bool object_list_fresh(int dirfd, const char *path, struct object_names *ret_names,
                       struct err *err);
/* Remove the temporary files of a directory that nobody may need any more: whoever is just making
 * one makes it anew. Returns how many; goes on after errors. */
unsigned object_sweep_temps(int dirfd, const char *path);
bool object_names_have(const struct object_names *names, const char *name);
/* After renaming items. */
void object_names_sort(struct object_names *names);
void object_names_done(struct object_names *names);
#define SCOPED_NAMES __attribute__((cleanup(object_names_done), unused))

/* `len` random bytes. */
void random_bytes(void *out, size_t len);

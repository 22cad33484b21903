/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this module share: the open repository. Not for other modules. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "worker/store/cache.h"
#include "worker/store/dedup.h"
#include "worker/store/fate.h"
#include "worker/store/gc/marks.h"
#include "worker/store/object.h"
#include "worker/store/record.h"

struct store {
    char *path;
    int dirfd;
    struct repo_record repo;
    uint8_t repo_id[16];                 /* the UUID's bytes, as in binary headers */
    struct crypt *crypt;                 /* NULL: not encrypted */
    char key_id[STORE_KEY_ID_CHARS + 1]; /* of the key that opened it; "" */
    struct store_opts opts;              /* the files of keys are not kept */
    atomic_bool likes_direct;            /* O_DIRECT is worth it there, and was not refused */
    struct cache *packs;                 /* pack id -> struct open_pack */
    struct cache *frames;                /* pack id + frame -> struct frame */
    struct decoder_pool *decoders;
    struct marks *marks;
    struct dedup *dedup;       /* made under load_lock by the first session */
    pthread_mutex_t load_lock; /* serialises loading into `dedup`: indexes and footers. Before the
                                  locks of `packs` and of `dedup` */
    struct object_names loaded_indexes; /* sessions whose index was read; under load_lock */
};

/* store-key unless what it has, or needs none, suffices for this. keys.c */
enum key_right { KEY_TO_WRITE, KEY_TO_RESTORE };
bool store_needs_key(const struct store *store, enum key_right right, struct err *err);

/* Make this the fate of a session (FATE_REVOKE or FATE_BEQUEATH), if it has none. *ret_stands is
 * what it has then. session.c */
bool store_declare_dead(struct store *store, const char *session_id, enum fate_kind kind,
                        struct fate *ret_stands, struct err *err);

/* True for a session or point id that may become a file name. */
bool session_id_is_valid(const char *id);

/* Bring the deduplication tables up to date with all committed sessions. Unreadable indexes are
 * left out with a warning in the log. */
bool store_load_indexes(struct store *store, struct err *err);

/* The sessions whose points were deleted. */
bool store_list_deleted(struct store *store, struct object_names *ret_names, struct err *err);

/* Make the directories of a repository that are not there. */
bool store_make_directories(struct store *store, struct err *err);

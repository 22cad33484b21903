/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The emulated engine as a whole: the model, its one lock, its settings, and the threads that carry
 * long operations through the states a client of the real engine sees.
 *
 * Threads: a request handler and a job thread both run with the lock held and give it up around
 * everything that takes time (engine_sleep, calls of the block layer). What was looked up before
 * may have changed after: look at `gone` again.
 */
#pragma once

#include <pthread.h>

#include "proto/base/err.h"
#include "tests/sandbox/engine/model.h"

struct auth;
struct faults;
struct tls;
struct http;
struct control;
struct calls;
struct imageio_server;

/* How long each state lasts, in milliseconds: TIMING(name, normal, fast). */
#define ENGINE_TIMINGS                                                                             \
    TIMING(snapshot_ms, 1500, 150)    /* snapshot locked -> ok */                                  \
    TIMING(lock_release_ms, 800, 100) /* ok -> the VM's lock is free */                            \
    TIMING(merge_ms, 1500, 150)       /* on top of the real merge */                               \
    TIMING(merge_start_ms, 300, 50)   /* DELETE answered -> snapshot locked */                     \
    TIMING(attach_ms, 400, 50)        /* hot-plug, synchronous */                                  \
    TIMING(device_ms, 300, 50)        /* attached -> device file there */                          \
    TIMING(detach_ms, 400, 50)        /* hot-unplug, synchronous */                                \
    TIMING(settle_ms, 1000, 0)        /* unplug sooner after plug than this fails */               \
    TIMING(disk_ms, 600, 80)          /* disk created: locked -> ok; deleted: -> 404 */            \
    TIMING(vm_create_ms, 800, 100)    /* image_locked -> down */                                   \
    TIMING(start_ms, 800, 80)         /* wait_for_launch -> powering_up -> up */                   \
    TIMING(stop_ms, 500, 80)          /* powering_down -> down */                                  \
    TIMING(freeze_ms, 100, 20)                                                                     \
    TIMING(transfer_ms, 600, 80)           /* each phase of an image transfer */                   \
    TIMING(backup_ms, 600, 80)             /* each phase of a backup */                            \
    TIMING(job_keep_ok_ms, 600000, 600000) /* finished jobs are listed that long */                \
    TIMING(job_keep_failed_ms, 3600000, 3600000)                                                   \
    TIMING(transfer_keep_ok_ms, 900000, 900000)                                                    \
    TIMING(transfer_keep_failed_ms, 1800000, 1800000)

struct timings {
#define TIMING(name, normal, fast) int64_t name;
    ENGINE_TIMINGS
#undef TIMING
};

void timings_set_profile(struct timings *t, bool fast);
/* By name, for spec and control; false for an unknown name or a value out of 0..1 day. */
bool timings_set(struct timings *t, const char *name, int64_t value_ms);

struct engine_opts {
    char *dir;       /* absolute; everything lives here */
    char *keep_dir;  /* NULL, or where the judge's copies of each snapshot go */
    char *writer;    /* path of the program that plays the guest; NULL = beside this program */
    char *linux_dir; /* NULL, or where the kernel and initrd of Linux guests are */
    uint16_t port;   /* 0 = from the kernel */
};

struct engine {
    pthread_mutex_t lock; /* guards all below but the constants */
    pthread_cond_t changed;
    bool stopping;
    bool api_down;    /* the API is taken down for a while: requests under way are cut */
    unsigned threads; /* job threads alive */
    unsigned references_running;

    /* Constant after the start. */
    struct engine_opts opts;
    struct auth *auth;
    struct tls *tls;
    struct http *http;
    struct control *control;
    struct faults *faults;
    struct calls *calls;
    struct imageio_server *imageio;
    char instance_id[ID_BYTES];
    uint16_t port;
    uint16_t imageio_port;

    int version;
    char version_text[32];
    int level_minor; /* clusters are of level 4.this; 0 = the newest that the version knows */
    struct timings timings;
    int64_t clock_offset_ms; /* the engine's wall clock against ours */
    struct {
        json_t *permits; /* names; NULL = all */
        bool is_user;    /* not an administrative one */
        char on;         /* 0 or 's' the system, 'd' the first data center, 'c' the first cluster */
    } role;              /* of whoever calls: roles.h */
    unsigned pci_slots;  /* of a VM */
    struct model model;
};

/* An engine with nothing in it. `opts` strings are taken over. */
struct engine *engine_new(const struct engine_opts *opts);
/* Ends all threads (their sleeps return at once), then frees. No request may be running. */
void engine_stop_threads(struct engine *e);
void engine_free(struct engine *e);

void engine_lock(struct engine *e);
void engine_unlock(struct engine *e);
/* Wakes everybody who waits in engine_sleep_until_changed(). Lock held. */
void engine_changed(struct engine *e);
/* Sleeps without the lock. False when the engine stops meanwhile (at once). Lock held. */
bool engine_sleep(struct engine *e, int64_t ms);
/* Like engine_sleep(), but returns true early at any engine_changed(). */
bool engine_sleep_until_changed(struct engine *e, int64_t ms);

/* Waits for an engine_changed(), also while the engine stops. Lock held. */
void engine_wait(struct engine *e);

/* Runs `fn(e, arg)` in its own thread with the lock held. Lock held. A thread that can not be made
 * aborts the program. */
typedef void (*engine_job_fn)(struct engine *e, void *arg);
void engine_spawn(struct engine *e, engine_job_fn fn, void *arg);

/* The engine's wall clock, ms since 1970. */
int64_t engine_now_ms(const struct engine *e);
int64_t engine_mono_ms(void);
/* True from that version on: engine_since(e, 4, 4, 7). */
bool engine_since(const struct engine *e, int major, int minor, int build);
/* Minor number of the compatibility level of all clusters and data centres. */
int engine_level_minor(const struct engine *e);
/* Emulate that version ("4.4.10"); false for a text that is none. Lock held or before threads. */
bool engine_set_version(struct engine *e, const char *text);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a task holds in the world outside: name -> value pairs that travel with every step event, so
 * that the next attempt, or a clean-up, knows what there is to take over or to remove.
 *
 *   "session"              repository session "<task>.<fence>"
 *   "snapshot"             id of our snapshot on the VM that is backed up; "*" when nobody knows
 *                          whether there is one
 *   "quiesced"             "yes" | "no", once the snapshot is taken
 *   "point"                restore point id, once it is committed
 *   "attachment.<disk>"    id of the proxy VM that this disk is attached to
 *   "transfer.<disk>"      id of the image transfer that this disk is open in
 *   "backup"               id of the engine's own backup of the VM (may not be there yet)
 *   "backup-snapshot.<id>" id of the VM on which the engine took this snapshot for our backup
 *   "part.<n>"             the session, "<task>.<fence>", in which another worker copies the n-th
 *                          part of a backup, and the point that it commits
 *   "vm"                   id of a VM that a restore made
 *   "disk.<n>"             id of the n-th disk that a restore made
 *   "restored"             id of the VM that a restore made, once it is complete and the user's
 *   "clone.<name>"         id of the VM that an export cloned by that name; "*" = it may be there
 *   "export"               file name of the OVA that the engine was asked for last; "-" in a domain
 *   "job"                  id of the engine's job that writes it
 *   "exported"             where the VM is, once that is done
 *   "path"                 how a restore fills its disks, and why so: for people
 *
 * A handle is set before the thing it names can be forgotten, and dropped when the thing is proved
 * to be gone. So at the end of a run the handles of things (not session, quiesced, point, restored,
 * path, export, job, exported) are exactly what is left behind. Threads: one at a time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "proto/wire/message.h"

#define HANDLE_SESSION         "session"
#define HANDLE_SNAPSHOT        "snapshot"
#define HANDLE_QUIESCED        "quiesced"
#define HANDLE_POINT           "point"
#define HANDLE_ATTACHMENT      "attachment." /* + disk id */
#define HANDLE_TRANSFER        "transfer."   /* + disk id */
#define HANDLE_BACKUP          "backup"
#define HANDLE_BACKUP_SNAPSHOT "backup-snapshot." /* + snapshot id */
#define HANDLE_PART            "part."            /* + number */
#define HANDLE_VM              "vm"
#define HANDLE_DISK            "disk." /* + number */
#define HANDLE_RESTORED        "restored"
#define HANDLE_PATH            "path"
#define HANDLE_CLONE           "clone." /* + name */
#define HANDLE_EXPORT          "export"
#define HANDLE_JOB             "job"
#define HANDLE_EXPORTED        "exported"

struct handles {
    struct wire_handle *v;
    size_t count, room;
};

/* Frees what it owns; a zeroed struct is empty and fine. */
void handles_done(struct handles *h);
/* The value, or NULL. Borrowed until the next set or drop of that name. */
const char *handles_get(const struct handles *h, const char *name);
/* get() of prefix + suffix. */
const char *handles_get2(const struct handles *h, const char *prefix, const char *suffix);
/* Adds or replaces; copies both. */
void handles_set(struct handles *h, const char *name, const char *value);
/* Nothing happens when it is not there. */
void handles_drop(struct handles *h, const char *name);

/* The first handle whose name begins with `prefix`, after `skip` others; NULL = there is none.
 * Borrowed until the next set or drop. */
const struct wire_handle *handles_next(const struct handles *h, const char *prefix, size_t skip);

/* Some disk is attached to a proxy or open in a transfer. */
bool handles_hold_disks(const struct handles *h);

/* The handles as an event carries them; borrowed. */
struct wire_handles handles_wire(const struct handles *h);

/* What earlier attempts left: the handles of the newest entry of the highest fence, since every
 * entry carries all handles of its time. `h` is empty before. */
void handles_inherit(struct handles *h, const struct wire_journal *journal);

/* The things still held, as leftovers. `vm` is the VM that a snapshot hangs on. The caller frees
 * the array and its members with leftovers_done(). */
struct wire_leftovers handles_leftovers(const struct handles *h, const char *vm);
/* Copies the strings; vm and id may be NULL. */
void leftovers_add(struct wire_leftovers *l, const char *kind, const char *vm, const char *id);
void leftovers_done(struct wire_leftovers *l);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A part of another worker's restore: what it refuses before it touches anything, against a
 * scripted engine and a real restore point. The disks it is sent to must carry the mark of the task
 * that it is a part of: else they are somebody's. And taking a disk off the VM where a part's
 * worker has left it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/temp_dir.h"
#include "tests/unit/worker/step/engine_run.h"
#include "worker/step/restore.h"
#include "worker/store/upkeep.h"

#define MAIN_TASK  "99999999-2222-4333-8444-555555555555"
#define DISK       "cccccccc-0000-4000-8000-000000000001"
#define DISK_2     "cccccccc-0000-4000-8000-000000000002"
#define OLD_DISK   "dddddddd-0000-4000-8000-000000000001"
#define PROXY      "bbbbbbbb-0000-4000-8000-000000000001"
#define OTHER_VM   "bbbbbbbb-0000-4000-8000-000000000002"
#define DISK_BYTES 65536

#define STR(text) ((char[]){text})

struct place {
    struct temp_dir dir;
    struct store *store;
    struct fake_engine *fake;
    struct fake_run f;
    struct wire_piece piece;
    struct wire_part part;
    struct err err;
};

/* A restore point with one disk; `part_of`: or a part of one. */
static void make_point(struct place *p, const char *id, const char *part_of)
{
    struct ovirt_disk disk = {.id = STR(OLD_DISK),
                              .format = STR("raw"),
                              .interface = STR("virtio"),
                              .storage_domain_id = STR("sd1"),
                              .provisioned_bytes = DISK_BYTES};
    struct backup_disk plan = {.disk = &disk, .size_bytes = DISK_BYTES};
    struct backup b = {.site = {.version = {4, 5, 6}},
                       .vm = {.id = STR(FAKE_VM), .name = STR("web"), .status = STR("up")},
                       .disks = {&disk, 1},
                       .plan = &plan,
                       .plan_count = 1};
    json_t *meta = point_meta_build(&p->f.run, &b);
    const struct store_session_opts opts = {
        .id = id, .vm_id = FAKE_VM, .vm_name = "web", .part_of = part_of};
    const struct store_disk_opts one = {.id = OLD_DISK, .size_bytes = DISK_BYTES};
    struct store_session *s = store_session_begin(p->store, &opts, &p->err);
    struct store_disk *d = s ? store_disk_begin(s, &one, &p->err) : NULL;
    bool ok = d && store_disk_finish(d, NULL, &p->err) && store_session_commit(s, meta, &p->err);
    if (!ok)
        fail_msg("%s", p->err.message);
    store_session_free(s);
    json_decref(meta);
}

static void start(struct place *p, const struct fake_line *script)
{
    static char kind[] = "restore-part";
    *p = (struct place){.fake = fake_engine_new(script)};
    temp_dir_make_in_memory(&p->dir);
    engine_run_begin(&p->f, p->fake, NULL);
    SCOPED_FREE char *path = xasprintf("%s/repo", p->dir.path);
    p->store = store_init(path, NULL, &p->err);
    assert_non_null(p->store);
    p->f.run.store = p->store;
    make_point(p, "whole.1", NULL);
    p->piece = (struct wire_piece){.disk = STR(DISK),
                                   .from = STR(OLD_DISK),
                                   .path = STR("attach"),
                                   .size_bytes = DISK_BYTES,
                                   .length = DISK_BYTES};
    p->part = (struct wire_part){.n = 1, .pieces = {&p->piece, 1}};
    p->part.of = xstrdup(MAIN_TASK);
    p->part.point = xstrdup("whole.1");
    p->piece.disk = xstrdup(DISK);
    p->piece.from = xstrdup(OLD_DISK);
    p->piece.path = xstrdup("attach");
    p->f.offer.kind = kind;
    p->f.offer.part = &p->part;
}

static void set(char **text, const char *value)
{
    free(*text);
    *text = xstrdup(value);
}

static void stop(struct place *p)
{
    engine_run_end(&p->f, p->fake);
    store_free(p->store);
    temp_dir_remove(&p->dir);
    free(p->part.of);
    free(p->part.point);
    free(p->piece.disk);
    free(p->piece.from);
    free(p->piece.path);
}

/* The plan fails with this, and nothing was asked of the engine but what the script has. */
static void refused(struct place *p, enum err_code want)
{
    struct restore *r = restore_part_new(&p->f.run, &p->err);
    assert_non_null(r);
    p->f.run.state = r;
    assert_false(step_plan_part(&p->f.run, &p->err));
    if (p->err.code != want)
        fail_msg("%s: %s", err_code_name(p->err.code), p->err.message);
    restore_free(r);
    stop(p);
}

#define DISK_SAYS(description) "{\"id\":\"" DISK "\",\"description\":\"" description "\"}"

static void a_disk_without_the_mark_is_refused(void **state)
{
    (void)state;
    static const char *const answers[] = {
        DISK_SAYS(""),
        DISK_SAYS("the database"),
        DISK_SAYS("oxbow restoring task=" FAKE_TASK " fence=7"), /* of another task */
        DISK_SAYS("oxbow restoring task=" MAIN_TASK " fence=7 and more"),
        "{\"id\":\"" DISK "\"}",
    };
    for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
        struct place p;
        start(&p, (const struct fake_line[]){{"GET disks/" DISK, 200, answers[i], 0}, {0}});
        refused(&p, ERR_REFUSED);
    }
}

static void a_disk_that_has_gone(void **state)
{
    (void)state;
    struct place p;
    start(&p, (const struct fake_line[]){{"GET disks/" DISK, 404, NULL, 0}, {0}});
    refused(&p, ERR_NOT_FOUND);
}

static const struct fake_line nothing_asked[] = {{0}};

static void only_whole_disks_of_the_point(void **state)
{
    (void)state;
    struct place p;
    start(&p, nothing_asked);
    p.piece.length -= 4096;
    refused(&p, ERR_BAD_MESSAGE);
    start(&p, nothing_asked);
    p.piece.offset = 4096;
    refused(&p, ERR_BAD_MESSAGE);
    start(&p, nothing_asked);
    p.piece.size_bytes = p.piece.length = 2 * DISK_BYTES;
    refused(&p, ERR_BAD_MESSAGE);
    start(&p, nothing_asked);
    set(&p.piece.from, DISK);
    refused(&p, ERR_NOT_FOUND);
    start(&p, nothing_asked);
    set(&p.piece.disk, "../vms/x");
    refused(&p, ERR_BAD_MESSAGE);
}

static void only_from_a_whole_point(void **state)
{
    (void)state;
    struct place p;
    start(&p, nothing_asked);
    set(&p.part.point, "nowhere.1");
    refused(&p, ERR_NOT_FOUND);
    start(&p, nothing_asked);
    make_point(&p, "half.1", MAIN_TASK);
    set(&p.part.point, "half.1");
    refused(&p, ERR_REFUSED);
}

static void an_offer_that_says_too_little(void **state)
{
    (void)state;
    struct place p;
    start(&p, nothing_asked);
    p.part.pieces.count = 0;
    assert_null(restore_part_new(&p.f.run, &p.err));
    assert_int_equal(p.err.code, ERR_BAD_MESSAGE);
    err_clear(&p.err);
    p.f.offer.part = NULL;
    assert_null(restore_part_new(&p.f.run, &p.err));
    assert_int_equal(p.err.code, ERR_BAD_MESSAGE);
    stop(&p);
}

/* --- Taking off ------------------------------------------------------------------------------- */
#define VM(id)         "{\"id\":\"" id "\",\"name\":\"n\"}"
#define HAS(disk)      "{\"id\":\"" disk "\",\"disk\":{\"id\":\"" disk "\"}}"
#define LIST(vm)       "GET vms/" vm "/diskattachments"
#define LOOK(vm, disk) "GET vms/" vm "/diskattachments/" disk
#define OFF(vm, disk)  "DELETE vms/" vm "/diskattachments/" disk "?detach_only=true"
#define VMS(page)      "GET vms?search=sortby name page " page "&max=100"

static void a_disk_is_taken_off_who_has_it(void **state)
{
    (void)state;
    struct place p;
    const char *const disks[] = {DISK, DISK_2};
    start(&p, (const struct fake_line[]){
                  {VMS("1"), 200, "{\"vm\":[" VM(OTHER_VM) "," VM(PROXY) "]}", 0},
                  {VMS("2"), 200, "{}", 0},
                  {LIST(OTHER_VM), 200, "{\"disk_attachment\":[" HAS(OLD_DISK) "]}", 0},
                  {LIST(PROXY), 200, "{\"disk_attachment\":[" HAS(OLD_DISK) "," HAS(DISK) "]}", 0},
                  {LOOK(PROXY, DISK), 200, HAS(DISK), 0},
                  {OFF(PROXY, DISK), 200, "{}", 0},
                  {LOOK(PROXY, DISK), 404, NULL, 0},
                  {0}});
    if (!restore_take_off(&p.f.run, disks, 2, &p.err))
        fail_msg("%s", p.err.message);
    assert_int_equal(p.f.run.handles.count, 0);
    stop(&p);
}

static void what_cannot_be_taken_off_is_left_in_the_journal(void **state)
{
    (void)state;
    struct place p;
    const char *const disks[] = {DISK};
    start(&p,
          (const struct fake_line[]){{VMS("1"), 200, "{\"vm\":[" VM(PROXY) "]}", 0},
                                     {VMS("2"), 200, "{}", 0},
                                     {LIST(PROXY), 200, "{\"disk_attachment\":[" HAS(DISK) "]}", 0},
                                     {LOOK(PROXY, DISK), 200, HAS(DISK), 0},
                                     {OFF(PROXY, DISK), 403, "{\"detail\":\"not authorized\"}", 0},
                                     {0}});
    assert_false(restore_take_off(&p.f.run, disks, 1, &p.err));
    assert_string_equal(handles_get(&p.f.run.handles, "attachment." DISK), PROXY);
    stop(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_disk_without_the_mark_is_refused),
        cmocka_unit_test(a_disk_that_has_gone),
        cmocka_unit_test(only_whole_disks_of_the_point),
        cmocka_unit_test(only_from_a_whole_point),
        cmocka_unit_test(an_offer_that_says_too_little),
        cmocka_unit_test(a_disk_is_taken_off_who_has_it),
        cmocka_unit_test(what_cannot_be_taken_off_is_left_in_the_journal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A repository that goes away and comes back: by the same way, by another, or as something else. */
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support.h"

enum { BYTES = 300 << 10 };

struct fixture {
    char *dir, *path, *away;
    struct store *store;
    struct disk_image image;
};

static int setup(void **state)
{
    struct err err = ERR_INIT;
    struct fixture *f = ALLOC_NEW(struct fixture);
    f->dir = temp_dir();
    f->path = xasprintf("%s/repo", f->dir);
    f->away = xasprintf("%s/away", f->dir);
    f->store = store_init(f->path, NULL, &err);
    MUST(f->store, &err);
    f->image = (struct disk_image){.id = "disk-1", .data = xmalloc(BYTES), .size = BYTES};
    fill_random(f->image.data, BYTES, 5);
    MUST(backup_image(f->store, "first.1", &f->image, NULL, NULL, &err), &err);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    store_free(f->store);
    remove_tree(f->dir);
    free(f->image.data);
    free(f->dir);
    free(f->path);
    free(f->away);
    free(f);
    return 0;
}

static void test_nothing_happened(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    MUST(store_refresh(f->store, &err), &err);
    MUST(store_refresh(f->store, &err), &err);
    MUST(check_image(f->store, "first.1", &f->image, &err), &err);
}

static void test_away_and_back(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    assert_int_equal(rename(f->path, f->away), 0);
    MUST_FAIL(store_refresh(f->store, &err), &err, ERR_UNAVAILABLE);
    /* As below a mount point whose mount is gone. */
    assert_int_equal(mkdir(f->path, 0755), 0);
    assert_false(store_refresh(f->store, &err));
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    assert_non_null(strstr(err.message, "is it mounted?"));
    err_clear(&err);
    assert_int_equal(rmdir(f->path), 0);
    assert_int_equal(rename(f->away, f->path), 0);
    MUST(store_refresh(f->store, &err), &err);
    MUST(backup_image(f->store, "second.1", &f->image, NULL, NULL, &err), &err);
    MUST(check_image(f->store, "second.1", &f->image, &err), &err);
}

/* The same repository in another directory: what is open leads to the old one. */
static void test_back_by_another_way(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    MUST(check_image(f->store, "first.1", &f->image, &err), &err);
    char cp[] = "cp", all[] = "-a";
    char *const copy[] = {cp, all, f->path, f->away, NULL};
    pid_t pid;
    int status = -1;
    assert_int_equal(posix_spawnp(&pid, copy[0], NULL, NULL, copy, environ), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    remove_tree(f->path);
    assert_int_equal(rename(f->away, f->path), 0);
    MUST_FAIL(backup_image(f->store, "lost.1", &f->image, NULL, NULL, &err), &err, ERR_NOT_FOUND);
    MUST(store_refresh(f->store, &err), &err);
    MUST(check_image(f->store, "first.1", &f->image, &err), &err);
    MUST(backup_image(f->store, "second.1", &f->image, NULL, NULL, &err), &err);
    SCOPED(store) struct store *fresh = store_open(f->path, NULL, &err);
    MUST(fresh, &err);
    MUST(check_image(fresh, "second.1", &f->image, &err), &err);
}

static void test_another_repository_in_its_place(void **state)
{
    struct fixture *f = *state;
    struct err err = ERR_INIT;
    assert_int_equal(rename(f->path, f->away), 0);
    SCOPED(store) struct store *other = store_init(f->path, NULL, &err);
    MUST(other, &err);
    assert_false(store_refresh(f->store, &err));
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    assert_non_null(strstr(err.message, "another repository"));
    err_clear(&err);
    MUST(check_image(f->store, "first.1", &f->image, &err), &err); /* still the old one */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing_happened, setup, teardown),
        cmocka_unit_test_setup_teardown(test_away_and_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_back_by_another_way, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_repository_in_its_place, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

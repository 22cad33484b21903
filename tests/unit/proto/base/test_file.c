/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/base/file.h"
#include "tests/unit/temp_dir.h"

/* Each test in a folder of its own; its path is the state. */
static struct temp_dir folder;

static int set_up(void **state)
{
    temp_dir_make(&folder);
    *state = folder.path;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    temp_dir_remove(&folder);
    return 0;
}

static char *in(void **state, const char *name)
{
    return xasprintf("%s/%s", (const char *)*state, name);
}

static void make(const char *path, const char *text, mode_t mode)
{
    SCOPED_FD int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
}

static void test_read_all(void **state)
{
    SCOPED_FREE char *path = in(state, "f");
    struct err err = ERR_INIT;
    struct buf b;
    assert_false(file_read_all(AT_FDCWD, path, 100, &b, &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, path));
    err_clear(&err);
    make(path, "hello", 0600);
    assert_true(file_read_all(AT_FDCWD, path, 5, &b, &err));
    assert_string_equal(buf_str(&b), "hello");
    buf_done(&b);
    assert_false(file_read_all(AT_FDCWD, path, 4, &b, &err));
    assert_int_equal(err.code, ERR_TOO_LARGE);
    err_clear(&err);
    assert_false(file_read_all(AT_FDCWD, *state, 4, &b, &err)); /* a directory */
    assert_int_equal(err.code, ERR_BAD_ARGUMENT);
    err_clear(&err);
    SCOPED_FREE char *fifo = in(state, "fifo");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_false(file_read_all(AT_FDCWD, fifo, 4, &b, &err)); /* and it does not wait */
    assert_int_equal(err.code, ERR_BAD_ARGUMENT);
}

static void test_read_relative_to_a_directory(void **state)
{
    SCOPED_FREE char *path = in(state, "f");
    make(path, "x", 0600);
    SCOPED_FD int dir = open(*state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct err err = ERR_INIT;
    SCOPED_BUF struct buf b;
    assert_true(file_read_all(dir, "f", 100, &b, &err));
    assert_string_equal(buf_str(&b), "x");
}

static void expect_secret_refused(const char *path, enum err_code code, const char *text)
{
    struct err err = ERR_INIT;
    assert_null(file_read_secret(path, &err));
    assert_int_equal(err.code, code);
    assert_non_null(strstr(err.message, text));
    assert_non_null(strstr(err.message, path));
}

static void test_secrets(void **state)
{
    SCOPED_FREE char *path = in(state, "secret");
    expect_secret_refused(path, ERR_NOT_FOUND, "secret file");
    make(path, "s3cret\r\nsecond line\n", 0640);
    struct err err = ERR_INIT;
    SCOPED_FREE char *secret = file_read_secret(path, &err);
    assert_non_null(secret);
    assert_string_equal(secret, "s3cret");
    make(path, "s3cret", 0644);
    expect_secret_refused(path, ERR_PERMISSION, "chmod o-rwx");
    make(path, "s3cret", 0602);
    expect_secret_refused(path, ERR_PERMISSION, "mode 602");
    make(path, "", 0600);
    expect_secret_refused(path, ERR_BAD_CONFIG, "is empty");
    make(path, "\nnot the first line\n", 0600);
    expect_secret_refused(path, ERR_BAD_CONFIG, "is empty");
    char big[5001];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    make(path, big, 0600);
    expect_secret_refused(path, ERR_TOO_LARGE, "larger than");
}

static void test_pread_and_pwrite(void **state)
{
    SCOPED_FREE char *path = in(state, "f");
    SCOPED_FD int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct err err = ERR_INIT;
    assert_true(file_pwrite_full(fd, "world", 5, 6, &err));
    assert_true(file_pwrite_full(fd, "hello ", 6, 0, &err));
    char back[12] = "";
    assert_true(file_pread_full(fd, back, 11, 0, &err));
    assert_string_equal(back, "hello world");
    assert_false(file_pread_full(fd, back, 11, 4, &err));
    assert_int_equal(err.code, ERR_IO);
    assert_non_null(strstr(err.message, "offset 11, 4 bytes too early"));
    err_clear(&err);
    assert_false(file_pread_full(-1, back, 1, 0, &err));
    assert_int_equal(err.sys, EBADF);
    err_clear(&err);
    assert_false(file_pwrite_full(-1, back, 1, 0, &err));
    err_clear(&err);
    assert_false(file_write_full(-1, back, 1, &err));
    err_clear(&err);
    SCOPED_FD int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    assert_false(file_write_full(full, back, 1, &err));
    assert_int_equal(err.code, ERR_NO_SPACE);
}

static int count_entries(const char *dir)
{
    DIR *d = opendir(dir);
    int n = 0;
    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

static void test_atomic_write(void **state)
{
    SCOPED_FREE char *path = in(state, "f");
    struct err err = ERR_INIT;
    assert_true(file_write_atomic(AT_FDCWD, path, "one", 3, 0640, &err));
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 3);
    ino_t first = st.st_ino;
    SCOPED_FD int old = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(file_write_atomic(AT_FDCWD, path, "second", 6, 0600, &err));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 6);
    assert_true(st.st_ino != first);
    char back[8] = "";
    assert_int_equal(pread(old, back, sizeof back, 0), 3); /* who had it open sees it whole */
    assert_int_equal(count_entries(*state), 1);
    SCOPED_FREE char *nowhere = in(state, "no/such/dir/f");
    assert_false(file_write_atomic(AT_FDCWD, nowhere, "x", 1, 0600, &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
    err_clear(&err);
    /* It cannot take the place of a directory; the temporary file is gone again. */
    SCOPED_FREE char *dir = in(state, "dir/sub");
    assert_true(file_make_dirs(dir, 0700, &err));
    SCOPED_FREE char *parent = in(state, "dir");
    assert_false(file_write_atomic(AT_FDCWD, parent, "x", 1, 0600, &err));
    assert_int_equal(count_entries(*state), 2);
}

static void test_make_dirs(void **state)
{
    SCOPED_FREE char *path = in(state, "a/b/c");
    struct err err = ERR_INIT;
    assert_true(file_make_dirs(path, 0700, &err));
    assert_true(file_make_dirs(path, 0700, &err));
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_true(S_ISDIR(st.st_mode));
    SCOPED_FREE char *slash = in(state, "a/b/d/");
    assert_true(file_make_dirs(slash, 0700, &err));
    SCOPED_FREE char *file = in(state, "a/file");
    make(file, "x", 0600);
    SCOPED_FREE char *under = in(state, "a/file/x");
    assert_false(file_make_dirs(under, 0700, &err));
    assert_true(err_is_set(&err));
}

static void test_sync_parent(void **state)
{
    SCOPED_FREE char *path = in(state, "f");
    struct err err = ERR_INIT;
    assert_true(file_sync_parent(AT_FDCWD, path, &err));
    assert_true(file_sync_parent(AT_FDCWD, "/x", &err));
    assert_true(file_sync_parent(AT_FDCWD, "x", &err));
    SCOPED_FREE char *nowhere = in(state, "no/f");
    assert_false(file_sync_parent(AT_FDCWD, nowhere, &err));
}

int main(void)
{
#define IN_FOLDER(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_read_all),     IN_FOLDER(test_read_relative_to_a_directory),
        IN_FOLDER(test_secrets),      IN_FOLDER(test_pread_and_pwrite),
        IN_FOLDER(test_atomic_write), IN_FOLDER(test_make_dirs),
        IN_FOLDER(test_sync_parent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

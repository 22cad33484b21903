/* SPDX-License-Identifier: Apache-2.0 */
/*
 * glog DIR_A DIR_B ACKS DELAY_US: the workload of the sandbox's Linux guest (glog.h). Runs inside
 * the guest, linked statically. ACKS is a serial port: a line with its number for each record.
 */
#include "tests/sandbox/guest/linux/glog.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { FILE_EVERY = 50, FILE_RECORDS = 20, FILE_NAMES = 100, PATH_BYTES = 256 };

static int open_log(const char *dir)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/log", dir);
    return open(path, O_CREAT | O_RDWR | O_APPEND | O_CLOEXEC, 0644);
}

/* A crash may have left half a record at the end: cut it off. Returns the number of records. */
static uint64_t cut_tail(int fd)
{
    off_t end = lseek(fd, 0, SEEK_END);
    off_t whole = end - end % GLOG_RECORD_BYTES;
    if (end != whole && ftruncate(fd, whole) != 0)
        return UINT64_MAX;
    return (uint64_t)whole / GLOG_RECORD_BYTES;
}

static int append(int fd, uint64_t n)
{
    struct glog_record r;
    glog_fill(&r, n);
    return write(fd, &r, sizeof r) == (ssize_t)sizeof r && fdatasync(fd) == 0 ? 0 : -1;
}

/* Work for the journal: write a file, sync it, rename it over an older one. */
static int renew_file(const char *dir, uint64_t n)
{
    char temp[PATH_BYTES], path[PATH_BYTES];
    snprintf(temp, sizeof temp, "%s/new", dir);
    snprintf(path, sizeof path, "%s/file%" PRIu64, dir, n / FILE_EVERY % FILE_NAMES);
    int fd = open(temp, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);
    if (fd < 0)
        return -1;
    struct glog_record r;
    glog_fill(&r, n);
    int rc = 0;
    for (int i = 0; i < FILE_RECORDS && rc == 0; i++)
        rc = write(fd, &r, sizeof r) == (ssize_t)sizeof r ? 0 : -1;
    rc = rc == 0 ? fsync(fd) : rc;
    (void)close(fd);
    return rc == 0 ? rename(temp, path) : rc;
}

static int fail(const char *what)
{
    perror(what);
    return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return EXIT_FAILURE;
    long delay_us = strtol(argv[4], NULL, 10);
    struct timespec delay = {.tv_sec = delay_us / 1000000, .tv_nsec = delay_us % 1000000 * 1000};
    int a = open_log(argv[1]), b = open_log(argv[2]);
    int acks = open(argv[3], O_WRONLY | O_CLOEXEC);
    if (a < 0 || b < 0 || acks < 0)
        return fail("open");
    uint64_t n = cut_tail(b);
    /* A may be one ahead: that record was never acknowledged, and B gets it first. */
    if (cut_tail(a) == n + 1 && (append(b, n + 1) != 0 || ++n == 0))
        return fail("catch up");
    for (;;) {
        n++;
        if (append(a, n) != 0 || append(b, n) != 0)
            return fail("append");
        (void)!dprintf(acks, "%" PRIu64 "\n", n);
        if (n % FILE_EVERY == 0 && renew_file(argv[1], n) != 0)
            return fail("file");
        (void)nanosleep(&delay, NULL);
    }
}

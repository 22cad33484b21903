/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/block/image.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/file.h"

enum {
    QCOW2_MAGIC = 0x514649fb, /* "QFI\xfb" */
    EXTENSION_END = 0,
    HEADER_BYTES_MAX = 65536, /* header and extensions must fit the first cluster */
    BACKING_NAME_MAX = 1023,
    V2_HEADER_BYTES = 72,
};
#define EXTENSION_BACKING_FORMAT 0xe2792acaU

const char *block_format_name(enum block_format format)
{
    return format == BLOCK_QCOW2 ? "qcow2" : "raw";
}

static uint32_t get32(const unsigned char *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return be32toh(value);
}

static uint64_t get64(const unsigned char *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return be64toh(value);
}

static bool parse_format(const unsigned char *text, size_t len, enum block_format *ret)
{
    bool qcow2 = len == 5 && memcmp(text, "qcow2", 5) == 0;
    *ret = qcow2 ? BLOCK_QCOW2 : BLOCK_RAW;
    return qcow2 || (len == 3 && memcmp(text, "raw", 3) == 0);
}

/* Find the backing format among the header extensions that begin at `at`. */
static bool find_backing_format(const unsigned char *head, size_t len, size_t at,
                                enum block_format *ret)
{
    while (at + 8 <= len && get32(head + at) != EXTENSION_END) {
        uint32_t type = get32(head + at);
        size_t size = get32(head + at + 4);
        if (size > len - at - 8)
            return false;
        if (type == EXTENSION_BACKING_FORMAT)
            return parse_format(head + at + 8, size, ret);
        at += 8 + ((size + 7) & ~(size_t)7);
    }
    return false;
}

/* A relative backing name is relative to the folder of the image that names it. */
static char *resolve(const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');
    if (name[0] == '/' || !slash)
        return xstrdup(name);
    return xasprintf("%.*s/%s", (int)(slash - path), path, name);
}

static bool parse_header(const char *path, const unsigned char *head, size_t len,
                         struct image_info *ret, struct err *err)
{
    if (len < V2_HEADER_BYTES || get32(head) != QCOW2_MAGIC)
        return err_set(err, ERR_UNSUPPORTED, 0, "'%s' is not a qcow2 image", path);
    size_t extensions = get32(head + 4) >= 3 && len >= 104 ? get32(head + 100) : V2_HEADER_BYTES;
    uint64_t name_at = get64(head + 8);
    size_t name_len = get32(head + 16);
    *ret = (struct image_info){.size_bytes = get64(head + 24)};
    if (name_at == 0)
        return true;
    if (name_len == 0 || name_len > BACKING_NAME_MAX || name_at > len || name_len > len - name_at)
        return err_set(err, ERR_UNSUPPORTED, 0, "'%s': the backing file name lies outside its head",
                       path);
    if (!find_backing_format(head, len, extensions, &ret->backing_format))
        return err_set(err, ERR_UNSUPPORTED, 0,
                       "'%s' does not say raw or qcow2 for its backing file", path);
    SCOPED_FREE char *name = xstrndup((const char *)head + name_at, name_len);
    ret->backing = resolve(path, name);
    return true;
}

bool image_info_read(const char *path, enum block_format format, struct image_info *ret,
                     struct err *err)
{
    SCOPED_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0)
        return err_set_errno(err, errno, "open image '%s'", path);
    if (format == BLOCK_RAW) {
        *ret = (struct image_info){.size_bytes = ((uint64_t)st.st_size + 511) & ~UINT64_C(511)};
        return true;
    }
    SCOPED_FREE unsigned char *head = xmalloc(HEADER_BYTES_MAX);
    ssize_t n = TEMP_FAILURE_RETRY(pread(fd, head, HEADER_BYTES_MAX, 0));
    if (n < 0)
        return err_set_errno(err, errno, "read image '%s'", path);
    return parse_header(path, head, (size_t)n, ret, err);
}

bool image_is_same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

void image_info_done(struct image_info *info)
{
    free(info->backing);
    info->backing = NULL;
}

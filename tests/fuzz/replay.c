/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main() of the fuzz targets where there is no libFuzzer: runs every file of the given folders, so
 * that what was once found stays found. Prints how many; a crash names the file before it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "proto/base/file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_MAX = 16 << 20 };

static bool run_file(const char *path)
{
    struct err err = ERR_INIT;
    SCOPED_BUF struct buf input;
    if (!file_read_all(AT_FDCWD, path, INPUT_MAX, &input, &err)) {
        (void)fprintf(stderr, "%s: %s\n", path, err.message);
        return false;
    }
    (void)fprintf(stderr, "%s\n", path);
    /* A copy of exactly the size, so that a sanitizer sees each byte too many. */
    uint8_t *copy = xmalloc(input.len + 1);
    if (input.len > 0)
        memcpy(copy, input.data, input.len);
    uint8_t *exact = xrealloc(copy, input.len > 0 ? input.len : 1);
    (void)LLVMFuzzerTestOneInput(exact, input.len);
    free(exact);
    return true;
}

static bool run_folder(const char *folder, unsigned *count)
{
    DIR *dir = opendir(folder);
    if (!dir) {
        (void)fprintf(stderr, "%s: %s\n", folder, strerror(errno));
        return false;
    }
    bool ok = true;
    const struct dirent *entry;
    while (ok && (entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        SCOPED_FREE char *path = xasprintf("%s/%s", folder, entry->d_name);
        ok = run_file(path);
        ++*count;
    }
    (void)closedir(dir);
    return ok;
}

int main(int argc, char **argv)
{
    unsigned count = 0;
    for (int i = 1; i < argc; i++) {
        if (!run_folder(argv[i], &count))
            return 1;
    }
    (void)printf("%u inputs\n", count);
    return count > 0 ? 0 : 1;
}

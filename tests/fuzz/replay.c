/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a fuzz target without libFuzzer: over every file named on the command line (or in a
 * directory named there), and over mutations of each, made from a fixed seed, so that a failure
 * repeats.
 *
 * usage: replay_X PATH...      OXBOW_FUZZ_ROUNDS: mutations of each file (default 500)
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "proto/base/alloc.h"
#include "proto/base/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_MAX = 1 << 20 };

static uint64_t random_state = 1;
static unsigned long files, inputs;

static uint64_t random_next(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* In a block of its own, so that a sanitizer sees a read beyond the end. */
static void run(const uint8_t *data, size_t len)
{
    uint8_t *copy = xmalloc(len ? len : 1);
    memcpy(copy, data, len);
    (void)LLVMFuzzerTestOneInput(copy, len);
    free(copy);
    inputs++;
}

static size_t mutate(uint8_t *data, size_t len, size_t capacity)
{
    static const uint32_t words[] = {0, 1, 255, 256, 65535, 65536, INT32_MAX, UINT32_MAX};
    size_t at = len ? random_next() % len : 0;
    switch (random_next() % 6) {
    case 0:
        if (len > 0)
            data[at] ^= (uint8_t)(1u << random_next() % 8);
        return len;
    case 1:
        if (len > 0)
            data[at] = (uint8_t)random_next();
        return len;
    case 2: /* a number that is likely a limit */
        if (len >= 4) {
            at = random_next() % (len - 3);
            memcpy(data + at, &words[random_next() % ARRAY_LEN(words)], 4);
        }
        return len;
    case 3:
        return at; /* cut */
    case 4: {      /* repeat a part */
        size_t n = len - at < 64 ? len - at : 64;
        if (len + n > capacity)
            return len;
        memmove(data + at + n, data + at, len - at);
        return len + n;
    }
    default: { /* remove a part */
        size_t n = random_next() % 16;
        if (at + n > len)
            return len;
        memmove(data + at, data + at + n, len - at - n);
        return len - n;
    }
    }
}

static void run_file(const char *path, unsigned long rounds)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        (void)fprintf(stderr, "replay: %s: %s\n", path, strerror(errno));
        exit(1);
    }
    uint8_t *seed = xmalloc(INPUT_MAX), *data = xmalloc(INPUT_MAX);
    size_t len = fread(seed, 1, INPUT_MAX, file);
    (void)fprintf(stderr, "%s\n", path); /* a crash names the file before it */
    (void)fclose(file);
    files++;
    run(seed, len);
    for (unsigned long i = 0; i < rounds; i++) {
        memcpy(data, seed, len);
        size_t n = len;
        for (uint64_t k = random_next() % 4 + 1; k > 0; k--)
            n = mutate(data, n, INPUT_MAX);
        run(data, n);
    }
    free(seed);
    free(data);
}

static int is_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static void run_path(const char *path, unsigned long rounds)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        (void)fprintf(stderr, "replay: %s: %s\n", path, strerror(errno));
        exit(1);
    }
    if (!S_ISDIR(st.st_mode)) {
        run_file(path, rounds);
        return;
    }
    struct dirent **entries;
    int n = scandir(path, &entries, is_visible, alphasort);
    for (int i = 0; i < n; i++) {
        SCOPED_FREE char *name = xasprintf("%s/%s", path, entries[i]->d_name);
        run_file(name, rounds);
        free(entries[i]);
    }
    if (n >= 0)
        free(entries);
}

int main(int argc, char **argv)
{
    const char *text = getenv("OXBOW_FUZZ_ROUNDS");
    unsigned long rounds = text ? strtoul(text, NULL, 10) : 500;
    log_set_level(LOG_LEVEL_ERROR);
    run((const uint8_t *)"", 0);
    for (int i = 1; i < argc; i++)
        run_path(argv[i], rounds);
    (void)printf("%lu inputs from %lu files\n", inputs, files);
    return files > 0 ? 0 : 1;
}

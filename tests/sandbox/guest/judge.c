/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/guest/judge.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/base/alloc.h"
#include "proto/base/file.h"

enum { READ_BYTES = 1 << 20, FAULTS_TOLD = 3, LOOK_AHEAD = 1 << 20 };

/* The search ends where so many blocks want a record that is above all that were found. For an
 * instant to fit further on, zero writes would have to hit all of them with no record left between:
 * one write in 64 does it, and for 16 blocks. */
enum { AHEAD_MAX = 128 };
/* So far behind the bracket an instant is still named, for people. */
enum { BEYOND = 256 };

/* The states of a hot block other than the number of its record. */
#define STATE_ZERO    UINT64_C(0)
#define STATE_INITIAL UINT64_MAX       /* its initial content, which is not zeroes */
#define STATE_BAD     (UINT64_MAX - 1) /* told already */

struct disk_state {
    bool given;
    uint64_t *found; /* by hot number */
    uint64_t *wanted;
    bool *initial; /* the initial content is not zeroes */
    bool *seen;
};

struct judging {
    const struct pattern_spec *spec;
    struct disk_state disks[PATTERN_DISKS_MAX];
    struct judge_verdict *verdict;
    unsigned told;
    uint64_t mismatches; /* hot blocks with found != wanted */
    uint64_t ahead;      /* of those, where a record above the highest is wanted */
};

static const unsigned char zeroes[PATTERN_BLOCK];

/* However much was told. */
__attribute__((format(printf, 2, 0))) static void vadd_why(struct judging *j, const char *fmt,
                                                           va_list args)
{
    char *why = j->verdict->why;
    size_t used = strlen(why), size = sizeof j->verdict->why;
    if (used > 0 && used < size - 2)
        used += (size_t)snprintf(why + used, size - used, "; ");
    vsnprintf(why + used, size - used, fmt, args);
}

__attribute__((format(printf, 2, 3))) static void add_why(struct judging *j, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vadd_why(j, fmt, args);
    va_end(args);
}

/* A fault; only the first few are told. */
__attribute__((format(printf, 2, 3))) static void tell(struct judging *j, const char *fmt, ...)
{
    if (j->told++ >= FAULTS_TOLD)
        return;
    va_list args;
    va_start(args, fmt);
    vadd_why(j, fmt, args);
    va_end(args);
}

/* --- Reading the images
 * ------------------------------------------------------------------------------ */

/* What a hot block holds, as a state. */
static uint64_t classify(struct judging *j, size_t disk, uint64_t block, const void *bytes,
                         const void *initial)
{
    if (memcmp(bytes, zeroes, PATTERN_BLOCK) == 0)
        return STATE_ZERO;
    if (initial && memcmp(bytes, initial, PATTERN_BLOCK) == 0)
        return STATE_INITIAL;
    uint64_t n = pattern_record_number(j->spec, bytes);
    if (n == 0 || n >= STATE_BAD) {
        tell(j, "disk %s block %" PRIu64 " is neither a record, nor zeroes, nor initial content",
             j->spec->disks[disk].id, block);
        return STATE_BAD;
    }
    struct pattern_write w = pattern_write_at(j->spec, n);
    unsigned char whole[PATTERN_BLOCK];
    pattern_record(j->spec, n, whole);
    if (w.kind != PATTERN_RECORD || w.disk != disk || w.block != block ||
        memcmp(whole, bytes, PATTERN_BLOCK) != 0) {
        tell(j, "disk %s block %" PRIu64 " holds write %" PRIu64 ", which does not belong there",
             j->spec->disks[disk].id, block, n);
        return STATE_BAD;
    }
    if (n > j->verdict->highest)
        j->verdict->highest = n;
    return n;
}

static void look_at(struct judging *j, size_t disk, uint64_t block, const unsigned char *bytes)
{
    unsigned char initial[PATTERN_BLOCK];
    bool filled = pattern_initial(j->spec, disk, block, initial);
    uint64_t hot;
    if (pattern_find_hot(j->spec, disk, block, &hot)) {
        struct disk_state *d = &j->disks[disk];
        d->initial[hot] = filled;
        d->found[hot] = classify(j, disk, block, bytes, filled ? initial : NULL);
        j->verdict->wrong_blocks += d->found[hot] == STATE_BAD;
        return;
    }
    if (memcmp(bytes, filled ? initial : zeroes, PATTERN_BLOCK) == 0)
        return;
    j->verdict->wrong_blocks++;
    tell(j, "disk %s block %" PRIu64 ", which no write hits, does not hold its initial content",
         j->spec->disks[disk].id, block);
}

/* The blocks of a hole. Whole chunks that should be empty and are not hot need no look. */
static void look_at_hole(struct judging *j, size_t disk, uint64_t from, uint64_t to)
{
    const uint64_t chunk_blocks = PATTERN_CHUNK / PATTERN_BLOCK;
    uint64_t hot;
    for (uint64_t block = from; block < to;) {
        uint64_t next = (block / chunk_blocks + 1) * chunk_blocks;
        next = next < to ? next : to;
        bool quiet = !pattern_chunk_is_filled(j->spec, disk, block / chunk_blocks) &&
                     !pattern_find_hot(j->spec, disk, block, &hot);
        for (; !quiet && block < next; block++)
            look_at(j, disk, block, zeroes);
        block = next;
    }
}

static bool look_at_data(struct judging *j, size_t disk, int fd, uint64_t from, uint64_t to,
                         unsigned char *buffer, struct err *err)
{
    while (from < to) {
        uint64_t count =
            to - from < READ_BYTES / PATTERN_BLOCK ? to - from : READ_BYTES / PATTERN_BLOCK;
        if (!file_pread_full(fd, buffer, count * PATTERN_BLOCK, from * PATTERN_BLOCK, err))
            return false;
        for (uint64_t i = 0; i < count; i++)
            look_at(j, disk, from + i, buffer + i * PATTERN_BLOCK);
        from += count;
    }
    return true;
}

/* The next run of data at or after `block`, in blocks; *ret_from = blocks when there is none. */
static void next_data(int fd, uint64_t block, uint64_t blocks, uint64_t *ret_from, uint64_t *ret_to)
{
    off_t data = lseek(fd, (off_t)(block * PATTERN_BLOCK), SEEK_DATA);
    bool no_more = data < 0 && errno == ENXIO;
    *ret_from = no_more ? blocks : data < 0 ? block : (uint64_t)data / PATTERN_BLOCK;
    off_t hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
    *ret_to = hole < 0 ? blocks : ((uint64_t)hole + PATTERN_BLOCK - 1) / PATTERN_BLOCK;
    *ret_from = *ret_from < blocks ? *ret_from : blocks;
    *ret_to = *ret_to < blocks ? *ret_to : blocks;
}

/* What lies behind the last whole block is never written. */
static bool check_tail(struct judging *j, size_t disk, int fd, struct err *err)
{
    unsigned char tail[PATTERN_BLOCK];
    uint64_t size = j->spec->disks[disk].size_bytes;
    size_t len = size % PATTERN_BLOCK;
    if (!file_pread_full(fd, tail, len, size - len, err))
        return false;
    if (memcmp(tail, zeroes, len) != 0) {
        j->verdict->wrong_blocks++;
        tell(j, "disk %s: its last %zu bytes are not zeroes", j->spec->disks[disk].id, len);
    }
    return true;
}

static bool read_image(struct judging *j, size_t disk, const char *path, struct err *err)
{
    uint64_t size = j->spec->disks[disk].size_bytes, blocks = size / PATTERN_BLOCK;
    SCOPED_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0)
        return err_set_errno(err, errno, "image '%s'", path);
    if (S_ISREG(st.st_mode) && (uint64_t)st.st_size != size) {
        j->verdict->wrong_blocks++;
        tell(j, "disk %s: the image has %" PRId64 " bytes, not %" PRIu64, j->spec->disks[disk].id,
             (int64_t)st.st_size, size);
        return true;
    }
    SCOPED_FREE unsigned char *buffer = xmalloc(READ_BYTES);
    uint64_t from, to;
    for (uint64_t at = 0; at < blocks; at = to) {
        next_data(fd, at, blocks, &from, &to);
        look_at_hole(j, disk, at, from);
        if (!look_at_data(j, disk, fd, from, to, buffer, err))
            return err_wrap(err, "image '%s'", path);
    }
    return check_tail(j, disk, fd, err);
}

/* --- Comparing with an instant
 * ------------------------------------------------------------------------ */

static bool is_ahead(const struct judging *j, uint64_t state)
{
    return state > j->verdict->highest && state < STATE_BAD;
}

static void want(struct judging *j, size_t disk, uint64_t hot, uint64_t state)
{
    struct disk_state *d = &j->disks[disk];
    j->mismatches -= d->found[hot] != d->wanted[hot];
    j->ahead -= is_ahead(j, d->wanted[hot]);
    d->wanted[hot] = state;
    j->mismatches += d->found[hot] != d->wanted[hot];
    j->ahead += is_ahead(j, state);
}

/* Apply write n to what is wanted; with `once`, only where no later write was applied before. */
static uint64_t apply(struct judging *j, uint64_t n, bool once)
{
    struct pattern_write w = pattern_write_at(j->spec, n);
    struct disk_state *d = &j->disks[w.disk];
    uint64_t fresh = 0, hot = 0;
    if (!d->given)
        return 0;
    for (uint64_t i = 0; i < w.block_count; i++) {
        if (!pattern_find_hot(j->spec, w.disk, w.block + i, &hot) || (once && d->seen[hot]))
            continue;
        d->seen[hot] = true;
        fresh++;
        want(j, w.disk, hot, w.kind == PATTERN_RECORD ? n : STATE_ZERO);
    }
    return fresh;
}

/* What every hot block must hold at instant s. Goes back from s until each was hit. */
static void want_instant(struct judging *j, uint64_t s)
{
    uint64_t open = 0;
    j->mismatches = j->ahead = 0;
    for (size_t i = 0; i < j->spec->disk_count; i++) {
        struct disk_state *d = &j->disks[i];
        for (uint64_t k = 0; d->given && k < pattern_hot_count(j->spec, i); k++) {
            d->seen[k] = false;
            d->wanted[k] = d->initial[k] ? STATE_INITIAL : STATE_ZERO;
            j->mismatches += d->found[k] != d->wanted[k];
            open++;
        }
    }
    for (uint64_t n = s; n > 0 && open > 0; n--)
        open -= apply(j, n, true);
}

/* --- Telling
 * ------------------------------------------------------------------------------------------ */

/* The zero write nearest to s that hits the block: up to s when `back`, else after it. 0 = none. */
static uint64_t find_zero(const struct judging *j, size_t disk, uint64_t block, uint64_t s,
                          bool back)
{
    uint64_t steps = back ? s : LOOK_AHEAD / 16;
    for (uint64_t i = 0; i < steps; i++) {
        uint64_t n = back ? s - i : s + 1 + i;
        struct pattern_write w = pattern_write_at(j->spec, n);
        if (w.kind != PATTERN_RECORD && w.disk == disk && block >= w.block &&
            block < w.block + w.block_count)
            return n;
    }
    return 0;
}

struct state_text {
    char text[96];
};

/* A state in words; zeroes with the numbers of the writes that can have put them there. */
static struct state_text state_text(const struct judging *j, size_t disk, uint64_t block,
                                    uint64_t s, uint64_t state)
{
    struct state_text out = {"damaged data"};
    if (state == STATE_ZERO)
        snprintf(out.text, sizeof out.text, "zeroes (written by %" PRIu64 ", next by %" PRIu64 ")",
                 find_zero(j, disk, block, s, true), find_zero(j, disk, block, s, false));
    else if (state == STATE_INITIAL)
        snprintf(out.text, sizeof out.text, "its initial content");
    else if (state != STATE_BAD)
        snprintf(out.text, sizeof out.text, "write %" PRIu64, state);
    return out;
}

static void tell_mismatch(struct judging *j, size_t disk, uint64_t hot, uint64_t s)
{
    const struct disk_state *d = &j->disks[disk];
    if (j->told >= FAULTS_TOLD)
        return; /* the words cost time */
    uint64_t block = pattern_hot_block(j->spec, disk, hot);
    tell(j, "as of write %" PRIu64 ", disk %s block %" PRIu64 " must hold %s, but holds %s", s,
         j->spec->disks[disk].id, block, state_text(j, disk, block, s, d->wanted[hot]).text,
         state_text(j, disk, block, s, d->found[hot]).text);
}

static void tell_mismatches(struct judging *j, uint64_t s)
{
    for (size_t i = 0; i < j->spec->disk_count; i++) {
        const struct disk_state *d = &j->disks[i];
        uint64_t count = 0, first = 0, last = 0;
        for (uint64_t k = 0; d->given && k < pattern_hot_count(j->spec, i); k++) {
            if (d->found[k] == d->wanted[k])
                continue;
            last = pattern_hot_block(j->spec, i, k);
            first = count++ == 0 ? last : first;
            tell_mismatch(j, i, k, s);
        }
        j->verdict->wrong_blocks += count;
        if (count > 1 && j->told >= FAULTS_TOLD)
            add_why(j, "in all %" PRIu64 " blocks of disk %s, from %" PRIu64 " to %" PRIu64, count,
                    j->spec->disks[i].id, first, last);
    }
}

/* --- The search
 * ------------------------------------------------------------------------------------------ */

/* Try the instant of the highest record and those after it. */
static void find_instant(struct judging *j, const struct judge_opts *opts)
{
    struct judge_verdict *v = j->verdict;
    uint64_t s = v->highest;
    bool fits = false;
    want_instant(j, s);
    uint64_t least = UINT64_MAX;
    for (uint64_t end = s + LOOK_AHEAD;; s++) {
        if (j->mismatches < least) {
            least = j->mismatches;
            v->nearest = s;
        }
        if (j->mismatches == 0) {
            v->s_min = fits ? v->s_min : s;
            v->s_max = s;
            fits = true;
            if (!v->good && s >= opts->after && s <= opts->before) {
                v->good = true;
                v->s = s;
            }
        }
        if (s == end || j->ahead > AHEAD_MAX || (s >= opts->before && s - opts->before >= BEYOND))
            break;
        (void)apply(j, s + 1, false);
    }
    if (fits && !v->good) {
        tell(j,
             "the images are of instant %" PRIu64 "..%" PRIu64 ", not within %" PRIu64 "..%" PRIu64,
             v->s_min, v->s_max, opts->after, opts->before);
    } else if (!fits) {
        want_instant(j, v->nearest);
        tell_mismatches(j, v->nearest);
    }
}

static void prepare_disk(struct judging *j, size_t i)
{
    uint64_t hot = pattern_hot_count(j->spec, i);
    j->disks[i] = (struct disk_state){.given = true,
                                      .found = xcalloc(hot + 1, sizeof(uint64_t)),
                                      .wanted = xcalloc(hot + 1, sizeof(uint64_t)),
                                      .initial = xcalloc(hot + 1, sizeof(bool)),
                                      .seen = xcalloc(hot + 1, sizeof(bool))};
}

bool judge_images(const struct judge_opts *opts, struct judge_verdict *ret, struct err *err)
{
    struct judging j = {.spec = opts->spec, .verdict = ret};
    *ret = (struct judge_verdict){0};
    bool ok = true, any = false;
    for (size_t i = 0; ok && i < opts->spec->disk_count; i++) {
        if (!opts->images[i])
            continue;
        any = true;
        prepare_disk(&j, i);
        ok = read_image(&j, i, opts->images[i], err);
    }
    if (ok && !any)
        ok = err_set(err, ERR_BAD_ARGUMENT, 0, "no image to judge");
    if (ok && ret->wrong_blocks == 0)
        find_instant(&j, opts);
    for (size_t i = 0; i < PATTERN_DISKS_MAX; i++) {
        free(j.disks[i].found);
        free(j.disks[i].wanted);
        free(j.disks[i].initial);
        free(j.disks[i].seen);
    }
    return ok;
}

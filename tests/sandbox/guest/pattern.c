/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sandbox/guest/pattern.h"

#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include <isa-l/crc.h>
#include <jansson.h>

#include "proto/base/alloc.h"
#include "proto/base/file.h"
#include "proto/base/id.h"

enum {
    MIB = 1 << 20,
    MIB_BLOCKS = MIB / PATTERN_BLOCK,
    CHUNK_BLOCKS = PATTERN_CHUNK / PATTERN_BLOCK,
    SHARED_POOL_CHUNKS = 256,
    WORDS = 256,
    SPEC_BYTES_MAX = 1 << 20,
};

/* Distinct streams of the hash. */
enum { PLACE = 1, KIND, FILLER, CHUNK_FILLED, CHUNK_SHARED, CHUNK_POOL, CHUNK_OWN, BLOCK_KIND };

struct record_head {
    char magic[8];
    uint64_t seed, n, block;
    uint32_t disk;
    uint32_t crc; /* CRC-32C of the whole block with this field zero */
};

static const char MAGIC[8] = {'s', 'a', 'n', 'd', 'b', 'o', 'x', '1'};

/* --- Hashing and filling
 * --------------------------------------------------------------------------- */

/* The finaliser of splitmix64: every bit of the input moves every bit of the output. */
static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static uint64_t hash(uint64_t seed, uint64_t stream, uint64_t a, uint64_t b)
{
    return mix(mix(mix(seed ^ (stream << 56)) ^ a) + b);
}

static void put64(unsigned char *out, uint64_t value)
{
    memcpy(out, &value, sizeof value);
}

static void fill_random(uint64_t key, unsigned char *out, size_t len)
{
    for (size_t i = 0; i + 8 <= len; i += 8) {
        key += UINT64_C(0x9e3779b97f4a7c15);
        uint64_t word = (key ^ (key >> 32)) * UINT64_C(0xd6e8feb86659fd93);
        put64(out + i, word ^ (word >> 29));
    }
}

/* Text of eight-letter words, a few bits of news a word: shrinks to about a quarter. */
static void fill_text(uint64_t key, unsigned char *out, size_t len)
{
    for (size_t i = 0; i + 8 <= len; i += 8) {
        if (i % 64 == 0)
            key = mix(key);
        uint64_t word = mix(key >> (i % 64) & (WORDS - 1));
        put64(out + i, (word & UINT64_C(0x0f0f0f0f0f0f0f0f)) | UINT64_C(0x6060606060606060));
    }
}

/* --- The stream of writes
 * --------------------------------------------------------------------------- */

static uint64_t disk_mibs(const struct pattern_disk *disk)
{
    return disk->size_bytes / MIB;
}

static uint64_t hot_mibs(const struct pattern_disk *disk)
{
    return disk->hot_mib < disk_mibs(disk) ? disk->hot_mib : disk_mibs(disk);
}

uint64_t pattern_hot_count(const struct pattern_spec *spec, size_t disk)
{
    return hot_mibs(&spec->disks[disk]) * MIB_BLOCKS;
}

uint64_t pattern_hot_block(const struct pattern_spec *spec, size_t disk, uint64_t hot)
{
    const struct pattern_disk *d = &spec->disks[disk];
    uint64_t extent = hot / MIB_BLOCKS * disk_mibs(d) / hot_mibs(d);
    return extent * MIB_BLOCKS + hot % MIB_BLOCKS;
}

bool pattern_find_hot(const struct pattern_spec *spec, size_t disk, uint64_t block,
                      uint64_t *ret_hot)
{
    const struct pattern_disk *d = &spec->disks[disk];
    uint64_t extent = block / MIB_BLOCKS, total = disk_mibs(d), hot = hot_mibs(d);
    if (extent >= total || hot == 0)
        return false;
    /* The first hot extent that does not lie before this one. */
    uint64_t i = (extent * hot + total - 1) / total;
    if (i >= hot || i * total / hot != extent)
        return false;
    *ret_hot = i * MIB_BLOCKS + block % MIB_BLOCKS;
    return true;
}

struct pattern_write pattern_write_at(const struct pattern_spec *spec, uint64_t n)
{
    uint64_t total = 0;
    for (size_t i = 0; i < spec->disk_count; i++)
        total += pattern_hot_count(spec, i);
    assert(total > 0); /* pattern_spec_check() saw to it */
    uint64_t at = hash(spec->seed, PLACE, n, 0) % total;
    struct pattern_write w = {.block_count = 1};
    while (at >= pattern_hot_count(spec, w.disk))
        at -= pattern_hot_count(spec, w.disk++);
    w.block = pattern_hot_block(spec, w.disk, at);
    uint64_t kind = hash(spec->seed, KIND, n, 0) % 64, zeroes = spec->zeroes ? spec->zeroes : 1;
    w.kind = kind < zeroes ? PATTERN_ZERO_GROUP : kind < 2 * zeroes ? PATTERN_ZERO : PATTERN_RECORD;
    if (w.kind == PATTERN_ZERO_GROUP) {
        w.block -= w.block % PATTERN_GROUP_BLOCKS;
        w.block_count = PATTERN_GROUP_BLOCKS;
    }
    return w;
}

static uint32_t checksum(const unsigned char *block)
{
    unsigned char copy[PATTERN_BLOCK];
    memcpy(copy, block, sizeof copy);
    memset(copy + offsetof(struct record_head, crc), 0, sizeof(uint32_t));
    return crc32_iscsi(copy, sizeof copy, 0);
}

void pattern_record(const struct pattern_spec *spec, uint64_t n, void *out)
{
    struct pattern_write w = pattern_write_at(spec, n);
    struct record_head head = {
        .seed = spec->seed, .n = n, .block = w.block, .disk = (uint32_t)w.disk};
    memcpy(head.magic, MAGIC, sizeof head.magic);
    unsigned char *block = out;
    uint64_t key = hash(spec->seed, FILLER, n, 0);
    if (key % 3 == 0)
        fill_text(key, block + sizeof head, PATTERN_BLOCK - sizeof head);
    else
        fill_random(key, block + sizeof head, PATTERN_BLOCK - sizeof head);
    memcpy(block, &head, sizeof head);
    head.crc = checksum(block);
    memcpy(block, &head, sizeof head);
}

uint64_t pattern_record_number(const struct pattern_spec *spec, const void *block)
{
    struct record_head head;
    memcpy(&head, block, sizeof head);
    if (memcmp(head.magic, MAGIC, sizeof head.magic) != 0 || head.seed != spec->seed)
        return 0;
    return checksum(block) == head.crc ? head.n : 0;
}

/* --- Initial content
 * -------------------------------------------------------------------------------- */

bool pattern_chunk_is_filled(const struct pattern_spec *spec, size_t disk, uint64_t chunk)
{
    return hash(spec->seed, CHUNK_FILLED, disk, chunk) % 100 < spec->disks[disk].fill_percent;
}

/* What the content of a filled chunk is made from. */
static uint64_t chunk_key(const struct pattern_spec *spec, size_t disk, uint64_t chunk)
{
    if (hash(spec->seed, CHUNK_SHARED, disk, chunk) % 100 < spec->disks[disk].shared_percent) {
        uint64_t member = hash(spec->seed, CHUNK_POOL, disk, chunk) % SHARED_POOL_CHUNKS;
        return hash(spec->common_seed, CHUNK_POOL, member, 0);
    }
    return hash(spec->seed, CHUNK_OWN, disk, chunk);
}

bool pattern_initial(const struct pattern_spec *spec, size_t disk, uint64_t block, void *out)
{
    uint64_t chunk = block / CHUNK_BLOCKS;
    if ((block + 1) * PATTERN_BLOCK > spec->disks[disk].size_bytes ||
        !pattern_chunk_is_filled(spec, disk, chunk))
        return false;
    uint64_t key = hash(chunk_key(spec, disk, chunk), BLOCK_KIND, block % CHUNK_BLOCKS, 0);
    unsigned char *bytes = out;
    switch (key % 8) {
    case 0: /* file systems have blocks of zeroes everywhere */
        return false;
    case 1: /* the end of a file */
        fill_random(key, bytes, PATTERN_BLOCK / 4);
        memset(bytes + PATTERN_BLOCK / 4, 0, PATTERN_BLOCK - PATTERN_BLOCK / 4);
        return true;
    case 2:
    case 3:
    case 4:
        fill_text(key, bytes, PATTERN_BLOCK);
        return true;
    default:
        fill_random(key, bytes, PATTERN_BLOCK);
        return true;
    }
}

/* --- Specs
 * -------------------------------------------------------------------------------------------- */

size_t pattern_find_disk(const struct pattern_spec *spec, const char *id)
{
    size_t i = 0;
    while (i < spec->disk_count && strcmp(spec->disks[i].id, id) != 0)
        i++;
    return i;
}

static bool check_disk(const struct pattern_spec *spec, size_t i, struct err *err)
{
    const struct pattern_disk *d = &spec->disks[i];
    if (d->id[0] == '\0' || pattern_find_disk(spec, d->id) != i)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "disk %zu: the id is empty or not unique", i);
    if (d->size_bytes < MIB || d->size_bytes > INT64_MAX)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "disk '%s': a size of %" PRIu64 " bytes", d->id,
                       d->size_bytes);
    if (d->fill_percent > 100 || d->shared_percent > 100)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "disk '%s': a percentage above 100", d->id);
    if (d->hot_mib > 65536)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "disk '%s': hot_mib above 65536", d->id);
    return true;
}

bool pattern_spec_check(const struct pattern_spec *spec, struct err *err)
{
    if (spec->disk_count == 0 || spec->disk_count > PATTERN_DISKS_MAX)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "%zu disks: must be 1 to %d", spec->disk_count,
                       PATTERN_DISKS_MAX);
    if (spec->seed > INT64_MAX || spec->common_seed > INT64_MAX)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "a seed is 2^63 or more");
    if (spec->zeroes > PATTERN_ZEROES_MAX)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "zeroes: must be at most %d", PATTERN_ZEROES_MAX);
    uint64_t hot = 0;
    for (size_t i = 0; i < spec->disk_count; i++) {
        if (!check_disk(spec, i, err))
            return false;
        hot += pattern_hot_count(spec, i);
    }
    return hot > 0 || err_set(err, ERR_BAD_ARGUMENT, 0, "no disk has a hot MiB");
}

static bool parse_disk(json_t *json, struct pattern_disk *d, struct err *err)
{
    const char *id;
    json_int_t size;
    int fill = 0, shared = 0, hot = 8;
    json_error_t why;
    if (json_unpack_ex(json, &why, JSON_STRICT, "{s:s, s:I, s?i, s?i, s?i}", "id", &id,
                       "size_bytes", &size, "fill_percent", &fill, "shared_percent", &shared,
                       "hot_mib", &hot) != 0)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "a disk: %s", why.text);
    if (strlen(id) >= sizeof d->id || size < 0 || fill < 0 || shared < 0 || hot < 0)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "disk '%s': a value is out of range", id);
    snprintf(d->id, sizeof d->id, "%s", id);
    d->size_bytes = (uint64_t)size;
    d->fill_percent = (unsigned)fill;
    d->shared_percent = (unsigned)shared;
    d->hot_mib = (unsigned)hot;
    return true;
}

static bool parse_spec(json_t *json, struct pattern_spec *spec, struct err *err)
{
    const char *vm;
    json_int_t seed, common = 0;
    int zeroes = 0;
    json_t *disks;
    json_error_t why;
    if (json_unpack_ex(json, &why, JSON_STRICT, "{s:s, s:I, s?I, s?i, s:o}", "vm", &vm, "seed",
                       &seed, "common_seed", &common, "zeroes", &zeroes, "disks", &disks) != 0)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "%s", why.text);
    if (strlen(vm) >= sizeof spec->vm || seed < 0 || common < 0 || zeroes < 0 ||
        !json_is_array(disks) || json_array_size(disks) > PATTERN_DISKS_MAX)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "a value is out of range");
    snprintf(spec->vm, sizeof spec->vm, "%s", vm);
    spec->seed = (uint64_t)seed;
    spec->common_seed = (uint64_t)common;
    spec->zeroes = (unsigned)zeroes;
    for (size_t i = 0; i < json_array_size(disks); i++) {
        if (!parse_disk(json_array_get(disks, i), &spec->disks[i], err))
            return false;
    }
    spec->disk_count = json_array_size(disks);
    return pattern_spec_check(spec, err);
}

bool pattern_spec_load(const char *path, struct pattern_spec *ret, struct err *err)
{
    SCOPED_BUF struct buf text;
    if (!file_read_all(AT_FDCWD, path, SPEC_BYTES_MAX, &text, err))
        return false;
    json_error_t why;
    json_t *json = json_loadb(buf_str(&text), text.len, JSON_REJECT_DUPLICATES, &why);
    if (!json)
        return err_set(err, ERR_BAD_ARGUMENT, 0, "'%s' line %d: %s", path, why.line, why.text);
    struct pattern_spec spec = {0};
    bool ok = parse_spec(json, &spec, err);
    json_decref(json);
    if (!ok)
        return err_wrap(err, "'%s'", path);
    *ret = spec;
    return true;
}

bool pattern_spec_save(const struct pattern_spec *spec, const char *path, struct err *err)
{
    json_t *disks = json_array();
    for (size_t i = 0; i < spec->disk_count; i++) {
        const struct pattern_disk *d = &spec->disks[i];
        json_array_append_new(
            disks, json_pack("{s:s, s:I, s:i, s:i, s:i}", "id", d->id, "size_bytes",
                             (json_int_t)d->size_bytes, "fill_percent", (int)d->fill_percent,
                             "shared_percent", (int)d->shared_percent, "hot_mib", (int)d->hot_mib));
    }
    json_t *json = json_pack("{s:s, s:I, s:I, s:i, s:o}", "vm", spec->vm, "seed",
                             (json_int_t)spec->seed, "common_seed", (json_int_t)spec->common_seed,
                             "zeroes", (int)spec->zeroes, "disks", disks);
    char *text = json_dumps(json, JSON_INDENT(2));
    json_decref(json);
    SCOPED_FREE char *whole = xasprintf("%s\n", text);
    free(text);
    return file_write_atomic(AT_FDCWD, path, whole, strlen(whole), 0644, err);
}

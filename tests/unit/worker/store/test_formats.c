/* SPDX-License-Identifier: Apache-2.0 */
/* The encoders and decoders: known values, round trips, edges, refusals. (Hostile bytes in bulk are
 * the fuzz targets' work.) */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "support.h"
#include "worker/store/bytes.h"
#include "worker/store/digest.h"
#include "worker/store/fate.h"
#include "worker/store/index.h"
#include "worker/store/manifest.h"
#include "worker/store/record.h"

enum { BLOCK = STORE_BLOCK_BYTES };

/* ---- digests: values from other implementations */

static void check_hex(const uint8_t *bytes, size_t len, const char *want)
{
    char hex[2 * 64 + 1];
    hex_encode(bytes, len, hex);
    assert_string_equal(hex, want);
}

static void test_digests(void **state)
{
    (void)state;
    assert_int_equal(crc32c("123456789", 9), 0xe3069283u);
    assert_int_equal(crc32c("", 0), 0);
    uint8_t out[DIGEST_BYTES], leaves[2 * DIGEST_BYTES], block[BLOCK];
    digest_sha256("abc", 3, out);
    check_hex(out, DIGEST_BYTES,
              "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    struct hasher *h = hasher_new(NULL);
    for (size_t i = 0; i < sizeof block; i++)
        block[i] = (uint8_t)i;
    hasher_leaf(h, block, leaves);
    check_hex(leaves, DIGEST_BYTES,
              "64281ca7d9afddb825d64d10475cb6f15a733bcbe79216281c315490f749a88b");
    memset(block, 0xff, sizeof block);
    hasher_leaf(h, block, leaves + DIGEST_BYTES);
    hasher_chunk(h, leaves, 2, out);
    check_hex(out, DIGEST_BYTES,
              "9aa621c89e1d3cc45245ad216d4cb9d95f023ede14f482034d53e1f8956c42e4");
    hasher_free(h);
    hasher_free(NULL);
}

static void test_zero_blocks(void **state)
{
    (void)state;
    uint8_t block[BLOCK] = {0};
    assert_true(block_is_zero(block, BLOCK));
    for (size_t i = 0; i < BLOCK; i++) {
        block[i] = 1;
        assert_false(block_is_zero(block, BLOCK));
        block[i] = 0;
    }
}

static void test_bytes(void **state)
{
    (void)state;
    uint8_t b[9] = {0};
    put_u64(b + 1, UINT64_C(0x0807060504030201));
    for (uint8_t i = 0; i < 8; i++)
        assert_int_equal(b[1 + i], i + 1);
    assert_int_equal(get_u64(b + 1), UINT64_C(0x0807060504030201));
    assert_int_equal(get_u32(b + 1), 0x04030201);
    assert_int_equal(get_u16(b + 1), 0x0201);
    uint8_t out[2];
    assert_true(hex_decode("0aff", out, 2));
    assert_int_equal(out[0], 0x0a);
    assert_int_equal(out[1], 0xff);
    assert_false(hex_decode("0aFF", out, 2)); /* one form only */
    assert_false(hex_decode("0af", out, 2));
    assert_false(hex_decode("0aff0", out, 2));
    assert_false(hex_decode("0ag0", out, 2));
}

/* ---- packs */

static void test_pack_header(void **state)
{
    (void)state;
    struct pack_header h = {.session = "task-1.7"}, got;
    struct err err = ERR_INIT;
    memset(h.id, 1, sizeof h.id);
    memset(h.repository, 2, sizeof h.repository);
    uint8_t bytes[PACK_HEADER_BYTES];
    pack_header_encode(&h, bytes);
    MUST(pack_header_decode(bytes, &got, &err), &err);
    assert_string_equal(got.session, "task-1.7");
    assert_memory_equal(got.id, h.id, sizeof h.id);
    put_u32(bytes + 12, 2); /* a flag of the future */
    put_u32(bytes + 252, crc32c(bytes, 252));
    MUST_FAIL(pack_header_decode(bytes, &got, &err), &err, ERR_STORE_VERSION);
    put_u32(bytes + 12, 0);
    put_u32(bytes + 8, 2);
    put_u32(bytes + 252, crc32c(bytes, 252));
    MUST_FAIL(pack_header_decode(bytes, &got, &err), &err, ERR_STORE_VERSION);
    pack_header_encode(&h, bytes);
    bytes[100] ^= 1;
    MUST_FAIL(pack_header_decode(bytes, &got, &err), &err, ERR_STORE_CORRUPT);
    memset(h.session, 'x', STORE_SESSION_ID_MAX); /* the longest */
    pack_header_encode(&h, bytes);
    MUST(pack_header_decode(bytes, &got, &err), &err);
    bytes[48 + STORE_SESSION_ID_MAX] = 'x'; /* longer */
    put_u32(bytes + 252, crc32c(bytes, 252));
    MUST_FAIL(pack_header_decode(bytes, &got, &err), &err, ERR_STORE_CORRUPT);
    memset(bytes + 48, 0, 128); /* none */
    put_u32(bytes + 252, crc32c(bytes, 252));
    MUST_FAIL(pack_header_decode(bytes, &got, &err), &err, ERR_STORE_CORRUPT);
}

static void test_frame_header(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    const struct frame_header good = {
        .codec = FRAME_ZSTD, .stored_len = 100, .raw_len = 8192, .chunks = 1, .stored_crc = 77};
    struct frame_header got;
    uint8_t bytes[FRAME_HEADER_BYTES];
    frame_header_encode(&good, bytes);
    MUST(frame_header_decode(bytes, &got, &err), &err);
    assert_int_equal(got.stored_crc, 77);
    const struct {
        enum frame_codec codec;
        uint32_t stored_len, raw_len;
        bool is_sealed;
    } bad[] = {{FRAME_ZSTD, 0, 8192, false},         {FRAME_ZSTD, 8193, 8192, false},
               {FRAME_ZSTD, 10, 0, false},           {FRAME_ZSTD, 10, 8191, false},
               {FRAME_RAW, 4096, 8192, false},       {FRAME_ZSTD, 10, FRAME_RAW_MAX + BLOCK, false},
               {FRAME_ZSTD, UINT32_MAX, 8192, true}, {FRAME_ZSTD, 10, UINT32_MAX, false},
               {FRAME_ZSTD, 32, 8192, true},         {FRAME_ZSTD, 8192 + 33, 8192, true},
               {FRAME_RAW, 8192, 8192, true}};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        const struct frame_header h = {.codec = bad[i].codec,
                                       .stored_len = bad[i].stored_len,
                                       .raw_len = bad[i].raw_len,
                                       .chunks = 1,
                                       .is_sealed = bad[i].is_sealed};
        frame_header_encode(&h, bytes);
        MUST_FAIL(frame_header_decode(bytes, &got, &err), &err, ERR_STORE_CORRUPT);
    }
    const struct {
        size_t at;
        uint8_t value;
    } newer[] = {{4, 2}, {5, 2}, {6, 2}, {7, 1}};
    for (size_t i = 0; i < ARRAY_LEN(newer); i++) {
        frame_header_encode(&good, bytes);
        bytes[newer[i].at] = newer[i].value;
        put_u32(bytes + 60, crc32c(bytes, 60));
        MUST_FAIL(frame_header_decode(bytes, &got, &err), &err, ERR_STORE_VERSION);
    }
}

static void test_trailer(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct trailer t = {.file_len = 1000, .tail_offset = 500, .tail_len = 436}, got;
    uint8_t bytes[TRAILER_BYTES];
    trailer_encode(&t, TRAILER_PACK, bytes);
    assert_memory_equal(bytes + 60, "OXPE", 4);
    MUST(trailer_decode(bytes, TRAILER_PACK, 1000, 436, &got, &err), &err);
    MUST_FAIL(trailer_decode(bytes, TRAILER_MANIFEST, 1000, 436, &got, &err), &err,
              ERR_STORE_CORRUPT);
    MUST_FAIL(trailer_decode(bytes, TRAILER_PACK, 1001, 436, &got, &err), &err, ERR_STORE_CORRUPT);
    MUST_FAIL(trailer_decode(bytes, TRAILER_PACK, 1000, 435, &got, &err), &err, ERR_STORE_CORRUPT);
    const struct trailer bad[] = {{.file_len = 1000, .tail_offset = 501, .tail_len = 436},
                                  {.file_len = 1000, .tail_offset = UINT64_MAX, .tail_len = 436},
                                  {.file_len = 50, .tail_offset = 0, .tail_len = 0}};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        trailer_encode(&bad[i], TRAILER_PACK, bytes);
        MUST_FAIL(trailer_decode(bytes, TRAILER_PACK, bad[i].file_len, 500, &got, &err), &err,
                  ERR_STORE_CORRUPT);
    }
}

/* A footer of two frames with 3 and 1 chunks. */
static uint8_t *make_footer(size_t *ret_len)
{
    struct footer_builder b = {0};
    uint8_t id[DIGEST_BYTES] = {9}, leaves[CHUNK_BLOCKS_MAX * DIGEST_BYTES] = {8};
    footer_add_chunk(&b, id, 0, leaves, 1);
    footer_add_chunk(&b, id, 1, leaves, 64);
    footer_add_chunk(&b, id, 65, leaves, 2);
    footer_add_frame(&b, PACK_HEADER_BYTES, 5000, 67 * BLOCK, 3, NULL, NULL);
    footer_add_chunk(&b, id, 0, leaves, 4);
    footer_add_frame(&b, PACK_HEADER_BYTES + 64 + 5000, 4 * BLOCK, 4 * BLOCK, 1, NULL, NULL);
    *ret_len = footer_builder_bytes(&b);
    uint8_t *bytes = footer_encode(&b);
    footer_builder_done(&b);
    return bytes;
}

static void test_footer(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct footer f;
    size_t len;
    uint8_t *bytes = make_footer(&len);
    const uint64_t end = PACK_HEADER_BYTES + 64 + 5000 + 64 + 4 * BLOCK;
    MUST(footer_decode(bytes, len, end, NULL, &f, &err), &err);
    assert_int_equal(f.n_frames, 2);
    assert_int_equal(f.n_chunks, 4);
    assert_int_equal(f.n_leaves, 71);
    assert_int_equal(f.frames[1].first_leaf, 67);
    assert_int_equal(footer_chunk(&f, 2).first, 65);
    assert_int_equal(footer_chunk(&f, 3).frame, 1);
    assert_int_equal(footer_leaf(&f, &f.frames[1], 3) + LEAF_BYTES - f.bytes, len);
    footer_done(&f);
    /* One frame does not end before the footer begins. */
    bytes = make_footer(&len);
    MUST_FAIL(footer_decode(bytes, len, end - 1, NULL, &f, &err), &err, ERR_STORE_CORRUPT);
    /* Wrong sums and places: u32 at an offset of the footer set to a value. */
    const struct {
        size_t at;
        uint32_t value;
        enum err_code want;
    } bad[] = {
        {0, 0, ERR_STORE_CORRUPT},          {4, 0x00100002, ERR_STORE_VERSION},
        {4, 0x00200001, ERR_STORE_VERSION}, {8, 2, ERR_STORE_VERSION},
        {8, 1, ERR_STORE_CORRUPT},          {12, 0, ERR_STORE_CORRUPT},
        {12, 3, ERR_STORE_CORRUPT},         {16, UINT32_MAX, ERR_STORE_CORRUPT},
        {20, 70, ERR_STORE_CORRUPT},        {32, 0, ERR_STORE_CORRUPT},
        {40, 0, ERR_STORE_CORRUPT},         {44, 4096, ERR_STORE_CORRUPT},
        {44, 4097, ERR_STORE_CORRUPT},      {48, 1, ERR_STORE_CORRUPT},
        {52, 0, ERR_STORE_CORRUPT},         {52, 4, ERR_STORE_CORRUPT},
        {80 + 32, 1, ERR_STORE_CORRUPT},    {80 + 32, 0x05000000, ERR_STORE_CORRUPT},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        bytes = make_footer(&len);
        put_u32(bytes + bad[i].at, bad[i].value);
        MUST_FAIL(footer_decode(bytes, len, end, NULL, &f, &err), &err, bad[i].want);
    }
    bytes = make_footer(&len);
    MUST_FAIL(footer_decode(bytes, len - 1, end, NULL, &f, &err), &err, ERR_STORE_CORRUPT);
    MUST_FAIL(footer_decode(xmalloc(1), 0, end, NULL, &f, &err), &err, ERR_STORE_CORRUPT);
}

/* ---- manifests */

static struct map_record record(uint64_t block, uint32_t pack, uint16_t frame, uint8_t first,
                                unsigned n)
{
    return (struct map_record){.block = block, .where = {pack, frame, first, (uint8_t)(n - 1)}};
}

static void test_records_join(void **state)
{
    (void)state;
    struct map_record a = record(10, 1, 2, 3, 5), b = record(15, 1, 2, 8, 1);
    assert_true(map_records_join(&a, &b));
    b = record(16, 1, 2, 8, 1);
    assert_false(map_records_join(&a, &b));
    b = record(15, 1, 3, 8, 1);
    assert_false(map_records_join(&a, &b));
    b = record(15, 2, 2, 8, 1);
    assert_false(map_records_join(&a, &b));
    b = record(15, 1, 2, 9, 1);
    assert_false(map_records_join(&a, &b));
    a = record(0, 1, 2, 0, 255);
    b = record(255, 1, 2, 255, 1);
    assert_true(map_records_join(&a, &b));
    a = record(0, 1, 2, 0, 256);
    b = record(256, 1, 2, 0, 1);
    assert_false(map_records_join(&a, &b));
}

static void test_pages(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct map_record records[] = {
        record(5, 0, 0, 0, 1), record(6, 1, 65535, 0, 256), record(262, 0, 7, 255, 1),
        record(263 + (uint64_t)UINT32_MAX, 1, 1, 1, 2), record(UINT64_C(1) << 37, 0, 0, 0, 1)};
    uint8_t *out = xmalloc(PAGE_STORED_MAX);
    struct manifest map = {.size_bytes = STORE_DISK_BYTES_MAX, .n_packs = 2};
    struct page_entry entry = {0};
    assert_int_equal(page_split(records, 5), 4); /* the last gap does not fit */
    page_encode(&map, NULL, records, 4, out, &entry);
    assert_int_equal(entry.first_block, 5);
    assert_int_equal(entry.n_records, 4);
    struct map_record got[5];
    MUST(page_decode(&map, NULL, out, &entry, got, &err), &err);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(got[i].block, records[i].block);
        assert_memory_equal(&got[i].where, &records[i].where, sizeof got[i].where);
    }
    map.n_packs = 1;
    MUST_FAIL(page_decode(&map, NULL, out, &entry, got, &err), &err, ERR_STORE_CORRUPT);
    map.n_packs = 2;
    map.size_bytes = (264 + (uint64_t)UINT32_MAX) * BLOCK;
    MUST_FAIL(page_decode(&map, NULL, out, &entry, got, &err), &err, ERR_STORE_CORRUPT);
    map.size_bytes = STORE_DISK_BYTES_MAX;
    out[0] ^= 1;
    MUST_FAIL(page_decode(&map, NULL, out, &entry, got, &err), &err, ERR_STORE_CORRUPT);
    free(out);
}

static void test_full_page(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    enum { N = PAGE_RECORDS_MAX + 10 };
    struct map_record *records = xcalloc(N, sizeof *records), *got = xcalloc(N, sizeof *got);
    uint64_t seed = 1, block = 0;
    for (size_t i = 0; i < N; i++) { /* nothing to compress */
        block += (uint32_t)random_next(&seed);
        records[i] = record(block, (uint32_t)random_next(&seed), (uint16_t)random_next(&seed), 0,
                            (unsigned)(random_next(&seed) % 256) + 1);
        block = map_record_end(&records[i]);
    }
    uint8_t *out = xmalloc(PAGE_STORED_MAX);
    struct manifest map = {.size_bytes = UINT64_MAX - BLOCK, .n_packs = UINT32_MAX};
    struct page_entry entry = {0};
    assert_int_equal(page_split(records, N), PAGE_RECORDS_MAX);
    page_encode(&map, NULL, records, PAGE_RECORDS_MAX, out, &entry);
    MUST(page_decode(&map, NULL, out, &entry, got, &err), &err);
    for (size_t i = 0; i < PAGE_RECORDS_MAX; i++) {
        assert_int_equal(got[i].block, records[i].block);
        assert_int_equal(got[i].where.pack, records[i].where.pack);
    }
    free(out);
    free(records);
    free(got);
}

static void test_manifest_tail(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    struct pack_ref packs[2] = {{.id = {1}}, {.id = {2}}};
    struct page_entry pages[2] = {
        {.first_block = 0, .offset = 64, .stored_len = 10, .n_records = 3, .codec = FRAME_ZSTD},
        {.first_block = 9, .offset = 74, .stored_len = 12, .n_records = 1, .codec = FRAME_RAW}};
    struct manifest m = {.size_bytes = 40961,
                         .data_blocks = 5,
                         .n_records = 4,
                         .n_packs = 2,
                         .n_pages = 2,
                         .packs = packs,
                         .pages = pages};
    (void)snprintf(m.disk_id, sizeof m.disk_id, "disk-1");
    (void)snprintf(m.session, sizeof m.session, "s.1");
    size_t len;
    uint8_t *bytes = manifest_tail_encode(&m, &len);
    struct manifest got;
    MUST(manifest_tail_decode(bytes, len, 86, false, &got, &err), &err);
    assert_int_equal(got.size_bytes, 40961);
    assert_string_equal(got.disk_id, "disk-1");
    assert_int_equal(got.pages[1].first_block, 9);
    assert_int_equal(got.packs[1].id[0], 2);
    manifest_done(&got);
    MUST_FAIL(manifest_tail_decode(bytes, len, 85, false, &got, &err), &err, ERR_STORE_CORRUPT);
    MUST_FAIL(manifest_tail_decode(bytes, len - 1, 86, false, &got, &err), &err, ERR_STORE_CORRUPT);
    const size_t pages_at = 304 + 2 * 48;
    const struct {
        size_t at;
        uint32_t value;
        enum err_code want;
    } bad[] = {
        {0, 0, ERR_STORE_CORRUPT},
        {4, 2, ERR_STORE_VERSION},
        {8, 2, ERR_STORE_VERSION},
        {8, 1, ERR_STORE_CORRUPT},
        {12, 8192, ERR_STORE_VERSION},
        {20, UINT32_MAX, ERR_STORE_CORRUPT}, /* size */
        {24, 12, ERR_STORE_CORRUPT},         /* more data than blocks */
        {32, 5, ERR_STORE_CORRUPT},          /* records */
        {40, 3, ERR_STORE_CORRUPT},          /* packs */
        {64, 0x2e2e2e2e, ERR_STORE_CORRUPT}, /* the disk is called "...." */
        {184, 0, ERR_STORE_CORRUPT},         /* the session is called "" */
        {(uint32_t)pages_at, 11, ERR_STORE_CORRUPT},
        {(uint32_t)pages_at + 8, 63, ERR_STORE_CORRUPT},
        {(uint32_t)pages_at + 16, 37, ERR_STORE_CORRUPT},
        {(uint32_t)pages_at + 20, PAGE_RECORDS_MAX + 1, ERR_STORE_CORRUPT},
        {(uint32_t)pages_at + 24, 2, ERR_STORE_VERSION},
        {(uint32_t)pages_at + 64, 2, ERR_STORE_CORRUPT}, /* begins within the first page */
        {(uint32_t)pages_at + 64, 11, ERR_STORE_CORRUPT},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        uint8_t *copy = xmalloc(len);
        memcpy(copy, bytes, len);
        put_u32(copy + bad[i].at, bad[i].value);
        MUST_FAIL(manifest_tail_decode(copy, len, 86, false, &got, &err), &err, bad[i].want);
        free(copy);
    }
    free(bytes);
    uint8_t header[MANIFEST_HEADER_BYTES], repository[16] = {7}, read_back[16];
    manifest_header_encode(repository, header);
    MUST(manifest_header_decode(header, read_back, &err), &err);
    assert_memory_equal(repository, read_back, 16);
    put_u32(header + 8, 9);
    put_u32(header + 60, crc32c(header, 60));
    MUST_FAIL(manifest_header_decode(header, read_back, &err), &err, ERR_STORE_VERSION);
}

/* ---- index */

static void test_index(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    uint8_t repository[16] = {1}, other[16] = {2};
    struct pack_ref packs[2] = {{.id = {3}}, {.digest = {4}}};
    struct index_hook hooks[3] = {{1, 0}, {UINT64_MAX, 1}, {7, 1}};
    struct index ix = {.n_packs = 2, .n_hooks = 3, .packs = packs, .hooks = hooks}, got;
    size_t len;
    uint8_t *bytes = index_encode(&ix, repository, &len);
    MUST(index_decode(bytes, len, repository, &got, &err), &err);
    assert_int_equal(got.n_hooks, 3);
    assert_int_equal(got.hooks[1].prefix, UINT64_MAX);
    assert_int_equal(got.packs[1].digest[0], 4);
    index_done(&got);
    MUST_FAIL(index_decode(bytes, len, other, &got, &err), &err, ERR_STORE_CORRUPT);
    MUST_FAIL(index_decode(bytes, len - 1, repository, &got, &err), &err, ERR_STORE_CORRUPT);
    bytes[8] = 2;
    digest_sha256(bytes, len - 32, bytes + len - 32);
    MUST_FAIL(index_decode(bytes, len, repository, &got, &err), &err, ERR_STORE_VERSION);
    free(bytes);
}

static void test_hook_samples(void **state)
{
    (void)state;
    struct hook_set set = {0};
    uint8_t id[DIGEST_BYTES] = {0};
    uint64_t seed = 1;
    for (uint32_t n = 1; n <= 500; n++) {
        put_u64(id, random_next(&seed));
        hook_set_add(&set, id, n);
        assert_int_equal(set.count, n); /* all of a few */
    }
    for (uint32_t n = 0; n < 200000; n++) {
        put_u64(id, random_next(&seed));
        hook_set_add(&set, id, n);
    }
    assert_int_equal(set.sample, 64);
    assert_in_range(set.count, 200500 / 64 * 8 / 10, 200500 / 64 * 12 / 10);
    for (uint32_t i = 0; i < set.count; i++)
        assert_int_equal(set.items[i].prefix % 64, 0);
    hook_set_done(&set);
}

/* ---- fates */

static void test_fate_text(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    uint8_t digest[DIGEST_BYTES] = {0xab};
    struct fate commit = fate_new(FATE_COMMIT, digest), revoke = fate_new(FATE_REVOKE, NULL), got;
    assert_string_not_equal(commit.token, revoke.token);
    char text[FATE_TEXT_MAX];
    size_t len = fate_encode(&commit, text);
    MUST(fate_decode(text, len, &got, &err), &err);
    assert_true(fate_is(&got, &commit));
    assert_false(fate_is(&got, &revoke));
    assert_int_equal(got.point_digest[0], 0xab);
    len = fate_encode(&revoke, text);
    MUST(fate_decode(text, len, &got, &err), &err);
    assert_true(fate_is(&got, &revoke));
    const struct fate bequest = fate_new(FATE_BEQUEATH, NULL);
    len = fate_encode(&bequest, text);
    MUST(fate_decode(text, len, &got, &err), &err);
    assert_true(fate_is(&got, &bequest) && fate_is_death(&got) && fate_is_death(&revoke));
    assert_false(fate_is_death(&commit));
    MUST_FAIL(fate_decode(text, len - 1, &got, &err), &err, ERR_STORE_CORRUPT);
    MUST_FAIL(fate_decode("", 0, &got, &err), &err, ERR_STORE_CORRUPT);
    static const char *const bad[] = {
        "oxbow-fate 1 revoke - 00112233445566778899aabbccddeeff x ",
        "oxbow-fate 1 revoke - 00112233445566778899aabbccddeef ",
        "oxbow-fate 1 revoke - 00112233445566778899aabbccddeegg ",
        "oxbow-fate 1 revoke  00112233445566778899aabbccddeeff ",
        "oxbow-fate 1 revoke x 00112233445566778899aabbccddeeff ",
        "oxbow-fate 1 bequeath x 00112233445566778899aabbccddeeff ",
        "oxbow-fate 1 commit - 00112233445566778899aabbccddeeff ",
        "oxbow-fate 1 maybe - 00112233445566778899aabbccddeeff ",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        int n = snprintf(text, sizeof text, "%s%08" PRIx32 "\n", bad[i],
                         crc32c(bad[i], strlen(bad[i])));
        MUST_FAIL(fate_decode(text, (size_t)n, &got, &err), &err, ERR_STORE_CORRUPT);
    }
    const char *newer = "oxbow-fate 2 anything at all that comes to mind ";
    int n = snprintf(text, sizeof text, "%s%08" PRIx32 "\n", newer, crc32c(newer, strlen(newer)));
    MUST_FAIL(fate_decode(text, (size_t)n, &got, &err), &err, ERR_STORE_VERSION);
}

/* ---- point.json */

static char *make_point(size_t *ret_len)
{
    struct err err = ERR_INIT;
    static char id[] = "s.1", vm[] = "vm", name[] = "web \xc3\xa9", worker[] = "";
    struct record_disk disks[2] = {{.disk = {.id = "d1", .size_bytes = 10}},
                                   {.disk = {.id = "d2", .size_bytes = STORE_DISK_BYTES_MAX}}};
    struct record_blob blob = {.name = id, .size_bytes = 5};
    struct point_record r = {
        .info = {.id = id, .vm_id = vm, .vm_name = name, .worker = worker, .created_ms = 5},
        .repository = "0f1e2d3c-0000-4000-8000-000000000001",
        .n_disks = 2,
        .disks = disks,
        .n_blobs = 1,
        .blobs = &blob};
    char *text = point_record_encode(&r, NULL, NULL, ret_len, &err);
    MUST(text, &err);
    return text;
}

static void test_point_record(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    size_t len;
    char *text = make_point(&len);
    struct point_record r;
    MUST(point_record_decode(text, len, NULL, &r, &err), &err);
    assert_int_equal(r.n_disks, 2);
    assert_string_equal(r.disks[1].disk.id, "d2");
    assert_string_equal(r.info.vm_name, "web \xc3\xa9");
    assert_int_equal(r.info.size_bytes, STORE_DISK_BYTES_MAX + 10);
    point_record_done(&r);
    const struct {
        const char *from, *to;
        enum err_code want;
    } bad[] = {
        {"\"format\": 1", "\"format\": 3", ERR_STORE_VERSION},
        {"\"format\": 1", "\"format\": \"1\"", ERR_STORE_CORRUPT},
        {"\"incompat\": []", "\"incompat\": [\"x\"]", ERR_STORE_VERSION},
        {"\"session\": \"s.1\"", "\"session\": \"../x\"", ERR_STORE_CORRUPT},
        {"\"session\": \"s.1\"", "\"session\": 1", ERR_STORE_CORRUPT},
        {"\"id\": \"d1\"", "\"id\": \"D 1\"", ERR_STORE_CORRUPT},
        {"\"size_bytes\": 10", "\"size_bytes\": -10", ERR_STORE_CORRUPT},
        {"\"size_bytes\": 10", "\"size_bytes\": 1.5", ERR_STORE_CORRUPT},
        {"\"size_bytes\": 10", "\"size_bytes\": 9000000000000000000", ERR_STORE_CORRUPT},
        {"\"size_bytes\": 5", "\"size_bytes\": 99999999", ERR_STORE_CORRUPT},
        {"\"manifest_sha256\": \"0", "\"manifest_sha256\": \"", ERR_STORE_CORRUPT},
        {"\"manifest_sha256\": \"0", "\"manifest_sha256\": \"z", ERR_STORE_CORRUPT},
        {"\"disks\": [", "\"blobs\": [", ERR_STORE_CORRUPT}, /* twice */
        {"\"disks\": [", "\"discs\": [", ERR_STORE_CORRUPT},
        {"\"chunks\": 0", "\"chunks\": null", ERR_STORE_CORRUPT},
        {"\"repository\": \"0f1e", "\"repository\": \"xxxx", ERR_STORE_CORRUPT},
        {"{", "[", ERR_STORE_CORRUPT},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        const char *at = strstr(text, bad[i].from);
        assert_non_null(at);
        SCOPED_FREE char *changed =
            xasprintf("%.*s%s%s", (int)(at - text), text, bad[i].to, at + strlen(bad[i].from));
        bool ok = point_record_decode(changed, strlen(changed), NULL, &r, &err);
        if (ok)
            fail_msg("case %zu: %s", i, bad[i].to);
        MUST_FAIL(ok, &err, bad[i].want);
    }
    /* An unknown member is ignored. */
    SCOPED_FREE char *more = xasprintf("{\"new\": {}, %s", text + 1);
    MUST(point_record_decode(more, strlen(more), NULL, &r, &err), &err);
    point_record_done(&r);
    free(text);
}

static void test_point_record_limit(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    static char word[] = "x";
    struct point_record r = {.info = {.id = word, .vm_id = word, .vm_name = word, .worker = word},
                             .repository = "0f1e2d3c-0000-4000-8000-000000000001"};
    char *big = xmalloc(STORE_POINT_JSON_MAX + 1);
    memset(big, 'x', STORE_POINT_JSON_MAX);
    big[STORE_POINT_JSON_MAX] = '\0';
    json_t *meta = json_pack("{s:s}", "warnings", big);
    size_t len;
    MUST_FAIL(point_record_encode(&r, meta, NULL, &len, &err), &err, ERR_TOO_LARGE);
    json_decref(meta);
    free(big);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_digests),       cmocka_unit_test(test_zero_blocks),
        cmocka_unit_test(test_bytes),         cmocka_unit_test(test_pack_header),
        cmocka_unit_test(test_frame_header),  cmocka_unit_test(test_trailer),
        cmocka_unit_test(test_footer),        cmocka_unit_test(test_records_join),
        cmocka_unit_test(test_pages),         cmocka_unit_test(test_full_page),
        cmocka_unit_test(test_manifest_tail), cmocka_unit_test(test_index),
        cmocka_unit_test(test_hook_samples),  cmocka_unit_test(test_fate_text),
        cmocka_unit_test(test_point_record),  cmocka_unit_test(test_point_record_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

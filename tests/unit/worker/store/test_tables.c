/* SPDX-License-Identifier: Apache-2.0 */
/* The tables in memory: the cache of loaded objects, and what is known for deduplication. */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "support.h"
#include "worker/store/bytes.h"
#include "worker/store/cache.h"
#include "worker/store/crew.h"
#include "worker/store/decoder.h"
#include "worker/store/dedup.h"

/* ---- cache */

static atomic_int loads, frees;

static void value_free(void *value)
{
    frees++;
    free(value);
}

static struct cache_key key_of(uint32_t n)
{
    struct cache_key key = {0};
    put_u32(key.bytes, n);
    return key;
}

/* Context: the number; 1000 and more fail. */
static void *load(void *context, size_t *ret_bytes, struct err *err)
{
    uint32_t n = *(uint32_t *)context;
    loads++;
    if (n >= 1000) {
        err_set(err, ERR_IO, 0, "no %u", n);
        return NULL;
    }
    uint32_t *value = xmalloc(sizeof n);
    *value = n;
    *ret_bytes = 100;
    return value;
}

static struct cache_item *pin(struct cache *c, uint32_t n, struct err *err)
{
    struct cache_key key = key_of(n);
    return cache_pin(c, &key, load, &n, err);
}

static void touch(struct cache *c, uint32_t n)
{
    struct err err = ERR_INIT;
    struct cache_item *item = pin(c, n, &err);
    MUST(item, &err);
    assert_int_equal(*(uint32_t *)cache_value(item), n);
    cache_unpin(c, item);
}

static void test_cache_evicts_the_oldest(void **state)
{
    (void)state;
    loads = frees = 0;
    struct cache *c = cache_new(300, value_free);
    touch(c, 1);
    touch(c, 2);
    touch(c, 3);
    touch(c, 1); /* now 2 is the oldest */
    assert_int_equal(loads, 3);
    touch(c, 4);
    assert_int_equal(frees, 1);
    touch(c, 1);
    touch(c, 3);
    assert_int_equal(loads, 4);
    touch(c, 2);
    assert_int_equal(loads, 5);
    cache_free(c);
    assert_int_equal(frees, 5);
    cache_free(NULL);
}

static void test_cache_keeps_what_is_pinned(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    loads = frees = 0;
    struct cache *c = cache_new(150, value_free);
    struct cache_item *one = pin(c, 1, &err), *again = pin(c, 1, &err);
    assert_ptr_equal(one, again);
    for (uint32_t n = 2; n < 50; n++)
        touch(c, n);
    assert_int_equal(*(uint32_t *)cache_value(one), 1);
    cache_unpin(c, one);
    touch(c, 60);
    assert_int_equal(*(uint32_t *)cache_value(again), 1); /* still pinned once */
    cache_unpin(c, again);
    cache_unpin(c, NULL);
    assert_int_equal(frees, loads - 1);
    cache_free(c);
}

static void test_cache_clear(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    loads = frees = 0;
    struct cache *c = cache_new(1000, value_free);
    touch(c, 1);
    struct cache_item *old = pin(c, 2, &err);
    cache_clear(c);
    assert_int_equal(frees, 1);
    touch(c, 1);
    touch(c, 2); /* loaded anew, beside the one in use */
    assert_int_equal(loads, 4);
    assert_int_equal(*(uint32_t *)cache_value(old), 2);
    cache_unpin(c, old);
    assert_int_equal(frees, 2);
    touch(c, 2);
    assert_int_equal(loads, 4);
    cache_clear(c);
    cache_clear(c);
    assert_int_equal(frees, 4);
    cache_free(c);
}

static void test_cache_forgets_failures(void **state)
{
    (void)state;
    struct err err = ERR_INIT;
    loads = 0;
    struct cache *c = cache_new(1000, value_free);
    MUST_FAIL(pin(c, 1000, &err), &err, ERR_IO);
    MUST_FAIL(pin(c, 1000, &err), &err, ERR_IO);
    assert_int_equal(loads, 2);
    cache_free(c);
}

static void *hammer(void *arg)
{
    struct cache *c = arg;
    uint64_t seed = (uint64_t)(uintptr_t)&seed;
    for (int i = 0; i < 20000; i++) {
        uint32_t n = (uint32_t)(random_next(&seed) % 20) * 60; /* 0..1140: some fail */
        struct err err = ERR_INIT;
        struct cache_item *item = pin(c, n, &err);
        if ((item != NULL) != (n < 1000) || (item && *(uint32_t *)cache_value(item) != n))
            return arg;
        cache_unpin(c, item);
    }
    return NULL;
}

static void test_cache_in_threads(void **state)
{
    (void)state;
    loads = frees = 0;
    struct cache *c = cache_new(500, value_free);
    pthread_t threads[4];
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, c), 0);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
        void *result;
        pthread_join(threads[i], &result);
        assert_null(result);
    }
    cache_free(c);
    assert_true(frees > 0);
}

/* ---- deduplication */

static void make_id(uint64_t n, uint8_t id[DIGEST_BYTES])
{
    uint8_t text[8];
    put_u64(text, n);
    digest_sha256(text, sizeof text, id);
}

static uint32_t add_pack(struct dedup *d, uint8_t n, uint32_t owner)
{
    uint8_t id[PACK_ID_BYTES] = {n, n, n, n, n};
    return dedup_pack_begin(d, id, owner);
}

static void test_dedup_visibility(void **state)
{
    (void)state;
    struct dedup *d = dedup_new(1 << 20, 1000);
    uint32_t mine = dedup_owner_new(d), other = dedup_owner_new(d);
    assert_int_not_equal(mine, other);
    uint32_t pack = add_pack(d, 1, mine);
    uint8_t id[DIGEST_BYTES];
    make_id(1, id);
    struct location where = {pack, 3, 4, 5}, got = {0};
    assert_false(dedup_claim(d, id, mine, &where, &got));
    assert_true(dedup_find(d, id, mine, &got));
    assert_memory_equal(&got, &where, sizeof got);
    assert_true(dedup_claim(d, id, mine, &where, &got)); /* the second one loses */
    assert_false(dedup_find(d, id, other, &got));        /* it is not committed */
    dedup_owner_commit(d, mine);
    assert_true(dedup_find(d, id, other, &got));
    dedup_pack_drop(d, pack);
    assert_false(dedup_find(d, id, mine, &got));

    uint32_t lost = add_pack(d, 2, other);
    make_id(2, id);
    where.pack = lost;
    assert_false(dedup_claim(d, id, other, &where, &got));
    dedup_owner_drop(d, other);
    assert_false(dedup_find(d, id, other, &got));
    dedup_free(d);
    dedup_free(NULL);
}

static void test_dedup_cache_is_bounded(void **state)
{
    (void)state;
    struct dedup *d = dedup_new(1 << 20, 1000); /* 32 Ki entries */
    uint32_t owner = dedup_owner_new(d), pack = add_pack(d, 1, owner), found = 0;
    const uint32_t many = 200000;
    for (uint32_t n = 0; n < many; n++) {
        uint8_t id[DIGEST_BYTES];
        struct location where = {pack, (uint16_t)n, 0, 0}, got;
        make_id(n, id);
        assert_false(dedup_claim(d, id, owner, &where, &got));
    }
    for (uint32_t n = 0; n < many; n++) {
        uint8_t id[DIGEST_BYTES];
        struct location got;
        make_id(n, id);
        if (dedup_find(d, id, owner, &got)) {
            assert_int_equal(got.frame, (uint16_t)n); /* never a wrong place */
            found++;
        }
    }
    assert_in_range(found, 20000, 32768);
    dedup_free(d);
}

static void test_dedup_hooks(void **state)
{
    (void)state;
    struct dedup *d = dedup_new(1 << 20, 5000);
    struct pack_ref ref = {.id = {1}, .digest = {2}}, wrong = {.id = {1}, .digest = {3}}, got;
    uint32_t pack = dedup_pack_committed(d, &ref);
    assert_int_equal(dedup_pack_committed(d, &ref), pack);
    assert_int_equal(dedup_pack_committed(d, &wrong), DEDUP_NO_PACK);
    dedup_pack_get(d, pack, &got);
    assert_memory_equal(&got, &ref, sizeof got);
    for (uint64_t n = 0; n < 20000; n++)
        dedup_hook_add(d, n * 32, pack);
    uint32_t found = 0;
    for (uint64_t n = 0; n < 20000; n++) {
        uint8_t id[DIGEST_BYTES] = {0};
        put_u64(id, n * 32);
        found += dedup_hook_find(d, id) == pack;
        put_u64(id, n * 32 + 1);
        assert_int_equal(dedup_hook_find(d, id), DEDUP_NO_PACK);
    }
    assert_int_equal(found, 5000); /* full: the rest was ignored */
    assert_true(dedup_wants_load(d, pack));
    assert_false(dedup_wants_load(d, pack));
    uint8_t first[DIGEST_BYTES] = {0};
    dedup_pack_drop(d, pack);
    assert_int_equal(dedup_hook_find(d, first), DEDUP_NO_PACK);
    dedup_free(d);
}

static void test_dedup_many_packs(void **state)
{
    (void)state;
    struct dedup *d = dedup_new(1 << 20, 1000);
    for (uint32_t n = 0; n < 5000; n++) {
        struct pack_ref ref = {0};
        put_u32(ref.id, n * 2654435761u);
        put_u32(ref.digest, n);
        assert_int_equal(dedup_pack_committed(d, &ref), n);
    }
    for (uint32_t n = 0; n < 5000; n++) {
        struct pack_ref got;
        dedup_pack_get(d, n, &got);
        assert_int_equal(get_u32(got.digest), n);
        assert_int_equal(dedup_pack_committed(d, &got), n);
    }
    dedup_free(d);
}

/* ---- extents */

static void test_extents(void **state)
{
    (void)state;
    struct extents list = EXTENTS_INIT;
    extents_add(&list, 10, 0, true);
    assert_int_equal(list.count, 0);
    extents_add(&list, 10, 5, true);
    extents_add(&list, 15, 5, true);
    extents_add(&list, 20, 1, false);
    assert_int_equal(list.count, 2);
    assert_int_equal(list.items[0].len, 10);
    for (uint64_t i = 0; i < 100; i++)
        extents_add(&list, 21 + i, 1, i % 2 == 0);
    assert_int_equal(list.count, 102);
    extents_reset(&list);
    assert_int_equal(list.count, 0);
    extents_done(&list);
    assert_null(list.items);
}

/* ---- a crew */

struct crew_work {
    atomic_uint next, calls, sum;
};

static void add_up(void *context)
{
    struct crew_work *w = context;
    unsigned n;
    atomic_fetch_add(&w->calls, 1);
    while ((n = atomic_fetch_add(&w->next, 1)) <= 1000)
        atomic_fetch_add(&w->sum, n);
}

static void test_crew(void **state)
{
    (void)state;
    const unsigned sizes[] = {0, 1, 2, 7, CREW_MAX, CREW_MAX + 1, UINT32_MAX};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct crew_work w = {0};
        crew_run(sizes[i], add_up, &w);
        assert_int_equal(atomic_load(&w.sum), 1000 * 1001 / 2);
        assert_in_range(atomic_load(&w.calls), 1, sizes[i] < 1 ? 1 : sizes[i]);
        assert_in_range(atomic_load(&w.calls), 1, CREW_MAX);
    }
    assert_int_equal(crew_size(3), 3);
    assert_int_equal(crew_size(1000), CREW_MAX);
    assert_in_range(crew_size(0), 1, 8);
}

/* ---- frames */

static void test_frames_are_used_again(void **state)
{
    (void)state;
    struct decoder_pool *pool = decoder_pool_new(NULL);
    struct frame *full = frame_new(pool, FRAME_BLOCKS_MAX);
    assert_int_equal((uintptr_t)full->data % STORE_BLOCK_BYTES, 0);
    memset(full->data, 0xaa, FRAME_RAW_MAX);
    frame_free(full);
    struct frame *most = frame_new(pool, FRAME_BLOCKS_MAX - 1); /* in the memory of a full one */
    assert_ptr_equal(most, full);
    assert_int_equal(most->blocks, FRAME_BLOCKS_MAX - 1);
    struct frame *other = frame_new(pool, FRAME_BLOCKS_MAX);
    assert_ptr_not_equal(other, most);
    struct frame *small = frame_new(pool, 1); /* takes what it needs, and is not kept */
    assert_int_equal(small->blocks_max, 1);
    memset(small->data, 0xbb, STORE_BLOCK_BYTES);
    frame_free(small);
    frame_free(most);
    frame_free(other);
    frame_free(NULL);
    struct frame *many[64]; /* more than are kept: the rest is freed, or a sanitizer tells */
    for (size_t i = 0; i < ARRAY_LEN(many); i++) {
        many[i] = frame_new(pool, FRAME_BLOCKS_MAX);
        many[i]->data[FRAME_RAW_MAX - 1] = (uint8_t)i;
    }
    for (size_t i = 0; i < ARRAY_LEN(many); i++) {
        assert_int_equal(many[i]->data[FRAME_RAW_MAX - 1], i);
        frame_free(many[i]);
    }
    decoder_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cache_evicts_the_oldest),
        cmocka_unit_test(test_cache_keeps_what_is_pinned),
        cmocka_unit_test(test_cache_clear),
        cmocka_unit_test(test_cache_forgets_failures),
        cmocka_unit_test(test_cache_in_threads),
        cmocka_unit_test(test_dedup_visibility),
        cmocka_unit_test(test_dedup_cache_is_bounded),
        cmocka_unit_test(test_dedup_hooks),
        cmocka_unit_test(test_dedup_many_packs),
        cmocka_unit_test(test_extents),
        cmocka_unit_test(test_crew),
        cmocka_unit_test(test_frames_are_used_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

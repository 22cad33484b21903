/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Largest disk first, to whoever has least. A disk that would make its worker the last by far is
 * cut: each worker in turn is filled up to the average. Where a share turns out too small to be
 * worth a worker, one worker fewer is tried.
 */
#include "worker/step/share.h"

#include <assert.h>
#include <string.h>

#include "proto/base/alloc.h"

/* A disk stays whole when its worker ends no later than this share of the average after it. */
enum { SLACK_DIVISOR = 8, BLOCK_BYTES = 4096 };

struct item {
    size_t disk;
    uint64_t cost_bytes;
};

struct table {
    const struct share_disk *disks;
    const struct share_opts *opts;
    uint64_t align_bytes;
    size_t workers;
    struct share_plan *plan;
};

/* ---- what a range costs */

static bool is_all_data(const struct share_disk *d)
{
    return !d->data || d->data->count == 0;
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The bytes of data in [begin, end). What the map does not cover is data. */
static uint64_t cost_of(const struct share_disk *d, uint64_t begin, uint64_t end)
{
    if (is_all_data(d))
        return end - begin;
    uint64_t sum = 0, covered = 0;
    for (size_t i = 0; i < d->data->count; i++) {
        const struct extent *x = &d->data->items[i];
        uint64_t from = later(x->offset, begin), to = sooner(x->offset + x->len, end);
        if (x->is_data && from < to)
            sum += to - from;
        covered = x->offset + x->len;
    }
    return sum + (covered < end ? end - later(covered, begin) : 0);
}

/* Where a piece that begins at `begin` and costs about `want` ends: a multiple of the alignment, at
 * least one behind `begin`, or the disk's end. */
static uint64_t end_of(const struct table *t, const struct share_disk *d, uint64_t begin,
                       uint64_t want)
{
    /* In units of the alignment, by bisection: the cost rises with the end. */
    uint64_t low = begin / t->align_bytes + 1;
    uint64_t high = d->size_bytes / t->align_bytes + (d->size_bytes % t->align_bytes ? 1 : 0);
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        uint64_t end = sooner(middle * t->align_bytes, d->size_bytes);
        if (cost_of(d, begin, end) < want)
            low = middle + 1;
        else
            high = middle;
    }
    return sooner(low * t->align_bytes, d->size_bytes);
}

/* ---- shares */

static bool has_room(const struct table *t, size_t worker)
{
    return worker == 0 || t->plan->v[worker].count < SHARE_PIECES_MAX;
}

/* Whoever has least and can take one more piece; the first one always can. */
static size_t least(const struct table *t)
{
    size_t best = 0;
    for (size_t i = 1; i < t->workers; i++) {
        if (has_room(t, i) && t->plan->v[i].cost_bytes < t->plan->v[best].cost_bytes)
            best = i;
    }
    return best;
}

static void give(struct table *t, size_t worker, size_t disk, uint64_t begin, uint64_t end)
{
    struct share *s = &t->plan->v[worker];
    uint64_t cost = cost_of(&t->disks[disk], begin, end);
    s->pieces = xreallocarray(s->pieces, s->count + 1, sizeof *s->pieces);
    s->pieces[s->count++] = (struct share_piece){
        .disk = disk, .offset = begin, .len_bytes = end - begin, .cost_bytes = cost};
    s->cost_bytes += cost;
}

static void give_disk(struct table *t, const struct item *item, uint64_t average)
{
    const struct share_disk *d = &t->disks[item->disk];
    uint64_t begin = 0;
    while (begin < d->size_bytes) {
        size_t worker = least(t);
        uint64_t has = t->plan->v[worker].cost_bytes, rest = cost_of(d, begin, d->size_bytes);
        uint64_t end = d->size_bytes;
        if (!d->is_whole && has < average && has + rest > average + average / SLACK_DIVISOR)
            end = end_of(t, d, begin, average - has);
        give(t, worker, item->disk, begin, end);
        begin = end;
    }
}

static int by_cost(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    if (x->cost_bytes != y->cost_bytes)
        return x->cost_bytes < y->cost_bytes ? 1 : -1;
    return x->disk < y->disk ? -1 : x->disk > y->disk;
}

static int by_place(const void *a, const void *b)
{
    const struct share_piece *x = a, *y = b;
    if (x->disk != y->disk)
        return x->disk < y->disk ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

void share_sort(struct share_piece *pieces, size_t count)
{
    if (count > 0)
        qsort(pieces, count, sizeof *pieces, by_place);
}

static void join_neighbours(struct share *s)
{
    if (s->count == 0)
        return;
    share_sort(s->pieces, s->count);
    size_t kept = 0;
    for (size_t i = 1; i < s->count; i++) {
        struct share_piece *last = &s->pieces[kept];
        const struct share_piece *next = &s->pieces[i];
        if (next->disk == last->disk && next->offset == last->offset + last->len_bytes) {
            last->len_bytes += next->len_bytes;
            last->cost_bytes += next->cost_bytes;
        } else {
            s->pieces[++kept] = *next;
        }
    }
    s->count = kept + 1;
}

/* ---- holes */

struct hole {
    size_t piece;
    uint64_t begin, end;
};

struct holes {
    struct hole *v;
    size_t count;
};

static uint64_t hole_len(const struct hole *h)
{
    return h->end - h->begin;
}

static int by_length(const void *a, const void *b)
{
    const struct hole *x = a, *y = b;
    return hole_len(x) < hole_len(y) ? 1 : hole_len(x) > hole_len(y) ? -1 : 0;
}

static int by_offset(const void *a, const void *b)
{
    const struct hole *x = a, *y = b;
    if (x->piece != y->piece)
        return x->piece < y->piece ? -1 : 1;
    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

/* The holes in this piece that are large enough, in whole blocks but at the disk's end. */
static void find_holes(const struct table *t, const struct share *s, size_t piece,
                       struct holes *ret)
{
    const struct share_piece *p = &s->pieces[piece];
    const struct share_disk *d = &t->disks[p->disk];
    for (size_t i = 0; !is_all_data(d) && i < d->data->count; i++) {
        const struct extent *x = &d->data->items[i];
        uint64_t begin = later(x->offset, p->offset);
        uint64_t end = sooner(x->offset + x->len, p->offset + p->len_bytes);
        begin += (BLOCK_BYTES - begin % BLOCK_BYTES) % BLOCK_BYTES;
        if (end != d->size_bytes)
            end -= end % BLOCK_BYTES;
        if (x->is_data || begin >= end || end - begin < t->opts->hole_bytes)
            continue;
        ret->v = xreallocarray(ret->v, ret->count + 1, sizeof *ret->v);
        ret->v[ret->count++] = (struct hole){.piece = piece, .begin = begin, .end = end};
    }
}

static void add_range(const struct table *t, struct share *s, size_t disk, uint64_t begin,
                      uint64_t end)
{
    if (begin >= end)
        return;
    s->pieces = xreallocarray(s->pieces, s->count + 1, sizeof *s->pieces);
    s->pieces[s->count++] =
        (struct share_piece){.disk = disk,
                             .offset = begin,
                             .len_bytes = end - begin,
                             .cost_bytes = cost_of(&t->disks[disk], begin, end)};
}

static void leave_out_holes(const struct table *t, struct share *s, size_t limit)
{
    struct holes holes = {0};
    for (size_t i = 0; i < s->count; i++)
        find_holes(t, s, i, &holes);
    if (holes.count == 0)
        return;
    qsort(holes.v, holes.count, sizeof *holes.v, by_length);
    size_t room = s->count < limit ? limit - s->count : 0; /* each may cut a piece in two */
    if (holes.count > room)
        holes.count = room;
    qsort(holes.v, holes.count, sizeof *holes.v, by_offset);
    struct share cut = {.cost_bytes = s->cost_bytes};
    size_t at = 0;
    for (size_t i = 0; i < s->count; i++) {
        const struct share_piece *p = &s->pieces[i];
        uint64_t begin = p->offset;
        for (; at < holes.count && holes.v[at].piece == i; at++) {
            add_range(t, &cut, p->disk, begin, holes.v[at].begin);
            begin = holes.v[at].end;
        }
        add_range(t, &cut, p->disk, begin, p->offset + p->len_bytes);
    }
    free(holes.v);
    free(s->pieces);
    *s = cut;
}

/* ---- the plan */

static int by_size(const void *a, const void *b)
{
    const struct share *x = a, *y = b;
    return x->cost_bytes < y->cost_bytes ? 1 : x->cost_bytes > y->cost_bytes ? -1 : 0;
}

/* The plan for exactly so many workers; false when one of the others has too little to do. */
static bool try_workers(struct table *t, const struct item *items, size_t count, uint64_t total)
{
    for (size_t i = 0; i < count; i++)
        give_disk(t, &items[i], total / t->workers);
    for (size_t i = 0; i < t->workers; i++)
        join_neighbours(&t->plan->v[i]);
    qsort(t->plan->v, t->workers, sizeof t->plan->v[0], by_size);
    t->plan->count = t->workers;
    return t->workers == 1 || t->plan->v[t->workers - 1].cost_bytes >= later(t->opts->min_bytes, 1);
}

void share_out(const struct share_disk *disks, size_t count, const struct share_opts *opts,
               struct share_plan *ret)
{
    assert(opts->align_bytes > 0);
    *ret = (struct share_plan){0};
    SCOPED_FREE struct item *items = xcalloc(count, sizeof *items);
    uint64_t total = 0;
    for (size_t i = 0; i < count; i++) {
        items[i] =
            (struct item){.disk = i, .cost_bytes = cost_of(&disks[i], 0, disks[i].size_bytes)};
        total += items[i].cost_bytes;
    }
    if (count > 0)
        qsort(items, count, sizeof *items, by_cost);
    size_t workers = opts->workers < SHARE_WORKERS_MAX ? opts->workers : SHARE_WORKERS_MAX;
    uint64_t worth = total / later(opts->min_bytes, 1);
    if (worth < workers)
        workers = (size_t)worth;
    struct table t = {.disks = disks,
                      .opts = opts,
                      .align_bytes = opts->align_bytes,
                      .workers = workers > 0 ? workers : 1,
                      .plan = ret};
    while (!try_workers(&t, items, count, total)) {
        share_plan_done(ret);
        t.workers--;
    }
    for (size_t i = 0; opts->hole_bytes > 0 && i < ret->count; i++)
        leave_out_holes(&t, &ret->v[i], i == 0 ? SHARE_OWN_MAX : SHARE_PIECES_MAX);
}

void share_plan_done(struct share_plan *plan)
{
    for (size_t i = 0; i < SHARE_WORKERS_MAX; i++)
        free(plan->v[i].pieces);
    *plan = (struct share_plan){0};
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/wire/topology.h"

#include <assert.h>
#include <string.h>

#include "proto/base/alloc.h"

/* How often a message may come back before it is dead-lettered. Said everywhere: RabbitMQ 3 has no
 * limit by default, RabbitMQ 4 has 20. */
enum {
    /* A worker gives an offer back, after a pause, when nobody answers its claim: this is hours. */
    OFFER_DELIVERY_LIMIT = 1000,
    /* Comes back only when the coordinator dies over it. */
    INBOX_DELIVERY_LIMIT = 50,
    /* People look at these and put them back; there is nowhere further to go. */
    DEAD_DELIVERY_LIMIT = 1000000,
};

static const char *const lane_names[LANE_COUNT] = {"restore", "backup", "upkeep"};

const char *lane_name(enum lane lane)
{
    assert(lane < LANE_COUNT);
    return lane_names[lane];
}

bool lane_parse(const char *word, enum lane *ret_lane)
{
    for (int i = 0; i < LANE_COUNT; i++) {
        if (strcmp(lane_names[i], word) == 0) {
            *ret_lane = (enum lane)i;
            return true;
        }
    }
    return false;
}

char *topology_task_queue(const char *zone, enum lane lane)
{
    return xasprintf(TOPOLOGY_TASKS ".%s.%s", zone, lane_name(lane));
}

char *topology_control_queue(const char *worker)
{
    return xasprintf(TOPOLOGY_CONTROL ".%s", worker);
}

char *topology_control_key(const char *worker)
{
    return xasprintf("worker.%s", worker);
}

const char *topology_event_key(enum wire_type type)
{
    switch (type) {
    case WIRE_CLAIM:
        return "task.claim";
    case WIRE_STEP:
        return "task.step";
    case WIRE_COPYING:
        return "task.copying";
    case WIRE_PARTS:
        return "task.parts";
    case WIRE_ITEMS:
        return "task.items";
    case WIRE_RESULT:
        return "task.result";
    case WIRE_PRESENCE:
        return "worker.presence";
    case WIRE_CHECKED:
        return "worker.checked";
    case WIRE_BACKUP:
    case WIRE_RESTORE:
    case WIRE_EXPORT:
    case WIRE_INVENTORY:
    case WIRE_LIST:
    case WIRE_STATUS:
    case WIRE_CANCEL:
    case WIRE_DOCTOR:
    case WIRE_SWEEP:
    case WIRE_PRUNE:
    case WIRE_VERIFY:
    case WIRE_PLAN:
    case WIRE_ACCEPTED:
    case WIRE_REFUSED:
    case WIRE_PROGRESS:
    case WIRE_OUTCOME:
    case WIRE_PAGE:
    case WIRE_FINISHED:
    case WIRE_OFFER:
    case WIRE_GRANT:
    case WIRE_DENY:
    case WIRE_STOP:
    case WIRE_PARTED:
    case WIRE_DRAIN:
    case WIRE_CHECKUP:
    case WIRE_TYPE_COUNT:
        break;
    }
    assert(0 && "not an event");
    return NULL;
}

/* A list under construction, always ended by MQ_END. */
struct list {
    struct mq_declare *v;
    size_t count;
};

static void add(struct list *list, struct mq_declare declare)
{
    list->v = xreallocarray(list->v, list->count + 2, sizeof *list->v);
    list->v[list->count++] = declare;
    list->v[list->count] = (struct mq_declare){.kind = MQ_END};
}

static void add_exchange(struct list *list, const char *name, const char *type)
{
    add(list,
        (struct mq_declare){.kind = MQ_EXCHANGE, .name = xstrdup(name), .type = xstrdup(type)});
}

static void add_bind(struct list *list, const char *queue, const char *exchange, const char *key)
{
    add(list, (struct mq_declare){.kind = MQ_BIND,
                                  .name = xstrdup(queue),
                                  .exchange = xstrdup(exchange),
                                  .key = xstrdup(key)});
}

/* A queue that the coordinator alone reads, in order. */
static void add_inbox(struct list *list, const char *name)
{
    add(list, (struct mq_declare){.kind = MQ_QUEUE,
                                  .name = xstrdup(name),
                                  .quorum = true,
                                  .single_active = true,
                                  .delivery_limit = INBOX_DELIVERY_LIMIT,
                                  .dead_letter_exchange = xstrdup(TOPOLOGY_DEAD)});
}

static void add_zone(struct list *list, const char *zone)
{
    for (int lane = 0; lane < LANE_COUNT; lane++) {
        char *queue = topology_task_queue(zone, (enum lane)lane);
        add(list, (struct mq_declare){.kind = MQ_QUEUE,
                                      .name = queue,
                                      .quorum = true,
                                      .delivery_limit = OFFER_DELIVERY_LIMIT,
                                      .dead_letter_exchange = xstrdup(TOPOLOGY_DEAD)});
        add_bind(list, queue, TOPOLOGY_TASKS, queue);
    }
}

struct mq_declare *topology_coordinator(const char *const *zones, size_t zone_count)
{
    struct list list = {0};
    add_exchange(&list, TOPOLOGY_DEAD, "fanout");
    add_exchange(&list, TOPOLOGY_REQUESTS, "direct");
    add_exchange(&list, TOPOLOGY_TASKS, "direct");
    add_exchange(&list, TOPOLOGY_EVENTS, "topic");
    add_exchange(&list, TOPOLOGY_CONTROL, "topic");
    add(&list, (struct mq_declare){.kind = MQ_QUEUE,
                                   .name = xstrdup(TOPOLOGY_DEAD),
                                   .quorum = true,
                                   .delivery_limit = DEAD_DELIVERY_LIMIT});
    add_bind(&list, TOPOLOGY_DEAD, TOPOLOGY_DEAD, "");
    add_inbox(&list, TOPOLOGY_REQUESTS);
    add_bind(&list, TOPOLOGY_REQUESTS, TOPOLOGY_REQUESTS, TOPOLOGY_REQUEST_KEY);
    add_inbox(&list, TOPOLOGY_LEDGER);
    add_bind(&list, TOPOLOGY_LEDGER, TOPOLOGY_EVENTS, "#");
    for (size_t i = 0; i < zone_count; i++)
        add_zone(&list, zones[i]);
    return list.v;
}

struct mq_declare *topology_worker(const char *worker)
{
    struct list list = {0};
    char *queue = topology_control_queue(worker);
    SCOPED_FREE char *key = topology_control_key(worker);
    add(&list, (struct mq_declare){.kind = MQ_QUEUE, .name = queue, .exclusive = true});
    add_bind(&list, queue, TOPOLOGY_CONTROL, key);
    add_bind(&list, queue, TOPOLOGY_CONTROL, "all");
    return list.v;
}

void topology_free(struct mq_declare *list)
{
    for (struct mq_declare *d = list; d && d->kind != MQ_END; d++) {
        free(d->name);
        free(d->type);
        free(d->exchange);
        free(d->key);
        free(d->dead_letter_exchange);
    }
    free(list);
}

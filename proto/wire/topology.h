/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exchanges, queues and routing keys of the contract, in one place. docs/protocol.md describes
 * them; deploy/rabbitmq/ holds the matching users and rights.
 *
 *   exchange          type     queue                        bound by
 *   oxbow.requests    direct   oxbow.requests               "request"             1, 2
 *   oxbow.tasks       direct   oxbow.tasks.<zone>.<lane>    the queue's name      1
 *   oxbow.events      topic    oxbow.ledger                 "#"                   1, 2
 *   oxbow.control     topic    oxbow.control.<worker>       "worker.<worker>", "all"
 *   oxbow.dead        fanout   oxbow.dead                   ""                    3
 *   (default)         -        reply queues of the requesters
 *
 * 1: quorum, with a delivery limit, dead letters to oxbow.dead. 2: single active consumer. 3:
 * quorum; what nobody can use. Control queues are exclusive to their worker.
 *
 * The coordinator declares all durable objects, idempotently, at each connect. A worker declares
 * only its own control queue; a client only its reply queue.
 */
#pragma once

#include "proto/wire/mq.h"

#define TOPOLOGY_REQUESTS    "oxbow.requests"
#define TOPOLOGY_TASKS       "oxbow.tasks"
#define TOPOLOGY_EVENTS      "oxbow.events"
#define TOPOLOGY_LEDGER      "oxbow.ledger"
#define TOPOLOGY_CONTROL     "oxbow.control"
#define TOPOLOGY_DEAD        "oxbow.dead"
#define TOPOLOGY_REQUEST_KEY "request"

enum lane { LANE_RESTORE, LANE_BACKUP, LANE_UPKEEP, LANE_COUNT };
/* "restore", "backup", "upkeep"; static. */
const char *lane_name(enum lane lane);
bool lane_parse(const char *word, enum lane *ret_lane);

/* "oxbow.tasks.<zone>.<lane>", the caller frees. `zone` is a slug (id_is_slug). */
char *topology_task_queue(const char *zone, enum lane lane);
/* "oxbow.control.<worker>" / "worker.<worker>" (routing key); the caller frees. */
char *topology_control_queue(const char *worker);
char *topology_control_key(const char *worker);
/* Routing key of an event: "task.<type name>", or "worker.presence" and "worker.checked". Static.
 */
const char *topology_event_key(enum wire_type type);

/* Declare lists for struct mq_opts.declare; the caller frees with topology_free(). */
struct mq_declare *topology_coordinator(const char *const *zones, size_t zone_count);
struct mq_declare *topology_worker(const char *worker);
void topology_free(struct mq_declare *list);

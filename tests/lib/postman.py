#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A bad postman between the parts of Oxbow, at a private broker.

  double   everything is delivered a second time, a little later: requests, offers, events, control
  shuffle  offers, events and control messages are delivered after a delay of their own each, up to
           --delay-s, hence in another order

It prints "ready", and on SIGTERM the number of messages it had in hand.

usage: postman.py double|shuffle --port PORT --user USER --password-file FILE --zone ZONE
                  --workers NAME,NAME... [--delay-s S] [--seed N]
"""
import argparse
import heapq
import random
import signal
import time

import pika

MARK = "x-postman"


def parse():
    p = argparse.ArgumentParser()
    p.add_argument("mode", choices=["double", "shuffle"])
    p.add_argument("--port", type=int, required=True)
    p.add_argument("--user", required=True)
    p.add_argument("--password-file", required=True)
    p.add_argument("--zone", required=True)
    p.add_argument("--workers", required=True)
    p.add_argument("--delay-s", type=float, default=1.0)
    p.add_argument("--seed", type=int, default=1)
    return p.parse_args()


class Postman:
    def __init__(self, args):
        self.args = args
        self.random = random.Random(args.seed)
        self.waiting = []  # (due, number, exchange, routing key, properties, body)
        self.count = 0
        self.running = True
        with open(args.password_file, encoding="utf-8") as f:
            password = f.readline().strip()
        self.connection = pika.BlockingConnection(pika.ConnectionParameters(
            "localhost", args.port, credentials=pika.PlainCredentials(args.user, password)))
        self.channel = self.connection.channel()

    def listen(self):
        """Bound beside, or instead of, the queues of the contract."""
        lanes = [f"oxbow.tasks.{self.args.zone}.{lane}" for lane in ("restore", "backup", "upkeep")]
        routes = [("oxbow.tasks", lane, lane) for lane in lanes]
        routes += [("oxbow.events", "#", "oxbow.ledger")]
        routes += [("oxbow.control", f"worker.{name}", f"oxbow.control.{name}")
                   for name in self.args.workers.split(",")]
        if self.args.mode == "double":
            routes += [("oxbow.requests", "request", "oxbow.requests")]
        for exchange, key, queue in routes:
            mine = f"oxbow.postman.{key.replace('#', 'all')}"
            self.channel.queue_declare(mine, auto_delete=True)
            self.channel.queue_bind(mine, exchange, key)
            self.channel.basic_consume(mine, self.taker(queue), auto_ack=True)
            # A control queue is its worker's own, and cannot be unbound here: it gets each message
            # at once, and late a second time.
            if self.args.mode == "shuffle" and exchange != "oxbow.control":
                self.channel.queue_unbind(queue, exchange, key)

    def taker(self, queue):
        def take(_channel, method, properties, body):
            if (properties.headers or {}).get(MARK):
                return
            self.count += 1
            due = time.monotonic() + self.random.uniform(0, self.args.delay_s)
            heapq.heappush(self.waiting, (due, self.count, queue, method, properties, body))
        return take

    def deliver(self):
        while self.waiting and self.waiting[0][0] <= time.monotonic():
            _, _, queue, _, properties, body = heapq.heappop(self.waiting)
            properties.headers = {**(properties.headers or {}), MARK: True}
            self.channel.basic_publish("", queue, body, properties)

    def run(self):
        self.listen()
        print("ready", flush=True)
        while self.running:
            self.connection.process_data_events(0.02)
            self.deliver()
        print(self.count, flush=True)
        self.connection.close()

    def stop(self, *_):
        self.running = False


postman = Postman(parse())
signal.signal(signal.SIGTERM, postman.stop)
postman.run()

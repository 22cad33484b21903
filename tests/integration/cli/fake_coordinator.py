#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A coordinator that follows a script, for the tests of the command line.

usage: fake_coordinator.py BROKER_ENV SCRIPT FOLDER

SCRIPT is JSON: for each kind of request a list of steps, or a list of such lists: the first request
of that kind plays the first, and so on, the last one for all that follow. A step is one of
    {"reply": NAME, ...members}     a reply to the request; "$request" stands for its id,
                                    "$asked" for the id that a status request asks for, "$task:x"
                                    for a made-up UUID that belongs to x
    {"raw": TEXT, "type": TYPE}     a reply with any body
    {"sleep": SECONDS}
    {"wait_file": NAME}             until FOLDER/NAME exists
    {"touch": NAME}
    {"forget": true}                the request was never seen: its double will be played
A message that comes a second time is ignored, unless SCRIPT has steps for "KIND.again": these are
played when it comes from another reply queue.

Each request is written to FOLDER/received.KIND.N (its AMQP properties and its body), each step
after it has been done appends a line to FOLDER/played. It reconnects for ever.
"""
import json
import os
import sys
import time
import uuid

import pika

KINDS = ("backup", "restore", "inventory", "list", "status", "cancel", "sweep")


def read_env(path):
    env = {}
    with open(path, encoding="utf-8") as f:
        for line in f:
            name, _, value = line.rstrip("\n").partition("=")
            env[name] = value
    return env


def fill(value, request, asked):
    if isinstance(value, str):
        if value == "$request":
            return request
        if value == "$asked":
            return asked
        if value.startswith("$task:"):
            return str(uuid.uuid5(uuid.NAMESPACE_URL, value))
        return value
    if isinstance(value, list):
        return [fill(v, request, asked) for v in value]
    if isinstance(value, dict):
        return {k: fill(v, request, asked) for k, v in value.items()}
    return value


class Coordinator:
    def __init__(self, env, script, folder):
        self.env, self.folder = env, folder
        self.script = {}
        for kind, plays in script.items():
            nested = plays and isinstance(plays[0], list)
            self.script[kind] = plays if nested else [plays]
        self.seen = {}
        self.ids = {}

    def path(self, name):
        return os.path.join(self.folder, name)

    def connect(self):
        with open(self.env["COORDINATOR_PASSWORD_FILE"], encoding="utf-8") as f:
            password = f.read().strip()
        self.connection = pika.BlockingConnection(pika.ConnectionParameters(
            host=self.env["HOST"], port=int(self.env["PORT"]), virtual_host=self.env["VHOST"],
            credentials=pika.PlainCredentials(self.env["COORDINATOR_USER"], password),
            socket_timeout=5, blocked_connection_timeout=30))
        self.channel = self.connection.channel()
        self.channel.exchange_declare("oxbow.requests", "direct", durable=True)
        self.channel.queue_declare("oxbow.requests", durable=True, arguments={
            "x-queue-type": "quorum", "x-single-active-consumer": True,
            "x-dead-letter-exchange": "oxbow.dead"})
        self.channel.queue_bind("oxbow.requests", "oxbow.requests", "request")
        self.channel.basic_consume("oxbow.requests", self.on_request)

    def on_request(self, channel, method, properties, body):
        kind = properties.type.split(".")[1]
        # Acked first: what the script does to the broker must not bring the request back.
        channel.basic_ack(method.delivery_tag)
        known = self.ids.get(properties.message_id)
        if known:
            if known != properties.reply_to:
                self.play_next(kind + ".again", properties, body)
            return
        self.ids[properties.message_id] = properties.reply_to
        self.play_next(kind, properties, body)

    def play_next(self, kind, properties, body):
        number = self.seen[kind] = self.seen.get(kind, 0) + 1
        record = {"type": properties.type, "message_id": properties.message_id,
                  "correlation_id": properties.correlation_id, "reply_to": properties.reply_to,
                  "content_type": properties.content_type,
                  "delivery_mode": properties.delivery_mode, "body": json.loads(body)}
        with open(self.path(f"received.{kind}.{number}"), "w", encoding="utf-8") as f:
            json.dump(record, f)
        plays = self.script.get(kind, [])
        if plays:
            for step in plays[min(number, len(plays)) - 1]:
                self.play(step, properties, record["body"].get("request"))

    def play(self, step, properties, asked):
        request = properties.correlation_id
        if "reply" in step:
            members = {k: v for k, v in step.items() if k != "reply"}
            members.setdefault("request", "$request")
            self.publish(properties, f"oxbow.{step['reply']}.v1",
                         json.dumps(fill(members, request, asked)))
        elif "raw" in step:
            self.publish(properties, step["type"], step["raw"])
        elif "sleep" in step:
            self.connection.sleep(step["sleep"])
        elif "forget" in step:
            self.ids.pop(properties.message_id)
        elif "touch" in step:
            with open(self.path(step["touch"]), "w", encoding="utf-8"):
                pass
        elif "wait_file" in step:
            while not os.path.exists(self.path(step["wait_file"])):
                self.connection.sleep(0.05)
        else:
            raise ValueError(f"what is {step}?")
        with open(self.path("played"), "a", encoding="utf-8") as f:
            f.write(json.dumps(step) + "\n")

    def publish(self, properties, message_type, body):
        self.channel.basic_publish("", properties.reply_to, body.encode(), pika.BasicProperties(
            type=message_type, content_type="application/json", message_id=str(uuid.uuid4()),
            correlation_id=properties.correlation_id, timestamp=int(time.time())))


def main():
    env_file, script_file, folder = sys.argv[1:]
    with open(script_file, encoding="utf-8") as f:
        coordinator = Coordinator(read_env(env_file), json.load(f), folder)
    while True:
        try:
            coordinator.connect()
            with open(coordinator.path("ready"), "w", encoding="utf-8"):
                pass
            coordinator.channel.start_consuming()
        except (pika.exceptions.AMQPError, OSError) as e:
            print(f"fake coordinator: {e!r}", file=sys.stderr, flush=True)
            time.sleep(0.3)


if __name__ == "__main__":
    main()

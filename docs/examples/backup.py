#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Ask Oxbow for a backup and wait for its end: a client that knows only docs/protocol.md.

usage: backup.py [--host HOST] [--port PORT] [--user USER] --password-file FILE [--key KEY] VM...

Needs python3-pika. Exit code: 0 all succeeded, 1 some or all failed, 4 refused.
"""
import argparse
import json
import sys
import uuid

import pika


def parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=5672)
    parser.add_argument("--vhost", default="/")
    parser.add_argument("--user", default="oxbow-client")
    parser.add_argument("--password-file", required=True)
    parser.add_argument("--key", help="idempotency key: the same key again is the same job")
    parser.add_argument("vm", nargs="+")
    return parser.parse_args()


def main():
    args = parse_arguments()
    with open(args.password_file, encoding="utf-8") as f:
        password = f.readline().rstrip("\n")
    connection = pika.BlockingConnection(pika.ConnectionParameters(
        host=args.host, port=args.port, virtual_host=args.vhost,
        credentials=pika.PlainCredentials(args.user, password)))
    channel = connection.channel()
    channel.confirm_delivery()  # basic_publish() returns when the broker has the message safe

    # Replies come to a queue of our own; the broker removes it with our connection.
    replies = channel.queue_declare(queue="", exclusive=True, auto_delete=True).method.queue

    request = {"select": {"names": args.vm}, "progress": True}
    if args.key:
        request["idempotency_key"] = args.key
    channel.basic_publish(
        exchange="oxbow.requests", routing_key="request",
        body=json.dumps(request).encode(),
        properties=pika.BasicProperties(
            type="oxbow.backup.v1", content_type="application/json", delivery_mode=2,
            message_id=str(uuid.uuid4()), correlation_id=str(uuid.uuid4()), reply_to=replies),
        mandatory=True)  # raises UnroutableError when no coordinator has ever been there

    for _, properties, body in channel.consume(replies, auto_ack=True):
        reply = json.loads(body)
        kind = properties.type
        if kind == "oxbow.accepted.v1":
            print("accepted as", reply["request"], flush=True)
        elif kind == "oxbow.refused.v1":
            print("refused:", reply["error"]["message"], flush=True)
            sys.exit(4)
        elif kind == "oxbow.progress.v1":
            total = reply.get("bytes_total", 0)
            percent = 100 * reply.get("bytes_done", 0) // total if total else 0
            print(reply.get("vm_name", reply["task"]), reply["state"], reply.get("step", ""),
                  f"{percent} %", flush=True)
        elif kind == "oxbow.outcome.v1":
            detail = reply.get("point") or reply.get("error", {}).get("message", "")
            print(reply.get("vm_name", reply["task"]), reply["status"], detail, flush=True)
        elif kind == "oxbow.finished.v1":
            print("finished:", reply["status"], flush=True)
            connection.close()
            sys.exit(0 if reply["status"] == "succeeded" else 1)
        # Anything else is from a later version: not for us.


main()

#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The coordinator's surroundings, written by the documents alone with somebody else's client
library: workers that pretend to work, and requesters. Used by the tests beside this file.

    env = read_env("broker.env")
    worker = Worker(env, "w1", "dc1", slots=2)      a thread; .stop() leaves, .vanish() just goes
    client = Client(env); request = client.ask("backup", {...}); client.wait(request)
"""
import collections
import json
import threading
import time
import uuid

import pika

LANES = ("restore", "backup", "upkeep")


def read_env(path):
    env = {}
    with open(path, encoding="utf-8") as f:
        for line in f:
            name, _, value = line.rstrip("\n").partition("=")
            env[name] = value
    return env


def connect(env, role):
    with open(env[f"{role}_PASSWORD_FILE"], encoding="utf-8") as f:
        password = f.read().strip()
    return pika.BlockingConnection(pika.ConnectionParameters(
        host=env["HOST"], port=int(env["PORT"]), virtual_host=env["VHOST"],
        credentials=pika.PlainCredentials(env[f"{role}_USER"], password),
        socket_timeout=5, blocked_connection_timeout=30, heartbeat=20))


def properties(kind, **more):
    return pika.BasicProperties(type=f"oxbow.{kind}.v1", content_type="application/json",
                                message_id=str(uuid.uuid4()), delivery_mode=2,
                                timestamp=int(time.time()), **more)


class Book:
    """What all workers together saw, for the tests to judge."""

    def __init__(self):
        self.lock = threading.Lock()
        self.starts = collections.Counter()   # (task, attempt) -> runs begun
        self.fences = {}                      # (task, attempt) -> fence
        self.vm_fences = collections.defaultdict(list)
        self.active = collections.Counter()   # vm -> runs that hold it now
        self.faults = []
        self.journals = {}                    # (task, attempt) -> the offer's journal

    def begin(self, offer, fence):
        key = (offer["task"], offer["attempt"])
        vm = offer.get("vm")
        with self.lock:
            self.starts[key] += 1
            if self.starts[key] > 1:
                self.faults.append(f"{key} was begun twice")
            self.fences[key] = fence
            self.journals[key] = offer.get("journal", [])
            if vm:
                if self.vm_fences[vm] and fence <= self.vm_fences[vm][-1]:
                    self.faults.append(f"fence of {vm} did not rise: {self.vm_fences[vm]} {fence}")
                self.vm_fences[vm].append(fence)
                self.active[vm] += 1
                if self.active[vm] > 1:
                    self.faults.append(f"two runs of {vm}")

    def end(self, offer):
        if offer.get("vm"):
            with self.lock:
                self.active[offer["vm"]] -= 1


class Run:
    def __init__(self, offer, fence):
        self.offer, self.fence = offer, fence
        self.seq = 0
        self.ticks = 0
        self.confirmed = True   # the lease is known to be ours
        self.stop = False


class Worker(threading.Thread):
    def __init__(self, env, name, zone, book, slots=2, vms=(), ticks=4, fail=None):
        super().__init__(daemon=True)
        self.env, self.zone, self.book = env, zone, book
        self.worker = name
        self.slots, self.vms, self.ticks = slots, vms, ticks
        self.fail = fail            # VM name -> error to report at the first attempt
        self.hold = False           # runs make no headway while set
        self.quit = self.gone = False
        self.runs = {}              # task -> Run
        self.held = {}              # task -> (offer, channel, tag, claimed at)
        self.start()

    # --- from outside
    def stop(self):
        self.quit = True
        self.join(30)

    def vanish(self):
        """Like kill -9: no word to anybody."""
        self.gone = True
        self.join(30)
        for run in self.runs.values():
            self.book.end(run.offer)

    # --- the thread
    def run(self):
        while not self.quit and not self.gone:
            try:
                self.session()
            except (pika.exceptions.AMQPError, OSError):
                self.held.clear()   # their deliveries went back to the queue
                for run in self.runs.values():
                    run.confirmed = False
                time.sleep(0.3)

    def session(self):
        connection = connect(self.env, "WORKER")
        try:
            self.open(connection)
            seen = 0
            while not self.gone:
                connection.process_data_events(0.05)
                if self.quit and not self.runs:
                    self.presence("leaving")
                    return
                if time.monotonic() - seen > 1:
                    seen = time.monotonic()
                    self.presence("draining" if self.quit else "up")
                for run in list(self.runs.values()):
                    self.advance(run)
        finally:
            if connection.is_open and not self.gone:
                connection.close()
            elif connection.is_open:
                connection._impl._transport.abort()  # the socket just goes

    def open(self, connection):
        self.out = connection.channel()
        self.out.confirm_delivery()
        control = connection.channel()
        queue = f"oxbow.control.{self.worker}"
        control.queue_declare(queue, exclusive=True)
        control.queue_bind(queue, "oxbow.control", f"worker.{self.worker}")
        control.queue_bind(queue, "oxbow.control", "all")
        control.basic_consume(queue, self.on_control, auto_ack=True)
        for run in self.runs.values():
            self.send("claim", run, fence=run.fence)
        for lane in LANES:
            channel = connection.channel()
            channel.basic_qos(prefetch_count=self.slots)
            channel.basic_consume(f"oxbow.tasks.{self.zone}.{lane}", self.on_offer)

    def publish(self, kind, key, body):
        self.out.basic_publish("oxbow.events", key, json.dumps(body), properties(kind),
                               mandatory=True)

    def presence(self, state):
        self.publish("presence", "worker.presence", {
            "worker": self.worker, "zone": self.zone, "version": "test", "state": state,
            "slots_restore": self.slots, "slots_backup": self.slots, "slots_upkeep": self.slots,
            "running": [{"task": t, "fence": r.fence} for t, r in self.runs.items()]})

    def send(self, kind, run, **more):
        body = {"task": run.offer["task"], "worker": self.worker,
                "attempt": run.offer["attempt"], "fence": run.fence}
        body.update(more)
        self.publish(kind, f"task.{kind}", body)

    def on_offer(self, channel, method, props, body):
        offer = json.loads(body)
        task = offer["task"]
        if task in self.runs and self.runs[task].offer["attempt"] == offer["attempt"]:
            channel.basic_ack(method.delivery_tag)
            return
        self.held[task] = (offer, channel, method.delivery_tag)
        self.publish("claim", "task.claim", {"task": task, "worker": self.worker,
                                             "attempt": offer["attempt"], "fence": 0})

    def on_control(self, channel, method, props, body):
        message = json.loads(body)
        kind, task = props.type.split(".")[1], message.get("task")
        run, held = self.runs.get(task), self.held.get(task)
        if kind == "grant" and run and run.fence == message["fence"]:
            run.confirmed = True
        elif kind == "grant" and held and held[0]["attempt"] == message["attempt"]:
            held[1].basic_ack(held[2])
            del self.held[task]
            self.book.begin(held[0], message["fence"])
            self.runs[task] = Run(held[0], message["fence"])
        elif kind == "deny" and run and run.offer["attempt"] == message["attempt"]:
            self.book.end(run.offer)
            del self.runs[task]
        elif kind == "deny" and held and held[0]["attempt"] == message["attempt"]:
            held[1].basic_ack(held[2])
            del self.held[task]
        elif kind == "stop" and run:
            run.stop = True

    def advance(self, run):
        if not run.confirmed:
            return
        offer = run.offer
        if run.stop:
            self.result(run, status="cancelled")
        elif offer["kind"] in ("inventory", "list"):
            self.listing(run)
        elif offer["kind"] == "cleanup":
            self.result(run, status="succeeded")
        elif run.seq == 0:
            self.step(run, "snapshot", "handle", {"snapshot": f"snap-{offer['task']}"})
        elif self.hold:
            if time.monotonic() - run.told > 0.5:
                run.told = time.monotonic()
                self.send("copying", run, step="copy", bytes_done=1, bytes_total=10, rate_bps=1)
        elif self.fail and offer["attempt"] == 1 and offer.get("vm_name") in self.fail:
            self.result(run, status="failed", error=self.fail[offer["vm_name"]])
        else:
            run.ticks += 1
            self.send("copying", run, step="copy", bytes_done=run.ticks, bytes_total=self.ticks,
                      rate_bps=1)
            if run.ticks >= self.ticks:
                self.result(run, status="succeeded", point=f"point-{offer['task']}")

    def step(self, run, step, state, handles):
        run.seq += 1
        run.told = time.monotonic()
        self.send("step", run, seq=run.seq, step=step, state=state, handles=handles)

    def listing(self, run):
        select = run.offer.get("select") or {}
        names = [v for v in self.vms
                 if select.get("all") or v in select.get("names", [])]
        pages = [names[i:i + 100] for i in range(0, len(names), 100)]
        for number, page in enumerate(pages, 1):
            self.send("items", run, page=number, items={"vms": [
                {"id": str(uuid.uuid5(uuid.NAMESPACE_DNS, v)), "name": v, "zone": self.zone}
                for v in page]})
        self.result(run, status="succeeded", pages=len(pages))

    def result(self, run, **more):
        # Forgotten before it is sent: after the coordinator has it, the VM is free.
        self.book.end(run.offer)
        try:
            self.send("result", run, **more)
        except BaseException:
            with self.book.lock:
                if run.offer.get("vm"):
                    self.book.active[run.offer["vm"]] += 1
            raise
        del self.runs[run.offer["task"]]


class Client:
    def __init__(self, env):
        self.env = env
        self.replies = collections.defaultdict(list)   # correlation id -> [(type, body)]
        self.seen = set()       # message ids: replies come at least once
        self.open()

    def open(self):
        self.connection = connect(self.env, "CLIENT")
        self.channel = self.connection.channel()
        self.channel.confirm_delivery()
        self.queue = self.channel.queue_declare(f"oxbow.reply.{uuid.uuid4()}", durable=True,
                                                arguments={"x-expires": 600000}).method.queue
        self.channel.basic_consume(self.queue, self.on_reply, auto_ack=True)

    def reopen(self):
        """After the broker went: the same queue again."""
        self.connection = connect(self.env, "CLIENT")
        self.channel = self.connection.channel()
        self.channel.confirm_delivery()
        self.channel.basic_consume(self.queue, self.on_reply, auto_ack=True)

    def on_reply(self, channel, method, props, body):
        if props.message_id in self.seen:
            return
        self.seen.add(props.message_id)
        self.replies[props.correlation_id].append((props.type.split(".")[1], json.loads(body)))

    def ask(self, kind, body, **more):
        request = str(uuid.uuid4())
        self.channel.basic_publish("oxbow.requests", "request", json.dumps(body),
                                   properties(kind, correlation_id=request, reply_to=self.queue,
                                              **more), mandatory=True)
        return request

    def raw(self, body, **props):
        self.channel.basic_publish("oxbow.requests", "request", body,
                                   pika.BasicProperties(**props), mandatory=True)

    def poll(self, seconds=0.05):
        self.connection.process_data_events(seconds)

    def kinds(self, request):
        return [kind for kind, _ in self.replies[request]]

    def of(self, request, kind):
        return [body for k, body in self.replies[request] if k == kind]

    def wait(self, request, kind="finished", seconds=60):
        end = time.monotonic() + seconds
        while kind not in self.kinds(request):
            if time.monotonic() > end:
                raise SystemExit(f"no '{kind}' within {seconds} s, only {self.kinds(request)}")
            self.poll()
        return self.of(request, kind)[0]

    def until(self, what, condition, seconds=60):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise SystemExit(f"not within {seconds} s: {what}")
            self.poll()

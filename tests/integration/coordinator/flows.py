#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The coordinator against a real broker: see `flows`, which starts both.

usage: flows.py BROKER_ENV COORDINATOR CONFIG LOG BROKER_PROGRAM BROKER_FOLDER
"""
import json
import os
import signal
import subprocess
import sys
import time

from world import Book, Client, Worker, connect, read_env

env = read_env(sys.argv[1])
program, config, log, broker, folder = sys.argv[2:]
VMS = [f"vm{i:03}" for i in range(300)]
started = time.monotonic()


def say(text):
    print(f"[{time.monotonic() - started:5.1f}s] {text}", flush=True)


def check(what, ok):
    if not ok:
        raise SystemExit(f"FAILED: {what}")
    say(f"ok: {what}")


class Coordinator:
    def __init__(self):
        self.start()

    def start(self):
        self.out = open(log, "ab")
        self.process = subprocess.Popen([program, "--config", config, "--log-level", "debug"],
                                        stderr=self.out, stdin=subprocess.DEVNULL)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


def judge(book, client, request, vms, attempts=1):
    """One outcome per VM, one end, and nobody ran twice."""
    finished = client.wait(request)
    outcomes = client.of(request, "outcome")
    check(f"{len(vms)} outcomes", sorted(o["vm_name"] for o in outcomes) == sorted(vms))
    check("one finished, and it is the last word",
          client.kinds(request).count("finished") == 1 and client.kinds(request)[-1] == "finished")
    check("no run was doubled", not book.faults)
    check("attempts as expected", max(o["attempts"] for o in outcomes) <= attempts)
    return finished


def basic(client, book):
    request = client.ask("backup", {"select": {"all": True}, "progress": True})
    finished = judge(book, client, request, VMS[:5])
    check("succeeded", finished["status"] == "succeeded")
    check("accepted came first", client.kinds(request)[0] == "accepted")
    check("progress was told", "progress" in client.kinds(request))
    status = client.ask("status", {})
    client.wait(status)
    items = [p["items"] for p in client.of(status, "page")]
    check("status knows the request", any(r["id"] == request and r["state"] == "succeeded"
                                          for i in items for r in i.get("requests", [])))
    check("status knows the workers", {w["name"] for i in items for w in i.get("workers", [])}
          == {"w1", "w2"})


def bad_messages(client):
    client.raw("{", type="oxbow.backup.v1", correlation_id="bad-1", reply_to=client.queue)
    client.raw("hello")
    client.raw("{}", type="oxbow.backup.v9", correlation_id="bad-2", reply_to=client.queue)
    client.raw("x" * 300000, type="oxbow.backup.v1", correlation_id="bad-3",
               reply_to=client.queue)
    for i, code in ((1, "bad-message"), (2, "unsupported-version"), (3, "too-large")):
        refused = client.wait(f"bad-{i}", "refused")
        check(f"bad message {i} is refused", refused["error"]["code"] == code)
    connection = connect(env, "COORDINATOR")
    channel = connection.channel()
    reasons = []
    end = time.monotonic() + 20
    while len(reasons) < 4 and time.monotonic() < end:
        method, props, _ = channel.basic_get("oxbow.dead", auto_ack=True)
        if method:
            reasons.append(props.headers["x-oxbow-reason"])
        else:
            time.sleep(0.1)
    connection.close()
    check("each is kept with its reason", len(reasons) == 4 and all(reasons))


def coordinator_killed(client, book, coordinator, workers):
    for w in workers:
        w.hold = True
    request = client.ask("backup", {"select": {"names": VMS[:8]}})
    client.until("four run", lambda: sum(len(w.runs) for w in workers) >= 4)
    coordinator.kill()
    say("coordinator killed")
    time.sleep(1)
    coordinator.start()
    time.sleep(1)
    for w in workers:
        w.hold = False
    finished = judge(book, client, request, VMS[:8])
    check("succeeded after the kill", finished["status"] == "succeeded")
    # Killed again and again while all is in motion.
    request = client.ask("backup", {"select": {"names": VMS[:60]}})
    for _ in range(6):
        time.sleep(0.7)
        client.poll()
        coordinator.kill()
        coordinator.start()
    finished = judge(book, client, request, VMS[:60], attempts=2)
    check("succeeded after six kills", finished["status"] == "succeeded")


def broker_restarted(client, book, workers):
    for w in workers:
        w.hold = True
    request = client.ask("backup", {"select": {"names": VMS[:4]}})
    client.until("four run", lambda: sum(len(w.runs) for w in workers) >= 4)
    subprocess.run([broker, "restart", folder], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    say("broker restarted")
    for w in workers:
        w.hold = False
    client.reopen()
    finished = judge(book, client, request, VMS[:4])
    check("succeeded over the broker's restart", finished["status"] == "succeeded")


def worker_lost(client, book, workers):
    for w in workers:
        w.hold = True
    request = client.ask("backup", {"select": {"names": VMS[:3]}})
    client.until("three run", lambda: sum(len(w.runs) for w in workers) >= 3)
    victim = max(workers, key=lambda w: len(w.runs))
    lost = set(victim.runs)
    victim.vanish()
    say(f"{victim.worker} vanished with {len(lost)} runs")
    for w in workers:
        w.hold = False
    finished = judge(book, client, request, VMS[:3], attempts=2)
    check("succeeded on another worker", finished["status"] == "succeeded")
    for task in lost:
        journal = book.journals[(task, 2)]
        check("the next attempt had the journal", any(
            e["attempt"] == 1 and e.get("handles", {}).get("snapshot") == f"snap-{task}"
            for e in journal))
    workers.remove(victim)


def cancelled(client, book, workers):
    for w in workers:
        w.hold = True
    request = client.ask("backup", {"select": {"names": VMS[:6]}})
    client.until("two run", lambda: sum(len(w.runs) for w in workers) >= 2)
    cancel = client.ask("cancel", {"request": request})
    check("cancel ends", client.wait(cancel)["tasks_total"] == 6)
    finished = judge(book, client, request, VMS[:6])
    check("cancelled", finished["status"] == "cancelled" and finished["tasks_cancelled"] == 6)
    for w in workers:
        w.hold = False


def retried(client, book, workers):
    for w in workers:
        w.fail = {VMS[0]: {"code": "io-error", "retry": "elsewhere", "message": "no such device"}}
    request = client.ask("backup", {"select": {"names": VMS[:2]}})
    finished = judge(book, client, request, VMS[:2], attempts=2)
    check("succeeded at the second attempt", finished["status"] == "succeeded")
    for w in workers:
        w.fail = None


def many(client, book, workers):
    for w in workers:
        w.vms = VMS
        w.slots, w.ticks = w.slots, 1
    begun = time.monotonic()
    request = client.ask("backup", {"select": {"all": True}})
    client.wait(request, seconds=120)
    judge(book, client, request, VMS)
    say(f"300 VMs in {time.monotonic() - begun:.1f} s")


def second_one():
    p = subprocess.run([program, "--config", config], stderr=subprocess.PIPE, timeout=20,
                       check=False)
    check("a second coordinator is refused", p.returncode == 4)
    check("and told why", b"another coordinator holds the ledger" in p.stderr)


def another_ledger(client, coordinator):
    """Two ledgers on one virtual host: the second coordinator waits, and takes over."""
    other = config + ".other"
    with open(config, encoding="utf-8") as a, open(other, "w", encoding="utf-8") as b:
        b.write(a.read().replace("ledger.db", "other.db"))
    second = subprocess.Popen([program, "--config", other], stderr=subprocess.PIPE)
    try:
        for _ in range(3):
            time.sleep(0.5)
            answer = client.ask("status", {})
            client.wait(answer)
            check("the first one answers", any(
                i.get("requests") for i in (p["items"] for p in client.of(answer, "page"))))
        coordinator.kill()
        answer = client.ask("status", {})
        client.wait(answer)
        check("the second one takes over", not any(
            i.get("requests") for i in (p["items"] for p in client.of(answer, "page"))))
    finally:
        second.terminate()
        text = second.communicate(timeout=20)[1]
    check("and had said once why it waits", text.count(b"event=standing_by") == 1)
    coordinator.start()
    client.wait(client.ask("status", {}))


def main():
    coordinator = Coordinator()
    try:
        book = Book()
        end = time.monotonic() + 30
        while True:     # until the coordinator has declared the queues
            try:
                client = Client(env)
                client.wait(client.ask("status", {}), seconds=10)
                break
            except Exception:  # pylint: disable=broad-except
                if time.monotonic() > end:
                    raise
                time.sleep(0.3)
        workers = [Worker(env, n, "dc1", book, slots=2, vms=VMS[:5]) for n in ("w1", "w2")]
        basic(client, book)
        for w in workers:
            w.vms = VMS[:60]
        second_one()
        bad_messages(client)
        coordinator_killed(client, book, coordinator, workers)
        broker_restarted(client, book, workers)
        cancelled(client, book, workers)
        retried(client, book, workers)
        worker_lost(client, book, workers)
        workers.append(Worker(env, "w3", "dc1", book, slots=4, vms=VMS))
        many(client, book, workers)
        another_ledger(client, coordinator)
        for w in workers:
            w.stop()
        check("no fault was seen", not book.faults)
        check("ends with 0 at SIGTERM", coordinator.stop() == 0)
    finally:
        if coordinator.process.poll() is None:
            coordinator.kill()


if __name__ == "__main__":
    os.environ.pop("NOTIFY_SOCKET", None)
    main()

# SPDX-License-Identifier: Apache-2.0
"""A whole Oxbow in one folder, for tests that break it at many places at once: private broker,
sandbox, repository, one coordinator, and workers in any number of zones. Every worker has its own
line to broker and engine (a relay, so that it can be cut alone), its own engine user (so that the
sandbox can hold its calls alone), and passes through named points (tests/lib/points).

    lab = Lab(directory, top, bin)
    lab.start(spec, {"c1": ["c1-a", "c1-b"]})
    lab.stop()

All processes end by their pid, whatever happens (stop() may be called at any time, and twice).
"""
import asyncio
import http.client
import importlib.machinery
import importlib.util
import json
import os
import re
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time

POLL_S = 0.05


def end_on_sigterm():
    """As if the test had failed: all that was started is stopped. The signal may come twice (timeout(1)
    sends it to its child and to the group): nothing comes between that and its end."""
    def end(*_):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(143)
    signal.signal(signal.SIGTERM, end)


def wait_for(what, limit_s, look):
    """Polls until look() is true; its value. TimeoutError names `what`."""
    end = time.monotonic() + limit_s
    while True:
        value = look()
        if value:
            return value
        if time.monotonic() >= end:
            raise TimeoutError(f"not within {limit_s} s: {what}")
        time.sleep(POLL_S)


# --- Lines that can be cut ---------------------------------------------------------------------------
class Relays:
    """tests/lib/relay, many in one thread. tell() takes its commands: refuse, cut, stall, heal."""

    def __init__(self, top, directory):
        path = os.path.join(top, "tests/lib/relay")
        loader = importlib.machinery.SourceFileLoader("relay", path)
        spec = importlib.util.spec_from_loader("relay", loader)
        self.module = importlib.util.module_from_spec(spec)
        loader.exec_module(self.module)
        self.directory = directory
        self.relays = {}
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="relays", daemon=True)
        self.thread.start()

    async def _open(self, name, port):
        directory = os.path.join(self.directory, name)
        os.makedirs(directory, exist_ok=True)
        relay = self.module.Relay(directory, "127.0.0.1", port)
        relay.bind(0)
        self.relays[name] = (relay, asyncio.create_task(relay.accept()))
        return relay.listener.getsockname()[1]

    def open(self, name, port):
        """The port that leads to `port` from now on."""
        return asyncio.run_coroutine_threadsafe(self._open(name, port), self.loop).result(10)

    async def _tell(self, name, words):
        return self.relays[name][0].obey(words)

    def tell(self, name, *words):
        answer = asyncio.run_coroutine_threadsafe(self._tell(name, list(words)), self.loop).result(10)
        assert answer == "ok", answer

    async def _close(self):
        for relay, task in self.relays.values():
            relay.cut()
            task.cancel()
        await asyncio.gather(*(task for _, task in self.relays.values()), return_exceptions=True)
        await asyncio.sleep(0.1)
        for relay, _ in self.relays.values():
            relay.listener.close()

    def stop(self):
        if self.loop.is_running():
            asyncio.run_coroutine_threadsafe(self._close(), self.loop).result(10)
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(10)


# --- The sandbox -------------------------------------------------------------------------------------
class Unix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("sandbox", timeout=60)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self.path)


class Sandbox:
    """The control API: the truth about the emulated cluster."""

    def __init__(self, directory):
        with open(os.path.join(directory, "sandbox.json"), encoding="utf-8") as f:
            self.info = json.load(f)
        self.held = {}  # names of rules that were seen to have fired

    def call(self, path, method="GET", body=None):
        connection = Unix(self.info["control"])
        try:
            connection.request(method, "/sandbox" + path, json.dumps(body) if body else None)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status >= 300 and answer.status != 404:
            raise RuntimeError(f"sandbox {method} {path}: {answer.status} {text[:300]}")
        return json.loads(text)

    def state(self):
        return self.call("/state")

    def calls(self):
        return self.call("/calls")["mutating"]

    def add_fault(self, **rule):
        self.call("/faults", "POST", rule)

    def remove_fault(self, name):
        self.call(f"/faults/{name}", "DELETE")

    def fired(self, name):
        for rule in self.call("/faults"):
            if rule.get("name") == name:
                return rule["fired"] > 0
        return False


# --- Programs ----------------------------------------------------------------------------------------
class Program:
    """One process under a name, started again and again; its log in NAME.log."""

    def __init__(self, directory, name, command, env=None):
        self.directory, self.name, self.command = directory, name, command
        self.env = env
        self.process = None
        self.log_from = 0  # where the log of the present process begins
        self.over = False  # never started again
        self.stopped = False
        self.starts = 0

    @property
    def log(self):
        return os.path.join(self.directory, self.name + ".log")

    def start(self):
        if self.over:
            raise RuntimeError(f"{self.name}: the test is over")
        with open(self.log, "ab") as log, open(self.log[:-4] + ".out", "ab") as out:
            self.log_from = log.tell()
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=out,
                                            stderr=log, env=self.env)
        self.stopped = False
        self.starts += 1

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def signal(self, number):
        if self.is_running():
            self.process.send_signal(number)

    def stand(self):
        """SIGSTOP, and wait until every thread has stopped."""
        self.signal(signal.SIGSTOP)
        self.stopped = True
        tasks = f"/proc/{self.process.pid}/task"

        def stopped():
            for thread in os.listdir(tasks):
                with open(f"{tasks}/{thread}/stat", encoding="utf-8", errors="replace") as f:
                    if f.read().rsplit(")", 1)[1].split()[0] not in "Tt":
                        return False
            return True
        wait_for(f"{self.name} has stopped", 20, stopped)

    def wake(self):
        self.signal(signal.SIGCONT)
        self.stopped = False

    def kill(self):
        """kill -9, and wait until it is gone."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.stopped = False

    def end(self, limit_s=20):
        if not self.is_running():
            return
        self.wake()
        self.process.terminate()
        try:
            self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def lines(self):
        """The log of the present process."""
        with open(self.log, "rb") as f:
            f.seek(self.log_from)
            return f.read().decode("utf-8", "replace").splitlines()

    def runs_open(self):
        """Tasks that this process began and has not ended."""
        text = "\n".join(self.lines())
        return (len(re.findall(r"event=task_started ", text)) -
                len(re.findall(r"event=task_(?:succeeded|failed) ", text)))


class Worker(Program):
    def __init__(self, lab, zone, name):
        env = dict(os.environ, LD_PRELOAD=os.path.join(lab.build, "lib/points.so"),
                   POINTS_DIR=lab.points_dir(zone), POINTS_ROOT=lab.repository)
        command = [lab.program("oxbow-worker"), "--config", lab.path(name + ".yaml")]
        super().__init__(lab.directory, name, command, env)
        self.zone = zone
        self.user = f"{name}@internal"

    @property
    def proxy(self):
        return "p-" + self.name


class Points:
    """The point that is armed in one zone (tests/lib/points/points.c)."""

    def __init__(self, directory):
        self.directory = directory
        os.makedirs(directory, exist_ok=True)

    def arm(self, gate, point, let_pass=0):
        path = os.path.join(self.directory, "arm")
        with open(path + ".new", "w", encoding="utf-8") as f:
            f.write(f"{gate}\n{point}\n{let_pass}\n")
        os.rename(path + ".new", path)

    def hit(self):
        """The pid that stands at the point, or None."""
        for name in os.listdir(self.directory):
            if name.startswith("hit."):
                return int(name[4:])
        return None

    def let_go(self):
        """Who stands at a point goes on."""
        for name in os.listdir(self.directory):
            if name.startswith("hit."):
                os.unlink(os.path.join(self.directory, name))

    def clear(self):
        """Nothing is armed, and who stands at a point goes on."""
        for name in os.listdir(self.directory):
            if name == "arm" or name.startswith("hit."):
                os.unlink(os.path.join(self.directory, name))

    def trace(self, on):
        path = os.path.join(self.directory, "trace")
        if on:
            open(path, "w", encoding="ascii").close()
            return
        for name in os.listdir(self.directory):
            if name.startswith("trace"):
                os.unlink(os.path.join(self.directory, name))

    def traced(self):
        """All points that were passed since trace(True), of all processes that passed any."""
        lines = []
        for name in sorted(os.listdir(self.directory)):
            if name.startswith("trace."):
                with open(os.path.join(self.directory, name), encoding="utf-8", errors="replace") as f:
                    lines.append(f.read().splitlines())
        return lines


# --- The ledger --------------------------------------------------------------------------------------
class Ledger:
    """The coordinator's file, read from outside."""

    def __init__(self, path):
        self.path = path

    def rows(self, query, *arguments):
        for _ in range(50):
            try:
                db = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=10)
                try:
                    db.row_factory = sqlite3.Row
                    return [dict(row) for row in db.execute(query, arguments)]
                finally:
                    db.close()
            except sqlite3.OperationalError:
                time.sleep(0.1)  # the coordinator was just killed, or makes its tables
        raise RuntimeError(f"the ledger cannot be read: {query}")

    def tasks(self, request):
        return self.rows("SELECT * FROM task WHERE request = ? ORDER BY n", request)

    def attempts(self, task):
        return self.rows("SELECT * FROM attempt WHERE task = ? ORDER BY attempt", task)

    def open_tasks(self, zone=None):
        rows = self.rows("SELECT * FROM task WHERE state IN ('waiting', 'offered', 'running')")
        return [r for r in rows if zone is None or r["zone"] == zone]


# --- All of it ---------------------------------------------------------------------------------------
class Lab:
    def __init__(self, directory, top, build, lease_s=2, log_level="debug"):
        self.directory, self.top, self.build = directory, top, build
        self.lease_s = lease_s
        self.log_level = log_level
        self.repository = self.path("repository")
        self.frozen = self.path("frozen")
        self.ledger = Ledger(self.path("ledger.db"))
        self.relays = self.sandbox = self.coordinator = self.broker_env = None
        self.programs = []
        self.workers = {}  # name -> Worker
        self.points = {}  # zone -> Points
        self.has_broker = False
        self.clients = []
        self.lock = threading.Lock()
        self.coordinator_kills = 0

    def path(self, *names):
        return os.path.join(self.directory, *names)

    def program(self, name):
        return os.path.join(self.build, "bin", name)

    def points_dir(self, zone):
        return self.path("points", zone)

    # --- Starting ---
    def _broker(self, *words):
        private = os.path.join(self.top, "deploy/rabbitmq/private-broker")
        with open(self.path("broker.log"), "ab") as log:
            subprocess.run([private, *words], check=True, stdout=log, stderr=log,
                           stdin=subprocess.DEVNULL)

    def _start_broker(self):
        self.has_broker = True
        self._broker("start", self.path("broker"))
        self.broker_env = {}
        with open(self.path("broker/broker.env"), encoding="utf-8") as f:
            for line in f:
                name, _, value = line.strip().partition("=")
                self.broker_env[name] = value

    def _start_sandbox(self, spec):
        with open(self.path("spec.json"), "w", encoding="utf-8") as f:
            json.dump(spec, f)
        program = Program(self.directory, "sandbox",
                          [self.program("oxbow-sandbox"), "--spec", self.path("spec.json"), "--dir",
                           self.path("sandbox"), "--keep", self.frozen])
        self.programs.append(program)
        program.start()

        def ready():
            if not program.is_running():
                raise RuntimeError("the sandbox ended: " + "\n".join(program.lines()[-5:]))
            return os.path.exists(self.path("sandbox/sandbox.json"))
        wait_for("the sandbox is ready", 240, ready)
        self.sandbox = Sandbox(self.path("sandbox"))

    def _broker_section(self, role, port):
        env = self.broker_env
        return (f"broker:\n  host: localhost\n  port: {port}\n  vhost: {env['VHOST']}\n"
                f"  user: {env[role + '_USER']}\n  password_file: {env[role + '_PASSWORD_FILE']}\n")

    def _write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as f:
            f.write(text)

    def _coordinator_conf(self, zones, more):
        names = "".join(f"  - name: {z}\n" for z in zones)
        self._write("coordinator.yaml",
                    self._broker_section("COORDINATOR", self.broker_env["PORT"]) +
                    f"ledger: {self.path('ledger.db')}\nzones:\n{names}lease_s: {self.lease_s}\n"
                    f"{more}log:\n  level: {self.log_level}\n")

    def _worker_conf(self, worker, slots, disks_at_once, map_min_mib, password_file):
        proxies = {p["name"]: p for p in self.sandbox.info["proxies"]}
        engine = int(re.search(r":(\d+)/", self.sandbox.info["url"]).group(1))
        engine = self.relays.open(worker.name + ".engine", engine)
        broker = self.relays.open(worker.name + ".broker", int(self.broker_env["PORT"]))
        self._write(worker.name + ".yaml", f"""name: {worker.name}
zone: {worker.zone}
{self._broker_section("WORKER", broker)}engine:
  url: https://localhost:{engine}/ovirt-engine
  user: {worker.user}
  password_file: {password_file}
  ca_file: {self.sandbox.info["ca"]}
  request_timeout_s: 30
proxy_vm: {worker.proxy}
device_dir: {proxies[worker.proxy]["dev_dir"]}
repository:
  path: {self.repository}
slots:
  backup: {slots}
  restore: {slots}
  upkeep: {slots}
copy:
  disks_at_once: {disks_at_once}
  threads_per_disk: {disks_at_once}
  map_min_mib: {map_min_mib}
parts:
  min_mib: 1
  align_mib: 4
lease:
  presence_s: 1
  claim_s: 4
wait:
  device_s: 10
quiesce_limit_s: 20
reserve:
  repository_mib: 64
  storage_domain_mib: 64
log:
  level: {self.log_level}
""")

    def start(self, spec, zones, slots=1, disks_at_once=1, map_min_mib=1024, coordinator=""):
        """`zones`: zone -> names of its workers. `spec`: the sandbox's, without users and proxies."""
        password = secrets.token_hex(8)
        names = [w for workers in zones.values() for w in workers]
        spec = dict(spec)
        spec["users"] = [{"name": "admin@internal", "password": password}] + [
            {"name": f"{w}@internal", "password": password} for w in names]
        spec["proxies"] = [{"name": f"p-{w}", "tags": ["oxbow-proxy"]} for w in names]
        self._write("engine.password", password + "\n")
        os.chmod(self.path("engine.password"), 0o600)
        failure = []

        def broker():
            try:
                self._start_broker()
            except Exception as e:  # told below, in the caller's thread
                failure.append(e)
        thread = threading.Thread(target=broker)
        thread.start()
        try:
            self._start_sandbox(spec)
        finally:
            thread.join()
        if failure:
            raise failure[0]
        self.relays = Relays(self.top, self.path("relays"))
        subprocess.run([self.program("oxbow-worker"), "repo", "init", self.repository], check=True,
                       stdout=subprocess.DEVNULL)
        for n in range(256):  # as in a repository that is not new: what a run does is always the same
            os.mkdir(os.path.join(self.repository, "packs", f"{n:02x}"))
        self._coordinator_conf(zones, coordinator)
        self.coordinator = Program(self.directory, "coordinator",
                                   [self.program("oxbow-coordinator"), "--config",
                                    self.path("coordinator.yaml")])
        self.programs.append(self.coordinator)
        self._write("oxbow.yaml", self._broker_section("CLIENT", self.broker_env["PORT"]))
        for zone, workers in zones.items():
            self.points[zone] = Points(self.points_dir(zone))
            for name in workers:
                worker = Worker(self, zone, name)
                self._worker_conf(worker, slots, disks_at_once, map_min_mib,
                                  self.path("engine.password"))
                self.workers[name] = worker
                self.programs.insert(0, worker)
        self.coordinator.start()
        for worker in self.workers.values():
            worker.start()
        wait_for("all workers are up", 120, lambda: self.workers_up() == len(self.workers))

    def workers_up(self):
        if not os.path.exists(self.path("ledger.db")):
            return 0
        return len(self.ledger.rows("SELECT name FROM worker WHERE state = 'up'"))

    # --- Using ---
    def ox(self, *arguments, name):
        """The CLI in the background, its JSON Lines in NAME.json."""
        env = dict(os.environ, OXBOW_CONFIG=self.path("oxbow.yaml"))
        with open(self.path(name + ".json"), "wb") as out, open(self.path(name + ".err"), "wb") as e:
            client = subprocess.Popen([self.program("oxbow"), *arguments, "--json"],
                                      stdin=subprocess.DEVNULL, stdout=out, stderr=e, env=env)
        client.output = self.path(name + ".json")
        with self.lock:
            self.clients = [c for c in self.clients if c.poll() is None] + [client]
        return client

    def kill_coordinator(self):
        """kill -9, and a new one at once."""
        self.coordinator.kill()
        self.coordinator_kills += 1
        self.coordinator.start()

    def engine(self, method, path, body=None):
        """A call of the engine's API as its administrator; for what the test itself must tidy."""
        info = self.sandbox.info
        subprocess.run(["curl", "-sS", "--cacert", info["ca"], "-u", "admin@internal:" +
                        open(self.path("engine.password"), encoding="ascii").read().strip(), "-X",
                        method, "-H", "Accept: application/json", f"{info['url']}/api/{path}",
                        *(("-H", "Content-Type: application/json", "-d", body) if body else ())],
                       check=True, stdout=subprocess.DEVNULL)

    # --- Ending ---
    def stop(self):
        for program in self.programs:
            program.over = True
        for client in self.clients:
            if client.poll() is None:
                client.kill()
        for points in self.points.values():
            points.clear()
        for program in self.programs:
            if isinstance(program, Worker):
                program.kill()
        for program in self.programs:
            program.end(60)
        if self.relays:
            self.relays.stop()
            self.relays = None
        if self.has_broker:
            self.has_broker = False
            try:
                self._broker("stop", self.path("broker"))
            except subprocess.CalledProcessError:
                pass

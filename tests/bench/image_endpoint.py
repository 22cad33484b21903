# SPDX-License-Identifier: Apache-2.0
"""Endpoints of image transfers for the benchmark: one image behind plain TCP, TLS and a unix socket. Each says
where it is by url() and socket(), and what it reads from by nbd()."""
import http.client
import json
import os
import re
import shlex
import socket
import subprocess
import time

WAYS = ("TCP", "TLS", "unix")


class Endpoint:
    nbd = ticket = None

    def url(self, way, path=""):
        scheme = "http" if way == "TCP" else "https"
        return f"{scheme}://127.0.0.1:{self.port(way)}/images/{self.ticket}{path}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


class Sandbox(Endpoint):
    """Ours, in a process of its own."""

    def __init__(self, bench, image, form, size, folder):
        self.process = subprocess.Popen([bench, "serve", image, form, folder, str(size)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.where = json.loads(self.process.stdout.readline())
        self.nbd, self.ticket, self.socket = (self.where[name] for name in ("nbd", "ticket", "socket"))

    def port(self, way):
        return self.where[way]

    def counters(self):
        self.process.stdin.write("counters\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self):
        self.process.stdin.close()
        self.process.wait(60)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


class Daemon:
    """One ovirt-imageio that this machine has, for one way. A client on the same machine goes over to the unix
    socket by itself where the daemon tells of one, so there is one daemon for each way."""

    def __init__(self, command, way, folder):
        self.folder = os.path.join(folder, way)
        self.socket, self.control = (os.path.join(self.folder, name) for name in ("local", "control"))
        os.makedirs(os.path.join(self.folder, "conf.d"))
        with open(os.path.join(self.folder, "conf.d", "daemon.conf"), "w", encoding="ascii") as f:
            f.write(f"""[daemon]
run_dir = {self.folder}
drop_privileges = false
systemd_enable = false
[tls]
enable = {str(way != "TCP").lower()}
key_file = {folder}/key.pem
cert_file = {folder}/cert.pem
[remote]
host = 127.0.0.1
port = 0
[local]
enable = {str(way == "unix").lower()}
socket = {self.socket}
[control]
socket = {self.control}
[handlers]
keys = stderr
[logger_root]
handlers = stderr
level = INFO
""")
        self.log = os.path.join(self.folder, "log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(shlex.split(command) + ["--conf-dir", self.folder], stderr=log)
        self.port = self.wait_ready()

    def wait_ready(self):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self.process.poll() is None:
            with open(self.log, encoding="utf-8") as f:
                text = f.read()
            found = re.search(r"remote.service listening on \(.*?, (\d+)", text)
            if found and "Ready for requests" in text:
                return int(found[1])
            time.sleep(0.05)
        with open(self.log, encoding="utf-8") as f:
            raise SystemExit(f"the daemon did not start:\n{f.read()}")

    def ask(self, method, ticket, body=None):
        connection = UnixConnection(self.control)
        connection.request(method, f"/tickets/{ticket}", json.dumps(body) if body else None)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.status not in (200, 204):
            raise SystemExit(f"{method} of a ticket: {answer.status} {text.decode()}")
        return json.loads(text) if text else None

    def end(self):
        self.process.terminate()
        self.process.wait(60)


class Official(Endpoint):
    """The image in a qemu-nbd as a host runs it, behind ovirt-imageio."""

    def __init__(self, command, image, form, size, folder):
        self.ticket = "ticket"
        os.mkdir(folder + "/nbd")
        path = folder + "/nbd/socket"
        self.nbd, self.server = f"nbd+unix:///?socket={path}", None
        self.command = ["qemu-nbd", "--shared=8", "--persistent", "--discard=unmap", f"--format={form}",
                        f"--socket={path}", image]
        self.path = path
        self.start()
        self.daemons = {way: Daemon(command, way, folder) for way in WAYS}
        for daemon in self.daemons.values():
            daemon.ask("PUT", self.ticket, {
                "uuid": self.ticket, "size": size, "ops": ["read", "write"], "timeout": 3600, "sparse": True,
                "inactivity_timeout": 3600, "url": f"nbd:unix:{path}", "transfer_id": "bench"})
        self.socket = self.daemons["unix"].socket

    def start(self):
        self.server = subprocess.Popen(self.command)
        deadline = time.monotonic() + 20
        while not os.path.exists(self.path) and time.monotonic() < deadline:
            time.sleep(0.02)

    def port(self, way):
        return self.daemons[way].port

    def counters(self):
        """The daemon knows no peak."""
        told = [daemon.ask("GET", self.ticket) for daemon in self.daemons.values()]
        return {"peak": 0, "open": sum(t["connections"] for t in told)}

    def stop(self):
        self.server.terminate()
        self.server.wait(60)

    def end(self):
        for daemon in self.daemons.values():
            daemon.end()
        self.stop()

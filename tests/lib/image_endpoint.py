# SPDX-License-Identifier: Apache-2.0
"""Endpoints of image transfers, ours of the sandbox or the ovirt-imageio that a machine has, by one interface:
a port, a unix socket, and tickets as ovirt-imageio's control service takes them.

    with Daemon("ovirt-imageio", folder) as endpoint, Nbd(image, "qcow2", folder) as nbd:
        endpoint.add(ticket("t", size, nbd))
        ...  http://127.0.0.1:{endpoint.port}/images/t

`folder` is the endpoint's own. With a certificate (cert.pem and key.pem in `pems`) it speaks TLS."""
import http.client
import json
import os
import re
import shlex
import socket
import subprocess
import time

START_S = 20


def make_certificate(folder):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                    "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
                    "-keyout", os.path.join(folder, "key.pem"), "-out", os.path.join(folder, "cert.pem")],
                   check=True, stderr=subprocess.DEVNULL)


def ticket(name, size, nbd, ops=("read",), **more):
    return {"uuid": name, "size": size, "ops": list(ops), "timeout": 3600, "inactivity_timeout": 3600,
            "url": f"nbd:unix:{nbd.path}", "transfer_id": "T-1", **more}


class Ending:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


class Nbd(Ending):
    """An image in a qemu-nbd as a host runs it."""

    def __init__(self, image, form, folder, *options):
        self.path = os.path.join(folder, "nbd.socket")
        self.uri = f"nbd+unix:///?socket={self.path}"
        self.process = subprocess.Popen(["qemu-nbd", "--shared=8", "--persistent", "--discard=unmap",
                                         f"--format={form}", f"--socket={self.path}", *options, image])
        deadline = time.monotonic() + START_S
        while not os.path.exists(self.path):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise RuntimeError("qemu-nbd did not start")
            time.sleep(0.02)

    def end(self):
        self.process.terminate()
        self.process.wait(60)


class Sandbox(Ending):
    """Ours, of the build folder BUILD, in a process of its own."""

    def __init__(self, build, folder, pems=None, has_socket=False):
        command = [os.path.join(build, "integration", "sandbox_imageio")]
        if pems:
            command += ["--cert", os.path.join(pems, "cert.pem"), "--key", os.path.join(pems, "key.pem")]
        self.socket = os.path.join(folder, "local.socket") if has_socket else None
        if has_socket:
            command += ["--socket", self.socket]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = json.loads(self.process.stdout.readline())["port"]

    def ask(self, **wish):
        self.process.stdin.write(json.dumps(wish) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def add(self, what):
        self.ask(add=what)

    def remove(self, name):
        self.ask(remove=name)

    def extend(self, name, timeout):
        self.ask(extend=name, timeout=timeout)

    def get(self, name):
        return self.ask(get=name)

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


class Daemon(Ending):
    """ovirt-imageio, started by COMMAND, which gets --conf-dir."""

    def __init__(self, command, folder, pems=None, has_socket=False):
        self.socket = os.path.join(folder, "local.socket") if has_socket else None
        self.control, self.log = os.path.join(folder, "control.socket"), os.path.join(folder, "log")
        os.mkdir(os.path.join(folder, "conf.d"))
        with open(os.path.join(folder, "conf.d", "daemon.conf"), "w", encoding="ascii") as f:
            f.write(f"""[daemon]
run_dir = {folder}
drop_privileges = false
systemd_enable = false
[tls]
enable = {str(bool(pems)).lower()}
key_file = {pems}/key.pem
cert_file = {pems}/cert.pem
[remote]
host = 127.0.0.1
port = 0
[local]
enable = {str(has_socket).lower()}
socket = {self.socket or ""}
[control]
socket = {self.control}
remove_timeout = 2
[handlers]
keys = stderr
[logger_root]
handlers = stderr
level = INFO
""")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(shlex.split(command) + ["--conf-dir", folder], stderr=log)
        self.port = self.wait_ready()

    def wait_ready(self):
        deadline, text = time.monotonic() + START_S, ""
        while time.monotonic() < deadline and self.process.poll() is None:
            with open(self.log, encoding="utf-8") as f:
                text = f.read()
            found = re.search(r"remote.service listening on \(.*?, (\d+)", text)
            if found and "Ready for requests" in text:
                return int(found[1])
            time.sleep(0.05)
        self.process.kill()
        raise RuntimeError(f"the daemon did not start:\n{text}")

    def ask(self, method, name, body=None):
        connection = UnixConnection(self.control)
        connection.request(method, f"/tickets/{name}", json.dumps(body) if body else None)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        if answer.status not in (200, 204):
            raise RuntimeError(f"{method} of ticket {name}: {answer.status} {text}")
        return json.loads(text) if text else None

    def add(self, what):
        self.ask("PUT", what["uuid"], what)

    def remove(self, name):
        self.ask("DELETE", name)

    def extend(self, name, timeout):
        self.ask("PATCH", name, {"timeout": timeout})

    def get(self, name):
        return self.ask("GET", name)

    def end(self):
        self.process.terminate()
        self.process.wait(60)

# SPDX-License-Identifier: Apache-2.0
"""The judge: what must hold when all is over, read from where it really is: the sandbox's state and
calls, the repository's fate records, the copies that the sandbox kept of every disk at the instant of
each snapshot, the guests' numbered records, and the ledger. It asks no program of ours whether all is
well; of ours it uses `oxbow-worker repo` to get the bytes of a restore point.

Every function returns a list of complaints; empty is well.
"""
import filecmp
import json
import os
import re
import shutil
import subprocess
import tempfile

MARKER = re.compile(r"^oxbow (?:restoring |exporting )?task=([0-9a-f-]{36}) fence=(\d+)$")
OPEN = ("waiting", "offered", "running")


def lines_of(path):
    """The JSON Lines that a client wrote."""
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f if line.strip()]


def instant(meta):
    """What a point was made of: a snapshot, or a backup of the engine's own."""
    return meta.get("backup") or meta["snapshot"]


class Judge:
    def __init__(self, lab, evidence=None):
        """`evidence`: a folder for all that is needed to explain data that is not as it must be."""
        self.lab = lab
        self.evidence = evidence

    # --- At rest -------------------------------------------------------------------------------------
    def engine_rest(self, state, vms, proxies):
        """No snapshot, attachment, lock or frozen guest of these (None = all), and nothing marked."""
        wrong = []
        for vm in state["vms"]:
            if vm["proxy"]:
                if proxies is None or vm["name"] in proxies:
                    wrong += [f"disk {a['disk']} is attached to proxy {vm['name']}"
                              for a in vm["attachments"]]
                continue
            if MARKER.match(vm["description"]):
                if vms is None or self.is_of(vm["name"], vms):
                    wrong.append(f"half restored VM {vm['name']}: {vm['description']}")
            if vms is not None and vm["name"] not in vms:
                continue
            wrong += [f"snapshot {s['id']} of VM {vm['name']} ({s['description']})"
                      for s in vm["snapshots"] if not s["active"]]
            if vm["frozen"]:
                wrong.append(f"the guest of VM {vm['name']} is frozen")
            wrong += [f"backup {b['id']} of VM {vm['name']} is {b['phase']}" for b in state["backups"]
                      if b["vm"] == vm["id"] and b["phase"] not in ("succeeded", "failed")]
            if vm["lock"] != "free":
                wrong.append(f"VM {vm['name']} is locked: {vm['lock']}")
        return wrong

    @staticmethod
    def is_of(name, vms):
        """Restored VMs are called after the VM they come from."""
        return any(name.startswith(vm + "-") for vm in vms)

    def disks_rest(self, state, tasks):
        """No disk of a half restore of these tasks (None = any)."""
        wrong = []
        for disk in state["disks"]:
            mark = MARKER.match(disk["description"])
            if mark and (tasks is None or mark.group(1) in tasks):
                wrong.append(f"disk {disk['id']} of a restore is left: {disk['description']}")
            if tasks is None and not disk["vm"] and not disk["shareable"]:
                wrong.append(f"disk {disk['id']} belongs to no VM")
        return wrong

    def transfers_rest(self, state, vms):
        """No disk of these VMs, and of those restored from them (None = any), is open in an image
        transfer, or locked."""
        ids = {vm["id"] for vm in state["vms"]
               if vms is None or vm["name"] in vms or self.is_of(vm["name"], vms)}
        disks = {d["id"]: d for d in state["disks"] if vms is None or d["vm"] in ids}
        wrong = [f"disk {t['disk']} is open in transfer {t['id']} ({t['phase']})" for t in
                 state["transfers"] if t["disk"] in disks and not t["phase"].startswith("finished_")]
        for disk in disks.values():
            if disk["status"] != "ok" or any(volume["locked"] for volume in disk["chain"]):
                wrong.append(f"disk {disk['id']} is locked")
        return wrong

    def ledger_rest(self, zone=None):
        wrong = [f"task {t['id']} ({t['kind']}, {t['role']}) is {t['state']}, attempt {t['attempt']}"
                 for t in self.lab.ledger.open_tasks(zone)]
        left = self.lab.ledger.rows("SELECT l.kind, l.vm, l.item, t.zone FROM leftover l "
                                    "JOIN task t ON t.id = l.task")
        wrong += [f"left in the ledger: {row['kind']} {row['item']} on {row['vm']}" for row in left
                  if zone is None or row["zone"] == zone]
        return wrong

    # --- What a request came to -------------------------------------------------------------------------
    def main_task(self, client, kind, rest=True):
        """(task row, outcome, complaints) of a request for one VM, by the client's own lines. `rest`:
        its other tasks (selecting, cleaning up) must have ended as well."""
        lines = lines_of(client.output)
        accepted = [l for l in lines if l.get("type") == "accepted"]
        outcomes = [l for l in lines if l.get("type") == "outcome"]
        finished = [l for l in lines if l.get("type") == "finished"]
        if not accepted:
            return None, None, [f"the request was not accepted: {lines}"]
        wrong = []
        request = accepted[0]["request"]
        if len(finished) != 1:
            wrong.append(f"{len(finished)} 'finished' for one request")
        tasks = self.lab.ledger.tasks(request)
        main = [t for t in tasks if t["role"] == "main" and t["kind"] == kind]
        if len(main) != 1:
            return None, None, wrong + [f"{len(main)} tasks for one VM"]
        mine = [o for o in outcomes if o["task"] == main[0]["id"]]
        if len(mine) != 1 or len(outcomes) != 1:
            wrong.append(f"{len(outcomes)} outcomes for one task")
        wrong += [f"task {t['id']} ({t['role']}) never ended: {t['state']}" for t in tasks
                  if t["state"] in OPEN and (rest or t["role"] == "main")]
        return main[0], (mine or [None])[0], wrong

    def commits(self, task):
        """The restore points of a task, by the repository's fate records."""
        return self.all_commits(task).get(task, [])

    def all_commits(self, only=""):
        """Task -> restore points, of all tasks whose id begins so."""
        points = {}
        fate = os.path.join(self.lab.repository, "fate")
        for name in os.listdir(fate):
            if not name.startswith(".") and name.startswith(only):
                with open(os.path.join(fate, name), encoding="ascii") as f:
                    if f.read().split()[2] == "commit":
                        points.setdefault(name.rpartition(".")[0], []).append(name)
        return points

    def no_parts(self, task=""):
        """Nothing that another worker copied for this task (for any) is left."""
        lines = self._repo("list", self.lab.repository, "--parts", "--json").splitlines()
        return [f"a part is left: {line}" for line in lines if f"of task {task}" in line]

    def repository(self):
        """All that the repository holds can be read."""
        try:
            self._repo("verify", self.lab.repository, "--quick")
        except ValueError as e:
            return [str(e)]
        return []

    def one_point(self, task, outcome, must_succeed=True):
        points = self.commits(task["id"])
        if task["state"] == "succeeded":
            if len(points) != 1:
                return [f"{len(points)} restore points of one task: {points}"]
            if not outcome or outcome.get("point") != points[0]:
                return [f"the outcome names point {outcome and outcome.get('point')}, not {points[0]}"]
            return []
        wrong = [f"a task that {task['state']} has a restore point: {points}"] if points else []
        if must_succeed:
            wrong.append(f"the task {task['state']}: {task['err_code']}: {task['err_message']}")
        return wrong

    # --- The data ----------------------------------------------------------------------------------------
    def _repo(self, *arguments):
        run = subprocess.run([self.lab.program("oxbow-worker"), "repo", *arguments],
                             capture_output=True, text=True)
        if run.returncode:
            raise ValueError(f"repo {arguments[0]}: {run.stderr.strip()}")
        return run.stdout

    def _guest(self, vm, frozen, images):
        """The guest's records in raw images of its disks: an exact prefix, within the bracket."""
        command = [self.lab.program("sandbox-judge"), "--spec", vm["guest_spec"]]
        with open(os.path.join(frozen, "acked.json"), encoding="ascii") as f:
            bracket = json.load(f)
        command += ["--after", str(bracket["after"]), "--before", str(bracket["before"])]
        for disk, image in images.items():
            command += ["--disk", f"{disk}={image}"]
        run = subprocess.run(command, capture_output=True, text=True)
        return [] if run.returncode == 0 else [f"the guest's records: {run.stdout}{run.stderr}"]

    def _compare(self, vm, snapshot, images):
        """Images of disks against the copies kept at the snapshot, and the guest's records."""
        frozen = os.path.join(self.lab.frozen, vm["id"], snapshot)
        if not os.path.isdir(frozen):
            return [f"the sandbox kept no copy of snapshot {snapshot}"]
        kept = sorted(n[:-4] for n in os.listdir(frozen) if n.endswith(".raw"))
        if kept != sorted(images):
            return [f"disks {sorted(images)}, but the snapshot had {kept}"]
        wrong = [f"disk {disk} is not as it was at the snapshot" for disk, image in images.items()
                 if not filecmp.cmp(image, os.path.join(frozen, disk + ".raw"), shallow=False)]
        return wrong or self._guest(vm, frozen, images)

    def _explained(self, vm, snapshot, images, wrong):
        """Of images that are not right: they themselves, the sandbox's copies with the bracket, what
        the guest writes, and its numbers and log, before the next case takes them away."""
        if not wrong or not self.evidence:
            return wrong
        os.makedirs(self.evidence, exist_ok=True)
        folder = tempfile.mkdtemp(prefix=vm["name"] + ".", dir=self.evidence)
        for disk, image in images.items():
            subprocess.run(["cp", "--sparse=always", image, os.path.join(folder, disk + ".image")],
                           check=False)
        frozen = os.path.join(self.lab.frozen, vm["id"], snapshot)
        guest = os.path.join(self.lab.path("sandbox"), "r", "g" + vm["id"][:8])
        subprocess.run(["cp", "-r", "--sparse=always", frozen, os.path.join(folder, "copies")], check=False)
        for path in (vm["guest_spec"], os.path.join(guest, "writer.state"), os.path.join(guest, "writer.log")):
            if os.path.exists(path):
                shutil.copy(path, folder)
        with open(os.path.join(folder, "wrong.json"), "w", encoding="utf-8") as f:
            json.dump({"vm": vm, "snapshot": snapshot, "wrong": wrong}, f, indent=2)
        return wrong + [f"kept in {folder}"]

    def point_data(self, vm, point):
        """The bytes of a restore point, by export: (complaints, the snapshot it was made of)."""
        with tempfile.TemporaryDirectory(dir=self.lab.directory) as work:
            try:
                shown = json.loads(self._repo("show", self.lab.repository, point, "--json"))
                images = {}
                for disk in shown["disks"]:
                    images[disk["id"]] = os.path.join(work, disk["id"] + ".raw")
                    self._repo("export", self.lab.repository, point, "--disk", disk["id"], "--output",
                               images[disk["id"]])
            except ValueError as e:
                return [str(e)], None
            snapshot = instant(shown["meta"])
            return self._explained(vm, snapshot, images, self._compare(vm, snapshot, images)), snapshot

    def restored_data(self, state, vm, restored, point):
        """The disks of a restored, stopped VM, which pair up in the order of attachment."""
        disks = {d["id"]: d for d in state["disks"]}
        snapshot = instant(json.loads(self._repo("show", self.lab.repository, point, "--json"))["meta"])
        old = [a["disk"] for a in vm["attachments"]]
        new = [a["disk"] for a in restored["attachments"]]
        if len(old) != len(new):
            return [f"{restored['name']} has {len(new)} disks, not {len(old)}"]
        with tempfile.TemporaryDirectory(dir=self.lab.directory) as work:
            images = {}
            for source, target in zip(old, new):
                images[source] = os.path.join(work, source + ".raw")
                volume = disks[target]["chain"][-1]
                subprocess.run(["qemu-img", "convert", "-f", volume["format"], "-O", "raw",
                                volume["path"], images[source]], check=True)
            return self._explained(vm, snapshot, images, self._compare(vm, snapshot, images))

    def exported_data(self, vm, ova):
        """The disks of an OVA, which pair up by size: those of one of the VM's snapshots."""
        folder = os.path.join(self.lab.frozen, vm["id"])
        with tempfile.TemporaryDirectory(dir=self.lab.directory) as work:
            subprocess.run(["tar", "-C", work, "-xf", ova], check=True)
            files, images = {}, {}
            for name in os.listdir(work):
                if name != "vm.ovf":
                    raw = os.path.join(work, name + ".raw")
                    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", os.path.join(work, name), raw],
                                   check=True)
                    files[os.path.getsize(raw)] = raw
            sizes = {d["id"]: d["size_bytes"] for d in self.lab.sandbox.state()["disks"]}
            for a in vm["attachments"]:
                if sizes[a["disk"]] not in files:
                    return [f"{ova} has no disk of the size of {a['disk']}"]
                images[a["disk"]] = files[sizes[a["disk"]]]
            found = {snapshot: self._compare(vm, snapshot, images) for snapshot in os.listdir(folder)}
            if not found:
                return ["no copies of snapshots are there"]
            # The one that it is of, else that of which only the guest's records complain, else any.
            snapshot = min(found, key=lambda s: (bool(found[s]), "records" not in "".join(found[s])))
            return self._explained(vm, snapshot, images, found[snapshot])

    def forget_references(self, vm_id, keep):
        """The kept copies of a VM's snapshots take room; nobody needs those of a judged case."""
        folder = os.path.join(self.lab.frozen, vm_id)
        for snapshot in os.listdir(folder):
            if snapshot not in keep:
                shutil.rmtree(os.path.join(folder, snapshot), ignore_errors=True)

    # --- Zombies -----------------------------------------------------------------------------------------
    def changes_of(self, user, since_ms, until_ms=None):
        """Calls by that user that changed something and began in that time (the engine's clock is
        the machine's). A thaw in case, and logging in and out, change nothing."""
        return [f"{c['method']} {c['path']} by {user} after the takeover" for c in self.lab.sandbox.calls()
                if c["user"] == user and c["time_ms"] - c["took_ms"] > since_ms and
                (until_ms is None or c["time_ms"] < until_ms) and 200 <= c["status"] < 300 and
                not re.search(r"thawfilesystems$|/sso", c["path"])]

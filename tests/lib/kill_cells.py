# SPDX-License-Identifier: Apache-2.0
"""Cells, scenarios and faults of the kill matrix. A cell is a zone with two workers and two VMs of its
own, in which one case runs at a time. A scenario is a task kind with what comes before it; a fault is
what is done to the worker that stands at the point.
"""
import os
import re
import shutil
import threading
import time

from judge import lines_of
from lab import wait_for

HIT_S, END_S, REST_S = 60, 180, 90  # a loaded machine is ten times slower


class CaseFailed(Exception):
    pass


class NotReached(CaseFailed):
    """Nothing was hit: what a run passes is not the same each time where several workers share it (one
    was too late to be needed)."""


class Run:
    """One request under way."""

    def __init__(self, client, kind, **more):
        self.client, self.kind = client, kind
        self.__dict__.update(more)

    def request(self):
        accepted = [l for l in lines_of(self.client.output) if l.get("type") == "accepted"]
        return accepted[0]["request"] if accepted else None


# --- Scenarios ---------------------------------------------------------------------------------------
class Scenario:
    """`steps`: those that it passes. `ends_early`: its client may end before its last task."""
    exit_code = 0
    ends_early = False
    prepares_traced = False  # a dry run's trace begins before prepare()
    has_file_points = True
    task_gate = None  # points.py: what the process that runs this kind passes, and no other

    def __init__(self, tables):
        self.steps = tables[self.kind]

    def is_trace(self, trace):
        """Of the process that went through the steps?"""
        return any(name in self.steps for name, _ in trace.steps)

    def user(self, cell):
        """A pattern of who makes the calls of these steps."""
        return f"^{cell.zone}-"

    def wants(self, point):
        """Is it this scenario's, of those that its steps pass?"""
        return True

    def prepare(self, cell):
        """What must be there before; runs without a fault."""

    def after(self, cell, run):
        """Makes room, once the case was judged well."""


CHECKPOINT_STEPS = ("begin", "open", "close", "finalize", "rotate")  # of a backup of the engine's own
SHARE_STEPS = ("share", "gather", "drop-parts")  # of a backup by several workers
TRANSFER_STEPS = ("map", "open", "close")  # of a backup; they do nothing for small disks by attach


class Backup(Scenario):
    name = kind = "backup"
    path = "attach"

    def __init__(self, tables):
        super().__init__(tables)
        self.steps = [step for step in self.steps if step not in TRANSFER_STEPS + CHECKPOINT_STEPS + SHARE_STEPS]

    def vm(self, cell):
        return cell.next_vm()

    def begin(self, cell, tag):
        vm = self.vm(cell)
        return Run(cell.lab.ox("backup", vm["name"], "--zone", cell.zone, "--path", self.path, name=tag), self.kind,
                   vm=vm)

    def judge(self, cell, run):
        judge = cell.judge
        task, outcome, wrong = judge.main_task(run.client, "backup")
        run.task = task
        if not task:
            return wrong
        wrong += judge.one_point(task, outcome)
        if not wrong:
            wrong += judge.point_data(run.vm, outcome["point"])[0]
        return wrong

    def after(self, cell, run):
        cell.forget_references(run.vm)


class BackupByTransfer(Backup):
    """Of a VM whose disk comes by image transfer: only the steps that have to do with that."""
    name, path = "transfer", "imageio"

    def __init__(self, tables):
        super().__init__(tables)
        self.steps = ["open", "close"]

    def vm(self, cell):
        return cell.transfer_vm


class MappedBackup(Backup):
    """Of a VM whose disk is so large that it is mapped by image transfer before it is attached."""
    name = "map"

    def __init__(self, tables):
        super().__init__(tables)
        self.steps = ["map"]

    def vm(self, cell):
        return cell.mapped_vm


class BackupByCheckpoint(Backup):
    """By a backup of the engine's own, from the checkpoint of the one before: only the steps that have
    to do with that."""
    name, path = "checkpoint", "cbt"

    def __init__(self, tables):
        super().__init__(tables)
        self.steps = CHECKPOINT_STEPS

    def vm(self, cell):
        return cell.checkpoint_vm

    def prepare(self, cell):
        if not cell.has_checkpoint:
            cell.prove_backup(self.begin(cell, f"{cell.zone}-first"))
            cell.has_checkpoint = True

    def wants(self, point):
        return point.step != "close" or point.what == "start"  # its calls are of the transfers


class BackupByHybrid(BackupByCheckpoint):
    """Of a snapshot that the engine takes and merges itself: the steps in which that is another thing."""
    name, path = "hybrid", "hybrid"

    def __init__(self, tables):
        super().__init__(tables)
        self.steps = ["begin", "finalize"]


class Wide:
    """By both workers. The first one has the task: the other is started when it has been taken, and
    before the first call of `hold` is made; and has its part before the first one goes on to its own."""
    share = "--workers=2"
    own = "/(diskattachments|imagetransfers)$"

    def begin(self, cell, tag):
        main, other = cell.workers
        if not main.is_running():
            main.start()
        other.end()
        rules = {f"{cell.zone}-hold": self.hold, f"{cell.zone}-own": self.own}
        for name, path in rules.items():
            cell.lab.sandbox.add_fault(name=name, user=f"^{main.user}", method="POST", path=path,
                                       action="hold", when="before")
        late = None
        try:
            run = self.ask(cell, tag)
            wait_for("the main worker has the task", HIT_S, lambda: cell.lab.sandbox.fired(f"{cell.zone}-hold"))
            other.start()
            cell.await_workers()
            cell.lab.sandbox.remove_fault(f"{cell.zone}-hold")
            wait_for("the other worker has its part", HIT_S, lambda: cell.reached() or self.goes_on(cell, run))
        except TimeoutError as e:
            late = e
        finally:
            for name in rules:
                cell.lab.sandbox.remove_fault(name)
        if late:  # the next case shall not meet this one
            cell.points.clear()
            run.client.wait(END_S)
            raise NotReached(str(late))
        return run

    def goes_on(self, cell, run):
        return cell.part_has_begun(run)


class Part(Wide):
    """The other worker's part: of the kind `kind`. The main one waits until it is hit, or through: else it
    might be needed no more."""

    def goes_on(self, cell, run):
        return cell.part_has_ended(run)

    def is_trace(self, trace):
        return self.kind in trace.kinds

    def user(self, cell):
        return f"^{cell.workers[1].user}"


class WideBackup(Wide, Backup):
    """Only the steps that have to do with that."""
    name, hold = "wide", "/snapshots$"

    def __init__(self, tables):
        super().__init__(tables)
        self.steps = list(SHARE_STEPS)

    def ask(self, cell, tag):
        vm = self.vm(cell)
        return Run(cell.lab.ox("backup", vm["name"], "--zone", cell.zone, "--path", self.path, self.share, name=tag),
                   "backup", vm=vm)

    def judge(self, cell, run):
        wrong = super().judge(cell, run)
        return wrong + (cell.judge.no_parts(run.task["id"]) if run.task else [])


class BackupPart(Part, WideBackup):
    name = kind = "backup-part"
    task_gate = "event=task_started kind=backup-part"

    def __init__(self, tables):
        super().__init__(tables)
        self.steps = [step for step in tables[self.kind] if step not in TRANSFER_STEPS]


class BackupPartByTransfer(BackupPart):
    name, path = "backup-part-by-transfer", "imageio"

    def __init__(self, tables):
        super().__init__(tables)
        self.steps = ["open", "close"]


class Restore(Scenario):
    name = kind = "restore"

    def prepare(self, cell):
        cell.base_points()

    def begin(self, cell, tag, *more):
        vm = cell.next_vm()
        name = f"{vm['name']}-{tag[-8:]}"
        point = cell.points_of_vm[vm["name"]]
        return Run(cell.lab.ox("restore", point, "--name", name, "--zone", cell.zone, *more, name=tag),
                   "restore", vm=vm, name=name, point=point)

    def judge(self, cell, run):
        judge = cell.judge
        task, outcome, wrong = judge.main_task(run.client, "restore")
        run.task = task
        if not task:
            return wrong
        state = cell.lab.sandbox.state()
        made = [vm for vm in state["vms"] if vm["name"] == run.name]
        if len(made) != 1 or task["state"] != "succeeded":
            return wrong + [f"{len(made)} restored VMs; the task {task['state']}: {task['err_message']}"]
        if outcome and outcome.get("new_vm") != made[0]["id"]:
            wrong.append(f"the outcome names VM {outcome.get('new_vm')}, not {made[0]['id']}")
        return wrong + judge.restored_data(state, run.vm, made[0], run.point)

    def after(self, cell, run):
        cell.remove_vms(run.name)


class RestoreAndStart(Scenario):
    """Only what comes after the restore that is started: its disks are written to at once."""
    name, kind = "restore-and-start", "restore"

    def __init__(self, tables):
        super().__init__(tables)
        self.other = Restore(tables)
        self.steps = ["start"]

    def prepare(self, cell):
        self.other.prepare(cell)

    def begin(self, cell, tag):
        return self.other.begin(cell, tag, "--start")

    def judge(self, cell, run):
        run.task, outcome, wrong = cell.judge.main_task(run.client, self.kind)
        if not run.task:
            return wrong
        made = [vm for vm in cell.lab.sandbox.state()["vms"] if vm["name"] == run.name]
        if len(made) != 1 or run.task["state"] != "succeeded":
            return wrong + [f"{len(made)} restored VMs; the task {run.task['state']}"]
        if made[0]["status"] != "up" or made[0]["id"] != outcome.get("new_vm"):
            wrong.append(f"the restored VM is {made[0]['status']}")
        return wrong

    def after(self, cell, run):
        cell.remove_vms(run.name)


class Upload(Restore):
    """Only what a restore by attach does not do."""
    name = "restore-by-upload"

    def __init__(self, tables):
        super().__init__(tables)
        self.steps = ["open", "write", "close"]

    def begin(self, cell, tag, *more):
        return super().begin(cell, tag, "--path=imageio", *more)


class WideRestore(Wide, Restore):
    """Only the step that has to do with that."""
    name, hold, more = "wide-restore", "/api/vms$", ()

    def __init__(self, tables):
        super().__init__(tables)
        self.steps = ["share"]

    def ask(self, cell, tag):
        return Restore.begin(self, cell, tag, self.share, *self.more)


class RestorePart(Part, WideRestore):
    name = kind = "restore-part"
    task_gate = "event=task_started kind=restore-part"

    def __init__(self, tables):
        super().__init__(tables)
        self.steps = [step for step in tables[self.kind] if step not in TRANSFER_STEPS]


class RestorePartByUpload(RestorePart):
    name, more = "restore-part-by-upload", ("--path=imageio",)

    def __init__(self, tables):
        super().__init__(tables)
        self.steps = ["open", "close"]


class Export(Scenario):
    name = kind = "export"

    def begin(self, cell, tag):
        vm = cell.next_vm()
        path = "/mnt/" + cell.zone
        host = os.path.join(cell.lab.sandbox.info["dir"], "hosts", "host1")
        os.makedirs(host + path, exist_ok=True)
        return Run(cell.lab.ox("export", vm["name"], "--zone", cell.zone, "--to-ova", "host1:" + path, name=tag),
                   self.kind, vm=vm, host=host)

    def judge(self, cell, run):
        run.task, outcome, wrong = cell.judge.main_task(run.client, self.kind)
        if not run.task or wrong:
            return wrong
        if run.task["state"] != "succeeded" or not outcome.get("exported"):
            return [f"the task {run.task['state']}: {run.task['err_message']}"]
        return cell.judge.exported_data(run.vm, run.host + outcome["exported"].partition(":")[2])

    def after(self, cell, run):
        shutil.rmtree(os.path.join(run.host, "mnt", cell.zone))
        cell.forget_references(run.vm)


class Listing(Scenario):
    """A task that only reads: of one request, by one worker."""

    def list(self, cell, tag, *arguments):
        last = cell.lab.ledger.rows("SELECT ifnull(max(n), 0) AS n FROM task")[0]["n"]
        return Run(cell.lab.ox(*arguments, "--zone", cell.zone, name=tag), self.kind, last=last)

    def judge(self, cell, run):
        tasks = cell.lab.ledger.rows("SELECT * FROM task WHERE zone = ? AND kind = ? AND n > ?",
                                     cell.zone, self.kind, run.last)
        if len(tasks) != 1:
            return [f"{len(tasks)} tasks for one zone"]
        run.task = tasks[0]
        wrong = []
        if run.task["state"] != "succeeded":
            wrong.append(f"the task {run.task['state']}: {run.task['err_message']}")
        return wrong + self.check(cell, lines_of(run.client.output))


class Inventory(Listing):
    name = kind = "inventory"

    def begin(self, cell, tag):
        return self.list(cell, tag, "inventory")

    def check(self, cell, lines):
        found = sorted(l["name"] for l in lines if l.get("type") == "vm")
        there = sorted(vm["name"] for vm in cell.lab.sandbox.state()["vms"] if not vm["proxy"])
        mine = [name for name in there if name.startswith(cell.zone)]
        lost = [name for name in mine if found.count(name) != 1]
        return [f"VMs that are not named once: {lost}"] if lost else []


class Plan(Listing):
    name = kind = "plan"

    def begin(self, cell, tag):
        return self.list(cell, tag, "plan", *(vm["name"] for vm in cell.vms))

    def check(self, cell, lines):
        found = [l["name"] for l in lines if l.get("type") == "plan"]
        lost = [vm["name"] for vm in cell.vms if found.count(vm["name"]) != 1]
        return [f"VMs that are not planned once: {lost}"] if lost else []


class Sweep(Listing):
    name = kind = "sweep"

    def begin(self, cell, tag):
        return self.list(cell, tag, "sweep")

    def check(self, cell, lines):
        return []


class Prune(Listing):
    """Deletes nothing, and collects what all the other cases have left as garbage."""
    name = kind = "prune"
    has_file_points = False  # what there is to collect is never the same

    def begin(self, cell, tag):
        return self.list(cell, tag, "prune", "--keep-last=1000")

    def check(self, cell, lines):
        gone = [p for p in cell.points_of_vm.values() if not cell.judge.commits(p.rpartition(".")[0])]
        return [f"restore points that were to be kept: {gone}"] if gone else []


class Verify(Listing):
    name = kind = "verify"
    has_file_points = False

    def begin(self, cell, tag):
        return self.list(cell, tag, "verify", "--share=1/8")

    def check(self, cell, lines):
        return []


class List(Listing):
    name = kind = "list"

    def prepare(self, cell):
        cell.base_points()

    def begin(self, cell, tag):
        return self.list(cell, tag, "list")

    def check(self, cell, lines):
        found = [l["id"] for l in lines if l.get("type") == "point"]
        lost = [p for p in cell.points_of_vm.values() if found.count(p) != 1]
        return [f"restore points that are not named once: {lost}"] if lost else []


class Cleanup(Scenario):
    """A task is cancelled when all workers of the zone are dead; what it made is left to the next."""
    kind = "cleanup"
    exit_code = 6
    ends_early = True

    def prepare(self, cell):
        self.other.prepare(cell)
        cell.points.arm("", self.stop_at)
        run = self.other.begin(cell, f"{cell.zone}-left-{cell.number}")
        wait_for("there is something to leave behind", HIT_S, cell.points.hit)
        for worker in cell.workers:
            worker.kill()
        cell.points.clear()
        cell.lab.ox("cancel", run.request(), name=f"{cell.zone}-cancel-{cell.number}")
        run.client.wait(END_S)
        run.kind = self.kind
        cell.left = run

    def begin(self, cell, tag):
        for worker in cell.workers:
            if not worker.is_running():
                worker.start()
        return cell.left

    def judge(self, cell, run):
        main, outcome, wrong = cell.judge.main_task(run.client, self.other.kind)
        if not main or wrong:
            return wrong
        if main["state"] != "cancelled" or not outcome.get("cleanup_open"):
            wrong.append(f"the task {main['state']}, clean-up open: {outcome.get('cleanup_open')}")
        wrong += [f"a restore point of a cancelled task: {p}" for p in cell.judge.commits(main["id"])]
        cleanups = [t for t in cell.lab.ledger.tasks(run.request()) if t["role"] == "cleanup"]
        run.task = cleanups[0]
        wrong += [f"clean-up {t['id']} {t['state']}" for t in cleanups if t["state"] != "succeeded"]
        return wrong

    def after(self, cell, run):
        cell.forget_references(run.vm)


class CleanupOfBackup(Cleanup):
    name = "cleanup-of-backup"
    stop_at = "event=step_done step=attach "

    def __init__(self, tables):
        super().__init__(tables)
        self.other = Backup(tables)


class CleanupOfRestore(Cleanup):
    name = "cleanup-of-restore"
    stop_at = "event=step_done step=attach "

    def __init__(self, tables):
        super().__init__(tables)
        self.other = Restore(tables)


class CleanupOfTransfer(CleanupOfBackup):
    """Only what ends a transfer."""
    name = "cleanup-of-transfer"
    stop_at = "event=step_done step=open "

    def __init__(self, tables):
        super().__init__(tables)
        self.other = BackupByTransfer(tables)

    def wants(self, point):
        return point.what == "POST-cancel"


class CleanupOfCheckpoint(CleanupOfBackup):
    """Only what ends the engine's own backup."""
    name = "cleanup-of-checkpoint"
    stop_at = "event=step_done step=open "

    def __init__(self, tables):
        super().__init__(tables)
        self.other = BackupByCheckpoint(tables)

    def wants(self, point):
        return point.what == "POST-finalize"


class CleanupOfHybrid(CleanupOfCheckpoint):
    """With the snapshot that the engine took for it."""
    name = "cleanup-of-hybrid"

    def __init__(self, tables):
        super().__init__(tables)
        self.other = BackupByHybrid(tables)


class Undo(Scenario):
    """A task is cancelled, and takes back what it has done."""
    exit_code = 6
    prepares_traced = True
    role = "main"  # of the task that stands still, and is told to stop
    stop_gate = ""  # what it passes before, and no other
    main_kind = None  # where the steps are another task's

    def __init__(self, tables):
        self.other = self.of(tables)
        self.kind = self.other.kind
        self.steps = ["undo-" + step for step in self.other.steps]

    def prepare(self, cell):
        self.other.prepare(cell)
        cell.points.arm(self.stop_gate, self.stop_at)
        run = self.other.begin(cell, f"{cell.zone}-undo-{cell.number}")
        try:
            wait_for("there is something to take back", HIT_S, cell.points.hit)
        except TimeoutError as e:
            raise NotReached(str(e)) from e
        task = next(t["id"] for t in cell.lab.ledger.tasks(run.request()) if t["role"] == self.role)
        cell.lab.ox("cancel", run.request(), name=f"{cell.zone}-cancel-{cell.number}")
        told = f"event=task_stopped task={task} "
        wait_for("it is told to stop", END_S, lambda: any(
            told in line for w in cell.workers for line in w.lines()))
        self.await_others(cell)
        time.sleep(0.2)  # from the one thread to the other
        cell.undone = run

    def await_others(self, cell):
        """Until no other worker passes the same steps."""

    def begin(self, cell, tag):
        cell.points.let_go()
        return cell.undone

    def judge(self, cell, run):
        run.task, _, wrong = cell.judge.main_task(run.client, self.main_kind or self.kind)
        if not run.task:
            return wrong
        wrong += cell.judge.no_parts(run.task["id"])
        if run.task["state"] != "cancelled":
            wrong.append(f"the task {run.task['state']}: {run.task['err_message']}")
        wrong += [f"a restore point of a cancelled task: {p}" for p in
                  cell.judge.commits(run.task["id"])]
        return wrong + [f"clean-up {t['id']} {t['state']}" for t in
                        cell.lab.ledger.tasks(run.request())
                        if t["role"] == "cleanup" and t["state"] != "succeeded"]

    def after(self, cell, run):
        cell.forget_references(run.vm)


class UndoOfBackup(Undo):
    name, of = "undo-of-backup", Backup
    stop_at = "event=step_done step=copy "


class UndoOfWide(Undo):
    """Another worker has copied its part."""
    name, of = "undo-of-wide", WideBackup
    stop_at = "event=part_taken "

    def __init__(self, tables):
        super().__init__(tables)
        self.steps = ["undo-share"]


class UndoOfPart(Undo):
    """A part is told to stop since its main task is, which waits for it."""
    role = "part"

    def __init__(self, tables):
        super().__init__(tables)
        self.stop_gate = self.other.task_gate

    def await_others(self, cell):
        main = cell.workers[0]

        def waits():
            steps = [line for line in main.lines() if "event=undo_" in line or "event=task_started kind" in line]
            return steps and steps[-1].rstrip().endswith("event=undo_started step=share")
        wait_for("the main worker waits for the part", END_S, waits)

    def is_trace(self, trace):
        return self.other.is_trace(trace)

    def user(self, cell):
        return self.other.user(cell)


class UndoOfBackupPart(UndoOfPart):
    name, of, main_kind = "undo-of-backup-part", BackupPart, "backup"
    stop_at = "event=step_done step=copy "


class UndoOfPartByTransfer(UndoOfPart):
    name, of, main_kind = "undo-of-part-by-transfer", BackupPartByTransfer, "backup"
    stop_at = "event=step_done step=open "

    def __init__(self, tables):
        super().__init__(tables)
        self.steps = ["undo-open"]


class UndoOfRestorePart(UndoOfPart):
    name, of, main_kind = "undo-of-restore-part", RestorePart, "restore"
    stop_at = "event=step_done step=attach "


class UndoOfPartByUpload(UndoOfPart):
    name, of, main_kind = "undo-of-part-by-upload", RestorePartByUpload, "restore"
    stop_at = "event=step_done step=open "

    def __init__(self, tables):
        super().__init__(tables)
        self.steps = ["undo-open"]


class UndoOfWideRestore(Undo):
    """Another worker has filled its disks, or does."""
    name, of = "undo-of-wide-restore", WideRestore
    stop_gate, stop_at = "event=task_started kind=restore ", "event=step_done step=write "

    def __init__(self, tables):
        super().__init__(tables)
        self.steps = ["undo-share"]


class UndoOfRestore(Undo):
    name, of = "undo-of-restore", Restore
    stop_at = "event=step_done step=assemble "


class UndoOfUpload(Undo):
    name, of = "undo-of-upload", Upload
    stop_at = "event=step_done step=write "

    def __init__(self, tables):
        super().__init__(tables)
        self.steps = ["undo-open"]


class UndoOfTransfer(Undo):
    name, of = "undo-of-transfer", BackupByTransfer
    stop_at = "event=step_done step=open "


class UndoOfMap(Undo):
    """While the transfer is open that a disk's map is asked of."""
    name, of = "undo-of-map", MappedBackup
    stop_at = "event=transfer_opened "


class UndoOfCheckpoint(Undo):
    name, of = "undo-of-checkpoint", BackupByCheckpoint
    stop_at = "event=step_done step=copy "

    def wants(self, point):
        return point.step == "undo-begin"


class CleanupOfWide(CleanupOfBackup):
    """Only what removes another worker's part."""
    name = "cleanup-of-wide"
    stop_at = "event=part_taken "

    def __init__(self, tables):
        super().__init__(tables)
        self.other = WideBackup(tables)

    def wants(self, point):
        return not point.in_engine and not point.what.startswith(("POST", "DELETE"))


class CleanupOfExport(Cleanup):
    name = "cleanup-of-export"
    stop_at = "event=step_done step=clone "

    def __init__(self, tables):
        super().__init__(tables)
        self.other = Export(tables)


class UndoOfExport(Undo):
    name, of = "undo-of-export", Export
    stop_at = "event=step_done step=clone "


# Those of kinds that this worker knows.
SCENARIO_CLASSES = [Backup, MappedBackup, BackupByTransfer, BackupByCheckpoint, BackupByHybrid, Restore, Upload,
                    RestoreAndStart, WideBackup, BackupPart, BackupPartByTransfer, WideRestore, RestorePart, RestorePartByUpload,
                    UndoOfBackup, UndoOfMap, UndoOfTransfer, UndoOfCheckpoint, UndoOfRestore, UndoOfUpload,
                    UndoOfWide, UndoOfBackupPart, UndoOfPartByTransfer, UndoOfWideRestore, UndoOfRestorePart,
                    UndoOfPartByUpload, CleanupOfBackup, CleanupOfWide, CleanupOfTransfer, CleanupOfCheckpoint,
                    CleanupOfHybrid, CleanupOfRestore, Inventory, Plan, List, Sweep, Prune, Verify, Export, UndoOfExport,
                    CleanupOfExport]


def scenarios(tables):
    kinds = {}
    for row in tables:
        kinds.setdefault(row["kind"], []).append(row["step"])
    return [make(kinds) for make in SCENARIO_CLASSES
            if getattr(make, "kind", None) in kinds or issubclass(make, Undo)]


# --- Faults ------------------------------------------------------------------------------------------
def kill_worker(cell, victim, release):
    """kill -9; started again at once, as a service manager would."""
    victim.kill()
    release()
    victim.start()


def kill_and_let_go_late(cell, victim, release):
    """The call of a dead worker takes effect when the next attempt has made its first steps."""
    victim.kill()
    victim.start()
    cell.await_takeover()
    time.sleep(1)
    release()


def zombie(cell, victim, release):
    """Stopped for longer than its lease; wakes when the next attempt is at work."""
    victim.stand()
    release()
    cell.await_takeover()
    time.sleep(1)
    victim.wake()


def cut_broker(cell, victim, release):
    """Its line to the broker is cut until somebody else has the task."""
    cell.lab.relays.tell(victim.name + ".broker", "refuse")
    release()
    cell.await_takeover()
    time.sleep(0.5)
    cell.lab.relays.tell(victim.name + ".broker", "heal")


def cut_engine(cell, victim, release):
    """Its line to the engine is cut for longer than a lease."""
    cell.lab.relays.tell(victim.name + ".engine", "refuse")
    release()
    time.sleep(1.5 * cell.lab.lease_s)
    cell.lab.relays.tell(victim.name + ".engine", "heal")


def kill_coordinator(cell, victim, release):
    """kill -9 of the coordinator, started again at once; the worker goes on."""
    cell.strikes.join()
    release()


FAULTS = {"kill-worker": kill_worker, "zombie": zombie, "cut-broker": cut_broker,
          "cut-engine": cut_engine, "kill-coordinator": kill_coordinator}
# A call that stands in the engine: is it made (or answered) after all when the fault is over?
GOES_ON = {"zombie", "cut-broker", "kill-coordinator"}
TAKEN_OVER = {"kill-worker", "zombie", "cut-broker"}


# --- Cells -------------------------------------------------------------------------------------------
class Cell:
    def __init__(self, lab, judge, zone, strikes):
        self.lab, self.judge, self.zone, self.strikes = lab, judge, zone, strikes
        self.points = lab.points[zone]
        self.workers = [w for w in lab.workers.values() if w.zone == zone]
        self.proxies = {w.proxy for w in self.workers}
        state = lab.sandbox.state()
        self.vms = [vm for vm in state["vms"] if re.fullmatch(zone + r"v\d+", vm["name"])]
        self.transfer_vm, self.mapped_vm = (next(vm for vm in state["vms"] if vm["name"] == zone + name)
                                            for name in ("t1", "m1"))
        self.checkpoint_vm = next(vm for vm in state["vms"] if vm["name"] == zone + "b1")
        self.has_checkpoint = False  # of that VM's first backup
        self.turn = self.number = 0
        self.points_of_vm = {}  # name of a VM -> the point to restore from
        self.kept = {}  # id of a VM -> snapshots whose references are kept
        self.rule = None  # of the point that is armed, where that is in the engine
        self.hit = self.hit_ms = None  # the task that was hit, as it was then

    def is_user(self, user):
        return any(w.user == user for w in self.workers)

    def next_vm(self):
        self.turn += 1
        return self.vms[self.turn % len(self.vms)]

    def base_points(self):
        """One restore point for each VM, proven, to restore from; its references are kept."""
        for vm in self.vms:
            if vm["name"] in self.points_of_vm:
                continue
            client = self.lab.ox("backup", vm["name"], "--zone", self.zone, "--path", "attach",
                                 name=f"base-{vm['name']}")
            self.points_of_vm[vm["name"]] = self.prove_backup(Run(client, "backup", vm=vm))
            self.kept[vm["id"]] = set(os.listdir(os.path.join(self.lab.frozen, vm["id"])))

    def prove_backup(self, run):
        """The restore point of a backup without a fault."""
        self.end(run)
        _, outcome, wrong = self.judge.main_task(run.client, "backup")
        wrong = wrong or self.judge.point_data(run.vm, outcome["point"])[0]
        if wrong:
            raise CaseFailed(f"backup of {run.vm['name']} without a fault: {wrong}")
        return outcome["point"]

    def forget_references(self, vm):
        self.judge.forget_references(vm["id"], self.kept.get(vm["id"], set()))

    def remove_vms(self, name):
        for vm in self.lab.sandbox.state()["vms"]:
            if vm["name"] == name:
                if vm["status"] != "down":
                    self.lab.engine("POST", f"vms/{vm['id']}/stop", "{}")
                    wait_for(f"VM {name} is down", 30, lambda: any(
                        v["name"] == name and v["status"] == "down"
                        for v in self.lab.sandbox.state()["vms"]))
                self.lab.engine("DELETE", f"vms/{vm['id']}")
        wait_for(f"VM {name} is removed", 30, lambda: all(
            vm["name"] != name for vm in self.lab.sandbox.state()["vms"]))

    # --- A dry run ---
    def trace(self, on):
        """Start the workers anew, with a trace or without."""
        for worker in self.workers:
            worker.end()
        self.points.trace(on)
        for worker in self.workers:
            worker.start()
        self.await_workers()

    def await_workers(self):
        def up():
            return all(any("event=broker_connected" in line for line in w.lines())
                       for w in self.workers)
        wait_for(f"the workers of {self.zone} serve", 60, up)

    # --- One case ---
    def arm(self, scenario, point, fault):
        """Returns what lets go of who stands at the point."""
        rule = f"{self.zone}-{self.number}"
        self.rule = rule if point.in_engine else None
        if not point.in_engine:
            self.points.arm(point.gate, point.regex, point.let_pass)
        else:
            self.lab.sandbox.add_fault(
                name=rule, user=scenario.user(self), method=point.method, path=point.path,
                skip=point.skip, when="after" if point.when == "during" else "before",
                action="hold" if fault in GOES_ON or point.when == "late" else "hang")

        def release():
            self.points.clear()
            if point.in_engine:
                self.lab.sandbox.remove_fault(rule)
        return release

    def reached(self):
        """The worker that stands at the point that is armed; true for one in the engine."""
        return self.lab.sandbox.fired(self.rule) if self.rule else self.points.hit()

    def await_hit(self, scenario, point, run):
        def look():
            hit = self.reached()
            if not hit and not scenario.ends_early and run.client.poll() is not None:
                raise NotReached(f"the point was not reached: {lines_of(run.client.output)}")
            return hit
        hit = wait_for("the point is reached", HIT_S, look)
        self.hit_ms = time.time() * 1000
        if point.in_engine:
            owner = self.lab.ledger.rows("SELECT worker FROM task WHERE zone = ? AND state = 'running' "
                                         "ORDER BY n DESC LIMIT 1", self.zone)[0]["worker"]
            return self.lab.workers[owner]
        return next(w for w in self.workers if w.process.pid == hit)

    def running(self):
        rows = self.lab.ledger.rows("SELECT * FROM task WHERE zone = ? AND state = 'running' "
                                    "ORDER BY n DESC LIMIT 1", self.zone)
        return rows[0] if rows else None

    def part_has_ended(self, run):
        return any(t["role"] == "part" and t["state"] not in ("waiting", "offered", "running")
                   for t in self.lab.ledger.tasks(run.request()))

    def part_has_begun(self, run):
        return any(t["role"] == "part" and t["state"] != "waiting" and t["worker"]
                   for t in self.lab.ledger.tasks(run.request()))

    def await_takeover(self):
        """Until the task that was hit has another owner, or has ended."""
        def look():
            rows = self.lab.ledger.rows("SELECT attempt, fence, state FROM task WHERE id = ?",
                                        self.hit["id"])
            return (rows[0]["state"] not in ("waiting", "offered", "running") or
                    (rows[0]["state"] == "running" and rows[0]["fence"] != self.hit["fence"]))
        wait_for("another attempt begins", END_S, look)

    def end(self, run):
        """The client has ended, and all is at rest."""
        run.client.wait(END_S)
        last = []
        vms = {vm["name"] for vm in (*self.vms, self.transfer_vm, self.mapped_vm, self.checkpoint_vm)}

        def rest():
            state = self.lab.sandbox.state()
            tasks = {t["id"] for t in self.lab.ledger.rows("SELECT id FROM task WHERE zone = ?", self.zone)}
            last[:] = (self.judge.engine_rest(state, vms, self.proxies) + self.judge.disks_rest(state, tasks) +
                       self.judge.transfers_rest(state, vms) + self.judge.ledger_rest(self.zone))
            last.extend(f"{w.name} still runs a task" for w in self.workers if w.runs_open() > 0)
            return not last
        try:
            wait_for("all is at rest", REST_S, rest)
        except TimeoutError as e:
            raise CaseFailed(f"not at rest within {REST_S} s: {last}") from e

    def sweep(self):
        """What nobody could know of is the janitor's."""
        client = self.lab.ox("sweep", "--zone", self.zone, name=f"{self.zone}-sweep-{self.number}")
        if client.wait(END_S) != 0:
            raise CaseFailed(f"sweep: exit code {client.returncode}")

    def zombie_changes(self, victim):
        """What the loser changed after somebody else was granted the task."""
        attempts = self.lab.ledger.attempts(self.hit["id"])
        later = [a for a in attempts if a["fence"] > self.hit["fence"]]
        if not later or later[0]["worker"] == victim.name:
            return []
        own = self.lab.ledger.rows("SELECT min(granted_ms) AS ms FROM attempt WHERE worker = ? AND "
                                   "granted_ms > ?", victim.name, later[0]["granted_ms"])[0]["ms"]
        return self.judge.changes_of(victim.user, later[0]["granted_ms"], own)

    def takeover_ms(self):
        later = [a for a in self.lab.ledger.attempts(self.hit["id"]) if a["fence"] > self.hit["fence"]]
        return later[0]["granted_ms"] - self.hit_ms if later else None

    def run_case(self, case, scenario, point, fault):
        """(what it came to, takeover time). Raises CaseFailed."""
        self.number += 1
        self.rule = None
        scenario.prepare(self)
        release = self.arm(scenario, point, fault)
        try:
            run = scenario.begin(self, f"{self.zone}-{self.number:04}")
            victim = self.await_hit(scenario, point, run)
            self.hit = self.running()
            if point.when == "late":
                kill_and_let_go_late(self, victim, release)
            else:
                FAULTS[fault](self, victim, release)
        finally:
            release()
            for worker in self.workers:
                worker.wake()
        run.client.wait(END_S)
        if point.when == "late":
            self.sweep()
        self.end(run)
        wrong = scenario.judge(self, run)
        if wrong:
            # The loser's last word may have come after all was at rest, and have opened a clean-up.
            self.end(run)
            wrong = scenario.judge(self, run)
        if run.client.returncode != scenario.exit_code:
            wrong.append(f"exit code {run.client.returncode}")
        if fault in ("zombie", "cut-broker"):
            wrong += self.zombie_changes(victim)
        if fault == "kill-coordinator" and run.task["attempt"] != 1:
            wrong.append(f"the coordinator's restart cost {run.task['attempt'] - 1} attempts")
        if wrong:
            raise CaseFailed("; ".join(wrong))
        scenario.after(self, run)
        return f"{run.task['attempt']}", self.takeover_ms() if fault in TAKEN_OVER else None

    def recover(self):
        """After a case that failed: all programs anew, so that the next case says something."""
        self.points.clear()
        for worker in self.workers:
            for line in ("broker", "engine"):
                self.lab.relays.tell(f"{worker.name}.{line}", "heal")
            worker.kill()
            worker.start()
        try:
            self.await_workers()
        except TimeoutError:
            pass


class Strikes:
    """Cells that want the coordinator killed at about the same time share one kill."""

    def __init__(self, strike, gather_s=1.0):
        self.strike, self.gather_s = strike, gather_s
        self.condition = threading.Condition()
        self.open = None  # the strike that is being gathered for

    def join(self):
        with self.condition:
            mine = self.open
            if mine is None:
                mine = self.open = {"done": False}
                leader = True
            else:
                leader = False
        if leader:
            time.sleep(self.gather_s)
            with self.condition:
                self.open = None
            self.strike()
            with self.condition:
                mine["done"] = True
                self.condition.notify_all()
            return
        with self.condition:
            self.condition.wait_for(lambda: mine["done"], 60)

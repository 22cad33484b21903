# SPDX-License-Identifier: Apache-2.0
"""The points at which a run can be hit, generated: the steps come from `oxbow-worker --steps`, the
calls in them from a dry run's trace (tests/lib/points). So a new step, and a new call that changes
something, is in the matrix by itself.
"""
import json
import re
import subprocess
from dataclasses import dataclass, field

ID = r"[0-9a-f-]{36}"
CALL = re.compile(r"event=engine_request method=(\S+) path=(\S+) status=(-?\d+)")
TASK = re.compile(r"event=task_started kind=(\S+) ")
STARTED = re.compile(r"event=(step|undo)_started step=(\S+)$")
ENDED = re.compile(r"event=(step_done|step_failed|undo_ended) step=(\S+)")
FILE = re.compile(r"^(before|failed) (create|mkdir|link|rename|unlink|fsync) (\S+)$")


@dataclass(frozen=True)
class Point:
    scenario: str
    step: str
    what: str  # start, end, POST-snapshots, link-fate; the second one of a step is called ....2
    when: str  # "" (of start and end), before, during, after, late
    # How to stop there, in the program (points.c) ...
    gate: str = field(default="", compare=False)
    regex: str = field(default="", compare=False)
    let_pass: int = field(default=0, compare=False)
    # ... or in the engine (a fault rule).
    method: str = field(default="", compare=False)
    path: str = field(default="", compare=False)
    skip: int = field(default=0, compare=False)

    @property
    def name(self):
        return "/".join(filter(None, (self.scenario, self.step, self.what, self.when)))

    @property
    def in_engine(self):
        return bool(self.method)

    def takes(self, fault):
        """What is late is so because of a worker that is gone."""
        return self.when != "late" or fault == "kill-worker"


def step_tables(worker):
    """[{kind, step, ...}] of a worker's program."""
    text = subprocess.run([worker, "--steps"], check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in text.splitlines()]


def path_pattern(path):
    return "^.*/api/" + re.sub(ID, ID, path) + "$"


def call_name(method, path):
    """POST vms/ID/snapshots -> POST-snapshots, DELETE vms/ID/snapshots/ID -> DELETE-snapshots."""
    words = [w for w in path.split("/") if not re.fullmatch(ID, w)]
    return f"{method}-{words[-1]}"


def file_name(operation, path):
    """link fate/TASK.1 -> (link-fate, its pattern); fsync fate -> fsync-fate-dir."""
    top, _, below = path.partition("/")
    if not below:
        return f"{operation}-{top}-dir" if operation == "fsync" else f"{operation}-{top}", f"{top}$"
    if operation == "fsync" and top == "packs" and re.fullmatch("[0-9a-f]{2}", below):
        return "fsync-packs-fan", r"packs/[0-9a-f]{2}$"
    own = "[.]" if below.rsplit("/", 1)[-1].startswith(".") else "[^./]"
    return f"{operation}-{top}", f"{top}/" + "[^/]*/" * below.count("/") + own


@dataclass
class Entry:
    kind: str  # call (of the engine), file (of the repository)
    operation: str  # method; link, fsync, ...
    path: str
    changes: bool = True  # False: it failed, and nothing has changed


class Trace:
    """What one process passed, cut into steps."""

    def __init__(self, lines):
        self.steps = []  # (name, [entry...]) in order
        self.changes = 0  # calls to the engine that change something
        self.kinds = set()  # of the tasks that it ran
        current = None
        for line in lines:
            started, ended = STARTED.search(line), ENDED.search(line)
            call, file, task = CALL.search(line), FILE.match(line), TASK.search(line)
            if task:
                self.kinds.add(task.group(1))
            if started:
                current = []
                undo = "undo-" if started.group(1) == "undo" else ""
                self.steps.append((undo + started.group(2), current))
            elif ended:
                current = None
            elif call and call.group(1) != "GET":
                self.changes += 1
                # Another task's lock was in the way, and the call came again: how often is never the same.
                if current is not None and call.group(3) != "409":
                    current.append(Entry("call", call.group(1), call.group(2)))
            elif file and current is not None:
                self.file(current, file)

    @staticmethod
    def file(entries, match):
        when, operation, path = match.groups()
        if when == "before":
            entries.append(Entry("file", operation, path))
            return
        for entry in reversed(entries):
            if (entry.operation, entry.path) == (operation, path):
                entry.changes = False
                return


class Names:
    """Numbers what happens more than once."""

    def __init__(self):
        self.counts = {}

    def count(self, key):
        """How often it was counted before."""
        self.counts[key] = self.counts.get(key, 0) + 1
        return self.counts[key] - 1

    def name(self, name):
        count = self.count(name)
        return name if count == 0 else f"{name}.{count + 1}"


def call_points(scenario, step, gate, call, name, in_step, in_run):
    """Before the engine sees it; when its effect is made and the answer is not read; when it is. Late:
    the engine has it, and does it when somebody else is at work already."""
    method, path = call
    for when in ("before", "during", "late"):
        yield Point(scenario, step, name, when, method=method, path=path_pattern(path), skip=in_run)
    logged = f"event=engine_request method={method} path=" + re.sub(ID, ID, path) + " "
    yield Point(scenario, step, name, "after", gate=gate, regex=logged, let_pass=in_step)


def points_of(scenario, trace, task_gate=None):
    """Every point of a traced run. Between two calls that change files there is one state only, so
    each has a 'before', and those have an 'after' that decide something (link) or are the last.
    `task_gate`: where other workers pass the same steps at the same time, what only this run's
    process passes first; then its points are counted from there on, and not from their step."""
    run, passed_in_run = Names(), Names()
    for step, entries in trace.steps:
        undo, step_name = step.startswith("undo-"), step.removeprefix("undo-")
        started = f"event={'undo' if undo else 'step'}_started step={step_name}$"
        gate = task_gate or started
        yield Point(scenario, step, "start", "", gate=task_gate or "", regex=started)
        names, passed = Names(), passed_in_run if task_gate else Names()
        last = ([e for e in entries if e.kind == "file" and e.changes] or [None])[-1]
        for e in entries:
            if e.kind == "call":
                key = (e.operation, path_pattern(e.path))
                yield from call_points(scenario, step, gate, (e.operation, e.path),
                                       names.name(call_name(e.operation, e.path)), passed.count(key),
                                       run.count(key))
                continue
            name, pattern = file_name(e.operation, e.path)
            count = passed.count((e.operation, pattern))
            if not e.changes:
                continue
            name = names.name(name)
            if "-pins." in name:
                continue  # how many packs of others are pinned is never the same
            for when in ("before", "after"):
                if when == "before" or e.operation == "link" or e is last:
                    yield Point(scenario, step, name, when, gate,
                                f"^{when} {e.operation} {pattern}", count)
        yield Point(scenario, step, "end", "", gate=task_gate or "",
                    regex=f"event={'undo_ended' if undo else 'step_done'} step={step_name} ")

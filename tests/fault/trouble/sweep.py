#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Writes a restore point with the real worker program once for each call that changes something in
the repository, and lets that call go wrong: `kill` (kill -9 right before it, and right after it) or
`error` (it fails, with or without its effect). After each: the earlier point verifies; the new one is
there whole or not at all; the next attempt succeeds; what both hold is right, bit by bit.

usage: sweep.py kill|error BIN DIRECTORY
"""
import concurrent.futures
import os
import shutil
import subprocess
import sys

MIB = 1 << 20
FIRST, NEXT, LAST = (f"0000000{n}-aaaa-4aaa-8aaa-aaaaaaaaaaaa.1" for n in (1, 2, 3))
# What the call answers, and whether it had its effect all the same (as over NFS).
ERRORS = [("EIO", "before"), ("ESTALE", "after"), ("ENOSPC", "before"), ("EIO", "after"),
          ("EDQUOT", "before"), ("EROFS", "before")]


class Case:
    """One repository, thrown away afterwards."""

    def __init__(self, bench, name):
        self.bench = bench
        self.dir = os.path.join(bench.dir, name)
        self.repository = os.path.join(self.dir, "r")
        os.mkdir(self.dir)
        shutil.copytree(bench.template, self.repository)

    def worker(self, *arguments, rules=None, log=None):
        env = dict(os.environ)
        if rules is not None:
            env |= {"LD_PRELOAD": self.bench.lib, "IO_FAULTS_PATH": self.repository,
                    "IO_FAULTS": rules}
        if log:
            env["IO_FAULTS_LOG"] = log
        return subprocess.run([self.bench.program, "repo", *arguments], env=env, timeout=300,
                              capture_output=True, text=True, check=False)

    def write(self, point, image, **more):
        return self.worker("import", self.repository, image, "--vm", "web", "--threads", "1",
                           "--point", point, **more)

    def points(self):
        listed = self.worker("list", self.repository, "--json")
        assert listed.returncode == 0, listed.stderr
        return [p for p in (FIRST, NEXT, LAST) if p in listed.stdout]

    def must_hold(self, point, image):
        out = os.path.join(self.dir, "out")
        got = self.worker("export", self.repository, point, "--output", out)
        assert got.returncode == 0, f"export of {point}: {got.stderr}"
        with open(out, "rb") as a, open(image, "rb") as b:
            assert a.read() == b.read(), f"{point} does not hold what was written"
        os.unlink(out)

    def judge(self, outcome):
        """After the trouble; says what became of the new point."""
        bench = self.bench
        there = self.points()
        assert FIRST in there, "the earlier point is gone"
        verified = self.worker("verify", self.repository)
        assert verified.returncode == 0, f"verify: {verified.stdout}{verified.stderr}"
        if outcome == 0:
            assert NEXT in there, "success was reported, and there is no point"
        if NEXT in there:
            self.must_hold(NEXT, bench.second)
        again = self.write(LAST, bench.third)
        assert again.returncode == 0, f"the next attempt: {again.stderr}"
        verified = self.worker("verify", self.repository)
        assert verified.returncode == 0, f"verify at last: {verified.stdout}{verified.stderr}"
        self.must_hold(FIRST, bench.first)
        self.must_hold(LAST, bench.third)
        shutil.rmtree(self.dir)
        return NEXT in there


class Bench:
    def __init__(self, bin_dir, directory):
        self.dir = directory
        self.program = os.path.join(bin_dir, "oxbow-worker")
        self.lib = os.path.join(bin_dir, "../lib/io_faults.so")
        self.template = os.path.join(directory, "template")
        self.first, self.second, self.third = (os.path.join(directory, n) for n in "123")
        first = bytearray(os.urandom(2 * MIB))
        for path, change in ((self.first, 0), (self.second, 300000), (self.third, 900000)):
            first[change:change + 500000] = os.urandom(500000)
            with open(path, "wb") as f:
                f.write(first)
        subprocess.run([self.program, "repo", "init", self.template], check=True,
                       stdout=subprocess.DEVNULL)
        subprocess.run([self.program, "repo", "import", self.template, self.first, "--vm", "web",
                        "--point", FIRST], check=True, stdout=subprocess.DEVNULL)

    def count(self):
        """The calls that change something, in order."""
        case = Case(self, "count")
        log = os.path.join(self.dir, "log")
        done = case.write(NEXT, self.second, rules="", log=log)
        assert done.returncode == 0, done.stderr
        case.judge(0)
        with open(log, encoding="utf-8") as f:
            return [line.split(" ", 1)[1].strip() for line in f]


def kill_at(bench, number, when):
    case = Case(bench, f"kill.{number}.{when}")
    done = case.write(NEXT, bench.second, rules=f"change at={number} {when} kill")
    assert done.returncode == -9, f"exit {done.returncode}: {done.stderr}"
    return f"killed {when}", case.judge(None)


def fail_at(bench, number, error):
    name, when = error
    case = Case(bench, f"error.{number}.{name}.{when}")
    done = case.write(NEXT, bench.second, rules=f"change at={number} {when} error={name}")
    assert done.returncode in (0, 1), f"exit {done.returncode}: {done.stderr}"
    return f"{name} {when}: exit {done.returncode}", case.judge(done.returncode)


def main(mode, bin_dir, directory):
    bench = Bench(bin_dir, directory)
    calls = bench.count()
    assert len(calls) > 30, calls
    work = []
    for number in range(1, len(calls) + 1):
        if mode == "kill":
            work += [(kill_at, number, "before"), (kill_at, number, "after")]
        else:
            work += [(fail_at, number, ERRORS[(number + n) % len(ERRORS)]) for n in (0, 3)]
    bad = whole = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = [(w, pool.submit(w[0], bench, *w[1:])) for w in work]
        for (_, number, what), job in jobs:
            try:
                text, there = job.result()
                whole += there
            except AssertionError as e:
                bad += 1
                print(f"{number} {calls[number - 1]}: {what}: {e}")
                continue
            if os.environ.get("VERBOSE"):
                print(f"{number} {calls[number - 1]}: {text}, new point {'whole' if there else 'none'}")
    print(f"{len(calls)} calls, {len(work)} cases: the new point was whole {whole} times, else none; "
          f"{bad} bad")
    # Nearly all of it happens before the commit record; some after it.
    assert 0 < whole < len(work) / 2 or mode == "error", "the sweep did not cross the commit"
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

# SPDX-License-Identifier: Apache-2.0
"""What the lint tests share: the files of the project, C code without comments and strings, and a
way to report."""
import os
import re
import subprocess
import sys

TOP = os.environ.get("OXBOW_SOURCE_DIR") or os.path.dirname(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
)


def files(suffixes=None):
    """Paths, relative to the top, of what belongs to the project: tracked and new files, or (in an
    unpacked archive) all outside the build folder."""
    git = subprocess.run(
        ["git", "-C", TOP, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
    )
    if git.returncode == 0:
        names = [n for n in git.stdout.decode().split("\0") if n]
    else:
        names = []
        for folder, folders, leaves in os.walk(TOP):
            folders[:] = [f for f in folders if f not in ("build", ".git", "__pycache__")]
            names += [os.path.relpath(os.path.join(folder, leaf), TOP) for leaf in leaves]
    names = [n for n in names if os.path.isfile(os.path.join(TOP, n))]
    if suffixes:
        names = [n for n in names if n.endswith(suffixes)]
    return sorted(names)


def read(name):
    with open(os.path.join(TOP, name), "rb") as f:
        return f.read()


def text(name):
    """The contents as text, or None for a binary file."""
    data = read(name)
    if b"\0" in data:
        return None
    return data.decode("utf-8", "replace")


TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def code(name):
    """C code with comments and the contents of strings blanked; line numbers stay."""

    def blank(match):
        return re.sub(r"[^\n]", " ", match.group())

    return TOKEN.sub(blank, text(name))


faults = []


def fault(name, line, what):
    faults.append(f"{name}:{line}: {what}" if line else f"{name}: {what}")


def line_of(content, position):
    return content.count("\n", 0, position) + 1


def finish(checked):
    """Ends the test: fails with all faults, or when nothing was checked."""
    for f in faults:
        print(f)
    if not checked:
        print("nothing was checked: is OXBOW_SOURCE_DIR right?")
        sys.exit(1)
    print(f"{checked} checked, {len(faults)} faults")
    sys.exit(1 if faults else 0)

"""The system calls of a run of cas, by strace: listed, and faults put into one of them.

strace counts the calls of each thread by name. So that a number means one call, these runs have one thread: a batch
runs where it is submitted, as it would if the main thread were slow. gpg's processes are not followed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scene import Sender
from support import Run

ONE_THREAD = """
import sys

class Inline:
    def __init__(self, places, **options): pass
    def submit(self, work, *arguments): work(*arguments)
    def shutdown(self): pass

import cas.crew
cas.crew.ThreadPoolExecutor = Inline
from cas.cli import main
sys.exit(main(sys.argv[1:]))
"""
CHANGING = (
    *("mkdir", "openat", "write", "pwrite64", "ftruncate", "fchown", "fchmod", "chmod", "flock"),
    *("rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat", "rmdir"),
)
SYNCING = ("fsync", "fdatasync", "syncfs", "sync_file_range")
LOOKING = ("close", "getdents64", "lstat", "newfstatat", "pread64", "read", "stat")
CALL = re.compile(r"(?:\d+ +)?(\w+)\((.*)")
STREAM = re.compile(r"[12][<,]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One system call of a run: the `number`th of its name. `text` is as strace shows it, without the name."""

    name: str
    number: int
    text: str

    @property
    def changes(self) -> bool:
        """It may change something on disk, or bring it there."""
        if self.name == "openat":
            return "O_CREAT" in self.text or "O_TRUNC" in self.text
        return self.name in (*CHANGING, *SYNCING)

    def touches(self, *places: Path | str) -> bool:
        """It names a path below one of these, or a file that is."""
        return any(f"{place}" in self.text for place in places)

    @property
    def says(self) -> bool:
        """It writes to standard output or standard error."""
        return self.name == "write" and STREAM.match(self.text) is not None


def strace() -> str:
    """The program; fails where it is missing."""
    found = shutil.which("strace")
    assert found, "`strace` not found: apt-get install strace"
    return found


def calls(trace: Path) -> list[Call]:
    """The calls in what strace wrote."""
    numbers = Counter[str]()
    found = []
    for line in trace.read_text(encoding="utf-8", errors="replace").splitlines():
        if match := CALL.match(line):
            name, text = match.groups()
            numbers[name] += 1
            found.append(Call(name=name, number=numbers[name], text=text))
    return found


def command(trace: Path, argv: Sequence[str | Path], *, inject: str | None = None, whole: bool = False) -> list[str]:
    """`cas` with these words, under strace.

    `inject` is strace's: `NAME:signal=KILL:when=3`. `whole`: the trace has all bytes, each as `\\xNN`.
    """
    known = ",".join(f"?{name}" for name in (*CHANGING, *SYNCING, *LOOKING))
    shown = ["-xx", "-s", "1000000"] if whole else ["-s", "200"]
    options = ["-y", *shown, "-o", str(trace), "-e", f"trace={known}"]
    if inject:
        options += ["-e", f"inject={inject}"]
    return [strace(), *options, sys.executable, "-c", ONE_THREAD, *map(str, argv)]


def traced(
    sender: Sender, trace: Path, *argv: str | Path, inject: str | None = None, whole: bool = False, timeout: float = 120
) -> Run:
    """Runs cas under strace; the code is that of cas, negative for a signal that ended it."""
    run = subprocess.run(
        command(trace, argv, inject=inject, whole=whole),
        cwd=sender.project,
        env=sender.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Run(code=run.returncode, out=run.stdout, err=run.stderr)


def killed(trace: Path) -> bool:
    """Whether strace saw the process end by SIGKILL."""
    return "+++ killed by SIGKILL" in trace.read_text(encoding="utf-8", errors="replace")


def injected(trace: Path) -> bool:
    """Whether strace put its error into a call."""
    return "(INJECTED)" in trace.read_text(encoding="utf-8", errors="replace")

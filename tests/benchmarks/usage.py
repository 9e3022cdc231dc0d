"""Processor time of processes: of one that has ended, of those that live on, and of what they left behind. Linux."""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of linux/prctl.h
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What a process took from its start to its end: seconds, those of processors, and the most memory in MB."""

    seconds: float
    processor: float
    memory: float


def ran(command: Sequence[str | Path], environment: Mapping[str, str], folder: Path) -> Used:
    """Run a program that has to succeed; its children that it has waited for count as its own."""
    started = time.perf_counter()
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            [str(word) for word in command], env=dict(environment), cwd=folder, stdout=subprocess.DEVNULL, stderr=said
        )
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    assert process.returncode == 0, (folder / "said").read_text(encoding="utf-8", errors="replace")[-2000:]
    return Used(seconds=seconds, processor=used.ru_utime + used.ru_stime, memory=used.ru_maxrss / 1024)


def processor(processes: Iterable[int]) -> float:
    """Seconds of processors that living processes have taken so far, and those of their children that have ended."""
    total = 0
    for process in processes:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        total += sum(map(int, fields[11:15]))
    return total / TICKS


def busy() -> float:
    """Seconds for which the processors of this machine have been at work so far, or were not to be had."""
    fields = [int(word) for word in Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]]
    idle, waiting = fields[3:5]
    return (sum(fields) - idle - waiting) / TICKS


def adopt() -> None:
    """Have this process be the parent of what its descendants leave behind: a session's children outlive it."""
    ctypes.CDLL(None, use_errno=True).prctl(SUBREAPER, 1, 0, 0, 0)


def left_behind(known: Collection[int]) -> float:
    """Seconds of processors of what was left behind here and has ended; `known`: children of this process's own."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()
    total = 0.0
    for child in set(map(int, children)) - set(known):
        found, _, used = os.wait4(child, os.WNOHANG)
        total += used.ru_utime + used.ru_stime if found else 0.0
    return total

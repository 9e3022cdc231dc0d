"""Confinement: a function is run in a child process that has so much processor time and memory, and no more. Acts."""

from __future__ import annotations

import fcntl
import mmap
import os
import pickle
import resource
import signal
import traceback
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from cas.errors import CasError

T = TypeVar("T")
Note = Callable[[str], None]
Outcome = Callable[[], tuple[int, bytes]]  # how a child ends, and what it writes

LONGEST_NOTE = 1024  # bytes
PIECE = 1 << 20
UNKNOWN_SIZE = 1 << 30  # what a process may have mapped, where no /proc tells
# How a child ends. Nothing has to be allocated to say that there is no memory left.
RESULT, REFUSED, BUG, NO_MEMORY = 0, 11, 12, 13
# Held back while there is a child that nobody knows of yet, or that is being ended.
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
HINT = "look for what repeats, or makes a long text; or split the manifest"


class ConfinementError(CasError):
    """What was run took more than it may have, or ended without a result. `at`: what it noted last, or nothing."""

    def __init__(self, message: str, *, code: str, hint: str | None = None, at: str = "") -> None:
        super().__init__(message, code=code, hint=hint)
        self.at = at


def confined(work: Callable[[Note], T], *, seconds: int, memory: int) -> T:
    """What `work` returns, as plain data; a CasError that it raises is raised here. Other errors are bugs.

    `work` calls the function that it is given with what it is at, for a ConfinementError. It has `seconds`
    of processor time, and `memory` bytes beside what this process already has; it can put nothing into a file. It may
    start processes: there is no limit to that which root would heed.

    To be called before a thread is started: the child has only the one that called, and a lock that another one holds
    would be held for ever. However this is left, the child has ended, and is no zombie.
    """
    with mmap.mmap(-1, LONGEST_NOTE) as noted:

        def note(text: str) -> None:
            noted[:] = text.encode(errors="replace")[:LONGEST_NOTE].ljust(LONGEST_NOTE, b"\0")

        content, status = _run(lambda: _outcome(work, note), seconds=seconds, memory=memory)
        opened: T = _opened(content, status, seconds, noted[:].rstrip(b"\0").decode(errors="replace"))
        return opened


def _outcome(work: Callable[[Note], Any], note: Note) -> tuple[int, bytes]:
    try:
        return RESULT, pickle.dumps(work(note))
    except CasError as error:
        return REFUSED, pickle.dumps(error)


def _run(outcome: Outcome, *, seconds: int, memory: int) -> tuple[bytearray, int]:
    """What the child wrote, and the status that it ended with."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        reading, writing = os.pipe()
        try:
            child = _forked(lambda: _child(outcome, reading, writing, seconds, memory))
        except CasError:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        return _awaited(child, reading, mask)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _forked(run: Callable[[], NoReturn]) -> int:
    try:
        child = os.fork()
    except OSError as error:
        reason = f"no process could be started for the templates: {error.strerror}"
        raise ConfinementError(reason, code="no-process") from error
    return child or run()


def _awaited(child: int, reading: int, mask: set[int]) -> tuple[bytearray, int]:
    content = bytearray()
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        while piece := os.read(reading, PIECE):
            content += piece
    finally:
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        finally:  # even if a signal was raised just there
            os.close(reading)
            os.kill(child, signal.SIGKILL)  # changes nothing for one that has ended: its status stands already
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return content, status


def _child(outcome: Outcome, reading: int, writing: int, seconds: int, memory: int) -> NoReturn:
    """Flushes no stream that the parent will flush, and runs nothing that the parent will run at its exit."""
    status = BUG
    try:
        os.close(reading)
        status, content = _guarded(outcome, writing, seconds, memory)
        _write(writing, content)
    except MemoryError:
        status = NO_MEMORY
    finally:
        os._exit(status)


def _guarded(outcome: Outcome, writing: int, seconds: int, memory: int) -> tuple[int, bytes]:
    try:
        _leave_signals()
        _end_with_parent(writing)
        _limit(seconds, memory)
        return outcome()
    except MemoryError:
        raise
    except BaseException:
        return BUG, traceback.format_exc().encode(errors="backslashreplace")


def _leave_signals() -> None:
    """The parent's handlers are the parent's. A ^C goes to both: what becomes of the child is for the parent to say."""
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGIO, signal.SIGXCPU):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _end_with_parent(writing: int) -> None:
    """SIGIO, which ends a process, comes when nobody is left to read from the pipe, whatever ended the parent."""
    fcntl.fcntl(writing, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(writing, fcntl.F_SETFL, os.O_ASYNC)


def _write(writing: int, content: bytes) -> None:
    fcntl.fcntl(writing, fcntl.F_SETFL, 0)  # from here on SIGIO would come for each piece that is read too
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(writing, rest) :]


def _limit(seconds: int, memory: int) -> None:
    # Between the two limits the kernel tells by SIGXCPU, which ends the process, that it was the time.
    _set(resource.RLIMIT_CPU, seconds, seconds + 1)
    _set(resource.RLIMIT_CORE, 0, 0)
    _set(resource.RLIMIT_FSIZE, 0, 0)
    most = _mapped() + memory
    _set(resource.RLIMIT_AS, most, most)


def _set(kind: int, soft: int, hard: int) -> None:
    """A limit that is lower already stays."""
    most = resource.getrlimit(kind)[1]
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), min(hard, most)
    resource.setrlimit(kind, (soft, hard))


def _mapped() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[0]) * mmap.PAGESIZE
    except OSError:
        return UNKNOWN_SIZE


def _opened(content: bytearray, status: int, seconds: int, note: str) -> Any:
    if status == RESULT and content:
        return pickle.loads(content)  # noqa: S301 (from our own child)
    if status == REFUSED:
        raise pickle.loads(content)  # noqa: S301
    if status == BUG and content:
        raise RuntimeError("in the confined process:\n" + content.decode())
    raise ConfinementError(_reason(status, seconds), code="template-limit", hint=HINT, at=note)


def _reason(status: int, seconds: int) -> str:
    if status == -signal.SIGXCPU:
        return f"the templates took more than {seconds} s of processor time"
    if status == NO_MEMORY:
        return "the templates took more memory than they may have"
    if status < 0:
        return f"the process of the templates was ended by {signal.Signals(-status).name}"
    return f"the process of the templates ended without a result, with exit code {status}"

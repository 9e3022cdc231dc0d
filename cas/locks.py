"""Locks: one for each inbox, on this machine, held while a batch of it moves. Files in the state folder; acts.

They keep runs out of each other's way; that nothing is doubled rests on the claim in the inbox, not on them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from cas.creation import make_private
from cas.errors import CasError, HaltError, reason

FOLDER = "locks"
LOOK_EVERY = 0.1


class LockError(CasError):
    """Another run holds an inbox for too long, or its lock cannot be used."""


@contextmanager
def held(
    inboxes: Iterable[str],
    folder: Path,
    *,
    patience: float,
    pause: Callable[[float], None],
    stop: Callable[[], HaltError | None],
) -> Iterator[None]:
    """Hold the lock of each inbox. Waits up to `patience` seconds for all of them; raises LockError or HaltError."""
    waited = 0.0
    with ExitStack() as stack:
        for inbox in sorted(set(inboxes)):  # in one order, so that no two runs wait for each other
            path = folder / FOLDER / hashlib.sha256(inbox.encode()).hexdigest()[:32]
            handle = stack.enter_context(_opened(path))
            while not _taken(handle, path):
                if error := stop():
                    raise error
                if waited >= patience:
                    raise LockError(
                        f"another run ({_holder(handle)}) is delivering to {inbox}",
                        code="locked",
                        hint="when it has ended: cas retry --all; or wait longer: --lock-timeout SECONDS",
                    )
                pause(LOOK_EVERY)
                waited += LOOK_EVERY
            with suppress(OSError):  # no room for the note: the lock is held all the same
                os.truncate(handle, 0)
                os.pwrite(handle, f"process {os.getpid()}".encode(), 0)
        yield


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        make_private(path.parent)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        yield handle
    finally:
        os.close(handle)  # which lets go of the lock


def _taken(handle: int, path: Path) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise _unusable(path, error) from error
    return True


def _unusable(path: Path, error: OSError) -> LockError:
    hint = "see that the state folder can be written, and is on a file system with locks; or take another: --state-dir"
    return LockError(f"the lock `{path}` cannot be used: {reason(error)}", code="lock", hint=hint)


def _holder(handle: int) -> str:
    return os.pread(handle, 100, 0).decode("ascii", "replace") or "of unknown process"

"""HALT: whether the file that stops all sending is there, and what it says; setting and lifting it. One small file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from cas.creation import create_all, sync
from cas.errors import CasError, HaltError, reason

NAME = "HALT"
MACHINE = Path("/etc/cross-agent-comms")
"""The folder whose HALT counts for every account of this machine; root's."""
LONGEST_REASON = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """A HALT that stands: its path, and the reason that its text gives ("" where it gives none)."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """What came of setting HALT. `new`: none stood before. `fault`: what is wrong with it all the same, or ""."""

    new: bool
    fault: str = ""


def standing(folders: Iterable[Path]) -> Halt | None:
    """The first HALT found in these configuration folders. Whatever is not surely absent counts as HALT."""
    for folder in folders:
        path = folder / NAME
        try:
            os.lstat(path)  # not `exists`, which is false for a dangling link
        except FileNotFoundError:
            continue
        except OSError as error:
            return Halt(path=path, reason=f"it cannot be looked at: {reason(error)}")
        return Halt(path=path, reason=_reason(path))
    return None


def text(reason: str | None, who: str, when: str) -> str:
    """What a HALT says: why, if that was said, then who set it and when."""
    said = " ".join((reason or "").split()).encode("utf-8", "replace").decode()  # an argument may be any bytes
    return f"{said + ' ' if said else ''}(set by {who} at {when})\n"


def place(folder: Path, words: str) -> Placed:
    """Set HALT in a configuration folder: whole, on disk, or else as well as it can be made. What stands is left.

    Raises CasError where none can be made.
    """
    try:
        create_all({folder / NAME: words.encode()})
    except CasError as error:
        if error.code == "exists":
            return Placed(new=False)
        return _placed_at_once(folder / NAME, words, error)
    return Placed(new=True)


def fault(words: str, stands: str, why: str) -> str:
    """What is wrong with a HALT that was to say `words`, and says `stands`."""
    what = "it is not sure to be on disk" if stands == words.strip() else "its words are not all there"
    return f"{what}: {why}"


def lift(halt: Halt) -> None:
    """Take a HALT away. Raises CasError for what is no file, or not ours to take away."""
    try:
        os.unlink(halt.path)
    except FileNotFoundError:
        return
    except OSError as error:
        hint = f"see what stands there: ls -ld {halt.path}"
        raise CasError(f"`{halt.path}` cannot be removed: {reason(error)}", code="not-lifted", hint=hint) from error


def refuse(halt: Halt) -> HaltError:
    """The error of a HALT that stands."""
    said = f": {halt.reason}" if halt.reason else ""
    return HaltError(f"HALT is set{said}", code="halt", hint=f"when it may go on: cas resume, or rm {halt.path}")


def _placed_at_once(path: Path, words: str, error: CasError) -> Placed:
    """Under its name from the start: where links cannot be made; empty, which counts, where nothing can be written."""
    why = reason(error.__cause__) if isinstance(error.__cause__, OSError) else str(error)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:  # ours, when only the last sync failed; else another's
        new = _reason(path) == words.strip()
        return Placed(new=new, fault=fault(words, words.strip(), why) if new else "")
    except OSError:
        raise error from error.__cause__
    try:
        with open(handle, "wb", buffering=0) as file:
            whole = _written(file, words.encode())
            os.fsync(file.fileno())
        sync(path.parent)
    except OSError as problem:
        whole, why = False, reason(problem)
    return Placed(new=True, fault="" if whole else fault(words, _reason(path), why))


def _written(file: FileIO, content: bytes) -> bool:
    """Write all of it, or leave the file empty."""
    if file.write(content) == len(content):
        return True
    file.truncate(0)
    return False


def _reason(path: Path) -> str:
    try:
        # Not blocking: a FIFO without a writer would wait for ever. No link: it could lead to somebody's secret.
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return "it is not a file that can be read"
            return file.read(LONGEST_REASON).decode("utf-8", "replace").strip()
    except OSError as error:
        return f"it cannot be read: {reason(error)}"

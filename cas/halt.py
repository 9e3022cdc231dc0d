"""HALT: whether the file that stops all sending is there, and what it says. Looks at files; writes none."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cas.errors import HaltError, reason

NAME = "HALT"
LONGEST_REASON = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """A HALT that stands: its path, and the reason that its text gives ("" where it gives none)."""

    path: Path
    reason: str


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


def refuse(halt: Halt) -> HaltError:
    """The error of a HALT that stands."""
    said = f": {halt.reason}" if halt.reason else ""
    return HaltError(f"HALT is set{said}", code="halt", hint=f"when it may go on: rm {halt.path}")


def _reason(path: Path) -> str:
    try:
        # Not blocking: a FIFO without a writer would wait for ever.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return "it is not a file that can be read"
            return file.read(LONGEST_REASON).decode("utf-8", "replace").strip()
    except OSError as error:
        return f"it cannot be read: {reason(error)}"

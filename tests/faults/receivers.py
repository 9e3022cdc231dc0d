"""A receiver at work while senders come and go, and the verdict over what it saw, what it took, and what lies there."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from types import TracebackType

from scene import Verdict, verdict
from support import pairs

LOOK_EVERY = 0.002


class Habit(Enum):
    IDLE = "idle"
    MOVING = "moving"
    DELETING = "deleting"


@dataclass(slots=True, kw_only=True)
class Receiver:
    """Looks into an inbox all the time, in a thread of its own; moves or deletes each pair as it finds it."""

    inbox: Path
    habit: Habit
    taken: list[bytes] = field(default_factory=list)
    unsigned: set[str] = field(default_factory=set)
    _ended: threading.Event = field(default_factory=threading.Event)
    _error: BaseException | None = None
    _thread: threading.Thread | None = None

    def __enter__(self) -> Receiver:
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        assert self._thread is not None
        self._thread.join()
        if self._error and not error:
            raise self._error

    def look(self) -> None:
        """One look, as receivers do it: what is complete is taken, what has no signature is noted."""
        names = pairs(self.inbox)
        for name in names:
            if not name.endswith(".org"):
                continue
            if not os.path.lexists(self.inbox / f"{name}.asc"):
                self.unsigned.add(name)
            elif self.habit is not Habit.IDLE:
                self._take(name)

    def _take(self, name: str) -> None:
        self.taken.append((self.inbox / name).read_bytes())
        for file in (name, f"{name}.asc"):
            if self.habit is Habit.DELETING:
                (self.inbox / file).unlink()
            else:
                shelf = self.inbox.parent / "read"
                shelf.mkdir(exist_ok=True)
                (self.inbox / file).rename(shelf / f"{len(self.taken)}-{file}")

    def _work(self) -> None:
        try:
            while not self._ended.wait(LOOK_EVERY):
                self.look()
        except BaseException as error:
            self._error = error


def judged(receiver: Receiver, expected: Iterable[bytes]) -> Verdict:
    """What is wrong once nobody sends any more; all messages are taken to be signed ones."""
    receiver.look()
    found = verdict(receiver.inbox, expected, signed=True, taken=receiver.taken)
    return replace(found, unsigned=len(receiver.unsigned))

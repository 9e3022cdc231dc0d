"""Tenths: a long run for those who read lines, where one for each event would be more than anybody reads."""

from __future__ import annotations

from collections.abc import Callable

from cas.events import DeliveryFinished, Event, FilePublished, RunFinished, RunStarted
from cas.names import timestamp

MOST_LINES = 1000


class Tenths:
    """Says the beginning, each tenth that is done, and the end."""

    def __init__(self, total: int, say: Callable[[str], None]) -> None:
        self._total = total
        self._say = say
        self._done: set[str] = set()
        self._told = 0

    def take(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._say(f"{timestamp(event.time)} started: {self._total} to deliver")
            case DeliveryFinished():
                self._count(event)
            case FilePublished() if not event.file.endswith(".asc"):
                self._count(event)
            case RunFinished():
                self._say(f"{timestamp(event.time)} finished with exit code {int(event.exit_code)}")
            case _:
                pass

    def _count(self, event: DeliveryFinished | FilePublished) -> None:
        self._done.add(event.identity)
        tenths = 10 * len(self._done) // self._total
        if tenths > self._told:
            self._told = tenths
            self._say(f"{timestamp(event.time)} {len(self._done)} of {self._total} done")

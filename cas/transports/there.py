"""cas on the receiving machine: the same delivery code, run there, for the time of one connection.

`remote` sends this module and those that it imports over the connection; nothing is installed. Orders come on standard
input, a JSON object a line (`wire`); answers go to standard output. When the connection ends, so does this: whatever
stands then is finished by the next run, as after every other interruption.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cas.errors import CasError, HaltError
from cas.transports import wire
from cas.transports.attempt import Progress, attempt
from cas.transports.files import Kind, T, Task
from cas.transports.local import LocalFiles
from cas.transports.transport import Claim, Transport

SILENCE = 2.0
"""Seconds after which a long step says that it goes on."""


class Line:
    """Orders in, answers out."""

    def __init__(self) -> None:
        self._orders = wire.Lines()
        self._answers: list[bytes] = []
        self._said = time.monotonic()

    def next(self, *, wait: bool) -> wire.Fields | None:
        """The next order; None where none has come, and without `wait`, or at the end."""
        while not self._orders:
            if not wait and not select.select([0], [], [], 0)[0]:
                return None
            self.flush()
            content = os.read(0, 1 << 20)
            if not content:
                return None
            self._orders.take(content)
        return self._orders.next()

    def say(self, answer: wire.Fields) -> None:
        """Answer, no later than at the next wait."""
        self._answers.append(wire.line(answer))

    def flush(self) -> None:
        """Send what was said."""
        rest = memoryview(b"".join(self._answers))
        self._answers.clear()
        while rest:
            rest = rest[os.write(1, rest) :]
        self._said = time.monotonic()

    def go_on(self) -> None:
        """Have the other side know that this is at work."""
        if time.monotonic() - self._said > SILENCE:
            self.say({"alive": True})
            self.flush()


class Files(LocalFiles):
    """This machine's files; long steps say that they go on."""

    def __init__(self, home: Path, line: Line) -> None:
        super().__init__(home)
        self._line = line

    def run(self, tasks: Iterable[Task[T]]) -> list[T | CasError]:
        return super().run(self._watched(tasks))

    def _watched(self, tasks: Iterable[Task[T]]) -> Iterable[Task[T]]:
        for task in tasks:
            self._line.go_on()
            yield task


class Publisher(Transport):
    """The verbs here, with a count of the publications that were asked for."""

    asked = 0

    async def publish_message(self, claim: Claim) -> bool:
        self.asked += 1
        return await super().publish_message(claim)


class Leave:
    """Publications are asked for only so far as the sender gives leave; it looks for HALT before it does."""

    def __init__(self, line: Line, publisher: Publisher) -> None:
        self._line, self._publisher = line, publisher
        self._given = 0
        self._stopped: HaltError | None = None

    def stop(self) -> HaltError | None:
        """Why nothing more may be published, if so. Waits until leave is given."""
        while not self._stopped and (order := self._line.next(wait=False)):
            self._take(order)
        if not self._stopped and self._publisher.asked >= self._given:
            self._line.say({"ask": True})
            while not self._stopped and self._publisher.asked >= self._given:
                self._take(self._line.next(wait=True) or {"gone": True})
        return self._stopped

    def _take(self, order: wire.Fields) -> None:
        match order:
            case {"leave": int(number)}:
                self._given = number
            case {"halt": dict(error)}:
                self._stopped = HaltError(str(error["message"]), code=str(error["code"]), hint=error["hint"])
            case _:
                self._stopped = HaltError("the sender is gone", code="gone")


def main() -> None:
    """Follow orders until there are none."""
    line = Line()
    files = Files(Path.home(), line)
    line.say({"here": sys.version_info[:2]})
    while order := line.next(wait=True):
        match order:
            case {"attempt": list(orders), "require_durable": bool(require_durable)}:
                _attempt([wire.ordered(one) for one in orders], files, line, require_durable=require_durable)
            case {"operation": str(name), "arguments": list(arguments)}:
                line.say(_operation(files, name, arguments))
            case _:  # leave, or HALT, behind the last publication
                pass
    line.flush()


def _attempt(batch: list[Progress], files: Files, line: Line, *, require_durable: bool) -> None:
    publisher = Publisher(files)
    leave = Leave(line, publisher)

    def shown(item: Progress, name: str) -> None:
        line.say({"shown": item.envelope.identity, "name": name})

    attempt(batch, publisher, leave.stop, shown, require_durable=require_durable)
    line.say({"stand": [wire.standing(item) for item in batch], "durable": files.durable})


def _operation(files: Files, name: str, arguments: list[Any]) -> Mapping[str, Any]:
    """One operation of `Files`, by name."""
    try:
        if name == "sync_all":
            errors = files.sync_all(arguments)
            return {"value": {folder: wire.error_fields(error) for folder, error in errors.items()}}
        if name == "create":
            arguments[1] = wire.unpacked(arguments[1])
        options = {"mode": arguments.pop()} if name == "make_folder" else {}
        (value,) = files.run([getattr(files, name)(*arguments, **options)])
    except OSError as error:
        return {"error": wire.error_fields(CasError(str(error), code="file-operation-failed"))}
    match value:
        case CasError():
            return {"error": wire.error_fields(value), "durable": files.durable}
        case Kind():
            return {"value": value.value}
        case bytes():
            return {"value": wire.packed(value)}
        case _:
            return {"value": value, "durable": files.durable}

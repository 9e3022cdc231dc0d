"""The delivery code of `local`, run on the other machine: for peers with Python, over one channel of the connection.

The modules go there as text and stay in that process's memory, as Ansible's do; nothing is installed, nothing is left.
"""

from __future__ import annotations

import json
import time
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cas.errors import CasError, HaltError, TransferError
from cas.transports import causes, orders, wire
from cas.transports.attempt import WINDOW, Progress, Shown, Stop
from cas.transports.files import LARGEST_READ, Kind, T, Task, resumed
from cas.transports.transport import Transport

if TYPE_CHECKING:
    from paramiko import Channel

    from cas.transports.ssh import Session

V = TypeVar("V")
PACKAGE = Path(__file__).parents[1]
MODULES = (
    *("errors", "names"),
    *(f"transports.{name}" for name in ("files", "causes", "transport", "local", "attempt", "wire", "there")),
)
OLDEST = (3, 11)
COMMAND = """exec python3 -ISc 'exec(open(0,"rb",0,closefd=False).readline())'"""
"""Runs the line that comes first, in any shell: what is quoted has nothing in it that one of them would take."""
LOADER = """
import os, sys
if sys.version_info < {oldest}:
    sys.exit("too old")
import importlib.abc, importlib.machinery, json, zlib
rest = {size}
parts = []
while rest:
    part = os.read(0, rest)
    if not part:
        sys.exit()
    parts.append(part)
    rest -= len(part)
sources = json.loads(zlib.decompress(b"".join(parts)))
class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name in sources:
            return importlib.machinery.ModuleSpec(name, self, is_package=name in ("cas", "cas.transports"))
    def exec_module(self, module):
        exec(compile(sources[module.__name__], module.__name__, "exec"), module.__dict__)
sys.meta_path.insert(0, Finder())
os.write(1, {greeting!r})
from cas.transports.there import main
main()
"""
GREETING = b"\0cas\0\n"
LONGEST_GREETING = 1 << 16
GREETING_SECONDS = 10
MOST_ALIVE = 10_000
"""Signs of life before an answer: one comes every two seconds at most."""
LOOK_EVERY = 0.1
"""Seconds between two looks for HALT while the other side is at work."""


class NoPythonError(TransferError):
    """The other machine has no Python that would do, or no shell to start it."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of `Files` there. Awaiting it gives its value, or raises TransferError."""

    name: str
    arguments: tuple[Any, ...]

    def __await__(self) -> Generator[Operation, Any, Any]:
        return (yield self)


class Connection:
    """Lines to and from the code on the other machine. A connection that broke stays broken."""

    def __init__(self, session: Session) -> None:
        self._where = session.where
        self._timeout = session.timeout
        self._lines = wire.Lines(wire.LONGEST_LINE)
        self._broken: TransferError | None = None
        try:
            self._channel: Channel = session.channel("shell", lambda channel: channel.exec_command(COMMAND))
        except TransferError as error:
            raise _no_python(self._where) if error.permanent else error from error
        try:
            self._start()
        except TransferError as error:
            self._channel.close()
            if not session.stands():
                raise
            raise _no_python(self._where) from error

    def close(self) -> None:
        self._channel.close()

    def send(self, order: wire.Fields) -> None:
        """Raises TransferError."""
        self._write(wire.line(order))

    def receive(self, meanwhile: Callable[[], None] = lambda: None) -> wire.Fields:
        """The next line; `meanwhile` is called while it is waited for. Raises TransferError."""
        for _ in range(MOST_ALIVE):
            try:
                while not self._lines:
                    self._lines.take(self._some(meanwhile))
                found = self._lines.next()
            except ValueError as error:
                raise self.strange() from error
            if "alive" not in found:
                return found
            meanwhile()
        raise self.strange()

    def _start(self) -> None:
        sources = {"cas": "", "cas.transports": ""}
        for name in MODULES:
            sources[f"cas.{name}"] = (PACKAGE / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8")
        packed = zlib.compress(json.dumps(sources).encode(), 9)
        loader = LOADER.format(oldest=OLDEST, size=len(packed), greeting=GREETING)
        self._write(f"exec({loader!r})\n".encode() + packed)
        self._greeted(time.monotonic() + min(self._timeout, GREETING_SECONDS))
        if "here" not in self.receive():
            raise self.strange()

    def _greeted(self, until: float) -> None:
        """Pass over what a shell's own files print: so much at most, and until then."""
        said = bytearray()
        while GREETING not in said:
            if len(said) > LONGEST_GREETING:
                raise self.strange()
            said += self._some(until=until)
        self._lines.take(bytes(said).partition(GREETING)[2])

    def _some(self, meanwhile: Callable[[], None] = lambda: None, *, until: float | None = None) -> bytes:
        """Bytes, as they come; the wait for them is bounded."""
        if self._broken:
            raise self._broken
        until = until or time.monotonic() + self._timeout
        while True:
            if time.monotonic() > until:
                raise self._break(causes.lost(self._where, TimeoutError()))
            try:
                self._channel.settimeout(LOOK_EVERY)
                content: bytes = self._channel.recv(1 << 16)
            except TimeoutError:
                meanwhile()
                continue
            except (OSError, EOFError) as error:
                raise self._break(causes.lost(self._where, error)) from error
            if not content:
                raise self._break(causes.lost(self._where, EOFError()))
            return content

    def _write(self, content: bytes) -> None:
        if self._broken:
            raise self._broken
        try:
            self._channel.settimeout(self._timeout)
            self._channel.sendall(content)
        except (OSError, EOFError) as error:
            raise self._break(causes.lost(self._where, error)) from error

    def said(self, error: TransferError) -> TransferError:
        """An error of the other side, its words marked as those of the other side: they may be anything."""
        return TransferError(
            f'{self._where} says: "{error}"',
            code=error.code,
            permanent=error.permanent,
            hint=f'{self._where} says: "{error.hint}"' if error.hint else None,
        )

    def strange(self) -> TransferError:
        """What the other side said has not the shape that it should have: nothing more is believed."""
        return self._break(_strange(self._where))

    def _break(self, error: TransferError) -> TransferError:
        self._broken = self._broken or error
        return self._broken


class RemoteFiles:
    """`Files` of another machine, each operation carried out by the code there."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.durable = True

    def absolute(self, path: str) -> str:
        return path

    def run(self, tasks: Iterable[Task[T]]) -> list[T | CasError]:
        results: dict[int, T | CasError] = {}
        waiting: deque[tuple[int, Task[T]]] = deque()

        def advance(number: int, task: Task[T], answer: Any) -> None:
            while (operation := resumed(task, answer, partial(results.__setitem__, number))) is not None:
                try:
                    self._connection.send({"operation": operation.name, "arguments": operation.arguments})
                except TransferError as error:
                    answer = error
                    continue
                waiting.append((number, task))
                return

        for number, task in enumerate(tasks):
            advance(number, task, None)
        while waiting:
            advance(*waiting.popleft(), self._answer())
        return [results[number] for number in sorted(results)]

    def _answer(self) -> Any:
        try:
            found = self._connection.receive()
            self.durable = self.durable and wire.truth(found.get("durable", True))
            answer = wire.answer_of(found)
            return self._connection.said(answer) if isinstance(answer, TransferError) else answer
        except ValueError:
            return self._connection.strange()
        except CasError as error:
            return error

    async def _asked(self, shape: Callable[[object], V], name: str, *arguments: Any) -> V:
        """What an operation gives, in the shape that it should have."""
        found = await Operation(name, arguments)
        try:
            return shape(found)
        except ValueError as error:
            raise self._connection.strange() from error

    async def kind(self, path: str) -> Kind | None:
        return await self._asked(wire.kind, "kind", path)

    async def read(self, path: str, limit: int = LARGEST_READ) -> bytes | None:
        return await self._asked(wire.unpacked, "read", path, limit)

    async def names(self, folder: str) -> list[str]:
        return await self._asked(wire.texts, "names", folder)

    async def create(self, path: str, content: bytes) -> bool:
        return await self._asked(wire.truth, "create", path, wire.packed(content))

    async def make_folder(self, path: str, *, mode: int = 0o775) -> bool:
        return await self._asked(wire.truth, "make_folder", path, mode)

    async def move_folder(self, source: str, target: str) -> bool:
        return await self._asked(wire.truth, "move_folder", source, target)

    async def link(self, source: str, target: str) -> bool:
        return await self._asked(wire.truth, "link", source, target)

    async def move(self, source: str, target: str) -> bool:
        return await self._asked(wire.truth, "move", source, target)

    async def remove(self, path: str) -> None:
        await Operation("remove", (path,))

    async def remove_folder(self, path: str) -> None:
        await Operation("remove_folder", (path,))

    async def sync(self, folder: str) -> None:
        await Operation("sync", (folder,))

    def sync_all(self, folders: Iterable[str]) -> dict[str, CasError]:
        wanted = list(folders)
        (result,) = self.run([self._asked(wire.errors_of, "sync_all", *wanted)])
        return dict.fromkeys(wanted, result) if isinstance(result, CasError) else result

    def close(self) -> None:
        self._connection.close()


class RemoteTransport(Transport):
    """The verbs, one by one, over `RemoteFiles`; and a whole attempt at once, carried out there."""

    def __init__(self, connection: Connection, abort: Callable[[], None]) -> None:
        self._remote = RemoteFiles(connection)
        super().__init__(self._remote, abort)
        self._connection = connection

    def attempt(self, batch: Sequence[Progress], stop: Stop, shown: Shown, *, require_durable: bool = False) -> None:
        """As `attempt.attempt`, there. HALT is looked for here, before leave is given for WINDOW more publications."""
        missing = {item.envelope.identity: item for item in batch if not item.done}
        leave = _Leave(self._connection, stop, len(missing))
        heard: set[tuple[str, bool]] = set()
        try:
            self._connection.send({"attempt": list(orders.of(batch)), "require_durable": require_durable})
            while "stand" not in (found := self._connection.receive(leave.look)):
                if "ask" in found:
                    leave.give()
                    continue
                item, name = missing[found["shown"]], found["name"]
                orders.see(item, name, heard)
                shown(item, name)
            durable = wire.truth(found["durable"])
            orders.settle(missing, found["stand"], halted=leave.stopped is not None)
            for item in missing.values():
                if isinstance(item.error, TransferError):
                    item.error = self._connection.said(item.error)
                elif isinstance(item.error, HaltError):
                    item.error = leave.stopped
            self._remote.durable = durable
        except (CasError, ValueError, KeyError, TypeError) as error:
            told = error if isinstance(error, CasError) else self._connection.strange()
            orders.lose(missing.values(), told, asked=leave.given > 0)


class _Leave:
    """What may be published so far, of so many; HALT takes it away."""

    def __init__(self, connection: Connection, stop: Stop, publications: int) -> None:
        self._connection, self._stop = connection, stop
        self._asks_left = -(-publications // WINDOW)
        self.stopped: HaltError | None = None
        self.given = 0

    def give(self) -> None:
        """Leave for WINDOW more; raises ValueError where more is asked for than there is."""
        if not self._asks_left:
            raise ValueError("there is nothing more to publish")
        self._asks_left -= 1
        self.look()
        if not self.stopped:
            self.given += WINDOW
            self._connection.send({"leave": self.given})

    def look(self) -> None:
        if not self.stopped and (error := self._stop()):
            self.stopped = error
            self._connection.send({"halt": wire.error_fields(error)})


def _no_python(where: str) -> NoPythonError:
    return NoPythonError(
        f"{where} runs no Python {OLDEST[0]}.{OLDEST[1]} or later for this login",
        code="no-python",
        permanent=True,
        hint='install it there as `python3`, or take `transport = "sftp"` for this peer in peers.toml',
    )


def _strange(where: str) -> TransferError:
    return TransferError(
        f"{where} gave an answer that makes no sense",
        code="strange-answer",
        permanent=True,
        hint='see what its `python3` is, or take `transport = "sftp"` for this peer in peers.toml',
    )

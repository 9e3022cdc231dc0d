"""A TCP proxy in front of a peer that cuts, stalls or slows one direction of each connection after so many bytes."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum

CHUNK = 1 << 16
SECONDS_A_BYTE = 1.0
RESET = struct.pack("ii", 1, 0)  # linger for no time: what is closed so is reset


class Direction(Enum):
    TO_PEER = "to the peer"
    FROM_PEER = "from the peer"


class Kind(Enum):
    CUT = "cut"
    STALL = "stalled"
    SLOW = "slowed to a byte a second"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What happens to a connection once `after` bytes have gone in one direction."""

    kind: Kind
    direction: Direction
    after: int


class Proxy:
    """Listens on a port of its own. `gone` counts the bytes that went in each direction, of all connections."""

    def __init__(self, host: str, port: int, trouble: Trouble | None) -> None:
        self._target = (host, port)
        self._trouble = trouble
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        self._open: list[socket.socket] = [self._listener]
        self._ended = threading.Event()
        self.port: int = self._listener.getsockname()[1]
        self.gone = dict.fromkeys(Direction, 0)
        self.struck = False
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """End every connection, and take no new ones."""
        self._ended.set()
        for one in self._open:
            _drop(one)

    def _serve(self) -> None:
        with suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._open += [near, far]
                for source, target, direction in (
                    (near, far, Direction.TO_PEER),
                    (far, near, Direction.FROM_PEER),
                ):
                    threading.Thread(target=self._pump, args=(source, target, direction), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, direction: Direction) -> None:
        """Pass bytes on; `after` counts for each connection on its own."""
        trouble = self._trouble if self._trouble and self._trouble.direction is direction else None
        left = trouble.after if trouble else CHUNK
        with suppress(OSError):
            while content := source.recv(min(CHUNK, left) if trouble and left else CHUNK):
                if trouble and not left:
                    self._strike(trouble, source, target, content, direction)
                    return
                target.sendall(content)
                self.gone[direction] += len(content)
                left -= len(content) if trouble else 0
            target.shutdown(socket.SHUT_WR)

    def _strike(
        self, trouble: Trouble, source: socket.socket, target: socket.socket, content: bytes, direction: Direction
    ) -> None:
        self.struck = True
        if trouble.kind is Kind.CUT:
            for one in (source, target):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                _drop(one)
        elif trouble.kind is Kind.STALL:
            self._ended.wait()
        else:
            while content:
                for byte in content:
                    if self._ended.wait(SECONDS_A_BYTE):
                        return
                    target.sendall(bytes((byte,)))
                    self.gone[direction] += 1
                content = source.recv(CHUNK)


@contextmanager
def proxy(host: str, port: int, trouble: Trouble | None = None) -> Iterator[Proxy]:
    """A proxy to `host:port`, for as long as the block runs."""
    between = Proxy(host, port, trouble)
    try:
        yield between
    finally:
        between.close()


def _drop(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)  # closing alone would not end the wait of another thread on it
    one.close()

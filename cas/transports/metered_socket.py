"""A socket that counts what it receives, for paramiko, which takes whatever has a socket's methods."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any


class MeteredSocket:
    """All is the socket's but `recv`, which tells `received` how many bytes came."""

    def __init__(self, sock: socket.socket, received: Callable[[int], None]) -> None:
        self._socket, self._received = sock, received

    def recv(self, size: int) -> bytes:
        content = self._socket.recv(size)
        self._received(len(content))
        return content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

"""Many hosts on loopback: addresses of their own, behind as few sshds as that takes; each has one inbox."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cas.loopback import Peer, loopback_peer

HOSTS_A_SERVER = 13
"""An sshd listens on no more than 16 addresses, and has one already."""
A_NETWORK = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """`h7` in peers.toml, with the project `p7`."""

    number: int
    peer: Peer

    @property
    def destination(self) -> str:
        return f"h{self.number}.p{self.number}"

    @property
    def address(self) -> str:
        return address(self.number)

    @property
    def inbox(self) -> Path:
        return self.peer.home / f"inbox-{self.number}"

    def toml(self) -> str:
        """Its tables for peers.toml."""
        keys = {
            "host": self.address,
            "ssh_user": self.peer.user,
            "identity_file": str(self.peer.identity_file),
            "host_key": self.peer.host_key,
        }
        lines = "".join(f'{key} = "{value}"\n' for key, value in keys.items())
        return (
            f"[peers.h{self.number}]\nport = {self.peer.port}\n{lines}"
            f'[projects.p{self.number}]\ninbox_path = "~/inbox-{self.number}"\n'
        )


@contextmanager
def fleet(folder: Path, count: int) -> Iterator[list[Host]]:
    """So many hosts, for as long as the context lasts."""
    hosts: list[Host] = []
    with ExitStack() as stack:
        while len(hosts) < count:
            numbers = range(len(hosts), min(count, len(hosts) + HOSTS_A_SERVER))
            peer = stack.enter_context(server(folder / f"s{numbers[0]}", numbers))
            hosts += [Host(number=number, peer=peer) for number in numbers]
        yield hosts


def server(folder: Path, numbers: range) -> AbstractContextManager[Peer]:
    """One sshd that is the hosts of these numbers; no more than HOSTS_A_SERVER."""
    listen = tuple(f"ListenAddress {address(number)}" for number in numbers)
    return loopback_peer(folder, settings=(*listen, "MaxStartups 1000"))


def address(number: int) -> str:
    """Where a host listens."""
    return f"127.0.{1 + number // A_NETWORK}.{1 + number % A_NETWORK}"

"""What every way is measured on: the same messages, key, sshd and hosts; and whether it delivered."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import fleet
from fleet import HOSTS_A_SERVER, address

from cas.loopback import Key, Peer, throwaway_key

SERVERS = 4
GPG_AT_ONCE = 4
LEFT_OUT = ("CAS_", "PYTHON", "XDG_", "SSH_", "ANSIBLE_", "PYTEST_", "COV_", "GIT_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An inbox: a folder on a host, which is also this machine."""

    host: str
    port: int
    folder: Path
    peer: Peer

    def ssh(self, known_hosts: Path) -> tuple[str, ...]:
        """OpenSSH's options for every program that starts it."""
        options = ("BatchMode=yes", "IdentitiesOnly=yes", "StrictHostKeyChecking=yes", f"User={self.peer.user}")
        files = (f"UserKnownHostsFile={known_hosts}", f"IdentityFile={self.peer.identity_file}")
        return tuple(word for option in (*options, *files) for word in ("-o", option))


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Messages, all for each of some targets. `folder` is empty otherwise, and the way's own."""

    folder: Path
    messages: tuple[Path, ...]
    targets: tuple[Target, ...]
    scene: Scene

    def delivered(self) -> None:
        """Raises AssertionError where something is missing, altered, or without a signature that gpg finds good."""
        wanted = sorted(message.read_bytes() for message in self.messages)
        for target in self.targets:
            found = sorted(target.folder.glob("*.org"))
            assert sorted(file.read_bytes() for file in found) == wanted, f"{len(found)} of {len(wanted)} are there"
            for file in found:
                assert file.with_name(f"{file.name}.asc").read_bytes().startswith(b"-----BEGIN PGP SIGNATURE-----")
        self.scene.gpg("--verify", f"{found[0]}.asc", str(found[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    folder: Path
    key: Key
    peers: tuple[Peer, ...]

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(LEFT_OUT)}
        return {**kept, "HOME": str(self.folder / "home"), "GNUPGHOME": str(self.key.gnupghome)}

    @property
    def known_hosts(self) -> Path:
        return self.folder / "home" / ".ssh" / "known_hosts"

    def job(self, name: str, count: int, *, hosts: int = 1, port: int | None = None, lane: bool = False) -> Job:
        """New messages, for new inboxes on so many hosts."""
        folder = self.folder / name
        (folder / "messages").mkdir(parents=True)
        messages = []
        for number in range(count):
            path = folder / "messages" / f"20261123T0000{number % 60:02}Z-from-bench-{number}.org"
            path.write_text(_text("talk" if lane else f"talk-{number}", number + 1, name), encoding="utf-8")
            messages.append(path)
        targets = []
        for number in range(hosts):
            peer = self.peers[number // HOSTS_A_SERVER]
            host = address(number) if hosts > 1 else peer.host
            inbox = peer.home / name / f"inbox-{number}"
            targets.append(Target(host=host, port=port or peer.port, folder=inbox, peer=peer))
        for target in targets:
            target.folder.mkdir(parents=True)
            self._know(target)
        (folder / "own").mkdir()
        return Job(folder=folder / "own", messages=tuple(messages), targets=tuple(targets), scene=self)

    def signed(self, messages: Sequence[Path], folder: Path, at_once: int = GPG_AT_ONCE) -> list[Path]:
        """Each message with its signature, by gpg, several at a time, in a folder that is ready to be copied."""

        def sign(message: Path) -> list[Path]:
            copy = folder / message.name
            shutil.copyfile(message, copy)
            self.gpg("-u", self.key.fingerprint, "--detach-sign", "--armor", str(copy))
            return [copy.with_name(f"{copy.name}.asc"), copy]

        with ThreadPoolExecutor(at_once) as pool:
            return [path for pair in pool.map(sign, messages) for path in pair]

    def gpg(self, *words: str) -> None:
        command = ("gpg", "--batch", "--no-tty", "--quiet", "--no-auto-check-trustdb", *words)
        self.run(*command)

    def run(self, *command: str | Path, folder: Path | None = None, **more: str) -> str:
        """A program that has to succeed; what it says."""
        environment = {**self.environment, **more}
        ended = subprocess.run(
            [str(word) for word in command],
            cwd=folder or self.folder,
            env=environment,
            capture_output=True,
            check=False,
        )
        said = (ended.stdout + ended.stderr).decode("utf-8", "replace")
        assert ended.returncode == 0, f"{command[0]} ended with {ended.returncode}: {said[-2000:]}"
        return said

    def _know(self, target: Target) -> None:
        line = target.peer.known_hosts.split(maxsplit=1)[1]
        with self.known_hosts.open("a", encoding="utf-8") as file:
            file.write(f"[{target.host}]:{target.port} {line}")


@contextmanager
def scene(folder: Path, servers: int = SERVERS) -> Iterator[Scene]:
    """A key, and some sshds that listen as many hosts: up to HOSTS_A_SERVER each."""
    (folder / "home" / ".ssh").mkdir(parents=True)
    with throwaway_key(folder / "g") as key, ExitStack() as stack:
        peers = []
        for server in range(servers):
            numbers = range(server * HOSTS_A_SERVER, (server + 1) * HOSTS_A_SERVER)
            peers.append(stack.enter_context(fleet.server(folder / f"s{server}", numbers)))
        yield Scene(folder=folder, key=key, peers=tuple(peers))


def _text(conversation: str, sequence: int, name: str) -> str:
    head = {
        "CONVERSATION_ID": conversation,
        "MESSAGE_TYPE": "request",
        "SEQUENCE": str(sequence),
        "TIMESTAMP": "2026-11-23T00:00:00Z",
        "PROTOCOL_VERSION": "1.0",
    }
    lines = [f"#+{key}: {value}\n" for key, value in head.items()]
    return "".join(lines) + f"\n* {name} {sequence}\n" + "What is to be done stands here, and why.\n" * 45

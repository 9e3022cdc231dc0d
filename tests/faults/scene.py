"""A scene without fixtures, cheap for many points: one key, one sshd, senders with homes of their own; a verdict."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from compileall import compile_dir
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from support import CLEARED, CLEARED_PREFIXES, Home, Run, message, pairs

from cas.loopback import Key, Peer, loopback_peer, throwaway_key

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 600
WORKSHOP = ".tmp.cas"
RECEIPTS = (("record",), ("proof", "record"))
"""Of an unsigned and of a signed delivery."""
SIGNED = ("record", "signature")
REMOTE = {"sftp": "forge", "rsync": "mule", "python": "adder"}
"""The machine in peers.toml that is reached in a certain way; all are the one sshd."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """A user with a home of their own, whose processes are made without pytest."""

    home: Home
    environment: dict[str, str]

    @property
    def project(self) -> Path:
        return self.home.projects / "builder"

    def start(self, *argv: str | Path, driver: str | None = None) -> subprocess.Popen[str]:
        """A process of cas, or of `driver`: a program that calls it."""
        program = ("-m", "cas") if driver is None else ("-c", driver)
        return subprocess.Popen(
            [sys.executable, *program, *map(str, argv)],
            cwd=self.project,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *argv: str | Path, driver: str | None = None, timeout: float = PATIENCE) -> Run:
        return ended(self.start(*argv, driver=driver), timeout)

    def manifest(
        self,
        name: str,
        destination: str,
        count: int,
        *,
        conversations: Iterable[str] = ("talk",),
        first: int = 1,
        signed: str | None = None,
        retries: int = 0,
        backoff: int = 1,
    ) -> Path:
        """Writes `count` messages, in turn of these conversations, and the manifest `name` that sends them."""
        folder = self.project / name
        folder.mkdir()
        turns = list(conversations)
        sends = []
        for number in range(count):
            turn = turns[number % len(turns)]
            sequence = first + number // len(turns)
            path = f"{turn}-{sequence}.org"
            message(folder / path, conversation_id=turn, sequence=sequence, body=f"* {name} {path}\n" + "text " * 200)
            sends.append({"id": f"{turn}-{sequence}", "destination": destination, "message": path})
        sign: object = {"key": signed} if signed else False
        defaults = {"sign": sign, "retry": {"retries": retries, "backoff": [backoff]}}
        (folder / "m.yaml").write_text(
            json.dumps({"cas": 1, "sender": "builder", "defaults": defaults, "sends": sends}), encoding="utf-8"
        )
        return folder / "m.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Where things happen: a folder, a key that signs, and a peer whose home is another than the senders'."""

    folder: Path
    key: Key
    server: Peer

    def sender(self, name: str) -> Sender:
        """A new user, who knows the peer."""
        home = Home(path=self.folder / name)
        (home.projects / "builder").mkdir(parents=True)
        home.peers(self.peers(self.server.port))
        kept = {
            key: value
            for key, value in os.environ.items()
            if key not in CLEARED and not key.startswith(CLEARED_PREFIXES) and not key.startswith("COV_")
        }
        given = {"HOME": str(home.path), "GNUPGHOME": str(self.key.gnupghome), "PYTHONPATH": str(ROOT)}
        return Sender(home=home, environment={**kept, **given})

    def peers(self, port: int) -> str:
        """peers.toml: the peer, as reached at `port`, in each way."""
        keys = (
            f'host = "{self.server.host}"\nport = {port}\nssh_user = "{self.server.user}"\n'
            f'identity_file = "{self.server.identity_file}"\nhost_key = "{self.server.host_key}"\n'
        )
        tables = (f'[peers.{machine}]\n{keys}transport = "{way}"\n' for way, machine in REMOTE.items())
        return "".join(tables)

    def address(self, way: str, project: str) -> str:
        return f"{REMOTE.get(way, 'local')}.{project}"

    def inbox(self, way: str, project: str, sender: Sender) -> Path:
        home = self.server.home if way in REMOTE else sender.home.path
        return home / "projects" / project / "inbox" / "from-agents"


@contextmanager
def staged() -> Iterator[Scene]:
    """A scene in a folder of its own; its path is short enough for gpg-agent's sockets."""
    compile_dir(ROOT / "cas", quiet=1)  # or the first run would make other calls than the next
    with tempfile.TemporaryDirectory(prefix="cas-", ignore_cleanup_errors=True) as place:
        folder = Path(place).resolve()
        (folder / "peer").mkdir()
        with throwaway_key(folder / "gnupg") as key, loopback_peer(folder / "peer") as server:
            yield Scene(folder=folder, key=key, server=server)


def ended(process: subprocess.Popen[str], timeout: float = PATIENCE) -> Run:
    """How a process ended; one that does not is killed."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return Run(code=process.returncode, out=out, err=err)


def contents(manifest: Path) -> list[bytes]:
    """The messages that a manifest sends."""
    return [path.read_bytes() for path in sorted(manifest.parent.glob("*.org"))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is wrong in an inbox: all zero when each message is there once, with its signature, and nothing else."""

    lost: int
    doubled: int
    unsigned: int
    left: int
    foreign: int
    alone: int
    """Signatures without a message."""
    unclosed: int
    """Receipts that still hold their signature: no harm, but one thing that was not done."""

    @property
    def sound(self) -> bool:
        return not any(astuple(replace(self, unclosed=0)))

    @property
    def clean(self) -> bool:
        """Sound, and nothing is there but receipts as they should be."""
        return not any(astuple(self))


def sent(run: Run) -> list[str]:
    """The names that a run said to be sent."""
    return [line.rpartition("/")[2] for line in run.out.splitlines() if line.startswith("sent: ")]


def verdict(inbox: Path, expected: Iterable[bytes], *, signed: bool, taken: Iterable[bytes] = ()) -> Verdict:
    """Judge an inbox in which nothing is under way any more; `taken`: the messages that a receiver took away."""
    names = pairs(inbox)
    messages = {name for name in names if name.endswith(".org")}
    signatures = {name.removesuffix(".asc") for name in names if name.endswith(".asc")}
    found = Counter(taken) + Counter((inbox / name).read_bytes() for name in messages)
    wanted = Counter(expected)
    return Verdict(
        lost=sum((wanted - found).values()),
        doubled=sum(count - 1 for count in found.values()),
        unsigned=len(messages - signatures) if signed else 0,
        left=len(left_over(inbox)),
        foreign=sum(count for content, count in found.items() if content not in wanted),
        alone=len(signatures - messages),
        unclosed=len(unclosed(inbox)),
    )


def unclosed(inbox: Path) -> list[str]:
    """The receipts that still hold their signature."""
    return [
        record.parent.name
        for record in inbox.glob(f"{WORKSHOP}/*/record")
        if "-" not in record.parent.name and _lists(record.parent, SIGNED)
    ]


def _lists(folder: Path, names: Collection[str]) -> bool:
    return sorted(os.listdir(folder)) == sorted(names)


def left_over(inbox: Path) -> list[str]:
    """What lies in the workshop and is neither a receipt nor a reservation."""
    workshop = inbox / WORKSHOP
    if not workshop.exists():
        return []
    over = []
    for entry in workshop.iterdir():
        if entry.name.startswith("name-") and entry.is_file():
            continue
        if entry.is_dir() and "-" not in entry.name and any(_lists(entry, names) for names in (*RECEIPTS, SIGNED)):
            continue
        over.append(entry.name)
    return over

"""kill -9, a full disk and a failing one in the process that serves there, at each call that changes something."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import none_wrong, points, report
from receivers import Habit, Receiver, judged
from scene import Scene, Sender, Verdict, contents, sent, staged
from servers import FaultyPeer, faulty_peer
from strace import Call, calls, injected, killed
from support import Run, pairs

MESSAGES = 2
SERVERS = {"sftp": "the SFTP server", "python": "the Python there"}
FAULTS = {"kill": "signal=KILL", "full": "error=ENOSPC", "broken": "error=EIO"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    name: str
    call: Call
    struck: bool
    first: Run
    missing: tuple[str, ...]
    next: Run
    verdict: Verdict

    @property
    def wrong(self) -> str:
        """What went wrong, or nothing."""
        found = [
            reason
            for bad, reason in (
                (not self.struck, "the fault did not strike"),
                ("Traceback" in self.first.err, f"a traceback: {self.first.err}"),
                (self.missing, f"not there, though said to be sent: {self.missing}"),
                (self.first.code not in (0, 3), f"exit code {self.first.code}: {self.first.err}"),
                (self.next.code, f"then exit code {self.next.code}: {self.next.err}"),
                (self.first.code == 0 and "unchanged: " not in self.next.out, f"then said: {self.next.out}"),
                (not self.verdict.sound, str(self.verdict)),
            )
            if bad
        ]
        return f"{self.name} at {self.call}: {'; '.join(found)}" if found else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    scene: Scene
    peer: FaultyPeer

    def sender(self, name: str, way: str) -> Sender:
        sender = self.scene.sender(name)
        server = self.peer.server
        sender.home.peers(
            f'[peers.forge]\nhost = "{server.host}"\nport = {server.port}\nssh_user = "{server.user}"\n'
            f'identity_file = "{server.identity_file}"\nhost_key = "{server.host_key}"\n'
            f'transport = "{way}"\n'
        )
        return sender

    def manifest(self, sender: Sender, name: str, retries: int) -> Path:
        return sender.manifest("m", f"forge.{name}", MESSAGES, signed=self.scene.key.fingerprint, retries=retries)

    def inbox(self, name: str) -> Path:
        return self.peer.server.home / "projects" / name / "inbox" / "from-agents"


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with staged() as scene, faulty_peer(scene.folder / "faulty") as peer:
        (peer.server.home / "projects").mkdir()  # or the first delivery alone would have to make it
        yield Stage(scene=scene, peer=peer)


def server_calls(stage: Stage, name: str, way: str) -> list[Call]:
    """What the server changes to take a delivery in."""
    sender = stage.sender(name, way)
    manifest = stage.manifest(sender, name, 0)
    stage.peer.arm(None)
    run = sender.run("apply", manifest)
    assert run.code == 0, run.err
    return [call for call in calls(stage.peer.trace) if call.changes and call.touches("/inbox", f"/{name}")]


def struck(stage: Stage, way: str, fault: str, call: Call, retries: int) -> Result:
    name = f"{way}-{fault}-{retries}-{call.name}-{call.number}"
    sender = stage.sender(name, way)
    manifest = stage.manifest(sender, name, retries)
    inbox = stage.inbox(name)
    stage.peer.arm(f"{call.name}:{FAULTS[fault]}:when={call.number}")
    with Receiver(inbox=inbox, habit=Habit.IDLE) as receiver:
        first = sender.run("apply", manifest)
        present = pairs(inbox)
        was_struck = killed(stage.peer.trace) if fault == "kill" else injected(stage.peer.trace)
        then = sender.run("apply", manifest)
    return Result(
        name=name,
        call=call,
        struck=was_struck,
        first=first,
        missing=tuple(file for name in sent(first) for file in (name, f"{name}.asc") if file not in present),
        next=then,
        verdict=judged(receiver, contents(manifest)),
    )


def judge(name: str, results: Sequence[Result]) -> None:
    report(
        name,
        points=len(results),
        struck=sum(one.struck for one in results),
        lost=sum(one.verdict.lost for one in results),
        doubled=sum(one.verdict.doubled for one in results),
        unsigned=sum(one.verdict.unsigned for one in results),
        left=sum(one.verdict.left for one in results),
        unclosed=sum(one.verdict.unclosed for one in results),
        falsely_said=sum(bool(one.missing) for one in results),
    )
    none_wrong(results)


@pytest.mark.parametrize("way", SERVERS)
@pytest.mark.parametrize("fault", FAULTS)
def test_the_next_run_finishes_what_the_server_could_not(stage: Stage, fault: str, way: str):
    chosen = points(server_calls(stage, f"clean-{way}-{fault}", way), 5)

    judge(f"{fault} of {SERVERS[way]}", [struck(stage, way, fault, call, retries=0) for call in chosen])


@pytest.mark.parametrize("way", SERVERS)
@pytest.mark.parametrize("fault", FAULTS)
def test_or_a_retry_of_the_same_run_does(stage: Stage, fault: str, way: str):
    chosen = points(server_calls(stage, f"retry-{way}-{fault}", way)[::4], 1)

    results = [struck(stage, way, fault, call, retries=1) for call in chosen]

    judge(f"{fault} of {SERVERS[way]}, retried", results)
    if fault == "kill":
        assert [one.first.err for one in results if one.first.code] == []

"""kill -9 of the sender, anywhere: the next run by anybody delivers each message once and leaves nothing over."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import cycle, product
from pathlib import Path

import pytest
from harness import at_once, none_wrong, points, report
from receivers import Habit, Receiver, judged
from scene import Scene, Sender, Verdict, contents, ended, sent
from strace import Call, calls, killed, traced
from support import Run, pairs

MESSAGES = 2
KILLED_AT_A_REQUEST = """
import os, signal, sys
from cas.transports.sftp_channel import SftpChannel

moment, number = {moment!r}, {number}
counts = dict.fromkeys(("before", "asked", "answered"), 0)
send, receive = SftpChannel._send, SftpChannel._receive

def reached(now):
    counts[now] += 1
    if (now, counts[now]) == (moment, number):
        os.kill(os.getpid(), signal.SIGKILL)

def sending(self, kind, content):
    reached("before")
    send(self, kind, content)
    reached("asked")

def receiving(self):
    answer = receive(self)
    reached("answered")
    return answer

SftpChannel._send, SftpChannel._receive = sending, receiving
from cas.cli import main
code = main(sys.argv[1:])
print("requests:", counts["before"], file=sys.stderr)
sys.exit(code)
"""


class Next(Enum):
    """Who comes after the one that was killed."""

    SAME = "from the same machine"
    EMPTY = "from a machine with empty state"
    TWO = "two at once, one of them with empty state"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    name: str
    habit: Habit
    next: Next
    call: Call | None = None
    moment: str = ""
    number: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    point: Point
    killed: bool
    said: bool
    runs: tuple[Run, ...]
    verdict: Verdict

    @property
    def _forgiven(self) -> Verdict:
        """Of two that link one signature, the second may do so when a receiver has taken the first link already."""
        met = self.point.next is Next.TWO and self.point.habit is not Habit.IDLE
        return replace(self.verdict, alone=0) if met else self.verdict

    @property
    def wrong(self) -> str:
        """What went wrong, or nothing."""
        reasons = [
            "" if self.killed else "it was not killed",
            "" if self.said else "it said `sent:` of what was not there",
            "" if self._forgiven.clean else str(self.verdict),
            *(f"exit code {run.code}: {run.err}" for run in self.runs if run.code),
        ]
        found = [reason for reason in reasons if reason]
        return f"{self.point}: {'; '.join(found)}" if found else ""


def judge(name: str, results: Sequence[Result]) -> None:
    report(
        name,
        points=len(results),
        killed=sum(one.killed for one in results),
        lost=sum(one.verdict.lost for one in results),
        doubled=sum(one.verdict.doubled for one in results),
        unsigned=sum(one.verdict.unsigned for one in results),
        left=sum(one.verdict.left for one in results),
        signatures_alone=sum(one.verdict.alone for one in results),
    )
    none_wrong(results)


def after(sender: Sender, manifest: Path, who: Next) -> tuple[Run, ...]:
    """The next run, or runs."""
    same = ("apply", manifest)
    empty = ("apply", manifest, "--state-dir", sender.home.path / "empty-state")
    chosen = {Next.SAME: [same], Next.EMPTY: [empty], Next.TWO: [same, empty]}[who]
    return tuple(ended(process) for process in [sender.start(*argv) for argv in chosen])


def was_there(run: Run, inbox: Path, receiver: Receiver) -> bool:
    """What was said to be sent stands there, or was taken."""
    names = pairs(inbox)
    return receiver.habit is not Habit.IDLE or all(name in names and f"{name}.asc" in names for name in sent(run))


def local_calls(scene: Scene) -> list[Call]:
    """Those of a local delivery in which a kill can make a difference: at the inbox, in the state, what is said."""
    sender = scene.sender("clean")
    manifest = sender.manifest("m", "local.docs", MESSAGES, signed=scene.key.fingerprint)
    return clean_calls(sender, scene.folder / "clean.trace", "apply", manifest)


def single_calls(scene: Scene) -> list[Call]:
    sender = scene.sender("clean-single")
    return clean_calls(sender, scene.folder / "clean-single.trace", *single_send(scene, sender))


def single_send(scene: Scene, sender: Sender) -> tuple[str | Path, ...]:
    file = sender.manifest("m", "local.docs", 1).parent / "talk-1.org"
    return ("send", "local.docs", file, "--key", scene.key.fingerprint)


def clean_calls(sender: Sender, trace: Path, *argv: str | Path) -> list[Call]:
    run = traced(sender, trace, *argv)
    assert run.code == 0, run.err
    places = sender.home.state, sender.home.projects / "docs"
    return [call for call in calls(trace) if call.touches(*places) or call.says]


def every_local_point(found: Sequence[Call]) -> list[Point]:
    """Before each call that changes something, three times: for each next run; before each other call once."""
    habits, runs = cycle(Habit), cycle(Next)
    chosen = []
    for call in found:
        for who in Next if call.changes else (next(runs),):
            name = f"{call.name}-{call.number}-{who.name.lower()}"
            chosen.append(Point(name=name, habit=next(habits), next=who, call=call))
        next(habits)  # else each kind of next run would meet one habit only
    return chosen


def killed_locally(scene: Scene, point: Point) -> Result:
    assert point.call
    sender = scene.sender(point.name)
    manifest = sender.manifest("m", "local.docs", MESSAGES, signed=scene.key.fingerprint, retries=3)
    inbox, trace = sender.home.inbox("docs"), scene.folder / f"{point.name}.trace"
    with Receiver(inbox=inbox, habit=point.habit) as receiver:
        inject = f"{point.call.name}:signal=KILL:when={point.call.number}"
        run = traced(sender, trace, "apply", manifest, inject=inject)
        said = was_there(run, inbox, receiver)
        runs = after(sender, manifest, point.next)
    return Result(
        point=point,
        killed=killed(trace) and run.code == -signal.SIGKILL,
        said=said,
        runs=runs,
        verdict=judged(receiver, contents(manifest)),
    )


def test_killed_at_any_system_call_of_a_local_delivery(scene: Scene):
    chosen = points(every_local_point(local_calls(scene)), 24)

    results = at_once(lambda point: killed_locally(scene, point), chosen)

    judge("kill of the sender, local", results)


def test_killed_at_any_system_call_of_a_single_send(scene: Scene):
    """`cas retry --all` finishes what it began; only where it had begun nothing it has to be sent again."""
    found = [call for call in single_calls(scene) if call.changes]
    chosen = points([Point(name=f"send-{n}", habit=Habit.IDLE, next=Next.SAME, call=c) for n, c in enumerate(found)], 6)

    results = at_once(lambda point: killed_single_send(scene, point), chosen)

    judge("kill of the sender, single sends", results)


def killed_single_send(scene: Scene, point: Point) -> Result:
    assert point.call
    sender = scene.sender(point.name)
    argv = single_send(scene, sender)
    inbox, trace = sender.home.inbox("docs"), scene.folder / f"{point.name}.trace"
    with Receiver(inbox=inbox, habit=point.habit) as receiver:
        inject = f"{point.call.name}:signal=KILL:when={point.call.number}"
        run = traced(sender, trace, *argv, inject=inject)
        said = was_there(run, inbox, receiver)
        runs = [sender.run("retry", "--all")]
        if not pairs(inbox):
            runs.append(sender.run(*argv))
    return Result(
        point=point,
        killed=killed(trace) and run.code == -signal.SIGKILL,
        said=said,
        runs=tuple(runs),
        verdict=judged(receiver, [Path(argv[2]).read_bytes()]),
    )


def killed_at_a_request(scene: Scene, point: Point) -> Result:
    sender = scene.sender(f"sftp-{point.name}")
    project = f"docs-{point.name}"
    manifest = sender.manifest("m", scene.address("sftp", project), MESSAGES, signed=scene.key.fingerprint, retries=3)
    inbox = scene.inbox("sftp", project, sender)
    with Receiver(inbox=inbox, habit=point.habit) as receiver:
        driver = KILLED_AT_A_REQUEST.format(moment=point.moment, number=point.number)
        run = sender.run("apply", manifest, driver=driver)
        said = was_there(run, inbox, receiver)
        runs = after(sender, manifest, point.next)
    return Result(
        point=point,
        killed=run.code == -signal.SIGKILL,
        said=said,
        runs=runs,
        verdict=judged(receiver, contents(manifest)),
    )


def requests(scene: Scene, moment: str) -> int:
    """How many requests it takes to deliver so many messages over SFTP, the greeting among them."""
    name = f"counting-{moment}"
    sender = scene.sender(name)
    manifest = sender.manifest("m", scene.address("sftp", name), MESSAGES, signed=scene.key.fingerprint)
    run = sender.run("apply", manifest, driver=KILLED_AT_A_REQUEST.format(moment="never", number=0))
    assert run.code == 0, run.err
    return int(run.err.rpartition("requests: ")[2])


@pytest.mark.parametrize("moment", ["before", "asked", "answered"])
def test_killed_at_any_sftp_request(scene: Scene, moment: str):
    """Before it is asked; when it is asked, and the server is at it as the next run begins; when it is answered."""
    meetings = cycle(product(Next, Habit))
    every = [
        Point(name=f"{moment}-{number}", habit=habit, next=who, moment=moment, number=number)
        for number, (who, habit) in zip(range(1, requests(scene, moment) + 1), meetings, strict=False)
    ]

    results = at_once(lambda point: killed_at_a_request(scene, point), points(every, 5))

    judge("kill of the sender, SFTP", results)

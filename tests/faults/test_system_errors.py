"""ENOSPC, EIO, EACCES, EDQUOT, EROFS at each call of the sender that changes something: ledger and markers included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from harness import at_once, none_wrong, points, report
from receivers import Habit, Receiver, judged
from scene import Scene, Sender, Verdict, contents, sent
from strace import Call, calls, injected, traced
from support import Run, pairs

MESSAGES = 2
ERRORS = ("ENOSPC", "EIO", "EACCES", "EDQUOT", "EROFS")
CODES = frozenset({0, 1})


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    error: str
    call: Call

    @property
    def name(self) -> str:
        return f"{self.error.lower()}-{self.call.name}-{self.call.number}"

    @property
    def inject(self) -> str:
        return f"{self.call.name}:error={self.error}:when={self.call.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    point: Point
    struck: bool
    first: Run
    falsely: tuple[str, ...]
    next: Run
    verdict: Verdict

    @property
    def wrong(self) -> str:
        """What went wrong, or nothing."""
        found = [
            reason
            for bad, reason in (
                (not self.struck, "the fault did not strike"),
                ("Traceback" in self.first.err + self.next.err, f"a traceback: {self.first.err}{self.next.err}"),
                (self.falsely, f"not there, though said to be delivered: {self.falsely}"),
                (self.first.code not in CODES, f"exit code {self.first.code}: {self.first.err}"),
                (self.next.code, f"then exit code {self.next.code}: {self.next.err}"),
                (not self.verdict.sound, f"{self.verdict}: {self.first}"),
            )
            if bad
        ]
        return f"{self.point}: {'; '.join(found)}" if found else ""


def places(sender: Sender) -> tuple[Path, ...]:
    return sender.home.state, sender.home.projects / "docs"


def changing(trace: Path, sender: Sender) -> list[Call]:
    """The calls that change something of ours, or say something."""
    return [call for call in calls(trace) if call.changes and (call.touches(*places(sender)) or call.says)]


def judge(name: str, results: Sequence[Result]) -> None:
    report(
        name,
        points=len(results),
        struck=sum(one.struck for one in results),
        falsely_said=sum(bool(one.falsely) for one in results),
        tracebacks=sum("Traceback" in one.first.err for one in results),
        lost=sum(one.verdict.lost for one in results),
        doubled=sum(one.verdict.doubled for one in results),
    )
    none_wrong(results)


def every(found: Sequence[Call]) -> list[Point]:
    return [Point(error=error, call=call) for call, error in product(found, ERRORS)]


def falsely_said(run: Run, inbox: Path) -> tuple[str, ...]:
    """What was said to be sent, in words or by the exit code, and is not there."""
    names = pairs(inbox)
    missing = tuple(name for name in sent(run) if name not in names or f"{name}.asc" not in names)
    if run.code == 0 and len(names) != 2 * MESSAGES:
        return (*missing, f"exit code 0, with {names}")
    return missing


def struck(scene: Scene, point: Point) -> Result:
    sender = scene.sender(point.name)
    manifest = sender.manifest("m", "local.docs", MESSAGES, signed=scene.key.fingerprint)
    inbox, trace = sender.home.inbox("docs"), scene.folder / f"{point.name}.trace"
    with Receiver(inbox=inbox, habit=Habit.IDLE) as receiver:
        first = traced(sender, trace, "apply", manifest, inject=point.inject)
        falsely = falsely_said(first, inbox)
        then = sender.run("apply", manifest)
    return Result(
        point=point,
        struck=injected(trace),
        first=first,
        falsely=falsely,
        next=then,
        verdict=judged(receiver, contents(manifest)),
    )


def test_an_error_of_the_system_at_any_call_is_said_and_mended_by_the_next_run(scene: Scene):
    sender = scene.sender("clean")
    manifest = sender.manifest("m", "local.docs", MESSAGES, signed=scene.key.fingerprint)
    trace = scene.folder / "clean.trace"
    assert traced(sender, trace, "apply", manifest).code == 0
    chosen = points(every(changing(trace, sender)), 30)

    judge("errors of the system", at_once(lambda point: struck(scene, point), chosen))


def blocked(sender: Sender) -> Path:
    """A file where the inbox would be made: the delivery fails, and gets its marker."""
    stone = sender.home.projects / "docs"
    stone.write_text("in the way", encoding="utf-8")
    return stone


def struck_failing(scene: Scene, point: Point) -> Result:
    sender = scene.sender(f"failing-{point.name}")
    manifest = sender.manifest("m", "local.docs", MESSAGES, signed=scene.key.fingerprint)
    inbox, trace = sender.home.inbox("docs"), scene.folder / f"failing-{point.name}.trace"
    stone = blocked(sender)
    first = traced(sender, trace, "apply", manifest, inject=point.inject)
    stone.unlink()
    with Receiver(inbox=inbox, habit=Habit.IDLE) as receiver:
        then = sender.run("apply", manifest)
    return Result(
        point=point,
        struck=injected(trace),
        first=first,
        falsely=("exit code 0",) if first.code == 0 else (),
        next=then,
        verdict=judged(receiver, contents(manifest)),
    )


def test_so_is_one_at_any_call_for_a_delivery_that_fails_anyway(scene: Scene):
    sender = scene.sender("clean-failing")
    manifest = sender.manifest("m", "local.docs", MESSAGES, signed=scene.key.fingerprint)
    trace = scene.folder / "clean-failing.trace"
    blocked(sender)
    assert traced(sender, trace, "apply", manifest).code == 1
    found = changing(trace, sender)
    assert any(call.touches("failed-sends") for call in found)
    chosen = points(every(found), 12)

    judge("errors of the system, markers", at_once(lambda point: struck_failing(scene, point), chosen))

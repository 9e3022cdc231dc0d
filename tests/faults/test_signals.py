"""SIGINT, SIGTERM and SIGHUP at any call that changes something, and an output that nobody takes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import pytest
from harness import at_once, none_wrong, points, report
from scene import Scene, Sender, Verdict, contents, verdict
from strace import Call, calls, traced
from support import Run, pairs

MESSAGES = 2
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    number: signal.Signals
    call: Call
    first: Run
    present: int
    """How many messages stood in the inbox when the run had ended."""
    next: Run
    verdict: Verdict

    @property
    def wrong(self) -> str:
        """What went wrong, or nothing. One that comes when all is done is no interruption any more."""
        done = self.first.code == 0 and self.present == MESSAGES
        sent = self.first.out.count("sent: ")
        found = [
            reason
            for bad, reason in (
                (not done and self.first.code != 128 + self.number, f"exit code {self.first.code}"),
                ("Traceback" in self.first.err, "a traceback"),
                (not done and "interrupted" not in self.first.err, "the signal is not told"),
                (sent > self.present, f"{sent} said to be sent, {self.present} there"),
                (self.next.code, f"then exit code {self.next.code}: {self.next.err}"),
                (not self.verdict.sound, str(self.verdict)),
            )
            if bad
        ]
        return f"{self.number.name} at {self.call}: {'; '.join(found)}: {self.first}" if found else ""


def interrupted(scene: Scene, number: signal.Signals, call: Call) -> Result:
    name = f"{number.name}-{call.name}-{call.number}"
    sender = scene.sender(name)
    manifest = sender.manifest("m", "local.docs", MESSAGES, signed=scene.key.fingerprint)
    inbox = sender.home.inbox("docs")
    inject = f"{call.name}:signal={number.name}:when={call.number}"
    first = traced(sender, scene.folder / f"{name}.trace", "apply", manifest, inject=inject)
    present = len([file for file in pairs(inbox) if file.endswith(".org")])
    then = sender.run("apply", manifest)
    return Result(
        number=number,
        call=call,
        first=first,
        present=present,
        next=then,
        verdict=verdict(inbox, contents(manifest), signed=True),
    )


def judge(results: Sequence[Result]) -> None:
    report(
        "signals",
        points=len(results),
        interrupted=sum(one.first.code != 0 for one in results),
        lost=sum(one.verdict.lost for one in results),
        doubled=sum(one.verdict.doubled for one in results),
        tracebacks=sum("Traceback" in one.first.err for one in results),
    )
    none_wrong(results)


def test_a_signal_at_any_call_is_said_and_the_next_run_finishes(scene: Scene):
    sender = scene.sender("clean")
    manifest = sender.manifest("m", "local.docs", MESSAGES, signed=scene.key.fingerprint)
    trace = scene.folder / "clean.trace"
    assert traced(sender, trace, "apply", manifest).code == 0
    places = sender.home.state, sender.home.projects / "docs"
    found = [call for call in calls(trace) if call.changes and call.touches(*places)]
    chosen = points(list(zip(cycle(SIGNALS), found, strict=False)), 9)

    results = at_once(lambda point: interrupted(scene, *point), chosen)

    judge(results)
    assert any(one.first.code for one in results)


def apply_into(sender: Sender, manifest: Path, out: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cas", "apply", str(manifest)],
        cwd=sender.project,
        env=sender.environment,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("output", ["closed", "full"])
def test_an_output_that_nobody_takes_cuts_no_delivery_in_half(scene: Scene, output: str):
    sender = scene.sender(f"output-{output}")
    manifest = sender.manifest("m", "local.docs", 20, signed=scene.key.fingerprint)
    if output == "full":
        out = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, out = os.pipe()
        os.close(reader)

    run = apply_into(sender, manifest, out)
    os.close(out)

    assert "Traceback" not in run.stderr
    assert verdict(sender.home.inbox("docs"), contents(manifest), signed=True).sound
    again = sender.run("apply", manifest)
    assert (again.code, again.out.count("unchanged: ")) == (0, 20)

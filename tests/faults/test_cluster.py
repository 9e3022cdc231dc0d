"""kill -9 of a Dask cluster's workers, of its scheduler and of who asks them, at chosen steps; and HALT on the way.

The cluster is a real one. Where a fault strikes is said by step, not by time (`preloaded`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import preloaded
import pytest
from cluster import Cluster, cluster
from harness import none_wrong, points, report
from scene import Scene, Sender, Verdict, contents, verdict
from support import Run, pairs

from cas.watchman import PATIENCE

WHILE_RUNNING = {
    "sftp": (
        *((step, "before", 1) for step in ("prepare", "look", "reserve", "stage", "claim", "sync", "close")),
        *((step, "after", 1) for step in ("prepare", "look", "reserve", "stage", "claim", "sync", "close")),
        *((step, moment, 2) for step in ("claim", "sync", "close") for moment in ("before", "after")),
        *(
            (step, moment, number)
            for step in ("publish_signature", "publish_message")
            for moment in ("before", "after")
            for number in (1, 2, 3)
        ),
    ),
    "python": (
        *(("send", "after", number) for number in (1, 2)),
        *(("receive", "after", number) for number in (1, 2, 3, 4, 6)),
    ),
}
WHEN_FINISHED = (("perform", "after"), ("memory", "after"), ("get_data", "before"), ("get_data", "after"))
HALT_SECONDS = 2
MARGIN = 1.0
"""Seconds between what a clock is read for and its reading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The call at which a worker is killed, while it delivers so many messages in a certain way."""

    way: str
    step: str
    moment: str
    number: int = 1
    messages: int = 3

    @property
    def name(self) -> str:
        step = self.step.replace("_", "-")
        return f"{self.way}-{step}-{self.moment}-{self.number}-of-{self.messages}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    point: Point
    struck: bool
    first: Run
    there: int
    """How many messages stood in the inbox when the first run had ended."""
    next: Run
    verdict: Verdict

    @property
    def wrong(self) -> str:
        """What went wrong, or nothing."""
        told = self.first.out.count("sent: ") + self.first.out.count("unchanged: ")
        found = [
            reason
            for bad, reason in (
                (not self.struck, "no worker was killed"),
                ("Traceback" in self.first.err, "a traceback"),
                (self.first.code not in (0, 3), f"exit code {self.first.code}"),
                (told > self.there, f"{told} said to be there, {self.there} were"),
                (self.first.code == 0 and told != self.point.messages, f"{told} told of {self.point.messages}"),
                (self.next.code, f"then exit code {self.next.code}: {self.next.err}"),
                (not self.verdict.sound, str(self.verdict)),
            )
            if bad
        ]
        return f"{self.point.name}: {'; '.join(found)}: {self.first}" if found else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A scene with a cluster whose workers do what `fault` says."""

    scene: Scene
    cluster: Cluster
    folder: Path

    def arm(self, step: str, moment: str = "before", number: int = 1, *, slow: float = 0, **then: object) -> None:
        """What a worker is to do, and when; `then` as in `preloaded`."""
        for name in ("fault", "struck", "published", "performed", "slow"):
            (self.folder / name).unlink(missing_ok=True)
        if slow:
            (self.folder / "slow").write_text(str(slow), encoding="ascii")
        fault = {"name": os.urandom(8).hex(), "step": step, "moment": moment, "number": number, **then}
        hidden = self.folder / "fault.new"
        hidden.write_text(json.dumps(fault), encoding="ascii")
        hidden.rename(self.folder / "fault")

    def disarm(self) -> None:
        (self.folder / "slow").unlink(missing_ok=True)

    @property
    def struck(self) -> float | None:
        """When it did, if so."""
        path = self.folder / "struck"
        return path.stat().st_mtime if path.exists() else None

    def wait_until_struck(self) -> float:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if (at := self.struck) is not None:
                return at
            time.sleep(0.02)
        raise AssertionError("it did not strike")

    def published(self) -> list[float]:
        """When each message was published by a worker."""
        path = self.folder / "published"
        return [float(line) for line in path.read_text(encoding="ascii").split()] if path.exists() else []

    def apply(self, sender: Sender, manifest: Path, *options: str) -> subprocess.Popen[str]:
        return sender.start("apply", manifest, *self.cluster.options_here, *options)

    def manifest(self, sender: Sender, way: str, name: str, messages: int, retries: int = 0) -> Path:
        """In two lanes; `name` is the project that they go to."""
        signed, lanes = self.scene.key.fingerprint, ("talk", "walk")
        address = self.scene.address(way, name)
        return sender.manifest("m", address, messages, conversations=lanes, signed=signed, retries=retries)


@contextmanager
def opened(scene: Scene, name: str) -> Iterator[Stage]:
    """A stage of its own: a nanny's worker, which begins anew when it is killed, and one more."""
    folder = scene.folder / f"fault-{name}"
    folder.mkdir()
    environment = {preloaded.FOLDER: str(folder), "DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON__OMP_NUM_THREADS": "1"}
    options = ("--nanny", "--nworkers", "2", "--preload", preloaded.__file__)
    with cluster(scene.folder / f"dask-{name}", 0, environment=environment) as made, made.worker("both", *options):
        yield Stage(scene=scene, cluster=made, folder=folder)


@pytest.fixture(scope="module")
def stage(scene: Scene) -> Iterator[Stage]:
    with opened(scene, "all") as stage:
        yield stage


def killed(stage: Stage, point: Point) -> Result:
    sender = stage.scene.sender(f"s-{point.name}")
    manifest = stage.manifest(sender, point.way, point.name, point.messages)
    inbox = stage.scene.inbox(point.way, point.name, sender)
    stage.arm(point.step, point.moment, point.number, signal=signal.SIGKILL)
    first = ended(stage.apply(sender, manifest))
    there = len([name for name in pairs(inbox) if name.endswith(".org")])
    struck = stage.struck is not None
    then = sender.run("apply", manifest)
    return Result(
        point=point,
        struck=struck,
        first=first,
        there=there,
        next=then,
        verdict=verdict(inbox, contents(manifest), signed=True),
    )


def ended(process: subprocess.Popen[str], timeout: float = 90) -> Run:
    out, err = process.communicate(timeout=timeout)
    return Run(code=process.returncode, out=out, err=err)


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
        tracebacks=sum("Traceback" in one.first.err for one in results),
    )
    none_wrong(results)


def test_a_worker_killed_while_it_delivers_loses_and_doubles_nothing(stage: Stage):
    found = [
        Point(way=way, step=step, moment=moment, number=number)
        for way, calls in WHILE_RUNNING.items()
        for step, moment, number in calls
    ]

    judge("kill of a worker", [killed(stage, point) for point in points(found, 2)])


def test_nor_does_one_killed_when_it_has_finished(stage: Stage):
    found = [
        Point(way=way, step=step, moment=moment, messages=messages)
        for messages in (1, 2, 5)
        for way in WHILE_RUNNING
        for step, moment in WHEN_FINISHED
    ]

    judge("kill of a worker that has finished", [killed(stage, point) for point in points(found, 2)])


MANY = 60
SLOW = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Big:
    """A batch in one lane, slow enough for something to happen while it is under way, in the inbox of a project."""

    stage: Stage
    sender: Sender
    manifest: Path
    inbox: Path

    def there(self) -> int:
        return len([name for name in pairs(self.inbox) if name.endswith(".org")])

    def judge(self, name: str, allowed: float) -> None:
        """It was cut short in time, and the next run finishes it."""
        struck = self.stage.struck
        assert struck is not None
        present = self.there()
        self.stage.disarm()
        late = [at - struck for at in self.stage.published() if at - struck > allowed]
        then = self.sender.run("apply", self.manifest)
        found = verdict(self.inbox, contents(self.manifest), signed=True)
        report(
            name,
            points=1,
            struck=1,
            published_after=len(late),
            lost=found.lost,
            doubled=found.doubled,
            unsigned=found.unsigned,
            left=found.left,
        )
        assert late == []
        assert 0 < present < MANY
        assert then.code == 0, then.err
        assert found.sound, found


def big(stage: Stage, name: str) -> Big:
    sender = stage.scene.sender(f"s-{name}")
    manifest = sender.manifest("m", stage.scene.address("sftp", name), MANY, signed=stage.scene.key.fingerprint)
    return Big(stage=stage, sender=sender, manifest=manifest, inbox=stage.scene.inbox("sftp", name, sender))


def outcomes(run: Run) -> Counter[str]:
    return Counter(delivery["outcome"] for delivery in json.loads(run.out)["deliveries"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=lambda number: number.name)
def test_a_worker_that_has_lost_who_asks_publishes_nothing_more(stage: Stage, number: signal.Signals):
    """Also one that is stopped: when it goes on, HALT may have been set and lifted, and the run be another's."""
    batch = big(stage, f"lost-{number.name}")
    who = stage.folder / "who"
    stage.arm("publish_message", "after", 5, slow=SLOW, signal=number, victim=str(who))
    allowed = PATIENCE + MARGIN + SLOW
    process = stage.apply(batch.sender, batch.manifest)
    try:
        who.write_text(str(process.pid), encoding="ascii")
        struck = stage.wait_until_struck()

        time.sleep(max(0.0, struck + allowed + 4 * SLOW - time.time()))  # in which more would have come
    finally:
        process.kill()
        process.communicate()

    batch.judge(f"{number.name} of who asks the workers", allowed)


@pytest.mark.parametrize("where", ["who asks", "the worker"])
def test_halt_reaches_a_worker_that_is_delivering_in_two_seconds(stage: Stage, where: str):
    batch = big(stage, f"halt-{where.replace(' ', '-')}")
    home = batch.sender.home if where == "who asks" else stage.cluster.home
    halt = home.config / "HALT"
    stage.arm("publish_message", "after", 5, slow=SLOW, touch=str(halt))

    run = ended(stage.apply(batch.sender, batch.manifest, "--output", "json"))

    halt.unlink()
    assert run.code == 5, run.err
    told = outcomes(run)
    assert told["delivered"] == batch.there()
    assert told["halted"] == MANY - batch.there()
    assert "enough" in json.loads(run.out)["halted"]
    batch.judge(f"HALT where {where} is", HALT_SECONDS)


def test_what_dask_runs_again_by_itself_may_be_there_although_the_second_worker_gets_nowhere(stage: Stage):
    """The first one was killed behind a publication, and the way to the host has gone with it."""
    sender = stage.scene.sender("s-again")
    key = sender.home.path / "identity"
    key.write_bytes(stage.scene.server.identity_file.read_bytes())
    key.chmod(0o600)
    peers = stage.scene.peers(stage.scene.server.port).replace(str(stage.scene.server.identity_file), str(key))
    sender.home.peers(peers)
    manifest = stage.manifest(sender, "sftp", "again", 2)
    inbox = stage.scene.inbox("sftp", "again", sender)
    stage.arm("publish_message", "after", 2, remove=str(key), signal=signal.SIGKILL)

    run = ended(stage.apply(sender, manifest, "--output", "json"))

    assert stage.struck
    assert len(pairs(inbox)) == 4
    assert run.code == 3, run.err
    assert outcomes(run) == {"unknown": 2}, run.out
    sender.home.peers(stage.scene.peers(stage.scene.server.port))
    then = sender.run("apply", manifest)
    assert (then.code, then.out.count("unchanged: ")) == (0, 2), then
    assert verdict(inbox, contents(manifest), signed=True).sound


def test_what_dask_runs_again_by_itself_is_delivered_by_this_run(stage: Stage):
    sender = stage.scene.sender("s-ours")
    manifest = stage.manifest(sender, "sftp", "ours", 2)
    stage.arm("publish_message", "after", 2, signal=signal.SIGKILL)

    run = ended(stage.apply(sender, manifest, "--output", "json"))

    assert stage.struck
    assert (run.code, outcomes(run)) == (0, {"delivered": 2}), run


def stopped(stage: Stage, step: str, number: int) -> Result:
    """A worker that stands still goes on when the next run has finished what it was at."""
    point = Point(way="sftp", step=step, moment="before", number=number)
    name = f"stopped-{point.name}"
    sender = stage.scene.sender(f"s-{name}")
    manifest = stage.manifest(sender, point.way, name, point.messages)
    inbox = stage.scene.inbox(point.way, name, sender)
    stage.arm(step, "before", number, signal=signal.SIGSTOP)
    first = ended(stage.apply(sender, manifest, "--deadline", "8"))
    there = len([file for file in pairs(inbox) if file.endswith(".org")])
    worker = int((stage.folder / "struck").read_text(encoding="ascii"))
    try:
        then = sender.run("apply", manifest)
    finally:
        os.kill(worker, signal.SIGCONT)
    deadline = time.monotonic() + 60
    while not (stage.folder / "performed").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return Result(
        point=point,
        struck=stage.struck is not None and first.code == 3 and "unknown" in first.out,
        first=first,
        there=there,
        next=then,
        verdict=verdict(inbox, contents(manifest), signed=True),
    )


def test_a_worker_that_stood_still_finds_done_what_it_was_at(stage: Stage):
    found = [
        ("publish_message", 2),
        # Not `stage`: what it stages for a delivery that is done by then, hidden, nobody takes away.
        *((step, 1) for step in ("look", "reserve", "claim", "publish_signature", "publish_message", "close")),
    ]

    judge("stop of a worker, which goes on after the next run", [stopped(stage, *one) for one in points(found, 1)])


SCHEDULER_FAULTS = (
    (signal.SIGKILL, "perform", "before", 1),
    (signal.SIGKILL, "claim", "before", 1),
    (signal.SIGKILL, "publish_signature", "after", 1),
    (signal.SIGKILL, "publish_message", "after", 1),
    (signal.SIGKILL, "publish_message", "after", 3),
    (signal.SIGKILL, "perform", "after", 1),
    (signal.SIGSTOP, "publish_message", "after", 1),
)


def scheduler_struck(scene: Scene, number: signal.Signals, step: str, moment: str, count: int) -> Result:
    name = f"scheduler-{number.name}-{step}-{moment}-{count}".replace("_", "-").lower()
    point = Point(way="sftp", step=step, moment=moment, number=count)
    with opened(scene, name) as stage:
        sender = scene.sender(f"s-{name}")
        manifest = stage.manifest(sender, point.way, name, point.messages, retries=2)
        inbox = scene.inbox(point.way, name, sender)
        stage.arm(step, moment, count, signal=number, victim=stage.cluster.scheduler.pid)
        first = ended(stage.apply(sender, manifest, "--deadline", "30"), timeout=60)
        there = len([file for file in pairs(inbox) if file.endswith(".org")])
        struck = stage.struck is not None
        then = sender.run("apply", manifest)
    return Result(
        point=point,
        struck=struck,
        first=first,
        there=there,
        next=then,
        verdict=verdict(inbox, contents(manifest), signed=True),
    )


def test_without_its_scheduler_a_run_ends_in_time_says_what_is_unknown_and_the_next_one_finishes(scene: Scene):
    results = [scheduler_struck(scene, *fault) for fault in points(SCHEDULER_FAULTS, 1)]

    judge("kill of the scheduler", results)
    assert {one.first.code for one in results} == {3}
    assert all("unknown" in one.first.out + one.first.err for one in results)
    assert all("is gone" in one.first.out + one.first.err for one in results), results

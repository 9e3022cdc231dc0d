"""A network that cuts, stalls or crawls, all through a session: each run ends in time, and the next one finishes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import at_once, points, report
from proxy import Direction, Kind, Trouble, proxy
from scene import Scene, Sender, Verdict, contents, verdict
from support import Run

OFFSETS = 40
DEADLINE = 4
GRACE = 5
AT_ONCE = 3
"""Points side by side. Most of their time is spent waiting for a network that is silent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    way: str
    trouble: Trouble

    @property
    def name(self) -> str:
        return f"{self.way}-{self.trouble.kind.name}-{self.trouble.direction.name}-{self.trouble.after}".lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a point: how long the troubled run took, and what lay in the inbox after the next."""

    point: Point
    struck: bool
    seconds: float
    troubled: Run
    next: Run
    verdict: Verdict
    said: int

    @property
    def wrong(self) -> str | None:
        if self.seconds > DEADLINE + GRACE:
            return f"{self.point.name}: took {self.seconds:.1f} s\n{self.troubled.err}"
        if "Traceback" in self.troubled.err + self.next.err:
            return f"{self.point.name}: a traceback on stderr, that ends: {self.troubled.err[-300:]}"
        if self.troubled.code not in (0, 3):
            return f"{self.point.name}: exit code {self.troubled.code}\n{self.troubled.err}"
        if self.next.code != 0 or not self.verdict.sound:
            return f"{self.point.name}: {self.verdict}\n{self.troubled.err}\nnext ({self.next.code}): {self.next.err}"
        return None


def manifest(scene: Scene, sender: Sender, way: str, name: str) -> Path:
    """Four signed messages in two lanes."""
    destination = scene.address(way, name)
    return sender.manifest(name, destination, 4, conversations=("one", "two"), signed=scene.key.fingerprint, retries=5)


def sizes(scene: Scene, sender: Sender, way: str) -> dict[Direction, int]:
    """The bytes of a whole session, in each direction."""
    with proxy(scene.server.host, scene.server.port) as between:
        sender.home.peers(scene.peers(between.port))
        run = sender.run("apply", manifest(scene, sender, way, sender.home.path.name))
        assert run.code == 0, run.err
        return dict(between.gone)


def troubled(scene: Scene, point: Point) -> Outcome:
    """One run through a troubled network, and the next one without it."""
    sender = scene.sender(point.name)
    made = manifest(scene, sender, point.way, point.name)
    with proxy(scene.server.host, scene.server.port, point.trouble) as between:
        sender.home.peers(scene.peers(between.port))
        before = time.monotonic()
        first = sender.run("apply", made, "--deadline", str(DEADLINE))
        seconds = time.monotonic() - before
        struck = between.struck
    sender.home.peers(scene.peers(scene.server.port))
    second = sender.run("apply", made)
    inbox = scene.inbox(point.way, point.name, sender)
    return Outcome(
        point=point,
        struck=struck,
        seconds=seconds,
        troubled=first,
        next=second,
        verdict=verdict(inbox, contents(made), signed=True),
        said=first.out.count("delivered"),
    )


@pytest.mark.parametrize("way", ["sftp", "python", "rsync"])
@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name.lower())
@pytest.mark.parametrize("direction", list(Direction), ids=lambda direction: direction.name.lower())
def test_a_troubled_network_loses_and_doubles_nothing(scene: Scene, way: str, kind: Kind, direction: Direction):
    size = sizes(scene, scene.sender(f"whole-{way}-{kind.name}-{direction.name}"), way)[direction]
    offsets = points([number * size // OFFSETS for number in range(OFFSETS)], 2 if way == "sftp" else 1)
    chosen = [Point(way=way, trouble=Trouble(kind=kind, direction=direction, after=offset)) for offset in offsets]

    outcomes = at_once(lambda point: troubled(scene, point), chosen, workers=AT_ONCE)

    report(
        f"network {kind.value}",
        points=len(outcomes),
        struck=sum(one.struck for one in outcomes),
        lost=sum(one.verdict.lost for one in outcomes),
        doubled=sum(one.verdict.doubled for one in outcomes),
        unsigned=sum(one.verdict.unsigned for one in outcomes),
        late=sum(one.seconds > DEADLINE + GRACE for one in outcomes),
    )
    wrong = "\n\n".join(one.wrong for one in outcomes if one.wrong)
    assert not wrong, wrong


def test_the_troubles_strike(scene: Scene):
    """Else the offsets would lie behind the end of the session, and show nothing."""
    trouble = Trouble(kind=Kind.CUT, direction=Direction.TO_PEER, after=3000)

    outcome = troubled(scene, Point(way="sftp", trouble=trouble))

    assert outcome.struck
    assert outcome.troubled.code == 3

"""docs/reference/performance.md shows what was measured, each aim with its figure; the short part of `./do bench`."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks import bench, page, ways
from benchmarks.delay import Delay
from benchmarks.scene import Scene, scene


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    return json.loads(page.COUNTS.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def at() -> Iterator[Scene]:
    folder = Path(tempfile.mkdtemp(prefix="cas-bench-"))  # short: gpg-agent's sockets lie in it
    with scene(folder) as made:
        yield made
    shutil.rmtree(folder)


def test_page_and_chart_are_what_the_figures_say(kept: dict[str, Any]):
    assert page.PAGE.read_text(encoding="utf-8") == page.page(kept)
    assert page.CHART.read_text(encoding="utf-8") == page.chart(kept)


def test_every_aim_has_its_figure(kept: dict[str, Any]):
    for name, aim, measure, _ in page.TARGETS:
        assert measure(kept["scenarios"]) >= 0, (name, aim)


@pytest.mark.parametrize(
    "way", [ways.cas, ways.field, ways.rsync_folder, ways.sftp_batch, ways.tar_stream, ways.fabric]
)
def test_each_way_delivers(at: Scene, way: ways.Way):
    job = at.job(way.__name__.replace("_", "-"), 2)

    way(job)

    job.delivered()


def test_a_way_that_lost_something_has_no_figure(at: Scene):
    scenario = bench.Scenario(name="x", count=2, ways=(lambda job: None,))

    with pytest.raises(AssertionError, match="0 of 2 are there"):
        bench.compared(scenario, at, 1, itertools.count())


@pytest.mark.parametrize("lane", [False, True], ids=["lanes", "one lane"])
def test_a_hundred_messages_take_no_more_than_forty_round_trips(at: Scene, lane: bool):
    """With half a second there and back, what is not a round trip counts little."""
    round_trip = 0.5
    job = at.job(f"far-{lane}", 100, port=Delay(at.peers[0].port, round_trip).port, lane=lane)

    seconds = bench.timed(lambda: ways.cas(job))

    job.delivered()
    assert seconds < 40 * round_trip

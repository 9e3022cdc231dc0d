"""The pages on scale say what was measured, and what follows from it; the short part of `./do scale`."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks import idle, scale, scale_page, usage
from benchmarks.simulation import Costs, Fleet, bounds, estimate, narrowest, sharded, simulated
from support import Home

from cas.cli import main

COSTS = Costs(
    start=1,
    batch=0.005,
    delivery=0.001,
    scheduler=0.002,
    work=0.03,
    work_delivery=0.001,
    host=0.04,
    host_delivery=0.002,
    signature=0.004,
    commit=0.004,
    trips=15,
)
FLEETS = [
    Fleet(hosts=1_000, messages=messages, workers=workers, round_trip=round_trip, shared=shared)
    for messages in (1, 20)
    for workers in (0, 1, 4, 16)
    for round_trip, shared in ((0.0, 2.0), (0.0, 1.3), (0.05, None))
]


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    return json.loads(scale_page.COUNTS.read_text(encoding="utf-8"))


def test_both_pages_are_what_the_figures_say(kept: dict[str, Any]):
    text = scale_page.EXPLANATION.read_text(encoding="utf-8")

    assert scale_page.PAGE.read_text(encoding="utf-8") == scale_page.page(kept)
    assert text == scale_page.explanation(text, kept)


def test_the_measured_runs_are_simulated_as_the_figures_say(kept: dict[str, Any]):
    assert kept["checked"] == scale_page.checked(kept)
    assert all(abs(row["error"]) < 0.25 for row in kept["checked"].values())


def test_what_is_predicted_follows_from_what_was_measured(kept: dict[str, Any]):
    given = {name: fleet for name, _, fleet in scale_page.fleets(kept)}

    assert set(kept["predicted"]) == set(given)
    for name, fleet in given.items():
        row, costs = kept["predicted"][name], scale_page.costs(kept, dask=fleet.workers > 0, far=True)
        assert row["arithmetic"] == round(estimate(costs, fleet))
        assert row["arithmetic"] == pytest.approx(row["simulated"], rel=0.1)
        if fleet.hosts < 1_000:
            assert row["simulated"] == round(simulated(costs, fleet))


@pytest.mark.parametrize("fleet", FLEETS, ids=str)
def test_the_arithmetic_is_what_the_simulation_finds(fleet: Fleet):
    near = 0.1 if fleet.shared is None else 0.15  # where two parts are as narrow, each holds up the other

    assert estimate(COSTS, fleet) == pytest.approx(simulated(COSTS, fleet), rel=near)


@pytest.mark.parametrize("fleet", FLEETS[::5], ids=str)
def test_nothing_is_done_sooner_than_its_narrowest_part_can(fleet: Fleet):
    assert simulated(COSTS, fleet) >= max(bounds(COSTS, fleet).values())


def test_workers_help_until_the_coordinator_is_what_is_narrowest():
    few, enough, many = (Fleet(hosts=1_000, workers=workers, threads=32, round_trip=0.05) for workers in (1, 16, 64))

    assert [narrowest(COSTS, fleet) for fleet in (few, enough, many)] == ["workers", "coordinator", "coordinator"]
    assert simulated(COSTS, few) > 1.5 * simulated(COSTS, enough)
    assert simulated(COSTS, many) == pytest.approx(simulated(COSTS, enough), rel=0.05)


def test_shards_lift_what_one_coordinator_can_do():
    whole = Fleet(hosts=1_000, workers=64, threads=32, round_trip=0.05)

    assert simulated(COSTS, sharded(whole, 4)) - COSTS.start < 0.3 * (simulated(COSTS, whole) - COSTS.start)


def test_what_waits_for_the_disk_together_waits_once():
    slow = replace(COSTS, commit=0.1)

    seconds = simulated(slow, Fleet(hosts=200, workers=16, round_trip=0.05))

    assert seconds < 200 * slow.commit / 2


def test_a_run_whose_work_is_none_delivers_for_the_ledger(home: Home, tmp_path: Path, monkeypatch, capsys):
    manifest, own = scale.idle_manifest(tmp_path / "idle", 3, 2, sign=None)
    monkeypatch.setenv("HOME", str(own))

    code = idle.main(str(manifest), idle.THREADS)

    assert code == 0
    capsys.readouterr()
    assert main(["status", "--output", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"] == {"delivered": 6}


def test_the_time_of_processors_is_that_of_a_program_and_its_children(tmp_path: Path):
    burn = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    command = [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', '''{burn}'''])"]
    before = usage.processor([os.getpid()])

    used = usage.ran(command, os.environ, tmp_path)

    assert used.processor >= 0.3
    assert usage.processor([os.getpid()]) - before >= 0.29
    assert used.seconds > 0
    assert used.memory > 1

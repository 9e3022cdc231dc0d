"""A clock that goes back an hour or forward a year: names rise within a conversation, and plans stay as they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from harness import report
from support import Forge, Home, Run

from cas.loopback import Key

ROOT = Path(__file__).resolve().parents[2]
NOON = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
HOUR, YEAR = timedelta(hours=1), timedelta(days=365)
# The clock of the process is that of its surroundings: the one place that reads it.
DRIVER = """
import sys
from datetime import datetime
from cas.cli import main
from cas.surroundings import Surroundings
moment = datetime.fromisoformat(sys.argv[1])
Surroundings.now = lambda self: moment
sys.exit(main(sys.argv[2:]))
"""
JUMPS = pytest.mark.parametrize("jump", [-HOUR, YEAR, -YEAR], ids=["an hour back", "a year forward", "a year back"])


def at(moment: datetime, *argv: str | Path) -> Run:
    """Runs cas in a process whose clock says `moment`."""
    command = [sys.executable, "-c", DRIVER, moment.isoformat(), *map(str, argv)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return Run(code=ended.returncode, out=ended.stdout, err=ended.stderr)


def manifest(path: str, *messages: str, sign: bool = False) -> Path:
    sends = [{"id": name.partition(".")[0], "destination": "local.docs", "message": name} for name in messages]
    Path(path).write_text(json.dumps({"cas": 1, "defaults": {"sign": sign}, "sends": sends}), encoding="utf-8")
    return Path(path)


def sequence_by_name(inbox: Path, names: tuple[str, ...]) -> list[int]:
    """The SEQUENCE of each message, in the order of the names."""
    texts = [(inbox / name).read_text(encoding="utf-8") for name in names if name.endswith(".org")]
    return [int(text.partition("#+SEQUENCE: ")[2].partition("\n")[0]) for text in texts]


@JUMPS
def test_names_rise_when_the_clock_jumps_between_two_sends(
    jump: timedelta, home: Home, message: Callable[..., Path], pairs: Callable[[Path], tuple[str, ...]]
):
    clocks = [NOON, NOON + jump, NOON + jump, NOON]
    for number, clock in enumerate(clocks, start=1):
        assert at(clock, "send", "local.docs", message("m.org", sequence=number), "--no-sign").code == 0

    found = sequence_by_name(home.inbox("docs"), pairs(home.inbox("docs")))

    report("clock", points=len(clocks), out_of_order=int(found != [1, 2, 3, 4]))
    assert found == [1, 2, 3, 4]


@JUMPS
def test_names_rise_when_the_clock_jumps_between_two_applies(
    jump: timedelta, home: Home, message: Callable[..., Path], pairs: Callable[[Path], tuple[str, ...]]
):
    for number in range(1, 5):
        message(f"m{number}.org", sequence=number)
    assert at(NOON, "apply", manifest("first.yaml", "m1.org", "m2.org")).code == 0
    assert at(NOON + jump, "apply", manifest("second.yaml", "m3.org", "m4.org")).code == 0

    found = sequence_by_name(home.inbox("docs"), pairs(home.inbox("docs")))

    report("clock", points=2, out_of_order=int(found != [1, 2, 3, 4]))
    assert found == [1, 2, 3, 4]


@JUMPS
def test_names_rise_over_ssh_when_the_clock_jumps(
    jump: timedelta, peer: Forge, message: Callable[..., Path], pairs: Callable[[Path], tuple[str, ...]]
):
    for number, clock in enumerate([NOON, NOON + jump], start=1):
        assert at(clock, "send", "forge.docs", message("m.org", sequence=number), "--no-sign").code == 0

    found = sequence_by_name(peer.inbox("docs"), pairs(peer.inbox("docs")))

    report("clock", points=2, out_of_order=int(found != [1, 2]))
    assert found == [1, 2]


@JUMPS
def test_what_was_delivered_is_unchanged_under_another_clock(
    jump: timedelta, home: Home, message: Callable[..., Path], pairs: Callable[[Path], tuple[str, ...]]
):
    made = manifest("m.yaml", message("m.org").name)
    assert at(NOON, "apply", made).code == 0
    before = pairs(home.inbox("docs"))

    again = at(NOON + jump, "apply", made, "--output", "json")
    elsewhere = at(NOON + jump, "apply", made, "--output", "json", "--state-dir", home.path / "another")

    assert [json.loads(run.out)["counts"]["unchanged"] for run in (again, elsewhere)] == [1, 1]
    assert pairs(home.inbox("docs")) == before


@JUMPS
def test_what_was_halted_goes_under_its_old_name_when_the_clock_has_jumped(
    jump: timedelta,
    home: Home,
    gnupg: Key,
    message: Callable[..., Path],
    pairs: Callable[[Path], tuple[str, ...]],
    verify: Callable[..., str],
):
    """The name is in the ledger from the first attempt on; the file in the inbox's place makes that one fail."""
    made = manifest("m.yaml", message("m.org").name, sign=True)
    home.inbox("docs").parent.mkdir(parents=True)
    home.inbox("docs").write_text("in the way")
    assert at(NOON, "apply", made).code == 1
    home.inbox("docs").unlink()

    assert at(NOON + jump, "apply", made).code == 0

    org, _ = pairs(home.inbox("docs"))
    report("clock", points=1, renamed=int(not org.startswith("20261123T120000Z-")))
    assert org == "20261123T120000Z-from-builder-greeting.org"
    assert verify(home.inbox("docs") / org) == gnupg.fingerprint


@JUMPS
def test_a_plan_is_the_same_bytes_whatever_the_clock_said_in_between(
    jump: timedelta, home: Home, message: Callable[..., Path]
):
    made = manifest("m.yaml", message("m.org").name)
    before = at(NOON, "plan", made, "--output", "json").out

    assert at(NOON + jump, "apply", made).code == 0

    assert before
    assert at(NOON, "plan", made, "--output", "json").out == before


@JUMPS
def test_a_plan_made_under_another_clock_holds_the_same_deliveries(
    jump: timedelta, home: Home, message: Callable[..., Path]
):
    made = manifest("m.yaml", message("m.org").name)
    plans = [json.loads(at(clock, "plan", made, "--output", "json").out) for clock in (NOON, NOON + jump)]
    identities = [[delivery["identity"] for delivery in plan["deliveries"]] for plan in plans]

    assert identities[0] == identities[1]

"""Eight runs of one manifest at once: each message is delivered once, and only one run says that it did it."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from harness import points, report
from scene import Scene, contents, ended, verdict

RUNS = 8


@pytest.mark.parametrize(
    ("way", "states"),
    points([(way, states) for way in ("local", "sftp", "python", "rsync") for states in (1, 2, RUNS)], 4),
)
def test_eight_runs_of_one_manifest_deliver_each_message_once(scene: Scene, way: str, states: int):
    """With one ledger the lock keeps them apart; with several, as on several machines, the claim alone does."""
    count = points(40, 6)
    project = f"{way}-{states}"
    sender = scene.sender(f"home-{project}")
    made = sender.manifest(
        "m",
        scene.address(way, project),
        count,
        conversations=("one", "two"),
        signed=scene.key.fingerprint,
        retries=5,
    )

    started = [
        sender.start(
            *("apply", made, "--output", "json", "--lock-timeout", "300"),
            *("--state-dir", sender.home.path / f"state-{number % states}"),
        )
        for number in range(RUNS)
    ]
    runs = [ended(process) for process in started]

    counts = Counter[str]()
    for run in runs:
        counts.update(json.loads(run.out)["counts"])
    found = verdict(scene.inbox(way, project, sender), contents(made), signed=True)
    report("concurrent applies", runs=RUNS, messages=count, lost=found.lost, doubled=found.doubled)
    assert [run.err for run in runs if run.code] == []
    assert found.sound, found
    assert (counts["delivered"], counts["unchanged"]) == (count, count * (RUNS - 1))

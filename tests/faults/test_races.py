"""Many senders at once into one inbox, all in one conversation: what was sent is there, each message once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness import points, report
from scene import Scene, contents, ended, verdict
from support import pairs

MESSAGES = 2000


@pytest.mark.parametrize("way", ["local", "sftp", "python"])
@pytest.mark.parametrize("count", points([2, 8, 32], 2))
def test_what_many_senders_send_at_once_is_there_once(scene: Scene, way: str, count: int):
    """Two and two share a ledger, and so a lock; all others race for the names as senders on other machines would."""
    project = f"{way}-{count}"
    sender = scene.sender(f"home-{project}")
    inbox = scene.inbox(way, project, sender)
    each = points(MESSAGES, 64) // count
    address = scene.address(way, project)
    manifests = [
        sender.manifest(
            f"m{number}",
            address,
            each,
            conversations=("race",),
            first=1 + number * each,
            signed=scene.key.fingerprint,
        )
        for number in range(count)
    ]

    started = [
        sender.start(
            *("apply", made, "--output", "json", "--lock-timeout", "600"),
            *("--state-dir", sender.home.path / f"state-{number // 2}"),
        )
        for number, made in enumerate(manifests)
    ]
    runs = [ended(process) for process in started]

    sent = sum(json.loads(run.out)["counts"]["delivered"] for run in runs)
    found = verdict(inbox, (content for made in manifests for content in contents(made)), signed=True)
    report("races", senders=count, sent=sent, lost=found.lost, doubled=found.doubled, unsigned=found.unsigned)
    assert [run.err for run in runs if run.code] == []
    assert found.sound, found
    assert sent == each * count == len(pairs(inbox)) // 2
    assert [name for run in runs for name in falling(inbox, run.out)] == []


def falling(inbox: Path, result: str) -> list[str]:
    """The names that do not rise with the SEQUENCE of one sender's messages, of those that one run told."""
    names = [delivery["files"][-1] for delivery in json.loads(result)["deliveries"]]
    sequence = {name: _sequence(inbox / name) for name in names}
    rising = sorted(names, key=lambda name: sequence[name])
    return [name for name, other in zip(sorted(names), rising, strict=True) if name != other]


def _sequence(message: Path) -> int:
    return int(message.read_text(encoding="utf-8").partition("#+SEQUENCE: ")[2].partition("\n")[0])

"""docs/reference/reliability.md shows what the fault suite counted, and what it counted is what was asked of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from faults.reliability import COUNTS, PAGE, page

WRONG = (
    *("lost", "doubled", "unsigned", "left", "bad", "falsely_said", "tracebacks", "late", "lost_after_delivered"),
    *("published_after", "other_exit_code", "out_of_order", "renamed", "astray"),
)
LEAST = {
    "kill of the sender": 600,
    "of the SFTP server": 150,
    "of the Python there": 150,
    "power cut, ext4": 100,
    "errors of the system": 500,
}


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    return json.loads(COUNTS.read_text(encoding="utf-8"))


def test_the_page_is_what_the_counts_say(kept: dict[str, Any]):
    assert PAGE.read_text(encoding="utf-8") == page(kept)


def test_nothing_that_was_counted_went_wrong(kept: dict[str, Any]):
    wrong = {name: {key: counts[key] for key in WRONG if counts.get(key)} for name, counts in kept["faults"].items()}
    assert wrong
    assert {name: counts for name, counts in wrong.items() if counts} == {}


@pytest.mark.parametrize("kind", LEAST)
def test_it_was_the_whole_suite(kept: dict[str, Any], kind: str):
    assert sum(counts["points"] for name, counts in kept["faults"].items() if kind in name) >= LEAST[kind]

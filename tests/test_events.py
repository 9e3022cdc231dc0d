"""Events: the exit code that they add up to, and an attempt as JSON holds it."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import pytest

from cas.errors import ExitCode
from cas.events import Attempt, DeliveryFinished, Event, Outcome, RunFinished, RunStarted, attempt_fields, exit_code

NOW = datetime(2026, 11, 23, 1, 31, 33, tzinfo=UTC)


def finished(code: ExitCode, outcome: Outcome = Outcome.FAILED) -> DeliveryFinished:
    return DeliveryFinished(
        time=NOW,
        id="a@local.docs",
        identity="0" * 32,
        destination="local.docs",
        outcome=outcome,
        source="a.org",
        where="/inbox",
        files=("a.org",),
        exit_code=code,
    )


def test_a_run_without_deliveries_ends_with_0():
    assert exit_code([]) is ExitCode.OK


def test_a_run_in_which_all_went_well_ends_with_0():
    assert exit_code([finished(ExitCode.OK, Outcome.DELIVERED), finished(ExitCode.OK, Outcome.UNCHANGED)]) == 0


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ((1, 3), 3),
        ((3, 2), 2),
        ((2, 4), 4),
        ((4, 6), 6),
        ((6, 5), 5),
        ((1, 2, 3, 4, 5, 6), 5),
        ((0, 1), 1),
        ((1, 0, 3), 3),
    ],
)
def test_of_several_causes_the_first_of_5_6_4_2_3_1_counts_in_whatever_order(codes: tuple[int, ...], expected: int):
    events = [finished(ExitCode(code)) for code in codes]

    assert exit_code(events) == expected
    assert exit_code(reversed(events)) == expected


def test_only_the_ends_of_deliveries_count():
    events: list[Event] = [
        RunStarted(time=NOW, plan="sha256:0", deliveries=1),
        finished(ExitCode.OK, Outcome.DELIVERED),
        RunFinished(time=NOW, exit_code=ExitCode.HALT, halted="HALT is set"),
    ]

    assert exit_code(events) is ExitCode.OK


def test_outcomes_are_those_of_the_result_format():
    assert [outcome.value for outcome in Outcome] == [
        "delivered",
        "unchanged",
        "skipped",
        "blocked",
        "failed",
        "halted",
        "unknown",
    ]


def test_an_attempt_is_written_with_the_five_fields_of_the_format():
    attempt = Attempt(attempt=1, time=NOW, error="connection refused on port 22", permanent=False, wait=5)

    assert attempt_fields(attempt) == {
        "attempt": 1,
        "time": "2026-11-23T01:31:33Z",
        "error": "connection refused on port 22",
        "permanent": False,
        "wait": 5,
    }


def test_an_event_cannot_be_changed():
    event = finished(ExitCode.OK)

    with pytest.raises(dataclasses.FrozenInstanceError):
        event.outcome = Outcome.DELIVERED  # type: ignore[misc]

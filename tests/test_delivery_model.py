"""The protocol of a delivery, as a model: nothing that can happen loses, doubles or replaces a message."""

from __future__ import annotations

import pytest
from delivery_model import Cleaning, violations


@pytest.mark.parametrize(
    ("deliveries", "runs"), [((0,), 3), ((0, 0), 2), ((0, 1), 2), ((0, 0, 1), 1), ((0, 1, 2), 0), ((0, 0, 0), 1)]
)
def test_whatever_happens_each_message_arrives_once_and_behind_its_signature(deliveries: tuple[int, ...], runs: int):
    states, wrong = violations(deliveries, runs=runs)

    assert not wrong
    assert states > 20


def test_a_staged_folder_that_is_emptied_where_it_stands_loses_messages():
    """Why cleaning renames first: another run, which is alive, claims the folder meanwhile, without its message."""
    _, wrong = violations((0, 0), runs=1, cleaning=Cleaning.IN_PLACE)

    assert wrong["claimed without its message"]
    assert wrong["a message was lost"]


def test_without_cleaning_nothing_is_lost_either():
    assert not violations((0, 0), runs=1, cleaning=Cleaning.NEVER)[1]


@pytest.mark.parametrize(("deliveries", "runs"), [((0,), 2), ((0, 0), 1), ((0, 1), 1)])
def test_a_planted_claim_delivers_nothing_and_is_not_believed(deliveries: tuple[int, ...], runs: int):
    assert not violations(deliveries, runs=runs, forgeries=1)[1]


def test_without_proof_a_planted_claim_is_believed():
    _, wrong = violations((0,), runs=1, forgeries=1, proof=False)

    assert wrong["delivered by the word of a forged receipt"]
    assert wrong["a forged message was published as delivered"]

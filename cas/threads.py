"""Threads: what has arrived, by conversation and SEQUENCE, and which numbers are not there. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cas.arrival import Arrival

MOST_SHOWN = 10
"""Gaps of one conversation: a SEQUENCE has up to nine digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thread:
    """The arrivals of one conversation, by SEQUENCE, then by time. `conversation` is None for what cannot be read.

    `gaps`: the numbers from 1 on, below the highest, that none of them has, as ranges with both ends. Of a conversation
    that two take turns in, those of one's own are among them: an inbox cannot know.
    """

    conversation: str | None
    arrivals: tuple[Arrival, ...]
    gaps: tuple[tuple[int, int], ...] = ()


def threads(arrivals: Iterable[Arrival]) -> list[Thread]:
    """Conversations in the order of their newest message, the newest last."""
    by_conversation: dict[str | None, list[Arrival]] = {}
    for arrival in arrivals:
        conversation = arrival.message.conversation if arrival.message else None
        by_conversation.setdefault(conversation, []).append(arrival)
    found = [
        Thread(
            conversation=conversation,
            arrivals=tuple(sorted(some, key=_place)),
            gaps=tuple(_gaps(sorted({_sequence(one) for one in some}))) if conversation else (),
        )
        for conversation, some in by_conversation.items()
    ]
    return sorted(found, key=lambda thread: max((one.time, one.name) for one in thread.arrivals))


def _place(arrival: Arrival) -> tuple[int, object, str]:
    return _sequence(arrival), arrival.time, arrival.name


def _sequence(arrival: Arrival) -> int:
    return arrival.message.sequence if arrival.message else 0


def _gaps(numbers: list[int]) -> Iterator[tuple[int, int]]:
    before = 0
    for number in numbers:
        if number > before + 1:
            yield before + 1, number - 1
        before = number

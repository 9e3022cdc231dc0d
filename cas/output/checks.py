"""Checks, as people and programs read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from cas.checks import Check

WIDTH = len("warning")


def lines(checks: Sequence[Check]) -> Iterator[str]:
    """A line for each thing that was looked at, and below it what mends it."""
    for check in checks:
        yield f"{check.level.value:<{WIDTH}}  {check.what}: {check.words}"
        if check.cure:
            yield f"{'':<{WIDTH}}    {check.cure}"


def fields(checks: Iterable[Check]) -> list[dict[str, object]]:
    """The same, as JSON holds it."""
    return [
        {"what": check.what, "level": check.level.value, "words": check.words, "cure": check.cure} for check in checks
    ]

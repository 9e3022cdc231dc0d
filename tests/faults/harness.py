"""What every fault test stands on: how many of its points run, and where they are counted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar, overload

T = TypeVar("T")
R = TypeVar("R")

EVERY_POINT = "CAS_FAULTS"
"""Set to `all` for the whole suite; else a sample of each test's points runs."""
REPORT = "CAS_FAULTS_REPORT"
"""The file that takes the counts, a line of JSON each."""
EVERYTHING = os.environ.get(EVERY_POINT) == "all"
FILE = os.environ.get(REPORT)
# Read here: some tests clear the environment for cas.


@overload
def points(many: int, few: int) -> int: ...
@overload
def points(many: Iterable[T], few: int) -> list[T]: ...


def points(many: int | Iterable[T], few: int) -> int | list[T]:
    """All of them in the whole suite; else `few`, spread evenly over them. Of a number: how many."""
    if isinstance(many, int):
        return many if EVERYTHING else min(many, few)
    found = list(many)
    if EVERYTHING or len(found) <= few:
        return found
    return [found[number * len(found) // few] for number in range(few)]


def report(name: str, **counts: int) -> None:
    """Count a fault's points; tests that use one name are summed."""
    if FILE:
        line = json.dumps({"name": name, **counts}) + "\n"
        handle = os.open(FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, line.encode())  # one write: several processes append to the file
        finally:
            os.close(handle)


class Judged(Protocol):
    @property
    def wrong(self) -> str:
        """What went wrong, or nothing."""


def at_once(work: Callable[[T], R], chosen: Sequence[T], *, workers: int = 2) -> list[R]:
    """Take points side by side; the results in their order."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, chosen))


def none_wrong(results: Sequence[Judged]) -> None:
    """There are results, and none has gone wrong; else the first ten that have."""
    assert results
    wrong = [one.wrong for one in results if one.wrong]
    assert not wrong, f"{len(wrong)} of {len(results)}:\n" + "\n\n".join(wrong[:10])

"""How many points a fault is tried at, and where the counts go."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar, overload

T = TypeVar("T")


@overload
def points(many: int, few: int) -> int: ...
@overload
def points(many: Sequence[T], few: int) -> list[T]: ...
def points(many: int | Sequence[T], few: int) -> int | list[T]:
    """All points, or as many, when CAS_FAULTS is `all`; else so few of them, evenly spread."""
    if isinstance(many, int):
        return many if os.environ.get("CAS_FAULTS") == "all" else few
    if os.environ.get("CAS_FAULTS") == "all" or len(many) <= few:
        return list(many)
    return [many[index * len(many) // few] for index in range(few)]


def report(name: str, **counts: int) -> None:
    """Add counts to the report that CAS_FAULTS_REPORT names, a line of JSON at once; nothing where it names none."""
    path = os.environ.get("CAS_FAULTS_REPORT")
    if path:
        line = json.dumps({"name": name, **counts}) + "\n"
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(line)

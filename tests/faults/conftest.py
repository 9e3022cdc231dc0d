"""What every fault test stands in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scene import Scene, staged


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with staged() as made:
        (made.server.home / "projects").mkdir()  # or the first delivery alone would have to make it
        yield made

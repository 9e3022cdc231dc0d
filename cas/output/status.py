"""The ledger's entries, as people and programs read them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from cas.plan import Delivery

MOST_MISSING = 100


class Entry(Protocol):
    """What is shown of an entry of the ledger."""

    @property
    def identity(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def run(self) -> str: ...
    @property
    def sender(self) -> str: ...
    @property
    def destination(self) -> str: ...
    @property
    def conversation(self) -> str: ...
    @property
    def sequence(self) -> int: ...
    @property
    def digest(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def attempts(self) -> str: ...
    @property
    def updated(self) -> str: ...


def grouped(entries: Iterable[Entry], by: str) -> Iterator[str]:
    """One line for each run, destination or conversation: how many deliveries are in which state."""
    counts: dict[str, Counter[str]] = {}
    for entry in entries:
        counts.setdefault(getattr(entry, by), Counter())[entry.state] += 1
    width = max(map(len, counts), default=0)
    for group, states in counts.items():
        yield f"{group:<{width}}  {', '.join(f'{count} {state}' for state, count in sorted(states.items()))}"


def entry_lines(entry: Entry) -> Iterator[str]:
    """An entry that is open: what it is, and why it stands there."""
    yield f"{entry.state}: {entry.id}: sequence {entry.sequence} of {entry.conversation}, as {entry.name}"
    if entry.reason:
        yield f"  {entry.updated}: {entry.reason}"


def missing_lines(missing: Sequence[Delivery]) -> Iterator[str]:
    """What of a plan nobody has delivered."""
    if not missing:
        yield "all of the plan is delivered"
        return
    yield f"not delivered by any of them: {len(missing)}"
    yield from (f"  {one.id}" for one in missing[:MOST_MISSING])
    if len(missing) > MOST_MISSING:
        yield f"  and {len(missing) - MOST_MISSING} more; --output json lists all"


def entry_fields(entry: Entry) -> dict[str, object]:
    """An entry as JSON holds it."""
    return {
        "id": entry.id,
        "identity": entry.identity,
        "run": entry.run,
        "sender": entry.sender,
        "destination": entry.destination,
        "conversation": entry.conversation,
        "sequence": entry.sequence,
        "digest": entry.digest,
        "name": entry.name,
        "state": entry.state,
        "reason": entry.reason,
        "attempts": json.loads(entry.attempts),
        "updated": entry.updated,
    }

"""Merging: the ledgers of several machines, read as one; and what of a plan none of them has as delivered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cas import ledger, loader, plan_file
from cas.diagnostics import InvalidInput
from cas.events import Outcome
from cas.ledger import Entry
from cas.plan import DELIVER, Delivery, Plan


def merged(paths: Sequence[Path]) -> list[Entry]:
    """The entries of ledgers, or of state folders with one in them; raises LedgerError."""
    found: dict[str, Entry] = {}
    for path in paths:
        for entry in ledger.read(path / ledger.FILE if path.is_dir() else path):
            known = found.get(entry.identity, entry)
            found[entry.identity] = max(known, entry, key=_weight)
    return sorted(found.values(), key=lambda one: (one.time, one.destination, one.conversation, one.sequence, one.id))


def planned(path: Path) -> Plan:
    """The plan in a file; raises InvalidInput for one that was edited, and for what is none."""
    held, found = plan_file.parse(loader.read(path, loader.LARGEST_PLAN), loader.load_schema("plan"), file=str(path))
    if found:
        raise InvalidInput(found)
    return held.plan


def missing(plan: Plan, entries: Iterable[Entry]) -> Iterator[Delivery]:
    """What a plan says and no entry has as delivered."""
    done = {entry.identity for entry in entries if entry.done}
    return (one for one in plan.deliveries if one.action == DELIVER and one.identity not in done)


def _weight(entry: Entry) -> tuple[bool, bool, str]:
    """What one machine has seen there is there, whatever another one knows; else the latest word counts."""
    return entry.done, entry.state == Outcome.DELIVERED.value, entry.updated

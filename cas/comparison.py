"""Comparisons: two plans into what is new, gone or other in the second, delivery by delivery, field by field. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cas.plan import Delivery, Plan, delivery_fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A field of a delivery, such as `destination.host`, and its values in the two plans."""

    field: str
    before: object
    after: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What differs: ids of deliveries that are only in one of the plans, and the changes of those in both."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: Mapping[str, tuple[Change, ...]]

    @property
    def same(self) -> bool:
        return not (self.added or self.removed or self.changed)


def compare(before: Plan, after: Plan) -> Comparison:
    """Every difference between the deliveries of two plans."""
    old = {delivery.id: delivery for delivery in before.deliveries}
    new = {delivery.id: delivery for delivery in after.deliveries}
    changed = {name: tuple(_changes(old[name], new[name])) for name in old if name in new}
    return Comparison(
        added=tuple(name for name in new if name not in old),
        removed=tuple(name for name in old if name not in new),
        changed={name: changes for name, changes in changed.items() if changes},
    )


def lasting(comparison: Comparison) -> Comparison:
    """Without what another clock alone makes: other names, and another digest of what stays the same message."""
    kept = {name: tuple(_lasting(changes)) for name, changes in comparison.changed.items()}
    return Comparison(
        added=comparison.added,
        removed=comparison.removed,
        changed={name: changes for name, changes in kept.items() if changes},
    )


def _lasting(changes: tuple[Change, ...]) -> Iterator[Change]:
    another = any(change.field == "identity" for change in changes)
    for change in changes:
        if change.field != "files" and (another or change.field != "message.digest"):
            yield change


def _changes(before: Delivery, after: Delivery) -> Iterator[Change]:
    old, new = _flat(delivery_fields(before)), _flat(delivery_fields(after))
    for field in dict.fromkeys((*old, *new)):
        if old.get(field) != new.get(field):
            yield Change(field=field, before=old.get(field), after=new.get(field))


def _flat(body: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in body.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat

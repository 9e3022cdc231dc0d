"""A plan, as people read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from cas.comparison import Comparison
from cas.inventory import Destination
from cas.names import timestamp
from cas.plan import SKIP, Delivery, Plan
from cas.shards import host_of


def lines(plan: Plan, states: Mapping[str, str] | None = None) -> Iterator[str]:
    """A heading, then each delivery: what, to where, under which name, signed by whom.

    `states`: what the ledger says of them, by identity.
    """
    sender = f" from {plan.sender}" if plan.sender else ""
    yield f"{plan.name}: {counted(len(plan.deliveries))}{sender}, planned at {timestamp(plan.clock)}"
    for delivery in plan.deliveries:
        yield ""
        yield f"{delivery.id}"
        yield from (f"  {line}" for line in _delivery_lines(delivery))
        if state := (states or {}).get(delivery.identity):
            yield f"  known here {state}"


def whole(plan: Plan, digest: str, states: Mapping[str, str], seals: Iterable[str] | None = None) -> Iterator[str]:
    """A plan as it lies in a file: what it is, what it was made from, and its deliveries.

    `seals`: the keys that sealed a bundle; None for a plan without its messages.
    """
    yield f"{digest}, of cas {plan.tool_version}"
    if seals is not None:
        yield f"a bundle, sealed by {', '.join(sorted(seals)) or 'nobody'}"
    yield f"expires {timestamp(plan.expires)}" if plan.expires else "never expires"
    for name, value in sorted(plan.variables.items()):
        yield f"with {name}={value}"
    for one in plan.inputs:
        yield f"from {one.path}: {one.bytes} bytes, {one.digest}"
    yield from lines(plan, states)


def written(plan: Plan, file: str, digest: str, *, bundled: bool = False) -> str:
    """That a plan lies in a file now, or its bundle."""
    until = f"until {timestamp(plan.expires)}" if plan.expires else "without end"
    return f"{'bundled' if bundled else 'planned'}: {file}, {counted(len(plan.deliveries))}, good {until}, {digest}"


def difference(comparison: Comparison | None, texts: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    """What differs from another plan; without one, what is new: of each its id, its name and its text."""
    for id_, name, text in texts:
        yield f"+ {id_} as {name}"
        yield from (f"  | {line}" for line in text.removesuffix("\n").split("\n"))
    if comparison:
        yield from (f"+ {id_}" for id_ in comparison.added)
        yield from (f"- {id_}" for id_ in comparison.removed)
        for id_, changes in comparison.changed.items():
            yield f"~ {id_}"
            yield from (f"  {one.field}: {_value(one.before)} → {_value(one.after)}" for one in changes)
    if not texts and (comparison is None or comparison.same):
        yield "nothing has changed" if comparison else "nothing is new"


def difference_fields(comparison: Comparison | None, texts: Sequence[tuple[str, str, str]]) -> dict[str, object]:
    """The same, as JSON holds it."""
    changed = comparison.changed if comparison else {}
    return {
        "format": "cas.diff/1",
        "new": [{"id": id_, "name": name, "text": text} for id_, name, text in texts],
        "added": list(comparison.added) if comparison else [],
        "removed": list(comparison.removed) if comparison else [],
        "changed": [
            {
                "id": id_,
                "fields": [{"field": one.field, "before": one.before, "after": one.after} for one in changes],
            }
            for id_, changes in changed.items()
        ],
    }


def _value(value: object) -> str:
    return "not said" if value is None else str(value)


def counted(deliveries: int) -> str:
    """So many deliveries, in words."""
    return f"{deliveries} {'delivery' if deliveries == 1 else 'deliveries'}"


def share(part: Plan, whole: Plan, shard: str) -> str:
    """What a shard holds of its plan."""
    hosts, of = ({host_of(one) for one in plan.deliveries} for plan in (part, whole))
    of_all = f"{len(part.deliveries)} of {counted(len(whole.deliveries))}"
    words = f"shard {shard}: {of_all}, to {len(hosts)} of {len(of)} hosts"
    return words if part.deliveries or not whole.deliveries else f"{words}; the other shards have all of it"


def place(destination: Destination) -> str:
    """An inbox as a plan names it; nothing in it depends on who plans."""
    if destination.host is None:
        return f"{destination.inbox} (this machine)"
    user = f"{destination.user}@" if destination.user else ""
    port = f" port {destination.port}" if destination.port else ""
    return f"{user}{destination.host}:{destination.inbox} ({destination.transport}{port})"


def _delivery_lines(delivery: Delivery) -> Iterator[str]:
    message = delivery.message
    if delivery.action == SKIP:
        yield f"skipped    {delivery.reason}"
        return
    yield f"message    {message.source}: {message.type} {message.sequence} of {message.conversation}"
    yield f"           {message.bytes} bytes, {message.digest}"
    yield f"to         {place(delivery.destination)}"
    yield f"as         {', '.join(delivery.files[-1:])}"
    if delivery.after:
        yield f"after      {', '.join(delivery.after)}"
    yield f"signed     {f'by {delivery.sign.key}' if delivery.sign else 'no'}"

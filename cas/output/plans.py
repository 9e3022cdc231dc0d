"""A plan, as people read it."""

from __future__ import annotations

from collections.abc import Iterator

from cas.inventory import Destination
from cas.names import timestamp
from cas.plan import SKIP, Delivery, Plan


def lines(plan: Plan) -> Iterator[str]:
    """A heading, then each delivery: what, to where, under which name, signed by whom."""
    sender = f" from {plan.sender}" if plan.sender else ""
    yield f"{plan.name}: {counted(len(plan.deliveries))}{sender}, planned at {timestamp(plan.clock)}"
    for delivery in plan.deliveries:
        yield ""
        yield f"{delivery.id}"
        yield from (f"  {line}" for line in _delivery_lines(delivery))


def counted(deliveries: int) -> str:
    """So many deliveries, in words."""
    return f"{deliveries} {'delivery' if deliveries == 1 else 'deliveries'}"


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
    yield f"as         {delivery.name}"
    if delivery.after:
        yield f"after      {', '.join(delivery.after)}"
    yield f"signed     {f'by {delivery.sign.key}' if delivery.sign else 'no'}"

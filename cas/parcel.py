"""A parcel: a delivery under way, as far as this run has brought it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cas.errors import CasError
from cas.plan import Delivery
from cas.transports.attempt import Progress
from cas.transports.transport import Envelope


@dataclass(slots=True, kw_only=True)
class Parcel(Progress):
    """What is to be delivered, with what the transport needs of it and makes of it.

    `worker`: which process made the latest attempt, where it was another than this one.
    """

    delivery: Delivery
    worker: str | None = None


def parcel(
    delivery: Delivery, envelope: Envelope, *, after: str = "", resumed: bool = False, error: CasError | None = None
) -> Parcel:
    """A delivery that sets out; `after`, `resumed` and `error` as Progress has them."""
    return Parcel(
        delivery=delivery,
        envelope=envelope,
        lane=delivery.lane,
        repeatable=delivery.repeatable,
        after=after,
        resumed=resumed,
        error=error,
    )


def parts(items: Sequence[Parcel], most: int) -> Iterator[list[Parcel]]:
    """What is to be attempted together, in order: up to `most` bytes of messages, or one larger message.

    To be asked for the next part when the one before it was attempted: each has with it what stands of its lanes, and
    what comes after an error in its lane is in none.
    """
    for missing in _filled([item for item in items if not item.done], most):
        stuck = {item.lane for item in items if item.error}
        wanted = {id(item) for item in missing if item.lane not in stuck}
        lanes = {item.lane for item in missing if id(item) in wanted}
        part = [item for item in items if id(item) in wanted or (item.done and item.lane in lanes)]
        if part:
            yield part


def _filled(items: Sequence[Parcel], most: int) -> Iterator[list[Parcel]]:
    part: list[Parcel] = []
    room = most
    for item in items:
        if part and item.delivery.message.bytes > room:
            yield part
            part, room = [], most
        part.append(item)
        room -= item.delivery.message.bytes
    if part:
        yield part

"""A parcel: a delivery under way, as far as this run has brought it."""

from __future__ import annotations

from dataclasses import dataclass

from cas.errors import CasError
from cas.plan import Delivery
from cas.transports.attempt import Progress
from cas.transports.transport import Envelope


@dataclass(slots=True, kw_only=True)
class Parcel(Progress):
    """What is to be delivered, with what the transport needs of it and makes of it."""

    delivery: Delivery


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

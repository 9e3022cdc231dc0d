"""Work: one attempt at deliveries to one host as plain data, for whichever process makes it; and its report. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cas.inventory import Destination
from cas.transports import wire
from cas.transports.attempt import Stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """`destination`: the way there, with its user; `orders`: the deliveries, signed, as `transports.orders` has them.

    `timeout`: seconds that bound each wait; `seconds`: what the whole may take, from its beginning (None: no bound).
    `version`: of the cas that asks. No key, no path of a message and nothing of the environment is in it.
    """

    version: str
    destination: Destination
    orders: tuple[wire.Fields, ...]
    timeout: int
    seconds: float | None
    require_durable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of some work. `error`: why no attempt came about, as `wire.error_fields`; then no more is told of it.

    `again`: another worker began it before, and nobody has heard of that one since: how far it came, an attempt finds;
    `worker`: who made it; `shown`: identities with the names that became visible, in order; `standings`: how far each
    came, as `wire.standing`; `durable`: whether the other side syncs to disk.
    """

    worker: str
    again: bool = False
    error: wire.Fields | None = None
    shown: tuple[tuple[str, str], ...] = ()
    standings: tuple[wire.Fields, ...] = ()
    durable: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """Where a worker stands: its name, and what tells it to publish nothing more. `again`: as in its report."""

    worker: str
    stop: Stop
    again: bool = False


Watch = Callable[[], Post]
"""Asked by a worker at the beginning of each work, in its own process: it goes there as data."""
Perform = Callable[[Work, Watch], Report]
"""What a worker does. It goes there by name."""

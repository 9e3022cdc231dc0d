"""Engines: where an attempt at a host's deliveries is made: in this process, or by the workers of an executor.

The executor is any of `concurrent.futures`: threads, processes, a cluster. What goes to a worker is plain data.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Executor, Future
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from math import inf
from typing import TypeVar

from cas import __version__
from cas.batch import World, too_late
from cas.errors import CasError, HaltError, TransferError
from cas.inventory import Destination
from cas.parcel import Parcel, parts
from cas.transports import attempted, orders, wire
from cas.transports.attempt import Shown
from cas.transports.cutoff import GRACE, Cutoff, longest
from cas.transports.transport import Transport
from cas.work import Perform, Report, Watch, Work

E = TypeVar("E", bound=CasError | None)
MOST_BYTES = 8 << 20
"""Of messages, in one attempt at a part of a batch: what is under way is held in memory, here and there."""
LOOK_EVERY = 0.25
"""Seconds between two looks for what may end the wait for a worker."""
MARGIN = 1.0
"""Seconds before the run's end in which a worker's report may still come."""


def here(items: Sequence[Parcel], timeout: int, world: World, shown: Shown) -> bool:
    """An attempt in this process, over one connection, which ends in time whatever the other side does."""
    missing = [item for item in items if not item.done]
    destination, size = items[0].delivery.destination, sum(item.delivery.message.bytes for item in missing)
    if destination.host is None:
        with world.connect(destination, timeout, len(missing), None) as transport:
            return _attempted(items, transport, world, shown)
    seconds = min(world.remaining(), longest(timeout, len(missing), size))
    with Cutoff(seconds, world.stop, size) as cutoff:
        try:
            with world.connect(destination, timeout, len(missing), cutoff) as transport:
                durable = _attempted(items, transport, world, shown)
        except CasError as error:
            raise cutoff.reason or error from error
        if cutoff.reason:
            for item in (item for item in missing if not item.done):
                item.error = cutoff.reason
        return durable


def _attempted(items: Sequence[Parcel], transport: Transport, world: World, shown: Shown) -> bool:
    for part in parts(items, MOST_BYTES):
        attempted(part, transport, world.stop, shown, require_durable=world.require_durable)
    return transport.durable


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """Attempts made by the workers of an executor; those at inboxes of this machine are made here all the same.

    `as_here`: a destination with what this machine's own settings say of the login, so that all mean one inbox.
    `lost`: why no answer can come any more, if so. `halted` is told of a HALT that a worker has found where it is.
    """

    executor: Executor
    perform: Perform
    watch: Watch
    as_here: Callable[[Destination], Destination]
    lost: Callable[[], TransferError | None] = field(default=lambda: None)
    halted: Callable[[HaltError], None] = field(default=lambda _: None)

    def __call__(self, items: Sequence[Parcel], timeout: int, world: World, shown: Shown) -> bool | None:
        """An attempt; raises CasError where none came about, or no answer came."""
        if items[0].delivery.destination.host is None:
            return here(items, timeout, world, shown)
        destination = self.as_here(items[0].delivery.destination)
        durable = None
        for part in parts(items, MOST_BYTES):
            durable = self._attempt(part, destination, timeout, world, shown)
        return durable

    def _attempt(
        self, part: Sequence[Parcel], destination: Destination, timeout: int, world: World, shown: Shown
    ) -> bool | None:
        missing = {item.envelope.identity: item for item in part if not item.done}
        left = world.remaining()
        future = self._given(
            Work(
                version=__version__,
                destination=destination,
                orders=tuple(orders.of(part)),
                timeout=timeout,
                seconds=None if left == inf else max(0.0, left - MARGIN),
                require_durable=world.require_durable,
            ),
            world,
        )
        try:
            report = self._report(future, timeout, world)
            durable = _taken_over(report, missing, shown)
        except CasError as error:
            orders.lose(missing.values(), error, asked=True)
            raise
        for item in missing.values():
            item.worker = report.worker
            item.error = self._meant(item.error, report.worker, world)
        if report.error is not None:
            reason = self._meant(wire.error_of(report.error), report.worker, world)
            orders.lose(missing.values(), reason, asked=report.again)
            raise reason
        return durable

    def _given(self, work: Work, world: World) -> Future[Report]:
        """The work, given to whichever worker takes it. Raises CasError where none may: then nothing has moved."""
        if refusal := self.lost() or world.stop():
            raise refusal
        try:
            return self.executor.submit(self.perform, work, self.watch)
        except Exception as error:  # whatever an executor has to say of itself
            raise self.lost() or _failed(error) from error

    def _report(self, future: Future[Report], timeout: int, world: World) -> Report:
        """A worker's answer. Raises CasError where none came: then nobody knows what it did."""
        patience = inf
        while not future.done():
            with suppress(TimeoutError, CancelledError):
                future.exception(LOOK_EVERY)
                break
            if world.stop():
                patience = min(patience, time.monotonic() + min(timeout, GRACE))
            if reason := self.lost() or _overdue(world, patience):
                future.cancel()
                raise reason
        try:
            return future.result()
        except Exception as error:  # whatever has become of the worker
            raise self.lost() or _failed(error) from error

    def _meant(self, error: E, worker: str, world: World) -> E | CasError:
        """What a worker's reason to stop means here."""
        if not isinstance(error, HaltError):
            return error
        if standing := world.stop():
            return standing
        if error.code == "worker-alone":
            return TransferError(f"the worker {worker} stopped: {error}", code="worker-alone", permanent=False)
        self.halted(error)
        return error


def _taken_over(report: Report, missing: Mapping[str, Parcel], shown: Shown) -> bool | None:
    """Note what a worker says of these deliveries: all, or nothing. Raises TransferError where it makes no sense."""
    told = {identity: replace(item) for identity, item in missing.items()}
    try:
        if report.error is not None:
            wire.error_of(report.error)
            return None
        heard: set[tuple[str, bool]] = set()
        for identity, name in report.shown:
            orders.see(told[identity], name, heard)
        orders.settle(told, report.standings, halted=True)
        durable = wire.truth(report.durable)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TransferError(
            f"the worker {getattr(report, 'worker', '')} gave an answer that makes no sense",
            code="strange-answer",
            permanent=True,
            hint="see that the same cas is installed there",
        ) from error
    for identity, item in missing.items():
        for one in fields(item):
            setattr(item, one.name, getattr(told[identity], one.name))
    for identity, name in report.shown:
        shown(missing[identity], name)
    return durable


def _overdue(world: World, patience: float) -> CasError | None:
    """Why nobody waits any longer."""
    return too_late(world.remaining()) or (world.stop() if time.monotonic() > patience else None)


def _failed(error: Exception) -> TransferError:
    words = f"{type(error).__name__}: {error}".partition("\n")[0]
    return TransferError(f"a worker did not answer ({words})", code="worker-lost", permanent=False)

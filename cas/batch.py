"""One host's batch of deliveries, from the first attempt to the last: what is retried, when, what became of each."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from cas.errors import CasError, ExitCode, HaltError, TransferError
from cas.events import Attempt, AttemptFailed, DeliveryFinished, DeliveryStarted, Event, FilePublished, Notice, Outcome
from cas.intents import go_on, intent
from cas.inventory import Destination
from cas.ledger import Entry, Ledger
from cas.names import signature_name, timestamp
from cas.parcel import Parcel
from cas.receipts import Verify, is_unproved, problem
from cas.signatures import Content
from cas.transports.attempt import Progress, Shown, Stop, lanes_of
from cas.transports.cutoff import Cutoff
from cas.transports.transport import Transport

LONGEST_FAULT = 300
Connect = Callable[[Destination, int, int, Cutoff | None], AbstractContextManager[Transport]]
"""Opens the way to a destination, given the seconds that bound each wait, how many deliveries there are, and what may
end the connection; raises TransferError."""

Engine = Callable[[Sequence[Parcel], int, "World", Shown], bool | None]
"""Makes one attempt at deliveries to one host, each wait in it bounded by some seconds, and notes how far each came.

Gives whether the other side syncs to disk, None where nobody knows; raises CasError where no attempt came about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What a batch is given: the doors to all that is outside it."""

    connect: Connect
    engine: Engine
    """Where attempts are made: in this process, or by the workers of another."""
    places: int
    """How many hosts are delivered to at once. None is held during a back-off."""
    where: Callable[[Destination], str]
    """A destination's inbox as people are told it."""
    stop: Stop
    require_durable: bool
    """Nothing is published where the other side cannot sync to disk."""
    hold: Callable[[Iterable[str]], AbstractContextManager[None]]
    """Keeps other runs on this machine out of some inboxes; raises LockError."""
    verify: Verify
    remaining: Callable[[], float]
    """Seconds until the run has to end."""
    now: Callable[[], datetime]
    pause: Callable[[float], None]
    ledger: Ledger
    run: str
    root: Path
    """What the paths of messages are relative to."""


class Batch:
    """Deliveries to one host. `step` is called until it says that nothing is left; `emit` is told each event.

    `content` is asked for the bytes of what is new here, once, when its intent is written.
    """

    def __init__(self, items: Sequence[Parcel], world: World, content: Content, emit: Callable[[Event], None]) -> None:
        self._items = items
        self._world = world
        self._content = content
        self._emit = emit
        self._attempts: dict[str, list[Attempt]] = {item.delivery.identity: [] for item in items}
        self._ids = {item.delivery.identity: item.delivery.id for item in items}
        self._open = {item.delivery.identity for item in items}
        self._begun: set[str] = set()
        self._number = 0
        self._durable: bool | None = None
        self._told_made: set[str] = set()
        self._traceback: str | None = None

    def step(self) -> int | None:
        """Make the next attempt; the seconds to rest before the one after it, None where each has its outcome.

        A fault of cas is the outcome of this host's deliveries, and of no others.
        """
        try:
            return self._step()
        except Exception as fault:
            self._traceback = "".join(traceback.format_exception(fault))
            self._fail(_internal(fault))
            self._settle()
            return None

    def _step(self) -> int | None:
        if not self._number:
            self._begin()
        if self._open:
            self._number += 1
            wait = self._attempt()
            if self._open:
                return wait
        return None

    def give_up(self, error: HaltError) -> None:
        """End all that is open, between two attempts."""
        self._fail(error)
        self._settle()

    def _begin(self) -> None:
        for item in self._items:
            delivery = item.delivery
            self._emit(
                DeliveryStarted(
                    time=self._world.now(),
                    id=delivery.id,
                    identity=delivery.identity,
                    destination=delivery.destination.address,
                )
            )
        self._intend()
        self._settle()  # what could not be signed or noted never sets out

    def _intend(self) -> None:
        """Have each delivery in the ledger before anything moves; what stands there of an earlier run is what goes."""
        moving = [item for item in self._items if not item.done and item.error is None]
        try:
            known = self._world.ledger.intend(self._intents(moving))
        except CasError as error:
            self._fail(error)
            return
        for item in (item for item in moving if item.error is None):
            if entry := known.get(item.delivery.identity):
                go_on(item, entry)
            self._begun.add(item.delivery.identity)

    def _intents(self, moving: Iterable[Parcel]) -> Iterator[Entry]:
        """One by one: nobody holds the bytes of all. What is no longer there as it was planned has its error."""
        now = timestamp(self._world.now())
        for item in moving:
            try:
                message = None if item.resumed else self._content(item.delivery.message.digest)
            except CasError as error:
                item.error = error
            else:
                yield intent(item, message, self._world.run, self._world.root, now)

    def _attempt(self) -> int:
        """Make an attempt, and give outcomes; the seconds to wait for what has none."""
        world = self._world
        if error := world.stop() or too_late(world.remaining()):
            self._fail(error)
            return self._settle()
        for item in self._items:
            item.error = None
        items = [item for item in self._items if item.done or item.delivery.identity in self._open]
        timeout = max(1, int(min(world.remaining(), max(item.delivery.retry.timeout for item in items))))
        try:
            with world.hold({world.where(item.delivery.destination) for item in items}):
                self._have_made(items, timeout)
                # Before the next run has the lock: it is to see what is there, and no bytes that are about to go.
                return self._settle()
        except CasError as error:
            self._fail(error)
            return self._settle()

    def _have_made(self, items: Sequence[Parcel], timeout: int) -> None:
        self._catch_up(items)
        if all(item.done for item in items):
            return
        try:
            self._durable = self._world.engine(items, timeout, self._world, self._published)
        except CasError as error:
            self._fail(error)
        self._prove(items)

    def _prove(self, items: Sequence[Parcel]) -> None:
        """What was found published counts only if its signature proves it: others can write there, too."""
        for item in items:
            if item.delivery.identity in self._open and is_unproved(item):
                try:
                    item.error = problem(item, self._world.verify)
                except CasError as error:
                    item.error = error
                item.done = item.error is None

    def _catch_up(self, items: Sequence[Parcel]) -> None:
        """What another run has delivered while this one waited for the lock is done, and its bytes are gone."""
        missing = [item for item in items if not item.done]
        known = self._world.ledger.find(item.delivery.identity for item in missing)
        for item in missing:
            if (entry := known.get(item.delivery.identity)) and entry.done:
                go_on(item, entry)

    def _fail(self, error: CasError) -> None:
        for item in self._items:
            if not item.done:
                item.error = error

    def _settle(self) -> int:
        """Give an outcome to each delivery that has one after this attempt; the seconds to wait for the others."""
        waits = [0]
        finished: list[DeliveryFinished] = []
        for lane in lanes_of(self._items).values():
            stopped: DeliveryFinished | None = None
            for item in (item for item in lane if item.delivery.identity in self._open):
                if item.done:
                    finished.append(self._finished(item, Outcome.DELIVERED if item.ours else Outcome.UNCHANGED))
                elif stopped:
                    finished.append(self._finished_behind(item, stopped))
                elif item.error is None:
                    continue  # behind one that is tried again
                elif (wait := self._noted(item, item.error)) is not None:
                    waits.append(wait)
                else:
                    stopped = self._finished_in_error(item, item.error)
                    finished.append(stopped)
        self._end(finished)
        for item in self._items:
            if item.delivery.identity not in self._open:
                item.error = None  # it holds all that stood on the stack: of a host, 17 KB
        return max(waits)

    def _end(self, finished: Sequence[DeliveryFinished]) -> None:
        """Say what became of deliveries, once the ledger has it."""
        try:
            self._world.ledger.settle(finished, timestamp(self._world.now()))
        except CasError as error:
            finished = [_unrecorded(event, error) for event in finished]
        for event in finished:
            self._open.discard(event.identity)
            self._emit(event)

    def _noted(self, item: Parcel, error: CasError) -> int | None:
        """Note a failed attempt; the seconds until the next one, or None where there is none."""
        retry, number = item.delivery.retry, self._number
        if number == 0 or not isinstance(error, TransferError):
            return None  # it never set out, or not for want of a way there
        backoff = retry.backoff or (0,)
        pause = backoff[min(number, len(backoff)) - 1]
        over = error.permanent or number > retry.retries or pause >= self._world.remaining()
        wait = None if over else pause
        failed = Attempt(attempt=number, time=self._world.now(), error=str(error), permanent=error.permanent, wait=wait)
        self._attempts[item.delivery.identity].append(failed)
        self._emit(
            AttemptFailed(
                time=failed.time,
                id=item.delivery.id,
                destination=item.delivery.destination.address,
                attempt=failed,
                retries=retry.retries,
            )
        )
        return wait

    def _finished_in_error(self, item: Parcel, error: CasError) -> DeliveryFinished:
        local = item.delivery.destination.host is None
        match error:
            case HaltError():
                outcome, code = Outcome.UNKNOWN if item.asked else Outcome.HALTED, ExitCode.HALT
            case _ if item.asked:
                outcome, code = Outcome.UNKNOWN, ExitCode.ERROR if local else ExitCode.DELIVERY
            case TransferError():
                outcome, code = Outcome.FAILED, ExitCode.ERROR if local else ExitCode.DELIVERY
            case _:
                outcome, code = Outcome.FAILED, ExitCode.ERROR
        passed = self._world.remaining() <= 0 and getattr(error, "code", "") != "deadline"
        reason = f"{error}; the deadline has passed" if passed else str(error)
        return self._finished(item, outcome, reason=reason, hint=error.hint, exit_code=code)

    def _finished_behind(self, item: Parcel, stopped: DeliveryFinished) -> DeliveryFinished:
        if item.asked and item.error:  # where a whole window was asked for at once, it may be published all the same
            return self._finished_in_error(item, item.error)
        if stopped.exit_code is ExitCode.HALT:
            return self._finished(
                item, Outcome.HALTED, reason=stopped.reason, hint=stopped.hint, exit_code=ExitCode.HALT
            )
        reason = f"`{stopped.id}`, which comes before it, did not get there"
        return self._finished(item, Outcome.BLOCKED, reason=reason, exit_code=stopped.exit_code)

    def _finished(
        self,
        item: Parcel,
        outcome: Outcome,
        *,
        reason: str | None = None,
        hint: str | None = None,
        exit_code: ExitCode = ExitCode.OK,
    ) -> DeliveryFinished:
        delivery = item.delivery
        if outcome is Outcome.DELIVERED and item.made_inbox and delivery.destination.inbox not in self._told_made:
            self._told_made.add(delivery.destination.inbox)
            where = self._world.where(delivery.destination)
            self._emit(
                Notice(
                    time=self._world.now(),
                    id=delivery.id,
                    message=f"there was no inbox {where}: it was made, and nobody may be reading it",
                )
            )
        return DeliveryFinished(
            time=self._world.now(),
            id=delivery.id,
            identity=delivery.identity,
            destination=delivery.destination.address,
            outcome=outcome,
            source=delivery.message.source,
            where=self._world.where(delivery.destination),
            files=_files(item),
            durable=self._durable if outcome is Outcome.DELIVERED else None,
            reason=reason,
            hint=hint,
            evidence=item.evidence if outcome is Outcome.UNCHANGED else None,
            attempts=tuple(self._attempts[delivery.identity]),
            open=delivery.identity in self._begun and outcome not in (Outcome.DELIVERED, Outcome.UNCHANGED),
            exit_code=exit_code,
            worker=item.worker,
            traceback=self._traceback if outcome in (Outcome.FAILED, Outcome.UNKNOWN) else None,
        )

    def _published(self, item: Progress, name: str) -> None:
        identity = item.envelope.identity
        self._emit(FilePublished(time=self._world.now(), id=self._ids[identity], identity=identity, file=name))


def _internal(fault: Exception) -> CasError:
    return CasError(
        f"a fault of cas: {type(fault).__name__}: {str(fault)[:LONGEST_FAULT]}",
        code="internal",
        hint="report it, with the traceback that the marker holds and --verbose shows",
    )


def too_late(seconds: float) -> TransferError | None:
    """Why nothing more is waited for, with so many seconds left until the run has to end."""
    if seconds > 0:
        return None
    hint = "cas retry --all finishes it; or allow more time with --deadline"
    return TransferError("the deadline has passed", code="deadline", permanent=True, hint=hint)


def _unrecorded(event: DeliveryFinished, error: CasError) -> DeliveryFinished:
    """Without its line in the ledger nothing is said to be delivered."""
    if event.outcome is not Outcome.DELIVERED:
        return event
    return replace(
        event,
        outcome=Outcome.UNKNOWN,
        reason=f"it was published, but {error}",
        hint=error.hint,
        exit_code=ExitCode.ERROR,
    )


def _files(item: Parcel) -> tuple[str, ...]:
    """The names under which it stands, or would have stood."""
    if item.claim:
        return item.claim.files
    name = item.envelope.name
    return (signature_name(name), name) if item.envelope.signature is not None else (name,)

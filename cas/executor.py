"""The executor: carries a plan out, host by host side by side, and yields what happens.

It formats nothing and looks nothing up: time, connections, signatures and HALT are given to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from functools import partial
from graphlib import TopologicalSorter
from queue import SimpleQueue
from threading import Thread

from cas import transports
from cas.batch import Batch, World
from cas.crew import Crew, Ended
from cas.errors import CasError, ExitCode
from cas.events import DeliveryFinished, Event, Outcome, RunFinished, RunStarted, exit_code
from cas.intents import begun, intent
from cas.ledger import Entry, Ledger
from cas.names import timestamp
from cas.parcel import Parcel, parcel
from cas.plan import DELIVER, NO_MESSAGE, SKIP, Delivery, Plan
from cas.schedule import Standing, blocked, schedule
from cas.signatures import Content, Sign, signatures
from cas.transports.transport import Envelope


def execute(plan: Plan, digest: str, world: World, *, content: Content, sign: Sign) -> Iterator[Event]:
    """Carry out a plan; `digest` is its own. The last event holds the exit code. Raises LedgerError, first of all."""
    known = world.ledger.find(delivery.identity for delivery in plan.deliveries)
    items = list(_set_out(plan, known, world, content, sign))
    _refuse_conflicts(items, world)
    skipped = [delivery for delivery in plan.deliveries if delivery.action == SKIP]
    done = {identity for identity, entry in known.items() if entry.done}
    return _run(items, digest, world, content, skipped, done)


def finish(deliveries: Sequence[Delivery], known: Mapping[str, Entry], world: World) -> Iterator[Event]:
    """Carry on with what the ledger holds, each as it was begun."""
    items = [begun(delivery, known[delivery.identity], world.ledger) for delivery in deliveries]
    return _run(items, None, world, _nothing)


def _run(
    items: Sequence[Parcel],
    plan: str | None,
    world: World,
    content: Content,
    skipped: Sequence[Delivery] = (),
    done: Set[str] = frozenset(),
) -> Iterator[Event]:
    yield RunStarted(time=world.now(), plan=plan, deliveries=len(items) + len(skipped))
    standing, finished = Standing(), list[DeliveryFinished]()
    for delivery in skipped:
        left = _never_set_out(delivery, Outcome.SKIPPED, delivery.reason, ExitCode.OK, world)
        # What `when` leaves out counts as done; what was not selected has to be known to be delivered.
        if delivery.message != NO_MESSAGE and delivery.identity not in done:
            standing.take(delivery, left)
        yield left
    for event in _groups(items, world, content, standing):
        if isinstance(event, DeliveryFinished):
            finished.append(event)
        yield event
    halted = next((event.reason for event in finished if event.exit_code is ExitCode.HALT), None)
    yield RunFinished(time=world.now(), exit_code=exit_code(finished), halted=halted)


def _set_out(plan: Plan, known: Mapping[str, Entry], world: World, content: Content, sign: Sign) -> Iterator[Parcel]:
    """Each delivery with its envelope; what cannot be signed carries its error.

    What the ledger knows goes as it was begun, and needs no signature.
    """
    deliveries = [delivery for delivery in plan.deliveries if delivery.action == DELIVER]
    new = [delivery for delivery in deliveries if delivery.identity not in known]
    wanted = [signing for delivery in new if (signing := delivery.signing)]
    # Beside gpg, which leaves this process nothing to do. Nothing else may import meanwhile: cycles would come apart.
    loading = Thread(target=transports.load, args=([delivery.destination for delivery in new if wanted],))
    loading.start()
    made = signatures(wanted, content=content, sign=sign, stop=world.stop)
    loading.join()
    for delivery in deliveries:
        if delivery.identity in known:
            yield begun(delivery, known[delivery.identity], world.ledger)
            continue
        result = made[delivery.signing] if delivery.signing else None
        signature, error = (None, result) if isinstance(result, CasError) else (result, None)
        yield parcel(
            delivery,
            _envelope(delivery, plan, world.ledger, signature),
            # A clock that went back gives a name before one that was given already.
            after=world.ledger.latest(delivery.sender, delivery.destination.address, delivery.message.conversation),
            error=error,
        )


def _nothing(digest: str) -> bytes:
    raise KeyError(digest)  # what the ledger holds is never read from anywhere else


def _refuse_conflicts(items: Sequence[Parcel], world: World) -> None:
    """Another message was sent in the same place of the same conversation: it cannot be taken back, nor doubled."""
    new = [item for item in items if item.delivery.repeatable and not item.resumed and item.error is None]
    others = world.ledger.others(intent(item, None, world.run, world.root, timestamp(world.now())) for item in new)
    for item in new:
        if other := others.get(item.delivery.identity):
            message = item.delivery.message
            item.error = CasError(
                f"conversation `{message.conversation}` has another message with SEQUENCE {message.sequence} for "
                f"`{other.destination}`: {other.digest}, sent as {other.name}; this one is {message.digest}",
                code="conflict",
                hint="give the new message the next SEQUENCE",
            )


def _envelope(delivery: Delivery, plan: Plan, ledger: Ledger, signature: bytes | None) -> Envelope:
    return Envelope(
        identity=delivery.identity,
        inbox=delivery.destination.inbox,
        name=delivery.name,
        sender=delivery.sender,
        digest=delivery.message.digest,
        time=timestamp(plan.clock),
        content=partial(ledger.message, delivery.identity),
        signature=signature,
    )


def _groups(items: Sequence[Parcel], world: World, content: Content, standing: Standing) -> Iterator[Event]:
    """Run the groups side by side, each when those before it have ended, and yield their events as they come."""
    happened: SimpleQueue[Event | Ended] = SimpleQueue()
    planned = schedule(items)
    sorter = planned.sorter()
    deliveries = {item.delivery.identity: item.delivery for item in items}
    with Crew(world.places, stop=world.stop, pause=world.pause, ended=happened.put) as crew:
        under_way = 0
        while sorter.is_active():
            for number in _ready(sorter):
                free = []
                for item, reason in standing.told(planned.groups[number]) if number in planned.groups else ():
                    if reason is None:
                        free.append(item)
                        continue
                    stopped = _never_set_out(item.delivery, *blocked(reason), world)
                    standing.take(item.delivery, stopped)
                    yield stopped
                if free:
                    under_way += 1
                    crew.take(number, Batch(free, world, content, happened.put))
                else:
                    sorter.done(number)
            waits = under_way
            while under_way and under_way == waits:
                match happened.get():
                    case Ended() as end:
                        if end.error:
                            raise end.error
                        under_way -= 1
                        sorter.done(end.number)
                    case event:
                        if isinstance(event, DeliveryFinished):
                            standing.take(deliveries[event.identity], event)
                        yield event


def _ready(sorter: TopologicalSorter[int]) -> Iterator[int]:
    """What is ready, and what becomes so meanwhile."""
    while ready := sorter.get_ready():
        yield from ready


def _never_set_out(
    delivery: Delivery, outcome: Outcome, reason: str | None, code: ExitCode, world: World
) -> DeliveryFinished:
    return DeliveryFinished(
        time=world.now(),
        id=delivery.id,
        identity=delivery.identity,
        destination=delivery.destination.address,
        outcome=outcome,
        source=delivery.message.source,
        where=delivery.destination.inbox,
        files=delivery.files,
        reason=reason,
        exit_code=code,
    )

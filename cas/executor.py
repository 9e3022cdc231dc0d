"""The executor: carries a plan out, host by host side by side, and yields what happens.

It formats nothing and looks nothing up: time, connections, signatures and HALT are given to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

from cas.attempt import Progress
from cas.batch import Batch, World
from cas.errors import CasError, ExitCode
from cas.events import DeliveryFinished, Event, RunFinished, RunStarted, exit_code
from cas.intents import begun, intent
from cas.ledger import Entry
from cas.names import timestamp
from cas.plan import Delivery, Plan
from cas.transports.transport import Envelope

HOSTS_AT_ONCE = 16

Content = Callable[[str], bytes]
"""A message's bytes, by digest."""
Sign = Callable[[bytes, str], bytes]
"""The signature of some bytes by the key with a fingerprint; raises SigningError."""


def execute(plan: Plan, digest: str, world: World, *, content: Content, sign: Sign) -> Iterator[Event]:
    """Carry out a plan; `digest` is its own. The last event holds the exit code. Raises LedgerError, first of all."""
    known = world.ledger.find(delivery.identity for delivery in plan.deliveries)
    items = list(_set_out(plan, known, world, content, sign))
    _refuse_conflicts(items, world)
    return _run(items, digest, world)


def finish(deliveries: Sequence[Delivery], known: Mapping[str, Entry], world: World) -> Iterator[Event]:
    """Carry on with what the ledger holds, each as it was begun."""
    return _run([begun(delivery, known[delivery.identity]) for delivery in deliveries], None, world)


def _run(items: Sequence[Progress], plan: str | None, world: World) -> Iterator[Event]:
    yield RunStarted(time=world.now(), plan=plan, deliveries=len(items))
    finished: list[DeliveryFinished] = []
    for event in _batches(items, world):
        if isinstance(event, DeliveryFinished):
            finished.append(event)
        yield event
    halted = next((event.reason for event in finished if event.exit_code is ExitCode.HALT), None)
    yield RunFinished(time=world.now(), exit_code=exit_code(finished), halted=halted)


def _set_out(plan: Plan, known: Mapping[str, Entry], world: World, content: Content, sign: Sign) -> Iterator[Progress]:
    """Each delivery with its envelope, each distinct message signed once; what cannot be signed carries its error.

    What the ledger knows goes as it was begun, and needs no signature.
    """
    signatures: dict[tuple[str, str], bytes | CasError] = {}
    for delivery in plan.deliveries:
        if delivery.identity in known:
            yield begun(delivery, known[delivery.identity])
            continue
        message = content(delivery.message.digest)
        signature: bytes | CasError | None = None
        if delivery.sign and delivery.sign.key:
            wanted = (delivery.message.digest, delivery.sign.key)
            if wanted not in signatures:
                # The signal that stops cas may have ended gpg too.
                signature = world.stop() or _signature(message, delivery.sign.key, sign)
                signatures[wanted] = world.stop() or signature if isinstance(signature, CasError) else signature
            signature = signatures[wanted]
        error = signature if isinstance(signature, CasError) else None
        yield Progress(
            delivery=delivery,
            envelope=_envelope(delivery, plan, message, None if isinstance(signature, CasError) else signature),
            # A clock that went back gives a name before one that was given already.
            after=world.ledger.latest(delivery.sender, delivery.destination.address, delivery.message.conversation),
            error=error,
        )


def _refuse_conflicts(items: Sequence[Progress], world: World) -> None:
    """Another message was sent in the same place of the same conversation: it cannot be taken back, nor doubled."""
    new = [item for item in items if item.delivery.repeatable and not item.resumed and item.error is None]
    others = world.ledger.others([intent(item, world.run, world.root, timestamp(world.now())) for item in new])
    for item in new:
        if other := others.get(item.delivery.identity):
            message = item.delivery.message
            item.error = CasError(
                f"conversation `{message.conversation}` has another message with SEQUENCE {message.sequence} for "
                f"`{other.destination}`: {other.digest}, sent as {other.name}; this one is {message.digest}",
                code="conflict",
                hint="give the new message the next SEQUENCE",
            )


def _signature(message: bytes, key: str, sign: Sign) -> bytes | CasError:
    try:
        return sign(message, key)
    except CasError as error:
        return error


def _envelope(delivery: Delivery, plan: Plan, message: bytes, signature: bytes | None) -> Envelope:
    return Envelope(
        identity=delivery.identity,
        inbox=delivery.destination.inbox,
        name=delivery.name,
        sender=delivery.sender,
        digest=delivery.message.digest,
        time=timestamp(plan.clock),
        message=message,
        signature=signature,
    )


def _batches(items: Sequence[Progress], world: World) -> Iterator[Event]:
    """Run one batch a host, side by side, and yield their events as they come."""
    happened: SimpleQueue[Event | BaseException | None] = SimpleQueue()

    def work(batch: Batch) -> None:
        try:
            batch.run()
        except BaseException as error:
            happened.put(error)
        finally:
            happened.put(None)

    hosts = _by_host(items)
    if not hosts:
        return
    with ThreadPoolExecutor(max_workers=min(HOSTS_AT_ONCE, len(hosts))) as pool:
        for host in hosts.values():
            pool.submit(work, Batch(host, world, happened.put))
        left = len(hosts)
        while left:
            match happened.get():
                case None:
                    left -= 1
                case BaseException() as error:
                    raise error
                case event:
                    yield event


def _by_host(items: Iterable[Progress]) -> Mapping[tuple[object, ...], list[Progress]]:
    hosts: dict[tuple[object, ...], list[Progress]] = {}
    for item in items:
        to = item.delivery.destination
        way = (to.transport, to.host, to.port, to.user, to.identity_file, to.host_key)
        hosts.setdefault(way, []).append(item)
    return hosts

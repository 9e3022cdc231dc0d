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
from cas.names import timestamp
from cas.plan import Delivery, Plan
from cas.transports.transport import Envelope

HOSTS_AT_ONCE = 16

Content = Callable[[str], bytes]
"""A message's bytes, by digest."""
Sign = Callable[[bytes, str], bytes]
"""The signature of some bytes by the key with a fingerprint; raises SigningError."""


def execute(plan: Plan, digest: str, world: World, *, content: Content, sign: Sign) -> Iterator[Event]:
    """Carry out a plan; `digest` is its own. The last event holds the exit code."""
    yield RunStarted(time=world.now(), plan=digest, deliveries=len(plan.deliveries))
    finished: list[DeliveryFinished] = []
    for event in _batches(list(_set_out(plan, world, content, sign)), world):
        if isinstance(event, DeliveryFinished):
            finished.append(event)
        yield event
    halted = next((event.reason for event in finished if event.exit_code is ExitCode.HALT), None)
    yield RunFinished(time=world.now(), exit_code=exit_code(finished), halted=halted)


def _set_out(plan: Plan, world: World, content: Content, sign: Sign) -> Iterator[Progress]:
    """Each delivery with its envelope, each distinct message signed once; what cannot be signed carries its error."""
    signatures: dict[tuple[str, str], bytes | CasError] = {}
    for delivery in plan.deliveries:
        message = content(delivery.message.digest)
        signature: bytes | CasError | None = None
        if delivery.sign and delivery.sign.key:
            wanted = (delivery.message.digest, delivery.sign.key)
            if wanted not in signatures:
                signatures[wanted] = world.stop() or _signature(message, delivery.sign.key, sign)
            signature = signatures[wanted]
        error = signature if isinstance(signature, CasError) else None
        yield Progress(
            delivery=delivery,
            envelope=_envelope(delivery, plan, message, None if isinstance(signature, CasError) else signature),
            error=error,
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

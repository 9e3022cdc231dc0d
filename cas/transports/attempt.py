"""One attempt at one host's batch of deliveries: each step of the protocol for all of them, then the next step.

A lane goes only as far as its first failure. What comes after that stays without name or unpublished, so that a later
attempt can still send it in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TypeVar

from cas.errors import CasError, HaltError, TransferError
from cas.names import later, time_of
from cas.transports.files import T, Task
from cas.transports.transport import Claim, ClaimState, Envelope, Transport, given_up, workshop

WINDOW = 16
NAME_TRIES = 10_000

Stop = Callable[[], HaltError | None]
"""Looks whether all sending has to stop; the error that says why, or None."""


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a delivery has come; kept across the attempts of one run, and the one record here that changes.

    `asked`: its publication was asked for, so that without an answer nobody knows. `done`: it is published; `ours`: by
    this run. `evidence`: what says so, where it was there before. `resumed`: an earlier run began it; `tried`: so did
    this one. `after`: the latest name that its lane is known to have. `error`: what stopped it in the latest attempt.
    """

    envelope: Envelope
    lane: str
    repeatable: bool
    claim: Claim | None = None
    made_inbox: bool = False
    asked: bool = False
    done: bool = False
    ours: bool = False
    evidence: str | None = None
    resumed: bool = False
    tried: bool = False
    after: str = ""
    error: CasError | None = None

    @property
    def name(self) -> str:
        return self.claim.name if self.claim else self.envelope.name


Item = TypeVar("Item", bound=Progress)
Shown = Callable[[Progress, str], None]
"""Is told each name as it becomes visible."""


def attempt(
    batch: Sequence[Progress], transport: Transport, stop: Stop, shown: Shown, *, require_durable: bool = False
) -> None:
    """Bring each delivery as far as it gets. What stopped one stands in its `error` afterwards; nothing is raised.

    `require_durable`: nothing is published where the other side cannot sync to disk.
    """
    for item in batch:
        item.error = None
    missing = [item for item in batch if not item.done]
    lanes = list(lanes_of(batch).values())
    _prepare(batch, transport)
    _clean(batch, transport)
    _each(_reachable(lanes), lambda item: _look(item, transport), transport)
    transport.run(_reserve(_until_error(lane), transport) for lane in lanes)
    _claim(lanes, transport)
    _confirm([item for item in missing if item.done], transport)
    if require_durable and not transport.durable:
        for item in _reachable(lanes):
            item.error = TransferError(
                "the other side cannot sync to disk, and [policy] has `require_durable`",
                code="not-durable",
                permanent=True,
            )
    for together in _rounds(lanes):
        _publish(together, transport, stop, shown)
    transport.run(transport.close(item.claim) for item in batch if item.done and item.claim)


def lanes_of(batch: Sequence[Item]) -> dict[str, list[Item]]:
    """The deliveries of each lane, in order."""
    lanes: dict[str, list[Item]] = {}
    for item in batch:
        lanes.setdefault(item.lane, []).append(item)
    return lanes


def _until_error(lane: Sequence[Progress]) -> list[Progress]:
    return list(takewhile(lambda item: item.error is None, lane))


def _reachable(lanes: Sequence[Sequence[Progress]]) -> list[Progress]:
    return [item for lane in lanes for item in _until_error(lane)]


def _each(items: Sequence[Progress], step: Callable[[Progress], Awaitable[None]], transport: Transport) -> None:
    transport.run(_noting(item, step) for item in items)


def _well(items: Sequence[Progress]) -> list[Progress]:
    return [item for item in items if item.error is None]


async def _noting(item: Progress, step: Callable[[Progress], Awaitable[None]]) -> None:
    try:
        await step(item)
    except CasError as error:
        item.error = error


def _by_inbox(
    items: Sequence[Progress], step: Callable[[str], Task[T]], transport: Transport
) -> Iterator[tuple[Progress, T | CasError]]:
    """Take a step once for each inbox; gives each delivery with what came of it there."""
    inboxes = sorted({item.envelope.inbox for item in items})
    results = dict(zip(inboxes, transport.run(map(step, inboxes)), strict=True))
    return ((item, results[item.envelope.inbox]) for item in items)


def _prepare(batch: Sequence[Progress], transport: Transport) -> None:
    for item, result in _by_inbox(batch, transport.prepare, transport):
        match result:
            case CasError() as error:
                item.error = error
            case made:
                item.made_inbox = item.made_inbox or made


def _clean(batch: Sequence[Progress], transport: Transport) -> None:
    """Take away what earlier runs and attempts staged for these deliveries, and never claimed."""
    ours: dict[str, set[str]] = {}
    for item in batch:
        # A single send that is new here can have been begun nowhere.
        if not item.done and (item.tried or item.resumed or item.repeatable):
            ours.setdefault(item.envelope.inbox, set()).add(item.envelope.identity)
        item.tried = True
    transport.run(transport.clean(inbox, identities) for inbox, identities in ours.items())


async def _look(item: Progress, transport: Transport) -> None:
    if not item.done:
        _stand_on(item, await transport.find(item.envelope))


def _stand_on(item: Progress, claim: Claim | None) -> None:
    """Go on with the claim that stands, whoever made it."""
    item.claim = claim
    if claim is None:
        return
    if claim.state is ClaimState.WITHDRAWN:
        raise given_up()
    published = claim.state is ClaimState.PUBLISHED
    item.done, item.ours, item.asked = published, published and item.asked, published and item.asked
    item.evidence = _evidence(claim) if published and not item.ours else None


def _evidence(claim: Claim) -> str:
    return "inbox" if claim.present else "receipt"


async def _reserve(lane: Sequence[Progress], transport: Transport) -> None:
    """Names for those without a claim. Behind a name that is taken, the whole rest moves by as many seconds."""
    moved, previous = 0, ""
    for item in lane:
        if item.claim is None and not item.done:
            try:
                name = await _reserved(item.envelope, moved, max(previous, item.after), transport)
            except CasError as error:
                item.error = error
                return
            moved = int((time_of(name) - time_of(item.envelope.name)).total_seconds())
            item.envelope = replace(item.envelope, name=name)
        previous = item.name


async def _reserved(envelope: Envelope, moved: int, previous: str, transport: Transport) -> str:
    name = later(envelope.name, moved)
    if previous and time_of(name) <= time_of(previous):
        name = later(name, 1 + int((time_of(previous) - time_of(name)).total_seconds()))
    for _ in range(NAME_TRIES):
        if await transport.reserve(envelope.inbox, name, envelope.identity):
            return name
        name = later(name, 1)
    raise TransferError(f"no free name after `{envelope.name}`", code="no-free-name", permanent=True)


def _claim(lanes: Sequence[Sequence[Progress]], transport: Transport) -> None:
    """Stage, then claim. What was staged behind a failure in its lane is taken away again."""
    staging = [item for item in _reachable(lanes) if item.claim is None and not item.done]
    staged = transport.stage([item.envelope for item in staging])
    folders = {}
    for item, folder in zip(staging, staged, strict=True):
        if isinstance(folder, CasError):
            item.error = folder
        else:
            folders[item.envelope.identity] = folder
    claiming = [item for item in _reachable(lanes) if item.claim is None and not item.done]

    async def claim(item: Progress) -> None:
        _stand_on(item, await transport.claim(item.envelope, folders.pop(item.envelope.identity)))

    _each(claiming, claim, transport)
    claimed = [item for item in claiming if item.claim]
    _sync(claimed, lambda item: (workshop(item.envelope.inbox),), transport)
    transport.run(transport.unstage(folder) for folder in folders.values())


def _sync(items: Sequence[Progress], folders: Callable[[Progress], Sequence[str]], transport: Transport) -> None:
    """Have on disk what was done for these deliveries in those folders."""
    errors = transport.sync(folder for item in items for folder in folders(item))
    for item in items:
        item.error = next((errors[folder] for folder in folders(item) if folder in errors), item.error)


def _confirm(found: Sequence[Progress], transport: Transport) -> None:
    """What was found published is not said to be there before it is on disk: whoever did it may have been killed."""
    _sync(found, lambda item: (item.envelope.inbox,), transport)
    for item in found:
        item.done = item.error is None


def _rounds(lanes: Sequence[Sequence[Progress]]) -> Iterator[list[Progress]]:
    """What is published together: of each lane one, in order, as long as none has failed; of WINDOW lanes at most."""
    waiting = deque([item for item in _until_error(lane) if item.claim and not item.done] for lane in lanes)
    while waiting:
        first = [waiting.popleft() for _ in range(min(WINDOW, len(waiting)))]
        together = [lane[0] for lane in first if lane]
        yield together
        waiting.extendleft(lane[1:] for lane in reversed(first) if len(lane) > 1 and lane[0].done)


def _publish(items: Sequence[Progress], transport: Transport, stop: Stop, shown: Shown) -> None:
    """Signatures, HALT, messages: the order that receivers rely on, for every transport."""
    signed = [item for item in items if _claim_of(item).signed]
    _each(signed, lambda item: _publish_signature(item, transport, stop), transport)
    _sync(_well(signed), lambda item: (_claim_of(item).inbox,), transport)
    for item in _well(signed):
        shown(item, _claim_of(item).files[0])
    _each(_well(items), lambda item: _publish_message(item, transport, stop), transport)
    _sync(_well(items), _left, transport)
    for item in _well(items):
        item.done = True
        if item.ours:
            shown(item, item.name)
        else:
            item.evidence = _evidence(_claim_of(item))


async def _publish_signature(item: Progress, transport: Transport, stop: Stop) -> None:
    _unless(stop)
    await transport.publish_signature(_claim_of(item))


async def _publish_message(item: Progress, transport: Transport, stop: Stop) -> None:
    _unless(stop)
    item.asked = True
    try:
        item.ours = await transport.publish_message(_claim_of(item))
    except TransferError:
        item.asked = await _may_be_published(_claim_of(item), transport)
        raise


async def _may_be_published(claim: Claim, transport: Transport) -> bool:
    """Whether a publication that ended in an error may have come about all the same; True where nobody can say."""
    try:
        standing = await transport.look(claim.inbox, claim.identity)
    except TransferError:
        return True
    return standing is None or standing.state is ClaimState.PUBLISHED


def _left(item: Progress) -> Sequence[str]:
    """The folders between which a message moved."""
    claim = _claim_of(item)
    return (claim.inbox, claim.folder) if item.ours else (claim.inbox,)


def _claim_of(item: Progress) -> Claim:
    assert item.claim
    return item.claim


def _unless(stop: Stop) -> None:
    if error := stop():
        raise error

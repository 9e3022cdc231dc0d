"""The planner: manifests, messages and inventory into a plan, or into all that is wrong with them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from itertools import pairwise

from cas.diagnostics import Diagnostic, InvalidInput, Place
from cas.inventory import Destination, Inventory, resolve
from cas.manifest import Manifest, Send, Target
from cas.message import Message
from cas.names import canonical_name, identity, signature_name
from cas.plan import Delivery, Input, Plan, PlannedMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A manifest with what belongs to it: who sends, and its messages by the path that its sends give."""

    manifest: Manifest
    sender: str
    messages: Mapping[str, Message]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """A delivery to be, with the places that a diagnostic of it names."""

    source: Source
    send: Send
    target: Target
    message: Message
    destination: Destination

    @property
    def lane(self) -> tuple[object, ...]:
        """Deliveries with an equal one go one after the other: one inbox, one conversation."""
        return (*_inbox(self.destination), self.message.conversation)


def plan(
    sources: Sequence[Source],
    inventory: Inventory,
    *,
    clock: datetime,
    ttl: timedelta | None,
    hostname: str,
    fingerprint: Callable[[str | None], str],
    inputs: Sequence[Input] = (),
    version: str,
    word: str | None = None,
) -> Plan:
    """The plan for these manifests at this time; raises InvalidInput with everything that is wrong.

    `fingerprint` gives the full fingerprint for a key's name, or for None the default key's. `word` makes every
    identity a new one. A send whose message is missing from its source is passed over: that has been reported.
    """
    found: list[Diagnostic] = []
    drafts = [draft for source in sources for draft in _drafts(source, inventory, hostname, found)]
    lanes = _lanes(drafts, found)
    found += _against_policy(drafts, inventory)
    found += _doubled_ids(sources)
    if found:
        raise InvalidInput(found)
    names = _names(lanes, clock)
    key_of = cache(fingerprint)  # asking costs processes
    lane_names = {id(draft): _lane_name(lane) for lane in lanes for draft in lane}
    senders = {source.sender for source in sources}
    return Plan(
        clock=clock,
        expires=clock + ttl if ttl else None,
        name=", ".join(dict.fromkeys(source.manifest.name for source in sources)),
        sender=senders.pop() if len(senders) == 1 else None,
        tool_version=version,
        inputs=tuple(sorted(inputs, key=lambda item: item.path)),
        deliveries=tuple(
            _delivery(draft, names[id(draft)], lane_names[id(draft)], key_of, word)
            for draft in _in_order(drafts, lanes)
        ),
    )


def _drafts(source: Source, inventory: Inventory, hostname: str, found: list[Diagnostic]) -> list[_Draft]:
    drafts = []
    for send in source.manifest.sends:
        inboxes = set()
        for target in send.destinations:
            try:
                destination = resolve(inventory, target.text, hostname=hostname, place=target.place)
            except InvalidInput as error:
                found += error.diagnostics
                continue
            message = source.messages.get(send.message.path)
            if message is None or _inbox(destination) in inboxes:
                continue
            inboxes.add(_inbox(destination))
            drafts.append(_Draft(source=source, send=send, target=target, message=message, destination=destination))
    return drafts


def _inbox(destination: Destination) -> tuple[object, ...]:
    """Equal for destinations that are the same inbox, whatever they are called."""
    return (destination.host, destination.port, destination.user, destination.inbox)


def _lanes(drafts: Sequence[_Draft], found: list[Diagnostic]) -> list[list[_Draft]]:
    """The drafts of each lane, by SEQUENCE, then by position."""
    lanes: dict[tuple[object, ...], list[_Draft]] = {}
    for draft in drafts:
        lanes.setdefault(draft.lane, []).append(draft)
    for lane in lanes.values():
        lane.sort(key=lambda draft: draft.message.sequence)
        found += [
            _doubled(before, draft)
            for before, draft in pairwise(lane)
            if before.message.sequence == draft.message.sequence
        ]
    return list(lanes.values())


def _in_order(drafts: Sequence[_Draft], lanes: Sequence[Sequence[_Draft]]) -> list[_Draft]:
    """By position in the manifests; within a lane, by SEQUENCE: each lane keeps the positions that it has."""
    following = {}
    for lane in lanes:
        following.update(dict.fromkeys(map(id, lane), iter(lane)))
    return [next(following[id(draft)]) for draft in drafts]


def _names(lanes: Sequence[Sequence[_Draft]], clock: datetime) -> dict[int, str]:
    """The name of each draft, by its `id()`: unique in one inbox, rising within a lane; a later one takes the next free
    second. Lanes can meet too: sender `a-b` with `c`, and `a` with `b-c`, have one name."""
    names: dict[int, str] = {}
    taken: dict[tuple[object, ...], set[str]] = {}
    for lane in lanes:
        seconds = 0
        for draft in lane:
            named = draft.source.sender, draft.message.conversation
            used = taken.setdefault(_inbox(draft.destination), set())
            while (name := canonical_name(clock + timedelta(seconds=seconds), *named)) in used:
                seconds += 1
            used.add(name)
            names[id(draft)] = name
            seconds += 1
    return names


def _lane_name(lane: Sequence[_Draft]) -> str:
    """One for all of a lane, whatever names its inbox was given."""
    return f"{lane[0].destination.address}/{lane[0].message.conversation}"


def _delivery(
    draft: _Draft, name: str, lane: str, fingerprint: Callable[[str | None], str], word: str | None
) -> Delivery:
    message, send, address = draft.message, draft.send, draft.destination.address
    sign = replace(send.sign, key=fingerprint(send.sign.key)) if send.sign else None
    return Delivery(
        id=f"{send.id}@{draft.target.text}",
        identity=identity(draft.source.sender, address, message.conversation, message.sequence, message.digest, word),
        sender=draft.source.sender,
        lane=lane,
        message=PlannedMessage(
            source=send.message.path,
            digest=message.digest,
            bytes=message.size,
            conversation=message.conversation,
            type=message.type,
            sequence=message.sequence,
        ),
        destination=draft.destination,
        files=(signature_name(name), name) if sign else (name,),
        sign=sign,
        retry=send.retry,
        repeatable=word is None,
    )


def _doubled(before: _Draft, draft: _Draft) -> Diagnostic:
    message = draft.message
    return Diagnostic(
        code="doubled-sequence",
        message=f"two sends bring conversation `{message.conversation}` to `{draft.target.text}` with SEQUENCE "
        f"{message.sequence}: `{before.send.id}` and `{draft.send.id}`",
        place=draft.send.place,
        hint="give the later message the next SEQUENCE",
        related=_related(before.send.place, "the first of the two"),
    )


def _doubled_ids(sources: Sequence[Source]) -> list[Diagnostic]:
    """Ids are unique across manifests; within one, its parser has seen to it."""
    first: dict[str, Send] = {}
    found = []
    for send in (send for source in sources for send in source.manifest.sends):
        if send.id in first and first[send.id].place != send.place:
            found.append(
                Diagnostic(
                    code="duplicate-id",
                    message=f"the id `{send.id}` is given in another manifest too",
                    place=send.place,
                    hint="ids are unique across all manifests of a run",
                    related=_related(first[send.id].place, "the other one"),
                )
            )
        first.setdefault(send.id, send)
    return found


def _against_policy(drafts: Sequence[_Draft], inventory: Inventory) -> list[Diagnostic]:
    policy = inventory.policy
    found = [
        Diagnostic(
            code="policy",
            message=f"`{draft.send.id}` is not signed, and [policy] has `require_signed`",
            place=draft.send.place,
            hint=f"sign it, or change `{inventory.file}`",
        )
        for draft in drafts
        if policy.require_signed and draft.send.sign is None
    ]
    if policy.max_deliveries is not None and len(drafts) > policy.max_deliveries:
        found.append(
            Diagnostic(
                code="policy",
                message=f"{len(drafts)} deliveries, and [policy] has `max_deliveries = {policy.max_deliveries}`",
                hint=f"split the run, or change `{inventory.file}`",
            )
        )
    return found


def _related(place: Place | None, words: str) -> tuple[tuple[Place, str], ...]:
    return ((place, words),) if place else ()

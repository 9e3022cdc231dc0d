"""The planner: drafts of deliveries into a plan, or into all that is wrong with them together. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from itertools import pairwise

from cas.diagnostics import Diagnostic, InvalidInput, Place, first
from cas.drafts import Draft, Source
from cas.inventory import Inventory
from cas.manifest import Send
from cas.names import canonical_name, full_fingerprint, identity, signature_name
from cas.order import against_order
from cas.plan import DELIVER, NO_MESSAGE, SKIP, Delivery, Input, Plan, PlannedManifest, PlannedMessage, Selected


def plan(
    sources: Sequence[Source],
    drafts: Sequence[Draft],
    inventory: Inventory,
    *,
    clock: datetime,
    ttl: timedelta | None,
    fingerprint: Callable[[str | None], str],
    left_out: Callable[[Draft], str | None] = lambda _: None,
    variables: Mapping[str, object] | None = None,
    selected: Selected | None = None,
    inputs: Sequence[Input] = (),
    version: str,
    word: str | None = None,
) -> Plan:
    """The plan for these manifests and the drafts made of them; raises InvalidInput with everything that is wrong.

    `fingerprint` gives the full fingerprint for a key's name, or for None the default key's. `left_out` says why a
    draft was not selected, or None. `word` makes every identity a new one.
    """
    senders = {source.sender for source in sources}
    return Plan(
        clock=clock,
        expires=clock + ttl if ttl else None,
        name=", ".join(dict.fromkeys(source.manifest.name for source in sources)),
        sender=senders.pop() if len(senders) == 1 else None,
        tool_version=version,
        variables=dict(variables or {}),
        selected=selected or Selected(),
        manifests=tuple(PlannedManifest(path=source.origin, sender=source.sender) for source in sources),
        inputs=tuple(sorted(inputs, key=lambda item: item.path)),
        deliveries=deliveries(
            [send.id for source in sources for send in source.manifest.sends],
            drafts,
            inventory,
            clock=clock,
            fingerprint=fingerprint,
            left_out=left_out,
            word=word,
            found=_doubled_ids(sources),
        ),
    )


def deliveries(
    sends: Sequence[str],
    drafts: Sequence[Draft],
    inventory: Inventory,
    *,
    clock: datetime,
    fingerprint: Callable[[str | None], str],
    left_out: Callable[[Draft], str | None] = lambda _: None,
    word: str | None = None,
    found: Sequence[Diagnostic] = (),
) -> tuple[Delivery, ...]:
    """What becomes of these drafts, in the order of a plan; the rest as for `plan`.

    `sends`: the ids of all sends, also of those that no draft is of. `found` is wrong already.
    """
    wrong: list[Diagnostic] = []
    sent = [draft for draft in drafts if draft.message]
    lanes = _lanes(sent, wrong)
    reasons = {id(draft): draft.reason or left_out(draft) for draft in drafts}
    wrong += _against_policy([draft for draft in sent if reasons[id(draft)] is None], inventory)
    wrong += found
    wrong += against_order(sends, drafts, lanes)
    if wrong:
        raise InvalidInput(first(wrong))
    names = _names(lanes, clock)
    key_of = cache(fingerprint)  # asking costs processes
    lane_names = {id(draft): _lane_name(lane) for lane in lanes for draft in lane}
    ordered = _in_order(drafts, lanes)
    made = tuple(
        _delivery(draft, names.get(id(draft)), lane_names.get(id(draft)), reasons[id(draft)], key_of, word)
        for draft in ordered
    )
    if unfit := first(_by_other_keys(ordered, made, inventory, typed=word is not None)):
        raise InvalidInput(unfit)
    return made


def _by_other_keys(
    drafts: Sequence[Draft], made: Sequence[Delivery], inventory: Inventory, *, typed: bool
) -> Iterator[Diagnostic]:
    """What [senders] forbids. `typed`: a person said on the command line whether it is signed."""
    for draft, delivery in zip(drafts, made, strict=True):
        key = delivery.sign.key if delivery.sign else None
        if delivery.action != DELIVER or (key is None and typed) or (delivery.sign and not full_fingerprint(key or "")):
            continue
        if words := inventory.unfit(delivery.sender, key):
            hint = f"sign with a key of [senders.{delivery.sender}], or change `{inventory.file}`"
            yield Diagnostic(code="another-key", message=f"`{draft.id}` {words}", place=draft.send.place, hint=hint)


def _lanes(drafts: Sequence[Draft], found: list[Diagnostic]) -> list[list[Draft]]:
    """The drafts of each lane, by SEQUENCE, then by position."""
    lanes: dict[tuple[object, ...], list[Draft]] = {}
    for draft in drafts:
        assert draft.message
        lanes.setdefault((*draft.destination.is_at, draft.message.conversation), []).append(draft)
    for lane in lanes.values():
        lane.sort(key=_sequence)
        found += [_doubled(before, draft) for before, draft in pairwise(lane) if _sequence(before) == _sequence(draft)]
    return list(lanes.values())


def _sequence(draft: Draft) -> int:
    return draft.message.sequence if draft.message else 0


def _in_order(drafts: Sequence[Draft], lanes: Sequence[Sequence[Draft]]) -> list[Draft]:
    """By position in the manifests; within a lane, by SEQUENCE: each lane keeps the positions that it has."""
    following = {}
    for lane in lanes:
        following.update(dict.fromkeys(map(id, lane), iter(lane)))
    return [next(following[id(draft)]) if id(draft) in following else draft for draft in drafts]


def _names(lanes: Sequence[Sequence[Draft]], clock: datetime) -> dict[int, str]:
    """The name of each draft, by its `id()`: unique in one inbox, rising within a lane; a later one takes the next free
    second. Lanes can meet too: sender `a-b` with `c`, and `a` with `b-c`, have one name."""
    names: dict[int, str] = {}
    taken: dict[tuple[object, ...], set[str]] = {}
    for lane in lanes:
        seconds = 0
        for draft in lane:
            assert draft.message
            named = draft.sender, draft.message.conversation
            used = taken.setdefault(draft.destination.is_at, set())
            while (name := canonical_name(clock + timedelta(seconds=seconds), *named)) in used:
                seconds += 1
            used.add(name)
            names[id(draft)] = name
            seconds += 1
    return names


def _lane_name(lane: Sequence[Draft]) -> str:
    """One for all of a lane, whatever names its inbox was given."""
    conversation = lane[0].message.conversation if lane[0].message else ""
    return f"{lane[0].destination.address}/{conversation}"


def _delivery(
    draft: Draft,
    name: str | None,
    lane: str | None,
    reason: str | None,
    fingerprint: Callable[[str | None], str],
    word: str | None,
) -> Delivery:
    message, address, sign = draft.message, draft.destination.address, None
    if draft.sign and reason is None:
        sign = replace(draft.sign, key=fingerprint(draft.sign.key))
    place = (draft.sender, address, message.conversation, message.sequence) if message else None
    files = () if name is None else (signature_name(name), name) if draft.sign else (name,)
    return Delivery(
        id=f"{draft.id}@{draft.target.text}",
        send=draft.id,
        identity=identity(*place, draft.identifying, word) if place else "",
        sender=draft.sender,
        lane=lane or "",
        message=PlannedMessage(
            source=draft.origin,
            digest=message.digest,
            bytes=message.size,
            conversation=message.conversation,
            type=message.type,
            sequence=message.sequence,
        )
        if message
        else NO_MESSAGE,
        destination=draft.destination,
        files=files,
        sign=sign,
        retry=draft.send.retry,
        tags=draft.send.tags,
        after=tuple(one.value for one in draft.after),
        repeatable=word is None,
        action=DELIVER if reason is None else SKIP,
        reason=reason,
    )


def _doubled(before: Draft, draft: Draft) -> Diagnostic:
    message = draft.message
    assert message
    looped = before.send.id == draft.send.id
    return Diagnostic(
        code="doubled-sequence",
        message=f"two sends bring conversation `{message.conversation}` to `{draft.target.text}` with SEQUENCE "
        f"{message.sequence}: `{before.id}` and `{draft.id}`",
        place=draft.send.place,
        hint="each item needs its own, such as `sequence: '{{ loop.index }}'`"
        if looped
        else "give the later message the next SEQUENCE",
        related=() if looped else _related(before.send.place, "the first of the two"),
    )


def _doubled_ids(sources: Sequence[Source]) -> list[Diagnostic]:
    """Ids are unique across manifests; within one, its parser has seen to it."""
    earlier: dict[str, Send] = {}
    found = []
    for send in (send for source in sources for send in source.manifest.sends):
        if send.id in earlier and earlier[send.id].place != send.place:
            found.append(
                Diagnostic(
                    code="duplicate-id",
                    message=f"the id `{send.id}` is given in another manifest too",
                    place=send.place,
                    hint="ids are unique across all manifests of a run",
                    related=_related(earlier[send.id].place, "the other one"),
                )
            )
        earlier.setdefault(send.id, send)
    return found


def _against_policy(drafts: Sequence[Draft], inventory: Inventory) -> list[Diagnostic]:
    policy = inventory.policy
    found = [
        Diagnostic(
            code="policy",
            message=f"`{draft.id}` is not signed, and [policy] has `require_signed`",
            place=draft.send.place,
            hint=f"sign it, or change `{inventory.file}`",
        )
        for draft in drafts
        if policy.require_signed and draft.sign is None
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

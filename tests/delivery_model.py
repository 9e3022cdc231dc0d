"""A model of docs/explanation/delivery.md: every interleaving of senders, their crashes, next runs, and a receiver.

Each step is atomic, as its system call is: a file is made exclusively, a folder is renamed, a link is made. Files of
writers other than cas are left out, and so is the disk (tests/faults/test_power_cut.py has that). What the model has
besides the bare protocol is cleaning: a run takes away what earlier runs of its delivery staged, and cannot know
whether they are dead.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import NamedTuple

NAMES = 3


class At(Enum):
    """The step that a sender takes next."""

    LOOK = 1
    RESERVE = 2
    STAGE = 3
    CLAIM = 4
    SIGN = 5
    HALT = 6
    PUBLISH = 7
    DONE = 8
    REFUSED = 9
    """What stands does not prove the delivery: nothing is sent, and nothing is said to be there."""


class Staged(Enum):
    """A sender's own folder `new-…`, before it is the claim."""

    NONE = 0
    WHOLE = 1
    HOLLOW = 2
    """Without its message, which cleaning took first."""


class Cleaning(Enum):
    """How the folder of another run is taken away."""

    ASIDE = "renamed first, in one step: it becomes a claim whole or never"
    IN_PLACE = "its files removed one by one where it stands"
    NEVER = "not at all"


class Sender(NamedTuple):
    delivery: int
    at: At
    name: int
    runs: int
    staged: Staged


class Claim(NamedTuple):
    name: int
    published: bool
    forged: bool = False
    """Planted by somebody who can write to the inbox, and holds no key."""


Pair = tuple[int, int]
"""A name, and the delivery whose file bears it."""


class State(NamedTuple):
    claims: tuple[Claim | None, ...]
    names: tuple[int | None, ...]
    """Which delivery holds each name."""
    signatures: frozenset[Pair]
    published: frozenset[Pair]
    taken: frozenset[Pair]
    senders: tuple[Sender, ...]
    forgeries: int = 0
    """How many claims may still be planted."""


Step = tuple[State, str]
"""The next state, and what is wrong about getting there."""


def violations(
    deliveries: Sequence[int],
    *,
    runs: int,
    cleaning: Cleaning = Cleaning.ASIDE,
    forgeries: int = 0,
    proof: bool = True,
) -> tuple[int, Counter[str]]:
    """All that can happen: how many states there are, and how often what is wrong comes up.

    `deliveries` names the delivery of each sender: `(0, 0, 1)` is three senders, two of them of one delivery. All want
    the same first name. `runs` is how often each may be started again; `forgeries`, how many claims somebody without a
    key may plant. Without `proof` a sender believes whatever claim stands.
    """
    start = State(
        claims=(None,) * (max(deliveries) + 1),
        names=(None,) * NAMES,
        signatures=frozenset(),
        published=frozenset(),
        taken=frozenset(),
        senders=tuple(Sender(delivery, At.LOOK, 0, runs, Staged.NONE) for delivery in deliveries),
        forgeries=forgeries,
    )
    seen, queue, wrong = {start}, deque([start]), Counter[str]()
    while queue:
        state = queue.popleft()
        following = list(_steps(state, cleaning, proof=proof))
        for after, bad in following:
            wrong[bad] += 1
            if after not in seen:
                seen.add(after)
                queue.append(after)
        if not following:
            wrong[_at_the_end(state)] += 1
    del wrong[""]
    return len(seen), wrong


def _at_the_end(state: State) -> str:
    """What is wrong where nobody can take a step any more: HALT was lifted, and every crash was followed by a run."""
    arrived = Counter(delivery for _, delivery in state.published)
    stopped = {sender.delivery for sender in state.senders if sender.at is At.DONE}
    published = [d for d, claim in enumerate(state.claims) if claim and claim.published and not claim.forged]
    missing = [d for d in published if not arrived[d]]
    return "a message was lost" if any(delivery in stopped for delivery in missing) else ""


def _steps(state: State, cleaning: Cleaning, *, proof: bool) -> Iterator[Step]:
    for delivery, claim in enumerate(state.claims):
        if state.forgeries and claim is None:  # a receipt, or a claim with another message in it
            for published in (True, False):
                planted = Claim(0, published=published, forged=True)
                claims = _put(state.claims, delivery, planted)
                yield state._replace(claims=claims, forgeries=state.forgeries - 1), ""
    for index, sender in enumerate(state.senders):
        if sender.runs:  # a crash, HALT lifted, or simply the next run; its folder stays, for whoever cleans
            yield _with(state, index, sender._replace(at=At.LOOK, name=0, runs=sender.runs - 1)), ""
        if sender.at is At.LOOK:
            yield from _cleaned(state, index, cleaning)
        yield from _step(state, index, sender, proof=proof)
    for pair in state.published - state.taken:  # the receiver takes message and signature away
        yield state._replace(signatures=state.signatures - {pair}, taken=state.taken | {pair}), ""


def _cleaned(state: State, index: int, cleaning: Cleaning) -> Iterator[Step]:
    """What any sender of this delivery staged is taken away, the one at work's own too, if it is an earlier run's."""
    for other, sender in enumerate(state.senders):
        if cleaning is Cleaning.NEVER or sender.delivery != state.senders[index].delivery:
            continue
        if sender.staged is Staged.WHOLE:
            left = Staged.NONE if cleaning is Cleaning.ASIDE else Staged.HOLLOW
            yield _with(state, other, sender._replace(staged=left)), ""
        if sender.staged is Staged.HOLLOW:
            yield _with(state, other, sender._replace(staged=Staged.NONE)), ""


def _step(state: State, index: int, sender: Sender, *, proof: bool) -> Iterator[Step]:
    delivery, name = sender.delivery, sender.name
    claim = state.claims[delivery]

    def to(at: At, on: State = state, **changes: object) -> State:
        return _with(on, index, sender._replace(at=at, **changes))

    match sender.at:
        case At.LOOK if claim and claim.forged and proof:
            yield to(At.REFUSED), ""
        case At.LOOK:
            believed = bool(claim and claim.forged and claim.published)
            yield _standing(to, claim), "delivered by the word of a forged receipt" if believed else ""
        case At.RESERVE:  # exclusive: the first to make the file has the name
            holder = state.names[name]
            if holder in (None, delivery):
                yield to(At.STAGE, state._replace(names=_put(state.names, name, delivery))), ""
            elif name + 1 < NAMES:
                yield to(At.RESERVE, name=name + 1), ""
        case At.STAGE:  # a fresh folder; what an earlier run left is older, and nobody claims it any more
            yield to(At.CLAIM, staged=Staged.WHOLE), ""
        case At.CLAIM if claim:  # a folder renamed onto one that stands is refused
            yield to(At.LOOK, staged=Staged.NONE), ""
        case At.CLAIM if sender.staged is Staged.NONE:  # cleaned away: tried again
            yield to(At.LOOK), ""
        case At.CLAIM:  # without its message, a claim says that it was published
            hollow = sender.staged is Staged.HOLLOW
            claims = _put(state.claims, delivery, Claim(name, published=hollow))
            bad = "claimed without its message" if hollow else ""
            yield to(At.LOOK, state._replace(claims=claims), staged=Staged.NONE), bad
        case At.SIGN:  # a link onto a name that stands is refused; ours if it has our bytes
            foreign = any(n == name and d != delivery for n, d in state.signatures)
            signed = state._replace(signatures=state.signatures | {(name, delivery)})
            yield to(At.HALT, signed), "two deliveries, one name" if foreign else ""
        case At.HALT:
            yield to(At.PUBLISH), ""
            yield to(At.DONE), ""  # HALT: stop, touch nothing
        case At.PUBLISH if claim and not claim.published and claim.forged:
            yield (
                to(At.DONE, state._replace(claims=_put(state.claims, delivery, claim._replace(published=True)))),
                ("a forged message was published as delivered"),
            )
        case At.PUBLISH if claim and not claim.published:  # the message is renamed out of the claim, once
            claims = _put(state.claims, delivery, claim._replace(published=True))
            out = state._replace(claims=claims, published=state.published | {(name, delivery)})
            yield to(At.DONE, out), _of_publishing(state, (name, delivery))
        case At.PUBLISH:
            yield to(At.LOOK), ""


def _standing(to: object, claim: Claim | None) -> State:
    """Go on with the claim that stands, whoever made it."""
    assert callable(to)
    if claim is None:
        found = to(At.RESERVE, name=0)
    elif claim.published:
        found = to(At.DONE)
    else:
        found = to(At.SIGN, name=claim.name)
    assert isinstance(found, State)
    return found


def _of_publishing(state: State, pair: Pair) -> str:
    name, delivery = pair
    if any(d == delivery for _, d in state.published):
        return "delivered twice"
    if any(n == name for n, _ in state.published - state.taken):
        return "a message was replaced"
    return "" if pair in state.signatures else "message without its signature"


def _with(state: State, index: int, sender: Sender) -> State:
    return state._replace(senders=_put(state.senders, index, sender))


def _put(row: tuple, at: int, value: object) -> tuple:
    return (*row[:at], value, *row[at + 1 :])

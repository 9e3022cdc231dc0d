"""The schedule: which deliveries go together over one connection, and which of these groups wait for which. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter

from cas.errors import ExitCode
from cas.events import DeliveryFinished, Outcome
from cas.parcel import Parcel
from cas.plan import Delivery, loop_of

FULFILLED = (Outcome.DELIVERED, Outcome.UNCHANGED)


@dataclass(slots=True, kw_only=True)
class Group:
    """Deliveries to one host that wait for the same sends."""

    after: frozenset[str]
    items: list[Parcel] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The groups, by number, and what waits for what: of each number, those that have to end before.

    A negative number is no group: at it those wait that wait for the same groups, be they thousands on either side.
    """

    groups: Mapping[int, Group]
    graph: Mapping[int, set[int]]

    def sorter(self) -> TopologicalSorter[int]:
        """Gives the numbers that are ready, as others are said to be done."""
        sorter = TopologicalSorter(self.graph)
        sorter.prepare()
        return sorter


class Standing:
    """What of a run did not get there so far: by the id of its send, and by lane."""

    def __init__(self) -> None:
        self._sends: dict[str, DeliveryFinished] = {}
        self._lanes: dict[str, DeliveryFinished] = {}

    def take(self, delivery: Delivery, event: DeliveryFinished) -> None:
        """Note a delivery's end. One that was skipped is only to be told of where it is not known to be there."""
        if event.outcome in FULFILLED:
            return
        for name in names(delivery):
            self._sends.setdefault(name, event)
        if event.outcome is not Outcome.SKIPPED:
            self._lanes.setdefault(delivery.lane, event)

    def told(self, group: Group) -> Iterator[tuple[Parcel, DeliveryFinished | None]]:
        """Each of a group's deliveries, with the delivery that keeps it from setting out, if there is one."""
        for item in group.items:
            blocking = (self._sends[name] for name in sorted(group.after) if name in self._sends)
            yield item, next(blocking, None) or self._lanes.get(item.delivery.lane)


def schedule(items: Sequence[Parcel]) -> Schedule:
    """All deliveries in groups. Whoever follows another in its lane waits for what that one waits for.

    A lane goes one way, the first of it, also where `peers.toml` has several names for one machine: between two ways,
    lanes that cross would wait for each other.
    """
    numbers: dict[tuple[object, ...], int] = {}
    ways: dict[str, tuple[object, ...]] = {}
    groups: dict[int, Group] = {}
    graph: dict[int, set[int]] = {}
    of_send: dict[str, set[int]] = {}
    inherited: dict[str, frozenset[str]] = {}
    last: dict[str, int] = {}
    for item in items:
        delivery = item.delivery
        after = inherited.get(delivery.lane, frozenset()) | frozenset(delivery.after)
        inherited[delivery.lane] = after
        way = ways.setdefault(delivery.lane, _way(delivery))
        number = numbers.setdefault((*way, after), len(groups))
        if number == len(groups):
            groups[number] = Group(after=after)
            graph[number] = set()
        groups[number].items.append(item)
        if last.setdefault(delivery.lane, number) != number:
            graph[number].add(last[delivery.lane])
        last[delivery.lane] = number
        for name in names(delivery):
            of_send.setdefault(name, set()).add(number)
    _wait_together(groups, graph, of_send)
    return Schedule(groups=groups, graph=graph)


def _wait_together(groups: Mapping[int, Group], graph: dict[int, set[int]], of_send: Mapping[str, set[int]]) -> None:
    """Have groups that come after the same sends wait at one place for all groups of these."""
    places: dict[frozenset[str], int] = {}
    for number, group in groups.items():
        if group.after not in places:
            places[group.after] = -1 - len(places)
            graph[places[group.after]] = {other for name in group.after for other in of_send.get(name, ())}
        before = graph[places[group.after]]
        graph[number] |= before - {number} if number in before else {places[group.after]}


def names(delivery: Delivery) -> tuple[str, ...]:
    """What `after` may call a delivery: its send, and its item of it."""
    return tuple(dict.fromkeys((delivery.send, loop_of(delivery.send))))


def blocked(event: DeliveryFinished) -> tuple[Outcome, str, ExitCode]:
    """What becomes of a delivery that this one keeps from setting out."""
    if event.exit_code is ExitCode.HALT:
        return Outcome.HALTED, event.reason or "HALT", ExitCode.HALT
    if event.outcome is Outcome.SKIPPED:
        return Outcome.BLOCKED, f"`{event.id}`, which comes before it, is not known to be delivered", ExitCode.ERROR
    return Outcome.BLOCKED, f"`{event.id}`, which comes before it, did not get there", event.exit_code


def _way(delivery: Delivery) -> tuple[object, ...]:
    to = delivery.destination
    return (to.transport, to.host, to.port, to.user, to.identity_file, to.host_key)

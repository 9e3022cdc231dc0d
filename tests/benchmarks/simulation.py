"""How long a run over many hosts takes, from what each step costs: by simulation, and by arithmetic. Pure.

A process of Python uses one processor at most. Batches take turns at it, in slices; between two slices a batch waits
for the network, and for the other side. What the ledger is to have on disk at the same moment takes one sync.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from math import ceil
from typing import Any

PLACES, MOST_PLACES, A_THREAD = 16, 512, 2
"""As `cas.engines` has them."""
START, SLICES = 0.5, 4
"""The part of a coordinator's work for a batch that comes before the other's; the slices of a login on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Seconds of processors, unless it says otherwise.

    `start`: of the coordinator, once; `batch`, `delivery`: of the coordinator, for each; `scheduler`: of Dask's, for
    each batch; `work`, `work_delivery`: of whoever logs in; `host`, `host_delivery`: of the other side. `signature`: of
    the clock, for each one made, before anything is sent; `commit`: of the clock, for a transaction of the ledger.
    `trips`: round trips of a batch.
    """

    start: float
    batch: float
    delivery: float
    scheduler: float
    work: float
    work_delivery: float
    host: float
    host_delivery: float
    signature: float
    commit: float
    trips: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What is sent by what. `workers`: 0 for the threads of the coordinator, else processes of `threads` threads.

    `shared`: so many processors serve all, the other sides too; None where every process and host has its own.
    """

    hosts: int
    messages: int = 1
    distinct: int = 1
    workers: int = 0
    threads: int = 8
    round_trip: float = 0.0
    shared: float | None = None

    @property
    def places(self) -> int:
        return min(MOST_PLACES, A_THREAD * self.workers * self.threads) if self.workers else PLACES


def sharded(fleet: Fleet, shards: int) -> Fleet:
    """The largest of so many shards, were they all the same."""
    return replace(fleet, hosts=ceil(fleet.hosts / shards))


# By arithmetic


def bounds(costs: Costs, fleet: Fleet) -> Mapping[str, float]:
    """Seconds that each part needs for all batches, if nothing else held it up; the largest is what the run takes."""
    coordinator = _coordinating(costs, fleet)
    working = costs.work + costs.work_delivery * fleet.messages
    hosting = costs.host + costs.host_delivery * fleet.messages
    away = costs.trips * fleet.round_trip + (hosting if fleet.shared is None else 0)
    alone = coordinator + working + away + 2 * costs.commit
    if not fleet.workers:
        found = {"coordinator": fleet.hosts * (coordinator + working), "places": fleet.hosts * alone / fleet.places}
    else:
        found = {
            "coordinator": fleet.hosts * coordinator,
            "scheduler": fleet.hosts * costs.scheduler,
            "workers": fleet.hosts * working / fleet.workers,
            "threads": fleet.hosts * (working + away) / (fleet.workers * fleet.threads),
            "places": fleet.hosts * (alone + costs.scheduler) / fleet.places,
        }
    if fleet.shared is not None:
        found["machine"] = fleet.hosts * (coordinator + costs.scheduler + working + hosting) / fleet.shared
    return found


def estimate(costs: Costs, fleet: Fleet) -> float:
    """Seconds of the whole run: what comes before it, and what its narrowest part needs."""
    return _before(costs, fleet) + max(bounds(costs, fleet).values())


def narrowest(costs: Costs, fleet: Fleet) -> str:
    found = bounds(costs, fleet)
    return max(found, key=lambda name: found[name])


def _coordinating(costs: Costs, fleet: Fleet) -> float:
    return costs.batch + costs.delivery * fleet.messages


def _before(costs: Costs, fleet: Fleet) -> float:
    """Until the first batch begins: the start, and all signatures."""
    return costs.start + costs.signature * fleet.distinct


# By simulation

Step = tuple[str, Any, float]
"""`take` some resources for so long, `sleep`, `hold` or `free` one, or `commit`."""
Process = Generator[Step, None, None]


class _Resource:
    """So many may have it at once; the others wait in order."""

    def __init__(self, places: float) -> None:
        self.free = places
        self.waiting: deque[Process] = deque()


class _Simulation:
    """Runs processes, each a generator of steps."""

    def __init__(self, commit: float) -> None:
        self.now = 0.0
        self._commit, self._committing = commit, False
        self._to_commit: list[Process] = []
        self._due: list[tuple[float, int, Any]] = []
        self._number = count()

    def start(self, process: Process) -> None:
        self._at(self.now, lambda: self._go_on(process))

    def run(self) -> float:
        while self._due:
            self.now, _, act = heapq.heappop(self._due)
            act()
        return self.now

    def _at(self, time: float, act: Any) -> None:
        heapq.heappush(self._due, (time, next(self._number), act))

    def _go_on(self, process: Process) -> None:
        for kind, what, seconds in process:
            match kind:
                case "hold":
                    if what.free < 1:
                        what.waiting.append(process)
                        return
                    what.free -= 1
                case "free":
                    self._free(what)
                case "sleep":
                    self._at(self.now + seconds, lambda: self._go_on(process))
                    return
                case "commit":
                    self._to_commit.append(process)
                    if not self._committing:
                        self._sync()
                    return

    def _free(self, resource: _Resource) -> None:
        if resource.waiting:
            process = resource.waiting.popleft()
            self._at(self.now, lambda: self._go_on(process))
        else:
            resource.free += 1

    def _sync(self) -> None:
        """One transaction for all that wait for it."""
        together, self._to_commit = self._to_commit, []
        self._committing = True

        def synced() -> None:
            self._committing = False
            for process in together:
                self._go_on(process)
            if self._to_commit and not self._committing:
                self._sync()

        self._at(self.now + self._commit, synced)


def simulated(costs: Costs, fleet: Fleet) -> float:
    """Seconds of the whole run."""
    simulation = _Simulation(costs.commit)
    machine = None if fleet.shared is None else _Resource(int(fleet.shared))
    speed = 1.0 if fleet.shared is None else int(fleet.shared) / fleet.shared
    coordinator, scheduler = _Resource(1), _Resource(1)
    workers = [_Resource(1) for _ in range(fleet.workers)]
    seats = [_Resource(fleet.threads) for _ in workers]
    left = iter(range(fleet.hosts))

    def place() -> Process:
        for number in left:
            worker, seat = _seat(number, coordinator, workers, seats)
            yield from _batch(costs, fleet, coordinator, scheduler, worker, seat, machine, speed)

    for _ in range(fleet.places):
        simulation.start(place())
    return _before(costs, fleet) + simulation.run()


def _seat(
    number: int, coordinator: _Resource, workers: Sequence[_Resource], seats: Sequence[_Resource]
) -> tuple[_Resource, _Resource | None]:
    """The process that logs in for a batch, and its threads."""
    if not workers:
        return coordinator, None
    return workers[number % len(workers)], seats[number % len(workers)]


def _batch(
    costs: Costs,
    fleet: Fleet,
    coordinator: _Resource,
    scheduler: _Resource,
    worker: _Resource,
    seats: _Resource | None,
    machine: _Resource | None,
    speed: float,
) -> Process:
    coordinating = _coordinating(costs, fleet) * speed
    working = (costs.work + costs.work_delivery * fleet.messages) * speed
    hosting = (costs.host + costs.host_delivery * fleet.messages) * speed
    slices = max(SLICES, ceil(costs.trips)) if fleet.round_trip else SLICES
    yield from _busy(coordinating * START, coordinator, machine)
    yield "commit", None, 0
    if seats:
        yield from _busy(costs.scheduler * speed, scheduler, machine)
        yield "hold", seats, 0
    for _ in range(slices):
        yield from _busy(working / slices, worker, machine)
        yield from _busy(hosting / slices, None, machine)
        yield "sleep", None, costs.trips * fleet.round_trip / slices
    if seats:
        yield "free", seats, 0
    yield from _busy(coordinating * (1 - START), coordinator, machine)
    yield "commit", None, 0


def _busy(seconds: float, process: _Resource | None, machine: _Resource | None) -> Process:
    """Work of a process, on a processor of a machine that it shares."""
    held = [one for one in (process, machine) if one is not None]
    for one in held:
        yield "hold", one, 0
    yield "sleep", None, seconds
    for one in reversed(held):
        yield "free", one, 0

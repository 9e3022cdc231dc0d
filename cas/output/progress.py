"""Progress: how far each host of a run is, as lines that fit a terminal. Counts what it is told; its clock is given."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

from cas.events import AttemptFailed, DeliveryFinished, DeliveryStarted, Event, FilePublished, Outcome
from cas.plan import Delivery

MOST_HOSTS = 12
MOST_WORKERS = 4
MOST_SAMPLES = 40  # some ten seconds, as often as a display is drawn
LONGEST_NAME = 24
BAR = 12
GAP = "  "
COLUMNS = ("name", "bar", "count", "rate", "left", "state")
# What goes first where there is no room comes last.
BY_IMPORTANCE = ("name", "count", "state", "left", "rate", "bar")
WENT_WRONG = (Outcome.FAILED, Outcome.UNKNOWN, Outcome.BLOCKED)


@dataclass(slots=True, kw_only=True)
class _Host:
    """Changed by the run, read by whoever draws. `samples`: times, with what was done by then."""

    name: str
    total: int = 0
    begun: bool = False
    done: int = 0
    failed: int = 0
    halted: bool = False
    next_try: float | None = None
    samples: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=MOST_SAMPLES))


class Board:
    """Events come in by `take`, which only counts; `lines` may be asked for at any time, by another thread too."""

    def __init__(self, deliveries: Iterable[Delivery], clock: Callable[[], float]) -> None:
        self._clock = clock
        self._start = clock()
        self._hosts: dict[str, _Host] = {}
        self._host_of: dict[str, _Host] = {}
        for delivery in deliveries:
            name = _machine(delivery.destination.address)
            host = self._host_of[delivery.identity] = self._hosts.setdefault(name, _Host(name=name))
            host.total += 1
        self._published: set[str] = set()
        self._workers: dict[str, _Host] = {}
        self._all = _Host(name="all", total=sum(host.total for host in self._hosts.values()))

    def take(self, event: Event) -> None:
        match event:
            case DeliveryStarted():
                self._hosts[_machine(event.destination)].begun = True
            case FilePublished() if not event.file.endswith(".asc"):
                # Counted here, since the ends of all that goes to a host come together, when it is recorded.
                self._published.add(event.identity)
                self._count(self._host_of[event.identity])
            case AttemptFailed() if event.attempt.wait is not None:
                self._hosts[_machine(event.destination)].next_try = self._clock() + event.attempt.wait
            case DeliveryFinished():
                self._finish(event)
            case _:
                pass

    def lines(self, width: int, height: int) -> list[str]:
        """A line for each host, as far as they fit, then for the busiest workers, and one for all of several."""
        now = self._clock()
        hosts, workers = list(self._hosts.values()), list(self._workers.values())
        for host in (*hosts, *workers, self._all):
            host.samples.append((now, host.done))
        busiest = sorted(workers, key=lambda worker: -worker.done)[: max(0, min(MOST_WORKERS, height - 6))]
        shown = _most_active(hosts, max(1, min(MOST_HOSTS, height - 4 - len(busiest))), now)
        rows = [*(_row(host, now) for host in shown), *map(_worker_row, busiest)]
        if len(hosts) > 1:
            rows.append(_row(self._all, now))
        rows[-1]["left"] = rows[-1]["left"] or f"for {_span(now - self._start)}"
        made = list(_fitted(rows, width - 1))
        if left_out := [host for host in hosts if host not in shown]:
            done = sum(host.done == host.total for host in left_out)
            made.insert(len(shown), f"{len(left_out)} more, {done} of them done"[: width - 1])
        return made

    def _finish(self, event: DeliveryFinished) -> None:
        host = self._hosts[_machine(event.destination)]
        if event.worker:
            self._workers.setdefault(event.worker, _Host(name=event.worker)).done += 1
        if event.identity not in self._published:
            self._count(host)
        for one in (host, self._all):
            one.failed += event.outcome in WENT_WRONG
            one.halted |= event.outcome is Outcome.HALTED

    def _count(self, host: _Host) -> None:
        host.done += 1
        host.next_try = None
        self._all.done += 1


def _machine(address: str) -> str:
    return address.partition(".")[0]


def _most_active(hosts: Sequence[_Host], most: int, now: float) -> Sequence[_Host]:
    """The hosts to show, in their order: those that something is the matter with, then those at work, waiting, done."""
    if len(hosts) <= most:
        return hosts

    def rank(host: _Host) -> int:
        if host.done == host.total:
            return 3
        return 0 if _state(host, now) else 1 if host.begun else 2

    chosen = {host.name for host in sorted(hosts, key=rank)[:most]}
    return [host for host in hosts if host.name in chosen]


def _row(host: _Host, now: float) -> dict[str, str]:
    filled = BAR * host.done // host.total if host.total else 0
    rate = _rate(host)
    left = (host.total - host.done) / rate if rate else 0
    return {
        "name": _short(host.name),
        "bar": f"[{'#' * filled:.<{BAR}}]",
        "count": f"{host.done}/{host.total}",
        "rate": _a_second(rate),
        "left": f"{_span(left)} left" if left else "",
        "state": _state(host, now),
    }


def _worker_row(worker: _Host) -> dict[str, str]:
    """Of a worker nobody knows how much it will be given."""
    name = _short(f"by {worker.name.rpartition('://')[2]}")
    return {**dict.fromkeys(COLUMNS, ""), "name": name, "count": str(worker.done), "rate": _a_second(_rate(worker))}


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}~"


def _a_second(rate: float) -> str:
    return f"{rate:.{0 if rate >= 10 else 1}f}/s" if rate else ""


def _rate(host: _Host) -> float:
    """Deliveries in a second, of late; 0 where that cannot be told."""
    (start, before), (end, after) = host.samples[0], host.samples[-1]
    return (after - before) / (end - start) if end > start else 0


def _state(host: _Host, now: float) -> str:
    if host.halted:
        return "HALT"
    if host.next_try is not None and host.next_try > now:
        return f"retry in {ceil(host.next_try - now)} s"
    return f"{host.failed} failed" if host.failed else ""


def _span(seconds: float) -> str:
    whole = ceil(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes = ceil(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _fitted(rows: Sequence[Mapping[str, str]], room: int) -> Iterator[str]:
    """The rows below each other, without the columns that find no room."""
    widths = {column: max(len(row[column]) for row in rows) for column in COLUMNS}
    kept: set[str] = set()
    taken = -len(GAP)
    for column in BY_IMPORTANCE:
        needed = len(GAP) + widths[column]
        if widths[column] and taken + needed <= room:
            taken += needed
            kept.add(column)
    for row in rows:
        cells = (
            f"{row[column]:{'<' if column in ('name', 'state') else '>'}{widths[column]}}"
            for column in COLUMNS
            if column in kept
        )
        yield GAP.join(cells).rstrip()[: max(room, 0)]

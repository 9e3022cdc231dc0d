"""A run in words: results for standard output, all else for standard error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from cas.events import (
    AttemptFailed,
    DeliveryFinished,
    DeliveryStarted,
    Event,
    FilePublished,
    Notice,
    Outcome,
    RunFinished,
    RunStarted,
)
from cas.names import timestamp

Say = Callable[[str], None]

NEVER_SET_OUT = "nothing of it was sent"
SIGNATURE_ALONE = "its signature is there, its message is not yet"
MAYBE_SENT = "whether it arrived is not known: it was being published when the answer failed to come"
STAYS_OPEN = "it stays open: `cas retry --all` finishes it; to send it anew would be a second delivery"


class TextView:
    """Says a run as it goes: results to `out`, words to `err`, what is never left out to `problem`.

    `events`: a line for every event; `recap`: the counts for each destination at the end; `arrived`: the word for what
    is there now; `tracebacks`: those of faults of cas are shown.
    """

    def __init__(
        self,
        out: Say,
        err: Say,
        problem: Say,
        *,
        events: bool,
        recap: bool,
        arrived: str = "sent",
        tracebacks: bool = False,
    ) -> None:
        self._out, self._err, self._problem = out, err, problem
        self._events, self._recap, self._arrived, self._tracebacks = events, recap, arrived, tracebacks
        self._signatures: set[str] = set()
        self._announced: set[tuple[str, int, str]] = set()
        self._finished: list[DeliveryFinished] = []
        self._halted: str | None = None

    def show(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._event(event, f"started: {event.deliveries} to deliver")
            case DeliveryStarted():
                self._event(event, f"{event.id}: started")
            case FilePublished():
                if event.file.endswith(".asc"):
                    self._signatures.add(event.identity)
                self._event(event, f"{event.id}: published {event.file}")
            case AttemptFailed():
                self._attempt(event)
            case Notice():
                self._err(f"note: {event.id}: {event.message}")
            case DeliveryFinished():
                self._finish(event)
            case RunFinished():
                self._event(event, f"finished with exit code {int(event.exit_code)}")
                if self._recap:
                    for line in recap(self._finished):
                        self._out(line)

    def _event(self, event: Event, words: str) -> None:
        if self._events:
            self._err(f"{timestamp(event.time)} {words}")

    def _attempt(self, event: AttemptFailed) -> None:
        """Each failed try of a host is said once, however many deliveries wait for it."""
        attempt = event.attempt
        key = (event.destination.partition(".")[0], attempt.attempt, attempt.error)
        if attempt.wait is None or key in self._announced:
            return
        self._announced.add(key)
        self._err(
            f"{event.destination}: {attempt.error}; trying again in {attempt.wait} s "
            f"(retry {attempt.attempt} of {event.retries})"
        )

    def _finish(self, event: DeliveryFinished) -> None:
        self._finished.append(event)
        path = "/".join((event.where, *event.files[-1:]))
        match event.outcome:
            case Outcome.DELIVERED:
                self._out(f"{self._arrived}: {path}")
                if event.durable is False:
                    self._err(f"note: {event.id}: the other side cannot sync to disk; a power cut there may lose it")
            case Outcome.UNCHANGED:
                self._out(f"unchanged: {path}")
            case Outcome.SKIPPED:
                self._out(f"skipped: {event.id}: {event.reason}")
            case Outcome.HALTED:
                self._halt(event)
            case _:
                self._problem(f"{event.outcome.value}: {event.id}: {event.reason}")
                for line in self._after(event):
                    self._problem(f"  {line}")
                for line in (event.traceback or "").split("\n") if self._tracebacks and event.traceback else ():
                    self._problem(f"  {line}")

    def _halt(self, event: DeliveryFinished) -> None:
        self._problem(f"halted: {event.id}: {event.reason}; {self._state(event)}")
        if event.hint and self._halted is None:
            self._problem(f"  hint: {event.hint}")
        self._halted = event.reason

    def _after(self, event: DeliveryFinished) -> Iterator[str]:
        yield self._state(event)
        if event.hint:
            yield f"hint: {event.hint}"
        if event.open:
            yield STAYS_OPEN
        if event.marker:
            yield f"marker: {event.marker}"

    def _state(self, event: DeliveryFinished) -> str:
        if event.outcome is Outcome.UNKNOWN:
            return MAYBE_SENT
        return SIGNATURE_ALONE if event.identity in self._signatures else NEVER_SET_OUT


def recap(finished: Iterable[DeliveryFinished]) -> Iterator[str]:
    """One line a destination, and one a worker: how many deliveries had which outcome."""
    destinations: dict[str, Counter[Outcome]] = {}
    workers: dict[str, Counter[Outcome]] = {}
    for event in finished:
        destinations.setdefault(event.destination, Counter())[event.outcome] += 1
        if event.worker:
            workers.setdefault(f"by {event.worker}", Counter())[event.outcome] += 1
    for counts in (destinations, workers):
        width = max(map(len, counts), default=0)
        for name in sorted(counts):
            outcomes = (f"{count} {outcome.value}" for outcome in Outcome if (count := counts[name][outcome]))
            yield f"{name:<{width}}  {', '.join(outcomes)}"

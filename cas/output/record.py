"""Records: what a run came to, gathered from its events and findings, as reports of all forms show it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from cas.diagnostics import Diagnostic, Severity
from cas.events import DeliveryFinished, DeliveryStarted, Event, Outcome, RunFinished, RunStarted

GOOD = frozenset({Outcome.DELIVERED, Outcome.UNCHANGED, Outcome.SKIPPED})


@dataclass(slots=True, kw_only=True)
class Record:
    """One run of a verb that sends. `events` are kept only where a report shows them: `every_event`."""

    command: str
    every_event: bool = False
    plan: str | None = None
    halted: str | None = None
    began: datetime | None = None
    """When carrying out began; None where nothing did."""
    ended: datetime | None = None
    events: list[Event] = field(default_factory=list)
    finished: list[DeliveryFinished] = field(default_factory=list)
    found: dict[Diagnostic, None] = field(default_factory=dict)
    _started: dict[str, datetime] = field(default_factory=dict)

    def show(self, event: Event) -> None:
        """Take in an event, as it happens."""
        if self.every_event:
            self.events.append(event)
        match event:
            case RunStarted():
                self.plan, self.began = event.plan, event.time
            case DeliveryStarted():
                self._started[event.identity] = event.time
            case DeliveryFinished():
                self.finished.append(event)
            case RunFinished():
                self.halted, self.ended = event.halted, event.time
            case _:
                pass

    def add(self, found: Iterable[Diagnostic]) -> None:
        """Take in findings, each once."""
        self.found.update(dict.fromkeys(found))

    @property
    def errors(self) -> list[Diagnostic]:
        return [one for one in self.found if one.severity is Severity.ERROR]

    @property
    def warnings(self) -> list[Diagnostic]:
        return [one for one in self.found if one.severity is not Severity.ERROR]

    def count(self, *outcomes: Outcome) -> int:
        """How many deliveries ended as one of these."""
        return sum(event.outcome in outcomes for event in self.finished)

    def seconds(self, event: DeliveryFinished) -> int:
        """How long a delivery took."""
        return _between(self._started.get(event.identity), event.time)

    @property
    def duration(self) -> int:
        """How long the run took, in seconds."""
        return _between(self.began, self.ended)


def _between(start: datetime | None, end: datetime | None) -> int:
    return max(0, int((end - start).total_seconds())) if start and end else 0

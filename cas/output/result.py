"""Events and their result as JSON: `cas.result/1`, and with jsonl an event a line before it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields as record_fields
from datetime import datetime

from cas.diagnostics import Diagnostic
from cas.errors import ExitCode
from cas.events import (
    Attempt,
    AttemptFailed,
    DeliveryFinished,
    DeliveryStarted,
    Event,
    FilePublished,
    Notice,
    Outcome,
    RunFinished,
    RunStarted,
    attempt_fields,
)
from cas.names import timestamp
from cas.output import diagnostics as diagnostic_view

FORMAT = "cas.result/1"
NAMES = {
    RunStarted: "run-started",
    DeliveryStarted: "delivery-started",
    AttemptFailed: "attempt-failed",
    FilePublished: "file-published",
    Notice: "notice",
    DeliveryFinished: "delivery-finished",
    RunFinished: "run-finished",
}


class ResultView:
    """Collects a run's events and says its result at the end; each event too, as it happens, with `every_event`."""

    def __init__(self, command: str, say: Callable[[str], None], *, every_event: bool) -> None:
        self._command = command
        self._say = say
        self._every_event = every_event
        self._plan: str | None = None
        self._finished: list[DeliveryFinished] = []

    def show(self, event: Event) -> None:
        if self._every_event:
            self._say(as_json(event_fields(event)))
        match event:
            case RunStarted():
                self._plan = event.plan
            case DeliveryFinished():
                self._finished.append(event)
            case _:
                pass

    def end(self, exit_code: int, halted: str | None, diagnostics: Iterable[Diagnostic] = ()) -> None:
        """Say the result: also of a run that never began, with the diagnostics that say why."""
        self._say(as_json(document(self._command, self._plan, exit_code, halted, self._finished, diagnostics)))


def document(
    command: str,
    plan: str | None,
    exit_code: int,
    halted: str | None,
    finished: Sequence[DeliveryFinished],
    diagnostics: Iterable[Diagnostic],
) -> dict[str, object]:
    """The whole of `cas.result/1`."""
    counts = Counter(event.outcome for event in finished)
    return {
        "format": FORMAT,
        "command": command,
        "plan": plan,
        "exit_code": int(exit_code),
        "halted": halted,
        "counts": {outcome.value: counts[outcome] for outcome in Outcome},
        "deliveries": [delivery_fields(event) for event in finished],
        "diagnostics": diagnostic_view.fields(diagnostics),
    }


def delivery_fields(event: DeliveryFinished) -> dict[str, object]:
    """What became of a delivery, as a result holds it."""
    return {
        "id": event.id,
        "identity": event.identity,
        "destination": event.destination,
        "outcome": event.outcome.value,
        "durable": event.durable,
        "where": event.where,
        "files": list(event.files),
        "reason": event.reason,
        "evidence": event.evidence,
        "marker": event.marker,
        "worker": event.worker,
        "attempts": [attempt_fields(attempt) for attempt in event.attempts],
    }


def event_fields(event: Event) -> dict[str, object]:
    """An event as a line of jsonl holds it."""
    body: dict[str, object]
    if isinstance(event, DeliveryFinished):
        body = delivery_fields(event)
    else:
        body = {field.name: _plain(getattr(event, field.name)) for field in record_fields(event)}
    return {**body, "event": NAMES[type(event)], "time": timestamp(event.time)}


def as_json(body: object) -> str:
    """One line of JSON, keys sorted."""
    return json.dumps(body, sort_keys=True, ensure_ascii=False)


def _plain(value: object) -> object:
    match value:
        case datetime():
            return timestamp(value)
        case Attempt():
            return attempt_fields(value)
        case ExitCode():
            return int(value)
        case _:
            return value

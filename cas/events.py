"""Events: what happened while a plan was carried out, as data. Views, markers and the exit code read the same ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from cas.errors import ExitCode, most_telling
from cas.names import timestamp


class Outcome(Enum):
    """What became of a delivery."""

    DELIVERED = "delivered"
    UNCHANGED = "unchanged"
    SKIPPED = "skipped"
    BLOCKED = "blocked"
    FAILED = "failed"
    HALTED = "halted"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try that failed; `wait` is how many seconds until the next, None where there is none."""

    attempt: int
    time: datetime
    error: str
    permanent: bool
    wait: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    time: datetime
    plan: str | None
    deliveries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryStarted:
    time: datetime
    id: str
    identity: str
    destination: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailed:
    time: datetime
    id: str
    destination: str
    attempt: Attempt
    retries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePublished:
    time: datetime
    id: str
    identity: str
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something that people should know, and that changes no outcome."""

    time: datetime
    id: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFinished:
    """A delivery's end. `where`: the inbox as people are told it; `files`: the names that stand, or were to.

    `open`: the ledger holds it, and `cas retry` can finish it. `worker`: the process that made the latest attempt at
    it, where that was another than this one. `traceback`: of a fault of cas.
    """

    time: datetime
    id: str
    identity: str
    destination: str
    outcome: Outcome
    source: str
    where: str
    files: tuple[str, ...]
    durable: bool | None = None
    reason: str | None = None
    hint: str | None = None
    evidence: str | None = None
    marker: str | None = None
    open: bool = False
    attempts: tuple[Attempt, ...] = ()
    exit_code: ExitCode = ExitCode.OK
    worker: str | None = None
    traceback: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    time: datetime
    exit_code: ExitCode
    halted: str | None


Event = RunStarted | DeliveryStarted | AttemptFailed | FilePublished | Notice | DeliveryFinished | RunFinished


def exit_code(events: Iterable[Event]) -> ExitCode:
    """What the process ends with after these deliveries."""
    return most_telling(event.exit_code for event in events if isinstance(event, DeliveryFinished))


def attempt_fields(attempt: Attempt) -> dict[str, object]:
    """An attempt as results and markers write it."""
    return {
        "attempt": attempt.attempt,
        "time": timestamp(attempt.time),
        "error": attempt.error,
        "permanent": attempt.permanent,
        "wait": attempt.wait,
    }

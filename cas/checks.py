"""Checks: what was looked at, how it stands, and what mends it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How a thing stands. A note is worth knowing; a warning will be trouble; an error is."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at, in words for behind its name; `cure`: the command that mends it, or what to do."""

    what: str
    level: Level
    words: str
    cure: str | None = None


def ok(what: str, words: str) -> Check:
    return Check(what=what, level=Level.OK, words=words)


def note(what: str, words: str, cure: str | None = None) -> Check:
    return Check(what=what, level=Level.NOTE, words=words, cure=cure)


def warning(what: str, words: str, cure: str | None = None) -> Check:
    return Check(what=what, level=Level.WARNING, words=words, cure=cure)


def error(what: str, words: str, cure: str | None = None) -> Check:
    return Check(what=what, level=Level.ERROR, words=words, cure=cure)


def failed(checks: Iterable[Check]) -> bool:
    """Whether one of them is an error."""
    return any(check.level is Level.ERROR for check in checks)

"""Diagnostics: what is wrong in what the user wrote, as data with a place. Collected, and reported all together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from itertools import islice

from cas.errors import CasError, ExitCode, most_telling

MOST_FINDINGS = 100
"""Of one file; after so many nobody reads on, and what is left shows itself when these are mended."""
LONGEST_WORDS = 2_000
SPLIT = "split it: cas takes several manifests, or a folder of them, as one run"
MOST_LISTED = 20
MOST_COMPARED = 100_000
"""Signs of one word, times those of all words that are known: what difflib goes through in a blink."""


class Severity(Enum):
    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where something stands: a file as the user named it; line and column from 1, where they are known."""

    file: str
    line: int | None = None
    column: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """One finding. `code` is stable; `related` are further places, each with the words that explain it.

    What it quotes may be megabytes, of which it keeps the beginning.
    """

    code: str
    message: str
    place: Place | None = None
    hint: str | None = None
    severity: Severity = Severity.ERROR
    exit_code: ExitCode = ExitCode.ERROR
    related: tuple[tuple[Place, str], ...] = ()

    def __post_init__(self) -> None:
        if len(self.message) > LONGEST_WORDS:
            object.__setattr__(self, "message", shortened(self.message))
        if self.hint and len(self.hint) > LONGEST_WORDS:
            object.__setattr__(self, "hint", shortened(self.hint))


class InvalidInput(CasError):
    """What the user wrote cannot be used; holds every diagnostic that was found, warnings too, each file's by place."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = _in_order(diagnostics)
        errors = [found for found in self.diagnostics if found.severity is Severity.ERROR]
        super().__init__("; ".join(error.message for error in errors), code="invalid-input")
        self.exit_code = most_telling(error.exit_code for error in errors)


def _in_order(diagnostics: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """File by file, as they came up, and in each as it is read."""
    found = tuple(diagnostics)
    nowhere = Place(file="")
    files: dict[str, int] = {}
    for one in found:
        files.setdefault((one.place or nowhere).file, len(files))

    def key(one: Diagnostic) -> tuple[int, int, int]:
        place = one.place or nowhere
        return files[place.file], place.line or 0, place.column or 0

    return tuple(sorted(found, key=key))


def first(found: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """As many findings as anybody reads; the others are not even made."""
    return tuple(islice(found, MOST_FINDINGS))


def shortened(text: str, longest: int = LONGEST_WORDS) -> str:
    """The beginning of a text that is too long to be shown."""
    return text if len(text) <= longest else text[:longest] + "…"


def suggestion(word: str, known: Iterable[str], *, most: int = 1) -> str | None:
    """The hint for a mistyped word: the nearest known ones, at most so many; None if none is near, or too many."""
    from difflib import get_close_matches  # here: most runs find nothing wrong

    words = list(known)
    if len(word) * sum(map(len, words)) > MOST_COMPARED:
        return None
    near = get_close_matches(word, sorted(words), n=most, cutoff=0.6)
    return f"did you mean {' or '.join(f'`{one}`' for one in near)}?" if near else None


def listed(known: Iterable[str]) -> str:
    """What there is, sorted, as a message shows it: "`a`, `b`", or "none"; of many the first ones."""
    there = sorted(known)
    more = ", …" if len(there) > MOST_LISTED else ""
    return ", ".join(f"`{one}`" for one in there[:MOST_LISTED]) + more or "none"


def decoded(
    content: bytes,
    place: Place,
    *,
    code: str,
    whose: str = "",
    hint: str | None = "save it as UTF-8",
    exit_code: ExitCode = ExitCode.ERROR,
) -> str:
    """The text of a file; `place` names it. Raises InvalidInput, with the line, for what is not UTF-8."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        found = Diagnostic(
            code=code,
            message=f"byte {error.start + 1}{whose} is not UTF-8",
            place=replace(place, line=content.count(b"\n", 0, error.start) + 1),
            hint=hint,
            exit_code=exit_code,
        )
        raise InvalidInput([found]) from error

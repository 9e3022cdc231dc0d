"""The console: results to standard output, words to standard error, made safe to print. A closed pipe ends no run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, TextIO

from cas.diagnostics import Diagnostic, Severity
from cas.output import diagnostics as diagnostic_view
from cas.output.annotations import defused, defused_json
from cas.output.visible import visible, visible_json

if TYPE_CHECKING:
    from cas.output.record import Record

MOST_EXPLAINED = 5


class Form(Enum):
    """What standard output holds."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"
    HOOK = "hook"
    """The context of an agent's hook; of `cas inbox` alone."""


def write(stream: TextIO, line: str) -> None:
    """A line, at once; to nobody where whoever read it has gone: what is under way goes on."""
    with suppress(OSError, ValueError):
        stream.write(line + "\n")
        stream.flush()


def _a_line_each(found: Diagnostic, stream: TextIO) -> Iterable[str]:
    del stream
    return [diagnostic_view.line(found)]


@dataclass(slots=True, kw_only=True)
class Console:
    """Two streams. `quiet` leaves out what is neither a result nor an error; `color` is for the words.

    `shown`: a finding as lines for a stream, safe as they are. `workflow`: what is printed may be obeyed by a CI
    runner. `write` puts a line on a stream; whoever draws on the terminal meanwhile puts another function there.
    `record`: takes in the findings, and a run's events, where a report of it is wanted.
    """

    out: TextIO
    err: TextIO
    form: Form = Form.TEXT
    quiet: bool = False
    verbose: bool = False
    color: bool = False
    workflow: bool = False
    shown: Callable[[Diagnostic, TextIO], Iterable[str]] = _a_line_each
    write: Callable[[TextIO, str], None] = write
    record: Record | None = None
    _codes: dict[str, None] = field(default_factory=dict)

    def result(self, line: str) -> None:
        """A line of the result, in the asked form."""
        self.write(self.out, self._safe(line) if self.form is Form.TEXT else self._safe_json(line))

    def document(self, line: str) -> None:
        """A line of JSON that is the result, whatever form was asked for."""
        self.write(self.out, self._safe_json(line))

    def say(self, line: str) -> None:
        """Words for people; left out when quiet."""
        if not self.quiet:
            self.problem(line)

    def problem(self, line: str) -> None:
        """Words for people that are never left out."""
        self._tell(self._safe(line))

    def asks(self, question: str) -> bool:
        """Show a question, on a terminal, where no result in JSON would be mixed with it; False where there is none."""
        streams = (self.err, self.out) if self.form is Form.TEXT else (self.err,)
        for stream in (one for one in streams if one.isatty()):
            with suppress(OSError):
                stream.write(self._safe(question))
                stream.flush()
                return True
        return False

    def report(self, found: Iterable[Diagnostic], *, as_result: bool = False) -> None:
        """Findings: to where words go, or as the result; in words, what is no error is left out when quiet."""
        stream = self.out if as_result else self.err
        for one in found:
            if self.record:
                self.record.add([one])
            if self.quiet and not as_result and one.severity is not Severity.ERROR:
                continue
            for line in self.shown(one, stream):
                self.write(stream, line) if as_result else self._tell(line)
            if stream.isatty() and not self.workflow:
                self._codes[one.code] = None

    def end(self) -> None:
        """The last words, on a terminal: where more is told about what was found."""
        if self._codes:
            self.say(f"more: cas explain {' '.join(list(self._codes)[:MOST_EXPLAINED])}")
            self._codes.clear()

    def _tell(self, line: str) -> None:
        self.write(self.err, _colored(line) if self.color else line)

    def _safe(self, line: str) -> str:
        return defused(visible(line)) if self.workflow else visible(line)

    def _safe_json(self, line: str) -> str:
        return defused_json(visible_json(line)) if self.workflow else visible_json(line)


COLORS = {
    "error": "31",
    "failed": "31",
    "unknown": "31",
    "halted": "33",
    "blocked": "33",
    "warning": "33",
    "note": "36",
}


def _colored(line: str) -> str:
    """The first word that names a severity or an outcome, in its color; not in a command, nor in what is quoted."""
    if line.startswith((" ", "::")):
        return line
    word = next((word for word in COLORS if line.startswith(word) or f": {word}[" in line), None)
    return line.replace(word, f"\x1b[{COLORS[word]}m{word}\x1b[0m", 1) if word else line

"""The console: results to standard output, words to standard error, made safe to print. A closed pipe ends no run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import TextIO

from cas.output.visible import visible, visible_json


class Form(Enum):
    """What standard output holds."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"


def write(stream: TextIO, line: str) -> None:
    """A line, at once; to nobody where whoever read it has gone: what is under way goes on."""
    with suppress(OSError, ValueError):
        stream.write(line + "\n")
        stream.flush()


@dataclass(slots=True, kw_only=True)
class Console:
    """Two streams. `quiet` leaves out what is neither a result nor an error; `color` is for the words.

    `write` puts a line on a stream; whoever draws on the terminal meanwhile puts another function in its place.
    """

    out: TextIO
    err: TextIO
    form: Form = Form.TEXT
    quiet: bool = False
    verbose: bool = False
    color: bool = False
    write: Callable[[TextIO, str], None] = write

    def result(self, line: str) -> None:
        """A line of the result, in the asked form."""
        self.write(self.out, (visible if self.form is Form.TEXT else visible_json)(line))

    def say(self, line: str) -> None:
        """Words for people; left out when quiet."""
        if not self.quiet:
            self.problem(line)

    def problem(self, line: str) -> None:
        """Words for people that are never left out."""
        text = visible(line)
        if self.color:
            text = _colored(text)
        self.write(self.err, text)


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
    """The first word that names a severity or an outcome, in its color."""
    word = next((word for word in COLORS if line.startswith(word) or f": {word}[" in line), None)
    return line.replace(word, f"\x1b[{COLORS[word]}m{word}\x1b[0m", 1) if word else line

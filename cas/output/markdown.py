"""A run as Markdown, for a page's summary: a sentence, the counts, what went wrong first, and a table of deliveries."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from cas.diagnostics import Diagnostic
from cas.events import DeliveryFinished, Outcome
from cas.output import diagnostics as diagnostic_view
from cas.output.record import GOOD, Record
from cas.output.visible import visible

MOST_ROWS = 500
ROOM = 400_000
"""Characters for the findings, and for the table. A summary holds 1 MiB at most; what is over is lost as a whole."""
LONGEST = 300
"""Characters of one cell, before what is escaped in it."""
# Whatever could begin markup, a link, a mention, a reference, an emoji or a runner's command; as a number it is a sign.
MARKUP = re.compile(r"[^\w .,;/ \-]|_|(?<![A-Za-z0-9])www(?=\.)", re.ASCII)


def document(record: Record, exit_code: int) -> str:
    """The whole text; it ends with an empty line, so that what is appended begins a block of its own."""
    return "\n".join([*_lines(record, exit_code), "", ""])


def _lines(record: Record, exit_code: int) -> Iterator[str]:
    yield f"### cas {record.command}: {_verdict(record, exit_code)}"
    yield ""
    if record.began is None:
        yield "Nothing was sent."
    else:
        yield f"{_counts(record)}. It took {record.duration} s."
    if record.halted is not None:
        yield ""
        yield f"Stopped: {_text(record.halted or 'HALT, no reason given')}"
    if record.found:
        yield ""
        yield from _fitting(map(_finding, [*record.errors, *record.warnings]), len(record.found), "findings")
    if record.finished:
        yield ""
        yield "| outcome | delivery | to | reason |"
        yield "| --- | --- | --- | --- |"
        first = sorted(record.finished, key=lambda event: event.outcome in GOOD)
        yield from _fitting(map(_row, first), len(first), "deliveries")


def _verdict(record: Record, exit_code: int) -> str:
    if exit_code == 0:
        return "all is there" if record.finished else "nothing to do"
    return f"exit code {int(exit_code)}"


def _counts(record: Record) -> str:
    counts = [f"{count} {outcome.value}" for outcome in Outcome if (count := record.count(outcome))]
    return ", ".join(counts) or "0 deliveries"


def _finding(found: Diagnostic) -> str:
    return f"- **{found.severity.value}** {_text(diagnostic_view.line(found))}"


def _row(event: DeliveryFinished) -> str:
    cells = (event.outcome.value, _text(event.id), _text(event.where), _text(event.reason or ""))
    return f"| {' | '.join(cells)} |"


def _fitting(lines: Iterable[str], count: int, what: str) -> Iterator[str]:
    """As many of these lines as a summary has room for, and how many were left out."""
    room = ROOM
    for shown, line in enumerate(lines):
        room -= len(line) + 1
        if room < 0 or shown == MOST_ROWS:
            yield ""
            yield f"{count - shown} more {what} are left out here; a report of the form json holds all."
            return
        yield line


def _text(text: str) -> str:
    """Text in which nothing is markup, on one line: each sign that could be is written as its number."""
    short = text if len(text) <= LONGEST else text[:LONGEST] + "…"
    return MARKUP.sub(lambda found: "".join(f"&#{ord(one)};" for one in found[0]), visible(short)).strip()

"""Watching an inbox: each message is told as its pair becomes complete. The verb watch; reads only.

A signature is there before its message, so that a message which is there is complete. The folder is listed twice a
second: that misses nothing that stays, on any filesystem.
"""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from cas import inbox, replays
from cas.arrival import PROCESSED, Arrival, contents
from cas.errors import CasError, ExitCode
from cas.mail import folder_of, reader_for
from cas.output import inbox as inbox_view
from cas.output.console import Console, Form
from cas.output.result import as_json
from cas.reader import Reader
from cas.replays import Originals, in_order
from cas.surroundings import Surroundings

EVERY = 0.5
"""Seconds between two looks."""
Seen = dict[str, str | None]
"""By name, what could not be read, and why; None for what was told. The first is looked at again: it may be mended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """`new`: leave out what is there already; `once`: end with the first message; `seconds`: end after so many."""

    project: str | None = None
    new: bool = False
    once: bool = False
    seconds: float | None = None


def watch(wanted: Wanted, around: Surroundings, console: Console) -> int:
    """Tell each message; ends when nobody reads on, with the first message or the time that were asked for.

    An error is the exit code where the first message was asked for, and none came in time.
    """
    reader = reader_for(around, console)
    folder = folder_of(wanted.project, reader.inventory, around)
    end = float("inf") if wanted.seconds is None else time.monotonic() + wanted.seconds
    originals = Originals()
    for one in in_order([*_lying(reader, folder), *_lying(reader, folder / PROCESSED, archived=True)]):
        if wanted.new or one.archived:
            originals.of(one)
    seen: Seen = dict.fromkeys(contents(inbox.names(folder)).messages) if wanted.new else {}
    while True:
        for arrival in _arrived(reader, folder, seen):
            try:
                original = originals.of(arrival.seen) if arrival.seen else None
                _tell(replace(arrival, duplicate_of=original), console)
            except OSError:  # whoever read it has gone
                return ExitCode.OK
            if wanted.once and not arrival.unread:
                return ExitCode.OK
        if (left := end - time.monotonic()) <= 0:
            return ExitCode.ERROR if wanted.once else ExitCode.OK
        time.sleep(min(EVERY, left))
        if _nobody_reads(console.out):
            return ExitCode.OK


def _lying(reader: Reader, folder: Path, *, archived: bool = False) -> list[replays.Seen]:
    try:
        return reader.seen(folder, archived=archived)
    except CasError:  # no archive
        return []


def _arrived(reader: Reader, folder: Path, seen: Seen) -> Iterator[Arrival]:
    """What has come since the last look, by name, which is by time. What has gone may come again."""
    there = contents(inbox.names(folder)).messages
    for name in seen.keys() - set(there):
        del seen[name]
    for name in there:
        if name in seen and seen[name] is None:
            continue
        arrival = reader.listed(folder / name)
        if arrival is None:  # gone meanwhile
            continue
        fault = arrival.faults[0].message if arrival.unread else None
        if name not in seen or seen[name] != fault:
            seen[name] = fault
            yield arrival


def _tell(arrival: Arrival, console: Console) -> None:
    """Raises OSError where nobody reads: unlike a run, there is nothing to be finished."""

    def write(stream: TextIO, line: str) -> None:
        stream.write(line + "\n")
        stream.flush()

    usual, console.write = console.write, write
    try:
        text = console.form is Form.TEXT
        console.result(inbox_view.announced(arrival) if text else as_json(inbox_view.fields(arrival)))
    finally:
        console.write = usual


def _nobody_reads(stream: TextIO) -> bool:
    """Whether the other end of a pipe is closed."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (OSError, ValueError):  # no file of the system's
        return False

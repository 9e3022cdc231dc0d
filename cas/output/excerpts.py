"""Excerpts: a line of a file with a caret under one of its columns, cut to so many cells of a terminal. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence

from cas.diagnostics import Place
from cas.output.visible import visible

Source = Callable[[str], Sequence[str] | None]
"""The lines of a file, by the name that places give it; None where they cannot be had."""

TAB = 4
LEAST_ROOM = 16
CUT = "…"
Piece = tuple[str, int]
"""What is shown of a character, with what stands on it; and how many cells it takes."""


def excerpt(where: Place | None, source: Source, width: int) -> Iterator[str]:
    """The line at a place, and below it a caret where the column is known; nothing where the line cannot be had."""
    lines = source(where.file) if where and where.line else None
    if not where or not where.line or not lines or where.line > len(lines):
        return
    gutter = f" {where.line} | "
    shown, caret = fitted(lines[where.line - 1], where.column or 1, max(LEAST_ROOM, width - len(gutter)))
    yield f"{gutter}{shown}".rstrip()
    if where.column:
        yield f"{'| ':>{len(gutter)}}{' ' * caret}^"


def fitted(line: str, column: int, room: int) -> tuple[str, int]:
    """As much around a column (from 1) as takes no more than `room` cells; and the cell (from 0) of that column."""
    # No character takes less than a cell but what stands on another one: so much on both sides is enough.
    column = min(column, len(line) + 1)
    start = max(0, column - 1 - room)
    pieces, at = _pieces(line[start : column + room], column - 1 - start)
    first, last = _window([cells for _, cells in pieces], at, room)
    if (start, first, last) != (0, 0, len(pieces)) or column + room < len(line):
        first, last = _window([cells for _, cells in pieces], at, room - 2 * len(CUT))
    left = CUT if start or first else ""
    right = CUT if last < len(pieces) or column + room < len(line) else ""
    shown = "".join(text for text, _ in pieces[first:last])
    return f"{left}{shown}{right}", len(left) + sum(cells for _, cells in pieces[first:at])


def _pieces(text: str, column: int) -> tuple[list[Piece], int]:
    """What is shown of a text, and which piece is that of a column (from 0). The last one is the line's end."""
    pieces: list[Piece] = []
    at, total = None, 0
    for index, character in enumerate(text):
        shown, cells = _piece(character, total)
        if cells or not pieces:
            pieces.append((shown, cells))
        else:
            pieces[-1] = (pieces[-1][0] + shown, pieces[-1][1])
        total += cells
        at = len(pieces) - 1 if index == column else at
    pieces.append(("", 1))
    return pieces, len(pieces) - 1 if at is None else at


def _piece(character: str, before: int) -> Piece:
    if character == "\t":
        cells = TAB - before % TAB
        return " " * cells, cells
    shown = visible(character)
    return shown, _cells(character) if shown == character else len(shown)


def _cells(character: str) -> int:
    """As terminals count: none for what stands on the character before it, two for what is wide."""
    if character.isascii():
        return 1
    if unicodedata.category(character) in ("Mn", "Me") or "\u1160" <= character <= "\u11ff":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _window(cells: Sequence[int], at: int, room: int) -> tuple[int, int]:
    """The pieces from and to which fit, around one of them: to the right and to the left by turns."""
    first, last, left = at, at + 1, room - cells[at]
    grown = True
    while grown:
        grown = False
        if last < len(cells) and cells[last] <= left:
            left, last, grown = left - cells[last], last + 1, True
        if first and cells[first - 1] <= left:
            left, first, grown = left - cells[first - 1], first - 1, True
    return first, last

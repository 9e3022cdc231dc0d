"""A diagnostic in words: one line for editors and logs; on a terminal with the lines that it is of, and a caret."""

from __future__ import annotations

import time

import pytest
import rich.cells

from cas.diagnostics import Diagnostic, Place, Severity
from cas.output import diagnostics as diagnostic_view

FOUND = Diagnostic(
    code="unknown-key",
    message="`retires` is not a key of a send",
    place=Place(file="nightly.yaml", line=3, column=5),
    hint="did you mean `retries`?",
    related=((Place(file="nightly.yaml", line=1, column=1), "the map"), (Place(file="peers.toml"), "the peers")),
)
NIGHTLY = {"nightly.yaml": ["cas: 1", "sends:", "  - retires: 3"]}


def on_terminal(found: Diagnostic, lines: dict[str, list[str]], width: int = 80) -> list[str]:
    return list(diagnostic_view.lines(found, lines.get, width))


def pointed_at(text: str, column: int, width: int = 80) -> tuple[str, str]:
    """What is shown of a line, and what is above and right of its caret; without the gutter."""
    found = Diagnostic(code="x", message="y", place=Place(file="a", line=1, column=column))
    _, shown, caret = on_terminal(found, {"a": [text]}, width)
    assert max(cells(shown), cells(caret)) <= width
    before = cells(caret) - 1
    rest = shown
    while cells(shown) - cells(rest) < before:
        rest = rest[1:]
    while rest and not cells(rest[0]):  # what stands on the one before
        rest = rest[1:]
    return shown.removeprefix(" 1 | "), rest


def cells(text: str) -> int:
    return rich.cells.cell_len(text)


def test_a_diagnostic_is_one_line_with_its_place_first_and_what_else_there_is_to_say_in_brackets():
    assert diagnostic_view.line(FOUND) == (
        "nightly.yaml:3:5: error[unknown-key]: `retires` is not a key of a send"
        " (the map: nightly.yaml:1:1) (the peers: peers.toml) (hint: did you mean `retries`?)"
    )


def test_a_diagnostic_without_a_place_begins_with_its_severity():
    found = Diagnostic(code="x", message="y", severity=Severity.WARNING)

    assert diagnostic_view.line(found) == "warning[x]: y"
    assert on_terminal(found, NIGHTLY) == ["warning[x]: y"]


def test_on_a_terminal_a_diagnostic_shows_the_lines_that_it_is_of():
    assert on_terminal(FOUND, NIGHTLY) == [
        "nightly.yaml:3:5: error[unknown-key]: `retires` is not a key of a send",
        " 3 |   - retires: 3",
        "   |     ^",
        "  nightly.yaml:1:1: the map",
        " 1 | cas: 1",
        "   | ^",
        "  peers.toml: the peers",
        "  hint: did you mean `retries`?",
    ]


@pytest.mark.parametrize(
    "lines", [{}, {"nightly.yaml": []}, {"nightly.yaml": ["cas: 1"]}], ids=["none", "empty", "short"]
)
def test_where_a_line_cannot_be_had_there_is_no_caret(lines: dict[str, list[str]]):
    found = Diagnostic(code="x", message="y", place=Place(file="nightly.yaml", line=3, column=5))

    assert on_terminal(found, lines) == ["nightly.yaml:3:5: error[x]: y"]


def test_a_place_without_a_column_shows_its_line_without_a_caret():
    found = Diagnostic(code="x", message="y", place=Place(file="nightly.yaml", line=2))

    assert on_terminal(found, NIGHTLY)[1:] == [" 2 | sends:"]


@pytest.mark.parametrize(
    ("text", "column", "shown"),
    [
        ("name: x", 7, "name: x"),
        ("\tname: x", 2, "    name: x"),
        ("a\tname: x", 3, "a   name: x"),
        ("名前: x", 5, "名前: x"),
        ("é: e\u0301e\u0301x", 8, "é: e\u0301e\u0301x"),
        ("\x1b[2J: x", 7, "\\x1b[2J: x"),
        ("\u202ename: x", 8, "\\u202ename: x"),
        ("\U000e0041 x", 3, "\\U000e0041 x"),
    ],
    ids=["plain", "a tab", "a tab behind a letter", "wide", "combining", "control", "bidirectional", "invisible"],
)
def test_the_caret_stands_under_its_character(text: str, column: int, shown: str):
    line, under = pointed_at(text, column)

    assert (line, under[:1]) == (shown, "n" if "\tn" in text else "x")


def test_the_caret_stands_at_the_beginning_of_what_is_wide_or_escaped():
    assert pointed_at("x: 名", 4)[1] == "名"
    assert pointed_at("x: \x1b", 4)[1] == "\\x1b"
    assert pointed_at("x: \ty", 4)[1] == " y"


def test_a_column_within_what_stands_on_another_character_points_at_that():
    assert pointed_at("ae\u0301x", 3)[1] == "e\u0301x"
    assert pointed_at("\u0301x", 1) == ("\u0301x", "x")


@pytest.mark.parametrize("column", [8, 100])
def test_a_column_behind_the_line_points_behind_its_last_character(column: int):
    assert pointed_at("name: x", column) == ("name: x", "")


def test_an_empty_line_has_its_caret_too():
    found = Diagnostic(code="x", message="y", place=Place(file="a", line=1, column=1))

    assert on_terminal(found, {"a": [""]})[1:] == [" 1 |", "   | ^"]


@pytest.mark.parametrize("column", [1, 2, 20, 34, 35, 36, 37, 500, 966, 990, 1000])
@pytest.mark.parametrize("sign", ["-", "名", "\t", "\x1b", "e\u0301"])
def test_a_line_that_is_too_long_is_cut_around_the_column(column: int, sign: str):
    text = f"{sign * 1000}"[: column - 1] + "x" + f"{sign * 1000}"[column:1000]

    line, under = pointed_at(text, column, 40)

    assert under[0] == "x"
    assert cells(line) <= 35
    assert line.startswith("…") or column < 35
    assert line.endswith("…") or column > 965


def test_a_line_that_just_fits_is_not_cut():
    assert pointed_at("x" * 34, 1, 40)[0] == "x" * 34
    assert "…" in pointed_at("x" * 36, 1, 40)[0]


def test_a_line_of_megabytes_is_cut_quickly():
    begun = time.monotonic()

    _, under = pointed_at("-" * 5_000_000 + "x" + "-" * 5_000_000, 5_000_001, 40)

    assert under[0] == "x"
    assert time.monotonic() - begun < 1


@pytest.mark.parametrize("width", [0, 1, 10])
def test_a_terminal_without_room_still_shows_where_it_is(width: int):
    found = Diagnostic(code="x", message="y", place=Place(file="a", line=1, column=50))

    _, shown, caret = on_terminal(found, {"a": ["-" * 49 + "x" + "-" * 49]}, width)

    assert shown[caret.index("^")] == "x"

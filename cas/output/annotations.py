"""Annotations: findings as commands that a workflow of GitHub obeys; and all other lines, so that no runner obeys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from cas.diagnostics import Diagnostic, Place, Severity
from cas.output import diagnostics as diagnostic_view
from cas.output.visible import visible

COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}
# GitHub takes for a command what begins with `::`, white space before it or not, and `##[` anywhere in a line; Azure
# `##[` and `##vso[`, TeamCity `##teamcity[`. GitLab's and Travis's have control characters in them.
BEGINS = re.compile(r"^(\s*):(?=:)")
ANYWHERE = re.compile(r"#(?=#(?:vso|teamcity)?\[)", re.IGNORECASE)


def annotation(found: Diagnostic, folder: str) -> str:
    """One line for one finding. `folder` is what names of files are relative to."""
    properties = (f"{name}={_property(value)}" for name, value in _properties(found, folder))
    # Joined as %0A, each line but the first begins with a word of ours: what is unescaped is a log's lines again.
    return f"::{COMMANDS[found.severity]} {','.join(properties)}::{'%0A'.join(map(_data, _words(found)))}"


def defused(line: str) -> str:
    """A line of text in which no runner finds a command: its first sign is shown as an escape."""
    return ANYWHERE.sub(r"\\x23", BEGINS.sub(r"\1\\x3a", line))


def defused_json(line: str) -> str:
    """The same for JSON, which then still says the same: there it can only stand in a text."""
    return ANYWHERE.sub(r"\\u0023", line)


def _properties(found: Diagnostic, folder: str) -> Iterator[tuple[str, str]]:
    where = found.place
    if where and _is_file(where):
        # Of the repository, not of the step's working folder; a runner makes it relative again.
        yield "file", str(PurePosixPath(folder, where.file))
        if where.line:
            yield "line", str(where.line)
        if where.line and where.column:
            yield "col", str(where.column)
    yield "title", found.code


def _is_file(where: Place) -> bool:
    return not where.file.startswith("<")  # <stdin>


def _words(found: Diagnostic) -> Iterator[str]:
    yield found.message
    for other, words in found.related:
        yield f"see {diagnostic_view.place(other)}: {words}"
    if found.hint:
        yield f"hint: {found.hint}"
    if found.place:
        yield f"at {diagnostic_view.place(found.place)}"  # a log does not show the properties


def _data(text: str) -> str:
    plain = ANYWHERE.sub(r"\\x23", visible(text))
    return plain.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")

"""Diagnostics as people, editors and programs read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from cas.diagnostics import Diagnostic, Place, Severity
from cas.errors import CasError
from cas.output.visible import visible

if TYPE_CHECKING:
    from cas.output.excerpts import Source

FORMAT = "cas.diagnostics/1"


def line(found: Diagnostic) -> str:
    """`file:line:column: severity[code]: message (further words: their place) (hint: …)`, for editors and logs."""
    more = [f"{words}: {place(other)}" for other, words in found.related]
    more += [f"hint: {found.hint}"] if found.hint else []
    return visible(_heading(found) + "".join(f" ({words})" for words in more))


def lines(found: Diagnostic, source: Source, width: int) -> Iterator[str]:
    """For a terminal of so many columns: what is found, and below it each line of a file that it speaks of."""
    from cas.output.excerpts import excerpt  # here: most runs find nothing wrong

    yield visible(_heading(found))
    yield from excerpt(found.place, source, width)
    for other, words in found.related:
        yield visible(f"  {place(other)}: {words}")
        yield from excerpt(other, source, width)
    if found.hint:
        yield visible(f"  hint: {found.hint}")


def place(where: Place) -> str:
    """`file:line:column`, as far as it is known."""
    # A line that begins with `::` would be a command in some logs.
    file = f"./{where.file}" if where.file.lstrip().startswith(":") else where.file
    return ":".join(str(part) for part in (file, where.line, where.column) if part is not None)


def fields(diagnostics: Iterable[Diagnostic]) -> list[dict[str, object]]:
    """Diagnostics as JSON holds them."""
    return [
        {
            "code": found.code,
            "severity": found.severity.value,
            "message": found.message,
            "hint": found.hint,
            **_place_fields(found.place),
            "related": [{**_place_fields(other), "message": words} for other, words in found.related],
        }
        for found in diagnostics
    ]


def document(diagnostics: Iterable[Diagnostic]) -> dict[str, object]:
    """The whole of `cas.diagnostics/1`."""
    return {"format": FORMAT, "diagnostics": fields(diagnostics)}


def from_error(error: CasError) -> Diagnostic:
    """An error of the world as a diagnostic without a place, for those who read JSON."""
    return Diagnostic(
        code=error.code, message=str(error), hint=error.hint, severity=Severity.ERROR, exit_code=error.exit_code
    )


def _heading(found: Diagnostic) -> str:
    where = f"{place(found.place)}: " if found.place else ""
    return f"{where}{found.severity.value}[{found.code}]: {found.message}"


def _place_fields(where: Place | None) -> dict[str, object]:
    if where is None:
        return {"file": None, "line": None, "column": None}
    return {"file": where.file, "line": where.line, "column": where.column}

"""Diagnostics as people, editors and programs read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cas.diagnostics import Diagnostic, Place, Severity
from cas.errors import CasError

FORMAT = "cas.diagnostics/1"


def lines(diagnostics: Iterable[Diagnostic]) -> Iterator[str]:
    """`file:line:column: severity[code]: message`, then what else there is to say, indented."""
    for found in diagnostics:
        where = f"{place(found.place)}: " if found.place else ""
        yield f"{where}{found.severity.value}[{found.code}]: {found.message}"
        for other, words in found.related:
            yield f"  {place(other)}: {words}"
        if found.hint:
            yield f"  hint: {found.hint}"


def place(where: Place) -> str:
    """`file:line:column`, as far as it is known."""
    return ":".join(str(part) for part in (where.file, where.line, where.column) if part is not None)


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


def _place_fields(where: Place | None) -> dict[str, object]:
    if where is None:
        return {"file": None, "line": None, "column": None}
    return {"file": where.file, "line": where.line, "column": where.column}

"""Writes the table of docs/explanation/threats.md from the tests marked `threat`: `python tests/threats_page.py`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "explanation" / "threats.md"
BEGIN, END = "<!-- Written by `python tests/threats_page.py`. -->\n", "<!-- End of the table. -->\n"
ADVERSARIES = (
    "manifest author",
    "bundle holder",
    "local account",
    "peer",
    "message author",
    "agent",
    "CI runner",
)


class Threat(NamedTuple):
    """One row: who cannot do what, and the test that shows it."""

    who: str
    cannot: str
    test: str


def marked(tests: Path = ROOT / "tests") -> list[Threat]:
    """Every use of the marker, read from the source, so that the page needs no test run. Sorted as on the page."""
    threats = [
        Threat(who, cannot, f"{path.relative_to(tests.parent)}::{function.name}")
        for path in sorted(tests.rglob("test_*.py"))
        for function in _functions(ast.parse(path.read_text(encoding="utf-8")))
        for who, cannot in _arguments(function)
    ]
    return sorted(threats, key=lambda threat: (_rank(threat.who), threat.cannot, threat.test))


def table(threats: list[Threat]) -> str:
    """The rows; tests that show the same thing share one."""
    rows: dict[tuple[str, str], list[str]] = {}
    for threat in threats:
        rows.setdefault((threat.who, threat.cannot), []).append(f"`{threat.test}`")
    lines = [f"| {who} | {cannot} | {', '.join(tests)} |" for (who, cannot), tests in rows.items()]
    return "\n".join(["| who | cannot | shown by |", "| --- | --- | --- |", *lines, ""])


def page_with(page: str, threats: list[Threat]) -> str:
    """The page, with its table written anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(threats)}\n{END}{after}"


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def _arguments(function: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.threat":
            who, cannot = (ast.literal_eval(argument) for argument in decorator.args)
            yield who, cannot


def _rank(who: str) -> int:
    """Raises ValueError for an adversary that the page does not define."""
    return ADVERSARIES.index(who)


if __name__ == "__main__":
    PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), marked()), encoding="utf-8")

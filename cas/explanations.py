"""Explanations: the text of `explanations.toml` into what there is to say about each code. Pure."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """What is run, with which files (names and texts), and what cas says to it.

    `files` is None where the cause lies outside of them: the example is told, and cannot be tried as it stands.
    """

    run: str
    says: str
    files: tuple[tuple[str, str], ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A code: in one sentence, why it comes, what it looks like, and what to do about it."""

    code: str
    title: str
    cause: str
    example: Example
    cure: str


def parse(text: str) -> Mapping[str, Explanation]:
    """All explanations by code, in the order of the text. It is ours: what is missing in it is a bug."""
    return {code: _explanation(code, table) for code, table in tomllib.loads(text).items()}


def _explanation(code: str, table: Mapping[str, Any]) -> Explanation:
    files = tuple(table["files"].items()) if "files" in table else None
    return Explanation(
        code=code,
        title=table["title"],
        cause=_paragraph(table["cause"]),
        example=Example(run=table["run"], says=table["says"].strip("\n"), files=files),
        cure=_paragraph(table["cure"]),
    )


def _paragraph(text: str) -> str:
    return " ".join(text.split())

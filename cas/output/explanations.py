"""Explanations of codes, as people, programs and the reference show them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from cas.explanations import Example, Explanation
from cas.output.visible import visible

FORMAT = "cas.explanations/1"
INDENT = "  "
NARROWEST = 20


def overview(explanations: Iterable[Explanation], width: int) -> Iterator[str]:
    """A line for each code, more where its sentence does not fit."""
    listed = list(explanations)
    column = max(len(one.code) for one in listed) + 2
    hanging = column if width - column >= NARROWEST else 4
    for one in listed:
        yield from _wrapped(one.title, width, first=f"{one.code:<{column}}", rest=" " * hanging)


def lines(explanations: Iterable[Explanation], width: int) -> Iterator[str]:
    """One after the other: cause, example, cure."""
    for number, one in enumerate(explanations):
        if number:
            yield ""
        yield from _wrapped(one.title, width, first=f"{one.code}: ", rest="")
        yield from ("", "Cause", *_wrapped(one.cause, width))
        yield from ("", "Example", *_example(one.example, width))
        yield from ("", "Cure", *_wrapped(one.cure, width))


def document(explanations: Iterable[Explanation]) -> dict[str, object]:
    """The whole of `cas.explanations/1`."""
    return {"format": FORMAT, "explanations": [_fields(one) for one in explanations]}


def page(explanations: Iterable[Explanation]) -> Iterator[str]:
    """Each code as a section of a page of Markdown."""
    for one in sorted(explanations, key=lambda one: one.code):
        yield from ("", f"## {one.code}", "", f"{one.title[:1].upper()}{one.title[1:]}.", "", one.cause, "", "```text")
        for name, text in one.example.files or ():
            yield from (f"{name}:", *(visible(f"{INDENT}{line}".rstrip()) for line in _split(text)))
        yield from (f"$ {one.example.run}", *one.example.says.split("\n"), "```", "", one.cure)


def _example(example: Example, width: int) -> Iterator[str]:
    for name, text in example.files or ():
        yield f"{INDENT}{name}:"
        yield from (f"{INDENT * 2}{line}".rstrip() for line in _split(text))
    yield f"{INDENT}$ {example.run}"
    for line in example.says.split("\n"):
        yield from _wrapped(line, width, rest=INDENT * 2)


def _split(text: str) -> list[str]:
    return text.rstrip("\n").split("\n")


def _wrapped(text: str, width: int, *, first: str = INDENT, rest: str = INDENT) -> list[str]:
    return textwrap.wrap(
        text,
        max(width, NARROWEST),
        initial_indent=first,
        subsequent_indent=rest,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _fields(one: Explanation) -> dict[str, object]:
    files = [{"name": name, "text": text} for name, text in one.example.files or ()]
    example = {"files": files, "run": one.example.run, "says": one.example.says}
    return {"code": one.code, "title": one.title, "cause": one.cause, "example": example, "cure": one.cure}

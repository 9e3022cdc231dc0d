"""Items: a send's loop into its turns, each with its key and the names that it gives. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cas.diagnostics import Diagnostic, InvalidInput, Place
from cas.drafts import Library
from cas.manifest import ForEach, Send
from cas.scope import Item, Scope

LONGEST_KEY = 100
KEYS = ("id", "name")


def items_of(send: Send, scope: Scope, library: Library) -> Sequence[Item]:
    """The turns of a send: one without a loop. Raises InvalidInput."""
    if send.for_each is None:
        return (Item(id=send.id),)
    pairs = list(_pairs(send.for_each, scope, library))
    items: dict[str, Item] = {}
    places = send.for_each.places or (send.for_each.place,) * len(pairs)
    for number, (key, value) in enumerate(pairs):
        if key in items:
            raise _doubled(send, key, places[number])
        loop = {
            "index": number + 1,
            "index0": number,
            "first": number == 0,
            "last": number + 1 == len(pairs),
            "length": len(pairs),
        }
        given = {"item": value, "loop": loop}
        items[key] = Item(id=f"{send.id}[{key}]", names=given, shown=key, place=places[number])
    return tuple(items.values())


def _pairs(loop: ForEach, scope: Scope, library: Library) -> Iterator[tuple[str, Any]]:
    """Each item's key and value."""
    value = scope.value(loop.items, loop.place)
    if loop.files:
        yield from _files(library.files_matching(str(value), loop.place))
    elif isinstance(value, dict):
        yield from ((str(key), {"key": key, "value": one}) for key, one in value.items())
    elif isinstance(value, list):
        yield from ((_key(one, number), one) for number, one in enumerate(value, start=1))
    else:
        hint = "a list in brackets, a map, or {files: pattern}"
        raise scope.wrong_type("`for_each`", value, "a list or a map", loop.place, hint=hint)


def _files(paths: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for path in paths:
        folder, _, name = path.rpartition("/")
        yield path, {"path": path, "name": name, "folder": folder.rpartition("/")[2]}


def _key(value: Any, position: int) -> str:
    """What an item is called: itself, what a map has for `id` or `name`, or else its position."""
    if isinstance(value, dict):
        value = next((value[key] for key in KEYS if key in value), position)
    if isinstance(value, bool) or not isinstance(value, str | int) or not 0 < len(str(value)) <= LONGEST_KEY:
        return str(position)
    return str(value) if str(value).isprintable() else str(position)


def _doubled(send: Send, key: str, place: Place) -> InvalidInput:
    message = f"two items of `{send.id}` are called `{key}`"
    return InvalidInput(
        [Diagnostic(code="doubled-item", message=message, place=place, hint="each item is there once, by its value")]
    )

"""Replays: which messages of an inbox are there a second time, and which are for another inbox. Pure.

A signature holds wherever a message is copied to. What tells a copy is in the signed text, and in the notations of the
signature: the inbox that the message is for, and the delivery that it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cas.inventory import LOCAL, Policy


class Seen(NamedTuple):
    """A message that lies in an inbox, or in its archive. `message_id`: None where it does not say which it is."""

    path: str
    name: str
    archived: bool
    digest: str
    message_id: str | None


class Originals:
    """The first message of each digest and of each id. Messages are to be asked for in the order of `in_order`."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, str], str] = {}

    def of(self, seen: Seen) -> str | None:
        """The name of the message that this one is another copy of, or has the id of; None for the first."""
        marks = [("digest", seen.digest), *([("id", seen.message_id)] if seen.message_id else [])]
        original = next((self._names[mark] for mark in marks if mark in self._names), None)
        for mark in marks:
            self._names.setdefault(mark, original or seen.name)
        return original


def in_order(seen: Iterable[Seen]) -> list[Seen]:
    """By name, which begins with the time; what is archived first: it was acted on."""
    return sorted(seen, key=lambda one: (one.name, not one.archived, one.path))


def duplicates(seen: Iterable[Seen]) -> Mapping[str, str]:
    """By path, the name of the message that each duplicate is one of."""
    originals = Originals()
    return {one.path: name for one in in_order(seen) if (name := originals.of(one))}


def is_for(address: str, project: str, policy: Policy) -> bool:
    """Whether a message with this address is for the inbox of a project here.

    `local` is whichever machine reads it. Other machines are compared only where `machines` of [policy] says what this
    one is called: each sender has a name of its own for it.
    """
    machine, _, addressee = address.partition(".")
    here = machine == LOCAL or not policy.machines or machine in policy.machines
    return addressee == project and here

"""Drafts: what manifests are expanded from, and into: records, and what a manifest's folder has to offer. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cas.diagnostics import Place
from cas.inventory import Destination
from cas.manifest import Manifest, Send, Sign, Target, Value
from cas.message import Message
from cas.plan import Input


class Library(Protocol):
    """What lies below a manifest's folder. `place` is where the path is written, for diagnostics."""

    def message(self, path: str, place: Place | None) -> Message | None:
        """A file's message; None where it cannot be had, which was told before. Raises InvalidInput."""

    def text(self, path: str, place: Place | None) -> str:
        """A template's text. Raises InvalidInput, without a finding where it was told before."""

    def files_matching(self, pattern: str, place: Place | None) -> Sequence[str]:
        """The paths of the files that match, sorted. Raises InvalidInput."""

    def place(self, path: str) -> Place:
        """The file itself, for diagnostics."""

    def hold(self, message: Message, content: bytes, place: Place | None) -> None:
        """Keep the bytes of a message that was made at a place. Raises InvalidInput for too many."""

    @property
    def inputs(self) -> Mapping[str, Input]:
        """The files that were read, by path."""

    @property
    def files(self) -> Mapping[str, Any]:
        """The path of each message that is a file, by digest."""

    @property
    def held(self) -> Mapping[str, bytes]:
        """The bytes of each message that is none, by digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A manifest, who sends, and what belongs to it. `origin`: the manifest as a plan names it."""

    manifest: Manifest
    sender: str
    library: Library
    origin: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A delivery to be. `id` is that of its send, with the item's key; `origin`: where its message comes from.

    `message` is None for what `when` leaves out, which `reason` says. `identifying` is the digest that its identity is
    made from: without the TIMESTAMP line, where that came from the clock.
    """

    id: str
    sender: str
    send: Send
    target: Target
    destination: Destination
    sign: Sign | None
    after: tuple[Value, ...] = ()
    message: Message | None = None
    identifying: str = ""
    origin: str = ""
    reason: str | None = None

"""A manifest's folder, as a test lays it out: messages by path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cas.diagnostics import Place
from cas.message import Message


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """What `drafts.Library` asks for, with nothing on disk."""

    messages: Mapping[str, Message]
    inputs: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Any] = field(default_factory=dict)
    held: Mapping[str, bytes] = field(default_factory=dict)

    def message(self, path: str, place: Place | None) -> Message | None:
        return self.messages.get(path)

    def text(self, path: str, place: Place | None) -> str:
        raise AssertionError(path)

    def files_matching(self, pattern: str, place: Place | None) -> Sequence[str]:
        raise AssertionError(pattern)

    def hold(self, message: Message, content: bytes) -> None:
        raise AssertionError(message)

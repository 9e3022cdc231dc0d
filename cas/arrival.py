"""Arrivals: what lies in an inbox, as its names, its bytes and gpg's verdict tell it. Pure.

Nothing that is signed covers a file's name, and so the sender in it is a claim: only `[senders.<project>]` of
peers.toml says whose keys speak for a project.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from cas.diagnostics import Diagnostic, InvalidInput, Place
from cas.message import Message, parse
from cas.names import SIGNATURE_SUFFIX, is_canonical, sender_in, time_of
from cas.replays import Seen
from cas.verdict import FOR, OF_DELIVERY, State, Verdict

MESSAGE_SUFFIX = ".org"
PROCESSED = "processed"


class Kind(Enum):
    """What a name in an inbox stands for, links not followed."""

    FILE = "a file"
    FOLDER = "a folder"
    LINK = "a symbolic link"
    FIFO = "a FIFO"
    SOCKET = "a socket"
    DEVICE = "a device"
    OTHER = "no file, nor a folder"


class Trust(Enum):
    """What may be made of the sender that a message's name claims."""

    SENDER = "sender"
    """A key signed it that speaks for the sender."""
    ANOTHER = "another-key"
    """A key signed it, and others speak for the sender."""
    SIGNED = "signed"
    """A key signed it; nobody has said whose keys speak for the sender."""
    UNTRUSTED = "untrusted-sender"
    """A key signed it; the sender is not one of those that are listed, and only they are trusted."""
    NONE = "none"
    """There is no signature that counts."""
    UNKNOWN = "not-verified"
    """Nobody has asked gpg."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A message that lies in an inbox. `path` is where; `signed`: whether a signature lies beside it.

    `message` is None where `faults` say why it cannot be read as one. `unread`: not even its bytes could be read.
    `verdict` is None where gpg was not asked. `claimed`: the sender in its name. `time`: that in its canonical name,
    else the file's. `misdelivered`: it is for another inbox than the one that it lies in. `duplicate_of`: the name of
    the message that it is another copy of, or has the id of.
    """

    path: str
    name: str
    time: datetime
    signed: bool
    size: int
    archived: bool = False
    unread: bool = False
    message: Message | None = None
    faults: tuple[Diagnostic, ...] = ()
    verdict: Verdict | None = None
    trust: Trust = Trust.UNKNOWN
    misdelivered: bool = False
    duplicate_of: str | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        """The inboxes that it says it is for: by its text, and by its signature."""
        written = (self.message.to,) if self.message and self.message.to else ()
        return tuple(dict.fromkeys((*written, *(self.verdict.noted(FOR) if self.verdict else ()))))

    @property
    def message_id(self) -> str | None:
        """The delivery that it says it is: by its signature, or else by its text."""
        noted = self.verdict.noted(OF_DELIVERY) if self.verdict else ()
        return noted[0] if noted else self.message.message_id if self.message else None

    @property
    def seen(self) -> Seen | None:
        """What tells it from others; None for what cannot be read as a message."""
        if self.message is None:
            return None
        return Seen(self.path, self.name, self.archived, self.message.digest, self.message_id)

    @property
    def claimed(self) -> str | None:
        return sender_in(self.name, self.message.conversation) if self.message else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """The names in an inbox, each list sorted: messages, those of them with a signature, signatures without a message,
    and what is neither, with its kind. Hidden names, under which files are staged, are passed by, as all receivers do.
    """

    messages: tuple[str, ...] = ()
    signed: frozenset[str] = frozenset()
    alone: tuple[str, ...] = ()
    others: tuple[tuple[str, Kind], ...] = ()


def contents(names: Mapping[str, Kind]) -> Contents:
    """The names of a folder, sorted out."""
    seen = {name: kind for name, kind in names.items() if not name.startswith(".")}
    files = {name for name, kind in seen.items() if kind is Kind.FILE}
    messages = {name for name in files if name.endswith(MESSAGE_SUFFIX)}
    asc = {name for name in files if name.endswith(SIGNATURE_SUFFIX)}
    signatures = {name.removesuffix(SIGNATURE_SUFFIX) for name in asc}
    others = seen.keys() - messages - asc - ({PROCESSED} if seen.get(PROCESSED) is Kind.FOLDER else set())
    return Contents(
        messages=tuple(sorted(messages)),
        signed=frozenset(signatures & messages),
        alone=tuple(f"{name}{SIGNATURE_SUFFIX}" for name in sorted(signatures - messages)),
        others=tuple((name, seen[name]) for name in sorted(others)),
    )


def read(content: bytes, path: str) -> tuple[Message | None, tuple[Diagnostic, ...]]:
    """A message's bytes, or what is wrong with its frontmatter."""
    try:
        return parse(content, place=Place(file=path)), ()
    except InvalidInput as error:
        return None, error.diagnostics


def when(name: str, changed: datetime) -> datetime:
    """The time of a message: that which its canonical name begins with, else that of its file."""
    return time_of(name) if is_canonical(name) else changed


def trust(
    verdict: Verdict | None, claimed: str | None, senders: Mapping[str, frozenset[str]], *, only_listed: bool
) -> Trust:
    """What a verdict says of the sender that is claimed. `senders`: the keys that speak for each project.

    `only_listed`: a sender that is not among them is not trusted.
    """
    if verdict is None:
        return Trust.UNKNOWN
    if verdict.state is not State.GOOD:
        return Trust.NONE
    keys = senders.get(claimed or "")
    if keys is None:
        return Trust.UNTRUSTED if only_listed else Trust.SIGNED
    return Trust.SENDER if verdict.key in keys else Trust.ANOTHER

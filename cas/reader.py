"""The reader: a message of an inbox, with its signature, into an arrival. Reads files, asks gpg; writes nothing.

Each is read once, and while others deliver and put away: what is told belongs together.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from cas import inbox
from cas.arrival import PROCESSED, Arrival, Trust, contents, read, trust, when
from cas.diagnostics import Diagnostic
from cas.errors import CasError
from cas.inbox import CHANGING, TRIES, Gone, Held, NoMessage
from cas.inventory import Inventory
from cas.names import signature_name
from cas.output.diagnostics import from_error
from cas.replays import Seen, is_for
from cas.verdict import State, Verdict
from cas.verifier import LARGEST, Verifier

MOST_COMPARED = 20_000
"""Messages of a folder that one is compared with: the newest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Reads messages, each with its signature, once. `verifier`: None where gpg is not to be asked.

    `projects`: the folder in which projects have their inboxes, where peers.toml does not say otherwise.
    """

    inventory: Inventory
    verifier: Verifier | None
    projects: Path
    _owners: dict[Path, str | None] = field(default_factory=dict, compare=False, repr=False)

    def arrival(self, path: Path, *, archived: bool = False) -> tuple[Arrival, bytes]:
        """A message as it lies there, and its bytes. Raises NoMessage for what is none, CasError without a gpg."""
        limit = self.inventory.policy.max_bytes
        held, signature = _pair(path, limit)
        if held.content is None:
            return self._unread(path, held, signature, _too_large(held.size, limit), archived=archived), b""
        message, found = read(held.content, str(path))
        verdict = self._verdict(held.content, signature)
        arrival = _arrival(path, held, archived=archived, signed=signature is not None)
        arrival = replace(arrival, message=message, faults=found, verdict=verdict)
        project, policy = self._project(path.parent), self.inventory.policy
        strayed = project is not None and any(not is_for(one, project, policy) for one in arrival.addresses)
        return replace(arrival, trust=self._trust(verdict, arrival.claimed), misdelivered=strayed), held.content

    def _project(self, folder: Path) -> str | None:
        """Whose inbox a message's folder is, or is the archive of; None where that cannot be told."""
        if folder not in self._owners:
            self._owners[folder] = self._owner(Path(os.path.abspath(folder)))
        return self._owners[folder]

    def _owner(self, folder: Path) -> str | None:
        folder = folder.parent if folder.name == PROCESSED else folder
        home = self.projects.parent
        for name, path in self.inventory.inboxes.items():
            if folder == Path(os.path.abspath(home / path[2:] if path.startswith("~/") else path)):
                return name
        below = folder.parent.parent
        usual = folder.name == "from-agents" and folder.parent.name == "inbox" and below.parent == self.projects
        return below.name if usual and below.name not in self.inventory.inboxes else None

    def seen(self, folder: Path, *, archived: bool = False) -> list[Seen]:
        """What tells the messages in a folder from each other, at most MOST_COMPARED of them, without asking gpg."""
        bare = replace(self, verifier=None)
        names = contents(inbox.names(folder)).messages[-MOST_COMPARED:]
        arrivals = (bare.listed(folder / name, archived=archived) for name in names)
        return [found for arrival in arrivals if arrival and (found := arrival.seen)]

    def listed(self, path: Path, *, archived: bool = False) -> Arrival | None:
        """The same of a name that was listed: None where it is gone; what cannot be read is told, and no error."""
        try:
            return self.arrival(path, archived=archived)[0]
        except Gone:
            return None
        except NoMessage as error:
            problem = from_error(error)
        try:
            return self._unread(path, inbox.unread(path), _signature(path), problem, archived=archived)
        except Gone:
            return None

    def _unread(
        self, path: Path, held: Held, signature: bytes | Verdict | None, problem: Diagnostic, *, archived: bool
    ) -> Arrival:
        """What is to be said of a message without its bytes: nobody can say whether a signature fits."""
        arrival = _arrival(path, held, archived=archived, signed=signature is not None)
        verdict = None if isinstance(signature, bytes) else self._verdict(b"", signature)
        return replace(arrival, unread=True, faults=(problem,), verdict=verdict, trust=self._trust(verdict, None))

    def _trust(self, verdict: Verdict | None, claimed: str | None) -> Trust:
        return trust(verdict, claimed, self.inventory.senders, only_listed=self.inventory.only_listed)

    def _verdict(self, content: bytes, signature: bytes | Verdict | None) -> Verdict | None:
        if self.verifier is None:
            return None
        if isinstance(signature, bytes):
            return self.verifier.verdict(content, signature)
        return signature or Verdict(state=State.NONE)


def _arrival(path: Path, held: Held, *, archived: bool, signed: bool) -> Arrival:
    time = when(path.name, held.changed)
    return Arrival(path=str(path), name=path.name, time=time, signed=signed, size=held.size, archived=archived)


def _pair(path: Path, limit: int) -> tuple[Held, bytes | Verdict | None]:
    """A message and the signature that stood beside it. Raises NoMessage.

    Others may deliver the two meanwhile, the signature first, or put them away, the message first: so a signature that
    was there neither before nor after, while the message still is, was not there at all.
    """
    for _ in range(TRIES):
        before = _signature(path)
        held = inbox.held(path, limit)
        if _signature(path) == before:
            if before is None:
                inbox.lying(path)
            return held, before
    raise NoMessage(path, CHANGING)


def _signature(path: Path) -> bytes | Verdict | None:
    """The bytes of the signature beside a message; None where there is none; a verdict where they cannot be read."""
    beside = path.parent / signature_name(path.name)
    try:
        held = inbox.held(beside, LARGEST)
    except Gone:
        return None
    except NoMessage as error:
        return Verdict(state=State.UNREADABLE, why=f"it {error.why}")
    if held.content is None:
        why = f"it has {held.size} bytes, and no more than {LARGEST} are read"
        return Verdict(state=State.UNREADABLE, why=why)
    return held.content


def _too_large(size: int, limit: int) -> Diagnostic:
    message = f"it has {size} bytes, and no more than {limit} are read"
    error = CasError(message, code="too-large", hint="raise `max_bytes` of [policy] in peers.toml to read it")
    return from_error(error)

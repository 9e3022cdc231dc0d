"""The steps of a delivery, as docs/explanation/delivery.md has them: look, reserve, stage, claim, publish, close.

One protocol over any `Files`. No step undoes another's work; none knows of retries, HALT, signing or printing. All of
ours in an inbox lies below `.tmp.cas/`, which receivers pass by.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from cas.errors import CasError, TransferError
from cas.names import digest, is_canonical, signature_name
from cas.transports.files import LARGEST_READ, Files, Kind, T, Task

WORKSHOP = ".tmp.cas"
STAGED, ASIDE = "new", "old"
LINK_TRIES = 3
TIME_LENGTH = len("20261123T013133Z")
MESSAGE, SIGNATURE, RECORD, WITHDRAWN = "message", "signature", "record", "withdrawn"
PROOF = "proof"
"""The signature once its message was published: under this name no run that comes late links it into the inbox."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """One message on its way to one inbox: all that the other side gets. `signature` is None for an unsigned send.

    `content` gives the message's bytes whenever they are wanted, and raises CasError: nobody keeps those of a batch.
    """

    identity: str
    inbox: str
    name: str
    sender: str
    digest: str
    time: str
    content: Callable[[], bytes]
    signature: bytes | None


class ClaimState(Enum):
    CLAIMED = "claimed"
    PUBLISHED = "published"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What stands in an inbox under an identity. Its name and signature count, not those of a later run.

    Anybody who can write there can plant one. `signature`: what is to prove a signed one; None where it was not looked
    for, or is gone. `present`: the message was still in the inbox. `digest`, `time`: of its message, and of its plan.
    """

    identity: str
    inbox: str
    name: str
    signed: bool
    state: ClaimState
    signature: bytes | None = None
    present: bool = False
    digest: str = ""
    time: str = ""

    @property
    def folder(self) -> str:
        return _claim_folder(self.inbox, self.identity)

    @property
    def files(self) -> tuple[str, ...]:
        return (signature_name(self.name), self.name) if self.signed else (self.name,)


class Transport:
    """The verbs. All but `stage` are coroutines, for `run`; all raise TransferError."""

    def __init__(self, files: Files, abort: Callable[[], None] | None = None) -> None:
        self.files = files
        self.abort = abort or files.close
        """Cuts the connection, from any thread: whatever waits then fails."""

    @property
    def durable(self) -> bool:
        """Whether all so far is known to be on disk there."""
        return self.files.durable

    def run(self, tasks: Iterable[Task[T]]) -> list[T | CasError]:
        """Run all to their end; each gives its value or the CasError that it raised."""
        return self.files.run(tasks)

    def sync(self, folders: Iterable[str]) -> dict[str, CasError]:
        """Bring to disk what was done in these folders; gives the errors, by folder."""
        return self.files.sync_all(dict.fromkeys(folders))

    async def prepare(self, inbox: str) -> bool:
        """Make the inbox where it is missing; True when it was."""
        made = await self._make_folders(inbox)
        folder = workshop(inbox)
        if await self.files.make_folder(folder):
            await self.files.sync(inbox)
        elif await self.files.kind(folder) is not Kind.FOLDER:
            raise TransferError(f"not a folder: `{folder}`", code="file-operation-failed", permanent=True)
        return made

    async def find(self, envelope: Envelope) -> Claim | None:
        """The claim that stands for a delivery, if it can be the delivery's: with what is to prove that.

        Raises TransferError, `receipt-refused`, where its record is of another delivery, or another message is in it.
        Whether its signature is good is for the sender to find out, who has gpg.
        """
        folder = _claim_folder(envelope.inbox, envelope.identity)
        record = await self._content(f"{folder}/{RECORD}", _damaged(folder))
        if record is None:
            return None
        claim = await self._claim_of(record, envelope.inbox, envelope.identity)
        if why := _mismatch(_fields(record, folder), envelope):
            raise refused(claim, why)
        expected = planned_content(envelope, claim)
        if expected is None:
            raise refused(claim, "it has another digest than the delivery")
        signature = await self._proof(folder) if claim.signed else None
        if claim.state is ClaimState.PUBLISHED:
            present = await self.files.kind(f"{claim.inbox}/{claim.name}") is Kind.FILE
            if claim.signed and signature is None and present:  # a receipt of an earlier cas, which kept none
                signature = await self._signature_in_inbox(claim, expected)
            return replace(claim, signature=signature, present=present)
        content = await self._content(f"{folder}/{MESSAGE}", _damaged(folder), len(expected) + 1)
        if content is not None and content != expected:
            raise refused(claim, "the message in it has other bytes than the one that is to be delivered")
        return replace(claim, signature=signature)

    async def _proof(self, folder: str) -> bytes | None:
        """A claim's signature, whether or not the claim was closed."""
        kept = await self._content(f"{folder}/{SIGNATURE}", _damaged(folder))
        return await self._content(f"{folder}/{PROOF}", _damaged(folder)) if kept is None else kept

    async def _signature_in_inbox(self, claim: Claim, expected: bytes) -> bytes | None:
        """The signature beside the message in the inbox, if that is the message's bytes."""
        visible = f"{claim.inbox}/{claim.name}"
        if await self._content(visible, _foreign(visible), len(expected) + 1) != expected:
            return None
        return await self._content(signature_name(visible), _foreign(visible))

    async def look(self, inbox: str, identity: str) -> Claim | None:
        """The claim that stands for an identity, whoever made it."""
        folder = _claim_folder(inbox, identity)
        record = await self._content(f"{folder}/{RECORD}", _damaged(folder))
        return None if record is None else await self._claim_of(record, inbox, identity)

    async def _claim_of(self, record: bytes, inbox: str, identity: str) -> Claim:
        folder = _claim_folder(inbox, identity)
        fields = _fields(record, folder)
        name, signed = fields["name"], fields["signed"]
        state = ClaimState.PUBLISHED
        if await self.files.kind(f"{folder}/{MESSAGE}"):
            state = ClaimState.CLAIMED
        elif await self.files.kind(f"{folder}/{WITHDRAWN}"):
            state = ClaimState.WITHDRAWN
        return Claim(
            identity=identity,
            inbox=inbox,
            name=name,
            signed=signed,
            state=state,
            digest=str(fields.get("digest")),
            time=str(fields.get("time")),
        )

    async def reserve(self, inbox: str, name: str, identity: str) -> bool:
        """Hold a name for an identity, against all who deliver with cas; False when it is taken.

        On disk once the workshop was synced.
        """
        if await self.files.kind(f"{inbox}/{name}") or await self.files.kind(f"{inbox}/{signature_name(name)}"):
            return False
        reservation = f"{workshop(inbox)}/name-{name}"
        if await self.files.create(reservation, identity.encode()):
            return True
        return await self.files.read(reservation) == identity.encode()

    def stage(self, envelopes: Sequence[Envelope]) -> list[str | CasError]:
        """Put each envelope together in a hidden folder that is the user's alone; gives the folders.

        They are on disk then, and so is what was reserved before.
        """
        folders = self._put_together(envelopes)
        inboxes = {workshop(envelope.inbox) for envelope in envelopes}
        errors = self.sync([*sorted(inboxes), *(folder for folder in folders if isinstance(folder, str))])
        return self.run(
            self._on_disk(envelope, folder, errors) for envelope, folder in zip(envelopes, folders, strict=True)
        )

    async def claim(self, envelope: Envelope, folder: str) -> Claim:
        """Turn a staged folder into the one claim of its identity; where one stands already, that one is given.

        On disk once the workshop was synced.
        """
        ours = False
        try:
            ours = await self.files.move_folder(folder, _claim_folder(envelope.inbox, envelope.identity))
            if not ours:
                await self.unstage(folder)
        except TransferError:
            if await self.files.kind(folder) is not None:
                raise
        if ours:
            standing = await self.look(envelope.inbox, envelope.identity)
            standing = standing and replace(standing, signature=envelope.signature)
        else:
            standing = await self.find(envelope)
        if standing is None:
            raise _taken_away(envelope)
        return standing

    async def unstage(self, folder: str) -> None:
        """Take a staged folder away that did not become a claim."""
        for name in (MESSAGE, SIGNATURE, RECORD):
            await self.files.remove(f"{folder}/{name}")
        await self.files.remove_folder(folder)

    async def clean(self, inbox: str, identities: Set[str]) -> None:
        """Take away what was staged for these identities and did not become a claim; nothing of others.

        Another machine may be staging the same delivery right now: what it staged is moved aside first, in one step,
        so that it becomes the claim whole or never. Emptied in place, it could be claimed without its message.
        """
        for name in await self.files.names(workshop(inbox)):
            prefix, _, rest = name.partition("-")
            if prefix not in (STAGED, ASIDE) or rest.partition("-")[0] not in identities:
                continue
            folder = f"{workshop(inbox)}/{name}"
            if prefix == STAGED:
                aside = f"{workshop(inbox)}/{ASIDE}-{rest}"
                try:
                    if not await self.files.move_folder(folder, aside):
                        continue
                except TransferError:
                    if await self.files.kind(folder) is not None:
                        raise
                    continue  # claimed, or cleaned by another run
                folder = aside
            await self.unstage(folder)

    async def forget(self, inbox: str, identity: str, name: str) -> None:
        """Take a published message's receipt and reservation away: nothing then says that it was delivered."""
        standing = await self.look(inbox, identity)
        if standing is not None and standing.state is ClaimState.PUBLISHED:
            await self.files.remove(f"{standing.folder}/{SIGNATURE}")
            await self.files.remove(f"{standing.folder}/{PROOF}")
            await self.files.remove(f"{standing.folder}/{RECORD}")
            await self.files.remove_folder(standing.folder)
            await self.files.remove(f"{workshop(inbox)}/name-{name}")

    async def withdraw(self, claim: Claim) -> bool:
        """Give a claim up, for good, and take back its signature; False when its message was published meanwhile."""
        if not await self.files.move(f"{claim.folder}/{MESSAGE}", f"{claim.folder}/{WITHDRAWN}"):
            return await self.files.kind(f"{claim.folder}/{WITHDRAWN}") is not None
        visible = f"{claim.inbox}/{signature_name(claim.name)}"
        ours = await self.files.read(f"{claim.folder}/{SIGNATURE}")
        if ours is not None and await self.files.read(visible) == ours:
            await self.files.remove(visible)
        await self.files.sync(claim.folder)
        await self.files.sync(claim.inbox)
        return True

    async def publish_signature(self, claim: Claim) -> None:
        """Make the signature visible, whole, replacing nothing. Again is allowed: a name with our bytes is ours.

        On disk once the inbox was synced.
        """
        source, target = f"{claim.folder}/{SIGNATURE}", f"{claim.inbox}/{signature_name(claim.name)}"
        for _ in range(LINK_TRIES):
            if await self._linked(source, target) or await self._stands(claim, source, target):
                return
        raise _foreign(target)

    async def _linked(self, source: str, target: str) -> bool:
        try:
            return await self.files.link(source, target)
        except TransferError:
            if await self.files.kind(source) is not None:
                raise
            return False

    async def _stands(self, claim: Claim, source: str, target: str) -> bool:
        """Whether what could not be linked is visible already: by us, or by a run that has published all meanwhile.

        Then the receiver may have taken both away since. False: nothing stands in the way any more.
        """
        ours = await self.files.read(source)
        theirs = await self._content(target, _foreign(target))
        if ours is not None and ours == theirs:
            return True
        if await self.files.kind(f"{claim.folder}/{MESSAGE}") is None:
            return True
        if ours is None:
            raise _damaged(claim.folder)  # or a message would appear without its signature
        if theirs is not None:
            raise _foreign(target)
        return False

    async def _content(self, path: str, otherwise: TransferError, limit: int = LARGEST_READ) -> bytes | None:
        """A file's bytes, None where nothing stands; raises `otherwise` for what is none, such as a FIFO."""
        match await self.files.kind(path):
            case None:
                return None
            case Kind.FILE:
                return await self.files.read(path, limit)
            case _:
                raise otherwise

    async def publish_message(self, claim: Claim) -> bool:
        """Make the message visible, whole, replacing nothing; False when another run did it meanwhile.

        A rename, never a link: that the message has left the claim is what says that it was published. On disk once
        the inbox and the claim's folder were synced.
        """
        source, target = f"{claim.folder}/{MESSAGE}", f"{claim.inbox}/{claim.name}"
        if not await self.files.move(source, target):
            if await self.files.kind(source) is not None:
                raise _foreign(target)
            if await self.files.kind(f"{claim.folder}/{WITHDRAWN}") is not None:
                raise given_up()
            return False
        return True

    async def close(self, claim: Claim) -> None:
        """Reduce the claim of a published message to the receipt: its record, and its signature as the proof."""
        if claim.signed:
            await self.files.move(f"{claim.folder}/{SIGNATURE}", f"{claim.folder}/{PROOF}")

    async def _make_folders(self, path: str) -> bool:
        if await self.files.kind(path):  # a folder, or a link to one: what the user set up is followed
            return False
        parent = path.rpartition("/")[0]
        if parent not in ("", "~"):
            await self._make_folders(parent)
        made = await self.files.make_folder(path)
        if made:
            await self.files.sync(parent or "/")
        return made

    def _put_together(self, envelopes: Sequence[Envelope]) -> list[str | CasError]:
        return self.run(self._staged(envelope) for envelope in envelopes)

    async def _on_disk(self, envelope: Envelope, folder: str | CasError, errors: Mapping[str, CasError]) -> str:
        if isinstance(folder, CasError):
            raise folder
        if error := errors.get(folder) or errors.get(workshop(envelope.inbox)):
            if await self.files.kind(folder) is None:
                raise _taken_away(envelope) from error
            await self.unstage(folder)
            raise error
        return folder

    async def _staged(self, envelope: Envelope) -> str:
        folder, files = staging_folder(envelope), contents(envelope)
        await self.files.make_folder(folder, mode=0o700)
        try:
            for name, content in files.items():
                await self.files.create(f"{folder}/{name}", content)
        except TransferError as error:
            if await self.files.kind(folder) is None:
                raise _taken_away(envelope) from error
            await self.unstage(folder)
            raise
        return folder


def workshop(inbox: str) -> str:
    """Where all of ours in an inbox lies."""
    return f"{inbox}/{WORKSHOP}"


def staging_folder(envelope: Envelope) -> str:
    """A fresh place to put an envelope together: two runs of one identity never share it."""
    return f"{workshop(envelope.inbox)}/{STAGED}-{envelope.identity}-{secrets.token_hex(4)}"


def contents(envelope: Envelope) -> dict[str, bytes]:
    """The files of a staged envelope, in the order in which they are written."""
    record = {
        "digest": envelope.digest,
        "identity": envelope.identity,
        "name": envelope.name,
        "sender": envelope.sender,
        "signed": envelope.signature is not None,
        "time": envelope.time,
    }
    signature = {} if envelope.signature is None else {SIGNATURE: envelope.signature}
    return {RECORD: (json.dumps(record, sort_keys=True) + "\n").encode(), **signature, MESSAGE: envelope.content()}


def _claim_folder(inbox: str, identity: str) -> str:
    return f"{workshop(inbox)}/{identity}"


def _fields(record: bytes, folder: str) -> Mapping[str, Any]:
    """The fields of a record. The other side wrote this: a name that would lead elsewhere is refused."""
    try:
        fields = json.loads(record)
        name, signed = fields["name"], fields["signed"]
    except (ValueError, KeyError, TypeError, RecursionError):
        fields, name, signed = {}, None, None
    if not isinstance(name, str) or not isinstance(signed, bool) or not is_canonical(name):
        raise _damaged(folder)
    return dict(fields)


def _mismatch(fields: Mapping[str, Any], envelope: Envelope) -> str | None:
    """In what a record is not that of a delivery. Its time, and that in its name, may be those of an earlier run."""
    for key in ("identity", "sender"):
        if fields.get(key) != getattr(envelope, key):
            return f"it has another {key} than the delivery"
    if str(fields["name"])[TIME_LENGTH:] != envelope.name[TIME_LENGTH:]:
        return "its name is of another sender or conversation than the delivery's"
    return "it is of an unsigned delivery" if envelope.signature is not None and not fields["signed"] else None


def planned_content(envelope: Envelope, claim: Claim) -> bytes | None:
    """The bytes that a claim's message has to have; None where no plan gives bytes of its digest.

    A delivery that is planned again is the same, though cas dates the messages that it makes: the run that made the
    claim had another clock.
    """
    content = envelope.content()
    if claim.digest == envelope.digest:
        return content
    now, then = (f"#+TIMESTAMP: {time}\n".encode("utf-8", "replace") for time in (envelope.time, claim.time))
    dated = content.replace(now, then, 1)
    return dated if digest(dated) == claim.digest else None


def refused(claim: Claim, why: str) -> TransferError:
    """The error of a claim or receipt that does not prove that this delivery was made."""
    what = "receipt" if claim.state is ClaimState.PUBLISHED else "claim"
    return TransferError(
        f"the {what} `{claim.folder}` does not prove this delivery: {why}",
        code="receipt-refused",
        permanent=True,
        hint=f"find out who wrote it; move it away (mv {claim.folder} ELSEWHERE), then: cas retry --all",
    )


def given_up() -> TransferError:
    """A person withdrew this delivery: no run finishes it."""
    return TransferError(
        "this delivery was given up by a person",
        code="withdrawn",
        permanent=True,
        hint="to send it after all, give its message the next SEQUENCE",
    )


def _damaged(folder: str) -> TransferError:
    return TransferError(
        f"the claim `{folder}` is damaged",
        code="claim-damaged",
        permanent=True,
        hint="somebody changed what is in it: look at it, and move it away to deliver anew",
    )


def _taken_away(envelope: Envelope) -> TransferError:
    """Two machines are at the same delivery, and the other one cleaned up."""
    return TransferError(
        f"another run took away what was staged for `{envelope.name}`", code="unstaged", permanent=False
    )


def _foreign(path: str) -> TransferError:
    return TransferError(
        f"a file that is not of this delivery stands under its name: `{path}`",
        code="name-taken",
        permanent=True,
        hint="move that file away, then: cas retry --all; or leave it, and: cas retry --all --anew",
    )

"""Intents: a delivery under way into its ledger entry, and an entry into a delivery that goes on. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from cas.inventory import Destination
from cas.ledger import OPEN, WITHDRAWN, Entry, Ledger
from cas.manifest import Retry, Sign
from cas.names import canonical_name, identity, later, signature_name, timestamp
from cas.parcel import Parcel, parcel
from cas.plan import Delivery, PlannedMessage
from cas.transports.transport import Envelope, given_up

LEDGER = "ledger"
STDIN = "-"


def intent(item: Parcel, message: bytes | None, run: str, root: Path, now: str) -> Entry:
    """The entry that is written before a delivery moves; `root` is what message paths are relative to."""
    delivery, envelope, planned = item.delivery, item.envelope, item.delivery.message
    return Entry(
        identity=delivery.identity,
        id=delivery.id,
        run=run,
        sender=delivery.sender,
        destination=delivery.destination.address,
        conversation=planned.conversation,
        sequence=planned.sequence,
        type=planned.type,
        digest=planned.digest,
        size=planned.bytes,
        source=_told(planned.source if planned.source == STDIN else str(root / planned.source)),
        time=envelope.time,
        name=envelope.name,
        signed=envelope.signature is not None,
        signature=envelope.signature,
        message=message,
        retry=json.dumps(asdict(delivery.retry), sort_keys=True),
        repeatable=delivery.repeatable,
        state=OPEN,
        reason=None,
        attempts="[]",
        updated=now,
    )


def _told(path: str) -> str:
    """A path as text that a database takes, also where it is no UTF-8."""
    return path.encode("utf-8", "backslashreplace").decode()


def go_on(item: Parcel, entry: Entry) -> None:
    """Take name and signature from the ledger: they were fixed, with the bytes, when this delivery was first begun."""
    if entry.state == WITHDRAWN:
        item.error = given_up()
    item.done = entry.done
    item.evidence = LEDGER if entry.done else None
    item.envelope = replace(
        item.envelope,
        name=entry.name,
        time=entry.time,
        signature=(entry.signature or b"") if entry.signed else None,
    )


def begun(delivery: Delivery, entry: Entry, ledger: Ledger) -> Parcel:
    """A delivery that the ledger knows already."""
    item = parcel(
        delivery,
        Envelope(
            identity=entry.identity,
            inbox=delivery.destination.inbox,
            name=entry.name,
            sender=entry.sender,
            digest=entry.digest,
            time=entry.time,
            content=partial(ledger.message, entry.identity),
            signature=None,
        ),
        resumed=True,
    )
    go_on(item, entry)
    return item


def anew(entry: Entry, clock: datetime, run: str, word: str) -> Entry:
    """The same message to the same inbox, as another delivery; `word` makes it one of a kind."""
    place = (entry.sender, entry.destination, entry.conversation, entry.sequence, entry.digest)
    name = canonical_name(clock, entry.sender, entry.conversation)
    return replace(
        entry,
        identity=identity(*place, word),
        name=max(name, later(entry.name, 1)),
        run=run,
        time=timestamp(clock),
        repeatable=False,
        state=OPEN,
        reason=None,
        attempts="[]",
        updated=timestamp(clock),
    )


def delivery(entry: Entry, destination: Destination) -> Delivery:
    """What an entry was to deliver, to where its destination is now."""
    retry = json.loads(entry.retry)
    return Delivery(
        id=entry.id,
        identity=entry.identity,
        sender=entry.sender,
        lane=f"{entry.destination}/{entry.conversation}",
        message=PlannedMessage(
            source=entry.source,
            digest=entry.digest,
            bytes=entry.size,
            conversation=entry.conversation,
            type=entry.type,
            sequence=entry.sequence,
        ),
        destination=destination,
        files=(signature_name(entry.name), entry.name) if entry.signed else (entry.name,),
        sign=Sign() if entry.signed else None,
        retry=Retry(**{**retry, "backoff": tuple(retry["backoff"])}),
        repeatable=entry.repeatable,
    )

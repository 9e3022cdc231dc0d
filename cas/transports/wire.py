"""What goes between cas and its code on another machine: one JSON object a line. Pure.

Each side takes the other for a stranger: what does not have the right shape raises ValueError.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cas.errors import CasError, HaltError, TransferError
from cas.names import is_canonical
from cas.transports.attempt import Progress
from cas.transports.transport import Claim, ClaimState, Envelope

LONGEST_LINE = 64 << 20
Fields = Mapping[str, Any]


def line(fields: Fields) -> bytes:
    """One object as it goes over the wire."""
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def fields(text: bytes) -> Fields:
    """The object of a line."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


def packed(content: bytes | None) -> str | None:
    """Bytes as JSON holds them."""
    return None if content is None else b64encode(content).decode("ascii")


def unpacked(text: str | None) -> bytes | None:
    """The bytes of `packed`."""
    return None if text is None else b64decode(text, validate=True)


def error_fields(error: CasError | None) -> Fields | None:
    """An error as data."""
    if error is None:
        return None
    kind = "halt" if isinstance(error, HaltError) else "transfer"
    permanent = getattr(error, "permanent", True)
    return {"kind": kind, "message": str(error), "code": error.code, "hint": error.hint, "permanent": permanent}


def error_of(found: Fields | None) -> CasError | None:
    """The error of `error_fields`."""
    if found is None:
        return None
    message, code, hint = _text(found["message"]), _text(found["code"]), found["hint"]
    hint = None if hint is None else _text(hint)
    if found["kind"] == "halt":
        return HaltError(message, code=code, hint=hint)
    return TransferError(message, code=code, hint=hint, permanent=bool(found["permanent"]))


def order(item: Progress) -> Fields:
    """A delivery as it is ordered from the other machine."""
    envelope = item.envelope
    return {
        "identity": envelope.identity,
        "inbox": envelope.inbox,
        "name": envelope.name,
        "sender": envelope.sender,
        "digest": envelope.digest,
        "time": envelope.time,
        "message": packed(envelope.message),
        "signature": packed(envelope.signature),
        "lane": item.lane,
        "repeatable": item.repeatable,
        "asked": item.asked,
        "resumed": item.resumed,
        "tried": item.tried,
        "after": item.after,
    }


def ordered(found: Fields) -> Progress:
    """The delivery of `order`."""
    texts = {key: _text(found[key]) for key in ("identity", "inbox", "name", "sender", "digest", "time")}
    return Progress(
        envelope=Envelope(**texts, message=unpacked(found["message"]) or b"", signature=unpacked(found["signature"])),
        lane=_text(found["lane"]),
        repeatable=bool(found["repeatable"]),
        asked=bool(found["asked"]),
        resumed=bool(found["resumed"]),
        tried=bool(found["tried"]),
        after=_text(found["after"]),
    )


def standing(item: Progress) -> Fields:
    """How far a delivery has come there."""
    claim = item.claim
    return {
        "identity": item.envelope.identity,
        "name": item.envelope.name,
        "claim": claim and {"name": claim.name, "signed": claim.signed, "state": claim.state.value},
        "made_inbox": item.made_inbox,
        "asked": item.asked,
        "done": item.done,
        "ours": item.ours,
        "evidence": item.evidence,
        "error": error_fields(item.error),
    }


def stand(item: Progress, found: Fields) -> None:
    """Take over how far a delivery has come there."""
    item.envelope = replace(item.envelope, name=canonical(found["name"]))
    item.claim = None
    if claim := found["claim"]:
        item.claim = Claim(
            identity=item.envelope.identity,
            inbox=item.envelope.inbox,
            name=canonical(claim["name"]),
            signed=bool(claim["signed"]),
            state=ClaimState(claim["state"]),
        )
    item.made_inbox = item.made_inbox or bool(found["made_inbox"])
    item.asked, item.done, item.ours = bool(found["asked"]), bool(found["done"]), bool(found["ours"])
    item.evidence = "receipt" if found["evidence"] else None
    item.error = error_of(found["error"])
    item.tried = True


def canonical(name: object) -> str:
    """A name that another machine gave: one that would lead elsewhere is refused."""
    if not isinstance(name, str) or not is_canonical(name):
        raise ValueError("not a name")
    return name


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")
    return value

"""What goes between cas and its code on another machine: one JSON object a line. Pure.

Each side takes the other for a stranger: what does not have the right shape raises ValueError.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cas.errors import CasError, HaltError, TransferError
from cas.names import is_canonical
from cas.transports.attempt import Progress
from cas.transports.files import Kind
from cas.transports.transport import Claim, ClaimState, Envelope

LONGEST_LINE = 64 << 20
LONGEST_TEXT = 500
LARGEST_SIGNATURE = 32 << 10
CODE = re.compile(r"[a-z][a-z-]{0,39}")
Fields = Mapping[str, Any]


class Lines:
    """What comes over the wire, taken in pieces of any size, as whole lines; `longest` bounds what is kept of one."""

    def __init__(self, longest: float = float("inf")) -> None:
        self._longest = longest
        self._rest = bytearray()
        self._whole: deque[bytes] = deque()

    def __bool__(self) -> bool:
        return bool(self._whole)

    def take(self, content: bytes) -> None:
        """Raises ValueError where a line has no end."""
        *lines, rest = content.split(b"\n")
        if lines:
            lines[0] = bytes(self._rest) + lines[0]
            self._rest.clear()
            self._whole.extend(lines)
        self._rest += rest
        if len(self._rest) > self._longest:
            raise ValueError("too long a line")

    def next(self) -> Fields:
        """The object of the next line, of which there has to be one; raises ValueError for anything else."""
        return fields(self._whole.popleft())


def line(fields: Fields) -> bytes:
    """One object as it goes over the wire."""
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def fields(text: bytes) -> Fields:
    """The object of a line."""
    try:
        return _object(json.loads(text))
    except RecursionError:
        raise ValueError("nested too deep") from None


def packed(content: bytes | None) -> str | None:
    """Bytes as JSON holds them."""
    return None if content is None else b64encode(content).decode("ascii")


def unpacked(text: object) -> bytes | None:
    """The bytes of `packed`."""
    return None if text is None else b64decode(_text(text), validate=True)


def error_fields(error: CasError | None) -> Fields | None:
    """An error as data."""
    if error is None:
        return None
    kind = "halt" if isinstance(error, HaltError) else "transfer"
    permanent = getattr(error, "permanent", True)
    return {"kind": kind, "message": str(error), "code": error.code, "hint": error.hint, "permanent": permanent}


def error_of(found: object) -> HaltError | TransferError:
    """The error of `error_fields`."""
    found = _object(found)
    message, code, hint = _words(found.get("message")), _text(found.get("code")), found.get("hint")
    if not CODE.fullmatch(code):
        raise ValueError("not a code")
    hint = None if hint is None else _words(hint)
    match found.get("kind"):
        case "halt":
            return HaltError(message, code=code, hint=hint)
        case "transfer":
            return TransferError(message, code=code, hint=hint, permanent=truth(found.get("permanent")))
        case _:
            raise ValueError("not an error")


def errors_of(found: object) -> dict[str, CasError]:
    """Errors by folder."""
    return {folder: error_of(error) for folder, error in _object(found).items()}


def answer_of(found: Fields) -> object:
    """The value of an operation, or its error."""
    if "error" in found:
        return error_of(found["error"])
    if "value" not in found:
        raise ValueError("not an answer")
    return found["value"]


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
        "message": packed(envelope.content()),
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
    message = unpacked(found["message"]) or b""
    return Progress(
        envelope=Envelope(**texts, content=lambda: message, signature=unpacked(found["signature"])),
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
        "claim": claim
        and {
            "name": claim.name,
            "signed": claim.signed,
            "state": claim.state.value,
            "signature": packed(claim.signature),
            "present": claim.present,
            "digest": claim.digest,
            "time": claim.time,
        },
        "made_inbox": item.made_inbox,
        "asked": item.asked,
        "done": item.done,
        "ours": item.ours,
        "evidence": item.evidence,
        "error": error_fields(item.error),
    }


def stand(item: Progress, found: Fields) -> None:
    """Take over how far a delivery has come there."""
    item.envelope = replace(item.envelope, name=canonical(found.get("name")))
    item.claim = _claim(item.envelope, found.get("claim"))
    item.made_inbox = item.made_inbox or truth(found.get("made_inbox"))
    item.asked, item.done, item.ours = (truth(found.get(key)) for key in ("asked", "done", "ours"))
    item.evidence = found["evidence"] if found.get("evidence") in ("inbox", "receipt") else None
    item.error = None if found.get("error") is None else error_of(found["error"])
    item.tried = True


def _claim(envelope: Envelope, found: object) -> Claim | None:
    if found is None:
        return None
    found = _object(found)
    return Claim(
        identity=envelope.identity,
        inbox=envelope.inbox,
        name=canonical(found.get("name")),
        signed=truth(found.get("signed")),
        state=ClaimState(found.get("state")),
        signature=_signature(found.get("signature")),
        present=truth(found.get("present")),
        digest=_text(found.get("digest")),
        time=_text(found.get("time")),
    )


def _signature(found: object) -> bytes | None:
    signature = unpacked(found)
    if signature is not None and len(signature) > LARGEST_SIGNATURE:
        raise ValueError("no signature is so large")
    return signature


def canonical(name: object) -> str:
    """A name that another machine gave: one that would lead elsewhere is refused."""
    if not isinstance(name, str) or not is_canonical(name):
        raise ValueError("not a name")
    return name


def truth(value: object) -> bool:
    """Yes or no, and nothing that might be taken for it."""
    if not isinstance(value, bool):
        raise ValueError("neither true nor false")
    return value


def kind(value: object) -> Kind | None:
    """What stands under a name."""
    return None if value is None else Kind(value)


def texts(value: object) -> list[str]:
    """Texts, such as the names in a folder."""
    if not isinstance(value, list):
        raise ValueError("not a list")
    return [_text(one) for one in value]


def _object(value: object) -> Fields:
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")
    return value


def _words(value: object) -> str:
    """A text for people, which the ledger can keep: no longer than they would read, and without half characters."""
    text = _text(value)
    short = text[:LONGEST_TEXT] + ("…" if len(text) > LONGEST_TEXT else "")
    return short.encode("utf-8", "replace").decode()

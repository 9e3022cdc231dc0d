"""Bundles: a plan with its messages and their signatures, into the bytes of a file and back. Pure.

Each key that signs a message also seals the bundle: it signs the digest of all the rest. Seals can be removed, and made
by other keys; so the machine that applies a bundle is told whose seal counts (`seals`).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cas.diagnostics import Diagnostic
from cas.names import digest
from cas.plan import DELIVER, Delivery, Plan, Signing, compact, digest_of, fields
from cas.plan_file import PlanFile, malformed

SEAL = "cas-bundle-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What a bundle holds beside its plan: messages by digest, signatures by identity, and seals by key."""

    contents: Mapping[str, bytes]
    signatures: Mapping[str, bytes]
    seals: Mapping[str, bytes]


def signed(plan: Plan) -> tuple[Signing, ...]:
    """What is to be signed."""
    return tuple(one.signing for one in plan.deliveries if one.action == DELIVER and one.signing)


def keys(plan: Plan) -> tuple[str, ...]:
    """The keys that sign something, each once."""
    return tuple(dict.fromkeys(one.key for one in signed(plan)))


def body(plan: Plan, content: Callable[[str], bytes], signatures: Mapping[Signing, bytes]) -> dict[str, Any]:
    """What is sealed: the plan, with each message that is to be delivered, and its signature, in it."""
    whole: dict[str, Any] = fields(plan)
    for one, told in zip(plan.deliveries, whole["deliveries"], strict=True):
        if one.action == DELIVER:
            signature = signatures[one.signing] if one.signing else None
            told["message"] |= {
                "content": base64.b64encode(content(one.message.digest)).decode("ascii"),
                "signature": None if signature is None else signature.decode("ascii"),
            }
    return whole


def seal_text(body: Mapping[str, Any]) -> bytes:
    """What a seal is the signature of; no message begins so."""
    rest = {key: value for key, value in body.items() if key != "seals"}
    return f"{SEAL}\n{digest_of(rest)}\n".encode("ascii")


def canonical(body: Mapping[str, Any], seals: Mapping[str, bytes]) -> bytes:
    """The one form that a bundle has."""
    whole = {**body, "seals": {key: seal.decode("ascii") for key, seal in seals.items()}}
    return compact({**whole, "digest": digest_of(whole)}) + b"\n"


def parse(held: PlanFile) -> tuple[Bundle, tuple[Diagnostic, ...]]:
    """What is in a bundle, and what of it does not fit its plan. Who signed is not looked at here."""
    found: list[Diagnostic] = []
    contents: dict[str, bytes] = {}
    signatures: dict[str, bytes] = {}
    for one, told in zip(held.plan.deliveries, held.body["deliveries"], strict=True):
        if one.action != DELIVER:
            continue
        try:
            content, signature = _content(one, told["message"] or {}), _signature(one, told["message"] or {})
            contents[one.message.digest] = content
            if signature is not None:
                signatures[one.identity] = signature
        except ValueError as error:
            found.append(malformed(f"`{one.id}`: {error}", held.file))
    seals = {key: seal.encode("utf-8", "replace") for key, seal in held.body["seals"].items()}
    if not set(keys(held.plan)) <= set(seals):
        found.append(malformed("a key that signs its messages has not sealed it", held.file))
    ids = [one.id for one in held.plan.deliveries]
    if len(set(ids)) != len(ids):
        found.append(malformed("an id is given twice", held.file))
    return Bundle(contents=contents, signatures=signatures, seals=seals), tuple(found)


def _content(one: Delivery, told: Mapping[str, Any]) -> bytes:
    text = told.get("content")
    if text is None:
        raise ValueError("its message is missing")
    try:
        content = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise ValueError(f"its message is no base64: {error}") from error
    if base64.b64encode(content).decode("ascii") != text:
        raise ValueError("its message is no canonical base64")
    if digest(content) != one.message.digest:
        raise ValueError(f"its message has the digest {digest(content)}, and is to have {one.message.digest}")
    return content


def _signature(one: Delivery, told: Mapping[str, Any]) -> bytes | None:
    text = told.get("signature")
    if (text is None) != (one.sign is None):
        raise ValueError("its message has no signature" if one.sign else "it has a signature and no key")
    if text is None:
        return None
    return _armoured(text)


def _armoured(text: str) -> bytes:
    """Raises ValueError."""
    if not text.isascii():
        raise ValueError("its signature is not armoured")
    return text.encode("ascii")

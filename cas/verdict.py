"""Verdicts: what gpg's status lines say of a signature, as one answer. Pure.

The lines are those of gpg's file doc/DETAILS. A signature is good only where there is one, it fits, and neither it nor
its key has expired or was revoked: gpg's exit code says less.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from cas.keys import HASHES, STRONG_HASHES

NO_PUBLIC_KEY = "9"
"""As ERRSIG has it, in its sixth field."""
OF_BYTES, OF_TEXT = "00", "01"
"""Classes of signatures (RFC 9580, 5.2.1): of a document's bytes; or of its text, whatever its line ends are. Others
certify keys."""


FOR, OF_DELIVERY = "to@cas", "id@cas"
"""The notations of a signature by cas: the inbox that the message is for, and the identity of the delivery."""


ESCAPED = re.compile("%([0-9A-Fa-f]{2})")


class State(Enum):
    """What there is to say of some bytes and what is to be their signature."""

    GOOD = "good"
    BAD = "bad"
    EXPIRED = "expired-signature"
    EXPIRED_KEY = "expired-key"
    REVOKED_KEY = "revoked-key"
    UNKNOWN_KEY = "unknown-key"
    SEVERAL = "several-signatures"
    NONE = "no-signature"
    UNREADABLE = "unreadable-signature"
    WEAK = "weak-signature"
    TEXT = "text-signature"
    WEAK_KEY = "weak-key"
    DISTRUSTED = "untrusted-key"


TOLD = {
    "GOODSIG": State.GOOD,
    "BADSIG": State.BAD,
    "EXPSIG": State.EXPIRED,
    "EXPKEYSIG": State.EXPIRED_KEY,
    "REVKEYSIG": State.REVOKED_KEY,
    "ERRSIG": State.UNREADABLE,
}
WORDS = {
    State.GOOD: "is signed by {key}",
    State.BAD: "does not fit its signature, by {key}: one of the two was changed, or cut off",
    State.EXPIRED: "has a signature by {key} that has expired",
    State.EXPIRED_KEY: "is signed by {key}, which has expired",
    State.REVOKED_KEY: "is signed by {key}, which was revoked",
    State.UNKNOWN_KEY: "is signed by {key}, which is not among the public keys here",
    State.SEVERAL: "has several signatures, and nobody can say which of them counts",
    State.NONE: "has no signature",
    State.UNREADABLE: "has a signature that cannot be read",
    State.WEAK: "has a signature by {key} that is too weak",
    State.TEXT: "has a signature by {key} of its text, which holds for other line ends too",
    State.WEAK_KEY: "is signed by {key}, which is too weak",
    State.DISTRUSTED: "is signed by {key}, which gpg has as disabled or never to be trusted",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`key`: the primary key's fingerprint; of a key that is not known, what the signature calls it; else None.

    `user`: the name that the key has here, as gpg gives it. `why`: what is wrong with what cannot be read, where that
    is known. `made_by`: the fingerprint of the key that signed, which may be a subkey. `notations`: what a good
    signature says beside, by name.
    """

    state: State
    key: str | None = None
    user: str | None = None
    why: str | None = None
    made_by: str | None = field(default=None, compare=False)
    notations: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    @property
    def good(self) -> bool:
        return self.state is State.GOOD

    def noted(self, name: str) -> tuple[str, ...]:
        """The values of a notation, of which a signature may have several."""
        return tuple(value for known, value in self.notations if known == name)

    def is_for(self, identity: str) -> bool:
        """Whether the signature may be that of a delivery: it says so, or says nothing."""
        return set(self.noted(OF_DELIVERY)) <= {identity}

    def __str__(self) -> str:
        """What is to be said after "the message"."""
        key = f"the key {self.key}" if self.key else "an unknown key"
        words = WORDS[self.state].format(key=f"{key} ({self.user})" if self.user else key)
        return f"{words}: {self.why}" if self.why else words


def verdict(lines: Sequence[Sequence[str]]) -> Verdict:
    """The words of gpg's status lines for one signature packet into what they say together."""
    told = [line for line in lines if line and line[0] in TOLD]
    valid = [line for line in lines if line and line[0] == "VALIDSIG"]
    if not told:
        return Verdict(state=State.UNREADABLE)
    if len(told) > 1 or len(valid) > 1 or sum(line[:1] == ["NEWSIG"] for line in lines) > 1:
        return Verdict(state=State.SEVERAL)
    (word, *rest), state = told[0], TOLD[told[0][0]]
    if word == "ERRSIG":
        known = rest[6] if len(rest) > 6 and rest[6] != "-" else rest[0] if rest else None
        if len(rest) > 5 and rest[5] != NO_PUBLIC_KEY and rest[2] not in STRONG_HASHES:
            return Verdict(state=State.WEAK, key=known, why=_hash(rest[2]))
        return Verdict(state=State.UNKNOWN_KEY if rest[5:6] == [NO_PUBLIC_KEY] else state, key=known)
    key = valid[0][-1] if valid else rest[0] if rest else None
    user = " ".join(rest[1:]) or None
    if state is not State.GOOD:
        return Verdict(state=state, key=key, user=user)
    if not (valid and len(valid[0]) > 10 and valid[0][9] in (OF_BYTES, OF_TEXT)):
        return Verdict(state=State.UNREADABLE)
    if valid[0][9] == OF_TEXT:
        return Verdict(state=State.TEXT, key=key, user=user)
    if valid[0][8] not in STRONG_HASHES:
        return Verdict(state=State.WEAK, key=key, user=user, why=_hash(valid[0][8]))
    return Verdict(state=state, key=key, user=user, made_by=valid[0][1], notations=tuple(_notations(lines)))


def _notations(lines: Sequence[Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Names and values; a long value comes in several lines. Both are percent-escaped."""
    name, value = "", ""
    for word, *rest in (line for line in lines if line):
        if word == "NOTATION_NAME":
            if name:
                yield name, value
            name, value = _unescaped(" ".join(rest)), ""
        elif word == "NOTATION_DATA":
            value += _unescaped(" ".join(rest))
    if name:
        yield name, value


def _unescaped(text: str) -> str:
    return ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)


def _hash(number: str) -> str:
    return f"its hash is {HASHES.get(number, f'the algorithm {number}')}"

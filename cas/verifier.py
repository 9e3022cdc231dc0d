"""Verification, by gpg: whether a signature is good, and that of the key that is wanted. Starts gpg; writes nothing.

gpg exits with 0 for an expired key too: what counts is its status lines (its file doc/DETAILS).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from cas.signer import Signer

OF_THE_KEY = {"REVKEYSIG": "is revoked", "EXPKEYSIG": "has expired"}
NO_PUBLIC_KEY = "9"
LONGEST = 16 << 10
"""Bytes of a signature: a pipe takes them before anybody reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why a signature does not hold, in words for behind its or its key's name; `of_key`: it is the key's."""

    words: str
    of_key: bool = False
    hint: str | None = None


def fault(content: bytes, signature: bytes, key: str, gpg: Signer) -> Fault | None:
    """What is wrong with a detached signature of `content`; None for a good one by `key`, a primary key's fingerprint.

    Raises SigningError where gpg cannot be asked.
    """
    if len(signature) > LONGEST:
        return Fault(words=f"is longer than {LONGEST} bytes")
    status = _status(content, signature, gpg)
    words = [line[0] for line in status if line]
    said = dict(zip(words, (line for line in status if line), strict=True))
    if "NO_PUBKEY" in said or said.get("ERRSIG", [])[6:7] == [NO_PUBLIC_KEY]:
        hint = f"where it is: gpg --armor --export {key} >key.asc; and here: gpg --import key.asc"
        return Fault(words="is not known here", of_key=True, hint=hint)
    if "BADSIG" in said:
        return Fault(words="is not that of these bytes")
    if words.count("NEWSIG") != 1 or words.count("VALIDSIG") != 1 or "ERRSIG" in said:
        return Fault(words="is none that gpg can read")
    if said["VALIDSIG"][-1] != key:
        return Fault(words=f"is by the key {said['VALIDSIG'][-1]}")
    for word, state in OF_THE_KEY.items():
        if word in said:
            return Fault(words=state, of_key=True, hint="plan again with a key that is valid")
    return None if words.count("GOODSIG") == 1 else Fault(words="has expired")


def _status(content: bytes, signature: bytes, gpg: Signer) -> Sequence[Sequence[str]]:
    read, write = os.pipe()
    try:
        os.write(write, signature)
        os.close(write)
        # `-&N` is the file that is open as N. No key is fetched from anywhere, whatever gpg.conf says.
        files = ("--enable-special-filenames", "--verify", "--", f"-&{read}", "-")
        _, status = gpg.told("--no-auto-key-retrieve", *files, content=content, keep=(read,))
        return status
    finally:
        os.close(read)

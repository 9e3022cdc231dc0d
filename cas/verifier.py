"""The verifier: whether a signature is good, and whose, by gpg. Starts gpg; writes nothing.

gpg is given the bytes that were read, not files: what was verified is what is shown, or sent.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from cas import gpg
from cas.verdict import State, Verdict, verdict

LARGEST = 32 << 10
"""Bytes of a signature; one by an RSA key of 16,384 bits has some 3,000. A pipe holds so many at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """gpg in one environment, whose public keys are those that count."""

    environment: Mapping[str, str]
    program: str = "gpg"

    def verdict(self, content: bytes, signature: bytes) -> Verdict:
        """What is to be said of these bytes and their detached signature. Raises SigningError without a gpg."""
        if len(signature) > LARGEST:
            return Verdict(state=State.UNREADABLE)
        read, write = os.pipe()
        try:
            with open(write, "wb") as file:
                file.write(signature)
            # `-&N` is the file that is open as N. No key is fetched from anywhere, whatever gpg.conf says.
            words = ("--no-auto-key-retrieve", "--enable-special-filenames", "--verify", "--", f"-&{read}", "-")
            result = gpg.run(
                ("--status-fd", "1", *words), self.environment, content=content, keep=(read,), program=self.program
            )
        finally:
            os.close(read)
        return verdict(gpg.statuses(result.stdout))

"""The verifier: whether a signature is good, and whose, by gpg. Starts gpg; writes nothing.

gpg is given the bytes that were read, not files: what was verified is what is shown, or sent. Of a signature's file it
is given the one packet that counts, and it takes no key from anywhere, whatever gpg.conf says.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from cas import armour, gpg
from cas.verdict import State, Verdict, verdict

LARGEST = 32 << 10
"""Bytes of a signature; one by an RSA key of 16,384 bits has some 3,000. A pipe holds so many at once."""
NO_NEW_KEYS = ("--no-auto-key-import", "--no-auto-key-retrieve", "--no-auto-key-locate", "--disable-dirmngr")
"""Neither one that the signature brings along (that option is there from GnuPG 2.2.20 on), nor one from the network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """gpg in one environment, whose public keys are those that count."""

    environment: Mapping[str, str]
    program: str = "gpg"

    def verdict(self, content: bytes, signature: bytes) -> Verdict:
        """What is to be said of these bytes and their detached signature. Raises SigningError without a gpg."""
        if len(signature) > LARGEST:
            return Verdict(state=State.UNREADABLE, why=f"it has more than {LARGEST} bytes")
        packet = armour.packet(signature)
        if isinstance(packet, Verdict):
            return packet
        read, write = os.pipe()
        try:
            with open(write, "wb") as file:
                file.write(packet)
            # `-&N` is the file that is open as N.
            words = ("--no-armor", "--enable-special-filenames", "--verify", "--", f"-&{read}", "-")
            result = gpg.run(
                ("--status-fd", "1", *NO_NEW_KEYS, *words),
                self.environment,
                content=content,
                keep=(read,),
                program=self.program,
            )
        finally:
            os.close(read)
        return verdict(gpg.statuses(result.stdout))

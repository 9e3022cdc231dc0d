"""The verifier: whether a signature is good, and whose, by gpg. Starts gpg; writes nothing.

gpg is given the bytes that were read, not files: what was verified is what is shown, or sent. Of a signature's file it
is given the one packet that counts. It takes no key from anywhere, and does not read gpg.conf.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from cas import armour, gpg, keys
from cas.errors import CasError
from cas.inventory import Policy
from cas.verdict import State, Verdict, verdict

LARGEST = 32 << 10
"""Bytes of a signature; one by an RSA key of 16,384 bits has some 3,000. A pipe holds so many at once."""
NO_NEW_KEYS = ("--no-auto-key-import", "--no-auto-key-retrieve", "--no-auto-key-locate", "--disable-dirmngr")
"""Neither one that the signature brings along (that option is there from GnuPG 2.2.20 on), nor one from the network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """gpg in one environment, whose public keys are those that count; or those of `keyring` alone.

    Raises CasError where there is no such keyring.
    """

    environment: Mapping[str, str]
    program: str = "gpg"
    keyring: Path | None = None
    _rows: dict[str, keys.Rows] = field(default_factory=dict, compare=False, repr=False)
    """What was listed of each primary key: asking costs a process."""

    def __post_init__(self) -> None:
        if self.keyring is not None and not self.keyring.is_file():
            hint = "see `keyring` of [policy] in peers.toml; make it: gpg --export KEY >FILE"
            raise CasError(f"no keyring `{self.keyring}`", code="no-keyring", hint=hint)

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
                (*self._keyring(), "--status-fd", "1", *NO_NEW_KEYS, *words),
                self.environment,
                content=content,
                keep=(read,),
                program=self.program,
            )
        finally:
            os.close(read)
        found = verdict(gpg.statuses(result.stdout))
        return self._of_key(found) if found.good else found

    def _of_key(self, found: Verdict) -> Verdict:
        """A good signature's verdict, once its key was looked at."""
        primary, made_by = found.key or "", found.made_by or ""
        rows = self._rows.get(primary)
        if rows is None:
            rows = self._rows[primary] = gpg.listing(
                (*self._keyring(), "--list-keys", "--", primary), self.environment, program=self.program
            )
        if weakness := keys.weakness(rows, made_by):
            return replace(found, state=State.WEAK_KEY, why=weakness)
        return replace(found, state=State.DISTRUSTED) if keys.distrusted(rows, made_by) else found

    def _keyring(self) -> tuple[str, ...]:
        named = ("--no-default-keyring", "--keyring", str(self.keyring.absolute())) if self.keyring else ()
        return ("--no-options", *named)


def verifier_for(policy: Policy, environment: Mapping[str, str], home: Path) -> Verifier:
    """What verifies, with the keys that the policy names. Raises CasError where they cannot be had."""
    named = policy.keyring
    if named is None:
        return Verifier(environment=environment)
    return Verifier(environment=environment, keyring=home / named[2:] if named.startswith("~/") else Path(named))

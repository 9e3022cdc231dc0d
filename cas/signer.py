"""The signer: which key signs, and what it says of some bytes. Starts gpg; writes nothing."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType

from cas import gpg, keys
from cas.errors import SigningError
from cas.names import full_fingerprint
from cas.plan import Signing
from cas.verdict import FOR, OF_BYTES, OF_DELIVERY

FLOOR = ("--digest-algo", "SHA512", "--no-textmode")
"""Whatever gpg.conf says."""
UNUSABLE = frozenset("idren")  # invalid, disabled, revoked, expired, not valid
STATES = {"i": "is invalid", "d": "is disabled", "r": "is revoked", "e": "has expired", "n": "is not valid"}
NO_KEY = (
    "list them with: gpg --list-secret-keys; make one with: gpg --quick-generate-key NAME;"
    " or send unsigned, for testing, with --no-sign"
)
ASKS = re.compile(r"No pinentry|Operation cancelled|Inappropriate ioctl|Timeout|No passphrase|pinentry", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """gpg in one environment. `interactive`: a terminal is there, so that a key may ask for its passphrase."""

    environment: Mapping[str, str]
    interactive: bool = False
    program: str = "gpg"
    _rows: dict[str, keys.Rows] = field(default_factory=dict, compare=False, repr=False)
    """What was listed of the keys that have signed: asking costs a process."""

    def fingerprint(self, name: str | None) -> str:
        """The primary fingerprint of the key that `name` means; of the user's default key for None.

        A full fingerprint is taken as it is, without asking gpg. Raises SigningError.
        """
        if name is not None and (whole := full_fingerprint(name)):
            return whole
        names = [name] if name is not None else self._default_names()
        keys = [key for wanted in names for key in self._secret_keys(wanted)]
        if name is None:
            keys = keys or self._secret_keys(None)
        if not keys:
            which = "there is no secret key that can sign" if name is None else f"no secret key `{name}` can sign"
            raise SigningError(which, code="no-key", hint=NO_KEY)
        if name is not None and len(set(keys)) > 1:
            raise SigningError(
                f"`{name}` means several secret keys: {', '.join(keys)}",
                code="ambiguous-key",
                hint="name one by its fingerprint",
            )
        return keys[0]

    def fault(self, fingerprint: str) -> str | None:
        """Why the key cannot sign, in words; None for one that can. Raises SigningError where gpg cannot be asked."""
        rows = self._listing(("--list-secret-keys", "--", fingerprint))
        if fingerprint in _able(rows):
            weakness = keys.weakness(rows, fingerprint)
            return f"is too weak: {weakness}" if weakness else None
        for row, following in pairwise(rows):
            if row[0] == "sec" and following[0] == "fpr" and following[9] == fingerprint:
                return STATES.get(row[1], "cannot sign: it has no key for that which is valid")
        return "is not among the secret keys"

    def signature(self, content: bytes, wanted: Signing) -> bytes:
        """The signature that a delivery needs; with notations for whom and for which delivery it is.

        Receivers that do not know these notations pass them by (RFC 9580, 5.2.3.24). Raises SigningError.
        """
        notations = {FOR: wanted.address, OF_DELIVERY: wanted.identity}
        return self.sign(content, wanted.key, notations)

    def sign(self, content: bytes, fingerprint: str, notations: Mapping[str, str] = MappingProxyType({})) -> bytes:
        """The armoured detached signature of `content` by that key or a subkey of it. Raises SigningError."""
        noted = [word for name, value in notations.items() for word in ("--sig-notation", f"{name}={value}")]
        read, write = os.pipe()
        with open(read, "rb") as status_file:
            try:
                result = self._run(
                    (
                        "--status-fd",
                        str(write),
                        *FLOOR,
                        *noted,
                        "-u",
                        fingerprint,
                        "--detach-sign",
                        "--armor",
                        "-o",
                        "-",
                    ),
                    content=content,
                    keep=(write,),
                )
            finally:
                os.close(write)
            status = gpg.statuses(status_file.read())
        created = [fields for fields in status if fields[:1] == ["SIG_CREATED"] and len(fields) > 6]
        made = [fields[6] for fields in created]
        if len(made) != 1 or not result.stdout.startswith(b"-----BEGIN PGP SIGNATURE-----"):
            raise self._failure(fingerprint, result, status)
        if made[0] != fingerprint and fingerprint not in self._primaries(made[0]):
            raise SigningError(
                f"gpg signed with the key {made[0]}, which is not of `{fingerprint}`",
                code="wrong-key",
                hint="see `default-key` and `local-user` in gpg.conf",
            )
        self._check(created[0], fingerprint)
        return result.stdout

    def _check(self, created: Sequence[str], fingerprint: str) -> None:
        """Raise SigningError for a signature that no receiver with cas would accept. `created`: of SIG_CREATED."""
        _, _, algorithm, hash_, kind, *_ = created
        if hash_ not in keys.STRONG_HASHES or kind != OF_BYTES:
            what = f"a signature of class {kind} with the hash {keys.HASHES.get(hash_, hash_)}"
            hint = "see what gpg.conf says of digests and text mode"
            raise SigningError(f"gpg made {what}", code="unfit-signature", hint=hint)
        if algorithm in keys.MEASURED:
            rows = self._rows.get(created[6])
            if rows is None:
                rows = self._rows[created[6]] = self._listing(("--list-keys", "--", created[6]))
            if weakness := keys.weakness(rows, created[6]):
                words = f"the key {fingerprint} is too weak to sign: {weakness}"
                raise SigningError(words, code="weak-key", hint="use a key of at least 2048 bits, or of ed25519")

    def _default_names(self) -> list[str]:
        """`default-key` of gpg.conf, as gpgconf(1) tells it: field 10, a list, strings opened by a quote."""
        try:
            result = subprocess.run(
                [f"{self.program}conf", "--list-options", "gpg"],
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=gpg.TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return []
        fields = [line.split(":") for line in result.stdout.decode("utf-8", "replace").split("\n")]
        values = [field[9] for field in fields if field[0] == "default-key" and len(field) > 9]
        return [name.lstrip('"') for value in values for name in value.split(",") if name]

    def _secret_keys(self, name: str | None) -> list[str]:
        if name and "\0" in name:  # no argument can hold it, and no key has it
            return []
        names = [] if name is None else ["--", name]
        return _able(self._listing(("--list-secret-keys", *names)))

    def _primaries(self, fingerprint: str) -> list[str]:
        """The primary keys of which this is a key."""
        rows = self._listing(("--list-keys", "--", fingerprint))
        return [row[9] for before, row in pairwise(rows) if before[0] == "pub" and row[0] == "fpr"]

    def _listing(self, arguments: Sequence[str]) -> list[list[str]]:
        return gpg.listing(arguments, self.environment, interactive=self.interactive, program=self.program)

    def _run(
        self, arguments: Sequence[str], *, content: bytes = b"", keep: Sequence[int] = ()
    ) -> subprocess.CompletedProcess[bytes]:
        return gpg.run(
            arguments, self.environment, content=content, keep=keep, interactive=self.interactive, program=self.program
        )

    def _failure(
        self, fingerprint: str, result: subprocess.CompletedProcess[bytes], status: Sequence[Sequence[str]]
    ) -> SigningError:
        words = result.stderr.decode("utf-8", "replace").strip().replace("\n", "; ")
        asked = any(fields[:1] in (["PINENTRY_LAUNCHED"], ["NEED_PASSPHRASE"]) for fields in status)
        if not self.interactive and (asked or ASKS.search(words)):
            hint = f"unlock it on a terminal: echo | gpg -u {fingerprint} --sign -o /dev/null; or sign with another key"
            return SigningError(f"the key {fingerprint} asks for a passphrase: {words}", code="passphrase", hint=hint)
        hint = f"try it: echo | gpg -u {fingerprint} --detach-sign --armor"
        return SigningError(f"gpg did not sign: {words}", code="signing-failed", hint=hint)


def _able(rows: Sequence[Sequence[str]]) -> list[str]:
    """The primary fingerprints of the keys that can sign, in gpg's order (its file doc/DETAILS, colon listings)."""
    found = []
    for row, following in pairwise(rows):
        if row[0] == "sec" and following[0] == "fpr" and row[1] not in UNUSABLE and "S" in row[11]:
            found.append(following[9])
    return found

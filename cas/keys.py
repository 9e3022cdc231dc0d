"""Keys: what gpg's listing says against one that has signed. Pure.

The rows are those of `gpg --with-colons --list-keys` (gpg's file doc/DETAILS). RFC 9580 numbers the algorithms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

LEAST_BITS = 2048
"""Of RSA and DSA, as NIST SP 800-57 and RFC 9580 have it."""
MEASURED = {"1": "RSA", "2": "RSA", "3": "RSA", "17": "DSA"}
"""The algorithms whose strength is that many bits. Curves are strong enough by what they are."""
STRONG_HASHES = frozenset({"8", "9", "10", "12", "14"})  # SHA2-256, 384, 512; SHA3-256, 512
HASHES = {"1": "MD5", "2": "SHA-1", "3": "RIPEMD-160", "11": "SHA-224"}
Rows = Sequence[Sequence[str]]


def weakness(rows: Rows, fingerprint: str) -> str | None:
    """Why a key, or its primary key, is too weak to sign: "RSA of 1024 bits"; None where it is not.

    A weak primary key counts: whoever breaks it can add subkeys.
    """
    for primary, key in _pairs(rows):
        if key[0] == fingerprint:
            for _, row in (primary, key):
                name, bits = MEASURED.get(row[3]), row[2]
                if name and not (bits.isdecimal() and int(bits) >= LEAST_BITS):
                    return f"{name} of {bits} bits"
    return None


def distrusted(rows: Rows, fingerprint: str) -> bool:
    """Whether the user has disabled the key, or gave its owner the trust "never"."""
    return any(
        row[8] == "n" or "D" in row[11] for (_, row), (key, _) in _pairs(rows) if key == fingerprint and len(row) > 11
    )


def _pairs(rows: Rows) -> Iterator[tuple[tuple[str, Sequence[str]], tuple[str, Sequence[str]]]]:
    """Each key with its primary key, by fingerprint and row."""
    primary: tuple[str, Sequence[str]] | None = None
    row: Sequence[str] = ()
    for current in rows:
        if current[0] in ("pub", "sec", "sub", "ssb"):
            row = current
        elif current[0] == "fpr" and row:
            if row[0] in ("pub", "sec"):
                primary = current[9], row
            if primary:
                yield primary, (current[9], row)
            row = ()

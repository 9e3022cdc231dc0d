"""known_hosts: which keys a host may show. Pure; the format is that of sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT".

paramiko's own reader gives up a whole file for one `@revoked` or `@cert-authority` line, and knows no wildcards.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache, partial

REVOKED = "@revoked"
RSA = ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")
HASHED = "|1|"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostKeys:
    """What is known of one host: keys as (type, base64), those that are trusted and those that are revoked."""

    trusted: frozenset[tuple[str, str]]
    revoked: frozenset[tuple[str, str]]


def host_keys(texts: Iterable[str], host: str, port: int) -> HostKeys:
    """All that the files say of `host` at `port`. Lines that cannot be read count for nothing."""
    name = entry(host, port)
    found: dict[str, set[tuple[str, str]]] = {"": set(), REVOKED: set()}
    for lines in map(_lines, texts):
        for line in (*lines.named.get(name, ()), *(line for line in lines.others if line.names(name))):
            found[line.marker].add(line.key)
    return HostKeys(trusted=frozenset(found[""] - found[REVOKED]), revoked=frozenset(found[REVOKED]))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    marker: str
    key: tuple[str, str]
    names: Callable[[str], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lines:
    """A file's: those that name hosts as they are, by each name; and those with patterns or hashes, to be tried."""

    named: dict[str, list[_Line]]
    others: list[_Line]


@lru_cache(maxsize=8)
def _lines(text: str) -> _Lines:
    # Once a file, and not for each host: a run over thousands of hosts has thousands of lines here.
    named: dict[str, list[_Line]] = {}
    others: list[_Line] = []
    for text_line in text.split("\n"):
        marker, fields = _split(text_line)
        if marker not in ("", REVOKED) or len(fields) < 3:
            continue
        patterns = fields[0]
        line = _Line(marker=marker, key=(fields[1], fields[2]), names=_matcher(patterns))
        if any(mark in patterns for mark in "|!*?"):
            others.append(line)
        else:
            for name in patterns.lower().split(","):
                named.setdefault(name, []).append(line)
    return _Lines(named=named, others=others)


def entry(host: str, port: int) -> str:
    """How a host stands there."""
    return host.lower() if port == 22 else f"[{host.lower()}]:{port}"


def hashed_entry(name: str, salt: bytes) -> str:
    """How it stands there where nobody is to read which hosts are known; `salt`: 20 random bytes."""
    return "|".join(("", "1", *(base64.b64encode(part).decode() for part in (salt, _digest(salt, name)))))


def names_are_hashed(setting: str | None, text: str) -> bool:
    """Whether a name is to be hashed: as `HashKnownHosts` says; where it says nothing, as one in the file is."""
    if setting is not None:
        return setting.lower() in ("yes", "true")
    return any(fields[0].startswith(HASHED) for _, fields in map(_split, text.split("\n")) if fields)


def fingerprint(key: str) -> str:
    """The fingerprint of a base64 key, as ssh-keygen -l shows it."""
    try:
        blob = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        return "an unreadable key"
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def algorithms(key_types: Iterable[str]) -> frozenset[str]:
    """The host key algorithms that can show a key of one of these types."""
    return frozenset(name for kind in key_types for name in (RSA if kind == "ssh-rsa" else (kind,)))


def _split(line: str) -> tuple[str, list[str]]:
    fields = line.split()
    if not fields or fields[0].startswith("#"):
        return "#", []
    return (fields[0], fields[1:]) if fields[0].startswith("@") else ("", fields)


def _matcher(patterns: str) -> Callable[[str], bool]:
    if not patterns.startswith(HASHED):
        return partial(_matches, patterns.lower().split(","))
    try:
        salt, expected = (base64.b64decode(part, validate=True) for part in patterns.split("|")[2:4])
    except (binascii.Error, ValueError):
        return lambda _: False
    return partial(_is_hash, salt, expected)


def _matches(patterns: Sequence[str], name: str) -> bool:
    if any(_fits(pattern[1:], name) for pattern in patterns if pattern.startswith("!")):
        return False
    return any(_fits(pattern, name) for pattern in patterns)


def _fits(pattern: str, name: str) -> bool:
    """`*` and `?` only: brackets stand for themselves, as in `[host]:port`."""
    return fnmatchcase(name, pattern.replace("[", "[[]"))


def _is_hash(salt: bytes, expected: bytes, name: str) -> bool:
    return hmac.compare_digest(_digest(salt, name), expected)


def _digest(salt: bytes, name: str) -> bytes:
    return hmac.digest(salt, name.encode(), "sha1")

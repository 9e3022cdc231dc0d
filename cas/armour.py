"""Armour: a signature file's bytes into the one signature packet in it, or into the verdict on what they are. Pure.

The file is foreign input, and gpg takes more from one than a signature: keys, messages, several of each. So gpg gets
that one packet and nothing else. Headers and lengths of packets are those of RFC 9580, 4.2, and RFC 4880 before it.
"""

from __future__ import annotations

import binascii
import re

from cas.verdict import State, Verdict

BEGIN = b"-----BEGIN PGP SIGNATURE-----"
END = b"-----END PGP SIGNATURE-----"
OTHER = re.compile(rb"-----BEGIN (PGP (?:MESSAGE|SIGNED MESSAGE|PUBLIC KEY BLOCK|PRIVATE KEY BLOCK))-----")
CHECKSUM = re.compile(rb"=[A-Za-z0-9+/]{4}")
"""Not looked at, as RFC 9580, 6.1 wants it: what is damaged does not verify."""
SIGNATURE = 2
TAGS = {
    SIGNATURE: "a signature",
    4: "a one-pass signature",
    5: "a secret key",
    6: "a public key",
    8: "compressed data",
    11: "literal data",
    13: "a user's name",
}
ALONE = "and not one detached signature alone"


def packet(content: bytes) -> bytes | Verdict:
    """The signature packet, its header included."""
    text = content.strip()
    lines = [line.rstrip() for line in text.split(b"\n")]
    if not text:
        return _unreadable("it is empty")
    if lines[0] != BEGIN:
        return _unreadable(_otherwise(lines))
    if END not in lines:
        return _unreadable("it is cut off")
    end = lines.index(END)
    if rest := lines[end + 1 :]:
        return Verdict(state=State.SEVERAL) if BEGIN in rest else _unreadable("it holds more than a signature")
    data = _bytes(lines[1:end])
    return _unreadable("it is damaged") if data is None else _alone(data)


def _otherwise(lines: list[bytes]) -> str:
    """What a file is that does not begin as a signature does."""
    if other := OTHER.fullmatch(lines[0]):
        return f"it holds a `{other[1].decode()}`, {ALONE}"
    if len(lines) == 1 and BEGIN.startswith(lines[0]):
        return "it is cut off"
    return f"it does not begin with `{BEGIN.decode()}`"


def _bytes(lines: list[bytes]) -> bytes | None:
    """What stands in the lines of an armour: its headers, an empty line, base64, and perhaps a checksum."""
    if b"" not in lines:
        return None
    body = lines[lines.index(b"") + 1 :]
    if body and CHECKSUM.fullmatch(body[-1]):
        body.pop()
    try:
        return binascii.a2b_base64(b"".join(body), strict_mode=True)
    except binascii.Error:
        return None


def _alone(data: bytes) -> bytes | Verdict:
    tag, end = _packet_at(data)
    if tag is None:
        return _unreadable("it is damaged")
    if tag != SIGNATURE:
        return _unreadable(f"it holds {_named(tag)}, {ALONE}")
    if end is None:
        return _unreadable("it does not say how long it is")
    if end > len(data):
        return _unreadable("it is cut off")
    if rest := data[end:]:
        beside, _ = _packet_at(rest)
        if beside == SIGNATURE:
            return Verdict(state=State.SEVERAL)
        return _unreadable(f"it holds {'something' if beside is None else _named(beside)} beside a signature")
    return data


def _packet_at(data: bytes) -> tuple[int | None, int | None]:
    """The tag of the packet that some bytes begin with, and where it ends; None for what is not said.

    Where bytes of its length are missing, the end lies behind the end of all.
    """
    first, length = int.from_bytes(data[:1]), int.from_bytes(data[1:2])
    if not first & 0x80:
        return None, None
    if not first & 0x40:  # the older form: two bits say how long the length is
        size = 1 << (first & 3)
        return first >> 2 & 0x0F, None if size == 8 else 1 + size + int.from_bytes(data[1 : 1 + size])
    tag = first & 0x3F
    if length < 192:
        return tag, 2 + length
    if length < 224:
        return tag, 3 + (length - 192 << 8) + int.from_bytes(data[2:3]) + 192
    return tag, 6 + int.from_bytes(data[2:6]) if length == 255 else None  # else it comes in parts


def _named(tag: int) -> str:
    return TAGS.get(tag, f"a packet with the tag {tag}")


def _unreadable(why: str) -> Verdict:
    return Verdict(state=State.UNREADABLE, why=why)

"""Of what is to be a signature, one packet comes through, or it is told what stands there instead."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cas.armour import BEGIN, END, packet
from cas.verdict import State, Verdict

BODY = b"\x04\x00\x16\x0a" + b"x" * 200
SHORT = b"\x04\x00"
SIGNATURE = b"\x88\x02" + SHORT
PUBLIC_KEY = b"\xc6\x02ab"


def armoured(data: bytes, *headers: bytes, checksum: bytes = b"=AAAA") -> bytes:
    text = base64.b64encode(data)
    body = [text[at : at + 64] for at in range(0, len(text), 64)]
    return b"\n".join([BEGIN, *headers, b"", *body, checksum, END, b""])


def why(content: bytes) -> str | None:
    found = packet(content)
    assert isinstance(found, Verdict)
    assert found.state is State.UNREADABLE
    return found.why


@pytest.mark.parametrize(
    "data",
    [
        SIGNATURE,
        b"\x88\xcc" + BODY,
        b"\x89\x00\xcc" + BODY,
        b"\x8a\x00\x00\x00\xcc" + BODY,
        b"\xc2\x02" + SHORT,
        b"\xc2\xc0\x0c" + BODY,
        b"\xc2\xff\x00\x00\x00\xcc" + BODY,
    ],
)
def test_a_signature_comes_through_whichever_way_its_length_is_said(data: bytes):
    assert packet(armoured(data)) == data


def test_headers_line_ends_and_a_missing_checksum_make_no_difference():
    content = armoured(SIGNATURE, b"Version: GnuPG v2", b"Comment: a")

    assert packet(content.replace(b"\n", b"\r\n")) == SIGNATURE
    assert packet(b"\n" + content.replace(b"=AAAA\n", b"") + b"\n \n") == SIGNATURE


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b" \n\n", "it is empty"),
        (b"x", "it does not begin with `-----BEGIN PGP SIGNATURE-----`"),
        (SIGNATURE, "it does not begin with `-----BEGIN PGP SIGNATURE-----`"),
        (b"Hello\n" + armoured(SIGNATURE), "it does not begin with `-----BEGIN PGP SIGNATURE-----`"),
        (b"-----BEGIN PGP MESSAGE-----\n\n=", "it holds a `PGP MESSAGE`, and not one detached signature alone"),
        (
            b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nHello\n" + armoured(SIGNATURE),
            "it holds a `PGP SIGNED MESSAGE`, and not one detached signature alone",
        ),
        (armoured(SIGNATURE) + b"Hello\n", "it holds more than a signature"),
        (armoured(PUBLIC_KEY), "it holds a public key, and not one detached signature alone"),
        (armoured(b"\x90\x02ab"), "it holds a one-pass signature, and not one detached signature alone"),
        (armoured(b"\xa3"), "it holds compressed data, and not one detached signature alone"),
        (armoured(b"\xca\x03PGP"), "it holds a packet with the tag 10, and not one detached signature alone"),
        (armoured(SIGNATURE + PUBLIC_KEY), "it holds a public key beside a signature"),
        (armoured(SIGNATURE + b"junk"), "it holds something beside a signature"),
        (armoured(b"\x8b" + SHORT), "it does not say how long it is"),
        (armoured(b"\xc2\xe1" + SHORT), "it does not say how long it is"),
        (armoured(b""), "it is damaged"),
        (armoured(b"junk"), "it is damaged"),
        (armoured(SIGNATURE).replace(b"\n\n", b"\n"), "it is damaged"),
        (armoured(SIGNATURE).replace(b"iAIE", b"iA*E"), "it is damaged"),
    ],
)
def test_what_is_not_one_signature_alone_is_told_for_what_it_is(content: bytes, words: str):
    assert why(content) == words


def test_several_signatures_are_told_in_one_block_or_in_two():
    assert packet(armoured(SIGNATURE * 2)) == Verdict(state=State.SEVERAL)
    assert packet(armoured(SIGNATURE) * 2) == Verdict(state=State.SEVERAL)


@pytest.mark.parametrize("length", range(1, len(armoured(b"\x88\xcc" + BODY)) - 1))
def test_a_file_that_was_cut_off_anywhere_is_told_as_that(length: int):
    assert why(armoured(b"\x88\xcc" + BODY)[:length]) == "it is cut off"


@pytest.mark.parametrize("data", [b"\x88\xcc" + BODY, b"\xc2\xc0\x0c" + BODY, b"\xc2\xff\x00\x00\x00\xcc" + BODY])
def test_a_packet_that_ends_before_its_length_is_told_as_cut_off(data: bytes):
    assert {why(armoured(data[:length])) for length in range(1, len(data))} == {"it is cut off"}


@settings(deadline=None)
@given(st.one_of(st.binary(), st.lists(st.sampled_from([BEGIN, END, b"", b"=AAAA", b"iAIE", b"AA==", b"x: y"]))))
def test_whatever_stands_there_it_is_a_signature_packet_or_a_verdict(content: bytes | list[bytes]):
    found = packet(content if isinstance(content, bytes) else b"\n".join(content))

    assert found[0] & 0x80 if isinstance(found, bytes) else found.state in (State.SEVERAL, State.UNREADABLE)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 63), st.binary(max_size=191)), max_size=4), st.binary(max_size=3))
def test_of_any_packets_only_a_signature_that_is_alone_comes_through(packets: list[tuple[int, bytes]], rest: bytes):
    data = b"".join(bytes([0xC0 | tag, len(body)]) + body for tag, body in packets) + rest

    found = packet(armoured(data))

    alone = [tag for tag, _ in packets] == [2] and not rest
    assert (found == data) if alone else isinstance(found, Verdict)

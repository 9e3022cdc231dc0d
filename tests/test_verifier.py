"""Verifying with real gpg: whose signature it is, and whether it still counts."""

from __future__ import annotations

import os
import subprocess
import tempfile
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cas.armour import packet
from cas.errors import SigningError
from cas.loopback import Key, throwaway_key
from cas.signer import Signer
from cas.verdict import State
from cas.verifier import LARGEST, Verifier

MESSAGE = b"* Hello\n"


@pytest.fixture
def own() -> Iterator[Key]:
    """A key that a test may spoil."""
    with tempfile.TemporaryDirectory(prefix="cas-") as folder, throwaway_key(Path(folder) / "g") as key:
        yield key


def environment(key: Key) -> dict[str, str]:
    return {**os.environ, "GNUPGHOME": str(key.gnupghome)}


def gpg(key: Key, *words: str, content: bytes = b"") -> bytes:
    command = ("gpg", "--batch", "--no-tty", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "", *words)
    return subprocess.run(command, input=content, env=environment(key), check=True, capture_output=True).stdout


def signed(key: Key, *words: str) -> bytes:
    return gpg(key, *words, "-u", key.fingerprint, "--armor", "--detach-sign", content=MESSAGE)


@cache
def signed_once(key: Key) -> bytes:
    return signed(key)


def armoured(data: bytes) -> bytes:
    """Any packets in the armour of a signature."""
    made = subprocess.run(("gpg", "--batch", "--enarmor"), input=data, check=True, capture_output=True).stdout
    return made.replace(b"PGP ARMORED FILE", b"PGP SIGNATURE")


def state(key: Key, signature: bytes, content: bytes = MESSAGE) -> State:
    return Verifier(environment=environment(key)).verdict(content, signature).state


def test_a_good_signature_is_that_of_its_primary_key(throwaway: Key):
    signature = Signer(environment=environment(throwaway)).sign(MESSAGE, throwaway.fingerprint)

    found = Verifier(environment=environment(throwaway)).verdict(MESSAGE, signature)

    assert (found.state, found.key) == (State.GOOD, throwaway.fingerprint)


@pytest.mark.threat("message author", "change a signed message")
def test_other_bytes_than_those_that_were_signed_are_told(throwaway: Key):
    signature = signed(throwaway)

    assert state(throwaway, signature, MESSAGE + b"\n") is State.BAD
    assert state(throwaway, signature, b"x" * 3_000_000) is State.BAD


def test_what_is_no_signature_is_told(throwaway: Key):
    assert state(throwaway, b"") is State.UNREADABLE
    assert state(throwaway, b"not a signature\n") is State.UNREADABLE
    assert state(throwaway, b"x" * (LARGEST + 1)) is State.UNREADABLE


@pytest.mark.threat("message author", "hide a signature that does not count behind one that does")
def test_of_two_signatures_nobody_can_say_which_counts(throwaway: Key):
    assert state(throwaway, signed(throwaway) + signed(throwaway)) is State.SEVERAL
    one_block = gpg(throwaway, "--dearmor", content=signed(throwaway)) * 2
    assert state(throwaway, armoured(one_block)) is State.SEVERAL


def test_a_signature_around_its_own_message_does_not_count_for_these_bytes(throwaway: Key):
    whole = gpg(throwaway, "-u", throwaway.fingerprint, "--armor", "--sign", content=b"other")

    assert state(throwaway, whole) is not State.GOOD


@pytest.mark.parametrize(
    "beside",
    [
        "a key after it",
        "a key before it",
        "a key in its block",
        "a message after it",
        "a message before it",
        "a marker in its block",
        "text after it",
        "no armour",
        "another armour",
        "the armour of a key",
        "compressed",
        "a message around it",
        "a text around it",
    ],
)
def test_a_good_signature_with_anything_beside_it_does_not_count(throwaway: Key, beside: str):
    signature, key = signed(throwaway), gpg(throwaway, "--armor", "--export")
    bare = gpg(throwaway, "--dearmor", content=signature)
    text = gpg(throwaway, "-u", throwaway.fingerprint, "--clear-sign", content=MESSAGE)
    content = {
        "a key after it": signature + key,
        "a key before it": key + signature,
        "a key in its block": armoured(bare + gpg(throwaway, "--export")),
        "a message after it": signature + text,
        "a message before it": text + signature,
        "a marker in its block": armoured(b"\xca\x03PGP" + bare),
        "text after it": signature + b"more\n",
        "no armour": bare,
        "another armour": signature.replace(b"PGP SIGNATURE", b"PGP MESSAGE"),
        "the armour of a key": signature.replace(b"PGP SIGNATURE", b"PGP PUBLIC KEY BLOCK"),
        "compressed": armoured(b"\xa3\x02" + zlib.compress(bare)),
        "a message around it": gpg(throwaway, "-u", throwaway.fingerprint, "--armor", "--sign", content=MESSAGE),
        "a text around it": text,
    }[beside]

    assert state(throwaway, signature) is State.GOOD
    assert state(throwaway, content) in (State.UNREADABLE, State.SEVERAL)


def test_no_key_is_taken_out_of_a_signature_whatever_gpgs_configuration_says(throwaway: Key, own: Key):
    bringing = signed(throwaway, "--include-key-block")
    (own.gnupghome / "gpg.conf").write_text("auto-key-import\n", encoding="utf-8")

    assert state(own, bringing) is State.UNKNOWN_KEY
    assert throwaway.fingerprint.encode() not in gpg(own, "--list-keys", "--with-colons")
    assert state(throwaway, bringing) is State.GOOD


def test_no_key_is_fetched_from_the_network_whatever_gpgs_configuration_says(throwaway: Key, own: Key, tmp_path: Path):
    asked = tmp_path / "asked"
    program = tmp_path / "dirmngr"
    program.write_text(f"#!/bin/sh\ntouch {asked}\nexit 1\n", encoding="utf-8")
    program.chmod(0o755)
    lines = ("auto-key-retrieve", "keyserver-options auto-key-retrieve", "auto-key-locate wkd,keyserver")
    conf = "\n".join((*lines, "keyserver hkp://127.0.0.1:1", f"dirmngr-program {program}", ""))
    (own.gnupghome / "gpg.conf").write_text(conf, encoding="utf-8")
    signature = tmp_path / "signature"
    signature.write_bytes(signed(throwaway, "--sig-keyserver-url", "hkp://127.0.0.1:1", "--sender", "a@127.0.0.1"))

    assert state(own, signature.read_bytes()) is State.UNKNOWN_KEY
    assert not asked.exists()
    words = ("gpg", "--batch", "--no-tty", "--verify", str(signature), "-")
    subprocess.run(words, input=MESSAGE, env=environment(own), check=False, capture_output=True)
    assert asked.exists()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_damaged_signature_counts_only_while_it_is_one_packet_of_that_key(throwaway: Key, data: st.DataObject):
    signature = signed_once(throwaway)
    damaged = bytearray(signature)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))

    found = Verifier(environment=environment(throwaway)).verdict(MESSAGE, bytes(damaged))

    assert found.state is not State.NONE
    if found.good:  # what a signature does not cover may have changed: what surrounds it, and hints to the key
        assert isinstance(packet(bytes(damaged)), bytes)
        assert found.key == throwaway.fingerprint


def test_a_key_that_is_not_known_here_is_named(throwaway: Key, own: Key):
    found = Verifier(environment=environment(own)).verdict(MESSAGE, signed(throwaway))

    assert (found.state, found.key) == (State.UNKNOWN_KEY, throwaway.fingerprint)


def test_a_key_that_has_expired_since_is_told(own: Key):
    signature = signed(own)
    gpg(own, "--quick-set-expire", own.fingerprint, "seconds=1")
    while state(own, signature) is State.GOOD:
        pass

    assert state(own, signature) is State.EXPIRED_KEY


def test_a_key_that_was_revoked_since_is_told(own: Key):
    signature = signed(own)
    made = own.gnupghome / "openpgp-revocs.d" / f"{own.fingerprint}.rev"
    gpg(own, "--import", content=made.read_bytes().replace(b":-----BEGIN", b"-----BEGIN"))

    assert state(own, signature) is State.REVOKED_KEY


def test_a_signature_that_has_expired_is_told(own: Key):
    signature = signed(own, "--default-sig-expire", "seconds=1")
    while state(own, signature) is State.GOOD:
        pass

    assert state(own, signature) is State.EXPIRED


def test_without_gpg_nothing_is_said(throwaway: Key):
    with pytest.raises(SigningError, match="not installed"):
        Verifier(environment=environment(throwaway), program="no-such-program").verdict(MESSAGE, signed(throwaway))

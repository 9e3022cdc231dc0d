"""Verifying with real gpg: whose signature it is, and whether it still counts."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

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


def state(key: Key, signature: bytes, content: bytes = MESSAGE) -> State:
    return Verifier(environment=environment(key)).verdict(content, signature).state


def test_a_good_signature_is_that_of_its_primary_key(throwaway: Key):
    signature = Signer(environment=environment(throwaway)).sign(MESSAGE, throwaway.fingerprint)

    found = Verifier(environment=environment(throwaway)).verdict(MESSAGE, signature)

    assert (found.state, found.key) == (State.GOOD, throwaway.fingerprint)


def test_other_bytes_than_those_that_were_signed_are_told(throwaway: Key):
    signature = signed(throwaway)

    assert state(throwaway, signature, MESSAGE + b"\n") is State.BAD
    assert state(throwaway, signature, b"x" * 3_000_000) is State.BAD


def test_what_is_no_signature_is_told(throwaway: Key):
    assert state(throwaway, b"") is State.NONE
    assert state(throwaway, b"not a signature\n") is State.NONE
    assert state(throwaway, b"x" * (LARGEST + 1)) is State.UNREADABLE


def test_of_two_signatures_nobody_can_say_which_counts(throwaway: Key):
    assert state(throwaway, signed(throwaway) + signed(throwaway)) is State.SEVERAL
    one_block = gpg(throwaway, "--dearmor", content=signed(throwaway)) + gpg(
        throwaway, "--dearmor", content=signed(throwaway)
    )
    assert state(throwaway, one_block) is State.SEVERAL


def test_a_signature_around_its_own_message_does_not_count_for_these_bytes(throwaway: Key):
    whole = gpg(throwaway, "-u", throwaway.fingerprint, "--armor", "--sign", content=b"other")

    assert state(throwaway, whole) is not State.GOOD


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
        Verifier(environment=environment(throwaway), program="no-such-program").verdict(MESSAGE, b"x")

"""Signatures have a floor: strong hashes, over bytes, by strong keys that the user trusts, for listed senders."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support import Home, Run, message

from cas import keys
from cas.arrival import Trust, trust
from cas.loopback import Key, end_agent, throwaway_key
from cas.names import canonical_name
from cas.verdict import State, Verdict

Cas = Callable[..., Run]
TIME = datetime(2026, 11, 23, 9, 12, 58, tzinfo=UTC)


def gpg(*words: str, content: bytes = b"") -> bytes:
    command = ("gpg", "--batch", "--no-tty", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "", *words)
    return subprocess.run(command, input=content, check=True, capture_output=True).stdout


def new_key(name: str, algorithm: str) -> str:
    gpg("--quick-generate-key", name, algorithm, "sign", "never")
    rows = gpg("--with-colons", "--list-secret-keys", name).decode().split("\n")
    return next(row.split(":")[9] for row in rows if row.startswith("fpr"))


@pytest.fixture
def ring(tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Key]:
    """A keyring that a test may spoil, with one key in it; GNUPGHOME names it."""
    with throwaway_key(home.path / "g") as key:
        monkeypatch.setenv("GNUPGHOME", str(key.gnupghome))
        yield key
        end_agent(key.gnupghome)


def arrived(home: Home, key: str, *words: str, sender: str = "alice", sequence: int = 1) -> Path:
    """A message in the inbox of `docs`, signed with these options of gpg."""
    inbox = home.inbox("docs")
    inbox.mkdir(parents=True, exist_ok=True)
    path = message(inbox / canonical_name(TIME, sender, "greeting"), sequence=sequence)
    signature = gpg("-u", key, *words, "--armor", "--detach-sign", "-o", "-", str(path))
    Path(f"{path}.asc").write_bytes(signature)
    return path


def verdict_of(cas: Cas, path: Path) -> tuple[int, str, str]:
    """The exit code of `cas verify`, and what it says of signature and trust, as `cas inbox` and `cas read` do."""
    run = cas("verify", "--output", "json", path)
    told = json.loads(run.out)["messages"][0]
    read = json.loads(cas("read", "--output", "json", path).out)
    listed = json.loads(cas("inbox", "docs", "--output", "json").out)["conversations"][0]["messages"]
    (one,) = (one for one in listed if one["path"] == str(path))
    assert one["signature"] == told["signature"] == read["signature"]
    assert one["trust"] == told["trust"] == read["trust"]
    return run.code, told["signature"], told["trust"]


# Hashes and classes


@pytest.mark.threat("message author", "have a signature with a weak hash accepted")
@pytest.mark.parametrize("hash_", ["MD5", "SHA1", "RIPEMD160", "SHA224"])
def test_a_weak_hash_does_not_count(cas: Cas, home: Home, ring: Key, hash_: str):
    (ring.gnupghome / "gpg.conf").write_text("allow-weak-digest-algos\n", encoding="utf-8")
    path = arrived(home, ring.fingerprint, "--digest-algo", hash_, "--allow-weak-digest-algos")

    assert verdict_of(cas, path) == (1, "weak-signature", "none")


@pytest.mark.parametrize("hash_", ["SHA256", "SHA384", "SHA512"])
def test_a_strong_hash_counts(cas: Cas, home: Home, ring: Key, hash_: str):
    path = arrived(home, ring.fingerprint, "--digest-algo", hash_)

    assert verdict_of(cas, path) == (0, "good", "signed")


@pytest.mark.threat("message author", "change the line ends of a signed message")
def test_a_signature_of_text_does_not_count(cas: Cas, home: Home, ring: Key):
    path = arrived(home, ring.fingerprint, "--textmode")
    assert verdict_of(cas, path) == (1, "text-signature", "none")

    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))

    assert verdict_of(cas, path)[0] == 1


# Keys


@pytest.mark.threat("message author", "have a key that is too weak, disabled or distrusted accepted")
@pytest.mark.parametrize("algorithm", ["rsa1024", "dsa1024"])
def test_a_weak_key_does_not_count(cas: Cas, home: Home, ring: Key, algorithm: str):
    weak = new_key("weak", algorithm)

    path = arrived(home, weak, "--digest-algo", "SHA256")

    assert verdict_of(cas, path) == (1, "weak-key", "none")


@pytest.mark.parametrize("algorithm", ["rsa2048", "dsa2048", "nistp256"])
def test_a_strong_key_counts(cas: Cas, home: Home, ring: Key, algorithm: str):
    path = arrived(home, new_key("strong", algorithm))

    assert verdict_of(cas, path) == (0, "good", "signed")


def test_a_weak_primary_key_spoils_its_subkeys(cas: Cas, home: Home, ring: Key):
    weak = new_key("weak", "rsa1024")
    gpg("--quick-add-key", weak, "ed25519", "sign")

    assert verdict_of(cas, arrived(home, weak)) == (1, "weak-key", "none")


@pytest.mark.parametrize("how", ["disable", "never"])
def test_a_key_that_the_user_distrusts_does_not_count(cas: Cas, home: Home, ring: Key, how: str):
    path = arrived(home, ring.fingerprint)
    assert verdict_of(cas, path)[0] == 0
    if how == "disable":
        commands = b"disable\nsave\n"
        gpg("--command-fd", "0", "--edit-key", ring.fingerprint, content=commands)
    else:
        gpg("--import-ownertrust", content=f"{ring.fingerprint}:3:\n".encode())

    assert verdict_of(cas, path) == (1, "untrusted-key", "none")


# Signing


@pytest.mark.parametrize("line", ["digest-algo SHA1", "textmode", "personal-digest-preferences SHA1"])
def test_gpgs_configuration_cannot_weaken_what_is_signed(cas: Cas, home: Home, ring: Key, line: str):
    (ring.gnupghome / "gpg.conf").write_text(f"{line}\n", encoding="utf-8")
    message("hello.org", body="* one\n* two\n")

    assert cas("send", "local.docs", "hello.org").code == 0

    (path,) = home.inbox("docs").glob("*.org")
    packets = gpg("--list-packets", f"{path}.asc").decode()
    assert "digest algo 10" in packets
    assert "sigclass 0x00" in packets
    assert verdict_of(cas, path)[:2] == (0, "good")


@pytest.mark.parametrize("algorithm", ["rsa1024", "dsa1024"])
def test_a_weak_key_does_not_sign(cas: Cas, home: Home, ring: Key, algorithm: str):
    weak = new_key("weak", algorithm)
    message("hello.org")

    run = cas("send", "local.docs", "hello.org", "--key", weak)

    assert run.code == 1
    assert f"is too weak to sign: {algorithm[:3].upper()} of 1024 bits" in run.err
    assert not list(home.path.rglob("*.org.asc"))


def test_a_gpg_that_weakens_what_it_was_asked_for_is_not_believed(
    cas: Cas, home: Home, ring: Key, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Such as a wrapper around gpg in PATH."""
    program = tmp_path / "gpg"
    weakened = 'for word; do shift; [ "$word" = SHA512 ] && word=SHA1; set -- "$@" "$word"; done'
    program.write_text(f'#!/bin/sh\n{weakened}\nexec {shutil.which("gpg")} "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    message("hello.org")

    run = cas("send", "local.docs", "hello.org")

    assert run.code == 1
    assert "gpg made a signature of class 00 with the hash SHA-1" in run.err
    assert not list(home.path.rglob("*.org.asc"))


def test_a_plan_that_signs_with_a_weak_key_is_refused(cas: Cas, home: Home, ring: Key):
    weak = new_key("weak", "rsa1024")
    message("hello.org")
    text = f"cas: 1\nsends:\n  - {{id: a, destination: local.docs, message: hello.org, sign: {{key: {weak}}}}}\n"
    Path("m.yaml").write_text(text, encoding="utf-8")
    assert cas("plan", "-o", "p", "m.yaml").code == 0

    run = cas("apply", "p")

    assert run.code == 6
    assert "is too weak: RSA of 1024 bits" in run.err


# Senders


@pytest.mark.threat("message author", "be trusted as a sender that [senders] does not list")
def test_a_list_of_senders_is_exhaustive(cas: Cas, home: Home, ring: Key):
    alice = arrived(home, ring.fingerprint, sender="alice")
    bob = arrived(home, ring.fingerprint, sender="bob", sequence=2)
    home.peers("")
    assert verdict_of(cas, bob) == (0, "good", "signed")

    home.peers(f'[senders.alice]\nkeys = ["{ring.fingerprint}"]\n')

    assert verdict_of(cas, alice) == (0, "good", "sender")
    assert verdict_of(cas, bob) == (1, "good", "untrusted-sender")
    watched = cas("watch", "docs", "--timeout", "0s", "--output", "jsonl").out.splitlines()
    assert [json.loads(line)["trust"] for line in watched] == ["sender", "untrusted-sender"]


def test_the_policy_opens_or_closes_the_list(cas: Cas, home: Home, ring: Key):
    bob = arrived(home, ring.fingerprint, sender="bob")
    home.peers(f'[policy]\nsenders = "any"\n[senders.alice]\nkeys = ["{ring.fingerprint}"]\n')
    assert verdict_of(cas, bob) == (0, "good", "signed")

    home.peers('[policy]\nsenders = "listed"\n')

    assert verdict_of(cas, bob) == (1, "good", "untrusted-sender")


def test_a_message_whose_sender_cannot_be_told_is_not_trusted_where_a_list_is():
    good = Verdict(state=State.GOOD, key="A" * 40)

    assert trust(good, None, {}, only_listed=True) is Trust.UNTRUSTED
    assert trust(good, None, {}, only_listed=False) is Trust.SIGNED


# A keyring of one's own


def test_only_the_keys_of_the_policys_keyring_count(cas: Cas, home: Home, ring: Key):
    other = new_key("other", "ed25519")
    mine = arrived(home, ring.fingerprint, sender="alice")
    foreign = arrived(home, other, sender="bob", sequence=2)
    (home.path / "agents.gpg").write_bytes(gpg("--export", ring.fingerprint))
    home.peers('[policy]\nkeyring = "~/agents.gpg"\n')

    assert verdict_of(cas, mine) == (0, "good", "signed")
    assert verdict_of(cas, foreign) == (1, "unknown-key", "none")
    (home.path / "agents.gpg").unlink()
    assert "error[no-keyring]" in cas("verify", mine).err


def test_a_listing_of_several_keys_is_read_key_by_key():
    def row(kind: str, bits: str, algorithm: str, trusted: str = "-", abilities: str = "scSC") -> list[str]:
        return [kind, "u", bits, algorithm, "", "", "", "", trusted, "", "", abilities]

    def fpr(name: str) -> list[str]:
        return ["fpr", *[""] * 8, name]

    rows = [
        ["tru"],
        fpr("lost"),
        [*row("pub", "255", "22")],
        fpr("A"),
        [*row("sub", "1024", "1")],
        fpr("B"),
        ["uid"],
        [*row("pub", "4096", "1", trusted="n")],
        fpr("C"),
        [*row("pub", "x", "17", abilities="scSCD")],
        fpr("D"),
    ]

    assert [keys.weakness(rows, name) for name in "ABCD"] == [None, "RSA of 1024 bits", None, "DSA of x bits"]
    assert [keys.distrusted(rows, name) for name in "ABCD"] == [False, False, True, True]
    assert keys.weakness(rows, "Z") is None

"""Signing with real gpg: which key, and what is said when it cannot be."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import Home

from cas.errors import SigningError
from cas.loopback import end_agent
from cas.signer import Signer


@pytest.fixture
def keyring(home: Home, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty keyring of the test's own, where agents' sockets have room."""
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="cas-", dir="/tmp"))
    monkeypatch.setenv("GNUPGHOME", str(folder))
    yield folder
    end_agent(folder)
    shutil.rmtree(folder, ignore_errors=True)


def gpg(*words: str) -> str:
    command = ("gpg", "--batch", "--no-tty", "--quiet", "--status-fd", "1", *words)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def new_key(name: str, *, passphrase: str = "", usage: str = "sign", expires: str = "never") -> str:
    words = gpg(
        "--pinentry-mode", "loopback", "--passphrase", passphrase, "--quick-gen-key", name, "ed25519", usage, expires
    )
    return next(line.split()[3] for line in words.split("\n") if "KEY_CREATED" in line)


def signer(**options: object) -> Signer:
    return Signer(environment=dict(os.environ), **options)


def test_the_default_key_is_the_first_that_can_sign(keyring: Path):
    first = new_key("first <a@x>")
    new_key("second <b@x>")

    assert signer().fingerprint(None) == first


def test_the_default_key_of_gpgs_configuration_counts(keyring: Path):
    new_key("first <a@x>")
    second = new_key("second <b@x>")
    (keyring / "gpg.conf").write_text(f"default-key {second}\n")

    assert signer().fingerprint(None) == second


def test_a_full_fingerprint_is_taken_without_asking_gpg(home: Home):
    assert Signer(environment={}, program="no-such-program").fingerprint("a" * 40) == "A" * 40


def test_a_name_means_the_key_that_has_it(keyring: Path):
    new_key("first <a@x>")
    second = new_key("second <b@x>")

    assert signer().fingerprint("b@x") == second
    assert signer().fingerprint(second[-16:]) == second


def test_a_name_of_several_keys_is_refused_and_lists_them(keyring: Path):
    keys = [new_key("one <a@x>"), new_key("two <a@x>")]

    with pytest.raises(SigningError) as refused:
        signer().fingerprint("a@x")

    assert all(key in str(refused.value) for key in keys)


@pytest.mark.parametrize("name", ["nobody@x", "--version", "-", "", "@", "*"])
def test_a_name_that_no_key_has_is_refused(keyring: Path, name: str):
    new_key("first <a@x>")

    with pytest.raises(SigningError):
        signer().fingerprint(name if name not in ("", "@", "*") else "zzz" + name)


def test_a_revoked_key_is_not_the_default(keyring: Path):
    first = new_key("first <a@x>")
    second = new_key("second <b@x>")
    certificate = (keyring / "openpgp-revocs.d" / f"{first}.rev").read_text().replace(":-----BEGIN", "-----BEGIN")
    subprocess.run(["gpg", "--batch", "--quiet", "--import"], input=certificate, text=True, check=True)

    assert signer().fingerprint(None) == second


def test_an_expired_key_is_not_the_default(keyring: Path):
    words = ("--faked-system-time", "20200101T000000!", "--pinentry-mode", "loopback", "--passphrase", "")
    gpg(*words, "--quick-gen-key", "old <a@x>", "ed25519", "sign", "1d")
    second = new_key("second <b@x>")

    assert signer().fingerprint(None) == second


def test_a_signature_is_made_by_that_key(keyring: Path):
    key = new_key("first <a@x>")
    Path("m").write_bytes(b"bytes")

    Path("m.asc").write_bytes(signer().sign(b"bytes", key))

    assert f"VALIDSIG {key}" in gpg("--verify", "m.asc", "m")


def test_a_subkey_signs_for_its_primary_key(keyring: Path):
    key = new_key("first <a@x>", usage="cert")
    gpg("--pinentry-mode", "loopback", "--passphrase", "", "--quick-add-key", key, "ed25519", "sign", "never")

    assert signer().fingerprint(None) == key
    assert signer().sign(b"bytes", key).startswith(b"-----BEGIN PGP SIGNATURE-----")


def test_a_key_that_is_not_there_is_an_error_in_gpgs_words(keyring: Path):
    new_key("first <a@x>")

    with pytest.raises(SigningError, match="No secret key"):
        signer().sign(b"bytes", "A" * 40)


def test_a_key_that_asks_for_a_passphrase_fails_at_once(keyring: Path):
    key = new_key("first <a@x>", passphrase="secret")
    end_agent(keyring)  # which still knows it

    before = time.monotonic()
    with pytest.raises(SigningError) as refused:
        signer().sign(b"bytes", key)

    assert refused.value.code == "passphrase"
    assert time.monotonic() - before < 5


def test_without_gpg_it_says_so(home: Home):
    with pytest.raises(SigningError, match="not installed"):
        Signer(environment=dict(os.environ), program="no-such-gpg").sign(b"bytes", "A" * 40)


def test_exit_code_0_without_a_signature_is_no_signature(home: Home, tmp_path: Path):
    (tmp_path / "gpg").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "gpg").chmod(0o755)

    with pytest.raises(SigningError, match="did not sign"):
        Signer(environment=dict(os.environ), program=str(tmp_path / "gpg")).sign(b"bytes", "A" * 40)


def test_a_send_without_a_key_sends_nothing(
    keyring: Path, cas: Callable[..., object], home: Home, message: Callable[..., Path]
):
    run = cas("send", "local.docs", message("hello.org"))

    assert run.code == 1  # type: ignore[attr-defined]
    assert "gpg --list-secret-keys" in run.err  # type: ignore[attr-defined]
    assert not home.inbox("docs").exists()


def test_a_key_that_no_argument_can_hold_is_an_error_like_any_that_is_not_there(cas, message):
    run = cas("send", "local.docs", message("hello.org"), "--key=a\0b")

    assert run.code == 1
    assert "key" in run.err

"""The receiver's view: it has to notice what is wrong, or it proves nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cas.loopback import Key
from cas.receiver import Observer, good_signature, visible


@pytest.fixture
def signed(gnupg: Key, message: Callable[..., Path]) -> Path:
    path = message("signed.org")
    subprocess.run(("gpg", "--batch", "--detach-sign", "--armor", str(path)), check=True, capture_output=True)
    return path


def test_a_good_signature_names_the_key_that_made_it(signed: Path, gnupg: Key) -> None:
    assert good_signature(signed, gnupg.gnupghome) == gnupg.fingerprint


def test_a_changed_message_has_no_good_signature(signed: Path, gnupg: Key) -> None:
    signed.write_bytes(signed.read_bytes() + b"P.S.\n")

    assert good_signature(signed, gnupg.gnupghome) is None


def test_a_message_alone_has_no_good_signature(message: Callable[..., Path], gnupg: Key) -> None:
    assert good_signature(message("alone.org"), gnupg.gnupghome) is None


def test_two_signatures_in_one_file_are_not_good(signed: Path, gnupg: Key) -> None:
    once = ("gpg", "--batch", "--detach-sign", "-o", "-", str(signed))
    signature = subprocess.run(once, check=True, capture_output=True).stdout
    Path(f"{signed}.asc").write_bytes(signature * 2)

    assert good_signature(signed, gnupg.gnupghome) is None


def test_a_message_seen_before_its_signature_is_noticed(tmp_path: Path) -> None:
    observer = Observer()

    (tmp_path / "early.org").touch()
    observer.look(tmp_path)
    (tmp_path / "early.org.asc").touch()
    observer.look(tmp_path)

    assert observer.unsigned == ("early.org",)
    assert observer.looks == 2


def test_a_signature_that_waits_for_its_message_is_counted(tmp_path: Path) -> None:
    observer = Observer()

    (tmp_path / "one.org.asc").touch()
    observer.look(tmp_path)
    (tmp_path / "one.org").touch()
    observer.look(tmp_path)

    assert (observer.alone, observer.unsigned) == (1, ())


def test_staged_names_are_passed_by_and_a_missing_inbox_is_empty(tmp_path: Path) -> None:
    (tmp_path / ".tmp.cas").mkdir()
    (tmp_path / "one.org").touch()

    assert visible(tmp_path) == ("one.org",)
    assert visible(tmp_path / "none") == ()

"""known_hosts: which keys a host may show, from every form of line that OpenSSH knows."""

from __future__ import annotations

import base64
import hashlib
import hmac
import subprocess
import time
from pathlib import Path

import pytest

from cas.transports.known_hosts import HostKeys, algorithms, fingerprint, hashed_entry, host_keys, names_are_hashed

ED = ("ssh-ed25519", "AAAAC3NzaC1lZDI1NTE5AAAAIJ1")
RSA = ("ssh-rsa", "AAAAB3NzaC1yc2EAAAADAQABAAABAQC")
NOTHING = HostKeys(trusted=frozenset(), revoked=frozenset())


def line(patterns: str, key: tuple[str, str] = ED, *, marker: str = "", comment: str = "") -> str:
    return " ".join(word for word in (marker, patterns, *key, comment) if word) + "\n"


def hashed(name: str, salt: bytes = b"0123456789abcdefghij") -> str:
    """As ssh-keygen -H writes it."""
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


def trusted(text: str, host: str = "forge", port: int = 22) -> set[tuple[str, str]]:
    return set(host_keys([text], host, port).trusted)


def test_a_host_that_stands_nowhere_has_no_keys():
    assert host_keys([line("other")], "forge", 22) == NOTHING


def test_without_any_file_nothing_is_known():
    assert host_keys([], "forge", 22) == NOTHING


def test_all_keys_of_a_host_are_found_in_all_files():
    assert host_keys([line("forge"), line("forge", RSA)], "forge", 22).trusted == {ED, RSA}


@pytest.mark.parametrize(
    "patterns",
    ["forge", "FORGE", "other,forge", "f?rge", "*", "fo*", "*.lan,forge", "!other,f*", hashed("forge")],
)
def test_a_line_that_names_the_host_counts(patterns: str):
    assert trusted(line(patterns)) == {ED}


@pytest.mark.parametrize(
    "patterns",
    [
        "forge.lan",
        "forg",
        "f?ge",
        "*.forge",
        "!forge",
        "!forge,*",
        "*,!f*",
        "[forge]",
        "[forge]:22",
        "[forge]:2222",
        "[!f]orge",
        "forge:22",
        hashed("other"),
        hashed("[forge]:22"),
    ],
)
def test_a_line_that_does_not_name_the_host_counts_for_nothing(patterns: str):
    assert trusted(line(patterns)) == set()


@pytest.mark.parametrize(
    "patterns", ["[forge]:2222", "[FORGE]:2222", "[f*]:2222", "[forge]:*", "*", hashed("[forge]:2222")]
)
def test_another_port_is_part_of_the_name(patterns: str):
    assert trusted(line(patterns), port=2222) == {ED}


@pytest.mark.parametrize(
    "patterns", ["forge", "forge:2222", "[forge]:2223", "[forge]", "forg[e]:2222", hashed("forge")]
)
def test_a_key_for_one_port_says_nothing_of_another(patterns: str):
    assert trusted(line(patterns), port=2222) == set()


def test_the_name_that_is_asked_for_may_be_in_capitals():
    assert trusted(line("forge"), host="FORGE") == {ED}
    assert trusted(line(hashed("forge")), host="FORGE") == {ED}


def test_an_address_is_a_name():
    assert trusted(line("127.0.0.1,::1"), host="::1") == {ED}
    assert trusted(line("[::1]:2222"), host="::1", port=2222) == {ED}


def test_what_ssh_keygen_hashed_is_found(tmp_path: Path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    kind, key = (tmp_path / "key.pub").read_text().split()[:2]
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(line("forge", (kind, key)) + line("[forge]:2222", (kind, key)) + line("other", (kind, key)))
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", known_hosts], check=True, capture_output=True)
    text = known_hosts.read_text()

    assert "forge" not in text
    assert (trusted(text), trusted(text, port=2222), trusted(text, port=2223)) == ({(kind, key)}, {(kind, key)}, set())


def test_a_name_is_hashed_as_ssh_keygen_does():
    assert hashed_entry("[forge]:2222", b"0123456789abcdefghij") == hashed("[forge]:2222")


@pytest.mark.parametrize(
    ("setting", "text", "expected"),
    [
        (None, "", False),
        (None, line("forge"), False),
        (None, line("forge") + line(hashed("other")), True),
        (None, line(hashed("other"), marker="@revoked"), True),
        (None, "# " + line(hashed("other")), False),
        (None, line("forge", comment=hashed("other")), False),
        ("yes", line("forge"), True),
        ("YES", "", True),
        ("true", "", True),
        ("no", line(hashed("other")), False),
    ],
)
def test_names_are_hashed_as_is_said_or_else_as_they_are_already(setting: str | None, text: str, expected: bool):
    assert names_are_hashed(setting, text) is expected


def test_a_revoked_key_is_not_trusted_wherever_else_it_stands():
    text = line("forge") + line("*", marker="@revoked") + line("forge")

    assert host_keys([text], "forge", 22) == HostKeys(trusted=frozenset(), revoked=frozenset({ED}))


def test_a_key_that_is_revoked_for_another_host_is_trusted_here():
    assert trusted(line("forge") + line("other", marker="@revoked")) == {ED}


def test_a_key_revoked_in_one_file_is_revoked_for_all():
    found = host_keys([line("forge"), line("forge", marker="@revoked")], "forge", 22)

    assert (found.trusted, found.revoked) == (frozenset(), {ED})


def test_of_two_keys_the_one_that_is_not_revoked_stays():
    assert trusted(line("forge") + line("forge", RSA) + line("forge", RSA, marker="@revoked")) == {ED}


def test_a_cert_authority_is_no_key_of_the_host():
    text = line("forge", RSA, marker="@cert-authority") + line("forge")

    assert host_keys([text], "forge", 22) == HostKeys(trusted=frozenset({ED}), revoked=frozenset())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "# forge ssh-ed25519 AAAA\n",
        "forge\n",
        "forge ssh-ed25519\n",
        "@revoked\n",
        "@revoked forge\n",
        "@unknown forge ssh-ed25519 AAAA\n",
        "|1|\n",
        "|1|x|y ssh-ed25519 AAAA\n",
        "|1|AAAA ssh-ed25519 AAAA\n",
        "|1|ümläut|AAAA ssh-ed25519 AAAA\n",
        "|2|AAAA|AAAA ssh-ed25519 AAAA\n",
        "\0\x1b\ufffd nonsense\n",
    ],
)
def test_a_line_that_cannot_be_read_spoils_no_other(text: str):
    assert trusted(text + line("forge")) == {ED}


@pytest.mark.parametrize(
    "text", [line("forge", comment="me@home"), line("forge").strip(), line("forge").replace("\n", "\r\n")]
)
def test_comments_and_line_ends_do_not_matter(text: str):
    assert trusted(text) == {ED}


def test_blanks_before_and_between_do_not_matter():
    assert trusted(f" \t forge \t {ED[0]}   {ED[1]}\n") == {ED}


def test_a_fingerprint_is_the_one_that_ssh_keygen_shows(tmp_path: Path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    shown = subprocess.run(["ssh-keygen", "-l", "-f", tmp_path / "key.pub"], check=True, capture_output=True, text=True)

    assert fingerprint((tmp_path / "key.pub").read_text().split()[1]) == shown.stdout.split()[1]


@pytest.mark.parametrize("key", ["no base64!", "AAA", "ü"])
def test_a_key_that_is_none_has_no_fingerprint(key: str):
    assert fingerprint(key) == "an unreadable key"


def test_an_rsa_key_may_be_shown_with_any_digest():
    assert algorithms(["ssh-rsa"]) == {"ssh-rsa", "rsa-sha2-256", "rsa-sha2-512"}


def test_other_keys_are_shown_under_their_own_name():
    assert algorithms(["ssh-ed25519", "ecdsa-sha2-nistp256"]) == {"ssh-ed25519", "ecdsa-sha2-nistp256"}


def test_no_key_needs_no_algorithm():
    assert algorithms([]) == frozenset()


def test_with_ten_thousand_lines_a_host_is_not_looked_for_in_each_of_them():
    text = "".join(line(f"host-{number}") for number in range(10_000))
    trusted(text, "host-1")
    started = time.thread_time()

    for number in range(1_000):
        assert trusted(text, f"host-{number}") == {ED}

    assert time.thread_time() - started < 1  # 0.01 s; a look at each line took minutes

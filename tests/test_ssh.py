"""SSH: whose key is taken, who logs in, and by which way; every refusal with its reason, on real servers."""

from __future__ import annotations

import json
import logging
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import Forge, Home, Run, called
from test_transports import destination

from cas.errors import TransferError
from cas.inventory import Destination
from cas.loopback import loopback_peer
from cas.transports import opened, told

Cas = Callable[..., Run]
Write = Callable[..., Path]
UNUSED = "SHA256:" + "A" * 43


@pytest.fixture
def logged_in(home: Home) -> Callable[..., str]:
    """`logged_in(destination)`: that somebody logged in and found a home; raises what `opened` raises."""

    def log_in(where: Destination, *, timeout: int = 20, user: str = "nobody") -> str:
        with opened(where, timeout, home=home.path, user=user) as transport:
            (names,) = transport.run([transport.files.names("~")])
            assert isinstance(names, list), names
        return "in"

    return log_in


@pytest.fixture
def gate(home: Home, tmp_path: Path) -> Iterator[Forge]:
    """A second server, over which one may jump; known to nobody yet."""
    folder = tmp_path / "gate"
    folder.mkdir()
    with loopback_peer(folder) as server:
        yield Forge(server=server)


def refusal(log_in: Callable[..., str], where: Destination, **options: Any) -> TransferError:
    with pytest.raises(TransferError) as refused:
        log_in(where, **options)
    return refused.value


def new_key(path: Path, passphrase: str = "", kind: str = "ed25519") -> tuple[str, str, str]:
    """A key's type, its base64 and its fingerprint."""
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", path], check=True)
    shown = subprocess.run(["ssh-keygen", "-l", "-f", f"{path}.pub"], check=True, capture_output=True, text=True)
    kind, key = Path(f"{path}.pub").read_text().split()[:2]
    return kind, key, shown.stdout.split()[1]


def configure(home: Home, text: str) -> None:
    (home.path / ".ssh").mkdir(mode=0o700, exist_ok=True)
    (home.path / ".ssh" / "config").write_text(text)


def logins(peer: Forge) -> int:
    return peer.log().count("Accepted publickey")


# Which host key is taken


def test_however_many_hosts_there_are_paramiko_gets_one_handler(logged_in):
    for _ in range(3):
        refusal(logged_in, destination(host="127.0.0.1", port=1, transport="sftp"))

    assert len(logging.getLogger("paramiko").handlers) <= 1


def test_a_host_that_is_known_is_logged_in_to(peer: Forge, logged_in):
    assert logged_in(destination(peer)) == "in"


@pytest.mark.parametrize("known", ["empty", "missing", "a folder", "of other hosts only"])
def test_a_host_that_is_not_known_is_refused_before_any_login(peer: Forge, home: Home, logged_in, known: str):
    text = home.known_hosts.read_text()
    home.known_hosts.unlink()
    if known == "a folder":
        home.known_hosts.mkdir()
    elif known != "missing":
        home.known_hosts.write_text("" if known == "empty" else text.replace(str(peer.port), "1"))

    error = refusal(logged_in, destination(peer))

    assert (error.code, error.permanent) == ("host-key-unknown", True)
    assert peer.server.host_key in str(error)
    assert f"127.0.0.1:{peer.port}" in str(error)
    assert logins(peer) == 0


def test_what_to_do_about_an_unknown_host_works(peer: Forge, home: Home, logged_in):
    home.known_hosts.unlink()
    home.peers(peer.toml(host_key=None))
    hint = refusal(logged_in, destination(peer)).hint or ""

    command = hint.partition("then: cas ")[2].split()

    assert "ssh-keyscan" not in hint
    assert called(*command).code == 0
    assert logged_in(destination(peer)) == "in"


@pytest.mark.threat("peer", "be taken for another host")
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_key_that_changed_is_refused_and_both_are_shown(
    peer: Forge, home: Home, logged_in, tmp_path: Path, kind: str
):
    name, key, print_ = new_key(tmp_path / "old", kind=kind)
    home.known_hosts.write_text(f"[127.0.0.1]:{peer.port} {name} {key}\n")

    error = refusal(logged_in, destination(peer))

    assert error.permanent
    assert logins(peer) == 0
    assert print_ in str(error)
    assert peer.server.host_key in str(error)


def test_what_to_do_about_a_changed_key_takes_the_old_one_out(peer: Forge, home: Home, logged_in, tmp_path: Path):
    name, key, _ = new_key(tmp_path / "old")
    home.known_hosts.write_text(f"[127.0.0.1]:{peer.port} {name} {key}\n")
    hint = refusal(logged_in, destination(peer)).hint or ""
    target = hint.partition("ssh-keygen -R '")[2].partition("'")[0]

    subprocess.run(["ssh-keygen", "-R", target, "-f", home.known_hosts], check=True, capture_output=True)

    assert home.known_hosts.read_text() == ""


def test_one_of_several_known_keys_is_enough(peer: Forge, home: Home, logged_in, tmp_path: Path):
    name, key, _ = new_key(tmp_path / "old")
    with home.known_hosts.open("a") as file:
        file.write(f"[127.0.0.1]:{peer.port} {name} {key}\n")

    assert logged_in(destination(peer)) == "in"


@pytest.mark.parametrize("patterns", ["[127.0.0.1]:{port}", "*", "[127.*]:{port}", "other,[127.0.0.?]:*"])
def test_a_revoked_key_is_refused_though_it_is_known(peer: Forge, home: Home, logged_in, patterns: str):
    known = home.known_hosts.read_text()
    key = known.partition(" ")[2]
    home.known_hosts.write_text(f"{known}@revoked {patterns.format(port=peer.port)} {key}")

    error = refusal(logged_in, destination(peer))

    assert (error.code, error.permanent) == ("host-key-revoked", True)
    assert peer.server.host_key in str(error)


def test_a_revoked_key_is_refused_though_it_is_pinned(peer: Forge, home: Home, logged_in):
    home.known_hosts.write_text(f"@revoked {home.known_hosts.read_text()}")

    assert refusal(logged_in, destination(peer, host_key=peer.server.host_key)).code == "host-key-revoked"


def test_a_pinned_key_needs_no_known_hosts(peer: Forge, home: Home, logged_in):
    home.known_hosts.unlink()

    assert logged_in(destination(peer, host_key=peer.server.host_key)) == "in"


def test_a_pinned_key_counts_above_known_hosts(peer: Forge, home: Home, logged_in, tmp_path: Path):
    name, key, _ = new_key(tmp_path / "old", kind="rsa")
    home.known_hosts.write_text(f"[127.0.0.1]:{peer.port} {name} {key}\n")

    assert logged_in(destination(peer, host_key=peer.server.host_key)) == "in"


def test_a_pin_that_does_not_fit_is_refused_though_the_key_is_known(peer: Forge, logged_in):
    error = refusal(logged_in, destination(peer, host_key=UNUSED))

    assert (error.code, error.permanent) == ("host-key-changed", True)
    assert peer.server.host_key in str(error)
    assert UNUSED in str(error)
    assert logins(peer) == 0


def test_a_pin_that_does_not_fit_gets_one_attempt_and_shows_both_fingerprints(
    cas: Cas, home: Home, peer: Forge, message: Write
):
    home.peers(peer.toml(host_key=UNUSED))

    run = cas("send", "forge.docs", message("hello.org"), "--no-sign", "--output", "json")

    (delivery,) = json.loads(run.out)["deliveries"]
    assert run.code == 3
    assert peer.server.host_key in delivery["reason"]
    assert UNUSED in delivery["reason"]
    assert [attempt["permanent"] for attempt in delivery["attempts"]] == [True]


def test_a_hashed_known_hosts_is_understood(peer: Forge, home: Home, logged_in):
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", home.known_hosts], check=True, capture_output=True)
    assert "127.0.0.1" not in home.known_hosts.read_text()

    assert logged_in(destination(peer)) == "in"


@pytest.mark.parametrize("patterns", ["*", "[127.*]:*", "[127.0.0.?]:{port}", "other,[127.0.0.1]:{port}"])
def test_a_line_with_wildcards_makes_a_host_known(peer: Forge, home: Home, logged_in, patterns: str):
    key = home.known_hosts.read_text().partition(" ")[2]
    home.known_hosts.write_text(f"{patterns.format(port=peer.port)} {key}")

    assert logged_in(destination(peer)) == "in"


def test_a_host_that_a_line_takes_out_is_not_known_by_it(peer: Forge, home: Home, logged_in):
    key = home.known_hosts.read_text().partition(" ")[2]
    home.known_hosts.write_text(f"*,![127.0.0.1]:{peer.port} {key}")

    assert refusal(logged_in, destination(peer)).code == "host-key-unknown"


def test_a_key_for_port_22_says_nothing_of_another_port(peer: Forge, home: Home, logged_in):
    key = home.known_hosts.read_text().partition(" ")[2]
    home.known_hosts.write_text(f"127.0.0.1 {key}")

    assert refusal(logged_in, destination(peer)).code == "host-key-unknown"


def test_a_cert_authority_line_spoils_no_other(peer: Forge, home: Home, logged_in):
    known = home.known_hosts.read_text()
    home.known_hosts.write_text(f"@cert-authority * {known.partition(' ')[2]}{known}")

    assert logged_in(destination(peer)) == "in"


def test_a_cert_authority_is_not_taken_for_the_hosts_own_key(peer: Forge, home: Home, logged_in):
    home.known_hosts.write_text(f"@cert-authority {home.known_hosts.read_text()}")

    assert refusal(logged_in, destination(peer)).code == "host-key-unknown"


@pytest.mark.parametrize("value", ["no", "off", "accept-new", "ask"])
def test_ssh_configuration_cannot_loosen_the_check(peer: Forge, home: Home, logged_in, value: str):
    configure(home, f"Host *\n StrictHostKeyChecking {value}\n")
    home.known_hosts.unlink()

    assert refusal(logged_in, destination(peer)).code == "host-key-unknown"
    assert not home.known_hosts.exists()


def test_a_known_hosts_elsewhere_is_read_where_ssh_configuration_names_it(peer: Forge, home: Home, logged_in):
    home.known_hosts.rename(home.path / "my hosts")
    configure(home, 'Host 127.*\n UserKnownHostsFile /dev/null "~/my hosts"\n')

    assert logged_in(destination(peer)) == "in"


def test_a_host_may_be_known_under_an_alias(peer: Forge, home: Home, logged_in):
    home.known_hosts.write_text("the-forge " + home.known_hosts.read_text().partition(" ")[2])
    configure(home, "Host 127.0.0.1\n HostKeyAlias the-forge\n")

    assert logged_in(destination(peer)) == "in"


def test_under_an_alias_the_hosts_own_name_counts_for_nothing(peer: Forge, home: Home, logged_in):
    configure(home, "Host 127.0.0.1\n HostKeyAlias the-forge\n")

    assert refusal(logged_in, destination(peer)).code == "host-key-unknown"


# ~/.ssh/config


def test_ssh_configuration_says_host_name_port_user_and_key(peer: Forge, home: Home, logged_in):
    configure(
        home,
        f"Host forge\n HostName 127.0.0.1\n Port {peer.port}\n User {peer.user}\n IdentityFile {peer.identity_file}\n",
    )

    assert logged_in(destination(host="forge", transport="sftp")) == "in"


def test_peers_toml_counts_above_ssh_configuration(peer: Forge, home: Home, logged_in):
    configure(home, "Host 127.0.0.1\n Port 1\n User somebody-else\n IdentityFile /nowhere\n")

    assert logged_in(destination(peer)) == "in"


def test_a_key_below_the_home_is_found(peer: Forge, home: Home, logged_in):
    shutil.copy(peer.identity_file, home.path / ".ssh" / "for forge")

    assert logged_in(destination(peer, identity_file="~/.ssh/for forge")) == "in"


def test_a_key_below_the_home_is_found_from_ssh_configuration_too(peer: Forge, home: Home, logged_in):
    shutil.copy(peer.identity_file, home.path / ".ssh" / "for_forge")
    configure(home, "Host 127.0.0.1\n IdentityFile ~/.ssh/for_forge\n")

    assert logged_in(destination(peer, identity_file=None)) == "in"


def test_the_users_default_key_is_tried(peer: Forge, home: Home, logged_in):
    shutil.copy(peer.identity_file, home.path / ".ssh" / "id_ed25519")

    assert logged_in(destination(peer, identity_file=None)) == "in"


def test_who_logs_in_by_default_is_said_by_the_caller(peer: Forge, logged_in):
    assert logged_in(destination(peer, user=None), user=peer.user) == "in"


@pytest.mark.parametrize(
    ("own", "configured", "name"),
    [("agent", "other", "agent"), (None, "other", "other"), (None, None, "me")],
)
def test_an_inbox_is_told_with_the_name_that_logs_in(home: Home, own: str | None, configured: str | None, name: str):
    configure(home, f"Host forge\n User {configured}\n" if configured else "")

    there = told(destination(host="forge", transport="sftp", user=own, inbox="~/inbox"), home=home.path, user="me")

    assert there == f"{name}@forge:~/inbox"


@pytest.mark.parametrize("content", [b"\xff\xfe\0", b"Host x\n nonsense\n", None])
def test_an_ssh_configuration_that_cannot_be_read_is_said(peer: Forge, home: Home, logged_in, content: bytes | None):
    if content is None:
        (home.path / ".ssh" / "config").mkdir()
    else:
        (home.path / ".ssh" / "config").write_bytes(content)

    error = refusal(logged_in, destination(peer))

    assert (error.code, error.permanent) == ("ssh-config", True)
    assert str(home.path / ".ssh" / "config") in str(error)


def test_a_fabric_file_of_the_users_changes_nothing(peer: Forge, home: Home, logged_in):
    for name in (".fabric.yml", ".invoke.yml"):
        (home.path / name).write_text("user: somebody-else\nport: 1\nload_ssh_configs: false\n")

    assert logged_in(destination(peer)) == "in"


# Jumping over another host


def jump(home: Home, peer: Forge, gate: Forge) -> Destination:
    configure(
        home,
        f"Host forge\n HostName 127.0.0.1\n Port {peer.port}\n IdentityFile {peer.identity_file}\n ProxyJump gate\n"
        f"Host gate\n HostName 127.0.0.1\n Port {gate.port}\n IdentityFile {gate.identity_file}\n User {gate.user}\n",
    )
    return destination(host="forge", transport="sftp", user=peer.user)


def test_a_peer_behind_another_host_is_reached_over_it(peer: Forge, gate: Forge, home: Home, logged_in):
    where = jump(home, peer, gate)
    with home.known_hosts.open("a") as file:
        file.write(gate.server.known_hosts)

    assert logged_in(where) == "in"
    assert (logins(gate), logins(peer)) == (1, 1)


@pytest.mark.parametrize("transport", ["sftp", "rsync"])
def test_a_message_is_sent_over_another_host(
    cas: Cas, peer: Forge, gate: Forge, home: Home, message: Write, pairs, transport: str
):
    jump(home, peer, gate)
    home.peers(f'[peers.forge]\nssh_user = "{peer.user}"\ntransport = "{transport}"\n')
    with home.known_hosts.open("a") as file:
        file.write(gate.server.known_hosts)

    run = cas("send", "forge.docs", message("hello.org"), "--no-sign")

    assert run.code == 0, run.err
    assert len(pairs(peer.inbox("docs"))) == 1
    assert logins(gate) == 1


def test_the_key_of_the_host_that_is_jumped_over_is_checked(peer: Forge, gate: Forge, home: Home, logged_in):
    error = refusal(logged_in, jump(home, peer, gate))

    assert (error.code, error.permanent) == ("host-key-unknown", True)
    assert gate.server.host_key in str(error)
    assert f"127.0.0.1:{gate.port}" in str(error)
    assert (logins(gate), logins(peer)) == (0, 0)


def test_a_changed_key_of_the_host_that_is_jumped_over_is_refused(
    peer: Forge, gate: Forge, home: Home, logged_in, tmp_path: Path
):
    kind, key, print_ = new_key(tmp_path / "old")
    with home.known_hosts.open("a") as file:
        file.write(f"[127.0.0.1]:{gate.port} {kind} {key}\n")

    error = refusal(logged_in, jump(home, peer, gate))

    assert error.code == "host-key-changed"
    assert gate.server.host_key in str(error)
    assert print_ in str(error)


def test_the_key_of_the_peer_is_checked_behind_another_host_too(peer: Forge, gate: Forge, home: Home, logged_in):
    home.known_hosts.write_text(gate.server.known_hosts)

    error = refusal(logged_in, jump(home, peer, gate))

    assert error.code == "host-key-unknown"
    assert peer.server.host_key in str(error)
    assert (logins(gate), logins(peer)) == (1, 0)


def test_a_pin_is_for_the_peer_and_not_for_what_is_jumped_over(peer: Forge, gate: Forge, home: Home, logged_in):
    home.known_hosts.write_text(gate.server.known_hosts)

    assert logged_in(replace(jump(home, peer, gate), host_key=peer.server.host_key)) == "in"
    assert refusal(logged_in, replace(jump(home, peer, gate), host_key=gate.server.host_key)).permanent


def test_the_key_for_a_peer_is_not_offered_to_the_host_that_is_jumped_over(
    peer: Forge, gate: Forge, home: Home, logged_in
):
    with home.known_hosts.open("a") as file:
        file.write(gate.server.known_hosts)
    where = replace(jump(home, peer, gate), identity_file=str(peer.identity_file))

    assert logged_in(where) == "in"
    assert "Failed publickey" not in gate.log()


def test_a_gate_that_is_closed_is_told_with_its_own_name(peer: Forge, gate: Forge, home: Home, logged_in):
    with _taken_port() as port:
        where = jump(home, peer, gate)
        config = home.path / ".ssh" / "config"
        config.write_text(config.read_text().replace(f"Port {gate.port}", f"Port {port}"))

        error = refusal(logged_in, where)

    assert not error.permanent
    assert "refused" in str(error)


def test_jumping_can_be_turned_off_for_one_host(peer: Forge, home: Home, logged_in):
    configure(home, "Host 127.0.0.1\n ProxyJump none\nHost *\n ProxyJump nowhere.invalid\n")

    assert logged_in(destination(peer)) == "in"


# Who may log in


def test_a_login_that_is_refused_is_not_mended_by_a_retry(peer: Forge, logged_in, tmp_path: Path):
    new_key(tmp_path / "other")

    error = refusal(logged_in, destination(peer, identity_file=str(tmp_path / "other")))

    assert (error.code, error.permanent) == ("login-refused", True)
    assert f"127.0.0.1:{peer.port}" in str(error)
    assert error.hint


def test_without_any_key_the_login_is_refused(peer: Forge, logged_in):
    error = refusal(logged_in, destination(peer, identity_file=None))

    assert (error.code, error.permanent) == ("login-refused", True)


@pytest.mark.parametrize("content", [None, b"", b"no key\n", b"\xff\xfe", "folder"])
def test_a_key_that_is_none_is_refused_and_named(
    cas: Cas, home: Home, peer: Forge, message: Write, tmp_path: Path, content: bytes | str | None
):
    key = tmp_path / "key"
    if content == "folder":
        key.mkdir()
    elif isinstance(content, bytes):
        key.write_bytes(content)
    home.peers(peer.toml(identity_file=str(key)))

    run = cas("send", "forge.docs", message("hello.org"), "--no-sign", "--retries", "0")

    assert run.code == 3
    assert str(key) in run.err


@pytest.mark.parametrize("content", [None, b"", b"no key\n", "folder"])
def test_no_retry_mends_a_key_that_is_none(peer: Forge, logged_in, tmp_path: Path, content: bytes | str | None):
    key = tmp_path / "key"
    if content == "folder":
        key.mkdir()
    elif isinstance(content, bytes):
        key.write_bytes(content)

    error = refusal(logged_in, destination(peer, identity_file=str(key)))

    assert (error.code, error.permanent) == ("login-refused", True)


def test_a_key_that_asks_for_a_passphrase_fails_at_once_and_says_so(peer: Forge, logged_in, tmp_path: Path):
    shutil.copy(peer.identity_file, tmp_path / "key")
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", tmp_path / "key"], check=True)

    error = refusal(logged_in, destination(peer, identity_file=str(tmp_path / "key")))

    assert (error.code, error.permanent) == ("login-refused", True)
    assert "passphrase" in str(error)
    assert "ssh-add" in str(error.hint)


def test_a_key_that_asks_for_a_passphrase_ends_a_send_and_says_what_to_do(
    cas: Cas, home: Home, peer: Forge, message: Write, tmp_path: Path
):
    shutil.copy(peer.identity_file, tmp_path / "key")
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", tmp_path / "key"], check=True)
    home.peers(peer.toml(identity_file=str(tmp_path / "key")))

    run = cas("send", "forge.docs", message("hello.org"), "--no-sign", "--retries", "0")

    assert run.code == 3
    assert "passphrase" in run.err
    assert "ssh-add" in run.err


def test_a_key_whose_passphrase_the_agent_has_is_enough(
    peer: Forge, logged_in, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with _agent(monkeypatch) as add:
        add(peer.identity_file)

        assert logged_in(destination(peer, identity_file=None)) == "in"


def test_a_server_that_asks_for_no_login_is_entered(home: Home, logged_in):
    with _without_authentication(home) as (port, entered):
        error = refusal(logged_in, destination(host="127.0.0.1", port=port, transport="sftp", user="x"))

    # The server has no SFTP: that far one gets only after the login.
    assert entered.is_set()
    assert error.code == "not-offered"


@pytest.mark.timeout(30)
def test_a_server_that_never_begins_with_sftp_is_not_waited_for_without_end(home: Home, logged_in):
    with _without_authentication(home, hesitates=True) as (port, entered):
        started = time.monotonic()
        error = refusal(logged_in, destination(host="127.0.0.1", port=port, transport="sftp", user="x"), timeout=2)
        took = time.monotonic() - started

    assert entered.is_set()
    assert (error.code, error.permanent) == ("connection-lost", False)
    assert took < 8


def test_a_server_that_offers_no_sftp_gets_one_attempt(home: Home, logged_in):
    with _without_authentication(home) as (port, _):
        error = refusal(logged_in, destination(host="127.0.0.1", port=port, transport="sftp", user="x"))

    assert str(error) == f"127.0.0.1:{port} offers no SFTP"
    assert error.permanent


# A host that is not there


def test_a_connection_that_is_refused_may_be_tried_again(home: Home, logged_in):
    with _taken_port() as port:
        error = refusal(logged_in, destination(host="127.0.0.1", port=port, transport="sftp", user="x"))

    assert (error.code, error.permanent) == ("not-connected", False)
    assert str(error) == f"connection refused on 127.0.0.1:{port}"


def test_a_host_name_that_nobody_knows_is_said(home: Home, logged_in):
    error = refusal(logged_in, destination(host="nobody.invalid", transport="sftp", user="x"))

    assert error.code == "unknown-host"
    assert "nobody.invalid:22" in str(error)
    assert "peers.toml" in str(error.hint)


@pytest.mark.parametrize("words", [b"", b"SSH-2.0-silent\r\n"])
def test_a_server_that_says_nothing_is_not_waited_for_without_end(home: Home, logged_in, words: bytes):
    with _listener(lambda connection: _swallow(connection, words)) as port:
        started = time.monotonic()
        error = refusal(logged_in, destination(host="127.0.0.1", port=port, transport="sftp", user="x"), timeout=2)

    assert not error.permanent
    assert time.monotonic() - started < 6


@pytest.mark.parametrize("words", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n", b"\0" * 100])
def test_a_server_that_hangs_up_may_be_tried_again(home: Home, logged_in, words: bytes):
    with _listener(lambda connection: connection.sendall(words)) as port:
        error = refusal(logged_in, destination(host="127.0.0.1", port=port, transport="sftp", user="x"), timeout=5)

    assert (error.code, error.permanent) == ("not-connected", False)


def test_a_server_without_a_way_to_speak_in_common_is_permanent(home: Home, tmp_path: Path, logged_in):
    folder = tmp_path / "odd"
    folder.mkdir()
    # paramiko has no sntrup761.
    with loopback_peer(folder, settings=("KexAlgorithms sntrup761x25519-sha512@openssh.com",)) as server:
        home.known_hosts.parent.mkdir()
        home.known_hosts.write_text(server.known_hosts)

        error = refusal(logged_in, destination(Forge(server=server)))

    assert (error.code, error.permanent) == ("ssh-incompatible", True)


@contextmanager
def _taken_port() -> Iterator[int]:
    """A port on which nobody listens, and nobody else can."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextmanager
def _listener(serve: Callable[[socket.socket], object]) -> Iterator[int]:
    """A server of ours on a port of its own, that does one thing with each connection and closes it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:  # closed
                    return
                with connection:
                    try:
                        serve(connection)
                    except OSError:  # the other side was first
                        continue

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def _swallow(connection: socket.socket, words: bytes) -> None:
    connection.sendall(words)
    while connection.recv(1 << 16):
        continue


@contextmanager
def _agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    # -D: it stays the child that can be ended; the socket's folder is its own.
    agent = subprocess.Popen(["ssh-agent", "-D"], stdout=subprocess.PIPE, text=True)
    try:
        assert agent.stdout is not None
        monkeypatch.setenv("SSH_AUTH_SOCK", agent.stdout.readline().partition("=")[2].partition(";")[0])
        yield lambda key: subprocess.run(["ssh-add", "-q", key], check=True, capture_output=True) and None
    finally:
        agent.terminate()
        agent.communicate()


@contextmanager
def _without_authentication(home: Home, *, hesitates: bool = False) -> Iterator[tuple[int, threading.Event]]:
    """A server that lets everybody in, as Tailscale's does, and offers nothing then, or never gets as far as that."""
    import paramiko

    key = paramiko.RSAKey.generate(2048)
    entered, ended = threading.Event(), threading.Event()

    class Open(paramiko.ServerInterface):
        def get_allowed_auths(self, username: str) -> str:
            return "none"

        def check_auth_none(self, username: str) -> int:
            entered.set()
            return paramiko.AUTH_SUCCESSFUL

        def check_channel_request(self, kind: str, chanid: int) -> int:
            return paramiko.OPEN_SUCCEEDED

        def check_channel_subsystem_request(self, channel: paramiko.Channel, name: str) -> bool:
            if hesitates:
                ended.wait(60)
            return False

    def serve(connection: socket.socket) -> None:
        transport = paramiko.Transport(connection)
        transport.add_server_key(key)
        transport.start_server(server=Open())
        transport.join(20)

    with _listener(serve) as port:
        home.known_hosts.parent.mkdir(exist_ok=True)
        home.known_hosts.write_text(f"[127.0.0.1]:{port} ssh-rsa {key.get_base64()}\n")
        try:
            yield port, entered
        finally:
            ended.set()

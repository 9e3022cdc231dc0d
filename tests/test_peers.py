"""Peers: listed, tried step by step against real sshd, and trusted once their key was compared."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import Forge, Home, Run

from cas.loopback import Key, loopback_peer

Cas = Callable[..., Run]


def levels(run: Run, name: str = "forge") -> dict[str, str]:
    (found,) = [one for one in json.loads(run.out)["peers"] if one["name"] == name]
    return {one["what"]: one["level"] for one in found["checks"]}


def host_key(peer: Forge) -> str:
    key = peer.server.known_hosts.split(maxsplit=1)[1]
    said = subprocess.run(["ssh-keygen", "-l", "-f", "-"], input=f"x {key}", text=True, capture_output=True, check=True)
    return said.stdout.split()[1]


def test_peers_are_listed_as_they_stand_in_peers_toml(cas: Cas, home: Home, peer: Forge):
    home.peers(peer.toml() + '[groups]\nall = ["forge.docs"]\n[peers.bare]\n')

    run = cas("peers", "list")

    assert run.code == 0
    assert run.out.splitlines() == ["bare: bare, auto", f"forge: {peer.user}@{peer.host}:{peer.port}, auto"]
    (bare, forge) = json.loads(cas("peers", "list", "--output", "json").out)["peers"]
    assert (bare["user"], forge["projects"]) == (None, ["docs"])
    home.peers("")
    assert "names no peers" in cas("peers", "list").err


def test_the_way_to_a_peer_that_is_fine_is_ok_at_each_step(cas: Cas, home: Home, peer: Forge):
    home.peers(peer.toml() + '[groups]\nall = ["forge.docs", "forge.new", "local.x"]\n')
    peer.inbox("docs").mkdir(parents=True)

    run = cas("peers", "check", "--output", "json")

    assert run.code == 0
    assert levels(run) == {
        "name": "ok",
        "port": "ok",
        "host key": "ok",
        "login": "ok",
        "SFTP": "ok",
        "inbox ~/projects/docs/inbox/from-agents": "ok",
        "inbox ~/projects/new/inbox/from-agents": "note",
        "HALT": "ok",
    }
    assert list(peer.inbox("docs").iterdir()) == []
    assert not peer.inbox("new").exists()
    text = cas("peers", "check", "forge").out
    assert text.startswith(f"forge ({peer.user}@{peer.host}:{peer.port})\n  ok       name: good\n")


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({"host": "no-such-host.invalid"}, "name"),
        ({"port": 1}, "port"),
        ({"host_key": "SHA256:" + "a" * 43}, "host key"),
        ({"identity_file": "/nonexistent"}, "login"),
    ],
)
def test_the_step_that_fails_is_named_with_what_mends_it(
    cas: Cas, home: Home, peer: Forge, changes: dict[str, Any], step: str
):
    home.peers(peer.toml(**changes))

    run = cas("peers", "check", "--output", "json")

    assert run.code == 3
    order = ["name", "port", "host key", "login"]
    expected = {**dict.fromkeys(order[: order.index(step)], "ok"), step: "error"}
    assert levels(run) == expected
    assert json.loads(run.out)["peers"][0]["checks"][-1]["cure"]


def test_a_peer_that_fails_holds_up_no_other(cas: Cas, home: Home, peer: Forge):
    home.peers(peer.toml() + '[peers.nowhere]\nhost = "127.0.0.1"\nport = 1\n')

    run = cas("peers", "check", "--output", "json")

    assert run.code == 3
    assert levels(run)["HALT"] == "ok"
    assert levels(run, "nowhere")["port"] == "error"


def test_what_stands_in_the_way_of_an_inbox_and_halt_there_are_told(cas: Cas, home: Home, peer: Forge):
    home.peers(peer.toml() + '[projects.docs]\ninbox_path = "~/a file"\n')
    (peer.home / "a file").write_text("x", encoding="utf-8")
    (peer.home / ".config/cross-agent-comms").mkdir(parents=True)
    (peer.home / ".config/cross-agent-comms/HALT").write_text("moving", encoding="utf-8")

    run = cas("peers", "check")

    assert run.code == 3
    assert "error    inbox ~/a file: is no folder" in run.out
    assert 'warning  HALT: set there: "moving"' in run.out


def test_a_peer_that_is_this_machine_is_asked_nothing(cas: Cas, home: Home):
    this = socket.gethostname().partition(".")[0]
    home.peers(f'[peers."{this}"]\nhost = "127.0.0.1"\nport = 1\n')
    home.halt("moving")

    run = cas("peers", "check", this)

    assert run.code == 0
    assert run.out.splitlines() == [
        f"{this} (this machine)",
        "  ok       way: its own file system, without SSH",
        "  warning  HALT: set here: moving",
    ]
    trusted = cas("peers", "trust", this)
    assert (trusted.code, trusted.out) == (0, f"no key is needed: `{this}` is this machine\n")


def test_a_peer_that_no_destination_could_name_is_tried_all_the_same(cas: Cas, home: Home, peer: Forge):
    home.peers(peer.toml().replace("[peers.forge]", '[peers."forge.lan"]') + '[groups]\nall = ["local.docs"]\n')

    run = cas("peers", "check", "--output", "json")

    assert run.code == 0
    assert levels(run, "forge.lan")["HALT"] == "ok"
    assert "forge.lan: HALT is set (127.0.0.1)" in cas("halt", "--peers", "--yes").out
    assert "known already" in cas("peers", "trust", "forge.lan").out


def test_a_server_without_sftp_is_told(cas: Cas, home: Home, tmp_path: Path):
    folder = tmp_path / "bare"
    folder.mkdir()
    with loopback_peer(folder, settings=("ForceCommand /bin/false",)) as server:
        forge = Forge(server=server)
        home.peers(forge.toml())
        home.known_hosts.parent.mkdir(mode=0o700)
        home.known_hosts.write_text(server.known_hosts, encoding="utf-8")
        run = cas("peers", "check", "--output", "json")

    assert run.code == 3
    assert levels(run)["SFTP"] == "error"


def test_a_name_that_is_no_peers_is_refused_with_the_near_one(cas: Cas, home: Home, peer: Forge):
    run = cas("peers", "check", "frge")

    assert run.code == 64
    assert "did you mean `forge`?" in run.err


def test_without_a_verb_of_its_own_the_help_is_shown(cas: Cas, home: Home):
    run = cas("peers")

    assert run.code == 64
    assert run.err.startswith("Usage: cas peers ")
    assert "\n  check  Try the way to each peer" in run.err


# Trust


@pytest.fixture
def stranger(home: Home, peer: Forge) -> Forge:
    """The same peer, of which nothing is known."""
    home.known_hosts.unlink()
    return peer


def test_a_key_that_was_compared_is_known_from_then_on(cas: Cas, home: Home, stranger: Forge, message, gnupg: Key):
    message("hello.org")
    assert cas("send", "forge.docs", "hello.org", "--retries", "0").code == 3

    run = cas("peers", "trust", "forge", "--fingerprint", host_key(stranger))

    assert run.code == 0
    assert run.out == f"known from now on: [{stranger.host}]:{stranger.port} {host_key(stranger)}\n"
    assert home.known_hosts.stat().st_mode & 0o777 == 0o600
    assert cas("retry", "--all").code == 0
    known = subprocess.run(
        ["ssh-keygen", "-F", f"[{stranger.host}]:{stranger.port}", "-f", str(home.known_hosts)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "found" in known.stdout
    assert cas("peers", "trust", "forge").out.startswith("known already: ")


def test_what_is_trusted_is_told_as_json_too(cas: Cas, home: Home, stranger: Forge):
    home.peers(stranger.toml() + "[peers.local]\n")
    key = host_key(stranger)
    name = f"[{stranger.host}]:{stranger.port}"

    told = [
        json.loads(cas("peers", "trust", peer, "--fingerprint", key, "--output", "json").out)
        for peer in ("forge", "forge", "local")
    ]

    assert told == [
        {"format": "cas.trust/1", "name": "forge", "host": name, "fingerprint": key, "state": "new"},
        {"format": "cas.trust/1", "name": "forge", "host": name, "fingerprint": key, "state": "known"},
        {"format": "cas.trust/1", "name": "local", "host": None, "fingerprint": None, "state": "not-needed"},
    ]


def found(home: Home, host: str) -> bool:
    """Whether ssh-keygen finds a host in known_hosts."""
    asked = ("ssh-keygen", "-F", host, "-f", str(home.known_hosts))
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("settings", "before", "hashed"),
    [
        ("HashKnownHosts no\n", "", False),
        ("HashKnownHosts yes\n", "", True),
        ("Host 127.*\n  hashknownhosts Yes\n", "", True),
        ("", "other.example ssh-ed25519 AAAA\n|1|AAAA|AAAA ssh-ed25519 AAAA\n", True),
        ("HashKnownHosts no\n", "|1|AAAA|AAAA ssh-ed25519 AAAA\n", False),
    ],
)
def test_where_host_names_are_hashed_so_is_the_new_one(
    cas: Cas, home: Home, stranger: Forge, settings: str, before: str, hashed: bool
):
    (home.path / ".ssh" / "config").write_text(settings, encoding="utf-8")
    home.known_hosts.write_text(before, encoding="utf-8")

    run = cas("peers", "trust", "forge", "--fingerprint", host_key(stranger))

    assert run.code == 0
    assert f"[{stranger.host}]:{stranger.port} " in run.out
    new = home.known_hosts.read_text(encoding="utf-8").removeprefix(before)
    assert new.startswith("|1|") is hashed
    assert (stranger.host in new) is not hashed
    assert found(home, f"[{stranger.host}]:{stranger.port}")
    assert cas("peers", "trust", "forge").out.startswith("known already: ")


def test_another_key_than_the_one_that_is_given_is_not_taken(cas: Cas, home: Home, stranger: Forge):
    run = cas("peers", "trust", "forge", "--fingerprint", "SHA256:" + "a" * 43)

    assert run.code == 3
    assert "error[not-trusted]" in run.err
    assert not home.known_hosts.exists()


def test_a_key_that_nobody_has_compared_is_not_taken(cas: Cas, home: Home, stranger: Forge):
    run = cas("peers", "trust", "forge")

    assert run.code == 64
    assert host_key(stranger) in run.err
    assert not home.known_hosts.exists()


def test_a_key_in_place_of_a_known_one_is_never_taken(cas: Cas, home: Home, peer: Forge, tmp_path: Path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "k")], check=True)
    other = (tmp_path / "k.pub").read_text(encoding="utf-8")
    before = f"[{peer.host}]:{peer.port} {other}"
    home.known_hosts.write_text(before, encoding="utf-8")

    run = cas("peers", "trust", "forge", "--fingerprint", host_key(peer))

    assert run.code == 3
    assert "ssh-keygen -R" in run.err
    assert home.known_hosts.read_text(encoding="utf-8") == before


def test_a_revoked_key_and_one_that_is_pinned_otherwise_are_not_taken(cas: Cas, home: Home, peer: Forge):
    line = home.known_hosts.read_text(encoding="utf-8")
    home.known_hosts.write_text(f"@revoked {line}", encoding="utf-8")
    assert cas("peers", "trust", "forge", "--fingerprint", host_key(peer)).code == 3

    home.known_hosts.unlink()
    home.peers(peer.toml(host_key="SHA256:" + "a" * 43))
    assert cas("peers", "trust", "forge", "--fingerprint", host_key(peer)).code == 3
    home.peers(peer.toml(host_key=host_key(peer)))
    assert cas("peers", "trust", "forge").code == 0
    assert not home.known_hosts.exists()


def test_a_last_line_without_an_end_is_not_spoiled(cas: Cas, home: Home, stranger: Forge):
    home.known_hosts.write_text("other.example ssh-ed25519 AAAA", encoding="utf-8")

    assert cas("peers", "trust", "forge", "--fingerprint", host_key(stranger)).code == 0

    lines = home.known_hosts.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "other.example ssh-ed25519 AAAA"
    assert len(lines) == 2


def test_a_peer_that_cannot_be_reached_shows_no_key(cas: Cas, home: Home):
    home.peers('[peers.forge]\nhost = "127.0.0.1"\nport = 1\n')

    run = cas("peers", "trust", "forge", "--fingerprint", "SHA256:" + "a" * 43)

    assert run.code == 3
    assert "connection refused" in run.err

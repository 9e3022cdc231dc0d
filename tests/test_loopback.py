"""Loopback peers: real, at home elsewhere, and gone when their test is."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Forge, Home

from cas.loopback import LoopbackError, loopback_peer, require

HOLD = """
import sys, time
from pathlib import Path
from cas.loopback import loopback_peer
with loopback_peer(Path(sys.argv[1])) as peer:
    print(peer.process_id, flush=True)
    time.sleep(60)
"""


def ssh(peer: Forge, home: Home, command: str) -> str:
    known_hosts = ("-o", f"UserKnownHostsFile={home.known_hosts}", "-o", "BatchMode=yes", "-F", "none")
    login = ("-i", str(peer.identity_file), "-p", str(peer.port), f"{peer.user}@{peer.host}")
    return subprocess.run(("ssh", *known_hosts, *login, command), check=True, capture_output=True, text=True).stdout


def gone(process_id: int) -> bool:
    try:
        state = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii")
    except OSError:
        return True
    return state.rpartition(")")[2].split()[0] == "Z"


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_who_logs_in_is_at_home_in_the_peers_folder(peer: Forge, home: Home) -> None:
    assert ssh(peer, home, 'pwd; echo "$HOME"; echo ~').splitlines() == [str(peer.home)] * 3
    assert peer.home != home.path


def test_a_folder_with_spaces_and_quotes_will_do(tmp_path: Path, home: Home) -> None:
    folder = tmp_path / "it's a folder"
    folder.mkdir()

    with loopback_peer(folder) as server:
        home.known_hosts.parent.mkdir()
        home.known_hosts.write_text(server.known_hosts, encoding="ascii")

        assert ssh(Forge(server=server), home, "pwd") == f"{folder / 'home'}\n"


def test_nobody_listens_when_the_peer_has_ended(tmp_path: Path) -> None:
    with loopback_peer(tmp_path) as server:
        pass

    with socket.socket() as client:
        assert client.connect_ex((server.host, server.port)) != 0


def test_a_peer_does_not_outlive_a_killed_process(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    holder = subprocess.Popen(
        (sys.executable, "-c", HOLD, str(tmp_path)), env=environment, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    server = int(holder.stdout.readline())
    assert not gone(server)

    holder.send_signal(signal.SIGKILL)
    holder.communicate()

    assert until(lambda: gone(server))


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(LoopbackError, match="Nonsense"), loopback_peer(tmp_path, settings=("Nonsense yes",)):
        pass


def test_missing_programs_are_named_with_their_packages() -> None:
    with pytest.raises(LoopbackError, match="`no-such-program`") as caught:
        require("gpg", "no-such-program")

    assert caught.value.hint == "apt-get install no-such-program"

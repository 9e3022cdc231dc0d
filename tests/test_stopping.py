"""HALT set and lifted, here and on real peers."""

from __future__ import annotations

import io
import json
import os
import pty
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support import ROOT, Forge, Home, Run, run_with_small_files
from test_sftp import SFTP_SERVER, Server, refused, server  # noqa: F401  (a fixture)

from cas import peers, stopping
from cas.loopback import Key
from cas.output.console import Console
from cas.surroundings import read_surroundings

Cas = Callable[..., Run]
FAR = Path(".config/cross-agent-comms/HALT")
SOON = 1


def body(run: Run) -> Any:
    return json.loads(run.out)


def run_with_fault(fault: str, *argv: str, strace: tuple[str, ...] = ()) -> Run:
    """A run of cas with a fault put into its system calls."""
    words = ("strace", "-f", "-qq", "-o", "/dev/null", *strace, "-e", f"inject={fault}")
    ended = subprocess.run(
        [*words, sys.executable, "-m", "cas", *argv],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return Run(code=ended.returncode, out=ended.stdout, err=ended.stderr)


def test_halt_stops_sending_and_resume_lets_it_go_on(cas: Cas, home: Home, message):
    message("hello.org")

    run = cas("halt", "deploy", "freeze")

    assert run.code == 0
    assert "here: HALT is set" in run.out
    assert "deploy freeze (set by " in run.out
    refused = cas("send", "local.docs", "hello.org", "--no-sign")
    assert refused.code == 5
    assert "deploy freeze" in refused.err
    assert "cas resume" in refused.err
    lifted = cas("resume")
    assert lifted.code == 0
    assert "here: HALT is lifted" in lifted.out
    assert "deploy freeze" in lifted.out
    assert cas("send", "local.docs", "hello.org", "--no-sign").code == 0


def test_a_halt_that_stands_is_left_as_it_is(cas: Cas, home: Home):
    home.halt("the first reason")

    run = cas("halt", "another")

    assert run.code == 0
    assert "HALT was set already" in run.out
    assert "the first reason" in run.out
    assert (home.config / "HALT").read_text(encoding="utf-8") == "the first reason"


def test_of_many_that_halt_at_once_each_sees_one_whole_reason(cas_process, home: Home):
    runs = [cas_process("halt", f"reason-{number}") for number in range(8)]
    outs = [run.communicate(timeout=30)[0] for run in runs]

    assert [run.returncode for run in runs] == [0] * 8
    said = (home.config / "HALT").read_text(encoding="utf-8").strip()
    assert sum("HALT is set (" in out for out in outs) == 1
    assert all(said in out for out in outs)
    assert sorted(path.name for path in home.config.iterdir()) == ["HALT"]


@pytest.mark.parametrize("room", [0, 5])
def test_on_a_full_disk_halt_comes_without_its_words(home: Home, room: int):
    home.config.mkdir(parents=True)

    run = run_with_small_files(room, "halt", "wrong manifest")

    assert (run.code, run.err) == (0, "")
    halt = home.config / "HALT"
    assert run.out == f"here: HALT is set ({halt}), but its words are not all there: file too large\n"
    assert halt.read_bytes() == b""
    assert list(home.config.iterdir()) == [halt]
    refused = run_with_small_files(room, "send", "local.docs", "hello.org", "--no-sign")
    assert refused.code == 5


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("?link,linkat:error=EPERM", ""),  # a file system without hard links
        ("fsync:error=EIO:when=2", ", but it is not sure to be on disk: input/output error"),
        ("fsync:error=EIO", ", but it is not sure to be on disk: input/output error"),
    ],
)
def test_where_a_step_of_making_it_fails_halt_comes_all_the_same(home: Home, fault: str, told: str):
    run = run_with_fault(fault, "halt", "now")

    assert (run.code, run.err) == (0, "")
    assert run.out.startswith(f"here: HALT is set ({home.config / 'HALT'}){told}: now (set by ")
    assert (home.config / "HALT").read_text(encoding="utf-8").startswith("now (set by ")
    assert [path.name for path in home.config.iterdir()] == ["HALT"]


def test_resume_lifts_every_halt_that_counts_and_says_what_is_left(cas: Cas, home: Home, message):
    message("hello.org")
    home.obstruct("docs")
    assert cas("send", "local.docs", "hello.org", "--no-sign").code == 1
    home.halt("here")
    Path("other").mkdir()
    Path("other/HALT").write_text("there", encoding="utf-8")

    run = cas("resume", "--config-dir", "other")

    assert run.code == 0
    assert [line.rpartition(": ")[2] for line in run.out.splitlines()] == ["here", "there"]
    assert "1 delivery is left to finish: cas retry --all" in run.err
    assert "HALT was not set" in cas("resume").out


def test_a_halt_that_is_no_file_is_not_lifted_and_said(cas: Cas, home: Home):
    (home.config / "HALT").mkdir(parents=True)

    run = cas("resume")

    assert run.code == 1
    assert "error[not-lifted]" in run.err
    assert cas("halt").code == 0


def test_what_is_said_is_one_line_and_acts_on_no_terminal(cas: Cas, home: Home):
    run = cas("halt", "a\n\x1b[31mb\u202e")

    assert "a \\x1b[31mb\\u202e (set by" in run.out
    assert len(run.out.splitlines()) == 1
    assert "\x1b" not in run.out


def test_a_reason_in_other_bytes_than_utf_8_keeps_nobody_from_halting(cas_process, home: Home):
    run = cas_process("halt", "d\udce9ploy")

    assert run.wait(30) == 0
    assert (home.config / "HALT").read_text(encoding="utf-8").startswith("d?ploy (set by ")


def test_halt_and_resume_reach_every_peer_and_tell_each(cas: Cas, home: Home, peer: Forge, message, gnupg: Key):
    home.peers(peer.toml() + '[peers.nowhere]\nhost = "127.0.0.1"\nport = 1\n')
    message("hello.org")

    run = cas("halt", "wrong manifest", "--peers", "--yes", "--output", "json")

    assert run.code == 3
    assert [(one["name"], one["state"]) for one in body(run)["results"]] == [
        ("here", "set"),
        ("forge", "set"),
        ("nowhere", "unknown"),
    ]
    assert "not done on nowhere" in run.err
    assert "wrong manifest (set by " in (peer.home / FAR).read_text(encoding="utf-8")
    assert os.listdir((peer.home / FAR).parent) == ["HALT"]
    assert "HALT was set already" in cas("halt", "--peers", "--yes").out
    status = cas("status", "--peers")
    assert status.code == 0
    assert "forge: HALT is set: wrong manifest" in status.out
    assert "nowhere: nobody knows whether HALT is set" in status.out
    home.peers(peer.toml())
    lifted = cas("resume", "--peers", "--yes")
    assert lifted.code == 0
    assert not (peer.home / FAR).exists()
    assert "forge: HALT is lifted" in lifted.out
    assert "forge: HALT was not set" in cas("resume", "--peers", "--yes").out
    told = body(cas("status", "--peers", "--output", "json"))["peers"]
    assert told == [{"name": "forge", "halt": "as-before", "words": ""}]


def test_a_peers_toml_that_cannot_be_read_keeps_nobody_from_halting_here(cas: Cas, home: Home):
    home.peers("[peers.forge\n")

    run = cas("halt", "now", "--peers", "--yes")

    assert run.code == 1
    assert "HALT is set here" in run.err
    assert "error[invalid-peers]" in run.err
    assert (home.config / "HALT").read_text(encoding="utf-8").startswith("now (set by ")


def test_where_halt_cannot_be_set_here_the_peers_are_halted_all_the_same(home: Home, peer: Forge):
    halt = ("-P", str(home.config / "HALT"))

    run = run_with_fault("?link,linkat,openat:error=ENOSPC", "halt", "now", "--peers", "--yes", strace=halt)

    assert run.code == 1
    assert f"here: HALT was NOT set ({home.config / 'HALT'}): " in run.out
    assert "cannot be written: no space left on device" in run.out
    assert "error: not done on here\n" in run.err
    assert (peer.home / FAR).read_text(encoding="utf-8").startswith("now (set by ")
    assert not (home.config / "HALT").exists()


# (rules for the server, what is done before it starts, its arguments); and what is told
ODD = {
    "no-room": (((), "trap '' XFSZ; ulimit -f 0", ()), ", but its words are not all there: the SFTP server failed"),
    "no-links": (((refused("hardlink"),), ":", ()), ": now (set by "),
    "no-word-of-links": (((), ":", ("-P", "hardlink,posix-rename")), ": now (set by "),
    "no-sync": (((refused("fsync"),), ":", ()), ", but it is not sure to be on disk: the SFTP server failed"),
    "no-late-sync": (((refused("fsync", skip=1),), ":", ()), ", but it is not sure to be on disk: "),
}


@pytest.mark.parametrize("odd", ODD)
def test_a_peer_where_halt_cannot_be_made_whole_is_halted_all_the_same(
    cas: Cas,
    server: Server,  # noqa: F811
    odd: str,
):
    (rules, before, arguments), told = ODD[odd]
    with server(*rules, before=before, arguments=arguments) as way:
        run = cas("halt", "now", "--peers", "--yes")

        assert run.code == 0
        assert f"forge: HALT is set (127.0.0.1){told}" in run.out
        assert os.listdir((way.folder.parents[3] / FAR).parent) == ["HALT"]
        assert "forge: HALT was set already" in cas("halt", "--peers", "--yes").out
        assert "forge: HALT is lifted" in cas("resume", "--peers", "--yes").out


def test_a_peer_that_is_this_machine_has_the_halt_from_here(cas: Cas, home: Home, peer: Forge):
    this = socket.gethostname().partition(".")[0]
    unreachable = 'host = "127.0.0.1"\nport = 1\n'
    home.peers(f'{peer.toml()}[peers."{this}"]\n{unreachable}[peers.local]\n{unreachable}')
    halt = home.config / "HALT"

    run = cas("halt", "now", "--peers", "--yes")

    assert run.code == 0
    assert [line.partition(": now")[0] for line in run.out.splitlines()] == [
        f"here: HALT is set ({halt})",
        *(f"{name} (this machine): HALT is set ({halt})" for name in sorted([this, "local"])),
        "forge: HALT is set (127.0.0.1)",
    ]
    assert f"{this} (this machine): HALT is set: now " in cas("status", "--peers").out
    lifted = body(cas("resume", "--peers", "--yes", "--output", "json"))["results"]
    assert [(one["name"], one["state"], one["local"]) for one in lifted] == [
        ("here", "set", True),
        *((name, "set", True) for name in sorted([this, "local"])),
        ("forge", "set", False),
    ]
    assert not halt.exists()
    assert f"{this} (this machine): HALT is not set" in cas("status", "--peers").out


DRIBBLING = """
import subprocess, sys, time
server = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)
while byte := server.stdout.read(1):
    sys.stdout.buffer.write(byte)
    sys.stdout.buffer.flush()
    time.sleep(0.1)
"""


@pytest.mark.parametrize("verb", ["halt", "resume", "status", "check"])
def test_a_peer_that_never_comes_to_an_end_is_given_up(home: Home, server: Server, verb: str):  # noqa: F811
    around = read_surroundings(None, None)
    console = Console(out=io.StringIO(), err=io.StringIO())
    words = f"within {SOON} seconds"
    with server(command=shlex.join(["exec", sys.executable, "-c", DRIBBLING, SFTP_SERVER])) as way:
        begun = time.monotonic()
        match verb:
            case "halt":
                code = stopping.halt("now", everywhere=True, yes=True, around=around, console=console, bound=SOON)
            case "resume":
                code = stopping.resume(everywhere=True, yes=True, around=around, console=console, bound=SOON)
            case "status":
                (found,) = stopping.standing_there(around, console, bound=SOON)
                code, words = (3, found.words) if found.state is stopping.State.FAILED else (0, "")
                console.result(words)
            case "check":
                code = peers.check([], around, console, bound=SOON)
        took = time.monotonic() - begun

    assert code == 3
    assert words in console.out.getvalue()
    assert SOON <= took < 5
    assert not (way.folder.parents[3] / FAR).exists()


def test_without_a_terminal_and_without_yes_nothing_is_done(cas: Cas, home: Home, peer: Forge):
    for verb in ("halt", "resume"):
        run = cas(verb, "--peers")
        assert run.code == 64
        assert "error[not-asked]" in run.err
    assert not (home.config / "HALT").exists()
    assert not (peer.home / FAR).exists()


class Terminal:
    """A terminal of its own: what is shown on it, and a person who answers the first question that is seen."""

    def __init__(self) -> None:
        self._master, self.slave = pty.openpty()
        self.shown = bytearray()
        self.asked = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def answer(self, answer: bytes) -> None:
        os.write(self._master, answer)

    def ended(self) -> str:
        """All that was shown, once nobody has it open any more."""
        os.close(self.slave)
        self._reader.join(10)
        os.close(self._master)
        return self.shown.decode()

    def _read(self) -> None:
        with suppress(OSError):
            while piece := os.read(self._master, 4096):
                self.shown.extend(piece)
                if b"[y/N]" in self.shown:
                    self.asked.set()


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 1), (b"\n", 1), (b"\x04", 1)])
def test_on_a_terminal_it_is_asked(home: Home, peer: Forge, cas_process, answer: bytes, code: int):
    terminal = Terminal()
    run = cas_process("halt", "--peers", stdin=terminal.slave, stdout=terminal.slave, stderr=terminal.slave)
    assert terminal.asked.wait(30)
    terminal.answer(answer)

    assert run.wait(30) == code
    assert "Set HALT here and on forge?" in terminal.ended()
    assert (peer.home / FAR).exists() == (code == 0)
    assert (home.config / "HALT").exists() == (code == 0)


@pytest.mark.parametrize("verb", [("halt", "--peers"), ("resume", "--peers"), ("peers", "trust", "forge")])
def test_a_question_is_asked_among_the_words_and_leaves_the_result_alone(
    home: Home, peer: Forge, cas_process, verb: tuple[str, ...]
):
    home.known_hosts.unlink()
    keys, results, words = Terminal(), Terminal(), Terminal()
    run = cas_process(*verb, "--output", "json", stdin=keys.slave, stdout=results.slave, stderr=words.slave)
    assert words.asked.wait(30)
    shown_by_then = bytes(results.shown)
    keys.answer(b"n\n")

    assert run.wait(30) == 1
    assert shown_by_then == b""
    assert "[y/N]" not in keys.ended()
    assert "format" in json.loads(results.ended())
    words.ended()


def test_a_question_goes_to_the_result_where_nobody_sees_the_words(home: Home, peer: Forge, cas_process):
    keys, results = Terminal(), Terminal()
    run = cas_process("halt", "--peers", stdin=keys.slave, stdout=results.slave)
    assert results.asked.wait(30)
    keys.answer(b"y\n")

    assert "[y/N]" not in run.communicate(timeout=30)[1]
    assert run.returncode == 0
    assert "Set HALT here and on forge?" in results.ended()
    keys.ended()


@pytest.mark.parametrize("verb", [("halt", "--peers"), ("peers", "trust", "forge")])
def test_a_question_that_nobody_would_see_is_not_asked(home: Home, peer: Forge, cas_process, verb: tuple[str, ...]):
    home.known_hosts.unlink()
    keys, results = Terminal(), Terminal()
    run = cas_process(*verb, "--output", "json", stdin=keys.slave, stdout=results.slave)

    assert "error[not-" in run.communicate(timeout=30)[1]
    assert run.returncode == 64
    assert "[y/N]" not in results.ended()
    assert not (home.config / "HALT").exists()
    assert not home.known_hosts.exists()
    keys.ended()


def test_the_names_in_a_question_act_on_no_terminal(home: Home, cas_process):
    home.peers('[peers."a\\u001b[31mb"]\nhost = "127.0.0.1"\nport = 1\n')
    terminal = Terminal()
    words = ("halt", "--peers", "--color", "never")
    run = cas_process(*words, stdin=terminal.slave, stdout=terminal.slave, stderr=terminal.slave)
    assert terminal.asked.wait(30)
    terminal.answer(b"n\n")

    assert run.wait(30) == 1
    assert "\x1b[31m" not in terminal.ended()

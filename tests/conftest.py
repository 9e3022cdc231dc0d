"""Fixtures on real components: homes, gpg keys, OpenSSH peers, runs of cas. What is missing fails; nothing skips."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import support
from cluster import Cluster, cluster
from support import Forge, Home, Run

from cas.loopback import Key, end_agent, loopback_peer, require, throwaway_key

# Under nohup it is ignored, and so it would be by what the tests start.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
# Nor SIGINT, as a shell without job control has for what it starts behind itself.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def _programs() -> None:
    require("gpg", "gpgconf", "ssh", "ssh-keygen", "sshd", "rsync")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """An empty home, entered: the environment names it, and the working directory makes the sender `builder`."""
    home = Home(path=(tmp_path / "home").resolve())
    builder = home.projects / "builder"
    builder.mkdir(parents=True)
    for name in os.environ:
        if name in support.CLEARED or name.startswith(support.CLEARED_PREFIXES):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home.path))
    monkeypatch.chdir(builder)
    yield home
    if (home.path / ".gnupg").exists():
        end_agent(home.path / ".gnupg")


@pytest.fixture(scope="session")
def throwaway() -> Iterator[Key]:
    """One key for all tests of a process, in a folder whose path is short enough for gpg-agent's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="cas-"))
    try:
        with throwaway_key(folder) as key:
            yield key
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def gnupg(home: Home, throwaway: Key, monkeypatch: pytest.MonkeyPatch) -> Key:
    """The default key is a throw-away one."""
    monkeypatch.setenv("GNUPGHOME", str(throwaway.gnupghome))
    return throwaway


@pytest.fixture
def peer(home: Home, tmp_path: Path) -> Iterator[Forge]:
    """`forge` in peers.toml and known_hosts: an sshd of this test's own, whose user has another home than ours."""
    folder = tmp_path / "forge"
    folder.mkdir()
    with loopback_peer(folder) as server:
        forge = Forge(server=server)
        home.peers(forge.toml())
        home.known_hosts.parent.mkdir(mode=0o700, exist_ok=True)
        with home.known_hosts.open("a", encoding="utf-8") as known_hosts:
            known_hosts.write(server.known_hosts)
        yield forge


@pytest.fixture(scope="session")
def dask_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Dask cluster of two workers, one for all tests of a process; they know no host key, and log in as nobody."""
    with cluster(tmp_path_factory.mktemp("dask") / "cluster") as made:
        yield made


@pytest.fixture
def cas(home: Home) -> Callable[..., Run]:
    """`cas(*argv, stdin=None)` in this process."""
    return support.called


@pytest.fixture
def cas_process(home: Home) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`cas_process(*argv, **popen)`: a process of its own, with pipes; ended after the test if it still runs."""
    started: list[subprocess.Popen[str]] = []

    def start(*argv: str | Path, **popen: object) -> subprocess.Popen[str]:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        options = {"env": {**os.environ, "PYTHONPATH": str(ROOT)}, "text": True, **streams, **popen}
        started.append(subprocess.Popen([sys.executable, "-m", "cas", *map(str, argv)], **options))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def message(home: Home) -> Callable[..., Path]:
    """`message(path, body=…, **frontmatter)` writes a sound message; the path is relative to the project."""
    return support.message


@pytest.fixture
def pairs() -> Callable[[Path], tuple[str, ...]]:
    """`pairs(inbox)`: the visible `.org` and `.asc` names."""
    return support.pairs


@pytest.fixture
def verify(gnupg: Key) -> Callable[..., str]:
    """`verify(path)`: the fingerprint that signed a message well; fails where none did."""
    return support.verify

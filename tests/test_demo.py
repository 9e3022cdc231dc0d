"""`cas demo`, as somebody runs it who has just cloned the project."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import Home

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder for temporary files; its path is short, since gpg-agent's sockets will lie below it."""
    folder = Path(tempfile.mkdtemp(prefix="cas-"))
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder)


def files(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()]


def processes(folder: Path) -> list[bytes]:
    """The command lines that name a folder: servers, agents, and what they started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes())
        except OSError:  # it has ended meanwhile
            continue
    return [line for line in found if os.fsencode(folder) in line]


def test_the_demo_delivers_signed_messages_to_both_inboxes_once(cas_process: Start, temporary: Path) -> None:
    demo = cas_process("demo")

    out, err = demo.communicate(timeout=60)

    assert (demo.returncode, err) == (0, "")
    docs, site = out.partition("What arrived:")[2].split("forge.site")
    assert (docs.count("good signature"), site.count("good signature")) == (2, 2)
    assert (docs.count(".org.asc"), site.count(".org.asc")) == (2, 2)
    assert "no .org was there without its .asc" in out
    assert "unchanged: 4" in out
    assert "\x1b" not in out


def test_the_demo_leaves_nothing_behind(cas_process: Start, temporary: Path, home: Home) -> None:
    demo = cas_process("demo")

    demo.communicate(timeout=60)

    assert files(home.path) == []
    assert list(temporary.iterdir()) == []
    assert processes(temporary) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_demo_that_is_interrupted_leaves_nothing_behind(
    cas_process: Start, temporary: Path, home: Home, number: signal.Signals
) -> None:
    demo = cas_process("demo")
    assert demo.stdout is not None
    while "$ cas apply" not in demo.stdout.readline():
        assert demo.poll() is None

    demo.send_signal(number)
    _, err = demo.communicate(timeout=60)

    assert demo.returncode == 128 + number
    assert "Traceback" not in err
    assert files(home.path) == []
    assert list(temporary.iterdir()) == []
    assert processes(temporary) == []


def test_a_missing_program_is_named_with_the_command_that_installs_it(
    cas_process: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    demo = cas_process("demo")

    out, err = demo.communicate(timeout=60)

    assert demo.returncode == 1
    assert out == ""
    assert "`gpg`" in err
    assert "apt-get install gnupg openssh-client" in err

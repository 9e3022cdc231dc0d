"""The doctor on sound and on broken machines; and completion in real shells."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import Home, Run

from cas.loopback import Key, end_agent

Cas = Callable[..., Run]
ROOT = Path(__file__).resolve().parent.parent


def looked(cas: Cas) -> dict[str, list[dict[str, Any]]]:
    """What was looked at, by name; every error makes the exit code 1."""
    run = cas("doctor", "--output", "json")
    found: dict[str, list[dict[str, Any]]] = {}
    for one in json.loads(run.out)["checks"]:
        found.setdefault(one["what"], []).append(one)
    assert run.code == any(one["level"] == "error" for some in found.values() for one in some)
    assert "Traceback" not in run.err
    return found


def level(found: dict[str, list[dict[str, Any]]], what: str) -> str:
    (one,) = found[what]
    return str(one["level"])


def test_a_sound_machine_has_no_error(cas: Cas, home: Home, gnupg: Key, message):
    message("hello.org")
    home.known_hosts.parent.mkdir()
    home.known_hosts.touch()
    assert cas("send", "local.docs", "hello.org").code == 0

    run = cas("doctor")

    assert run.code == 0
    assert {line.split()[0] for line in run.out.splitlines()} == {"ok"}
    assert {"Python", "gpg", "gpg-agent", "signing key", "peers.toml", "state", "ledger", "known_hosts", "HALT"} <= set(
        looked(cas)
    )


def test_a_machine_on_which_nothing_was_done_yet_is_sound(cas: Cas, home: Home, gnupg: Key):
    found = looked(cas)

    assert "error" not in {one["level"] for some in found.values() for one in some}
    assert "nothing was sent from here yet" in found["state"][0]["words"]
    assert "no host is known\n           cas peers trust NAME\n" in cas("doctor").out
    assert not home.state.exists()
    assert not home.config.exists()


@pytest.fixture
def empty_ring(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cas-") as folder:
        monkeypatch.setenv("GNUPGHOME", folder)
        yield Path(folder)
        end_agent(Path(folder))


def test_without_a_key_that_can_sign_it_says_how_to_make_one(cas: Cas, home: Home, empty_ring: Path):
    found = looked(cas)

    assert level(found, "signing key") == "error"
    assert "--quick-generate-key" in found["signing key"][0]["cure"]


def test_a_key_that_expires_soon_is_a_warning(cas: Cas, home: Home, empty_ring: Path):
    words = ("--batch", "--quiet", "--passphrase", "", "--quick-generate-key", "soon <s@x>", "ed25519", "sign", "10d")
    subprocess.run(("gpg", *words), check=True, capture_output=True)

    found = looked(cas)

    assert level(found, "signing key") == "warning"
    assert "--quick-set-expire" in found["signing key"][0]["cure"]


def test_without_programs_it_says_what_is_missing(cas: Cas, home: Home, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")

    found = looked(cas)

    assert [level(found, name) for name in ("gpg", "ssh", "rsync")] == ["error", "note", "note"]
    assert level(found, "signing key") == "error"
    assert found["gpg"][0]["cure"] == "install it: apt install gnupg"


def test_an_agent_that_hangs_is_told_in_time(cas: Cas, home: Home, gnupg: Key, tmp_path: Path, monkeypatch):
    from cas import doctor

    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "gpg-connect-agent").write_text("#!/bin/sh\nexec sleep 60\n", encoding="utf-8")
    (programs / "gpg-connect-agent").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(doctor, "PATIENCE", 1)

    found = looked(cas)

    assert level(found, "gpg-agent") == "error"
    assert found["gpg-agent"][0]["cure"].endswith("gpgconf --kill gpg-agent")


def test_peers_toml_is_looked_into(cas: Cas, home: Home, gnupg: Key):
    home.peers("[peers.forge\n")
    assert level(looked(cas), "peers.toml") == "error"

    home.peers("[peers.forge]\nprt = 1\n")
    assert [one["level"] for one in looked(cas)["peers.toml"]] == ["warning", "ok"]


def test_who_else_may_write_is_a_warning(cas: Cas, home: Home, gnupg: Key):
    home.peers("")
    home.config.chmod(0o777)
    home.state.mkdir(parents=True)
    home.state.chmod(0o775)

    found = looked(cas)

    assert (level(found, "configuration"), level(found, "state")) == ("warning", "warning")
    assert found["state"][0]["cure"] == f"chmod go-w {home.state}"


def test_a_state_folder_that_is_a_file_and_a_ledger_that_is_none_are_errors(cas: Cas, home: Home, gnupg: Key):
    home.state.parent.mkdir(parents=True)
    home.state.write_text("a file", encoding="utf-8")
    assert level(looked(cas), "state") == "error"

    home.state.unlink()
    home.state.mkdir()
    (home.state / "ledger.sqlite").write_bytes(b"no database at all" * 100)
    found = looked(cas)
    assert level(found, "ledger") == "error"
    assert "mv " in found["ledger"][0]["cure"]


def test_what_waits_and_halt_are_told(cas: Cas, home: Home, gnupg: Key, message):
    message("hello.org")
    home.obstruct("docs")
    cas("send", "local.docs", "hello.org", "--no-sign")
    home.halt("moving")

    found = looked(cas)

    assert level(found, "failed sends") == "warning"
    assert level(found, "HALT") == "warning"
    assert "moving" in found["HALT"][0]["words"]


def test_lines_of_known_hosts_that_are_passed_over_are_named(cas: Cas, home: Home, gnupg: Key):
    home.known_hosts.parent.mkdir()
    home.known_hosts.write_text("# words\n\nhost ssh-ed25519 AAAA\n@cert-authority * ssh-ed25519 AAAA\nhalf a-line\n")

    found = looked(cas)

    assert level(found, "known_hosts") == "note"
    assert "4, 5" in found["known_hosts"][0]["words"]


def test_without_a_home_it_still_says_all(cas: Cas, home: Home, monkeypatch):
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setenv("GNUPGHOME", "/nonexistent")

    found = looked(cas)

    assert level(found, "signing key") == "error"
    assert level(found, "Python") == "ok"


# Completion


@pytest.fixture
def programs(home: Home, tmp_path: Path) -> Path:
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "cas").write_text(f'#!/bin/sh\nexec {sys.executable} -m cas "$@"\n', encoding="utf-8")
    (folder / "cas").chmod(0o755)
    return folder


def completed(shell: str, script: str, programs: Path) -> str:
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [shell, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    return ended.stdout


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (("cas", "val"), {"validate"}),
        (("cas", "send", "--no"), {"--no-sign"}),
        (("cas", "send", "for"), {"forge.docs"}),
        (("cas", "send", "@"), {"@all"}),
        (("cas", "send", "local.b"), {"local.builder"}),
        (("cas", "peers", "check", ""), {"forge"}),
        (("cas", "inbox", "d"), {"docs"}),
        (("cas", "completion", "b"), {"bash"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bash_completes_verbs_options_peers_projects_and_groups(
    home: Home, programs: Path, typed: tuple[str, ...], expected: set[str]
):
    home.peers('[peers.forge]\n[projects.docs]\ninbox_path = "~/d"\n[groups]\nall = ["forge.docs"]\n')
    words = " ".join(f"'{word}'" for word in typed)
    script = (
        f'eval "$(cas completion bash)"; COMP_WORDS=({words}); COMP_CWORD={len(typed) - 1};'
        ' _cas_completion cas; printf "%s\\n" "${COMPREPLY[@]}"'
    )

    assert set(completed("bash", script, programs).split()) == expected


def test_completion_says_nothing_where_peers_toml_cannot_be_read(home: Home, programs: Path):
    home.peers("[peers.forge\n")
    script = 'eval "$(cas completion bash)"; COMP_WORDS=(cas send f); COMP_CWORD=2; _cas_completion cas'

    script += '; echo "${#COMPREPLY[@]}"'
    assert completed("bash", script, programs) == "0\n"


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_scripts_for_other_shells_are_sound(cas: Cas, home: Home, programs: Path, tmp_path: Path, shell: str):
    run = cas("completion", shell)

    assert run.code == 0
    assert "_CAS_COMPLETE" in run.out
    if shutil.which(shell):
        script = tmp_path / f"cas.{shell}"
        script.write_text(run.out, encoding="utf-8")
        subprocess.run([shell, "-n", str(script)], check=True)


def test_no_other_shell_is_offered(cas: Cas, home: Home):
    assert cas("completion", "tcsh").code == 64

"""The command line: what it takes, what it refuses, and what its help shows."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Home, Run, as_another, called

from cas import __version__
from cas.loopback import Key

ROOT = Path(__file__).resolve().parent.parent
VERBS = ("send", "validate", "plan", "apply", "retry", "status", "prune", "schema", "init", "new", "demo")
MANIFEST = """\
cas: 1
defaults: {sign: false}
sends:
  - {id: hello, destination: local.docs, message: hello.org}
"""


@pytest.fixture
def manifest(home: Home, message: Callable[..., Path]) -> Path:
    message("hello.org")
    path = Path("release.yaml")
    path.write_text(MANIFEST, encoding="utf-8")
    return path


# Wrong usage


@pytest.mark.parametrize(
    "argv",
    [
        ("nonsense",),
        ("--nonsense",),
        ("send",),
        ("send", "local.docs"),
        ("send", "local.docs", "hello.org", "more.org"),
        ("send", "local.docs", "hello.org", "--nonsense"),
        ("send", "local.docs", "hello.org", "--retries"),
        ("send", "local.docs", "hello.org", "--retries", "-1"),
        ("send", "local.docs", "hello.org", "--retries", "101"),
        ("send", "local.docs", "hello.org", "--retries", "many"),
        ("send", "local.docs", "hello.org", "--retries", "1.5"),
        ("send", "local.docs", "hello.org", "--key"),
        ("send", "local.docs", "hello.org", "--sender"),
        ("send", "local.docs", "hello.org", "--no-sign", "--key", "BOB"),
        ("send", "local.docs", "hello.org", "--no-sign", "--sender", "../x"),
        ("send", "local.docs", "hello.org", "--no-sign", "--sender", ""),
        ("send", "local.docs", "hello.org", "--output", "xml"),
        ("send", "local.docs", "hello.org", "--color", "blue"),
        ("validate",),
        ("plan",),
        ("apply",),
        ("apply", "release.yaml", "--output"),
        ("apply", "release.yaml", "--config-dir", "release.yaml"),
        ("apply", "release.yaml", "--state-dir", "release.yaml"),
        ("schema",),
        ("schema", "manifest", "more"),
        ("schema", "nothing"),
        ("schema", "../schemas/manifest"),
        ("demo", "more"),
        ("new", "a.org", "b.org"),
        ("new", "a.org", "--type", "nonsense"),
        ("init", "release.yaml"),
        ("init", "a", "b"),
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_64_says_so_and_sends_nothing(
    cas: Callable[..., Run], home: Home, manifest: Path, argv: tuple[str, ...]
):
    run = cas(*argv)

    assert run.code == 64
    assert run.err != ""
    assert "Traceback" not in run.err
    assert run.err.endswith("nothing was sent\n") == (argv[0] in ("send", "apply"))
    assert not home.inbox("docs").exists()


@pytest.mark.parametrize("option", ["--no-si", "--no", "--ke", "--retr", "--out"])
def test_an_option_that_is_cut_short_is_refused(cas: Callable[..., Run], home: Home, manifest: Path, option: str):
    run = cas("send", "local.docs", "hello.org", option)

    assert run.code == 64
    assert option in run.err
    assert not home.inbox("docs").exists()


def test_a_mistyped_option_is_told_the_near_one(cas: Callable[..., Run], manifest: Path):
    run = cas("send", "local.docs", "hello.org", "--no-sing")

    assert "--no-sign" in run.err


def test_wrong_usage_is_said_on_standard_error_only(cas: Callable[..., Run], home: Home):
    assert cas("nonsense").out == ""


def test_wrong_usage_comes_before_halt(cas: Callable[..., Run], home: Home, manifest: Path):
    home.halt()

    assert cas("apply", "--nonsense").code == 64


def test_an_unknown_schema_lists_those_that_there_are(cas: Callable[..., Run], home: Home):
    run = cas("schema", "nothing")

    assert run.code == 64
    assert "no schema `nothing`" in run.err
    assert "manifest" in run.err


def test_the_schema_of_manifests_is_the_one_in_the_tree(cas: Callable[..., Run], home: Home):
    run = cas("schema", "manifest")

    assert run.code == 0
    assert json.loads(run.out) == json.loads((ROOT / "schemas" / "manifest.schema.json").read_text(encoding="utf-8"))


# Options


OPTIONS = ("--no-sign", "--quiet", "--output=json")


@pytest.mark.parametrize(
    "argv",
    [
        ("send", *OPTIONS, "local.docs", "hello.org"),
        ("send", "local.docs", *OPTIONS, "hello.org"),
        ("send", "local.docs", "hello.org", *OPTIONS),
    ],
    ids=["before", "between", "after"],
)
def test_options_work_wherever_they_stand_after_the_verb(
    cas: Callable[..., Run], manifest: Path, argv: tuple[str, ...]
):
    run = cas(*argv)

    assert run.code == 0
    assert json.loads(run.out)["counts"]["delivered"] == 1


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_the_options_that_all_have(cas: Callable[..., Run], home: Home, verb: str):
    text = cas(verb, "--help").out

    for option in ("--output", "--config-dir", "--state-dir", "--quiet", "--verbose", "--color", "--help"):
        assert option in text


def test_a_message_whose_name_begins_with_a_dash_can_be_sent_after_two_dashes(
    cas: Callable[..., Run], message: Callable[..., Path]
):
    message("-hello.org")

    assert cas("send", "--no-sign", "--", "local.docs", "-hello.org").code == 0


def test_the_sender_can_be_named(cas: Callable[..., Run], home: Home, manifest: Path, pairs: Callable[..., object]):
    run = cas("send", "local.docs", "hello.org", "--no-sign", "--sender", "docs-team")

    assert run.code == 0
    assert "-from-docs-team-greeting.org" in run.out


def test_a_working_folder_that_cannot_name_a_sender_asks_for_one(
    cas: Callable[..., Run], home: Home, message: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    message("hello.org")
    odd = home.path / "-odd"
    odd.mkdir()
    content = Path("hello.org").resolve()
    monkeypatch.chdir(odd)

    run = cas("send", "local.docs", content, "--no-sign")

    assert run.code == 1
    assert "--sender NAME" in run.err


def test_a_sender_that_cannot_be_a_name_is_refused_by_name(cas: Callable[..., Run], manifest: Path):
    run = cas("send", "local.docs", "hello.org", "--no-sign", "--sender", "a/../b")

    assert run.code == 64
    assert "`a/../b` cannot name a sender" in run.err


# Folders


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A configuration folder that sends the project `docs` to an inbox of its own."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "peers.toml").write_text('[projects.docs]\ninbox_path = "~/projects/other/inbox"\n', encoding="utf-8")
    return folder


def test_the_configuration_folder_can_come_from_the_environment(
    cas: Callable[..., Run], home: Home, manifest: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CAS_CONFIG_DIR", str(elsewhere))

    run = cas("apply", manifest)

    assert run.code == 0
    assert len(list((home.projects / "other" / "inbox").glob("*.org"))) == 1


def test_the_configuration_folder_of_the_command_line_comes_before_that_of_the_environment(
    cas: Callable[..., Run], home: Home, manifest: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CAS_CONFIG_DIR", str(home.path / "nowhere"))

    run = cas("apply", manifest, "--config-dir", elsewhere)

    assert run.code == 0
    assert len(list((home.projects / "other" / "inbox").glob("*.org"))) == 1


def test_an_empty_variable_is_none(
    cas: Callable[..., Run], home: Home, manifest: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CAS_CONFIG_DIR", "")
    monkeypatch.setenv("CAS_STATE_DIR", "")
    home.halt()

    assert cas("apply", manifest).code == 5


@pytest.mark.parametrize("where", ["default", "chosen"])
def test_halt_counts_in_the_default_folder_and_in_the_chosen_one(
    cas: Callable[..., Run], home: Home, manifest: Path, elsewhere: Path, where: str
):
    if where == "default":
        home.halt()
    else:
        (elsewhere / "HALT").touch()

    assert cas("apply", manifest, "--config-dir", elsewhere).code == 5
    assert not (home.projects / "other").exists()


@pytest.mark.parametrize("way", ["environment", "option"])
def test_markers_go_to_the_chosen_state_folder(
    cas: Callable[..., Run], home: Home, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
):
    home.peers('[peers.forge]\nhost = "127.0.0.1"\nport = 1\n')
    state = tmp_path / "state"
    if way == "environment":
        monkeypatch.setenv("CAS_STATE_DIR", str(state))
    options = ("--state-dir", state) if way == "option" else ()

    run = cas("send", "forge.docs", "hello.org", "--no-sign", "--retries", "0", *options)

    assert run.code == 3
    assert len(list((state / "failed-sends").glob("*.json"))) == 1
    assert home.markers() == ()


# Help


def test_without_a_verb_the_help_is_shown_and_the_code_is_that_of_wrong_usage(cas: Callable[..., Run], home: Home):
    run = cas()

    assert run.code == 64
    assert "Usage: cas" in run.out + run.err


def test_the_version_is_that_of_the_package(cas: Callable[..., Run], home: Home):
    run = cas("--version")

    assert (run.code, run.out) == (0, f"cas {__version__}\n")


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_names_every_verb_and_the_exit_codes(cas: Callable[..., Run], home: Home, option: str):
    run = cas(option)

    assert run.code == 0
    assert all(re.search(rf"^  {verb}\b", run.out, re.MULTILINE) for verb in VERBS)
    assert all(f"{code} " in run.out for code in (0, 1, 2, 3, 4, 5, 64))


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_says_how_it_is_used(cas: Callable[..., Run], home: Home, verb: str):
    run = cas(verb, "--help")

    assert run.code == 0
    assert run.out.startswith(f"Usage: cas {verb} ")
    assert max(map(len, run.out.splitlines())) <= 80


@pytest.mark.parametrize("verb", VERBS)
def test_halt_does_not_stop_help(cas: Callable[..., Run], home: Home, verb: str):
    home.halt()

    assert cas(verb, "--help").code == 0


def examples() -> list[str]:
    """The commands that any help text shows, as they stand there."""
    shown = []
    for argv in ((), *((verb,) for verb in VERBS)):
        text = subprocess.run(
            [sys.executable, "-m", "cas", *argv, "--help"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        shown += re.findall(rf"^ +((?:\w+ \| )?cas (?:{'|'.join(VERBS)}) .*?)(?:   .*)?$", text, re.MULTILINE)
    return sorted(set(shown))


def test_the_help_shows_examples():
    assert len(examples()) >= 5


@pytest.mark.parametrize("command", examples())
def test_an_example_of_the_help_works(
    home: Home, gnupg: Key, message: Callable[..., Path], tmp_path: Path, command: str
):
    """Run by a shell as it stands; the key in it is exchanged for one that exists, and `laptop` is this machine."""
    message("hello.org")
    Path("release.yaml").write_text(MANIFEST, encoding="utf-8")
    if "release.plan" in command and " -o " not in command:
        assert called("plan", "release.yaml", "-o", "release.plan").code == 0
    if "release.bundle" in command and "--bundle" not in command:
        seal = ("--seal-with", gnupg.fingerprint)
        assert called("plan", "release.yaml", "--bundle", "release.bundle", *seal).code == 0
    if "shard-" in command:
        assert called("apply", "release.plan", "--shard", "1/1", "--state-dir", "shard-1").code == 0
    programs = tmp_path / "bin"
    programs.mkdir()
    _program(programs / "cas", f'exec {shlex.quote(sys.executable)} -m cas "$@"')
    _program(programs / "generate", "cat hello.org")
    here = os.uname().nodename.partition(".")[0]
    line = re.sub(r"[0-9A-F]{40}", gnupg.fingerprint, command.replace("FINGERPRINT", gnupg.fingerprint)).replace(
        "laptop.", f"{here}."
    )

    run = subprocess.run(
        ["sh", "-c", line],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (run.returncode, run.stderr.count("Traceback")) == (0, 0), run.stderr


def _program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


def test_python_dash_m_cas_is_the_command(cas_process: Callable[..., subprocess.Popen[str]]):
    out, _ = cas_process("--version").communicate(timeout=60)

    assert out == f"cas {__version__}\n"


@pytest.mark.parametrize(("to", "code"), [(">&-", 0), (">/dev/full", 1)], ids=["closed", "full"])
def test_a_version_that_nobody_takes_is_no_success_unless_nobody_wanted_it(home: Home, to: str, code: int):
    command = shlex.join([sys.executable, "-m", "cas", "--version"])

    run = subprocess.run(
        ["sh", "-c", f"{command} {to}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert run.returncode == code


@pytest.mark.parametrize(
    "argv",
    [
        ("send", "local.docs", "closed", "--no-sign"),
        ("validate", "closed"),
        ("plan", "closed"),
        ("apply", "closed"),
        ("show", "closed"),
        ("verify", "closed"),
        ("read", "closed"),
        ("new", "--reply-to", "closed", "answer.org"),
    ],
)
def test_a_file_that_may_not_be_read_is_no_wrong_usage(home: Home, argv: tuple[str, ...]):
    Path("closed").write_text("x", encoding="utf-8")
    Path("closed").chmod(0)

    run = as_another(*argv)

    assert run.code == 1
    assert "error[" in run.out + run.err
    assert "permission denied" in run.out + run.err
    assert "Traceback" not in run.err

"""What a run loads: the command line is quick because it loads little."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Home

ROOT = Path(__file__).resolve().parent.parent
HEAVY = frozenset({"fabric", "paramiko", "jinja2", "jsonschema", "rich", "yaml"})
CONNECTING = frozenset({"fabric", "paramiko", "invoke", "cryptography"})
ACTING = frozenset({"sqlite3", "concurrent", "ctypes"})
# What each verb may not load, with a manifest for this machine and without a terminal.
FORBIDDEN = {
    "--version": HEAVY | CONNECTING | ACTING | {"click", "pathlib", "dataclasses", "typing", "enum", "json"},
    "--help": HEAVY | CONNECTING | ACTING | {"pathlib", "json", "hashlib", "subprocess", "tomllib"},
    "send --help": HEAVY | CONNECTING | ACTING | {"pathlib", "json", "hashlib", "subprocess", "tomllib"},
    "send local.docs hello.org --no-sign": HEAVY | CONNECTING | {"difflib", "tomllib"},
    "validate release.yaml": CONNECTING | ACTING | {"rich", "jinja2", "difflib", "tomllib"},
    "plan release.yaml": CONNECTING | ACTING | {"rich", "jinja2", "difflib", "tomllib"},
    "plan release.yaml -o new.plan": CONNECTING | ACTING | {"rich", "jinja2", "tomllib"},  # click: difflib, for `-o`
    "show release.plan": CONNECTING | ACTING | {"rich", "jinja2", "yaml", "difflib", "tomllib"},
    "plan release.yaml --bundle new.bundle": CONNECTING | {"rich", "jinja2", "tomllib", "sqlite3"},
    "rehearse release.plan --root tree": CONNECTING | {"rich", "jinja2", "difflib", "tomllib"},
    "apply release.plan": CONNECTING | {"rich", "jinja2", "difflib", "tomllib"},
    "apply release.yaml": CONNECTING | {"rich", "jinja2", "difflib", "tomllib"},
    "explain": HEAVY | CONNECTING | ACTING | {"difflib"},
    "explain tab": HEAVY | CONNECTING | ACTING | {"difflib"},
    "schema manifest": HEAVY | CONNECTING | ACTING,
    "init first": HEAVY | CONNECTING | ACTING | {"difflib", "tomllib"},
    "new first.org": HEAVY | CONNECTING | ACTING | {"difflib", "tomllib"},
    "inbox docs --no-verify": HEAVY | CONNECTING | {"sqlite3", "difflib", "tomllib"},
    "watch docs --timeout 0s": HEAVY | CONNECTING | {"sqlite3", "difflib", "tomllib"},
    "read hello.org": HEAVY | CONNECTING | {"sqlite3", "difflib", "tomllib"},
    "verify hello.org": HEAVY | CONNECTING | {"sqlite3", "difflib", "tomllib"},
    "archive hello.org": HEAVY | CONNECTING | {"sqlite3", "difflib", "tomllib"},
    "halt": HEAVY | CONNECTING | {"sqlite3", "difflib", "tomllib"},
    "resume": HEAVY | CONNECTING | {"sqlite3", "difflib", "tomllib"},
    "peers list": HEAVY | CONNECTING | {"sqlite3", "difflib", "tomllib"},
    "doctor": HEAVY | CONNECTING | {"difflib", "tomllib"},
    "completion bash": HEAVY | CONNECTING | ACTING | {"difflib", "tomllib"},
    "status": HEAVY | CONNECTING | {"difflib", "tomllib"},
    "retry": HEAVY | CONNECTING | {"difflib", "tomllib"},
    "prune --older-than 30d": HEAVY | CONNECTING | {"difflib", "tomllib"},
}
MANIFEST = """\
cas: 1
defaults: {sign: false}
sends:
  - {id: hello, destination: local.docs, message: hello.org}
"""


def loaded(*argv: str) -> tuple[int, frozenset[str]]:
    """The exit code of a run of cas, and the top-level modules that its process has loaded at its end."""
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "cas", *argv],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = (line for line in run.stderr.splitlines() if line.startswith("import time:"))
    names = (line.rpartition("|")[2].strip() for line in lines)
    return run.returncode, frozenset(name.partition(".")[0] for name in names)


def test_the_measure_sees_what_is_loaded(home: Home, message: Callable[..., Path]):
    message("hello.org")
    Path("release.yaml").write_text(MANIFEST, encoding="utf-8")

    code, names = loaded("validate", "release.yaml")

    assert code == 0
    assert {"cas", "yaml", "jsonschema"} <= names


@pytest.mark.parametrize("line", FORBIDDEN)
def test_a_verb_loads_only_what_it_needs(home: Home, message: Callable[..., Path], line: str):
    message("hello.org")
    Path("release.yaml").write_text(MANIFEST, encoding="utf-8")
    if "release.plan" in line:
        loaded("plan", "release.yaml", "-o", "release.plan")

    code, names = loaded(*line.split())

    assert code == line.startswith(("verify", "doctor"))  # it is not signed; there is no key
    assert names & FORBIDDEN[line] == set()


def test_every_verb_has_its_list_of_what_it_may_not_load():
    from cas.cli import cas

    assert set(cas.commands) - {line.split()[0] for line in FORBIDDEN} == {"demo", "mcp"}  # which run the other verbs


@pytest.mark.parametrize("argv", [("--help",), ("--version",), ("send", "--help"), ("apply", "--help")], ids=" ".join)
def test_help_and_version_load_nothing_heavy(home: Home, argv: tuple[str, ...]):
    code, names = loaded(*argv)

    assert code == 0
    assert names & HEAVY == set()


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
def test_a_send_on_this_machine_loads_nothing_heavy(
    home: Home, gnupg: object, message: Callable[..., Path], pairs: Callable[[Path], tuple[str, ...]], signed: bool
):
    message("hello.org")

    code, names = loaded("send", "local.docs", "hello.org", *([] if signed else ["--no-sign"]))

    assert code == 0
    assert len(pairs(home.inbox("docs"))) == (2 if signed else 1)
    assert names & HEAVY == set()


def test_a_send_on_this_machine_with_peers_and_json_loads_nothing_heavy(home: Home, message: Callable[..., Path]):
    home.peers("[peers.forge]\n")
    message("hello.org")

    code, names = loaded("send", "local.docs", "hello.org", "--no-sign", "--output", "json")

    assert code == 0
    assert names & HEAVY == set()


@pytest.mark.parametrize("verb", ["validate", "plan"])
def test_what_connects_to_nothing_loads_nothing_that_connects(home: Home, message: Callable[..., Path], verb: str):
    message("hello.org")
    home.peers("[peers.forge]\n")
    Path("release.yaml").write_text(MANIFEST.replace("local.docs", "forge.docs"), encoding="utf-8")

    code, names = loaded(verb, "release.yaml")

    assert code == 0
    assert names & {"fabric", "paramiko", "invoke", "rich", "jinja2"} == set()


def test_an_apply_on_this_machine_without_a_terminal_loads_neither_ssh_nor_rich(
    home: Home, message: Callable[..., Path]
):
    message("hello.org")
    Path("release.yaml").write_text(MANIFEST, encoding="utf-8")

    code, names = loaded("apply", "release.yaml")

    assert code == 0
    assert names & {"fabric", "paramiko", "invoke", "rich", "jinja2"} == set()

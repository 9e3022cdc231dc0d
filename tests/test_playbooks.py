"""Playbooks: every one is valid as it is, and delivers what it declares, to real inboxes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Forge, Home, Run

from cas.loopback import Key

PLAYBOOKS = Path(__file__).resolve().parent.parent / "playbooks"
ALL = sorted(PLAYBOOKS.glob("*.yaml"))


@pytest.fixture
def playbook(request: pytest.FixtureRequest, home: Home) -> Path:
    """A playbook in a project of the test's own, with the messages that it sends."""
    folder = home.projects / "builder" / "playbooks"
    shutil.copytree(PLAYBOOKS, folder)
    return folder / request.param.name


def each(function: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.parametrize("playbook", ALL, ids=lambda path: path.stem, indirect=True)(function)


def arrived(home: Home, peer: Forge, delivery: dict[str, object]) -> tuple[Path, ...]:
    """Where the files of a planned delivery are, signature first."""
    machine, _, project = str(delivery["destination"]["address"]).partition(".")
    inbox = {"local": home, "forge": peer}[machine].inbox(project)
    return tuple(inbox / name for name in delivery["files"])


def test_there_are_playbooks():
    assert {"demo", "hello"} <= {path.stem for path in ALL}


@each
def test_a_playbook_is_valid_without_a_warning(cas: Callable[..., Run], peer: Forge, playbook: Path):
    run = cas("validate", playbook, "--output", "json")

    assert (run.code, run.err) == (0, "")
    assert json.loads(run.out)["diagnostics"] == []


@each
def test_a_playbook_delivers_each_message_signed_and_unchanged(
    cas: Callable[..., Run], home: Home, peer: Forge, gnupg: Key, verify: Callable[..., str], playbook: Path
):
    planned = json.loads(cas("plan", playbook, "--output", "json").out)["deliveries"]

    run = cas("apply", playbook, "--output", "json")

    assert run.code == 0, run.err
    result = json.loads(run.out)
    assert result["counts"]["delivered"] == len(planned) > 0
    names = {delivery["id"]: delivery["files"] for delivery in result["deliveries"]}
    for delivery in planned:
        _, message = arrived(home, peer, {**delivery, "files": names[delivery["id"]]})
        assert message.read_bytes() == (playbook.parent / delivery["message"]["source"]).read_bytes()
        assert verify(message) == gnupg.fingerprint


@each
def test_a_playbook_that_is_applied_again_delivers_nothing(
    cas: Callable[..., Run],
    home: Home,
    peer: Forge,
    gnupg: Key,
    pairs: Callable[[Path], tuple[str, ...]],
    playbook: Path,
):
    inboxes = [home.inbox("docs"), peer.inbox("site")]
    cas("apply", playbook)
    before = [pairs(inbox) for inbox in inboxes]

    run = cas("apply", playbook, "--output", "json")

    counts = json.loads(run.out)["counts"]
    assert run.code == 0, run.err
    assert {outcome for outcome, count in counts.items() if count} == {"unchanged"}
    assert [pairs(inbox) for inbox in inboxes] == before


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_a_playbook_names_the_schema_that_editors_check_it_by(path: Path):
    first = path.read_text(encoding="utf-8").split("\n")[0]

    marker, _, schema = first.partition("$schema=")
    assert marker == "# yaml-language-server: "
    assert json.loads((path.parent / schema).read_text(encoding="utf-8"))["title"] == "a manifest"


def test_every_message_beside_the_playbooks_is_sent_by_one():
    texts = "".join(path.read_text(encoding="utf-8") for path in ALL)

    unused = [path.name for path in (PLAYBOOKS / "messages").iterdir() if f"messages/{path.name}" not in texts]

    assert unused == []

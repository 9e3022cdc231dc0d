"""Copies are noticed: a message for another inbox, and one that is there a second time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import Home, Run, message, signed

from cas.inventory import Policy
from cas.loopback import Key
from cas.replays import Seen, duplicates, is_for

Cas = Callable[..., Run]
NAME = "20261123T091258Z-from-builder-greeting.org"
LATER = "20261123T091259Z-from-builder-greeting.org"


def listed(cas: Cas, project: str = "docs", *options: str) -> list[dict[str, Any]]:
    document = json.loads(cas("inbox", project, "--output", "json", *options).out)
    return [one for thread in document["conversations"] for one in thread["messages"]]


def verified(cas: Cas, path: Path) -> dict[str, Any]:
    run = cas("verify", path, "--output", "json")
    (told,) = json.loads(run.out)["messages"]
    assert (run.code == 0) is told["good"]
    read = json.loads(cas("read", path, "--output", "json").out)
    assert {key: told[key] for key in ("to", "message_id", "misdelivered", "duplicate_of")} == {
        key: read[key] for key in ("to", "message_id", "misdelivered", "duplicate_of")
    }
    return dict(told)


def copied(path: Path, to: Path) -> Path:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, to)
    shutil.copy(f"{path}.asc", f"{to}.asc")
    return to


@pytest.fixture
def delivered(cas: Cas, home: Home, gnupg: Key) -> Path:
    """A message that was sent to `docs`."""
    message("hello.org")
    assert cas("send", "local.docs", "hello.org").code == 0
    (path,) = home.inbox("docs").glob("*.org")
    return path


# Signing


def notations(path: Path) -> str:
    return subprocess.run(
        ["gpg", "--list-packets", "--verbose", f"{path}.asc"], capture_output=True, text=True, check=True
    ).stdout


def test_a_signature_says_for_whom_and_which_delivery_it_is_and_the_bytes_stay(cas: Cas, delivered: Path):
    told = verified(cas, delivered)
    (record,) = delivered.parent.glob(".tmp.cas/*/record")

    assert delivered.read_bytes() == Path("hello.org").read_bytes()
    assert (told["to"], told["message_id"]) == ("local.docs", record.parent.name)
    assert (told["good"], told["misdelivered"], told["duplicate_of"]) == (True, False, None)
    assert "to@cas=local.docs" in notations(delivered)


def test_plain_gpg_takes_such_a_signature(delivered: Path):
    subprocess.run(["gpg", "--verify", f"{delivered}.asc", str(delivered)], check=True, capture_output=True)


def test_a_body_says_in_its_text_for_whom_it_is_and_planned_again_it_is_the_same(cas: Cas, home: Home, gnupg: Key):
    body = "{conversation: c, type: request, sequence: 1, body: x}"
    send = f"{{id: a, destination: [local.docs, local.site], message: {body}}}"
    Path("m.yaml").write_text(f"cas: 1\nsends:\n  - {send}\n", encoding="utf-8")
    assert cas("apply", "m.yaml").code == 0

    for project in ("docs", "site"):
        (path,) = home.inbox(project).glob("*.org")
        told = verified(cas, path)
        assert f"\n#+TO: local.{project}\n#+MESSAGE_ID: {told['message_id']}\n\nx" in path.read_text(encoding="utf-8")
    plans = [json.loads(cas("plan", "m.yaml", "-o", "-", "--at", f"2026-11-2{day}T00:00:00Z").out) for day in (3, 4)]
    one, two = ([delivery["identity"] for delivery in plan["deliveries"]] for plan in plans)
    assert one == two
    again = cas("apply", "m.yaml", "--state-dir", "other", "--output", "json")
    assert {one["outcome"] for one in json.loads(again.out)["deliveries"]} == {"unchanged"}


def test_a_new_message_can_say_for_whom_it_is(cas: Cas, home: Home, gnupg: Key):
    home.peers("[peers.laptop]\n")
    run = cas("new", "--to", "laptop.docs")
    assert run.code == 0
    assert "#+TO: laptop.docs\n#+MESSAGE_ID: " in run.out
    assert cas("new", "--to", "nowhere.docs").code == 2


# Receiving


@pytest.mark.threat("message author", "pass a message on to another inbox unnoticed")
def test_a_message_that_was_passed_on_is_misdelivered(cas: Cas, home: Home, delivered: Path):
    path = copied(delivered, home.inbox("site") / delivered.name)

    told = verified(cas, path)

    assert (told["signature"], told["good"], told["misdelivered"]) == ("good", False, True)
    assert [one["misdelivered"] for one in listed(cas, "site")] == [True]
    assert "misdelivered: it is for local.docs" in cas("inbox", "site").out
    watched = json.loads(cas("watch", "site", "--timeout", "0s", "--output", "jsonl").out)
    assert watched["misdelivered"]
    assert cas("archive", path).code == 0
    assert [one["misdelivered"] for one in listed(cas, "site", "--all")] == [True]


@pytest.mark.threat("message author", "replay a message, also one that was archived")
@pytest.mark.parametrize("where", ["inbox", "archive"])
def test_a_message_that_is_there_twice_is_a_duplicate(cas: Cas, home: Home, delivered: Path, where: str):
    copy = copied(delivered, delivered.with_name(LATER.replace("2026", "2099")))
    if where == "archive":
        assert cas("archive", delivered).code == 0

    told = verified(cas, copy)

    assert (told["good"], told["duplicate_of"]) == (False, delivered.name)
    by_name = {one["name"]: one["duplicate_of"] for one in listed(cas, "docs", "--all")}
    assert by_name == {delivered.name: None, copy.name: delivered.name}
    assert f"duplicate of {delivered.name}" in cas("inbox", "docs").out
    lines = cas("watch", "docs", "--timeout", "0s", "--output", "jsonl").out.splitlines()
    assert json.loads(lines[-1])["duplicate_of"] == delivered.name


def test_a_message_put_back_under_its_own_name_is_a_duplicate_of_the_archived_one(
    cas: Cas, home: Home, delivered: Path
):
    kept = copied(delivered, home.path / "kept.org")
    assert cas("archive", delivered).code == 0
    copied(kept, delivered)

    assert verified(cas, delivered)["duplicate_of"] == delivered.name
    archived = delivered.parent / "processed" / delivered.name
    assert verified(cas, archived)["duplicate_of"] is None


def test_another_message_with_the_same_id_is_a_duplicate(cas: Cas, home: Home, gnupg: Key):
    for name, body in ((NAME, "one"), (LATER, "two")):
        path = message(home.inbox("docs") / name, body=body, message_id="A1")
        signed(path, gnupg)

    assert verified(cas, path)["duplicate_of"] == NAME


def test_messages_of_other_tools_stay_valid(cas: Cas, home: Home, gnupg: Key):
    path = signed(message(home.inbox("docs") / NAME), gnupg)

    told = verified(cas, path)

    assert (told["good"], told["to"], told["message_id"]) == (True, None, None)


def test_the_address_of_the_signature_counts_beside_that_of_the_text(cas: Cas, home: Home, gnupg: Key):
    """Or a message would only have to be signed again to be passed on."""
    message("hello.org", to="local.site")
    assert cas("send", "local.docs", "hello.org").code == 0

    assert [one["misdelivered"] for one in listed(cas)] == [True]


@pytest.mark.parametrize(
    ("address", "machines", "expected"),
    [
        ("local.docs", (), True),
        ("laptop.docs", (), True),
        ("laptop.docs", ("laptop", "lap"), True),
        ("forge.docs", ("laptop",), False),
        ("local.docs", ("laptop",), True),
        ("laptop.site", (), False),
        ("docs", (), False),
        ("", (), False),
    ],
)
def test_a_machine_is_compared_where_its_names_are_known(address: str, machines: tuple[str, ...], expected: bool):
    assert is_for(address, "docs", Policy(machines=machines)) is expected


def test_of_an_inbox_that_peers_toml_puts_elsewhere_the_project_is_known(cas: Cas, home: Home, delivered: Path):
    home.peers('[projects.site]\ninbox_path = "~/elsewhere"\n')
    path = copied(delivered, home.path / "elsewhere" / delivered.name)

    assert verified(cas, path)["misdelivered"]
    outside = copied(delivered, home.path / "anywhere" / delivered.name)
    assert not verified(cas, outside)["misdelivered"]


def test_the_first_by_name_is_the_original_and_the_archived_before_it():
    def seen(path: str, name: str, digest: str, *, archived: bool = False, id_: str | None = None) -> Seen:
        return Seen(path, name, archived, digest, id_)

    some = [
        seen("d", "4", "y", id_="i"),
        seen("c", "3", "x"),
        seen("a", "1", "x"),
        seen("b", "1", "x", archived=True),
        seen("e", "5", "z", id_="i"),
        seen("f", "6", "x", id_="i"),
    ]

    assert duplicates(some) == {"a": "1", "c": "1", "e": "4", "f": "1"}


def test_a_bundle_and_a_retry_keep_what_the_signature_says(cas: Cas, home: Home, gnupg: Key):
    message("hello.org")
    home.obstruct("docs")
    assert cas("send", "local.docs", "hello.org").code == 1
    os.unlink(home.inbox("docs"))
    assert cas("retry", "--all").code == 0

    (one,) = listed(cas)
    assert (one["to"], one["misdelivered"], len(one["message_id"])) == ("local.docs", False, 32)

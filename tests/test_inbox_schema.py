"""What the other end prints as JSON is what its schema says; and each kind of answer that the schema names occurs."""

from __future__ import annotations

import json
import os
import re
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import support
from support import ROOT, Home, Run

from cas.arrival import Kind, Trust
from cas.loopback import Key, throwaway_key
from cas.message import TYPES
from cas.verdict import State

Cas = Callable[..., Run]
SCHEMA: dict[str, Any] = json.loads((ROOT / "schemas" / "inbox.schema.json").read_text(encoding="utf-8"))
RESULT: dict[str, Any] = json.loads((ROOT / "schemas" / "result.schema.json").read_text(encoding="utf-8"))
DEFINITIONS = SCHEMA["definitions"]
MESSAGE = DEFINITIONS["message"]["properties"]
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)


def checked(run: Run) -> list[Any]:
    """The lines of a result, each of them of the schema."""
    lines = [json.loads(line) for line in run.out.splitlines()]
    for line in lines:
        VALIDATOR.validate(line)
    return lines


def keys(*names: str) -> set[str]:
    """The fields that these definitions name."""
    return {key for name in names for key in DEFINITIONS[name]["properties"]}


@pytest.fixture
def stranger() -> Iterator[Key]:
    """A key that is not known here."""
    with tempfile.TemporaryDirectory(prefix="cas-") as folder, throwaway_key(Path(folder) / "g") as key:
        yield key


@pytest.fixture
def folder(home: Home, gnupg: Key, stranger: Key, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An inbox with one of each kind; `[senders]` has a key for `builder`, and another for `forger`."""
    folder = home.inbox("docs")
    support.message(folder / "unsigned.org", sequence=1)
    for number, sender in enumerate(("builder", "forger", "somebody"), start=2):
        name = f"2026112{number}T070000Z-from-{sender}-greeting.org"
        support.signed(support.message(folder / name, sequence=number), gnupg)
    changed = support.signed(support.message(folder / "changed.org", sequence=7), gnupg)
    changed.write_bytes(changed.read_bytes() + b"more\n")
    twice = support.signed(support.message(folder / "twice.org", sequence=8), gnupg)
    Path(f"{twice}.asc").write_bytes(Path(f"{twice}.asc").read_bytes() * 2)
    support.signed(support.message(folder / "unknown.org", sequence=9), stranger)
    Path(f"{support.message(folder / 'empty-signature.org', sequence=10)}.asc").touch()
    support.message(folder / "large.org", body="x" * (2 << 20))
    (folder / "empty.org").touch()
    (folder / "alone.org.asc").touch()
    (folder / "notes.txt").touch()
    (folder / "folder").mkdir()
    (folder / "link.org").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.org")
    monkeypatch.chdir(folder)  # a socket's path holds 108 bytes
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket.org")
    home.peers(f'[senders]\nbuilder.keys = ["{gnupg.fingerprint}"]\nforger.keys = ["{"A" * 40}"]\n')
    return folder


def test_the_schema_is_one_and_names_what_the_code_can_say():
    jsonschema.Draft7Validator.check_schema(SCHEMA)

    assert set(MESSAGE["signature"]["enum"]) == {state.value for state in State} | {"not-verified"}
    assert set(MESSAGE["trust"]["enum"]) == {trust.value for trust in Trust}
    assert set(MESSAGE["type"]["enum"]) == {*TYPES, None}
    assert set(DEFINITIONS["other"]["properties"]["kind"]["enum"]) == {kind.value for kind in Kind}
    assert DEFINITIONS["diagnostic"] == RESULT["definitions"]["diagnostic"]


def test_cas_schema_prints_it(cas: Cas, home: Home):
    assert json.loads(cas("schema", "inbox").out) == SCHEMA


def test_an_inbox_is_of_its_schema_with_every_kind_of_message_in_it(cas: Cas, home: Home, folder: Path):
    (document,) = checked(cas("inbox", "docs", "--output", "json"))
    unverified = checked(cas("inbox", "docs", "--no-verify", "--output", "jsonl"))
    lines = checked(cas("inbox", "docs", "--output", "jsonl"))

    found = [one for thread in document["conversations"] for one in thread["messages"]]
    assert set(document) == keys("inbox")
    assert {key for thread in document["conversations"] for key in thread} == keys("conversation")
    assert {frozenset(one) for one in [*found, *lines, *unverified]} == {frozenset(MESSAGE)}
    assert sorted(one["name"] for one in lines) == sorted(one["name"] for one in found)
    (home.config / "peers.toml").unlink()
    without_list = checked(cas("inbox", "docs", "--output", "jsonl"))
    told = [*found, *unverified, *without_list]
    assert {one["trust"] for one in told} == set(MESSAGE["trust"]["enum"])
    # Of keys that have expired or were revoked since, the verifier's own tests tell.
    unseen = {"expired-signature", "expired-key", "revoked-key"}
    unseen |= {"weak-signature", "text-signature", "weak-key", "untrusted-key"}
    assert {one["signature"] for one in [*found, *unverified]} == set(MESSAGE["signature"]["enum"]) - unseen
    assert {one["signature_fault"] for one in found} == {None, "it is empty"}
    assert {None, "greeting"} == {thread["conversation"] for thread in document["conversations"]}
    assert {one["kind"] for one in document["others"]} == {
        kind.value for kind in (Kind.FILE, Kind.FOLDER, Kind.LINK, Kind.FIFO, Kind.SOCKET)
    }
    assert document["alone"] == ["alone.org.asc"]


def test_an_inbox_whose_archive_cannot_be_listed_says_so(home: Home, folder: Path):
    (folder / "processed").mkdir(mode=0)

    (document,) = checked(support.as_another("inbox", "docs", "--all", "--no-verify", "--output", "json"))

    assert [set(one) for one in document["diagnostics"]] == [keys("diagnostic")]


def test_what_verify_prints_is_of_its_schema(cas: Cas, folder: Path):
    (good,) = folder.glob("*-from-builder-*.org")
    words = ("verify", str(good), str(folder / "changed.org"), str(folder / "large.org"), "nowhere.org", "--output")
    (document,) = checked(cas(*words, "json"))
    lines = checked(cas(*words, "jsonl"))

    assert set(document) == keys("verify")
    assert document["messages"] == lines
    assert [one["good"] for one in lines] == [True, False, False, False]
    assert set(lines[0]) == keys("message", "verified")
    assert set(lines[3]) == keys("verified")
    assert checked(cas("verify", str(good), "--output", "json"))[0]["good"] is True


def test_what_read_prints_is_of_its_schema(cas: Cas, folder: Path):
    for form in ("json", "jsonl"):
        (document,) = checked(cas("read", str(folder / "unsigned.org"), "--output", form))
        (large,) = checked(cas("read", str(folder / "large.org"), "--output", form))
        (nothing,) = checked(cas("read", "nowhere.org", "--output", form))

        assert set(document) == set(large) == keys("message", "text")
        assert large["text"] is None
        assert nothing["format"] == "cas.diagnostics/1"
        assert set(nothing) == keys("diagnostics")


def test_what_archive_prints_is_of_its_schema(cas: Cas, folder: Path):
    for form, name in (("json", "unsigned.org"), ("jsonl", "changed.org")):
        (document,) = checked(cas("archive", str(folder / name), "nowhere.org", "--output", form))

        assert set(document) == keys("archive")
        assert document["archived"] == [str(folder / "processed" / name)]
        assert [one["code"] for one in document["diagnostics"]] == ["no-message"]


def test_each_line_of_watch_is_of_its_schema(cas: Cas, folder: Path):
    for form in ("json", "jsonl"):
        lines = checked(cas("watch", "docs", "--timeout", "0s", "--output", form))

        assert [line["name"] for line in lines] == sorted(path.name for path in folder.glob("*.org") if path.is_file())
        assert {frozenset(line) for line in lines} == {frozenset(MESSAGE)}


@pytest.mark.parametrize("verb", ["inbox", "watch"])
def test_what_keeps_a_verb_from_its_work_is_of_the_schema(cas: Cas, home: Home, verb: str):
    for form in ("json", "jsonl"):
        (document,) = checked(cas(verb, "../x", "--output", form))

        assert document["format"] == "cas.diagnostics/1"


@pytest.mark.parametrize(
    "line",
    [
        {}, {"format": "cas.result/1"}, {"format": "cas.inbox/1"}, {"format": "cas.archive/1", "archived": [1]},
        {"path": "x.org", "good": True, "problem": None}, {"path": "x.org"},
    ],
)  # fmt: skip
def test_the_schema_refuses_what_is_no_line_of_these(line: dict[str, object]):
    assert not VALIDATOR.is_valid(line)


@pytest.mark.parametrize("name", ["inbox", "verify", "archive"])
def test_the_example_in_the_reference_is_of_the_schema(name: str):
    page = (ROOT / "docs" / "reference" / "formats.md").read_text(encoding="utf-8")
    example = re.search(rf"\n## \w+: `cas\.{name}/1`\n.*?\n```json\n(.*?)\n```\n", page, re.DOTALL)
    assert example

    document = json.loads(example[1])

    VALIDATOR.validate(document)
    assert set(document) == keys(name)

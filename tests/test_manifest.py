"""Manifests as records."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from cas import document, manifest, schema
from cas.diagnostics import Diagnostic, InvalidInput, Place
from cas.manifest import FileMessage, Manifest, Retry, Sign, Target

SCHEMA = json.loads((Path(__file__).parent.parent / "schemas" / "manifest.schema.json").read_bytes())


def parsed(text: str, file: str = "plays/release.yaml") -> Manifest:
    given = document.parse(text.encode(), file=file)
    assert schema.check(given, SCHEMA) == ()
    return manifest.parse(given)


def with_send(fields: str = "", defaults: str = "{}") -> Manifest:
    return parsed(f"cas: 1\ndefaults: {defaults}\nsends:\n  - {{id: one, destination: a.b, message: m.org{fields}}}\n")


def findings(text: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(InvalidInput) as caught:
        parsed(text)
    return caught.value.diagnostics


def test_a_manifest_keeps_what_it_says():
    given = parsed("cas: 1\nname: Release\nsender: builder\nsends:\n  - {id: one, destination: a.b, message: m.org}\n")

    assert (given.file, given.name, given.sender) == ("plays/release.yaml", "Release", "builder")
    assert [send.id for send in given.sends] == ["one"]


def test_a_manifest_without_a_name_has_that_of_its_file():
    assert with_send().name == "release"


def test_a_manifest_without_a_sender_has_none():
    assert with_send().sender is None


def test_a_sender_has_its_place():
    given = parsed("cas: 1\nsender: builder\nsends:\n  - {id: one, destination: a.b, message: m.org}\n")

    assert given.sender_place == Place(file="plays/release.yaml", line=2, column=9)
    assert with_send().sender_place is None


def test_a_send_has_the_place_of_its_id():
    assert with_send().sends[0].place == Place(file="plays/release.yaml", line=4, column=10)


def test_one_destination_is_a_list_of_one_with_its_place():
    assert with_send().sends[0].destinations == (Target(text="a.b", place=_place(28)),)


def test_several_destinations_have_a_place_each():
    given = parsed("cas: 1\nsends:\n  - {destination: [a.b, c.d], id: one, message: m.org}\n")

    assert [(target.text, target.place.column) for target in given.sends[0].destinations] == [("a.b", 20), ("c.d", 25)]


def test_a_message_in_short_is_a_file():
    assert with_send().sends[0].message == FileMessage(path="m.org", place=_place(42))


def test_a_message_in_full_is_the_same_file_with_its_own_place():
    given = parsed("cas: 1\nsends:\n  - {id: one, destination: a.b, message: {file: m.org}}\n")

    assert given.sends[0].message == FileMessage(
        path="m.org", place=Place(file="plays/release.yaml", line=3, column=49)
    )


def _place(column: int) -> Place:
    return Place(file="plays/release.yaml", line=4, column=column)


@pytest.mark.parametrize(
    ("defaults", "own", "sign"),
    [
        ("{}", "", Sign()),
        ("{}", ", sign: true", Sign()),
        ("{}", ", sign: false", None),
        ("{}", ", sign: {key: AB}", Sign(key="AB")),
        ("{sign: true}", "", Sign()),
        ("{sign: false}", "", None),
        ("{sign: false}", ", sign: true", Sign()),
        ("{sign: false}", ", sign: {key: AB}", Sign(key="AB")),
        ("{sign: {key: CD}}", "", Sign(key="CD")),
        ("{sign: {key: CD}}", ", sign: true", Sign(key="CD")),
        ("{sign: {key: CD}}", ", sign: {key: AB}", Sign(key="AB")),
        ("{sign: {key: CD}}", ", sign: false", None),
    ],
)
def test_signing_is_what_a_send_says_or_else_what_the_defaults_say(defaults, own, sign):
    assert with_send(own, defaults).sends[0].sign == sign


@pytest.mark.parametrize(
    ("defaults", "own", "retry"),
    [
        ("{}", "", Retry(retries=3, backoff=(5, 30, 120), timeout=30)),
        ("{}", ", retry: {}", Retry()),
        ("{}", ", retry: {retries: 0}", Retry(retries=0)),
        ("{retry: {retries: 9, timeout: 7}}", "", Retry(retries=9, timeout=7)),
        ("{retry: {retries: 9, timeout: 7}}", ", retry: {retries: 1}", Retry(retries=1, timeout=7)),
        ("{retry: {backoff: [1, 2, 3]}}", ", retry: {backoff: [4]}", Retry(backoff=(4,))),
    ],
)
def test_retries_merge_one_level_deep_and_lists_are_replaced(defaults, own, retry):
    assert with_send(own, defaults).sends[0].retry == retry


def test_an_id_given_twice_is_an_error_that_names_both_places():
    send = "  - {id: one, destination: a.b, message: m.org}\n"

    (found,) = findings("cas: 1\nsends:\n" + send + send.replace("one", "two") + send)

    assert (found.code, found.message) == ("duplicate-id", "the id `one` is given twice")
    assert (found.place.line, found.place.column) == (5, 10)
    assert [(place.line, place.column) for place, _ in found.related] == [(3, 10)]


def test_an_id_given_thrice_is_two_findings_about_the_first():
    send = "  - {id: one, destination: a.b, message: m.org}\n"

    found = findings("cas: 1\nsends:\n" + send * 3)

    assert [(one.place.line, one.related[0][0].line) for one in found] == [(4, 3), (5, 3)]


def test_a_manifest_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        with_send().sends[0].id = "other"


def test_the_records_need_no_yaml():
    code = "import cas.manifest, cas.planner, sys; sys.exit('yaml' in sys.modules or 'jsonschema' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent).returncode == 0


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("cas: 1\nvars:\n  item: x\nsends: [{id: a, destination: b.c, message: m.org}]\n", 3),
        ("cas: 1\nsends:\n  - id: a\n    destination: b.c\n    vars: {now: x}\n    message: m.org\n", 5),
        (
            "cas: 1\nsends:\n  - id: a\n    destination: b.c\n    message:\n      template: m.j2\n"
            "      vars: {sender: x}\n",
            7,
        ),
    ],
    ids=["manifest", "send", "message"],
)
def test_a_variable_may_not_hide_what_cas_gives(text: str, line: int):
    (found,) = findings(text)

    assert (found.code, found.place.line if found.place else None) == ("reserved-name", line)

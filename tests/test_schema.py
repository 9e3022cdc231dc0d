"""Findings against a schema, each in words of our own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cas import document, schema
from cas.diagnostics import Diagnostic, InvalidInput
from cas.names import is_name

SCHEMA = json.loads((Path(__file__).parent.parent / "schemas" / "manifest.schema.json").read_bytes())
SOUND = """\
cas: 1
name: Release 1.4.0
sender: builder
defaults:
  sign: {key: 5CA7F1CE5E8E605E770C0236B4B61A2737D6A700}
  retry: {retries: 3, backoff: [5, 30, 120], timeout: 30}
sends:
  - id: ask-review
    destination: laptop.docs
    message: messages/review.org
  - id: announce
    destination: [laptop.docs, forge.site]
    message: {file: messages/announce.org}
    sign: false
    retry: {retries: 0}
"""


def findings(text: str, against: Any = SCHEMA) -> tuple[Diagnostic, ...]:
    return InvalidInput(schema.check(document.parse(text.encode(), file="release.yaml"), against)).diagnostics


def finding(text: str, against: Any = SCHEMA) -> Diagnostic:
    (found,) = findings(text, against)
    return found


def send(**changes: str | None) -> str:
    """A manifest of one send, on lines 3 to 5 and on, with fields in YAML; None leaves one out."""
    fields = {"id": "one", "destination": "a.b", "message": "m.org", **changes}
    lines = [f"{key}: {value}\n" for key, value in fields.items() if value is not None]
    return "cas: 1\nsends:\n  - " + "    ".join(lines)


def test_a_sound_manifest_has_no_findings():
    assert findings(SOUND) == ()


def test_the_smallest_manifest_has_no_findings():
    assert findings(send()) == ()


def test_an_unknown_key_has_its_place_its_owner_and_a_suggestion():
    found = finding(send(retry="{retires: 3}"))

    assert found.code == "unknown-key"
    assert found.message == "`retires` is not a key of retry"
    assert (found.place.file, found.place.line, found.place.column) == ("release.yaml", 6, 13)
    assert found.hint == "did you mean `retries`?"


def test_a_key_near_to_none_gets_the_list_of_keys():
    found = finding(send(colour="red"))

    assert found.message == "`colour` is not a key of a send"
    known = ("id", "for_each", "destination", "message", "vars", "when", "after", "tags", "sign", "retry")
    assert found.hint == f"there are {', '.join(f'`{key}`' for key in known)}"


def test_a_key_is_never_suggested_where_it_is_given_already():
    assert findings(send(mesage="m.org"))[0].hint.startswith("there are ")


def test_a_mistyped_key_causes_no_second_finding_about_the_key_it_left_missing():
    found = finding(send(message=None, mesage="m.org"))

    assert (found.code, found.hint) == ("unknown-key", "did you mean `message`?")


def test_a_mistyped_key_excuses_no_other_missing_key():
    found = findings(send(message=None, destination=None, mesage="m.org"))

    assert [one.code for one in found] == ["missing-key", "unknown-key"]


def test_a_mistyped_key_in_one_send_excuses_nothing_in_another():
    text = send(message=None, mesage="m.org") + "  - {id: two, destination: a.b}\n"

    assert [one.code for one in findings(text)] == ["unknown-key", "missing-key"]


def test_a_missing_key_has_the_place_of_what_lacks_it():
    found = finding(send(destination=None))

    assert found.code == "missing-key"
    assert found.message == "a send needs the key `destination`"
    assert (found.place.line, found.place.column) == (3, 5)
    assert "<machine>.<project>" in found.hint


def test_each_missing_key_is_a_finding():
    messages = [one.message for one in findings("name: x")]

    assert messages == ["a manifest needs the key `cas`", "a manifest needs the key `sends`"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "a manifest is a list, not a map"),
        ("hello\n", "a manifest is a text, not a map"),
        (send().replace("cas: 1", 'cas: "1"'), "`cas` is a text, not a whole number"),
        (send().replace("cas: 1", "cas: true"), "`cas` is true or false, not a whole number"),
        ("cas: 1\nsends: {}\n", "`sends` is a map, not a list"),
        ("cas: 1\nsends:\n", "`sends` is nothing, not a list"),
        ("cas: 1\nsends: [one]\n", "item 1 of `sends` is a text, not a map"),
        (send(id="5"), "`id` is a whole number, not a text"),
        (send(destination="7"), "`destination` is a whole number, not a text or a list"),
        (send(destination="[a.b, [c.d]]"), "item 2 of `destination` is a list, not a text"),
        (send(message="[m.org]"), "`message` is a list, not a text or a map"),
        (send(sign='"yes"'), "`sign` is a text, not true or false or a map"),
        (send(retry="{retries: 1.5}"), "`retries` is a text, not a whole number"),
        (send(retry="{backoff: 5}"), "`backoff` is a whole number, not a list"),
        (send(retry="{backoff: [5, x]}"), "item 2 of `backoff` is a text, not a whole number"),
        (send(retry="3"), "`retry` is a whole number, not a map"),
        (send() + "defaults: [sign]\n", "`defaults` is a list, not a map"),
    ],
)
def test_a_value_of_the_wrong_type_is_one_finding_that_says_both_types(text, message):
    found = finding(text)

    assert (found.code, found.message) == ("wrong-type", message)
    assert found.place.line is not None


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (send(id="7"), 'put it in quotes: "7"'),
        (send(id="true"), 'put it in quotes: "true"'),
        (send(sign="no"), "`true` or `false`, in small letters and without quotes"),
        (send(sign="True"), "`true` or `false`, in small letters and without quotes"),
        (send(retry="{retries: 010}"), "digits only, without quotes or a leading zero"),
        (send(retry='{timeout: "30"}'), "digits only, without quotes or a leading zero"),
        (send(retry="{backoff: 5}"), "put it in brackets: [5]"),
        (send(destination="{a: b}"), SCHEMA["definitions"]["send"]["properties"]["destination"]["description"]),
    ],
)
def test_what_was_meant_is_the_hint(text, hint):
    assert finding(text).hint == hint


def test_a_wrong_value_has_the_place_of_the_value_itself():
    found = finding(send(retry="{retries: 200}"))

    assert (found.place.line, found.place.column) == (6, 22)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (send().replace("cas: 1", "cas: 2"), "`cas` is `2`, not `1`"),
        ("cas: 1\nsends: []\n", "`sends` is empty"),
        (send(id='""'), "`id` is empty"),
        (send(id="a" * 101), "`id` is longer than 100 characters"),
        (send(id="a/b"), "`id` cannot be `a/b`"),
        (send(destination="[]"), "`destination` is empty"),
        (send(destination='""'), "`destination` is empty"),
        (send(message='""'), "`message` is empty"),
        (send(message='{file: ""}'), "`file` is empty"),
        (send(sign="{key: --default-key}"), "`key` cannot be `--default-key`"),
        (send(retry="{retries: -1}"), "`retries` is `-1`, less than 0"),
        (send(retry="{retries: 101}"), "`retries` is `101`, more than 100"),
        (send(retry="{timeout: 0}"), "`timeout` is `0`, less than 1"),
        (send(retry="{backoff: []}"), "`backoff` is empty"),
        (send(retry="{backoff: [5, 86401]}"), "item 2 of `backoff` is `86401`, more than 86400"),
        (send(retry=f"{{backoff: {[1] * 101}}}"), "`backoff` has more than 100 items"),
        (send() + 'name: "a\\nb"\n', "`name` cannot be `a\\nb`"),
    ],
)
def test_a_wrong_value_is_one_finding_that_says_the_rule(text, message):
    found = finding(text)

    assert (found.code, found.message) == ("wrong-value", message)
    assert found.hint


def test_a_long_value_is_shown_by_its_beginning():
    text = send() + 'name: "' + "a" * 199 + '\\n"\n'

    assert finding(text).message == "`name` cannot be `" + "a" * 60 + "…`"


@pytest.mark.parametrize(
    "value",
    ["../x", "a/b", "-x", ".x", '"a b"', '"a\\n"', '"\\ta"', "ä", "a" * 300, "a..b"],
)
def test_a_sender_that_could_leave_its_place_is_refused(value):
    assert finding(send() + f"sender: {value}\n").code == "wrong-value"


@pytest.mark.parametrize(
    "value", ["../x", "a/b", "-x", ".x", '"a b"', '"a\\n"', '"\\ta"', "ä", "a" * 300, "'a[b]'", "a@b"]
)
def test_an_id_is_letters_digits_dots_underscores_and_dashes(value):
    assert finding(send(id=value)).code == "wrong-value"


def test_a_sender_of_a_manifest_is_what_a_name_is():
    pattern = re.compile(SCHEMA["properties"]["sender"]["pattern"])

    @settings(deadline=None, max_examples=500)
    @given(st.text(st.sampled_from("ab7._-/ \n~ä"), max_size=6) | st.text(max_size=6))
    def agrees(text: str) -> None:
        assert (pattern.search(text) is not None) == is_name(text)

    agrees()


def test_all_findings_come_at_once_in_the_order_of_the_file():
    text = "cas: 2\nnaem: x\nsends:\n  - id: a b\n    destination: 7\n  - id: two\n    sgin: false\n    message: m\n"

    assert [(one.code, one.place.line) for one in findings(text)] == [
        ("wrong-value", 1),
        ("unknown-key", 2),
        ("missing-key", 4),
        ("wrong-value", 4),
        ("wrong-type", 5),
        ("missing-key", 6),
        ("unknown-key", 7),
    ]


@pytest.mark.parametrize(
    "keys", ["file: a, body: b", "template: a, body: b", "file: a, template: b", "file: a, vars: {}"]
)
def test_a_message_is_one_of_file_template_and_body(keys: str):
    assert {one.code for one in findings(send(message=f"{{{keys}}}"))} == {"excluded-key"}


@pytest.mark.parametrize(("keys", "missing"), [("conversation: x", 1), ("body: b", 3), ("body: b, type: query", 2)])
def test_a_message_needs_what_it_is_made_from(keys: str, missing: int):
    assert [one.code for one in findings(send(message=f"{{{keys}}}"))] == ["missing-key"] * missing


def test_a_mistyped_kind_of_message_is_one_finding():
    found = finding(send(message="{fiel: m.org}"))

    assert (found.code, found.hint) == ("unknown-key", "did you mean `file`?")


@pytest.mark.parametrize("value", ["{}", "{name: x}"])
def test_a_key_to_sign_with_is_named_or_it_is_not_there(value):
    assert findings(send(sign=value))[0].message in ("sign needs the key `key`", "`name` is not a key of sign")


def test_a_value_shared_by_an_alias_is_found_wherever_it_counts():
    text = send(retry="&r {retries: -1}") + "defaults: {retry: *r}\n"

    assert [one.code for one in findings(text)] == ["wrong-value", "wrong-value"]


def test_the_wrong_type_is_what_counts_whatever_the_schema_says_first():
    strict = {"properties": {"a": {"const": 1, "enum": [1], "type": "integer", "pattern": "x"}}}

    assert [one.code for one in findings("a: b\n", strict)] == ["wrong-type"]


def test_a_schema_without_titles_will_do():
    bare = {"type": "object", "required": ["a"], "additionalProperties": False, "properties": {"b": {"type": "null"}}}

    assert [one.message for one in findings("b: 1\nc: 2\n", bare)] == [
        "this map needs the key `a`",
        "`b` is a whole number, not nothing",
        "`c` is not a key of this map",
    ]


ANY_VALUE = st.recursive(
    st.sampled_from(["", "a.b", 0, 1, 1000, True, None, "x" * 300, "a\nb"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["cas", "sends", "id", "destination", "message", "file", "sign", "key", "retry", "retires"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@settings(deadline=None, max_examples=300)
@given(ANY_VALUE.filter(lambda value: value is not None))
def test_whatever_a_schema_refuses_has_findings_with_places_and_nothing_else_has(value):
    found = schema.check(document.parse(json.dumps(value).encode(), file="release.yaml"), SCHEMA)

    assert bool(found) == (not jsonschema.Draft7Validator(SCHEMA).is_valid(value))
    assert all(one.place.line for one in found)
    assert len(set(found)) == len(found)


# The schema itself


def properties(node: Any) -> Iterator[tuple[str, Any]]:
    """Every property that a schema has, with what a reference in it stands for."""
    if isinstance(node, dict):
        for name, child in node.get("properties", {}).items():
            if child is not False:
                yield name, SCHEMA["definitions"][child["$ref"].split("/")[-1]] if "$ref" in child else child
        for child in node.values():
            yield from properties(child)


def test_the_schema_is_one_of_draft_7():
    assert SCHEMA["$schema"] == "http://json-schema.org/draft-07/schema#"
    jsonschema.Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(("name", "about"), list(properties(SCHEMA)))
def test_every_property_has_a_description_and_examples_that_hold(name, about):
    assert about["description"]
    for example in about["examples"]:
        jsonschema.Draft7Validator({**about, "definitions": SCHEMA["definitions"]}).validate(example)


def test_every_map_of_the_schema_knows_all_of_its_keys():
    def maps(node: Any) -> Iterator[Any]:
        if isinstance(node, dict):
            if isinstance(node.get("properties"), dict) and any(node["properties"].values()):
                yield node
            for child in node.values():
                yield from maps(child)

    assert all(one["additionalProperties"] is False for one in maps(SCHEMA))


def test_the_schema_needs_no_choice_between_whole_forms():
    assert "oneOf" not in json.dumps(SCHEMA)
    choices = [one["anyOf"] for one in nodes(SCHEMA) if "anyOf" in one]
    assert choices
    assert all(one.keys() == {"required"} and len(one["required"]) == 1 for choice in choices for one in choice)


def nodes(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nodes(child)

"""The reference of manifest and peers.toml says what their schemas say, key by key."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import reference
from reference import TOML, YAML, Undocumented, page_with, schema, tables

from cas import document

SOME = {"description": "Some words.", "type": "string", "examples": ["x"]}


def table(**node: Any) -> list[str]:
    """The rows of what a schema gives, without headings."""
    return [line for line in tables({"title": "a thing", **node}, YAML).split("\n") if line.startswith("| `")]


def properties(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from node.get("properties", {}) if isinstance(node.get("properties"), dict) else ()
        for child in node.values():
            yield from properties(child)
    elif isinstance(node, list):
        for child in node:
            yield from properties(child)


def examples(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        yield from node["examples"] if isinstance(node.get("examples"), list) else ()
        for child in node.values():
            yield from examples(child)


# The pages


@pytest.mark.parametrize("name", reference.PAGES)
def test_a_page_has_the_tables_that_its_schema_gives(name: str):
    page = (reference.ROOT / "docs" / "reference" / f"{name}.md").read_text(encoding="utf-8")

    assert page == page_with(page, name), "make it anew: python tests/reference.py"


@pytest.mark.parametrize("name", reference.PAGES)
def test_every_key_of_a_schema_is_on_its_page(name: str):
    page = (reference.ROOT / "docs" / "reference" / f"{name}.md").read_text(encoding="utf-8")

    assert {key for key in properties(schema(name)) if f"\n| `{key}` | " not in page} == set()


@pytest.mark.parametrize("example", list(examples(schema("manifest"))), ids=json.dumps)
def test_an_example_of_the_manifest_is_shown_as_cas_reads_it(example: Any):
    shown = YAML.value(example)

    assert "\n" not in shown
    assert document.parse(f"x: {shown}\n".encode(), file="x").value == {"x": example}


@pytest.mark.parametrize("example", list(examples(schema("peers"))), ids=json.dumps)
def test_an_example_of_peers_toml_is_shown_as_toml(example: Any):
    assert tomllib.loads(f"x = {TOML.value(example)}\n") == {"x": example}


# What a schema may be made of


def test_a_key_has_its_kind_its_words_and_its_examples():
    rows = table(
        required=["b"],
        properties={
            "a": {"description": "One | two.", "type": ["string", "boolean"], "examples": ["no", True, "a: b"]},
            "b": {"description": "A choice.", "enum": ["x", "y"], "examples": ["x"]},
        },
    )

    assert rows == [
        '| `a` | text or true or false | One \\| two | `no`, `true`, `"a: b"` |',
        "| `b` | `x` or `y`, required | A choice | `x` |",
    ]


def test_each_map_has_a_section_once_and_is_linked_where_it_is_named():
    thing = {"title": "a thing", "description": "It.", "type": "object", "properties": {"x": SOME}, "examples": [{}]}
    itself = {"$ref": "#/definitions/thing"}

    text = tables(
        {
            "title": "all",
            "properties": {"one": itself, "many": {**SOME, "type": "array", "items": itself}},
            "definitions": {"thing": thing},
        },
        YAML,
    )

    assert text.count("### A thing\n\nIt.\n") == 1
    assert "| `one` | [map](#a-thing) | It | `{}` |" in text
    assert "| `many` | list of [maps](#a-thing) | Some words | `x` |" in text


def test_words_beside_a_reference_count():
    (row,) = table(properties={"a": {"$ref": "#/definitions/b", "description": "Mine."}}, definitions={"b": {**SOME}})

    assert row == "| `a` | text | Mine | `x` |"


@pytest.mark.parametrize("key", ["oneOf", "anyOf", "allOf"])
def test_the_forms_of_a_value_are_told_together(key: str):
    rows = table(
        properties={
            "a": {
                "description": "It.",
                "examples": ["x"],
                key: [
                    {"type": "string"},
                    {"type": "array", "items": {"type": "integer"}},
                    {"type": "object", "title": "a form", "properties": {"deep": SOME}},
                ],
            }
        }
    )

    assert rows == [
        "| `a` | text or list of whole numbers or [map](#a-form) | It | `x` |",
        "| `deep` | text | Some words | `x` |",
    ]


@pytest.mark.parametrize(("key", "words"), [("oneOf", "Exactly one"), ("anyOf", "At least one")])
def test_a_choice_of_keys_is_said(key: str, words: str):
    text = tables(
        {"properties": {"a": SOME, "b": SOME, "c": SOME}, key: [{"required": ["a"]}, {"required": ["b", "c"]}]}, YAML
    )

    assert f"\n{words} of these is there: `a`, `b` and `c`.\n" in text
    assert "required" not in text


def test_what_holds_under_a_condition_is_told_and_the_condition_is_not():
    rows = table(
        properties={"kind": SOME},
        allOf=[
            {
                "if": {"required": ["kind"], "properties": {"kind": {"const": 1}, "never": {"const": 2}}},
                "then": {"required": ["more"], "properties": {"more": SOME, "kind": True}},
                "else": {"properties": {"more": False, "less": SOME}},
            }
        ],
    )

    assert [row.split(" | ")[:2] for row in rows] == [["| `kind`", "text"], ["| `more`", "text"], ["| `less`", "text"]]


def test_what_a_map_needs_in_the_form_that_all_maps_have_is_required():
    node = {**SOME, "type": ["string", "object"], "if": {"type": "object"}, "title": "it"}

    rows = table(properties={"a": {**node, "then": {"required": ["b"], "properties": {"b": SOME}}}})

    assert rows == ["| `a` | text or [map](#it) | Some words | `x` |", "| `b` | text, required | Some words | `x` |"]


@pytest.mark.parametrize(
    "holder",
    [
        {"additionalProperties": {"properties": {"deep": SOME}}},
        {"patternProperties": {"^x": {"properties": {"deep": SOME}}}},
        {"items": {"items": {"properties": {"deep": SOME}}}},
        {"additionalProperties": {"additionalProperties": {"properties": {"deep": SOME}}}},
        {"then": {"oneOf": [True, {"items": {"properties": {"deep": SOME}}}]}},
    ],
    ids=lambda holder: "-".join(holder),
)
def test_maps_are_found_however_deep(holder: dict[str, Any]):
    assert table(properties={"a": {**SOME, **holder}})[1:] == ["| `deep` | text | Some words | `x` |"]


def test_a_value_that_may_hold_itself_comes_to_an_end():
    value = {"type": ["string", "array", "object"]}
    itself = {"$ref": "#/definitions/value"}

    rows = table(
        properties={"vars": {**SOME, "type": "object", "additionalProperties": itself}},
        definitions={"value": {**value, "items": itself, "additionalProperties": itself, "anyOf": [itself]}},
    )

    assert rows == ["| `vars` | map of texts or lists or maps | Some words | `x` |"]


# What it may not lack


@pytest.mark.parametrize("lacking", ["description", "examples"])
@pytest.mark.parametrize(
    "around",
    [
        lambda about: {"properties": {"bad": about}},
        lambda about: {"properties": {"a": {**SOME, "properties": {"bad": about}}}},
        lambda about: {"properties": {"a": {**SOME, "items": {"properties": {"bad": about}}}}},
        lambda about: {"properties": {"a": {**SOME, "additionalProperties": {"properties": {"bad": about}}}}},
        lambda about: {"then": {"properties": {"bad": about}}},
        lambda about: {"else": {"properties": {"bad": about}}},
        lambda about: {"oneOf": [{"properties": {"bad": about}}]},
        lambda about: {"anyOf": [{"allOf": [{"properties": {"bad": about}}]}]},
        lambda about: {"properties": {"bad": {"$ref": "#/definitions/x"}}, "definitions": {"x": about}},
    ],
    ids=["here", "below", "items", "any-key", "then", "else", "one-of", "nested", "reference"],
)
def test_a_key_without_words_or_example_is_named(around: Any, lacking: str):
    about = {key: value for key, value in SOME.items() if key != lacking}

    with pytest.raises(Undocumented, match="`bad`"):
        table(**around(about))

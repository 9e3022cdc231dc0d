"""Templates: values and texts, their types, what is refused, and where an error says that it stands."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cas.diagnostics import Diagnostic, InvalidInput
from cas.template import Engine, TemplateError

NAMES: dict[str, Any] = {
    "release": "1.4.0",
    "count": 3,
    "yes": True,
    "nothing": None,
    "stages": ["build", "test"],
    "item": {"name": "docs", "values": [1, 2], "items": "mine", "deep": {"er": {"est": 1}}},
    "loop": {"index": 1},
}


def failure(text: str, names: dict[str, Any] | None = None, *, kind: str = "value") -> TemplateError:
    with pytest.raises(TemplateError) as caught:
        getattr(Engine(), kind)(text, NAMES if names is None else names)
    return caught.value


# Values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{ release }}", "1.4.0"),
        ("{{ count }}", 3),
        ("{{ count + 1 }}", 4),
        ("{{ count / 2 }}", 1.5),
        ("{{ yes }}", True),
        ("{{ nothing }}", None),
        ("{{ stages }}", ["build", "test"]),
        ("{{ item }}", NAMES["item"]),
        ("{{ {'a': 1, 'b': [count]} }}", {"a": 1, "b": [3]}),
        ("{{ (1, 2) }}", [1, 2]),
        ("{{ range(3) }}", [0, 1, 2]),
        ("{{ stages | map('upper') }}", ["BUILD", "TEST"]),
        ("{{ stages | length > 1 }}", True),
        ("{{- count -}}", 3),
        ("{{ '{{ count }}' }}", "{{ count }}"),
        ("{{ '}}' }}", "}}"),
    ],
)
def test_a_value_that_is_one_whole_expression_keeps_its_type(text: str, value: object):
    found = Engine().value(text, NAMES)

    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("rel-{{ release }}", "rel-1.4.0"),
        ("{{ count }} ", "3 "),
        (" {{ count }}", " 3"),
        ("{{ count }}{{ count }}", "33"),
        ("{% if yes %}{{ count }}{% endif %}", "3"),
        ("{# a remark #}{{ count }}", "3"),
        ("{{ nothing }}.", "None."),
        ("{{ stages }}.", "['build', 'test']."),
        ("{% raw %}{{ count }}{% endraw %}", "{{ count }}"),
        ("", ""),
        ("plain", "plain"),
        ("two\nlines\n", "two\nlines\n"),
    ],
)
def test_a_value_with_more_than_one_expression_is_text(text: str, value: str):
    assert Engine().value(text, NAMES) == value


def test_every_value_is_plain_data_that_json_could_hold():
    value = Engine().value("{{ [stages, item, range(2), (1,), stages | select('eq', 'test')] }}", NAMES)

    assert json.loads(json.dumps(value)) == [["build", "test"], NAMES["item"], [0, 1], [1], ["test"]]


def test_a_marked_text_becomes_a_plain_one():
    assert type(Engine().value("{{ release | escape }}", NAMES)) is str


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("release == '1.4.0'", True),
        ("'rc' in release", False),
        ("count", 3),
        ("missing is defined", False),
        ("not yes", False),
    ],
)
def test_an_expression_without_braces_has_its_value(expression: str, value: object):
    assert Engine().truth(expression, NAMES) == value


def test_a_text_keeps_its_last_line_end_and_all_blank_lines():
    source = "\n{% for one in stages %}\n* {{ one }}\n{% endfor %}\n\n"

    assert Engine().text(source, NAMES) == "\n\n* build\n\n* test\n\n\n"


def test_an_engine_gives_the_same_text_with_other_names():
    engine = Engine()

    assert [engine.text("{{ one }}", {"one": one}) for one in (1, "b")] == ["1", "b"]
    assert engine.value("{{ one }}", {"one": 1}) == 1


def test_the_keys_of_a_map_come_before_the_methods_of_one():
    engine = Engine()

    assert engine.value("{{ item.values }}", NAMES) == [1, 2]
    assert engine.value("{{ item.items }}", NAMES) == "mine"
    assert engine.value("{{ item['deep'].er.est }}", NAMES) == 1
    assert engine.value("{{ item.deep.keys() | list }}", NAMES) == ["er"]


# What is not defined


def test_a_name_that_is_not_defined_is_an_error_with_the_nearest_one():
    error = failure("{{ relaese }}")

    assert (str(error), error.code) == ("`relaese` is not defined", "undefined-variable")
    assert (error.line, error.hint) == (1, "did you mean `release`?")


def test_where_no_name_is_near_those_that_there_are_are_told():
    assert failure("{{ zzz }}", {"b": 1, "a": 2}).hint == "there are `a`, `b`"


def test_where_there_are_no_names_there_is_no_hint():
    assert failure("{{ zzz }}", {}).hint is None


@pytest.mark.parametrize(
    "text",
    ["{{ x }}", "a {{ x }}", "{% for y in x %}{% endfor %}", "{{ x + 1 }}", "{{ x.y }}", "{{ [x] }}", "{{ {'a': x} }}"],
)
def test_a_name_that_is_not_defined_is_never_empty_text(text: str):
    assert failure(text).code == "undefined-variable"


@pytest.mark.parametrize("text", ["{{ x | default('a') }}", "{{ 'a' if x is not defined else x }}"])
def test_what_is_not_defined_can_be_asked_for_on_purpose(text: str):
    assert Engine().value(text, NAMES) == "a"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("{{ item.nmae }}", "there is no `nmae` in it", "did you mean `name`?"),
        ("{{ item['nmae'] }}.", "there is no `nmae` in it", "did you mean `name`?"),
        ("{{ item.deep.zzz }}", "there is no `zzz` in it", "there are `er`"),
        ("{{ release.zzz }}", "there is no `zzz` in it", None),
        ("{{ stages[7] }}", "there is no `7` in it", None),
    ],
)
def test_an_attribute_that_is_not_there_is_an_error_with_those_that_are(text: str, message: str, hint: str | None):
    error = failure(text)

    assert (str(error), error.hint, error.code) == (message, hint, "undefined-variable")


def test_a_name_with_a_line_end_in_it_stays_on_one_line():
    assert str(failure(r"{{ item['a\nb'] }}")) == "there is no `a b` in it"


def test_the_keys_of_a_map_that_are_no_texts_are_told_as_well():
    assert failure("{{ x.y }}", {"x": {1: 2}}).hint == "there are `1`"


# Where an error stands


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb\n{{ x }}\n", 3),
        ("a\n{% if yes %}\nb\n{{ item.x }}\n{% endif %}\n", 4),
        ("a\n\n{{ 1 / 0 }}", 3),
        ("a\n{{ ''.__class__.x }}", 2),
        ("a\n{% if %}", 2),
        ("a\n{% for x in stages %}\n", 2),
        ("a\nb\n{{ count | nothing }}", 3),
        ("{{ x }}", 1),
    ],
)
@pytest.mark.parametrize("kind", ["text", "value"])
def test_an_error_has_its_line(text: str, line: int, kind: str):
    assert failure(text, kind=kind).line == line


@pytest.mark.parametrize(("text", "kind"), [("count ==\n\nx", "truth"), ("{{\ncount ==\nx }}", "value")])
def test_an_expression_on_several_lines_has_a_line_of_its_own(text: str, kind: str):
    assert failure(text, kind=kind).line in (1, 2, 3)


# What cannot be read


@pytest.mark.parametrize("text", ["a {{ count", "{{ count )}}", "{% for %}", "{% if yes %}", "{{ }}", "{# never ends"])
def test_a_template_that_cannot_be_read_is_an_error(text: str):
    error = failure(text)

    assert (error.code, error.line) == ("template-syntax", 1)
    assert str(error)[0].islower() or not str(error)[0].isalpha()


def test_an_expression_that_never_ends_cannot_be_read():
    assert failure("{{ count").code == "template-syntax"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("{{ release | uper }}", "did you mean `upper`?"),
        ("{{ release is strin }}", "did you mean `string`?"),
        ("{{ release | zzzzzz }}", None),
    ],
)
def test_a_filter_or_test_that_is_not_there_has_the_nearest_one_as_its_hint(text: str, hint: str | None):
    error = failure(text)

    assert (error.code, error.hint) == ("template-syntax", hint)


def test_an_error_beside_a_macro_of_org_says_how_that_is_written():
    error = failure("{{{date}}}", kind="text")

    assert error.hint == "org's own {{{…}}} is written {% raw %}{{{…}}}{% endraw %} in a template"


def test_a_macro_of_org_in_a_raw_block_goes_through():
    assert Engine().text("{% raw %}{{{date}}}{% endraw %}", {}) == "{{{date}}}"


# What is refused


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__ }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ item.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ ''['__class__'] }}",
        "{{ (stages | attr('__class__')) }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{% set y = stages.append(1) %}{{ y }}",
        "{{ item.update({'a': 1}) }}",
        "{{ range(100000000) }}",
    ],
)
def test_what_leads_out_of_the_sandbox_or_changes_a_value_is_refused(text: str):
    names = json.loads(json.dumps(NAMES))

    assert failure(text, names).code in ("template-forbidden", "undefined-variable", "template-failed")
    assert names == NAMES


def test_a_forbidden_attribute_is_said_to_be_forbidden():
    assert failure("{{ ''.__class__ }}").code == "template-forbidden"


@pytest.mark.parametrize("text", ["{{ lipsum() }}", "{{ stages | random }}", "{{ random }}"])
def test_nothing_is_random(text: str):
    assert failure(text).code in ("undefined-variable", "template-syntax")


@pytest.mark.parametrize(
    "text",
    [
        "{{ range }}",
        "{{ item.deep.keys }}",
        "{{ cycler(1) }}",
        "{{ namespace(a=1) }}",
        "{{ [range, dict] }}",
        "{{ dict }}.",
        "{{ item.deep.keys }}.",
        "{{ stages | map }}.",
    ],
)
def test_what_is_no_value_is_an_error_and_no_address_in_memory_becomes_text(text: str):
    error = failure(text)

    assert (error.code, "0x" in str(error)) == ("template-failed", False)


@pytest.mark.parametrize("text", ["{{ 1 / 0 }}", "{{ 'a' + 1 }}", "{{ count() }}", "{{ stages | sum }}"])
def test_an_expression_that_fails_is_an_error_in_one_line(text: str):
    error = failure(text)

    assert error.code in ("template-failed", "undefined-variable")
    assert str(error)
    assert "\n" not in str(error)


def test_what_recurses_for_ever_is_an_error():
    assert failure("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}").code == "template-failed"


# Other templates


def test_a_template_includes_imports_and_extends_what_the_run_looks_up():
    there = {
        "head.j2": "# {{ release }}\n",
        "base.j2": "<{% block a %}{% endblock %}>",
        "m.j2": "{% macro bold(x) %}*{{ x }}*{% endmacro %}",
    }
    engine = Engine(there.__getitem__)

    assert engine.text("{% include 'head.j2' %}", NAMES) == "# 1.4.0\n"
    assert engine.text("{% extends 'base.j2' %}{% block a %}{{ count }}{% endblock %}", NAMES) == "<3>"
    assert engine.text("{% from 'm.j2' import bold %}{{ bold(count) }}", NAMES) == "*3*"


def test_what_cannot_be_looked_up_keeps_its_own_words():
    def read(path: str) -> str:
        raise InvalidInput([Diagnostic(code="outside", message=f"`{path}` lies outside")])

    with pytest.raises(InvalidInput, match=r"`\.\./x` lies outside"):
        Engine(read).text("{% include '../x' %}", {})


def test_without_a_place_to_look_nothing_is_included():
    error = failure("{% include 'head.j2' %}", kind="text")

    assert (str(error), error.code) == ("`head.j2` cannot be looked up from here", "template-failed")


def test_memory_that_runs_out_is_left_to_those_who_bound_it():
    def read(path: str) -> str:
        raise MemoryError

    with pytest.raises(MemoryError):
        Engine(read).text("{% include 'a' %}", {})


# Whatever is written


WORDS = (
    "{{ }} {% %} {# #} {{{ }}} - if else endif for in endfor x item . | upper ' ( ) [ ] __class__ raw endraw set"
    " = 1 + / 0 ~ , include macro loop range is not stages é \x00 \ud800 self super()"
)
PIECES = st.sampled_from([" ", "\n", *WORDS.split()])


@given(st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=40))
def test_no_text_makes_it_raise_anything_but_its_own_error(text: str):
    for kind in ("value", "truth", "text"):
        error = told(kind, text)
        assert error is None or (str(error) and "\n" not in str(error))
        assert error is None or error.line is None or error.line >= 1


def told(kind: str, text: str) -> TemplateError | None:
    try:
        getattr(Engine(), kind)(text, NAMES)
    except TemplateError as error:
        return error
    return None


@given(st.text(alphabet=st.characters(exclude_characters="{"), max_size=60))
def test_a_text_without_braces_stays_what_it_is(text: str):
    # Jinja2 reads every line end as \n.
    assert Engine().text(text, {}) == text.replace("\r\n", "\n").replace("\r", "\n")

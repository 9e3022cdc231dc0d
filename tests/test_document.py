"""YAML that means what it shows, with the place of everything."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cas import document
from cas.diagnostics import SPLIT, Diagnostic, InvalidInput
from cas.document import DEEPEST, LARGEST, MOST_ALIASED, MOST_FINDINGS, MOST_VALUES, Document

LOADERS = [yaml.SafeLoader, yaml.CSafeLoader]


@pytest.fixture(params=LOADERS, ids=["python", "c"])
def loader(request: pytest.FixtureRequest) -> Any:
    return request.param


def parsed(text: str | bytes, loader: Any = None) -> Document:
    content = text.encode() if isinstance(text, str) else text
    return document.parse(content, file="release.yaml", loader=loader)


def findings(text: str | bytes, loader: Any = None) -> tuple[Diagnostic, ...]:
    with pytest.raises(InvalidInput) as caught:
        parsed(text, loader)
    assert all(found.place.file == "release.yaml" for found in caught.value.diagnostics)
    return caught.value.diagnostics


def finding(text: str | bytes, loader: Any = None) -> Diagnostic:
    (found,) = findings(text, loader)
    return found


def position(found: Diagnostic) -> tuple[int | None, int | None]:
    return found.place.line, found.place.column


def at(given: Document, *path: str | int, key: bool = False) -> tuple[int | None, int | None]:
    place = given.place(path, key=key)
    return place.line, place.column


# What it means


@pytest.mark.parametrize(
    "text",
    [
        *("no", "No", "NO", "yes", "on", "off", "y", "n", "True", "TRUE", "False", "Null", "NULL", "~"),
        *("1.10", "1.0", "1e3", ".5", ".inf", ".nan", "010", "0o10", "0x1F", "0b1", "1_000", "+5", "-x", "00", "-01"),
        *("12:30", "12:30:45", "2026-11-23", "2026-11-23T01:31:33Z", "٣", "5CA7F1", "5e0", "=", "9" * 101),
    ],
)
def test_a_plain_scalar_that_other_readers_convert_stays_a_text(text, loader):
    assert parsed(f"a: {text}", loader).value == {"a": text}
    assert parsed(f"a: [{text}]", loader).value == {"a": [text]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("true", True), ("false", False), ("null", None), ("", None)),
        *(("0", 0), ("-0", 0), ("7", 7), ("-12", -12), ("9" * 100, int("9" * 100))),
    ],
)
def test_plain_booleans_null_and_decimal_integers_have_their_types(text, value, loader):
    (found,) = parsed(f"a: {text}", loader).value.values()

    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ['"true"', "'7'", '""', "'null'", "|-\n  7", ">-\n  true"])
def test_what_is_quoted_or_a_block_is_a_text(text, loader):
    assert isinstance(parsed(f"a: {text}", loader).value["a"], str)


def test_lists_and_maps_nest_in_every_notation(loader):
    text = "a:\n  - b: [1, {c: d}]\n  -\n    - e\n  - |\n    f\n    g\n? h\n: {}\n"

    assert parsed(text, loader).value == {"a": [{"b": [1, {"c": "d"}]}, ["e"], "f\ng\n"], "h": {}}


def test_a_document_may_be_a_list_or_a_text(loader):
    assert parsed("- a\n- b\n", loader).value == ["a", "b"]
    assert parsed("hello", loader).value == "hello"


def test_a_document_may_begin_with_three_dashes_a_directive_or_a_comment(loader):
    assert parsed("# comment\n%YAML 1.1\n---\na: b\n...\n", loader).value == {"a": "b"}


def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(loader):
    given = parsed("\ufeffa: b\r\nc:\r\n  - d\r\n", loader)

    assert given.value == {"a": "b", "c": ["d"]}
    assert at(given, "a", key=True) == (1, 1)
    assert at(given, "c", 0) == (3, 5)


def test_an_alias_is_what_its_anchor_stands_for(loader):
    given = parsed("a: &x {retries: 3}\nb: *x\nc: &y text\nd: [*y, *y]\n", loader)

    assert given.value == {"a": {"retries": 3}, "b": {"retries": 3}, "c": "text", "d": ["text", "text"]}


def test_an_alias_may_be_a_key(loader):
    assert parsed("a: &x name\n*x : b\n", loader).value == {"a": "name", "name": "b"}


def test_an_anchor_given_again_counts_from_there_on(loader):
    assert parsed("[&a 1, *a, &a 2, *a]", loader).value == [1, 1, 2, 2]


def test_a_merge_key_is_a_key_like_any_other(loader):
    assert parsed("a: &x {b: c}\nd:\n  <<: *x\n", loader).value["d"] == {"<<": {"b": "c"}}


# Where it stands


NESTED = """\
cas: 1
sends:
  - id: one
    retry: {retries: 3, backoff: [5, 30]}
  - id:   "two"
    sign:
"""


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ((), (1, 1)),
        (("cas",), (1, 6)),
        (("sends",), (3, 3)),
        (("sends", 0), (3, 5)),
        (("sends", 0, "id"), (3, 9)),
        (("sends", 0, "retry"), (4, 12)),
        (("sends", 0, "retry", "backoff", 1), (4, 38)),
        (("sends", 1, "id"), (5, 11)),
    ],
)
def test_every_value_has_its_place(path, place, loader):
    assert at(parsed(NESTED, loader), *path) == place


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("cas",), (1, 1)),
        (("sends",), (2, 1)),
        (("sends", 0, "retry"), (4, 5)),
        (("sends", 0, "retry", "backoff"), (4, 25)),
        (("sends", 1, "sign"), (6, 5)),
    ],
)
def test_every_key_has_its_place(path, place, loader):
    assert at(parsed(NESTED, loader), *path, key=True) == place


def test_a_value_that_is_missing_has_the_place_of_what_would_hold_it(loader):
    given = parsed(NESTED, loader)

    assert at(given, "sends", 0, "message") == (3, 5)
    assert at(given, "sends", 9, "id") == (3, 3)
    assert at(given, "sends", -1) == (3, 3)
    assert at(given, "sends", "id") == (3, 3)
    assert at(given, "cas", "deeper", "still") == (1, 6)
    assert at(given, "vars", key=True) == (1, 1)


def test_a_key_of_the_same_name_inside_itself_has_its_own_place(loader):
    given = parsed("retry:\n  retry:\n    retry: 1\n", loader)

    assert at(given, "retry", "retry", "retry", key=True) == (3, 5)
    assert at(given, "retry", "retry", "missing", key=True) == (3, 5)


def test_an_alias_stands_where_it_is_written_and_its_contents_where_they_are(loader):
    given = parsed("a: &x\n  b: c\nd: *x\n", loader)

    assert at(given, "d") == (3, 4)
    assert at(given, "d", "b") == (2, 6)


def test_columns_count_characters_not_bytes(loader):
    assert at(parsed("{ä: ö, 😀: x}", loader), "😀") == (1, 11)


def test_a_document_keeps_its_lines(loader):
    given = parsed("a: b\r\n\nc: d\n", loader)

    assert given.lines == ["a: b", "", "c: d", ""]


# What is refused


def test_a_key_given_twice_is_an_error_that_names_both_places(loader):
    found = finding("sends: []\ncas: 1\n\nsends: []\n", loader)

    assert (found.code, position(found)) == ("duplicate-key", (4, 1))
    assert "`sends`" in found.message
    assert [(place.line, place.column) for place, _ in found.related] == [(1, 1)]


def test_the_same_key_in_two_maps_is_none_given_twice(loader):
    assert parsed("- a: 1\n- a: 2\n", loader).value == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("key", ["5", "true", "null", "", "[a, b]", "{a: b}"])
def test_a_key_that_is_not_a_text_is_an_error(key, loader):
    found = finding(f"ok: 1\n? {key}\n: x\n", loader)

    assert found.code == "non-text-key"
    assert found.place.line == 2
    assert f"`{key}`" in found.message
    assert found.hint == "put it in quotes"


def test_a_quoted_number_is_a_key(loader):
    assert parsed('"5": x', loader).value == {"5": "x"}


@pytest.mark.parametrize(
    ("value", "tag"),
    [
        ("!!str 5", "!!str"),
        ("!!python/object/apply:os.system [ls]", "!!python/object/apply:os.system"),
        ("!env HOME", "!env"),
        ("! 5", "!"),
        ("&x ! 5", "!"),
        ("!!map {b: c}", "!!map"),
        ("!!binary aGk=", "!!binary"),
    ],
)
def test_a_tag_is_an_error(value, tag, loader):
    found = finding(f"a: {value}", loader)

    assert (found.code, position(found)) == ("tag", (1, 4))
    assert f"`{tag}`" in found.message


def test_an_exclamation_mark_elsewhere_is_no_tag(loader):
    assert parsed("a: hello!\nb: '! c'\n", loader).value == {"a": "hello!", "b": "! c"}


def test_a_second_document_is_an_error(loader):
    found = finding("a: b\n---\nc: d\n", loader)

    assert (found.code, position(found)) == ("several-documents", (2, 1))


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "---\n...\n", "null", "\ufeff"])
def test_a_file_that_says_nothing_is_an_error(text, loader):
    found = finding(text, loader)

    assert (found.code, position(found)) == ("empty", (None, None))


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("{a: ", "}")])
def test_a_document_may_be_fifty_levels_deep_and_no_deeper(opening, closing, loader):
    assert parsed(opening * DEEPEST + closing * DEEPEST, loader).value

    found = finding("a:\n - " + opening * DEEPEST, loader)

    assert found.code == "too-deep"
    assert found.place.line == 2


@pytest.mark.parametrize("text", ["[" * 3_000, "{" * 3_000, "- " * 3_000, "? " * 3_000, "[{" * 100_000])
def test_three_thousand_brackets_are_too_deep_and_no_crash(text, loader):
    assert finding(text, loader).code == "too-deep"


def test_an_alias_bomb_is_refused_at_once(loader):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 20)]

    started = time.perf_counter()
    found = finding("\n".join(lines), loader)

    assert time.perf_counter() - started < 1
    assert found.code == "alias-bomb"
    assert found.place.line == 6


def test_many_aliases_of_a_small_thing_are_no_bomb(loader):
    text = "defaults: &d {retries: 3}\nsends:\n" + "  - *d\n" * 1_000

    assert len(parsed(text, loader).value["sends"]) == 1_000


def test_the_values_that_aliases_hold_are_counted_one_by_one():
    bare = "- &x [" + ", ".join("1" * 99) + "]\n"  # 100 values

    assert parsed(bare + "- *x\n" * (MOST_ALIASED // 100))
    assert finding(bare + "- *x\n" * (MOST_ALIASED // 100 + 1)).code == "alias-bomb"


def test_aliases_cannot_make_a_document_deeper_than_it_may_be(loader):
    deep = "a0: &a0 [x]\n" + "".join(f"a{level}: &a{level} [*a{level - 1}]\n" for level in range(1, 60))

    found = finding(deep, loader)

    assert found.code == "too-deep"
    assert found.place.line == DEEPEST


def test_an_alias_without_an_anchor_is_an_error(loader):
    found = finding("a: b\nc: *nobody\n", loader)

    assert (found.code, position(found)) == ("unknown-alias", (2, 4))
    assert found.message == "the alias `*nobody` has no anchor before it"


@pytest.mark.parametrize("text", ["a: &x [*x]", "a: &x {b: *x}", "[&x 1, &x [*x]]"])
def test_an_alias_inside_of_what_it_stands_for_is_an_error(text, loader):
    found = finding(text, loader)

    assert found.code == "unknown-alias"
    assert "inside" in found.message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a:\n\tb: c\n", 2),
        ("a:\n  - b\n\t- c\n", 3),
        ("a: |\n\tb\n", 2),
        ("a:\n  \tb: c\n", 2),
    ],
)
def test_a_tab_that_indents_is_an_error_with_its_place(text, line, loader):
    found = finding(text, loader)

    assert (found.code, found.place.line) == ("tab", line)
    assert found.hint == "YAML wants spaces"


def test_a_tab_within_a_text_is_part_of_it(loader):
    assert parsed("a: |\n  b\tc\nd: 'e\tf'\n", loader).value == {"a": "b\tc\n", "d": "e\tf"}


@pytest.mark.parametrize(
    "text", ["a: [b", "a: 'b", "a: b: c", "- a\nb: c", "a: @b", "{a: b}}", "a: %b", "*", "%YAML 9.9\n---\n"]
)
def test_what_is_not_yaml_is_an_error_with_its_place(text, loader):
    found = finding(text, loader)

    assert found.code == "yaml-syntax"
    assert found.message.startswith("not YAML: ")
    assert found.place.line is not None


def test_a_syntax_error_names_what_it_is_inside_of(loader):
    found = finding("a: b\nc: [d, e\n", loader)

    assert [place.line for place, _ in found.related] == [2]


def test_findings_before_a_syntax_error_are_not_lost(loader):
    assert [found.code for found in findings("a: 1\na: 2\nb: [\n", loader)] == ["duplicate-key", "yaml-syntax"]


def test_all_findings_come_at_once(loader):
    found = findings('a: 1\na: !!str 2\n5: x\nb: "\\e"\n', loader)

    assert [(one.code, one.place.line) for one in found] == [
        ("duplicate-key", 2),
        ("tag", 2),
        ("non-text-key", 3),
        ("control-character", 4),
    ]


def test_after_a_hundred_findings_nobody_reads_on(loader):
    assert len(findings("a: 1\n" * 1_000, loader)) == MOST_FINDINGS


@pytest.mark.parametrize(
    ("content", "line"),
    [(b"a: \xff\n", 1), (b"a: b\nc: \xc3\x28", 2), ("a: b".encode("utf-16"), 1), (b"\n\na: \xed\xa0\x80\n", 3)],
)
def test_what_is_not_utf_8_is_refused_with_its_line(content, line, loader):
    found = finding(content, loader)

    assert found.code == "not-utf-8"
    assert found.place.line == line


@pytest.mark.parametrize(
    "character",
    [
        "\x00",
        "\x07",
        "\x0b",
        "\x0c",
        "\x1b",
        "\x7f",
        "\x85",
        "\x9b",
        "\u2028",
        "\u2029",
        "\ufeff",
        "\ufffe",
        "\uffff",
        "\r",
    ],
)
def test_a_control_character_is_refused_with_its_place(character, loader):
    found = finding(f"a: b\nc: d{character}e\n", loader)

    assert (found.code, position(found)) == ("control-character", (2, 5))
    assert f"U+{ord(character):04X}" in found.message
    assert character not in found.message


@pytest.mark.parametrize(
    "escape", [r"\e]0;", r"\0", r"\x7f", r"\a", r"\b", r"\r", r"\N", r"\L", r"\P", r"\u009b", r"\uFEFF"]
)
def test_an_escaped_control_character_is_refused_with_its_place(escape, loader):
    found = finding(f'a: "{escape}"\n', loader)

    assert (found.code, position(found)) == ("control-character", (1, 4))


@pytest.mark.parametrize("escape", [r"\ud800", r"\uDFFF"])
def test_half_a_character_is_refused(escape, loader):
    assert finding(f'a: "{escape}"\n', loader).code in ("control-character", "yaml-syntax")


def test_tabs_newlines_quotes_and_letters_may_be_escaped(loader):
    assert parsed(r'a: "\t\n\"\\\u00e4\x41"', loader).value == {"a": '\t\n"\\äA'}


def test_a_file_of_more_than_ten_megabytes_is_refused_unread():
    assert finding(b" " * LARGEST).code == "empty"
    assert finding(b" " * (LARGEST + 1)).code == "too-large"


# Whatever comes


PIECES = (
    *(
        "a",
        "b: ",
        "\n",
        "\n  ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "&x ",
        "*x",
        "!",
        "!!str ",
        "|",
        ">",
        '"',
        "'",
        "\\",
        "? ",
    ),
    *(": ", "#", "%", "---\n", "...\n", "\t", "\r\n", "<<", "7", "true", "\u2028", "\x1b", "é", "😀", "\\e", "@"),
)
YAML_LIKE = st.lists(st.sampled_from(PIECES)).map("".join)


@settings(deadline=None)
@given(st.binary())
def test_any_bytes_are_a_document_or_invalid_input(content):
    with suppress(InvalidInput):
        assert parsed(content).value is not None


@settings(deadline=None, max_examples=500)
@given(YAML_LIKE)
def test_anything_like_yaml_means_the_same_to_both_parsers_or_is_invalid_input(text):
    meanings = []
    for loader in LOADERS:
        with suppress(InvalidInput):
            meanings.append(parsed(text, loader).value)

    assert len(meanings) < 2 or meanings[0] == meanings[1]


PLAIN_DATA = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.text(st.characters(min_codepoint=32, max_codepoint=126)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)
@given(st.dictionaries(st.text("abc", min_size=1), PLAIN_DATA, min_size=1))
def test_what_pyyaml_writes_reads_as_it_was(value):
    text = yaml.dump(value, default_style=None, Dumper=_QuotingDumper)

    given = parsed(text)

    assert given.value == value
    for key in value:
        place = given.place((key,), key=True)
        assert given.lines[place.line - 1][place.column - 1 :].lstrip("\"'? ").startswith(key)


class _QuotingDumper(yaml.SafeDumper):
    """Quotes texts, and shares nothing."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_QuotingDumper.add_representer(
    str, lambda dumper, data: dumper.represent_scalar("tag:yaml.org,2002:str", data, style='"')
)


# How long it takes


def processor_seconds(work: Callable[[], object]) -> float:
    """The least of five tries, without what other processes and the garbage of earlier tests take."""

    def once() -> float:
        gc.collect()
        gc.disable()
        try:
            started = time.process_time()
            work()
            return time.process_time() - started
        finally:
            gc.enable()

    return min(once() for _ in range(5))


def test_thousands_of_sends_take_about_as_long_as_with_pyyaml_itself():
    text = "sends:\n" + "  - {id: a, destination: [b.c, d.e], message: f.org, retry: {retries: 3}}\n" * 3_000

    ours = processor_seconds(lambda: parsed(text))
    theirs = processor_seconds(lambda: yaml.load(text, Loader=yaml.CSafeLoader))

    # About as long, measured by `./do bench`. Beside other work a ratio moves; a second pass over the nodes is 5.
    assert ours < 3 * theirs


@pytest.mark.parametrize(
    "piece",
    ["- a\n", "k{n}: a\n", "- 'it is! not a tag'\n", "- &x{n} a\n- *x{n}\n", "- |\n  a\n  b\n", "- [[a], {{b: c}}]\n"],
    ids=["list", "map", "exclamation", "anchors", "blocks", "flow"],
)
def test_ten_times_the_text_takes_about_ten_times_as_long(piece):
    def seconds(count: int) -> float:
        text = "".join(piece.format(n=number) for number in range(count)).encode()
        return processor_seconds(lambda: parsed(text))

    # The square would take a hundred times as long.
    assert seconds(10_000) < 60 * seconds(1_000)


def test_more_values_than_any_manifest_needs_are_too_large(loader: Any):
    within = "[" + "0," * (MOST_VALUES - 1) + "]"

    assert len(parsed(within, loader).value) == MOST_VALUES - 1
    found = finding(within.replace("]", "0]"), loader)
    assert (found.code, found.hint) == ("too-large", SPLIT)

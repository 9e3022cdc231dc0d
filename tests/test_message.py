"""Frontmatter, in every form that it comes in."""

from __future__ import annotations

from itertools import islice, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cas.diagnostics import Diagnostic, InvalidInput, Place
from cas.errors import ExitCode
from cas.message import MOST_COMPARED, REQUIRED, TYPES, Message, frontmatter, parse
from cas.names import digest

SOUND = {
    "CONVERSATION_ID": "greeting",
    "MESSAGE_TYPE": "request",
    "SEQUENCE": "7",
    "TIMESTAMP": "2026-11-23T01:31:33Z",
    "PROTOCOL_VERSION": "1.0",
}


def text(*, before: str = "", after: str = "\n* Hello\n", **changes: str | None) -> str:
    """A message; None leaves a line out."""
    values = {**SOUND, **changes}
    return before + "".join(f"#+{key}: {value}\n" for key, value in values.items() if value is not None) + after


def parsed(message: str | bytes) -> Message:
    content = message.encode() if isinstance(message, str) else message
    return parse(content, place=Place(file="hello.org"))


def findings(message: str | bytes) -> tuple[Diagnostic, ...]:
    with pytest.raises(InvalidInput) as caught:
        parsed(message)
    assert caught.value.exit_code is ExitCode.MESSAGE
    assert all(found.place.file == "hello.org" for found in caught.value.diagnostics)
    return caught.value.diagnostics


def finding(message: str | bytes) -> Diagnostic:
    (found,) = findings(message)
    return found


def test_a_sound_message_gives_its_frontmatter():
    message = parsed(text())

    assert message.conversation == "greeting"
    assert message.type == "request"
    assert message.sequence == 7
    assert message.timestamp == "2026-11-23T01:31:33Z"
    assert message.protocol_version == "1.0"


def test_a_message_keeps_its_bytes_as_they_are():
    content = b"\r\n" + text(after="\r\n\ttail \xc3\xa4").encode("latin-1")

    message = parsed(content)

    assert message.digest == digest(content)
    assert message.size == len(content)


@pytest.mark.parametrize("kind", TYPES)
def test_each_type_of_the_contract_is_a_type(kind):
    assert parsed(text(MESSAGE_TYPE=kind)).type == kind


def test_there_are_seven_types():
    assert set(TYPES) == {"request", "progress", "query", "pushback", "complete", "release", "escalate"}


def test_blank_and_other_lines_before_the_block_are_passed_over():
    assert parsed(text(before="\n# a comment\n#+title: Hello\n\nSome words\n")).conversation == "greeting"


def test_other_keys_are_allowed():
    assert parsed(text(before="#+TITLE: Hello\n", IN_REPLY_TO="20261123")).sequence == 7


def test_the_block_may_end_with_the_file():
    assert parsed(text(after="")).protocol_version == "1.0"
    assert parsed(text(after="").rstrip("\n")).protocol_version == "1.0"


def test_of_a_key_given_twice_the_last_counts():
    assert parsed(text(before="#+SEQUENCE: nonsense\n")).sequence == 7


def test_a_key_given_again_after_the_block_counts_for_nothing():
    assert parsed(text(after="\n#+SEQUENCE: 8\n")).sequence == 7


def test_values_are_stripped():
    assert parsed(text(CONVERSATION_ID=" \t greeting \t ")).conversation == "greeting"


def test_a_value_may_follow_its_colon_at_once():
    assert parsed(text().replace(": ", ":")).conversation == "greeting"


def test_a_value_may_hold_colons():
    assert parsed(text(TIMESTAMP="[2026-11-23 Mon 01:31]")).timestamp == "[2026-11-23 Mon 01:31]"


def test_lines_may_end_as_on_windows():
    message = parsed(text().replace("\n", "\r\n"))

    assert (message.conversation, message.sequence) == ("greeting", 7)


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "\x85"])
def test_only_a_newline_ends_a_line(character):
    message = parsed(text(TITLE=f"a{character}#+SEQUENCE: 8"))

    assert message.sequence == 7


def test_a_blank_line_ends_the_block():
    found = findings(text(SEQUENCE="7\n"))

    assert [one.message for one in found] == [
        "the frontmatter has no `TIMESTAMP`",
        "the frontmatter has no `PROTOCOL_VERSION`",
    ]
    assert {one.place.line for one in found} == {3}


def test_a_line_of_another_form_ends_the_block_and_is_pointed_at():
    found = finding(text(after="").replace("#+PROTOCOL_VERSION", "#+protocol_version"))

    assert found.message == "the frontmatter has no `PROTOCOL_VERSION`"
    assert [place.line for place, _ in found.related] == [5]


@pytest.mark.parametrize(
    "line", ["* Heading", "words", "#+title: Hello", "#+KEY value", " #+KEY: value", "\t", "# note"]
)
def test_what_follows_a_line_of_another_form_is_not_frontmatter(line):
    found = findings(text(MESSAGE_TYPE=f"request\n{line}"))

    assert [one.message for one in found] == [
        "the frontmatter has no `SEQUENCE`",
        "the frontmatter has no `TIMESTAMP`",
        "the frontmatter has no `PROTOCOL_VERSION`",
    ]


def test_a_key_after_the_end_of_the_block_is_pointed_at():
    found = finding(text(PROTOCOL_VERSION=None, after="\n#+PROTOCOL_VERSION: 1.0\n"))

    assert [place.line for place, _ in found.related] == [6]


def test_a_byte_order_mark_hides_the_first_line_and_that_is_said():
    found = finding("\ufeff" + text())

    assert found.message == "the frontmatter has no `CONVERSATION_ID`"
    assert [place.line for place, _ in found.related] == [1]


@pytest.mark.parametrize("key", SOUND)
def test_a_missing_key_is_named(key):
    found = finding(text(**{key: None}))

    assert found.code == "missing-frontmatter"
    assert f"`{key}`" in found.message
    assert found.place.line == 4
    assert found.related == ()


@pytest.mark.parametrize("key", SOUND)
def test_a_key_without_a_value_is_named_with_its_line(key):
    found = finding(text(**{key: "  "}))

    assert found.code == "empty-frontmatter"
    assert f"`{key}`" in found.message
    assert found.place.line == list(SOUND).index(key) + 1


def test_a_mistyped_key_is_one_finding_with_the_key_that_was_meant():
    found = finding(text().replace("CONVERSATION_ID", "CONVERSATON_ID"))

    assert found.hint == "did you mean `CONVERSATION_ID`?"
    assert found.place.line == 1


def test_a_mistyped_type_gets_a_suggestion():
    found = finding(text(MESSAGE_TYPE="requst"))

    assert found.code == "unknown-message-type"
    assert found.hint == "did you mean `request`?"
    assert found.place.line == 2


def test_a_type_that_is_near_to_none_gets_the_list():
    assert finding(text(MESSAGE_TYPE="x")).hint == f"one of {', '.join(TYPES)}"


def test_a_type_in_capitals_is_none():
    assert finding(text(MESSAGE_TYPE="REQUEST")).code == "unknown-message-type"


@pytest.mark.parametrize("sequence", ["one", "1.0", "-1", "+1", "1_000", "٣", "²", "0x1", "1 2", "1234567890", "1e3"])
def test_a_sequence_is_one_to_nine_ascii_digits(sequence):
    found = finding(text(SEQUENCE=sequence))

    assert found.code == "invalid-sequence"
    assert found.place.line == 3


@pytest.mark.parametrize(("sequence", "number"), [("0", 0), ("007", 7), ("999999999", 999_999_999)])
def test_a_sequence_may_be_zero_or_have_leading_ones(sequence, number):
    assert parsed(text(SEQUENCE=sequence)).sequence == number


@pytest.mark.parametrize(
    "conversation",
    [
        "../../etc",
        "a/b",
        "..",
        "a..b",
        ".hidden",
        "-rf",
        "a b",
        "a\x1b]0;b",
        "a\x00b",
        "a\rb",
        "ä",
        "a\u2028b",
        "c" * 300,
    ],
)
def test_a_conversation_that_could_name_a_file_elsewhere_is_refused(conversation):
    found = finding(text(CONVERSATION_ID=conversation))

    assert found.code == "unsafe-conversation"
    assert found.place.line == 1
    assert len(found.message) < 120


def test_all_findings_come_at_once_with_their_lines():
    found = findings(text(CONVERSATION_ID="a/b", MESSAGE_TYPE="x", SEQUENCE="y", TIMESTAMP="", PROTOCOL_VERSION=None))

    assert [(one.code, one.place.line) for one in found] == [
        ("unsafe-conversation", 1),
        ("unknown-message-type", 2),
        ("invalid-sequence", 3),
        ("empty-frontmatter", 4),
        ("missing-frontmatter", 4),
    ]


def test_lines_are_counted_from_the_start_of_the_file():
    assert finding(text(before="\n\nwords\n", SEQUENCE="x")).place.line == 6


@pytest.mark.parametrize(
    "message", ["", "\n\n", "* Hello\n", "#+: x\n", "#+A1: x\n", "CONVERSATION_ID: x\n", "#+KEY\n"]
)
def test_a_message_without_frontmatter_is_refused(message):
    found = finding(message)

    assert found.code == "no-frontmatter"
    assert found.message == ("the message has no frontmatter" if message.strip() else "the message is empty")
    assert found.place.line is None


@pytest.mark.parametrize("line", ["#+conversation_id: x", " #+CONVERSATION_ID: x", "#+ SEQUENCE: x", "#+SEQUENCE : x"])
def test_frontmatter_in_nearly_the_right_form_is_pointed_at(line):
    found = finding(f"\n{line}\n")

    assert found.code == "no-frontmatter"
    assert f"`{line.strip()}`" in found.message
    assert found.place.line == 2


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"#+A: b\n\xc3\x28\n", b"ok\nok \xed\xa0\x80", "ä\n".encode("utf-16")]
)
def test_a_message_that_is_not_utf_8_is_refused_with_the_line(content):
    found = finding(content)

    assert found.code == "undecodable-message"
    assert found.hint == "save it as UTF-8"
    assert found.place.line == (1 if content.startswith(b"\xff") else 2)


@settings(deadline=None)
@given(st.binary())
def test_any_bytes_are_a_message_or_invalid_input(content):
    try:
        message = parsed(content)
    except InvalidInput:
        return
    assert (message.digest, message.size) == (digest(content), len(content))


@settings(deadline=None)
@given(st.lists(st.sampled_from([*text().splitlines(True), "#+", "\n", "#+SEQUENCE:", "\r", "#+x: y\n", "é"])))
def test_any_lines_are_a_message_or_invalid_input(lines):
    content = "".join(lines).encode()
    try:
        message = parsed(content)
    except InvalidInput:
        return
    assert (message.conversation, message.sequence) == ("greeting", 7)


def test_among_more_than_a_hundred_other_keys_nobody_looks_for_the_mistyped_one():
    others = "".join(f"#+{''.join(letters)}:\n" for letters in islice(permutations("ABCDEF"), MOST_COMPARED))

    found = finding(text(before=others).replace("CONVERSATION_ID", "CONVERSATON_ID"))

    assert found.message == "the frontmatter has no `CONVERSATION_ID`"


# Frontmatter that cas makes


def made(body: str = "* Hello\n", extra: dict[str, str] | None = None, **changes: object) -> Message:
    values = {"conversation": "greeting", "type": "request", "sequence": 7, "timestamp": "2026-11-23T01:31:33Z"}
    return parsed(frontmatter(**{**values, **changes}, extra=extra or {}, place=Place(file="hello.org")) + body)


def unfit(**changes: object) -> tuple[Diagnostic, ...]:
    with pytest.raises(InvalidInput) as caught:
        made(**changes)
    assert caught.value.exit_code is ExitCode.MESSAGE
    return caught.value.diagnostics


def test_frontmatter_stands_in_the_contracts_order_and_ends_with_a_blank_line():
    message = made(body="", extra={"TITLE": "Hello"})

    assert message.digest == digest(text(after="#+TITLE: Hello\n\n").encode())


def test_frontmatter_is_not_continued_by_a_body_that_looks_like_it():
    message = made(body="#+SEQUENCE: 8\n#+TIMESTAMP:\n")

    assert (message.sequence, message.timestamp) == (7, "2026-11-23T01:31:33Z")


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), min_size=1).filter(str.strip)
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", fullmatch=True)
KEYS = st.from_regex(r"[A-Z_]{1,9}", fullmatch=True).filter(lambda key: key not in REQUIRED)


@settings(deadline=None)
@given(
    conversation=NAMES,
    type=st.sampled_from(TYPES),
    sequence=st.integers(0, 999_999_999),
    timestamp=WORDS,
    protocol_version=WORDS,
    extra=st.dictionaries(KEYS, WORDS | st.just("")),
    body=st.text(st.characters(exclude_categories=["Cs"])),
)
def test_frontmatter_that_is_made_parses_back(extra: dict[str, str], body: str, **values: object):
    message = made(body, extra, **values)

    assert {key: getattr(message, key) for key in values} == {
        key: value.strip() if isinstance(value, str) else value for key, value in values.items()
    }
    assert message.size >= len(b"\n\n" + body.encode())


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["conversation", "type", "timestamp", "protocol_version"]), st.text()))
def test_frontmatter_of_any_values_is_sound_or_refused(values: dict[str, str]):
    try:
        block = frontmatter(
            **{"conversation": "a", "type": "query", "sequence": 1, "timestamp": "now", **values},
            place=Place(file="hello.org"),
        )
    except InvalidInput:
        return
    message = parsed(block.encode("utf-8", "replace"))
    assert message.sequence == 1
    assert len(block.split("\n")) == len(REQUIRED) + 2


@pytest.mark.parametrize(
    ("changes", "code", "named"),
    [
        ({"conversation": "a/b"}, "unsafe-conversation", "`a/b`"),
        ({"conversation": ""}, "empty-frontmatter", "`CONVERSATION_ID`"),
        ({"type": "requst"}, "unknown-message-type", "`requst`"),
        ({"sequence": -1}, "invalid-sequence", "`-1`"),
        ({"sequence": 1_000_000_000}, "invalid-sequence", "`1000000000`"),
        ({"timestamp": " "}, "empty-frontmatter", "`TIMESTAMP`"),
        ({"protocol_version": ""}, "empty-frontmatter", "`PROTOCOL_VERSION`"),
        ({"timestamp": "now\n#+SEQUENCE: 8"}, "unsafe-frontmatter", "`TIMESTAMP`"),
        ({"extra": {"TITLE": "a\n\nb"}}, "unsafe-frontmatter", "`TITLE`"),
        ({"extra": {"title": "a"}}, "unsafe-frontmatter", "`title`"),
        ({"extra": {"SEQUENCE": "8"}}, "unsafe-frontmatter", "`SEQUENCE`"),
        ({"extra": {"A: b\n#+B": "c"}}, "unsafe-frontmatter", "cannot be a further key"),
    ],
)
def test_frontmatter_that_would_not_parse_back_is_refused(changes, code, named):
    (found,) = unfit(**changes)

    assert (found.code, found.place) == (code, Place(file="hello.org"))
    assert named in found.message


def test_all_that_is_wrong_with_frontmatter_to_be_made_comes_at_once():
    found = unfit(conversation="a/b", type="x", sequence=-1, timestamp="")

    assert [one.code for one in found] == [
        "unsafe-conversation",
        "unknown-message-type",
        "invalid-sequence",
        "empty-frontmatter",
    ]

"""Messages: their bytes into what the frontmatter says, or into all that is wrong with it; and frontmatter. Pure.

The bytes of a message are never changed, and not kept: its digest stands for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from cas.diagnostics import Diagnostic, InvalidInput, Place, decoded, suggestion
from cas.errors import ExitCode
from cas.names import NAME_RULE, digest, is_name

KEY = re.compile(r"[A-Z_]+", re.ASCII)
# Line ends are \n alone (str.splitlines would split at U+2028 too): `^` and `[^\n]` know no others.
KEYWORD = re.compile(r"^#\+([A-Z_]++):([^\n]*+)(?:\n|\Z)", re.ASCII | re.MULTILINE)
SPACE = r"[^\S\n]*+"
NEARLY_KEYWORD = re.compile(rf"^\ufeff?{SPACE}#\+{SPACE}([A-Za-z_]++){SPACE}:[^\n]*+", re.ASCII | re.MULTILINE)
STRAY = "this line is outside of the frontmatter, or not of the form `#+KEY: value`"
SEQUENCE = re.compile(r"[0-9]{1,9}", re.ASCII)
REQUIRED = ("CONVERSATION_ID", "MESSAGE_TYPE", "SEQUENCE", "TIMESTAMP", "PROTOCOL_VERSION")
PROTOCOL_VERSION = "1.0"
TYPES = ("request", "progress", "query", "pushback", "complete", "release", "escalate")
TO, MESSAGE_ID = "TO", "MESSAGE_ID"
LONGEST_FURTHER = 300
LONGEST_SHOWN = 60
MOST_COMPARED = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A sound message: the digest and the number of its bytes, and its frontmatter's required values.

    `to`: the inbox that it says it is for, `<machine>.<project>`; `message_id`: the delivery that it says it is.
    """

    digest: str
    size: int
    conversation: str
    type: str
    sequence: int
    timestamp: str
    protocol_version: str
    to: str | None = None
    message_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Value:
    text: str
    place: Place


def parse(content: bytes, *, place: Place) -> Message:
    """A message's frontmatter; `place` names its file. Raises InvalidInput with every finding."""
    text = decoded(content, place, code="undecodable-message", whose=" of the message", exit_code=ExitCode.MESSAGE)
    values = _frontmatter(text, place)
    if not values:
        raise InvalidInput([_no_frontmatter(text, place)])
    if found := list(_findings(values, text)):
        raise InvalidInput(found)
    return Message(
        digest=digest(content),
        size=len(content),
        conversation=values["CONVERSATION_ID"].text,
        type=values["MESSAGE_TYPE"].text,
        sequence=int(values["SEQUENCE"].text),
        timestamp=values["TIMESTAMP"].text,
        protocol_version=values["PROTOCOL_VERSION"].text,
        to=_further(values, TO),
        message_id=_further(values, MESSAGE_ID),
    )


def addressed(address: str, identity: str) -> dict[str, str]:
    """The keys of a message that cas makes, which say for which inbox and which delivery it is."""
    return {TO: address, MESSAGE_ID: identity}


def _further(values: Mapping[str, _Value], key: str) -> str | None:
    return (values[key].text[:LONGEST_FURTHER] or None) if key in values else None


def frontmatter(
    *,
    conversation: str,
    type: str,  # noqa: A002
    sequence: int,
    timestamp: str,
    protocol_version: str = PROTOCOL_VERSION,
    extra: Mapping[str, str] = MappingProxyType({}),
    place: Place,
) -> str:
    """The block that opens a message, with the blank line that ends it: the body follows at once, whatever it is.

    What it gives parses back to these values, stripped. `extra` are further keys. Raises InvalidInput with every
    finding; `place` is where the values were written.
    """
    required = (conversation, type, str(sequence), timestamp, protocol_version)
    values = {key: value.strip() for key, value in (*zip(REQUIRED, required, strict=True), *extra.items())}
    if found := [*_unfit(values, extra, place), *_findings(_placed(values, place), "")]:
        raise InvalidInput(found)
    return "".join(f"#+{key}: {value}".rstrip() + "\n" for key, value in values.items()) + "\n"


def _unfit(values: Mapping[str, str], extra: Mapping[str, str], place: Place) -> Iterator[Diagnostic]:
    """What would break the block, or give a key another value than it was given."""
    for key in extra:
        if key in REQUIRED or not KEY.fullmatch(key):
            hint = "capitals and underscores, and none of the five that each message has"
            yield _finding("unsafe-frontmatter", f"`{_shown(key)}` cannot be a further key", place, hint)
    for key, value in _placed(values, place).items():
        if "\n" in value.text and not _wrong(key, value):
            yield _finding("unsafe-frontmatter", f"the value of `{_shown(key)}` has more than one line", place, None)


def _placed(values: Mapping[str, str], place: Place) -> dict[str, _Value]:
    return {key: _Value(text=value, place=place) for key, value in values.items()}


def _frontmatter(text: str, place: Place) -> dict[str, _Value]:
    """The keys and values of the block: from the first line of its form to the first of another form, or blank."""
    keyword = KEYWORD.search(text)
    number = _line(text, keyword.start()) if keyword else 0
    found: dict[str, tuple[str, int]] = {}
    while keyword:
        found[keyword[1]] = keyword[2], number
        keyword, number = KEYWORD.match(text, keyword.end()), number + 1
    return {
        key: _Value(text=value.strip(), place=Place(file=place.file, line=line)) for key, (value, line) in found.items()
    }


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _findings(values: Mapping[str, _Value], text: str) -> Iterator[Diagnostic]:
    for key in REQUIRED:
        if key not in values:
            yield _missing(key, values, text)
        elif not values[key].text:
            yield _finding("empty-frontmatter", f"`{key}` has no value", values[key].place, None)
        elif finding := _wrong(key, values[key]):
            yield finding


def _wrong(key: str, value: _Value) -> Diagnostic | None:
    shown = _shown(value.text)
    match key:
        case "CONVERSATION_ID" if not is_name(value.text):
            return _finding("unsafe-conversation", f"`{shown}` cannot be a CONVERSATION_ID", value.place, NAME_RULE)
        case "MESSAGE_TYPE" if value.text not in TYPES:
            hint = suggestion(value.text, TYPES) or f"one of {', '.join(TYPES)}"
            return _finding("unknown-message-type", f"`{shown}` is not a MESSAGE_TYPE", value.place, hint)
        case "SEQUENCE" if not SEQUENCE.fullmatch(value.text):
            hint = "one to nine digits, such as 1"
            return _finding("invalid-sequence", f"`{shown}` is not a SEQUENCE", value.place, hint)
        case _:
            return None


def _missing(key: str, values: Mapping[str, _Value], text: str) -> Diagnostic:
    """Where a key that is there looks like a mistyped one, that one is named."""
    others = [other for other in values if other not in REQUIRED][:MOST_COMPARED]
    mistyped = next((other for other in others if suggestion(other, [key])), None)
    if mistyped:
        message = f"`{mistyped}` is not a frontmatter key that is known, and `{key}` is missing"
        return _finding("missing-frontmatter", message, values[mistyped].place, f"did you mean `{key}`?")
    last = list(values.values())[-1].place
    finding = _finding("missing-frontmatter", f"the frontmatter has no `{key}`", last, f"add a line `#+{key}: …`")
    stray = _stray_line(key, text)
    return replace(finding, related=((replace(last, line=stray), STRAY),)) if stray else finding


def _stray_line(key: str, text: str) -> int | None:
    """The first line that was meant to give a key which the frontmatter lacks."""
    nearly = (keyword for keyword in NEARLY_KEYWORD.finditer(text) if keyword[1].upper() == key)
    return next((_line(text, keyword.start()) for keyword in nearly), None)


def _no_frontmatter(text: str, place: Place) -> Diagnostic:
    nearly = NEARLY_KEYWORD.search(text)
    number = _line(text, nearly.start()) if nearly else None
    hint = "it begins with lines such as `#+CONVERSATION_ID: …`: keys in capitals, from the first column"
    shown = nearly[0].removeprefix("\ufeff").strip()[:LONGEST_SHOWN] if nearly else ""
    without = "the message has no frontmatter" if text.strip() else "the message is empty"
    message = f"no frontmatter; `{shown}` is not a line of one" if number else without
    return _finding("no-frontmatter", message, replace(place, line=number), hint)


def _shown(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "…"


def _finding(code: str, message: str, place: Place, hint: str | None) -> Diagnostic:
    return Diagnostic(code=code, message=message, place=place, hint=hint, exit_code=ExitCode.MESSAGE)

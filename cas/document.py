"""Documents: the bytes of a YAML file into plain data that still knows where each value stood. Pure.

A scalar means what it shows. Plain `true`, `false`, `null`, nothing at all and decimal integers have their types;
everything else is text: `no`, `1.10`, `010`, `12:30` and dates too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from cas.diagnostics import MOST_FINDINGS, SPLIT, Diagnostic, InvalidInput, Place, decoded

# With these, whatever a file holds is read, or refused, within a second and 100 MB.
LARGEST = 4 << 20
MOST_VALUES = 100_000
MOST_ALIASED = 100_000
LONG_TEXT = 100
"""So many characters of an aliased text weigh as much as a value."""
DEEPEST = 50
WORDS: Mapping[str, bool | None] = {"": None, "null": None, "true": True, "false": False}
INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,99})", re.ASCII)  # int() refuses thousands of digits
TAB_INDENT = re.compile(r" *\t")
INVISIBLE = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff"
# Other line ends than \n would make YAML count lines that no editor counts.
CONTROL = re.compile(rf"[{INVISIBLE}]|\r(?!\n)")
ESCAPED_CONTROL = re.compile(rf"[{INVISIBLE}\r\ud800-\udfff]")

HINTS = {
    "found character that cannot start any token": "a text that begins so goes in quotes",
    "mapping values are not allowed in this context": (
        "a text with a colon and a space in it goes in quotes; the keys of a map begin in one column"
    ),
    "did not find expected node content": "close what was opened there, or put a text with brackets in quotes",
    "block sequence entries are not allowed in this context": "a list begins on a new line, or is written [a, b]",
    "found unexpected end of stream": "close what was opened there",
    "did not find expected ',' or ']'": "close the list, or put a text with such signs in quotes",
    "did not find expected ',' or '}'": "close the map, or put a text with such signs in quotes",
    "did not find expected '-' indicator": "the items of a list begin in one column, and what belongs to one deeper",
    "did not find expected key": "the keys of a map begin in one column",
}
"""What mends a problem, by PyYAML's words for it."""
Path = Sequence[str | int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a file says. `value` is not to be changed: `places` knows its lists and maps by identity.

    `places`: for a map the line and column of each key and of its value, for a list those of each item; from 0.
    """

    file: str
    text: str
    value: Any
    start: tuple[int, int]
    places: Mapping[int, Any]

    @property
    def lines(self) -> list[str]:
        """The text, line by line, without the ends of lines."""
        return self.text.replace("\r\n", "\n").split("\n")

    def place(self, path: Path, *, key: bool = False) -> Place:
        """Where the value at a path stands, or its key; where there is none, the nearest value around it."""
        value, position = self.value, self.start
        for left, step in zip(range(len(path) - 1, -1, -1), path, strict=True):
            entry = _entry(self.places.get(id(value)), step)
            if entry is None:
                break
            position = (entry[0], entry[1]) if key and not left else (entry[-2], entry[-1])
            value = value[step]
        return Place(file=self.file, line=position[0] + 1, column=position[1] + 1)


def _entry(entries: Any, step: str | int) -> tuple[int, ...] | None:
    if isinstance(entries, dict):
        found: tuple[int, ...] | None = entries.get(step)
        return found
    if isinstance(entries, list) and isinstance(step, int) and 0 <= step < len(entries):
        item: tuple[int, ...] = entries[step]
        return item
    return None


def parse(content: bytes, *, file: str, loader: Any = None) -> Document:
    """A file's only document. Raises InvalidInput with everything found until reading on made no sense.

    `loader` is PyYAML's; by default the one written in C, where there is one.
    """
    text = _text(content, file)
    builder = _Builder(file, text)
    try:
        for event in _events(text, loader or getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            builder.take(event)
    except yaml.YAMLError as error:
        wrong = _syntax_error(error, text, file)
        # After `key: {{ name }}.x` YAML understands nothing, and the first finding says why.
        if not any(one.place and wrong.place and one.place.line == wrong.place.line for one in builder.found):
            builder.found.append(wrong)
    if not builder.found and builder.value is None:
        builder.found.append(Diagnostic(code="empty", message="the file says nothing", place=Place(file=file)))
    if builder.found:
        raise InvalidInput(builder.found)
    return Document(file=file, text=text, value=builder.value, start=builder.start, places=builder.places)


def scalar(text: str) -> Any:
    """What a plain scalar means."""
    return WORDS[text] if text in WORDS else int(text) if INTEGER.fullmatch(text) else text


def _events(text: str, loader: Any) -> Iterator[Any]:
    """Events, not nodes: composing nodes recurses, and follows an alias bomb wherever it leads."""
    parser = loader(text)
    while (event := parser.get_event()) is not None:
        yield event


@dataclass(slots=True, kw_only=True)
class _Open:
    """A list or map whose end has not come yet. `nodes` counts what it holds, with aliases written out."""

    value: Any
    entries: Any
    mark: Any
    anchor: str | None
    key: Any = None
    key_position: tuple[int, int] | None = None
    nodes: int = 1
    height: int = 1


@dataclass(slots=True)
class _Builder:
    """Turns events into data and places; what is wrong is collected in `found`, what is hopeless is raised."""

    file: str
    text: str
    found: list[Diagnostic] = field(default_factory=list)
    value: Any = None
    start: tuple[int, int] = (0, 0)
    places: dict[int, Any] = field(default_factory=dict)
    _open: list[_Open] = field(default_factory=list)
    _anchors: dict[str, tuple[Any, int, int]] = field(default_factory=dict)
    _documents: int = 0
    _values: int = 0
    _aliased: int = 0

    def take(self, event: Any) -> None:
        match event:
            case yaml.ScalarEvent():
                self._scalar(event)
            case yaml.MappingStartEvent():
                self._begin(event, {}, {})
            case yaml.SequenceStartEvent():
                self._begin(event, [], [])
            case yaml.CollectionEndEvent():
                self._end()
            case yaml.AliasEvent():
                self._alias(event)
            case yaml.DocumentStartEvent():
                self._document(event)

    def _document(self, event: Any) -> None:
        self._documents += 1
        if self._documents > 1:
            self._hopeless(event, "several-documents", "a second document begins here", "make it a file of its own")

    def _scalar(self, event: Any) -> None:
        value = event.value
        if event.tag is not None:
            self._tag(event)
        if not event.style:
            value = scalar(value)
        elif event.style == '"' and ESCAPED_CONTROL.search(value):
            self._finding(event, "control-character", "a control character is escaped in this text", "leave it out")
        self._unless_too_many(event)
        if event.anchor:
            self._anchors[event.anchor] = (value, 1 + len(event.value) // LONG_TEXT, 0)
        self._add(value, event.start_mark, 1, 0)

    def _begin(self, event: Any, value: Any, entries: Any) -> None:
        if event.tag is not None:
            self._tag(event)
        self._unless_too_deep(event, 1)
        self._unless_too_many(event)
        self._anchors.pop(event.anchor, None)  # from here on it means this one, which is not complete yet
        self.places[id(value)] = entries
        self._open.append(_Open(value=value, entries=entries, mark=event.start_mark, anchor=event.anchor))

    def _end(self) -> None:
        done = self._open.pop()
        if done.anchor:
            self._anchors[done.anchor] = (done.value, done.nodes, done.height)
        self._add(done.value, done.mark, done.nodes, done.height)

    def _alias(self, event: Any) -> None:
        name = event.anchor
        if name not in self._anchors:
            inside = any(opened.anchor == name for opened in self._open)
            reason = "is inside of what it stands for" if inside else "has no anchor before it"
            self._hopeless(event, "unknown-alias", f"the alias `*{name}` {reason}", None)
        value, nodes, height = self._anchors[name]
        self._aliased += nodes
        if self._aliased > MOST_ALIASED:
            reason = f"written out, the aliases hold more than {MOST_ALIASED} values"
            self._hopeless(event, "alias-bomb", reason, "repeat less, or split the file")
        self._unless_too_deep(event, height)
        self._add(value, event.start_mark, nodes, height)

    def _add(self, value: Any, mark: Any, nodes: int, height: int) -> None:
        """Put a complete value where it belongs: into what is open, as an item, a key or a key's value."""
        if not self._open:
            self.value, self.start = value, (mark.line, mark.column)
            return
        around = self._open[-1]
        around.nodes += nodes
        around.height = max(around.height, height + 1)
        if isinstance(around.value, list):
            around.value.append(value)
            around.entries.append((mark.line, mark.column))
        elif around.key_position is None:
            around.key = self._key(around, value, mark)
            around.key_position = (mark.line, mark.column)
        else:
            around.value[around.key] = value
            around.entries[around.key] = (*around.key_position, mark.line, mark.column)
            around.key_position = None

    def _key(self, around: _Open, key: Any, mark: Any) -> Any:
        if not isinstance(key, str):
            shown = self.text[mark.index : mark.index + 40].partition("\n")[0].strip()
            reason = f"a key that is not a text: `{shown}`"
            self._report("non-text-key", reason, self._place(mark), "put it in quotes")
            return (mark.line, mark.column)  # cannot be mistaken for another; the document is refused anyway
        if key in around.entries:
            line, column = around.entries[key][:2]
            first = (Place(file=self.file, line=line + 1, column=column + 1), "the first of the two")
            hint = "YAML would take the last one silently; keep one of them"
            self._report("duplicate-key", f"the key `{key}` is given twice", self._place(mark), hint, first)
        return key

    def _tag(self, event: Any) -> None:
        tag = event.tag.replace("tag:yaml.org,2002:", "!!")
        self._finding(event, "tag", f"the tag `{tag}` means nothing here", "leave it out; quotes make a text")

    def _unless_too_many(self, event: Any) -> None:
        self._values += 1
        if self._values > MOST_VALUES:
            reason = f"the file holds more than {MOST_VALUES} keys and values"
            self._hopeless(event, "too-large", reason, SPLIT)

    def _unless_too_deep(self, event: Any, height: int) -> None:
        if len(self._open) + height > DEEPEST:
            self._hopeless(event, "too-deep", f"more than {DEEPEST} levels inside each other", None)

    def _finding(self, event: Any, code: str, message: str, hint: str | None) -> None:
        self._report(code, message, self._place(event.start_mark), hint)

    def _hopeless(self, event: Any, code: str, message: str, hint: str | None) -> None:
        self._finding(event, code, message, hint)
        raise InvalidInput(self.found)

    def _report(self, code: str, message: str, place: Place, hint: str | None, *related: tuple[Place, str]) -> None:
        self.found.append(Diagnostic(code=code, message=message, place=place, hint=hint, related=related))
        if len(self.found) >= MOST_FINDINGS:
            raise InvalidInput(self.found)

    def _place(self, mark: Any) -> Place:
        return Place(file=self.file, line=mark.line + 1, column=mark.column + 1)


def _text(content: bytes, file: str) -> str:
    if len(content) > LARGEST:
        raise _unusable("too-large", f"the file is larger than {LARGEST} bytes", Place(file=file), SPLIT)
    text = decoded(content, Place(file=file), code="not-utf-8").removeprefix("\ufeff")
    if control := CONTROL.search(text):
        before = text[: control.start()]
        place = Place(file=file, line=before.count("\n") + 1, column=len(before) - before.rfind("\n"))
        raise _unusable("control-character", f"a control character, U+{ord(control[0]):04X}", place, "remove it")
    return text


def _syntax_error(error: yaml.YAMLError, text: str, file: str) -> Diagnostic:
    mark, around = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    place = _marked(mark, text, file)
    if mark and TAB_INDENT.match(text, text.rfind("\n", 0, mark.index) + 1):
        message = "a tab where the line is indented"
        return Diagnostic(code="tab", message=message, place=place, hint="YAML wants spaces")
    problem = getattr(error, "problem", None) or str(error)
    context, began = getattr(error, "context", None), _marked(around, text, file)
    related = ((began, context),) if around and context and began != place else ()
    hint = HINTS.get(problem)
    return Diagnostic(code="yaml-syntax", message=f"not YAML: {problem}", place=place, hint=hint, related=related)


def _marked(mark: Any, text: str, file: str) -> Place:
    if not mark:
        return Place(file=file)
    if mark.line > (last := text.count("\n")):  # YAML ends a last line that has no end
        return Place(file=file, line=last + 1, column=len(text) - text.rfind("\n"))
    return Place(file=file, line=mark.line + 1, column=mark.column + 1)


def _unusable(code: str, message: str, place: Place, hint: str | None) -> InvalidInput:
    return InvalidInput([Diagnostic(code=code, message=message, place=place, hint=hint)])

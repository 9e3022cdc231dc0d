"""Manifests: a checked document into records. Past this module nobody sees a raw dict. Pure.

Values may still hold templates: `expansion` makes plain ones of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from cas.diagnostics import Diagnostic, InvalidInput, Place, first
from cas.template import is_template

if TYPE_CHECKING:  # `cas send` has these records and no YAML
    from cas.document import Document

GIVEN = ("item", "loop", "destination", "machine", "project", "sender", "now")
"""Names that templates have from cas."""
LITERAL = re.compile(r"\|[-+0-9]*\s*(#.*)?$")
HEADER = ("conversation", "type", "sequence", "timestamp", "protocol_version")
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A value as it is written, in which texts may be templates, and where it stands."""

    value: Any
    place: Place | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """A send is signed: by the key that is named, or by gpg's default key for None."""

    key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often a delivery between machines is tried again, after how many seconds each; `timeout` bounds each wait."""

    retries: int = 3
    backoff: tuple[int, ...] = (5, 30, 120)
    timeout: int = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A destination, or a group with its `@`, as it is written."""

    text: str
    place: Place | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMessage:
    """A message that is a file, byte for byte. `path` is relative to the manifest's folder.

    `header`: what the message's frontmatter has to say, by the manifest's names for it.
    """

    path: str
    place: Place | None
    header: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateMessage:
    """A message that a template gives, frontmatter and all; `header` as FileMessage has it."""

    path: str
    place: Place | None
    header: Mapping[str, Value]
    variables: Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyMessage:
    """A message in the manifest itself: a text, a template as well, and what its frontmatter is made from."""

    text: str
    place: Place | None
    header: Mapping[str, Value]
    variables: Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForEach:
    """The items of a loop: a list, a map, a template for one of them, or the pattern of files, then in `files`.

    `places`: where each item stands, for those that are written out.
    """

    items: Any
    files: bool
    place: Place
    places: tuple[Place, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """One message to one or several destinations, for each item of a loop; `sign` is None for an unsigned one.

    `when`: true, false, or an expression. `after`: the ids of sends that have to be delivered before.
    """

    id: str
    destinations: tuple[Target, ...]
    message: FileMessage | TemplateMessage | BodyMessage
    sign: Sign | None
    retry: Retry
    place: Place | None
    for_each: ForEach | None = None
    variables: Mapping[str, Value] = field(default_factory=dict)
    when: Value | None = None
    after: tuple[Value, ...] = ()
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A manifest. `sender` is None where its folder says who sends; `templated`: something in it wants Jinja2.

    `text`: the file's own.
    """

    file: str
    name: str
    sender: str | None
    sender_place: Place | None = None
    variables: Mapping[str, Value] = field(default_factory=dict)
    sends: tuple[Send, ...]
    templated: bool = False
    text: str = ""

    def is_literal(self, place: Place) -> bool:
        """Whether the value at a place is a block whose lines are the file's: begun by `|` and nothing else."""
        line = self.text.split("\n")[(place.line or 1) - 1]
        return LITERAL.match(line, (place.column or 1) - 1) is not None


def parse(document: Document) -> Manifest:
    """The records of a document in which `schema.check` found nothing. Raises InvalidInput."""
    value = document.value
    if found := first(chain(_doubled_ids(document), _reserved(document), _unfit_patterns(document))):
        raise InvalidInput(found)
    sends = tuple(_send(document, index) for index in range(len(value["sends"])))
    return Manifest(
        file=document.file,
        name=value.get("name", PurePath(document.file).stem),
        sender=value.get("sender"),
        sender_place=document.place(("sender",)) if "sender" in value else None,
        variables=_values(document, ("vars",), value.get("vars", {})),
        sends=sends,
        text=document.text,
        templated=any(_wants_jinja(send) for send in sends) or _templated(value),
    )


def _templated(value: Any) -> bool:
    """Whether there is a template among all of these values."""
    rest, seen = [value], set()
    while rest:
        match rest.pop():
            case str() as text:
                if "{" in text and is_template(text):
                    return True
            case dict() | list() as many if id(many) not in seen:
                seen.add(id(many))  # an alias stands for one of them, again and again
                rest += many.values() if isinstance(many, dict) else many
    return False


def _wants_jinja(send: Send) -> bool:
    return isinstance(send.message, TemplateMessage) or (send.when is not None and isinstance(send.when.value, str))


def _send(document: Document, index: int) -> Send:
    defaults, send, path = document.value.get("defaults", {}), document.value["sends"][index], ("sends", index)
    more = _more(document, path, send) if send.keys() & {"for_each", "vars", "when", "after"} else {}
    return Send(
        id=send["id"],
        destinations=tuple(
            Target(text=text, place=place)
            for text, place in _texts(document, (*path, "destination"), send["destination"])
        ),
        message=_message(document, (*path, "message"), send["message"]),
        sign=_sign(defaults.get("sign", True), send.get("sign", {})),
        retry=_retry({**defaults.get("retry", {}), **send.get("retry", {})}),
        place=document.place((*path, "id")),
        tags=tuple(_listed(send.get("tags", defaults.get("tags", ())))),
        **more,
    )


def _more(document: Document, path: Path, send: Mapping[str, Any]) -> dict[str, Any]:
    """What few sends have."""
    return {
        "for_each": _for_each(document, (*path, "for_each"), send["for_each"]) if "for_each" in send else None,
        "variables": _values(document, (*path, "vars"), send.get("vars", {})),
        "when": Value(value=send["when"], place=document.place((*path, "when"))) if "when" in send else None,
        "after": tuple(
            Value(value=text, place=place) for text, place in _texts(document, (*path, "after"), send.get("after", []))
        ),
    }


def _texts(document: Document, path: Path, value: str | list[str]) -> Iterator[tuple[str, Place]]:
    if isinstance(value, str):
        yield value, document.place(path)
        return
    for index, text in enumerate(value):
        yield text, document.place((*path, index))


def _listed(value: str | Iterable[str]) -> Iterable[str]:
    return (value,) if isinstance(value, str) else value


def _values(document: Document, path: Path, values: Mapping[str, Any]) -> dict[str, Value]:
    return {name: Value(value=value, place=document.place((*path, name))) for name, value in values.items()}


def _for_each(document: Document, path: Path, value: Any) -> ForEach:
    if isinstance(value, dict) and value.keys() == {"files"} and isinstance(value["files"], str):
        return ForEach(items=value["files"], files=True, place=document.place((*path, "files")))
    steps: Iterable[str | int] = (
        () if isinstance(value, str) else value if isinstance(value, dict) else range(len(value))
    )
    places = tuple(document.place((*path, step)) for step in steps)
    return ForEach(items=value, files=False, place=document.place(path), places=places)


def _message(
    document: Document, path: Path, value: str | Mapping[str, Any]
) -> FileMessage | TemplateMessage | BodyMessage:
    if isinstance(value, str):
        return FileMessage(path=value, place=document.place(path))
    header = _values(document, path, {name: value[name] for name in HEADER if name in value})
    if "file" in value:
        return FileMessage(path=value["file"], place=document.place((*path, "file")), header=header)
    variables = _values(document, (*path, "vars"), value.get("vars", {}))
    if "template" in value:
        place = document.place((*path, "template"))
        return TemplateMessage(path=value["template"], place=place, header=header, variables=variables)
    return BodyMessage(text=value["body"], place=document.place((*path, "body")), header=header, variables=variables)


def _sign(default: bool | Mapping[str, str], own: bool | Mapping[str, str]) -> Sign | None:
    """`true` and `{}` leave the default's key; `false` is unsigned."""
    if own is False or (default is False and own == {}):
        return None
    key = None if isinstance(default, bool) else default.get("key")
    return Sign(key=key if isinstance(own, bool) else own.get("key", key))


def _retry(value: Mapping[str, Any]) -> Retry:
    fields = dict(value)
    if "backoff" in fields:
        fields["backoff"] = tuple(fields["backoff"])
    return Retry(**fields)


def _doubled_ids(document: Document) -> Iterable[Diagnostic]:
    earlier: dict[str, int] = {}
    for index, send in enumerate(document.value["sends"]):
        if send["id"] in earlier:
            other = document.place(("sends", earlier[send["id"]], "id"))
            yield Diagnostic(
                code="duplicate-id",
                message=f"the id `{send['id']}` is given twice",
                place=document.place(("sends", index, "id")),
                hint="give each send an id of its own",
                related=((other, "the first of the two"),),
            )
        earlier.setdefault(send["id"], index)


def _reserved(document: Document) -> Iterable[Diagnostic]:
    """Variables that would hide what cas gives."""
    for path in _variables(document.value):
        if path[-1] in GIVEN:
            yield Diagnostic(
                code="reserved-name",
                message=f"`{path[-1]}` is a name that cas gives to templates",
                place=document.place(path, key=True),
                hint="call the variable something else",
            )


def _unfit_patterns(document: Document) -> Iterable[Diagnostic]:
    """`for_each: {files: …}` with anything but a text, which would be a loop over a map of one key."""
    for index, send in enumerate(document.value["sends"]):
        loop = send.get("for_each")
        if isinstance(loop, dict) and loop.keys() == {"files"} and not isinstance(loop["files"], str):
            yield Diagnostic(
                code="wrong-type",
                message="`files` is not a text",
                place=document.place(("sends", index, "for_each", "files")),
                hint="one pattern, such as outbox/*.org; to go through a map with this one key, call it otherwise",
            )


def _variables(value: Mapping[str, Any]) -> Iterator[Path]:
    """The path of each variable that is declared."""
    yield from (("vars", name) for name in value.get("vars", {}))
    for index, send in enumerate(value["sends"]):
        yield from (("sends", index, "vars", name) for name in send.get("vars", ()))
        if isinstance(send["message"], dict):
            yield from (("sends", index, "message", "vars", name) for name in send["message"].get("vars", ()))

"""The expansion: manifests into what each delivery is to be, with loops and templates carried out. Pure.

What a manifest names is looked up by the `Library` that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from cas.diagnostics import Diagnostic, InvalidInput, Place, Severity, listed, suggestion
from cas.errors import ExitCode
from cas.inventory import Destination, Inventory, members, resolve
from cas.manifest import (
    BodyMessage,
    FileMessage,
    ForEach,
    Manifest,
    Send,
    Sign,
    Target,
    TemplateMessage,
    Value,
)
from cas.message import Message, frontmatter
from cas.message import parse as parse_message
from cas.names import digest, timestamp
from cas.plan import Input
from cas.template import is_template
from cas.template_error import TemplateError

if TYPE_CHECKING:  # many manifests hold no template
    from cas.template import Engine

LONGEST_KEY = 100
KEYS = ("id", "name")
ATTRIBUTES = {"conversation": "CONVERSATION_ID", "type": "MESSAGE_TYPE", "sequence": "SEQUENCE"}
ATTRIBUTES |= {"timestamp": "TIMESTAMP", "protocol_version": "PROTOCOL_VERSION"}
Names = Mapping[str, Any]


class Library(Protocol):
    """What lies below a manifest's folder. `place` is where the path is written, for diagnostics."""

    def message(self, path: str, place: Place | None) -> Message | None:
        """A file's message; None where it cannot be had, which was told before. Raises InvalidInput."""

    def text(self, path: str, place: Place | None) -> str:
        """A template's text. Raises InvalidInput, without a finding where it was told before."""

    def files_matching(self, pattern: str, place: Place | None) -> Sequence[str]:
        """The paths of the files that match, sorted. Raises InvalidInput."""

    def place(self, path: str) -> Place:
        """The file itself, for diagnostics."""

    def hold(self, message: Message, content: bytes) -> None:
        """Keep the bytes of a message that was made."""

    @property
    def inputs(self) -> Mapping[str, Input]:
        """The files that were read, by path."""

    @property
    def files(self) -> Mapping[str, Any]:
        """The path of each message that is a file, by digest."""

    @property
    def held(self) -> Mapping[str, bytes]:
        """The bytes of each message that is none, by digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A manifest, who sends, and what belongs to it. `origin`: the manifest as a plan names it."""

    manifest: Manifest
    sender: str
    library: Library
    origin: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A delivery to be. `id` is that of its send, with the item's key; `origin`: where its message comes from.

    `message` is None for what `when` leaves out, which `reason` says. `identifying` is the digest that its identity is
    made from: without the TIMESTAMP line, where that came from the clock.
    """

    id: str
    sender: str
    send: Send
    target: Target
    destination: Destination
    sign: Sign | None
    after: tuple[Value, ...] = ()
    message: Message | None = None
    identifying: str = ""
    origin: str = ""
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    """One turn of a loop, with the names that it gives; a send without a loop has one turn."""

    id: str
    names: Names = field(default_factory=dict)
    shown: str = ""
    place: Place | None = None


def expand(
    sources: Sequence[Source],
    inventory: Inventory,
    *,
    clock: datetime,
    hostname: str,
    given: Mapping[str, Any] | None = None,
    note: Callable[[Place], None] = lambda _: None,
) -> tuple[tuple[Draft, ...], tuple[Diagnostic, ...]]:
    """The drafts of these manifests, in order, and what is wrong with the rest.

    `given` are values of variables from the command line; `note` is told where a template stands, before it is carried
    out.
    """
    values = dict(given or {})
    found = list(_undeclared(sources, values))
    if found:
        return (), tuple(found)
    drafts: list[Draft] = []
    for source in sources:
        drafts += _Expansion(source, inventory, clock, hostname, values, note, found).drafts()
    return tuple(drafts), tuple(found)


class _Expansion:
    """One manifest's."""

    def __init__(
        self,
        source: Source,
        inventory: Inventory,
        clock: datetime,
        hostname: str,
        given: Names,
        note: Callable[[Place], None],
        found: list[Diagnostic],
    ) -> None:
        self._source, self._inventory, self._clock, self._hostname = source, inventory, clock, hostname
        self._given, self._note, self._found = given, note, found
        self._templated = source.manifest.templated
        self._made: Engine | None = None

    def drafts(self) -> Iterator[Draft]:
        names: Names = {"sender": self._source.sender, "now": timestamp(self._clock)}
        try:
            names = self._with(names, self._source.manifest.variables, None)
        except InvalidInput as error:
            self._found += error.diagnostics
            return
        for send in self._source.manifest.sends:
            try:
                items = self._items(send, names)
            except InvalidInput as error:
                self._found += error.diagnostics
                continue
            yield from self._sent(send, items, names)

    def _sent(self, send: Send, items: Iterable[_Item], names: Names) -> Iterator[Draft]:
        """What one item has wrong, the others most often have too: said once."""
        told = set()
        for item in items:
            try:
                yield from self._deliveries(send, item, self._with({**names, **item.names}, send.variables, item))
            except InvalidInput as error:
                self._found += [one for one in error.diagnostics if (one.code, one.message, one.place) not in told]
                told |= {(one.code, one.message, one.place) for one in error.diagnostics}

    def _deliveries(self, send: Send, item: _Item, names: Names) -> Iterator[Draft]:
        after = tuple(replace(one, value=self._text(one.value, one.place, names, item)) for one in send.after)
        sign = send.sign
        if sign and sign.key and self._templated:
            sign = Sign(key=self._text(sign.key, send.place, names, item))
        destinations, wrong = self._destinations(send, item, names)
        for target, destination in destinations:
            machine, _, project = target.text.partition(".")
            given = {**names, "destination": target.text, "machine": machine, "project": project}
            draft = Draft(
                id=item.id,
                sender=self._source.sender,
                send=send,
                target=target,
                destination=destination,
                sign=sign,
                after=after,
            )
            if reason := self._left_out(send, given, item):
                yield replace(draft, reason=reason)
            elif filled := self._filled(draft, given, item):
                yield filled
        if wrong:
            if isinstance(file := send.message, FileMessage) and not destinations and not self._templated:
                self._found += _refused(lambda: self._source.library.message(file.path, file.place))
            raise InvalidInput(wrong)

    def _destinations(
        self, send: Send, item: _Item, names: Names
    ) -> tuple[list[tuple[Target, Destination]], list[Diagnostic]]:
        """Each inbox once, whatever names it was given; and what is wrong with the rest."""
        inboxes: dict[tuple[object, ...], tuple[Target, Destination]] = {}
        found: list[Diagnostic] = []
        for written in send.destinations:
            try:
                for target in self._targets(written, names, item):
                    destination = resolve(self._inventory, target.text, hostname=self._hostname, place=target.place)
                    inboxes.setdefault(destination.is_at, (target, destination))
            except InvalidInput as error:
                found += error.diagnostics
        return list(inboxes.values()), found

    def _targets(self, written: Target, names: Names, item: _Item) -> Iterator[Target]:
        value = self._value(written.text, written.place, names, item)
        for text in value if isinstance(value, list) else [value]:
            if not isinstance(text, str):
                raise _wrong_type("a destination", text, "a text", written.place, item)
            for member in members(self._inventory, text, place=written.place):
                yield Target(text=member, place=written.place)

    def _left_out(self, send: Send, names: Names, item: _Item) -> str | None:
        if send.when is None or send.when.value is True:
            return None
        if send.when.value is False:
            return "when: false"
        holds = self._carried_out("truth", send.when.value, send.when.place, names, item)
        if not isinstance(holds, bool):
            raise _wrong_type(
                "`when`", holds, "true or false", send.when.place, item, code="when-not-boolean", hint=COMPARE
            )
        return None if holds else f"when: {send.when.value} is false"

    def _filled(self, draft: Draft, names: Names, item: _Item) -> Draft | None:
        match draft.send.message:
            case FileMessage() as wanted:
                path = self._text(wanted.path, wanted.place, names, item)
                message = self._source.library.message(path, wanted.place)
                if message is None:
                    return None
                self._compare(message, wanted.header, path, names, item)
                return replace(draft, message=message, identifying=message.digest, origin=self._origin(path))
            case TemplateMessage() as wanted:
                return self._from_template(draft, wanted, names, item)
            case BodyMessage() as wanted:
                return self._from_body(draft, wanted, names, item)

    def _from_template(self, draft: Draft, wanted: TemplateMessage, names: Names, item: _Item) -> Draft:
        path = self._text(wanted.path, wanted.place, names, item)
        names = self._with(names, wanted.variables, item)
        source = self._source.library.text(path, wanted.place)
        where = self._source.library.place(path)
        rendered = self._carried_out("text", source, where, names, item, within=wanted.place)
        content = rendered.encode("utf-8", "surrogatepass")
        with _related(_around(item, wanted.place)):
            message = parse_message(content, place=Place(file=f"{where.file} (rendered)"))
        self._compare(message, wanted.header, path, names, item)
        self._source.library.hold(message, content)
        return replace(draft, message=message, identifying=message.digest, origin=self._origin(path))

    def _from_body(self, draft: Draft, wanted: BodyMessage, names: Names, item: _Item) -> Draft:
        names = self._with(names, wanted.variables, item)
        header = self._header(wanted.header, names, item)
        place = wanted.place or Place(file=self._source.manifest.file)
        body = self._carried_out("text", wanted.text, place, names, item) if self._templated else wanted.text
        given = {"timestamp": timestamp(self._clock), **header}
        block = frontmatter(**given, place=place)
        content = (block + body).encode("utf-8", "surrogatepass")
        message = parse_message(content, place=place)
        self._source.library.hold(message, content)
        lasting = "".join(line for line in block.splitlines(True) if not line.startswith("#+TIMESTAMP:")) + body
        identifying = message.digest if "timestamp" in header else digest(lasting.encode("utf-8", "surrogatepass"))
        return replace(draft, message=message, identifying=identifying, origin=self._source.origin)

    def _origin(self, path: str) -> str:
        """A file that was read, as a plan names it; what `cas send` brings has no other name."""
        read = self._source.library.inputs.get(path)
        return read.path if read else path

    def _header(self, header: Mapping[str, Value], names: Names, item: _Item) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in header.items():
            given = self._value(value.value, value.place, names, item)
            if name == "sequence":
                number = int(given) if isinstance(given, str) and given.isascii() and given.isdecimal() else given
                if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 10**9:
                    wanted, hint = "a whole number of at most nine digits", "such as 1, or `{{ loop.index }}` in a loop"
                    raise _wrong_type("`sequence`", given, wanted, value.place, item, hint=hint)
                found[name] = number
            else:
                found[name] = str(given)
        return found

    def _compare(self, message: Message, header: Mapping[str, Value], path: str, names: Names, item: _Item) -> None:
        """Raise InvalidInput where the frontmatter is not what the manifest says."""
        found = []
        for name, wanted in self._header(header, names, item).items():
            there = getattr(message, name)
            if there != wanted:
                found.append(
                    Diagnostic(
                        code="asserted-frontmatter",
                        message=f"`{path}` has {ATTRIBUTES[name]} `{there}`, and the manifest says `{wanted}`",
                        place=header[name].place,
                        hint="mend the one that is wrong",
                        exit_code=ExitCode.MESSAGE,
                        related=_of(item),
                    )
                )
        if found:
            raise InvalidInput(found)

    def _items(self, send: Send, names: Names) -> Sequence[_Item]:
        if send.for_each is None:
            return (_Item(id=send.id),)
        pairs = list(self._pairs(send, send.for_each, names))
        items: dict[str, _Item] = {}
        places = send.for_each.places or (send.for_each.place,) * len(pairs)
        for number, (key, value) in enumerate(pairs):
            if key in items:
                raise _doubled_item(send, key, places[number])
            loop = {
                "index": number + 1,
                "index0": number,
                "first": number == 0,
                "last": number + 1 == len(pairs),
                "length": len(pairs),
            }
            given = {"item": value, "loop": loop}
            items[key] = _Item(id=f"{send.id}[{key}]", names=given, shown=key, place=places[number])
        return tuple(items.values())

    def _pairs(self, send: Send, loop: ForEach, names: Names) -> Iterator[tuple[str, Any]]:
        """Each item's key and value."""
        value = self._value(loop.items, loop.place, names, None)
        if loop.files:
            yield from self._matches(send, str(value), loop.place)
        elif isinstance(value, dict):
            yield from ((str(key), {"key": key, "value": one}) for key, one in value.items())
        elif isinstance(value, list):
            yield from ((_key(one, number), one) for number, one in enumerate(value, start=1))
        else:
            hint = "a list in brackets, a map, or {files: pattern}"
            raise _wrong_type("`for_each`", value, "a list or a map", loop.place, None, hint=hint)

    def _matches(self, send: Send, pattern: str, place: Place) -> Iterator[tuple[str, Any]]:
        paths = self._source.library.files_matching(pattern, place)
        if not paths:
            self._found.append(
                Diagnostic(
                    code="no-file-matches",
                    message=f"no file matches `{pattern}`, so `{send.id}` sends nothing",
                    place=place,
                    severity=Severity.NOTE,
                )
            )
        for path in paths:
            folder, _, name = path.rpartition("/")
            yield path, {"path": path, "name": name, "folder": folder.rpartition("/")[2]}

    def _with(self, names: Names, variables: Mapping[str, Value], item: _Item | None) -> Names:
        """The names with these variables, each of which may use those before it; what was given comes first."""
        if not variables:
            return names
        found = dict(names)
        for name, value in variables.items():
            found[name] = (
                self._given[name] if name in self._given else self._value(value.value, value.place, found, item)
            )
        return found

    def _text(self, text: str, place: Place | None, names: Names, item: _Item) -> str:
        given = self._value(text, place, names, item)
        if isinstance(given, str):
            return given
        raise _wrong_type(f"`{text}`", given, "a text", place, item)

    def _value(self, value: Any, place: Place | None, names: Names, item: _Item | None) -> Any:
        """The value, with the templates in it carried out."""
        match value:
            case _ if not self._templated:
                return value
            case str() if is_template(value):
                return self._carried_out("value", value, place, names, item)
            case list():
                return [self._value(one, place, names, item) for one in value]
            case dict():
                return {key: self._value(one, place, names, item) for key, one in value.items()}
            case _:
                return value

    def _carried_out(
        self,
        kind: str,
        text: str,
        place: Place | None,
        names: Names,
        item: _Item | None,
        *,
        within: Place | None = None,
    ) -> Any:
        if place:
            self._note(place)
        try:
            with _related(_around(item, within or place)):  # what is wrong with a file that it includes
                return getattr(self._engine(), kind)(text, names)
        except TemplateError as error:
            raise InvalidInput([self._told(error, place, item, within)]) from error

    def _told(self, error: TemplateError, place: Place | None, item: _Item | None, within: Place | None) -> Diagnostic:
        """Where the template, the manifest and the item stand."""
        if error.file is not None:
            included = replace(self._source.library.place(error.file), line=error.line)
            related = _around(item, within or place)
            return Diagnostic(code=error.code, message=str(error), place=included, hint=error.hint, related=related)
        if place and error.line and place.line is None:
            place = replace(place, line=error.line)
        elif place and place.line and error.line and self._source.manifest.is_literal(place):
            place = replace(place, line=place.line + error.line, column=None)
        related = _around(item, within)
        return Diagnostic(code=error.code, message=str(error), place=place, hint=error.hint, related=related)

    def _engine(self) -> Engine:
        from cas.template import Engine

        self._made = self._made or Engine(lambda path: self._source.library.text(path, None))
        return self._made


COMPARE = "compare it with something, such as `name == 'value'` or `name is defined`"


@contextmanager
def _related(places: tuple[tuple[Place, str], ...]) -> Iterator[None]:
    """What is found wrong meanwhile has to do with these places."""
    try:
        yield
    except InvalidInput as error:
        raise InvalidInput([replace(one, related=(*one.related, *places)) for one in error.diagnostics]) from error


def _around(item: _Item | None, named: Place | None) -> tuple[tuple[Place, str], ...]:
    return (*(((named, "the template is named here"),) if named else ()), *_of(item))


def _refused(look: Callable[[], object]) -> tuple[Diagnostic, ...]:
    try:
        look()
    except InvalidInput as error:
        return error.diagnostics
    return ()


def _of(item: _Item | None) -> tuple[tuple[Place, str], ...]:
    return ((item.place, f"for the item `{item.shown}`"),) if item and item.place else ()


def _key(value: Any, position: int) -> str:
    """What an item is called: itself, what a map has for `id` or `name`, or else its position."""
    if isinstance(value, dict):
        value = next((value[key] for key in KEYS if key in value), position)
    if isinstance(value, bool) or not isinstance(value, str | int) or not 0 < len(str(value)) <= LONGEST_KEY:
        return str(position)
    return str(value) if str(value).isprintable() else str(position)


def _undeclared(sources: Sequence[Source], given: Names) -> Iterator[Diagnostic]:
    known: set[str] = set()
    for manifest in (source.manifest for source in sources):
        known |= manifest.variables.keys()
        for send in manifest.sends:
            known |= send.variables.keys()
            known |= getattr(send.message, "variables", {}).keys()
    for name in given.keys() - known:
        yield Diagnostic(
            code="unknown-variable",
            message=f"no manifest here declares the variable `{name}`",
            hint=suggestion(name, known) or f"declared under `vars` are: {listed(known)}",
        )


def _doubled_item(send: Send, key: str, place: Place) -> InvalidInput:
    message = f"two items of `{send.id}` are called `{key}`"
    return InvalidInput(
        [Diagnostic(code="doubled-item", message=message, place=place, hint="each item is there once, by its value")]
    )


def _wrong_type(
    what: str,
    value: Any,
    wanted: str,
    place: Place | None,
    item: _Item | None,
    *,
    code: str = "wrong-type",
    hint: str | None = None,
) -> InvalidInput:
    message = f"{what} is `{str(value)[:60]}`, not {wanted}"
    return InvalidInput([Diagnostic(code=code, message=message, place=place, hint=hint, related=_of(item))])

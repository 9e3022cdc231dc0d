"""The composition: a draft's message, from a file, a template or a body. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from cas.diagnostics import Diagnostic, InvalidInput, Place
from cas.drafts import Draft, Source
from cas.errors import ExitCode
from cas.manifest import BodyMessage, FileMessage, TemplateMessage, Value
from cas.message import Message, addressed, frontmatter
from cas.message import parse as parse_message
from cas.names import digest, timestamp
from cas.names import identity as identity_of
from cas.scope import Scope, related

ATTRIBUTES = {"conversation": "CONVERSATION_ID", "type": "MESSAGE_TYPE", "sequence": "SEQUENCE"}
ATTRIBUTES |= {"timestamp": "TIMESTAMP", "protocol_version": "PROTOCOL_VERSION"}


def composed(draft: Draft, scope: Scope, source: Source, clock: datetime) -> Draft | None:
    """The draft with its message; None where that cannot be had, which was told before. Raises InvalidInput."""
    match draft.send.message:
        case FileMessage() as wanted:
            return _from_file(draft, wanted, scope, source)
        case TemplateMessage() as wanted:
            return _from_template(draft, wanted, scope, source)
        case BodyMessage() as wanted:
            return _from_body(draft, wanted, scope, source, clock)


def _from_file(draft: Draft, wanted: FileMessage, scope: Scope, source: Source) -> Draft | None:
    path = scope.text(wanted.path, wanted.place)
    message = source.library.message(path, wanted.place)
    if message is None:
        return None
    _compare(message, wanted.header, path, scope)
    return replace(draft, message=message, identifying=message.digest, origin=_origin(source, path))


def _from_template(draft: Draft, wanted: TemplateMessage, scope: Scope, source: Source) -> Draft:
    path = scope.text(wanted.path, wanted.place)
    scope = scope.declaring(wanted.variables)
    text, where = source.library.text(path, wanted.place), source.library.place(path)
    content = scope.body(text, where, named=wanted.place).encode("utf-8", "surrogatepass")
    with related(scope.around(wanted.place)):
        message = parse_message(content, place=Place(file=f"{where.file} (rendered)"))
    _compare(message, wanted.header, path, scope)
    source.library.hold(message, content, wanted.place)
    return replace(draft, message=message, identifying=message.digest, origin=_origin(source, path))


def _from_body(draft: Draft, wanted: BodyMessage, scope: Scope, source: Source, clock: datetime) -> Draft:
    scope = scope.declaring(wanted.variables)
    header = _header(wanted.header, scope)
    place = wanted.place or Place(file=source.manifest.file)
    body = scope.body(wanted.text, place)
    given = {"timestamp": timestamp(clock), **header}
    lasting = block = frontmatter(**given, place=place)
    if "timestamp" not in header:  # that of the clock is another one each time
        lasting = "".join(line for line in block.splitlines(True) if not line.startswith("#+TIMESTAMP:"))
    identifying = digest((lasting + body).encode("utf-8", "surrogatepass"))
    address = draft.destination.address
    identity = identity_of(draft.sender, address, header["conversation"], header["sequence"], identifying)
    block = frontmatter(**given, extra=addressed(address, identity), place=place)
    content = (block + body).encode("utf-8", "surrogatepass")
    message = parse_message(content, place=place)
    source.library.hold(message, content, place)
    return replace(draft, message=message, identifying=identifying, origin=source.origin)


def _origin(source: Source, path: str) -> str:
    """A file that was read, as a plan names it; what `cas send` brings has no other name."""
    read = source.library.inputs.get(path)
    return read.path if read else path


def _header(header: Mapping[str, Value], scope: Scope) -> dict[str, Any]:
    return {
        name: _sequence(value, scope) if name == "sequence" else str(scope.value(value.value, value.place))
        for name, value in header.items()
    }


def _sequence(value: Value, scope: Scope) -> int:
    given = scope.value(value.value, value.place)
    number = int(given) if isinstance(given, str) and given.isascii() and given.isdecimal() else given
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 10**9:
        return number
    wanted, hint = "a whole number of at most nine digits", "such as 1, or `{{ loop.index }}` in a loop"
    raise scope.wrong_type("`sequence`", given, wanted, value.place, hint=hint)


def _compare(message: Message, header: Mapping[str, Value], path: str, scope: Scope) -> None:
    """Raise InvalidInput where the frontmatter is not what the manifest says."""
    found = [
        Diagnostic(
            code="asserted-frontmatter",
            message=f"`{path}` has {ATTRIBUTES[name]} `{getattr(message, name)}`, and the manifest says `{wanted}`",
            place=header[name].place,
            hint="mend the one that is wrong",
            exit_code=ExitCode.MESSAGE,
            related=scope.around(),
        )
        for name, wanted in _header(header, scope).items()
        if getattr(message, name) != wanted
    ]
    if found:
        raise InvalidInput(found)

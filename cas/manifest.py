"""Manifests: a checked document into records. Past this module nobody sees a raw dict. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from cas.diagnostics import Diagnostic, InvalidInput, Place

if TYPE_CHECKING:  # `cas send` has these records and no YAML
    from cas.document import Document


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
    """A destination as it is written."""

    text: str
    place: Place | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMessage:
    """A message that is a file, byte for byte. `path` is relative to the manifest's folder."""

    path: str
    place: Place | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """One message to one or several destinations; `sign` is None for an unsigned one."""

    id: str
    destinations: tuple[Target, ...]
    message: FileMessage
    sign: Sign | None
    retry: Retry
    place: Place | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A manifest. `sender` is None where its folder says who sends."""

    file: str
    name: str
    sender: str | None
    sender_place: Place | None = None
    sends: tuple[Send, ...]


def parse(document: Document) -> Manifest:
    """The records of a document in which `schema.check` found nothing. Raises InvalidInput."""
    value = document.value
    if found := list(_doubled_ids(document)):
        raise InvalidInput(found)
    defaults = value.get("defaults", {})
    return Manifest(
        file=document.file,
        name=value.get("name", PurePath(document.file).stem),
        sender=value.get("sender"),
        sender_place=document.place(("sender",)) if "sender" in value else None,
        sends=tuple(_send(document, index, defaults) for index in range(len(value["sends"]))),
    )


def _send(document: Document, index: int, defaults: Mapping[str, Any]) -> Send:
    send = document.value["sends"][index]
    path = ("sends", index)
    return Send(
        id=send["id"],
        destinations=tuple(_targets(document, (*path, "destination"), send["destination"])),
        message=_message(document, (*path, "message"), send["message"]),
        sign=_sign(defaults.get("sign", True), send.get("sign", {})),
        retry=_retry({**defaults.get("retry", {}), **send.get("retry", {})}),
        place=document.place((*path, "id")),
    )


def _targets(document: Document, path: tuple[str | int, ...], value: str | list[str]) -> Iterable[Target]:
    if isinstance(value, str):
        yield Target(text=value, place=document.place(path))
        return
    for index, text in enumerate(value):
        yield Target(text=text, place=document.place((*path, index)))


def _message(document: Document, path: tuple[str | int, ...], value: str | Mapping[str, str]) -> FileMessage:
    if isinstance(value, str):
        return FileMessage(path=value, place=document.place(path))
    return FileMessage(path=value["file"], place=document.place((*path, "file")))


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
    first: dict[str, int] = {}
    for index, send in enumerate(document.value["sends"]):
        if send["id"] in first:
            other = document.place(("sends", first[send["id"]], "id"))
            yield Diagnostic(
                code="duplicate-id",
                message=f"the id `{send['id']}` is given twice",
                place=document.place(("sends", index, "id")),
                hint="give each send an id of its own",
                related=((other, "the first of the two"),),
            )
        first.setdefault(send["id"], index)

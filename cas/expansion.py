"""The expansion: manifests into what each delivery is to be, with loops and templates carried out. Pure.

What a manifest names is looked up by the `Library` that it is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from cas.composition import composed
from cas.diagnostics import Diagnostic, InvalidInput, Severity, listed, suggestion
from cas.drafts import Draft, Source
from cas.inventory import Destination, Inventory, members, resolve
from cas.items import items_of
from cas.manifest import FileMessage, Send, Sign, Target
from cas.names import timestamp
from cas.scope import Item, Note, Rendering, Scope


def expand(
    sources: Sequence[Source],
    inventory: Inventory,
    *,
    clock: datetime,
    hostname: str,
    given: Mapping[str, Any] | None = None,
    note: Note = lambda _: None,
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
        names = {"sender": source.sender, "now": timestamp(clock)}
        scope = Scope(Rendering(source, values, note), names)
        drafts += _Expansion(source, inventory, clock, hostname, found).drafts(scope)
    return tuple(drafts), tuple(found)


class _Expansion:
    """One manifest's; what is wrong is put into `found`."""

    def __init__(
        self, source: Source, inventory: Inventory, clock: datetime, hostname: str, found: list[Diagnostic]
    ) -> None:
        self._source, self._inventory, self._clock, self._hostname = source, inventory, clock, hostname
        self._found = found

    def drafts(self, scope: Scope) -> Iterator[Draft]:
        try:
            scope = scope.declaring(self._source.manifest.variables)
        except InvalidInput as error:
            self._found += error.diagnostics
            return
        for send in self._source.manifest.sends:
            try:
                items = items_of(send, scope, self._source.library)
            except InvalidInput as error:
                self._found += error.diagnostics
                continue
            if not items and send.for_each and send.for_each.files:
                self._found.append(_nothing_matches(send))
            yield from self._sent(send, items, scope)

    def _sent(self, send: Send, items: Iterable[Item], scope: Scope) -> Iterator[Draft]:
        """What one item has wrong, the others most often have too: said once."""
        told = set()
        for item in items:
            try:
                yield from self._deliveries(send, item, scope.within(item).declaring(send.variables))
            except InvalidInput as error:
                self._found += [one for one in error.diagnostics if (one.code, one.message, one.place) not in told]
                told |= {(one.code, one.message, one.place) for one in error.diagnostics}

    def _deliveries(self, send: Send, item: Item, scope: Scope) -> Iterator[Draft]:
        after = tuple(replace(one, value=scope.text(one.value, one.place)) for one in send.after)
        sign = Sign(key=scope.text(send.sign.key, send.place)) if send.sign and send.sign.key else send.sign
        destinations, wrong = self._destinations(send, scope)
        for target, destination in destinations:
            machine, _, project = target.text.partition(".")
            there = scope.also(destination=target.text, machine=machine, project=project)
            draft = Draft(
                id=item.id,
                sender=self._source.sender,
                send=send,
                target=target,
                destination=destination,
                sign=sign,
                after=after,
            )
            if send.when and not there.truth(send.when):
                value = send.when.value
                yield replace(draft, reason="when: false" if value is False else f"when: {value} is false")
            elif filled := composed(draft, there, self._source, self._clock):
                yield filled
        if wrong:
            if isinstance(file := send.message, FileMessage) and not destinations:
                self._look_at(file)
            raise InvalidInput(wrong)

    def _destinations(self, send: Send, scope: Scope) -> tuple[list[tuple[Target, Destination]], list[Diagnostic]]:
        """Each inbox once, whatever names it was given; and what is wrong with the rest."""
        inboxes: dict[tuple[object, ...], tuple[Target, Destination]] = {}
        found: list[Diagnostic] = []
        for written in send.destinations:
            try:
                for target in self._targets(written, scope):
                    destination = resolve(self._inventory, target.text, hostname=self._hostname, place=target.place)
                    inboxes.setdefault(destination.is_at, (target, destination))
            except InvalidInput as error:
                found += error.diagnostics
        return list(inboxes.values()), found

    def _targets(self, written: Target, scope: Scope) -> Iterator[Target]:
        value = scope.value(written.text, written.place)
        for text in value if isinstance(value, list) else [value]:
            if not isinstance(text, str):
                raise scope.wrong_type("a destination", text, "a text", written.place)
            for member in members(self._inventory, text, place=written.place):
                yield Target(text=member, place=written.place)

    def _look_at(self, file: FileMessage) -> None:
        """A message that nobody gets, as its destinations are wrong, may be wrong itself: told together."""
        if not self._source.manifest.templated:
            try:
                self._source.library.message(file.path, file.place)
            except InvalidInput as error:
                self._found += error.diagnostics


def _nothing_matches(send: Send) -> Diagnostic:
    loop = send.for_each
    assert loop
    return Diagnostic(
        code="no-file-matches",
        message=f"no file matches `{loop.items}`, so `{send.id}` sends nothing",
        place=loop.place,
        severity=Severity.NOTE,
    )


def _undeclared(sources: Sequence[Source], given: Mapping[str, Any]) -> Iterator[Diagnostic]:
    known: set[str] = set()
    for manifest in (source.manifest for source in sources):
        known |= manifest.variables.keys()
        for send in manifest.sends:
            known |= send.variables.keys()
            known |= getattr(send.message, "variables", {}).keys()
    for name in (name for name in given if name not in known):
        yield Diagnostic(
            code="unknown-variable",
            message=f"no manifest here declares the variable `{name}`",
            hint=suggestion(name, known) or f"declared under `vars` are: {listed(known)}",
        )

"""The scope: the names that hold at one place of a manifest, and what its templates give with them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cas.diagnostics import Diagnostic, InvalidInput, Place
from cas.drafts import Source
from cas.manifest import Value
from cas.template import is_template
from cas.template_error import TemplateError

if TYPE_CHECKING:  # many manifests hold no template
    from cas.template import Engine

Names = Mapping[str, Any]
Note = Callable[[Place], None]
"""Is told where a template stands, before it is carried out."""
COMPARE = "compare it with something, such as `name == 'value'` or `name is defined`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One turn of a loop, with the names that it gives; a send without a loop has one turn."""

    id: str
    names: Names = field(default_factory=dict)
    shown: str = ""
    place: Place | None = None


class Rendering:
    """What all scopes of a manifest share: the templates' engine, made when the first one comes; values from outside.

    `given` are values of variables from the command line, which come before those that are declared.
    """

    def __init__(self, source: Source, given: Names, note: Note) -> None:
        self.source, self.given, self.note = source, given, note
        self._made: Engine | None = None

    def engine(self) -> Engine:
        from cas.template import Engine

        self._made = self._made or Engine(lambda path: self.source.library.text(path, None))
        return self._made


class Scope:
    """Names, and the item of a loop for which they hold. Whatever does not fit raises InvalidInput."""

    def __init__(self, rendering: Rendering, names: Names, item: Item | None = None) -> None:
        self._rendering, self.names, self._item = rendering, names, item
        self._templated = rendering.source.manifest.templated

    def within(self, item: Item) -> Scope:
        """The scope of one item."""
        return Scope(self._rendering, {**self.names, **item.names}, item)

    def also(self, **names: Any) -> Scope:
        """The scope with more names."""
        return Scope(self._rendering, {**self.names, **names}, self._item)

    def declaring(self, variables: Mapping[str, Value]) -> Scope:
        """The scope with these variables, each of which may use those before it; what was given comes first."""
        names, given = dict(self.names), self._rendering.given
        scope = Scope(self._rendering, names, self._item)
        for name, value in variables.items():
            names[name] = given[name] if name in given else scope.value(value.value, value.place)
        return scope

    def value(self, value: Any, place: Place | None) -> Any:
        """The value, with the templates in it carried out."""
        match value:
            case _ if not self._templated:
                return value
            case str() if is_template(value):
                return self._carried_out("value", value, place)
            case list():
                return [self.value(one, place) for one in value]
            case dict():
                return {key: self.value(one, place) for key, one in value.items()}
            case _:
                return value

    def text(self, text: str, place: Place | None) -> str:
        """The text, with the templates in it carried out."""
        given = self.value(text, place)
        if isinstance(given, str):
            return given
        raise self.wrong_type(f"`{text}`", given, "a text", place)

    def body(self, text: str, place: Place | None, *, named: Place | None = None) -> str:
        """A longer text, whose expressions always become text; `named` is where the manifest names its file."""
        if not (self._templated or named):
            return text
        filled: str = self._carried_out("text", text, place, named)
        return filled

    def truth(self, condition: Value) -> bool:
        """Whether a condition holds: true, false, or an expression without braces."""
        if isinstance(condition.value, bool):
            return condition.value
        holds = self._carried_out("truth", condition.value, condition.place)
        if isinstance(holds, bool):
            return holds
        raise self.wrong_type("`when`", holds, "true or false", condition.place, code="when-not-boolean", hint=COMPARE)

    def wrong_type(
        self,
        what: str,
        value: Any,
        wanted: str,
        place: Place | None,
        *,
        code: str = "wrong-type",
        hint: str | None = None,
    ) -> InvalidInput:
        message = f"{what} is `{str(value)[:60]}`, not {wanted}"
        return InvalidInput([Diagnostic(code=code, message=message, place=place, hint=hint, related=self.around())])

    def around(self, named: Place | None = None) -> tuple[tuple[Place, str], ...]:
        """What belongs to a finding here: where the template is named, and the item."""
        named_there = ((named, "the template is named here"),) if named else ()
        item = self._item
        return (*named_there, *(((item.place, f"for the item `{item.shown}`"),) if item and item.place else ()))

    def _carried_out(self, kind: str, text: str, place: Place | None, named: Place | None = None) -> Any:
        if place:
            self._rendering.note(place)
        try:
            with related(self.around(named or place)):  # what is wrong with a file that it includes
                return getattr(self._rendering.engine(), kind)(text, self.names)
        except TemplateError as error:
            raise InvalidInput([self._told(error, place, named)]) from error

    def _told(self, error: TemplateError, place: Place | None, named: Place | None) -> Diagnostic:
        """Where the template, the manifest and the item stand."""
        source = self._rendering.source
        if error.file is not None:
            named, place = named or place, replace(source.library.place(error.file), line=error.line)
        elif place and error.line and place.line is None:
            place = replace(place, line=error.line)
        elif place and place.line and error.line and source.manifest.is_literal(place):
            place = replace(place, line=place.line + error.line, column=None)
        return Diagnostic(code=error.code, message=str(error), place=place, hint=error.hint, related=self.around(named))


@contextmanager
def related(places: tuple[tuple[Place, str], ...]) -> Iterator[None]:
    """What is found wrong meanwhile has to do with these places."""
    try:
        yield
    except InvalidInput as error:
        raise InvalidInput([replace(one, related=(*one.related, *places)) for one in error.diagnostics]) from error

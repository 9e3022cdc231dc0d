"""Templates: Jinja2's texts and expressions into values, or into what is wrong with them. Pure.

Sandboxed, strict about names that are not defined, and without what is random. A sandbox bounds neither time nor
memory: `confined` does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Mapping
from types import TracebackType
from typing import Any, NoReturn

from jinja2 import (
    BaseLoader,
    Environment,
    StrictUndefined,
    TemplateAssertionError,
    TemplateNotFound,
    TemplateSyntaxError,
    UndefinedError,
)
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing

from cas.diagnostics import InvalidInput, listed, suggestion

NOT_DEFINED = re.compile(r"`(.*)` is not defined", re.DOTALL)
NO_FILTER = re.compile(r"No (?:filter|test) named '(.*)'")
ORG_MACRO = "org's own {{{…}}} is written {% raw %}{{{…}}}{% endraw %} in a template"
RANDOM = ("random",)
FILE = "<template>"
PLAIN = (str, int, float, type(None))
Read = Callable[[str], str]
"""The text of another template, by its path; raises InvalidInput."""


class TemplateError(Exception):
    """What is wrong in a template. `line` counts from 1 within its text, None where that is not known."""

    def __init__(self, message: str, *, code: str, line: int | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.line = line
        self.hint = hint


class Engine:
    """Templates of one run; each text is compiled once. `read` looks up what a template includes or extends."""

    def __init__(self, read: Read | None = None) -> None:
        self._environment = _Environment(
            undefined=_Undefined, keep_trailing_newline=True, loader=_Loader(read), finalize=_printable, cache_size=0
        )
        self._environment.globals.pop("lipsum")
        for name in RANDOM:
            self._environment.filters.pop(name)
        self._compiled: dict[tuple[str, str], Callable[[Mapping[str, Any]], Any]] = {}

    def value(self, text: str, names: Mapping[str, Any]) -> Any:
        """A text's value; one whole `{{ … }}` keeps the type of what stands in it. Raises TemplateError."""
        return self._run("value", text, names)

    def truth(self, expression: str, names: Mapping[str, Any]) -> Any:
        """The value of an expression without braces. Raises TemplateError."""
        return self._run("truth", expression, names)

    def text(self, source: str, names: Mapping[str, Any]) -> str:
        """A text with all its templates filled in. Raises TemplateError."""
        rendered: str = self._run("text", source, names)
        return rendered

    def _run(self, kind: str, text: str, names: Mapping[str, Any]) -> Any:
        try:
            if (kind, text) not in self._compiled:
                self._compiled[kind, text] = getattr(self, f"_{kind}")(text)
            return self._compiled[kind, text](names)
        except (InvalidInput, MemoryError):
            raise
        except Exception as error:
            line = _line(error.__traceback__, text)
            _raise_told(error, line, text, names, self._environment)

    def _value(self, text: str) -> Callable[[Mapping[str, Any]], Any]:
        tokens = list(self._environment.lex(text))
        kinds = [kind for _, kind, _ in tokens]
        if kinds[:1] == ["variable_begin"] and "variable_end" not in kinds[:-1] and kinds[-1] == "variable_end":
            return self._truth("".join(value for _, _, value in tokens[1:-1]))
        return self._text(text)

    def _truth(self, expression: str) -> Callable[[Mapping[str, Any]], Any]:
        compiled = self._environment.compile_expression(expression, undefined_to_none=False)
        return lambda names: _plain(compiled(names))

    def _text(self, source: str) -> Callable[[Mapping[str, Any]], str]:
        return self._environment.from_string(source).render


class _Environment(ImmutableSandboxedEnvironment):
    def getattr(self, obj: Any, attribute: str) -> Any:
        """A map's own keys come first: `item.values` is the user's, where there is one."""
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


class _Undefined(StrictUndefined):
    """Says in our words what is not defined, and after a line's end what there is."""

    @property
    def _undefined_message(self) -> str:
        name = str(self._undefined_name).replace("\n", " ")
        if self._undefined_hint:
            return self._undefined_hint
        if self._undefined_obj is missing:
            return f"`{name}` is not defined"
        there = map(str, self._undefined_obj) if isinstance(self._undefined_obj, Mapping) else ()
        return f"there is no `{name}` in it\n{_hint(name, list(there)) or ''}"


class _Loader(BaseLoader):
    def __init__(self, read: Read | None) -> None:
        self._read = read

    def get_source(self, environment: Environment, template: str) -> tuple[str, str | None, Callable[[], bool] | None]:
        del environment
        if self._read is None:
            raise TemplateNotFound(template, f"`{template}` cannot be looked up from here")
        return self._read(template), None, None


def _printable(value: Any) -> Any:
    """What can become text: nothing whose text would be an address in memory."""
    return value if isinstance(value, str | int | StrictUndefined) else _plain(value)


def _plain(value: Any) -> Any:
    """A value as YAML could have given it. Raises TypeError."""
    match value:
        case StrictUndefined():
            return str(value)  # which raises
        case str():
            return str(value)
        case dict():
            return {_plain(key): _plain(one) for key, one in value.items()}
        case list() | tuple() | range() | Generator():
            return [_plain(one) for one in value]
        case _ if isinstance(value, PLAIN):
            return value
        case _:
            raise TypeError("a function, or something else that is no value")


def _raise_told(
    error: Exception, line: int | None, text: str, names: Mapping[str, Any], environment: Environment
) -> NoReturn:
    hint = ORG_MACRO if "{{{" in text else None
    match error:
        case UndefinedError():
            message, _, known = str(error).partition("\n")
            name = NOT_DEFINED.fullmatch(message)
            hint = hint or (_hint(name[1], names) if name else known or None)
            raise TemplateError(message, code="undefined-variable", line=line, hint=hint) from error
        case TemplateSyntaxError():
            message = _lowered(error.message or "it cannot be read")
            unknown = NO_FILTER.match(error.message or "") if isinstance(error, TemplateAssertionError) else None
            hint = hint or (suggestion(unknown[1], [*environment.filters, *environment.tests]) if unknown else None)
            raise TemplateError(message, code="template-syntax", line=error.lineno, hint=hint) from error
        case SecurityError():
            raise TemplateError(_lowered(str(error)), code="template-forbidden", line=line, hint=hint) from error
        case _:
            message = _lowered(str(error).split("\n")[0]) or type(error).__name__
            raise TemplateError(message, code="template-failed", line=line, hint=hint) from error


def _line(traceback: TracebackType | None, text: str) -> int | None:
    """Where in the template an error came up: Jinja2 puts its lines into the traceback, but those of an expression."""
    line = None
    while traceback:
        if traceback.tb_frame.f_code.co_filename == FILE:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    lines = text.count("\n") + 1
    return 1 if lines == 1 or (line and line > lines) else line


def _hint(name: str, known: Iterable[str]) -> str | None:
    there = list(known)
    return suggestion(name, there) or (f"there are {listed(there)}" if there else None)


def _lowered(text: str) -> str:
    return (text[:1].lower() + text[1:]).removesuffix(".").replace("'", "`")

"""The sandbox of templates: Jinja2 that gives plain data only, always the same, and changes nothing. Pure."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Any, NoReturn

from jinja2 import BaseLoader, Environment, StrictUndefined, Template, nodes, pass_context
from jinja2.exceptions import SecurityError, TemplateSyntaxError, UndefinedError
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing

LONGEST_INTEGER = 10**100  # as in a document; Python refuses to write far longer ones
LISTS = (list, tuple, range, KeysView, ItemsView, ValuesView)
# Plain Jinja2 answers these about an undefined name too, so that a mistyped one is silently "not a text".
STRICT_TESTS = ("none", "boolean", "true", "false", "integer", "float", "number", "string", "mapping", "sequence")
# What an object is made of. Anything else that is handed in shows its text, and nothing of its inside.
OPEN_MODULES = frozenset({"builtins", "jinja2", "markupsafe"})
RESULT = "result"

__all__ = ["Missing", "Sandbox", "SecurityError", "TemplateSyntaxError", "UndefinedError", "kind", "plain", "result"]


class Missing(UndefinedError):
    """A name that is not defined, or an attribute or element that `owner` does not have."""

    def __init__(self, message: str | None = None, *, name: Any, owner: Any, of_something: bool) -> None:
        super().__init__(message)
        self.name, self.owner, self.of_something = name, owner, of_something


class Strict(StrictUndefined):
    """Cannot even be shown inside of a list, and knows what is missing where."""

    __slots__ = ()

    def __init__(self, hint: str | None = None, obj: Any = missing, name: Any = None, exc: Any = UndefinedError):
        if exc is UndefinedError and hint is None:
            exc = functools.partial(Missing, name=name, owner=obj, of_something=obj is not missing)
        super().__init__(hint, obj, name, exc)

    __repr__ = StrictUndefined.__str__


class Sandbox(ImmutableSandboxedEnvironment):
    """No chance, no clock, no file but those that `read` gives."""

    def __init__(self, read: Callable[[str], str] | None) -> None:
        super().__init__(
            undefined=Strict,
            keep_trailing_newline=True,
            finalize=_shown,
            loader=_Files(read),
            optimized=False,  # it would run a part of the template while compiling it
        )
        del self.globals["lipsum"], self.filters["random"]
        self.policies["json.dumps_kwargs"] = {}  # a map keeps its order
        self.tests.update({name: _strict(self.tests[name]) for name in STRICT_TESTS})

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whatever is not of Python itself or of Jinja2 might read a clock or a file."""
        inside = type(obj).__module__.partition(".")[0] in OPEN_MODULES
        return inside and super().is_safe_attribute(obj, attr, value)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        return self.undefined(f"'{attribute}' of {kind(obj)} may not be used", obj, attribute, SecurityError)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`item.values` is what the map has under this key, if it has it, and not a method of maps."""
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def expression(self, text: str) -> Template | None:
        """A template that leaves its only expression in RESULT, where a text is one `{{ … }}` and nothing else."""
        kinds = [kind for _, kind, _ in self.lex(text)]
        if kinds[0] != "variable_begin" or "variable_end" not in kinds or kinds.index("variable_end") != len(kinds) - 1:
            return None
        output = self.parse(text).find(nodes.Output)
        assert output is not None
        # Made plain by the template itself: an error then has its line.
        given = nodes.Call(nodes.EnvironmentAttribute("plain"), output.nodes, [], None, None, lineno=output.lineno)
        keep = nodes.Assign(nodes.Name(RESULT, "store"), given, lineno=output.nodes[0].lineno)
        template = nodes.Template([keep], lineno=1)
        template.set_environment(self)
        return self.from_string(template)

    def plain(self, value: Any) -> Any:
        return plain(value)


def result(expression: Template, names: Mapping[str, Any]) -> Any:
    """What an expression gives."""
    context = expression.new_context(dict(names))
    list(expression.root_render_func(context))
    return context.vars[RESULT]


class _Files(BaseLoader):
    def __init__(self, read: Callable[[str], str] | None) -> None:
        self._read = read

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Callable[[], bool] | None]:
        del environment
        if not isinstance(template, str):
            raise TypeError(f"a file has a text as its name, not {kind(template)}")
        if self._read is None:
            raise SecurityError(f"the file '{template}' cannot be read from here")
        return self._read(template), template, None


def _strict(test: Any) -> Callable[..., bool]:
    @functools.wraps(test)
    def checked(value: Any, *arguments: Any) -> bool:
        if isinstance(value, Undefined):
            _refuse(value)
        return bool(test(value, *arguments))

    return checked


def _refuse(undefined: Undefined) -> NoReturn:
    """Also that of an inline `if` without `else`, which Jinja2 shows as nothing."""
    undefined._fail_with_undefined_error()


# With a context there is nothing that Jinja2 could write while it compiles.
@pass_context
def _shown(context: Context, value: Any) -> Any:
    del context
    return plain(value)


def plain(value: Any) -> Any:
    """A value without what is Jinja2's, and without what is different in each process: functions, addresses, order.

    Raises TypeError or ValueError for what has no such form; UndefinedError, SecurityError for what is not there.
    """
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, Mapping):
        return {_key(key): plain(one) for key, one in value.items()}
    if isinstance(value, LISTS) or (isinstance(value, Iterator) and type(value).__module__ == "builtins"):
        return [plain(one) for one in value]
    if isinstance(value, Undefined):
        _refuse(value)
    raise TypeError(f"{kind(value)} is not a value")


def _text(value: str) -> str:
    text = str.__str__(value)  # exactly a str: escaping filters give one of their own
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("half of a surrogate pair is not a text")
    return text


def _number(value: float) -> float:
    if not math.isfinite(value) if isinstance(value, float) else not -LONGEST_INTEGER < value < LONGEST_INTEGER:
        raise ValueError("a number of more than 100 digits")
    return value


def _key(value: Any) -> Any:
    if isinstance(value, str | int | float | None):
        return plain(value)
    raise TypeError(f"{kind(value)} is not a key of a map")


def kind(value: Any) -> str:
    """What a value is, in a manifest's words."""
    words = {str: "a text", bool: "a boolean", int: "a number", float: "a number", dict: "a map", type(None): "null"}
    if type(value) in words:
        return words[type(value)]
    if isinstance(value, LISTS):
        return "a list"
    return "a function" if callable(value) else f"an object of type `{type(value).__name__}`"

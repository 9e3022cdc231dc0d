"""Templates: Jinja2 texts and expressions into values, or into what is wrong with them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cas.errors import CasError
from cas.template_error import TemplateError, explained

if TYPE_CHECKING:  # Jinja2 takes longer to load than the rest of cas: only where there is a template
    from jinja2 import Template

    from cas.sandbox import Sandbox


MOST_MARKS = 5_000
MOST_CODE = 20_000
"""Characters within the marks."""


def is_template(text: str) -> bool:
    """Whether a text is to be rendered; any other one means what it shows."""
    return "{{" in text or "{%" in text or "{#" in text


class Engine:
    """Renders templates, each compiled once. Names stand for plain data: texts, numbers, booleans, null, lists, maps.

    `read` gives the text of a file that a template includes; a CasError that it raises goes through. Whatever a
    template makes Jinja2 or Python raise comes as TemplateError. Nothing here bounds time or memory: see `confined`.
    """

    def __init__(self, read: Callable[[str], str] | None = None) -> None:
        self._read = read
        self._expressions: dict[str, Template | None] = {}
        self._texts: dict[str, Template] = {}

    def value(self, text: str, names: Mapping[str, Any]) -> Any:
        """A text of a manifest. One `{{ … }}` alone keeps the type of what it gives; all else is a text."""
        if not is_template(text):
            return text
        expression = self._expression(text)
        return self.text(text, names) if expression is None else self._result(expression, text, names)

    def truth(self, expression: str, names: Mapping[str, Any]) -> Any:
        """What a bare expression gives, of whatever type."""
        if expression.lstrip().startswith("{{"):
            hint = "write it without `{{` and `}}`"
            raise TemplateError("a template, not an expression", code="template-syntax", line=1, hint=hint)
        text = f"{{{{ {expression} }}}}"
        template = self._expression(text)
        if template is None:
            self._template(text)  # raises, where Jinja2 has something to say
            raise TemplateError("more than one expression", code="template-syntax", line=1)
        return self._result(template, text, names)

    def text(self, source: str, names: Mapping[str, Any]) -> str:
        """A text, rendered; its last newline too."""
        template = self._template(source)
        with self._explained(source, names):
            return "".join(template.root_render_func(template.new_context(dict(names))))

    def _template(self, source: str) -> Template:
        if source not in self._texts:
            _refuse_endless(source)
            with self._explained(source, compiling=True):
                self._texts[source] = self._sandbox.from_string(source)
        return self._texts[source]

    def _expression(self, text: str) -> Template | None:
        if text not in self._expressions:
            _refuse_endless(text)
            with self._explained(text, compiling=True):
                self._expressions[text] = self._sandbox.expression(text)
        return self._expressions[text]

    def _result(self, expression: Template, text: str, names: Mapping[str, Any]) -> Any:
        from cas.sandbox import result

        with self._explained(text, names):
            return result(expression, names)

    @cached_property
    def _sandbox(self) -> Sandbox:
        from cas.sandbox import Sandbox

        return Sandbox(self._read)

    @contextmanager
    def _explained(
        self, text: str, names: Mapping[str, Any] | None = None, *, compiling: bool = False
    ) -> Iterator[None]:
        try:
            yield
        except CasError:
            raise
        except Exception as error:
            raise explained(error, text=text, names=names or {}, compiling=compiling, sandbox=self._sandbox) from None


def _refuse_endless(text: str) -> None:
    """Compiling takes thousands of times as long as reading: what nobody writes by hand is refused before."""
    marks = code = 0
    for begin, end in (("{{", "}}"), ("{%", "%}"), ("{#", "#}")):
        for piece in text.split(begin)[1:]:
            marks += 1
            stop = piece.find(end)
            code += 0 if begin == "{#" else len(piece) if stop < 0 else stop
    if marks > MOST_MARKS:
        raise TemplateError(f"more than {MOST_MARKS} marks of templates", code="template-limit")
    if code > MOST_CODE:
        raise TemplateError(f"expressions of more than {MOST_CODE} characters", code="template-limit")

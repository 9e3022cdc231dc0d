"""Errors of templates: what Jinja2 or Python raised, into the user's words and the line. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cas.diagnostics import listed, suggestion
from cas.errors import CasError

if TYPE_CHECKING:  # Jinja2 takes longer to load than the rest of cas: only where there is a template
    from jinja2 import TemplateSyntaxError

    from cas.sandbox import Missing, Sandbox

MOST_NAMES = 20
LONGEST_MESSAGE = 200
TAGS = ("block", "call", "extends", "filter", "for", "from", "if", "import", "include", "macro", "raw", "set", "with")
UNKNOWN = re.compile(r"(filter|test|tag)(?: named)? '([^']+)'")
MACRO_HINT = "a macro of org-mode is written `{{ '{{{' }}title}}}`, or between `{% raw %}` and `{% endraw %}`"
EQUALS = "to compare is written `==`"
NO_CHANCE = "nothing is random here: a plan comes out the same each time"
UNCLOSED = re.compile(r"The innermost block that needs to be closed is '(\w+)'")
BOOLEANS = {"yes": "true", "on": "true", "no": "false", "off": "false"}
"""What other tools take for a boolean."""
WITHOUT_WORDS: Mapping[type[Exception], str] = {
    MemoryError: "it needs more memory than a template may have",
    RecursionError: "it goes round in circles, or too deep",
}


class TemplateError(CasError):
    """What is wrong with a template. `line` counts from 1 in its text, or in that of the `file` it includes."""

    def __init__(
        self, message: str, *, code: str, line: int | None = None, file: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.line = line
        self.file = file


def explained(
    error: Exception, *, text: str, names: Mapping[str, Any], compiling: bool, sandbox: Sandbox
) -> TemplateError:
    """The error of a template in place of what was raised when it was compiled, or rendered with these names."""
    from cas.sandbox import Missing, SecurityError, TemplateSyntaxError, UndefinedError

    if isinstance(error, TemplateSyntaxError):
        return _syntax_error(error, text, sandbox)
    file, line = _where(error)
    if isinstance(error, Missing):
        message, hint = _missing(error, names), _hint(error, names)
        return TemplateError(message, code="undefined-variable", line=line, file=file, hint=hint)
    match error:
        case SecurityError():
            code = "template-forbidden"
        case UndefinedError():
            code = "undefined-variable"
        case MemoryError():
            code = "template-limit"
        case _:
            code = "template-syntax" if compiling else "template-failed"
    return TemplateError(_words(error), code=code, line=line, file=file)


def _syntax_error(error: TemplateSyntaxError, text: str, sandbox: Sandbox) -> TemplateError:
    lines = re.split(r"\r\n|\r|\n", error.source or text)  # as Jinja2 counts them
    macro = any("{{{" in line for line in lines[error.lineno - 1 : error.lineno])
    hint = MACRO_HINT if macro else _unknown_hint(str(error.message), sandbox)
    return TemplateError(_words(error), code="template-syntax", line=error.lineno, file=error.name, hint=hint)


def _unknown_hint(message: str, sandbox: Sandbox) -> str | None:
    unknown = UNKNOWN.search(message)
    if not unknown:
        return EQUALS if message.endswith("got '='") else None
    if unknown[2] == "random":
        return NO_CHANCE
    known: Mapping[str, Iterable[str]] = {"filter": sandbox.filters, "test": sandbox.tests, "tag": TAGS}
    return suggestion(unknown[2], known[unknown[1]])


def _where(error: Exception) -> tuple[str | None, int | None]:
    """The included file, if it is one, and the line that the innermost template was at."""
    found: tuple[str | None, int | None] = (None, None)
    frame = error.__traceback__
    while frame is not None:
        template = frame.tb_frame.f_globals.get("__jinja_template__")
        if template is not None:
            found = template.name, template.get_corresponding_lineno(frame.tb_lineno)
        frame = frame.tb_next
    return found


def _missing(error: Missing, names: Mapping[str, Any]) -> str:
    if not error.of_something:
        return f"`{error.name}` is not defined"
    what = "" if isinstance(error.name, str) else "element "
    return f"{_called(error.owner, names)} has no {what}`{error.name}`"


def _called(value: Any, names: Mapping[str, Any]) -> str:
    """A list or map by the name that it was given, where it is one of those; else by what it is."""
    from cas.sandbox import kind

    same = (name for name, one in names.items() if one is value and isinstance(value, list | dict))
    name = next(same, None)
    return f"`{name}`" if name else kind(value)


def _hint(error: Missing, names: Mapping[str, Any]) -> str | None:
    if not error.of_something and (word := BOOLEANS.get(str(error.name).lower())):
        return f"write `{word}`"
    known = names if not error.of_something else error.owner if isinstance(error.owner, dict) else {}
    words = sorted(name for name in known if isinstance(name, str))
    near = suggestion(error.name, words) if isinstance(error.name, str) else None
    if near or not words:
        return near
    more = ", …" if len(words) > MOST_NAMES else ""
    return f"there are: {listed(words[:MOST_NAMES])}{more}"


def _words(error: Exception) -> str:
    """The first sentence of what was raised, the way that cas says such things."""
    said = getattr(error, "message", None) or getattr(error, "msg", None) or error  # without Python's own line numbers
    message = WITHOUT_WORDS.get(type(error)) or str(said) or type(error).__name__
    sentence = re.split(r"\.(?:\s|$)|\n", message, maxsplit=1)[0][:LONGEST_MESSAGE]
    if unclosed := UNCLOSED.search(message):
        sentence += f", and `{unclosed[1]}` is not closed"
    sentence = re.sub(r" at \d+$", "", sentence)  # a position that counts what nobody sees
    sentence = re.sub(r"'([^']*)'", r"`\1`", sentence)
    return sentence[:1].lower() + sentence[1:]

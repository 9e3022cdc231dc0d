"""Schemas: a document against a JSON Schema, each finding in our own words and with its place. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from cas.diagnostics import MOST_FINDINGS, Diagnostic, first, listed, shortened, suggestion
from cas.document import Document

Path = tuple[str | int, ...]

KINDS: Mapping[type, str] = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    list: "a list",
    dict: "a map",
    type(None): "nothing",
}
TYPES: Mapping[str, str] = {
    "string": "a text",
    "boolean": "true or false",
    "integer": "a whole number",
    "array": "a list",
    "object": "a map",
    "null": "nothing",
}
LONGEST_SHOWN = 60
FORMS = "a message is one of `file`, `template` and `body`; `vars` go with the last two"
MERGE_KEY = "YAML's merge key means nothing here; what many sends share stands under `defaults`"


def check(document: Document, schema: Mapping[str, Any]) -> tuple[Diagnostic, ...]:
    """Everything in which a document differs from a schema of draft 7, or the first of it."""
    from jsonschema import Draft7Validator

    errors = list(islice(Draft7Validator(schema).iter_errors(document.value), MOST_FINDINGS))
    return first(chain(_key_findings(document, errors), _value_findings(document, errors)))


def _key_findings(document: Document, errors: Iterable[Any]) -> Iterator[Diagnostic]:
    """Keys that are not known, and keys that are missing unless one of the former is it, mistyped."""
    mistyped: set[tuple[Path, str]] = set()
    missing: dict[tuple[Path, tuple[str, ...]], Diagnostic] = {}
    for error in errors:
        path = tuple(error.absolute_path)
        if error.validator == "additionalProperties":
            free = sorted(set(error.schema["properties"]) - set(error.instance))
            for key in (key for key in error.instance if key not in error.schema["properties"]):
                hint = suggestion(key, free)
                mistyped |= {(path, other) for other in free if hint and f"`{other}`" in hint}
                yield _unknown_key(document, (*path, key), error.schema, hint)
        elif error.validator == "required":
            for key in (key for key in error.validator_value if key not in error.instance):
                missing[path, (key,)] = _missing_key(document, (*path, key), error.schema)
        elif error.validator == "anyOf":
            keys = tuple(one["required"][0] for one in error.validator_value)
            missing[path, keys] = _missing_choice(document, path, keys, error.schema)
        elif _about_name(error):
            yield _unfit_key(document, path, error)
    yield from (one for (path, keys), one in missing.items() if mistyped.isdisjoint((path, key) for key in keys))


def _unknown_key(document: Document, path: Path, schema: Mapping[str, Any], hint: str | None) -> Diagnostic:
    known = ", ".join(f"`{key}`" for key in schema["properties"])
    return Diagnostic(
        code="unknown-key",
        message=f"`{_short(path[-1])}` is not a key of {_title(schema)}",
        place=document.place(path, key=True),
        hint=hint or (MERGE_KEY if path[-1] == "<<" else f"there are {known}"),
    )


def _missing_key(document: Document, path: Path, schema: Mapping[str, Any]) -> Diagnostic:
    about = schema.get("properties", {}).get(path[-1], {})
    return Diagnostic(
        code="missing-key",
        message=f"{_title(schema)} needs the key `{path[-1]}`",
        place=document.place(path[:-1]),
        hint=about.get("description"),
    )


def _missing_choice(document: Document, path: Path, keys: Sequence[str], schema: Mapping[str, Any]) -> Diagnostic:
    return Diagnostic(
        code="missing-key",
        message=f"{_title(schema)} needs one of the keys {listed(keys)}",
        place=document.place(path),
        hint=FORMS,
    )


def _about_name(error: Any) -> bool:
    """Whether an error is about the name of a key, which is then its `instance`."""
    return "propertyNames" in error.absolute_schema_path


def _unfit_key(document: Document, path: Path, error: Any) -> Diagnostic:
    key: str = error.instance
    place = document.place((*path, key), key=True)
    if error.validator == "not":
        message = f"`{key}` does not go with the other keys here"
        return Diagnostic(code="excluded-key", message=message, place=place, hint=FORMS)
    message, hint = f"`{_short(key)}` cannot be a name here", error.schema.get("description")
    return Diagnostic(code="wrong-value", message=message, place=place, hint=hint)


def _value_findings(document: Document, errors: Iterable[Any]) -> Iterator[Diagnostic]:
    """One for each value: a value of the wrong type breaks other rules only because of that."""
    about_keys = ("additionalProperties", "required", "anyOf")
    by_path: dict[Path, Any] = {}
    for error in errors:
        path = tuple(error.absolute_path)
        if (
            error.validator not in about_keys
            and not _about_name(error)
            and (path not in by_path or error.validator == "type")
        ):
            by_path[path] = error
    for path, error in by_path.items():
        words = _wrong_type if error.validator == "type" else _wrong_value
        code, message, hint = words(path, error)
        yield Diagnostic(code=code, message=message, place=document.place(path), hint=hint)


def _wrong_type(path: Path, error: Any) -> tuple[str, str, str | None]:
    wanted = [error.validator_value] if isinstance(error.validator_value, str) else error.validator_value
    expected = " or ".join(TYPES[name] for name in wanted)
    message = f"{_subject(path, error.schema)} is {KINDS[type(error.instance)]}, not {expected}"
    return "wrong-type", message, _conversion(error.instance, wanted) or error.schema.get("description")


def _conversion(value: Any, wanted: Iterable[str]) -> str | None:
    """What to write instead, where somebody meant the right thing and wrote it so that YAML shows another."""
    if set(wanted) <= {"string", "array"} and "string" in wanted and isinstance(value, bool | int):
        shown = str(value).lower()
        return f'put it in quotes: "{shown}"'
    if "boolean" in wanted and isinstance(value, str):
        return "`true` or `false`, in small letters and without quotes"
    if "integer" in wanted and isinstance(value, str):
        return "digits only, without quotes or a leading zero"
    if "array" in wanted and isinstance(value, str | int):
        return f"put it in brackets: [{_short(value)}]"
    return None


def _wrong_value(path: Path, error: Any) -> tuple[str, str, str | None]:
    subject, rule = _subject(path, error.schema), error.validator_value
    value = f"`{_short(error.instance)}`"
    messages = {
        "minLength": f"{subject} is empty",
        "minItems": f"{subject} is empty",
        "maxLength": f"{subject} is longer than {rule} characters",
        "maxItems": f"{subject} has more than {rule} items",
        "minimum": f"{subject} is {value}, less than {rule}",
        "maximum": f"{subject} is {value}, more than {rule}",
        "const": f"{subject} is {value}, not `{rule}`",
    }
    message = messages.get(error.validator, f"{subject} cannot be {value}")
    return "wrong-value", message, error.schema.get("description")


def _subject(path: Path, schema: Mapping[str, Any]) -> str:
    if not path:
        return _title(schema)
    if isinstance(path[-1], int):
        return f"item {path[-1] + 1} of {_subject(path[:-1], {})}"
    return f"`{path[-1]}`"


def _title(schema: Mapping[str, Any]) -> str:
    title: str = schema.get("title", "this map")
    return title


def _short(value: Any) -> str:
    return shortened(str(value).replace("\n", "\\n"), LONGEST_SHOWN)

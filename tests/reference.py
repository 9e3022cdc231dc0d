"""The tables of keys in the reference, from the schemas. `python tests/reference.py` writes them into the pages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("manifest", "peers", "plan")
END = "<!-- end of what tests/reference.py writes -->"
WORDS = {
    "string": ("text", "texts"),
    "boolean": ("true or false", "true or false"),
    "integer": ("whole number", "whole numbers"),
    "number": ("number", "numbers"),
    "array": ("list", "lists"),
    "object": ("map", "maps"),
    "null": ("nothing", "nothing"),
}
PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./@-]*( [A-Za-z0-9][A-Za-z0-9_./-]*)*|(?=[0-9]*[A-F])[0-9A-F]{11,}")
TYPED = ("true", "false", "null")
Node = Mapping[str, Any]


class Undocumented(Exception):
    """A property has no description, or no example."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """How a value is written on one line, and what a map is called."""

    value: Callable[[Any], str]
    map: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A map of the language: what it is called, what it is for, and its keys."""

    title: str
    description: str
    choice: str
    rows: tuple[tuple[str, ...], ...]


def page_with(text: str, name: str) -> str:
    """A page with what stands between its markers made anew."""
    begin = f"<!-- from schemas/{name}.schema.json, by tests/reference.py -->"
    before, rest = text.split(begin)
    _, after = rest.split(END)
    return f"{before}{begin}\n\n{tables(schema(name), LANGUAGES.get(name, JSON))}\n{END}{after}"


def schema(name: str) -> Node:
    document: Node = json.loads((ROOT / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8"))
    return document


def tables(document: Node, language: Language) -> str:
    """A heading, its description and a table of keys for each map; raises Undocumented."""
    return "\n".join(_lines(_sections(document, language)))


def _lines(sections: Iterator[Section]) -> Iterator[str]:
    for section in sections:
        yield from (f"### {section.title}", "", section.description)
        yield from ("", section.choice) if section.choice else ()
        yield from ("", "| key | value | means | such as |", "| --- | --- | --- | --- |")
        for row in section.rows:
            yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"
        yield ""


def _sections(document: Node, language: Language) -> Iterator[Section]:
    """The maps of a schema in the order in which they are named first, each once."""
    ahead: list[tuple[Node, str]] = [(document, "")]
    seen: list[Node] = []
    while ahead:
        node, key = ahead.pop(0)
        node = _resolved(document, node)
        if any(node == other for other in seen):
            continue
        seen.append(node)
        found = _properties(document, node)
        if found:
            yield Section(
                title=_title(document, node, key),
                description=node.get("description", ""),
                choice=_choice(document, node),
                rows=tuple(_row(document, node, name, about, language) for name, about in found.items()),
            )
        below = [(about, name) for name, about in found.items()]
        ahead[:0] = [*below, *((child, key) for child in _children(document, node))]


def _row(document: Node, node: Node, name: str, about: Node, language: Language) -> tuple[str, ...]:
    where = f"`{name}` of {_title(document, node, '?')}"
    if not about.get("description"):
        raise Undocumented(f"{where} has no description")
    if not about.get("examples"):
        raise Undocumented(f"{where} has no example")
    kind = re.sub(r"(?<!#)\bmap(s?)\b", rf"{language.map}\1", _kind(document, about)) + (
        ", required" if name in _required(document, node) else ""
    )
    examples = ", ".join(_code(language.value(example)) for example in about["examples"])
    return (f"`{name}`", kind, about["description"].rstrip("."), examples)


def _properties(document: Node, node: Node) -> dict[str, Node]:
    """The keys that a map may have, whichever form of it has them; the first one that is described describes it."""
    found: dict[str, Node] = {}
    for form in _forms(document, node):
        for name, about in form.get("properties", {}).items():
            about = _resolved(document, about) if isinstance(about, dict) else {}
            if name not in found or not found[name].get("description"):
                found[name] = about or found.get(name, {})
    return found


def _forms(document: Node, node: Any, inside: tuple[Node, ...] = ()) -> Iterator[Node]:
    """A schema, and all that it is made of; not its conditions, which describe nothing."""
    if not isinstance(node, dict) or (node := _resolved(document, node)) in inside:
        return
    yield node
    several = (form for key in ("allOf", "oneOf", "anyOf") for form in node.get(key, ()))
    for form in (node.get("then"), node.get("else"), *several):
        yield from _forms(document, form, (*inside, node))


def _children(document: Node, node: Node) -> Iterator[Node]:
    """What a list or a map of any keys holds."""
    for form in _forms(document, node):
        several = (form.get("items"), form.get("additionalProperties"), *form.get("patternProperties", {}).values())
        yield from (child for child in several if isinstance(child, dict))


def _resolved(document: Node, node: Node) -> Node:
    """With what a reference stands for; words beside it count."""
    while "$ref" in node:
        target: Any = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
    return node


def _required(document: Node, node: Node) -> set[str]:
    """What a map always needs: said by itself, or by the form that all maps have."""
    found = set(node.get("required", ()))
    if node.get("if") == {"type": "object"}:
        found |= _required(document, _resolved(document, node.get("then", {})))
    for form in node.get("allOf", ()):
        found |= _required(document, _resolved(document, form))
    return found


def _choice(document: Node, node: Node) -> str:
    for form in _forms(document, node):
        for key in ("oneOf", "anyOf"):
            needed = [branch.get("required") for branch in form.get(key, []) if isinstance(branch, dict)]
            if len(needed) > 1 and all(needed):
                words = [" and ".join(f"`{name}`" for name in names) for names in needed]
                one = "Exactly one" if key == "oneOf" else "At least one"
                return f"{one} of these is there: {', '.join(words)}."
    return ""


def _title(document: Node, node: Node, key: str) -> str:
    title = next((form["title"] for form in _forms(document, node) if "title" in form), key)
    return title[:1].upper() + title[1:] if re.match(r"an? ", title) else f"`{title}`"


def _kind(document: Node, node: Node, *, many: bool = False, inside: tuple[Node, ...] = ()) -> str:
    """What a value may be, in words; of several, such as a list's items, when `many`. What holds itself is anything."""
    node = _resolved(document, node)
    if node in inside:
        return "anything"
    inside = (*inside, node)
    if "const" in node or "enum" in node:
        return " or ".join(_code(str(one)) for one in node.get("enum", [node.get("const")]))
    types = node.get("type", [])
    words = [_of_type(document, name, many, inside) for name in ([types] if isinstance(types, str) else types)]
    if not words:
        forms = [form for key in ("oneOf", "anyOf", "allOf") for form in node.get(key, ()) if isinstance(form, dict)]
        words = [_kind(document, form, many=many, inside=inside) for form in forms]
        words = [word for word in words if word != "anything"]
    return " or ".join(dict.fromkeys(words)) or "anything"


def _of_type(document: Node, name: str, many: bool, inside: tuple[Node, ...]) -> str:
    node = inside[-1]
    word = WORDS[name][many]
    if name == "object" and _properties(document, node):
        title = _title(document, node, "")
        return f"[{word}](#{_anchor(title)})" if title != "``" else word
    wanted = {"array": "items", "object": "additionalProperties"}.get(name, "")
    held = next((form[wanted] for form in _forms(document, node) if isinstance(form.get(wanted), dict)), None)
    of = _kind(document, held, many=True, inside=inside) if held is not None else "anything"
    return word if of == "anything" else f"{word} of {of}"


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")


def _code(text: str) -> str:
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def yaml_value(value: Any) -> str:
    """As people write it in YAML, on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{yaml_value(key)}: {yaml_value(held)}" for key, held in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(yaml_value, value)) + "]"
    if isinstance(value, str) and PLAIN.fullmatch(value) and value not in TYPED:
        return value
    return json.dumps(value, ensure_ascii=False)


def toml_value(value: Any) -> str:
    """As TOML has it, on one line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml_value(held)}" for key, held in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


YAML = Language(value=yaml_value, map="map")
TOML = Language(value=toml_value, map="table")
JSON = Language(value=json.dumps, map="object")
LANGUAGES = {"manifest": YAML, "peers": TOML}


def main() -> None:
    for name in PAGES:
        page = ROOT / "docs" / "reference" / f"{name}.md"
        page.write_text(page_with(page.read_text(encoding="utf-8"), name), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Every code that cas can give, as its source says: found, not listed. Code that hides one is an error."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

CAS = Path(__file__).resolve().parent.parent / "cas"
# Where a code is no plain text: what stands there, and the codes that it can give. Argued for, one by one.
TOLD_APART = {
    # A failed system call, by its number.
    ("transports.causes", "CODES.get(error.errno or 0, 'file-operation-failed')"): {
        "no-space",
        "no-permission",
        "file-operation-failed",
    },
    # The first of what `_wrong_type` and `_wrong_value` return.
    ("schema", "code"): {"wrong-type", "wrong-value"},
    # By the kind of what Jinja2 or Python raised.
    ("template_error", "code"): {
        "template-forbidden",
        "undefined-variable",
        "template-limit",
        "template-syntax",
        "template-failed",
    },
    # Errors that are passed on, with the code that they have.
    ("output.diagnostics", "error.code"): set(),
    ("explanations", "code"): set(),
    ("scope", "error.code"): set(),
    ("preparation", "error.code"): set(),
    ("transports.there", "str(error['code'])"): set(),
    ("transports.remote", "error.code"): set(),
    ("transports.wire", "code"): set(),
}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Search:
    """What was found so far. `carriers`: functions that are given a code, by module and name."""

    codes: set[str] = field(default_factory=set)
    hidden: set[tuple[str, str]] = field(default_factory=set)
    carriers: dict[tuple[str, str], Function] = field(default_factory=dict)


def emitted(folder: Path = CAS) -> Search:
    """The codes of all modules below a folder, and what hides one."""
    search = Search()
    modules = {_name(path, folder): ast.parse(path.read_text(encoding="utf-8")) for path in folder.rglob("*.py")}
    for name, tree in modules.items():
        for call, around in _calls(tree):
            for keyword in (one for one in call.keywords if one.arg == "code"):
                _take(keyword.value, name, around, search)
        search.hidden |= set(_set_otherwise(name, tree))
    pending = list(search.carriers)
    while pending:
        carrier = pending.pop()
        known = set(search.carriers)
        for name, tree in modules.items():
            for call, around in _calls(tree):
                if _calls_carrier(call, name, tree, carrier):
                    for given in _given(call, search.carriers[carrier]):
                        _take(given, name, around, search)
        pending += set(search.carriers) - known
    search.hidden -= set(TOLD_APART)
    return search


def _take(given: ast.expr, module: str, around: Function | None, search: Search) -> None:
    """A text is a code; a parameter makes its function a carrier; all else hides one."""
    if isinstance(given, ast.Constant) and isinstance(given.value, str):
        search.codes.add(given.value)
    elif isinstance(given, ast.Name) and around and given.id in _parameters(around):
        by_name_only = given.id in {one.arg for one in around.args.kwonlyargs}
        if around.name != "__init__":
            search.carriers.setdefault((module, around.name), around)
        elif not by_name_only:  # an error's own class, where whoever makes one need not say `code=`
            search.hidden.add((module, f"{around.name}({given.id})"))
        search.codes |= {text.value for text in _default(around, given.id)}
    elif (module, ast.unparse(given)) in TOLD_APART:
        search.codes |= TOLD_APART[module, ast.unparse(given)]
    else:
        search.hidden.add((module, ast.unparse(given)))


def _given(call: ast.Call, carrier: Function) -> Iterator[ast.expr]:
    """What a call gives as the code. A keyword was seen already; a default too."""
    names = [one.arg for one in (*carrier.args.posonlyargs, *carrier.args.args)]
    at = names.index("code") - (names[:1] == ["self"]) if "code" in names else None
    if at is not None and len(call.args) > at:
        yield call.args[at]


def _set_otherwise(module: str, tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Ways to give a finding or an error its code that are none of ours."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and module != "errors":
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((module, ast.unparse(one)) for one in targets if getattr(one, "attr", "") == "code")
        if isinstance(node, ast.Call) and any(keyword.arg is None for keyword in node.keywords):
            called = ast.unparse(node.func)
            if called.endswith(("Diagnostic", "Error", "replace")):
                yield module, f"{called}(**…)"


def _calls_carrier(call: ast.Call, module: str, tree: ast.Module, carrier: tuple[str, str]) -> bool:
    home, name = carrier
    called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)
    if called != name:
        return False
    defined = {node.name for node in ast.walk(tree) if isinstance(node, Function)}
    return module == home or name not in defined


def _calls(tree: ast.Module) -> Iterator[tuple[ast.Call, Function | None]]:
    """Each call, with the function that it stands in."""

    def within(node: ast.AST, around: Function | None) -> Iterator[tuple[ast.Call, Function | None]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Call):
                yield child, around
            yield from within(child, child if isinstance(child, Function) else around)

    return within(tree, None)


def _parameters(function: Function) -> set[str]:
    arguments = function.args
    return {one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}


def _default(function: Function, name: str) -> Iterator[ast.Constant]:
    arguments = function.args
    positional = (*arguments.posonlyargs, *arguments.args)
    pairs = [
        *zip(positional[len(positional) - len(arguments.defaults) :], arguments.defaults, strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    for parameter, default in pairs:
        if parameter.arg == name and isinstance(default, ast.Constant) and isinstance(default.value, str):
            yield default


def _name(path: Path, folder: Path) -> str:
    return ".".join(path.relative_to(folder).with_suffix("").parts)

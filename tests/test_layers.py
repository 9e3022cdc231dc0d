"""The floors of the house: imports point down, and what computes touches no clock, file, process or network."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

CAS = Path(__file__).resolve().parent.parent / "cas"

FLOORS: dict[int, tuple[str, ...]] = {
    0: ("errors", "diagnostics", "names"),
    1: (
        "document",
        "schema",
        "sandbox",
        "template_error",
        "template",
        "manifest",
        "message",
        "inventory",
        "plan",
        "plan_file",
        "bundle",
        "starter",
        "explanations",
        "armour",
        "verdict",
        "keys",
        "arrival",
        "replays",
        "checks",
    ),
    2: (
        "drafts",
        "scope",
        "items",
        "composition",
        "expansion",
        "order",
        "selection",
        "shards",
        "planner",
        "comparison",
        "redraft",
        "seals",
        "events",
        "threads",
    ),
    3: ("output",),
    4: (
        "root",
        "loader",
        "gpg",
        "signer",
        "verifier",
        "halt",
        "failed_sends",
        "ledger",
        "locks",
        "creation",
        "reports",
        "confined",
        "patterns",
        "transports",
        "inbox",
        "archive",
        "reader",
    ),
    5: ("parcel", "schedule", "intents", "batch", "crew", "work", "engine", "signatures", "receipts", "executor"),
    6: (
        "signals",
        "worker",
        "watchman",
        "cluster",
        "engines",
        "surroundings",
        "preparation",
        "reproduction",
        "bundling",
        "run",
        "reporting",
        "upkeep",
        "merge",
        "authoring",
        "findings",
        "commands",
        "planning",
        "mail",
        "hook",
        "watch",
        "options",
        "peers",
        "trust",
        "stopping",
        "doctor",
        "completing",
        "tools",
        "cli_mail",
        "cli_upkeep",
        "rehearsal",
        "cli",
        "receiver",
        "loopback",
        "demo",
        "__main__",
    ),
}
FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
PURE = 3  # the highest floor that acts on nothing
# Standard modules that compute. Whatever is not here has to be argued for, and added.
COMPUTE = {
    "__future__", "base64", "binascii", "bisect", "collections", "contextlib", "copy", "dataclasses", "datetime",
    "difflib", "enum", "fnmatch", "functools", "graphlib", "hashlib", "itertools", "json", "math", "operator",
    "pathlib", "re", "string", "textwrap", "tomllib", "types", "typing", "unicodedata", "xml",
}  # fmt: skip
# What a floor may take from outside besides: it parses, or it draws on a stream that it is given.
OUTSIDE = {
    "document": {"yaml"},
    "schema": {"jsonschema"},
    "plan_file": {"jsonschema"},
    "sandbox": {"jinja2"},
    "template": {"jinja2"},
    "template_error": {"jinja2"},
    "output.terminal": {"rich"},
}
PURE_PATHS = {"PurePath", "PurePosixPath"}
ACTING_NAMES = {"open", "print", "input", "exec", "eval", "compile", "breakpoint", "__import__", "exit", "quit"}
ACTING_ATTRIBUTES = {
    "now", "utcnow", "today", "read_text", "read_bytes", "write_text", "write_bytes", "mkdir", "unlink", "rmdir",
    "iterdir", "glob", "rglob", "exists", "is_file", "is_dir", "lstat", "cwd", "home", "expanduser", "touch",
}  # fmt: skip

PROGRAMS = {"transports.rsh", "transports.there"}  # run as processes of their own, with surroundings of their own

MODULES = sorted(CAS.rglob("*.py"))


def module_name(path: Path) -> str:
    """Dotted, below `cas`: `output.text`; a package by its own name."""
    return ".".join(path.relative_to(CAS).with_suffix("").parts).removesuffix(".__init__")


def room(name: str) -> str:
    return name.partition(".")[0]


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, at its top, lazily, or for types only, with the line."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            assert node.module is not None
            below = CAS.parent.joinpath(*node.module.split("."))
            for alias in node.names:
                is_module = (below / f"{alias.name}.py").exists() or (below / alias.name / "__init__.py").exists()
                yield (f"{node.module}.{alias.name}" if is_module else node.module), node.lineno


def own_imports(path: Path) -> Iterator[tuple[str, int]]:
    """The modules of cas that a file imports, as `module_name` gives them."""
    for name, line in imported(path):
        if name.startswith("cas."):
            yield name.removeprefix("cas."), line


def modules_up_to(floor: int) -> list[Path]:
    return [path for path in MODULES if FLOOR_OF.get(room(module_name(path)), floor + 1) <= floor]


def identifier(path: Path) -> str:
    return module_name(path) or "cas"


def test_every_module_has_a_floor_and_every_room_a_module():
    rooms = {room(module_name(path)) for path in MODULES if path != CAS / "__init__.py"}

    assert rooms == set(FLOOR_OF)
    assert sum(map(len, FLOORS.values())) == len(FLOOR_OF)


@pytest.mark.parametrize("path", MODULES, ids=identifier)
def test_imports_point_down(path: Path):
    name = module_name(path)
    if path == CAS / "__init__.py":
        assert list(own_imports(path)) == []
        return

    upward = [
        f"{path}:{line}: floor {FLOOR_OF[room(name)]} imports {other}, of floor {FLOOR_OF[room(other)]}"
        for other, line in own_imports(path)
        if FLOOR_OF[room(other)] > FLOOR_OF[room(name)]
    ]

    assert upward == []


def test_no_module_reaches_itself_by_its_imports_lazy_ones_too():
    graph = {module_name(path): {other for other, _ in own_imports(path)} for path in MODULES}
    graph = {name: {other for other in others if other in graph} for name, others in graph.items()}

    assert [name for name in graph if name and name in _reached(graph, name)] == []


@pytest.mark.parametrize("path", modules_up_to(PURE), ids=identifier)
def test_what_computes_imports_nothing_that_acts(path: Path):
    allowed = COMPUTE | OUTSIDE.get(module_name(path), set())

    acting = [
        f"{path}:{line}: {name}" for name, line in imported(path) if name.partition(".")[0] not in {"cas", *allowed}
    ]

    assert acting == []


@pytest.mark.parametrize("path", modules_up_to(PURE), ids=identifier)
def test_what_computes_takes_paths_only_as_texts(path: Path):
    taken = [
        f"{path}:{node.lineno}: {alias.name}"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom | ast.Import)
        for alias in node.names
        if alias.name == "pathlib" or (getattr(node, "module", None) == "pathlib" and alias.name not in PURE_PATHS)
    ]

    assert taken == []


@pytest.mark.parametrize("path", modules_up_to(PURE), ids=identifier)
def test_what_computes_opens_prints_and_looks_up_nothing(path: Path):
    acting = [
        f"{path}:{node.lineno}: {ast.unparse(node.func)}()"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and (
            (isinstance(node.func, ast.Name) and node.func.id in ACTING_NAMES)
            or (isinstance(node.func, ast.Attribute) and node.func.attr in ACTING_ATTRIBUTES)
        )
    ]

    assert acting == []


@pytest.mark.parametrize("path", modules_up_to(PURE), ids=identifier)
def test_what_computes_keeps_no_state_of_its_own(path: Path):
    changing = [f"{path}:{node.lineno}" for node in ast.walk(tree(path)) if isinstance(node, ast.Global)]

    assert changing == []


def test_the_clock_is_read_in_one_place():
    reads = {
        module_name(path)
        for path in MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"now", "utcnow", "today"}
        and ast.unparse(node.func.value) in {"datetime", "date", "datetime.datetime"}
    }

    assert reads == {"surroundings"}


def test_the_environment_and_the_working_folder_are_looked_up_only_at_the_top():
    lookups = {"os.environ", "os.getenv", "os.getcwd", "Path.cwd", "Path.home", "sys.argv", "os.path.expanduser"}

    reads = {
        f"{module_name(path)}: {ast.unparse(node)}"
        for path in MODULES
        if module_name(path) not in PROGRAMS and FLOOR_OF.get(room(module_name(path)), 6) < 6
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in lookups
    }

    assert reads == set()


def _reached(graph: dict[str, set[str]], name: str) -> set[str]:
    reached: set[str] = set()
    ahead = set(graph[name])
    while ahead:
        one = ahead.pop()
        reached.add(one)
        ahead |= graph[one] - reached
    return reached

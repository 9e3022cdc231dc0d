"""What bad input gets: a diagnostic, within a second and 100 MB over start-up, and no traceback."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support import ROOT, Home, Run, called

from cas import explanations, inventory
from cas.commands import EXPLANATIONS
from cas.diagnostics import MOST_FINDINGS
from cas.document import LARGEST, MOST_VALUES

SECONDS, MEGABYTES, TRIES = 1, 100, 3
REFERENCE = 0.1  # processor seconds that `slowness` has there for its work
NOISE = 1.5  # what other processes do to processor time, through caches and clocks
TEN_MEGABYTES = 10 << 20
LONGEST_LINE = 10_000
SIZE = LARGEST - 1_000  # what is refused for its size alone says little
SEND = "  - {{id: {id}, destination: {to}, message: {message}}}\n"
BODY = "{conversation: c, type: request, sequence: 1, body: x}"
HEAD = "cas: 1\nsends:\n"
VALID = HEAD + SEND.format(id="a", to="local.docs", message=BODY)
# What would act on a terminal, or on how the text around it is read; and what begins a command of a workflow's.
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
COMMAND = re.compile(r"^\s*::(?!error |warning |notice )|##\[", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A run of cas in a process of its own, and what it took over that of a valid manifest."""

    run: Run
    seconds: float
    megabytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A folder below an empty home, in which runs are measured. `start`: seconds and MB that a valid manifest takes."""

    folder: Path
    start: tuple[float, float] = (0, 0)

    def validated(self, *more: str, within: float = SECONDS) -> Measured:
        """The best of some tries: other processes take their share. Seconds are those of the machine of the promise."""
        best = self.run(*more)
        slow = slowness() if best.seconds > within else 1.0
        for _ in range(TRIES - 1):
            if best.seconds > within * slow:
                best = min(best, self.run(*more), key=lambda one: one.seconds)
        return replace(best, seconds=best.seconds / slow)

    def run(self, *more: str) -> Measured:
        command = [sys.executable, "-m", "cas", "validate", "m.yaml", *more]
        environment = {"HOME": str(self.folder.parent), "PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
        ended = subprocess.run(
            [sys.executable, "-I", "-S", str(ROOT / "tests" / "measured.py"), *command],
            cwd=self.folder,
            env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            timeout=60,
            check=True,
        )
        code, seconds, megabytes = json.loads(ended.stdout)
        out, err = ((self.folder / name).read_text(encoding="utf-8") for name in ("out", "err"))
        run = Run(code=code, out=out, err=err)
        return Measured(run=run, seconds=seconds - self.start[0], megabytes=megabytes - self.start[1])

    def write(self, text: str | bytes, name: str = "m.yaml") -> None:
        (self.folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())

    def peers(self, text: str | bytes) -> None:
        folder = self.folder.parent / ".config" / "cross-agent-comms"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "peers.toml").write_bytes(text if isinstance(text, bytes) else text.encode())


def slowness() -> float:
    """How many times as long as on the machine of the promise this one takes for the same, now; at least 1."""

    def took() -> float:
        start = time.process_time()
        for _ in range(3):
            text = json.dumps([{"id": f"s{number}", "text": "word " * 5, "n": number} for number in range(20_000)])
            sorted({row["id"]: row for row in json.loads(text)})
            re.findall(r"s\d+", text)
        return time.process_time() - start

    return max(1.0, statistics.median(took() for _ in range(5)) / REFERENCE)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    bench = Bench(folder=tmp_path_factory.mktemp("home") / "builder")
    bench.folder.mkdir()
    bench.write(VALID)
    runs = [bench.run() for _ in range(TRIES)]
    assert all(one.run.code == 0 for one in runs)
    return Bench(
        folder=bench.folder,
        start=(min(one.seconds for one in runs), max(one.megabytes for one in runs)),
    )


@pytest.fixture
def bench(started: Bench) -> Iterator[Bench]:
    started.write(VALID)
    started.peers("")
    yield started
    for path in started.folder.iterdir():
        path.unlink()
    started.peers("")


def check(measured: Measured, code: str) -> None:
    """The first finding is of this code, and what else the promise is."""
    run = measured.run
    assert "Traceback" not in run.err
    assert run.code in (1, 2, 4), run.err[:1000]
    assert f"error[{code}]" in run.out.partition("\n")[0], run.out[:300]
    assert run.out.count("error[") <= MOST_FINDINGS + 10
    assert max(map(len, run.out.splitlines())) < LONGEST_LINE
    assert not UNSAFE.search(run.out + run.err)
    assert measured.seconds <= SECONDS * NOISE
    assert measured.megabytes <= MEGABYTES


def sends(count: int, to: str, message: str = "a.org", id_: str = "s{n}", more: str = "") -> str:
    line = SEND.format(id=id_, to=to, message=message)[: -len("}\n")] + more + "}\n"
    return HEAD + numbered(line, count)


def numbered(piece: str, count: int) -> str:
    return "".join(piece.replace("{n}", str(number)) for number in range(count))


def filled(piece: str, head: str = "", tail: str = "") -> str:
    """As many as a manifest may have bytes."""
    return head + piece * ((SIZE - len(head) - len(tail)) // len(piece.encode())) + tail


def in_body(text: str) -> str:
    return VALID.replace("body: x", f'body: "{text}"')


MANY = MOST_VALUES - 20
SHAPES: Mapping[str, tuple[str, Callable[[], str | bytes]]] = {
    "10 MB of one line": ("too-large", lambda: "a" * TEN_MEGABYTES),
    "10 MB with a bad byte at the end": ("too-large", lambda: b"- x\n" * (TEN_MEGABYTES // 4) + b"\xff"),
    "one long line": ("wrong-type", lambda: "a" * SIZE),
    "one long line of wide letters": ("wrong-type", lambda: "é" * (SIZE // 2 - 4) + "😀"),
    "open brackets": ("too-deep", lambda: "[" * SIZE),
    "deep blocks": ("too-deep", lambda: "".join(" " * depth + "a:\n" for depth in range(2_500))),
    "anchors and aliases": ("wrong-type", lambda: numbered("- &x{n} a\n- *x{n}\n", MOST_VALUES - 1)),
    "an alias bomb": (
        "alias-bomb",
        lambda: (
            "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
            + "".join(
                f"{two}: &{two} [{','.join(['*' + one] * 10)}]\n" for one, two in zip("abcdef", "bcdefg", strict=True)
            )
        ),
    ),
    "aliases of a long text": (
        "alias-bomb",
        lambda: f"cas: 1\nvars: {{a: &a {'x' * (SIZE // 2)}}}\nsends: [" + "*a," * 1_000 + "]\n",
    ),
    "aliases of a wrong send": ("missing-key", lambda: HEAD + "  - &a {idd: a}\n" + "  - *a\n" * 33_000),
    "items": ("too-large", lambda: filled("- x\n")),
    "empty lists": ("too-large", lambda: filled("[],", "[", "]")),
    "small lists and maps": ("too-large", lambda: filled("- [[a], {b: c}]\n")),
    "a bad byte at the end": ("not-utf-8", lambda: filled("- x\n").encode() + b"\xff"),
    "a control character at the end": ("control-character", lambda: filled("- x\n") + "\x1b"),
    "escaped control characters": ("control-character", lambda: filled("\\e", '"', '"')),
    "an open quote": ("yaml-syntax", lambda: filled("\\u1234", 'a: "')),
    "unknown keys of a send": ("unknown-key", lambda: HEAD + "  - id: a\n" + numbered("    k{n}: a\n", MANY // 2)),
    "keys that are no texts, far below": ("non-text-key", lambda: filled("\n", "", numbered("{n}: 1\n", 99) + "x: [")),
    "a key again and again": ("duplicate-key", lambda: filled("a: 1\n")),
    "numbers for sends": ("wrong-type", lambda: HEAD + "  - 5\n" * MANY),
    "one id": ("duplicate-id", lambda: sends(MANY // 7, "local.docs", id_="a")),
    "a wrong send at the end": ("missing-key", lambda: sends(MANY // 7 - 5, "local.docs") + "  - {id: 5}\n"),
    "tags of their own": ("tag", lambda: filled("- !a b\n")),
    "a long tag": ("tag", lambda: "!" + "a" * SIZE + " b"),
    "nothing at all": ("empty", lambda: ""),
    "UTF-16": ("not-utf-8", lambda: ("\ufeff" + "a" * 2_000_000).encode("utf-16-le")),
    "a long path": ("outside", lambda: sends(1, "local.docs", filled("a/", "", "b"))),
    "a long pattern": (
        "too-large",
        lambda: sends(1, "local.docs", BODY, more=", for_each: {files: '" + "*/" * (SIZE // 2 - 100) + "x'}"),
    ),
    "a pattern of brackets": (
        "too-large",
        lambda: sends(1, "local.docs", BODY, more=", for_each: {files: '" + "[" * (SIZE - 300) + "x'}"),
    ),
    "a long destination": ("malformed-destination", lambda: sends(1, "a" * (SIZE - 200))),
    "destinations": ("unknown-peer", lambda: sends(1, "[" + numbered("x{n}.y,", MANY) + "]")),
    "items that are alike": ("doubled-item", lambda: sends(1, "local.docs", more=f", for_each: [{'x,' * MANY}]")),
    "a wrong item of a loop": (
        "unknown-peer",
        lambda: sends(1, '"nobody.x{{ item }}"', more=f", for_each: [{numbered('{n},', MANY)}]"),
    ),
    "variables that use one another": (
        "undefined-variable",
        lambda: "cas: 1\nvars: {" + numbered("y{n}: '{{ x{n} }}',", MANY // 2 - 10) + "}\n" + VALID[7:],
    ),
    "a text of templates": ("template-limit", lambda: in_body("{{ x }}" * 500_000)),
    "a text of comments": ("template-limit", lambda: in_body("{# x #}" * 500_000)),
    "a long sum": ("template-limit", lambda: in_body("{{ " + "1+" * 1_900_000 + "1 }}")),
    "parentheses": ("template-limit", lambda: in_body("{{ " + "(" * 4_000_000 + " }}")),
    "a long condition": (
        "template-limit",
        lambda: sends(1, "local.docs", BODY, more=f', when: "{"not " * 1_000_000}x"'),
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_bad_manifest_ends_in_a_finding_within_a_second_and_a_hundred_megabytes(bench: Bench, name: str):
    code, text = SHAPES[name]
    bench.write(text())

    check(bench.validated(), code)


ALMOST_SOUND: Mapping[str, tuple[str, Callable[[], str]]] = {
    "templates of thousands": (
        "undefined-variable",
        lambda: sends(MANY // 15, "local.docs", BODY.replace("body: x", 'body: "{{ x{n} }}"')),
    ),
    "names of thousands that are alike": (
        "unknown-after",
        lambda: sends(
            MANY // 19, "local.docs", BODY.replace(": c", ": c{n}"), "a" * 40 + "{n}", f", after: [{'a' * 40}x]"
        ),
    ),
    "sequences of thousands": ("doubled-sequence", lambda: sends(MANY // 15, "local.docs", BODY)),
}


@pytest.mark.parametrize("name", ALMOST_SOUND)
def test_a_manifest_of_thousands_of_sends_that_are_wrong_late_ends_soon_too(bench: Bench, name: str):
    code, text = ALMOST_SOUND[name]
    bench.write(text())

    # All of YAML and schema has been gone through before: thousands of sends take their time, sound or not.
    measured = bench.validated(within=2 * SECONDS)

    assert measured.seconds <= 2 * SECONDS * NOISE
    assert f"error[{code}]" in measured.run.out
    assert measured.run.out.count("error[") <= MOST_FINDINGS + 10
    assert measured.megabytes <= MEGABYTES


PEERS_SIZE = inventory.LARGEST - 1_000
PEERS: Mapping[str, tuple[str, Callable[[], str | bytes]]] = {
    "10 MB": ("too-large", lambda: "a = 1\n" * (TEN_MEGABYTES // 6)),
    "a key of many parts": ("invalid-peers", lambda: "a." * (PEERS_SIZE // 2) + "a = 1\n"),
    "a table of many parts": ("invalid-peers", lambda: "[" + "'a'." * (PEERS_SIZE // 4) + "a]\n"),
    "brackets": ("invalid-peers", lambda: "a = " + "[" * PEERS_SIZE),
    "a bad byte": ("invalid-peers", lambda: b"#" * PEERS_SIZE + b"\xff"),
    "an open text": ("invalid-peers", lambda: 'a = "' + "x" * PEERS_SIZE),
    "hosts of the wrong kind": ("invalid-peers", lambda: numbered("[peers.p{n}]\nhost = 1\n", PEERS_SIZE // 26)),
    "keys that are not known, and a wrong one": (
        "invalid-peers",
        lambda: "policy = 1\n" + numbered("k{n} = 1\n", PEERS_SIZE // 12),
    ),
    "groups that are not there": (
        "unknown-group",
        lambda: "[groups]\n" + numbered('g{n} = ["h{n}"]\n', PEERS_SIZE // 22),
    ),
    "a circle of groups": (
        "group-cycle",
        lambda: "[groups]\n" + numbered('a{n} = ["@b{n}"]\nb{n} = ["@a{n}"]\n', PEERS_SIZE // 42),
    ),
    "groups that hold each other twice": (
        "invalid-peers",
        lambda: '[groups]\ng0 = ["local.a"]\n' + "".join(f'g{n + 1} = ["@g{n}", "local.x{n}"]\n' for n in range(2_000)),
    ),
}


@pytest.mark.parametrize("name", PEERS)
def test_a_bad_peers_toml_ends_in_a_finding_within_a_second_and_a_hundred_megabytes(bench: Bench, name: str):
    code, text = PEERS[name]
    bench.peers(text())

    measured = bench.validated()

    # Keys that are not known are warnings, and may come before.
    first_error = next(line for line in measured.run.out.splitlines() if "error[" in line)
    check(
        Measured(
            run=Run(code=measured.run.code, out=first_error, err=measured.run.err),
            seconds=measured.seconds,
            megabytes=measured.megabytes,
        ),
        code,
    )


def test_groups_that_hold_one_another_twice_are_written_out_once(cas: Callable[..., Run], home: Home):
    home.peers('[groups]\ng0 = ["local.a"]\n' + "".join(f'g{n + 1} = ["@g{n}", "@g{n}"]\n' for n in range(100)))
    Path("m.yaml").write_text(sends(1, '"@g100"', BODY), encoding="utf-8")

    assert cas("validate", "m.yaml").out == "valid: 1 delivery\n"


MEBIBYTE = 1 << 20
MESSAGES: Mapping[str, tuple[str, Callable[[], str | bytes]]] = {
    "10 MB": ("too-large", lambda: "x" * TEN_MEGABYTES),
    "ends of lines": ("no-frontmatter", lambda: "\n" * MEBIBYTE),
    "nearly keywords": ("no-frontmatter", lambda: " #+a" * (MEBIBYTE // 4)),
    "nearly keywords in lines": ("no-frontmatter", lambda: " #+a\n" * (MEBIBYTE // 5)),
    "blanks": ("no-frontmatter", lambda: " " * MEBIBYTE),
    "one key again and again": ("missing-frontmatter", lambda: "#+A: b\n" * (MEBIBYTE // 7)),
    "a bad byte": ("undecodable-message", lambda: b"x" * (MEBIBYTE - 1) + b"\xff"),
    "one long value": ("unsafe-conversation", lambda: "#+CONVERSATION_ID: " + "a" * (MEBIBYTE - 20)),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_bad_message_ends_in_a_finding_within_a_second_and_a_hundred_megabytes(bench: Bench, name: str):
    code, text = MESSAGES[name]
    bench.write(sends(1, "local.docs", "m.org"))
    bench.write(text(), "m.org")

    check(bench.validated(), code)


@pytest.mark.parametrize("text", ["\n", "#+A: b\n"])
def test_a_bad_message_of_ten_megabytes_that_the_policy_allows_ends_in_a_finding(bench: Bench, text: str):
    bench.peers(f"[policy]\nmax_bytes = {TEN_MEGABYTES}\n")
    bench.write(sends(1, "local.docs", "m.org"))
    bench.write(text * (TEN_MEGABYTES // len(text)), "m.org")

    measured = bench.validated(within=3 * SECONDS)

    assert measured.run.code == 4
    assert measured.seconds <= 3 * SECONDS * NOISE  # each line may be one of the frontmatter's
    assert measured.megabytes <= MEGABYTES


VALUES: Mapping[str, tuple[str, Callable[[], str | bytes]]] = {
    "10 MB": ("too-large", lambda: "a" * TEN_MEGABYTES),
    "names that nobody declares": ("unknown-variable", lambda: numbered("k{n}: a\n", MANY // 2)),
    "items": ("wrong-type", lambda: "- x\n" * MANY),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_bad_file_of_variables_ends_in_a_finding_within_a_second_and_a_hundred_megabytes(bench: Bench, name: str):
    code, text = VALUES[name]
    bench.write(text(), "values.yaml")

    check(bench.validated("--vars-file", "values.yaml"), code)


# Patterns


def test_a_pattern_through_links_in_circles_ends(cas: Callable[..., Run], home: Home):
    for name in ("a", "b", "c"):
        Path(name).symlink_to(".")
    Path("m.yaml").write_text(sends(1, "local.docs", more=f", for_each: {{files: '{'*/' * 40}x'}}"), encoding="utf-8")

    run = cas("validate", "m.yaml")

    assert run.code == 1
    assert "looks at more than 100000 files" in run.out


@pytest.mark.parametrize(
    "pattern", ["*", "*/*", "a*/*.org", ".*", "a/*", "[ab]/?.org", "a//x.org", "./a/*", "b/x.org", "*/", "[z-a]", "["]
)
def test_a_pattern_matches_what_it_matches_elsewhere_in_python(tmp_path: Path, pattern: str):
    from glob import glob

    from cas.patterns import matching
    from cas.root import Root

    for name in ("a/x.org", "a/.y.org", "b/x.org", ".c/z.org", "ab/long.org"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    assert sorted(map(os.path.normpath, matching(Root(tmp_path), pattern))) == sorted(
        map(os.path.normpath, glob(pattern, root_dir=tmp_path))
    )


# Whatever comes

CODES = frozenset(explanations.parse(EXPLANATIONS.read_text(encoding="utf-8")))
IN_HOME = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def told(content: bytes) -> list[dict[str, Any]]:
    """What `cas validate` finds, in both forms, after the same was found again."""
    Path("m.yaml").write_bytes(content)
    run, again = called("validate", "m.yaml", "--output", "json"), called("validate", "m.yaml", "--output", "json")
    words = called("validate", "m.yaml")
    assert run == again
    assert run.code in (0, 1, 2, 4)
    assert not UNSAFE.search(run.out + run.err + words.out + words.err)
    found: list[dict[str, Any]] = json.loads(run.out)["diagnostics"]
    assert len(words.out.splitlines()) == max(1, len(found)) + (run.code == 0 and bool(found))
    return found


def check_places(found: list[dict[str, Any]], content: bytes) -> None:
    lines = content.decode("utf-8", "replace").removeprefix("\ufeff").split("\n")
    for one in found:
        assert one["code"] in CODES
        assert "\n" not in one["message"]
        for place in (one, *one["related"]):
            if place["file"] != "m.yaml" or place["line"] is None:
                continue
            assert 1 <= place["line"] <= len(lines)
            assert place["column"] is None or 1 <= place["column"] <= len(lines[place["line"] - 1]) + 1


@IN_HOME
@given(st.binary(max_size=200))
@example(b"{")
@example(b"a: [b")
def test_any_bytes_get_findings_with_places(home: Home, content: bytes):
    found = told(content)

    assert found
    check_places(found, content)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
WORDS = st.sampled_from(
    [
        *(
            "a",
            "b",
            "c",
            "1",
            "a.org",
            "local.docs",
            "nobody.docs",
            "@g",
            "..",
            "../x",
            "/etc/passwd",
            "",
            "a b",
            "a[1]",
        ),
        *("{{ x }}", "{{ item }}", "{{", "{#", "{% if %}", "{{ loop.index }}", "{{ 1/0 }}", "{{ [] }}", "{{ now }}"),
        *("{% include 'a.org' %}", "{{ 'a' ~ '\\n' }}", "x +", "true", "item == 1", "request", "*", "*/*", "*.yaml"),
        *("\x1b[2J\u202e", "::error::x", "é😀"),
    ]
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS | WORDS, inner, max_size=4),
    max_leaves=12,
)


def in_yaml(value: Any) -> bytes:
    return yaml.safe_dump(value, allow_unicode=True, sort_keys=False).encode()


@IN_HOME
@given(PLAIN)
def test_any_value_gets_findings_with_places(home: Home, value: Any):
    content = in_yaml(value)

    found = told(content)

    assert found
    check_places(found, content)


def either(sound: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly what fits, else whatever."""
    return st.one_of(sound, sound, sound, WORDS, PLAIN)


MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "conversation": either(st.just("c")),
        "type": either(st.just("request")),
        "sequence": either(st.integers(1, 3)),
        "body": either(WORDS),
        "file": WORDS,
        "template": WORDS,
        "vars": either(st.dictionaries(WORDS, PLAIN, max_size=2)),
        "timestamp": WORDS,
    },
) | st.just({"conversation": "c", "type": "request", "sequence": 1, "body": "x"})
A_SEND = st.fixed_dictionaries(
    {
        "id": either(st.sampled_from("abcd")),
        "destination": either(st.just("local.docs") | st.lists(WORDS, max_size=3)),
        "message": either(MESSAGE),
    },
    optional={
        "for_each": either(st.lists(WORDS, max_size=3) | st.fixed_dictionaries({"files": WORDS})),
        "when": either(st.booleans()),
        "after": either(st.lists(st.sampled_from("abcd"), max_size=2)),
        "tags": either(st.lists(WORDS, max_size=2)),
        "vars": either(st.dictionaries(WORDS, PLAIN, max_size=2)),
        "sign": either(st.booleans() | st.fixed_dictionaries({"key": WORDS})),
        "retry": PLAIN,
        "extra": PLAIN,
    },
)
MANIFEST = st.fixed_dictionaries(
    {"cas": st.just(1), "sends": either(st.lists(A_SEND, min_size=1, max_size=3))},
    optional={
        "vars": either(st.dictionaries(WORDS, PLAIN, max_size=2)),
        "defaults": PLAIN,
        "name": WORDS,
        "sender": WORDS,
    },
)


@settings(IN_HOME, max_examples=150)
@given(MANIFEST)
def test_anything_like_a_manifest_gets_findings_with_places_or_is_valid(home: Home, value: Any):
    content = in_yaml(value)

    check_places(told(content), content)


SOME_BAD = (
    b"\xff",
    b"cas: 1\nsends: []\nx: 1\ny: 2\nname: [5]\n",
    HEAD.encode() + b"  - {idd: a, destinatio: b, z: 1, message: {bod: x, vars: {now: 1}}}\n",
    sends(3, "[nobody{n}.docs, '@h', x]", "{file: a.org, body: x}").encode(),
    sends(
        2, "local.docs", BODY.replace("body: x", 'body: "{{ nam }}{{ undefined }}"'), more=", vars: {name: 1, named: 2}"
    ).encode(),
)


def test_the_same_input_gets_the_same_findings_whatever_the_hash_seed(bench: Bench):
    bench.write(numbered("k{n}: 1\n", 20), "values.yaml")
    for content in SOME_BAD:
        bench.write(content)

        said = {_seeded(bench, seed) for seed in "12"}

        assert len(said) == 1


def test_unknown_variables_are_told_in_the_order_of_their_names(cas: Callable[..., Run], home: Home):
    Path("m.yaml").write_text(VALID, encoding="utf-8")
    Path("values.yaml").write_text(numbered("k{n}: 1\n", 20), encoding="utf-8")

    run = cas("validate", "m.yaml", "--vars-file", "values.yaml")

    assert re.findall(r"variable `(\w+)`", run.out) == sorted(f"k{number}" for number in range(20))


def _seeded(bench: Bench, seed: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "cas", "validate", "m.yaml"],
        cwd=bench.folder,
        env={
            "HOME": str(bench.folder.parent),
            "PYTHONPATH": str(ROOT),
            "PATH": os.environ["PATH"],
            "PYTHONHASHSEED": seed,
        },
        capture_output=True,
        check=False,
    )
    assert ended.returncode in (1, 2, 4)
    return (ended.stdout + ended.stderr).decode()


# What templates may not


SECRET = "what nobody is to read"


@pytest.fixture
def secret(home: Home) -> Iterator[str]:
    """Outside of the manifest's folder, and led to by links in it; with a FIFO and a device beside them."""
    outside = home.projects / "secret.org"
    outside.write_text(SECRET, encoding="utf-8")
    Path("link.org").symlink_to("../secret.org")
    Path("folder").symlink_to("..")
    Path("round").symlink_to("round")
    Path("zero").symlink_to("/dev/zero")
    Path("self").symlink_to("/proc/self")
    os.mkfifo("pipe")
    return str(outside)


def filled_with(template: str) -> str:
    return HEAD + SEND.format(
        id="a",
        to="local.docs",
        message="{conversation: c, type: request, sequence: 1, body: " + json.dumps(template) + "}",
    )


OUTSIDE = [
    "../secret.org",
    "link.org",
    "folder/secret.org",
    "./../secret.org",
    "x/../../secret.org",
    "round",
    "zero",
    "pipe",
    "self/environ",
]
OUTSIDE += [
    "/etc/passwd",
    "//etc/passwd",
    "/dev/zero",
    "/proc/self/environ",
    "self/cwd/../secret.org",
    "~/projects/secret.org",
    ".",
    "",
    "a\0b",
    "a" * 5000,
]


@pytest.mark.parametrize("path", OUTSIDE)
@pytest.mark.parametrize("tag", ["{% include [PATH] ignore missing %}", "{% import PATH as x %}"])
def test_a_template_reads_nothing_outside_of_the_folder(cas: Callable[..., Run], secret: str, path: str, tag: str):
    escaped = json.dumps(path)
    Path("m.yaml").write_text(filled_with(tag.replace("PATH", escaped)), encoding="utf-8")

    run = cas("validate", "m.yaml")

    assert run.code == 1
    assert SECRET not in run.out + run.err
    assert "root:" not in run.out


@pytest.mark.parametrize("path", OUTSIDE)
@pytest.mark.parametrize("kind", ["file", "template"])
def test_a_message_is_read_from_nowhere_outside_of_the_folder(
    cas: Callable[..., Run], secret: str, path: str, kind: str
):
    text = json.dumps(
        {
            "cas": 1,
            "sends": [{"id": "a", "destination": "local.docs", "message": {kind: f"{{{{ {json.dumps(path)} }}}}"}}],
        }
    )
    Path("m.yaml").write_text(text, encoding="utf-8")

    run = cas("validate", "m.yaml")

    assert run.code in (1, 4)
    assert SECRET not in run.out + run.err


CODE = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__cl' ~ 'ass__'] }}",
    "{{ ''|attr('__class__') }}",
    "{{ ''|attr('__cl' ~ 'ass__') }}",
    "{{ [''] | map(attribute='__class__') | list }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ cycler.__init__.__globals__.os.system('touch broken') }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ namespace.__init__ }}",
    "{{ lipsum.__globals__ }}",
    "{{ '{0.__class__}'.format('') }}",
    "{{ '{0.__class__}'.format_map({'0': ''}) }}",
    "{{ ('{0.__class__}'|string).format('') }}",
    "{{ ['{0.__class__}'] | map('format', '') | list }}{{ x }}",
    "{% set m = '{0.__class__}'.format %}{{ m('') }}",
    "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}",
    "{% macro m() %}{{ caller.__code__ }}{% endmacro %}{% call m() %}{% endcall %}",
    "{{ loop.__class__ }}",
    "{% for x in [1] %}{{ loop._iterator.gi_frame }}{% endfor %}",
    "{{ (1 for x in []) }}",
    "{{ [].append(1) }}",
    "{{ dict.__base__ }}",
    "{{ range.__class__ }}",
    "{{ context }}{{ environment }}",
    "{{ ''.join.__self__.__class__ }}",
    "{% import os %}",
    "{% debug %}",
    "{% do x %}",
    "{{ [1] | groupby('__class__') }}",
    "{{ [{}, {}] | sort(attribute='__class__') }}",
    "{{ {} | xmlattr | attr('__html__') }}",
    "{{ '' | escape | attr('__html__') }}",
    "{{ ''.encode().__class__ }}",
    "{{ (1).from_bytes }}",
    "{{ 1|pprint|attr('format')|attr('__self__') }}",
]


@pytest.mark.threat("manifest author", "run code by a template")
@pytest.mark.parametrize("template", CODE)
def test_a_template_runs_no_code_and_sees_no_inside(cas: Callable[..., Run], home: Home, template: str):
    Path("m.yaml").write_text(filled_with(template), encoding="utf-8")

    run = cas("validate", "m.yaml")

    assert run.code == 1, run.out
    assert "<class" not in run.out
    assert not Path("broken").exists()


HUNGRY = [
    "{{ 'a' * 10**9 }}",
    "{{ [1] * 10**9 }}",
    "{{ '%999999999d' % 1 }}",
    "{{ '{:999999999}'.format(1) }}",
    "{{ 'a' | center(10**9) }}",
    "{{ 'a'.ljust(10**9) }}",
    "{{ 'a' | indent(10**9, true) }}",
    "{{ range(10**9) | list }}",
    "{{ 10 ** (10 ** 3) }}",
    "{{ 1 << 10 ** 9 }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% set x = namespace(a=['a']) %}{% for i in range(99) %}{% set x.a = x.a + x.a %}{% endfor %}",
    "{% set x = namespace(a='a') %}{% for i in range(99) %}{% set x.a = x.a ~ x.a %}{% endfor %}{{ x.a }}",
    "{{ ['a' * 10**6] * 10**6 }}",
    "{{ 'a' * 2 * 1048576 }}",
]


@pytest.mark.parametrize("template", HUNGRY)
def test_a_template_that_makes_too_much_ends_in_a_finding(cas: Callable[..., Run], home: Home, template: str):
    Path("m.yaml").write_text(filled_with(template), encoding="utf-8")
    began = time.monotonic()

    run = cas("validate", "m.yaml")

    assert run.code in (1, 4), run.out
    assert len(run.out) < 5_000
    assert time.monotonic() - began < 15


def test_a_file_that_includes_itself_ends_in_a_finding(cas: Callable[..., Run], home: Home):
    Path("me").write_text("{% include 'me' %}", encoding="utf-8")
    Path("m.yaml").write_text(filled_with("{% include 'me' %}"), encoding="utf-8")

    assert cas("validate", "m.yaml").code == 1


# What is printed


NASTY = "\x1b[2J\x07\x9b\r\u202e\u2066\u200f\u061c\u2028\n::error::gone ##[error]gone\n"
AS_PATH = NASTY.replace("/", "")


def prints_nothing_nasty(cas: Callable[..., Run], *argv: str | Path, code: int | None = None) -> None:
    for more in ([], ["--output", "json"], ["--diagnostics", "github"]):
        run = cas(*argv, *more)
        assert not UNSAFE.search(run.out + run.err), (more, run)
        assert run.code not in (0, None) if code is None else run.code == code
        if more and more[0] == "--diagnostics":
            assert not COMMAND.search(run.out + run.err), run


FIELDS: Mapping[str, Callable[[], Any]] = {
    "a key": lambda: {"cas": 1, NASTY: 1, "sends": []},
    "a send's key": lambda: {"cas": 1, "sends": [{NASTY: 1}]},
    "a name": lambda: {"cas": 1, "name": NASTY, "sends": []},
    "a sender": lambda: {"cas": 1, "sender": NASTY, "sends": [a_send()]},
    "an id": lambda: {"cas": 1, "sends": [a_send(id=NASTY)]},
    "a destination": lambda: {"cas": 1, "sends": [a_send(destination=NASTY)]},
    "a machine": lambda: {"cas": 1, "sends": [a_send(destination=NASTY + ".docs")]},
    "a group": lambda: {"cas": 1, "sends": [a_send(destination="@" + NASTY)]},
    "a path": lambda: {"cas": 1, "sends": [a_send(message=NASTY)]},
    "a pattern": lambda: {"cas": 1, "sends": [a_send(for_each={"files": "/" + NASTY})]},
    "an after": lambda: {"cas": 1, "sends": [a_send(after=[NASTY])]},
    "a tag": lambda: {"cas": 1, "sends": [a_send(tags=[NASTY])]},
    "a condition": lambda: {"cas": 1, "sends": [a_send(when=NASTY)]},
    "a variable": lambda: {"cas": 1, "vars": {NASTY: 1}, "sends": [a_send()]},
    "a conversation": lambda: {"cas": 1, "sends": [a_send(message={**A_BODY, "conversation": NASTY})]},
    "a type": lambda: {"cas": 1, "sends": [a_send(message={**A_BODY, "type": NASTY})]},
    "a timestamp": lambda: {"cas": 1, "sends": [a_send(message={**A_BODY, "timestamp": NASTY, "type": "x"})]},
    "a key of gpg's": lambda: {"cas": 1, "sends": [a_send(sign={"key": NASTY})]},
}
A_BODY = {"conversation": "c", "type": "request", "sequence": 1, "body": "x"}


def a_send(**more: Any) -> dict[str, Any]:
    return {"id": "a", "destination": "local.docs", "message": A_BODY, **more}


def through_templates(value: Any) -> Any:
    """What YAML refuses, a template can still make."""
    if isinstance(value, str) and NASTY in value:
        codes = "".join(f"\\u{ord(one):04x}" for one in value)
        return '{{ "' + codes + '" }}'
    if isinstance(value, dict):
        return {key: through_templates(one) for key, one in value.items()}
    return [through_templates(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("field", FIELDS)
def test_no_field_of_a_manifest_reaches_the_terminal_as_it_is(cas: Callable[..., Run], home: Home, field: str):
    value = FIELDS[field]()
    visible_only = json.loads(json.dumps(value).replace("\\u001b", "").replace("\\u0007", "").replace("\\u009b", ""))
    for one in (value, visible_only, through_templates(value)):
        Path("m.yaml").write_text(json.dumps(one, ensure_ascii=False), encoding="utf-8")
        prints_nothing_nasty(cas, "validate", "m.yaml")
        Path("m.yaml").write_text(yaml.safe_dump(one), encoding="utf-8")
        prints_nothing_nasty(cas, "validate", "m.yaml")


@pytest.mark.parametrize("text", ["::error::gone", " ::error::gone", "##[error]gone", "a\n::error::gone"])
def test_in_a_workflow_no_text_is_a_command(
    cas: Callable[..., Run], home: Home, monkeypatch: pytest.MonkeyPatch, text: str
):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    home.halt(text)
    Path(f"{text}.yaml").write_text(VALID + "  - 5\n", encoding="utf-8")
    Path("m.yaml").write_text(VALID, encoding="utf-8")

    for argv in (("validate", "m.yaml"), ("validate", f"{text}.yaml"), ("plan", "m.yaml", "--only", text)):
        for form in ("text", "github"):
            run = cas(*argv, "--diagnostics", form)

            assert not COMMAND.search(run.out + run.err), run


def test_no_frontmatter_reaches_the_terminal_as_it_is(
    cas: Callable[..., Run], home: Home, message: Callable[..., Path]
):
    for key in ("conversation_id", "message_type", "sequence"):
        message("m.org", **{key: NASTY.replace("\n", " ")})
        Path("m.yaml").write_text(sends(1, "local.docs", "m.org"), encoding="utf-8")

        prints_nothing_nasty(cas, "validate", "m.yaml", code=4)


def test_no_name_of_a_file_reaches_the_terminal_as_it_is(cas: Callable[..., Run], home: Home):
    folder = Path(NASTY)
    folder.mkdir()
    (folder / (NASTY + ".yaml")).write_text("- 1\n", encoding="utf-8")
    (folder / (NASTY + ".yml")).write_text(VALID, encoding="utf-8")

    prints_nothing_nasty(cas, "validate", folder)


@pytest.mark.parametrize(
    "text",
    [
        '"NASTY" = 1\npolicy = 1\n',
        '[peers."NASTY"]\nhost = 1\n',
        '[peers.a]\nhost = "NASTY"\n',
        '[groups]\n"NASTY" = ["@NASTY"]\n',
        '[groups]\ng = ["@NASTY"]\n',
        '[groups]\n"NASTY" = ["NASTY"]\n',
        '[projects."NASTY"]\ninbox_path = "NASTY"\n',
        "a = NASTY\n",
        '[peers.a]\nhost_key = "NASTY"\n',
    ],
)
def test_nothing_of_peers_toml_reaches_the_terminal_as_it_is(cas: Callable[..., Run], home: Home, text: str):
    Path("m.yaml").write_text(VALID, encoding="utf-8")
    home.peers(text.replace("NASTY", "".join(f"\\u{ord(one):04x}" for one in NASTY)))

    prints_nothing_nasty(cas, "validate", "m.yaml", code=1)


@pytest.mark.parametrize("option", ["--var", "--tags", "--skip-tags", "--only", "--limit", "--vars-file", "--output"])
def test_no_option_reaches_the_terminal_as_it_is(cas: Callable[..., Run], home: Home, option: str):
    Path("m.yaml").write_text(VALID, encoding="utf-8")

    for value in (NASTY, f"a={NASTY}"):
        run = cas("plan", "m.yaml", option, value)

        assert run.code in (1, 64)
        assert not UNSAFE.search(run.out + run.err), run


def test_what_a_template_says_of_a_name_reaches_no_terminal_as_it_is(cas: Callable[..., Run], home: Home):
    codes = "".join(f"\\u{ord(one):04x}" for one in NASTY)
    for template in (
        f'{{{{ {{}}["{codes}"] }}}}',
        f'{{{{ "x"|attr("{codes}") }}}}',
        f'{{% include "{codes}" %}}',
        f'{{{{ "{codes}" + 1 }}}}',
    ):
        Path("m.yaml").write_text(filled_with(template), encoding="utf-8")

        prints_nothing_nasty(cas, "validate", "m.yaml")

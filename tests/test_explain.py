"""`cas explain`: every code has its cause, an example that is true, and a cure; and no other code has."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import diagnostics_page
import pytest
from emitted import emitted
from support import Home, Run

from cas import explanations
from cas.explanations import Example, Explanation
from cas.output import explanations as explanation_view

KNOWN = explanations.parse(diagnostics_page.DATA.read_text(encoding="utf-8"))
TRIED = sorted(code for code, one in KNOWN.items() if one.example.files is not None)
# Codes of deliveries: told in words, as an outcome, without the code.
OUTCOMES = {"conflict", "file-operation-failed", "lock", "not-connected"}
SHORT = Explanation(
    code="tab",
    title="a tab",
    cause="Somebody wrote a tab where none may be, and nobody saw it.",
    example=Example(run="cas validate a.yaml", says="a.yaml:1:1: error[tab]: a tab", files=(("a.yaml", "\tx\n\ny\n"),)),
    cure="Write spaces.",
)


# Completeness


def test_every_code_that_cas_can_give_is_explained_and_no_other():
    assert set(KNOWN) == emitted().codes


def test_no_code_is_hidden_from_that_comparison():
    assert emitted().hidden == set()


@pytest.mark.parametrize(
    ("source", "codes"),
    [
        ('raise CasError("x", code="plain")', {"plain"}),
        ('def _made(code, words): return Diagnostic(code=code)\n_made("handed-on", "x")', {"handed-on"}),
        ('def _made(*, code="usual"): return Diagnostic(code=code)', {"usual"}),
        (
            "class A:\n def _far(self, words, code): self._near(1, code)\n def _near(self, at, code): B(code=code)\n"
            ' def go(self): self._far("x", "handed-on-twice")',
            {"handed-on-twice"},
        ),
    ],
)
def test_a_code_is_found_however_it_is_given(tmp_path: Path, source: str, codes: set[str]):
    (tmp_path / "module.py").write_text(source, encoding="utf-8")

    found = emitted(tmp_path)

    assert (found.codes, found.hidden) == (codes, set())


def test_a_code_is_found_where_its_helper_lies_in_another_module(tmp_path: Path):
    (tmp_path / "one.py").write_text("def made(code): return Diagnostic(code=code)", encoding="utf-8")
    (tmp_path / "two.py").write_text('from cas.one import made\nmade("far")', encoding="utf-8")

    assert emitted(tmp_path).codes == {"far"}


@pytest.mark.parametrize(
    "source",
    [
        "CasError('x', code=f'made-{up}')",
        "def f(found): CasError('x', code=found['code'])",
        "error.code = 'set-later'",
        "Diagnostic(**fields)",
        "class E(CasError):\n def __init__(self, code): super().__init__('x', code=code)\nE('by-place')",
        "CODE = 'named'\ndef f(): CasError('x', code=CODE)",
    ],
)
def test_a_code_that_cannot_be_found_is_told(tmp_path: Path, source: str):
    (tmp_path / "module.py").write_text(source, encoding="utf-8")

    assert emitted(tmp_path).hidden != set()


@pytest.mark.parametrize("code", sorted(KNOWN))
def test_an_explanation_is_complete_and_short(code: str):
    one = KNOWN[code]

    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", one.code)
    assert one.title
    assert not one.title.endswith(".")
    assert one.example.run
    assert one.example.says
    for text in (one.cause, one.cure):
        assert text.endswith((".", ")")), text
        assert 20 <= len(text) <= 500


# The examples are true


@pytest.mark.parametrize("code", TRIED)
def test_an_example_says_what_it_is_told_to_say(
    code: str, home: Home, cas: Callable[..., Run], message: Callable[..., Path]
):
    run = tried(KNOWN[code].example, home, cas, message)

    lines = (run.out + run.err).replace(str(home.path), "~").split("\n")
    for said in KNOWN[code].example.says.split("\n"):
        pattern = re.escape(said).replace("…", ".*")
        assert any(re.fullmatch(pattern, line) for line in lines), lines


@pytest.mark.parametrize("code", sorted(set(TRIED) - OUTCOMES))
def test_an_example_gives_its_own_code_and_no_other(
    code: str, home: Home, cas: Callable[..., Run], message: Callable[..., Path]
):
    run = tried(KNOWN[code].example, home, cas, message, "--output", "json")

    body = json.loads(run.out.splitlines()[-1])
    assert {found["code"] for found in body["diagnostics"]} == {code}


@pytest.mark.parametrize("code", sorted(set(KNOWN) - set(TRIED)))
def test_an_example_that_cannot_be_tried_is_at_least_of_the_form_that_cas_says(code: str):
    forms = rf"(\S+: )?error\[{code}\]: |(failed|halted|unknown): \S+@\S+: "

    assert re.match(forms, KNOWN[code].example.says)


def tried(example: Example, home: Home, cas: Callable[..., Run], message: Callable[..., Path], *options: str) -> Run:
    """Runs an example beside a sound message; what its last command, always one of cas, said."""
    message("hello.org")
    home.config.mkdir(parents=True)
    for name, text in example.files or ():
        path = (home.config if name in ("peers.toml", "HALT") else Path()) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    run = Run(code=-1, out="", err="")
    for command in example.run.split(" && "):
        if command.startswith("cas "):
            run = cas(*shlex.split(command)[1:], *options)
        else:
            subprocess.run(["sh", "-c", command], check=True)
    return run


# How it is told


def test_an_explanation_has_cause_example_and_cure_as_wide_as_there_is_room():
    assert list(explanation_view.lines([SHORT], 40)) == [
        "tab: a tab",
        "",
        "Cause",
        "  Somebody wrote a tab where none may",
        "  be, and nobody saw it.",
        "",
        "Example",
        "  a.yaml:",
        "    \tx",
        "",
        "    y",
        "  $ cas validate a.yaml",
        "  a.yaml:1:1: error[tab]: a tab",
        "",
        "Cure",
        "  Write spaces.",
    ]


def test_several_explanations_are_told_one_after_the_other(cas: Callable[..., Run]):
    run = cas("explain", "tab", "tag", "tab")

    assert run.code == 0
    assert re.findall(r"^(\S+): ", run.out, re.MULTILINE) == ["tab", "tag"]


def test_without_a_code_all_are_listed_with_a_sentence_each(cas: Callable[..., Run]):
    run = cas("explain")

    assert (run.code, run.err) == (0, "")
    assert [line.split()[0] for line in run.out.splitlines() if not line.startswith(" ")] == sorted(KNOWN)
    assert max(map(len, run.out.splitlines())) <= 80


def test_the_list_fits_a_narrow_terminal():
    assert list(explanation_view.overview([SHORT, KNOWN["doubled-sequence"]], 30)) == [
        "tab               a tab",
        "doubled-sequence  two messages",
        "    in one place of a",
        "    conversation",
    ]


def test_as_json_an_explanation_has_all_its_fields(cas: Callable[..., Run]):
    body = json.loads(cas("explain", "tab", "--output", "json").out)

    assert body["format"] == "cas.explanations/1"
    (one,) = body["explanations"]
    assert set(one) == {"code", "title", "cause", "example", "cure"}
    assert set(one["example"]) == {"files", "run", "says"}
    assert one["example"]["files"][0]["name"] == "release.yaml"


def test_as_json_without_a_code_there_are_all(cas: Callable[..., Run]):
    body = json.loads(cas("explain", "--output", "jsonl").out)

    assert [one["code"] for one in body["explanations"]] == sorted(KNOWN)


def test_an_unknown_code_is_wrong_usage_and_names_near_ones(cas: Callable[..., Run]):
    run = cas("explain", "tab", "unknow-key")

    assert (run.code, run.out) == (64, "")
    assert run.err.startswith("error[unknown-code]: no code `unknow-key` (hint: did you mean `unknown-key` or ")


def test_a_code_that_is_near_to_none_gets_the_way_to_all(cas: Callable[..., Run]):
    run = cas("explain", "weather")

    assert "(hint: all there are: cas explain)" in run.err


def test_no_control_character_of_an_example_reaches_the_page():
    example = dataclasses.replace(SHORT.example, files=(("a.yaml", "name: \x1b[2J\n"),))

    assert "  name: \\x1b[2J" in list(explanation_view.page([dataclasses.replace(SHORT, example=example)]))


def test_the_reference_is_what_cas_explains():
    assert diagnostics_page.PAGE.read_text(encoding="utf-8") == diagnostics_page.text(), (
        "write it anew: python tests/diagnostics_page.py"
    )

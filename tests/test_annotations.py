"""Annotations of GitHub's workflows: a command for each finding, and no other, whatever a text holds."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import Home, Run
from test_excerpts import FOUND
from test_output import HARMFUL

from cas.diagnostics import Diagnostic, Place, Severity
from cas.output import diagnostics as diagnostic_view
from cas.output.annotations import annotation, defused, defused_json
from cas.output.console import Console, Form
from cas.output.result import as_json


def test_an_annotation_has_place_and_code_as_properties_and_all_words_as_its_message():
    assert annotation(FOUND, "/repository") == (
        "::error file=/repository/nightly.yaml,line=3,col=5,title=unknown-key::`retires` is not a key of a send"
        "%0Asee nightly.yaml:1:1: the map%0Asee peers.toml: the peers"
        "%0Ahint: did you mean `retries`?%0Aat nightly.yaml:3:5"
    )


@pytest.mark.parametrize(("severity", "command"), [("error", "error"), ("warning", "warning"), ("note", "notice")])
def test_an_annotation_is_as_severe_as_what_it_tells(severity: str, command: str):
    found = Diagnostic(code="x", message="y", severity=Severity(severity))

    assert annotation(found, "/repository") == f"::{command} title=x::y"


def test_an_annotation_of_standard_input_names_no_file():
    found = Diagnostic(code="x", message="y", place=Place(file="<stdin>", line=3))

    assert annotation(found, "/repository") == "::error title=x::y%0Aat <stdin>:3"


def test_what_would_end_a_property_or_a_line_is_escaped_as_a_runner_undoes_it():
    found = Diagnostic(code="x", message="100% ::debug::\n::error::", place=Place(file="a,line=9:b::%0A.yaml"))

    line = annotation(found, "/")

    assert line.startswith("::error file=/a%2Cline=9%3Ab%3A%3A%250A.yaml,title=x::100%25 ::debug::\\n::error::%0Aat ")
    command, properties, words = obeyed(line)
    assert (command, properties) == ("error", {"file": "/a,line=9:b::%0A.yaml", "title": "x"})
    assert words.split("\n")[0] == "100% ::debug::\\n::error::"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("::error::x", "\\x3a:error::x"),
        (" \t\u3000::error::x", " \t\u3000\\x3a:error::x"),
        ("sent: ##[add-mask]x", "sent: \\x23#[add-mask]x"),
        ("###[debug]", "#\\x23#[debug]"),
        ("a::b # c", "a::b # c"),
    ],
)
def test_no_other_line_is_a_command(line: str, expected: str):
    assert defused(line) == expected
    assert obeyed(defused(line)) is None


def test_json_without_commands_says_the_same():
    line = as_json({"message": "##[add-mask]x", "::": 1})

    assert obeyed(line) is not None
    assert obeyed(defused_json(line)) is None
    assert json.loads(defused_json(line)) == json.loads(line)


def obeyed(line: str) -> tuple[str, dict[str, str], str] | None:
    """The command that a runner finds in a line, as actions/runner's ActionCommand does: new form, then old."""
    undo = (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%"))
    plain = line.lstrip()
    if plain.startswith("::") and "::" in plain[2:]:
        head, _, data = plain[2:].partition("::")
        command, _, properties = head.partition(" ")
        pairs = dict(pair.split("=", 1) for pair in properties.split(",") if "=" in pair)
        return command, {name: undone(value, undo) for name, value in pairs.items()}, undone(data, undo)
    old = re.search(r"##\[(\S*).*?\](.*)", line)
    return (old[1], {}, old[2]) if old else None


def undone(text: str, undo: tuple[tuple[str, str], ...]) -> str:
    for escaped, plain in undo:
        text = text.replace(escaped, plain)
    return text


TEXTS = st.text() | st.lists(
    st.sampled_from(["::error::", "##[debug]", "\n", "\r", "%0A", ":", ",", " ", "\t", "x", *HARMFUL]), max_size=8
).map("".join)
PLACES = st.builds(Place, file=TEXTS, line=st.none() | st.integers(1, 3), column=st.none() | st.integers(1, 60))
ANY = st.builds(
    Diagnostic,
    code=st.just("x"),
    message=TEXTS,
    place=st.none() | PLACES,
    hint=st.none() | TEXTS,
    severity=st.sampled_from(Severity),
    related=st.lists(st.tuples(PLACES, TEXTS), max_size=2).map(tuple),
)
UNSEEN = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)


@example(Diagnostic(code="x", message="y", place=Place(file=":")), [], 0)
@settings(max_examples=300, deadline=None)
@given(found=ANY, lines=st.lists(TEXTS, max_size=3), width=st.integers(0, 100))
def test_no_text_in_a_finding_makes_a_line_or_a_command_of_its_own(found: Diagnostic, lines: list[str], width: int):
    in_words = [diagnostic_view.line(found), *diagnostic_view.lines(found, lambda _: lines, width)]

    for line in in_words:
        assert not UNSEEN.search(line)
        assert not line.lstrip().startswith("::")
        assert obeyed(defused(line)) is None


@settings(max_examples=300, deadline=None)
@given(found=ANY)
def test_no_text_in_a_finding_makes_more_of_an_annotation_than_it_is(found: Diagnostic):
    line = annotation(found, "/repository")

    command, properties, words = obeyed(line)
    assert not UNSEEN.search(line)
    assert "##[" not in line
    assert command in ("error", "warning", "notice")
    assert set(properties) <= {"file", "line", "col", "title"}
    assert properties["title"] == "x"
    assert not any(obeyed(told) for told in words.split("\n")[1:])
    assert not UNSEEN.search(words.replace("\n", ""))


@settings(max_examples=300, deadline=None)
@given(text=TEXTS, form=st.sampled_from(Form))
def test_in_a_workflow_nothing_that_is_printed_is_a_command(text: str, form: Form):
    out, err = io.StringIO(), io.StringIO()
    at = Console(out=out, err=err, form=form, workflow=True, shown=lambda found, _: [annotation(found, "/")])

    at.result(text if form is Form.TEXT else as_json(text))
    at.say(text)
    at.problem(text)

    assert [obeyed(line) for line in (out.getvalue() + err.getvalue()).split("\n")] == [None] * 4


def test_an_annotation_stays_a_command_where_words_are_colored():
    err = io.StringIO()
    found = Diagnostic(code="x", message="a: error[x]: b")
    at = Console(out=io.StringIO(), err=err, color=True, workflow=True, shown=lambda one, _: [annotation(one, "/")])

    at.report([found])

    assert err.getvalue() == "::error title=x::a: error[x]: b\n"


# What a run prints in a workflow


@pytest.fixture
def wrong(home: Home) -> Path:
    """A manifest, in a folder whose name is not kind, with an error and a warning."""
    home.peers("[pears]\n")
    path = Path("::error::x, 100%.yaml")
    path.write_text("cas: 1\nsends:\n  - {id: a, destination: local.docs, message: no.org}\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("verb", ["validate", "plan", "apply"])
def test_in_a_workflow_findings_are_annotations(
    cas: Callable[..., Run], home: Home, wrong: Path, verb: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")

    run = cas(verb, wrong)

    told = [obeyed(line) for line in (run.out + run.err).splitlines()]
    commands = [one for one in told if one]
    assert run.code == 1
    assert [command for command, _, _ in commands] == ["warning", "error"]
    assert commands[1][1] == {
        "file": str(home.projects / "builder" / wrong),
        "line": "3",
        "col": "47",
        "title": "unreadable",
    }


def test_a_send_in_a_workflow_tells_its_finding_as_an_annotation(
    cas: Callable[..., Run], home: Home, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")

    run = cas("send", "docs", "no.org", "--no-sign")

    assert run.err.splitlines()[-1] == "nothing was sent"
    assert {obeyed(line)[1]["title"] for line in run.err.splitlines()[:-1]} == {"unreadable", "malformed-destination"}


def test_a_workflow_may_be_told_to_have_findings_in_words_that_are_no_commands(
    cas: Callable[..., Run], wrong: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")

    run = cas("validate", wrong, "--diagnostics", "text")

    assert "./::error::x, 100%.yaml:3:47: error[unreadable]" in run.out
    assert [obeyed(line) for line in run.out.splitlines()] == [None, None]


def test_annotations_may_be_asked_for_elsewhere(cas: Callable[..., Run], wrong: Path):
    run = cas("validate", wrong, "--diagnostics", "github")

    assert run.out.startswith("::warning file=")


@pytest.mark.parametrize("value", ["", "false"])
def test_what_is_no_workflow_gets_no_annotations(
    cas: Callable[..., Run], wrong: Path, value: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("GITHUB_ACTIONS", value)

    assert not cas("validate", wrong).out.startswith("::")


def test_a_result_in_json_stays_a_document_and_its_findings_are_annotations_beside_it(
    cas: Callable[..., Run], wrong: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")

    run = cas("validate", wrong, "--output", "json")

    assert len(json.loads(run.out)["diagnostics"]) == 2
    assert [obeyed(line)[0] for line in run.err.splitlines()] == ["warning", "error"]


def test_a_warning_about_a_sound_manifest_is_an_annotation_beside_its_json(
    cas: Callable[..., Run], home: Home, message: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    home.peers("[pears]\n")
    message("hello.org")
    Path("a.yaml").write_text("cas: 1\nsends: [{id: a, destination: local.docs, message: hello.org}]\n")

    run = cas("validate", "a.yaml", "--output", "json")

    assert (run.code, json.loads(run.out)["diagnostics"][0]["severity"]) == (0, "warning")
    assert run.err.startswith("::warning file=")


@pytest.mark.threat("CI runner", "take an argument for a command")
def test_no_argument_becomes_a_command_of_a_workflow_by_being_wrong_usage(
    cas: Callable[..., Run], home: Home, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")

    run = cas("plan", "--x\n::error::y ##[debug]z\x1b[2J")

    assert run.code == 64
    assert "No such option" in run.err
    assert not any(obeyed(line) for line in run.err.splitlines())
    assert "\x1b" not in run.err


def test_what_a_run_tells_of_its_deliveries_is_no_command(
    cas: Callable[..., Run], home: Home, message: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    home.halt("::stop-commands::x\n::error::y ##[debug]z")
    message("hello.org")

    run = cas("send", "local.docs", "hello.org", "--no-sign", "--output", "json")

    told = [obeyed(line) for line in (run.out + run.err).splitlines()]
    assert [one[1]["title"] for one in told if one] == ["halt"]
    assert json.loads(run.out)["halted"].startswith("HALT is set: ::stop-commands::x")

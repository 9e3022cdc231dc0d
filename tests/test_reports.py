"""Reports of a run: well-formed whatever they hold, written whole, and there also after a failure."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import Home, Run

from cas.diagnostics import Diagnostic, Severity
from cas.errors import ExitCode
from cas.events import (
    Attempt,
    AttemptFailed,
    DeliveryFinished,
    DeliveryStarted,
    FilePublished,
    Notice,
    Outcome,
    RunFinished,
    RunStarted,
)
from cas.output import junit, markdown
from cas.output.record import Record
from cas.output.result import as_json, document, event_fields
from cas.output.visible import UNSAFE

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = json.loads((ROOT / "schemas" / "result.schema.json").read_text(encoding="utf-8"))
NOW = datetime(2026, 11, 23, 1, 31, 33, tzinfo=UTC)
HARMFUL = (
    "]]>", "<script>alert(1)</script>", "a | b", "`x` ``", "one\ntwo\r\n::error::three", "::error file=x::y",
    "\x00\x1b[2J",
    "\ud800", "\u202egpj", "\ufffe\uffff", "&lt;&#0;", "[x](javascript:1)", "@somebody #1 :tada:",
    "https://evil.example www.x.org",
    "</failure>", "<!--", "\\| \\`", "# head", "~~~", "*a* _b_", "$x$",
)  # fmt: skip
# JUnit's schema as readers share it: what may stand in what, and what must be said.
CHILDREN = {
    "testsuites": {"testsuite"},
    "testsuite": {"properties", "testcase", "system-out", "system-err"},
    "properties": {"property"},
    "testcase": {"skipped", "error", "failure", "system-out", "system-err"},
}
NEEDED = {
    "testsuite": {"name", "tests", "failures", "errors", "skipped", "time"},
    "testcase": {"name", "classname", "time"},
    "property": {"name", "value"},
    "failure": {"type", "message"},
    "error": {"type", "message"},
    "skipped": {"message"},
}
MANIFEST = """\
cas: 1
defaults: {sign: false, retry: {retries: 0}}
sends:
  - {id: good, destination: local.docs, message: hello.org}
  - {id: bad, destination: local.site, message: hello.org}
  - {id: later, destination: local.third, message: hello.org, after: bad}
  - {id: never, destination: local.fourth, message: hello.org, when: "'a' == 'b'"}
"""


def finished(outcome: Outcome, text: str = "why", identifier: str = "hello@local.docs") -> DeliveryFinished:
    attempt = Attempt(attempt=1, time=NOW, error=text, permanent=True, wait=None)
    return DeliveryFinished(
        time=NOW + timedelta(seconds=2),
        id=identifier,
        identity="0" * 32,
        destination=text,
        outcome=outcome,
        source="hello.org",
        where=text,
        files=("a.org.asc", "a.org"),
        reason=text,
        hint=text,
        marker=text,
        attempts=(attempt,),
        exit_code=ExitCode.DELIVERY,
    )


def record(text: str = "why", *outcomes: Outcome) -> Record:
    made = Record(command="apply", every_event=True)
    made.add([Diagnostic(code="tab", message=text, hint=text)])
    made.add([Diagnostic(code="unknown-key", message=text, severity=Severity.WARNING)])
    made.show(RunStarted(time=NOW, plan="sha256:" + "0" * 64, deliveries=len(outcomes)))
    made.show(DeliveryStarted(time=NOW, id=text, identity="0" * 32, destination=text))
    made.show(FilePublished(time=NOW, id=text, identity="0" * 32, file=text))
    made.show(Notice(time=NOW, id=text, message=text))
    attempt = Attempt(attempt=1, time=NOW, error=text, permanent=False, wait=5)
    made.show(AttemptFailed(time=NOW, id=text, destination=text, attempt=attempt, retries=3))
    for outcome in outcomes or tuple(Outcome):
        made.show(finished(outcome, text))
    made.show(RunFinished(time=NOW + timedelta(seconds=7), exit_code=ExitCode.DELIVERY, halted=text))
    return made


def checked_junit(content: bytes) -> ElementTree.Element:
    """The root, when the structure and the totals are those of the common schema."""
    root = ElementTree.fromstring(content)
    assert root.tag == "testsuites"
    for element in root.iter():
        assert {child.tag for child in element} <= CHILDREN.get(element.tag, set())
        assert NEEDED.get(element.tag, set()) <= set(element.attrib)
    for suite in root.iter("testsuite"):
        for name, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(suite.attrib[name]) == len(list(suite.iter(tag)))
        order = [("properties", "testcase", "system-out", "system-err").index(child.tag) for child in suite]
        assert order == sorted(order)
    return root


def checked_result(line: str) -> dict[str, object]:
    body: dict[str, object] = json.loads(line)
    jsonschema.Draft7Validator(SCHEMA).validate(body)
    return body


def sound_markdown(text: str) -> None:
    """Nothing of what is quoted is markup: a table's rows have its cells, and no sign of markup is left."""
    text.encode()
    for number in re.findall(r"&#(\d+);", text):  # a reference to a sign that reorders what it stands in still does
        assert not UNSAFE.match(chr(int(number)))
    for line in text.split("\n"):
        if line.startswith("|"):
            assert line.count("|") == 5
        quoted = re.sub(r"^###|^\| --- .*|^- \*\*(error|warning)\*\*|\||&#\d+;|cas apply:|^Stopped:", "", line)
        assert not re.search(r"[<>`*\[\]\\@#:~$]|[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff\u202a-\u202e]", quoted), line
        assert not line.lstrip().startswith("::")


@pytest.mark.parametrize("text", HARMFUL)
def test_reports_are_well_formed_whatever_they_quote(text: str):
    checked_junit(junit.document(record(text), 3))
    sound_markdown(markdown.document(record(text), 3))


@given(st.text(st.characters(), max_size=60))
def test_reports_are_well_formed_for_any_text(text: str):
    checked_junit(junit.document(record(text), 3))
    sound_markdown(markdown.document(record(text), 3))


def test_junit_says_of_each_outcome_what_it_is():
    root = checked_junit(junit.document(record(), 3))

    cases = [[child.tag for child in case] for case in root.iter("testcase")]
    by_outcome = dict(zip(Outcome, cases[1:], strict=True))
    assert cases[0] == ["error"]
    assert by_outcome == {
        Outcome.DELIVERED: ["system-out"],
        Outcome.UNCHANGED: ["system-out"],
        Outcome.SKIPPED: ["skipped"],
        Outcome.BLOCKED: ["error"],
        Outcome.FAILED: ["failure"],
        Outcome.HALTED: ["error"],
        Outcome.UNKNOWN: ["error"],
    }
    (suite,) = root
    assert (suite.attrib["time"], next(root.iter("system-out")).text) == ("7", "delivered: why/a.org")


def test_markdown_shows_what_went_wrong_first_and_never_grows_beyond_a_summary():
    made = Record(command="apply")
    made.show(RunStarted(time=NOW, plan=None, deliveries=3000))
    for outcome in (*[Outcome.DELIVERED] * 3000, Outcome.FAILED):
        made.show(finished(outcome, "]" * 2000))

    text = markdown.document(made, 3)

    table = [line for line in text.split("\n") if line.startswith("| ")]
    assert table[2].startswith("| failed |")
    assert re.search(r"^\d+ more deliveries are left out here", text, re.MULTILINE)
    assert text.isascii()
    assert len(text) < 1 << 20


def test_every_kind_of_event_and_result_is_of_the_schema():
    made = record()
    for event in made.events:
        checked_result(as_json(event_fields(event)))

    result = document("apply", made.plan, 3, None, made.finished, made.found)

    checked_result(as_json(result))
    for name, value in (
        ("result", result),
        ("delivery", result["deliveries"][0]),
        ("diagnostic", result["diagnostics"][0]),
    ):
        assert set(SCHEMA["definitions"][name]["properties"]) == set(value)


@pytest.mark.parametrize(
    "line",
    [
        {"event": "run-started"}, {"event": "weather", "time": "2026-11-23T01:31:33Z"}, {"format": "cas.result/1"}, {},
        {"event": "run-finished", "exit_code": "0", "halted": None, "time": "2026-11-23T01:31:33Z"},
        {"event": "delivery-finished", "time": "2026-11-23T01:31:33Z"},
    ],
)  # fmt: skip
def test_the_schema_refuses_what_is_no_line_of_a_result(line: dict[str, object]):
    assert not jsonschema.Draft7Validator(SCHEMA).is_valid(line)


def all_reports() -> list[str]:
    names = {"junit": "r.xml", "markdown": "r.md", "json": "r.json", "jsonl": "r.jsonl"}
    return [f"--report={form}={name}" for form, name in names.items()]


def read_reports() -> tuple[ElementTree.Element, str, dict[str, object], list[dict[str, object]]]:
    lines = Path("r.jsonl").read_text(encoding="utf-8").splitlines()
    text = Path("r.md").read_text(encoding="utf-8")
    root = checked_junit(Path("r.xml").read_bytes())
    return (
        root,
        text,
        checked_result(Path("r.json").read_text(encoding="utf-8")),
        [checked_result(one) for one in lines],
    )


def test_all_reports_of_one_run_say_the_same(cas: Callable[..., Run], home: Home, message: Callable[..., Path]):
    message("hello.org")
    Path("m.yaml").write_text(MANIFEST, encoding="utf-8")
    home.obstruct("site")

    run = cas("apply", "m.yaml", *all_reports(), "--output", "jsonl")

    root, text, result, lines = read_reports()
    assert run.code == result["exit_code"] == 1
    assert [json.loads(line) for line in run.out.splitlines()] == lines
    assert lines[-1] == result
    (suite,) = root
    assert [suite.attrib[name] for name in ("tests", "failures", "errors", "skipped")] == ["4", "1", "1", "1"]
    assert "1 delivered, 1 skipped, 1 blocked, 1 failed" in text
    assert [name for name in os.listdir() if name.startswith(".tmp.")] == []


def test_a_refused_run_has_its_reports(cas: Callable[..., Run], message: Callable[..., Path]):
    message("hello.org")

    run = cas("send", "laptop.docs", "hello.org", "--no-sign", *all_reports())

    root, text, result, lines = read_reports()
    assert run.code == result["exit_code"] == 2
    assert result["diagnostics"][0]["code"] == "unknown-peer"
    assert [error.attrib["type"] for error in root.iter("error")] == ["unknown-peer"]
    assert "Nothing was sent." in text
    assert lines == [result]


def test_halt_has_its_reports(cas: Callable[..., Run], home: Home, message: Callable[..., Path]):
    message("hello.org")
    home.halt("smoke")

    run = cas("send", "local.docs", "hello.org", "--no-sign", *all_reports())

    root, text, result, _ = read_reports()
    assert run.code == result["exit_code"] == 5
    assert "smoke" in str(result["halted"])
    assert "smoke" in text
    assert len(list(root.iter("error"))) == 1


def test_a_run_that_a_signal_ended_has_its_reports(cas_process, home: Home, message: Callable[..., Path]):
    message("hello.org")
    home.peers('[peers.forge]\nhost = "127.0.0.1"\nport = 1\n')
    process = cas_process("send", "forge.docs", "hello.org", "--no-sign", "--output", "jsonl", *all_reports())
    while "attempt-failed" not in process.stdout.readline():
        time.sleep(0.01)

    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)

    root, _, result, lines = read_reports()
    assert process.returncode == result["exit_code"] == 128 + signal.SIGTERM
    assert lines[-1] == result
    assert len(list(root.iter("error"))) == 1


@pytest.mark.parametrize("target", ["missing/r.xml", ".", "/dev/null", "hello.org/r.xml"])
def test_a_report_that_cannot_be_written_is_told_before_anything_is_sent(
    cas: Callable[..., Run], home: Home, message: Callable[..., Path], target: str
):
    message("hello.org")

    run = cas("send", "local.docs", "hello.org", "--no-sign", "--report", f"junit={target}", "--report", "json=r.json")

    assert run.code == 1
    assert run.err.count("error[unwritable-report]: the report ") == 1
    assert run.err.endswith("nothing was sent\n")
    assert not home.inbox("docs").exists()
    assert checked_result(Path("r.json").read_text(encoding="utf-8"))["exit_code"] == 1


def test_a_folder_that_goes_while_sending_costs_the_report_alone(tmp_path: Path):
    from cas import reports

    folder = tmp_path / "reports"
    folder.mkdir()
    (wanted,) = reports.wanted([f"junit={folder / 'r.xml'}"], {})
    assert reports.unwritable([wanted]) == {}
    folder.rmdir()

    (found,) = reports.write([wanted], record(), 0)

    assert found.code == "unwritable-report"
    assert "what was delivered stays delivered" in str(found.hint)


def test_a_report_replaces_the_one_before_and_follows_a_link(cas: Callable[..., Run], message: Callable[..., Path]):
    message("hello.org")
    Path("real.json").write_text("old", encoding="utf-8")
    Path("r.json").symlink_to("real.json")

    cas("send", "local.docs", "hello.org", "--no-sign", "--report", "json=r.json")

    assert Path("r.json").is_symlink()
    assert checked_result(Path("real.json").read_text(encoding="utf-8"))["exit_code"] == 0


@pytest.mark.parametrize("asked", [[], ["--report", "markdown"]])
def test_a_step_has_its_summary_beside_what_is_there(
    cas: Callable[..., Run], message: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, asked: list[str]
):
    message("hello.org")
    Path("summary.md").write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(Path("summary.md").resolve()))

    cas("send", "local.docs", "hello.org", "--no-sign", *asked)

    text = Path("summary.md").read_text(encoding="utf-8")
    assert text.startswith("before\n### cas send: all is there\n")
    assert text.count("###") == 1


def test_a_summary_that_nobody_asked_for_stops_nothing(
    cas: Callable[..., Run], message: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    message("hello.org")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "/dev/null/none")

    run = cas("send", "local.docs", "hello.org", "--no-sign")

    assert run.code == 0
    assert "warning[unwritable-report]" in run.err


@pytest.mark.parametrize("asked", [["html=x"], ["junit"], ["json="], ["markdown"], ["json=a", "jsonl=./a"], [""]])
def test_a_report_that_makes_no_sense_is_wrong_usage(
    cas: Callable[..., Run], home: Home, message: Callable[..., Path], asked: list[str]
):
    message("hello.org")

    run = cas("send", "local.docs", "hello.org", "--no-sign", *(word for one in asked for word in ("--report", one)))

    assert run.code == 64
    assert run.err.startswith("error[wrong-report]: ")
    assert run.err.endswith("nothing was sent\n")
    assert not home.inbox("docs").exists()


def test_retry_has_reports_too(cas: Callable[..., Run], home: Home, message: Callable[..., Path]):
    message("hello.org")
    home.obstruct("docs")
    cas("send", "local.docs", "hello.org", "--no-sign")
    home.inbox("docs").unlink()

    run = cas("retry", "--all", *all_reports())

    _, text, result, lines = read_reports()
    assert run.code == 0, run.err
    assert (result["command"], result["counts"]["delivered"], len(lines) > 1) == ("retry", 1, True)
    assert text.startswith("### cas retry: all is there")

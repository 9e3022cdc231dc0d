"""Output: views of diagnostics, plans and events; the three forms; and what a terminal never gets to see."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pty
import re
import select
import shlex
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from fcntl import ioctl
from pathlib import Path

import pytest
from support import Forge, Home, Run

from cas.comparison import Change, Comparison
from cas.diagnostics import Diagnostic, Place, Severity
from cas.errors import ExitCode, UsageError
from cas.events import (
    Attempt,
    AttemptFailed,
    DeliveryFinished,
    DeliveryStarted,
    Event,
    FilePublished,
    Notice,
    Outcome,
    RunFinished,
    RunStarted,
)
from cas.inventory import Destination
from cas.manifest import Retry, Sign
from cas.output import diagnostics as diagnostic_view
from cas.output import plans as plan_view
from cas.output.console import Console, Form
from cas.output.record import Record
from cas.output.result import NAMES, ResultView, as_json, event_fields
from cas.output.status import entry_fields, entry_lines, grouped
from cas.output.terminal import progress
from cas.output.text import TextView, recap
from cas.output.visible import visible, visible_json
from cas.plan import Delivery, Input, Plan, PlannedMessage

NOW = datetime(2026, 11, 23, 1, 31, 33, tzinfo=UTC)
KEY = "5CA7F1CE5E8E605E770C0236B4B61A2737D6A700"
NAME = "20261123T013133Z-from-builder-greeting.org"
FAILED = Attempt(attempt=1, time=NOW, error="connection refused on forge:22", permanent=False, wait=5)
LAST = Attempt(attempt=4, time=NOW, error="connection refused on forge:22", permanent=False, wait=None)
# What acts on a terminal or reorders what stands around it: escapes, C1 controls, bidirectional marks, invisible tags.
HARMFUL = (
    "\x00", "\x07", "\x08", "\r", "\x1b", "\x7f", "\x85", "\x9b", "\u061c", "\u200b", "\u200e", "\u200f", "\u2028",
    "\u2029", "\u202a", "\u202e", "\u2060", "\u2066", "\u2069", "\ufeff", "\U000e0001", "\U000e007f",
)  # fmt: skip
MANIFEST = """\
cas: 1
name: Greeting
defaults: {sign: false, retry: {retries: 0}}
sends:
  - {id: hello, destination: local.docs, message: hello.org}
"""


def finished(
    outcome: Outcome = Outcome.DELIVERED,
    *,
    identifier: str = "hello@laptop.docs",
    destination: str = "laptop.docs",
    **changes: object,
) -> DeliveryFinished:
    return DeliveryFinished(
        **{
            "time": NOW,
            "id": identifier,
            "identity": "0" * 32,
            "destination": destination,
            "outcome": outcome,
            "source": "hello.org",
            "where": "agent@laptop:~/inbox",
            "files": (f"{NAME}.asc", NAME),
            **changes,
        }
    )


def failed_attempt(
    attempt: Attempt, *, identifier: str = "hello@forge.docs", destination: str = "forge.docs"
) -> AttemptFailed:
    return AttemptFailed(time=NOW, id=identifier, destination=destination, attempt=attempt, retries=3)


def shown(*happened: Event, events: bool = False, recap: bool = False) -> tuple[list[str], list[str], list[str]]:
    """What a view says: results, words, and what is never left out."""
    out: list[str] = []
    err: list[str] = []
    problems: list[str] = []
    view = TextView(out.append, err.append, problems.append, events=events, recap=recap)
    for event in happened:
        view.show(event)
    return out, err, problems


def delivery(
    identifier: str = "hello@laptop.docs",
    *,
    address: str = "laptop.docs",
    host: str | None = "laptop.tailnet.ts.net",
    port: int | None = None,
    user: str | None = None,
    sign: Sign | None = None,
) -> Delivery:
    return Delivery(
        id=identifier,
        identity="0" * 32,
        sender="builder",
        lane=f"{address}/greeting",
        message=PlannedMessage(
            source="hello.org", digest="sha256:00", bytes=196, conversation="greeting", type="request", sequence=1
        ),
        destination=Destination(
            address=address,
            host=host,
            port=port,
            user=user,
            inbox="~/inbox",
            transport="local" if host is None else "sftp",
            identity_file=None,
            host_key=None,
        ),
        files=(f"{NAME}.asc", NAME) if sign else (NAME,),
        sign=sign,
        retry=Retry(),
    )


def plan_of(*deliveries: Delivery, sender: str | None = "builder") -> Plan:
    return Plan(
        clock=NOW,
        expires=None,
        name="Release 1.4.0",
        sender=sender,
        tool_version="0.1.0",
        inputs=(),
        deliveries=deliveries,
    )


# Unsafe characters


@pytest.mark.parametrize("character", HARMFUL, ids=lambda text: f"U+{ord(text):04X}")
def test_what_acts_on_a_terminal_is_shown_as_an_escape(character: str):
    text = visible(f"a{character}b")

    assert character not in text
    assert text.startswith("a\\")


@pytest.mark.parametrize("character", HARMFUL, ids=lambda text: f"U+{ord(text):04X}")
def test_json_escapes_it_and_still_says_the_same(character: str):
    line = json.dumps({"reason": f"a{character}b"}, ensure_ascii=False)

    assert character not in visible_json(line)
    assert json.loads(visible_json(line)) == {"reason": f"a{character}b"}


@pytest.mark.parametrize("text", ["grüße", "日本", "שלום", "a\tb", "👩", "`x` — …"])
def test_other_text_is_shown_as_it_is(text: str):
    assert visible(text) == text
    assert visible_json(text) == text


def test_a_lone_surrogate_can_be_shown():
    assert visible("a\ud800b") == "a\\ud800b"
    assert visible_json('"a\ud800b"') == '"a\\ud800b"'


def test_a_line_break_in_a_text_does_not_make_a_second_line():
    assert visible("a\nerror[x]: b") == "a\\nerror[x]: b"


# The console


def console(form: Form = Form.TEXT, **options: bool) -> Console:
    return Console(out=io.StringIO(), err=io.StringIO(), form=form, **options)


def said(at: Console) -> tuple[str, str]:
    return at.out.getvalue(), at.err.getvalue()  # type: ignore[attr-defined]


def test_results_go_to_one_stream_and_words_to_the_other():
    at = console()

    at.result("sent: x")
    at.say("note: y")
    at.problem("failed: z")

    assert said(at) == ("sent: x\n", "note: y\nfailed: z\n")


def test_quiet_leaves_out_words_and_keeps_results_and_problems():
    at = console(quiet=True)

    at.result("sent: x")
    at.say("note: y")
    at.problem("failed: z")

    assert said(at) == ("sent: x\n", "failed: z\n")


@pytest.mark.parametrize("form", list(Form))
def test_no_form_lets_an_escape_sequence_through(form: Form):
    at = console(form)

    at.result('{"reason": "\x1b]0;owned\x07\u202e"}')
    at.problem("failed: \x1b[2J\u202e")

    assert not re.search("[\x1b\x07\u202e]", "".join(said(at)))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("error[no-key]: no key", "\x1b[31merror\x1b[0m[no-key]: no key"),
        ("m.yaml:1:2: warning[x]: y", "m.yaml:1:2: \x1b[33mwarning\x1b[0m[x]: y"),
        ("failed: a: b", "\x1b[31mfailed\x1b[0m: a: b"),
        ("note: a", "\x1b[36mnote\x1b[0m: a"),
        ("nothing of it was sent", "nothing of it was sent"),
    ],
)
def test_color_marks_the_word_that_names_severity_or_outcome(line: str, expected: str):
    at = console(color=True)

    at.problem(line)

    assert said(at)[1] == f"{expected}\n"


def test_results_are_never_colored():
    at = console(color=True)

    at.result("failed: a")

    assert said(at)[0] == "failed: a\n"


def test_a_stream_that_was_closed_ends_nothing():
    read, write = os.pipe()
    os.close(read)
    closed = io.StringIO()
    closed.close()
    with open(write, "w", closefd=True, buffering=1, encoding="utf-8") as out:
        at = Console(out=out, err=closed)

        at.result("sent: x")
        at.problem("failed: y")
        os.dup2(os.open(os.devnull, os.O_WRONLY), write)


# Diagnostics


def test_diagnostics_as_json_have_the_fields_of_the_format_with_and_without_a_place():
    place = Place(file="m.yaml", line=1, column=2)
    found = Diagnostic(code="x", message="y", place=place, hint="z", related=((place, "w"),))

    assert diagnostic_view.document([found, Diagnostic(code="x", message="y")]) == {
        "format": "cas.diagnostics/1",
        "diagnostics": [
            {
                "code": "x",
                "severity": "error",
                "message": "y",
                "hint": "z",
                "file": "m.yaml",
                "line": 1,
                "column": 2,
                "related": [{"file": "m.yaml", "line": 1, "column": 2, "message": "w"}],
            },
            {
                "code": "x",
                "severity": "error",
                "message": "y",
                "hint": None,
                "file": None,
                "line": None,
                "column": None,
                "related": [],
            },
        ],
    }


def test_an_error_of_the_world_becomes_a_diagnostic_with_its_code_and_hint():
    found = diagnostic_view.from_error(UsageError("no schema `x`", code="unknown-schema", hint="there are: manifest"))

    assert (found.code, found.message, found.hint) == ("unknown-schema", "no schema `x`", "there are: manifest")
    assert found.exit_code is ExitCode.USAGE


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        ("ab", "more: cas explain a b\n"),
        ("aba", "more: cas explain a b\n"),
        ("abcdefg", "more: cas explain a b c d e\n"),
        ("", ""),
    ],
)
def test_on_a_terminal_it_is_said_once_at_the_end_where_more_is_told(codes: str, said: str):
    err = Screen()
    at = Console(out=io.StringIO(), err=err)
    at.report(Diagnostic(code=code, message="y") for code in codes)
    err.truncate(err.seek(0))

    at.end()
    at.end()

    assert err.getvalue() == said


@pytest.mark.parametrize(
    ("out", "err", "form", "shown_to"),
    [
        ("screen", "screen", Form.TEXT, "err"),
        ("screen", "file", Form.TEXT, "out"),
        ("screen", "file", Form.JSON, None),
        ("file", "screen", Form.JSON, "err"),
        ("file", "file", Form.TEXT, None),
    ],
)
def test_a_question_goes_to_a_screen_and_never_into_json(out: str, err: str, form: Form, shown_to: str | None):
    streams = {name: Screen() if kind == "screen" else io.StringIO() for name, kind in (("out", out), ("err", err))}
    at = Console(**streams, form=form)

    assert at.asks("really? \x1b[2J") == (shown_to is not None)
    assert {name for name, stream in streams.items() if stream.getvalue() == "really? \\x1b[2J"} == {shown_to} - {None}


def test_a_question_that_no_screen_takes_is_not_asked():
    class Gone(Screen):
        def write(self, text: str) -> int:
            raise OSError("gone")

    assert not Console(out=io.StringIO(), err=Gone()).asks("really?")


def test_in_a_workflow_or_when_quiet_it_is_not_said_where_more_is_told():
    for options in ({"workflow": True}, {"quiet": True}):
        err = Screen()
        at = Console(out=io.StringIO(), err=err, **options)

        at.report([Diagnostic(code="x", message="y")])
        at.end()

        assert err.getvalue() == "error[x]: y\n"


def test_quiet_leaves_out_warnings_but_not_where_they_are_the_result():
    out, err = io.StringIO(), io.StringIO()
    at = Console(out=out, err=err, quiet=True)
    warning = Diagnostic(code="x", message="y", severity=Severity.WARNING)

    at.report([warning])
    at.report([warning], as_result=True)

    assert (out.getvalue(), err.getvalue()) == ("warning[x]: y\n", "")


# A plan


def test_a_plan_is_a_heading_then_each_delivery():
    assert list(plan_view.lines(plan_of(delivery(sign=Sign(key=KEY))))) == [
        "Release 1.4.0: 1 delivery from builder, planned at 2026-11-23T01:31:33Z",
        "",
        "hello@laptop.docs",
        "  message    hello.org: request 1 of greeting",
        "             196 bytes, sha256:00",
        "  to         laptop.tailnet.ts.net:~/inbox (sftp)",
        f"  as         {NAME}",
        f"  signed     by {KEY}",
    ]


def test_a_plan_says_what_is_left_out_and_why_and_what_a_delivery_waits_for():
    left_out = dataclasses.replace(delivery(), action="skip", reason="when: false is false")
    waiting = dataclasses.replace(delivery(), after=("ask-review", "stage"))

    lines = list(plan_view.lines(plan_of(left_out, waiting)))

    assert "  skipped    when: false is false" in lines
    assert "  after      ask-review, stage" in lines


def test_a_plan_of_several_senders_names_none_and_an_unsigned_delivery_says_so():
    lines = list(plan_view.lines(plan_of(delivery(), delivery(), sender=None)))

    assert lines[0] == "Release 1.4.0: 2 deliveries, planned at 2026-11-23T01:31:33Z"
    assert lines[-1] == "  signed     no"


@pytest.mark.parametrize(
    ("host", "user", "port", "expected"),
    [
        (None, None, None, "~/inbox (this machine)"),
        ("laptop", None, None, "laptop:~/inbox (sftp)"),
        ("laptop", "agent", 2222, "agent@laptop:~/inbox (sftp port 2222)"),
    ],
)
def test_a_plan_names_an_inbox_by_what_was_said_of_it(
    host: str | None, user: str | None, port: int | None, expected: str
):
    assert plan_view.place(delivery(host=host, user=user, port=port).destination) == expected


# A run in words


def test_a_delivery_is_said_as_sent_with_where_it_is():
    assert shown(finished()) == ([f"sent: agent@laptop:~/inbox/{NAME}"], [], [])


def test_a_delivery_of_before_is_said_as_unchanged():
    assert shown(finished(Outcome.UNCHANGED)) == ([f"unchanged: agent@laptop:~/inbox/{NAME}"], [], [])


def test_a_delivery_that_the_other_side_cannot_sync_is_noted():
    _, err, _ = shown(finished(durable=False))

    assert err == ["note: hello@laptop.docs: the other side cannot sync to disk; a power cut there may lose it"]


def test_a_failure_says_why_what_there_is_of_it_what_to_do_and_where_its_marker_is():
    _, _, problems = shown(finished(Outcome.FAILED, reason="no space", hint="free some", marker="/m.json"))

    assert problems == [
        "failed: hello@laptop.docs: no space",
        "  nothing of it was sent",
        "  hint: free some",
        "  marker: /m.json",
    ]


def test_a_blocked_delivery_names_what_it_waited_for():
    _, _, problems = shown(
        finished(Outcome.BLOCKED, reason="`a@laptop.docs`, which comes before it, did not get there")
    )

    assert problems[0].startswith("blocked: hello@laptop.docs: `a@laptop.docs`, which comes before it")


def test_a_failure_after_its_signature_was_published_says_that_the_signature_is_alone():
    published = FilePublished(time=NOW, id="hello@laptop.docs", identity="0" * 32, file=f"{NAME}.asc")
    _, _, problems = shown(published, finished(Outcome.FAILED, reason="gone"))

    assert "its signature is there, its message is not" in problems[1]


def test_an_outcome_that_is_not_known_says_so():
    _, _, problems = shown(finished(Outcome.UNKNOWN, reason="gone"))

    assert "whether it arrived is not known" in problems[1]


def test_what_is_to_be_done_about_halt_is_said_once_for_all_that_it_stopped():
    halted = [
        finished(Outcome.HALTED, identifier=name, reason="HALT is set", hint="when it may go on: rm /HALT")
        for name in ("a@laptop.docs", "b@laptop.docs")
    ]
    _, _, problems = shown(*halted)

    assert problems == [
        "halted: a@laptop.docs: HALT is set; nothing of it was sent",
        "  hint: when it may go on: rm /HALT",
        "halted: b@laptop.docs: HALT is set; nothing of it was sent",
    ]


def test_a_halted_delivery_without_a_hint_is_one_line():
    _, _, problems = shown(finished(Outcome.HALTED, reason="interrupted by SIGINT"))

    assert problems == ["halted: hello@laptop.docs: interrupted by SIGINT; nothing of it was sent"]


def test_a_retry_is_announced_with_the_error_and_how_long_it_waits():
    _, err, _ = shown(failed_attempt(FAILED))

    assert err == ["forge.docs: connection refused on forge:22; trying again in 5 s (retry 1 of 3)"]


def test_a_host_that_is_tried_again_is_announced_once_however_many_deliveries_wait():
    _, err, _ = shown(failed_attempt(FAILED), failed_attempt(FAILED, identifier="b", destination="forge.site"))

    assert len(err) == 1


def test_an_attempt_that_was_the_last_announces_no_retry():
    assert shown(failed_attempt(LAST)) == ([], [], [])


def test_a_notice_is_a_note():
    _, err, _ = shown(Notice(time=NOW, id="hello@laptop.docs", message="there was no inbox"))

    assert err == ["note: hello@laptop.docs: there was no inbox"]


def test_each_event_is_a_line_with_its_time_where_events_are_wanted():
    _, err, _ = shown(*a_run(), events=True)

    assert err == [
        "2026-11-23T01:31:33Z started: 1 to deliver",
        "2026-11-23T01:31:33Z hello@laptop.docs: started",
        f"2026-11-23T01:31:33Z hello@laptop.docs: published {NAME}.asc",
        f"2026-11-23T01:31:33Z hello@laptop.docs: published {NAME}",
        "2026-11-23T01:31:33Z finished with exit code 0",
    ]


def test_events_are_not_said_where_they_are_not_wanted():
    assert shown(*a_run()) == ([f"sent: agent@laptop:~/inbox/{NAME}"], [], [])


def test_a_recap_ends_the_run_with_a_line_for_each_destination():
    out, _, _ = shown(*a_run(), recap=True)

    assert out[-1] == "laptop.docs  1 delivered"


def test_a_recap_counts_outcomes_by_destination_in_columns():
    events = [
        finished(Outcome.FAILED, destination="laptop.docs"),
        finished(Outcome.DELIVERED, destination="a.b"),
        finished(Outcome.DELIVERED, destination="laptop.docs"),
        finished(Outcome.FAILED, destination="laptop.docs"),
    ]

    assert list(recap(events)) == ["a.b          1 delivered", "laptop.docs  1 delivered, 2 failed"]


def test_a_recap_has_a_line_for_each_worker_too():
    events = [
        finished(worker="tcp://127.0.0.1:40001"),
        finished(destination="a.b", worker="tcp://127.0.0.1:40001"),
        finished(Outcome.FAILED, destination="a.b", worker="tcp://10.0.0.7:1"),
        finished(destination="local.docs"),
    ]

    assert list(recap(events)) == [
        "a.b          1 delivered, 1 failed",
        "laptop.docs  1 delivered",
        "local.docs   1 delivered",
        "by tcp://10.0.0.7:1       1 failed",
        "by tcp://127.0.0.1:40001  2 delivered",
    ]


def test_a_recap_of_nothing_is_nothing():
    assert list(recap([])) == []


def a_run() -> tuple[Event, ...]:
    return (
        RunStarted(time=NOW, plan="sha256:00", deliveries=1),
        DeliveryStarted(time=NOW, id="hello@laptop.docs", identity="0" * 32, destination="laptop.docs"),
        FilePublished(time=NOW, id="hello@laptop.docs", identity="0" * 32, file=f"{NAME}.asc"),
        FilePublished(time=NOW, id="hello@laptop.docs", identity="0" * 32, file=NAME),
        finished(durable=True),
        RunFinished(time=NOW, exit_code=ExitCode.OK, halted=None),
    )


# A run as JSON


def test_a_result_has_the_fields_of_the_format():
    lines: list[str] = []
    view = ResultView("apply", lines.append, every_event=False)
    for event in (RunStarted(time=NOW, plan="sha256:00", deliveries=1), finished(Outcome.FAILED, attempts=(FAILED,))):
        view.show(event)

    view.end(3, None, [Diagnostic(code="x", message="y", severity=Severity.WARNING)])

    result = json.loads(lines[0])
    assert len(lines) == 1
    assert (result["format"], result["command"], result["plan"]) == ("cas.result/1", "apply", "sha256:00")
    assert (result["exit_code"], result["halted"]) == (3, None)
    assert result["counts"] == {
        "delivered": 0,
        "unchanged": 0,
        "skipped": 0,
        "blocked": 0,
        "failed": 1,
        "halted": 0,
        "unknown": 0,
    }
    assert set(result["deliveries"][0]) >= {
        "id", "identity", "destination", "outcome", "durable", "files", "reason", "evidence", "marker", "attempts",
    }  # fmt: skip
    assert result["deliveries"][0]["attempts"] == [
        {
            "attempt": 1,
            "time": "2026-11-23T01:31:33Z",
            "error": "connection refused on forge:22",
            "permanent": False,
            "wait": 5,
        }
    ]
    assert result["diagnostics"][0]["severity"] == "warning"


def test_jsonl_is_a_line_an_event_and_the_result_last():
    lines: list[str] = []
    view = ResultView("send", lines.append, every_event=True)
    for event in a_run():
        view.show(event)
    view.end(0, None)

    bodies = [json.loads(line) for line in lines]
    assert [body["event"] for body in bodies[:-1]] == [
        "run-started",
        "delivery-started",
        "file-published",
        "file-published",
        "delivery-finished",
        "run-finished",
    ]
    assert all(body["time"] == "2026-11-23T01:31:33Z" for body in bodies[:-1])
    assert bodies[-1]["format"] == "cas.result/1"


@pytest.mark.parametrize(
    "event",
    [*a_run(), failed_attempt(FAILED), Notice(time=NOW, id="a", message="b")],
    ids=lambda event: type(event).__name__,
)
def test_every_kind_of_event_can_be_written_as_json(event: Event):
    body = json.loads(as_json(event_fields(event)))

    assert body["event"] == NAMES[type(event)]


def test_values_of_events_are_plain_in_json():
    body = event_fields(failed_attempt(FAILED))
    ended = event_fields(RunFinished(time=NOW, exit_code=ExitCode.DELIVERY, halted=None))

    assert body["attempt"] == {
        "attempt": 1,
        "time": "2026-11-23T01:31:33Z",
        "error": "connection refused on forge:22",
        "permanent": False,
        "wait": 5,
    }
    assert ended["exit_code"] == 3


def test_json_has_sorted_keys_and_keeps_letters_as_they_are():
    assert as_json({"b": 1, "a": "ü"}) == '{"a": "ü", "b": 1}'


# The progress of a run on a terminal


def test_progress_shows_each_host_how_far_it_is_and_that_it_waits():
    stream = _Terminal()
    plan = plan_of(delivery("a@laptop.docs"), delivery("b@laptop.site"), delivery("c@forge.docs", address="forge.docs"))

    with progress(plan.deliveries, stream, color=False, clock=time.monotonic) as (show, say):
        show(DeliveryStarted(time=NOW, id="a@laptop.docs", identity="0" * 32, destination="laptop.docs"))
        show(finished(identifier="a@laptop.docs"))
        show(failed_attempt(FAILED))
        show(failed_attempt(LAST))
        say("note: [bold]x[/bold] :smile:")

    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert re.search(r"laptop.*1/2", text)
    assert re.search(r"forge.*0/1.*retry in 5 s", text)
    assert "note: [bold]x[/bold] :smile:\n" in text


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


# The forms, on every verb


@pytest.fixture
def manifest(home: Home, message: Callable[..., Path]) -> Path:
    """A manifest of one unsigned send to this machine."""
    message("hello.org")
    path = Path("greeting.yaml")
    path.write_text(MANIFEST, encoding="utf-8")
    return path


VERBS = {
    "send": ("send", "local.docs", "hello.org", "--no-sign"),
    "validate": ("validate", "greeting.yaml"),
    "plan": ("plan", "greeting.yaml"),
    "apply": ("apply", "greeting.yaml"),
    "schema": ("schema", "manifest"),
}
FORMATS = {
    "send": "cas.result/1",
    "apply": "cas.result/1",
    "validate": "cas.diagnostics/1",
    "plan": "cas.plan/1",
}


@pytest.mark.parametrize("verb", VERBS)
def test_with_json_standard_output_is_one_document(cas: Callable[..., Run], manifest: Path, verb: str):
    run = cas(*VERBS[verb], "--output", "json")

    assert run.code == 0
    assert json.loads(run.out).get("format") == FORMATS.get(verb)
    assert run.out.count("\n") == 1


@pytest.mark.parametrize("verb", VERBS)
def test_with_jsonl_standard_output_is_a_document_a_line(cas: Callable[..., Run], manifest: Path, verb: str):
    run = cas(*VERBS[verb], "--output", "jsonl")

    lines = [json.loads(line) for line in run.out.splitlines()]
    assert run.code == 0
    assert lines[-1].get("format") == FORMATS.get(verb)
    assert all("event" in line for line in lines[:-1])


@pytest.mark.parametrize("verb", VERBS)
def test_text_is_the_default_and_nothing_but_the_schema_is_json(cas: Callable[..., Run], manifest: Path, verb: str):
    run = cas(*VERBS[verb])

    assert run.code == 0
    assert run.out.startswith("{") is (verb == "schema")


@pytest.mark.parametrize("form", ["json", "jsonl"])
@pytest.mark.parametrize("verb", ["send", "validate", "plan", "apply"])
def test_what_is_refused_is_a_document_too_in_json(cas: Callable[..., Run], manifest: Path, verb: str, form: str):
    Path("hello.org").write_text("no frontmatter\n", encoding="utf-8")

    run = cas(*VERBS[verb], "--output", form)

    body = json.loads(run.out)
    assert run.code == 4
    assert body["format"] == ("cas.result/1" if verb in ("send", "apply") else "cas.diagnostics/1")
    assert [found["code"] for found in body["diagnostics"]] == ["no-frontmatter"]
    assert body.get("exit_code", 4) == 4


def test_an_unknown_schema_in_json_is_a_document_of_diagnostics(cas: Callable[..., Run]):
    run = cas("schema", "nothing", "--output", "json")

    assert run.code == 64
    assert json.loads(run.out)["diagnostics"][0]["code"] == "unknown-schema"


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_halt_in_json_is_a_result_that_names_it(cas: Callable[..., Run], home: Home, manifest: Path, form: str):
    home.halt("maintenance")

    run = cas("apply", "greeting.yaml", "--output", form)

    body = json.loads(run.out)
    assert (run.code, body["exit_code"]) == (5, 5)
    assert "maintenance" in body["halted"]


def test_findings_are_the_result_of_validate_and_words_for_the_other_verbs(cas: Callable[..., Run], manifest: Path):
    Path("hello.org").write_text("no frontmatter\n", encoding="utf-8")

    validated, planned = cas("validate", manifest), cas("plan", manifest)

    assert "error[no-frontmatter]" in validated.out
    assert validated.err == ""
    assert planned.out == ""
    assert "error[no-frontmatter]" in planned.err


def test_send_prints_one_line_and_says_nothing_else_when_the_inbox_is_there(
    cas: Callable[..., Run], home: Home, manifest: Path
):
    home.inbox("docs").mkdir(parents=True)

    run = cas(*VERBS["send"])

    assert re.fullmatch(
        rf"sent: {re.escape(str(home.inbox('docs')))}/\d{{8}}T\d{{6}}Z-from-builder-greeting\.org\n", run.out
    )
    assert run.err == ""


def test_apply_ends_with_a_recap_on_standard_output(cas: Callable[..., Run], manifest: Path):
    run = cas("apply", manifest)

    assert run.out.splitlines()[-1] == "local.docs  1 delivered"


def test_apply_says_a_line_an_event_where_there_is_no_terminal(cas: Callable[..., Run], manifest: Path):
    run = cas("apply", manifest)

    assert re.search(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ hello@local\.docs: started$", run.err, re.MULTILINE)
    assert "published" in run.err


def test_quiet_leaves_the_result_alone(cas: Callable[..., Run], manifest: Path):
    run = cas("apply", manifest, "--quiet")

    assert run.out.startswith("sent: ")
    assert run.err == ""


def test_quiet_keeps_what_is_wrong(cas: Callable[..., Run], manifest: Path):
    Path("hello.org").unlink()

    run = cas("apply", manifest, "--quiet")

    assert "error[unreadable]" in run.err


def test_verbose_says_every_event_of_a_send(cas: Callable[..., Run], manifest: Path):
    run = cas(*VERBS["send"], "--verbose")

    assert "started" in run.err
    assert "finished with exit code 0" in run.err


def test_words_stay_on_standard_error_with_json_and_verbose(cas: Callable[..., Run], manifest: Path):
    run = cas("apply", manifest, "--output", "json", "--verbose")

    assert "published" in run.err
    assert json.loads(run.out)["counts"]["delivered"] == 1


def test_a_run_of_thousands_says_no_line_an_event(cas: Callable[..., Run], home: Home, message: Callable[..., Path]):
    message("hello.org")
    destinations = ", ".join(f"local.project-{number}" for number in range(1001))
    Path("release.yaml").write_text(MANIFEST.replace("local.docs", f"[{destinations}]"), encoding="utf-8")

    run = cas("apply", "release.yaml")

    assert run.code == 0
    assert run.out.count("sent: ") == 1001
    assert "published" not in run.err
    assert re.findall(r"(\d+) of 1001 done", run.err)[-1] == "1001"


# What somebody else wrote, and a terminal shows


@pytest.mark.parametrize("form", ["text", "json", "jsonl"])
def test_a_file_name_that_would_act_on_a_terminal_is_escaped(cas: Callable[..., Run], home: Home, form: str):
    name = "x\x1b]0;owned\x07\u202e.yaml"
    Path(name).write_text("cas: 1\nretires: 3\n", encoding="utf-8")

    for verb in ("validate", "plan", "apply"):
        run = cas(verb, name, "--output", form)
        assert run.code == 1
        assert not re.search("[\x1b\x07\u202e]", run.out + run.err)


@pytest.mark.parametrize("form", ["text", "json", "jsonl"])
def test_a_frontmatter_value_that_would_act_on_a_terminal_is_escaped(
    cas: Callable[..., Run], message: Callable[..., Path], form: str
):
    message("hello.org", message_type="\x1b[2Jrequest\u202e", conversation_id="\x9b31m")

    run = cas("send", "local.docs", "hello.org", "--no-sign", "--output", form)

    assert run.code == 4
    assert not re.search("[\x1b\x9b\u202e]", run.out + run.err)


@pytest.mark.parametrize("form", ["text", "json", "jsonl"])
def test_a_reason_for_halt_that_would_act_on_a_terminal_is_escaped(
    cas: Callable[..., Run], home: Home, manifest: Path, form: str
):
    home.halt("\x1b]0;owned\x07\nsent: \u202e")

    for verb in VERBS.values():
        run = cas(*verb, "--output", form)
        assert not re.search("[\x1b\x07\u202e]", run.out + run.err)
        assert not re.search(r"^sent: ", run.out + run.err, re.MULTILINE)


@pytest.mark.parametrize("argument", ["loc\x1b[2Jal.docs", "local.\u202edocs"])
def test_a_destination_that_would_act_on_a_terminal_is_escaped(cas: Callable[..., Run], manifest: Path, argument: str):
    run = cas("send", argument, "hello.org", "--no-sign")

    assert run.code == 2
    assert not re.search("[\x1b\u202e]", run.out + run.err)


@pytest.mark.parametrize(
    "argv", [("send", "local.docs", "hello.org", "--retries", "\x1b[2J"), ("\x1b[2J",), ("send", "--\x1b[2J")]
)
def test_an_argument_that_would_act_on_a_terminal_is_escaped_in_the_usage_error(
    cas: Callable[..., Run], manifest: Path, argv: tuple[str, ...]
):
    run = cas(*argv)

    assert run.code == 64
    assert "\x1b" not in run.out + run.err


def test_a_manifest_name_that_would_act_on_a_terminal_is_escaped_in_the_plan(cas: Callable[..., Run], manifest: Path):
    manifest.write_text(MANIFEST.replace("Greeting", '"a\u202eb"'), encoding="utf-8")

    run = cas("plan", manifest)

    assert "\u202e" not in run.out + run.err


# A real terminal


@contextmanager
def terminal(columns: int = 80) -> Iterator[tuple[int, int]]:
    """A pseudo-terminal of that width: our side, and the side of the process."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    try:
        yield ours, theirs
    finally:
        os.close(ours)


def on_terminal(
    start: Callable[..., subprocess.Popen[str]], *argv: str | Path, columns: int = 80, **environment: str
) -> tuple[int, str, str]:
    """Run with standard error on a terminal: exit code, standard output, and what the terminal got."""
    with terminal(columns) as (ours, theirs):
        environ = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        environ = {**environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent), "TERM": "xterm"}
        process = start(*argv, stderr=theirs, env={**environ, **environment})
        os.close(theirs)
        seen = _read_all(ours)
        out, _ = process.communicate(timeout=60)
    return process.returncode, out, seen


def _read_all(handle: int) -> str:
    seen = b""
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        if select.select([handle], [], [], 1)[0]:
            try:
                chunk = os.read(handle, 65536)
            except OSError:  # the other side is closed: the process has ended
                break
            if not chunk:
                break
            seen += chunk
    return seen.decode("utf-8", "replace")


def test_on_a_terminal_apply_shows_progress_for_each_host_and_keeps_the_result_apart(
    cas_process: Callable[..., subprocess.Popen[str]], manifest: Path
):
    code, out, seen = on_terminal(cas_process, "apply", manifest)

    assert code == 0
    assert "\x1b" not in out
    assert re.search(r"local\b.*[01]/1", seen)
    assert out.splitlines()[-1] == "local.docs  1 delivered"


def test_on_a_terminal_a_finding_shows_its_line_and_at_the_end_where_more_is_told(
    cas_process: Callable[..., subprocess.Popen[str]], manifest: Path
):
    manifest.write_text(MANIFEST.replace("local.docs", "docs"), encoding="utf-8")

    code, out, seen = on_terminal(cas_process, "apply", manifest, columns=40, NO_COLOR="1")

    assert (code, out) == (2, "")
    assert seen.splitlines() == [
        f"{manifest}:5:30: error[malformed-destination]: `docs` is not of the form <machine>.<project>",
        " 5 | …o, destination: docs, message: he…",
        "   |                  ^",
        "  hint: on this machine: `local.docs`",
        "nothing was sent",
        "more: cas explain malformed-destination",
    ]


def test_quiet_leaves_out_where_more_is_told(cas_process: Callable[..., subprocess.Popen[str]], home: Home):
    _, _, seen = on_terminal(cas_process, "plan", "no.yaml", "--quiet", NO_COLOR="1")

    assert seen.splitlines() == ["no.yaml: error[unreadable]: `no.yaml` does not exist"]


def test_the_result_of_validate_shows_its_lines_where_that_goes_to_a_terminal(
    cas_process: Callable[..., subprocess.Popen[str]], home: Home
):
    Path("release.yaml").write_bytes("\ufeffcas: 1 # 名\r\n\tx: 1\r\n".encode())

    with terminal(80) as (ours, theirs):
        process = cas_process("validate", "release.yaml", stdout=theirs)
        os.close(theirs)
        seen = _read_all(ours)
        _, words = process.communicate(timeout=60)

    assert seen.splitlines()[1:3] == [" 2 |     x: 1", "   | ^"]
    assert words == "more: cas explain tab\n"


def test_a_line_that_nobody_can_read_again_has_no_caret(cas_process: Callable[..., subprocess.Popen[str]], home: Home):
    _, _, seen = on_terminal(cas_process, "send", "local.docs", "-", "--no-sign", NO_COLOR="1")

    assert seen.splitlines()[0].startswith("<stdin>: error[no-frontmatter]")
    assert " | " not in seen


def test_on_a_terminal_apply_says_no_line_an_event(cas_process: Callable[..., subprocess.Popen[str]], manifest: Path):
    _, _, seen = on_terminal(cas_process, "apply", manifest)

    assert "published" not in seen


def test_a_terminal_of_40_columns_gets_no_line_that_is_wider(
    cas_process: Callable[..., subprocess.Popen[str]], home: Home, manifest: Path
):
    home.inbox("docs").mkdir(parents=True)

    code, _, seen = on_terminal(cas_process, "apply", manifest, columns=40)

    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)
    assert code == 0
    assert [line for line in re.split(r"[\r\n]+", drawn) if len(line) > 40] == []


def test_words_said_during_progress_stand_on_lines_of_their_own(
    cas_process: Callable[..., subprocess.Popen[str]], home: Home, manifest: Path
):
    _, _, seen = on_terminal(cas_process, "apply", manifest, columns=200)

    (line,) = (line for line in re.split(r"[\r\n]+", seen) if "there was no inbox" in line)
    assert "0/1" not in line


def test_on_a_terminal_errors_are_colored(cas_process: Callable[..., subprocess.Popen[str]], home: Home):
    _, _, seen = on_terminal(cas_process, "apply", "missing.yaml")

    assert "\x1b[31merror\x1b[0m" in seen


@pytest.mark.parametrize("verb", [("apply", "missing.yaml"), ("apply", "greeting.yaml")])
def test_with_no_color_a_terminal_gets_no_colors(
    cas_process: Callable[..., subprocess.Popen[str]], manifest: Path, verb: tuple[str, ...]
):
    _, _, seen = on_terminal(cas_process, *verb, NO_COLOR="1")

    assert not re.search(r"\x1b\[[0-9;]*m", seen.replace("\x1b[0m", ""))


def test_color_never_is_as_good_as_no_color(cas_process: Callable[..., subprocess.Popen[str]], home: Home):
    _, _, seen = on_terminal(cas_process, "apply", "missing.yaml", "--color", "never")

    assert "\x1b" not in seen


def test_color_always_colors_what_is_no_terminal(cas: Callable[..., Run], home: Home):
    run = cas("apply", "missing.yaml", "--color", "always")

    assert "\x1b[31merror\x1b[0m" in run.err


def test_without_a_terminal_nothing_is_colored(cas: Callable[..., Run], home: Home):
    run = cas("apply", "missing.yaml")

    assert "\x1b" not in run.err


def test_on_a_terminal_a_wait_for_a_host_is_shown(
    cas_process: Callable[..., subprocess.Popen[str]], home: Home, manifest: Path
):
    home.peers('[peers.forge]\nhost = "127.0.0.1"\nport = 1\n')
    manifest.write_text(
        MANIFEST.replace("local.docs", "forge.docs").replace("retries: 0", "retries: 1, backoff: [2]"), encoding="utf-8"
    )

    code, _, seen = on_terminal(cas_process, "apply", manifest, columns=120)

    assert code == 3
    assert "retry in 2 s" in seen
    assert "trying again in 2 s (retry 1 of 1)" in seen


@pytest.mark.parametrize("columns", [40, 80])
def test_a_long_run_leaves_its_lines_and_nothing_of_its_progress_on_the_terminal(
    cas_process: Callable[..., subprocess.Popen[str]], home: Home, message: Callable[..., Path], columns: int
):
    message("hello.org")
    names = [f"project-{number}" for number in range(60)]
    for name in names:
        home.inbox(name).mkdir(parents=True)
    destinations = ", ".join(f"local.{name}" for name in names)
    Path("release.yaml").write_text(MANIFEST.replace("local.docs", f"[{destinations}]"), encoding="utf-8")

    code, out, seen = on_terminal(cas_process, "apply", "release.yaml", columns=columns)

    assert code == 0
    assert out.count("sent: ") == len(names)
    assert "/60" in seen
    assert screen(seen, columns) == []


@pytest.mark.parametrize("columns", [40, 80])
def test_what_is_said_above_the_progress_stays_and_is_not_cut(
    cas_process: Callable[..., subprocess.Popen[str]], home: Home, manifest: Path, columns: int
):
    home.peers('[peers.forge]\nhost = "127.0.0.1"\nport = 1\n')
    manifest.write_text(
        MANIFEST.replace("local.docs", "forge.docs").replace("retries: 0", "retries: 1, backoff: [1]"), encoding="utf-8"
    )

    code, _, seen = on_terminal(cas_process, "apply", manifest, columns=columns)

    shown = "".join(line.ljust(columns) for line in screen(seen, columns))
    assert code == 3
    assert shown.count("trying again in 1 s (retry 1 of 1)") == 1
    assert shown.count("failed: hello@forge.docs") == 1
    assert "0/1" not in shown


def test_a_dumb_terminal_gets_lines(cas_process: Callable[..., subprocess.Popen[str]], manifest: Path):
    code, _, seen = on_terminal(cas_process, "apply", manifest, TERM="dumb")

    assert code == 0
    assert "\x1b" not in seen
    assert "hello@local.docs: published" in seen


def screen(seen: str, columns: int) -> list[str]:
    """What a terminal that was sent this holds in the end, scrollback too. It knows the moves that a display makes."""
    lines, row, column = [""], 0, 0
    for count, move, text in re.findall(r"\x1b\[\??([0-9;]*)([A-Za-z])|([^\x1b])", seen):
        if text == "\r":
            column = 0
        elif text == "\n":
            row += 1
        elif text:
            if column == columns:
                row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
            lines[row] = lines[row][:column].ljust(column) + text + lines[row][column + 1 :]
            column += 1
        elif move == "A":
            row -= int(count or 1)
        elif move == "K" and row < len(lines):
            lines[row] = "" if count == "2" else lines[row][:column]
        else:
            assert move in "hlmK", (count, move)
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


# A reader that goes away


@pytest.mark.parametrize("form", ["text", "json", "jsonl"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_closed_standard_output_changes_no_exit_code_and_stops_no_delivery(
    cas_process: Callable[..., subprocess.Popen[str]],
    home: Home,
    manifest: Path,
    pairs: Callable[[Path], tuple[str, ...]],
    verb: str,
    form: str,
):
    read, write = os.pipe()
    os.close(read)
    process = cas_process(*VERBS[verb], "--output", form, stdout=write)
    os.close(write)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 0
    assert "Traceback" not in err
    assert "BrokenPipe" not in err
    assert len(pairs(home.inbox("docs"))) == (1 if verb in ("send", "apply") else 0)


def test_a_closed_standard_error_keeps_the_code_of_a_failure(
    cas_process: Callable[..., subprocess.Popen[str]], home: Home
):
    read, write = os.pipe()
    os.close(read)
    process = cas_process("apply", "missing.yaml", stderr=write)
    os.close(write)
    process.communicate(timeout=60)

    assert process.returncode == 1


def test_streams_that_are_not_there_at_all_change_no_exit_code(home: Home, manifest: Path):
    root = Path(__file__).resolve().parent.parent
    words = shlex.join([sys.executable, "-m", "cas", *VERBS["send"]])
    process = subprocess.run(
        ["sh", "-c", f"exec {words} <&- >&- 2>&-"], env={**os.environ, "PYTHONPATH": str(root)}, timeout=60, check=False
    )

    assert process.returncode == 0


def test_a_recap_of_mixed_outcomes_has_a_line_for_each_destination(
    cas: Callable[..., Run], home: Home, peer: Forge, manifest: Path
):
    home.peers(peer.toml(port=1))
    manifest.write_text(
        MANIFEST.replace("destination: local.docs", "destination: [local.docs, forge.site]"), encoding="utf-8"
    )

    run = cas("apply", manifest)

    assert run.code == 3
    assert run.out.splitlines()[-2:] == ["forge.site  1 failed", "local.docs  1 delivered"]


# The ledger's entries


@dataclass(frozen=True, kw_only=True)
class Row:
    """An entry of the ledger, as far as it is shown."""

    identity: str = "0" * 32
    id: str = "hello@laptop.docs"
    run: str = "r"
    sender: str = "builder"
    destination: str = "laptop.docs"
    conversation: str = "greeting"
    sequence: int = 1
    digest: str = "sha256:00"
    name: str = NAME
    state: str = "failed"
    reason: str | None = "connection refused"
    attempts: str = "[]"
    updated: str = "2026-11-23T01:31:33Z"


def test_entries_are_counted_by_what_was_asked_for_and_by_state():
    rows = [Row(), Row(state="delivered"), Row(destination="a.b", state="delivered"), Row()]

    assert list(grouped(rows, "destination")) == ["laptop.docs  1 delivered, 2 failed", "a.b          1 delivered"]
    assert list(grouped(rows, "conversation")) == ["greeting  2 delivered, 2 failed"]
    assert list(grouped([], "run")) == []


def test_an_open_entry_says_what_it_is_and_why_it_stands_there():
    assert list(entry_lines(Row())) == [
        f"failed: hello@laptop.docs: sequence 1 of greeting, as {NAME}",
        "  2026-11-23T01:31:33Z: connection refused",
    ]
    assert len(list(entry_lines(Row(reason=None)))) == 1


def test_an_entry_as_json_says_all_that_is_shown_of_it():
    body = entry_fields(Row(attempts='[{"attempt": 1}]'))

    assert body == {**asdict(Row()), "attempts": [{"attempt": 1}]}


def test_a_plan_in_a_file_says_what_it_is_what_it_was_made_from_and_what_of_it_is_known_here():
    made = replace(
        plan_of(delivery()),
        variables={"release": "1.4.0"},
        inputs=(Input(path="m.yaml", digest="sha256:11", bytes=80),),
    )

    lines = list(plan_view.whole(made, "sha256:22", {"0" * 32: "delivered"}))

    assert lines[:4] == [
        "sha256:22, of cas 0.1.0",
        "never expires",
        "with release=1.4.0",
        "from m.yaml: 80 bytes, sha256:11",
    ]
    assert lines[-1] == "  known here delivered"
    assert list(plan_view.whole(replace(made, expires=NOW), "sha256:22", {}))[1] == "expires 2026-11-23T01:31:33Z"


def test_a_difference_shows_new_texts_and_changed_fields_or_that_there_are_none():
    changed = {"hello@laptop.docs": (Change(field="message.type", before=None, after="inform"),)}
    comparison = Comparison(added=("a",), removed=("b",), changed=changed)

    assert list(plan_view.difference(comparison, [("a", NAME, "* Hello\nthere\n")])) == [
        f"+ a as {NAME}",
        "  | * Hello",
        "  | there",
        "+ a",
        "- b",
        "~ hello@laptop.docs",
        "  message.type: not said → inform",
    ]
    assert plan_view.difference_fields(comparison, [])["changed"] == [
        {"id": "hello@laptop.docs", "fields": [{"field": "message.type", "before": None, "after": "inform"}]}
    ]
    assert list(plan_view.difference(None, [])) == ["nothing is new"]
    assert list(plan_view.difference(Comparison(added=(), removed=(), changed={}), [])) == ["nothing has changed"]


def test_what_a_console_tells_goes_on_record_also_where_it_is_quiet():
    at = Console(out=io.StringIO(), err=io.StringIO(), quiet=True)
    at.record = Record(command="apply")
    warning = Diagnostic(code="odd", message="it is odd", severity=Severity.WARNING)

    at.report([warning])

    assert (at.err.getvalue(), list(at.record.found)) == ("", [warning])

"""`cas new`: a message that can be sent at once, in a file of its own, never over another."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support import Home, run_with_small_files

from cas.authoring import ANSWERS
from cas.cli import MESSAGE_TYPES
from cas.diagnostics import Place
from cas.message import TYPES, Message, parse
from cas.names import is_name

ROOT = Path(__file__).resolve().parent.parent


def written(path: str | Path) -> Message:
    return parse(Path(path).read_bytes(), place=Place(file=str(path)))


def today() -> str:
    return datetime.now(UTC).strftime("%Y%m%d")


# What it writes


def test_a_new_message_is_a_request_and_the_first_of_a_conversation_named_by_file_and_day(cas, home: Home):
    before = today()

    run = cas("new", "review.org")

    message = written("review.org")
    assert run.code == 0
    assert message.conversation in (f"review-{before}", f"review-{today()}")
    assert (message.type, message.sequence, message.protocol_version) == ("request", 1, "1.0")
    assert run.out == f"written: review.org: request 1 of {message.conversation}\n"


def test_a_new_message_is_dated_now(cas, home: Home):
    before = datetime.now(UTC).replace(microsecond=0)

    cas("new", "review.org")

    moment = datetime.strptime(written("review.org").timestamp, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert before <= moment <= datetime.now(UTC)


def test_a_new_message_is_frontmatter_and_a_blank_line_and_the_rest_is_left_to_people(cas, home: Home):
    cas("new", "review.org")

    keys = ["CONVERSATION_ID", "MESSAGE_TYPE", "SEQUENCE", "TIMESTAMP", "PROTOCOL_VERSION"]
    assert re.fullmatch("".join(rf"#\+{key}: \S+\n" for key in keys) + "\n", Path("review.org").read_text())


def test_conversation_type_and_sequence_can_be_said(cas, home: Home):
    run = cas("new", "a.org", "--conversation", "rel-1.4.0", "--type", "progress", "--sequence", "7")

    message = written("a.org")
    assert run.code == 0
    assert (message.conversation, message.type, message.sequence) == ("rel-1.4.0", "progress", 7)


def test_what_was_written_can_be_sent_as_the_words_say(cas, home: Home, pairs):
    run = cas("new", "review.org")

    command = run.err.split("then: ")[1].split()
    assert command == ["cas", "send", "MACHINE.PROJECT", "review.org"]
    assert cas("send", "local.docs", command[-1], "--no-sign").code == 0
    assert len(pairs(home.inbox("docs"))) == 1


@pytest.mark.parametrize(
    ("name", "beginning"),
    [
        ("Release 1.4.0 (final).org", "Release-1.4.0-final-"),
        ("..a..b.org", "a.b-"),
        ("日本.org", "message-"),
        (".org", "org-"),
        ("x" * 200 + ".org", "x" * 91 + "-"),
    ],
)
def test_any_file_name_gives_a_conversation_that_is_allowed(cas, home: Home, name: str, beginning: str):
    run = cas("new", name)

    conversation = written(name).conversation
    assert run.code == 0
    assert is_name(conversation)
    assert conversation[:-8] == beginning


def test_the_body_may_come_from_standard_input(cas, home: Home):
    run = cas("new", "a.org", "--body", "-", stdin="* Done\n#+SEQUENCE: 9\n")

    assert (run.code, written("a.org").sequence) == (0, 1)
    assert Path("a.org").read_text().endswith("\n\n* Done\n#+SEQUENCE: 9\n")


def test_the_body_may_come_from_a_file(cas, home: Home):
    Path("body.txt").write_bytes(b"* Fertig \xe2\x80\xae\r\n\x1b")

    cas("new", "a.org", "--body", "body.txt")

    assert Path("a.org").read_bytes().endswith(b"\n\n* Fertig \xe2\x80\xae\r\n\x1b")


def test_standard_input_is_left_alone_where_nobody_names_it(cas_process, home: Home):
    read, write = os.pipe()  # nobody ever writes or closes it

    process = cas_process("new", "a.org", stdin=read)

    assert process.wait(timeout=30) == 0
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("argv", [("new",), ("new", "-")], ids=" ".join)
def test_without_a_file_the_message_goes_to_standard_output_and_nothing_else_does(cas, home: Home, argv):
    run = cas(*argv, "--body", "-", stdin="* Hello\x1b\n")

    message = parse(run.out.encode(), place=Place(file="-"))
    assert (run.code, run.err) == (0, "")
    assert run.out.endswith("\n\n* Hello\x1b\n")
    assert re.fullmatch(r"message-\d{8}T\d{6}Z", message.conversation)
    assert list(Path().iterdir()) == []


def test_what_goes_to_standard_output_can_be_sent(cas, home: Home, pairs):
    drafted = cas("new", "--body", "-", stdin="* Hello\n").out

    run = cas("send", "local.docs", "-", "--no-sign", stdin=drafted)

    assert run.code == 0, run.err
    assert len(pairs(home.inbox("docs"))) == 1


def test_as_json_the_result_says_what_was_written_and_how_to_send_it(cas, home: Home):
    run = cas("new", "a b.org", "--output", "json")

    told, message = json.loads(run.out), written("a b.org")
    assert told == {
        "format": "cas.new/1",
        "file": "a b.org",
        "conversation": message.conversation,
        "type": "request",
        "sequence": 1,
        "timestamp": message.timestamp,
        "content": None,
        "next": "cas send MACHINE.PROJECT 'a b.org'",
    }


def test_as_json_without_a_file_the_result_holds_the_message(cas, home: Home):
    told = json.loads(cas("new", "--output", "json").out)

    assert parse(told["content"].encode(), place=Place(file="-")).conversation == told["conversation"]
    assert told["file"] is None


# Replies


def arrived(home: Home, message: Callable[..., Path], **frontmatter: object) -> Path:
    name = f"20261123T091257Z-from-docs-{frontmatter.get('conversation_id', 'greeting')}.org"
    return message(home.inbox("builder") / name, **frontmatter)


def test_a_reply_goes_on_with_the_conversation(cas, home: Home, message):
    run = cas("new", "answer.org", "--reply-to", arrived(home, message, conversation_id="rel-1.4.0", sequence="007"))

    reply = written("answer.org")
    assert run.code == 0
    assert (reply.conversation, reply.sequence, reply.type) == ("rel-1.4.0", 8, "complete")


def test_a_reply_says_which_types_suit_and_to_whom_it_goes(cas, home: Home, message):
    run = cas("new", "answer.org", "--reply-to", arrived(home, message))

    assert "note: this is `complete`; what answers a `request`: complete, progress, query, pushback (--type)" in run.err
    assert run.err.endswith("cas send MACHINE.docs answer.org\n")


def test_a_reply_whose_type_was_chosen_is_not_advised(cas, home: Home, message):
    run = cas("new", "answer.org", "--reply-to", arrived(home, message), "--type", "pushback", "--sequence", "4")

    reply = written("answer.org")
    assert (reply.type, reply.sequence) == ("pushback", 4)
    assert "note:" not in run.err


def test_a_reply_to_a_message_under_a_name_of_its_own_does_not_guess_who_sent_it(cas, home: Home, message):
    run = cas("new", "answer.org", "--reply-to", message("hello.org"))

    assert "cas send MACHINE.PROJECT answer.org" in run.err


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_has_types_that_answer_it(cas, home: Home, message, kind: str):
    cas("new", "answer.org", "--reply-to", arrived(home, message, message_type=kind))

    assert written("answer.org").type == ANSWERS[kind][0]
    assert set(ANSWERS[kind]) <= set(TYPES)


def test_the_types_that_can_be_said_are_those_of_messages():
    assert MESSAGE_TYPES == TYPES
    assert set(ANSWERS) == set(TYPES)


def test_a_reply_to_what_is_no_message_is_refused_with_its_place(cas, home: Home, message):
    run = cas("new", "answer.org", "--reply-to", message("bad.org", sequence="x"))

    assert run.code == 4
    assert "bad.org:3: error[invalid-sequence]" in run.err
    assert not Path("answer.org").exists()


def test_a_reply_to_the_last_sequence_that_there_is_is_refused(cas, home: Home, message):
    run = cas("new", "answer.org", "--reply-to", arrived(home, message, sequence="999999999"))

    assert (run.code, Path("answer.org").exists()) == (4, False)
    assert "`1000000000` is not a SEQUENCE" in run.err


# What it refuses


def test_a_file_that_exists_is_not_replaced(cas, home: Home):
    Path("review.org").write_text("mine")

    run = cas("new", "review.org")

    assert run.code == 1
    assert run.err == "error[exists]: `review.org` exists already (hint: take another name: no file is replaced)\n"
    assert Path("review.org").read_text() == "mine"
    assert os.listdir() == ["review.org"]


def test_a_link_that_leads_nowhere_is_not_followed(cas, home: Home):
    Path("review.org").symlink_to("elsewhere.org")

    assert cas("new", "review.org").code == 1
    assert os.listdir() == ["review.org"]


def test_of_many_who_make_the_same_file_one_does(cas_process, home: Home):
    processes = [cas_process("new", "a.org", "--sequence", number) for number in range(8)]

    codes = [process.wait(timeout=60) for process in processes]

    assert sorted(codes) == [0, *[1] * 7]
    assert written("a.org").sequence == codes.index(0)
    assert os.listdir() == ["a.org"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("missing/a.org", "there is no folder `missing`"),
        (".", "`.` exists already"),
        ("x" * 300, "cannot be written: file name too long"),
        ("/dev/null/a.org", "cannot be written: not a directory"),
        ("/proc/a.org", "there is no folder"),
    ],
    ids=["no-folder", "a-folder", "long", "below-a-file", "no-disk"],
)
def test_a_file_that_cannot_be_made_is_an_error(cas, home: Home, path: str, words: str):
    run = cas("new", path)

    assert run.code == 1
    assert "Traceback" not in run.err
    assert words in run.err
    assert os.listdir() == []


def test_a_disk_that_is_full_leaves_no_half_of_a_file(home: Home):
    run = run_with_small_files(20, "new", "a.org")

    assert run.code == 1
    assert run.err == "error[unwritable]: `a.org` cannot be written: file too large\n"
    assert os.listdir() == []


def test_a_standard_output_that_is_full_is_an_error(cas_process, home: Home):
    with open("/dev/full", "w") as full:
        process = cas_process("new", stdout=full)
        _, err = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "error[unwritable]: standard output cannot be written" in err


def test_a_file_has_the_rights_that_the_umask_leaves(cas, home: Home):
    before = os.umask(0o027)
    try:
        cas("new", "a.org")
    finally:
        os.umask(before)

    assert stat.S_IMODE(os.stat("a.org").st_mode) == 0o640


@pytest.mark.parametrize(
    "argv",
    [
        ("--type", "reqest"),
        ("--sequence", "-1"),
        ("--sequence", "1000000000"),
        ("--sequence", "one"),
        ("--conversation", "a/b"),
        ("--conversation", ""),
        ("--conversation", "a", "--reply-to", "hello.org"),
    ],
    ids=" ".join,
)
def test_options_that_no_message_could_have_are_wrong_usage(cas, message, argv: tuple[str, ...]):
    message("hello.org")

    run = cas("new", "a.org", *argv)

    assert run.code == 64
    assert not Path("a.org").exists()


@pytest.mark.parametrize("body", [b"\xff", b"a" * (1 << 20) + b"b"], ids=["not-utf-8", "too-large"])
def test_a_body_that_no_message_could_have_is_refused(cas, home: Home, body: bytes):
    run = cas("new", "a.org", "--body", "-", stdin=body)

    assert run.code in (1, 4)
    assert "<stdin>" in run.err
    assert os.listdir() == []


def test_halt_does_not_stop_writing(cas, home: Home):
    home.halt()

    assert cas("new", "a.org").code == 0

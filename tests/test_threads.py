"""What has arrived, sorted out: names, conversations, gaps, and what may be made of a sender. Its lines, too."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cas.arrival import Arrival, Contents, Kind, Trust, contents, read, trust, when
from cas.diagnostics import Diagnostic
from cas.message import Message
from cas.output import inbox as view
from cas.threads import Thread, threads
from cas.verdict import State, Verdict

NOW = datetime(2026, 11, 24, 9, 0, 0, tzinfo=UTC)
KEY = "5CA7F1CE5E8E605E770C0236B4B61A2737D6A700"
GOOD = Verdict(state=State.GOOD, key=KEY, user="Builder")


def arrival(sequence: int = 1, conversation: str = "rel", *, age: timedelta = timedelta(hours=2), **more: object):
    time = NOW - age
    name = f"{time.strftime('%Y%m%dT%H%M%SZ')}-from-builder-{conversation}.org"
    message = Message(
        digest="sha256:00", size=9, conversation=conversation, type="request", sequence=sequence,
        timestamp="2026-11-24T07:00:00Z", protocol_version="1.0",
    )  # fmt: skip
    given = {"path": f"inbox/{name}", "name": name, "time": time, "signed": True, "size": 9, "message": message}
    return Arrival(**{**given, **more})


def test_the_names_of_a_folder_are_sorted_out():
    there = {
        "b.org": Kind.FILE,
        "b.org.asc": Kind.FILE,
        "a.org": Kind.FILE,
        "lone.org.asc": Kind.FILE,
        "note.txt": Kind.FILE,
        "note.txt.asc": Kind.FILE,
        "link.org": Kind.LINK,
        "link.org.asc": Kind.FILE,
        "pipe.org": Kind.OTHER,
        "dir.org": Kind.FOLDER,
        "processed": Kind.FOLDER,
        ".tmp.x.org": Kind.FILE,
        ".cas": Kind.FOLDER,
    }

    assert contents(there) == Contents(
        messages=("a.org", "b.org"),
        signed=frozenset({"b.org"}),
        alone=("link.org.asc", "lone.org.asc", "note.txt.asc"),
        others=(
            ("dir.org", Kind.FOLDER),
            ("link.org", Kind.LINK),
            ("note.txt", Kind.FILE),
            ("pipe.org", Kind.OTHER),
        ),
    )


def test_what_has_the_name_of_the_archive_and_is_no_folder_is_told():
    assert contents({"processed": Kind.LINK}).others == (("processed", Kind.LINK),)


def test_a_conversation_is_by_sequence_and_the_newest_one_comes_last():
    rel = [arrival(3), arrival(1, age=timedelta(hours=1)), arrival(7), arrival(4)]

    found = threads([*rel, arrival(1, "old", age=timedelta(days=1))])

    assert [thread.conversation for thread in found] == ["old", "rel"]
    assert [one.message.sequence for one in found[1].arrivals if one.message] == [1, 3, 4, 7]
    assert found[1].gaps == ((2, 2), (5, 6))
    assert view.gaps(found[1]) == "2, 5-6"


def test_a_sequence_that_is_there_twice_is_no_gap_and_zero_none_either():
    (thread,) = threads([arrival(0), arrival(1), arrival(1, age=timedelta(hours=1))])

    assert (len(thread.arrivals), thread.gaps) == (3, ())


def test_of_many_gaps_the_first_are_shown():
    (thread,) = threads([arrival(number) for number in range(1, 60, 2)])

    assert view.gaps(thread) == "2, 4, 6, 8, 10, 12, 14, 16, 18, 20, …"


def test_what_cannot_be_read_is_in_no_conversation():
    fault = Diagnostic(code="no-frontmatter", message="the message has no frontmatter")
    found = threads([arrival(message=None, faults=(fault,), verdict=Verdict(state=State.NONE), trust=Trust.NONE)])

    assert found[0].conversation is None
    assert list(view.lines(found, Contents(), NOW)) == [
        "no conversation can be told:",
        "  unreadable, 2 h ago: named from nobody, has no signature",
        "    inbox/20261124T070000Z-from-builder-rel.org",
        "    the message has no frontmatter",
    ]


@pytest.mark.parametrize(
    ("verdict", "claimed", "expected"),
    [
        (None, "builder", Trust.UNKNOWN),
        (GOOD, "builder", Trust.SENDER),
        (GOOD, "other", Trust.ANOTHER),
        (GOOD, "nobody", Trust.SIGNED),
        (GOOD, None, Trust.SIGNED),
        (Verdict(state=State.BAD, key=KEY), "builder", Trust.NONE),
        (Verdict(state=State.EXPIRED_KEY, key=KEY), "builder", Trust.NONE),
        (Verdict(state=State.NONE), "builder", Trust.NONE),
    ],
)
def test_a_sender_is_believed_only_by_the_keys_that_speak_for_it(
    verdict: Verdict | None, claimed: str | None, expected: Trust
):
    senders = {"builder": frozenset({KEY}), "other": frozenset({"A" * 40})}

    assert trust(verdict, claimed, senders, only_listed=False) is expected


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"verdict": GOOD, "trust": Trust.SENDER}, "from builder"),
        ({"verdict": GOOD, "trust": Trust.SIGNED}, f"named from builder, is signed by the key {KEY} (Builder)"),
        (
            {"verdict": GOOD, "trust": Trust.ANOTHER},
            f"named from builder, is signed by the key {KEY} (Builder), which is none of its keys",
        ),
        ({"trust": Trust.UNKNOWN}, "named from builder, signed, not verified"),
        ({"trust": Trust.UNKNOWN, "signed": False}, "named from builder, has no signature"),
    ],
)
def test_a_sender_is_told_as_far_as_it_is_known(more: dict[str, object], said: str):
    assert view.standing(arrival(**more)) == said


def test_a_message_in_one_line_for_who_waits_and_for_who_verifies():
    one = arrival(verdict=GOOD, trust=Trust.SENDER)

    assert view.announced(one) == f"1 request of rel: from builder: {one.path}"
    assert view.announced(arrival(message=None)).startswith("unreadable: ")
    assert view.verified(one, None) == f"good: {one.path}: from builder"
    assert view.verified(one, "and not by the key X") == f"not good: {one.path}: from builder, and not by the key X"


def test_the_count_tells_how_many_nobody_stands_for():
    good, bad, unknown = (arrival(trust=one) for one in (Trust.SENDER, Trust.NONE, Trust.UNKNOWN))

    assert view.counted([]) == "no messages"
    assert view.counted([good]) == "1 message"
    assert view.counted([good, bad]) == "2 messages, 1 without a signature that counts"
    assert view.counted([unknown]) == "1 message, not verified"


@pytest.mark.parametrize(
    ("passed", "said"),
    [
        (timedelta(seconds=5), "5 s ago"),
        (timedelta(minutes=59), "59 min ago"),
        (timedelta(hours=47), "1 d ago"),
        (timedelta(seconds=-1), "from the future"),
    ],
)
def test_an_age_is_in_the_largest_unit_that_fits(passed: timedelta, said: str):
    assert view.age(passed) == said


def test_the_time_is_that_of_the_name_or_else_of_the_file():
    assert when("20261124T070000Z-from-builder-rel.org", NOW) == NOW - timedelta(hours=2)
    assert when("hello.org", NOW) == NOW


def test_an_inbox_as_json_has_what_a_program_asks_for():
    archived = arrival(3, archived=True, verdict=GOOD, trust=Trust.SIGNED)
    others = Contents(alone=("x.org.asc",), others=(("l.org", Kind.LINK),))

    body = view.document("/inbox", threads([archived]), others)

    assert body["format"] == "cas.inbox/1"
    assert (body["alone"], body["others"]) == (["x.org.asc"], [{"name": "l.org", "kind": "a symbolic link"}])
    (conversation,) = body["conversations"]  # type: ignore[misc]
    assert conversation["missing"] == [[1, 2]]
    (message,) = conversation["messages"]
    assert (message["signature"], message["trust"], message["key"]) == ("good", "signed", KEY)
    assert message["archived"]
    assert view.fields(arrival(signed=False, message=None))["signature"] == "no-signature"
    assert list(view.lines([], others, NOW)) == [
        "x.org.asc: a signature whose message is not here",
        "l.org: a symbolic link, passed by",
    ]


def test_a_conversation_says_what_is_not_here():
    lines = list(view.lines([Thread(conversation="rel", arrivals=(arrival(2),), gaps=((1, 1),))], Contents(), NOW))

    assert lines[:2] == ["rel (not here: 1)", "  2 request, 2 h ago: named from builder, signed, not verified"]
    archived = list(view.lines(threads([arrival(archived=True)]), Contents(), NOW))
    assert archived[1].startswith("  1 request, 2 h ago, archived:")


def test_bytes_that_are_no_message_say_why():
    message, faults = read(b"hello\n", "a.org")

    assert message is None
    assert [one.code for one in faults] == ["no-frontmatter"]

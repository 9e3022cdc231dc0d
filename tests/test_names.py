"""Names that reach a path, and identities."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta, timezone
from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cas.names import (
    canonical_name,
    digest,
    identity,
    is_canonical,
    is_machine,
    is_name,
    later,
    nearest_name,
    sender_in,
    sender_of,
    signature_name,
    time_of,
    timestamp,
)

CLOCK = datetime(2026, 11, 23, 1, 31, 33, tzinfo=UTC)
NAME = "20261123T013133Z-from-builder-rel-1.4.0.org"
HOSTILE = [
    "",
    ".",
    "..",
    "a..b",
    "../a",
    "a/b",
    "/etc",
    "a\\b",
    "-rf",
    "-oProxyCommand=x",
    ".hidden",
    "_a",
    "a b",
    "a\n",
    "\na",
    "a\tb",
    "a\x00b",
    "a\x1b]0;b",
    "a\x7f",
    "a\u2028b",
    "ä",
    "а",  # noqa: RUF001 (a Cyrillic letter that looks like a Latin one)
    "٣",
    "a;b",
    "a$(b)",
    "a*",
    "~a",
    "a:b",
    "a@b",
    "a" * 101,
    "a" * 300,
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_names_neither_a_machine_nor_a_project(text):
    assert not is_name(text)
    assert not is_machine(text)


@pytest.mark.parametrize("text", ["a", "7", "builder", "rel-1.4.0", "A_b-c.d", "a.", "a-", "a" * 100])
def test_a_plain_text_names_a_project_a_sender_or_a_conversation(text):
    assert is_name(text)


@pytest.mark.parametrize("text", ["laptop", "build-7", "7", "a_b", "a" * 100])
def test_a_machine_is_named_by_letters_digits_dashes_and_underscores(text):
    assert is_machine(text)


def test_a_machine_name_holds_no_dot_since_the_first_one_ends_it():
    assert not is_machine("laptop.tailnet")


@settings(deadline=None)
@given(st.text(max_size=120))
def test_no_name_leads_out_of_a_folder(text):
    if is_name(text):
        assert PurePosixPath("inbox", text).parts == ("inbox", text)
        assert text.isascii()
        assert text.isprintable()


def test_the_canonical_name_holds_time_sender_and_conversation():
    assert canonical_name(CLOCK, "builder", "rel-1.4.0") == NAME


def test_the_canonical_name_is_in_utc_whatever_the_clock_shows():
    tokyo = CLOCK.astimezone(timezone(timedelta(hours=9)))

    assert canonical_name(tokyo, "builder", "rel-1.4.0") == NAME


def test_the_signature_has_the_name_of_its_message_and_asc():
    assert signature_name(NAME) == NAME + ".asc"


def test_a_later_name_differs_in_nothing_but_its_time():
    assert later(NAME, 0) == NAME
    assert later(NAME, 27) == "20261123T013200Z-from-builder-rel-1.4.0.org"


def test_a_later_name_goes_over_midnight_and_new_year():
    assert later("20261231T235959Z-from-a-b.org", 1) == "20270101T000000Z-from-a-b.org"


def test_a_canonical_name_tells_its_time():
    assert time_of(NAME) == CLOCK


def test_a_canonical_name_is_known_as_one():
    assert is_canonical(NAME)
    assert is_canonical(canonical_name(CLOCK, "s" * 100, "c" * 100))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "hello.org",
        NAME + ".asc",
        NAME + "\n",
        "../" + NAME,
        "20261123T013133Z-from-../../etc/passwd.org",
        "20261123T013133Z-from-a..b-c.org",
        "20261123T013133Z-from--a.org",
        "20261123T013133Z-from-a\x1b.org",
        "20261399T013133Z-from-a-b.org",
        "20261123T256199Z-from-a-b.org",
        "99991231T235959Z-from-a-b.org",
        "00000000T000000Z-from-a-b.org",
        "٢٢٢٢1123T013133Z-from-a-b.org",
        "20261123T013133Z-from-" + "a" * 300 + ".org",
    ],
)
def test_what_only_looks_like_a_canonical_name_is_not_one(name):
    assert not is_canonical(name)


@settings(deadline=None)
@given(st.text(max_size=60))
def test_a_canonical_name_always_has_a_later_one(text):
    for name in (text, f"20261123T013133Z-from-{text}.org", f"{text}Z-from-a-b.org"):
        if is_canonical(name):
            assert later(name, 1) > name


@pytest.mark.parametrize(
    ("folder", "sender"),
    [
        ("/home/me/projects/builder", "builder"),
        ("/home/me/projects/builder/src/deep", "builder"),
        ("/home/me/projects/.hidden/src", ".hidden"),
        ("/home/me/projects", "projects"),
        ("/home/me/projects-old/x", "x"),
        ("/srv/other", "other"),
        ("/", ""),
    ],
)
def test_the_sender_is_the_project_of_the_folder_or_else_the_folders_own_name(folder, sender):
    assert sender_of(PurePosixPath(folder), PurePosixPath("/home/me/projects")) == sender


def test_a_timestamp_of_an_early_year_has_four_digits_for_it():
    assert timestamp(time_of("00010101T000000Z-from-a-b.org")) == "0001-01-01T00:00:00Z"


@pytest.mark.parametrize("name", ["20261123T240000Z", "20261123T013160Z", "20260229T000000Z", "20261323T000000Z"])
def test_a_time_that_there_is_not_is_none_of_a_canonical_name(name: str):
    assert not is_canonical(f"{name}-from-builder-rel.org")


def test_a_timestamp_is_in_utc_and_whole_seconds():
    tokyo = CLOCK.replace(microsecond=999_999).astimezone(timezone(timedelta(hours=9)))

    assert timestamp(tokyo) == "2026-11-23T01:31:33Z"


def test_a_digest_says_how_it_was_made():
    assert digest(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_an_identity_is_made_from_six_lines():
    lines = "cas-delivery-1\nbuilder\nlaptop.docs\nrel-1.4.0\n7\nsha256:00\n"

    expected = hashlib.sha256(lines.encode()).hexdigest()[:32]

    assert identity("builder", "laptop.docs", "rel-1.4.0", 7, "sha256:00") == expected


def test_a_word_is_a_seventh_line_and_makes_another_identity():
    lines = "cas-delivery-1\nbuilder\nlaptop.docs\nrel-1.4.0\n7\nsha256:00\nword\n"

    expected = hashlib.sha256(lines.encode()).hexdigest()[:32]

    assert identity("builder", "laptop.docs", "rel-1.4.0", 7, "sha256:00", "word") == expected


def test_every_field_counts_for_an_identity():
    fields = ("builder", "laptop.docs", "rel-1.4.0", 7, "sha256:00")
    others = ("other", "laptop.site", "rel-1.5.0", 8, "sha256:01")

    changed = {identity(*fields[:place], other, *fields[place + 1 :]) for place, other in enumerate(others)}

    assert len(changed | {identity(*fields)}) == 6


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("review", "review"),
        ("Release 1.4.0 (final)", "Release-1.4.0-final"),
        ("Überblick", "Uberblick"),
        ("../../etc", "etc"),
        ("a..b", "a.b"),
        ("-rf", "rf"),
        ("日本", ""),
        ("", ""),
        ("a" * 99 + ".b", "a" * 99),
    ],
)
def test_the_nearest_name_keeps_what_a_name_may_hold(text, name):
    assert nearest_name(text) == name


@given(st.text(), st.integers(1, 100))
def test_the_nearest_name_is_a_name_or_empty(text, longest):
    name = nearest_name(text, longest)

    assert name == "" or (is_name(name) and len(name) <= longest)


@pytest.mark.parametrize(
    ("name", "sender"),
    [
        ("20261123T091257Z-from-builder-rel-1.4.0.org", "builder"),
        ("20261123T091257Z-from-my-team-rel-1.4.0.org", "my-team"),
        ("20261123T091257Z-from-rel-1.4.0.org", None),
        ("20261123T091257Z-from-builder-other.org", None),
        ("review.org", None),
    ],
)
def test_a_canonical_name_tells_the_sender_to_those_who_know_the_conversation(name, sender):
    assert sender_in(name, "rel-1.4.0") == sender

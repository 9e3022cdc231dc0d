"""The planner: what it decides, from records made here. Nothing is read, nothing is sent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta, timezone

import pytest
from shelf import Shelf

from cas import inventory as inventories
from cas.diagnostics import Diagnostic, InvalidInput, Place
from cas.drafts import Source
from cas.errors import ExitCode
from cas.expansion import expand
from cas.inventory import Inventory
from cas.manifest import FileMessage, Manifest, Retry, Send, Sign, Target
from cas.message import Message
from cas.names import digest
from cas.plan import Delivery, Input, Plan
from cas.planner import plan

CLOCK = datetime(2026, 11, 23, 1, 31, 33, tzinfo=UTC)
KEY = "5CA7F1CE5E8E605E770C0236B4B61A2737D6A700"
PEERS = """
[peers.laptop]
host = "laptop.tailnet.ts.net"
[peers.notebook]
host = "laptop.tailnet.ts.net"
[peers.forge]
[projects.builder]
inbox_path = "~/src/builder/inbox"
[projects.twin]
inbox_path = "~/src/builder/inbox"
"""


def content_of(conversation: str = "greeting", sequence: int = 1, body: str = "* Hello\n") -> bytes:
    return f"{conversation} {sequence} {body}".encode()


def message(conversation: str = "greeting", sequence: int = 1, body: str = "* Hello\n") -> Message:
    content = content_of(conversation, sequence, body)
    return Message(
        digest=digest(content),
        size=len(content),
        conversation=conversation,
        type="request",
        sequence=sequence,
        timestamp="2026-11-23T01:31:33Z",
        protocol_version="1.0",
    )


def send(
    identifier: str,
    *destinations: str,
    path: str | None = None,
    sign: Sign | None = None,
    retry: Retry | None = None,
    place: Place | None = None,
) -> Send:
    return Send(
        id=identifier,
        destinations=tuple(
            Target(text=text, place=Place(file="m.yaml", line=90, column=number))
            for number, text in enumerate(destinations, start=1)
        ),
        message=FileMessage(path=path or f"{identifier}.org", place=None),
        sign=sign,
        retry=retry or Retry(),
        place=place or Place(file="m.yaml", line=int(hashlib.sha256(identifier.encode()).hexdigest()[:4], 16)),
    )


def source(
    sends: Iterable[Send],
    messages: Iterable[Message],
    *,
    sender: str = "builder",
    name: str = "Release",
    file: str = "m.yaml",
) -> Source:
    """A manifest whose sends bring these messages, one each."""
    sends = tuple(sends)
    return Source(
        manifest=Manifest(file=file, name=name, sender=None, sends=sends),
        sender=sender,
        library=Shelf(messages={one.message.path: text for one, text in zip(sends, messages, strict=True)}),
    )


def planned(
    *sources: Source,
    peers: str = PEERS,
    clock: datetime = CLOCK,
    ttl: timedelta | None = timedelta(hours=24),
    hostname: str = "here",
    inputs: Iterable[Input] = (),
    word: str | None = None,
    fingerprint: Callable[[str | None], str] = lambda name: name or KEY,
) -> Plan:
    drafts, found = expand(sources, inventory(peers), clock=clock, hostname=hostname)
    try:
        made = plan(
            sources,
            drafts,
            inventory(peers),
            clock=clock,
            ttl=ttl,
            fingerprint=fingerprint,
            inputs=tuple(inputs),
            version="0.1.0",
            word=word,
        )
    except InvalidInput as error:
        raise InvalidInput([*found, *error.diagnostics]) from error
    if found:
        raise InvalidInput(found)
    return made


def inventory(text: str) -> Inventory:
    return inventories.parse(text.encode(), file="peers.toml")[0]


def findings(*sources: Source, peers: str = PEERS) -> tuple[Diagnostic, ...]:
    with pytest.raises(InvalidInput) as refused:
        planned(*sources, peers=peers)
    return refused.value.diagnostics


def ids(made: Plan) -> list[str]:
    return [delivery.id for delivery in made.deliveries]


def named(made: Plan, identifier: str) -> Delivery:
    return next(delivery for delivery in made.deliveries if delivery.id == identifier)


def expected_identity(*lines: str) -> str:
    text = "".join(f"{line}\n" for line in ("cas-delivery-1", *lines))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]


# Deliveries


def test_a_send_to_several_destinations_is_one_delivery_each():
    made = planned(source([send("hello", "local.docs", "laptop.docs", "forge.site")], [message()]))

    assert ids(made) == ["hello@local.docs", "hello@laptop.docs", "hello@forge.site"]


def test_the_same_destination_twice_is_one_delivery():
    made = planned(source([send("hello", "laptop.docs", "laptop.docs")], [message()]))

    assert ids(made) == ["hello@laptop.docs"]


def test_this_machines_own_name_and_local_are_one_delivery_of_the_name_that_stands_first():
    made = planned(source([send("hello", "here.docs", "local.docs")], [message()]), hostname="here")

    assert ids(made) == ["hello@here.docs"]
    assert made.deliveries[0].destination.address == "local.docs"


def test_two_projects_with_one_inbox_are_one_delivery():
    made = planned(source([send("hello", "local.builder", "local.twin")], [message()]))

    assert ids(made) == ["hello@local.builder"]


def test_two_names_of_one_host_are_one_delivery():
    made = planned(source([send("hello", "laptop.docs", "notebook.docs")], [message()]))

    assert ids(made) == ["hello@laptop.docs"]


def test_the_same_inbox_path_on_two_hosts_is_two_deliveries():
    made = planned(source([send("hello", "laptop.docs", "forge.docs")], [message()]))

    assert ids(made) == ["hello@laptop.docs", "hello@forge.docs"]


def test_a_delivery_says_what_goes_without_its_text():
    text = message("rel-1", 7, "* A secret\n")
    made = planned(source([send("hello", "laptop.docs", path="out/hello.org")], [text]))

    what = made.deliveries[0].message
    assert (what.source, what.digest, what.bytes) == ("out/hello.org", text.digest, text.size)
    assert (what.conversation, what.type, what.sequence) == ("rel-1", "request", 7)


def test_a_delivery_keeps_the_retry_of_its_send():
    retry = Retry(retries=1, backoff=(2,), timeout=7)
    made = planned(source([send("hello", "laptop.docs", retry=retry)], [message()]))

    assert made.deliveries[0].retry == retry


def test_a_send_whose_message_could_not_be_read_is_passed_over():
    broken = Source(
        manifest=Manifest(
            file="m.yaml", name="R", sender=None, sends=(send("hello", "local.docs"), send("b", "local.docs"))
        ),
        sender="builder",
        library=Shelf(messages={"b.org": message()}),
    )

    assert ids(planned(broken)) == ["b@local.docs"]


def test_nothing_to_send_is_an_empty_plan():
    made = planned()

    assert made.deliveries == ()
    assert made.name == ""


# Signing


def test_an_unsigned_delivery_has_one_file():
    made = planned(source([send("hello", "local.docs")], [message()]))

    assert made.deliveries[0].files == ("20261123T013133Z-from-builder-greeting.org",)
    assert made.deliveries[0].sign is None


def test_a_signed_delivery_names_its_signature_before_its_message():
    made = planned(source([send("hello", "local.docs", sign=Sign())], [message()]))

    name = "20261123T013133Z-from-builder-greeting.org"
    assert made.deliveries[0].files == (f"{name}.asc", name)
    assert made.deliveries[0].name == name


def test_the_default_key_is_asked_for_and_a_named_one_is_looked_up():
    made = planned(source([send("a", "local.a", sign=Sign()), send("b", "local.b", sign=Sign(key="BOB"))], _two()))

    assert [delivery.sign.key for delivery in made.deliveries if delivery.sign] == [KEY, "BOB"]


def test_no_key_is_asked_for_where_nothing_is_signed():
    def ask(name: str | None) -> str:
        raise AssertionError(name)

    made = planned(source([send("hello", "local.docs")], [message()]), fingerprint=ask)

    assert made.deliveries[0].sign is None


def test_each_key_is_asked_for_once_however_many_sends_it_signs():
    asked = []

    def ask(name: str | None) -> str:
        asked.append(name)
        return KEY

    sends = [
        send(f"send-{number}", f"local.docs{number}", sign=Sign(key=("ada", None)[number % 2])) for number in range(6)
    ]
    made = planned(source(sends, [message() for _ in sends]), fingerprint=ask)

    assert sorted(asked, key=str) == [None, "ada"]
    assert {delivery.sign for delivery in made.deliveries} == {Sign(key=KEY)}


# The plan as a whole


def test_a_plan_expires_its_time_to_live_after_the_clock():
    assert planned(ttl=timedelta(hours=24)).expires == CLOCK + timedelta(hours=24)


@pytest.mark.parametrize("ttl", [None, timedelta(0)])
def test_a_plan_without_time_to_live_never_expires(ttl: timedelta | None):
    assert planned(ttl=ttl).expires is None


def test_the_sender_of_a_plan_is_that_of_its_manifests():
    assert planned(source([send("a", "local.docs")], [message()], sender="builder")).sender == "builder"


def test_manifests_of_several_senders_give_a_plan_without_one():
    made = planned(
        source([send("a", "local.docs")], [message("one")], sender="builder"),
        source([send("b", "local.docs")], [message("two")], sender="docs"),
    )

    assert made.sender is None
    assert [delivery.sender for delivery in made.deliveries] == ["builder", "docs"]


def test_the_names_of_several_manifests_are_joined_each_once():
    made = planned(
        source([send("a", "local.a")], [message()], name="One"),
        source([send("b", "local.b")], [message()], name="Two"),
        source([send("c", "local.c")], [message()], name="One"),
    )

    assert made.name == "One, Two"


def test_inputs_are_listed_by_path():
    one, two = Input(path="b", digest="sha256:0", bytes=1), Input(path="a", digest="sha256:1", bytes=2)

    assert planned(inputs=[one, two]).inputs == (two, one)


def test_the_same_inputs_and_clock_give_an_equal_plan():
    def again() -> Plan:
        return planned(source([send("a", "local.docs", "laptop.docs")], [message()]))

    assert again() == again()


# Lanes


def test_the_deliveries_of_a_lane_stand_by_sequence_whatever_their_position():
    made = planned(
        source(
            [send("third", "local.docs"), send("first", "local.docs"), send("second", "local.docs")],
            [message(sequence=3), message(sequence=1), message(sequence=2)],
        )
    )

    assert ids(made) == ["first@local.docs", "second@local.docs", "third@local.docs"]


def test_a_lane_keeps_the_positions_it_has_among_others():
    made = planned(
        source(
            [send("late", "local.docs"), send("other", "local.docs"), send("early", "local.docs")],
            [message("one", 2), message("two", 1), message("one", 1)],
        )
    )

    assert ids(made) == ["early@local.docs", "other@local.docs", "late@local.docs"]


def test_deliveries_of_one_conversation_to_one_inbox_share_a_lane():
    made = planned(
        source([send("a", "local.docs"), send("b", "here.docs")], [message(sequence=1), message(sequence=2)])
    )

    assert len({delivery.lane for delivery in made.deliveries}) == 1


def test_deliveries_of_one_conversation_to_two_names_of_an_inbox_share_a_lane():
    made = planned(
        source([send("a", "laptop.docs"), send("b", "notebook.docs")], [message(sequence=1), message(sequence=2)])
    )

    assert len({delivery.lane for delivery in made.deliveries}) == 1


def test_two_conversations_to_one_inbox_are_two_lanes():
    made = planned(source([send("a", "local.docs"), send("b", "local.docs")], [message("one"), message("two")]))

    assert len({delivery.lane for delivery in made.deliveries}) == 2


def test_one_conversation_to_two_inboxes_is_two_lanes():
    made = planned(source([send("a", "local.docs", "local.site")], [message()]))

    assert len({delivery.lane for delivery in made.deliveries}) == 2


def test_a_lane_is_named_by_destination_and_conversation():
    made = planned(source([send("a", "laptop.docs")], [message("rel-1.4.0")]))

    assert made.deliveries[0].lane == "laptop.docs/rel-1.4.0"


def test_a_lane_goes_on_across_manifests():
    made = planned(
        source([send("b", "local.docs")], [message(sequence=2)], file="one.yaml"),
        source([send("a", "local.docs")], [message(sequence=1)], file="two.yaml"),
    )

    assert ids(made) == ["a@local.docs", "b@local.docs"]


# Names


def test_a_name_holds_clock_sender_and_conversation():
    made = planned(source([send("a", "local.docs")], [message("rel-1.4.0")], sender="builder"))

    assert made.deliveries[0].name == "20261123T013133Z-from-builder-rel-1.4.0.org"


def test_a_clock_of_another_time_zone_gives_a_name_in_utc():
    clock = CLOCK.astimezone(timezone(timedelta(hours=5, minutes=30)))
    made = planned(source([send("a", "local.docs")], [message()]), clock=clock)

    assert made.deliveries[0].name.startswith("20261123T013133Z-")


def test_the_names_of_a_lane_rise_by_a_second_each():
    sends = [send(f"s{number}", "local.docs") for number in range(3)]
    made = planned(source(sends, [message(sequence=number) for number in range(3)]))

    assert [delivery.name[:16] for delivery in made.deliveries] == [
        "20261123T013133Z",
        "20261123T013134Z",
        "20261123T013135Z",
    ]


def test_names_rise_over_the_end_of_a_year():
    sends = [send("a", "local.docs"), send("b", "local.docs")]
    made = planned(
        source(sends, [message(sequence=1), message(sequence=2)]), clock=datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)
    )

    assert [delivery.name[:16] for delivery in made.deliveries] == ["20261231T235959Z", "20270101T000000Z"]


def test_one_conversation_has_the_same_name_in_two_inboxes():
    made = planned(source([send("a", "local.docs", "local.site")], [message()]))

    assert len({delivery.name for delivery in made.deliveries}) == 1


def test_two_lanes_whose_sender_and_conversation_run_together_have_two_names():
    made = planned(
        source([send("one", "local.docs")], [message("c")], sender="a-b"),
        source([send("two", "local.docs")], [message("b-c")], sender="a"),
    )

    assert [delivery.name for delivery in made.deliveries] == [
        "20261123T013133Z-from-a-b-c.org",
        "20261123T013134Z-from-a-b-c.org",
    ]


def test_lanes_that_meet_rise_and_stay_unique_however_long_they_are():
    made = planned(
        source([send(f"x{n}", "local.docs") for n in range(5)], [message("c", n) for n in range(5)], sender="a-b"),
        source([send(f"y{n}", "local.docs") for n in range(5)], [message("b-c", n) for n in range(5)], sender="a"),
    )

    names = [delivery.name for delivery in made.deliveries]
    assert len(set(names)) == 10
    assert names[:5] == sorted(names[:5])
    assert names[5:] == sorted(names[5:])


# Identity


def test_an_identity_is_what_the_formats_say():
    text = message("rel-1.4.0", 3)
    made = planned(source([send("a", "laptop.docs")], [text], sender="builder"))

    body = f"sha256:{hashlib.sha256(content_of('rel-1.4.0', 3)).hexdigest()}"
    assert made.deliveries[0].identity == expected_identity("builder", "laptop.docs", "rel-1.4.0", "3", body)


@pytest.mark.parametrize("written", ["local.docs", "here.docs"])
def test_an_identity_on_this_machine_is_that_of_local_whatever_name_was_written(written: str):
    text = message()
    made = planned(source([send("a", written)], [text]), hostname="here")

    body = f"sha256:{hashlib.sha256(content_of()).hexdigest()}"
    assert made.deliveries[0].identity == expected_identity("builder", "local.docs", "greeting", "1", body)


def test_an_identity_does_not_depend_on_the_clock_or_the_id_of_the_send():
    one = planned(source([send("a", "laptop.docs")], [message()]))
    two = planned(source([send("b", "laptop.docs")], [message()]), clock=CLOCK + timedelta(days=1))

    assert one.deliveries[0].identity == two.deliveries[0].identity


def test_other_bytes_are_another_identity():
    one = planned(source([send("a", "laptop.docs")], [message(body="* One\n")]))
    two = planned(source([send("a", "laptop.docs")], [message(body="* Two\n")]))

    assert one.deliveries[0].identity != two.deliveries[0].identity


def test_a_random_word_is_a_line_more_in_the_identity():
    text = message()
    made = planned(source([send("a", "laptop.docs")], [text]), word="0f0f")

    body = f"sha256:{hashlib.sha256(content_of()).hexdigest()}"
    assert made.deliveries[0].identity == expected_identity("builder", "laptop.docs", "greeting", "1", body, "0f0f")


# What is refused


def test_the_same_sequence_twice_in_a_lane_is_refused_at_the_second_naming_the_first():
    first, second = Place(file="m.yaml", line=4, column=5), Place(file="m.yaml", line=9, column=5)
    found = findings(
        source(
            [send("one", "local.docs", place=first), send("two", "local.docs", place=second)],
            [message(sequence=4, body="a"), message(sequence=4, body="b")],
        )
    )

    assert [one.code for one in found] == ["doubled-sequence"]
    assert found[0].place == second
    assert found[0].related[0][0] == first
    assert "`one` and `two`" in found[0].message


def test_the_same_sequence_thrice_is_two_findings():
    found = findings(source([send(name, "local.docs") for name in "abc"], [message(body=name) for name in "abc"]))

    assert [one.code for one in found] == ["doubled-sequence"] * 2


def test_the_same_sequence_to_two_inboxes_is_fine():
    made = planned(source([send("a", "local.docs"), send("b", "local.site")], _two()))

    assert len(made.deliveries) == 2


def test_a_send_without_a_place_can_be_refused_too():
    one = Send(
        id="a",
        destinations=(Target(text="local.docs", place=None),),
        message=FileMessage(path="a.org", place=None),
        sign=None,
        retry=Retry(),
        place=None,
    )
    found = findings(source([one, send("b", "local.docs")], _two()))

    assert found[0].related == ()


def test_an_id_given_in_two_manifests_is_refused():
    here, there = Place(file="one.yaml", line=3, column=5), Place(file="two.yaml", line=8, column=5)
    found = findings(
        source([send("a", "local.docs", place=here)], [message("one")]),
        source([send("a", "local.site", place=there)], [message("two")]),
    )

    assert [one.code for one in found] == ["duplicate-id"]
    assert found[0].place == there
    assert found[0].related[0][0] == here


def test_every_wrong_destination_is_found_and_the_exit_code_is_theirs():
    with pytest.raises(InvalidInput) as refused:
        planned(source([send("a", "nowhere.docs", "laptop.docs", "docs", "local.../x")], [message()]))

    assert [one.code for one in refused.value.diagnostics] == [
        "unknown-peer",
        "malformed-destination",
        "unsafe-destination",
    ]
    assert [one.place.column for one in refused.value.diagnostics if one.place] == [1, 3, 4]
    assert refused.value.exit_code is ExitCode.DESTINATION


def test_a_wrong_destination_a_doubled_sequence_and_a_policy_are_found_together():
    found = findings(
        source([send("a", "nowhere.docs"), send("b", "local.docs"), send("c", "local.docs")], [message(), *_two()]),
        peers="[policy]\nrequire_signed = true\nmax_deliveries = 1\n",
    )

    assert [one.code for one in found] == ["unknown-peer", "doubled-sequence", "policy", "policy", "policy"]


def test_an_unsigned_send_is_refused_where_the_policy_wants_signatures():
    found = findings(source([send("a", "local.docs")], [message()]), peers="[policy]\nrequire_signed = true\n")

    assert [one.code for one in found] == ["policy"]
    assert "`a` is not signed" in found[0].message
    assert "peers.toml" in (found[0].hint or "")


def test_a_signed_send_passes_the_policy():
    made = planned(
        source([send("a", "local.docs", sign=Sign())], [message()]), peers="[policy]\nrequire_signed = true\n"
    )

    assert len(made.deliveries) == 1


def test_more_deliveries_than_the_policy_allows_are_refused():
    found = findings(
        source([send("a", "local.docs", "local.site")], [message()]), peers="[policy]\nmax_deliveries = 1\n"
    )

    assert "2 deliveries" in found[0].message
    assert "`max_deliveries = 1`" in found[0].message


def test_as_many_deliveries_as_the_policy_allows_pass():
    made = planned(source([send("a", "local.docs", "local.site")], [message()]), peers="[policy]\nmax_deliveries = 2\n")

    assert len(made.deliveries) == 2


def _two() -> list[Message]:
    return [message(body="one"), message(body="two")]

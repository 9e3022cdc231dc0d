"""Shards: every host in one of them, with whatever its order depends on; and several at once, on real hosts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import Home, Run
from test_planner import CLOCK  # the clock of every plan in these tests

from cas.inventory import Destination
from cas.manifest import Retry
from cas.plan import SKIP, Delivery, Plan, PlannedMessage
from cas.shards import Shard, part

NAMES = st.lists(st.from_regex(r"[a-z]{1,8}(\.[a-z]{1,4})?", fullmatch=True), unique=True, max_size=40)


def delivery(host: str | None, send: str = "all", *, lane: str = "", after: tuple[str, ...] = ()) -> Delivery:
    address = f"{host or 'local'}.docs"
    return Delivery(
        id=f"{send}@{address}",
        identity=f"{send}-{address}",
        sender="builder",
        lane=lane or f"{address}/{send}",
        message=PlannedMessage(source="m", digest="d", bytes=1, conversation="c", type="request", sequence=1),
        destination=Destination(
            address=address,
            host=host,
            port=None,
            user=None,
            inbox="~/inbox",
            transport="sftp" if host else "local",
            identity_file=None,
            host_key=None,
        ),
        files=("m.org",),
        sign=None,
        retry=Retry(),
        send=send,
        after=after,
    )


def plan(*deliveries: Delivery) -> Plan:
    return Plan(
        clock=CLOCK, expires=None, name="m", sender="b", tool_version="0", inputs=(), deliveries=tuple(deliveries)
    )


def dealt(whole: Plan, of: int) -> list[Plan]:
    return [part(whole, Shard(number=number, of=of)) for number in range(1, of + 1)]


def hosts(some: Plan) -> set[str | None]:
    return {one.destination.host for one in some.deliveries}


@given(NAMES, st.integers(1, 12))
def test_together_the_shards_are_the_plan_and_no_two_have_a_delivery_in_common(names: list[str], of: int):
    whole = plan(*(delivery(name, send) for send in ("one", "two") for name in names), delivery(None))

    shards = dealt(whole, of)

    found = Counter(one.id for shard in shards for one in shard.deliveries)
    assert found == Counter(one.id for one in whole.deliveries)
    assert sum(len(hosts(shard)) for shard in shards) == len(hosts(whole))


@given(NAMES, st.integers(1, 12))
def test_a_shard_keeps_the_order_of_the_plan_and_all_else_that_it_says(names: list[str], of: int):
    whole = plan(*(delivery(name, send) for send in ("one", "two") for name in names))

    for shard in dealt(whole, of):
        kept = [one for one in whole.deliveries if one in shard.deliveries]
        assert list(shard.deliveries) == kept
        assert replace(shard, deliveries=whole.deliveries) == whole


def test_a_host_stays_in_its_shard_when_others_come_and_go():
    few = plan(*(delivery(f"host-{number}") for number in range(0, 100, 3)))
    many = plan(*(delivery(f"host-{number}") for number in range(100)))

    for before, after in zip(dealt(few, 4), dealt(many, 4), strict=True):
        assert hosts(before) <= hosts(after)


def test_where_a_host_goes_is_for_good():
    """Other machines, and other versions of cas, have to deal alike: these are never to change."""
    whole = plan(*(delivery(name) for name in ("forge", "laptop", "ratio.tailnet.ts.net", "127.0.1.7")), delivery(None))

    found = {one.destination.host: n for n, shard in enumerate(dealt(whole, 4), 1) for one in shard.deliveries}

    assert found == {"forge": 2, "laptop": 3, "ratio.tailnet.ts.net": 3, "127.0.1.7": 4, None: 2}


def test_hosts_spread_over_the_shards():
    whole = plan(*(delivery(f"host-{number}") for number in range(1000)))

    sizes = [len(shard.deliveries) for shard in dealt(whole, 10)]

    assert min(sizes) > 70
    assert max(sizes) < 130


def test_a_name_in_capitals_is_the_same_host():
    whole = plan(delivery("Forge", "one"), delivery("forge", "two"))

    assert sorted(len(shard.deliveries) for shard in dealt(whole, 50))[-2:] == [0, 2]


def test_hosts_that_wait_for_one_another_stay_together():
    """Nobody who delivers one shard knows what became of another."""
    names = [f"host-{number}" for number in range(40)]
    whole = plan(
        *(delivery(name, "alone") for name in names),
        delivery("forge", "first"),
        *(delivery(name, "second", after=("first",)) for name in names[:3]),
        delivery("laptop", "third", after=("second",)),
    )

    (together,) = {n for n, shard in enumerate(dealt(whole, 8)) if hosts(shard) & {"forge", "laptop", *names[:3]}}

    assert {"forge", "laptop", *names[:3]} <= hosts(dealt(whole, 8)[together])
    assert sum(1 for shard in dealt(whole, 8) if shard.deliveries) > 1


def test_hosts_that_wait_for_an_item_of_a_loop_stay_together():
    whole = plan(
        delivery("forge", "stage[build]"),
        delivery("anvil", "stage[test]"),
        *(delivery(f"host-{number}", "report", after=("stage[build]",)) for number in range(20)),
    )

    shards = [shard for shard in dealt(whole, 30) if "forge" in hosts(shard)]

    assert len(shards[0].deliveries) == 21
    assert all("anvil" not in hosts(shard) for shard in shards)


def test_two_names_of_one_machine_in_a_lane_stay_together():
    whole = plan(*(delivery(f"name-{number}", f"s{number}", lane="one/lane") for number in range(10)))

    assert sorted(len(shard.deliveries) for shard in dealt(whole, 5)) == [0, 0, 0, 0, 10]


def test_what_is_skipped_is_in_one_shard_too():
    whole = plan(*(replace(delivery(f"host-{number}"), action=SKIP) for number in range(10)))

    assert sum(len(shard.deliveries) for shard in dealt(whole, 3)) == 10


@pytest.mark.parametrize(
    "text", ["0/4", "5/4", "1", "/", "1/0", "a/b", "-1/4", "1/4/2", "\u0661/\u0664", "1 /4", "1/9999999"]
)
def test_a_shard_that_is_none_is_wrong_usage(cas: Callable[..., Run], text: str):
    run = cas("apply", "release.plan", "--shard", text)

    assert run.code == 64
    assert "--shard" in run.err
    assert "nothing was sent" in run.err


def written(home: Home, destinations: list[str], *, sign: object = False) -> None:
    sends = [{"id": "all", "destination": destinations, "message": "hello.org"}]
    manifest = {"cas": 1, "name": "fleet", "sender": "builder", "defaults": {"sign": sign}, "sends": sends}
    Path("m.yaml").write_text(json.dumps(manifest), encoding="utf-8")


def test_a_manifest_has_no_shards(cas: Callable[..., Run], home: Home, message: Callable[..., Path]):
    message("hello.org")
    written(home, ["local.docs"])

    run = cas("apply", "m.yaml", "--shard", "1/2")

    assert (run.code, home.inbox("docs").exists()) == (64, False)
    assert "cas plan" in run.err


def test_an_empty_shard_says_where_the_rest_is(cas: Callable[..., Run], home: Home, message: Callable[..., Path]):
    message("hello.org")
    written(home, ["local.docs", "local.site"])
    cas("plan", "m.yaml", "-o", "m.plan")

    runs = [cas("apply", "m.plan", "--shard", f"{number}/2") for number in (1, 2)]

    assert [run.code for run in runs] == [0, 0]
    (empty,) = (run for run in runs if not run.out)
    assert "0 of 2 deliveries, to 0 of 1 hosts; the other shards have all of it" in empty.err
    assert len(list(home.inbox("docs").glob("*.org"))) == 1

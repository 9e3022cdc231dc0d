"""Shards: a plan's hosts dealt out, so that several machines deliver one plan, each its part of it. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from cas.plan import Delivery, Plan, loop_of

LOCAL = ""
"""Stands for the applying machine: no host has this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One of `of` parts, counted from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def part(plan: Plan, shard: Shard) -> Plan:
    """The plan with a shard's deliveries alone. All shards together are the plan, and no two have a host in common.

    Where a host goes depends on its name and on the number of shards. Hosts between which something has to keep its
    order, by `after` or in one lane, go together, by the name that sorts first: a shard waits for no other.
    """
    first = _together(plan.deliveries)
    mine = {host for host, name in first.items() if _number(name, shard.of) == shard.number}
    return replace(plan, deliveries=tuple(one for one in plan.deliveries if host_of(one) in mine))


def host_of(delivery: Delivery) -> str:
    """The name of a delivery's host; LOCAL for the applying machine."""
    host = delivery.destination.host
    return LOCAL if host is None else host.lower()


def _number(name: str, of: int) -> int:
    return int.from_bytes(sha256(name.encode()).digest()) % of + 1


def _together(deliveries: Sequence[Delivery]) -> Mapping[str, str]:
    """Of each host, the first by name of those that it has to go with."""
    awaited = {name for delivery in deliveries for name in delivery.after}
    parents: dict[Hashable, Hashable] = {}

    def root(node: Hashable) -> Hashable:
        parents.setdefault(node, node)
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    for delivery in deliveries:
        for tie in _ties(delivery, awaited):
            parents[root(("host", host_of(delivery)))] = root(tie)
    hosts = sorted({host_of(delivery) for delivery in deliveries})
    first: dict[Hashable, str] = {}
    for host in hosts:
        first.setdefault(root(("host", host)), host)
    return {host: first[root(("host", host))] for host in hosts}


def _ties(delivery: Delivery, awaited: set[str]) -> Iterator[Hashable]:
    """What keeps a delivery's host together with others: its lane, sends that it waits for, or is waited for as."""
    yield "lane", delivery.lane
    for name in (*delivery.after, *({delivery.send, loop_of(delivery.send)} & awaited)):
        yield "send", name

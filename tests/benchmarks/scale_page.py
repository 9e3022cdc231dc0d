"""What was measured of many hosts as docs/reference/scale.md, and as the figures of docs/explanation/scale.md.

python -m benchmarks.scale_page makes both anew. Pure, but for `write`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.simulation import Costs, Fleet, bounds, estimate, narrowest, sharded, simulated

DOCS = Path(__file__).resolve().parents[2] / "docs"
COUNTS, PAGE = (DOCS / "reference" / f"scale.{kind}" for kind in ("json", "md"))
EXPLANATION = DOCS / "explanation" / "scale.md"
PARTS = ("hosts", "talk", "batches", "signing", "commit", "round trips")
BEGIN, END = (
    "<!-- {name}: from docs/reference/scale.json, by tests/benchmarks/scale_page.py -->",
    "<!-- end of {name} -->",
)
HOSTS, MESSAGES, ROUND_TRIP, THREADS = 10_000, 100, 0.05, 32
"""What is predicted: so many hosts, one message or so many to each, so many seconds there and back, and so many threads
a worker: a batch waits for the network most of its time."""
PREDICTED = (0, 4, 16, 64)
SHARDS = ((4, 0), (16, 0), (4, 16), (16, 16))
"""Shards, and the workers of each."""
HEAD = """# Scale

`cas apply` over many hosts, by threads and by Dask, in one run: `./do scale` measures it and writes this page. What it
means for ten thousand hosts is in [the explanation](../explanation/scale.md).

All of it ran on one machine, the hosts too: an sshd for every 13 addresses of 127.0.0.0/8. So seconds of the clock say
little of a cluster: coordinator, workers and hosts share the processors. What counts is the time of processors that
each of them took. What a worker takes is taken off the coordinator.
"""
Kept = Mapping[str, Any]
Row = Sequence[object]


def page(kept: Kept) -> str:
    """The reference page for what was measured."""
    return "\n".join([HEAD, *_reference(kept)])


def explanation(text: str, kept: Kept) -> str:
    """The explanation with its figures made anew."""
    for name, lines in _blocks(kept).items():
        begin, end = BEGIN.format(name=name), END.format(name=name)
        before, rest = text.split(begin)
        _, after = rest.split(end)
        text = "\n".join([f"{before}{begin}", "", *lines, "", f"{end}{after}"])
    return text


def write(kept: Kept) -> None:
    """Write figures, what is predicted from them, and both pages."""
    kept = {**kept, "predicted": predicted(kept), "checked": checked(kept)}
    COUNTS.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    PAGE.write_text(page(kept), encoding="utf-8")
    EXPLANATION.write_text(explanation(EXPLANATION.read_text(encoding="utf-8"), kept), encoding="utf-8")


def costs(kept: Kept, *, dask: bool, far: bool = False) -> Costs:
    """What each step costs, from what was measured; with 0 or 1 worker. `far`: with the round trips of hosts there."""
    engine = str(int(dask))
    few, many, talk = (kept["batches"][f"{engine}, {size}"] for size in ("1000", "10000", "talk"))
    one = (many["coordinator"] - few["coordinator"]) / (many["batches"] - few["batches"])
    start = max(0.0, few["coordinator"] - one * few["batches"])
    extra = talk["batches"] * (talk["messages"] - 1)
    delivery = max(0.0, (talk["coordinator"] - start - one * talk["batches"]) / extra)
    signature = kept["signing"]["each"]
    if dask:  # with hosts it waits longer for each, which is not for nothing
        reached = kept["hosts"]["1"]
        one = max(one, (reached["coordinator"] - start - signature["coordinator"]) / reached["hosts"])
    hosts, talkers = kept["hosts"][engine], kept["talk"][engine]
    single = _working(hosts, start, one, signature["coordinator"], dask=dask)
    whole = _working(talkers, start, one + delivery * (talkers["messages"] - 1), signature["coordinator"], dask=dask)
    work = max(0.0, (whole - single) / (talkers["messages"] - 1))
    host, hosted = hosts["sshd"] / hosts["hosts"], talkers["sshd"] / talkers["hosts"]
    hosting = max(0.0, (hosted - host) / (talkers["messages"] - 1))
    return Costs(
        start=start,
        batch=one - delivery,
        delivery=delivery,
        scheduler=hosts["scheduler"] / hosts["hosts"],
        work=single - work,
        work_delivery=work,
        host=host - hosting,
        host_delivery=hosting,
        signature=signature["seconds"],
        commit=kept["commit"]["each"]["seconds"],
        trips=kept["round trips"]["a host"]["1"] if far else 0,
    )


def _working(row: Kept, start: float, coordinating: float, signature: float, *, dask: bool) -> float:
    """Seconds for a batch of whoever logged in."""
    if dask:
        return float(row["workers"]) / row["hosts"]
    own = row["coordinator"] - start - signature * row["messages"] - row["hosts"] * coordinating
    return max(0.0, own / row["hosts"])


def measured_fleet(kept: Kept, workers: int) -> Fleet:
    """The run of so many workers, with the processors that other work on the machine left to it."""
    row = kept["hosts"][str(workers)]
    left = kept["cores"] - row["others"] / row["seconds"]
    return Fleet(hosts=row["hosts"], workers=workers, threads=kept["threads a worker"], shared=left)


def checked(kept: Kept) -> dict[str, dict[str, float]]:
    """Of each measured run: seconds, those of simulation and arithmetic, and how far the simulation is off."""
    found = {}
    for name, row in kept["hosts"].items():
        given, fleet = costs(kept, dask=name != "0"), measured_fleet(kept, int(name))
        seconds = simulated(given, fleet)
        found[name] = {
            "measured": row["seconds"],
            "simulated": round(seconds, 1),
            "arithmetic": round(estimate(given, fleet), 1),
            "error": round(seconds / row["seconds"] - 1, 3),
        }
    return found


def fleets(kept: Kept) -> Iterator[tuple[str, int, Fleet]]:
    """What is predicted: a name, the number of shards, and what each shard is."""
    for messages in (1, MESSAGES):
        whole = Fleet(
            hosts=HOSTS,
            messages=messages,
            distinct=messages,
            threads=THREADS,
            round_trip=ROUND_TRIP,
        )
        for shards, workers in (*((1, workers) for workers in PREDICTED), *SHARDS):
            fleet = sharded(Fleet(**{**_fields(whole), "workers": workers}), shards)
            yield f"{messages}, {shards}, {workers}", shards, fleet


def _fields(fleet: Fleet) -> dict[str, Any]:
    return {name: getattr(fleet, name) for name in Fleet.__dataclass_fields__}


def predicted(kept: Kept) -> dict[str, dict[str, Any]]:
    """Seconds by simulation and by arithmetic, and what is narrowest."""
    found = {}
    for name, _, fleet in fleets(kept):
        given = costs(kept, dask=fleet.workers > 0, far=True)
        found[name] = {
            "simulated": round(simulated(given, fleet)),
            "arithmetic": round(estimate(given, fleet)),
            "narrowest": narrowest(given, fleet),
        }
    return found


# The reference


def _reference(kept: Kept) -> Iterator[str]:
    around = dict(kept["surroundings"])
    machine = around.pop("machine")
    versions = ", ".join(f"{name} {value}" for name, value in around.items())
    yield f"Run on {machine}, with {versions}; {kept['threads a worker']} threads a worker.\n"
    first = kept["hosts"]["0"]
    yield f"## 1 message to each of {first['hosts']:,} hosts\n"
    heads = ("engine", "seconds", "coordinator", "scheduler", "workers", "sshd", "others", "MB")
    yield from _table(heads, (_run(name, row) for name, row in kept["hosts"].items()))
    yield (
        "\nSeconds of the clock; of processors: of `cas apply`, of Dask's scheduler and workers, of all sshds; of what"
        " else ran on the machine meanwhile, and took it from all of them. The most memory of `cas apply`. The message"
        " is signed, once. A cluster stood before the run began, and its workers had delivered before.\n"
    )
    talk = kept["talk"]["0"]
    yield f"## {talk['messages']} messages to each of {talk['hosts']} hosts\n"
    yield from _table(heads, (_run(name, row) for name, row in kept["talk"].items()))
    yield "\n## What each batch costs the coordinator\n"
    yield (
        "`cas apply`, but the work reaches no host: it says at once that all was published. Plan, ledger, locks, order"
        " and words are there.\n"
    )
    yield from _table(
        ("engine", "batches", "messages each", "seconds", "coordinator", "scheduler", "workers", "others", "MB"),
        (_batches(name, row) for name, row in kept["batches"].items()),
    )
    yield ""
    yield from _table(("of the coordinator's processor", "threads", "Dask"), _each(kept))
    yield "\n## What else is in the arithmetic\n"
    signing, commit, trips = kept["signing"]["each"], kept["commit"]["each"], kept["round trips"]["a host"]
    yield from _table(
        ("", ""),
        [
            ("a signature, seconds of the clock, several gpg at a time", f"{1000 * signing['seconds']:.1f} ms"),
            ("a transaction of the ledger, seconds of the clock", f"{1000 * commit['seconds']:.1f} ms"),
            ("round trips for a host, 1 message", f"{trips['1']:.0f}"),
            (f"round trips for a host, {MESSAGES} messages", f"{trips[str(MESSAGES)]:.0f}"),
        ],
    )
    yield ""


def _run(name: str, row: Kept) -> Row:
    keys = ("seconds", "coordinator", "scheduler", "workers", "sshd", "others")
    return (_engine(int(name)), *(f"{row[key]:.1f}" for key in keys), row["memory"])


def _batches(name: str, row: Kept) -> Row:
    keys = ("seconds", "coordinator", "scheduler", "workers", "others")
    engine = _engine(int(name.partition(",")[0]))
    return (engine, f"{row['batches']:,}", row["messages"], *(f"{row[key]:.1f}" for key in keys), row["memory"])


def _engine(workers: int) -> str:
    return f"Dask, {workers} worker{'s' * (workers > 1)}" if workers else "threads"


def _each(kept: Kept) -> Iterator[Row]:
    threads, dask = costs(kept, dask=False), costs(kept, dask=True)
    for words, name in (
        ("start", "start"),
        ("a batch", "batch"),
        ("a delivery in it", "delivery"),
        ("SSH for a batch of one, by who logs in", "work"),
        ("SSH for one message more", "work_delivery"),
    ):
        yield (words, *(f"{1000 * getattr(one, name):.1f} ms" for one in (threads, dask)))


# The explanation


def _blocks(kept: Kept) -> dict[str, list[str]]:
    return {
        "costs": list(_costs(kept)),
        "check": list(_check(kept)),
        "bounds": list(_bounds(kept)),
        "prediction": list(_prediction(kept)),
        "ceiling": list(_ceiling(kept)),
    }


def _costs(kept: Kept) -> Iterator[str]:
    threads, dask = costs(kept, dask=False, far=True), costs(kept, dask=True, far=True)
    rows = (
        ("`start`", "the coordinator, once", "start", "s"),
        ("`batch`", "the coordinator, for each batch", "batch", "ms"),
        ("`delivery`", "the coordinator, for each delivery", "delivery", "ms"),
        ("`scheduler`", "Dask's scheduler, for each batch", "scheduler", "ms"),
        ("`work`", "whoever logs in, for each batch", "work", "ms"),
        ("`work_delivery`", "whoever logs in, for each delivery", "work_delivery", "ms"),
        ("`host`", "the other side, for each batch", "host", "ms"),
        ("`host_delivery`", "the other side, for each delivery", "host_delivery", "ms"),
        ("`signature`", "the clock, for each signature", "signature", "ms"),
        ("`commit`", "the clock, for a transaction of the ledger", "commit", "ms"),
        ("`trips`", "round trips of a batch", "trips", ""),
    )

    def told(one: Costs, name: str, unit: str) -> str:
        value = getattr(one, name)
        return f"{1000 * value:.1f} ms" if unit == "ms" else f"{value:.1f} {unit}".strip()

    yield from _table(
        ("", "of", "threads", "Dask"),
        ((name, of, told(threads, key, unit), told(dask, key, unit)) for name, of, key, unit in rows),
    )


def _check(kept: Kept) -> Iterator[str]:
    yield from _table(
        ("engine", "measured", "simulated", "off by", "arithmetic", "processors that others left"),
        (
            (
                _engine(int(name)),
                f"{row['measured']:.1f} s",
                f"{row['simulated']:.1f} s",
                f"{100 * row['error']:+.0f} %",
                f"{row['arithmetic']:.1f} s",
                f"{measured_fleet(kept, int(name)).shared:.2f}",
            )
            for name, row in kept["checked"].items()
        ),
    )


def _bounds(kept: Kept) -> Iterator[str]:
    """The arithmetic, written out for one fleet."""
    fleet = Fleet(hosts=HOSTS, workers=16, threads=THREADS, round_trip=ROUND_TRIP)
    given = costs(kept, dask=True, far=True)
    found = bounds(given, fleet)
    away = f"`host` + `host_delivery` + `trips` x {1000 * ROUND_TRIP:.0f} ms"
    told = {
        "coordinator": f"{HOSTS:,} x (`batch` + `delivery`)",
        "scheduler": f"{HOSTS:,} x `scheduler`",
        "workers": f"{HOSTS:,} x (`work` + `work_delivery`) / 16",
        "threads": f"{HOSTS:,} x (`work` + `work_delivery` + {away}) / (16 x {fleet.threads})",
        "places": f"{HOSTS:,} x (all of these + 2 x `commit`) / {fleet.places}",
    }
    yield from _table(("what may be narrowest", "", "seconds"), ((n, told[n], f"{found[n]:.0f}") for n in told))


def _prediction(kept: Kept) -> Iterator[str]:
    def rows() -> Iterator[Row]:
        for name, shards, fleet in fleets(kept):
            row = kept["predicted"][name]
            by = _engine(fleet.workers)
            by = by if shards == 1 else f"{shards} shards, each {by}"
            whole = f"{HOSTS * fleet.messages:,}"
            yield (whole, by, _time(row["simulated"]), _time(row["arithmetic"]), row["narrowest"])

    yield from _table(("deliveries", "by", "simulated", "arithmetic", "narrowest"), rows())


def _ceiling(kept: Kept) -> Iterator[str]:
    given = costs(kept, dask=True, far=True)
    one, many = 1 / (given.batch + given.delivery), MESSAGES / (given.batch + given.delivery * MESSAGES)
    threads = costs(kept, dask=False)
    login = threads.work + threads.work_delivery
    needed = (given.work + given.work_delivery) / (given.batch + given.delivery)
    yield f"- One coordinator with Dask hands out {one:,.0f} batches of one message a second: that is its ceiling,"
    yield f"  {needed:.0f} workers reach it, and a further one adds nothing."
    yield f"- With {MESSAGES} messages to each host it is {many:,.0f} deliveries a second."
    own = threads.batch + threads.delivery
    yield f"- By threads a batch of one costs it {1000 * login:.0f} ms of SSH beside {1000 * own:.1f} ms of its own."
    signed = given.signature * HOSTS, given.signature * HOSTS * MESSAGES
    yield f"- Where no two messages are the same, signatures come first: {_time(signed[0])} for {HOSTS:,},"
    yield f"  {_time(signed[1])} for {HOSTS * MESSAGES:,}, with one gpg-agent."


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _table(heads: Sequence[str], rows: Any) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "| --- |" + " ---: |" * (len(heads) - 1)
    for row in rows:
        yield "| " + " | ".join(map(str, row)) + " |"


def main() -> None:
    write(json.loads(COUNTS.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()

"""Many hosts, by threads and by Dask, in one run, into docs/reference/scale.json and the pages made of it.

python -m benchmarks.scale [--hosts N] [--only PART] [--quick]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import scale_page, usage, ways
from benchmarks.bench import program, said, say, timed
from benchmarks.delay import Delay
from benchmarks.scene import HOSTS_A_SERVER, Scene, scene
from cluster import cluster

HOSTS = 1_000
WORKERS = (1, 2, 4)
THREADS_A_WORKER = 8
FEW, MANY = 1_000, 10_000
"""Batches, in the parts that reach no host."""
TALKERS, TALK = 20, 100
"""Hosts, and messages to each of them, for what one more message costs."""
FAR = (0.5, 2.5)
COMMITS = 200
TESTS = Path(__file__).resolve().parents[1]
IDLE = "import sys; from benchmarks import idle; sys.exit(idle.main(*sys.argv[1:]))"
"""By this name the workers know it too: what stands in the main module would travel with each work."""
Row = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dask:
    """A cluster of this machine's: what `--engine` calls it, and its processes."""

    engine: str
    scheduler: int
    workers: tuple[int, ...]


@contextmanager
def started(folder: Path, workers: int) -> Iterator[Dask]:
    """A scheduler, and workers in one process each; ended afterwards."""
    environment = {"PYTHONPATH": f"{TESTS.parent}:{TESTS}"}
    with cluster(folder, workers=0, environment=environment) as made, ExitStack() as stack:
        size = ("--nthreads", str(THREADS_A_WORKER))
        processes = [stack.enter_context(made.worker(f"worker-{number}", *size)) for number in range(workers)]
        pids = tuple(process.pid for process in processes)
        yield Dask(engine=made.engine, scheduler=made.scheduler.pid, workers=pids)


def hosts(at: Scene, count: int, messages: int, workers: int, number: Iterator[int]) -> Row:
    """So many messages to each of so many hosts; `workers`: 0 for the threads of one process."""
    servers = [peer.process_id for peer in at.peers]
    with _engine(at, workers, number) as dask:
        if dask:  # a cluster stands before a run begins, and its workers have loaded what they need
            _delivered(at, min(count, 2 * THREADS_A_WORKER * workers), 1, dask, number)
        own = [dask.scheduler, *dask.workers] if dask else []
        usage.left_behind([*servers, *own])
        before = [usage.processor(some) for some in (servers, dask.workers if dask else (), own[:1])]
        used, busy = _delivered(at, count, messages, dask, number)
        _settled(servers)
        after = [usage.processor(some) for some in (servers, dask.workers if dask else (), own[:1])]
        sshd, working, scheduling = (late - early for late, early in zip(after, before, strict=True))
        sshd += usage.left_behind([*servers, *own])
    return {
        "hosts": count,
        "messages": messages,
        "seconds": round(used.seconds, 2),
        "coordinator": round(used.processor, 2),
        "workers": round(working, 2),
        "scheduler": round(scheduling, 2),
        "sshd": round(sshd, 2),
        "others": round(max(0.0, busy - used.processor - working - scheduling - sshd), 2),
        "memory": round(used.memory),
    }


@contextmanager
def _engine(at: Scene, workers: int, number: Iterator[int]) -> Iterator[Dask | None]:
    if not workers:
        yield None
        return
    with started(at.folder / f"dask-{next(number)}", workers) as made:
        yield made


def _delivered(
    at: Scene, count: int, messages: int, dask: Dask | None, number: Iterator[int]
) -> tuple[usage.Used, float]:
    """What the run took; and for how many seconds all processors of this machine were at work meanwhile."""
    job = at.job(f"n{next(number)}-hosts", messages, hosts=count)
    manifest, home = ways.cas_manifest(job)
    words = (program("cas"), "apply", manifest, "--quiet", *(dask.options_here if dask else ()))
    before = usage.busy()
    used = usage.ran(words, {**at.environment, "HOME": str(home)}, job.folder)
    busy = usage.busy() - before
    job.delivered()
    shutil.rmtree(job.folder)
    return used, busy


def _settled(servers: Sequence[int]) -> None:
    """Wait until the last sessions have ended, and count."""
    before = -1.0
    while (now := usage.processor(servers)) != before:
        before = now
        time.sleep(1)


def batches(at: Scene, count: int, messages: int, workers: int, number: Iterator[int], *, sign: bool = False) -> Row:
    """So many batches of so many messages, whose work is none."""
    folder = at.folder / f"n{next(number)}-idle"
    manifest, home = idle_manifest(folder, count, messages, sign=at.key.fingerprint if sign else None)
    with _engine(at, workers, number) as dask:
        own = [dask.scheduler, *dask.workers] if dask else []
        before = [usage.processor(own[:1]), usage.processor(own[1:])]
        environment = {**at.environment, "HOME": str(home), "PYTHONPATH": str(TESTS)}
        words = (sys.executable, "-c", IDLE, manifest, dask.engine if dask else "threads")
        busy = usage.busy()
        used = usage.ran(words, environment, folder)
        busy = usage.busy() - busy
        scheduling, working = usage.processor(own[:1]) - before[0], usage.processor(own[1:]) - before[1]
    shutil.rmtree(folder)
    return {
        "batches": count,
        "messages": messages,
        "seconds": round(used.seconds, 2),
        "coordinator": round(used.processor, 2),
        "scheduler": round(scheduling, 2),
        "workers": round(working, 2),
        "others": round(max(0.0, busy - used.processor - working - scheduling), 2),
        "memory": round(used.memory),
    }


def idle_manifest(folder: Path, hosts: int, messages: int, sign: str | None) -> tuple[Path, Path]:
    """A manifest for hosts that nobody connects to, and a home; no two of its messages are the same."""
    home = folder / "home"
    config = home / ".config" / "cross-agent-comms"
    config.mkdir(parents=True)
    names = [f"h{number}.docs" for number in range(hosts)]
    peers = "".join(f'[peers.h{number}]\nssh_user = "agent"\n' for number in range(hosts))
    (config / "peers.toml").write_text(f"{peers}[groups]\nall = {json.dumps(names)}\n", encoding="utf-8")
    body = "What is to be done stands here, and why.\\n" * 45
    (folder / "idle.yaml").write_text(
        f"cas: 1\nsender: bench\ndefaults: {{sign: {json.dumps({'key': sign} if sign else False)}}}\nsends:\n"
        + "".join(
            f'  - {{id: m{one}, destination: "@all", message: {{conversation: talk, type: request, '
            f'sequence: {one + 1}, body: "{body}"}}}}\n'
            for one in range(messages)
        ),
        encoding="utf-8",
    )
    return folder / "idle.yaml", home


def signing(at: Scene, number: Iterator[int]) -> Row:
    """What each signature adds, with messages that differ, to a run that reaches nobody."""
    plain, signed = (batches(at, 1, FEW, 0, number, sign=sign) for sign in (False, True))
    keys = ("seconds", "coordinator")
    return {key: round((signed[key] - plain[key]) / FEW, 5) for key in keys}


def commit(at: Scene, number: Iterator[int]) -> Row:
    """Seconds for one transaction of the ledger: the median."""
    from cas.ledger import Entry, Ledger

    folder = at.folder / f"n{next(number)}-ledger"
    times = []
    with closing(Ledger(folder)) as ledger:
        fields: dict[str, Any] = dict.fromkeys(Entry.__dataclass_fields__, "")
        fields |= {"sequence": 1, "size": 0, "signed": False, "repeatable": True, "signature": None}
        for one in range(COMMITS):
            entry = Entry(**{**fields, "identity": str(one), "state": "open", "message": bytes(2_000)})
            times.append(timed(lambda entry=entry: ledger.intend([entry])))
    return {"seconds": round(median(times), 5)}


def round_trips(at: Scene, number: Iterator[int]) -> Row:
    """How many a host takes, from what each delay adds."""
    ports = {delay: Delay(at.peers[0].port, delay).port for delay in FAR}
    found = {}
    for messages in (1, TALK):
        took = {}
        for delay, port in ports.items():
            job = at.job(f"n{next(number)}-far", messages, port=port)
            manifest, home = ways.cas_manifest(job)
            peers = home / ".config" / "cross-agent-comms" / "peers.toml"
            # What `auto` takes at that distance, if it is the kernel that knows it.
            peers.write_text(
                peers.read_text(encoding="utf-8").replace("[peers.h0]", '[peers.h0]\ntransport = "python"')
            )
            words = (program("cas"), "apply", manifest, "--quiet")
            took[delay] = timed(lambda words=words, home=home: at.run(*words, HOME=str(home)))
            job.delivered()
        near, far = FAR
        found[str(messages)] = round((took[far] - took[near]) / (far - near), 1)
    return found


def surroundings() -> dict[str, str]:
    """The machine, what ran on it, and how busy it was."""
    names = ("distributed", "fabric", "paramiko")
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release().split('-')[0]}",
        "Python": platform.python_version(),
        "OpenSSH": said("ssh", "-V").split(",")[0].removeprefix("OpenSSH_"),
        **{name: importlib.metadata.version(name) for name in names},
    }


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=HOSTS)
    parser.add_argument("--only", choices=scale_page.PARTS)
    parser.add_argument("--quick", action="store_true", help="few of everything; nothing is written")
    chosen = parser.parse_args(arguments)
    count = 20 if chosen.quick else chosen.hosts
    few, many = (20, 100) if chosen.quick else (FEW, MANY)
    kept: dict[str, Any] = {}
    if chosen.only and scale_page.COUNTS.exists():
        kept = json.loads(scale_page.COUNTS.read_text(encoding="utf-8"))
    kept |= {"surroundings": surroundings(), "cores": os.cpu_count(), "threads a worker": THREADS_A_WORKER}
    number = iter(range(1_000_000))
    usage.adopt()
    folder = Path(tempfile.mkdtemp(prefix="cas-scale-"))

    def wanted(part: str) -> bool:
        return chosen.only in (None, part)

    def keep(part: str, name: str, measure: Callable[[], Row]) -> None:
        """At once: what is measured last may fail."""
        before = os.getloadavg()[0]
        found = measure()
        kept.setdefault(part, {})[name] = {**found, "load before": round(before, 1)}
        say(f"{part}, {name}: {kept[part][name]}")
        if not chosen.quick:
            scale_page.COUNTS.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")

    try:
        with scene(folder, servers=-(-count // HOSTS_A_SERVER)) as at:
            for workers in (0, *WORKERS) if wanted("hosts") else ():
                keep("hosts", str(workers), lambda workers=workers: hosts(at, count, 1, workers, number))
            for workers in (0, 1) if wanted("talk") else ():
                keep("talk", str(workers), lambda w=workers: hosts(at, min(TALKERS, count), TALK, w, number))
            for workers in (0, 1) if wanted("batches") else ():
                for size in (few, many):
                    keep("batches", f"{workers}, {size}", lambda w=workers, size=size: batches(at, size, 1, w, number))
                keep("batches", f"{workers}, talk", lambda w=workers: batches(at, many // 100, 100, w, number))
            if wanted("signing"):
                keep("signing", "each", lambda: signing(at, number))
            if wanted("commit"):
                keep("commit", "each", lambda: commit(at, number))
            if wanted("round trips"):
                keep("round trips", "a host", lambda: round_trips(at, number))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not chosen.quick:
        scale_page.write(kept)


if __name__ == "__main__":
    main(sys.argv[1:])

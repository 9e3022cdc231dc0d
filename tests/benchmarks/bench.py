"""cas beside its peers, in one run, into docs/reference/performance.json and the page made of it.

python -m benchmarks.bench [--quick] [--rounds N] [--only SCENARIO]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import pty
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import page, ways
from benchmarks.delay import Delay
from benchmarks.scene import Scene, scene

FAR = (0.050, 0.150)
"""Seconds of a round trip; the slope between the two gives how many there are."""
START_ROUNDS = 10
LARGE, SMALL, SMALLEST = 10_000, 1_000, 100
Measured = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """`some`: ways that take so long that they get that many messages, and their time is multiplied."""

    name: str
    count: int
    hosts: int = 1
    ways: tuple[ways.Way, ...]
    some: Mapping[ways.Way, int] | None = None
    round_trip: float | None = None
    rounds: int = 3


LINE = (ways.cas, ways.rsync_folder, ways.sftp_batch, ways.tar_stream, ways.fabric, ways.asyncssh)
SLOW = (ways.field, ways.ansible, ways.pyinfra)
FEW = {ways.field: 5, ways.ansible: 5, ways.pyinfra: 10}
SCENARIOS = (
    Scenario(name="1 message, one host", count=1, ways=(*LINE, *SLOW)),
    Scenario(name="100 messages, one host", count=100, ways=(*LINE, *SLOW), some=FEW),
    Scenario(name="1,000 messages, one host", count=1_000, ways=LINE, rounds=1),
    Scenario(
        name="1 message to each of 50 hosts",
        count=1,
        hosts=50,
        ways=(*LINE, *SLOW),
        some={ways.field: 5, ways.ansible: 50},
    ),
    Scenario(
        name="100 messages, one host, 50 ms",
        count=100,
        ways=(*LINE, ways.field),
        some={ways.field: 2, ways.sftp_batch: 20, ways.fabric: 20},
        round_trip=FAR[0],
        rounds=1,
    ),
)


def compared(scenario: Scenario, at: Scene, rounds: int, number: Iterator[int]) -> Measured:
    """Seconds for each way: the median of some rounds, in which all ways take turns."""
    port = Delay(at.peers[0].port, scenario.round_trip).port if scenario.round_trip else None
    seconds: dict[str, list[float]] = {}
    scaled: dict[str, int] = {}
    for turn in range(rounds):
        for way in scenario.ways:
            few = (scenario.some or {}).get(way)
            if few and turn:
                continue
            whole = scenario.count * scenario.hosts
            count, hosts = (scenario.count, few or scenario.hosts) if scenario.hosts > 1 else (few or scenario.count, 1)
            name = f"n{next(number)}-{way.__name__.replace('_', '-')}"
            job = at.job(name, count, hosts=hosts, port=port)
            took = timed(lambda way=way, job=job: way(job))
            job.delivered()
            if count * hosts != whole:
                scaled[way.__name__] = count * hosts
                took *= whole / (count * hosts)
            seconds.setdefault(way.__name__, []).append(took)
            say(f"{scenario.name}: {way.__name__} {took:.2f} s")
    return {
        "seconds": {name: round(statistics.median(times), 3) for name, times in seconds.items()},
        "scaled": scaled,
        "rounds": rounds,
    }


def round_trips(at: Scene, number: Iterator[int]) -> Measured:
    """How many round trips cas takes, from what each delay adds."""
    ports = {delay: Delay(at.peers[0].port, delay).port for delay in FAR}
    found = {}
    for name, count, lane in (("100 lanes", 100, False), ("1,000 lanes", 1_000, False), ("one lane of 100", 100, True)):
        took = {}
        for delay, port in ports.items():
            job = at.job(f"n{next(number)}-far", count, port=port, lane=lane)
            took[delay] = timed(lambda job=job: ways.cas(job))
            job.delivered()
        near, far = FAR
        found[name] = round((took[far] - took[near]) / (far - near), 1)
        say(f"round trips, {name}: {found[name]}")
    return {"round trips": found}


def here(at: Scene, rounds: int, number: Iterator[int]) -> Measured:
    """1,000 messages on this machine, beside gpg alone; `cas send` of one, beside gpg once."""
    seconds: dict[str, list[float]] = {"cas": [], "gpg_alone": [], "cas_send": [], "gpg_once": []}
    for _ in range(rounds):
        job = at.job(f"n{next(number)}-here", 1_000)
        local = replace(job, targets=tuple(replace(target, port=0) for target in job.targets))
        seconds["cas"].append(timed(lambda job=local: ways.cas(job)))
        job.delivered()
        alone = at.job(f"n{next(number)}-alone", 1_000)
        seconds["gpg_alone"].append(timed(lambda job=alone: ways.gpg_alone(job)))
        for _ in range(START_ROUNDS):
            job = at.job(f"n{next(number)}-send", 1)
            home = job.folder / "home"
            home.mkdir()
            words = ("send", "local.docs", job.messages[0], "--sender", "bench", "--key", at.key.fingerprint)
            seconds["cas_send"].append(timed(lambda w=words, h=home: at.run(program("cas"), *w, HOME=str(h))))
            once = at.job(f"n{next(number)}-once", 1)
            seconds["gpg_once"].append(timed(lambda job=once: ways.gpg_alone(job)))
    return {"seconds": {name: round(statistics.median(times), 3) for name, times in seconds.items()}, "rounds": rounds}


def starting(at: Scene) -> Measured:
    """Programs that only start."""
    commands: dict[str, tuple[str | Path, ...]] = {
        "python3 -c pass": (sys.executable, "-c", "pass"),
        "cas --version": (program("cas"), "--version"),
        "cas --help": (program("cas"), "--help"),
        "ansible --version": (Path(os.environ["CAS_BENCH_PYTHON"]).with_name("ansible"), "--version"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(START_ROUNDS):
        for name, command in commands.items():
            seconds[name].append(timed(lambda words=command: at.run(*words, LC_ALL="C.UTF-8")))
    return {
        "seconds": {name: round(statistics.median(times), 4) for name, times in seconds.items()},
        "rounds": START_ROUNDS,
    }


REFERENCE_PLAN = """
import json, sys, yaml, jsonschema
schema = json.load(open(sys.argv[1]))
jsonschema.validate(yaml.load(open(sys.argv[2]), Loader=yaml.CSafeLoader), schema)
"""


def planning(at: Scene, rounds: int, number: Iterator[int]) -> Measured:
    """`cas plan`, beside PyYAML and jsonschema on the same manifest; memory in MB."""
    schema = Path(__file__).resolve().parents[2] / "schemas" / "manifest.schema.json"
    seconds: dict[str, list[float]] = {}
    memory = 0.0
    for count in (SMALLEST, SMALL, LARGE):
        job = at.job(f"n{next(number)}-plan", count)
        local = replace(job, targets=tuple(replace(target, port=0) for target in job.targets))
        manifest, _ = ways.cas_manifest(local)
        for _ in range(rounds):
            took, memory = weighed(at, (program("cas"), "plan", manifest), job.folder / "home")
            seconds.setdefault(f"cas plan {count:,}", []).append(took)
            took, _ = weighed(at, (sys.executable, "-c", REFERENCE_PLAN, schema, manifest), job.folder / "home")
            seconds.setdefault(f"reference {count:,}", []).append(took)
    return {
        "seconds": {name: round(statistics.median(times), 3) for name, times in seconds.items()},
        "memory": round(memory),
        "rounds": rounds,
    }


def memory(at: Scene, number: Iterator[int]) -> Measured:
    """The most memory of `cas apply` on this machine, in MB."""
    found = {}
    for count in (SMALL, LARGE):
        job = at.job(f"n{next(number)}-memory", count)
        local = replace(job, targets=tuple(replace(target, port=0) for target in job.targets))
        manifest, _ = ways.cas_manifest(local)
        words = (program("cas"), "apply", manifest, "--quiet")
        _, most = weighed(at, words, job.folder / "home")
        job.delivered()
        found[f"{count:,}"] = round(most)
    return {"memory": found}


def display(at: Scene, rounds: int, number: Iterator[int]) -> Measured:
    """1,000 messages on this machine, on a terminal that a display can be drawn on, and on one that it cannot.

    Seconds of processors, those of gpg too; the least of the rounds, since other work on the machine only adds to them.
    """
    seconds: dict[str, list[float]] = {"xterm": [], "dumb": []}
    for _ in range(rounds):
        for terminal, times in seconds.items():
            job = at.job(f"n{next(number)}-{terminal}", SMALL)
            local = replace(job, targets=tuple(replace(target, port=0) for target in job.targets))
            manifest, _ = ways.cas_manifest(local)
            words = (program("cas"), "apply", manifest)
            used, text = on_terminal(at, words, HOME=str(job.folder / "home"), TERM=terminal)
            job.delivered()
            assert (b"\x1b[" in text) == (terminal == "xterm"), text[:200]
            times.append(used)
    return {"seconds": {name: round(min(times), 3) for name, times in seconds.items()}, "rounds": rounds}


def on_terminal(at: Scene, command: Sequence[str | Path], **more: str) -> tuple[float, bytes]:
    """Seconds of processors for one process that has a terminal, and all that it wrote there."""
    master, slave = pty.openpty()
    environment = {**at.environment, **more}
    process = subprocess.Popen(
        [str(word) for word in command], env=environment, stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    text = bytearray()
    with suppress(OSError), open(master, "rb", buffering=0) as terminal:
        while piece := terminal.read(1 << 16):
            text += piece
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, bytes(text[-2000:])
    return used.ru_utime + used.ru_stime, bytes(text)


def weighed(at: Scene, command: Sequence[str | Path], home: Path) -> tuple[float, float]:
    """Seconds, and the most memory in MB, of one process."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [str(word) for word in command],
        env={**at.environment, "HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    took = time.perf_counter() - started
    assert status == 0, command
    return took, used.ru_maxrss / 1024


def program(name: str) -> Path:
    return Path(sys.executable).with_name(name)


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def surroundings() -> Mapping[str, str]:
    """The machine, and what ran on it."""
    ask = "import importlib.metadata as m; print(*(m.version(n) for n in ('ansible-core', 'asyncssh', 'pyinfra')))"
    ansible, asyncssh, pyinfra = said(os.environ["CAS_BENCH_PYTHON"], "-c", ask).split()
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release().split('-')[0]}",
        "Python": platform.python_version(),
        "OpenSSH": said("ssh", "-V").split(",")[0].removeprefix("OpenSSH_"),
        "gpg": said("gpg", "--version").split()[2],
        "rsync": said("rsync", "--version").split()[2],
        **{name: importlib.metadata.version(name) for name in ("fabric", "paramiko")},
        "asyncssh": asyncssh,
        "ansible-core": ansible,
        "pyinfra": pyinfra,
    }


def said(*command: str) -> str:
    """What a program prints, wherever it does."""
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
    return ended.stdout


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=[*(one.name for one in SCENARIOS), *page.OTHERS])
    parser.add_argument("--quick", action="store_true", help="one round; nothing is written")
    chosen = parser.parse_args(arguments)
    rounds = 1 if chosen.quick else chosen.rounds
    folder = Path(tempfile.mkdtemp(prefix="cas-bench-"))
    number = iter(range(1_000_000))
    kept = json.loads(page.COUNTS.read_text(encoding="utf-8")) if chosen.only and page.COUNTS.exists() else {}
    around = surroundings()
    results: dict[str, Measured] = kept.get("scenarios", {})

    def keep(name: str, found: Measured) -> None:
        """At once: what is measured last may fail."""
        results[name] = found
        say(f"{name}: {found}")
        if not chosen.quick:
            page.write({"surroundings": around, "scenarios": results})

    try:
        with scene(folder) as at:
            others: Mapping[str, Callable[[], Measured]] = {
                "round trips": lambda: round_trips(at, number),
                "this machine": lambda: here(at, rounds, number),
                "start-up": lambda: starting(at),
                "planning": lambda: planning(at, rounds, number),
                "memory": lambda: memory(at, number),
                "display": lambda: display(at, 3 * rounds, number),
            }
            for scenario in SCENARIOS:
                if chosen.only in (None, scenario.name):
                    keep(scenario.name, compared(scenario, at, min(rounds, scenario.rounds), number))
            for name, measure in others.items():
                if chosen.only in (None, name) and not (chosen.quick and name in ("memory", "display")):
                    keep(name, measure())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])

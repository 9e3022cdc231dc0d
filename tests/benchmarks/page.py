"""What was measured as docs/reference/performance.md and performance.svg. Pure, but for `write`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"
COUNTS, PAGE, CHART = (REFERENCE / f"performance.{kind}" for kind in ("json", "md", "svg"))
OTHERS = ("round trips", "this machine", "start-up", "planning", "memory", "display")
NAMES = {
    "cas": "cas",
    "field": "gpg and two rsyncs a message",
    "rsync_folder": "rsync of a folder",
    "sftp_batch": "OpenSSH sftp, a batch",
    "tar_stream": "tar through ssh",
    "fabric": "Fabric",
    "asyncssh": "asyncssh",
    "ansible": "Ansible, copy, 50 forks",
    "pyinfra": "pyinfra",
}
HEAD = """# Performance

cas beside its peers: the same messages, key, sshd and hosts, each table in one run, each way from the start of its
process to the end, signatures included. `./do bench` measures it and writes this page. Why it is as it is, and what was
tried, is in [the explanation](../explanation/performance.md).

The peers do less: none of them claims, syncs to disk, keeps a ledger, looks for HALT, or can be run again without harm;
where whole folders are copied, a message may be seen before its signature. All but the first sign with four gpg
processes at a time. After every round all messages are compared byte for byte. A time after "~" is that of fewer
messages, as many as it says, multiplied.

![seconds for each way](performance.svg)
"""
Kept = Mapping[str, Any]


def page(kept: Kept) -> str:
    """The page for what was measured."""
    scenarios = kept["scenarios"]
    around = dict(kept["surroundings"])
    machine = around.pop("machine")
    versions = ", ".join(f"{name} {value}" for name, value in around.items())
    parts = [HEAD, f"Run on {machine}, with {versions}.\n", *_targets(scenarios)]
    for name, found in scenarios.items():
        if name in OTHERS:
            continue
        cas = found["seconds"]["cas"]
        parts += [f"## {name}\n", "| way | seconds | cas = 1 |", "| --- | ---: | ---: |"]
        for way, seconds in sorted(found["seconds"].items(), key=lambda pair: pair[1]):
            few = found["scaled"].get(way)
            told = f"~{seconds:.1f} (from {few})" if few else f"{seconds:.2f}"
            parts.append(f"| {NAMES[way]} | {told} | {seconds / cas:.2f} |")
        parts.append(f"\nMedians of {found['rounds']}.\n")
    return "\n".join(parts)


def chart(kept: Kept) -> str:
    """Bars, one a way, for each scenario; the scale is logarithmic."""
    rows: list[tuple[str, str, float]] = []
    for name, found in kept["scenarios"].items():
        if name not in OTHERS:
            rows.append((name, "", 0))
            ranked = sorted(found["seconds"].items(), key=lambda pair: pair[1])
            rows += [
                (NAMES[way], f"{seconds:.2f} s, {seconds / found['seconds']['cas']:.1f}", seconds)
                for way, seconds in ranked
            ]
    most = math.log10(max(seconds for *_, seconds in rows) / 0.05)
    lines = []
    for number, (label, told, seconds) in enumerate(rows):
        top = 24 + number * 18
        if not told:
            lines.append(f'<text x="8" y="{top}" font-weight="bold">{escape(label)}</text>')
            continue
        width = max(2, round(380 * math.log10(max(seconds, 0.051) / 0.05) / most))
        color = "#2f7ed8" if label == "cas" else "#9a9a9a"
        lines.append(f'<text x="8" y="{top}">{escape(label)}</text>')
        lines.append(f'<rect x="230" y="{top - 11}" width="{width}" height="13" fill="{color}"/>')
        lines.append(f'<text x="{236 + width}" y="{top}">{escape(told)}</text>')
    height = 40 + len(rows) * 18
    style = "text{font:12px sans-serif;fill:#777}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {height}" role="img"><style>{style}</style>'
    foot = f'<text x="8" y="{height - 8}">seconds (logarithmic), and how many times those of cas</text></svg>'
    return "\n".join([head, *lines, foot, ""])


def write(kept: Kept) -> None:
    """Write figures, page and chart."""
    COUNTS.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    PAGE.write_text(page(kept), encoding="utf-8")
    CHART.write_text(chart(kept), encoding="utf-8")


def _targets(scenarios: Kept) -> list[str]:
    rows = ["## What was aimed at\n", "| scenario | aim | measured | |", "| --- | --- | ---: | --- |"]
    for name, aim, measure, bound in TARGETS:
        try:
            value = measure(scenarios)
        except KeyError:
            continue
        rows.append(f"| {name} | {aim} | {value:.2f} | {'met' if value <= bound else 'missed'} |")
    return [*rows, ""]


def _least(found: Kept) -> float:
    return min(seconds for way, seconds in found["seconds"].items() if way != "cas")


def _seconds(name: str, way: str) -> Callable[[Kept], float]:
    return lambda scenarios: scenarios[name]["seconds"][way]


def _ratio(name: str, way: str, other: str) -> Callable[[Kept], float]:
    return lambda scenarios: _seconds(name, way)(scenarios) / _seconds(name, other)(scenarios)


def _growth(scenarios: Kept) -> float:
    """What one more send costs between 1,000 and 10,000, beside one more between 100 and 1,000."""
    few, some, many = (_seconds("planning", f"cas plan {count}")(scenarios) for count in ("100", "1,000", "10,000"))
    return (many - some) / 9_000 / ((some - few) / 900)


def _to_fastest(name: str) -> Callable[[Kept], float]:
    return lambda scenarios: scenarios[name]["seconds"]["cas"] / _least(scenarios[name])


def _trips(name: str) -> Callable[[Kept], float]:
    return lambda scenarios: scenarios["round trips"]["round trips"][name]


HUNDRED, FLEET, HERE = "100 messages, one host", "1 message to each of 50 hosts", "this machine"
TARGETS: tuple[tuple[str, str, Callable[[Kept], float], float], ...] = (
    (HUNDRED, "at most 1/100 of gpg and two rsyncs a message", _ratio(HUNDRED, "cas", "field"), 0.01),
    (HUNDRED, "at most 3 times the fastest peer", _to_fastest(HUNDRED), 3),
    ("100 lanes, 50 ms", "at most 40 round trips", _trips("100 lanes"), 40),
    (
        "one lane of 100, 50 ms",
        "at most 40 round trips",
        lambda s: s["round trips"]["round trips"]["one lane of 100"],
        40,
    ),
    (
        "1,000 lanes, 50 ms",
        "at most 1.5 times the round trips of 100",
        lambda s: _trips("1,000 lanes")(s) / _trips("100 lanes")(s),
        1.5,
    ),
    (FLEET, "at most 1.5 times the fastest peer", _to_fastest(FLEET), 1.5),
    (FLEET, "at most 1/10 of Ansible", _ratio(FLEET, "cas", "ansible"), 0.1),
    ("1,000 on this machine", "at most 1.5 times gpg alone", _ratio(HERE, "cas", "gpg_alone"), 1.5),
    (
        "`cas send`, this machine",
        "at most 0.15 s more than gpg",
        lambda s: _seconds(HERE, "cas_send")(s) - _seconds(HERE, "gpg_once")(s),
        0.15,
    ),
    ("`cas --version`", "at most 6 times `python3 -c pass`", _ratio("start-up", "cas --version", "python3 -c pass"), 6),
    ("`cas --help`", "at most 6 times `python3 -c pass`", _ratio("start-up", "cas --help", "python3 -c pass"), 6),
    ("`cas --help`", "at most 1/5 of `ansible --version`", _ratio("start-up", "cas --help", "ansible --version"), 0.2),
    (
        "plan of 10,000 sends",
        "at most 3 times PyYAML's C loader and jsonschema",
        _ratio("planning", "cas plan 10,000", "reference 10,000"),
        3,
    ),
    (
        "plan of 10,000 sends",
        "at most 11 times that of 1,000",
        _ratio("planning", "cas plan 10,000", "cas plan 1,000"),
        11,
    ),
    ("plan of 10,000 sends", "each at most 1.25 times one of 1,000, without start-up", _growth, 1.25),
    ("plan of 10,000 sends", "under 250 MB", lambda s: s["planning"]["memory"], 250),
    (
        "10,000 deliveries, this machine",
        "at most 60 MB more than 1,000",
        lambda s: s["memory"]["memory"]["10,000"] - s["memory"]["memory"]["1,000"],
        60,
    ),
    (
        "progress display, 1,000 on this machine",
        "at most 1.02 times without",
        _ratio("display", "xterm", "dumb"),
        1.02,
    ),
)

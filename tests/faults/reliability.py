"""The counts of a fault run into docs/reference/reliability.json, and those into reliability.md.

reliability.py REPORT     a report of lines of JSON, one a fault: {"name": …, count: number, …}
reliability.py            only the page, from the counts that are kept
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"
COUNTS, PAGE = REFERENCE / "reliability.json", REFERENCE / "reliability.md"
HEAD = """# Reliability

What the fault suite did, and what it found wrong. `./do faults` runs all of it and writes this page.
How a delivery goes, and why each of these faults is survived, is in
[delivery](../explanation/delivery.md).

A point is one place at which a fault was put into a delivery of its own; it *struck* where the delivery got that far.
Counts are taken after the next run: *lost* and *doubled* messages, messages that were seen *unsigned*, what was *left*
over besides receipts, and what was said to be sent and was not there (*falsely said*). Two things are no harm: an
*unclosed* receipt still holds its copy of the signature; a *signature alone* is what two senders and a receiver can
leave when they meet at one message.
"""


def collected(lines: Iterable[str]) -> dict[str, dict[str, int]]:
    """The counts of each fault, summed over the processes that reported it."""
    counts: dict[str, dict[str, int]] = {}
    for line in lines:
        report = json.loads(line)
        fault = counts.setdefault(report.pop("name"), {})
        for key, value in report.items():
            fault[key] = fault.get(key, 0) + value
    return counts


def page(kept: Mapping[str, object]) -> str:
    """The page for the counts that are kept."""
    faults = kept["faults"]
    assert isinstance(faults, dict)
    rows = [
        f"| {name} | {counts.get('points', '')} | {', '.join(_told(counts))} |"
        for name, counts in sorted(faults.items())
    ]
    head = (f"Run on {kept['machine']}.", "", "| fault | points | counts |", "| --- | ---: | --- |")
    return "\n".join([HEAD, *head, *rows, ""])


def _told(counts: Mapping[str, int]) -> list[str]:
    return [f"{key.replace('_', ' ')} {value}" for key, value in sorted(counts.items()) if key != "points"]


def main(arguments: list[str]) -> None:
    if arguments:
        faults = collected(Path(arguments[0]).read_text(encoding="utf-8").splitlines())
        machine = f"{platform.system()} {platform.release().partition('-')[0]}, Python {platform.python_version()}"
        kept = {"machine": machine, "faults": faults}
        COUNTS.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    PAGE.write_text(page(json.loads(COUNTS.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

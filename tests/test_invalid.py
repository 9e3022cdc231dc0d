"""The corpus `invalid/`: for each input exactly what `cas validate` says. CAS_GOLDEN=write renews what is expected.

A case is a file `NAME.yaml`, or a folder `NAME` with `m.yaml` and what belongs to it (messages, `peers.toml`); what is
expected, to the last hint, stands in `NAME.expected`, ended by the exit code.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Home, Run

CORPUS = Path(__file__).parent / "invalid"
CASES = sorted(path for path in CORPUS.iterdir() if path.suffix != ".expected")
WRITE = os.environ.get("CAS_GOLDEN") == "write"  # read here: a test's home clears the environment
FINDING = re.compile(r"^(?:[^\s:]+(?: \(rendered\))?(?::\d+(?::\d+)?)?: )?(?:error|warning|note)\[[a-z0-9-]+\]: \S")


def expected_file(case: Path) -> Path:
    return CORPUS / f"{case.stem}.expected"


def set_out(case: Path, home: Home) -> None:
    """The input, in the working folder."""
    if not case.is_dir():
        shutil.copyfile(case, "m.yaml")
        return
    shutil.copytree(case, ".", dirs_exist_ok=True)
    if Path("peers.toml").exists():
        home.peers(Path("peers.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_an_invalid_input_is_told_as_expected(cas: Callable[..., Run], home: Home, case: Path):
    set_out(case, home)

    run = cas("validate", "m.yaml")

    told = f"{run.out}{run.err}exit code {run.code}\n".replace(str(home.path), "~")
    if WRITE:
        expected_file(case).write_text(told, encoding="utf-8")
    assert told == expected_file(case).read_text(encoding="utf-8")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_an_expected_text_is_one_line_for_each_finding_and_what_belongs_to_it(case: Path):
    *lines, last = expected_file(case).read_text(encoding="utf-8").splitlines()

    assert last in ("exit code 1", "exit code 2", "exit code 4")
    assert all(line.startswith("  ") or FINDING.match(line) for line in lines)
    assert any("error[" in line for line in lines)


def test_nothing_is_expected_of_a_case_that_is_not_there():
    assert {path.stem for path in CORPUS.glob("*.expected")} == {case.stem for case in CASES}

"""The tests bite: each fault that is seeded into a copy of the code turns the test red that is there for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import points, report
from mutations import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("cas", "schemas", "playbooks", "tests", "pyproject.toml")
ALL_GREEN, SOME_RED = 0, 1


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A copy of the project, to seed faults into."""
    root = tmp_path / "copy"
    root.mkdir()
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, root / part, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        else:
            shutil.copyfile(source, root / part)
    yield root
    shutil.rmtree(root)


def run_tests(root: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    """Runs tests of a copy, which is on its own: no plugin's files, no other code of the same name."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "COV_"))}
    own = {
        "PYTHONPATH": os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "CAS_FAULTS": "all",
        "CAS_FAULTS_REPORT": "",
    }
    options = ("-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov", "--timeout", "240")
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=root,
        env={**kept, **own},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name.replace(" ", "-"))
def test_the_text_that_a_fault_replaces_stands_in_the_code_once(mutation: Mutation):
    text = (ROOT / "cas" / mutation.file).read_text(encoding="utf-8")

    assert text.count(mutation.old) == 1


def test_there_are_enough_faults_each_with_a_name_of_its_own():
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 15


def test_each_fault_names_a_test_that_there_is():
    run = run_tests(ROOT, "--collect-only", *sorted({mutation.test for mutation in MUTATIONS}))

    assert run.returncode == ALL_GREEN, run.stdout[-2000:]


@pytest.mark.parametrize("mutation", points(MUTATIONS, 4), ids=lambda mutation: mutation.name.replace(" ", "-"))
def test_a_seeded_fault_turns_its_test_red(tree: Path, mutation: Mutation):
    mutation.seed(tree)

    run = run_tests(tree, mutation.test)

    report("seeded faults", faults=1, noticed=int(run.returncode == SOME_RED))
    assert run.returncode == SOME_RED, f"{mutation.test} is green, or did not run:\n{run.stdout[-3000:]}{run.stderr}"
    assert "failed" in run.stdout


def test_without_a_fault_the_same_tests_are_green(tree: Path):
    run = run_tests(tree, *dict.fromkeys(mutation.test for mutation in points(MUTATIONS, 4)))

    assert run.returncode == ALL_GREEN, run.stdout[-3000:]

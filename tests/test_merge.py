"""Merging ledgers: what several machines did, told as one, and what of a plan none of them has delivered."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Home, Run

MANIFEST = """\
cas: 1
sender: builder
defaults: {sign: false}
sends:
  - {id: docs, destination: local.docs, message: docs.org}
  - {id: site, destination: local.site, message: site.org}
  - {id: never, destination: local.site, message: site.org, when: "1 == 2"}
"""


@pytest.fixture
def plan(cas: Callable[..., Run], message: Callable[..., Path], home: Home) -> Path:
    message("docs.org", conversation_id="docs")
    message("site.org", conversation_id="site")
    Path("m.yaml").write_text(MANIFEST, encoding="utf-8")
    assert cas("plan", "m.yaml", "-o", "m.plan").code == 0
    return Path("m.plan")


def applied(cas: Callable[..., Run], plan: Path, only: str, state: str) -> None:
    assert cas("apply", plan, "--only", only, "--state-dir", state).code in (0, 1)


def test_what_several_have_delivered_is_told_together(cas: Callable[..., Run], plan: Path):
    applied(cas, plan, "docs", "one")
    applied(cas, plan, "site", "two")

    run = cas("status", "--merge", "one", "two/ledger.sqlite")

    assert run.code == 0
    assert run.out.splitlines() == ["local.docs  1 delivered", "local.site  1 delivered"]


def test_what_nobody_has_delivered_is_listed_and_can_end_with_10(cas: Callable[..., Run], plan: Path):
    applied(cas, plan, "docs", "one")

    run = cas("status", "--merge", "one", "--plan", plan, "--detailed-exitcode")

    assert run.code == 10
    assert run.out.splitlines()[-2:] == ["not delivered by any of them: 1", "  site@local.site"]


def test_a_plan_that_is_done_says_so(cas: Callable[..., Run], plan: Path):
    applied(cas, plan, "docs", "one")
    applied(cas, plan, "site", "one")

    run = cas("status", "--merge", "one", "--plan", plan, "--detailed-exitcode")

    assert (run.code, run.out.splitlines()[-1]) == (0, "all of the plan is delivered")


def test_of_very_many_that_are_missing_a_hundred_are_listed(
    cas: Callable[..., Run], message: Callable[..., Path], home: Home
):
    message("m.org")
    destinations = ", ".join(f"local.p{number}" for number in range(101))
    Path("m.yaml").write_text(
        f"cas: 1\ndefaults: {{sign: false}}\nsends:\n  - {{id: all, destination: [{destinations}], message: m.org}}\n",
        encoding="utf-8",
    )
    assert cas("plan", "m.yaml", "-o", "many.plan").code == 0
    home.obstruct("p0")
    cas("apply", "many.plan", "--only", "all@local.p0", "--state-dir", "one")

    run = cas("status", "--merge", "one", "--plan", "many.plan")

    lines = run.out.splitlines()
    assert "not delivered by any of them: 101" in lines
    assert lines[-2:] == ["  all@local.p99", "  and 1 more; --output json lists all"]


def test_as_json_too(cas: Callable[..., Run], plan: Path):
    applied(cas, plan, "docs", "one")

    body = json.loads(cas("status", "--merge", "one", "--plan", plan, "--output", "json").out)

    assert (body["format"], body["counts"], body["missing"]) == ("cas.status/1", {"delivered": 1}, ["site@local.site"])


def test_what_one_saw_delivered_counts_whatever_another_knows(cas: Callable[..., Run], home: Home, plan: Path):
    home.obstruct("docs")
    applied(cas, plan, "docs", "one")
    shutil.rmtree(home.projects / "docs")
    applied(cas, plan, "docs", "two")
    applied(cas, plan, "docs", "three")

    for ledgers in (("one", "two", "three"), ("three", "two", "one")):
        assert cas("status", "--merge", *ledgers).out.splitlines() == ["local.docs  1 delivered"]


def test_what_failed_on_the_only_one_that_tried_is_open(cas: Callable[..., Run], home: Home, plan: Path):
    home.obstruct("docs")
    applied(cas, plan, "docs", "one")
    applied(cas, plan, "site", "two")

    run = cas("status", "--merge", "one", "two", "--plan", plan)

    assert "failed: docs@local.docs" in run.out
    assert run.out.splitlines()[-1] == "  docs@local.docs"


def test_ledgers_are_only_read(cas: Callable[..., Run], plan: Path):
    applied(cas, plan, "docs", "one")
    ledger = Path("one/ledger.sqlite")
    ledger.chmod(0o400)
    before = (ledger.read_bytes(), sorted(Path("one").iterdir()))

    cas("status", "--merge", "one")

    assert (ledger.read_bytes(), sorted(Path("one").iterdir())) == before


@pytest.mark.parametrize("shape", ["nothing", "folder", "text", "another database"])
def test_what_is_no_ledger_is_told(cas: Callable[..., Run], home: Home, shape: str):
    path = Path("other")
    match shape:
        case "folder":
            path.mkdir()
        case "text":
            path.write_text("no ledger", encoding="utf-8")
        case "another database":
            with sqlite3.connect(path) as database:
                database.execute("CREATE TABLE other (id)")

    run = cas("status", "--merge", path)

    assert (run.code, run.out) == (1, "")
    assert "other" in run.err
    assert "error[ledger]" in run.err


def test_an_edited_plan_is_refused(cas: Callable[..., Run], plan: Path):
    applied(cas, plan, "docs", "one")
    plan.write_text(plan.read_text(encoding="utf-8").replace("local.docs", "local.dogs"), encoding="utf-8")

    assert cas("status", "--merge", "one", "--plan", plan).code == 6


@pytest.mark.parametrize(
    "argv", [["one"], ["--merge"], ["--plan", "m.plan"], ["--merge", "one", "--detailed-exitcode"]]
)
def test_words_that_do_not_go_together_are_wrong_usage(cas: Callable[..., Run], argv: list[str]):
    assert cas("status", *argv).code == 64

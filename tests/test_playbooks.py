"""Playbooks: each is valid as it is, delivers what it declares to real inboxes, and plans what its golden file says.

`CAS_GOLDEN=write ./do test tests/test_playbooks.py` writes the golden files anew: read what `git diff` then shows.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from support import Forge, Home, Run

from cas.loopback import Key

HERE = Path(__file__).resolve().parent
PLAYBOOKS = HERE.parent / "playbooks"
GOLDEN = HERE / "golden"
PAGE = HERE.parent / "docs" / "how-to" / "playbooks.md"
ALL = sorted(PLAYBOOKS.glob("*.yaml"))
MANIFESTS = {path.name for path in ALL}
WRITE = os.environ.get("CAS_GOLDEN") == "write"  # read now: a test's environment has nothing of cas
GROUPS = '[groups]\nreviewers = ["local.docs", "local.site"]\nreaders = ["local.docs", "@reviewers"]\n'
STAMP = re.compile(r"^\d{8}T\d{6}Z")


@pytest.fixture
def playbook(request: pytest.FixtureRequest, home: Home, peer: Forge, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A playbook in a project of the test's own, entered, with its messages and the groups and peers that it names."""
    folder = home.projects / "builder" / "playbooks"
    shutil.copytree(PLAYBOOKS, folder)
    home.peers(GROUPS + peer.toml())
    monkeypatch.chdir(folder)
    return Path(request.param.name)


def each(function: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.parametrize("playbook", ALL, ids=lambda path: path.stem, indirect=True)(function)


def only(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return pytest.mark.parametrize("playbook", [PLAYBOOKS / f"{name}.yaml"], ids=[name], indirect=True)


def answer(run: Run) -> Any:
    """What a run that went well says in JSON."""
    assert run.code == 0, run.err
    return json.loads(run.out)


def inbox(home: Home, peer: Forge, address: str) -> Path:
    machine, _, project = address.partition(".")
    return {"local": home, "forge": peer}[machine].inbox(project)


def normalised(plan: dict[str, Any]) -> dict[str, Any]:
    """A plan without what is another each time: clock, key, version, the test's own peer, and what depends on them."""
    clock = moment(plan["clock"])
    for delivery in plan["deliveries"]:
        if delivery["message"]["source"] in MANIFESTS:
            delivery["message"]["digest"] = "DIGEST"  # made from a `body`: the clock is in its TIMESTAMP
        if delivery["sign"]:
            delivery["sign"] = {"key": "KEY"}
        if delivery["destination"]["port"]:
            delivery["destination"] |= {"host": "HOST", "port": "PORT", "user": "USER"}
        delivery["files"] = [STAMP.sub(lambda found: after(clock, found[0]), name) for name in delivery["files"]]
    ttl = moment(plan["expires"]) - clock
    changes = {"clock": "CLOCK", "expires": f"CLOCK+{int(ttl.total_seconds())}s", "digest": "DIGEST"}
    return {**plan, **changes, "tool": {**plan["tool"], "version": "VERSION"}}


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def after(clock: datetime, stamp: str) -> str:
    """A name's time, as it stands to the plan's clock."""
    return f"CLOCK+{int((moment(stamp) - clock).total_seconds())}s"


def test_there_are_playbooks():
    wanted = {"announce", "demo", "fan-out", "handoff", "hello", "outbox", "stages", "unsigned"}

    assert wanted <= {path.stem for path in ALL}


@each
def test_a_playbook_is_valid_without_a_warning(cas: Callable[..., Run], playbook: Path):
    run = cas("validate", playbook, "--output", "json")

    assert (run.code, run.err) == (0, "")
    assert json.loads(run.out)["diagnostics"] == []


def test_all_playbooks_are_valid_as_one_run(cas: Callable[..., Run], home: Home, peer: Forge):
    home.peers(GROUPS + peer.toml())

    run = cas("validate", PLAYBOOKS, "--output", "json")

    assert answer(run)["diagnostics"] == []


@each
def test_a_playbook_delivers_what_it_plans_signed_as_it_says(
    cas: Callable[..., Run], home: Home, peer: Forge, gnupg: Key, verify: Callable[..., str], playbook: Path
):
    planned = answer(cas("plan", playbook, "--output", "json"))["deliveries"]

    result = answer(cas("apply", playbook, "--output", "json"))

    assert result["counts"]["delivered"] == len(planned) > 0
    names = {delivery["id"]: delivery["files"] for delivery in result["deliveries"]}
    for delivery in planned:
        *signature, name = names[delivery["id"]]
        message = inbox(home, peer, delivery["destination"]["address"]) / name
        content = message.read_bytes()
        assert len(content) == delivery["message"]["bytes"]
        assert (f"#+CONVERSATION_ID: {delivery['message']['conversation']}\n").encode() in content
        if delivery["message"]["source"].endswith(".org"):
            assert content == Path(delivery["message"]["source"]).read_bytes()
        if delivery["sign"]:
            assert verify(message) == gnupg.fingerprint
        else:
            assert (signature, message.with_name(f"{name}.asc").exists()) == ([], False)


@each
def test_a_playbook_that_is_applied_again_delivers_nothing(
    cas: Callable[..., Run],
    home: Home,
    peer: Forge,
    gnupg: Key,
    pairs: Callable[[Path], tuple[str, ...]],
    playbook: Path,
):
    planned = answer(cas("plan", playbook, "--output", "json"))["deliveries"]
    inboxes = {inbox(home, peer, delivery["destination"]["address"]) for delivery in planned}
    answer(cas("apply", playbook, "--output", "json"))
    before = {inbox: pairs(inbox) for inbox in inboxes}

    result = answer(cas("apply", playbook, "--output", "json"))

    assert {outcome: count for outcome, count in result["counts"].items() if count} == {"unchanged": len(planned)}
    assert all(before.values())
    assert {inbox: pairs(inbox) for inbox in inboxes} == before


@each
def test_a_playbook_plans_what_its_golden_file_says(cas: Callable[..., Run], gnupg: Key, playbook: Path):
    golden = GOLDEN / f"{playbook.stem}.json"
    plan = normalised(answer(cas("plan", playbook, "--output", "json")))
    if WRITE:
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(json.dumps(plan, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")

    assert golden.is_file(), "there is none: CAS_GOLDEN=write ./do test tests/test_playbooks.py"
    assert plan == json.loads(golden.read_text(encoding="utf-8")), "as meant? CAS_GOLDEN=write writes it anew"


def test_each_golden_file_has_a_playbook_and_each_playbook_a_golden_file():
    assert {path.name for path in GOLDEN.iterdir()} == {f"{path.stem}.json" for path in ALL}


# What single playbooks promise their readers


@only("fan-out")
def test_who_joins_a_group_later_gets_the_message_and_the_others_nothing_twice(
    cas: Callable[..., Run], home: Home, gnupg: Key, playbook: Path
):
    answer(cas("apply", playbook, "--output", "json"))
    home.peers(GROUPS.replace('"local.site"]', '"local.site", "local.late"]', 1))

    result = answer(cas("apply", playbook, "--output", "json"))

    outcomes = {delivery["destination"]: delivery["outcome"] for delivery in result["deliveries"]}
    assert outcomes == {"local.docs": "unchanged", "local.site": "unchanged", "local.late": "delivered"}


@only("stages")
def test_stages_arrive_in_the_order_of_the_list_each_with_its_text(
    cas: Callable[..., Run], home: Home, gnupg: Key, playbook: Path
):
    answer(cas("apply", playbook, "--var", "release=2.0", "--output", "json"))

    texts = [path.read_text(encoding="utf-8") for path in sorted(home.inbox("docs").glob("*.org"))]
    assert [text.split("\n")[2] for text in texts] == ["#+SEQUENCE: 1", "#+SEQUENCE: 2", "#+SEQUENCE: 3"]
    assert [text.split("\n\n", 1)[1] for text in texts] == [
        "* Stage build of 2.0 is done\nThat is 1 of 3. What comes next is test.\n",
        "* Stage test of 2.0 is done\nThat is 2 of 3. What comes next is publish.\n",
        "* Stage publish of 2.0 is done\nThat is 3 of 3.\n",
    ]


@only("announce")
def test_a_release_candidate_is_summed_up_and_not_announced(
    cas: Callable[..., Run], home: Home, gnupg: Key, pairs: Callable[[Path], tuple[str, ...]], playbook: Path
):
    result = answer(cas("apply", playbook, "--var", "release=1.4.0-rc.1", "--output", "json"))

    counts = {outcome: count for outcome, count in result["counts"].items() if count}
    assert counts == {"delivered": 1, "skipped": 2}
    assert (pairs(home.inbox("docs")), pairs(home.inbox("site"))) == ((), ())


@only("announce")
def test_nothing_is_announced_where_the_summary_did_not_arrive(
    cas: Callable[..., Run], home: Home, gnupg: Key, pairs: Callable[[Path], tuple[str, ...]], playbook: Path
):
    home.obstruct("archive")

    run = cas("apply", playbook, "--output", "json")

    outcomes = {delivery["id"]: delivery["outcome"] for delivery in json.loads(run.out)["deliveries"]}
    assert run.code == 1
    assert outcomes == {
        "summary@local.archive": "failed",
        "announce@local.docs": "blocked",
        "announce@local.site": "blocked",
    }
    assert (pairs(home.inbox("docs")), pairs(home.inbox("site"))) == ((), ())


@only("announce")
def test_the_announcement_is_the_template_filled_in(cas: Callable[..., Run], home: Home, gnupg: Key, playbook: Path):
    answer(cas("apply", playbook, "--output", "json"))

    (message,) = home.inbox("site").glob("*.org")
    assert message.read_text(encoding="utf-8").split("\n\n", 1)[1] == (
        "* Release 1.4.0 is out\nTo the readers at site, from builder. What is new:\n"
        "- A dry run that cannot lie\n- Nothing is delivered twice\n"
    )


@only("outbox")
def test_what_is_put_into_the_outbox_goes_and_the_rest_stays(
    cas: Callable[..., Run], home: Home, gnupg: Key, message: Callable[..., Path], playbook: Path
):
    answer(cas("apply", playbook, "--output", "json"))
    message("outbox/local.late/first.org", conversation_id="late")

    result = answer(cas("apply", playbook, "--output", "json"))

    outcomes = [(delivery["destination"], delivery["outcome"]) for delivery in result["deliveries"]]
    assert sorted(outcomes) == [
        ("local.docs", "unchanged"),
        ("local.docs", "unchanged"),
        ("local.late", "delivered"),
        ("local.site", "unchanged"),
    ]


@only("outbox")
def test_an_outbox_with_nothing_in_it_is_no_error(cas: Callable[..., Run], gnupg: Key, playbook: Path):
    shutil.rmtree("outbox")

    result = answer(cas("apply", playbook, "--output", "json"))

    assert result["deliveries"] == []


@only("outbox")
@pytest.mark.parametrize(("sequence", "outcome"), [(1, "failed"), (2, "delivered")])
def test_a_message_of_the_outbox_that_is_edited_goes_under_the_next_sequence(
    cas: Callable[..., Run], gnupg: Key, playbook: Path, sequence: int, outcome: str
):
    answer(cas("apply", playbook, "--output", "json"))
    message = Path("outbox/local.site/deploy.org")
    text = message.read_text(encoding="utf-8").replace("#+SEQUENCE: 1\n", f"#+SEQUENCE: {sequence}\n")
    message.write_text(f"{text}Before noon.\n", encoding="utf-8")

    run = cas("apply", playbook, "--output", "json")

    deliveries = json.loads(run.out)["deliveries"]
    assert [one["outcome"] for one in deliveries if one["destination"] == "local.site"] == [outcome]


@only("handoff")
def test_a_handoff_that_did_not_arrive_is_told_to_nobody(
    cas: Callable[..., Run], home: Home, gnupg: Key, pairs: Callable[[Path], tuple[str, ...]], playbook: Path
):
    home.obstruct("docs")

    run = cas("apply", playbook, "--output", "json")

    outcomes = {delivery["id"]: delivery["outcome"] for delivery in json.loads(run.out)["deliveries"]}
    assert (run.code, outcomes) == (
        1,
        {
            "request@local.docs": "failed",
            "progress@local.docs": "blocked",
            "complete@local.docs": "blocked",
            "tell-watchers@local.watchers": "blocked",
        },
    )
    assert pairs(home.inbox("watchers")) == ()


@only("unsigned")
def test_the_unsigned_test_needs_no_key(
    cas: Callable[..., Run], home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, playbook: Path
):
    (tmp_path / "gnupg").mkdir(mode=0o700)
    monkeypatch.setenv("GNUPGHOME", str(tmp_path / "gnupg"))

    result = answer(cas("apply", playbook, "--output", "json"))

    assert result["counts"]["delivered"] == 1


@only("unsigned")
def test_the_unsigned_test_is_refused_where_the_policy_wants_signatures(
    cas: Callable[..., Run], home: Home, pairs: Callable[[Path], tuple[str, ...]], playbook: Path
):
    home.peers("[policy]\nrequire_signed = true\n")

    run = cas("apply", playbook, "--output", "json")

    assert run.code == 1
    assert pairs(home.inbox("docs")) == ()


# What stands beside them


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_a_playbook_names_the_schema_that_editors_check_it_by(path: Path):
    first = path.read_text(encoding="utf-8").split("\n")[0]

    marker, _, schema = first.partition("$schema=")
    assert marker == "# yaml-language-server: "
    assert json.loads((path.parent / schema).read_text(encoding="utf-8"))["title"] == "a manifest"


def test_every_message_beside_the_playbooks_is_sent_by_one():
    texts = "".join(path.read_text(encoding="utf-8") for path in ALL)

    unused = [path.name for path in (PLAYBOOKS / "messages").iterdir() if f"messages/{path.name}" not in texts]

    assert unused == []


def test_the_page_of_playbooks_names_each_of_them_once():
    named = re.findall(r"\(\.\./\.\./playbooks/([\w-]+)\.yaml\)", PAGE.read_text(encoding="utf-8"))

    assert sorted(named) == [path.stem for path in ALL]

"""Rehearsals: what a run would leave, byte for byte, in a tree of folders; and nothing anywhere else."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import ROOT, Forge, Home, Run, called, pairs, verify
from test_bundles import keyring
from test_plan_files import MANIFEST, codes, edited, outcomes, refused
from test_playbooks import GROUPS, PLAYBOOKS

from cas.loopback import Key

OF_OURS = ".tmp.cas"


@pytest.fixture
def manifest(home: Home, gnupg: Key, message: Callable[..., Path]) -> Path:
    message("hello.org")
    path = Path("release.yaml")
    path.write_text(MANIFEST.replace("KEY", f"{{key: {gnupg.fingerprint}}}"), encoding="utf-8")
    return path


@pytest.fixture
def planned(manifest: Path) -> Path:
    path = Path("release.plan")
    assert called("plan", manifest, "-o", path).code == 0
    return path


def everything(folder: Path) -> dict[str, bytes | None]:
    """All below a folder, hidden or not, with the bytes of files."""
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


def messages(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in pairs(folder) if name.endswith(".org")}


def published(run: Run) -> list[tuple[str, str]]:
    """The files in the order in which they became visible, by delivery."""
    events = map(json.loads, run.out.splitlines())
    return [(one["id"], one["file"]) for one in events if one.get("event") == "file-published"]


def in_lanes(files: list[tuple[str, str]], plan: dict[str, Any]) -> dict[str, list[str]]:
    lane = {one["id"]: one["lane"] for one in plan["deliveries"]}
    found: dict[str, list[str]] = {}
    for name, file in files:
        found.setdefault(lane[name], []).append(file)
    return found


# What it leaves


def test_names_bytes_and_order_of_all_playbooks_are_those_of_the_dry_run_and_of_the_real_run(
    cas: Callable[..., Run], home: Home, peer: Forge, gnupg: Key
):
    home.peers(GROUPS + peer.toml())
    folder = home.projects / "builder" / "playbooks"
    shutil.copytree(PLAYBOOKS, folder)
    for playbook in sorted(folder.glob("*.yaml")):
        file, tree = Path(f"{playbook.stem}.plan"), Path(f"{playbook.stem}.tree")
        plan = json.loads(cas("plan", playbook, "--output", "json", "-o", file).out)

        rehearsed = cas("rehearse", file, "--root", tree, "--inputs", folder, "--output", "jsonl")
        applied = cas("apply", file, "--root", folder, "--output", "jsonl")

        assert (rehearsed.code, applied.code) == (0, 0), rehearsed.err + applied.err
        sent = [one for one in plan["deliveries"] if one["action"] == "deliver"]
        assert in_lanes(published(rehearsed), plan) == in_lanes(published(applied), plan) == in_lanes(
            [(one["id"], name) for one in sent for name in one["files"]], plan
        )  # fmt: skip
        assert sorted(os.listdir(tree)) == sorted({".rehearsal", *(one["destination"]["address"] for one in sent)})
        for one in sent:
            machine, _, project = one["destination"]["address"].partition(".")
            inbox = (home if machine == "local" else peer).inbox(project)
            there = tree / one["destination"]["address"]
            name = one["files"][-1]
            assert messages(there)[name] == messages(inbox)[name]
            if one["sign"]:
                assert verify(there / name) == one["sign"]["key"]


def test_from_a_bundle_every_byte_is_the_same(
    cas: Callable[..., Run], home: Home, manifest: Path, gnupg: Key, monkeypatch: pytest.MonkeyPatch
):
    assert cas("plan", manifest, "--bundle", "b").code == 0
    with keyring(gnupg) as folder:
        monkeypatch.setenv("GNUPGHOME", str(folder))
        manifest.unlink()

        seal = ("--sealed-by", gnupg.fingerprint)
        assert cas("rehearse", "b", "--root", "tree", *seal).code == 0
        assert cas("apply", "b", *seal).code == 0

    for project in ("docs", "site"):
        assert everything(Path("tree", f"local.{project}")) == everything(home.inbox(project))


def test_nothing_but_the_tree_changes(cas: Callable[..., Run], home: Home, planned: Path, tmp_path: Path):
    before = everything(home.path)

    run = cas("rehearse", planned, "--root", tmp_path / "tree")

    assert run.code == 0, run.err
    assert everything(home.path) == before
    where = tmp_path / "tree" / "local.docs"
    assert f"rehearsed: {where}/" in run.out
    assert "sent: " not in run.out
    assert "nothing was sent" in run.err


def test_what_was_delivered_before_is_rehearsed_all_the_same(cas: Callable[..., Run], planned: Path):
    assert cas("apply", planned).code == 0

    run = cas("rehearse", planned, "--root", "tree", "--output", "json")

    assert outcomes(run) == {"delivered": 2}
    assert json.loads(run.out)["command"] == "rehearse"


def test_manifests_are_rehearsed_too_with_their_options(cas: Callable[..., Run], manifest: Path):
    run = cas("rehearse", manifest, "--root", "tree", "--tags", "late", "--output", "json")

    assert outcomes(run) == {"delivered": 1, "skipped": 1}
    assert sorted(os.listdir("tree")) == [".rehearsal", "local.site"]


def test_a_host_that_nobody_reaches_is_rehearsed_without_a_connection(home: Home, gnupg: Key, message: Any):
    message("hello.org")
    home.peers('[peers.forge]\nhost = "192.0.2.1"\n[peers.other]\nhost = "192.0.2.2"\ntransport = "rsync"\n')
    text = MANIFEST.replace("KEY", "true").replace("local.docs", "forge.docs").replace("local.site", "other.site")
    Path("release.yaml").write_text(text, encoding="utf-8")
    command = ("strace", "-f", "-qq", "-o", "log", "-e", "trace=connect,sendto,bind")

    run = subprocess.run(
        [*command, sys.executable, "-m", "cas", "rehearse", "release.yaml", "--root", "tree"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip

    assert run.returncode == 0, run.stderr
    calls = Path("log").read_text(encoding="utf-8", errors="replace")
    assert "connect(" in calls  # gpg to its agent
    assert "AF_INET" not in calls
    assert {len(pairs(Path("tree", name))) for name in ("forge.docs", "other.site")} == {2}


# Again, and where


def test_the_same_plan_again_changes_nothing_and_another_one_is_refused(
    cas: Callable[..., Run], manifest: Path, planned: Path
):
    assert cas("rehearse", planned, "--root", "tree").code == 0
    before = everything(Path("tree"))

    again = cas("rehearse", planned, "--root", "tree", "--output", "json")
    another = cas("rehearse", manifest, "--root", "tree", "--only", "told")

    assert outcomes(again) == {"unchanged": 2}
    assert (another.code, codes(another)) == (1, ["rehearsal-root"])
    assert "nothing was sent" in another.err
    assert everything(Path("tree")) == before


def test_a_rehearsal_that_was_stopped_is_finished_by_the_next(cas: Callable[..., Run], planned: Path):
    Path("tree").mkdir()
    assert cas("rehearse", planned, "--root", "tree").code == 0
    shutil.rmtree("tree/local.site")

    run = cas("rehearse", planned, "--root", "tree", "--output", "json")

    assert outcomes(run) == {"delivered": 1, "unchanged": 1}


def test_a_failed_rehearsal_leaves_nothing_that_retry_could_send(cas: Callable[..., Run], home: Home, planned: Path):
    assert cas("rehearse", planned, "--root", "tree").code == 0
    shutil.rmtree("tree/local.site")
    Path("tree/local.site").write_text("in the way", encoding="utf-8")

    run = cas("rehearse", planned, "--root", "tree")

    assert run.code == 1
    assert "failed: told@local.site" in run.err
    assert "stays open" not in run.err
    assert "marker" not in run.err
    assert (home.markers(), cas("retry").out) == ((), "nothing is open\n")
    assert [name for name in os.listdir("tree") if name.startswith(".tmp")] == []


@pytest.fixture
def places(home: Home, tmp_path: Path) -> dict[str, Path]:
    """Where no rehearsal may be, by what is wrong there."""
    home.peers('[projects.elsewhere]\ninbox_path = "~/post/in"\n[projects.into]\ninbox_path = "~/r/local.docs/in"\n')
    home.inbox("docs").mkdir(parents=True)
    foreign = tmp_path / "foreign" / "inbox"
    (foreign / OF_OURS).mkdir(parents=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine", encoding="utf-8")
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "link").symlink_to(home.inbox("docs"))
    return {
        "an inbox": home.inbox("docs"),
        "in an inbox": home.inbox("docs") / "tree",
        "in an inbox that is not there yet": home.inbox("new") / "deep" / "tree",
        "in one of peers.toml": home.path / "post" / "in" / "tree",
        "around one of peers.toml": home.path / "r",
        "in an inbox of somebody else": foreign / "tree",
        "through a link": tmp_path / "link" / "tree",
        "not empty": tmp_path / "full",
        "in a file": tmp_path / "file" / "tree",
    }


def test_a_tree_that_could_be_mixed_up_is_refused(
    cas: Callable[..., Run], home: Home, planned: Path, places: dict[str, Path], tmp_path: Path
):
    before = everything(tmp_path)

    for what, place in places.items():
        run = cas("rehearse", planned, "--root", place, "--output", "json")

        found = [one["code"] for one in json.loads(run.out)["diagnostics"]]
        assert (what, run.code, found) == (what, 1, ["rehearsal-root"]), run.err
    assert cas("rehearse", planned, "--root", tmp_path / "file").code == 64
    assert everything(tmp_path) == before


def test_a_link_in_the_tree_leads_nobody_out_of_it(cas: Callable[..., Run], home: Home, planned: Path):
    assert cas("rehearse", planned, "--root", "tree").code == 0
    shutil.rmtree("tree/local.docs")
    home.inbox("docs").mkdir(parents=True)
    Path("tree/local.docs").symlink_to(home.inbox("docs"))

    run = cas("rehearse", planned, "--root", "tree")

    assert (run.code, codes(run)) == (1, ["rehearsal-root"])
    assert os.listdir(home.inbox("docs")) == []


@pytest.mark.parametrize("destination", ["../../evil.x", "local.../x", "local.x/../../y", "/etc.x", "local..."])
def test_no_destination_leads_out_of_the_tree(
    cas: Callable[..., Run], manifest: Path, planned: Path, tmp_path: Path, destination: str
):
    manifest.write_text(MANIFEST.replace("KEY", "false").replace("local.docs", destination), encoding="utf-8")
    assert cas("rehearse", manifest, "--root", tmp_path / "tree").code == 2

    def renamed(body: dict[str, Any]) -> None:
        body["deliveries"][0]["destination"]["address"] = destination

    edited(planned, renamed)
    assert cas("rehearse", planned, "--root", tmp_path / "tree").code == 6
    assert not (tmp_path / "tree").exists()


# As apply


@pytest.mark.parametrize("output", ["text", "json"])
def test_halt_stops_a_rehearsal_as_it_stops_apply(cas: Callable[..., Run], home: Home, planned: Path, output: str):
    home.halt("not now")

    run = cas("rehearse", planned, "--root", "tree", "--config-dir", "other", "--output", output)

    assert (run.code, Path("tree").exists()) == (5, False)
    assert output == "text" or json.loads(run.out)["halted"] == "HALT is set: not now"


def test_what_apply_refuses_a_rehearsal_refuses(cas: Callable[..., Run], manifest: Path, planned: Path):
    Path("hello.org").write_text("other", encoding="utf-8")

    refused(cas("rehearse", planned, "--root", "tree"), "plan-changed")

    lines = (
        ("plan-fixed", planned, "--tags", "late"),
        ("plan-alone", planned, manifest),
        ("no-plan", manifest, "--inputs", "."),
    )
    runs = [(code, cas("rehearse", *rest, "--root", "tree")) for code, *rest in lines]
    assert [(run.code, codes(run)) for _, run in runs] == [(64, [code]) for code, _ in runs]
    assert "--inputs" in runs[-1][1].err
    assert cas("rehearse", planned).code == 64
    assert not Path("tree").exists()


def test_a_rehearsal_is_reported_like_a_run(cas: Callable[..., Run], planned: Path):
    run = cas("rehearse", planned, "--root", "tree", "--report", "markdown=summary.md")

    assert run.code == 0
    assert re.match(r"### cas rehearse: all is there\n", Path("summary.md").read_text(encoding="utf-8"))

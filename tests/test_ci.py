"""The ready pipelines: of the form that their readers know, and every command of theirs does what it is there for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from support import Home, verify
from test_bundles import keyring

from cas.loopback import Key

ROOT = Path(__file__).resolve().parent.parent
ACTION = ROOT / "action.yml"
PAGE = ROOT / "docs" / "how-to" / "ci.md"
GITLAB = ROOT / "docs" / "ci" / "cas.gitlab-ci.yml"
MANIFEST = "cas: 1\nsends:\n  - {id: hello, destination: local.docs, message: hello.org}\n"
FOLDER = "a b; $(touch owned)"


def parsed(path: Path) -> dict[str, Any]:
    body: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return body


STEPS = {step["name"]: step for step in parsed(ACTION)["runs"]["steps"]}


@pytest.mark.parametrize(("path", "schema"), [(ACTION, "vendor.github-actions"), (GITLAB, "vendor.gitlab-ci")])
def test_a_pipeline_is_of_the_form_that_its_reader_knows(path: Path, schema: str):
    run = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stdout + run.stderr


def test_no_text_of_others_gets_into_a_shell_but_by_the_environment():
    assert [name for name, step in STEPS.items() if "${{" in step.get("run", "")] == []


@pytest.mark.parametrize("path", [ACTION, PAGE, ROOT / "docs" / "how-to" / "scale.md"], ids=lambda path: path.name)
def test_every_action_is_pinned_by_commit_with_its_version(path: Path):
    used = re.findall(r"uses: (.*)", path.read_text(encoding="utf-8"))

    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one) for one in used)


def test_what_pip_installs_in_a_pipeline_is_pinned_by_hash_as_in_the_constraints():
    text = (ROOT / "requirements-ci.txt").read_text(encoding="utf-8").replace("\\\n", "")
    pinned = dict(line.split()[0].split("==") for line in text.split("\n") if line and not line.startswith("#"))
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    known = {name.lower(): version for name, version in re.findall(r"^([\w.-]+)==(\S+)$", constraints, re.MULTILINE)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert all("--hash=sha256:" in line for line in text.split("\n") if line and not line.startswith("#"))
    assert {re.split("[>=]", one)[0].lower() for one in project["dependencies"]} <= set(pinned)
    assert {name: known.get(name) or known[name.replace("-", "_")] for name in pinned} == pinned


@pytest.fixture
def bash(home: Home, gnupg: Key, message: Callable[..., Path], tmp_path: Path) -> Callable[..., None]:
    """`bash(script, **environment)`: as a runner runs it, on this Python's packages, from which pip can build cas."""
    message("hello.org")
    Path(FOLDER).mkdir()
    Path(FOLDER, "m.yaml").write_text(MANIFEST, encoding="utf-8")
    message(Path(FOLDER, "hello.org"))
    path = tmp_path / "path"
    path.touch()
    variables = tmp_path / "variables"
    variables.touch()
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0"}

    def run(script: str, **environment: str) -> None:
        ended = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            env={
                **os.environ,
                **offline,
                "PATH": os.pathsep.join([*path.read_text(encoding="utf-8").splitlines(), os.environ["PATH"]]),
                "PYTHONPATH": sysconfig.get_path("purelib"),
                "RUNNER_TEMP": str(tmp_path),
                "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
                "GITHUB_PATH": str(path),
                "GITHUB_ENV": str(variables),
                **environment,
                **dict(line.split("=", 1) for line in variables.read_text(encoding="utf-8").splitlines()),
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr

    return run


def exported(key: Key) -> str:
    command = ["gpg", "--batch", "--armor", "--export-secret-keys", key.fingerprint]
    environment = {**os.environ, "GNUPGHOME": str(key.gnupghome)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def runner_keys() -> Iterator[Path]:
    """The key ring of a runner, in which there is none yet."""
    with keyring() as empty:
        yield empty


@pytest.mark.threat("CI runner", "keep the signing key after the job")
def test_the_action_delivers_the_plan_that_was_approved(
    bash: Callable[..., None], home: Home, gnupg: Key, runner_keys: Path, tmp_path: Path
):
    given = {
        "ACTION_FOLDER": str(ROOT),
        "FOLDER": FOLDER,
        "PLAN": "cas plan.json",
        "CAS_CONFIG_DIR": "ci",
        "SIGNING_KEY": exported(gnupg),
    }
    Path(FOLDER, "m.yaml").write_text(f"{MANIFEST}defaults: {{sign: {{key: {gnupg.fingerprint}}}}}\n", encoding="utf-8")

    for step in ("Install cas", "Plan"):
        bash(STEPS[step]["run"], **given, GNUPGHOME=str(runner_keys))
    assert not home.inbox("docs").exists()
    for step in ("Take the key", "Apply"):
        bash(STEPS[step]["run"], **given, GNUPGHOME=str(runner_keys))
    taken = Path((tmp_path / "variables").read_text(encoding="utf-8").strip().removeprefix("GNUPGHOME="))
    assert (taken / "S.gpg-agent").exists()
    bash(STEPS["Destroy the key"]["run"], **given)

    assert not taken.exists()
    assert STEPS["Destroy the key"]["if"].startswith("always()")
    assert not list(runner_keys.glob("private-keys-v1.d/*"))
    assert (tmp_path / "cas" / "bin" / "cas").is_file()
    assert sorted(one.suffix for one in home.inbox("docs").iterdir() if one.is_file()) == [".asc", ".org"]
    assert not Path("owned").exists()
    assert len(list(ElementTree.parse("cas-report.xml").iter("testcase"))) == 1
    summary = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "    hello@local.docs" in summary
    assert "### cas apply: all is there" in summary


def test_a_pipeline_without_a_key_delivers_a_bundle_as_its_page_says(
    bash: Callable[..., None], home: Home, gnupg: Key, runner_keys: Path, tmp_path: Path
):
    text = PAGE.read_text(encoding="utf-8").split("\n## Without a key in the pipeline\n")[1].split("\n## ")[0]
    found = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    typed = [block.replace("5CA7F1CE5E8E605E770C0236B4B61A2737D6A700", gnupg.fingerprint) for _, block in found[:2]]
    policy = found[2][1].replace("5CA7F1CE5E8E605E770C0236B4B61A2737D6A700", gnupg.fingerprint)
    workflow = tmp_path / "release.yml"
    workflow.write_text(found[3][1], encoding="utf-8")
    steps = {step.get("name"): step.get("run") for step in parsed(workflow)["jobs"]["apply"]["steps"]}
    Path("ci").mkdir()
    Path("ci/peers.toml").write_text(policy, encoding="utf-8")
    shutil.move(FOLDER, "playbooks")
    shutil.copy(ROOT / "requirements-ci.txt", "ci")
    assert [kind for kind, _ in found] == ["sh", "sh", "toml", "yaml"]
    test_a_pipeline_is_of_the_form_that_its_reader_knows(workflow, "vendor.github-workflows")

    bash(STEPS["Install cas"]["run"], ACTION_FOLDER=str(ROOT))
    bash("".join(typed))
    shutil.rmtree("playbooks")
    bash(steps["Apply"], CAS_CONFIG_DIR="ci", GNUPGHOME=str(runner_keys))

    (name,) = (path for path in home.inbox("docs").glob("*.org"))
    assert verify(name) == gnupg.fingerprint


def test_the_gitlab_jobs_deliver_the_plan_that_was_approved(
    bash: Callable[..., None], home: Home, gnupg: Key, runner_keys: Path, tmp_path: Path
):
    jobs = parsed(GITLAB)
    Path("key").write_text(exported(gnupg), encoding="utf-8")
    given = {"CAS_FOLDER": FOLDER, "CAS_CONFIG_DIR": "ci", "CAS_SOURCE": str(ROOT), "GNUPGHOME": str(runner_keys)}
    given |= {"CAS_REQUIREMENTS": str(ROOT / "requirements-ci.txt"), "CI_JOB_ID": tmp_path.name + str(os.getpid())}
    before = jobs[".cas"]["before_script"]
    Path(FOLDER, "m.yaml").write_text(f"{MANIFEST}defaults: {{sign: {{key: {gnupg.fingerprint}}}}}\n", encoding="utf-8")

    bash("\n".join([*before, *jobs["cas-plan"]["script"]]), **given)
    assert not home.inbox("docs").exists()
    bash("\n".join([*before, *jobs["cas-apply"]["script"]]), **given, CAS_SIGNING_KEY="key")
    taken = Path(f"/tmp/cas-gpg.{given['CI_JOB_ID']}")
    assert taken.is_dir()
    bash("\n".join(jobs["cas-apply"]["after_script"]), **given)

    assert not taken.exists()
    assert not list(runner_keys.glob("private-keys-v1.d/*"))
    assert sorted(one.suffix for one in home.inbox("docs").iterdir() if one.is_file()) == [".asc", ".org"]
    assert len(list(ElementTree.parse("cas-report.xml").iter("testcase"))) == 1

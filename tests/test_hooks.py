"""The hook for pre-commit: what the file says, run as pre-commit runs it, on files as it passes them.

pre-commit itself would fetch packages to make the hook's environment, so that it is not part of these tests.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import Home, Run

ROOT = Path(__file__).resolve().parent.parent
(HOOK,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs" / "how-to" / "pre-commit.md").read_text(encoding="utf-8")
MANIFEST = "cas: 1\nsends: [{id: hello, destination: local.docs, message: hello.org}]\n"
OTHERS = {
    "compose.yaml": "services:\n  cas:\n    image: cas\n",
    "two.yaml": "---\na: 1\n---\nb: !Ref c\n",
    "list.yaml": "- cas\n- cas: 1\n",
    "casing.yaml": "casing: 1\n",
    "empty.yaml": "",
    "broken.yaml": "a: [\n",
}


@pytest.fixture
def hook(home: Home) -> Callable[..., Run]:
    """`hook(*files, args=None)`: the entry, its arguments or those of a user, then the files; without a terminal."""

    def run(*files: str, args: list[str] | None = None) -> Run:
        program, *words = shlex.split(HOOK["entry"])
        assert program == "cas"
        argv = [*words, *(HOOK["args"] if args is None else args), *files]
        done = subprocess.run(
            [sys.executable, "-m", "cas", *argv],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Run(code=done.returncode, out=done.stdout, err=done.stderr)

    return run


def written(text: str, name: str = "release.yaml") -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def test_the_hook_is_a_python_one_that_gets_yaml_files():
    assert (HOOK["id"], HOOK["language"], HOOK["types"]) == ("cas-validate", "python", ["yaml"])
    assert HOOK["name"]
    assert HOOK["description"]


def test_the_hooks_program_is_one_that_the_package_installs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert shlex.split(HOOK["entry"])[0] in project["scripts"]


def test_sound_manifests_pass(hook, message):
    message("hello.org")

    run = hook(written(MANIFEST))

    assert (run.code, run.out) == (0, "valid: 1 delivery\n")


def test_a_manifest_that_is_wrong_fails_with_its_place(hook, message):
    message("hello.org")

    run = hook(written(MANIFEST), written(MANIFEST.replace("destination", "destinaton"), "wrong.yaml"))

    assert run.code == 1
    assert "wrong.yaml:2:21: error[unknown-key]" in run.out
    assert "release.yaml" not in run.out


def test_manifests_are_checked_each_by_itself(hook, cas, message):
    message("hello.org")
    both = written(MANIFEST), written(MANIFEST, "again.yaml")

    run = hook(*both)

    assert (run.code, run.out) == (0, "valid: 2 deliveries\n")
    assert cas("validate", *both).code == 1


def test_what_is_wrong_in_several_is_told_together(hook, home: Home):
    run = hook(written(MANIFEST), written(MANIFEST.replace("hello.org", "no.org"), "again.yaml"))

    assert run.code == 1
    assert "`hello.org` does not exist" in run.out
    assert "`no.org` does not exist" in run.out


def test_a_warning_of_peers_toml_is_told_once(hook, home: Home, message):
    message("hello.org")
    home.peers("[pears]\n")

    run = hook(written(MANIFEST), written(MANIFEST, "again.yaml"))

    assert (run.code, run.out.count("`pears`")) == (0, 1)


@pytest.mark.parametrize("name", OTHERS)
def test_yaml_that_is_no_manifest_is_passed_over_by_name(hook, home: Home, name: str):
    run = hook(written(OTHERS[name], name))

    assert (run.code, run.out) == (0, "valid: 0 deliveries\n")
    assert f"note: {name} has no key `cas`" in run.err


@pytest.mark.parametrize(
    "text",
    ["cas: 1\n", "\ufeffcas: 1\n", "# a comment\n'cas': 2\n", '---\n"cas" : 1\n', "--- {cas: 1}\n", "cas:\n\t- x\n"],
)
def test_whatever_has_the_key_is_checked_however_broken_it_is(hook, home: Home, text: str):
    run = hook(written(text))

    assert run.code == 1
    assert "release.yaml" in run.out


def test_without_the_argument_yaml_that_is_no_manifest_is_an_error(hook, home: Home):
    assert hook(written(OTHERS["compose.yaml"]), args=[]).code == 1


@pytest.mark.parametrize("what", ["missing.yaml", "empty-folder"])
def test_what_cannot_be_checked_is_no_success(cas: Callable[..., Run], home: Home, what: str):
    Path("empty-folder").mkdir()

    run = cas("validate", "--each", what)

    assert run.code == 1
    assert what in run.out


def test_of_a_folder_each_manifest_is_checked(cas: Callable[..., Run], home: Home, message):
    message("playbooks/hello.org")
    for name in ("a.yaml", "b.yml"):
        written(MANIFEST, f"playbooks/{name}")
    written(OTHERS["compose.yaml"], "playbooks/compose.yaml")

    run = cas("validate", "--each", "playbooks")

    assert (run.code, run.out) == (0, "valid: 2 deliveries\n")


# The page


def configurations() -> list[dict[str, Any]]:
    blocks = [yaml.safe_load(block.split("```")[0]) for block in PAGE.split("```yaml\n")[1:]]
    return [hook for block in blocks for repo in block["repos"] for hook in repo["hooks"]]


def test_the_page_shows_configurations_of_this_hook():
    assert len(configurations()) >= 3
    assert {shown["id"] for shown in configurations()} == {HOOK["id"]}
    assert all(set(shown) <= {"id", "files", "types", "args", "pass_filenames"} for shown in configurations())


@pytest.mark.parametrize("shown", configurations(), ids=lambda shown: ",".join(sorted(set(shown) - {"id"})) or "plain")
def test_a_configuration_of_the_page_works(hook, home: Home, message, shown: dict[str, Any]):
    message("playbooks/hello.org")
    written(MANIFEST, "playbooks/release.yaml")
    Path("ci").mkdir()
    written("[peers.laptop]\n", "ci/peers.toml")

    files = [] if shown.get("pass_filenames") is False else ["playbooks/release.yaml"]

    assert hook(*files, args=shown.get("args")).code == 0

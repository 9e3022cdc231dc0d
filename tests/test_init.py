"""`cas init`: what a new user begins with works as it is, and nothing that was there is touched."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from support import Home, Run, run_with_small_files

from cas import inventory, starter
from cas.loopback import Key

ROOT = Path(__file__).resolve().parent.parent
HERE = (".manifest.schema.json", "cas.yaml", "messages/hello.org")


@pytest.fixture
def no_key(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """gpg has no keys at all."""
    folder = home.path / "gnupg"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("GNUPGHOME", str(folder))


def files(folder: Path = Path()) -> tuple[str, ...]:
    return tuple(sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()))


def next_steps(run: Run) -> list[str]:
    """The commands that the words after `next:` show."""
    return [line.strip() for line in run.err.split("next:\n")[1].splitlines()]


def typed(cas: Callable[..., Run], command: str) -> Run:
    """One of the next steps: cas in this process, anything else by a shell."""
    if command.startswith("cas "):
        return cas(*shlex.split(command)[1:])
    run = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    return Run(code=run.returncode, out=run.stdout, err=run.stderr)


# What a new user meets


def test_after_init_every_step_that_it_names_succeeds(
    cas, home: Home, gnupg: Key, verify: Callable[..., str], pairs: Callable[[Path], tuple[str, ...]]
):
    run = cas("init")

    steps = next_steps(run)
    assert [step.split()[:2] for step in steps[:3]] == [["cas", "validate"], ["cas", "plan"], ["cas", "apply"]]
    runs = [typed(cas, step) for step in steps]
    assert [(one.code, "warning" in one.out + one.err) for one in runs] == [(0, False)] * 4
    signature, name = pairs(home.inbox("builder"))[::-1]
    assert runs[-1].out.split() == [name, signature]
    assert verify(home.inbox("builder") / name) == gnupg.fingerprint
    assert (home.inbox("builder") / name).read_bytes() == Path("messages/hello.org").read_bytes()


def test_without_a_key_the_manifest_sends_unsigned_and_that_is_said(cas, home: Home, no_key: None, pairs):
    run = cas("init")

    assert "note: there is no secret key that can sign, so that the manifest sends unsigned" in run.err
    assert [typed(cas, step).code for step in next_steps(run)] == [0] * 4
    assert len(pairs(home.inbox("builder"))) == 1
    assert "gpg --quick-generate-key" in Path("cas.yaml").read_text()


def test_without_gpg_the_manifest_sends_unsigned_too(cas, home: Home, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    run = cas("init")

    assert "note: `gpg` is not installed, so that the manifest sends unsigned" in run.err
    assert cas("apply", "cas.yaml").code == 0


def test_once_there_is_a_key_the_line_that_turns_signing_off_can_be_taken_out(
    cas, home: Home, no_key: None, throwaway: Key, monkeypatch, pairs
):
    cas("init")
    monkeypatch.setenv("GNUPGHOME", str(throwaway.gnupghome))
    manifest = Path("cas.yaml")

    manifest.write_text(manifest.read_text().replace("  sign: false\n", "", 1))

    assert cas("apply", manifest).code == 0
    assert len(pairs(home.inbox("builder"))) == 2


def test_where_signatures_are_required_and_no_key_is_there_making_one_is_the_first_step(cas, home: Home, no_key: None):
    home.peers("[policy]\nrequire_signed = true\n")

    run = cas("init")

    assert next_steps(run)[0] == "gpg --quick-generate-key NAME"
    assert yaml.safe_load(Path("cas.yaml").read_text())["defaults"]["sign"] is True
    assert cas("validate", "cas.yaml").code == 0


@pytest.mark.parametrize("folder", ["outbox", "out box/deep", "-odd", "ä"])
def test_init_makes_the_folder_that_it_is_given_and_the_steps_fit(cas, home: Home, gnupg: Key, folder: str):
    run = cas("init", "--", folder)

    assert run.code == 0
    assert files(Path(folder)) == HERE
    assert [typed(cas, step).code for step in next_steps(run)] == [0] * 4


@pytest.mark.parametrize("name", ["123", "true", "my project", "-", "ä", "a..b", "1e3", "No"])
def test_whatever_a_project_is_called_its_manifest_is_sound(cas, home: Home, no_key: None, monkeypatch, name: str):
    folder = home.projects / name
    folder.mkdir()
    monkeypatch.chdir(folder)

    run = cas("init")

    assert [typed(cas, step).code for step in next_steps(run)] == [0] * 4
    assert isinstance(yaml.safe_load((folder / "cas.yaml").read_text())["sender"], str)


def test_outside_of_projects_the_message_lands_where_the_steps_say(cas, home: Home, no_key: None, monkeypatch):
    folder = home.path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)

    run = cas("init")

    assert next_steps(run)[-1] == "ls ~/projects/elsewhere/inbox/from-agents"
    assert [typed(cas, step).code for step in next_steps(run)] == [0] * 4


def test_an_inbox_that_peers_toml_names_is_the_one_that_the_steps_name(cas, home: Home, no_key: None):
    home.peers('[projects.builder]\ninbox_path = "~/in box"\n')

    run = cas("init")

    assert next_steps(run)[-1] == "ls ~/'in box'"
    assert [typed(cas, step).code for step in next_steps(run)] == [0] * 4


def test_two_that_were_begun_for_one_project_do_not_meet(cas, home: Home, no_key: None):
    cas("init", "a")
    hello = Path("a/messages/hello.org")
    hello.write_text(hello.read_text().replace("hello-2", "hello-1"))  # as if it had been a while ago
    cas("init", "b")

    assert cas("apply", "a/cas.yaml").code == 0
    assert cas("apply", "b/cas.yaml").code == 0


def test_a_chosen_configuration_folder_is_in_the_steps(cas, home: Home, no_key: None, tmp_path: Path):
    run = cas("init", "--config-dir", tmp_path / "my config")

    assert inventory.parse((tmp_path / "my config" / "peers.toml").read_bytes(), file="peers.toml")[1] == ()
    assert not home.config.exists()
    assert all(step.endswith("my config'") for step in next_steps(run)[:3])
    assert [typed(cas, step).code for step in next_steps(run)] == [0] * 4


# What it writes


def test_init_says_what_it_wrote(cas, home: Home, no_key: None):
    run = cas("init")

    peers = home.config / "peers.toml"
    told = ["messages/hello.org", ".manifest.schema.json", "cas.yaml", str(peers)]
    assert run.out.splitlines() == [f"written: {path}" for path in told]
    assert files() == HERE
    assert peers.exists()


def test_as_json_the_result_says_it_too(cas, home: Home, no_key: None):
    home.peers("")

    told = json.loads(cas("init", "x", "--output", "json").out)

    assert set(told) == {"format", "written", "kept", "next"}
    assert (told["format"], told["kept"]) == ("cas.init/1", [str(home.config / "peers.toml")])
    assert sorted(told["written"]) == sorted(f"x/{path}" for path in HERE)
    assert told["next"][0] == "cas validate x/cas.yaml"


def test_the_first_line_of_the_manifest_names_a_schema_that_is_there(cas, home: Home, no_key: None):
    cas("init")

    marker, _, path = Path("cas.yaml").read_text().split("\n")[0].partition("$schema=")
    assert marker == "# yaml-language-server: "
    assert json.loads(Path(path).read_text()) == json.loads(
        (ROOT / "schemas" / "manifest.schema.json").read_text(encoding="utf-8")
    )


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
def test_the_examples_in_the_manifests_comments_are_such_as_cas_takes(cas, home: Home, message, signed: bool):
    home.peers("[peers.laptop]\n")
    message("messages/hello.org")
    message("messages/announce.org", sequence=2)
    text = starter.manifest(sender="builder", message="messages/hello.org", signed=signed)
    example = re.compile(r"^  # - id:.*\n(?:  # .*\n)*", re.MULTILINE)
    Path("cas.yaml").write_text(example.sub(lambda found: re.sub("^  # ", "  ", found[0], flags=re.MULTILINE), text))

    run = cas("validate", "cas.yaml")

    assert (run.code, run.out) == (0, "valid: 6 deliveries\n")


def test_the_manifest_is_no_wider_than_a_screen():
    text = starter.manifest(sender="builder", message="messages/hello.org", signed=False) + starter.PEERS

    assert max(map(len, text.splitlines())) <= 120


def test_the_peers_toml_is_empty_but_for_comments():
    assert inventory.parse(starter.PEERS.encode(), file="peers.toml") == (inventory.EMPTY, ())


def test_the_examples_in_peers_toml_are_taken_without_a_warning_and_show_every_key():
    text = re.sub(r"^#(?=\S)", "", starter.PEERS, flags=re.MULTILINE)

    _, warnings = inventory.parse(text.encode(), file="peers.toml")

    schema = json.loads((ROOT / "schemas" / "peers.schema.json").read_text(encoding="utf-8"))
    shown = tomllib.loads(text)
    assert warnings == ()
    assert set(shown) == set(schema["properties"])
    assert set(shown["peers"]["laptop"]) == set(schema["definitions"]["peer"]["properties"])
    assert set(shown["policy"]) == set(schema["definitions"]["policy"]["properties"])


def test_the_peers_toml_says_how_an_editor_checks_it(cas, home: Home):
    assert "#:schema ./peers.schema.json" in starter.PEERS
    assert "cas schema peers > peers.schema.json" in starter.PEERS
    assert cas("schema", "peers").code == 0


# What is there is kept


def test_a_peers_toml_that_is_there_is_kept_and_named(cas, home: Home, no_key: None):
    peers = home.peers("[peers.mine]\n")

    run = cas("init")

    assert run.code == 0
    assert f"kept: {peers}, which was here already" in run.out
    assert peers.read_text() == "[peers.mine]\n"


def test_a_schema_that_is_there_is_kept_and_named(cas, home: Home, no_key: None):
    Path(".manifest.schema.json").write_text("{}")

    run = cas("init")

    assert run.code == 0
    assert "kept: .manifest.schema.json, which was here already" in run.out
    assert Path(".manifest.schema.json").read_text() == "{}"


@pytest.mark.parametrize("present", [("cas.yaml",), ("messages/hello.org",), ("cas.yaml", "messages/hello.org")])
def test_where_manifest_or_message_is_there_nothing_is_written(cas, home: Home, no_key: None, present):
    for path in map(Path, present):
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")

    run = cas("init")

    assert run.code == 1
    assert all(f"`{path}`" in run.err for path in present)
    assert "nothing was written" in run.err
    assert "hint: take another folder: cas init FOLDER" in run.err
    assert files() == tuple(sorted(present))
    assert not home.config.exists()


def test_a_dangling_link_counts_as_there(cas, home: Home, no_key: None):
    Path("cas.yaml").symlink_to("nowhere")

    assert cas("init").code == 1
    assert os.listdir() == ["cas.yaml"]


def test_a_peers_toml_that_is_broken_is_told_before_anything_is_written(cas, home: Home, no_key: None):
    home.peers("[peers\n")

    run = cas("init")

    assert run.code == 1
    assert "peers.toml:1:7: error[invalid-peers]" in run.err
    assert files() == ()


def test_where_peers_toml_cannot_be_written_nothing_is(cas, home: Home, no_key: None):
    home.config.parent.mkdir()
    home.config.write_text("a file where the folder should be")

    run = cas("init")

    assert run.code == 1
    assert "Traceback" not in run.err
    assert files() == ()


def test_a_disk_that_fills_up_leaves_nothing(home: Home, no_key: None):
    run = run_with_small_files(1000, "init", PATH="")  # the message fits, the schema does not

    assert run.code == 1
    assert "error[unwritable]: `.manifest.schema.json` cannot be written: file too large" in run.err
    assert files() == ()


@pytest.mark.parametrize("folder", ["cas.yaml", "/dev/null/x", "/proc/x"], ids=["a-file", "below-a-file", "no-disk"])
def test_a_folder_that_cannot_be_is_an_error(cas, home: Home, no_key: None, folder: str):
    Path("cas.yaml").touch()

    run = cas("init", folder)

    assert run.code in (1, 64)
    assert "Traceback" not in run.err
    assert files() == ("cas.yaml",)

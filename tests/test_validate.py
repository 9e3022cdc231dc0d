"""`cas validate`: all that can be known offline, all at once; the findings are the result."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Home, Run

MANIFEST = """\
cas: 1
sends:
  - {id: hello, destination: local.docs, message: hello.org}
"""


@pytest.fixture
def manifest(home: Home, message: Callable[..., Path]) -> Path:
    message("hello.org")
    path = Path("release.yaml")
    path.write_text(MANIFEST, encoding="utf-8")
    return path


def findings(run: Run) -> list[tuple[str, str]]:
    """Place and code of each error."""
    return re.findall(r"^(\S+?): error\[(\S+?)\]", run.out, re.MULTILINE)


def test_a_sound_manifest_is_valid_and_its_deliveries_are_counted(cas: Callable[..., Run], manifest: Path):
    run = cas("validate", manifest)

    assert (run.code, run.out, run.err) == (0, "valid: 1 delivery\n", "")


def test_no_key_is_needed(cas: Callable[..., Run], manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GNUPGHOME", str(tmp_path / "nothing"))
    monkeypatch.setenv("PATH", str(tmp_path))

    assert cas("validate", manifest).code == 0


def test_nothing_is_sent_or_written(cas: Callable[..., Run], home: Home, manifest: Path):
    cas("validate", manifest)

    assert not home.inbox("docs").exists()
    assert not home.state.exists()


@pytest.mark.parametrize(
    ("text", "place", "code"),
    [
        ("cas: 1\nsends: [\n", "release.yaml:3:1", "yaml-syntax"),
        ("cas: 2\nsends: []\n", "release.yaml:1:6", "wrong-value"),
        (
            "cas: 1\nsends:\n  - {id: a, destination: local.docs, mesage: hello.org}\n",
            "release.yaml:3:38",
            "unknown-key",
        ),
        ("cas: 1\ncas: 1\nsends: []\n", "release.yaml:2:1", "duplicate-key"),
        (
            "cas: 1\nsends:\n  - {id: a, destination: docs, message: hello.org}\n",
            "release.yaml:3:26",
            "malformed-destination",
        ),
        ("cas: 1\nsends:\n  - {id: a, destination: x.docs, message: hello.org}\n", "release.yaml:3:26", "unknown-peer"),
        ("cas: 1\nsends:\n  - {id: a, destination: local.docs, message: no.org}\n", "release.yaml:3:47", "unreadable"),
        ("cas: 1\nsender: ''\nsends: []\n", "release.yaml:2:9", "wrong-value"),
    ],
    ids=lambda value: value if value.isascii() and "\n" not in value else None,
)
def test_an_error_names_its_file_line_and_column(
    cas: Callable[..., Run], manifest: Path, text: str, place: str, code: str
):
    manifest.write_text(text, encoding="utf-8")

    run = cas("validate", manifest)

    assert run.code in (1, 2)
    assert (place, code) in findings(run)


def test_errors_of_manifest_message_destination_and_order_are_told_together(
    cas: Callable[..., Run], manifest: Path, message: Callable[..., Path]
):
    message("bad.org", sequence="٣")
    manifest.write_text(
        MANIFEST
        + "  - {id: again, destination: local.docs, message: hello.org}\n"
        + "  - {id: lost, destination: nowhere.docs, message: bad.org}\n",
        encoding="utf-8",
    )

    run = cas("validate", manifest)

    assert run.code == 4
    assert [code for _, code in findings(run)] == ["invalid-sequence", "doubled-sequence", "unknown-peer"]
    assert "valid:" not in run.out


def test_as_json_the_findings_are_a_document(cas: Callable[..., Run], manifest: Path):
    manifest.write_text(MANIFEST.replace("hello.org", "no.org"), encoding="utf-8")

    run = cas("validate", manifest, "--output", "json")

    body = json.loads(run.out)
    assert (run.code, body["format"]) == (1, "cas.diagnostics/1")
    (found,) = body["diagnostics"]
    assert set(found) == {"code", "severity", "message", "hint", "file", "line", "column", "related"}
    assert (found["file"], found["line"], found["column"]) == ("release.yaml", 3, 51)


def test_as_json_a_sound_manifest_has_no_findings(cas: Callable[..., Run], manifest: Path):
    run = cas("validate", manifest, "--output", "json")

    assert (run.code, json.loads(run.out)) == (0, {"format": "cas.diagnostics/1", "diagnostics": []})


def test_a_warning_is_told_and_leaves_the_manifest_valid(cas: Callable[..., Run], home: Home, manifest: Path):
    home.peers("[pears]\n")

    run = cas("validate", manifest)

    assert run.code == 0
    assert "warning[unknown-key]: `pears`" in run.out
    assert run.out.endswith("valid: 1 delivery\n")


def test_a_broken_peers_toml_is_an_error_with_its_place(cas: Callable[..., Run], home: Home, manifest: Path):
    path = home.peers("[peers\n")

    run = cas("validate", manifest)

    assert run.code == 1
    assert f"{path}:1:7: error[invalid-peers]" in run.out


def test_validate_works_under_halt_and_says_that_it_is_set(cas: Callable[..., Run], home: Home, manifest: Path):
    home.halt()

    run = cas("validate", manifest)

    assert (run.code, run.out) == (0, "valid: 1 delivery\n")
    assert "note: HALT is set" in run.err


@pytest.mark.parametrize("name", ["missing.yaml", "/dev/null/x.yaml", "x" * 300])
def test_a_manifest_that_cannot_be_read_is_an_error(cas: Callable[..., Run], home: Home, name: str):
    run = cas("validate", name)

    assert run.code == 1
    assert "error[unreadable]" in run.out

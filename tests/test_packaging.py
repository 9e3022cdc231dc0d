"""What is handed out: the source archive, the wheel made from it, and cas as installed from that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from cas import __version__

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive, and the wheel that was made from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = (sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT))
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a new environment that has the wheel, and for its dependencies those of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    site = sysconfig.get_path("purelib", vars={"base": str(folder)})
    # A path that comes from a .pth file is not searched for such files: this checkout stays out of sight.
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    (wheel,) = built.glob("*.whl")
    pip = (sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check")
    subprocess.run(
        (*pip, "install", "--no-deps", "--no-index", str(wheel)), check=True, capture_output=True, timeout=100
    )
    return folder / "bin"


def said(folder: Path, *command: str | Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_wheel_holds_schemas_playbooks_and_types(built: Path) -> None:
    (wheel,) = built.glob("*.whl")

    names = set(zipfile.ZipFile(wheel).namelist())

    schemas = {f"cas/schemas/{path.name}" for path in (ROOT / "schemas").glob("*.json")}
    playbooks = {f"cas/{path.relative_to(ROOT)}" for path in (ROOT / "playbooks").rglob("*") if path.is_file()}
    assert schemas
    assert names >= schemas | playbooks | {"cas/py.typed", "cas/playbooks/messages/demo-review.org"}
    assert "cas/explanations.toml" in names
    assert {name.split("/")[0] for name in names} == {"cas", f"cross_agent_send-{__version__}.dist-info"}


def test_the_source_archive_holds_what_the_tests_need(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")

    with tarfile.open(archive) as content:
        names = {name.split("/", 1)[1] for name in content.getnames() if "/" in name}

    wanted = {
        "do",
        ".ci/run",
        ".pre-commit-hooks.yaml",
        "constraints.txt",
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "tests/conftest.py",
    }
    assert names >= wanted | {
        "schemas/manifest.schema.json",
        "schemas/peers.schema.json",
        "schemas/result.schema.json",
        "schemas/inbox.schema.json",
        "playbooks/demo.yaml",
        "cas/cli.py",
    }


def test_the_installed_command_says_its_version(installed: Path, tmp_path: Path) -> None:
    assert __version__ in said(tmp_path, installed / "cas", "--version")
    assert __version__ in said(tmp_path, installed / "python", "-m", "cas", "--version")


def test_the_installed_command_is_the_wheels(installed: Path, tmp_path: Path) -> None:
    where = said(tmp_path, installed / "python", "-c", "import cas; print(cas.__file__)")

    assert Path(where).is_relative_to(installed.parent)


def test_the_installed_command_knows_the_manifest_schema(installed: Path, tmp_path: Path) -> None:
    schema = json.loads(said(tmp_path, installed / "cas", "schema", "manifest"))

    assert schema == json.loads((ROOT / "schemas" / "manifest.schema.json").read_text(encoding="utf-8"))


def test_the_demo_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    assert "delivered once" in said(tmp_path, installed / "cas", "demo")

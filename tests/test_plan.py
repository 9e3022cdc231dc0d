"""Plans: the record and its one form, and `cas plan`, which writes nothing and connects to nothing."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support import Home, Run

from cas.inventory import Destination
from cas.loopback import Key
from cas.manifest import Retry, Sign
from cas.plan import Delivery, Input, Plan, PlannedMessage, canonical, fields

ROOT = Path(__file__).resolve().parent.parent
CLOCK = datetime(2026, 11, 23, 1, 31, 33, tzinfo=UTC)
KEY = "5CA7F1CE5E8E605E770C0236B4B61A2737D6A700"
NAME = "20261123T013133Z-from-builder-rel-1.4.0.org"
MANIFEST = """\
cas: 1
name: Rélease
defaults: {sign: {key: KEY}}
sends:
  - {id: hello, destination: [local.docs, forge.site], message: hello.org}
"""


def a_delivery(sign: Sign | None) -> Delivery:
    return Delivery(
        id="ask-review@laptop.docs",
        send="ask-review",
        identity="9f2c" * 8,
        sender="builder",
        lane="laptop.docs/rel-1.4.0",
        message=PlannedMessage(
            source="messages/review.org",
            digest="sha256:" + "0" * 64,
            bytes=196,
            conversation="rel-1.4.0",
            type="request",
            sequence=1,
        ),
        destination=Destination(
            address="laptop.docs",
            host="laptop.tailnet.ts.net",
            port=None,
            user=None,
            inbox="~/projects/docs/inbox/from-agents",
            transport="sftp",
            identity_file="/home/me/.ssh/id",
            host_key=None,
        ),
        files=(f"{NAME}.asc", NAME) if sign else (NAME,),
        sign=sign,
        retry=Retry(),
        tags=("review",),
    )


def a_plan(sign: Sign | None = Sign(key=KEY), expires: datetime | None = None) -> Plan:  # noqa: B008  frozen
    return Plan(
        clock=CLOCK,
        expires=expires,
        name="Rélease",
        sender="builder",
        tool_version="0.1.0",
        inputs=(Input(path="release.yml", digest="sha256:" + "1" * 64, bytes=1180),),
        deliveries=(a_delivery(sign),),
    )


# The record


def test_a_plan_has_the_fields_of_the_format():
    body = fields(a_plan())

    assert {**body, "digest": None} == {
        "clock": "2026-11-23T01:31:33Z",
        "expires": None,
        "format": "cas.plan/1",
        "tool": {"name": "cas", "version": "0.1.0"},
        "name": "Rélease",
        "sender": "builder",
        "variables": {},
        "selection": {"tags": [], "skip_tags": [], "only": [], "limit": []},
        "manifests": [],
        "inputs": [{"path": "release.yml", "digest": "sha256:" + "1" * 64, "bytes": 1180}],
        "deliveries": [
            {
                "id": "ask-review@laptop.docs",
                "identity": "9f2c" * 8,
                "sender": "builder",
                "send": "ask-review",
                "action": "deliver",
                "reason": None,
                "lane": "laptop.docs/rel-1.4.0",
                "after": [],
                "tags": ["review"],
                "message": {
                    "source": "messages/review.org",
                    "digest": "sha256:" + "0" * 64,
                    "bytes": 196,
                    "conversation": "rel-1.4.0",
                    "type": "request",
                    "sequence": 1,
                },
                "destination": {
                    "address": "laptop.docs",
                    "host": "laptop.tailnet.ts.net",
                    "port": None,
                    "user": None,
                    "inbox": "~/projects/docs/inbox/from-agents",
                    "transport": "sftp",
                    "host_key": None,
                },
                "files": [f"{NAME}.asc", NAME],
                "sign": {"key": KEY},
                "retry": {"retries": 3, "backoff": [5, 30, 120], "timeout": 30},
            }
        ],
        "digest": None,
    }


def test_an_unsigned_delivery_has_no_sign():
    (delivery,) = fields(a_plan(sign=None))["deliveries"]  # type: ignore[misc]

    assert delivery["sign"] is None


def test_a_plan_that_expires_says_when():
    assert fields(a_plan(expires=CLOCK))["expires"] == "2026-11-23T01:31:33Z"


def test_the_name_of_a_delivery_is_that_of_its_message():
    assert a_delivery(Sign(key=KEY)).name == NAME


def test_the_digest_is_over_the_rest_in_compact_form():
    body = fields(a_plan())
    stated = body.pop("digest")

    compact = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    assert stated == f"sha256:{hashlib.sha256(compact).hexdigest()}"


def test_the_canonical_form_is_compact_sorted_utf_8_with_a_final_newline():
    content = canonical(a_plan())

    body = json.loads(content)
    assert content == json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
    assert "Rélease".encode() in content


def test_a_plan_names_no_file_of_the_planners_home():
    assert b"/home/me" not in canonical(a_plan())


# The verb


@pytest.fixture
def manifest(home: Home, gnupg: Key, message: Callable[..., Path]) -> Path:
    """A manifest that is signed, with a destination here and one that nobody answers for."""
    home.peers('[peers.forge]\nhost = "192.0.2.1"\n')
    message("hello.org", conversation_id="rel-1.4.0")
    path = Path("release.yaml")
    path.write_text(MANIFEST.replace("KEY", gnupg.fingerprint), encoding="utf-8")
    return path


def test_plan_shows_what_would_be_sent_where_and_under_which_name(cas: Callable[..., Run], manifest: Path, gnupg: Key):
    run = cas("plan", manifest)

    assert run.code == 0
    assert "Rélease: 2 deliveries from builder, planned at" in run.out
    assert "hello@local.docs\n" in run.out
    assert "to         192.0.2.1:~/projects/site/inbox/from-agents (auto)" in run.out
    assert f"signed     by {gnupg.fingerprint}" in run.out


def test_plan_as_json_is_the_canonical_plan(cas: Callable[..., Run], manifest: Path):
    run = cas("plan", manifest, "--output", "json")

    body = json.loads(run.out)
    assert run.out == json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
    assert body["format"] == "cas.plan/1"
    assert [one["path"] for one in body["inputs"]] == ["hello.org", "release.yaml"]
    assert [one["digest"] for one in body["inputs"]] == [_digest("hello.org"), _digest("release.yaml")]
    assert [one["bytes"] for one in body["inputs"]] == [_size("hello.org"), _size("release.yaml")]


def test_plan_as_json_holds_no_text_of_the_message_and_no_home(cas: Callable[..., Run], home: Home, manifest: Path):
    run = cas("plan", manifest.resolve(), "--output", "json")

    assert "* Hello" not in run.out
    assert str(home.path) not in run.out


def test_the_clock_of_a_plan_is_now_and_it_expires_a_day_later(cas: Callable[..., Run], manifest: Path):
    before = datetime.now(UTC).replace(microsecond=0)
    body = json.loads(cas("plan", manifest, "--output", "json").out)

    clock, expires = (datetime.fromisoformat(body[key]) for key in ("clock", "expires"))
    assert before <= clock <= datetime.now(UTC)
    assert (expires - clock).total_seconds() == 24 * 3600


def test_the_same_inputs_give_the_same_plan_under_any_locale_zone_seed_folder_and_user(
    home: Home, manifest: Path, tmp_path: Path
):
    copied = tmp_path / "copied"
    shutil.copytree(home.projects / "builder", copied / "projects" / "builder")
    one = _planned(home.path, home.projects / "builder", LC_ALL="C", TZ="Asia/Kolkata", PYTHONHASHSEED="1", USER="a")
    two = _planned(
        copied, copied / "projects" / "builder", LC_ALL="C.UTF-8", TZ="UTC", PYTHONHASHSEED="2", USER="b",
        CAS_CONFIG_DIR=str(home.config),
    )  # fmt: skip

    assert _timeless(one) == _timeless(two)


def _planned(home: Path, folder: Path, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "cas", "plan", "release.yaml", "--output", "json"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(home), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    ).stdout


def _timeless(plan: str) -> str:
    """The clock is now, so all that stems from it is taken out; the digest is over that too."""
    return re.sub(
        r"\d{8}T\d{6}Z|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ|\"digest\":\"sha256:[0-9a-f]{64}\",\"expires\"", "", plan
    )


def test_plan_opens_no_file_for_writing_and_connects_to_nothing(home: Home, manifest: Path, tmp_path: Path):
    """With a full fingerprint gpg is not even started."""
    calls = _traced(tmp_path, "plan", str(manifest))

    # libc asks a cache of user names, by a path, whether it is there.
    assert [call for call in calls if re.search(r"\b(connect|sendto|bind)\(", call) and "/nscd/" not in call] == []
    assert [call for call in calls if re.search(r"O_WRONLY|O_RDWR|O_CREAT", call) and "/dev/null" not in call] == []
    assert [call for call in calls if re.search(r"\b(mkdir|rename|link|unlink|symlink)\w*\(", call)] == []
    assert [call for call in calls if re.search(r"execve\(.*gpg", call)] == []


def test_plan_leaves_the_home_as_it_was(cas: Callable[..., Run], home: Home, manifest: Path):
    before = _tree(home.path)

    cas("plan", manifest)
    cas("plan", manifest, "--output", "json")

    assert _tree(home.path) == before


def test_plan_works_under_halt_and_says_that_it_is_set(cas: Callable[..., Run], home: Home, manifest: Path):
    home.halt("maintenance")

    run = cas("plan", manifest)

    assert run.code == 0
    assert "hello@local.docs" in run.out
    assert "note: HALT is set, so that nothing can be sent now: maintenance" in run.err


def test_plan_of_the_default_key_names_its_full_fingerprint(cas: Callable[..., Run], manifest: Path, gnupg: Key):
    manifest.write_text(MANIFEST.replace("{key: KEY}", "true"), encoding="utf-8")

    body = json.loads(cas("plan", manifest, "--output", "json").out)

    assert {one["sign"]["key"] for one in body["deliveries"]} == {gnupg.fingerprint}


def test_plan_of_a_key_that_is_not_there_needs_none_when_it_is_a_full_fingerprint(
    cas: Callable[..., Run], manifest: Path
):
    manifest.write_text(MANIFEST.replace("KEY", KEY), encoding="utf-8")

    assert cas("plan", manifest).code == 0


def _traced(tmp_path: Path, *argv: str) -> list[str]:
    """The system calls of a run, and of all that it starts, that touch files and sockets."""
    log = tmp_path / "strace"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(
        ["strace", "-f", "-qq", "-o", log, "-e", "trace=%file,%network", sys.executable, "-m", "cas", *argv],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return log.read_text(encoding="utf-8", errors="replace").splitlines()


def _tree(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.lstat().st_mtime_ns) for path in folder.rglob("*") if ".gnupg" not in path.parts)


def _digest(path: str) -> str:
    return f"sha256:{hashlib.sha256(Path(path).read_bytes()).hexdigest()}"


def _size(path: str) -> int:
    return Path(path).stat().st_size

"""Plan files: written, shown and compared, reproducible byte for byte, and applied only if everything still holds."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support import ROOT, Forge, Home, Run, called, pairs
from test_playbooks import ALL, GROUPS, PLAYBOOKS

from cas import plan_file
from cas.loopback import Key, throwaway_key
from cas.names import identity
from cas.plan import canonical, digest_of

SCHEMA = json.loads((ROOT / "schemas" / "plan.schema.json").read_text(encoding="utf-8"))
AT = "2026-11-23T01:31:33Z"
MANIFEST = """\
cas: 1
name: Release
defaults: {sign: KEY}
sends:
  - {id: hello, destination: local.docs, message: hello.org}
  - id: told
    destination: local.site
    tags: [late]
    message: {conversation: told, type: progress, sequence: 1, body: "* A word that is planted\\n"}
"""
NEVER_EXPIRES = ("--ttl", "0")


@pytest.fixture
def manifest(home: Home, gnupg: Key, message: Callable[..., Path]) -> Path:
    message("hello.org", body="* Hello, planted\n")
    path = Path("release.yaml")
    path.write_text(MANIFEST.replace("KEY", f"{{key: {gnupg.fingerprint}}}"), encoding="utf-8")
    return path


@pytest.fixture
def planned(cas: Callable[..., Run], manifest: Path) -> Path:
    path = Path("release.plan")
    assert cas("plan", manifest, "-o", path).code == 0
    return path


def codes(run: Run) -> list[str]:
    return re.findall(r"error\[([\w-]+)\]", run.err)


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a plan as somebody would who knows how its digest is made."""
    body = json.loads(path.read_bytes())
    change(body)
    body["digest"] = digest_of(body)
    path.write_text(json.dumps(body), encoding="utf-8")


def refused(run: Run, *wanted: str) -> None:
    assert (run.code, sorted(set(codes(run)))) == (6, sorted(wanted)), run.err
    assert "nothing was sent" in run.err


def outcomes(run: Run) -> dict[str, int]:
    return {name: count for name, count in json.loads(run.out)["counts"].items() if count}


# Writing


def test_the_file_is_what_json_output_shows_and_fits_the_schema(cas: Callable[..., Run], manifest: Path):
    written = cas("plan", manifest, "--at", AT, "-o", "release.plan")

    content = Path("release.plan").read_text(encoding="utf-8")
    assert (written.code, written.out.startswith("planned: release.plan, 2 deliveries, good until ")) == (0, True)
    assert cas("plan", manifest, "--at", AT, "--output", "json").out == content
    assert cas("plan", manifest, "--at", AT, "-o", "-").out == content
    jsonschema.Draft7Validator(SCHEMA).validate(json.loads(content))


def test_what_stands_there_is_never_replaced(cas: Callable[..., Run], manifest: Path, planned: Path):
    before = planned.read_bytes()
    os.mkfifo("pipe")

    runs = [cas("plan", manifest, "-o", target) for target in (planned, ".", "pipe", "/dev/null")]

    assert [(run.code, codes(run)) for run in runs] == [(1, ["exists"])] * 4
    assert planned.read_bytes() == before


def test_the_clock_is_at_then_source_date_epoch(
    cas: Callable[..., Run], manifest: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1763861493")

    bodies = [json.loads(cas("plan", manifest, *at, "-o", "-").out) for at in ((), ("--at", AT))]

    assert [body["clock"] for body in bodies] == ["2025-11-23T01:31:33Z", AT]
    assert [body["expires"] for body in bodies] == ["2025-11-24T01:31:33Z", "2026-11-24T01:31:33Z"]


@pytest.mark.parametrize(("ttl", "expires"), [("30m", "2026-11-23T02:01:33Z"), ("0", None)])
def test_a_plan_expires_when_it_is_told_to(cas: Callable[..., Run], manifest: Path, ttl: str, expires: str | None):
    body = json.loads(cas("plan", manifest, "--at", AT, "--ttl", ttl, "-o", "-").out)

    assert body["expires"] == expires


@pytest.mark.parametrize("epoch", ["tomorrow", "-1", "999999999999", "1.5", "\u0663"])
def test_an_epoch_that_is_none_is_wrong_usage(
    cas: Callable[..., Run], manifest: Path, monkeypatch: pytest.MonkeyPatch, epoch: str
):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)

    run = cas("plan", manifest)

    assert (run.code, codes(run)) == (64, ["malformed-time"])


def test_no_text_no_environment_and_no_home_stands_in_a_plan(
    cas: Callable[..., Run], home: Home, manifest: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CANARY", "sings-in-the-environment")
    home.peers(f'[peers.forge]\nidentity_file = "{home.path}/who-logs-in"\n')
    manifest.write_text(manifest.read_text(encoding="utf-8").replace("local.site", "forge.site"), encoding="utf-8")

    cas("plan", manifest.resolve(), "-o", "release.plan")

    content = Path("release.plan").read_text(encoding="utf-8")
    assert [canary for canary in ("planted", "sings", str(home.path), "who-logs-in") if canary in content] == []


# The same bytes


ENVIRONMENTS = [
    {
        "PYTHONHASHSEED": str(number * 7 + 1),
        "TZ": ("UTC", "Asia/Kolkata", "America/St_Johns", "Pacific/Kiritimati")[number % 4],
        "LC_ALL": ("C", "C.UTF-8", "POSIX", "de_DE.UTF-8", "tr_TR.UTF-8")[number % 5],
        "USER": f"user{number}",
        "UMASK": ("022", "077", "002", "000")[number % 4],
        "CWD": ("root", "playbooks", "elsewhere")[number % 3],
    }
    for number in range(20)
]


def test_all_playbooks_plan_to_the_same_bytes_in_twenty_environments(home: Home, gnupg: Key, tmp_path: Path):
    home.peers(GROUPS + '[peers.forge]\nhost = "192.0.2.1"\n')
    planned = set()
    for number, given in enumerate(ENVIRONMENTS):
        root = tmp_path / f"home-{number}" / "deep" / "projects" / "builder"
        files = sorted((path for path in PLAYBOOKS.rglob("*") if path.is_file()), reverse=number % 2 == 1)
        for path in files:  # in another order of creation
            copy = root / "playbooks" / path.relative_to(PLAYBOOKS)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
        (tmp_path / f"home-{number}" / "elsewhere").mkdir()
        folder = {"root": root, "playbooks": root / "playbooks", "elsewhere": tmp_path / f"home-{number}/elsewhere"}
        names = {name: given[name] for name in ("PYTHONHASHSEED", "TZ", "LC_ALL", "USER")}
        run = subprocess.run(
            ["sh", "-c", 'umask "$0"; exec "$@"', given["UMASK"], sys.executable, "-m", "cas", "plan",
             os.path.relpath(root / "playbooks", folder[given["CWD"]]), "--at", AT, "-o", "-"],
            env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path / f"home-{number}" / "deep"),
                 "CAS_CONFIG_DIR": str(home.config), **names},
            cwd=folder[given["CWD"]], capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        planned.add(run.stdout)

    assert len(planned) == 1
    assert len(json.loads(planned.pop())["deliveries"]) > len(ALL)


def test_writing_a_plan_connects_to_nothing_and_writes_nothing_else(home: Home, manifest: Path, tmp_path: Path):
    log = tmp_path / "strace"
    command = ("strace", "-f", "-qq", "-o", log, "-e", "trace=%file,%network")
    run = subprocess.run(
        [*command, sys.executable, "-m", "cas", "plan", manifest, "-o", "release.plan"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip

    assert run.returncode == 0, run.stderr
    calls = log.read_text(encoding="utf-8", errors="replace").splitlines()
    assert [one for one in calls if re.search(r"\b(connect|sendto|bind)\(", one) and "/nscd/" not in one] == []
    changing = [
        one
        for one in calls
        if re.search(r"O_WRONLY|O_RDWR|O_CREAT|\b(mkdir|rename|link|unlink|symlink|chmod|truncate)\w*\(", one)
        and "readlink" not in one
        and "/dev/null" not in one
    ]
    assert changing
    assert [one for one in changing if "release.plan" not in one and '".tmp.' not in one] == []


# What is new, and what has changed


def test_diff_shows_the_text_of_what_is_new_and_nothing_once_it_is_delivered(cas: Callable[..., Run], manifest: Path):
    before = cas("plan", manifest, "--diff", "--detailed-exitcode")
    assert cas("apply", manifest, "--only", "hello").code == 0
    between = cas("plan", manifest, "--diff", "--detailed-exitcode")
    assert cas("apply", manifest).code == 0
    after = cas("plan", manifest, "--diff", "--detailed-exitcode")

    assert (before.code, "  | * Hello, planted\n" in before.out, "that is planted" in before.out) == (10, True, True)
    assert (between.code, "  | * Hello" in between.out, "that is planted" in between.out) == (10, False, True)
    assert (after.code, after.out) == (0, "nothing is new\n")


def test_diff_against_an_older_plan_names_what_is_new_gone_and_other(
    cas: Callable[..., Run], manifest: Path, planned: Path
):
    text = manifest.read_text(encoding="utf-8").replace("local.site", "local.late").replace(
        "message: hello.org}", "message: hello.org, retry: {retries: 9}}"
    )  # fmt: skip
    manifest.write_text(text, encoding="utf-8")

    run = cas("plan", manifest, "--diff", planned, "--at", AT, "--output", "json")

    assert json.loads(run.out) == {
        "format": "cas.diff/1",
        "new": [],
        "added": ["told@local.late"],
        "removed": ["told@local.site"],
        "changed": [{"id": "hello@local.docs", "fields": [{"field": "retry.retries", "before": 3, "after": 9}]}],
    }


def test_an_older_plan_that_was_edited_is_compared_with_a_warning(
    cas: Callable[..., Run], manifest: Path, planned: Path
):
    planned.write_text(planned.read_text(encoding="utf-8").replace('"retries":3', '"retries":4', 1), encoding="utf-8")

    run = cas("plan", manifest, "--diff", planned, "--at", AT)

    assert (run.code, "warning[plan-edited]" in run.err) == (0, True)
    assert "  retry.retries: 4 → 3" in run.out


def test_another_clock_alone_changes_nothing(cas: Callable[..., Run], manifest: Path, planned: Path):
    run = cas("plan", planned, "--diff", manifest, "--at", AT)

    assert (run.code, run.out) == (0, "nothing has changed\n")


# Showing


def test_show_shows_an_expired_plan_with_a_warning(cas: Callable[..., Run], manifest: Path):
    cas("plan", manifest, "--at", "2020-01-01T00:00:00Z", "-o", "old.plan")

    run = cas("show", "old.plan")

    assert run.code == 0
    assert "warning[plan-expired]: the plan expired at 2020-01-02T00:00:00Z" in run.err
    assert "from release.yaml: " in run.out
    assert "\nhello@local.docs\n" in run.out


@pytest.mark.parametrize("known", [True, False])
def test_show_shows_what_it_can_of_a_later_format(cas: Callable[..., Run], planned: Path, known: bool):
    def later(body: dict[str, Any]) -> None:
        body["format"] = "cas.plan/2"
        if not known:
            body["deliveries"] = {"hello": "otherwise"}

    edited(planned, later)

    run = cas("show", planned)

    assert (run.code, "warning[plan-format]" in run.err) == (0, True)
    assert ("hello@local.docs\n" if known else '"otherwise"') in run.out


def test_show_of_what_is_no_plan_is_refused(cas: Callable[..., Run], manifest: Path):
    run = cas("show", manifest)

    assert (run.code, codes(run)) == (6, ["plan-malformed"])


# What is refused


def test_a_plan_that_was_cut_off_anywhere_is_refused(cas: Callable[..., Run], planned: Path):
    whole = planned.read_bytes()
    for length in (12, 100, len(whole) // 2, len(whole) - 2):
        planned.write_bytes(whole[:length])

        refused(cas("apply", planned), "plan-malformed")


def test_an_edited_plan_is_refused(cas: Callable[..., Run], planned: Path):
    planned.write_text(planned.read_text(encoding="utf-8").replace('"retries":3', '"retries":4'), encoding="utf-8")

    refused(cas("apply", planned), "plan-changed", "plan-edited")


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body["deliveries"][0]["destination"].update(inbox="~/elsewhere"),
        lambda body: body["deliveries"][0]["destination"].update(host="evil.example", port=22),
        lambda body: body["deliveries"][0].update(files=["20261123T013133Z-from-builder-other.org"]),
        lambda body: body["deliveries"][0]["message"].update(digest="sha256:" + "0" * 64),
        lambda body: body["deliveries"][0].update(identity="0" * 32),
        lambda body: body["deliveries"][0].update(sign=None),
        lambda body: body["deliveries"].pop(),
        lambda body: body["deliveries"].reverse(),
        lambda body: body["deliveries"].append(body["deliveries"][0]),
        lambda body: body["inputs"].pop(),
        lambda body: body.update(name="Another", sender="somebody"),
        lambda body: body["manifests"][0].update(sender="somebody"),
        lambda body: body["variables"].update(unknown="x"),
    ],
)  # fmt: skip
def test_a_plan_edited_with_its_digest_made_anew_is_refused_all_the_same(
    cas: Callable[..., Run], home: Home, planned: Path, change: Callable[[dict[str, Any]], object]
):
    edited(planned, change)

    run = cas("apply", planned)

    assert run.code == 6, run.err
    assert codes(run)
    assert [path for path in home.path.rglob("*.org") if "from-agents" in path.parts] == []


@pytest.mark.threat("bundle holder", "have files read outside the root by a plan")
@pytest.mark.parametrize("path", ["../release.yaml", "/etc/passwd", "a/../../b", ".."])
def test_a_plan_names_nothing_outside_of_its_root(cas: Callable[..., Run], planned: Path, path: str):
    edited(planned, lambda body: body["manifests"][0].update(path=path))

    refused(cas("apply", planned), "plan-malformed")


@pytest.mark.parametrize("sender", ["..", "a..b", "a\n", "a/b"])
def test_a_plan_with_a_sender_that_none_may_be_is_refused(cas: Callable[..., Run], planned: Path, sender: str):
    edited(planned, lambda body: body["manifests"][0].update(sender=sender))

    refused(cas("apply", planned), "plan-malformed")


@pytest.mark.parametrize("time", ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "2026-13-01T00:00:00Z"])
def test_a_plan_with_a_time_that_no_plan_has_is_refused(cas: Callable[..., Run], planned: Path, time: str):
    edited(planned, lambda body: body.update(clock=time))

    refused(cas("apply", planned), "plan-malformed")


def test_a_file_that_came_to_a_loop_over_files_is_refused(
    cas: Callable[..., Run], home: Home, gnupg: Key, message: Callable[..., Path]
):
    message("outbox/local.docs/one.org")
    Path("release.yaml").write_text(
        'cas: 1\nsends:\n  - id: each\n    for_each: {files: "outbox/*/*.org"}\n'
        '    destination: "{{ item.folder }}"\n    message: "{{ item.path }}"\n',
        encoding="utf-8",
    )
    assert cas("plan", "release.yaml", "-o", "release.plan").code == 0
    message("outbox/local.docs/two.org", conversation_id="another")

    run = cas("apply", "release.plan")

    refused(run, "plan-changed")
    assert "`each[outbox/local.docs/two.org]@local.docs` would be sent too, and is not in the plan" in run.err
    assert pairs(home.inbox("docs")) == ()


@pytest.fixture
def second_key(gnupg: Key, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The keyring holds another key as well, which is not the default one."""
    folder = Path(tempfile.mkdtemp(prefix="cas-"))
    try:
        with throwaway_key(folder) as own:
            monkeypatch.setenv("GNUPGHOME", str(folder))
            command = ["gpg", "--batch", "--quiet", "--passphrase", "", "--status-fd", "1", "--quick-gen-key"]
            made = subprocess.run([*command, "other", "ed25519", "sign"], check=True, capture_output=True, text=True)
            (folder / "gpg.conf").write_text(f"default-key {own.fingerprint}\n", encoding="utf-8")
            yield next(line.split()[3] for line in made.stdout.splitlines() if "KEY_CREATED" in line)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_plan_chooses_no_other_key_than_the_default_one_that_its_manifest_means(
    cas: Callable[..., Run], home: Home, manifest: Path, second_key: str
):
    manifest.write_text(MANIFEST.replace("KEY", "true"), encoding="utf-8")
    assert cas("plan", manifest, "-o", "release.plan").code == 0

    def signed_by_another(body: dict[str, Any]) -> None:
        for one in body["deliveries"]:
            one["sign"]["key"] = second_key

    edited(Path("release.plan"), signed_by_another)

    run = cas("apply", "release.plan")

    refused(run, "plan-changed")
    assert "hint: name the key in the manifest" in run.err
    assert pairs(home.inbox("docs")) == ()


def sends_as_another(body: dict[str, Any]) -> None:
    """All that follows from another sender, too."""
    text = json.dumps(body).replace("from-builder-", "from-another-").replace('"builder"', '"another"')
    body.update(json.loads(text))
    for one in body["deliveries"]:
        message, to = one["message"], one["destination"]["address"]
        place = ("another", to, message["conversation"], message["sequence"])
        one["identity"] = identity(*place, message["digest"])


def test_a_plan_chooses_no_other_sender_for_what_lies_in_a_projects_folder(
    cas: Callable[..., Run], home: Home, manifest: Path, planned: Path, tmp_path: Path
):
    assert cas("plan", manifest, "--only", "hello", "-o", "hello.plan").code == 0
    edited(Path("hello.plan"), sends_as_another)

    refused(run := cas("apply", "hello.plan"), "plan-changed")

    assert "the plan sends as `another`" in run.err
    assert "sender: another" in run.err


def test_a_checkout_outside_of_the_projects_has_any_name(
    cas: Callable[..., Run], home: Home, manifest: Path, planned: Path, tmp_path: Path
):
    checkout = tmp_path / "builds" / "1"
    shutil.copytree(".", checkout)

    assert cas("apply", planned, "--root", checkout).code == 0
    assert "-from-builder-" in pairs(home.inbox("docs"))[0]


def test_a_plan_of_another_format_is_refused(cas: Callable[..., Run], planned: Path):
    edited(planned, lambda body: body.update(format="cas.plan/2"))

    refused(cas("apply", planned), "plan-format")


def test_a_plan_that_has_expired_is_refused(cas: Callable[..., Run], manifest: Path):
    before = (datetime.now(UTC) - timedelta(hours=25)).strftime("%Y-%m-%dT%H:%M:%SZ")
    cas("plan", manifest, "--at", before, "-o", "old.plan")

    refused(cas("apply", "old.plan"), "plan-expired")


@pytest.mark.parametrize(("minutes", "code"), [(4, 0), (6, 6)])
def test_a_plan_may_be_five_minutes_ahead(cas: Callable[..., Run], manifest: Path, minutes: int, code: int):
    ahead = (datetime.now(UTC) + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
    cas("plan", manifest, "--at", ahead, "-o", "ahead.plan")

    run = cas("apply", "ahead.plan")

    assert (run.code, codes(run)) == (code, ["plan-from-future"] if code else [])


def test_all_reasons_are_told_at_once_and_nothing_is_sent(
    cas: Callable[..., Run], home: Home, manifest: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    cas("plan", manifest, "--at", "2020-01-01T00:00:00Z", "-o", "old.plan")
    Path("hello.org").write_text("other", encoding="utf-8")
    Path("old.plan").write_text(Path("old.plan").read_text().replace('"name":"cas"', '"name":"sac"'), encoding="utf-8")
    empty = tmp_path / "k"
    empty.mkdir(mode=0o700)
    monkeypatch.setenv("GNUPGHOME", str(empty))

    run = cas("apply", "old.plan", "--output", "json")

    body = json.loads(run.out)
    assert {one["code"] for one in body["diagnostics"]} == {"plan-edited", "plan-expired", "plan-changed", "plan-key"}
    assert (run.code, body["exit_code"], sum(body["counts"].values())) == (6, 6, 0)
    assert (pairs(home.inbox("docs")), pairs(home.inbox("site"))) == ((), ())


def test_a_destination_that_is_elsewhere_now_is_refused_and_unrelated_edits_are_not(
    cas: Callable[..., Run], home: Home, planned: Path
):
    home.peers('[projects.unrelated]\ninbox_path = "~/u"\n')
    assert cas("apply", planned, "--only", "hello").code == 0
    home.peers('[projects.site]\ninbox_path = "~/other"\n')

    run = cas("apply", planned)

    refused(run, "plan-changed")
    assert "`told@local.site`: `destination.inbox` is `~/other` here, in the plan `~/projects/site/inbox/f" in run.err


@pytest.mark.parametrize("state", ["expired", "revoked"])
def test_a_key_that_can_sign_no_more_is_refused(
    cas: Callable[..., Run], manifest: Path, gnupg: Key, monkeypatch: pytest.MonkeyPatch, state: str
):
    folder = Path(tempfile.mkdtemp(prefix="cas-"))
    try:
        with throwaway_key(folder) as key:
            monkeypatch.setenv("GNUPGHOME", str(key.gnupghome))
            manifest.write_text(MANIFEST.replace("KEY", f"{{key: {key.fingerprint}}}"), encoding="utf-8")
            assert cas("plan", manifest, "-o", "release.plan").code == 0
            gpg = ["gpg", "--batch", "--pinentry-mode", "loopback", "--passphrase", ""]
            if state == "expired":
                subprocess.run([*gpg, "--quick-set-expire", key.fingerprint, "seconds=1"], check=True)
                time.sleep(2)
            else:
                made = key.gnupghome / "openpgp-revocs.d" / f"{key.fingerprint}.rev"
                text = made.read_text(encoding="utf-8").replace(":-----BEGIN", "-----BEGIN")
                subprocess.run([*gpg, "--import"], input=text.encode(), check=True)

            run = cas("apply", "release.plan")

            refused(run, "plan-key")
            assert ("has expired" if state == "expired" else "is revoked") in run.err
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_plan_takes_no_company_no_selection_and_no_variables(cas: Callable[..., Run], manifest: Path, planned: Path):
    lines = (
        ("plan-alone", manifest),
        ("plan-fixed", "--tags", "late"),
        ("plan-fixed", "--skip-tags", "late"),
        ("plan-fixed", "--limit", "local.*"),
        ("plan-fixed", "--var", "x=1"),
        ("plan-fixed", "--vars-file", manifest),
        ("unknown-selection", "--only", "nobody"),
    )

    runs = [(code, cas("apply", planned, *rest)) for code, *rest in lines]

    assert [(run.code, codes(run)) for _, run in runs] == [(64, [code]) for code, _ in runs]


def test_halt_comes_before_a_plan_is_looked_at(cas: Callable[..., Run], home: Home, planned: Path):
    home.halt("not now")
    Path("hello.org").unlink()

    run = cas("apply", planned, "--output", "json")

    assert (run.code, json.loads(run.out)["halted"]) == (5, "HALT is set: not now")
    assert not home.inbox("docs").exists()


def test_a_plan_among_manifests_is_told_from_them_and_can_be_applied(cas: Callable[..., Run], manifest: Path):
    assert cas("plan", manifest, "-o", "plan.yaml").code == 0

    runs = [cas(verb, ".") for verb in ("validate", "plan", "apply")]

    assert [(run.code, codes(run) or codes(Run(code=0, out="", err=run.out))) for run in runs] == [
        (1, ["not-a-manifest"])
    ] * 3
    assert outcomes(cas("apply", "plan.yaml", "--output", "json")) == {"delivered": 2}


# What is sent


def test_a_part_of_a_plan_can_be_applied_and_the_rest_later(cas: Callable[..., Run], planned: Path):
    assert outcomes(cas("apply", planned, "--only", "told", "--output", "json")) == {"delivered": 1, "skipped": 1}
    assert outcomes(cas("apply", planned, "--output", "json")) == {"delivered": 1, "unchanged": 1}


def test_variables_selection_and_the_order_of_maps_come_with_the_plan(cas: Callable[..., Run], manifest: Path):
    manifest.write_text(
        "cas: 1\ndefaults: {sign: false}\nvars: {stages: {x: 1}, word: a}\nsends:\n"
        "  - id: stage\n    for_each: '{{ stages }}'\n    tags: [t]\n    destination: local.docs\n"
        "    message: {conversation: c, type: progress, sequence: '{{ loop.index }}', "
        "body: '{{ item.key }} {{ word }}'}\n"
        "  - {id: other, destination: local.docs, message: hello.org}\n",
        encoding="utf-8",
    )
    Path("values.yaml").write_text("stages: {zebra: 1, ant: 2}\n", encoding="utf-8")
    options = ("--vars-file", "values.yaml", "--var", "word=1.10", "--tags", "t")
    planned = cas("plan", manifest, *options, "-o", "release.plan")
    assert planned.code == 0, planned.err

    run = cas("apply", "release.plan", "--output", "json")

    assert outcomes(run) == {"delivered": 2, "skipped": 1}


def test_names_digests_order_and_destinations_of_a_real_run_are_those_of_the_dry_run(
    cas: Callable[..., Run], home: Home, peer: Forge, gnupg: Key
):
    home.peers(GROUPS + peer.toml())
    folder = home.projects / "builder" / "playbooks"
    shutil.copytree(PLAYBOOKS, folder)
    for playbook in sorted(folder.glob("*.yaml")):
        planned = json.loads(cas("plan", playbook, "--output", "json", "-o", f"{playbook.stem}.plan").out)

        run = cas("apply", f"{playbook.stem}.plan", "--root", folder, "--output", "jsonl")

        assert run.code == 0, run.err
        result = json.loads(run.out.splitlines()[-1])
        told = {one["id"]: one for one in result["deliveries"]}
        assert result["plan"] == planned["digest"]
        assert set(told) == {one["id"] for one in planned["deliveries"]}
        for one in planned["deliveries"]:
            machine, _, project = one["destination"]["address"].partition(".")
            inbox = (home if machine == "local" else peer).inbox(project)
            content = (inbox / one["files"][-1]).read_bytes()
            assert told[one["id"]]["files"] == one["files"]
            assert told[one["id"]]["destination"] == one["destination"]["address"]
            assert one["message"]["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_planned_here_applied_there_again_and_in_a_third_place_delivers_once(
    cas: Callable[..., Run], home: Home, peer: Forge, gnupg: Key, message: Callable[..., Path], tmp_path: Path
):
    message("hello.org")
    text = MANIFEST.replace("KEY", "true").replace("local.", "forge.")
    Path("release.yaml").write_text(text, encoding="utf-8")
    assert cas("plan", "release.yaml", "-o", "release.plan").code == 0
    checkout = tmp_path / "another" / "checkout"
    checkout.mkdir(parents=True)
    for name in ("release.yaml", "hello.org"):
        shutil.copy(name, checkout / name)

    def applied(state: str) -> dict[str, int]:
        run = cas(
            "apply", "release.plan", "--root", checkout, "--state-dir", tmp_path / state, "--output", "json"
        )  # fmt: skip
        assert run.code == 0, run.err
        return outcomes(run)

    assert applied("second") == {"delivered": 2}
    assert applied("second") == {"unchanged": 2}
    assert applied("third") == {"unchanged": 2}
    for project in ("docs", "site"):  # whoever receives them takes them away
        for name in pairs(peer.inbox(project)):
            (peer.inbox(project) / name).unlink()
    assert applied("second") == applied("third") == applied("fourth") == {"unchanged": 2}
    assert (pairs(peer.inbox("docs")), pairs(peer.inbox("site"))) == ((), ())


def test_two_homes_and_a_third_deliver_once_whoever_takes_the_messages_away(
    home: Home, peer: Forge, gnupg: Key, message: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Other homes, users' folders, configurations and working folders; the peer alone is the same."""
    message("hello.org")
    Path("release.yaml").write_text(MANIFEST.replace("KEY", "true").replace("local.", "forge."), encoding="utf-8")
    assert called("plan", "release.yaml", "-o", tmp_path / "release.plan").code == 0

    def applied_in(name: str) -> dict[str, int]:
        other = Home(path=tmp_path / name)
        other.peers(peer.toml())
        shutil.copytree(home.known_hosts.parent, other.known_hosts.parent, dirs_exist_ok=True)
        checkout = other.path / "checkout"
        for file in ("release.yaml", "hello.org"):
            checkout.mkdir(exist_ok=True)
            shutil.copy(home.projects / "builder" / file, checkout / file)
        monkeypatch.setenv("HOME", str(other.path))
        monkeypatch.chdir(other.path)
        run = called("apply", tmp_path / "release.plan", "--root", "checkout", "--output", "json")
        assert run.code == 0, run.err
        return outcomes(run)

    assert applied_in("second") == {"delivered": 2}
    assert applied_in("second") == {"unchanged": 2}
    for project in ("docs", "site"):
        for name in pairs(peer.inbox(project)):
            (peer.inbox(project) / name).unlink()
    assert applied_in("second") == applied_in("third") == {"unchanged": 2}
    assert (pairs(peer.inbox("docs")), pairs(peer.inbox("site"))) == ((), ())


def test_plans_of_two_days_have_the_same_identities_and_both_applied_send_once(
    cas: Callable[..., Run], home: Home, manifest: Path, tmp_path: Path
):
    days = [(datetime.now(UTC) - timedelta(days=ago)).strftime("%Y-%m-%dT%H:%M:%SZ") for ago in (1, 0)]
    for number, day in enumerate(days):
        assert cas("plan", manifest, "--at", day, *NEVER_EXPIRES, "-o", f"{number}.plan").code == 0
    bodies = [json.loads(Path(f"{number}.plan").read_bytes()) for number in range(2)]

    runs = [
        cas("apply", f"{number}.plan", "--state-dir", tmp_path / state, "--output", "json")
        for number, state in ((0, "a"), (1, "a"), (1, "b"))
    ]

    identities = [[one["identity"] for one in body["deliveries"]] for body in bodies]
    assert identities[0] == identities[1]
    assert bodies[0]["digest"] != bodies[1]["digest"]
    assert [outcomes(run) for run in runs] == [{"delivered": 2}, {"unchanged": 2}, {"unchanged": 2}]
    assert [len(pairs(home.inbox(project))) for project in ("docs", "site")] == [2, 2]


# The record


def test_a_plan_goes_into_its_file_and_comes_back(cas: Callable[..., Run], planned: Path):
    held, found = plan_file.parse(planned.read_bytes(), SCHEMA, file="release.plan")

    assert (found, canonical(held.plan)) == ((), planned.read_bytes())


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"clock":"2026', True),
        (b'{\n "format": "cas.plan/7"\n}', True),
        (b'{"format": "cas.result/1"}', False),
        (b"cas: 1\nsends: []\n", False),
        (b'{cas: 1, name: "cas.plan/1"}', False),
        (b"", False),
    ],
)
def test_a_plan_is_told_by_its_content(content: bytes, told: bool):
    assert plan_file.is_plan(content) is told


def test_every_property_of_the_schema_is_described():
    def described(node: Any) -> bool:
        if isinstance(node, dict):
            properties = node.get("properties", {})
            return all(map(described, node.values())) and all(about.get("description") for about in properties.values())
        return all(map(described, node)) if isinstance(node, list) else True

    assert described(SCHEMA)

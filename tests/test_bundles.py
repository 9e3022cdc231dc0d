"""Bundles: signed where the key is, applied where it is not; whatever was changed on the way is refused."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support import Forge, Home, Run, called, message, pairs, verify
from test_plan_files import MANIFEST, SCHEMA, codes, edited, outcomes, refused

from cas.bundle import seal_text
from cas.loopback import Key, end_agent, throwaway_key
from cas.names import digest, identity
from cas.plan import digest_of
from cas.signer import Signer

NAME = "20261123T013133Z-from-a-b.org"
Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def cas(home: Home, gnupg: Key) -> Callable[..., Run]:
    """`cas(*argv)`; where a bundle is applied, with a seal by the throw-away key, unless something else is said."""

    def run(*argv: str | Path) -> Run:
        files = [Path(word) for word in map(str, argv[1:]) if Path(word).is_file()]
        bundles = [file for file in files if b'"seals":' in file.read_bytes()]
        said = {"--sealed-by", "--unsealed", "--seal-with"} & set(map(str, argv))
        seal = ("--sealed-by", gnupg.fingerprint) if argv[0] in ("apply", "rehearse") and bundles and not said else ()
        return called(*argv, *seal)

    return run


@pytest.fixture
def manifest(home: Home, gnupg: Key, message: Callable[..., Path]) -> Path:
    message("hello.org", body="* Hello\n")
    path = Path("release.yaml")
    path.write_text(MANIFEST.replace("KEY", f"{{key: {gnupg.fingerprint}}}"), encoding="utf-8")
    return path


@contextmanager
def keyring(*keys: Key) -> Iterator[Path]:
    """A folder for GNUPGHOME that holds the public halves of these keys, and nothing else."""
    folder = Path(tempfile.mkdtemp(prefix="cas-"))
    try:
        for key in keys:
            export = ["gpg", "--homedir", str(key.gnupghome), "--armor", "--export", key.fingerprint]
            public = subprocess.run(export, check=True, capture_output=True).stdout
            command = ["gpg", "--homedir", str(folder), "--batch", "--quiet", "--import"]
            subprocess.run(command, check=True, input=public)
        yield folder
    finally:
        end_agent(folder)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def keyless(gnupg: Key, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Call it: from then on the environment has the public key alone."""
    with keyring(gnupg) as folder:
        yield lambda: monkeypatch.setenv("GNUPGHOME", str(folder))


@pytest.fixture
def bundle(manifest: Path, keyless: Callable[[], None]) -> Path:
    """A bundle in a place without manifest, messages or private key."""
    path = Path("release.bundle")
    assert called("plan", manifest, "--bundle", path).code == 0
    keyless()
    manifest.unlink()
    Path("hello.org").unlink()
    return path


def resealed(path: Path, gnupg: Key, change: Change) -> None:
    """Change a bundle as whoever holds its key could."""
    body = json.loads(path.read_bytes())
    change(body)
    signer = Signer(environment={**os.environ, "GNUPGHOME": str(gnupg.gnupghome)})
    body["seals"] = {gnupg.fingerprint: signer.sign(seal_text(body), gnupg.fingerprint).decode()}
    body["digest"] = digest_of(body)
    path.write_text(json.dumps(body), encoding="utf-8")


def nothing_arrived(home: Home) -> bool:
    return not [path for path in home.path.rglob("*.org*") if "from-agents" in path.parts]


# Making


def test_a_bundle_is_a_plan_with_messages_and_signatures_that_only_its_owner_reads(
    cas: Callable[..., Run], manifest: Path, gnupg: Key
):
    before = ("--at", "2026-11-23T01:31:33Z")
    run = cas("plan", manifest, *before, "--bundle", "release.bundle")
    plan = json.loads(cas("plan", manifest, *before, "-o", "-").out)

    body = json.loads(Path("release.bundle").read_bytes())
    assert (run.code, run.out.startswith("bundled: release.bundle, 2 deliveries, good until ")) == (0, True)
    assert body["digest"] in run.out
    assert "holds the text of its messages" in run.err
    assert stat.S_IMODE(os.stat("release.bundle").st_mode) == 0o600
    jsonschema.Draft7Validator(SCHEMA).validate(body)
    hello = body["deliveries"][0]["message"]
    assert base64.b64decode(hello.pop("content")) == Path("hello.org").read_bytes()
    assert hello.pop("signature").startswith("-----BEGIN PGP SIGNATURE-----\n")
    assert set(body.pop("seals")) == {gnupg.fingerprint}
    told = body["deliveries"][1]["message"]
    assert base64.b64decode(told.pop("content")).endswith(b"* A word that is planted\n")
    del told["signature"], body["digest"], plan["digest"]
    assert body == plan


def test_a_bundle_replaces_no_file_and_goes_nowhere_but_into_one(cas: Callable[..., Run], manifest: Path):
    Path("there").write_text("mine", encoding="utf-8")

    runs = [cas("plan", manifest, "--bundle", "there"), cas("plan", manifest, "--bundle", "-")]
    runs += [cas("plan", manifest, "--bundle", "new", "-o", "new.plan")]

    assert [run.code for run in runs] == [1, 64, 64]
    assert Path("there").read_text(encoding="utf-8") == "mine"
    assert not Path("new.plan").exists()


def test_without_the_key_there_is_no_bundle(cas: Callable[..., Run], manifest: Path, keyless: Callable[[], None]):
    keyless()

    run = cas("plan", manifest, "--bundle", "release.bundle")

    assert (run.code, set(codes(run))) == (1, {"signing-failed"})
    assert not Path("release.bundle").exists()


def test_halt_does_not_keep_from_signing_and_is_told(cas: Callable[..., Run], home: Home, manifest: Path):
    home.halt("not now")

    run = cas("plan", manifest, "--bundle", "release.bundle")

    assert (run.code, "HALT is set" in run.err) == (0, True)


# Applying


def test_a_bundle_is_delivered_without_manifest_messages_or_private_key(
    cas: Callable[..., Run], home: Home, gnupg: Key, bundle: Path
):
    body = json.loads(bundle.read_bytes())

    run = cas("apply", bundle, "--output", "json")

    assert (run.code, outcomes(run)) == (0, {"delivered": 2}), run.err
    assert json.loads(run.out)["plan"] == body["digest"]
    for one, project in zip(body["deliveries"], ("docs", "site"), strict=True):
        arrived = home.inbox(project) / one["files"][-1]
        assert pairs(home.inbox(project)) == tuple(sorted(one["files"]))
        assert arrived.read_bytes() == base64.b64decode(one["message"]["content"])
        assert Path(f"{arrived}.asc").read_text(encoding="utf-8") == one["message"]["signature"]
        assert verify(arrived) == gnupg.fingerprint
    again = cas("apply", bundle, "--output", "json")
    assert outcomes(again) == outcomes(cas("apply", bundle, "--state-dir", "t", "--output", "json")) == {"unchanged": 2}


def test_a_bundle_goes_to_another_machine(
    cas: Callable[..., Run], home: Home, peer: Forge, gnupg: Key, message: Callable[..., Path],
    keyless: Callable[[], None],
):  # fmt: skip
    message("hello.org")
    text = MANIFEST.replace("KEY", "true").replace("local.", "forge.")
    Path("release.yaml").write_text(text, encoding="utf-8")
    assert cas("plan", "release.yaml", "--bundle", "release.bundle").code == 0
    keyless()
    shutil.move("release.bundle", home.path / "b")
    os.chdir(home.path)

    run = cas("apply", "b", "--output", "json")

    assert outcomes(run) == {"delivered": 2}, run.err
    (name,) = (name for name in pairs(peer.inbox("docs")) if name.endswith(".org"))
    assert verify(peer.inbox("docs") / name) == gnupg.fingerprint


def test_a_part_of_a_bundle_and_the_rest_later(cas: Callable[..., Run], bundle: Path):
    first = cas("apply", bundle, "--only", "told", "--output", "json")
    assert outcomes(first) == {"delivered": 1, "skipped": 1}
    assert outcomes(cas("apply", bundle, "--output", "json")) == {"delivered": 1, "unchanged": 1}


def test_what_was_not_selected_or_left_out_is_not_in_a_bundle(
    cas: Callable[..., Run], manifest: Path, keyless: Callable[[], None]
):
    text = manifest.read_text(encoding="utf-8") + (
        "  - {id: never, destination: local.docs, message: hello.org, when: false}\n"
        "  - id: stage\n    for_each: [a, b]\n    destination: local.late\n    after: [told]\n"
        "    message: {conversation: s, type: progress, sequence: '{{ loop.index }}', body: '{{ item }} {{ now }}'}\n"
    )
    manifest.write_text(text, encoding="utf-8")
    assert cas("plan", manifest, "--only", "stage", "--only", "hello", "--bundle", "b").code == 0
    assert cas("apply", manifest, "--only", "told").code == 0
    keyless()
    manifest.unlink()

    run = cas("apply", "b", "--output", "json")

    held = {one["id"]: one["message"] for one in json.loads(Path("b").read_bytes())["deliveries"]}
    assert [name for name, message in held.items() if message and "content" in message] == [
        "hello@local.docs", "stage[a]@local.late", "stage[b]@local.late",
    ]  # fmt: skip
    assert outcomes(run) == {"delivered": 3, "skipped": 2}, run.err


def test_an_unsigned_bundle_needs_no_key_at_all_and_policy_can_refuse_it(
    cas: Callable[..., Run], home: Home, manifest: Path
):
    manifest.write_text(MANIFEST.replace("KEY", "false"), encoding="utf-8")
    assert cas("plan", manifest, "--bundle", "b").code == 0
    home.peers("[policy]\nrequire_signed = true\n")

    refused(cas("apply", "b", "--unsealed"), "policy")

    home.peers("")
    assert outcomes(cas("apply", "b", "--unsealed", "--output", "json")) == {"delivered": 2}


def test_a_message_over_the_limit_here_is_refused(cas: Callable[..., Run], home: Home, bundle: Path):
    home.peers("[policy]\nmax_bytes = 10\n")

    refused(cas("apply", bundle), "too-large")


def test_bundles_of_two_days_send_once(cas: Callable[..., Run], manifest: Path):
    for number in range(2):
        day = (datetime.now(UTC) - timedelta(days=number)).strftime("%Y-%m-%dT%H:%M:%SZ")
        assert cas("plan", manifest, "--at", day, "--ttl", "0", "--bundle", f"{number}.bundle").code == 0

    runs = [cas("apply", f"{number}.bundle", "--state-dir", f"s{number}", "--output", "json") for number in range(2)]

    assert [outcomes(run) for run in runs] == [{"delivered": 2}, {"unchanged": 2}]


def test_halt_comes_before_a_bundle_is_looked_at(cas: Callable[..., Run], home: Home, bundle: Path):
    bundle.write_bytes(bundle.read_bytes()[:500])
    home.halt()

    assert cas("apply", bundle).code == 5


def test_show_tells_a_bundle_and_none_of_its_text(cas: Callable[..., Run], bundle: Path, gnupg: Key):
    run = cas("show", bundle)

    assert run.code == 0
    assert f"\na bundle, sealed by {gnupg.fingerprint}\n" in run.out
    assert "planted" not in run.out


# What is refused


def first_message(body: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = body["deliveries"][0]["message"]
    return found


def other_text(body: dict[str, Any]) -> None:
    """Another text, with everything that follows from it."""
    content = base64.b64decode(first_message(body)["content"]).replace(b"Hello", b"Hullo")
    first_message(body)["content"] = base64.b64encode(content).decode()


def sent_elsewhere_too(body: dict[str, Any]) -> None:
    body["deliveries"].append({**body["deliveries"][0], "id": "hello@local.evil"})


def test_a_bundle_that_was_cut_off_anywhere_is_refused(cas: Callable[..., Run], home: Home, bundle: Path):
    whole = bundle.read_bytes()
    for length in (12, 1000, len(whole) // 2, len(whole) - 2):
        bundle.write_bytes(whole[:length])

        refused(cas("apply", bundle), "plan-malformed")
    bundle.write_bytes(whole + whole)
    refused(cas("apply", bundle), "plan-malformed")
    assert nothing_arrived(home)


def test_an_edited_bundle_is_refused_and_told_each_reason(cas: Callable[..., Run], home: Home, bundle: Path):
    bundle.write_bytes(bundle.read_bytes().replace(b'"retries":3', b'"retries":4', 1))

    run = cas("apply", bundle)

    refused(run, "plan-edited")
    assert "it states the digest" in run.err
    assert "the bundle was edited after the key" in run.err
    assert nothing_arrived(home)


@pytest.mark.threat("bundle holder", "edit a sealed bundle")
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (other_text, {"plan-malformed", "plan-edited"}),
        (lambda body: first_message(body).update(content="@@@"), {"plan-malformed", "plan-edited"}),
        (lambda body: first_message(body).update(content=None), {"plan-malformed"}),
        (lambda body: first_message(body).pop("content"), {"plan-malformed", "plan-edited"}),
        (lambda body: first_message(body).pop("signature"), {"plan-malformed", "plan-edited"}),
        (lambda body: first_message(body).update(signature="none"), {"plan-malformed"}),
        (
            lambda body: first_message(body).update(signature=body["deliveries"][1]["message"]["signature"]),
            {"plan-signature", "plan-edited"},
        ),
        (lambda body: first_message(body).update(bytes=5), {"plan-changed", "plan-edited"}),
        (lambda body: body["deliveries"].pop(), {"plan-edited"}),
        (lambda body: body["deliveries"].append(body["deliveries"][0]), None),
        (sent_elsewhere_too, None),
        (lambda body: body["deliveries"][0].update(id="hello@local.evil"), None),
        (lambda body: body["deliveries"][0].update(sender="somebody"), None),
        (
            lambda body: body["deliveries"][0].update(identity="0" * 32),
            {"plan-changed", "plan-edited", "plan-signature"},
        ),
        (lambda body: body["deliveries"][0].update(sign=None), None),
        (lambda body: body["deliveries"][0]["destination"].update(inbox="~/elsewhere"), None),
        (lambda body: body["deliveries"][0]["destination"].update(host="evil.example"), None),
        (lambda body: body["deliveries"][0].update(files=["20261123T013133Z-from-a-b.org"]), None),
        (lambda body: body.update(expires="2999-01-01T00:00:00Z"), {"plan-edited"}),
        (lambda body: body.update(seals={}), {"plan-malformed", "plan-seal"}),
        (lambda body: body.pop("seals"), None),
        (lambda body: body["seals"].update({"A" * 40: next(iter(body["seals"].values()))}), None),
    ],
)  # fmt: skip
def test_a_bundle_edited_with_its_digest_made_anew_is_refused_all_the_same(
    cas: Callable[..., Run], home: Home, bundle: Path, change: Change, told: set[str] | None
):
    edited(bundle, change)

    run = cas("apply", bundle)

    assert run.code == 6, run.err
    assert "nothing was sent" in run.err
    assert codes(run)
    assert told is None or set(codes(run)) == told
    assert nothing_arrived(home)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body["deliveries"][0].update(files=[f"{NAME}.asc", NAME]),
        lambda body: body["deliveries"][0].update(sender="some..body"),
        lambda body: body["deliveries"][0].update(sender="body\n"),
        lambda body: body["deliveries"][0].update(identity="0" * 32),
        lambda body: body["deliveries"][0].update(lane="local.docs/other"),
        lambda body: body["deliveries"][0].update(id="hello@../../evil"),
        lambda body: body["deliveries"][0].update(after=["hello"]),
        lambda body: body["deliveries"][0]["destination"].update(inbox="/etc"),
        lambda body: first_message(body).update(sequence=7),
    ],
)  # fmt: skip
def test_what_does_not_follow_from_its_messages_is_refused_also_when_it_is_sealed(
    cas: Callable[..., Run], home: Home, gnupg: Key, bundle: Path, change: Change
):
    resealed(bundle, gnupg, change)

    run = cas("apply", bundle)

    assert run.code == 6, run.err
    assert "plan-edited" not in codes(run)
    assert nothing_arrived(home)


def test_a_bundle_that_was_sealed_again_is_good(cas: Callable[..., Run], gnupg: Key, bundle: Path):
    resealed(bundle, gnupg, lambda body: body.update(further="key"))

    assert outcomes(cas("apply", bundle, "--output", "json")) == {"delivered": 2}


def test_a_message_to_several_has_a_signature_for_each_that_serves_no_other(
    cas: Callable[..., Run], gnupg: Key, manifest: Path
):
    text = manifest.read_text(encoding="utf-8").replace("local.docs,", "[local.docs, local.late],")
    manifest.write_text(text, encoding="utf-8")
    assert cas("plan", manifest, "--bundle", "b").code == 0
    shutil.copy("b", "edited")

    def exchanged(body: dict[str, Any]) -> None:
        docs, late, _ = body["deliveries"]
        docs["message"]["signature"] = late["message"]["signature"]

    resealed(Path("edited"), gnupg, exchanged)

    refused(cas("apply", "edited"), "plan-signature")
    assert outcomes(cas("apply", "b", "--output", "json")) == {"delivered": 3}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda message: message.update(content=message["content"] + "\n"), "no base64"),
        (lambda message: message.update(content=message["content"].removesuffix("=")[:-1] + "h="), "canonical"),
        (lambda message: message.update(signature=message["signature"] + "\u00e9"), "not armoured"),
        (lambda message: message.update(signature=message["signature"] * 2), "none that gpg can read"),
        (lambda message: message.update(signature=message["signature"] + "A" * 17_000), "message.signature"),
    ],
)
def test_a_bundle_has_one_form_of_everything(
    cas: Callable[..., Run], gnupg: Key, bundle: Path, change: Change, said: str
):
    resealed(bundle, gnupg, lambda body: change(body["deliveries"][0]["message"]))

    run = cas("apply", bundle)

    assert (run.code, said in run.err) == (6, True), run.err


def test_an_id_given_twice_is_refused(cas: Callable[..., Run], gnupg: Key, bundle: Path):
    resealed(bundle, gnupg, lambda body: body["deliveries"][1].update(id=body["deliveries"][0]["id"]))

    run = cas("apply", bundle)

    assert (run.code, "an id is given twice" in run.err) == (6, True), run.err


def test_a_key_given_twice_is_refused(cas: Callable[..., Run], bundle: Path):
    bundle.write_bytes(bundle.read_bytes().replace(b'"content":"', b'"content":"AA==","content":"', 1))

    refused(cas("apply", bundle), "plan-malformed")


def test_a_bundle_expires_as_a_plan_does(cas: Callable[..., Run], manifest: Path):
    cas("plan", manifest, "--at", "2020-01-01T00:00:00Z", "--bundle", "old.bundle")

    refused(cas("apply", "old.bundle"), "plan-expired")


def test_an_unknown_key_is_refused_with_what_to_do(
    cas: Callable[..., Run], bundle: Path, gnupg: Key, monkeypatch: pytest.MonkeyPatch
):
    with keyring() as empty:
        monkeypatch.setenv("GNUPGHOME", str(empty))

        run = cas("apply", bundle)

    refused(run, "plan-key")
    assert len(codes(run)) == 1
    assert "is not known here" in run.err
    assert f"gpg --armor --export {gnupg.fingerprint} >key.asc; and here: gpg --import key.asc" in run.err


@pytest.mark.parametrize("state", ["expired", "revoked"])
def test_a_key_that_has_expired_or_was_revoked_since_is_refused(
    cas: Callable[..., Run], home: Home, manifest: Path, monkeypatch: pytest.MonkeyPatch, state: str
):
    folder = Path(tempfile.mkdtemp(prefix="cas-"))
    try:
        with throwaway_key(folder) as key:
            monkeypatch.setenv("GNUPGHOME", str(folder))
            manifest.write_text(MANIFEST.replace("KEY", f"{{key: {key.fingerprint}}}"), encoding="utf-8")
            assert cas("plan", manifest, "--bundle", "b").code == 0
            gpg = ["gpg", "--batch", "--pinentry-mode", "loopback", "--passphrase", ""]
            if state == "expired":
                subprocess.run([*gpg, "--quick-set-expire", key.fingerprint, "seconds=1"], check=True)
                time.sleep(2)
            else:
                made = folder / "openpgp-revocs.d" / f"{key.fingerprint}.rev"
                text = made.read_text(encoding="utf-8").replace(":-----BEGIN", "-----BEGIN")
                subprocess.run([*gpg, "--import"], input=text.encode(), check=True)

            run = cas("apply", "b", "--sealed-by", key.fingerprint)

            refused(run, "plan-key")
            assert ("has expired" if state == "expired" else "is revoked") in run.err
            assert nothing_arrived(home)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_signature_by_another_key_that_is_known_here_is_refused(
    cas: Callable[..., Run], bundle: Path, gnupg: Key, monkeypatch: pytest.MonkeyPatch
):
    folder = Path(tempfile.mkdtemp(prefix="cas-"))
    try:
        with throwaway_key(folder) as other, keyring(gnupg, other) as both:
            signer = Signer(environment={**os.environ, "GNUPGHOME": str(folder)})

            def signed_by_another(body: dict[str, Any]) -> None:
                content = base64.b64decode(first_message(body)["content"])
                first_message(body)["signature"] = signer.sign(content, other.fingerprint).decode()

            edited(bundle, signed_by_another)
            monkeypatch.setenv("GNUPGHOME", str(both))

            run = cas("apply", bundle)

            refused(run, "plan-edited", "plan-signature")
            assert f"is by the key {other.fingerprint}" in run.err
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_destination_that_is_elsewhere_here_is_refused(cas: Callable[..., Run], home: Home, bundle: Path):
    home.peers('[projects.site]\ninbox_path = "~/other"\n')

    run = cas("apply", bundle)

    refused(run, "plan-changed")
    assert "`told@local.site`: `destination.inbox` is `~/other` here" in run.err


def test_a_destination_that_nobody_knows_here_is_refused(cas: Callable[..., Run], home: Home, manifest: Path):
    home.peers("[peers.forge]\n")
    manifest.write_text(manifest.read_text(encoding="utf-8").replace("local.site", "forge.site"), encoding="utf-8")
    assert cas("plan", manifest, "--bundle", "b").code == 0
    home.peers("")

    run = cas("apply", "b")

    refused(run, "unknown-peer")


def test_a_circle_in_a_bundle_is_refused(cas: Callable[..., Run], home: Home, manifest: Path):
    manifest.write_text(MANIFEST.replace("KEY", "false"), encoding="utf-8")
    assert cas("plan", manifest, "--bundle", "b").code == 0

    def circle(body: dict[str, Any]) -> None:
        body["deliveries"][0]["after"], body["deliveries"][1]["after"] = ["told"], ["hello"]

    edited(Path("b"), circle)

    refused(cas("apply", "b", "--unsealed"), "after-cycle")


# Whose seal counts


def rewritten(bundle: Path, by: Key | None) -> Path:
    """A bundle with another text in it: unsigned and without a seal, or signed and sealed by another key."""
    evil = message("evil.org", body="* EVIL\n").read_bytes()
    body = json.loads(bundle.read_bytes())
    signer = Signer(environment={**os.environ, "GNUPGHOME": str(by.gnupghome)}) if by else None
    name = digest(evil)
    for one in body["deliveries"]:
        told = one["message"]
        told.update(content=base64.b64encode(evil).decode(), digest=name, bytes=len(evil))
        told["signature"] = signer.sign(evil, by.fingerprint).decode() if signer and by else None
        one["sign"] = {"key": by.fingerprint} if by else None
        one["files"] = one["files"] if by else one["files"][-1:]
        place = (told["conversation"], told["sequence"], name)
        one["identity"] = identity(one["sender"], one["destination"]["address"], *place)
    body["deliveries"] = body["deliveries"][:1]
    body["seals"] = {}
    if signer and by:
        body["seals"] = {by.fingerprint: signer.sign(seal_text(body), by.fingerprint).decode()}
    body["digest"] = digest_of(body)
    path = Path("evil.bundle")
    path.write_text(json.dumps(body), encoding="utf-8")
    return path


@pytest.fixture
def stranger(gnupg: Key, home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Key]:
    """Another key, whose public half is known here, as is that of the throw-away key."""
    folder = Path(tempfile.mkdtemp(prefix="cas-"))
    try:
        with throwaway_key(folder) as key, keyring(gnupg, key) as both:
            monkeypatch.setenv("GNUPGHOME", str(both))
            yield key
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.threat("bundle holder", "strip the seals and signatures of a bundle, and change its messages")
@pytest.mark.parametrize("policy", ["", "[policy]\nrequire_signed = false\n"])
def test_a_bundle_without_a_seal_is_refused(home: Home, bundle: Path, policy: str):
    home.peers(policy)

    refused(called("apply", rewritten(bundle, None)), "plan-seal")
    refused(called("rehearse", rewritten(bundle, None), "--root", "tree"), "plan-seal")

    assert nothing_arrived(home)


@pytest.mark.threat("bundle holder", "seal a changed bundle again with another key that the applier knows")
def test_a_seal_by_another_known_key_is_refused(home: Home, bundle: Path, gnupg: Key, stranger: Key):
    evil = rewritten(bundle, stranger)

    refused(called("apply", evil), "plan-seal")
    refused(called("apply", evil, "--sealed-by", gnupg.fingerprint), "plan-seal")
    home.peers(f'[policy]\nseals = ["{gnupg.fingerprint}"]\n')
    refused(called("apply", evil), "plan-seal")
    refused(called("apply", evil, "--sealed-by", stranger.fingerprint), "plan-seal")
    refused(called("apply", evil, "--unsealed"), "plan-seal")

    assert nothing_arrived(home)


@pytest.mark.threat("bundle holder", "send in the name of a sender whose keys are listed")
def test_a_key_that_senders_does_not_list_is_refused_whatever_is_said_of_seals(
    home: Home, bundle: Path, gnupg: Key, stranger: Key
):
    home.peers(f'[senders.builder]\nkeys = ["{gnupg.fingerprint}"]\n')

    refused(called("apply", rewritten(bundle, stranger), "--unsealed"), "another-key")
    refused(called("apply", rewritten(bundle, stranger), "--sealed-by", stranger.fingerprint), "another-key")
    refused(called("apply", rewritten(bundle, None), "--unsealed"), "another-key")

    assert nothing_arrived(home)


@pytest.mark.parametrize("how", ["option", "policy", "both", "groups of four"])
def test_a_bundle_with_the_seal_that_was_named_is_applied(home: Home, bundle: Path, gnupg: Key, how: str):
    home.peers(f'[policy]\nseals = ["{gnupg.fingerprint}"]\n' if how in ("policy", "both") else "")
    spelled = " ".join(re.findall("....", gnupg.fingerprint)) if how == "groups of four" else gnupg.fingerprint
    option = () if how == "policy" else ("--sealed-by", spelled)

    assert outcomes(called("apply", bundle, *option, "--output", "json")) == {"delivered": 2}


def test_a_seal_that_counts_and_is_not_good_is_refused(home: Home, bundle: Path, gnupg: Key):
    edited(bundle, lambda body: body.update(name="other"))

    refused(called("apply", bundle, "--sealed-by", gnupg.fingerprint), "plan-edited")


def test_no_seal_counts_where_the_policy_lists_none(home: Home, bundle: Path):
    home.peers("[policy]\nseals = []\n")

    refused(called("apply", bundle), "plan-seal")


def test_a_bundle_of_unsigned_messages_can_be_sealed(home: Home, manifest: Path, gnupg: Key):
    manifest.write_text(MANIFEST.replace("KEY", "false"), encoding="utf-8")
    assert called("plan", manifest, "--bundle", "b", "--seal-with", gnupg.fingerprint).code == 0

    refused(called("apply", "b"), "plan-seal")
    assert outcomes(called("apply", "b", "--sealed-by", gnupg.fingerprint, "--output", "json")) == {"delivered": 2}


def test_options_of_seals_are_for_bundles(home: Home, manifest: Path, gnupg: Key, bundle: Path):
    Path("release.yaml").write_text(MANIFEST.replace("KEY", "false"), encoding="utf-8")
    message("hello.org")
    assert called("plan", "release.yaml", "-o", "release.plan").code == 0
    seal = ("--sealed-by", gnupg.fingerprint)

    assert called("apply", "release.yaml", *seal).code == 64
    assert called("apply", "release.yaml", "--unsealed").code == 64
    assert called("apply", bundle, "--unsealed", *seal).code == 64
    assert called("apply", bundle, "--sealed-by", gnupg.fingerprint[-16:]).code == 64
    assert called("plan", "release.yaml", "--seal-with", gnupg.fingerprint).code == 64
    refused(called("apply", "release.plan", *seal), "plan-seal")
    assert nothing_arrived(home)


@pytest.mark.threat("manifest author", "send with a key that is not listed for the sender")
@pytest.mark.parametrize("verb", ["plan", "apply"])
def test_a_manifest_cannot_send_with_a_key_that_is_not_listed(home: Home, manifest: Path, gnupg: Key, verb: str):
    home.peers('[senders.builder]\nkeys = ["5CA7F1CE5E8E605E770C0236B4B61A2737D6A700"]\n')
    for key in ("false", f"{{key: {gnupg.fingerprint}}}"):
        manifest.write_text(MANIFEST.replace("KEY", key), encoding="utf-8")

        run = called(verb, manifest)

        assert (run.code, set(codes(run))) == (1, {"another-key"})
    assert called("send", "local.docs", "hello.org").code == 1
    assert nothing_arrived(home)
    assert called("send", "local.docs", "hello.org", "--no-sign").code == 0


def test_a_plan_cannot_send_with_a_key_that_is_not_listed_any_more(home: Home, manifest: Path, gnupg: Key):
    home.peers(f'[senders.builder]\nkeys = ["{gnupg.fingerprint}"]\n')
    assert called("plan", manifest, "-o", "p").code == 0
    home.peers('[senders.builder]\nkeys = ["5CA7F1CE5E8E605E770C0236B4B61A2737D6A700"]\n')

    refused(called("apply", "p"), "another-key")

"""`cas apply`: manifests into inboxes; again, only what is missing; and nothing at all when anything is wrong."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Forge, Home, Run

from cas.loopback import Key

Pairs = Callable[[Path], tuple[str, ...]]


def manifest(path: str | Path, sends: str, *, head: str = "defaults: {sign: false, retry: {retries: 0}}\n") -> Path:
    """Writes a manifest; unsigned and without retries, unless `head` says otherwise."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"cas: 1\n{head}sends:\n{sends}", encoding="utf-8")
    return path


def hello(destination: str = "local.docs", *, identifier: str = "hello", message: str = "hello.org") -> str:
    return f"  - {{id: {identifier}, destination: {destination}, message: {message}}}\n"


def outcomes(run: Run) -> dict[str, str]:
    return {one["id"]: one["outcome"] for one in json.loads(run.out)["deliveries"]}


def sequences(inbox: Path, names: tuple[str, ...]) -> list[str]:
    texts = ((inbox / name).read_text(encoding="utf-8") for name in names if name.endswith(".org"))
    return [found[1] for text in texts if (found := re.search(r"#\+SEQUENCE: (\d+)", text))]


# What arrives


@pytest.mark.parametrize("form", ["hello.org", "{file: hello.org}"], ids=["short", "long"])
def test_a_message_arrives_byte_for_byte_in_both_forms(
    cas: Callable[..., Run], home: Home, message: Callable[..., Path], pairs: Pairs, form: str
):
    content = message("hello.org", body="* {{ not a template }}\r\n\u2028no newline at the end").read_bytes()

    run = cas("apply", manifest("m.yaml", hello(message=form)))

    (name,) = pairs(home.inbox("docs"))
    assert run.code == 0
    assert (home.inbox("docs") / name).read_bytes() == content


def test_a_signed_message_arrives_with_a_good_signature(
    cas: Callable[..., Run],
    home: Home,
    gnupg: Key,
    message: Callable[..., Path],
    pairs: Pairs,
    verify: Callable[..., str],
):
    message("hello.org")

    run = cas("apply", manifest("m.yaml", hello(), head=""))

    org, asc = pairs(home.inbox("docs"))
    assert (run.code, asc) == (0, f"{org}.asc")
    assert verify(home.inbox("docs") / org) == gnupg.fingerprint


@pytest.mark.parametrize(
    ("head", "own", "signed"),
    [
        ("defaults: {sign: false}\n", "", False),
        ("defaults: {sign: false}\n", ", sign: true", True),
        ("", ", sign: false", False),
        ("", "", True),
        ("defaults: {sign: {key: FPR}}\n", "", True),
        ("", ", sign: {key: FPR}", True),
    ],
)
def test_signing_is_what_the_send_says_else_what_the_defaults_say(
    cas: Callable[..., Run],
    home: Home,
    gnupg: Key,
    message: Callable[..., Path],
    pairs: Pairs,
    head: str,
    own: str,
    signed: bool,
):
    message("hello.org")
    send = f"  - {{id: a, destination: local.docs, message: hello.org{own}}}\n".replace("FPR", gnupg.fingerprint)

    run = cas("apply", manifest("m.yaml", send, head=head.replace("FPR", gnupg.fingerprint)))

    assert run.code == 0
    assert len(pairs(home.inbox("docs"))) == (2 if signed else 1)


def test_several_destinations_get_one_message_each_here_and_behind_ssh(
    cas: Callable[..., Run], home: Home, peer: Forge, message: Callable[..., Path], pairs: Pairs
):
    message("hello.org")

    run = cas("apply", manifest("m.yaml", hello("[local.docs, forge.site, local.site]")))

    assert run.code == 0
    assert [len(pairs(inbox)) for inbox in (home.inbox("docs"), peer.inbox("site"), home.inbox("site"))] == [1, 1, 1]


def test_a_conversation_arrives_by_sequence_whatever_its_position(
    cas: Callable[..., Run], home: Home, message: Callable[..., Path], pairs: Pairs
):
    for number in (3, 1, 2):
        message(f"{number}.org", sequence=number)
    sends = "".join(hello(identifier=f"s{number}", message=f"{number}.org") for number in (3, 1, 2))

    run = cas("apply", manifest("m.yaml", sends))

    assert run.code == 0
    assert sequences(home.inbox("docs"), pairs(home.inbox("docs"))) == ["1", "2", "3"]


def test_the_sender_is_the_project_of_the_manifests_folder_not_of_the_working_folder(
    cas: Callable[..., Run], home: Home, message: Callable[..., Path], pairs: Pairs
):
    message(home.projects / "site" / "deep" / "hello.org")

    cas("apply", manifest(home.projects / "site" / "deep" / "m.yaml", hello()))

    assert "-from-site-greeting.org" in pairs(home.inbox("docs"))[0]


def test_the_sender_can_be_said_in_the_manifest(
    cas: Callable[..., Run], home: Home, message: Callable[..., Path], pairs: Pairs
):
    message("hello.org")

    cas("apply", manifest("m.yaml", hello(), head="sender: release-bot\ndefaults: {sign: false}\n"))

    assert "-from-release-bot-greeting.org" in pairs(home.inbox("docs"))[0]


def test_an_inbox_right_below_the_home_can_be_delivered_to(
    cas: Callable[..., Run], home: Home, message: Callable[..., Path], pairs: Pairs
):
    home.peers('[projects.docs]\ninbox_path = "~/inbox"\n')
    message("hello.org")

    run = cas("apply", manifest("m.yaml", hello()))

    assert run.code == 0
    assert len(pairs(home.path / "inbox")) == 1


def test_the_retries_of_a_manifest_are_tried_and_announced(
    cas: Callable[..., Run], home: Home, message: Callable[..., Path]
):
    home.peers('[peers.forge]\nhost = "127.0.0.1"\nport = 1\n')
    message("hello.org")

    run = cas(
        "apply",
        manifest("m.yaml", hello("forge.docs"), head="defaults: {sign: false, retry: {retries: 2, backoff: [0]}}\n"),
        "--output",
        "json",
    )

    (delivery,) = json.loads(run.out)["deliveries"]
    assert run.code == 3
    assert [attempt["wait"] for attempt in delivery["attempts"]] == [0, 0, None]
    assert "(retry 2 of 2)" in run.err
    assert len(home.markers()) == 1


def test_send_and_apply_leave_the_same_files(
    cas: Callable[..., Run], home: Home, message: Callable[..., Path], gnupg: Key
):
    message("hello.org")

    sent = cas("send", "local.one", "hello.org", "--key", gnupg.fingerprint)
    applied = cas(
        "apply", manifest("m.yaml", hello("local.two"), head=f"defaults: {{sign: {{key: {gnupg.fingerprint}}}}}\n")
    )

    assert (sent.code, applied.code) == (0, 0)
    assert _tree(home.inbox("one")) == _tree(home.inbox("two"))


def _tree(inbox: Path) -> list[tuple[str, int, bytes]]:
    """Every file of an inbox, with its mode: times, identities and what is signed anew each time made equal."""
    found = []
    for path in sorted(inbox.rglob("*")):
        name = re.sub(r"\d{8}T\d{6}Z", "TIME", str(path.relative_to(inbox)))
        name = re.sub(r"\b[0-9a-f]{32}\b", "IDENTITY", name)
        is_message = path.is_file() and path.suffix == ".org" and not path.name.startswith("name-")
        found.append((name, path.stat().st_mode, path.read_bytes() if is_message else b""))
    return sorted(found)


# PATH


def test_several_manifests_are_one_run(cas: Callable[..., Run], home: Home, message: Callable[..., Path], pairs: Pairs):
    message("a/hello.org", sequence=2)
    message("b/hello.org", sequence=1)

    run = cas("apply", manifest("a/m.yaml", hello(identifier="two")), manifest("b/m.yaml", hello(identifier="one")))

    assert run.code == 0
    assert sequences(home.inbox("docs"), pairs(home.inbox("docs"))) == ["1", "2"]


def test_a_folder_means_its_manifests_sorted_and_nothing_else_in_it(
    cas: Callable[..., Run], home: Home, message: Callable[..., Path]
):
    message("out/hello.org")
    manifest("out/b.yml", hello("local.b", identifier="b"))
    manifest("out/a.yaml", hello("local.a", identifier="a"))
    Path("out/notes.txt").write_text("not a manifest", encoding="utf-8")

    run = cas("apply", "out", "--output", "json")

    assert list(outcomes(run)) == ["a@local.a", "b@local.b"]


def test_a_manifest_named_twice_is_applied_once(
    cas: Callable[..., Run], home: Home, message: Callable[..., Path], pairs: Pairs
):
    message("out/hello.org")
    path = manifest("out/m.yaml", hello())

    run = cas("apply", path, "out", path)

    assert run.code == 0
    assert len(pairs(home.inbox("docs"))) == 1


def test_a_manifest_named_by_two_spellings_is_applied_once(
    cas: Callable[..., Run], home: Home, message: Callable[..., Path], pairs: Pairs
):
    message("out/hello.org")
    path = manifest("out/m.yaml", hello())

    run = cas("apply", path, path.resolve())

    assert run.code == 0
    assert len(pairs(home.inbox("docs"))) == 1


def test_a_folder_without_a_manifest_is_an_error(cas: Callable[..., Run], home: Home):
    Path("out").mkdir()

    run = cas("apply", "out")

    assert run.code == 1
    assert "no manifest in the folder `out`" in run.err


# Again


def test_applied_twice_everything_is_unchanged_and_nothing_is_there_twice(
    cas: Callable[..., Run], home: Home, message: Callable[..., Path], pairs: Pairs
):
    message("hello.org")
    path = manifest("m.yaml", hello())
    cas("apply", path)
    before = pairs(home.inbox("docs"))

    run = cas("apply", path, "--output", "json")

    assert run.code == 0
    assert outcomes(run) == {"hello@local.docs": "unchanged"}
    assert pairs(home.inbox("docs")) == before
    assert tuple(json.loads(run.out)["deliveries"][0]["files"]) == before


def test_a_message_that_the_receiver_has_taken_away_is_unchanged_too(
    cas: Callable[..., Run], home: Home, message: Callable[..., Path], pairs: Pairs, tmp_path: Path
):
    message("hello.org")
    path = manifest("m.yaml", hello())
    cas("apply", path)
    for name in pairs(home.inbox("docs")):
        (home.inbox("docs") / name).unlink()

    known = cas("apply", path, "--output", "json")
    anew = cas("apply", path, "--output", "json", "--state-dir", tmp_path / "state")

    assert outcomes(known) == outcomes(anew) == {"hello@local.docs": "unchanged"}
    assert json.loads(anew.out)["deliveries"][0]["evidence"] == "receipt"
    assert pairs(home.inbox("docs")) == ()


def test_from_an_empty_state_folder_everything_is_unchanged_too(
    cas: Callable[..., Run], home: Home, peer: Forge, message: Callable[..., Path], tmp_path: Path
):
    message("hello.org")
    path = manifest("m.yaml", hello("[local.docs, forge.site]"))
    cas("apply", path)
    shutil.rmtree(home.state, ignore_errors=True)

    run = cas("apply", path, "--output", "json", "--state-dir", tmp_path / "state")

    assert set(outcomes(run).values()) == {"unchanged"}


def test_only_what_is_new_is_delivered(cas: Callable[..., Run], home: Home, message: Callable[..., Path], pairs: Pairs):
    message("hello.org")
    cas("apply", manifest("m.yaml", hello()))
    message("more.org", sequence=2)

    run = cas("apply", manifest("m.yaml", hello() + hello(identifier="more", message="more.org")), "--output", "json")

    assert outcomes(run) == {"hello@local.docs": "unchanged", "more@local.docs": "delivered"}
    assert len(pairs(home.inbox("docs"))) == 2


def test_what_failed_is_delivered_by_the_next_run(
    cas: Callable[..., Run], home: Home, peer: Forge, message: Callable[..., Path], pairs: Pairs
):
    message("hello.org")
    path = manifest("m.yaml", hello("[local.docs, forge.site]"))
    home.peers(peer.toml(port=1))
    failed = cas("apply", path, "--output", "json")
    home.peers(peer.toml())

    run = cas("apply", path, "--output", "json")

    assert outcomes(failed) == {"hello@local.docs": "delivered", "hello@forge.site": "failed"}
    assert outcomes(run) == {"hello@local.docs": "unchanged", "hello@forge.site": "delivered"}
    assert run.code == 0


# Mixed outcomes


def test_a_failure_blocks_the_rest_of_its_lane_and_nothing_else(
    cas: Callable[..., Run], home: Home, message: Callable[..., Path], pairs: Pairs
):
    _not_a_folder(home, "docs")
    message("1.org", sequence=1)
    message("2.org", sequence=2)
    sends = hello(identifier="one", message="1.org") + hello(
        "[local.docs, local.site]", identifier="two", message="2.org"
    )

    run = cas("apply", manifest("m.yaml", sends), "--output", "json")

    assert run.code == 1
    assert outcomes(run) == {"one@local.docs": "failed", "two@local.docs": "blocked", "two@local.site": "delivered"}
    assert len(pairs(home.inbox("site"))) == 1


def test_a_failure_blocks_its_lane_whatever_name_the_inbox_was_given(
    cas: Callable[..., Run], home: Home, message: Callable[..., Path]
):
    home.peers('[projects.docs]\ninbox_path = "~/shared/inbox"\n[projects.twin]\ninbox_path = "~/shared/inbox"\n')
    (home.path / "shared").write_text("a file", encoding="utf-8")
    message("1.org", sequence=1)
    message("2.org", sequence=2)

    run = cas(
        "apply",
        manifest(
            "m.yaml", hello(identifier="one", message="1.org") + hello("local.twin", identifier="two", message="2.org")
        ),
        "--output",
        "json",
    )

    assert outcomes(run) == {"one@local.docs": "failed", "two@local.twin": "blocked"}


def test_lanes_that_cross_between_two_names_of_one_machine_are_kept_and_end(
    cas: Callable[..., Run], home: Home, peer: Forge, message: Callable[..., Path], pairs: Pairs, tmp_path: Path
):
    other_file = shutil.copy(peer.identity_file, tmp_path / "other_key")
    home.peers(peer.toml() + peer.toml(identity_file=str(other_file)).replace("forge", "smithy"))
    sends = []
    for talk, first, second in (("one", "forge", "smithy"), ("two", "smithy", "forge")):
        for sequence, machine in ((1, first), (2, second)):
            name = f"{talk}-{sequence}"
            message(f"{name}.org", conversation_id=talk, sequence=sequence)
            sends.append(f"  - {{id: {name}, destination: {machine}.docs, message: {name}.org}}\n")
    Path("m.yaml").write_text("cas: 1\ndefaults: {sign: false}\nsends:\n" + "".join(sends), encoding="utf-8")

    assert cas("apply", "m.yaml").code == 0

    assert len(pairs(peer.inbox("docs"))) == 4


def test_a_failure_here_and_one_there_end_with_3(cas: Callable[..., Run], home: Home, message: Callable[..., Path]):
    home.peers('[peers.forge]\nhost = "127.0.0.1"\nport = 1\n')
    _not_a_folder(home, "docs")
    message("hello.org")

    run = cas("apply", manifest("m.yaml", hello("[local.docs, forge.site]")), "--output", "json")

    assert run.code == 3
    assert set(outcomes(run).values()) == {"failed"}


def test_a_failure_here_alone_ends_with_1(cas: Callable[..., Run], home: Home, message: Callable[..., Path]):
    _not_a_folder(home, "docs")
    message("hello.org")

    run = cas("apply", manifest("m.yaml", hello("[local.docs, local.site]")))

    assert run.code == 1
    assert "1 delivered" in run.out
    assert "1 failed" in run.out


def _not_a_folder(home: Home, project: str) -> None:
    """Makes an inbox that nobody can deliver to, root neither: a file stands where it should be."""
    (home.projects / project).mkdir(parents=True)
    (home.projects / project / "inbox").write_text("a file", encoding="utf-8")


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"manifest"}, 1),
        ({"manifest", "destination"}, 2),
        ({"destination", "frontmatter"}, 4),
        ({"manifest", "frontmatter"}, 4),
        ({"manifest", "destination", "frontmatter"}, 4),
        ({"manifest", "destination", "frontmatter", "halt"}, 5),
    ],
    ids=lambda value: "+".join(sorted(value)) if isinstance(value, set) else str(value),
)
def test_of_several_causes_the_most_telling_one_gives_the_exit_code(
    cas: Callable[..., Run], home: Home, message: Callable[..., Path], wrong: set[str], expected: int
):
    message("hello.org", message_type="nonsense" if "frontmatter" in wrong else "request")
    if "halt" in wrong:
        home.halt()
    paths = [manifest("good.yaml", hello("nowhere.docs" if "destination" in wrong else "local.docs"))]
    if "manifest" in wrong:
        paths.append(manifest("bad.yaml", "  - {id: other}\n"))

    run = cas("apply", *paths)

    assert run.code == expected
    assert not home.inbox("docs").exists()


def test_a_signing_that_fails_is_told_with_gpgs_words_and_sends_nothing_signed(
    cas: Callable[..., Run], home: Home, gnupg: Key, message: Callable[..., Path], pairs: Pairs
):
    message("hello.org")

    run = cas("apply", manifest("m.yaml", hello(), head=f"defaults: {{sign: {{key: {'A' * 40}}}}}\n"))

    assert run.code == 1
    assert "No secret key" in run.err
    assert pairs(home.inbox("docs")) == ()


def test_a_key_that_is_not_there_by_name_stops_everything(
    cas: Callable[..., Run], home: Home, gnupg: Key, message: Callable[..., Path], pairs: Pairs
):
    message("hello.org")
    sends = hello() + "  - {id: b, destination: local.site, message: hello.org, sign: {key: nobody}}\n"

    run = cas("apply", manifest("m.yaml", sends))

    assert run.code == 1
    assert "`nobody`" in run.err
    assert pairs(home.inbox("docs")) == ()


# What is wrong


def test_all_errors_are_told_at_once_each_with_its_place_and_nothing_is_sent(
    cas: Callable[..., Run], home: Home, message: Callable[..., Path]
):
    message("good.org")
    message("bad.org", message_type="nonsense")
    path = manifest(
        "m.yaml",
        hello(message="good.org")
        + hello("nowhere.docs", identifier="b", message="bad.org")
        + hello("local.site", identifier="c", message="missing.org")
        + hello("local.site", identifier="d", message="../outside.org"),
    )
    other = manifest("other.yaml", "  - {id: e, destination: local.docs, mesage: good.org}\n")

    run = cas("apply", path, other)

    assert run.code == 4
    assert re.findall(r"^(\S+?): error\[(\S+?)\]", run.err, re.MULTILINE) == [
        ("other.yaml:4:38", "unknown-key"),
        ("bad.org:2", "unknown-message-type"),
        ("m.yaml:5:26", "unknown-peer"),
        ("m.yaml:6:47", "unreadable"),
        ("m.yaml:7:47", "outside"),
    ]
    assert run.err.endswith("nothing was sent\n")
    assert not home.inbox("docs").exists()
    assert not home.state.exists()


@pytest.mark.parametrize(
    "path", ["../outside.org", "sub/../../outside.org", "ABSOLUTE", "link.org", "linked/outside.org"]
)
def test_a_message_outside_the_manifests_folder_is_refused_links_too(
    cas: Callable[..., Run], home: Home, message: Callable[..., Path], path: str
):
    outside = message(home.projects / "outside.org").resolve()
    Path("sub").mkdir()
    Path("link.org").symlink_to(outside)
    Path("linked").symlink_to(home.projects)

    run = cas("apply", manifest("m.yaml", hello(message=path.replace("ABSOLUTE", str(outside)))))

    assert run.code == 1
    assert "error[outside]" in run.err
    assert not home.inbox("docs").exists()


def test_a_link_that_stays_in_the_manifests_folder_is_followed(
    cas: Callable[..., Run], home: Home, message: Callable[..., Path], pairs: Pairs
):
    message("sub/hello.org")
    Path("link.org").symlink_to("sub/hello.org")

    run = cas("apply", manifest("m.yaml", hello(message="link.org")))

    assert run.code == 0
    assert len(pairs(home.inbox("docs"))) == 1


def test_a_manifest_behind_a_link_looks_beside_its_name(
    cas: Callable[..., Run], home: Home, message: Callable[..., Path], pairs: Pairs
):
    message("hello.org")
    Path("kept").mkdir()
    manifest("kept/m.yaml", hello())
    Path("m.yaml").symlink_to("kept/m.yaml")

    run = cas("apply", "m.yaml")

    assert run.code == 0
    assert len(pairs(home.inbox("docs"))) == 1


def test_a_warning_of_peers_toml_is_told_and_stops_nothing(
    cas: Callable[..., Run], home: Home, message: Callable[..., Path]
):
    home.peers("[peers.forge]\nhots = 'x'\n")
    message("hello.org")

    run = cas("apply", manifest("m.yaml", hello()))

    assert run.code == 0
    assert "warning[unknown-key]" in run.err


def test_the_policy_for_durable_delivery_is_kept_here(
    cas: Callable[..., Run], home: Home, message: Callable[..., Path]
):
    home.peers("[policy]\nrequire_durable = true\n")
    message("hello.org")

    run = cas("apply", manifest("m.yaml", hello()), "--output", "json")

    assert json.loads(run.out)["deliveries"][0]["durable"] is True

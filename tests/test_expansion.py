"""The expansion in this process, where a run has it in a confined one: the same drafts, the same findings."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
import test_invalid
import test_playbooks
from support import Forge, Home

from cas import loader
from cas.diagnostics import MOST_FINDINGS, Diagnostic, InvalidInput, Place
from cas.drafts import Draft
from cas.expansion import MOST_REPEATED, expand
from cas.output.diagnostics import line

CLOCK = datetime(2026, 11, 23, 9, 12, 58, tzinfo=UTC)


def expanded(
    home: Home, *paths: Path | str, **more: object
) -> tuple[tuple[Draft, ...], tuple[Diagnostic, ...], list[Place]]:
    """The drafts of these manifests, what is wrong with the rest, and what was noted on the way."""
    inventory, _ = loader.load_inventory(home.config)
    loaded = loader.load([Path(path) for path in paths], projects=home.projects, max_bytes=1 << 20)
    noted: list[Place] = []
    drafts, found = expand(loaded.sources, inventory, clock=CLOCK, hostname="here", given=more, note=noted.append)
    return drafts, (*loaded.diagnostics, *found), noted


@pytest.mark.parametrize("case", test_invalid.CASES, ids=lambda case: case.stem)
def test_what_it_finds_is_what_the_run_tells(home: Home, case: Path):
    test_invalid.set_out(case, home)
    expected = test_invalid.expected_file(case).read_text(encoding="utf-8")

    try:
        _, found, _ = expanded(home, "m.yaml")
    except InvalidInput as error:  # of peers.toml
        found = error.diagnostics

    assert [one for one in found if line(one).replace(str(home.path), "~") not in expected] == []


@pytest.mark.parametrize("name", sorted(test_playbooks.MANIFESTS))
def test_it_gives_the_deliveries_of_each_playbook(home: Home, peer: Forge, tmp_path: Path, name: str, monkeypatch):
    folder = home.projects / "builder" / "playbooks"
    shutil.copytree(test_playbooks.PLAYBOOKS, folder)
    home.peers(test_playbooks.GROUPS + peer.toml())
    monkeypatch.chdir(folder)
    planned = json.loads((test_playbooks.GOLDEN / f"{Path(name).stem}.json").read_text(encoding="utf-8"))

    drafts, found, _ = expanded(home, name)

    assert [one for one in found if one.severity.value == "error"] == []
    assert sorted((one.id, one.target.text) for one in drafts) == sorted(
        (one["send"], one["destination"]["address"]) for one in planned["deliveries"]
    )


def test_it_notes_each_template_before_it_is_carried_out(home: Home):
    Path("m.yaml").write_text(
        "cas: 1\nsends:\n  - {id: a, destination: 'local.{{ x }}', message: a.org, when: 'true'}\n", encoding="utf-8"
    )

    _, _, noted = expanded(home, "m.yaml")

    assert noted == [Place(file="m.yaml", line=3, column=26)]


def test_a_value_that_is_given_comes_before_the_one_that_is_declared(home: Home):
    Path("m.yaml").write_text(
        "cas: 1\nvars: {x: docs}\nsends:\n"
        "  - id: a\n    destination: 'local.{{ x }}'\n"
        "    message: {body: '{{ x }}', conversation: c, type: query, sequence: 1}\n",
        encoding="utf-8",
    )

    drafts, found, _ = expanded(home, "m.yaml", x="site")

    assert ([one.target.text for one in drafts], found) == (["local.site"], ())


BODY = "message: {body: '{{ item }}', conversation: c, type: query, sequence: '{{ loop.index }}'}"


@pytest.mark.parametrize(
    ("items", "ids"),
    [
        ("[x, 7, true, '']", ["a[x]", "a[7]", "a[3]", "a[4]"]),
        ("{one: 1, two: 2}", ["a[one]", "a[two]"]),
        ("[{id: x}, {name: y}, {size: 3}]", ["a[x]", "a[y]", "a[3]"]),
        ("{files: '*.none'}", []),
    ],
)
def test_an_item_is_called_by_its_value_or_what_names_it_or_its_position(home: Home, items: str, ids: list[str]):
    Path("m.yaml").write_text(
        f"cas: 1\nsends:\n  - {{id: a, for_each: {items}, destination: local.docs, {BODY}}}\n", encoding="utf-8"
    )

    drafts, found, _ = expanded(home, "m.yaml")

    assert [one.id for one in drafts] == ids
    assert [one.code for one in found] == ([] if ids else ["no-file-matches"])


def test_a_key_may_be_a_template(home: Home):
    Path("m.yaml").write_text(
        "cas: 1\nvars: {who: builder}\nsends:\n"
        f"  - {{id: a, for_each: [x], destination: local.docs, {BODY}, sign: {{key: '{{{{ who }}}}@example.org'}}}}\n",
        encoding="utf-8",
    )

    drafts, _, _ = expanded(home, "m.yaml")

    assert [one.sign and one.sign.key for one in drafts] == ["builder@example.org"]


def test_what_has_to_be_a_text_and_is_none_is_told_with_its_item(home: Home):
    Path("m.yaml").write_text(
        "cas: 1\nsends:\n  - {id: a, for_each: [3], destination: local.docs, message: '{{ item }}'}\n", encoding="utf-8"
    )

    drafts, found, _ = expanded(home, "m.yaml")

    assert drafts == ()
    assert [line(one) for one in found] == [
        "m.yaml:3:62: error[wrong-type]: `{{ item }}` is `3`, not a text (for the item `3`: m.yaml:3:24)"
    ]


def test_a_message_is_looked_at_even_where_its_destination_is_wrong(home: Home, message):
    message("a.org")
    Path("m.yaml").write_text("cas: 1\nsends:\n  - {id: a, destination: x.docs, message: a.org}\n", encoding="utf-8")

    drafts, found, _ = expanded(home, "m.yaml")

    assert (drafts, [one.code for one in found]) == ((), ["unknown-peer"])


def test_a_value_that_no_manifest_declares_is_all_that_is_told(home: Home):
    Path("m.yaml").write_text("cas: 1\nsends:\n  - {id: a, destination: x.docs, message: a.org}\n", encoding="utf-8")

    drafts, found, _ = expanded(home, "m.yaml", relase="1.4.0")

    assert (drafts, [one.code for one in found]) == ((), ["unknown-variable"])


NOBODY = ", ".join(f"nobody{number}.docs" for number in range(2 * MOST_FINDINGS))


@pytest.mark.parametrize(
    ("sends", "told"),
    [
        pytest.param(
            "".join(f"  - {{id: s{number}, destination: a.b, {BODY}}}\n" for number in range(2 * MOST_FINDINGS)),
            MOST_FINDINGS,
            id="sends",
        ),
        pytest.param(
            f"  - {{id: a, for_each: [{NOBODY}], destination: '{{{{ item }}}}', {BODY}}}\n", MOST_FINDINGS, id="items"
        ),
        pytest.param(f"  - {{id: a, destination: [{NOBODY}], {BODY}}}\n", MOST_FINDINGS, id="destinations"),
        pytest.param(
            f"  - {{id: a, for_each: {list(range(2 * MOST_REPEATED))}, destination: nobody.docs, {BODY}}}\n",
            1,
            id="all items alike",
        ),
    ],
)
def test_where_more_is_wrong_than_anybody_reads_the_first_of_it_is_told_and_nothing_planned(
    home: Home, sends: str, told: int
):
    Path("m.yaml").write_text(f"cas: 1\nsends:\n{sends}", encoding="utf-8")

    drafts, found, _ = expanded(home, "m.yaml")

    assert (drafts, len(found)) == ((), told)
    assert {one.code for one in found} == {"unknown-peer"}

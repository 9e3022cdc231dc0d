"""The language of manifests: loops, templates, variables, conditions, order, groups, selection; by the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import Home, Run

Cas = Callable[..., Run]
HEAD = "defaults: {sign: false}\n"
BODY = '{conversation: CONVERSATION, type: progress, sequence: 1, body: "* Hello\\n"}'


@pytest.fixture(autouse=True)
def _home(home: Home) -> None:
    """Each of these tests works in an empty project."""


def write(path: str | Path, text: str) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def manifest(sends: str, *, head: str = "", path: str = "m.yaml") -> Path:
    """Writes a manifest, unsigned, whose sends stand in the first column."""
    indented = "".join(f"  {line}\n" if line else "\n" for line in sends.strip("\n").split("\n"))
    return write(path, f"cas: 1\n{HEAD}{head}sends:\n{indented}")


def send(identifier: str, more: str = "", *, to: str = "local.docs", conversation: str | None = None) -> str:
    body = BODY.replace("CONVERSATION", conversation or identifier)
    return f"- {{id: {identifier}, destination: {to}, message: {body}{', ' + more if more else ''}}}\n"


def planned(cas: Cas, path: Path, *options: str | Path) -> dict[str, Any]:
    run = cas("plan", path, "--output", "json", *options)
    assert run.code == 0, run.err
    return {one["id"]: one for one in json.loads(run.out)["deliveries"]}


def ids(cas: Cas, path: Path, *options: str | Path) -> list[str]:
    return list(planned(cas, path, *options))


def applied(cas: Cas, path: Path, *options: str | Path) -> dict[str, Any]:
    run = cas("apply", path, "--output", "json", *options)
    return {one["id"]: one for one in json.loads(run.out)["deliveries"]}


def outcomes(cas: Cas, path: Path, *options: str | Path) -> dict[str, str]:
    return {name: one["outcome"] for name, one in applied(cas, path, *options).items()}


def texts(home: Home, project: str) -> list[str]:
    """The messages in an inbox, without their frontmatter, in the order of their names."""
    files = sorted(home.inbox(project).glob("*.org"))
    return [path.read_text(encoding="utf-8").partition("\n\n")[2] for path in files]


def findings(run: Run) -> list[tuple[str, str, str]]:
    """Place, severity and code of each finding."""
    return re.findall(r"^(?:(\S+?): )?(error|warning|note)\[(\S+?)\]", run.out + run.err, re.MULTILINE)


def refused(cas: Cas, path: Path, code: str, place: str | None = None, *options: str) -> Run:
    """The run of `validate` on a manifest that has this one error, at this place."""
    run = cas("validate", path, *options)
    assert [(found[0], found[2]) for found in findings(run)] == [(place or "", code)], run.out
    assert run.code in (1, 2, 4)
    return run


def echo(value: str, head: str = "", more: str = "") -> Path:
    """A manifest whose message's text is a value."""
    text = f"""
- id: echo
  destination: local.docs
  message: {{conversation: echo, type: progress, sequence: 1, body: {json.dumps(value)}}}
"""
    return manifest(text + more, head=head)


def echoed(cas: Cas, home: Home, path: Path, *options: str | Path) -> str:
    run = cas("apply", path, *options)
    assert run.code == 0, run.err
    (text,) = texts(home, "docs")
    return text


# Loops


def looped(for_each: str, *, key: str = "{{ item }}", head: str = "") -> Path:
    text = f"""
- id: stage
  for_each: {for_each}
  destination: local.docs
  message: {{conversation: stage, type: progress, sequence: "{{{{ loop.index }}}}", body: "{key}"}}
"""
    return manifest(text, head=head)


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ("[build, test]", ["stage[build]", "stage[test]"]),
        ("[3, 1]", ["stage[3]", "stage[1]"]),
        ("[1.10, no, 010]", ["stage[1.10]", "stage[no]", "stage[010]"]),
        ("[{id: a, name: x}, {name: b}, {other: c}]", ["stage[a]", "stage[b]", "stage[3]"]),
        ("[true, null, [x]]", ["stage[1]", "stage[2]", "stage[3]"]),
        ("{b: 1, a: 2}", ["stage[b]", "stage[a]"]),
        ('"{{ stages }}"', ["stage[x]", "stage[y]"]),
        ("\"{{ stages | map('upper') }}\"", ["stage[X]", "stage[Y]"]),
        ('"{{ kinds }}"', ["stage[k]"]),
        ("['{{ stages[0] }}', z]", ["stage[x]", "stage[z]"]),
        ("[]", []),
    ],
)
def test_a_loop_over_a_list_a_map_or_a_template_gives_a_send_for_each_item(cas: Cas, items: str, expected: list[str]):
    path = looped(items, head="vars: {stages: [x, y], kinds: {k: 1}}\n")

    assert ids(cas, path) == [f"{one}@local.docs" for one in expected]


def test_the_items_of_a_map_have_a_key_and_a_value(cas: Cas, home: Home):
    cas("apply", looped("{b: 1, a: {x: 2}}", key="{{ item.key }} {{ item.value }}"))

    assert texts(home, "docs") == ["b 1", "a {'x': 2}"]


def test_a_loop_knows_where_it_is(cas: Cas, home: Home):
    key = "{{ [loop.index, loop.index0, loop.first, loop.last, loop.length] | join(' ') }}"

    cas("apply", looped("[a, b]", key=key))

    assert texts(home, "docs") == ["1 0 True False 2", "2 1 False True 2"]


def test_an_outbox_is_delivered_to_the_folders_that_its_messages_lie_in(
    cas: Cas, home: Home, message: Callable[..., Path]
):
    for name, body in (("local.docs/b", "B"), ("local.docs/a", "A"), ("local.site/c", "C"), ("local.site/c.txt", "-")):
        path = f"outbox/{name}" if "." in name.rpartition("/")[2] else f"outbox/{name}.org"
        message(path, body=body, conversation_id=f"c-{body}")
    text = """
- id: out
  for_each: {files: "outbox/*/*.org"}
  destination: "{{ item.folder }}"
  message: "{{ item.path }}"
  tags: [out]
"""
    path = manifest(text)

    assert ids(cas, path) == [
        "out[outbox/local.docs/a.org]@local.docs",
        "out[outbox/local.docs/b.org]@local.docs",
        "out[outbox/local.site/c.org]@local.site",
    ]
    assert set(outcomes(cas, path).values()) == {"delivered"}
    assert (sorted(texts(home, "docs")), texts(home, "site")) == (["A", "B"], ["C"])
    message("outbox/local.site/d.org", body="D", conversation_id="c-D")
    assert list(outcomes(cas, path).values()) == ["unchanged", "unchanged", "unchanged", "delivered"]


@pytest.mark.parametrize(
    ("pattern", "text"), [("in/*/*.txt", "in/deep/x.txt x.txt deep"), ("*.txt", "y.txt y.txt <>")], ids=["deep", "flat"]
)
def test_a_file_has_its_path_its_name_and_its_folder(cas: Cas, home: Home, pattern: str, text: str):
    write("in/deep/x.txt", "")
    write("y.txt", "")

    cas("apply", looped(f'{{files: "{pattern}"}}', key="{{ item.path }} {{ item.name }} {{ item.folder or '<>' }}"))

    assert texts(home, "docs") == [text]


def test_a_pattern_that_no_file_matches_sends_nothing_and_says_so(cas: Cas):
    path = looped('{files: "outbox/*.org"}')

    run = cas("validate", path)

    assert (run.code, findings(run)) == (0, [("m.yaml:5:23", "note", "no-file-matches")])
    assert run.out.endswith("valid: 0 deliveries\n")


@pytest.mark.parametrize("pattern", ["../*.org", "/tmp/*.org", "a/../../*", "**/*.org"])
def test_a_pattern_that_leads_out_of_the_folder_is_refused(cas: Cas, pattern: str):
    refused(cas, looped(f'{{files: "{pattern}"}}'), "outside", "m.yaml:5:23")


def test_a_pattern_follows_no_link_out_of_the_folder(cas: Cas, home: Home, message: Callable[..., Path]):
    message(home.path / "secret" / "a.org")
    Path("out").symlink_to(home.path / "secret")
    text = '- {id: a, for_each: {files: "out/*.org"}, destination: local.docs, message: "{{ item.path }}"}'

    run = cas("validate", manifest(text))

    assert (run.code, [found[2] for found in findings(run)]) == (1, ["outside"])


@pytest.mark.parametrize(
    ("items", "code", "place"),
    [
        ("[a, b, a]", "doubled-item", "m.yaml:5:22"),
        ('[1, "1"]', "doubled-item", "m.yaml:5:19"),
        ('"{{ 3 }}"', "wrong-type", "m.yaml:5:15"),
        ("plain", "wrong-type", "m.yaml:5:15"),
        ('"{{ stagse }}"', "undefined-variable", "m.yaml:5:15"),
    ],
)
def test_items_that_are_none_or_are_there_twice_are_refused(cas: Cas, items: str, code: str, place: str):
    refused(cas, looped(items), code, place)


def test_what_every_item_has_wrong_is_said_once_with_the_first_of_them(cas: Cas):
    run = refused(cas, looped("[a, b, c]", key="{{ itme }}"), "undefined-variable", "m.yaml:7:88")

    assert "for the item `a`: m.yaml:5:16" in run.out
    assert "hint: did you mean `item`?" in run.out


def test_a_destination_may_be_a_template_for_one_or_for_a_list(cas: Cas):
    head = "vars: {all: [local.a, local.b]}\n"
    path = manifest(send("one", to='"{{ all }}"') + send("two", to="['{{ all[1] }}', local.c]"), head=head)

    assert ids(cas, path) == ["one@local.a", "one@local.b", "two@local.b", "two@local.c"]


def test_a_text_knows_its_destination(cas: Cas, home: Home):
    text = send("one", to="[local.docs, local.site]").replace(
        "* Hello", "{{ destination }} {{ machine }} {{ project }} {{ sender }}"
    )

    cas("apply", manifest(text))

    assert texts(home, "docs") == ["local.docs local docs builder\n"]
    assert texts(home, "site") == ["local.site local site builder\n"]


# Variables


@pytest.mark.parametrize(
    ("written", "type_of"),
    [
        ("1.10", "str"),
        ("010", "str"),
        ("no", "str"),
        ("2026-11-23", "str"),
        ("12:30", "str"),
        ("7", "int"),
        ("-7", "int"),
        ("true", "bool"),
        ("null", "NoneType"),
        ("'7'", "str"),
        ("[1]", "list"),
        ("{a: 1}", "dict"),
        ("'{{ 6 + 1 }}'", "int"),
        ("'{{ 6 + 1 }}.'", "str"),
    ],
)
def test_a_variable_has_the_type_that_it_shows(cas: Cas, home: Home, written: str, type_of: str):
    tests = {"str": "string", "int": "integer", "bool": "boolean", "NoneType": "none", "dict": "mapping"}
    test = "v is sequence and v is not string" if type_of == "list" else f"v is {tests.get(type_of)}"

    assert echoed(cas, home, echo(f"{{{{ {test} }}}} {{{{ v }}}}", head=f"vars: {{v: {written}}}\n")).startswith(
        "True "
    )


def test_a_variable_may_use_those_before_it_and_not_those_after_it(cas: Cas, home: Home):
    assert echoed(cas, home, echo("{{ b }}", head='vars: {a: x, b: "{{ a }}y"}\n')) == "xy"

    refused(cas, echo("{{ b }}", head='vars: {b: "{{ a }}y", a: x}\n'), "undefined-variable", "m.yaml:3:11")


def test_a_value_is_carried_out_once_and_what_comes_of_it_is_no_template(cas: Cas, home: Home):
    assert echoed(cas, home, echo("{{ a }}", head="vars: {a: \"{{ '{{ b }}' }}\", b: no}\n")) == "{{ b }}"


def layered(**layers: str) -> Path:
    given = {name: f"vars: {{v: {value}}}" for name, value in layers.items()}
    text = f"""
- id: echo
  destination: local.docs
  {given.get("send", "tags: []")}
  message:
    conversation: echo
    type: progress
    sequence: 1
    {given.get("message", "protocol_version: '1.0'")}
    body: "{{{{ v }}}}"
"""
    return manifest(text, head=given.get("manifest", "vars: {}") + "\n")


@pytest.mark.parametrize(
    ("layers", "options", "winner"),
    [
        (["manifest"], [], "manifest"),
        (["manifest", "send"], [], "send"),
        (["manifest", "send", "message"], [], "message"),
        (["manifest", "send", "message"], ["--vars-file", "v.yaml"], "file"),
        (["manifest", "send", "message"], ["--var", "v=option", "--vars-file", "v.yaml"], "option"),
        (["manifest"], ["--vars-file", "v.yaml", "--vars-file", "w.yaml"], "other-file"),
        (["manifest"], ["--var", "v=one", "--var", "v=two"], "two"),
        (["message"], ["--var", "v=option"], "option"),
    ],
)
def test_of_several_values_of_a_variable_the_nearest_one_wins_and_the_command_lines_before_all(
    cas: Cas, home: Home, layers: list[str], options: list[str], winner: str
):
    write("v.yaml", "v: file\n")
    write("w.yaml", "v: other-file\n")

    assert echoed(cas, home, layered(**{name: name for name in layers}), *options) == winner


@pytest.mark.parametrize(
    ("text", "shown"), [("3", "4"), ("true", "2"), ("1.10", "1.101"), ("03", "031"), ("a=b", "a=b1"), ("", "None")]
)
def test_an_options_value_has_the_type_that_it_shows(cas: Cas, home: Home, text: str, shown: str):
    body = "{{ v if v is none else (v ~ 1 if v is string else v + 1) }}"

    assert echoed(cas, home, echo(body, head="vars: {v: x}\n"), "--var", f"v={text}") == shown


def test_an_options_value_is_no_template(cas: Cas, home: Home):
    path = echo("{{ v }}", head="vars: {v: x}\n")

    assert echoed(cas, home, path, "--var", "v={{ sender }}") == "{{ sender }}"


def test_values_from_the_command_line_stand_in_the_plan(cas: Cas):
    path = echo("{{ v }}", head="vars: {v: x, w: y}\n")

    run = cas("plan", path, "--output", "json", "--var", "v=3")

    assert json.loads(run.out)["variables"] == {"v": 3}


def test_a_variable_that_no_manifest_declares_is_an_error(cas: Cas):
    path = echo("{{ release }}", head="vars: {release: x}\n")

    assert "hint: did you mean `release`?" in refused(cas, path, "unknown-variable", None, "--var", "relaese=1").out
    assert (
        "hint: declared under `vars` are: `release`" in refused(cas, path, "unknown-variable", None, "--var", "z=1").out
    )


@pytest.mark.parametrize("given", ["release", "=1", "a-b=1", "1=1"])
def test_an_option_that_is_no_name_and_value_is_wrong_usage(cas: Cas, given: str):
    run = cas("validate", echo("x"), "--var", given)

    assert (run.code, [found[2] for found in findings(run)]) == (64, ["malformed-variable"])


def test_a_file_of_variables_that_is_no_map_is_an_error_with_its_place(cas: Cas):
    write("v.yaml", "- a\n")

    refused(cas, echo("x"), "wrong-type", "v.yaml:1", "--vars-file", "v.yaml")


def test_now_is_the_plans_clock(cas: Cas, home: Home, monkeypatch: pytest.MonkeyPatch):
    path = manifest(send("a", to="\"local.{{ now | replace(':', '-') }}\""))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1795397493")

    (found,) = planned(cas, path).values()

    assert found["destination"]["address"].startswith("local.20")
    assert found["files"][0][:8] == found["destination"]["address"].removeprefix("local.")[:10].replace("-", "")


# Conditions


@pytest.mark.parametrize(
    ("when", "action", "reason"),
    [
        ("true", "deliver", None),
        ("false", "skip", "when: false"),
        ("\"'rc' not in release\"", "deliver", None),
        ("release == '1.5'", "skip", "when: release == '1.5' is false"),
        ("machine == 'local'", "deliver", None),
        ("nothing is defined", "skip", "when: nothing is defined is false"),
    ],
)
def test_a_send_is_left_out_when_its_condition_is_false(cas: Cas, when: str, action: str, reason: str | None):
    (found,) = planned(cas, manifest(send("a", f"when: {when}"), head="vars: {release: 1.4.0}\n")).values()

    assert (found["action"], found.get("reason")) == (action, reason)


@pytest.mark.parametrize("when", ["release", "'{{ release }}'", "1", "null", "\"'no'\"", "[]", "release | length"])
def test_a_condition_that_is_neither_true_nor_false_is_refused(cas: Cas, when: str):
    run = cas("validate", manifest(send("a", f"when: {when}"), head="vars: {release: 1.4.0}\n"))

    assert run.code == 1
    assert next(found[2] for found in findings(run)) in ("when-not-boolean", "wrong-type", "template-syntax")


def test_a_condition_is_decided_for_each_item_and_destination(cas: Cas):
    more = "for_each: [x, y], when: \"item == 'x' and project == 'docs'\""
    text = send("a", more, to="[local.docs, local.site]").replace("sequence: 1", 'sequence: "{{ loop.index }}"')

    found = planned(cas, manifest(text))

    assert [one["action"] for one in found.values()] == ["deliver", "skip", "skip", "skip"]


def test_of_what_is_left_out_the_message_need_not_even_exist(cas: Cas):
    text = "- {id: a, destination: local.docs, message: missing.org, when: false}"

    assert cas("validate", manifest(text)).code == 0


# Order


def test_what_comes_after_is_delivered_after(cas: Cas, home: Home):
    path = manifest(
        send("late", "after: [mid]", to="local.a") + send("mid", "after: early", to="local.b") + send("early")
    )

    run = cas("apply", path, "--output", "jsonl")

    events = [json.loads(line) for line in run.out.splitlines()]
    ended = [event["id"] for event in events if event.get("event") == "delivery-finished"]
    assert (run.code, ended) == (0, ["early@local.docs", "mid@local.b", "late@local.a"])


def test_what_comes_after_a_failure_is_blocked_and_nothing_else_is(cas: Cas, home: Home):
    home.obstruct("broken")
    path = manifest(
        send("first", to="local.broken")
        + send("second", "after: first", to="local.a")
        + send("third", "after: second", to="local.b")
        + send("other", to="local.c")
    )

    found = applied(cas, path)

    assert {name: one["outcome"] for name, one in found.items()} == {
        "first@local.broken": "failed",
        "second@local.a": "blocked",
        "third@local.b": "blocked",
        "other@local.c": "delivered",
    }
    assert found["second@local.a"]["reason"] == "`first@local.broken`, which comes before it, did not get there"


def test_what_was_blocked_is_delivered_when_what_it_waits_for_is(cas: Cas, home: Home):
    home.obstruct("broken")
    path = manifest(send("first", to="local.broken") + send("second", "after: first", to="local.a"))
    cas("apply", path)
    home.inbox("broken").unlink()

    assert outcomes(cas, path) == {"first@local.broken": "delivered", "second@local.a": "delivered"}


def test_one_failed_destination_of_several_blocks_what_comes_after(cas: Cas, home: Home):
    home.obstruct("broken")
    path = manifest(send("first", to="[local.ok, local.broken]") + send("second", "after: first", to="local.a"))

    assert list(outcomes(cas, path).values()) == ["delivered", "failed", "blocked"]


def test_after_an_item_only_that_item_counts(cas: Cas, home: Home):
    home.obstruct("y")
    loop = send("stage", "for_each: [x, y]", to='"local.{{ item }}"')
    path = manifest(
        loop
        + send("one", "after: 'stage[x]'", to="local.a")
        + send("two", "after: 'stage[y]'", to="local.b")
        + send("all", "after: stage", to="local.c")
    )

    assert outcomes(cas, path) == {
        "stage[x]@local.x": "delivered",
        "stage[y]@local.y": "failed",
        "one@local.a": "delivered",
        "two@local.b": "blocked",
        "all@local.c": "blocked",
    }


def test_after_may_name_an_item_by_a_template(cas: Cas, home: Home):
    loop = "for_each: [x, y]"
    path = manifest(
        send("one", loop, to='"local.{{ item }}"')
        + send("two", f"{loop}, after: ['one[{{{{ item }}}}]']", to='"local.{{ item }}2"')
    )

    found = planned(cas, path)

    assert found["two[x]@local.x2"]["after"] == ["one[x]"]
    assert set(outcomes(cas, path).values()) == {"delivered"}


def test_what_a_condition_leaves_out_counts_as_fulfilled(cas: Cas):
    path = manifest(send("first", "when: false") + send("second", "after: first", to="local.a"))

    assert outcomes(cas, path) == {"first@local.docs": "skipped", "second@local.a": "delivered"}


def test_what_selection_leaves_out_and_was_never_delivered_blocks_what_comes_after(cas: Cas):
    path = manifest(send("first") + send("second", "after: first", to="local.a"))

    found = applied(cas, path, "--only", "second")

    assert [one["outcome"] for one in found.values()] == ["skipped", "blocked"]
    assert "is not known to be delivered" in found["second@local.a"]["reason"]


def test_what_selection_leaves_out_and_was_delivered_before_counts_as_fulfilled(cas: Cas):
    path = manifest(send("first") + send("second", "after: first", to="local.a"))
    cas("apply", path, "--only", "first")

    assert outcomes(cas, path, "--only", "second") == {"first@local.docs": "skipped", "second@local.a": "delivered"}


def test_sends_that_wait_for_each_other_are_refused(cas: Cas):
    path = manifest(send("a", "after: b") + send("b", "after: c") + send("c", "after: a"))

    run = refused(cas, path, "after-cycle", "m.yaml:4:121")

    assert "these wait for each other: `a` after `b` after `c` after `a`" in run.out


@pytest.mark.parametrize("more", ["after: a", "after: 'a[x]', for_each: [x]", "after: a, for_each: [x]"])
def test_a_send_that_waits_for_itself_is_refused(cas: Cas, more: str):
    run = cas("validate", manifest(send("a", more)))

    assert (run.code, [found[2] for found in findings(run)]) == (1, ["after-cycle"])


def test_an_order_against_that_of_the_conversation_is_refused(cas: Cas):
    text = send("one", "after: two", conversation="c") + send("two", conversation="c").replace(
        "sequence: 1", "sequence: 2"
    )

    run = refused(cas, manifest(text), "after-against-sequence", "m.yaml:4:123")

    assert "SEQUENCE puts these the other way round than `after`" in run.out


def test_an_order_with_that_of_the_conversation_is_none_too_many(cas: Cas, home: Home):
    text = send("one", conversation="c") + send("two", "after: one", conversation="c").replace(
        "sequence: 1", "sequence: 2"
    )

    assert set(outcomes(cas, manifest(text)).values()) == {"delivered"}


def test_an_order_against_a_conversation_by_way_of_another_inbox_is_refused(cas: Cas):
    text = (
        send("one", "after: between", conversation="c")
        + send("between", "after: two", to="local.site")
        + send("two", conversation="c").replace("sequence: 1", "sequence: 2")
    )

    run = cas("validate", manifest(text))

    assert (run.code, [found[2] for found in findings(run)]) == (1, ["after-against-sequence"])


def test_a_send_that_is_not_there_cannot_be_waited_for(cas: Cas):
    run = refused(cas, manifest(send("build") + send("b", "after: [biuld]")), "unknown-after", "m.yaml:5:122")

    assert "no send has the id `biuld`" in run.out
    assert "hint: did you mean `build`?" in run.out


# Destinations and groups

GROUPS = (
    '[groups]\nall = ["@inner", "local.c"]\ninner = ["local.a", "local.b"]\nbare = ["inner", "local.a"]\nnone = []\n'
)


@pytest.mark.parametrize(
    ("to", "projects"),
    [
        ('"@inner"', "ab"),
        ('"@all"', "abc"),
        ('"@bare"', "ab"),
        ('["@all", local.d, "@inner"]', "abcd"),
        ("'@{{ which }}'", "ab"),
        ('"@none"', ""),
    ],
)
def test_a_group_is_one_delivery_for_each_member(cas: Cas, home: Home, to: str, projects: str):
    home.peers(GROUPS)

    assert ids(cas, manifest(send("m", to=to), head="vars: {which: inner}\n")) == [f"m@local.{one}" for one in projects]


def test_a_variable_may_be_called_what_others_take_for_a_boolean(cas: Cas):
    run = cas("validate", manifest(send("a", "when: on"), head="vars: {on: true}\n"))

    assert (run.code, run.out) == (0, "valid: 1 delivery\n")


def test_a_group_that_is_not_there_is_an_error_with_the_nearest_one(cas: Cas, home: Home):
    home.peers(GROUPS)

    run = refused(cas, manifest(send("m", to='"@iner"')), "unknown-group", "m.yaml:4:26")

    assert run.code == 2
    assert "hint: did you mean `@inner`?" in run.out


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ('[groups]\na = ["@a"]\n', ["group-cycle"]),
        pytest.param(
            '[groups]\na = ["@b"]\nb = ["@a"]\n',
            ["group-cycle"],
        ),
        ('[groups]\na = ["@z"]\n', ["unknown-group"]),
        ('[groups]\na = "local.a"\n', ["invalid-peers"]),
    ],
)
def test_groups_that_hold_themselves_or_what_is_not_there_are_refused(
    cas: Cas, home: Home, text: str, codes: list[str]
):
    home.peers(text)

    run = cas("validate", manifest(send("m", to="local.docs")))

    assert (run.code, [found[2] for found in findings(run)]) == (1, codes)


def test_destinations_that_are_one_inbox_are_one_delivery(cas: Cas, home: Home):
    home.peers(
        '[projects.docs]\ninbox_path = "~/one"\n[projects.twin]\ninbox_path = "~/one"\n[groups]\ng = ["local.docs"]\n'
    )
    path = manifest(send("m", to='[local.docs, local.twin, "@g", local.docs]'))

    assert outcomes(cas, path) == {"m@local.docs": "delivered"}
    assert len(list((home.path / "one").glob("*.org"))) == 1


# Messages


def asserted(form: str, header: str) -> Path:
    return manifest(f"- {{id: a, destination: local.docs, message: {{{form}: hello.org, {header}}}}}")


@pytest.mark.parametrize("form", ["file", "template"])
def test_a_header_that_is_that_of_the_message_is_no_matter(cas: Cas, message: Callable[..., Path], form: str):
    message("hello.org")
    header = (
        "conversation: greeting, type: request, sequence: 1, timestamp: 2026-11-23T01:31:33Z, protocol_version: 1.0"
    )

    assert cas("validate", asserted(form, header)).code == 0


@pytest.mark.parametrize("form", ["file", "template"])
@pytest.mark.parametrize(
    ("header", "attribute"),
    [
        ("conversation: farewell", "CONVERSATION_ID `greeting`"),
        ("type: query", "MESSAGE_TYPE `request`"),
        ("sequence: 2", "SEQUENCE `1`"),
        ("timestamp: 2026-11-24T01:31:33Z", "TIMESTAMP `2026-11-23T01:31:33Z`"),
        ("protocol_version: 2.0", "PROTOCOL_VERSION `1.0`"),
    ],
)
def test_a_header_that_differs_from_that_of_the_message_is_refused(
    cas: Cas, message: Callable[..., Path], form: str, header: str, attribute: str
):
    message("hello.org")
    path = asserted(form, header)
    column = path.read_text(encoding="utf-8").split("\n")[3].index(header) + len(header.partition(": ")[0]) + 3

    run = refused(cas, path, "asserted-frontmatter", f"m.yaml:4:{column}")

    assert run.code == 4
    assert f"`hello.org` has {attribute}, and the manifest says" in run.out


def test_a_body_gets_its_frontmatter_in_the_contracts_order(cas: Cas, home: Home):
    header = "conversation: c, type: query, sequence: '{{ 6 + 1 }}', timestamp: 2026-11-23T01:31:33Z"
    cas("apply", manifest(f'- {{id: a, destination: local.docs, message: {{{header}, body: "* Hi\\n"}}}}'))

    (path,) = home.inbox("docs").glob("*.org")
    assert path.read_text(encoding="utf-8").split("\n")[:5] == [
        "#+CONVERSATION_ID: c",
        "#+MESSAGE_TYPE: query",
        "#+SEQUENCE: 7",
        "#+TIMESTAMP: 2026-11-23T01:31:33Z",
        "#+PROTOCOL_VERSION: 1.0",
    ]


@pytest.mark.parametrize("sequence", ["-1", "'x'", "'{{ true }}'", "'{{ 1.5 }}'", "1000000000", "'٣'", "'{{ -1 }}'"])
def test_a_sequence_that_is_no_whole_number_is_refused(cas: Cas, sequence: str):
    run = cas("validate", manifest(send("a").replace("sequence: 1", f"sequence: {sequence}")))

    assert run.code in (1, 4)
    assert len(findings(run)) == 1
    assert findings(run)[0][0].startswith("m.yaml:4:")


@pytest.mark.parametrize("state", [(), ("--state-dir", "elsewhere")], ids=["known", "empty-state"])
def test_a_body_that_is_applied_again_later_is_unchanged(
    cas: Cas, home: Home, monkeypatch: pytest.MonkeyPatch, state: tuple[str, ...]
):
    path = manifest(send("a"))
    before = outcomes(cas, path)
    moment = planned(cas, path)["a@local.docs"]["identity"]
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    later = planned(cas, path)["a@local.docs"]["identity"]
    monkeypatch.delenv("SOURCE_DATE_EPOCH")

    assert moment == later
    assert (before, outcomes(cas, path, *state)) == ({"a@local.docs": "delivered"}, {"a@local.docs": "unchanged"})
    assert len(texts(home, "docs")) == 1


@pytest.mark.parametrize(("old", "new"), [("* Hello", "* Bye"), ("type: progress", "type: query")])
def test_a_body_that_has_changed_under_one_sequence_is_a_conflict(cas: Cas, old: str, new: str):
    cas("apply", manifest(send("a")))

    assert outcomes(cas, manifest(send("a").replace(old, new))) == {"a@local.docs": "failed"}


def test_a_template_gives_the_whole_message(cas: Cas, home: Home, message: Callable[..., Path]):
    message("t.org.j2", conversation_id="rel-{{ release }}", body="* {{ audience }} {{ project }}\n")
    text = "- {id: a, destination: local.docs, message: {template: t.org.j2, vars: {audience: internal}}}"

    run = cas("apply", manifest(text, head="vars: {release: 1.4.0}\n"))

    (path,) = home.inbox("docs").glob("*.org")
    assert run.code == 0
    assert path.name.endswith("-from-builder-rel-1.4.0.org")
    assert texts(home, "docs") == ["* internal docs\n"]


def test_a_file_is_no_template(cas: Cas, home: Home, message: Callable[..., Path]):
    message("hello.org", body="{{ nothing }} {% if %} {{{macro}}}\n")
    text = "- {id: a, destination: local.docs, message: hello.org, when: \"'a' == 'a'\"}"

    cas("apply", manifest(text))

    assert texts(home, "docs") == ["{{ nothing }} {% if %} {{{macro}}}\n"]


def test_an_error_in_a_template_has_its_line_and_says_where_it_is_named(cas: Cas, message: Callable[..., Path]):
    message("t.org.j2", body="a\n{{ x }}\n")
    text = "- {id: a, destination: local.docs, message: {template: t.org.j2}}"

    run = refused(cas, manifest(text), "undefined-variable", "t.org.j2:8")

    assert "the template is named here: m.yaml:4:58" in run.out


def test_what_a_template_makes_has_to_be_a_message(cas: Cas, message: Callable[..., Path]):
    message("t.org.j2", sequence="{{ 'x' }}")
    text = "- {id: a, destination: local.docs, message: {template: t.org.j2}}"

    run = cas("validate", manifest(text))

    assert run.code == 4
    assert "t.org.j2 (rendered):3" in run.out


def test_an_error_in_a_body_has_its_line_in_the_manifest(cas: Cas):
    text = """
- id: a
  destination: local.docs
  message:
    conversation: c
    type: progress
    sequence: 1
    body: |
      one
      two
      {{ x }}
"""

    refused(cas, manifest(text), "undefined-variable", "m.yaml:13")


# Below the folder


def test_a_file_outside_of_the_folder_is_refused(cas: Cas, home: Home, message: Callable[..., Path]):
    message(home.path / "secret.org")
    for way in ("../../secret.org", str(home.path / "secret.org"), "{{ '..' }}/../secret.org"):
        text = f'- {{id: a, destination: local.docs, message: "{way}"}}'
        refused(cas, manifest(text), "outside", "m.yaml:4:47")


@pytest.mark.parametrize("link", ["file", "folder"])
@pytest.mark.parametrize("form", ["file", "template"])
def test_a_link_out_of_the_folder_is_refused(cas: Cas, home: Home, message: Callable[..., Path], link: str, form: str):
    secret = message(home.path / "secret" / "a.org")
    Path("in").mkdir()
    if link == "file":
        Path("in/a.org").symlink_to(secret)
    else:
        Path("in/deep").symlink_to(secret.parent)
    name = "in/a.org" if link == "file" else "in/deep/a.org"

    run = cas("validate", manifest(f"- {{id: a, destination: local.docs, message: {{{form}: {name}}}}}"))

    assert (run.code, [found[2] for found in findings(run)]) == (1, ["outside"])


@pytest.mark.parametrize("way", ["../../secret.org", "link.org", "ABSOLUTE"])
@pytest.mark.parametrize("statement", ["include", "import", "extends"])
def test_a_template_includes_nothing_from_outside_of_the_folder(
    cas: Cas, home: Home, message: Callable[..., Path], way: str, statement: str
):
    secret = message(home.path / "secret.org", body="secret")
    Path("link.org").symlink_to(secret)
    way = way.replace("ABSOLUTE", str(secret))
    end = " as x" if statement == "import" else ""
    message("t.org.j2", body=f"{{% {statement} '{way}'{end} %}}\n")
    for form in ("{template: t.org.j2}", BODY.replace("* Hello", f"{{% {statement} '{way}'{end} %}}")):
        run = cas("validate", manifest(f"- {{id: a, destination: local.docs, message: {form}}}"))

        assert (run.code, [found[2] for found in findings(run)]) == (1, ["outside"])


def test_what_a_template_includes_is_an_input_of_the_plan(cas: Cas, message: Callable[..., Path]):
    message("t.org.j2", body="{% include 'parts/a.j2' %}")
    write("parts/a.j2", "* A\n")
    path = manifest("- {id: a, destination: local.docs, message: {template: t.org.j2}}")

    run = cas("plan", path, "--output", "json")

    assert [one["path"] for one in json.loads(run.out)["inputs"]] == ["m.yaml", "parts/a.j2", "t.org.j2"]


def test_a_template_that_never_ends_is_ended(cas: Cas, message: Callable[..., Path]):
    text = send("a", "when: \"(['x' * 99999999] * 9) | join | length > 1\"")

    run = cas("validate", manifest(text))

    assert (run.code, [found[2] for found in findings(run)]) == (1, ["template-limit"])
    assert "m.yaml:4:" in run.out


# Selection


def chosen(cas: Cas, *options: str) -> list[str]:
    """What is delivered of three sends, one of them a loop."""
    path = manifest(
        send("one", "tags: [x, slow]", to="[local.a, local.b]")
        + send("two", "tags: y, for_each: [p, q]", to="local.b", conversation='"two-{{ item }}"')
        + send("three", to="local.c")
    )
    return [name for name, one in planned(cas, path, *options).items() if one["action"] == "deliver"]


ALL = ["one@local.a", "one@local.b", "two[p]@local.b", "two[q]@local.b", "three@local.c"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ALL),
        (["--tags", "x"], ALL[:2]),
        (["--tags", "x,y"], ALL[:4]),
        (["--tags", "x", "--tags", "y"], ALL[:4]),
        (["--skip-tags", "slow"], ALL[2:]),
        (["--tags", "x,y", "--skip-tags", "slow"], ALL[2:4]),
        (["--only", "two"], ALL[2:4]),
        (["--only", "two[q]"], ALL[3:4]),
        (["--only", "one@local.b"], ALL[1:2]),
        (["--only", "one@local.b", "--only", "three"], [ALL[1], ALL[4]]),
        (["--limit", "local.b"], ALL[1:4]),
        (["--limit", "local.[ac]"], [ALL[0], ALL[4]]),
        (["--limit", "*.c", "--limit", "*.a"], [ALL[0], ALL[4]]),
        (["--limit", "local.b", "--tags", "x"], ALL[1:2]),
        (["--limit", "local.c", "--tags", "x"], []),
    ],
)
def test_a_selection_delivers_what_fits_and_leaves_the_rest_out(cas: Cas, options: list[str], expected: list[str]):
    assert chosen(cas, *options) == expected


def test_what_is_left_out_says_by_which_option(cas: Cas):
    found = planned(cas, manifest(send("a") + send("b")), "--only", "a")

    assert found["b@local.docs"]["reason"] == "left out by --only a"


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--tags", "sloow"], "did you mean `slow`?"),
        (["--skip-tags", "zzz"], "the tags there are: `slow`"),
        (["--only", "biuld"], "did you mean `build`?"),
        (["--limit", "forge.*"], "the destinations there are: `local.docs`"),
    ],
)
@pytest.mark.parametrize("verb", ["validate", "plan", "apply"])
def test_a_selection_that_fits_nothing_is_wrong_usage(cas: Cas, home: Home, verb: str, options: list[str], hint: str):
    run = cas(verb, manifest(send("build", "tags: [slow]")), *options)

    assert (run.code, [found[2] for found in findings(run)]) == (64, ["unknown-selection"])
    assert f"`{' '.join(options)}` fits nothing" in run.out + run.err
    assert f"hint: {hint}" in run.out + run.err
    assert not home.inbox("docs").exists()


def test_a_plan_names_what_it_was_made_from_alike_wherever_it_is_planned(cas: Callable[..., Run], home: Home):
    text = (
        "cas: 1\nsender: b\nsends:\n  - id: a\n    destination: local.docs\n    sign: false\n"
        "    message: {conversation: a, type: query, sequence: 1, body: x}\n"
    )
    Path("plays").mkdir()
    Path("plays/m.yaml").write_text(text, encoding="utf-8")

    plans = [
        cas("plan", path, "--output", "json").out for path in ("plays/m.yaml", str(Path("plays/m.yaml").resolve()))
    ]

    sources = {json.loads(plan)["deliveries"][0]["message"]["source"] for plan in plans}
    assert sources == {"m.yaml"}


def test_a_pattern_through_a_link_that_leads_outside_is_refused(cas: Callable[..., Run], home: Home):
    outside = home.projects / "outside"
    outside.mkdir(parents=True)
    (outside / "secret.org").write_text("x", encoding="utf-8")
    Path("out").symlink_to(outside)
    text = (
        'cas: 1\nsends:\n  - {id: a, destination: local.docs, message: "{{ item.path }}", for_each: {files: "out/*"}}\n'
    )
    Path("m.yaml").write_text(text, encoding="utf-8")

    run = cas("validate", "m.yaml")

    assert (run.code, "out/*` lies outside" in run.out) == (1, True)


def test_a_plan_of_two_folders_names_messages_from_the_folder_that_they_share(
    cas: Callable[..., Run], home: Home, message: Callable[..., Path]
):
    for number, folder in enumerate(("a", "b"), start=1):
        message(f"{folder}/hello.org", sequence=number)
        text = f"cas: 1\nsends: [{{id: {folder}, destination: local.docs, message: hello.org, sign: false}}]\n"
        Path(folder, "m.yaml").write_text(text, encoding="utf-8")

    run = cas("plan", "a/m.yaml", "b/m.yaml", "--output", "json")

    sources = [delivery["message"]["source"] for delivery in json.loads(run.out)["deliveries"]]
    assert sources == ["a/hello.org", "b/hello.org"]

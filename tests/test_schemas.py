"""The schemas, as other tools read them: each says the same of a file as cas does."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import test_invalid
from support import Home, Run

from cas import document, inventory, schema
from cas.diagnostics import InvalidInput

ROOT = Path(__file__).resolve().parent.parent
SCHEMAS = sorted((ROOT / "schemas").glob("*.schema.json"))
PEERS = json.loads((ROOT / "schemas" / "peers.schema.json").read_text(encoding="utf-8"))
FINGERPRINT = "SHA256:" + "aB3+/" * 8 + "xyz"

VALID_PEERS = {
    "empty": "",
    "empty-tables": "[peers]\n[projects]\n[groups]\n[policy]\n[senders]\n",
    "in-the-field": '[peers.ratio]\nhost = "r.net"\nssh_user = "agent"\n[projects.builder]\ninbox_path = "~/in"\n',
    "a-full-peer": (
        '[peers.forge]\nhost = "fe80::1%eth0"\nssh_user = "machine$"\nport = 65535\nidentity_file = "~/.ssh/forge"\n'
        f'transport = "rsync"\nhost_key = "{FINGERPRINT}"\n'
    ),
    **{f"by-{name}": f'[peers.x]\ntransport = "{name}"\n' for name in inventory.TRANSPORTS},
    "a-full-policy": "[policy]\nrequire_signed = true\nrequire_durable = false\nmax_deliveries = 0\nmax_bytes = 1\n",
    "the-largest-number": f"[policy]\nmax_bytes = {inventory.LARGEST_NUMBER}\n",
    "groups": '[groups]\nreviewers = ["laptop.docs", "forge.a.b"]\nall = ["@reviewers", "local.me"]\n',
    "senders": '[senders.builder]\nkeys = ["5CA7F1CE5E8E605E770C0236B4B61A2737D6A700"]\n',
    "root-slashes": '[projects.x]\ninbox_path = "//srv/in box/"\n',
    "umlaut": '[projects.x]\ninbox_path = "~/ä"\n',
    "unknown-table": "[pears]\n",
    "unknown-key": "[peers.x]\nhots = 1\n[policy]\nmax = 2\n[projects.y]\nweather = 3\nsun = []\n",
    "unnameable-peer": '[peers."../x"]\n',
    "peer-with-a-dot": "[peers.a.tailnet]\n",
}
INVALID_PEERS = {
    "peers-text": 'peers = "x"\n',
    "peers-list": "[[peers]]\n",
    "peer-number": "[peers]\nx = 7\n",
    "projects-date": "projects = 2026-11-23\n",
    "project-float": "[projects]\nx = 1.5\n",
    "policy-bool": "policy = true\n",
    "host-number": "[peers.x]\nhost = 7\n",
    "host-empty": '[peers.x]\nhost = ""\n',
    "host-option": '[peers.x]\nhost = "-oProxyCommand=id"\n',
    "host-command": '[peers.x]\nhost = "$(id)"\n',
    "host-newline": '[peers.x]\nhost = "a\\n"\n',
    "host-umlaut": '[peers.x]\nhost = "ä"\n',
    "user-bool": "[peers.x]\nssh_user = true\n",
    "user-option": '[peers.x]\nssh_user = "-l"\n',
    "user-newline": '[peers.x]\nssh_user = "a\\n"\n',
    "port-text": '[peers.x]\nport = "22"\n',
    "port-0": "[peers.x]\nport = 0\n",
    "port-65536": "[peers.x]\nport = 65536\n",
    "port-bool": "[peers.x]\nport = true\n",
    "port-fraction": "[peers.x]\nport = 22.5\n",
    "transport-unknown": '[peers.x]\ntransport = "ftp"\n',
    "transport-list": "[peers.x]\ntransport = []\n",
    "identity-relative": '[peers.x]\nidentity_file = "id"\n',
    "identity-home": '[peers.x]\nidentity_file = "~/"\n',
    "host-key-short": f'[peers.x]\nhost_key = "{FINGERPRINT[:-1]}"\n',
    "host-key-long": f'[peers.x]\nhost_key = "{FINGERPRINT}="\n',
    "inbox-relative": '[projects.x]\ninbox_path = "inbox"\n',
    "inbox-root": '[projects.x]\ninbox_path = "//"\n',
    "inbox-of-another": '[projects.x]\ninbox_path = "~me/in"\n',
    "inbox-escape": '[projects.x]\ninbox_path = "/a\\u001bb"\n',
    "inbox-newline": '[projects.x]\ninbox_path = "/a\\n"\n',
    "inbox-separator": '[projects.x]\ninbox_path = "/a\\u2028"\n',
    "inbox-number": "[projects.x]\ninbox_path = 1\n",
    "signed-number": "[policy]\nrequire_signed = 1\n",
    "durable-text": '[policy]\nrequire_durable = "no"\n',
    "deliveries-negative": "[policy]\nmax_deliveries = -1\n",
    "bytes-0": "[policy]\nmax_bytes = 0\n",
    "bytes-bool": "[policy]\nmax_bytes = true\n",
    "bytes-beyond-toml": "[policy]\nmax_bytes = 9223372036854775808\n",
}
# cas does not look into these tables where it has no use for them; an editor says it all the same.
INVALID_BY_SCHEMA = {
    "groups-list": "[[groups]]\n",
    "group-text": '[groups]\nall = "laptop.docs"\n',
    "group-number": "[groups]\nall = [7]\n",
    "group-machine": '[groups]\nall = ["laptop"]\n',
    "group-path": '[groups]\nall = ["laptop.../x"]\n',
    "senders-text": 'senders = "x"\n',
    "keys-text": '[senders.x]\nkeys = "AB"\n',
    "key-empty": '[senders.x]\nkeys = [""]\n',
}

VALID_MANIFESTS = {
    "smallest": "cas: 1\nsends: [{id: a, destination: local.docs, message: a.org}]\n",
    "fullest": (
        "cas: 1\nname: Release\nsender: builder\n"
        "defaults: {sign: {key: 5CA7F1CE5E8E605E770C0236B4B61A2737D6A700}, retry: {retries: 0, backoff: [0]}}\n"
        "sends:\n- {id: a, destination: [local.docs, local.site], message: {file: a.org}, sign: false,\n"
        "   retry: {retries: 100, backoff: [5, 86400], timeout: 3600}}\n"
    ),
    "words-that-look-like-others": "cas: 1\nname: no\nsends: [{id: on, destination: local.docs, message: a.org}]\n",
}
INVALID_MANIFESTS = {
    "a-list": "[]\n",
    "no-cas": "sends: [{id: a, destination: local.docs, message: a.org}]\n",
    "cas-2": "cas: 2\nsends: [{id: a, destination: local.docs, message: a.org}]\n",
    "cas-text": "cas: '1'\nsends: [{id: a, destination: local.docs, message: a.org}]\n",
    "no-sends": "cas: 1\n",
    "empty-sends": "cas: 1\nsends: []\n",
    "unknown-key": "cas: 1\nsned: 1\nsends: [{id: a, destination: local.docs, message: a.org}]\n",
    "no-id": "cas: 1\nsends: [{destination: local.docs, message: a.org}]\n",
    "unsafe-id": "cas: 1\nsends: [{id: a/b, destination: local.docs, message: a.org}]\n",
    "no-destination": "cas: 1\nsends: [{id: a, message: a.org}]\n",
    "destination-map": "cas: 1\nsends: [{id: a, destination: {}, message: a.org}]\n",
    "no-message": "cas: 1\nsends: [{id: a, destination: local.docs}]\n",
    "message-list": "cas: 1\nsends: [{id: a, destination: local.docs, message: [a.org]}]\n",
    "unknown-in-message": "cas: 1\nsends: [{id: a, destination: local.docs, message: {file: a.org, path: b}}]\n",
    "sign-text": "cas: 1\nsends: [{id: a, destination: local.docs, message: a.org, sign: nobody}]\n",
    "retries-101": "cas: 1\nsends: [{id: a, destination: local.docs, message: a.org, retry: {retries: 101}}]\n",
    "sender-dots": "cas: 1\nsender: a..b\nsends: [{id: a, destination: local.docs, message: a.org}]\n",
}


def written(folder: Path, texts: dict[str, str], suffix: str) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}{suffix}" for name in texts}
    for name, path in paths.items():
        path.write_text(texts[name], encoding="utf-8", newline="")
    return paths


def refused_by_the_tool(schema: str, *paths: Path) -> set[str]:
    """The files, without their endings, in which check-jsonschema finds something."""
    return {Path(name).stem for name in complained_of(schema, *paths)}


def complained_of(schema: str, *paths: Path) -> set[str]:
    """The files in which check-jsonschema finds something."""
    command = (sys.executable, "-m", "check_jsonschema", "--output-format", "json", "-vv", "--schemafile")
    run = subprocess.run(
        [*command, str(ROOT / "schemas" / f"{schema}.schema.json"), *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    report = json.loads(run.stdout)
    refused = {error["filename"] for error in report["errors"]}
    assert not report.get("parse_errors")
    assert {*report.get("checked_paths", ()), *report.get("successes", ()), *refused} == set(map(str, paths))
    return refused


def maps(node: Any) -> Iterator[Any]:
    """Every part of a schema that has properties."""
    if isinstance(node, dict):
        if isinstance(node.get("properties"), dict):
            yield node
        for child in node.values():
            yield from maps(child)


# All schemas


def test_there_are_schemas():
    assert {"manifest.schema.json", "peers.schema.json", "plan.schema.json"} <= {path.name for path in SCHEMAS}


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)
def test_a_schema_is_of_draft_7_which_editors_know(path: Path):
    schema = json.loads(path.read_text(encoding="utf-8"))

    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    jsonschema.Draft7Validator.check_schema(schema)


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)
def test_a_schema_is_printed_as_it_is_in_the_tree(cas: Callable[..., Run], home: Home, path: Path):
    run = cas("schema", path.name.removesuffix(".schema.json"))

    assert (run.code, json.loads(run.out)) == (0, json.loads(path.read_text(encoding="utf-8")))


# peers.toml


@pytest.mark.parametrize("text", VALID_PEERS.values(), ids=VALID_PEERS)
def test_what_cas_takes_as_peers_toml_the_schema_takes_too(text: str):
    inventory.parse(text.encode(), file="peers.toml")

    jsonschema.Draft7Validator(PEERS).validate(tomllib.loads(text))


@pytest.mark.parametrize("text", INVALID_PEERS.values(), ids=INVALID_PEERS)
def test_what_cas_refuses_in_peers_toml_the_schema_refuses_too(text: str):
    with pytest.raises(InvalidInput):
        inventory.parse(text.encode(), file="peers.toml")

    assert not jsonschema.Draft7Validator(PEERS).is_valid(tomllib.loads(text))


@pytest.mark.parametrize("text", INVALID_BY_SCHEMA.values(), ids=INVALID_BY_SCHEMA)
def test_the_schema_knows_what_groups_and_senders_hold(text: str):
    assert not jsonschema.Draft7Validator(PEERS).is_valid(tomllib.loads(text))


def test_check_jsonschema_says_the_same_of_peers_toml(tmp_path: Path):
    invalid = INVALID_PEERS | INVALID_BY_SCHEMA
    paths = written(tmp_path, VALID_PEERS | invalid, ".toml")

    assert refused_by_the_tool("peers", *paths.values()) == set(invalid)


def test_the_schema_of_peers_toml_has_the_tables_that_cas_knows():
    assert set(PEERS["properties"]) == set(inventory.TABLES)


def test_the_schema_of_peers_toml_has_the_keys_that_cas_knows():
    keys = {name: set(about["properties"]) for name, about in PEERS["definitions"].items() if "properties" in about}

    of_a_peer = {"ssh_user" if field.name == "user" else field.name for field in fields(inventory.Peer)}
    assert keys["peer"] == of_a_peer - {"name"}
    assert keys["policy"] == {field.name for field in fields(inventory.Policy)}
    assert keys["project"] == {"inbox_path"}


def test_an_unknown_key_of_peers_toml_is_nowhere_an_error():
    assert all(one.get("additionalProperties") is not False for one in maps(PEERS))


def test_every_property_of_peers_toml_has_a_description_and_examples_that_hold():
    for one in maps(PEERS):
        for name, about in one["properties"].items():
            about = PEERS["definitions"][about["$ref"].rpartition("/")[2]] if "$ref" in about else about
            assert about["description"], name
            for example in about["examples"]:
                jsonschema.Draft7Validator({**about, "definitions": PEERS["definitions"]}).validate(example)


# Manifests


def test_check_jsonschema_takes_every_playbook():
    assert refused_by_the_tool("manifest", *sorted((ROOT / "playbooks").glob("*.yaml"))) == set()


def test_check_jsonschema_says_the_same_of_manifests_as_cas(
    cas: Callable[..., Run], home: Home, message: Callable[..., Path]
):
    message("a.org")
    paths = written(Path(), VALID_MANIFESTS | INVALID_MANIFESTS, ".yaml")

    refused_by_cas = {name for name, path in paths.items() if cas("validate", path).code}

    assert refused_by_cas == set(INVALID_MANIFESTS)
    assert refused_by_the_tool("manifest", *paths.values()) == refused_by_cas


# What the tool reads as a whole number or a boolean, and cas as a text: its YAML has more of them.
READ_OTHERWISE = {
    "type-cas-float",
    "type-retries-float",
    "type-retries-octal",
    "type-retries-underscore",
    "type-sign-capital-false",
}


def test_check_jsonschema_finds_what_the_schema_refuses_in_the_corpus_and_nothing_else():
    manifest = json.loads((ROOT / "schemas" / "manifest.schema.json").read_bytes())
    refused, taken = set(), {}
    for case in test_invalid.CASES:
        path = case / "m.yaml" if case.is_dir() else case
        try:
            parsed = document.parse(path.read_bytes(), file=path.name)
        except InvalidInput:  # no YAML, or none that means the same everywhere
            continue
        taken[case.stem] = path
        refused |= {case.stem} if schema.check(parsed, manifest) else set()
    found = complained_of("manifest", *taken.values())
    by_the_tool = {name for name, path in taken.items() if str(path) in found}

    assert len(refused) > 50
    assert by_the_tool ^ refused == READ_OTHERWISE

"""peers.toml, and where a destination is."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cas.diagnostics import MOST_FINDINGS, Diagnostic, InvalidInput, Place, Severity
from cas.errors import ExitCode
from cas.inventory import EMPTY, LARGEST, MOST_PARTS, Destination, Inventory, Peer, Policy, parse, resolve

FINGERPRINT = "SHA256:" + "aB3+/" * 8 + "xyz"
FIELD = """\
[peers.ratio]                 # a machine
host = "ratio.tailnet.ts.net"
ssh_user = "agent"

[peers.forge]

[projects.builder]
inbox_path = "~/src/builder/inbox"
"""


def read(text: str | bytes) -> tuple[Inventory, tuple[Diagnostic, ...]]:
    return parse(text.encode() if isinstance(text, str) else text, file="peers.toml")


def parsed(text: str) -> Inventory:
    inventory, warnings = read(text)
    assert warnings == ()
    return inventory


def warning(text: str) -> Diagnostic:
    _, (found,) = read(text)
    assert found.severity is Severity.WARNING
    return found


def findings(text: str | bytes) -> tuple[Diagnostic, ...]:
    with pytest.raises(InvalidInput) as caught:
        read(text)
    assert caught.value.exit_code is ExitCode.ERROR
    return caught.value.diagnostics


def finding(text: str | bytes) -> Diagnostic:
    (found,) = findings(text)
    return found


def resolved(target: str, text: str = FIELD, hostname: str = "laptop") -> Destination:
    return resolve(parsed(text), target, hostname=hostname, place=None)


def refused(target: str, text: str = FIELD, place: Place | None = None) -> Diagnostic:
    with pytest.raises(InvalidInput) as caught:
        resolve(parsed(text), target, hostname="laptop", place=place)
    assert caught.value.exit_code is ExitCode.DESTINATION
    (found,) = caught.value.diagnostics
    return found


# What it says


def test_a_file_as_it_is_in_the_field_keeps_working():
    inventory = parsed(FIELD)

    assert inventory.file == "peers.toml"
    assert inventory.peers == {
        "ratio": Peer(name="ratio", host="ratio.tailnet.ts.net", user="agent"),
        "forge": Peer(name="forge", host="forge"),
    }
    assert inventory.inboxes == {"builder": "~/src/builder/inbox"}
    assert inventory.policy == Policy()


def test_a_peer_may_say_everything():
    text = (
        '[peers.forge]\nhost = "10.0.0.7"\nssh_user = "me"\nport = 2222\nidentity_file = "~/.ssh/forge"\n'
        f'transport = "rsync"\nhost_key = "{FINGERPRINT}"\n'
    )

    assert parsed(text).peers["forge"] == Peer(
        name="forge",
        host="10.0.0.7",
        user="me",
        port=2222,
        identity_file="~/.ssh/forge",
        transport="rsync",
        host_key=FINGERPRINT,
    )


@pytest.mark.parametrize("text", ["", "# nothing\n", "[peers]\n[projects]\n", "\r\n"])
def test_an_empty_file_is_an_empty_inventory(text):
    assert parsed(text) == EMPTY


def test_a_policy_may_say_everything():
    text = "[policy]\nrequire_signed = true\nrequire_durable = true\nmax_deliveries = 0\nmax_bytes = 4096\n"

    assert parsed(text).policy == Policy(require_signed=True, require_durable=True, max_deliveries=0, max_bytes=4096)


def test_without_a_policy_a_message_is_one_mebibyte_at_most_and_nothing_else_is_required():
    assert EMPTY.policy == Policy(require_signed=False, require_durable=False, max_deliveries=None, max_bytes=1_048_576)


def test_windows_line_ends_do_not_matter():
    assert parsed(FIELD.replace("\n", "\r\n")) == parsed(FIELD)


def test_groups_and_senders_are_known_by_name():
    key = "5CA7F1CE5E8E605E770C0236B4B61A2737D6A700"
    inventory = parsed(f'[groups]\nall = ["forge.site"]\n[senders.builder]\nkeys = ["0x{key.lower()}"]\n')

    assert inventory.senders == {"builder": frozenset({key})}


def test_a_key_that_is_no_whole_fingerprint_speaks_for_nobody():
    found = warning('[senders.builder]\nkeys = ["builder@example.org"]\n')

    assert (found.code, found.place.line) == ("short-key", 2)
    assert "counts for nothing" in found.message
    assert read('[senders.builder]\nkeys = ["AB"]\n')[0].senders == {"builder": frozenset()}


@pytest.mark.parametrize("value", ["3", '"AB"', "[3]", '[""]'])
def test_the_keys_of_a_sender_are_a_list_of_texts(value: str):
    (found,) = findings(f"[senders.builder]\nkeys = {value}\n")

    assert found.code == "invalid-peers"


def test_a_project_without_an_inbox_has_the_usual_one():
    assert parsed("[projects.builder]\n").inboxes == {}


@pytest.mark.parametrize(
    ("host", "user"),
    [("ratio", "agent"), ("10.0.0.7", "_www"), ("fe80::1%eth0", "a.b"), ("::1", "a+b@c"), ("a_b-c", "machine$")],
)
def test_hosts_are_names_or_addresses_and_users_are_what_systems_allow(host, user):
    peer = parsed(f'[peers.x]\nhost = "{host}"\nssh_user = "{user}"\n').peers["x"]

    assert (peer.host, peer.user) == (host, user)


@pytest.mark.parametrize(
    ("said", "inbox"), [("/a", "/a"), ("~/a/", "~/a"), ("/srv/in box", "/srv/in box"), ("~/ä", "~/ä")]
)
def test_an_inbox_is_absolute_or_in_the_home(said, inbox):
    assert parsed(f'[projects.p]\ninbox_path = "{said}"\n').inboxes == {"p": inbox}


@pytest.mark.parametrize("port", [1, 22, 65535])
def test_a_port_is_a_number_from_1_to_65535(port):
    assert parsed(f"[peers.x]\nport = {port}\n").peers["x"].port == port


# What is unknown is a warning


@pytest.mark.parametrize(
    ("text", "message", "line", "hint"),
    [
        ("\n[peer.x]\n", "`peer` is not known, and counts for nothing", 2, "did you mean `peers`?"),
        ("[peers.x]\n\nhots = 1\n", "`peers.x.hots` is not known, and counts for nothing", 3, "did you mean `host`?"),
        ("[projects.x]\nweather = 1\n", "`projects.x.weather` is not known, and counts for nothing", 2, None),
        ("[policy]\nmax = 1\n", "`policy.max` is not known, and counts for nothing", 2, None),
        ("version = 1\n", "`version` is not known, and counts for nothing", 1, None),
        ('[peers.x]\n"odd key" = 1\n', "`peers.x.odd key` is not known, and counts for nothing", 2, None),
        ("[peers.a.tailnet]\n", "`peers.a.tailnet` is not known, and counts for nothing", 1, None),
    ],
)
def test_a_key_that_is_not_known_is_a_warning_with_its_line(text, message, line, hint):
    found = warning(text)

    assert (found.code, found.message, found.place.line, found.hint) == ("unknown-key", message, line, hint)


@pytest.mark.parametrize("name", ["a.b", "../x", "-x", "", "a b"])
def test_a_peer_that_no_destination_could_name_is_a_warning(name):
    found = warning(f'[peers."{name}"]\n')

    assert "names no machine" in found.message
    assert found.place.line == 1


def test_warnings_come_along_with_errors():
    found = findings("[peers.x]\nport = 0\nhots = 1\n")

    assert [(one.severity, one.place.line) for one in found] == [(Severity.ERROR, 2), (Severity.WARNING, 3)]


# What is wrong


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ('peers = "x"', "`peers` is a text, not a table", 1),
        ("[[peers]]\n", "`peers` is a list, not a table", 1),
        ("[peers]\nx = 7\n", "`peers.x` is a number, not a table", 2),
        ("[projects]\n\nx = 1.5\n", "`projects.x` is a number, not a table", 3),
        ("policy = true\n", "`policy` is true or false, not a table", 1),
        ("projects = 2026-11-23\n", "`projects` is a date or time, not a table", 1),
        ("[peers.x]\nhost = 7\n", "`peers.x.host` is `7`, not a host's name or address", 2),
        ("[peers.x]\nhost = {}\n", "`peers.x.host` is a table, not a host's name or address", 2),
        ("[peers.x]\nssh_user = true\n", "`peers.x.ssh_user` is true or false, not a user's name", 2),
        ('[peers.x]\nport = "22"\n', "`peers.x.port` is `22`, not a port from 1 to 65535", 2),
        ("[peers.x]\nport = 0\n", "`peers.x.port` is `0`, not a port from 1 to 65535", 2),
        ("[peers.x]\nport = 65536\n", "`peers.x.port` is `65536`, not a port from 1 to 65535", 2),
        ("[peers.x]\nport = true\n", "`peers.x.port` is true or false, not a port from 1 to 65535", 2),
        ('[peers.x]\ntransport = "ftp"\n', "`peers.x.transport` is `ftp`, not one of auto, python, sftp, rsync", 2),
        ("[peers.x]\ntransport = []\n", "`peers.x.transport` is a list, not one of auto, python, sftp, rsync", 2),
        ("[policy]\nrequire_signed = 1\n", "`policy.require_signed` is `1`, not true or false", 2),
        ('[policy]\nrequire_durable = "no"\n', "`policy.require_durable` is `no`, not true or false", 2),
        ("[policy]\nmax_deliveries = -1\n", "`policy.max_deliveries` is `-1`, not a whole number from 0", 2),
        ("[policy]\nmax_bytes = 0\n", "`policy.max_bytes` is `0`, not a whole number from 1", 2),
        ("[policy]\nmax_bytes = true\n", "`policy.max_bytes` is true or false, not a whole number from 1", 2),
    ],
)
def test_a_value_that_does_not_fit_is_an_error_with_its_line(text, message, line):
    found = finding(text)

    assert (found.code, found.message, found.place.line) == ("invalid-peers", message, line)


@pytest.mark.parametrize(
    "host", ["", "-", "-v", "-oProxyCommand=id", "a b", "a\\tb", "a\\nb", "a;b", "a/b", "me@a", "$(id)", "\\u001b", "ä"]
)
def test_a_host_that_could_be_an_option_or_a_command_is_refused(host):
    assert "peers.x.host" in finding(f'[peers.x]\nhost = "{host}"\n').message


@pytest.mark.parametrize("user", ["", "-l", "a b", "a\\nb", "a:b", "a/b", "$USER", "a;b", "\\u0000"])
def test_a_user_that_could_be_an_option_or_a_command_is_refused(user):
    assert "peers.x.ssh_user" in finding(f'[peers.x]\nssh_user = "{user}"\n').message


@pytest.mark.parametrize(
    "path",
    [
        "",
        "inbox",
        "./inbox",
        "-inbox",
        "~",
        "~/",
        "/",
        "//",
        "~me/inbox",
        "/a\\nb",
        "/a\\u001bb",
        "/a\\u0000",
        "/a\\u2028",
    ],
)
def test_an_inbox_that_is_relative_or_holds_control_characters_is_refused(path):
    found = finding(f'[projects.x]\ninbox_path = "{path}"\n')

    assert "projects.x.inbox_path" in found.message
    assert found.place.line == 2


@pytest.mark.parametrize("path", ["id", "-i", "~", "/a\\nb"])
def test_an_identity_file_that_is_relative_or_holds_control_characters_is_refused(path):
    assert "peers.x.identity_file" in finding(f'[peers.x]\nidentity_file = "{path}"\n').message


@pytest.mark.parametrize("key", ["", "SHA256:", "MD5:aa:bb", FINGERPRINT + "=", FINGERPRINT[:-1], FINGERPRINT.lower()])
def test_a_host_key_is_a_fingerprint_as_ssh_keygen_prints_it(key):
    assert "peers.x.host_key" in finding(f'[peers.x]\nhost_key = "{key}"\n').message


def test_a_long_value_is_shown_by_its_beginning():
    assert len(finding('[peers.x]\ntransport = "' + "a" * 5_000 + '"\n').message) < 200


@pytest.mark.parametrize("value", ["0x" + "f" * 5_000, "0b" + "1" * 99, str(1 << 63)])
def test_a_number_beyond_those_of_toml_is_refused(value):
    assert "max_bytes" in finding(f"[policy]\nmax_bytes = {value}\n").message


def test_all_errors_come_at_once():
    text = "[peers.x]\nport = 0\n[peers.y]\nport = 0\n[projects.z]\ninbox_path = 1\n[policy]\nmax_bytes = 0\n"

    assert [one.place.line for one in findings(text)] == [2, 4, 6, 8]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[peers]\nx.port = 0\n", 2),
        ("[peers]\n\nx = {port = 0}\n", 3),
        ("\npeers.x.port = 0\n", 2),
        ("peers = {x = {port = 0}}\n", 1),
        ('[ "peers" . "x" ]\n  "port" = 0\n', 2),
        ("[peers.y]\nport = 1\n[peers.x]\nport = 0\n", 4),
        ("[peers.'x']\n'port' = 0\n", 2),
    ],
)
def test_a_line_is_found_in_every_notation_or_else_that_of_what_is_around(text, line):
    assert finding(text).place.line == line


def test_a_line_that_cannot_be_found_leaves_the_file():
    assert finding('"\\u0070eers" = 1\n').place == Place(file="peers.toml")


@pytest.mark.parametrize(
    "text",
    [
        "[peers",
        "a = ",
        "a = 1\na = 2\n",
        "[a]\n[a]\n",
        "a = 1_",
        "x",
        "a = '",
        "a = 2026-13-01",
        "a = \x00",
        'a = "\\q"',
    ],
)
def test_what_is_not_toml_is_an_error_with_its_line(text):
    found = finding("\n" + text)

    assert found.code == "invalid-peers"
    assert found.message.startswith("not TOML: ")
    assert "(at line" not in found.message
    assert found.place.line in (2, 3, None)


def test_what_is_not_toml_has_its_line_and_column():
    assert finding("[peers.x]\nhost = yes\n").place == Place(file="peers.toml", line=2, column=8)


@pytest.mark.parametrize("text", ["a = " + "[" * 10_000, "a = " + "9" * 10_000, "a = " + "{a=" * 10_000])
def test_a_file_that_would_exhaust_the_parser_is_an_error(text):
    assert finding(text).message.startswith("not TOML: ")


def test_a_file_that_is_not_utf_8_is_an_error_with_its_line():
    found = finding(b"[peers.x]\nhost = '\xff'\n")

    assert found.message == "byte 19 is not UTF-8"
    assert found.place == Place(file="peers.toml", line=2)


@settings(deadline=None)
@given(st.binary())
def test_any_bytes_are_an_inventory_or_invalid_input(content):
    try:
        inventory, warnings = parse(content, file="peers.toml")
    except InvalidInput:
        return
    assert isinstance(inventory, Inventory)
    assert all(found.severity is Severity.WARNING for found in warnings)


TOML_VALUE = st.sampled_from(
    ["1", "-1", "true", '"x"', '"-x"', '"~/x"', "[]", "{}", "1.5", "nan", "2026-11-23", "0xfff"]
)
TOML_KEY = st.sampled_from(["host", "port", "ssh_user", "inbox_path", "max_bytes", "peers", "x", '"a b"', "x.y", '"["'])
TOML_LINE = st.builds("{} = {}\n".format, TOML_KEY, TOML_VALUE) | st.sampled_from(
    ["[peers.x]\n", "[peers]\n", "[[peers]]\n", "[projects.x]\n", "[policy]\n", "[groups]\n", '[peers."["]\n', "\r\n"]
)


@settings(deadline=None, max_examples=300)
@given(st.lists(TOML_LINE, max_size=8).map("".join))
def test_any_toml_is_an_inventory_or_invalid_input(text):
    with suppress(InvalidInput):
        read(text)


# Where a destination is


def test_a_peers_project_is_resolved_with_all_that_the_peer_says():
    text = (
        '[peers.ratio]\nhost = "r.net"\nport = 7\nidentity_file = "~/k"\n'
        f'transport = "rsync"\nhost_key = "{FINGERPRINT}"\n'
    )

    assert resolved("ratio.docs", text) == Destination(
        address="ratio.docs",
        host="r.net",
        port=7,
        user=None,
        inbox="~/projects/docs/inbox/from-agents",
        transport="rsync",
        identity_file="~/k",
        host_key=FINGERPRINT,
    )


def test_what_was_not_said_stays_unsaid():
    destination = resolved("forge.site")

    assert (destination.host, destination.port, destination.user) == ("forge", None, None)
    assert (destination.identity_file, destination.host_key) == (None, None)
    assert destination.transport == "auto"


def test_a_project_with_an_inbox_of_its_own_has_it_on_every_machine():
    assert resolved("local.builder").inbox == "~/src/builder/inbox"
    assert resolved("ratio.builder").inbox == "~/src/builder/inbox"


@pytest.mark.parametrize("target", ["local.docs", "laptop.docs"])
def test_this_machine_is_local_under_either_name(target):
    assert resolved(target) == Destination(
        address="local.docs",
        host=None,
        port=None,
        user=None,
        inbox="~/projects/docs/inbox/from-agents",
        transport="local",
        identity_file=None,
        host_key=None,
    )


def test_this_machine_is_local_even_where_it_is_listed_as_a_peer():
    assert resolved("ratio.docs", hostname="ratio").address == "local.docs"


def test_this_machine_needs_no_peers_file():
    assert resolve(EMPTY, "local.docs", hostname="laptop", place=None).transport == "local"


def test_a_destination_is_split_at_its_first_dot():
    destination = resolved("ratio.docs.example.org")

    assert destination.address == "ratio.docs.example.org"
    assert destination.inbox == "~/projects/docs.example.org/inbox/from-agents"


@pytest.mark.parametrize("target", ["", ".", "docs", ".docs", "ratio.", "ratio", "../x.docs"])
def test_what_is_not_machine_and_project_is_malformed(target):
    found = refused(target)

    assert found.code == "malformed-destination"
    assert found.message == f"`{target}` is not of the form <machine>.<project>"


@pytest.mark.parametrize("target", ["ratio", "local"])
def test_a_machine_without_a_project_is_asked_for_one(target):
    assert refused(target).hint == f"say which project: `{target}.<project>`"


@pytest.mark.parametrize(
    "target",
    [
        *(
            "ratio..",
            "ratio.../x",
            "local.../../etc",
            "local.a/b",
            "local./etc",
            "local.a..b",
            "local.-rf",
            "local..hidden",
        ),
        *("-oProxyCommand=x.docs", "a/b.docs", "ra tio.docs", "local.a b", "local.a\n", "local.a\x00"),
        *(
            "local.\x1b]0;x",
            "local.ä",
            "ä.docs",
            "local." + "a" * 300,
            "a" * 300 + ".docs",
            "@reviewers.x",
            "local.a\u2028",
        ),
    ],
)
def test_a_hostile_destination_is_refused(target):
    assert refused(target).code == "unsafe-destination"


def test_an_unknown_peer_lists_the_known_ones():
    found = refused("weather.docs")

    assert found.code == "unknown-peer"
    assert found.message == "no peer `weather` in `peers.toml`; the peers there are: `forge`, `ratio`"
    assert found.hint == "add a table [peers.weather], or take `local` for this machine"


def test_an_unknown_peer_that_is_near_to_a_known_one_gets_a_suggestion():
    assert refused("ration.docs").hint == "did you mean `ratio`?"
    assert refused("locale.docs").hint == "did you mean `local`?"


def test_without_peers_that_is_said():
    assert refused("ratio.docs", "").message.endswith("the peers there are: none")


def test_a_destination_that_is_not_found_has_the_place_where_it_is_written():
    place = Place(file="release.yaml", line=4, column=18)

    assert refused("weather.docs", place=place).place == place


def test_a_file_that_is_too_large_for_peers_is_not_read():
    (found,) = findings("#" * (LARGEST + 1))

    assert (found.code, found.hint) == ("too-large", "it names peers, not messages")


def test_a_key_of_too_many_parts_is_told_with_its_line():
    (found,) = findings("[policy]\n" + "a." * (MOST_PARTS + 1) + "a = 1\n")

    assert (found.code, found.place.line) == ("invalid-peers", 2)
    assert "more than 50 parts" in found.message


def test_errors_and_warnings_end_where_nobody_reads_on():
    wrong = "".join(f"[peers.p{number}]\nhost = 1\n" for number in range(2 * MOST_FINDINGS))
    unknown = "".join(f"k{number} = 1\n" for number in range(2 * MOST_FINDINGS))

    assert len(findings(wrong)) == MOST_FINDINGS
    assert len(read(unknown)[1]) == MOST_FINDINGS


def test_groups_that_double_one_another_are_refused_before_they_are_written_out():
    doubling = "".join(f'g{number + 1} = ["@g{number}", "local.x{number}"]\n' for number in range(1_000))

    (found,) = findings('[groups]\ng0 = ["local.a"]\n' + doubling)

    assert (found.code, found.hint) == ("invalid-peers", "put fewer groups into each other")


def test_of_warnings_in_several_tables_no_more_are_told_than_anybody_reads():
    many = "".join(f"k{number} = 1\n" for number in range(MOST_FINDINGS - 1))

    _, warnings = read(f"[policy]\n{many}\n[projects.docs]\n{many}")

    assert len(warnings) == MOST_FINDINGS

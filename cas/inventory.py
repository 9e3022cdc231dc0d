"""The inventory: peers.toml into who is where, and a destination's text into an inbox. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from itertools import islice
from typing import Any

from cas.diagnostics import MOST_FINDINGS, Diagnostic, InvalidInput, Place, Severity, decoded, listed, suggestion
from cas.errors import ExitCode
from cas.names import NAME_RULE, full_fingerprint, is_machine, is_name

LOCAL = "local"
GROUP = "@"
MEBIBYTE = 1 << 20
TRANSPORTS = ("auto", "python", "sftp", "rsync")
TABLES = ("peers", "projects", "groups", "policy", "senders")
HOST = re.compile(r"[A-Za-z0-9:_][A-Za-z0-9.:_%-]*", re.ASCII)
USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]*\$?", re.ASCII)
HOST_KEY = re.compile(r"SHA256:[A-Za-z0-9+/]{43}", re.ASCII)
PLAIN = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
LARGEST_NUMBER = (1 << 63) - 1  # TOML's own bound, which tomllib does not keep
LONGEST_SHOWN = 60
LARGEST = 1 << 20  # ten thousand peers; tomllib is slow
MOST_PARTS = 50
MOST_MEMBERS = 100_000
PART = r"(?:[\w-]++|\"(?:[^\"\\\n]|\\.)*+\"|'[^'\n]*+')"
KEY = rf"[ \t]*+({PART}(?:[ \t]*+\.[ \t]*+{PART})*+)[ \t]*+"
HEADER_LINE, KEY_LINE = re.compile(rf"\s*+\[{{1,2}}{KEY}\]"), re.compile(rf"{KEY}=")
# tomllib keeps every prefix of a dotted key, so that one of a few kilobytes takes all memory.
MANY_PARTS = re.compile(rf"(?:^|[\[{{,])[ \t]*+(?:{PART}[ \t]*+\.[ \t]*+){{{MOST_PARTS}}}", re.MULTILINE)
AT_END = "(at end of document)"
TOML_PLACE = re.compile(r" \(at line (\d+), column (\d+)\)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another machine. What was not said is None: SSH's configuration and the user's name fill it in later."""

    name: str
    host: str
    user: str | None = None
    port: int | None = None
    identity_file: str | None = None
    transport: str = "auto"
    host_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the configuration forbids, whatever a manifest says. `max_bytes` bounds one message.

    `seals`: the whole fingerprints of the keys one of which has to have sealed a bundle; None where that is not said.
    `senders`: "listed" where only the senders of [senders] are trusted, "any" where others are too; None: not said.
    `machines`: what others call this machine; empty where that is not said.
    `keyring`: a file with the only keys that verify, else those of gpg's own keyring do; may begin with `~/`.
    """

    require_signed: bool = False
    require_durable: bool = False
    max_deliveries: int | None = None
    max_bytes: int = MEBIBYTE
    seals: frozenset[str] | None = None
    senders: str | None = None
    keyring: str | None = None
    machines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """All that peers.toml says. `inboxes`: the inbox path of each project that has one of its own.

    `groups`: the destinations of each group, with those of the groups in it. `senders`: the full fingerprints of the
    keys that speak for each project that has a table there.
    """

    file: str
    peers: Mapping[str, Peer] = field(default_factory=dict)
    inboxes: Mapping[str, str] = field(default_factory=dict)
    policy: Policy = field(default_factory=Policy)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    senders: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def only_listed(self) -> bool:
        """Whether a sender without an entry in [senders] is not trusted. One entry makes the list exhaustive."""
        return self.policy.senders == "listed" or (self.policy.senders is None and bool(self.senders))

    def unfit(self, sender: str, key: str | None) -> str | None:
        """Why a delivery may not be signed by this key, None for unsigned, where [senders] has the sender."""
        keys = self.senders.get(sender)
        if keys is None or key in keys:
            return None
        table = f"[senders.{sender}] of `{self.file}`"
        return f"is signed by {key}, which {table} does not list" if key else f"is not signed, and {table} lists keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A resolved destination. `host` is None for this machine; `inbox` keeps its `~`."""

    address: str
    host: str | None
    port: int | None
    user: str | None
    inbox: str
    transport: str
    identity_file: str | None
    host_key: str | None

    @property
    def is_at(self) -> tuple[object, ...]:
        """Equal for destinations that are the same inbox, whatever they are called."""
        return (self.host, self.port, self.user, self.inbox)


EMPTY = Inventory(file="peers.toml")


def is_local(machine: str, hostname: str) -> bool:
    """Whether that is this machine, whatever peers.toml says of it; `hostname` is its short name."""
    return machine in (LOCAL, hostname)


def resolve(inventory: Inventory, target: str, *, hostname: str, place: Place | None) -> Destination:
    """Where `<machine>.<project>` is; `hostname` is this machine's short name. Raises InvalidInput, exit code 2."""
    machine, dot, project = target.partition(".")
    if not (dot and machine and project):
        reason = f"`{target}` is not of the form <machine>.<project>"
        hint = _completed(inventory, target)
        raise _no_destination("malformed-destination", reason, place, hint)
    if not is_machine(machine) or not is_name(project):
        raise _no_destination("unsafe-destination", f"`{target}` holds what no name may hold", place, NAME_RULE)
    inbox = inventory.inboxes.get(project, f"~/projects/{project}/inbox/from-agents")
    if is_local(machine, hostname):
        return Destination(
            address=f"{LOCAL}.{project}",
            host=None,
            port=None,
            user=None,
            inbox=inbox,
            transport=LOCAL,
            identity_file=None,
            host_key=None,
        )
    peer = inventory.peers.get(machine)
    if peer is None:
        raise _unknown_peer(inventory, machine, place)
    return at_peer(peer, address=target, inbox=inbox)


def at_peer(peer: Peer, *, address: str, inbox: str) -> Destination:
    """A destination on another machine."""
    return Destination(
        address=address,
        host=peer.host,
        port=peer.port,
        user=peer.user,
        inbox=inbox,
        transport=peer.transport,
        identity_file=peer.identity_file,
        host_key=peer.host_key,
    )


def _completed(inventory: Inventory, target: str) -> str:
    """What was perhaps meant by half a destination."""
    if target in (LOCAL, *inventory.peers):
        return f"say which project: `{target}.<project>`"
    if target in inventory.groups:
        return f"the group is written `{GROUP}{target}`"
    return (
        f"on this machine: `{LOCAL}.{target}`"
        if is_name(target) and "." not in target
        else "such as laptop.docs, or local.docs"
    )


def members(inventory: Inventory, text: str, *, place: Place | None) -> tuple[str, ...]:
    """The destinations of `@<group>`, or the one that a text is. Raises InvalidInput, exit code 2."""
    if not text.startswith(GROUP):
        return (text,)
    name = text.removeprefix(GROUP)
    if name in inventory.groups:
        return inventory.groups[name]
    known = listed(GROUP + one for one in inventory.groups)
    reason = f"no group `{name}` in `{inventory.file}`; the groups there are: {known}"
    hint = (
        suggestion(text, [GROUP + one for one in inventory.groups])
        or f'add it under [groups]: {name} = ["<machine>.<project>"]'
    )
    raise _no_destination("unknown-group", reason, place, hint)


def parse(content: bytes, *, file: str) -> tuple[Inventory, tuple[Diagnostic, ...]]:
    """peers.toml, with warnings for keys that are not known. Raises InvalidInput with every error."""
    import tomllib  # here: many have no peers.toml

    if len(content) > LARGEST:
        raise InvalidInput([_too_large(file)])
    text = decoded(content, Place(file=file), code="invalid-peers", hint=None)
    if many := MANY_PARTS.search(text):
        raise InvalidInput([_too_many_parts(text, many.start(), file)])
    try:
        tables = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise InvalidInput([_not_toml(error, text, file)]) from error
    reader = _Reader(text, file)
    peers = {
        name: _peer(name, reader.table(peer, "peers", name), reader) for name, peer in reader.tables(tables, "peers")
    }
    projects = {name: reader.table(project, "projects", name) for name, project in reader.tables(tables, "projects")}
    inboxes = {name: _inbox(name, project, reader) for name, project in projects.items()}
    policy = _policy(reader.table(tables.get("policy", {}), "policy"), reader)
    groups = _groups(reader.table(tables.get("groups", {}), "groups"), reader)
    senders = {
        name: _keys(name, reader.table(table, "senders", name), reader)
        for name, table in reader.tables(tables, "senders")
    }
    reader.unknown(tables, TABLES)
    errors = [found for found in reader.found if found.severity is Severity.ERROR]
    if errors:
        raise InvalidInput(reader.found)
    inboxes_said = {name: inbox for name, inbox in inboxes.items() if inbox is not None}
    inventory = Inventory(file=file, peers=peers, inboxes=inboxes_said, policy=policy, groups=groups, senders=senders)
    return inventory, tuple(reader.found)


class _Reader:
    """Takes values out of tables; what is wrong with them is collected in `found`, with the line where it stands.

    After MOST_FINDINGS errors InvalidInput is raised; further warnings are left out.
    """

    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file
        self.found: list[Diagnostic] = []

    def tables(self, tables: Mapping[str, Any], name: str) -> Iterator[tuple[str, Any]]:
        yield from self.table(tables.get(name, {}), name).items()

    def table(self, value: Any, *path: str) -> Mapping[str, Any]:
        if isinstance(value, dict):
            return value
        self.wrong(path, f"is {_kind(value)}, not a table")
        return {}

    def take(self, table: Mapping[str, Any], path: tuple[str, ...], fits: Callable[[Any], bool], expected: str) -> Any:
        """The value of the last part of `path`, where it is there and fits; None else."""
        value = table.get(path[-1])
        if value is None or fits(value):
            return value
        shown = (
            f"`{value[:LONGEST_SHOWN]}`" if isinstance(value, str) else f"`{value}`" if _whole(value) else _kind(value)
        )
        self.wrong(path, f"is {shown}, not {expected}")
        return None

    def unknown(self, table: Mapping[str, Any], known: tuple[str, ...], *path: str) -> None:
        # What more than MOST_FINDINGS would be suggested for, nobody sees.
        for key in islice((key for key in table if key not in known), MOST_FINDINGS):
            self.warn((*path, key), "is not known, and counts for nothing", suggestion(key, known))

    def warn(self, path: tuple[str, ...], reason: str, hint: str | None, code: str = "unknown-key") -> None:
        self._find(code, path, reason, hint, Severity.WARNING)

    def wrong(self, path: tuple[str, ...], reason: str, hint: str | None = None, code: str = "invalid-peers") -> None:
        self._find(code, path, reason, hint, Severity.ERROR)

    def _find(self, code: str, path: tuple[str, ...], reason: str, hint: str | None, severity: Severity) -> None:
        if sum(one.severity is severity for one in self.found) >= MOST_FINDINGS:
            if severity is Severity.ERROR:
                raise InvalidInput(self.found)
            return
        message, place = f"`{'.'.join(path)}` {reason}", self._place(path)
        self.found.append(Diagnostic(code=code, message=message, place=place, hint=hint, severity=severity))

    def _place(self, path: tuple[str, ...]) -> Place:
        """The line of a key, or else of what is around it; tomllib tells no places, so the text is searched."""
        lines = (self._lines.get(path[:length]) for length in range(len(path), 0, -1))
        return Place(file=self._file, line=next((line for line in lines if line), None))

    @cached_property
    def _lines(self) -> dict[tuple[str, ...], int]:
        """The first line of each table and key."""
        lines: dict[tuple[str, ...], int] = {}
        table: tuple[str, ...] = ()
        for number, line in enumerate(self._text.split("\n"), start=1):
            if header := HEADER_LINE.match(line):
                path = table = _parts(header[1])
            elif key := KEY_LINE.match(line):
                path = (*table, *_parts(key[1]))
            else:
                continue
            for length in range(1, len(path) + 1):
                lines.setdefault(path[:length], number)
        return lines


def _peer(name: str, table: Mapping[str, Any], reader: _Reader) -> Peer:
    if not is_machine(name):
        reader.warn(("peers", name), "names no machine that a destination could name", NAME_RULE)
    keys = ("host", "ssh_user", "port", "identity_file", "transport", "host_key")
    reader.unknown(table, keys, "peers", name)

    def take(key: str, fits: Callable[[Any], bool], expected: str) -> Any:
        return reader.take(table, ("peers", name, key), fits, expected)

    return Peer(
        name=name,
        host=take("host", _text(HOST), "a host's name or address") or name,
        user=take("ssh_user", _text(USER), "a user's name"),
        port=take("port", lambda value: _whole(value) and 1 <= value <= 65535, "a port from 1 to 65535"),
        identity_file=take("identity_file", _is_path, "a path that is absolute or begins with `~/`"),
        transport=take("transport", lambda value: value in TRANSPORTS, f"one of {', '.join(TRANSPORTS)}") or "auto",
        host_key=take("host_key", _text(HOST_KEY), "a fingerprint such as `SHA256:…` of ssh-keygen -l"),
    )


def _inbox(name: str, table: Mapping[str, Any], reader: _Reader) -> str | None:
    reader.unknown(table, ("inbox_path",), "projects", name)
    path: str | None = reader.take(
        table, ("projects", name, "inbox_path"), _is_path, "a path that is absolute or begins with `~/`"
    )
    return path.rstrip("/") if path else None


def _policy(table: Mapping[str, Any], reader: _Reader) -> Policy:
    keys = (
        "require_signed",
        "require_durable",
        "max_deliveries",
        "max_bytes",
        "seals",
        "senders",
        "keyring",
        "machines",
    )
    reader.unknown(table, keys, "policy")

    def take(key: str, fits: Callable[[Any], bool], expected: str) -> Any:
        return reader.take(table, ("policy", key), fits, expected)

    return Policy(
        require_signed=bool(take("require_signed", _is_bool, "true or false")),
        require_durable=bool(take("require_durable", _is_bool, "true or false")),
        max_deliveries=take("max_deliveries", lambda value: _whole(value) and value >= 0, "a whole number from 0"),
        max_bytes=take("max_bytes", lambda value: _whole(value) and value >= 1, "a whole number from 1") or MEBIBYTE,
        seals=_fingerprints(table, ("policy", "seals"), reader) if "seals" in table else None,
        senders=take("senders", lambda value: value in ("listed", "any"), "`listed` or `any`"),
        keyring=take("keyring", _is_path, "a path that is absolute or begins with `~/`"),
        machines=tuple(take("machines", _is_texts, "a list of names of machines") or ()),
    )


def _groups(table: Mapping[str, Any], reader: _Reader) -> dict[str, tuple[str, ...]]:
    """The destinations of each group; a group in a group is written `@name`, or by its bare name."""
    lists = {name: _members(name, table, reader) for name in table}
    inner = {name: [one.removeprefix(GROUP) for one in lists[name] if one.startswith(GROUP)] for name in lists}
    missing = ((name, group) for name, held in inner.items() for group in dict.fromkeys(held) if group not in lists)
    for name, group in missing:
        hint = suggestion(group, lists)
        reader.wrong(("groups", name), f"holds the group `{group}`, which is not there", hint, "unknown-group")
    try:
        order = list(TopologicalSorter(inner).static_order())
    except CycleError as error:
        circle = error.args[1][::-1][:-1]
        first = circle.index(min(circle))
        around = " → ".join((*circle[first:], *circle[:first], circle[first]))
        reader.wrong(("groups", circle[first]), f"holds itself: {around}", code="group-cycle")
        return {}
    return _flat([name for name in order if name in lists], lists, reader)


def _keys(name: str, table: Mapping[str, Any], reader: _Reader) -> frozenset[str]:
    """Whose signature speaks for a project."""
    reader.unknown(table, ("keys",), "senders", name)
    return _fingerprints(table, ("senders", name, "keys"), reader)


def _fingerprints(table: Mapping[str, Any], path: tuple[str, ...], reader: _Reader) -> frozenset[str]:
    """The keys of a list: whole fingerprints, as anybody may make a key with another's name."""
    found = reader.take(table, path, _is_texts, "a list of keys")
    whole = {key: full_fingerprint(key) for key in found or ()}
    for key in (key for key, fingerprint in whole.items() if fingerprint is None):
        reason = f"holds `{key[:LONGEST_SHOWN]}`, which is no whole fingerprint, and counts for nothing"
        reader.warn(path, reason, f"gpg --fingerprint -- '{key[:LONGEST_SHOWN]}'", "short-key")
    return frozenset(fingerprint for fingerprint in whole.values() if fingerprint)


def _members(name: str, table: Mapping[str, Any], reader: _Reader) -> list[str]:
    found = reader.take(table, ("groups", name), _is_texts, "a list of destinations and groups")
    return [one if "." in one or one.startswith(GROUP) else f"{GROUP}{one}" for one in found or ()]


def _flat(order: list[str], lists: Mapping[str, list[str]], reader: _Reader) -> dict[str, tuple[str, ...]]:
    """Each group's destinations, once each. `order`: a group after those that it holds."""
    flat: dict[str, tuple[str, ...]] = {}
    total = 0
    for name in order:
        members: dict[str, None] = {}
        for one in lists[name]:
            inside = flat.get(one.removeprefix(GROUP), ()) if one.startswith(GROUP) else (one,)
            total += len(inside)
            if total > MOST_MEMBERS:
                reason = f"makes more than {MOST_MEMBERS} destinations of all groups, written out"
                reader.wrong(("groups", name), reason, "put fewer groups into each other")
                return {}
            members.update(dict.fromkeys(inside))
        flat[name] = tuple(members)
    return {name: flat[name] for name in lists}


def _text(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_path(value: Any) -> bool:
    return _text(PLAIN)(value) and value.startswith(("/", "~/")) and value.rstrip("/") not in ("", "~")


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) and one for one in value)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_NUMBER


def _kind(value: Any) -> str:
    names = {str: "a text", int: "a number", float: "a number", bool: "true or false", list: "a list", dict: "a table"}
    return names.get(type(value), "a date or time")


def _parts(key: str) -> tuple[str, ...]:
    """The parts of a dotted key, without their quotes."""
    return tuple(part.strip("\"'") for part in re.findall(PART, key))


def _too_large(file: str) -> Diagnostic:
    message = f"`{file}` is larger than {LARGEST} bytes"
    return Diagnostic(code="too-large", message=message, place=Place(file=file), hint="it names peers, not messages")


def _too_many_parts(text: str, start: int, file: str) -> Diagnostic:
    line = text.count("\n", 0, start) + 1
    message = f"not TOML that cas reads: a key of more than {MOST_PARTS} parts"
    return Diagnostic(code="invalid-peers", message=message, place=Place(file=file, line=line))


def _not_toml(error: Exception, text: str, file: str) -> Diagnostic:
    told = TOML_PLACE.search(str(error))
    reason = "too deeply nested" if isinstance(error, RecursionError) else TOML_PLACE.sub("", str(error))
    line, column = (int(told[1]), int(told[2])) if told else (None, None)
    if reason.endswith(AT_END):
        line = text.rstrip("\n").count("\n") + 1
    return Diagnostic(
        code="invalid-peers",
        message=f"not TOML: {reason[:1].lower()}{reason[1:]}",
        place=Place(file=file, line=line, column=column),
    )


def _unknown_peer(inventory: Inventory, machine: str, place: Place | None) -> InvalidInput:
    near = suggestion(machine, (*inventory.peers, LOCAL))
    return _no_destination(
        "unknown-peer",
        f"no peer `{machine}` in `{inventory.file}`; the peers there are: {listed(inventory.peers)}",
        place,
        near or f"add a table [peers.{machine}], or take `{LOCAL}` for this machine",
    )


def _no_destination(code: str, message: str, place: Place | None, hint: str | None) -> InvalidInput:
    return InvalidInput(
        [Diagnostic(code=code, message=message, place=place, hint=hint, exit_code=ExitCode.DESTINATION)]
    )

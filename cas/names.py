"""Names: the grammar of what reaches a path, canonical file names, digests and identities. Pure."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from datetime import UTC, datetime, timedelta
from pathlib import PurePath

MACHINE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*", re.ASCII)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
LONGEST = 100
NAME_RULE = "letters, digits, `.`, `_` and `-`, beginning with a letter or digit, without `..`, at most 100"
CANONICAL = re.compile(r"\d{8}T\d{6}Z-from-[A-Za-z0-9][A-Za-z0-9._-]*\.org", re.ASCII)
LONGEST_CANONICAL = 240
SIGNATURE_SUFFIX = ".asc"
LEDGER = "ledger.sqlite"
FINGERPRINT = re.compile(r"[0-9A-F]{40}|[0-9A-F]{64}")
LAST_YEAR = 9999  # after it, no name could be later
MOMENT = "%Y%m%dT%H%M%SZ"
MOMENT_LENGTH = len("20261123T013133Z")


def is_machine(text: str) -> bool:
    """Whether a text can name a machine."""
    return len(text) <= LONGEST and MACHINE.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Whether a text can name a project, a sender or a conversation."""
    return len(text) <= LONGEST and NAME.fullmatch(text) is not None and ".." not in text


def full_fingerprint(text: str) -> str | None:
    """A key's fingerprint in one piece, as gpg prints it, where a text is a whole one, also in groups or after `0x`."""
    plain = text.upper().replace(" ", "").removeprefix("0X")
    return plain if FINGERPRINT.fullmatch(plain) else None


def nearest_name(text: str, longest: int = LONGEST) -> str:
    """A name made of a text, for a default: no accents, `-` for what no name may hold; empty where nothing is left."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    name = re.sub(r"\.{2,}", ".", re.sub(r"[^A-Za-z0-9._-]+", "-", plain))
    return name.lstrip("._-")[:longest].rstrip("._-")


def is_canonical(name: str) -> bool:
    """Whether a text has the form of a message's canonical name, with a time that there is."""
    if len(name) > LONGEST_CANONICAL or not CANONICAL.fullmatch(name) or ".." in name:
        return False
    try:
        return time_of(name).year < LAST_YEAR
    except ValueError:
        return False


def canonical_name(clock: datetime, sender: str, conversation: str) -> str:
    """`YYYYMMDDTHHMMSSZ-from-<sender>-<conversation>.org`, the time in UTC."""
    return f"{clock.astimezone(UTC).strftime(MOMENT)}-from-{sender}-{conversation}.org"


def signature_name(name: str) -> str:
    """The name of a message's signature."""
    return name + SIGNATURE_SUFFIX


def sender_in(name: str, conversation: str) -> str | None:
    """Who sent the message that has this canonical name, where it is of this conversation."""
    rest, end = name[MOMENT_LENGTH:].removeprefix("-from-"), f"-{conversation}.org"
    return rest.removesuffix(end) if is_canonical(name) and rest.endswith(end) else None


def time_of(name: str) -> datetime:
    """The time that a canonical name begins with. By hand: strptime takes ten times as long, and an inbox has many."""
    date, clock = name[:8], name[9:15]
    parts = date[:4], date[4:6], date[6:], clock[:2], clock[2:4], clock[4:]
    year, month, day, hour, minute, second = map(int, parts)
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC)


def later(name: str, seconds: int) -> str:
    """The same canonical name, so many seconds later."""
    return (time_of(name) + timedelta(seconds=seconds)).strftime(MOMENT) + name[MOMENT_LENGTH:]


def sender_of(folder: PurePath, projects: PurePath) -> str:
    """The project that a folder belongs to: the first part below `projects`, or else the folder's own name.

    Both are resolved already. The text may be unfit to be a name: that is for the caller to check.
    """
    if folder.is_relative_to(projects) and folder != projects:
        return folder.relative_to(projects).parts[0]
    return folder.name


def timestamp(moment: datetime) -> str:
    """`YYYY-MM-DDTHH:MM:SSZ`, in UTC; the year has four digits before 1000, too."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def digest(content: bytes) -> str:
    """`sha256:<64 hex digits>`."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def identity(
    sender: str, destination: str, conversation: str, sequence: int, digest: str, word: str | None = None
) -> str:
    """Who a delivery is: the same for the same message from the same sender to the same inbox, wherever it is planned.

    `destination` is normalised (`local.<project>` for this machine). `word` makes it one of a kind.
    """
    lines = ["cas-delivery-1", sender, destination, conversation, str(sequence), digest, *([word] if word else [])]
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()[:32]

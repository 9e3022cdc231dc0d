"""Patterns: the files beneath a root that one of a shell's patterns matches. Looks into directories."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import translate

from cas.root import Root

MAGIC = re.compile(r"[*?[]")
DEEPEST = 50
MOST_LOOKED_AT = 100_000


def matching(root: Root, pattern: str) -> list[str]:
    """The paths that a pattern matches, as glob.glob has it. Raises ValueError for a pattern that would go on and on.

    Raises OutsideError where a link on the way leads outside. Links lead into directories, in circles too: each further
    `*` may then double what there is to look at.
    """
    parts = pattern.split("/")
    if len(parts) > DEEPEST:
        raise ValueError(f"has more than {DEEPEST} levels")
    found, looked_at = [""], 0
    for level, part in enumerate(parts, start=1):
        following = []
        for path in found:
            for name, fits in _names(root, path, part, last=level == len(parts)):
                looked_at += 1
                if looked_at > MOST_LOOKED_AT:
                    raise ValueError(f"looks at more than {MOST_LOOKED_AT} files")
                if fits:
                    following.append(f"{path}{name}" if level == len(parts) else f"{path}{name}/")
        found = following
    return found


def _names(root: Root, path: str, part: str, *, last: bool) -> Iterator[tuple[str, bool]]:
    """The names that are looked at in one directory, and whether each fits this part of a pattern."""
    try:
        if not MAGIC.search(part):
            yield part, root.exists(path + part)
            return
        fits = re.compile(translate(part)).match
        for name, is_directory in root.entries(path):
            hidden = name.startswith(".") and not part.startswith(".")
            yield name, not hidden and fits(name) is not None and (last or is_directory)
    except OSError:  # no directory, or no right to look into it
        return

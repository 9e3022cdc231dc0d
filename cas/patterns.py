"""Patterns: the files below a folder that one of a shell's patterns matches. Looks into folders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from fnmatch import translate
from pathlib import Path

MAGIC = re.compile(r"[*?[]")
DEEPEST = 50
MOST_LOOKED_AT = 100_000


def matching(folder: Path, pattern: str) -> list[str]:
    """What a pattern matches, as glob.glob has it. Raises ValueError for a pattern that would go on and on.

    Links lead into folders, in circles too: each further `*` may then double what there is to look at.
    """
    parts = pattern.split("/")
    if len(parts) > DEEPEST:
        raise ValueError(f"has more than {DEEPEST} levels")
    found, looked_at = [""], 0
    for level, part in enumerate(parts, start=1):
        following = []
        for path in found:
            for name, fits in _names(folder, path, part, last=level == len(parts)):
                looked_at += 1
                if looked_at > MOST_LOOKED_AT:
                    raise ValueError(f"looks at more than {MOST_LOOKED_AT} files")
                if fits:
                    following.append(f"{path}{name}" if level == len(parts) else f"{path}{name}/")
        found = following
    return found


def _names(folder: Path, path: str, part: str, *, last: bool) -> Iterator[tuple[str, bool]]:
    """The names that are looked at in one folder, and whether each fits this part of a pattern."""
    try:
        if not MAGIC.search(part):
            yield part, os.path.lexists(folder / path / part)
            return
        fits = re.compile(translate(part)).match
        with os.scandir(folder / path) as entries:
            for entry in entries:
                hidden = entry.name.startswith(".") and not part.startswith(".")
                yield entry.name, not hidden and fits(entry.name) is not None and (last or entry.is_dir())
    except (OSError, ValueError):  # no folder, no right to look into it, no name
        return

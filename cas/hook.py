"""The hook: what an agent is told when its work begins, as its program takes it: JSON on both sides.

Nothing goes wrong here: an agent without this context works all the same. So errors are words on standard error.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from cas import inbox as folders
from cas.arrival import contents
from cas.errors import CasError, ExitCode
from cas.mail import archived, folder_of, marked, reader_for
from cas.output import inbox as inbox_view
from cas.output.console import Console
from cas.output.result import as_json
from cas.surroundings import Surroundings

LARGEST = 64 << 10
MOST_VERIFIED = 1000
"""The newest messages; more would keep the agent waiting."""


def inbox(project: str | None, around: Surroundings, console: Console) -> int:
    """The messages that an agent may act on, of the project in whose folder it works."""
    try:
        around = replace(around, folder=_folder(sys.stdin) or around.folder)
        reader = reader_for(around, console)
        folder = folder_of(project, reader.inventory, around)
        names = contents(folders.names(folder)).messages
        arrivals = [found for name in names[-MOST_VERIFIED:] if (found := reader.listed(folder / name))]
        arrivals = marked(arrivals, archived(reader, folder))
    except CasError as error:
        console.problem(f"note: no context for the agent: {error}")
        return ExitCode.OK
    if context := inbox_view.context(arrivals, older=len(names) - len(names[-MOST_VERIFIED:])):
        told = {"hookEventName": "SessionStart", "additionalContext": context}
        console.document(as_json({"hookSpecificOutput": told}))
    return ExitCode.OK


def _folder(stream: TextIO) -> Path | None:
    """Where the agent works, as `cwd` of what its program says on standard input; None where that says nothing."""
    if stream is None or stream.isatty():
        return None
    try:
        said = json.loads(stream.read(LARGEST))
        folder = Path(said["cwd"])
        return folder if folder.is_dir() else None
    except (ValueError, KeyError, TypeError, RecursionError, OSError):
        return None

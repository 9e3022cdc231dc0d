"""Findings: diagnostics into lines, as whoever reads a stream needs them. Reads the files that they speak of."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TextIO

from cas.diagnostics import Diagnostic, InvalidInput
from cas.output import diagnostics as diagnostic_view
from cas.output.annotations import annotation, defused

WIDTH = 80
RUNNERS = ("CI", "GITHUB_ACTIONS", "GITLAB_CI", "TF_BUILD", "TEAMCITY_VERSION", "JENKINS_URL", "BUILDKITE", "CIRCLECI")
"""Of these variables, one at least is set by every runner."""


def in_workflow(form: str, environment: Mapping[str, str]) -> bool:
    """Whether findings are to be annotations of GitHub's."""
    return form == "github" or environment.get("GITHUB_ACTIONS") == "true"


def obeyed(form: str, environment: Mapping[str, str], streams: Iterable[TextIO]) -> bool:
    """Whether a CI runner may read what is printed, so that a line of somebody else's could be a command to it."""
    if in_workflow(form, environment):
        return True
    runner = any(environment.get(name, "").lower() not in ("", "0", "false") for name in RUNNERS)
    return runner and not all(stream.isatty() for stream in streams)


def view(
    form: str, folder: Callable[[], Path], *, workflow: bool, defuse: bool
) -> Callable[[Diagnostic, TextIO], Iterable[str]]:
    """How a finding is shown on a stream: in a workflow as annotations, unless `form` says otherwise.

    `defuse`: whether a runner may obey a line.
    """
    source = cache(_source)

    def annotated(found: Diagnostic, stream: TextIO) -> Iterable[str]:
        del stream
        return [annotation(found, str(folder()))]

    def in_words(found: Diagnostic, stream: TextIO) -> Iterable[str]:
        if stream.isatty():
            lines: Iterable[str] = diagnostic_view.lines(found, source, width(stream))
        else:
            lines = [diagnostic_view.line(found)]
        return map(defused, lines) if defuse else lines

    return annotated if workflow and form != "text" else in_words


def width(stream: TextIO) -> int:
    """The columns of a terminal; 80 where there is none."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or WIDTH
    except (OSError, ValueError):
        return WIDTH


def _source(file: str) -> Sequence[str] | None:
    """A file's lines as they are counted in places; None where it is neither a manifest nor peers.toml."""
    from cas import loader  # here: most runs find nothing wrong

    try:
        content = loader.read(Path(file), loader.LARGEST_MANIFEST)
    except InvalidInput:
        return None
    if not loader.may_be_shown(Path(file), content):
        return None
    text = content.decode("utf-8", "replace")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")

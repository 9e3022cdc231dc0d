"""Reports of a run: where they are wanted, whether they can be written there, and writing them, each whole or not."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cas.diagnostics import Diagnostic, Severity
from cas.errors import UsageError, reason
from cas.output.record import Record
from cas.output.result import as_json, document, event_fields
from cas.output.visible import visible_json

FORMS = ("junit", "markdown", "json", "jsonl")
SUMMARY = "GITHUB_STEP_SUMMARY"
HINT = "name a file in a folder that is there, and may be written to"
STAYS = "what was delivered stays delivered; the exit code speaks of the deliveries"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One that is wanted. `page`: it is appended to what others write; `asked`: somebody named it."""

    form: str
    path: Path
    page: bool = False
    asked: bool = True


def wanted(asked: Iterable[str], environment: Mapping[str, str]) -> tuple[Report, ...]:
    """The reports that these `FORM=FILE` ask for, and the page of a workflow's step. Raises UsageError."""
    reports = [_wanted(one, environment) for one in asked]
    paths = [os.path.realpath(report.path) for report in reports]
    if doubled := next((path for path in paths if paths.count(path) > 1), None):
        raise UsageError(f"two reports are to be `{doubled}`", code="wrong-report", hint="give each a file of its own")
    if environment.get(SUMMARY) and all(report.form != "markdown" for report in reports):
        reports.append(Report(form="markdown", path=Path(environment[SUMMARY]), page=True, asked=False))
    return tuple(reports)


def unwritable(reports: Iterable[Report]) -> dict[Report, Diagnostic]:
    """Which of them cannot be written, and why; before anything is sent. A page nobody asked for stops nothing."""
    found = {}
    for report in reports:
        if report.asked:
            try:
                _probe(report)
            except OSError as error:
                found[report] = _refused(report, error, HINT, Severity.ERROR)
    return found


def write(reports: Iterable[Report], record: Record, exit_code: int) -> tuple[Diagnostic, ...]:
    """Write them all; the findings say which could not be."""
    found = []
    for report in reports:
        content = _content(report.form, record, exit_code)
        try:
            (_append if report.page else _replace)(report.path, content)
        except OSError as error:
            severity = Severity.ERROR if report.asked else Severity.WARNING
            found.append(_refused(report, error, STAYS, severity))
    return tuple(found)


def _wanted(asked: str, environment: Mapping[str, str]) -> Report:
    form, separator, path = asked.partition("=")
    if form not in FORMS:
        raise UsageError(f"no report has the form `{form}`", code="wrong-report", hint=f"there are: {', '.join(FORMS)}")
    if path:
        return Report(form=form, path=Path(path))
    if form == "markdown" and not separator and environment.get(SUMMARY):
        return Report(form=form, path=Path(environment[SUMMARY]), page=True)
    hint = f"such as `--report {form}=FILE`" + (f"; without FILE where {SUMMARY} is set" if form == "markdown" else "")
    raise UsageError(f"the report `{asked}` names no file", code="wrong-report", hint=hint)


def _probe(report: Report) -> None:
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(os.stat(report.path).st_mode):
            raise OSError("it is there, and no regular file")
    if report.page:
        _append(report.path, b"")
    else:
        os.unlink(_hidden(report.path, b"\n"))


def _append(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
    with open(handle, "ab") as file:
        file.write(content)


def _replace(path: Path, content: bytes) -> None:
    hidden = _hidden(path, content)
    try:
        os.replace(hidden, os.path.realpath(path))
    except OSError:
        os.unlink(hidden)
        raise


def _hidden(path: Path, content: bytes) -> Path:
    """A file beside the one that `path` leads to, with this in it, on disk."""
    hidden = Path(os.path.realpath(path)).parent / f".tmp.{secrets.token_hex(8)}"
    try:
        with open(os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            hidden.unlink()
        raise
    return hidden


def _content(form: str, record: Record, exit_code: int) -> bytes:
    match form:
        case "junit":
            from cas.output import junit

            return junit.document(record, exit_code)
        case "markdown":
            from cas.output import markdown

            return markdown.document(record, exit_code).encode()
        case _:
            result = document(record.command, record.plan, exit_code, record.halted, record.finished, record.found)
            lines = [*map(event_fields, record.events), result] if form == "jsonl" else [result]
            return "".join(f"{visible_json(as_json(line))}\n" for line in lines).encode()


def _refused(report: Report, error: OSError, hint: str, severity: Severity) -> Diagnostic:
    return Diagnostic(
        code="unwritable-report",
        message=f"the report `{report.path}` cannot be written: {reason(error)}",
        hint=hint,
        severity=severity,
    )

"""Reporting: a verb's work with its reports around it: refused before anything is sent, written whatever came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cas import reports
from cas.diagnostics import Diagnostic, InvalidInput
from cas.errors import CasError, ExitCode
from cas.output.console import Console
from cas.output.diagnostics import from_error
from cas.output.record import Record
from cas.signals import Interrupted
from cas.surroundings import Surroundings


def reported(
    command: str, asked: Sequence[str], around: Surroundings, console: Console, work: Callable[[], int]
) -> int:
    """Do the work, and write the reports; the exit code is that of the work. Raises what the work raises."""
    wanted = reports.wanted(asked, around.environment)
    record = console.record = Record(command=command, every_event=any(report.form == "jsonl" for report in wanted))
    code = int(ExitCode.ERROR)
    unwritable = reports.unwritable(wanted)
    try:
        if unwritable:
            raise InvalidInput(unwritable.values())
        code = work()
        return code
    except CasError as error:
        code = error.exit_code
        record.add(error.diagnostics if isinstance(error, InvalidInput) else [from_error(error)])
        record.halted = str(error) if code == ExitCode.HALT else record.halted
        raise
    except Interrupted as interruption:
        code = 128 + interruption.signal
        record.halted = f"interrupted by {interruption.signal.name}"
        record.add([Diagnostic(code="interrupted", message=record.halted)])
        raise
    except BaseException as error:
        record.halted = f"a fault of cas: {type(error).__name__}: {error}"
        record.add([Diagnostic(code="fault", message=record.halted)])
        raise
    finally:
        console.record = None
        console.report(reports.write([one for one in wanted if one not in unwritable], record, code))

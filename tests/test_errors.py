"""Exit codes, and the errors that carry them."""

from __future__ import annotations

import itertools
import pickle

import pytest

from cas.diagnostics import Diagnostic, InvalidInput, Place, Severity
from cas.errors import (
    PRECEDENCE,
    CasError,
    ExitCode,
    HaltError,
    SigningError,
    TransferError,
    UsageError,
    most_telling,
)


def test_exit_codes_are_those_that_callers_in_the_field_rely_on():
    codes = {code.name: code.value for code in ExitCode}

    assert codes == {
        "OK": 0,
        "ERROR": 1,
        "DESTINATION": 2,
        "DELIVERY": 3,
        "MESSAGE": 4,
        "HALT": 5,
        "REFUSED": 6,
        "TO_SEND": 10,
        "USAGE": 64,
    }


def test_without_any_cause_the_exit_code_is_0():
    assert most_telling([]) is ExitCode.OK
    assert most_telling([ExitCode.OK, ExitCode.OK]) is ExitCode.OK


def test_of_mixed_causes_the_first_of_5_6_4_2_3_1_counts():
    assert [int(code) for code in PRECEDENCE] == [5, 6, 4, 2, 3, 1]
    for first, second in itertools.combinations(PRECEDENCE, 2):
        assert most_telling([second, ExitCode.OK, first]) is first


@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [
        (CasError, ExitCode.ERROR),
        (UsageError, ExitCode.USAGE),
        (HaltError, ExitCode.HALT),
        (SigningError, ExitCode.ERROR),
    ],
)
def test_an_error_knows_its_words_its_code_its_hint_and_how_the_process_ends(kind, exit_code):
    error = kind("no key", code="no-key", hint="make one")

    assert (str(error), error.code, error.hint, error.exit_code) == ("no key", "no-key", "make one", exit_code)


def test_a_hint_may_be_missing():
    assert CasError("no key", code="no-key").hint is None


def test_a_transfer_error_says_whether_a_retry_can_mend_it():
    wrong_key = TransferError("host key changed", code="host-key", permanent=True, hint="compare the fingerprints")
    reset = TransferError("connection reset", code="reset", permanent=False)

    assert wrong_key.permanent
    assert not reset.permanent
    assert wrong_key.hint == "compare the fingerprints"


def test_an_error_from_another_process_is_whole():
    sent = TransferError("host key changed", code="host-key", permanent=True, hint="compare the fingerprints")

    error = pickle.loads(pickle.dumps(sent))

    assert (type(error), str(error)) == (TransferError, "host key changed")
    assert (error.code, error.permanent, error.hint) == ("host-key", True, "compare the fingerprints")


def test_what_is_wrong_in_the_input_comes_whole_from_another_process():
    place = Place(file="release.yaml", line=3, column=7)
    found = Diagnostic(code="x", message="y", place=place, hint="z", related=((place, "here"),))
    warning = Diagnostic(code="w", message="v", severity=Severity.WARNING)

    error = pickle.loads(pickle.dumps(InvalidInput([found, warning])))

    assert error.diagnostics == (found, warning)
    assert error.diagnostics[1].severity is Severity.WARNING
    assert (str(error), error.code, error.exit_code) == ("y", "invalid-input", ExitCode.ERROR)

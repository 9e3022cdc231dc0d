"""Findings about what the user wrote."""

from __future__ import annotations

import dataclasses

import pytest

from cas.diagnostics import LONGEST_WORDS, Diagnostic, InvalidInput, Place, Severity, suggestion
from cas.errors import ExitCode


def finding(message: str, exit_code: ExitCode = ExitCode.ERROR, severity: Severity = Severity.ERROR) -> Diagnostic:
    return Diagnostic(code="wrong", message=message, exit_code=exit_code, severity=severity)


def test_a_diagnostic_is_an_error_without_a_place_unless_it_says_otherwise():
    found = Diagnostic(code="wrong", message="it is wrong")

    assert found.severity is Severity.ERROR
    assert found.exit_code is ExitCode.ERROR
    assert (found.place, found.hint, found.related) == (None, None, ())


def test_a_diagnostic_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        finding("it is wrong").message = "it is right"


def test_a_place_may_be_a_whole_file():
    place = Place(file="release.yaml")

    assert (place.file, place.line, place.column) == ("release.yaml", None, None)


def test_invalid_input_says_all_of_its_errors():
    error = InvalidInput([finding("first"), finding("second")])

    assert str(error) == "first; second"
    assert error.code == "invalid-input"


def test_invalid_input_keeps_warnings_but_does_not_count_them():
    warning = finding("look here", ExitCode.MESSAGE, Severity.WARNING)
    error = InvalidInput(iter([warning, finding("wrong", ExitCode.DESTINATION)]))

    assert error.diagnostics[0] is warning
    assert len(error.diagnostics) == 2
    assert str(error) == "wrong"
    assert error.exit_code is ExitCode.DESTINATION


def test_invalid_input_ends_with_the_most_telling_of_its_codes():
    error = InvalidInput([finding("a", ExitCode.ERROR), finding("b", ExitCode.MESSAGE)])

    assert error.exit_code is ExitCode.MESSAGE


def test_a_mistyped_word_gets_the_nearest_known_one():
    assert suggestion("retires", ["destination", "retries", "retry"]) == "did you mean `retries`?"


def test_a_word_that_is_near_to_none_gets_no_suggestion():
    assert suggestion("weather", ["id", "sign"]) is None


def test_a_suggestion_does_not_depend_on_the_order_of_what_is_known():
    assert suggestion("pear", ["bear", "gear"]) == suggestion("pear", ["gear", "bear"])


def test_what_quotes_megabytes_keeps_their_beginning():
    found = Diagnostic(code="wrong", message="m" * 1_000_000, hint="h" * 1_000_000)

    assert found.message == "m" * LONGEST_WORDS + "…"
    assert found.hint == "h" * LONGEST_WORDS + "…"

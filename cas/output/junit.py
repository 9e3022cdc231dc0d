"""A run as JUnit's XML: a case for each delivery, and one for each error that kept it from its work."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from cas.diagnostics import Diagnostic
from cas.events import DeliveryFinished, Outcome
from cas.names import timestamp
from cas.output import diagnostics as diagnostic_view
from cas.output.record import Record
from cas.output.visible import visible

# What did not get there is red: a failure is its own, an error came from outside or is not known.
ELEMENTS = {
    Outcome.FAILED: "failure",
    Outcome.UNKNOWN: "error",
    Outcome.HALTED: "error",
    Outcome.BLOCKED: "error",
    Outcome.SKIPPED: "skipped",
}
NOT_IN_XML = re.compile("[\ufffe\uffff]")


def document(record: Record, exit_code: int) -> bytes:
    """The whole file."""
    totals = {
        "tests": len(record.finished) + len(record.errors),
        "failures": record.count(Outcome.FAILED),
        "errors": record.count(Outcome.UNKNOWN, Outcome.HALTED, Outcome.BLOCKED) + len(record.errors),
        "skipped": record.count(Outcome.SKIPPED),
        "time": record.duration,
    }
    attributes = {"name": f"cas {record.command}", **{name: str(value) for name, value in totals.items()}}
    root = ElementTree.Element("testsuites", {key: value for key, value in attributes.items() if key != "skipped"})
    moment = {"timestamp": timestamp(record.began).removesuffix("Z")} if record.began else {}
    suite = ElementTree.SubElement(root, "testsuite", {**attributes, **moment})
    _properties(suite, record, exit_code)
    for error in record.errors:
        _refusal(suite, record, error)
    for event in record.finished:
        _case(suite, record, event)
    if record.warnings:
        ElementTree.SubElement(suite, "system-err").text = _lines(*map(diagnostic_view.line, record.warnings))
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _properties(suite: ElementTree.Element, record: Record, exit_code: int) -> None:
    properties = ElementTree.SubElement(suite, "properties")
    values = {"exit_code": str(int(exit_code)), "plan": record.plan, "halted": record.halted}
    for name, value in values.items():
        if value is not None:
            ElementTree.SubElement(properties, "property", {"name": name, "value": _line(value)})


def _refusal(suite: ElementTree.Element, record: Record, error: Diagnostic) -> None:
    case = ElementTree.SubElement(
        suite, "testcase", {"classname": f"cas.{record.command}", "name": _line(error.code), "time": "0"}
    )
    child = ElementTree.SubElement(case, "error", {"type": _line(error.code), "message": _line(error.message)})
    child.text = _lines(diagnostic_view.line(error))


def _case(suite: ElementTree.Element, record: Record, event: DeliveryFinished) -> None:
    attributes = {"classname": _line(event.destination), "name": _line(event.id), "time": str(record.seconds(event))}
    case = ElementTree.SubElement(suite, "testcase", attributes)
    if event.outcome not in ELEMENTS:
        ElementTree.SubElement(case, "system-out").text = _lines(f"{event.outcome.value}: {_path(event)}")
        return
    message = {"message": _line(event.reason or event.outcome.value)}
    if event.outcome is Outcome.SKIPPED:
        ElementTree.SubElement(case, "skipped", message)
        return
    child = ElementTree.SubElement(case, ELEMENTS[event.outcome], {"type": event.outcome.value, **message})
    tries = [f"attempt {one.attempt}: {one.error}" for one in event.attempts]
    hint = [f"hint: {event.hint}"] if event.hint else []
    marker = [f"marker: {event.marker}"] if event.marker else []
    child.text = _lines(f"{event.outcome.value}: {event.reason}", f"to: {_path(event)}", *tries, *hint, *marker)


def _path(event: DeliveryFinished) -> str:
    return "/".join((event.where, *event.files[-1:]))


def _line(text: str) -> str:
    """One line that XML can hold: what it cannot is shown as an escape."""
    return NOT_IN_XML.sub(lambda found: f"\\u{ord(found[0]):04x}", visible(text))


def _lines(*lines: str) -> str:
    return "\n".join(map(_line, lines))

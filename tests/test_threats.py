"""The table of threats names tests that exist, and every test that claims to show a threat is in it."""

from __future__ import annotations

import ast

import pytest
import threats_page
from threats_page import ADVERSARIES, PAGE, ROOT, marked, page_with

PAGE_TEXT = PAGE.read_text(encoding="utf-8")


def test_the_table_lists_exactly_the_marked_tests():
    assert page_with(PAGE_TEXT, marked()) == PAGE_TEXT, "write it again: python tests/threats_page.py"


@pytest.mark.parametrize("who", ADVERSARIES)
def test_every_adversary_is_defined_and_has_tests(who: str):
    rows = [threat for threat in marked() if threat.who == who]

    assert f"\n- **{who[0].upper()}{who[1:]}:**" in PAGE_TEXT
    assert rows


def test_a_removed_mark_makes_the_table_stale():
    assert page_with(PAGE_TEXT, marked()[1:]) != PAGE_TEXT


def test_an_undefined_adversary_is_refused(tmp_path):
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_x.py").write_text('@pytest.mark.threat("ghost", "haunt")\ndef test_x(): ...\n', encoding="utf-8")

    with pytest.raises(ValueError, match="not in tuple"):
        threats_page.marked(tests)


def test_a_marked_test_is_never_skipped():
    """A skipped test shows nothing."""
    for path in {threat.test.partition("::")[0] for threat in marked()}:
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                decorators = [ast.unparse(one) for one in node.decorator_list]
                if any("mark.threat" in one for one in decorators):
                    assert not [one for one in decorators if "mark.skip" in one or "mark.xfail" in one], node.name


def test_security_policy_is_linked_from_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert "(SECURITY.md)" in readme
    assert "docs/explanation/threats.md" in (ROOT / "SECURITY.md").read_text(encoding="utf-8")

"""Writes docs/reference/diagnostics.md from what `cas explain` knows: `python tests/diagnostics_page.py`."""

from __future__ import annotations

from pathlib import Path

from cas import explanations
from cas.output.explanations import page

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "cas" / "explanations.toml"
PAGE = ROOT / "docs" / "reference" / "diagnostics.md"
INTRODUCTION = """\
# Diagnostics

<!-- Made by `python tests/diagnostics_page.py` from cas/explanations.toml: change that one. -->

Every finding and every error has a code that stays the same, whatever its words: it stands in brackets behind the
severity. [`cas explain CODE`](commands.md#cas-explain) says on the command line what stands here;
[formats](formats.md#diagnostics-casdiagnostics1) has the forms in which findings are told. `hello.org` is a sound
message. `…` stands for what differs from run to run, and for what is left out.
"""


def text() -> str:
    """The whole page."""
    known = explanations.parse(DATA.read_text(encoding="utf-8"))
    return INTRODUCTION + "\n".join([*page(known.values()), ""])


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")

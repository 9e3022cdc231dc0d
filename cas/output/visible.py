"""Text made safe to print: what would act on a terminal, or reorder what stands around it, is shown as an escape."""

from __future__ import annotations

import re

# Controls (C0 without tab, C1), line and paragraph separators, surrogates, and the bidirectional and invisible formats.
UNSAFE = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """One line of text, with unsafe characters as `\\x1b` or `\\u202e`."""
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def visible_json(text: str) -> str:
    """The same for JSON, which then still says the same."""
    return UNSAFE.sub(lambda found: _json_escape(found[0]), text)


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))

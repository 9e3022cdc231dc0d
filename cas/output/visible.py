"""Text that others wrote, made safe to print. Everything that cas prints of theirs goes through this module.

What would act on a terminal, reorder the text around it, or not be seen at all is shown as an escape.
"""

from __future__ import annotations

import re

# Unicode 15.1: the general categories Cc (but for tab), Cf, Zl, Zp, Cs, Co, and Zs but for the space; the property
# Default_Ignorable_Code_Point of DerivedCoreProperties.txt, which has the variation selectors and the Hangul fillers;
# the blank Braille pattern; and the noncharacters.
HIDDEN = (
    "\x00-\x08\x0a-\x1f\x7f-\xa0\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u1680\u17b4\u17b5"
    "\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ud800-\uf8ff\ufdd0-\ufdef\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufffb\ufffe\uffff\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    + "".join(f"{chr((plane << 16) + 0xFFFE)}{chr((plane << 16) + 0xFFFF)}" for plane in range(1, 14))
    + "\U000e0000-\U000e0fff\U000efffe-\U0010ffff"
)
UNSAFE = re.compile(f"[{HIDDEN}]")


def visible(text: str) -> str:
    """One line of text, with what cannot be seen as `\\x1b` or `\\u202e`."""
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def visible_json(text: str) -> str:
    """The same for JSON, which then still says the same."""
    return UNSAFE.sub(lambda found: _json_escape(found[0]), text)


def hidden(text: str) -> int:
    """How many characters of a text a reader would not see, line breaks aside."""
    return len(UNSAFE.findall(text)) - text.count("\n")


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))

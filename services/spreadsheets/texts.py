"""Clean the texts of cells: spaces, line breaks and invisible characters."""

from __future__ import annotations

import re
import unicodedata

from services.spreadsheets.cells import CellProblem

# Line ends of several programs: CR LF, CR, vertical tab, form feed, NEL and the separators of Unicode.
_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")
_SPACES = re.compile(r"[^\S\n]")
# Without a glyph and without a meaning between letters. The joiners U+200C and U+200D have one.
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u2060\ufeff\u00ad"))
_MARKS_AT_ENDS = "\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u2066\u2067\u2068\u2069"


def clean_text(text: str) -> str:
    """Return a text of a cell with plain spaces and line breaks. Raises `CellProblem` for control characters.

    Everything else stays as it is.
    """
    text = _SPACES.sub(" ", _LINE_ENDS.sub("\n", text))
    if _CONTROLS.search(text):
        raise CellProblem("control_characters", "the text contains control characters; write it again")
    return _strip(text.translate(_INVISIBLE))


def clean_line(text: str) -> str:
    """Return a text as one line, without invisible characters and repeated spaces: a name, number or code."""
    if not text.isprintable() or not text.isascii():
        visible = (c for c in text if unicodedata.category(c) != "Cf")
        text = _CONTROLS.sub(" ", "".join(visible))
    return " ".join(text.split())


def _strip(text: str) -> str:
    """Remove spaces and direction marks from both ends."""
    previous = None
    while text != previous:
        previous = text
        text = text.strip().strip(_MARKS_AT_ENDS)
    return text

"""Search keys of names: accents and case do not matter, in the same way on PostgreSQL and SQLite."""

from __future__ import annotations

import unicodedata

# Letters that NFKD does not decompose.
_LETTERS = str.maketrans(
    {
        "Ł": "L",
        "ł": "l",
        "Ø": "O",
        "ø": "o",
        "Đ": "D",
        "đ": "d",
        "ð": "d",
        "Þ": "th",
        "þ": "th",
        "ı": "i",
        "ß": "ss",
        "Æ": "ae",
        "æ": "ae",
        "Œ": "oe",
        "œ": "oe",
        "ħ": "h",
        "ŋ": "n",
        "ĸ": "k",
    }
)


def search_key(text: str) -> str:
    """Return the text without accents, case and repeated spaces.

    Unicode NFKD removes the combining marks; `_LETTERS` maps letters that NFKD does not decompose. At most
    400 characters, the width of the database columns: decomposition can make a text longer.
    """
    base = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return " ".join(base.translate(_LETTERS).casefold().split())[:400]

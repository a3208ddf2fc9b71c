"""Folding of names for search: accents and case do not matter, on both engines alike."""

from __future__ import annotations

import unicodedata

# Letters that NFKD does not take apart.
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
    """NFKD without marks, letters that do not decompose mapped, case folded, runs of blanks made one.

    At most 400 characters, the width of the columns that hold it: decomposition can lengthen a text.
    """
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return " ".join(plain.translate(_LETTERS).casefold().split())[:400]

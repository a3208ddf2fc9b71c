"""Search keys of names: the same text folding for all searches, on PostgreSQL and SQLite."""

from __future__ import annotations

import re
import unicodedata

# Typed and typographic apostrophes, primes, accents used as apostrophes, and letters of a glottal stop.
APOSTROPHES = (
    "'`\u00b4\u02b9\u02bb\u02bc\u02bd\u02be\u02bf\u02c8\u02ca\u02cb\u055a\u05f3\u1fbf\u1ffd\u1ffe"
    "\u2018\u2019\u201a\u201b\u2032\u2035\ua78b\ua78c\uff07\uff40"
)
# Minus signs and hyphen bullet. All other dashes have the Unicode category Pd.
_MORE_DASHES = "\u2043\u2212\u02d7\u207b\u208b"
# Without a glyph of their own, but not in the category Cf: grapheme joiner and variation selectors.
_INVISIBLE = "\u034f\u180b\u180c\u180d" + "".join(map(chr, range(0xFE00, 0xFE10)))
_DASH_BESIDE_NO_DIGIT = re.compile(r"(?<!\d)-(?!\d)")

_PUNCTUATION = str.maketrans(
    {**dict.fromkeys(APOSTROPHES + _INVISIBLE, ""), **dict.fromkeys(_MORE_DASHES, "-")}
)
# Small letters that NFKD does not decompose.
_LETTERS = str.maketrans(
    {
        "ł": "l",
        "ø": "o",
        "đ": "d",
        "ð": "d",
        "þ": "th",
        "ı": "i",
        "æ": "ae",
        "œ": "oe",
        "ħ": "h",
        "ŋ": "n",
        "ĸ": "k",
    }
)


def search_key(text: str) -> str:
    """Return the text without accents, case, apostrophes, zero-width characters and repeated spaces.

    Unicode NFKD removes the combining marks; `_LETTERS` maps letters that NFKD does not decompose. A dash
    beside a digit becomes `-`, as in file numbers. Any other dash becomes a space: "Smith-Jones" equals
    "Smith Jones". At most 400 characters, the width of the database columns: decomposition can make a text
    longer.
    """
    base = text.translate(_PUNCTUATION)
    if not base.isascii():
        decomposed = unicodedata.normalize("NFKD", base)
        base = "".join(map(_fold_character, decomposed)).translate(_PUNCTUATION)
    if "-" in base:
        base = _DASH_BESIDE_NO_DIGIT.sub(" ", base)
    return " ".join(base.casefold().translate(_LETTERS).split())[:400].rstrip()


def _fold_character(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Pd":
        return "-"
    return "" if category == "Cf" or unicodedata.combining(character) else character

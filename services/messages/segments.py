"""The parts (segments) of an SMS, by the encodings of 3GPP TS 23.038: GSM-7 and UCS-2."""

from __future__ import annotations

import unicodedata
from enum import StrEnum
from typing import NamedTuple


class Encoding(StrEnum):
    """The encoding of an SMS."""

    GSM_7 = "gsm-7"
    UCS_2 = "ucs-2"


class Capacity(NamedTuple):
    """The units of an SMS with one part, and those of each part of a longer one, which has a header."""

    single: int
    part: int


# A unit is a septet of GSM-7, or 16 bits of UCS-2.
CAPACITY = {Encoding.GSM_7: Capacity(160, 153), Encoding.UCS_2: Capacity(70, 67)}
_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION = frozenset("^{}\\[~]|€\f")  # two septets each
_GSM_7 = _BASIC | _EXTENSION
# Characters of print with an equivalent in GSM-7, which NFKD does not find.
_EQUIVALENTS = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u2032\u02bc`´", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u00ab\u00bb\u2033", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
        "œ": "oe",
        "Œ": "OE",
        "ł": "l",
        "Ł": "L",
        "đ": "d",
        "Đ": "D",
        "ð": "d",
        "þ": "th",
        "ı": "i",
        "\t": " ",
    }
)


def for_sms(text: str) -> str:
    """Return the text with replaced characters, if it then fits GSM-7. Otherwise return it unchanged.

    Accents that GSM-7 does not have are left out. A single `á` would otherwise more than halve the size of
    each part. A text in another script stays as it is.
    """
    replaced = "".join(_in_gsm_7(character) for character in text)
    return replaced if _GSM_7.issuperset(replaced) else text


def _in_gsm_7(character: str) -> str:
    if character in _GSM_7:
        return character
    parts = unicodedata.normalize("NFKD", character.translate(_EQUIVALENTS))
    return "".join(part for part in parts if not unicodedata.combining(part))


def encoding_of(text: str) -> Encoding:
    """Return the encoding in which an SMS with this text is sent."""
    return Encoding.GSM_7 if _GSM_7.issuperset(text) else Encoding.UCS_2


def count_segments(text: str) -> int:
    """Return the number of parts of an SMS. A character is never divided between two parts."""
    encoding = encoding_of(text)
    if encoding is Encoding.GSM_7:
        sizes = [2 if character in _EXTENSION else 1 for character in text]
    else:
        sizes = [2 if ord(character) > 0xFFFF else 1 for character in text]
    capacity = CAPACITY[encoding]
    if sum(sizes) <= capacity.single:
        return 1
    segments, used = 1, 0
    for size in sizes:
        if used + size > capacity.part:
            segments, used = segments + 1, 0
        used += size
    return segments

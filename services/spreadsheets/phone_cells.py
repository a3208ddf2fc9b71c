"""Read phone numbers. A spreadsheet program removes the zeros and the `+` from a number."""

from __future__ import annotations

import re

import phonenumbers

from services.spreadsheets.cells import Cell, CellProblem
from services.spreadsheets.texts import clean_line

RESTORED = "restored_phone"
MIN_LENGTH, MAX_LENGTH = 3, 15  # digits; E.164 has at most 15
_EXPONENT = re.compile(r"[0-9]+(?:[.,][0-9]+)?[eE]\+?[0-9]+")
_WHOLE_FLOAT = re.compile(r"([0-9]{3,15})[.,]0")  # a number that a program wrote as text


def read_phone(cell: Cell, *, region: str) -> tuple[str, str | None]:
    """Return a phone number and the flag `restored_phone` if it was a number. Raises `CellProblem`."""
    if isinstance(cell, str):
        text = clean_line(cell)
        if _EXPONENT.fullmatch(text):
            raise CellProblem(
                "lost_digits", "the phone number is shortened by an exponent; write all its digits as text"
            )
        match = _WHOLE_FLOAT.fullmatch(text)
        if match is None:
            return text, None
        cell = int(match[1])
    if isinstance(cell, bool) or not isinstance(cell, int | float) or cell != int(cell) or cell < 0:
        raise CellProblem("not_a_phone", "must be a phone number as text")
    digits = str(int(cell))
    if not MIN_LENGTH <= len(digits) <= MAX_LENGTH:
        raise CellProblem("not_a_phone", "has too few or too many digits; write the phone number as text")
    return _restore(digits, region), RESTORED


def _restore(digits: str, region: str) -> str:
    """Return the international form, if the digits are a valid number of the region or with `+`.

    Other digits are returned as they are, such as an internal number.
    """
    for text in (digits, f"0{digits}", f"+{digits}"):
        try:
            number = phonenumbers.parse(text, region)
        except phonenumbers.NumberParseException:
            continue
        if phonenumbers.is_valid_number(number):
            return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    return digits

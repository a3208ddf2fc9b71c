"""Read numbers: integers, decimals and amounts of money."""

from __future__ import annotations

import contextlib
import math
import re
from decimal import Decimal
from functools import lru_cache

from babel import UnknownLocaleError
from babel.languages import get_territory_language_info
from babel.numbers import get_currency_symbol

from services.spreadsheets.cells import Cell, CellProblem
from services.spreadsheets.texts import clean_line

MAX_DIGITS = 15  # a spreadsheet program stores no more
MAX_EXACT = 10**MAX_DIGITS
_SIGNED = re.compile(r"(?P<sign>[-+\u2212]?)(?P<number>[0-9][0-9.,'\u2019 ]*|[.,][0-9]+)(?P<end>-?)")
_EXPONENT = re.compile(r"[-+]?[0-9]+(?:[.,][0-9]+)?[eE][-+]?[0-9]{1,3}")
_AMOUNT = re.compile(r"([^0-9]*)([0-9](?:.*[0-9])?)([^0-9]*)")
_SIGNS = dict.fromkeys(map(ord, "-+\u2212() "))
# Marks of shillings and rupees that people write and that Babel does not know.
_WRITTEN_MARKS = {
    **dict.fromkeys(("KES", "TZS", "UGX", "SOS"), ("sh", "shs", "/=", "/-")),
    **dict.fromkeys(("INR", "PKR", "NPR", "LKR"), ("rs", "rs.", "/-")),
}


def read_integer(cell: Cell, *, decimal_mark: str | None) -> int:
    """Return a whole number. Raises `CellProblem`."""
    number = read_decimal(cell, decimal_mark=decimal_mark)
    if number != number.to_integral_value():
        raise CellProblem("not_an_integer", "must be a whole number")
    return int(number)


def read_decimal(cell: Cell, *, decimal_mark: str | None) -> Decimal:
    """Return a number. Raises `CellProblem` for a text that is no number, or that can be read in two ways."""
    if isinstance(cell, int | float) and not isinstance(cell, bool):
        return _exact(cell)
    if not isinstance(cell, str):
        raise _not_a_number()
    text = ascii_digits(clean_line(cell))
    if _EXPONENT.fullmatch(text):
        raise CellProblem("lost_digits", "the number is shortened by an exponent; write all its digits")
    match = _SIGNED.fullmatch(text)
    if match is None:
        raise _not_a_number()
    if match["sign"] and match["end"]:
        raise _not_a_number()
    number = _grouped(match["number"], decimal_mark)
    return -number if match["sign"] in ("-", "\u2212") or match["end"] else number


def read_money(cell: Cell, *, decimal_mark: str | None, currency: str) -> Decimal:
    """Return an amount, without the mark of its currency. Parentheses mean a negative amount.

    Raises `CellProblem`, also for the mark of another currency.
    """
    if not isinstance(cell, str):
        return read_decimal(cell, decimal_mark=decimal_mark)
    match = _AMOUNT.fullmatch(ascii_digits(clean_line(cell)))
    if match is None:
        raise _not_a_number()
    before, number, after = match.groups()
    marks = currency_marks(currency)
    if after.strip().casefold() in marks:
        after = ""
    if not marks.issuperset(text.translate(_SIGNS).casefold() for text in (before, after)):
        raise CellProblem("other_currency", f"must be a number, or an amount in {currency}")
    minus_signs = sum((before + after).count(sign) for sign in "-\u2212(")
    if minus_signs > 1 or before.count("(") != after.count(")"):
        raise _not_a_number()
    amount = read_decimal(number, decimal_mark=decimal_mark)
    return -amount if minus_signs else amount


@lru_cache(maxsize=8)
def currency_marks(currency: str) -> frozenset[str]:
    """Return the marks of amounts in small letters: the code and signs of the currency, and no mark."""
    marks = {currency, get_currency_symbol(currency, "en"), *_WRITTEN_MARKS.get(currency, ())}
    for language in ("en", *get_territory_language_info(currency[:2])):
        with contextlib.suppress(UnknownLocaleError):
            marks.add(get_currency_symbol(currency, f"{language}_{currency[:2]}"))
    return frozenset({"", *map(str.casefold, marks), *(f"{mark.casefold()}." for mark in marks)})


def _exact(number: float) -> Decimal:
    """Return a number with the digits that a spreadsheet program stores: 0.1 + 0.2 is 0.3."""
    if not math.isfinite(number) or abs(number) >= MAX_EXACT:
        raise CellProblem("lost_digits", f"a number keeps {MAX_DIGITS} digits only; write it as text")
    return Decimal(number) if isinstance(number, int) else Decimal(f"{number:.{MAX_DIGITS}g}")


def _grouped(text: str, decimal_mark: str | None) -> Decimal:
    """Return the number of digits with a decimal mark and groups of three digits.

    Without `decimal_mark`, two different marks or a repeated mark are clear: the last of two is the decimal
    mark, and a repeated one separates groups. A single mark before exactly three digits is not clear.
    """
    marks = re.findall(r"[.,'\u2019 ]", text)
    kinds = list(dict.fromkeys(marks))
    if decimal_mark is None:
        if len(kinds) > 1:
            decimal_mark = marks[-1] if marks.count(marks[-1]) == 1 and marks[-1] in ".," else ""
        elif len(marks) > 1 or (marks and marks[0] not in ".,"):
            decimal_mark = ""
        elif marks and _is_ambiguous(text, marks[0]):
            raise CellProblem(
                "ambiguous_number",
                "may be a decimal number or thousands; set `decimal` to . or , for the file",
            )
        else:
            decimal_mark = marks[0] if marks else ""
    whole, mark, fraction = text.partition(decimal_mark) if decimal_mark else (text, "", "")
    separators = set(whole) - set("0123456789")
    groups = re.split(r"[.,'\u2019 ]", whole)
    is_grouped = len(groups) == 1 or _are_groups(groups)
    if len(separators) > 1 or not is_grouped or not (fraction.isdecimal() or not mark):
        raise _not_a_number()
    return Decimal(f"{''.join(groups) or '0'}.{fraction or '0'}") if mark else Decimal("".join(groups))


def _is_ambiguous(text: str, mark: str) -> bool:
    whole, _, fraction = text.partition(mark)
    return len(fraction) == 3 and 1 <= len(whole) <= 3 and whole[0] != "0"


def _are_groups(groups: list[str]) -> bool:
    """Return True for groups of three digits, or for lakhs: groups of two before the last three digits."""
    middle = {len(group) for group in groups[1:-1]}
    begins_well = 1 <= len(groups[0]) <= 3 and groups[0][0] != "0"
    return begins_well and len(groups[-1]) == 3 and middle in (set(), {3}, {2})


def ascii_digits(text: str) -> str:
    """Return a text with ASCII digits and marks instead of those of other scripts."""
    if text.isascii():
        return text
    marks = text.replace("\u066b", ".").replace("\u066c", ",")
    return "".join(str(int(c)) if c.isdecimal() and not c.isascii() else c for c in marks)


def _not_a_number() -> CellProblem:
    return CellProblem("not_a_number", "must be a number")

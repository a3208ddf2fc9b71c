"""The search column of a patient: every searched value in one folded text, with one trigram index."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, or_

from models import Patient
from services.listing.conditions import like_pattern, words_in
from services.listing.spec import TextMatch, contains
from services.search_key import search_key

FIELDS = ("name", "email", "file_number", "insurance_id", "phone_digits")
SEPARATOR = " | "  # no word that is searched contains it
MAX_LENGTH = 1000  # characters, the width of the database column


def search_fold(values: Mapping[str, Any]) -> str:
    """Return the search column of the `FIELDS` of a patient."""
    return SEPARATOR.join(search_key(values.get(name) or "") for name in FIELDS)[:MAX_LENGTH]


def name_and_email(folded: str) -> str:
    """Return the two fields of a search column that a search with a typing error compares."""
    return " ".join(folded.split(SEPARATOR)[:2])


def contains_part(part: str) -> ColumnElement[bool]:
    """Return the condition that a searched value of the patient contains a folded part."""
    return contains(Patient.search_fold, part)


def contains_words(text: str) -> ColumnElement[bool]:
    """Return the condition that the searched values contain every word of the text."""
    return words_in(Patient.search_fold, text)


def match_text(text: str, digits: str | None) -> TextMatch:
    """Return the search for every word of the text, or for the digits of a phone number."""
    words = search_key(text).split() or [""]
    values = {f"word_{index}": like_pattern(word) for index, word in enumerate(words)}
    if digits is None or words == [digits]:
        return TextMatch(_contains_words(len(words), or_digits=False), values)
    return TextMatch(_contains_words(len(words), or_digits=True), values | {"digits": like_pattern(digits)})


@cache
def _contains_words(number: int, *, or_digits: bool) -> ColumnElement[bool]:
    """Return the condition for a number of words, with a bind parameter for each pattern."""
    names = [f"word_{index}" for index in range(number)]
    words = and_(*map(_like, names))
    return or_(words, _like("digits")) if or_digits else words


def match_phone(digits: str, international: str | None) -> TextMatch:
    """Return the search for a part of a phone number, or for the whole number in E.164 form."""
    values = {"digits": like_pattern(digits)}
    if international is None:
        return TextMatch(_HAS_DIGITS, values)
    return TextMatch(_HAS_DIGITS_OR_NUMBER, values | {"international": international})


def _like(name: str, column: Any = Patient.search_fold) -> ColumnElement[bool]:
    condition: ColumnElement[bool] = column.like(bindparam(name), escape="/")
    return condition


# the search column has the index
_HAS_DIGITS = and_(_like("digits"), _like("digits", Patient.phone_digits))
_HAS_DIGITS_OR_NUMBER = or_(_HAS_DIGITS, Patient.phone_e164 == bindparam("international"))


def name_contains(text: str) -> ColumnElement[bool]:
    """Return the condition that the name contains every word of the text.

    The search column has the only trigram index. So the index finds the words, and the name decides.
    """
    return and_(contains_words(text), words_in(Patient.name_fold, text))


def name_contains_part(patient: Any, part: str) -> ColumnElement[bool]:
    """Return the condition that the name of a patient (or of an alias) contains a part of a search key."""
    return and_(contains(patient.search_fold, part), contains(patient.name_fold, part))

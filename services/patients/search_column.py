"""The search column of a patient: every searched value in one folded text, with one trigram index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, and_

from models import Patient
from services.listing.conditions import contains, words_in
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


def name_contains(text: str) -> ColumnElement[bool]:
    """Return the condition that the name contains every word of the text.

    The search column has the only trigram index. So the index finds the words, and the name decides.
    """
    return and_(contains_words(text), words_in(Patient.name_fold, text))

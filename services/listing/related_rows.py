"""Finding rows by their neighbours: a visit by its patient's name, a prescription by its medicine's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, or_, select

from extensions import db
from models import Doctor, Patient
from services.listing.paging import PreselectedIds, words_in

PRESELECT_LIMIT = 5_000


def preselect(key: Any, condition: ColumnElement[bool]) -> ColumnElement[bool] | PreselectedIds:
    """The rows of a list for which the condition is true: looked up, up to `FEW` of them.

    PostgreSQL cannot guess how rare a part of a text is, and may walk a list to its end for a page that is
    never full. Of more, a page is full soon, in whatever order the rows are read.
    """
    found = _some(key, condition)
    return PreselectedIds(found) if len(found) <= PRESELECT_LIMIT else condition


def in_related(column: Any, key: Any, condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether `column` is the `key` of a neighbour for which the condition is true.

    Up to `FEW` keys are looked up first and named, so that an index leads to what belongs to them.
    """
    found = _some(key, condition)
    belongs: ColumnElement[bool] = column.in_(
        found if len(found) <= PRESELECT_LIMIT else select(key).where(condition)
    )
    return belongs


def _some(key: Any, condition: ColumnElement[bool]) -> Sequence[int]:
    return (
        db.session.connection()
        .execute(select(key).where(condition).limit(PRESELECT_LIMIT + 1))
        .scalars()
        .all()
    )


def of_patient(column: Any, text: str) -> ColumnElement[bool]:
    """Whether a row is of a patient whose name holds these words, in any order."""
    return in_related(column, Patient.id, words_in(Patient.name_fold, text))


def of_patient_or_file(column: Any, text: str) -> ColumnElement[bool]:
    """Whether a row is of a patient whose name holds these words, or whose file number holds the text."""
    numbered = Patient.file_number.icontains(text, autoescape=True)
    return in_related(column, Patient.id, or_(words_in(Patient.name_fold, text), numbered))


def of_doctor(column: Any, text: str) -> ColumnElement[bool]:
    """Whether a row is of a doctor whose name holds these words, in any order."""
    return in_related(column, Doctor.id, words_in(Doctor.name_fold, text))

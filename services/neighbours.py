"""Finding rows by their neighbours: a visit by its patient's name, a prescription by its medicine's."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, or_, select

from extensions import db
from models import Doctor, Patient
from services.listing import words_in

FEW = 5_000


def among(column: Any, key: Any, condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether `column` is the `key` of a row for which the condition is true.

    Up to `FEW` keys are looked up first and named, so that an index leads to what belongs to them. Of more, a
    page is full soon, in whatever order the rows are read. `column` may be `key` itself: PostgreSQL cannot
    guess how rare a part of a text is, and may walk a list to its end for a page that is never full.
    """
    wanted = select(key).where(condition)
    found = list(db.session.execute(wanted.limit(FEW + 1)).scalars())
    if len(found) > FEW and column is key:
        return condition
    belongs: ColumnElement[bool] = column.in_(found if len(found) <= FEW else wanted)
    return belongs


def of_patient(column: Any, text: str) -> ColumnElement[bool]:
    """Whether a row is of a patient whose name holds these words, in any order."""
    return among(column, Patient.id, words_in(Patient.name_fold, text))


def of_patient_or_file(column: Any, text: str) -> ColumnElement[bool]:
    """Whether a row is of a patient whose name holds these words, or whose file number holds the text."""
    numbered = Patient.file_number.icontains(text, autoescape=True)
    return among(column, Patient.id, or_(words_in(Patient.name_fold, text), numbered))


def of_doctor(column: Any, text: str) -> ColumnElement[bool]:
    """Whether a row is of a doctor whose name holds these words, in any order."""
    return among(column, Doctor.id, words_in(Doctor.name_fold, text))

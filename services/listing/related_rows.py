"""Conditions on related rows: a visit by the name of its patient, a prescription by its medicine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import aliased

from database.functions import contains_text
from extensions import db
from models import Doctor, Patient, User
from services.listing.conditions import words_in
from services.listing.spec import (
    MAX_JOINS,
    MAX_MATCHES,
    Filter,
    Kind,
    ListColumn,
    PreselectedIds,
    RelatedRow,
    contains,
)
from services.patients import search_column


def preselect(key: Any, condition: ColumnElement[bool]) -> ColumnElement[bool] | PreselectedIds:
    """Return the ids of the rows that satisfy a condition, or the condition itself above `MAX_MATCHES`."""
    ids = _matching_ids(key, condition)
    return PreselectedIds(ids) if len(ids) <= MAX_MATCHES else condition


def in_related(column: Any, key: Any, condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return the condition that `column` is the `key` of a related row which satisfies a condition.

    Up to `MAX_MATCHES` keys are read first, so that an index finds the rows that refer to them.
    """
    ids = _matching_ids(key, condition)
    refers: ColumnElement[bool] = column.in_(ids if len(ids) <= MAX_MATCHES else select(key).where(condition))
    return refers


def _matching_ids(key: Any, condition: ColumnElement[bool]) -> Sequence[int]:
    return (
        db.session.connection().execute(select(key).where(condition).limit(MAX_MATCHES + 1)).scalars().all()
    )


def of_patient(column: Any, text: str) -> ColumnElement[bool]:
    """Return the condition that the patient's name contains all words of the text, in any order."""
    return in_related(column, Patient.id, search_column.name_contains(text))


def of_patient_or_file(column: Any, text: str) -> ColumnElement[bool]:
    """Return the condition that the patient's name contains all words, or the file number the text."""
    in_file_number = contains_text(Patient.file_number, text)
    numbered = and_(search_column.contains_words(text), in_file_number)
    return in_related(column, Patient.id, or_(search_column.name_contains(text), numbered))


def of_doctor(column: Any, text: str) -> ColumnElement[bool]:
    """Return the condition that the doctor's name contains all words of the text, in any order."""
    return in_related(column, Doctor.id, words_in(Doctor.name_fold, text))


def patient_column(foreign_key: Any) -> ListColumn:
    """Return the column of the patient's name."""
    patient = aliased(Patient)
    return ListColumn(
        Kind.TEXT,
        patient.name,
        nullable=False,
        contains=partial(search_column.name_contains_part, patient),
        folded=patient.name_fold,
        related=RelatedRow(patient, foreign_key),
        max_rows=MAX_JOINS,
    )


def doctor_column(foreign_key: Any, *, nullable: bool = False) -> ListColumn:
    """Return the column of the doctor's name."""
    return _name_column(aliased(Doctor), foreign_key, nullable=nullable)


def user_column(foreign_key: Any) -> ListColumn:
    """Return the column of the name of a user."""
    return _name_column(aliased(User), foreign_key, nullable=True)


def _name_column(entity: Any, foreign_key: Any, *, nullable: bool) -> ListColumn:
    return ListColumn(
        Kind.TEXT,
        entity.name,
        nullable=nullable,
        contains=partial(contains, entity.name_fold),
        folded=entity.name_fold,
        related=RelatedRow(entity, foreign_key),
    )


def patient_filter(foreign_key: Any) -> Filter:
    """Return the filter by words of the patient's name."""
    return Filter(Kind.TEXT, partial(of_patient, foreign_key), "Words of the patient's name, in any order.")


def doctor_filter(foreign_key: Any) -> Filter:
    """Return the filter by words of the doctor's name."""
    return Filter(Kind.TEXT, partial(of_doctor, foreign_key), "Words of the doctor's name, in any order.")

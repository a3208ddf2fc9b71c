"""Dates of birth, of which a person may know only the month or the year."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterable
from datetime import date
from typing import Any

from enums import BirthDatePrecision
from errors import invalid
from services import clock

Precision = BirthDatePrecision
MAX_AGE = 130  # years; the oldest known person lived 122
# The precisions of a text with 1, 2 or 3 parts. The first one is the default.
PRECISIONS = {
    1: (Precision.YEAR, Precision.ESTIMATED),
    2: (Precision.MONTH, Precision.YEAR, Precision.ESTIMATED),
    3: (Precision.DAY, Precision.MONTH, Precision.YEAR, Precision.ESTIMATED),
}
PARTS = {Precision.DAY: 3, Precision.MONTH: 2, Precision.YEAR: 1, Precision.ESTIMATED: 1}


def to_columns(
    date_of_birth: date | str | None,
    precision: Precision | None,
    estimated_age: int | None,
    stored: tuple[date | None, Precision | None] = (None, None),
) -> tuple[date | None, Precision | None]:
    """Return the columns `date_of_birth` and `birth_date_precision` from the members of a request.

    A precision alone applies to the stored date. The day or month that it does not include is dropped.
    """
    if estimated_age is not None:
        if date_of_birth is not None:
            raise invalid("estimated_age", "give either date_of_birth or estimated_age")
        if precision not in (None, Precision.ESTIMATED):
            raise invalid("birth_date_precision", "must be estimated if estimated_age is sent")
        return date(clock.today().year - estimated_age, 1, 1), Precision.ESTIMATED
    if date_of_birth is None and precision is not None and stored[0] is not None:
        date_of_birth = format_known(*stored)
    if date_of_birth is None:
        if precision is not None:
            raise invalid("birth_date_precision", "needs a date_of_birth")
        return None, None
    parts = [int(part) for part in str(date_of_birth).split("-")]
    possible = PRECISIONS[len(parts)]
    precision = precision or possible[0]
    if precision not in possible:
        raise invalid("birth_date_precision", f"must be one of {', '.join(possible)} for this date_of_birth")
    known = [*parts[: PARTS[precision]], 1, 1]
    return date(known[0], known[1], known[2]), precision


def format_known(date_of_birth: date | None, precision: Precision | None) -> str | None:
    """Return the known part of a date of birth: `1990`, `1990-11` or `1990-11-05`."""
    if date_of_birth is None:
        return None
    text = date_of_birth.isoformat()
    if precision in (None, Precision.DAY):
        return text
    return "-".join(text.split("-")[: PARTS[precision]])


def last_possible(date_of_birth: date, precision: Precision | None) -> date:
    """Return the last day on which a person with this date of birth may have been born."""
    if precision in (None, Precision.DAY):
        return date_of_birth
    month = date_of_birth.month if precision is Precision.MONTH else 12
    return date_of_birth.replace(month=month, day=monthrange(date_of_birth.year, month)[1])


def check(date_of_birth: date | None, deceased_on: date | None) -> None:
    """Raise 422 for a birth in the future or more than `MAX_AGE` years ago, and for a wrong day of death."""
    today = clock.today()
    if date_of_birth is not None:
        if date_of_birth > today:
            raise invalid("date_of_birth", "must not be in the future")
        if (age_on(today, date_of_birth) or 0) > MAX_AGE:
            raise invalid("date_of_birth", f"must not be more than {MAX_AGE} years ago")
    if deceased_on is not None:
        if deceased_on > today:
            raise invalid("deceased_on", "must not be in the future")
        if date_of_birth is not None and deceased_on < date_of_birth:
            raise invalid("deceased_on", "must not be before the date of birth")


def age_on(day: date, born: date | None) -> int | None:
    """Return the age in completed years. In common years, the birthday of 29 February is on 1 March."""
    if born is None:
        return None
    return day.year - born.year - ((day.month, day.day) < (born.month, born.day))


def add_computed_fields(patients: Iterable[Any]) -> None:
    """Set `birth_date`, `age` and `age_is_estimate` of patients. A deceased patient has the age at death."""
    today = clock.today()
    for patient in patients:
        precision = patient.birth_date_precision
        patient.birth_date = format_known(patient.date_of_birth, precision)
        patient.age = age_on(patient.deceased_on or today, patient.date_of_birth)
        patient.age_is_estimate = precision not in (None, Precision.DAY)

"""Patient statistics: demographics, growth, and the most frequent diagnoses."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import ColumnElement, case, func, literal_column, select

from column_types import unique_key
from enums import Gender
from extensions import db
from models import Diagnosis, Patient, Visit
from services import clock
from services.clinical import icd10
from services.reports import periods
from services.reports.periods import Span
from services.rows import mapping

# The highest age of each group in completed years.
AGE_GROUPS = {"0-17": 17, "18-34": 34, "35-49": 49, "50-64": 64}
OLDEST_GROUP = "65+"
UNKNOWN = "unknown"
TOP_DIAGNOSES = 10


@dataclass(frozen=True)
class Growth:
    """The new patients of a month within the span, and the total at its end."""

    month: str
    new_patients: int
    total_patients: int


@dataclass(frozen=True)
class DiagnosisCount:
    """A diagnosis and its frequency."""

    icd10: str | None
    description: str
    count: int


@dataclass(frozen=True)
class PatientStats:
    """The report. Totals and distributions are over all patients registered until the end of the span."""

    total_patients: int
    active_patients: int
    new_patients: int
    returning_patients: int
    gender_distribution: dict[str, int]
    age_distribution: dict[str, int]
    growth_history: list[Growth]
    top_diagnoses: list[DiagnosisCount]
    visits_per_patient: float | None


def report(*, start_date: date | None = None, end_date: date | None = None) -> PatientStats:
    """Return the statistics of a span, by default of the last 30 days.

    New patients were registered in the span. Returning patients had a visit in it and another one before.
    Visits per patient is the average over the patients with a visit in the span. Ages are as of today. Voided
    visits do not count.
    """
    span = periods.span(start_date, end_date)
    registered = Patient.created_at < span.until
    total, active = db.session.execute(
        select(func.count(), func.count(case((Patient.is_active, 1)))).where(registered)
    ).one()
    growth = _growth(span, total)
    visits, patients, returning = _count_visits(span)
    return PatientStats(
        total_patients=total,
        active_patients=active,
        new_patients=sum(month.new_patients for month in growth),
        returning_patients=returning,
        gender_distribution=_gender_distribution(registered),
        age_distribution=_age_distribution(registered),
        growth_history=growth,
        top_diagnoses=_top_diagnoses(span),
        visits_per_patient=round(visits / patients, 2) if patients else None,
    )


def new_patients(span: Span) -> int:
    """Return the number of patients registered in a span."""
    return db.session.execute(
        select(func.count()).select_from(Patient).where(span.contains(Patient.created_at))
    ).scalar_one()


def _growth(span: Span, total: int) -> list[Growth]:
    day = periods.local_day(Patient.created_at, span)
    statement = select(day, func.count()).where(span.contains(Patient.created_at)).group_by(day)
    days = {periods.day_of(number): count for number, count in db.session.execute(statement)}
    patients = total - sum(days.values())
    months = []
    for month, counts in periods.by_period(days, periods.periods(span, "month")):
        patients += sum(counts)
        months.append(Growth(month.label, sum(counts), patients))
    return months


def _count_visits(span: Span) -> tuple[int, int, int]:
    """Return the number of visits in the span, of their patients, and of the returning patients."""
    in_span = func.count(case((Visit.date >= span.since, 1)))
    patients = (
        select(
            in_span.label("visits"),
            case((func.min(Visit.date) < func.max(Visit.date), 1)).label("returned"),
        )
        .where(Visit.date < span.until, Visit.voided_at.is_(None))
        .group_by(Visit.patient_id)
        .having(func.max(Visit.date) >= span.since)
        .subquery()
    )
    row = db.session.execute(
        select(
            func.coalesce(func.sum(patients.c.visits), 0), func.count(), func.count(patients.c.returned)
        ).select_from(patients)
    ).one()
    return int(row[0]), row[1], row[2]


def _gender_distribution(registered: ColumnElement[bool]) -> dict[str, int]:
    counts = mapping(select(Patient.gender, func.count()).where(registered).group_by(Patient.gender))
    return {gender.value: counts.get(gender, 0) for gender in Gender} | {UNKNOWN: counts.get(None, 0)}


def _age_distribution(registered: ColumnElement[bool]) -> dict[str, int]:
    today = clock.today()
    groups: list[Any] = [(Patient.date_of_birth.is_(None), literal_column(f"'{UNKNOWN}'"))]
    for name, highest_age in AGE_GROUPS.items():
        # a person of at most this age was born after the day highest_age + 1 years ago
        groups.append(
            (Patient.date_of_birth > _years_before(today, highest_age + 1), literal_column(f"'{name}'"))
        )
    group = case(*groups, else_=literal_column(f"'{OLDEST_GROUP}'"))
    counts: dict[str, int] = dict(
        db.session.execute(select(group, func.count()).where(registered).group_by(group)).tuples().all()
    )
    return {name: counts.get(name, 0) for name in (*AGE_GROUPS, OLDEST_GROUP, UNKNOWN)}


def _years_before(day: date, years: int) -> date:
    """Return the last date of birth of a person who has reached this age on `day`.

    A person born on 29 February reaches an age on 1 March of a common year.
    """
    try:
        return day.replace(year=day.year - years)
    except ValueError:
        return date(day.year - years, 2, 28)


def _top_diagnoses(span: Span) -> list[DiagnosisCount]:
    """Return the most frequent diagnoses, by code, or by description without a code.

    Spellings of a description that differ only in case are one. They are compared here, because the engines
    fold and sort letters outside ASCII in different ways.
    """
    spelling = case((Diagnosis.icd10.is_(None), Diagnosis.description))
    statement = (
        select(Diagnosis.icd10, func.min(Diagnosis.description), func.count())
        .join(Visit, Visit.id == Diagnosis.visit_id)
        .where(span.contains(Visit.date), Visit.voided_at.is_(None))
        .group_by(Diagnosis.icd10, spelling)
    )
    counts: Counter[tuple[str | None, str]] = Counter()
    texts: dict[tuple[str | None, str], str] = {}
    for code, text, number in db.session.execute(statement):
        key = (code, "" if code else unique_key(text))
        counts[key] += number
        texts[key] = min(text, texts.get(key, text))
    most = sorted(counts, key=lambda key: (-counts[key], key[0] is None, key))[:TOP_DIAGNOSES]
    return [
        DiagnosisCount(key[0], (icd10.describe(key[0]) if key[0] else None) or texts[key], counts[key])
        for key in most
    ]

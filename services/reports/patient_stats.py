"""Who the clinic's patients are, how their number grows, and what they come for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import ColumnElement, case, func, literal_column, select

from enums import Gender
from extensions import db
from models import Diagnosis, Patient, Visit
from services import clock
from services.clinical import icd10
from services.reports import periods
from services.reports.periods import Span
from services.rows import mapping

# The oldest age of each group in completed years.
AGE_GROUPS = {"0-17": 17, "18-34": 34, "35-49": 49, "50-64": 64}
OLDEST = "65+"
UNKNOWN = "unknown"
TOP = 10


@dataclass(frozen=True)
class Growth:
    """New patients of a month (cut to the span), and how many there were at its end."""

    month: str
    new_patients: int
    total_patients: int


@dataclass(frozen=True)
class DiagnosisCount:
    """How often a diagnosis was made."""

    icd10: str | None
    description: str
    count: int


@dataclass(frozen=True)
class PatientStats:
    """The report. Totals and distributions are over all patients registered until the span's end."""

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
    """The patients of the days asked for.

    New: registered in the span. Returning: seen in it, and not for the first time ever. Visits per patient:
    of those seen in the span. Ages are today's. Voided visits do not count.
    """
    span = periods.span(start_date, end_date)
    registered = Patient.created_at < span.until
    total, active = db.session.execute(
        select(func.count(), func.count(case((Patient.is_active, 1)))).where(registered)
    ).one()
    growth = _growth(span, total)
    visits, seen, returning = _visits(span)
    return PatientStats(
        total_patients=total,
        active_patients=active,
        new_patients=sum(month.new_patients for month in growth),
        returning_patients=returning,
        gender_distribution=_genders(registered),
        age_distribution=_ages(registered),
        growth_history=growth,
        top_diagnoses=_diagnoses(span),
        visits_per_patient=round(visits / seen, 2) if seen else None,
    )


def new_patients(span: Span) -> int:
    """How many were registered in a span."""
    return db.session.execute(
        select(func.count()).select_from(Patient).where(span.holds(Patient.created_at))
    ).scalar_one()


def _growth(span: Span, total: int) -> list[Growth]:
    day = periods.local_day(Patient.created_at, span)
    statement = select(day, func.count()).where(span.holds(Patient.created_at)).group_by(day)
    days = {periods.day_of(number): count for number, count in db.session.execute(statement)}
    before = total - sum(days.values())
    found = []
    for month, counts in periods.by_period(days, periods.periods(span, "month")):
        before += sum(counts)
        found.append(Growth(month.label, sum(counts), before))
    return found


def _visits(span: Span) -> tuple[int, int, int]:
    """Visits of the span, patients seen in them, and those of them who had been seen before."""
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


def _genders(registered: ColumnElement[bool]) -> dict[str, int]:
    found = mapping(select(Patient.gender, func.count()).where(registered).group_by(Patient.gender))
    return {gender.value: found.get(gender, 0) for gender in Gender} | {UNKNOWN: found.get(None, 0)}


def _ages(registered: ColumnElement[bool]) -> dict[str, int]:
    today = clock.today()
    groups: list[Any] = [(Patient.date_of_birth.is_(None), literal_column(f"'{UNKNOWN}'"))]
    for name, oldest in AGE_GROUPS.items():
        # younger than oldest + 1: born after the day that many years ago
        groups.append((Patient.date_of_birth > _years_before(today, oldest + 1), literal_column(f"'{name}'")))
    group = case(*groups, else_=literal_column(f"'{OLDEST}'"))
    found: dict[str, int] = dict(
        db.session.execute(select(group, func.count()).where(registered).group_by(group)).tuples().all()
    )
    return {name: found.get(name, 0) for name in (*AGE_GROUPS, OLDEST, UNKNOWN)}


def _years_before(day: date, years: int) -> date:
    """Who is born on it or before has that many birthdays by `day`; 29 February's is on 1 March."""
    try:
        return day.replace(year=day.year - years)
    except ValueError:
        return date(day.year - years, 2, 28)


def _diagnoses(span: Span) -> list[DiagnosisCount]:
    """The most frequent ones: by code where there is one, else by the words."""
    words = case((Diagnosis.icd10.is_(None), func.lower(Diagnosis.description)))
    count = func.count()
    statement = (
        select(Diagnosis.icd10, func.min(Diagnosis.description), count)
        .join(Visit, Visit.id == Diagnosis.visit_id)
        .where(span.holds(Visit.date), Visit.voided_at.is_(None))
        .group_by(Diagnosis.icd10, words)
        .order_by(count.desc(), Diagnosis.icd10, func.min(Diagnosis.description))
        .limit(TOP)
    )
    return [
        DiagnosisCount(code, (icd10.describe(code) if code else None) or description, number)
        for code, description, number in db.session.execute(statement)
    ]

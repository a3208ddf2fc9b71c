"""Columns of the patient list that are computed: age, balance, last visit and next appointment."""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Date,
    Integer,
    and_,
    bindparam,
    case,
    cast,
    extract,
    func,
    literal,
    null,
    or_,
    select,
    type_coerce,
)

from column_types import InstantType, MoneyType
from enums import AppointmentStatus, BirthDatePrecision
from models import Appointment, Billing, LedgerEntry, Patient, Visit
from services import clock
from services.billing import ledger
from services.listing.spec import MAX_JOINS, MAX_SUMS, Kind, ListColumn
from services.patients.search_column import name_contains_part

BALANCE = func.coalesce(
    select(func.sum(LedgerEntry.amount)).where(LedgerEntry.patient_id == Patient.id).scalar_subquery(),
    ledger.ZERO,
)
LAST_VISIT = (
    select(func.max(Visit.date))
    .where(Visit.patient_id == Patient.id, Visit.voided_at.is_(None))
    .scalar_subquery()
)
_IS_FUTURE = and_(
    Appointment.status == AppointmentStatus.SCHEDULED,
    Appointment.start > bindparam("now", callable_=clock.now, type_=InstantType()),
)
NEXT_APPOINTMENT = (
    select(func.min(Appointment.start))
    .where(Appointment.patient_id == Patient.id, _IS_FUTURE)
    .scalar_subquery()
)
# Few patients of a long list have a balance or a future appointment. One subquery finds all of them, so that
# the sums of the others are not computed. The bills of all others are settled: their sums are zero.
_MAY_HAVE_BALANCE = or_(
    Patient.id.in_(select(Billing.patient_id).where(Billing.id.in_(ledger.unsettled()))),
    Patient.id.in_(select(LedgerEntry.patient_id).where(LedgerEntry.billing_id.is_(None))),
)
_IS_BOOKED = Patient.id.in_(select(Appointment.patient_id).where(_IS_FUTURE))


def _number(day: Any) -> ColumnElement[int]:
    """Return a date as the number YYYYMMDD."""
    number = extract("year", day) * 10_000 + extract("month", day) * 100 + extract("day", day)
    return cast(number, Integer)


_LAST_DAY = func.coalesce(Patient.deceased_on, bindparam("today", callable_=clock.today, type_=Date()))
_IS_ESTIMATE = and_(
    Patient.birth_date_precision.is_not(None), Patient.birth_date_precision != BirthDatePrecision.DAY
)

COLUMNS = {
    "name": ListColumn(
        Kind.TEXT,
        Patient.name,
        nullable=False,
        contains=partial(name_contains_part, Patient),
        folded=Patient.name_fold,
    ),
    # the difference of two dates as numbers has the completed years in front of the last four digits
    "age": ListColumn(Kind.INTEGER, (_number(_LAST_DAY) - _number(Patient.date_of_birth)) // 10_000),
    "age_is_estimate": ListColumn(Kind.BOOLEAN, case((_IS_ESTIMATE, True), else_=False), nullable=False),
    "account_balance": ListColumn(
        Kind.MONEY,
        type_coerce(case((_MAY_HAVE_BALANCE, BALANCE), else_=literal(0, MoneyType())), MoneyType()),
        nullable=False,
        max_rows=MAX_JOINS,
    ),
    "last_visit": ListColumn(Kind.INSTANT, LAST_VISIT, max_rows=MAX_SUMS),
    "next_appointment": ListColumn(
        Kind.INSTANT,
        type_coerce(case((_IS_BOOKED, NEXT_APPOINTMENT), else_=null()), InstantType()),
    ),
}

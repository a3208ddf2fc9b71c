"""The first screen: today's numbers, as far as the caller's role may know them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from sqlalchemy import ColumnElement, func, select

from enums import RefundStatus, Role
from extensions import db
from models import InventoryItem, Refund, Visit
from security.permissions import Actor, Permission
from services.billing.ledger import ZERO, Sums
from services.reports import (
    doctor_performance,
    patient_stats,
    periods,
    revenue,
)
from services.reports.doctor_performance import Attendance
from services.reports.periods import Span


@dataclass(frozen=True)
class Numbers:
    """What happened in a stretch of days; a doctor's are the own. `money`: None for who may not see bills."""

    span: Span
    attendance: Attendance
    visits: int
    patients_seen: int
    new_patients: int
    money: Sums | None


@dataclass(frozen=True)
class Dashboard:
    """Today, the stretch asked for, and what waits to be done; None where the role has no part in it."""

    role: Role | None
    today: Numbers
    period: Numbers
    outstanding: Decimal | None
    refund_requests: int | None
    unsigned_visits: int | None
    low_stock_items: int


def show(actor: Actor, *, start_date: date | None = None, end_date: date | None = None) -> Dashboard:
    """The numbers for the caller: no money for technicians, own work only for doctors."""
    own = doctor_performance.own_doctor(actor)
    today = periods.today()
    bills = actor.may(Permission.BILLINGS_READ)
    return Dashboard(
        role=actor.role,
        today=_numbers(actor, today, own),
        period=_numbers(actor, periods.span(start_date, end_date), own),
        outstanding=sum(revenue.ages(today, own).values(), ZERO) if bills else None,
        refund_requests=_refund_requests() if actor.may(Permission.REFUNDS_ASK) else None,
        unsigned_visits=_unsigned(own) if actor.may(Permission.VISITS_DOCUMENT) else None,
        low_stock_items=_low_stock(),
    )


def _numbers(actor: Actor, span: Span, own: int | None) -> Numbers:
    attendance = Attendance()
    for doctor_id, kept in doctor_performance.attendance(span).items():
        if own in (None, doctor_id):
            attendance.by_status += kept.by_status
            attendance.by_clinic += kept.by_clinic
            attendance.waiting += kept.waiting
            attendance.booked_minutes += kept.booked_minutes
    visits = select(func.count(), func.count(Visit.patient_id.distinct())).where(
        span.holds(Visit.date), Visit.voided_at.is_(None)
    )
    if own is not None:
        visits = visits.where(Visit.doctor_id == own)
    seen = db.session.execute(visits).one()
    return Numbers(
        span=span,
        attendance=attendance,
        visits=seen[0],
        patients_seen=seen[1],
        new_patients=patient_stats.new_patients(span),
        money=revenue.totals(span, own) if actor.may(Permission.BILLINGS_READ) else None,
    )


def _refund_requests() -> int:
    requested = Refund.status == RefundStatus.REQUESTED
    return db.session.execute(select(func.count()).select_from(Refund).where(requested)).scalar_one()


def _unsigned(own: int | None) -> int:
    wheres: list[ColumnElement[bool]] = [Visit.signed_at.is_(None), Visit.voided_at.is_(None)]
    if own is not None:
        wheres.append(Visit.doctor_id == own)
    return db.session.execute(select(func.count()).select_from(Visit).where(*wheres)).scalar_one()


def _low_stock() -> int:
    low = InventoryItem.quantity <= InventoryItem.min_quantity
    return db.session.execute(
        select(func.count()).select_from(InventoryItem).where(InventoryItem.is_active, low)
    ).scalar_one()

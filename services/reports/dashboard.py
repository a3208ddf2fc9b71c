"""The dashboard: key figures of today and of a period, limited to the permissions of the caller."""

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
class KeyFigures:
    """The key figures of a range of days. `money` is None without the permission to read bills."""

    span: Span
    attendance: Attendance
    visits: int
    patients_seen: int
    new_patients: int
    money: Sums | None


@dataclass(frozen=True)
class Dashboard:
    """Today, the requested period, and open tasks. A figure is None without the permission to see it."""

    role: Role | None
    today: KeyFigures
    period: KeyFigures
    outstanding: Decimal | None
    refund_requests: int | None
    unsigned_visits: int | None
    low_stock_items: int


def show(actor: Actor, *, start_date: date | None = None, end_date: date | None = None) -> Dashboard:
    """Return the dashboard of the caller. Technicians: no money. Doctors: own work only."""
    doctor_id = doctor_performance.own_doctor_id(actor)
    today = periods.today()
    sees_bills = actor.may(Permission.BILLINGS_READ)
    return Dashboard(
        role=actor.role,
        today=key_figures(actor, today, doctor_id),
        period=key_figures(actor, periods.span(start_date, end_date), doctor_id),
        outstanding=sum(revenue.ageing(today, doctor_id).values(), ZERO) if sees_bills else None,
        refund_requests=_count_refund_requests() if actor.may(Permission.REFUNDS_ASK) else None,
        unsigned_visits=_count_unsigned_visits(doctor_id) if actor.may(Permission.VISITS_DOCUMENT) else None,
        low_stock_items=_count_low_stock_items(),
    )


def key_figures(actor: Actor, span: Span, doctor_id: int | None = None) -> KeyFigures:
    """Return the key figures of a span, of the whole clinic or of one doctor."""
    attendance = Attendance()
    for key, of_doctor in doctor_performance.attendance(span).items():
        if doctor_id in (None, key):
            attendance.add(of_doctor)
    visits = select(func.count(), func.count(Visit.patient_id.distinct())).where(
        span.contains(Visit.date), Visit.voided_at.is_(None)
    )
    if doctor_id is not None:
        visits = visits.where(Visit.doctor_id == doctor_id)
    visit_count, patients_seen = db.session.execute(visits).one()
    return KeyFigures(
        span=span,
        attendance=attendance,
        visits=visit_count,
        patients_seen=patients_seen,
        new_patients=patient_stats.new_patients(span),
        money=revenue.totals(span, doctor_id) if actor.may(Permission.BILLINGS_READ) else None,
    )


def _count_refund_requests() -> int:
    requested = Refund.status == RefundStatus.REQUESTED
    return db.session.execute(select(func.count()).select_from(Refund).where(requested)).scalar_one()


def _count_unsigned_visits(doctor_id: int | None) -> int:
    conditions: list[ColumnElement[bool]] = [Visit.signed_at.is_(None), Visit.voided_at.is_(None)]
    if doctor_id is not None:
        conditions.append(Visit.doctor_id == doctor_id)
    return db.session.execute(select(func.count()).select_from(Visit).where(*conditions)).scalar_one()


def _count_low_stock_items() -> int:
    is_low = InventoryItem.quantity <= InventoryItem.min_quantity
    return db.session.execute(
        select(func.count()).select_from(InventoryItem).where(InventoryItem.is_active, is_low)
    ).scalar_one()

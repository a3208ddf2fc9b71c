"""Time off of a doctor."""

from __future__ import annotations

from datetime import datetime
from typing import Unpack

from sqlalchemy import ColumnElement, and_
from sqlalchemy.orm import joinedload

from database.functions import contains_text
from errors import invalid, not_found
from extensions import db
from models import Doctor, TimeOff
from security.permissions import Actor
from services.listing import paging
from services.listing.related_rows import doctor_column, doctor_filter
from services.listing.spec import Condition, ListQuery, ListSpec, Page
from services.rows import get_or_404
from services.scheduling.booked_appointments import ConflictChoice, resolve_conflicts


def _overlaps(start: datetime | None, end: datetime | None) -> ColumnElement[bool]:
    conditions = [TimeOff.end > start] if start is not None else []
    return and_(*conditions, TimeOff.start < end) if end is not None else and_(*conditions)


LIST: ListSpec[TimeOff] = ListSpec(
    name="time_off",
    model=TimeOff,
    area="time_off",
    main_date="start",
    overlaps=_overlaps,
    text=lambda text: contains_text(TimeOff.reason, text),
    options=(joinedload(TimeOff.doctor),),
    computed={"doctor_name": doctor_column(TimeOff.doctor_id)},
    filters={"doctor_name": doctor_filter(TimeOff.doctor_id)},
)


def get(_actor: Actor, doctor_id: int, time_off_id: int, *, lock: bool = False) -> TimeOff:
    """Return a time off of the doctor, or raise 404. `lock` locks the doctor, whose calendar changes."""
    get_or_404(Doctor, doctor_id, lock=lock)
    time_off = get_or_404(TimeOff, time_off_id, lock=lock)
    if time_off.doctor_id != doctor_id:
        raise not_found("time_off")
    return time_off


def find(actor: Actor, doctor: Doctor, query: ListQuery) -> Page[TimeOff]:
    """Return one page of a doctor's time off."""
    query.conditions.append(Condition("doctor_id", "eq", doctor.id))
    return paging.page(actor, LIST, query)


def create(
    actor: Actor,
    doctor: Doctor,
    *,
    start: datetime,
    end: datetime,
    reason: str | None = None,
    **choice: Unpack[ConflictChoice],
) -> TimeOff:
    """Record a time off of a doctor. The caller holds the lock on the doctor.

    `resolve_conflicts` cancels or reassigns booked appointments, or raises its errors.
    """
    actor.require_own(doctor.id)
    if start >= end:
        raise invalid("end", "must be after start")
    time_off = TimeOff(doctor=doctor, doctor_id=doctor.id, start=start, end=end, reason=reason)
    with resolve_conflicts(actor, doctor, "The doctor has time off.", **choice):
        db.session.add(time_off)
    db.session.flush()
    return time_off


def delete(actor: Actor, time_off: TimeOff) -> TimeOff:
    """Delete a time off and return it as it was."""
    actor.require_own(time_off.doctor_id)
    # the response shows the doctor, and a deleted row cannot load relationships
    db.session.refresh(time_off, ["doctor"])
    db.session.delete(time_off)
    db.session.flush()
    return time_off

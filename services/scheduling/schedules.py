"""A doctor's weekly hours and time off, and what a stretch of days looks like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import pairwise
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import joinedload

from enums import AppointmentStatus
from errors import ClinicError, invalid, not_found
from extensions import db
from models import Appointment, Doctor, ScheduleWindow, TimeOff
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.listing import paging
from services.listing.paging import (
    Condition,
    ListQuery,
    ListSpec,
    Page,
)
from services.rows import get_or_404
from services.scheduling import (
    absences,
    appointment_search,
    availability,
    doctors,
)
from services.scheduling.availability import OCCUPYING, Availability

DAYS_SHOWN = 7  # from today on, where a request names no end


@dataclass(frozen=True)
class ScheduleDay:
    """Whether the doctor works on a day at all, and how many appointments are booked or done on it."""

    date: date
    working: bool
    booked: int


@dataclass(frozen=True)
class Schedule:
    """A doctor's weekly hours, and a stretch of days with all that fills them but cancelled appointments."""

    windows: list[ScheduleWindow]
    time_off: list[TimeOff]
    appointments: list[Appointment]
    days: list[ScheduleDay]


# --- Weekly hours --------------------------------------------------------------------------------------


def span(first: date | None, last: date | None) -> tuple[date, date]:
    """The days a request means: from today, for a week."""
    first = first or clock.today()
    return first, last or first + timedelta(days=DAYS_SHOWN)


def windows_of(doctor_id: int) -> list[ScheduleWindow]:
    """The doctor's weekly hours in order."""
    statement = select(ScheduleWindow).where(ScheduleWindow.doctor_id == doctor_id)
    order = (ScheduleWindow.weekday, ScheduleWindow.start)
    return list(db.session.execute(statement.order_by(*order)).scalars())


def show(actor: Actor, doctor: Doctor, first: date | None = None, last: date | None = None) -> Schedule:
    """The schedule of the days from first to last (today to a week ahead); the appointments count as read."""
    first, last = span(first, last)
    availability.check_span(first, last)
    start, end = clock.day_start(first), clock.day_end(last)
    booked = list(
        db.session.execute(
            select(Appointment)
            .where(
                Appointment.doctor_id == doctor.id,
                Appointment.status != AppointmentStatus.CANCELLED,
                Appointment.start < end,
                Appointment.start > start - availability.REACH,
                Appointment.end > start,
            )
            .options(joinedload(Appointment.patient))
            .order_by(Appointment.start, Appointment.id)
        ).scalars()
    )
    appointment_search.add_computed_fields(actor, booked)
    audit_log.record_read(
        "list", "appointment", [row.id for row in booked], {row.patient_id for row in booked}
    )
    off = select(TimeOff).where(TimeOff.doctor_id == doctor.id, TimeOff.start < end, TimeOff.end > start)
    time_off = list(db.session.execute(off.order_by(TimeOff.start, TimeOff.id)).scalars())
    calendar = availability.Calendar(doctor)
    windows = windows_of(doctor.id)
    for window in windows:
        calendar.windows.setdefault(window.weekday, []).append((window.start, window.end))
    away = [(row.start, row.end) for row in time_off]
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    counts = dict.fromkeys(days, 0)
    for row in booked:
        begins = clock.local(row.start).date()
        if begins in counts and row.status in OCCUPYING:
            counts[begins] += 1
    return Schedule(
        windows,
        time_off,
        booked,
        [
            ScheduleDay(day, bool(availability.subtract(calendar.hours(day), away)), counts[day])
            for day in days
        ],
    )


def replace_windows(actor: Actor, doctor: Doctor, windows: Sequence[Mapping[str, Any]]) -> Schedule:
    """Set the weekly hours `[{weekday, start, end}]` in the clinic's zone; without any, all hours.

    What is booked stays booked. Raises 422 naming the windows that overlap.
    """
    actor.require_own(doctor.id)
    wanted = {(window["weekday"], window["start"], window["end"]) for window in windows}
    ordered = sorted(wanted)
    errors = {
        f"windows.{_position(windows, after)}": "overlaps another window of that day"
        for before, after in pairwise(ordered)
        if before[0] == after[0] and after[1] < before[2]
    }
    if errors:
        raise ClinicError("validation_failed", "Two windows of one day overlap.", errors=errors)
    stored = {(row.weekday, row.start, row.end): row for row in windows_of(doctor.id)}
    for key in stored.keys() - wanted:
        db.session.delete(stored[key])
    db.session.flush()  # the old ones make room for the new
    for weekday, start, end in sorted(wanted - stored.keys()):
        db.session.add(ScheduleWindow(doctor_id=doctor.id, weekday=weekday, start=start, end=end))
    db.session.flush()
    return show(actor, doctor)


def _position(windows: Sequence[Mapping[str, Any]], key: tuple[int, time, time]) -> int:
    keys = [(window["weekday"], window["start"], window["end"]) for window in windows]
    return keys.index(key)


def available(
    actor: Actor,
    doctor: Doctor,
    *,
    day: date | None = None,
    first: date | None = None,
    last: date | None = None,
    duration: int | None = None,
) -> Availability:
    """The free times of one day or of a stretch of days (today to a week ahead); `duration` in minutes."""
    if day is not None:
        if first is not None or last is not None:
            raise invalid("date", "give either date or start_date and end_date")
        return availability.between(doctor, day, day, duration)
    return availability.between(doctor, *span(first, last), duration)


# --- Time off ------------------------------------------------------------------------------------------

TIME_OFF: ListSpec[TimeOff] = ListSpec(
    name="time_off",
    model=TimeOff,
    area="time_off",
    main_date="start",
    text=lambda text: TimeOff.reason.icontains(text, autoescape=True),
    options=(joinedload(TimeOff.doctor),),
)


def get_time_off(actor: Actor, doctor_id: int, time_off_id: int, *, lock: bool = False) -> TimeOff:
    """A doctor's time off, or 404. `lock` holds the doctor, whose calendar it changes."""
    doctors.get(actor, doctor_id, lock=lock)
    row = get_or_404(TimeOff, time_off_id, lock=lock)
    if row.doctor_id != doctor_id:
        raise not_found("time_off")
    return row


def find_time_off(actor: Actor, doctor: Doctor, query: ListQuery) -> Page[TimeOff]:
    """One page of a doctor's time off."""
    query.conditions.append(Condition("doctor_id", "eq", doctor.id))
    return paging.page(actor, TIME_OFF, query)


def take_time_off(
    actor: Actor,
    doctor: Doctor,
    *,
    start: datetime,
    end: datetime,
    reason: str | None = None,
    on_conflict: str | Mapping[str, int] | None = None,
    reassign_to: int | None = None,
) -> TimeOff:
    """A stretch in which the doctor is away; the caller holds the row.

    Booked appointments are settled as `absences.settle` says, or refuse it with 409 `booked_appointments`.
    """
    actor.require_own(doctor.id)
    if start >= end:
        raise invalid("end", "must be after start")
    row = TimeOff(doctor=doctor, doctor_id=doctor.id, start=start, end=end, reason=reason)
    db.session.add(row)
    absences.resolve_booked_appointments(
        actor,
        absences.booked_with(doctor.id, start, end),
        "The doctor has time off.",
        on_conflict=on_conflict,
        reassign_to=reassign_to,
    )
    db.session.flush()
    return row


def end_time_off(actor: Actor, row: TimeOff) -> TimeOff:
    """Take a time off back; answers it as it stood."""
    actor.require_own(row.doctor_id)
    db.session.refresh(row, ["doctor"])  # shown with the row, which can load nothing once it is deleted
    db.session.delete(row)
    db.session.flush()
    return row

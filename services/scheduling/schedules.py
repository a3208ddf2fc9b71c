"""A doctor's weekly hours, and the schedule of a range of days."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import combinations
from typing import TypedDict, Unpack

from sqlalchemy import select
from sqlalchemy.orm import joinedload

from enums import AppointmentStatus
from errors import ClinicError, invalid
from extensions import db
from models import Appointment, Doctor, ScheduleWindow, TimeOff
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.scheduling import appointment_search, availability
from services.scheduling.availability import OCCUPYING, Availability
from services.scheduling.booked_appointments import ConflictChoice, resolve_conflicts

DAY, WEEK = timedelta(days=1), timedelta(weeks=1)
DEFAULT_DAYS = 7  # days after the first one, if the request has no last day


class WindowFields(TypedDict):
    """Working hours that begin on a weekday (0 = Monday), as wall-clock time of the clinic.

    They end on the next day if the end is not after the start.
    """

    weekday: int
    start: time
    end: time


@dataclass(frozen=True)
class ScheduleDay:
    """One day of a schedule. `booked` is the number of scheduled and completed appointments."""

    date: date
    working: bool
    booked: int


@dataclass(frozen=True)
class Schedule:
    """A doctor's weekly hours, and time off, appointments and days of a date range.

    Cancelled appointments are not included. `version` is that of the doctor, and belongs to the weekly hours.
    """

    windows: list[ScheduleWindow]
    time_off: list[TimeOff]
    appointments: list[Appointment]
    days: list[ScheduleDay]
    version: int


def default_date_range(first: date | None, last: date | None) -> tuple[date, date]:
    """Return the requested days. The default is today and the next `DEFAULT_DAYS` days."""
    first = first or clock.today()
    return first, last or first + timedelta(days=DEFAULT_DAYS)


def get_windows(doctor_id: int) -> list[ScheduleWindow]:
    """Return the doctor's weekly hours in order."""
    statement = select(ScheduleWindow).where(ScheduleWindow.doctor_id == doctor_id)
    order = (ScheduleWindow.weekday, ScheduleWindow.start)
    return list(db.session.execute(statement.order_by(*order)).scalars())


def show(actor: Actor, doctor: Doctor, first: date | None = None, last: date | None = None) -> Schedule:
    """Return the schedule from day `first` to day `last`, both included.

    The audit log records the appointments as read. Raises 422 as `availability.check_date_range`.
    """
    first, last = default_date_range(first, last)
    availability.check_date_range(first, last)
    start, end = clock.day_start(first), clock.day_end(last)
    appointments = _find_appointments(doctor.id, start, end)
    appointment_search.add_computed_fields(actor, appointments)
    audit_log.record_read(
        "list", "appointment", [row.id for row in appointments], {row.patient_id for row in appointments}
    )
    time_off = _find_time_off(doctor.id, start, end)
    windows = get_windows(doctor.id)
    calendar = availability.Calendar(doctor, time_off=[(row.start, row.end) for row in time_off])
    for window in windows:
        calendar.windows.setdefault(window.weekday, []).append((window.start, window.end))
    booked = Counter(clock.local(row.start).date() for row in appointments if row.status in OCCUPYING)
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    return Schedule(
        windows,
        time_off,
        appointments,
        [
            ScheduleDay(
                day,
                working=bool(availability.subtract_intervals(calendar.hours_on(day), calendar.time_off)),
                booked=booked[day],
            )
            for day in days
        ],
        doctor.version,
    )


def _find_appointments(doctor_id: int, start: datetime, end: datetime) -> list[Appointment]:
    """Return the doctor's appointments that overlap the period, except cancelled ones."""
    statement = (
        select(Appointment)
        .where(
            Appointment.doctor_id == doctor_id,
            Appointment.status != AppointmentStatus.CANCELLED,
            Appointment.start < end,
            Appointment.start > start - availability.MAX_BLOCKED_TIME,
            Appointment.end > start,
        )
        .options(joinedload(Appointment.patient))
        .order_by(Appointment.start, Appointment.id)
    )
    return list(db.session.execute(statement).scalars())


def _find_time_off(doctor_id: int, start: datetime, end: datetime) -> list[TimeOff]:
    statement = (
        select(TimeOff)
        .where(TimeOff.doctor_id == doctor_id, TimeOff.start < end, TimeOff.end > start)
        .order_by(TimeOff.start, TimeOff.id)
    )
    return list(db.session.execute(statement).scalars())


def replace_windows(
    actor: Actor, doctor: Doctor, windows: Sequence[WindowFields], **choice: Unpack[ConflictChoice]
) -> Schedule:
    """Replace all weekly hours of a doctor. Without windows the doctor works at all hours.

    `resolve_conflicts` keeps, cancels or reassigns booked appointments outside the new hours, or raises its
    errors. Raises 422 with every window that overlaps another one.
    """
    actor.require_own(doctor.id)
    keys = [(window["weekday"], window["start"], window["end"]) for window in windows]
    new_keys = set(keys)
    errors = {
        f"windows.{keys.index(after)}": "overlaps another window"
        for before, after in combinations(sorted(new_keys), 2)
        if _overlap(before, after)
    }
    if errors:
        raise ClinicError("validation_failed", "Two windows overlap.", errors=errors)
    with resolve_conflicts(actor, doctor, "The hours of the doctor changed.", may_keep=True, **choice):
        stored = {(row.weekday, row.start, row.end): row for row in get_windows(doctor.id)}
        for key in stored.keys() - new_keys:
            db.session.delete(stored[key])
        db.session.flush()  # delete first: the constraints do not permit that old and new windows overlap
        for weekday, start, end in sorted(new_keys - stored.keys()):
            db.session.add(ScheduleWindow(doctor_id=doctor.id, weekday=weekday, start=start, end=end))
        if new_keys != stored.keys():
            doctor.updated_at = clock.now()  # raises the version, also if only the hours changed
    db.session.flush()
    return show(actor, doctor)


WindowKey = tuple[int, time, time]  # weekday, start, end


def _overlap(first: WindowKey, second: WindowKey) -> bool:
    """Return True if two windows overlap on the circle of the week: one starts inside the other."""
    (first_start, first_length), (second_start, second_length) = map(_place_in_week, (first, second))
    return (second_start - first_start) % WEEK < first_length or (
        first_start - second_start
    ) % WEEK < second_length


def _place_in_week(key: WindowKey) -> tuple[timedelta, timedelta]:
    """Return the start of a window since Monday 00:00, and its length, as wall-clock time."""
    weekday, start, end = key
    monday = datetime(2001, 1, 1)  # noqa: DTZ001 - wall-clock time of any week
    day = monday + timedelta(days=weekday)
    starts, ends = datetime.combine(day, start), datetime.combine(day, end)
    return starts - monday, (ends - starts) % DAY


def get_availability(
    _actor: Actor,
    doctor: Doctor,
    *,
    day: date | None = None,
    first: date | None = None,
    last: date | None = None,
    duration: int | None = None,
) -> Availability:
    """Return the free slots of one day or of a date range; `duration` in minutes.

    Raises 422 if both a day and a range are given.
    """
    if day is not None:
        if first is not None or last is not None:
            raise invalid("date", "give either date or start_date and end_date")
        return availability.get_availability(doctor, day, day, duration)
    return availability.get_availability(doctor, *default_date_range(first, last), duration)

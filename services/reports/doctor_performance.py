"""How doctors' work went: appointments kept, visits, treatments, money, and the hours it took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from typing import Any

from sqlalchemy import extract, func, select

from enums import AppointmentStatus, CancelledBy, Role, TreatmentStatus
from extensions import db
from models import Appointment, Doctor, ScheduleWindow, TimeOff, Treatment, Visit
from security.permissions import Actor
from services import clock
from services.billing import ledger
from services.billing.ledger import Sums
from services.reports import periods, revenue
from services.reports.periods import Span
from services.rows import get_referenced, mapping
from services.scheduling import availability
from services.scheduling.availability import Calendar

MINUTE = 60  # seconds
OCCUPYING = availability.OCCUPYING


@dataclass
class Attendance:
    """Appointments of a stretch of days by what became of them; `booked_minutes`: of those that took place
    or will."""

    by_status: Counter[AppointmentStatus] = field(default_factory=Counter)
    by_clinic: int = 0  # of the cancelled ones, those that the clinic cancelled
    waiting: int = 0  # scheduled, and the patient has checked in
    booked_minutes: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.by_status.total()

    @property
    def counts(self) -> dict[str, int]:
        """All of them, and how many are in which state."""
        return {"total": self.total} | {status: self.by_status[status] for status in AppointmentStatus}

    @property
    def completion_rate(self) -> float | None:
        """The part that was completed, 0 to 1; what the clinic cancelled does not count."""
        return self._rate(AppointmentStatus.COMPLETED)

    @property
    def no_show_rate(self) -> float | None:
        """The part that the patient missed, 0 to 1; what the clinic cancelled does not count."""
        return self._rate(AppointmentStatus.NO_SHOW)

    def _rate(self, status: AppointmentStatus) -> float | None:
        return ratio(self.by_status[status], self.total - self.by_clinic)


@dataclass(frozen=True)
class Performance:
    """One doctor's line of the report; rates are parts of one, None where there is nothing to divide by."""

    doctor: Doctor
    attendance: Attendance
    visit_count: int
    patients_seen: int
    treatments: int
    sums: Sums
    avg_visit_minutes: float | None
    utilisation: float | None


def ratio(part: float, whole: float) -> float | None:
    """`part` of `whole` to four places; None of nothing."""
    return round(part / whole, 4) if whole else None


def report(
    actor: Actor,
    *,
    start_date: date | None = None,
    end_date: date | None = None,
    doctor_id: int | None = None,
) -> list[Performance]:
    """A line for every doctor, or for the one named; a doctor sees the own line only, 403 else.

    Visits and treatments count by the day of the visit, money as in `services.reports.revenue`. Visit minutes
    run from check-in to signing. Utilisation is booked minutes of the working hours less time off; None for a
    doctor without hours, who can be booked at any time.
    """
    span = periods.span(start_date, end_date)
    doctors = _doctors(actor, doctor_id)
    attendances = attendance(span)
    visits = visits_of(span)
    treatments = _treatments(span)
    minutes = _visit_minutes(span)
    working = _working_minutes(span, doctors)
    money = revenue.of_doctors(span)
    lines = []
    for doctor in doctors:
        kept = attendances.get(doctor.id, Attendance())
        seen = visits.get(doctor.id, (0, 0))
        lines.append(
            Performance(
                doctor=doctor,
                attendance=kept,
                visit_count=seen[0],
                patients_seen=seen[1],
                treatments=treatments.get(doctor.id, 0),
                sums=money.get(doctor.id, ledger.EMPTY),
                avg_visit_minutes=minutes.get(doctor.id),
                utilisation=ratio(kept.booked_minutes, working.get(doctor.id, 0)),
            )
        )
    return lines


def _doctors(actor: Actor, doctor_id: int | None) -> Sequence[Doctor]:
    if doctor_id is not None:
        actor.require_own(doctor_id)
        return [get_referenced(Doctor, doctor_id, "doctor_id")]
    statement = select(Doctor).order_by(Doctor.id)
    own = own_doctor(actor)
    if own is not None:
        statement = statement.where(Doctor.id == own)
    return db.session.execute(statement).scalars().all()


def own_doctor(actor: Actor) -> int | None:
    """The doctor whom a caller's figures are limited to; 0, which none is, for a doctor's account without."""
    return (actor.doctor_id or 0) if actor.role is Role.DOCTOR else None


# --- Counting ------------------------------------------------------------------------------------------


def attendance(span: Span) -> dict[int, Attendance]:
    """The appointments that begin in a span, by doctor."""
    seconds = extract("epoch", Appointment.end) - extract("epoch", Appointment.start)
    checked_in = Appointment.checked_in_at.is_not(None)
    statement = (
        select(
            Appointment.doctor_id,
            Appointment.status,
            Appointment.cancelled_by,
            checked_in,
            func.count(),
            func.sum(seconds),
        )
        .where(span.holds(Appointment.start))
        .group_by(Appointment.doctor_id, Appointment.status, Appointment.cancelled_by, checked_in)
    )
    found: dict[int, Attendance] = {}
    for doctor_id, status, cancelled_by, here, count, length in db.session.execute(statement):
        kept = found.setdefault(doctor_id, Attendance())
        kept.by_status[status] += count
        if status is AppointmentStatus.CANCELLED and cancelled_by is CancelledBy.CLINIC:
            kept.by_clinic += count
        if status is AppointmentStatus.SCHEDULED and here:
            kept.waiting += count
        if status in OCCUPYING:
            kept.booked_minutes += int(length) // MINUTE
    return found


def visits_of(span: Span) -> dict[int, tuple[int, int]]:
    """Visits and different patients seen in a span, by doctor."""
    statement = (
        select(Visit.doctor_id, func.count(), func.count(Visit.patient_id.distinct()))
        .where(span.holds(Visit.date), Visit.voided_at.is_(None))
        .group_by(Visit.doctor_id)
    )
    return {row[0]: (row[1], row[2]) for row in db.session.execute(statement)}


def _treatments(span: Span) -> dict[int, int]:
    return mapping(
        select(Treatment.doctor_id, func.count())
        .join(Visit, Visit.id == Treatment.visit_id)
        .where(
            span.holds(Visit.date),
            Visit.voided_at.is_(None),
            Treatment.status == TreatmentStatus.COMPLETED,
        )
        .group_by(Treatment.doctor_id)
    )


def _visit_minutes(span: Span) -> dict[int, float]:
    seconds: Any = func.avg(extract("epoch", Visit.signed_at) - extract("epoch", Appointment.checked_in_at))
    found = mapping(
        select(Visit.doctor_id, seconds)
        .join(Appointment, Appointment.id == Visit.appointment_id)
        .where(
            span.holds(Visit.date),
            Visit.signed_at.is_not(None),
            Appointment.checked_in_at.is_not(None),
            Visit.signed_at >= Appointment.checked_in_at,
        )
        .group_by(Visit.doctor_id)
    )
    return {doctor_id: round(float(mean) / MINUTE, 1) for doctor_id, mean in found.items()}


# --- Working hours -------------------------------------------------------------------------------------


def _working_minutes(span: Span, doctors: Sequence[Doctor]) -> dict[int, float]:
    """Minutes of the weekly windows in the span less time off; nothing for a doctor without windows."""
    ids = [doctor.id for doctor in doctors]
    calendars = {doctor.id: Calendar(doctor) for doctor in doctors}
    for window in db.session.execute(
        select(ScheduleWindow).where(ScheduleWindow.doctor_id.in_(ids))
    ).scalars():
        hours = calendars[window.doctor_id].windows
        hours.setdefault(window.weekday, []).append((window.start, window.end))
    off = select(TimeOff).where(
        TimeOff.doctor_id.in_(ids), TimeOff.start < span.until, TimeOff.end > span.since
    )
    for row in db.session.execute(off).scalars():
        stretch = (max(row.start, span.since), min(row.end, span.until))
        calendars[row.doctor_id].time_off.append(stretch)
    weekdays = Counter(
        (span.start + timedelta(days=n)).weekday() for n in range((span.end - span.start).days + 1)
    )
    return {
        doctor_id: _window_minutes(calendar, weekdays) - _minutes_off(calendar)
        for doctor_id, calendar in calendars.items()
        if calendar.windows
    }


def _window_minutes(calendar: Calendar, weekdays: Counter[int]) -> float:
    return sum(
        count * (_minute(end) - _minute(start))
        for weekday, count in weekdays.items()
        for start, end in calendar.windows.get(weekday, ())
    )


def _minute(clock_time: time) -> int:
    """The minute of the day; the end of a window that lasts until midnight is the whole day's."""
    return 24 * 60 if clock_time == availability.END_OF_DAY else clock_time.hour * 60 + clock_time.minute


def _minutes_off(calendar: Calendar) -> float:
    lost = timedelta()
    for low, high in availability.merge_intervals(calendar.time_off):
        day, last = clock.local(low).date(), clock.local(high).date()
        while day <= last:
            for start, end in calendar.hours(day):
                lost += max(timedelta(), min(end, high) - max(start, low))
            day += timedelta(days=1)
    return lost.total_seconds() / MINUTE

"""The performance report of doctors: appointments, visits, treatments, revenue and utilisation."""

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

SECONDS_PER_MINUTE = 60
MINUTES_PER_DAY = 24 * 60
OCCUPYING = availability.OCCUPYING


@dataclass
class Attendance:
    """Counts of appointments by status."""

    by_status: Counter[AppointmentStatus] = field(default_factory=Counter)
    cancelled_by_clinic: int = 0
    waiting: int = 0  # scheduled, and the patient has checked in
    booked_minutes: int = 0  # of scheduled and completed appointments

    def add(self, other: Attendance) -> None:
        """Add the counts of another attendance."""
        self.by_status += other.by_status
        self.cancelled_by_clinic += other.cancelled_by_clinic
        self.waiting += other.waiting
        self.booked_minutes += other.booked_minutes

    @property
    def total(self) -> int:
        """The number of appointments."""
        return self.by_status.total()

    @property
    def counts(self) -> dict[str, int]:
        """The number of appointments, in total and by status."""
        return {"total": self.total} | {status: self.by_status[status] for status in AppointmentStatus}

    @property
    def completion_rate(self) -> float | None:
        """The share of completed appointments, 0 to 1, without those that the clinic cancelled."""
        return self._rate(AppointmentStatus.COMPLETED)

    @property
    def no_show_rate(self) -> float | None:
        """The share of missed appointments, 0 to 1, without those that the clinic cancelled."""
        return self._rate(AppointmentStatus.NO_SHOW)

    def _rate(self, status: AppointmentStatus) -> float | None:
        return ratio(self.by_status[status], self.total - self.cancelled_by_clinic)


@dataclass(frozen=True)
class Performance:
    """The figures of one doctor. Rates are from 0 to 1; None without a divisor."""

    doctor: Doctor
    attendance: Attendance
    visit_count: int
    patients_seen: int
    treatments: int
    sums: Sums
    avg_visit_minutes: float | None
    utilisation: float | None


def ratio(part: float, whole: float) -> float | None:
    """Return `part` / `whole` with four decimal places, or None if `whole` is zero."""
    return round(part / whole, 4) if whole else None


def report(
    actor: Actor,
    *,
    start_date: date | None = None,
    end_date: date | None = None,
    doctor_id: int | None = None,
) -> list[Performance]:
    """Return the figures of every doctor, or of one. Doctors: own figures only, otherwise 403.

    Visits and treatments count on the day of the visit, money as in `services.reports.revenue`. Visit minutes
    are the time from check-in to signature. Utilisation is booked minutes / (working hours - time off). It is
    None for a doctor without working hours, who can be booked at any time.
    """
    span = periods.span(start_date, end_date)
    doctors = _doctors(actor, doctor_id)
    attendances = attendance(span)
    visits = visits_of(span)
    treatments = _treatments(span)
    visit_minutes = _average_visit_minutes(span)
    working_minutes = _working_minutes(span, doctors)
    sums = revenue.of_doctors(span)
    report_lines = []
    for doctor in doctors:
        of_doctor = attendances.get(doctor.id, Attendance())
        visit_count, patients_seen = visits.get(doctor.id, (0, 0))
        report_lines.append(
            Performance(
                doctor=doctor,
                attendance=of_doctor,
                visit_count=visit_count,
                patients_seen=patients_seen,
                treatments=treatments.get(doctor.id, 0),
                sums=sums.get(doctor.id, ledger.EMPTY),
                avg_visit_minutes=visit_minutes.get(doctor.id),
                utilisation=ratio(of_doctor.booked_minutes, working_minutes.get(doctor.id, 0)),
            )
        )
    return report_lines


def _doctors(actor: Actor, doctor_id: int | None) -> Sequence[Doctor]:
    if doctor_id is not None:
        actor.require_own(doctor_id)
        return [get_referenced(Doctor, doctor_id, "doctor_id")]
    statement = select(Doctor).order_by(Doctor.id)
    own_id = own_doctor_id(actor)
    if own_id is not None:
        statement = statement.where(Doctor.id == own_id)
    return db.session.execute(statement).scalars().all()


def own_doctor_id(actor: Actor) -> int | None:
    """Return the id of the doctor to which the figures of the caller are limited; None without a limit.

    A user of role doctor without a doctor record gets 0, which is the id of no doctor.
    """
    return (actor.doctor_id or 0) if actor.role is Role.DOCTOR else None


# --- Counts --------------------------------------------------------------------------------------------


def attendance(span: Span) -> dict[int, Attendance]:
    """Return the attendance of the appointments that start in a span, by doctor."""
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
        .where(span.contains(Appointment.start))
        .group_by(Appointment.doctor_id, Appointment.status, Appointment.cancelled_by, checked_in)
    )
    by_doctor: dict[int, Attendance] = {}
    for doctor_id, status, cancelled_by, is_checked_in, count, length in db.session.execute(statement):
        counts = by_doctor.setdefault(doctor_id, Attendance())
        counts.by_status[status] += count
        if status is AppointmentStatus.CANCELLED and cancelled_by is CancelledBy.CLINIC:
            counts.cancelled_by_clinic += count
        if status is AppointmentStatus.SCHEDULED and is_checked_in:
            counts.waiting += count
        if status in OCCUPYING:
            counts.booked_minutes += int(length) // SECONDS_PER_MINUTE
    return by_doctor


def visits_of(span: Span) -> dict[int, tuple[int, int]]:
    """Return the number of visits and of distinct patients in a span, by doctor."""
    statement = (
        select(Visit.doctor_id, func.count(), func.count(Visit.patient_id.distinct()))
        .where(span.contains(Visit.date), Visit.voided_at.is_(None))
        .group_by(Visit.doctor_id)
    )
    return {row[0]: (row[1], row[2]) for row in db.session.execute(statement)}


def _treatments(span: Span) -> dict[int, int]:
    return mapping(
        select(Treatment.doctor_id, func.count())
        .join(Visit, Visit.id == Treatment.visit_id)
        .where(
            span.contains(Visit.date),
            Visit.voided_at.is_(None),
            Treatment.status == TreatmentStatus.COMPLETED,
        )
        .group_by(Treatment.doctor_id)
    )


def _average_visit_minutes(span: Span) -> dict[int, float]:
    seconds: Any = func.avg(extract("epoch", Visit.signed_at) - extract("epoch", Appointment.checked_in_at))
    averages = mapping(
        select(Visit.doctor_id, seconds)
        .join(Appointment, Appointment.id == Visit.appointment_id)
        .where(
            span.contains(Visit.date),
            Visit.signed_at.is_not(None),
            Appointment.checked_in_at.is_not(None),
            Visit.signed_at >= Appointment.checked_in_at,
        )
        .group_by(Visit.doctor_id)
    )
    return {
        doctor_id: round(float(average) / SECONDS_PER_MINUTE, 1) for doctor_id, average in averages.items()
    }


# --- Working hours -------------------------------------------------------------------------------------


def _working_minutes(span: Span, doctors: Sequence[Doctor]) -> dict[int, float]:
    """Return the minutes of the weekly windows less time off. Doctors without windows are left out."""
    ids = [doctor.id for doctor in doctors]
    calendars = {doctor.id: Calendar(doctor) for doctor in doctors}
    for window in db.session.execute(
        select(ScheduleWindow).where(ScheduleWindow.doctor_id.in_(ids))
    ).scalars():
        hours = calendars[window.doctor_id].windows
        hours.setdefault(window.weekday, []).append((window.start, window.end))
    time_off = select(TimeOff).where(
        TimeOff.doctor_id.in_(ids), TimeOff.start < span.until, TimeOff.end > span.since
    )
    for row in db.session.execute(time_off).scalars():
        interval = (max(row.start, span.since), min(row.end, span.until))
        calendars[row.doctor_id].time_off.append(interval)
    weekdays = Counter(
        (span.start + timedelta(days=n)).weekday() for n in range((span.end - span.start).days + 1)
    )
    return {
        doctor_id: _window_minutes(calendar, weekdays) - _time_off_minutes(calendar)
        for doctor_id, calendar in calendars.items()
        if calendar.windows
    }


def _window_minutes(calendar: Calendar, weekdays: Counter[int]) -> int:
    """Return the minutes of the windows on these days. A night shift counts on both days."""
    minutes = 0
    for weekday, windows in calendar.windows.items():
        for start, end in windows:
            opens, closes = _minute_of_day(start), _minute_of_day(end)
            is_overnight = closes <= opens
            minutes += weekdays[weekday] * ((MINUTES_PER_DAY if is_overnight else closes) - opens)
            minutes += weekdays[(weekday + 1) % 7] * closes * is_overnight
    return minutes


def _minute_of_day(clock_time: time) -> int:
    """Return the minute of the day. The end of a window that lasts until midnight is minute 1440."""
    return (
        MINUTES_PER_DAY if clock_time == availability.END_OF_DAY else clock_time.hour * 60 + clock_time.minute
    )


def _time_off_minutes(calendar: Calendar) -> float:
    overlap = timedelta()
    for low, high in availability.merge_intervals(calendar.time_off):
        day, last = clock.local(low).date(), clock.local(high).date()
        while day <= last:
            for start, end in calendar.hours_on(day):
                overlap += max(timedelta(), min(end, high) - max(start, low))
            day += timedelta(days=1)
    return overlap.total_seconds() / SECONDS_PER_MINUTE

"""When a doctor is free: working hours less time off less what is booked, in the clinic's calendar.

Everything here is computed on a `Calendar`, which is loaded for any number of doctors by one query.
Intervals are half-open pairs of instants, so back-to-back is no overlap. The judge asks the same calendar,
so that a time offered is a time that can be booked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    Integer,
    Select,
    String,
    Time,
    bindparam,
    cast,
    literal_column,
    null,
    select,
    union_all,
)

from column_types import BigId, InstantType
from enums import AppointmentStatus
from errors import invalid
from models import Appointment, Base, Doctor, ScheduleWindow, TimeOff
from services import clock
from services.rows import execute_core

Interval = tuple[datetime, datetime]
Booking = tuple[datetime, datetime, datetime]  # start, end, end with the buffer

OCCUPYING = (AppointmentStatus.SCHEDULED, AppointmentStatus.COMPLETED)
SHORTEST, LONGEST = 5, 480  # minutes an appointment takes
# How long before an instant something that still blocks it can have begun: duration and buffer at most.
REACH = timedelta(minutes=LONGEST + 240)
MOST_DAYS = 62  # days a schedule or an availability spans at most
SPAN = 31  # days looked at with one load
HORIZON = 366  # days after which the search for a free time gives up
# `at midnight`: the end of a window that lasts until the day is over, which is no time of the day
MIDNIGHT = time.max


class Slot(NamedTuple):
    """A time that can be booked."""

    start: datetime
    end: datetime


@dataclass(frozen=True)
class Day:
    """What one day of the clinic offers: bookable times, and why there is none."""

    date: date
    slots: list[Slot]
    reason: str | None

    @property
    def available(self) -> bool:
        """Whether there is a time at all."""
        return bool(self.slots)


@dataclass(frozen=True)
class Availability:
    """What a stretch of days offers. `reason` is that of the day that comes nearest to having a time."""

    slots: list[Slot]
    next_available: datetime | None
    reason: str | None
    days: list[Day]

    @property
    def available(self) -> bool:
        """Whether there is a time at all."""
        return bool(self.slots)


# --- Intervals -----------------------------------------------------------------------------------------


def merged(intervals: Iterable[Interval]) -> list[Interval]:
    """The intervals in order, those that touch or overlap made one, empty ones dropped."""
    found: list[Interval] = []
    for start, end in sorted(intervals):
        if start >= end:
            continue  # hours that lie in the gap when the clocks jump ahead
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def subtract(intervals: Sequence[Interval], holes: Iterable[Interval]) -> list[Interval]:
    """What is left of merged intervals without the holes."""
    left = list(intervals)
    for hole_start, hole_end in merged(holes):
        left = [
            part
            for start, end in left
            for part in ((start, min(end, hole_start)), (max(start, hole_end), end))
            if part[0] < part[1]
        ]
    return left


def _clip(intervals: Iterable[Interval], low: datetime, high: datetime) -> list[Interval]:
    return [(max(s, low), min(e, high)) for s, e in intervals if max(s, low) < min(e, high)]


def _crossing(intervals: Iterable[Interval], low: datetime, high: datetime) -> list[Interval]:
    return [(start, end) for start, end in intervals if start < high and end > low]


# --- Calendar ------------------------------------------------------------------------------------------


@dataclass
class Calendar:
    """One doctor's hours by weekday, time off and bookings over the stretch it was loaded for.

    `others` are times that do not suit for another reason: the patient's own appointments.
    """

    doctor: Doctor
    windows: dict[int, list[tuple[time, time]]] = field(default_factory=dict)
    time_off: list[Interval] = field(default_factory=list)
    booked: list[Booking] = field(default_factory=list)
    others: list[Interval] = field(default_factory=list)

    def hours(self, day: date) -> list[Interval]:
        """The working hours that begin on a day; the whole day for a doctor without windows."""
        if not self.windows:
            return [(clock.day_start(day), clock.day_end(day))]
        return merged(
            (clock.at(day, start), clock.day_end(day) if end == MIDNIGHT else clock.at(day, end))
            for start, end in self.windows.get(day.weekday(), ())
        )

    def covers(self, start: datetime, end: datetime) -> bool:
        """Whether the doctor works from start to end; windows that touch are one, over midnight too."""
        first, last = clock.local(start).date(), clock.local(end).date()
        days = (last - first).days + 1
        hours = merged(part for n in range(days) for part in self.hours(first + timedelta(days=n)))
        return any(low <= start and end <= high for low, high in hours)

    def licensed(self, end: datetime) -> bool:
        """Whether the licence lasts to the end of an appointment; it is good through its last day."""
        expires = self.doctor.license_expires_on
        return expires is None or end <= clock.day_end(expires)

    def day(self, day: date, duration: int, not_before: datetime) -> Day:
        """The times of `duration` minutes that can be booked on a day from `not_before` on.

        Times lie on the doctor's grid of `slot_minutes` from the beginning of the hours. A gap that holds
        the duration but no time of the grid offers its own beginning.
        """
        doctor, low, high = self.doctor, clock.day_start(day), clock.day_end(day)
        if not doctor.is_active:
            return Day(day, [], "inactive")
        if doctor.license_expires_on is not None and day > doctor.license_expires_on:
            return Day(day, [], "license_expired")
        whole = self.hours(day)
        today = _clip(whole, not_before, high)
        if not today:
            return Day(day, [], "no_hours")
        if not subtract(today, _crossing(self.time_off, low, high)):
            return Day(day, [], "time_off")
        gaps = self._gaps(whole, day, not_before)
        if not any(end - start >= timedelta(minutes=SHORTEST) for start, end in gaps):
            return Day(day, [], "full")
        slots = [slot for gap in gaps for slot in self._slots(gap, whole, timedelta(minutes=duration), high)]
        return Day(day, slots, None if slots else "no_gap_long_enough")

    def _gaps(self, hours: list[Interval], day: date, not_before: datetime) -> list[Interval]:
        """What is free of the hours that begin on the day, running on into the next where they do."""
        tomorrow = day + timedelta(days=1)
        low, high = clock.day_start(day), clock.day_end(tomorrow)
        if self.doctor.license_expires_on == day:
            high = clock.day_end(day)
        buffer = timedelta(minutes=self.doctor.buffer_minutes)
        # a new appointment is followed by its buffer too: it must end that long before the next begins
        taken = [(start - buffer, blocked_until) for start, _end, blocked_until in self.booked]
        open_hours = _clip(merged([*hours, *self.hours(tomorrow)]), max(low, not_before), high)
        holes = [*self.time_off, *taken, *self.others]
        gaps = subtract(open_hours, _crossing(holes, low, high))
        return [gap for gap in gaps if gap[0] < clock.day_end(day)]

    def _slots(
        self, gap: Interval, hours: list[Interval], length: timedelta, day_end: datetime
    ) -> list[Slot]:
        step = timedelta(minutes=self.doctor.slot_minutes)
        found = []
        for start, end in hours:
            at = start + step * max(0, -((start - gap[0]) // step))  # the first of the grid in the gap
            while at < end and at + length <= gap[1]:
                found.append(Slot(at, at + length))
                at += step
        first = _whole_minute(gap[0])
        if not found and first < day_end and first + length <= gap[1]:
            found.append(Slot(first, first + length))
        return found


def _whole_minute(instant: datetime) -> datetime:
    floor = instant.replace(second=0, microsecond=0)
    return floor if floor == instant else floor + timedelta(minutes=1)


def load(
    doctors: Sequence[Doctor],
    start: datetime,
    end: datetime,
    *,
    ignore: int | None = None,
    patient_id: int | None = None,
) -> dict[int, Calendar]:
    """Calendars by doctor id, good from start to end; in one query for any number of doctors.

    `ignore` is an appointment that is about to move; `patient_id` also loads that patient's times.
    """
    found = {doctor.id: Calendar(doctor) for doctor in doctors}
    others: list[Interval] = []
    rows = execute_core(
        _CALENDARS if patient_id is None else _CALENDARS_AND_PATIENT,
        doctors=list(found),
        since=start,
        until=end,
        reached_since=start - REACH,
        reached_until=end + REACH,
        ignored=ignore or 0,
        patient=patient_id,
    )
    for row in rows:
        if row.kind == "patient":
            others.append((row.begins, row.ends))
        elif row.kind == "window":
            found[row.doctor_id].windows.setdefault(row.weekday, []).append((row.opens, row.closes))
        elif row.kind == "off":
            found[row.doctor_id].time_off.append((row.begins, row.ends))
        else:
            found[row.doctor_id].booked.append((row.begins, row.ends, row.until))
    for calendar in found.values():
        calendar.others = others
    return found


def _calendar_part(kind: str, model: type[Base], **shown: Any) -> Select[Any]:
    """One kind of row of a calendar, in the columns of all kinds."""
    kinds: dict[str, Any] = {
        "doctor_id": BigId,
        "weekday": Integer(),
        "opens": Time(),
        "closes": Time(),
        "begins": InstantType(),
        "ends": InstantType(),
        "until": InstantType(),
    }
    told = [(shown[name] if name in shown else cast(null(), of)).label(name) for name, of in kinds.items()]
    return select(literal_column(f"'{kind}'", String()).label("kind"), *told).select_from(model)


_OCCUPIED = (
    Appointment.status.in_(OCCUPYING),
    Appointment.start < bindparam("reached_until", type_=InstantType()),
    Appointment.start > bindparam("reached_since", type_=InstantType()),
    Appointment.id != bindparam("ignored"),
)
_PARTS = (
    _calendar_part(
        "window",
        ScheduleWindow,
        doctor_id=ScheduleWindow.doctor_id,
        weekday=ScheduleWindow.weekday,
        opens=ScheduleWindow.start,
        closes=ScheduleWindow.end,
    ).where(ScheduleWindow.doctor_id.in_(bindparam("doctors", expanding=True))),
    _calendar_part("off", TimeOff, doctor_id=TimeOff.doctor_id, begins=TimeOff.start, ends=TimeOff.end).where(
        TimeOff.doctor_id.in_(bindparam("doctors", expanding=True)),
        TimeOff.start < bindparam("until", type_=InstantType()),
        TimeOff.end > bindparam("since", type_=InstantType()),
    ),
    _calendar_part(
        "booked",
        Appointment,
        doctor_id=Appointment.doctor_id,
        begins=Appointment.start,
        ends=Appointment.end,
        until=Appointment.blocked_until,
    ).where(Appointment.doctor_id.in_(bindparam("doctors", expanding=True)), *_OCCUPIED),
)
_OWN = _calendar_part("patient", Appointment, begins=Appointment.start, ends=Appointment.end).where(
    Appointment.patient_id == bindparam("patient"), *_OCCUPIED
)
_CALENDARS = union_all(*_PARTS).execution_options(prepare=True)
_CALENDARS_AND_PATIENT = union_all(*_PARTS, _OWN).execution_options(prepare=True)


# --- Questions -----------------------------------------------------------------------------------------


def next_free(
    doctor: Doctor,
    duration: int,
    after: datetime,
    count: int,
    *,
    ignore: int | None = None,
    patient_id: int | None = None,
) -> list[Slot]:
    """The first `count` times of `duration` minutes from `after` on, looking a year ahead at most."""
    after = max(after, clock.now())
    day, found = clock.local(after).date(), list[Slot]()
    for _ in range(0, HORIZON, SPAN):
        if not doctor.is_active or (doctor.license_expires_on and day > doctor.license_expires_on):
            break
        last = day + timedelta(days=SPAN)
        calendar = load(
            [doctor], clock.day_start(day), clock.day_end(last), ignore=ignore, patient_id=patient_id
        )[doctor.id]
        while day < last:
            found += calendar.day(day, duration, after).slots
            if len(found) >= count:
                return found[:count]
            day += timedelta(days=1)
    return found


def first_free(calendar: Calendar, after: datetime, days: int) -> datetime | None:
    """The first time of the doctor's usual length within so many days of a calendar that is loaded."""
    day = clock.local(after).date()
    for _ in range(days):
        slots = calendar.day(day, calendar.doctor.slot_minutes, after).slots
        if slots:
            return slots[0][0]
        day += timedelta(days=1)
    return None


def between(doctor: Doctor, first: date, last: date, duration: int | None = None) -> Availability:
    """What the days from first to last offer; `duration` in minutes, by default the doctor's slot."""
    check_span(first, last)
    duration = duration or doctor.slot_minutes
    now = clock.now()
    calendar = load([doctor], clock.day_start(first), clock.day_end(last + timedelta(days=1)))[doctor.id]
    days = [calendar.day(first + timedelta(days=n), duration, now) for n in range((last - first).days + 1)]
    slots = [slot for day in days for slot in day.slots]
    if slots:
        return Availability(slots, slots[0][0], None, days)
    later = next_free(doctor, duration, clock.day_end(last), 1)
    reasons = {day.reason for day in days}
    nearest = ("no_gap_long_enough", "full", "time_off", "no_hours", "license_expired", "inactive")
    return Availability(
        [], later[0][0] if later else None, next(code for code in nearest if code in reasons), days
    )


def check_span(first: date, last: date) -> None:
    """422 for days in the wrong order or too many of them."""
    if last < first:
        raise invalid("end_date", "must not be before start_date")
    if (last - first).days > MOST_DAYS:
        raise invalid("end_date", f"must be at most {MOST_DAYS} days after start_date")

"""Availability of doctors: working hours minus time off minus appointments, in the clinic's time zone.

All results are computed from a `Calendar`; one query loads the calendars of any number of doctors.
Intervals are half-open pairs of instants, so back-to-back appointments do not overlap. The booking rules use
the same calendar, so every offered time can be booked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    BindParameter,
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
MIN_DURATION, MAX_DURATION = 5, 480  # minutes of an appointment
# An appointment that blocks an instant starts at most this long before it: longest duration plus buffer.
MAX_BLOCKED_TIME = timedelta(minutes=MAX_DURATION + 240)
MAX_DAYS = 62  # days in one schedule or availability response
DAYS_PER_LOAD = 31  # days that one query loads in the search for a free time
MAX_SEARCH_DAYS = 366  # days after which the search for a free time stops
# 24:00, the end of a window that lasts until the end of the day; `time` cannot represent it
END_OF_DAY = time.max


class Slot(NamedTuple):
    """A time that can be booked."""

    start: datetime
    end: datetime


@dataclass(frozen=True)
class Day:
    """The free slots of one day, or the reason why there is none."""

    date: date
    slots: list[Slot]
    reason: str | None

    @property
    def available(self) -> bool:
        """True if there is at least one slot."""
        return bool(self.slots)


@dataclass(frozen=True)
class Availability:
    """The free slots of a range of days. Without slots, `reason` is the reason of the least blocked day."""

    slots: list[Slot]
    next_available: datetime | None
    reason: str | None
    days: list[Day]

    @property
    def available(self) -> bool:
        """True if there is at least one slot."""
        return bool(self.slots)


# --- Intervals -----------------------------------------------------------------------------------------


def merge_intervals(intervals: Iterable[Interval]) -> list[Interval]:
    """Return the intervals sorted, with touching and overlapping ones merged and empty ones removed."""
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if start >= end:
            continue  # working hours inside the hour that daylight saving time skips
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def subtract_intervals(intervals: Sequence[Interval], removed: Iterable[Interval]) -> list[Interval]:
    """Return the parts of merged intervals that no removed interval covers."""
    remaining = list(intervals)
    for removed_start, removed_end in merge_intervals(removed):
        remaining = [
            part
            for start, end in remaining
            for part in ((start, min(end, removed_start)), (max(start, removed_end), end))
            if part[0] < part[1]
        ]
    return remaining


def _clip(intervals: Iterable[Interval], low: datetime, high: datetime) -> list[Interval]:
    return [(max(s, low), min(e, high)) for s, e in intervals if max(s, low) < min(e, high)]


def _overlapping(intervals: Iterable[Interval], low: datetime, high: datetime) -> list[Interval]:
    return [(start, end) for start, end in intervals if start < high and end > low]


def window_end(day: date, start: time, end: time) -> datetime:
    """Return the end of a window that begins on a day. It is on the next day if it is not after the start."""
    if end == END_OF_DAY:
        return clock.day_end(day)
    return clock.at(day if start < end else day + timedelta(days=1), end)


# --- Calendar ------------------------------------------------------------------------------------------


@dataclass
class Calendar:
    """A doctor's hours by weekday, time off and appointments in the loaded period.

    `booked` are the doctor's appointments, `patient_busy` the appointments of the patient to book for.
    """

    doctor: Doctor
    windows: dict[int, list[tuple[time, time]]] = field(default_factory=dict)
    time_off: list[Interval] = field(default_factory=list)
    booked: list[Booking] = field(default_factory=list)
    patient_busy: list[Interval] = field(default_factory=list)

    def _hours_from(self, day: date) -> list[Interval]:
        """Return the working hours that begin on a day; the whole day for a doctor without windows."""
        if not self.windows:
            return [(clock.day_start(day), clock.day_end(day))]
        return merge_intervals(
            (clock.at(day, start), window_end(day, start, end))
            for start, end in self.windows.get(day.weekday(), ())
        )

    def hours(self, day: date) -> list[Interval]:
        """Return the working hours that overlap a day. Those of a night shift may begin the day before."""
        evening = self._hours_from(day - timedelta(days=1))
        return [*_overlapping(evening, clock.day_start(day), clock.day_end(day)), *self._hours_from(day)]

    def hours_on(self, day: date) -> list[Interval]:
        """Return the parts of the working hours that are on a day."""
        return _clip(self.hours(day), clock.day_start(day), clock.day_end(day))

    def covers(self, start: datetime, end: datetime) -> bool:
        """Return True if the doctor works from start to end. Windows that touch count as one."""
        first, last = clock.local(start).date(), clock.local(end).date()
        days = (last - first).days + 1
        hours = merge_intervals(
            window for n in range(-1, days) for window in self._hours_from(first + timedelta(days=n))
        )
        return any(opens <= start and end <= closes for opens, closes in hours)

    def is_licensed(self, end: datetime) -> bool:
        """Return True if the licence is valid at the end of an appointment. Its last day is included."""
        expires = self.doctor.license_expires_on
        return expires is None or end <= clock.day_end(expires)

    def day(self, day: date, duration: int, not_before: datetime) -> Day:
        """Return the free slots of `duration` minutes on a day, from `not_before` on.

        Slots start every `slot_minutes` of the doctor, counted from the start of the working hours. A gap
        that is long enough but contains no such start has one slot, at the start of the gap.
        """
        doctor, day_start, day_end = self.doctor, clock.day_start(day), clock.day_end(day)
        if not doctor.is_active:
            return Day(day, [], "inactive")
        if doctor.license_expires_on is not None and day > doctor.license_expires_on:
            return Day(day, [], "license_expired")
        hours = self.hours(day)
        remaining_hours = _clip(hours, max(day_start, not_before), day_end)
        if not remaining_hours:
            return Day(day, [], "no_hours")
        if not subtract_intervals(remaining_hours, _overlapping(self.time_off, day_start, day_end)):
            return Day(day, [], "time_off")
        gaps = self._find_gaps(hours, day, not_before)
        if not any(end - start >= timedelta(minutes=MIN_DURATION) for start, end in gaps):
            return Day(day, [], "full")
        length = timedelta(minutes=duration)
        slots = [slot for gap in gaps for slot in self._find_slots(gap, hours, length, day_end)]
        return Day(day, slots, None if slots else "no_gap_long_enough")

    def _find_gaps(self, hours: list[Interval], day: date, not_before: datetime) -> list[Interval]:
        """Return the free intervals that begin on the day. They may end on the next day."""
        tomorrow = day + timedelta(days=1)
        start, end = clock.day_start(day), clock.day_end(tomorrow)
        if self.doctor.license_expires_on == day:
            end = clock.day_end(day)
        buffer = timedelta(minutes=self.doctor.buffer_minutes)
        # a new appointment has a buffer too: it must end that long before the next one starts
        blocked = [
            (booked_start - buffer, blocked_until) for booked_start, _end, blocked_until in self.booked
        ]
        open_hours = _clip(
            merge_intervals([*hours, *self._hours_from(tomorrow)]), max(start, not_before), end
        )
        busy = [*self.time_off, *blocked, *self.patient_busy]
        gaps = subtract_intervals(open_hours, _overlapping(busy, start, end))
        return [gap for gap in gaps if gap[0] < clock.day_end(day)]

    def _find_slots(
        self, gap: Interval, hours: list[Interval], length: timedelta, day_end: datetime
    ) -> list[Slot]:
        gap_start, gap_end = gap
        step = timedelta(minutes=self.doctor.slot_minutes)
        slots = []
        for opens, closes in hours:
            start = opens + step * max(0, -((opens - gap_start) // step))  # first multiple of step in the gap
            while start < min(closes, day_end) and start + length <= gap_end:
                slots.append(Slot(start, start + length))
                start += step
        start = _round_up_to_minute(gap_start)
        if not slots and start < day_end and start + length <= gap_end:
            slots.append(Slot(start, start + length))
        return slots


def _round_up_to_minute(instant: datetime) -> datetime:
    floor = instant.replace(second=0, microsecond=0)
    return floor if floor == instant else floor + timedelta(minutes=1)


def load_calendars(
    doctors: Sequence[Doctor],
    start: datetime,
    end: datetime,
    *,
    ignore: int | None = None,
    patient_id: int | None = None,
) -> dict[int, Calendar]:
    """Return the calendars by doctor id, complete from start to end; one query for any number of doctors.

    `ignore` is the id of an appointment that moves. `patient_id` also loads the patient's appointments.
    """
    calendars = {doctor.id: Calendar(doctor) for doctor in doctors}
    patient_busy: list[Interval] = []
    rows = execute_core(
        _CALENDARS if patient_id is None else _CALENDARS_AND_PATIENT,
        doctor_ids=list(calendars),
        period_start=start,
        period_end=end,
        booked_after=start - MAX_BLOCKED_TIME,
        booked_before=end + MAX_BLOCKED_TIME,
        ignored_id=ignore or 0,
        patient_id=patient_id,
    )
    for row in rows:
        if row.kind == "patient":
            patient_busy.append((row.start, row.end))
        elif row.kind == "window":
            calendars[row.doctor_id].windows.setdefault(row.weekday, []).append((row.opens, row.closes))
        elif row.kind == "time_off":
            calendars[row.doctor_id].time_off.append((row.start, row.end))
        else:
            calendars[row.doctor_id].booked.append((row.start, row.end, row.blocked_until))
    for calendar in calendars.values():
        calendar.patient_busy = patient_busy
    return calendars


def _select_calendar_rows(kind: str, model: type[Base], **selected: Any) -> Select[Any]:
    """Select one kind of calendar row. All kinds have the same columns, so that UNION ALL can join them."""
    types: dict[str, Any] = {
        "doctor_id": BigId,
        "weekday": Integer(),
        "opens": Time(),
        "closes": Time(),
        "start": InstantType(),
        "end": InstantType(),
        "blocked_until": InstantType(),
    }
    columns = [
        (selected[name] if name in selected else cast(null(), column_type)).label(name)
        for name, column_type in types.items()
    ]
    return select(literal_column(f"'{kind}'", String()).label("kind"), *columns).select_from(model)


_OF_DOCTORS: BindParameter[Any] = bindparam("doctor_ids", expanding=True)
_OCCUPIED = (
    Appointment.status.in_(OCCUPYING),
    Appointment.start < bindparam("booked_before", type_=InstantType()),
    Appointment.start > bindparam("booked_after", type_=InstantType()),
    Appointment.id != bindparam("ignored_id"),
)
_WINDOWS = _select_calendar_rows(
    "window",
    ScheduleWindow,
    doctor_id=ScheduleWindow.doctor_id,
    weekday=ScheduleWindow.weekday,
    opens=ScheduleWindow.start,
    closes=ScheduleWindow.end,
).where(ScheduleWindow.doctor_id.in_(_OF_DOCTORS))
_TIME_OFF = _select_calendar_rows(
    "time_off", TimeOff, doctor_id=TimeOff.doctor_id, start=TimeOff.start, end=TimeOff.end
).where(
    TimeOff.doctor_id.in_(_OF_DOCTORS),
    TimeOff.start < bindparam("period_end", type_=InstantType()),
    TimeOff.end > bindparam("period_start", type_=InstantType()),
)
_BOOKED = _select_calendar_rows(
    "booked",
    Appointment,
    doctor_id=Appointment.doctor_id,
    start=Appointment.start,
    end=Appointment.end,
    blocked_until=Appointment.blocked_until,
).where(Appointment.doctor_id.in_(_OF_DOCTORS), *_OCCUPIED)
_OF_PATIENT = _select_calendar_rows(
    "patient", Appointment, start=Appointment.start, end=Appointment.end
).where(Appointment.patient_id == bindparam("patient_id"), *_OCCUPIED)
_CALENDARS = union_all(_WINDOWS, _TIME_OFF, _BOOKED).execution_options(prepare=True)
_CALENDARS_AND_PATIENT = union_all(_WINDOWS, _TIME_OFF, _BOOKED, _OF_PATIENT).execution_options(prepare=True)


# --- Free times ----------------------------------------------------------------------------------------


def find_next_slots(
    doctor: Doctor,
    duration: int,
    after: datetime,
    count: int,
    *,
    ignore: int | None = None,
    patient_id: int | None = None,
) -> list[Slot]:
    """Return the first `count` slots of `duration` minutes from `after` on, at most a year ahead."""
    after = max(after, clock.now())
    day = clock.local(after).date()
    slots: list[Slot] = []
    for _ in range(0, MAX_SEARCH_DAYS, DAYS_PER_LOAD):
        if not doctor.is_active or (doctor.license_expires_on and day > doctor.license_expires_on):
            break
        last = day + timedelta(days=DAYS_PER_LOAD)
        calendar = load_calendars(
            [doctor], clock.day_start(day), clock.day_end(last), ignore=ignore, patient_id=patient_id
        )[doctor.id]
        while day < last:
            slots += calendar.day(day, duration, after).slots
            if len(slots) >= count:
                return slots[:count]
            day += timedelta(days=1)
    return slots


def find_first_start(calendar: Calendar, after: datetime, days: int) -> datetime | None:
    """Return the start of the first slot of the doctor's usual length within `days` of a loaded calendar."""
    day = clock.local(after).date()
    for _ in range(days):
        slots = calendar.day(day, calendar.doctor.slot_minutes, after).slots
        if slots:
            return slots[0].start
        day += timedelta(days=1)
    return None


def get_availability(doctor: Doctor, first: date, last: date, duration: int | None = None) -> Availability:
    """Return the free slots from day `first` to day `last`, both included.

    `duration` is in minutes; the default is the doctor's `slot_minutes`. Raises 422 as `check_date_range`.
    """
    check_date_range(first, last)
    duration = duration or doctor.slot_minutes
    now = clock.now()
    calendar = load_calendars([doctor], clock.day_start(first), clock.day_end(last + timedelta(days=1)))[
        doctor.id
    ]
    days = [calendar.day(first + timedelta(days=n), duration, now) for n in range((last - first).days + 1)]
    slots = [slot for day in days for slot in day.slots]
    if slots:
        return Availability(slots, slots[0].start, None, days)
    later = find_next_slots(doctor, duration, clock.day_end(last), 1)
    reasons = {day.reason for day in days}
    reason = next(code for code in _REASONS if code in reasons)
    return Availability([], later[0].start if later else None, reason, days)


# from the least to the most blocked day
_REASONS = ("no_gap_long_enough", "full", "time_off", "no_hours", "license_expired", "inactive")


def check_date_range(first: date, last: date) -> None:
    """Raise 422 if the days are in the wrong order or more than `MAX_DAYS` apart."""
    if last < first:
        raise invalid("end_date", "must not be before start_date")
    if (last - first).days > MAX_DAYS:
        raise invalid("end_date", f"must be at most {MAX_DAYS} days after start_date")

"""Booking rules: which conflicts refuse an appointment.

Every path that books or moves an appointment calls `check_booking`, which reports all conflicts at once.
The caller holds row locks on the doctor and the patient. So the result is still valid when the appointment
is written. The exclusion constraints of the database check the overlaps a second time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from enums import AppointmentStatus
from errors import ClinicError
from models import Appointment, Doctor, Patient
from services import clock
from services.patients import activity
from services.scheduling import availability
from services.scheduling.availability import OCCUPYING, Calendar, Interval

# Conflict code -> message, in the order of the response. A message never names the other patient: privacy.
CONFLICT_MESSAGES = {
    "in_past": "the time is in the past",
    "doctor_inactive": "the doctor is not active",
    "license_expired": "the doctor's licence is not valid on that day",
    "patient_inactive": "the patient is archived or deceased",
    "time_off": "the doctor has time off then",
    "outside_hours": "the time is outside the doctor's working hours",
    "doctor_busy": "the doctor already has an appointment then",
    "buffer": "the doctor needs the time between two appointments",
    "patient_busy": "the patient already has an appointment then",
}
OVERBOOKABLE = frozenset({"outside_hours", "doctor_busy", "buffer"})
OVERLAPS = frozenset({"doctor_busy", "buffer", "patient_busy"})
SUGGESTED_TIMES = 3  # free times in a 409 response


@dataclass(frozen=True)
class BookingRequest:
    """A requested time of a patient with a doctor. `appointment` is the existing row when one is moved.

    `overbook` requests that working hours, buffer and the doctor's overlaps do not refuse the booking.
    `status` is the status to store. One that does not occupy time (an imported cancelled or missed
    appointment) has no overlap conflicts. `allow_past` permits a start in the past. `overlaps_only` checks
    nothing except overlaps.
    """

    doctor: Doctor
    patient: Patient
    start: datetime
    end: datetime
    appointment: Appointment | None = None
    overbook: bool = False
    status: AppointmentStatus = AppointmentStatus.SCHEDULED
    allow_past: bool = False
    overlaps_only: bool = False

    @property
    def appointment_id(self) -> int | None:
        """The id of the appointment that moves. Its present time does not conflict with the new one."""
        return self.appointment.id if self.appointment is not None else None


@dataclass(frozen=True)
class BookingCheck:
    """The result of `check_booking`: codes that refuse the request, and codes that overbooking overrides."""

    request: BookingRequest
    conflict_codes: tuple[str, ...]
    overridden_codes: tuple[str, ...] = ()

    @property
    def possible(self) -> bool:
        """True if the appointment can be booked."""
        return not self.conflict_codes

    @property
    def conflicts(self) -> list[dict[str, str]]:
        """Every conflict as `{code, message}`."""
        return [{"code": code, "message": _as_sentence(code)} for code in self.conflict_codes]

    def next_available(self) -> list[dict[str, str]]:
        """Return the next free times of the same length that suit doctor and patient, as `{start, end}`.

        The search begins at the requested start.
        """
        request = self.request
        slots = availability.find_next_slots(
            request.doctor,
            int((request.end - request.start).total_seconds() // 60),
            request.start,
            SUGGESTED_TIMES,
            ignore=request.appointment_id,
            patient_id=request.patient.id,
        )
        return [{"start": format_instant(start), "end": format_instant(end)} for start, end in slots]

    def raise_if_conflicting(self, *, suggest: bool = True) -> None:
        """Raise 409 `appointment_conflict` with all conflicts; `suggest` adds the next free times."""
        if self.possible:
            return
        members: dict[str, Any] = {"conflicts": self.conflicts}
        if suggest:
            members["next_available"] = self.next_available()
        messages = "; ".join(CONFLICT_MESSAGES[code] for code in self.conflict_codes)
        raise ClinicError(
            "appointment_conflict", f"The appointment is not possible: {messages}.", **members
        ).about("appointment", self.request.appointment_id, self.request.patient.id)


def _as_sentence(code: str) -> str:
    message = CONFLICT_MESSAGES[code]
    return f"{message[:1].upper()}{message[1:]}."


def format_instant(instant: datetime) -> str:
    """Return an instant as RFC 3339 with the clinic's UTC offset."""
    return clock.local(instant).isoformat()


def check_booking(request: BookingRequest) -> BookingCheck:
    """Check a booking request against all rules. The caller holds the locks on doctor and patient."""
    calendar = availability.load_calendars(
        [request.doctor],
        request.start,
        request.end,
        ignore=request.appointment_id,
        patient_id=request.patient.id,
    )[request.doctor.id]
    codes = find_calendar_conflicts(calendar, request.start, request.end)
    if activity.is_inactive(request.patient, request.start if request.allow_past else None):
        codes.add("patient_inactive")
    if request.start < clock.now() and not request.allow_past:
        codes.add("in_past")
    if request.overlaps_only:
        codes &= OVERLAPS
    if request.status not in OCCUPYING:
        codes -= OVERLAPS
    overridden = codes & OVERBOOKABLE if request.overbook else set()
    return BookingCheck(
        request,
        tuple(code for code in CONFLICT_MESSAGES if code in codes - overridden),
        tuple(code for code in CONFLICT_MESSAGES if code in overridden),
    )


def find_calendar_conflicts(calendar: Calendar, start: datetime, end: datetime) -> set[str]:
    """Return the codes of all conflicts of a time with the doctor's and the patient's calendar."""
    doctor = calendar.doctor
    blocked_until = end + timedelta(minutes=doctor.buffer_minutes)
    overlapping = [row for row in calendar.booked if _overlaps((row[0], row[1]), start, end)]
    overlapping_with_buffer = [
        row for row in calendar.booked if _overlaps((row[0], row[2]), start, blocked_until)
    ]
    rules = {
        "doctor_inactive": not doctor.is_active,
        "license_expired": not calendar.is_licensed(end),
        "time_off": any(_overlaps(time_off, start, end) for time_off in calendar.time_off),
        "outside_hours": not calendar.covers(start, end),
        "doctor_busy": bool(overlapping),
        "buffer": len(overlapping_with_buffer) > len(overlapping),
        "patient_busy": any(_overlaps(interval, start, end) for interval in calendar.patient_busy),
    }
    return {code for code, violated in rules.items() if violated}


def _overlaps(interval: Interval, start: datetime, end: datetime) -> bool:
    # half-open, so that back-to-back appointments do not collide
    return interval[0] < end and start < interval[1]

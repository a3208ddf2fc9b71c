"""The one judge of bookings: every path into the calendar asks it, and it names every clash at once.

It judges under the locks of the doctor's and the patient's row, so that what it has seen still holds when
the appointment is written; the exclusion constraints of the database have the last word all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from enums import AppointmentStatus
from errors import ClinicError
from models import Appointment, Doctor, Patient
from services import clock
from services.scheduling import availability
from services.scheduling.availability import OCCUPYING, Calendar, Interval

# code -> what it says. It never says with whom the time is taken: that is another patient's matter.
MESSAGES = {
    "in_past": "the time is in the past",
    "doctor_inactive": "the doctor is not active",
    "license_expired": "the doctor's licence is not valid on that day",
    "patient_inactive": "the patient is archived",
    "time_off": "the doctor has time off then",
    "outside_hours": "the time is outside the doctor's working hours",
    "doctor_busy": "the doctor already has an appointment then",
    "buffer": "the doctor needs the time between two appointments",
    "patient_busy": "the patient already has an appointment then",
}
OVERBOOKABLE = frozenset({"outside_hours", "doctor_busy", "buffer"})
OVERLAPS = frozenset({"doctor_busy", "buffer", "patient_busy"})
OFFERED = 3  # free times that a refusal offers


@dataclass(frozen=True)
class BookingRequest:
    """A time that somebody wants with a doctor. `appointment` is the row that would move there, if any.

    `overbook` asks to pass hours, buffer and the doctor's overlap. `status` is what the row would be:
    one that does not occupy its time (an import's cancelled or missed one) clashes with nobody's.
    `past` lets the time lie in the past; `overlaps_only` judges nothing but who else is there.
    """

    doctor: Doctor
    patient: Patient
    start: datetime
    end: datetime
    appointment: Appointment | None = None
    overbook: bool = False
    status: AppointmentStatus = AppointmentStatus.SCHEDULED
    past: bool = False
    overlaps_only: bool = False

    @property
    def ignore(self) -> int | None:
        """The appointment that frees its old time."""
        return self.appointment.id if self.appointment is not None else None


@dataclass(frozen=True)
class BookingCheck:
    """What stands in the way of a proposal (`clashes`), and what overbooking passes (`passed`); codes."""

    proposal: BookingRequest
    clashes: tuple[str, ...]
    passed: tuple[str, ...] = ()

    @property
    def possible(self) -> bool:
        """Whether it can be booked."""
        return not self.clashes

    @property
    def conflicts(self) -> list[dict[str, str]]:
        """Every clash by code, with a sentence."""
        return [{"code": code, "message": f"{sentence(code)}."} for code in self.clashes]

    def next_available(self) -> list[dict[str, str]]:
        """The doctor's next times of that length, from the one asked for on, that suit the patient too."""
        asked = self.proposal
        minutes = int((asked.end - asked.start).total_seconds() // 60)
        free = availability.next_free(
            asked.doctor, minutes, asked.start, OFFERED, ignore=asked.ignore, patient_id=asked.patient.id
        )
        return [{"start": told(start), "end": told(end)} for start, end in free]

    def insist(self, *, offer: bool = True) -> None:
        """409 `appointment_conflict` unless it is possible; `offer` looks for the next free times."""
        if self.possible:
            return
        members: dict[str, Any] = {"conflicts": self.conflicts}
        if offer:
            members["next_available"] = self.next_available()
        asked = self.proposal
        raise ClinicError(
            "appointment_conflict",
            f"The appointment is not possible: {'; '.join(MESSAGES[code] for code in self.clashes)}.",
            **members,
        ).about("appointment", asked.ignore, asked.patient.id)


def sentence(code: str) -> str:
    """What a code says, as a sentence begins."""
    return MESSAGES[code][:1].upper() + MESSAGES[code][1:]


def told(instant: datetime) -> str:
    """RFC 3339 with the clinic's offset."""
    return clock.local(instant).isoformat()


def check_booking(proposal: BookingRequest) -> BookingCheck:
    """Whether a proposal can be booked; the caller holds the doctor's and the patient's rows.

    `next_available` of the verdict is looked for only when it is asked for.
    """
    asked = proposal
    calendar = availability.load(
        [asked.doctor], asked.start, asked.end, ignore=asked.ignore, patient_id=asked.patient.id
    )[asked.doctor.id]
    found = clashes(calendar, asked.start, asked.end)
    if not asked.patient.is_active:
        found.add("patient_inactive")
    if asked.start < clock.now() and not asked.past:
        found.add("in_past")
    if asked.overlaps_only:
        found &= OVERLAPS
    if asked.status not in OCCUPYING:
        found -= OVERLAPS
    passed = found & OVERBOOKABLE if asked.overbook else set()
    return BookingCheck(
        asked,
        tuple(code for code in MESSAGES if code in found - passed),
        tuple(code for code in MESSAGES if code in passed),
    )


def clashes(calendar: Calendar, start: datetime, end: datetime) -> set[str]:
    """What the doctor's calendar and the patient's other appointments have against a time, as codes."""
    doctor = calendar.doctor
    blocked_until = end + timedelta(minutes=doctor.buffer_minutes)
    busy = [taken for taken in calendar.booked if _cross((taken[0], taken[1]), start, end)]
    near = [taken for taken in calendar.booked if _cross((taken[0], taken[2]), start, blocked_until)]
    tests = {
        "doctor_inactive": not doctor.is_active,
        "license_expired": not calendar.licensed(end),
        "time_off": any(_cross(off, start, end) for off in calendar.time_off),
        "outside_hours": not calendar.covers(start, end),
        "doctor_busy": bool(busy),
        "buffer": len(near) > len(busy),
        "patient_busy": any(_cross(other, start, end) for other in calendar.others),
    }
    return {code for code, clash in tests.items() if clash}


def _cross(interval: Interval, start: datetime, end: datetime) -> bool:
    # half-open, so that back-to-back appointments do not collide
    return interval[0] < end and start < interval[1]

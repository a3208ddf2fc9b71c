"""Doctors, their hours and time off: what comes in and goes out."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from schemas.appointment import AppointmentOut
from schemas.base import In, OfDoctor, Out, given, partial
from schemas.fields import (
    Code,
    DayIn,
    DayOut,
    Email,
    Id,
    InstantOrDay,
    InstantOut,
    Line,
    MoneyIn,
    MoneyOut,
    Name,
    Password,
    Phone,
    parse_day,
    parse_instant_or_day,
)


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Specialty = Annotated[Name, Field(max_length=100, examples=["cardiology"])]
Texts = Annotated[
    list[Name],
    Field(max_length=50),
    BeforeValidator(_listed, json_schema_input_type=Annotated[list[Name], Field(max_length=50)] | Name),
]
Minutes = Annotated[int, Field(ge=5, le=480, examples=[30])]


# --- Profile -------------------------------------------------------------------------------------------


class AccountIn(In):
    """A user to make for the doctor."""

    email: Email
    password: Password


class Handover(In):
    """The doctor who takes all of the appointments."""

    reassign_to: Id


class Settlement(In):
    """What becomes of booked appointments that are in the way: `"cancel"`, or another doctor takes all."""

    on_conflict: Literal["cancel"] | Handover | None = None
    reassign_to: Id | None = None


class SettlementQuery(BaseModel):
    """The same in a query string."""

    on_conflict: Annotated[
        Literal["cancel"] | None, Field(description="Cancel the booked appointments that are in the way.")
    ] = None
    reassign_to: Annotated[Id | None, Field(description="The doctor who takes all of them instead.")] = None


class _Profile(In):
    user_id: Id | None = None
    user: AccountIn | None = None
    email: Email | None = None
    phone: Phone | None = None
    specialty: Specialty
    specialties: Texts = Field(default_factory=list)
    license_number: Code
    license_expires_on: DayIn | None = None
    certifications: Texts = Field(default_factory=list)
    consultation_fee: MoneyIn = Decimal("0.00")
    slot_minutes: Minutes = 30
    buffer_minutes: Annotated[int, Field(ge=0, le=240)] = 0
    is_active: bool = True


class DoctorCreate(_Profile):
    """A new doctor. The name is the user's where `user_id` is given without one."""

    model_config = ConfigDict(
        json_schema_extra=given("name", "user_id")
        | {
            "examples": [
                {"name": "Amina Yusuf", "specialty": "cardiology", "license_number": "MD-20417"},
            ]
        }
    )

    name: Annotated[Name, Field(examples=["Amina Yusuf"])] | None = None


class _DoctorChange(_Profile, Settlement):
    """A change of a doctor; `is_active` false over booked appointments says what becomes of them."""

    name: Annotated[Name, Field(examples=["Amina Yusuf"])]


DoctorPatch = partial(_DoctorChange, "DoctorPatch")


class DoctorOut(Out):
    """A doctor. `next_available` is the next free time of the usual length within 30 days."""

    area: ClassVar[str] = "doctor"

    id: int
    user_id: int | None
    name: str
    email: str | None
    phone: str | None
    specialty: str
    specialties: list[str]
    license_number: str
    license_expires_on: DayOut | None
    certifications: list[str]
    consultation_fee: MoneyOut
    slot_minutes: int
    buffer_minutes: int
    is_active: bool
    next_available: InstantOut | None
    patient_count: int
    created_at: InstantOut
    updated_at: InstantOut


# --- Hours ---------------------------------------------------------------------------------------------


def _clock_time(value: Any) -> time:
    found = re.fullmatch(r"(\d\d):(\d\d)(?::(\d\d))?", value, re.ASCII) if isinstance(value, str) else None
    if found is None:
        raise ValueError("a time of the day reads HH:MM")
    hour, minute, second = int(found[1]), int(found[2]), int(found[3] or 0)
    if (hour, minute, second) == (24, 0, 0):
        return time.max  # the end of the day, which is no time of the day
    try:
        return time(hour, minute, second)
    except ValueError:
        raise ValueError("there is no such time of the day") from None


def _clock_text(value: time) -> str:
    if value == time.max:
        return "24:00"
    return value.strftime("%H:%M:%S" if value.second else "%H:%M")


_CLOCK = {"type": "string", "pattern": r"^([01]\d|2[0-4]):[0-5]\d(:[0-5]\d)?$", "examples": ["09:00"]}
ClockTime = Annotated[
    time,
    BeforeValidator(lambda value: value if isinstance(value, time) else _clock_time(value)),
    PlainSerializer(_clock_text, return_type=str, when_used="json"),
    WithJsonSchema(_CLOCK),
]


class WindowIn(In):
    """Hours of one weekday (0 = Monday) in the clinic's zone; `24:00` is the end of the day."""

    weekday: Annotated[int, Field(ge=0, le=6)]
    start: ClockTime
    end: Annotated[ClockTime, Field(examples=["13:00"])]

    @model_validator(mode="after")
    def _in_order(self) -> WindowIn:
        if self.start >= self.end:
            raise ValueError("the end must be after the start")
        return self


class ScheduleIn(In):
    """The weekly hours, all of them. What else a schedule shows may come back with them and is ignored."""

    windows: Annotated[list[WindowIn], Field(max_length=100)]

    @model_validator(mode="before")
    @classmethod
    def _without_what_is_shown(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: member for name, member in value.items() if name not in SHOWN_ONLY}


SHOWN_ONLY = frozenset({"time_off", "appointments", "days"})


class ScheduleQuery(BaseModel):
    """The days to show, both included: from today for a week, at most 62."""

    start_date: Annotated[DayIn | None, Field(description="The first day; by default today.")] = None
    end_date: Annotated[DayIn | None, Field(description="The last day; by default a week on.")] = None


class WindowOut(Out):
    """Hours of one weekday."""

    weekday: int
    start: ClockTime
    end: Annotated[ClockTime, Field(examples=["13:00"])]


class TimeOffOut(OfDoctor):
    """A stretch in which a doctor is away; half-open."""

    area: ClassVar[str] = "time_off"

    id: int
    start: InstantOut
    end: InstantOut
    reason: str | None
    created_at: InstantOut
    updated_at: InstantOut


class ScheduleDayOut(Out):
    """Whether the doctor works on the day, and how many appointments are booked or done on it."""

    date: DayOut
    working: bool
    booked: int


class ScheduleOut(Out):
    """The weekly hours, and the days asked for."""

    windows: list[WindowOut]
    time_off: list[TimeOffOut]
    appointments: list[AppointmentOut]
    days: list[ScheduleDayOut]


# --- Availability --------------------------------------------------------------------------------------


class AvailabilityQuery(ScheduleQuery):
    """One `date`, or the days of a schedule; `duration` in minutes, by default the doctor's slot."""

    date: Annotated[DayIn | None, Field(description="The one day to look at.")] = None
    duration: Annotated[
        Minutes | None, Field(description="Minutes; by default the doctor's usual length.")
    ] = None


Reason = Literal["no_hours", "time_off", "full", "no_gap_long_enough", "license_expired", "inactive"]


class SlotOut(Out):
    """A time that can be booked."""

    start: InstantOut
    end: InstantOut


class AvailableDayOut(Out):
    """Whether a day has a free time, and why not."""

    date: DayOut
    available: bool
    reason: Reason | None


class AvailabilityOut(Out):
    """The free times of the days asked for; without any, the `reason` of the day that comes nearest."""

    available: bool
    slots: list[SlotOut]
    next_available: InstantOut | None
    reason: Reason | None
    days: list[AvailableDayOut]


# --- Time off ------------------------------------------------------------------------------------------


def _end_or_last_day(value: Any) -> datetime:
    try:
        day = parse_day(value)
    except ValueError:
        return parse_instant_or_day(value)
    return parse_instant_or_day((day + timedelta(days=1)).isoformat())  # a bare last day is included


EndOrLastDay = Annotated[
    datetime,
    BeforeValidator(_end_or_last_day),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "format": "date-time"}, {"type": "string", "format": "date"}],
            "examples": ["2026-08-14"],
        }
    ),
]


class TimeOffIn(Settlement):
    """A stretch off work: instants or days, of which the last is included."""

    start: Annotated[InstantOrDay, Field(validation_alias=AliasChoices("start", "start_date"))]
    end: Annotated[EndOrLastDay, Field(validation_alias=AliasChoices("end", "end_date"))]
    reason: Line | None = None

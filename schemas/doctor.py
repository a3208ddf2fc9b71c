"""Requests and responses of doctors, their working hours and time off."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from schemas.account import NewPassword
from schemas.appointment import AppointmentOut, Minutes, SlotOut
from schemas.base import In, OfDoctor, Out, patch_model, require_any
from schemas.fields import (
    ClockTime,
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
    Phone,
    parse_day,
    parse_instant_or_day,
)


def _read_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Specialty = Annotated[Name, Field(max_length=100, examples=["cardiology"])]
NameList = Annotated[
    list[Name],
    Field(max_length=50),
    BeforeValidator(_read_list, json_schema_input_type=Annotated[list[Name], Field(max_length=50)] | Name),
]


# --- Profile -------------------------------------------------------------------------------------------


class AccountIn(In):
    """The new user of a doctor."""

    email: Email
    password: NewPassword


class Reassignment(In):
    """The doctor who takes over all conflicting appointments."""

    reassign_to: Id


class ConflictResolution(In):
    """The resolution for conflicting booked appointments: cancel them, or reassign them to another doctor."""

    on_conflict: Literal["cancel"] | Reassignment | None = None
    reassign_to: Id | None = None


class CalendarConflictResolution(In):
    """The resolution for booked appointments that no longer fit: keep, cancel or reassign them."""

    on_conflict: Literal["keep", "cancel"] | Reassignment | None = None
    reassign_to: Id | None = None


class ConflictResolutionQuery(BaseModel):
    """The resolution for conflicting booked appointments, as a query string."""

    on_conflict: Annotated[
        Literal["cancel"] | None, Field(description="Cancel the conflicting appointments.")
    ] = None
    reassign_to: Annotated[
        Id | None, Field(description="The doctor who takes over the conflicting appointments.")
    ] = None


class _Profile(In):
    user_id: Id | None = None
    user: AccountIn | None = None
    email: Email | None = None
    phone: Phone | None = None
    specialty: Specialty
    specialties: NameList = Field(default_factory=list)
    license_number: Code
    license_expires_on: DayIn | None = None
    certifications: NameList = Field(default_factory=list)
    consultation_fee: MoneyIn = Decimal("0.00")
    slot_minutes: Minutes = 30
    buffer_minutes: Annotated[int, Field(ge=0, le=240)] = 0
    is_active: bool = True


class DoctorCreate(_Profile):
    """A new doctor. The default name is the name of the user `user_id`."""

    model_config = ConfigDict(json_schema_extra=require_any("name", "user_id"))

    name: Annotated[Name, Field(examples=["Amina Yusuf"])] | None = None


class _DoctorChange(_Profile, CalendarConflictResolution):
    """Changes of a doctor. Booked appointments that no longer fit need a resolution."""

    name: Annotated[Name, Field(examples=["Amina Yusuf"])]


DoctorPatch = patch_model(_DoctorChange, "DoctorPatch")


class DoctorOut(Out):
    """A doctor. `next_available` is the next free slot of the usual length within 30 days."""

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


# --- Working hours -------------------------------------------------------------------------------------


class WindowIn(In):
    """Working hours that begin on a weekday (0 = Monday), in the time zone of the clinic.

    The end may be `24:00`. An end that is not after the start is on the next day.
    """

    weekday: Annotated[int, Field(ge=0, le=6)]
    start: ClockTime
    end: Annotated[ClockTime, Field(examples=["13:00"])]

    @model_validator(mode="after")
    def _check_order(self) -> WindowIn:
        if self.start == time.max:
            raise ValueError("24:00 is an end only; a window from midnight starts at 00:00")
        if self.start == self.end:
            raise ValueError("the end must differ from the start; a whole day is 00:00 to 24:00")
        return self


class ScheduleIn(CalendarConflictResolution):
    """The complete weekly working hours. Booked appointments that no longer fit need a resolution."""

    windows: Annotated[list[WindowIn], Field(max_length=100)]


class ScheduleQuery(BaseModel):
    """A range of days, at most 62. The default is one week from today."""

    start_date: Annotated[DayIn | None, Field(description="The first day. Default: today.")] = None
    end_date: Annotated[
        DayIn | None, Field(description="The last day, included. Default: one week after the first day.")
    ] = None


class WindowOut(Out):
    """Working hours on a weekday."""

    weekday: int
    start: ClockTime
    end: Annotated[ClockTime, Field(examples=["13:00"])]


class TimeOffOut(OfDoctor):
    """The absence of a doctor from `start` until `end`, which is excluded."""

    area: ClassVar[str] = "time_off"

    id: int
    start: InstantOut
    end: InstantOut
    reason: str | None
    created_at: InstantOut
    updated_at: InstantOut


class ScheduleDayOut(Out):
    """A day of a schedule. `booked` counts the booked and completed appointments."""

    date: DayOut
    working: bool
    booked: int


class ScheduleOut(Out):
    """The weekly working hours, and the requested days."""

    windows: list[WindowOut]
    time_off: list[TimeOffOut]
    appointments: list[AppointmentOut]
    days: list[ScheduleDayOut]


# --- Availability --------------------------------------------------------------------------------------


class AvailabilityQuery(ScheduleQuery):
    """One `date` or a range of days. The default duration is the slot length of the doctor."""

    date: Annotated[DayIn | None, Field(description="One day.")] = None
    duration: Annotated[
        Minutes | None, Field(description="Minutes. Default: the slot length of the doctor.")
    ] = None


Reason = Literal["no_hours", "time_off", "full", "no_gap_long_enough", "license_expired", "inactive"]


class AvailableDayOut(Out):
    """A day with or without a free slot. `reason` says why there is none."""

    date: DayOut
    available: bool
    reason: Reason | None


class AvailabilityOut(Out):
    """The free slots of the requested days. `reason` says why there are none."""

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
    return parse_instant_or_day((day + timedelta(days=1)).isoformat())  # a date as the end includes that day


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


class TimeOffIn(ConflictResolution):
    """Time off of a doctor. `start` and `end` are date-times, or dates of which the last is included."""

    start: Annotated[InstantOrDay, Field(validation_alias=AliasChoices("start", "start_date"))]
    end: Annotated[EndOrLastDay, Field(validation_alias=AliasChoices("end", "end_date"))]
    reason: Line | None = None

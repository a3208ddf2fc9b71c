"""Appointments: what comes in and goes out."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field

from enums import AppointmentStatus, CancelledBy
from schemas.base import In, OfDoctor, OfPatient, Out, PersonRef, given, partial
from schemas.fields import Id, InstantOrDay, InstantOut, Line, Note, Short

Minutes = Annotated[int, Field(ge=5, le=480, examples=[30])]


class _AppointmentIn(In):
    """`date` is the start, `start` its alias; `duration` in minutes or `end`."""

    patient_id: Id
    doctor_id: Id
    date: InstantOrDay | None = None
    start: InstantOrDay | None = None
    end: InstantOrDay | None = None
    duration: Minutes | None = None
    type: Annotated[Short, Field(examples=["follow_up"])] | None = None
    reason: Annotated[Line, Field(examples=["Chest pain"])] | None = None
    notes: Note | None = None
    overbook: bool = False
    overbook_reason: Line | None = None


class AppointmentCreate(_AppointmentIn):
    """An appointment to book; patient, doctor and date are required. The duration is the doctor's slot."""

    model_config = ConfigDict(
        json_schema_extra=given("date", "start")
        | {"examples": [{"patient_id": 1, "doctor_id": 1, "date": "2030-03-04T09:00:00Z"}]}
    )

    status: Literal[AppointmentStatus.SCHEDULED] = AppointmentStatus.SCHEDULED


class _AppointmentChange(_AppointmentIn):
    """A change of an appointment; a new start alone keeps the duration."""

    status: AppointmentStatus
    status_reason: Line | None
    cancellation_reason: Line | None
    cancelled_by: CancelledBy | None


AppointmentPatch = partial(_AppointmentChange, "AppointmentPatch")


class Rehearsal(BaseModel):
    """`dry_run` answers the judgement and changes nothing."""

    dry_run: bool = Field(False, description="Judge it, and change nothing.")


class AppointmentCancel(In):
    """Why, and on whose wish."""

    cancellation_reason: Annotated[
        Line | None, Field(validation_alias=AliasChoices("cancellation_reason", "reason"))
    ] = None
    cancelled_by: CancelledBy | None = None


class CancelQuery(BaseModel):
    """The same in a query string."""

    cancellation_reason: Annotated[Line | None, Field(description="Why.")] = None
    cancelled_by: Annotated[CancelledBy | None, Field(description="On whose wish.")] = None


class AppointmentOut(OfPatient, OfDoctor):
    """An appointment with what it can become."""

    area: ClassVar[str] = "appointment"

    id: int
    date: InstantOut = Field(validation_alias=AliasPath("start"))
    start: InstantOut
    end: InstantOut
    duration: int
    status: AppointmentStatus
    type: str | None
    reason: str | None
    notes: str | None
    cancellation_reason: str | None
    cancelled_by: CancelledBy | None
    status_reason: str | None
    overbooked: bool
    overbook_reason: str | None
    checked_in_at: InstantOut | None
    visit_id: int | None
    allowed_transitions: list[AppointmentStatus]
    created_by_id: int | None
    created_by_name: str | None = Field(None, validation_alias=AliasPath("booked_by", "name"))
    created_by: PersonRef | None = Field(validation_alias=AliasPath("booked_by"))
    created_at: InstantOut
    updated_at: InstantOut


class ConflictOut(Out):
    """One thing that stands in the way of a booking."""

    code: str
    message: str


class OfferOut(Out):
    """A free time."""

    start: InstantOut
    end: InstantOut


class JudgementOut(Out):
    """What a booking would be told: whether it is possible, every clash, the doctor's next free times."""

    possible: bool
    conflicts: list[ConflictOut]
    next_available: list[OfferOut]

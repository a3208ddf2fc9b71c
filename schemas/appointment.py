"""Requests and responses of appointments."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field

from enums import AppointmentStatus, CancelledBy
from schemas.base import In, OfDoctor, OfPatient, Out, PersonRef, patch_model, require_any
from schemas.fields import Id, InstantOrDay, InstantOut, Line, Note, Short

Minutes = Annotated[int, Field(ge=5, le=480, examples=[30])]


class _AppointmentTime(In):
    """An appointment. `start` is an alias of `date`. The length is `duration` in minutes, or `end`."""

    date: InstantOrDay | None = None
    start: InstantOrDay | None = None
    end: InstantOrDay | None = None
    duration: Minutes | None = None
    type: Annotated[Short, Field(examples=["follow_up"])] | None = None
    reason: Annotated[Line, Field(examples=["Chest pain"])] | None = None
    notes: Note | None = None


class AppointmentImport(_AppointmentTime):
    """An appointment of another system, without patient and doctor. A past one is not scheduled."""

    status: AppointmentStatus = AppointmentStatus.SCHEDULED


class _AppointmentIn(_AppointmentTime):
    """An appointment. `start` is an alias of `date`. The length is `duration` in minutes, or `end`."""

    patient_id: Id
    doctor_id: Id
    overbook: bool = False
    overbook_reason: Line | None = None


class AppointmentCreate(_AppointmentIn):
    """A new appointment. Patient, doctor and date are required. The default duration is the doctor's slot."""

    model_config = ConfigDict(json_schema_extra=require_any("date", "start"))

    status: Literal[AppointmentStatus.SCHEDULED] = AppointmentStatus.SCHEDULED


class _AppointmentChange(_AppointmentIn):
    """Changes of an appointment. A new start without an end or duration keeps the duration."""

    status: AppointmentStatus
    status_reason: Line | None
    cancellation_reason: Line | None
    cancelled_by: CancelledBy | None


AppointmentPatch = patch_model(_AppointmentChange, "AppointmentPatch")


class DryRunQuery(BaseModel):
    """The option to check a booking without saving it."""

    dry_run: bool = Field(False, description="Check the booking rules and save nothing.")


class AppointmentCancel(In):
    """The cancellation of an appointment: the reason and who cancelled it."""

    cancellation_reason: Annotated[
        Line | None, Field(validation_alias=AliasChoices("cancellation_reason", "reason"))
    ] = None
    cancelled_by: CancelledBy | None = None


class CancelQuery(BaseModel):
    """The cancellation of an appointment, as a query string."""

    cancellation_reason: Annotated[Line | None, Field(description="The reason for the cancellation.")] = None
    cancelled_by: Annotated[CancelledBy | None, Field(description="Who cancelled the appointment.")] = None


class AppointmentOut(OfPatient, OfDoctor):
    """An appointment with the allowed changes of its status. `title` is the name of the patient."""

    area: ClassVar[str] = "appointment"

    id: int
    title: str = Field(validation_alias=AliasPath("patient", "name"))
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
    cancelled_at: InstantOut | None
    rescheduled_at: InstantOut | None
    reschedule_count: int
    previous_start: InstantOut | None
    status_reason: str | None
    overbooked: bool
    overbook_reason: str | None
    checked_in_at: InstantOut | None
    confirmed_at: InstantOut | None
    visit_id: int | None
    allowed_transitions: list[AppointmentStatus]
    created_by_id: int | None
    created_by_name: str | None = Field(None, validation_alias=AliasPath("booked_by", "name"))
    created_by: PersonRef | None = Field(validation_alias=AliasPath("booked_by"))
    created_at: InstantOut
    updated_at: InstantOut


class ConflictOut(Out):
    """A conflict that refuses a booking."""

    code: str
    message: str


class SlotOut(Out):
    """A free slot."""

    start: InstantOut
    end: InstantOut


class BookingCheckOut(Out):
    """The result of a booking check: all conflicts, and the next free slots of the doctor."""

    possible: bool
    conflicts: list[ConflictOut]
    next_available: list[SlotOut]

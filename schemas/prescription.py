"""Prescriptions: what comes in and goes out, and what the safety gate says."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import AliasChoices, AliasPath, BeforeValidator, ConfigDict, Field, StringConstraints
from typing_extensions import TypedDict

from enums import PrescriptionStatus
from schemas.base import In, OfDoctor, OfPatient, Out, PersonRef, partial
from schemas.fields import Clean, DayIn, DayOut, Id, InstantIn, InstantOut, Line, Name, Note, Quantity, Short

MOST = 100  # medications of one prescription, items of one dispensing
SHOWN_ONLY = frozenset({"id", "dispensed", "remaining"})  # a grid sends them back with the rest

Words = Annotated[str, StringConstraints(max_length=200), Clean]


class MedicationIn(In):
    """One medicine; only its name is required."""

    name: Annotated[Name, Field(examples=["Amoxicillin 500 mg"])]
    dosage: Annotated[Words, Field(examples=["500 mg"])] | None = None
    frequency: Annotated[Words, Field(examples=["three times daily"])] | None = None
    route: Annotated[Short, Field(examples=["oral"])] | None = None
    duration_days: Annotated[int, Field(ge=1, le=3650, examples=[7])] | None = None
    quantity: Annotated[Quantity, Field(examples=[21])] | None = None
    refills: Annotated[int, Field(ge=0, le=99, examples=[0])] = 0
    instructions: Note | None = None


def _medication(value: Any) -> Any:
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, dict):
        return {name: member for name, member in value.items() if name not in SHOWN_ONLY}
    return value


def _listed(value: Any) -> Any:
    if value is None:
        return []
    return [value] if isinstance(value, str) else value


# A plain string reads as a medication of that name.
Medication = Annotated[MedicationIn, BeforeValidator(_medication, json_schema_input_type=MedicationIn | Name)]
Medications = Annotated[
    list[Medication],
    Field(max_length=MOST),
    BeforeValidator(
        _listed,
        json_schema_input_type=Annotated[list[MedicationIn | Name], Field(max_length=MOST)] | Name | None,
    ),
]


class VisitPrescriptionIn(In):
    """What is prescribed at a visit: medications, or free text where there are none to name."""

    details: Annotated[Note | None, Field(examples=["Take with food."])] = None
    medications: Medications = Field(default_factory=list)
    status: PrescriptionStatus = PrescriptionStatus.ACTIVE
    issued_at: InstantIn | None = None
    expires_on: DayIn | None = None
    override_reason: Line | None = None


class PrescriptionIn(VisitPrescriptionIn):
    """A prescription of its own; patient and doctor are the visit's, and must be where they are named."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["medications"], "properties": {"medications": {"minItems": 1}}},
                {"required": ["details"], "properties": {"details": {"type": "string", "pattern": r"\S"}}},
            ],
            "examples": [{"visit_id": 1, "medications": [{"name": "Amoxicillin 500 mg", "quantity": 21}]}],
        }
    )

    visit_id: Id
    patient_id: Id | None = None
    doctor_id: Id | None = None


class CancelPrescriptionIn(In):
    """Why a prescription is cancelled."""

    cancellation_reason: Annotated[Line | None, Field(description="Why it is cancelled.")] = None


class _Changeable(CancelPrescriptionIn, VisitPrescriptionIn):
    """What of a prescription can change before anything of it is dispensed; its status also after."""


PrescriptionPatch = partial(_Changeable, "PrescriptionPatch")


def _named(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError("name the medication by its id or by its name on the prescription")
    return value


class DispenseItem(In):
    """How much of which medication, named by its id or its name on the prescription."""

    medication: Annotated[
        int | str,
        BeforeValidator(_named, json_schema_input_type=Id | Name),
        Field(examples=[1]),
    ]
    quantity: Quantity


class DispenseIn(In):
    """What is handed out. A doctor passes new safety alerts with a reason."""

    items: Annotated[list[DispenseItem], Field(min_length=1, max_length=MOST)]
    override_reason: Line | None = None


class MedicationOut(Out):
    """A medicine of a prescription, and how much of it was handed out."""

    id: int
    name: str
    dosage: str | None
    frequency: str | None
    route: str | None
    duration_days: int | None
    quantity: int | None
    refills: int
    instructions: str | None
    dispensed: int
    remaining: int | None


class DispensingOut(Out):
    """Medicine handed out."""

    id: int
    medication_id: int
    medication_name: str = Field(validation_alias=AliasPath("medication", "name"))
    quantity: int
    dispensed_by: PersonRef
    created_at: InstantOut


class Warned(TypedDict):
    """What the safety gate could not check."""

    medication: str
    code: str
    message: str


# `with` is no name that a class could give a member
OverriddenAlert = TypedDict(
    "OverriddenAlert",
    {
        "code": str,
        "medication": str,
        "with": str,
        "prescription_id": int | None,
        "message": str,
        "reason": str,
        "overridden_by": str,
        "overridden_at": InstantOut,
    },
)


class PrescriptionOut(OfPatient, OfDoctor):
    """A prescription; an active one past `expires_on` reads expired."""

    area: ClassVar[str] = "prescription"

    id: int
    visit_id: int
    details: str | None
    medications: list[MedicationOut]
    status: PrescriptionStatus = Field(validation_alias=AliasChoices("shown_status", "status"))
    issued_at: InstantOut
    expires_on: DayOut | None
    override_reason: str | None
    overridden_alerts: list[OverriddenAlert]
    cancellation_reason: str | None
    warnings: list[Warned] | None
    dispensings: list[DispensingOut]
    created_at: InstantOut
    updated_at: InstantOut

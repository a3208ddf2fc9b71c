"""Requests and responses of prescriptions, with the results of the safety checks."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, NotRequired

from pydantic import AliasChoices, AliasPath, BeforeValidator, ConfigDict, Field, StringConstraints
from typing_extensions import TypedDict

from column_types import NOT_BLANK_PATTERN
from enums import PrescriptionStatus
from schemas.base import In, OfDoctor, OfPatient, Out, PersonRef, patch_model
from schemas.fields import (
    DayIn,
    DayOut,
    DecimalQuantityIn,
    DecimalQuantityOut,
    Id,
    InstantIn,
    InstantOut,
    Line,
    Name,
    Note,
    RequiredLine,
    Short,
    Unit,
    clean,
)

MAX_ITEMS = 100  # medications of one prescription, items of one dispensing

ShortText = Annotated[str, StringConstraints(max_length=200), clean(200)]


class MedicationIn(In):
    """A medication to prescribe. Only the name is required."""

    name: Annotated[Name, Field(examples=["Amoxicillin 500 mg"])]
    dosage: Annotated[ShortText, Field(examples=["500 mg"])] | None = None
    frequency: Annotated[ShortText, Field(examples=["three times daily"])] | None = None
    route: Annotated[Short, Field(examples=["oral"])] | None = None
    duration_days: Annotated[int, Field(ge=1, le=3650, examples=[7])] | None = None
    quantity: DecimalQuantityIn | None = None
    unit: Unit | None = None
    refills: Annotated[int, Field(ge=0, le=99, examples=[0])] = 0
    instructions: Note | None = None


def _read_medication(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _read_list(value: Any) -> Any:
    if value is None:
        return []
    return [value] if isinstance(value, str) else value


# A string is the name of a medication.
Medication = Annotated[
    MedicationIn, BeforeValidator(_read_medication, json_schema_input_type=MedicationIn | Name)
]
Medications = Annotated[
    list[Medication],
    Field(max_length=MAX_ITEMS),
    BeforeValidator(
        _read_list,
        json_schema_input_type=Annotated[list[MedicationIn | Name], Field(max_length=MAX_ITEMS)]
        | Name
        | None,
    ),
]


class VisitPrescriptionIn(In):
    """A prescription of a visit: medications, or free text in `details`."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["medications"], "properties": {"medications": {"minItems": 1}}},
                {
                    "required": ["details"],
                    "properties": {"details": {"type": "string", "pattern": NOT_BLANK_PATTERN}},
                },
            ],
        }
    )

    details: Annotated[Note | None, Field(examples=["Take with food."])] = None
    medications: Medications = Field(default_factory=list)
    status: PrescriptionStatus = PrescriptionStatus.ACTIVE
    issued_at: InstantIn | None = None
    expires_on: DayIn | None = None
    override_reason: Line | None = None


class PrescriptionIn(VisitPrescriptionIn):
    """A prescription for an existing visit. Patient and doctor, if given, must be those of the visit."""

    visit_id: Id
    patient_id: Id | None = None
    doctor_id: Id | None = None


class CancelPrescriptionIn(In):
    """The cancellation of a prescription."""

    cancellation_reason: Annotated[Line | None, Field(description="The reason for the cancellation.")] = None


class StopPrescriptionIn(In):
    """The stop of a therapy."""

    reason: Annotated[RequiredLine, Field(description="The reason for the stop.", examples=["cough"])]


class _PrescriptionChange(CancelPrescriptionIn, VisitPrescriptionIn):
    """Changes of a prescription. After the first dispensing only the status can change."""


PrescriptionPatch = patch_model(_PrescriptionChange, "PrescriptionPatch")


def _check_reference(value: Any) -> Any:
    # a ValueError, because pydantic does not convert a TypeError
    if type(value) not in (int, str):
        raise ValueError("give the id of the medication or its name on the prescription")
    return value


class DispenseItem(In):
    """A quantity of one medication. `medication` is its id or its name on the prescription."""

    medication: Annotated[
        int | str,
        BeforeValidator(_check_reference, json_schema_input_type=Id | Name),
        Field(examples=[1]),
    ]
    quantity: DecimalQuantityIn


class DispenseIn(In):
    """The dispensing of medications. A doctor overrides new safety alerts with a reason."""

    items: Annotated[list[DispenseItem], Field(min_length=1, max_length=MAX_ITEMS)]
    override_reason: Line | None = None


class MedicationOut(Out):
    """A medication of a prescription, with the dispensed quantity and the last day of the therapy.

    Without a `quantity` there is no limit, and `remaining` is null. Without a last day, the therapy goes on
    until it is stopped or cancelled.
    """

    id: int
    name: str
    dosage: str | None
    frequency: str | None
    route: str | None
    duration_days: int | None
    quantity: DecimalQuantityOut | None
    unit: str | None
    refills: int
    instructions: str | None
    dispensed: DecimalQuantityOut
    remaining: DecimalQuantityOut | None
    ends_on: DayOut | None


class DispensingOut(Out):
    """One dispensing of one medication."""

    id: int
    medication_id: int
    medication_name: str = Field(validation_alias=AliasPath("medication", "name"))
    quantity: DecimalQuantityOut
    dispensed_by: PersonRef
    created_at: InstantOut


class SafetyWarning(TypedDict):
    """A limit of the safety check: `unchecked`, `understood_as` for a name with a typing error, and others.

    `medication` is absent if the warning is not about one medication.
    """

    code: str
    message: str
    medication: NotRequired[str]


# the functional syntax, because `with` is a keyword
OverriddenAlert = TypedDict(
    "OverriddenAlert",
    {
        "code": str,
        "medication": str,
        "with": str,
        "prescription_id": int | None,
        "message": str,
        "severity": NotRequired[Literal["contraindicated", "serious"]],  # of an interaction
        "source": NotRequired[str],  # the label or list that names the interaction
        "allergy": NotRequired[str],  # the recorded allergy with its severity and reaction
        "reason": str,
        "overridden_by": str,
        "overridden_at": InstantOut,
    },
)


class PrescriptionOut(OfPatient, OfDoctor):
    """A prescription. The status of an active one after `expires_on` is `expired`."""

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
    stopped_at: InstantOut | None
    stop_reason: str | None
    warnings: list[SafetyWarning]
    dispensings: list[DispensingOut]
    created_at: InstantOut
    updated_at: InstantOut

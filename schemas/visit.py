"""Requests and responses of visits, with vital signs, diagnoses and addenda."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, AliasPath, Field, computed_field

from enums import PaymentMethod
from schemas.base import CodeWarning, In, OfDoctor, OfPatient, Out, PersonRef, patch_model
from schemas.fields import (
    Code,
    DayIn,
    DayOut,
    Id,
    InstantOrDay,
    InstantOut,
    Line,
    MoneyIn,
    MoneyOut,
    Note,
    RequiredLine,
    RequiredNote,
    Short,
)
from schemas.prescription import MAX_ITEMS as MAX_MEDICATIONS
from schemas.prescription import PrescriptionOut, VisitPrescriptionIn
from schemas.treatment import TreatmentOut, VisitTreatmentIn

# --- Vitals and diagnoses ------------------------------------------------------------------------------


class VitalsIn(In):
    """Vital signs and measurements of a visit. All are optional.

    The ranges catch input errors, such as Fahrenheit, a height in metres, or a digit too many. They are not
    reference ranges, which would refuse very ill patients.

    * Blood pressure: mmHg, within the scale 0-300 of clinical manometers.
    * Heart rate and respiratory rate: per minute, up to 350 and 150. Infants in tachycardia or respiratory
      distress stay below these limits.
    * Temperature: degrees Celsius, up to 45. The minimum allows deep accidental hypothermia (stage HT IV is
      below 24, Brown et al., N Engl J Med 2012;367:1930).
    * Oxygen saturation: percent.
    * Weight and height: kg and cm, from the smallest surviving newborns to the largest people on record
      (635 kg, 272 cm).
    """

    systolic: Annotated[int, Field(ge=30, le=300, examples=[120])] | None = None
    diastolic: Annotated[int, Field(ge=10, le=200, examples=[80])] | None = None
    heart_rate: Annotated[int, Field(ge=0, le=350, examples=[72])] | None = None
    temperature_c: Annotated[float, Field(ge=15, le=45, examples=[36.8])] | None = None
    respiratory_rate: Annotated[int, Field(ge=0, le=150, examples=[16])] | None = None
    spo2: Annotated[float, Field(ge=0, le=100, examples=[98])] | None = None
    weight_kg: Annotated[float, Field(ge=0.2, le=650, examples=[70.5])] | None = None
    height_cm: Annotated[float, Field(ge=15, le=280, examples=[172])] | None = None


class VitalsOut(Out):
    """Vital signs in the units of `VitalsIn`. Null: not measured."""

    systolic: int | None = None
    diastolic: int | None = None
    heart_rate: int | None = None
    temperature_c: float | None = None
    respiratory_rate: int | None = None
    spo2: float | None = None
    weight_kg: float | None = None
    height_cm: float | None = None

    @computed_field(description="Body mass index in kg/m2, rounded to one decimal place.")  # type: ignore[prop-decorator]
    @property
    def bmi(self) -> float | None:
        """Return the body mass index: weight divided by the square of the height in metres."""
        if self.weight_kg is None or self.height_cm is None:
            return None
        return round(self.weight_kg / (self.height_cm / 100) ** 2, 1)


class DiagnosisIn(In):
    """A diagnosis: an ICD-10-CM code, a description, or both.

    The default description is the official title of the code.
    """

    icd10: Annotated[Code, Field(examples=["J02.9"])] | None = None
    description: Annotated[Line, Field(examples=["Acute pharyngitis, unspecified"])] | None = None


class DiagnosisOut(Out):
    """A diagnosis. The code has its printed form, with a dot."""

    icd10: str | None
    description: str


# --- Visits --------------------------------------------------------------------------------------------


class VisitIn(In):
    """A visit. The patient is required. The doctor is required unless the caller is a doctor."""

    patient_id: Id
    doctor_id: Id | None = None
    appointment_id: Id | None = None
    date: InstantOrDay | None = None
    visit_type: Annotated[Short, Field(examples=["consultation"])] | None = None
    summary: Note | None = None
    procedure_details: Note | None = None
    chief_complaint: Annotated[Note, Field(examples=["Sore throat for three days"])] | None = None
    notes: Note | None = None
    diagnoses: Annotated[list[DiagnosisIn], Field(default_factory=list, max_length=100)]
    vitals: VitalsIn | None = None
    follow_up_date: DayIn | None = None


def _check_medications(prescriptions: list[VisitPrescriptionIn]) -> list[VisitPrescriptionIn]:
    # each medication is compared with all others, so that the safety check takes a bounded time
    if sum(len(prescription.medications) for prescription in prescriptions) > MAX_MEDICATIONS:
        raise ValueError(f"must not contain more than {MAX_MEDICATIONS} medications together")
    return prescriptions


class VisitCreate(VisitIn):
    """A new visit with its treatments, prescriptions and payment."""

    treatments: Annotated[list[VisitTreatmentIn], Field(default_factory=list, max_length=100)]
    prescriptions: Annotated[
        list[VisitPrescriptionIn],
        Field(
            default_factory=list,
            max_length=100,
            description=f"All prescriptions together contain at most {MAX_MEDICATIONS} medications.",
        ),
        AfterValidator(_check_medications),
    ]
    amount_paid: MoneyIn | None = None
    payment_method: PaymentMethod | None = None


VisitPatch = patch_model(VisitIn, "VisitPatch")


class VisitVoidIn(In):
    """The reason for voiding a visit, in the body or in the query string."""

    reason: Annotated[
        RequiredLine | None,
        Field(description="The reason for voiding the visit.", examples=["Recorded for the wrong patient"]),
    ] = None


class AddendumIn(In):
    """An addendum to a signed visit."""

    text: Annotated[RequiredNote, Field(examples=["The left knee, not the right."])]


class AddendumOut(Out):
    """An addendum with its author and time."""

    id: int
    visit_id: int
    text: str
    author_id: int
    author_name: str = Field(validation_alias=AliasPath("author", "name"))
    author: PersonRef
    created_at: InstantOut


class VisitOut(OfPatient, OfDoctor):
    """A visit with its treatments, prescriptions, addenda and balance."""

    area: ClassVar[str] = "visit"

    id: int
    appointment_id: int | None
    date: InstantOut
    visit_type: str | None
    status: Literal["open", "signed", "void"]
    chief_complaint: str | None
    summary: str | None
    procedure_details: str | None
    notes: str | None
    diagnoses: list[DiagnosisOut]
    vitals: VitalsOut | None
    follow_up_date: DayOut | None
    treatments: list[TreatmentOut]
    prescriptions: list[PrescriptionOut]
    addenda: list[AddendumOut]
    amount_paid: MoneyOut
    balance: MoneyOut
    warnings: list[CodeWarning]
    signed_at: InstantOut | None
    signed_by_id: int | None
    voided_at: InstantOut | None
    void_reason: str | None
    created_at: InstantOut
    updated_at: InstantOut

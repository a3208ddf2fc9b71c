"""Requests and responses of patients, medical histories, accounts and timelines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AliasPath, BeforeValidator, Field

from enums import (
    AllergySeverity,
    AllergyStatus,
    BirthDatePrecision,
    ConditionStatus,
    Gender,
    LedgerKind,
    LetterType,
    PaymentMethod,
)
from schemas.base import CodeWarning, DoctorRef, In, OfPatient, Out, PersonRef, patch_model
from schemas.billing import RefundOut
from schemas.fields import (
    BirthDateIn,
    BirthDateOut,
    Code,
    DayIn,
    DayOut,
    Email,
    InstantOut,
    Language,
    Line,
    MoneyOut,
    Name,
    Note,
    Phone,
    RequiredLine,
    Short,
)

BloodType = Literal["A+", "A-", "B+", "B-", "AB+", "AB-", "O+", "O-"]
FileNumber = Annotated[Code, Field(max_length=50, examples=["P-000123"])]
MAX_ENTRIES = 500  # in one list of a medical history

# --- Person and contact --------------------------------------------------------------------------------


class PatientIn(In):
    """The data of a patient. Only the name is required."""

    name: Annotated[Name, Field(examples=["John Doe"])]
    gender: Gender | None = None
    date_of_birth: BirthDateIn | None = None
    birth_date_precision: BirthDatePrecision | None = None
    estimated_age: Annotated[
        int | None,
        Field(ge=0, le=130, description="Age in years, in place of an unknown date_of_birth."),
    ] = None
    deceased_on: DayIn | None = None
    phone: Phone | None = None
    email: Email | None = None
    address: Line | None = None
    blood_type: BloodType | None = None
    insurance_provider: Name | None = None
    insurance_id: Short | None = None
    emergency_contact_name: Name | None = None
    emergency_contact_phone: Phone | None = None
    needs_review: bool = False
    review_notes: Note | None = None
    language: Language | None = None
    is_active: bool = True


class PatientCreate(PatientIn):
    """A new patient. Without `file_number` the clinic issues one.

    `allow_duplicate` confirms that the patient is not one of the similar patients on file.
    """

    file_number: FileNumber | None = None
    allow_duplicate: bool = False


class PatientUpdate(PatientIn):
    """Changes of a patient. The file number cannot be null.

    `on_conflict` belongs to `deceased_on`.
    """

    file_number: FileNumber
    allow_duplicate: bool = False
    on_conflict: Annotated[
        Literal["cancel"] | None, Field(description="Cancel the future appointments of a deceased patient.")
    ] = None


PatientPatch = patch_model(PatientUpdate, "PatientPatch")


class PatientOut(Out):
    """A patient. Members that the role of the caller may not see are absent."""

    area: ClassVar[str] = "patient"

    id: int
    file_number: str
    name: str
    gender: Gender | None
    date_of_birth: BirthDateOut | None = Field(validation_alias="birth_date")
    birth_date_precision: BirthDatePrecision | None
    age: int | None
    age_is_estimate: bool
    deceased_on: DayOut | None
    phone: str | None
    phone_e164: str | None
    email: str | None
    address: str | None
    blood_type: str | None
    insurance_provider: str | None
    insurance_id: str | None
    emergency_contact_name: str | None
    emergency_contact_phone: str | None
    needs_review: bool
    review_notes: str | None
    language: str | None
    is_active: bool
    account_balance: MoneyOut | None = None
    last_visit: InstantOut | None
    next_appointment: InstantOut | None
    created_at: InstantOut
    updated_at: InstantOut


# --- Medical history -----------------------------------------------------------------------------------


class AllergyIn(In):
    """An allergy of the patient."""

    substance: Annotated[Name, Field(examples=["Penicillin"])]
    reaction: Line | None = None
    severity: AllergySeverity = AllergySeverity.UNKNOWN


class ConditionIn(In):
    """A present or past condition of the patient."""

    name: Annotated[RequiredLine, Field(examples=["Type 2 diabetes mellitus"])]
    icd10: Annotated[Short, Field(examples=["E11.9"])] | None = None
    since: DayIn | None = None
    status: ConditionStatus = ConditionStatus.ACTIVE


class HomeMedicationIn(In):
    """A medication of the patient that this clinic did not prescribe."""

    name: Annotated[Name, Field(examples=["Metformin"])]
    dosage: Name | None = None
    since: DayIn | None = None


def _read_entries(member: str) -> Callable[[Any], Any]:
    """Return a validator that reads a text, alone or in a list, as an entry with this member.

    Users paste their notes as plain text.
    """

    def read(value: Any) -> Any:
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list):
            return [{member: entry} if isinstance(entry, str) else entry for entry in value]
        return value

    return read


Allergies = Annotated[
    list[AllergyIn],
    Field(max_length=MAX_ENTRIES),
    BeforeValidator(_read_entries("substance"), json_schema_input_type=list[AllergyIn | Name] | Name),
]
Conditions = Annotated[
    list[ConditionIn],
    Field(max_length=MAX_ENTRIES),
    BeforeValidator(
        _read_entries("name"), json_schema_input_type=list[ConditionIn | RequiredLine] | RequiredLine
    ),
]
HomeMedications = Annotated[
    list[HomeMedicationIn],
    Field(max_length=MAX_ENTRIES),
    BeforeValidator(_read_entries("name"), json_schema_input_type=list[HomeMedicationIn | Name] | Name),
]


class MedicalHistoryIn(In):
    """The medical history of a patient. A list is replaced as a whole. Null empties it.

    An allergy such as NKDA or none sets `no_known_allergies`. A new list of allergens clears it.
    """

    allergies: Allergies | None = None
    no_known_allergies: Annotated[
        bool | None, Field(description="The patient was asked and has no known allergy.")
    ] = None
    conditions: Conditions | None = None
    medications: HomeMedications | None = None
    surgical_history: Note | None = None
    family_history: Note | None = None
    notes: Note | None = None


MedicalHistoryPatch = patch_model(MedicalHistoryIn, "MedicalHistoryPatch")


class AllergyOut(Out):
    """An allergy."""

    substance: str
    reaction: str | None
    severity: AllergySeverity


class ConditionOut(Out):
    """A condition."""

    name: str
    icd10: str | None
    since: DayOut | None
    status: ConditionStatus


class HomeMedicationOut(Out):
    """A medication that this clinic did not prescribe."""

    name: str
    dosage: str | None
    since: DayOut | None


class MedicalHistoryOut(OfPatient):
    """The medical history of a patient. `allergy_status` follows from the allergies and the statement."""

    id: int
    allergy_status: AllergyStatus
    no_known_allergies: bool
    no_known_allergies_at: InstantOut | None
    no_known_allergies_by: PersonRef | None
    allergies: list[AllergyOut]
    conditions: list[ConditionOut]
    medications: list[HomeMedicationOut]
    surgical_history: str | None
    family_history: str | None
    notes: str | None
    warnings: list[CodeWarning]
    created_at: InstantOut
    updated_at: InstantOut


# --- Account -------------------------------------------------------------------------------------------


class PageQuery(In):
    """The page of a computed list."""

    page: int = Field(1, ge=1, le=1_000_000, description="Page number, from 1.")
    per_page: int = Field(20, ge=1, le=1_000, description="Rows per page.")


class AccountEntryOut(Out):
    """A ledger entry. A positive amount increases the debt of the patient."""

    id: int
    billing_id: int | None
    invoice_number: str | None = Field(None, validation_alias=AliasPath("billing", "invoice_number"))
    kind: LedgerKind
    amount: MoneyOut
    method: PaymentMethod | None
    reference: str | None
    reason: str | None
    occurred_at: InstantOut
    created_at: InstantOut


class OpenBillOut(Out):
    """A bill with a balance to pay."""

    id: int
    invoice_number: str
    date: DayOut
    created_at: InstantOut
    due_date: DayOut | None
    doctor_id: int | None
    visit_id: int | None
    amount: MoneyOut
    amount_paid: MoneyOut
    balance: MoneyOut
    status: str


class AccountOut(Out):
    """The account statement of a patient: open bills, refunds of credit, and ledger entries, newest first.

    `account_balance` is the balance of all bills less the credit. `credit` can be spent on bills or refunded.
    `owed_to_insurers` is the money of insurers on void bills.
    """

    patient_id: int
    patient_name: str
    patient: PersonRef
    currency: str
    account_balance: MoneyOut = Field(validation_alias=AliasPath("sums", "balance"))
    credit: MoneyOut = Field(validation_alias=AliasPath("sums", "credit"))
    owed_to_insurers: MoneyOut = Field(validation_alias=AliasPath("sums", "owed_to_insurers"))
    refunds: list[RefundOut]
    open_bills: list[OpenBillOut]
    entries: list[AccountEntryOut]
    entry_count: int


# --- Timeline ------------------------------------------------------------------------------------------

EventType = Literal["appointment", "visit", "treatment", "prescription", "letter", "billing"]


class TimelineQuery(PageQuery):
    """The page and the event type of a timeline."""

    type: Annotated[EventType | None, Field(description="Only events of this type.")] = None


class TimelineEventOut(Out):
    """A past or future event of a patient. `details` has the members that the caller may see."""

    type: EventType
    id: int
    at: InstantOut
    title: str
    status: str
    doctor_id: int | None
    doctor_name: str | None
    doctor: DoctorRef | None
    details: dict[str, Any]


class AppointmentDetails(Out):
    """The timeline details of an appointment."""

    end: InstantOut
    type: str | None
    reason: str | None
    cancellation_reason: str | None


class VisitDetails(Out):
    """The timeline details of a visit."""

    area: ClassVar[str] = "visit"

    appointment_id: int | None
    visit_type: str | None
    chief_complaint: str | None
    summary: str | None
    follow_up_date: DayOut | None


class TreatmentDetails(Out):
    """The timeline details of a treatment."""

    area: ClassVar[str] = "treatment"

    visit_id: int
    description: str | None
    procedure_code: str | None
    cost: MoneyOut
    notes: str | None


class MedicationName(Out):
    """The name and dosage of a prescribed medication."""

    name: str
    dosage: str | None


class PrescriptionDetails(Out):
    """The timeline details of a prescription."""

    visit_id: int
    details: str | None
    medications: list[MedicationName]
    expires_on: DayOut | None


class LetterDetails(Out):
    """The timeline details of a letter."""

    visit_id: int
    type: LetterType
    from_date: DayOut | None
    to_date: DayOut | None
    recipient: str | None


class BillingDetails(Out):
    """The timeline details of a bill."""

    invoice_number: str
    visit_id: int | None
    date: DayOut
    due_date: DayOut | None
    amount: MoneyOut
    amount_paid: MoneyOut
    balance: MoneyOut

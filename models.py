"""The database tables. This module has no queries, clock, permissions or serialization.

Conventions:
- One class is one table. Its docstring describes one row. Parent tables come before child tables.
- Instants are aware datetimes in UTC. Money is a `Decimal` with two places.
- Enumerations are stored by value, with a CHECK constraint.
- Constraint names are part of the interface: `errors.CONSTRAINTS` maps them to error messages.
- Exclusion constraints and triggers are in the migrations, because their SQL differs between the engines.
- `__entity__` is the name of a row in the audit log.
- `__part_of__` is the entity of the parent row and the column with its id. A change of the child is audited
  as a change of the parent.
- Attributes under "computed fields" are not stored. The service of the domain computes them for a response.
"""

from __future__ import annotations

from datetime import datetime, time
from decimal import Decimal
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Enum,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Time,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column, relationship, validates

from column_types import (
    COST_TOP,
    MONEY_TOP,
    BigId,
    Day,
    EncryptedType,
    Id,
    Instant,
    JsonDict,
    JsonList,
    Line,
    Money,
    Name,
    Note,
    Quantity,
    SearchKey,
    Short,
    UniqueKey,
    UnitCost,
    unique_key,
)
from enums import (
    AllergySeverity,
    AllergyStatus,
    AppointmentStatus,
    AuditOutcome,
    BirthDatePrecision,
    CalendarDetail,
    CancelledBy,
    ClaimStatus,
    ConditionStatus,
    ExportFormat,
    ExportState,
    FactorPurpose,
    Gender,
    ImportAction,
    ImportRowState,
    ImportState,
    ImportSubject,
    JobState,
    LedgerKind,
    LetterType,
    MessageChannel,
    MessageKind,
    MessageReason,
    MessageState,
    MovementType,
    OnDuplicate,
    OnError,
    PaymentMethod,
    PrescriptionStatus,
    RefundStatus,
    ReviewOutcome,
    Role,
    TreatmentStatus,
)


class Base(DeclarativeBase):
    """The declarative base class: naming of constraints, and the audit entity of a table."""

    __allow_unmapped__ = True  # computed fields are annotated without Mapped
    __entity__: ClassVar[str | None] = None
    __part_of__: ClassVar[tuple[str, str] | None] = None

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )


def _ref(target: str, *, index: bool = True, ondelete: str | None = None, unique: bool = False) -> Any:
    """Return a foreign key column to the id of `target`.

    Pass `index=False` if another index of the table begins with this column.
    """
    return mapped_column(BigId, ForeignKey(f"{target}.id", ondelete=ondelete), index=index, unique=unique)


def _enum(kind: type[StrEnum], **options: Any) -> Any:
    """Return a column that stores the value of an enumeration, with a CHECK constraint."""
    return mapped_column(
        Enum(
            kind,
            name=kind.__name__.lower(),
            native_enum=False,
            length=30,
            create_constraint=True,
            values_callable=lambda members: [member.value for member in members],
        ),
        **options,
    )


def _money_check(
    column: str, *, low: str = ">= 0", top: str = MONEY_TOP, name: str = "range"
) -> CheckConstraint:
    """Return a CHECK constraint with a lower and an upper bound for an amount or a decimal quantity.

    The upper bound is needed: on PostgreSQL, NaN and infinity are above every number. SQLite stores cents and
    PostgreSQL stores units. A `low` of zero means the same on both.
    """
    return CheckConstraint(f"{column} {low} AND {column} <= {top}", name=f"{column}_{name}")


# --- Mixins --------------------------------------------------------------------------------------------


class Timestamped:
    """The instants of creation and last change. `services.audit.audit_log` sets them at each flush."""

    created_at: Mapped[Instant]
    updated_at: Mapped[Instant]


class Versioned(Timestamped):
    """A row with a strong ETag. Each change of a stored column increments the version by one."""

    version: Mapped[int] = mapped_column(default=1)

    @declared_attr.directive
    @classmethod
    def __mapper_args__(cls) -> dict[str, Any]:
        return {"version_id_col": cls.__table__.c.version}  # type: ignore[attr-defined]


class WithUniqueKeys:
    """A row with values that people type and that are compared trimmed and case-folded.

    `<name>_key` is the compared form of `<name>`. It is set together with it.
    """

    @validates("file_number", "license_number", "sku", "email", "insurance_id", "code")
    def _set_unique_key(self, name: str, value: str | None) -> str | None:
        if hasattr(type(self), f"{name}_key"):
            setattr(self, f"{name}_key", None if value is None else unique_key(value))
        return value


# --- People --------------------------------------------------------------------------------------------


class User(WithUniqueKeys, Versioned, Base):
    """A user account. A self-registered account is inactive until an administrator activates it."""

    __tablename__ = "users"
    __entity__ = "user"
    __table_args__ = (
        Index("ix_users_role_active", "role", "is_active"),
        Index("uq_users_email_key", "email_key", unique=True),
    )

    id: Mapped[Id]
    name: Mapped[Name]
    name_fold: Mapped[SearchKey]
    email: Mapped[str] = mapped_column(String(254), unique=True)
    email_key: Mapped[UniqueKey] = mapped_column(server_default="")
    phone: Mapped[Short | None]
    password_hash: Mapped[str] = mapped_column(String(100))
    role: Mapped[Role] = _enum(Role)
    is_active: Mapped[bool]
    last_login_at: Mapped[Instant | None]
    unlocked_at: Mapped[Instant | None]  # failed sign-ins before do not block the user
    mfa_enabled_at: Mapped[Instant | None]  # null: the user has no second factor
    mfa_required_since: Mapped[Instant | None]  # start of the grace period to set one up

    doctor: Mapped[Doctor | None] = relationship(back_populates="user")

    @property
    def doctor_id(self) -> int | None:
        """Return the id of the doctor record of this user, or None."""
        return self.doctor.id if self.doctor else None


class UserSession(Base):
    """One sign-in on one device. It is valid until it expires or ends.

    The tokens contain the counter. A token with an older counter is retired.
    """

    __tablename__ = "user_sessions"
    __part_of__ = ("user", "user_id")

    id: Mapped[Id]
    user_id: Mapped[int] = _ref("users")
    counter: Mapped[int] = mapped_column(default=0)
    rotated_at: Mapped[Instant | None]
    device: Mapped[Line | None]
    address: Mapped[Short | None]
    created_at: Mapped[Instant]
    last_used_at: Mapped[Instant]
    expires_at: Mapped[Instant] = mapped_column(index=True)
    ended_at: Mapped[Instant | None]
    stepped_up_at: Mapped[Instant | None]  # last proof of a second factor in this session

    user: Mapped[User] = relationship()

    # computed fields
    is_current: bool = False
    ends_at: datetime | None = None


class PasswordReset(Base):
    """A one-time token to set a new password. Only the SHA-256 hash of the token is stored."""

    __tablename__ = "password_resets"
    __part_of__ = ("user", "user_id")

    id: Mapped[Id]
    user_id: Mapped[int] = _ref("users")
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[Instant]
    expires_at: Mapped[Instant]
    used_at: Mapped[Instant | None]


class Patient(WithUniqueKeys, Versioned, Base):
    """A patient of the clinic.

    `date_of_birth` is the first day of the known month or year if `birth_date_precision` is not the day.
    `archived_on` is the day on which an inactive patient was archived.
    """

    __tablename__ = "patients"
    __entity__ = "patient"
    __table_args__ = (
        Index("ix_patients_date_of_birth", "date_of_birth"),
        Index("ix_patients_insurance_id_key", "insurance_id_key"),
        Index("ix_patients_email_key", "email_key"),
        Index("uq_patients_file_number_key", "file_number_key", unique=True),
        Index("ix_patients_created_at", "created_at"),
    )

    id: Mapped[Id]
    file_number: Mapped[str] = mapped_column(String(50), unique=True)
    file_number_key: Mapped[UniqueKey] = mapped_column(server_default="")
    name: Mapped[Name]
    name_fold: Mapped[SearchKey]
    gender: Mapped[Gender | None] = _enum(Gender)
    date_of_birth: Mapped[Day | None]
    birth_date_precision: Mapped[BirthDatePrecision | None] = _enum(BirthDatePrecision)
    deceased_on: Mapped[Day | None]
    phone: Mapped[Short | None]
    phone_e164: Mapped[str | None] = mapped_column(String(20), index=True)
    phone_digits: Mapped[str | None] = mapped_column(String(50))
    search_fold: Mapped[str] = mapped_column(String(1000), server_default="")  # see search_column
    email: Mapped[str | None] = mapped_column(String(254))
    email_key: Mapped[UniqueKey | None]
    address: Mapped[Line | None]
    blood_type: Mapped[str | None] = mapped_column(String(3))
    insurance_provider: Mapped[Name | None]
    insurance_id: Mapped[Short | None]
    insurance_id_key: Mapped[UniqueKey | None]
    emergency_contact_name: Mapped[Name | None]
    emergency_contact_phone: Mapped[Short | None]
    needs_review: Mapped[bool] = mapped_column(default=False)
    review_notes: Mapped[Note | None]
    language: Mapped[str | None] = mapped_column(String(35))  # BCP 47; None: the language of the clinic
    is_active: Mapped[bool] = mapped_column(default=True)
    archived_on: Mapped[Day | None]

    # computed fields
    birth_date: str | None = None  # the known part of the date of birth
    age: int | None = None
    age_is_estimate: bool = False
    account_balance: Decimal | None = None
    last_visit: datetime | None = None
    next_appointment: datetime | None = None


class MedicalHistory(Versioned, Base):
    """The medical history of one patient: allergies, conditions, medications and notes."""

    __tablename__ = "medical_histories"
    __entity__ = "medical_history"

    id: Mapped[Id]
    patient_id: Mapped[int] = _ref("patients", index=False, unique=True)
    surgical_history: Mapped[Note | None]
    family_history: Mapped[Note | None]
    notes: Mapped[Note | None]
    no_known_allergies_at: Mapped[Instant | None]  # set: the patient was asked and has no known allergy
    no_known_allergies_by_id: Mapped[int | None] = _ref("users", index=False)

    patient: Mapped[Patient] = relationship()
    no_known_allergies_by: Mapped[User | None] = relationship()
    allergies: Mapped[list[Allergy]] = relationship(cascade="all, delete-orphan", order_by="Allergy.id")
    conditions: Mapped[list[Condition]] = relationship(cascade="all, delete-orphan", order_by="Condition.id")
    medications: Mapped[list[HomeMedication]] = relationship(
        cascade="all, delete-orphan", order_by="HomeMedication.id"
    )

    # computed field
    warnings: list[dict[str, str]] | None = None

    @property
    def no_known_allergies(self) -> bool:
        """Return True if the patient was asked and has no known allergy."""
        return self.no_known_allergies_at is not None

    @property
    def allergy_status(self) -> AllergyStatus:
        """Return whether allergies are recorded, none are known, or nobody has asked."""
        if self.allergies:
            return AllergyStatus.RECORDED
        return AllergyStatus.NONE_KNOWN if self.no_known_allergies else AllergyStatus.NOT_ASKED


class Allergy(Base):
    """A known allergy of a patient to a substance."""

    __tablename__ = "allergies"
    __part_of__ = ("medical_history", "medical_history_id")
    __table_args__ = (UniqueConstraint("medical_history_id", "substance_fold"),)

    id: Mapped[Id]
    medical_history_id: Mapped[int] = _ref("medical_histories", index=False, ondelete="CASCADE")
    substance: Mapped[Name]
    substance_fold: Mapped[SearchKey] = mapped_column(index=True)
    reaction: Mapped[Line | None]
    severity: Mapped[AllergySeverity] = _enum(AllergySeverity, default=AllergySeverity.UNKNOWN)


class Condition(Base):
    """An active or resolved condition of a patient."""

    __tablename__ = "conditions"
    __part_of__ = ("medical_history", "medical_history_id")

    id: Mapped[Id]
    medical_history_id: Mapped[int] = _ref("medical_histories", ondelete="CASCADE")
    name: Mapped[Line]
    name_fold: Mapped[SearchKey] = mapped_column(index=True)
    icd10: Mapped[str | None] = mapped_column(String(10), index=True)
    since: Mapped[Day | None]
    status: Mapped[ConditionStatus] = _enum(ConditionStatus, default=ConditionStatus.ACTIVE)


class HomeMedication(Base):
    """A medicine that a patient takes and that this clinic did not prescribe."""

    __tablename__ = "home_medications"
    __part_of__ = ("medical_history", "medical_history_id")

    id: Mapped[Id]
    medical_history_id: Mapped[int] = _ref("medical_histories", ondelete="CASCADE")
    name: Mapped[Name]
    dosage: Mapped[Name | None]
    since: Mapped[Day | None]


class Doctor(WithUniqueKeys, Versioned, Base):
    """A doctor. A doctor with a user account can sign in."""

    __tablename__ = "doctors"
    __entity__ = "doctor"
    __table_args__ = (
        _money_check("consultation_fee"),
        CheckConstraint("slot_minutes BETWEEN 5 AND 480", name="slot_minutes_range"),
        CheckConstraint("buffer_minutes BETWEEN 0 AND 240", name="buffer_minutes_range"),
        Index("uq_doctors_license_number_key", "license_number_key", unique=True),
    )

    id: Mapped[Id]
    user_id: Mapped[int | None] = _ref("users", index=False, unique=True)
    name: Mapped[Name]
    name_fold: Mapped[SearchKey]
    email: Mapped[str | None] = mapped_column(String(254))
    phone: Mapped[Short | None]
    specialty: Mapped[Short]
    specialties: Mapped[JsonList] = mapped_column(default=list)
    license_number: Mapped[Short] = mapped_column(unique=True)
    license_number_key: Mapped[UniqueKey] = mapped_column(server_default="")
    license_expires_on: Mapped[Day | None]
    certifications: Mapped[JsonList] = mapped_column(default=list)
    consultation_fee: Mapped[Money] = mapped_column(default=Decimal("0.00"))
    slot_minutes: Mapped[int] = mapped_column(default=30)
    buffer_minutes: Mapped[int] = mapped_column(default=0)
    is_active: Mapped[bool] = mapped_column(default=True)

    user: Mapped[User | None] = relationship(back_populates="doctor")

    # computed fields
    next_available: datetime | None = None
    patient_count: int | None = None


# --- Scheduling ----------------------------------------------------------------------------------------


class ScheduleWindow(Base):
    """A half-open interval of working hours of a doctor, in the time zone of the clinic.

    It begins on `weekday`. It ends on the next day if the end is not after the start.
    """

    __tablename__ = "schedule_windows"
    __part_of__ = ("doctor", "doctor_id")
    __table_args__ = (
        CheckConstraint("weekday BETWEEN 0 AND 6", name="weekday_range"),
        CheckConstraint('start <> "end"', name="start_is_not_end"),
        UniqueConstraint("doctor_id", "weekday", "start"),
    )

    id: Mapped[Id]
    doctor_id: Mapped[int] = _ref("doctors", index=False)
    weekday: Mapped[int]  # 0 = Monday
    start: Mapped[time] = mapped_column(Time())
    end: Mapped[time] = mapped_column(Time())


class TimeOff(Timestamped, Base):
    """A half-open interval of a doctor's leave. It takes precedence over the weekly schedule."""

    __tablename__ = "time_off"
    __entity__ = "time_off"
    __table_args__ = (
        CheckConstraint('start < "end"', name="start_before_end"),
        Index("ix_time_off_doctor_start", "doctor_id", "start"),
    )

    id: Mapped[Id]
    doctor_id: Mapped[int] = _ref("doctors", index=False)
    start: Mapped[Instant]
    end: Mapped[Instant]
    reason: Mapped[Line | None]

    doctor: Mapped[Doctor] = relationship()


class Appointment(Versioned, Base):
    """A booked appointment: a half-open interval. `blocked_until` is the end plus the doctor buffer."""

    __tablename__ = "appointments"
    __entity__ = "appointment"
    __table_args__ = (
        CheckConstraint('start < "end"', name="start_before_end"),
        CheckConstraint('"end" <= blocked_until', name="blocked_covers_end"),
        Index("ix_appointments_doctor_start", "doctor_id", "start"),
        Index("ix_appointments_patient_start", "patient_id", "start"),
        Index("ix_appointments_start", "start"),
        Index("ix_appointments_status_start", "status", "start"),
    )

    id: Mapped[Id]
    patient_id: Mapped[int] = _ref("patients", index=False)
    doctor_id: Mapped[int] = _ref("doctors", index=False)
    start: Mapped[Instant]
    end: Mapped[Instant]
    blocked_until: Mapped[Instant]
    status: Mapped[AppointmentStatus] = _enum(AppointmentStatus, default=AppointmentStatus.SCHEDULED)
    type: Mapped[Short | None]
    reason: Mapped[Line | None]
    notes: Mapped[Note | None]
    cancellation_reason: Mapped[Line | None]
    cancelled_by: Mapped[CancelledBy | None] = _enum(CancelledBy)
    status_reason: Mapped[Line | None]
    overbooked: Mapped[bool] = mapped_column(default=False)
    overbook_reason: Mapped[Line | None]
    checked_in_at: Mapped[Instant | None]
    created_by_id: Mapped[int | None] = _ref("users")
    cancelled_at: Mapped[Instant | None]
    rescheduled_at: Mapped[Instant | None]  # last change of the start
    reschedule_count: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    previous_start: Mapped[Instant | None]  # before the last change of the start
    confirmed_at: Mapped[Instant | None]  # by the patient, for this start

    patient: Mapped[Patient] = relationship()
    doctor: Mapped[Doctor] = relationship()

    # computed fields
    booked_by: Any = None  # id and name
    visit_id: int | None = None
    allowed_transitions: list[str] | None = None

    @property
    def duration(self) -> int:
        """Return the duration in minutes."""
        return int((self.end - self.start).total_seconds() // 60)


# --- Clinical ------------------------------------------------------------------------------------------


class Visit(Versioned, Base):
    """An encounter of a patient with a doctor. A visit is open, signed (read-only) or void."""

    __tablename__ = "visits"
    __entity__ = "visit"
    __table_args__ = (
        CheckConstraint("signed_at IS NULL OR voided_at IS NULL", name="signed_or_voided"),
        Index("ix_visits_patient_date", "patient_id", "date"),
        Index("ix_visits_doctor_date", "doctor_id", "date"),
        Index("ix_visits_date", "date"),
        Index("ix_visits_follow_up_date", "follow_up_date"),
        Index("ix_visits_appointment_id", "appointment_id"),
        # An appointment has at most one visit. Void visits do not count.
        Index(
            "uq_visits_appointment_id",
            "appointment_id",
            unique=True,
            postgresql_where=text("voided_at IS NULL"),
            sqlite_where=text("voided_at IS NULL"),
        ),
    )

    id: Mapped[Id]
    patient_id: Mapped[int] = _ref("patients", index=False)
    doctor_id: Mapped[int] = _ref("doctors", index=False)
    appointment_id: Mapped[int | None] = _ref("appointments", index=False)
    date: Mapped[Instant]
    visit_type: Mapped[Short | None]
    summary: Mapped[Note | None]
    procedure_details: Mapped[Note | None]
    chief_complaint: Mapped[Note | None]
    notes: Mapped[Note | None]
    vitals: Mapped[JsonDict | None]
    follow_up_date: Mapped[Day | None]
    signed_at: Mapped[Instant | None]
    signed_by_id: Mapped[int | None] = _ref("users")
    voided_at: Mapped[Instant | None]
    void_reason: Mapped[Line | None]

    patient: Mapped[Patient] = relationship()
    doctor: Mapped[Doctor] = relationship()
    appointment: Mapped[Appointment | None] = relationship()
    diagnoses: Mapped[list[Diagnosis]] = relationship(cascade="all, delete-orphan", order_by="Diagnosis.id")
    addenda: Mapped[list[Addendum]] = relationship(order_by="Addendum.id")
    treatments: Mapped[list[Treatment]] = relationship(back_populates="visit", order_by="Treatment.id")
    prescriptions: Mapped[list[Prescription]] = relationship(
        back_populates="visit", order_by="Prescription.id"
    )

    # computed fields
    amount_paid: Decimal | None = None
    balance: Decimal | None = None
    warnings: list[dict[str, str]] | None = None

    @property
    def status(self) -> str:
        """Return `open`, `signed` or `void`."""
        return "void" if self.voided_at else "signed" if self.signed_at else "open"


class Diagnosis(Base):
    """A diagnosis of a visit."""

    __tablename__ = "diagnoses"
    __part_of__ = ("visit", "visit_id")

    id: Mapped[Id]
    visit_id: Mapped[int] = _ref("visits", ondelete="CASCADE")
    icd10: Mapped[str | None] = mapped_column(String(10), index=True)
    description: Mapped[Line]


class Addendum(Base):
    """A correction to a signed visit. Addenda are append-only."""

    __tablename__ = "addenda"
    __part_of__ = ("visit", "visit_id")

    id: Mapped[Id]
    visit_id: Mapped[int] = _ref("visits")
    author_id: Mapped[int] = _ref("users", index=False)
    text: Mapped[Note]
    created_at: Mapped[Instant]

    author: Mapped[User] = relationship()


class Treatment(Versioned, Base):
    """A planned or performed procedure or service of a visit."""

    __tablename__ = "treatments"
    __entity__ = "treatment"
    __table_args__ = (
        _money_check("cost"),
        Index("ix_treatments_doctor_created", "doctor_id", "created_at"),
        Index("ix_treatments_created_at", "created_at"),
        Index("ix_treatments_status", "status"),
    )

    id: Mapped[Id]
    visit_id: Mapped[int] = _ref("visits")
    patient_id: Mapped[int] = _ref("patients")  # copy of visits.patient_id, for queries and the audit
    doctor_id: Mapped[int] = _ref("doctors", index=False)
    name: Mapped[Name]
    name_fold: Mapped[SearchKey] = mapped_column(server_default="")
    description: Mapped[Note | None]
    procedure_code: Mapped[Short | None]
    cost: Mapped[Money]
    status: Mapped[TreatmentStatus] = _enum(TreatmentStatus, default=TreatmentStatus.COMPLETED)
    notes: Mapped[Note | None]
    stock_taken_at: Mapped[Instant | None]
    void_reason: Mapped[Line | None]
    billing_id: Mapped[int | None] = _ref("billings")  # the bill with its charge; NULL if that is void
    price_list_item_id: Mapped[int | None] = _ref("price_list_items")  # source of name and cost

    visit: Mapped[Visit] = relationship(back_populates="treatments")
    patient: Mapped[Patient] = relationship()
    doctor: Mapped[Doctor] = relationship()
    inventory_items: Mapped[list[InventoryUsage]] = relationship(
        cascade="all, delete-orphan", order_by="InventoryUsage.item_id"
    )

    # computed fields
    inventory_used: list[dict[str, Any]] | None = None


class Prescription(Versioned, Base):
    """A prescription of one or more medicines."""

    __tablename__ = "prescriptions"
    __entity__ = "prescription"
    __table_args__ = (
        Index("ix_prescriptions_patient_status", "patient_id", "status"),
        Index("ix_prescriptions_doctor_issued", "doctor_id", "issued_at"),
        Index("ix_prescriptions_issued_at", "issued_at"),
    )

    id: Mapped[Id]
    visit_id: Mapped[int] = _ref("visits")
    patient_id: Mapped[int] = _ref("patients", index=False)  # copy of visits.patient_id, for the safety check
    doctor_id: Mapped[int] = _ref("doctors", index=False)
    details: Mapped[Note | None]
    status: Mapped[PrescriptionStatus] = _enum(PrescriptionStatus, default=PrescriptionStatus.ACTIVE)
    issued_at: Mapped[Instant]
    expires_on: Mapped[Day | None]
    override_reason: Mapped[Line | None]
    overridden_alerts: Mapped[JsonList] = mapped_column(default=list)
    cancellation_reason: Mapped[Line | None]
    stopped_at: Mapped[Instant | None]  # the end of the therapy before its supply ends
    stop_reason: Mapped[Line | None]

    visit: Mapped[Visit] = relationship(back_populates="prescriptions")
    patient: Mapped[Patient] = relationship()
    doctor: Mapped[Doctor] = relationship()
    medications: Mapped[list[PrescribedMedication]] = relationship(
        back_populates="prescription", cascade="all, delete-orphan", order_by="PrescribedMedication.id"
    )
    dispensings: Mapped[list[Dispensing]] = relationship(
        back_populates="prescription", order_by="Dispensing.id"
    )

    # computed fields
    warnings: list[dict[str, str]]
    shown_status: PrescriptionStatus  # `status`, or expired after `expires_on`


class PrescribedMedication(Base):
    """One medicine of a prescription. At most quantity x (1 + refills) may be dispensed.

    `services.clinical.therapy` computes `ends_on`, the last day of the therapy. Without it, the therapy goes
    on until it is stopped.
    """

    __tablename__ = "prescribed_medications"
    __part_of__ = ("prescription", "prescription_id")
    __table_args__ = (
        _money_check("quantity", low="> 0", name="positive"),
        CheckConstraint("refills BETWEEN 0 AND 99", name="refills_range"),
        CheckConstraint(
            f"dispensed >= 0 AND dispensed <= {MONEY_TOP} "
            "AND (quantity IS NULL OR dispensed <= quantity * (1 + refills))",
            name="dispensed_range",
        ),
    )

    id: Mapped[Id]
    prescription_id: Mapped[int] = _ref("prescriptions", ondelete="CASCADE")
    name: Mapped[Name]
    name_fold: Mapped[SearchKey] = mapped_column(server_default="")
    dosage: Mapped[Name | None]
    frequency: Mapped[Name | None]
    route: Mapped[Short | None]
    duration_days: Mapped[int | None]
    quantity: Mapped[Quantity | None]
    unit: Mapped[Short | None]
    refills: Mapped[int] = mapped_column(default=0)
    instructions: Mapped[Note | None]
    dispensed: Mapped[Quantity] = mapped_column(default=Decimal(0))
    ends_on: Mapped[Day | None]

    prescription: Mapped[Prescription] = relationship(back_populates="medications")

    @property
    def remaining(self) -> Decimal | None:
        """Return the quantity that may still be dispensed, or None if there is no limit."""
        return None if self.quantity is None else self.quantity * (1 + self.refills) - self.dispensed


class Dispensing(Base):
    """One dispensing of a prescribed medicine."""

    __tablename__ = "dispensings"
    __part_of__ = ("prescription", "prescription_id")
    __table_args__ = (_money_check("quantity", low="> 0", name="positive"),)

    id: Mapped[Id]
    prescription_id: Mapped[int] = _ref("prescriptions")
    medication_id: Mapped[int] = _ref("prescribed_medications")
    quantity: Mapped[Quantity]
    dispensed_by_id: Mapped[int] = _ref("users", index=False)
    created_at: Mapped[Instant]

    prescription: Mapped[Prescription] = relationship(back_populates="dispensings")
    medication: Mapped[PrescribedMedication] = relationship()
    dispensed_by: Mapped[User] = relationship()


# --- Money ---------------------------------------------------------------------------------------------


class DocumentCounter(Base):
    """The last number of a series in a year. The row lock while a number is assigned prevents gaps."""

    __tablename__ = "document_counters"

    series: Mapped[str] = mapped_column(String(10), primary_key=True)  # the first part of the numbers
    year: Mapped[int] = mapped_column(Integer(), primary_key=True, autoincrement=False)
    last_number: Mapped[int] = mapped_column(default=0)


class LedgerCurrency(Base):
    """The currency of all amounts. The table has at most one row."""

    __tablename__ = "ledger_currency"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(Integer(), primary_key=True, autoincrement=False)
    code: Mapped[str] = mapped_column(String(3))  # ISO 4217


class Billing(Versioned, Base):
    """A bill. It stores no totals: its amount and its payments are sums of ledger entries."""

    __tablename__ = "billings"
    __entity__ = "billing"
    __table_args__ = (
        CheckConstraint("tax_rate >= 0 AND tax_rate <= 100", name="tax_rate_range"),
        Index("ix_billings_patient_created", "patient_id", "created_at"),
        Index("ix_billings_doctor_created", "doctor_id", "created_at"),
        Index("ix_billings_created_at", "created_at"),
        Index("ix_billings_date", "date"),
    )

    id: Mapped[Id]
    invoice_number: Mapped[str] = mapped_column(String(30), unique=True)
    patient_id: Mapped[int] = _ref("patients", index=False)
    visit_id: Mapped[int | None] = _ref("visits")
    doctor_id: Mapped[int | None] = _ref("doctors", index=False)  # revenue is reported for this doctor
    discount_reason: Mapped[Line | None]
    tax_rate: Mapped[Decimal] = mapped_column(Numeric(5, 2), default=Decimal("0.00"))
    payment_method: Mapped[PaymentMethod | None] = _enum(PaymentMethod)
    insurer_reference: Mapped[Short | None]
    date: Mapped[Day]  # date of issue
    due_date: Mapped[Day | None]
    notes: Mapped[Note | None]
    voided_at: Mapped[Instant | None]
    void_reason: Mapped[Line | None]
    created_by_id: Mapped[int | None] = _ref("users")
    clinic_version_id: Mapped[int] = _ref("clinic_record_versions", index=False)  # at its issue

    patient: Mapped[Patient] = relationship()
    visit: Mapped[Visit | None] = relationship()
    doctor: Mapped[Doctor | None] = relationship()
    items: Mapped[list[BillingItem]] = relationship(order_by="BillingItem.id")
    entries: Mapped[list[LedgerEntry]] = relationship(
        back_populates="billing", order_by="LedgerEntry.id", foreign_keys="LedgerEntry.billing_id"
    )
    refunds: Mapped[list[Refund]] = relationship(back_populates="billing", order_by="Refund.id")
    claims: Mapped[list[Claim]] = relationship(back_populates="billing", order_by="Claim.id")

    # computed fields
    subtotal: Decimal | None = None
    discount: Decimal | None = None
    tax: Decimal | None = None
    amount: Decimal | None = None
    amount_paid: Decimal | None = None
    written_off: Decimal | None = None
    balance: Decimal | None = None
    owed_to_insurers: Decimal | None = None
    currency: str | None = None
    is_paid: bool | None = None
    status: str | None = None
    payments: list[LedgerEntry] | None = None
    credit_notes: list[CreditNote] | None = None
    account_balance: Decimal | None = None


class BillingItem(Base):
    """One line of a bill: description, quantity and unit price. The charge is a ledger entry."""

    __tablename__ = "billing_items"
    __part_of__ = ("billing", "billing_id")
    __table_args__ = (
        _money_check("unit_price"),
        CheckConstraint("quantity BETWEEN 1 AND 1000000", name="quantity_range"),
    )

    id: Mapped[Id]
    billing_id: Mapped[int] = _ref("billings")
    treatment_id: Mapped[int | None] = _ref("treatments")
    description: Mapped[Line]
    quantity: Mapped[int]
    unit_price: Mapped[Money]
    # the source of the default description and price, which later changes of the price list do not touch
    price_list_item_id: Mapped[int | None] = _ref("price_list_items", index=False)


class Refund(Timestamped, Base):
    """A refund request and the decision. Without a bill it pays back the credit of the patient."""

    __tablename__ = "refunds"
    __part_of__ = ("billing", "billing_id")
    __table_args__ = (_money_check("amount", low="> 0"), Index("ix_refunds_status", "status"))

    id: Mapped[Id]
    billing_id: Mapped[int | None] = _ref("billings")
    patient_id: Mapped[int] = _ref("patients")
    payment_id: Mapped[int | None] = _ref("ledger_entries", index=False)  # the refunded payment
    entry_id: Mapped[int | None] = _ref("ledger_entries", index=False)  # the ledger entry of the refund
    amount: Mapped[Money]
    # NULL only in old rows of which it is not known
    method: Mapped[PaymentMethod | None] = _enum(PaymentMethod)
    reason: Mapped[Line]
    status: Mapped[RefundStatus] = _enum(RefundStatus)
    requested_by_id: Mapped[int] = _ref("users", index=False)
    decided_by_id: Mapped[int | None] = _ref("users", index=False)
    decided_at: Mapped[Instant | None]

    billing: Mapped[Billing | None] = relationship(back_populates="refunds")
    patient: Mapped[Patient] = relationship()


class Claim(Versioned, Base):
    """A claim for a bill to an insurer."""

    __tablename__ = "claims"
    __entity__ = "claim"
    __table_args__ = (
        _money_check("amount", low="> 0"),
        CheckConstraint(
            "approved_amount IS NULL OR (approved_amount >= 0 AND approved_amount <= amount)",
            name="approved_within_claimed",
        ),
        CheckConstraint(
            "paid_amount >= 0 AND paid_amount <= coalesce(approved_amount, 0)", name="paid_within_approved"
        ),
    )

    id: Mapped[Id]
    billing_id: Mapped[int] = _ref("billings")
    patient_id: Mapped[int] = _ref("patients")  # copy of billings.patient_id, for the audit
    insurer: Mapped[Name]
    policy_number: Mapped[Short]
    claim_number: Mapped[Short | None]
    amount: Mapped[Money]
    approved_amount: Mapped[Money | None]
    paid_amount: Mapped[Money] = mapped_column(default=Decimal("0.00"))
    status: Mapped[ClaimStatus] = _enum(ClaimStatus, default=ClaimStatus.DRAFT)
    reason: Mapped[Line | None]
    submitted_at: Mapped[Instant | None]

    billing: Mapped[Billing] = relationship(back_populates="claims")

    # computed fields
    allowed_transitions: list[str] | None = None


class LedgerEntry(Base):
    """A signed posting to the account of a patient. A positive amount raises the balance due.

    Triggers refuse updates and deletes. An entry without a bill is credit of the patient. Every balance and
    every revenue figure is a sum of these entries.
    """

    __tablename__ = "ledger_entries"
    __part_of__ = ("billing", "billing_id")
    __table_args__ = (
        _money_check("amount", low=f">= -{MONEY_TOP}"),
        Index("ix_ledger_entries_patient_id", "patient_id"),
        Index("ix_ledger_entries_billing_kind", "billing_id", "kind"),
        # Contains all columns of the revenue report, for an index-only scan.
        Index(
            "ix_ledger_entries_occurred_at",
            "occurred_at",
            postgresql_include=["kind", "amount", "method", "doctor_id", "reverses_id"],
        ),
        # An entry is reversed at most once.
        Index("uq_ledger_entries_reverses_id", "reverses_id", unique=True),
    )

    id: Mapped[Id]
    patient_id: Mapped[int] = _ref("patients", index=False)
    billing_id: Mapped[int | None] = _ref("billings", index=False)
    kind: Mapped[LedgerKind] = _enum(LedgerKind)
    amount: Mapped[Money]
    method: Mapped[PaymentMethod | None] = _enum(PaymentMethod)
    reference: Mapped[Short | None]
    reason: Mapped[Line | None]
    occurred_at: Mapped[Instant]  # date of the payment, which may be recorded later
    reverses_id: Mapped[int | None] = _ref("ledger_entries", index=False)
    claim_id: Mapped[int | None] = _ref("claims", index=False)
    # The bill whose balance a payment exceeded. The entry is the excess, which is on the account.
    overpaid_billing_id: Mapped[int | None] = _ref("billings", index=False)
    item_id: Mapped[int | None] = _ref("billing_items", index=False)
    visit_id: Mapped[int | None] = _ref("visits")  # the visit of a payment to the account, without a bill
    created_by_id: Mapped[int | None] = _ref("users", index=False)
    created_at: Mapped[Instant]
    doctor_id: Mapped[int | None] = mapped_column(BigId)  # copy of billings.doctor_id, which never changes

    billing: Mapped[Billing | None] = relationship(back_populates="entries", foreign_keys=billing_id)
    created_by: Mapped[User | None] = relationship()


class BillingStanding(Base):
    """The instant since when a bill is settled (balance zero), or NULL. A trigger updates it at each posting.

    It stores no sum. Queries for open bills skip settled bills with it and stay fast with millions of bills.
    """

    __tablename__ = "billing_standings"

    billing_id: Mapped[int] = mapped_column(
        BigId, ForeignKey("billings.id"), primary_key=True, autoincrement=False
    )
    settled_at: Mapped[Instant | None] = mapped_column(index=True)


# --- Stock ---------------------------------------------------------------------------------------------


class InventoryItem(WithUniqueKeys, Versioned, Base):
    """An item in stock. `quantity` always equals the sum of its stock movements."""

    __tablename__ = "inventory_items"
    __entity__ = "inventory_item"
    __table_args__ = (
        _money_check("unit_cost", top=COST_TOP),
        CheckConstraint("quantity >= 0", name="quantity_not_negative"),
        CheckConstraint("min_quantity >= 0", name="min_quantity_not_negative"),
        CheckConstraint("reorder_quantity >= 0", name="reorder_quantity_not_negative"),
        Index("ix_inventory_items_category", "category"),
        Index("uq_inventory_items_sku_key", "sku_key", unique=True),
    )

    id: Mapped[Id]
    name: Mapped[Name]
    name_fold: Mapped[SearchKey]
    sku: Mapped[Short | None] = mapped_column(unique=True)
    sku_key: Mapped[UniqueKey | None]
    description: Mapped[Note | None]
    category: Mapped[Short | None]
    unit: Mapped[Short | None]
    quantity: Mapped[int] = mapped_column(default=0)
    min_quantity: Mapped[int] = mapped_column(default=5)
    reorder_quantity: Mapped[int | None]
    unit_cost: Mapped[UnitCost] = mapped_column(default=Decimal("0.0000"))
    supplier: Mapped[Name | None]
    is_active: Mapped[bool] = mapped_column(default=True)
    packages: Mapped[JsonList] = mapped_column(
        default=list, server_default=text("'[]'")
    )  # name and quantity in units

    lots: Mapped[list[InventoryLot]] = relationship(back_populates="item", order_by="InventoryLot.id")

    # computed fields
    available: int | None = None
    last_restocked: datetime | None = None
    stock_value: Decimal | None = None

    @property
    def low_stock(self) -> bool:
        """Return True if the quantity is at or below the minimum."""
        return self.quantity <= self.min_quantity


class InventoryLot(Base):
    """Units of one item with the same lot number and expiry date. Both may be unknown."""

    __tablename__ = "inventory_lots"
    __part_of__ = ("inventory_item", "item_id")
    __table_args__ = (
        CheckConstraint("quantity >= 0", name="quantity_not_negative"),
        Index("ix_inventory_lots_item_expiry", "item_id", "expires_on"),
        Index("ix_inventory_lots_expires_on", "expires_on"),
    )

    id: Mapped[Id]
    item_id: Mapped[int] = _ref("inventory_items", index=False)
    lot_number: Mapped[Short | None]
    expires_on: Mapped[Day | None]  # usable through this day
    quantity: Mapped[int] = mapped_column(default=0)

    item: Mapped[InventoryItem] = relationship(back_populates="lots")


class StockMovement(Base):
    """A signed change of the quantity of one lot. Triggers refuse updates and deletes."""

    __tablename__ = "stock_movements"
    __part_of__ = ("inventory_item", "item_id")
    __table_args__ = (
        CheckConstraint("quantity <> 0", name="quantity_not_zero"),
        _money_check("unit_cost", top=COST_TOP),
        Index("ix_stock_movements_item_created", "item_id", "created_at"),
        Index("ix_stock_movements_item_type_created", "item_id", "type", "created_at"),
    )

    id: Mapped[Id]
    item_id: Mapped[int] = _ref("inventory_items", index=False)
    lot_id: Mapped[int] = _ref("inventory_lots")
    type: Mapped[MovementType] = _enum(MovementType)
    quantity: Mapped[int]  # signed: positive adds to the stock
    unit_cost: Mapped[UnitCost | None]
    reason: Mapped[Line | None]
    treatment_id: Mapped[int | None] = _ref("treatments")
    created_by_id: Mapped[int | None] = _ref("users", index=False)
    created_at: Mapped[Instant]
    package: Mapped[Short | None]  # the package in which the user counted
    package_units: Mapped[int | None]  # units in one package at the time of the movement

    lot: Mapped[InventoryLot] = relationship()
    created_by: Mapped[User | None] = relationship()

    @property
    def entered_quantity(self) -> int:
        """Return the quantity as entered by the user: always positive, except in an adjustment."""
        return self.quantity if self.type is MovementType.ADJUSTMENT else abs(self.quantity)


class InventoryUsage(Base):
    """The quantity of an item that a treatment consumes at its completion."""

    __tablename__ = "inventory_usages"
    __part_of__ = ("treatment", "treatment_id")
    __table_args__ = (
        CheckConstraint("quantity > 0", name="quantity_positive"),
        UniqueConstraint("treatment_id", "item_id"),
    )

    id: Mapped[Id]
    treatment_id: Mapped[int] = _ref("treatments", index=False, ondelete="CASCADE")
    item_id: Mapped[int] = _ref("inventory_items")
    quantity: Mapped[int]

    item: Mapped[InventoryItem] = relationship()


# --- Audit and idempotency -----------------------------------------------------------------------------


class AuditLog(Base):
    """An audit entry: one action, read or refusal. Its MAC covers the MAC of the previous entry of its chain.

    Triggers refuse updates and deletes.
    """

    __tablename__ = "audit_logs"
    __table_args__ = (
        UniqueConstraint("chain", "number"),
        Index("ix_audit_logs_at", "at"),
        Index("ix_audit_logs_user_at", "user_id", "at"),
        Index("ix_audit_logs_entity", "entity", "entity_id"),
    )

    id: Mapped[Id]
    chain: Mapped[int]
    number: Mapped[int] = mapped_column(BigInteger())
    at: Mapped[Instant]
    user_id: Mapped[int | None] = mapped_column(BigId)  # no foreign key: the entry outlives the user
    user_name: Mapped[Name | None]
    role: Mapped[str | None] = mapped_column(String(30))
    action: Mapped[Short]
    entity: Mapped[str | None] = mapped_column(String(50))
    entity_id: Mapped[int | None] = mapped_column(BigId)
    entity_ids: Mapped[JsonList] = mapped_column(default=list)
    patient_ids: Mapped[JsonList] = mapped_column(default=list)
    fields: Mapped[JsonList] = mapped_column(default=list)
    outcome: Mapped[AuditOutcome] = _enum(AuditOutcome)
    # the error code of a refusal, a mark of a read, the factor of a sign-in, the reason of a reset
    detail: Mapped[Short | None]
    operation: Mapped[Short]  # method and route, e.g. PATCH /patients/<int:patient_id>
    address: Mapped[Short | None]
    request_id: Mapped[Short | None]
    key_id: Mapped[str | None] = mapped_column(String(16))  # of the MAC; entries before 0023: None
    mac: Mapped[str] = mapped_column(String(64))


class AuditSubject(Base):
    """The patient of an audit entry. This table is the index for the access log of a patient.

    It has no foreign keys. It is written together with its entry, and neither is ever removed.
    The foreign key check took longer than both inserts.
    """

    __tablename__ = "audit_subjects"

    patient_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    audit_id: Mapped[int] = mapped_column(BigId, primary_key=True, index=True, autoincrement=False)


class AuditHead(Base):
    """The number and MAC of the last entry of one audit chain. The row lock at each append prevents forks."""

    __tablename__ = "audit_heads"

    chain: Mapped[int] = mapped_column(Integer(), primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(BigInteger(), default=0)
    mac: Mapped[str] = mapped_column(String(64), default="")


class IdempotencyKey(Base):
    """The stored response of a request with an `Idempotency-Key`, kept for 24 hours.

    It is written in the transaction of the request.
    """

    __tablename__ = "idempotency_keys"
    __table_args__ = (UniqueConstraint("user_id", "key"),)

    id: Mapped[Id]
    user_id: Mapped[int] = _ref("users", index=False)
    key: Mapped[str] = mapped_column(String(255))
    fingerprint: Mapped[str] = mapped_column(String(64))
    status: Mapped[int | None]
    response: Mapped[bytes | None] = mapped_column(EncryptedType())  # headers and body
    record: Mapped[JsonDict | None]  # reader, entity, id and patient_id, for a repeat and its audit entry
    created_at: Mapped[Instant] = mapped_column(index=True)


# --- Events and jobs -----------------------------------------------------------------------------------


class Event(Base):
    """A change of a record, written in its transaction. It contains names of fields, never values.

    `type` is the entity and the past tense of the change, such as `appointment.booked`. The dispatcher sets
    `dispatched_at`. There are no foreign keys: an event is a copy of an audit entry, which outlives its rows.
    """

    __tablename__ = "events"
    __table_args__ = (
        Index(
            "ix_events_waiting",
            "id",
            postgresql_where=text("dispatched_at IS NULL"),
            sqlite_where=text("dispatched_at IS NULL"),
        ),
    )

    id: Mapped[Id]
    type: Mapped[Short]
    entity: Mapped[str] = mapped_column(String(50))
    entity_id: Mapped[int | None] = mapped_column(BigId)
    patient_id: Mapped[int | None] = mapped_column(BigId)
    fields: Mapped[JsonList] = mapped_column(default=list)
    at: Mapped[Instant]
    dispatched_at: Mapped[Instant | None]


class Job(Base):
    """Work for a worker process: the kind names the handler, the payload contains ids only.

    A running job has a lease: the worker `locked_by` holds it until `locked_until` and renews it. `attempts`
    counts the starts. Only the worker and the attempt that hold the lease may finish the job.
    """

    __tablename__ = "jobs"
    __entity__ = "job"
    __table_args__ = (
        CheckConstraint("attempts >= 0", name="attempts_not_negative"),
        CheckConstraint(
            "(state = 'running') = (locked_until IS NOT NULL) "
            "AND (state = 'running') = (locked_by IS NOT NULL)",
            name="lease_while_running",
        ),
        CheckConstraint("(state IN ('done', 'dead')) = (finished_at IS NOT NULL)", name="finished_at_end"),
        Index(
            "ix_jobs_due",
            "run_at",
            "id",
            postgresql_where=text("state = 'queued'"),
            sqlite_where=text("state = 'queued'"),
        ),
        Index("ix_jobs_state_kind", "state", "kind"),
        Index("ix_jobs_finished_at", "finished_at"),
    )

    id: Mapped[Id]
    kind: Mapped[Short]
    payload: Mapped[JsonDict] = mapped_column(default=dict)
    state: Mapped[JobState] = _enum(JobState)
    run_at: Mapped[Instant]
    attempts: Mapped[int] = mapped_column(default=0)
    locked_until: Mapped[Instant | None]
    locked_by: Mapped[Short | None]
    dedupe_key: Mapped[str | None] = mapped_column(String(255), unique=True)
    last_error: Mapped[Line | None]
    created_at: Mapped[Instant]
    finished_at: Mapped[Instant | None]


# --- Clinic record -------------------------------------------------------------------------------------


class ClinicContent:
    """The members of the clinic record that documents print."""

    name: Mapped[Name]
    legal_name: Mapped[Name | None]
    address: Mapped[Line | None]
    phones: Mapped[JsonList] = mapped_column(default=list)
    email: Mapped[str | None] = mapped_column(String(254))
    website: Mapped[Line | None]
    registration_number: Mapped[Short | None]
    tax_number: Mapped[Short | None]
    bank_details: Mapped[Note | None]
    invoice_footer: Mapped[Note | None]
    chosen_locale: Mapped[str | None] = mapped_column(String(35))
    logo: Mapped[bytes | None] = mapped_column(LargeBinary(), deferred=True)  # PNG
    logo_hash: Mapped[str | None] = mapped_column(String(64))  # SHA-256 of the logo


class ClinicRecord(ClinicContent, Versioned, Base):
    """The clinic: name, contact, logo, and the texts of its documents. A migration inserts the only row.

    `chosen_locale` is None until an administrator chooses one: the setting `CLINIC_LOCALE` applies.
    """

    __tablename__ = "clinic_record"
    __entity__ = "clinic"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(Integer(), primary_key=True, autoincrement=False)

    # computed fields
    locale: str = ""
    currency: str = ""
    timezone: str = ""
    phones_e164: list[str | None] | None = None

    @property
    def logo_path(self) -> str | None:
        """Return the path of the logo, or None without one."""
        return "/clinic/logo" if self.logo_hash else None


class ClinicRecordVersion(ClinicContent, Base):
    """The content of the clinic record since a change of it. A document prints the one of its issue.

    A row never changes. The last row is the content of today.
    """

    __tablename__ = "clinic_record_versions"

    id: Mapped[Id]
    created_at: Mapped[Instant]


# --- Calendar feeds ------------------------------------------------------------------------------------


class CalendarFeed(Base):
    """The address of a doctor's calendar for calendar programs. Only the SHA-256 of its token is stored.

    `user_id` is the user of the doctor at its creation: another user of the doctor does not know the token.
    `content_digest` is the digest of the last content, which was new at `content_changed_at`.
    """

    __tablename__ = "calendar_feeds"
    __entity__ = "calendar_feed"
    __table_args__ = (
        CheckConstraint("days_back BETWEEN 0 AND 366", name="days_back_range"),
        CheckConstraint("days_ahead BETWEEN 1 AND 366", name="days_ahead_range"),
    )

    id: Mapped[Id]
    doctor_id: Mapped[int] = _ref("doctors")
    user_id: Mapped[int | None] = _ref("users")
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    detail: Mapped[CalendarDetail] = _enum(CalendarDetail)
    days_back: Mapped[int]
    days_ahead: Mapped[int]
    created_at: Mapped[Instant]
    ended_at: Mapped[Instant | None]
    last_fetched_at: Mapped[Instant | None]  # exact to one minute
    user_agent: Mapped[Line | None]  # of that fetch
    content_digest: Mapped[str | None] = mapped_column(String(64))
    content_changed_at: Mapped[Instant | None]

    doctor: Mapped[Doctor] = relationship()

    # computed field
    url: str | None = None  # in the response to its creation only


# --- Emergency access ----------------------------------------------------------------------------------


class EmergencyAccess(Versioned, Base):
    """The right of a user to read the clinical fields of one patient for a short time, and its review."""

    __tablename__ = "emergency_accesses"
    __entity__ = "emergency_access"
    __table_args__ = (
        CheckConstraint("expires_at > created_at", name="expiry"),
        CheckConstraint("reviewed_by_id <> user_id", name="reviewer"),
        CheckConstraint(
            "(outcome IS NULL) = (reviewed_by_id IS NULL) AND (outcome IS NULL) = (reviewed_at IS NULL)",
            name="review",
        ),
        Index("ix_emergency_accesses_user_expires", "user_id", "expires_at"),
    )

    id: Mapped[Id]
    patient_id: Mapped[int] = _ref("patients")
    user_id: Mapped[int] = _ref("users", index=False)
    reason: Mapped[Line]
    expires_at: Mapped[Instant]
    outcome: Mapped[ReviewOutcome | None] = _enum(ReviewOutcome)
    note: Mapped[Line | None]
    reviewed_by_id: Mapped[int | None] = _ref("users", index=False)
    reviewed_at: Mapped[Instant | None]

    patient: Mapped[Patient] = relationship()
    user: Mapped[User] = relationship(foreign_keys=[user_id])
    reviewed_by: Mapped[User | None] = relationship(foreign_keys=[reviewed_by_id])

    # computed fields
    is_active: bool


# --- Settings and templates of messages ----------------------------------------------------------------


class MessageSettings(Versioned, Base):
    """The settings of messages to patients. A migration inserts the only row.

    `kinds` are those that are sent. `channels` are in the order in which they are tried. The quiet hours are
    times in the zone of the clinic. They may pass midnight.
    """

    __tablename__ = "message_settings"
    __entity__ = "message_settings"
    __table_args__ = (
        CheckConstraint("id = 1", name="one_row"),
        CheckConstraint("(quiet_start IS NULL) = (quiet_end IS NULL)", name="quiet_hours_have_an_end"),
        CheckConstraint("expiry_hours BETWEEN 1 AND 336", name="expiry_hours_range"),
    )

    id: Mapped[int] = mapped_column(Integer(), primary_key=True, autoincrement=False)
    kinds: Mapped[JsonList]
    channels: Mapped[JsonList]
    reminder_hours: Mapped[JsonList]  # hours before the appointment
    quiet_start: Mapped[time | None] = mapped_column(Time())
    quiet_end: Mapped[time | None] = mapped_column(Time())
    expiry_hours: Mapped[int]  # after it was due, a message is not sent any more


class MessageTemplate(Versioned, Base):
    """A text of messages that an administrator has changed. It replaces the built-in text."""

    __tablename__ = "message_templates"
    __entity__ = "message_template"
    __table_args__ = (UniqueConstraint("kind", "channel", "locale"),)

    id: Mapped[Id]
    kind: Mapped[MessageKind] = _enum(MessageKind)
    channel: Mapped[MessageChannel] = _enum(MessageChannel)
    locale: Mapped[str] = mapped_column(String(35))  # BCP 47
    subject: Mapped[Line | None]
    text: Mapped[Note]

    # computed fields
    is_changed: bool = False
    variables: list[str] | None = None
    segments: int | None = None
    encoding: str | None = None


# --- Messages to patients ------------------------------------------------------------------------------


class Message(Versioned, Base):
    """A message to a patient: planned, sent, or not sent for a reason. Its text is not stored.

    - `recipient`: the address or the number, None if the patient has none.
    - `appointment_start`: the start that a message about an appointment names.
    - `dedupe_key`: kind, entity, cause, channel and recipient. The same message is planned once.
    - `expires_at`: a message that was not sent until then fails.
    - `attempts`: the number of calls of the provider. `detail`: its status code, never its text.
    - `message_id_header`: the `Message-ID` of an e-mail, the same for each attempt.
    """

    __tablename__ = "messages"
    __entity__ = "message"
    __table_args__ = (
        CheckConstraint("attempts >= 0", name="attempts_not_negative"),
        CheckConstraint(
            "state NOT IN ('sending', 'sent', 'delivered') OR recipient IS NOT NULL", name="sent_to_recipient"
        ),
        Index("ix_messages_patient_id", "patient_id"),
        Index("ix_messages_appointment_id", "appointment_id"),
        Index("ix_messages_visit_id", "visit_id"),
        Index("ix_messages_billing_id", "billing_id"),
        Index("ix_messages_state_send_at", "state", "send_at"),
        Index("ix_messages_send_at", "send_at"),
        Index("ix_messages_provider_message_id", "provider_message_id"),
    )

    id: Mapped[Id]
    kind: Mapped[MessageKind] = _enum(MessageKind)
    channel: Mapped[MessageChannel] = _enum(MessageChannel)
    state: Mapped[MessageState] = _enum(MessageState)
    reason: Mapped[MessageReason | None] = _enum(MessageReason)
    detail: Mapped[Short | None]
    recipient: Mapped[str | None] = mapped_column(String(254))
    locale: Mapped[str | None] = mapped_column(String(35))
    patient_id: Mapped[int] = _ref("patients", index=False)
    appointment_id: Mapped[int | None] = _ref("appointments", index=False)
    visit_id: Mapped[int | None] = _ref("visits", index=False)
    billing_id: Mapped[int | None] = _ref("billings", index=False)
    appointment_start: Mapped[Instant | None]
    dedupe_key: Mapped[Line] = mapped_column(unique=True)
    send_at: Mapped[Instant]
    expires_at: Mapped[Instant]
    attempts: Mapped[int] = mapped_column(default=0)
    provider: Mapped[str | None] = mapped_column(String(30))
    provider_message_id: Mapped[str | None] = mapped_column(String(200))
    message_id_header: Mapped[str | None] = mapped_column(String(300))
    segments: Mapped[int | None]
    sent_at: Mapped[Instant | None]
    delivered_at: Mapped[Instant | None]
    created_by_id: Mapped[int | None] = _ref("users", index=False)

    patient: Mapped[Patient] = relationship()


class ContactPreferences(Versioned, Base):
    """The channels on which a patient allows messages. The id is that of the patient.

    A patient without a row allows every channel.
    """

    __tablename__ = "contact_preferences"
    __entity__ = "contact_preferences"

    id: Mapped[int] = mapped_column(BigId, ForeignKey("patients.id"), primary_key=True, autoincrement=False)
    email: Mapped[bool] = mapped_column(default=True)
    sms: Mapped[bool] = mapped_column(default=True)
    whatsapp: Mapped[bool] = mapped_column(default=True)
    preferred_channel: Mapped[MessageChannel | None] = _enum(MessageChannel)

    # computed field
    stopped: list[str] | None = None

    @property
    def patient_id(self) -> int:
        """Return the id of the patient."""
        return self.id


class ContactStop(Base):
    """A phone number whose owner answered STOP on a channel. It holds for every patient with this number."""

    __tablename__ = "contact_stops"
    __entity__ = "contact_stop"
    __table_args__ = (UniqueConstraint("channel", "number"),)

    id: Mapped[Id]
    channel: Mapped[MessageChannel] = _enum(MessageChannel)
    number: Mapped[str] = mapped_column(String(20))  # E.164
    created_at: Mapped[Instant]


# --- Second factors ------------------------------------------------------------------------------------


class TotpSecret(Base):
    """The secret that a user shares with an authenticator app (RFC 6238), encrypted under `DATA_KEY`.

    It is a second factor from its confirmation on. A code of `last_step` or an earlier time step is refused.
    """

    __tablename__ = "totp_secrets"
    __part_of__ = ("user", "user_id")

    id: Mapped[Id]
    user_id: Mapped[int] = _ref("users", index=False, unique=True)
    secret: Mapped[bytes] = mapped_column(EncryptedType())
    last_step: Mapped[int] = mapped_column(BigInteger(), default=0)
    created_at: Mapped[Instant]
    confirmed_at: Mapped[Instant | None]


class RecoveryCode(Base):
    """A code that replaces the second factor once. Only its SHA-256 hash is stored."""

    __tablename__ = "recovery_codes"
    __part_of__ = ("user", "user_id")
    __table_args__ = (UniqueConstraint("user_id", "code_hash"),)

    id: Mapped[Id]
    user_id: Mapped[int] = _ref("users", index=False)
    code_hash: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[Instant]
    used_at: Mapped[Instant | None]


class Passkey(Base):
    """A public key of an authenticator of a user (WebAuthn)."""

    __tablename__ = "passkeys"
    __part_of__ = ("user", "user_id")

    id: Mapped[Id]
    user_id: Mapped[int] = _ref("users")
    name: Mapped[Name]
    credential_id: Mapped[str] = mapped_column(String(1400), unique=True)  # 1,023 bytes in base64url
    public_key: Mapped[bytes] = mapped_column(LargeBinary())
    sign_count: Mapped[int] = mapped_column(BigInteger())
    created_at: Mapped[Instant]
    last_used_at: Mapped[Instant | None]


class FactorChallenge(Base):
    """A step that waits for a second factor. It can be completed once, until it expires.

    A sign-in with the right password has the hash of its `mfa_token`. The other steps belong to a session.
    `challenge` and `origin` are those of the last WebAuthn options.
    """

    __tablename__ = "factor_challenges"
    __part_of__ = ("user", "user_id")

    id: Mapped[Id]
    user_id: Mapped[int] = _ref("users")
    session_id: Mapped[int | None] = _ref("user_sessions", ondelete="CASCADE")
    purpose: Mapped[FactorPurpose] = _enum(FactorPurpose)
    token_hash: Mapped[str | None] = mapped_column(String(64), unique=True)
    challenge: Mapped[str | None] = mapped_column(String(100))
    origin: Mapped[Line | None]
    created_at: Mapped[Instant]
    expires_at: Mapped[Instant]


# --- Credit notes --------------------------------------------------------------------------------------


class CreditNote(Base):
    """A credit note of a bill, for a refund or (without one) for its void. Triggers refuse changes."""

    __tablename__ = "credit_notes"
    __entity__ = "credit_note"
    __table_args__ = (
        _money_check("amount", low="> 0"),
        _money_check("tax"),
        CheckConstraint("tax <= amount", name="tax_within_amount"),
        # A bill is voided at most once.
        Index(
            "uq_credit_notes_void",
            "billing_id",
            unique=True,
            postgresql_where=text("refund_id IS NULL"),
            sqlite_where=text("refund_id IS NULL"),
        ),
    )

    id: Mapped[Id]
    number: Mapped[str] = mapped_column(String(30), unique=True)
    billing_id: Mapped[int] = _ref("billings")
    patient_id: Mapped[int] = _ref("patients")  # copy of billings.patient_id, for the audit
    refund_id: Mapped[int | None] = _ref("refunds", index=False, unique=True)
    amount: Mapped[Money]
    tax: Mapped[Money]  # the part of the amount
    reason: Mapped[Line]
    created_by_id: Mapped[int | None] = _ref("users", index=False)
    created_at: Mapped[Instant]
    clinic_version_id: Mapped[int] = _ref("clinic_record_versions", index=False)  # at its issue


# --- Price list ----------------------------------------------------------------------------------------


class PriceListItem(WithUniqueKeys, Versioned, Base):
    """A service or product with its price. Bills and treatments copy name and price when they are created."""

    __tablename__ = "price_list_items"
    __entity__ = "price_list_item"
    __table_args__ = (
        _money_check("unit_price"),
        Index("ix_price_list_items_category", "category"),
        Index("uq_price_list_items_code_key", "code_key", unique=True),
    )

    id: Mapped[Id]
    code: Mapped[Short]
    code_key: Mapped[UniqueKey]
    name: Mapped[Name]
    name_fold: Mapped[SearchKey]
    description: Mapped[Note | None]
    category: Mapped[Short | None]
    unit_price: Mapped[Money]
    is_active: Mapped[bool] = mapped_column(default=True)


# --- Imports of spreadsheets ---------------------------------------------------------------------------


class Import(Versioned, Base):
    """An import of a spreadsheet file, from the upload to its undo.

    - `source`: the system from which the file comes, in the form in which it is compared.
    - `header`: the columns of the file. `mapping`: column of the file -> member of the kind.
    - `rows`, `blank`: the rows of the file with and without values. The others count the states of the rows.
    - `title_rows`: the rows above the header. `other_sheets`: the sheets of the workbook that are not read.
    - `digest`: what the last dry run has found. Applying needs the same.
    - `failure`: the reason why applying was ended and its rows are taken back.
    """

    __tablename__ = "imports"
    __entity__ = "import"
    __table_args__ = (
        CheckConstraint("ready + applied + skipped + refused + undone <= rows", name="counts"),
        Index("ix_imports_created_at", "created_at"),
        Index("ix_imports_created_by_id", "created_by_id"),
    )

    id: Mapped[Id]
    kind: Mapped[ImportSubject] = _enum(ImportSubject)
    source: Mapped[Short]
    file_name: Mapped[Name]
    sha256: Mapped[str] = mapped_column(String(64))
    sheet: Mapped[Name | None]
    other_sheets: Mapped[JsonList] = mapped_column(default=list)
    encoding: Mapped[str | None] = mapped_column(String(30))
    delimiter: Mapped[str | None] = mapped_column(String(1))
    date_format: Mapped[str | None] = mapped_column(String(30))
    decimal: Mapped[str | None] = mapped_column(String(1))
    on_duplicate: Mapped[OnDuplicate] = _enum(OnDuplicate)
    on_error: Mapped[OnError] = _enum(OnError)
    header: Mapped[JsonList] = mapped_column(default=list)
    mapping: Mapped[JsonDict] = mapped_column(default=dict)
    state: Mapped[ImportState] = _enum(ImportState)
    rows: Mapped[int]
    blank: Mapped[int] = mapped_column(default=0)
    title_rows: Mapped[int] = mapped_column(default=0)
    ready: Mapped[int] = mapped_column(default=0)
    applied: Mapped[int] = mapped_column(default=0)
    skipped: Mapped[int] = mapped_column(default=0)
    refused: Mapped[int] = mapped_column(default=0)
    undone: Mapped[int] = mapped_column(default=0)
    digest: Mapped[str | None] = mapped_column(String(64))
    failure: Mapped[Line | None]
    job_id: Mapped[int | None] = mapped_column(BigId)  # the last job; it may be removed
    checked_at: Mapped[Instant | None]
    applied_at: Mapped[Instant | None]
    undone_at: Mapped[Instant | None]
    created_by_id: Mapped[int | None] = _ref("users", index=False)

    # computed fields
    progress: int | None = None
    has_file: bool | None = None
    sample: list[dict[str, Any]] | None = None
    columns: list[dict[str, Any]] | None = None


class ImportFile(Base):
    """The content of an imported file, and its first rows. They are personal data and removed after days."""

    __tablename__ = "import_files"

    import_id: Mapped[int] = mapped_column(
        BigId, ForeignKey("imports.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    content: Mapped[bytes] = mapped_column(LargeBinary())
    sample: Mapped[JsonList] = mapped_column(default=list)


class ImportedRow(Base):
    """The result of a run of an import for a row of the file.

    - `number`: the row as a spreadsheet program counts.
    - `entity_id`: the row of the database that was created, changed or found.
    - `version`: its version after that. A later change has another version.
    - `problems`: objects of member, code and message. They contain no value of the file.
    - `previous`: members and version before an update, for the undo. It is removed with the file.
    """

    __tablename__ = "import_rows"
    __table_args__ = (
        UniqueConstraint("import_id", "number"),
        Index("ix_import_rows_import_id_state", "import_id", "state"),
        Index("ix_import_rows_entity_id", "entity_id"),
    )

    id: Mapped[Id]
    import_id: Mapped[int] = _ref("imports", index=False, ondelete="CASCADE")
    number: Mapped[int]
    state: Mapped[ImportRowState] = _enum(ImportRowState)
    action: Mapped[ImportAction] = _enum(ImportAction)
    entity_id: Mapped[int | None] = mapped_column(BigId)
    version: Mapped[int | None]
    problems: Mapped[JsonList] = mapped_column(default=list)
    previous: Mapped[JsonDict | None]


class ImportSource(Base):
    """The row of the database that was imported from a row of another system. It is imported once."""

    __tablename__ = "import_sources"
    __table_args__ = (
        UniqueConstraint("kind", "source", "source_id"),
        Index("ix_import_sources_import_id_entity_id", "import_id", "entity_id"),
    )

    id: Mapped[Id]
    kind: Mapped[ImportSubject] = _enum(ImportSubject)
    source: Mapped[Short]
    source_id: Mapped[Name]
    entity_id: Mapped[int] = mapped_column(BigId)
    import_id: Mapped[int] = _ref("imports", index=False)


# --- Letters -------------------------------------------------------------------------------------------


class Letter(Versioned, Base):
    """A letter of a doctor about a patient, such as a sick note. It is issued once, and can only be voided.

    `printed` has the members of patient, doctor and visit as of the issue: the letter shows them for good.
    """

    __tablename__ = "letters"
    __entity__ = "letter"
    __table_args__ = (
        CheckConstraint("to_date >= from_date", name="period"),
        CheckConstraint(
            "type <> 'sick_note' OR (from_date IS NOT NULL AND to_date IS NOT NULL)", name="sick_note_period"
        ),
        CheckConstraint("(voided_at IS NULL) = (void_reason IS NULL)", name="void_reason"),
        Index("ix_letters_patient_created", "patient_id", "created_at"),
        Index("ix_letters_doctor_created", "doctor_id", "created_at"),
        Index("ix_letters_issued_on", "issued_on"),
    )

    id: Mapped[Id]
    number: Mapped[str] = mapped_column(String(30), unique=True)
    visit_id: Mapped[int] = _ref("visits")
    patient_id: Mapped[int] = _ref("patients", index=False)  # copy of visits.patient_id
    doctor_id: Mapped[int] = _ref("doctors", index=False)  # the doctor who issued the letter
    clinic_version_id: Mapped[int] = _ref("clinic_record_versions", index=False)  # at its issue
    type: Mapped[LetterType] = _enum(LetterType)
    issued_on: Mapped[Day]
    from_date: Mapped[Day | None]
    to_date: Mapped[Day | None]
    recipient: Mapped[Line | None]
    text: Mapped[Note | None]
    printed: Mapped[JsonDict]
    voided_at: Mapped[Instant | None]
    void_reason: Mapped[Line | None]

    visit: Mapped[Visit] = relationship()
    patient: Mapped[Patient] = relationship()
    doctor: Mapped[Doctor] = relationship()

    @property
    def status(self) -> str:
        """Return `issued` or `void`."""
        return "void" if self.voided_at else "issued"


# --- Exports -------------------------------------------------------------------------------------------


class Export(Base):
    """A file of a whole list, which a job writes for the user who asked for it.

    `reader` holds the rights that decide what the user may read. `job_id` has no foreign key: old jobs are
    removed. A ready export has the number of rows, the number of rows that were gone or hidden meanwhile
    (`left_out`), and size and SHA-256 digest of its file.
    """

    __tablename__ = "exports"
    __entity__ = "export"
    __table_args__ = (
        CheckConstraint(
            "state <> 'ready' OR (count IS NOT NULL AND left_out IS NOT NULL AND size IS NOT NULL "
            "AND digest IS NOT NULL AND expires_at IS NOT NULL)",
            name="ready",
        ),
        Index("ix_exports_user_id", "user_id", "id"),
        Index("ix_exports_expires_at", "expires_at"),
    )

    id: Mapped[Id]
    user_id: Mapped[int] = _ref("users", index=False)
    path: Mapped[str] = mapped_column(String(2000))
    format: Mapped[ExportFormat] = _enum(ExportFormat)
    state: Mapped[ExportState] = _enum(ExportState)
    reader: Mapped[JsonList] = mapped_column(default=list)
    job_id: Mapped[int | None] = mapped_column(BigId)
    count: Mapped[int | None]
    left_out: Mapped[int | None]
    size: Mapped[int | None] = mapped_column(BigInteger())  # bytes
    digest: Mapped[str | None] = mapped_column(String(64))
    problem: Mapped[Line | None]
    created_at: Mapped[Instant]
    finished_at: Mapped[Instant | None]
    expires_at: Mapped[Instant | None]

    # computed fields
    shown_state: ExportState | None = None
    file: str | None = None


class ExportChunk(Base):
    """A part of the file of an export. Parts are not in backups."""

    __tablename__ = "export_chunks"

    export_id: Mapped[int] = mapped_column(
        BigId, ForeignKey("exports.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    content: Mapped[bytes] = mapped_column(LargeBinary())

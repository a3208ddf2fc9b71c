"""Enumerations. They are stored by value, with a CHECK constraint that lists the values."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """The role of a user. The permissions of a role are in `security.permissions`."""

    ADMIN = "admin"
    DOCTOR = "doctor"
    RECEPTIONIST = "receptionist"
    TECHNICIAN = "technician"


class Gender(StrEnum):
    """Administrative gender. NULL means unknown."""

    MALE = "male"
    FEMALE = "female"
    OTHER = "other"


class BirthDatePrecision(StrEnum):
    """The known part of a date of birth. `estimated` is a year that was computed from an estimated age."""

    DAY = "day"
    MONTH = "month"
    YEAR = "year"
    ESTIMATED = "estimated"


class AllergyStatus(StrEnum):
    """The state of knowledge about the allergies of a patient."""

    NOT_ASKED = "not_asked"
    NONE_KNOWN = "none_known"
    RECORDED = "recorded"


class AllergySeverity(StrEnum):
    """The severity of an allergic reaction."""

    MILD = "mild"
    MODERATE = "moderate"
    SEVERE = "severe"
    UNKNOWN = "unknown"


class ConditionStatus(StrEnum):
    """The clinical status of a condition."""

    ACTIVE = "active"
    RESOLVED = "resolved"


class AppointmentStatus(StrEnum):
    """The status of an appointment. The transitions are in `services.scheduling.appointments`."""

    SCHEDULED = "scheduled"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    NO_SHOW = "no_show"


class CancelledBy(StrEnum):
    """The person who cancelled. Cancellations by the clinic do not count in the rate of a doctor."""

    PATIENT = "patient"
    CLINIC = "clinic"


class CalendarDetail(StrEnum):
    """The detail about the patient in the events of a calendar feed."""

    BUSY = "busy"
    INITIALS = "initials"
    NAMES = "names"


class TreatmentStatus(StrEnum):
    """The status of a treatment."""

    PLANNED = "planned"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


class PrescriptionStatus(StrEnum):
    """The status of a prescription."""

    ACTIVE = "active"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class LetterType(StrEnum):
    """The type of a letter of a doctor."""

    SICK_NOTE = "sick_note"
    REFERRAL = "referral"
    CERTIFICATE = "certificate"


class LedgerKind(StrEnum):
    """The kind of a ledger entry.

    Charges, taxes and refunds raise the balance. Discounts, payments and write-offs lower it.
    A reversal cancels the entry in `reverses_id`.
    A credit moves money between a bill and the account of the patient.
    An insurer's debt is money of an insurer on a void bill. It belongs to the insurer, not to the patient.
    An opening balance is an amount from before the first entry: a debt (+) or a credit (-). It is no revenue.
    """

    CHARGE = "charge"
    TAX = "tax"
    DISCOUNT = "discount"
    PAYMENT = "payment"
    INSURANCE_PAYMENT = "insurance_payment"
    CREDIT = "credit"
    REFUND = "refund"
    WRITE_OFF = "write_off"
    REVERSAL = "reversal"
    INSURER_DEBT = "insurer_debt"
    OPENING_BALANCE = "opening_balance"


class PaymentMethod(StrEnum):
    """The method of a payment."""

    CASH = "cash"
    CARD = "card"
    MOBILE_MONEY = "mobile_money"
    BANK_TRANSFER = "bank_transfer"
    CHEQUE = "cheque"
    INSURANCE = "insurance"
    CREDIT = "credit"
    OTHER = "other"


class RefundStatus(StrEnum):
    """The status of a refund. A refund by a receptionist needs the approval of an administrator."""

    REQUESTED = "requested"
    APPROVED = "approved"
    REJECTED = "rejected"


class ClaimStatus(StrEnum):
    """The status of an insurance claim."""

    DRAFT = "draft"
    SUBMITTED = "submitted"
    APPROVED = "approved"
    PARTIALLY_APPROVED = "partially_approved"
    DENIED = "denied"
    RESUBMITTED = "resubmitted"
    PAID = "paid"
    WITHDRAWN = "withdrawn"


class FactorMethod(StrEnum):
    """The way in which a user proves a second factor."""

    TOTP = "totp"
    WEBAUTHN = "webauthn"
    RECOVERY_CODE = "recovery_code"


class FactorPurpose(StrEnum):
    """The step that waits for a second factor, or for a new passkey."""

    SIGN_IN = "sign_in"
    STEP_UP = "step_up"
    REGISTRATION = "registration"


class MovementType(StrEnum):
    """The type of a stock movement."""

    RESTOCK = "restock"
    USAGE = "usage"
    ADJUSTMENT = "adjustment"
    WASTE = "waste"
    RETURN = "return"


class AuditOutcome(StrEnum):
    """The outcome of an audited action."""

    SUCCESS = "success"
    REFUSED = "refused"


class JobState(StrEnum):
    """The state of a job. A dead one has failed too often and waits for an administrator."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    DEAD = "dead"


class MessageKind(StrEnum):
    """The reason of a message to a patient."""

    BOOKED = "booked"
    MOVED = "moved"
    CANCELLED = "cancelled"
    REMINDER = "reminder"
    FOLLOW_UP_DUE = "follow_up_due"
    INVOICE = "invoice"


class MessageChannel(StrEnum):
    """The channel of a message to a patient."""

    EMAIL = "email"
    SMS = "sms"
    WHATSAPP = "whatsapp"


class ReviewOutcome(StrEnum):
    """The outcome of the review of an emergency access."""

    JUSTIFIED = "justified"
    UNJUSTIFIED = "unjustified"


class MessageState(StrEnum):
    """The state of a message. `unknown`: the provider may have accepted it; it is not sent again."""

    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPPRESSED = "suppressed"
    UNKNOWN = "unknown"


class MessageReason(StrEnum):
    """The reason for the state of a message that was not sent, or not yet."""

    NO_ADDRESS = "no_address"
    NOT_ALLOWED = "not_allowed"  # by the contact preferences
    STOPPED = "stopped"  # the receiver answered STOP
    PATIENT_INACTIVE = "patient_inactive"
    NOT_NEEDED = "not_needed"  # its condition no longer holds
    QUIET_HOURS = "quiet_hours"  # they end after the start of the appointment
    BY_USER = "by_user"
    EXPIRED = "expired"
    TEMPORARY = "temporary"  # the last attempt failed, another one follows
    REFUSED = "refused"  # by the provider
    UNDELIVERED = "undelivered"  # by the delivery receipt
    INTERRUPTED = "interrupted"  # the worker ended while it sent the message
    NO_ANSWER = "no_answer"  # the provider got the message but gave no readable answer


class ImportSubject(StrEnum):
    """The kind of an import: the rows that its file contains."""

    PATIENTS = "patients"
    DOCTORS = "doctors"
    APPOINTMENTS = "appointments"
    INVENTORY = "inventory"
    PRICE_LIST = "price_list"
    OPENING_BALANCES = "opening_balances"


class OnDuplicate(StrEnum):
    """The treatment of an imported row that exists already, or that resembles another one.

    `report` refuses it. `update` changes the existing row. `create_flagged` creates a row that resembles
    another one and marks it for review.
    """

    REPORT = "report"
    SKIP = "skip"
    UPDATE = "update"
    CREATE_FLAGGED = "create_flagged"


class OnError(StrEnum):
    """The treatment of a file with wrong rows: `none` applies no row, `skip` the other rows."""

    NONE = "none"
    SKIP = "skip"


class ImportState(StrEnum):
    """The state of an import. `failed`: applying was ended by an error, and the rows were taken back."""

    UPLOADED = "uploaded"
    CHECKING = "checking"
    CHECKED = "checked"
    APPLYING = "applying"
    APPLIED = "applied"
    FAILED = "failed"
    UNDOING = "undoing"
    UNDONE = "undone"


class ImportRowState(StrEnum):
    """The state of a row of an import. `ready`: the dry run accepted it."""

    READY = "ready"
    APPLIED = "applied"
    SKIPPED = "skipped"
    REFUSED = "refused"
    UNDONE = "undone"


class ImportAction(StrEnum):
    """The action of an import for a row of the file."""

    CREATE = "create"
    UPDATE = "update"
    NONE = "none"


class ExportFormat(StrEnum):
    """The format of the file of an export."""

    CSV = "csv"
    XLSX = "xlsx"


class ExportState(StrEnum):
    """The state of an export. The file of a ready one can be fetched until it expires."""

    QUEUED = "queued"
    RUNNING = "running"
    READY = "ready"
    FAILED = "failed"
    EXPIRED = "expired"

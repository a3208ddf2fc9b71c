"""The enumerations of the clinic: stored by value, with a CHECK that lists the values."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """What somebody is in the clinic; what a role may do is the table in `security.permissions`."""

    ADMIN = "admin"
    DOCTOR = "doctor"
    RECEPTIONIST = "receptionist"
    TECHNICIAN = "technician"


class Gender(StrEnum):
    """Administrative gender; unknown is NULL."""

    MALE = "male"
    FEMALE = "female"
    OTHER = "other"


class AllergySeverity(StrEnum):
    """How bad the reaction to an allergen was."""

    MILD = "mild"
    MODERATE = "moderate"
    SEVERE = "severe"
    UNKNOWN = "unknown"


class ConditionStatus(StrEnum):
    """Clinical status of a condition."""

    ACTIVE = "active"
    RESOLVED = "resolved"


class AppointmentStatus(StrEnum):
    """Where an appointment stands; the allowed steps are in `services.scheduling.appointments`."""

    SCHEDULED = "scheduled"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    NO_SHOW = "no_show"


class CancelledBy(StrEnum):
    """Whose wish a cancellation was: the clinic's own do not count against a doctor's rates."""

    PATIENT = "patient"
    CLINIC = "clinic"


class TreatmentStatus(StrEnum):
    """Where a treatment stands."""

    PLANNED = "planned"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


class PrescriptionStatus(StrEnum):
    """Where a prescription stands."""

    ACTIVE = "active"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class LedgerKind(StrEnum):
    """What a ledger row is. Charges and taxes raise the balance, the others lower it, a refund raises it
    again; a reversal undoes the row it names; a credit moves money between a bill and the account."""

    CHARGE = "charge"
    TAX = "tax"
    DISCOUNT = "discount"
    PAYMENT = "payment"
    INSURANCE_PAYMENT = "insurance_payment"
    CREDIT = "credit"
    REFUND = "refund"
    WRITE_OFF = "write_off"
    REVERSAL = "reversal"


class PaymentMethod(StrEnum):
    """How money moved."""

    CASH = "cash"
    CARD = "card"
    MOBILE_MONEY = "mobile_money"
    BANK_TRANSFER = "bank_transfer"
    CHEQUE = "cheque"
    INSURANCE = "insurance"
    CREDIT = "credit"
    OTHER = "other"


class RefundStatus(StrEnum):
    """A receptionist's refund is a request until somebody else decides it."""

    REQUESTED = "requested"
    APPROVED = "approved"
    REJECTED = "rejected"


class ClaimStatus(StrEnum):
    """Where an insurance claim stands."""

    DRAFT = "draft"
    SUBMITTED = "submitted"
    APPROVED = "approved"
    PARTIALLY_APPROVED = "partially_approved"
    DENIED = "denied"
    RESUBMITTED = "resubmitted"
    PAID = "paid"


class MovementType(StrEnum):
    """Why stock moved."""

    RESTOCK = "restock"
    USAGE = "usage"
    ADJUSTMENT = "adjustment"
    WASTE = "waste"
    RETURN = "return"


class AuditOutcome(StrEnum):
    """Whether what the entry tells of was done, refused by a rule, or failed at sign-in."""

    SUCCESS = "success"
    REFUSED = "refused"

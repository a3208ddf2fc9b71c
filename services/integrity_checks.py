"""Integrity checks of the stored data, for `flask verify`.

Each check is a query for the rows that violate a rule. Locks and constraints enforce the rules. The checks
detect violations in spite of them, for example after manual changes in the database.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    and_,
    cast,
    exists,
    func,
    literal,
    or_,
    select,
    union_all,
)
from sqlalchemy.orm import aliased

from config import settings
from enums import AppointmentStatus, LedgerKind, RefundStatus, TreatmentStatus
from extensions import db
from models import (
    Appointment,
    Billing,
    BillingItem,
    BillingStanding,
    CalendarFeed,
    Claim,
    Dispensing,
    EmergencyAccess,
    IdempotencyKey,
    InventoryItem,
    InventoryLot,
    InvoiceCounter,
    LedgerCurrency,
    LedgerEntry,
    MedicalHistory,
    Passkey,
    Patient,
    PrescribedMedication,
    Prescription,
    RecoveryCode,
    Refund,
    StockMovement,
    TotpSecret,
    Treatment,
    User,
    UserSession,
    Visit,
)
from services import clock
from services.billing import claims, ledger
from services.calendar_feeds.feeds import MAX_FEEDS
from services.clinic.integrity import clinic_checks
from services.integrity_rule import IntegrityCheck
from services.jobs.integrity import job_checks
from services.messages.integrity import message_checks
from services.users import emergency_access

OCCUPYING = (AppointmentStatus.SCHEDULED, AppointmentStatus.COMPLETED)


def _overlaps(owner: Any, end: Any, *conditions: Any) -> Select[Any]:
    """Select the appointments that end after the start of a later one of the same owner.

    A window function scans each owner once, backwards in time. A self-join would take hours in a busy clinic.
    """
    order = (Appointment.start.desc(), Appointment.id.desc())
    following = func.min(Appointment.start).over(partition_by=owner, order_by=order, rows=(None, -1))
    scanned = (
        select(Appointment.id, end.label("end"), following.label("following"))
        .where(Appointment.status.in_(OCCUPYING), *conditions)
        .subquery()
    )
    return select(scanned.c.id).where(scanned.c.following < scanned.c.end)


def _sum_of(column: Any, *conditions: Any) -> Any:
    return select(func.coalesce(func.sum(column), 0)).where(*conditions).scalar_subquery()


def _charges_unlike_items() -> Select[Any]:
    """Select the bills whose charges and items have different sums. Both tables are read once."""
    charges = select(LedgerEntry.billing_id, LedgerEntry.amount).where(LedgerEntry.kind == LedgerKind.CHARGE)
    items = select(BillingItem.billing_id, -BillingItem.unit_price * BillingItem.quantity)
    both = union_all(charges, items).subquery()
    return select(both.c.billing_id).group_by(both.c.billing_id).having(func.sum(both.c.amount) != 0)


def _wrong_standings() -> Select[Any]:
    """Select the bills that are marked as settled but have a balance, or the reverse."""
    balances = (
        select(LedgerEntry.billing_id, func.sum(LedgerEntry.amount).label("balance"))
        .where(LedgerEntry.billing_id.is_not(None))
        .group_by(LedgerEntry.billing_id)
        .subquery()
    )
    return (
        select(balances.c.billing_id)
        .outerjoin(BillingStanding, BillingStanding.billing_id == balances.c.billing_id)
        .where(
            or_(
                BillingStanding.billing_id.is_(None),
                (balances.c.balance == 0) != BillingStanding.settled_at.is_not(None),
            )
        )
    )


def _over_refunded() -> Select[Any]:
    """Select the bills with more refunds by a method than payments by it.

    A void bill also refunds what insurers paid above its balance.
    """
    payments = select(LedgerEntry.billing_id, LedgerEntry.method, -LedgerEntry.amount).where(
        LedgerEntry.kind.in_(ledger.PAYMENTS),
        LedgerEntry.amount < 0,
        LedgerEntry.billing_id.in_(select(Refund.billing_id)),
    )
    refunds = select(Refund.billing_id, Refund.method, -Refund.amount).where(
        Refund.status == RefundStatus.APPROVED, Refund.method.is_not(None), Refund.billing_id.is_not(None)
    )
    excess = select(ledger.OVERPAID_BILLING_ID, LedgerEntry.method, -LedgerEntry.amount).where(
        ledger.IS_EXCESS_OF_INSURER
    )
    both = union_all(payments, excess, refunds).subquery()
    return (
        select(both.c.billing_id).group_by(both.c.billing_id, both.c.method).having(func.sum(both.c[2]) < 0)
    )


def all_checks() -> list[IntegrityCheck]:
    """Return all checks, in the order in which they run."""
    return [
        *_patient_checks(),
        *_scheduling_checks(),
        *_clinical_checks(),
        *_medication_checks(),
        *_billing_checks(),
        *_void_checks(),
        *_refund_checks(),
        *_account_checks(),
        *_stock_checks(),
        *_session_checks(),
        *job_checks(),
        *clinic_checks(),
        *message_checks(),
        *_calendar_feed_checks(),
        *_emergency_checks(),
    ]


def _patient_checks() -> list[IntegrityCheck]:
    name_part = func.substr(Patient.search_fold, 1, func.length(Patient.name_fold))
    digits = func.coalesce(Patient.phone_digits, "")
    last_part = func.substr(Patient.search_fold, func.length(Patient.search_fold) - func.length(digits) + 1)
    return [
        IntegrityCheck(
            "The search column of a patient begins with the name and ends with the phone digits.",
            select(Patient.id).where(or_(name_part != Patient.name_fold, last_part != digits)),
        )
    ]


def _scheduling_checks() -> list[IntegrityCheck]:
    return [
        IntegrityCheck(
            "No doctor has two appointments at once.",
            _overlaps(Appointment.doctor_id, Appointment.blocked_until, Appointment.overbooked.is_(False)),
        ),
        IntegrityCheck(
            "No patient has two appointments at once.", _overlaps(Appointment.patient_id, Appointment.end)
        ),
        IntegrityCheck(
            "No archived or deceased patient has a future appointment.",
            select(Appointment.id)
            .join(Patient)
            .where(
                Appointment.status == AppointmentStatus.SCHEDULED,
                Appointment.end > clock.now(),
                or_(Patient.is_active.is_(False), Patient.deceased_on.is_not(None)),
            ),
        ),
        IntegrityCheck(
            "Only a cancelled appointment has a time of cancellation.",
            select(Appointment.id).where(
                Appointment.cancelled_at.is_not(None), Appointment.status != AppointmentStatus.CANCELLED
            ),
        ),
        IntegrityCheck(
            "A rescheduled appointment has the time of its last move.",
            select(Appointment.id).where(
                (Appointment.reschedule_count > 0) != Appointment.rescheduled_at.is_not(None)
            ),
        ),
    ]


def _clinical_checks() -> list[IntegrityCheck]:
    return [
        IntegrityCheck(
            "A visit has the patient and doctor of its appointment, which is completed.",
            select(Visit.id)
            .join(Appointment, Appointment.id == Visit.appointment_id)
            .where(
                Visit.voided_at.is_(None),
                or_(
                    Visit.patient_id != Appointment.patient_id,
                    Visit.doctor_id != Appointment.doctor_id,
                    Appointment.status != AppointmentStatus.COMPLETED,
                ),
            ),
        ),
        IntegrityCheck(
            "A treatment has the patient of its visit.",
            select(Treatment.id).join(Visit).where(Treatment.patient_id != Visit.patient_id),
        ),
        IntegrityCheck(
            "A prescription has the patient of its visit.",
            select(Prescription.id).join(Visit).where(Prescription.patient_id != Visit.patient_id),
        ),
    ]


def _medication_checks() -> list[IntegrityCheck]:
    return [
        IntegrityCheck(
            "A patient with no known allergies has no recorded allergy.",
            select(MedicalHistory.id).where(
                MedicalHistory.no_known_allergies_at.is_not(None), MedicalHistory.allergies.any()
            ),
        ),
        IntegrityCheck(
            "The dispensed quantity of a medication is the sum of its dispensings.",
            select(PrescribedMedication.id).where(
                PrescribedMedication.dispensed
                != _sum_of(Dispensing.quantity, Dispensing.medication_id == PrescribedMedication.id)
            ),
        ),
        IntegrityCheck(
            "A stopped therapy has a reason, and no dispensing after the stop.",
            select(Prescription.id)
            .outerjoin(
                Dispensing,
                and_(
                    Dispensing.prescription_id == Prescription.id,
                    Dispensing.created_at > Prescription.stopped_at,
                ),
            )
            .where(
                or_(
                    Prescription.stopped_at.is_(None) != Prescription.stop_reason.is_(None),
                    Dispensing.id.is_not(None),
                )
            )
            .distinct(),
        ),
        IntegrityCheck(
            "A therapy has an end if it has a duration or expires_on, and never before expires_on.",
            select(PrescribedMedication.id)
            .join(Prescription, Prescription.id == PrescribedMedication.prescription_id)
            .where(
                or_(
                    PrescribedMedication.ends_on < Prescription.expires_on,
                    PrescribedMedication.ends_on.is_(None)
                    != and_(PrescribedMedication.duration_days.is_(None), Prescription.expires_on.is_(None)),
                )
            ),
        ),
    ]


def _billing_checks() -> list[IntegrityCheck]:
    billed_twice = (
        select(BillingItem.treatment_id)
        .join(Billing, Billing.id == BillingItem.billing_id)
        .where(BillingItem.treatment_id.is_not(None), Billing.voided_at.is_(None))
        .group_by(BillingItem.treatment_id)
        .having(func.count() > 1)
    )
    return [
        IntegrityCheck("No treatment is billed twice.", billed_twice),
        IntegrityCheck(
            "The bill of a treatment is not void and has an item for it.",
            select(Treatment.id).where(
                Treatment.billing_id.is_not(None),
                ~exists().where(
                    BillingItem.treatment_id == Treatment.id,
                    BillingItem.billing_id == Treatment.billing_id,
                    Billing.id == Treatment.billing_id,
                    Billing.voided_at.is_(None),
                ),
            ),
        ),
        IntegrityCheck("The charges of a bill equal its items.", _charges_unlike_items()),
        IntegrityCheck(
            "No bill has a negative balance.",
            select(LedgerEntry.billing_id)
            .where(LedgerEntry.billing_id.is_not(None))
            .group_by(LedgerEntry.billing_id)
            .having(func.sum(LedgerEntry.amount) < 0),
        ),
        IntegrityCheck("A bill is marked as settled exactly if it has no balance.", _wrong_standings()),
        IntegrityCheck("Invoice numbers have no gaps.", _invoice_gaps()),
    ]


def _void_checks() -> list[IntegrityCheck]:
    return [
        IntegrityCheck(
            "A void bill has no open claim.",
            select(Billing.id)
            .join(Claim, Claim.billing_id == Billing.id)
            .where(Billing.voided_at.is_not(None), Claim.status.in_(claims.OPEN)),
        ),
        IntegrityCheck(
            "Only a void bill owes money to insurers.",
            select(LedgerEntry.billing_id)
            .join(Billing, Billing.id == LedgerEntry.billing_id)
            .where(LedgerEntry.kind == LedgerKind.INSURER_DEBT, Billing.voided_at.is_(None)),
        ),
        IntegrityCheck(
            "The debt to insurers of a bill is not negative.",
            select(LedgerEntry.billing_id)
            .where(LedgerEntry.kind == LedgerKind.INSURER_DEBT)
            .group_by(LedgerEntry.billing_id)
            .having(func.sum(LedgerEntry.amount) < 0),
        ),
        IntegrityCheck(
            "A void bill has no balance.",
            select(Billing.id)
            .join(LedgerEntry, LedgerEntry.billing_id == Billing.id)
            .where(Billing.voided_at.is_not(None))
            .group_by(Billing.id)
            .having(func.sum(LedgerEntry.amount) != 0),
        ),
    ]


def _refund_checks() -> list[IntegrityCheck]:
    return [
        IntegrityCheck(
            "A refund has the patient of its bill.",
            select(Refund.id)
            .join(Billing, Billing.id == Refund.billing_id)
            .where(Refund.patient_id != Billing.patient_id),
        ),
        IntegrityCheck(
            "An approved refund has a ledger entry of the same amount.",
            select(Refund.id)
            .outerjoin(LedgerEntry, LedgerEntry.id == Refund.entry_id)
            .where(
                Refund.status == RefundStatus.APPROVED,
                or_(LedgerEntry.id.is_(None), LedgerEntry.amount != Refund.amount),
            ),
        ),
        IntegrityCheck("The refunds of a bill by a method are at most its payments by it.", _over_refunded()),
    ]


def _account_checks() -> list[IntegrityCheck]:
    reversed_entry = aliased(LedgerEntry)
    return [
        IntegrityCheck(
            "The ledger has the currency of the settings.",
            select(LedgerCurrency.id).where(
                LedgerCurrency.code != settings().currency, exists(select(LedgerEntry.id))
            ),
        ),
        IntegrityCheck(
            "A ledger entry has the patient of its bill.",
            select(LedgerEntry.id)
            .join(Billing, Billing.id == LedgerEntry.billing_id)
            .where(LedgerEntry.patient_id != Billing.patient_id),
        ),
        IntegrityCheck(
            "A ledger entry has the doctor of its bill, and none without a bill.",
            select(LedgerEntry.id)
            .outerjoin(Billing, Billing.id == LedgerEntry.billing_id)
            .where(LedgerEntry.doctor_id.is_distinct_from(Billing.doctor_id)),
        ),
        IntegrityCheck(
            "The credit entries of a patient sum to zero.",
            select(LedgerEntry.patient_id)
            .where(LedgerEntry.kind == LedgerKind.CREDIT)
            .group_by(LedgerEntry.patient_id)
            .having(func.sum(LedgerEntry.amount) != 0),
        ),
        IntegrityCheck(
            "No patient has negative credit.",
            select(LedgerEntry.patient_id)
            .where(LedgerEntry.billing_id.is_(None))
            .group_by(LedgerEntry.patient_id)
            .having(func.sum(LedgerEntry.amount) > 0),
        ),
        IntegrityCheck(
            "A reversal has the opposite amount of the entry that it reverses.",
            select(LedgerEntry.id)
            .outerjoin(reversed_entry, reversed_entry.id == LedgerEntry.reverses_id)
            .where(
                LedgerEntry.kind == LedgerKind.REVERSAL,
                or_(reversed_entry.id.is_(None), LedgerEntry.amount != -reversed_entry.amount),
            ),
        ),
        IntegrityCheck(
            "The paid amount of a claim equals its ledger entries.",
            select(Claim.id).where(
                Claim.paid_amount != -_sum_of(LedgerEntry.amount, LedgerEntry.claim_id == Claim.id)
            ),
        ),
    ]


def _stock_checks() -> list[IntegrityCheck]:
    item = aliased(InventoryItem)
    lot = aliased(InventoryLot)
    return [
        IntegrityCheck(
            "An item's quantity is the sum of its movements.",
            select(item.id).where(
                item.quantity != _sum_of(StockMovement.quantity, StockMovement.item_id == item.id)
            ),
        ),
        IntegrityCheck(
            "A lot's quantity is the sum of its movements.",
            select(lot.id).where(
                lot.quantity != _sum_of(StockMovement.quantity, StockMovement.lot_id == lot.id)
            ),
        ),
        IntegrityCheck(
            "A treatment that is not completed uses no stock.",
            select(Treatment.id).where(
                Treatment.status != TreatmentStatus.COMPLETED,
                _sum_of(StockMovement.quantity, StockMovement.treatment_id == Treatment.id) != 0,
            ),
        ),
    ]


def _has_factor() -> ColumnElement[bool]:
    """Return True for a user with an authenticator app or a passkey."""
    has_app = exists().where(TotpSecret.user_id == User.id, TotpSecret.confirmed_at.is_not(None))
    return or_(has_app, exists().where(Passkey.user_id == User.id))


def _session_checks() -> list[IntegrityCheck]:
    return [
        IntegrityCheck(
            "No deactivated user has an open session.",
            select(UserSession.id)
            .join(User, User.id == UserSession.user_id)
            .where(User.is_active.is_(False), UserSession.ended_at.is_(None)),
        ),
        IntegrityCheck(
            "A user needs a second factor at the sign-in exactly if there is one.",
            select(User.id).where(User.mfa_enabled_at.is_not(None) != _has_factor()),
        ),
        IntegrityCheck(
            "Only a user with a second factor has recovery codes.",
            select(RecoveryCode.id).join(User).where(User.mfa_enabled_at.is_(None)),
        ),
        IntegrityCheck(
            "Every idempotency key has a response.",
            select(IdempotencyKey.id).where(IdempotencyKey.status.is_(None)),
        ),
    ]


def _calendar_feed_checks() -> list[IntegrityCheck]:
    open_feeds = (
        select(CalendarFeed.doctor_id)
        .where(CalendarFeed.ended_at.is_(None))
        .group_by(CalendarFeed.doctor_id)
        .having(func.count() > MAX_FEEDS)
    )
    return [
        IntegrityCheck(f"No doctor has more than {MAX_FEEDS} calendar feeds.", open_feeds),
        IntegrityCheck(
            "A calendar feed that was read has a digest of its content.",
            select(CalendarFeed.id).where(
                CalendarFeed.last_fetched_at.is_not(None),
                or_(CalendarFeed.content_digest.is_(None), CalendarFeed.content_changed_at.is_(None)),
            ),
        ),
    ]


def _emergency_checks() -> list[IntegrityCheck]:
    access = EmergencyAccess
    return [
        IntegrityCheck(
            "No emergency access ends later than an hour from now.",
            select(access.id).where(access.expires_at > clock.now() + emergency_access.DURATION),
        ),
        IntegrityCheck(
            "An emergency access is reviewed by another user, after it began.",
            select(access.id).where(
                or_(access.reviewed_by_id == access.user_id, access.reviewed_at < access.created_at)
            ),
        ),
    ]


def _invoice_gaps() -> Select[Any]:
    """Select the years whose counter differs from the number of invoices. The numbers are unique."""
    counted = (
        select(func.count())
        .where(Billing.invoice_number.like(literal("INV-") + cast(InvoiceCounter.year, String) + "-%"))
        .scalar_subquery()
    )
    return select(InvoiceCounter.year).where(InvoiceCounter.last_number != counted)


def violations(*, limit: int = 5) -> Iterator[tuple[str, list[int]]]:
    """Yield each violated rule with the ids of at most `limit` rows that violate it."""
    for check in all_checks():
        ids = list(db.session.execute(check.query.limit(limit)).scalars())
        if ids:
            yield check.rule, ids

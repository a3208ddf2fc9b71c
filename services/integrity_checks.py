"""What must always be true of the stored clinic, asked of the database itself: `flask verify`.

Each invariant is a query for the rows that break it. The rules hold by locks and constraints; this looks
whether they did.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, String, cast, exists, func, literal, or_, select, union_all
from sqlalchemy.orm import aliased

from enums import AppointmentStatus, LedgerKind, RefundStatus, TreatmentStatus
from extensions import db
from models import (
    Appointment,
    Billing,
    BillingItem,
    BillingStanding,
    Claim,
    Dispensing,
    IdempotencyKey,
    InventoryItem,
    InventoryLot,
    InvoiceCounter,
    LedgerEntry,
    PrescribedMedication,
    Prescription,
    Refund,
    StockMovement,
    Treatment,
    User,
    UserSession,
    Visit,
)

OCCUPYING = (AppointmentStatus.SCHEDULED, AppointmentStatus.COMPLETED)
RECEIVED = (LedgerKind.PAYMENT, LedgerKind.INSURANCE_PAYMENT)


@dataclass(frozen=True)
class Invariant:
    """A sentence that must be true, and the query for the ids of rows that break it."""

    sentence: str
    breaches: Select[Any]


def _overlaps(owner: Any, end: Any, *wheres: Any) -> Select[Any]:
    """Appointments that are not over when one of the same owner begins, which begins no earlier.

    One walk backwards in time: a join of all with all takes hours in a busy clinic.
    """
    order = (Appointment.start.desc(), Appointment.id.desc())
    following = func.min(Appointment.start).over(partition_by=owner, order_by=order, rows=(None, -1))
    walked = (
        select(Appointment.id, end.label("end"), following.label("following"))
        .where(Appointment.status.in_(OCCUPYING), *wheres)
        .subquery()
    )
    return select(walked.c.id).where(walked.c.following < walked.c.end)


def _sum_of(column: Any, *wheres: Any) -> Any:
    return select(func.coalesce(func.sum(column), 0)).where(*wheres).scalar_subquery()


def _charged_otherwise() -> Select[Any]:
    """Bills whose charges and items do not add up to the same; both are read once."""
    charges = select(LedgerEntry.billing_id, LedgerEntry.amount).where(LedgerEntry.kind == LedgerKind.CHARGE)
    items = select(BillingItem.billing_id, -BillingItem.unit_price * BillingItem.quantity)
    both = union_all(charges, items).subquery()
    return select(both.c.billing_id).group_by(both.c.billing_id).having(func.sum(both.c.amount) != 0)


def _unknown_standings() -> Select[Any]:
    """Bills with ledger rows that are taken for settled and are not, or the other way round."""
    summed = (
        select(LedgerEntry.billing_id, func.sum(LedgerEntry.amount).label("balance"))
        .where(LedgerEntry.billing_id.is_not(None))
        .group_by(LedgerEntry.billing_id)
        .subquery()
    )
    return (
        select(summed.c.billing_id)
        .outerjoin(BillingStanding, BillingStanding.billing_id == summed.c.billing_id)
        .where(
            or_(
                BillingStanding.billing_id.is_(None),
                (summed.c.balance == 0) != BillingStanding.settled_at.is_not(None),
            )
        )
    )


def invariants() -> list[Invariant]:
    """All of them, in the order in which they are asked."""
    return [*_of_scheduling(), *_of_care(), *_of_bills(), *_of_accounts(), *_of_stock(), *_of_trust()]


def _of_scheduling() -> list[Invariant]:
    return [
        Invariant(
            "No doctor has two appointments at once.",
            _overlaps(Appointment.doctor_id, Appointment.blocked_until, Appointment.overbooked.is_(False)),
        ),
        Invariant(
            "No patient has two appointments at once.", _overlaps(Appointment.patient_id, Appointment.end)
        ),
    ]


def _of_care() -> list[Invariant]:
    return [
        Invariant(
            "A visit agrees with its appointment, which is completed.",
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
        Invariant(
            "A treatment's patient is its visit's.",
            select(Treatment.id).join(Visit).where(Treatment.patient_id != Visit.patient_id),
        ),
        Invariant(
            "A prescription's patient is its visit's.",
            select(Prescription.id).join(Visit).where(Prescription.patient_id != Visit.patient_id),
        ),
        Invariant(
            "What is dispensed equals its dispensings.",
            select(PrescribedMedication.id).where(
                PrescribedMedication.dispensed
                != _sum_of(Dispensing.quantity, Dispensing.medication_id == PrescribedMedication.id)
            ),
        ),
    ]


def _of_bills() -> list[Invariant]:
    billed_twice = (
        select(BillingItem.treatment_id)
        .join(Billing, Billing.id == BillingItem.billing_id)
        .where(BillingItem.treatment_id.is_not(None), Billing.voided_at.is_(None))
        .group_by(BillingItem.treatment_id)
        .having(func.count() > 1)
    )
    return [
        Invariant("No treatment is billed twice.", billed_twice),
        Invariant(
            "A treatment's bill is not void and charges it.",
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
        Invariant(
            "A bill's charges are its items.",
            _charged_otherwise(),
        ),
        Invariant(
            "No bill is paid beyond its amount.",
            select(LedgerEntry.billing_id)
            .where(LedgerEntry.billing_id.is_not(None))
            .group_by(LedgerEntry.billing_id)
            .having(func.sum(LedgerEntry.amount) < 0),
        ),
        Invariant(
            "A void bill sums to nothing.",
            select(Billing.id)
            .join(LedgerEntry, LedgerEntry.billing_id == Billing.id)
            .where(Billing.voided_at.is_not(None))
            .group_by(Billing.id)
            .having(func.sum(LedgerEntry.amount) != 0),
        ),
        Invariant("A bill is known as settled while its ledger rows sum to nothing.", _unknown_standings()),
        Invariant("Invoice numbers have no gap.", _invoice_gaps()),
    ]


def _of_accounts() -> list[Invariant]:
    reversed_entry = aliased(LedgerEntry)
    return [
        Invariant(
            "A ledger row lies on the account of its bill's patient.",
            select(LedgerEntry.id)
            .join(Billing, Billing.id == LedgerEntry.billing_id)
            .where(LedgerEntry.patient_id != Billing.patient_id),
        ),
        Invariant(
            "A ledger row is counted for the doctor of its bill, one on the account for none.",
            select(LedgerEntry.id)
            .outerjoin(Billing, Billing.id == LedgerEntry.billing_id)
            .where(LedgerEntry.doctor_id.is_distinct_from(Billing.doctor_id)),
        ),
        Invariant(
            "Money moved between a bill and the account is neither made nor lost.",
            select(LedgerEntry.patient_id)
            .where(LedgerEntry.kind == LedgerKind.CREDIT)
            .group_by(LedgerEntry.patient_id)
            .having(func.sum(LedgerEntry.amount) != 0),
        ),
        Invariant(
            "A reversal is the opposite of the row it names.",
            select(LedgerEntry.id)
            .outerjoin(reversed_entry, reversed_entry.id == LedgerEntry.reverses_id)
            .where(
                LedgerEntry.kind == LedgerKind.REVERSAL,
                or_(reversed_entry.id.is_(None), LedgerEntry.amount != -reversed_entry.amount),
            ),
        ),
        Invariant(
            "An approved refund was paid out as it was asked.",
            select(Refund.id)
            .outerjoin(LedgerEntry, LedgerEntry.id == Refund.entry_id)
            .where(
                Refund.status == RefundStatus.APPROVED,
                or_(LedgerEntry.id.is_(None), LedgerEntry.amount != Refund.amount),
            ),
        ),
        Invariant(
            "What a claim was paid equals its ledger rows.",
            select(Claim.id).where(
                Claim.paid_amount != -_sum_of(LedgerEntry.amount, LedgerEntry.claim_id == Claim.id)
            ),
        ),
    ]


def _of_stock() -> list[Invariant]:
    item = aliased(InventoryItem)
    lot = aliased(InventoryLot)
    return [
        Invariant(
            "An item's quantity is the sum of its movements.",
            select(item.id).where(
                item.quantity != _sum_of(StockMovement.quantity, StockMovement.item_id == item.id)
            ),
        ),
        Invariant(
            "A lot's quantity is the sum of its movements.",
            select(lot.id).where(
                lot.quantity != _sum_of(StockMovement.quantity, StockMovement.lot_id == lot.id)
            ),
        ),
        Invariant(
            "A treatment that is not completed holds no stock.",
            select(Treatment.id).where(
                Treatment.status != TreatmentStatus.COMPLETED,
                _sum_of(StockMovement.quantity, StockMovement.treatment_id == Treatment.id) != 0,
            ),
        ),
    ]


def _of_trust() -> list[Invariant]:
    return [
        Invariant(
            "No session of a deactivated user is alive.",
            select(UserSession.id)
            .join(User, User.id == UserSession.user_id)
            .where(User.is_active.is_(False), UserSession.ended_at.is_(None)),
        ),
        Invariant(
            "Every idempotency key has its answer.",
            select(IdempotencyKey.id).where(IdempotencyKey.status.is_(None)),
        ),
    ]


def _invoice_gaps() -> Select[Any]:
    """Years whose counter differs from the number of their invoices (numbers are unique)."""
    counted = (
        select(func.count())
        .where(Billing.invoice_number.like(literal("INV-") + cast(InvoiceCounter.year, String) + "-%"))
        .scalar_subquery()
    )
    return select(InvoiceCounter.year).where(InvoiceCounter.last_number != counted)


def violations(*, most: int = 5) -> Iterator[tuple[str, list[int]]]:
    """Every broken invariant with up to `most` of the rows that break it."""
    for invariant in invariants():
        found = list(db.session.execute(invariant.breaches.limit(most)).scalars())
        if found:
            yield invariant.sentence, found

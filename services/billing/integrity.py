"""The checks of bills, the ledger, refunds and accounts."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Select,
    exists,
    func,
    or_,
    select,
    union_all,
)
from sqlalchemy.orm import aliased

from config import settings
from enums import LedgerKind, RefundStatus
from models import (
    Billing,
    BillingItem,
    BillingStanding,
    Claim,
    LedgerCurrency,
    LedgerEntry,
    Refund,
    Treatment,
)
from services import document_numbers
from services.billing import claims, ledger
from services.billing.credit_note_checks import credit_note_checks
from services.document_numbers import INVOICE
from services.integrity_rule import IntegrityCheck, sum_of


def _charges_unlike_items() -> Select[Any]:
    """Select the bills whose charges and items have different sums. Both tables are read once."""
    charges = select(LedgerEntry.billing_id, LedgerEntry.amount).where(
        LedgerEntry.kind.in_(ledger.ITEMS), LedgerEntry.billing_id.is_not(None)
    )
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


def _bill_checks() -> list[IntegrityCheck]:
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
        IntegrityCheck(
            "An opening balance is a debt on a bill, or a credit on an account.",
            select(LedgerEntry.id).where(
                LedgerEntry.kind == LedgerKind.OPENING_BALANCE,
                LedgerEntry.billing_id.is_not(None) != (LedgerEntry.amount > 0),
            ),
        ),
        IntegrityCheck(
            "Invoice numbers have no gaps.", document_numbers.gaps(INVOICE, Billing.invoice_number)
        ),
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
                Claim.paid_amount != -sum_of(LedgerEntry.amount, LedgerEntry.claim_id == Claim.id)
            ),
        ),
    ]


def billing_checks() -> list[IntegrityCheck]:
    """Return the checks of bills, the ledger, refunds, accounts and credit notes."""
    return [
        *_bill_checks(),
        *_void_checks(),
        *_refund_checks(),
        *_account_checks(),
        *credit_note_checks(),
    ]

"""The checks of credit notes: they agree with the ledger, the refunds and the voids."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CompoundSelect, Select, Subquery, and_, case, func, literal, not_, or_, select, union

from column_types import MoneyType
from enums import LedgerKind, RefundStatus
from models import Billing, CreditNote, LedgerEntry, Refund
from services import document_numbers
from services.billing import ledger
from services.document_numbers import CREDIT_NOTE
from services.integrity_rule import IntegrityCheck

ZERO = literal(0, MoneyType())
IS_VOID = Billing.voided_at.is_not(None)


def credit_note_checks() -> list[IntegrityCheck]:
    """Return the checks."""
    return [
        IntegrityCheck(
            "Credit note numbers have no gaps.", document_numbers.gaps(CREDIT_NOTE, CreditNote.number)
        ),
        IntegrityCheck(
            "A credit note is for a paid refund of its bill, or for the void of its bill.",
            _without_cause(),
        ),
        IntegrityCheck(
            "The credit notes of a bill are its refunds up to its amount, and all of it if it is void.",
            _wrong_sums(),
        ),
    ]


def _without_cause() -> Select[Any]:
    is_of_refund = and_(
        Refund.billing_id == CreditNote.billing_id,
        Refund.status == RefundStatus.APPROVED,
        Refund.amount >= CreditNote.amount,
    )
    is_justified = case((CreditNote.refund_id.is_(None), IS_VOID), else_=is_of_refund)
    return (
        select(CreditNote.id)
        .join(Billing, Billing.id == CreditNote.billing_id)
        .outerjoin(Refund, Refund.id == CreditNote.refund_id)
        .where(or_(CreditNote.patient_id != Billing.patient_id, not_(is_justified)))
    )


def _wrong_sums() -> Select[Any]:
    issued, notes, refunds = _issued(), _of_notes(), _of_refunds()
    refunded = func.coalesce(refunds.c.amount, ZERO)
    expected = case((or_(IS_VOID, refunded > issued.c.amount), issued.c.amount), else_=refunded)
    return (
        select(issued.c.billing_id)
        .join(Billing, Billing.id == issued.c.billing_id)
        .outerjoin(notes, notes.c.billing_id == issued.c.billing_id)
        .outerjoin(refunds, refunds.c.billing_id == issued.c.billing_id)
        .where(
            or_(
                func.coalesce(notes.c.amount, ZERO) != expected,
                and_(IS_VOID, func.coalesce(notes.c.tax, ZERO) != issued.c.tax),
            )
        )
    )


def _issued() -> Subquery:
    """Select amount and tax, before a void, of the bills with a credit note, a refund or a void.

    A void reverses the items first: charges, or an opening balance. Nothing else reverses one.
    """
    concerned: CompoundSelect[Any] = union(
        select(CreditNote.billing_id),
        select(Refund.billing_id).where(Refund.billing_id.is_not(None)),
        select(Billing.id).where(IS_VOID),
    )
    void = (
        select(LedgerEntry.billing_id, func.min(LedgerEntry.id).label("first_id"))
        .where(LedgerEntry.kind == LedgerKind.REVERSAL, ledger.counts_as(*ledger.ITEMS))
        .group_by(LedgerEntry.billing_id)
        .subquery()
    )
    tax = case((ledger.counts_as(LedgerKind.TAX), LedgerEntry.amount), else_=ZERO)
    return (
        select(
            LedgerEntry.billing_id,
            func.sum(LedgerEntry.amount).label("amount"),
            func.sum(tax).label("tax"),
        )
        .outerjoin(void, void.c.billing_id == LedgerEntry.billing_id)
        .where(
            LedgerEntry.billing_id.in_(concerned),
            ledger.counts_as(*ledger.ITEMS, LedgerKind.DISCOUNT, LedgerKind.TAX),
            or_(void.c.first_id.is_(None), LedgerEntry.id < void.c.first_id),
        )
        .group_by(LedgerEntry.billing_id)
        .subquery()
    )


def _of_notes() -> Subquery:
    sums = select(
        CreditNote.billing_id,
        func.sum(CreditNote.amount).label("amount"),
        func.sum(CreditNote.tax).label("tax"),
    )
    return sums.group_by(CreditNote.billing_id).subquery()


def _of_refunds() -> Subquery:
    sums = select(Refund.billing_id, func.sum(Refund.amount).label("amount"))
    return sums.where(Refund.status == RefundStatus.APPROVED).group_by(Refund.billing_id).subquery()

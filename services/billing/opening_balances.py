"""Opening balances: debts and advance payments of patients from before the first entry of the ledger.

A debt becomes a bill of its own, because payments, claims and write-offs belong to bills. The bill is issued
today, with the next number of this year, and its due date is the date of the balance. So the numbers of
earlier years stay as they are, and the ageing is right. A credit becomes an entry on the account, which later
bills can spend. Both are entries of the kind `opening_balance` at the date of the balance. They are no
revenue, because the earlier system has reported it.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from datetime import date, datetime, timedelta
from decimal import Decimal

from sqlalchemy import and_, exists, func, or_, select
from sqlalchemy.orm import aliased

from column_types import MONEY_LIMIT
from config import settings
from enums import LedgerKind
from errors import ClinicError, invalid
from extensions import db
from models import Billing, BillingItem, LedgerEntry, Patient
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.billing import adjustments, bills, ledger
from services.clinic.versions import current_version_id
from services.patients import activity
from services.rows import get_or_404, get_referenced, mapping

DESCRIPTION = "Balance brought forward"
MAX_DAYS_AGO = 30 * 366  # an earlier date is a typing error


def create(
    actor: Actor,
    *,
    patient_id: int,
    amount: Decimal,
    date: date,
    currency: str | None = None,
    reference: str | None = None,
    description: str | None = None,
) -> LedgerEntry:
    """Post the balance that a patient brings: a positive `amount` is a debt, a negative one is credit.

    The patient may be archived or deceased since `date`. Raises 409 `patient_inactive` otherwise, and 409
    `already_exists` for a second balance with this date and reference. Raises 422 for an amount of zero,
    another currency, and a date in the future or too long ago.
    """
    _check(amount, date, currency)
    patient = get_referenced(Patient, patient_id, "patient_id", lock=True)
    occurred_at = clock.day_start(date)
    activity.require_active(patient, occurred_at)
    if _is_posted(patient.id, occurred_at, reference):
        raise ClinicError(
            "already_exists",
            "The patient has an opening balance with this date and reference. Give each one its reference.",
            errors={"reference": "is the reference of another opening balance of the patient on this date"},
        )
    if amount < ledger.ZERO:
        entry = ledger.open_account(actor, patient.id, amount, reference=reference, occurred_at=occurred_at)
        db.session.flush()  # the caller needs the id
        return entry
    bill = _create_bill(actor, patient, amount, date, description or DESCRIPTION)
    entry = ledger.post(
        actor,
        bill,
        LedgerKind.OPENING_BALANCE,
        amount,
        reference=reference,
        occurred_at=occurred_at,
        item_id=bill.items[0].id,
    )
    audit_log.set_action(bill, "import")  # not issued: the patient gets no message about it
    bills.set_invoice_number(bill)
    return entry


def _check(amount: Decimal, day: date, currency: str | None) -> None:
    if amount == ledger.ZERO:
        raise invalid("amount", "must not be zero; leave the row out")
    if abs(amount) > MONEY_LIMIT:
        raise invalid("amount", f"must be at most {MONEY_LIMIT}")
    if currency is not None and currency.strip().upper() != settings().currency:
        raise invalid("currency", f"the clinic works in {settings().currency}; convert the amount first")
    if day > clock.today():
        raise invalid("date", "must not be in the future")
    if day < clock.today() - timedelta(days=MAX_DAYS_AGO):
        raise invalid("date", "must be at most 30 years ago; check the year")


def _create_bill(actor: Actor, patient: Patient, amount: Decimal, due: date, description: str) -> Billing:
    bill = Billing(
        invoice_number=f"draft-{secrets.token_hex(8)}",
        patient_id=patient.id,
        patient=patient,
        tax_rate=ledger.ZERO,
        date=clock.today(),
        due_date=due,
        created_by_id=actor.user_id,
        clinic_version_id=current_version_id(),
        items=[BillingItem(description=description, quantity=1, unit_price=amount)],
        refunds=[],
        claims=[],
    )
    db.session.add(bill)
    db.session.flush()
    return bill


def _is_posted(patient_id: int, occurred_at: datetime, reference: str | None) -> bool:
    """Return True if the patient has an opening balance with this date and reference, without reversal."""
    reversal = aliased(LedgerEntry)
    statement = select(
        exists().where(
            LedgerEntry.patient_id == patient_id,
            LedgerEntry.kind == LedgerKind.OPENING_BALANCE,
            LedgerEntry.occurred_at == occurred_at,
            LedgerEntry.reference.is_not_distinct_from(reference),
            ~exists().where(reversal.reverses_id == LedgerEntry.id),
        )
    )
    return bool(db.session.execute(statement).scalar_one())


def reverse(actor: Actor, entry: LedgerEntry, reason: str) -> None:
    """Reverse an opening balance by an entry of the opposite amount. A debt voids its bill.

    Raises 409 `in_use` for a bill with other entries, and for a credit that was spent.
    """
    if entry.billing_id is None:
        get_or_404(Patient, entry.patient_id, lock=True)
        if ledger.credit_of(entry.patient_id) < -entry.amount:
            raise ClinicError("in_use", "The credit was spent. Void the bills that spent it first.")
        ledger.reverse(actor, entry, reason)
        return
    bill = bills.get(actor, entry.billing_id, lock=True)
    others = exists().where(LedgerEntry.billing_id == bill.id, LedgerEntry.id != entry.id)
    if db.session.execute(select(others)).scalar_one():
        raise ClinicError("in_use", "The bill of the opening balance has other entries. Void it instead.")
    adjustments.void(actor, bill, reason=reason)


def versions(ids: Collection[int]) -> dict[int, int]:
    """Return the versions of opening balances: that of the bill, or 1 for a credit, which never changes."""
    return mapping(
        select(LedgerEntry.id, func.coalesce(Billing.version, 1))
        .outerjoin(Billing, Billing.id == LedgerEntry.billing_id)
        .where(LedgerEntry.id.in_(ids))
    )


def spent(ids: Collection[int]) -> list[int]:
    """Return the opening balances that cannot be reversed: bills with other entries, and spent credit.

    The credits of a patient are reversed together, or none of them: the ledger does not know which was spent.
    """
    other = aliased(LedgerEntry)
    has_others = exists().where(other.billing_id == LedgerEntry.billing_id, other.id != LedgerEntry.id)
    on_account = select(-func.sum(other.amount)).where(
        other.patient_id == LedgerEntry.patient_id, other.billing_id.is_(None)
    )
    credit, brought = on_account.scalar_subquery(), on_account.where(other.id.in_(ids)).scalar_subquery()
    is_spent = and_(LedgerEntry.billing_id.is_(None), credit < brought)
    return list(
        db.session.scalars(select(LedgerEntry.id).where(LedgerEntry.id.in_(ids), or_(has_others, is_spent)))
    )

"""Opening balances: what a patient owed, or had paid in advance, before the first entry of the ledger.

A debt becomes a bill of its own, because payments, claims and write-offs belong to bills. The bill is issued
today, with the next number of this year, and its due date is the date of the balance. So the numbers of
earlier years stay as they are, and the ageing is right. A credit becomes an entry on the account, which later
bills can spend. Both are entries of the kind `opening_balance` at the date of the balance. They are no
revenue, because the earlier system has reported it.
"""

from __future__ import annotations

import secrets
from datetime import date, timedelta
from decimal import Decimal

from sqlalchemy import exists, select
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
from services.billing.invoice_numbers import set_invoice_number
from services.patients import activity
from services.rows import get_or_404, get_referenced

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

    The patient may be archived or deceased since `date`. Raises 409 `patient_inactive` otherwise, and 422 for
    an amount of zero, another currency, and a date in the future or too long ago.
    """
    _check(amount, date, currency)
    patient = get_referenced(Patient, patient_id, "patient_id", lock=True)
    occurred_at = clock.day_start(date)
    activity.require_active(patient, occurred_at)
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
    set_invoice_number(bill)
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
        items=[BillingItem(description=description, quantity=1, unit_price=amount)],
        refunds=[],
        claims=[],
    )
    db.session.add(bill)
    db.session.flush()
    return bill


def entries_of(patient_id: int, day: date, reference: str | None) -> list[int]:
    """Return the ids of the opening balances of a patient with this date and reference, without reversal."""
    reversal = aliased(LedgerEntry)
    statement = select(LedgerEntry.id).where(
        LedgerEntry.patient_id == patient_id,
        LedgerEntry.kind == LedgerKind.OPENING_BALANCE,
        LedgerEntry.occurred_at == clock.day_start(day),
        LedgerEntry.reference.is_not_distinct_from(reference),
        ~exists().where(reversal.reverses_id == LedgerEntry.id),
    )
    return list(db.session.scalars(statement.order_by(LedgerEntry.id)))


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

"""Adjustments of bills: write-offs and voids.

The caller passes a bill from `services.billing.bills.get(..., lock=True)`. It locks the patient's row first,
then the bill's.
"""

from __future__ import annotations

from decimal import Decimal

from sqlalchemy import select

from enums import LedgerKind
from errors import ClinicError
from extensions import db
from models import Billing, Treatment
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.billing import ledger, refunds
from services.billing.bill_state import require_not_void, touch
from services.rows import for_update

# The entries that a void reverses. Payments stay: they become credit.
REVERSED_BY_VOID = (LedgerKind.CHARGE, LedgerKind.TAX, LedgerKind.DISCOUNT, LedgerKind.WRITE_OFF)


def write_off(actor: Actor, bill: Billing, *, amount: Decimal, reason: str) -> Billing:
    """Write off the balance of a bill, or part of it.

    Raises 409 `overpayment` above the balance, and 409 `read_only` for a void bill.
    """
    require_not_void(bill)
    balance = ledger.of_bill(bill.id).balance
    if amount > balance:
        raise ClinicError(
            "overpayment",
            f"At most the balance of {balance:.2f} can be written off.",
            balance=f"{balance:.2f}",
        )
    ledger.post(actor, bill, LedgerKind.WRITE_OFF, -amount, reason=reason)
    touch(bill)
    audit_log.set_action(bill, "write_off")
    return bill


def void(actor: Actor, bill: Billing, *, reason: str) -> Billing:
    """Void a bill: reverse its postings, turn the paid amount into credit, and release its treatments.

    The treatments can be billed again. Raises 409 `read_only` for a void bill, and 409 `in_use` while a
    refund request is open.
    """
    require_not_void(bill)
    if refunds.open_amount(bill):
        raise ClinicError("in_use", "This bill has an open refund request. Approve or reject it first.")
    paid = ledger.of_bill(bill.id).paid
    for entry in ledger.unreversed_entries(bill.id, *REVERSED_BY_VOID):
        ledger.reverse(actor, entry, reason)
    if paid:
        ledger.move_credit(actor, bill, paid)
    treatments = for_update(select(Treatment).where(Treatment.billing_id == bill.id).order_by(Treatment.id))
    for treatment in db.session.execute(treatments).scalars():
        treatment.billing_id = None
    bill.voided_at = clock.now()
    bill.void_reason = reason
    audit_log.set_action(bill, "void")
    return bill

"""Adjustments of bills: write-offs and voids.

The caller passes a bill from `services.billing.bills.get(..., lock=True)`. It locks the patient's row first,
then the bill's.
"""

from __future__ import annotations

from decimal import Decimal

from sqlalchemy import select

from enums import LedgerKind, PaymentMethod
from errors import ClinicError
from extensions import db
from models import Billing, Treatment
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.billing import claims, credit_notes, ledger, refunds
from services.billing.bill_state import require_not_void, touch
from services.rows import for_update

# The entries that a void reverses. Payments stay: they become credit, or a debt to the insurer.
REVERSED_BY_VOID = (*ledger.ITEMS, LedgerKind.TAX, LedgerKind.DISCOUNT, LedgerKind.WRITE_OFF)


def write_off(actor: Actor, bill: Billing, *, amount: Decimal, reason: str) -> Billing:
    """Write off the balance of a bill, or part of it.

    Raises 409 `overpayment` above the balance, and 409 `read_only` for a void bill.
    """
    require_not_void(bill)
    balance = ledger.of_bill(bill.id).balance
    if amount > balance:
        raise ClinicError(
            "overpayment",
            f"At most the balance of {ledger.to_text(balance)} can be written off.",
            balance=ledger.to_text(balance),
        )
    ledger.post(actor, bill, LedgerKind.WRITE_OFF, -amount, reason=reason)
    touch(bill)
    audit_log.set_action(bill, "write_off")
    return bill


def void(actor: Actor, bill: Billing, *, reason: str) -> Billing:
    """Void a bill: reverse its postings and release its treatments, which can be billed again.

    The paid amount becomes credit of the patient. The money of an insurer becomes a debt to the insurer.
    A credit note is issued for the part of the bill that has none yet.
    Raises 409 `read_only` for a void bill. Raises 409 `in_use` while a refund request or a claim is open.
    """
    require_not_void(bill)
    if refunds.open_amount(bill):
        raise ClinicError("in_use", "This bill has an open refund request. Approve or reject it first.")
    claims.require_none_open(bill)
    sums, owed = ledger.of_bill(bill.id), _insurers_share(bill)
    for entry in ledger.unreversed_entries(bill.id, *REVERSED_BY_VOID):
        ledger.reverse(actor, entry, reason)
    for part in ledger.parts(sums.paid - owed):
        ledger.move_credit(actor, bill, part, reason=reason)
    for part in ledger.parts(owed):
        ledger.post(actor, bill, LedgerKind.INSURER_DEBT, part, method=PaymentMethod.INSURANCE, reason=reason)
    treatments = for_update(select(Treatment).where(Treatment.billing_id == bill.id).order_by(Treatment.id))
    for treatment in db.session.execute(treatments).scalars():
        treatment.billing_id = None
    bill.voided_at = clock.now()
    bill.void_reason = reason
    audit_log.set_action(bill, "void")
    credit_notes.issue_for_void(actor, bill, sums, reason)
    return bill


def _insurers_share(bill: Billing) -> Decimal:
    """Return the money that a void owes to insurers.

    It includes what they paid above the balance of this bill, which became credit of the patient.
    Credit that the patient has already spent stays spent.
    """
    by_method = ledger.paid_by_method(bill.id)
    total = sum(by_method.values(), ledger.ZERO)
    share = max(ledger.ZERO, min(by_method.get(PaymentMethod.INSURANCE, ledger.ZERO), total))
    above_balance = ledger.credit_from_insurers(bill)
    return share + min(above_balance, ledger.credit_of(bill.patient_id) + total - share)

"""Payments on bills.

The caller passes a bill from `services.billing.bills.get(..., lock=True)`. It locks the patient's row first,
then the bill's. So concurrent payments, refunds and uses of credit each see the postings of those before.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from enums import PaymentMethod
from errors import ClinicError, invalid
from models import Billing
from security.permissions import Actor
from services import clock
from services.audit import audit_log
from services.billing import ledger
from services.billing.bill_state import require_not_void, touch

CLOCK_SKEW = timedelta(minutes=1)  # the clock of a client may be ahead by this much


def pay(
    actor: Actor,
    bill: Billing,
    *,
    amount: Decimal,
    method: PaymentMethod,
    reference: str | None = None,
    received_at: datetime | None = None,
    allow_credit: bool = False,
    claim_id: int | None = None,
) -> Billing:
    """Post a payment on a bill. The method `credit` spends the patient's credit.

    Raises 409 `overpayment` above the balance, unless `allow_credit` posts the rest to the patient's account.
    Raises 409 `insufficient_credit`, 409 `read_only` for a void bill, and 422 for a time in the future.
    """
    require_not_void(bill)
    received_at = _check_received_at(received_at)
    balance = ledger.of_bill(bill.id).balance
    uses_credit = method is PaymentMethod.CREDIT
    if amount > balance and (uses_credit or not allow_credit):
        raise _overpayment(balance, uses_credit=uses_credit)
    applied = min(amount, balance)
    if uses_credit:
        if ledger.credit_of(bill.patient_id) < applied:
            raise ClinicError("insufficient_credit", "The patient's credit is too low for this payment.")
        ledger.move_credit(actor, bill, -applied, reference=reference)
    elif applied:
        ledger.post(
            actor,
            bill,
            ledger.payment_kind(method),
            -applied,
            method=method,
            reference=reference,
            occurred_at=received_at,
            claim_id=claim_id,
        )
    if amount > applied:
        ledger.pay_account(
            actor,
            bill.patient_id,
            amount - applied,
            method,
            reference,
            occurred_at=received_at,
            claim_id=claim_id,
        )
    touch(bill)
    audit_log.set_action(bill, "pay")
    return bill


def _check_received_at(received_at: datetime | None) -> datetime:
    now = clock.now()
    if received_at is not None and received_at > now + CLOCK_SKEW:
        raise invalid("received_at", "must not be in the future")
    return min(received_at or now, now)


def _overpayment(balance: Decimal, *, uses_credit: bool) -> ClinicError:
    advice = (
        "Spend at most this amount." if uses_credit else "Send allow_credit: true to keep the rest as credit."
    )
    return ClinicError(
        "overpayment", f"The bill's balance is {balance:.2f}. {advice}", balance=f"{balance:.2f}"
    )

"""Payments on bills.

The caller passes a bill from `services.billing.bills.get(..., lock=True)`. It locks the patient's row first,
then the bill's. So concurrent payments, refunds and uses of credit each see the postings of those before.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from enums import LedgerKind, PaymentMethod
from errors import ClinicError
from models import Billing
from security.permissions import Actor
from services.audit import audit_log
from services.billing import ledger
from services.billing.bill_state import require_not_void, set_empty_parts, set_sums, touch
from services.billing.dates import check_received_at


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
    importing: bool = False,
) -> Billing:
    """Post a payment on a bill. The method `credit` spends the patient's credit.

    Raises 409 `overpayment` above the balance, unless `allow_credit` posts the rest to the patient's account.
    Raises 409 `insufficient_credit`, and 409 `read_only` for a void bill. Raises 422 for a time in the future
    or too long ago; `importing` allows an old one.
    """
    require_not_void(bill)
    received_at = check_received_at(received_at, importing=importing)
    all_sums, account_balances = ledger.of_bills([bill])
    sums, account_balance = all_sums[bill.id], account_balances[bill.patient_id]
    balance = sums.balance
    uses_credit = method is PaymentMethod.CREDIT
    if amount > balance and (uses_credit or not allow_credit):
        raise _overpayment(balance, uses_credit=uses_credit)
    applied = min(amount, balance)
    if uses_credit:
        if ledger.credit_of(bill.patient_id) < applied:
            raise ClinicError("insufficient_credit", "The patient's credit is too low for this payment.")
        ledger.move_credit(actor, bill, -applied, reference=reference, occurred_at=received_at)
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
            overpaid_billing_id=bill.id,
        )
    touch(bill)
    # The bill is locked: the response needs no second look at the ledger.
    kind = LedgerKind.CREDIT if uses_credit else ledger.payment_kind(method)
    set_sums(bill, sums.plus(kind, -applied), account_balance - (ledger.ZERO if uses_credit else amount))
    if not importing:
        set_empty_parts(bill)
    audit_log.set_action(bill, "pay")
    return bill


def _overpayment(balance: Decimal, *, uses_credit: bool) -> ClinicError:
    advice = (
        "Spend at most this amount." if uses_credit else "Send allow_credit: true to keep the rest as credit."
    )
    amount = ledger.to_text(balance)
    return ClinicError("overpayment", f"The bill's balance is {amount}. {advice}", balance=amount)

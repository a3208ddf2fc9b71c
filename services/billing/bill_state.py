"""The state of a bill: its status, whether it accepts changes, and its version."""

from __future__ import annotations

from decimal import Decimal

from sqlalchemy import bindparam, exists, inspect, select
from sqlalchemy.orm.attributes import set_committed_value

from config import settings
from errors import ClinicError
from models import Billing, Claim, Refund
from services import clock
from services.billing.ledger import Sums
from services.rows import execute_core

STATUSES = ("unpaid", "partial", "paid", "void")


def status_of(bill: Billing, sums: Sums) -> str:
    """Return the status of a bill. A bill without a balance is `paid`, also if it was free or written off."""
    if bill.voided_at is not None:
        return "void"
    if sums.balance <= 0:
        return "paid"
    return "partial" if sums.paid > 0 else "unpaid"


def set_sums(bill: Billing, sums: Sums, account_balance: Decimal) -> None:
    """Set the fields of a bill that are computed from the ledger."""
    bill.subtotal = sums.subtotal
    bill.discount = sums.discount
    bill.tax = sums.tax
    bill.amount = sums.amount
    bill.written_off = sums.written_off
    bill.amount_paid = sums.paid
    bill.balance = sums.balance
    bill.owed_to_insurers = sums.owed_to_insurers
    bill.account_balance = account_balance
    bill.currency = settings().currency
    bill.status = status_of(bill, sums)
    bill.is_paid = bill.status == "paid"


def set_empty_parts(bill: Billing) -> None:
    """Set refunds and claims of a bill that has none, unless they are loaded.

    Its response needs both, and most bills have neither: one statement finds it out.
    """
    if not {"refunds", "claims"} <= inspect(bill).unloaded:
        return
    row = execute_core(_PARTS, billing_id=bill.id).one()
    for name in ("refunds", "claims"):
        if not getattr(row, name):
            set_committed_value(bill, name, [])


_PARTS = select(
    exists().where(Refund.billing_id == bindparam("billing_id")).label("refunds"),
    exists().where(Claim.billing_id == bindparam("billing_id")).label("claims"),
).execution_options(prepare=True)


def require_not_void(bill: Billing) -> None:
    """Raise 409 `read_only` for a void bill."""
    if bill.voided_at is not None:
        raise ClinicError("read_only", "The bill is void and cannot be changed.")


def touch(bill: Billing) -> None:
    """Raise the version of a bill, because the fields computed from related rows have changed.

    These fields are computed again for the response.
    """
    bill.updated_at = clock.now()
    bill.status = None

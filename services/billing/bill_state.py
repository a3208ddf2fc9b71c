"""The state of a bill: its status, whether it accepts changes, and its version."""

from __future__ import annotations

from errors import ClinicError
from models import Billing
from services import clock
from services.billing.ledger import Sums

STATUSES = ("unpaid", "partial", "paid", "void")


def status_of(bill: Billing, sums: Sums) -> str:
    """Return the status of a bill. A bill without a balance is `paid`, also if it was free or written off."""
    if bill.voided_at is not None:
        return "void"
    if sums.balance <= 0:
        return "paid"
    return "partial" if sums.paid > 0 else "unpaid"


def require_not_void(bill: Billing) -> None:
    """Raise 409 `read_only` for a void bill."""
    if bill.voided_at is not None:
        raise ClinicError("read_only", "The bill is void and cannot be changed.")


def touch(bill: Billing) -> None:
    """Raise the version of a bill, because the fields computed from related rows have changed."""
    bill.updated_at = clock.now()

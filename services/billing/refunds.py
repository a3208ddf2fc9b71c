"""Refunds: requests, decisions, and the ledger entries that pay them out.

The caller passes a bill from `services.billing.bills.get(..., lock=True)`, or a refund from
`bills.get_refund(..., lock=True)`. Both lock the patient's row first, then the bill's.
"""

from __future__ import annotations

from decimal import Decimal

from sqlalchemy import ColumnElement, func, select

from enums import LedgerKind, PaymentMethod, RefundStatus
from errors import ClinicError, invalid
from extensions import db
from models import Billing, LedgerEntry, Refund
from security.permissions import Actor, Permission
from services import clock
from services.audit import audit_log
from services.billing import ledger
from services.billing.bill_state import require_not_void, touch

S = RefundStatus
TRANSITIONS: dict[RefundStatus, tuple[RefundStatus, ...]] = {
    S.REQUESTED: (S.APPROVED, S.REJECTED),
    S.APPROVED: (),
    S.REJECTED: (),
}


def request(
    actor: Actor, bill: Billing, *, amount: Decimal, reason: str, payment_id: int | None = None
) -> Billing:
    """Request a refund of a bill, or of one payment on it.

    A caller with the permission to decide refunds pays it out immediately. Otherwise another user decides.
    Raises 409 `excessive_refund` above the paid amount less open requests, or above the rest of the payment.
    Raises 422 for a payment of another bill, and 409 `read_only` for a void bill.
    """
    require_not_void(bill)
    refundable = ledger.of_bill(bill.id).paid - open_amount(bill)
    if payment_id is not None:
        payment = _get_payment(bill, payment_id)
        refunded = _sum_of(Refund.payment_id == payment_id, S.REQUESTED, S.APPROVED)
        refundable = min(refundable, -payment.amount - refunded)
    _check_refundable(amount, refundable)
    refund = Refund(
        payment_id=payment_id,
        amount=amount,
        reason=reason,
        status=S.REQUESTED,
        requested_by_id=actor.user_id,
    )
    bill.refunds.append(refund)
    db.session.flush()
    if actor.may(Permission.BILLINGS_SETTLE):
        _pay_out(actor, bill, refund)
    touch(bill)
    audit_log.set_action(bill, "request_refund" if refund.status is S.REQUESTED else "refund")
    return bill


def decide(actor: Actor, refund: Refund, *, status: RefundStatus | None = None) -> Refund:
    """Approve a requested refund and pay it out, or reject it. Without a status nothing changes.

    The refund and its bill are locked. Raises 403 for the user who requested it, 409 `invalid_transition` if
    it is already decided, 409 `excessive_refund`, and 409 `read_only` for a void bill.
    """
    if status is None:
        return refund
    bill = refund.billing
    allowed = TRANSITIONS[refund.status]
    if status not in allowed:
        raise ClinicError(
            "invalid_transition", "This refund is already decided.", allowed=[str(step) for step in allowed]
        )
    require_not_void(bill)
    if actor.user_id == refund.requested_by_id:
        raise ClinicError("forbidden", "Another user must decide a refund that you requested.")
    if status is S.APPROVED:
        _check_refundable(refund.amount, ledger.of_bill(bill.id).paid)
        _pay_out(actor, bill, refund)
    else:
        _set_decision(actor, refund, S.REJECTED)
    touch(bill)
    audit_log.set_action(bill, "refund" if status is S.APPROVED else "reject_refund")
    return refund


def open_amount(bill: Billing) -> Decimal:
    """Return the sum of the open refund requests of a bill."""
    return _sum_of(Refund.billing_id == bill.id, S.REQUESTED)


def _sum_of(condition: ColumnElement[bool], *statuses: RefundStatus) -> Decimal:
    total: Decimal | None = db.session.execute(
        select(func.sum(Refund.amount)).where(condition, Refund.status.in_(statuses))
    ).scalar_one()
    return total or ledger.ZERO


def _check_refundable(amount: Decimal, refundable: Decimal) -> None:
    if amount > refundable:
        raise ClinicError(
            "excessive_refund",
            f"At most {refundable:.2f} can be refunded: the paid amount less refunds and open requests.",
            refundable=f"{refundable:.2f}",
        )


def _get_payment(bill: Billing, payment_id: int) -> LedgerEntry:
    entry = db.session.get(LedgerEntry, payment_id)
    if entry is None or entry.billing_id != bill.id or entry.kind not in ledger.PAYMENTS or entry.amount >= 0:
        raise invalid("payment_id", "this bill has no such payment")
    return entry


def _set_decision(actor: Actor, refund: Refund, status: RefundStatus) -> None:
    refund.status = status
    refund.decided_by_id = actor.user_id
    refund.decided_at = clock.now()


def _pay_out(actor: Actor, bill: Billing, refund: Refund) -> None:
    entry = ledger.post(
        actor,
        bill,
        LedgerKind.REFUND,
        refund.amount,
        method=_refund_method(bill, refund),
        reason=refund.reason,
    )
    db.session.flush()  # for the id of the entry
    refund.entry_id = entry.id
    _set_decision(actor, refund, S.APPROVED)


def _refund_method(bill: Billing, refund: Refund) -> PaymentMethod:
    """Return the method of the refunded payment, or of the last one. Credit is refunded by `other`."""
    statement = select(LedgerEntry.method).where(
        LedgerEntry.billing_id == bill.id, LedgerEntry.kind.in_(ledger.RECEIVED)
    )
    if refund.payment_id is not None:
        statement = statement.where(LedgerEntry.id == refund.payment_id)
    method = db.session.execute(statement.order_by(LedgerEntry.id.desc()).limit(1)).scalar()
    return method or PaymentMethod.OTHER

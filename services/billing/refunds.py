"""Refunds: requests, decisions, and the ledger entries that pay them out.

A refund of a bill pays back a payment on it. A refund without a bill pays back the credit of a patient.
The caller passes a row that was loaded with `lock=True`. This locks the patient's row first, then the bill's.
So the amounts that are checked do not change until the commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from sqlalchemy import ColumnElement, func, select

from enums import LedgerKind, PaymentMethod, RefundStatus
from errors import ClinicError, invalid, not_found
from extensions import db
from models import Billing, LedgerEntry, Patient, Refund
from security.permissions import Actor, Permission
from services import clock
from services.audit import audit_log
from services.billing import credit_notes, ledger
from services.billing.bill_state import require_not_void, touch
from services.patients import patients
from services.rows import get_or_404

S = RefundStatus
TRANSITIONS: dict[RefundStatus, tuple[RefundStatus, ...]] = {
    S.REQUESTED: (S.APPROVED, S.REJECTED),
    S.APPROVED: (),
    S.REJECTED: (),
}


# --- Requests ------------------------------------------------------------------------------------------


def request(
    actor: Actor,
    bill: Billing,
    *,
    amount: Decimal,
    reason: str,
    payment_id: int | None = None,
    method: PaymentMethod | None = None,
) -> Billing:
    """Request a refund of a bill, or of one payment on it.

    A caller with the permission to decide refunds pays it out immediately. Otherwise another user decides.
    The method defaults to the one of the payment, or to the only method of the bill. Errors:

    - 409 `excessive_refund` above the amount paid by the method, above the paid amount, or above the payment.
      Earlier refunds and open requests count.
    - 409 `read_only` for a void bill. Only money of an insurer on it can be refunded.
    - 422 for a payment of another bill, or if the method is not clear.
    """
    paid = _paid_by_method(bill)
    payment = None if payment_id is None else _get_payment(bill, payment_id)
    if payment is not None:
        if method not in (None, payment.method):
            raise invalid("method", f"the payment was made by {payment.method}")
        method = payment.method
    method = method or _only_method(paid)
    open_requests = _open_by_method(bill)
    refundable = min(
        paid.get(method, ledger.ZERO) - open_requests.get(method, ledger.ZERO),
        sum(paid.values(), ledger.ZERO) - sum(open_requests.values(), ledger.ZERO),
    )
    if payment is not None:
        refunded = _sum_of(Refund.payment_id == payment.id, S.REQUESTED, S.APPROVED)
        refundable = min(refundable, -payment.amount - refunded)
    _check_refundable(amount, refundable, f"paid by {method} less refunds and open requests")
    refund = Refund(
        patient_id=bill.patient_id, payment_id=payment_id, amount=amount, method=method, reason=reason
    )
    bill.refunds.append(refund)
    _submit(actor, refund)
    touch(bill)
    audit_log.set_action(bill, _request_action(refund))
    return bill


def request_from_account(
    actor: Actor, patient: Patient, *, amount: Decimal, method: PaymentMethod, reason: str
) -> Refund:
    """Request a refund of the credit of a patient. The rules of approval are those of bills.

    Raises 409 `excessive_refund` above the credit less open requests, and 422 for a method that pays no money
    to the patient.
    """
    if method in (PaymentMethod.CREDIT, PaymentMethod.INSURANCE):
        raise invalid("method", "choose a method that pays the money to the patient")
    refundable = ledger.credit_of(patient.id) - _sum_of(
        (Refund.patient_id == patient.id) & Refund.billing_id.is_(None), S.REQUESTED
    )
    _check_refundable(amount, refundable, "the credit less open requests")
    refund = Refund(patient_id=patient.id, amount=amount, method=method, reason=reason)
    db.session.add(refund)
    _submit(actor, refund)
    audit_log.set_action(patient, _request_action(refund))
    return refund


def _submit(actor: Actor, refund: Refund) -> None:
    """Insert a request, and pay it out if the actor may decide refunds."""
    refund.status, refund.requested_by_id = S.REQUESTED, actor.user_id or 0
    db.session.flush()
    if actor.may(Permission.BILLINGS_SETTLE):
        _pay_out(actor, refund)


def _request_action(refund: Refund) -> str:
    return "request_refund" if refund.status is S.REQUESTED else "refund"


# --- Queries -------------------------------------------------------------------------------------------


def get_from_account(actor: Actor, patient_id: int, refund_id: int, *, lock: bool = False) -> Refund:
    """Return a refund of credit, or raise 404. `lock` locks the patient, then the refund."""
    patients.get(actor, patient_id, lock=lock)
    refund = get_or_404(Refund, refund_id, lock=lock, what="refund")
    if refund.patient_id != patient_id or refund.billing_id is not None:
        raise not_found("refund")
    return refund


def of_account(patient_id: int) -> Sequence[Refund]:
    """Return the refunds of credit of a patient, newest first."""
    statement = select(Refund).where(Refund.patient_id == patient_id, Refund.billing_id.is_(None))
    return db.session.execute(statement.order_by(Refund.id.desc())).scalars().all()


def open_amount(bill: Billing) -> Decimal:
    """Return the sum of the open refund requests of a bill."""
    return _sum_of(Refund.billing_id == bill.id, S.REQUESTED)


# --- Decisions -----------------------------------------------------------------------------------------


def decide(actor: Actor, refund: Refund, *, status: RefundStatus | None = None) -> Refund:
    """Approve a requested refund and pay it out, or reject it. Without a status nothing changes.

    The refund and its bill or patient are locked. Raises 403 for the user who requested it, and 409
    `invalid_transition` if it is already decided. Raises 409 `excessive_refund`, and 409 `read_only` for a
    void bill.
    """
    if status is None:
        return refund
    allowed = TRANSITIONS[refund.status]
    if status not in allowed:
        raise ClinicError(
            "invalid_transition", "This refund is already decided.", allowed=[str(step) for step in allowed]
        )
    if actor.user_id == refund.requested_by_id:
        raise ClinicError("forbidden", "Another user must decide a refund that you requested.")
    if status is S.APPROVED:
        _check_approval(refund)
        _pay_out(actor, refund)
    else:
        _set_decision(actor, refund, S.REJECTED)
    if refund.billing is not None:
        touch(refund.billing)
    record = refund.billing or refund.patient
    audit_log.set_action(record, "refund" if status is S.APPROVED else "reject_refund")
    return refund


def _check_approval(refund: Refund) -> None:
    """Check the amount again: payments by credit or other refunds may have used it since the request."""
    if refund.billing is None:
        _check_refundable(refund.amount, ledger.credit_of(refund.patient_id), "the credit")
        return
    paid = _paid_by_method(refund.billing)
    method = refund.method = refund.method or _only_method(paid)
    refundable = min(paid.get(method, ledger.ZERO), sum(paid.values(), ledger.ZERO))
    _check_refundable(refund.amount, refundable, f"paid by {method} less refunds")


def _set_decision(actor: Actor, refund: Refund, status: RefundStatus) -> None:
    refund.status = status
    refund.decided_by_id = actor.user_id
    refund.decided_at = clock.now()


def _pay_out(actor: Actor, refund: Refund) -> None:
    """Post the entries of a refund, and issue its credit note.

    Money of an insurer on a void bill pays the debt to the insurer.
    """
    method, bill = refund.method or PaymentMethod.OTHER, refund.billing
    if bill is None:
        entry = ledger.pay_back_credit(actor, refund.patient_id, refund.amount, method, refund.reason)
    elif method is PaymentMethod.CREDIT:
        entry = ledger.move_credit(actor, bill, refund.amount, reason=refund.reason)
    else:
        entry = ledger.post(
            actor, bill, LedgerKind.REFUND, refund.amount, method=method, reason=refund.reason
        )
        if bill.voided_at is not None:
            ledger.post(
                actor, bill, LedgerKind.INSURER_DEBT, -refund.amount, method=method, reason=refund.reason
            )
    db.session.flush()  # for the id of the entry
    refund.entry_id = entry.id
    _set_decision(actor, refund, S.APPROVED)
    if bill is not None:
        credit_notes.issue_for_refund(actor, bill, refund)


# --- Amounts -------------------------------------------------------------------------------------------


def _paid_by_method(bill: Billing) -> dict[PaymentMethod, Decimal]:
    """Return the amounts that a bill has to refund, by method: on a void bill the debt to the insurers."""
    if bill.voided_at is None:
        return ledger.paid_by_method(bill.id)
    owed = ledger.of_bill(bill.id).owed_to_insurers
    if not owed:
        require_not_void(bill)
    return {PaymentMethod.INSURANCE: owed}


def _only_method(paid: dict[PaymentMethod, Decimal]) -> PaymentMethod:
    """Return the method of a bill. Raise 422 if several methods have money to refund."""
    methods = [method for method, amount in paid.items() if amount > 0]
    if len(methods) > 1:
        raise invalid("method", f"is required: the bill was paid by {', '.join(sorted(methods))}")
    return methods[0] if methods else PaymentMethod.OTHER


def _open_by_method(bill: Billing) -> dict[PaymentMethod | None, Decimal]:
    statement = select(Refund.method, func.sum(Refund.amount)).where(
        Refund.billing_id == bill.id, Refund.status == S.REQUESTED
    )
    return dict(db.session.execute(statement.group_by(Refund.method)).tuples().all())


def _sum_of(condition: ColumnElement[bool], *statuses: RefundStatus) -> Decimal:
    total: Decimal | None = db.session.execute(
        select(func.sum(Refund.amount)).where(condition, Refund.status.in_(statuses))
    ).scalar_one()
    return total or ledger.ZERO


def _check_refundable(amount: Decimal, refundable: Decimal, source: str) -> None:
    if amount > refundable:
        limit = ledger.to_text(max(refundable, ledger.ZERO))
        raise ClinicError("excessive_refund", f"At most {limit} can be refunded: {source}.", refundable=limit)


def _get_payment(bill: Billing, payment_id: int) -> LedgerEntry:
    entry = db.session.get(LedgerEntry, payment_id)
    if entry is None or entry.billing_id != bill.id or entry.kind not in ledger.PAYMENTS or entry.amount >= 0:
        raise invalid("payment_id", "this bill has no such payment")
    return entry

"""Settling bills: payments, refunds, write-offs, voids. Whoever calls holds patient and bill locked.

The bill is what `services.billing.bills.get(..., lock=True)` returned: the patient's row first, then the
bill's, so that however many pay, refund or spend credit at once, each sees what the one before has posted.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import ColumnElement, func, select

from enums import LedgerKind, PaymentMethod, RefundStatus
from errors import ClinicError, invalid
from extensions import db
from models import Billing, LedgerEntry, Refund, Treatment
from security.permissions import Actor, Permission
from services import clock
from services.audit import audit_log
from services.billing import ledger
from services.rows import get_or_404

SKEW = timedelta(minutes=1)  # a client's clock may be this much ahead
PAYMENTS = (*ledger.RECEIVED, LedgerKind.CREDIT)
OPEN = (RefundStatus.REQUESTED,)


def require_open(bill: Billing) -> None:
    """409 `read_only` for a bill that is void."""
    if bill.voided_at is not None:
        raise ClinicError("read_only", "The bill is void; nothing more can be done with it.")


def touch(bill: Billing) -> None:
    """Let the bill's version rise: its ledger rows have changed what it says."""
    bill.updated_at = clock.now()


# --- Payments ------------------------------------------------------------------------------------------


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
    """A payment on a bill; the method `credit` spends the patient's credit.

    Raises 409 `overpayment` above the balance, unless `allow_credit` puts the rest to the patient's
    credit; 409 `insufficient_credit`; 409 `read_only` for a void bill; 422 for a time in the future.
    """
    require_open(bill)
    now = clock.now()
    if received_at is not None and received_at > now + SKEW:
        raise invalid("received_at", "must not be in the future")
    received_at = min(received_at or now, now)
    balance = ledger.of_bill(bill.id).balance
    applied = min(amount, balance)
    spending = method is PaymentMethod.CREDIT
    if amount > balance and (spending or not allow_credit):
        raise ClinicError(
            "overpayment",
            f"The bill's balance is {balance:.2f}. "
            + ("Spend at most that." if spending else "Send allow_credit: true to keep the rest as credit."),
            balance=f"{balance:.2f}",
        )
    if spending:
        ledger.move_credit(
            actor, patient_id=bill.patient_id, billing_id=bill.id, amount=-applied, reference=reference
        )
    elif applied:
        ledger.post(
            actor,
            patient_id=bill.patient_id,
            billing_id=bill.id,
            kind=ledger.kind_of(method),
            amount=-applied,
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


# --- Refunds -------------------------------------------------------------------------------------------


def ask_refund(
    actor: Actor, bill: Billing, *, amount: Decimal, reason: str, payment_id: int | None = None
) -> Billing:
    """Ask for money back; paid out at once where the actor may decide, else once somebody else approves.

    Raises 409 `excessive_refund` above what was paid net of refunds and open requests, or above what is
    left of the payment named; 422 for a payment that is not this bill's; 409 `read_only`.
    """
    require_open(bill)
    payment = None if payment_id is None else _payment(bill, payment_id)
    left = ledger.of_bill(bill.id).paid - _promised(Refund.billing_id == bill.id, *OPEN)
    if payment is not None:
        given = _promised(Refund.payment_id == payment.id, *OPEN, RefundStatus.APPROVED)
        left = min(left, -payment.amount - given)
    _require_within(amount, left)
    refund = Refund(
        payment_id=payment_id,
        amount=amount,
        reason=reason,
        status=RefundStatus.REQUESTED,
        requested_by_id=actor.user_id,
    )
    bill.refunds.append(refund)
    db.session.flush()
    if actor.may(Permission.BILLINGS_SETTLE):
        _pay_out(actor, bill, refund)
    touch(bill)
    audit_log.set_action(bill, "request_refund" if refund.status is RefundStatus.REQUESTED else "refund")
    return bill


def decide_refund(actor: Actor, refund: Refund, *, status: RefundStatus | None = None) -> Refund:
    """Approve (and pay out) or reject a request; `refund` and its bill are locked. None decides nothing.

    Raises 403 for the one who asked, 409 `invalid_transition` where it is decided already, 409
    `excessive_refund`, 409 `read_only` for a void bill.
    """
    if status is None:
        return refund
    bill = refund.billing
    if refund.status is not RefundStatus.REQUESTED:
        raise ClinicError("invalid_transition", "This refund is already decided.", allowed=[])
    require_open(bill)
    if actor.user_id == refund.requested_by_id:
        raise ClinicError("forbidden", "Somebody else has to decide a refund that you asked for.")
    if status is RefundStatus.APPROVED:
        _require_within(refund.amount, ledger.of_bill(bill.id).paid)
        _pay_out(actor, bill, refund)
    else:
        _decide(actor, refund, RefundStatus.REJECTED)
    touch(bill)
    audit_log.set_action(bill, "refund" if status is RefundStatus.APPROVED else "reject_refund")
    return refund


def _require_within(amount: Decimal, left: Decimal) -> None:
    if amount > left:
        raise ClinicError(
            "excessive_refund",
            f"At most {left:.2f} can be refunded: what was paid, less refunds and open requests.",
            refundable=f"{left:.2f}",
        )


def _payment(bill: Billing, payment_id: int) -> LedgerEntry:
    entry = db.session.get(LedgerEntry, payment_id)
    if entry is None or entry.billing_id != bill.id or entry.kind not in PAYMENTS or entry.amount >= 0:
        raise invalid("payment_id", "there is no such payment on this bill")
    return entry


def _promised(where: ColumnElement[bool], *statuses: RefundStatus) -> Decimal:
    total: Decimal | None = db.session.execute(
        select(func.sum(Refund.amount)).where(where, Refund.status.in_(statuses))
    ).scalar_one()
    return total or ledger.ZERO


def _decide(actor: Actor, refund: Refund, status: RefundStatus) -> None:
    refund.status = status
    refund.decided_by_id = actor.user_id
    refund.decided_at = clock.now()


def _pay_out(actor: Actor, bill: Billing, refund: Refund) -> None:
    """The row that gives the money back, by the way in which it came."""
    entry = ledger.post(
        actor,
        patient_id=bill.patient_id,
        billing_id=bill.id,
        kind=LedgerKind.REFUND,
        amount=refund.amount,
        method=_way_back(bill, refund),
        reason=refund.reason,
    )
    refund.entry_id = entry.id
    _decide(actor, refund, RefundStatus.APPROVED)


def _way_back(bill: Billing, refund: Refund) -> PaymentMethod:
    """The method of the payment it names, else of the last; credit that is refunded leaves as `other`."""
    statement = select(LedgerEntry.method).where(
        LedgerEntry.billing_id == bill.id, LedgerEntry.kind.in_(ledger.RECEIVED)
    )
    if refund.payment_id is not None:
        statement = statement.where(LedgerEntry.id == refund.payment_id)
    method = db.session.execute(statement.order_by(LedgerEntry.id.desc()).limit(1)).scalar()
    return method or PaymentMethod.OTHER


# --- Giving up, undoing --------------------------------------------------------------------------------


def write_off(actor: Actor, bill: Billing, *, amount: Decimal, reason: str) -> Billing:
    """Give up part of what is owed. Raises 409 `overpayment` above the balance, 409 `read_only`."""
    require_open(bill)
    balance = ledger.of_bill(bill.id).balance
    if amount > balance:
        raise ClinicError(
            "overpayment",
            f"At most the balance of {balance:.2f} can be written off.",
            balance=f"{balance:.2f}",
        )
    ledger.post(
        actor,
        patient_id=bill.patient_id,
        billing_id=bill.id,
        kind=LedgerKind.WRITE_OFF,
        amount=-amount,
        reason=reason,
    )
    touch(bill)
    audit_log.set_action(bill, "write_off")
    return bill


def void(actor: Actor, bill: Billing, *, reason: str) -> Billing:
    """Undo a bill: what it posted is reversed, what was paid becomes the patient's credit, and its
    treatments can be billed again.

    Raises 409 `read_only` where it is void already, 409 `in_use` while a refund request is open.
    """
    require_open(bill)
    if _promised(Refund.billing_id == bill.id, *OPEN):
        raise ClinicError("in_use", "A refund of this bill is asked for; approve or reject it first.")
    posted = (LedgerKind.CHARGE, LedgerKind.TAX, LedgerKind.DISCOUNT, LedgerKind.WRITE_OFF)
    for entry in ledger.standing(bill.id, *posted):
        ledger.reverse(actor, entry, reason)
    paid = ledger.of_bill(bill.id).paid
    if paid:
        ledger.move_credit(actor, patient_id=bill.patient_id, billing_id=bill.id, amount=paid)
    billed = select(Treatment.id).where(Treatment.billing_id == bill.id).order_by(Treatment.id)
    for treatment_id in db.session.execute(billed).scalars():
        get_or_404(Treatment, treatment_id, lock=True).billing_id = None
    bill.voided_at = clock.now()
    bill.void_reason = reason
    audit_log.set_action(bill, "void")
    return bill

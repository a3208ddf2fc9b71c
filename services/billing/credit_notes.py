"""Credit notes: the documents that take back an issued invoice, or a part of it.

A void and each paid refund of a bill issue one, in their transaction. The credit notes of a bill never exceed
its amount: a bill that was paid, refunded, and paid again has been credited once. Those of a void bill equal
its amount. The caller has locked the bill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import func, inspect, select

from errors import ClinicError, not_found
from extensions import db
from models import Billing, CreditNote, Refund
from security.permissions import Actor
from services import clock
from services.billing import ledger
from services.billing.ledger import Sums
from services.clinic import versions
from services.document_numbers import CREDIT_NOTE, next_number


def issue_for_refund(actor: Actor, bill: Billing, refund: Refund) -> None:
    """Issue the credit note of a refund that is paid out, up to the rest of the bill."""
    if bill.voided_at is None:  # a void bill is credited completely
        _issue(actor, bill, ledger.of_bill(bill.id), limit=refund.amount, reason=refund.reason, refund=refund)


def issue_for_void(actor: Actor, bill: Billing, sums: Sums, reason: str) -> None:
    """Issue the credit note of a void, for the rest of the bill. `sums` are those before the void."""
    _issue(actor, bill, sums, limit=sums.amount, reason=reason)


def credited(billing_id: int) -> tuple[Decimal, Decimal]:
    """Return the sums of the credit notes of a bill: amount, and tax in it."""
    amount, tax = db.session.execute(
        select(func.sum(CreditNote.amount), func.sum(CreditNote.tax)).where(
            CreditNote.billing_id == billing_id
        )
    ).one()
    return amount or ledger.ZERO, tax or ledger.ZERO


def of_bills(bills: Sequence[Billing]) -> dict[int, list[CreditNote]]:
    """Return the credit notes of bills by the id of the bill. Most bills have none and cost no query."""
    ids = [bill.id for bill in bills if _may_have_notes(bill)]
    notes: dict[int, list[CreditNote]] = {}
    if ids:
        statement = select(CreditNote).where(CreditNote.billing_id.in_(ids)).order_by(CreditNote.id)
        for note in db.session.execute(statement).scalars():
            notes.setdefault(note.billing_id, []).append(note)
    return notes


def choose(bill: Billing, note_id: int | None) -> CreditNote:
    """Return a credit note of a bill with its computed fields, without an id the only one.

    Raise 404 for one of another bill, 409 `conflict` if there is none, and 422 if there are several.
    """
    notes = {note.id: note for note in bill.credit_notes or ()}
    if note_id is not None:
        if note_id not in notes:
            raise not_found("credit note")
        return notes[note_id]
    if not notes:
        raise ClinicError("conflict", "This bill has no credit note. Print its invoice instead.")
    if len(notes) > 1:
        names = ", ".join(f"{note.id} ({note.number})" for note in notes.values())
        raise ClinicError(
            "validation_failed",
            f"credit_note_id: choose one of {names}.",
            errors={"credit_note_id": f"choose one of {names}"},
        )
    return next(iter(notes.values()))


@dataclass(frozen=True)
class InvoiceAmounts:
    """The amounts that an invoice prints."""

    subtotal: Decimal
    discount: Decimal
    tax: Decimal
    total: Decimal


def invoice_amounts(bill: Billing) -> InvoiceAmounts:
    """Return the amounts of the invoice of a bill with its computed fields, void or not.

    A void reverses the ledger of a bill. Its credit notes keep amount and tax.
    """
    if bill.voided_at is None:
        amounts = (bill.subtotal, bill.discount, bill.tax, bill.amount)
        return InvoiceAmounts(*(amount or ledger.ZERO for amount in amounts))
    subtotal = sum((item.quantity * item.unit_price for item in bill.items), ledger.ZERO)
    notes = bill.credit_notes or ()
    tax = sum((note.tax for note in notes), ledger.ZERO)
    total = sum((note.amount for note in notes), ledger.ZERO)
    return InvoiceAmounts(subtotal, subtotal + tax - total, tax, total)


def _may_have_notes(bill: Billing) -> bool:
    """Return False for a bill without void and refunds, if its refunds are loaded."""
    return bill.voided_at is not None or "refunds" in inspect(bill).unloaded or bool(bill.refunds)


def tax_until(credited_amount: Decimal, sums: Sums) -> Decimal:
    """Return the tax in the credited part of a bill. The last credit note gets the remainder."""
    return ledger.half_up(sums.tax * credited_amount / sums.amount)


def _issue(
    actor: Actor, bill: Billing, sums: Sums, *, limit: Decimal, reason: str, refund: Refund | None = None
) -> None:
    before, tax_before = credited(bill.id)
    amount = min(limit, sums.amount - before)
    if amount <= 0:
        return
    now = clock.now()
    note = CreditNote(
        number=next_number(CREDIT_NOTE, clock.local(now).year),
        billing_id=bill.id,
        patient_id=bill.patient_id,
        refund_id=refund.id if refund else None,
        amount=amount,
        tax=tax_until(before + amount, sums) - tax_before,
        reason=reason,
        created_by_id=actor.user_id,
        created_at=now,
        clinic_version_id=versions.current_version_id(),
    )
    db.session.add(note)
    db.session.flush()

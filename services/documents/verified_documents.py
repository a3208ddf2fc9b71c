"""The data of the public page about a document: kind, number, date, amounts and state, and no person.

All of it is read from the rows of today: a bill may have become void after it was printed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Literal

from sqlalchemy import exists, select

from enums import RefundStatus
from errors import ClinicError, not_found
from extensions import db
from models import Billing, ClinicRecordVersion, CreditNote, LedgerEntry, Letter, Refund
from security import link_tokens
from security.link_tokens import Purpose
from services import clock
from services.billing import credit_notes, ledger
from services.billing.ledger import ZERO
from services.documents.receipt import postings_of_bill, postings_of_payment

State = Literal["genuine", "void", "void_receipt", "refunded"]


@dataclass(frozen=True)
class VerifiedDocument:
    """A document that the clinic issued. `kind`, `state` and the names of amounts are names of texts."""

    kind: str
    number: str
    day: date
    clinic: ClinicRecordVersion
    state: State = "genuine"
    amounts: Sequence[tuple[str, Decimal]] = ()


def find(token: str) -> VerifiedDocument:
    """Return the document of a token. Raise 404 for every other text."""
    row_id = link_tokens.row_id_of(token)
    for purpose, load in DOCUMENTS.items():
        if row_id is not None and link_tokens.is_genuine(token, purpose, row_id):
            document = load(row_id)
            if document is not None:
                return document
    raise unknown_document()


def unknown_document() -> ClinicError:
    """Return the 404 of every address without a document."""
    return not_found("document")


def _invoice(billing_id: int) -> VerifiedDocument | None:
    bill = db.session.get(Billing, billing_id)
    if bill is None:
        return None
    credited, _tax = credit_notes.credited(bill.id)
    is_void = bill.voided_at is not None
    # the ledger of a void bill is reversed; its credit notes have the amount
    amount = credited if is_void else ledger.of_bill(bill.id).amount
    amounts = [("amount", amount), *([("credited", -credited)] if credited and not is_void else [])]
    return VerifiedDocument(
        "invoice", bill.invoice_number, bill.date, _clinic_of(bill), "void" if is_void else "genuine", amounts
    )


def _receipt(billing_id: int) -> VerifiedDocument | None:
    bill = db.session.get(Billing, billing_id)
    postings = postings_of_bill(bill) if bill is not None else []
    if bill is None or not postings:
        return None
    return _of_postings(bill, bill.invoice_number, bill.date, postings)


def _payment(entry_id: int) -> VerifiedDocument | None:
    payment = db.session.get(LedgerEntry, entry_id)
    bill = payment.billing if payment is not None else None
    if payment is None or bill is None or payment.kind not in ledger.PAYMENTS or payment.amount >= ZERO:
        return None
    number, day = f"{bill.invoice_number}/{payment.id}", clock.local(payment.occurred_at).date()
    return _of_postings(bill, number, day, postings_of_payment(bill, payment))


def _of_postings(bill: Billing, number: str, day: date, postings: Sequence[LedgerEntry]) -> VerifiedDocument:
    """Return a receipt. A refund that names no payment may be one of this receipt."""
    received = -sum((posting.amount for posting in postings if posting.amount < ZERO), ZERO)
    returned = sum((posting.amount for posting in postings if posting.amount > ZERO), ZERO)
    state: State = "genuine"
    if bill.voided_at is not None:
        state = "void_receipt"
    elif returned or _has_general_refund(bill):
        state = "refunded"
    amounts = [("received", received)]
    if returned:
        amounts += [("returned", -returned), ("remaining", received - returned)]
    return VerifiedDocument("receipt", number, day, _clinic_of(bill), state, amounts)


def _has_general_refund(bill: Billing) -> bool:
    is_general = (
        exists()
        .where(Refund.billing_id == bill.id, Refund.payment_id.is_(None))
        .where(Refund.status == RefundStatus.APPROVED)
    )
    return bool(db.session.scalar(select(is_general)))


def _credit_note(note_id: int) -> VerifiedDocument | None:
    note = db.session.get(CreditNote, note_id)
    if note is None:
        return None
    day = clock.local(note.created_at).date()
    clinic = db.session.get_one(ClinicRecordVersion, note.clinic_version_id)
    return VerifiedDocument("credit_note", note.number, day, clinic, amounts=[("amount", note.amount)])


def _letter(letter_id: int) -> VerifiedDocument | None:
    """Return a letter without its type: that would say something about the health of a person."""
    letter = db.session.get(Letter, letter_id)
    if letter is None:
        return None
    state: State = "void" if letter.voided_at is not None else "genuine"
    return VerifiedDocument("letter", letter.number, letter.issued_on, _clinic_of(letter), state)


def _clinic_of(row: Billing | Letter) -> ClinicRecordVersion:
    return db.session.get_one(ClinicRecordVersion, row.clinic_version_id)


DOCUMENTS: Mapping[Purpose, Callable[[int], VerifiedDocument | None]] = {
    Purpose.VERIFY_INVOICE: _invoice,
    Purpose.VERIFY_RECEIPT: _receipt,
    Purpose.VERIFY_PAYMENT: _payment,
    Purpose.VERIFY_CREDIT_NOTE: _credit_note,
    Purpose.VERIFY_LETTER: _letter,
}

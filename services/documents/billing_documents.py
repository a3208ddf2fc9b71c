"""The documents of a bill. Each one is audited as a read of the bill."""

from __future__ import annotations

from models import Billing, CreditNote
from security.permissions import Actor
from services.audit import audit_log
from services.billing import bills, credit_notes
from services.documents.credit_note import credit_note
from services.documents.invoice import invoice
from services.documents.pages import DocumentOptions, Stationery, stationery
from services.documents.receipt import receipt_of_bill, receipt_of_payment


def invoice_document(actor: Actor, bill: Billing, options: DocumentOptions) -> bytes:
    """Return the invoice of a bill as PDF."""
    return _read(bill, invoice(bill, _prepared(actor, bill, options)))


def receipt_document(actor: Actor, bill: Billing, options: DocumentOptions) -> bytes:
    """Return the receipt of all payments of a bill as PDF."""
    return _read(bill, receipt_of_bill(bill, _prepared(actor, bill, options)))


def credit_note_document(
    actor: Actor, bill: Billing, note_id: int | None, options: DocumentOptions
) -> tuple[CreditNote, bytes]:
    """Return a credit note of a bill, without an id the only one, and its document as PDF."""
    bills.add_computed_fields(actor, [bill])
    note = credit_notes.choose(bill, note_id)
    paper = stationery(actor, options, bill.patient, issued=note.clinic_version_id)
    return note, _read(bill, credit_note(bill, note, paper))


def payment_document(actor: Actor, bill: Billing, payment_id: int, options: DocumentOptions) -> bytes:
    """Return the receipt of one payment of a bill as PDF."""
    return _read(bill, receipt_of_payment(bill, payment_id, _prepared(actor, bill, options)))


def _prepared(actor: Actor, bill: Billing, options: DocumentOptions) -> Stationery:
    bills.add_computed_fields(actor, [bill])
    return stationery(actor, options, bill.patient, issued=bill.clinic_version_id)


def _read(bill: Billing, document: bytes) -> bytes:
    audit_log.record_read("read", "billing", [bill.id], [bill.patient_id])
    return document

"""The documents of a bill. Each one is audited as a read of the bill."""

from __future__ import annotations

from typing import Literal

from models import Billing
from security.permissions import Actor
from services.audit import audit_log
from services.billing import bills
from services.documents.invoice import invoice
from services.documents.pages import DocumentOptions, Stationery, stationery
from services.documents.receipt import receipt_of_bill, receipt_of_payment

DocumentType = Literal["invoice", "receipt"]


def bill_document(
    actor: Actor, bill: Billing, document_type: DocumentType, options: DocumentOptions
) -> bytes:
    """Return the invoice of a bill, or the receipt of all its payments, as PDF."""
    paper = _prepared(actor, bill, options)
    document = invoice(bill, paper) if document_type == "invoice" else receipt_of_bill(bill, paper)
    return _read(bill, document)


def payment_document(actor: Actor, bill: Billing, payment_id: int, options: DocumentOptions) -> bytes:
    """Return the receipt of one payment of a bill as PDF."""
    return _read(bill, receipt_of_payment(bill, payment_id, _prepared(actor, bill, options)))


def _prepared(actor: Actor, bill: Billing, options: DocumentOptions) -> Stationery:
    bills.add_computed_fields(actor, [bill])
    return stationery(actor, options, bill.patient, issued=bill.clinic_version_id)


def _read(bill: Billing, document: bytes) -> bytes:
    audit_log.record_read("read", "billing", [bill.id], [bill.patient_id])
    return document

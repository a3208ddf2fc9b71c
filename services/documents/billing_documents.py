"""The documents of a bill."""

from __future__ import annotations

from models import Billing
from security.permissions import Actor
from services.audit import audit_log
from services.billing import bills
from services.clinic.record import clinic_record
from services.documents.invoice import invoice
from services.documents.language import document_language, requested_language
from services.documents.pages import Paper


def bill_document(actor: Actor, bill: Billing, *, locale: str | None, paper: Paper | None) -> bytes:
    """Return the invoice of a bill as PDF. It is audited as a read of the bill."""
    bills.add_computed_fields(actor, [bill])
    clinic = clinic_record()
    language = document_language(
        requested_language(locale), bill.patient.language, clinic_locale=clinic.locale
    )
    document = invoice(bill, clinic, language, paper)
    audit_log.record_read("read", "billing", [bill.id], [bill.patient_id])
    return document

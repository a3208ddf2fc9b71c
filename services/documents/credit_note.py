"""The credit note of a refund, or of the void of a bill."""

from __future__ import annotations

from enums import PaymentMethod
from models import Billing, CreditNote
from security.link_tokens import Purpose
from services.billing.credit_notes import invoice_amounts
from services.billing.ledger import ZERO
from services.documents.blocks import Block, paragraph, sums
from services.documents.invoice import item_table
from services.documents.language import DocumentLanguage
from services.documents.pages import Stationery, patient_lines
from services.documents.qr_code import verification_code


def credit_note(bill: Billing, note: CreditNote, paper: Stationery) -> bytes:
    """Return a credit note of a bill with its computed fields as PDF."""
    language = paper.language
    refund = next((each for each in bill.refunds if each.id == note.refund_id), None)
    method = refund.method or PaymentMethod.OTHER if refund else None
    return paper.typeset(
        f"{language.text('credit_note')} {note.number}",
        [
            *paragraph(None, language.text("credit_note_refund" if refund else "credit_note_void")),
            *_lines(bill, note, language),
            *_sums(bill, note, language),
        ],
        facts_of=(
            (language.text("date"), language.local_day(note.created_at)),
            (language.text("invoice"), bill.invoice_number),
            (language.text("invoice_date"), language.day(bill.date)),
            (language.text("doctor"), bill.doctor.name if bill.doctor else None),
            (language.text("method"), language.text(f"method_{method.value}") if method else None),
        ),
        addressee=[*patient_lines(bill.patient, language), *(bill.patient.address or "").splitlines()],
    )


def _lines(bill: Billing, note: CreditNote, language: DocumentLanguage) -> list[Block]:
    """Return the reason, and for a void the items of the bill."""
    reason = paragraph(language.text("reason"), note.reason)
    return [*reason, *item_table(bill, language)] if note.refund_id is None else reason


def _sums(bill: Billing, note: CreditNote, language: DocumentLanguage) -> list[Block]:
    """Return the credited amount, and the tax in it."""
    invoice, is_of_void = invoice_amounts(bill), note.refund_id is None
    is_rest = is_of_void and note.amount != invoice.total
    rows = [
        (language.text("discount"), -invoice.discount, is_of_void),
        (language.text("invoice_total"), invoice.total, is_rest),
        (language.text("credited_before"), note.amount - invoice.total, is_rest),
        (language.text("net_amount"), note.amount - note.tax, note.tax > ZERO),
        (language.text("tax", rate=language.percent(bill.tax_rate)), note.tax, note.tax > ZERO),
    ]
    return sums(
        (
            *(
                (name, language.amount(amount), False)
                for name, amount, is_shown in rows
                if is_shown and amount
            ),
            (language.text("credited_amount"), language.money(note.amount), True),
        ),
        code=verification_code(Purpose.VERIFY_CREDIT_NOTE, note.id, language),
    )

"""The invoice of a bill."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from models import Billing, ClinicRecord
from services.billing.ledger import ZERO
from services.documents.language import DocumentLanguage
from services.documents.pages import Paper, facts, page_data, sums, table
from services.documents.typesetting import typeset


def invoice(bill: Billing, clinic: ClinicRecord, language: DocumentLanguage, paper: Paper | None) -> bytes:
    """Return the invoice of a bill with its computed fields as PDF. A void bill prints VOID."""
    is_void = bill.voided_at is not None
    patient = bill.patient
    page = page_data(
        language,
        clinic,
        title=f"{language.text('invoice')} {bill.invoice_number}",
        paper=paper,
        watermark=language.text("void") if is_void else None,
        banner=language.text("void_banner") if is_void else None,
    )
    return typeset(
        "invoice",
        page
        | {
            "facts": facts(
                (
                    (language.text("date"), language.day(bill.date)),
                    (language.text("due_date"), language.day(bill.due_date) if bill.due_date else None),
                    (language.text("doctor"), bill.doctor.name if bill.doctor else None),
                    (language.text("insurer_reference"), bill.insurer_reference),
                )
            ),
            "addressee": [
                patient.name,
                f"{language.text('file_number')} {patient.file_number}",
                *(patient.address or "").splitlines(),
            ],
            "items": _items(bill, language),
            "sums": _sums(bill, language),
            "payments": _payments(bill, language),
            "notes": facts(
                (
                    (language.text("notes"), bill.notes),
                    (language.text("payment_details"), clinic.bank_details if _is_open(bill) else None),
                    ("", clinic.invoice_footer),
                )
            ),
            "qr": None,
        },
    )


def _is_open(bill: Billing) -> bool:
    return (bill.balance or ZERO) > ZERO


def _items(bill: Billing, language: DocumentLanguage) -> Any:
    header = [language.text(name) for name in ("description", "quantity", "unit_price", "amount")]
    rows = [
        (
            item.description,
            language.number(item.quantity),
            language.amount(item.unit_price),
            language.amount(item.quantity * item.unit_price),
        )
        for item in bill.items
    ]
    return table(header, rows)


def _sums(bill: Billing, language: DocumentLanguage) -> list[dict[str, Any]]:
    """Return the sums from subtotal to balance. One of zero is left out, except total and balance."""
    parts: list[tuple[str, Decimal | None, int]] = [
        (language.text("subtotal"), bill.subtotal, 1),
        (language.text("discount"), bill.discount, -1),
        (language.text("tax", rate=language.percent(bill.tax_rate)), bill.tax, 1),
    ]
    settled: list[tuple[str, Decimal | None, int]] = [
        (language.text("paid"), bill.amount_paid, -1),
        (language.text("written_off"), bill.written_off, -1),
    ]
    amount, balance = bill.amount or ZERO, bill.balance or ZERO
    return sums(
        (
            *((name, language.amount(sign * part), False) for name, part, sign in parts if part),
            (language.text("total"), language.money(amount), True),
            *((name, language.amount(sign * part), False) for name, part, sign in settled if part),
            (language.text("balance_due"), language.money(balance), True),
        )
    )


def _payments(bill: Billing, language: DocumentLanguage) -> Any:
    rows = [
        (
            language.local_day(payment.occurred_at),
            language.text(f"method_{payment.method.value if payment.method else 'other'}"),
            language.amount(-payment.amount),
        )
        for payment in bill.payments or ()
    ]
    return table([language.text(name) for name in ("date", "method", "amount")], rows) if rows else None

"""The invoice of a bill, and the list of its payments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal

from sqlalchemy import select

from enums import LedgerKind
from extensions import db
from models import Billing, LedgerEntry
from security.link_tokens import Purpose
from services.billing import ledger
from services.billing.credit_notes import invoice_amounts
from services.billing.ledger import ZERO
from services.billing.opening_balances import DESCRIPTION
from services.documents.blocks import Block, paragraph, sums, table
from services.documents.language import DocumentLanguage
from services.documents.pages import Stationery, patient_lines
from services.documents.qr_code import verification_code


def invoice(bill: Billing, paper: Stationery) -> bytes:
    """Return the invoice of a bill with its computed fields as PDF. A void bill prints VOID."""
    language, is_void = paper.language, bill.voided_at is not None
    is_open = (bill.balance or ZERO) > ZERO
    return paper.typeset(
        f"{language.text('invoice')} {bill.invoice_number}",
        [
            *item_table(bill, language),
            *_sums(bill, language),
            *payment_table(settlements(bill), language, heading=language.text("payments")),
            *paragraph(language.text("notes"), bill.notes),
            *paragraph(language.text("payment_details"), paper.shown("bank_details") if is_open else None),
            *paragraph(None, paper.clinic.invoice_footer),
        ],
        facts_of=(
            (language.text("date"), language.day(bill.date)),
            (language.text("due_date"), language.day(bill.due_date) if bill.due_date else None),
            (language.text("doctor"), bill.doctor.name if bill.doctor else None),
            (language.text("insurer_reference"), bill.insurer_reference),
        ),
        addressee=[
            *patient_lines(bill.patient, language),
            *(bill.patient.address or "").splitlines(),
        ],
        mark="void" if is_void else None,
        banner=language.text("void_banner") if is_void else None,
    )


def item_table(bill: Billing, language: DocumentLanguage) -> list[Block]:
    """Return a table of the items of a bill."""
    header = [language.text(name) for name in ("description", "quantity", "unit_price", "amount")]
    rows = [
        (
            item_description(item.description, language),
            language.number(item.quantity),
            language.amount(item.unit_price),
            language.amount(item.quantity * item.unit_price),
        )
        for item in bill.items
    ]
    return table(header, rows)


def item_description(description: str, language: DocumentLanguage) -> str:
    """Return the description of an item, in the language of the document if the program has written it."""
    return language.text("kind_opening_balance") if description == DESCRIPTION else description


def _sums(bill: Billing, language: DocumentLanguage) -> list[Block]:
    """Return the sums from subtotal to balance. One of zero is left out, except total and balance."""
    amounts = invoice_amounts(bill)
    parts: list[tuple[str, Decimal, int]] = [
        (language.text("subtotal"), amounts.subtotal, 1),
        (language.text("discount"), amounts.discount, -1),
        (language.text("tax", rate=language.percent(bill.tax_rate)), amounts.tax, 1),
    ]
    settled: list[tuple[str, Decimal | None, int]] = [
        (language.text("paid"), bill.amount_paid, -1),
        (language.text("written_off"), bill.written_off, -1),
    ]
    return sums(
        (
            *((name, language.amount(sign * part), False) for name, part, sign in parts if part),
            (language.text("total"), language.money(amounts.total), True),
            *((name, language.amount(sign * part), False) for name, part, sign in settled if part),
            (language.text("balance_due"), language.money(bill.balance or ZERO), True),
        ),
        code=verification_code(Purpose.VERIFY_INVOICE, bill.id, language),
    )


def settlements(bill: Billing) -> Sequence[LedgerEntry]:
    """Return the entries whose sum is the paid amount of a bill: payments, and money that went back."""
    statement = select(LedgerEntry).where(
        LedgerEntry.billing_id == bill.id, LedgerEntry.kind.in_(ledger.PAID)
    )
    return db.session.execute(statement.order_by(LedgerEntry.occurred_at, LedgerEntry.id)).scalars().all()


def payment_table(
    postings: Sequence[LedgerEntry], language: DocumentLanguage, *, heading: str | None = None
) -> list[Block]:
    """Return a table of payments. Money that went back to the payer is negative."""
    columns: dict[str, Callable[[LedgerEntry], str]] = {
        "date": lambda posting: language.local_day(posting.occurred_at),
        "method": lambda posting: method_of(posting, language),
        "reference": lambda posting: posting.reference or "",
        "amount": lambda posting: language.amount(-posting.amount),
    }
    if not any(posting.reference for posting in postings):
        del columns["reference"]
    rows = [[value(posting) for value in columns.values()] for posting in postings]
    return table([language.text(name) for name in columns], rows, heading=heading, wide=1)


def method_of(posting: LedgerEntry, language: DocumentLanguage) -> str:
    """Return the method of a payment, after its kind if it is no payment of a bill by the payer."""
    method = language.text(f"method_{posting.method.value if posting.method else 'other'}")
    if posting.overpaid_billing_id is not None:
        return f"{language.text('kept_as_credit')} · {method}"
    if posting.amount < ZERO:
        return method
    kind = LedgerKind.REFUND if posting.kind is LedgerKind.CREDIT else posting.kind
    return f"{language.text(f'kind_{kind.value}')} · {method}"

"""The account statement of a patient on paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal

from enums import LedgerKind
from models import Billing, LedgerEntry
from security.permissions import Actor
from services import clock
from services.billing import account_statement
from services.billing.account_statement import Period
from services.billing.ledger import ZERO
from services.documents.blocks import Block, paragraph, sums, table
from services.documents.invoice import method_of
from services.documents.language import DocumentLanguage
from services.documents.pages import DocumentOptions, patient_lines, stationery


def account_document(
    actor: Actor,
    patient_id: int,
    options: DocumentOptions,
    *,
    start_date: date | None = None,
    end_date: date | None = None,
) -> bytes:
    """Return the account statement of a patient as PDF. Raise 404, and 422 for a range without days."""
    period = account_statement.of_period(actor, patient_id, start_date=start_date, end_date=end_date)
    paper = stationery(actor, options, period.patient)
    language = paper.language
    return paper.typeset(
        language.text("statement"),
        [
            *_postings(period, language),
            *_sums(period, language),
            *_open_bills(period.open_bills, language),
            *paragraph(None, language.text("statement_note")),
            *paragraph(None, language.text("own_bills_note") if period.credit is None else None),
        ],
        facts_of=(
            (language.text("date"), language.day(clock.today())),
            (language.text("first_day"), language.day(start_date) if start_date else None),
            (language.text("last_day"), language.day(end_date) if end_date else None),
        ),
        addressee=[*patient_lines(period.patient, language), *(period.patient.address or "").splitlines()],
    )


def _postings(period: Period, language: DocumentLanguage) -> list[Block]:
    """Return the postings, each with the balance after it."""
    balance = period.opening_balance
    rows: list[tuple[str, ...]] = [
        ("", language.text("opening_balance"), "", "", language.amount(balance)),
    ]
    for posting in period.postings:
        balance += posting.amount
        rows.append(
            (
                language.short_day(clock.local(posting.occurred_at).date()),
                _description(posting, period.items, language),
                posting.billing.invoice_number if posting.billing else "",
                language.amount(posting.amount),
                language.amount(balance),
            )
        )
    names = ("date", "description", "invoice", "amount", "balance")
    return table([language.text(name) for name in names], rows, wide=1)


def _description(posting: LedgerEntry, items: Mapping[int, str], language: DocumentLanguage) -> str:
    if posting.kind is LedgerKind.CHARGE and posting.item_id is not None:
        return items[posting.item_id]
    if posting.kind in (LedgerKind.PAYMENT, LedgerKind.INSURANCE_PAYMENT, LedgerKind.REFUND):
        name = method_of(posting, language)
        if posting.amount < ZERO:
            name = f"{language.text('kind_payment')} · {name}"
    else:
        name = language.text(f"kind_{posting.kind.value}")
    return f"{name} · {posting.reference}" if posting.reference else name


def _sums(period: Period, language: DocumentLanguage) -> list[Block]:
    credit: list[tuple[str, Decimal]] = []
    if period.credit:
        credit = [(language.text("credit_today"), period.credit)]
    return sums(
        (
            (language.text("closing_balance"), language.money(period.closing_balance), True),
            *((name, language.money(amount), False) for name, amount in credit),
        )
    )


def _open_bills(bills: Sequence[Billing], language: DocumentLanguage) -> list[Block]:
    names = ("invoice", "date", "due_date", "total", "balance_due")
    rows = [
        (
            bill.invoice_number,
            language.short_day(bill.date),
            language.short_day(bill.due_date) if bill.due_date else "",
            language.amount(bill.amount or ZERO),
            language.amount(bill.balance or ZERO),
        )
        for bill in bills
    ]
    return table([language.text(name) for name in names], rows, heading=language.text("open_bills"))

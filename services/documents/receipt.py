"""Receipts: of one payment of a bill, and of all of them.

A receipt says what the clinic has received. Only a refund reduces that amount. A void gives no money back: it
becomes credit of the patient, or a debt to an insurer.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Select, select

from enums import LedgerKind
from errors import ClinicError, not_found
from extensions import db
from models import Billing, LedgerEntry, Refund
from security.link_tokens import Purpose
from services.billing.credit_notes import invoice_amounts
from services.billing.ledger import ZERO
from services.documents.blocks import Block, sums
from services.documents.invoice import payment_table, settlements
from services.documents.pages import Stationery, patient_lines
from services.documents.qr_code import verification_code


def receipt_of_bill(bill: Billing, paper: Stationery) -> bytes:
    """Return the receipt of all payments of a bill as PDF. Raise 409 `conflict` without a payment."""
    postings = postings_of_bill(bill)
    if not postings:
        raise ClinicError("conflict", "This bill has no payment yet. Print its invoice instead.")
    code = verification_code(Purpose.VERIFY_RECEIPT, bill.id, paper.language)
    return _receipt(bill, postings, paper, number=bill.invoice_number, code=code, moved=_moved_by_void(bill))


def receipt_of_payment(bill: Billing, payment_id: int, paper: Stationery) -> bytes:
    """Return the receipt of one payment with its refunds as PDF. Raise 404 for a payment of another bill."""
    payment = next((each for each in bill.payments or () if each.id == payment_id), None)
    if payment is None:
        raise not_found("payment")
    postings = postings_of_payment(bill, payment)
    code = verification_code(Purpose.VERIFY_PAYMENT, payment_id, paper.language)
    return _receipt(bill, postings, paper, number=f"{bill.invoice_number}/{payment_id}", code=code)


def postings_of_bill(bill: Billing) -> list[LedgerEntry]:
    """Return all payments of a bill, and its refunds."""
    excess = db.session.execute(_excess_of(bill)).scalars()
    moved = {posting.id for posting in _moved_by_void(bill)}
    settled = [posting for posting in settlements(bill) if posting.id not in moved]
    return sorted([*settled, *excess], key=lambda posting: posting.id)


def _moved_by_void(bill: Billing) -> list[LedgerEntry]:
    """Return the entries of a void that move the paid amount: to the patient's credit, or to insurers."""
    refunds = {refund.entry_id for refund in bill.refunds}
    return [
        posting
        for posting in settlements(bill)
        if posting.kind is LedgerKind.INSURER_DEBT
        or (posting.kind is LedgerKind.CREDIT and posting.amount > ZERO and posting.id not in refunds)
    ]


def postings_of_payment(bill: Billing, payment: LedgerEntry) -> list[LedgerEntry]:
    """Return a payment of a bill, its part that became credit, and its refunds."""
    refunds = (
        select(LedgerEntry)
        .join(Refund, Refund.entry_id == LedgerEntry.id)
        .where(Refund.payment_id == payment.id)
        .order_by(LedgerEntry.id)
    )
    # one flush wrote both parts of the payment, so they have the same time stamp
    excess = _excess_of(bill).where(LedgerEntry.created_at == payment.created_at)
    return [payment, *db.session.execute(excess).scalars(), *db.session.execute(refunds).scalars()]


def _excess_of(bill: Billing) -> Select[tuple[LedgerEntry]]:
    """Select the parts of payments above the balance of a bill, which became credit of the patient."""
    statement = select(LedgerEntry).where(LedgerEntry.patient_id == bill.patient_id)
    return statement.where(LedgerEntry.overpaid_billing_id == bill.id).order_by(LedgerEntry.id)


def _receipt(
    bill: Billing,
    postings: Sequence[LedgerEntry],
    paper: Stationery,
    *,
    number: str,
    code: list[Block],
    moved: Sequence[LedgerEntry] = (),
) -> bytes:
    language, is_void = paper.language, bill.voided_at is not None
    received_by = {posting.created_by.name: None for posting in postings if posting.created_by}
    return paper.typeset(
        f"{language.text('receipt')} {number}",
        [*payment_table(postings, language), *_sums(bill, postings, moved, paper, code)],
        facts_of=(
            (language.text("invoice"), bill.invoice_number),
            (language.text("invoice_date"), language.day(bill.date)),
            (language.text("doctor"), bill.doctor.name if bill.doctor else None),
            (language.text("recorded_by"), ", ".join(received_by)),
        ),
        addressee=patient_lines(bill.patient, language),
        mark="void" if is_void else None,
        banner=language.text("void_receipt_banner") if is_void else None,
    )


def _sums(
    bill: Billing,
    postings: Sequence[LedgerEntry],
    moved: Sequence[LedgerEntry],
    paper: Stationery,
    code: list[Block],
) -> list[Block]:
    """Return the received amount, what a void has made of it, and the state of the bill."""
    language = paper.language
    credit = sum((posting.amount for posting in moved if posting.kind is LedgerKind.CREDIT), ZERO)
    owed = sum((posting.amount for posting in moved), ZERO) - credit
    received = -sum((posting.amount for posting in postings), ZERO)
    return sums(
        (
            (language.text("amount_received"), language.money(received), True),
            *(
                (language.text(name), language.money(amount), False)
                for name, amount in (("kept_as_credit", credit), ("kind_insurer_debt", owed))
                if amount
            ),
            (language.text("invoice_total"), language.money(invoice_amounts(bill).total), False),
            (language.text("balance_due"), language.money(bill.balance or ZERO), False),
        ),
        code=code,
    )

"""The ledger: signed entries that are only appended. Every bill, balance and revenue figure is a sum of them.

A positive entry raises the balance of the patient. The entries of a bill are its charges (+, one per item),
tax (+), discount (-), payments (-), insurance payments (-), refunds (+), write-offs (-), and reversals. Each
reversal undoes one entry. An entry without a bill belongs to the patient's account: money paid in advance,
or more than a bill's balance. `credit` entries come in pairs whose sum is zero. They move money between a
bill and the account: -X on the bill spends credit, +X returns it after a void or a refund. No money enters or
leaves the clinic with a credit entry.

`insurer_debt` entries are the account of the insurers. A void leaves the money of an insurer on the bill, and
the debt +X offsets it. Paying it back is a refund of +X and a debt of -X. So the sum of a void bill is zero,
and the money never becomes credit of the patient.

`opening_balance` entries bring balances from before the first entry. A debt (+) is the only item of a bill,
so that it can be paid. A credit (-) is on the account. Neither is revenue.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from sqlalchemy import ColumnElement, Label, Select, and_, case, func, literal_column, or_, select
from sqlalchemy.orm import aliased

from column_types import MONEY_LIMIT
from config import settings
from enums import LedgerKind, PaymentMethod
from errors import invalid
from extensions import db
from models import Billing, BillingStanding, Claim, LedgerEntry
from security.permissions import Actor
from services import clock
from services.rows import mapping

ZERO = Decimal("0.00")
RECEIVED = (LedgerKind.PAYMENT, LedgerKind.INSURANCE_PAYMENT)  # money from outside the clinic
PAYMENTS = (*RECEIVED, LedgerKind.CREDIT)
ITEMS = (LedgerKind.CHARGE, LedgerKind.OPENING_BALANCE)  # their sum is the subtotal of a bill
# Their sum is the paid amount of a bill. A void bill has none: a debt to the insurer offsets its payment.
PAID = (*PAYMENTS, LedgerKind.REFUND, LedgerKind.INSURER_DEBT)

ReversedEntry = aliased(LedgerEntry)
# The kind that an entry counts as: a reversal counts as the kind of the entry that it undoes. A subquery
# finds that kind for reversals only; a join would read the ledger twice.
SUBJECT: Label[LedgerKind] = case(
    (
        LedgerEntry.kind == LedgerKind.REVERSAL,
        select(ReversedEntry.kind)
        .where(ReversedEntry.id == LedgerEntry.reverses_id)
        .correlate(LedgerEntry)
        .scalar_subquery(),
    ),
    else_=LedgerEntry.kind,
).label("subject")
BY_SUBJECT: Any = literal_column("subject")
TOTAL: ColumnElement[Decimal] = func.sum(LedgerEntry.amount)


@dataclass(frozen=True)
class Sums:
    """Sums of ledger entries by the kind that they count as, signed as in the ledger."""

    by_kind: Mapping[LedgerKind, Decimal]

    def of(self, *kinds: LedgerKind) -> Decimal:
        """Return the signed sum of these kinds."""
        return sum((self.by_kind.get(kind, ZERO) for kind in kinds), ZERO)

    def plus(self, kind: LedgerKind, amount: Decimal) -> Sums:
        """Return the sums after another entry."""
        return Sums({**self.by_kind, kind: self.of(kind) + amount})

    @property
    def subtotal(self) -> Decimal:
        """The items: charges, or the balance that a patient brings."""
        return self.of(*ITEMS)

    @property
    def discount(self) -> Decimal:
        """The discount, as a positive amount."""
        return -self.of(LedgerKind.DISCOUNT)

    @property
    def tax(self) -> Decimal:
        """The tax on the discounted subtotal."""
        return self.of(LedgerKind.TAX)

    @property
    def amount(self) -> Decimal:
        """Subtotal - discount + tax."""
        return self.subtotal - self.discount + self.tax

    @property
    def billed(self) -> Decimal:
        """Charges and taxes less their reversals, before discount. A balance brought forward is none."""
        return self.of(LedgerKind.CHARGE, LedgerKind.TAX)

    @property
    def collected(self) -> Decimal:
        """Money received from patients and insurers, positive. Credit that was moved does not count again."""
        return -self.of(*RECEIVED)

    @property
    def refunded(self) -> Decimal:
        """Money paid back, positive."""
        return self.of(LedgerKind.REFUND)

    @property
    def net(self) -> Decimal:
        """Collected - refunded."""
        return self.collected - self.refunded

    @property
    def written_off(self) -> Decimal:
        """The write-offs, as a positive amount."""
        return -self.of(LedgerKind.WRITE_OFF)

    @property
    def paid(self) -> Decimal:
        """The paid amount of a bill: payments, insurance payments and spent credit less refunds; positive."""
        return -self.of(*PAID)

    @property
    def owed_to_insurers(self) -> Decimal:
        """The money of insurers on a void bill that was not paid back."""
        return self.of(LedgerKind.INSURER_DEBT)

    @property
    def balance(self) -> Decimal:
        """The sum of all entries: the amount still due."""
        return self.of(*self.by_kind)


EMPTY = Sums({})


def half_up(amount: Decimal) -> Decimal:
    """Round to the places of the currency, halves away from zero. Money is rounded in this function only."""
    return amount.quantize(settings().smallest_amount, rounding=ROUND_HALF_UP)


def to_text(amount: Decimal) -> str:
    """Return an amount with the places of the currency, for an error."""
    return f"{amount:.{settings().currency_places}f}"


# --- Postings ------------------------------------------------------------------------------------------


def post(
    actor: Actor,
    bill: Billing,
    kind: LedgerKind,
    amount: Decimal,
    *,
    method: PaymentMethod | None = None,
    reference: str | None = None,
    reason: str | None = None,
    occurred_at: datetime | None = None,
    claim_id: int | None = None,
    item_id: int | None = None,
) -> LedgerEntry:
    """Add an entry to a bill. The next flush inserts it.

    `amount` is signed: a positive amount raises the balance. `occurred_at` defaults to now.
    Raises 422 for an amount outside the range of the ledger.
    """
    return _append(
        LedgerEntry(
            patient_id=bill.patient_id,
            billing_id=bill.id,
            doctor_id=bill.doctor_id,
            kind=kind,
            amount=amount,
            method=method,
            reference=reference,
            reason=reason,
            occurred_at=occurred_at or clock.now(),
            claim_id=claim_id,
            item_id=item_id,
            created_by_id=actor.user_id,
        )
    )


def _append(entry: LedgerEntry) -> LedgerEntry:
    if abs(entry.amount) > MONEY_LIMIT:
        raise invalid("amount", f"must be at most {MONEY_LIMIT}")
    db.session.add(entry)
    return entry


def parts(amount: Decimal) -> Iterator[Decimal]:
    """Yield amounts within the range of one entry whose sum is `amount`. A sum of entries may be larger."""
    while amount:
        part = max(-MONEY_LIMIT, min(amount, MONEY_LIMIT))
        yield part
        amount -= part


def reverse(actor: Actor, entry: LedgerEntry, reason: str) -> LedgerEntry:
    """Undo an entry by a posting of the opposite amount."""
    return _append(
        LedgerEntry(
            patient_id=entry.patient_id,
            billing_id=entry.billing_id,
            doctor_id=entry.doctor_id,
            kind=LedgerKind.REVERSAL,
            amount=-entry.amount,
            reason=reason,
            occurred_at=clock.now(),
            reverses_id=entry.id,
            visit_id=entry.visit_id,
            created_by_id=actor.user_id,
        )
    )


def unreversed_entries(billing_id: int, *kinds: LedgerKind) -> list[LedgerEntry]:
    """Return the entries of these kinds on a bill that have no reversal."""
    reversal = aliased(LedgerEntry)
    return list(
        db.session.execute(
            select(LedgerEntry)
            .outerjoin(reversal, reversal.reverses_id == LedgerEntry.id)
            .where(LedgerEntry.billing_id == billing_id, LedgerEntry.kind.in_(kinds), reversal.id.is_(None))
            .order_by(LedgerEntry.id)
        ).scalars()
    )


def pay_account(
    actor: Actor,
    patient_id: int,
    amount: Decimal,
    method: PaymentMethod,
    reference: str | None = None,
    *,
    occurred_at: datetime | None = None,
    claim_id: int | None = None,
    overpaid_billing_id: int | None = None,
    visit_id: int | None = None,
) -> LedgerEntry:
    """Post money received on the patient's account, which becomes the patient's credit.

    `overpaid_billing_id` is the bill whose balance the payment exceeded. `visit_id` is the visit at which it
    was paid. Raises 422 for the method `credit`: credit is spent on a
    bill, it is not received.
    """
    if method is PaymentMethod.CREDIT:
        raise invalid("payment_method", "credit can only be spent on a bill; choose another method")
    return _append(
        LedgerEntry(
            patient_id=patient_id,
            kind=payment_kind(method),
            amount=-amount,
            method=method,
            reference=reference,
            occurred_at=occurred_at or clock.now(),
            claim_id=claim_id,
            overpaid_billing_id=overpaid_billing_id,
            visit_id=visit_id,
            created_by_id=actor.user_id,
        )
    )


def open_account(
    actor: Actor, patient_id: int, amount: Decimal, *, reference: str | None, occurred_at: datetime
) -> LedgerEntry:
    """Post credit from before the first entry of the ledger, a negative amount, on the patient's account."""
    return _append(
        LedgerEntry(
            patient_id=patient_id,
            kind=LedgerKind.OPENING_BALANCE,
            amount=amount,
            reference=reference,
            occurred_at=occurred_at,
            created_by_id=actor.user_id,
        )
    )


def pay_back_credit(
    actor: Actor, patient_id: int, amount: Decimal, method: PaymentMethod, reason: str
) -> LedgerEntry:
    """Post a refund of credit to the patient. The caller has locked the patient and checked the credit."""
    return _append(
        LedgerEntry(
            patient_id=patient_id,
            kind=LedgerKind.REFUND,
            amount=amount,
            method=method,
            reason=reason,
            occurred_at=clock.now(),
            created_by_id=actor.user_id,
        )
    )


def payment_kind(method: PaymentMethod) -> LedgerKind:
    """Return the kind of an entry for money received by this method."""
    return LedgerKind.INSURANCE_PAYMENT if method is PaymentMethod.INSURANCE else LedgerKind.PAYMENT


def move_credit(
    actor: Actor,
    bill: Billing,
    amount: Decimal,
    *,
    reference: str | None = None,
    reason: str | None = None,
    occurred_at: datetime | None = None,
) -> LedgerEntry:
    """Post the pair of credit entries that moves money between a bill and the patient's account.

    `amount` is the entry of the bill: a negative amount spends credit, a positive one returns it. The caller
    has locked the patient's row and has checked that the credit suffices. Return the entry of the bill.
    """
    entry = post(
        actor,
        bill,
        LedgerKind.CREDIT,
        amount,
        method=PaymentMethod.CREDIT,
        reference=reference,
        reason=reason,
        occurred_at=occurred_at,
    )
    _append(
        LedgerEntry(
            patient_id=bill.patient_id,
            kind=LedgerKind.CREDIT,
            amount=-amount,
            method=PaymentMethod.CREDIT,
            reference=reference,
            reason=reason,
            occurred_at=entry.occurred_at,
            created_by_id=actor.user_id,
        )
    )
    return entry


# --- Sums ----------------------------------------------------------------------------------------------


def unsettled(until: datetime | None = None) -> Select[tuple[int]]:
    """Select the ids of the bills with a balance, or that had one before `until`.

    The sum of every other bill is zero.
    """
    has_balance: ColumnElement[bool] = BillingStanding.settled_at.is_(None)
    if until is not None:
        has_balance = or_(has_balance, BillingStanding.settled_at >= until)
    return select(BillingStanding.billing_id).where(has_balance)


def counts_as(*kinds: LedgerKind) -> ColumnElement[bool]:
    """Return the condition that an entry counts as one of the kinds."""
    condition: ColumnElement[bool] = SUBJECT.element.in_(kinds)
    return condition


def sums_by(key: Any, *conditions: ColumnElement[bool]) -> Select[Any]:
    """Select the signed sums by `key` and subject, for `gather`."""
    return select(key, SUBJECT, TOTAL).select_from(LedgerEntry).where(*conditions).group_by(key, BY_SUBJECT)


def gather(statement: Select[Any]) -> dict[Any, Sums]:
    """Execute a `sums_by` statement and return the sums of each key."""
    sums: dict[Any, dict[LedgerKind, Decimal]] = {}
    for key, kind, total in db.session.execute(statement):
        sums.setdefault(key, {})[kind] = total
    return {key: Sums(by_kind) for key, by_kind in sums.items()}


def of_bill(billing_id: int) -> Sums:
    """Return the sums of one bill."""
    return gather(sums_by(LedgerEntry.billing_id, LedgerEntry.billing_id == billing_id)).get(
        billing_id, EMPTY
    )


def of_bills(bills: Sequence[Billing]) -> tuple[dict[int, Sums], dict[int, Decimal]]:
    """Return the sums by bill, and the account balances by patient, in one query.

    The entries of all other bills of the patients, and those on the accounts, are summed without their bill.
    """
    billing_id = case((LedgerEntry.billing_id.in_([bill.id for bill in bills]), LedgerEntry.billing_id))
    statement = (
        select(LedgerEntry.patient_id, billing_id.label("bill"), SUBJECT, TOTAL)
        .where(LedgerEntry.patient_id.in_({bill.patient_id for bill in bills}))
        .group_by(LedgerEntry.patient_id, literal_column("bill"), BY_SUBJECT)
    )
    sums: dict[int, dict[LedgerKind, Decimal]] = {bill.id: {} for bill in bills}
    balances = {bill.patient_id: ZERO for bill in bills}
    for patient_id, bill_id, kind, total in db.session.execute(statement):
        balances[patient_id] += total
        if bill_id is not None:
            sums[bill_id][kind] = total
    return {bill_id: Sums(by_kind) for bill_id, by_kind in sums.items()}, balances


def credit_of(patient_id: int) -> Decimal:
    """Return the credit on the patient's account that can be spent on bills, as a positive amount."""
    return of_account(patient_id).credit


@dataclass(frozen=True)
class AccountSums:
    """The sums of a patient: `balance` less than zero is credit that exceeds the balances of the bills."""

    balance: Decimal
    credit: Decimal
    owed_to_insurers: Decimal


def of_account(patient_id: int) -> AccountSums:
    """Return the sums of a patient over all bills and the account."""
    on_account = case((LedgerEntry.billing_id.is_(None), LedgerEntry.amount))
    debt = case((LedgerEntry.kind == LedgerKind.INSURER_DEBT, LedgerEntry.amount))
    row = db.session.execute(
        select(TOTAL, func.sum(on_account), func.sum(debt)).where(LedgerEntry.patient_id == patient_id)
    ).one()
    balance, account, owed = (total or ZERO for total in row)
    return AccountSums(balance, -account, owed)


def paid_by_method(billing_id: int) -> dict[PaymentMethod, Decimal]:
    """Return the paid amount of a bill by method: payments less refunds."""
    statement = (
        select(LedgerEntry.method, TOTAL)
        .where(LedgerEntry.billing_id == billing_id, LedgerEntry.kind.in_(PAID))
        .group_by(LedgerEntry.method)
    )
    return {method or PaymentMethod.OTHER: -total for method, total in mapping(statement).items()}


# Payments of insurers above the balance of a bill: they became credit of the patient. Entries from before
# `overpaid_billing_id` have the claim only.
IS_EXCESS_OF_INSURER: ColumnElement[bool] = and_(
    LedgerEntry.billing_id.is_(None),
    LedgerEntry.kind == LedgerKind.INSURANCE_PAYMENT,
    or_(LedgerEntry.overpaid_billing_id.is_not(None), LedgerEntry.claim_id.is_not(None)),
)
OVERPAID_BILLING_ID: Any = func.coalesce(
    LedgerEntry.overpaid_billing_id,
    select(Claim.billing_id).where(Claim.id == LedgerEntry.claim_id).correlate(LedgerEntry).scalar_subquery(),
)


def credit_from_insurers(bill: Billing) -> Decimal:
    """Return the amount that insurers paid above the balance of a bill, as a positive number."""
    total = db.session.execute(
        select(TOTAL).where(
            LedgerEntry.patient_id == bill.patient_id,
            IS_EXCESS_OF_INSURER,
            bill.id == OVERPAID_BILLING_ID,
        )
    ).scalar_one()
    return -(total or ZERO)

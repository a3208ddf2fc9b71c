"""The ledger: signed rows, only added to. Every balance, bill and revenue figure is a sum made here.

A positive row raises what the patient owes. On a bill lie its charges (+, one an item), tax (+), discount
(-), payments (-), insurer's payments (-), refunds (+), write-offs (-) and the reversals that undo one row
each. A row without bill lies on the patient's account: money paid beyond a bill, or before one. `credit` rows
come in pairs that sum to nothing and move money between a bill and the account: -X on the bill spends credit,
+X on it (of a bill made void) gives it back. No money is received or given out by a credit row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, literal_column, or_, select
from sqlalchemy.orm import aliased

from column_types import CENT, MONEY_LIMIT
from enums import LedgerKind, PaymentMethod
from errors import ClinicError, invalid
from extensions import db
from models import Billing, BillingStanding, LedgerEntry
from security.permissions import Actor
from services import clock
from services.rows import mapping

ZERO = Decimal("0.00")
# What came in from outside the clinic, and what a bill counts as paid.
RECEIVED = (LedgerKind.PAYMENT, LedgerKind.INSURANCE_PAYMENT)
PAID = (*RECEIVED, LedgerKind.CREDIT, LedgerKind.REFUND)

Reversed = aliased(LedgerEntry)
# What a row is about: a reversal counts as the kind of the row it undoes. That is looked up for reversals
# alone, since a join would read the ledger twice.
SUBJECT: ColumnElement[LedgerKind] = case(
    (
        LedgerEntry.kind == LedgerKind.REVERSAL,
        select(Reversed.kind)
        .where(Reversed.id == LedgerEntry.reverses_id)
        .correlate(LedgerEntry)
        .scalar_subquery(),
    ),
    else_=LedgerEntry.kind,
).label("subject")
BY_SUBJECT: Any = literal_column("subject")
TOTAL: ColumnElement[Decimal] = func.sum(LedgerEntry.amount)


@dataclass(frozen=True)
class Sums:
    """Rows summed by what they are about, signed as they lie in the ledger."""

    by_kind: Mapping[LedgerKind, Decimal]

    def of(self, *kinds: LedgerKind) -> Decimal:
        """The signed sum of these kinds."""
        return sum((self.by_kind.get(kind, ZERO) for kind in kinds), ZERO)

    @property
    def subtotal(self) -> Decimal:
        """The charges."""
        return self.of(LedgerKind.CHARGE)

    @property
    def discount(self) -> Decimal:
        """What was taken off, positive."""
        return -self.of(LedgerKind.DISCOUNT)

    @property
    def tax(self) -> Decimal:
        """The tax on what the discount left."""
        return self.of(LedgerKind.TAX)

    @property
    def amount(self) -> Decimal:
        """Subtotal - discount + tax."""
        return self.subtotal - self.discount + self.tax

    @property
    def billed(self) -> Decimal:
        """Charges and taxes less their reversals, before discount."""
        return self.of(LedgerKind.CHARGE, LedgerKind.TAX)

    @property
    def collected(self) -> Decimal:
        """Money received from patients and insurers, positive; moved credit is not received again."""
        return -self.of(*RECEIVED)

    @property
    def refunded(self) -> Decimal:
        """Money given back, positive."""
        return self.of(LedgerKind.REFUND)

    @property
    def net(self) -> Decimal:
        """Collected - refunded."""
        return self.collected - self.refunded

    @property
    def written_off(self) -> Decimal:
        """What the clinic gave up, positive."""
        return -self.of(LedgerKind.WRITE_OFF)

    @property
    def paid(self) -> Decimal:
        """Of a bill: payments, insurer's payments and credit spent on it, less refunds; positive."""
        return -self.of(*PAID)

    @property
    def balance(self) -> Decimal:
        """The sum of all rows: what is still owed."""
        return self.of(*self.by_kind)


EMPTY = Sums({})


def half_up(amount: Decimal) -> Decimal:
    """Round to cents, halves away from zero: the only place where money is rounded."""
    return amount.quantize(CENT, rounding=ROUND_HALF_UP)


def post(
    actor: Actor,
    *,
    patient_id: int,
    kind: LedgerKind,
    amount: Decimal,
    billing_id: int | None = None,
    method: PaymentMethod | None = None,
    reference: str | None = None,
    reason: str | None = None,
    occurred_at: datetime | None = None,
    reverses_id: int | None = None,
    claim_id: int | None = None,
    item_id: int | None = None,
    visit_id: int | None = None,
) -> LedgerEntry:
    """Add one row. `amount` is signed: positive raises what the patient owes. `occurred_at` defaults to now.

    Raises 422 where the amount is beyond what the ledger can hold.
    """
    if abs(amount) > MONEY_LIMIT:
        raise invalid("amount", f"must be at most {MONEY_LIMIT}")
    doctor_id = None
    if billing_id is not None:
        doctor_id = select(Billing.doctor_id).where(Billing.id == billing_id).scalar_subquery()
    entry = LedgerEntry(
        patient_id=patient_id,
        billing_id=billing_id,
        doctor_id=doctor_id,
        kind=kind,
        amount=amount,
        method=method,
        reference=reference,
        reason=reason,
        occurred_at=occurred_at or clock.now(),
        reverses_id=reverses_id,
        claim_id=claim_id,
        item_id=item_id,
        visit_id=visit_id,
        created_by_id=actor.user_id,
    )
    db.session.add(entry)
    db.session.flush()
    return entry


def reverse(actor: Actor, entry: LedgerEntry, reason: str) -> LedgerEntry:
    """Undo a row by its opposite."""
    return post(
        actor,
        patient_id=entry.patient_id,
        billing_id=entry.billing_id,
        kind=LedgerKind.REVERSAL,
        amount=-entry.amount,
        reason=reason,
        reverses_id=entry.id,
        visit_id=entry.visit_id,
    )


def standing(billing_id: int, *kinds: LedgerKind) -> list[LedgerEntry]:
    """The rows of these kinds on a bill that were not reversed."""
    undone = aliased(LedgerEntry)
    return list(
        db.session.execute(
            select(LedgerEntry)
            .outerjoin(undone, undone.reverses_id == LedgerEntry.id)
            .where(LedgerEntry.billing_id == billing_id, LedgerEntry.kind.in_(kinds), undone.id.is_(None))
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
    visit_id: int | None = None,
) -> LedgerEntry:
    """Money received on the account itself, which becomes the patient's credit; `visit_id`: with which visit.

    Raises 422 for the method `credit`: credit is not received, it is spent on a bill.
    """
    if method is PaymentMethod.CREDIT:
        raise invalid("payment_method", "credit is spent on a bill; it cannot be paid in")
    return post(
        actor,
        patient_id=patient_id,
        kind=kind_of(method),
        amount=-amount,
        method=method,
        reference=reference,
        occurred_at=occurred_at,
        claim_id=claim_id,
        visit_id=visit_id,
    )


def kind_of(method: PaymentMethod) -> LedgerKind:
    """What money received by a method is in the ledger."""
    return LedgerKind.INSURANCE_PAYMENT if method is PaymentMethod.INSURANCE else LedgerKind.PAYMENT


def move_credit(
    actor: Actor, *, patient_id: int, billing_id: int, amount: Decimal, reference: str | None = None
) -> LedgerEntry:
    """The pair of rows that moves money between account and bill; answers the bill's.

    `amount` is the bill's side: negative spends credit on it, positive takes what was paid off it. Whoever
    spends holds the patient's row locked. Raises 409 `insufficient_credit`.
    """
    if amount < 0 and credit_of(patient_id) < -amount:
        raise ClinicError("insufficient_credit", "The patient's credit does not suffice for this payment.")
    pair = [
        post(
            actor,
            patient_id=patient_id,
            billing_id=bill,
            kind=LedgerKind.CREDIT,
            amount=side,
            method=PaymentMethod.CREDIT,
            reference=reference,
        )
        for bill, side in ((billing_id, amount), (None, -amount))
    ]
    return pair[0]


def unsettled(until: datetime | None = None) -> Select[tuple[int]]:
    """The ids of bills whose rows do not sum to nothing, or did not before `until`; all others do."""
    owed: ColumnElement[bool] = BillingStanding.settled_at.is_(None)
    if until is not None:
        owed = or_(owed, BillingStanding.settled_at >= until)
    return select(BillingStanding.billing_id).where(owed)


# --- Sums ----------------------------------------------------------------------------------------------


def sums_by(key: Any, *wheres: ColumnElement[bool]) -> Select[Any]:
    """Rows of `key`, subject and signed sum, for `gather`."""
    return select(key, SUBJECT, TOTAL).select_from(LedgerEntry).where(*wheres).group_by(key, BY_SUBJECT)


def gather(statement: Select[Any]) -> dict[Any, Sums]:
    """Run a `sums_by` statement: key -> sums."""
    found: dict[Any, dict[LedgerKind, Decimal]] = {}
    for key, kind, total in db.session.execute(statement):
        found.setdefault(key, {})[kind] = total
    return {key: Sums(by_kind) for key, by_kind in found.items()}


def of_bills(billing_ids: Collection[int]) -> dict[int, Sums]:
    """What the bills' rows sum to; one query for any number."""
    return gather(sums_by(LedgerEntry.billing_id, LedgerEntry.billing_id.in_(billing_ids)))


def of_bill(billing_id: int) -> Sums:
    """What one bill's rows sum to."""
    return of_bills([billing_id]).get(billing_id, EMPTY)


def balances(patient_ids: Collection[int]) -> dict[int, Decimal]:
    """What each patient owes over all bills and the account; negative is credit. None without rows: 0.00."""
    found = mapping(
        select(LedgerEntry.patient_id, TOTAL)
        .where(LedgerEntry.patient_id.in_(patient_ids))
        .group_by(LedgerEntry.patient_id)
    )
    return {patient_id: found.get(patient_id, ZERO) for patient_id in patient_ids}


def credit_of(patient_id: int) -> Decimal:
    """The credit on the account that can be spent on bills; positive."""
    total = db.session.execute(
        select(TOTAL).where(LedgerEntry.patient_id == patient_id, LedgerEntry.billing_id.is_(None))
    ).scalar_one()
    return -(total or ZERO)

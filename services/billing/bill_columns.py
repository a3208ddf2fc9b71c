"""Columns of the bill list that are computed: sums of the ledger, status and currency."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, String, and_, bindparam, case, cast, func, literal, select, type_coerce

from column_types import MoneyType
from config import settings
from enums import LedgerKind
from models import Billing, LedgerEntry
from services.billing import ledger
from services.billing.bill_state import STATUSES
from services.listing.related_rows import doctor_column, patient_column
from services.listing.spec import MAX_SUMS, Kind, ListColumn


def _sum(*conditions: ColumnElement[bool], negated: bool = False) -> ColumnElement[Any]:
    amount = func.sum(LedgerEntry.amount)
    total = select(func.coalesce(-amount if negated else amount, 0)).where(*conditions)
    return type_coerce(total.correlate(Billing).scalar_subquery(), MoneyType())


def _sum_of(*kinds: LedgerKind, negated: bool = False) -> ColumnElement[Any]:
    """Return the sum of the entries of a bill that count as one of the kinds."""
    return _sum(LedgerEntry.billing_id == Billing.id, ledger.counts_as(*kinds), negated=negated)


# The index of the standings finds the bills with a balance. The ledger is read for these bills only.
_IS_UNSETTLED = Billing.id.in_(ledger.unsettled())
_SUM_OF_ALL = _sum(LedgerEntry.billing_id == Billing.id)
BALANCE = type_coerce(case((_IS_UNSETTLED, _SUM_OF_ALL), else_=literal(0, MoneyType())), MoneyType())
AMOUNT_PAID = _sum_of(*ledger.PAID, negated=True)
_HAS_BALANCE = and_(_IS_UNSETTLED, _SUM_OF_ALL > ledger.ZERO)
_HAS_PAYMENT: ColumnElement[bool] = AMOUNT_PAID > ledger.ZERO
STATUS = case(
    (Billing.voided_at.is_not(None), "void"),
    (~_HAS_BALANCE, "paid"),
    (_HAS_PAYMENT, "partial"),
    else_="unpaid",
)


def has_status(status: str) -> ColumnElement[bool]:
    """Return the condition that a bill has a status. It is faster than a comparison with `STATUS`."""
    if status == "void":
        return Billing.voided_at.is_not(None)
    conditions = {
        "paid": ~_HAS_BALANCE,
        "partial": and_(_HAS_BALANCE, _HAS_PAYMENT),
        "unpaid": and_(_HAS_BALANCE, ~_HAS_PAYMENT),
    }
    return and_(Billing.voided_at.is_(None), conditions[status])


def is_paid(paid: bool) -> ColumnElement[bool]:
    """Return the condition that a bill has the status `paid`, or another one."""
    return has_status("paid") if paid else ~has_status("paid")


def _money(expression: ColumnElement[Any]) -> ListColumn:
    return ListColumn(Kind.MONEY, expression, nullable=False, max_rows=MAX_SUMS)


COLUMNS = {
    "patient_name": patient_column(Billing.patient_id),
    "doctor_name": doctor_column(Billing.doctor_id, nullable=True),
    "subtotal": _money(_sum_of(*ledger.ITEMS)),
    "discount": _money(_sum_of(LedgerKind.DISCOUNT, negated=True)),
    "tax": _money(_sum_of(LedgerKind.TAX)),
    "amount": _money(_sum_of(*ledger.ITEMS, LedgerKind.DISCOUNT, LedgerKind.TAX)),
    "amount_paid": _money(AMOUNT_PAID),
    "written_off": _money(_sum_of(LedgerKind.WRITE_OFF, negated=True)),
    "balance": _money(BALANCE),
    "owed_to_insurers": _money(_sum_of(LedgerKind.INSURER_DEBT)),
    "account_balance": _money(_sum(LedgerEntry.patient_id == Billing.patient_id)),
    "currency": ListColumn(
        Kind.TEXT,
        cast(bindparam("currency", callable_=lambda: settings().currency), String),
        nullable=False,
    ),
    "status": ListColumn(Kind.ENUM, STATUS, STATUSES, nullable=False, max_rows=MAX_SUMS),
    "is_paid": ListColumn(
        Kind.BOOLEAN, case((STATUS == "paid", True), else_=False), nullable=False, max_rows=MAX_SUMS
    ),
}

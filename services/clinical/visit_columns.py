"""Columns of the visit list that are computed: status, and sums of the ledger."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, case, exists, func, literal, select, type_coerce

from column_types import MoneyType
from database.functions import larger_of
from enums import LedgerKind
from models import Billing, LedgerEntry, Visit
from services.billing import ledger
from services.listing.related_rows import doctor_column, patient_column
from services.listing.spec import MAX_SUMS, Kind, ListColumn

STATES = ("open", "signed", "void")
_ZERO = literal(0, MoneyType())
_HAS_BILL = exists().where(Billing.visit_id == Visit.id).correlate(Visit)
_HAS_OWN_ENTRY = exists().where(LedgerEntry.visit_id == Visit.id).correlate(Visit)


def _of_bills(*kinds: LedgerKind) -> ColumnElement[Any]:
    """Return the sum of the entries of the bills of a visit that count as one of the kinds, or of all."""
    total = select(func.coalesce(func.sum(LedgerEntry.amount), 0)).join(
        Billing, Billing.id == LedgerEntry.billing_id
    )
    total = total.where(Billing.visit_id == Visit.id, *([ledger.counts_as(*kinds)] if kinds else []))
    return type_coerce(total.correlate(Visit).scalar_subquery(), MoneyType())


def _when(condition: ColumnElement[bool], amount: Any) -> ColumnElement[Any]:
    return type_coerce(case((condition, amount), else_=_ZERO), MoneyType())


_RECEIVED = type_coerce(
    select(func.coalesce(-func.sum(LedgerEntry.amount), 0))
    .where(LedgerEntry.visit_id == Visit.id, ledger.counts_as(*ledger.RECEIVED))
    .correlate(Visit)
    .scalar_subquery(),
    MoneyType(),
)
_SPENT = _when(_HAS_BILL, larger_of(-_of_bills(LedgerKind.CREDIT), _ZERO))
# the payment at the visit, as far as it was not spent on the bills of the visit
_KEPT = _when(_HAS_OWN_ENTRY, larger_of(_RECEIVED - _SPENT, _ZERO))

COLUMNS = {
    "patient_name": patient_column(Visit.patient_id),
    "doctor_name": doctor_column(Visit.doctor_id),
    "status": ListColumn(
        Kind.ENUM,
        case((Visit.voided_at.is_not(None), "void"), (Visit.signed_at.is_not(None), "signed"), else_="open"),
        STATES,
        nullable=False,
    ),
    "balance": ListColumn(Kind.MONEY, _when(_HAS_BILL, _of_bills()), nullable=False, max_rows=MAX_SUMS),
    "amount_paid": ListColumn(
        Kind.MONEY,
        type_coerce(_when(_HAS_BILL, -_of_bills(*ledger.PAID)) + _KEPT, MoneyType()),
        nullable=False,
        max_rows=MAX_SUMS,
    ),
}

"""Revenue: what was billed, collected and given back in a stretch of days, and what is still owed.

Everything is a sum of ledger rows by the time at which they happened (`occurred_at`): a payment entered later
counts when the money was received, a reversal when the bill was made void. `billed` holds charges and taxes
less their reversals, before discount; `net` is collected - refunded. So billed - discounted - written off -
net is what the bills' balances rose by, but for credit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, and_, case, literal_column, or_, select

from enums import LedgerKind, PaymentMethod
from extensions import db
from models import Billing, Doctor, LedgerEntry
from services import clock
from services.billing import ledger
from services.billing.ledger import ZERO, Sums
from services.reports import periods
from services.reports.periods import Period, Span, Unit
from services.rows import get_referenced, mapping

Key = TypeVar("Key")

MOVED = (*ledger.RECEIVED, LedgerKind.REFUND)
# How many days after it was due a balance is in which column.
AGES = {"current": 0, "1-30": 30, "31-60": 60, "61-90": 90}
OLDEST = "90+"


@dataclass(frozen=True)
class Revenue:
    """The answer of one report, as named amounts. `outstanding` and `ageing` are as at the span's end."""

    totals: dict[str, Decimal]
    data: list[dict[str, Any]]
    by_method: list[dict[str, Any]]
    by_doctor: list[dict[str, Any]]
    ageing: dict[str, Decimal]


def report(
    *,
    start_date: date | None = None,
    end_date: date | None = None,
    group_by: Unit = "day",
    doctor_id: int | None = None,
) -> Revenue:
    """The revenue of the days asked for, in periods of `group_by`; of one doctor's bills where named.

    Money on the account itself (paid in advance, or beyond a bill) belongs to no doctor. Raises 422 for a
    doctor that does not exist and for more than 400 periods.
    """
    if doctor_id is not None:
        get_referenced(Doctor, doctor_id, "doctor_id")
    span = periods.span(start_date, end_date)
    cut = periods.periods(span, group_by)
    rows = _moved(span, cut, doctor_id)
    ageing = ages(span, doctor_id)
    whole, parts = _sums(row.amounts for row in rows), _grouped(rows, lambda row: row.place)
    rest = {
        "discounted": whole.discount,
        "written_off": whole.written_off,
        "outstanding": sum(ageing.values(), ZERO),
    }
    return Revenue(
        totals=_amounts(whole) | rest,
        data=[_period(period, parts.get(place, Sums({}))) for place, period in enumerate(cut)],
        by_method=_by_method(rows),
        by_doctor=_by_doctor(rows),
        ageing=ageing,
    )


@dataclass(frozen=True)
class Moved:
    """What moved in one period by one method for one doctor, about one subject; signed as in the ledger."""

    place: int  # of the period
    method: PaymentMethod | None
    doctor_id: int | None
    kind: LedgerKind  # as it lies in the ledger: a reversal is one
    subject: LedgerKind
    amount: Decimal

    @property
    def amounts(self) -> tuple[LedgerKind, Decimal]:
        """The subject with the amount."""
        return self.subject, self.amount


def _moved(span: Span, cut: Sequence[Period], doctor_id: int | None) -> list[Moved]:
    """All that moved, read once."""
    period, place_of = periods.numbered(LedgerEntry.occurred_at, span, cut)
    keys = (LedgerEntry.method, LedgerEntry.doctor_id, LedgerEntry.kind)
    statement = (
        select(period, *keys, ledger.SUBJECT, ledger.TOTAL)
        .where(*_wheres(span, doctor_id))
        .group_by(literal_column("period"), *keys, ledger.BY_SUBJECT)
    )
    return [Moved(place_of(number), *rest) for number, *rest in db.session.execute(statement)]


def _grouped(rows: Iterable[Moved], key: Callable[[Moved], Key]) -> dict[Key, Sums]:
    found: dict[Key, list[tuple[LedgerKind, Decimal]]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row.amounts)
    return {place: _sums(amounts) for place, amounts in found.items()}


def _sums(amounts: Iterable[tuple[LedgerKind, Decimal]]) -> Sums:
    found: dict[LedgerKind, Decimal] = {}
    for kind, amount in amounts:
        found[kind] = found.get(kind, ZERO) + amount
    return Sums(found)


def _amounts(sums: Sums) -> dict[str, Decimal]:
    return {
        "billed": sums.billed,
        "collected": sums.collected,
        "refunded": sums.refunded,
        "net": sums.net,
    }


def _period(period: Period, sums: Sums) -> dict[str, Any]:
    named = {"period": period.label, "start": period.start, "end": period.end}
    return named | _amounts(sums) | {"revenue": sums.net}


def totals(span: Span, doctor_id: int | None = None) -> Sums:
    """What moved in a span, of one doctor's bills where named."""
    doctors = _doctor_sums(_wheres(span, doctor_id)).values()
    return _sums(amounts for sums in doctors for amounts in sums.by_kind.items())


def of_doctors(span: Span) -> dict[int | None, Sums]:
    """What moved in a span on each doctor's bills; None is what belongs to no doctor."""
    return _doctor_sums(_wheres(span, None))


def _wheres(span: Span, doctor_id: int | None) -> list[ColumnElement[bool]]:
    wheres = [span.holds(LedgerEntry.occurred_at)]
    if doctor_id is not None:
        wheres.append(LedgerEntry.doctor_id == doctor_id)
    return wheres


def _doctor_sums(wheres: list[ColumnElement[bool]]) -> dict[int | None, Sums]:
    return ledger.gather(ledger.sums_by(LedgerEntry.doctor_id, *wheres))


def _by_method(rows: Iterable[Moved]) -> list[dict[str, Any]]:
    moved = [row for row in rows if row.kind in MOVED]
    found = _grouped(moved, lambda row: row.method or PaymentMethod.OTHER)
    return [{"method": method} | _amounts(found[method]) for method in PaymentMethod if method in found]


def _by_doctor(rows: Iterable[Moved]) -> list[dict[str, Any]]:
    found = _grouped(rows, lambda row: row.doctor_id)
    names = mapping(select(Doctor.id, Doctor.name).where(Doctor.id.in_([key for key in found if key])))
    return [
        {"doctor_id": key, "doctor_name": names.get(key or 0)} | _amounts(found[key])
        for key in sorted(found, key=lambda key: (key is None, key))
    ]


def ages(span: Span, doctor_id: int | None = None) -> dict[str, Decimal]:
    """The balances of bills as at the end of a span, by the days since they were due.

    A bill without due date is due on the day on which it was made. A span that ends in the future is taken
    as of today. Bills that were settled by then add nothing and are not summed.
    """
    as_of = min(span.end, clock.today())
    columns = {
        name: or_(
            Billing.due_date >= as_of - timedelta(days=days),
            and_(
                Billing.due_date.is_(None),
                Billing.created_at >= clock.day_start(as_of - timedelta(days=days)),
            ),
        )
        for name, days in AGES.items()
    }
    steps: list[Any] = [(condition, literal_column(f"'{name}'")) for name, condition in columns.items()]
    column = case(*steps, else_=literal_column(f"'{OLDEST}'"))
    statement = (
        select(column, ledger.TOTAL)
        .select_from(LedgerEntry)
        .join(Billing, Billing.id == LedgerEntry.billing_id)
        .where(LedgerEntry.occurred_at < span.until, LedgerEntry.billing_id.in_(ledger.unsettled(span.until)))
        .group_by(column)
    )
    if doctor_id is not None:
        statement = statement.where(Billing.doctor_id == doctor_id)
    found: dict[str, Decimal] = dict(db.session.execute(statement).tuples().all())
    return {name: found.get(name, ZERO) for name in (*AGES, OLDEST)}

"""Revenue: what was billed, collected and given back in a stretch of days, and what is still owed.

Everything is a sum of ledger rows by the time at which they happened (`occurred_at`): a payment entered later
counts when the money was received, a reversal when the bill was made void. `billed` holds charges and taxes
less their reversals, before discount; `net` is collected - refunded. So billed - discounted - written off -
net is what the bills' balances rose by, but for credit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, literal, literal_column, or_, select

from extensions import db
from models import Billing, Doctor, LedgerEntry, LedgerKind, PaymentMethod
from services import clock, ledger, periods
from services.ledger import NOTHING, Sums
from services.periods import Period, Span, Unit
from services.records import fetch_named, mapping

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
        fetch_named(Doctor, doctor_id, "doctor_id")
    span = periods.span(start_date, end_date)
    cut = periods.periods(span, group_by)
    wheres = _wheres(span, doctor_id)
    days = {
        periods.day_of(number): sums
        for number, sums in ledger.gather(
            ledger.sums_by(periods.local_day(LedgerEntry.occurred_at, span), *wheres)
        ).items()
    }
    ageing = ages(span, doctor_id)
    whole = merge(days.values())
    rest = {
        "discounted": whole.discount,
        "written_off": whole.written_off,
        "outstanding": sum(ageing.values(), NOTHING),
    }
    return Revenue(
        totals=_amounts(whole) | rest,
        data=[_period(period, merge(found)) for period, found in periods.by_period(days, cut)],
        by_method=_by_method(wheres),
        by_doctor=_by_doctor(wheres),
        ageing=ageing,
    )


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
    return merge(_doctor_sums(_wheres(span, doctor_id)).values())


def of_doctors(span: Span) -> dict[int | None, Sums]:
    """What moved in a span on each doctor's bills; None is what belongs to no doctor."""
    return _doctor_sums(_wheres(span, None))


def merge(several: Iterable[Sums]) -> Sums:
    """The sums of sums."""
    found: dict[LedgerKind, Decimal] = {}
    for sums in several:
        for kind, amount in sums.by_kind.items():
            found[kind] = found.get(kind, NOTHING) + amount
    return Sums(found)


def _wheres(span: Span, doctor_id: int | None) -> list[ColumnElement[bool]]:
    wheres = [span.holds(LedgerEntry.occurred_at)]
    if doctor_id is not None:
        wheres.append(LedgerEntry.billing_id.in_(select(Billing.id).where(Billing.doctor_id == doctor_id)))
    return wheres


def _by_method(wheres: list[ColumnElement[bool]]) -> list[dict[str, Any]]:
    told = func.coalesce(LedgerEntry.method, literal(PaymentMethod.OTHER, LedgerEntry.method.type))
    found = ledger.gather(ledger.sums_by(told, *wheres, LedgerEntry.kind.in_(MOVED)))
    return [{"method": method} | _amounts(found[method]) for method in PaymentMethod if method in found]


def _doctor_sums(wheres: list[ColumnElement[bool]]) -> dict[int | None, Sums]:
    statement = ledger.sums_by(Billing.doctor_id, *wheres)
    return ledger.gather(statement.outerjoin(Billing, Billing.id == LedgerEntry.billing_id))


def _by_doctor(wheres: list[ColumnElement[bool]]) -> list[dict[str, Any]]:
    found = _doctor_sums(wheres)
    names = mapping(select(Doctor.id, Doctor.name).where(Doctor.id.in_([key for key in found if key])))
    return [
        {"doctor_id": key, "doctor_name": names.get(key or 0)} | _amounts(found[key])
        for key in sorted(found, key=lambda key: (key is None, key))
    ]


def ages(span: Span, doctor_id: int | None = None) -> dict[str, Decimal]:
    """The balances of bills as at the end of a span, by the days since they were due.

    A bill without due date is due on the day on which it was made. A span that ends in the future is taken
    as of today.
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
        .where(LedgerEntry.occurred_at < span.until)
        .group_by(column)
    )
    if doctor_id is not None:
        statement = statement.where(Billing.doctor_id == doctor_id)
    found: dict[str, Decimal] = dict(db.session.execute(statement).tuples().all())
    return {name: found.get(name, NOTHING) for name in (*AGES, OLDEST)}

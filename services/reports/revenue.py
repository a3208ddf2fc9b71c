"""The revenue report: billed, collected and refunded amounts, and the ageing of outstanding balances.

Every figure is a sum of ledger entries by their `occurred_at`. A payment entered later counts on the day when
the money was received, and a reversal on the day of the void. `billed` is charges and taxes less their
reversals, before discount. `net` is collected - refunded. So billed - discounted - written off - net is the
increase of all balances of bills, except for opening balances, moved credit and debts to insurers.

An opening balance is revenue of an earlier system. It is outstanding, and counts nowhere else.
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

MONEY_KINDS = (*ledger.RECEIVED, LedgerKind.REFUND)
# The highest number of days past due of each bucket.
AGEING_BUCKETS = {"current": 0, "1-30": 30, "31-60": 60, "61-90": 90}
OLDEST_BUCKET = "90+"


@dataclass(frozen=True)
class Revenue:
    """The revenue report. `outstanding` and `ageing` are as of the end of the span."""

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
    """Return the revenue of a span in periods of `group_by`, optionally for the bills of one doctor.

    Payments on a patient's account (in advance, or above a balance) belong to no doctor. Raises 422 for an
    unknown doctor, and for more than 400 periods.
    """
    if doctor_id is not None:
        get_referenced(Doctor, doctor_id, "doctor_id")
    span = periods.span(start_date, end_date)
    all_periods = periods.periods(span, group_by)
    rows = _load_rows(span, all_periods, doctor_id)
    balances = ageing(span, doctor_id)
    total = _sum_rows(rows)
    by_period = _sum_by(rows, lambda row: row.period_index)
    return Revenue(
        totals=_amounts(total)
        | {
            "discounted": total.discount,
            "written_off": total.written_off,
            "outstanding": sum(balances.values(), ZERO),
        },
        data=[
            _period(period, by_period.get(index, ledger.EMPTY)) for index, period in enumerate(all_periods)
        ],
        by_method=_by_method(rows),
        by_doctor=_by_doctor(rows),
        ageing=balances,
    )


@dataclass(frozen=True)
class RevenueRow:
    """The sum of the ledger entries with the same period, method, doctor, kind and subject."""

    period_index: int
    method: PaymentMethod | None
    doctor_id: int | None
    kind: LedgerKind  # as stored: a reversal is one
    subject: LedgerKind  # a reversal has the kind of the reversed entry
    amount: Decimal  # signed as in the ledger


def _load_rows(span: Span, all_periods: Sequence[Period], doctor_id: int | None) -> list[RevenueRow]:
    """Read the ledger once, for all parts of the report."""
    period, index_of = periods.period_column(LedgerEntry.occurred_at, span, all_periods)
    keys = (LedgerEntry.method, LedgerEntry.doctor_id, LedgerEntry.kind)
    statement = (
        select(period, *keys, ledger.SUBJECT, ledger.TOTAL)
        .where(*_conditions(span, doctor_id))
        .group_by(literal_column("period"), *keys, ledger.BY_SUBJECT)
    )
    rows = (RevenueRow(index_of(number), *rest) for number, *rest in db.session.execute(statement))
    return [row for row in rows if row.subject is not LedgerKind.OPENING_BALANCE]


def _sum_by(rows: Iterable[RevenueRow], key: Callable[[RevenueRow], Key]) -> dict[Key, Sums]:
    groups: dict[Key, list[RevenueRow]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return {value: _sum_rows(group) for value, group in groups.items()}


def _sum_rows(rows: Iterable[RevenueRow]) -> Sums:
    totals: dict[LedgerKind, Decimal] = {}
    for row in rows:
        totals[row.subject] = totals.get(row.subject, ZERO) + row.amount
    return Sums(totals)


def _amounts(sums: Sums) -> dict[str, Decimal]:
    return {
        "billed": sums.billed,
        "collected": sums.collected,
        "refunded": sums.refunded,
        "net": sums.net,
    }


def _period(period: Period, sums: Sums) -> dict[str, Any]:
    dates = {"period": period.label, "start": period.start, "end": period.end}
    return dates | _amounts(sums) | {"revenue": sums.net}


def totals(span: Span, doctor_id: int | None = None) -> Sums:
    """Return the sums of the entries in a span, optionally of one doctor's bills."""
    by_subject = (
        select(ledger.SUBJECT, ledger.TOTAL).where(*_conditions(span, doctor_id)).group_by(ledger.BY_SUBJECT)
    )
    return Sums(mapping(by_subject))


def of_doctors(span: Span) -> dict[int | None, Sums]:
    """Return the sums of the entries in a span by doctor. The key None has the entries without a doctor."""
    return ledger.gather(ledger.sums_by(LedgerEntry.doctor_id, *_conditions(span, None)))


def _conditions(span: Span, doctor_id: int | None) -> list[ColumnElement[bool]]:
    conditions = [span.contains(LedgerEntry.occurred_at)]
    if doctor_id is not None:
        conditions.append(LedgerEntry.doctor_id == doctor_id)
    return conditions


def _by_method(rows: Iterable[RevenueRow]) -> list[dict[str, Any]]:
    money_rows = [row for row in rows if row.kind in MONEY_KINDS]
    sums = _sum_by(money_rows, lambda row: row.method or PaymentMethod.OTHER)
    return [{"method": method} | _amounts(sums[method]) for method in PaymentMethod if method in sums]


def _by_doctor(rows: Iterable[RevenueRow]) -> list[dict[str, Any]]:
    sums = _sum_by(rows, lambda row: row.doctor_id)
    names = mapping(
        select(Doctor.id, Doctor.name).where(Doctor.id.in_([doctor_id for doctor_id in sums if doctor_id]))
    )
    return [
        {"doctor_id": doctor_id, "doctor_name": names.get(doctor_id or 0)} | _amounts(sums[doctor_id])
        for doctor_id in sorted(sums, key=lambda doctor_id: (doctor_id is None, doctor_id))
    ]


def ageing(span: Span, doctor_id: int | None = None) -> dict[str, Decimal]:
    """Return the balances of bills as of the end of a span, by the number of days past due.

    A bill without a due date is due on its date of issue. A span that ends in the future counts as of
    today. Bills that were settled at that time are not read.
    """
    as_of = min(span.end, clock.today())
    buckets = {
        name: or_(
            Billing.due_date >= as_of - timedelta(days=days),
            and_(Billing.due_date.is_(None), Billing.date >= as_of - timedelta(days=days)),
        )
        for name, days in AGEING_BUCKETS.items()
    }
    steps: list[Any] = [(condition, literal_column(f"'{name}'")) for name, condition in buckets.items()]
    bucket = case(*steps, else_=literal_column(f"'{OLDEST_BUCKET}'"))
    statement = (
        select(bucket, ledger.TOTAL)
        .select_from(LedgerEntry)
        .join(Billing, Billing.id == LedgerEntry.billing_id)
        .where(LedgerEntry.occurred_at < span.until, LedgerEntry.billing_id.in_(ledger.unsettled(span.until)))
        .group_by(bucket)
    )
    if doctor_id is not None:
        statement = statement.where(Billing.doctor_id == doctor_id)
    balances: dict[str, Decimal] = dict(db.session.execute(statement).tuples().all())
    return {name: balances.get(name, ZERO) for name in (*AGEING_BUCKETS, OLDEST_BUCKET)}

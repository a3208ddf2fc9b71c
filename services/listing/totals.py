"""Totals of lists: exact without conditions, and up to `COUNT_CAP` matches with conditions.

Rows of some tables are never deleted. Their settled rows are counted once for each process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import BigInteger, ColumnElement, Engine, Select, bindparam, func, select

from column_types import MAX_INT
from database.functions import oldest_transaction
from extensions import db
from services import clock
from services.listing.spec import ListQuery, ListSpec, key_column, select_keys
from services.rows import execute_core

COUNT_CAP = 10_000  # matches
RECOUNT = 1_000  # rows that are counted with every request before the settled ones are counted once
SETTLING = timedelta(seconds=15)  # between two searches for settled rows
SKEW = timedelta(seconds=30)  # the clocks of two machines may differ by this


@dataclass(frozen=True)
class Settled:
    """The settled rows of a list: their number, their last id, and the time of the next search for more."""

    number: int
    last_id: int
    due: datetime


_settled: WeakKeyDictionary[Engine, dict[str, Settled]] = WeakKeyDictionary()


def forget_totals() -> None:
    """Forget the settled rows: for a database whose rows were removed."""
    _settled.clear()


def settled_rows(spec: ListSpec[Any]) -> Settled:
    """Return the rows of a list that this process has counted as settled."""
    return _settled.setdefault(db.engine, {}).get(spec.name, Settled(0, 0, clock.now()))


def total(
    spec: ListSpec[Any], conditions: Sequence[ColumnElement[bool]], query: ListQuery, shown: int
) -> tuple[int, bool]:
    """Return the number of matches, and True if there are more. `shown` is the number of rows of the page."""
    if query.after is None and shown < query.limit and (shown or not query.offset):
        number = query.offset + shown  # the last page: nothing to count
    elif not conditions:
        number = count_all(spec, settled_rows(spec))
    else:
        matches = select_keys(spec).where(*conditions).limit(COUNT_CAP + 1)
        number = db.session.execute(select(func.count()).select_from(matches.subquery())).scalar_one()
    return (COUNT_CAP, True) if conditions and number > COUNT_CAP else (number, False)


def count_all(spec: ListSpec[Any], settled: Settled, newer: int | None = None) -> int:
    """Return the number of rows of a list. `newer` is the number of rows above the settled ones, if known.

    A row is settled if it was created before any open transaction began: no lower id can appear any more.
    """
    if newer is None:
        newer = int(execute_core(count_between(spec), above=settled.last_id, until=MAX_INT).scalar_one())
    if spec.kept_since is not None and newer > RECOUNT and settled.due <= clock.now():
        last_id = max(settled.last_id, _last_settled_id(spec))
        more = execute_core(count_between(spec), above=settled.last_id, until=last_id).scalar_one()
        _settled.setdefault(db.engine, {})[spec.name] = Settled(
            settled.number + more, last_id, clock.now() + SETTLING
        )
    return settled.number + newer


def _last_settled_id(spec: ListSpec[Any]) -> int:
    key, created = key_column(spec), getattr(spec.model, spec.kept_since or "")
    oldest = oldest_transaction(db.session.connection())
    end = clock.now() if oldest is None else oldest - SKEW
    statement = select(key).where(created < end).order_by(key.desc()).limit(1)
    return db.session.execute(statement).scalar_one_or_none() or 0


@lru_cache(maxsize=256)
def count_between(spec: ListSpec[Any]) -> Select[Any]:
    """Return the statement that counts the rows with ids above `above` and up to `until`.

    It always has both bounds. With a generic plan, PostgreSQL assumes that one bound selects a third of the
    table, and starts parallel workers for a few rows.
    """
    key = key_column(spec)
    rows = select_keys(spec).where(key > bindparam("above"), key <= bindparam("until", type_=BigInteger))
    return select(func.count()).select_from(rows.subquery()).execution_options(prepare=True)

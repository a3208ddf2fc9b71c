"""Lists and searches: which columns filter and sort, and how a page is fetched.

A `Listing` is declared once per resource beside its rules; `api.list_query` reads a query string against
it, `page()` runs it. Totals are exact up to `COUNT_CAP` matches of a filter; ties are broken by id.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from functools import cached_property, lru_cache
from operator import attrgetter
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Engine,
    Integer,
    Select,
    and_,
    bindparam,
    func,
    or_,
    select,
)
from sqlalchemy import Row as Result
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.orm.interfaces import ORMOption

from column_types import MAX_INT, InstantType, MoneyType
from database.functions import in_page, is_postgresql, oldest_transaction
from errors import ClinicError
from extensions import db
from models import Base
from security.permissions import Actor, hidden
from services import clock
from services.rows import Record, execute_core
from services.search_key import search_key

Row = TypeVar("Row", bound=Base)

COUNT_CAP = 10_000
RECOUNT = 1_000  # rows that are counted again and again, before the settled ones among them are remembered
SETTLING = timedelta(seconds=15)  # between two looks for rows that have settled
SKEW = timedelta(seconds=30)  # by which the clocks of two machines may differ
MAX_PER_PAGE = 1_000
PRIVATE = ("_fold", "_hash", "_digits")


class Kind(StrEnum):
    """How a query value is read."""

    ID = "id"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    ENUM = "enum"
    TEXT = "text"
    DAY = "day"
    INSTANT = "instant"
    MONEY = "money"
    DECIMAL = "decimal"


@dataclass(frozen=True)
class PreselectedIds:
    """A condition whose rows were looked up already: the keys of all of them."""

    keys: Sequence[int]


@dataclass(frozen=True)
class Filter:
    """A named condition of a list that is not simply a column.

    `where` turns the value into a condition; `values` lists an enum's; `guards` names the field whose
    visibility it needs, where that is not its own name.
    """

    kind: Kind
    where: Callable[[Any], ColumnElement[bool] | PreselectedIds]
    summary: str
    values: tuple[str, ...] = ()
    guards: str | None = None


@dataclass(frozen=True)
class Records:
    """Rows read as columns: the statement, and what adds to their records that is no column."""

    statement: Select[Any]
    complete: Callable[[Sequence[Record]], None]

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(self.statement.selected_columns.keys())

    def read(self, rows: Iterable[Result[Any]]) -> list[Record]:
        """The records of rows, which may have more columns at their end."""
        found = []
        for row in rows:
            record = Record()
            record.__dict__.update(zip(self._names, row, strict=False))
            found.append(record)
        self.complete(found)
        return found


@dataclass(frozen=True, eq=False)
class ListSpec(Generic[Row]):
    """What one resource's list can do. `area` is its line in the table of hidden fields.

    `main_date` is what `start_date`/`end_date` bound; `text` builds the condition for `q`, `nearly` the one
    that takes its place where it finds nothing; `scope` limits
    the rows to those the actor may see; `names` maps API names to attributes where they differ; `filters`
    are the conditions beyond columns, `omit` the columns that no answer shows, `shown` what stands in the
    answers in place of a stored column, where the two differ. `records` reads the rows without the ORM, for
    lists that are asked for all day. `kept_since` names the instant at which a row came that is never
    deleted: of those the old ones are counted once.
    """

    name: str
    model: type[Row]
    area: str
    main_date: str | None = None
    text: Callable[[str], ColumnElement[bool] | PreselectedIds] | None = None
    nearly: Callable[[str], ColumnElement[bool] | PreselectedIds] | None = None
    scope: Callable[[Actor], ColumnElement[bool] | None] | None = None
    options: Sequence[ORMOption] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    filters: Mapping[str, Filter] = field(default_factory=dict)
    omit: frozenset[str] = frozenset()
    joins: Callable[[Select[Any]], Select[Any]] | None = None
    shown: Mapping[str, ColumnElement[Any]] = field(default_factory=dict)
    records: Records | None = None
    kept_since: str | None = None

    @cached_property
    def columns(self) -> dict[str, tuple[Kind, InstrumentedAttribute[Any], tuple[str, ...]]]:
        """API name -> kind, attribute and enum values of every stored scalar column that answers show."""
        renamed = {attribute: name for name, attribute in self.names.items()}
        found: dict[str, tuple[Kind, InstrumentedAttribute[Any], tuple[str, ...]]] = {}
        for column in self.model.__mapper__.column_attrs:
            key = column.key
            if key in self.omit or key.endswith(PRIVATE):
                continue
            attribute = getattr(self.model, key)
            kind, values = _kind_of(key, attribute)
            if kind is not None:
                found[renamed.get(key, key)] = (kind, attribute, values)
        return found


def _kind_of(key: str, attribute: InstrumentedAttribute[Any]) -> tuple[Kind | None, tuple[str, ...]]:
    kind_of_type = attribute.type
    if key == "id" or key.endswith("_id"):
        return (Kind.ID, ()) if kind_of_type.python_type is int else (Kind.TEXT, ())
    if isinstance(kind_of_type, MoneyType):
        return Kind.MONEY, ()
    if isinstance(kind_of_type, InstantType):
        return Kind.INSTANT, ()
    python = kind_of_type.python_type
    if issubclass(python, StrEnum):
        return Kind.ENUM, tuple(member.value for member in python)
    kinds = {bool: Kind.BOOLEAN, int: Kind.INTEGER, str: Kind.TEXT, datetime: Kind.INSTANT, date: Kind.DAY}
    if python in (list, dict):
        return None, ()
    return kinds.get(python, Kind.DECIMAL), ()


@dataclass
class Condition:
    """One condition of a query on a column: `op` is eq, ne, gte, lte, like or in."""

    name: str
    op: str
    value: Any


@dataclass
class ListQuery:
    """A query string, read: what to find, in what order, which page."""

    conditions: list[Condition] = field(default_factory=list)
    named: dict[str, Any] = field(default_factory=dict)
    q: str | None = None
    start: datetime | None = None  # inclusive
    end: datetime | None = None  # exclusive
    sort_by: str = "id"
    descending: bool = False
    offset: int = 0
    limit: int = 20
    after: int | None = None
    params: dict[str, Any] = field(default_factory=dict)  # as the caller sent them, for `search_params`

    @property
    def filtered(self) -> bool:
        """Whether anything narrows the list."""
        return bool(self.conditions or self.named or self.q or self.start or self.end)


@dataclass
class Page(Generic[Row]):
    """Some rows of a list. `total` is capped at `COUNT_CAP` when `capped`."""

    rows: list[Row]
    total: int
    capped: bool
    query: ListQuery


def page(actor: Actor, listing: ListSpec[Row], query: ListQuery) -> Page[Row]:
    """One page of the rows that the actor may see.

    Raises 403 where a filter or sort names a field that the role may not see.
    """
    _check_visible(actor, listing, query)
    found = _page(actor, listing, query, listing.text)
    if query.q and listing.nearly is not None and not found.total:
        found = _page(actor, listing, query, listing.nearly)
    return found


def _page(
    actor: Actor,
    listing: ListSpec[Row],
    query: ListQuery,
    text: Callable[[str], ColumnElement[bool] | PreselectedIds] | None,
) -> Page[Row]:
    conditions = _conditions(listing, query)
    if query.q and text is not None:
        conditions.append(text(query.q))
    scope = listing.scope(actor) if listing.scope else None
    if scope is not None:
        conditions.append(scope)
    records = listing.records
    if records is not None and query.sort_by == "id":
        known = [set(condition.keys) for condition in conditions if isinstance(condition, PreselectedIds)]
        if not conditions:
            return _whole(listing, records, query)
        if len(known) == len(conditions) and query.after is None:
            return _of_few(listing, records, query, set.intersection(*known))
    key = _key(listing)
    wheres = [key.in_(one.keys) if isinstance(one, PreselectedIds) else one for one in conditions]
    statement = _ordered(listing, query.sort_by, query.descending, query.after is not None)
    statement = statement.where(*wheres) if wheres else statement
    rows: list[Any]
    values = _paging(query)
    if records is None:
        rows = list(db.session.execute(statement, values).unique().scalars())
    else:
        keys = db.session.connection().execute(statement, values).scalars().all()
        rows = _records(listing, records, keys)
    total, capped = _total(listing, wheres, query, len(rows))
    return Page(rows, total, capped, query)


def _paging(query: ListQuery) -> dict[str, Any]:
    return {"listed": query.limit, "skipped": query.offset, "after": query.after}


def _of_few(listing: ListSpec[Any], records: Records, query: ListQuery, keys: set[int]) -> Page[Any]:
    """One page, in the order of their keys, of rows that are all known."""
    ordered = sorted(keys, reverse=query.descending)
    shown = ordered[query.offset : query.offset + query.limit]
    return Page(_records(listing, records, shown), len(keys), False, query)


def _whole(listing: ListSpec[Any], records: Records, query: ListQuery) -> Page[Any]:
    """One page of a list that nothing narrows, in the order of its keys: rows and total in one statement."""
    counted = _counted(listing)
    statement = _whole_by_key(
        listing, query.descending, query.after is not None, is_postgresql(db.session.connection())
    )
    found = execute_core(statement, border=counted[1], until=MAX_INT, **_paging(query)).all()
    rows = sorted(records.read(found), key=attrgetter("id"), reverse=query.descending)
    total = _all(listing, counted, found[0].newer if found else None)
    return Page(rows, total, False, query)


@lru_cache(maxsize=64)
def _whole_by_key(listing: ListSpec[Any], descending: bool, after: bool, postgresql: bool) -> Select[Any]:
    key = _key(listing)
    keys = _keys(listing).limit(bindparam("listed", type_=Integer))
    if after:
        keys = keys.where(key > bindparam("after")).order_by(key)
    else:
        keys = keys.order_by(key.desc() if descending else key.asc()).offset(
            bindparam("skipped", type_=Integer)
        )
    newer = _between(listing).scalar_subquery().label("newer")
    return _base(listing).add_columns(newer).where(in_page(key, keys, postgresql=postgresql))


def _records(listing: ListSpec[Any], records: Records, keys: Sequence[int]) -> list[Record]:
    """The records with these keys, in this order.

    What is asked for differs from request to request, what is shown does not: that is planned once. And
    PostgreSQL would compute what is shown for the rows of the pages before, too.
    """
    if not keys:
        return []
    found = execute_core(_by_keys(listing), keys=list(keys)).all()
    rows = {record.id: record for record in records.read(found)}
    return [rows[key] for key in keys]


@lru_cache(maxsize=64)
def _by_keys(listing: ListSpec[Any]) -> Select[Any]:
    return _base(listing).where(_key(listing).in_(bindparam("keys", expanding=True)))


@lru_cache(maxsize=1024)
def _ordered(listing: ListSpec[Any], sort_by: str, descending: bool, after: bool) -> Select[Any]:
    """The list in its order; made once, since making a statement costs more than running it.

    Of a list that is read as records only the keys.
    """
    key = _key(listing)
    # in the text of the statement: PostgreSQL plans a list of unknown length every time anew
    length, skipped = (bindparam(name, type_=Integer, literal_execute=True) for name in ("listed", "skipped"))
    base = _base(listing) if listing.records is None else _keys(listing)
    statement = base.options(*listing.options).limit(length)
    if after:
        return statement.where(key > bindparam("after")).order_by(key)
    return statement.order_by(*_order(listing, sort_by, descending, key)).offset(skipped)


def _base(listing: ListSpec[Any]) -> Select[Any]:
    base: Select[Any] = select(listing.model) if listing.records is None else listing.records.statement
    return base if listing.joins is None else listing.joins(base)


def _check_visible(actor: Actor, listing: ListSpec[Any], query: ListQuery) -> None:
    secret = hidden(listing.area, actor.role)
    if not secret:
        return
    asked = {condition.name for condition in query.conditions} | {query.sort_by}
    for name in query.named:
        asked.add(listing.filters[name].guards or name)
    if asked & secret:
        raise ClinicError("forbidden", "Your role may not filter or sort by this.")


def _conditions(listing: ListSpec[Any], query: ListQuery) -> list[ColumnElement[bool] | PreselectedIds]:
    wheres: list[ColumnElement[bool] | PreselectedIds]
    wheres = [_condition(listing, condition) for condition in query.conditions]
    wheres += [listing.filters[name].where(value) for name, value in query.named.items()]
    if listing.main_date is not None:
        attribute = getattr(listing.model, listing.main_date)
        by_day = not isinstance(attribute.type, InstantType)
        for bound, compare in ((query.start, attribute.__ge__), (query.end, attribute.__lt__)):
            if bound is not None:
                wheres.append(compare(clock.local(bound).date() if by_day else bound))
    return wheres


def _condition(listing: ListSpec[Any], condition: Condition) -> ColumnElement[bool]:
    _kind, attribute, _values = listing.columns[condition.name]
    compared = listing.shown.get(condition.name, attribute)
    value = condition.value
    if condition.op == "in":
        return compared.in_(value)
    if condition.op == "like":
        folded = getattr(listing.model, f"{attribute.key}_fold", None)
        if folded is not None:
            return contains(folded, search_key(value))
        return attribute.icontains(value, autoescape=True)
    if condition.op == "ne":
        return or_(compared != value, compared.is_(None))
    compare = {"eq": operator.eq, "gte": operator.ge, "lte": operator.le}[condition.op]
    found: ColumnElement[bool] = compare(compared, value)
    return found


def contains(column: Any, part: str) -> ColumnElement[bool]:
    """Whether a folded column contains the part; its `%` and `_` are taken literally."""
    found: ColumnElement[bool] = column.contains(part, autoescape=True)
    return found


def words_in(column: Any, text: str) -> ColumnElement[bool]:
    """Whether a folded column contains every word of the text, in any order."""
    return and_(*(contains(column, word) for word in search_key(text).split() or [""]))


def _order(listing: ListSpec[Any], sort_by: str, descending: bool, key: Any) -> list[Any]:
    attribute: Any = listing.columns[sort_by][1]
    compared: Any = listing.shown.get(sort_by, attribute)
    # NULLs at the end on both engines, whichever way
    orders = [compared.is_(None), compared.desc() if descending else compared.asc()]
    if not attribute.property.columns[0].nullable:
        orders = orders[1:]
    if attribute.key != "id":
        orders.append(key.desc() if descending else key.asc())
    return orders


# --- Totals --------------------------------------------------------------------------------------------


def _total(
    listing: ListSpec[Any], wheres: Sequence[ColumnElement[bool]], query: ListQuery, shown: int
) -> tuple[int, bool]:
    """How many match, and whether more do than are counted: a filtered count stops at the cap."""
    if query.after is None and shown < query.limit and (shown or not query.offset):
        total = query.offset + shown  # the page is the last one: nothing to count
    elif not wheres:
        total = _all(listing, _counted(listing))
    else:
        inner = _keys(listing).where(*wheres).limit(COUNT_CAP + 1)
        total = db.session.execute(select(func.count()).select_from(inner.subquery())).scalar_one()
    return (COUNT_CAP, True) if wheres and total > COUNT_CAP else (total, False)


# Engine -> list name -> number of settled rows, their last id, time of the next look.
_settled: WeakKeyDictionary[Engine, dict[str, tuple[int, int, datetime]]] = WeakKeyDictionary()


def forget_totals() -> None:
    """Forget the numbers of settled rows: for a database whose rows were removed."""
    _settled.clear()


def _totals() -> dict[str, tuple[int, int, datetime]]:
    return _settled.setdefault(db.engine, {})


def _counted(listing: ListSpec[Any]) -> tuple[int, int, datetime]:
    """So many rows up to this id, and when more are to be counted for good."""
    found: tuple[int, int, datetime] = _totals().get(listing.name, (0, 0, clock.now()))
    return found


def _all(listing: ListSpec[Any], counted: tuple[int, int, datetime], newer: int | None = None) -> int:
    """How many rows there are; of a table whose rows stay, the settled ones are not counted every time.

    An id is settled when its row, and so every row with a lower one, came before any transaction that still
    runs began. `newer` is how many rows have a higher one, where that is known.
    """
    now, key, (number, border, due) = clock.now(), _key(listing), counted
    if newer is None:
        newer = int(execute_core(_between(listing), border=border, until=MAX_INT).scalar_one())
    if listing.kept_since is not None and newer > RECOUNT and due <= now:
        since = getattr(listing.model, listing.kept_since)
        oldest = oldest_transaction(db.session.connection())
        end = now if oldest is None else oldest - SKEW
        last = select(key).where(since < end).order_by(key.desc()).limit(1)
        settled = max(border, db.session.execute(last).scalar_one_or_none() or 0)
        found = execute_core(_between(listing), border=border, until=settled).scalar_one()
        _totals()[listing.name] = (number + found, settled, now + SETTLING)
    return number + newer


@lru_cache(maxsize=256)
def _between(listing: ListSpec[Any]) -> Select[Any]:
    """How many rows have an id above the border, up to another one.

    Always with both bounds: planned without values, PostgreSQL takes what has one for a third of the table,
    and starts parallel workers for a handful of rows.
    """
    key = _key(listing)
    inner = _keys(listing).where(key > bindparam("border"), key <= bindparam("until", type_=BigInteger))
    return select(func.count()).execution_options(prepare=True).select_from(inner.subquery())


def _key(listing: ListSpec[Any]) -> Any:
    return listing.model.__mapper__.primary_key[0]


def _keys(listing: ListSpec[Any]) -> Select[Any]:
    keys = select(_key(listing))
    return keys if listing.joins is None else listing.joins(keys)

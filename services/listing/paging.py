"""Pages of lists and searches. Rows with equal sort values are ordered by id, so that pages never overlap."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Integer, Select, bindparam, func, select

from column_types import MAX_INT
from database.functions import has_key, in_page, is_postgresql
from errors import invalid
from extensions import db
from models import Base
from security.permissions import Actor
from services.listing.conditions import build_conditions, check_visible
from services.listing.related_rows import preselect
from services.listing.spec import (
    MAX_MATCHES,
    ListColumn,
    ListQuery,
    ListSpec,
    Page,
    PreselectedIds,
    Records,
    TextMatch,
    Where,
    key_column,
    select_keys,
    select_rows,
)
from services.listing.totals import count_all, count_between, settled_rows, total
from services.rows import Record, execute_core

Row = TypeVar("Row", bound=Base)
TextSearch = Callable[[str], Where]
KEYS_OF_A_PART = 10_000  # of a whole list, as objects


def page(actor: Actor, spec: ListSpec[Row], query: ListQuery) -> Page[Row]:
    """Return one page of the rows that the caller may see.

    Raises 403 if a filter or the order uses a field that the role may not read.
    """
    if query.keys is not None:
        return _page_of_keys(actor, spec, query, query.keys)
    check_visible(actor, spec, query)
    result = _page(actor, spec, query, spec.text)
    if query.q and spec.nearly is not None and not result.total:
        result = _page(actor, spec, query, spec.nearly)
    return result


def _page(actor: Actor, spec: ListSpec[Row], query: ListQuery, text: TextSearch | None) -> Page[Row]:
    conditions = _conditions(actor, spec, query)
    if query.q and text is not None:
        conditions.append(text(query.q))
    key, records = key_column(spec), None if query.keys_only else spec.records
    if records is not None and query.sort_by == "id" and query.after is None and len(conditions) == 1:
        match = conditions[0]
        if isinstance(match, TextMatch) and (result := _page_of_matches(spec, records, query, match)):
            return result
    resolved = [preselect(key, one.bound) if isinstance(one, TextMatch) else one for one in conditions]
    if records is not None and query.sort_by == "id":
        preselected = [set(one.keys) for one in resolved if isinstance(one, PreselectedIds)]
        if not resolved:
            return _page_of_all(spec, records, query)
        if len(preselected) == len(resolved) and query.after is None:
            return _page_of_ids(spec, records, query, set.intersection(*preselected))
    wheres = _as_sql(key, resolved)
    _check_size(spec, query, wheres)
    only_keys = query.keys_only or records is not None
    statement = _ordered(spec, query.sort_by, query.descending, query.after is not None, only_keys)
    statement = statement.where(*wheres) if wheres else statement
    if query.keys_only:
        selected = _read_keys(statement, query)
        return Page([], len(selected), False, query, selected)
    rows: list[Any]
    if records is None:
        rows = list(db.session.execute(statement, _bounds(query)).unique().scalars())
    else:
        keys = db.session.connection().execute(statement, _bounds(query)).scalars().all()
        rows = _read_records(spec, records, keys)
    number, capped = total(spec, wheres, query, len(rows))
    return Page(rows, number, capped, query)


def _conditions(actor: Actor, spec: ListSpec[Row], query: ListQuery) -> list[Where]:
    """Return the conditions of the query without `q`, and the one that selects what the caller may see.

    The comparisons of the query are first.
    """
    conditions = build_conditions(spec, query)
    scope = spec.scope(actor) if spec.scope else None
    return conditions if scope is None else [*conditions, scope]


def _as_sql(key: Any, conditions: Sequence[Where]) -> list[ColumnElement[bool]]:
    bound = (one.bound if isinstance(one, TextMatch) else one for one in conditions)
    return [key.in_(one.keys) if isinstance(one, PreselectedIds) else one for one in bound]


def _read_keys(statement: Select[Any], query: ListQuery) -> array[int]:
    """Return the keys of a whole list in a compact form: a list may have a million rows."""
    keys = array("q")
    for part in (
        db.session.connection().execute(statement, _bounds(query)).scalars().partitions(KEYS_OF_A_PART)
    ):
        keys.extend(part)
    return keys


def _page_of_keys(actor: Actor, spec: ListSpec[Row], query: ListQuery, keys: Sequence[int]) -> Page[Row]:
    """Return the rows with these keys. Rows that are gone, or that the caller may not see, are left out."""
    wheres = _as_sql(key_column(spec), _conditions(actor, spec, query))
    by_keys = _by_keys(spec, is_postgresql(db.session.connection()))
    statement = by_keys.where(*wheres) if wheres else by_keys
    rows: list[Any]
    if spec.records is None:
        rows = list(db.session.execute(statement, {"keys": list(keys)}).unique().scalars())
    else:
        rows = spec.records.read(execute_core(statement, keys=list(keys)))
    by_key = {row.id: row for row in rows}
    ordered: list[Any] = [by_key[key] for key in keys if key in by_key]
    return Page(ordered, len(ordered), False, query)


def _check_size(spec: ListSpec[Any], query: ListQuery, wheres: Sequence[ColumnElement[bool]]) -> None:
    """Raise 422 if an order or a comparison computes its column for more rows than the column permits.

    `wheres` begins with the comparisons of the query.
    """
    computed = {query.sort_by, *(condition.name for condition in query.conditions)}
    limits = {name: limit for name in computed if (limit := spec.columns[name].max_rows) is not None}
    if not limits:
        return
    name = min(limits, key=lambda name: limits[name])
    comparisons = zip(query.conditions, wheres, strict=False)
    others = [where for condition, where in comparisons if condition.name not in limits]
    matches = select_keys(spec).where(*others, *wheres[len(query.conditions) :]).limit(limits[name] + 1)
    if db.session.execute(select(func.count()).select_from(matches.subquery())).scalar_one() > limits[name]:
        raise invalid(name, f"is computed for at most {limits[name]:,} rows; add a filter, such as a date")


def _bounds(query: ListQuery) -> dict[str, Any]:
    return {"length": query.limit, "skipped": query.offset, "after": query.after}


def _page_of_ids(spec: ListSpec[Any], records: Records, query: ListQuery, ids: set[int]) -> Page[Any]:
    """Return a page, ordered by id, of rows whose ids are all known."""
    ordered = sorted(ids, reverse=query.descending)
    shown = ordered[query.offset : query.offset + query.limit]
    return Page(_read_records(spec, records, shown), len(ids), False, query)


def _page_of_matches(
    spec: ListSpec[Any], records: Records, query: ListQuery, match: TextMatch
) -> Page[Any] | None:
    """Return a page, ordered by id, of a text search: its rows and their number in one statement.

    Return None above `MAX_MATCHES`, and for an empty page after the first one.
    """
    statement = _rows_and_matches(
        spec, match.condition, query.descending, is_postgresql(db.session.connection())
    )
    rows = execute_core(statement, **match.values, length=query.limit, skipped=query.offset).all()
    if not rows:
        return None if query.offset else Page([], 0, False, query)
    if rows[0].matches > MAX_MATCHES:
        return None
    ordered = sorted(records.read(rows), key=attrgetter("id"), reverse=query.descending)
    return Page(ordered, rows[0].matches, False, query)


@lru_cache(maxsize=256)
def _rows_and_matches(
    spec: ListSpec[Any], condition: ColumnElement[bool], descending: bool, postgresql: bool
) -> Select[Any]:
    key = key_column(spec)
    # PostgreSQL computes it first, because it is used twice
    matches = select_keys(spec).where(condition).limit(MAX_MATCHES + 1).cte("matches")
    match_key = matches.c[key.name]
    page_keys = (
        select(match_key)
        .order_by(match_key.desc() if descending else match_key.asc())
        .limit(bindparam("length", type_=Integer))
        .offset(bindparam("skipped", type_=Integer))
    )
    number = select(func.count()).select_from(matches).scalar_subquery().label("matches")
    rows = select_rows(spec).add_columns(number)
    return rows.where(in_page(key, page_keys, postgresql=postgresql))


def _page_of_all(spec: ListSpec[Any], records: Records, query: ListQuery) -> Page[Any]:
    """Return a page, ordered by id, of a list without conditions: rows and total in one statement."""
    settled = settled_rows(spec)
    statement = _rows_and_count(
        spec, query.descending, query.after is not None, is_postgresql(db.session.connection())
    )
    rows = execute_core(statement, above=settled.last_id, until=MAX_INT, **_bounds(query)).all()
    ordered = sorted(records.read(rows), key=attrgetter("id"), reverse=query.descending)
    number = count_all(spec, settled, rows[0].newer if rows else None)
    return Page(ordered, number, False, query)


@lru_cache(maxsize=64)
def _rows_and_count(spec: ListSpec[Any], descending: bool, after: bool, postgresql: bool) -> Select[Any]:
    key = key_column(spec)
    keys = select_keys(spec).limit(bindparam("length", type_=Integer))
    if after:
        keys = keys.where(key > bindparam("after")).order_by(key)
    else:
        order = key.desc() if descending else key.asc()
        keys = keys.order_by(order).offset(bindparam("skipped", type_=Integer))
    newer = count_between(spec).scalar_subquery().label("newer")
    return select_rows(spec).add_columns(newer).where(in_page(key, keys, postgresql=postgresql))


def _read_records(spec: ListSpec[Any], records: Records, keys: Sequence[int]) -> list[Record]:
    """Return the records with these keys, in this order.

    The keys are selected by a statement of their own. PostgreSQL would otherwise compute the shown columns
    of the skipped rows too.
    """
    if not keys:
        return []
    statement = _by_keys(spec, is_postgresql(db.session.connection()))
    rows = execute_core(statement, keys=list(keys)).all()
    by_key = {record.id: record for record in records.read(rows)}
    return [by_key[key] for key in keys]


@lru_cache(maxsize=64)
def _by_keys(spec: ListSpec[Any], postgresql: bool) -> Select[Any]:
    rows = select_rows(spec) if spec.records is not None else select_rows(spec).options(*spec.options)
    return rows.where(has_key(key_column(spec), "keys", postgresql=postgresql))


@lru_cache(maxsize=1024)
def _ordered(
    spec: ListSpec[Any], sort_by: str, descending: bool, after: bool, only_keys: bool
) -> Select[Any]:
    """Return the statement of an ordered list without conditions: of its rows, or of their keys.

    Statements are cached: SQLAlchemy takes longer to build one than PostgreSQL to run it.
    """
    key = key_column(spec)
    # as literals: PostgreSQL plans a list of unknown length with every execution
    length, skipped = (bindparam(name, type_=Integer, literal_execute=True) for name in ("length", "skipped"))
    base = select_keys(spec) if only_keys else select_rows(spec).options(*spec.options)
    statement = base.limit(length)
    if after:
        return statement.where(key > bindparam("after")).order_by(key)
    related = spec.columns[sort_by].related
    if related is not None:
        refers = related.key == related.foreign_key
        statement = statement.join(related.entity, refers, isouter=spec.columns[sort_by].nullable)
    return statement.order_by(*_order(spec.columns[sort_by], descending, key)).offset(skipped)


def _order(column: ListColumn, descending: bool, key: Any) -> list[Any]:
    order = [column.expression.desc() if descending else column.expression.asc()]
    if column.nullable:
        order[0] = order[0].nulls_last()  # on both engines, in both directions
    if column.expression is not key:
        order.append(key.desc() if descending else key.asc())
    return order
